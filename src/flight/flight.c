/* Flights; see flight.h for the states, the locks and the vocabulary.
 *
 * Who may do what: the leader alone changes the state and publishes. A core's thread alone touches its view, its seats and
 * the view's copies. flight->views, n_readers, wants, and everything that views copy are guarded by flight->lock.
 *
 * A view's message has the three positions of core.h. The view is freed by its core: when its last seat is gone it leaves
 * flight->views under the lock (so nobody posts any more), and is freed at once if its message is idle, else when the
 * message arrives. */
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "flight/flight.h"

#define FLIGHT_MAGIC 0xf1190001u
#define VIEW_MAGIC   0xf1190002u
#define SHARDS       16
#define WANTS_MAX    16
#define SIDE_MIN     (4u << 20) /* a gap below this is not worth a request of its own */

struct want {
    uint64_t from, to;
};

struct progress { /* what views copy */
    enum flight_state state;
    uint64_t length;
    struct flight_failure failure;
    uint64_t front;
    struct extents ahead;
};

struct flight {
    unsigned magic;
    struct ref ref;
    struct flights *table;
    struct span key, repo; /* into text */
    uint64_t hash;

    pthread_mutex_t lock; /* guards from here to the next gap */
    struct progress now;
    struct list views;
    unsigned n_readers; /* seats on all cores */
    unsigned n_parts;   /* ... that have asked for a part, and so may have what is ahead */
    struct core *leader_core;
    struct core_msg *leader_msg;
    struct want wants[WANTS_MAX];
    unsigned n_wants;
    uint64_t upto_at; /* what `upto` is the state of; 0: nothing is hashed yet */
    struct hasher upto;

    /* written by the leader before the state that announces it, read-only afterwards */
    struct partial partial;
    bool has_partial;
    struct flight_answer answer;
    char text[];
};

struct flight_view {
    unsigned magic;
    struct core *core;
    struct flight *flight; /* a reference */
    struct list_node node; /* flight->views, guarded by flight->lock */
    struct core_msg msg;
    struct list seats;
    unsigned n_seats;
    bool dead;
    struct progress seen;
};

struct shard {
    pthread_mutex_t lock;
    struct map flights;
};

struct flights {
    struct shard shards[SHARDS];
};

struct flight_core {
    struct flights *table;
    struct map views; /* by key: those that can be joined */
    unsigned n_views; /* dead ones included */
    unsigned closing; /* files: the last close of a large one that has been removed takes long */
};

static struct shard *shard_of(struct flights *t, uint64_t hash)
{
    return &t->shards[hash % SHARDS];
}

static struct flight_core *here(struct core *c)
{
    struct flight_core *fc = core_slot(c, CORE_SLOT_FLIGHT);
    MUST(fc != NULL);
    return fc;
}

/* ---- flights ---- */

static struct flight *flight_new(struct flights *t, struct span key, struct span repo, uint64_t hash)
{
    struct flight *f = mem_zalloc(sizeof *f + key.n + repo.n);
    f->magic = FLIGHT_MAGIC;
    ref_init(&f->ref);
    f->table = t;
    memcpy(f->text, key.p, key.n);
    memcpy(f->text + key.n, repo.p, repo.n);
    f->key = span_of(f->text, key.n);
    f->repo = span_of(f->text + key.n, repo.n);
    f->hash = hash;
    pthread_mutex_init(&f->lock, NULL);
    list_init(&f->views);
    f->now.state = FLIGHT_BUSY;
    f->now.length = FLIGHT_UNKNOWN;
    return f;
}

struct flight *flight_ref(struct flight *f)
{
    CHECK_MAGIC(f, FLIGHT_MAGIC);
    ref_take(&f->ref);
    return f;
}

/* The last close of a file that was removed frees its blocks, which can take long: in a job. */
struct closing {
    struct job job;
    struct partial partial;
};

static void close_work(struct job *j)
{
    partial_close(&CONTAINER_OF(j, struct closing, job)->partial);
}

static void close_done(struct job *j)
{
    here(j->core)->closing--;
    mem_free(CONTAINER_OF(j, struct closing, job));
}

static void close_later(struct partial *p)
{
    struct core *core = core_current();
    if (core == NULL) { /* after the loops have ended */
        partial_close(p);
        return;
    }
    struct closing *c;
    NEW(c);
    c->partial = *p;
    here(core)->closing++;
    job_start(core, &c->job, close_work, close_done);
}

