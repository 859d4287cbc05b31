/* Reading a credential set's secrets: one load at a time for a set, whoever asks and on whatever core.
 *
 *   READ   a job reads what blocks: environment, files, helpers   -> END
 *   END    the set has been told (secret_loaded)
 *
 * The sources belong to the load: the job and the steps write to them in turn, nobody else looks. */
#include "base/mem.h"
#include "proxy/secrets_int.h"

#define AGAIN_MS (60 * 1000) /* a program or a server that failed, while what it said last is still there */

enum load_state { LOAD_READ, LOAD_END };

#define LOAD_O_JOB 1u

struct secret_load {
    struct op op;
    struct proxy *px;
    struct setup *setup; /* held */
    struct secret_set *set;
    bool forced, read;
    struct job job;
    atomic_bool stop;

    bool failed, keep; /* something was not read; but it was read before */
    char why[256];
};

/* A source gave nothing. */
static void load_failed(struct secret_load *l, struct secret_source *s, const char *why)
{
    bool had = source_is_slow(s) && s->answer.room != NULL;
    if (had)
        s->due_ms = clock_mono_ms() + AGAIN_MS;
    l->keep = had && (!l->failed || l->keep);
    if (l->failed)
        return;
    struct str w = STR_INIT(l->why);
    str_addz(&w, why);
    l->failed = true;
}

static void read_sources(struct secret_load *l)
{
    for (unsigned i = 0; i < l->set->n_sources; i++) {
        struct secret_source *s = &l->set->source[i];
        char why[256];
        struct str w = STR_INIT(why);
        if (l->forced && source_is_slow(s))
            s->due_ms = 0;
        if (!source_read(s, clock_mono_ms(), &l->stop, &w))
            load_failed(l, s, why);
    }
}

static void read_work(struct job *j)
{
    read_sources(CONTAINER_OF(j, struct secret_load, job));
}

static void on_read(struct job *j)
{
    struct secret_load *l = CONTAINER_OF(j, struct secret_load, job);
    l->read = true;
    op_clear(&l->op, LOAD_O_JOB);
    op_run(&l->op);
}

static enum step load_end(struct secret_load *l)
{
    if (l->op.closing != 0)
        secret_load_dropped(l->set);
    else
        secret_loaded(l->set, l->failed ? l->why : NULL, l->keep);
    return op_go(&l->op, LOAD_END);
}

static enum step step_read(struct secret_load *l)
{
    if (op_expects(&l->op, LOAD_O_JOB))
        return STEP_WAIT;
    if (l->read)
        return load_end(l);
    op_expect(&l->op, LOAD_O_JOB);
    job_start(l->op.core, &l->job, read_work, on_read);
    return STEP_WAIT;
}

static enum step load_step(struct op *op)
{
    struct secret_load *l = CONTAINER_OF(op, struct secret_load, op);
    if (op->closing != 0)
        atomic_store_explicit(&l->stop, true, memory_order_relaxed);
    switch ((enum load_state)op->state) {
    case LOAD_READ:
        return step_read(l);
    case LOAD_END:
        break;
    }
    return STEP_END;
}

static void load_free(struct op *op)
{
    struct secret_load *l = CONTAINER_OF(op, struct secret_load, op);
    setup_release(l->px, l->setup);
    mem_free(l);
}

static const char *load_state_name(unsigned state)
{
    static const char *const names[] = {"read", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

/* Whoever waits on another core asks again, and reads itself. */
static bool load_idle(const struct op *op)
{
    UNUSED(op);
    return true;
}

static const struct op_class load_class = {"secret", load_step, load_free, load_state_name, load_idle};

void secret_load_start(struct proxy *px, struct setup *setup, struct secret_set *set, bool forced)
{
    struct secret_load *l;
    NEW(l);
    op_init(&l->op, px->core, &load_class, LOAD_READ);
    l->px = px;
    l->setup = setup_hold(px, setup);
    l->set = set;
    l->forced = forced;
    op_run(&l->op);
}

void secret_load_now(struct secret_set *set)
{
    struct secret_load l = {.set = set};
    for (unsigned i = 0; i < set->n_sources; i++) {
        if (source_is_slow(&set->source[i]))
            return;
    }
    read_sources(&l);
    secret_loaded(set, l.failed ? l.why : NULL, l.keep);
}
