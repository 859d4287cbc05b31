/* What the tests of conf share: load a text, and compare complaints with what is expected. */
#ifndef LARDER_CONF_TEST_H
#define LARDER_CONF_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "conf/conf.h"

#define TEST_ERRORS 32

static struct conf_error test_list[TEST_ERRORS], test_warnings[TEST_ERRORS];
static struct conf_errors test_errors = {
    .list = test_list, .cap = TEST_ERRORS, .warnings = test_warnings, .cap_warnings = TEST_ERRORS};

static inline struct conf *load(struct span text)
{
    return conf_load(text, SPAN("test.yaml"), &test_errors);
}

/* The text must be accepted; the caller gives the snapshot back. */
static inline struct conf *load_good(const char *text)
{
    struct conf *c = load(span_str(text));
    for (size_t i = 0; i < test_errors.n; i++)
        print_error("%u:%u: %s\n", test_list[i].mark.line, test_list[i].mark.column, test_list[i].text);
    assert_int_equal(test_errors.n, 0);
    assert_non_null(c);
    return c;
}

/* Is `got` exactly `want`, in this order, each given as "LINE:COLUMN: part of the text"? Else fails, with both on the screen. */
static inline void compare(struct span text, const struct conf_error *got, size_t n_got,
                           const char *const want[])
{
    size_t n = 0;
    while (want[n] != NULL)
        n++;
    bool ok = n_got == n;
    for (size_t i = 0; ok && i < n; i++) {
        const struct conf_error *e = &got[i];
        char buf[64];
        struct str place = STR_INIT(buf);
        str_addf(&place, "%u:%u: ", e->mark.line, e->mark.column);
        struct span w = span_str(want[i]);
        ok = span_starts(w, str_span(&place)) && strstr(e->text, span_from(w, place.n).p) != NULL;
    }
    if (ok)
        return;
    print_error("the text\n%.*s\nled to\n", (int)(text.n < 2000 ? text.n : 2000),
                text.p != NULL ? text.p : "");
    for (size_t i = 0; i < n_got; i++)
        print_error("  %u:%u: %s\n", got[i].mark.line, got[i].mark.column, got[i].text);
    for (size_t i = 0; i < n; i++)
        print_error("  expected %s\n", want[i]);
    fail();
}

/* The text must be refused with exactly these complaints. */
static inline void expect_span(struct span text, const char *const want[])
{
    struct conf *c = load(text);
    bool refused = c == NULL;
    conf_unref(c);
    compare(text, test_list, test_errors.n, want);
    assert_true(refused);
    assert_int_equal(test_errors.n_warnings, 0);
}

/* The text must be accepted with exactly these warnings. */
static inline void expect_warnings(const char *text, const char *const want[])
{
    conf_unref(load_good(text));
    compare(span_str(text), test_warnings, test_errors.n_warnings, want);
}

#define EXPECT(text, ...) expect_span(span_str(text), (const char *const[]){__VA_ARGS__, NULL})

#define EXPECT_WARNINGS(text, ...) expect_warnings(text, (const char *const[]){__VA_ARGS__, NULL})

#define RULE(name, source, target) "  - name: " name "\n    source: " source "\n    target: " target "\n"

#endif
