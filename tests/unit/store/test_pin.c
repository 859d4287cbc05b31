/* Pins, purges, lists. */
#include "rig.h"

#include "store/list.h"
#include "store/pin.h"

#define APP "quay.io/app"

/* An index v1 of two images that share a layer, a manifest v2 that shares it, too, and a blob of another repository. */
struct world {
    struct digest base, own[3], config[3], image[3], index, other;
};

static struct store_ref ref(const struct digest *d, enum store_role role, uint64_t size)
{
    return (struct store_ref){.digest = *d, .role = role, .size = size};
}

static void fill(struct rig *r, struct world *w)
{
    static const char *const tags[] = {"", "", "v2"};
    w->base = rig_store(r, 1, 5000, &(struct store_change){.what = CHANGE_PUT_LINK, .repo = APP});
    for (unsigned i = 0; i < 3; i++) {
        w->own[i] = rig_store(r, 10 + i, 3000, &(struct store_change){.what = CHANGE_PUT_LINK, .repo = APP});
        w->config[i] =
            rig_store(r, 20 + i, 100, &(struct store_change){.what = CHANGE_PUT_LINK, .repo = APP});
        struct store_ref refs[] = {ref(&w->config[i], REF_CONFIG, 100), ref(&w->base, REF_LAYER, 5000),
                                   ref(&w->own[i], REF_LAYER, 3000)};
        w->image[i] = rig_image(r, 30 + i, APP, tags[i], refs, 3);
    }
    struct store_ref refs[] = {ref(&w->image[0], REF_MANIFEST, 1000), ref(&w->image[1], REF_MANIFEST, 1000)};
    w->index = rig_image(r, 40, APP, "v1", refs, 2);
    w->other =
        rig_store(r, 50, 700, &(struct store_change){.what = CHANGE_PUT_LINK, .repo = "quay.io/other"});
    rig_link(r, &w->base, "quay.io/other");
}

static bool image_has(struct rig *r, const struct world *w, unsigned i)
{
    bool has = rig_has(r, &w->image[i]);
    assert_int_equal(rig_has(r, &w->own[i]), has);
    assert_int_equal(rig_has(r, &w->config[i]), has);
    return has;
}

#define WHY                                                                                                  \
    char why[512] = "";                                                                                      \
    struct str y = STR_INIT(why)

/* ---- purging ---- */

static void test_purge_a_tag(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_purged p;
    WHY;
    fill(r, &w);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("none"), false, &p, &y), 0);
    assert_int_equal(p.tags + p.objects, 0);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("v1"), false, &p, &y), 0);
    assert_int_equal(p.tags, 1);
    assert_int_equal(p.objects, 7); /* the index, two images, their own layers and configurations */
    assert_int_equal(p.bytes, 3000 + 2 * 3100);
    assert_false(rig_tag(r, APP, "v1"));
    assert_false(rig_has(r, &w.index) || image_has(r, &w, 0) || image_has(r, &w, 1));
    assert_true(rig_has(r, &w.base) && image_has(r, &w, 2) && rig_has(r, &w.other));
    rig_assert_consistent(r);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("v2"), false, &p, &y), 0);
    assert_int_equal(p.objects, 4); /* and the shared layer */
    assert_false(rig_has(r, &w.base));
    assert_true(rig_has(r, &w.other));
    rig_assert_consistent(r);
}

/* Another tag names the image: only this tag goes. */
static void test_purge_one_of_two_tags(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_purged p;
    WHY;
    fill(r, &w);
    struct store_change c = {.what = CHANGE_PUT_TAG, .digest = w.image[2], .repo = APP, .tag = "latest"};
    assert_int_equal(rig_apply(r, &c), 0);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("v2"), false, &p, &y), 0);
    assert_int_equal(p.tags, 1);
    assert_int_equal(p.objects, 0);
    assert_true(rig_tag(r, APP, "latest") && image_has(r, &w, 2));
    assert_false(rig_tag(r, APP, "v2"));
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("latest"), false, &p, &y), 0);
    assert_int_equal(p.objects, 3);
}

