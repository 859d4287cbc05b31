/* Trust anchors and our own certificates, from PEM texts.
 *
 * A PEM text is walked block by block with one callback, so that a message can say which block it means. BearSSL's decoder is strict
 * about lines, and passes over what it does not take for one: it is given each line without the blanks around it (copied out of a
 * YAML file) and the carriage return, always with an end, and without a mark of the byte order before the first.
 *
 * The anchors of a `struct trust` are one array, those of its base first and shared with it, so that a chain is looked up in one
 * place. */
#include "net/trust.h"

#include "base/mem.h"
#include "base/secret_mem.h"
#include "net/cert.h"
#include "net/trust_int.h"

#define BLOCK_MAX   (64u << 10) /* of one decoded block */
#define ANCHORS_MAX (16u << 10) /* of one text */
#define RSA_MAX     (4096u / 8)

/* ---- PEM ---- */

struct block {
    unsigned number; /* from 1 */
    const char *kind;
    struct span der;
    const char *wrong; /* or NULL */
};

struct pem {
    br_pem_decoder_context decoder;
    char kind[64];
    char *bytes; /* of the block under way */
    size_t n, cap;
    bool too_long, open;
    unsigned number;
};

static void pem_bytes(void *arg, const void *p, size_t n)
{
    struct pem *pem = arg;
    if (n > BLOCK_MAX - pem->n) {
        pem->too_long = true;
        return;
    }
    if (pem->n + n > pem->cap) {
        /* Not realloc: what it leaves behind may be a part of a key. */
        size_t cap = pem->cap == 0 ? 4096 : pem->cap * 2;
        while (cap < pem->n + n)
            cap *= 2;
        char *more = mem_alloc(cap);
        if (pem->n > 0) {
            memcpy(more, pem->bytes, pem->n);
            mem_wipe(pem->bytes, pem->n);
        }
        mem_free(pem->bytes);
        pem->bytes = more;
        pem->cap = cap;
    }
    memcpy(pem->bytes + pem->n, p, n);
    pem->n += n;
}

static void pem_begin(struct pem *pem)
{
    struct str kind = STR_INIT(pem->kind);
    str_addz(&kind, br_pem_decoder_name(&pem->decoder));
    pem->n = 0;
    pem->too_long = false;
    pem->open = true;
    pem->number++;
    br_pem_decoder_setdest(&pem->decoder, pem_bytes, pem);
}

static struct block pem_end(struct pem *pem, const char *wrong)
{
    pem->open = false;
    return (struct block){.number = pem->number,
                          .kind = pem->kind,
                          .der = span_of(pem->n > 0 ? pem->bytes : "", pem->n),
                          .wrong = pem->too_long && wrong == NULL ? "it is too long" : wrong};
}

static bool pem_push(struct pem *pem, struct span text, bool (*each)(const struct block *b, void *arg),
                     void *arg)
{
    struct block block;
    bool go = true;
    while (go && text.n > 0) {
        text = span_from(text, br_pem_decoder_push(&pem->decoder, text.p, text.n));
        switch (br_pem_decoder_event(&pem->decoder)) {
        case BR_PEM_BEGIN_OBJ:
            pem_begin(pem);
            break;
        case BR_PEM_END_OBJ:
            block = pem_end(pem, NULL);
            go = each(&block, arg);
            break;
        case BR_PEM_ERROR:
            block = pem_end(pem, "the text between BEGIN and END is not base64");
            go = each(&block, arg);
            break;
        default:
            break;
        }
    }
    return go;
}

/* Calls `each` for every block until one returns false. */
static bool pem_each(struct span text, bool (*each)(const struct block *b, void *arg), void *arg)
{
    struct pem pem = {0};
    struct span line;
    bool go = true;
    br_pem_decoder_init(&pem.decoder);
    if (span_starts(text, SPAN("\xef\xbb\xbf")))
        text = span_from(text, 3);
    while (go && span_next(&text, '\n', &line)) {
        if (span_ends(line, SPAN("\r")))
            line.n--;
        go = pem_push(&pem, span_trim(line), each, arg) && pem_push(&pem, SPAN("\n"), each, arg);
    }
    if (go && pem.open) {
        struct block block = pem_end(&pem, "its end (-----END ...) is missing");
        go = each(&block, arg);
    }
    if (pem.bytes != NULL)
        mem_wipe(pem.bytes, pem.cap);
    mem_free(pem.bytes);
    mem_wipe(&pem, sizeof pem);
    return go;
}

