/* The peer's certificates.
 *
 * BearSSL's validation ("minimal") wants the chain in order, does not know addresses, and says what is wrong with a number. So this
 * class stands before it: it collects what the peer sends, builds paths from the server's own certificate to an anchor by
 * the names of issuers, and gives each path to the minimal engine until one is good. Certificates that lie on no path do not matter.
 * The verdict on signatures, keys, dates, constraints and DNS names is the minimal engine's; this file adds addresses,
 * extended key usage, and the refusal of name constraints, which nobody here checks, and of extensions that stand there twice.
 *
 * The words are those of the first path that failed; without any path, those about the certificate where the search ended. */
#include <arpa/inet.h>

#include "base/clock.h"
#include "base/mem.h"
#include "net/cert.h"
#include "net/tls_int.h"

#define CHAIN_MAX   16
#define CHAIN_BYTES (128u << 10)
#define HOST_MAX    255
#define PATHS_MAX   8  /* given to the minimal engine */
#define STEPS_MAX   64 /* of the search: certificates that name each other have many orders */
#define ANCHORS_MAX 8  /* of one name */

#define ERR_REFUSED BR_ERR_X509_NOT_TRUSTED /* for BearSSL; the words are ours */
#define DAY_MS      ((int64_t)86400 * 1000)
#define DAYS_BC     719528 /* from year 0, BearSSL's epoch, to 1970 */

struct tls_check {
    const br_x509_class *vtable; /* first: BearSSL's pointer to us */
    const struct trust *trust;
    char host[HOST_MAX + 1];
    unsigned char addr[16];
    size_t addr_n; /* 0: a name */
    int64_t now_ms, until_ms;
    char *der; /* what was sent, one certificate behind the other */
    size_t der_n;
    size_t at[CHAIN_MAX + 1]; /* where each begins */
    struct cert certs[CHAIN_MAX];
    unsigned n;
    unsigned paths, steps;
    bool asked, too_much;
    br_x509_minimal_context minimal;
    char why[TLS_WHY];
};

struct path {
    unsigned n, at[CHAIN_MAX];
    uint32_t used;
};

static const br_x509_class check_class;

/* ---- collecting ---- */

static struct tls_check *check_of(const br_x509_class **ctx)
{
    return CONTAINER_OF(ctx, struct tls_check, vtable);
}

static void start_chain(const br_x509_class **ctx, const char *server_name)
{
    struct tls_check *c = check_of(ctx);
    UNUSED(server_name); /* what goes into SNI is not all that is to be matched */
    c->asked = true;
    c->n = 0;
    c->der_n = 0;
    c->why[0] = '\0';
}

static void start_cert(const br_x509_class **ctx, uint32_t length)
{
    struct tls_check *c = check_of(ctx);
    if (c->n == CHAIN_MAX || length > CHAIN_BYTES - c->der_n)
        c->too_much = true;
    if (c->too_much)
        return;
    c->der = mem_realloc(c->der, c->der_n + length + 1);
    c->at[c->n] = c->der_n;
}

static void append(const br_x509_class **ctx, const unsigned char *buf, size_t len)
{
    struct tls_check *c = check_of(ctx);
    if (c->too_much)
        return;
    memcpy(c->der + c->der_n, buf, len);
    c->der_n += len;
}

static void end_cert(const br_x509_class **ctx)
{
    struct tls_check *c = check_of(ctx);
    if (c->too_much)
        return;
    c->n++;
    c->at[c->n] = c->der_n;
}

/* ---- words ---- */

static struct str why_begin(struct tls_check *c)
{
    struct str why = STR_INIT(c->why);
    return why;
}

/* 'the certificate "registry.example" (issued by "Example CA")' */
static void add_cert(struct str *why, const struct cert *cert)
{
    str_addz(why, "the certificate \"");
    cert_add_subject(cert, why);
    str_addz(why, "\" (issued by \"");
    cert_add_issuer(cert, why);
    str_addz(why, "\")");
}

