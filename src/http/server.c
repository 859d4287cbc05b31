/* The server connection.
 *
 * States of a connection, and what it waits for:
 *
 *   IDLE    no exchange                       read; idle timeout
 *   HEAD    a request has begun               read; header timeout (not prolonged by bytes)
 *   BUSY    the handler has the exchange      read (only to learn that the client is gone, or to keep a little of what it
 *                                             pipelines); no timeout
 *   SEND    an answer is going out            write, or the body's wake, or a job that reads; send timeout, pushed
 *                                             back whenever bytes leave
 *   LINGER  answered and shut, though the     read and throw away, 2 s, so that the peer reads our answer before it
 *           client may still send             sees a reset
 *   CLOSED  no stream; the struct goes when its exchange does
 *
 *   IDLE -> HEAD -> BUSY -> SEND -> IDLE | LINGER | CLOSED        conn_go is the only setter
 *
 * Sending: what must go out first (head, chunk frames) is in x->out. Then the body is pulled: memory goes out with x->out
 * in one writev, file bytes by sendfile when they are in memory, else from a buffer (cold.h). At most SEND_TURN bytes leave per
 * turn of the loop, then the others' turn.
 *
 * A half-closed client (it sent FIN, but reads on) gets the answers to all it has asked; a broken connection is told to the handler. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/server.h"
#include "net/listen.h"
#include "net/stream.h"
#include "net/tls.h"

#define CONN_MAGIC     0xc0110001u
#define EXCHANGE_MAGIC 0xe4c40001u

#define SEND_TURN    (128u << 10) /* see TCP_NOTSENT in net/tcp.c */
#define PENDING_MAX  (64u << 10)
#define LINGER_MS    2000
#define TLS_WARN_MS  10000 /* of failed handshakes one is worth a warning in this time */
#define NEWCOMER_MS  1000  /* for the first request of a connection, when the server stops */
#define LINGER_BYTES (1u << 20)
#define FREE_MAX     64
#define JOIN_MAX     (16u << 10)
#define CHUNK_MAX    (1u << 20)

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BUSY, CONN_SEND, CONN_LINGER, CONN_CLOSED };

struct conn {
    unsigned magic;
    uint8_t state;
    bool last;        /* close after this answer */
    bool half_closed; /* the client has ended its side */
    bool in_input;    /* conn_input is on the stack: it goes on by itself */
    bool asked;       /* a request has come, or begun to come */
    uint32_t lingered;
    int64_t since_ms; /* core_now: of its state */
    struct server *server;
    struct stream *stream;
    struct exchange *x;
    struct list_node node; /* server->conns[state] */
    struct timer timer;
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
    char *pending; /* bytes that came while an exchange was under way */
    size_t pending_n;
    struct h1 parser;
};

struct server {
    struct core *core;
    struct server_config config;
    struct list conns[CONN_CLOSED]; /* by state */
    unsigned n_conns;
    struct crowd_member member;
    struct crowd *own; /* NULL: the configuration has given one */
    struct list free;
    unsigned n_free;
    bool draining;
    int64_t date_until; /* core_now: `date` is right until then */
    char date[40];
    size_t date_n;
    struct list ports;
    int64_t tls_warn_at; /* core_now */
    struct again_table *again;
    struct cold_pool cold;
    /* The exchange that is being handled, if its request came whole and alone, and is asked for again and again: its bytes, and where they
     * were read to. */
    struct exchange *whole;
    const char *whole_at;
    size_t whole_n;
    char whole_buf[AGAIN_REQUEST_MAX];
    char join[JOIN_MAX]; /* a head and a small body, for one send */
};

struct server_port {
    struct list_node node;
    struct server *server;
    struct listener *listener;
    struct identity *identity; /* NULL: no TLS */
    struct tls_cache *sessions;
};

static void conn_input(struct conn *k, const char *p, size_t n);
static void send_run(struct conn *k);
static void on_send_defer(struct defer *d);
static void send_wake(void *arg);
static void on_cold(struct cold *c);

/* ---- exchanges ---- */

static struct exchange *exchange_take(struct server *s, struct conn *k)
{
    struct list_node *n = list_pop_front(&s->free);
    struct exchange *x;
    if (n != NULL) {
        x = CONTAINER_OF(n, struct exchange, node);
        s->n_free--;
    } else {
        x = mem_alloc(sizeof *x);
    }
    memset(x, 0, offsetof(struct exchange, req));
    x->magic = EXCHANGE_MAGIC;
    x->core = s->core;
    x->conn = k;
    x->req.buf = x->in_buf;
    x->req.cap = sizeof x->in_buf;
    cold_init(&x->cold, &s->cold, on_cold);
    x->out = STR_INIT(x->out_buf);
    x->began_ns = clock_mono_ns();
    defer_init(&x->run, on_send_defer);
    return x;
}

static void exchange_give(struct server *s, struct exchange *x)
{
    MUST(!cold_waits(&x->cold));
    defer_cancel(&x->run);
    x->magic = 0;
    if (s->n_free >= FREE_MAX) {
        mem_free(x);
        return;
    }
    list_push_front(&s->free, &x->node);
    s->n_free++;
}

