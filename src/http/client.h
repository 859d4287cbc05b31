/* The client's side of HTTP/1.1 on one core: one request at a time per connection, kept-alive connections in a pool per
 * origin, bounded numbers (quota.h) and waits.
 *
 * A call is one request and its answer, embedded in its owner:
 *
 *   call_start(pool, call)       then call->event(call) whenever something changed; look at call->state
 *   CALL_HEADED                  call->head is valid; read the body with call_read until CALL_END
 *                                (in one turn of the loop it gives a MiB at most, so that nobody waits for one peer)
 *   CALL_FAILED                  call->err and call->why say what happened
 *   call_end(call)               exactly once, at any moment: gives the connection back (if the answer was read to
 *                                its end, or nearly, and may be followed by another) or closes it. No event comes after it.
 *
 * If a kept-alive connection breaks before any byte of the answer, a GET or HEAD is sent once more on a new one (RFC 9110 section
 * 9.2.2); a POST is not.
 *
 * Timeouts: connect_ms for name, connection, proxy and TLS handshake together, first_byte_ms from the request to the complete head and for
 * waiting until a connection is free, idle_ms between two pieces of the body while the owner wants to read.
 *
 * Thread: the core's. */
#ifndef LARDER_HTTP_CLIENT_H
#define LARDER_HTTP_CLIENT_H

#include "base/err.h"
#include "core/core.h"
#include "http/dial.h"
#include "http/h1.h"
#include "http/quota.h"

#define CALL_HEAD_MAX    32768      /* bytes of an answer's head */
#define CALL_REQUEST_MAX (96 << 10) /* bytes of a request's head: a token may have 64 KiB */

struct place;
struct pool;
struct upconn;

struct origin {
    struct span host; /* name or address, lower case, without brackets */
    uint16_t port;
    bool tls;
    unsigned max_connections;   /* open ones, this call's among them, as quota.h says; at least 1 */
    const struct dial_how *how; /* stays as long as calls name it. NULL: http only, no proxy, no map */
    bool guarded;               /* these two as in struct dial, and part of what makes an origin */
    enum address_kind near;
};

enum call_method { CALL_GET, CALL_HEAD, CALL_POST };

enum call_state { CALL_IDLE, CALL_WAITING, CALL_CONNECTING, CALL_SENT, CALL_HEADED, CALL_END, CALL_FAILED };

struct call {
    /* set by the owner before call_start; spans must stay until call_end */
    struct origin origin;
    enum call_method method;
    struct span
        body; /* CALL_POST: form data; sent with its length and as application/x-www-form-urlencoded */
    struct span target;     /* path and query */
    struct span host_field; /* value of the Host field */
    struct span fields;     /* further header lines, each with CRLF */
    struct span
        authorization; /* value of the Authorization field, or absent. Kept apart so that no log can show it; the bytes that
                                  were sent are wiped */
    int64_t connect_ms, first_byte_ms, idle_ms;
    int64_t deadline; /* core_now: the head must be complete by then, whatever the others allow; 0: none */
    bool whole;       /* ... and the body too: it is a small document */
    bool bulk;        /* it may take long: some connections are left to those that do not, as quota.h says */
    bool secret;      /* the answer is one: nothing of it stays in memory of the client's or of TLS */
    void (*event)(struct call *call);

    /* results */
    enum call_state state;
    int err;       /* ERR_ code */
    char why[320]; /* in words, for the log */
    const struct h1_head *head;
    bool reused;            /* on a kept-alive connection */
    enum address_kind peer; /* from HEADED on: the server's, as in struct dial */

    /* the client's own */
    struct pool *pool;
    struct upconn *conn;
    struct place *place; /* NULL, or where it waits for a connection */
    struct quota_wait wait;
    struct timer timer;
    struct defer later;
    struct dial dial;
    bool retried;
    size_t turn; /* what has been read since the loop had its turn */
};

struct pool *pool_new(struct core *core);
/* Closes idle connections; no call may be under way. */
void pool_free(struct pool *p);
/* Closes idle connections now and keeps none from here on. */
void pool_drain(struct pool *p);
/* Closes the idle connections that were made in this way and forgets their TLS sessions; those in use go when their calls end. What a
 * call that still names `how` opens to an origin that was not connected to by then is closed after its idle time, as any other. */
void pool_forget(struct pool *p, const struct dial_how *how);

/* Always ends in an event, never in a callback from within. */
void call_start(struct pool *p, struct call *call);

#define CALL_AGAIN  (-1) /* an event will come */
#define CALL_BROKEN (-2) /* state is CALL_FAILED */

/* Body bytes into buf: > 0; 0: the end, state is CALL_END; or CALL_AGAIN, CALL_BROKEN. buf is also used as room for
 * framing, so n should be at least 16 KiB. Bytes are read from the connection straight into buf. However fast they come, and in however
 * small pieces, there is a CALL_AGAIN from time to time, so that a loop over this holds up nobody for long. */
ssize_t call_read(struct call *call, char *buf, size_t n) MUSTCHECK;
/* The owner cannot take more now: stop watching the connection, and the idle time. The next call_read ends the pause. */
void call_pause(struct call *call);
void call_end(struct call *call);

#endif
