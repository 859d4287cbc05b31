/* The table of answers that are given again: what is kept, for how long, and that each owner is told the end exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/map.h"
#include "http/again.h"

struct owner {
    struct again again;
    bool good;
    unsigned drops;
};

static bool good(struct again *a)
{
    return CONTAINER_OF(a, struct owner, again)->good;
}

static void given(struct again *a, const struct conn *k, const struct again_given *g)
{
    (void)a;
    (void)k;
    (void)g;
}

static void drop(struct again *a)
{
    CONTAINER_OF(a, struct owner, again)->drops++;
}

static struct owner owner_new(void)
{
    return (struct owner){.again = {.good = good, .given = given, .drop = drop}, .good = true};
}

static struct again_table *table;

static int set_up(void **state)
{
    (void)state;
    table = again_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    again_free(table);
    return 0;
}

static bool has(struct span request, int64_t now)
{
    struct again *a;
    return again_find(table, request, map_hash(request), now, &a).p != NULL;
}

static void keep(struct owner *o, struct span request, struct span body)
{
    again_keep(table, request, SPAN("head\r\n\r\n"), body, 1000, &o->again);
}

static void test_bytes_come_back_until_their_time_is_over(void **state)
{
    (void)state;
    struct owner o = owner_new();
    struct again *a = NULL;
    keep(&o, SPAN("GET /a"), SPAN("body"));
    struct span answer = again_find(table, SPAN("GET /a"), map_hash(SPAN("GET /a")), 999, &a);
    assert_true(span_eq(answer, SPAN("head\r\n\r\nbody")));
    assert_ptr_equal(a, &o.again);
    assert_false(has(SPAN("GET /b"), 999));
    assert_false(has(SPAN("GET /"), 999));
    assert_false(has(SPAN("GET /aa"), 999));
    assert_int_equal(o.drops, 0);
    assert_false(has(SPAN("GET /a"), 1000));
    assert_int_equal(o.drops, 1);
    assert_false(has(SPAN("GET /a"), 999));
}

static void test_what_is_not_good_any_more_goes(void **state)
{
    (void)state;
    struct owner o = owner_new();
    keep(&o, SPAN("GET /a"), SPAN_NONE);
    assert_true(has(SPAN("GET /a"), 1));
    o.good = false;
    assert_false(has(SPAN("GET /a"), 1));
    assert_int_equal(o.drops, 1);
}

static void test_the_newer_takes_the_place(void **state)
{
    (void)state;
    struct owner old = owner_new(), new = owner_new();
    struct again *a = NULL;
    keep(&old, SPAN("GET /a"), SPAN("old"));
    keep(&new, SPAN("GET /a"), SPAN("new"));
    assert_int_equal(old.drops, 1);
    assert_true(
        span_eq(again_find(table, SPAN("GET /a"), map_hash(SPAN("GET /a")), 1, &a), SPAN("head\r\n\r\nnew")));
    again_flush(table);
    assert_int_equal(new.drops, 1);
    assert_false(has(SPAN("GET /a"), 1));
}

static void test_many_are_bounded_and_none_is_mistaken(void **state)
{
    (void)state;
    enum { N = 5000 };
    static struct owner owners[N];
    static char names[N][32];
    unsigned found = 0, drops = 0;
    for (unsigned i = 0; i < N; i++) {
        owners[i] = owner_new();
        snprintf(names[i], sizeof names[i], "GET /%u", i);
        keep(&owners[i], span_str(names[i]), span_str(names[i]));
    }
    for (unsigned i = 0; i < N; i++) {
        struct again *a = NULL;
        struct span answer = again_find(table, span_str(names[i]), map_hash(span_str(names[i])), 1, &a);
        drops += owners[i].drops;
        if (answer.p == NULL)
            continue;
        found++;
        assert_ptr_equal(a, &owners[i].again);
        assert_true(span_eq(span_from(answer, 8), span_str(names[i])));
    }
    assert_true(found > 100 && found <= 256);
    assert_int_equal(found + drops, N);
}

static void test_it_is_wanted_when_it_comes_again_soon(void **state)
{
    (void)state;
    assert_false(again_wanted(table, map_hash(SPAN("GET /a")), 1000));
    assert_true(again_wanted(table, map_hash(SPAN("GET /a")), 1000 + AGAIN_SEEN_MS - 1));
    assert_true(again_wanted(table, map_hash(SPAN("GET /a")), 1000 + AGAIN_SEEN_MS));
    assert_false(again_wanted(table, map_hash(SPAN("GET /a")), 1000 + 2 * AGAIN_SEEN_MS));
    assert_false(again_wanted(table, map_hash(SPAN("GET /b")), 1000 + 2 * AGAIN_SEEN_MS));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_come_back_until_their_time_is_over),
        TEST(test_what_is_not_good_any_more_goes),
        TEST(test_the_newer_takes_the_place),
        TEST(test_many_are_bounded_and_none_is_mistaken),
        TEST(test_it_is_wanted_when_it_comes_again_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
