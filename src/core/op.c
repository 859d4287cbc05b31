/* Resumable operations; see op.h for the rules. */
#include <string.h>

#include "base/check.h"
#include "core/core.h"
#include "core/core_int.h"
#include "core/op.h"

void op_init(struct op *op, struct core *core, const struct op_class *cls, unsigned state)
{
    *op = (struct op){.core = core, .cls = cls, .state = (uint8_t)state, .born = core_now(core)};
    list_push_back(core_ops(core), &op->node);
}

enum step op_go(struct op *op, unsigned state)
{
    memmove(op->history + 1, op->history, OP_HISTORY - 1);
    op->history[0] = op->state;
    op->state = (uint8_t)state;
    return STEP_MORE;
}

static void op_finish(struct op *op)
{
    list_remove(&op->node);
    op->cls->free(op);
}

void op_run(struct op *op)
{
    core_check(op->core);
    if (op->running) {
        op->again = true;
        return;
    }
    enum step s = STEP_END;
    if (!op->ended) {
        op->running = true;
        do {
            op->again = false;
            s = op->cls->step(op);
        } while (s == STEP_MORE || (s == STEP_WAIT && op->again));
        op->running = false;
        if (s == STEP_WAIT)
            MUST(op->outstanding != 0); /* parked with nobody to wake us: a lost flow */
        else
            op->ended = true;
    }
    if (op->ended && op->outstanding == 0)
        op_finish(op);
}

void op_close(struct op *op, int reason)
{
    MUST(reason != 0);
    if (op->closing == 0)
        op->closing = reason;
    op_run(op);
}

void op_each(struct core *core, void (*each)(const struct op *op, void *arg), void *arg)
{
    core_check(core);
    LIST_FOREACH (n, core_ops(core))
        each(CONTAINER_OF(n, struct op, node), arg);
}
