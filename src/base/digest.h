/* Content digests: "sha256:<64 hex>" and "sha512:<128 hex>", lower case only (OCI image-spec descriptor.md).
 * The only file that includes nettle. Values are plain data; a hasher belongs to one thread at a time. */
#ifndef LARDER_BASE_DIGEST_H
#define LARDER_BASE_DIGEST_H

#include "base/span.h"
#include "base/str.h"

enum digest_alg { DIGEST_NONE = 0, DIGEST_SHA256 = 1, DIGEST_SHA512 = 2 };

#define DIGEST_RAW_MAX  64
#define DIGEST_TEXT_MAX (7 + 128 + 1) /* with the terminator */

struct digest {
    uint8_t alg;                 /* enum digest_alg; DIGEST_NONE: no digest */
    uint8_t raw[DIGEST_RAW_MAX]; /* zero beyond digest_raw_len() */
};

enum digest_parse {
    DIGEST_OK,
    DIGEST_BAD,        /* not the grammar of a digest, or wrong length or case for its algorithm */
    DIGEST_UNSUPPORTED /* well-formed, but an algorithm that larder cannot verify */
};

enum digest_parse digest_parse(struct span text, struct digest *out) MUSTCHECK;
size_t digest_raw_len(const struct digest *d);       /* 32, 64; 0 for DIGEST_NONE */
const char *digest_alg_name(const struct digest *d); /* "sha256" */
bool digest_eq(const struct digest *a, const struct digest *b);
bool digest_is_empty(const struct digest *d);              /* the digest of no bytes at all */
void digest_add(struct str *s, const struct digest *d);    /* "sha256:..." */
void digest_addhex(struct str *s, const struct digest *d); /* the hexadecimal part only */
/* Into a buffer of DIGEST_TEXT_MAX; returns buf. */
char *digest_text(const struct digest *d, char buf[DIGEST_TEXT_MAX]);
/* Fixed-size key for tables: the algorithm byte followed by the raw bytes. */
struct span digest_key(const struct digest *d);

/* Incremental hashing. About 1.6 GB/s per core where the processor has SHA instructions. */
struct hasher {
    uint8_t alg;
    _Alignas(16) unsigned char state[256];
};

void hasher_init(struct hasher *h, enum digest_alg alg);
void hasher_update(struct hasher *h, const void *bytes, size_t n);
void hasher_finish(struct hasher *h, struct digest *out);

#endif
