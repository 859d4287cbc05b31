/* How registries are reached: roots, client certificates, proxies, token servers, redirects, and the map `resolve`. */
#include "conf_test.h"

static void all_of_an_upstream(void **state)
{
    UNUSED(state);
    struct conf *c =
        load_good("upstreams:\n"
                  "  - registry: registry.corp.example\n"
                  "    ca: certs/corp ca.pem\n"
                  "    client_certificate: {certificate: own.crt, key: /etc/larder/own.key}\n"
                  "    proxy: http://me:p%40ss@proxy.corp.example:3128/\n"
                  "    token_realms:\n"
                  "      - https://Auth.corp.example\n"
                  "      - http://[2001:DB8::1]:8080/token?service=x\n"
                  "      - https://sso.corp.example:8443/v2/\n"
                  "    redirect_hosts: [Blobs.corp.example, 10.0.0.7, '[FD00::1]', '::1', store]\n"
                  "  - registry: quay.io\n"
                  "    proxy: direct\n"
                  "    token_realms: []\n"
                  "    redirect_hosts:\n"
                  "rules:\n" RULE("a", "ghcr.io/a", "a"));
    const struct conf_upstream *u = &c->upstreams[0];
    assert_string_equal(u->ca.path.p, "certs/corp ca.pem");
    assert_int_equal(u->ca.mark.line, 3);
    assert_int_equal(u->ca.mark.column, 9);
    assert_string_equal(u->identity.certificate.path.p, "own.crt");
    assert_int_equal(u->identity.certificate.mark.column, 39);
    assert_string_equal(u->identity.key.path.p, "/etc/larder/own.key");
    assert_int_equal(u->identity.key.mark.line, 4);
    assert_string_equal(u->proxy.p, "http://me:p%40ss@proxy.corp.example:3128/");
    assert_int_equal(u->proxy_mark.line, 5);
    assert_int_equal(u->proxy_mark.column, 12);
    static const struct {
        const char *url, *host;
        uint16_t port;
        bool tls;
    } realms[] = {
        {"https://Auth.corp.example", "auth.corp.example", 443, true},
        {"http://[2001:DB8::1]:8080", "2001:db8::1", 8080, false},
        {"https://sso.corp.example:8443", "sso.corp.example", 8443, true},
    };
    assert_int_equal(u->n_token_realms, ARRAY_LEN(realms));
    for (size_t i = 0; i < ARRAY_LEN(realms); i++) {
        const struct conf_endpoint *e = &u->token_realms[i];
        assert_string_equal(e->url.p, realms[i].url);
        assert_string_equal(e->host.p, realms[i].host);
        assert_int_equal(e->port, realms[i].port);
        assert_int_equal(e->tls, realms[i].tls);
        assert_int_equal(e->mark.line, 7 + i);
    }
    static const char *const hosts[] = {"blobs.corp.example", "10.0.0.7", "fd00::1", "::1", "store"};
    assert_int_equal(u->n_redirect_hosts, ARRAY_LEN(hosts));
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
        assert_string_equal(u->redirect_hosts[i].p, hosts[i]);
    assert_null(u->known);

    const struct conf_upstream *quay = &c->upstreams[1], *ghcr = &c->upstreams[2];
    assert_string_equal(quay->proxy.p, "direct");
    assert_int_equal(quay->n_token_realms + quay->n_redirect_hosts, 0);
    assert_true(span_eq(quay->known->title, SPAN("Quay")));
    assert_true(span_eq(ghcr->known->title, SPAN("GitHub Container Registry")));
    assert_null(ghcr->ca.path.p); /* nothing stays from the entries before */
    assert_null(ghcr->identity.certificate.path.p);
    assert_null(ghcr->proxy.p);
    assert_int_equal(ghcr->n_token_realms + ghcr->n_redirect_hosts, 0);
    conf_unref(c);
}

static void known_registries(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("upstreams: [{registry: INDEX.docker.io}, {registry: 'corp.azurecr.io:443'}, "
                               "{registry: 'docker.io:5000'}]\n");
    assert_true(span_eq(c->upstreams[0].known->title, SPAN("Docker Hub")));
    assert_string_equal(c->upstreams[0].endpoints[0].url.p, "https://registry-1.docker.io");
    assert_true(span_eq(c->upstreams[1].known->title, SPAN("Azure Container Registry")));
    assert_string_equal(c->upstreams[1].endpoints[0].url.p, "https://corp.azurecr.io");
    assert_null(c->upstreams[2].known);
    assert_string_equal(c->upstreams[2].endpoints[0].url.p, "https://docker.io:5000");
    conf_unref(c);
}

