/* A reader for DER (X.690) over bytes that are all there: element by element, definite lengths in their shortest form, tags of one
 * byte. What has to be understood is checked; what need not be is stepped over by its length. */
#include "net/cert.h"

#include <arpa/inet.h>

#include "base/clock.h"

#define TAG_BOOLEAN    0x01u
#define TAG_INTEGER    0x02u
#define TAG_BITS       0x03u
#define TAG_OCTETS     0x04u
#define TAG_OID        0x06u
#define TAG_UTC        0x17u
#define TAG_TIME       0x18u
#define TAG_SEQUENCE   0x30u
#define TAG_SET        0x31u
#define TAG_DNS_NAME   0x82u
#define TAG_IP_ADDRESS 0x87u
#define TAG_VERSION    0xa0u
#define TAG_EXTENSIONS 0xa3u

#define OID_COMMON_NAME      SPAN("\x55\x04\x03")
#define OID_ORGANISATION     SPAN("\x55\x04\x0a")
#define OID_ALTERNATIVE_NAME SPAN("\x55\x1d\x11")
#define OID_CONSTRAINTS      SPAN("\x55\x1d\x13")
#define OID_NAME_CONSTRAINTS SPAN("\x55\x1d\x1e")
#define OID_USAGE            SPAN("\x55\x1d\x25")
#define OID_USAGE_ANY        SPAN("\x55\x1d\x25\x00")
#define OID_USAGE_SERVER     SPAN("\x2b\x06\x01\x05\x05\x07\x03\x01")
#define OID_RSA_SHA1         SPAN("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05")
#define OID_ECDSA_SHA1       SPAN("\x2a\x86\x48\xce\x3d\x04\x01")

struct element {
    unsigned tag;
    struct span inside, whole;
};

static unsigned byte_at(struct span s, size_t i)
{
    return (unsigned char)s.p[i];
}

/* Cuts the next element off the front of *rest. */
static bool next_element(struct span *rest, struct element *e)
{
    if (rest->n < 2 || (byte_at(*rest, 0) & 0x1f) == 0x1f)
        return false;
    size_t head = 2, n = byte_at(*rest, 1);
    if (n >= 0x80) {
        size_t digits = n - 0x80;
        if (digits < 1 || digits > 3 || rest->n < 2 + digits || byte_at(*rest, 2) == 0)
            return false;
        n = 0;
        for (size_t i = 0; i < digits; i++)
            n = n << 8 | byte_at(*rest, 2 + i);
        if (n < 0x80)
            return false;
        head += digits;
    }
    if (n > rest->n - head)
        return false;
    *e = (struct element){byte_at(*rest, 0), span_sub(*rest, head, n), span_sub(*rest, 0, head + n)};
    *rest = span_from(*rest, head + n);
    return true;
}

static bool next_of(struct span *rest, unsigned tag, struct element *e)
{
    return next_element(rest, e) && e->tag == tag;
}

/* The next element if it has that tag; else *rest stays. */
static bool next_if(struct span *rest, unsigned tag, struct element *e)
{
    struct span at = *rest;
    if (!next_of(&at, tag, e))
        return false;
    *rest = at;
    return true;
}

struct span cert_outer(struct span der)
{
    struct element e;
    return next_element(&der, &e) ? e.whole : SPAN_NONE;
}

/* ---- dates ---- */

static bool digits_of(struct span s, size_t at, size_t n, int *out)
{
    uint64_t v;
    if (!span_u64(span_sub(s, at, n), 9999, &v))
        return false;
    *out = (int)v;
    return true;
}

/* YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ (RFC 5280 section 4.1.2.5). */
static bool parse_time(struct span *rest, int64_t *ms)
{
    struct element e;
    int year, month, day, hour, minute, second;
    if (!next_element(rest, &e) || (e.tag != TAG_UTC && e.tag != TAG_TIME))
        return false;
    size_t n = e.tag == TAG_UTC ? 2 : 4;
    if (e.inside.n != n + 11 || e.inside.p[n + 10] != 'Z' || !digits_of(e.inside, 0, n, &year))
        return false;
    if (e.tag == TAG_UTC)
        year += year < 50 ? 2000 : 1900;
    return digits_of(e.inside, n, 2, &month) && digits_of(e.inside, n + 2, 2, &day) &&
           digits_of(e.inside, n + 4, 2, &hour) && digits_of(e.inside, n + 6, 2, &minute) &&
           digits_of(e.inside, n + 8, 2, &second) &&
           clock_from_date(year, month, day, hour, minute, second, ms);
}

