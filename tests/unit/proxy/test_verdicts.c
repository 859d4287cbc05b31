/* What upstream said lately. There is no clock to set here, so a test either waits until a pause of a millisecond is over, however
 * long that takes, or looks at one that lasts for many minutes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "proxy/verdicts.h"

#define HOUR (int64_t)3600000

static const struct flight_failure gone = {.err = ERR_MANIFEST_UNKNOWN, .status = 404, .retry_after_ms = -1};
static const struct flight_failure limited = {.err = ERR_TOO_MANY, .status = 429, .retry_after_ms = 5000};

static int setup(void **state)
{
    *state = verdicts_new();
    return 0;
}

static int teardown(void **state)
{
    verdicts_free(*state);
    return 0;
}

static bool there(struct verdicts *v, struct span key)
{
    struct flight_failure f;
    return verdict_get(v, key, &f);
}

static void wait_until_over(struct verdicts *v, struct span key)
{
    while (there(v, key)) /* the test's time limit is the bound */
        usleep(1000);
}

static void test_remembers_the_failure(void **state)
{
    struct verdicts *v = *state;
    struct flight_failure f;
    assert_false(verdict_get(v, SPAN("m a v1"), &f));
    verdict_put(v, SPAN("m a v1"), &limited, HOUR, HOUR);
    assert_true(verdict_get(v, SPAN("m a v1"), &f));
    assert_int_equal(f.err, limited.err);
    assert_int_equal(f.status, limited.status);
    assert_in_range(f.retry_after_ms, 1, 5000); /* what is left of it */
    assert_false(there(v, SPAN("m a v")));
    assert_false(there(v, SPAN("m a v11")));
    verdict_put(v, SPAN("m a v1"), &gone, HOUR, HOUR);
    assert_true(verdict_get(v, SPAN("m a v1"), &f));
    assert_int_equal(f.status, 404); /* the last one */
}

static void test_ends(void **state)
{
    struct verdicts *v = *state;
    verdict_put(v, SPAN("k"), &gone, 1, 1);
    verdict_put(v, SPAN("other"), &gone, HOUR, HOUR);
    wait_until_over(v, SPAN("k"));
    assert_true(there(v, SPAN("other")));
}

static void test_no_time_is_no_verdict(void **state)
{
    struct verdicts *v = *state;
    verdict_put(v, SPAN("k"), &gone, 0, 0);
    assert_false(there(v, SPAN("k")));
    verdict_put(v, SPAN("k"), &gone, 1000, 0);
    assert_false(there(v, SPAN("k")));
}

static void test_dropped(void **state)
{
    struct verdicts *v = *state;
    verdict_drop(v, SPAN("k")); /* not there: nothing */
    verdict_put(v, SPAN("k"), &gone, HOUR, HOUR);
    verdict_drop(v, SPAN("k"));
    assert_false(there(v, SPAN("k")));
    verdict_drop(v, SPAN("k"));
}

/* 1 ms, doubled twenty times, is a quarter of an hour; not doubled it would be over after the sleep. */
static void test_pause_doubles(void **state)
{
    struct verdicts *v = *state;
    for (unsigned i = 0; i <= 20; i++)
        verdict_put(v, SPAN("k"), &gone, 1, HOUR);
    usleep(20000);
    assert_true(there(v, SPAN("k")));
}

static void test_pause_has_a_maximum(void **state)
{
    struct verdicts *v = *state;
    for (unsigned i = 0; i < 100; i++) /* without the maximum this would also overflow */
        verdict_put(v, SPAN("k"), &gone, 1, 2);
    wait_until_over(v, SPAN("k"));
}

/* Doubling goes on when the pause was over in between, and begins anew after a success. */
static void test_what_the_next_pause_doubles(void **state)
{
    struct verdicts *v = *state;
    verdict_put(v, SPAN("k"), &gone, 1, HOUR);
    wait_until_over(v, SPAN("k"));
    for (unsigned i = 0; i < 20; i++)
        verdict_put(v, SPAN("k"), &gone, 1, HOUR);
    assert_true(there(v, SPAN("k")));
    verdict_drop(v, SPAN("k"));
    verdict_put(v, SPAN("k"), &gone, 1, HOUR);
    wait_until_over(v, SPAN("k"));
}

static struct span numbered(char *buf, size_t cap, unsigned i)
{
    snprintf(buf, cap, "m repo tag-%u", i);
    return span_str(buf);
}

/* A scan of names: the table stays as large as it is, and what was said last is kept. */
static void test_oldest_goes_first(void **state)
{
    struct verdicts *v = *state;
    char key[64];
    for (unsigned i = 0; i < 4096; i++)
        verdict_put(v, numbered(key, sizeof key, i), &gone, HOUR, HOUR);
    for (unsigned i = 0; i < 4096; i++)
        assert_true(there(v, numbered(key, sizeof key, i)));
    verdict_put(v, numbered(key, sizeof key, 0), &gone, HOUR, HOUR); /* now the newest */
    verdict_put(v, SPAN("one more"), &gone, HOUR, HOUR);
    assert_true(there(v, SPAN("one more")));
    assert_true(there(v, numbered(key, sizeof key, 0)));
    assert_false(there(v, numbered(key, sizeof key, 1)));
    assert_true(there(v, numbered(key, sizeof key, 2)));
    for (unsigned i = 10000; i < 30000; i++)
        verdict_put(v, numbered(key, sizeof key, i), &gone, HOUR, HOUR);
    unsigned kept = 0;
    for (unsigned i = 0; i < 30000; i++)
        kept += there(v, numbered(key, sizeof key, i));
    assert_int_equal(kept, 4096);
    assert_false(there(v, SPAN("one more")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_remembers_the_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_time_is_no_verdict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_doubles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_has_a_maximum, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_the_next_pause_doubles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oldest_goes_first, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
