/* See ahead.h. */
#include "http/ahead.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#define WARM_WINDOW  (1u << 20) /* bytes that one look covers while nothing was cold */
#define SEEN_WARM_MS 100        /* a file that was all in memory so lately is not looked at again */
#define LOOK_MS      20         /* what was seen longer ago may be gone: slow clients come back to it late */
#define AHEAD_JOB    (1u << 20) /* bytes that one job reads, unless memory is scarce */
#define AHEAD_JOBS   4          /* so many jobs' bytes are kept in front */
#define IN_VAIN      32         /* jobs in a row that found all in memory: nothing is cold any more */

/* cachestat(2), since Linux 6.5; not in this C library. */
#define CACHESTAT 451

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void ahead_init(struct ahead *a, struct core *core, void (*ready)(struct ahead *a))
{
    *a = (struct ahead){.ready = ready, .core = core, .fd = -1};
}

static void seen(struct ahead *a, off_t from, off_t to)
{
    a->from = from;
    a->to = to;
    a->seen_ms = core_now(a->core);
}

static bool was_seen(const struct ahead *a, off_t off)
{
    return off >= a->from && off < a->to;
}

/* How many of the pages with these bytes are there, or on their way; UINT64_MAX: it cannot be told. */
static uint64_t pages_cached(int fd, off_t off, off_t end)
{
    static atomic_bool unknown;
    struct {
        uint64_t off, len;
    } range = {(uint64_t)off, (uint64_t)(end - off)};
    struct {
        uint64_t cache, dirty, writeback, evicted, recently_evicted;
    } pages;
    if (atomic_load_explicit(&unknown, memory_order_relaxed))
        return UINT64_MAX;
    if (syscall(CACHESTAT, fd, &range, &pages, 0U) == 0)
        return pages.cache;
    if (errno == ENOSYS)
        atomic_store_explicit(&unknown, true, memory_order_relaxed);
    return UINT64_MAX;
}

