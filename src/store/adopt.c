/* Files in blobs/ that the index does not know: what a crash left between a file and its entry, or all of them when the index was lost.
 * They become objects without links, to be verified by digest before anybody gets them. Their time is the file's.
 *
 * In batches, each under s->evict: what is being removed just now has no entry any more and has its file still. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"

/* Beside serving, small transactions, which hardly ever change something. For an index made anew large ones: digests come in no order, so
 * each transaction rewrites as many pages as it adds records, until there are more records than pages. */
#define BATCH_BESIDE 1000
#define BATCH_ANEW   100000
#define SAY_EACH_MS  2000

struct adoption {
    struct store *store;
    const atomic_bool *stop;
    enum store_dir dir;
    enum digest_alg alg;
    struct digest *batch;
    size_t n, max;
    int64_t adopted, looked, said_ms;
    int rc;
};

static int adopt_one(struct adoption *a, struct itxn *t, const struct digest *d)
{
    struct key k;
    char name[STORE_NAME_MAX];
    struct stat st;
    key_of_object(&k, TABLE_POOL, d);
    if (itxn_has(t, &k))
        return 0;
    store_blob_name(d, name);
    if (fstatat(a->store->dirs[a->dir], name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return 0;
    int64_t now = clock_wall_ms(), at = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    if (at < 0) /* the index knows no time before 1970 */
        at = 0;
    struct pool_entry e = {.o = {.size = (uint64_t)st.st_size,
                                 .stored_ms = at,
                                 .access_ms = at < now ? at : now,
                                 .kind = STORE_BLOB},
                           .flags = RECORD_UNVERIFIED};
    a->adopted++;
    int rc = itxn_adopting(t);
    return rc == 0 ? itxn_put_object(t, d, &e) : rc;
}

/* In the order of the index. */
static int by_digest(const void *x, const void *y)
{
    return memcmp(x, y, sizeof(struct digest));
}

static void adopt_batch(struct adoption *a)
{
    struct itxn t;
    pthread_mutex_lock(&a->store->evict);
    qsort(a->batch, a->n, sizeof *a->batch, by_digest);
    a->rc = itxn_write(a->store->index, &t);
    for (size_t i = 0; i < a->n && a->rc == 0; i++)
        a->rc = adopt_one(a, &t, &a->batch[i]);
    if (a->rc == 0)
        a->rc = itxn_commit(&t);
    else
        itxn_end(&t);
    pthread_mutex_unlock(&a->store->evict);
    a->looked += (int64_t)a->n;
    a->n = 0;
    if (clock_mono_ms() - a->said_ms < SAY_EACH_MS)
        return;
    a->said_ms = clock_mono_ms();
    log_info("store", "comparing the files with the index", LOG_I("files", a->looked),
             LOG_I("adopted", a->adopted));
}

static bool look_at_file(const char *name, void *arg)
{
    struct adoption *a = arg;
    if (!store_name_digest(span_str(name), a->alg, &a->batch[a->n])) {
        log_warn("store", "a file in blobs/ is none of larder's; it is left alone", LOG_S("name", name));
        return true;
    }
    if (++a->n == a->max)
        adopt_batch(a);
    return a->rc == 0 && (a->stop == NULL || !atomic_load(a->stop));
}

int64_t adopt_files(struct store *s, const atomic_bool *stop)
{
    static const struct {
        enum store_dir dir;
        enum digest_alg alg;
    } pools[] = {{STORE_DIR_SHA256, DIGEST_SHA256}, {STORE_DIR_SHA512, DIGEST_SHA512}};
    struct adoption *a;
    int error = 0;
    NEW(a);
    a->store = s;
    a->stop = stop;
    a->said_ms = clock_mono_ms();
    a->max = stop == NULL ? BATCH_ANEW : BATCH_BESIDE;
    a->batch = mem_alloc(a->max * sizeof *a->batch);
    for (size_t i = 0; i < ARRAY_LEN(pools) && error == 0 && a->rc == 0; i++) {
        a->dir = pools[i].dir;
        a->alg = pools[i].alg;
        error = store_each_file(s, a->dir, look_at_file, a);
        if (error == 0 && a->rc == 0 && a->n > 0)
            adopt_batch(a);
    }
    bool stopped = stop != NULL && atomic_load(stop);
    if (error != 0 || a->rc != 0)
        log_error("store", "cannot compare the files with the index", LOG_S("path", s->path),
                  LOG_S("error", error != 0 ? store_errno_words(error) : db_words(a->rc)));
    else if (a->adopted > 0)
        log_info("store", "took files that the index did not know; they are verified before they are served",
                 LOG_I("files", a->adopted));
    int64_t adopted = error != 0 || a->rc != 0 || stopped ? -1 : a->adopted;
    mem_free(a->batch);
    mem_free(a);
    return adopted;
}
