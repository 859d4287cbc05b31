/* Name resolution: literals at once, what is no name at once, a name that the system knows, one that nobody knows, several
 * waiters for one look-up, a cancelled wait. */
#include "loop.h"

#include <arpa/inet.h>
#include <string.h>

#define WAITERS 5

static struct loop loop;
static struct resolve_wait wait[WAITERS];
static unsigned n_done, n_expected;
static bool at_once;

static void on_done(struct resolve_wait *w)
{
    MUST(!list_linked(&w->node));
    if (++n_done == n_expected)
        core_quit(loop.core);
}

static void prepare(void)
{
    n_done = 0;
    for (unsigned i = 0; i < WAITERS; i++)
        wait[i] = (struct resolve_wait){.done = on_done};
}

static void run(void (*begin)(void *arg), unsigned expected)
{
    n_expected = expected;
    prepare();
    loop_open(&loop);
    loop_run(&loop, begin, NULL);
    loop_close(&loop);
}

/* ---- at once ---- */

static void begin_literals(void *arg)
{
    UNUSED(arg);
    char longest[400];
    memset(longest, 'a', sizeof longest);
    at_once = resolve_start(loop.core, SPAN("127.0.0.1"), 80, &wait[0]) &&
              resolve_start(loop.core, SPAN("::1"), 65535, &wait[1]) &&
              resolve_start(loop.core, SPAN(""), 1, &wait[2]) &&
              resolve_start(loop.core, span_of(longest, sizeof longest), 1, &wait[3]) &&
              resolve_start(loop.core, span_of("a\0b", 3), 1, &wait[4]);
    core_quit(loop.core);
}

static void test_at_once(void **state)
{
    UNUSED(state);
    run(begin_literals, 0);
    assert_true(at_once);
    assert_int_equal(wait[0].answer.n, 1);
    assert_int_equal(wait[0].answer.addr[0].u.v4.sin_port, htons(80));
    assert_int_equal(wait[0].answer.addr[0].u.v4.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(wait[1].answer.n, 1);
    assert_int_equal(wait[1].answer.addr[0].u.sa.sa_family, AF_INET6);
    assert_int_equal(wait[1].answer.addr[0].u.v6.sin6_port, htons(65535));
    for (unsigned i = 2; i < WAITERS; i++) {
        assert_int_equal(wait[i].answer.n, 0);
        assert_non_null(wait[i].answer.why);
    }
}

/* ---- looked up ---- */

static void begin_localhost(void *arg)
{
    UNUSED(arg);
    at_once = false;
    for (unsigned i = 0; i < WAITERS; i++)
        at_once |= resolve_start(loop.core, SPAN("localhost"), (uint16_t)(100 + i), &wait[i]);
    resolve_cancel(&wait[2]);
    resolve_cancel(&wait[2]);
}

static void test_shared_and_cancelled(void **state)
{
    UNUSED(state);
    run(begin_localhost, WAITERS - 1);
    assert_false(at_once);
    assert_int_equal(n_done, WAITERS - 1);
    assert_int_equal(wait[2].answer.n, 0);
    for (unsigned i = 0; i < WAITERS; i++) {
        if (i == 2)
            continue;
        assert_true(wait[i].answer.n >= 1);
        assert_null(wait[i].answer.why);
        for (unsigned k = 0; k < wait[i].answer.n; k++) { /* the port is at the same place in both families */
            assert_int_equal(wait[i].answer.addr[k].u.v4.sin_port, htons((uint16_t)(100 + i)));
        }
    }
}

/* All waiters cancelled: the look-up ends by itself, and the loop after it. */
static void begin_all_cancelled(void *arg)
{
    UNUSED(arg);
    at_once = resolve_start(loop.core, SPAN("localhost"), 1, &wait[0]);
    resolve_cancel(&wait[0]);
    core_quit(loop.core);
}

static void test_all_cancelled(void **state)
{
    UNUSED(state);
    run(begin_all_cancelled, 0);
    assert_false(at_once);
    assert_int_equal(n_done, 0);
}

/* A failure is kept: the second question is answered at once. So is an address. */

static void on_failed(struct resolve_wait *w)
{
    n_done++;
    at_once = resolve_start(loop.core, SPAN("no-such-name.invalid"), 1, &wait[1]) && w->answer.n == 0 &&
              wait[1].answer.why == w->answer.why;
    core_quit(loop.core);
}

static void begin_failed(void *arg)
{
    UNUSED(arg);
    wait[0].done = on_failed;
    MUST(!resolve_start(loop.core, SPAN("no-such-name.invalid"), 1, &wait[0]));
}

static void test_failure_is_kept(void **state)
{
    UNUSED(state);
    run(begin_failed, 1);
    assert_int_equal(n_done, 1);
    assert_non_null(wait[0].answer.why);
    assert_true(at_once);
}

static void on_known(struct resolve_wait *w)
{
    n_done++;
    at_once = resolve_start(loop.core, SPAN("localhost"), 7, &wait[1]) && w->answer.n == wait[1].answer.n &&
              wait[1].answer.addr[0].u.v4.sin_port == htons(7);
    core_quit(loop.core);
}

static void begin_known(void *arg)
{
    UNUSED(arg);
    wait[0].done = on_known;
    MUST(!resolve_start(loop.core, SPAN("localhost"), 5, &wait[0]));
}

static void test_address_is_kept(void **state)
{
    UNUSED(state);
    run(begin_known, 1);
    assert_true(wait[0].answer.n >= 1);
    assert_true(at_once);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once),         cmocka_unit_test(test_shared_and_cancelled),
        cmocka_unit_test(test_all_cancelled),   cmocka_unit_test(test_failure_is_kept),
        cmocka_unit_test(test_address_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
