/* Resumable operations: the one way in which an asynchronous flow is written.
 *
 * A flow is a struct that embeds `struct op` and everything it waits for. It has a named state and one step
 * function per state. Every callback stores its result, clears its outstanding bit and calls op_run(); it
 * decides nothing. op_run() calls the class's step until it says WAIT or END. Being called while it runs only
 * sets `again`, so nothing recurses. WAIT with nothing outstanding is a lost flow and aborts.
 *
 *   step returns STEP_MORE   go on at once (the state has changed)
 *                STEP_WAIT   parked; some outstanding bit will bring us back
 *                STEP_END    finished; freed as soon as nothing is outstanding any more
 *
 * Closing is a request: op_close(op, reason) records the reason (the first one wins) and runs; the class's
 * step sees op->closing before anything else and returns END once it has cancelled what can be cancelled.
 * After END the struct stays until the last outstanding bit is cleared, then class->free is called: whoever
 * clears it frees.
 *
 * Owner: itself. Thread: its core's. */
#ifndef LARDER_CORE_OP_H
#define LARDER_CORE_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct core;
struct op;

enum step { STEP_MORE, STEP_WAIT, STEP_END };

struct op_class {
    const char *name;
    enum step (*step)(struct op *op);
    void (*free)(struct op *op);
    const char *(*state_name)(unsigned state);
    /* May it be closed when this core is stopping and has no client left? NULL: its parent closes it. */
    bool (*idle)(const struct op *op);
};

#define OP_HISTORY 8

struct op {
    struct list_node node; /* in the core's list of live operations */
    struct core *core;
    const struct op_class *cls;
    uint32_t outstanding; /* what will call us back, one bit each, named by the flow */
    int closing;          /* 0, or the ERR_ code of the request to close */
    bool running, again, ended;
    uint8_t state;
    uint8_t history[OP_HISTORY]; /* the last states, newest first */
    int64_t born;                /* core_now at start */
};

void op_init(struct op *op, struct core *core, const struct op_class *cls, unsigned state);
/* The single setter of the state; returns STEP_MORE so that a step can say `return op_go(op, X)`. */
enum step op_go(struct op *op, unsigned state);
void op_run(struct op *op);
void op_close(struct op *op, int reason);

static inline void op_expect(struct op *op, uint32_t bit)
{
    MUST((op->outstanding & bit) == 0);
    op->outstanding |= bit;
}

/* Parks until the bit is cleared; it may be outstanding already. For steps: `return op_wait(op, BIT)`. */
static inline enum step op_wait(struct op *op, uint32_t bit)
{
    op->outstanding |= bit;
    return STEP_WAIT;
}

static inline void op_clear(struct op *op, uint32_t bit)
{
    MUST((op->outstanding & bit) != 0);
    op->outstanding &= ~bit;
}

static inline bool op_expects(const struct op *op, uint32_t bit)
{
    return (op->outstanding & bit) != 0;
}

/* Runs `each` for every live operation of the core (its thread only). */
void op_each(struct core *core, void (*each)(const struct op *op, void *arg), void *arg);

#endif
