/* Dialling: the steps from a name to a stream, each begun when the one before is over (go_on):
 *
 *   LOOKUP      the name is looked up; not for a name of the `addresses` map
 *   REACH       connections to the addresses are tried: attempts [0, next) have begun, `under_way` of them are open
 *   PROXY_TLS   the handshake with a proxy that is spoken to by TLS
 *   TUNNEL      CONNECT is sent, and its answer read
 *   ORIGIN_TLS  the handshake with the origin, perhaps inside the tunnel
 *
 * From the end of REACH on there is one stream, and on_ready is called for it. Everything begins in a deferred call, so that no result
 * comes from within dial_start. The state is freed before `done` is called: the owner may dial again with the same struct.
 *
 * The name that is looked up, or found in the map, is that of whoever is connected to: the proxy's when there is one. The origin's name
 * goes to the proxy as it is. */
#include "http/dial.h"

#include <arpa/inet.h>

#include "base/err.h"
#include "base/mem.h"
#include "http/h1.h"
#include "http/url.h"

#define HEDGE_MS        250 /* RFC 8305 section 5 */
#define HOST_MAX        255
#define TUNNEL_HEAD_MAX 8192
#define TUNNEL_SEND_MAX 4096
#define INTERIM_MAX     8
#define WHY_RESERVED    16 /* of `why`, for "; and 7 more" */

enum dial_at { LOOKUP, REACH, PROXY_TLS, TUNNEL, ORIGIN_TLS };

struct attempt {
    struct dial_state *st;
    struct stream *stream; /* NULL: not begun, or over */
};

/* A CONNECT under way. */
struct tunnel {
    char request[TUNNEL_SEND_MAX];
    size_t n, sent;
    struct h1 parser;
    struct h1_head head;
    unsigned matched; /* how much of CRLF CRLF, the head's end, was read last */
    unsigned interim; /* 1xx answers so far */
    char buf[TUNNEL_HEAD_MAX];
};

struct dial_state {
    struct core *core;
    struct dial *d;
    enum dial_at at;
    const struct http_proxy *proxy; /* NULL: direct */
    struct defer later;
    struct resolve_wait resolve;
    struct resolve_addr to[DIAL_TRIES]; /* in the order of the attempts */
    unsigned n, next, under_way;
    unsigned unnamed; /* failures for which `why` had no room */
    struct attempt attempts[DIAL_TRIES];
    struct timer hedge;
    struct str why; /* over d->why */
    struct stream *stream;
    unsigned peer; /* it leads to this address */
    struct tunnel *tunnel;
};

