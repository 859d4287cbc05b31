/* Reading a credential set's secrets: one load at a time for a set, whoever asks and on whatever core.
 *
 *   READ    a job reads what blocks shortly: environment, files, a workload's token    -> HELPER
 *   HELPER  it is its turn, if there is a helper to run                                  -> RUN | VAULT
 *   RUN     a job runs the helpers                                                       -> VAULT
 *   VAULT   the key vault is asked, for one secret after the other                       -> END
 *   END     the set has been told (secret_loaded)
 *
 * The sources belong to the load: the job and the steps write to them in turn, nobody else looks. */
#include "base/mem.h"
#include "proxy/helper_turn.h"
#include "base/secret_mem.h"
#include "proxy/secret_vault.h"
#include "proxy/secrets_int.h"

#define VAULT_LIFE_MS                                                                                        \
    (4 * 60 * 60 *                                                                                           \
     1000) /* a value that was changed there is seen after that, or when a server refuses the old one */
#define ASSERTION_MAX (16u << 10)
#define AGAIN_MS      (60 * 1000) /* a program or a server that failed, while what it said last is still there */

enum load_state { LOAD_READ, LOAD_HELPER, LOAD_RUN, LOAD_VAULT, LOAD_END };

#define LOAD_O_JOB  1u
#define LOAD_O_CALL 2u
#define LOAD_O_TURN 4u

struct secret_load {
    struct op op;
    struct proxy *px;
    struct setup *setup; /* held */
    struct secret_set *set;
    bool forced, read, ran;
    struct job job;
    struct helper_turn turn;
    atomic_bool stop;

    bool failed, keep; /* something was not read; but it was read before */
    char why[256];

    unsigned at; /* the source whose vault is asked */
    bool asking;
    struct vault vault;
    char *assertion; /* a workload's token; NULL: managed identity */
    size_t assertion_n;
    char assertion_why[256]; /* it could not be read; "": it could */
};

/* A source gave nothing; but what it said before may still be there. */
static void load_failed(struct secret_load *l, struct secret_source *s, const char *why)
{
    bool had = s->answer.room != NULL;
    if (had && source_is_slow(s))
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
        if (!source_read(s, &w))
            load_failed(l, s, why);
    }
}

static bool need_helper(const struct secret_set *set)
{
    for (unsigned i = 0; i < set->n_sources; i++) {
        if (source_needs_helper(&set->source[i], clock_mono_ms()))
            return true;
    }
    return false;
}

static void run_helpers(struct secret_load *l)
{
    for (unsigned i = 0; i < l->set->n_sources; i++) {
        struct secret_source *s = &l->set->source[i];
        char why[256];
        struct str w = STR_INIT(why);
        if (source_needs_helper(s, clock_mono_ms()) &&
            !source_run_helper(s, setup_conf(l->setup), clock_mono_ms(), &l->stop, &w))
            load_failed(l, s, why);
    }
}

static bool vault_due(const struct secret_load *l, const struct secret_source *s)
{
    return s->kind == SECRET_VAULT && (l->forced || s->answer.room == NULL || clock_mono_ms() >= s->due_ms);
}

/* The workload's token is a file that is replaced every hour or so. */
static void read_assertion(struct secret_load *l)
{
    const char *file;
    struct stat st;
    struct str why = STR_INIT(l->assertion_why);
    bool due = false;
    for (unsigned i = 0; i < l->set->n_sources; i++)
        due = due || vault_due(l, &l->set->source[i]);
    if (!due || !vault_workload(&file))
        return;
    str_addf(&why, "AZURE_FEDERATED_TOKEN_FILE=%s: ", file);
    l->assertion = secret_file_read(file, ASSERTION_MAX, &l->assertion_n, &st, &why);
    while (l->assertion != NULL && l->assertion_n > 0 && l->assertion[l->assertion_n - 1] == '\n')
        l->assertion_n--;
    if (l->assertion != NULL)
        l->assertion_why[0] = 0;
}

static void read_work(struct job *j)
{
    struct secret_load *l = CONTAINER_OF(j, struct secret_load, job);
    read_sources(l);
    read_assertion(l);
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
        return op_go(&l->op, LOAD_HELPER);
    op_expect(&l->op, LOAD_O_JOB);
    job_start(l->op.core, &l->job, read_work, on_read);
    return STEP_WAIT;
}

/* ---- HELPER, RUN ---- */

static void run_work(struct job *j)
{
    run_helpers(CONTAINER_OF(j, struct secret_load, job));
}

static void on_ran(struct job *j)
{
    struct secret_load *l = CONTAINER_OF(j, struct secret_load, job);
    helper_turn_over();
    l->ran = true;
    op_clear(&l->op, LOAD_O_JOB);
    op_run(&l->op);
}

