/* A load generator that speaks registry over HTTP/1.1, plain or by TLS 1.2: herds on one object, closed and open loops of hits, idle
 * connections, whole image pulls. Runs one worker (client.h) per thread; the main thread shows progress, and merges
 * and prints at the end.
 *
 * Each mode is a set of functions: setup() makes the clients of one worker, and done() and failed() carry them on. A worker
 * stops when its clients are through (herd, pull), when the time is over (hits, rate), or when told (idle, rate --told).
 *
 * A "client" of a herd may use several connections (parallel ranges) or several requests on one (lazy ranges); its
 * latencies run from its start to its first byte of a body and to the end of its last answer. */
#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <jansson.h>

#include "client.h"

#define PULL_PARALLEL 3          /* containerd's max_concurrent_downloads */
#define SLOW_BUFFER   (64 << 10) /* a slow client does not let the kernel read for it */
#define HERD_BUFFER   (1 << 20)  /* the kernel's many MiB for each of hundreds halve what a machine moves */
#define LAZY_FOOTER   (64u << 10)
#define LAZY_CHUNK    (1u << 20)

enum ranges { RANGES_NONE, RANGES_LAZY, RANGES_PARALLEL };

struct mode {
    const char *name;
    const char *help;
    void (*setup)(struct worker *w);
    void (*done)(struct conn *c);
    void (*failed)(struct conn *c, enum fail why);
};

static struct {
    const struct mode *mode;
    unsigned threads, clients;
    double duration, timeout, hold; /* seconds */
    int64_t warmup, stagger;        /* ns */
    double rate;                    /* requests per second */
    double leave;                   /* share of clients */
    uint64_t read_rate, size, seed;
    enum ranges ranges;
    unsigned range_count; /* connections, or chunks */
    unsigned sources;
    int64_t receive_buffer; /* bytes; 0: the kernel's choice; -1: the mode's */
    bool verify, json, quiet, reconnect, told;
    bool https; /* the URL says so */
    struct tls_options tls;
    double zipf;
    unsigned pulls; /* per client */
    struct endpoint endpoint;
    char **paths; /* or image names for pull */
    char **heads; /* complete requests for the paths */
    size_t n_paths;
    double *popularity;  /* cumulative, for pull */
    int64_t start;       /* of the run; hits and rate: of what is counted */
    _Atomic int64_t end; /* the same; --told may bring it forward */
} opt = {.threads = 1,
         .clients = 64,
         .duration = 5,
         .timeout = 120,
         .hold = -1,
         .seed = 1,
         .pulls = 1,
         .range_count = 8,
         .receive_buffer = -1,
         .tls = {.ciphers = TLS_CIPHERS}};

static atomic_bool released; /* idle: the wait is over */
static atomic_uint idle_ready;

#define ACCEPT_MANIFESTS                                                                                     \
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "          \
    "application/vnd.docker.distribution.manifest.list.v2+json, "                                            \
    "application/vnd.docker.distribution.manifest.v2+json, */*\r\n"

static int request_text(char *buf, size_t cap, const char *method, const char *path, const char *more)
{
    int n = snprintf(buf, cap, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: larder-load\r\n%s%s\r\n", method,
                     path, opt.endpoint.host,
                     strstr(path, "/manifests/") != NULL ? ACCEPT_MANIFESTS : "Accept: */*\r\n", more);
    if (n < 0 || (size_t)n >= cap)
        die("the path is too long: %s", path);
    return n;
}

static void request_own(struct conn *c, const char *method, const char *path, const char *more)
{
    int n = request_text(c->own, sizeof c->own, method, path, more);
    conn_send(c, c->own, (size_t)n, strcmp(method, "HEAD") == 0);
}

/* How many of `total` this worker gets. */
static unsigned worker_share(const struct worker *w, unsigned total)
{
    return total / opt.threads + (w->index < total % opt.threads ? 1 : 0);
}

/* The digest that the last segment of a path names, without "sha256:"; NULL: none. */
static const char *path_digest(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && strncmp(slash, "/sha256:", 8) == 0 ? slash + 8 : NULL;
}

static void status_count(struct worker *w, unsigned status)
{
    w->stats->status_class[status / 100 < 6 ? status / 100 : 0]++;
}

/* ---- herd ---- */

struct herd_client {
    struct worker *w;
    struct conn *conns;
    unsigned n_conns, left; /* connections not through */
    bool over;              /* counted: good, failed or left */
    unsigned step;          /* lazy: requests sent */
    uint64_t rng;
    uint64_t leave_at; /* bytes; 0: stays */
    int64_t began, first;
};

struct herd {
    struct herd_client *clients;
    unsigned n, open;
};

static void herd_over(struct herd_client *k)
{
    k->over = true;
    for (unsigned i = 0; i < k->n_conns; i++)
        conn_close(&k->conns[i]);
    struct herd *herd = k->w->mode;
    if (--herd->open == 0)
        k->w->stop = true;
}

static void herd_range(struct conn *c, uint64_t from, uint64_t n)
{
    char more[80];
    snprintf(more, sizeof more, "Range: bytes=%llu-%llu\r\n", (unsigned long long)from,
             (unsigned long long)(from + n - 1));
    request_own(c, "GET", opt.paths[0], more);
}

/* As a lazy snapshotter does: the table of contents at the end first, then pieces here and there. */
static void herd_lazy_next(struct herd_client *k, struct conn *c)
{
    uint64_t n = k->step == 0 ? LAZY_FOOTER : LAZY_CHUNK;
    if (n > opt.size)
        n = opt.size;
    uint64_t from = opt.size - n;
    if (k->step > 0)
        from = (uint64_t)(random_unit(&k->rng) * (double)(from + 1));
    k->step++;
    herd_range(c, from, n);
}

static void herd_leave_check(struct worker *w, void *arg)
{
    struct herd_client *k = arg;
    if (k->over)
        return;
    uint64_t got = 0;
    for (unsigned i = 0; i < k->n_conns; i++)
        got += k->conns[i].got;
    if (got < k->leave_at) {
        timer_add(w, now_ns() + PACE_NS, herd_leave_check, k);
        return;
    }
    w->stats->left++;
    w->stats->bytes += got;
    herd_over(k);
}

