/* The index: an LMDB environment in <path>/index. The only file that knows LMDB; record_int.h has what stands in it.
 *
 * Writing. store_apply queues; one thread takes what is queued, up to BATCH_MAX changes, into one transaction, commits
 * it durably and posts each change back to its core. If the transaction fails, each of its changes is tried once in a
 * transaction of its own, so that one which cannot succeed fails alone.
 *
 * Reading. A reader is a transaction that is reset between look-ups: it keeps its slot in LMDB's table, so a look-up
 * takes no lock, and holds no snapshot, so the writer can reuse pages.
 *
 * `lock` guards queue and stopping. The totals and `damaged` are atomics; totals are written by the writer only. */
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/record_int.h"
#include "store/store_int.h"

#define READERS_MAX 1024
#define BATCH_MAX   1000
#define INDEX_MIN   ((size_t)64 << 20) /* no smaller limit is tried where the address space is small */

static const char *const table_names[TABLES] = {"tags", "links", "objects"};

struct index {
    MDB_env *env;
    MDB_dbi tables[TABLES];
    atomic_uint readers;
    _Atomic uint64_t objects, bytes, damaged;

    pthread_t writer;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct list queue;
    bool stopping;
};

#define READER_MAGIC 0x570e0002u

struct store_reader {
    unsigned magic;
    struct index *index;
    MDB_txn *txn;
};

/* ---- records in LMDB ---- */

static MDB_val val_of(struct span s)
{
    return (MDB_val){.mv_data = (void *)(uintptr_t)s.p, .mv_size = s.n}; /* LMDB only reads it */
}

static struct span span_of_val(MDB_val v)
{
    return span_of(v.mv_data, v.mv_size);
}

static void log_damaged(struct index *x, const struct key *k)
{
    atomic_fetch_add_explicit(&x->damaged, 1, memory_order_relaxed);
    char text[KEY_TEXT_MAX];
    struct str s = STR_INIT(text);
    key_text(k, &s);
    log_warn("store",
             "a record of the index is damaged and is ignored; it will be written again when it is needed",
             LOG_S("table", table_names[k->table]), LOG_SP("record", str_span(&s)));
}

/* Finds the record of k in txn. True: its fields are in *f. Damage and errors are logged, and count as not there. */
static bool get_record(struct index *x, MDB_txn *txn, const struct key *k, struct fields *f)
{
    MDB_val key = val_of(key_stored(k)), value;
    int rc = mdb_get(txn, x->tables[k->table], &key, &value);
    if (rc == MDB_NOTFOUND)
        return false;
    if (rc != 0) {
        atomic_fetch_add_explicit(&x->damaged, 1, memory_order_relaxed);
        log_error("store", "the index cannot be read", LOG_S("table", table_names[k->table]),
                  LOG_S("error", mdb_strerror(rc)));
        return false;
    }
    struct span full;
    if (!record_open(key_stored(k), span_of_val(value), f, &full)) {
        log_damaged(x, k);
        return false;
    }
    /* Two full keys with one hash: the other one has the place. */
    return !k->hashed || span_eq(full, span_of((const char *)k->full, k->n));
}

static bool get_tag(struct index *x, MDB_txn *txn, const struct key *k, struct store_tag *out)
{
    struct fields f;
    if (!get_record(x, txn, k, &f))
        return false;
    bool good = record_tag(&f, out);
    if (!good)
        log_damaged(x, k);
    return good;
}

static bool get_link(struct index *x, MDB_txn *txn, const struct key *k, struct store_link *out)
{
    struct fields f;
    if (!get_record(x, txn, k, &f))
        return false;
    bool good = record_link(&f, out);
    if (!good)
        log_damaged(x, k);
    return good;
}

static bool get_object(struct index *x, MDB_txn *txn, const struct key *k, struct store_object *out)
{
    struct fields f;
    if (!get_record(x, txn, k, &f))
        return false;
    bool good = record_object(&f, out);
    if (!good)
        log_damaged(x, k);
    return good;
}

