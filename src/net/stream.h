/* A byte stream: TCP now, TLS over TCP with the same face. It does not read or write by itself: it says when
 * it is worth trying, and the owner calls recv, writev or sendfile with memory of its own. So an idle
 * connection owns no buffer.
 *
 * Owner: whoever opened or accepted it; stream_close gives it up. Thread: its core's. */
#ifndef LARDER_NET_STREAM_H
#define LARDER_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/check.h"

struct core;
struct stream;
struct resolve_addr;

#define STREAM_READ  1u
#define STREAM_WRITE 2u

/* Results below zero of the three transfers; 0 from recv is a clean end by the peer. */
#define STREAM_AGAIN  (-1) /* nothing possible now: ask with stream_want */
#define STREAM_BROKEN (-2) /* reset, timed out, or a protocol error; stream_why says it in words */

struct stream_ops {
    ssize_t (*recv)(struct stream *s, void *buf, size_t n);
    ssize_t (*writev)(struct stream *s, const struct iovec *iov, unsigned n, bool more);
    ssize_t (*sendfile)(struct stream *s, int fd, off_t off, size_t n, bool more);
    void (*want)(struct stream *s, unsigned events);
    void (*shut)(struct stream *s);
    void (*close)(struct stream *s, bool reset);
    const char *(*why)(const struct stream *s);
    bool (*connected)(struct stream *s);
    bool (*idle_ok)(struct stream *s);
};

struct stream {
    const struct stream_ops *ops;
    struct core *core;
    /* Called from the loop when something wanted became possible (or the stream broke: then the next transfer
     * says so). May close the stream. */
    void (*ready)(struct stream *s, unsigned events);
    void *owner;
};

/* Reads at most n bytes. > 0, 0: the peer has ended its side, or STREAM_AGAIN, STREAM_BROKEN. */
static inline ssize_t stream_recv(struct stream *s, void *buf, size_t n)
{
    return s->ops->recv(s, buf, n);
}

/* Writes what fits now; more: further bytes follow at once (do not send a short segment). */
static inline ssize_t stream_writev(struct stream *s, const struct iovec *iov, unsigned n, bool more)
{
    return s->ops->writev(s, iov, n, more);
}

/* Sends bytes of a file; 0: the file has no bytes there. The caller has seen to it that they are in memory.
 */
static inline ssize_t stream_sendfile(struct stream *s, int fd, off_t off, size_t n, bool more)
{
    return s->ops->sendfile(s, fd, off, n, more);
}

/* The events to be told of from now on; replaces earlier ones; 0: none. */
static inline void stream_want(struct stream *s, unsigned events)
{
    s->ops->want(s, events);
}

/* Ends our side of the conversation (FIN); reading goes on. */
static inline void stream_shut(struct stream *s)
{
    s->ops->shut(s);
}

/* Gives the stream up: `ready` is not called any more, the memory goes when the loop lets go of it. reset:
 * the peer sees a broken connection, never a clean end. */
static inline void stream_close(struct stream *s, bool reset)
{
    s->ops->close(s, reset);
}

static inline const char *stream_why(const struct stream *s)
{
    return s->ops->why(s);
}

/* After a connect (or a handshake) STREAM_WRITE was ready. True: it stands. False: it failed, stream_why says how. */
static inline bool stream_connected(struct stream *s)
{
    return s->ops->connected(s);
}

/* A kept-alive stream that nobody uses: is it as it should be, neither closed by the peer nor spoken to out of turn? */
static inline bool stream_idle_ok(struct stream *s)
{
    return s->ops->idle_ok(s);
}

/* ---- TCP (tcp.c) ---- */

/* Takes over an accepted, non-blocking descriptor. NULL: the loop refused it; the descriptor is closed. */
struct stream *tcp_accepted(struct core *core, int fd) MUSTCHECK;

/* Starts a connection; want STREAM_WRITE, and when ready ask stream_connected. NULL: *why says what the system
 * said. */
struct stream *tcp_connect(struct core *core, const struct resolve_addr *to, const char **why) MUSTCHECK;

#endif
