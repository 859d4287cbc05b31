/* WWW-Authenticate fields, as they are and as they should not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "registry/challenge.h"

#define BEARER CHALLENGE_BEARER
#define BASIC  CHALLENGE_BASIC
#define NONE   CHALLENGE_NONE

struct expected {
    struct span field;
    enum challenge_scheme scheme;
    const char *realm, *service; /* service NULL: has none */
};

static void check(const struct challenge *c, const struct expected *e)
{
    assert_int_equal(c->scheme, e->scheme);
    if (e->scheme != BEARER)
        return;
    assert_string_equal(c->realm, e->realm);
    assert_int_equal(c->has_service, e->service != NULL);
    assert_string_equal(c->service, e->service != NULL ? e->service : "");
}

static void check_all(const struct expected *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct challenge c = {0};
        /* a copy without a byte behind it, so that the sanitizer sees what is read too far */
        char *copy = mem_alloc(cases[i].field.n + 1);
        memcpy(copy + 1, cases[i].field.p, cases[i].field.n);
        challenge_read(&c, span_of(copy + 1, cases[i].field.n));
        mem_free(copy);
        check(&c, &cases[i]);
    }
}

static void what_registries_send(void **state)
{
    UNUSED(state);
    static const struct expected cases[] = {
        {SPAN("Bearer "
              "realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:"
              "library/nginx:pull\""),
         BEARER, "https://auth.docker.io/token", "registry.docker.io"},
        {SPAN("Bearer "
              "realm=\"https://ghcr.io/token\",service=\"ghcr.io\",scope=\"repository:user/image:pull\""),
         BEARER, "https://ghcr.io/token", "ghcr.io"},
        {SPAN("Bearer realm=\"https://nvcr.io/proxy_auth\",scope=\"\""), BEARER, "https://nvcr.io/proxy_auth",
         NULL},
        {SPAN("Bearer realm=\"https://us-docker.pkg.dev/v2/token\""), BEARER,
         "https://us-docker.pkg.dev/v2/token", NULL},
        {SPAN("Bearer realm=\"https://r.azurecr.io/oauth2/"
              "token\",service=\"r.azurecr.io\",scope=\"repository:a:pull,push\",error=\"invalid_token\""),
         BEARER, "https://r.azurecr.io/oauth2/token", "r.azurecr.io"},
        {SPAN("Basic realm=\"https://1.dkr.ecr.eu-west-1.amazonaws.com/\",service=\"ecr.amazonaws.com\""),
         BASIC, NULL, NULL},
        {SPAN("Bearer realm=\"https://a.example/token?x=1,2\""), BEARER, "https://a.example/token?x=1,2",
         NULL},
    };
    check_all(cases, ARRAY_LEN(cases));
}

static void the_grammar(void **state)
{
    UNUSED(state);
    static const struct expected cases[] = {
        /* case, blanks, empty list elements */
        {SPAN("bearer REALM=\"r\",Service=\"s\""), BEARER, "r", "s"},
        {SPAN("BEARER realm=\"r\""), BEARER, "r", NULL},
        {SPAN(" \t Bearer \t realm \t= \t\"r\" \t, \tservice = s \t"), BEARER, "r", "s"},
        {SPAN(",, ,Bearer realm=r,, ,service=s,,"), BEARER, "r", "s"},
        {SPAN("Bearer ,realm=r"), BEARER, "r", NULL},
        {SPAN("Bearer,realm=r"), BEARER, "r", NULL},
        /* tokens and quoted strings */
        {SPAN("Bearer realm=a.b-c_d~!#$%&'*+^`|9"), BEARER, "a.b-c_d~!#$%&'*+^`|9", NULL},
        {SPAN("Bearer realm=\"a\\\"b\\\\c\\d\""), BEARER, "a\"b\\cd", NULL},
        {SPAN("Bearer realm=\"r\",service=\"\""), BEARER, "r", ""},
        {SPAN("Bearer realm=\"a\tb\xe9\""), BEARER, "a\tb\xe9", NULL},
        {SPAN("Bearer scope=\"repository:a:pull,push repository:b:pull, realm=no\",realm=\"r\""), BEARER, "r",
         NULL},
        {SPAN("Bearer x=\"Basic realm=\\\"no\\\", Bearer realm=no\",realm=\"r\""), BEARER, "r", NULL},
        /* several challenges */
        {SPAN("Basic realm=\"b\", Bearer realm=\"r\",service=\"s\""), BEARER, "r", "s"},
        {SPAN("Bearer realm=\"r\",service=\"s\", Basic realm=\"b\""), BEARER, "r", "s"},
        {SPAN("Bearer realm=\"r\", Bearer realm=\"second\",service=\"s\""), BEARER, "r", NULL},
        {SPAN("Negotiate, Bearer realm=\"r\""), BEARER, "r", NULL},
        {SPAN("Negotiate YII/a+b.c==, Bearer realm=\"r\""), BEARER, "r", NULL},
        {SPAN("NTLM abc==  ,Basic realm=\"b\""), BASIC, NULL, NULL},
        {SPAN("Digest realm=\"d\",nonce=\"n\",qop=\"auth,auth-int\", Bearer realm=\"r\""), BEARER, "r", NULL},
        {SPAN("Digest realm=\"d\", Basic realm=\"b\",charset=\"UTF-8\""), BASIC, NULL, NULL},
        {SPAN("Basic"), BASIC, NULL, NULL},
        {SPAN("Basic, Negotiate"), BASIC, NULL, NULL},
        {SPAN("Basic abc=="), BASIC, NULL, NULL},
    };
    check_all(cases, ARRAY_LEN(cases));
}

