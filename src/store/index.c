/* The index: tables of records (record_int.h) in an LMDB environment (db.c) in <path>/index.
 *
 * Writing. store_apply queues; one thread takes what is queued, up to BATCH_MAX changes, into one transaction, commits
 * it durably and posts each change back to its core. If the transaction fails, each of its changes is tried once in a
 * transaction of its own, so that one which cannot succeed fails alone. The keeper, and whoever purges, pins or verifies, write
 * in short transactions of their own.
 *
 * Reading. A reader is a transaction that is parked between look-ups: it keeps its slot in LMDB's table, so a look-up
 * waits for nobody (its lock is its own, but for index_reopen), and holds no snapshot, so the writer can reuse pages. What one that remembers has
 * found lately is given again while nothing changes (recent_int.h).
 *
 * Touches. Each reader has a table of what was asked for since the keeper looked last; the keeper takes the table away and writes it
 * down. A full table forgets: the order of eviction is coarse anyway.
 *
 * meta has "format" (u32, alone), "sums" (objects, bytes, i64 time of the last change of them) and "suspects" (two i64: stored
 * from when to when; u8: there are adopted files, too), each with a sum; "scrub" is scrub.c's. At start nothing is read but these. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"
#include "store/recent_int.h"

#define BATCH_MAX 1000

/* Room that is made on a full disk, for more than the changes that found none. */
#define RELIEF (UINT64_C(1) << 20)

/* After an unclean stop, what was stored so shortly before the last sign of life is suspect. */
#define SUSPECT_MS 300000

#define TOUCH_SLOTS 2048 /* a power of two */
#define TOUCH_FULL  (TOUCH_SLOTS * 3 / 4)
#define TOUCH_BATCH 1000

struct touch {
    struct digest digest; /* DIGEST_NONE: free */
    uint32_t count;
    int64_t mono_ms;
};

struct touches {
    struct list_node node;
    unsigned used;
    struct touch slots[TOUCH_SLOTS];
};

#define READER_MAGIC 0x570e0002u

struct store_reader {
    unsigned magic;
    struct index *index;
    struct recent *recent; /* or NULL */
    struct db_txn *txn;    /* NULL: to be begun */
    struct list_node node;
    pthread_mutex_t use_lock;   /* held while the index is read; guards txn */
    pthread_mutex_t touch_lock; /* guards touches */
    struct touches *touches;    /* NULL: nothing since the keeper looked */
};

struct sums {
    uint64_t objects, bytes;
    int64_t at_ms;
};

/* ---- transactions ---- */

/* The environment is of no use until it is opened again, which the keeper does. */
static int note_broken(struct index *x, int rc)
{
    if (db_is_fatal(rc) && !atomic_exchange(&x->broken, true)) {
        log_error("store",
                  "the index can neither be read nor written since a write to its file system failed; "
                  "it will be opened again",
                  LOG_S("path", x->store->path));
        keeper_wake(x->store);
    }
    return rc;
}

static int txn_begin(struct index *x, bool write, struct itxn *t)
{
    *t = (struct itxn){.x = x};
    pthread_rwlock_rdlock(&x->gate);
    int rc = x->db != NULL ? note_broken(x, db_begin(x->db, write, &t->t)) : EIO;
    t->gated = rc == 0;
    if (rc != 0)
        pthread_rwlock_unlock(&x->gate);
    return rc;
}

static void leave_gate(struct itxn *t)
{
    if (t->gated)
        pthread_rwlock_unlock(&t->x->gate);
    t->gated = false;
}

int itxn_write(struct index *x, struct itxn *t)
{
    return txn_begin(x, true, t);
}

int itxn_read(struct index *x, struct itxn *t)
{
    return txn_begin(x, false, t);
}

void itxn_end(struct itxn *t)
{
    db_end(t->t);
    t->t = NULL;
    leave_gate(t);
}

bool meta_get(struct itxn *t, const char *name, void *value, size_t n)
{
    struct span v, key = span_str(name);
    if (db_get(t->t, t->x->meta, key, &v) != 0 || v.n != 8 + n)
        return false;
    if (le_load((const unsigned char *)v.p, 8) != meta_sum(key, v.p + 8, n))
        return false;
    memcpy(value, v.p + 8, n);
    return true;
}

int meta_put(struct itxn *t, const char *name, const void *value, size_t n)
{
    unsigned char v[8 + 256];
    MUST(n <= sizeof v - 8);
    struct span key = span_str(name);
    memcpy(v + 8, value, n);
    le_store(v, meta_sum(key, value, n), 8);
    return db_put(t->t, t->x->meta, key, span_of((const char *)v, 8 + n));
}

static bool get_sums(struct itxn *t, struct sums *out)
{
    unsigned char v[24];
    if (!meta_get(t, "sums", v, sizeof v))
        return false;
    *out = (struct sums){le_load(v, 8), le_load(v + 8, 8), (int64_t)le_load(v + 16, 8)};
    return true;
}

static int put_sums(struct itxn *t, const struct sums *sums)
{
    unsigned char v[24];
    le_store(v, sums->objects, 8);
    le_store(v + 8, sums->bytes, 8);
    le_store(v + 16, (uint64_t)sums->at_ms, 8);
    return meta_put(t, "sums", v, sizeof v);
}

int itxn_put_totals(struct itxn *t)
{
    struct sums sums = {t->objects, t->bytes, clock_wall_ms()};
    return put_sums(t, &sums);
}

