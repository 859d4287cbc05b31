/* See refresh.h. Tags are kept in order of their last use, bounded in number; the one that was not used for longest makes room, and when
 * there are more than can be checked in time, those that were used last are. For each: when to look at it next. Looking decides everything anew
 * from the configuration in force and from the index, so a reload or a check by somebody else needs no word here:
 *
 *   no rule, or one that does not want it; a tag that never moves, that is not known, or was not used for a day   -> forgotten
 *   it names another manifest than the one whose image is here (`refresh: images`)                               -> brought
 *   still fresh for long                                                                                         -> later
 *   else                                                                                                         -> checked
 *
 * Brought is the image for the platforms that are here of the one before. A check that fails, or that the index does not take, and an image that
 * cannot be had whole, are tried again after a pause that doubles.
 *
 * What is remembered does not survive a stop: tags are noted again as they are used. */
#include "proxy/refresh.h"

#include "base/map.h"
#include "base/mem.h"
#include "conf/match.h"
#include "proxy/bring.h"
#include "registry/name.h"

#define USED_MAX      10000
#define RUNNING_MAX   4
#define UNUSED_MS     (INT64_C(24) * 3600 * 1000)
#define AHEAD_MAX_MS  60000
#define PAUSE_MS      5000
#define PAUSE_MAX_MS  (INT64_C(10) * 60000)
#define LOOK_AGAIN_MS 500 /* at least, between two rounds */
#define LOOKS_MAX     64  /* tags that are looked at in one turn of the loop */

struct used {
    struct list_node node; /* by last use, newest first */
    struct refresh *refresh;
    int64_t used_ms, due_ms, pause_ms; /* on core_now */
    bool busy;
    struct digest
        image; /* the manifest whose image is here, as far as clients wanted it; DIGEST_NONE: not looked at yet */
    struct digest named; /* busy: what the tag named when it began */
    int64_t checked_ms;  /* busy: likewise, when that had been checked */
    size_t n, ns_n, repository_n, tag_n;
    char key[]; /* ns, repository, tag, a blank between them */
};

struct refresh {
    struct proxy *px;
    struct map map;
    struct list list;
    struct timer timer;
    unsigned running;
    bool stopped;
};

static struct span ns_of(const struct used *u)
{
    return span_of(u->key, u->ns_n);
}

static struct span repository_of(const struct used *u)
{
    return span_of(u->key + u->ns_n + 1, u->repository_n);
}

static struct span tag_of(const struct used *u)
{
    return span_of(u->key + u->ns_n + u->repository_n + 2, u->tag_n);
}

static void forget(struct used *u)
{
    MUST(!u->busy);
    (void)map_del(&u->refresh->map, span_of(u->key, u->n));
    list_remove(&u->node);
    mem_free(u);
}

/* ---- what is done about one ---- */

/* The rule as it is now, and where it leads. */
struct way {
    const struct conf_rule *rule;
    struct str repo, key;
    char repo_text[NAME_REPO_MAX + 1], key_text[REPO_KEY_MAX];
};

static bool find_way(const struct used *u, struct way *w)
{
    const struct conf *conf = setup_conf(u->refresh->px->setup);
    w->repo = STR_INIT(w->repo_text);
    w->key = STR_INIT(w->key_text);
    w->rule = proxy_match(conf, ns_of(u), repository_of(u), &w->repo, &w->key);
    return w->rule != NULL;
}

static bool wants(const struct way *w, struct span tag)
{
    const struct conf_policy *p = &w->rule->policy;
    return p->refresh != REFRESH_OFF && p->tag_ttl_ms > 0 && !conf_tag_immutable(p, tag);
}

static void bring(struct used *u, const struct way *w, struct bring_what *what)
{
    what->setup = u->refresh->px->setup;
    what->rule = w->rule;
    what->repo = str_span(&w->repo);
    what->repo_key = str_span(&w->key);
    what->arg = u;
    u->busy = true;
    u->refresh->running++;
    (void)bring_start(u->refresh->px, what);
}

