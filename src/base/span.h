/* A view of bytes that somebody else owns: pointer and length, no terminator. Never NULL-terminated, may hold
 * any byte. A span with p == NULL is "absent"; an empty span with p != NULL is "present and empty". */
#ifndef LARDER_BASE_SPAN_H
#define LARDER_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"

struct span {
    const char *p;
    size_t n;
};

#define SPAN(literal) ((struct span){.p = (literal), .n = sizeof(literal) - 1})
#define SPAN_NONE     ((struct span){.p = NULL, .n = 0})
#define SPAN_FMT      "%.*s" /* printf("... " SPAN_FMT, SPAN_ARG(s)) */
#define SPAN_ARG(s)   (int)(s).n, (s).p != NULL ? (s).p : ""

static inline struct span span_of(const char *p, size_t n)
{
    return (struct span){.p = p, .n = n};
}

static inline struct span span_str(const char *s) /* s may be NULL: absent */
{
    return (struct span){.p = s, .n = s != NULL ? strlen(s) : 0};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Bytes [from, from + n) of s, cut to what s has. */
struct span span_sub(struct span s, size_t from, size_t n);
struct span span_from(struct span s, size_t from);
struct span span_trim(struct span s);        /* without blanks and tabs at both ends */
bool span_ieq(struct span a, struct span b); /* ASCII case ignored */
bool span_starts(struct span s, struct span prefix);
bool span_ends(struct span s, struct span suffix);
/* Offset of the first (last) c, or -1. */
ptrdiff_t span_find(struct span s, char c);
ptrdiff_t span_rfind(struct span s, char c);
/* Cuts the next part up to `sep` off the front of *rest; false when *rest is exhausted (absent). "a,,b" gives
 * "a", "", "b". */
bool span_next(struct span *rest, char sep, struct span *part);
/* Decimal without sign; false on an empty span, another character, or a value above max. */
bool span_u64(struct span s, uint64_t max, uint64_t *out) MUSTCHECK;

#endif