static void proxies(void **state)
{
    UNUSED(state);
    static const char *const good[] = {
        "http://proxy",          "https://proxy:3128",   "HTTP://proxy/",    "http://10.0.0.1:8080",
        "http://[::1]:8080",     "http://me@proxy",      "http://me:@proxy", "http://me:p:w@proxy",
        "http://me:a@b@proxy:1", "http://%3a:%25@proxy",
    };
    char text[256];
    struct str t = STR_INIT(text);
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        str_reset(&t);
        str_addf(&t, "upstreams: [{registry: a.io, proxy: '%s'}]\n", good[i]);
        struct conf *c = load_good(text);
        assert_string_equal(c->upstreams[0].proxy.p, good[i]);
        conf_unref(c);
    }
    static const struct {
        const char *url, *why;
    } bad[] = {
        {"SECRET",
         "begin with http:// or https:// (there are no other kinds of proxy), or write the word direct"},
        {"Direct", "begin with http:// or https://"},
        {"SECRET:3128", "begin with http://"},
        {"socks5://me:SECRET@proxy", "begin with http://"},
        {"http:proxy", "begin with http://"},
        {"http://", "write it as in http://proxy.example:3128"},
        {"http://:3128", "write it as in"},
        {"http://proxy:0", "write it as in"},
        {"http://proxy:SECRET", "write it as in"},
        {"http://me:SECRET@", "write it as in"},
        {"http://pro xy", "write it as in"},
        {"http://@proxy", "the user is missing"},
        {"http://:SECRET@proxy", "the user is missing"},
        {"http://me:SEC/RET@proxy", "are written %2F, %3F and %23"},
        {"http://me:SEC#RET@proxy", "are written %2F, %3F and %23"},
        {"http://me:SEC?RET@proxy", "are written %2F, %3F and %23"},
        {"http://me:SECRET%@proxy", "'%' itself is written %25"},
        {"http://me:SECRET%zz@proxy", "'%' itself is written %25"},
        {"http://me:SECRET%2@proxy", "'%' itself is written %25"},
        {"http://proxy/SECRET", "a proxy's URL ends with its host and port"},
        {"http://proxy?SECRET", "a proxy's URL ends with its host and port"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char want[256];
        struct str w = STR_INIT(want);
        str_reset(&t);
        str_addf(&t, "upstreams: [{registry: a.io, proxy: '%s'}]\n", bad[i].url);
        str_addf(&w, "1:37: upstreams[].proxy: this is no URL of a proxy; %s",
                 strncmp(bad[i].why, "write it", 8) == 0 || strncmp(bad[i].why, "begin", 5) == 0 ? bad[i].why
                                                                                                 : "");
        EXPECT(text, want);
        assert_non_null(strstr(test_list[0].text, bad[i].why));
        assert_null(strstr(test_list[0].text, "SEC"));
    }
    EXPECT("upstreams: [{registry: a.io, proxy: ''}]\n", "1:37: upstreams[].proxy: is empty");
    EXPECT("upstreams: [{registry: a.io, proxy: [x]}]\n", "1:37: upstreams[].proxy: must be a single value");
}

static void wrong_values(void **state)
{
    UNUSED(state);
    EXPECT("upstreams:\n  - registry: a.io\n    ca: [a]\n    client_certificate: own.pem\n",
           "3:9: upstreams[].ca: must be a single value, not a list",
           "4:25: client_certificate must be a mapping");
    EXPECT("upstreams: [{registry: a.io, client_certificate: {certificate: a, kee: b}}]\n",
           "1:50: client_certificate here has no 'key'; add key: PEM file",
           "1:67: unknown key 'kee', did you mean 'key'?");
    EXPECT("upstreams: [{registry: a.io, ca: ''}, {registry: b.io, client_certificate: {certificate: '', "
           "key: a}}]\n",
           "1:34: upstreams[].ca: is empty", "1:90: upstreams[].client_certificate.certificate: is empty");
    EXPECT("upstreams:\n  - registry: a.io\n    token_realms: [auth.example, ftp://x, 'https://me:pw@x', [], "
           "'https://']\n",
           "3:20: upstreams[].token_realms: 'auth.example' has no scheme that is known here; begin with "
           "https://",
           "3:34: upstreams[].token_realms: 'ftp://x' has no scheme",
           "3:43: upstreams[].token_realms: this URL holds a user name or '@'",
           "3:62: upstreams[].token_realms: must be a single value",
           "3:66: upstreams[].token_realms: 'https://' has no scheme that is known here");
    assert_null(strstr(test_list[2].text, "pw"));
    EXPECT("upstreams:\n  - registry: a.io\n    redirect_hosts: [https://a.io, 'a.io:443', 'a.io/x', "
           "'*.a.io', '', "
           "'[::1]:1', '[127.0.0.1]']\n",
           "3:22: upstreams[].redirect_hosts: 'https://a.io' is no host; write a name or an address without "
           "scheme",
           "3:36: 'a.io:443' is no host", "3:48: 'a.io/x' is no host", "3:58: '*.a.io' is no host",
           "3:68: upstreams[].redirect_hosts: is empty", "3:72: '[::1]:1' is no host",
           "3:83: '[127.0.0.1]' is no host");
    EXPECT("upstreams: [{registry: a.io, token_realms: x, redirect_hosts: x}]\n",
           "1:44: upstreams[].token_realms: must be a list",
           "1:63: upstreams[].redirect_hosts: must be a list");
}

