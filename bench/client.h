/* An HTTP/1.1 client on epoll for the load generator: many connections, one request at a time on each, one
 * worker per thread. Nothing is shared between workers.
 *
 * A connection goes CLOSED -> CONNECTING -> (SHAKING ->) SENDING -> HEAD -> BODY -> READY and from READY to SENDING with the
 * next request, or to CLOSED from anywhere. conn_send() starts a request on a CLOSED or READY connection; then
 * exactly one of the worker's callbacks is called, from the worker's loop: done() with the connection READY (or
 * CLOSED, when the server ended it), or failed() with the connection CLOSED. conn_close() in between takes the request
 * back: no callback. A READY connection that the server closes becomes CLOSED, and dropped() is called if it is set.
 *
 * The head goes through llhttp. A body of known length is counted, not looked at: recv with MSG_TRUNC makes the kernel
 * drop the bytes without copying them, so the client costs a fraction of the server that it loads. Bodies
 * are really read when they are chunked, hashed or kept, and by TLS (tls.h), which costs the client as much as the server. */
#ifndef LARDER_BENCH_CLIENT_H
#define LARDER_BENCH_CLIENT_H

#include <fcntl.h>
#include <llhttp.h>
#include <nettle/sha2.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/epoll.h>

#include "hist.h"
#include "tls.h"
#include "util.h"

#define FAIL_TABLE(X)                                                                                        \
    X(CONNECT, "connect")                                                                                    \
    X(TLS, "tls")         /* in the handshake */                                                             \
    X(CLOSED, "closed")   /* before a head */                                                                \
    X(SHORT, "short")     /* in the middle of a body */                                                      \
    X(INVALID, "invalid") /* not HTTP, or not what was asked for */                                          \
    X(STATUS, "status")                                                                                      \
    X(DIGEST, "digest")                                                                                      \
    X(TIMEOUT, "timeout") /* not done when the run's time was over */

enum fail {
#define X(name, words) FAIL_##name,
    FAIL_TABLE(X)
#undef X
        FAIL_COUNT
};

static const char *const FAIL_WORDS[FAIL_COUNT] = {
#define X(name, words) words,
    FAIL_TABLE(X)
#undef X
};

enum conn_state {
    CONN_CLOSED,
    CONN_CONNECTING,
    CONN_SHAKING,
    CONN_SENDING,
    CONN_HEAD,
    CONN_BODY,
    CONN_READY
};

#define CONN_REQUEST_MAX 1024
#define CONN_KEEP_MAX    (8u << 20)
#define COPY_BUFFER      (64u << 10)
#define DROP_BUFFER      (4u << 20) /* never touched */
#define HEAD_FIRST       (4u << 10) /* first read of an answer whose body will not be looked at */
#define PACE_NS          (5 * NS_PER_MS)
#define PACE_PORTION     (32 << 10)
#define RECORDS_A_TURN   8 /* TLS: then it is the next connection's turn */

struct endpoint {
    struct sockaddr_storage addr;
    socklen_t len;
    char host[256]; /* for the Host header */
};

struct worker;

struct conn {
    struct worker *w;
    const struct endpoint *to;
    int fd;
    SSL *tls; /* NULL: plain */
    enum conn_state state;
    uint32_t watching; /* epoll events */
    bool paused;       /* by the read rate */
    void *owner;
    unsigned index;

    /* the request: either the caller's bytes, or text in own[] */
    const char *out;
    size_t out_len, out_sent;
    char own[CONN_REQUEST_MAX];
    bool head_only; /* HEAD: no body follows */

    /* how the body is treated; the owner sets these */
    bool verify;        /* hash what arrives: digest_hex is valid in done() */
    bool keep;          /* the body is in kept[0 .. got) in done() */
    uint64_t read_rate; /* bytes per second; 0: as fast as it comes */

    /* the answer */
    llhttp_t parser;
    unsigned status;
    bool counted; /* the length is known and the body does not go through llhttp */
    bool ended;   /* llhttp has seen the end */
    bool keep_alive;
    uint64_t length, got;
    uint64_t last_length;       /* of the answer before: chooses the size of the first read */
    int64_t began, first, last; /* request started, first byte of the answer's body, end */
    char *kept;
    size_t kept_cap;
    char digest_header[160]; /* Docker-Content-Digest; empty: absent */
    bool in_digest_header;
    struct sha256_ctx hash;
    char digest_hex[65];
};

struct timer {
    int64_t at;
    void (*fn)(struct worker *w, void *arg);
    void *arg;
};