static bool parse_validity(struct span *rest, struct cert *c)
{
    struct element e;
    if (!next_of(rest, TAG_SEQUENCE, &e))
        return false;
    return parse_time(&e.inside, &c->from_ms) && parse_time(&e.inside, &c->until_ms) && e.inside.n == 0;
}

/* ---- extensions ---- */

static bool parse_constraints(struct span value, struct cert *c)
{
    struct element seq, ca;
    if (!next_of(&value, TAG_SEQUENCE, &seq) || value.n != 0)
        return false;
    c->authority = next_if(&seq.inside, TAG_BOOLEAN, &ca) && ca.inside.n == 1 && byte_at(ca.inside, 0) != 0;
    return true;
}

static bool parse_list(struct span value, struct span *out)
{
    struct element seq, e;
    if (!next_of(&value, TAG_SEQUENCE, &seq) || value.n != 0)
        return false;
    *out = seq.inside;
    for (struct span rest = seq.inside; rest.n > 0;)
        if (!next_element(&rest, &e))
            return false;
    return true;
}

struct extensions {
    unsigned n;
    struct span oids[CERT_EXTENSIONS_MAX];
};

/* No certificate may have one twice (RFC 5280 section 4.2): which of them counts would be anyone's guess. */
static void note_extension(struct extensions *seen, struct span oid, struct cert *c)
{
    for (unsigned i = 0; i < seen->n; i++)
        c->repeated = c->repeated || span_eq(seen->oids[i], oid);
    if (seen->n == CERT_EXTENSIONS_MAX)
        c->repeated = true;
    else
        seen->oids[seen->n++] = oid;
}

static bool parse_extension(struct span *rest, struct extensions *seen, struct cert *c)
{
    struct element seq, oid, critical, value;
    if (!next_of(rest, TAG_SEQUENCE, &seq) || !next_of(&seq.inside, TAG_OID, &oid))
        return false;
    bool is_critical = next_if(&seq.inside, TAG_BOOLEAN, &critical) && critical.inside.n == 1 &&
                       byte_at(critical.inside, 0) != 0;
    if (!next_of(&seq.inside, TAG_OCTETS, &value) || seq.inside.n != 0)
        return false;
    note_extension(seen, oid.inside, c);
    if (span_eq(oid.inside, OID_CONSTRAINTS))
        return parse_constraints(value.inside, c);
    if (span_eq(oid.inside, OID_ALTERNATIVE_NAME))
        return parse_list(value.inside, &c->names);
    if (span_eq(oid.inside, OID_USAGE)) {
        c->usage_critical = is_critical;
        return parse_list(value.inside, &c->usage);
    }
    if (span_eq(oid.inside, OID_NAME_CONSTRAINTS))
        c->name_constraints = true;
    return true;
}

static bool parse_extensions(struct span *rest, struct cert *c)
{
    struct element e, seq;
    struct extensions seen;
    seen.n = 0;
    for (struct span tail = *rest; tail.n > 0;) { /* unique identifiers may come first */
        if (!next_element(&tail, &e))
            return false;
        *rest = tail;
        if (e.tag != TAG_EXTENSIONS)
            continue;
        if (!next_of(&e.inside, TAG_SEQUENCE, &seq) || e.inside.n != 0)
            return false;
        while (seq.inside.n > 0)
            if (!parse_extension(&seq.inside, &seen, c))
                return false;
    }
    return true;
}

/* ---- the certificate ---- */

static bool parse_version(struct span *rest, struct cert *c)
{
    struct element e, number;
    c->version = 1;
    if (!next_if(rest, TAG_VERSION, &e))
        return true;
    if (!next_of(&e.inside, TAG_INTEGER, &number) || number.inside.n != 1 || byte_at(number.inside, 0) > 2)
        return false;
    c->version = byte_at(number.inside, 0) + 1;
    return e.inside.n == 0;
}

static bool parse_name(struct span *rest, struct span *out)
{
    struct element e;
    if (!next_of(rest, TAG_SEQUENCE, &e))
        return false;
    *out = e.whole;
    return true;
}

