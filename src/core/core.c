/* The core: loop, mailbox, timers, deferred work, jobs.
 *
 * Mailbox: one mutex and one list; the bell (uv_async) is rung on the edge from empty to non-empty only, and not at all by the core
 * itself, which looks into its mailbox before it sleeps. Draining detaches the whole list first, so a message may post others,
 * itself included.
 *
 * Timers: a hashed wheel of lists. Arming links into the slot of the due time; re-arming to a later time only
 * changes `due`, and the hand re-links what it finds early. So the common case (an idle timeout pushed back
 * at every request) costs one store. The tick runs only while a timer is armed.
 *
 * Life: RUNNING -> QUITTING (core_quit) -> the core's own handles are unreferenced all along, so the loop
 * ends when nobody else's handle is alive; then they are closed. */
#include <uv.h>

#include "base/mem.h"
#include "core/core.h"
#include "core/core_int.h"

#define WHEEL_SLOTS 1024
#define WHEEL_TICK  50 /* ms */

#define DEFERRED_TURN 128 /* deferred runs per turn of the loop; the rest waits for the next turn */

#define LAG_WINDOW 60000 /* ms */

#define CORE_MAGIC 0xc04e0001u

/* How late ticks were, in this window and in the one before. Written by the core, read by any. */
struct lag {
    _Atomic int64_t since_ms, most_ms, before_ms;
};

struct core {
    unsigned magic;
    unsigned id;
    uv_loop_t loop;

    uv_async_t bell;
    pthread_mutex_t lock; /* guards inbox and quit */
    struct list inbox;
    bool quit;

    uv_timer_t tick;
    bool ticking;
    _Atomic int64_t tick_due; /* 0: not ticking; read by any */
    struct lag lag;
    int64_t hand; /* the tick number up to which slots were served */
    unsigned armed;
    struct list wheel[WHEEL_SLOTS];

    uv_prepare_t before_sleep;
    uv_idle_t no_sleep; /* active while deferred work or own mail is left over: the loop must not block */
    bool own_mail;      /* the core has posted to itself */
    struct list deferred;

    struct list ops;
    void *slots[CORE_SLOTS];
    char *scratch;
    struct counters counters;
};

static _Thread_local struct core *current;

struct list *core_ops(struct core *c)
{
    return &c->ops;
}

/* ---- mailbox ---- */

void core_msg_init(struct core_msg *m, void (*run)(struct core_msg *m))
{
    m->node = (struct list_node){0};
    atomic_init(&m->posted, false);
    m->run = run;
}

bool core_msg_idle(const struct core_msg *m)
{
    return !atomic_load_explicit(&m->posted, memory_order_acquire);
}

static void on_no_sleep(uv_idle_t *idle)
{
    UNUSED(idle); /* its being active is what makes the loop poll with a timeout of zero */
}

static void own_mail(struct core *c)
{
    c->own_mail = true;
    uv_idle_start(&c->no_sleep, on_no_sleep);
}

void core_post(struct core *to, struct core_msg *m)
{
    if (atomic_exchange_explicit(&m->posted, true, memory_order_acq_rel))
        return;
    pthread_mutex_lock(&to->lock);
    bool edge = list_empty(&to->inbox);
    list_push_back(&to->inbox, &m->node);
    if (edge && to == current)
        own_mail(to);
    else if (
        edge) /* under the lock: whoever has drained the inbox knows that nobody is at the bell any more */
        uv_async_send(&to->bell);
    pthread_mutex_unlock(&to->lock);
}

static void on_bell(uv_async_t *bell)
{
    struct core *c = bell->data;
    struct list got;
    list_init(&got);
    pthread_mutex_lock(&c->lock);
    list_move_all(&got, &c->inbox);
    bool quit = c->quit;
    pthread_mutex_unlock(&c->lock);
    struct list_node *n;
    while ((n = list_pop_front(&got)) != NULL) {
        struct core_msg *m = CONTAINER_OF(n, struct core_msg, node);
        void (*run)(struct core_msg *) = m->run;
        atomic_store_explicit(&m->posted, false, memory_order_release);
        run(m);
    }
    if (quit)
        uv_unref((uv_handle_t *)&c->bell);
}

void core_quit(struct core *c)
{
    pthread_mutex_lock(&c->lock);
    c->quit = true;
    uv_async_send(&c->bell);
    pthread_mutex_unlock(&c->lock);
}

/* ---- timers ---- */

static void wheel_link(struct core *c, struct timer *t)
{
    int64_t tick = (t->due + WHEEL_TICK - 1) / WHEEL_TICK;
    if (tick <= c->hand)
        tick = c->hand + 1;
    list_push_back(&c->wheel[(uint64_t)tick % WHEEL_SLOTS], &t->node);
}

