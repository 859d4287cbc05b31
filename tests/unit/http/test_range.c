/* Range and Content-Range. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "http/range.h"

#define MAX UINT64_MAX

static void one_range(void **state)
{
    UNUSED(state);
    static const struct {
        const char *header;
        uint64_t first, last;
        bool suffix;
    } cases[] = {
        {"bytes=0-0", 0, 0, false},
        {"bytes=500-1499", 500, 1499, false},
        {"bytes=500-", 500, MAX, false},
        {"bytes=-500", 500, MAX, true},
        {"bytes=-0", 0, MAX, true},
        {"BYTES=1-2", 1, 2, false},
        {" bytes=1-2 ", 1, 2, false},
        {"bytes= 1-2\t", 1, 2, false},
        {"bytes=,, 1-2 ,", 1, 2, false},
        {"bytes=007-008", 7, 8, false},
        {"bytes=0-18446744073709551614", 0, MAX - 1, false},
        {"bytes=0-18446744073709551615", 0, MAX, false},
        {"bytes=0-18446744073709551616", 0, MAX, false},
        {"bytes=0-99999999999999999999999999999", 0, MAX, false},
        {"bytes=99999999999999999999999999999-", MAX, MAX, false},
        {"bytes=-99999999999999999999999999999", MAX, MAX, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct range_spec spec;
        size_t n;
        if (range_parse(span_str(cases[i].header), &spec, 1, &n) != RANGE_OK || n != 1)
            fail_msg("refused: %s", cases[i].header);
        if (spec.first != cases[i].first || spec.last != cases[i].last || spec.suffix != cases[i].suffix)
            fail_msg("%s: got %ju-%ju", cases[i].header, (uintmax_t)spec.first, (uintmax_t)spec.last);
    }
}

static void what_is_ignored(void **state)
{
    UNUSED(state);
    static const char *bad[] = {
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=--1",
        "bytes=500-0",
        "bytes=1",
        "bytes=a-b",
        "bytes=1-b",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes =1-2",
        "bytes 1-2",
        "items=1-2",
        "byte=1-2",
        "bytes=1-2;3-4",
        "bytes=1-2,x",
        "bytes=0x1-2",
        "bytes=1-2 3-4",
        "bytes=-1-2",
        "bytes=*",
        "xbytes=1-2",
        "bytes==1-2",
    };
    struct range_spec specs[4];
    size_t n = 7;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (range_parse(span_str(bad[i]), specs, ARRAY_LEN(specs), &n) != RANGE_ABSENT || n != 0)
            fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(range_parse(SPAN_NONE, specs, ARRAY_LEN(specs), &n), RANGE_ABSENT);
    assert_int_equal(range_parse(SPAN("bytes=1-\0"), specs, ARRAY_LEN(specs), &n), RANGE_ABSENT);
}

static void several_ranges_keep_their_order(void **state)
{
    UNUSED(state);
    struct range_spec specs[3];
    size_t n;
    assert_int_equal(range_parse(SPAN("bytes=10-19, -5,0-0"), specs, 3, &n), RANGE_OK);
    assert_int_equal(n, 3);
    assert_int_equal(specs[0].first, 10);
    assert_true(specs[1].suffix);
    assert_int_equal(specs[1].first, 5);
    assert_int_equal(specs[2].last, 0);
    assert_int_equal(range_parse(SPAN("bytes=1-2,3-4,5-6,7-8"), specs, 3, &n), RANGE_TOO_MANY);
    assert_int_equal(n, 3);
    /* too many of something that is not the grammar is still not the grammar */
    assert_int_equal(range_parse(SPAN("bytes=1-2,3-4,5-6,7-8,x"), specs, 3, &n), RANGE_ABSENT);
    assert_int_equal(n, 0);
}

static void as_many_as_clients_send(void **state)
{
    UNUSED(state);
    static char text[RANGE_MAX * 16];
    static struct range_spec specs[RANGE_MAX];
    struct str s = STR_INIT(text);
    size_t n;
    for (int i = 0; i < RANGE_MAX; i++)
        str_addf(&s, "%s%d-%d", i == 0 ? "bytes=" : ",", i * 10, i * 10 + 4);
    assert_int_equal(range_parse(str_span(&s), specs, RANGE_MAX, &n), RANGE_OK);
    assert_int_equal(n, RANGE_MAX);
    assert_int_equal(specs[RANGE_MAX - 1].last, (RANGE_MAX - 1) * 10 + 4);
    str_add(&s, SPAN(",1-1"));
    assert_int_equal(range_parse(str_span(&s), specs, RANGE_MAX, &n), RANGE_TOO_MANY);
}

