/* Trust anchors: the roots that an upstream's certificate must lead to, from PEM text. Parsed once, then immutable, refcounted
 * and shared by all cores.
 *
 * A root is a name and a key: its own dates are not looked at (RFC 5280 section 6.1.1 leaves that to us). Roots with
 * keys that BearSSL cannot use (RSA above 4096 bits, Ed25519, other curves) are skipped in the system's bundle, and are an error
 * in a file that an operator names. Any thread. */
#ifndef LARDER_NET_TRUST_H
#define LARDER_NET_TRUST_H

#include "base/span.h"
#include "base/str.h"

struct trust;

/* The roots in `pem`, on top of those of `base` (of which a reference is kept; NULL: none). strict: a block that cannot be used is an
 * error, and so is a text without any; else it is left out. NULL: *why names the block ("block 3 (a certificate): ..."). A certificate
 * that is no authority is trusted for itself; one of version 1, which cannot say, is an authority if it signed itself. */
struct trust *trust_new(struct span pem, const struct trust *base, bool strict, struct str *why) MUSTCHECK;
struct trust *trust_ref(const struct trust *t);
void trust_unref(const struct trust *t); /* NULL is a no-op */
size_t trust_count(const struct trust *t);

/* Our own certificate: a chain and its private key, for clients of a listener or for an upstream that wants one. */
struct identity;
/* PEM texts; the key unencrypted (PKCS#1, SEC1 or PKCS#8; RSA or P-256, P-384, P-521). NULL: *why says which text, which block and
 * what to do; also when the key does not belong to the first certificate. */
struct identity *identity_new(struct span certificate, struct span key, struct str *why) MUSTCHECK;
struct identity *identity_ref(const struct identity *i);
void identity_unref(const struct identity *i); /* wipes the key with the last reference; NULL is a no-op */
int64_t identity_expires_ms(
    const struct identity *i); /* wall clock: the first end of a certificate of the chain */

#endif