static void wheel_serve(struct core *c, int64_t now, struct list *slot)
{
    struct list found;
    list_init(&found);
    list_move_all(&found, slot);
    struct list_node *n;
    while ((n = list_pop_front(&found)) != NULL) {
        struct timer *t = CONTAINER_OF(n, struct timer, node);
        if (t->due > now) {
            wheel_link(c, t);
            continue;
        }
        t->due = 0;
        c->armed--;
        t->fire(t);
    }
}

static int64_t get(const _Atomic int64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void put(_Atomic int64_t *v, int64_t to)
{
    atomic_store_explicit(v, to, memory_order_relaxed);
}

/* A tick is late by what kept the loop from turning. */
static void note_lag(struct core *c, int64_t now)
{
    struct lag *l = &c->lag;
    int64_t late = now - get(&c->tick_due), age = now - get(&l->since_ms);
    put(&c->tick_due, now + WHEEL_TICK);
    if (age >= LAG_WINDOW) {
        put(&l->before_ms, age < 2 * LAG_WINDOW ? get(&l->most_ms) : 0);
        put(&l->most_ms, 0);
        put(&l->since_ms, now);
    }
    if (late > get(&l->most_ms))
        put(&l->most_ms, late);
}

int64_t core_overdue_ms(const struct core *c)
{
    int64_t due = get(&c->tick_due), late = clock_mono_ms() - due;
    return due != 0 && late > 0 ? late : 0;
}

int64_t core_lag_ms(const struct core *c)
{
    const struct lag *l = &c->lag;
    int64_t age = clock_mono_ms() - get(&l->since_ms), most = core_overdue_ms(c);
    if (age < 2 * LAG_WINDOW && get(&l->most_ms) > most)
        most = get(&l->most_ms);
    if (age < LAG_WINDOW && get(&l->before_ms) > most)
        most = get(&l->before_ms);
    return most;
}

static void on_tick(uv_timer_t *tick)
{
    struct core *c = tick->data;
    int64_t now = (int64_t)uv_now(&c->loop);
    note_lag(c, now);
    int64_t upto = now / WHEEL_TICK;
    if (upto - c->hand > WHEEL_SLOTS)
        c->hand = upto - WHEEL_SLOTS; /* the loop stood still for a whole round: each slot once is enough */
    while (c->hand < upto) {
        c->hand++;
        wheel_serve(c, now, &c->wheel[(uint64_t)c->hand % WHEEL_SLOTS]);
    }
    if (c->armed == 0) {
        uv_timer_stop(&c->tick);
        put(&c->tick_due, 0);
        c->ticking = false;
    }
}

void timer_init(struct timer *t, void (*fire)(struct timer *t))
{
    *t = (struct timer){.fire = fire};
}

void timer_arm(struct core *c, struct timer *t, int64_t ms)
{
    int64_t now = (int64_t)uv_now(&c->loop);
    int64_t due = now + (ms > 0 ? ms : 1);
    if (list_linked(&t->node) && t->due != 0 && due >= t->due) {
        t->due = due; /* the hand finds it early and moves it */
        return;
    }
    if (list_linked(&t->node)) {
        list_remove(&t->node);
        c->armed--;
    }
    if (!c->ticking) {
        c->hand = now / WHEEL_TICK;
        put(&c->tick_due, now + WHEEL_TICK);
        uv_timer_start(&c->tick, on_tick, WHEEL_TICK, WHEEL_TICK);
        c->ticking = true;
    }
    t->due = due;
    c->armed++;
    wheel_link(c, t);
}

void timer_disarm(struct timer *t)
{
    if (!list_linked(&t->node)) {
        t->due = 0;
        return;
    }
    MUST(current != NULL);
    list_remove(&t->node);
    current->armed--;
    t->due = 0;
}

/* ---- deferred work ---- */

/* What is started meanwhile waits for the next turn, behind what is left over from this one: between two runs of
 * one flow the sockets have theirs. */
static void run_deferred(struct core *c)
{
    struct list turn;
    list_init(&turn);
    list_move_all(&turn, &c->deferred);
    struct list_node *n;
    for (unsigned i = 0; i < DEFERRED_TURN && (n = list_pop_front(&turn)) != NULL; i++) {
        struct defer *d = CONTAINER_OF(n, struct defer, node);
        d->run(d);
    }
    list_move_all(&turn, &c->deferred);
    list_move_all(&c->deferred, &turn);
    if (list_empty(&c->deferred) && !c->own_mail)
        uv_idle_stop(&c->no_sleep);
}

static void on_before_sleep(uv_prepare_t *p)
{
    struct core *c = p->data;
    if (c->own_mail) {
        c->own_mail = false;
        on_bell(&c->bell);
    }
    if (uv_is_active((uv_handle_t *)&c->no_sleep)) /* also when what was deferred has been cancelled since */
        run_deferred(c);
}

void defer_init(struct defer *d, void (*run)(struct defer *d))
{
    *d = (struct defer){.run = run};
}

void defer_start(struct core *c, struct defer *d)
{
    if (list_linked(&d->node))
        return;
    if (list_empty(&c->deferred))
        uv_idle_start(&c->no_sleep, on_no_sleep); /* already active: a no-op */
    list_push_back(&c->deferred, &d->node);
}

void defer_cancel(struct defer *d)
{
    list_remove(&d->node);
}

/* ---- jobs ---- */

_Static_assert(sizeof(uv_work_t) <= sizeof(((struct job *)0)->req),
               "struct job is too small for libuv's request");

static struct job *job_of(uv_work_t *req)
{
    return CONTAINER_OF((void *)req, struct job, req);
}

static void on_work(uv_work_t *req)
{
    struct job *j = job_of(req);
    j->work(j);
}

static void on_work_done(uv_work_t *req, int status)
{
    struct job *j = job_of(req);
    MUST(status == 0); /* jobs are never cancelled */
    j->done(j);
}

void job_start(struct core *c, struct job *j, void (*work)(struct job *j), void (*done)(struct job *j))
{
    core_check(c);
    j->core = c;
    j->work = work;
    j->done = done;
    uv_work_t *req = (uv_work_t *)(void *)j->req;
    MUST(uv_queue_work(&c->loop, req, on_work, on_work_done) == 0);
}

/* ---- life ---- */

struct core *core_new(unsigned id)
{
    struct core *c;
    NEW(c);
    c->magic = CORE_MAGIC;
    c->id = id;
    if (uv_loop_init(&c->loop) != 0) {
        mem_free(c);
        return NULL;
    }
    if (uv_async_init(&c->loop, &c->bell, on_bell) != 0) {
        uv_loop_close(&c->loop);
        mem_free(c);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->inbox);
    list_init(&c->deferred);
    list_init(&c->ops);
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        list_init(&c->wheel[i]);
    MUST(uv_timer_init(&c->loop, &c->tick) == 0);
    MUST(uv_prepare_init(&c->loop, &c->before_sleep) == 0);
    MUST(uv_idle_init(&c->loop, &c->no_sleep) == 0);
    MUST(uv_prepare_start(&c->before_sleep, on_before_sleep) == 0);
    c->bell.data = c->tick.data = c->before_sleep.data = c->no_sleep.data = c;
    uv_unref((uv_handle_t *)&c->tick);
    uv_unref((uv_handle_t *)&c->before_sleep);
    c->scratch = mem_alloc(CORE_SCRATCH);
    c->hand = (int64_t)uv_now(&c->loop) / WHEEL_TICK;
    return c;
}

void core_run(struct core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    current = c;
    do {
        uv_run(&c->loop, UV_RUN_DEFAULT);
        on_bell(&c->bell); /* what was posted while the loop was ending */
    } while (uv_loop_alive(&c->loop));
    uv_close((uv_handle_t *)&c->bell, NULL);
    uv_close((uv_handle_t *)&c->tick, NULL);
    uv_close((uv_handle_t *)&c->before_sleep, NULL);
    uv_close((uv_handle_t *)&c->no_sleep, NULL);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    current = NULL;
}

void core_free(struct core *c)
{
    CHECK_MAGIC(c, CORE_MAGIC);
    MUST(list_empty(&c->inbox));
    MUST(uv_loop_close(&c->loop) == 0);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->scratch);
    c->magic = 0;
    mem_free(c);
}

unsigned core_id(const struct core *c)
{
    return c->id;
}

struct uv_loop_s *core_loop(struct core *c)
{
    return &c->loop;
}

bool core_is_current(const struct core *c)
{
    return c == current;
}

struct core *core_current(void)
{
    return current;
}

int64_t core_now(const struct core *c)
{
    return (int64_t)uv_now(&c->loop);
}

char *core_scratch(struct core *c)
{
    return c->scratch;
}

void *core_slot(const struct core *c, enum core_slot slot)
{
    return c->slots[slot];
}

void core_set_slot(struct core *c, enum core_slot slot, void *p)
{
    c->slots[slot] = p;
}

struct counters *core_counters(struct core *c)
{
    return &c->counters;
}
