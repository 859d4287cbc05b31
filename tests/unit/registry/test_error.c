/* Error bodies are valid JSON whatever the detail is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "registry/error.h"

static void expect(int err, struct span detail, const char *body)
{
    char buf[ERROR_BODY_MAX];
    struct str out = STR_INIT(buf);
    error_body(&out, err, detail);
    assert_false(out.cut);
    assert_string_equal(buf, body);
}

static void words_and_detail(void **state)
{
    UNUSED(state);
    expect(ERR_BLOB_UNKNOWN, SPAN_NONE,
           "{\"errors\":[{\"code\":\"BLOB_UNKNOWN\",\"message\":\"blob unknown to the upstream registry\","
           "\"detail\":null}]}");
    expect(ERR_TOO_MANY, SPAN("rule hub"),
           "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"the upstream registry limits requests: "
           "rule hub\","
           "\"detail\":null}]}");
    expect(ERR_DENIED, SPAN(""),
           "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"the upstream registry refused "
           "access\",\"detail\":null}]}");
    expect(ERR_METHOD, SPAN("a\"b\\c\n\x01"),
           "{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"this registry is a read-only cache: "
           "a\\\"b\\\\c\\n\\u0001\",\"detail\":null}]}");
}

/* The message of a body that has to be JSON; the caller frees the document. */
static const char *message_of(struct span body, json_t **doc)
{
    const char *code, *message;
    json_t *detail;
    json_error_t error;
    *doc = json_loadb(body.p, body.n, 0, &error);
    if (*doc == NULL)
        fail_msg("not JSON: " SPAN_FMT, SPAN_ARG(body));
    assert_int_equal(json_unpack(*doc, "{s:[{s:s,s:s,s:o!}]!}", "errors", "code", &code, "message", &message,
                                 "detail", &detail),
                     0);
    assert_true(json_is_null(detail));
    return message;
}

static void every_error_and_every_length_fits(void **state)
{
    UNUSED(state);
    static const char *fills[] = {"a", "\x01", "\xff", "\xe2\x82\xac", "\""};
    char detail[3000], buf[ERROR_BODY_MAX];
    for (size_t f = 0; f < ARRAY_LEN(fills); f++) {
        size_t unit = strlen(fills[f]);
        for (size_t i = 0; i + unit <= sizeof(detail); i += unit)
            memcpy(detail + i, fills[f], unit);
        for (size_t n = 0; n <= sizeof(detail); n += unit * 25) {
            struct str out = STR_INIT(buf);
            json_t *doc;
            error_body(&out, (int)(n % ERR_COUNT), span_of(detail, n));
            assert_false(out.cut);
            const char *message = message_of(str_span(&out), &doc);
            if (n > 1000)
                assert_string_equal(message + strlen(message) - 3, "...");
            json_decref(doc);
        }
    }
}

static void a_cut_keeps_characters_whole(void **state)
{
    UNUSED(state);
    char detail[1500], buf[ERROR_BODY_MAX];
    for (size_t shift = 0; shift < 3; shift++) {
        struct str out = STR_INIT(buf);
        memset(detail, 'a', shift);
        for (size_t i = shift; i + 3 <= sizeof(detail); i += 3)
            memcpy(detail + i, "\xe2\x82\xac", 3);
        error_body(&out, ERR_DENIED, span_of(detail, 1200));
        assert_null(strstr(buf, "\xef\xbf\xbd"));
        assert_non_null(strstr(buf, "\xe2\x82\xac...\""));
    }
}

static void a_rule_name_of_full_length_is_not_cut(void **state)
{
    UNUSED(state);
    char detail[255], buf[ERROR_BODY_MAX];
    memset(detail, 'n', sizeof(detail));
    for (int err = 0; err < ERR_COUNT; err++) {
        struct str out = STR_INIT(buf);
        error_body(&out, err, span_of(detail, sizeof(detail)));
        assert_null(strstr(buf, "..."));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_detail),
        cmocka_unit_test(every_error_and_every_length_fits),
        cmocka_unit_test(a_cut_keeps_characters_whole),
        cmocka_unit_test(a_rule_name_of_full_length_is_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