bool cert_parse(struct span der, struct cert *out)
{
    struct element all, tbs, e, algorithm;
    *out = (struct cert){.der = der};
    if (!next_of(&der, TAG_SEQUENCE, &all) || der.n != 0)
        return false;
    if (!next_of(&all.inside, TAG_SEQUENCE, &tbs) || !next_of(&all.inside, TAG_SEQUENCE, &algorithm) ||
        !next_of(&all.inside, TAG_BITS, &e) || all.inside.n != 0)
        return false;
    if (!next_of(&algorithm.inside, TAG_OID, &e))
        return false;
    out->signed_by = e.inside;
    struct span *in = &tbs.inside;
    return parse_version(in, out) && next_of(in, TAG_INTEGER, &e) && next_of(in, TAG_SEQUENCE, &e) &&
           parse_name(in, &out->issuer) && parse_validity(in, out) && parse_name(in, &out->subject) &&
           next_of(in, TAG_SEQUENCE, &e) && parse_extensions(in, out);
}

/* ---- in words ---- */

static void add_plain(struct str *out, struct span text)
{
    for (size_t i = 0; i < text.n && i < CERT_NAME_MAX; i++)
        str_addc(out, text.p[i] >= 0x20 && text.p[i] < 0x7f ? text.p[i] : '?');
}

/* The last value of that attribute: the most specific one stands at the end. */
static struct span attribute(struct span name, struct span oid)
{
    struct span found = SPAN_NONE;
    struct element all, set, pair, type, value;
    if (!next_element(&name, &all))
        return found;
    while (next_element(&all.inside, &set))
        while (next_element(&set.inside, &pair))
            if (next_element(&pair.inside, &type) && next_element(&pair.inside, &value) &&
                span_eq(type.inside, oid))
                found = value.inside;
    return found;
}

static bool add_name(struct span name, struct str *out)
{
    struct span text = attribute(name, OID_COMMON_NAME);
    if (text.n == 0)
        text = attribute(name, OID_ORGANISATION);
    add_plain(out, text);
    return text.n > 0;
}

/* Names and addresses; mail addresses, URIs and the like do not name a server. */
static bool names_server(const struct element *e)
{
    return (e->tag == TAG_DNS_NAME && e->inside.n > 0) ||
           (e->tag == TAG_IP_ADDRESS && (e->inside.n == 4 || e->inside.n == 16));
}

static void add_alternative(const struct element *e, struct str *out)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (e->tag == TAG_DNS_NAME) {
        add_plain(out, e->inside);
        return;
    }
    (void)inet_ntop(e->inside.n == 4 ? AF_INET : AF_INET6, e->inside.p, text, sizeof text);
    str_addz(out, text);
}

static size_t add_alternatives(const struct cert *c, struct str *out, size_t max)
{
    struct element e;
    size_t n = 0;
    for (struct span rest = c->names; next_element(&rest, &e);) {
        if (!names_server(&e))
            continue;
        if (n == max) {
            str_addz(out, max > 1 ? " and others" : "");
            break;
        }
        str_addz(out, n > 0 ? ", " : "");
        add_alternative(&e, out);
        n++;
    }
    return n;
}

void cert_add_subject(const struct cert *c, struct str *out)
{
    if (!add_name(c->subject, out) && add_alternatives(c, out, 1) == 0)
        str_addz(out, "without a name");
}

void cert_add_issuer(const struct cert *c, struct str *out)
{
    if (!add_name(c->issuer, out))
        str_addz(out, "without a name");
}

bool cert_add_names(const struct cert *c, struct str *out)
{
    return add_alternatives(c, out, 4) > 0 || add_name(c->subject, out);
}

/* ---- what it is for ---- */

bool cert_for_address(const struct cert *c, const void *addr, size_t n)
{
    struct element e;
    for (struct span rest = c->names; next_element(&rest, &e);)
        if (e.tag == TAG_IP_ADDRESS && e.inside.n == n && memcmp(e.inside.p, addr, n) == 0)
            return true;
    return false;
}

bool cert_for_servers(const struct cert *c)
{
    struct element e;
    if (c->usage.p == NULL)
        return true;
    for (struct span rest = c->usage; next_element(&rest, &e);)
        if (e.tag == TAG_OID && (span_eq(e.inside, OID_USAGE_SERVER) || span_eq(e.inside, OID_USAGE_ANY)))
            return true;
    return false;
}

bool cert_signed_with_sha1(const struct cert *c)
{
    return span_eq(c->signed_by, OID_RSA_SHA1) || span_eq(c->signed_by, OID_ECDSA_SHA1);
}
