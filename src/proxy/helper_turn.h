/* Turns for credential helpers. A helper may hang until its time limit, and each one that runs holds a thread of the pool, which the disk
 * needs: so only HELPERS_AT_ONCE of the whole process have a turn, and the others wait on their loops, first come, first served. */
#ifndef LARDER_PROXY_HELPER_TURN_H
#define LARDER_PROXY_HELPER_TURN_H

#include "core/core.h"

#define HELPERS_AT_ONCE 2

/* Owner: whoever waits, on its core. */
struct helper_turn {
    struct list_node node; /* linked: it waits; under the lock of all turns */
    struct core_msg msg;
    struct core *core;
    void (*come)(struct helper_turn *t);
};

void helper_turn_init(struct helper_turn *t, struct core *core, void (*come)(struct helper_turn *t));
/* True: now. False: `come` will be called, once, on its core. */
bool helper_turn_take(struct helper_turn *t) MUSTCHECK;
/* It waits no longer. False: too late, `come` is on its way, and the turn with it. */
bool helper_turn_leave(struct helper_turn *t) MUSTCHECK;
/* Whoever had a turn gives it on. Any thread. */
void helper_turn_over(void);

#endif
