/* Kept lists: copies, references that outlive their entry, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proxy/lists.h"

#define MIB ((size_t)1 << 20)

static int setup(void **state)
{
    *state = lists_new();
    return 0;
}

static int teardown(void **state)
{
    lists_free(*state);
    return 0;
}

static void put(struct lists *l, struct span key, struct span doc, const char *next, bool filtered)
{
    static struct flight_answer a; /* large */
    a = (struct flight_answer){.bytes = (char *)(uintptr_t)doc.p, .n = doc.n, .filtered = filtered};
    if (span_starts(doc, SPAN("{\"name\":\"a\"")))
        a.name = span_sub(doc, 8, 3);
    snprintf(a.media, sizeof a.media, "application/json");
    snprintf(a.next, sizeof a.next, "%s", next);
    lists_put(l, key, &a);
}

static void assert_kept(struct lists *l, struct span key, struct span doc)
{
    struct list_kept *k = lists_get(l, key);
    assert_non_null(k);
    assert_true(span_eq(k->bytes, doc));
    lists_release(k);
}

static bool there(struct lists *l, struct span key)
{
    struct list_kept *k = lists_get(l, key);
    lists_release(k);
    return k != NULL;
}

static void test_everything_is_copied(void **state)
{
    struct lists *l = *state;
    char doc[] = "{\"name\":\"a\",\"tags\":[\"1\"]}", key[] = "t docker.io/library/a  n=1";
    int64_t before = clock_wall_ms();
    put(l, span_str(key), span_str(doc), "n=1&last=1", true);
    memset(doc, 'x', sizeof doc - 1);
    memset(key, 'x', sizeof key - 1);
    struct list_kept *k = lists_get(l, SPAN("t docker.io/library/a  n=1"));
    assert_non_null(k);
    assert_true(span_eq(k->bytes, SPAN("{\"name\":\"a\",\"tags\":[\"1\"]}")));
    assert_true(span_eq(k->name, SPAN("\"a\"")) && k->name.p == k->bytes.p + 8);
    assert_true(span_eq(k->media, SPAN("application/json")));
    assert_true(span_eq(k->next, SPAN("n=1&last=1")));
    assert_true(k->filtered);
    assert_true(k->checked_ms >= before);
    lists_release(k);
    assert_false(there(l, SPAN("t docker.io/library/a  n=2")));
}

static void test_empty_parts(void **state)
{
    struct lists *l = *state;
    put(l, SPAN("k"), SPAN("{}"), "", false);
    struct list_kept *k = lists_get(l, SPAN("k"));
    assert_int_equal(k->next.n, 0);
    assert_null(k->name.p);
    assert_false(k->filtered);
    lists_release(k);
    lists_release(NULL);
}

static void test_the_last_one_counts(void **state)
{
    struct lists *l = *state;
    put(l, SPAN("k"), SPAN("first"), "", false);
    struct list_kept *old = lists_get(l, SPAN("k"));
    put(l, SPAN("k"), SPAN("second"), "", false);
    assert_kept(l, SPAN("k"), SPAN("second"));
    assert_true(span_eq(old->bytes, SPAN("first"))); /* who has it keeps it */
    lists_release(old);
}

static struct span numbered(char *buf, size_t cap, unsigned i)
{
    snprintf(buf, cap, "t repo-%u ", i);
    return span_str(buf);
}

static void test_oldest_goes_first(void **state)
{
    struct lists *l = *state;
    char key[64];
    char *doc = calloc(1, MIB);
    put(l, numbered(key, sizeof key, 0), span_of(doc, MIB), "", false);
    struct list_kept *held = lists_get(l, span_str(key));
    for (unsigned i = 1; i < 40; i++)
        put(l, numbered(key, sizeof key, i), span_of(doc, MIB), "", false);
    /* 32 MiB with what belongs to each list: 31 of one MiB. */
    for (unsigned i = 0; i < 40; i++)
        assert_int_equal(there(l, numbered(key, sizeof key, i)), i >= 9);
    assert_int_equal(held->bytes.n, MIB); /* pushed out, but still ours */
    assert_memory_equal(held->bytes.p, doc, MIB);
    lists_release(held);
    free(doc);
}

/* Replacing gives back what the old one took: otherwise the others would be pushed out. */
static void test_replacing_costs_nothing(void **state)
{
    struct lists *l = *state;
    char *doc = calloc(1, 3 * MIB);
    put(l, SPAN("other"), SPAN("other"), "", false);
    for (unsigned i = 0; i < 50; i++)
        put(l, SPAN("k"), span_of(doc, 3 * MIB), "", false);
    assert_true(there(l, SPAN("other")) && there(l, SPAN("k")));
    free(doc);
}

static void test_large_ones_are_not_kept(void **state)
{
    struct lists *l = *state;
    char *doc = calloc(1, 4 * MIB + 1);
    put(l, SPAN("k"), span_of(doc, 4 * MIB + 1), "", false);
    assert_false(there(l, SPAN("k")));
    put(l, SPAN("k"), span_of(doc, 4 * MIB), "", false);
    assert_true(there(l, SPAN("k")));
    free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_everything_is_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_last_one_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oldest_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replacing_costs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_ones_are_not_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
