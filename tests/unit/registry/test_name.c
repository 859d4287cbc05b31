/* Names: the grammars at their edges, and canonical forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "registry/name.h"

static struct span repeat(char *buf, char c, size_t n)
{
    memset(buf, c, n);
    return span_of(buf, n);
}

static void repo_accepts_the_grammar(void **state)
{
    UNUSED(state);
    static const char *good[] = {
        "nginx",
        "library/nginx",
        "a",
        "0",
        "a/b/c/d/e/f/g/h/i/j/k/l",
        "blobs",
        "manifests/v2",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "a-----b",
        "a.b_c__d-e",
        "foo/blobs/uploads",
        "1.2/3-4",
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (!name_repo_ok(span_str(good[i])))
            fail_msg("refused: %s", good[i]);
    }
}

static void repo_refuses_the_rest(void **state)
{
    UNUSED(state);
    static const char *bad[] = {
        "",    "/",   "/a",    "a/",   "a//b", "A",   "aB/c",     "a..b", "a___b",  "a._b",  "a.-b",
        "-a",  "a-",  ".a",    "a.",   "_a",   "a_",  "..",       "../a", "a/../b", "a/./b", "a:b",
        "a@b", "a b", "a%2fb", "a\\b", "a\nb", "a+b", "\xc3\xa9", "a/-b", "a/b-",   "a_-b",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (name_repo_ok(span_str(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_false(name_repo_ok(SPAN("a\0b")));
    assert_false(name_repo_ok(SPAN_NONE));
}

static void repo_length_is_limited(void **state)
{
    UNUSED(state);
    char buf[NAME_REPO_MAX + 1];
    assert_true(name_repo_ok(repeat(buf, 'a', NAME_REPO_MAX)));
    assert_false(name_repo_ok(repeat(buf, 'a', NAME_REPO_MAX + 1)));
}

static void tags(void **state)
{
    UNUSED(state);
    char buf[NAME_TAG_MAX + 1];
    static const char *good[] = {"latest",         "V1.2-rc_3", "_",   "0",
                                 "sha256-abc.sig", "a..b",      "a--", "manifests"};
    static const char *bad[] = {"", ".a", "-a", "a:b", "a/b", "a b", "a+b", "a@b", "\xc3\xa9", "a%41", "a\\"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (!name_tag_ok(span_str(good[i])))
            fail_msg("refused: %s", good[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (name_tag_ok(span_str(bad[i])))
            fail_msg("accepted: %s", bad[i]);
    }
    assert_true(name_tag_ok(repeat(buf, 'x', NAME_TAG_MAX)));
    assert_false(name_tag_ok(repeat(buf, 'x', NAME_TAG_MAX + 1)));
    assert_false(name_tag_ok(SPAN("a\0")));
}

/* canonical: NULL when it is not a registry name */
static const struct {
    const char *text, *canonical;
} registries[] = {
    {"docker.io", "docker.io"},
    {"Docker.IO", "docker.io"},
    {"index.docker.io", "docker.io"},
    {"registry-1.docker.io:443", "docker.io"},
    {"docker.io:444", "docker.io:444"},
    {"docker.io.evil.example", "docker.io.evil.example"},
    {"xdocker.io", "xdocker.io"},
    {"GHCR.io", "ghcr.io"},
    {"ghcr.io:443", "ghcr.io"},
    {"ghcr.io:0443", "ghcr.io"},
    {"localhost:5000", "localhost:5000"},
    {"localhost:05000", "localhost:5000"},
    {"registry", "registry"},
    {"10.0.0.1:80", "10.0.0.1:80"},
    {"[::1]:5000", "[::1]:5000"},
    {"[0:0:0:0:0:0:0:1]", "[::1]"},
    {"[2001:DB8::A]:443", "[2001:db8::a]"},
    {"[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"},
    {"a-b.c-d.example", "a-b.c-d.example"},
    {"3com.example", "3com.example"},
    {"", NULL},
    {":5000", NULL},
    {"a:", NULL},
    {"a:0", NULL},
    {"a:00", NULL},
    {"a:65536", NULL},
    {"a:99999999999", NULL},
    {"a:000080", NULL},
    {"a:8o", NULL},
    {"a:80:80", NULL},
    {"a:+80", NULL},
    {"a..b", NULL},
    {".a", NULL},
    {"a.", NULL},
    {"-a", NULL},
    {"a-", NULL},
    {"a.-b.c", NULL},
    {"a_b", NULL},
    {"a/b", NULL},
    {"user@host", NULL},
    {"host name", NULL},
    {"https://a", NULL},
    {"\xc3\xa9.example", NULL},
    {"127.1", NULL},
    {"256.0.0.1", NULL},
    {"0177.0.0.1", NULL},
    {"1.2.3.4.5", NULL},
    {"2130706433", NULL},
    {"::1", NULL},
    {"[::1", NULL},
    {"[]", NULL},
    {"[", NULL},
    {"[::1]x", NULL},
    {"[::1]:", NULL},
    {"[::1]:0", NULL},
    {"[fe80::1%eth0]", NULL},
    {"[1.2.3.4]", NULL},
    {"[a.example]", NULL},
};