static bool is_certificate(const char *kind)
{
    struct span k = span_str(kind);
    return span_eq(k, SPAN("CERTIFICATE")) || span_eq(k, SPAN("X509 CERTIFICATE")) ||
           span_eq(k, SPAN("TRUSTED CERTIFICATE"));
}

static bool is_key(const char *kind)
{
    return span_ends(span_str(kind), SPAN("PRIVATE KEY"));
}

/* "block 3 (a certificate): " */
static void add_block(struct str *why, const struct block *b)
{
    str_addf(why, "block %u (", b->number);
    if (is_certificate(b->kind))
        str_addz(why, "a certificate");
    else if (is_key(b->kind))
        str_addz(why, "a private key");
    else
        str_addjson(why, span_str(b->kind));
    str_addz(why, "): ");
}

/* Why a text without a single usable block is none. */
static void add_no_pem(struct str *why, struct span text, const char *what)
{
    if (span_trim(text).n == 0)
        str_addf(why, "the text is empty; it must hold %s in PEM form (-----BEGIN ...)", what);
    else if ((unsigned char)text.p[0] == 0x30)
        str_addf(why, "this is binary (DER); convert it with: openssl %s -inform DER -in FILE",
                 what[2] == 'c' ? "x509" : "pkey");
    else
        str_addf(why, "there is no block with %s (-----BEGIN ...)", what);
}

/* ---- keys and names ---- */

static unsigned char *copy_of(const void *p, size_t n)
{
    unsigned char *copy = mem_alloc(n > 0 ? n : 1);
    memcpy(copy, p, n);
    return copy;
}

static void key_copy(br_x509_pkey *to, const br_x509_pkey *from)
{
    *to = *from;
    if (from->key_type == BR_KEYTYPE_RSA) {
        to->key.rsa.n = copy_of(from->key.rsa.n, from->key.rsa.nlen);
        to->key.rsa.e = copy_of(from->key.rsa.e, from->key.rsa.elen);
    } else {
        to->key.ec.q = copy_of(from->key.ec.q, from->key.ec.qlen);
    }
}

static void anchor_free(br_x509_trust_anchor *a)
{
    mem_free(a->dn.data);
    if (a->pkey.key_type == BR_KEYTYPE_RSA) {
        mem_free(a->pkey.key.rsa.n);
        mem_free(a->pkey.key.rsa.e);
    } else {
        mem_free(a->pkey.key.ec.q);
    }
}

/* The words for a certificate that BearSSL cannot use. */
static const char *unusable(int err)
{
    switch (err) {
    case BR_ERR_X509_UNSUPPORTED:
        return "its key is of a kind that larder cannot use (RSA of up to 4096 bits and the curves P-256, "
               "P-384 and P-521 "
               "can be used)";
    case BR_ERR_X509_LIMIT_EXCEEDED:
        return "its key is too long (RSA of more than 4096 bits)";
    default:
        return "it is damaged: not a well-formed certificate";
    }
}

/* ---- trust ---- */

struct trust_build {
    struct trust *t;
    size_t cap;
    bool strict;
    struct str *why;
};

static void trust_grow(struct trust_build *b)
{
    if (b->t->n < b->cap)
        return;
    b->cap = b->cap < 8 ? 16 : b->cap * 2;
    b->t->anchors = mem_realloc(b->t->anchors, b->cap * sizeof *b->t->anchors);
}

/* NULL, or why this certificate cannot be an anchor. */
static const char *trust_add(struct trust_build *b, struct span der)
{
    struct cert cert;
    br_x509_decoder_context decoder;
    der = cert_outer(der); /* a TRUSTED CERTIFICATE has more behind it */
    if (der.p == NULL || !cert_parse(der, &cert))
        return unusable(0);
    if (cert.repeated)
        return "it has an extension twice, which no certificate may, or more than 64 of them";
    br_x509_decoder_init(&decoder, NULL, NULL);
    br_x509_decoder_push(&decoder, der.p, der.n);
    const br_x509_pkey *key = br_x509_decoder_get_pkey(&decoder);
    if (key == NULL)
        return unusable(br_x509_decoder_last_error(&decoder));
    if (key->key_type == BR_KEYTYPE_RSA &&
        key->key.rsa.nlen > RSA_MAX) /* decoded, but no signature would ever be right */
        return unusable(BR_ERR_X509_LIMIT_EXCEEDED);
    if (b->t->n - b->t->inherited >= ANCHORS_MAX)
        return "there are too many certificates";
    trust_grow(b);
    br_x509_trust_anchor *a = &b->t->anchors[b->t->n++];
    *a = (br_x509_trust_anchor){.dn = {copy_of(cert.subject.p, cert.subject.n), cert.subject.n}};
    /* Version 1 has no way to say that a certificate is an authority's: one that signed itself is taken as a root. */
    bool old_root = cert.version == 1 && span_eq(cert.subject, cert.issuer);
    a->flags = br_x509_decoder_isCA(&decoder) || old_root ? BR_X509_TA_CA : 0;
    key_copy(&a->pkey, key);
    return NULL;
}

