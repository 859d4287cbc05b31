/* TCP as a stream: one uv_poll per socket.
 *
 * `wanted` is what the owner asked for, `armed` what the loop watches. Every change of what is watched costs
 * two system calls in libuv, so arming is lazy: what is watched but not wanted is only taken off when it
 * actually fires. A connection that answers small requests is armed for reading once in its life.
 *
 * A closed stream leaves its owner at once; the struct goes in the loop's close callback. */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/mem.h"
#include "core/core.h"
#include "core/resolve.h"
#include "net/stream.h"

#define TCP_MAGIC 0x7c900001u

/* How much unsent data makes a socket count as full. Small, so that clients that take the same file move through it together
 * and its pages are still in the processor's cache for the next one: with 64 clients on a file of 64 MiB, 16 KiB here and
 * 128 KiB per turn send 4.1 GB/s, 256 KiB each 1.6 GB/s (bench/README.md). It does not bound what is in flight. */
#define TCP_NOTSENT (16 << 10)

struct tcp {
    struct stream base;
    unsigned magic;
    int fd;
    int error; /* errno of what broke it, 0: nothing did */
    unsigned wanted, armed;
    bool closed;
    uv_poll_t poll;
};

static struct tcp *tcp_of(struct stream *s)
{
    struct tcp *t = CONTAINER_OF(s, struct tcp, base);
    CHECK_MAGIC(t, TCP_MAGIC);
    return t;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void tcp_arm(struct tcp *t, unsigned events)
{
    if (t->armed == events)
        return;
    t->armed = events;
    int uv_events = (events & STREAM_READ ? UV_READABLE : 0) | (events & STREAM_WRITE ? UV_WRITABLE : 0);
    MUST(uv_poll_start(&t->poll, uv_events, on_poll) == 0);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct tcp *t = poll->data;
    CHECK_MAGIC(t, TCP_MAGIC);
    unsigned got = (events & UV_READABLE ? STREAM_READ : 0) | (events & UV_WRITABLE ? STREAM_WRITE : 0);
    if (status < 0) {
        /* An error condition on the socket: let the next transfer find out. libuv has stopped watching. The transfer
         * may be one that takes what came before the error: then it is watched again. */
        t->armed = 0;
        got = STREAM_READ | STREAM_WRITE;
    }
    if ((got & t->wanted) == 0) {
        tcp_arm(t, t->wanted);
        return;
    }
    t->base.ready(&t->base, got & t->wanted);
    /* `ready` may have closed it; the struct stays until the end of the turn. */
    if (!t->closed && (t->wanted & ~t->armed) != 0)
        tcp_arm(t, t->wanted);
}

static ssize_t tcp_failed(struct tcp *t)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return STREAM_AGAIN;
    t->error = errno;
    return STREAM_BROKEN;
}

static ssize_t tcp_recv(struct stream *s, void *buf, size_t n)
{
    struct tcp *t = tcp_of(s);
    ssize_t got;
    do
        got = recv(t->fd, buf, n, 0);
    while (got < 0 && errno == EINTR);
    return got >= 0 ? got : tcp_failed(t);
}

static ssize_t tcp_writev(struct stream *s, const struct iovec *iov, unsigned n, bool more)
{
    struct tcp *t = tcp_of(s);
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    ssize_t put;
    do
        put = n == 1 ? send(t->fd, iov[0].iov_base, iov[0].iov_len, flags) : sendmsg(t->fd, &msg, flags);
    while (put < 0 && errno == EINTR);
    return put >= 0 ? put : tcp_failed(t);
}

static ssize_t tcp_sendfile(struct stream *s, int fd, off_t off, size_t n, bool more)
{
    struct tcp *t = tcp_of(s);
    UNUSED(more); /* sendfile keeps segments full by itself as long as it has bytes */
    ssize_t put;
    do
        put = sendfile(t->fd, fd, &off, n);
    while (put < 0 && errno == EINTR);
    return put >= 0 ? put : tcp_failed(t);
}

static void tcp_want(struct stream *s, unsigned events)
{
    struct tcp *t = tcp_of(s);
    t->wanted = events;
    if ((events & ~t->armed) != 0)
        tcp_arm(t, events);
}

static void tcp_shut(struct stream *s)
{
    (void)shutdown(tcp_of(s)->fd, SHUT_WR);
}

static void on_closed(uv_handle_t *h)
{
    struct tcp *t = h->data;
    t->magic = 0;
    mem_free(t);
}

static void tcp_close(struct stream *s, bool reset)
{
    struct tcp *t = tcp_of(s);
    MUST(!t->closed);
    t->closed = true;
    if (reset) {
        struct linger l = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    uv_close((uv_handle_t *)&t->poll, on_closed); /* takes the descriptor out of the loop first */
    close(t->fd);
    t->fd = -1;
}

static const char *tcp_why(const struct stream *s)
{
    const struct tcp *t = (const struct tcp *)(const void *)s;
    return t->error != 0 ? strerror(t->error) : "closed by the peer";
}

static bool tcp_connected(struct stream *s)
{
    struct tcp *t = tcp_of(s);
    int err = 0;
    socklen_t len = sizeof err;
    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        err = errno;
    t->error = err;
    return err == 0;
}

static bool tcp_idle_ok(struct stream *s)
{
    char byte;
    return recv(tcp_of(s)->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
}

static const struct stream_ops tcp_ops = {
    .recv = tcp_recv,
    .writev = tcp_writev,
    .sendfile = tcp_sendfile,
    .want = tcp_want,
    .shut = tcp_shut,
    .close = tcp_close,
    .why = tcp_why,
    .connected = tcp_connected,
    .idle_ok = tcp_idle_ok,
};

static struct stream *tcp_new(struct core *core, int fd)
{
    struct tcp *t;
    NEW(t);
    t->magic = TCP_MAGIC;
    t->fd = fd;
    t->base.ops = &tcp_ops;
    t->base.core = core;
    if (uv_poll_init(core_loop(core), &t->poll, fd) != 0) {
        close(fd);
        mem_free(t);
        return NULL;
    }
    t->poll.data = t;
    int one = 1, notsent = TCP_NOTSENT;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &notsent, sizeof notsent);
    return &t->base;
}

struct stream *tcp_accepted(struct core *core, int fd)
{
    return tcp_new(core, fd);
}

struct stream *tcp_connect(struct core *core, const struct resolve_addr *to, const char **why)
{
    int fd = socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *why = strerror(errno);
        return NULL;
    }
    int one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    if (connect(fd, &to->u.sa, to->len) != 0 && errno != EINPROGRESS) {
        *why = strerror(errno);
        close(fd);
        return NULL;
    }
    struct stream *s = tcp_new(core, fd);
    if (s == NULL)
        *why = "the event loop refused the socket";
    return s;
}
