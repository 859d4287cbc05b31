/* Which token server may see credentials: the table of what is trusted. */
#include "proxy/realm.h"

#include "../base/test.h"

static const struct conf_endpoint hub[] = {
    {.tls = true, .host = {"registry-1.docker.io", 20}, .port = 443},
    {.tls = true, .host = {"mirror.corp.test", 16}, .port = 8443},
};
static const struct conf_endpoint plain[] = {{.tls = false, .host = {"127.0.0.1", 9}, .port = 5000}};
static const struct conf_endpoint realms[] = {
    {.tls = true, .host = {"auth.corp.test", 14}, .port = 443},
    {.tls = true, .host = {"10.1.2.3", 8}, .port = 8443},
    {.tls = false, .host = {"plain.corp.test", 15}, .port = 80},
};
static struct known_registry known_hub;

#define HUB        "https://registry-1.docker.io"
#define TRUSTED    REALM_CREDENTIALS
#define ANONYMOUS  REALM_ANONYMOUS
#define REFUSED    REALM_REFUSED
#define PUBLIC     ADDRESS_PUBLIC
#define LINK_LOCAL ADDRESS_SPECIAL

struct row {
    const char *origin; /* who challenges */
    enum address_kind peer;
    const char *realm;
    enum realm_trust trust;
    const char *why; /* a part of it */
};

/* With endpoints registry-1.docker.io and mirror.corp.test:8443, token_realms auth.corp.test, 10.1.2.3:8443 and http://plain.corp.test. */
static const struct row of_hub[] = {
    {HUB, PUBLIC, "https://registry-1.docker.io/token", TRUSTED, ""},
    {HUB, PUBLIC, "https://REGISTRY-1.docker.io:443/token?x=y", TRUSTED, ""},
    {HUB, PUBLIC, "https://mirror.corp.test:8443/token", TRUSTED, ""},
    {HUB, PUBLIC, "https://auth.docker.io/token", TRUSTED, ""}, /* the known pair */
    {HUB, PUBLIC, "https://Auth.Docker.io/", TRUSTED, ""},
    {HUB, PUBLIC, "https://auth.corp.test/realms/a", TRUSTED, ""},
    {HUB, PUBLIC, "https://10.1.2.3:8443/token", TRUSTED, ""}, /* the operator has named it */
    {"https://mirror.corp.test:8443", ADDRESS_PRIVATE, "https://auth.docker.io/token", TRUSTED, ""},
    /* look-alikes, other ports, other hosts */
    {HUB, PUBLIC, "https://auth.docker.io:8443/token", ANONYMOUS,
     "https://auth.docker.io:8443 is not trusted with"},
    {HUB, PUBLIC, "https://auth.docker.io.evil.test/token", ANONYMOUS, "auth.docker.io.evil.test"},
    {HUB, PUBLIC, "https://xauth.docker.io/token", ANONYMOUS, "token_realms"},
    {HUB, PUBLIC, "https://docker.io/token", ANONYMOUS, ""},
    {HUB, PUBLIC, "https://auth.docker.io./token", ANONYMOUS, ""},
    {HUB, PUBLIC, "https://mirror.corp.test/token", ANONYMOUS, ""},
    {HUB, PUBLIC, "https://registry-1.docker.io:444/token", ANONYMOUS, ""},
    {HUB, PUBLIC, "https://a.auth.corp.test/", ANONYMOUS, ""},
    {HUB, PUBLIC, "https://evil.test/registry-1.docker.io", ANONYMOUS, ""},
    {HUB, PUBLIC, "https://8.8.8.8/token", ANONYMOUS, ""},
    {HUB, ADDRESS_PRIVATE, "https://10.9.9.9/token", ANONYMOUS, ""},
    /* not https, although the registry is: also where it is named */
    {HUB, PUBLIC, "http://registry-1.docker.io/token", REFUSED,
     "http://registry-1.docker.io is not trusted: it is not https"},
    {HUB, PUBLIC, "http://auth.docker.io/token", REFUSED, "not https"},
    {HUB, PUBLIC, "http://plain.corp.test/token", REFUSED, "not https"},
    {HUB, PUBLIC, "http://evil.test/token", REFUSED, "not https"},
    /* led into a network */
    {HUB, PUBLIC, "https://169.254.169.254/latest", REFUSED,
     "https://169.254.169.254 is not trusted: it is an address"},
    {HUB, PUBLIC, "https://10.9.9.9/token", REFUSED, "a private address"},
    {HUB, PUBLIC, "https://127.0.0.1/token", REFUSED, "a loopback address"},
    {HUB, PUBLIC, "https://[::1]/token", REFUSED, "https://[::1] "},
    {HUB, PUBLIC, "https://[fd00::1]/token", REFUSED, "a private address"},
    {HUB, PUBLIC, "https://[::ffff:10.0.0.1]/token", REFUSED, "a private address"},
    {HUB, ADDRESS_PRIVATE, "https://127.0.0.1/token", REFUSED, "a loopback address"},
    {HUB, ADDRESS_LOOPBACK, "https://169.254.169.254/", REFUSED, ""},
    {HUB, LINK_LOCAL, "https://10.9.9.9/", REFUSED, ""},
    /* no URL */
    {HUB, PUBLIC, "", REFUSED, "not a usable URL"},
    {HUB, PUBLIC, "/token", REFUSED, ""},
    {HUB, PUBLIC, "ftp://auth.docker.io/token", REFUSED, ""},
    {HUB, PUBLIC, "https://user:password@auth.docker.io/token", REFUSED, "not a usable URL"},
    {HUB, PUBLIC, "https://auth.docker.io/#", REFUSED, ""},
    {HUB, PUBLIC, "https:///token", REFUSED, ""},
    {HUB, PUBLIC, "Registry Realm", REFUSED, ""},
    /* not what the endpoints are: a redirect has led there */
    {"https://cdn.test", PUBLIC, "https://registry-1.docker.io/token", ANONYMOUS, ""},
    {"https://cdn.test", PUBLIC, "https://auth.docker.io/token", ANONYMOUS, ""},
    {"https://cdn.test", PUBLIC, "https://auth.corp.test/", ANONYMOUS, ""},
    {"https://cdn.test", PUBLIC, "https://cdn.test/token", ANONYMOUS, ""},
    {"https://registry-1.docker.io:444", PUBLIC, "https://auth.docker.io/token", ANONYMOUS, ""},
    {"http://registry-1.docker.io", PUBLIC, "https://auth.docker.io/token", ANONYMOUS, ""},
    {"https://cdn.test", PUBLIC, "https://10.1.2.3:8443/token", REFUSED, "a private address"},
};

