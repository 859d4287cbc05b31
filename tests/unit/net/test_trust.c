/* Trust anchors and identities from PEM texts: what is taken, and which block is named when it is not. */
#include "../core/loop.h"

#include "../base/dumped.h"

#include "pki.h"

#include "base/clock.h"
#include "net/cert.h"
#include "net/trust.h"

static char text[512];
static char made[128 << 10];

static struct trust *trust_try(struct span pem, const struct trust *base, bool strict)
{
    struct str why = STR_INIT(text);
    return trust_new(pem, base, strict, &why);
}

static struct span format_of(const char *format, ...) PRINTF(1, 2);

static struct span format_of(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(made, sizeof made, format, args);
    va_end(args);
    assert_in_range(n, 0, sizeof made - 1);
    return span_of(made, (size_t)n);
}

static void trusted(struct span pem, size_t n)
{
    struct trust *t = trust_try(pem, NULL, true);
    if (t == NULL)
        fail_msg("%s", text);
    assert_int_equal(trust_count(t), n);
    trust_unref(t);
}

static void refused(struct span pem, const char *says)
{
    struct trust *t = trust_try(pem, NULL, true);
    assert_null(t);
    assert_string_equal(text, says);
}

static void test_bundles(void **state)
{
    UNUSED(state);
    struct span root = pki_text("root", NULL), both = pki_text("root", "other", NULL);
    trusted(root, 1);
    trusted(both, 2);
    trusted(span_sub(root, 0, root.n - 1), 1); /* the last line without its end */
    trusted(format_of("# a comment\n" SPAN_FMT "\n\ntext between\n" SPAN_FMT "the end", SPAN_ARG(root),
                      SPAN_ARG(root)),
            2);
    size_t n = 0;
    for (size_t i = 0; i < root.n; i++) { /* ends of lines from elsewhere */
        if (root.p[i] == '\n')
            made[n++] = '\r';
        made[n++] = root.p[i];
    }
    trusted(span_of(made, n), 1);
    const char *argv[] = {"openssl",   "x509",       "-in",  pki_path("root", ".pem"),    "-trustout",
                          "-addtrust", "serverAuth", "-out", pki_path("trusted", ".pem"), NULL};
    pki_openssl(argv);
    trusted(pki_text("trusted", NULL), 1); /* with more behind the certificate */
    trusted(pki_text("leaf", NULL), 1);    /* for itself */
    trusted(pki_text("rsa", "p384", "p521", NULL), 3);
}