static int put_record(struct index *x, MDB_txn *txn, const struct key *k, const struct record *r)
{
    MDB_val key = val_of(key_stored(k));
    MDB_val value = val_of(span_of((const char *)r->p, r->n));
    return mdb_put(txn, x->tables[k->table], &key, &value, 0);
}

static int del_record(struct index *x, MDB_txn *txn, const struct key *k)
{
    MDB_val key = val_of(key_stored(k));
    int rc = mdb_del(txn, x->tables[k->table], &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- look-ups ---- */

struct store_reader *store_reader_new(struct store *s)
{
    struct store_reader *r;
    NEW(r);
    r->magic = READER_MAGIC;
    r->index = s->index;
    MUST(mdb_txn_begin(r->index->env, NULL, MDB_RDONLY, &r->txn) == 0);
    mdb_txn_reset(r->txn);
    atomic_fetch_add(&r->index->readers, 1);
    return r;
}

void store_reader_free(struct store_reader *r)
{
    if (r == NULL)
        return;
    CHECK_MAGIC(r, READER_MAGIC);
    mdb_txn_abort(r->txn);
    atomic_fetch_sub(&r->index->readers, 1);
    r->magic = 0;
    mem_free(r);
}

/* Every look-up is between reader_begin and reader_end: a snapshot of its own. */
static bool reader_begin(struct store_reader *r)
{
    CHECK_MAGIC(r, READER_MAGIC);
    int rc = mdb_txn_renew(r->txn);
    if (rc != 0)
        log_error("store", "the index cannot be read", LOG_S("error", mdb_strerror(rc)));
    return rc == 0;
}

static bool reader_end(struct store_reader *r, bool found)
{
    mdb_txn_reset(r->txn);
    return found;
}

bool store_get_tag(struct store_reader *r, struct span repo, struct span tag, struct store_tag *out)
{
    if (repo.n > STORE_REPO_MAX || tag.n > STORE_TAG_MAX || !reader_begin(r))
        return false;
    struct key k;
    key_of_tag(&k, repo, tag);
    return reader_end(r, get_tag(r->index, r->txn, &k, out));
}

bool store_get_link(struct store_reader *r, struct span repo, const struct digest *d, struct store_link *out)
{
    if (repo.n > STORE_REPO_MAX || !reader_begin(r))
        return false;
    struct key k;
    key_of_link(&k, repo, d);
    return reader_end(r, get_link(r->index, r->txn, &k, out));
}

bool store_get_object(struct store_reader *r, const struct digest *d, struct store_object *out)
{
    if (!reader_begin(r))
        return false;
    struct key k;
    key_of_object(&k, d);
    return reader_end(r, get_object(r->index, r->txn, &k, out));
}

void store_totals(struct store *s, struct store_totals *out)
{
    out->objects = atomic_load_explicit(&s->index->objects, memory_order_relaxed);
    out->bytes = atomic_load_explicit(&s->index->bytes, memory_order_relaxed);
    out->damaged = atomic_load_explicit(&s->index->damaged, memory_order_relaxed);
}

/* ---- changes: the writer's thread ---- */

/* What a transaction does to the totals, once it is committed. Wraps below zero and back: only sums count. */
struct delta {
    uint64_t objects, bytes;
};

/* An object that is replaced or removed leaves the totals. One with a damaged record never was in them. */
static void drop_from_totals(struct index *x, MDB_txn *txn, const struct key *k, struct delta *delta)
{
    struct store_object old;
    if (!get_object(x, txn, k, &old))
        return;
    delta->objects--;
    delta->bytes -= old.size;
}

static int put_object(struct index *x, MDB_txn *txn, const struct store_change *c, struct delta *delta)
{
    struct key k;
    struct record r;
    struct store_object object = {.size = c->size, .stored_ms = clock_wall_ms()};
    key_of_object(&k, &c->digest);
    drop_from_totals(x, txn, &k, delta);
    delta->objects++;
    delta->bytes += c->size;
    record_of_object(&r, &k, &object);
    return put_record(x, txn, &k, &r);
}

static int put_link(struct index *x, MDB_txn *txn, const struct store_change *c)
{
    struct key k;
    struct record r;
    struct store_link link;
    memcpy(link.media, c->media, sizeof link.media);
    key_of_link(&k, span_str(c->repo), &c->digest);
    record_of_link(&r, &k, &link);
    return put_record(x, txn, &k, &r);
}

static int put_tag(struct index *x, MDB_txn *txn, const struct store_change *c)
{
    struct key k;
    struct record r;
    struct store_tag tag = {.digest = c->digest, .checked_ms = c->checked_ms};
    memcpy(tag.media, c->media, sizeof tag.media);
    key_of_tag(&k, span_str(c->repo), span_str(c->tag));
    record_of_tag(&r, &k, &tag);
    return put_record(x, txn, &k, &r);
}

static int del_tag(struct index *x, MDB_txn *txn, const struct store_change *c)
{
    struct key k;
    key_of_tag(&k, span_str(c->repo), span_str(c->tag));
    return del_record(x, txn, &k);
}

static int del_object(struct index *x, MDB_txn *txn, const struct store_change *c, struct delta *delta)
{
    struct key k;
    key_of_object(&k, &c->digest);
    drop_from_totals(x, txn, &k, delta);
    return del_record(x, txn, &k);
}

static int carry_out(struct index *x, MDB_txn *txn, const struct store_change *c, struct delta *delta)
{
    int rc = 0;
    if (c->what & CHANGE_PUT_OBJECT)
        rc = put_object(x, txn, c, delta);
    if (rc == 0 && (c->what & CHANGE_PUT_LINK))
        rc = put_link(x, txn, c);
    if (rc == 0 && (c->what & CHANGE_PUT_TAG))
        rc = put_tag(x, txn, c);
    if (rc == 0 && (c->what & CHANGE_DEL_TAG))
        rc = del_tag(x, txn, c);
    if (rc == 0 && (c->what & CHANGE_DEL_OBJECT))
        rc = del_object(x, txn, c, delta);
    return rc;
}

/* One transaction with all of them, or none. */
static int commit(struct index *x, struct store_change *const *changes, size_t n)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(x->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    struct delta delta = {0};
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = carry_out(x, txn, changes[i], &delta);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    if (rc != 0)
        return rc;
    atomic_fetch_add_explicit(&x->objects, delta.objects, memory_order_relaxed);
    atomic_fetch_add_explicit(&x->bytes, delta.bytes, memory_order_relaxed);
    return 0;
}

static void commit_batch(struct index *x, struct store_change *const *changes, size_t n)
{
    int rc = commit(x, changes, n);
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        int own = rc;
        if (rc != 0 && n > 1)
            own = commit(x, changes + i, 1);
        changes[i]->err = own != 0 ? ERR_STORE : 0;
        if (own != 0)
            failed++;
    }
    if (failed > 0)
        log_error("store", "the index did not take changes; look at the file system of the store",
                  LOG_S("error", mdb_strerror(rc)), LOG_U("changes", failed));
}

static void run_done(struct core_msg *m)
{
    struct store_change *c = CONTAINER_OF(m, struct store_change, msg);
    c->done(c);
}

void store_apply(struct store *s, struct core *core, struct store_change *c,
                 void (*done)(struct store_change *c))
{
    struct index *x = s->index;
    core_msg_init(&c->msg, run_done);
    c->node = (struct list_node){0};
    c->core = core;
    c->done = done;
    c->err = 0;
    pthread_mutex_lock(&x->lock);
    MUST(!x->stopping);
    bool edge = list_empty(&x->queue);
    list_push_back(&x->queue, &c->node);
    pthread_mutex_unlock(&x->lock);
    if (edge)
        pthread_cond_signal(&x->wake);
}

/* Waits for changes; 0: the store closes and nothing is queued. */
static size_t take_batch(struct index *x, struct store_change **changes)
{
    size_t n = 0;
    struct list_node *node;
    pthread_mutex_lock(&x->lock);
    while (list_empty(&x->queue) && !x->stopping)
        pthread_cond_wait(&x->wake, &x->lock);
    while (n < BATCH_MAX && (node = list_pop_front(&x->queue)) != NULL)
        changes[n++] = CONTAINER_OF(node, struct store_change, node);
    pthread_mutex_unlock(&x->lock);
    return n;
}

static void *write_changes(void *arg)
{
    struct index *x = arg;
    struct store_change *changes[BATCH_MAX];
    size_t n;
    while ((n = take_batch(x, changes)) > 0) {
        commit_batch(x, changes, n);
        for (size_t i = 0; i < n; i++)
            core_post(changes[i]->core, &changes[i]->msg); /* the change belongs to its owner again */
    }
    return NULL;
}

/* ---- opening ---- */

static int fail(const struct store *s, struct str *why, const char *what, int rc)
{
    str_addf(why, "cannot %s the index %s/index: %s", what, s->path, mdb_strerror(rc));
    return ERR_STORE;
}

/* Makes the environment, with half the limit again and again where the address space is too small. */
static int open_env(const struct store *s, size_t max, struct str *why, MDB_env **out)
{
    char path[PATH_MAX];
    struct str p = STR_INIT(path);
    str_addf(&p, "%s/index", s->path);
    MUST(!p.cut);
    for (;; max /= 2) {
        int rc = mdb_env_create(out);
        if (rc != 0)
            return fail(s, why, "open", rc);
        MUST(mdb_env_set_maxdbs(*out, TABLES + 1) == 0);
        MUST(mdb_env_set_maxreaders(*out, READERS_MAX) == 0);
        rc = mdb_env_set_mapsize(*out, max);
        if (rc == 0)
            rc = mdb_env_open(*out, path, MDB_NOTLS, STORE_FILE_MODE);
        if (rc == 0)
            return 0;
        mdb_env_close(*out);
        *out = NULL;
        if (rc == ENOMEM && max / 2 >= INDEX_MIN)
            continue;
        if (rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH || rc == MDB_CORRUPTED ||
            rc == MDB_PAGE_NOTFOUND) {
            str_addf(why,
                     "%s is damaged or was not made by larder (%s); move it away, the content in %s/blobs "
                     "stays where it is",
                     path, mdb_strerror(rc), s->path);
            return ERR_STORE;
        }
        return fail(s, why, "open", rc);
    }
}

/* A new environment gets its format; that of another larder, or of something else, is refused untouched. */
static int check_format(const struct store *s, MDB_txn *txn, struct str *why)
{
    MDB_dbi root, meta;
    MDB_stat stat;
    int rc = mdb_dbi_open(txn, NULL, 0, &root);
    if (rc == 0)
        rc = mdb_stat(txn, root, &stat);
    if (rc != 0)
        return fail(s, why, "read", rc);
    bool fresh = stat.ms_entries == 0;
    rc = mdb_dbi_open(txn, "meta", fresh ? MDB_CREATE : 0, &meta);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return fail(s, why, "read", rc);
    MDB_val key = {.mv_data = "format", .mv_size = 6}, value = {.mv_size = 0};
    if (rc == 0 && fresh) {
        unsigned char format[4];
        le_store(format, RECORD_FORMAT, sizeof format);
        value = (MDB_val){.mv_data = format, .mv_size = sizeof format};
        rc = mdb_put(txn, meta, &key, &value, 0);
        return rc != 0 ? fail(s, why, "write", rc) : 0;
    }
    if (rc == 0)
        rc = mdb_get(txn, meta, &key, &value);
    if (rc != 0 || value.mv_size != 4) {
        str_addf(why,
                 "%s/index is an LMDB database that larder did not make; set store.path to another folder",
                 s->path);
        return ERR_STORE;
    }
    uint64_t format = le_load(value.mv_data, 4);
    if (format == RECORD_FORMAT)
        return 0;
    str_addf(
        why,
        "the index %s/index has format %d, this larder reads format %d; run the larder that wrote it, or set "
        "store.path to another folder",
        s->path, (int)format, RECORD_FORMAT);
    return ERR_STORE;
}

static int open_tables(struct index *x, const struct store *s, struct str *why)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(x->env, NULL, 0, &txn);
    if (rc != 0)
        return fail(s, why, "read", rc);
    int err = check_format(s, txn, why);
    for (size_t t = 0; t < TABLES && err == 0; t++) {
        rc = mdb_dbi_open(txn, table_names[t], MDB_CREATE, &x->tables[t]);
        if (rc != 0)
            err = fail(s, why, "open a table of", rc);
    }
    if (err != 0) {
        mdb_txn_abort(txn);
        return err;
    }
    rc = mdb_txn_commit(txn);
    return rc != 0 ? fail(s, why, "write", rc) : 0;
}