void flight_unref(struct flight *f)
{
    CHECK_MAGIC(f, FLIGHT_MAGIC);
    if (!ref_drop(&f->ref))
        return;
    MUST(list_empty(&f->views) && f->leader_msg == NULL);
    if (f->has_partial)
        close_later(&f->partial);
    mem_free(f->answer.bytes);
    pthread_mutex_destroy(&f->lock);
    f->magic = 0;
    mem_free(f);
}

/* Under f->lock. */
static void post_views(struct flight *f)
{
    LIST_FOREACH (n, &f->views) {
        struct flight_view *v = CONTAINER_OF(n, struct flight_view, node);
        core_post(v->core, &v->msg);
    }
}

/* Under f->lock. */
static void post_leader(struct flight *f)
{
    if (f->leader_msg != NULL)
        core_post(f->leader_core, f->leader_msg);
}

/* ---- views ---- */

static void view_free(struct flight_view *v)
{
    struct flight_core *fc = here(v->core);
    MUST(v->n_seats == 0 && core_msg_idle(&v->msg));
    fc->n_views--;
    v->magic = 0;
    flight_unref(v->flight);
    mem_free(v);
}

static void view_copy(struct flight_view *v)
{
    struct flight *f = v->flight;
    pthread_mutex_lock(&f->lock);
    v->seen.state = f->now.state;
    v->seen.length = f->now.length;
    v->seen.failure = f->now.failure;
    v->seen.front = f->now.front;
    v->seen.ahead.n = f->now.ahead.n;
    memcpy(v->seen.ahead.e, f->now.ahead.e, f->now.ahead.n * sizeof f->now.ahead.e[0]);
    pthread_mutex_unlock(&f->lock);
}

static void on_view_msg(struct core_msg *m)
{
    struct flight_view *v = CONTAINER_OF(m, struct flight_view, msg);
    CHECK_MAGIC(v, VIEW_MAGIC);
    if (v->dead) {
        view_free(v);
        return;
    }
    view_copy(v);
    /* A wake may leave the seat, or fill the view with new ones: run over those that are here now. */
    struct list todo;
    list_init(&todo);
    list_move_all(&todo, &v->seats);
    v->n_seats++; /* keeps the view */
    struct list_node *n;
    while ((n = list_pop_front(&todo)) != NULL) {
        list_push_back(&v->seats, n);
        struct flight_seat *seat = CONTAINER_OF(n, struct flight_seat, node);
        seat->wake(seat);
    }
    struct flight_seat last = {.view = v};
    flight_leave(&last);
}

static struct flight_view *view_new(struct core *c, struct flight *f)
{
    struct flight_core *fc = here(c);
    struct flight_view *v;
    NEW(v);
    v->magic = VIEW_MAGIC;
    v->core = c;
    v->flight = f;
    core_msg_init(&v->msg, on_view_msg);
    list_init(&v->seats);
    map_put(&fc->views, f->key, v);
    fc->n_views++;
    return v;
}

/* No seat is left. */
static void view_close(struct flight_view *v)
{
    struct flight *f = v->flight;
    struct flight_core *fc = here(v->core);
    if (map_get(&fc->views, f->key) == v)
        (void)map_del(&fc->views, f->key);
    pthread_mutex_lock(&f->lock);
    list_remove(&v->node);
    pthread_mutex_unlock(&f->lock);
    v->dead = true;
    if (core_msg_idle(&v->msg))
        view_free(v);
}

static void seat_take(struct flight_view *v, struct flight_seat *seat)
{
    seat->view = v;
    seat->part = false;
    seat->node = (struct list_node){0};
    list_push_back(&v->seats, &seat->node);
    v->n_seats++;
    COUNT(core_counters(v->core), flight_readers, 1);
}

void flight_leave(struct flight_seat *seat)
{
    struct flight_view *v = seat->view;
    if (v == NULL)
        return;
    CHECK_MAGIC(v, VIEW_MAGIC);
    core_check(v->core);
    struct flight *f = v->flight;
    if (list_linked(&seat->node)) {
        list_remove(&seat->node);
        COUNT(core_counters(v->core), flight_readers, -1);
        pthread_mutex_lock(&f->lock);
        f->n_parts -= seat->part ? 1 : 0;
        if (--f->n_readers == 0)
            post_leader(f);
        pthread_mutex_unlock(&f->lock);
    }
    seat->view = NULL;
    if (--v->n_seats == 0)
        view_close(v);
}

/* ---- joining ---- */

