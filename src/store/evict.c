/* Eviction; evict.h says what goes and what stays.
 *
 * A walk has one cursor per kind of object in the table lru, and always takes the oldest of the four heads, with their graces. It
 * remembers where it was from step to step, so what it had to skip is looked at once per walk.
 *
 * A step, under s->evict: choose victims in a snapshot (hold_claim each); forget them in one transaction; unlink; unclaim. If the
 * transaction fails nothing has happened. After a crash between the two the files are without entries (adopt.c).
 *
 * What is pinned is worked out from pins, tags and refs before each step. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"
#include "store/pinned_int.h"

#define STEP_OBJECTS 25

#define DAY_MS INT64_C(86400000)

#define HEADROOM_MAX (UINT64_C(256) << 20)

#define QUARANTINE_FILES 100
#define QUARANTINE_BYTES (UINT64_C(1) << 30)
#define QUARANTINE_AGE   (7 * DAY_MS)

static const int64_t grace_ms[STORE_KINDS] = {
    [STORE_CONFIG] = 7 * DAY_MS, [STORE_MANIFEST] = 14 * DAY_MS, [STORE_INDEX] = 21 * DAY_MS};

/* ---- limits ---- */

void store_set_limits(struct store *s, const struct store_limits *l)
{
    atomic_store(&s->max_size, l->max_size);
    atomic_store(&s->min_free, l->min_free);
    atomic_store(&s->min_free_percent, l->min_free_percent);
    atomic_store(&s->max_age_ms, l->max_age_ms);
    atomic_store(&s->partial_age_ms, l->partial_age_ms > 0 ? l->partial_age_ms : DAY_MS);
    atomic_store(&s->scrub_rate, l->scrub_rate);
    if (s->keeper != NULL)
        keeper_wake(s);
}

static uint64_t used(struct store *s)
{
    struct store_totals t;
    store_totals(s, &t);
    return t.used;
}

bool store_fits(const struct store *s, uint64_t bytes)
{
    uint64_t max = atomic_load_explicit(&s->max_size, memory_order_relaxed);
    struct statvfs v;
    if (max != 0 && bytes > max - max / 20)
        return false;
    return fstatvfs(s->root, &v) != 0 || bytes <= (uint64_t)v.f_blocks * v.f_frsize;
}

static uint64_t high_mark(uint64_t max)
{
    uint64_t room = max / 50;
    return max - (room < HEADROOM_MAX ? room : HEADROOM_MAX);
}

bool evict_is_due(struct store *s)
{
    uint64_t max = atomic_load_explicit(&s->max_size, memory_order_relaxed);
    return max != 0 && used(s) > high_mark(max);
}

static uint64_t free_wanted(const struct store *s, const struct statvfs *v)
{
    uint64_t least = atomic_load(&s->min_free);
    uint64_t part = (uint64_t)v->f_blocks * v->f_frsize / 100 * atomic_load(&s->min_free_percent);
    return least > part ? least : part;
}

uint64_t evict_room(struct store *s)
{
    uint64_t max = atomic_load_explicit(&s->max_size, memory_order_relaxed), room = UINT64_MAX;
    uint64_t stays = atomic_load_explicit(&s->pinned_bytes, memory_order_relaxed);
    struct statvfs v;
    if (max != 0)
        room = max - max / 20;
    if (fstatvfs(s->root, &v) == 0) {
        uint64_t want = free_wanted(s, &v), disk = (uint64_t)v.f_blocks * v.f_frsize;
        if (want > 0) {
            disk = used(s) + (uint64_t)v.f_bavail * v.f_frsize;
            disk = disk > want ? disk - want : 0;
        }
        room = disk < room ? disk : room;
    }
    return room > stays ? room - stays : 0;
}

/* How many bytes have to go. */
static uint64_t excess(struct store *s)
{
    uint64_t max = atomic_load(&s->max_size), now = used(s), much = 0;
    if (max != 0 && now > high_mark(max))
        much = now - (max - max / 20);
    struct statvfs v;
    if (fstatvfs(s->root, &v) != 0)
        return much;
    uint64_t want = free_wanted(s, &v), have = (uint64_t)v.f_bavail * v.f_frsize;
    if (want > have && want - have + want / 20 > much)
        much = want - have + want / 20;
    return much;
}

/* ---- files that are no objects ---- */

struct leftover {
    char name[STORE_NAME_MAX];
    uint64_t bytes;
    int64_t at_ms;
};

struct leftovers {
    struct store *store;
    enum store_dir dir;
    struct leftover *p;
    size_t n, cap;
    uint64_t bytes;
};

