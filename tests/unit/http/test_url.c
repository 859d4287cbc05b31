/* URLs of upstreams and redirects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "http/url.h"

#define H64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void parsing(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *host, *path, *query, *header; /* header: the Host field; query NULL: absent */
        uint16_t port;
        bool tls, ipv6, has_port;
    } cases[] = {
        {"https://a.example", "a.example", "", NULL, "a.example", 443, true, false, false},
        {"http://a.example/", "a.example", "/", NULL, "a.example", 80, false, false, false},
        {"HTTPS://A.Example:443/x", "A.Example", "/x", NULL, "A.Example", 443, true, false, true},
        {"http://a:443/", "a", "/", NULL, "a:443", 443, false, false, true},
        {"https://a:/x", "a", "/x", NULL, "a", 443, true, false, false},
        {"https://a:8080?q", "a", "", "q", "a:8080", 8080, true, false, true},
        {"https://a/x?", "a", "/x", "", "a", 443, true, false, false},
        {"https://a/%2F/../x;y?a=/?&b=%41@:", "a", "/%2F/../x;y", "a=/?&b=%41@:", "a", 443, true, false,
         false},
        {"http://[::1]:5000/x", "::1", "/x", NULL, "[::1]:5000", 5000, false, true, true},
        {"https://[2001:DB8::1]", "2001:DB8::1", "", NULL, "[2001:DB8::1]", 443, true, true, false},
        {"https://a_b-c.d/\xc3\xa9", "a_b-c.d", "/\xc3\xa9", NULL, "a_b-c.d", 443, true, false, false},
        {"https://a//x", "a", "//x", NULL, "a", 443, true, false, false},
        {"https://a/u@v:w", "a", "/u@v:w", NULL, "a", 443, true, false, false},
        {"http://a:65535", "a", "", NULL, "a:65535", 65535, false, false, true},
        {"http://a:080", "a", "", NULL, "a", 80, false, false, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct url u;
        char buf[256];
        struct str host = STR_INIT(buf);
        if (!url_parse(span_str(cases[i].text), &u))
            fail_msg("refused: %s", cases[i].text);
        assert_true(span_eq(u.host, span_str(cases[i].host)));
        assert_true(span_eq(u.path, span_str(cases[i].path)));
        assert_true(span_eq(u.query, span_str(cases[i].query)));
        assert_int_equal(u.query.p == NULL, cases[i].query == NULL);
        assert_int_equal(u.port, cases[i].port);
        assert_int_equal(u.tls, cases[i].tls);
        assert_int_equal(u.ipv6, cases[i].ipv6);
        assert_int_equal(u.has_port, cases[i].has_port);
        url_add_host(&u, &host);
        assert_string_equal(buf, cases[i].header);
    }
}

static void refusing(void **state)
{
    UNUSED(state);
    static const char *bad[] = {
        "",
        "a.example",
        "//a.example/",
        "/x",
        "ftp://a/",
        "http:a",
        "http:/a",
        "https//a",
        " https://a",
        "https://",
        "https:///x",
        "https://?x",
        "https://:80/",
        "https://user@a/",
        "https://user:pw@a/",
        "https://a@b:80/",
        "https://a/#f",
        "https://a#f",
        "https://a/x y",
        "https://a/x\ty",
        "https://a/x\r\nHost: b",
        "https://a/?x\x7f",
        "https://a b/",
        "https://a\\@b/",
        "https://a%2eb/",
        "https://a,b/",
        "https://\xc3\xa9/",
        "https://a:0/",
        "https://a:65536/",
        "https://a:99999999999999999999/",
        "https://a:-1/",
        "https://a:8o/",
        "https://a:80:80/",
        "https://::1/",
        "https://[::1/",
        "https://[]/",
        "https://[",
        "https://[::1]x/",
        "https://[::1%25eth0]/",
        "https://[1.2.3.4]/",
        "https://[a]/",
        "https://[::1]@b/",
        "https://" H64 H64 H64 H64 "/",
    };
    struct url u;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (url_parse(span_str(bad[i]), &u))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_false(url_parse(SPAN_NONE, &u));
    assert_false(url_parse(SPAN("https://a\0/"), &u));
    assert_false(url_parse(SPAN("https://[::1\0]/"), &u));
}

static void length_is_limited(void **state)
{
    UNUSED(state);
    static char text[URL_MAX + 1];
    struct url u;
    memset(text, 'x', sizeof(text));
    memcpy(text, "https://a/", 10);
    assert_true(url_parse(span_of(text, URL_MAX), &u));
    assert_false(url_parse(span_of(text, URL_MAX + 1), &u));
}

static bool same(const char *a, const char *b)
{
    struct url ua, ub;
    assert_true(url_parse(span_str(a), &ua));
    assert_true(url_parse(span_str(b), &ub));
    assert_int_equal(url_same_origin(&ua, &ub), url_same_origin(&ub, &ua));
    return url_same_origin(&ua, &ub);
}

static void origins(void **state)
{
    UNUSED(state);
    assert_true(same("https://a/x", "https://A:443/y?z"));
    assert_true(same("http://a:80", "http://a"));
    assert_true(same("http://[::1]:5", "http://[::1]:5/"));
    assert_false(same("https://a", "http://a"));
    assert_false(same("https://a:80", "http://a:80"));
    assert_false(same("https://a", "https://a:444"));
    assert_false(same("https://a", "https://b"));
    assert_false(same("https://a.example", "https://a.example.evil"));
    assert_false(same("https://a.example", "https://xa.example"));
    assert_false(same("https://a", "https://a."));
}

