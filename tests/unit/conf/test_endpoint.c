/* Addresses to listen on, upstreams and their endpoints. */
#include "conf_test.h"

static void addresses(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("listen:\n"
                               "  - address: 0.0.0.0:5000\n"
                               "  - address: \"[::1]:5002\"\n"
                               "  - {address: ':5003'}\n"
                               "  - {address: '[::]:0'}\n"
                               "  - {address: '[::]:0'}\n"
                               "admin: {address: '127.0.0.1:65535'}\n");
    static const struct {
        const char *address, *host;
        uint16_t port;
        unsigned line, column;
    } want[] = {
        {"0.0.0.0:5000", "0.0.0.0", 5000, 2, 14},
        {"[::1]:5002", "::1", 5002, 3, 14},
        {":5003", "0.0.0.0", 5003, 4, 15},
        {"[::]:0", "::", 0, 5, 15},
        {"[::]:0", "::", 0, 6, 15},
    };
    assert_int_equal(c->n_listen, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_string_equal(c->listen[i].address.p, want[i].address);
        assert_string_equal(c->listen[i].host.p, want[i].host);
        assert_int_equal(c->listen[i].port, want[i].port);
        assert_int_equal(c->listen[i].mark.line, want[i].line);
        assert_int_equal(c->listen[i].mark.column, want[i].column);
    }
    assert_string_equal(c->admin.host.p, "127.0.0.1");
    assert_int_equal(c->admin.port, 65535);
    assert_int_equal(c->admin.mark.line, 7);
    assert_int_equal(c->admin.mark.column, 18);
    conf_unref(c);
}

static void wrong_addresses(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *hint;
    } wrong[] = {
        {"5000", "write IP address and port, as in 127.0.0.1:5000, or :5000"},
        {"0.0.0.0", "write IP address and port"},
        {"http://0.0.0.0:5000", "write it without a scheme and path, as in 0.0.0.0:5000"},
        {"0.0.0.0:5000/", "write it without a scheme and path"},
        {"localhost:5000", "write 127.0.0.1 or [::1] instead of localhost"},
        {"::1:5000", "put an IPv6 address in brackets and the whole in quotes"},
        {"2001:db8::1", "put an IPv6 address in brackets"},
        {"cache.example:5000", "write an IP address and a port from 0 to 65535"},
        {"0.0.0.0:65536", "write an IP address and a port from 0 to 65535"},
        {"0.0.0.0:", "write an IP address and a port"},
        {"0.0.0.0:+1", "write an IP address and a port"},
        {"256.0.0.1:5000", "write an IP address and a port"},
        {"1.2.3:5000", "write an IP address and a port"},
        {"[127.0.0.1]:5000", "write an IP address and a port"},
        {"[::1]", "write an IP address and a port"},
        {"[]:5000", "write an IP address and a port"},
        {":", "write an IP address and a port"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char text[256], want[256];
        struct str t = STR_INIT(text), w = STR_INIT(want);
        str_addf(&t, "listen:\n  - address: '%s'\n", wrong[i].text);
        str_addf(&w, "2:14: listen[].address: '%s' is no address to listen on; %s", wrong[i].text,
                 wrong[i].hint);
        EXPECT(text, want);
        str_reset(&t);
        str_reset(&w);
        str_addf(&t, "admin: {address: '%s'}\n", wrong[i].text);
        str_addf(&w, "1:18: admin.address: '%s' is no address to listen on; %s", wrong[i].text,
                 wrong[i].hint);
        EXPECT(text, want);
    }
}

static void no_address(void **state)
{
    UNUSED(state);
    EXPECT("listen: [{address: ''}]\n", "1:20: listen[].address: is empty; write a value");
    EXPECT("listen: [{address: {}}]\n", "1:20: listen[].address: must be a single value");
    EXPECT("admin: {address: ''}\n", "1:18: admin.address: is empty; write a value");
}

