#include "test.h"

#include "base/span.h"

static void absent_and_empty_differ(void **state)
{
    UNUSED(state);
    assert_null(span_str(NULL).p);
    assert_non_null(span_str("").p);
    assert_true(span_eq(SPAN_NONE, SPAN("")));
    assert_null(span_sub(SPAN_NONE, 3, 4).p);
    assert_non_null(span_sub(SPAN(""), 3, 4).p);
    assert_int_equal(SPAN("a\0b").n, 3);
    assert_false(span_eq(SPAN("a\0b"), SPAN("a\0c")));
}

static void parts_are_cut_to_what_there_is(void **state)
{
    UNUSED(state);
    struct span s = SPAN("abcdef");
    assert_span(span_sub(s, 1, 3), "bcd");
    assert_span(span_sub(s, 4, 3), "ef");
    assert_span(span_sub(s, 6, 1), "");
    assert_span(span_sub(s, 7, 1), "");
    assert_span(span_sub(s, SIZE_MAX, SIZE_MAX), "");
    assert_span(span_sub(s, 1, SIZE_MAX), "bcdef");
    assert_span(span_from(s, 2), "cdef");
    assert_span(span_from(s, 0), "abcdef");
    assert_span(span_from(s, 9), "");
}

static void trim_takes_blanks_and_tabs_only(void **state)
{
    UNUSED(state);
    assert_span(span_trim(SPAN(" \t a b\t ")), "a b");
    assert_span(span_trim(SPAN("a")), "a");
    assert_span(span_trim(SPAN(" \t ")), "");
    assert_span(span_trim(SPAN("\na\r ")), "\na\r");
    assert_null(span_trim(SPAN_NONE).p);
}

static void ieq_is_for_ascii_letters(void **state)
{
    UNUSED(state);
    assert_true(span_ieq(SPAN("Content-LENGTH"), SPAN("content-length")));
    assert_true(span_ieq(SPAN("AZaz09"), SPAN("azAZ09")));
    assert_false(span_ieq(SPAN("@"), SPAN("`")));
    assert_false(span_ieq(SPAN("["), SPAN("{")));
    assert_false(span_ieq(SPAN("\xc4"), SPAN("\xe4")));
    assert_false(span_ieq(SPAN("a"), SPAN("ab")));
    assert_true(span_ieq(SPAN_NONE, SPAN("")));
}

static void starts_and_ends(void **state)
{
    UNUSED(state);
    assert_true(span_starts(SPAN("/v2/x"), SPAN("/v2/")));
    assert_false(span_starts(SPAN("/v2"), SPAN("/v2/")));
    assert_true(span_starts(SPAN("x"), SPAN("")));
    assert_true(span_starts(SPAN_NONE, SPAN("")));
    assert_false(span_starts(SPAN_NONE, SPAN("x")));
    assert_true(span_ends(SPAN("a/b"), SPAN("/b")));
    assert_true(span_ends(SPAN("a/b"), SPAN("a/b")));
    assert_false(span_ends(SPAN("b"), SPAN("/b")));
    assert_false(span_ends(SPAN("b/"), SPAN("/b")));
    assert_true(span_ends(SPAN_NONE, SPAN("")));
}

static void find_gives_first_and_last(void **state)
{
    UNUSED(state);
    assert_int_equal(span_find(SPAN("a:b:c"), ':'), 1);
    assert_int_equal(span_rfind(SPAN("a:b:c"), ':'), 3);
    assert_int_equal(span_find(SPAN(":"), ':'), 0);
    assert_int_equal(span_rfind(SPAN(":"), ':'), 0);
    assert_int_equal(span_find(SPAN("abc"), ':'), -1);
    assert_int_equal(span_rfind(SPAN("abc"), ':'), -1);
    assert_int_equal(span_find(SPAN_NONE, ':'), -1);
    assert_int_equal(span_rfind(SPAN_NONE, ':'), -1);
    assert_int_equal(span_find(SPAN("a\xff"), '\xff'), 1);
    assert_int_equal(span_find(span_of("ab:", 2), ':'), -1);
}

static void next_gives_every_part(void **state)
{
    UNUSED(state);
    struct span rest = SPAN("a,,b"), part;
    assert_true(span_next(&rest, ',', &part));
    assert_span(part, "a");
    assert_true(span_next(&rest, ',', &part));
    assert_span(part, "");
    assert_true(span_next(&rest, ',', &part));
    assert_span(part, "b");
    assert_false(span_next(&rest, ',', &part));

    rest = SPAN("a,");
    assert_true(span_next(&rest, ',', &part));
    assert_true(span_next(&rest, ',', &part));
    assert_span(part, "");
    assert_false(span_next(&rest, ',', &part));

    rest = SPAN("");
    assert_true(span_next(&rest, ',', &part));
    assert_span(part, "");
    assert_false(span_next(&rest, ',', &part));

    rest = SPAN_NONE;
    assert_false(span_next(&rest, ',', &part));
}

static void u64_accepts_decimal_up_to_max(void **state)
{
    UNUSED(state);
    uint64_t v = 1;
    assert_true(span_u64(SPAN("0"), 0, &v));
    assert_int_equal(v, 0);
    assert_true(span_u64(SPAN("0065535"), 65535, &v));
    assert_int_equal(v, 65535);
    assert_true(span_u64(SPAN("18446744073709551615"), UINT64_MAX, &v));
    assert_true(v == UINT64_MAX);
}

static void u64_refuses_the_rest(void **state)
{
    UNUSED(state);
    static const struct {
        struct span s;
        uint64_t max;
    } bad[] = {
        {{"", 0}, UINT64_MAX},
        {{NULL, 0}, UINT64_MAX},
        {{"-1", 2}, UINT64_MAX},
        {{"+1", 2}, UINT64_MAX},
        {{" 1", 2}, UINT64_MAX},
        {{"1 ", 2}, UINT64_MAX},
        {{"0x1", 3}, UINT64_MAX},
        {{"1\0", 2}, UINT64_MAX},
        {{"65536", 5}, 65535},
        {{"65540", 5}, 65535},
        {{"5", 1}, 4},
        {{"1", 1}, 0},
        {{"18446744073709551616", 20}, UINT64_MAX},
        {{"99999999999999999999", 20}, UINT64_MAX},
        {{"184467440737095516150", 21}, UINT64_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t v = 77;
        assert_false(span_u64(bad[i].s, bad[i].max, &v));
        assert_int_equal(v, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_and_empty_differ),
        cmocka_unit_test(parts_are_cut_to_what_there_is),
        cmocka_unit_test(trim_takes_blanks_and_tabs_only),
        cmocka_unit_test(ieq_is_for_ascii_letters),
        cmocka_unit_test(starts_and_ends),
        cmocka_unit_test(find_gives_first_and_last),
        cmocka_unit_test(next_gives_every_part),
        cmocka_unit_test(u64_accepts_decimal_up_to_max),
        cmocka_unit_test(u64_refuses_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
