/* Strings of JSON documents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "registry/json.h"

static void good(const char *value, const char *text, size_t n)
{
    char buf[64];
    struct str s = STR_INIT(buf);
    if (!json_text(span_str(value), &s))
        fail_msg("refused: %s", value);
    assert_int_equal(s.n, n);
    assert_memory_equal(s.p, text, n);
}

static void bad(const char *value)
{
    char buf[16];
    struct str s = STR_INIT(buf);
    if (json_text(span_str(value), &s))
        fail_msg("accepted: %s", value);
}

static void test_text(void **state)
{
    (void)state;
    good("\"\"", "", 0);
    good("\"plain\"", "plain", 5);
    good("\"a:b\\\"c\\\\d\\/e\"", "a:b\"c\\d/e", 9);
    good("\"\\b\\f\\n\\r\\t\"", "\b\f\n\r\t", 5);
    good("\"\\u0041\\u00e9\\u20ac\"", "A\xc3\xa9\xe2\x82\xac", 6);
    good("\"\\ud83d\\uDE00\"", "\xf0\x9f\x98\x80", 4);
    good("\"\\u0000\"", "\0", 1);
    good("\"\xc3\xa9\"", "\xc3\xa9", 2);
}

static void test_wrong_text(void **state)
{
    (void)state;
    bad("");
    bad("\"");
    bad("12");
    bad("null");
    bad("{\"a\":\"b\"}");
    bad("\"a\\\"");
    bad("\"\\x\"");
    bad("\"\\u12\"");
    bad("\"\\u12g4\"");
    bad("\"\\ud83d\"");
    bad("\"\\ud83d\\n12345\"");
    bad("\"\\ud83d\\u0041\"");
    bad("\"\\ude00\"");
    bad("\"line\nbreak\"");
    bad("\"longer than the room for it\"");
}

static void test_member(void **state)
{
    (void)state;
    char buf[64];
    struct str s = STR_INIT(buf);
    struct span doc = SPAN("{\"x\":{\"value\":\"inner\"},\"value\":\"outer\",\"n\":3}");
    assert_true(json_member_text(doc, SPAN("value"), &s));
    assert_string_equal(s.p, "outer");
    assert_false(json_member_text(doc, SPAN("n"), &s));
    assert_false(json_member_text(doc, SPAN("missing"), &s));
    assert_false(json_member_text(SPAN("[\"value\"]"), SPAN("value"), &s));
    assert_false(json_member_text(SPAN("{\"value\":\"a\"} and more"), SPAN("value"), &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_wrong_text),
                                       cmocka_unit_test(test_member)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
