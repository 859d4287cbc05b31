/* See quota.h. Of the `kept` connections of a share some are spoken for: `promised` to waits that have got one and have not been collected
 * yet, or to be `shed`. The rest is spare. If one goes by itself, it is one of those to be shed, else a spare one, else a promised one: then
 * the wait makes a new one in its place, so that `open` stays as it is.
 *
 * Invariants, under the lock: busy <= open; the kept ones of all shares are open and not busy; no wait that may have more connections than
 * those before it may have one now, unless what is needed for it is being shed. */
#include "http/quota.h"

#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/ref.h"

struct quotas {
    struct ref ref;
    pthread_mutex_t
        lock; /* guards what follows, and the quotas and shares; under it a mailbox is locked, and nothing else */
    struct map by_origin;
};

struct quota {
    struct list shares;
    struct list waiting[2]; /* [1]: bulk */
    unsigned most[2];       /* none of them may have more; some may have left */
    unsigned busy, open, shedding;
    size_t n;
    char origin[];
};

struct quota_share {
    struct list_node node;
    struct quotas *all; /* a reference */
    struct quota *quota;
    struct core *core;
    struct core_msg turn;
    void (*on_turn)(void *owner);
    void *owner; /* NULL: it has left */
    struct list got;
    unsigned kept, promised, shed;
};

/* ---- counting; all of it under the lock ---- */

static unsigned spare(const struct quota_share *s)
{
    return s->kept - s->promised - s->shed;
}

static unsigned most_busy(const struct quota_wait *w)
{
    return w->bulk && w->max > 1 ? w->max - (w->max + 3) / 4 : w->max;
}

/* As many are open as may be, and not all of them are busy: an idle one has to go, wherever it is. */
static void shed_one(struct quota *q)
{
    if (q->shedding > 0)
        return;
    LIST_FOREACH (n, &q->shares) {
        struct quota_share *s = CONTAINER_OF(n, struct quota_share, node);
        if (spare(s) == 0)
            continue;
        s->shed++;
        q->shedding++;
        core_post(s->core, &s->turn);
        return;
    }
}

static enum quota_answer admit(struct quota_share *s, const struct quota_wait *w)
{
    struct quota *q = s->quota;
    if (q->busy >= most_busy(w))
        return QUOTA_WAIT;
    enum quota_answer got = spare(s) > 0 ? QUOTA_KEPT : QUOTA_NEW;
    if (got == QUOTA_NEW && q->open >= w->max) {
        shed_one(q);
        return QUOTA_WAIT;
    }
    q->busy++;
    q->open += got == QUOTA_NEW;
    return got;
}

/* Something has been given back. Who may have more connections does not wait for those who may have fewer. */
static void serve(struct quota *q)
{
    for (unsigned bulk = 0; bulk < ARRAY_LEN(q->waiting); bulk++) {
        unsigned held = 0; /* the most that one before it may have */
        LIST_FOREACH_SAFE (n, next, &q->waiting[bulk]) {
            if (held >= q->most[bulk])
                break;
            struct quota_wait *w = CONTAINER_OF(n, struct quota_wait, node);
            struct quota_share *s = w->share;
            enum quota_answer got = w->max > held ? admit(s, w) : QUOTA_WAIT;
            if (got == QUOTA_WAIT && w->max > held)
                held = w->max;
            if (got == QUOTA_WAIT)
                continue;
            s->promised += got == QUOTA_KEPT;
            w->got = true;
            list_remove(n);
            list_push_back(&s->got, n);
            core_post(s->core, &s->turn);
        }
    }
}

/* ---- asking and giving back ---- */

enum quota_answer quota_ask(struct quota_share *s, struct quota_wait *w)
{
    MUST(w->share == NULL && w->max > 0);
    pthread_mutex_lock(&s->all->lock);
    struct list *others = &s->quota->waiting[w->bulk];
    if (list_empty(others))
        s->quota->most[w->bulk] = 0;
    enum quota_answer got = w->max > s->quota->most[w->bulk] ? admit(s, w) : QUOTA_WAIT;
    s->kept -= got == QUOTA_KEPT;
    if (got == QUOTA_WAIT) {
        w->share = s;
        list_push_back(others, &w->node);
        if (w->max > s->quota->most[w->bulk])
            s->quota->most[w->bulk] = w->max;
        serve(s->quota); /* whom it stands behind may have left */
    }
    pthread_mutex_unlock(&s->all->lock);
    return got;
}

struct quota_wait *quota_collect(struct quota_share *s, enum quota_answer *got)
{
    struct quota_wait *w = NULL;
    pthread_mutex_lock(&s->all->lock);
    struct list_node *n = list_pop_front(&s->got);
    if (n != NULL) {
        w = CONTAINER_OF(n, struct quota_wait, node);
        w->share = NULL;
        w->got = false;
        *got = s->promised > 0 ? QUOTA_KEPT : QUOTA_NEW;
        if (s->promised > 0) {
            s->promised--;
            s->kept--;
        }
    }
    pthread_mutex_unlock(&s->all->lock);
    return w;
}

