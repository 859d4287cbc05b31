/* Upstream connections and calls.
 *
 * A call's states, and who moves it:
 *
 *   WAITING     for its first turn, or for a connection       -> CONNECTING or SENT (call_go_on)
 *   CONNECTING  a connection is dialled (dial.h)             -> SENT (on_dialled)
 *   SENT        the request is out, the head is not there    -> HEADED (read_head)
 *   HEADED      the body is being read                       -> END (call_read)
 *   FAILED      from any of them
 *
 * A connection (upconn) belongs to one call, or is idle in its origin's list, newest first: the ones that are not needed
 * grow old and are closed by their timer. An idle connection that becomes readable has been closed (or spoken out of
 * turn) and goes. In between it may be `resting`: its call has ended before the body did (a redirect, a 401 or a 404 has a
 * few words that nobody reads), and what is left of it, if that is little, is read off, so that the connection can be used
 * again. A call has its connection from the moment it may have one: while it is dialled, and when it is sent once more. So
 * the number of connections is what the quota has counted. What an answer needs, the head's 32 KiB above all, exists from
 * the request to the call's end; an idle connection is its stream and little more.
 *
 * Connections are shared by the calls that name the same origin and the same way of dialling: that is a place. It goes with its last
 * connection or call, or stays for a while (`rested`) if it has a TLS session. Which origins there are is said by strangers, in redirects: so
 * there are few that stay, and the one that has rested longest makes room.
 *
 * How many connections there may be on all cores, and who has the next one, is the quota's to say (quota.h): a call asks it, and if it has
 * to wait, the place gets a turn (on_turn) when it may go on. In a turn idle connections are closed, too, which another core needs.
 *
 * What came with the head, but behind it, waits in `spill`; after that call_read reads from the socket into the caller's
 * memory and lets the parser find the body in place: with Content-Length nothing is copied. */
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/url.h"
#include "net/stream.h"

#define UPCONN_MAGIC    0x0c110001u
#define KEEP_IDLE_MS    30000
#define KEEP_IDLE_MAX   32               /* per origin and core */
#define KEEP_SESSION_MS (10 * 60 * 1000) /* a TLS session without a connection */
#define KEEP_SESSIONS   256              /* places that stay for it, per core */
#define WAITING_MAX     4096             /* calls per origin and core */
#define READ_HEAD       16384
#define REST_MAX        16384 /* bytes of a body that nobody wants, and how long they may take */
#define REST_MS         300
#define HOST_MAX        255
#define READ_TURN       (1u << 20) /* bytes of a body that are read before others have their turn, where */
#define PIECE_COST      128        /* ... each piece counts as so many more */
#define PLACE_KEY       300

/* An answer under way. */
struct answer {
    struct h1 parser;
    struct h1_head head;
    char buf[CALL_HEAD_MAX];
};

struct upconn {
    unsigned magic;
    bool heard; /* a byte of the present answer has come */
    bool closing;
    bool resting;
    bool secret;                     /* the present answer is: what holds it is wiped */
    bool absolute;                   /* to a proxy that is asked by absolute-form requests, with: */
    struct span proxy_authorization; /* of the place's `how`, which the present call names, too */
    enum address_kind peer;
    struct place *place;
    struct stream *stream; /* NULL: not connected yet */
    struct call *call;     /* NULL: idle or resting */
    struct list_node node; /* place->idle or place->resting */
    struct timer idle;     /* when idle or resting */
    size_t rest;           /* bytes that were read off */
    struct answer *answer; /* from the request to the end of the call, or of the rest */
    char *request;         /* until it is sent */
    size_t request_n, request_sent;
    char *spill;
    size_t spill_n, spill_at;
};

/* What one core knows of one origin that is dialled in one way. */
struct place {
    struct list_node node; /* pool->used or pool->rested */
    char key[PLACE_KEY];
    size_t key_n;
    struct pool *pool;
    uint64_t serial; /* of the way of dialling; 0: none was named */
    bool rests;      /* there is no connection, and no call waits for one */
    bool forgotten;  /* keeps nothing any more */
    struct quota_share *share;
    struct list idle, resting;
    unsigned n_conns, n_idle, n_waiting;
    struct timer rest;
    struct tls_session session;
};

struct pool {
    struct core *core;
    struct quotas *quotas; /* of the ways of dialling that have none of their own */
    struct map places;
    struct list used, rested; /* all of them; who has rested longest first */
    unsigned n_rested;
    bool draining;
};

