/* Docker's config.json and its credential helpers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "registry/docker_config.h"

static char room_text[4096], why_text[256];
static struct docker_credentials found;

static bool find(const char *doc, const char *registry)
{
    struct str room = STR_INIT(room_text), why = STR_INIT(why_text);
    return docker_config_find(span_str(doc), span_str(registry), &room, &found, &why);
}

static void is(struct span s, const char *text)
{
    assert_int_equal(s.n, strlen(text));
    assert_memory_equal(s.p, text, s.n);
}

static void expect(const char *doc, const char *registry, const char *user, const char *password)
{
    if (!find(doc, registry))
        fail_msg("%s in %s: %s", registry, doc, why_text);
    is(found.user, user);
    is(found.password, password);
    assert_null(found.helper.p);
    assert_null(found.refresh_token.p);
}

static void refuse(const char *doc, const char *registry, const char *why)
{
    if (find(doc, registry))
        fail_msg("%s found in %s", registry, doc);
    if (strstr(why_text, why) == NULL)
        fail_msg("'%s' does not say '%s'", why_text, why);
}

/* dTpw is u:p, YTpiOmM= is a:b:c */

static void test_spellings(void **state)
{
    (void)state;
    static const char *const hub[] = {"https://index.docker.io/v1/",
                                      "https:\\/\\/index.docker.io\\/v1\\/",
                                      "https://index.docker.io/v1",
                                      "index.docker.io",
                                      "docker.io",
                                      "registry-1.docker.io",
                                      "https://registry-1.docker.io/v2/",
                                      "index.docker.io/v1/"};
    static const char *const other[] = {"r.example:8443", "https://r.example:8443",
                                        "http://r.example:8443/v1/", "https://r.example:8443/v2/some/thing",
                                        "R.Example:8443/v2/"};
    static const char *const not_other[] = {"r.example",           "r.example:8444",
                                            "xr.example:8443",     "r.example:8443.evil",
                                            "r.example:8443/team", "https://evil.example/r.example:8443"};
    char doc[256];
    for (size_t i = 0; i < ARRAY_LEN(hub); i++) {
        struct str s = STR_INIT(doc);
        str_addf(&s, "{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}", hub[i]);
        expect(doc, "docker.io", "u", "p");
    }
    for (size_t i = 0; i < ARRAY_LEN(other); i++) {
        struct str s = STR_INIT(doc);
        str_addf(&s, "{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}", other[i]);
        expect(doc, "r.example:8443", "u", "p");
    }
    for (size_t i = 0; i < ARRAY_LEN(not_other); i++) {
        struct str s = STR_INIT(doc);
        str_addf(&s, "{\"auths\":{\"%s\":{\"auth\":\"dTpw\"}}}", not_other[i]);
        refuse(doc, "r.example:8443", "no entry for r.example:8443");
    }
}

static void test_entries(void **state)
{
    (void)state;
    expect("{\"auths\":{\"a.example\":{\"auth\":\"YTpiOmM=\"}}}", "a.example", "a", "b:c");
    expect("{\"auths\":{\"a.example\":{\"auth\":\"YTpiOmM\"}}}", "a.example", "a",
           "b:c"); /* without padding */
    expect("{\"auths\":{\"a.example\":{\"auth\":\"YTpiAAA=\"}}}", "a.example", "a", "b"); /* NULs behind */
    expect("{\"auths\":{\"a.example\":{\"username\":\"us\\u0065r\",\"password\":\"p\\\"w\"}}}", "a.example",
           "user", "p\"w");
    expect("{\"auths\":{\"b.example\":{\"auth\":\"dTpw\"},\"a.example\":{\"auth\":\"YTpiOmM=\"}}}",
           "a.example", "a", "b:c");
    /* of two spellings the one that says something */
    expect("{\"auths\":{\"docker.io\":{},\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"}}}", "docker.io",
           "u", "p");
    expect("{\"a.example\":{\"auth\":\"dTpw\",\"email\":\"x\"}}", "a.example", "u", "p"); /* .dockercfg */
}

