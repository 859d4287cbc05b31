/* Resumable operations: again, close, what is outstanding, and the abort of a lost flow. */
#include "../base/child.h"
#include "core/op.h"
#include "loop.h"

#define BIT_A 1u
#define BIT_B 2u

struct flow {
    struct op op;
    enum step (*script)(struct flow *f);
    unsigned steps, freed;
};

static struct loop loop;
static struct flow flow;
static void (*body)(void);

static enum step step(struct op *op)
{
    struct flow *f = CONTAINER_OF(op, struct flow, op);
    f->steps++;
    return f->script(f);
}

static void freed(struct op *op)
{
    CONTAINER_OF(op, struct flow, op)->freed++;
}

static const char *state_name(unsigned state)
{
    UNUSED(state);
    return "STATE";
}

static const struct op_class class = {"flow", step, freed, state_name, NULL};

static void begin(void *arg)
{
    UNUSED(arg);
    body();
    core_quit(loop.core);
}

static void on_core(void (*what)(void), enum step (*script)(struct flow *f))
{
    flow = (struct flow){.script = script};
    body = what;
    loop_open(&loop);
    loop_run(&loop, begin, NULL);
    loop_close(&loop);
}

static void count(const struct op *op, void *arg)
{
    UNUSED(op);
    (*(unsigned *)arg)++;
}

static unsigned live(void)
{
    unsigned n = 0;
    op_each(loop.core, count, &n);
    return n;
}

/* ---- states ---- */

static enum step walk(struct flow *f)
{
    if (f->op.state < 12)
        return op_go(&f->op, f->op.state + 1u);
    return STEP_END;
}

static void do_walk(void)
{
    op_init(&flow.op, loop.core, &class, 1);
    MUST(live() == 1);
    op_run(&flow.op);
    MUST(live() == 0);
}

static void test_states(void **state)
{
    UNUSED(state);
    on_core(do_walk, walk);
    assert_int_equal(flow.steps, 12);
    assert_int_equal(flow.freed, 1);
    for (unsigned i = 0; i < OP_HISTORY; i++)
        assert_int_equal(flow.op.history[i], 11 - i);
}

/* ---- waiting, and being run while running ---- */

static enum step wait_for_a(struct flow *f)
{
    if (f->steps == 1) {
        op_expect(&f->op, BIT_A);
        op_run(&f->op); /* as a callback in the middle of a step would: flat */
        op_run(&f->op);
        MUST(f->steps == 1);
        return STEP_WAIT;
    }
    return op_expects(&f->op, BIT_A) ? STEP_WAIT : STEP_END;
}

static void do_wait(void)
{
    op_init(&flow.op, loop.core, &class, 0);
    op_run(&flow.op);
    MUST(flow.steps == 2 && flow.freed == 0); /* once more for both */
    op_clear(&flow.op, BIT_A);
    op_run(&flow.op);
    MUST(flow.steps == 3 && flow.freed == 1);
}

static void test_wait_and_again(void **state)
{
    UNUSED(state);
    on_core(do_wait, wait_for_a);
    assert_int_equal(flow.freed, 1);
}

/* ---- closing ---- */

static enum step two_bits(struct flow *f)
{
    if (f->op.closing != 0)
        return STEP_END;
    if (f->steps == 1) {
        op_expect(&f->op, BIT_A);
        op_expect(&f->op, BIT_B);
    }
    return STEP_WAIT;
}

static void do_close(void)
{
    op_init(&flow.op, loop.core, &class, 0);
    op_run(&flow.op);
    op_close(&flow.op, 7);
    MUST(flow.op.closing == 7 && flow.freed == 0); /* both are still out */
    op_close(&flow.op, 9);
    MUST(flow.op.closing == 7); /* the first reason stays */
    op_clear(&flow.op, BIT_A);
    op_run(&flow.op);
    MUST(flow.freed == 0 && live() == 1);
    unsigned steps = flow.steps;
    op_clear(&flow.op, BIT_B);
    op_run(&flow.op);
    MUST(flow.freed == 1 && live() == 0);
    MUST(flow.steps == steps); /* ended: no step any more */
}

static void test_close(void **state)
{
    UNUSED(state);
    on_core(do_close, two_bits);
    assert_int_equal(flow.freed, 1);
}

static enum step closes_itself(struct flow *f)
{
    if (f->op.closing != 0)
        return STEP_END;
    op_close(&f->op, 3);
    return op_wait(&f->op, BIT_A); /* looked at again at once */
}

static void do_close_within(void)
{
    op_init(&flow.op, loop.core, &class, 0);
    op_run(&flow.op);
    MUST(flow.steps == 2 && flow.freed == 0);
    op_clear(&flow.op, BIT_A);
    op_run(&flow.op);
}

static void test_close_within_a_step(void **state)
{
    UNUSED(state);
    on_core(do_close_within, closes_itself);
    assert_int_equal(flow.freed, 1);
}

/* ---- what aborts ---- */

static enum step lost(struct flow *f)
{
    UNUSED(f);
    return STEP_WAIT;
}

static void do_run(void)
{
    op_init(&flow.op, loop.core, &class, 0);
    op_run(&flow.op);
}

static void lost_flow(void)
{
    on_core(do_run, lost);
}

static void do_clear_twice(void)
{
    op_init(&flow.op, loop.core, &class, 0);
    op_run(&flow.op);
    op_clear(&flow.op, BIT_A);
    op_clear(&flow.op, BIT_A);
}

static void cleared_twice(void)
{
    on_core(do_clear_twice, two_bits);
}

static void do_no_reason(void)
{
    op_init(&flow.op, loop.core, &class, 0);
    op_run(&flow.op);
    op_close(&flow.op, 0);
}

static void closed_without_reason(void)
{
    on_core(do_no_reason, two_bits);
}

static void test_aborts(void **state)
{
    UNUSED(state);
    static const struct {
        void (*what)(void);
        const char *says;
    } cases[] = {{lost_flow, "outstanding != 0"},
                 {cleared_twice, "outstanding & bit"},
                 {closed_without_reason, "reason != 0"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct child c = child_run(cases[i].what);
        assert_int_equal(c.signal, SIGABRT);
        assert_non_null(strstr(c.text, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states), cmocka_unit_test(test_wait_and_again),
        cmocka_unit_test(test_close),  cmocka_unit_test(test_close_within_a_step),
        cmocka_unit_test(test_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