/* ---- the connection's life ---- */

/* Does it wait for the client's next request, or for the rest of one? Then it gives way to newcomers. */
static bool waits(enum conn_state state)
{
    return state == CONN_IDLE || state == CONN_HEAD;
}

static struct conn *oldest(struct server *s, enum conn_state state)
{
    struct list_node *n = list_first(&s->conns[state]);
    return n != NULL ? CONTAINER_OF(n, struct conn, node) : NULL;
}

static struct conn *longest_waiting(struct server *s)
{
    struct conn *idle = oldest(s, CONN_IDLE), *head = oldest(s, CONN_HEAD);
    return idle == NULL || (head != NULL && head->since_ms < idle->since_ms) ? head : idle;
}

static void conn_go(struct conn *k, enum conn_state state)
{
    struct server *s = k->server;
    bool waited = waits((enum conn_state)k->state) && list_linked(&k->node);
    list_remove(&k->node);
    k->state = (uint8_t)state;
    k->since_ms = core_now(s->core);
    if (state != CONN_CLOSED)
        list_push_back(&s->conns[state], &k->node);
    if (waited || waits(state)) {
        struct conn *first = longest_waiting(s);
        crowd_idle(&s->member, waits(state) - waited, first != NULL ? first->since_ms : INT64_MAX);
    }
    switch (state) {
    case CONN_IDLE:
        timer_arm(k->server->core, &k->timer, k->server->config.idle_ms);
        break;
    case CONN_HEAD:
        timer_arm(k->server->core, &k->timer, k->server->config.header_ms);
        break;
    case CONN_SEND:
        timer_arm(k->server->core, &k->timer, k->server->config.send_ms);
        break;
    case CONN_LINGER:
        timer_arm(k->server->core, &k->timer, LINGER_MS);
        break;
    case CONN_BUSY:
    case CONN_CLOSED:
        timer_disarm(&k->timer);
        break;
    }
}

static void conn_free_if_done(struct conn *k)
{
    if (k->state != CONN_CLOSED || k->x != NULL || k->in_input)
        return;
    struct server *s = k->server;
    FREE(k->pending);
    k->magic = 0;
    mem_free(k);
    s->n_conns--;
    crowd_exit(s->member.crowd);
    COUNT(core_counters(s->core), connections_open, -1);
}

/* Ends the exchange: tells the handler unless it gave up itself, and frees what can be freed now. */
static void exchange_end(struct exchange *x, bool complete, const char *why)
{
    struct conn *k = x->conn;
    if (!cold_leave(&x->cold)) { /* the file must stay open until the job is done */
        struct str text = STR_INIT(x->why_text);
        str_addz(&text, why != NULL ? why : "");
        x->dropped = true;
        x->why = why != NULL ? x->why_text : NULL; /* the reason goes with the connection's stream */
        return;
    }
    if (x->body != NULL) {
        x->body->ops->stop(x->body);
        x->body = NULL;
    }
    x->complete = complete;
    x->why = why;
    if (x->answered && x->finished != NULL)
        x->finished(x);
    k->x = NULL;
    exchange_give(k->server, x);
}

static void conn_close(struct conn *k, bool reset, const char *why)
{
    if (k->state == CONN_CLOSED)
        return;
    stream_close(k->stream, reset);
    k->stream = NULL;
    struct exchange *x = k->x;
    enum conn_state was = (enum conn_state)k->state;
    conn_go(k, CONN_CLOSED);
    if (x != NULL) {
        if (was == CONN_BUSY) {
            MUST(x->gone != NULL);
            x->gone(x); /* the handler calls exchange_drop, now or later */
            return;
        }
        exchange_end(x, false, why);
    }
    conn_free_if_done(k);
}

static bool too_many(const struct server *s)
{
    return crowd_over(s->member.crowd, s->config.max_connections);
}

/* It has nothing to do: if there are too many, it goes. */
static void give_way(struct conn *k)
{
    if (too_many(k->server))
        conn_close(k, false, NULL);
}

static void conn_linger(struct conn *k)
{
    stream_shut(k->stream);
    stream_want(k->stream, STREAM_READ);
    FREE(k->pending);
    k->pending_n = 0;
    conn_go(k, CONN_LINGER);
}

/* The answer is out. */
static void conn_answered(struct conn *k)
{
    struct exchange *x = k->x;
    /* A client that asked for the end sends nothing more. Any other may be sending right now, a body or its next
     * request, and to close on it is to reset the connection, which may take the answer with it. */
    bool asked = k->half_closed || (!x->req.keep_alive && !x->req.has_body && x->fault == 0);
    bool idle = !k->in_input && k->pending_n == 0; /* no further request is there already */
    bool close = k->last || k->server->draining || (k->half_closed && idle);
    exchange_end(x, true, NULL);
    if (close && !asked) {
        conn_linger(k);
        return;
    }
    if (close) {
        conn_close(k, false, NULL);
        return;
    }
    conn_go(k, CONN_IDLE);
    stream_want(k->stream, STREAM_READ);
    if (idle)
        give_way(k);
    if (idle || k->in_input)
        return;
    char *p = k->pending;
    size_t n = k->pending_n;
    k->pending = NULL;
    k->pending_n = 0;
    conn_input(k, p, n);
    mem_free(p);
}

