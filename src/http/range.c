/* Range headers. Numbers above 64 bits are allowed by the grammar and saturate: no object is that long, so
 * the result is the same. UINT64_MAX as a last byte means "to the end", which is what such a number means,
 * too. */
#include "http/range.h"

static bool decimal_saturated(struct span s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        v = v > (UINT64_MAX - digit) / 10 ? UINT64_MAX : v * 10 + digit;
    }
    *out = v;
    return true;
}

/* first-last, first-, or -n */
static bool spec_parse(struct span text, struct range_spec *out)
{
    ptrdiff_t dash = span_find(text, '-');
    if (dash < 0)
        return false;
    struct span left = span_sub(text, 0, (size_t)dash);
    struct span right = span_from(text, (size_t)dash + 1);
    *out = (struct range_spec){.first = 0, .last = UINT64_MAX, .suffix = left.n == 0};
    if (out->suffix)
        return decimal_saturated(right, &out->first);
    if (!decimal_saturated(left, &out->first))
        return false;
    if (right.n == 0)
        return true;
    return decimal_saturated(right, &out->last) && out->last >= out->first;
}

/* Cuts "bytes" and the separator off the front; *rest is what follows. */
static bool unit_is_bytes(struct span header, char separator, struct span *rest)
{
    header = span_trim(header);
    if (header.n < 6 || !span_ieq(span_sub(header, 0, 5), SPAN("bytes")) || header.p[5] != separator)
        return false;
    *rest = span_from(header, 6);
    return true;
}

enum range_parse range_parse(struct span header, struct range_spec *specs, size_t cap, size_t *n)
{
    struct span rest, part;
    size_t count = 0;
    *n = 0;
    if (!unit_is_bytes(header, '=', &rest))
        return RANGE_ABSENT;
    while (span_next(&rest, ',', &part)) {
        struct range_spec spec;
        part = span_trim(part);
        if (part.n == 0) /* empty list elements are allowed (RFC 9110 section 5.6.1) */
            continue;
        if (!spec_parse(part, &spec))
            return RANGE_ABSENT;
        if (count < cap)
            specs[count] = spec;
        count++;
    }
    *n = count < cap ? count : cap;
    if (count == 0)
        return RANGE_ABSENT;
    return count > cap ? RANGE_TOO_MANY : RANGE_OK;
}

bool range_resolve(const struct range_spec *spec, uint64_t length, struct range *out)
{
    if (spec->suffix) {
        uint64_t n = spec->first < length ? spec->first : length;
        *out = (struct range){.off = length - n, .len = n};
        return n > 0;
    }
    if (spec->first >= length)
        return false;
    uint64_t last = spec->last < length ? spec->last : length - 1;
    *out = (struct range){.off = spec->first, .len = last - spec->first + 1};
    return true;
}

bool range_parse_content(struct span header, uint64_t *first, uint64_t *last, uint64_t *total)
{
    struct span rest;
    if (!unit_is_bytes(header, ' ', &rest))
        return false;
    ptrdiff_t dash = span_find(rest, '-');
    ptrdiff_t slash = span_find(rest, '/');
    if (dash < 0 || slash < dash)
        return false;
    struct span from = span_sub(rest, 0, (size_t)dash);
    struct span to = span_sub(rest, (size_t)dash + 1, (size_t)(slash - dash) - 1);
    struct span whole = span_from(rest, (size_t)slash + 1);
    /* no more than a file can have: sums with them are numbers, and a written total is not taken for "unknown" */
    if (!span_u64(from, INT64_MAX, first) || !span_u64(to, INT64_MAX, last) || *last < *first)
        return false;
    if (span_eq(whole, SPAN("*"))) {
        *total = UINT64_MAX;
        return true;
    }
    return span_u64(whole, INT64_MAX, total) && *last < *total;
}

bool range_parse_refused(struct span header, uint64_t *total)
{
    struct span rest;
    return unit_is_bytes(header, ' ', &rest) && span_starts(rest, SPAN("*/")) &&
           span_u64(span_from(rest, 2), INT64_MAX, total);
}
