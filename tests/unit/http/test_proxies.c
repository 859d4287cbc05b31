/* Proxies: what a URL of a proxy may look like, what its user and password become, which requests go through one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../base/dumped.h"

#include "http/proxies.h"

static struct proxies *from_environment(const char *https, const char *http, const char *no)
{
    char buf[256];
    struct str why = STR_INIT(buf);
    struct proxies *p = proxies_new(span_str(https), span_str(http), span_str(no), &why);
    if (p == NULL)
        fail_msg("%s, %s, %s: %s", https, http, no, buf);
    assert_int_equal(why.n, 0);
    return p;
}

static void assert_span(const char *what, struct span got, const char *want)
{
    if (!span_eq(got, span_str(want)) || (got.p == NULL) != (want == NULL))
        fail_msg("%s: got \"" SPAN_FMT "\", want \"%s\"", what, SPAN_ARG(got),
                 want != NULL ? want : "(absent)");
}

/* ---- URLs ---- */

static const struct {
    const char *url;
    bool tls;
    const char *host;
    uint16_t port;
    const char *authorization, *shown;
} good_urls[] = {
    {"http://proxy.example:3128", false, "proxy.example", 3128, NULL, "http://proxy.example:3128"},
    {"http://proxy.example:3128/", false, "proxy.example", 3128, NULL, "http://proxy.example:3128"},
    {"http://proxy.example", false, "proxy.example", 80, NULL, "http://proxy.example:80"},
    {"https://proxy.example", true, "proxy.example", 443, NULL, "https://proxy.example:443"},
    {"HTTPS://Proxy.Example:8443", true, "proxy.example", 8443, NULL, "https://proxy.example:8443"},
    {"proxy.example:3128", false, "proxy.example", 3128, NULL, "http://proxy.example:3128"},
    {"proxy", false, "proxy", 80, NULL, "http://proxy:80"},
    {"10.1.2.3:1", false, "10.1.2.3", 1, NULL, "http://10.1.2.3:1"},
    {"http://[2001:DB8::1]:65535", false, "2001:db8::1", 65535, NULL, "http://[2001:db8::1]:65535"},
    {"http://[::1]", false, "::1", 80, NULL, "http://[::1]:80"},
    {"http://u:p@proxy:1", false, "proxy", 1, "Basic dTpw", "http://proxy:1"},
    {"u:p@proxy:1", false, "proxy", 1, "Basic dTpw", "http://proxy:1"},
    {"https://u:p@[::1]:1", true, "::1", 1, "Basic dTpw", "https://[::1]:1"},
    {"http://u@proxy", false, "proxy", 80, "Basic dTo=", "http://proxy:80"},
    {"http://u:@proxy", false, "proxy", 80, "Basic dTo=", "http://proxy:80"},
    {"http://:p@proxy", false, "proxy", 80, "Basic OnA=", "http://proxy:80"},
    {"http://@proxy", false, "proxy", 80, NULL, "http://proxy:80"},
    {"http://u:a:b@proxy", false, "proxy", 80, "Basic dTphOmI=", "http://proxy:80"},
    {"http://u:a@b@proxy", false, "proxy", 80, "Basic dTphQGI=", "http://proxy:80"},
    {"http://u%40x:%2f%3A%25@proxy", false, "proxy", 80, "Basic dUB4Oi86JQ==", "http://proxy:80"},
    {"http://u:%00%0d%0a%fF@proxy", false, "proxy", 80, "Basic dToADQr/", "http://proxy:80"},
};

static void check_good(const char *url, const struct http_proxy *p, size_t row)
{
    assert_non_null(p);
    if (p->tls != good_urls[row].tls || p->port != good_urls[row].port)
        fail_msg("%s: tls %d, port %u", url, p->tls, p->port);
    assert_span(url, p->host, good_urls[row].host);
    assert_span(url, p->authorization, good_urls[row].authorization);
    assert_span(url, p->shown, good_urls[row].shown);
    if (p->authorization.p != NULL)
        assert_true(is_left_out(p->authorization.p));
}

static void test_good_urls(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good_urls / sizeof good_urls[0]; i++) {
        char buf[256];
        struct str why = STR_INIT(buf);
        const char *url = good_urls[i].url;
        struct proxies *one = proxies_one(span_str(url), &why);
        if (one == NULL)
            fail_msg("%s: %s", url, buf);
        check_good(url, proxies_for(one, true, SPAN("registry.example"), 443), i);
        proxies_free(one);
        struct proxies *both = from_environment(url, url, NULL);
        check_good(url, proxies_for(both, true, SPAN("registry.example"), 443), i);
        check_good(url, proxies_for(both, false, SPAN("registry.example"), 80), i);
        proxies_free(both);
    }
}