/* What a client whose handshake failed has to say for itself is in no line of the log, as it asks nothing. Whoever only looks whether the
 * port is open is none. */
static void note_unfinished(struct conn *k, const char *why)
{
    struct server *s = k->server;
    int64_t now = core_now(s->core);
    char text[64];
    struct str peer = STR_INIT(text);
    if (!tls_unfinished(k->stream))
        return;
    COUNT(core_counters(s->core), client_tls_failures, 1);
    server_peer(k, &peer);
    log_emit(now >= s->tls_warn_at ? LOG_WARN : LOG_DEBUG, "tls", "a client's TLS handshake failed",
             LOG_S("client", text), LOG_S("why", why));
    if (now >= s->tls_warn_at)
        s->tls_warn_at = now + TLS_WARN_MS;
}

static void on_conn_timer(struct timer *t)
{
    struct conn *k = CONTAINER_OF(t, struct conn, timer);
    CHECK_MAGIC(k, CONN_MAGIC);
    if (k->state == CONN_HEAD && k->x != NULL && h1_started(&k->parser)) {
        COUNT(core_counters(k->server->core), client_timeouts, 1);
        k->x->fault = 408;
        k->last = true;
        conn_go(k, CONN_BUSY);
        k->server->config.request(k->x, k->server->config.arg);
        return;
    }
    if (k->state == CONN_SEND)
        COUNT(core_counters(k->server->core), client_timeouts, 1);
    note_unfinished(k, "it did not come to its end in time");
    conn_close(k, k->state == CONN_SEND, "the client took nothing for too long");
}

/* ---- receiving ---- */

/* At most what was taken out to be worked off, or PENDING_MAX and one read. */
static void pending_add(struct conn *k, const char *p, size_t n)
{
    MUST(k->pending_n + n <= 2 * PENDING_MAX);
    k->pending = mem_realloc(k->pending, k->pending_n + n);
    memcpy(k->pending + k->pending_n, p, n);
    k->pending_n += n;
}

static void conn_dispatch(struct conn *k, enum h1_event event, bool whole)
{
    struct exchange *x = k->x;
    if (event == H1_ERROR) {
        COUNT(core_counters(k->server->core), bad_requests, 1);
        enum h1_fault f = h1_fault(&k->parser);
        x->fault = f == H1_FAULT_TARGET_SIZE ? 414 : f == H1_FAULT_HEAD_SIZE ? 431 : 400;
        x->why = h1_error(&k->parser);
    }
    if (event != H1_DONE ||
        !x->req.keep_alive) /* a request with a body: answered, but its body is not read */
        k->last = true;
    conn_go(k, CONN_BUSY);
    k->server->whole = whole ? x : NULL;
    k->server->config.request(x, k->server->config.arg);
    k->server->whole = NULL;
}

/* ---- answers that are given again ---- */

bool exchange_repeats(const struct exchange *x)
{
    return x->conn->server->whole == x && !x->conn->last;
}

void exchange_again(struct exchange *x, struct again *a, int64_t ms)
{
    MUST(x->again == NULL && exchange_repeats(x));
    x->again = a;
    x->again_ms = ms;
}

/* The head is complete, and nothing has gone out yet. */
static void keep_again(struct exchange *x)
{
    struct server *s = x->conn->server;
    struct again *a = x->again;
    struct body_piece piece = {.mem = ""};
    int64_t now = core_now(s->core), until = now + x->again_ms;
    x->again = NULL;
    a->body_n = x->body != NULL ? x->left : 0;
    bool one = x->body == NULL || (x->body->ops->pull(x->body, &piece) == BODY_PIECE && piece.mem != NULL &&
                                   piece.len == x->left);
    if (!one || x->chunked || x->until_close || x->conn->last || x->out.cut ||
        x->out.n + piece.len > AGAIN_ANSWER_MAX) {
        a->drop(a);
        return;
    }
    again_keep(s->again, span_of(s->whole_buf, s->whole_n), str_span(&x->out), span_of(piece.mem, piece.len),
               until < s->date_until ? until : s->date_until, a);
}

static void on_rest(struct exchange *x)
{
    struct again *a = x->user;
    struct again_given g = {.began_ns = x->began_ns,
                            .headed_ns = x->headed_ns,
                            .ended_ns = clock_mono_ns(),
                            .sent = a->body_n > x->left ? a->body_n - x->left : 0,
                            .cut = x->complete ? NULL : x->why};
    a->given(a, x->conn, &g);
    again_put(a);
}