static void test_refused(void **state)
{
    UNUSED(state);
    struct span root = pki_text("root", NULL);
    refused(SPAN(""), "the text is empty; it must hold a certificate in PEM form (-----BEGIN ...)");
    refused(SPAN(" \t "), "the text is empty; it must hold a certificate in PEM form (-----BEGIN ...)");
    refused(SPAN("hello\n"), "there is no block with a certificate (-----BEGIN ...)");
    refused(SPAN("\x30\x82\x01\x01xxx"),
            "this is binary (DER); convert it with: openssl x509 -inform DER -in FILE");
    refused(format_of(SPAN_FMT SPAN_FMT, SPAN_ARG(root), SPAN_ARG(pki_key("root"))),
            "block 2 (a private key): only certificates are expected here");
    refused(format_of("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
            "block 1 (X509 CRL): only certificates are expected here");
    refused(
        format_of(SPAN_FMT "-----BEGIN CERTIFICATE-----\nAA!A\n-----END CERTIFICATE-----\n", SPAN_ARG(root)),
        "block 2 (a certificate): the text between BEGIN and END is not base64");
    refused(format_of(SPAN_FMT SPAN_FMT "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n",
                      SPAN_ARG(root), SPAN_ARG(root)),
            "block 3 (a certificate): it is damaged: not a well-formed certificate");
    refused(format_of("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"),
            "block 1 (a certificate): it is damaged: not a well-formed certificate");
    refused(format_of(SPAN_FMT SPAN_FMT, SPAN_ARG(root), SPAN_ARG(span_sub(root, 0, root.n - 26))),
            "block 2 (a certificate): its end (-----END ...) is missing");
    refused(format_of(SPAN_FMT SPAN_FMT, SPAN_ARG(span_sub(root, 0, 200)), SPAN_ARG(root)),
            "block 1 (a certificate): the text between BEGIN and END is not base64");
    refused(pki_text("root", "modern", NULL), "block 2 (a certificate): its key is of a kind that larder "
                                              "cannot use (RSA of up to 4096 bits and the curves "
                                              "P-256, P-384 and P-521 can be used)");
    refused(pki_text("huge", NULL),
            "block 1 (a certificate): its key is too long (RSA of more than 4096 bits)");
    char *at = made;
    at += snprintf(made, sizeof made, "-----BEGIN CERTIFICATE-----\n");
    for (unsigned i = 0; i < 1400; i++, at += 65)
        snprintf(at, 66, "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\n");
    snprintf(at, 40, "-----END CERTIFICATE-----\n");
    refused(span_str(made), "block 1 (a certificate): it is too long");
}

/* The system's bundle: what cannot be used is left out. */
static void test_lenient(void **state)
{
    UNUSED(state);
    struct span mixed =
        format_of(SPAN_FMT "-----BEGIN CERTIFICATE-----\nAA!A\n-----END CERTIFICATE-----\n" SPAN_FMT,
                  SPAN_ARG(pki_text("root", "modern", "huge", NULL)), SPAN_ARG(pki_text("other", NULL)));
    struct trust *t = trust_try(mixed, NULL, false);
    assert_non_null(t);
    assert_int_equal(trust_count(t), 2);
    trust_unref(t);
    t = trust_try(SPAN(""), NULL, false);
    assert_non_null(t);
    assert_int_equal(trust_count(t), 0);
    trust_unref(t);
    trust_unref(NULL);
}

static void test_on_top(void **state)
{
    UNUSED(state);
    struct trust *base = trust_try(pki_text("root", "other", NULL), NULL, true);
    struct trust *more = trust_try(pki_text("rsa", NULL), base, true);
    struct trust *most = trust_try(pki_text("p384", "p521", NULL), more, true);
    trust_unref(base); /* the others keep it */
    trust_unref(more);
    assert_int_equal(trust_count(most), 5);
    const struct trust *again = trust_ref(most);
    trust_unref(most);
    assert_int_equal(trust_count(again), 5);
    assert_null(trust_try(SPAN("nothing"), again, true)); /* what is below does not count */
    trust_unref(again);
}

static void test_the_systems(void **state)
{
    static char pem[1 << 20];
    UNUSED(state);
    if (access("/etc/ssl/certs/ca-certificates.crt", R_OK) != 0)
        skip();
    size_t n = pki_load("/etc/ssl/certs/ca-certificates.crt", pem, sizeof pem);
    struct trust *t = trust_try(span_of(pem, n), NULL, false);
    assert_non_null(t);
    assert_in_range(trust_count(t), 50, 1000);
    trust_unref(t);
}

/* ---- identities ---- */

static struct identity *identity_try(struct span certificate, struct span key)
{
    struct str why = STR_INIT(text);
    return identity_new(certificate, key, &why);
}

static void mine(struct span certificate, struct span key)
{
    struct identity *i = identity_try(certificate, key);
    if (i == NULL)
        fail_msg("%s", text);
    identity_unref(identity_ref(i));
    identity_unref(i);
}

static void not_mine(struct span certificate, struct span key, const char *says)
{
    assert_null(identity_try(certificate, key));
    assert_string_equal(text, says);
}

static struct span key_as(const char *name, const char *command, const char *option, const char *value)
{
    const char *argv[] = {"openssl", command, "-in", pki_path(name, ".key"), "-out", pki_path("as", ".key"),
                          option,    value,   NULL};
    pki_openssl(argv);
    return pki_key("as");
}

static void test_identities(void **state)
{
    static const char *const names[] = {"leaf", "rsa", "p384", "p521"};
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        mine(pki_text(names[i], NULL), pki_key(names[i])); /* PKCS#8 */
    mine(pki_text("leaf", "root", NULL), pki_key("leaf"));
    mine(pki_text("rsa", NULL), key_as("rsa", "rsa", "-traditional", NULL)); /* PKCS#1 */
    mine(pki_text("leaf", NULL), key_as("leaf", "ec", NULL, NULL));          /* SEC1 */
    struct span both =
        format_of(SPAN_FMT SPAN_FMT, SPAN_ARG(pki_key("leaf")), SPAN_ARG(pki_text("leaf", "root", NULL)));
    mine(both, both); /* everything in one file */
    mine(pki_text("leaf", NULL),
         format_of("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" SPAN_FMT,
                   SPAN_ARG(pki_key("leaf"))));
    identity_unref(NULL);
    struct identity *i = identity_try(pki_text("leaf", NULL), pki_key("leaf"));
    assert_true(is_left_out(i)); /* it holds the key */
    identity_unref(i);
}

static void test_identities_refused(void **state)
{
    UNUSED(state);
    struct span leaf = pki_text("leaf", NULL);
    not_mine(SPAN(""), pki_key("leaf"),
             "certificate: the text is empty; it must hold a certificate in PEM form (-----BEGIN ...)");
    not_mine(pki_key("leaf"), pki_key("leaf"),
             "certificate: there is no block with a certificate (-----BEGIN ...)");
    not_mine(leaf, SPAN(""),
             "key: the text is empty; it must hold a private key in PEM form (-----BEGIN ...)");
    not_mine(leaf, leaf, "key: there is no block with a private key (-----BEGIN ...)");
    not_mine(leaf, SPAN("\x30\x10"),
             "key: this is binary (DER); convert it with: openssl pkey -inform DER -in FILE");
    not_mine(leaf, pki_key("other"),
             "the key does not belong to the certificate: they were not made together");
    not_mine(leaf, pki_key("p384"),
             "the key does not belong to the certificate: they were not made together");
    not_mine(leaf, pki_key("rsa"), "the key does not belong to the certificate: they were not made together");
    not_mine(pki_text("rsa", NULL), pki_key("rsa2"),
             "the key does not belong to the certificate: they were not made together");
    not_mine(pki_text("root", "other", "leaf", NULL), pki_key("leaf"),
             "the key belongs to certificate 3 of the chain; the server's own certificate must come first");
    not_mine(leaf, key_as("leaf", "pkcs8", "-topk8", "-passout=pass:x"),
             "key: block 1 (a private key): it is encrypted; store it without a passphrase: openssl pkey -in "
             "FILE");
    not_mine(leaf, pki_key("modern"),
             "key: block 1 (a private key): it cannot be used; RSA of up to 4096 bits, or a key of the "
             "curves P-256, P-384 or "
             "P-521, as PKCS#1, SEC1 or PKCS#8 can be used");
    not_mine(leaf,
             SPAN("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE "
                  "KEY-----\n"),
             "key: block 1 (a private key): the text between BEGIN and END is not base64; if it is "
             "encrypted, store it without a passphrase: openssl pkey -in FILE");
    not_mine(format_of(SPAN_FMT "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n",
                       SPAN_ARG(leaf)),
             pki_key("leaf"),
             "certificate: block 2 (a certificate): it is damaged: not a well-formed certificate");
    not_mine(pki_text("modern", NULL), pki_key("leaf"),
             "certificate: the first one: its key is of a kind that larder cannot use (RSA of up to 4096 "
             "bits and the curves "
             "P-256, P-384 and P-521 can be used)");
}

static void test_expiry(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"early", .cn = "early", .issuer = "root", .until = "20310203040506Z"});
    pki_make(&(struct pki_how){"late", .cn = "late", .issuer = "root", .until = "99991231235959Z"});
    int64_t early, late;
    assert_true(clock_from_date(2031, 2, 3, 4, 5, 6, &early));
    assert_true(clock_from_date(9999, 12, 31, 23, 59, 59, &late));
    struct identity *i = identity_try(pki_text("early", "root", NULL), pki_key("early"));
    assert_int_equal(identity_expires_ms(i), early);
    identity_unref(i);
    i = identity_try(pki_text("late", NULL), pki_key("late"));
    assert_int_equal(identity_expires_ms(i), late);
    identity_unref(i);
    i = identity_try(pki_text("late", "early", "root", NULL),
                     pki_key("late")); /* the first of the chain to end */
    assert_int_equal(identity_expires_ms(i), early);
    identity_unref(i);
}