static void malformed_challenges_are_passed_over(void **state)
{
    UNUSED(state);
    static const struct expected cases[] = {
        {SPAN(""), NONE, NULL, NULL},
        {SPAN(" ,\t, "), NONE, NULL, NULL},
        {SPAN("realm=\"r\""), NONE, NULL, NULL},
        {SPAN("Bearer"), NONE, NULL, NULL},
        {SPAN("Bearer realm"), NONE, NULL, NULL},
        {SPAN("Bearer realm="), NONE, NULL, NULL},
        {SPAN("Bearer realm=,service=s"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"\""), NONE, NULL, NULL},
        {SPAN("Bearer service=\"s\",scope=\"x\""), NONE, NULL, NULL},
        {SPAN("Bearerrealm=\"r\""), NONE, NULL, NULL},
        {SPAN("Bearer\"r\""), NONE, NULL, NULL},
        {SPAN("Bearer=\"r\""), NONE, NULL, NULL},
        {SPAN("Bearer/1 realm=\"r\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=https://a.example/token"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\" service=\"s\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\";service=\"s\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\"x"), NONE, NULL, NULL},
        {SPAN("Bearer realm='r s'"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\",realm=\"r\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\",REALM=\"other\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\",scope=\"a\",scope=\"b\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\\"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\\\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\",scope=\"a-scope-that-is-longer-than-what-is-kept-of-it"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\",scope=\"a-scope-that-is-longer-than-what-is-kept-of-it\x01\""), NONE, NULL,
         NULL},
        {SPAN("Bearer realm=\"r\0x\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\\\0\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=r\0"), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\r\n\""), NONE, NULL, NULL},
        {SPAN("Bearer realm=\"r\x7f\""), NONE, NULL, NULL},
        {SPAN("\0Bearer realm=r"), NONE, NULL, NULL},
        {SPAN("Bearer Basic realm=\"b\""), NONE, NULL, NULL},
        {SPAN("\xff\xfe"), NONE, NULL, NULL},
        /* ... and the next one is found */
        {SPAN("Bearer realm=\"x\"y, Bearer realm=\"r\""), BEARER, "r", NULL},
        {SPAN("Bearer realm=\"a\",realm=\"b\", Bearer realm=\"r\",service=\"s\""), BEARER, "r", "s"},
        {SPAN("Bearer service=\"no realm\", Basic realm=\"b\""), BASIC, NULL, NULL},
        {SPAN("@@ \"a, Bearer realm=no\" @, Bearer realm=r"), BEARER, "r", NULL},
        {SPAN("Bearer @, realm=r"), NONE, NULL, NULL},
        {SPAN("Basic realm=\"b\", Bearer realm=\"open"), BASIC, NULL, NULL},
        {SPAN("Basic realm=\"b\",realm=\"b\", Negotiate"), NONE, NULL, NULL},
    };
    check_all(cases, ARRAY_LEN(cases));
}

static void several_fields_keep_the_best(void **state)
{
    UNUSED(state);
    struct challenge c = {0};
    challenge_read(&c, SPAN("Negotiate"));
    challenge_read(&c, SPAN("Bearer realm=\"bad"));
    assert_int_equal(c.scheme, NONE);
    challenge_read(&c, SPAN("Basic realm=\"b\",service=\"no\""));
    assert_int_equal(c.scheme, BASIC);
    assert_false(c.has_service);
    challenge_read(&c, SPAN("Bearer realm=\"r\",error=\"invalid_token\""));
    challenge_read(&c, SPAN("Bearer realm=\"second\",service=\"s\",error=\"insufficient_scope\""));
    challenge_read(&c, SPAN("Basic realm=\"b\""));
    check(&c, &(struct expected){SPAN_NONE, BEARER, "r", NULL});
    assert_true(c.invalid_token);
    assert_false(c.insufficient_scope);
    /* parameters do not go over from one field to the next */
    struct challenge two = {0};
    challenge_read(&two, SPAN("Bearer"));
    challenge_read(&two, SPAN("realm=\"r\""));
    assert_int_equal(two.scheme, NONE);
}