/* What the client did not take at once, as an exchange without a handler. */
static void send_rest(struct conn *k, struct again *a, struct span rest, int64_t began_ns)
{
    struct exchange *x = exchange_take(k->server, k);
    k->x = x;
    x->req.keep_alive = true;
    x->req.has_body = false;
    x->answered = true;
    x->began_ns = began_ns;
    x->headed_ns = clock_mono_ns();
    x->user = a;
    x->finished = on_rest;
    a->refs++;
    x->left = rest.n;
    x->body = body_of_text(rest);
    x->body->wake = send_wake;
    x->body->wake_arg = x;
    conn_go(k, CONN_SEND);
    send_run(k);
}

/* A request that was just answered, in the same bytes. False: it goes the usual way. */
static bool answer_again(struct conn *k, struct span request)
{
    struct server *s = k->server;
    struct again *a;
    int64_t now = core_now(s->core);
    if (request.n > AGAIN_REQUEST_MAX || s->draining || k->state != CONN_IDLE || k->half_closed)
        return false;
    uint64_t hash = map_hash(request);
    struct span answer = again_find(s->again, request, hash, now, &a);
    if (answer.p == NULL) {
        if (again_wanted(s->again, hash, now)) {
            memcpy(s->whole_buf, request.p, request.n);
            s->whole_n = request.n;
            s->whole_at = request.p;
        }
        return false;
    }
    struct again_given g = {.began_ns = clock_mono_ns(), .sent = a->body_n};
    struct iovec iov = {(char *)(uintptr_t)answer.p, answer.n};
    ssize_t put = stream_writev(k->stream, &iov, 1, false);
    if (put < 0) /* the usual way meets the same, and knows what to do */
        return false;
    /* Of the body; below zero, if that is a part of the head, since what is sent later is counted whole. */
    int64_t sent = (int64_t)put - (int64_t)(answer.n - a->body_n);
    k->asked = true;
    COUNT(core_counters(s->core), answers_again, 1);
    COUNT(core_counters(s->core), bytes_to_clients, sent);
    if ((size_t)put < answer.n) {
        send_rest(k, a, span_from(answer, (size_t)put), g.began_ns);
        return true;
    }
    g.headed_ns = g.ended_ns = clock_mono_ns();
    a->given(a, k, &g);
    conn_go(k, CONN_IDLE);
    give_way(k);
    return true;
}

/* Runs what came through the parser, request by request, as long as the answers go out at once. */
static void conn_input(struct conn *k, const char *p, size_t n)
{
    k->in_input = true;
    while (n > 0 && (k->state == CONN_IDLE || k->state == CONN_HEAD)) {
        if (k->x == NULL) {
            k->asked = true;
            k->x = exchange_take(k->server, k);
            h1_next(&k->parser, &k->x->req, false);
            conn_go(k, CONN_HEAD);
        }
        enum h1_event event;
        size_t used = h1_feed(&k->parser, p, n, &event);
        p += used;
        n -= used;
        if (event != H1_MORE)
            conn_dispatch(k, event, n == 0 && p - used == k->server->whole_at && event == H1_DONE);
    }
    k->in_input = false;
    if (k->state == CONN_CLOSED)
        conn_free_if_done(k);
    else if (k->state != CONN_LINGER && n > 0)
        pending_add(k, p, n);
    else if (k->half_closed && (k->state == CONN_IDLE || k->state == CONN_HEAD))
        conn_close(k, false, "the client ended its side");
    else if (k->state == CONN_IDLE)
        give_way(k);
}

static void conn_readable_busy(struct conn *k)
{
    char *buf = core_scratch(k->server->core);
    ssize_t n = k->pending_n < PENDING_MAX ? stream_recv(k->stream, buf, PENDING_MAX) : STREAM_AGAIN;
    if (n > 0) {
        pending_add(k, buf, (size_t)n);
    } else if (n == 0) {
        k->half_closed = true;
    } else if (n == STREAM_BROKEN) {
        conn_close(k, true, stream_why(k->stream));
        return;
    }
    if (k->half_closed || k->pending_n >= PENDING_MAX)
        stream_want(k->stream,
                    0); /* an answer that waits for the client to take some has asked for that alone */
}

static void conn_readable_linger(struct conn *k)
{
    ssize_t n = stream_recv(k->stream, core_scratch(k->server->core), CORE_SCRATCH);
    if (n > 0)
        k->lingered += (uint32_t)n;
    if (n == 0 || n == STREAM_BROKEN || k->lingered > LINGER_BYTES)
        conn_close(k, false, NULL);
}

static void conn_readable(struct conn *k)
{
    if (k->state == CONN_LINGER) {
        conn_readable_linger(k);
        return;
    }
    if (k->state == CONN_BUSY || k->state == CONN_SEND) {
        conn_readable_busy(k);
        return;
    }
    char *buf = core_scratch(k->server->core);
    ssize_t n = stream_recv(k->stream, buf, PENDING_MAX);
    k->server->whole_at = NULL;
    if (n > 0 && !answer_again(k, span_of(buf, (size_t)n)))
        conn_input(k, buf, (size_t)n);
    if (n == STREAM_BROKEN)
        note_unfinished(k, stream_why(k->stream));
    if (n <= 0 && n != STREAM_AGAIN)
        conn_close(k, false, "the client closed the connection");
}

