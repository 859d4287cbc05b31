/* The index: an LMDB environment in <path>/index. The only file that knows LMDB.
 *
 * Tables and records. All numbers are little-endian; the layout is written byte by byte and is what FORMAT names: change
 * it and FORMAT together.
 *
 *     table    full key                      fields
 *     meta     "format"                      u32 FORMAT (no sum)
 *     tags     repo 00 tag                   digest, i64 checked_ms, u8 n, n bytes of media type
 *     links    repo 00 digest                u8 n, n bytes of media type
 *     objects  digest                        u64 size, i64 stored_ms
 *
 *     digest = u8 algorithm, 32 or 64 raw bytes
 *     value  = u64 sum, u16 n, n bytes of full key, fields
 *
 * LMDB keys have at most 511 bytes. A full key that is longer is stored under 01 and its XXH3-128 (no text begins with
 * 01), and stands in the value; else n is 0. So every repository and tag can be listed from the records. The sum is XXH3
 * over the stored key and the rest of the value: a record that was damaged, or moved to another key, is not there.
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
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/store_int.h"

#define FORMAT 1

#define INDEX_KEY_MAX 511
#define READERS_MAX   1024
#define BATCH_MAX     1000
#define INDEX_MIN     ((size_t)64 << 20) /* no smaller limit is tried where the address space is small */

#define DIGEST_FIELD_MAX (1 + DIGEST_RAW_MAX)
#define KEY_TEXT_MAX     (STORE_REPO_MAX + 1 + STORE_TAG_MAX)
#define RECORD_MAX       (8 + 2 + KEY_TEXT_MAX + DIGEST_FIELD_MAX + 8 + 1 + STORE_MEDIA_MAX)
_Static_assert(STORE_TAG_MAX >= DIGEST_FIELD_MAX, "KEY_TEXT_MAX is that of tags");
_Static_assert(STORE_MEDIA_MAX <= UINT8_MAX, "the length of a media type is one byte");

enum table { TABLE_TAGS, TABLE_LINKS, TABLE_OBJECTS, TABLES };

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

/* ---- encoding ---- */

struct key {
    enum table table;
    unsigned char text[KEY_TEXT_MAX]; /* the full key */
    size_t n;
    unsigned char hash[1 + sizeof(XXH128_canonical_t)];
    bool hashed;
};

struct record {
    unsigned char p[RECORD_MAX];
    size_t n;
};

static void put_bytes(struct record *r, const void *p, size_t n)
{
    MUST(n <= sizeof r->p - r->n);
    if (n > 0)
        memcpy(r->p + r->n, p, n);
    r->n += n;
}

