/* Whole snapshots: every value of a full file, the defaults, and how long a snapshot lives. */
#include "conf_test.h"

static const char full[] =
    "# caf\xc3\xa9\n"
    "listen:\n"
    "  - address: 192.0.2.1:5443\n"
    "  - address: \"[2001:db8::1]:5443\"\n"
    "admin:\n"
    "  address: 127.0.0.2:6001\n"
    "workers: 12\n"
    "store:\n"
    "  path: ./relative/store\n"
    "  max_size: 3TiB\n"
    "defaults:\n"
    "  tag_ttl: 90s\n"
    "  stale_if_error: 2h\n"
    "  negative_ttl: 1500ms\n"
    "  on_upstream_404: refuse\n"
    "  on_abandoned: keep\n"
    "upstreams:\n"
    "  - registry: registry.corp.example\n"
    "    endpoints: [http://mirror.corp.example:8080/prefix, https://registry.corp.example]\n"
    "    timeouts: {connect: 1s, first_byte: 2s, idle: 3s}\n"
    "    max_connections: 7\n"
    "    max_manifest: 1MiB\n"
    "rules:\n"
    "  - name: hello-world\n"
    "    source: docker.io/hello-world\n"
    "    target: hello/world\n"
    "  - name: Corp_1.x\n"
    "    source: Registry.corp.example/team/*\n"
    "    target: corp/*\n"
    "    tag_ttl: 0s\n"
    "    stale_if_error: 1d\n"
    "    negative_ttl: 1m\n"
    "    on_upstream_404: serve\n"
    "    on_abandoned: finish\n"
    "  - name: all\n"
    "    source: quay.io/*\n"
    "    target: quay/*\n"
    "    negative_ttl: 2s\n"
    "mirror: {enabled: false}\n"
    "log: {level: debug, format: text, access: false}\n"
    "client:\n"
    "  header_timeout: 1s\n"
    "  idle_timeout: 2s\n"
    "  send_timeout: 3s\n"
    "  drain_timeout: 0s\n"
    "  max_connections: 8\n";

static void check_policy(const struct conf_policy *p, int64_t tag, int64_t stale, int64_t negative,
                         bool serve, bool finish)
{
    assert_int_equal(p->tag_ttl_ms, tag);
    assert_int_equal(p->stale_if_error_ms, stale);
    assert_int_equal(p->negative_ttl_ms, negative);
    assert_int_equal(p->serve_on_404, serve);
    assert_int_equal(p->on_abandoned, finish ? ABANDONED_FINISH : ABANDONED_KEEP);
}

static void full_file_scalars(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(full);
    assert_string_equal(c->file.p, "test.yaml");
    assert_int_equal(c->n_listen, 2);
    assert_string_equal(c->listen[0].address.p, "192.0.2.1:5443");
    assert_string_equal(c->listen[0].host.p, "192.0.2.1");
    assert_int_equal(c->listen[0].port, 5443);
    assert_string_equal(c->listen[1].host.p, "2001:db8::1");
    assert_string_equal(c->admin.address.p, "127.0.0.2:6001");
    assert_string_equal(c->admin.host.p, "127.0.0.2");
    assert_int_equal(c->admin.port, 6001);
    assert_int_equal(c->workers, 12);
    assert_string_equal(c->store_path.p, "./relative/store");
    assert_true(c->store.max_size == UINT64_C(3) << 40);
    assert_int_equal(c->client.header_ms, 1000);
    assert_int_equal(c->client.idle_ms, 2000);
    assert_int_equal(c->client.send_ms, 3000);
    assert_int_equal(c->client.drain_ms, 0);
    assert_int_equal(c->client.max_connections, 8);
    assert_false(c->mirror);
    assert_int_equal(c->log_level, LOG_DEBUG);
    assert_int_equal(c->log_format, LOG_FORMAT_TEXT);
    assert_false(c->log_access);
    conf_unref(c);
}

