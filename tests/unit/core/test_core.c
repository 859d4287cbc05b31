/* Messages and deferred work. */
#include "loop.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- messages from several threads ---- */

#define POSTERS 4
#define POSTS   2000

struct parcel {
    struct core_msg msg;
    struct post *post;
    unsigned runs;
};

struct post {
    struct loop loop;
    struct parcel parcel[POSTERS][POSTS];
    pthread_t thread[POSTERS];
    unsigned arrived;
};

static void on_parcel(struct core_msg *m)
{
    struct parcel *p = CONTAINER_OF(m, struct parcel, msg);
    MUST(core_is_current(p->post->loop.core));
    p->runs++;
    if (++p->post->arrived == POSTERS * POSTS)
        core_quit(p->post->loop.core);
}

static void *poster(void *arg)
{
    struct parcel *p = arg;
    for (unsigned i = 0; i < POSTS; i++)
        core_post(p[i].post->loop.core, &p[i].msg);
    return NULL;
}

static void begin_posters(void *arg)
{
    struct post *t = arg;
    for (unsigned i = 0; i < POSTERS; i++)
        MUST(pthread_create(&t->thread[i], NULL, poster, t->parcel[i]) == 0);
}

static void test_every_message_runs_once(void **state)
{
    UNUSED(state);
    struct post *t = calloc(1, sizeof *t);
    loop_open(&t->loop);
    for (unsigned i = 0; i < POSTERS; i++) {
        for (unsigned k = 0; k < POSTS; k++) {
            t->parcel[i][k].post = t;
            core_msg_init(&t->parcel[i][k].msg, on_parcel);
        }
    }
    loop_run(&t->loop, begin_posters, t);
    for (unsigned i = 0; i < POSTERS; i++) {
        pthread_join(t->thread[i], NULL);
        for (unsigned k = 0; k < POSTS; k++) {
            assert_int_equal(t->parcel[i][k].runs, 1);
            assert_true(core_msg_idle(&t->parcel[i][k].msg));
        }
    }
    loop_close(&t->loop);
    free(t);
}

/* A message that is posted while it is posted runs once; one that is posted while it runs runs again. */

struct again {
    struct loop loop;
    struct core_msg msg, other;
    unsigned runs, others;
};

static void on_other(struct core_msg *m)
{
    struct again *t = CONTAINER_OF(m, struct again, other);
    t->others++;
    if (t->runs == 100)
        core_quit(t->loop.core);
}

static void on_again(struct core_msg *m)
{
    struct again *t = CONTAINER_OF(m, struct again, msg);
    MUST(core_msg_idle(m)); /* idle before it runs, so that this counts: */
    if (++t->runs < 100)
        core_post(t->loop.core, m);
    core_post(t->loop.core, &t->other);
}

static void begin_again(void *arg)
{
    struct again *t = arg;
    core_post(t->loop.core, &t->msg);
    core_post(t->loop.core, &t->msg);
    core_post(t->loop.core, &t->msg);
    MUST(!core_msg_idle(&t->msg));
}

static void test_reposts_itself(void **state)
{
    UNUSED(state);
    struct again t = {.runs = 0};
    loop_open(&t.loop);
    core_msg_init(&t.msg, on_again);
    core_msg_init(&t.other, on_other);
    loop_run(&t.loop, begin_again, &t);
    assert_int_equal(t.runs, 100);
    assert_int_equal(t.others, 50); /* every second time it was still posted from the time before */
    loop_close(&t.loop);
}

/* What is posted in the very moment in which the loop ends still runs. */

static void on_late(struct core_msg *m)
{
    CONTAINER_OF(m, struct again, other)->others++;
}

static void begin_late(void *arg)
{
    struct again *t = arg;
    core_quit(t->loop.core);
    core_post(t->loop.core, &t->other);
}

static void test_posted_while_quitting(void **state)
{
    UNUSED(state);
    struct again t = {.runs = 0};
    loop_open(&t.loop);
    core_msg_init(&t.other, on_late);
    loop_run(&t.loop, begin_late, &t);
    assert_int_equal(t.others, 1);
    loop_close(&t.loop);
}

/* ---- two cores that play with each other ---- */

struct pong {
    struct core *core[2];
    struct core_msg msg[2];
    unsigned hits[2];
};

static struct pong pong;

static void hit(unsigned me)
{
    if (++pong.hits[me] < 5000) {
        core_post(pong.core[!me], &pong.msg[!me]);
        return;
    }
    core_quit(pong.core[me]);
    core_post(pong.core[!me], &pong.msg[!me]);
}

static void on_ping(struct core_msg *m)
{
    UNUSED(m);
    hit(0);
}

static void on_pong(struct core_msg *m)
{
    UNUSED(m);
    if (pong.hits[1] == 4999) { /* the last: nothing goes back */
        pong.hits[1]++;
        core_quit(pong.core[1]);
        return;
    }
    hit(1);
}

static void *run_core(void *arg)
{
    core_run(arg);
    return NULL;
}

