#include "test.h"

#include "base/str.h"

static void appends(void **state)
{
    UNUSED(state);
    char buf[100];
    struct str s = STR_INIT(buf);
    assert_str(s, "");
    str_add(&s, SPAN("a"));
    str_add(&s, SPAN_NONE);
    str_addz(&s, "bc");
    str_addz(&s, NULL);
    str_addc(&s, '-');
    str_addu(&s, 0);
    str_addc(&s, '-');
    str_addu(&s, UINT64_MAX);
    str_addc(&s, ' ');
    str_addi(&s, INT64_MIN);
    str_addc(&s, ' ');
    str_addi(&s, INT64_MAX);
    str_addhex(&s, "\x00\x9f\xff", 3);
    str_addf(&s, "%d%s", 7, "!");
    assert_str(s, "abc-0-18446744073709551615 -9223372036854775808 9223372036854775807009fff7!");
    assert_false(s.cut);
    assert_int_equal(str_span(&s).n, strlen(buf));
    assert_ptr_equal(str_span(&s).p, buf);
}

static void hex_of_any_length(void **state)
{
    UNUSED(state);
    unsigned char bytes[200];
    char buf[401];
    memset(bytes, 0x5a, sizeof(bytes));
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        struct str s = STR_INIT(buf);
        str_addhex(&s, bytes, n);
        assert_int_equal(s.n, 2 * n);
        assert_false(s.cut);
        for (size_t i = 0; i < s.n; i++)
            assert_int_equal(buf[i], i % 2 == 0 ? '5' : 'a');
    }
}

static void base64_of_any_length(void **state)
{
    UNUSED(state);
    static const struct {
        const char *bytes, *text; /* RFC 4648 section 10 */
    } rows[] = {{"", ""},
                {"f", "Zg=="},
                {"fo", "Zm8="},
                {"foo", "Zm9v"},
                {"foob", "Zm9vYg=="},
                {"fooba", "Zm9vYmE="},
                {"foobar", "Zm9vYmFy"}};
    char buf[16];
    struct str s = STR_INIT(buf);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        str_reset(&s);
        str_addb64(&s, rows[i].bytes, strlen(rows[i].bytes));
        assert_str(s, rows[i].text);
    }
    str_reset(&s);
    str_addb64(&s, "\x00\xff\xfb\xbe", 4);
    assert_str(s, "AP/7vg==");
    assert_false(s.cut);
}

static void a_text_that_fits_exactly_is_not_cut(void **state)
{
    UNUSED(state);
    char buf[4];
    struct str s = STR_INIT(buf);
    str_addz(&s, "abc");
    str_add(&s, SPAN(""));
    assert_false(s.cut);
    str_reset(&s);
    str_addf(&s, "%d", 123);
    assert_false(s.cut);
    assert_str(s, "123");
    str_addc(&s, 'x');
    assert_true(s.cut);
    assert_str(s, "123");
}

static void a_cut_text_is_a_prefix(void **state)
{
    UNUSED(state);
    char buf[6];
    struct str s = STR_INIT(buf);
    str_addz(&s, "abc");
    str_addhex(&s, "\xab\xcd", 2);
    assert_true(s.cut);
    assert_str(s, "abcab");

    str_reset(&s);
    assert_false(s.cut);
    assert_str(s, "");
    str_addz(&s, "abcd");
    str_addf(&s, "%d", 567);
    assert_true(s.cut);
    assert_str(s, "abcd5");
    assert_int_equal(s.n, 5);

    str_reset(&s);
    str_addz(&s, "ab");
    str_addjson(&s, SPAN("\x01"));
    assert_true(s.cut);
    str_addc(&s, 'x');
    str_addf(&s, "x");
    str_addjson(&s, SPAN("x"));
    assert_str(s, "ab");

    struct str one = str_init(buf, 1);
    str_addc(&one, 'x');
    assert_true(one.cut);
    assert_str(one, "");
}