/* One entry of the objects' table; false: damaged. */
static bool count_object(struct index *x, MDB_val key, MDB_val value)
{
    struct fields f;
    struct span full;
    struct store_object o;
    if (!record_open(span_of_val(key), span_of_val(value), &f, &full) || !record_object(&f, &o))
        return false;
    x->objects++;
    x->bytes += o.size;
    return true;
}

static int count_objects(struct index *x, const struct store *s, struct str *why)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    int rc = mdb_txn_begin(x->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return fail(s, why, "read", rc);
    rc = mdb_cursor_open(txn, x->tables[TABLE_OBJECTS], &cursor);
    if (rc == 0) {
        MDB_val key, value;
        uint64_t damaged = 0;
        while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
            if (!count_object(x, key, value))
                damaged++;
        mdb_cursor_close(cursor);
        x->damaged = damaged;
        if (damaged > 0)
            log_warn("store",
                     "the index has damaged records of objects; they will be fetched again when they are "
                     "asked for",
                     LOG_S("path", s->path), LOG_U("records", damaged));
    }
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : fail(s, why, "read", rc);
}

static int start_writer(struct index *x, const struct store *s, struct str *why)
{
    int rc = pthread_create(&x->writer, NULL, write_changes, x);
    if (rc == 0)
        return 0;
    str_addf(why, "cannot start the thread that writes the index %s/index: %s", s->path,
             store_errno_words(rc));
    return ERR_STORE;
}