static void on_ready(struct stream *stream, unsigned events)
{
    struct conn *k = stream->owner;
    CHECK_MAGIC(k, CONN_MAGIC);
    if ((events & STREAM_WRITE) != 0 && k->state == CONN_SEND)
        send_run(k); /* may close */
    else if ((events & STREAM_READ) != 0)
        conn_readable(k);
}

/* ---- sending ---- */

/* SENT_SHORT: the rest of the answer cannot be had. SENT_FAIL: the client is gone. */
enum sent { SENT_SOME, SENT_FULL, SENT_WAIT, SENT_ALL, SENT_SHORT, SENT_FAIL };

static void send_wake(void *arg)
{
    struct exchange *x = arg;
    CHECK_MAGIC(x, EXCHANGE_MAGIC);
    defer_start(x->core, &x->run);
}

static void on_send_defer(struct defer *d)
{
    struct exchange *x = CONTAINER_OF(d, struct exchange, run);
    CHECK_MAGIC(x, EXCHANGE_MAGIC);
    if (x->conn->state == CONN_SEND)
        send_run(x->conn);
}

static void on_cold(struct cold *c)
{
    struct exchange *x = CONTAINER_OF(c, struct exchange, cold);
    struct conn *k = x->conn;
    CHECK_MAGIC(x, EXCHANGE_MAGIC);
    if (x->dropped) {
        exchange_end(x, false, x->why);
        conn_free_if_done(k);
    } else if (k->state == CONN_SEND) {
        send_run(k);
    }
}

static void body_took(struct exchange *x, uint64_t n)
{
    MUST(x->body != NULL);
    x->body->ops->took(x->body, n);
    x->sent += n;
    if (!x->chunked) {
        x->left -= n;
        return;
    }
    x->chunk_left -= n;
    if (x->chunk_left == 0)
        str_add(&x->out, SPAN("\r\n"));
}

/* Opens a chunk for the piece, or cuts it to what the framing still allows. */
static void frame_piece(struct exchange *x, struct body_piece *piece)
{
    MUST(piece->len > 0);
    if (!x->chunked) {
        if (piece->len > x->left)
            piece->len = x->left;
        return;
    }
    if (x->chunk_left == 0) {
        x->chunk_left = piece->len < CHUNK_MAX ? piece->len : CHUNK_MAX;
        str_addf(&x->out, "%zx\r\n", (size_t)x->chunk_left);
    }
    if (piece->len > x->chunk_left)
        piece->len = x->chunk_left;
}

static enum sent body_end(struct exchange *x, bool well)
{
    if (!well)
        return SENT_SHORT;
    if ((x->chunked ? x->chunk_left : x->left) > 0 && !x->until_close) {
        RARE();
        return SENT_SHORT; /* fewer bytes than the head, or the chunk's size, promised */
    }
    if (x->chunked)
        str_add(&x->out, SPAN("0\r\n\r\n"));
    x->body_ended = true;
    return SENT_SOME;
}

