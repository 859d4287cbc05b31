/* Which certificates of a server are taken, and what is said of the others. */
#include "tls_rig.h"

#include "base/clock.h"

#define GOOD NULL

/* A handshake for `host` with a server that shows `chain`, whose first certificate has the key of `key`. says: NULL: it must
 * succeed. */
static void expect(struct span chain, const char *key, struct span roots, const char *host, const char *says)
{
    struct trust *trust = trust_of(roots);
    struct identity *identity = identity_of(chain, key);
    how = (struct tls_client){.trust = trust, .host = span_str(host)};
    server_identity = identity;
    handshake();
    if (says == NULL && !client.ok)
        fail_msg("%s with the key of %s: %s", host, key, client.why);
    if (says != NULL && (client.ok || strstr(client.why, says) == NULL))
        fail_msg("%s with the key of %s: \"%s\" instead of \"%s\"", host, key, client.why, says);
    if (says != NULL)
        assert_false(server.ok);
    trust_unref(trust);
    identity_unref(identity);
}

/* A leaf of the intermediate; with its proper chain. */
static void leaf(struct pki_how h, const char *host, const char *says)
{
    h.file = "made";
    if (h.issuer == NULL)
        h.issuer = "inter";
    if (h.cn == NULL)
        h.cn = "made.test";
    pki_make(&h);
    expect(pki_text("made", strcmp(h.issuer, "root") == 0 ? NULL : h.issuer, NULL), "made",
           pki_text("root", NULL), host, says);
}

/* ---- chains ---- */

static void test_good_chains(void **state)
{
    UNUSED(state);
    struct span root = pki_text("root", NULL);
    expect(pki_text("leaf", "inter", NULL), "leaf", root, "leaf.test", GOOD);
    expect(pki_text("leaf", "inter", "root", NULL), "leaf", root, "leaf.test", GOOD);
    expect(pki_text("leaf", "inter", "other", NULL), "leaf", root, "leaf.test",
           GOOD); /* what is not needed */
    expect(pki_text("leaf", "other", "inter", NULL), "leaf", root, "leaf.test", GOOD); /* is not in the way */
    expect(pki_text("leaf", "root", "inter", NULL), "leaf", root, "leaf.test", GOOD);  /* out of order */
    expect(pki_text("leaf", "inter", "inter", NULL), "leaf", root, "leaf.test", GOOD);
    expect(pki_text("leaf", NULL), "leaf", pki_text("inter", NULL), "leaf.test",
           GOOD); /* an intermediate is trusted */
    expect(pki_text("leaf", "inter", NULL), "leaf", pki_text("other", "root", NULL), "leaf.test", GOOD);
    pki_make(&(struct pki_how){"direct", .cn = "direct.test", .issuer = "root", .names = "DNS:direct.test"});
    expect(pki_text("direct", NULL), "direct", root, "direct.test", GOOD);
}

static void test_missing_intermediate(void **state)
{
    UNUSED(state);
    struct span root = pki_text("root", NULL);
    expect(pki_text("leaf", NULL), "leaf", root, "leaf.test",
           "the certificate \"leaf.test\" (issued by \"Test Issuer\") is not by an authority trusted here");
    expect(pki_text("leaf", "root", NULL), "leaf", root, "leaf.test",
           "the server leaves out a certificate between");
}

static void test_unknown_issuer(void **state)
{
    UNUSED(state);
    struct span other = pki_text("other", NULL);
    expect(pki_text("leaf", "inter", NULL), "leaf", other, "leaf.test",
           "the certificate \"Test Issuer\" (issued by \"Test Root\") is not by an authority");
    expect(pki_text("leaf", "inter", "root", NULL), "leaf", other, "leaf.test",
           "the certificate \"Test Root\" (issued by \"Test Root\") signed itself");
    /* the name is right and the key is not */
    pki_make(&(struct pki_how){"impostor", .cn = "Test Root", .authority = true});
    expect(pki_text("leaf", "inter", NULL), "leaf", pki_text("impostor", NULL), "leaf.test",
           "not signed by the trusted authority of that name");
    /* both are trusted: it does not matter which comes first */
    expect(pki_text("leaf", "inter", NULL), "leaf", pki_text("impostor", "root", NULL), "leaf.test", GOOD);
}