static void is_over(struct used *u)
{
    u->busy = false;
    u->refresh->running--;
    if (!u->refresh->stopped)
        timer_arm(u->refresh->px->core, &u->refresh->timer, 1);
}

static void try_later(struct used *u)
{
    u->pause_ms = u->pause_ms == 0 ? PAUSE_MS : u->pause_ms * 2;
    if (u->pause_ms > PAUSE_MAX_MS)
        u->pause_ms = PAUSE_MAX_MS;
    u->due_ms = core_now(u->refresh->px->core) + u->pause_ms;
}

static void went_well(struct used *u)
{
    u->pause_ms = 0;
    u->due_ms = core_now(u->refresh->px->core); /* is looked at, and then it is known when next */
}

static void on_image(void *arg, const struct bring_end *end)
{
    struct used *u = arg;
    is_over(u);
    if (end->err == 0) {
        u->image = u->named;
        went_well(u);
        return;
    }
    log_info("refresh", "the image that a tag names anew was not fetched ahead",
             LOG_SP("repository", repository_of(u)), LOG_SP("tag", tag_of(u)), LOG_S("why", end->why));
    try_later(u);
}

/* Does the index know of the check that has just ended well? A failing disk must not make it begin again at once. */
static bool is_kept(const struct used *u)
{
    struct way w;
    struct store_tag tag;
    return !find_way(u, &w) || !store_get_tag(u->refresh->px->reader, str_span(&w.key), tag_of(u), &tag) ||
           tag.checked_ms != u->checked_ms;
}

static void on_checked(void *arg, const struct bring_end *end)
{
    struct used *u = arg;
    COUNT(core_counters(u->refresh->px->core), refreshes, 1);
    is_over(u);
    if (end->err == 0 && !digest_eq(&end->digest, &u->named))
        log_info("refresh", "tag has moved", LOG_SP("repository", repository_of(u)), LOG_SP("tag", tag_of(u)),
                 LOG_D("digest", &end->digest));
    if (end->err == 0 && is_kept(u))
        went_well(u);
    else
        try_later(u);
}

/* How long before its time a tag is checked: long enough for a slow answer, and not so long that it is checked much more often. */
static int64_t ahead_of(int64_t ttl_ms)
{
    int64_t ahead = ttl_ms / 10;
    if (ahead < LOOK_AGAIN_MS * 2)
        ahead = LOOK_AGAIN_MS * 2;
    if (ahead > AHEAD_MAX_MS)
        ahead = AHEAD_MAX_MS;
    return ahead > ttl_ms / 2 ? ttl_ms / 2 : ahead;
}

/* It is due. False: it is to be forgotten. */
static bool look_at(struct used *u, int64_t now)
{
    struct proxy *px = u->refresh->px;
    struct way w;
    struct store_tag tag;
    if (!find_way(u, &w) || !wants(&w, tag_of(u)) ||
        !store_get_tag(px->reader, str_span(&w.key), tag_of(u), &tag))
        return false;
    const struct conf_policy *policy = &w.rule->policy;
    int64_t ttl = policy->tag_ttl_ms, age = clock_wall_ms() - tag.checked_ms;
    if (now - u->used_ms > UNUSED_MS && now - u->used_ms > 2 * ttl)
        return false;
    u->named = tag.digest;
    u->checked_ms = tag.checked_ms;
    if (u->image.alg == DIGEST_NONE || policy->refresh != REFRESH_IMAGES)
        u->image = tag.digest;
    if (!digest_eq(&u->image, &tag.digest)) {
        char text[DIGEST_TEXT_MAX];
        struct bring_what image = {
            .reference = span_str(digest_text(&tag.digest, text)), .like = &u->image, .done = on_image};
        bring(u, &w, &image);
        return true;
    }
    int64_t due_in = age < 0 || tag.others ? 0 : ttl - ahead_of(ttl) - age;
    if (due_in > 0) {
        u->due_ms = now + due_in;
        return true;
    }
    struct bring_what check = {
        .reference = tag_of(u), .tag_only = true, .checked_before = tag.checked_ms, .done = on_checked};
    bring(u, &w, &check);
    return true;
}

