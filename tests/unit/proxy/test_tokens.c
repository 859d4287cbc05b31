#include "proxy/tokens.h"

#include "../base/dumped.h"
#include "../base/test.h"
#include "base/str.h"

#define SECOND INT64_C(1000)

static struct tokens *t;

static int setup(void **state)
{
    UNUSED(state);
    t = tokens_new();
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    tokens_free(t);
    return 0;
}

/* The token's serial, or 0 when there is none; *renew may be NULL. */
static uint64_t get(const char *key, int64_t now, const char *value, bool *renew)
{
    struct token token;
    uint64_t serial = 0;
    bool there = tokens_get(t, span_str(key), now, &token);
    assert_int_equal(tokens_have(t, span_str(key), now), there);
    if (there) {
        assert_int_equal(token.n, strlen(value));
        assert_memory_equal(token.value, value, token.n);
        serial = token.serial;
    }
    if (renew != NULL)
        *renew = token.renew;
    token_release(&token);
    assert_null(token.value);
    return serial;
}

/* Who has it keeps it, and it is in no core dump. */
static void test_held(void **state)
{
    UNUSED(state);
    struct token first, second;
    tokens_put(t, SPAN("a"), SPAN("one"), 60 * SECOND, 0);
    assert_true(tokens_get(t, SPAN("a"), 0, &first));
    assert_true(tokens_get(t, SPAN("a"), 0, &second));
    assert_true(is_left_out(first.value));
    tokens_put(t, SPAN("a"), SPAN("two"), 60 * SECOND, 0);
    token_release(&second);
    assert_memory_equal(first.value, "Bearer one", first.n);
    tokens_drop(t, SPAN("a"), get("a", 0, "Bearer two", NULL));
    assert_memory_equal(first.value, "Bearer one", first.n);
    token_release(&first);
}

static void test_put_get_drop(void **state)
{
    UNUSED(state);
    assert_int_equal(get("a", 0, "", NULL), 0);
    tokens_put(t, SPAN("a"), SPAN("one"), 60 * SECOND, 0);
    tokens_put(t, SPAN("b"), SPAN("other"), 60 * SECOND, 0);
    uint64_t one = get("a", 0, "Bearer one", NULL);
    assert_int_not_equal(one, 0);
    assert_int_not_equal(get("b", 0, "Bearer other", NULL), one);
    tokens_put(t, SPAN("a"), SPAN("two"), 60 * SECOND, 0);
    uint64_t two = get("a", 0, "Bearer two", NULL);
    assert_int_not_equal(two, one);
    tokens_drop(t, SPAN("a"), one); /* a late word about the one before */
    assert_int_equal(get("a", 0, "Bearer two", NULL), two);
    tokens_drop(t, SPAN("a"), two);
    assert_int_equal(get("a", 0, "", NULL), 0);
    tokens_drop(t, SPAN("a"), two);
    assert_int_not_equal(get("b", 0, "Bearer other", NULL), 0);
}

static void test_ends_a_little_early(void **state)
{
    UNUSED(state);
    int64_t now = 1000000;
    tokens_put(t, SPAN("a"), SPAN("x"), 60 * SECOND, now);
    assert_int_not_equal(get("a", now + 54 * SECOND, "Bearer x", NULL), 0);
    assert_int_equal(get("a", now + 56 * SECOND, "", NULL), 0);
    assert_int_equal(get("a", now, "", NULL), 0); /* it is gone for good */
}

static void test_renewed_by_one_at_a_time(void **state)
{
    UNUSED(state);
    bool renew;
    tokens_put(t, SPAN("a"), SPAN("x"), 100 * SECOND, 0);
    (void)get("a", 74 * SECOND, "Bearer x", &renew);
    assert_false(renew);
    (void)get("a", 75 * SECOND, "Bearer x", &renew);
    assert_true(renew);
    (void)get("a", 75 * SECOND, "Bearer x", &renew);
    assert_false(renew);
    (void)get("a", 81 * SECOND, "Bearer x", &renew); /* nothing has come of it */
    assert_true(renew);
    tokens_put(t, SPAN("a"), SPAN("y"), 100 * SECOND, 81 * SECOND);
    (void)get("a", 90 * SECOND, "Bearer y", &renew);
    assert_false(renew);
}

