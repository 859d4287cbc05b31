/* Extents: against a plain array of flags, and at the bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "store/extents.h"

static uint64_t bytes_there(const struct extents *x)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < x->n; i++)
        sum += x->e[i].to - x->e[i].from;
    return sum;
}

static void test_nothing_is_there_at_first(void **state)
{
    (void)state;
    struct extents x = {0};
    assert_int_equal(extents_from(&x, 0), 0);
    assert_int_equal(bytes_there(&x), 0);
    assert_true(extents_add(&x, 7, 7));
    assert_int_equal(x.n, 0);
}

static void test_neighbours_merge(void **state)
{
    (void)state;
    struct extents x = {0};
    assert_true(extents_add(&x, 10, 20));
    assert_true(extents_add(&x, 30, 40));
    assert_int_equal(x.n, 2);
    assert_int_equal(extents_from(&x, 0), 0);
    assert_int_equal(extents_from(&x, 15), 5);
    assert_int_equal(extents_from(&x, 20), 0);
    assert_true(extents_add(&x, 20, 30));
    assert_int_equal(x.n, 1);
    assert_int_equal(extents_from(&x, 10), 30);
    assert_true(extents_add(&x, 0, 10));
    assert_int_equal(x.n, 1);
    assert_int_equal(extents_from(&x, 0), 40);
    assert_true(extents_add(&x, 5, 35)); /* known already */
    assert_int_equal(bytes_there(&x), 40);
}

static void test_large_offsets(void **state)
{
    (void)state;
    struct extents x = {0};
    assert_true(extents_add(&x, UINT64_MAX - 10, UINT64_MAX));
    assert_true(extents_add(&x, 0, UINT64_C(5) << 32));
    assert_int_equal(extents_from(&x, 0), UINT64_C(5) << 32);
    assert_int_equal(extents_from(&x, UINT64_MAX - 1), 1);
    assert_int_equal(extents_from(&x, UINT64_MAX), 0);
}

static void test_no_room_changes_nothing(void **state)
{
    (void)state;
    struct extents x = {0};
    for (uint64_t i = 0; i < EXTENTS_MAX; i++)
        assert_true(extents_add(&x, 10 * i + 10, 10 * i + 15));
    struct extents before = x;
    assert_false(extents_add(&x, 1, 2));
    assert_false(extents_add(&x, 10 * EXTENTS_MAX + 20, 10 * EXTENTS_MAX + 21));
    assert_false(extents_add(&x, 17, 18));
    assert_memory_equal(&x, &before, sizeof x);
    assert_true(extents_add(&x, 15, 16)); /* grows a piece */
    assert_true(extents_add(&x, 12, 27)); /* joins two: room again */
    assert_int_equal(x.n, EXTENTS_MAX - 1);
    assert_true(extents_add(&x, 1, 2));
}

#define SPACE 96

static void check_against(const struct extents *x, const bool *there)
{
    uint64_t total = 0;
    for (unsigned off = 0; off < SPACE; off++) {
        uint64_t run = 0;
        while (off + run < SPACE && there[off + run])
            run++;
        assert_int_equal(extents_from(x, off), run);
        total += there[off];
    }
    assert_int_equal(bytes_there(x), total);
    for (unsigned i = 0; i < x->n; i++) {
        assert_true(x->e[i].from < x->e[i].to);
        if (i > 0)
            assert_true(x->e[i - 1].to < x->e[i].from);
    }
}

static void test_random_fills_agree_with_flags(void **state)
{
    (void)state;
    unsigned seed = 1;
    for (unsigned round = 0; round < 300; round++) {
        struct extents x = {0};
        bool there[SPACE] = {false};
        for (unsigned step = 0; step < 40; step++) {
            unsigned from = (unsigned)rand_r(&seed) % SPACE;
            unsigned to = from + (unsigned)rand_r(&seed) % 9;
            if (to > SPACE)
                to = SPACE;
            assert_true(extents_add(&x, from, to));
            memset(there + from, true, to - from);
            check_against(&x, there);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_there_at_first),
        cmocka_unit_test(test_neighbours_merge),
        cmocka_unit_test(test_large_offsets),
        cmocka_unit_test(test_no_room_changes_nothing),
        cmocka_unit_test(test_random_fills_agree_with_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
