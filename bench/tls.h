/* TLS 1.2 for the load generator, by OpenSSL: the client side of a connection whose socket does not block. Without OpenSSL
 * (LARDER_BENCH_TLS is not defined) the same functions stand here, and tls_options_check() says what is missing.
 *
 * Each worker has a struct tls_client: a context, counts, and the session of its last full handshake, which every new connection
 * offers. So a worker is as one client program that talks to one server. tls_open() wraps a socket; tls_shake() is called until it
 * is done; tls_read() and tls_write() are as recv() and send(), with errno: EAGAIN when the socket must be waited for, ECONNRESET for
 * everything that ends a connection, 0 for an end that was announced. tls_read() gives at most a record (16 KiB); who asks for less
 * leaves something behind that epoll does not tell of.
 *
 * Renegotiation is refused, so reading waits for input only, and writing for output only. */
#ifndef LARDER_BENCH_TLS_H
#define LARDER_BENCH_TLS_H

#include <sys/types.h>

#include "util.h"

#define TLS_CIPHERS "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"

struct tls_options {
    const char *ca;      /* a file of certificates that are trusted */
    bool insecure;       /* whatever certificate the server shows */
    bool no_resume;      /* offer no session: every handshake is a full one */
    const char *ciphers; /* OpenSSL's names, with colons */
};

enum tls_step { TLS_DONE, TLS_WANTS_READ, TLS_WANTS_WRITE, TLS_BROKEN };

#ifdef LARDER_BENCH_TLS

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct tls_client {
    SSL_CTX *context;
    SSL_SESSION *session; /* NULL: none yet, or none wanted */
    char host[256];       /* what the certificate must name, without a port */
    bool resume;
    uint64_t full, resumed; /* handshakes */
    char reason[256];       /* why the first handshake failed that did */
};

/* What OpenSSL last complained of. */
static inline const char *tls_words(void)
{
    const char *words = ERR_reason_error_string(ERR_peek_last_error());
    return words != NULL ? words : "the connection was closed";
}

static inline void tls_options_check(const struct tls_options *o)
{
    if (o->ca == NULL && !o->insecure)
        die("an https:// URL needs --ca FILE (certificates to trust), or --insecure to take any certificate");
    if (o->ca != NULL && o->insecure)
        die("--ca and --insecure exclude each other");
}

/* `host` is HOST:PORT as in the URL. */
static inline struct tls_client *tls_client_new(const struct tls_options *o, const char *host)
{
    struct tls_client *t = xzalloc(1, sizeof *t);
    t->resume = !o->no_resume;
    bool bracket = host[0] == '[';
    int n = (int)(strrchr(host, ':') - host);
    snprintf(t->host, sizeof t->host, "%.*s", bracket ? n - 2 : n, bracket ? host + 1 : host);
    SSL_CTX *c = t->context = SSL_CTX_new(TLS_client_method());
    if (c == NULL)
        die("OpenSSL: %s", tls_words());
    SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    /* A thousand idle connections keep no buffers; a request that was sent in part goes on from where it is. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_set_cipher_list(c, o->ciphers) != 1)
        die("--ciphers: \"%s\" has no cipher that OpenSSL knows; \"openssl ciphers -tls1_2\" lists them",
            o->ciphers);
    if (o->ca != NULL && SSL_CTX_load_verify_file(c, o->ca) != 1)
        die("--ca: %s has no certificate that can be read: %s", o->ca, tls_words());
    SSL_CTX_set_verify(c, o->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    return t;
}

static inline SSL *tls_open(struct tls_client *t, int fd)
{
    SSL *s = SSL_new(t->context);
    if (s == NULL || SSL_set_fd(s, fd) != 1)
        die("OpenSSL: %s", tls_words());
    SSL_set_connect_state(s);
    bool ip = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s), t->host) == 1;
    if (!ip && (SSL_set1_host(s, t->host) != 1 || SSL_set_tlsext_host_name(s, t->host) != 1))
        die("OpenSSL: %s", tls_words());
    if (t->session != NULL)
        SSL_set_session(s, t->session);
    return s;
}

static inline void tls_reason_keep(struct tls_client *t, const SSL *s)
{
    long verdict = SSL_get_verify_result(s);
    if (t->reason[0] != '\0')
        return;
    if (verdict != X509_V_OK && SSL_get_verify_mode(s) != SSL_VERIFY_NONE)
        snprintf(t->reason, sizeof t->reason, "the certificate is not trusted: %s",
                 X509_verify_cert_error_string(verdict));
    else
        snprintf(t->reason, sizeof t->reason, "%s", tls_words());
}

static inline enum tls_step tls_shake(struct tls_client *t, SSL *s)
{
    ERR_clear_error(); /* they are kept per thread, and SSL_get_error() takes an old one for the new */
    int r = SSL_do_handshake(s);
    if (r != 1) {
        int why = SSL_get_error(s, r);
        if (why == SSL_ERROR_WANT_READ)
            return TLS_WANTS_READ;
        if (why == SSL_ERROR_WANT_WRITE)
            return TLS_WANTS_WRITE;
        tls_reason_keep(t, s);
        return TLS_BROKEN;
    }
    if (SSL_session_reused(s)) {
        t->resumed++;
        return TLS_DONE;
    }
    t->full++;
    if (t->resume) {
        SSL_SESSION_free(t->session);
        t->session = SSL_get1_session(s);
    }
    return TLS_DONE;
}

static inline ssize_t tls_result(SSL *s, int r)
{
    if (r > 0)
        return r;
    int why = SSL_get_error(s, r);
    if (why == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}

static inline ssize_t tls_read(SSL *s, void *to, size_t n)
{
    ERR_clear_error();
    return tls_result(s, SSL_read(s, to, (int)n));
}

static inline ssize_t tls_write(SSL *s, const void *from, size_t n)
{
    ERR_clear_error();
    return tls_result(s, SSL_write(s, from, (int)n));
}

static inline bool tls_pending(const SSL *s)
{
    return SSL_pending(s) > 0;
}

/* Says so to the server, where that can be said at once. Without that OpenSSL would not resume the session. */
static inline void tls_close(SSL *s)
{
    if (SSL_is_init_finished(s))
        SSL_shutdown(s);
    SSL_free(s);
}

#else

typedef struct ssl_st SSL; /* there is none */

struct tls_client {
    uint64_t full, resumed;
    char reason[1];
};

__attribute__((noreturn)) static inline void tls_absent(void)
{
    die("this larder-load speaks no TLS: install libssl-dev (deps/install.sh bench), configure and build "
        "again");
}

static inline void tls_options_check(const struct tls_options *o)
{
    (void)o;
    tls_absent();
}

static inline struct tls_client *tls_client_new(const struct tls_options *o, const char *host)
{
    (void)o, (void)host;
    tls_absent();
}

static inline SSL *tls_open(struct tls_client *t, int fd)
{
    (void)t, (void)fd;
    tls_absent();
}

static inline enum tls_step tls_shake(struct tls_client *t, SSL *s)
{
    (void)t, (void)s;
    tls_absent();
}

static inline ssize_t tls_read(SSL *s, void *to, size_t n)
{
    (void)s, (void)to, (void)n;
    tls_absent();
}

static inline ssize_t tls_write(SSL *s, const void *from, size_t n)
{
    (void)s, (void)from, (void)n;
    tls_absent();
}

static inline bool tls_pending(const SSL *s)
{
    (void)s;
    tls_absent();
}

static inline void tls_close(SSL *s)
{
    (void)s;
    tls_absent();
}

#endif

#endif