static void test_ping_pong(void **state)
{
    UNUSED(state);
    pthread_t other;
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    for (unsigned i = 0; i < 2; i++) {
        pong.core[i] = core_new(i);
        assert_non_null(pong.core[i]);
        core_msg_init(&pong.msg[i], i == 0 ? on_ping : on_pong);
    }
    core_post(pong.core[0], &pong.msg[0]);
    assert_int_equal(pthread_create(&other, NULL, run_core, pong.core[1]), 0);
    alarm(LOOP_PATIENCE_S);
    core_run(pong.core[0]);
    pthread_join(other, NULL);
    alarm(0);
    assert_int_equal(pong.hits[0], 5000);
    assert_int_equal(pong.hits[1], 5000);
    core_free(pong.core[0]);
    core_free(pong.core[1]);
}

/* ---- deferred work ---- */

struct greedy {
    struct loop loop;
    struct defer self, many[500], never;
    struct core_msg msg;
    unsigned runs, runs_at_message, others, order[500];
};

static struct greedy *greedy_of;

static void on_greedy(struct defer *d)
{
    struct greedy *t = CONTAINER_OF(d, struct greedy, self);
    if (t->runs++ == 0)
        core_post(t->loop.core, &t->msg);
    defer_start(t->loop.core, d);
}

static void on_greedy_message(struct core_msg *m)
{
    struct greedy *t = CONTAINER_OF(m, struct greedy, msg);
    t->runs_at_message = t->runs;
    defer_cancel(&t->self);
    core_quit(t->loop.core);
}

static void begin_greedy(void *arg)
{
    struct greedy *t = arg;
    defer_start(t->loop.core, &t->self);
}

static void test_deferral_that_starts_itself_again_runs_once_a_turn(void **state)
{
    UNUSED(state);
    struct greedy t = {.runs = 0};
    loop_open(&t.loop);
    defer_init(&t.self, on_greedy);
    core_msg_init(&t.msg, on_greedy_message);
    loop_run(&t.loop, begin_greedy, &t);
    assert_true(t.runs_at_message <= 2); /* the bell is heard between two runs */
    loop_close(&t.loop);
}

static void on_one_of_many(struct defer *d)
{
    unsigned i = (unsigned)(d - greedy_of->many);
    greedy_of->order[greedy_of->others++] = i;
    if (i + 2 < ARRAY_LEN(greedy_of->many) && i % 10 == 0) /* its successor's turn does not come */
        defer_cancel(&greedy_of->many[i + 1]);
    if (i + 1 == ARRAY_LEN(greedy_of->many))
        core_quit(greedy_of->loop.core);
}

static void begin_many(void *arg)
{
    struct greedy *t = arg;
    for (unsigned i = 0; i < ARRAY_LEN(t->many); i++) {
        defer_start(t->loop.core, &t->many[i]);
        defer_start(t->loop.core, &t->many[i]); /* a no-op */
    }
}

static void test_many_in_order_and_cancelled_in_between(void **state)
{
    UNUSED(state);
    struct greedy t = {.runs = 0};
    greedy_of = &t;
    loop_open(&t.loop);
    for (unsigned i = 0; i < ARRAY_LEN(t.many); i++)
        defer_init(&t.many[i], on_one_of_many);
    loop_run(&t.loop, begin_many, &t);
    assert_int_equal(t.others, 450);
    for (unsigned i = 1; i < t.others; i++)
        assert_true(t.order[i] > t.order[i - 1] && t.order[i] % 10 != 1);
    loop_close(&t.loop);
}

static void on_never(struct defer *d)
{
    UNUSED(d);
    MUST(!"a cancelled deferral ran");
}

static void begin_never(void *arg)
{
    struct greedy *t = arg;
    defer_start(t->loop.core, &t->never);
    defer_cancel(&t->never);
    defer_cancel(&t->never);
    core_quit(t->loop.core);
}

/* An idle handle that stayed would keep this loop alive (and spinning) for ever. */
static void test_cancelled_deferral_lets_the_loop_end(void **state)
{
    UNUSED(state);
    struct greedy t = {.runs = 0};
    loop_open(&t.loop);
    defer_init(&t.never, on_never);
    loop_run(&t.loop, begin_never, &t);
    loop_close(&t.loop);
}

/* ---- slots and counters ---- */

static void test_slots(void **state)
{
    UNUSED(state);
    struct loop l;
    int x;
    loop_open(&l);
    assert_int_equal(core_id(l.core), 0);
    assert_null(core_slot(l.core, CORE_SLOT_HTTP));
    core_set_slot(l.core, CORE_SLOT_HTTP, &x);
    assert_ptr_equal(core_slot(l.core, CORE_SLOT_HTTP), &x);
    assert_null(core_slot(l.core, CORE_SLOT_CLIENT));
    COUNT(core_counters(l.core), connections_open, 2);
    COUNT(core_counters(l.core), connections_open, -1);
    assert_int_equal(atomic_load(&core_counters(l.core)->connections_open), 1);
    assert_false(core_is_current(l.core));
    core_quit(l.core);
    core_run(l.core);
    loop_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_every_message_runs_once),
        cmocka_unit_test(test_reposts_itself),
        cmocka_unit_test(test_posted_while_quitting),
        cmocka_unit_test(test_ping_pong),
        cmocka_unit_test(test_deferral_that_starts_itself_again_runs_once_a_turn),
        cmocka_unit_test(test_many_in_order_and_cancelled_in_between),
        cmocka_unit_test(test_cancelled_deferral_lets_the_loop_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