static void resolve(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("resolve:\n"
                               "  Registry.corp.example: 192.0.2.1\n"
                               "  mirror.corp.example: 192.0.2.2:8443\n"
                               "  a.io: '[2001:db8::1]'\n"
                               "  b.io: \"[::1]:1\"\n"
                               "  localhost: 127.0.0.1:65535\n");
    static const struct {
        const char *host, *address;
        uint16_t port;
    } want[] = {
        {"registry.corp.example", "192.0.2.1", 0},
        {"mirror.corp.example", "192.0.2.2", 8443},
        {"a.io", "2001:db8::1", 0},
        {"b.io", "::1", 1},
        {"localhost", "127.0.0.1", 65535},
    };
    assert_int_equal(c->n_resolve, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_string_equal(c->resolve[i].host.p, want[i].host);
        assert_string_equal(c->resolve[i].address.p, want[i].address);
        assert_int_equal(c->resolve[i].port, want[i].port);
    }
    conf_unref(c);
    static const char *const empty[] = {"", "resolve:\n", "resolve: {}\n"};
    for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
        c = load_good(empty[i]);
        assert_int_equal(c->n_resolve, 0);
        conf_unref(c);
    }
}

static void wrong_resolve(void **state)
{
    UNUSED(state);
    EXPECT("resolve: [a.io]\n", "1:10: resolve must be a mapping: lines of 'HOST: ADDRESS'");
    EXPECT("resolve: a.io\n", "1:10: resolve must be a mapping");
    EXPECT("resolve:\n  a.io: 192.0.2.1\n  b.io: x\n  A.io: 192.0.2.2\n",
           "3:9: resolve: 'x' is no address; write an IP address, and a port from 1 to 65535",
           "4:3: resolve: 'a.io' was already given on line 2; remove one");
    EXPECT(
        "resolve: {https://a.io: 192.0.2.1, 'a.io:443': 192.0.2.1, 192.0.2.1: 192.0.2.2, '[::1]': 192.0.2.1, "
        "'::1': 192.0.2.1, a_b: 192.0.2.1}\n",
        "1:11: resolve: 'https://a.io' is no host; write a name without scheme, port and path",
        "1:36: resolve: 'a.io:443' is no host", "1:59: resolve: '192.0.2.1' is an address already",
        "1:81: resolve: '[::1]' is an address already", "1:101: resolve: '::1' is an address already",
        "1:119: resolve: 'a_b' is no host");
    static const char *const bad[] = {"localhost",   "192.0.2.1:0", "192.0.2.1:",  "192.0.2.1:65536",
                                      "192.0.2.256", "[::1]:0",     "[::1]:",      "[::1",
                                      "[]",          "[192.0.2.1]", "[::1]x:1",    ":5000",
                                      "192.0.2.1/8", "[:::]:1",     "192.0.2.1:+1"};
    static const char *const bare[] = {"::1", "2001:db8::1", "2001:db8::1:5000", "::"};
    for (size_t i = 0; i < ARRAY_LEN(bad) + ARRAY_LEN(bare); i++) {
        char text[128], want[256];
        struct str t = STR_INIT(text), w = STR_INIT(want);
        bool brackets = i >= ARRAY_LEN(bad);
        const char *value = brackets ? bare[i - ARRAY_LEN(bad)] : bad[i];
        str_addf(&t, "resolve: {a.io: '%s'}\n", value);
        if (brackets)
            str_addf(&w, "1:17: resolve: put the IPv6 address '%s' in brackets and the whole in quotes",
                     value);
        else
            str_addf(&w, "1:17: resolve: '%s' is no address", value);
        EXPECT(text, want);
    }
    EXPECT("resolve: {a.io: [1], b.io: , c.io: {}}\n", "1:17: resolve: must be a single value, not a list",
           "1:28: resolve: has no value", "1:36: resolve: must be a single value");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_an_upstream),
        cmocka_unit_test(known_registries),
        cmocka_unit_test(proxies),
        cmocka_unit_test(wrong_values),
        cmocka_unit_test(resolve),
        cmocka_unit_test(wrong_resolve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