/* Head and small body as one piece: to copy some hundred bytes costs less than what the kernel does for a second piece. */
static unsigned join_pieces(struct server *s, struct iovec *iov, unsigned n)
{
    if (n < 2 || iov[0].iov_len + iov[1].iov_len > JOIN_MAX)
        return n;
    memcpy(s->join, iov[0].iov_base, iov[0].iov_len);
    memcpy(s->join + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
    iov[0] = (struct iovec){s->join, iov[0].iov_len + iov[1].iov_len};
    return 1;
}

/* Writes x->out, and a piece of memory behind it. */
static enum sent send_memory(struct conn *k, const struct body_piece *piece, bool more)
{
    struct exchange *x = k->x;
    struct iovec iov[2];
    unsigned n = 0;
    size_t head = x->out.n - x->out_sent;
    if (head > 0)
        iov[n++] = (struct iovec){x->out.p + x->out_sent, head};
    if (piece != NULL)
        iov[n++] = (struct iovec){(char *)(uintptr_t)piece->mem, (size_t)piece->len};
    n = join_pieces(k->server, iov, n);
    ssize_t put = stream_writev(k->stream, iov, n, more);
    if (put == STREAM_AGAIN)
        return SENT_FULL;
    if (put < 0)
        return SENT_FAIL;
    size_t of_head = (size_t)put < head ? (size_t)put : head;
    x->out_sent += of_head;
    if (x->out_sent == x->out.n) {
        str_reset(&x->out);
        x->out_sent = 0;
    }
    if ((size_t)put > of_head)
        body_took(x, (size_t)put - of_head);
    return SENT_SOME;
}

static enum sent send_file(struct conn *k, struct body_piece *piece)
{
    struct exchange *x = k->x;
    enum cold_verdict v = cold_look(&x->cold, piece);
    if (v != COLD_GO)
        return v == COLD_WAIT ? SENT_WAIT : SENT_SHORT;
    if (piece->mem != NULL)
        return send_memory(k, piece, false);
    size_t n = piece->len < SEND_TURN ? (size_t)piece->len : SEND_TURN;
    ssize_t put = stream_sendfile(k->stream, piece->fd, piece->off, n, true);
    if (put == STREAM_AGAIN)
        return SENT_FULL;
    if (put <= 0)
        return put == 0 ? SENT_SHORT : SENT_FAIL; /* the file is shorter than promised, or broken */
    body_took(x, (uint64_t)put);
    return SENT_SOME;
}

/* One transfer. */
static enum sent send_step(struct conn *k)
{
    struct exchange *x = k->x;
    struct body_piece piece = {0};
    enum body_status st = BODY_END;
    if (!x->body_ended && x->body != NULL) {
        st = x->left == 0 && !x->chunked ? BODY_END : x->body->ops->pull(x->body, &piece);
        if (st == BODY_END || st == BODY_FAIL) {
            enum sent s = body_end(x, st == BODY_END);
            if (s == SENT_SHORT)
                return s;
        } else if (st == BODY_PIECE) {
            frame_piece(x, &piece);
        }
    }
    bool out = x->out.n > x->out_sent;
    if (st == BODY_PIECE && piece.mem != NULL)
        return send_memory(k, &piece, false);
    if (out)
        return send_memory(k, NULL, st == BODY_PIECE);
    if (st == BODY_PIECE)
        return send_file(k, &piece);
    return st == BODY_WAIT ? SENT_WAIT : SENT_ALL;
}

static void send_run(struct conn *k)
{
    struct exchange *x = k->x;
    if (cold_waits(&x->cold)) /* it comes here again */
        return;
    uint64_t before = x->sent;
    for (;;) {
        enum sent s = send_step(k);
        if (s == SENT_SOME && x->sent - before < SEND_TURN)
            continue;
        if (x->sent != before) {
            timer_arm(k->server->core, &k->timer, k->server->config.send_ms);
            COUNT(core_counters(k->server->core), bytes_to_clients, x->sent - before);
        }
        switch (s) {
        case SENT_SOME:
            defer_start(x->core, &x->run);
            return;
        case SENT_FULL:
            if (k->timer.due == 0)
                timer_arm(k->server->core, &k->timer, k->server->config.send_ms);
            stream_want(k->stream, STREAM_WRITE);
            return;
        case SENT_WAIT: /* for the source, not for the client: its time does not run */
            timer_disarm(&k->timer);
            stream_want(k->stream, k->half_closed || k->pending_n >= PENDING_MAX ? 0 : STREAM_READ);
            return;
        case SENT_ALL:
            conn_answered(k);
            return;
        case SENT_SHORT:
            COUNT(core_counters(k->server->core), answers_cut, 1);
            conn_close(k, x->until_close, "the answer was cut short");
            return;
        case SENT_FAIL:
            conn_close(k, x->until_close, stream_why(k->stream));
            return;
        }
    }
}

/* ---- the handler's side ---- */

void server_peer(const struct conn *k, struct str *out)
{
    char text[INET6_ADDRSTRLEN];
    if (k->peer.sa.sa_family == AF_INET) { /* by hand: it is in every line of the access log */
        const unsigned char *octet = (const unsigned char *)&k->peer.v4.sin_addr;
        for (unsigned i = 0; i < 4; i++) {
            str_addu(out, octet[i]);
            str_addc(out, i < 3 ? '.' : ':');
        }
        str_addu(out, ntohs(k->peer.v4.sin_port));
    } else if (k->peer.sa.sa_family == AF_INET6 &&
               inet_ntop(AF_INET6, &k->peer.v6.sin6_addr, text, sizeof text) != NULL) {
        str_addc(out, '[');
        str_addz(out, text);
        str_add(out, SPAN("]:"));
        str_addu(out, ntohs(k->peer.v6.sin6_port));
    }
}

void exchange_peer(const struct exchange *x, struct str *out)
{
    server_peer(x->conn, out);
}

static void head_date(struct server *s, struct str *out)
{
    int64_t now = core_now(s->core);
    if (now >= s->date_until) {
        int64_t wall = clock_wall_ms();
        struct str d = STR_INIT(s->date);
        str_add(&d, SPAN("Date: "));
        clock_add_http_date(&d, wall);
        str_add(&d, SPAN("\r\n"));
        s->date_n = d.n;
        s->date_until = now + 1000 - wall % 1000;
    }
    str_add(out, span_of(s->date, s->date_n));
}

static const char *reason_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } known[] = {{200, "OK"},
                 {206, "Partial Content"},
                 {304, "Not Modified"},
                 {400, "Bad Request"},
                 {403, "Forbidden"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {408, "Request Timeout"},
                 {414, "URI Too Long"},
                 {416, "Range Not Satisfiable"},
                 {429, "Too Many Requests"},
                 {431, "Request Header Fields Too Large"},
                 {500, "Internal Server Error"},
                 {502, "Bad Gateway"},
                 {503, "Service Unavailable"},
                 {504, "Gateway Timeout"}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (known[i].status == status)
            return known[i].reason;
    }
    return "";
}