static void test_purge_a_digest(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_purged p;
    WHY;
    fill(r, &w);
    /* One platform of an index: itself is what was asked for, although the index names it. */
    assert_int_equal(store_purge_digest(r->store, &w.image[0], false, &p, &y), 0);
    assert_int_equal(p.objects, 3);
    assert_true(rig_has(r, &w.index) && image_has(r, &w, 1) && rig_has(r, &w.base));
    assert_true(rig_tag(r, APP, "v1"));
    /* A layer that is in use elsewhere. */
    assert_int_equal(store_purge_digest(r->store, &w.base, false, &p, &y), 0);
    assert_int_equal(p.objects, 1);
    assert_int_equal(p.links, 2);
    assert_false(rig_has(r, &w.base));
    /* An image with a tag. */
    assert_int_equal(store_purge_digest(r->store, &w.image[2], false, &p, &y), 0);
    assert_int_equal(p.tags, 1);
    assert_false(rig_tag(r, APP, "v2"));
    /* What is not here. */
    struct digest none = rig_digest(99);
    assert_int_equal(store_purge_digest(r->store, &none, false, &p, &y), 0);
    assert_int_equal(p.objects, 0);
    rig_assert_consistent(r);
}

/* An image below an index that has a tag of its own stays. */
static void test_purge_an_index_with_a_tagged_image(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_purged p;
    WHY;
    fill(r, &w);
    struct store_change c = {.what = CHANGE_PUT_TAG, .digest = w.image[1], .repo = APP, .tag = "arm"};
    assert_int_equal(rig_apply(r, &c), 0);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("v1"), false, &p, &y), 0);
    assert_int_equal(p.objects, 4);
    assert_true(image_has(r, &w, 1) && rig_tag(r, APP, "arm"));
    assert_false(image_has(r, &w, 0));
}

static void test_purge_repositories(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_purged p;
    WHY;
    fill(r, &w);
    assert_int_equal(
        store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("quay.io/ap/")}, false, &p, &y), 0);
    assert_int_equal(p.tags + p.links + p.objects, 0);
    assert_int_equal(
        store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("quay.io/ap")}, false, &p, &y), 0);
    assert_int_equal(p.tags, 2);
    assert_int_equal(p.links, 11);
    assert_int_equal(p.objects, 10); /* the shared layer is another repository's, too */
    assert_false(rig_tag(r, APP, "v1") || rig_tag(r, APP, "v2"));
    assert_false(rig_has(r, &w.index) || image_has(r, &w, 0) || image_has(r, &w, 1) || image_has(r, &w, 2));
    assert_true(rig_has(r, &w.base) && rig_has(r, &w.other));
    rig_assert_consistent(r);
    assert_int_equal(store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("")}, false, &p, &y),
                     0);
    assert_int_equal(p.objects, 2);
    rig_assert_consistent(r);
}

/* More than a batch of each, and names above the limit of a key. */
static void test_purge_many(void **state)
{
    struct rig *r = *state;
    struct store_purged p;
    char repo[STORE_REPO_MAX + 1];
    WHY;
    memset(repo, 'r', sizeof repo);
    repo[STORE_REPO_MAX] = '\0';
    for (unsigned i = 0; i < 250; i++) {
        struct store_change c = {.what = CHANGE_PUT_LINK | CHANGE_PUT_TAG, .media = "m"};
        snprintf(c.repo, sizeof c.repo, "%s", i % 2 == 0 ? repo : "r/short");
        snprintf(c.tag, sizeof c.tag, "tag-%u", i);
        struct digest d = rig_store(r, i, 10, &c);
        if (i < 10)
            rig_link(r, &d, "other");
    }
    assert_int_equal(store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("r")}, false, &p, &y),
                     0);
    assert_int_equal(p.tags, 250);
    assert_int_equal(p.links, 250);
    assert_int_equal(p.objects, 240);
    rig_assert_consistent(r);
    assert_false(rig_tag(r, repo, "tag-0") || rig_tag(r, "r/short", "tag-1"));
}

static void test_what_is_pinned_is_not_purged(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_purged p;
    WHY;
    fill(r, &w);
    assert_int_equal(store_pin_tag(r->store, SPAN(APP), SPAN("v1"), &y), 0);
    assert_int_equal(store_pin_digest(r->store, &w.own[2], &y), 0);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("v1"), false, &p, &y), 0);
    assert_int_equal(p.pinned, 1);
    assert_true(rig_tag(r, APP, "v1"));
    assert_int_equal(store_purge_digest(r->store, &w.image[0], false, &p, &y), 0);
    assert_true(p.pinned > 0);
    assert_int_equal(
        store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("quay.io/")}, false, &p, &y), 0);
    assert_true(p.pinned > 0);
    assert_true(rig_tag(r, APP, "v1") && rig_has(r, &w.index) && image_has(r, &w, 0) && image_has(r, &w, 1) &&
                rig_has(r, &w.base) && rig_has(r, &w.own[2]));
    assert_false(rig_has(r, &w.image[2]) || rig_has(r, &w.config[2]) || rig_has(r, &w.other));
    rig_assert_consistent(r);
    assert_int_equal(store_purge_tag(r->store, SPAN(APP), SPAN("v1"), true, &p, &y), 0);
    assert_false(rig_tag(r, APP, "v1") || rig_has(r, &w.index));
    assert_int_equal(store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("")}, true, &p, &y), 0);
    rig_assert_consistent(r);
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.objects, 0);
}

