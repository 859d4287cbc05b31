/* Token servers' answers, and the questions to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "registry/token.h"

#define NOW 1769860800000 /* 2026-01-31T12:00:00Z */
#define S   1000
#define DAY (86400 * S)

static bool answer(struct span json, struct token_answer *out, char why[256])
{
    struct str w = str_init(why, 256);
    char *copy = mem_alloc(json.n + 1); /* no byte behind it */
    memcpy(copy + 1, json.p, json.n);
    bool ok = token_answer_read(span_of(copy + 1, json.n), NOW, out, &w);
    mem_free(copy);
    assert_false(w.cut);
    return ok;
}

static void tokens(void **state)
{
    UNUSED(state);
    static const struct {
        struct span json;
        const char *token, *refresh;
    } cases[] = {
        {SPAN("{\"token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"access_token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":\"abc\",\"access_token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"access_token\":\"no\",\"token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":\"\",\"access_token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":null,\"access_token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":5,\"access_token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":[\"no\"],\"access_token\":\"abc\"}"), "abc", NULL},
        {SPAN(" \r\n{ \"token\" : \"abc\" , \"x\" : {\"token\":\"no\"} }\n"), "abc", NULL},
        {SPAN("{\"x\":[{\"token\":\"no\"},\"}\"],\"token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":\"first\",\"token\":\"abc\"}"), "abc", NULL},
        {SPAN("{\"token\":\"a\\/b\\u002Bc\\u002e\\\"\\\\=\"}"), "a/b+c.\"\\=", NULL},
        {SPAN("{\"token\":\"abc\",\"refresh_token\":\"r\\/t\"}"), "abc", "r/t"},
        {SPAN("{\"token\":\"abc\",\"refresh_token\":\"\"}"), "abc", NULL},
        {SPAN("{\"token\":\"abc\",\"refresh_token\":7}"), "abc", NULL},
        {SPAN("{\"token\":\"abc\",\"refresh_token\":\"a b\"}"), "abc", NULL},
        {SPAN("{\"Token\":\"no\",\"token\":\"abc\"}"), "abc", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct token_answer a;
        char why[256];
        assert_true(answer(cases[i].json, &a, why));
        assert_string_equal(a.token, cases[i].token);
        if (cases[i].refresh == NULL)
            assert_null(a.refresh_token);
        else
            assert_string_equal(a.refresh_token, cases[i].refresh);
        assert_int_equal(a.life_ms, TOKEN_LIFE_DEFAULT * S);
        assert_string_equal(why, "");
        token_answer_free(&a);
        assert_null(a.token);
        assert_null(a.refresh_token);
        token_answer_free(&a);
    }
}

static void what_is_no_answer(void **state)
{
    UNUSED(state);
    static const struct {
        struct span json;
        const char *why; /* a part of it */
    } cases[] = {
        {SPAN(""), "no JSON object"},
        {SPAN("<html>secret</html>"), "no JSON object"},
        {SPAN("\"secret\""), "no JSON object"},
        {SPAN("[{\"token\":\"secret\"}]"), "no JSON object"},
        {SPAN("{\"token\":\"secret\""), "no JSON object"},
        {SPAN("{\"token\":\"secret\"}x"), "no JSON object"},
        {SPAN("{\"token\":\"secret\"}{\"token\":\"secret\"}"), "no JSON object"},
        {SPAN("{\"token\":\"secret"), "no JSON object"},
        {SPAN("{\"token\":\"secret\\"), "no JSON object"},
        {SPAN("{\"token\":\"secret\"}\0"), "no JSON object"},
        {SPAN("{}"), "neither \"token\" nor \"access_token\""},
        {SPAN("{\"token\":\"\"}"), "neither"},
        {SPAN("{\"token\":null}"), "neither"},
        {SPAN("{\"token\":true,\"access_token\":{\"a\":\"secret\"}}"), "neither"},
        {SPAN("{\"data\":{\"token\":\"secret\"}}"), "neither"},
        {SPAN("{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}"), "neither"},
        {SPAN("{\"token\":\"sec\\r\\nret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"sec\r\nret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"sec\\u000d\\u000aret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"sec ret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\u0020\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\u0000\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"sec\0ret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"sec\tret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"sec\\tret\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\x7f\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\xc3\xa9\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\u00e9\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\ud83d\\ude00\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\x41\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\u00\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\"secret\\u00g1\"}"), "cannot stand in a header"},
        {SPAN("{\"token\":\" \",\"access_token\":\"secret\"}"), "cannot stand in a header"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct token_answer a;
        char why[256];
        assert_false(answer(cases[i].json, &a, why));
        assert_non_null(strstr(why, cases[i].why));
        assert_null(strstr(why, "sec"));
        assert_null(a.token);
        assert_null(a.refresh_token);
    }
}

static void lives(void **state)
{
    UNUSED(state);
    static const struct {
        const char *members;
        int64_t ms;
    } cases[] = {
        {"\"expires_in\":300", 300 * S},
        {"\"expires_in\":\"300\"", 300 * S},
        {"\"expires_in\":300.9", 300 * S},
        {"\"expires_in\":\"3599\"", 3599 * S},
        {"\"expires_in\":61", 61 * S},
        {"\"expires_in\":60", 60 * S},
        {"\"expires_in\":59", 60 * S},
        {"\"expires_in\":1", 60 * S},
        {"\"expires_in\":0", 60 * S},
        {"\"expires_in\":-300", 60 * S},
        {"\"expires_in\":\"-300\"", 60 * S},
        {"\"expires_in\":86400", DAY},
        {"\"expires_in\":86401", DAY},
        {"\"expires_in\":99999999999999999999999999999999", DAY},
        {"\"expires_in\":null", 60 * S},
        {"\"expires_in\":true", 60 * S},
        {"\"expires_in\":\"\"", 60 * S},
        {"\"expires_in\":\"soon\"", 60 * S},
        {"\"expires_in\":\"300s\"", 60 * S},
        {"\"expires_in\":1e9", 60 * S},
        {"\"expires_in\":[300]", 60 * S},
        {"\"expires_in\":600,\"expires_in\":300", 300 * S},
        /* issued_at shortens, and does nothing else */
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T12:00:00Z\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00Z\"", 240 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00.123456789Z\"", 240 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31t11:59:00z\"", 240 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31 11:59:00Z\"", 240 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T13:59:00+02:00\"", 240 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T06:29:00-05:30\"", 240 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:00:00Z\"", 60 * S},
        {"\"expires_in\":300,\"issued_at\":\"0001-01-01T00:00:00Z\"", 60 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T13:00:00Z\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"9999-12-31T23:59:59Z\"", 300 * S},
        {"\"expires_in\":999999,\"issued_at\":\"2026-01-31T11:59:00Z\"", DAY - 60 * S},
        {"\"issued_at\":\"2026-01-31T11:59:30Z\"", 60 * S},
        /* no such moment */
        {"\"expires_in\":300,\"issued_at\":\"\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":null", 300 * S},
        {"\"expires_in\":300,\"issued_at\":1769860740", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00Zx\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59Z\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-02-30T11:59:00Z\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T25:59:00Z\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00+24:00\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00+01:60\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"2026-01-31T11:59:00+01\"", 300 * S},
        {"\"expires_in\":300,\"issued_at\":\"Sat, 31 Jan 2026 11:59:00 GMT\"", 300 * S},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[256], why[256];
        struct str s = STR_INIT(buf);
        struct token_answer a;
        str_addf(&s, "{%s,\"token\":\"t\"}", cases[i].members);
        assert_true(answer(str_span(&s), &a, why));
        assert_int_equal(a.life_ms, cases[i].ms);
        token_answer_free(&a);
    }
}

/* {"token":"xxx...","pad":[[[...]]]}: a token of n bytes, an array nested `depth` deep, `spaces` behind it. */
static bool sized_answer(size_t n, size_t depth, size_t spaces, struct token_answer *a, char why[256])
{
    size_t cap = n + 2 * depth + spaces + 100;
    char *buf = mem_alloc(cap);
    struct str s = str_init(buf, cap);
    str_addz(&s, "{\"token\":\"");
    for (size_t i = 0; i < n; i++)
        str_addc(&s, 'x');
    str_addz(&s, "\",\"pad\":");
    for (size_t i = 0; i < depth; i++)
        str_addc(&s, '[');
    str_addc(&s, '1');
    for (size_t i = 0; i < depth; i++)
        str_addc(&s, ']');
    str_addc(&s, '}');
    for (size_t i = 0; i < spaces; i++)
        str_addc(&s, ' ');
    assert_false(s.cut);
    bool ok = answer(str_span(&s), a, why);
    mem_free(buf);
    return ok;
}

static void sizes(void **state)
{
    UNUSED(state);
    struct token_answer a;
    char why[256];
    assert_true(sized_answer(TOKEN_MAX, 0, 0, &a, why));
    assert_int_equal(strlen(a.token), TOKEN_MAX);
    token_answer_free(&a);
    assert_false(sized_answer(TOKEN_MAX + 1, 0, 0, &a, why));
    assert_non_null(strstr(why, "longer than 65536 bytes"));
    assert_true(sized_answer(10, 200, 0, &a, why));
    token_answer_free(&a);
    assert_false(sized_answer(10, 300, 0, &a, why));
    assert_false(sized_answer(10, 100000, 0, &a, why));
    size_t rest = sizeof "{\"token\":\"x\",\"pad\":1}" - 1;
    assert_true(sized_answer(1, 0, TOKEN_ANSWER_MAX - rest, &a, why));
    token_answer_free(&a);
    assert_false(sized_answer(1, 0, TOKEN_ANSWER_MAX - rest + 1, &a, why));
    assert_non_null(strstr(why, "larger than 262144 bytes"));
    assert_false(sized_answer(1, 0, 1 << 20, &a, why));
}

static void questions(void **state)
{
    UNUSED(state);
    char buf[512];
    struct str s = STR_INIT(buf);
    token_scope(SPAN("library/nginx"), &s);
    assert_string_equal(buf, "repository:library/nginx:pull");

    struct span scope = SPAN("repository:a/b:pull"), none = SPAN_NONE;
    static const struct {
        struct span query, service, account;
        const char *text;
    } cases[] = {
        {SPAN_NONE, SPAN("registry.docker.io"), SPAN_NONE,
         "?service=registry.docker.io&scope=repository%3Aa%2Fb%3Apull"},
        {SPAN_NONE, SPAN_NONE, SPAN_NONE, "?scope=repository%3Aa%2Fb%3Apull"},
        {SPAN_NONE, SPAN(""), SPAN_NONE, "?service=&scope=repository%3Aa%2Fb%3Apull"},
        {SPAN("x=1"), SPAN("s t"), SPAN("me@x"),
         "&service=s%20t&scope=repository%3Aa%2Fb%3Apull&account=me%40x"},
        {SPAN("x=1"), SPAN_NONE, SPAN_NONE, "&scope=repository%3Aa%2Fb%3Apull"},
        {SPAN(""), SPAN("s"), SPAN_NONE, "service=s&scope=repository%3Aa%2Fb%3Apull"},
        {SPAN(""), SPAN_NONE, SPAN("me"), "scope=repository%3Aa%2Fb%3Apull&account=me"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        str_reset(&s);
        token_query(cases[i].query, cases[i].service, scope, cases[i].account, &s);
        assert_string_equal(buf, cases[i].text);
    }
    str_reset(&s);
    token_form(SPAN("s"), scope, SPAN("me"), SPAN("p&w=d +%"), none, &s);
    assert_string_equal(buf, "grant_type=password&username=me&password=p%26w%3Dd%20%2B%25&service=s&scope="
                             "repository%3Aa%2Fb%3Apull&client_id=larder");
    str_reset(&s);
    token_form(none, scope, SPAN("me"), SPAN("pw"), SPAN("r/t"), &s);
    assert_string_equal(buf, "grant_type=refresh_token&refresh_token=r%2Ft&scope=repository%3Aa%2Fb%3Apull&"
                             "client_id=larder");
}

static void escapes(void **state)
{
    UNUSED(state);
    char buf[1024];
    struct str s = STR_INIT(buf);
    token_escape(SPAN("azAZ09-._~"), &s);
    assert_string_equal(buf, "azAZ09-._~");
    str_reset(&s);
    token_escape(SPAN("\0 \r\n+&=%/:?#\"\x7f\xff"), &s);
    assert_string_equal(buf, "%00%20%0D%0A%2B%26%3D%25%2F%3A%3F%23%22%7F%FF");
    struct str tight = str_init(buf, 3);
    token_escape(SPAN("a "), &tight);
    assert_true(tight.cut);
}

static void basic(void **state)
{
    UNUSED(state);
    static const struct {
        struct span user, password;
        const char *text;
    } cases[] = {
        {SPAN("Aladdin"), SPAN("open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
        {SPAN("test"), SPAN("123\xc2\xa3"), "Basic dGVzdDoxMjPCow=="},
        {SPAN(""), SPAN(""), "Basic Og=="},
        {SPAN("a"), SPAN(""), "Basic YTo="},
        {SPAN(""), SPAN("ab"), "Basic OmFi"},
        {SPAN("AWS"), SPAN("\0\xff\xfe"), "Basic QVdTOgD//g=="},
        {SPAN("abc"), SPAN("de"), "Basic YWJjOmRl"},
        {SPAN("abc"), SPAN("def"), "Basic YWJjOmRlZg=="},
        {SPAN("abc"), SPAN("defg"), "Basic YWJjOmRlZmc="},
        {SPAN("0123456789012345678901234567890123456789"), SPAN("abcdefg"), /* 48 bytes */
         "Basic MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTphYmNkZWZn"},
        {SPAN("0123456789012345678901234567890123456789"), SPAN("abcdefgh"),
         "Basic MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTphYmNkZWZnaA=="},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[128];
        struct str s = STR_INIT(buf);
        token_basic(cases[i].user, cases[i].password, &s);
        assert_string_equal(buf, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens), cmocka_unit_test(what_is_no_answer), cmocka_unit_test(lives),
        cmocka_unit_test(sizes),  cmocka_unit_test(questions),         cmocka_unit_test(escapes),
        cmocka_unit_test(basic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