/* ---- what is read of a certificate ---- */

static struct span der_of(const char *name)
{
    static char der[16 << 10];
    const char *argv[] = {"openssl",  "x509", "-in",  pki_path(name, ".pem"),
                          "-outform", "DER",  "-out", pki_path(name, ".der"),
                          NULL};
    pki_openssl(argv);
    return span_of(der, pki_load(pki_path(name, ".der"), der, sizeof der));
}

static void test_certificate(void **state)
{
    struct cert c;
    int64_t from;
    UNUSED(state);
    pki_make(&(struct pki_how){
        "full", .cn = "full.test", .issuer = "root", .names = "DNS:a.test,email:b@c.test,IP:10.1.2.3",
        .from = "20200102030405Z",
        .extra = "extendedKeyUsage = critical,clientAuth\nnameConstraints = permitted;DNS:test"});
    struct span der = der_of("full");
    assert_true(cert_parse(der, &c));
    assert_true(clock_from_date(2020, 1, 2, 3, 4, 5, &from));
    assert_int_equal(c.from_ms, from);
    assert_int_equal(c.version, 3);
    assert_false(c.authority);
    assert_true(c.name_constraints);
    assert_true(c.usage_critical);
    assert_false(cert_for_servers(&c));
    assert_false(cert_signed_with_sha1(&c));
    assert_true(cert_for_address(&c, "\x0a\x01\x02\x03", 4));
    assert_false(cert_for_address(&c, "\x0a\x01\x02\x04", 4));
    assert_false(span_eq(c.issuer, c.subject));
    char words[200];
    struct str s = STR_INIT(words);
    assert_true(cert_add_names(&c, &s));
    assert_string_equal(words, "a.test, 10.1.2.3");
    str_reset(&s);
    cert_add_issuer(&c, &s);
    assert_string_equal(words, "Root");
    struct span longer = span_of(memcpy(made, der.p, der.n), der.n + 1);
    assert_false(cert_parse(longer, &c));
    assert_int_equal(cert_outer(longer).n, der.n);
    for (size_t n = 0; n < der.n; n++)
        assert_false(cert_parse(span_sub(der, 0, n), &c));
    assert_true(cert_parse(der_of("root"), &c));
    assert_true(c.authority);
    assert_true(cert_for_servers(&c));
}

