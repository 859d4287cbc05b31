/* See warm.h. A table of what was asked for, by id, under one lock; each entry is assigned to a core, and only that core begins it and closes it.
 *
 *   NEW -> RUNNING -> DONE | FAILED | CANCELLED          NEW -> CANCELLED | FAILED (no rule any more, stopping)
 *
 * What has ended stays to be looked at, until newer ones push it out. */
#include "proxy/warm.h"

#include "base/mem.h"
#include "proxy/bring.h"
#include "proxy/warm_int.h"
#include "registry/name.h"
#include "registry/platform.h"

#define WARMS_MAX   256 /* kept */
#define RUNNING_MAX 32

enum warm_state { WARM_NEW, WARM_RUNNING, WARM_DONE, WARM_FAILED, WARM_CANCELLED };

struct warm {
    struct list_node node;
    struct warms *table;
    uint64_t id;
    unsigned core;       /* index of the proxy */
    struct bring *bring; /* RUNNING; its core's */
    struct bring_counts counts;
    enum warm_state state; /* from here on under the table's lock */
    bool cancel;
    struct digest digest;
    char error[700];
    /* fixed */
    char ns[NAME_REGISTRY_MAX + 1], repository[NAME_REPO_MAX + 1];
    char reference[DIGEST_TEXT_MAX + STORE_TAG_MAX], platforms[PLATFORMS_TEXT_MAX + 1];
};

struct warms {
    pthread_mutex_t lock; /* guards the rest; a leaf */
    struct list list;     /* oldest first */
    size_t n, running;    /* running: not ended */
    uint64_t last_id;
};

struct warms *warms_new(void)
{
    struct warms *t;
    NEW(t);
    pthread_mutex_init(&t->lock, NULL);
    list_init(&t->list);
    return t;
}

