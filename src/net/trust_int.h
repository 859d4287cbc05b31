/* What trust.c makes, for the files of this room that hand it to BearSSL. */
#ifndef LARDER_NET_TRUST_INT_H
#define LARDER_NET_TRUST_INT_H

#include <bearssl.h>

#include "base/ref.h"
#include "net/trust.h"

struct trust {
    struct ref ref;
    const struct trust *base;      /* its anchors come first in ours */
    br_x509_trust_anchor *anchors; /* names and keys of the first `inherited` belong to `base` */
    size_t n, inherited;
};

#define IDENTITY_CHAIN_MAX 16

/* In secret memory. */
struct identity {
    struct ref ref;
    br_x509_certificate chain[IDENTITY_CHAIN_MAX];
    size_t n;
    unsigned signer_key_type;    /* of the first certificate's issuer: BR_KEYTYPE_ */
    br_skey_decoder_context key; /* the key is used where it was decoded */
    int64_t expires_ms;
};

#endif
