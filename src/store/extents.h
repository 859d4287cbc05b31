/* Which bytes of a partial object are there: a small sorted set of half-open extents. Neighbours merge. Bounded:
 * a fill that would need more than EXTENTS_MAX pieces is told so. Pure; guarded by whoever owns the set. */
#ifndef LARDER_STORE_EXTENTS_H
#define LARDER_STORE_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTENTS_MAX 64

struct extent {
    uint64_t from, to; /* [from, to) */
};

struct extents {
    struct extent e[EXTENTS_MAX];
    unsigned n;
};

/* False: no room for another piece; nothing changed. Overlaps are fine. */
bool extents_add(struct extents *x, uint64_t from, uint64_t to);
/* How many bytes are there from `off` on without a gap. */
uint64_t extents_from(const struct extents *x, uint64_t off);

#endif
