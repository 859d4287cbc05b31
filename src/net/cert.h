/* What larder reads of an X.509 certificate itself: names, dates, and the extensions that BearSSL's validation leaves out. Nothing
 * here is a verdict: signatures, keys and chains are BearSSL's business (tls_check.c).
 *
 * Pure. Everything points into the bytes that were given. Any thread. */
#ifndef LARDER_NET_CERT_H
#define LARDER_NET_CERT_H

#include "base/span.h"
#include "base/str.h"

#define CERT_EXTENSIONS_MAX 64

struct cert {
    struct span der;             /* all of it */
    struct span issuer, subject; /* names as DER, with their tag: comparable byte by byte */
    struct span signed_by;       /* object identifier of the signature's algorithm */
    int64_t from_ms, until_ms;   /* wall clock; the last moment of validity included */
    unsigned version;            /* 1 to 3 */
    bool authority;              /* basicConstraints says CA */
    bool repeated; /* an extension stands there twice, or there are more than CERT_EXTENSIONS_MAX */
    bool name_constraints;
    bool usage_critical;
    struct span usage; /* inside of extendedKeyUsage; absent: none */
    struct span names; /* inside of subjectAltName; absent: none */
};

/* False: not one well-formed certificate, from the first byte to the last. */
bool cert_parse(struct span der, struct cert *out) MUSTCHECK;
/* The first element of a DER text, with its tag and length; absent: there is none. */
struct span cert_outer(struct span der);

/* The subject (issuer) in one line, for messages: the common name, else organisation, else the first alternative name. Printable
 * ASCII, at most CERT_NAME_MAX characters. */
#define CERT_NAME_MAX 80
void cert_add_subject(const struct cert *c, struct str *out);
void cert_add_issuer(const struct cert *c, struct str *out);
/* "a.example, *.b.example, 10.0.0.1": what it was made for, at most a handful. False: nothing. */
bool cert_add_names(const struct cert *c, struct str *out);

bool cert_for_address(const struct cert *c, const void *addr, size_t n); /* n: 4 or 16 */
/* May it serve (TLS server authentication)? True as well when it does not say what it is for. */
bool cert_for_servers(const struct cert *c);
bool cert_signed_with_sha1(const struct cert *c);

#endif
