/* A reader that remembers what it found lately says what another one says, after every change. */
#include "rig.h"

#include "store/recent_int.h"

#define DIGESTS 6 /* more than a set has slots */
#define REPOS   4

/* All fall into one set. */
static struct digest in_one_set(unsigned i)
{
    struct digest d = rig_digest(i);
    memset(d.raw, 0xab, 8);
    return d;
}

static const char *repo_of(unsigned i)
{
    static char longer[RECENT_TEXT_MAX + 2];
    static const char *const repos[REPOS - 1] = {"docker.io/a", "docker.io/a#account", "docker.io/ab"};
    memset(longer, 'r', sizeof longer - 1);
    return i < REPOS - 1 ? repos[i] : longer;
}

static void media_of(unsigned i, char media[STORE_MEDIA_MAX + 1])
{
    size_t n = i % 3 == 0 ? 0 : i % 3 == 1 ? 20 + i % 50 : RECENT_TEXT_MAX + 1;
    memset(media, 'm', n);
    media[n] = '\0';
}

static void assert_same(struct store_reader *keeps, struct store_reader *new)
{
    for (unsigned i = 0; i < DIGESTS; i++) {
        struct digest d = in_one_set(i);
        struct store_object a, b;
        bool has = store_get_object(new, &d, &b);
        assert_int_equal(store_get_object(keeps, &d, &a), has);
        if (has) {
            assert_int_equal(a.size, b.size);
            assert_int_equal(a.stored_ms, b.stored_ms);
            assert_int_equal(a.kind, b.kind);
        }
        for (unsigned j = 0; j < REPOS; j++) {
            struct store_link x, y;
            has = store_get_link(new, span_str(repo_of(j)), &d, &y);
            assert_int_equal(store_get_link(keeps, span_str(repo_of(j)), &d, &x), has);
            if (has)
                assert_string_equal(x.media, y.media);
        }
    }
}

static void change_something(struct rig *r, unsigned n)
{
    struct digest d = in_one_set(n % DIGESTS);
    struct store_object is;
    struct store_reader *reader = store_reader_new(r->store);
    bool has = store_get_object(reader, &d, &is);
    store_reader_free(reader);
    if (n % 7 == 0 && has) {
        assert_true(store_condemn(r->store, &d, &is));
        return;
    }
    struct store_change c = {
        .what = n % 3 != 0 ? CHANGE_PUT_OBJECT | CHANGE_PUT_LINK : CHANGE_PUT_LINK, .digest = d, .size = n};
    snprintf(c.repo, sizeof c.repo, "%s", repo_of(n / 5 % REPOS));
    media_of(n, c.media);
    assert_int_equal(rig_apply(r, &c), 0);
}

static void test_says_what_a_new_reader_says(void **state)
{
    struct rig *r = *state;
    struct store_reader *keeps = store_reader_new(r->store);
    store_reader_remember(keeps);
    unsigned random = 1;
    for (unsigned i = 0; i < 200; i++) {
        random = random * 1103515245 + 12345;
        change_something(r, random >> 8 & 0xffff);
        struct store_reader *new = store_reader_new(r->store);
        assert_same(keeps, new);
        assert_same(keeps, new); /* out of what it has kept */
        store_reader_free(new);
    }
    store_reader_free(keeps);
}

static void test_keeps_for_one_version(void **state)
{
    (void)state;
    struct recent *t = recent_new();
    struct digest d = rig_digest(1), other = rig_digest(2);
    struct store_object o = {.size = 7}, got;
    struct store_link link = {.media = "text"}, has;
    assert_false(recent_object(t, 0, &d, &got));
    recent_keep_object(t, 0, &d, &o);
    assert_true(recent_object(t, 0, &d, &got));
    assert_int_equal(got.size, 7);
    assert_false(recent_link(t, 0, SPAN("a"), &d, &has));
    assert_false(recent_object(t, 1, &d, &got));
    assert_false(recent_object(t, 0, &other, &got));
    recent_keep_link(t, 1, SPAN("a"), &d, &link);
    assert_true(recent_link(t, 1, SPAN("a"), &d, &has));
    assert_string_equal(has.media, "text");
    assert_false(recent_link(t, 1, SPAN("b"), &d, &has));
    assert_false(recent_link(t, 1, SPAN("aa"), &d, &has));
    assert_false(recent_object(t, 1, &d, &got)); /* of another version than the link */
    recent_free(t);
}

static void test_a_set_that_is_full(void **state)
{
    (void)state;
    struct recent *t = recent_new();
    struct store_object got;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < DIGESTS; i++) {
            struct digest d = in_one_set(i);
            recent_keep_object(t, 5, &d, &(struct store_object){.size = i});
            assert_true(recent_object(t, 5, &d, &got));
            assert_int_equal(got.size, i);
        }
    unsigned kept = 0;
    for (unsigned i = 0; i < DIGESTS; i++) {
        struct digest d = in_one_set(i);
        kept += recent_object(t, 5, &d, &got);
    }
    assert_int_equal(kept, RECENT_WAYS);
    recent_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_says_what_a_new_reader_says, rig_setup, rig_teardown),
        cmocka_unit_test(test_keeps_for_one_version),
        cmocka_unit_test(test_a_set_that_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
