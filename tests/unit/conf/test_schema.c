/* Keys, types and limits: every kind of mistake in a value, with its place. */
#include "conf_test.h"

#define RULES "rules: [{name: a, source: a.io/a, target: a}]\n"

static void unknown_keys(void **state)
{
    UNUSED(state);
    EXPECT("# \xe2\x82\xac \xc3\xa9\nworkres: 1\n", "2:1: unknown key 'workres', did you mean 'workers'?");
    EXPECT("rules:\n" RULE("a", "x.io/a", "a") "    tag_tll: 5m\n",
           "5:5: unknown key 'tag_tll', did you mean 'tag_ttl'?");
    EXPECT("listen: [{adress: ':1', address: ':1'}]\n",
           "1:11: unknown key 'adress', did you mean 'address'?");
    EXPECT("listen: [{addresss: ':1', address: ':1'}]\n", "1:11: did you mean 'address'?");
    EXPECT("listen: [{addrses: ':1', address: ':1'}]\n", "1:11: did you mean 'address'?");
    EXPECT("max_size: 1GiB\n",
           "1:1: unknown key 'max_size' in the configuration; it belongs in store, as store.max_size");
    EXPECT("mirror: {xyzzy: 1}\n", "1:10: unknown key 'xyzzy' in mirror; the keys here are enabled");
    EXPECT("log: {xyzzy: 1}\n", "1:7: unknown key 'xyzzy' in log; the keys here are level, format, access");
    EXPECT("'': 1\n", "1:1: unknown key ''");
    EXPECT("\"a\\nb\": 1\n", "1:1: unknown key 'a?b'");
    EXPECT("a-key-of-more-than-thirty-two-characters-that-nobody-meant: 1\n",
           "1:1: unknown key 'a-key-of-more");
}

/* A password that was written where none belongs is not told on. */
static void passwords_are_not_repeated(void **state)
{
    UNUSED(state);
    static const char *const texts[] = {
        "rules:\n" RULE("a", "https://me:hunter2@x.io", "a"),
        "rules:\n" RULE("a", "https://me:hunter2@x.io/a", "a"),
        "rules:\n" RULE("a", "me:hunter2@x.io", "a"),
        "rules:\n" RULE("a", "x.io/a", "https://me:hunter2@x.io"),
        "rules:\n" RULE("a", "x.io/a", "me:hunter2@x.io/a"),
        "rules:\n" RULE("a", "x.io/a", "me:hun/hunter2@x.io/a"),
        "credential_sets: [{name: a, password:hunter2}]\n",
        "credential_sets: [{name: a, password:hunter2, password:hunter2}]\n",
        "credential_sets: [{name: a, 'me:hunter2@x.io': b}]\n",
        "credential_sets: [{name: a, password: *hunter2}]\n",
        "credential_sets: [{name: a, password: &hunter2 b}]\n",
        "credential_sets: [{name: a, password: !hunter2 b}]\n",
        "credential_sets: [{name: a, login_server: 'me:hunter2@x.io'}]\n",
        "listen: [{address: 'me:hunter2@x.io:5000'}]\n",
        "admin: {address: 'http://me:hunter2@x.io:5000'}\n",
        "workers: me:hunter2@x.io\n",
        "store: {max_size: 'me:hunter2@x.io', path: a}\n",
        "log: {level: 'me:hunter2@x.io'}\n",
        "resolve: {'me:hunter2@x.io': 192.0.2.1}\n",
        "resolve: {x.io: 'me:hunter2@192.0.2.1'}\n",
        "upstreams: [{registry: x.io, redirect_hosts: ['me:hunter2@y.io']}]\n",
        "upstreams: [{registry: x.io, endpoints: ['https://me:hunter2@y.io']}]\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_null(load(span_str(texts[i])));
        for (size_t j = 0; j < test_errors.n; j++)
            if (strstr(test_list[j].text, "hunter2") != NULL)
                fail_msg("%s: %s", texts[i], test_list[j].text);
    }
    EXPECT("credential_sets: [{name: a, password:hunter2, login_server: x.io, username: b, password: "
           "'env:C'}]\n",
           "1:29: unknown key 'password:...'; write a blank behind the colon of a key");
}

