/* The only door to malloc outside base/. Running out of memory aborts with a message: a cache that cannot
 * allocate a few bytes cannot do anything useful, and every size a peer can choose is bounded before it gets
 * here. Any thread. */
#ifndef LARDER_BASE_MEM_H
#define LARDER_BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));  /* not zeroed */
void *mem_zalloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull)); /* zeroed */
void *mem_realloc(void *p, size_t size) __attribute__((alloc_size(2), returns_nonnull));
char *mem_strdup(const char *s) __attribute__((malloc, returns_nonnull));
void mem_free(void *p);           /* NULL is a no-op */
void mem_wipe(void *p, size_t n); /* zeroes secrets: never optimised away */

/* A zeroed structure of the pointer's own type:  struct x *x = NEW(x);  */
#define NEW(p) ((p) = mem_zalloc(sizeof *(p)))

/* Frees and clears, so that no reachable pointer leads to a dead object. */
#define FREE(p)                                                                                              \
    do {                                                                                                     \
        mem_free(p);                                                                                         \
        (p) = NULL;                                                                                          \
    } while (0)

#endif
