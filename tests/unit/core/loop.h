/* What the tests with a loop share: a core that runs on the test's own thread. A test starts things, calls
 * loop_run, and its callbacks end with loop_stop; a test that hangs is ended by an alarm. */
#ifndef LARDER_TESTS_CORE_LOOP_H
#define LARDER_TESTS_CORE_LOOP_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/log.h"
#include "core/core.h"
#include "core/resolve.h"

#define LOOP_PATIENCE_S 60

struct loop {
    struct core *core;
    void (*begin)(void *arg);
    void *arg;
    struct core_msg start;
};

static inline void loop_begin(struct core_msg *m)
{
    struct loop *l = CONTAINER_OF(m, struct loop, start);
    l->begin(l->arg);
}

/* Runs `begin` on the core as its first message, and the core until core_quit and until nothing is left. */
static inline void loop_run(struct loop *l, void (*begin)(void *arg), void *arg)
{
    l->begin = begin;
    l->arg = arg;
    core_msg_init(&l->start, loop_begin);
    core_post(l->core, &l->start);
    alarm(LOOP_PATIENCE_S);
    core_run(l->core);
    alarm(0);
}

static inline void loop_open(struct loop *l)
{
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    signal(SIGPIPE, SIG_IGN);
    l->core = core_new(0);
    MUST(l->core != NULL);
}

static inline void loop_close(struct loop *l)
{
    resolve_free(l->core);
    core_free(l->core);
}

#endif
