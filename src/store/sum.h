/* Content sums: XXH3-128 of whole objects. Many times faster than the digest, so that a pass over the pool runs at the speed of the
 * disk. A sum finds damage (a flipped bit, a zeroed block, another file under this name), not an attacker: what comes
 * from outside is verified by digest, always. Pure; a summer belongs to one thread at a time. */
#ifndef LARDER_STORE_SUM_H
#define LARDER_STORE_SUM_H

#include "base/span.h"

struct content_sum {
    bool known;
    unsigned char raw[16];
};

/* Incremental. It must not move between init and finish. */
struct summer {
    unsigned char room[576 + 63]; /* the state of XXH3, at the first multiple of 64 */
};

void summer_init(struct summer *s);
void summer_update(struct summer *s, const void *bytes, size_t n);
void summer_finish(const struct summer *s,
                   struct content_sum *out); /* may be called again, with more in between */

void content_sum_of(struct span content, struct content_sum *out);
bool content_sum_eq(const struct content_sum *a,
                    const struct content_sum *b); /* unknown ones are equal to nothing */

#endif