static const char *const bad_urls[] = {
    "socks5://proxy:1080",
    "ftp://secret@proxy",
    "http:/secret@proxy",
    "http://",
    "https://",
    "http://u:secret@",
    "http://u:secret@proxy:0",
    "http://u:secret@proxy:65536",
    "http://u:secret@proxy:port",
    "http://u:secret@pro xy",
    "http://u:secret@proxy/path",
    "http://u:secret@proxy?query",
    "http://u:secret@proxy#fragment",
    "http://u:secret@proxy//",
    "http://u:secret/word@proxy",
    "http://u:secret#word@proxy",
    "http://u:secret?word@proxy",
    "http://u:secret%@proxy",
    "http://u:secret%4@proxy",
    "http://u:secret%4g@proxy",
    "http://u%3asecret:p@proxy",
    "http://u:secret@[::1",
    "http://u:secret@[::1]x",
    "http://u:secret@::1",
    "http://u:secret@[proxy]",
};

static void check_bad(struct proxies *p, const struct str *why, const char *url, const char *name)
{
    if (p != NULL)
        fail_msg("%s was taken", url);
    if (!span_starts(str_span(why), span_str(name)) || why->n < strlen(name) + 20 || why->cut)
        fail_msg("%s: \"%s\" does not say what is wrong", url, why->p);
    assert_null(strstr(why->p, "secret"));
}

static void test_bad_urls(void **state)
{
    (void)state;
    char buf[256];
    for (size_t i = 0; i < sizeof bad_urls / sizeof bad_urls[0]; i++) {
        struct span url = span_str(bad_urls[i]), good = SPAN("http://good:1");
        struct str why = STR_INIT(buf);
        check_bad(proxies_one(url, &why), &why, url.p, "the proxy's URL: ");
        str_reset(&why);
        check_bad(proxies_new(url, good, SPAN_NONE, &why), &why, url.p, "HTTPS_PROXY: ");
        str_reset(&why);
        check_bad(proxies_new(good, url, SPAN_NONE, &why), &why, url.p, "HTTP_PROXY: ");
    }
    struct str why = STR_INIT(buf);
    assert_null(proxies_one(SPAN(""), &why)); /* configured, and empty */
}

/* The longest that are taken, and one byte more. */
static void test_long_urls(void **state)
{
    (void)state;
    static char url[12000];
    char buf[256];
    for (size_t n = 1; n < 9000; n += n < 1000 || n > 1040 ? 333 : 1) {
        struct str s = STR_INIT(url), why = STR_INIT(buf);
        str_addz(&s, "http://u:");
        for (size_t i = 0; i < n; i++)
            str_addc(&s, 'x');
        str_addz(&s, "@proxy");
        struct proxies *p = proxies_one(str_span(&s), &why);
        assert_int_equal(p != NULL, n <= 1021); /* "u:" and the text's end */
        if (p != NULL) {
            struct span a = proxies_for(p, true, SPAN("h"), 1)->authorization;
            assert_int_equal(a.n, 6 + (n + 2 + 2) / 3 * 4);
        }
        proxies_free(p);
    }
    struct str s = STR_INIT(url), why = STR_INIT(buf);
    for (size_t i = 0; i < sizeof url - 1; i++)
        str_addc(&s, 'h');
    assert_null(proxies_one(str_span(&s), &why));
}

/* ---- which proxy ---- */

static void test_by_scheme(void **state)
{
    (void)state;
    struct span host = SPAN("registry.example");
    struct proxies *p = from_environment("http://one:1", "http://two:2", NULL);
    assert_int_equal(proxies_for(p, true, host, 80)->port, 1);
    assert_int_equal(proxies_for(p, false, host, 443)->port, 2);
    proxies_free(p);
    p = from_environment("http://one:1", NULL, NULL);
    assert_non_null(proxies_for(p, true, host, 443));
    assert_null(proxies_for(p, false, host, 80));
    proxies_free(p);
    p = from_environment("", " \t", "");
    assert_null(proxies_for(p, true, host, 443));
    assert_null(proxies_for(p, false, host, 80));
    proxies_free(p);
    p = from_environment(NULL, " http://two:2 ", NULL);
    assert_null(proxies_for(p, true, host, 443));
    assert_non_null(proxies_for(p, false, host, 80));
    proxies_free(p);
    assert_null(proxies_for(NULL, true, host, 443));
    proxies_free(NULL);
}

static const struct {
    const char *host;
    bool direct; /* with the environment's proxies and no NO_PROXY */
} always[] = {
    {"localhost", true},
    {"LocalHost", true},
    {"localhost.", true},
    {"127.0.0.1", true},
    {"127.255.255.254", true},
    {"::1", true},
    {"0:0:0:0:0:0:0:1", true},
    {"::ffff:127.0.0.1", true},
    {"my.localhost", false},
    {"localhost.example", false},
    {"128.0.0.1", false},
    {"126.255.255.255", false},
    {"::2", false},
    {"::", false},
    {"127.0.0.1.example", false},
    {"registry.example", false},
};

