/* Which rule an image means. */
#include "conf/match.h"
#include "conf_test.h"
#include "registry/name.h"

static const char text[] = "rules:\n"
                           "- {name: dotnet, source: mcr.microsoft.com/dotnet/*, target: dotnet/*}\n"
                           "- {name: hello, source: docker.io/library/hello-world, target: hello-world}\n"
                           "- {name: quay, source: quay.io/*, target: library/*}\n";

struct example {
    const char *image, *rule, *repository, *without_sources; /* NULL: no rule */
    bool by_source;
};

static void check(const struct conf *c, const struct example *e, bool sources, const char *want)
{
    char buf[NAME_REPO_MAX + 1];
    struct str repo = STR_INIT(buf);
    struct image_name image;
    bool by_source;
    assert_true(image_parse(span_str(e->image), &image));
    const struct conf_rule *rule = conf_match_image(c, &image, sources, &repo, &by_source);
    if ((rule == NULL) != (want == NULL) || (want != NULL && !span_eq(rule->name, span_str(want))))
        fail_msg("%s: " SPAN_FMT ", not %s", e->image, SPAN_ARG(rule != NULL ? rule->name : SPAN("none")),
                 want != NULL ? want : "none");
    if (sources && want != NULL) {
        assert_string_equal(buf, e->repository);
        assert_int_equal(by_source, e->by_source);
    }
}

static void examples(void **state)
{
    UNUSED(state);
    static const struct example list[] = {
        {"dotnet/sdk:8.0", "dotnet", "dotnet/sdk", "dotnet", false},
        {"cache.example:5000/dotnet/sdk:8.0", "dotnet", "dotnet/sdk", "dotnet", false},
        {"mcr.microsoft.com/dotnet/sdk", "dotnet", "dotnet/sdk", "dotnet", true},
        {"mcr.microsoft.com/library/sdk", "quay", "sdk", "quay", false}, /* taken for larder */
        {"mcr.microsoft.com/other/sdk", NULL, NULL, NULL, false},
        {"hello-world", "hello", "library/hello-world", "hello", false},
        {"docker.io/hello-world", "hello", "library/hello-world", "hello", true},
        {"index.docker.io/library/hello-world", "hello", "library/hello-world", "quay", true},
        {"quay.io/a/b", "quay", "a/b", NULL, true},
    };
    struct conf *c = load_good(text);
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        check(c, &list[i], true, list[i].rule);
        check(c, &list[i], false, list[i].without_sources);
    }
    conf_unref(c);
}

static void docker_hub_comes_last(void **state)
{
    UNUSED(state);
    static const struct example list[] = {
        {"nginx", "hub", "library/nginx", NULL, true},
        {"nginx/x", "hub", "nginx/x", NULL, true},
        {"quay.io/nginx", NULL, NULL, NULL, false},
        {"m/nginx", "hub", "library/nginx", "hub", false},
    };
    struct conf *c = load_good("rules: [{name: hub, source: docker.io/*, target: m/*}]");
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        check(c, &list[i], true, list[i].rule);
        check(c, &list[i], false, list[i].without_sources);
    }
    conf_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples),
        cmocka_unit_test(docker_hub_comes_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