void warms_free(struct warms *t)
{
    struct list_node *n;
    while ((n = list_pop_front(&t->list)) != NULL)
        mem_free(CONTAINER_OF(n, struct warm, node));
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

static bool ended(const struct warm *w)
{
    return w->state != WARM_NEW && w->state != WARM_RUNNING;
}

/* ---- on the core ---- */

/* Under the lock. */
static void end(struct warm *w, enum warm_state state, const char *error)
{
    struct str text = STR_INIT(w->error);
    w->state = state;
    w->bring = NULL;
    w->table->running--;
    str_addz(&text, error);
}

static void on_brought(void *arg, const struct bring_end *e)
{
    struct warm *w = arg;
    pthread_mutex_lock(&w->table->lock);
    w->digest = e->digest;
    if (e->err == 0)
        end(w, WARM_DONE, "");
    else if (w->cancel)
        end(w, WARM_CANCELLED, "cancelled");
    else
        end(w, WARM_FAILED, e->why);
    pthread_mutex_unlock(&w->table->lock);
}

/* NULL: why says why. */
static struct bring *bring_image(struct proxy *px, struct warm *w, const char **why)
{
    char repo_text[NAME_REPO_MAX + 1], key_text[REPO_KEY_MAX];
    struct str repo = STR_INIT(repo_text), key = STR_INIT(key_text);
    const struct conf_rule *rule =
        proxy_match(setup_conf(px->setup), span_str(w->ns), span_str(w->repository), &repo, &key);
    *why = rule == NULL ? err_words(ERR_NAME_UNKNOWN) : err_words(ERR_STOPPING);
    if (rule == NULL || px->drain_until != 0)
        return NULL;
    struct bring_what what = {.setup = px->setup,
                              .rule = rule,
                              .repo = str_span(&repo),
                              .repo_key = str_span(&key),
                              .reference = span_str(w->reference),
                              .platforms = span_str(w->platforms),
                              .checked_before = clock_wall_ms() - rule->policy.tag_ttl_ms,
                              .counts = &w->counts,
                              .done = on_brought,
                              .arg = w};
    return bring_start(px, &what);
}

static void begin(struct proxy *px, struct warm *w)
{
    const char *why;
    struct bring *b = bring_image(px, w, &why);
    pthread_mutex_lock(&w->table->lock);
    w->bring = b;
    if (b != NULL)
        w->state = WARM_RUNNING;
    else
        end(w, WARM_FAILED, why);
    pthread_mutex_unlock(&w->table->lock);
}

/* The next one of this core that is to be begun, or closed (*close). Marks it as seen to. */
static struct warm *next_of(struct proxy *px, struct bring **close)
{
    struct warms *t = px->shared->warms;
    struct warm *found = NULL;
    *close = NULL;
    pthread_mutex_lock(&t->lock);
    LIST_FOREACH (n, &t->list) {
        struct warm *w = CONTAINER_OF(n, struct warm, node);
        if (w->core != px->index || ended(w))
            continue;
        if (w->state == WARM_NEW && w->cancel) {
            end(w, WARM_CANCELLED, "cancelled");
        } else if (w->state == WARM_NEW || (w->cancel && w->bring != NULL)) {
            found = w;
            *close = w->bring;
            w->bring = NULL;
            break;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

void warm_on_message(struct core_msg *m)
{
    struct proxy *px = CONTAINER_OF(m, struct proxy, warm);
    struct bring *close;
    struct warm *w;
    while ((w = next_of(px, &close)) != NULL) {
        if (close != NULL)
            bring_close(close, ERR_CLIENT_GONE);
        else
            begin(px, w);
    }
}

/* ---- calls ---- */

/* False: the core's proxy is gone. */
static bool post(struct proxy_shared *s, unsigned core)
{
    pthread_mutex_lock(&s->lock);
    struct proxy *px = s->proxies[core];
    if (px != NULL)
        core_post(px->core, &px->warm);
    pthread_mutex_unlock(&s->lock);
    return px != NULL;
}

static bool has_rule(struct proxy_shared *s, const struct warm_image *image)
{
    char repo_text[NAME_REPO_MAX + 1], key_text[REPO_KEY_MAX];
    struct str repo = STR_INIT(repo_text), key = STR_INIT(key_text);
    struct setup *setup = proxy_setup(s);
    bool has = proxy_match(setup_conf(setup), image->ns, image->repository, &repo, &key) != NULL;
    setup_unref(setup);
    return has;
}

static unsigned no(struct str *out, unsigned status, const char *why)
{
    str_reset(out);
    str_addz(out, why);
    return status;
}

static void keep(char *to, size_t cap, struct span s)
{
    struct str text = str_init(to, cap);
    str_add(&text, s);
    MUST(!text.cut);
}

static struct warm *entry_new(struct warms *t, const struct warm_image *image)
{
    struct warm *w;
    NEW(w);
    w->table = t;
    keep(w->ns, sizeof w->ns, image->ns);
    keep(w->repository, sizeof w->repository, image->repository);
    keep(w->reference, sizeof w->reference, image->reference);
    keep(w->platforms, sizeof w->platforms, image->platforms);
    return w;
}

/* Under the lock: what ended first makes room. */
static void forget_oldest(struct warms *t)
{
    LIST_FOREACH (n, &t->list) {
        struct warm *w = CONTAINER_OF(n, struct warm, node);
        if (!ended(w))
            continue;
        list_remove(&w->node);
        t->n--;
        mem_free(w);
        return;
    }
}

/* Under the lock. */
static struct warm *find(struct warms *t, uint64_t id)
{
    LIST_FOREACH (n, &t->list) {
        struct warm *w = CONTAINER_OF(n, struct warm, node);
        if (w->id == id)
            return w;
    }
    return NULL;
}

/* Its core is not there: nobody may begin it later, for nobody knows its id. */
static void give_up(struct warms *t, uint64_t id)
{
    pthread_mutex_lock(&t->lock);
    struct warm *w = find(t, id);
    if (w != NULL && w->state == WARM_NEW)
        end(w, WARM_FAILED, err_words(ERR_STOPPING));
    pthread_mutex_unlock(&t->lock);
}

unsigned warm_begin(struct proxy_shared *s, const struct warm_image *image, struct str *out)
{
    struct warms *t = s->warms;
    if (image->platforms.n > 0 && !bring_platforms_ok(image->platforms))
        return no(out, 400, "write platforms as in linux/amd64,linux/arm64, 16 of them at most, or 'all'");
    if (!has_rule(s, image))
        return no(out, 404, err_words(ERR_NAME_UNKNOWN));
    struct warm *w = entry_new(t, image);
    pthread_mutex_lock(&t->lock);
    bool full = t->running == RUNNING_MAX;
    if (!full) {
        if (t->n == WARMS_MAX)
            forget_oldest(t);
        w->id = ++t->last_id;
        w->core = (unsigned)(w->id % s->n_cores);
        list_push_back(&t->list, &w->node);
        t->n++;
        t->running++;
    }
    uint64_t id = w->id;
    unsigned core = w->core;
    pthread_mutex_unlock(&t->lock);
    if (full) {
        mem_free(w);
        return no(out, 503, "larder warms 32 images already; try again when one of them is here");
    }
    if (!post(s, core)) {
        give_up(t, id);
        return no(out, 503, err_words(ERR_STOPPING));
    }
    str_addf(out, "{\"id\":%llu}\n", (unsigned long long)id);
    return 200;
}

static void add_count(struct str *out, const char *name, const _Atomic uint64_t *n)
{
    str_addf(out, ",\"%s\":%llu", name, (unsigned long long)atomic_load(n));
}

static void write_entry(const struct warm *w, struct str *out)
{
    static const char *const names[] = {"running", "running", "done", "failed", "cancelled"};
    str_addf(out, "{\"id\":%llu,\"state\":\"%s\"", (unsigned long long)w->id, names[w->state]);
    if (w->error[0] != 0) {
        str_addz(out, ",\"error\":\"");
        str_addjson(out, span_str(w->error));
        str_addc(out, '"');
    }
    if (w->digest.alg != DIGEST_NONE) {
        str_addz(out, ",\"digest\":\"");
        digest_add(out, &w->digest);
        str_addc(out, '"');
    }
    add_count(out, "manifests", &w->counts.manifests);
    add_count(out, "blobs", &w->counts.blobs);
    add_count(out, "blobs_all", &w->counts.blobs_all);
    add_count(out, "bytes", &w->counts.bytes);
    add_count(out, "bytes_all", &w->counts.bytes_all);
    add_count(out, "fetched", &w->counts.fetched);
    add_count(out, "fetched_bytes", &w->counts.fetched_bytes);
    str_addz(out, "}\n");
}

bool warm_report(struct proxy_shared *s, uint64_t id, struct str *out)
{
    pthread_mutex_lock(&s->warms->lock);
    const struct warm *w = find(s->warms, id);
    if (w != NULL)
        write_entry(w, out);
    pthread_mutex_unlock(&s->warms->lock);
    return w != NULL;
}

bool warm_cancel(struct proxy_shared *s, uint64_t id)
{
    unsigned core = 0;
    pthread_mutex_lock(&s->warms->lock);
    struct warm *w = find(s->warms, id);
    bool runs = w != NULL && !ended(w);
    if (runs) {
        w->cancel = true;
        core = w->core;
    }
    pthread_mutex_unlock(&s->warms->lock);
    return runs && post(s, core);
}