static void test_loopback(void **state)
{
    (void)state;
    char buf[256];
    struct str why = STR_INIT(buf);
    struct proxies *both = from_environment("http://one:1", "http://two:2", NULL);
    struct proxies *one = proxies_one(SPAN("http://one:1"), &why);
    assert_non_null(one);
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        struct span host = span_str(always[i].host);
        if ((proxies_for(both, true, host, 443) == NULL) != always[i].direct ||
            (proxies_for(both, false, host, 80) == NULL) != always[i].direct)
            fail_msg("%s", host.p);
        assert_int_equal(proxies_for(one, true, host, 443)->port, 1);
        assert_int_equal(proxies_for(one, false, host, 80)->port, 1);
    }
    proxies_free(both);
    proxies_free(one);
}

/* ---- NO_PROXY ---- */

#define V6 "2001:db8::"

static const struct {
    const char *list, *host;
    uint16_t port;
    bool direct;
} exceptions[] = {
    /* nothing, everything */
    {"", "registry.example", 443, false},
    {",, ,", "registry.example", 443, false},
    {"*", "registry.example", 443, true},
    {"a.example, * ", "10.0.0.1", 80, true},
    {"*", V6 "1", 80, true},
    /* a host and its subdomains */
    {"example.org", "example.org", 443, true},
    {"example.org", "a.example.org", 443, true},
    {"example.org", "b.a.example.org", 443, true},
    {"example.org", "notexample.org", 443, false},
    {"example.org", "example.orgs", 443, false},
    {"example.org", "org", 443, false},
    {"example.org", "example.org.evil.test", 443, false},
    {"EXAMPLE.org", "A.Example.ORG", 443, true},
    {"example.org", "example.org.", 443, true},
    {"example.org.", "a.example.org", 443, true},
    {"registry", "registry", 5000, true},
    {"reg_1-x", "reg_1-x", 5000, true},
    {"org", "example.org", 443, true},
    /* subdomains alone */
    {".example.org", "example.org", 443, false},
    {".example.org", "a.example.org", 443, true},
    {".example.org", "b.a.example.org", 443, true},
    {".example.org", "aexample.org", 443, false},
    {".example.org", ".example.org", 443, true},
    {"*.example.org", "example.org", 443, false},
    {"*.example.org", "a.example.org", 443, true},
    {"*.example.org", "b.a.example.org", 443, true},
    {"*.example.org", "aexample.org", 443, false},
    /* ports */
    {"example.org:443", "example.org", 443, true},
    {"example.org:443", "example.org", 8443, false},
    {"example.org:443", "a.example.org", 443, true},
    {".example.org:5000", "a.example.org", 5000, true},
    {".example.org:5000", "a.example.org", 443, false},
    {"*.example.org:5000", "a.example.org", 5000, true},
    {"10.0.0.1:80", "10.0.0.1", 80, true},
    {"10.0.0.1:80", "10.0.0.1", 81, false},
    {"10.0.0.0/8:80", "10.9.9.9", 80, true},
    {"10.0.0.0/8:80", "10.9.9.9", 81, false},
    {"[" V6 "1]:80", V6 "1", 80, true},
    {"[" V6 "1]:80", V6 "1", 81, false},
    {"[" V6 "/32]:80", V6 "5", 80, true},
    {"[" V6 "/32]:80", V6 "5", 81, false},
    {V6 "/32:80", V6 "5", 80, true},
    {V6 "/32:80", V6 "5", 81, false},
    {"example.org:443,example.org:444", "example.org", 444, true},
    /* addresses */
    {"10.0.0.1", "10.0.0.1", 80, true},
    {"10.0.0.1", "10.0.0.2", 80, false},
    {"10.0.0.1", "10.0.0.1.example", 80, false},
    {"10.0.0.1", "::ffff:10.0.0.1", 80, true},
    {"::ffff:10.0.0.1", "10.0.0.1", 80, true},
    {V6 "1", V6 "1", 443, true},
    {V6 "1", "2001:DB8:0:0:0:0:0:1", 443, true},
    {"[" V6 "1]", V6 "1", 443, true},
    {V6 "1", V6 "2", 443, false},
    {"0.0.1", "10.0.0.1", 80, false}, /* a domain is no part of an address */
    {".0.0.1", "10.0.0.1", 80, false},
    /* CIDR */
    {"10.0.0.0/8", "10.255.0.1", 80, true},
    {"10.0.0.0/8", "11.0.0.1", 80, false},
    {"10.1.2.3/8", "10.255.0.1", 80, true}, /* bits behind the prefix do not matter */
    {"192.168.4.0/22", "192.168.7.255", 80, true},
    {"192.168.4.0/22", "192.168.8.0", 80, false},
    {"192.168.4.0/22", "192.168.3.255", 80, false},
    {"10.0.0.1/32", "10.0.0.1", 80, true},
    {"10.0.0.1/32", "10.0.0.0", 80, false},
    {"10.0.0.0/31", "10.0.0.1", 80, true},
    {"10.0.0.0/31", "10.0.0.2", 80, false},
    {"0.0.0.0/0", "203.0.113.9", 80, true},
    {"0.0.0.0/0", V6 "1", 80, false},
    {"0.0.0.0/0", "registry.example", 80, false},
    {"128.0.0.0/1", "200.0.0.1", 80, true},
    {"128.0.0.0/1", "100.0.0.1", 80, false},
    {"10.0.0.0/8", "::ffff:10.1.1.1", 80, true},
    {"::ffff:10.0.0.0/104", "10.1.1.1", 80, true},
    {V6 "/32", "2001:db8:ffff::1", 80, true},
    {V6 "/32", "2001:db9::1", 80, false},
    {"[" V6 "/32]", "2001:db8:ffff::1", 80, true},
    {"fd00::/7", "fcff::1", 80, true},
    {"fd00::/7", "fe00::1", 80, false},
    {"::/0", V6 "1", 80, true},
    {"::/0", "10.0.0.1", 80, false},
    {"::1/128", V6 "1", 80, false},
    {V6 "1/128", V6 "1", 80, true},
    {V6 "1/128", V6 "0", 80, false},
    /* lists */
    {"a.example,b.example", "b.example", 443, true},
    {" a.example\t,\t b.example ", "a.example", 443, true},
    {"a.example,b.example", "c.example", 443, false},
    {"localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local", "registry.kube-system.svc", 5000, true},
    {"localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local", "registry.example", 5000, false},
};

