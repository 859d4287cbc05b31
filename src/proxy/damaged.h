/* An object whose file is not what the index says: the index forgets it, and it is put away; then it is a miss. If somebody else has done
 * that by now, perhaps fetched it again, nothing happens to what there is.
 *
 * Embedded in whoever found it, and there until `done`. Thread: the core's. */
#ifndef LARDER_PROXY_DAMAGED_H
#define LARDER_PROXY_DAMAGED_H

#include "proxy/proxy_int.h"

struct damaged {
    struct job job;
    struct proxy *px;
    struct digest digest;
    struct store_object was;
    void (*done)(struct damaged *d);
};

/* `was`: what the index said when it was opened. Says it in the log, too. `done` comes later, whether the index took it or not. */
void damaged_put_away(struct damaged *d, struct proxy *px, const struct digest *digest,
                      const struct store_object *was, void (*done)(struct damaged *d));

#endif