int itxn_commit(struct itxn *t)
{
    struct index *x = t->x;
    int rc = 0;
    if (t->objects != 0 || t->bytes != 0 || t->stored) {
        struct sums sums = {0};
        if (!get_sums(t, &sums))
            t->damage = true;
        sums.objects += t->objects;
        sums.bytes += t->bytes;
        sums.at_ms = clock_wall_ms();
        rc = put_sums(t, &sums);
    }
    if (rc != 0) {
        itxn_end(t);
        return rc;
    }
    struct db_txn *txn = t->t;
    t->t = NULL;
    /* While this is the only writer: whoever counts anew finds all that was committed in it. */
    atomic_fetch_add_explicit(&x->objects, t->objects, memory_order_relaxed);
    atomic_fetch_add_explicit(&x->bytes, t->bytes, memory_order_relaxed);
    rc = db_commit(txn);
    if (rc != 0) {
        atomic_fetch_sub_explicit(&x->objects, t->objects, memory_order_relaxed);
        atomic_fetch_sub_explicit(&x->bytes, t->bytes, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&x->commits, 1, memory_order_release);
    leave_gate(t);
    if (rc != 0)
        return rc;
    if (t->damage) {
        atomic_store(&x->recount, true);
        keeper_wake(x->store);
    }
    return 0;
}

/* ---- records ---- */

static void log_damaged(struct index *x, const struct key *k)
{
    atomic_fetch_add_explicit(&x->damaged, 1, memory_order_relaxed);
    if (k->table == TABLE_POOL)
        atomic_store(&x->recount, true); /* the keeper sees it in time */
    char text[KEY_TEXT_MAX];
    struct str s = STR_INIT(text);
    key_text(k, &s);
    log_warn("store",
             "a record of the index is damaged and is ignored; it will be written again when it is needed",
             LOG_S("table", table_name(k->table)), LOG_SP("record", str_span(&s)));
}

/* Finds the record of k. True: its fields are in *f. Damage and errors are logged, and count as not there. */
static bool get_record(struct itxn *t, const struct key *k, struct fields *f)
{
    struct index *x = t->x;
    struct span value, full;
    int rc = db_get(t->t, x->tables[k->table], key_stored(k), &value);
    if (rc == DB_NOTFOUND)
        return false;
    if (rc != 0) {
        atomic_fetch_add_explicit(&x->damaged, 1, memory_order_relaxed);
        log_error("store", "the index cannot be read", LOG_S("table", table_name(k->table)),
                  LOG_S("error", db_words(rc)));
        return false;
    }
    if (!record_open(k->table, key_stored(k), value, f, &full)) {
        if (k->table == TABLE_POOL)
            t->damage = true;
        log_damaged(x, k);
        return false;
    }
    /* Two full keys with one hash: the other one has the place. */
    return span_eq(full, span_of((const char *)k->full, k->n));
}

static bool whole(struct itxn *t, const struct key *k, bool good)
{
    if (!good)
        log_damaged(t->x, k);
    return good;
}

bool itxn_tag(struct itxn *t, struct span repo, struct span tag, struct store_tag *out)
{
    struct fields f;
    struct key k;
    key_of_tag(&k, repo, tag);
    return get_record(t, &k, &f) && whole(t, &k, record_tag(&f, out));
}

bool itxn_link(struct itxn *t, struct span repo, const struct digest *d, struct store_link *out)
{
    struct fields f;
    struct key k;
    key_of_owner(&k, d, repo);
    return get_record(t, &k, &f) && whole(t, &k, record_owner(&f, out));
}

bool itxn_object(struct itxn *t, const struct digest *d, struct pool_entry *out)
{
    struct fields f;
    struct key k;
    key_of_object(&k, TABLE_POOL, d);
    if (!get_record(t, &k, &f) || !whole(t, &k, record_object(&f, out)))
        return false;
    out->o.suspect = index_is_suspect(t->x, out);
    return true;
}

bool itxn_refs(struct itxn *t, const struct digest *d, struct store_ref **refs, size_t *n)
{
    struct fields f;
    struct key k;
    key_of_object(&k, TABLE_REFS, d);
    if (!get_record(t, &k, &f))
        return false;
    size_t max = record_refs(&f);
    struct store_ref *r = mem_alloc((max > 0 ? max : 1) * sizeof *r);
    *n = 0;
    while (*n < max && record_next_ref(&f, &r[*n]))
        ++*n;
    *refs = r;
    return true;
}

bool itxn_has(struct itxn *t, const struct key *k)
{
    struct span value;
    return db_get(t->t, t->x->tables[k->table], key_stored(k), &value) == 0;
}

int itxn_put(struct itxn *t, const struct key *k, const struct record *r)
{
    struct span value = r != NULL ? span_of((const char *)r->p, r->n) : span_of("", 0);
    return db_put(t->t, t->x->tables[k->table], key_stored(k), value);
}

int itxn_del(struct itxn *t, const struct key *k)
{
    return db_del(t->t, t->x->tables[k->table], key_stored(k));
}

/* ---- objects ---- */

/* Stored in the time that is suspect. */
static bool index_by_time(const struct index *x, const struct pool_entry *e)
{
    int64_t to = atomic_load_explicit(&x->suspect_to, memory_order_relaxed);
    return to != 0 && e->o.stored_ms <= to &&
           e->o.stored_ms >= atomic_load_explicit(&x->suspect_from, memory_order_relaxed);
}

bool index_is_suspect(const struct index *x, const struct pool_entry *e)
{
    return (e->flags & RECORD_UNVERIFIED) != 0 || ((e->flags & RECORD_CHECKED) == 0 && index_by_time(x, e));
}

/* One with a damaged record never was in the totals, as far as anybody can tell: counting anew mends that. */
static int leave(struct itxn *t, const struct digest *d, struct pool_entry *old, bool *there)
{
    *there = itxn_object(t, d, old);
    if (!*there)
        return 0;
    struct key k;
    key_of_lru(&k, old->o.kind, old->o.access_ms, d);
    t->objects--;
    t->bytes -= old->o.size;
    return itxn_del(t, &k);
}

int itxn_put_object(struct itxn *t, const struct digest *d, const struct pool_entry *e)
{
    struct pool_entry old;
    struct record r;
    struct key k;
    bool there;
    int rc = leave(t, d, &old, &there);
    if (rc != 0)
        return rc;
    t->objects++;
    t->bytes += e->o.size;
    key_of_object(&k, TABLE_POOL, d);
    record_of_object(&r, &k, e);
    rc = itxn_put(t, &k, &r);
    if (rc != 0)
        return rc;
    key_of_lru(&k, e->o.kind, e->o.access_ms, d);
    return itxn_put(t, &k, NULL);
}

int itxn_del_object(struct itxn *t, const struct digest *d)
{
    struct pool_entry old;
    struct key k;
    bool there;
    int rc = leave(t, d, &old, &there);
    if (rc != 0)
        return rc;
    key_of_object(&k, TABLE_POOL, d);
    return itxn_del(t, &k);
}

static bool is_config(struct itxn *t, const struct digest *d)
{
    struct key k;
    key_of_object(&k, TABLE_CONFIGS, d);
    return itxn_has(t, &k);
}

/* The kind of a blob becomes what is known by now; of another kind it stays. */
static int set_kind(struct itxn *t, const struct digest *d, enum store_kind kind)
{
    struct pool_entry e;
    if (!itxn_object(t, d, &e) || e.o.kind != STORE_BLOB)
        return 0;
    e.o.kind = kind;
    return itxn_put_object(t, d, &e);
}

int itxn_set_kind(struct itxn *t, const struct digest *d, const struct store_link *link)
{
    struct span media = span_str(link->media);
    bool index = span_ends(media, SPAN(".index.v1+json")) || span_ends(media, SPAN(".list.v2+json"));
    return set_kind(t, d, index ? STORE_INDEX : STORE_MANIFEST);
}

int itxn_put_refs(struct itxn *t, const struct digest *d, const struct store_ref *refs, size_t n)
{
    struct key k;
    size_t bytes;
    if (n > STORE_REFS_MAX)
        n = STORE_REFS_MAX;
    key_of_object(&k, TABLE_REFS, d);
    unsigned char *p = record_of_refs(&k, refs, n, &bytes);
    int rc = db_put(t->t, t->x->tables[TABLE_REFS], key_stored(&k), span_of((const char *)p, bytes));
    mem_free(p);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (refs[i].role != REF_CONFIG)
            continue;
        key_of_object(&k, TABLE_CONFIGS, &refs[i].digest);
        rc = itxn_put(t, &k, NULL);
        if (rc == 0)
            rc = set_kind(t, &refs[i].digest, STORE_CONFIG);
    }
    return rc;
}