static void shapes(void **state)
{
    UNUSED(state);
    EXPECT("just text\n", "1:1: the configuration must be a mapping");
    EXPECT("- a\n", "1:1: the configuration must be a mapping");
    EXPECT("store: /var/lib/larder\n", "1:8: store must be a mapping");
    EXPECT("listen: 0.0.0.0:5000\n", "1:9: listen: must be a list; begin each entry with '- '");
    EXPECT("listen: {address: 0.0.0.0:5000}\n", "1:9: listen: must be a list");
    EXPECT("listen:\n  - 0.0.0.0:5000\n", "2:5: a listen entry must be a mapping");
    EXPECT("rules:\n  -\n  - a\n", "2:4: a rule must be a mapping", "3:5: a rule must be a mapping");
    EXPECT("listen: []\n", "1:9: listen: has 0 entries; write 1 to 64");
    EXPECT("upstreams: [{registry: a.io, endpoints: []}]\n",
           "1:41: upstreams[].endpoints: has 0 entries; write 1 to 16");
    EXPECT("workers: [1]\n", "1:10: workers: must be a single value, not a list");
    EXPECT("store:\n  path: {a: b}\n", "2:9: store.path: must be a single value, not a mapping of keys");
    EXPECT("store:\n  path:\n", "2:8: store.path: has no value; write one or remove the line");
    EXPECT("store: {path: ~}\n", "1:15: store.path: has no value");
    EXPECT("store: {path: ''}\n", "1:15: store.path: is empty; write a value");
    EXPECT("store: {path: \"a\\nb\"}\n", "1:15: store.path: holds a line break or another control character");
    EXPECT("store: {path: \"a\\0b\"}\n", "1:15: store.path: holds a line break or another control character");
    EXPECT("store: {path: \"a\\x7Fb\"}\n",
           "1:15: store.path: holds a line break or another control character");
    EXPECT("upstreams: [{registry: a.io, endpoints: [[]]}]\n",
           "1:42: upstreams[].endpoints: must be a single value");
    EXPECT("upstreams: [{registry: a.io, endpoints: [~, '']}]\n", "1:42: upstreams[].endpoints: has no value",
           "1:45: upstreams[].endpoints: is empty");
}

static void required_keys(void **state)
{
    UNUSED(state);
    EXPECT("listen: [{}]\n", "1:10: a listen entry here has no 'address'; add address: IP address and port");
    EXPECT("upstreams:\n  - timeouts: {}\n", "2:5: an upstream here has no 'registry'");
    EXPECT("rules:\n  - name: a\n", "2:5: a rule here has no 'source'", "2:5: a rule here has no 'target'");
    EXPECT("rules:\n  - source: x.io/a\n    target: a\n", "2:5: a rule here has no 'name'");
    EXPECT("rules:\n  - name:\n    source: x.io/a\n    target: a\n", "2:10: rules[].name: has no value");
}

static void durations(void **state)
{
    UNUSED(state);
    EXPECT("defaults: {tag_ttl: 5}\n", "1:21: defaults.tag_ttl: '5' has no unit; write 5s, 5m, 5h or 5d");
    EXPECT("defaults: {tag_ttl: 0}\n", "1:21: defaults.tag_ttl: '0' has no unit; write 0s, 0m, 0h or 0d");
    static const char *const wrong[] = {"1h30m", "1.5h", "-5m", "5 m",  "5M",  "m",
                                        "5min",  "+5m",  "5mm", "five", "0x5s"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char text[128], want[128];
        struct str t = STR_INIT(text), w = STR_INIT(want);
        str_addf(&t, "defaults:\n  tag_ttl: %s\n", wrong[i]);
        str_addf(&w, "2:12: defaults.tag_ttl: '%s' is no duration; write one whole number", wrong[i]);
        EXPECT(text, want);
    }
    EXPECT("defaults: {tag_ttl: 366d}\n",
           "1:21: '366d' is outside the limits; write a value from 0ms to 365d");
    EXPECT("client: {header_timeout: 99ms}\n",
           "1:26: '99ms' is outside the limits; write a value from 100ms to 1h");
    EXPECT("defaults: {tag_ttl: 9223372036854775807s}\n",
           "1:21: '9223372036854775807s' is outside the limits; write a value from 0ms to 365d");
    EXPECT("defaults: {tag_ttl: 99999999999999999999ms}\n",
           "1:21: '99999999999999999999ms' is outside the limits");
    EXPECT("client: {idle_timeout: 3601s}\n",
           "1:24: '3601s' is outside the limits; write a value from 100ms to 1h");
}