/* ---- pins ---- */

struct pins {
    unsigned n, max;
    struct store_pin p[8];
};

static bool add_pin(const struct store_pin *pin, void *arg)
{
    struct pins *p = arg;
    p->p[p->n++] = *pin;
    return p->n < p->max;
}

static void test_pins_are_listed_and_survive(void **state)
{
    struct rig *r = *state;
    struct world w;
    WHY;
    fill(r, &w);
    assert_int_equal(store_pin_tag(r->store, SPAN(APP), SPAN("v1"), &y), 0);
    assert_int_equal(store_pin_tag(r->store, SPAN(APP), SPAN("v1"), &y), 0);
    assert_int_equal(store_pin_tag(r->store, SPAN(APP), SPAN("to come"), &y), 0);
    assert_int_equal(store_pin_digest(r->store, &w.other, &y), 0);
    assert_int_equal(store_pin_tag(r->store, SPAN(APP), SPAN(""), &y), ERR_STORE);
    for (unsigned round = 0; round < 2; round++) {
        struct pins p = {.max = 8};
        assert_int_equal(store_each_pin(r->store, add_pin, &p), 0);
        assert_int_equal(p.n, 3);
        assert_string_equal(p.p[0].repo, "");
        assert_true(digest_eq(&p.p[0].digest, &w.other));
        assert_true(p.p[0].since_ms > 0);
        assert_string_equal(p.p[1].repo, APP);
        assert_string_equal(p.p[1].tag, "to come");
        assert_int_equal(p.p[1].digest.alg, DIGEST_NONE);
        assert_string_equal(p.p[2].tag, "v1");
        assert_true(digest_eq(&p.p[2].digest, &w.index));
        p = (struct pins){.max = 1};
        assert_int_equal(store_each_pin(r->store, add_pin, &p), 0);
        assert_int_equal(p.n, 1);
        rig_close(r);
        rig_open(r);
    }
    struct store_image im;
    struct pinned *pins = store_pinned(r->store);
    assert_true(store_image(r->store, &w.image[0], pins, &im)); /* below what is pinned */
    assert_true(im.pinned);
    assert_true(store_image(r->store, &w.image[2], pins, &im));
    assert_false(im.pinned);
    /* One set for many images: what is pinned meanwhile is not in it, and nothing is read anew. */
    assert_int_equal(store_pin_digest(r->store, &w.image[2], &y), 0);
    assert_true(store_image(r->store, &w.image[2], pins, &im));
    assert_false(im.pinned);
    store_pinned_free(pins);
    pins = store_pinned(r->store);
    assert_true(store_image(r->store, &w.image[2], pins, &im));
    assert_true(im.pinned);
    assert_true(store_image(r->store, &w.image[2], NULL, &im));
    assert_false(im.pinned);
    store_pinned_free(pins);
}

/* ---- lists ---- */

static void test_images(void **state)
{
    struct rig *r = *state;
    struct world w;
    struct store_image im;
    WHY;
    struct store_purged p;
    fill(r, &w);
    assert_true(store_image(r->store, &w.index, NULL, &im));
    assert_int_equal(im.objects, 8);
    assert_int_equal(im.here, 8);
    assert_int_equal(im.bytes, 3000 + 2 * 3100 + 5000);
    assert_int_equal(im.bytes_here, im.bytes);
    assert_int_equal(im.manifests, 2);
    assert_int_equal(im.complete, 2);
    assert_true(im.known);
    assert_int_equal(store_purge_digest(r->store, &w.own[0], false, &p, &y), 0);
    assert_true(store_image(r->store, &w.index, NULL, &im));
    assert_int_equal(im.objects, 8);
    assert_int_equal(im.here, 7);
    assert_int_equal(im.bytes, 3000 + 2 * 3100 + 5000);
    assert_int_equal(im.bytes_here, im.bytes - 3000);
    assert_int_equal(im.complete, 1);
    assert_true(store_image(r->store, &w.image[0], NULL, &im));
    assert_int_equal(im.manifests, 1);
    assert_int_equal(im.complete, 0);
    assert_true(store_image(r->store, &w.image[2], NULL, &im));
    assert_int_equal(im.complete, 1);
    assert_false(store_image(r->store, &w.base, NULL, &im));
    struct digest none = rig_digest(99);
    assert_false(store_image(r->store, &none, NULL, &im));
}

