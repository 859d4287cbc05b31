/* The client connections of several servers, one on each core, and their common bound. When it is reached, a newcomer takes the place of
 * an idle connection, one that waits for a request or for the rest of one: of its own server's, or else of another's, which is told by a
 * message. It may be in work again by then; then there is one too many until somebody's connection has nothing to do.
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
    struct core_msg shed; /* so many as are `owed` are to be closed */
    atomic_uint idle;     /* connections; written by the member's core only */
    unsigned owed;        /* guarded by the crowd's lock */
};

/* shed: runs on the core when crowd_owed has something. */
void crowd_join(struct crowd *c, struct crowd_member *m, struct core *core, void (*shed)(struct core_msg *m));
/* From here on nothing is posted. The member may go when `shed` is idle. */
void crowd_leave(struct crowd_member *m);

/* One more connection, if fewer than max are open. */
bool crowd_enter(struct crowd *c, uint64_t max) MUSTCHECK;
/* One more in any case, because another member closes an idle one. False: none has any. */
bool crowd_replace(struct crowd_member *m) MUSTCHECK;
void crowd_exit(struct crowd *c);
/* Are more than max open, those not counted that somebody has been told to close? */
bool crowd_over(const struct crowd *c, uint64_t max);

void crowd_idle(struct crowd_member *m, int change); /* that many more of the member's have nothing to do */
unsigned crowd_owed(struct crowd_member *m);         /* takes them */

#endif
