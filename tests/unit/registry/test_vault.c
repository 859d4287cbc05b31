/* Azure Key Vault: addresses, questions, answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "registry/vault.h"

static char text[2048];

#define TOLD(call)                                                                                           \
    do {                                                                                                     \
        struct str out = STR_INIT(text);                                                                     \
        call;                                                                                                \
        assert_false(out.cut);                                                                               \
    } while (0)

static void is(struct span s, const char *wanted)
{
    assert_int_equal(s.n, strlen(wanted));
    assert_memory_equal(s.p, wanted, s.n);
}

static void test_parse(void **state)
{
    (void)state;
    struct vault_ref r;
    assert_true(vault_parse(SPAN("https://corp-1.vault.azure.net/secrets/hub-password"), &r));
    is(r.host, "corp-1.vault.azure.net");
    is(r.path, "/secrets/hub-password");
    is(r.resource, "https://vault.azure.net");
    is(r.authority, "https://login.microsoftonline.com");
    assert_true(vault_parse(SPAN("https://v.vault.azure.cn/secrets/a/0123abc"), &r));
    is(r.path, "/secrets/a/0123abc");
    is(r.resource, "https://vault.azure.cn");
    is(r.authority, "https://login.partner.microsoftonline.cn");
    assert_true(vault_parse(SPAN("https://v.vault.usgovcloudapi.net/secrets/a"), &r));
    is(r.resource, "https://vault.usgovcloudapi.net");
    is(r.authority, "https://login.microsoftonline.us");
    static const char *const bad[] = {"",
                                      "http://v.vault.azure.net/secrets/a",
                                      "https://vault.azure.net/secrets/a",
                                      "https://.vault.azure.net/secrets/a",
                                      "https://v.vault.azure.net.evil.example/secrets/a",
                                      "https://evil.example/.vault.azure.net/secrets/a",
                                      "https://u@v.vault.azure.net/secrets/a",
                                      "https://v.vault.azure.net/keys/a",
                                      "https://v.vault.azure.net/secrets/",
                                      "https://v.vault.azure.net/secrets/a?x=y",
                                      "https://v.vault.azure.net/secrets/a\r\nX: y",
                                      "https://v.vault.azure.net"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (vault_parse(span_str(bad[i]), &r))
            fail_msg("accepted: %s", bad[i]);
    }
}

static void test_questions(void **state)
{
    (void)state;
    struct vault_ref r;
    assert_true(vault_parse(SPAN("https://v.vault.azure.net/secrets/a"), &r));
    TOLD(vault_secret_target(&r, &out));
    assert_string_equal(text, "/secrets/a?api-version=7.4");
    TOLD(vault_metadata_target(&r, SPAN_NONE, &out));
    assert_string_equal(text, "/metadata/identity/oauth2/token?api-version=2018-02-01"
                              "&resource=https%3A%2F%2Fvault.azure.net");
    TOLD(vault_metadata_target(&r, SPAN("id&1"), &out));
    assert_non_null(strstr(text, "&client_id=id%261"));
    TOLD(vault_exchange_target(SPAN("ten/ant"), &out));
    assert_string_equal(text, "/ten%2Fant/oauth2/v2.0/token");
    TOLD(vault_exchange_form(&r, SPAN("client"), SPAN("ey.J+="), &out));
    assert_string_equal(
        text, "grant_type=client_credentials&client_id=client&scope=https%3A%2F%2Fvault.azure.net%2F."
              "default&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-"
              "bearer&client_assertion=ey.J%2B%3D");
}

static void test_answers(void **state)
{
    (void)state;
    TOLD(assert_true(vault_read_secret(SPAN("{\"value\":\"p\\u0040ss\",\"id\":\"x\"}"), &out)));
    assert_string_equal(text, "p@ss");
    TOLD(assert_false(vault_read_secret(SPAN("{\"value\":\"\"}"), &out)));
    TOLD(assert_false(vault_read_secret(SPAN("{\"id\":\"x\"}"), &out)));
    TOLD(assert_false(vault_read_secret(SPAN("<html>"), &out)));
    TOLD(assert_true(vault_read_token(SPAN("{\"token_type\":\"Bearer\",\"access_token\":\"ey.x\"}"), &out)));
    assert_string_equal(text, "ey.x");
    TOLD(assert_false(vault_read_token(SPAN("{\"access_token\":\"a\\r\\nX: y\"}"), &out)));
    TOLD(assert_false(vault_read_token(SPAN("{\"access_token\":7}"), &out)));
}

static void test_errors(void **state)
{
    (void)state;
    TOLD(vault_add_error(SPAN("{\"error\":{\"code\":\"SecretNotFound\",\"message\":\"A secret ...\"}}"),
                         &out));
    assert_string_equal(text, "SecretNotFound");
    TOLD(vault_add_error(
        SPAN("{\"error\":\"invalid_client\",\"error_description\":\"AADSTS70021: No matching\"}"), &out));
    assert_string_equal(text, "invalid_client AADSTS70021");
    TOLD(vault_add_error(SPAN("{\"error\":\"<script>\",\"error_description\":\"the value was s3cret\"}"),
                         &out));
    assert_string_equal(text, "");
    TOLD(vault_add_error(SPAN("{\"error\":{\"code\":\"\"},\"x\":1}"), &out));
    assert_string_equal(text, "");
    TOLD(vault_add_error(SPAN("not json"), &out));
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parse), cmocka_unit_test(test_questions),
                                       cmocka_unit_test(test_answers), cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
