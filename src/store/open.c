/* Open objects of one core.
 *
 *     OPENING   its job runs; waiters may be listed
 *     IDLE      open, nobody has it; in o->idle, least recently used first
 *     USED      open, taken `users` times
 *     CLOSING   the file was removed meanwhile, so that closing frees its blocks on disk: a job does that
 *
 *     OPENING -> USED (delivery, by opened) -> IDLE (last open_put) -> USED ...
 *     OPENING -> freed (it could not be opened), IDLE -> CLOSING -> freed
 *
 * An entry holds its digest (hold.c) from beginning to end, and says so while it is USED: then it is not evicted.
 *
 * Besides, an entry is in the map or detached: detached ones are no longer found, and end with the last user or with
 * their job. An entry is detached when its file is not what is asked for any more (replaced, another size, not yet
 * verified), and when it is evicted.
 *
 * Invariants: IDLE entries are in the map. Entries in the map have distinct digests. `files` counts the entries that have a
 * descriptor, `bytes` what they keep in memory. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "store/open.h"
#include "store/store_int.h"

enum entry_state { ENTRY_OPENING, ENTRY_IDLE, ENTRY_USED, ENTRY_CLOSING };

/* What the job found. */
enum found {
    FOUND_OBJECT,
    FOUND_NOTHING,
    FOUND_DAMAGED,
    FOUND_NO_DESCRIPTOR,
    FOUND_NO_MEMORY,
    FOUND_STOPPED
};

#define ENTRY_MAGIC 0x570e0003u

struct entry {
    unsigned magic;
    struct open_object object;
    struct open_set *set;
    enum entry_state state;
    bool mapped;
    enum open_how how;
    struct content_sum sum; /* as the index says */
    int64_t stored_ms;
    bool suspect; /* the index was not sure: verified before the file is opened */
    struct store_hold *hold;
    bool retried; /* the job runs again after descriptors were given back */
    unsigned users;
    int64_t looked_ms; /* core_now of the last look */
    struct list_node idle;
    struct list waiters;
    struct job job;
    enum found found;
    int error; /* errno of the job, for the log */
};

#define SET_MAGIC 0x570e0004u

#define LOOK_AGAIN_MS 1000

struct open_set {
    unsigned magic;
    struct core *core;
    struct store *store;
    unsigned max_files;
    struct map map;
    struct list idle;
    unsigned files;        /* entries with a descriptor */
    unsigned used;         /* entries USED */
    unsigned jobs;         /* entries OPENING or CLOSING */
    uint64_t bytes;        /* of content in memory */
    struct store_set told; /* about what was removed from the pool */
    bool dead;             /* freed when that message has come */
    atomic_bool stop;      /* jobs that read a whole object for whoever waits end */
};

/* ---- the job: on a thread of the pool ---- */

static enum found found_of(int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
        return FOUND_NO_DESCRIPTOR;
    case ENOMEM:
        return FOUND_NO_MEMORY;
    case ENOENT:
        return FOUND_NOTHING;
    default:
        return FOUND_DAMAGED;
    }
}

static bool sum_is_right(const struct entry *e, const char *content)
{
    struct content_sum is;
    content_sum_of(span_of(content, (size_t)e->object.size), &is);
    return content_sum_eq(&is, &e->sum);
}

/* Reads the whole file, and compares. A small one stays in memory. */
static enum found verify_content(struct entry *e, int fd)
{
    uint64_t size = e->object.size;
    bool small = size <= OPEN_INLINE_MAX;
    size_t cap = small ? (size_t)size : OPEN_INLINE_MAX;
    char *buf = mem_alloc(cap > 0 ? cap : 1);
    bool by_sum = small && e->how == OPEN_HELD && e->sum.known;
    struct hasher h;
    hasher_init(&h, e->object.digest.alg);
    uint64_t off = 0;
    while (off < size) {
        uint64_t left = size - off;
        ssize_t n = pread(fd, small ? buf + off : buf, left < cap ? (size_t)left : cap, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            e->error = n < 0 ? errno : 0;
            mem_free(buf);
            return n < 0 && errno == ENOMEM ? FOUND_NO_MEMORY : FOUND_DAMAGED;
        }
        if (!by_sum)
            hasher_update(&h, small ? buf + off : buf, (size_t)n);
        off += (uint64_t)n;
    }
    struct digest is;
    hasher_finish(&h, &is);
    bool right = by_sum ? sum_is_right(e, buf) : digest_eq(&is, &e->object.digest);
    if (right && small)
        e->object.bytes = buf;
    else
        mem_free(buf);
    return right ? FOUND_OBJECT : FOUND_DAMAGED;
}

