/* Patterns of tags. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/pattern.h"

static bool match(const char *pattern, const char *text)
{
    return pattern_match(span_str(pattern), span_str(text));
}

static void test_literal(void **state)
{
    (void)state;
    assert_true(match("v1.0", "v1.0"));
    assert_false(match("v1.0", "v1x0")); /* a dot is a dot */
    assert_false(match("v1", "v1.0"));
    assert_false(match("v1.0", "v1"));
    assert_false(match("V1", "v1"));
    assert_true(match("a_b-c.D", "a_b-c.D"));
}

static void test_stars(void **state)
{
    (void)state;
    assert_true(match("*", "latest"));
    assert_true(match("*", ""));
    assert_true(match("***", "x"));
    assert_true(match("v*", "v"));
    assert_true(match("v*", "v1.2.3"));
    assert_false(match("v*", "1v"));
    assert_true(match("*-rc*", "1.0-rc1"));
    assert_true(match("*-rc*", "-rc"));
    assert_false(match("*-rc*", "1.0rc1"));
    assert_true(match("*-slim", "3-slim"));
    assert_false(match("*-slim", "3-slim2"));
    assert_true(match("v*.*.*", "v1.2.3"));
    assert_false(match("v*.*.*", "v1.2"));
    assert_true(match("a*b*c", "abbbcbc"));
    assert_false(match("a*b*c", "acb"));
    /* What the beginning has taken is not there for the end. */
    assert_false(match("ab*ba", "aba"));
    assert_true(match("ab*ba", "abba"));
    assert_false(match("*aa*aa*", "aaa"));
    assert_true(match("*aa*aa*", "aaaa"));
    assert_true(match("*ab*", "aab")); /* the first place where it begins is not where it is */
}

/* The definition, letter by letter: it takes for ever where the other must not. */
static bool plainly(const char *p, const char *t)
{
    if (*p == '*')
        return plainly(p + 1, t) || (*t != 0 && plainly(p, t + 1));
    return *p == *t && (*p == 0 || plainly(p + 1, t + 1));
}

static void fill(char *out, unsigned n, unsigned bits, unsigned base)
{
    for (unsigned i = 0; i < n; i++, bits /= base)
        out[i] = "ab*"[bits % base];
    out[n] = 0;
}

static void test_all_short_ones(void **state)
{
    (void)state;
    char pattern[8], text[8];
    for (unsigned n = 0; n <= 6; n++) {
        unsigned patterns = 1;
        for (unsigned i = 0; i < n; i++)
            patterns *= 3;
        for (unsigned p = 0; p < patterns; p++) {
            fill(pattern, n, p, 3);
            for (unsigned t = 1; t < 128;
                 t++) { /* all texts of up to six letters: what follows the first bit */
                unsigned length = 31 - (unsigned)__builtin_clz(t);
                fill(text, length, t, 2);
                if (match(pattern, text) != plainly(pattern, text))
                    fail_msg("'%s' and '%s'", pattern, text);
            }
        }
    }
}

/* Backtracking over so many stars would not end before the test's time is over. */
static void test_long_ones(void **state)
{
    (void)state;
    char pattern[PATTERN_MAX + 1], text[PATTERN_MAX + 1];
    for (unsigned i = 0; i < PATTERN_MAX; i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[PATTERN_MAX] = 0;
    memset(text, 'a', PATTERN_MAX);
    text[PATTERN_MAX] = 0;
    assert_true(match(pattern, text));
    text[PATTERN_MAX - 1] = 'b';
    assert_false(match(pattern, text));
    pattern[PATTERN_MAX - 1] = 'b';
    assert_true(match(pattern, text));
}

static void test_any(void **state)
{
    (void)state;
    const struct span list[] = {SPAN("v*"), SPAN("20??"), SPAN("stable")};
    assert_true(pattern_match_any(list, 3, SPAN("v1")));
    assert_true(pattern_match_any(list, 3, SPAN("stable")));
    assert_false(pattern_match_any(list, 3, SPAN("2024")));
    assert_false(pattern_match_any(list, 0, SPAN("v1")));
}

static void test_wrong(void **state)
{
    (void)state;
    static const char *const good[] = {"v*", "*", "**", "_x", "*.1", "*-x", "A.b_c-1"},
                             *const wrong[] = {"v?", "^v1$", "[a]", "v1:2", "a/b", ".x", "-x", "a b", "v+"};
    char long_one[PATTERN_MAX + 2];
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_null(pattern_wrong(span_str(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        assert_non_null(pattern_wrong(span_str(wrong[i])));
    memset(long_one, 'a', sizeof long_one);
    assert_null(pattern_wrong(span_of(long_one, PATTERN_MAX)));
    assert_non_null(pattern_wrong(span_of(long_one, PATTERN_MAX + 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literal),   cmocka_unit_test(test_stars), cmocka_unit_test(test_all_short_ones),
        cmocka_unit_test(test_long_ones), cmocka_unit_test(test_any),   cmocka_unit_test(test_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
