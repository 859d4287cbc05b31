/* Operations on spans. None looks at a byte outside the span; an absent span behaves as an empty one. */
#include "base/span.h"

struct span span_sub(struct span s, size_t from, size_t n)
{
    if (s.p == NULL)
        return SPAN_NONE;
    if (from > s.n)
        from = s.n;
    if (n > s.n - from)
        n = s.n - from;
    return span_of(s.p + from, n);
}

struct span span_from(struct span s, size_t from)
{
    return span_sub(s, from, SIZE_MAX);
}

static bool span_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct span span_trim(struct span s)
{
    while (s.n > 0 && span_blank(s.p[s.n - 1]))
        s.n--;
    while (s.n > 0 && span_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    return s;
}

static unsigned char span_lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool span_ieq(struct span a, struct span b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        if (span_lower(a.p[i]) != span_lower(b.p[i]))
            return false;
    }
    return true;
}

bool span_starts(struct span s, struct span prefix)
{
    return prefix.n <= s.n && span_eq(span_of(s.p, prefix.n), prefix);
}

bool span_ends(struct span s, struct span suffix)
{
    return suffix.n <= s.n && span_eq(span_from(s, s.n - suffix.n), suffix);
}

ptrdiff_t span_find(struct span s, char c)
{
    const char *at = s.n > 0 ? memchr(s.p, c, s.n) : NULL;
    return at != NULL ? at - s.p : -1;
}

ptrdiff_t span_rfind(struct span s, char c)
{
    for (size_t i = s.n; i > 0; i--) {
        if (s.p[i - 1] == c)
            return (ptrdiff_t)(i - 1);
    }
    return -1;
}

bool span_next(struct span *rest, char sep, struct span *part)
{
    if (rest->p == NULL)
        return false;

    ptrdiff_t at = span_find(*rest, sep);
    if (at < 0) {
        *part = *rest;
        *rest = SPAN_NONE;
        return true;
    }
    *part = span_of(rest->p, (size_t)at);
    *rest = span_from(*rest, (size_t)at + 1);
    return true;
}

bool span_u64(struct span s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t d = (uint64_t)(s.p[i] - '0');
        if (d > max || v > (max - d) / 10)
            return false;
        v = v * 10 + d;
    }
    *out = v;
    return true;
}