static void addresses_in_use(void **state)
{
    UNUSED(state);
    EXPECT("listen:\n  - address: 0.0.0.0:5000\n  - address: 127.0.0.1:5000\n  - address: ':5000'\n",
           "4:14: listen[].address: ':5000' is already listened on (line 2); remove one");
    EXPECT(
        "listen: [{address: '127.0.0.1:5001'}]\n",
        "1:20: admin.address '127.0.0.1:5001' (the default) and the listen entry '127.0.0.1:5001' (line 1) "
        "overlap; give one another port");
    EXPECT("admin: {address: '0.0.0.0:5000'}\n", "1:18: admin.address '0.0.0.0:5000' (line 1) and the listen "
                                                 "entry '0.0.0.0:5000' (the default) overlap");
    EXPECT("admin: {address: ':7'}\nlisten: [{address: '0.0.0.0:7'}]\n",
           "1:18: admin.address ':7' (line 1) and the listen entry '0.0.0.0:7' (line 2) overlap");
    EXPECT("listen: [{address: ':5001'}]\n", "1:20: admin.address '127.0.0.1:5001' (the default)");
    EXPECT("listen: [{address: '[::]:5001'}]\n", "1:20: admin.address '127.0.0.1:5001' (the default)");
    EXPECT("admin: {address: '[::0]:5000'}\n", "1:18: admin.address '[::0]:5000' (line 1)");
    EXPECT("admin: {address: '[::1]:7'}\nlisten: [{address: '[0::0:1]:7'}]\n", "1:18: overlap");
    EXPECT("listen:\n  - address: '[2001:DB8::1]:7'\n  - address: '[2001:db8:0::1]:7'\n",
           "3:14: listen[].address: '[2001:db8:0::1]:7' is already listened on (line 2); remove one");
    conf_unref(load_good("admin: {address: '[::1]:7'}\nlisten: [{address: ':7'}]\n"));
    conf_unref(load_good("listen:\n  - address: :7\n  - address: 192.0.2.1:7\n  - address: '[::1]:5001'\n"));
}

static void implied_upstreams(void **state)
{
    UNUSED(state);
    struct conf *c =
        load_good("rules:\n" RULE("a", "docker.io/nginx", "a") RULE("b", "Registry.Example:8443/b", "b")
                      RULE("c", "index.docker.io/c/*", "c/*") RULE("d", "'[2001:db8::1]:5000/d'", "d")
                          RULE("e", "registry.example/e", "e"));
    assert_int_equal(c->n_upstreams, 4);
    static const struct {
        const char *registry, *url, *host;
        uint16_t port;
    } want[] = {
        {"docker.io", "https://registry-1.docker.io", "registry-1.docker.io", 443},
        {"registry.example:8443", "https://registry.example:8443", "registry.example", 8443},
        {"[2001:db8::1]:5000", "https://[2001:db8::1]:5000", "2001:db8::1", 5000},
        {"registry.example", "https://registry.example", "registry.example", 443},
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct conf_upstream *u = &c->upstreams[i];
        assert_int_equal(u->index, i);
        assert_string_equal(u->registry.p, want[i].registry);
        assert_int_equal(u->n_endpoints, 1);
        assert_string_equal(u->endpoints[0].url.p, want[i].url);
        assert_string_equal(u->endpoints[0].host.p, want[i].host);
        assert_int_equal(u->endpoints[0].port, want[i].port);
        assert_true(u->endpoints[0].tls);
        assert_string_equal(u->endpoints[0].prefix.p, "");
        assert_int_equal(u->timeouts.connect_ms, 5000);
        assert_int_equal(u->timeouts.first_byte_ms, 20000);
        assert_int_equal(u->timeouts.idle_ms, 60000);
        assert_int_equal(u->max_connections, 64);
        assert_int_equal(u->max_manifest, 4 << 20);
    }
    assert_ptr_equal(c->rules[0].upstream, &c->upstreams[0]);
    assert_ptr_equal(c->rules[1].upstream, &c->upstreams[1]);
    assert_ptr_equal(c->rules[2].upstream, &c->upstreams[0]);
    assert_ptr_equal(c->rules[3].upstream, &c->upstreams[2]);
    assert_ptr_equal(c->rules[4].upstream, &c->upstreams[3]);
    conf_unref(c);
}