static void resolving(void **state)
{
    UNUSED(state);
    static const char base_text[] = "https://up.example:8443/v2/a/blobs/x?q=1";
    static const struct {
        const char *location, *result; /* NULL: refused */
    } cases[] = {
        {"http://b.example/y?s=%2F..%2f", "http://b.example/y?s=%2F..%2f"},
        {"HTTPS://B/y", "HTTPS://B/y"},
        {"https://b/a/../b/./c?x/../y", "https://b/a/../b/./c?x/../y"},
        {"https://b/y#frag", "https://b/y"},
        {"https://b", "https://b"},
        {"//b:80/y", "https://b:80/y"},
        {"/y", "https://up.example:8443/y"},
        {"/y/../z/./%2e%2e?a=b/../c", "https://up.example:8443/y/../z/./%2e%2e?a=b/../c"},
        {"/", "https://up.example:8443/"},
        {"/y:z", "https://up.example:8443/y:z"},
        {"?s=2", "https://up.example:8443/v2/a/blobs/x?s=2"},
        {"?", "https://up.example:8443/v2/a/blobs/x?"},
        {"", "https://up.example:8443/v2/a/blobs/x?q=1"},
        {"#frag", "https://up.example:8443/v2/a/blobs/x?q=1"},
        {"y", "https://up.example:8443/v2/a/blobs/y"},
        {"y/z?s=../t", "https://up.example:8443/v2/a/blobs/y/z?s=../t"},
        {"./y", "https://up.example:8443/v2/a/blobs/y"},
        {"./y:z", "https://up.example:8443/v2/a/blobs/y:z"},
        {".", "https://up.example:8443/v2/a/blobs/"},
        {"..", "https://up.example:8443/v2/a/"},
        {"../", "https://up.example:8443/v2/a/"},
        {"../y", "https://up.example:8443/v2/a/y"},
        {"../../../y", "https://up.example:8443/y"},
        {"../../../../../y", "https://up.example:8443/y"},
        {"../../../..", "https://up.example:8443/"},
        {"y/../z", "https://up.example:8443/v2/a/blobs/z"},
        {"y/..", "https://up.example:8443/v2/a/blobs/"},
        {"y//z", "https://up.example:8443/v2/a/blobs/y//z"},
        {"y//../z", "https://up.example:8443/v2/a/blobs/y/z"},
        {"...", "https://up.example:8443/v2/a/blobs/..."},
        {"..y", "https://up.example:8443/v2/a/blobs/..y"},
        {"%2e%2e/y", "https://up.example:8443/v2/a/blobs/%2e%2e/y"},
        {"ftp://b/y", NULL},
        {"javascript:alert(1)", NULL},
        {"https:y", NULL},
        {"a:b", NULL},
        {"https://u@b/", NULL},
        {"//u:p@b/", NULL},
        {"///y", NULL},
        {"https:///y", NULL},
        {"/y z", NULL},
        {"/y\r\nX: y", NULL},
        {"https://b:0/", NULL},
    };
    struct url base;
    assert_true(url_parse(span_str(base_text), &base));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[256];
        struct str out = STR_INIT(buf);
        str_add(&out, SPAN("="));
        bool ok = url_resolve(&base, span_str(cases[i].location), &out);
        const char *want = cases[i].result != NULL ? cases[i].result : "";
        if (ok != (cases[i].result != NULL) || strcmp(buf + 1, want) != 0)
            fail_msg("'%s': got '%s', expected '%s'", cases[i].location, buf, want);
    }
}

static void resolving_against_other_bases(void **state)
{
    UNUSED(state);
    static const struct {
        const char *base, *location, *result;
    } cases[] = {
        {"http://h", "y", "http://h/y"},
        {"http://h", "", "http://h"},
        {"http://h", "?q", "http://h?q"},
        {"http://h?p", "../y", "http://h/y"},
        {"http://h/", "y", "http://h/y"},
        {"http://h/x", "..", "http://h/"},
        {"http://h/a/../b/x", "y", "http://h/b/y"},
        {"http://h/a//x", "../y", "http://h/a/y"},
        {"http://[::1]:81/x", "/y", "http://[::1]:81/y"},
        {"https://H:443/x", "/y", "https://H/y"},
        {"http://h/x", "//b", "http://b"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct url base;
        char buf[256];
        struct str out = STR_INIT(buf);
        assert_true(url_parse(span_str(cases[i].base), &base));
        assert_true(url_resolve(&base, span_str(cases[i].location), &out));
        assert_string_equal(buf, cases[i].result);
    }
}

static void a_result_that_does_not_fit_is_not_written(void **state)
{
    UNUSED(state);
    struct url base;
    char buf[16];
    struct str out = STR_INIT(buf);
    assert_true(url_parse(SPAN("http://h/abc"), &base));
    assert_true(url_resolve(&base, SPAN("/123456"), &out));
    assert_string_equal(buf, "http://h/123456");
    str_reset(&out);
    assert_false(url_resolve(&base, SPAN("/1234567"), &out));
    assert_false(url_resolve(&base, SPAN("1/../../../../1234567890/../../x"), &out));
    assert_int_equal(out.n, 0);
    assert_int_equal(buf[0], '\0');
    assert_false(out.cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parsing),
        cmocka_unit_test(refusing),
        cmocka_unit_test(length_is_limited),
        cmocka_unit_test(origins),
        cmocka_unit_test(resolving),
        cmocka_unit_test(resolving_against_other_bases),
        cmocka_unit_test(a_result_that_does_not_fit_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
