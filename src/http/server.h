/* The server's side of HTTP/1.1 on one core: connections, requests one at a time, responses.
 *
 * A connection without a request owns no buffer. A request and its answer are one `struct exchange`, taken from a
 * free list at the first byte of the request and given back when the answer is out.
 *
 *   handler.request(x)   a request is complete, or was refused by the parser (x->fault). The handler answers exactly once,
 *                        now or later:  exchange_begin, exchange_field..., exchange_send
 *   x->gone              the client went away before the answer began: the handler must call exchange_drop soon
 *   x->finished          the answer is out, or was cut (x->complete says which), maybe from within exchange_send. The last
 *                        call about this exchange; it must not call into the server
 *
 * Timeouts: a request head must be complete within header_ms; a connection without request is closed after idle_ms; a
 * client that takes nothing for send_ms is dropped. While the handler works there is none: it has its own.
 *
 * An answer whose bytes may go out again to whoever asks in the same bytes (again.h) is offered by exchange_again.
 *
 * Owner: exchanges belong to the server, the handler borrows one from request until finished (or exchange_drop).
 * Thread: the core's. */
#ifndef LARDER_HTTP_SERVER_H
#define LARDER_HTTP_SERVER_H

#include "base/body.h"
#include "base/str.h"
#include "core/core.h"
#include "http/again.h"
#include "http/cold.h"
#include "http/crowd.h"
#include "http/h1.h"

#define EXCHANGE_REQUEST_MAX  32768 /* bytes of a request head: RANGE_MAX ranges of 12 digits, and some KiB */
#define EXCHANGE_RESPONSE_MAX 4096  /* bytes of a response head */
#define LENGTH_UNKNOWN        UINT64_MAX

struct server;
struct conn;
struct identity;

struct exchange {
    unsigned magic;
    struct core *core;
    int fault; /* 0, or the HTTP status that the parser wants: 400, 408, 414, 431 */

    void *user; /* the handler's three */
    void (*gone)(struct exchange *x);
    void (*finished)(struct exchange *x);

    unsigned status;   /* of the answer */
    uint64_t sent;     /* bytes of the body that went out */
    bool complete;     /* in finished: the whole answer went out */
    const char *why;   /* in finished, when not complete */
    int64_t began_ns;  /* first byte of the request (monotonic) */
    int64_t headed_ns; /* the answer's head was handed over; 0 before */

    /* the server's own */
    struct list_node node;
    struct conn *conn;
    struct body *body;
    uint64_t left;       /* bytes of the body still to come, unless chunked */
    uint64_t chunk_left; /* of the chunk that is being sent */
    bool chunked, until_close, answered, body_ended;
    struct str out; /* the head, then the chunks' frames: what must go out before the next piece */
    size_t out_sent;
    struct defer run;
    struct again *again; /* the answer may be kept for this long */
    int64_t again_ms;
    struct cold cold;
    bool dropped;       /* it ends when no job reads for it */
    struct h1_head req; /* h1_next makes it empty; what lies before is zeroed for each request */
    char in_buf[EXCHANGE_REQUEST_MAX];
    char out_buf[EXCHANGE_RESPONSE_MAX];
    char why_text[96]; /* why, of a connection that is gone */
};

struct server_config {
    int64_t header_ms, idle_ms, send_ms;
    uint64_t max_connections; /* of the crowd */
    struct crowd *crowd;      /* whose connections are counted together; NULL: this server's alone */
    void (*request)(struct exchange *x, void *arg);
    void *arg;
};

struct server *server_new(struct core *core, const struct server_config *config);
/* Limits for requests and connections from now on; the handler and the crowd stay. */
void server_configure(struct server *s, const struct server_config *config);

/* A listening socket of this core. */
struct server_port;
/* Listens on a socket from listen_open, by TLS when there is an identity (of which a reference is kept). */
struct server_port *server_listen(struct server *s, int fd, const struct identity *identity);
/* What connections are shown from now on; NULL: no TLS. */
void server_port_identity(struct server_port *p, const struct identity *identity);
/* Stops listening; what is connected goes on. */
void server_unlisten(struct server_port *p);
/* Stops listening, closes idle connections, says Connection: close on the others. Who has connected and asked nothing yet (it may still
 * wait to be accepted) has a second to ask. */
void server_drain(struct server *s);
/* Cuts every connection. */
void server_abort(struct server *s);
unsigned server_connections(const struct server *s);
bool server_quiet(const struct server *s); /* drained, and no message is on its way */
void server_free(struct server *s);        /* quiet, no connection left */

/* The client's address and port, for the log: "192.0.2.1:40000", "[2001:db8::1]:40000". */
void exchange_peer(const struct exchange *x, struct str *out);
void server_peer(const struct conn *k, struct str *out);

/* Starts the answer: status line, Date. */
void exchange_begin(struct exchange *x, unsigned status);
/* One more header field. The sum of the fields is the handler's to bound: a head that does not fit is never sent, and
 * the connection is cut. */
void exchange_field(struct exchange *x, struct span name, struct span value);
/* The builder of the head, for values that are made of parts: whole lines with CRLF. */
struct str *exchange_head(struct exchange *x);
/* Ends the head with the framing and sends. `body` belongs to the server from here on (NULL: an empty one, whatever
 * length says); for HEAD and 304 it is stopped unread. length LENGTH_UNKNOWN: chunked, or for HTTP/1.0 until close. `close`: this was
 * the connection's last answer. */
void exchange_send(struct exchange *x, uint64_t length, struct body *body, bool close);
/* Is it worth an exchange_again? Only while the handler is first called, with a request that came whole, and is asked for again and
 * again. */
bool exchange_repeats(const struct exchange *x) MUSTCHECK;
/* Before exchange_send, within the same call: the answer may be given again for ms, at most until its date is old. Takes over `a`: what cannot be kept
 * is dropped at once. A body has to be one piece of memory. */
void exchange_again(struct exchange *x, struct again *a, int64_t ms);
/* The handler gives up without an answer: the connection is cut. `finished` is not called. */
void exchange_drop(struct exchange *x);

/* A body of a few bytes, copied. */
struct body *body_of_text(struct span text);

#endif
