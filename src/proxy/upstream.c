/* One request to an upstream: endpoints in turn, redirects on the same origin, verdicts on statuses, and the memory of
 * upstreams that are down.
 *
 * A round asks each endpoint at most once, beginning with the one that worked last. What an endpoint says wrong (no
 * connection, no answer, an error status) sends the round to the next one; the failure that is reported is the last
 * endpoint's. */
#include <time.h>

#include "http/url.h"
#include "proxy/proxy_int.h"

#define HEAD_BUDGET_MS  28000
#define REDIRECTS_MAX   5
#define RETRY_AFTER_MAX (60 * 60 * 1000)
#define DOWN_FIRST_MS   1000
#define DOWN_MAX_MS     30000

/* ---- health ---- */

bool upstream_is_down(const struct setup *setup, const struct conf_upstream *up, int *err, unsigned *status)
{
    struct upstream_health *h = setup_health(setup, up);
    *err = atomic_load_explicit(&h->err, memory_order_relaxed);
    *status = atomic_load_explicit(&h->status, memory_order_relaxed);
    return atomic_load_explicit(&h->down_until_ms, memory_order_relaxed) > clock_mono_ms();
}

static void health_good(struct upstream_try *t)
{
    struct upstream_health *h = setup_health(t->setup, t->up);
    if (atomic_load_explicit(&h->failures, memory_order_relaxed) == 0)
        return;
    atomic_store_explicit(&h->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&h->down_until_ms, 0, memory_order_relaxed);
}

static void health_bad(struct upstream_try *t)
{
    struct flight_failure *f = &t->failure;
    bool about_all = f->err == ERR_UP_RESOLVE || f->err == ERR_UP_CONNECT || f->err == ERR_UP_CLOSED ||
                     f->err == ERR_UP_PROTOCOL || f->err == ERR_UP_TIMEOUT || f->err == ERR_TOO_MANY ||
                     f->err == ERR_UP_UNAVAILABLE || f->status >= 500;
    if (!about_all) { /* it answered */
        health_good(t);
        return;
    }
    struct upstream_health *h = setup_health(t->setup, t->up);
    int n = atomic_load_explicit(&h->failures, memory_order_relaxed);
    int64_t pause = DOWN_FIRST_MS << (n < 5 ? n : 5);
    if (pause > DOWN_MAX_MS)
        pause = DOWN_MAX_MS;
    if (f->retry_after_ms > pause)
        pause = f->retry_after_ms;
    if (f->err == ERR_TOO_MANY && f->retry_after_ms < 0)
        f->retry_after_ms = pause; /* clients are told a time, too */
    if (f->err == ERR_TOO_MANY)
        atomic_store_explicit(&h->limited_until_ms[t->what], clock_mono_ms() + pause, memory_order_relaxed);
    atomic_store_explicit(&h->failures, n + 1, memory_order_relaxed);
    atomic_store_explicit(&h->err, f->err, memory_order_relaxed);
    atomic_store_explicit(&h->status, f->status, memory_order_relaxed);
    atomic_store_explicit(&h->down_until_ms, clock_mono_ms() + pause, memory_order_relaxed);
}

/* ---- verdicts ---- */

static int err_of_status(unsigned status, enum upstream_what what)
{
    switch (status) {
    case 401:
    case 403:
    case 451:
        return ERR_DENIED;
    case 404:
    case 410:
        return what == WHAT_BLOB       ? ERR_BLOB_UNKNOWN
               : what == WHAT_MANIFEST ? ERR_MANIFEST_UNKNOWN
                                       : ERR_TAGS_UNKNOWN;
    case 429:
        return ERR_TOO_MANY;
    case 503:
        return ERR_UP_UNAVAILABLE;
    case 408:
    case 504:
        return ERR_UP_TIMEOUT;
    default:
        return ERR_UP_STATUS;
    }
}