/* Reads all of it first. True: good. */
static bool prove(struct entry *e)
{
    switch (store_verify(e->set->store, &e->object.digest, false, &e->set->stop)) {
    case VERIFY_GOOD:
        return true;
    case VERIFY_FAILED:
        e->found = FOUND_STOPPED;
        if (atomic_load_explicit(&e->set->stop, memory_order_relaxed))
            break;
        e->error = EMFILE;
        e->found = FOUND_NO_DESCRIPTOR;
        break;
    case VERIFY_MISSING:
    case VERIFY_UNKNOWN:
        e->found = FOUND_NOTHING;
        break;
    case VERIFY_DAMAGED:
        e->found = FOUND_DAMAGED;
        break;
    }
    return false;
}

/* An object is not written to any more when the index gets its entry: whoever did that behind our back left his time. (A clock that was set
 * back looks alike, and costs a reading.) */
static bool written_since(const struct entry *e, const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000 > e->stored_ms;
}

static void open_work(struct job *j)
{
    struct entry *e = CONTAINER_OF(j, struct entry, job);
    struct store *s = e->set->store;
    char name[STORE_NAME_MAX];
    store_blob_name(&e->object.digest, name);
    e->error = 0;
    if (e->suspect && !prove(e))
        return;
    /* O_NONBLOCK: a pipe that has the name of an object must not hold the thread. */
    int fd = openat(s->dirs[store_blobs_dir(&e->object.digest)], name,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        e->error = errno;
        e->found = found_of(e->error);
        return;
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != e->object.size)
        e->found = FOUND_DAMAGED;
    else if (e->how != OPEN_FILE)
        e->found = verify_content(e, fd);
    else if (e->suspect || !written_since(e, &st) || prove(e))
        e->found = FOUND_OBJECT;
    if (e->found != FOUND_OBJECT) {
        close(fd);
        return;
    }
    e->object.fd = fd;
}

static void close_work(struct job *j)
{
    struct entry *e = CONTAINER_OF(j, struct entry, job);
    close(e->object.fd);
}

/* ---- entries ---- */

static struct entry *entry_of(struct open_object *object)
{
    struct entry *e = CONTAINER_OF(object, struct entry, object);
    CHECK_MAGIC(e, ENTRY_MAGIC);
    return e;
}

static void entry_free(struct entry *e)
{
    MUST(!e->mapped && e->users == 0 && list_empty(&e->waiters));
    store_release(e->set->store, e->hold);
    e->magic = 0;
    mem_free(e);
}

static void drop_bytes(struct entry *e)
{
    if (e->object.bytes == NULL)
        return;
    e->set->bytes -= e->object.size;
    mem_free((void *)(uintptr_t)e->object.bytes);
    e->object.bytes = NULL;
}

static void closed(struct job *j)
{
    struct entry *e = CONTAINER_OF(j, struct entry, job);
    e->set->jobs--;
    entry_free(e);
}

/* Open, detached and without users: its end. */
static void entry_close(struct entry *e)
{
    MUST(!e->mapped && e->users == 0 && e->object.fd >= 0);
    struct open_set *o = e->set;
    drop_bytes(e);
    o->files--;
    struct stat st;
    if (fstat(e->object.fd, &st) == 0 && st.st_nlink == 0) {
        e->state = ENTRY_CLOSING;
        o->jobs++;
        job_start(o->core, &e->job, close_work, closed);
        return;
    }
    close(e->object.fd);
    entry_free(e);
}

/* Not found any more. An idle one ends at once. */
static void entry_detach(struct entry *e)
{
    if (!e->mapped)
        return;
    e->mapped = false;
    MUST(map_del(&e->set->map, digest_key(&e->object.digest)) == e);
    if (e->state != ENTRY_IDLE)
        return;
    list_remove(&e->idle);
    entry_close(e);
}