static void written_endpoints(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("upstreams:\n"
                               "  - registry: Registry-1.Docker.io\n"
                               "    endpoints:\n"
                               "      - HTTP://Mirror.Example\n"
                               "      - http://127.0.0.1:5002/\n"
                               "      - https://[2001:DB8::1]:8443/a/b.c~d//\n"
                               "  - registry: unused.example:443\n"
                               "    endpoints:\n"
                               "rules:\n" RULE("a", "docker.io/a", "a"));
    assert_int_equal(c->n_upstreams, 2);
    const struct conf_upstream *hub = &c->upstreams[0];
    assert_string_equal(hub->registry.p, "docker.io");
    assert_ptr_equal(c->rules[0].upstream, hub);
    static const struct {
        const char *url, *host, *prefix;
        uint16_t port;
        bool tls;
        unsigned line;
    } want[] = {
        {"HTTP://Mirror.Example", "mirror.example", "", 80, false, 4},
        {"http://127.0.0.1:5002", "127.0.0.1", "", 5002, false, 5},
        {"https://[2001:DB8::1]:8443/a/b.c~d", "2001:db8::1", "/a/b.c~d", 8443, true, 6},
    };
    assert_int_equal(hub->n_endpoints, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct conf_endpoint *e = &hub->endpoints[i];
        assert_string_equal(e->url.p, want[i].url);
        assert_string_equal(e->host.p, want[i].host);
        assert_string_equal(e->prefix.p, want[i].prefix);
        assert_int_equal(e->port, want[i].port);
        assert_int_equal(e->tls, want[i].tls);
        assert_int_equal(e->mark.line, want[i].line);
        assert_int_equal(e->mark.column, 9);
    }
    assert_string_equal(c->upstreams[1].registry.p, "unused.example");
    assert_string_equal(c->upstreams[1].endpoints[0].url.p, "https://unused.example");
    conf_unref(c);
}

static void wrong_endpoints(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *why;
    } wrong[] = {
        {"registry.example", "has no scheme that is known here; begin with https:// or http://"},
        {"ftp://registry.example", "has no scheme that is known here"},
        {"http:/registry.example", "has no scheme that is known here"},
        {"localhost:5000", "has no scheme that is known here"},
        {"https://", "has no scheme that is known here"},
        {"https:///v2", "has no valid host and port"},
        {"https://a.io?x=1", "has a query or a fragment"},
        {"https://a.io/m#x", "has a query or a fragment"},
        {"https://a.io:0", "has no valid host and port; write it as in https://registry.example:8443"},
        {"https://a.io:65536", "has no valid host and port"},
        {"https://a_b.io", "has no valid host and port"},
        {"https://a b.io", "has no valid host and port"},
        {"https://2001:db8::1", "has no valid host and port"},
        {"https://a.io/v2/", "ends in /v2 or holds a '%'; write only what comes before /v2/"},
        {"https://a.io/m/v2", "ends in /v2"},
        {"https://a.io/m%2F", "holds a '%'"},
        {"https://a.io/m//n", "has a path with empty, '.' or '..' parts or strange characters"},
        {"https://a.io/../n", "has a path with empty, '.' or '..' parts"},
        {"https://a.io/./n", "has a path with empty, '.' or '..' parts"},
        {"https://a.io/m n", "or strange characters"},
        {"https://a.io/m\\n", "or strange characters"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char text[256], want[256];
        struct str t = STR_INIT(text), w = STR_INIT(want);
        str_addf(&t, "upstreams:\n  - registry: a.io\n    endpoints: ['%s', https://b.io]\n", wrong[i].text);
        str_addf(&w, "3:17: %s", wrong[i].why);
        EXPECT(text, want);
        assert_non_null(strstr(test_list[0].text, wrong[i].text));
    }
}