static int del_refs(struct itxn *t, const struct digest *d)
{
    struct store_ref *refs;
    struct key k;
    size_t n;
    int rc = 0;
    if (!itxn_refs(t, d, &refs, &n))
        return 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (refs[i].role != REF_CONFIG)
            continue;
        key_of_object(&k, TABLE_CONFIGS, &refs[i].digest);
        rc = itxn_del(t, &k);
    }
    mem_free(refs);
    key_of_object(&k, TABLE_REFS, d);
    return rc == 0 ? itxn_del(t, &k) : rc;
}

/* ---- walking tags and links ---- */

int itxn_each_owner(struct itxn *t, const struct digest *d,
                    bool (*each)(struct span repo, const struct store_link *link, void *arg), void *arg)
{
    struct db_cursor *c;
    struct span key, value, from = digest_key(d);
    from.n = 1 + digest_raw_len(d);
    int rc = db_cursor_open(t->t, t->x->tables[TABLE_OWNERS], &c);
    if (rc != 0)
        return rc;
    for (rc = db_seek(c, from, &key, &value); rc == 0 && span_starts(key, from);
         rc = db_next(c, &key, &value)) {
        struct fields f;
        struct span full, repo;
        struct digest is;
        struct store_link link;
        if (record_open(TABLE_OWNERS, key, value, &f, &full) && record_owner(&f, &link) &&
            key_split_owner(full, &is, &repo) && !each(repo, &link, arg))
            break;
    }
    db_cursor_close(c);
    return rc == DB_NOTFOUND ? 0 : rc;
}

/* Entries from the key `from` on that begin with `prefix`. 1: it was told to stop. */
static int each_tag_from(struct itxn *t, struct span from, struct span prefix, struct span repo, bool exact,
                         bool (*each)(struct span repo, struct span tag, const struct store_tag *is,
                                      void *arg),
                         void *arg, bool *stopped)
{
    struct db_cursor *c;
    struct span key, value;
    int rc = db_cursor_open(t->t, t->x->tables[TABLE_TAGS], &c);
    if (rc != 0)
        return rc;
    for (rc = db_seek(c, from, &key, &value); rc == 0 && span_starts(key, prefix) && !*stopped;
         rc = db_next(c, &key, &value)) {
        struct fields f;
        struct span full, name, tag;
        struct store_tag is;
        if (!record_open(TABLE_TAGS, key, value, &f, &full) || !record_tag(&f, &is) ||
            !key_split_tag(full, &name, &tag))
            continue;
        if (exact ? span_eq(name, repo) : span_starts(name, repo))
            *stopped = !each(name, tag, &is, arg);
    }
    db_cursor_close(c);
    return rc == DB_NOTFOUND ? 0 : rc;
}

int itxn_each_tag(struct itxn *t, struct span repo, bool exact,
                  bool (*each)(struct span repo, struct span tag, const struct store_tag *is, void *arg),
                  void *arg)
{
    char from[STORE_REPO_MAX + 1];
    bool stopped = false;
    if (repo.n > STORE_REPO_MAX)
        return 0;
    memcpy(from, repo.p != NULL ? repo.p : "", repo.n);
    from[repo.n] = '\0';
    struct span prefix = span_of(from, repo.n + (exact ? 1 : 0));
    if (prefix.n > KEY_STORED_MAX)
        prefix.n = KEY_STORED_MAX;
    /* An empty prefix begins with the first of all, which are the hashed ones. */
    int rc = each_tag_from(t, prefix, prefix, repo, exact, each, arg, &stopped);
    if (rc != 0 || stopped || prefix.n == 0)
        return rc;
    return each_tag_from(t, SPAN("\x01"), SPAN("\x01"), repo, exact, each, arg, &stopped);
}

struct one_tag {
    struct span tag;
    bool (*each)(struct span repo, struct span tag, const struct store_tag *is, void *arg);
    void *arg;
};

static bool each_of_tag(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    const struct one_tag *one = arg;
    return !span_eq(tag, one->tag) || one->each(repo, tag, is, one->arg);
}

int itxn_each_account(struct itxn *t, struct span repo, struct span tag,
                      bool (*each)(struct span repo, struct span tag, const struct store_tag *is, void *arg),
                      void *arg)
{
    char text[STORE_REPO_MAX + 2];
    struct str accounts = STR_INIT(text);
    struct one_tag one = {.tag = tag, .each = each, .arg = arg};
    struct store_tag is;
    str_add(&accounts, repo);
    str_addc(&accounts, STORE_ACCOUNT);
    if (accounts.cut || (itxn_tag(t, repo, tag, &is) && !each(repo, tag, &is, arg)))
        return 0;
    return itxn_each_tag(t, str_span(&accounts), false, each_of_tag, &one);
}