static void registries_and_their_canonical_names(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(registries); i++) {
        char buf[NAME_REGISTRY_MAX + 1], again_buf[NAME_REGISTRY_MAX + 1];
        struct str out = STR_INIT(buf), again = STR_INIT(again_buf);
        struct span text = span_str(registries[i].text);
        bool ok = registries[i].canonical != NULL;
        if (name_registry_ok(text) != ok || name_registry_canonical(text, &out) != ok)
            fail_msg("%s: expected %s", registries[i].text, ok ? "a registry" : "a refusal");
        if (!ok)
            continue;
        assert_string_equal(buf, registries[i].canonical);
        assert_true(name_registry_canonical(str_span(&out), &again));
        assert_string_equal(again_buf, buf);
    }
    assert_false(name_registry_ok(SPAN_NONE));
    assert_false(name_registry_ok(SPAN("a\0b")));
    assert_false(name_registry_ok(SPAN("[::1\0]")));
}

static void registry_lengths(void **state)
{
    UNUSED(state);
    char host[300], buf[NAME_REGISTRY_MAX + 1], small[8];
    struct str s = STR_INIT(host), out = STR_INIT(buf), tight = STR_INIT(small);
    for (int i = 0; i < 4; i++)
        str_addf(&s, "%s%063d", i > 0 ? "." : "", 0);
    str_add(&s, SPAN(":65535"));
    host[254] = 'x'; /* the last label is not a number */
    assert_int_equal(s.n, NAME_REGISTRY_MAX);
    assert_true(name_registry_canonical(str_span(&s), &out));
    assert_string_equal(buf, host);
    str_reset(&s);
    str_addf(&s, "%064dx.example", 0);
    assert_false(name_registry_ok(str_span(&s)));
    assert_true(name_registry_canonical(SPAN("a.examp"), &tight));
    str_reset(&tight);
    assert_false(name_registry_canonical(SPAN("a.exampl"), &tight));
}

static void docker_hub_gets_library(void **state)
{
    UNUSED(state);
    static const struct {
        const char *registry, *repo, *canonical;
    } cases[] = {
        {"docker.io", "nginx", "library/nginx"},
        {"index.docker.io", "nginx", "library/nginx"},
        {"registry-1.docker.io:443", "nginx", "library/nginx"},
        {"DOCKER.IO", "nginx", "library/nginx"},
        {"docker.io", "library/nginx", "library/nginx"},
        {"docker.io", "org/team/app", "org/team/app"},
        {"docker.io:5000", "nginx", "nginx"},
        {"evil-docker.io", "nginx", "nginx"},
        {"ghcr.io", "nginx", "nginx"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[NAME_REPO_MAX + 1];
        struct str out = STR_INIT(buf);
        name_repo_canonical(span_str(cases[i].registry), span_str(cases[i].repo), &out);
        assert_string_equal(buf, cases[i].canonical);
    }
    assert_false(name_is_docker_hub(SPAN("docker.io.example")));
    assert_false(name_is_docker_hub(SPAN(":443")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repo_accepts_the_grammar),
        cmocka_unit_test(repo_refuses_the_rest),
        cmocka_unit_test(repo_length_is_limited),
        cmocka_unit_test(tags),
        cmocka_unit_test(registries_and_their_canonical_names),
        cmocka_unit_test(registry_lengths),
        cmocka_unit_test(docker_hub_gets_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