/* Evicts idle entries until the bounds are kept, or none is left. */
static void keep_bounds(struct open_set *o, unsigned max_files)
{
    struct list_node *n;
    while ((o->files > max_files || o->bytes > OPEN_INLINE_TOTAL) && (n = list_first(&o->idle)) != NULL)
        entry_detach(CONTAINER_OF(n, struct entry, idle));
}

static void entry_take(struct entry *e)
{
    if (e->state == ENTRY_IDLE)
        list_remove(&e->idle);
    if (e->users++ == 0) {
        e->set->used++;
        hold_use(e->hold);
    }
    e->state = ENTRY_USED;
}

static void entry_release(struct entry *e)
{
    struct open_set *o = e->set;
    MUST(e->state == ENTRY_USED && e->users > 0);
    if (--e->users > 0)
        return;
    o->used--;
    hold_unuse(e->hold);
    if (!e->mapped) {
        entry_close(e);
        return;
    }
    e->state = ENTRY_IDLE;
    list_push_back(&o->idle, &e->idle);
    keep_bounds(o, o->max_files);
}

/* ---- opening ---- */

static void log_not_opened(const struct entry *e)
{
    static const char *const reasons[] = {
        [FOUND_NOTHING] = "its file is gone",
        [FOUND_DAMAGED] = "its file is damaged",
        [FOUND_NO_DESCRIPTOR] =
            "the limit of open files is reached: raise it, or lower the number of connections",
        [FOUND_NO_MEMORY] = "the system is out of memory",
        [FOUND_STOPPED] = "larder stops before all of it was read",
    };
    log_warn("store", "an object of the index cannot be opened", LOG_D("digest", &e->object.digest),
             LOG_U("size", e->object.size), LOG_S("reason", reasons[e->found]),
             LOG_S("error", e->error != 0 ? store_errno_words(e->error) : NULL));
}

/* Gives the entry, or its absence, to all who wait. Their callbacks may take, put and cancel. */
static void deliver(struct entry *e, struct open_object *object, int err)
{
    struct list waiters;
    list_init(&waiters);
    list_move_all(&waiters, &e->waiters);
    struct list_node *n;
    while ((n = list_pop_front(&waiters)) != NULL) {
        struct open_wait *w = CONTAINER_OF(n, struct open_wait, node);
        w->object = object;
        w->err = err;
        if (object != NULL)
            entry_take(e);
        w->done(w);
    }
}

static void opened(struct job *j);

static void start_opening(struct entry *e)
{
    e->state = ENTRY_OPENING;
    e->set->jobs++;
    job_start(e->set->core, &e->job, open_work, opened);
}

static void not_opened(struct entry *e)
{
    struct open_set *o = e->set;
    if (e->found == FOUND_NO_DESCRIPTOR && !e->retried) {
        e->retried = true;
        keep_bounds(o, 0);
        start_opening(e);
        return;
    }
    log_not_opened(e);
    COUNT(core_counters(o->core), store_errors, 1);
    entry_detach(e);
    deliver(e, NULL, e->found == FOUND_NOTHING || e->found == FOUND_DAMAGED ? 0 : ERR_STORE);
    entry_free(e);
}

static void opened(struct job *j)
{
    struct entry *e = CONTAINER_OF(j, struct entry, job);
    CHECK_MAGIC(e, ENTRY_MAGIC);
    struct open_set *o = e->set;
    o->jobs--;
    if (e->found != FOUND_OBJECT) {
        not_opened(e);
        return;
    }
    o->files++;
    if (e->object.bytes != NULL)
        o->bytes += e->object.size;
    entry_take(e); /* for the time of delivery */
    keep_bounds(o, o->max_files);
    if (o->bytes > OPEN_INLINE_TOTAL)
        drop_bytes(e); /* all in use: this one is served from its file */
    deliver(e, &e->object, 0);
    entry_release(e);
}

static struct entry *entry_new(struct open_set *o, const struct digest *d, const struct store_object *record,
                               enum open_how how)
{
    struct entry *e;
    NEW(e);
    e->magic = ENTRY_MAGIC;
    e->object = (struct open_object){.digest = *d, .size = record->size, .fd = -1};
    e->set = o;
    e->how = how;
    e->sum = record->sum;
    e->suspect = record->suspect;
    e->stored_ms = record->stored_ms;
    e->hold = store_hold(o->store, d);
    e->mapped = true;
    list_init(&e->waiters);
    map_put(&o->map, digest_key(&e->object.digest), e);
    return e;
}