static void store_le(unsigned char *p, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t load_le(const unsigned char *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void put_number(struct record *r, uint64_t v, size_t bytes)
{
    unsigned char le[8];
    store_le(le, v, bytes);
    put_bytes(r, le, bytes);
}

static void put_digest(struct record *r, const struct digest *d)
{
    put_number(r, d->alg, 1);
    put_bytes(r, d->raw, digest_raw_len(d));
}

static void put_media(struct record *r, const char *media)
{
    size_t n = strnlen(media, STORE_MEDIA_MAX);
    put_number(r, n, 1);
    put_bytes(r, media, n);
}

/* What is left to read of a record; `bad` sticks. */
struct fields {
    const unsigned char *p;
    size_t n;
    bool bad;
};

static const unsigned char *get_bytes(struct fields *f, size_t n)
{
    if (f->bad || n > f->n) {
        f->bad = true;
        return NULL;
    }
    const unsigned char *p = f->p;
    f->p += n;
    f->n -= n;
    return p;
}

static uint64_t get_number(struct fields *f, size_t bytes)
{
    const unsigned char *p = get_bytes(f, bytes);
    return p != NULL ? load_le(p, bytes) : 0;
}

static void get_digest(struct fields *f, struct digest *d)
{
    *d = (struct digest){.alg = (uint8_t)get_number(f, 1)};
    size_t n = digest_raw_len(d);
    const unsigned char *p = get_bytes(f, n);
    if (p == NULL || n == 0)
        f->bad = true;
    else
        memcpy(d->raw, p, n);
}

static void get_media(struct fields *f, char media[STORE_MEDIA_MAX + 1])
{
    size_t n = get_number(f, 1);
    const unsigned char *p = get_bytes(f, n);
    if (p != NULL)
        memcpy(media, p, n);
    media[p != NULL ? n : 0] = '\0';
}

/* ---- keys ---- */

static void key_add(struct key *k, const void *p, size_t n)
{
    MUST(n <= sizeof k->text - k->n);
    memcpy(k->text + k->n, p, n);
    k->n += n;
}

static void key_add_digest(struct key *k, const struct digest *d)
{
    MUST(digest_raw_len(d) > 0);
    key_add(k, &d->alg, 1);
    key_add(k, d->raw, digest_raw_len(d));
}

static void key_finish(struct key *k)
{
    k->hashed = k->n > INDEX_KEY_MAX;
    if (!k->hashed)
        return;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(k->text, k->n));
    k->hash[0] = 1;
    memcpy(k->hash + 1, &canonical, sizeof canonical);
}

static void key_of_tag(struct key *k, struct span repo, struct span tag)
{
    k->table = TABLE_TAGS;
    k->n = 0;
    key_add(k, repo.p, repo.n);
    key_add(k, "", 1);
    key_add(k, tag.p, tag.n);
    key_finish(k);
}

static void key_of_link(struct key *k, struct span repo, const struct digest *d)
{
    k->table = TABLE_LINKS;
    k->n = 0;
    key_add(k, repo.p, repo.n);
    key_add(k, "", 1);
    key_add_digest(k, d);
    key_finish(k);
}

static void key_of_object(struct key *k, const struct digest *d)
{
    k->table = TABLE_OBJECTS;
    k->n = 0;
    key_add_digest(k, d);
    key_finish(k);
}

static MDB_val key_val(struct key *k)
{
    if (k->hashed)
        return (MDB_val){.mv_data = k->hash, .mv_size = sizeof k->hash};
    return (MDB_val){.mv_data = k->text, .mv_size = k->n};
}

/* ---- records ---- */

static uint64_t record_sum(MDB_val key, const unsigned char *rest, size_t n)
{
    return XXH3_64bits_withSeed(rest, n, XXH3_64bits(key.mv_data, key.mv_size));
}

static void record_begin(struct record *r, const struct key *k)
{
    r->n = 0;
    put_number(r, 0, 8);
    put_number(r, k->hashed ? k->n : 0, 2);
    if (k->hashed)
        put_bytes(r, k->text, k->n);
}

static int record_put(struct index *x, MDB_txn *txn, struct key *k, struct record *r)
{
    MDB_val key = key_val(k);
    store_le(r->p, record_sum(key, r->p + 8, r->n - 8), 8);
    MDB_val value = {.mv_data = r->p, .mv_size = r->n};
    return mdb_put(txn, x->tables[k->table], &key, &value, 0);
}

/* False: damaged. *full is the full key as it stands in the record, empty where the stored key is the full one. */
static bool record_open(MDB_val key, MDB_val value, struct fields *f, struct span *full)
{
    *f = (struct fields){.p = value.mv_data, .n = value.mv_size};
    uint64_t sum = get_number(f, 8);
    if (f->bad || sum != record_sum(key, f->p, f->n))
        return false;
    size_t n = get_number(f, 2);
    *full = span_of((const char *)get_bytes(f, n), n);
    return !f->bad;
}

static void object_read(struct fields *f, struct store_object *out)
{
    out->size = get_number(f, 8);
    out->stored_ms = (int64_t)get_number(f, 8);
}

static void log_damaged(struct index *x, const struct key *k)
{
    atomic_fetch_add_explicit(&x->damaged, 1, memory_order_relaxed);
    char text[KEY_TEXT_MAX + DIGEST_TEXT_MAX];
    struct str s = STR_INIT(text);
    struct fields f = {.p = k->text, .n = k->n};
    if (k->table != TABLE_OBJECTS) {
        const unsigned char *end = memchr(k->text, '\0', k->n);
        MUST(end != NULL);
        size_t repo = (size_t)(end - k->text);
        str_add(&s, span_of((const char *)get_bytes(&f, repo), repo));
        UNUSED(get_bytes(&f, 1));
        str_addc(&s, k->table == TABLE_TAGS ? ':' : '@');
    }
    if (k->table == TABLE_TAGS) {
        str_add(&s, span_of((const char *)f.p, f.n));
    } else {
        struct digest d;
        get_digest(&f, &d);
        digest_add(&s, &d);
    }
    log_warn("store",
             "a record of the index is damaged and is ignored; it will be written again when it is needed",
             LOG_S("table", table_names[k->table]), LOG_SP("record", str_span(&s)));
}

/* Finds the record of k in txn. True: its fields are in *f. Damage and errors are logged, and count as not there. */
static bool record_get(struct index *x, MDB_txn *txn, struct key *k, struct fields *f)
{
    MDB_val key = key_val(k), value;
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
    if (!record_open(key, value, f, &full)) {
        log_damaged(x, k);
        return false;
    }
    /* Two full keys with one hash: the other one has the place. */
    return !k->hashed || span_eq(full, span_of((const char *)k->text, k->n));
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

/* Every look-up is between reader_begin and reader_end; what record_get gives points into the snapshot. */
static bool reader_begin(struct store_reader *r)
{
    CHECK_MAGIC(r, READER_MAGIC);
    int rc = mdb_txn_renew(r->txn);
    if (rc != 0)
        log_error("store", "the index cannot be read", LOG_S("error", mdb_strerror(rc)));
    return rc == 0;
}

static bool reader_end(struct store_reader *r, struct key *k, const struct fields *f, bool found)
{
    if (found && f->bad)
        log_damaged(r->index, k);
    mdb_txn_reset(r->txn);
    return found && !f->bad;
}

bool store_get_tag(struct store_reader *r, struct span repo, struct span tag, struct store_tag *out)
{
    if (repo.n > STORE_REPO_MAX || tag.n > STORE_TAG_MAX || !reader_begin(r))
        return false;
    struct key k;
    struct fields f;
    key_of_tag(&k, repo, tag);
    bool found = record_get(r->index, r->txn, &k, &f);
    if (found) {
        get_digest(&f, &out->digest);
        out->checked_ms = (int64_t)get_number(&f, 8);
        get_media(&f, out->media);
    }
    return reader_end(r, &k, &f, found);
}

bool store_get_link(struct store_reader *r, struct span repo, const struct digest *d, struct store_link *out)
{
    if (repo.n > STORE_REPO_MAX || !reader_begin(r))
        return false;
    struct key k;
    struct fields f;
    key_of_link(&k, repo, d);
    bool found = record_get(r->index, r->txn, &k, &f);
    if (found)
        get_media(&f, out->media);
    return reader_end(r, &k, &f, found);
}

bool store_get_object(struct store_reader *r, const struct digest *d, struct store_object *out)
{
    if (!reader_begin(r))
        return false;
    struct key k;
    struct fields f;
    key_of_object(&k, d);
    bool found = record_get(r->index, r->txn, &k, &f);
    if (found)
        object_read(&f, out);
    return reader_end(r, &k, &f, found);
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
static void drop_from_totals(struct index *x, MDB_txn *txn, struct key *k, struct delta *delta)
{
    struct fields f;
    struct store_object old;
    if (!record_get(x, txn, k, &f))
        return;
    object_read(&f, &old);
    if (f.bad)
        return;
    delta->objects--;
    delta->bytes -= old.size;
}

static int put_object(struct index *x, MDB_txn *txn, const struct store_change *c, struct delta *delta)
{
    struct key k;
    struct record r;
    key_of_object(&k, &c->digest);
    drop_from_totals(x, txn, &k, delta);
    record_begin(&r, &k);
    put_number(&r, c->size, 8);
    put_number(&r, (uint64_t)clock_wall_ms(), 8);
    delta->objects++;
    delta->bytes += c->size;
    return record_put(x, txn, &k, &r);
}

static int put_link(struct index *x, MDB_txn *txn, const struct store_change *c)
{
    struct key k;
    struct record r;
    key_of_link(&k, span_str(c->repo), &c->digest);
    record_begin(&r, &k);
    put_media(&r, c->media);
    return record_put(x, txn, &k, &r);
}

static int put_tag(struct index *x, MDB_txn *txn, const struct store_change *c)
{
    struct key k;
    struct record r;
    key_of_tag(&k, span_str(c->repo), span_str(c->tag));
    record_begin(&r, &k);
    put_digest(&r, &c->digest);
    put_number(&r, (uint64_t)c->checked_ms, 8);
    put_media(&r, c->media);
    return record_put(x, txn, &k, &r);
}

static int del(struct index *x, MDB_txn *txn, struct key *k)
{
    MDB_val key = key_val(k);
    int rc = mdb_del(txn, x->tables[k->table], &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int del_tag(struct index *x, MDB_txn *txn, const struct store_change *c)
{
    struct key k;
    key_of_tag(&k, span_str(c->repo), span_str(c->tag));
    return del(x, txn, &k);
}

static int del_object(struct index *x, MDB_txn *txn, const struct store_change *c, struct delta *delta)
{
    struct key k;
    key_of_object(&k, &c->digest);
    drop_from_totals(x, txn, &k, delta);
    return del(x, txn, &k);
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
        store_le(format, FORMAT, sizeof format);
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
    uint64_t format = load_le(value.mv_data, 4);
    if (format == FORMAT)
        return 0;
    str_addf(
        why,
        "the index %s/index has format %d, this larder reads format %d; run the larder that wrote it, or set "
        "store.path to another folder",
        s->path, (int)format, FORMAT);
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
    if (!record_open(key, value, &f, &full))
        return false;
    object_read(&f, &o);
    if (f.bad)
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
    MUST(mdb_env_get_maxkeysize(x->env) >= INDEX_KEY_MAX);
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