static void herd_begin(struct worker *w, void *arg)
{
    struct herd_client *k = arg;
    k->began = now_ns();
    if (k->leave_at > 0)
        timer_add(w, k->began + PACE_NS, herd_leave_check, k);
    if (opt.ranges == RANGES_LAZY) {
        herd_lazy_next(k, &k->conns[0]);
    } else if (opt.ranges == RANGES_PARALLEL) {
        for (unsigned i = 0; i < k->n_conns; i++) {
            uint64_t from = opt.size * i / k->n_conns;
            herd_range(&k->conns[i], from, opt.size * (i + 1) / k->n_conns - from);
        }
    } else {
        conn_send(&k->conns[0], opt.heads[0], strlen(opt.heads[0]), false);
    }
}

static void herd_failed(struct conn *c, enum fail why)
{
    struct herd_client *k = c->owner;
    if (k->over)
        return;
    stats_fail(c->w->stats, c, why);
    herd_over(k);
}

static void herd_done(struct conn *c)
{
    struct herd_client *k = c->owner;
    status_count(c->w, c->status);
    const char *want = path_digest(opt.paths[0]);
    enum fail why = FAIL_COUNT;
    if (c->status != (opt.ranges == RANGES_NONE ? 200 : 206))
        why = FAIL_STATUS;
    else if (opt.verify && opt.ranges == RANGES_NONE && want != NULL && strcmp(want, c->digest_hex) != 0)
        why = FAIL_DIGEST;
    else if (opt.ranges == RANGES_NONE && opt.size > 0 && c->got != opt.size)
        why = FAIL_SHORT;
    if (why != FAIL_COUNT) {
        herd_failed(c, why);
        return;
    }
    c->w->stats->bytes += c->got;
    if (k->first == 0 || c->first < k->first)
        k->first = c->first;
    if (opt.ranges == RANGES_LAZY && k->step <= opt.range_count) {
        herd_lazy_next(k, c);
        return;
    }
    if (--k->left > 0)
        return;
    stats_good(c->w->stats, k->began, k->first, c->last);
    herd_over(k);
}

static void herd_setup(struct worker *w)
{
    struct herd *herd = w->mode = xzalloc(1, sizeof *herd);
    herd->n = herd->open = worker_share(w, opt.clients);
    herd->clients = xzalloc(herd->n, sizeof *herd->clients);
    if (herd->n == 0)
        w->stop = true;
    uint64_t rng = opt.seed + w->index * 7919u;
    unsigned per = opt.ranges == RANGES_PARALLEL ? opt.range_count : 1;
    for (unsigned i = 0; i < herd->n; i++) {
        struct herd_client *k = &herd->clients[i];
        k->w = w;
        k->n_conns = k->left = per;
        k->conns = xzalloc(per, sizeof *k->conns);
        k->rng = random_next(&rng);
        for (unsigned j = 0; j < per; j++) {
            conn_setup(&k->conns[j], w, &opt.endpoint, (i * opt.threads + w->index) * per + j, k);
            k->conns[j].verify = opt.verify;
            k->conns[j].read_rate = opt.read_rate;
            k->conns[j].last_length = UINT64_MAX; /* a large body is expected */
        }
        if (random_unit(&rng) < opt.leave)
            k->leave_at = 1 + (uint64_t)(random_unit(&rng) * (double)opt.size);
        timer_add(w, opt.start + (int64_t)(random_unit(&rng) * (double)opt.stagger), herd_begin, k);
    }
}

static void herd_timeout(struct worker *w)
{
    struct herd *herd = w->mode;
    for (unsigned i = 0; i < herd->n; i++)
        if (!herd->clients[i].over) {
            w->stats->fails[FAIL_TIMEOUT]++;
            for (unsigned j = 0; j < herd->clients[i].n_conns; j++)
                w->stats->bytes += herd->clients[i].conns[j].got;
        }
}

/* ---- hits: a closed loop ---- */

static void hits_next(struct conn *c)
{
    const char *head = opt.heads[c->index % opt.n_paths];
    c->index++;
    conn_send(c, head, strlen(head), false);
}

static void hits_begin(struct worker *w, void *arg)
{
    (void)w;
    hits_next(arg);
}

static void hits_failed(struct conn *c, enum fail why)
{
    stats_fail(c->w->stats, c, why);
    timer_add(c->w, now_ns() + 10 * NS_PER_MS, hits_begin,
              c); /* a server that is down does not make us spin */
}

/* What an answer that is not the one wanted counts as; FAIL_COUNT: it is right. */
static enum fail hits_judge(const struct conn *c, const char *path)
{
    const char *want = path_digest(path);
    if (c->status != 200)
        return FAIL_STATUS;
    if (opt.verify && want != NULL && strcmp(want, c->digest_hex) != 0)
        return FAIL_DIGEST;
    return FAIL_COUNT;
}

static void hits_done(struct conn *c)
{
    struct stats *s = c->w->stats;
    status_count(c->w, c->status);
    enum fail why = hits_judge(c, opt.paths[(c->index - 1) % opt.n_paths]);
    if (why != FAIL_COUNT) {
        stats_fail(s, c, why);
    } else if (c->last >= opt.start) {
        stats_good(s, c->began, c->first, c->last);
    }
    hits_next(c);
}

/* The bytes of a closed loop are those that came in its time, also of answers that began before it or end after it. */
static void hits_count(struct worker *w, void *arg)
{
    (void)arg;
    w->received = 0;
}

static void hits_halt(struct worker *w, void *arg)
{
    (void)arg;
    w->stats->bytes = w->received;
    w->stop = true;
}

static struct conn *conns_make(struct worker *w, unsigned n)
{
    struct conn *conns = xzalloc(n, sizeof *conns);
    for (unsigned i = 0; i < n; i++) {
        conn_setup(&conns[i], w, &opt.endpoint, i * opt.threads + w->index, NULL);
        conns[i].verify = opt.verify;
        conns[i].read_rate = opt.read_rate;
    }
    return conns;
}