static void store_limits(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("store: {path: /x}\n");
    assert_int_equal(c->store.max_size, 0);
    assert_int_equal(c->store.min_free, 0);
    assert_int_equal(c->store.min_free_percent, 0);
    assert_int_equal(c->store.max_age_ms, 0);
    assert_int_equal(c->store.partial_age_ms, 24 * 3600 * 1000);
    assert_int_equal(c->store.scrub_rate, 8 << 20);
    conf_unref(c);
    c = load_good("store: {min_free: 5%, max_age: 30d, partial_age: 1h, scrub_rate: 0}\n");
    assert_int_equal(c->store.min_free, 0);
    assert_int_equal(c->store.min_free_percent, 5);
    assert_int_equal(c->store.max_age_ms, INT64_C(30) * 24 * 3600 * 1000);
    assert_int_equal(c->store.partial_age_ms, 3600 * 1000);
    assert_int_equal(c->store.scrub_rate, 0);
    conf_unref(c);
    c = load_good("store: {min_free: 10GiB}\ndefaults: {on_abandoned: auto}\n"
                  "rules: [{name: a, source: quay.io/a, target: a}]\n");
    assert_true(c->store.min_free == UINT64_C(10) << 30);
    assert_int_equal(c->store.min_free_percent, 0);
    assert_int_equal(c->rules[0].policy.on_abandoned, ABANDONED_AUTO);
    conf_unref(c);
}

static void full_file_upstreams(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(full);
    assert_int_equal(c->n_upstreams, 3);
    const struct conf_upstream *u = &c->upstreams[0];
    assert_string_equal(u->registry.p, "registry.corp.example");
    assert_int_equal(u->n_endpoints, 2);
    assert_string_equal(u->endpoints[0].url.p, "http://mirror.corp.example:8080/prefix");
    assert_string_equal(u->endpoints[0].prefix.p, "/prefix");
    assert_int_equal(u->endpoints[0].mark.line, 19);
    assert_int_equal(u->endpoints[0].mark.column, 17);
    assert_true(u->endpoints[1].tls);
    assert_int_equal(u->endpoints[1].mark.column, 57);
    assert_int_equal(u->timeouts.connect_ms, 1000);
    assert_int_equal(u->timeouts.first_byte_ms, 2000);
    assert_int_equal(u->timeouts.idle_ms, 3000);
    assert_int_equal(u->max_connections, 7);
    assert_int_equal(u->max_manifest, 1 << 20);
    assert_string_equal(c->upstreams[1].registry.p, "docker.io");
    assert_int_equal(c->upstreams[1].max_connections, 64); /* not what the entry before it said */
    assert_int_equal(c->upstreams[1].timeouts.idle_ms, 60000);
    assert_string_equal(c->upstreams[2].registry.p, "quay.io");
    conf_unref(c);
}

static void full_file_rules(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(full);
    assert_int_equal(c->n_rules, 3);
    const struct conf_rule *hello = &c->rules[0], *corp = &c->rules[1], *all = &c->rules[2];
    assert_string_equal(hello->name.p, "hello-world");
    assert_string_equal(hello->source.p, "docker.io/hello-world");
    assert_string_equal(hello->target.p, "hello/world");
    assert_false(hello->wildcard);
    assert_string_equal(hello->registry.p, "docker.io");
    assert_string_equal(hello->source_prefix.p, "library/hello-world");
    assert_string_equal(hello->target_prefix.p, "hello/world");
    assert_ptr_equal(hello->upstream, &c->upstreams[1]);
    assert_int_equal(hello->mark.line, 24);
    assert_int_equal(hello->mark.column, 5);
    assert_int_equal(hello->index, 0);
    check_policy(&hello->policy, 90000, 7200000, 1500, false, false);

    assert_string_equal(corp->name.p, "Corp_1.x");
    assert_string_equal(corp->source.p, "Registry.corp.example/team/*");
    assert_true(corp->wildcard);
    assert_string_equal(corp->registry.p, "registry.corp.example");
    assert_string_equal(corp->source_prefix.p, "team/");
    assert_string_equal(corp->target_prefix.p, "corp/");
    assert_ptr_equal(corp->upstream, &c->upstreams[0]);
    assert_int_equal(corp->mark.line, 27);
    assert_int_equal(corp->index, 1);
    check_policy(&corp->policy, 0, 86400000, 60000, true, true);

    assert_string_equal(all->source_prefix.p, "");
    assert_string_equal(all->target_prefix.p, "quay/");
    check_policy(&all->policy, 90000, 7200000, 2000, false, false);
    conf_unref(c);
}

