/* The arena: a chain of chunks, newest first; only the newest is filled. Under address sanitizer a chunk is
 * exactly as large as the allocation that needed it, so that each is a malloc of its own. */
#include <stdalign.h>

#include "base/arena.h"
#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_CHUNK 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_CHUNK 0
#endif
#endif
#ifndef ARENA_CHUNK
#define ARENA_CHUNK ((size_t)16 * 1024)
#endif

#define ARENA_ALIGN alignof(max_align_t)

struct arena_chunk {
    struct arena_chunk *next;
    size_t cap, used; /* bytes of data */
    alignas(max_align_t) char data[];
};

struct arena {
    struct arena_chunk *chunks;
    size_t size;
};

struct arena *arena_new(void)
{
    struct arena *a;
    return NEW(a);
}

void arena_free(struct arena *a)
{
    if (a == NULL)
        return;
    for (struct arena_chunk *c = a->chunks, *next; c != NULL; c = next) {
        next = c->next;
        mem_free(c);
    }
    mem_free(a);
}

static struct arena_chunk *arena_grow(struct arena *a, size_t size)
{
    size_t cap = size > ARENA_CHUNK ? size : ARENA_CHUNK;
    MUST(cap <= SIZE_MAX - sizeof(struct arena_chunk));

    struct arena_chunk *c = mem_zalloc(sizeof(*c) + cap);
    c->cap = cap;
    c->next = a->chunks;
    a->chunks = c;
    return c;
}

void *arena_alloc(struct arena *a, size_t size)
{
    struct arena_chunk *c = a->chunks;
    size_t at = c != NULL ? (c->used + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1) : 0;

    if (size == 0)
        size = 1; /* two allocations never share an address */
    if (c == NULL || at > c->cap || size > c->cap - at) {
        c = arena_grow(a, size);
        at = 0;
    }
    c->used = at + size;
    a->size += size;
    return c->data + at;
}

char *arena_strndup(struct arena *a, const char *p, size_t n)
{
    MUST(n < SIZE_MAX);
    char *copy = arena_alloc(a, n + 1);
    if (n > 0)
        memcpy(copy, p, n);
    return copy;
}

struct span arena_span(struct arena *a, struct span s)
{
    if (s.p == NULL)
        return SPAN_NONE;
    return span_of(arena_strndup(a, s.p, s.n), s.n);
}

size_t arena_size(const struct arena *a)
{
    return a->size;
}