static void json_escapes(void **state)
{
    UNUSED(state);
    char buf[200];
    struct str s = STR_INIT(buf);
    str_addjson(&s, SPAN("plain ~ /"));
    str_addjson(&s, SPAN("\"\\\n\r\t"));
    str_addjson(&s, SPAN("\x00\x1f\x7f\x08"));
    str_addjson(&s, SPAN_NONE);
    assert_str(s, "plain ~ /\\\"\\\\\\n\\r\\t\\u0000\\u001f\\u007f\\u0008");
}

#define R "\xef\xbf\xbd" /* the replacement character */

static void json_keeps_utf8_and_replaces_the_rest(void **state)
{
    UNUSED(state);
    static const struct {
        const char *in, *out;
    } cases[] = {
        /* the first and last of each length stay */
        {"\xc2\xa0|\xdf\xbf", "\xc2\xa0|\xdf\xbf"},
        {"\xe0\xa0\x80|\xef\xbf\xbf", "\xe0\xa0\x80|\xef\xbf\xbf"},
        {"\xf0\x90\x80\x80|\xf4\x8f\xbf\xbf", "\xf0\x90\x80\x80|\xf4\x8f\xbf\xbf"},
        {"\xed\x9f\xbf|\xee\x80\x80", "\xed\x9f\xbf|\xee\x80\x80"},
        /* control characters of two bytes */
        {"\xc2\x80|\xc2\x9f", "\\u0080|\\u009f"},
        /* bytes that never start a character */
        {"\x80|\xbf", R "|" R},
        {"\xc0\x80|\xc1\xbf", R R "|" R R},
        {"\xf5\x80\x80\x80|\xff|\xfe", R R R R "|" R "|" R},
        /* overlong */
        {"\xe0\x80\xaf|\xe0\x9f\xbf", R R R "|" R R R},
        {"\xf0\x80\x80\xaf|\xf0\x8f\xbf\xbf", R R R R "|" R R R R},
        /* surrogates, and beyond U+10FFFF */
        {"\xed\xa0\x80|\xed\xbf\xbf", R R R "|" R R R},
        {"\xf4\x90\x80\x80", R R R R},
        /* cut short, by another character and by the end */
        {"\xc3|", R "|"},
        {"\xe2\x82|", R "|"},
        {"\xf0\x9f\x98|", R "|"},
        {"\xe2\"", R "\\\""},
        {"\xe2\x82\xe2\x82\xac", R "\xe2\x82\xac"},
        {"\xc3", R},
        {"\xe2\x82", R},
        {"\xf0\x9f\x98", R},
        {"\xf0", R},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[100];
        struct str s = STR_INIT(buf);
        str_addjson(&s, span_str(cases[i].in));
        assert_str(s, cases[i].out);
    }
}

/* The bytes behind the span would complete the character; they must not be looked at. */
static void json_stays_inside_the_span(void **state)
{
    UNUSED(state);
    char buf[20];
    struct str s = STR_INIT(buf);
    str_addjson(&s, span_of("\xe2\x82\xac", 2));
    assert_str(s, R);
}

static void json_is_cut_between_characters(void **state)
{
    UNUSED(state);
    char buf[20];
    for (size_t cap = 1; cap <= 11; cap++) {
        struct str s = str_init(buf, cap);
        str_addjson(&s, SPAN("a\xe2\x82\xac\x01")); /* 1 + 3 + 6 bytes */
        assert_int_equal(s.n, cap > 10 ? 10 : cap > 4 ? 4 : cap > 1 ? 1 : 0);
        assert_true(s.cut == (cap <= 10));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends),
        cmocka_unit_test(hex_of_any_length),
        cmocka_unit_test(base64_of_any_length),
        cmocka_unit_test(a_text_that_fits_exactly_is_not_cut),
        cmocka_unit_test(a_cut_text_is_a_prefix),
        cmocka_unit_test(json_escapes),
        cmocka_unit_test(json_keeps_utf8_and_replaces_the_rest),
        cmocka_unit_test(json_stays_inside_the_span),
        cmocka_unit_test(json_is_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