struct any_tag {
    struct store_tag *out;
    bool found;
};

static bool take_latest(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    struct any_tag *any = arg;
    UNUSED(repo);
    UNUSED(tag);
    if (!any->found || is->checked_ms > any->out->checked_ms)
        *any->out = *is;
    any->found = true;
    return true;
}

bool itxn_any_tag(struct itxn *t, struct span repo, struct span tag, struct store_tag *out)
{
    struct any_tag any = {.out = out};
    return itxn_each_account(t, repo, tag, take_latest, &any) == 0 && any.found;
}

/* Names gathered while a cursor walks, to be worked on afterwards: what is deleted moves what a cursor points at. */
struct names {
    char *p;
    size_t n, cap;
};

static void names_add(struct names *s, struct span a, struct span b)
{
    size_t need = s->n + a.n + b.n + 4;
    if (need > s->cap) {
        s->cap = need * 2;
        s->p = mem_realloc(s->p, s->cap);
    }
    MUST(s->p != NULL);
    le_store((unsigned char *)s->p + s->n, a.n, 2);
    le_store((unsigned char *)s->p + s->n + 2, b.n, 2);
    memcpy(s->p + s->n + 4, a.p, a.n);
    if (b.n > 0)
        memcpy(s->p + s->n + 4 + a.n, b.p, b.n);
    s->n = need;
}

static bool names_next(const struct names *s, size_t *at, struct span *a, struct span *b)
{
    if (*at >= s->n)
        return false;
    const unsigned char *p = (const unsigned char *)s->p + *at;
    *a = span_of(s->p + *at + 4, le_load(p, 2));
    *b = span_of(a->p + a->n, le_load(p + 2, 2));
    *at += 4 + a->n + b->n;
    return true;
}

struct naming {
    const struct digest *digest;
    struct names *names;
};

static bool add_owner(struct span repo, const struct store_link *link, void *arg)
{
    UNUSED(link);
    names_add(arg, repo, span_of("", 0));
    return true;
}

static bool add_tag(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    struct naming *n = arg;
    if (digest_eq(&is->digest, n->digest))
        names_add(n->names, repo, tag);
    return true;
}

static int forget_tags(struct itxn *t, const struct digest *d, struct span repo, uint64_t *n_tags)
{
    struct names tags = {0};
    struct naming naming = {d, &tags};
    struct span r, tag;
    struct key k;
    size_t at = 0;
    int rc = itxn_each_tag(t, repo, true, add_tag, &naming);
    while (rc == 0 && names_next(&tags, &at, &r, &tag)) {
        key_of_tag(&k, r, tag);
        rc = itxn_del(t, &k);
        ++*n_tags;
    }
    mem_free(tags.p);
    return rc;
}

int itxn_forget(struct itxn *t, const struct digest *d, bool tags, uint64_t *n_tags, uint64_t *n_links)
{
    struct names owners = {0};
    struct span repo, none;
    struct key k;
    size_t at = 0;
    int rc = itxn_each_owner(t, d, add_owner, &owners);
    while (rc == 0 && names_next(&owners, &at, &repo, &none)) {
        if (tags)
            rc = forget_tags(t, d, repo, n_tags);
        key_of_owner(&k, d, repo);
        if (rc == 0)
            rc = itxn_del(t, &k);
        ++*n_links;
    }
    mem_free(owners.p);
    if (rc == 0)
        rc = del_refs(t, d);
    return rc == 0 ? itxn_del_object(t, d) : rc;
}

/* ---- look-ups ---- */

struct store_reader *store_reader_new(struct store *s)
{
    struct index *x = s->index;
    struct store_reader *r;
    NEW(r);
    r->magic = READER_MAGIC;
    r->index = x;
    pthread_mutex_init(&r->touch_lock, NULL);
    pthread_mutex_init(&r->use_lock, NULL);
    atomic_fetch_add(&x->readers, 1);
    pthread_mutex_lock(&x->readers_lock);
    list_push_back(&x->reader_list, &r->node);
    pthread_mutex_unlock(&x->readers_lock);
    return r;
}

void store_reader_free(struct store_reader *r)
{
    if (r == NULL)
        return;
    CHECK_MAGIC(r, READER_MAGIC);
    struct index *x = r->index;
    pthread_mutex_lock(&x->readers_lock);
    list_remove(&r->node);
    if (r->touches != NULL)
        list_push_back(&x->left, &r->touches->node);
    db_end(r->txn); /* under the lock: index_reopen does not find it any more */
    pthread_mutex_unlock(&x->readers_lock);
    pthread_mutex_destroy(&r->use_lock);
    pthread_mutex_destroy(&r->touch_lock);
    recent_free(r->recent);
    r->magic = 0;
    mem_free(r);
    atomic_fetch_sub(&x->readers, 1);
}

void store_reader_remember(struct store_reader *r)
{
    CHECK_MAGIC(r, READER_MAGIC);
    if (r->recent == NULL)
        r->recent = recent_new();
}

/* Whatever is read of the index is between reader_begin and reader_end: a snapshot of its own. */
static bool reader_begin(struct store_reader *r, struct itxn *t)
{
    CHECK_MAGIC(r, READER_MAGIC);
    struct index *x = r->index;
    int rc = EIO;
    pthread_mutex_lock(&r->use_lock);
    if (r->txn != NULL)
        rc = db_resume(r->txn);
    else if (x->db != NULL)
        rc = db_begin(x->db, false, &r->txn);
    *t = (struct itxn){.x = x, .t = r->txn};
    if (rc == 0)
        return true;
    bool known = atomic_load(&x->broken);
    (void)note_broken(x, rc);
    pthread_mutex_unlock(&r->use_lock);
    if (!known)
        log_error("store", "the index cannot be read", LOG_S("error", db_words(rc)));
    return false;
}

static bool reader_end(struct store_reader *r, bool found)
{
    db_park(r->txn);
    pthread_mutex_unlock(&r->use_lock);
    return found;
}