static void why_cert(struct tls_check *c, const struct cert *cert, const char *text)
{
    struct str why = why_begin(c);
    add_cert(&why, cert);
    str_addz(&why, text);
}

static void why_dates(struct tls_check *c, const struct cert *cert)
{
    struct str why = why_begin(c);
    bool late = c->now_ms > cert->until_ms;
    add_cert(&why, cert);
    str_addz(&why, late ? " expired on " : " is not valid before ");
    clock_add_rfc3339(&why, late ? cert->until_ms : cert->from_ms);
    if (!late) {
        str_addz(&why, "; this machine's clock says ");
        clock_add_rfc3339(&why, c->now_ms);
    }
}

static void why_name(struct tls_check *c, const struct cert *cert)
{
    struct str why = why_begin(c);
    str_addz(&why, "the certificate is for ");
    if (!cert_add_names(cert, &why))
        str_addz(&why, "no name");
    if (c->addr_n > 0)
        str_addf(&why, ", and the address %s is not among its alternative names", c->host);
    else
        str_addf(&why, ", not for %s", c->host);
}

static void why_untrusted(struct tls_check *c, const struct cert *last, bool same_name)
{
    struct str why = why_begin(c);
    add_cert(&why, last);
    if (same_name)
        str_addz(&why, " is not signed by the trusted authority of that name: it has another key");
    else if (span_eq(last->subject, last->issuer))
        str_addz(&why, " signed itself and is not trusted here (see \"ca\")");
    else
        str_addz(&why, " is not by an authority trusted here (see \"ca\"), or the server leaves out a "
                       "certificate between");
}

static void why_extension(struct tls_check *c, const struct cert *cert)
{
    if (cert->repeated)
        why_cert(c, cert, " has an extension twice, which no certificate may, or more than 64 of them");
    else if (cert->name_constraints)
        why_cert(
            c, cert,
            " has name constraints, which larder cannot check; it can be trusted without them (see \"ca\")");
    else if (cert->usage_critical)
        why_cert(c, cert, " marks its extended key usage as critical, which larder cannot process");
    else
        why_cert(c, cert, " has a critical extension that larder does not know");
}

static void why_unsupported(struct tls_check *c, const struct cert *cert)
{
    if (cert_signed_with_sha1(cert))
        why_cert(c, cert, " is signed with SHA-1, which is not safe any more");
    else
        why_cert(
            c, cert,
            " has a key or a signature of a kind that larder cannot check (RSA with PKCS#1 signatures, and "
            "ECDSA with P-256, P-384 and P-521 can be checked)");
}

/* What the minimal engine says of the certificate it stopped at. */
static void why_verdict(struct tls_check *c, const struct cert *cert, unsigned err)
{
    struct str why;
    switch (err) {
    case BR_ERR_X509_EXPIRED:
        why_dates(c, cert);
        break;
    case BR_ERR_X509_BAD_SERVER_NAME:
        why_name(c, cert);
        break;
    case BR_ERR_X509_NOT_TRUSTED:
        why_untrusted(c, cert, true);
        break;
    case BR_ERR_X509_CRITICAL_EXTENSION:
        why_extension(c, cert);
        break;
    case BR_ERR_X509_UNSUPPORTED:
        why_unsupported(c, cert);
        break;
    case BR_ERR_X509_LIMIT_EXCEEDED:
        why_cert(c, cert, " has a key of more than 4096 bits");
        break;
    case BR_ERR_X509_WEAK_PUBLIC_KEY:
        why_cert(c, cert, " has an RSA key of fewer than 2048 bits");
        break;
    case BR_ERR_X509_BAD_SIGNATURE:
    case BR_ERR_X509_WRONG_KEY_TYPE:
        why_cert(c, cert, " has issued a certificate whose signature is wrong");
        break;
    case BR_ERR_X509_NOT_CA:
        why_cert(c, cert,
                 " is no authority, or may not be so far from the end of its chain, and has issued one");
        break;
    case BR_ERR_X509_FORBIDDEN_KEY_USAGE:
        why_cert(c, cert, " says that its key is not for this use");
        break;
    default:
        why_cert(c, cert, " is not as it should be");
        why = str_init(c->why + strlen(c->why), sizeof c->why - strlen(c->why));
        str_addf(&why, " (BearSSL error %u)", err);
    }
}