static void test_identity_token(void **state)
{
    (void)state;
    assert_true(
        find("{\"auths\":{\"a.example\":{\"auth\":\"dTo=\",\"identitytoken\":\"idt\"}}}", "a.example"));
    is(found.refresh_token, "idt");
    is(found.user, "u");
    assert_true(find("{\"auths\":{\"a.example\":{\"identitytoken\":\"idt\"}}}", "a.example"));
    is(found.refresh_token, "idt");
}

static void test_helpers(void **state)
{
    (void)state;
    const char *doc =
        "{\"auths\":{\"b.example\":{},\"c.example\":{\"auth\":\"dTpw\"},\"a.example\":{\"auth\":\"dTpw\"}},"
        "\"credHelpers\":{\"a.example\":\"ecr-login\"},\"credsStore\":\"desktop\"}";
    assert_true(find(doc, "a.example"));
    is(found.helper, "ecr-login");
    assert_true(find(doc, "b.example"));
    is(found.helper, "desktop");
    assert_true(find(doc, "d.example"));
    is(found.helper, "desktop");
    expect(doc, "c.example", "u", "p");
    refuse("{\"credsStore\":\"../bin/x\"}", "a.example", "cannot be a program's name");
    refuse("{\"credHelpers\":{\"a.example\":\"a b\"}}", "a.example", "cannot be a program's name");
}

static void test_faults(void **state)
{
    (void)state;
    refuse("", "a.example", "not a JSON object");
    refuse("[]", "a.example", "not a JSON object");
    refuse("{\"auths\":{\"a.example\":{\"auth\":\"dTpw\"}}", "a.example", "not a JSON object");
    refuse("{}", "a.example", "no entry");
    refuse("{\"auths\":{\"a.example\":{}}}", "a.example", "is empty");
    refuse("{\"auths\":{\"a.example\":7}}", "a.example", "is empty");
    refuse("{\"auths\":{\"a.example\":{\"auth\":\"dXA=\"}}}", "a.example", "base64"); /* no colon */
    refuse("{\"auths\":{\"a.example\":{\"auth\":\"d Tpw\"}}}", "a.example", "base64");
    refuse("{\"auths\":{\"a.example\":{\"auth\":\"dTpwA\"}}}", "a.example", "base64");
    refuse("{\"auths\":{\"a.example\":{\"auth\":\"dTo=\"}}}", "a.example", "no user and password");
    refuse("{\"auths\":{\"a.example\":{\"username\":\"u\"}}}", "a.example", "no user and password");
    refuse("{\"auths\":{\"a.example\":{\"identitytoken\":\"\\q\"}}}", "a.example", "not valid JSON");
}

static bool helper(const char *doc)
{
    struct str room = STR_INIT(room_text), why = STR_INIT(why_text);
    return docker_helper_read(span_str(doc), &room, &found, &why);
}

static void test_helper_answers(void **state)
{
    (void)state;
    assert_true(helper("{\"ServerURL\":\"a\",\"Username\":\"u\",\"Secret\":\"s:\\n\"}\n"));
    is(found.user, "u");
    is(found.password, "s:\n");
    assert_null(found.refresh_token.p);
    assert_true(helper("{\"Username\":\"<token>\",\"Secret\":\"idt\"}"));
    is(found.refresh_token, "idt");
    assert_null(found.user.p);
    assert_null(found.password.p);
    assert_false(helper("{\"Username\":\"u\",\"Secret\":\"\"}"));
    assert_false(helper("{\"Username\":\"u\"}"));
    assert_false(helper("{\"Username\":\"u\",\"Secret\":\"\\x\"}"));
    assert_false(helper("credentials not found"));
    assert_false(helper(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),      cmocka_unit_test(test_entries),
        cmocka_unit_test(test_identity_token), cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_faults),         cmocka_unit_test(test_helper_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