static bool add_leftover(const char *name, void *arg)
{
    struct leftovers *l = arg;
    struct stat st;
    size_t length = strlen(name);
    if (length >= STORE_NAME_MAX || fstatat(l->store->dirs[l->dir], name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        S_ISDIR(st.st_mode))
        return true;
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? l->cap * 2 : 64;
        l->p = mem_realloc(l->p, l->cap * sizeof *l->p);
    }
    struct leftover *f = &l->p[l->n++];
    memcpy(f->name, name, length + 1);
    f->bytes = store_taken(&st);
    f->at_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    /* Moving a file to quarantine does not change when it was written, but this. */
    if (l->dir == STORE_DIR_QUARANTINE)
        f->at_ms = (int64_t)st.st_ctim.tv_sec * 1000 + st.st_ctim.tv_nsec / 1000000;
    l->bytes += f->bytes;
    return true;
}

static int by_age(const void *a, const void *b)
{
    const struct leftover *x = a, *y = b;
    return x->at_ms < y->at_ms ? -1 : x->at_ms > y->at_ms;
}

/* The files of partial/ or quarantine/, oldest first. Free p. 0 or the errno value. */
static int list_leftovers(struct store *s, enum store_dir dir, struct leftovers *l)
{
    *l = (struct leftovers){.store = s, .dir = dir};
    int error = store_each_file(s, dir, add_leftover, l);
    if (l->n > 1)
        qsort(l->p, l->n, sizeof *l->p, by_age);
    return error;
}

static bool remove_partial(struct store *s, struct leftover *f)
{
    struct digest d;
    MUST(f != NULL);
    if (store_flat_digest(span_str(f->name), &d))
        return hold_drop_partial(s, &d, f->name, &f->bytes);
    if (unlinkat(s->dirs[STORE_DIR_PARTIAL], f->name, 0) != 0)
        return false;
    log_info("store", "removed a file from partial/ that is none of larder's", LOG_S("name", f->name));
    return true;
}

static bool remove_quarantined(struct store *s, const struct leftover *f)
{
    if (unlinkat(s->dirs[STORE_DIR_QUARANTINE], f->name, 0) != 0)
        return false;
    atomic_fetch_sub(&s->quarantined, 1);
    atomic_fetch_sub(&s->quarantined_bytes, f->bytes);
    return true;
}

int evict_count_files(struct store *s, struct str *why)
{
    static const enum store_dir dirs[] = {STORE_DIR_PARTIAL, STORE_DIR_QUARANTINE};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        struct leftovers l;
        int error = list_leftovers(s, dirs[i], &l);
        bool partial = dirs[i] == STORE_DIR_PARTIAL;
        for (size_t j = 0; j < l.n && partial; j++) {
            struct digest d;
            if (!store_flat_digest(span_str(l.p[j].name), &d) && remove_partial(s, &l.p[j])) {
                l.bytes -= l.p[j].bytes;
                memmove(l.p + j, l.p + j + 1, (l.n - j - 1) * sizeof *l.p);
                l.n--;
                j--;
            }
        }
        atomic_store(partial ? &s->partials : &s->quarantined, l.n);
        atomic_store(partial ? &s->partial_bytes : &s->quarantined_bytes, l.bytes);
        mem_free(l.p);
        if (error != 0)
            return store_fail(s, why, error, "list the folder", dirs[i], NULL);
    }
    return 0;
}

void evict_leftovers(struct store *s)
{
    struct leftovers l;
    int64_t now = clock_wall_ms(), age = atomic_load(&s->partial_age_ms);
    (void)list_leftovers(s, STORE_DIR_PARTIAL, &l);
    for (size_t i = 0; i < l.n && now - l.p[i].at_ms > age; i++)
        if (remove_partial(s, &l.p[i]))
            log_info("store", "removed a partial file that nobody continued", LOG_S("name", l.p[i].name),
                     LOG_U("bytes", l.p[i].bytes));
    mem_free(l.p);
    (void)list_leftovers(s, STORE_DIR_QUARANTINE, &l);
    size_t left = l.n;
    for (size_t i = 0; i < l.n; i++) {
        if (now - l.p[i].at_ms <= QUARANTINE_AGE && left <= QUARANTINE_FILES && l.bytes <= QUARANTINE_BYTES)
            break;
        if (!remove_quarantined(s, &l.p[i]))
            continue;
        left--;
        l.bytes -= l.p[i].bytes;
    }
    mem_free(l.p);
}

/* Until `want` bytes are freed; how many. */
static uint64_t drop_leftovers(struct store *s, enum store_dir dir, uint64_t want)
{
    struct leftovers l;
    uint64_t freed = 0;
    (void)list_leftovers(s, dir, &l);
    for (size_t i = 0; i < l.n && freed < want; i++)
        if (dir == STORE_DIR_PARTIAL ? remove_partial(s, &l.p[i]) : remove_quarantined(s, &l.p[i]))
            freed += l.p[i].bytes;
    mem_free(l.p);
    return freed;
}

/* ---- walking in the order of eviction ---- */