static void hits_setup(struct worker *w)
{
    unsigned n = worker_share(w, opt.clients);
    struct conn *conns = w->mode = conns_make(w, n);
    for (unsigned i = 0; i < n; i++)
        timer_add(w, opt.start - opt.warmup, hits_begin, &conns[i]);
    timer_add(w, opt.start, hits_count, NULL);
    timer_add(w, opt.end, hits_halt, NULL);
}

/* ---- rate: an open loop ---- */

/* Requests are due at start + i / rate, whatever the server does. One that finds no free connection waits for the
 * next, and its latency runs from when it was due: waiting is not hidden. */
struct rate_loop {
    struct conn *conns, **ready;
    unsigned n_ready;
    uint64_t due, sent; /* requests */
    double interval;    /* ns */
    int64_t start;
};

static int64_t rate_when(const struct rate_loop *loop, uint64_t i)
{
    return loop->start + (int64_t)((double)i * loop->interval);
}

static void rate_send(struct conn *c)
{
    struct rate_loop *loop = c->w->mode;
    const char *head = opt.heads[loop->sent % opt.n_paths];
    c->index = (unsigned)(loop->sent % opt.n_paths);
    int64_t due = rate_when(loop, loop->sent++);
    conn_send(c, head, strlen(head), false);
    c->began = due;
}

static void rate_free(struct conn *c)
{
    struct rate_loop *loop = c->w->mode;
    if (loop->sent < loop->due)
        rate_send(c);
    else
        loop->ready[loop->n_ready++] = c;
}

static void rate_rejoin(struct worker *w, void *arg)
{
    (void)w;
    rate_free(arg);
}

static void rate_failed(struct conn *c, enum fail why)
{
    stats_fail(c->w->stats, c, why);
    timer_add(c->w, now_ns() + 10 * NS_PER_MS, rate_rejoin, c);
}

static void rate_done(struct conn *c)
{
    struct stats *s = c->w->stats;
    status_count(c->w, c->status);
    enum fail why = hits_judge(c, opt.paths[c->index]);
    if (why != FAIL_COUNT) {
        stats_fail(s, c, why);
    } else if (c->began >= opt.start) {
        s->bytes += c->got;
        stats_good(s, c->began, c->first, c->last);
    }
    rate_free(c);
}

/* Requests still unanswered a second after the last was due are counted as late. */
static void rate_end(struct worker *w, void *arg)
{
    struct rate_loop *loop = w->mode;
    (void)arg;
    uint64_t unanswered = loop->due - loop->sent + worker_share(w, opt.clients) - loop->n_ready;
    w->stats->fails[FAIL_TIMEOUT] += unanswered;
    w->stop = true;
}

static void rate_drained(struct worker *w, void *arg)
{
    struct rate_loop *loop = w->mode;
    if (loop->n_ready == worker_share(w, opt.clients) && loop->sent == loop->due)
        w->stop = true;
    else
        timer_add(w, now_ns() + NS_PER_MS, rate_drained, arg);
}

static void rate_tick(struct worker *w, void *arg)
{
    struct rate_loop *loop = w->mode;
    int64_t now = now_ns(), end = opt.end;
    while (rate_when(loop, loop->due) <= now && rate_when(loop, loop->due) < end)
        loop->due++;
    while (loop->sent < loop->due && loop->n_ready > 0)
        rate_send(loop->ready[--loop->n_ready]);
    if (rate_when(loop, loop->due) < end) {
        timer_add(w, rate_when(loop, loop->due), rate_tick, arg);
        return;
    }
    timer_add(w, end, rate_drained, NULL);
    timer_add(w, end + NS_PER_SEC, rate_end, NULL);
}

static void rate_setup(struct worker *w)
{
    struct rate_loop *loop = w->mode = xzalloc(1, sizeof *loop);
    unsigned n = worker_share(w, opt.clients);
    loop->conns = conns_make(w, n);
    loop->ready = xzalloc(n, sizeof(struct conn *));
    for (unsigned i = 0; i < n; i++)
        loop->ready[loop->n_ready++] = &loop->conns[i];
    loop->interval = 1e9 * opt.threads / opt.rate;
    loop->start = opt.start - opt.warmup + (int64_t)(loop->interval * w->index / opt.threads);
    timer_add(w, loop->start, rate_tick, NULL);
}

/* ---- idle ---- */

static void idle_look(struct worker *w, void *arg)
{
    if (atomic_load(&released))
        w->stop = true;
    else
        timer_add(w, now_ns() + 20 * NS_PER_MS, idle_look, arg);
}

static void idle_done(struct conn *c)
{
    status_count(c->w, c->status);
    c->w->stats->bytes += c->got;
    if (c->status != 200 || c->state != CONN_READY) {
        stats_fail(c->w->stats, c, FAIL_STATUS);
    } else {
        stats_good(c->w->stats, c->began, c->first, c->last);
    }
    atomic_fetch_add(&idle_ready, 1);
}

static void idle_failed(struct conn *c, enum fail why)
{
    atomic_fetch_add(&idle_ready, 1);
    stats_fail(c->w->stats, c, why);
}

static void idle_dropped(struct conn *c)
{
    c->w->stats->fails[FAIL_CLOSED]++;
}

static void idle_setup(struct worker *w)
{
    w->dropped = idle_dropped;
    unsigned n = worker_share(w, opt.clients);
    struct conn *conns = w->mode = conns_make(w, n);
    for (unsigned i = 0; i < n; i++) /* 20,000 a second: a listen queue is not the subject */
        timer_add(w, opt.start + (int64_t)i * 50000, hits_begin, &conns[i]);
    timer_add(w, opt.start, idle_look, NULL);
}

/* ---- pull: whole images ---- */

enum pull_step { PULL_RESOLVE, PULL_MANIFEST, PULL_BLOBS };