static void call_go_on(struct call *call);
static void on_stream_ready(struct stream *s, unsigned events);
static void rest_read(struct upconn *u);
static void place_rest(struct place *pl);
static void on_turn(void *owner);
static void on_idle_over(struct timer *t);
static void on_rest_over(struct timer *t);

/* ---- states and events ---- */

static void call_enter(struct call *call, enum call_state state)
{
    call->state = state;
}

static void on_later(struct defer *d)
{
    struct call *call = CONTAINER_OF(d, struct call, later);
    if (call->state == CALL_WAITING)
        call_go_on(call);
    else
        call->event(call);
}

/* A wait of at most ms, cut to the call's deadline. */
static int64_t time_left(const struct call *call, int64_t ms)
{
    int64_t left = call->deadline - core_now(call->pool->core);
    return call->deadline == 0 || left > ms ? ms : left;
}

/* Tells the owner, later in this turn: never from within its own call. */
static void call_tell(struct call *call)
{
    defer_start(call->pool->core, &call->later);
}

static void upconn_close(struct upconn *u);

static void call_wait_over(struct call *call)
{
    struct place *pl = call->place;
    if (pl == NULL)
        return;
    quota_withdraw(&call->wait);
    pl->n_waiting--;
    call->place = NULL;
    place_rest(pl);
}

static void call_fail(struct call *call, int err, const char *what, const char *detail)
{
    if (call->state == CALL_FAILED)
        return;
    call->err = err;
    struct str why = STR_INIT(call->why);
    str_addz(&why, what);
    if (detail != NULL && detail[0] != 0) {
        str_add(&why, SPAN(": "));
        str_addz(&why, detail);
    }
    dial_cancel(&call->dial);
    call_wait_over(call);
    timer_disarm(&call->timer);
    call_enter(call, CALL_FAILED);
    call->head = NULL; /* it lives in the connection */
    if (call->conn != NULL)
        upconn_close(call->conn);
    call_tell(call);
}

/* ---- connections ---- */

static struct place *place_of(struct pool *p, const struct origin *o)
{
    char key[PLACE_KEY];
    struct str k = STR_INIT(key);
    uint64_t serial = o->how != NULL ? o->how->serial : 0;
    str_addu(&k, serial);
    if (o->guarded) {
        str_addz(&k, " g");
        str_addu(&k, o->near);
    }
    size_t origin_at = k.n;
    str_addz(&k, o->tls ? " s" : " p");
    str_addu(&k, o->port);
    str_addc(&k, ' ');
    str_add(&k, o->host);
    MUST(!k.cut);
    struct place *pl = map_get(&p->places, str_span(&k));
    if (pl != NULL)
        return pl;
    NEW(pl);
    memcpy(pl->key, key, k.n);
    pl->key_n = k.n;
    pl->pool = p;
    pl->serial = serial;
    list_init(&pl->idle);
    list_init(&pl->resting);
    timer_init(&pl->rest, on_rest_over);
    pl->share = quota_join(o->how != NULL && o->how->quotas != NULL ? o->how->quotas : p->quotas,
                           span_from(str_span(&k), origin_at), p->core, on_turn, pl);
    map_put(&p->places, span_of(pl->key, pl->key_n), pl);
    list_push_back(&p->used, &pl->node);
    COUNT(core_counters(p->core), upstream_origins, 1);
    return pl;
}

/* It has rested, or is to go. */
static void place_wake(struct place *pl)
{
    if (!pl->rests)
        return;
    pl->rests = false;
    pl->pool->n_rested--;
    timer_disarm(&pl->rest);
    list_remove(&pl->node);
    list_push_back(&pl->pool->used, &pl->node);
}

static void place_free(struct place *pl)
{
    MUST(pl->n_conns == 0 && pl->n_waiting == 0);
    place_wake(pl);
    list_remove(&pl->node);
    COUNT(core_counters(pl->pool->core), upstream_origins, -1);
    quota_leave(pl->share);
    tls_session_clear(&pl->session);
    map_del(&pl->pool->places, span_of(pl->key, pl->key_n));
    mem_free(pl);
}

static void on_rest_over(struct timer *t)
{
    place_free(CONTAINER_OF(t, struct place, rest));
}