unsigned quota_shed(struct quota_share *s)
{
    pthread_mutex_lock(&s->all->lock);
    unsigned n = s->shed;
    pthread_mutex_unlock(&s->all->lock);
    return n;
}

void quota_withdraw(struct quota_wait *w)
{
    struct quota_share *s = w->share;
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->all->lock);
    struct quota *q = s->quota;
    list_remove(&w->node);
    if (w->got) {
        q->busy--;
        if (s->promised > 0)
            s->promised--;
        else
            q->open--;
    }
    w->got = false;
    w->share = NULL;
    serve(q); /* also when it only waited: it may have been in the way of the next */
    pthread_mutex_unlock(&s->all->lock);
}

void quota_kept(struct quota_share *s)
{
    pthread_mutex_lock(&s->all->lock);
    MUST(s->quota->busy > 0);
    s->quota->busy--;
    s->kept++;
    serve(s->quota);
    pthread_mutex_unlock(&s->all->lock);
}

static void kept_closed(struct quota_share *s)
{
    struct quota *q = s->quota;
    MUST(s->kept > 0);
    bool promised = spare(s) == 0 && s->shed == 0;
    if (s->shed > 0) {
        s->shed--;
        q->shedding--;
    }
    s->kept--;
    if (promised)
        s->promised--; /* a new one takes its place */
    else
        q->open--;
}

void quota_closed(struct quota_share *s, bool kept)
{
    pthread_mutex_lock(&s->all->lock);
    struct quota *q = s->quota;
    MUST(q->open > 0);
    if (kept) {
        kept_closed(s);
    } else {
        MUST(q->busy > 0);
        q->busy--;
        q->open--;
    }
    serve(q);
    pthread_mutex_unlock(&s->all->lock);
}

/* ---- shares ---- */

static void share_free(struct quota_share *s)
{
    quotas_unref(s->all);
    mem_free(s);
}

static void on_turn(struct core_msg *m)
{
    struct quota_share *s = CONTAINER_OF(m, struct quota_share, turn);
    if (s->owner == NULL)
        share_free(s);
    else
        s->on_turn(s->owner);
}

static struct quota *quota_of(struct quotas *all, struct span origin)
{
    struct quota *q = map_get(&all->by_origin, origin);
    if (q != NULL)
        return q;
    q = mem_zalloc(sizeof *q + origin.n);
    q->n = origin.n;
    memcpy(q->origin, origin.p, origin.n);
    list_init(&q->shares);
    for (unsigned i = 0; i < ARRAY_LEN(q->waiting); i++)
        list_init(&q->waiting[i]);
    map_put(&all->by_origin, span_of(q->origin, q->n), q);
    return q;
}

struct quota_share *quota_join(struct quotas *q, struct span origin, struct core *core,
                               void (*turn)(void *owner), void *owner)
{
    struct quota_share *s;
    core_check(core);
    NEW(s);
    s->all = quotas_ref(q);
    s->core = core;
    s->on_turn = turn;
    s->owner = owner;
    core_msg_init(&s->turn, on_turn);
    list_init(&s->got);
    pthread_mutex_lock(&q->lock);
    s->quota = quota_of(q, origin);
    list_push_back(&s->quota->shares, &s->node);
    pthread_mutex_unlock(&q->lock);
    return s;
}

void quota_leave(struct quota_share *s)
{
    struct quotas *all = s->all;
    struct quota *q = s->quota;
    core_check(s->core);
    MUST(s->kept == 0 && list_empty(&s->got));
    pthread_mutex_lock(&all->lock);
    list_remove(&s->node); /* nobody posts to it from here on */
    if (list_empty(&q->shares)) {
        MUST(q->open == 0 && list_empty(&q->waiting[0]) && list_empty(&q->waiting[1]));
        map_del(&all->by_origin, span_of(q->origin, q->n));
        mem_free(q);
    }
    pthread_mutex_unlock(&all->lock);
    s->owner = NULL;
    if (core_msg_idle(&s->turn))
        share_free(s);
}

/* ---- quotas ---- */

struct quotas *quotas_new(void)
{
    struct quotas *q;
    NEW(q);
    ref_init(&q->ref);
    pthread_mutex_init(&q->lock, NULL);
    map_init(&q->by_origin);
    return q;
}

struct quotas *quotas_ref(struct quotas *q)
{
    ref_take(&q->ref);
    return q;
}

void quotas_unref(struct quotas *q)
{
    if (!ref_drop(&q->ref))
        return;
    MUST(q->by_origin.used == 0);
    map_free(&q->by_origin);
    pthread_mutex_destroy(&q->lock);
    mem_free(q);
}
