/* The keeper: the thread that does what nobody waits for (evict.h has the list). Each turn does what is due, in an order of urgency, and
 * sleeps until the next thing is; a wake ends the sleep. What may take long is done in steps or looks at `stop`.
 *
 * `lock` guards woken, tidy_wanted, tidy_done; `scrub` is set under it, and is the keeper's otherwise. Whoever looks into the index does
 * not hold it: what finds that the index is broken wakes the keeper. */
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"

#define HOUSEWORK_MS 60000 /* touches, leftovers */
#define LIMITS_MS                                                                                            \
    5000 /* what others do to the file system, and ages; pages of the index that are not in use */
#define KEEPER_NICE     10
#define KEEPER_SLICE_NS 100000000
#define PROBE_MS        2000
#define IN_VAIN_MS      1000
#define SUSPECT_RATE    (UINT64_C(64) << 20) /* bytes a second */

struct keeper {
    struct store *store;
    pthread_t thread;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake, tidied;
    bool woken;
    uint64_t tidy_wanted, tidy_done;
    struct scrub *scrub;

    /* The thread's own. */
    struct scrub *suspects; /* while there are any */
    bool adopt;             /* files are still to be compared with the index */
    /* clock_mono_ms. evict_at: nothing could be evicted, no sooner again; read_at: for scrub and suspects. */
    int64_t housework_at, limits_at, evict_at, pages_at, probe_at, read_at;
    uint64_t unrested; /* bytes read since the last rest */
};

void keeper_wake(struct store *s)
{
    struct keeper *k = s->keeper;
    if (k == NULL)
        return;
    pthread_mutex_lock(&k->lock);
    bool news = !k->woken;
    k->woken = true;
    pthread_mutex_unlock(&k->lock);
    if (news)
        pthread_cond_signal(&k->wake);
}

static void housework(struct keeper *k)
{
    struct index *x = k->store->index;
    int rc = index_flush_touches(x);
    if (rc != 0)
        log_warn("store", "cannot write down what was asked for", LOG_S("error", db_words(rc)));
    evict_leftovers(k->store);
}

static bool is_ill(const struct keeper *k)
{
    return atomic_load(&k->store->fault) != FAULT_NONE || atomic_load(&k->store->index->broken);
}

/* After a failure of the index: is it over? */
static void reopen(struct keeper *k)
{
    if (atomic_load(&k->store->index->broken) && index_reopen(k->store->index))
        k->adopt = true;
}

static void count_anew(struct keeper *k)
{
    if (!atomic_load(&k->store->index->recount))
        return;
    int rc = index_recount(k->store->index);
    if (rc == 0)
        k->adopt = true; /* the files of the records that were dropped */
    else
        log_warn("store", "cannot count the objects anew", LOG_S("error", db_words(rc)));
}

static void adopt(struct keeper *k)
{
    struct store *s = k->store;
    if (atomic_load(&s->fault) == FAULT_NONE && atomic_exchange(&s->strays, false))
        k->adopt = true;
    if (!k->adopt)
        return;
    k->adopt = adopt_files(s, &k->stop) < 0;
    /* What was found may lie behind where the walk is: it begins again. */
    scrub_free(k->suspects);
    k->suspects = NULL;
}

/* A piece for the walk over suspects, or for the scrubber, and how long to rest after it: what makes no whole millisecond waits for more.
 * `pace` of 0: not at all. */
static int64_t read_on(struct keeper *k, struct scrub *c, uint64_t pace, bool *more)
{
    uint64_t bytes;
    *more = scrub_step(c, &bytes);
    k->unrested = pace == 0 ? 0 : k->unrested + bytes;
    uint64_t ms = pace == 0 ? 0 : k->unrested * 1000 / pace;
    k->unrested -= ms * pace / 1000;
    return (int64_t)ms + (*more ? 0 : LIMITS_MS);
}

static void read_suspects(struct keeper *k, int64_t now, uint64_t pace)
{
    bool more;
    if (k->suspects == NULL)
        k->suspects = scrub_new(k->store, true);
    k->read_at = now + read_on(k, k->suspects, pace, &more);
    if (more)
        return;
    scrub_free(k->suspects);
    k->suspects = NULL;
}

static void set_scrub(struct keeper *k, struct scrub *c)
{
    pthread_mutex_lock(&k->lock);
    k->scrub = c;
    pthread_mutex_unlock(&k->lock);
}

static void read_pool(struct keeper *k, int64_t now)
{
    if (now < k->read_at || atomic_load(&k->store->fault) != FAULT_NONE)
        return;
    if (index_has_suspects(k->store->index)) {
        read_suspects(k, now, SUSPECT_RATE);
        return;
    }
    uint64_t rate = atomic_load(&k->store->scrub_rate);
    if (rate == 0) {
        k->read_at = now + LIMITS_MS;
        return;
    }
    bool more;
    if (k->scrub == NULL)
        set_scrub(k, scrub_new(k->store, false));
    k->read_at = now + read_on(k, k->scrub, rate, &more);
}

static void turn(struct keeper *k)
{
    struct store *s = k->store;
    int64_t now = clock_mono_ms();
    bool due = evict_is_due(s);
    if ((due && now >= k->evict_at) || now >= k->limits_at) {
        if (!evict_by_limits(s, &k->stop) && due)
            k->evict_at = now + IN_VAIN_MS;
        k->limits_at = now + LIMITS_MS;
    }
    if (now >= k->pages_at) {
        if (s->index->db != NULL)
            db_let_go(s->index->db);
        health_keep_reserve(s);
        k->pages_at = now + LIMITS_MS;
    }
    if (is_ill(k) && now >= k->probe_at) {
        reopen(k);
        health_probe(s);
        k->probe_at = now + PROBE_MS;
    }
    count_anew(k);
    adopt(k);
    if (now >= k->housework_at) {
        housework(k);
        k->housework_at = now + HOUSEWORK_MS;
    }
    read_pool(k, clock_mono_ms());
}