/* How many; and "repo:tag " of each in `seen`. */
static unsigned list_tags(struct rig *r, const char *prefix, size_t step, char seen[16384])
{
    struct list_cursor c = {.end = false};
    struct list_tag *t = calloc(step, sizeof *t);
    struct str all = str_init(seen, 16384);
    unsigned n = 0;
    while (!c.end) {
        size_t got = store_list_tags(r->store, span_str(prefix), &c, t, step);
        for (size_t i = 0; i < got; i++)
            str_addf(&all, "%s:%s ", t[i].repo, t[i].tag);
        n += (unsigned)got;
    }
    assert_int_equal(store_list_tags(r->store, span_str(prefix), &c, t, step), 0);
    free(t);
    assert_false(all.cut);
    return n;
}

static void test_lists(void **state)
{
    struct rig *r = *state;
    static const char *const repos[] = {"a/one", "a/two", "a/two/x", "b"};
    char repo[STORE_REPO_MAX + 1], tag[STORE_TAG_MAX + 1], last[16384];
    memset(repo, 'a', sizeof repo);
    memset(tag, 't', sizeof tag);
    repo[STORE_REPO_MAX] = tag[STORE_TAG_MAX] = '\0';
    for (unsigned i = 0; i < 5; i++) {
        for (unsigned j = 0; j < 3; j++) {
            struct store_change c = {.what = CHANGE_PUT_LINK | CHANGE_PUT_TAG, .media = "m"};
            snprintf(c.repo, sizeof c.repo, "%s", i < 4 ? repos[i] : repo);
            snprintf(c.tag, sizeof c.tag, "%u%s", j, i < 4 ? "" : tag + 1);
            (void)rig_store(r, i * 3 + j, 100, &c);
        }
    }
    for (size_t step = 1; step < 20; step += 3) {
        assert_int_equal(list_tags(r, "", step, last), 15);
        assert_int_equal(list_tags(r, "a", step, last), 12);
        assert_int_equal(list_tags(r, "a/", step, last), 9);
        assert_int_equal(list_tags(r, "a/two", step, last), 6);
        assert_int_equal(list_tags(r, "aaa", step, last), 3);
        assert_int_equal(list_tags(r, "c", step, last), 0);
        assert_int_equal(list_tags(r, "b", step, last), 3);
        assert_string_equal(last, "b:0 b:1 b:2 ");
        struct list_cursor c = {.end = false};
        struct list_object o[20];
        unsigned n = 0, manifests = 0;
        while (!c.end)
            n += (unsigned)store_list_objects(r->store, ~0u, &c, o, step);
        c = (struct list_cursor){.end = false};
        while (!c.end)
            manifests += (unsigned)store_list_objects(r->store, 1u << STORE_MANIFEST, &c, o, step);
        assert_int_equal(n, 15);
        assert_int_equal(manifests, 15);
        struct list_link l[20];
        c = (struct list_cursor){.end = false};
        for (n = 0; !c.end;)
            n += (unsigned)store_list_links(r->store, SPAN("a"), &c, l, step);
        assert_int_equal(n, 12);
    }
}

/* ---- accounts ---- */

#define ANY "quay.io/corp/app"
#define ONE ANY "#one"
#define TWO ANY "#two"

/* v1 is one manifest for one account and without any, and another one for the other account; of a repository with a longer name nothing is
 * meant. */
static void fill_accounts(struct rig *r, struct digest *shared, struct digest *two, struct digest *longer)
{
    *shared = rig_image(r, 60, ONE, "v1", NULL, 0);
    struct store_change c = {.what = CHANGE_PUT_TAG | CHANGE_PUT_LINK,
                             .digest = *shared,
                             .repo = ANY,
                             .tag = "v1",
                             .checked_ms = 1600000000000,
                             .media = "application/vnd.oci.image.manifest.v1+json"};
    assert_int_equal(rig_apply(r, &c), 0);
    *two = rig_image(r, 61, TWO, "v1", NULL, 0);
    *longer = rig_image(r, 62, ANY "2", "v1", NULL, 0);
}

