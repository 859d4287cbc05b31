/* What the files of TLS share: tls.c (the stream), tls_check.c (the peer's certificates), tls_words.c (errors in words),
 * tls_buffers.c (memory for records). */
#ifndef LARDER_NET_TLS_INT_H
#define LARDER_NET_TLS_INT_H

#include <bearssl.h>

#include "base/str.h"
#include "net/trust_int.h"

struct core;

#define TLS_WHY 320

/* ---- tls_check.c: an X.509 validation for BearSSL, for one handshake ---- */

struct tls_check;

/* host: a name, with or without a dot at its end, or an IP address. Keeps a reference to trust. */
struct tls_check *tls_check_new(const struct trust *trust, struct span host);
void tls_check_free(struct tls_check *c); /* NULL is a no-op */
const br_x509_class **tls_check_class(struct tls_check *c);
/* The name for SNI, without a dot at its end; NULL: an address, or too long for a name. */
const char *tls_check_sni(const struct tls_check *c);
/* Did the peer show certificates (a resumed session does without), and what is wrong with them: "" while nothing is. */
bool tls_check_asked(const struct tls_check *c);
const char *tls_check_why(const struct tls_check *c);
/* After a good verdict: when the first of the certificates that it rests on ends (wall clock). */
int64_t tls_check_until(const struct tls_check *c);

/* ---- tls_words.c ---- */

/* An error of BearSSL's engine; client: we are the client. */
void tls_words(struct str *out, int err, bool client);

/* ---- tls_buffers.c: per core, for as long as it has TLS streams ---- */

/* Each holds a record of either direction (16,709 and 16,469 bytes). */
#define TLS_BUFFER 20480u

void tls_buffers_join(struct core *core);
void tls_buffers_leave(struct core *core); /* with the last one the spare buffers go, too */
void *tls_buffer_take(struct core *core);
void tls_buffer_give(struct core *core, void *buffer);

#endif