/* A new root that its old one has signed, too; the trusted one may be either. */
static void test_cross_signed(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"cross", .cn = "Test Root", .issuer = "other", .key_of = "root",
                               .authority = true});
    struct span chain = pki_text("leaf", "inter", "cross", NULL);
    expect(chain, "leaf", pki_text("root", NULL), "leaf.test", GOOD);
    expect(chain, "leaf", pki_text("other", NULL), "leaf.test", GOOD);
    /* one of two certificates for the intermediate is out of date, and comes first */
    pki_make(&(struct pki_how){"stale", .cn = "Test Issuer", .issuer = "other", .key_of = "inter",
                               .authority = true, .from = "20200101000000Z", .until = "20210101000000Z"});
    struct span both = pki_text("leaf", "stale", "inter", NULL);
    expect(both, "leaf", pki_text("other", "root", NULL), "leaf.test", GOOD);
    expect(both, "leaf", pki_text("other", NULL), "leaf.test",
           "the certificate \"Test Issuer\" (issued by \"Other Root\") expired on 2021-01-01");
}

/* Certificates that name each other in many orders do not keep the search busy. */
static void test_maze(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"maze", .cn = "Other Root", .issuer = "inter", .authority = true});
    pki_make(&(struct pki_how){"maze2", .cn = "Test Issuer", .issuer = "maze", .authority = true});
    expect(pki_text("leaf", "maze", "maze2", "maze", "maze2", "maze", "maze2", "maze", "maze2", "maze",
                    "maze2", "maze", "maze2", "maze", "maze2", NULL),
           "leaf", pki_text("root", NULL), "leaf.test", "is not by an authority trusted here");
}

static void test_one_that_signed_itself(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"self", .cn = "self.test", .names = "DNS:self.test,IP:127.0.0.1"});
    struct span self = pki_text("self", NULL), root = pki_text("root", NULL);
    expect(self, "self", self, "self.test", GOOD);
    expect(self, "self", self, "127.0.0.1", GOOD);
    expect(self, "self", self, "other.test",
           "the certificate is for self.test, 127.0.0.1, not for other.test");
    expect(self, "self", root, "self.test",
           "the certificate \"self.test\" (issued by \"self.test\") signed itself");
    /* as openssl makes it when not told otherwise: an authority */
    pki_make(&(struct pki_how){"selfca", .cn = "self.test", .names = "DNS:self.test", .authority = true});
    expect(pki_text("selfca", NULL), "selfca", pki_text("selfca", NULL), "self.test", GOOD);
    /* trusted for itself is not trusted for others */
    pki_make(&(struct pki_how){"below", .cn = "below.test", .issuer = "self", .names = "DNS:below.test"});
    expect(pki_text("below", "self", NULL), "below", self, "below.test",
           "signed itself and is not trusted here");
}

/* Certificates of version 1 cannot say that they are an authority's; old company roots are such. */
static void test_version_1(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"v1", .cn = "Old Root"});
    const char *argv[] = {"openssl",
                          "x509",
                          "-req",
                          "-in",
                          pki_path("v1", ".csr"),
                          "-signkey",
                          pki_path("v1", ".key"),
                          "-out",
                          pki_path("v1", ".pem"),
                          NULL};
    pki_openssl(argv);
    pki_make(&(struct pki_how){"below", .cn = "below.test", .issuer = "v1", .names = "DNS:below.test"});
    expect(pki_text("below", NULL), "below", pki_text("v1", NULL), "below.test", GOOD);
    expect(pki_text("below", "v1", NULL), "below", pki_text("v1", NULL), "below.test", GOOD);
    expect(pki_text("v1", NULL), "v1", pki_text("v1", NULL), "Old Root", GOOD);
}

/* ---- names ---- */

static void test_names(void **state)
{
    UNUSED(state);
    struct span chain = pki_text("leaf", "inter", NULL), root = pki_text("root", NULL);
    expect(chain, "leaf", root, "LEAF.test", GOOD);
    expect(chain, "leaf", root, "leaf.test.", GOOD);
    expect(chain, "leaf", root, "www.leaf.test", "the certificate is for leaf.test, not for www.leaf.test");
    expect(chain, "leaf", root, "10.0.0.1",
           "the certificate is for leaf.test, and the address 10.0.0.1 is not among its alternative names");
    leaf((struct pki_how){.names = "DNS:*.wild.test,DNS:exact.test"}, "a.wild.test", GOOD);
    expect(pki_text("made", "inter", NULL), "made", root, "exact.test", GOOD);
    expect(pki_text("made", "inter", NULL), "made", root, "wild.test",
           "for *.wild.test, exact.test, not for wild.test");
    expect(pki_text("made", "inter", NULL), "made", root, "a.b.wild.test", "not for a.b.wild.test");
    leaf((struct pki_how){.cn = "only.test"}, "only.test", GOOD); /* no other names: the common name counts */
    leaf((struct pki_how){.cn = "only.test", .names = "DNS:other.test"}, "only.test",
         "is for other.test, not for only.test");
    leaf((struct pki_how){.names = "DNS:a.test,DNS:b.test,DNS:c.test,DNS:d.test,DNS:e.test"}, "f.test",
         "for a.test, b.test, c.test, d.test and others, not for f.test");
}

