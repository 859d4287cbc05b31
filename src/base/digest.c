/* Digests: the grammar, the text forms, and hashing with nettle (which uses the processor's SHA
 * instructions). */
#include <nettle/sha2.h>

#include "base/digest.h"

static const struct {
    struct span name;
    size_t raw_len;
} digest_algs[] = {
    [DIGEST_NONE] = {.name = {.p = "none", .n = 4}, .raw_len = 0},
    [DIGEST_SHA256] = {.name = {.p = "sha256", .n = 6}, .raw_len = SHA256_DIGEST_SIZE},
    [DIGEST_SHA512] = {.name = {.p = "sha512", .n = 6}, .raw_len = SHA512_DIGEST_SIZE},
};

_Static_assert(SHA512_DIGEST_SIZE <= DIGEST_RAW_MAX, "a digest holds the longest hash");
_Static_assert(sizeof("sha512:") - 1 + 2 * SHA512_DIGEST_SIZE + 1 == DIGEST_TEXT_MAX,
               "the longest text fits");
_Static_assert(sizeof(struct sha256_ctx) <= sizeof(((struct hasher *)0)->state), "sha256 state fits");
_Static_assert(sizeof(struct sha512_ctx) <= sizeof(((struct hasher *)0)->state), "sha512 state fits");
_Static_assert(_Alignof(struct sha256_ctx) <= 16 && _Alignof(struct sha512_ctx) <= 16, "states are aligned");
_Static_assert(offsetof(struct digest, raw) == 1, "digest_key() is one run of bytes");

static bool digest_is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* algorithm ::= component (separator component)*, component ::= [a-z0-9]+, separator ::= [+._-] */
static bool digest_alg_valid(struct span alg)
{
    bool after_component = false;

    for (size_t i = 0; i < alg.n; i++) {
        char c = alg.p[i];
        if (digest_is_lower_alnum(c))
            after_component = true;
        else if (after_component && (c == '+' || c == '.' || c == '_' || c == '-'))
            after_component = false;
        else
            return false;
    }
    return after_component;
}

/* encoded ::= [a-zA-Z0-9=_-]+ */
static bool digest_encoded_valid(struct span encoded)
{
    for (size_t i = 0; i < encoded.n; i++) {
        char c = encoded.p[i];
        if (!digest_is_lower_alnum(c) && !(c >= 'A' && c <= 'Z') && c != '=' && c != '_' && c != '-')
            return false;
    }
    return encoded.n > 0;
}

#define HEX_BAD 0x80

/* Values of the lower-case hexadecimal digits; HEX_BAD: none. */
static const uint8_t digest_hex_value[256] = {
    [0 ... '0' - 1] = HEX_BAD,
    ['0'] = 0,
    ['1'] = 1,
    ['2'] = 2,
    ['3'] = 3,
    ['4'] = 4,
    ['5'] = 5,
    ['6'] = 6,
    ['7'] = 7,
    ['8'] = 8,
    ['9'] = 9,
    ['9' + 1 ... 'a' - 1] = HEX_BAD,
    ['a'] = 10,
    ['b'] = 11,
    ['c'] = 12,
    ['d'] = 13,
    ['e'] = 14,
    ['f'] = 15,
    ['f' + 1 ... 255] = HEX_BAD,
};

static bool digest_unhex(struct span hex, uint8_t *raw, size_t raw_len)
{
    if (hex.n != 2 * raw_len)
        return false;
    unsigned bad = 0;
    for (size_t i = 0; i < raw_len; i++) {
        unsigned high = digest_hex_value[(unsigned char)hex.p[2 * i]];
        unsigned low = digest_hex_value[(unsigned char)hex.p[2 * i + 1]];
        bad |= high | low;
        raw[i] = (uint8_t)(high << 4 | low);
    }
    return (bad & HEX_BAD) == 0;
}

enum digest_parse digest_parse(struct span text, struct digest *out)
{
    ptrdiff_t colon = span_find(text, ':');

    *out = (struct digest){.alg = DIGEST_NONE};
    if (colon < 0)
        return DIGEST_BAD;

    struct span alg = span_sub(text, 0, (size_t)colon);
    struct span encoded = span_from(text, (size_t)colon + 1);
    for (size_t i = DIGEST_SHA256; i < ARRAY_LEN(digest_algs); i++) {
        if (!span_eq(alg, digest_algs[i].name))
            continue;
        struct digest d = {.alg = (uint8_t)i};
        if (!digest_unhex(encoded, d.raw, digest_algs[i].raw_len))
            return DIGEST_BAD;
        *out = d;
        return DIGEST_OK;
    }
    return digest_alg_valid(alg) && digest_encoded_valid(encoded) ? DIGEST_UNSUPPORTED : DIGEST_BAD;
}

size_t digest_raw_len(const struct digest *d)
{
    MUST(d->alg < ARRAY_LEN(digest_algs));
    return digest_algs[d->alg].raw_len;
}

const char *digest_alg_name(const struct digest *d)
{
    MUST(d->alg < ARRAY_LEN(digest_algs));
    return digest_algs[d->alg].name.p;
}

bool digest_eq(const struct digest *a, const struct digest *b)
{
    return a->alg == b->alg && memcmp(a->raw, b->raw, digest_raw_len(a)) == 0;
}

void digest_add(struct str *s, const struct digest *d)
{
    str_addz(s, digest_alg_name(d));
    str_addc(s, ':');
    digest_addhex(s, d);
}

void digest_addhex(struct str *s, const struct digest *d)
{
    str_addhex(s, d->raw, digest_raw_len(d));
}

char *digest_text(const struct digest *d, char buf[DIGEST_TEXT_MAX])
{
    struct str s = str_init(buf, DIGEST_TEXT_MAX);
    digest_add(&s, d);
    return buf;
}

struct span digest_key(const struct digest *d)
{
    return span_of((const char *)d, offsetof(struct digest, raw) + digest_raw_len(d));
}

void hasher_init(struct hasher *h, enum digest_alg alg)
{
    MUST(alg == DIGEST_SHA256 || alg == DIGEST_SHA512);
    h->alg = (uint8_t)alg;
    if (alg == DIGEST_SHA256)
        sha256_init((struct sha256_ctx *)(void *)h->state);
    else
        sha512_init((struct sha512_ctx *)(void *)h->state);
}

void hasher_update(struct hasher *h, const void *bytes, size_t n)
{
    if (h->alg == DIGEST_SHA256)
        sha256_update((struct sha256_ctx *)(void *)h->state, n, bytes);
    else
        sha512_update((struct sha512_ctx *)(void *)h->state, n, bytes);
}

void hasher_finish(struct hasher *h, struct digest *out)
{
    *out = (struct digest){.alg = h->alg};
    if (h->alg == DIGEST_SHA256)
        sha256_digest((struct sha256_ctx *)(void *)h->state, SHA256_DIGEST_SIZE, out->raw);
    else
        sha512_digest((struct sha512_ctx *)(void *)h->state, SHA512_DIGEST_SIZE, out->raw);
}

bool digest_is_empty(const struct digest *d)
{
    struct hasher h;
    struct digest empty;
    hasher_init(&h, (enum digest_alg)d->alg);
    hasher_finish(&h, &empty);
    return digest_eq(d, &empty);
}