struct stats {
    uint64_t requests;      /* answered as wanted */
    uint64_t bytes;         /* of bodies, also of failed ones */
    uint64_t left;          /* clients that left on purpose */
    uint64_t full, resumed; /* TLS handshakes */
    uint64_t fails[FAIL_COUNT];
    uint64_t status_class[6];
    int64_t first_at, last_at; /* the earliest first byte and the latest end, absolute */
    int64_t first_at_max;      /* the latest first byte */
    struct hist first, total;
};

struct worker {
    int epoll;
    unsigned index;
    bool stop;
    void (*done)(struct conn *c);
    void (*failed)(struct conn *c, enum fail why);
    void (*dropped)(struct conn *c);
    struct timer *timers; /* a binary heap, earliest first */
    size_t n_timers, cap_timers;
    bool want_digest;          /* look at headers */
    unsigned source_addresses; /* bind to 127.0.0.1 ... in turn; 0: the kernel chooses */
    int receive_buffer;        /* SO_RCVBUF; 0: the kernel's */
    bool reconnect;            /* an answer ends its connection */
    struct tls_client *tls;    /* NULL: plain */
    void *mode;                /* what the mode of the run keeps for this worker */
    struct stats *stats;
    uint64_t received;                            /* bytes of bodies, whatever becomes of their requests */
    _Atomic uint64_t shown_requests, shown_bytes; /* for the progress line */
    char copy[COPY_BUFFER];
    char drop[DROP_BUFFER];
};

/* ---- timers ---- */

static inline void timer_swap(struct timer *a, struct timer *b)
{
    struct timer t = *a;
    *a = *b;
    *b = t;
}

static inline void timer_add(struct worker *w, int64_t at, void (*fn)(struct worker *, void *), void *arg)
{
    if (w->n_timers == w->cap_timers) {
        w->cap_timers = w->cap_timers == 0 ? 64 : 2 * w->cap_timers;
        w->timers = xgrow(w->timers, w->cap_timers, sizeof *w->timers);
    }
    size_t i = w->n_timers++;
    w->timers[i] = (struct timer){.at = at, .fn = fn, .arg = arg};
    for (; i > 0 && w->timers[i].at < w->timers[(i - 1) / 2].at; i = (i - 1) / 2)
        timer_swap(&w->timers[i], &w->timers[(i - 1) / 2]);
}

static inline struct timer timer_pop(struct worker *w)
{
    struct timer first = w->timers[0];
    w->timers[0] = w->timers[--w->n_timers];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < w->n_timers; k++)
            if (w->timers[k].at < w->timers[least].at)
                least = k;
        if (least == i)
            return first;
        timer_swap(&w->timers[i], &w->timers[least]);
        i = least;
    }
}

/* ---- connection ---- */

static inline void conn_watch(struct conn *c, uint32_t events)
{
    if (c->watching == events)
        return;
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(c->w->epoll, EPOLL_CTL_MOD, c->fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
    c->watching = events;
}

static inline void conn_close(struct conn *c)
{
    if (c->tls != NULL)
        tls_close(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    c->tls = NULL;
    c->fd = -1;
    c->state = CONN_CLOSED;
    c->paused = false;
}

static inline void conn_fail(struct conn *c, enum fail why)
{
    c->last = now_ns();
    conn_close(c);
    c->w->failed(c, why);
}

static inline int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    static const char name[] = "docker-content-digest";
    c->in_digest_header = n == sizeof name - 1 && strncasecmp(at, name, n) == 0;
    return 0;
}

static inline int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    if (c->in_digest_header && n < sizeof c->digest_header) {
        memcpy(c->digest_header, at, n);
        c->digest_header[n] = '\0';
    }
    return 0;
}

static inline void conn_take(struct conn *c, const char *at, size_t n)
{
    if (c->verify)
        sha256_update(&c->hash, n, (const uint8_t *)at);
    if (c->keep && c->got + n <= CONN_KEEP_MAX) {
        if (c->kept_cap < c->got + n) {
            c->kept_cap = 2 * (c->got + n);
            c->kept = xgrow(c->kept, c->kept_cap, 1);
        }
        memcpy(c->kept + c->got, at, n);
    }
    c->got += n;
    c->w->received += n;
}

static inline int on_body(llhttp_t *p, const char *at, size_t n)
{
    conn_take(p->data, at, n);
    return 0;
}