struct puller {
    struct worker *w;
    struct conn conns[PULL_PARALLEL];
    enum pull_step step;
    unsigned pulls_left;
    const char *image; /* "repo:tag" */
    char repo[256], tag[128];
    char (*blobs)[80]; /* "sha256:..." */
    size_t n_blobs, next, open;
    int64_t began, first;
    uint64_t rng;
};

struct pull_run {
    struct puller *pullers;
    unsigned n, open;
};

static void pull_begin(struct worker *w, void *arg);

static void pull_path(struct puller *p, struct conn *c, const char *method, const char *kind,
                      const char *reference)
{
    char path[600];
    snprintf(path, sizeof path, "/v2/%s/%s/%s", p->repo, kind, reference);
    request_own(c, method, path, "");
}

static void pull_end(struct puller *p)
{
    struct pull_run *run = p->w->mode;
    if (--p->pulls_left > 0)
        timer_add(p->w, 0, pull_begin, p);
    else if (--run->open == 0)
        p->w->stop = true;
}

static void pull_give_up(struct puller *p, struct conn *c, enum fail why)
{
    stats_fail(p->w->stats, c, why);
    for (unsigned i = 0; i < PULL_PARALLEL; i++)
        conn_close(&p->conns[i]);
    pull_end(p);
}

static void pull_failed(struct conn *c, enum fail why)
{
    pull_give_up(c->owner, c, why);
}

static const char *pick_image(struct puller *p)
{
    double x = random_unit(&p->rng);
    size_t i = 0;
    while (i + 1 < opt.n_paths && opt.popularity[i] < x)
        i++;
    return opt.paths[i];
}

static void pull_begin(struct worker *w, void *arg)
{
    (void)w;
    struct puller *p = arg;
    p->image = pick_image(p);
    const char *colon = strrchr(p->image, ':');
    size_t n = colon != NULL ? (size_t)(colon - p->image) : strlen(p->image);
    if (n >= sizeof p->repo)
        die("the name is too long: %s", p->image);
    memcpy(p->repo, p->image, n);
    p->repo[n] = '\0';
    snprintf(p->tag, sizeof p->tag, "%s", colon != NULL ? colon + 1 : "latest");
    p->step = PULL_RESOLVE;
    p->began = now_ns();
    p->first = 0;
    p->n_blobs = p->next = p->open = 0;
    pull_path(p, &p->conns[0], "HEAD", "manifests", p->tag);
}

static bool pull_blob_add(struct puller *p, const json_t *descriptor)
{
    const char *digest = json_string_value(json_object_get(descriptor, "digest"));
    if (digest == NULL || strlen(digest) >= sizeof *p->blobs)
        return false;
    p->blobs = xgrow(p->blobs, p->n_blobs + 1, sizeof *p->blobs);
    snprintf(p->blobs[p->n_blobs++], sizeof *p->blobs, "%s", digest);
    return true;
}

/* The manifest for linux/amd64 in an index, or its first. */
static const char *index_child(const json_t *manifests)
{
    size_t i;
    json_t *m;
    json_array_foreach(manifests, i, m)
    {
        const json_t *platform = json_object_get(m, "platform");
        const char *arch = json_string_value(json_object_get(platform, "architecture"));
        const char *os = json_string_value(json_object_get(platform, "os"));
        if (arch != NULL && os != NULL && strcmp(arch, "amd64") == 0 && strcmp(os, "linux") == 0)
            return json_string_value(json_object_get(m, "digest"));
    }
    return json_string_value(json_object_get(json_array_get(manifests, 0), "digest"));
}

static void pull_more(struct puller *p)
{
    for (unsigned i = 0; i < PULL_PARALLEL && p->next < p->n_blobs; i++) {
        struct conn *c = &p->conns[i];
        if (c->state != CONN_READY && c->state != CONN_CLOSED)
            continue;
        c->keep = false;
        p->open++;
        pull_path(p, c, "GET", "blobs", p->blobs[p->next++]);
    }
}

static bool pull_manifest(struct puller *p, struct conn *c)
{
    json_t *doc = json_loadb(c->kept, c->got, 0, NULL);
    const json_t *manifests = json_object_get(doc, "manifests");
    bool ok = false;
    if (manifests != NULL) {
        const char *child = index_child(manifests);
        ok = child != NULL;
        if (ok)
            pull_path(p, c, "GET", "manifests", child);
    } else {
        ok = pull_blob_add(p, json_object_get(doc, "config"));
        size_t i;
        json_t *layer;
        json_array_foreach(json_object_get(doc, "layers"), i, layer) ok = ok && pull_blob_add(p, layer);
        if (ok) {
            p->step = PULL_BLOBS;
            pull_more(p);
        }
    }
    json_decref(doc);
    return ok;
}

static bool pull_digest_right(const struct conn *c)
{
    if (!opt.verify || c->head_only)
        return true;
    const char *name = strstr(c->own, "/sha256:");
    return name == NULL || strncmp(name + 8, c->digest_hex, 64) == 0;
}

static void pull_done(struct conn *c)
{
    struct puller *p = c->owner;
    struct stats *s = p->w->stats;
    status_count(p->w, c->status);
    if (c->status != 200 || !pull_digest_right(c)) {
        pull_give_up(p, c, c->status != 200 ? FAIL_STATUS : FAIL_DIGEST);
        return;
    }
    s->bytes += c->got;
    if (p->first == 0)
        p->first = c->first;
    if (p->step == PULL_RESOLVE) {
        p->step = PULL_MANIFEST;
        c->keep = true;
        pull_path(p, c, "GET", "manifests", c->digest_header[0] != '\0' ? c->digest_header : p->tag);
        return;
    }
    if (p->step == PULL_MANIFEST) {
        if (!pull_manifest(p, c))
            pull_give_up(p, c, FAIL_INVALID);
        return;
    }
    p->open--;
    pull_more(p);
    if (p->open > 0)
        return;
    stats_good(s, p->began, p->first, c->last);
    pull_end(p);
}

