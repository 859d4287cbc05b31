/* The Link header of paged answers (distribution-spec "Listing Tags"). Upstream's target may be absolute, may
 * name upstream's own repository, and holds an opaque cursor in its query. The client must get a link to us:
 * our own path with upstream's query byte for byte. Pure; any thread. */
#ifndef LARDER_REGISTRY_LINK_H
#define LARDER_REGISTRY_LINK_H

#include "base/span.h"
#include "base/str.h"

enum link_next {
    LINK_NONE, /* no link with rel="next" */
    LINK_NEXT,
    LINK_UNFIT /* without a query (the first page again), or with one that is not fit for a header */
};

/* One field of upstream's, which has one or several links: is there a next page, and by which query? */
enum link_next link_next(struct span field, struct span *query) MUSTCHECK;
/* `</v2/NAME/tags/list?QUERY&ns=NS>; rel="next"`, where path is our own path and ns may be absent. False: too long for out, and nothing
 * is written. */
bool link_write(struct span query, struct span path, struct span ns, struct str *out) MUSTCHECK;

#endif