/* Stops the parser after the head when the body's length is known: the rest is arithmetic. */
static inline int on_head(llhttp_t *p)
{
    struct conn *c = p->data;
    c->status = (unsigned)p->status_code;
    c->keep_alive = llhttp_should_keep_alive(p);
    c->state = CONN_BODY;
    bool empty = c->head_only || c->status == 204 || c->status == 304;
    if (!empty && ((p->flags & F_CHUNKED) != 0 || (p->flags & F_CONTENT_LENGTH) == 0))
        return 0;
    c->counted = true;
    c->length = empty ? 0 : p->content_length;
    return 1; /* llhttp skips the body and calls on_end */
}

static inline int on_end(llhttp_t *p)
{
    struct conn *c = p->data;
    c->ended = true;
    return HPE_PAUSED;
}

static inline const llhttp_settings_t *conn_settings(const struct worker *w)
{
    static const llhttp_settings_t plain = {
        .on_headers_complete = on_head, .on_body = on_body, .on_message_complete = on_end};
    static const llhttp_settings_t headers = {.on_header_field = on_field,
                                              .on_header_value = on_value,
                                              .on_headers_complete = on_head,
                                              .on_body = on_body,
                                              .on_message_complete = on_end};
    return w->want_digest ? &headers : &plain;
}

static inline void conn_finish(struct conn *c)
{
    c->last = now_ns();
    if (c->first == 0)
        c->first = c->last;
    c->last_length = c->length;
    if (c->verify) {
        uint8_t raw[SHA256_DIGEST_SIZE];
        sha256_digest(&c->hash, sizeof raw, raw);
        for (unsigned i = 0; i < sizeof raw; i++)
            snprintf(c->digest_hex + 2 * i, 3, "%02x", raw[i]);
    }
    if (c->keep_alive && !c->w->reconnect)
        c->state = CONN_READY;
    else
        conn_close(c);
    c->w->done(c);
}

/* Bytes of an answer that llhttp must see: the head, and bodies without a known length. Whether the answer goes on. */
static inline bool conn_parse(struct conn *c, const char *at, size_t n)
{
    llhttp_errno_t e = llhttp_execute(&c->parser, at, n);
    if (e != HPE_OK && e != HPE_PAUSED && e != HPE_PAUSED_UPGRADE) {
        conn_fail(c, FAIL_INVALID);
        return false;
    }
    if (c->counted) {
        const char *rest = llhttp_get_error_pos(&c->parser);
        size_t more = e == HPE_OK || rest == NULL ? 0 : (size_t)(at + n - rest);
        if (more > c->length) {
            conn_fail(c, FAIL_INVALID);
            return false;
        }
        if (more > 0)
            conn_take(c, rest, more);
    }
    if (c->got > 0 && c->first == 0)
        c->first = now_ns();
    if (c->counted ? c->got < c->length : !c->ended)
        return true;
    conn_finish(c);
    return false;
}

static inline void conn_eof(struct conn *c)
{
    if (c->state == CONN_BODY && !c->counted && llhttp_finish(&c->parser) != HPE_OK && c->ended) {
        c->length = c->got;
        c->keep_alive = false;
        conn_finish(c);
        return;
    }
    conn_fail(c, c->state == CONN_BODY ? FAIL_SHORT : FAIL_CLOSED);
}

static inline void conn_resume_reading(struct worker *w, void *arg);

/* How much may be read now; 0: paused until a portion may be. Smaller ones would cost the processor that is measured. */
static inline size_t conn_budget(struct conn *c, size_t want)
{
    if (c->read_rate == 0 || c->state != CONN_BODY)
        return want;
    int64_t now = now_ns();
    double per_ns = (double)c->read_rate / 1e9, allowed = (double)(now - c->began) * per_ns - (double)c->got;
    double portion = (double)PACE_NS * per_ns;
    if (portion < 1)
        portion = 1;
    if (portion > PACE_PORTION)
        portion = PACE_PORTION;
    if (allowed < portion) {
        c->paused = true;
        conn_watch(c, 0);
        timer_add(c->w, now + (int64_t)((portion - allowed) / per_ns) + 1, conn_resume_reading, c);
        return 0;
    }
    return allowed < (double)want ? (size_t)allowed : want;
}

static inline ssize_t conn_receive(struct conn *c, size_t want, bool look)
{
    if (c->tls != NULL)
        return tls_read(c->tls, c->w->copy, want);
    return recv(c->fd, look ? c->w->copy : c->w->drop, want, look ? 0 : MSG_TRUNC);
}