/* A prefix stands in a request with the longest path: more than fits is refused here, not found out by the first request. */
static void long_prefixes(void **state)
{
    UNUSED(state);
    char path[CONF_PREFIX_MAX + 2], text[CONF_PREFIX_MAX + 100];
    memset(path, 'x', sizeof path);
    path[0] = '/';
    for (size_t n = CONF_PREFIX_MAX; n < sizeof path; n++) {
        struct str t = STR_INIT(text);
        str_addz(&t, "upstreams:\n  - registry: a.io\n    endpoints:\n      - https://a.io");
        str_add(&t, span_of(path, n));
        str_addz(&t, "\n");
        if (n > CONF_PREFIX_MAX) {
            EXPECT(text, "4:9: ");
            assert_non_null(strstr(test_list[0].text, "has a path of more than 512 characters"));
            return;
        }
        struct conf *c = load_good(text);
        assert_int_equal(c->upstreams[0].endpoints[0].prefix.n, n);
        conf_unref(c);
    }
}

static void a_password_is_not_repeated(void **state)
{
    UNUSED(state);
    EXPECT("upstreams: [{registry: a.io, endpoints: ['https://me:secret@a.io']}]\n",
           "1:42: upstreams[].endpoints: this URL holds a user name or '@'; write it without");
    assert_null(strstr(test_list[0].text, "secret"));
    EXPECT("upstreams: [{registry: 'me:secret@a.io'}]\n",
           "1:24: upstreams[].registry: this holds a user name or '@'");
    assert_null(strstr(test_list[0].text, "secret"));
}

static void wrong_upstreams(void **state)
{
    UNUSED(state);
    EXPECT("upstreams: [{registry: 'https://a.io'}]\n",
           "1:24: upstreams[].registry: 'https://a.io' is no registry; write host or host:port only, as in "
           "docker.io");
    EXPECT("upstreams: [{registry: a.io/b}]\n", "1:24: upstreams[].registry: 'a.io/b' is no registry");
    EXPECT("upstreams: [{registry: 'a.io:x'}]\n", "1:24: upstreams[].registry: 'a.io:x' is no registry");
    EXPECT("upstreams:\n  - registry: docker.io\n  - registry: INDEX.docker.io\n    endpoints: [x]\n",
           "3:15: upstreams[].registry: 'docker.io' is described already (line 2); put all in one entry",
           "4:17: upstreams[].endpoints: 'x' has no scheme");
    EXPECT("upstreams: [{registry: ''}, {registry: []}]\n", "1:24: upstreams[].registry: is empty",
           "1:40: upstreams[].registry: must be a single value");
    EXPECT("upstreams:\n  - {registry: a b, endpoints: [http://a.io, http://b.io]}\n"
           "  - {registry: c d, endpoints: [http://c.io]}\n  - {registry: e.io, endpoints: [http://e.io]}\n",
           "2:16: 'a b' is no registry", "3:16: 'c d' is no registry");
    EXPECT("upstreams:\n  - registry: a b\n    max_manifest: 1\n    timeouts: {idle: 5}\n",
           "2:15: 'a b' is no registry", "3:19: outside the limits",
           "4:22: upstreams[].timeouts.idle: '5' has no unit");
}

static void patience_is_shorter_than_containerds(void **state)
{
    UNUSED(state);
    conf_unref(load_good(
        "upstreams: [{registry: a.io, timeouts: {connect: 29s, first_byte: 29999ms, idle: 1h}}]\n"));
    EXPECT("upstreams:\n  - registry: a.io\n    timeouts:\n      connect: 30s\n      first_byte: 1m\n      "
           "idle: 2h\n",
           "4:16: upstreams[].timeouts.connect: must be below 30s, because containerd gives up after 30 s",
           "5:19: upstreams[].timeouts.first_byte: must be below 30s, because containerd gives up after 30 s",
           "6:13: upstreams[].timeouts.idle: '2h' is outside the limits; write a value from 1ms to 1h");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(wrong_addresses),
        cmocka_unit_test(no_address),
        cmocka_unit_test(addresses_in_use),
        cmocka_unit_test(implied_upstreams),
        cmocka_unit_test(written_endpoints),
        cmocka_unit_test(wrong_endpoints),
        cmocka_unit_test(long_prefixes),
        cmocka_unit_test(a_password_is_not_repeated),
        cmocka_unit_test(wrong_upstreams),
        cmocka_unit_test(patience_is_shorter_than_containerds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
