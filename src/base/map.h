/* A hash table from byte strings to pointers: open addressing, linear probing, XXH3. The key's bytes belong to
 * the value (the map keeps the span, not a copy) and must stay put while the entry is in the map. Not
 * thread-safe: the owner's header says who guards it. */
#ifndef LARDER_BASE_MAP_H
#define LARDER_BASE_MAP_H

#include "base/span.h"

struct map {
    struct map_slot *slots; /* NULL until the first put */
    size_t cap;             /* power of two */
    size_t used;            /* live entries */
};

uint64_t map_hash(struct span key);

void map_init(struct map *m);
void map_free(struct map *m);                        /* the table only; values belong to the caller */
void *map_get(const struct map *m, struct span key); /* NULL: absent */
void *map_get_hashed(const struct map *m, struct span key, uint64_t hash);
void map_put(struct map *m, struct span key, void *value); /* the key must be absent (MUST); value not NULL */
void *map_del(struct map *m, struct span key);             /* what was there, or NULL */
/* Iteration in no particular order: start with *pos = 0; NULL ends. The map must not change meanwhile. */
void *map_next(const struct map *m, size_t *pos);

#endif