static struct upconn *upconn_new(struct place *pl)
{
    struct upconn *u;
    NEW(u);
    u->magic = UPCONN_MAGIC;
    u->place = pl;
    timer_init(&u->idle, on_idle_over);
    pl->n_conns++;
    return u;
}

/* Credentials are in it. */
static void request_drop(struct upconn *u)
{
    if (u->request != NULL)
        mem_wipe(u->request, u->request_n);
    FREE(u->request);
    u->request_n = u->request_sent = 0;
}

static void spill_drop(struct upconn *u)
{
    if (u->secret && u->spill != NULL)
        mem_wipe(u->spill, u->spill_n);
    FREE(u->spill);
}

static void answer_drop(struct upconn *u)
{
    if (u->secret && u->answer != NULL)
        mem_wipe(u->answer, sizeof *u->answer);
    FREE(u->answer);
}

static void upconn_disconnect(struct upconn *u)
{
    if (u->stream != NULL)
        stream_close(u->stream, false);
    u->stream = NULL;
    request_drop(u);
    spill_drop(u);
    answer_drop(u);
}

static void upconn_not_idle(struct upconn *u)
{
    struct place *pl = u->place;
    list_remove(&u->node);
    timer_disarm(&u->idle);
    pl->n_idle--;
    COUNT(core_counters(pl->pool->core), upstream_idle, -1);
}

static void upconn_not_resting(struct upconn *u)
{
    u->resting = false;
    list_remove(&u->node);
    timer_disarm(&u->idle);
}

static void upconn_close(struct upconn *u)
{
    struct place *pl = u->place;
    bool kept = u->call == NULL && !u->resting;
    if (kept)
        upconn_not_idle(u);
    else if (u->resting)
        upconn_not_resting(u);
    else
        u->call->conn = NULL;
    upconn_disconnect(u);
    u->magic = 0;
    mem_free(u);
    pl->n_conns--;
    quota_closed(pl->share, kept);
    place_rest(pl);
}

static void on_idle_over(struct timer *t)
{
    upconn_close(CONTAINER_OF(t, struct upconn, idle));
}

static void upconn_keep(struct upconn *u)
{
    struct place *pl = u->place;
    u->call = NULL;
    spill_drop(u);
    answer_drop(u);
    pl->n_idle++;
    COUNT(core_counters(pl->pool->core), upstream_idle, 1);
    list_push_front(&pl->idle, &u->node);
    timer_arm(pl->pool->core, &u->idle, KEEP_IDLE_MS);
    stream_want(u->stream, STREAM_READ);
    quota_kept(pl->share);
    if (pl->n_idle > KEEP_IDLE_MAX)
        upconn_close(CONTAINER_OF(list_last(&pl->idle), struct upconn, node));
}

/* The call has asked for a connection and got an idle one, or a new one that is still to be connected. */
static void place_give(struct place *pl, struct call *call, enum quota_answer got)
{
    struct upconn *u;
    if (got == QUOTA_KEPT) {
        u = CONTAINER_OF(list_first(&pl->idle), struct upconn, node);
        upconn_not_idle(u);
    } else {
        u = upconn_new(pl);
    }
    u->call = call;
    call->conn = u;
}

/* Nothing of the place may be left. */
static void place_rest(struct place *pl)
{
    struct pool *p = pl->pool;
    if (pl->n_conns > 0 || pl->n_waiting > 0)
        return;
    if (!tls_session_is_some(&pl->session) || pl->forgotten || p->draining) {
        place_free(pl);
        return;
    }
    MUST(!pl->rests);
    if (p->n_rested == KEEP_SESSIONS)
        place_free(CONTAINER_OF(list_first(&p->rested), struct place, node));
    pl->rests = true;
    p->n_rested++;
    list_remove(&pl->node);
    list_push_back(&p->rested, &pl->node);
    timer_arm(p->core, &pl->rest, KEEP_SESSION_MS);
}

static void on_turn(void *owner)
{
    struct place *pl = owner;
    struct quota_wait *w;
    enum quota_answer got;
    while ((w = quota_collect(pl->share, &got)) != NULL) {
        struct call *call = CONTAINER_OF(w, struct call, wait);
        place_give(pl, call, got);
        call->place = NULL;
        pl->n_waiting--;
        call_tell(call);
    }
    for (unsigned n = quota_shed(pl->share); n > 0; n--)
        upconn_close(CONTAINER_OF(list_last(&pl->idle), struct upconn,
                                  node)); /* the last one may take its place along */
}

/* ---- sending the request ---- */