/* Retry-After: seconds or a date (RFC 9110 section 10.2.3); -1: absent or nonsense. */
static int64_t retry_after(const struct h1_head *head)
{
    struct span v = h1_get(head, SPAN("retry-after"));
    uint64_t s;
    int64_t ms = -1;
    if (v.p == NULL)
        return -1;
    if (span_u64(v, UINT32_MAX, &s)) {
        ms = (int64_t)s * 1000;
    } else if (v.n < 64) {
        char text[64];
        memcpy(text, v.p, v.n);
        text[v.n] = 0;
        struct tm tm = {0};
        if (strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm) != NULL)
            ms = (int64_t)timegm(&tm) * 1000 - clock_wall_ms();
        if (ms < 0)
            return -1;
    }
    return ms > RETRY_AFTER_MAX ? RETRY_AFTER_MAX : ms;
}

static void fail(struct upstream_try *t, int err, unsigned status, int64_t after, const char *why)
{
    t->failure = (struct flight_failure){.err = err, .status = status, .retry_after_ms = after};
    struct str s = STR_INIT(t->why);
    str_addz(&s, why);
}

void upstream_reject(struct upstream_try *t, int err, const char *why)
{
    fail(t, err, t->call.head != NULL ? t->call.head->status : 0, -1, why);
    upstream_stop(t);
}

static const struct conf_endpoint *endpoint_of(const struct upstream_try *t)
{
    return &t->up->endpoints[t->endpoint];
}

void upstream_log(const struct upstream_try *t, enum log_level level, const char *msg)
{
    log_emit(level, "upstream", msg, LOG_SP("registry", t->up->registry),
             LOG_SP("endpoint", endpoint_of(t)->url), LOG_S("method", t->head_only ? "HEAD" : "GET"),
             LOG_S("path", t->path), LOG_S("error", err_name(t->failure.err)),
             LOG_U("status", t->failure.status), LOG_S("why", t->why));
}

/* ---- asking ---- */