void exchange_begin(struct exchange *x, unsigned status)
{
    CHECK_MAGIC(x, EXCHANGE_MAGIC);
    MUST(!x->answered);
    x->status = status;
    str_reset(&x->out);
    str_add(&x->out, SPAN("HTTP/1.1 "));
    str_addu(&x->out, status);
    str_addc(&x->out, ' ');
    str_addz(&x->out, reason_of(status));
    str_add(&x->out, SPAN("\r\n"));
    head_date(x->conn->server, &x->out);
}

struct str *exchange_head(struct exchange *x)
{
    return &x->out;
}

void exchange_field(struct exchange *x, struct span name, struct span value)
{
    str_add(&x->out, name);
    str_add(&x->out, SPAN(": "));
    str_add(&x->out, value);
    str_add(&x->out, SPAN("\r\n"));
}

static void head_framing(struct exchange *x, uint64_t length)
{
    bool http10 = x->req.minor == 0;
    if (x->status == 304) {
        /* no body by definition; a length would be that of the full answer */
    } else if (length != LENGTH_UNKNOWN) {
        str_add(&x->out, SPAN("Content-Length: "));
        str_addu(&x->out, length);
        str_add(&x->out, SPAN("\r\n"));
    } else if (!http10) {
        str_add(&x->out, SPAN("Transfer-Encoding: chunked\r\n"));
        x->chunked = true;
    } else {
        x->until_close = true;
        x->conn->last = true;
    }
    if (x->conn->last || x->conn->server->draining) {
        x->conn->last = true;
        str_add(&x->out, SPAN("Connection: close\r\n"));
    } else if (http10) {
        str_add(&x->out, SPAN("Connection: keep-alive\r\n"));
    }
    str_add(&x->out, SPAN("\r\n"));
}

void exchange_send(struct exchange *x, uint64_t length, struct body *body, bool close)
{
    CHECK_MAGIC(x, EXCHANGE_MAGIC);
    struct conn *k = x->conn;
    MUST(!x->answered && k->x == x);
    if (close || x->fault != 0)
        k->last = true;
    bool bodyless = x->req.method == H1_HEAD || x->status == 304;
    if (bodyless && body != NULL) {
        body->ops->stop(body);
        body = NULL;
    }
    if (!bodyless && body == NULL)
        length = 0;
    head_framing(x, length);
    x->answered = true;
    x->headed_ns = clock_mono_ns();
    x->left = length;
    if (body == NULL) {
        x->chunked = false;
        x->left = 0;
    }
    x->body = body;
    if (body != NULL) {
        body->wake = send_wake;
        body->wake_arg = x;
    }
    if (x->again != NULL)
        keep_again(x);
    if (k->state == CONN_CLOSED) { /* the client went away and the handler answers all the same */
        exchange_end(x, false, "the client went away");
        conn_free_if_done(k);
        return;
    }
    MUST(k->state == CONN_BUSY);
    conn_go(k, CONN_SEND);
    if (SOFT(!x->out.cut)) /* what goes into a head is bounded by whoever writes it */
        send_run(k);
    else
        conn_close(k, true, "response head too large");
}

void exchange_drop(struct exchange *x)
{
    CHECK_MAGIC(x, EXCHANGE_MAGIC);
    struct conn *k = x->conn;
    MUST(!x->answered);
    if (k->state != CONN_CLOSED) {
        stream_close(k->stream, true);
        k->stream = NULL;
        conn_go(k, CONN_CLOSED);
    }
    exchange_end(x, false, "dropped");
    conn_free_if_done(k);
}

/* ---- a body of a few bytes ---- */

struct text_body {
    struct body base;
    size_t n, at;
    char bytes[];
};

static enum body_status text_pull(struct body *b, struct body_piece *piece)
{
    struct text_body *t = CONTAINER_OF(b, struct text_body, base);
    if (t->at == t->n)
        return BODY_END;
    *piece = (struct body_piece){.mem = t->bytes + t->at, .len = t->n - t->at};
    return BODY_PIECE;
}

static void text_took(struct body *b, uint64_t n)
{
    CONTAINER_OF(b, struct text_body, base)->at += (size_t)n;
}

static void text_stop(struct body *b)
{
    mem_free(CONTAINER_OF(b, struct text_body, base));
}

struct body *body_of_text(struct span text)
{
    static const struct body_ops ops = {text_pull, text_took, text_stop};
    struct text_body *t = mem_zalloc(sizeof *t + text.n);
    t->base.ops = &ops;
    t->n = text.n;
    if (text.n > 0)
        memcpy(t->bytes, text.p, text.n);
    return &t->base;
}

/* ---- the server ---- */

/* The one that has waited for its client for the longest time: half a request keeps no place from others. False: none does. */
static bool close_waiting(struct server *s)
{
    struct conn *k = longest_waiting(s);
    if (k != NULL)
        conn_close(k, false, NULL);
    return k != NULL;
}

