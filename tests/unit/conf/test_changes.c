/* What a reload says that has changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/changes.h"

static char said[8192];

static void say(const struct conf_change *c, void *arg)
{
    struct str *out = arg;
    str_addf(out, "%s " SPAN_FMT " %s" SPAN_FMT SPAN_FMT "%s\n", c->what, SPAN_ARG(c->name),
             conf_change_word(c->kind), SPAN_ARG(c->detail.n > 0 ? SPAN(": ") : SPAN("")),
             SPAN_ARG(c->detail), c->restart ? " (restart)" : "");
}

static struct conf *load(const char *text)
{
    struct conf_error list[4];
    struct conf_errors errors = {.list = list, .cap = ARRAY_LEN(list)};
    struct conf *c = conf_load(span_str(text), SPAN("t.yaml"), &errors);
    if (c == NULL)
        print_error("%s\n", list[0].text);
    assert_non_null(c);
    return c;
}

static const char *diff(const char *before, const char *now)
{
    struct conf *a = load(before), *b = load(now);
    struct str out = STR_INIT(said);
    conf_changes(a, b, say, &out);
    conf_unref(a);
    conf_unref(b);
    return said;
}

static void test_same(void **state)
{
    (void)state;
    const char *text = "rules: [{name: a, source: r.test/x, target: x}]\n";
    assert_string_equal(diff("rules: [{name: a, source: r.test/x, target: x}]", text), "");
    assert_string_equal(diff("", ""), "");
    /* Order, comments and spelling of a default are no changes. */
    assert_string_equal(
        diff("rules: [{name: a, source: r.test/x, target: x}, {name: b, source: r.test/y, target: y}]",
             "# here\nworkers: auto\nrules:\n- {name: b, source: r.test/y, target: y}\n- {name: a, source: "
             "r.test/x, target: x}\n"),
        "");
}

static void test_rules(void **state)
{
    (void)state;
    assert_string_equal(
        diff("rules: [{name: a, source: r.test/x, target: x}, {name: b, source: r.test/y, target: y}]",
             "rules: [{name: c, source: r.test/z, target: z}, {name: b, source: r.test/yy, target: y, "
             "tag_ttl: 1m}]"),
        "rule c added\nrule b changed: source, tag_ttl\nrule a removed\n");
    /* A default that changes changes the rules that follow it. */
    assert_string_equal(diff("rules: [{name: a, source: r.test/x, target: x}, {name: b, source: r.test/y, "
                             "target: y, tag_ttl: 5m}]",
                             "defaults: {tag_ttl: 7m}\nrules: [{name: a, source: r.test/x, target: x}, "
                             "{name: b, source: r.test/y, target: y, tag_ttl: 5m}]"),
                        "rule a changed: tag_ttl\n");
    assert_string_equal(
        diff("rules: [{name: a, source: r.test/x, target: x}, {name: b, source: r.test/y, target: y, "
             "immutable_tags: [v*, w]}, {name: c, source: r.test/z, target: z, immutable_tags: [v*]}]",
             "defaults: {refresh: tags}\nrules: [{name: a, source: r.test/x, target: x}, {name: b, source: "
             "r.test/y, target: y, immutable_tags: [w, v*]}, {name: c, source: r.test/z, target: z, "
             "immutable_tags: [v*], refresh: off}]"),
        "rule a changed: refresh\nrule b changed: immutable_tags, refresh\n");
}

static void test_settings(void **state)
{
    (void)state;
    assert_string_equal(
        diff("", "workers: 3\nadmin: {address: '127.0.0.1:7001'}\nstore: {path: /x, max_size: 1GiB}\nlog: "
                 "{level: warn}\n"),
        "setting workers changed (restart)\nsetting admin.address changed (restart)\n"
        "setting store.path changed (restart)\nsetting store.max_size changed\nsetting log.level changed\n");
}

static void test_store(void **state)
{
    (void)state;
    assert_string_equal(
        diff("store: {min_free: 5KiB}",
             "store: {min_free: 5%, max_age: 1d, partial_age: 2d, scrub_rate: 1MiB}"),
        "setting store.min_free changed\nsetting store.max_age changed\nsetting store.partial_age changed\n"
        "setting store.scrub_rate changed\n");
}

static void test_listeners_and_upstreams(void **state)
{
    (void)state;
    assert_string_equal(
        diff("listen: [{address: ':5000'}, {address: ':5002'}]\nupstreams: [{registry: r.test, endpoints: "
             "['http://a.test']}]",
             "listen: [{address: ':5000'}, {address: ':5003'}]\nupstreams: [{registry: r.test, endpoints: "
             "['http://b.test'], timeouts: {connect: 1s}}]"),
        "listener :5003 added\nlistener :5002 removed\nupstream r.test changed: endpoints, timeouts\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_listeners_and_upstreams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