static void test_addresses(void **state)
{
    UNUSED(state);
    struct span root = pki_text("root", NULL);
    leaf((struct pki_how){.names = "IP:10.0.0.1,IP:2001:db8::7,DNS:10.0.0.9"}, "10.0.0.1", GOOD);
    struct span chain = pki_text("made", "inter", NULL);
    expect(chain, "made", root, "2001:db8::7", GOOD);
    expect(chain, "made", root, "2001:0db8:0:0::7", GOOD);
    expect(chain, "made", root, "10.0.0.2",
           "the certificate is for 10.0.0.1, 2001:db8::7, 10.0.0.9, and the address 10.0.0.2 is not");
    expect(chain, "made", root, "10.0.0.9", "the address 10.0.0.9 is not"); /* a name is no address */
    expect(chain, "made", root, "2001:db8::8", "the address 2001:db8::8 is not");
    leaf((struct pki_how){.cn = "10.0.0.1"}, "10.0.0.1",
         "the address 10.0.0.1 is not among"); /* a common name neither */
}

/* ---- dates ---- */

static void test_dates(void **state)
{
    UNUSED(state);
    leaf((struct pki_how){.names = "DNS:made.test", .from = "20200101000000Z", .until = "20220301235959Z"},
         "made.test",
         "the certificate \"made.test\" (issued by \"Test Issuer\") expired on 2022-03-01T23:59:59");
    leaf((struct pki_how){.names = "DNS:made.test", .from = "20980101000000Z"}, "made.test",
         "the certificate \"made.test\" (issued by \"Test Issuer\") is not valid before 2098-01-01T00:00:00");
    leaf((struct pki_how){.names = "DNS:made.test", .until = "99991231235959Z"}, "made.test", GOOD);
    pki_make(&(struct pki_how){"old", .cn = "Old Issuer", .issuer = "root", .authority = true,
                               .until = "20210101000000Z"});
    leaf((struct pki_how){.names = "DNS:made.test", .issuer = "old"}, "made.test",
         "the certificate \"Old Issuer\" (issued by \"Test Root\") expired on 2021-01-01");
    /* a root is a name and a key */
    pki_make(&(struct pki_how){"ended", .cn = "Ended Root", .authority = true, .until = "20210101000000Z"});
    pki_make(&(struct pki_how){"below", .cn = "below.test", .issuer = "ended", .names = "DNS:below.test"});
    expect(pki_text("below", NULL), "below", pki_text("ended", NULL), "below.test", GOOD);
}

/* ---- keys and signatures ---- */

static void test_keys(void **state)
{
    UNUSED(state);
    leaf((struct pki_how){.names = "DNS:made.test", .key = "P-384"}, "made.test", GOOD);
    leaf((struct pki_how){.names = "DNS:made.test", .key = "P-521"}, "made.test", GOOD);
    leaf((struct pki_how){.names = "DNS:made.test", .key = "rsa:2048"}, "made.test", GOOD);
    leaf((struct pki_how){.names = "DNS:made.test", .key = "rsa:1024"}, "made.test",
         "the certificate \"made.test\" (issued by \"Test Issuer\") has an RSA key of fewer than 2048 bits");
    pki_make(&(struct pki_how){"weak", .cn = "Weak Issuer", .issuer = "root", .authority = true,
                               .key = "rsa:1024"});
    leaf((struct pki_how){.names = "DNS:made.test", .issuer = "weak"}, "made.test",
         "the certificate \"Weak Issuer\" (issued by \"Test Root\") has an RSA key of fewer than 2048 bits");
    pki_make(&(struct pki_how){"strong", .cn = "Strong Issuer", .issuer = "root", .authority = true,
                               .key = "rsa:3072"});
    leaf((struct pki_how){.names = "DNS:made.test", .issuer = "strong", .hash = "sha384"}, "made.test", GOOD);
}

