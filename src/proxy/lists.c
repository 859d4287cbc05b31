/* See lists.h. The order list has the oldest first; an entry owns one reference to its kept list. */
#include "proxy/lists.h"

#include "base/map.h"
#include "base/mem.h"

#define LISTS_BYTES (32u << 20)
#define LIST_LARGE  (4u << 20) /* larger ones are relayed, not kept */

struct entry {
    struct list_node node;
    struct list_kept *kept;
    size_t n;
    char key[];
};

struct lists {
    pthread_mutex_t lock; /* guards all below */
    struct map map;
    struct list order;
    size_t bytes;
};

struct lists *lists_new(void)
{
    struct lists *l;
    NEW(l);
    pthread_mutex_init(&l->lock, NULL);
    map_init(&l->map);
    list_init(&l->order);
    return l;
}

void lists_release(struct list_kept *k)
{
    if (k != NULL && ref_drop(&k->ref))
        mem_free(k);
}

static size_t entry_size(const struct entry *e)
{
    return sizeof *e + e->n + sizeof *e->kept + e->kept->bytes.n + e->kept->media.n + e->kept->next.n;
}

static void entry_remove(struct lists *l, struct entry *e)
{
    MUST(map_del(&l->map, span_of(e->key, e->n)) == e);
    list_remove(&e->node);
    l->bytes -= entry_size(e);
    lists_release(e->kept);
    mem_free(e);
}

void lists_free(struct lists *l)
{
    struct list_node *n;
    while ((n = list_first(&l->order)) != NULL)
        entry_remove(l, CONTAINER_OF(n, struct entry, node));
    map_free(&l->map);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

static struct span append(char **to, struct span s)
{
    struct span copy = span_of(*to, s.n);
    if (s.n > 0)
        memcpy(*to, s.p, s.n);
    *to += s.n;
    return copy;
}

void lists_put(struct lists *l, struct span key, const struct flight_answer *a)
{
    if (a->n > LIST_LARGE)
        return;
    struct span media = span_str(a->media), next = span_str(a->next);
    struct list_kept *k = mem_alloc(sizeof *k + a->n + media.n + next.n);
    char *to = k->text;
    ref_init(&k->ref);
    k->checked_ms = clock_wall_ms();
    k->filtered = a->filtered;
    k->bytes = append(&to, span_of(a->bytes, a->n));
    k->name = a->name.p == NULL ? SPAN_NONE : span_sub(k->bytes, (size_t)(a->name.p - a->bytes), a->name.n);
    k->media = append(&to, media);
    k->next = append(&to, next);
    struct entry *e = mem_zalloc(sizeof *e + key.n);
    e->kept = k;
    e->n = key.n;
    memcpy(e->key, key.p, key.n);

    pthread_mutex_lock(&l->lock);
    struct entry *old = map_get(&l->map, key);
    if (old != NULL)
        entry_remove(l, old);
    map_put(&l->map, span_of(e->key, e->n), e);
    list_push_back(&l->order, &e->node);
    l->bytes += entry_size(e);
    while (l->bytes > LISTS_BYTES)
        entry_remove(l, CONTAINER_OF(list_first(&l->order), struct entry, node));
    pthread_mutex_unlock(&l->lock);
}

struct list_kept *lists_get(struct lists *l, struct span key)
{
    pthread_mutex_lock(&l->lock);
    const struct entry *e = l->map.used > 0 ? map_get(&l->map, key) : NULL;
    struct list_kept *k = e != NULL ? e->kept : NULL;
    if (k != NULL)
        ref_take(&k->ref);
    pthread_mutex_unlock(&l->lock);
    return k;
}
