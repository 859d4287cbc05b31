/* Quotas: what one share gets, what goes to another one, and the bounds under load from several cores. */
#include "rig.h"

#include "base/mem.h"
#include "http/quota.h"

/* ---- two shares of one core, step by step ---- */

struct side { /* what a pool would have */
    struct quota_share *share;
    unsigned turns;
};

static struct rig rig;
static struct quotas *quotas;
static struct side here, there;

static void on_turn(void *owner)
{
    ((struct side *)owner)->turns++;
}

static void do_join(void *arg)
{
    (void)arg;
    here.share = quota_join(quotas, SPAN("s443 r.test"), rig.core, on_turn, &here);
    there.share = quota_join(quotas, SPAN("s443 r.test"), rig.core, on_turn, &there);
}

static void do_leave(void *arg)
{
    (void)arg;
    quota_leave(here.share);
    quota_leave(there.share);
}

static int setup(void **state)
{
    (void)state;
    here = there = (struct side){0};
    rig_start(&rig);
    quotas = quotas_new();
    rig_do(&rig, do_join, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_do(&rig, do_leave, NULL);
    rig_stop(&rig);
    quotas_unref(quotas);
    return 0;
}

static void close_busy(struct side *side, unsigned n)
{
    while (n-- > 0)
        quota_closed(side->share, false);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* What was posted has run. */
static void settle(void)
{
    rig_do(&rig, nothing, NULL);
}

static void test_the_bound_is_of_all_shares(void **state)
{
    (void)state;
    struct quota_wait a = {.max = 2}, b = {.max = 2}, c = {.max = 2};
    enum quota_answer got = QUOTA_WAIT;
    assert_int_equal(quota_ask(here.share, &a), QUOTA_NEW);
    assert_int_equal(quota_ask(here.share, &b), QUOTA_NEW);
    assert_int_equal(quota_ask(there.share, &c), QUOTA_WAIT);
    close_busy(&here, 1);
    settle();
    assert_int_equal(there.turns, 1);
    assert_int_equal(here.turns, 0);
    assert_ptr_equal(quota_collect(there.share, &got), &c);
    assert_int_equal(got, QUOTA_NEW);
    assert_null(quota_collect(there.share, &got));
    close_busy(&here, 1);
    close_busy(&there, 1);
}

static void test_a_kept_one_is_used_again(void **state)
{
    (void)state;
    struct quota_wait a = {.max = 1}, b = {.max = 1}, c = {.max = 1};
    enum quota_answer got = QUOTA_WAIT;
    assert_int_equal(quota_ask(here.share, &a), QUOTA_NEW);
    quota_kept(here.share);
    assert_int_equal(quota_ask(here.share, &b), QUOTA_KEPT);
    assert_int_equal(quota_ask(here.share, &c), QUOTA_WAIT);
    quota_kept(here.share);
    assert_ptr_equal(quota_collect(here.share, &got), &c);
    assert_int_equal(got, QUOTA_KEPT);
    close_busy(&here, 1);
}

/* It goes before the one that got it has taken it: then that one makes a new connection, and nobody else. */
static void test_a_promised_one_goes(void **state)
{
    (void)state;
    struct quota_wait a = {.max = 1}, b = {.max = 1}, c = {.max = 1};
    enum quota_answer got = QUOTA_WAIT;
    assert_int_equal(quota_ask(here.share, &a), QUOTA_NEW);
    assert_int_equal(quota_ask(here.share, &b), QUOTA_WAIT);
    quota_kept(here.share);
    quota_closed(here.share, true);
    assert_int_equal(quota_ask(there.share, &c), QUOTA_WAIT);
    assert_ptr_equal(quota_collect(here.share, &got), &b);
    assert_int_equal(got, QUOTA_NEW);
    close_busy(&here, 1);
    assert_ptr_equal(quota_collect(there.share, &got), &c);
    close_busy(&there, 1);
}

/* As after a reload, or where another upstream's redirects lead. */
static void test_a_lower_bound_is_nobody_elses(void **state)
{
    (void)state;
    struct quota_wait a = {.max = 8}, low = {.max = 1}, b = {.max = 2}, lower = {.max = 1}, c = {.max = 3};
    enum quota_answer got = QUOTA_WAIT;
    assert_int_equal(quota_ask(here.share, &a), QUOTA_NEW);
    assert_int_equal(quota_ask(here.share, &low), QUOTA_WAIT);
    assert_int_equal(quota_ask(there.share, &b), QUOTA_NEW); /* though somebody waits */
    struct quota_wait more = {.max = 2};
    assert_int_equal(quota_ask(there.share, &more), QUOTA_WAIT);
    assert_int_equal(quota_ask(there.share, &lower), QUOTA_WAIT);
    close_busy(&here, 1); /* for `more`, which stands behind `low` */
    assert_ptr_equal(quota_collect(there.share, &got), &more);
    assert_null(quota_collect(here.share, &got));
    assert_int_equal(quota_ask(there.share, &c), QUOTA_NEW);
    close_busy(&there, 3);
    assert_ptr_equal(quota_collect(here.share, &got), &low);
    assert_null(quota_collect(there.share, &got));
    close_busy(&here, 1);
    assert_ptr_equal(quota_collect(there.share, &got), &lower);
    close_busy(&there, 1);
}

static void test_an_idle_one_elsewhere_is_closed(void **state)
{
    (void)state;
    struct quota_wait a = {.max = 2}, b = {.max = 2}, c = {.max = 2};
    enum quota_answer got = QUOTA_WAIT;
    assert_int_equal(quota_ask(here.share, &a), QUOTA_NEW);
    assert_int_equal(quota_ask(here.share, &b), QUOTA_NEW);
    quota_kept(here.share);
    assert_int_equal(quota_shed(here.share), 0);
    assert_int_equal(quota_ask(there.share, &c), QUOTA_WAIT); /* two are open */
    settle();
    assert_int_equal(here.turns, 1);
    assert_int_equal(quota_shed(here.share), 1);
    assert_null(quota_collect(there.share, &got));
    quota_closed(here.share, true);
    assert_int_equal(quota_shed(here.share), 0);
    assert_ptr_equal(quota_collect(there.share, &got), &c);
    assert_int_equal(got, QUOTA_NEW);
    close_busy(&here, 1);
    close_busy(&there, 1);
}

static void test_bulk_leaves_a_quarter(void **state)
{
    (void)state;
    static const struct {
        unsigned max, bulk;
    } cases[] = {{1, 1}, {2, 1}, {3, 2}, {4, 3}, {8, 6}, {64, 48}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct quota_wait big = {.max = cases[i].max, .bulk = true}, small = {.max = cases[i].max};
        unsigned n = 0;
        while (quota_ask(n % 2 == 0 ? here.share : there.share, &big) == QUOTA_NEW)
            n++;
        assert_int_equal(n, cases[i].bulk);
        for (; n < cases[i].max; n++)
            assert_int_equal(quota_ask(here.share, &small), QUOTA_NEW);
        assert_int_equal(quota_ask(there.share, &small), QUOTA_WAIT);
        quota_withdraw(&big);
        quota_withdraw(&small);
        close_busy(&here, n);
    }
}

static void test_in_the_order_of_asking(void **state)
{
    (void)state;
    struct quota_wait bulk = {.max = 2, .bulk = true}, w[4];
    enum quota_answer got;
    assert_int_equal(quota_ask(here.share, &bulk), QUOTA_NEW);
    for (unsigned i = 0; i < ARRAY_LEN(w); i++) {
        w[i] = (struct quota_wait){.max = 2, .bulk = i < 2};
        enum quota_answer want = i == 2 ? QUOTA_NEW : QUOTA_WAIT;
        assert_int_equal(quota_ask(i % 2 == 0 ? here.share : there.share, &w[i]), want);
    }
    close_busy(&here, 1); /* to [3], which came last, and is small */
    assert_null(quota_collect(here.share, &got));
    assert_ptr_equal(quota_collect(there.share, &got), &w[3]);
    close_busy(&here, 1);
    assert_null(quota_collect(here.share, &got)); /* still one is busy */
    close_busy(&there, 1);
    assert_ptr_equal(quota_collect(here.share, &got), &w[0]);
    close_busy(&here, 1);
    assert_ptr_equal(quota_collect(there.share, &got), &w[1]);
    close_busy(&there, 1);
}

static void test_what_is_not_wanted_goes_to_the_next(void **state)
{
    (void)state;
    struct quota_wait a = {.max = 1}, b = {.max = 1}, c = {.max = 1}, d = {.max = 1};
    enum quota_answer got;
    assert_int_equal(quota_ask(here.share, &a), QUOTA_NEW);
    assert_int_equal(quota_ask(there.share, &b), QUOTA_WAIT);
    assert_int_equal(quota_ask(here.share, &c), QUOTA_WAIT);
    assert_int_equal(quota_ask(there.share, &d), QUOTA_WAIT);
    close_busy(&here, 1);
    quota_withdraw(&b); /* it has got it, and not taken it */
    quota_withdraw(&b);
    assert_null(quota_collect(there.share, &got));
    quota_withdraw(&c);
    assert_null(quota_collect(here.share, &got));
    assert_ptr_equal(quota_collect(there.share, &got), &d);
    close_busy(&there, 1);
}

/* ---- several cores ---- */

#define CORES  3
#define CALLS  40
#define ROUNDS 500
#define MAX    5

struct load_call {
    struct quota_wait wait;
    struct lane *lane;
    struct defer later;
    bool busy;
    unsigned rounds;
};

struct lane {
    struct rig rig;
    struct quota_share *share;
    struct load_call calls[CALLS];
    unsigned seed, kept, over;
    bool all_over;
};

static struct lane lanes[CORES];
static atomic_int busy_now, bulk_now, open_now;
static atomic_bool too_many;

static void note(atomic_int *n, int change, int most)
{
    if (atomic_fetch_add(n, change) + change > most)
        atomic_store(&too_many, true);
}

static void begin_call(struct load_call *c);

static void took(struct load_call *c, enum quota_answer got)
{
    struct lane *l = c->lane;
    if (got == QUOTA_NEW)
        note(&open_now, 1, MAX);
    else
        l->kept--;
    c->busy = true;
    note(&busy_now, 1, MAX);
    if (c->wait.bulk)
        note(&bulk_now, 1, MAX - 2);
}

static void next_round(struct load_call *c)
{
    struct lane *l = c->lane;
    if (++c->rounds == ROUNDS)
        l->over++;
    else
        begin_call(c);
}

static void end_call(struct load_call *c)
{
    struct lane *l = c->lane;
    c->busy = false;
    atomic_fetch_sub(&busy_now, 1);
    if (c->wait.bulk)
        atomic_fetch_sub(&bulk_now, 1);
    if (rand_r(&l->seed) % 4 == 0) {
        atomic_fetch_sub(&open_now, 1);
        quota_closed(l->share, false);
    } else {
        l->kept++;
        quota_kept(l->share);
    }
}

static void close_kept(struct lane *l)
{
    MUST(l->kept > 0);
    l->kept--;
    atomic_fetch_sub(&open_now, 1);
    quota_closed(l->share, true);
}

static void on_later(struct defer *d)
{
    struct load_call *c = CONTAINER_OF(d, struct load_call, later);
    if (c->busy)
        end_call(c);
    else if (rand_r(&c->lane->seed) % 4 == 0)
        quota_withdraw(&c->wait); /* as if its time were over */
    else
        return; /* its turn comes */
    next_round(c);
}

static void begin_call(struct load_call *c)
{
    struct lane *l = c->lane;
    c->wait = (struct quota_wait){.max = MAX, .bulk = rand_r(&l->seed) % 2 == 0};
    enum quota_answer got = quota_ask(l->share, &c->wait);
    if (got != QUOTA_WAIT)
        took(c, got);
    if (l->kept > 0 && rand_r(&l->seed) % 8 == 0)
        close_kept(l); /* as if it had been closed by the other side */
    defer_start(l->rig.core, &c->later);
}

static void on_lane_turn(void *owner)
{
    struct lane *l = owner;
    struct quota_wait *w;
    enum quota_answer got;
    while ((w = quota_collect(l->share, &got)) != NULL) {
        struct load_call *c = CONTAINER_OF(w, struct load_call, wait);
        took(c, got);
        defer_start(l->rig.core, &c->later);
    }
    for (unsigned n = quota_shed(l->share); n > 0; n--)
        close_kept(l);
}

static void do_load(void *arg)
{
    struct lane *l = arg;
    l->share = quota_join(quotas, SPAN("p80 r.test"), l->rig.core, on_lane_turn, l);
    for (unsigned i = 0; i < CALLS; i++) {
        l->calls[i].lane = l;
        defer_init(&l->calls[i].later, on_later);
        begin_call(&l->calls[i]);
    }
}

static void do_look_over(void *arg)
{
    struct lane *l = arg;
    l->all_over = l->over == CALLS;
}

static void do_lane_end(void *arg)
{
    struct lane *l = arg;
    while (l->kept > 0)
        close_kept(l);
    quota_leave(l->share);
}

static void test_bounds_on_several_cores(void **state)
{
    (void)state;
    memset(lanes, 0, sizeof lanes);
    for (unsigned i = 0; i < CORES; i++) {
        lanes[i].seed = i;
        rig_start(&lanes[i].rig);
    }
    for (unsigned i = 0; i < CORES; i++)
        rig_do(&lanes[i].rig, do_load, &lanes[i]);
    for (unsigned i = 0; i < CORES; i++)
        rig_until(&lanes[i].rig, do_look_over, &lanes[i], &lanes[i].all_over);
    for (unsigned i = 0; i < CORES; i++)
        rig_do(&lanes[i].rig, do_lane_end, &lanes[i]);
    for (unsigned i = 0; i < CORES; i++)
        rig_stop(&lanes[i].rig);
    assert_false(atomic_load(&too_many));
    assert_int_equal(atomic_load(&busy_now), 0);
    assert_int_equal(atomic_load(&open_now), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_bound_is_of_all_shares),
        TEST(test_a_kept_one_is_used_again),
        TEST(test_a_promised_one_goes),
        TEST(test_a_lower_bound_is_nobody_elses),
        TEST(test_an_idle_one_elsewhere_is_closed),
        TEST(test_bulk_leaves_a_quarter),
        TEST(test_in_the_order_of_asking),
        TEST(test_what_is_not_wanted_goes_to_the_next),
        TEST(test_bounds_on_several_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