static const struct row of_plain[] = {
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "http://127.0.0.1:5000/token", TRUSTED, ""},
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "http://plain.corp.test/token", TRUSTED, ""},
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "https://auth.corp.test/token", TRUSTED, ""},
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "http://127.0.0.1:5001/token", ANONYMOUS, ""},
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "https://127.0.0.1:5000/token", ANONYMOUS, ""},
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "https://auth.docker.io/token", ANONYMOUS,
     ""}, /* credentials in clear brought us here */
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "http://10.0.0.1/token", ANONYMOUS, ""},
    {"http://127.0.0.1:5000", ADDRESS_LOOPBACK, "http://169.254.169.254/", REFUSED, ""},
};

static void try_rows(const struct conf_upstream *up, const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct url origin;
        struct realm realm;
        char text[256];
        struct str why = STR_INIT(text);
        assert_true(url_parse(span_str(rows[i].origin), &origin));
        enum realm_trust got = realm_judge(up, &origin, rows[i].peer, span_str(rows[i].realm), &realm, &why);
        if (got != rows[i].trust)
            fail_msg("%s at %s: %d, not %d", rows[i].realm, rows[i].origin, (int)got, (int)rows[i].trust);
        if ((got == TRUSTED) != (why.n == 0) || strstr(text, rows[i].why) == NULL)
            fail_msg("%s: \"%s\"", rows[i].realm, text);
        if (got == ANONYMOUS && !realm.guarded)
            fail_msg("%s: its address would not be looked at", rows[i].realm);
        assert_null(strstr(text, "password"));
    }
}

static void test_a_known_registry(void **state)
{
    UNUSED(state);
    struct conf_upstream up = {.registry = SPAN("docker.io"),
                               .endpoints = hub,
                               .n_endpoints = ARRAY_LEN(hub),
                               .token_realms = realms,
                               .n_token_realms = ARRAY_LEN(realms),
                               .known = &known_hub};
    known_hub.realm = SPAN("auth.docker.io");
    try_rows(&up, of_hub, ARRAY_LEN(of_hub));
}

static void test_a_plain_one(void **state)
{
    UNUSED(state);
    struct conf_upstream up = {.registry = SPAN("docker.io"),
                               .endpoints = plain,
                               .n_endpoints = ARRAY_LEN(plain),
                               .token_realms = realms,
                               .n_token_realms = ARRAY_LEN(realms),
                               .known = &known_hub};
    known_hub.realm = SPAN("auth.docker.io");
    try_rows(&up, of_plain, ARRAY_LEN(of_plain));
}

static void test_an_unknown_one(void **state)
{
    UNUSED(state);
    static const struct row rows[] = {
        {HUB, PUBLIC, "https://registry-1.docker.io/token", TRUSTED, ""},
        {HUB, PUBLIC, "https://auth.docker.io/token", ANONYMOUS, ""},
    };
    struct conf_upstream up = {.registry = SPAN("registry-1.docker.io"), .endpoints = hub, .n_endpoints = 1};
    try_rows(&up, rows, ARRAY_LEN(rows));
    known_hub.realm = SPAN_NONE;
    up.known = &known_hub;
    try_rows(&up, rows, ARRAY_LEN(rows));
}

static void test_what_is_guarded(void **state)
{
    UNUSED(state);
    struct conf_upstream up = {.registry = SPAN("docker.io"),
                               .endpoints = hub,
                               .n_endpoints = ARRAY_LEN(hub),
                               .token_realms = realms,
                               .n_token_realms = ARRAY_LEN(realms),
                               .known = &known_hub};
    struct url origin;
    struct realm realm;
    char text[256];
    struct str why = STR_INIT(text);
    known_hub.realm = SPAN("auth.docker.io");
    assert_true(url_parse(SPAN(HUB), &origin));
    assert_int_equal(realm_judge(&up, &origin, PUBLIC, SPAN("https://registry-1.docker.io/t"), &realm, &why),
                     TRUSTED);
    assert_false(realm.guarded);
    assert_int_equal(realm_judge(&up, &origin, PUBLIC, SPAN("https://auth.corp.test/t"), &realm, &why),
                     TRUSTED);
    assert_false(realm.guarded);
    assert_int_equal(realm_judge(&up, &origin, PUBLIC, SPAN("https://auth.docker.io/t"), &realm, &why),
                     TRUSTED);
    assert_true(realm.guarded); /* nobody has named it here: it is where it should be, or nowhere */
    assert_span(realm.url.path, "/t");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_known_registry),
        cmocka_unit_test(test_a_plain_one),
        cmocka_unit_test(test_an_unknown_one),
        cmocka_unit_test(test_what_is_guarded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