/* ---- one path ---- */

/* What the minimal engine does not look at. */
static bool path_fits(struct tls_check *c, const struct path *path)
{
    for (unsigned i = 0; i < path->n; i++) {
        const struct cert *cert = &c->certs[path->at[i]];
        if (cert->repeated || cert->name_constraints) {
            why_extension(c, cert);
            return false;
        }
        if (!cert_for_servers(cert)) {
            why_cert(c, cert, " is not for servers (its extended key usage names other purposes only)");
            return false;
        }
    }
    if (c->addr_n == 0 || cert_for_address(&c->certs[path->at[0]], c->addr, c->addr_n))
        return true;
    why_name(c, &c->certs[path->at[0]]);
    return false;
}

/* The anchors that this path can end at: one trusted for itself, or the last one's issuer. */
static size_t path_anchors(const struct tls_check *c, const struct path *path,
                           br_x509_trust_anchor out[ANCHORS_MAX])
{
    size_t n = 0;
    struct span issuer = c->certs[path->at[path->n - 1]].issuer;
    struct span subject = path->n == 1 ? c->certs[path->at[0]].subject : SPAN_NONE;
    for (size_t i = 0; i < c->trust->n && n < ANCHORS_MAX; i++) {
        const br_x509_trust_anchor *a = &c->trust->anchors[i];
        struct span name = span_of((const char *)a->dn.data, a->dn.len);
        if (span_eq(name, (a->flags & BR_X509_TA_CA) != 0 ? issuer : subject))
            out[n++] = *a;
    }
    return n;
}

static bool path_valid(struct tls_check *c, const struct path *path, const br_x509_trust_anchor *anchors,
                       size_t n_anchors)
{
    br_x509_minimal_context *m = &c->minimal;
    br_x509_minimal_init_full(m, anchors, n_anchors);
    br_x509_minimal_set_hash(m, br_md5_ID, NULL);
    br_x509_minimal_set_hash(m, br_sha1_ID, NULL);
    br_x509_minimal_set_minrsa(m, 2048 / 8);
    br_x509_minimal_set_time(m, (uint32_t)(c->now_ms / DAY_MS + DAYS_BC),
                             (uint32_t)(c->now_ms % DAY_MS / 1000));
    m->vtable->start_chain(&m->vtable, c->addr_n > 0 ? NULL : c->host);
    unsigned stopped = path->n - 1;
    for (unsigned i = 0; i < path->n; i++) {
        struct span der = c->certs[path->at[i]].der;
        m->vtable->start_cert(&m->vtable, (uint32_t)der.n);
        m->vtable->append(&m->vtable, (const unsigned char *)der.p, der.n);
        m->vtable->end_cert(&m->vtable);
        if (m->err != 0 && stopped == path->n - 1)
            stopped = i;
    }
    unsigned err = m->vtable->end_chain(&m->vtable);
    if (err != 0)
        why_verdict(c, &c->certs[path->at[stopped]], err);
    m->trust_anchors = NULL; /* they are on the caller's stack */
    m->trust_anchors_num = 0;
    return err == 0;
}

static int64_t path_until(const struct tls_check *c, const struct path *path)
{
    int64_t until = INT64_MAX;
    for (unsigned i = 0; i < path->n; i++) {
        if (c->certs[path->at[i]].until_ms < until)
            until = c->certs[path->at[i]].until_ms;
    }
    return until;
}

static bool path_try(struct tls_check *c, const struct path *path)
{
    br_x509_trust_anchor anchors[ANCHORS_MAX];
    size_t n = path_anchors(c, path, anchors);
    if (n == 0 || c->paths == PATHS_MAX)
        return false;
    c->paths++;
    char first[TLS_WHY];
    memcpy(first, c->why, sizeof first);
    if (path_fits(c, path) && path_valid(c, path, anchors, n)) {
        c->until_ms = path_until(c, path);
        return true;
    }
    if (first[0] != '\0')
        memcpy(c->why, first, sizeof first);
    return false;
}

