/* TLS: which certificates are taken and what is said of the others, bytes through it however the transport cuts them, closing at
 * every step, sessions, and what an idle stream costs. The peer is larder's own other side where that is enough, openssl where an
 * independent one is wanted. */
#include "../core/loop.h"

#include "pki.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "net/tls.h"

static struct loop loop;

/* ---- two ends in one loop ---- */

struct end {
    struct stream *s;
    bool done, ok, resumed;
    char why[400];
};

static struct end client, server;
static struct tls_client how;
static const struct identity *server_identity;
static struct tls_cache *cache;

static void ends_finish(void)
{
    if (!client.done || !server.done)
        return;
    if (client.s != NULL)
        stream_close(client.s, false);
    if (server.s != NULL)
        stream_close(server.s, false);
    client.s = server.s = NULL;
    core_quit(loop.core);
}

static void on_shaken(struct stream *s, unsigned events)
{
    struct end *e = s->owner;
    assert_int_equal(events, STREAM_WRITE);
    stream_want(s, 0);
    e->done = true;
    e->ok = stream_connected(s);
    e->resumed = tls_resumed(s);
    snprintf(e->why, sizeof e->why, "%s", e->ok ? "" : stream_why(s));
    if (!e->ok) {
        stream_close(s, false);
        e->s = NULL;
    }
    ends_finish();
}

static void end_start(struct end *e, struct stream *s)
{
    *e = (struct end){.s = s};
    s->owner = e;
    s->ready = on_shaken;
    stream_want(s, STREAM_WRITE);
}

static void begin_handshake(void *arg)
{
    UNUSED(arg);
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    struct stream *a = tcp_accepted(loop.core, fds[0]), *b = tcp_accepted(loop.core, fds[1]);
    end_start(&client, tls_client(a, &how));
    end_start(&server, tls_server(b, server_identity, cache));
}

static void handshake(void)
{
    loop_open(&loop);
    loop_run(&loop, begin_handshake, NULL);
    loop_close(&loop);
}

/* ---- certificates ---- */

static struct trust *trust_of(struct span pem)
{
    char text[400];
    struct str why = STR_INIT(text);
    struct trust *t = trust_new(pem, NULL, true, &why);
    if (t == NULL)
        fail_msg("%s", text);
    return t;
}

static struct identity *identity_of(struct span certificates, const char *key)
{
    char text[400];
    struct str why = STR_INIT(text);
    struct identity *i = identity_new(certificates, pki_key(key), &why);
    if (i == NULL)
        fail_msg("%s", text);
    return i;
}

/* A handshake for `host` with a server that shows `chain`. says: NULL: it must succeed. */
static void expect(struct span chain, const char *key, struct span roots, const char *host, const char *says)
{
    struct trust *trust = trust_of(roots);
    struct identity *identity = identity_of(chain, key);
    how = (struct tls_client){.trust = trust, .host = span_str(host)};
    server_identity = identity;
    handshake();
    if (says == NULL && !client.ok)
        fail_msg("%s with the key of %s: %s", host, key, client.why);
    if (says != NULL && (client.ok || strstr(client.why, says) == NULL))
        fail_msg("%s with the key of %s: \"%s\" instead of \"%s\"", host, key, client.why, says);
    if (says != NULL)
        assert_false(server.ok);
    trust_unref(trust);
    identity_unref(identity);
}

#define GOOD NULL

static void test_good(void **state)
{
    UNUSED(state);
    expect(pki_text("leaf", "inter", NULL), "leaf", pki_text("root", NULL), "leaf.test", GOOD);
    expect(pki_text("leaf", "inter", "root", NULL), "leaf", pki_text("root", NULL), "leaf.test", GOOD);
}

static int setup(void **state)
{
    UNUSED(state);
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Test Root", .authority = true});
    pki_make(&(struct pki_how){"inter", .cn = "Test Issuer", .issuer = "root", .authority = true});
    pki_make(&(struct pki_how){"leaf", .cn = "leaf.test", .issuer = "inter", .names = "DNS:leaf.test"});
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    pki_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