static void put_nth(unsigned n, size_t size)
{
    char key[32];
    struct str k = STR_INIT(key);
    str_addu(&k, n);
    char *token = test_malloc(size);
    memset(token, 'x', size);
    tokens_put(t, str_span(&k), span_of(token, size), 60 * SECOND, 0);
    test_free(token);
}

static unsigned count(unsigned n)
{
    unsigned there = 0;
    for (unsigned i = 0; i < n; i++) {
        char key[32];
        struct str k = STR_INIT(key);
        str_addu(&k, i);
        there += tokens_have(t, str_span(&k), 0);
    }
    return there;
}

static void test_bounded_in_number(void **state)
{
    UNUSED(state);
    for (unsigned i = 0; i < 3000; i++) {
        put_nth(i, 1);
        struct token token; /* the first one is in use, and stays */
        assert_true(tokens_get(t, SPAN("0"), 0, &token));
        token_release(&token);
    }
    assert_int_equal(count(3000), 2048);
    assert_true(tokens_have(t, SPAN("0"), 0));
    assert_false(tokens_have(t, SPAN("1"), 0));
    assert_true(tokens_have(t, SPAN("2999"), 0));
}

static void test_bounded_in_bytes(void **state)
{
    UNUSED(state);
    for (unsigned i = 0; i < 400; i++)
        put_nth(i, 65536);
    assert_in_range(count(400), 250, 256);
    assert_true(tokens_have(t, SPAN("399"), 0));
}

static void test_challenges(void **state)
{
    UNUSED(state);
    struct challenge c = {
        .scheme = CHALLENGE_BEARER, .realm = "https://a/token", .service = "s", .has_service = true};
    struct challenge got;
    enum address_kind peer;
    assert_false(tokens_recall(t, SPAN("https://r:443"), &got, &peer));
    tokens_remember(t, SPAN("https://r:443"), &c, ADDRESS_PRIVATE);
    assert_false(tokens_recall(t, SPAN("http://r:443"), &got, &peer));
    assert_true(tokens_recall(t, SPAN("https://r:443"), &got, &peer));
    assert_memory_equal(&got, &c, sizeof c);
    assert_int_equal(peer, ADDRESS_PRIVATE);
    c.scheme = CHALLENGE_BASIC;
    tokens_remember(t, SPAN("https://r:443"), &c, ADDRESS_PUBLIC);
    assert_true(tokens_recall(t, SPAN("https://r:443"), &got, &peer));
    assert_int_equal(got.scheme, CHALLENGE_BASIC);
    assert_int_equal(peer, ADDRESS_PUBLIC);
    tokens_forget(t, SPAN("https://r:443"));
    tokens_forget(t, SPAN("https://r:443"));
    assert_false(tokens_recall(t, SPAN("https://r:443"), &got, &peer));
}

static void test_challenges_are_bounded(void **state)
{
    UNUSED(state);
    struct challenge c = {.scheme = CHALLENGE_BASIC}, got;
    enum address_kind peer;
    unsigned there = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < 1000; i++) {
            char key[32];
            struct str k = STR_INIT(key);
            str_addz(&k, "https://r:");
            str_addu(&k, i);
            if (pass == 0)
                tokens_remember(t, str_span(&k), &c, ADDRESS_PUBLIC);
            else
                there += tokens_recall(t, str_span(&k), &got, &peer);
        }
    }
    assert_int_equal(there, 512);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_put_get_drop),        TEST(test_held),
        TEST(test_ends_a_little_early), TEST(test_renewed_by_one_at_a_time),
        TEST(test_bounded_in_number),   TEST(test_bounded_in_bytes),
        TEST(test_challenges),          TEST(test_challenges_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