static void test_signatures(void **state)
{
    UNUSED(state);
    leaf((struct pki_how){.names = "DNS:made.test", .hash = "sha1"}, "made.test",
         "the certificate \"made.test\" (issued by \"Test Issuer\") is signed with SHA-1");
    pki_make(&(struct pki_how){"modern", .cn = "Modern Issuer", .issuer = "root", .authority = true,
                               .key = "ed25519"});
    pki_make(&(struct pki_how){"below", .cn = "below.test", .issuer = "modern", .names = "DNS:below.test",
                               .hash = "null"});
    expect(pki_text("below", "modern", NULL), "below", pki_text("root", NULL), "below.test",
           "has a key or a signature of a kind that larder cannot check");
    /* the issuer's certificate is another key's */
    pki_make(&(struct pki_how){"twin", .cn = "Test Issuer", .issuer = "root", .authority = true});
    expect(pki_text("leaf", "twin", NULL), "leaf", pki_text("root", NULL), "leaf.test", "signature is wrong");
    expect(pki_text("leaf", "twin", "inter", NULL), "leaf", pki_text("root", NULL), "leaf.test", GOOD);
}

/* ---- what certificates are for ---- */

static void test_no_authority(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"plain", .cn = "plain.test", .issuer = "root"});
    leaf((struct pki_how){.names = "DNS:made.test", .issuer = "plain"}, "made.test",
         "the certificate \"plain.test\" (issued by \"Test Root\") is no authority");
    pki_make(&(struct pki_how){"signs", .cn = "Not Signing", .issuer = "root", .authority = true,
                               .extra = "keyUsage = critical,digitalSignature"});
    leaf((struct pki_how){.names = "DNS:made.test", .issuer = "signs"}, "made.test",
         "the certificate \"Not Signing\" (issued by \"Test Root\") says that its key is not for this use");
}

static void test_usage(void **state)
{
    UNUSED(state);
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "extendedKeyUsage = serverAuth,clientAuth"},
         "made.test", GOOD);
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "extendedKeyUsage = anyExtendedKeyUsage"},
         "made.test", GOOD);
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "extendedKeyUsage = clientAuth"}, "made.test",
         "the certificate \"made.test\" (issued by \"Test Issuer\") is not for servers");
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "extendedKeyUsage = critical,clientAuth"},
         "made.test", "is not for servers");
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "extendedKeyUsage = critical,serverAuth"},
         "made.test", "marks its extended key usage as critical");
    pki_make(&(struct pki_how){"mail", .cn = "Mail Issuer", .issuer = "root", .authority = true,
                               .extra = "extendedKeyUsage = emailProtection"});
    leaf((struct pki_how){.names = "DNS:made.test", .issuer = "mail"}, "made.test",
         "the certificate \"Mail Issuer\" (issued by \"Test Root\") is not for servers");
}

static void test_constraints(void **state)
{
    UNUSED(state);
    static const char *const kinds[] = {"nameConstraints = critical,permitted;DNS:test",
                                        "nameConstraints = permitted;DNS:elsewhere"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        pki_make(&(struct pki_how){"bound", .cn = "Bound Issuer", .issuer = "root", .authority = true,
                                   .extra = kinds[i]});
        leaf((struct pki_how){.names = "DNS:made.test", .issuer = "bound"}, "made.test",
             "the certificate \"Bound Issuer\" (issued by \"Test Root\") has name constraints");
    }
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "1.2.3.4 = critical,ASN1:UTF8String:x"},
         "made.test", "has a critical extension that larder does not know");
    leaf((struct pki_how){.names = "DNS:made.test", .extra = "1.2.3.4 = ASN1:UTF8String:x"}, "made.test",
         GOOD);
}

static void test_nameless(void **state)
{
    UNUSED(state);
    pki_make(&(struct pki_how){"org", .issuer = "root", .names = "DNS:org.test", .until = "20210101000000Z"});
    expect(pki_text("org", NULL), "org", pki_text("root", NULL), "org.test",
           "the certificate \"Nameless Ltd\" (issued by \"Test Root\") expired on");
}

static int setup(void **state)
{
    UNUSED(state);
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Test Root", .authority = true});
    pki_make(&(struct pki_how){"other", .cn = "Other Root", .authority = true});
    pki_make(&(struct pki_how){"inter", .cn = "Test Issuer", .issuer = "root", .authority = true});
    pki_make(&(struct pki_how){"leaf", .cn = "leaf.test", .issuer = "inter", .names = "DNS:leaf.test"});
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
        cmocka_unit_test(test_good_chains),    cmocka_unit_test(test_missing_intermediate),
        cmocka_unit_test(test_unknown_issuer), cmocka_unit_test(test_cross_signed),
        cmocka_unit_test(test_maze),           cmocka_unit_test(test_one_that_signed_itself),
        cmocka_unit_test(test_version_1),      cmocka_unit_test(test_names),
        cmocka_unit_test(test_addresses),      cmocka_unit_test(test_dates),
        cmocka_unit_test(test_keys),           cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_no_authority),   cmocka_unit_test(test_usage),
        cmocka_unit_test(test_constraints),    cmocka_unit_test(test_nameless),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
