/* Range and Content-Range. Specs written again parse to themselves; a resolved range lies inside of the length and
 * is what was asked for; a smaller limit changes only how many are kept. */
#include "base/check.h"
#include "http/range.h"

#define SPECS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct range_spec *a, const struct range_spec *b)
{
    MUST(a->first == b->first && a->last == b->last && a->suffix == b->suffix);
}

static void check_written_again(const struct range_spec *specs, size_t n)
{
    char buf[SPECS * 48];
    struct range_spec again[SPECS];
    struct str s = STR_INIT(buf);
    size_t m;
    for (size_t i = 0; i < n; i++) {
        str_addz(&s, i == 0 ? "bytes=" : ",");
        if (!specs[i].suffix)
            str_addu(&s, specs[i].first);
        str_addc(&s, '-');
        if (specs[i].suffix)
            str_addu(&s, specs[i].first);
        else if (specs[i].last != UINT64_MAX)
            str_addu(&s, specs[i].last);
    }
    MUST(!s.cut && range_parse(str_span(&s), again, SPECS, &m) == RANGE_OK && m == n);
    for (size_t i = 0; i < n; i++)
        check_same(&specs[i], &again[i]);
}

static void check_content_range(const struct range *r, uint64_t length)
{
    char buf[96];
    struct str s = STR_INIT(buf);
    uint64_t first, last, total;
    if (length == UINT64_MAX)
        return;
    str_addz(&s, "bytes ");
    str_addu(&s, r->off);
    str_addc(&s, '-');
    str_addu(&s, r->off + r->len - 1);
    str_addc(&s, '/');
    str_addu(&s, length);
    bool sane = length <= INT64_MAX; /* no file is longer */
    MUST(range_parse_content(str_span(&s), &first, &last, &total) == sane);
    MUST(!sane || (first == r->off && last == r->off + r->len - 1 && total == length));
}

static void check_resolved(const struct range_spec *spec, uint64_t length)
{
    struct range r;
    bool ok = range_resolve(spec, length, &r);
    if (spec->suffix)
        MUST(ok == (length > 0 && spec->first > 0));
    else
        MUST(ok == (spec->first < length));
    if (!ok)
        return;
    MUST(r.len >= 1 && r.off < length && r.len <= length - r.off);
    if (spec->suffix) {
        MUST(r.off + r.len == length && r.len <= spec->first);
        MUST(r.len == spec->first || r.off == 0);
    } else {
        MUST(r.off == spec->first && r.off + r.len - 1 <= spec->last);
        MUST(r.off + r.len - 1 == spec->last || r.off + r.len == length);
    }
    check_content_range(&r, length);
}

static void check_specs(const struct range_spec *specs, size_t n)
{
    check_written_again(specs, n);
    for (size_t i = 0; i < n; i++) {
        uint64_t a = specs[i].first, b = specs[i].last;
        MUST(specs[i].suffix || a <= b);
        uint64_t lengths[] = {0, 1, 2048, a - 1, a, a + 1, b - 1, b, b + 1, UINT64_MAX};
        for (size_t k = 0; k < ARRAY_LEN(lengths); k++)
            check_resolved(&specs[i], lengths[k]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span header = span_of((const char *)data, size);
    struct range_spec specs[SPECS], few[2];
    size_t n, m;
    enum range_parse got = range_parse(header, specs, SPECS, &n);
    enum range_parse got_few = range_parse(header, few, ARRAY_LEN(few), &m);
    MUST(n <= SPECS && (got == RANGE_ABSENT) == (n == 0));
    MUST(got != RANGE_TOO_MANY || n == SPECS);
    MUST(got_few == (n > ARRAY_LEN(few) ? RANGE_TOO_MANY : got));
    MUST(m == (n < ARRAY_LEN(few) ? n : ARRAY_LEN(few)));
    for (size_t i = 0; i < m; i++)
        check_same(&specs[i], &few[i]);
    if (n > 0)
        check_specs(specs, n);

    uint64_t first, last, total;
    if (range_parse_refused(header, &total))
        MUST(total < UINT64_MAX && !range_parse_content(header, &first, &last, &total));
    if (range_parse_content(header, &first, &last, &total)) {
        MUST(got == RANGE_ABSENT); /* no text is both headers */
        MUST(first <= last && last < total);
    }
    return 0;
}
