/* From what people call things to what the store calls them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "admin/names.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char text[] = "rules:\n"
                           "- {name: dotnet, source: mcr.microsoft.com/dotnet/*, target: dotnet/*}\n"
                           "- {name: hello, source: docker.io/library/hello-world, target: hello}\n"
                           "- {name: hub, source: docker.io/*, target: hub/*}\n"
                           "- {name: deep, source: quay.io/org/*, target: hub2/org/*}\n"
                           "mirror: {enabled: false}\n";

static struct conf *conf;

static int load(void **state)
{
    UNUSED(state);
    static struct conf_error list[4];
    struct conf_errors errors = {.list = list, .cap = ARRAY_LEN(list)};
    conf = conf_load(span_str(text), SPAN("test.yaml"), &errors);
    return conf == NULL;
}

static int unload(void **state)
{
    UNUSED(state);
    conf_unref(conf);
    return 0;
}

static void images(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *repo, *tag, *rule;
        bool digest;
    } examples[] = {
        {"dotnet/sdk:8.0", "mcr.microsoft.com/dotnet/sdk", "8.0", "dotnet", false},
        {"cache.example:5000/dotnet/sdk:8.0", "mcr.microsoft.com/dotnet/sdk", "8.0", "dotnet", false},
        {"mcr.microsoft.com/dotnet/sdk:8.0", "mcr.microsoft.com/dotnet/sdk", "8.0", "dotnet", false},
        {"hub/nginx", "docker.io/library/nginx", "", "hub", false},
        {"index.docker.io/nginx:1", "docker.io/library/nginx", "1", "hub", false},
        {"nginx:1", "docker.io/library/nginx", "1", "hub", false},
        {"hello@sha256:" HEX, "docker.io/library/hello-world", "", "hello", true},
        {"hello:x@sha256:" HEX, "docker.io/library/hello-world", "", "hello", true},
        {"sha256:" HEX, "", "", NULL, true},
        {"ghcr.io:443/gone/app:v1", "ghcr.io/gone/app", "v1", NULL, false}, /* of a former rule */
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        struct names_image image;
        if (names_image(conf, span_str(examples[i].text), &image) != NAMES_OK)
            fail_msg("not found: %s", examples[i].text);
        assert_string_equal(image.repo, examples[i].repo);
        assert_string_equal(image.tag, examples[i].tag);
        assert_int_equal(image.digest.alg != DIGEST_NONE, examples[i].digest);
        assert_int_equal(image.rule != NULL, examples[i].rule != NULL);
        if (image.rule != NULL)
            assert_true(span_eq(image.rule->name, span_str(examples[i].rule)));
    }
}

static void what_is_not_found(void **state)
{
    UNUSED(state);
    struct names_image image;
    assert_int_equal(names_image(conf, SPAN("A"), &image), NAMES_NO_IMAGE);
    assert_int_equal(names_image(conf, SPAN(""), &image), NAMES_NO_IMAGE);
    assert_int_equal(names_image(conf, SPAN("sha256:00"), &image), NAMES_OK); /* an image of that name */
    assert_string_equal(image.repo, "docker.io/library/sha256");
    struct conf *before = conf;
    static struct conf_error list[4];
    struct conf_errors errors = {.list = list, .cap = ARRAY_LEN(list)};
    conf = conf_load(SPAN("rules: [{name: q, source: quay.io/q, target: q}]"), SPAN("x"), &errors);
    assert_int_equal(names_image(conf, SPAN("nginx:1"), &image), NAMES_NO_RULE);
    conf_unref(conf);
    conf = before;
}

