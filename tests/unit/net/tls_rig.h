/* What the tests of TLS share: a client and a server, both larder's, at the two ends of a socket pair in one loop; and trust and
 * identities from pki.h. */
#ifndef LARDER_TEST_NET_TLS_RIG_H
#define LARDER_TEST_NET_TLS_RIG_H

#include "../core/loop.h"

#include "pki.h"

#include <sys/socket.h>

#include "net/tls.h"

static struct loop loop;

struct end {
    struct stream *s;
    bool done, ok, resumed;
    char why[400];
};

static struct end client, server;
static struct tls_client how;
static const struct identity *server_identity;
static struct tls_cache *cache;
static void (*ends_shaken)(void); /* after the handshake of both; NULL: they are closed */

static inline void end_close(struct end *e, bool reset)
{
    if (e->s != NULL)
        stream_close(e->s, reset);
    e->s = NULL;
}

static inline void ends_close(void)
{
    end_close(&client, false);
    end_close(&server, false);
    core_quit(loop.core);
}

static inline void on_shaken(struct stream *s, unsigned events)
{
    struct end *e = s->owner;
    assert_int_equal(events, STREAM_WRITE);
    stream_want(s, 0);
    e->done = true;
    e->ok = stream_connected(s);
    e->resumed = tls_resumed(s);
    snprintf(e->why, sizeof e->why, "%s", e->ok ? "" : stream_why(s));
    if (!e->ok)
        end_close(e, false);
    if (!client.done || !server.done)
        return;
    if (ends_shaken != NULL && client.ok && server.ok)
        ends_shaken();
    else
        ends_close();
}

static inline void end_start(struct end *e, struct stream *s)
{
    *e = (struct end){.s = s};
    s->owner = e;
    s->ready = on_shaken;
    stream_want(s, STREAM_WRITE);
}

static inline void pair_of_streams(struct stream *out[2])
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    for (unsigned i = 0; i < 2; i++) {
        out[i] = tcp_accepted(loop.core, fds[i]);
        assert_non_null(out[i]);
    }
}

static inline void begin_handshake(void *arg)
{
    struct stream *ends[2];
    UNUSED(arg);
    pair_of_streams(ends);
    end_start(&client, tls_client(ends[0], &how));
    end_start(&server, tls_server(ends[1], server_identity, cache));
}

/* A handshake from `how` and `server_identity`, and what ends_shaken makes of it. */
static inline void handshake(void)
{
    loop_open(&loop);
    loop_run(&loop, begin_handshake, NULL);
    loop_close(&loop);
}

static inline struct trust *trust_of(struct span pem)
{
    char text[400];
    struct str why = STR_INIT(text);
    struct trust *t = trust_new(pem, NULL, true, &why);
    if (t == NULL)
        fail_msg("%s", text);
    return t;
}

static inline struct identity *identity_of(struct span certificates, const char *key)
{
    char text[400];
    struct str why = STR_INIT(text);
    struct identity *i = identity_new(certificates, pki_key(key), &why);
    if (i == NULL)
        fail_msg("%s", text);
    return i;
}

#endif