bool store_get_tag(struct store_reader *r, struct span repo, struct span tag, struct store_tag *out)
{
    struct itxn t;
    if (repo.n > STORE_REPO_MAX || tag.n > STORE_TAG_MAX || !reader_begin(r, &t))
        return false;
    struct span plain = store_repo_plain(repo);
    bool found = itxn_tag(&t, repo, tag, out);
    if (!found && plain.n < repo.n)
        found = out->others = itxn_tag(&t, plain, tag, out);
    return reader_end(r, found);
}

bool store_get_link(struct store_reader *r, struct span repo, const struct digest *d, struct store_link *out)
{
    struct itxn t;
    uint64_t version = store_version(r->index->store);
    if (r->recent != NULL && recent_link(r->recent, version, repo, d, out))
        return true;
    if (repo.n > STORE_REPO_MAX || !reader_begin(r, &t))
        return false;
    struct span plain = store_repo_plain(repo);
    bool found = itxn_link(&t, repo, d, out) || (plain.n < repo.n && itxn_link(&t, plain, d, out));
    if (found && r->recent != NULL)
        recent_keep_link(r->recent, version, repo, d, out);
    return reader_end(r, found);
}

bool store_get_object(struct store_reader *r, const struct digest *d, struct store_object *out)
{
    struct pool_entry e;
    struct itxn t;
    uint64_t version = store_version(r->index->store);
    if (r->recent != NULL && recent_object(r->recent, version, d, out))
        return true;
    if (!reader_begin(r, &t))
        return false;
    bool found = itxn_object(&t, d, &e);
    if (found)
        *out = e.o;
    if (found && r->recent != NULL &&
        !e.o.suspect) /* a suspect ceases to be one without a change of the index */
        recent_keep_object(r->recent, version, d, out);
    return reader_end(r, found);
}

/* ---- touches ---- */

void store_touch(struct store_reader *r, const struct digest *d, int64_t now_ms)
{
    CHECK_MAGIC(r, READER_MAGIC);
    pthread_mutex_lock(&r->touch_lock);
    if (r->touches == NULL)
        NEW(r->touches);
    struct touches *s = r->touches;
    uint64_t at;
    memcpy(&at, d->raw, sizeof at); /* of a digest every bit is as good as any */
    struct touch *slot = &s->slots[at % TOUCH_SLOTS];
    while (slot->digest.alg != DIGEST_NONE && !digest_eq(&slot->digest, d))
        slot = &s->slots[++at % TOUCH_SLOTS];
    bool full = false;
    if (slot->digest.alg == DIGEST_NONE && s->used < TOUCH_FULL) {
        slot->digest = *d;
        full = ++s->used == TOUCH_FULL;
    }
    if (slot->digest.alg != DIGEST_NONE) {
        slot->count++;
        slot->mono_ms = now_ms;
    }
    pthread_mutex_unlock(&r->touch_lock);
    if (full)
        keeper_wake(r->index->store);
}

/* The tables of all readers, and of those that are gone. */
static void take_touches(struct index *x, struct list *out)
{
    pthread_mutex_lock(&x->readers_lock);
    list_move_all(out, &x->left);
    LIST_FOREACH (n, &x->reader_list) {
        struct store_reader *r = CONTAINER_OF(n, struct store_reader, node);
        pthread_mutex_lock(&r->touch_lock);
        if (r->touches != NULL)
            list_push_back(out, &r->touches->node);
        r->touches = NULL;
        pthread_mutex_unlock(&r->touch_lock);
    }
    pthread_mutex_unlock(&x->readers_lock);
}

static int write_touch(struct itxn *t, const struct touch *touch, int64_t wall_minus_mono)
{
    struct pool_entry e;
    if (touch->digest.alg == DIGEST_NONE || !itxn_object(t, &touch->digest, &e))
        return 0;
    int64_t at = touch->mono_ms + wall_minus_mono;
    if (at > e.o.access_ms)
        e.o.access_ms = at;
    e.o.hits = e.o.hits <= UINT32_MAX - touch->count ? e.o.hits + touch->count : UINT32_MAX;
    return itxn_put_object(t, &touch->digest, &e);
}

static int write_touches(struct index *x, const struct touches *s)
{
    int64_t diff = clock_wall_ms() - clock_mono_ms();
    int rc = 0;
    for (unsigned from = 0; from < TOUCH_SLOTS && rc == 0; from += TOUCH_BATCH) {
        struct itxn t;
        rc = itxn_write(x, &t);
        for (unsigned i = from; i < from + TOUCH_BATCH && i < TOUCH_SLOTS && rc == 0; i++)
            rc = write_touch(&t, &s->slots[i], diff);
        if (rc == 0)
            rc = itxn_commit(&t);
        else
            itxn_end(&t);
    }
    return rc;
}

int index_flush_touches(struct index *x)
{
    struct list taken;
    struct list_node *n;
    int rc = 0;
    list_init(&taken);
    take_touches(x, &taken);
    while ((n = list_pop_front(&taken)) != NULL) {
        struct touches *s = CONTAINER_OF(n, struct touches, node);
        if (rc == 0)
            rc = write_touches(x, s);
        mem_free(s);
    }
    return rc;
}

/* ---- changes: the writer's thread ---- */

static int put_object(struct itxn *t, const struct store_change *c)
{
    int64_t now = clock_wall_ms();
    struct pool_entry e = {
        .o = {.size = c->size, .stored_ms = now, .access_ms = now, .kind = c->kind, .sum = c->sum}};
    struct pool_entry old;
    if (e.o.kind == STORE_BLOB && is_config(t, &c->digest))
        e.o.kind = STORE_CONFIG;
    if (itxn_object(t, &c->digest, &old))
        e.o.hits = old.o.hits;
    t->stored = true;
    return itxn_put_object(t, &c->digest, &e);
}

static int put_link(struct itxn *t, const struct store_change *c)
{
    struct key k;
    struct record r;
    struct store_link link;
    memcpy(link.media, c->media, sizeof link.media);
    key_of_owner(&k, &c->digest, span_str(c->repo));
    record_of_owner(&r, &k, &link);
    int rc = itxn_put(t, &k, &r);
    if (rc == 0 && link.media[0] != '\0')
        rc = itxn_set_kind(t, &c->digest, &link);
    return rc;
}