/* Nobody looks at the signature here. */
static void test_extensions(void **state)
{
    struct cert c;
    UNUSED(state);
    pki_make(&(struct pki_how){"two", .cn = "two", .authority = true,
                               .extra = "1.2.3.4 = DER:0500\n1.2.3.5 = DER:0500"});
    struct span der = der_of("two");
    assert_true(cert_parse(der, &c));
    assert_false(c.repeated);
    char *second = memmem(der.p, der.n, "\x06\x03\x2a\x03\x05", 5);
    assert_non_null(second);
    second[4] = 4;
    assert_true(cert_parse(der, &c));
    assert_true(c.repeated);
    char extra[2048];
    struct str s = STR_INIT(extra);
    unsigned n = 0;
    while (n < CERT_EXTENSIONS_MAX - 4) /* openssl adds some of its own */
        str_addf(&s, "1.2.3.%u = DER:0500\n", n++);
    pki_make(&(struct pki_how){"many", .cn = "many", .extra = extra});
    assert_true(cert_parse(der_of("many"), &c));
    assert_false(c.repeated);
    trusted(pki_text("many", NULL), 1);
    while (n <= CERT_EXTENSIONS_MAX)
        str_addf(&s, "1.2.3.%u = DER:0500\n", n++);
    pki_make(&(struct pki_how){"many", .cn = "many", .extra = extra});
    assert_true(cert_parse(der_of("many"), &c));
    assert_true(c.repeated);
    refused(pki_text("many", NULL), "block 1 (a certificate): it has an extension twice, which no "
                                    "certificate may, or more than 64 of them");
}

static int setup(void **state)
{
    UNUSED(state);
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Root", .authority = true});
    pki_make(&(struct pki_how){"other", .cn = "Other", .authority = true});
    pki_make(&(struct pki_how){"leaf", .cn = "leaf", .issuer = "root"});
    pki_make(&(struct pki_how){"rsa", .cn = "rsa", .key = "rsa:2048"});
    pki_make(&(struct pki_how){"rsa2", .cn = "rsa2", .key = "rsa:2048"});
    pki_make(&(struct pki_how){"p384", .cn = "p384", .key = "P-384"});
    pki_make(&(struct pki_how){"p521", .cn = "p521", .key = "P-521"});
    pki_make(&(struct pki_how){"modern", .cn = "modern", .key = "ed25519", .hash = "null"});
    pki_make(&(struct pki_how){"huge", .cn = "huge", .key = "rsa:4104"});
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    pki_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bundles),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lenient),
        cmocka_unit_test(test_on_top),
        cmocka_unit_test(test_the_systems),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_identities_refused),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_extensions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