static void add_target(const struct upconn *u, struct str *s)
{
    const struct call *call = u->call;
    if (u->absolute) {
        const struct origin *o = &call->origin;
        struct url to = {
            .tls = o->tls, .host = o->host, .ipv6 = span_find(o->host, ':') >= 0, .port = o->port};
        str_addz(s, "http://");
        url_add_host(&to, s);
    }
    str_add(s, call->target);
}

static void add_field(struct str *s, struct span name, struct span value)
{
    if (value.p == NULL)
        return;
    str_add(s, name);
    str_add(s, value);
    str_addz(s, "\r\n");
}

static void request_write(struct upconn *u)
{
    static const char *const methods[] = {[CALL_GET] = "GET ", [CALL_HEAD] = "HEAD ", [CALL_POST] = "POST "};
    struct call *call = u->call;
    char *buf = core_scratch(call->pool->core);
    struct str s = str_init(buf, CALL_REQUEST_MAX);
    str_addz(&s, methods[call->method]);
    add_target(u, &s);
    str_addz(&s, " HTTP/1.1\r\n");
    add_field(&s, SPAN("Host: "), call->host_field);
    str_addz(&s, "User-Agent: larder\r\nAccept-Encoding: identity\r\n");
    str_add(&s, call->fields);
    add_field(&s, SPAN("Authorization: "), call->authorization);
    if (u->absolute)
        add_field(&s, SPAN("Proxy-Authorization: "), u->proxy_authorization);
    size_t body_n = 0;
    if (call->method == CALL_POST) {
        body_n = call->body.n;
        str_addz(&s, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: ");
        str_addu(&s, body_n);
        str_addz(&s, "\r\n");
    }
    str_addz(&s, "\r\n");
    MUST(!s.cut); /* the owner bounds target, fields and authorization */
    u->request_n = s.n + body_n;
    u->request_sent = 0;
    u->request = mem_alloc(u->request_n);
    memcpy(u->request, buf, s.n);
    mem_wipe(buf, s.n);
    if (body_n > 0)
        memcpy(u->request + s.n, call->body.p, body_n);
}

static bool request_send(struct upconn *u)
{
    while (u->request_sent < u->request_n) {
        struct iovec v = {u->request + u->request_sent, u->request_n - u->request_sent};
        ssize_t n = stream_writev(u->stream, &v, 1, false);
        if (n == STREAM_AGAIN) {
            stream_want(u->stream, STREAM_READ | STREAM_WRITE);
            return true;
        }
        if (n < 0)
            return false;
        u->request_sent += (size_t)n;
    }
    request_drop(u);
    stream_want(u->stream, STREAM_READ);
    return true;
}

static void call_broke(struct call *call, int err, const char *what, const char *detail);

static void call_send(struct call *call)
{
    struct upconn *u = call->conn;
    MUST(u->answer == NULL && u->request == NULL);
    struct answer *a = mem_alloc(sizeof *a);
    memset(a, 0, offsetof(struct answer, buf));
    a->head.buf = a->buf;
    a->head.cap = sizeof a->buf;
    h1_init_response(&a->parser, &a->head, call->method == CALL_HEAD);
    u->answer = a;
    u->heard = false;
    u->secret = call->secret;
    tls_secret(u->stream, call->secret);
    request_write(u);
    call_enter(call, CALL_SENT);
    timer_arm(call->pool->core, &call->timer, time_left(call, call->first_byte_ms));
    if (!request_send(u))
        call_broke(call, ERR_UP_CLOSED, "the request could not be sent", stream_why(u->stream));
}

/* ---- connecting ---- */

static void on_dialled(struct dial *d)
{
    struct call *call = CONTAINER_OF(d, struct call, dial);
    struct upconn *u = call->conn;
    if (d->stream == NULL) {
        COUNT(core_counters(call->pool->core), upstream_connect_failures, 1);
        call_fail(call, d->err, d->why, NULL);
        return;
    }
    COUNT(core_counters(call->pool->core), upstream_connects, 1);
    u->stream = d->stream;
    u->stream->owner = u;
    u->stream->ready = on_stream_ready;
    u->absolute = d->absolute;
    u->proxy_authorization = d->proxy_authorization;
    u->peer = d->peer;
    u->closing = false;
    call_send(call);
}

/* On a new connection, in the place of the one that the call has. */
static void call_reconnect(struct call *call)
{
    const struct origin *o = &call->origin;
    upconn_disconnect(call->conn);
    call->reused = false;
    call_enter(call, CALL_CONNECTING);
    timer_arm(call->pool->core, &call->timer, time_left(call, call->connect_ms));
    call->dial = (struct dial){.how = o->how,
                               .host = o->host,
                               .port = o->port,
                               .tls = o->tls,
                               .guarded = o->guarded,
                               .near = o->near,
                               .session = &call->conn->place->session,
                               .done = on_dialled};
    dial_start(call->pool->core, &call->dial);
}

/* Takes a connection or a place in the queue. False: neither; it has failed. */
static bool call_place(struct call *call)
{
    const struct origin *o = &call->origin;
    if (o->host.n == 0 || o->host.n > HOST_MAX) {
        call_fail(call, ERR_UP_RESOLVE, "not a host name", NULL);
        return false;
    }
    struct place *pl = place_of(call->pool, o);
    place_wake(pl);
    call->wait = (struct quota_wait){.max = o->max_connections, .bulk = call->bulk};
    enum quota_answer got = quota_ask(pl->share, &call->wait);
    if (got != QUOTA_WAIT) {
        place_give(pl, call, got);
        return true;
    }
    call->place = pl;
    if (++pl->n_waiting > WAITING_MAX) {
        call_fail(call, ERR_BUSY, "too many requests wait for a connection to the registry", NULL);
        return false;
    }
    return true;
}

/* WAITING: takes a connection, or a place in the queue; or has been given one. */
static void call_go_on(struct call *call)
{
    if (call->conn == NULL && (!call_place(call) || call->conn == NULL))
        return;
    struct upconn *u = call->conn;
    if (u->stream == NULL || !stream_idle_ok(u->stream)) {
        call_reconnect(call);
        return;
    }
    COUNT(core_counters(call->pool->core), upstream_reused, 1);
    call->reused = true;
    call_send(call);
}

/* ---- receiving ---- */

/* The connection broke or spoke nonsense. Before any byte of the answer on a kept-alive connection: once more, but for a
 * POST, which may have done its work (RFC 9110 section 9.2.2). */
static void call_broke(struct call *call, int err, const char *what, const char *detail)
{
    if (call->reused && !call->retried && !call->conn->heard && err == ERR_UP_CLOSED &&
        call->state == CALL_SENT && call->method != CALL_POST) {
        call->retried = true;
        COUNT(core_counters(call->pool->core), upstream_retries, 1);
        call_reconnect(call);
        return;
    }
    call_fail(call, err, what, detail);
}

static void on_call_timer(struct timer *t)
{
    struct call *call = CONTAINER_OF(t, struct call, timer);
    static const char *const what[] = {
        [CALL_WAITING] = "no free connection to the registry in time",
        [CALL_CONNECTING] = "no connection in time, waiting for",
        [CALL_SENT] = "no answer in time",
        [CALL_HEADED] = "the answer's body stopped coming, or took too long",
    };
    MUST(call->state < ARRAY_LEN(what) && what[call->state] != NULL);
    char text[sizeof call->why];
    struct str progress = STR_INIT(text);
    if (call->state == CALL_CONNECTING) {
        COUNT(core_counters(call->pool->core), upstream_connect_failures, 1);
        dial_progress(&call->dial, &progress);
    }
    call_fail(call, call->state == CALL_WAITING ? ERR_BUSY : ERR_UP_TIMEOUT, what[call->state], text);
}

static void spill_keep(struct upconn *u, const char *p, size_t n)
{
    if (n == 0)
        return;
    u->spill = mem_alloc(n);
    memcpy(u->spill, p, n);
    u->spill_n = n;
    u->spill_at = 0;
}

static void head_complete(struct call *call, const char *rest, size_t n)
{
    struct upconn *u = call->conn;
    struct answer *a = u->answer;
    if (a->head.status < 200) { /* 100, 103: the real answer follows on the same connection */
        enum h1_event end;
        (void)h1_feed(&a->parser, rest, 0, &end);
        h1_next(&a->parser, &a->head, call->method == CALL_HEAD);
        return;
    }
    if (u->absolute && a->head.status == 407) {
        call_fail(call, ERR_UP_CONNECT,
                  "the proxy does not take the user and password of its URL, or wants some", "status 407");
        return;
    }
    spill_keep(u, rest, n);
    if (!a->head.has_body && n > 0)
        u->closing = true; /* it spoke out of turn: not to be used again */
    call->head = &a->head;
    call->peer = u->peer;
    call_enter(call, CALL_HEADED);
    timer_disarm(&call->timer);
    stream_want(u->stream, 0);
    call_tell(call);
}

static void feed_head(struct upconn *u, const char *p, size_t n)
{
    struct call *call = u->call;
    while (n > 0) {
        enum h1_event event;
        size_t used = h1_feed(&u->answer->parser, p, n, &event);
        p += used;
        n -= used;
        if (event == H1_ERROR) {
            call_broke(call, ERR_UP_PROTOCOL, "malformed answer", h1_error(&u->answer->parser));
            return;
        }
        if (event == H1_HEADED)
            head_complete(call, p, n);
        if (call->state != CALL_SENT)
            return;
    }
}

static void read_head(struct upconn *u)
{
    struct call *call = u->call;
    char *buf = core_scratch(call->pool->core);
    ssize_t n = stream_recv(u->stream, buf, READ_HEAD);
    if (n == STREAM_AGAIN)
        return;
    if (n <= 0) {
        call_broke(call, ERR_UP_CLOSED,
                   u->heard ? "closed in the middle of the head" : "closed without an answer",
                   n == STREAM_BROKEN ? stream_why(u->stream) : NULL);
        return;
    }
    u->heard = true;
    bool secret = u->secret; /* u may go */
    feed_head(u, buf, (size_t)n);
    if (secret)
        mem_wipe(buf, (size_t)n);
}

static void on_stream_ready(struct stream *s, unsigned events)
{
    struct upconn *u = s->owner;
    CHECK_MAGIC(u, UPCONN_MAGIC);
    struct call *call = u->call;
    if (u->resting) {
        rest_read(u);
        return;
    }
    if (call == NULL) {
        upconn_close(u);
        return;
    }
    switch (call->state) {
    case CALL_SENT:
        if ((events & STREAM_WRITE) != 0 && u->request != NULL && !request_send(u)) {
            call_broke(call, ERR_UP_CLOSED, "the request could not be sent", stream_why(s));
            break;
        }
        if ((events & STREAM_READ) != 0)
            read_head(u);
        break;
    case CALL_HEADED:
        stream_want(s, 0); /* call_read asks again, and its time goes on unless something has come */
        call->event(call);
        break;
    default:
        stream_want(s, 0);
        break;
    }
}

/* ---- the body ---- */

/* Runs input through the parser, of which it takes what it uses, and gathers the body's bytes at `to` (the input may lie in the same
 * buffer at or behind `to`). Returns how many; *done: the message ended; -1: malformed. It stops when *turn is READ_TURN. */
static ssize_t gather(struct upconn *u, struct span *in, char *to, size_t *turn, bool *done)
{
    size_t got = 0;
    struct h1 *parser = &u->answer->parser;
    for (;;) {
        enum h1_event event;
        size_t used = h1_feed(parser, in->p, in->n, &event);
        *in = span_from(*in, used);
        *turn += used + PIECE_COST;
        switch (event) {
        case H1_BODY:
            if (to + got != parser->body.p)
                memmove(to + got, parser->body.p, parser->body.n);
            got += parser->body.n;
            if (*turn >= READ_TURN && in->n > 0) /* without input it may still be at its end */
                return (ssize_t)got;
            break;
        case H1_DONE:
            *done = true;
            if (in->n > 0)
                u->closing = true; /* it spoke out of turn: not to be used again */
            return (ssize_t)got;
        case H1_MORE:
            return (ssize_t)got;
        case H1_HEADED:
        case H1_ERROR:
            return -1;
        }
    }
}

static ssize_t body_ended(struct call *call)
{
    call_enter(call, CALL_END);
    timer_disarm(&call->timer);
    stream_want(call->conn->stream, 0);
    return 0;
}

static ssize_t call_read_end(struct call *call)
{
    struct upconn *u = call->conn;
    u->closing = true;
    bool whole = h1_eof(&u->answer->parser) == H1_DONE;
    if (whole && tls_ended_well(u->stream))
        return body_ended(call);
    /* A body that ends with the connection is whole if its sender says so: anyone on the way can cut a TCP connection. */
    call_fail(call, ERR_UP_SHORT, "the answer ended early",
              whole ? "the TLS connection ended without close_notify" : NULL);
    return CALL_BROKEN;
}

/* One piece of input: from the spill, else from the socket into buf. */
static ssize_t next_input(struct upconn *u, char *buf, size_t n, const char **from)
{
    if (u->spill != NULL) {
        size_t have = u->spill_n - u->spill_at;
        size_t take = have < n ? have : n;
        *from = u->spill + u->spill_at;
        u->spill_at += take;
        return (ssize_t)take;
    }
    *from = buf;
    return stream_recv(u->stream, buf, n);
}

/* What is left of it waits for another turn. */
static void give_back(struct upconn *u, struct span input)
{
    if (input.n > 0 && u->spill != NULL)
        u->spill_at -= input.n;
    else
        spill_keep(u, input.p, input.n);
}

/* How long the next piece of the body may take. */
static int64_t body_wait(const struct call *call)
{
    return call->whole ? time_left(call, call->idle_ms) : call->idle_ms;
}

/* Lets others have their turn. */
static ssize_t read_later(struct call *call)
{
    call->turn = 0;
    stream_want(call->conn->stream, 0);
    if (call->whole && time_left(call, call->idle_ms) <= 0) {
        call_fail(call, ERR_UP_TIMEOUT, "the answer's body took too long", NULL);
        return CALL_BROKEN;
    }
    call_tell(call);
    return CALL_AGAIN;
}

ssize_t call_read(struct call *call, char *buf, size_t n)
{
    struct upconn *u = call->conn;
    if (call->state == CALL_FAILED)
        return CALL_BROKEN;
    if (call->state == CALL_END)
        return 0;
    MUST(call->state == CALL_HEADED && n > 0);
    if (!u->answer->head.has_body)
        return body_ended(call);
    while (call->turn < READ_TURN) {
        const char *from;
        ssize_t in = next_input(u, buf, n, &from);
        if (in == STREAM_AGAIN) {
            if (call->timer.due == 0)
                timer_arm(call->pool->core, &call->timer, body_wait(call));
            stream_want(u->stream, STREAM_READ);
            call->turn = 0;
            return CALL_AGAIN;
        }
        if (in == STREAM_BROKEN) {
            call_fail(call, ERR_UP_SHORT, "the connection broke", stream_why(u->stream));
            return CALL_BROKEN;
        }
        if (in == 0)
            return call_read_end(call);
        timer_disarm(&call->timer);
        bool done = false;
        struct span input = span_of(from, (size_t)in);
        ssize_t got = gather(u, &input, buf, &call->turn, &done);
        if (got >= 0 && !done)
            give_back(u, input);
        if (u->spill != NULL && u->spill_at == u->spill_n)
            spill_drop(u);
        if (got < 0) {
            call_fail(call, ERR_UP_PROTOCOL, "malformed body", h1_error(&u->answer->parser));
            return CALL_BROKEN;
        }
        if (got > 0)
            COUNT(core_counters(call->pool->core), bytes_from_upstream, got);
        if (done) {
            if (u->spill != NULL)
                u->closing = true; /* there is more than the answer */
            (void)body_ended(call);
            return got;
        }
        if (got > 0)
            return got;
    }
    return read_later(call);
}

void call_pause(struct call *call)
{
    if (call->state != CALL_HEADED)
        return;
    timer_disarm(&call->timer);
    defer_cancel(&call->later);
    stream_want(call->conn->stream, 0);
    call->turn = 0;
}

/* ---- what is left of a body ---- */

static bool may_be_kept(const struct upconn *u)
{
    return u->stream != NULL && u->request == NULL && !u->closing && !u->place->forgotten &&
           !u->place->pool->draining;
}

/* True: all of it has come. *more: there may be more, but not now. */
static bool rest_step(struct upconn *u, bool *more)
{
    char buf[4096];
    const char *from;
    bool done = false;
    size_t turn = 0; /* there is little of it */
    *more = false;
    while (!done && u->rest <= REST_MAX) {
        ssize_t in = next_input(u, buf, sizeof buf, &from);
        if (in == STREAM_AGAIN) {
            *more = true;
            return false;
        }
        if (in <= 0)
            return false;
        u->rest += (size_t)in;
        struct span input = span_of(from, (size_t)in);
        ssize_t got = gather(u, &input, buf, &turn, &done);
        if (u->secret)
            mem_wipe(buf, sizeof buf);
        if (got < 0)
            return false;
        if (u->spill != NULL && u->spill_at == u->spill_n)
            spill_drop(u);
    }
    return done && u->spill == NULL;
}

static void rest_read(struct upconn *u)
{
    bool more, whole = rest_step(u, &more);
    if (more) {
        stream_want(u->stream, STREAM_READ);
        return;
    }
    if (!whole || !may_be_kept(u)) {
        upconn_close(u);
        return;
    }
    upconn_not_resting(u);
    upconn_keep(u);
}

/* The call has gone; its answer's body has not been read to its end. */
static void upconn_rest(struct upconn *u)
{
    struct place *pl = u->place;
    u->call = NULL;
    u->resting = true;
    u->rest = 0;
    list_push_back(&pl->resting, &u->node);
    timer_arm(pl->pool->core, &u->idle, REST_MS);
    rest_read(u);
}

/* ---- life ---- */

void call_start(struct pool *p, struct call *call)
{
    core_check(p->core);
    MUST(call->origin.max_connections > 0);
    call->pool = p;
    call->state = CALL_WAITING;
    call->err = 0;
    call->why[0] = 0;
    call->head = NULL;
    call->conn = NULL;
    call->place = NULL;
    call->dial.state = NULL;
    call->reused = call->retried = false;
    call->turn = 0;
    timer_init(&call->timer, on_call_timer);
    defer_init(&call->later, on_later);
    timer_arm(p->core, &call->timer, time_left(call, call->first_byte_ms));
    COUNT(core_counters(p->core), upstream_active, 1);
    call_tell(call);
}

void call_end(struct call *call)
{
    if (call->state == CALL_IDLE)
        return;
    defer_cancel(&call->later);
    timer_disarm(&call->timer);
    dial_cancel(&call->dial);
    call_wait_over(call);
    COUNT(core_counters(call->pool->core), upstream_active, -1);
    struct upconn *u = call->conn;
    enum call_state was = call->state;
    call->state = CALL_IDLE;
    call->conn = NULL;
    call->head = NULL;
    if (u == NULL)
        return;
    const struct h1_head *head = u->answer != NULL ? &u->answer->head : NULL;
    /* The answer has come to its end and the request is all out; or the call was given the connection just now. */
    bool whole =
        head != NULL ? was == CALL_END || (was == CALL_HEADED && !head->has_body) : was == CALL_WAITING;
    bool little = head != NULL && was == CALL_HEADED && (!head->has_length || head->length <= REST_MAX);
    if (!may_be_kept(u) || (head != NULL && !head->keep_alive))
        upconn_close(u);
    else if (whole)
        upconn_keep(u);
    else if (little)
        upconn_rest(u);
    else
        upconn_close(u);
}

struct pool *pool_new(struct core *core)
{
    struct pool *p;
    NEW(p);
    p->core = core;
    p->quotas = quotas_new();
    map_init(&p->places);
    list_init(&p->used);
    list_init(&p->rested);
    return p;
}

/* Closes what has no call; then it goes, unless there are calls: draining or forgotten it keeps nothing. */
static void place_close(struct place *pl)
{
    place_wake(pl);
    pl->n_waiting++; /* so that it stays until all are closed */
    while (!list_empty(&pl->idle))
        upconn_close(CONTAINER_OF(list_first(&pl->idle), struct upconn, node));
    while (!list_empty(&pl->resting))
        upconn_close(CONTAINER_OF(list_first(&pl->resting), struct upconn, node));
    pl->n_waiting--;
    place_rest(pl);
}

void pool_drain(struct pool *p)
{
    p->draining = true;
    LIST_FOREACH_SAFE (n, next, &p->rested)
        place_close(CONTAINER_OF(n, struct place, node));
    LIST_FOREACH_SAFE (n, next, &p->used)
        place_close(CONTAINER_OF(n, struct place, node));
}

static void places_forget(struct list *places, uint64_t serial)
{
    LIST_FOREACH_SAFE (n, next, places) {
        struct place *pl = CONTAINER_OF(n, struct place, node);
        if (pl->serial != serial)
            continue;
        pl->forgotten = true;
        place_close(pl);
    }
}

void pool_forget(struct pool *p, const struct dial_how *how)
{
    core_check(p->core);
    places_forget(&p->rested, how->serial);
    places_forget(&p->used, how->serial);
}

void pool_free(struct pool *p)
{
    pool_drain(p);
    MUST(p->places.used == 0);
    quotas_unref(p->quotas);
    map_free(&p->places);
    mem_free(p);
}
