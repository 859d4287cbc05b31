/* Jobs: work on another thread, done on the core, once each; many at once; one started by another's end. */
#include "loop.h"

#include <pthread.h>

#define JOBS 300

struct task {
    struct job job;
    unsigned worked, done;
    pthread_t where;
};

static struct loop loop;
static struct task task[JOBS];
static struct task chained;
static unsigned n_done;

static void work(struct job *j)
{
    struct task *t = CONTAINER_OF(j, struct task, job);
    t->where = pthread_self();
    t->worked++;
}

static void chained_done(struct job *j)
{
    CONTAINER_OF(j, struct task, job)->done++;
}

static void done(struct job *j)
{
    struct task *t = CONTAINER_OF(j, struct task, job);
    MUST(core_is_current(loop.core) && j->core == loop.core);
    t->done++;
    if (++n_done == JOBS) {
        core_quit(loop.core); /* and yet the loop stays for this one: */
        job_start(loop.core, &chained.job, work, chained_done);
    }
}

static void begin(void *arg)
{
    UNUSED(arg);
    for (unsigned i = 0; i < JOBS; i++)
        job_start(loop.core, &task[i].job, work, done);
}

static void test_jobs(void **state)
{
    UNUSED(state);
    loop_open(&loop);
    loop_run(&loop, begin, NULL);
    for (unsigned i = 0; i < JOBS; i++) {
        assert_int_equal(task[i].worked, 1);
        assert_int_equal(task[i].done, 1);
        assert_false(pthread_equal(task[i].where, pthread_self()));
    }
    assert_int_equal(chained.worked, 1);
    assert_int_equal(chained.done, 1);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jobs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
