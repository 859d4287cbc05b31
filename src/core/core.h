/* One event loop on one thread: a core. Everything that is not on the list of shared things in the design
 * belongs to exactly one core and is touched only on its thread; core_check() asserts it.
 *
 * Glossary of this room:
 *   core      loop, mailbox, timers, jobs, counters and scratch memory of one thread
 *   message   an embedded node with a function, posted from any thread, run once on the core's thread
 *   job       work on a thread of the pool (disk, hashing), with a completion on the core
 *   op        a flow as a resumable operation (op.h)
 *   slot      a pointer that a higher room keeps per core (its connection pool, its open files)
 */
#ifndef LARDER_CORE_CORE_H
#define LARDER_CORE_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/span.h"
#include "core/counters.h"

struct core;
struct uv_loop_s;

/* ---- life ---- */

struct core *core_new(unsigned id) MUSTCHECK; /* NULL: the system refused (descriptors) */
/* Runs the loop on the calling thread until core_quit and until every handle is closed. */
void core_run(struct core *c);
/* Any thread. The loop ends once nothing but the core's own handles is alive in it. */
void core_quit(struct core *c);
void core_free(struct core *c); /* after core_run has returned */

unsigned core_id(const struct core *c);
struct uv_loop_s *core_loop(struct core *c); /* for core and net only */
bool core_is_current(const struct core *c);
struct core *core_current(void); /* the calling thread's, or NULL */
#define core_check(c) MUST(core_is_current(c))

int64_t core_now(const struct core *c); /* monotonic ms, cached once per turn of the loop */

/* Memory for one callback's use: reading from a socket, formatting. Contents do not survive the callback. */
#define CORE_SCRATCH (256u << 10)
char *core_scratch(struct core *c);

enum core_slot {
    CORE_SLOT_STORE,
    CORE_SLOT_NET,
    CORE_SLOT_HTTP,
    CORE_SLOT_CLIENT,
    CORE_SLOT_FLIGHT,
    CORE_SLOT_PROXY,
    CORE_SLOT_RESOLVE,
    CORE_SLOTS
};
void *core_slot(const struct core *c, enum core_slot slot);
void core_set_slot(struct core *c, enum core_slot slot, void *p);

/* ---- messages ---- */

/* Posting a message that is already posted is a no-op: a message says "look again", it carries no data of its
 * own. It is marked idle right before it runs. The owner may free it only when it is idle and nobody can post
 * it any more. */
struct core_msg {
    struct list_node node;
    atomic_bool posted;
    void (*run)(struct core_msg *m);
};

void core_msg_init(struct core_msg *m, void (*run)(struct core_msg *m));
void core_post(struct core *to, struct core_msg *m); /* any thread */
bool core_msg_idle(const struct core_msg *m);

/* ---- timers: coarse (about 50 ms late at most), O(1) ---- */

struct timer {
    struct list_node node;
    int64_t due; /* on the clock of core_now; 0: not armed */
    void (*fire)(struct timer *t);
};

void timer_init(struct timer *t, void (*fire)(struct timer *t));
void timer_arm(struct core *c, struct timer *t, int64_t ms); /* again: moves it */
void timer_disarm(struct timer *t);                          /* not armed: a no-op */

/* ---- deferred work: runs later in this turn of the loop, or in the next, before it sleeps ---- */

struct defer {
    struct list_node node; /* linked: will run */
    void (*run)(struct defer *d);
};

void defer_init(struct defer *d, void (*run)(struct defer *d));
void defer_start(struct core *c, struct defer *d); /* already started: a no-op */
void defer_cancel(struct defer *d);

/* ---- jobs ---- */

/* `work` runs on a pool thread and may block on disks; `done` runs on the core afterwards, exactly once. The
 * struct must stay until then. Not cancellable: an owner that loses interest waits for `done`. */
struct job {
    _Alignas(16) unsigned char req[128];
    struct core *core;
    void (*work)(struct job *j);
    void (*done)(struct job *j);
};

void job_start(struct core *c, struct job *j, void (*work)(struct job *j), void (*done)(struct job *j));

/* ---- how the loop keeps up: any thread ---- */

/* For how long its clockwork is overdue: what runs on the core just now, or has stopped it, keeps it from its timers. 0: it is in time. */
int64_t core_overdue_ms(const struct core *c);
/* The longest that it was in the last minute (of two, at most), or is. */
int64_t core_lag_ms(const struct core *c);

/* ---- counters ---- */

/* Relaxed, written by the core only, read by anyone. */
struct counters *core_counters(struct core *c);

#endif
