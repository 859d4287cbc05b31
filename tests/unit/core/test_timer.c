/* Timers. Nothing here looks at how long something took, only at what fired and in which order. */
#include "loop.h"

enum { EARLY, LATE, MOVED, GONE, SELF, FAR, TIMERS };

struct bench {
    struct loop loop;
    struct timer timer[TIMERS];
    unsigned order[32], n;
    unsigned self_left;
    int64_t lag_ms;
};

static struct bench bench;

static void note(unsigned which)
{
    MUST(bench.n < ARRAY_LEN(bench.order));
    bench.order[bench.n++] = which;
}

static unsigned which_of(struct timer *t)
{
    MUST(t->due == 0); /* not armed any more when it fires */
    return (unsigned)(t - bench.timer);
}

static void fire_noted(struct timer *t)
{
    note(which_of(t));
}

static void fire_and_quit(struct timer *t)
{
    note(which_of(t));
    bench.lag_ms = core_lag_ms(bench.loop.core);
    core_quit(bench.loop.core);
}

static void run(void (*begin)(void *arg))
{
    bench.n = 0;
    loop_open(&bench.loop);
    loop_run(&bench.loop, begin, NULL);
    loop_close(&bench.loop);
}

static void arm(unsigned which, int64_t ms)
{
    timer_arm(bench.loop.core, &bench.timer[which], ms);
}

/* The later one was armed first; an earlier and a later re-arming; one that is disarmed. */
static void begin_order(void *arg)
{
    UNUSED(arg);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_init(&bench.timer[i], fire_noted);
    bench.timer[LATE].fire = fire_and_quit;
    arm(LATE, 900);
    arm(EARLY, 1);
    arm(MOVED, 5000);
    arm(MOVED, 300); /* earlier */
    arm(GONE, 100);
    timer_disarm(&bench.timer[GONE]);
    timer_disarm(&bench.timer[GONE]);
    arm(SELF, 100);
    arm(SELF, 600); /* later */
}

static void test_order(void **state)
{
    UNUSED(state);
    run(begin_order);
    const unsigned want[] = {EARLY, MOVED, SELF, LATE};
    assert_int_equal(bench.n, ARRAY_LEN(want));
    assert_memory_equal(bench.order, want, sizeof want);
}

/* Callbacks that arm, re-arm and disarm others of the same slot, and themselves. */

static void fire_disarms(struct timer *t)
{
    note(which_of(t));
    timer_disarm(&bench.timer[GONE]); /* due in this very tick, behind us */
    arm(MOVED, 400);                  /* the same, but moved away */
    arm(LATE, 800);
}

static void fire_self(struct timer *t)
{
    note(which_of(t));
    if (bench.self_left-- > 1)
        arm(SELF, 0);
}

static void begin_in_callbacks(void *arg)
{
    UNUSED(arg);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_init(&bench.timer[i], fire_noted);
    bench.timer[EARLY].fire = fire_disarms;
    bench.timer[SELF].fire = fire_self;
    bench.timer[LATE].fire = fire_and_quit;
    bench.self_left = 3;
    arm(EARLY, 20);
    arm(GONE, 20);
    arm(MOVED, 20);
    arm(SELF, 20);
}

static void test_in_callbacks(void **state)
{
    UNUSED(state);
    run(begin_in_callbacks);
    assert_int_equal(bench.n, 6);
    unsigned self = 0, moved = 0;
    assert_int_equal(bench.order[0], EARLY);
    assert_int_equal(bench.order[1], SELF);
    for (unsigned i = 0; i < bench.n; i++) {
        self += bench.order[i] == SELF;
        moved += bench.order[i] == MOVED;
        assert_true(bench.order[i] != GONE);
    }
    assert_int_equal(self, 3);
    assert_int_equal(moved, 1);
    assert_int_equal(bench.order[5], LATE);
}

/* Beyond one turn of the wheel (1024 * 50 ms): its slot comes by early and often, and it does not fire. One that was far and is
 * brought near fires. */

static void fire_stop_far(struct timer *t)
{
    note(which_of(t));
    timer_disarm(&bench.timer[FAR]);
    core_quit(bench.loop.core);
}

static void begin_far(void *arg)
{
    UNUSED(arg);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_init(&bench.timer[i], fire_noted);
    bench.timer[LATE].fire = fire_stop_far;
    arm(FAR, (int64_t)1024 * 50 + 100); /* the slot of 100 ms from now, one round later */
    arm(MOVED, (int64_t)400 * 24 * 3600 * 1000);
    arm(MOVED, 200);
    arm(LATE, 700);
}

static void test_far(void **state)
{
    UNUSED(state);
    run(begin_far);
    const unsigned want[] = {MOVED, LATE};
    assert_int_equal(bench.n, ARRAY_LEN(want));
    assert_memory_equal(bench.order, want, sizeof want);
}

/* The tick stops when nothing is armed, and starts again. */

static void fire_second(struct timer *t)
{
    note(which_of(t));
    core_quit(bench.loop.core);
}

static struct job pause_job;

static void pause_work(struct job *j)
{
    UNUSED(j);
    usleep(200000); /* several ticks without a timer */
}

static void pause_done(struct job *j)
{
    UNUSED(j);
    arm(LATE, 50);
}

static void fire_first(struct timer *t)
{
    note(which_of(t));
    job_start(bench.loop.core, &pause_job, pause_work, pause_done);
}

static void begin_rest(void *arg)
{
    UNUSED(arg);
    timer_init(&bench.timer[EARLY], fire_first);
    timer_init(&bench.timer[LATE], fire_second);
    arm(EARLY, 10);
}

static void test_rests_and_starts_again(void **state)
{
    UNUSED(state);
    run(begin_rest);
    const unsigned want[] = {EARLY, LATE};
    assert_int_equal(bench.n, ARRAY_LEN(want));
    assert_memory_equal(bench.order, want, sizeof want);
}

/* The loop stands still for longer than its timers: all of them fire, none is lost. */

static void begin_still(void *arg)
{
    UNUSED(arg);
    for (unsigned i = 0; i < TIMERS; i++)
        timer_init(&bench.timer[i], fire_noted);
    bench.timer[LATE].fire = fire_and_quit;
    arm(EARLY, 60);
    arm(MOVED, 160);
    arm(SELF, 260);
    arm(LATE, 900);
    usleep(600000);
}

static void test_loop_stood_still(void **state)
{
    UNUSED(state);
    run(begin_still);
    const unsigned want[] = {EARLY, MOVED, SELF, LATE};
    assert_int_equal(bench.n, ARRAY_LEN(want));
    assert_memory_equal(bench.order, want, sizeof want);
    assert_true(bench.lag_ms >= 500); /* a tick was due after 50 ms */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_in_callbacks),
        cmocka_unit_test(test_far),
        cmocka_unit_test(test_rests_and_starts_again),
        cmocka_unit_test(test_loop_stood_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