static bool trust_block(const struct block *block, void *arg)
{
    struct trust_build *b = arg;
    const char *wrong = block->wrong;
    if (wrong == NULL)
        wrong =
            is_certificate(block->kind) ? trust_add(b, block->der) : "only certificates are expected here";
    if (wrong == NULL || !b->strict)
        return true;
    add_block(b->why, block);
    str_addz(b->why, wrong);
    return false;
}

struct trust *trust_new(struct span pem, const struct trust *base, bool strict, struct str *why)
{
    struct trust *t;
    NEW(t);
    ref_init(&t->ref);
    struct trust_build b = {.t = t, .strict = strict, .why = why};
    if (base != NULL) {
        t->base = trust_ref(base);
        t->n = t->inherited = b.cap = base->n;
        t->anchors = mem_alloc((base->n + 1) * sizeof *t->anchors);
        if (base->n > 0)
            memcpy(t->anchors, base->anchors, base->n * sizeof *t->anchors);
    }
    bool ok = pem_each(pem, trust_block, &b);
    if (ok && strict && t->n == t->inherited) {
        add_no_pem(why, pem, "a certificate");
        ok = false;
    }
    if (ok)
        return t;
    trust_unref(t);
    return NULL;
}

struct trust *trust_ref(const struct trust *t)
{
    struct trust *mine = (struct trust *)(uintptr_t)t;
    ref_take(&mine->ref);
    return mine;
}

void trust_unref(const struct trust *t)
{
    struct trust *mine = (struct trust *)(uintptr_t)t;
    if (mine == NULL || !ref_drop(&mine->ref))
        return;
    for (size_t i = mine->inherited; i < mine->n; i++)
        anchor_free(&mine->anchors[i]);
    mem_free(mine->anchors);
    trust_unref(mine->base);
    mem_free(mine);
}

size_t trust_count(const struct trust *t)
{
    return t->n;
}

/* ---- identity ---- */

struct identity_build {
    struct identity *i;
    bool have_key;
    struct str *why;
};

static bool identity_refuse(struct identity_build *b, const struct block *block, const char *text,
                            const char *wrong)
{
    str_addf(b->why, "%s: ", text);
    add_block(b->why, block);
    str_addz(b->why, wrong);
    return false;
}

static bool identity_certificate(const struct block *block, void *arg)
{
    struct identity_build *b = arg;
    struct identity *i = b->i;
    struct cert cert;
    if (!is_certificate(block->kind))
        return true; /* a file with everything in it */
    if (block->wrong != NULL)
        return identity_refuse(b, block, "certificate", block->wrong);
    struct span der = cert_outer(block->der);
    if (der.p == NULL || !cert_parse(der, &cert))
        return identity_refuse(b, block, "certificate", unusable(0));
    if (i->n == IDENTITY_CHAIN_MAX)
        return identity_refuse(b, block, "certificate", "the chain is too long");
    if (i->n == 0 || cert.until_ms < i->expires_ms)
        i->expires_ms = cert.until_ms;
    i->chain[i->n++] = (br_x509_certificate){copy_of(der.p, der.n), der.n};
    return true;
}

static bool identity_key(const struct block *block, void *arg)
{
    struct identity_build *b = arg;
    br_skey_decoder_context *key = &b->i->key;
    if (!is_key(block->kind) || b->have_key)
        return true;
    if (span_eq(span_str(block->kind), SPAN("ENCRYPTED PRIVATE KEY")))
        return identity_refuse(b, block, "key",
                               "it is encrypted; store it without a passphrase: openssl pkey -in FILE");
    if (block->wrong != NULL) {
        (void)identity_refuse(b, block, "key", block->wrong);
        str_addz(b->why, "; if it is encrypted, store it without a passphrase: openssl pkey -in FILE");
        return false;
    }
    br_skey_decoder_init(key);
    br_skey_decoder_push(key, block->der.p, block->der.n);
    if (br_skey_decoder_last_error(key) != 0)
        return identity_refuse(
            b, block, "key",
            "it cannot be used; RSA of up to 4096 bits, or a key of the curves P-256, P-384 or P-521, "
            "as PKCS#1, SEC1 or PKCS#8 can be used");
    b->have_key = true;
    return true;
}