static void sizes(void **state)
{
    UNUSED(state);
    EXPECT("store: {max_size: 100GB}\n", "1:19: store.max_size: '100GB' is no size; write 100GiB");
    EXPECT("store: {max_size: 100Gi}\n", "1:19: store.max_size: '100Gi' is no size; write 100GiB");
    EXPECT("store: {max_size: 7 TiB}\n", "1:19: store.max_size: '7 TiB' is no size; write 7TiB");
    EXPECT("store: {max_size: 8k}\n", "1:19: store.max_size: '8k' is no size; write 8KiB");
    EXPECT("store: {max_size: 8m}\n", "1:19: store.max_size: '8m' is no size; write 8MiB");
    EXPECT("store: {max_size: 8PiB}\n",
           "1:19: '8PiB' is no size; write a whole number and KiB, MiB, GiB or TiB");
    EXPECT("store: {max_size: 1.5GiB}\n", "1:19: '1.5GiB' is no size; write a whole number");
    EXPECT("store: {max_size: -1}\n", "1:19: '-1' is no size; write a whole number");
    EXPECT("store: {max_size: 9223372036854775808}\n", "1:19: '9223372036854775808' is outside the limits");
    EXPECT("store: {max_size: 100}\n", "1:19: store.max_size: '100' is less than 1MiB");
    EXPECT("store: {min_free: 5}\n",
           "1:19: store.min_free: '5' is 5 bytes; write a unit, as in 10GiB, or 5%");
    EXPECT("store: {scrub_rate: 8}\n",
           "1:21: store.scrub_rate: '8' is 8 bytes a second; write a unit, as in 8MiB");
    EXPECT("store: {max_size: 16777216TiB}\n", "1:19: store.max_size: '16777216TiB' is outside the limits");
    EXPECT("store: {max_size: 99999999999999999999GiB}\n",
           "1:19: '99999999999999999999GiB' is outside the limits");
    EXPECT("store: {min_free: 99999999999999999999GB}\n",
           "1:19: '99999999999999999999GB' is no size; write a whole");
    EXPECT("upstreams: [{registry: a.io, max_manifest: 16777216TiB}]\n",
           "1:44: '16777216TiB' is outside the limits; write a value from 1KiB to 64MiB");
    EXPECT("store: {min_free: 91%}\n",
           "1:19: store.min_free: '91%' is no share; write a whole percentage from 0% to 90%, or a size");
    EXPECT("store: {min_free: 2.5%}\n", "1:19: store.min_free: '2.5%' is no share");
    EXPECT("store: {min_free: 5 GB}\n", "1:19: store.min_free: '5 GB' is no size; write 5GiB");
    EXPECT("store: {max_size: 5%}\n", "1:19: store.max_size: '5%' is no size");
    EXPECT("store: {partial_age: 0s}\n",
           "1:22: store.partial_age: '0s' is outside the limits; write a value from 1m to 365d");
    EXPECT("store: {max_size: 1048575}\n", "1:19: store.max_size: '1048575' is less than 1MiB");
    EXPECT("upstreams: [{registry: a.io, max_manifest: 65MiB}]\n",
           "1:44: upstreams[].max_manifest: '65MiB' is outside the limits; write a value from 1KiB to 64MiB");
    EXPECT("upstreams: [{registry: a.io, max_manifest: 1023}]\n",
           "1:44: upstreams[].max_manifest: '1023' is outside the limits; write a value from 1KiB to 64MiB");
}