static void run_begin(struct secret_load *l)
{
    (void)op_go(&l->op, LOAD_RUN);
    op_expect(&l->op, LOAD_O_JOB);
    job_start(l->op.core, &l->job, run_work, on_ran);
}

static void on_turn(struct helper_turn *t)
{
    struct secret_load *l = CONTAINER_OF(t, struct secret_load, turn);
    op_clear(&l->op, LOAD_O_TURN);
    if (l->op.closing == 0)
        run_begin(l);
    else
        helper_turn_over();
    op_run(&l->op);
}

static enum step step_helper(struct secret_load *l)
{
    if (op_expects(&l->op, LOAD_O_TURN)) {
        if (l->op.closing == 0 || !helper_turn_leave(&l->turn))
            return STEP_WAIT;
        op_clear(&l->op, LOAD_O_TURN);
    }
    if (l->op.closing != 0 || !need_helper(l->set))
        return op_go(&l->op, LOAD_VAULT);
    if (!helper_turn_take(&l->turn))
        return op_wait(&l->op, LOAD_O_TURN);
    run_begin(l);
    return STEP_MORE;
}

static enum step step_run(struct secret_load *l)
{
    return l->ran ? op_go(&l->op, LOAD_VAULT) : STEP_WAIT;
}

/* ---- VAULT ---- */

static void on_call(struct call *call)
{
    struct secret_load *l = CONTAINER_OF(call, struct secret_load, vault.call);
    if (op_expects(&l->op, LOAD_O_CALL))
        op_clear(&l->op, LOAD_O_CALL);
    op_run(&l->op);
}

static enum step vault_failed(struct secret_load *l, const char *why)
{
    struct secret_source *s = &l->set->source[l->at++];
    char text[256];
    struct str w = STR_INIT(text);
    str_addf(&w, SPAN_FMT ": %s", SPAN_ARG(s->shown), why);
    load_failed(l, s, text);
    l->asking = false;
    return STEP_MORE;
}

static enum step vault_answered(struct secret_load *l)
{
    char text[256];
    struct str why = STR_INIT(text);
    struct span value;
    enum vault_next next = vault_step(&l->vault, &value, &why);
    if (next == VAULT_WAIT)
        return op_wait(&l->op, LOAD_O_CALL);
    if (next == VAULT_FAILED)
        return vault_failed(l, text);
    l->asking = false;
    if (next == VAULT_VALUE)
        source_take(&l->set->source[l->at++], value, clock_mono_ms() + VAULT_LIFE_MS);
    return STEP_MORE;
}

static enum step step_vault(struct secret_load *l)
{
    if (l->asking)
        return vault_answered(l);
    while (l->at < l->set->n_sources && !vault_due(l, &l->set->source[l->at]))
        l->at++;
    if (l->at == l->set->n_sources)
        return load_end(l);
    if (l->assertion_why[0] != 0)
        return vault_failed(l, l->assertion_why);
    char text[256];
    struct str why = STR_INIT(text);
    struct span assertion = l->assertion != NULL ? span_of(l->assertion, l->assertion_n) : SPAN_NONE;
    if (!vault_ask(&l->vault, l->set->source[l->at].arg, assertion, on_call, &why))
        return vault_failed(l, text);
    l->asking = true;
    return op_wait(&l->op, LOAD_O_CALL);
}

static enum step load_step(struct op *op)
{
    struct secret_load *l = CONTAINER_OF(op, struct secret_load, op);
    if (op->closing != 0)
        atomic_store_explicit(&l->stop, true, memory_order_relaxed);
    switch ((enum load_state)op->state) {
    case LOAD_READ:
        return step_read(l);
    case LOAD_HELPER:
        return step_helper(l);
    case LOAD_RUN:
        return step_run(l);
    case LOAD_VAULT:
        if (op->closing == 0)
            return step_vault(l);
        if (op_expects(op, LOAD_O_CALL))
            op_clear(op, LOAD_O_CALL);
        return load_end(l);
    case LOAD_END:
        break;
    }
    return STEP_END;
}

static void load_free(struct op *op)
{
    struct secret_load *l = CONTAINER_OF(op, struct secret_load, op);
    vault_end(&l->vault);
    secret_free(l->assertion);
    setup_release(l->px, l->setup);
    mem_free(l);
}

static const char *load_state_name(unsigned state)
{
    static const char *const names[] = {"read", "helper", "run", "vault", "end"};
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
    helper_turn_init(&l->turn, px->core, on_turn);
    l->vault.px = px;
    l->vault.setup = setup;
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
    if (!need_helper(set))
        secret_loaded(set, l.failed ? l.why : NULL, l.keep);
}