/* Others need the places. */
static void on_shed(struct core_msg *m)
{
    struct server *s = CONTAINER_OF(m, struct server, member.shed);
    unsigned owed = crowd_owed(&s->member);
    while (owed-- > 0 && too_many(s) && close_waiting(s))
        ;
}

static bool make_room(struct server *s)
{
    if (s->draining)
        return false;
    while (!crowd_enter(s->member.crowd, s->config.max_connections)) {
        if (crowd_replace(&s->member))
            return true;
        if (!close_waiting(s))
            return false;
    }
    return true;
}

static void on_accepted(struct core *core, int fd, void *arg)
{
    struct server_port *port = arg;
    struct server *s = port->server;
    struct counters *c = core_counters(core);
    if (!make_room(s)) {
        COUNT(c, connections_refused, 1);
        close(fd);
        return;
    }
    struct stream *stream = tcp_accepted(core, fd);
    if (stream == NULL) {
        crowd_exit(s->member.crowd);
        return;
    }
    if (port->identity != NULL)
        stream = tls_server(stream, port->identity, port->sessions);
    struct conn *k;
    NEW(k);
    k->magic = CONN_MAGIC;
    k->server = s;
    k->stream = stream;
    stream->ready = on_ready;
    stream->owner = k;
    socklen_t len = sizeof k->peer;
    (void)getpeername(fd, &k->peer.sa, &len); /* a client that has gone already has no address: AF_UNSPEC */
    k->parser.request = true;
    timer_init(&k->timer, on_conn_timer);
    s->n_conns++;
    COUNT(c, connections_accepted, 1);
    COUNT(c, connections_open, 1);
    conn_go(k, CONN_IDLE);
    stream_want(stream, STREAM_READ);
}

struct server *server_new(struct core *core, const struct server_config *config)
{
    struct server *s;
    NEW(s);
    s->core = core;
    s->config = *config;
    if (config->crowd == NULL)
        s->own = crowd_new();
    crowd_join(s->own != NULL ? s->own : config->crowd, &s->member, core, on_shed);
    s->again = again_new();
    cold_pool_init(&s->cold, core);
    list_init(&s->free);
    list_init(&s->ports);
    for (size_t i = 0; i < ARRAY_LEN(s->conns); i++)
        list_init(&s->conns[i]);
    return s;
}

void server_configure(struct server *s, const struct server_config *config)
{
    s->config.header_ms = config->header_ms;
    s->config.idle_ms = config->idle_ms;
    s->config.send_ms = config->send_ms;
    s->config.max_connections = config->max_connections;
    again_flush(s->again); /* what was answered came from the configuration before */
}

struct server_port *server_listen(struct server *s, int fd, const struct identity *identity)
{
    struct server_port *p;
    NEW(p);
    p->server = s;
    p->identity = identity != NULL ? identity_ref(identity) : NULL;
    p->sessions = tls_cache_new();
    p->listener = listener_start(s->core, fd, on_accepted, p);
    list_push_back(&s->ports, &p->node);
    return p;
}

void server_port_identity(struct server_port *p, const struct identity *identity)
{
    struct identity *before = p->identity;
    p->identity = identity != NULL ? identity_ref(identity) : NULL;
    identity_unref(before);
}

void server_unlisten(struct server_port *p)
{
    list_remove(&p->node);
    listener_take_all(p->listener);
    listener_stop(p->listener);
    identity_unref(p->identity);
    tls_cache_free(p->sessions);
    mem_free(p);
}

void server_drain(struct server *s)
{
    if (s->draining)
        return;
    while (!list_empty(&s->ports))
        server_unlisten(CONTAINER_OF(list_first(&s->ports), struct server_port, node));
    s->draining = true;
    crowd_leave(&s->member);
    again_flush(s->again);
    LIST_FOREACH_SAFE (n, tmp, &s->conns[CONN_IDLE]) {
        struct conn *k = CONTAINER_OF(n, struct conn, node);
        if (k->asked)
            conn_close(k, false, NULL);
        else
            timer_arm(s->core, &k->timer, NEWCOMER_MS);
    }
}

void server_abort(struct server *s)
{
    server_drain(s);
    for (size_t i = 0; i < ARRAY_LEN(s->conns); i++) {
        struct list_node *n;
        while ((n = list_first(&s->conns[i])) != NULL)
            conn_close(CONTAINER_OF(n, struct conn, node), true, "the server is stopping");
    }
}

unsigned server_connections(const struct server *s)
{
    return s->n_conns;
}

bool server_quiet(const struct server *s)
{
    return s->draining && core_msg_idle(&s->member.shed);
}

void server_free(struct server *s)
{
    MUST(s->n_conns == 0 && list_empty(&s->ports) && server_quiet(s));
    if (s->own != NULL)
        crowd_free(s->own);
    struct list_node *n;
    while ((n = list_pop_front(&s->free)) != NULL)
        mem_free(CONTAINER_OF(n, struct exchange, node));
    again_free(s->again);
    mem_free(s);
}