/* ---- the search ---- */

static void path_add(struct path *path, unsigned cert)
{
    path->at[path->n++] = cert;
    path->used |= 1u << cert;
}

/* Tries this path, and all that go on from it. *far: where the search ended first. */
static bool path_search(struct tls_check *c, const struct path *path, const struct cert **far)
{
    const struct cert *last = &c->certs[path->at[path->n - 1]];
    bool further = false;
    if (c->steps == STEPS_MAX)
        return false;
    c->steps++;
    if (path_try(c, path))
        return true;
    for (unsigned i = 0; i < c->n; i++) {
        if ((path->used & 1u << i) != 0 || !span_eq(c->certs[i].subject, last->issuer) ||
            span_eq(last->subject, last->issuer))
            continue;
        struct path longer = *path;
        path_add(&longer, i);
        further = true;
        if (path_search(c, &longer, far))
            return true;
    }
    if (!further && *far == NULL)
        *far = last;
    return false;
}

static unsigned end_chain(const br_x509_class **ctx)
{
    struct tls_check *c = check_of(ctx);
    struct str why = why_begin(c);
    if (c->too_much || c->n == 0) {
        str_addz(&why, c->n == 0 && !c->too_much
                           ? "the server shows no certificate"
                           : "the server sends more certificates than are looked at (16, or 128 KiB)");
        return ERR_REFUSED;
    }
    for (unsigned i = 0; i < c->n; i++)
        if (!cert_parse(span_of(c->der + c->at[i], c->at[i + 1] - c->at[i]), &c->certs[i])) {
            str_addf(&why, "certificate %u of those that the server sends is damaged", i + 1);
            return ERR_REFUSED;
        }
    const struct cert *far = NULL;
    struct path path = {0};
    path_add(&path, 0);
    c->now_ms = clock_wall_ms();
    c->paths = c->steps = 0;
    if (path_search(c, &path, &far)) {
        c->why[0] = '\0';
        return 0;
    }
    if (c->why[0] == '\0')
        why_untrusted(c, far != NULL ? far : &c->certs[0], false);
    return ERR_REFUSED;
}

static const br_x509_pkey *get_pkey(const br_x509_class *const *ctx, unsigned *usages)
{
    const struct tls_check *c = check_of((const br_x509_class **)(uintptr_t)ctx);
    return c->minimal.vtable->get_pkey(&c->minimal.vtable, usages);
}

static const br_x509_class check_class = {
    .context_size = sizeof(struct tls_check),
    .start_chain = start_chain,
    .start_cert = start_cert,
    .append = append,
    .end_cert = end_cert,
    .end_chain = end_chain,
    .get_pkey = get_pkey,
};

/* ---- life ---- */

struct tls_check *tls_check_new(const struct trust *trust, struct span host)
{
    struct tls_check *c;
    NEW(c);
    c->vtable = &check_class;
    c->trust = trust_ref(trust);
    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    MUST(host.n > 0 && host.n <= HOST_MAX);
    memcpy(c->host, host.p, host.n);
    if (inet_pton(AF_INET, c->host, c->addr) == 1)
        c->addr_n = 4;
    else if (inet_pton(AF_INET6, c->host, c->addr) == 1)
        c->addr_n = 16;
    return c;
}

void tls_check_free(struct tls_check *c)
{
    if (c == NULL)
        return;
    trust_unref(c->trust);
    mem_free(c->der);
    mem_wipe(c, sizeof *c);
    mem_free(c);
}

const br_x509_class **tls_check_class(struct tls_check *c)
{
    return &c->vtable;
}

const char *tls_check_sni(const struct tls_check *c)
{
    return c->addr_n > 0 ? NULL : c->host;
}

bool tls_check_asked(const struct tls_check *c)
{
    return c->asked;
}

const char *tls_check_why(const struct tls_check *c)
{
    return c->why;
}

int64_t tls_check_until(const struct tls_check *c)
{
    return c->until_ms;
}