static void tidy(struct keeper *k)
{
    reopen(k);
    count_anew(k);
    adopt(k);
    housework(k);
    evict_by_limits(k->store, &k->stop);
    if (atomic_load(&k->store->fault) != FAULT_NONE)
        health_probe(k->store);
    /* Once round; a second time if the first had begun somewhere. What cannot be looked at now stays suspect. */
    for (unsigned i = 0; i < 2 && index_has_suspects(k->store->index); i++)
        do
            read_suspects(k, 0, 0);
        while (k->suspects != NULL && !atomic_load(&k->stop));
}

static int64_t next_due(const struct keeper *k)
{
    int64_t at = k->housework_at < k->limits_at ? k->housework_at : k->limits_at;
    if (k->read_at < at)
        at = k->read_at;
    if (is_ill(k) && k->probe_at < at)
        at = k->probe_at;
    if (k->evict_at < at && evict_is_due(k->store))
        at = k->evict_at;
    return at;
}

/* Sleeps until something is due; true: a tidying is wanted, up to *wanted. */
static bool rest(struct keeper *k, uint64_t *wanted)
{
    int64_t at = next_due(k);
    struct timespec until = {.tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000};
    pthread_mutex_lock(&k->lock);
    while (!k->woken && !atomic_load(&k->stop) && k->tidy_done == k->tidy_wanted)
        if (pthread_cond_timedwait(&k->wake, &k->lock, &until) == ETIMEDOUT)
            break;
    k->woken = false;
    *wanted = k->tidy_wanted;
    bool tidying = k->tidy_done != k->tidy_wanted;
    pthread_mutex_unlock(&k->lock);
    return tidying;
}

/* What the keeper does is never urgent (a full disk is answered by whoever meets it), and the loops want the processors. As a batch
 * thread it takes none from a loop when it wakes, which after each unlinkat it does; with the longest time slice it gives its own to
 * any loop that wakes (sched(7); slices since Linux 6.12, before that nothing changes). Not SCHED_IDLE: it holds locks. */
static void give_way(void)
{
    /* sched_setattr(2); this C library has neither, and the kernel's own header clashes with pthread.h. */
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a = {.size = sizeof a, .policy = SCHED_BATCH, .nice = KEEPER_NICE, .runtime = KEEPER_SLICE_NS};
    if (syscall(SYS_sched_setattr, 0, &a, 0U) != 0) /* a sandbox may know only the older call */
        (void)setpriority(PRIO_PROCESS, (id_t)gettid(), KEEPER_NICE);
}

static void *keep(void *arg)
{
    struct keeper *k = arg;
    uint64_t wanted;
    give_way();
    while (!atomic_load(&k->stop)) {
        turn(k);
        if (!rest(k, &wanted))
            continue;
        tidy(k);
        pthread_mutex_lock(&k->lock);
        k->tidy_done = wanted;
        pthread_cond_broadcast(&k->tidied);
        pthread_mutex_unlock(&k->lock);
    }
    return NULL;
}

void store_tidy(struct store *s)
{
    struct keeper *k = s->keeper;
    pthread_mutex_lock(&k->lock);
    uint64_t mine = ++k->tidy_wanted;
    pthread_cond_signal(&k->wake);
    while (k->tidy_done < mine && !atomic_load(&k->stop))
        pthread_cond_wait(&k->tidied, &k->lock);
    pthread_mutex_unlock(&k->lock);
}

void store_stopping(struct store *s)
{
    struct keeper *k = s->keeper;
    pthread_mutex_lock(&k->lock);
    atomic_store(&k->stop, true);
    pthread_cond_signal(&k->wake);
    pthread_cond_broadcast(&k->tidied);
    pthread_mutex_unlock(&k->lock);
}

void store_scrub_now(struct store *s, struct store_scrub *out)
{
    struct keeper *k = s->keeper;
    *out = (struct store_scrub){0};
    pthread_mutex_lock(&k->lock);
    if (k->scrub != NULL)
        scrub_look(k->scrub, out);
    pthread_mutex_unlock(&k->lock);
}

void keeper_free(struct keeper *k)
{
    if (k == NULL)
        return;
    pthread_cond_destroy(&k->wake);
    pthread_cond_destroy(&k->tidied);
    pthread_mutex_destroy(&k->lock);
    mem_free(k);
}

struct keeper *keeper_start(struct store *s, struct str *why)
{
    struct keeper *k;
    pthread_condattr_t monotonic;
    NEW(k);
    k->store = s;
    k->adopt = s->unclean;
    k->housework_at = clock_mono_ms() + HOUSEWORK_MS;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&k->wake, &monotonic);
    pthread_cond_init(&k->tidied, NULL);
    pthread_condattr_destroy(&monotonic);
    s->keeper = k; /* before the thread looks for it */
    int error = store_thread(&k->thread, keep, k);
    if (error == 0)
        return k;
    str_addf(why, "cannot start the thread that keeps the store %s: %s", s->path, store_errno_words(error));
    s->keeper = NULL;
    keeper_free(k);
    return NULL;
}

void keeper_stop(struct keeper *k)
{
    if (k == NULL)
        return;
    store_stopping(k->store);
    pthread_join(k->thread, NULL);
    if (k->adopt) /* it was stopped before the end: the next start goes on */
        atomic_store(&k->store->strays, true);
    scrub_free(k->suspects);
    struct scrub *c = k->scrub;
    set_scrub(k, NULL);
    scrub_free(c);
}
