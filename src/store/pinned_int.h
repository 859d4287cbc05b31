/* What the pins protect: the pinned digests and what pinned tags name, with all that these refer to, and so on. A set in memory, made anew
 * from a snapshot whenever something is to be removed. */
#ifndef LARDER_STORE_PINNED_INT_H
#define LARDER_STORE_PINNED_INT_H

#include "store/index_int.h"

/* A set of digests; each is its own key. */
struct digests {
    struct map map;
};

void digests_init(struct digests *s);
void digests_free(struct digests *s);
bool digests_add(struct digests *s, const struct digest *d); /* false: it was there */
bool digests_has(const struct digests *s, const struct digest *d);
void digests_remove(struct digests *s, const struct digest *d); /* absent: a no-op */
struct digest *digests_next(const struct digests *s, size_t *at);

/* Adds d and all it refers to, but for subjects: what a signature is about is not part of it. */
int digests_add_image(struct digests *s, struct itxn *t, const struct digest *d) MUSTCHECK;

struct pinned {
    struct digests all;
};

int pinned_load(struct pinned *p, struct itxn *t) MUSTCHECK; /* 0 or an rc; to be freed in any case */
void pinned_free(struct pinned *p);
bool pinned_has(const struct pinned *p, const struct digest *d);

#endif