/* Reads once; whether the answer goes on and there may be more now. */
static inline bool conn_read(struct conn *c)
{
    bool look = c->verify || c->keep || !c->counted;
    size_t want = COPY_BUFFER;
    if (c->state == CONN_HEAD && c->tls == NULL && !c->verify && !c->keep && c->last_length > COPY_BUFFER / 2)
        want = HEAD_FIRST;
    if (c->state == CONN_BODY && c->counted) {
        want = look || c->tls != NULL ? COPY_BUFFER : DROP_BUFFER;
        if (c->length - c->got < want)
            want = (size_t)(c->length - c->got);
    }
    want = conn_budget(c, want);
    if (want == 0)
        return false;
    ssize_t n = conn_receive(c, want, look);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            conn_fail(c, c->state == CONN_BODY ? FAIL_SHORT : FAIL_CLOSED);
        return false;
    }
    if (n == 0) {
        conn_eof(c);
        return false;
    }
    if (!c->counted)
        return conn_parse(c, c->w->copy, (size_t)n);
    if (c->first == 0)
        c->first = now_ns();
    if (look) {
        conn_take(c, c->w->copy, (size_t)n);
    } else {
        c->got += (uint64_t)n;
        c->w->received += (uint64_t)n;
    }
    if (c->got < c->length)
        return true;
    conn_finish(c);
    return false;
}

/* Plain: once. TLS: some records, and what is left of one, because epoll does not tell of it. */
static inline void conn_read_some(struct conn *c)
{
    for (unsigned i = 1; conn_read(c) && c->tls != NULL && (i < RECORDS_A_TURN || tls_pending(c->tls)); i++)
        ;
}

static inline void conn_resume_reading(struct worker *w, void *arg)
{
    (void)w;
    struct conn *c = arg;
    if (!c->paused || c->fd < 0)
        return;
    c->paused = false;
    conn_watch(c, EPOLLIN);
    if (c->tls != NULL)
        conn_read_some(c);
}

static inline void conn_write(struct conn *c)
{
    const char *from = c->out + c->out_sent;
    size_t left = c->out_len - c->out_sent;
    ssize_t n = c->tls != NULL ? tls_write(c->tls, from, left) : send(c->fd, from, left, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        conn_fail(c, FAIL_CLOSED);
        return;
    }
    if (n > 0)
        c->out_sent += (size_t)n;
    if (c->out_sent < c->out_len) {
        conn_watch(c, EPOLLOUT);
        return;
    }
    c->state = CONN_HEAD;
    conn_watch(c, EPOLLIN);
}

static inline void conn_shake(struct conn *c)
{
    switch (tls_shake(c->w->tls, c->tls)) {
    case TLS_WANTS_READ:
        conn_watch(c, EPOLLIN);
        return;
    case TLS_WANTS_WRITE:
        conn_watch(c, EPOLLOUT);
        return;
    case TLS_BROKEN:
        conn_fail(c, FAIL_TLS);
        return;
    case TLS_DONE:
        c->state = CONN_SENDING;
        conn_write(c);
        return;
    }
}

static inline void conn_connected(struct conn *c)
{
    int e = 0;
    socklen_t len = sizeof e;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) != 0 || e != 0) {
        conn_fail(c, FAIL_CONNECT);
        return;
    }
    c->state = CONN_SENDING;
    if (c->w->tls == NULL) {
        conn_write(c);
        return;
    }
    c->state = CONN_SHAKING;
    c->tls = tls_open(c->w->tls, c->fd);
    conn_shake(c);
}

static inline void conn_event(struct conn *c)
{
    switch (c->state) {
    case CONN_CONNECTING:
        conn_connected(c);
        return;
    case CONN_SHAKING:
        conn_shake(c);
        return;
    case CONN_SENDING:
        conn_write(c);
        return;
    case CONN_HEAD:
    case CONN_BODY:
        conn_read_some(c);
        return;
    case CONN_READY: /* closed by the server, or bytes that nobody asked for */
        conn_close(c);
        if (c->w->dropped != NULL)
            c->w->dropped(c);
        return;
    case CONN_CLOSED: /* closed earlier in this round of the loop */
        return;
    }
}

static inline void conn_fail_later(struct worker *w, void *arg)
{
    (void)w;
    conn_fail(arg, FAIL_CONNECT);
}