static void immutable_tags(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(
        "defaults: {immutable_tags: [v*, '*-rc*'], refresh: tags}\n"
        "rules:\n" RULE("a", "r.test/a", "a")
            RULE("b", "r.test/b", "b") "    immutable_tags: [20*]\n    refresh: images\n" RULE(
                "c", "r.test/c",
                "c") "    immutable_tags: []\n    refresh: off\n" RULE("d", "r.test/d",
                                                                       "d") "    immutable_tags:\n");
    const struct conf_policy *p[4];
    for (size_t i = 0; i < 4; i++)
        p[i] = &c->rules[i].policy;
    assert_int_equal(p[0]->n_immutable_tags, 2);
    assert_string_equal(p[0]->immutable_tags[0].p, "v*");
    assert_string_equal(p[0]->immutable_tags[1].p, "*-rc*");
    assert_int_equal(p[0]->refresh, REFRESH_TAGS);
    assert_int_equal(p[1]->n_immutable_tags, 1);
    assert_string_equal(p[1]->immutable_tags[0].p, "20*");
    assert_int_equal(p[1]->refresh, REFRESH_IMAGES);
    assert_int_equal(p[2]->n_immutable_tags, 0);
    assert_int_equal(p[2]->refresh, REFRESH_OFF);
    assert_int_equal(p[3]->n_immutable_tags, 2); /* nothing is written: the default's */
    conf_unref(c);
    EXPECT("defaults: {immutable_tags: v*}\n", "1:28: defaults.immutable_tags: must be a list");
    EXPECT("defaults: {immutable_tags: [v?, 'a:b', '']}\n",
           "1:29: defaults.immutable_tags: 'v?' matches nothing; write a tag of letters",
           "1:33: defaults.immutable_tags: 'a:b' matches nothing",
           "1:40: defaults.immutable_tags: is empty; write a value");
    EXPECT("rules:\n" RULE("a", "r.test/a", "a") "    immutable_tags: ['.x', [v]]\n",
           "5:22: rules[].immutable_tags: '.x' matches nothing, because a tag does not begin with",
           "5:28: rules[].immutable_tags: must be a single value, not a list");
    char text[1024];
    struct str s = STR_INIT(text);
    str_addz(&s, "defaults:\n  immutable_tags:\n");
    for (int i = 0; i < 64; i++)
        str_addz(&s, "    - a*\n");
    conf_unref(load_good(text));
    str_addz(&s, "    - a*\n");
    EXPECT(text, "3:5: defaults.immutable_tags: has 65 entries; write 0 to 64");
}

static void check_defaults(const struct conf *c)
{
    assert_int_equal(c->n_listen, 1);
    assert_string_equal(c->listen[0].address.p, "0.0.0.0:5000");
    assert_string_equal(c->listen[0].host.p, "0.0.0.0");
    assert_int_equal(c->listen[0].port, 5000);
    assert_string_equal(c->admin.address.p, "127.0.0.1:5001");
    assert_int_equal(c->admin.port, 5001);
    assert_int_equal(c->workers, 0);
    assert_string_equal(c->store_path.p, "/var/lib/larder");
    assert_int_equal(c->store.max_size, 0);
    assert_int_equal(c->client.header_ms, 20000);
    assert_int_equal(c->client.idle_ms, 75000);
    assert_int_equal(c->client.send_ms, 60000);
    assert_int_equal(c->client.drain_ms, 25000);
    assert_int_equal(c->client.max_connections, 10000);
    assert_true(c->mirror);
    assert_int_equal(c->log_level, LOG_INFO);
    assert_int_equal(c->log_format, LOG_FORMAT_JSON);
    assert_true(c->log_access);
}

