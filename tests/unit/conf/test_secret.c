/* Secret references. */
#include "conf_test.h"

#include "conf/secret.h"

static void references(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *arg;
        enum conf_secret_kind kind;
    } good[] = {
        {"env:HUB_USER", "HUB_USER", SECRET_ENV},
        {"env:_x9", "_x9", SECRET_ENV},
        {"file:/run/secrets/hub-password", "/run/secrets/hub-password", SECRET_FILE},
        {"file:relative/path with blanks:and colons", "relative/path with blanks:and colons", SECRET_FILE},
        {"dockerconfig:/root/.docker/config.json", "/root/.docker/config.json", SECRET_DOCKERCONFIG},
        {"dockerconfig:x", "x", SECRET_DOCKERCONFIG},
        {"exec:ecr-login", "ecr-login", SECRET_EXEC},
        {"exec:Gcr_2.x", "Gcr_2.x", SECRET_EXEC},
        {"https://corp.vault.azure.net/secrets/hub-password", NULL, SECRET_VAULT},
        {"https://Corp-1.Vault.Azure.net/secrets/HubPassword/0123456789abcdef0123456789abcdef", NULL,
         SECRET_VAULT},
        {"https://corp.vault.azure.cn/secrets/a", NULL, SECRET_VAULT},
        {"https://corp.vault.usgovcloudapi.net/secrets/a", NULL, SECRET_VAULT},
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        for (int use = SECRET_USERNAME; use <= SECRET_PASSWORD; use++) {
            char buf[512];
            struct str why = STR_INIT(buf);
            struct conf_secret s = {.mark = {.line = 7}};
            assert_true(secret_parse(span_str(good[i].text), (enum secret_use)use, &s, &why));
            assert_int_equal(s.kind, good[i].kind);
            assert_true(span_eq(s.text, span_str(good[i].text)));
            assert_true(span_eq(s.arg, span_str(good[i].arg != NULL ? good[i].arg : good[i].text)));
            assert_int_equal(s.mark.line, 7);
            assert_int_equal(why.n, 0);
        }
    }
}

static void user_names(void **state)
{
    UNUSED(state);
    static const char *const names[] = {
        "me",  "$oauthtoken", "_json_key",       "00000000-0000-0000-0000-000000000000",
        "AWS", "robot$a+b",   "me@corp.example", "DOMAIN\\me",
        "a/b", "env",         "https",           "caf\xc3\xa9"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char buf[512];
        struct str why = STR_INIT(buf);
        struct conf_secret s;
        assert_true(secret_parse(span_str(names[i]), SECRET_USERNAME, &s, &why));
        assert_int_equal(s.kind, SECRET_TEXT);
        assert_true(span_eq(s.text, span_str(names[i])) && span_eq(s.arg, s.text));
        assert_false(secret_parse(span_str(names[i]), SECRET_PASSWORD, &s, &why));
        assert_non_null(
            strstr(buf, "a password does not stand in this file; write where it is: env:NAME, file:PATH"));
    }
}

