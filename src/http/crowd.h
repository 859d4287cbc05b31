/* The client connections of several servers, one on each core, and their common bound. When it is reached, a newcomer takes the place of
 * an idle connection, one that waits for a request or for the rest of one: of the one that has waited for the longest time. If that is
 * another server's, it is told by a message, and others are asked first until it has closed one. It may be in work again by then; then
 * there is one too many until somebody's connection has nothing to do.
 *
 * Thread: the functions are for the member's core. One mutex, a leaf, is taken only where the bound is reached. */
#ifndef LARDER_HTTP_CROWD_H
#define LARDER_HTTP_CROWD_H

#include "core/core.h"

struct crowd;

struct crowd *crowd_new(void);
void crowd_free(struct crowd *c); /* no member, no connection */

struct crowd_member {
    struct list_node node;
    struct crowd *crowd;
    struct core *core;
    struct core_msg shed;     /* so many as are `owed` are to be closed */
    atomic_uint idle;         /* connections; this and since_ms are written by the member's core only */
    _Atomic int64_t since_ms; /* when the first of them began to wait, by core_now */
    unsigned owed;            /* guarded by the crowd's lock */
};

/* shed: runs on the core when crowd_owed has something. */
void crowd_join(struct crowd *c, struct crowd_member *m, struct core *core, void (*shed)(struct core_msg *m));
/* From here on nothing is posted. The member may go when `shed` is idle. */
void crowd_leave(struct crowd_member *m);

/* One more connection, if fewer than max are open. */
bool crowd_enter(struct crowd *c, uint64_t max) MUSTCHECK;
/* One more in any case, because another member closes an idle one. False: none has any that has waited for longer than m's own. */
bool crowd_replace(struct crowd_member *m) MUSTCHECK;
void crowd_exit(struct crowd *c);
/* Are more than max open, those not counted that somebody has been told to close? */
bool crowd_over(const struct crowd *c, uint64_t max);

/* That many more of the member's have nothing to do; the first of all of them since since_ms (none: INT64_MAX). */
void crowd_idle(struct crowd_member *m, int change, int64_t since_ms);
unsigned crowd_owed(struct crowd_member *m); /* how many it is to close; takes them */

#endif
