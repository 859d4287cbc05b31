/* See ahead.h. A look takes the first and the last page of some bytes for all of them: the kernel brings and drops them in order. */
#include "http/ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#define WARM_WINDOW  (1u << 20) /* bytes that one look covers while nothing was cold */
#define SEEN_WARM_MS 100        /* a file that was all in memory so lately is not looked at again */
#define AHEAD_JOB    (1u << 20) /* bytes that one job reads */
#define AHEAD_DEPTH  (4u << 20)

void ahead_init(struct ahead *a, struct core *core, void (*ready)(struct ahead *a))
{
    *a = (struct ahead){.ready = ready, .core = core, .fd = -1};
}

/* One byte at `off`: is its page in memory? Errors count as yes: sendfile will tell. */
static bool page_in_memory(int fd, off_t off)
{
    char byte;
    struct iovec v = {&byte, 1};
    return preadv2(fd, &v, 1, off, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

/* Of a small window its last page stands for all. */
static bool in_memory(int fd, off_t off, off_t end)
{
    return page_in_memory(fd, end - 1) && (end - off <= 16384 || page_in_memory(fd, off));
}

static void on_work(struct job *j)
{
    struct ahead *a = CONTAINER_OF(j, struct ahead, job);
    char buf[65536];
    uint64_t done = 0;
    while (done < a->job_len) {
        size_t want = a->job_len - done < sizeof buf ? (size_t)(a->job_len - done) : sizeof buf;
        ssize_t n = pread(a->fd, buf, want, a->job_off + (off_t)done);
        if (n <= 0)
            return; /* sendfile meets the same error and ends the answer */
        done += (uint64_t)n;
    }
}

static void on_done(struct job *j)
{
    struct ahead *a = CONTAINER_OF(j, struct ahead, job);
    a->running = false;
    if (!a->awaited)
        return;
    a->awaited = false;
    a->from = a->job_off;
    a->to = a->job_off + (off_t)(a->job_len < AHEAD_TURN ? a->job_len : AHEAD_TURN);
    a->ready(a);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void start(struct ahead *a, off_t off, off_t end)
{
    a->job_off = off;
    a->job_len = least((uint64_t)(end - off), AHEAD_JOB);
    a->next = off + (off_t)a->job_len;
    a->cold = a->running = true;
    COUNT(core_counters(a->core), cold_windows, 1);
    job_start(a->core, &a->job, on_work, on_done);
}

/* Keeps a job in front of the sender. */
static void stay_ahead(struct ahead *a, off_t off, off_t end)
{
    if (a->cold && !a->running && a->next < end && a->next - off < AHEAD_DEPTH)
        start(a, a->next, end);
}

/* How many bytes the next look may cover; 0: none, since no job has read them. */
static uint64_t window_of(const struct ahead *a, const struct body_piece *piece)
{
    if (!a->cold)
        return least(piece->len, WARM_WINDOW);
    off_t read = a->running ? a->job_off : a->next;
    return read > piece->off ? least(least(piece->len, AHEAD_TURN), (uint64_t)(read - piece->off)) : 0;
}

static bool look(struct ahead *a, const struct body_piece *piece)
{
    uint64_t window = window_of(a, piece);
    int64_t *seen = window == piece->len ? piece->seen_warm_ms : NULL;
    int64_t now = seen != NULL ? core_now(a->core) : 0;
    bool lately = seen != NULL && *seen != 0 && now - *seen < SEEN_WARM_MS;
    off_t end = piece->off + (off_t)window;
    if (!lately && (window == 0 || !in_memory(a->fd, piece->off, end)))
        return false;
    if (seen != NULL && !lately)
        *seen = now;
    a->from = piece->off;
    a->to = end;
    return true;
}

uint64_t ahead_look(struct ahead *a, const struct body_piece *piece)
{
    off_t off = piece->off, end = off + (off_t)piece->len;
    if (piece->fd != a->fd) {
        if (!ahead_idle(a))
            return 0;
        a->fd = piece->fd;
        a->from = a->to = 0;
        a->cold = false;
    }
    if ((off < a->from || off >= a->to) && !look(a, piece)) {
        if (!a->running)
            start(a, off, end);
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