/* `why` for a username and for a password; the text itself is in neither. */
static void mistakes(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *why, *of_password; /* NULL: the same */
    } bad[] = {
        {"evn:SECRET", "no secret reference; did you mean 'env:'?", NULL},
        {"ENV:SECRET", "did you mean 'env:'?", NULL},
        {"fil:/SECRET", "did you mean 'file:'?", NULL},
        {"File:SECRET", "did you mean 'file:'?", NULL},
        {"docker-config:SECRET", "did you mean 'dockerconfig:'?", NULL},
        {"dockerConfig:SECRET", "did you mean 'dockerconfig:'?", NULL},
        {"exce:SECRET", "did you mean 'exec:'?", NULL},
        {"http://corp.vault.azure.net/secrets/SECRET", "did you mean 'https:'?", NULL},
        {"HTTPS://corp.vault.azure.net/secrets/SECRET", "did you mean 'https:'?", NULL},
        {"me:SECRET", "a user name holds no ':'", "a password does not stand in this file"},
        {":SECRET", "a user name holds no ':'", "a password does not stand in this file"},
        {"SECRET:", "a user name holds no ':'", "a password does not stand in this file"},
        {"${SECRET}", "variables are not replaced in this file; write env:NAME", NULL},
        {"/run/SECRET", "looks like a path; write file: before it", NULL},
        {"env:", "behind env: stands the name of an environment variable", NULL},
        {"env:$SECRET", "is written without '$', as in env:HUB_PASSWORD", NULL},
        {"env:${SECRET}", "is written without '$'", NULL},
        {"env:9SECRET", "behind env: stands the name", NULL},
        {"env:A-SECRET", "behind env: stands the name", NULL},
        {"env: SECRET", "behind env: stands the name", NULL},
        {"env:A=SECRET", "behind env: stands the name", NULL},
        {"file:", "behind file: stands a path", NULL},
        {"file:///run/SECRET", "a path follows file: without '//'", NULL},
        {"dockerconfig:", "behind dockerconfig: stands a path", NULL},
        {"exec:", "behind exec: stands the name of a credential helper", NULL},
        {"exec:/usr/bin/SECRET", "not a path or command: exec:ecr-login runs docker-credential-ecr-login",
         NULL},
        {"exec:pass show SECRET", "not a path or command", NULL},
        {"exec:../SECRET", "not a path or command", NULL},
        {"exec:docker-credential-SECRET", "docker-credential- before the name by itself: leave it out", NULL},
        {"https:SECRET", "a URL here is one of Azure Key Vault: https://VAULT.vault.azure.net/secrets/SECRET",
         NULL},
        {"https://", "a URL here is one of Azure Key Vault", NULL},
        {"https://vault.azure.net/secrets/SECRET", "a URL here is one of", NULL},
        {"https://.vault.azure.net/secrets/SECRET", "a URL here is one of", NULL},
        {"https://a.b.vault.azure.net/secrets/SECRET", "a URL here is one of", NULL},
        {"https://me:SECRET@a.vault.azure.net/secrets/x", "a URL here is one of", NULL},
        {"https://a.vault.azure.net.example/secrets/SECRET", "a URL here is one of", NULL},
        {"https://a.vault.azure.net:443/secrets/SECRET", "a URL here is one of", NULL},
        {"https://a.vault.azure.net", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/secrets", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/secrets/", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/keys/SECRET", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/secrets/SECRET/", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/secrets/SECRET/1/2", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/secrets/SECRET?api-version=7.4", "a URL here is one of", NULL},
        {"https://a.vault.azure.net//secrets/SECRET", "a URL here is one of", NULL},
        {"https://a.vault.azure.net/secrets/../SECRET", "a URL here is one of", NULL},
        {"https://example.com/SECRET", "a URL here is one of", NULL},
        {"https://a.vault.microsoftazure.de/secrets/SECRET", "vault.microsoftazure.de has ended", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        for (int use = SECRET_USERNAME; use <= SECRET_PASSWORD; use++) {
            char buf[480];
            struct str why = STR_INIT(buf);
            struct conf_secret s;
            const char *want =
                use == SECRET_PASSWORD && bad[i].of_password != NULL ? bad[i].of_password : bad[i].why;
            if (secret_parse(span_str(bad[i].text), (enum secret_use)use, &s, &why) ||
                strstr(buf, want) == NULL)
                fail_msg("%s: %s", bad[i].text, buf);
            assert_false(why.cut);
            const char *shown = strstr(buf, "SECRET"); /* the examples in the hints have one */
            assert_true(shown == NULL || strstr(buf, "secrets/SECRET") != NULL);
            assert_null(strstr(buf, "me:"));
        }
    }
}

static void bytes_that_yaml_does_not_let_through(void **state)
{
    UNUSED(state);
    static const struct span bad[] = {SPAN("exec:a\0b"), SPAN("env:A\0"),
                                      SPAN("https://a.vault.azure.net/secrets/a\0"), SPAN(""), SPAN_NONE};
    char buf[512];
    struct str why = STR_INIT(buf);
    struct conf_secret s;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(secret_parse(bad[i], SECRET_PASSWORD, &s, &why));
}

static void long_names(void **state)
{
    UNUSED(state);
    static const struct {
        const char *before;
        size_t max;
    } cases[] = {{"exec:", 200}, {"https://a.vault.azure.net/secrets/", 127}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[512], buf[512];
        struct str t = STR_INIT(text), why = STR_INIT(buf);
        struct conf_secret s;
        str_addz(&t, cases[i].before);
        for (size_t n = 0; n < cases[i].max; n++)
            str_addc(&t, 'x');
        assert_true(secret_parse(str_span(&t), SECRET_PASSWORD, &s, &why));
        str_addc(&t, 'x');
        assert_false(secret_parse(str_span(&t), SECRET_PASSWORD, &s, &why));
    }
}

static void which_come_with_a_user(void **state)
{
    UNUSED(state);
    assert_true(secret_has_username(SECRET_DOCKERCONFIG) && secret_has_username(SECRET_EXEC));
    assert_false(secret_has_username(SECRET_ENV) || secret_has_username(SECRET_FILE) ||
                 secret_has_username(SECRET_VAULT) || secret_has_username(SECRET_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(references), cmocka_unit_test(user_names),
        cmocka_unit_test(mistakes),   cmocka_unit_test(bytes_that_yaml_does_not_let_through),
        cmocka_unit_test(long_names), cmocka_unit_test(which_come_with_a_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
