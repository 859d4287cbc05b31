/* See cold.h. */
#include "http/cold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/mem.h"

#define WARM_WINDOW  (1u << 20) /* bytes that one look covers at most */
#define SEEN_WARM_MS 100        /* a file that was all in memory so lately is not looked at again */
#define LOOK_MS      20         /* what was seen longer ago may be gone: slow clients come back to it late */
#define PORTION_MIN  (16u << 10)
#define REACH_MAX    (1u << 20) /* bytes that are read in front of a job */
#define COLD_MS      1000       /* so long after something was not in memory nothing is believed to be */

/* cachestat(2), since Linux 6.5; not in this C library. */
#define CACHESTAT 451

/* When (core_now) something was not in memory, on any core. */
static _Atomic int64_t missed_ms = -COLD_MS;

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void cold_pool_init(struct cold_pool *p, struct core *core)
{
    *p = (struct cold_pool){.core = core};
    list_init(&p->filled);
    list_init(&p->queue);
}

void cold_init(struct cold *c, struct cold_pool *pool, void (*ready)(struct cold *c))
{
    *c = (struct cold){.pool = pool, .ready = ready, .fd = -1};
}

/* ---- what is in memory ---- */

enum cached { SOME_MISSING, ALL_CACHED, UNKNOWN };

/* There is no cachestat, or it knows no page of this file system. And: it has known one. */
static atomic_bool unknown, known;

/* Are the pages with these bytes there, or on their way? */
static enum cached pages_cached(int fd, off_t off, off_t end)
{
    struct {
        uint64_t off, len;
    } range = {(uint64_t)off, (uint64_t)(end - off)};
    struct {
        uint64_t cache, dirty, writeback, evicted, recently_evicted;
    } found;
    if (off >= end)
        return ALL_CACHED;
    if (atomic_load_explicit(&unknown, memory_order_relaxed))
        return UNKNOWN;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t pages = (uint64_t)(end - 1) / page - (uint64_t)off / page + 1;
    if (syscall(CACHESTAT, fd, &range, &found, 0U) != 0) {
        atomic_store_explicit(&unknown, true, memory_order_relaxed);
        return UNKNOWN;
    }
    if (found.cache > 0 && !atomic_load_explicit(&known, memory_order_relaxed))
        atomic_store_explicit(&known, true, memory_order_relaxed);
    return found.cache >= pages ? ALL_CACHED : SOME_MISSING;
}

