/* Platforms: how they are written, and which one is another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "registry/platform.h"

static bool match(const char *wanted, const char *has)
{
    struct platform w, h;
    assert_true(platform_parse(span_str(wanted), &w));
    assert_true(platform_parse(span_str(has), &h));
    return platform_match(&w, &h);
}

static void test_parse(void **state)
{
    (void)state;
    struct platform p;
    assert_true(platform_parse(SPAN("linux/arm/v7"), &p));
    assert_true(span_eq(p.os, SPAN("linux")) && span_eq(p.architecture, SPAN("arm")) &&
                span_eq(p.variant, SPAN("v7")));
    assert_true(platform_parse(SPAN("windows/amd64"), &p));
    assert_null(p.variant.p);
    assert_true(platform_parse(SPAN("linux/x86_64"), &p));
    assert_true(span_eq(p.architecture, SPAN("amd64")));
    static const char *const wrong[] = {
        "",         "linux",          "linux/",     "/amd64",       "linux//v7",
        "linux/a/", "linux/arm/v7/x", "linux/ar m", "linux,amd64/x"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_false(platform_parse(span_str(wrong[i]), &p));
    char long_one[PLATFORM_TEXT_MAX + 2];
    memset(long_one, 'a', sizeof long_one);
    long_one[5] = '/';
    assert_true(platform_parse(span_of(long_one, PLATFORM_TEXT_MAX), &p));
    assert_false(platform_parse(span_of(long_one, PLATFORM_TEXT_MAX + 1), &p));
    assert_false(platform_parse(SPAN_NONE, &p));
}

static void test_match(void **state)
{
    (void)state;
    assert_true(match("linux/amd64", "linux/amd64"));
    assert_false(match("linux/amd64", "linux/arm64"));
    assert_false(match("linux/amd64", "windows/amd64"));
    assert_true(match("linux/arm", "linux/arm/v6"));
    assert_true(match("linux/arm", "linux/arm/v7"));
    assert_false(match("linux/arm/v6", "linux/arm/v7"));
    assert_false(match("linux/arm/v6", "linux/arm"));
    assert_true(match("linux/arm/v7", "linux/arm"));
    assert_true(match("linux/arm64/v8", "linux/arm64"));
    assert_true(match("linux/arm64", "linux/arm64/v8"));
    assert_true(match("linux/amd64/v1", "linux/amd64"));
    assert_false(match("linux/amd64/v3", "linux/amd64"));
    assert_true(match("linux/aarch64", "linux/arm64"));
    assert_false(match("linux/s390x/z13", "linux/s390x"));
    struct platform wanted, nothing = {.os = SPAN_NONE};
    assert_true(platform_parse(SPAN("linux/amd64"), &wanted));
    assert_false(platform_match(&wanted, &nothing));
}

static void test_lists(void **state)
{
    (void)state;
    struct platform p[PLATFORMS_MAX];
    struct span wrong;
    assert_int_equal(platforms_parse(SPAN("linux/amd64,linux/arm/v7"), p, &wrong), 2);
    assert_true(span_eq(p[1].architecture, SPAN("arm")) && span_eq(p[1].variant, SPAN("v7")));
    assert_int_equal(platforms_parse(SPAN("linux/amd64,nothing"), p, &wrong), 0);
    assert_true(span_eq(wrong, SPAN("nothing")));
    assert_int_equal(platforms_parse(SPAN("linux/amd64,"), p, &wrong), 0);
    assert_int_equal(platforms_parse(SPAN(""), p, &wrong), 0);
    char text[20 * (PLATFORMS_MAX + 2)];
    struct str many = STR_INIT(text);
    str_addz(&many, "linux/amd64");
    for (unsigned i = 1; i <= PLATFORMS_MAX + 1; i++) {
        assert_int_equal(platforms_parse(str_span(&many), p, &wrong), i);
        str_addz(&many, ",linux/amd64");
    }
    char large[PLATFORMS_TEXT_MAX + 2];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    assert_int_equal(platforms_parse(span_str(large), p, &wrong), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse), cmocka_unit_test(test_match),
                                       cmocka_unit_test(test_lists)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