static void pull_setup(struct worker *w)
{
    struct pull_run *run = w->mode = xzalloc(1, sizeof *run);
    run->n = run->open = worker_share(w, opt.clients);
    run->pullers = xzalloc(run->n, sizeof *run->pullers);
    w->want_digest = true;
    if (run->n == 0)
        w->stop = true;
    uint64_t rng = opt.seed + w->index * 7919u;
    for (unsigned i = 0; i < run->n; i++) {
        struct puller *p = &run->pullers[i];
        p->w = w;
        p->pulls_left = opt.pulls;
        p->rng = random_next(&rng);
        for (unsigned j = 0; j < PULL_PARALLEL; j++) {
            conn_setup(&p->conns[j], w, &opt.endpoint, i, p);
            p->conns[j].verify = opt.verify;
            p->conns[j].read_rate = opt.read_rate;
        }
        timer_add(w, opt.start + (int64_t)(random_unit(&rng) * (double)opt.stagger), pull_begin, p);
    }
}

static void pull_timeout(struct worker *w)
{
    struct pull_run *run = w->mode;
    for (unsigned i = 0; i < run->n; i++)
        w->stats->fails[FAIL_TIMEOUT] += run->pullers[i].pulls_left;
}

/* Zipf: the i-th image is pulled in proportion to 1 / i^s; s = 0: all alike. */
static void pull_popularity(void)
{
    opt.popularity = xzalloc(opt.n_paths, sizeof *opt.popularity);
    double sum = 0;
    for (size_t i = 0; i < opt.n_paths; i++)
        opt.popularity[i] = sum += pow((double)(i + 1), -opt.zipf);
    for (size_t i = 0; i < opt.n_paths; i++)
        opt.popularity[i] /= sum;
}

/* ---- the run ---- */

static const struct mode MODES[] = {
    {"herd", "many clients GET one URL at once", herd_setup, herd_done, herd_failed},
    {"hits", "closed loop: every connection asks again as soon as it is answered", hits_setup, hits_done,
     hits_failed},
    {"rate", "open loop: requests at a fixed rate, latency from when each was due", rate_setup, rate_done,
     rate_failed},
    {"idle", "connections that make one request and then stay open", idle_setup, idle_done, idle_failed},
    {"pull", "whole images: tag, manifests, blobs three at a time", pull_setup, pull_done, pull_failed},
};

static void run_timeout(struct worker *w, void *arg)
{
    (void)arg;
    if (opt.mode->setup == herd_setup)
        herd_timeout(w);
    if (opt.mode->setup == pull_setup)
        pull_timeout(w);
    w->stop = true;
}

static atomic_uint threads_over;

static void *thread_main(void *arg)
{
    struct worker *w = arg;
    w->done = opt.mode->done;
    w->failed = opt.mode->failed;
    w->source_addresses = opt.sources;
    w->reconnect = opt.reconnect;
    if (opt.https)
        w->tls = tls_client_new(&opt.tls, opt.endpoint.host);
    w->receive_buffer = (int)opt.receive_buffer;
    if (opt.receive_buffer < 0)
        w->receive_buffer = opt.read_rate > 0 ? SLOW_BUFFER : opt.mode->setup == herd_setup ? HERD_BUFFER : 0;
    opt.mode->setup(w);
    if (opt.mode->setup == herd_setup || opt.mode->setup == pull_setup)
        timer_add(w, opt.start + (int64_t)(opt.timeout * 1e9), run_timeout, NULL);
    worker_run(w);
    if (w->tls != NULL) {
        w->stats->full = w->tls->full;
        w->stats->resumed = w->tls->resumed;
    }
    atomic_fetch_add(&threads_over, 1);
    return NULL;
}

static void progress(struct worker *const *workers, int64_t now)
{
    uint64_t requests = 0, bytes = 0;
    for (unsigned i = 0; i < opt.threads; i++) {
        requests += atomic_load_explicit(&workers[i]->shown_requests, memory_order_relaxed);
        bytes += atomic_load_explicit(&workers[i]->shown_bytes, memory_order_relaxed);
    }
    fprintf(stderr, "larder-load: %s, %.0f s: %llu done, %.1f MiB\n", opt.mode->name,
            (double)(now - opt.start) / 1e9, (unsigned long long)requests, (double)bytes / 1048576);
}

static void ready_say(void)
{
    printf("ready\n");
    fflush(stdout);
}

/* Idle: says when all connections have made their request, then waits for --hold or for the end of stdin. */
static void idle_wait(void)
{
    while (atomic_load(&idle_ready) < opt.clients && now_ns() < opt.start + (int64_t)(opt.timeout * 1e9))
        poll(NULL, 0, 10);
    ready_say();
    if (opt.hold >= 0) {
        poll(NULL, 0, (int)(opt.hold * 1000));
    } else {
        char buf[256];
        while (read(STDIN_FILENO, buf, sizeof buf) > 0)
            ;
    }
    atomic_store(&released, true);
}

/* Rate: says when what is counted begins, and ends it when stdin ends. */
static void told_wait(void)
{
    while (now_ns() < opt.start)
        poll(NULL, 0, 1);
    ready_say();
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char buf[256];
    for (int64_t now = now_ns(); now < opt.end; now = now_ns())
        if (poll(&in, 1, 50) > 0 && read(STDIN_FILENO, buf, sizeof buf) <= 0)
            opt.end = now_ns();
}

static void run_wait(struct worker *const *workers)
{
    if (opt.mode->setup == idle_setup)
        idle_wait();
    if (opt.told)
        told_wait();
    int64_t next = opt.start + 5 * NS_PER_SEC;
    for (unsigned ms = 1; atomic_load(&threads_over) < opt.threads; ms = ms < 50 ? ms + 1 : 50) {
        poll(NULL, 0, (int)ms);
        int64_t now = now_ns();
        if (now < next || opt.quiet)
            continue;
        progress(workers, now);
        next += 5 * NS_PER_SEC;
    }
}

/* ---- the report ---- */

static const struct {
    const char *name;
    double percent;
} PERCENTILES[] = {{"min", 0}, {"p50", 50}, {"p90", 90}, {"p99", 99}, {"p999", 99.9}, {"max", 100}};