/* A view of this core that may be joined: its flight has not ended. */
static bool join_here(struct flight_view *v, struct flight_seat *seat)
{
    struct flight *f = v->flight;
    pthread_mutex_lock(&f->lock);
    bool open = f->now.state < FLIGHT_DONE;
    if (open)
        f->n_readers++;
    pthread_mutex_unlock(&f->lock);
    if (open)
        seat_take(v, seat);
    return open;
}

enum flight_join flight_join(struct core *c, struct span key, struct span repo, bool may_lead,
                             bool (*recheck)(void *arg), void *arg, struct flight_seat *seat)
{
    core_check(c);
    MUST(key.n <= FLIGHT_KEY_MAX);
    struct flight_core *fc = here(c);
    uint64_t hash = map_hash(key);
    struct flight_view *v = map_get_hashed(&fc->views, key, hash);
    if (v != NULL && join_here(v, seat))
        return FLIGHT_JOINED;
    if (v != NULL) /* ended: its readers keep it, newcomers must not find it */
        (void)map_del(&fc->views, key);

    struct shard *sh = shard_of(fc->table, hash);
    pthread_mutex_lock(&sh->lock);
    struct flight *f = map_get_hashed(&sh->flights, key, hash);
    bool lead = f == NULL;
    if (lead && !may_lead) {
        pthread_mutex_unlock(&sh->lock);
        return FLIGHT_NONE;
    }
    if (lead && recheck != NULL && recheck(arg)) {
        pthread_mutex_unlock(&sh->lock);
        return FLIGHT_FOUND;
    }
    if (lead) {
        f = flight_new(fc->table, key, repo, hash);
        map_put(&sh->flights, f->key, f); /* the table's reference is the one it was born with */
    }
    v = view_new(c, flight_ref(f));
    pthread_mutex_lock(&f->lock);
    list_push_back(&f->views, &v->node);
    f->n_readers++;
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&sh->lock);
    view_copy(v);
    seat_take(v, seat);
    if (lead)
        COUNT(core_counters(c), flights_open, 1);
    return lead ? FLIGHT_LEAD : FLIGHT_JOINED;
}

/* ---- reading ---- */

enum flight_state flight_seen(const struct flight_seat *seat)
{
    return seat->view->seen.state;
}

const struct flight_failure *flight_failure(const struct flight_seat *seat)
{
    return &seat->view->seen.failure;
}

const struct flight_answer *flight_answer(const struct flight_seat *seat)
{
    MUST(seat->view->seen.state == FLIGHT_VERIFIED || seat->view->seen.state == FLIGHT_DONE);
    return &seat->view->flight->answer;
}

uint64_t flight_length(const struct flight_seat *seat)
{
    return seat->view->seen.length;
}

struct span flight_repo(const struct flight_seat *seat)
{
    return seat->view->flight->repo;
}

uint64_t flight_front(const struct flight_seat *seat)
{
    return seat->view->seen.front;
}

bool flight_upto(const struct flight_seat *seat, uint64_t at, struct hasher *out)
{
    struct flight *f = seat->view->flight;
    pthread_mutex_lock(&f->lock);
    bool known = at > 0 && f->upto_at == at;
    if (known)
        *out = f->upto;
    pthread_mutex_unlock(&f->lock);
    return known;
}

struct flight *flight_of(const struct flight_seat *seat)
{
    return seat->view->flight;
}

static void want_add(struct flight *f, uint64_t from, uint64_t to)
{
    pthread_mutex_lock(&f->lock);
    bool known = f->n_wants == WANTS_MAX;
    for (unsigned i = 0; i < f->n_wants && !known; i++)
        known = f->wants[i].from <= from && from < f->wants[i].to;
    if (!known) {
        f->wants[f->n_wants++] = (struct want){from, to};
        post_leader(f);
    }
    pthread_mutex_unlock(&f->lock);
}

/* What a whole-object response may have before the verdict: what is hashed, without the tail. */
static uint64_t hashed_from(const struct progress *p, uint64_t off)
{
    uint64_t upto = p->length != FLIGHT_UNKNOWN ? p->length : p->front;
    upto = upto > FLIGHT_TAIL ? upto - FLIGHT_TAIL : 0;
    if (upto > p->front)
        upto = p->front;
    return off < upto ? upto - off : 0;
}

/* What a range may have: the front and what is ahead. */
static uint64_t there_from(const struct progress *p, uint64_t off)
{
    uint64_t to = off < p->front ? p->front : off;
    return to - off + extents_from(&p->ahead, to);
}