static inline bool conn_open(struct conn *c)
{
    c->fd = socket(c->to->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket: %s; ulimit -n raises the limit of open files", strerror(errno));
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (c->w->receive_buffer > 0)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &c->w->receive_buffer, sizeof c->w->receive_buffer);
    if (c->w->source_addresses > 0) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + c->index % c->w->source_addresses);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0)
            die("bind to a source address: %s", strerror(errno));
    }
    int r = connect(c->fd, (const struct sockaddr *)&c->to->addr, c->to->len);
    if (r != 0 && errno != EINPROGRESS)
        return false;
    c->state = CONN_CONNECTING;
    c->watching = EPOLLOUT;
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(c->w->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
    return true;
}

/* Starts a request; `out` stays put until the answer. */
static inline void conn_send(struct conn *c, const char *out, size_t n, bool head_only)
{
    c->out = out;
    c->out_len = n;
    c->out_sent = 0;
    c->head_only = head_only;
    c->counted = c->ended = c->in_digest_header = false;
    c->status = 0;
    c->length = c->got = 0;
    c->first = c->last = 0;
    c->digest_header[0] = '\0';
    c->began = now_ns();
    if (c->verify)
        sha256_init(&c->hash);
    llhttp_init(&c->parser, HTTP_RESPONSE, conn_settings(c->w));
    c->parser.data = c;
    if (c->state == CONN_READY) {
        c->state = CONN_SENDING;
        conn_write(c);
    } else if (!conn_open(c)) {
        timer_add(c->w, 0, conn_fail_later, c);
    }
}

static inline void conn_setup(struct conn *c, struct worker *w, const struct endpoint *to, unsigned index,
                              void *owner)
{
    c->w = w;
    c->to = to;
    c->fd = -1;
    c->state = CONN_CLOSED;
    c->index = index;
    c->owner = owner;
}

/* ---- worker ---- */

static inline struct worker *worker_new(unsigned index)
{
    struct worker *w = xzalloc(1, sizeof *w);
    w->stats = xzalloc(1, sizeof *w->stats);
    w->index = index;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0)
        die("epoll_create1: %s", strerror(errno));
    return w;
}

static inline void worker_run(struct worker *w)
{
    struct epoll_event events[256];
    while (!w->stop) {
        int64_t now = now_ns();
        while (!w->stop && w->n_timers > 0 && w->timers[0].at <= now) {
            struct timer t = timer_pop(w);
            t.fn(w, t.arg);
        }
        if (w->stop)
            break;
        struct timespec wait = {.tv_sec = 1};
        if (w->n_timers > 0) {
            now = now_ns();
            int64_t left = w->timers[0].at > now ? w->timers[0].at - now : 0;
            wait = (struct timespec){.tv_sec = left / NS_PER_SEC, .tv_nsec = left % NS_PER_SEC};
        }
        int n = epoll_pwait2(w->epoll, events, 256, &wait, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2: %s", strerror(errno));
        for (int i = 0; i < n && !w->stop; i++)
            conn_event(events[i].data.ptr);
        atomic_store_explicit(&w->shown_requests, w->stats->requests, memory_order_relaxed);
        atomic_store_explicit(&w->shown_bytes, w->received, memory_order_relaxed);
    }
}

/* ---- statistics ---- */

static inline void stats_fail(struct stats *s, const struct conn *c, enum fail why)
{
    s->fails[why]++;
    s->bytes += c->got;
}

/* One answer or one client: `began` is when it was meant to start. */
static inline void stats_good(struct stats *s, int64_t began, int64_t first, int64_t last)
{
    s->requests++;
    hist_add(&s->first, first > began ? (uint64_t)(first - began) : 0);
    hist_add(&s->total, last > began ? (uint64_t)(last - began) : 0);
    if (s->first_at == 0 || first < s->first_at)
        s->first_at = first;
    if (first > s->first_at_max)
        s->first_at_max = first;
    if (last > s->last_at)
        s->last_at = last;
}

static inline void stats_merge(struct stats *to, const struct stats *from)
{
    to->requests += from->requests;
    to->bytes += from->bytes;
    to->left += from->left;
    to->full += from->full;
    to->resumed += from->resumed;
    for (unsigned i = 0; i < FAIL_COUNT; i++)
        to->fails[i] += from->fails[i];
    for (unsigned i = 0; i < 6; i++)
        to->status_class[i] += from->status_class[i];
    if (from->first_at != 0 && (to->first_at == 0 || from->first_at < to->first_at))
        to->first_at = from->first_at;
    if (from->first_at_max > to->first_at_max)
        to->first_at_max = from->first_at_max;
    if (from->last_at > to->last_at)
        to->last_at = from->last_at;
    hist_merge(&to->first, &from->first);
    hist_merge(&to->total, &from->total);
}

#endif