struct head {
    unsigned char from[8 + 1 + DIGEST_RAW_MAX]; /* where this kind goes on */
    size_t n;
    bool end;
    int64_t access_ms;
    struct digest digest;
};

struct walk {
    struct head heads[STORE_KINDS];
    uint64_t want;  /* bytes; UINT64_MAX with a cut: all that is older */
    int64_t cut_ms; /* only what was asked for before; INT64_MAX: all */
    uint64_t freed, objects;
};

struct victim {
    struct digest digest;
    uint64_t size;
    enum store_kind kind;
};

static void walk_init(struct walk *w, uint64_t want, int64_t cut_ms)
{
    *w = (struct walk){.want = want, .cut_ms = cut_ms};
    for (unsigned k = 0; k < STORE_KINDS; k++) {
        w->heads[k].from[0] = (unsigned char)k;
        w->heads[k].n = 1;
    }
}

static bool head_is(struct head *h, unsigned kind, int rc, struct span key)
{
    enum store_kind is;
    if (rc != 0 || !key_split_lru(key, &is, &h->access_ms, &h->digest) || is != kind) {
        h->end = true;
        return false;
    }
    MUST(key.n < sizeof h->from);
    memcpy(h->from, key.p, key.n);
    h->from[key.n] = 0; /* the next possible key */
    h->n = key.n + 1;
    return true;
}

/* The kind whose head goes first, or STORE_KINDS. With an age as the measure there are no graces. */
static unsigned oldest(const struct walk *w)
{
    unsigned best = STORE_KINDS;
    int64_t best_ms = INT64_MAX;
    for (unsigned k = 0; k < STORE_KINDS; k++) {
        const struct head *h = &w->heads[k];
        int64_t at = h->access_ms + (w->cut_ms == INT64_MAX ? grace_ms[k] : 0);
        if (h->end || at >= best_ms || h->access_ms >= w->cut_ms)
            continue;
        best = k;
        best_ms = at;
    }
    return best;
}

/* May it go? Then it is claimed. */
static bool claim(struct store *s, struct itxn *t, const struct pinned *pins, const struct head *h,
                  struct victim *v)
{
    struct pool_entry e;
    if (!itxn_object(t, &h->digest, &e) || pinned_has(pins, &h->digest) || !hold_claim(s, &h->digest, false))
        return false;
    *v = (struct victim){h->digest, e.o.size, e.o.kind};
    return true;
}

/* Chooses up to STEP_OBJECTS. */
static size_t choose(struct store *s, struct itxn *t, struct walk *w, const struct pinned *pins,
                     struct victim *victims)
{
    struct db_cursor *c[STORE_KINDS] = {0};
    struct span key, value;
    uint64_t bytes = 0;
    size_t n = 0;
    for (unsigned k = 0; k < STORE_KINDS; k++) {
        struct head *h = &w->heads[k];
        h->end = h->end || db_cursor_open(t->t, t->x->tables[TABLE_LRU], &c[k]) != 0;
        if (h->end)
            continue;
        struct span from = span_of((const char *)h->from, h->n);
        (void)head_is(h, k, db_seek(c[k], from, &key, &value), key);
    }
    unsigned k;
    while (n < STEP_OBJECTS && w->freed + bytes < w->want && (k = oldest(w)) < STORE_KINDS) {
        struct head *h = &w->heads[k];
        if (claim(s, t, pins, h, &victims[n]))
            bytes += victims[n++].size;
        (void)head_is(h, k, db_next(c[k], &key, &value), key);
    }
    /* The heads were looked at and not taken: the next step begins with them. */
    for (k = 0; k < STORE_KINDS; k++) {
        if (!w->heads[k].end)
            w->heads[k].n--;
        db_cursor_close(c[k]);
    }
    return n;
}

/* ---- a step ---- */

static int forget(struct store *s, const struct victim *victims, size_t n, uint64_t *tags)
{
    struct itxn t;
    uint64_t links = 0;
    int rc = itxn_write(s->index, &t);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = itxn_forget(&t, &victims[i].digest, victims[i].kind >= STORE_MANIFEST, tags, &links);
    if (rc == 0)
        return itxn_commit(&t);
    itxn_end(&t);
    return rc;
}

void evict_unlink(struct store *s, const struct digest *d)
{
    char name[STORE_NAME_MAX];
    enum store_dir dir = store_blobs_dir(d);
    store_blob_name(d, name);
    if (unlinkat(s->dirs[dir], name, 0) == 0 || errno == ENOENT)
        return;
    atomic_store(&s->strays, true);
    log_error("store", "cannot remove a file that the index has forgotten", LOG_D("digest", d),
              LOG_S("error", store_errno_words(errno)));
}

static bool is_full(const struct store *s, int rc)
{
    return rc > 0 && store_fault_of(health_of_index(s, rc)) == FAULT_FULL;
}