static void on_timer(struct timer *t)
{
    struct refresh *r = CONTAINER_OF(t, struct refresh, timer);
    int64_t now = core_now(r->px->core), next = INT64_MAX;
    unsigned looks = 0;
    LIST_FOREACH_SAFE (n, tmp, &r->list) {
        struct used *u = CONTAINER_OF(n, struct used, node);
        if (u->busy)
            continue; /* its end arms the timer */
        if (u->due_ms <= now && r->running < RUNNING_MAX && looks++ < LOOKS_MAX && !look_at(u, now)) {
            forget(u);
            continue;
        }
        if (!u->busy && u->due_ms < next)
            next = u->due_ms;
    }
    if (next == INT64_MAX)
        return;
    int64_t wait = next - now, least = looks > LOOKS_MAX ? 1 : LOOK_AGAIN_MS;
    timer_arm(r->px->core, &r->timer, wait > least ? wait : least);
}

/* ---- use ---- */

/* The one that was not used for longest makes room. False: all are busy. */
static bool make_room(struct refresh *r)
{
    for (struct list_node *n = list_last(&r->list); n != NULL && n != &r->list.head; n = n->prev) {
        struct used *u = CONTAINER_OF(n, struct used, node);
        if (u->busy)
            continue;
        forget(u);
        return true;
    }
    return false;
}

static void add(struct refresh *r, struct span key, size_t ns_n, size_t repository_n)
{
    if (r->map.used >= USED_MAX && !make_room(r))
        return;
    struct used *u = mem_zalloc(sizeof *u + key.n);
    u->refresh = r;
    u->n = key.n;
    u->ns_n = ns_n;
    u->repository_n = repository_n;
    u->tag_n = key.n - ns_n - repository_n - 2;
    u->used_ms = u->due_ms = core_now(r->px->core);
    memcpy(u->key, key.p, key.n);
    map_put(&r->map, span_of(u->key, u->n), u);
    list_push_front(&r->list, &u->node);
    if (r->timer.due == 0 || r->timer.due > u->due_ms + LOOK_AGAIN_MS)
        timer_arm(r->px->core, &r->timer, LOOK_AGAIN_MS);
}

void refresh_note(struct refresh *r, struct span ns, struct span repository, struct span tag)
{
    char text[NAME_REGISTRY_MAX + NAME_REPO_MAX + STORE_TAG_MAX + 4];
    struct str key = STR_INIT(text);
    str_add(&key, ns);
    str_addc(&key, ' ');
    str_add(&key, repository);
    str_addc(&key, ' ');
    str_add(&key, tag);
    if (r->stopped || key.cut)
        return;
    struct used *u = map_get(&r->map, str_span(&key));
    if (u == NULL) {
        add(r, str_span(&key), ns.n, repository.n);
        return;
    }
    u->used_ms = core_now(r->px->core);
    list_remove(&u->node);
    list_push_front(&r->list, &u->node);
}

/* ---- life ---- */

struct refresh *refresh_new(struct proxy *px)
{
    struct refresh *r;
    NEW(r);
    r->px = px;
    map_init(&r->map);
    list_init(&r->list);
    timer_init(&r->timer, on_timer);
    return r;
}

void refresh_stop(struct refresh *r)
{
    r->stopped = true;
    timer_disarm(&r->timer);
}

void refresh_free(struct refresh *r)
{
    struct list_node *n;
    MUST(r->running == 0);
    while ((n = list_first(&r->list)) != NULL)
        forget(CONTAINER_OF(n, struct used, node));
    map_free(&r->map);
    mem_free(r);
}
