/* TLS in front of a plain peer: a core of its own that accepts, speaks TLS, and carries bytes to and from a plain port. The peer's end is
 * passed on as close_notify and FIN, its reset as FIN alone: a truncation.
 *
 * Certificates are made once per program (front_pki_open): a root, and a leaf for localhost, 127.0.0.1, r.test and *.r.test. */
#ifndef LARDER_TESTS_HTTP_TLS_FRONT_H
#define LARDER_TESTS_HTTP_TLS_FRONT_H

#include "rig.h"

#include "../net/pki.h"

#include "base/list.h"
#include "base/mem.h"
#include "net/stream.h"
#include "net/tls.h"

#define FRONT_PIECE 16384

struct front {
    struct rig rig;
    uint16_t port;         /* where it listens */
    struct sockaddr_in to; /* the plain peer */
    struct identity *identity;
    struct tls_cache *cache;
    struct listener *listener;
    struct list relays;
    unsigned refused; /* handshakes that failed */
};

/* One direction: from -> to. */
struct front_way {
    size_t n, at;
    char buf[FRONT_PIECE];
};

struct front_relay {
    struct list_node node;
    struct front *front;
    struct stream *tls, *under, *plain;
    bool peer_over; /* the plain peer has ended */
    struct front_way in, out;
};

static inline void front_relay_close(struct front_relay *r)
{
    list_remove(&r->node);
    stream_close(r->tls, false);
    if (r->plain != NULL)
        stream_close(r->plain, false);
    mem_free(r);
}

/* False: the way is over; *broken: not by a clean end. */
static inline bool front_way_run(struct front_way *w, struct stream *from, struct stream *to, bool *broken)
{
    for (;;) {
        while (w->at < w->n) {
            struct iovec v = {w->buf + w->at, w->n - w->at};
            ssize_t put = stream_writev(to, &v, 1, false);
            if (put == STREAM_AGAIN)
                return true;
            if (put < 0)
                return false;
            w->at += (size_t)put;
        }
        w->n = w->at = 0;
        ssize_t got = stream_recv(from, w->buf, sizeof w->buf);
        if (got == STREAM_AGAIN)
            return true;
        *broken = got == STREAM_BROKEN;
        if (got <= 0)
            return false;
        w->n = (size_t)got;
    }
}

static inline void front_relay_run(struct front_relay *r)
{
    bool broken = false;
    if (!front_way_run(&r->in, r->tls, r->plain, &broken)) { /* the client has gone */
        front_relay_close(r);
        return;
    }
    if (!r->peer_over && !front_way_run(&r->out, r->plain, r->tls, &broken)) {
        r->peer_over = true;
        if (!broken) {
            front_relay_close(r);
            return;
        }
        stream_shut(r->under);
    }
    stream_want(r->tls,
                (r->in.n == 0 ? STREAM_READ : 0) | (r->out.n > 0 && !r->peer_over ? STREAM_WRITE : 0));
    stream_want(r->plain,
                (r->out.n == 0 && !r->peer_over ? STREAM_READ : 0) | (r->in.n > 0 ? STREAM_WRITE : 0));
}

static inline void front_ready(struct stream *s, unsigned events)
{
    (void)events;
    front_relay_run(s->owner);
}

static inline void front_shaken(struct stream *s, unsigned events)
{
    (void)events;
    struct front_relay *r = s->owner;
    struct resolve_addr to = {.u.v4 = r->front->to, .len = sizeof r->front->to};
    const char *why;
    if (!stream_connected(s)) {
        r->front->refused++;
        front_relay_close(r);
        return;
    }
    r->plain = tcp_connect(r->front->rig.core, &to, &why);
    MUST(r->plain != NULL);
    r->plain->owner = r;
    r->plain->ready = r->tls->ready = front_ready;
    stream_want(r->tls, STREAM_READ);
    stream_want(r->plain, STREAM_READ);
}

static inline void front_accepted(struct core *core, int fd, void *arg)
{
    struct front *f = arg;
    struct front_relay *r;
    NEW(r);
    r->front = f;
    r->under = tcp_accepted(core, fd);
    MUST(r->under != NULL);
    r->tls = tls_server(r->under, f->identity, f->cache);
    r->tls->owner = r;
    r->tls->ready = front_shaken;
    stream_want(r->tls, STREAM_WRITE);
    list_push_back(&f->relays, &r->node);
}

static inline void front_do_start(void *arg)
{
    struct front *f = arg;
    char buf[256];
    struct str why = STR_INIT(buf);
    int fd;
    MUST(listen_open(SPAN("127.0.0.1"), 0, false, 1, &fd, &f->port, &why));
    f->cache = tls_cache_new();
    f->listener = listener_start(f->rig.core, fd, front_accepted, f);
}

static inline void front_do_stop(void *arg)
{
    struct front *f = arg;
    listener_stop(f->listener);
    while (!list_empty(&f->relays))
        front_relay_close(CONTAINER_OF(list_first(&f->relays), struct front_relay, node));
    tls_cache_free(f->cache);
}

static inline void front_do_forget(void *arg)
{
    struct front *f = arg;
    tls_cache_free(f->cache);
    f->cache = tls_cache_new();
}

/* The server has lost its sessions. */
static inline void front_forget(struct front *f)
{
    rig_do(&f->rig, front_do_forget, f);
}

static inline struct trust *front_trust(const char *root)
{
    char buf[512];
    struct str why = STR_INIT(buf);
    struct trust *t = trust_new(pki_text(root, NULL), NULL, true, &why);
    MUST(t != NULL);
    return t;
}

static inline void front_start(struct front *f, const struct sockaddr_in *to)
{
    char buf[512];
    struct str why = STR_INIT(buf);
    *f = (struct front){.to = *to};
    list_init(&f->relays);
    f->identity = identity_new(pki_text("leaf", NULL), pki_key("leaf"), &why);
    MUST(f->identity != NULL);
    rig_start(&f->rig);
    rig_do(&f->rig, front_do_start, f);
}

static inline void front_stop(struct front *f)
{
    rig_do(&f->rig, front_do_stop, f);
    rig_stop(&f->rig);
    identity_unref(f->identity);
}

static inline void front_pki_open(void)
{
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Test Root", .authority = true});
    pki_make(&(struct pki_how){"other", .cn = "Other Root", .authority = true});
    pki_make(&(struct pki_how){"leaf", .cn = "leaf", .issuer = "root",
                               .names = "DNS:localhost,DNS:r.test,DNS:*.r.test,IP:127.0.0.1"});
}

#endif
