/* The rule for an image, and the question to the server that is made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "base/str.h"
#include "cli/config_file.h"
#include "cli/image_rule.h"

static const char config[] = "rules:\n"
                             "  - {name: dotnet, source: mcr.microsoft.com/dotnet/*, target: net/*}\n"
                             "  - {name: hello, source: docker.io/library/hello-world, target: hello}\n";

static struct conf *conf;

static void expect(const char *image, const char *rule, const char *repository, const char *query)
{
    struct image_rule r;
    char text[1024];
    struct str s = STR_INIT(text);
    assert_true(image_rule_parse(&r, span_str(image)));
    assert_true(image_rule_find(&r, conf));
    assert_true(span_eq(r.rule->name, span_str(rule)));
    assert_string_equal(r.repository, repository);
    image_rule_add(&r, &s);
    assert_string_equal(text, query);
}

static void test_by_either_name(void **state)
{
    UNUSED(state);
    expect("net/sdk:8.0", "dotnet", "dotnet/sdk", "repository=net/sdk&reference=8.0");
    expect("cache.example:5000/net/sdk", "dotnet", "dotnet/sdk", "repository=net/sdk&reference=latest");
    expect("mcr.microsoft.com/dotnet/sdk:8.0", "dotnet", "dotnet/sdk",
           "ns=mcr.microsoft.com&repository=dotnet/sdk&reference=8.0");
    expect("docker.io/hello-world:a_b", "hello", "library/hello-world",
           "ns=docker.io&repository=hello-world&reference=a_b");
    expect(
        "hello:1@sha256:0000000000000000000000000000000000000000000000000000000000000000", "hello",
        "library/hello-world",
        "repository=hello&reference=sha256:0000000000000000000000000000000000000000000000000000000000000000");
}

static void test_none(void **state)
{
    UNUSED(state);
    struct image_rule r;
    assert_false(image_rule_parse(&r, SPAN("a@b")));
    assert_false(image_rule_parse(&r, SPAN("")));
    assert_true(image_rule_parse(&r, SPAN("quay.io/x/y:1")));
    assert_false(image_rule_find(&r, conf));
}

static int set_up(void **state)
{
    UNUSED(state);
    struct config_warnings warnings;
    conf = config_load(span_str(config), "config.yaml", &warnings);
    return conf != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    UNUSED(state);
    conf_unref(conf);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_either_name),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
