/* The Link header of paged answers (distribution-spec "Listing Tags"). Upstream's target may be absolute, may
 * name upstream's own repository, and holds an opaque cursor in its query. The client must get a link to us:
 * our own path with upstream's query byte for byte. Pure; any thread. */
#ifndef LARDER_REGISTRY_LINK_H
#define LARDER_REGISTRY_LINK_H

#include "base/span.h"
#include "base/str.h"

/* From upstream's header value (one or several links) finds the one with rel="next" and writes
 * `</v2/NAME/tags/list?QUERY>; rel="next"` where path is our own path and ns (may be absent) is appended as
 * "&ns=". False: no next link, or one without a query (the first page again), unfit for a header or too long for
 * out; nothing is written then. */
bool link_rewrite(struct span upstream_value, struct span path, struct span ns, struct str *out);

#endif