static int put_tag(struct itxn *t, const struct store_change *c)
{
    struct key k;
    struct record r;
    struct store_tag tag = {.digest = c->digest, .checked_ms = c->checked_ms};
    memcpy(tag.media, c->media, sizeof tag.media);
    key_of_tag(&k, span_str(c->repo), span_str(c->tag));
    record_of_tag(&r, &k, &tag);
    return itxn_put(t, &k, &r);
}

static int del_tag(struct itxn *t, const struct store_change *c)
{
    struct key k;
    key_of_tag(&k, span_str(c->repo), span_str(c->tag));
    return itxn_del(t, &k);
}

static int carry_out(struct itxn *t, const struct store_change *c)
{
    int rc = 0;
    if (c->what & CHANGE_PUT_OBJECT)
        rc = put_object(t, c);
    if (rc == 0 && (c->what & CHANGE_PUT_LINK))
        rc = put_link(t, c);
    if (rc == 0 && (c->what & CHANGE_PUT_TAG))
        rc = put_tag(t, c);
    if (rc == 0 && (c->what & CHANGE_DEL_TAG))
        rc = del_tag(t, c);
    if (rc == 0 && (c->what & CHANGE_PUT_REFS))
        rc = itxn_put_refs(t, &c->digest, c->refs, c->n_refs);
    return rc;
}

/* One transaction with all of them, or none. */
static int commit(struct index *x, struct store_change *const *changes, size_t n)
{
    struct itxn t;
    int rc = itxn_write(x, &t);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = carry_out(&t, changes[i]);
    if (rc == 0)
        return itxn_commit(&t);
    itxn_end(&t);
    return rc;
}

/* The file is in blobs/ and the index did not take its entry: it is of no use, and nobody would find it. */
static void drop_file(struct index *x, const struct digest *d)
{
    struct store *s = x->store;
    struct pool_entry e;
    struct itxn t;
    pthread_mutex_lock(&s->evict);
    if (hold_claim(s, d, true)) {
        bool unknown = itxn_read(x, &t) == 0 && !itxn_object(&t, d, &e);
        itxn_end(&t);
        if (unknown)
            evict_unlink(s, d);
        hold_unclaim(s, d, unknown);
    }
    pthread_mutex_unlock(&s->evict);
}

static void end_change(struct index *x, struct store_change *c, int rc)
{
    c->err = rc != 0 ? ERR_STORE : 0;
    if ((c->what & CHANGE_PUT_OBJECT) == 0)
        return;
    hold_indexed(x->store, &c->digest);
    if (rc != 0)
        drop_file(x, &c->digest);
}

static void commit_batch(struct index *x, struct store_change *const *changes, size_t n)
{
    int rc = commit(x, changes, n);
    if (rc != 0 && health_relieved(x->store, health_of_index(x->store, rc), RELIEF))
        rc = commit(x, changes, n);
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        int own = rc;
        if (rc != 0 && n > 1)
            own = commit(x, changes + i, 1);
        if (own != 0)
            failed++;
        end_change(x, changes[i], own);
    }
    if (rc > 0)
        (void)health_note(x->store, health_of_index(x->store, rc));
    if (failed > 0)
        log_error("store", "the index did not take changes; look at the file system of the store",
                  LOG_S("error", db_words(rc)), LOG_U("changes", failed));
    if (evict_is_due(x->store))
        keeper_wake(x->store);
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

/* ---- mending ---- */

void index_checked(struct index *x, const struct digest *d, uint64_t size, const struct content_sum *sum)
{
    struct pool_entry e;
    struct itxn t;
    int rc = itxn_write(x, &t);
    if (rc == 0 && itxn_object(&t, d, &e) && e.o.size == size) {
        /* Outside of the time it would hide what comes after another unclean stop. */
        e.flags = index_by_time(x, &e) ? RECORD_CHECKED : 0;
        if (sum->known)
            e.o.sum = *sum;
        rc = itxn_put_object(&t, d, &e);
    }
    if (rc == 0)
        rc = itxn_commit(&t);
    else
        itxn_end(&t);
    if (rc != 0)
        log_warn("store", "cannot write down that an object was verified", LOG_D("digest", d),
                 LOG_S("error", db_words(rc)));
}

static int put_suspects(struct itxn *t, int64_t from, int64_t to, bool adopted)
{
    unsigned char v[17];
    le_store(v, (uint64_t)from, 8);
    le_store(v + 8, (uint64_t)to, 8);
    v[16] = adopted;
    return meta_put(t, "suspects", v, sizeof v);
}

int itxn_adopting(struct itxn *t)
{
    struct index *x = t->x;
    if (atomic_load(&x->adopted))
        return 0;
    int rc = put_suspects(t, atomic_load(&x->suspect_from), atomic_load(&x->suspect_to), true);
    if (rc == 0)
        atomic_store(&x->adopted, true);
    return rc;
}

bool index_has_suspects(const struct index *x)
{
    return atomic_load_explicit(&x->suspect_to, memory_order_relaxed) != 0 ||
           atomic_load_explicit(&x->adopted, memory_order_relaxed);
}

int index_no_suspects(struct index *x)
{
    struct itxn t;
    int rc = itxn_write(x, &t);
    if (rc == 0)
        rc = put_suspects(&t, 0, 0, false);
    if (rc == 0)
        rc = itxn_commit(&t);
    else
        itxn_end(&t);
    if (rc == 0) {
        atomic_store(&x->suspect_to, 0);
        atomic_store(&x->adopted, false);
    }
    return rc;
}

/* One record of the pool on the way of counting. */
static int recount_one(struct itxn *t, struct db_cursor *c, struct span key, struct span value,
                       struct sums *sums, uint64_t *dropped)
{
    struct pool_entry e;
    struct fields f;
    struct span full;
    struct digest d;
    if (!key_split_digest(key, &d) || !record_open(TABLE_POOL, key, value, &f, &full) ||
        !record_object(&f, &e)) {
        ++*dropped;
        return db_del_here(c);
    }
    struct key k;
    key_of_lru(&k, e.o.kind, e.o.access_ms, &d);
    sums->objects++;
    sums->bytes += e.o.size;
    return itxn_put(t, &k, NULL);
}