static void reasons(void **state)
{
    UNUSED(state);
    static const struct {
        struct span field;
        bool invalid, insufficient;
    } cases[] = {
        {SPAN("Bearer realm=r"), false, false},
        {SPAN("Bearer realm=r,error=\"invalid_token\""), true, false},
        {SPAN("Bearer realm=r,ERROR=invalid_token"), true, false},
        {SPAN("Bearer error=\"insufficient_scope\",realm=r"), false, true},
        {SPAN("Bearer realm=r,error=\"other\""), false, false},
        {SPAN("Bearer realm=r,error=\"\""), false, false},
        {SPAN("Bearer realm=r,error=\"insufficient_scope_and_a_long_word_behind_it\""), false, false},
        {SPAN("Bearer error=\"invalid_token\", Bearer realm=r"), false, false},
        {SPAN("Basic realm=b,error=\"invalid_token\""), false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct challenge c = {0};
        challenge_read(&c, cases[i].field);
        assert_int_not_equal(c.scheme, NONE);
        assert_int_equal(c.invalid_token, cases[i].invalid);
        assert_int_equal(c.insufficient_scope, cases[i].insufficient);
    }
}

/* before + n times "x" + after */
static void long_value(const char *before, size_t n, const char *after, struct challenge *c)
{
    size_t cap = n + 200;
    char *buf = mem_alloc(cap);
    struct str s = str_init(buf, cap);
    str_addz(&s, before);
    for (size_t i = 0; i < n; i++)
        str_addc(&s, 'x');
    str_addz(&s, after);
    assert_false(s.cut);
    *c = (struct challenge){0};
    challenge_read(c, str_span(&s));
    mem_free(buf);
}

static void lengths(void **state)
{
    UNUSED(state);
    struct challenge c;
    long_value("Bearer realm=\"", CHALLENGE_REALM_MAX, "\"", &c);
    assert_int_equal(c.scheme, BEARER);
    assert_int_equal(strlen(c.realm), CHALLENGE_REALM_MAX);
    long_value("Bearer realm=\"", CHALLENGE_REALM_MAX + 1, "\"", &c);
    assert_int_equal(c.scheme, NONE);
    long_value("Bearer realm=", CHALLENGE_REALM_MAX + 1, ", Basic realm=b", &c);
    assert_int_equal(c.scheme, BASIC);
    long_value("Bearer realm=r,service=\"", CHALLENGE_SERVICE_MAX, "\"", &c);
    assert_int_equal(strlen(c.service), CHALLENGE_SERVICE_MAX);
    long_value("Bearer realm=r,service=\"", CHALLENGE_SERVICE_MAX + 1, "\"", &c);
    assert_int_equal(c.scheme, NONE);
    long_value("Bearer realm=r,scope=\"", 65536, "\"", &c);
    assert_int_equal(c.scheme, BEARER);
    long_value("Bearer realm=r,scope=\"", 65536, "", &c);
    assert_int_equal(c.scheme, NONE);
    long_value("", 65536, " realm=r, Bearer realm=r", &c);
    assert_int_equal(c.scheme, BEARER);
    long_value("Negotiate ", 65536, "==, Bearer realm=r", &c);
    assert_int_equal(c.scheme, BEARER);
}

static void many(void **state)
{
    UNUSED(state);
    static char buf[65536 + 64];
    struct str s = STR_INIT(buf);
    while (s.n < 65536)
        str_addz(&s, "a,b \",\",");
    str_addz(&s, "Bearer realm=r");
    struct challenge c = {0};
    challenge_read(&c, str_span(&s));
    assert_int_equal(c.scheme, BEARER);

    static const struct {
        unsigned parameters;
        enum challenge_scheme scheme;
    } cases[] = {{31, BEARER}, {32, NONE}, {5000, NONE}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        str_reset(&s);
        str_addz(&s, "Bearer realm=r");
        for (unsigned k = 0; k < cases[i].parameters; k++)
            str_addf(&s, ",p%u=1", k);
        c = (struct challenge){0};
        challenge_read(&c, str_span(&s));
        assert_int_equal(c.scheme, cases[i].scheme);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_registries_send),
        cmocka_unit_test(the_grammar),
        cmocka_unit_test(malformed_challenges_are_passed_over),
        cmocka_unit_test(several_fields_keep_the_best),
        cmocka_unit_test(reasons),
        cmocka_unit_test(lengths),
        cmocka_unit_test(many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