/* From now on what is ahead is not forgotten; what had been by then is no part of the view any more. */
static void reads_parts(struct flight_seat *seat)
{
    struct flight *f = seat->view->flight;
    pthread_mutex_lock(&f->lock);
    f->n_parts++;
    pthread_mutex_unlock(&f->lock);
    seat->part = true;
    view_copy(seat->view);
}

enum body_status flight_bytes(struct flight_seat *seat, uint64_t off, uint64_t end, bool whole,
                              struct body_piece *piece)
{
    struct flight_view *v = seat->view;
    if (!whole && !seat->part)
        reads_parts(seat);
    const struct progress *p = &v->seen;
    bool verified = p->state == FLIGHT_VERIFIED || p->state == FLIGHT_DONE;
    if (verified && end > p->length)
        end = p->length;
    if (off >= end)
        return BODY_END;
    uint64_t have = whole && !verified ? hashed_from(p, off) : there_from(p, off);
    if (have > end - off)
        have = end - off;
    if (have > 0) {
        *piece = (struct body_piece){.fd = v->flight->partial.fd, .off = (off_t)off, .len = have};
        return BODY_PIECE;
    }
    if (p->state == FLIGHT_FAILED || p->state == FLIGHT_UNKEPT)
        return BODY_FAIL;
    if (!whole && end != FLIGHT_UNKNOWN && off > p->front + SIDE_MIN)
        want_add(v->flight, off, end);
    return BODY_WAIT;
}

/* ---- leading ---- */

struct span flight_key(const struct flight *f)
{
    return f->key;
}

void flight_set_leader(struct flight *f, struct core *core, struct core_msg *msg)
{
    pthread_mutex_lock(&f->lock);
    f->leader_core = core;
    f->leader_msg = msg;
    pthread_mutex_unlock(&f->lock);
}

void flight_clear_leader(struct flight *f)
{
    flight_set_leader(f, NULL, NULL);
}

void flight_set_partial(struct flight *f, const struct partial *p)
{
    MUST(!f->has_partial);
    f->partial = *p;
    f->has_partial = true;
}

struct partial *flight_partial(struct flight *f)
{
    MUST(f->has_partial);
    return &f->partial;
}

void flight_head(struct flight *f, uint64_t length)
{
    pthread_mutex_lock(&f->lock);
    MUST(f->now.state == FLIGHT_BUSY);
    f->now.length = length;
    f->now.state = FLIGHT_HEAD;
    post_views(f);
    pthread_mutex_unlock(&f->lock);
}

void flight_hashed(struct flight *f, uint64_t at, const struct hasher *upto)
{
    pthread_mutex_lock(&f->lock);
    f->upto_at = at;
    f->upto = *upto;
    pthread_mutex_unlock(&f->lock);
}

void flight_publish(struct flight *f, uint64_t front)
{
    pthread_mutex_lock(&f->lock);
    MUST(front >= f->now.front);
    f->now.front = front;
    if (f->now.state != FLIGHT_BUSY)
        post_views(f);
    pthread_mutex_unlock(&f->lock);
}

bool flight_publish_ahead(struct flight *f, uint64_t from, uint64_t to)
{
    pthread_mutex_lock(&f->lock);
    bool ok = extents_add(&f->now.ahead, from, to);
    if (ok && f->now.state != FLIGHT_BUSY)
        post_views(f);
    pthread_mutex_unlock(&f->lock);
    return ok;
}

bool flight_forget_ahead(struct flight *f)
{
    pthread_mutex_lock(&f->lock);
    const struct extents *ahead = &f->now.ahead;
    bool ok = f->n_parts == 0 || ahead->n == 0 || ahead->e[ahead->n - 1].to <= f->now.front;
    if (ok)
        f->now.ahead.n = 0;
    pthread_mutex_unlock(&f->lock);
    return ok;
}

void flight_unpublish(struct flight *f)
{
    pthread_mutex_lock(&f->lock);
    MUST(f->now.state == FLIGHT_BUSY);
    f->now.front = f->upto_at = 0;
    f->now.ahead.n = 0;
    pthread_mutex_unlock(&f->lock);
}

void flight_verified(struct flight *f, uint64_t length)
{
    pthread_mutex_lock(&f->lock);
    MUST(f->now.state == FLIGHT_HEAD && f->now.front == length);
    f->now.length = length;
    f->now.state = FLIGHT_VERIFIED;
    post_views(f);
    pthread_mutex_unlock(&f->lock);
}