static void test_exceptions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof exceptions / sizeof exceptions[0]; i++) {
        struct proxies *p = from_environment("http://one:1", "http://two:2", exceptions[i].list);
        for (int tls = 0; tls < 2; tls++) {
            struct span host = span_str(exceptions[i].host);
            bool direct = proxies_for(p, tls == 1, host, exceptions[i].port) == NULL;
            if (direct != exceptions[i].direct)
                fail_msg("NO_PROXY=\"%s\", %s port %u: %s", exceptions[i].list, host.p, exceptions[i].port,
                         direct ? "direct" : "through the proxy");
        }
        proxies_free(p);
    }
}

static const char *const bad_exceptions[] = {
    "a b",
    "a.example b.example",
    "*.",
    ".",
    "*example.org",
    "a.*.example",
    "10.0.0.*",
    "**",
    "*:443",
    "a..example",
    "..example",
    "*..example",
    "example.org:",
    "example.org:0",
    "a:65536",
    "a:http",
    ":443",
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/-1",
    "10.0.0.0/8/8",
    "10.0.0.0/8x",
    "10.0.0/8",
    "10.0.0.256/8",
    "a/8",
    "/8",
    "::/129",
    "::/0008",
    "[::1",
    "[::1]x",
    "[::1]:",
    "[::1]:0",
    "[example]",
    "[]",
    "[::/8]/8",
    "::1::1",
    "http://example.org",
    "a@b",
    "a\\b",
    "\xc3\xa9.example",
    "a\nb",
    "10.0.0.0/8:",
    "10.0.0.0/8:x",
    "::/8:0",
    "a:1:2",
};

static void test_bad_exceptions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_exceptions / sizeof bad_exceptions[0]; i++) {
        char buf[512], list[64];
        struct str why = STR_INIT(buf), s = STR_INIT(list);
        str_addz(&s, "good.example , ");
        str_addz(&s, bad_exceptions[i]);
        str_addz(&s, ",*");
        struct proxies *p = proxies_new(SPAN("http://one:1"), SPAN_NONE, str_span(&s), &why);
        if (p != NULL)
            fail_msg("\"%s\" was taken", bad_exceptions[i]);
        assert_true(span_starts(str_span(&why), SPAN("NO_PROXY: \"")));
        assert_null(strstr(buf, "good.example"));
    }
    char buf[512], long_one[2000];
    struct str why = STR_INIT(buf);
    memset(long_one, '*', sizeof long_one);
    assert_null(proxies_new(SPAN_NONE, SPAN_NONE, span_of(long_one, sizeof long_one), &why));
    assert_true(why.n > 0 && !why.cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_urls),      cmocka_unit_test(test_bad_urls),
        cmocka_unit_test(test_long_urls),      cmocka_unit_test(test_by_scheme),
        cmocka_unit_test(test_loopback),       cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_bad_exceptions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
