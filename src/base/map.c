/* The hash table. A slot with value NULL is empty.
 *
 * Invariant: between the slot where a key's hash points (its home) and the slot where the key is, no slot is
 * empty. So a search ends at the first empty slot, and a deletion closes the gap by moving later entries
 * back; there are no tombstones. At most 3/4 of the slots are used, so an empty one always exists. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/map.h"
#include "base/mem.h"

#define MAP_CAP_FIRST 16

struct map_slot {
    uint64_t hash;
    struct span key;
    void *value;
};

uint64_t map_hash(struct span key)
{
    return XXH3_64bits(key.p, key.n);
}

void map_init(struct map *m)
{
    *m = (struct map){.slots = NULL};
}

void map_free(struct map *m)
{
    FREE(m->slots);
    m->cap = 0;
    m->used = 0;
}

/* The slot that holds the key, or the empty slot where it would go. The table has slots. */
static size_t map_find(const struct map *m, struct span key, uint64_t hash)
{
    size_t mask = m->cap - 1;
    size_t i = (size_t)hash & mask;

    while (m->slots[i].value != NULL && (m->slots[i].hash != hash || !span_eq(m->slots[i].key, key)))
        i = (i + 1) & mask;
    return i;
}

void *map_get_hashed(const struct map *m, struct span key, uint64_t hash)
{
    return m->used > 0 ? m->slots[map_find(m, key, hash)].value : NULL;
}

void *map_get(const struct map *m, struct span key)
{
    return m->used > 0 ? map_get_hashed(m, key, map_hash(key)) : NULL;
}

static void map_grow(struct map *m)
{
    struct map old = *m;

    m->cap = old.cap > 0 ? old.cap * 2 : MAP_CAP_FIRST;
    MUST(m->cap <= SIZE_MAX / sizeof(struct map_slot));
    m->slots = mem_zalloc(m->cap * sizeof(struct map_slot));
    for (size_t i = 0; i < old.cap; i++) {
        const struct map_slot *s = &old.slots[i];
        if (s->value != NULL)
            m->slots[map_find(m, s->key, s->hash)] = *s;
    }
    mem_free(old.slots);
}

void map_put(struct map *m, struct span key, void *value)
{
    uint64_t hash = map_hash(key);

    MUST(value != NULL);
    if (m->used >= m->cap / 4 * 3)
        map_grow(m);
    struct map_slot *s = &m->slots[map_find(m, key, hash)];
    MUST(s->value == NULL);
    *s = (struct map_slot){.hash = hash, .key = key, .value = value};
    m->used++;
}

void *map_del(struct map *m, struct span key)
{
    if (m->used == 0)
        return NULL;

    size_t mask = m->cap - 1;
    size_t gap = map_find(m, key, map_hash(key));
    void *value = m->slots[gap].value;
    if (value == NULL)
        return NULL;

    for (size_t i = (gap + 1) & mask; m->slots[i].value != NULL; i = (i + 1) & mask) {
        size_t home = (size_t)m->slots[i].hash & mask;
        /* It may move back into the gap only if its home is not behind the gap. */
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            m->slots[gap] = m->slots[i];
            gap = i;
        }
    }
    m->slots[gap] = (struct map_slot){.value = NULL};
    m->used--;
    return value;
}

void *map_next(const struct map *m, size_t *pos)
{
    while (*pos < m->cap) {
        void *value = m->slots[(*pos)++].value;
        if (value != NULL)
            return value;
    }
    return NULL;
}
