/* Tags that are in use, checked ahead of their time (rules with `refresh`), so that a pull need not wait for the check. One per core, for the
 * tags that this core has served; a check that another core or a client has brought about meanwhile is as good.
 *
 * Owner: the proxy. Thread: the core's. */
#ifndef LARDER_PROXY_REFRESH_H
#define LARDER_PROXY_REFRESH_H

#include "base/span.h"

struct proxy;
struct refresh;

struct refresh *refresh_new(struct proxy *px);
/* Begins nothing any more. */
void refresh_stop(struct refresh *r);
void refresh_free(struct refresh *r); /* when no operation of the core is left */

/* A tag has been served through a rule that wants it. ns: as in proxy_match. */
void refresh_note(struct refresh *r, struct span ns, struct span repository, struct span tag);

#endif