static void count_answer(struct upstream_try *t, unsigned status)
{
    unsigned class = status / 100;
    if (class > 5)
        class = 5;
    _Atomic int64_t *n = &setup_upstream_counts(t->setup, t->up, t->px->index)->n[class];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void ask_endpoint(struct upstream_try *t)
{
    const struct conf_endpoint *e = endpoint_of(t);
    uint64_t share = (t->up->max_connections + t->px->shared->n_cores - 1) / t->px->shared->n_cores;
    /* Layers may take long: some connections are left to what is small, so that no manifest waits for a layer. */
    if (t->what == WHAT_BLOB && share > 1)
        share -= (share + 3) / 4;
    t->call.origin =
        (struct origin){.host = e->host, .port = e->port, .tls = e->tls, .max_connections = (unsigned)share};
    t->call.method = t->head_only ? CALL_HEAD : CALL_GET;
    t->call.target = span_str(t->target);
    t->call.host_field = span_str(t->host);
    t->call.fields = span_str(t->fields);
    t->call.connect_ms = t->up->timeouts.connect_ms;
    t->call.first_byte_ms = t->up->timeouts.first_byte_ms;
    t->call.idle_ms = t->up->timeouts.idle_ms;
    t->call.deadline = t->deadline;
    call_start(t->px->pool, &t->call);
}

static void begin_endpoint(struct upstream_try *t)
{
    const struct conf_endpoint *e = endpoint_of(t);
    struct str target = STR_INIT(t->target), host = STR_INIT(t->host);
    str_add(&target, e->prefix);
    str_addz(&target, t->path);
    struct url u = {.tls = e->tls, .host = e->host, .ipv6 = span_find(e->host, ':') >= 0, .port = e->port};
    url_add_host(&u, &host);
    MUST(!target.cut && !host.cut);
    t->hops = 0;
    ask_endpoint(t);
}

/* A head must be there by then, whatever is tried: before the 30 s after which containerd gives up. */
int64_t upstream_deadline(struct proxy *px, const struct conf_upstream *up)
{
    int64_t budget = up->timeouts.connect_ms + up->timeouts.first_byte_ms;
    return core_now(px->core) + (budget < HEAD_BUDGET_MS ? budget : HEAD_BUDGET_MS);
}

static void on_later(struct defer *d)
{
    struct upstream_try *t = CONTAINER_OF(d, struct upstream_try, later);
    t->call.event(&t->call);
}

void upstream_start(struct upstream_try *t, void (*event)(struct call *call))
{
    t->call.event = event;
    t->asked = 0;
    t->why[0] = 0;
    t->failure = (struct flight_failure){.retry_after_ms = -1};
    struct upstream_health *h = setup_health(t->setup, t->up);
    int64_t left =
        atomic_load_explicit(&h->limited_until_ms[t->what], memory_order_relaxed) - clock_mono_ms();
    t->limited = left > 0;
    defer_init(&t->later, on_later);
    if (t->deadline == 0)
        t->deadline = upstream_deadline(t->px, t->up);
    if (t->limited) {
        fail(t, ERR_TOO_MANY, 429, left, "not asked: upstream limits requests of this kind");
        defer_start(t->px->core, &t->later);
    } else {
        begin_endpoint(t);
    }
}

void upstream_stop(struct upstream_try *t)
{
    if (t->limited)
        defer_cancel(&t->later);
    t->limited = false;
    call_end(&t->call);
}

/* The endpoint failed; goes to the next one if the round has one. */
static enum upstream_next next_endpoint(struct upstream_try *t)
{
    count_answer(t, t->failure.status);
    upstream_stop(t);
    if (++t->asked >= t->up->n_endpoints || core_now(t->px->core) >= t->deadline) {
        health_bad(t); /* the round is over: that is what is known of the upstream */
        return UPSTREAM_FAILED;
    }
    upstream_log(t, LOG_WARN, "endpoint failed, trying the next");
    t->endpoint = (t->endpoint + 1) % t->up->n_endpoints;
    begin_endpoint(t);
    return UPSTREAM_WAIT;
}

/* Follows a redirect within the endpoint's own origin. */
static enum upstream_next follow(struct upstream_try *t)
{
    const struct h1_head *head = t->call.head;
    const struct conf_endpoint *e = endpoint_of(t);
    char base[UPSTREAM_PATH_MAX + 1024], to[URL_MAX];
    struct str b = STR_INIT(base), s = STR_INIT(to);
    struct url from, dest;
    str_addz(&b, e->tls ? "https://" : "http://");
    str_addz(&b, t->host);
    str_addz(&b, t->target);
    struct span location = h1_get(head, SPAN("location"));
    bool ok = location.p != NULL && !b.cut && url_parse(str_span(&b), &from) &&
              url_resolve(&from, location, &s) && !s.cut && url_parse(str_span(&s), &dest);
    const char *why = "a redirect without a usable Location";
    if (ok && !url_same_origin(&from, &dest)) {
        ok = false;
        why = "a redirect to another host, which this version does not follow";
    }
    if (ok && (++t->hops > REDIRECTS_MAX || core_now(t->px->core) >= t->deadline)) {
        ok = false;
        why = "too many redirects";
    }
    struct str target = STR_INIT(t->target);
    if (ok) {
        str_add(&target, dest.path.n > 0 ? dest.path : SPAN("/"));
        if (dest.query.p != NULL) {
            str_addc(&target, '?');
            str_add(&target, dest.query);
        }
    }
    if (!ok || target.cut) {
        fail(t, ERR_UP_REDIRECT, head->status, -1, why);
        return next_endpoint(t);
    }
    count_answer(t, head->status);
    upstream_stop(t);
    ask_endpoint(t);
    return UPSTREAM_WAIT;
}

enum upstream_next upstream_step(struct upstream_try *t)
{
    if (t->limited)
        return UPSTREAM_FAILED;
    switch (t->call.state) {
    case CALL_FAILED:
        fail(t, t->call.err, 0, -1, t->call.why);
        return next_endpoint(t);
    case CALL_HEADED:
    case CALL_END:
        break;
    default:
        return UPSTREAM_WAIT;
    }
    const struct h1_head *head = t->call.head;
    if (head->status == 200 || head->status == 206) {
        count_answer(t, head->status);
        health_good(t);
        return UPSTREAM_HEADED;
    }
    if (head->status == 301 || head->status == 302 || head->status == 303 || head->status == 307 ||
        head->status == 308)
        return follow(t);
    char why[64];
    struct str s = STR_INIT(why);
    str_addf(&s, "status %u", head->status);
    if (head->status < 400) {
        fail(t, ERR_UP_CONTENT, head->status, -1, why);
        return next_endpoint(t);
    }
    fail(t, err_of_status(head->status, t->what), head->status, retry_after(head), why);
    return next_endpoint(t);
}