static json_t *report_latency(const struct hist *h)
{
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof PERCENTILES / sizeof PERCENTILES[0]; i++)
        json_object_set_new(o, PERCENTILES[i].name,
                            json_real((double)hist_percentile(h, PERCENTILES[i].percent) / 1e6));
    json_object_set_new(o, "mean", json_real(hist_mean(h) / 1e6));
    return o;
}

static uint64_t stats_failures(const struct stats *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < FAIL_COUNT; i++)
        n += s->fails[i];
    return n;
}

static void report_json(const struct stats *s, double seconds, double cpu)
{
    json_t *errors = json_object(), *statuses = json_object();
    for (unsigned i = 0; i < FAIL_COUNT; i++)
        json_object_set_new(errors, FAIL_WORDS[i], json_integer((json_int_t)s->fails[i]));
    for (unsigned i = 1; i < 6; i++) {
        char name[4] = {(char)('0' + i), 'x', 'x', '\0'};
        json_object_set_new(statuses, name, json_integer((json_int_t)s->status_class[i]));
    }
    json_t *o = json_pack(
        "{s:s, s:i, s:i, s:f, s:I, s:I, s:f, s:f, s:I, s:o, s:o, s:o, s:o, s:f, s:I, s:I, s:I, s:I, s:{s:I, "
        "s:I}}",
        "mode", opt.mode->name, "clients", (int)opt.clients, "threads", (int)opt.threads, "seconds", seconds,
        "requests", (json_int_t)s->requests, "bytes", (json_int_t)s->bytes, "requests_per_second",
        (double)s->requests / seconds, "bytes_per_second", (double)s->bytes / seconds, "left",
        (json_int_t)s->left, "errors", errors, "status", statuses, "first_byte_ms", report_latency(&s->first),
        "total_ms", report_latency(&s->total), "cpu_seconds", cpu, "start_ns", (json_int_t)opt.start,
        "first_byte_ns", (json_int_t)s->first_at, "last_first_byte_ns", (json_int_t)s->first_at_max, "end_ns",
        (json_int_t)s->last_at, "handshakes", "full", (json_int_t)s->full, "resumed", (json_int_t)s->resumed);
    if (o == NULL)
        die("the report could not be built");
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(o);
}

static void report_text(const struct stats *s, double seconds, double cpu)
{
    printf("%s: %u clients, %u threads, %.3f s\n", opt.mode->name, opt.clients, opt.threads, seconds);
    printf("  answered  %llu (%.1f a second)\n", (unsigned long long)s->requests,
           (double)s->requests / seconds);
    printf("  bytes     %llu (%.1f MB a second)\n", (unsigned long long)s->bytes,
           (double)s->bytes / seconds / 1e6);
    if (s->left > 0)
        printf("  left      %llu on purpose\n", (unsigned long long)s->left);
    printf("  failed    %llu", (unsigned long long)stats_failures(s));
    for (unsigned i = 0; i < FAIL_COUNT; i++)
        if (s->fails[i] > 0)
            printf(", %s %llu", FAIL_WORDS[i], (unsigned long long)s->fails[i]);
    printf("\n  ms        ");
    for (size_t i = 0; i < sizeof PERCENTILES / sizeof PERCENTILES[0]; i++)
        printf("%12s", PERCENTILES[i].name);
    const struct hist *hists[] = {&s->first, &s->total};
    static const char *const names[] = {"first byte", "total"};
    for (unsigned k = 0; k < 2; k++) {
        printf("\n  %-10s", names[k]);
        for (size_t i = 0; i < sizeof PERCENTILES / sizeof PERCENTILES[0]; i++)
            printf("%12.3f", (double)hist_percentile(hists[k], PERCENTILES[i].percent) / 1e6);
    }
    if (opt.https)
        printf("\n  handshakes %llu full, %llu resumed", (unsigned long long)s->full,
               (unsigned long long)s->resumed);
    printf("\n  processor %.2f s\n", cpu);
}

/* ---- arguments ---- */

static const char USAGE[] =
    "usage: larder-load MODE [OPTIONS] URL [PATH | IMAGE]...\n"
    "\n"
    "MODE is one of:\n"
    "  herd   many clients GET one URL at once\n"
    "  hits   closed loop: every connection asks again as soon as it is answered\n"
    "  rate   open loop: requests at a fixed rate, latency from when each was due\n"
    "  idle   connections that make one request and then stay open\n"
    "  pull   whole images: tag, manifests, config and layers three at a time\n"
    "URL is http://HOST:PORT/PATH or https://HOST:PORT/PATH; further paths on the same server may follow. "
    "For "
    "pull it\n"
    "is http://HOST:PORT or https://HOST:PORT, and REPOSITORY:TAG follow, the most popular first.\n"
    "\n"
    "  -c, --clients N        clients or connections (64)\n"
    "  -t, --threads N        threads (1)\n"
    "  -d, --duration TIME    hits, rate: how long is measured (5s)\n"
    "      --warmup TIME      hits, rate: how long before that (0s)\n"
    "      --rate N           rate: requests per second\n"
    "      --told             rate: say \"ready\" after the warmup, and end with stdin if that ends before "
    "--duration\n"
    "      --stagger TIME     herd, pull: clients start at random within TIME (0s)\n"
    "      --leave SHARE      herd: share of clients that leave at a random point, 0 to 1 (0); needs --size\n"
    "      --size BYTES       herd: the object's size; an answer of another size is an error\n"
    "      --ranges KIND      herd: lazy (the end, then pieces of 1 MiB) or parallel (one piece per "
    "connection);\n"
    "                         needs --size\n"
    "      --range-count N    herd: pieces of --ranges (8)\n"
    "      --read-rate BYTES  read at most so many bytes a second per connection\n"
    "      --hold TIME        idle: how long to stay after \"ready\" (until stdin ends)\n"
    "      --sources N        connect from 127.0.0.1 to 127.0.0.N in turn\n"
    "      --receive-buffer BYTES  of each socket; 0 leaves it to the kernel (herd: 1MiB; slow readers: "
    "64KiB; else 0)\n"
    "      --pulls N          pull: images per client (1)\n"
    "      --zipf S           pull: popularity by Zipf's law with exponent S (0: all alike)\n"
    "      --seed N           of all random choices (1)\n"
    "      --timeout TIME     herd, pull, idle: give up after TIME (120s)\n"
    "      --reconnect        a new connection for every request\n"
    "      --ca FILE          https: trust these certificates, and the server must have one for HOST\n"
    "      --insecure         https: take any certificate\n"
    "      --ciphers LIST     https: of TLS 1.2, by OpenSSL's names (" TLS_CIPHERS ")\n"
    "      --no-resume        https: a full handshake for every connection; else each thread resumes its "
    "last "
    "session\n"
    "      --verify           read and hash the bodies, compare with the digest in the path\n"
    "      --json             report as JSON\n"
    "      --quiet            no progress on stderr\n"
    "\n"
    "Sizes take KiB, MiB, GiB, KB, MB, GB; times us, ms, s, m. Exit status 0: every request was answered as "
    "wanted;\n"
    "1: wrong arguments or the run could not be made; 2: there were failures.\n";