static void rules_of_repositories(void **state)
{
    UNUSED(state);
    static const struct {
        const char *repo, *rule, *client;
    } examples[] = {
        {"mcr.microsoft.com/dotnet/sdk", "dotnet", "dotnet/sdk"},
        {"docker.io/library/hello-world", "hello", "hello"},
        {"docker.io/library/nginx", "hub", "hub/library/nginx"},
        {"quay.io/org/a/b", "deep", "hub2/org/a/b"},
        {"quay.io/other/a", NULL, NULL},
        {"nonsense", NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char buf[600];
        struct str client = STR_INIT(buf);
        const struct conf_rule *rule = names_rule(conf, span_str(examples[i].repo), &client);
        if ((rule == NULL) != (examples[i].rule == NULL))
            fail_msg("%s: " SPAN_FMT, examples[i].repo, SPAN_ARG(rule != NULL ? rule->name : SPAN("none")));
        if (rule == NULL)
            continue;
        assert_true(span_eq(rule->name, span_str(examples[i].rule)));
        assert_string_equal(buf, examples[i].client);
    }
}

/* All repositories of a store, and which of them begin so: a character each. */
static const char *const stored[] = {
    "docker.io/library/hello-world", /* h */
    "docker.io/library/hello-world2",
    "docker.io/library/nginx",      /* n */
    "docker.io/org/app",            /* o */
    "ghcr.io/gone/app",             /* g */
    "mcr.microsoft.com/dotnet/sdk", /* d */
    "quay.io/org/app",              /* q */
    "quay.io/orga/app",
};
static const char letters[] = "hHnogdqQ";

static void filters(void **state)
{
    UNUSED(state);
    static const struct {
        const char *prefix, *want, *common;
    } examples[] = {
        {"", "hHnogdqQ", ""},
        {"docker.io/", "hHno", "docker.io/"},
        {"docker.io/library/nginx", "n", "docker.io/library/nginx"},
        {"index.docker.io/library/", "hHn", "docker.io/library/"},
        {"dock", "hHno", "dock"},
        {"quay.io/org", "qQ", "quay.io/org"},
        {"quay.io/org/", "q", "quay.io/org/"},
        {"ghcr.io/", "g", NULL},
        {"dotnet/", "d", "mcr.microsoft.com/dotnet/"},
        {"dotnet/s", "d", "mcr.microsoft.com/dotnet/s"},
        {"dot", "d", NULL},
        {"cache.example:5000/dotnet/", "d", NULL},
        {"localhost/dotnet/", "d", NULL},
        {"cache.example:5000/", "hHnodq", NULL},
        {"localhost/", "hHnodq", NULL},
        {"192.0.2.1/", "hHnodq", NULL},
        {"[::1]:5000/", "hHnodq", NULL},
        {"quay.io:443/", "qQ", "quay.io/"},
        {"hello", "h", NULL}, /* the rule has no star: exactly that one */
        {"hub/", "hHno", "docker.io/"},
        {"hub/ngi", "n", "docker.io/"},
        {"hub/org/", "o", "docker.io/org/"},
        {"hub", "hHnoq", NULL},
        {"hub2/", "q", "quay.io/org/"},
        {"nope/", "", ""},
        {"nope", "", NULL},
        {"h", "hHnoq", NULL},
        {"docker.io/library/nginxx", "", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        struct names_filter f;
        char got[sizeof letters] = "";
        size_t n = 0;
        names_filter_init(&f, conf, span_str(examples[i].prefix));
        for (size_t k = 0; k < ARRAY_LEN(stored); k++) {
            bool has = names_filter_has(&f, span_str(stored[k]));
            if (has)
                got[n++] = letters[k];
            if (has && !span_starts(span_str(stored[k]), f.common))
                fail_msg("'%s': %s does not begin with '" SPAN_FMT "'", examples[i].prefix, stored[k],
                         SPAN_ARG(f.common));
        }
        if (strcmp(got, examples[i].want) != 0)
            fail_msg("'%s': '%s', not '%s'", examples[i].prefix, got, examples[i].want);
        if (examples[i].common != NULL && !span_eq(f.common, span_str(examples[i].common)))
            fail_msg("'%s': all begin with '" SPAN_FMT "'", examples[i].prefix, SPAN_ARG(f.common));
        names_filter_free(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images),
        cmocka_unit_test(what_is_not_found),
        cmocka_unit_test(rules_of_repositories),
        cmocka_unit_test(filters),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