static void index_free(struct index *x)
{
    if (x->env != NULL)
        mdb_env_close(x->env);
    pthread_cond_destroy(&x->wake);
    pthread_mutex_destroy(&x->lock);
    mem_free(x);
}

struct index *index_open(const struct store *s, size_t index_max, struct str *why)
{
    struct index *x;
    NEW(x);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->wake, NULL);
    list_init(&x->queue);
    if (open_env(s, index_max, why, &x->env) != 0) {
        index_free(x);
        return NULL;
    }
    MUST(mdb_env_get_maxkeysize(x->env) >= KEY_STORED_MAX);
    int dead = 0;
    if (mdb_reader_check(x->env, &dead) == 0 && dead > 0)
        log_info("store", "cleared readers of an earlier run from the index", LOG_I("readers", dead));
    if (open_tables(x, s, why) != 0 || count_objects(x, s, why) != 0 || start_writer(x, s, why) != 0) {
        index_free(x);
        return NULL;
    }
    return x;
}

void index_close(struct index *x)
{
    MUST(atomic_load(&x->readers) == 0);
    pthread_mutex_lock(&x->lock);
    x->stopping = true;
    pthread_mutex_unlock(&x->lock);
    pthread_cond_signal(&x->wake);
    pthread_join(x->writer, NULL);
    index_free(x);
}