enum {
    O_WARMUP = 256,
    O_RATE,
    O_TOLD,
    O_STAGGER,
    O_LEAVE,
    O_SIZE,
    O_RANGES,
    O_RANGE_COUNT,
    O_READ_RATE,
    O_HOLD,
    O_SOURCES,
    O_RECEIVE_BUFFER,
    O_PULLS,
    O_ZIPF,
    O_SEED,
    O_TIMEOUT,
    O_RECONNECT,
    O_CA,
    O_INSECURE,
    O_CIPHERS,
    O_NO_RESUME,
    O_VERIFY,
    O_JSON,
    O_QUIET
};

static const struct option OPTIONS[] = {{"clients", required_argument, NULL, 'c'},
                                        {"threads", required_argument, NULL, 't'},
                                        {"duration", required_argument, NULL, 'd'},
                                        {"help", no_argument, NULL, 'h'},
                                        {"warmup", required_argument, NULL, O_WARMUP},
                                        {"rate", required_argument, NULL, O_RATE},
                                        {"told", no_argument, NULL, O_TOLD},
                                        {"stagger", required_argument, NULL, O_STAGGER},
                                        {"leave", required_argument, NULL, O_LEAVE},
                                        {"size", required_argument, NULL, O_SIZE},
                                        {"ranges", required_argument, NULL, O_RANGES},
                                        {"range-count", required_argument, NULL, O_RANGE_COUNT},
                                        {"read-rate", required_argument, NULL, O_READ_RATE},
                                        {"hold", required_argument, NULL, O_HOLD},
                                        {"sources", required_argument, NULL, O_SOURCES},
                                        {"receive-buffer", required_argument, NULL, O_RECEIVE_BUFFER},
                                        {"pulls", required_argument, NULL, O_PULLS},
                                        {"zipf", required_argument, NULL, O_ZIPF},
                                        {"seed", required_argument, NULL, O_SEED},
                                        {"timeout", required_argument, NULL, O_TIMEOUT},
                                        {"reconnect", no_argument, NULL, O_RECONNECT},
                                        {"ca", required_argument, NULL, O_CA},
                                        {"insecure", no_argument, NULL, O_INSECURE},
                                        {"ciphers", required_argument, NULL, O_CIPHERS},
                                        {"no-resume", no_argument, NULL, O_NO_RESUME},
                                        {"verify", no_argument, NULL, O_VERIFY},
                                        {"json", no_argument, NULL, O_JSON},
                                        {"quiet", no_argument, NULL, O_QUIET},
                                        {NULL, 0, NULL, 0}};

static enum ranges parse_ranges(const char *text)
{
    if (strcmp(text, "lazy") == 0)
        return RANGES_LAZY;
    if (strcmp(text, "parallel") == 0)
        return RANGES_PARALLEL;
    die("--ranges: \"%s\" is neither lazy nor parallel", text);
}

static void option_take(int o, const char *arg)
{
    switch (o) {
    case 'c':
        opt.clients = (unsigned)parse_number("clients", arg, 1, 1e6);
        return;
    case 't':
        opt.threads = (unsigned)parse_number("threads", arg, 1, 256);
        return;
    case 'd':
        opt.duration = (double)parse_duration("duration", arg) / 1e9;
        return;
    case O_WARMUP:
        opt.warmup = parse_duration("warmup", arg);
        return;
    case O_RATE:
        opt.rate = parse_number("rate", arg, 0.001, 1e8);
        return;
    case O_TOLD:
        opt.told = true;
        return;
    case O_STAGGER:
        opt.stagger = parse_duration("stagger", arg);
        return;
    case O_LEAVE:
        opt.leave = parse_number("leave", arg, 0, 1);
        return;
    case O_SIZE:
        opt.size = parse_size("size", arg);
        return;
    case O_RANGES:
        opt.ranges = parse_ranges(arg);
        return;
    case O_RANGE_COUNT:
        opt.range_count = (unsigned)parse_number("range-count", arg, 1, 1000);
        return;
    case O_READ_RATE:
        opt.read_rate = parse_size("read-rate", arg);
        return;
    case O_HOLD:
        opt.hold = (double)parse_duration("hold", arg) / 1e9;
        return;
    case O_SOURCES:
        opt.sources = (unsigned)parse_number("sources", arg, 1, 250);
        return;
    case O_RECEIVE_BUFFER:
        opt.receive_buffer = (int64_t)parse_size("receive-buffer", arg);
        return;
    case O_PULLS:
        opt.pulls = (unsigned)parse_number("pulls", arg, 1, 1e6);
        return;
    case O_ZIPF:
        opt.zipf = parse_number("zipf", arg, 0, 10);
        return;
    case O_SEED:
        opt.seed = (uint64_t)parse_number("seed", arg, 0, 1e15);
        return;
    case O_TIMEOUT:
        opt.timeout = (double)parse_duration("timeout", arg) / 1e9;
        return;
    case O_RECONNECT:
        opt.reconnect = true;
        return;
    case O_CA:
        opt.tls.ca = arg;
        return;
    case O_INSECURE:
        opt.tls.insecure = true;
        return;
    case O_CIPHERS:
        opt.tls.ciphers = arg;
        return;
    case O_NO_RESUME:
        opt.tls.no_resume = true;
        return;
    case O_VERIFY:
        opt.verify = true;
        return;
    case O_JSON:
        opt.json = true;
        return;
    case O_QUIET:
        opt.quiet = true;
        return;
    case 'h':
        fputs(USAGE, stdout);
        exit(0);
    default:
        exit(1); /* getopt has said why */
    }
}

