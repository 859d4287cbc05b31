/* The input is a certificate in DER. What is read of it lies inside it; a certificate has no other length; its words are short and plain. */
#include "base/check.h"
#include "net/cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct span all, struct span part)
{
    MUST(part.p == NULL || (part.p >= all.p && part.p + part.n <= all.p + all.n));
}

static void check_words(const struct cert *c)
{
    char words[1024];
    struct str s = STR_INIT(words);
    cert_add_subject(c, &s);
    MUST(s.n > 0 && s.n <= CERT_NAME_MAX);
    cert_add_issuer(c, &s);
    (void)cert_add_names(c, &s);
    MUST(!s.cut);
    for (size_t i = 0; i < s.n; i++)
        MUST(s.p[i] >= 0x20 && s.p[i] < 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char addr[16];
    struct span der = span_of((const char *)data, size);
    struct cert c, other;
    check_inside(der, cert_outer(der));
    if (!cert_parse(der, &c))
        return 0;
    MUST(span_eq(cert_outer(der), der) && !cert_parse(span_sub(der, 0, size - 1), &other));
    check_inside(der, c.issuer);
    check_inside(der, c.subject);
    check_inside(der, c.signed_by);
    check_inside(der, c.usage);
    check_inside(der, c.names);
    MUST(c.version >= 1 && c.version <= 3);
    check_words(&c);
    (void)cert_for_address(&c, addr, 4);
    (void)cert_for_address(&c, addr, 16);
    MUST(cert_for_servers(&c) || c.usage.p != NULL);
    (void)cert_signed_with_sha1(&c);
    return 0;
}