/* False: there is nothing (more) to evict, or the index takes no changes. Under s->evict. */
static bool step(struct store *s, struct walk *w)
{
    struct victim *victims = mem_alloc(STEP_OBJECTS * sizeof *victims);
    struct pinned pins;
    struct itxn t;
    size_t n = 0;
    int rc = itxn_read(s->index, &t);
    if (rc == 0) {
        rc = pinned_load(&pins, &t);
        if (rc == 0)
            n = choose(s, &t, w, &pins, victims);
        pinned_free(&pins);
    }
    itxn_end(&t);
    uint64_t tags = 0, bytes = 0;
    if (n > 0 && rc == 0)
        rc = forget(s, victims, n, &tags);
    if (n > 0 && is_full(s, rc)) {
        /* On a full disk the index may find no room for so much change: one by one each makes room for the next. */
        while (n > 1)
            hold_unclaim(s, &victims[--n].digest, false);
        rc = forget(s, victims, n, &tags);
        if (is_full(s, rc) && health_spend_reserve(s))
            rc = forget(s, victims, n, &tags);
    }
    for (size_t i = 0; i < n; i++) {
        if (rc == 0) {
            evict_unlink(s, &victims[i].digest);
            bytes += victims[i].size;
        }
        hold_unclaim(s, &victims[i].digest, rc == 0);
    }
    mem_free(victims);
    if (rc != 0) {
        if (rc > 0)
            (void)health_note(s, health_of_index(s, rc));
        log_error("store", "cannot evict: the index did not take the change", LOG_S("error", db_words(rc)));
        return false;
    }
    w->freed += bytes;
    w->objects += n;
    atomic_fetch_add_explicit(&s->evicted, n, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->evicted_bytes, bytes, memory_order_relaxed);
    return n > 0;
}

/* Steps, with the lock given to others in between. */
static void run(struct store *s, struct walk *w, const atomic_bool *stop)
{
    bool more = true;
    while (more && w->freed < w->want && (stop == NULL || !atomic_load(stop))) {
        pthread_mutex_lock(&s->evict);
        more = step(s, w);
        pthread_mutex_unlock(&s->evict);
    }
}

static void log_evicted(const char *why, const struct walk *w, uint64_t leftovers)
{
    if (w->objects > 0 || leftovers > 0)
        log_info("store", "made room", LOG_S("reason", why), LOG_U("objects", w->objects),
                 LOG_U("bytes", w->freed), LOG_U("bytes_of_leftovers", leftovers));
}

/* So that the order is that of now. */
static void flush_touches(struct store *s)
{
    int rc = index_flush_touches(s->index);
    if (rc != 0)
        log_warn("store", "what was asked for lately is not known when room is made",
                 LOG_S("error", db_words(rc)));
}

static uint64_t make_room(struct store *s, uint64_t want, const char *why, const atomic_bool *stop)
{
    flush_touches(s);
    uint64_t freed = drop_leftovers(s, STORE_DIR_PARTIAL, want);
    if (freed < want)
        freed += drop_leftovers(s, STORE_DIR_QUARANTINE, want - freed);
    struct walk w;
    walk_init(&w, freed < want ? want - freed : 0, INT64_MAX);
    run(s, &w, stop);
    log_evicted(why, &w, freed);
    return freed + w.freed;
}

/* Again only when the index has changed. */
static void count_pinned(struct store *s)
{
    struct pinned pins;
    struct pool_entry e;
    struct itxn t;
    const struct digest *d;
    uint64_t now = store_version(s) + 1, bytes = 0;
    size_t at = 0;
    if (s->pinned_at == now)
        return;
    int rc = itxn_read(s->index, &t);
    if (rc == 0) {
        rc = pinned_load(&pins, &t);
        while (rc == 0 && (d = digests_next(&pins.all, &at)) != NULL)
            bytes += itxn_object(&t, d, &e) ? e.o.size : 0;
        pinned_free(&pins);
    }
    itxn_end(&t);
    if (rc != 0)
        return;
    atomic_store(&s->pinned_bytes, bytes);
    s->pinned_at = now;
}

bool evict_by_limits(struct store *s, const atomic_bool *stop)
{
    count_pinned(s);
    uint64_t much = excess(s), freed = 0;
    if (much > 0)
        freed = make_room(s, much, "limit", stop);
    int64_t age = atomic_load(&s->max_age_ms);
    if (age > 0) {
        struct walk w;
        flush_touches(s);
        walk_init(&w, UINT64_MAX, clock_wall_ms() - age);
        run(s, &w, stop);
        log_evicted("age", &w, 0);
        freed += w.freed;
    }
    return freed > 0;
}

uint64_t store_relieve(struct store *s, uint64_t bytes)
{
    return make_room(s, bytes, "full", NULL);
}