/* http[s]://HOST:PORT[/PATH] into opt; returns the path or NULL. */
static char *url_take(char *url)
{
    opt.https = strncmp(url, "https://", 8) == 0;
    if (!opt.https && strncmp(url, "http://", 7) != 0)
        die("\"%s\" is not a URL of the form http://HOST:PORT/PATH or https://HOST:PORT/PATH", url);
    char *host = url + (opt.https ? 8 : 7);
    char *path = strchr(host, '/');
    size_t n = path != NULL ? (size_t)(path - host) : strlen(host);
    if (n == 0 || n >= sizeof opt.endpoint.host)
        die("\"%s\" has no host of a usable length", url);
    memcpy(opt.endpoint.host, host, n);
    opt.endpoint.host[n] = '\0';
    address_parse(opt.endpoint.host, &opt.endpoint.addr, &opt.endpoint.len);
    return path != NULL && path[1] != '\0' ? path : NULL;
}

static void tls_take(void)
{
    if (opt.https)
        tls_options_check(&opt.tls);
    else if (opt.tls.ca != NULL || opt.tls.insecure || opt.tls.no_resume ||
             strcmp(opt.tls.ciphers, TLS_CIPHERS) != 0)
        die("--ca, --insecure, --ciphers and --no-resume are for an https:// URL");
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
}

static void targets_take(int argc, char **argv)
{
    if (argc < 1)
        die("a URL is missing; see --help");
    char *path = url_take(argv[0]);
    opt.paths = xzalloc((size_t)argc, sizeof *opt.paths);
    opt.heads = xzalloc((size_t)argc, sizeof *opt.heads);
    if (path != NULL)
        opt.paths[opt.n_paths++] = path;
    for (int i = 1; i < argc; i++)
        opt.paths[opt.n_paths++] = argv[i];
    bool pull = opt.mode->setup == pull_setup;
    if (opt.n_paths == 0)
        die(pull ? "an image is missing; see --help" : "a path is missing; see --help");
    for (size_t i = 0; i < opt.n_paths && !pull; i++) {
        if (opt.paths[i][0] != '/')
            die("the path \"%s\" does not begin with /", opt.paths[i]);
        char buf[4096];
        request_text(buf, sizeof buf, "GET", opt.paths[i], "");
        opt.heads[i] = xprintf("%s", buf);
    }
}

static void arguments_take(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "--help") == 0)
        option_take('h', NULL);
    for (size_t i = 0; i < sizeof MODES / sizeof MODES[0] && argc >= 2; i++)
        if (strcmp(argv[1], MODES[i].name) == 0)
            opt.mode = &MODES[i];
    if (opt.mode == NULL)
        die("the first argument is the mode: herd, hits, rate, idle or pull; see --help");
    int o;
    while ((o = getopt_long(argc - 1, argv + 1, "c:t:d:h", OPTIONS, NULL)) != -1)
        option_take(o, optarg);
    targets_take(argc - 1 - optind, argv + 1 + optind);
    tls_take();
    if (opt.mode->setup == rate_setup && opt.rate == 0)
        die("rate needs --rate");
    if (opt.mode->setup != rate_setup && opt.told)
        die("--told is for rate");
    if (opt.mode->setup == idle_setup && opt.reconnect)
        die("--reconnect closes connections, and idle is about those that stay");
    if ((opt.ranges != RANGES_NONE || opt.leave > 0) && opt.size == 0)
        die("--ranges and --leave need --size");
    if (opt.mode->setup == pull_setup)
        pull_popularity();
}

int main(int argc, char **argv)
{
    arguments_take(argc, argv);
    unsigned per = opt.mode->setup == pull_setup   ? PULL_PARALLEL
                   : opt.ranges == RANGES_PARALLEL ? opt.range_count
                                                   : 1;
    files_need((uint64_t)opt.clients * per + 64);
    double cpu = cpu_seconds();
    opt.start = now_ns() + 5 * NS_PER_MS + opt.warmup;
    opt.end = opt.start + (int64_t)(opt.duration * 1e9);
    static struct worker **workers;
    workers = xzalloc(opt.threads, sizeof(struct worker *));
    pthread_t *threads = xzalloc(opt.threads, sizeof *threads);
    for (unsigned i = 0; i < opt.threads; i++) {
        workers[i] = worker_new(i);
        if (pthread_create(&threads[i], NULL, thread_main, workers[i]) != 0)
            die("a thread could not be started");
    }
    run_wait(workers);
    static struct stats sum;
    const char *reason = NULL;
    for (unsigned i = 0; i < opt.threads; i++) {
        pthread_join(threads[i], NULL);
        stats_merge(&sum, workers[i]->stats);
        if (reason == NULL && workers[i]->tls != NULL && workers[i]->tls->reason[0] != '\0')
            reason = workers[i]->tls->reason;
    }
    free(threads);
    bool timed = opt.mode->setup == hits_setup || opt.mode->setup == rate_setup;
    int64_t end = timed ? opt.end : sum.last_at > opt.start ? sum.last_at : now_ns();
    double seconds = (double)(end - opt.start) / 1e9;
    cpu = cpu_seconds() - cpu;
    if (opt.json)
        report_json(&sum, seconds, cpu);
    else
        report_text(&sum, seconds, cpu);
    if (reason != NULL)
        fprintf(stderr, "larder-load: a TLS handshake with %s failed: %s\n", opt.endpoint.host, reason);
    return stats_failures(&sum) > 0 ? 2 : 0;
}
