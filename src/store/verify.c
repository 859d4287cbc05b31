/* Verifying: one object (check), or all of them (a pass).
 *
 * A check reads the file once, with the content sum and, where it is wanted, the digest. What was in the page cache before stays there;
 * what came for this only is given back at once. A judgement of "damaged" changes the index first and then moves
 * the file, under s->evict and with the digest claimed, and only if the index still says what it said at the beginning.
 *
 * A pass has VERIFY_THREADS threads which take digests from one list; `lock` guards the list and what is counted. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"
#include "store/list.h"
#include "store/verify.h"

#define VERIFY_THREADS 4
#define VERIFY_BATCH   64

/* ---- one object ---- */

struct check {
    struct store *store;
    struct digest digest;
    struct pool_entry entry; /* what the index said at the beginning */
    bool deep;               /* the digest is computed, too */
    int fd;
    uint64_t off;
    int error;  /* errno of what could not be done */
    bool wrong; /* another size, or no file at all but something else */
    struct summer summer;
    struct hasher hasher;
    char buf[]; /* of the object's size, CHECK_MAX at most */
};

static void check_open(struct check *c)
{
    char name[STORE_NAME_MAX];
    struct stat st;
    store_blob_name(&c->digest, name);
    c->fd = openat(c->store->dirs[store_blobs_dir(&c->digest)], name,
                   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (c->fd < 0) {
        c->error = errno;
        return;
    }
    c->wrong = fstat(c->fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != c->entry.o.size;
    (void)posix_fadvise(c->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

struct check *check_new(struct store *s, const struct digest *d, bool deep)
{
    struct itxn t;
    struct pool_entry entry;
    bool found = itxn_read(s->index, &t) == 0 && itxn_object(&t, d, &entry);
    itxn_end(&t);
    if (!found)
        return NULL;
    size_t room = entry.o.size < CHECK_MAX ? (size_t)entry.o.size : CHECK_MAX;
    struct check *c = mem_alloc(sizeof *c + room);
    *c = (struct check){.store = s, .digest = *d, .entry = entry, .fd = -1};
    c->deep = deep || !c->entry.o.sum.known || (c->entry.flags & RECORD_UNVERIFIED) != 0;
    summer_init(&c->summer);
    hasher_init(&c->hasher, (enum digest_alg)d->alg);
    check_open(c);
    return c;
}

/* Is it in the page cache, all of it? Then it is in buf. */
static bool read_cached(struct check *c, size_t n)
{
    struct iovec v = {c->buf, n};
    return preadv2(c->fd, &v, 1, (off_t)c->off, RWF_NOWAIT) == (ssize_t)n;
}

size_t check_step(struct check *c, size_t max)
{
    uint64_t left = c->entry.o.size - c->off;
    size_t n = left < max ? (size_t)left : max;
    if (c->error != 0 || c->wrong || n == 0)
        return 0;
    MUST(n <= CHECK_MAX);
    if (!read_cached(c, n)) {
        ssize_t got;
        do
            got = pread(c->fd, c->buf, n, (off_t)c->off);
        while (got < 0 && errno == EINTR);
        if (got < 0)
            c->error = errno;
        c->wrong = got == 0;
        if (got <= 0)
            return 0;
        n = (size_t)got;
        (void)posix_fadvise(c->fd, (off_t)c->off, (off_t)n, POSIX_FADV_DONTNEED);
    }
    summer_update(&c->summer, c->buf, n);
    if (c->deep)
        hasher_update(&c->hasher, c->buf, n);
    c->off += n;
    return n;
}

void check_free(struct check *c)
{
    if (c == NULL)
        return;
    if (c->fd >= 0)
        close(c->fd);
    mem_free(c);
}

static enum verify_found judge(struct check *c, struct content_sum *sum)
{
    if (store_fault_of(c->error) == FAULT_BUSY)
        return VERIFY_FAILED;
    if (c->error == ENOENT)
        return VERIFY_MISSING;
    if (c->error != 0 || c->wrong || c->off != c->entry.o.size)
        return VERIFY_DAMAGED;
    summer_finish(&c->summer, sum);
    if (!c->deep)
        return content_sum_eq(sum, &c->entry.o.sum) ? VERIFY_GOOD : VERIFY_DAMAGED;
    struct digest is;
    hasher_finish(&c->hasher, &is);
    return digest_eq(&is, &c->digest) ? VERIFY_GOOD : VERIFY_DAMAGED;
}

bool store_condemn(struct store *s, const struct digest *d, const struct store_object *was)
{
    struct pool_entry now;
    struct itxn t;
    pthread_mutex_lock(&s->evict);
    bool same = false, claimed = hold_claim(s, d, true);
    int rc = claimed ? itxn_write(s->index, &t) : 0;
    if (claimed && rc == 0) {
        same = itxn_object(&t, d, &now) && now.o.stored_ms == was->stored_ms && now.o.size == was->size;
        rc = same ? itxn_del_object(&t, d) : 0;
        if (rc == 0)
            rc = itxn_commit(&t);
        else
            itxn_end(&t);
    }
    if (claimed && same && rc == 0)
        store_quarantine(s, d);
    if (claimed)
        hold_unclaim(s, d, same && rc == 0);
    pthread_mutex_unlock(&s->evict);
    if (rc != 0)
        log_error("store", "the index does not forget a damaged object", LOG_D("digest", d),
                  LOG_S("error", db_words(rc)));
    return same;
}

enum verify_found check_end(struct check *c)
{
    struct content_sum sum = {.known = false};
    enum verify_found found = judge(c, &sum);
    bool news = c->entry.o.suspect || (sum.known && !content_sum_eq(&sum, &c->entry.o.sum));
    if (found == VERIFY_GOOD && news)
        index_checked(c->store->index, &c->digest, c->entry.o.size, &sum);
    if ((found == VERIFY_MISSING || found == VERIFY_DAMAGED) &&
        !store_condemn(c->store, &c->digest, &c->entry.o))
        found = VERIFY_UNKNOWN;
    if (found == VERIFY_MISSING || found == VERIFY_DAMAGED)
        log_error("store", "an object is not what the index says; it will be fetched again",
                  LOG_D("digest", &c->digest), LOG_U("size", c->entry.o.size),
                  LOG_S("found", verify_found_name(found)),
                  LOG_S("error", c->error != 0 ? store_errno_words(c->error) : NULL));
    check_free(c);
    return found;
}

enum verify_found store_verify(struct store *s, const struct digest *d, bool deep, const atomic_bool *stop)
{
    struct check *c = check_new(s, d, deep);
    if (c == NULL)
        return VERIFY_UNKNOWN;
    while (check_step(c, CHECK_MAX) > 0) {
        if (stop == NULL || !atomic_load_explicit(stop, memory_order_relaxed))
            continue;
        check_free(c);
        return VERIFY_FAILED;
    }
    return check_end(c);
}

const char *verify_found_name(enum verify_found f)
{
    static const char *const names[] = {[VERIFY_GOOD] = "good",
                                        [VERIFY_MISSING] = "missing",
                                        [VERIFY_DAMAGED] = "damaged",
                                        [VERIFY_UNKNOWN] = "unknown",
                                        [VERIFY_FAILED] = "not looked at"};
    return names[f];
}

/* ---- all objects ---- */

#define PASS_MAGIC 0x570e0005u

struct verify_pass {
    unsigned magic;
    struct store *store;
    bool deep;
    void (*damaged)(const struct digest *d, enum verify_found found, void *arg);
    void *arg;
    pthread_t threads[VERIFY_THREADS];
    unsigned n_threads;
    atomic_bool cancelled;

    pthread_mutex_t lock;
    struct list_cursor cursor;
    struct list_object batch[VERIFY_BATCH];
    size_t at, n;
    unsigned running;
    struct verify_progress progress;
};

/* The next digest of the list. */
static bool pass_next(struct verify_pass *v, struct digest *d)
{
    pthread_mutex_lock(&v->lock);
    while (v->at == v->n && !v->cursor.end) {
        v->at = 0;
        v->n = store_list_objects(v->store, ~0u, &v->cursor, v->batch, VERIFY_BATCH);
    }
    bool more = v->at < v->n && !atomic_load(&v->cancelled);
    if (more)
        *d = v->batch[v->at++].digest;
    pthread_mutex_unlock(&v->lock);
    return more;
}

static void pass_count(struct verify_pass *v, uint64_t bytes, uint64_t objects, enum verify_found found)
{
    pthread_mutex_lock(&v->lock);
    v->progress.bytes += bytes;
    v->progress.objects += objects;
    v->progress.missing += objects > 0 && found == VERIFY_MISSING;
    v->progress.damaged += objects > 0 && found == VERIFY_DAMAGED;
    v->progress.failed += objects > 0 && found == VERIFY_FAILED;
    pthread_mutex_unlock(&v->lock);
}

static void pass_one(struct verify_pass *v, const struct digest *d)
{
    struct check *c = check_new(v->store, d, v->deep);
    if (c == NULL) {
        pass_count(v, 0, 1, VERIFY_UNKNOWN);
        return;
    }
    size_t n;
    while ((n = check_step(c, CHECK_MAX)) > 0) {
        pass_count(v, n, 0, VERIFY_GOOD);
        if (!atomic_load(&v->cancelled))
            continue;
        check_free(c);
        return;
    }
    enum verify_found found = check_end(c);
    pass_count(v, 0, 1, found);
    if (v->damaged != NULL && found != VERIFY_GOOD && found != VERIFY_UNKNOWN)
        v->damaged(d, found, v->arg);
}

static void *pass_run(void *arg)
{
    struct verify_pass *v = arg;
    struct digest d;
    while (pass_next(v, &d))
        pass_one(v, &d);
    pthread_mutex_lock(&v->lock);
    v->progress.done = --v->running == 0;
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

struct verify_pass *verify_start(struct store *s, bool deep,
                                 void (*damaged)(const struct digest *d, enum verify_found found, void *arg),
                                 void *arg)
{
    struct verify_pass *v;
    struct store_totals all;
    NEW(v);
    v->magic = PASS_MAGIC;
    v->store = s;
    v->deep = deep;
    v->damaged = damaged;
    v->arg = arg;
    store_totals(s, &all);
    v->progress.objects_all = all.objects;
    v->progress.bytes_all = all.bytes;
    pthread_mutex_init(&v->lock, NULL);
    pthread_mutex_lock(&v->lock); /* none is through before all are counted */
    while (v->n_threads < VERIFY_THREADS && store_thread(&v->threads[v->n_threads], pass_run, v) == 0)
        v->n_threads++;
    v->running = v->n_threads;
    pthread_mutex_unlock(&v->lock);
    if (v->n_threads > 0)
        return v;
    verify_join(v);
    return NULL;
}

void verify_look(struct verify_pass *v, struct verify_progress *out)
{
    CHECK_MAGIC(v, PASS_MAGIC);
    pthread_mutex_lock(&v->lock);
    *out = v->progress;
    pthread_mutex_unlock(&v->lock);
}

void verify_cancel(struct verify_pass *v)
{
    CHECK_MAGIC(v, PASS_MAGIC);
    atomic_store(&v->cancelled, true);
}

void verify_join(struct verify_pass *v)
{
    if (v == NULL)
        return;
    CHECK_MAGIC(v, PASS_MAGIC);
    for (unsigned i = 0; i < v->n_threads; i++)
        pthread_join(v->threads[i], NULL);
    pthread_mutex_destroy(&v->lock);
    v->magic = 0;
    mem_free(v);
}