void flight_answered(struct flight *f, const struct flight_answer *a)
{
    pthread_mutex_lock(&f->lock);
    MUST(f->now.state == FLIGHT_BUSY);
    f->answer = *a;
    f->now.length = a->length;
    f->now.state = FLIGHT_VERIFIED;
    post_views(f);
    pthread_mutex_unlock(&f->lock);
}

/* Takes the flight out of the table and drops the table's reference. Leader's thread; the leader holds its own. */
static void flight_end(struct flight *f, enum flight_state state, const struct flight_failure *why)
{
    struct shard *sh = shard_of(f->table, f->hash);
    pthread_mutex_lock(&sh->lock);
    MUST(map_del(&sh->flights, f->key) == f);
    pthread_mutex_lock(&f->lock);
    f->now.state = state;
    if (why != NULL)
        f->now.failure = *why;
    post_views(f);
    struct core *core = f->leader_core;
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&sh->lock);
    if (core != NULL)
        COUNT(core_counters(core), flights_open, -1);
    flight_unref(f);
}

void flight_done(struct flight *f)
{
    flight_end(f, FLIGHT_DONE, NULL);
}

void flight_fail(struct flight *f, const struct flight_failure *why)
{
    flight_end(f, FLIGHT_FAILED, why);
}

void flight_unkept(struct flight *f)
{
    MUST(f->now.state == FLIGHT_HEAD);
    flight_end(f, FLIGHT_UNKEPT, NULL);
}

unsigned flight_readers(struct flight *f)
{
    pthread_mutex_lock(&f->lock);
    unsigned n = f->n_readers;
    pthread_mutex_unlock(&f->lock);
    return n;
}

bool flight_abandon(struct flight *f)
{
    struct shard *sh = shard_of(f->table, f->hash);
    pthread_mutex_lock(&sh->lock);
    pthread_mutex_lock(&f->lock);
    bool alone = f->n_readers == 0 && (f->now.state == FLIGHT_BUSY || f->now.state == FLIGHT_HEAD);
    if (alone) {
        f->now.state = FLIGHT_FAILED;
        f->now.failure = (struct flight_failure){.err = ERR_CLIENT_GONE, .retry_after_ms = -1};
        MUST(map_del(&sh->flights, f->key) == f);
    }
    struct core *core = f->leader_core;
    pthread_mutex_unlock(&f->lock);
    pthread_mutex_unlock(&sh->lock);
    if (!alone)
        return false;
    if (core != NULL)
        COUNT(core_counters(core), flights_open, -1);
    flight_unref(f);
    return true;
}

bool flight_take_want(struct flight *f, uint64_t *from, uint64_t *to)
{
    bool found = false;
    pthread_mutex_lock(&f->lock);
    while (f->n_wants > 0 && !found) {
        struct want w = f->wants[0];
        memmove(f->wants, f->wants + 1, --f->n_wants * sizeof f->wants[0]);
        uint64_t next = w.from + extents_from(&f->now.ahead, w.from);
        found = next < w.to && next > f->now.front;
        *from = next;
        *to = w.to;
    }
    pthread_mutex_unlock(&f->lock);
    return found;
}

/* ---- the table ---- */

struct flights *flights_new(void)
{
    struct flights *t;
    NEW(t);
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&t->shards[i].lock, NULL);
        map_init(&t->shards[i].flights);
    }
    return t;
}

unsigned flights_count(struct flights *t)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&t->shards[i].lock);
        n += (unsigned)t->shards[i].flights.used;
        pthread_mutex_unlock(&t->shards[i].lock);
    }
    return n;
}

void flights_free(struct flights *t)
{
    MUST(flights_count(t) == 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_destroy(&t->shards[i].lock);
        map_free(&t->shards[i].flights);
    }
    mem_free(t);
}

void flight_core_init(struct core *c, struct flights *t)
{
    struct flight_core *fc;
    NEW(fc);
    fc->table = t;
    map_init(&fc->views);
    core_set_slot(c, CORE_SLOT_FLIGHT, fc);
}

bool flight_core_idle(struct core *c)
{
    return here(c)->n_views == 0 && here(c)->closing == 0;
}

void flight_core_free(struct core *c)
{
    struct flight_core *fc = here(c);
    MUST(fc->n_views == 0);
    map_free(&fc->views);
    core_set_slot(c, CORE_SLOT_FLIGHT, NULL);
    mem_free(fc);
}
