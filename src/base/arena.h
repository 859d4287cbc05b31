/* An arena: many small allocations that die together. Used for what is built once and then read only (a
 * configuration snapshot). Not thread-safe while it grows; read by anyone afterwards. Built with address
 * sanitizer every allocation is a malloc of its own, so that overruns are seen. */
#ifndef LARDER_BASE_ARENA_H
#define LARDER_BASE_ARENA_H

#include "base/span.h"

struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *a); /* NULL is a no-op */
/* Zeroed, aligned for anything. */
void *arena_alloc(struct arena *a, size_t size) __attribute__((returns_nonnull));
char *arena_strndup(struct arena *a, const char *p, size_t n); /* terminated copy */
struct span arena_span(struct arena *a, struct span s);        /* copy, terminated too */
size_t arena_size(const struct arena *a);                      /* bytes handed out */

#endif