/* One byte at `off`: has its page been read? Errors count as yes: sendfile will tell. */
static bool page_ready(int fd, off_t off)
{
    char byte;
    struct iovec v = {&byte, 1};
    return preadv2(fd, &v, 1, off, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

/* All of it, at the price of a copy. */
static bool all_ready(int fd, off_t off, off_t end)
{
    char buf[65536];
    while (off < end) {
        struct iovec v = {buf, (size_t)least((uint64_t)(end - off), sizeof buf)};
        ssize_t n = preadv2(fd, &v, 1, off, RWF_NOWAIT);
        if (n <= 0)
            return n == 0 || errno != EAGAIN;
        off += n;
    }
    return true;
}

/* RWF_NOWAIT does not wait for a page that is missing, but has the kernel begin to read ahead there, and look for memory to do it in.
 * So pages are counted first. While nothing was cold the ends stand for all (of a small window the last). */
static bool in_memory(const struct ahead *a, off_t off, off_t end)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t pages = (uint64_t)(end - 1) / page - (uint64_t)off / page + 1;
    if (pages_cached(a->fd, off, end) < pages)
        return false;
    if (a->cold && !was_seen(a, off)) /* else it was ready once, and is still there */
        return all_ready(a->fd, off, end);
    return page_ready(a->fd, end - 1) && (end - off <= 16384 || page_ready(a->fd, off));
}

static void on_work(struct job *j)
{
    struct ahead *a = CONTAINER_OF(j, struct ahead, job);
    char buf[65536];
    uint64_t done = 0;
    a->job_in_vain = true;
    while (done < a->job_len) {
        struct iovec v = {buf, (size_t)least(a->job_len - done, sizeof buf)};
        off_t at = a->job_off + (off_t)done;
        ssize_t n = a->job_in_vain ? preadv2(a->fd, &v, 1, at, RWF_NOWAIT) : preadv(a->fd, &v, 1, at);
        if (n <= 0 && !a->job_in_vain)
            return; /* sendfile meets the same error and ends the answer */
        if (n <= 0)
            a->job_in_vain = false;
        else
            done += (uint64_t)n;
    }
}

static void on_done(struct job *j)
{
    struct ahead *a = CONTAINER_OF(j, struct ahead, job);
    a->running = false;
    a->in_vain = a->job_in_vain ? a->in_vain + 1 : 0;
    if (a->in_vain >= IN_VAIN)
        a->cold = false;
    if (!a->awaited)
        return;
    a->awaited = false;
    seen(a, a->job_off, a->job_off + (off_t)least(a->job_len, AHEAD_TURN));
    a->ready(a);
}

static void start(struct ahead *a, off_t off, off_t end)
{
    if (!a->cold)
        a->in_vain = 0;
    a->job_off = off;
    a->job_len = least((uint64_t)(end - off), a->reach);
    a->next = off + (off_t)a->job_len;
    a->cold = a->running = true;
    COUNT(core_counters(a->core), cold_windows, 1);
    job_start(a->core, &a->job, on_work, on_done);
}

/* What the sender cannot go on without. If a job had read it already, memory is scarce: no more than is sent at once is read then. */
static void start_at_once(struct ahead *a, off_t off, off_t end)
{
    a->reach = a->cold && off < a->next ? AHEAD_TURN : AHEAD_JOB;
    start(a, off, end);
}

/* Keeps a job in front of the sender, unless so little is left that it may be the end of a file that still grows. */
static void stay_ahead(struct ahead *a, off_t off, off_t end)
{
    if (!a->cold || a->running)
        return;
    if (a->next < a->to)
        a->next = a->to;
    if (end - a->next < AHEAD_JOB || (uint64_t)(a->next - off) >= AHEAD_JOBS * a->reach)
        return;
    a->reach = least(2 * a->reach, AHEAD_JOB);
    start(a, a->next, end);
}

/* How many bytes the next look may cover; 0: a job is reading them. */
static uint64_t window_of(const struct ahead *a, const struct body_piece *piece)
{
    if (!a->cold)
        return least(piece->len, WARM_WINDOW);
    uint64_t window = least(piece->len, AHEAD_TURN);
    if (was_seen(a, piece->off))
        window = least(window, (uint64_t)(a->to - piece->off));
    if (!a->running)
        return window;
    return piece->off < a->job_off ? least(window, (uint64_t)(a->job_off - piece->off)) : 0;
}

static bool look(struct ahead *a, const struct body_piece *piece)
{
    uint64_t window = window_of(a, piece);
    int64_t *warm = window == piece->len ? piece->seen_warm_ms : NULL;
    int64_t now = warm != NULL ? core_now(a->core) : 0;
    bool lately = warm != NULL && *warm != 0 && now - *warm < SEEN_WARM_MS;
    off_t end = piece->off + (off_t)window;
    if (!lately && (window == 0 || !in_memory(a, piece->off, end)))
        return false;
    if (warm != NULL && !lately)
        *warm = now;
    seen(a, piece->off, end);
    return true;
}

uint64_t ahead_look(struct ahead *a, const struct body_piece *piece)
{
    off_t off = piece->off, end = off + (off_t)piece->len;
    if (piece->fd != a->fd) {
        if (!ahead_idle(a))
            return 0;
        a->fd = piece->fd;
        a->from = a->to = a->next = 0;
        a->cold = false;
    }
    bool lately = was_seen(a, off) && core_now(a->core) - a->seen_ms <= LOOK_MS;
    if (!lately && !look(a, piece)) {
        if (!a->running)
            start_at_once(a, off, end);
        a->awaited = true;
        return 0;
    }
    stay_ahead(a, off, end);
    return (uint64_t)((a->to < end ? a->to : end) - off);
}

bool ahead_idle(struct ahead *a)
{
    a->awaited = a->running;
    return !a->running;
}