int index_recount(struct index *x)
{
    struct sums sums = {.at_ms = clock_wall_ms()};
    struct db_cursor *c = NULL;
    struct span key, value;
    uint64_t dropped = 0;
    struct itxn t;
    int rc = itxn_write(x, &t);
    if (rc != 0)
        return rc;
    rc = db_drop(t.t, x->tables[TABLE_LRU], false);
    if (rc == 0)
        rc = db_cursor_open(t.t, x->tables[TABLE_POOL], &c);
    if (rc == 0)
        rc = db_seek(c, span_of("", 0), &key, &value);
    while (rc == 0) {
        rc = recount_one(&t, c, key, value, &sums, &dropped);
        if (rc == 0)
            rc = db_next(c, &key, &value);
    }
    db_cursor_close(c);
    if (rc == DB_NOTFOUND)
        rc = put_sums(&t, &sums);
    if (rc != 0) {
        itxn_end(&t);
        return rc;
    }
    uint64_t objects = sums.objects - atomic_load(&x->objects), bytes = sums.bytes - atomic_load(&x->bytes);
    atomic_fetch_add(&x->objects, objects);
    atomic_fetch_add(&x->bytes, bytes);
    atomic_store(&x->recount, false);
    rc = db_commit(t.t);
    if (rc != 0) {
        atomic_fetch_sub(&x->objects, objects);
        atomic_fetch_sub(&x->bytes, bytes);
        atomic_store(&x->recount, true);
    }
    atomic_fetch_add_explicit(&x->commits, 1, memory_order_release);
    leave_gate(&t);
    if (rc != 0)
        return rc;
    log_info("store", "counted the objects anew", LOG_U("objects", sums.objects), LOG_U("bytes", sums.bytes),
             LOG_U("damaged_records", dropped));
    return 0;
}

/* ---- opening ---- */

static int fail(const struct store *s, struct str *why, const char *what, int rc)
{
    str_addf(why, "cannot %s the index %s/index: %s", what, s->path, db_words(rc));
    return ERR_STORE;
}

/* What cannot be read goes to quarantine/, nothing is thrown away. */
static int set_aside(struct store *s, const char *reason, struct str *why)
{
    char name[STORE_NAME_MAX];
    struct str n = STR_INIT(name);
    str_addf(&n, "index-%lld.mdb", (long long)clock_wall_ms());
    int error = store_move(s, STORE_DIR_INDEX, "data.mdb", STORE_DIR_QUARANTINE, name);
    if (error != 0)
        return store_fail(s, why, error, "move away the unreadable index", STORE_DIR_INDEX, "data.mdb");
    log_error("store", "the index cannot be used and is made anew from the files; it was moved away",
              LOG_S("reason", reason), LOG_S("path", s->path), LOG_S("moved_to", name));
    return 0;
}

static int open_db(struct index *x, size_t max, struct str *why)
{
    struct store *s = x->store;
    char path[PATH_MAX];
    struct str p = STR_INIT(path);
    str_addf(&p, "%s/index", s->path);
    MUST(!p.cut);
    int rc = db_open(path, max, &x->db);
    if (rc == 0)
        return 0;
    x->db = NULL;
    if (!db_is_damage(rc))
        return fail(s, why, "open", rc);
    int err = set_aside(s, db_words(rc), why);
    if (err != 0)
        return err;
    rc = db_open(path, max, &x->db);
    return rc != 0 ? fail(s, why, "open", rc) : 0;
}

enum format { FORMAT_FRESH, FORMAT_OURS, FORMAT_1, FORMAT_OTHER, FORMAT_FOREIGN, FORMAT_ERROR };

static enum format look_at_format(struct index *x, struct itxn *t, int *rc, int *number)
{
    bool fresh = false;
    struct span value = {0};
    *rc = db_is_fresh(t->t, &fresh);
    if (*rc == 0)
        *rc = db_table(t->t, "meta", fresh, &x->meta);
    if (*rc == 0 && fresh)
        return FORMAT_FRESH;
    if (*rc == 0)
        *rc = db_get(t->t, x->meta, SPAN("format"), &value);
    if (*rc == DB_NOTFOUND || (*rc == 0 && value.n != 4))
        return FORMAT_FOREIGN;
    if (*rc != 0)
        return FORMAT_ERROR;
    *number = (int)le_load((const unsigned char *)value.p, 4);
    return *number == RECORD_FORMAT ? FORMAT_OURS : *number == 1 ? FORMAT_1 : FORMAT_OTHER;
}

static int open_tables(struct index *x, struct itxn *t)
{
    int rc = 0;
    for (enum table i = 0; i < TABLES && rc == 0; i++)
        rc = db_table(t->t, table_name(i), true, &x->tables[i]);
    return rc;
}

static int put_format(struct index *x, struct itxn *t)
{
    unsigned char format[4];
    le_store(format, RECORD_FORMAT, sizeof format);
    return db_put(t->t, x->meta, SPAN("format"), span_of((const char *)format, sizeof format));
}

/* After an unclean stop: what was stored shortly before the last change is looked at again. */
static void widen_suspects(struct index *x, struct itxn *t, const struct sums *sums)
{
    int64_t from = atomic_load(&x->suspect_from), to = atomic_load(&x->suspect_to);
    if (sums->objects == 0 && to == 0)
        return;
    if (to == 0 || sums->at_ms - SUSPECT_MS < from)
        from = sums->at_ms - SUSPECT_MS;
    if (sums->at_ms > to)
        to = sums->at_ms;
    atomic_store(&x->suspect_from, from);
    atomic_store(&x->suspect_to, to);
    int rc = put_suspects(t, from, to, atomic_load(&x->adopted));
    if (rc != 0)
        log_warn("store", "cannot write down which objects are to be verified", LOG_S("error", db_words(rc)));
}

static void load_meta(struct index *x, struct itxn *t)
{
    struct sums sums = {0};
    unsigned char v[17];
    if (!get_sums(t, &sums))
        atomic_store(&x->recount, true);
    atomic_store(&x->objects, sums.objects);
    atomic_store(&x->bytes, sums.bytes);
    if (meta_get(t, "suspects", v, sizeof v)) {
        atomic_store(&x->suspect_from, (int64_t)le_load(v, 8));
        atomic_store(&x->suspect_to, (int64_t)le_load(v + 8, 8));
        atomic_store(&x->adopted, v[16] != 0);
    }
    if (x->store->unclean)
        widen_suspects(x, t, &sums);
}