uint64_t dial_serial(void)
{
    static _Atomic uint64_t last;
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

/* ---- names and addresses in words ---- */

static struct span without_dot(struct span host)
{
    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    return host;
}

/* host:port, an IPv6 address in brackets. */
static void add_host_port(struct str *out, struct span host, uint16_t port)
{
    bool v6 = span_find(host, ':') >= 0;
    str_addz(out, v6 ? "[" : "");
    str_add(out, host);
    str_addz(out, v6 ? "]:" : ":");
    str_addu(out, port);
}

static void add_address(struct str *out, const struct resolve_addr *a)
{
    char text[INET6_ADDRSTRLEN] = "";
    bool v6 = a->u.sa.sa_family == AF_INET6;
    inet_ntop(a->u.sa.sa_family, v6 ? (const void *)&a->u.v6.sin6_addr : &a->u.v4.sin_addr, text,
              sizeof text);
    add_host_port(out, span_str(text), ntohs(v6 ? a->u.v6.sin6_port : a->u.v4.sin_port));
}

/* Whose address follows. */
static void add_proxy(const struct dial_state *st, struct str *out)
{
    if (st->proxy == NULL)
        return;
    str_addz(out, "the proxy ");
    str_add(out, st->proxy->shown);
    str_addz(out, " at ");
}

static void add_step(const struct dial_state *st, struct str *out)
{
    const struct dial *d = st->d;
    const char *between = "";
    switch (st->at) {
    case LOOKUP:
        str_addz(out, "the look-up of ");
        str_add(out, st->proxy != NULL ? st->proxy->host : d->host);
        break;
    case REACH:
        str_addz(out, "a connection to ");
        add_proxy(st, out);
        for (unsigned i = 0; i < st->next; i++) {
            if (st->attempts[i].stream == NULL)
                continue;
            str_addz(out, between);
            add_address(out, &st->to[i]);
            between = ", ";
        }
        break;
    case PROXY_TLS:
        str_addz(out, "the TLS handshake with the proxy ");
        str_add(out, st->proxy->shown);
        break;
    case TUNNEL:
        str_addz(out, "the answer of the proxy ");
        str_add(out, st->proxy->shown);
        str_addz(out, " to CONNECT ");
        add_host_port(out, d->host, d->port);
        break;
    case ORIGIN_TLS:
        str_addz(out, "the TLS handshake with ");
        if (st->proxy == NULL) {
            add_address(out, &st->to[st->peer]);
            break;
        }
        add_host_port(out, d->host, d->port);
        str_addz(out, " through the proxy ");
        str_add(out, st->proxy->shown);
        break;
    }
}

void dial_progress(const struct dial *d, struct str *out)
{
    const struct dial_state *st = d->state;
    if (st == NULL)
        return;
    add_step(st, out);
    if (st->at == REACH && st->why.n > 0) {
        str_addz(out, " (");
        str_add(out, str_span(&st->why));
        str_addc(out, ')');
    }
}

/* ---- the end ---- */

static void tunnel_free(struct dial_state *st)
{
    if (st->tunnel != NULL)
        mem_wipe(st->tunnel->request, sizeof st->tunnel->request);
    FREE(st->tunnel);
}

static void attempts_close(struct dial_state *st)
{
    timer_disarm(&st->hedge);
    for (unsigned i = 0; i < st->next; i++) {
        if (st->attempts[i].stream != NULL)
            stream_close(st->attempts[i].stream, false);
        st->attempts[i].stream = NULL;
    }
    st->under_way = 0;
}

void dial_cancel(struct dial *d)
{
    struct dial_state *st = d->state;
    if (st == NULL)
        return;
    d->state = NULL;
    defer_cancel(&st->later);
    resolve_cancel(&st->resolve);
    attempts_close(st);
    if (st->stream != NULL)
        stream_close(st->stream, false);
    tunnel_free(st);
    mem_free(st);
}

/* What is wrong is in st->why. */
static void dial_fail(struct dial_state *st, int err)
{
    struct dial *d = st->d;
    dial_cancel(d);
    d->err = err;
    d->done(d);
}

/* At the present step. */
static void step_fail(struct dial_state *st, int err, const char *why)
{
    str_reset(&st->why);
    add_step(st, &st->why);
    str_addz(&st->why, ": ");
    str_addz(&st->why, why);
    dial_fail(st, err);
}

static void stand(struct dial_state *st)
{
    struct dial *d = st->d;
    d->stream = st->stream;
    st->stream = NULL;
    d->peer = st->proxy != NULL ? ADDRESS_PUBLIC : address_kind(&st->to[st->peer].u.sa);
    if (st->proxy != NULL) {
        COUNT(core_counters(st->core), upstream_proxied, 1);
        d->absolute = !d->tls;
        if (d->absolute)
            d->proxy_authorization = st->proxy->authorization;
    }
    stream_want(d->stream, 0);
    dial_cancel(d);
    d->done(d);
}

/* ---- TLS ---- */

static void go_on(struct dial_state *st);
static void tunnel_turn(struct dial_state *st);

static void secured(struct dial_state *st)
{
    if (!stream_connected(st->stream)) {
        COUNT(core_counters(st->core), upstream_tls_failures, 1);
        step_fail(st, ERR_UP_TLS, stream_why(st->stream));
        return;
    }
    COUNT(core_counters(st->core), upstream_tls_handshakes, 1);
    if (tls_resumed(st->stream))
        COUNT(core_counters(st->core), upstream_tls_resumed, 1);
    go_on(st);
}

static void on_ready(struct stream *s, unsigned events)
{
    UNUSED(events);
    struct dial_state *st = s->owner;
    if (st->at == TUNNEL)
        tunnel_turn(st);
    else
        secured(st);
}

static void secure(struct dial_state *st, enum dial_at at)
{
    const struct dial *d = st->d;
    struct tls_client how = {.trust = d->how->trust};
    if (at == ORIGIN_TLS) {
        how.identity = d->how->identity;
        how.host = without_dot(d->host);
        how.session = d->session;
    } else {
        how.host = without_dot(st->proxy->host);
    }
    st->at = at;
    st->stream = tls_client(st->stream, &how);
    st->stream->owner = st;
    st->stream->ready = on_ready;
    stream_want(st->stream, STREAM_WRITE);
}

/* ---- CONNECT ---- */

static void tunnel_open(struct dial_state *st)
{
    const struct dial *d = st->d;
    struct tunnel *t = mem_alloc(sizeof *t);
    memset(t, 0, offsetof(struct tunnel, buf));
    struct str s = STR_INIT(t->request);
    str_addz(&s, "CONNECT ");
    add_host_port(&s, d->host, d->port);
    str_addz(&s, " HTTP/1.1\r\nHost: ");
    add_host_port(&s, d->host, d->port);
    str_addz(&s, "\r\nUser-Agent: larder\r\n");
    if (st->proxy->authorization.p != NULL) {
        str_addz(&s, "Proxy-Authorization: ");
        str_add(&s, st->proxy->authorization);
        str_addz(&s, "\r\n");
    }
    str_addz(&s, "\r\n");
    MUST(!s.cut);
    t->n = s.n;
    t->head.buf = t->buf;
    t->head.cap = sizeof t->buf;
    h1_init_response(&t->parser, &t->head,
                     true); /* no body, whatever its fields say (RFC 9110 section 9.3.6) */
    st->tunnel = t;
    st->at = TUNNEL;
    st->stream->owner = st;
    st->stream->ready = on_ready;
    tunnel_turn(st);
}

static void tunnel_refused(struct dial_state *st, unsigned status)
{
    struct str *why = &st->why;
    str_reset(why);
    str_addz(why, "the proxy ");
    str_add(why, st->proxy->shown);
    if (status == 407 && st->proxy->authorization.p == NULL) {
        str_addz(why, " wants a user and a password in its URL");
    } else if (status == 407) {
        str_addz(why, " does not take the user and password of its URL");
    } else {
        str_addz(why, " refuses a tunnel to ");
        add_host_port(why, st->d->host, st->d->port);
    }
    str_addf(why, " (status %u)", status);
    dial_fail(st, ERR_UP_CONNECT);
}

static unsigned end_matched(unsigned matched, char c)
{
    if (c == '\r')
        return matched == 2 ? 3 : 1;
    if (c == '\n' && (matched == 1 || matched == 3))
        return matched + 1;
    return 0;
}

/* False: it is over, one way or the other. */
static bool tunnel_feed(struct dial_state *st, const char *p, size_t n)
{
    struct tunnel *t = st->tunnel;
    for (size_t i = 0; i < n; i++)
        t->matched = end_matched(t->matched, p[i]);
    t->matched %= 4; /* an empty line before the head is none of its end */
    enum h1_event event;
    (void)h1_feed(&t->parser, p, n, &event);
    if (event == H1_MORE)
        return true;
    if (event != H1_HEADED) {
        step_fail(st, ERR_UP_CONNECT, h1_error(&t->parser));
        return false;
    }
    if (t->head.status < 200 && t->interim++ < INTERIM_MAX) {
        h1_next(&t->parser, &t->head, true);
        return true;
    }
    if (t->head.status < 200 || t->head.status > 299) {
        tunnel_refused(st, t->head.status);
        return false;
    }
    tunnel_free(st);
    go_on(st);
    return false;
}

/* Reads the answer's head and not a byte more, because what follows belongs to the tunnel: as many bytes as its end is away at
 * least. */
static void tunnel_read(struct dial_state *st)
{
    struct tunnel *t = st->tunnel;
    for (;;) {
        char piece[4];
        size_t most = sizeof piece - t->matched;
        ssize_t n = stream_recv(st->stream, piece, most);
        if (n == STREAM_AGAIN) {
            stream_want(st->stream, STREAM_READ);
            return;
        }
        if (n <= 0) {
            step_fail(st, ERR_UP_CONNECT, n == 0 ? "closed by the proxy" : stream_why(st->stream));
            return;
        }
        if (!tunnel_feed(st, piece, (size_t)n))
            return;
    }
}

static void tunnel_turn(struct dial_state *st)
{
    struct tunnel *t = st->tunnel;
    while (t->sent < t->n) {
        struct iovec v = {t->request + t->sent, t->n - t->sent};
        ssize_t n = stream_writev(st->stream, &v, 1, false);
        if (n == STREAM_AGAIN) {
            stream_want(st->stream, STREAM_WRITE);
            return;
        }
        if (n < 0) {
            step_fail(st, ERR_UP_CONNECT, stream_why(st->stream));
            return;
        }
        t->sent += (size_t)n;
    }
    tunnel_read(st);
}

/* ---- reaching an address ---- */

static void reach_on(struct dial_state *st);

/* One after the other in `why`, "connect 10.0.0.1:443: Connection refused; [::1]:443: Network is unreachable"; those without room are
 * counted. */
static void note_failure(struct dial_state *st, unsigned i, const char *why)
{
    COUNT(core_counters(st->core), upstream_address_failures, 1);
    char text[sizeof st->d->why];
    struct str one = STR_INIT(text);
    if (st->why.n > 0) {
        str_addz(&one, "; ");
    } else {
        str_addz(&one, "connect ");
        add_proxy(st, &one);
    }
    add_address(&one, &st->to[i]);
    str_addz(&one, ": ");
    str_addz(&one, why);
    if (st->unnamed > 0 || (st->why.n > 0 && one.n + WHY_RESERVED > st->why.cap - st->why.n))
        st->unnamed++;
    else
        str_add(&st->why, str_span(&one));
}

static void reached(struct dial_state *st, unsigned i)
{
    st->peer = i;
    st->stream = st->attempts[i].stream;
    st->attempts[i].stream = NULL;
    attempts_close(st);
    str_reset(&st->why);
    stream_want(st->stream, 0);
    go_on(st);
}

static void on_attempt(struct stream *s, unsigned events)
{
    UNUSED(events);
    struct attempt *a = s->owner;
    struct dial_state *st = a->st;
    unsigned i = (unsigned)(a - st->attempts);
    if (stream_connected(s)) {
        reached(st, i);
        return;
    }
    note_failure(st, i, stream_why(s));
    stream_close(s, false);
    a->stream = NULL;
    st->under_way--;
    reach_on(st);
}

static bool attempt_begin(struct dial_state *st, unsigned i)
{
    const char *why;
    struct attempt *a = &st->attempts[i];
    a->st = st;
    a->stream = tcp_connect(st->core, &st->to[i], &why);
    if (a->stream == NULL) {
        note_failure(st, i, why);
        return false;
    }
    st->under_way++;
    a->stream->owner = a;
    a->stream->ready = on_attempt;
    stream_want(a->stream, STREAM_WRITE);
    return true;
}

/* The next attempt: at the beginning, when one has failed, and when one takes long. */
static void reach_on(struct dial_state *st)
{
    timer_disarm(&st->hedge);
    while (st->next < st->n) {
        if (!attempt_begin(st, st->next++))
            continue;
        if (st->next < st->n)
            timer_arm(st->core, &st->hedge, HEDGE_MS);
        return;
    }
    if (st->under_way > 0)
        return;
    if (st->unnamed > 0)
        str_addf(&st->why, "; and %u more", st->unnamed);
    dial_fail(st, ERR_UP_CONNECT);
}

static void on_hedge(struct timer *t)
{
    reach_on(CONTAINER_OF(t, struct dial_state, hedge));
}

/* The first one that is not taken and of the family (AF_UNSPEC: of any), or n. */
static unsigned next_of(const struct resolve_answer *a, const bool *taken, int family)
{
    unsigned i = 0;
    while (i < a->n && (taken[i] || (family != AF_UNSPEC && a->addr[i].u.sa.sa_family != family)))
        i++;
    return i;
}

/* The families in turn, that of the first address first; within a family the order stays (RFC 8305 section 4). */
static void reach(struct dial_state *st, const struct resolve_answer *a)
{
    bool taken[RESOLVE_ADDRS] = {false};
    int family = a->addr[0].u.sa.sa_family;
    for (; st->n < a->n; st->n++) {
        unsigned pick = next_of(a, taken, family);
        if (pick == a->n)
            pick = next_of(a, taken, AF_UNSPEC);
        taken[pick] = true;
        st->to[st->n] = a->addr[pick];
        family = a->addr[pick].u.sa.sa_family == AF_INET ? AF_INET6 : AF_INET;
    }
    st->at = REACH;
    reach_on(st);
}

/* ---- the beginning ---- */

/* What cannot stand in a request line or be looked up. */
static bool host_ok(struct span host)
{
    for (size_t i = 0; i < host.n; i++) {
        if (host.p[i] <= ' ' || host.p[i] > '~')
            return false;
    }
    return host.n > 0 && host.n <= HOST_MAX;
}

static void set_port(struct resolve_addr *a, uint16_t port)
{
    in_port_t *p = a->u.sa.sa_family == AF_INET6 ? &a->u.v6.sin6_port : &a->u.v4.sin_port;
    if (*p == 0)
        *p = htons(port);
}

static void map_find(const struct dial_how *how, struct span host, uint16_t port, struct resolve_answer *out)
{
    host = without_dot(host);
    for (size_t i = 0; i < how->n_addresses && out->n < RESOLVE_ADDRS; i++) {
        if (!span_ieq(how->addresses[i].host, host))
            continue;
        out->addr[out->n] = how->addresses[i].addr;
        set_port(&out->addr[out->n++], port);
    }
}

static void unreachable(struct dial_state *st, enum address_kind kind)
{
    str_add(&st->why, st->d->host);
    str_addz(&st->why, " is ");
    str_addz(&st->why, address_kind_name(kind));
    str_addz(&st->why, ", to which only the operator may lead");
    dial_fail(st, ERR_UP_REDIRECT);
}

/* Only what may be reached stays. False: nothing did, and it has failed. */
static bool guard(struct dial_state *st, struct resolve_answer *a)
{
    const struct dial *d = st->d;
    unsigned kept = 0;
    enum address_kind kind = ADDRESS_PUBLIC;
    for (unsigned i = 0; i < a->n; i++) {
        enum address_kind one = address_kind(&a->addr[i].u.sa);
        if (address_reachable(d->near, one))
            a->addr[kept++] = a->addr[i];
        else
            kind = one;
    }
    a->n = kept;
    if (kept == 0)
        unreachable(st, kind);
    return kept > 0;
}

static void looked_up(struct dial_state *st)
{
    struct resolve_answer *a = &st->resolve.answer;
    if (a->n == 0)
        step_fail(st, ERR_UP_RESOLVE, a->why);
    else if (!st->d->guarded || st->proxy != NULL || guard(st, a))
        reach(st, a);
}

static void on_resolved(struct resolve_wait *w)
{
    looked_up(CONTAINER_OF(w, struct dial_state, resolve));
}

static void look_up(struct dial_state *st)
{
    const struct dial *d = st->d;
    struct span host = st->proxy != NULL ? st->proxy->host : d->host;
    uint16_t port = st->proxy != NULL ? st->proxy->port : d->port;
    struct resolve_answer mapped = {.n = 0};
    enum address_kind kind;
    if (d->guarded && st->proxy == NULL)
        st->resolve.stranger = d->how != NULL ? d->how->serial : UINT64_MAX;
    if (d->how != NULL)
        map_find(d->how, host, port, &mapped);
    if (d->guarded && st->proxy != NULL && address_kind_of_text(d->host, &kind) &&
        !address_reachable(d->near, kind))
        unreachable(st, kind); /* a proxy looks names up by itself, but a literal needs no look-up */
    else if (mapped.n > 0)
        reach(st, &mapped);
    else if (resolve_start(st->core, host, port, &st->resolve))
        looked_up(st);
}

static void on_later(struct defer *later)
{
    struct dial_state *st = CONTAINER_OF(later, struct dial_state, later);
    struct dial *d = st->d;
    if (!host_ok(d->host)) {
        str_addz(&st->why, "not a host name");
        dial_fail(st, ERR_UP_RESOLVE);
        return;
    }
    if (d->how != NULL)
        st->proxy = proxies_for(d->how->proxies, d->tls, without_dot(d->host), d->port);
    if ((d->tls || (st->proxy != NULL && st->proxy->tls)) && (d->how == NULL || d->how->trust == NULL)) {
        str_addz(
            &st->why,
            "https needs root certificates, and there are none: install the system's, or name a file of them "
            "with the key `ca`");
        dial_fail(st, ERR_UP_TLS);
        return;
    }
    look_up(st);
}

void dial_start(struct core *core, struct dial *d)
{
    core_check(core);
    MUST(d->state == NULL);
    d->stream = NULL;
    d->absolute = false;
    d->proxy_authorization = SPAN_NONE;
    d->err = 0;
    struct dial_state *st;
    NEW(st);
    st->core = core;
    st->d = d;
    st->why = STR_INIT(d->why);
    st->resolve.done = on_resolved;
    timer_init(&st->hedge, on_hedge);
    defer_init(&st->later, on_later);
    defer_start(core, &st->later);
    d->state = st;
}

static void go_on(struct dial_state *st)
{
    const struct http_proxy *proxy = st->proxy;
    if (st->at < PROXY_TLS && proxy != NULL && proxy->tls)
        secure(st, PROXY_TLS);
    else if (st->at < TUNNEL && proxy != NULL && st->d->tls)
        tunnel_open(st);
    else if (st->at < ORIGIN_TLS && st->d->tls)
        secure(st, ORIGIN_TLS);
    else
        stand(st);
}