static bool rsa_belongs(const br_rsa_private_key *sk, const br_rsa_public_key *pk)
{
    unsigned char n[512];
    br_rsa_compute_modulus compute = br_rsa_compute_modulus_get_default();
    size_t len = compute(NULL, sk);
    if (len == 0 || len > sizeof n || compute(n, sk) != len)
        return false;
    const unsigned char *theirs = pk->n;
    size_t theirs_n = pk->nlen;
    while (theirs_n > 0 && theirs[0] == 0) {
        theirs++;
        theirs_n--;
    }
    return len == theirs_n && memcmp(n, theirs, len) == 0;
}

static bool ec_belongs(const br_ec_private_key *sk, const br_ec_public_key *pk)
{
    unsigned char buf[BR_EC_KBUF_PUB_MAX_SIZE];
    br_ec_public_key mine;
    if (sk->curve != pk->curve || br_ec_compute_pub(br_ec_get_default(), &mine, buf, sk) == 0)
        return false;
    return mine.qlen == pk->qlen && memcmp(mine.q, pk->q, mine.qlen) == 0;
}

static bool key_belongs(const br_skey_decoder_context *key, const br_x509_pkey *pk)
{
    if (br_skey_decoder_key_type(key) != pk->key_type)
        return false;
    return pk->key_type == BR_KEYTYPE_RSA ? rsa_belongs(br_skey_decoder_get_rsa(key), &pk->key.rsa)
                                          : ec_belongs(br_skey_decoder_get_ec(key), &pk->key.ec);
}

/* Does the key belong to that certificate of the chain? */
static bool identity_matches(struct identity *i, size_t at, int *err)
{
    br_x509_decoder_context decoder;
    br_x509_decoder_init(&decoder, NULL, NULL);
    br_x509_decoder_push(&decoder, i->chain[at].data, i->chain[at].data_len);
    const br_x509_pkey *pk = br_x509_decoder_get_pkey(&decoder);
    *err = br_x509_decoder_last_error(&decoder);
    if (at == 0)
        i->signer_key_type = (unsigned)br_x509_decoder_get_signer_key_type(&decoder);
    return pk != NULL && key_belongs(&i->key, pk);
}

static bool identity_check(struct identity_build *b)
{
    int err, ignored;
    if (identity_matches(b->i, 0, &err))
        return true;
    if (err != 0) {
        str_addf(b->why, "certificate: the first one: %s", unusable(err));
        return false;
    }
    for (size_t at = 1; at < b->i->n; at++) {
        if (!identity_matches(b->i, at, &ignored))
            continue;
        str_addf(
            b->why,
            "the key belongs to certificate %zu of the chain; the server's own certificate must come first",
            at + 1);
        return false;
    }
    str_addz(b->why, "the key does not belong to the certificate: they were not made together");
    return false;
}

struct identity *identity_new(struct span certificate, struct span key, struct str *why)
{
    struct identity *i = secret_alloc(sizeof *i);
    ref_init(&i->ref);
    struct identity_build b = {.i = i, .why = why};
    bool ok = pem_each(certificate, identity_certificate, &b);
    if (ok && i->n == 0) {
        str_addz(why, "certificate: ");
        add_no_pem(why, certificate, "a certificate");
        ok = false;
    }
    ok = ok && pem_each(key, identity_key, &b);
    if (ok && !b.have_key) {
        str_addz(why, "key: ");
        add_no_pem(why, key, "a private key");
        ok = false;
    }
    if (ok && identity_check(&b))
        return i;
    identity_unref(i);
    return NULL;
}

struct identity *identity_ref(const struct identity *i)
{
    struct identity *mine = (struct identity *)(uintptr_t)i;
    ref_take(&mine->ref);
    return mine;
}

void identity_unref(const struct identity *i)
{
    struct identity *mine = (struct identity *)(uintptr_t)i;
    if (mine == NULL || !ref_drop(&mine->ref))
        return;
    for (size_t k = 0; k < mine->n; k++)
        mem_free(mine->chain[k].data);
    secret_free(mine);
}

int64_t identity_expires_ms(const struct identity *i)
{
    return i->expires_ms;
}
