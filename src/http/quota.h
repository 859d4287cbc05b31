/* How many connections to one origin there may be, on all cores together: a counting semaphore that no loop waits at.
 *
 * Counted are the connections that are open (from the moment in which one may be dialled until it is closed), and of them those that are
 * busy, that is, that have a call. Nobody gets a connection while as many are busy as it may have beside itself; nor a new one while
 * `max` are open, the idle ones of all cores among them: then an idle one of another core is closed first.
 *
 * A call is `bulk` or not. Bulk (layers) may take minutes, so a quarter of the connections, at least one if there are two, is left to what
 * is not: no manifest waits for layers. Of each kind, who came first goes first, on whatever core it is, but nobody waits for one whose `max` is
 * lower (of a configuration before, say); what is not bulk goes first.
 *
 *   share   one core's part of a quota: it says which of the open connections are kept there, idle
 *   wait    a call that has asked and got nothing yet
 *
 * Thread: the functions are for the share's core; all of them take the quotas' one mutex, which is held for counting only. A share whose
 * turn it is gets a message. */
#ifndef LARDER_HTTP_QUOTA_H
#define LARDER_HTTP_QUOTA_H

#include "core/core.h"

struct quotas; /* those of one upstream: one for each of its origins that has connections or calls */
struct quota_share;

struct quotas *quotas_new(void);
struct quotas *quotas_ref(struct quotas *q);
void quotas_unref(struct quotas *q); /* any thread; shares hold it, too */

/* turn(owner): called on the core, later, when quota_collect or quota_shed has something. */
struct quota_share *quota_join(struct quotas *q, struct span origin, struct core *core,
                               void (*turn)(void *owner), void *owner);
/* Nothing of the share is open or waits. No turn comes any more. */
void quota_leave(struct quota_share *s);

struct quota_wait {
    unsigned max; /* connections to the origin; set by the owner, as bulk is */
    bool bulk;
    bool got; /* and not collected yet */
    struct list_node node;
    struct quota_share *share; /* NULL: neither waits nor has got */
};

enum quota_answer {
    QUOTA_WAIT, /* its turn comes, unless it withdraws */
    QUOTA_NEW,  /* a connection may be made */
    QUOTA_KEPT  /* one of those that the share keeps is busy from now on */
};

enum quota_answer quota_ask(struct quota_share *s, struct quota_wait *w) MUSTCHECK;
/* In a turn, until NULL: one that has waited and got its connection. QUOTA_KEPT: there is one, whatever has been closed meanwhile. */
struct quota_wait *quota_collect(struct quota_share *s, enum quota_answer *got);
/* In a turn, after that: so many of the kept ones are to be closed (quota_closed), because others need connections. */
unsigned quota_shed(struct quota_share *s);
/* It waits no more, or does not want what it has got. Otherwise a no-op. */
void quota_withdraw(struct quota_wait *w);

/* A busy connection is kept, idle. */
void quota_kept(struct quota_share *s);
/* A connection is closed: a kept one, or a busy one. */
void quota_closed(struct quota_share *s, bool kept);

#endif
