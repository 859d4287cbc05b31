/* An object whose file is not what the index says: it is put away, and the index forgets it; then it is a miss.
 *
 * Embedded in whoever found it, and there until `done`. Thread: the core's. */
#ifndef LARDER_PROXY_DAMAGED_H
#define LARDER_PROXY_DAMAGED_H

#include "proxy/proxy_int.h"

struct damaged {
    struct job job;
    struct store_change change;
    struct proxy *px;
    void (*done)(struct damaged *d);
};

/* Says it in the log, too. `done` comes later, whether the index took it or not. */
void damaged_put_away(struct damaged *d, struct proxy *px, const struct digest *digest,
                      void (*done)(struct damaged *d));

#endif