static void defaults(void **state)
{
    UNUSED(state);
    static const char *const texts[] = {
        "",
        "# nothing\n",
        "---\n",
        "~\n",
        "{}\n",
        "rules: []\nupstreams: []\n",
        "listen:\nadmin:\nstore:\ndefaults:\nupstreams:\nrules:\nmirror:\nlog:\nclient:\n",
        "admin: {}\nstore: {}\ndefaults: {}\nmirror: {}\nlog: {}\nclient: {}\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct conf *c = load_good(texts[i]);
        check_defaults(c);
        assert_int_equal(c->n_rules, 0);
        assert_int_equal(c->n_upstreams, 0);
        char buf[16];
        struct str up = STR_INIT(buf);
        assert_null(conf_match_target(c, SPAN("nginx"), &up));
        assert_null(conf_match_source(c, SPAN("docker.io"), SPAN("nginx"), &up));
        conf_unref(c);
    }
}

static void one_rule_is_enough(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("rules: [{name: hub, source: docker.io/*, target: hub/*}]\n");
    check_defaults(c);
    assert_int_equal(c->n_rules, 1);
    check_policy(&c->rules[0].policy, 300000, INT64_C(7) * 86400000, 10000, true, true);
    assert_int_equal(c->rules[0].policy.n_immutable_tags, 0);
    assert_int_equal(c->rules[0].policy.refresh, REFRESH_OFF);
    assert_int_equal(c->rules[0].mark.line, 1);
    assert_int_equal(c->rules[0].mark.column, 9);
    conf_unref(c);
}

static void values_at_their_limits(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(
        "workers: 256\nstore: {max_size: 1048576}\nclient: {max_connections: 1, drain_timeout: 1h}\n"
        "upstreams: [{registry: localhost, max_manifest: 65536KiB, max_connections: 65535}]\n"
        "defaults: {tag_ttl: 0ms, stale_if_error: '3650d', negative_ttl: 24h}\n");
    assert_int_equal(c->workers, 256);
    assert_int_equal(c->store.max_size, 1 << 20);
    assert_int_equal(c->client.max_connections, 1);
    assert_int_equal(c->client.drain_ms, 3600000);
    assert_int_equal(c->upstreams[0].max_manifest, 64 << 20);
    assert_int_equal(c->upstreams[0].max_connections, 65535);
    conf_unref(c);
}

/* The snapshot holds copies: the text it came from may go, and so may all but the last reference. */
static void a_snapshot_stands_alone(void **state)
{
    UNUSED(state);
    char *text = mem_strdup(full);
    struct conf *c = load(span_str(text));
    assert_non_null(c);
    memset(text, '#', strlen(text));
    mem_free(text);
    assert_ptr_equal(conf_ref(c), c);
    conf_unref(c);
    assert_string_equal(c->rules[1].source.p, "Registry.corp.example/team/*");
    assert_string_equal(c->upstreams[0].endpoints[0].host.p, "mirror.corp.example");
    char buf[64];
    struct str up = STR_INIT(buf);
    assert_ptr_equal(conf_match_target(c, SPAN("corp/app"), &up), &c->rules[1]);
    assert_string_equal(buf, "team/app");
    conf_unref(c);
    conf_unref(NULL);
}

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    static char buf[65536];
    *n = fread(buf, 1, sizeof buf, f);
    assert_true(*n > 0 && *n < sizeof buf);
    fclose(f);
    return buf;
}