/* An open entry as it is on disk now: OPEN_OK, OPEN_GONE, or OPEN_WAIT: another file has its name. Once a millisecond (of the
 * loop's clock) is enough; and what is held in memory is right whatever happens to the file: there, now and then. */
static enum open_result look_again(struct entry *e)
{
    struct stat st;
    int64_t now = core_now(e->set->core);
    if (now - e->looked_ms < (e->object.bytes != NULL ? LOOK_AGAIN_MS : 1))
        return OPEN_OK;
    e->looked_ms = now;
    if (fstat(e->object.fd, &st) != 0 || (uint64_t)st.st_size != e->object.size)
        return OPEN_GONE;
    return st.st_nlink > 0 ? OPEN_OK : OPEN_WAIT;
}

enum open_result open_get(struct open_set *o, const struct digest *d, const struct store_object *record,
                          enum open_how how, struct open_wait *w, struct open_object **out)
{
    core_check(o->core);
    CHECK_MAGIC(o, SET_MAGIC);
    uint64_t size = record->size;
    struct entry *e = map_get(&o->map, digest_key(d));
    if (e != NULL && (e->object.size != size || e->stored_ms != record->stored_ms || how > e->how)) {
        entry_detach(e);
        e = NULL;
    }
    if (e != NULL && e->state != ENTRY_OPENING) {
        enum open_result is = look_again(e);
        if (is == OPEN_OK) {
            entry_take(e);
            *out = &e->object;
            return OPEN_OK;
        }
        if (is == OPEN_GONE)
            log_warn("store", "an open object has another size by now", LOG_D("digest", d),
                     LOG_U("size", size));
        entry_detach(e);
        if (is == OPEN_GONE)
            return OPEN_GONE;
        e = NULL;
    }
    if (e == NULL) {
        e = entry_new(o, d, record, how);
        start_opening(e);
    }
    w->object = NULL;
    w->err = 0;
    list_push_back(&e->waiters, &w->node);
    return OPEN_WAIT;
}

void open_cancel(struct open_wait *w)
{
    list_remove(&w->node);
}

void open_put(struct open_set *o, struct open_object *object)
{
    core_check(o->core);
    struct entry *e = entry_of(object);
    MUST(e->set == o);
    entry_release(e);
}

/* ---- the set ---- */

/* Something was removed from the pool: what is only kept open is let go. What is in use goes when it is put. */
static void on_removed(struct core_msg *m)
{
    struct open_set *o = CONTAINER_OF(CONTAINER_OF(m, struct store_set, msg), struct open_set, told);
    CHECK_MAGIC(o, SET_MAGIC);
    if (o->dead) {
        o->magic = 0;
        mem_free(o);
        return;
    }
    LIST_FOREACH_SAFE (n, next, &o->idle) {
        struct entry *e = CONTAINER_OF(n, struct entry, idle);
        if (hold_gone(o->store, e->hold))
            entry_detach(e);
    }
}

struct open_set *open_set_new(struct core *c, struct store *s, unsigned max_files)
{
    struct open_set *o;
    NEW(o);
    o->magic = SET_MAGIC;
    o->core = c;
    o->store = s;
    o->max_files = max_files;
    map_init(&o->map);
    list_init(&o->idle);
    o->told.core = c;
    core_msg_init(&o->told.msg, on_removed);
    hold_add_set(s, &o->told);
    return o;
}

void open_set_stop(struct open_set *o)
{
    core_check(o->core);
    atomic_store_explicit(&o->stop, true, memory_order_relaxed);
}

bool open_set_idle(const struct open_set *o)
{
    return o->used == 0 && o->jobs == 0;
}

void open_set_free(struct open_set *o)
{
    if (o == NULL)
        return;
    CHECK_MAGIC(o, SET_MAGIC);
    MUST(open_set_idle(o));
    struct list_node *n;
    while ((n = list_pop_front(&o->idle)) != NULL) {
        struct entry *e = CONTAINER_OF(n, struct entry, idle);
        drop_bytes(e);
        close(e->object.fd);
        e->mapped = false;
        entry_free(e);
    }
    map_free(&o->map);
    hold_remove_set(o->store, &o->told);
    if (!core_msg_idle(&o->told.msg)) { /* it is on its way */
        o->dead = true;
        return;
    }
    o->magic = 0;
    mem_free(o);
}