static bool get(struct rig *r, const char *repo, const struct digest *d, struct store_tag *tag)
{
    struct store_link link;
    struct store_reader *reader = store_reader_new(r->store);
    bool linked = store_get_link(reader, span_str(repo), d, &link);
    if (!store_get_tag(reader, span_str(repo), SPAN("v1"), tag))
        tag->digest.alg = DIGEST_NONE;
    store_reader_free(reader);
    return linked;
}

static void test_of_several_accounts(void **state)
{
    struct rig *r = *state;
    struct digest shared, two, longer;
    struct store_tag tag;
    fill_accounts(r, &shared, &two, &longer);
    assert_true(get(r, ANY, &shared, &tag));
    assert_true(digest_eq(&tag.digest, &shared) && !tag.others && tag.checked_ms == 1600000000000);
    assert_true(get(r, ONE, &shared, &tag));
    assert_true(digest_eq(&tag.digest, &shared) && !tag.others && tag.checked_ms == 1700000000000);
    assert_false(get(r, ANY, &two, &tag));
    assert_false(get(r, ONE, &two, &tag));
    assert_true(get(r, TWO, &two, &tag));
    assert_true(digest_eq(&tag.digest, &two) && !tag.others);
    /* An account that has none of its own has what anybody has. */
    assert_true(get(r, ANY "#three", &shared, &tag));
    assert_true(digest_eq(&tag.digest, &shared) && tag.others);
    assert_false(get(r, ANY "#three", &two, &tag));
    assert_true(store_any_link(r->store, SPAN(ANY), &two));
    assert_false(store_any_link(r->store, SPAN(ANY), &longer));
    assert_true(store_any_tag(r->store, SPAN(ANY), SPAN("v1"), &tag));
    assert_int_equal(tag.checked_ms, 1700000000000);
    assert_false(store_any_tag(r->store, SPAN(ANY), SPAN("v2"), &tag));
}

/* By the repository's name: all accounts'. Pinned it is for all of them, too. */
static void test_purge_what_several_accounts_have(void **state)
{
    struct rig *r = *state;
    struct digest shared, two, longer;
    struct store_image image;
    struct store_purged p;
    WHY;
    fill_accounts(r, &shared, &two, &longer);
    assert_int_equal(store_pin_tag(r->store, SPAN(ANY), SPAN("v1"), &y), 0);
    struct pinned *pins = store_pinned(r->store);
    assert_true(store_image(r->store, &shared, pins, &image) && image.pinned);
    assert_true(store_image(r->store, &two, pins, &image) && image.pinned);
    assert_true(store_image(r->store, &longer, pins, &image) && !image.pinned);
    store_pinned_free(pins);
    assert_int_equal(store_purge_tag(r->store, SPAN(ANY), SPAN("v1"), false, &p, &y), 0);
    assert_int_equal(p.tags + p.objects, 0);
    assert_true(p.pinned > 0);
    assert_int_equal(store_purge_tag(r->store, SPAN(ANY), SPAN("v1"), true, &p, &y), 0);
    assert_int_equal(p.tags, 3);
    assert_int_equal(p.objects, 2);
    assert_false(rig_tag(r, ANY, "v1") || rig_tag(r, ONE, "v1") || rig_tag(r, TWO, "v1"));
    assert_true(rig_tag(r, ANY "2", "v1") && rig_has(r, &longer));
    assert_false(rig_has(r, &shared) || rig_has(r, &two));
    rig_assert_consistent(r);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_of_several_accounts),
        RIG_TEST(test_purge_what_several_accounts_have),
        RIG_TEST(test_purge_a_tag),
        RIG_TEST(test_purge_one_of_two_tags),
        RIG_TEST(test_purge_a_digest),
        RIG_TEST(test_purge_an_index_with_a_tagged_image),
        RIG_TEST(test_purge_repositories),
        RIG_TEST(test_purge_many),
        RIG_TEST(test_what_is_pinned_is_not_purged),
        RIG_TEST(test_pins_are_listed_and_survive),
        RIG_TEST(test_images),
        RIG_TEST(test_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