static void resolving(void **state)
{
    UNUSED(state);
    static const struct {
        const char *header;
        uint64_t length, off, len; /* len 0: not satisfiable */
    } cases[] = {
        {"bytes=500-1499", 2048, 500, 1000},
        {"bytes=500-", 2048, 500, 1548},
        {"bytes=-500", 2048, 1548, 500},
        {"bytes=2000-5000", 2048, 2000, 48},
        {"bytes=5000-10000", 2048, 0, 0},
        {"bytes=2047-2047", 2048, 2047, 1},
        {"bytes=2047-2048", 2048, 2047, 1},
        {"bytes=2048-2048", 2048, 0, 0},
        {"bytes=2048-", 2048, 0, 0},
        {"bytes=-2048", 2048, 0, 2048},
        {"bytes=-2049", 2048, 0, 2048},
        {"bytes=-1", 2048, 2047, 1},
        {"bytes=-0", 2048, 0, 0},
        {"bytes=0-", 1, 0, 1},
        {"bytes=0-0", 0, 0, 0},
        {"bytes=0-", 0, 0, 0},
        {"bytes=-1", 0, 0, 0},
        {"bytes=4294967295-4294967296", 12884901888, 4294967295, 2},
        {"bytes=-99999999999999999999999", 12884901888, 0, 12884901888},
        {"bytes=0-99999999999999999999999", 12884901888, 0, 12884901888},
        {"bytes=99999999999999999999999-", MAX, 0, 0},
        {"bytes=18446744073709551614-", MAX, MAX - 1, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct range_spec spec;
        struct range r = {0};
        size_t n;
        assert_int_equal(range_parse(span_str(cases[i].header), &spec, 1, &n), RANGE_OK);
        bool ok = range_resolve(&spec, cases[i].length, &r);
        if (ok != (cases[i].len > 0) || (ok && (r.off != cases[i].off || r.len != cases[i].len)))
            fail_msg("%s of %ju: %d, %ju+%ju", cases[i].header, (uintmax_t)cases[i].length, ok,
                     (uintmax_t)r.off, (uintmax_t)r.len);
    }
}

static void content_range(void **state)
{
    UNUSED(state);
    static const struct {
        const char *header;
        uint64_t first, last, total;
    } good[] = {
        {"bytes 0-99/1000", 0, 99, 1000},
        {"Bytes 0-99/*", 0, 99, MAX},
        {" bytes 999-999/1000 ", 999, 999, 1000},
        {"bytes 0-9223372036854775806/9223372036854775807", 0, INT64_MAX - 1, INT64_MAX},
        {"bytes 9223372036854775807-9223372036854775807/*", INT64_MAX, INT64_MAX, MAX},
    };
    static const char *bad[] = {
        "",
        "bytes",
        "bytes ",
        "bytes */1000",
        "bytes 0-99",
        "bytes 0-99/",
        "bytes 0-/1000",
        "bytes -99/1000",
        "bytes 99-0/1000",
        "bytes 0-1000/1000",
        "bytes 0-99/**",
        "bytes 0-99/1000/1",
        "bytes 0-99/-1",
        "bytes 0-9-9/1000",
        "bytes 0/99-1000",
        "bytes=0-99/1000",
        "bytes  0-99/1000",
        "bytes 0 - 99/1000",
        "items 0-99/1000",
        "bytes 0-99/9223372036854775808",
        "bytes 0-99/18446744073709551615",
        "bytes 0-9223372036854775808/*",
        "bytes 0-18446744073709551615/*",
        "bytes 0-99999999999999999999999/*",
        "bytes a-99/1000",
    };
    uint64_t first, last, total;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (!range_parse_content(span_str(good[i].header), &first, &last, &total))
            fail_msg("refused: %s", good[i].header);
        assert_true(first == good[i].first && last == good[i].last && total == good[i].total);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (range_parse_content(span_str(bad[i]), &first, &last, &total))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_false(range_parse_content(SPAN_NONE, &first, &last, &total));
}

static void content_range_of_a_refusal(void **state)
{
    UNUSED(state);
    static const char *bad[] = {
        "",
        "bytes",
        "bytes *",
        "bytes */",
        "bytes */*",
        "bytes 0-99/1000",
        "bytes */-1",
        "bytes */1 0",
        "bytes=*/1000",
        "bytes */18446744073709551615",
    };
    uint64_t total;
    assert_true(range_parse_refused(SPAN("bytes */1000"), &total));
    assert_int_equal(total, 1000);
    assert_true(range_parse_refused(SPAN("Bytes */0"), &total));
    assert_int_equal(total, 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (range_parse_refused(span_str(bad[i]), &total))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_false(range_parse_refused(SPAN_NONE, &total));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_range),
        cmocka_unit_test(what_is_ignored),
        cmocka_unit_test(several_ranges_keep_their_order),
        cmocka_unit_test(as_many_as_clients_send),
        cmocka_unit_test(resolving),
        cmocka_unit_test(content_range),
        cmocka_unit_test(content_range_of_a_refusal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