/* One byte at `off`: has its page been read? Errors count as yes: sendfile will tell. */
static bool page_ready(int fd, off_t off)
{
    char byte;
    struct iovec v = {&byte, 1};
    return preadv2(fd, &v, 1, off, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

/* RWF_NOWAIT does not wait for a page that is missing, but has the kernel begin to read ahead there, and look for memory to do it in.
 * So pages are counted first. The ends stand for all (of a small window the last). */
static bool in_memory(int fd, off_t off, off_t end)
{
    return pages_cached(fd, off, end) != SOME_MISSING && page_ready(fd, end - 1) &&
           (end - off <= 16384 || page_ready(fd, off));
}

/* How many bytes a look at them should cover. Who could not send all of what was seen while that was good has twice of what it sent looked
 * at: of a thousand slow clients each would have a MiB counted for every few KiB. */
static uint64_t warm_window(const struct cold *c, const struct body_piece *piece)
{
    if (piece->len <= WARM_WINDOW || piece->off < c->from || piece->off >= c->to)
        return least(piece->len, WARM_WINDOW);
    uint64_t twice = 2 * (uint64_t)(piece->off - c->from);
    return twice < COLD_BUF ? COLD_BUF : least(twice, WARM_WINDOW);
}

/* The piece of a warm file is cut to what is in memory. False: its first bytes are not. */
static bool look_warm(struct cold *c, struct body_piece *piece)
{
    int64_t now = core_now(c->pool->core);
    off_t off = piece->off;
    if (off < c->from || off >= c->to || now - c->seen_ms > LOOK_MS) {
        uint64_t window = warm_window(c, piece);
        int64_t *warm = window == piece->len ? piece->seen_warm_ms : NULL;
        bool lately = warm != NULL && *warm != 0 && now - *warm < SEEN_WARM_MS;
        if (!lately && !in_memory(c->fd, off, off + (off_t)window))
            return false;
        if (warm != NULL && !lately)
            *warm = now;
        c->from = off;
        c->to = off + (off_t)window;
        c->seen_ms = now;
    }
    piece->len = least(piece->len, (uint64_t)(c->to - off));
    return true;
}

/* ---- jobs ---- */

/* Has the kernel begin with what comes after this job's bytes, as far as it was not asked for it before; true: not all was in memory. Where
 * bytes that it was asked for are not there any more (`missing`), memory is scarce, and what is read early is read twice. */
static bool read_early(struct cold *c, bool missing)
{
    bool dropped = c->from < c->asked && missing;
    c->reach = dropped ? 0 : least(2 * c->reach + COLD_BUF, REACH_MAX);
    off_t next = c->to + (off_t)least(c->reach, (uint64_t)(c->end - c->to));
    off_t from = c->asked > c->to && c->asked <= next ? c->asked : c->to;
    enum cached cached = pages_cached(c->fd, from, next);
    c->asked = next;
    if (cached != ALL_CACHED)
        (void)posix_fadvise(c->fd, from, next - from, POSIX_FADV_WILLNEED);
    return cached == SOME_MISSING;
}

/* How many bytes were there without a wait for the disk. *told: that can be told. */
static size_t read_at_once(const struct cold *c, size_t n, bool *told)
{
    size_t done = 0;
    ssize_t got = 1;
    while (done < n && got > 0) {
        struct iovec v = {c->buf + done, n - done};
        got = preadv2(c->fd, &v, 1, c->from + (off_t)done, RWF_NOWAIT);
        done += got > 0 ? (size_t)got : 0;
    }
    *told = got >= 0 || errno == EAGAIN;
    return done;
}

static size_t read_rest(const struct cold *c, size_t done, size_t n)
{
    ssize_t got = 1;
    while (done < n && got > 0) {
        got = pread(c->fd, c->buf + done, n - done, c->from + (off_t)done);
        done += got > 0 ? (size_t)got : 0;
    }
    return done;
}

static void on_work(struct job *j)
{
    struct cold *c = CONTAINER_OF(j, struct cold, job);
    size_t n = (size_t)(c->to - c->from);
    bool missing = pages_cached(c->fd, c->from, c->to) == SOME_MISSING;
    bool early = read_early(c, missing);
    bool told;
    size_t done = read_at_once(c, n, &told);
    c->missed = early || (told && done < n);
    done = read_rest(c, done, n);
    c->to = c->from + (off_t)done;
    c->failed = done == 0;
    /* Some file systems have their files' pages elsewhere: it has been read, and no page is there. */
    if (missing && done == n && !atomic_load_explicit(&known, memory_order_relaxed) &&
        pages_cached(c->fd, c->from, c->to) == SOME_MISSING) /* still */
        atomic_store_explicit(&unknown, true, memory_order_relaxed);
}

static void serve_queue(struct cold_pool *p);

static void on_done(struct job *j)
{
    struct cold *c = CONTAINER_OF(j, struct cold, job);
    struct cold_pool *p = c->pool;
    c->state = COLD_FILLED;
    list_push_back(&p->filled, &c->node);
    if (c->missed)
        atomic_store_explicit(&missed_ms, core_now(p->core), memory_order_relaxed);
    c->ready(c);
    serve_queue(p);
}

static void start(struct cold *c)
{
    c->state = COLD_READING;
    COUNT(core_counters(c->pool->core), cold_windows, 1);
    job_start(c->pool->core, &c->job, on_work, on_done);
}

/* ---- buffers ---- */

/* It is EMPTY then, and still knows what was in the buffer. */
static char *take_from(struct cold *c)
{
    char *buf = c->buf;
    list_remove(&c->node);
    c->buf = NULL;
    c->state = COLD_EMPTY;
    return buf;
}

/* Whose buffer was filled the longest ago has had its time to send it. */
static void serve_queue(struct cold_pool *p)
{
    while (!list_empty(&p->queue) && !list_empty(&p->filled)) {
        struct cold *c = CONTAINER_OF(list_pop_front(&p->queue), struct cold, node);
        c->buf = take_from(CONTAINER_OF(list_first(&p->filled), struct cold, node));
        start(c);
    }
}

/* A buffer that nobody holds goes to whoever waits for one. */
static void give_back(struct cold_pool *p, char *buf)
{
    struct list_node *n = list_pop_front(&p->queue);
    if (n == NULL) {
        mem_free(buf);
        p->n--;
        return;
    }
    struct cold *c = CONTAINER_OF(n, struct cold, node);
    c->buf = buf;
    start(c);
}

/* How much a job should read: twice of what the client took of the buffer before, while it had it. */
static uint64_t portion(const struct cold *c, off_t off)
{
    if (c->state == COLD_WARM || off < c->from || off > c->to)
        return COLD_BUF;
    uint64_t twice = 2 * (uint64_t)(off - c->from);
    return twice < PORTION_MIN ? PORTION_MIN : least(twice, COLD_BUF);
}

/* The next bytes of a cold file. Who has a buffer goes on with it, but behind those that wait. */
static void read_next(struct cold *c, const struct body_piece *piece)
{
    struct cold_pool *p = c->pool;
    uint64_t n = least(piece->len, portion(c, piece->off));
    char *buf = c->state == COLD_FILLED ? take_from(c) : NULL;
    c->from = piece->off;
    c->to = c->from + (off_t)n;
    c->end = c->from + (off_t)piece->len;
    c->state = COLD_QUEUED;
    list_push_back(&p->queue, &c->node);
    if (buf != NULL) {
        give_back(p, buf);
    } else if (p->n < COLD_BUFS) {
        p->n++;
        give_back(p, mem_alloc(COLD_BUF));
    } else {
        serve_queue(p);
    }
}

/* ---- the sender's side ---- */

static void warm_again(struct cold *c)
{
    if (c->buf != NULL)
        give_back(c->pool, take_from(c));
    c->state = COLD_WARM;
    c->from = c->to = c->asked = 0;
    c->reach = 0;
    c->failed = false;
}

static bool all_warm(const struct cold *c)
{
    return core_now(c->pool->core) - atomic_load_explicit(&missed_ms, memory_order_relaxed) >= COLD_MS;
}

enum cold_verdict cold_look(struct cold *c, struct body_piece *piece)
{
    MUST(!cold_waits(c) && piece->mem == NULL && piece->len > 0);
    if (piece->fd != c->fd) {
        warm_again(c);
        c->fd = piece->fd;
    }
    if (c->state == COLD_FILLED && piece->off >= c->from && piece->off < c->to) {
        piece->mem = c->buf + (piece->off - c->from);
        piece->len = least(piece->len, (uint64_t)(c->to - piece->off));
        return COLD_GO;
    }
    if (c->failed)
        return COLD_FAIL;
    if (all_warm(c)) {
        if (c->state != COLD_WARM)
            warm_again(c);
        if (look_warm(c, piece))
            return COLD_GO;
    }
    read_next(c, piece);
    return COLD_WAIT;
}

bool cold_leave(struct cold *c)
{
    if (c->state == COLD_READING)
        return false;
    if (c->state == COLD_QUEUED)
        list_remove(&c->node);
    warm_again(c);
    c->fd = -1;
    return true;
}