static void numbers_and_words(void **state)
{
    UNUSED(state);
    EXPECT("workers: many\n", "1:10: workers: 'many' is no number; write auto or a whole number");
    EXPECT("workers: 0\n", "1:10: workers: '0' is outside the limits; write a value from 1 to 256");
    EXPECT("workers: 257\n", "1:10: workers: '257' is outside the limits");
    EXPECT("workers: '4'\n", "1:10: workers: '4' is no number; write auto or a whole number without quotes");
    EXPECT("workers: 0x4\n", "1:10: workers: '0x4' is no number");
    EXPECT("client: {max_connections: auto}\n",
           "1:27: client.max_connections: 'auto' is no number; write a whole number");
    EXPECT("client: {max_connections: 1000001}\n", "1:27: write a value from 1 to 1000000");
    EXPECT("upstreams: [{registry: a.io, max_connections: 0}]\n", "1:47: write a value from 1 to 65535");
    EXPECT("mirror: {enabled: yes}\n",
           "1:19: mirror.enabled: 'yes' is neither true nor false; write one of the two");
    EXPECT("mirror: {enabled: True}\n", "1:19: mirror.enabled: 'True' is neither true nor false");
    EXPECT("log: {access: 'true'}\n",
           "1:15: log.access: 'true' is neither true nor false; write one of the two without");
    EXPECT("log: {level: warning}\n",
           "1:14: log.level: 'warning' is not one of error|warn|info|debug; write one of them");
    EXPECT("log: {level: inof}\n",
           "1:14: log.level: 'inof' is not one of error|warn|info|debug; did you mean 'info'?");
    EXPECT_WARNINGS(RULES "log: {level: warn, access: true}\n",
                    "2:28: log.access: requests are logged at level info");
    EXPECT_WARNINGS(RULES "log:\n  access: true\n  level: error\n",
                    "3:11: log.access: requests are logged at");
    EXPECT_WARNINGS(RULES "log: {level: debug, access: true}\n", NULL);
    EXPECT_WARNINGS(RULES "log: {level: warn}\n", NULL);
    EXPECT_WARNINGS(RULES "log: {level: warn, access: false}\n", NULL);
    EXPECT("log: {format: JSON}\n", "1:15: log.format: 'JSON' is not one of json|text");
    EXPECT("defaults: {on_upstream_404: keep}\n",
           "1:29: defaults.on_upstream_404: 'keep' is not one of serve|refuse");
    EXPECT("defaults: {on_abandoned: keeep}\n",
           "1:26: 'keeep' is not one of finish|keep|auto; did you mean 'keep'?");
    EXPECT("defaults: {refresh: image}\n",
           "1:21: defaults.refresh: 'image' is not one of off|tags|images; did you mean 'images'?");
}

static void lengths(void **state)
{
    UNUSED(state);
    char text[256];
    struct str s = STR_INIT(text);
    str_addz(&s, "rules:\n  - source: x.io/a\n    target: a\n    name: ");
    for (int i = 0; i < 128; i++)
        str_addc(&s, 'n');
    conf_unref(load_good(text));
    str_addc(&s, 'n');
    EXPECT(text, "4:11: rules[].name: has 129 characters; at most 128 are allowed");
}

static void certificates_of_listeners(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("listen:\n  - address: 0.0.0.0:5000\n    tls: {certificate: a.pem, key: "
                               "/k.pem}\n  - address: ':1'\n");
    assert_true(span_eq(c->listen[0].tls.certificate.path, SPAN("a.pem")));
    assert_true(span_eq(c->listen[0].tls.key.path, SPAN("/k.pem")));
    assert_int_equal(c->listen[0].tls.certificate.mark.line, 3);
    assert_null(c->listen[1].tls.certificate.path.p);
    conf_unref(c);
    EXPECT("listen: [{address: ':1', tls: {certificate: a, kee: b}}]\n", "1:31: tls here has no 'key'",
           "1:48: unknown key 'kee', did you mean 'key'?");
    EXPECT("listen: [{address: ':1', tls: true}]\n", "1:31: tls must be a mapping");
}

