/* The histogram of the load generator: its precision is a promise of bench/README.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../../bench/hist.h"

static struct hist H, G;

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static void test_buckets_are_in_order_and_precise(void **state)
{
    (void)state;
    unsigned last = 0;
    uint64_t v = 0;
    while (v < UINT64_MAX / 2) {
        unsigned b = hist_bucket(v);
        assert_in_range(b, last, HIST_BUCKETS - 1);
        assert_true(distance(hist_value(b), v) <= v / 256);
        last = b;
        v += v / 1000 + 1;
    }
    assert_int_equal(hist_bucket(UINT64_MAX), HIST_BUCKETS - 1);
}

static void test_every_bucket_gives_back_itself(void **state)
{
    (void)state;
    for (unsigned b = 0; b < HIST_BUCKETS; b++)
        assert_int_equal(hist_bucket(hist_value(b)), b);
}

static void test_percentiles_of_one_to_a_million(void **state)
{
    (void)state;
    hist_reset(&H);
    for (uint64_t v = 1; v <= 1000000; v++)
        hist_add(&H, v);
    static const double percents[] = {0.1, 1, 10, 25, 50, 75, 90, 99, 99.9, 99.99};
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        uint64_t want = (uint64_t)(percents[i] * 10000 + 0.5);
        assert_true(distance(hist_percentile(&H, percents[i]), want) <= want / 256 + 1);
    }
    assert_int_equal(hist_percentile(&H, 0), 1);
    assert_int_equal(hist_percentile(&H, 100), 1000000);
    assert_true(hist_mean(&H) > 500000.4 && hist_mean(&H) < 500000.6);
}

static void test_few_values(void **state)
{
    (void)state;
    hist_reset(&H);
    assert_int_equal(hist_percentile(&H, 50), 0);
    hist_add(&H, 123456789);
    assert_int_equal(hist_percentile(&H, 0), 123456789);
    assert_int_equal(hist_percentile(&H, 50), 123456789);
    assert_int_equal(hist_percentile(&H, 99.9), 123456789);
    hist_add(&H, 5);
    assert_int_equal(hist_percentile(&H, 50), 5);
    assert_int_equal(hist_percentile(&H, 51), 123456789);
}

static void test_merge_equals_one_histogram(void **state)
{
    (void)state;
    static struct hist both;
    hist_reset(&H);
    hist_reset(&G);
    hist_reset(&both);
    uint64_t x = 88172645463325252ull;
    for (int i = 0; i < 10000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        uint64_t v = x >> (x & 31);
        hist_add(i % 3 == 0 ? &H : &G, v);
        hist_add(&both, v);
    }
    hist_merge(&H, &G);
    assert_int_equal(H.count, both.count);
    assert_int_equal(H.min, both.min);
    assert_int_equal(H.max, both.max);
    assert_memory_equal(H.buckets, both.buckets, sizeof both.buckets);
    hist_reset(&G);
    hist_merge(&H, &G);
    assert_int_equal(H.min, both.min);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_are_in_order_and_precise),
        cmocka_unit_test(test_every_bucket_gives_back_itself),
        cmocka_unit_test(test_percentiles_of_one_to_a_million),
        cmocka_unit_test(test_few_values),
        cmocka_unit_test(test_merge_equals_one_histogram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