/* *format says what was there. */
static int open_format(struct index *x, enum format *format, struct str *why)
{
    struct store *s = x->store;
    struct itxn t = {.x = x}; /* whoever opens is alone */
    int number = 0, rc = db_begin(x->db, true, &t.t);
    if (rc != 0)
        return fail(s, why, "read", rc);
    *format = look_at_format(x, &t, &rc, &number);
    if (*format == FORMAT_ERROR || *format == FORMAT_OTHER || *format == FORMAT_FOREIGN) {
        itxn_end(&t);
        if (*format == FORMAT_ERROR)
            return fail(s, why, "read", rc);
        if (*format == FORMAT_OTHER) {
            str_addf(why, "it has format %d, this larder reads format %d", number, RECORD_FORMAT);
            return 0;
        }
        str_addf(why,
                 "%s/index is an LMDB database that larder did not make; set store.path to another folder",
                 s->path);
        return ERR_STORE;
    }
    rc = open_tables(x, &t);
    if (rc == 0 && *format == FORMAT_1)
        rc = migrate_from_1(&t);
    if (rc == 0 && *format != FORMAT_OURS)
        rc = put_format(x, &t);
    if (rc == 0 && *format == FORMAT_FRESH)
        rc = put_sums(&t, &(struct sums){.at_ms = clock_wall_ms()});
    if (rc != 0) {
        itxn_end(&t);
        return fail(s, why, *format == FORMAT_1 ? "bring to the present format" : "write", rc);
    }
    load_meta(x, &t);
    struct db_txn *txn = t.t;
    rc = db_commit(txn);
    return rc != 0 ? fail(s, why, "write", rc) : 0;
}

static void index_free(struct index *x)
{
    struct list_node *n;
    while ((n = list_pop_front(&x->left)) != NULL)
        mem_free(CONTAINER_OF(n, struct touches, node));
    db_close(x->db);
    pthread_cond_destroy(&x->wake);
    pthread_mutex_destroy(&x->lock);
    pthread_mutex_destroy(&x->readers_lock);
    pthread_rwlock_destroy(&x->gate);
    mem_free(x);
}

static int open_once(struct index *x, size_t max, enum format *format, struct str *why)
{
    int err = open_db(x, max, why);
    return err != 0 ? err : open_format(x, format, why);
}

static void close_db(struct index *x)
{
    db_close(x->db);
    x->db = NULL;
}

/* *format is what was there at first. */
static int open_any(struct index *x, size_t max, enum format *format, struct str *why)
{
    int err = open_once(x, max, format, why);
    if (err != 0 || *format != FORMAT_OTHER)
        return err;
    close_db(x);
    char reason[128];
    struct str r = STR_INIT(reason);
    str_add(&r, str_span(why));
    str_reset(why);
    err = set_aside(x->store, reason, why);
    return err != 0 ? err : open_once(x, max, format, why);
}

static int open_all(struct index *x, size_t max, struct str *why)
{
    struct store *s = x->store;
    enum format format;
    int err = open_any(x, max, &format, why);
    if (err != 0)
        return err;
    int dead = db_clear_readers(x->db);
    if (dead > 0)
        log_info("store", "cleared readers of an earlier run from the index", LOG_I("readers", dead));
    bool large = format != FORMAT_OURS || atomic_load(&x->recount);
    if (atomic_load(&x->recount)) {
        int rc = index_recount(x);
        if (rc != 0)
            return fail(s, why, "count the objects of", rc);
    }
    s->index = x; /* for adopt_files */
    if (format == FORMAT_FRESH && adopt_files(s, NULL) < 0) {
        str_addf(why, "cannot make the index %s/index anew from the files", s->path);
        return ERR_STORE;
    }
    if (!large)
        return 0;
    /* LMDB keeps the memory that a large transaction took for the next one; closed, it gives it back. */
    close_db(x);
    return open_once(x, max, &format, why);
}

bool index_reopen(struct index *x)
{
    char text[1024] = "";
    struct str why = STR_INIT(text);
    enum format format;
    pthread_rwlock_wrlock(&x->gate);
    pthread_mutex_lock(&x->readers_lock);
    LIST_FOREACH (n, &x->reader_list) {
        struct store_reader *r = CONTAINER_OF(n, struct store_reader, node);
        pthread_mutex_lock(&r->use_lock);
        db_end(r->txn);
        r->txn = NULL;
    }
    close_db(x);
    bool open = open_once(x, x->max, &format, &why) == 0 && format == FORMAT_OURS;
    if (!open)
        close_db(x);
    atomic_store(&x->broken, !open);
    atomic_fetch_add_explicit(&x->commits, 1, memory_order_release); /* it may have come back with less */
    LIST_FOREACH (n, &x->reader_list)
        pthread_mutex_unlock(&CONTAINER_OF(n, struct store_reader, node)->use_lock);
    pthread_mutex_unlock(&x->readers_lock);
    pthread_rwlock_unlock(&x->gate);
    if (open)
        log_info("store", "the index was opened again", LOG_S("path", x->store->path));
    else
        log_error("store", "the index cannot be opened again; it will be tried later", LOG_S("why", text));
    return open;
}

struct index *index_open(struct store *s, size_t index_max, struct str *why)
{
    struct index *x;
    NEW(x);
    x->store = s;
    x->max = index_max;
    pthread_rwlock_init(&x->gate, NULL);
    pthread_mutex_init(&x->lock, NULL);
    pthread_mutex_init(&x->readers_lock, NULL);
    pthread_cond_init(&x->wake, NULL);
    list_init(&x->queue);
    list_init(&x->reader_list);
    list_init(&x->left);
    int err = open_all(x, index_max, why);
    int error = err == 0 ? store_thread(&x->writer, write_changes, x) : 0;
    if (error != 0)
        str_addf(why, "cannot start the thread that writes the index %s/index: %s", s->path,
                 store_errno_words(error));
    if (err != 0 || error != 0) {
        s->index = NULL;
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
    int rc = index_flush_touches(x);
    if (rc != 0)
        log_warn("store", "cannot write down what was asked for", LOG_S("error", db_words(rc)));
    index_free(x);
}