static void all_in_file_order(void **state)
{
    UNUSED(state);
    EXPECT("rules:\n" RULE("a", "x.io/a", "t") RULE("a", "nginx", "u")
               RULE("b", "x.io/b", "t") "log: {level: x}\n"
                                        "workers: 0\nstore:\n  max_size: 1\n  max_size: 2\nzzzzzzz: 1\n",
           "5:11: rules[].name: 'a' is the name of the rule on line 2 already",
           "6:13: does not begin with a registry", "10:13: has the target 't' of rule 'a' (line 2)",
           "11:14: log.level", "12:10: workers", "14:13: less than 1MiB",
           "15:3: key 'max_size' was already given on line 14", "16:1: unknown key 'zzzzzzz'");
}

/* A list that is full keeps the first complaints of the file, not the first that were found. */
static void a_short_list(void **state)
{
    UNUSED(state);
    struct conf_error list[2];
    struct conf_errors errors = {.list = list, .cap = 2};
    struct span text = SPAN("e: 1\nstore: {path: '', max_size: x}\nz: 1\nz: 2\n");
    assert_null(conf_load(text, SPAN("f"), &errors));
    assert_int_equal(errors.n, 2);
    assert_int_equal(list[0].mark.line, 1);
    assert_int_equal(list[1].mark.line, 2);
    assert_int_equal(list[1].mark.column, 15);
    assert_non_null(strstr(list[1].text, "store.path"));
}

static void long_texts_are_cut_between_characters(void **state)
{
    UNUSED(state);
    char text[1024];
    struct str s = STR_INIT(text);
    str_addz(&s, "log: {level: x");
    for (int i = 0; i < 100; i++)
        str_addz(&s, "\xc3\xa9");
    str_addz(&s, "}\n");
    assert_null(load(str_span(&s)));
    char want[256];
    struct str w = STR_INIT(want);
    str_addz(&w, "log.level: 'x");
    for (int i = 0; i < 39; i++)
        str_addz(&w, "\xc3\xa9");
    str_addz(&w, "' is not one of error|warn|info|debug; write one of them");
    assert_string_equal(test_list[0].text, want);
}

static void error_text(void **state)
{
    UNUSED(state);
    struct conf_error e = {.mark = {.line = 3, .column = 14}, .text = "wrong"};
    char buf[64];
    struct str s = STR_INIT(buf);
    conf_error_text(&e, SPAN("a/b.yaml"), &s);
    assert_string_equal(buf, "a/b.yaml:3:14: wrong");
    str_reset(&s);
    e.mark = (struct conf_mark){0};
    conf_error_text(&e, SPAN("a/b.yaml"), &s);
    assert_string_equal(buf, "a/b.yaml: wrong");
}

static void schema_text(void **state)
{
    UNUSED(state);
    static char buf[16384];
    struct str s = STR_INIT(buf);
    conf_schema_text(&s);
    assert_false(s.cut);
    static const char *const parts[] = {
        "\nworkers                                     auto|number 1..256      auto             event loops",
        "\nstore.max_size                              size 0..                0 ",
        "\nstore.min_free                              size|% 0..              0 ",
        "\ndefaults.tag_ttl                            duration 0ms..365d      5m ",
        "\ndefaults.on_upstream_404                    serve|refuse            serve ",
        "\nupstreams[].max_manifest                    size 1KiB..64MiB        4MiB ",
        "\nupstreams[].timeouts.first_byte             duration 1ms..1h        20s ",
        "\nrules[].source                              text                    required ",
        "\nrules[].tag_ttl                             duration 0ms..365d      - ",
        "\nclient.max_connections                      number 1..1000000       10000 ",
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        assert_non_null(strstr(buf, parts[i]));
    assert_non_null(strstr(buf, "certificate and key of this address; without it plain HTTP\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(passwords_are_not_repeated),
        cmocka_unit_test(shapes),
        cmocka_unit_test(required_keys),
        cmocka_unit_test(durations),
        cmocka_unit_test(sizes),
        cmocka_unit_test(numbers_and_words),
        cmocka_unit_test(lengths),
        cmocka_unit_test(certificates_of_listeners),
        cmocka_unit_test(all_in_file_order),
        cmocka_unit_test(a_short_list),
        cmocka_unit_test(long_texts_are_cut_between_characters),
        cmocka_unit_test(error_text),
        cmocka_unit_test(schema_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