static void the_example_is_valid(void **state)
{
    UNUSED(state);
    size_t n;
    char *text = read_file(LARDER_SOURCE_DIR "/examples/config.yaml", &n);
    struct conf *c = load(span_of(text, n));
    assert_int_equal(test_errors.n, 0);
    assert_non_null(c);
    for (size_t i = 0; i < c->n_listen; i++)
        assert_string_equal(c->listen[i].host.p, "127.0.0.1"); /* trying it exposes nothing */
    assert_string_equal(c->admin.host.p, "127.0.0.1");
    static const struct {
        const char *target, *registry, *repo;
    } want[] = {
        {"demo/hello", "localhost:5002", "hello"},
        {"hello-world", "docker.io", "library/hello-world"},
        {"hub/nginx", "docker.io", "library/nginx"},
        {"hub/grafana/grafana", "docker.io", "grafana/grafana"},
        {"mcr/dotnet/sdk", "mcr.microsoft.com", "dotnet/sdk"},
        {"quay/prometheus/node-exporter", "quay.io", "prometheus/node-exporter"},
        {"ghcr/a/b", "ghcr.io", "a/b"},
        {"k8s/pause", "registry.k8s.io", "pause"},
        {"ecr-public/docker/library/redis", "public.ecr.aws", "docker/library/redis"},
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        char buf[256];
        struct str up = STR_INIT(buf);
        const struct conf_rule *r = conf_match_target(c, span_str(want[i].target), &up);
        assert_non_null(r);
        assert_string_equal(r->registry.p, want[i].registry);
        assert_string_equal(buf, want[i].repo);
    }
    conf_unref(c);
}

/* What can be read of it says where to ask the server that runs with what the file was before; else nobody guesses. */
static void the_admin_of_a_bad_file(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *address; /* NULL: unknown */
    } cases[] = {
        {"rules: 1\nnonsense: 2\n", "127.0.0.1:5001"},
        {"admin: {address: 127.0.0.2:6001}\nnonsense: 2\n", "127.0.0.2:6001"},
        {"admin: {address: 127.0.0.2:6001, nonsense: 2}\n", "127.0.0.2:6001"},
        {"admin:\n  address: 127.0.0.2:6001\nrules:\n  - a: [\n", "127.0.0.2:6001"},
        {"admin:\n  address: 127.0.0.2:6001\n x: y\n", "127.0.0.2:6001"},
        {"log: {level: info}\nrules:\n  - target: *\n", "127.0.0.1:5001"},
        {"", "127.0.0.1:5001"},
        {"rules:\n  - target: *\nadmin: {address: 127.0.0.2:6001}\n", NULL},
        {"admin:\n\taddress: 127.0.0.2:6001\n", NULL},
        {"admin: {address: localhost:6001}\n", NULL},
        {"admin: {adress: 127.0.0.2:6001}\n", NULL},
        {"admin: 127.0.0.2:6001\n", NULL},
        {"x: &x {address: 127.0.0.2:6001}\nadmin: *x\n", NULL},
        {"admin: {address: \"127.0.0.2:60", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf *c = conf_load_admin(span_str(cases[i].text), SPAN("test.yaml"));
        if (cases[i].address == NULL) {
            assert_null(c);
            continue;
        }
        assert_non_null(c);
        assert_string_equal(c->admin.address.p, cases[i].address);
        conf_unref(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_file_scalars),       cmocka_unit_test(store_limits),
        cmocka_unit_test(full_file_upstreams),     cmocka_unit_test(immutable_tags),
        cmocka_unit_test(full_file_rules),         cmocka_unit_test(defaults),
        cmocka_unit_test(one_rule_is_enough),      cmocka_unit_test(values_at_their_limits),
        cmocka_unit_test(a_snapshot_stands_alone), cmocka_unit_test(the_example_is_valid),
        cmocka_unit_test(the_admin_of_a_bad_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
