/* All that changes or reads a store, at once: it is for the sanitizers as much as for what is asserted. Each thread does a given number
 * of things; nothing waits for a time. */
#include "rig.h"

#include "base/mem.h"
#include "store/evict.h"
#include "store/image.h"
#include "store/list.h"
#include "store/pin.h"
#include "store/verify.h"

#define SEEDS  40
#define ROUNDS 60
#define SIZE   3000

struct doer {
    struct rig *r;
    unsigned number, wrong;
};

static void *purge(void *arg)
{
    struct doer *o = arg;
    char why[256] = "";
    struct str w = STR_INIT(why);
    struct store_purged out;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct digest d = rig_digest(i);
        o->wrong += store_purge_repos(o->r->store, &(struct store_repos){.prefix = SPAN("a/b")}, i % 2 == 0,
                                      &out, &w) != 0;
        o->wrong += store_purge_tag(o->r->store, SPAN("a/c"), SPAN("t1"), false, &out, &w) != 0;
        o->wrong += store_purge_digest(o->r->store, &d, true, &out, &w) != 0;
        (void)store_relieve(o->r->store, 3 * SIZE);
    }
    return NULL;
}

/* Nothing is damaged, so nothing may be found damaged, whatever comes and goes meanwhile. */
static void *verify(void *arg)
{
    struct doer *o = arg;
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        struct verify_progress p;
        struct verify_pass *v = verify_start(o->r->store, i % 2 == 0, NULL, NULL);
        if (v == NULL)
            abort();
        if (i % 3 == 2)
            verify_cancel(v);
        do {
            usleep(200);
            verify_look(v, &p);
        } while (!p.done);
        verify_join(v);
        o->wrong += p.damaged != 0 || p.missing != 0 || p.failed != 0;
    }
    return NULL;
}

static bool count_pin(const struct store_pin *pin, void *arg)
{
    UNUSED(pin);
    ++*(unsigned *)arg;
    return true;
}

static void *pin(void *arg)
{
    struct doer *o = arg;
    char why[256] = "";
    struct str w = STR_INIT(why);
    for (unsigned i = 0; i < ROUNDS; i++) {
        bool found = false;
        unsigned pins = 0;
        struct digest d = rig_digest(1000 + i);
        o->wrong += store_pin_tag(o->r->store, SPAN("a/c"), SPAN("t2"), &w) != 0;
        o->wrong += store_pin_digest(o->r->store, &d, &w) != 0;
        o->wrong += store_each_pin(o->r->store, count_pin, &pins) != 0 || pins != 2;
        o->wrong += store_unpin_digest(o->r->store, &d, &found, &w) != 0 || !found;
        o->wrong += store_unpin_tag(o->r->store, SPAN("a/c"), SPAN("t2"), &found, &w) != 0 || !found;
    }
    return NULL;
}

/* What a list says is whole: an object of the right size, a tag of this repository, an image with its parts. */
static void *look(void *arg)
{
    struct doer *o = arg;
    struct list_object *objects = calloc(SEEDS, sizeof *objects);
    struct list_tag *tags = calloc(8, sizeof *tags);
    struct store_reader *reader = store_reader_new(o->r->store);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct list_cursor c = {.end = false};
        while (!c.end) {
            size_t n = store_list_objects(o->r->store, ~0u, &c, objects, SEEDS);
            for (size_t j = 0; j < n; j++) {
                o->wrong += objects[j].object.size != SIZE && objects[j].object.size != 1000;
                store_touch(reader, &objects[j].digest, 1000 + i);
            }
        }
        c = (struct list_cursor){.end = false};
        while (!c.end) {
            size_t n = store_list_tags(o->r->store, SPAN("a/"), &c, tags, 8);
            for (size_t j = 0; j < n; j++) {
                struct store_image image;
                struct digest *parts;
                uint64_t bytes;
                o->wrong += strncmp(tags[j].repo, "a/", 2) != 0;
                struct pinned *pins = store_pinned(o->r->store);
                if (store_image(o->r->store, &tags[j].digest, pins, &image))
                    o->wrong += image.here > image.objects || image.bytes_here > image.bytes;
                (void)store_image_objects(o->r->store, &tags[j].digest, &parts, &bytes);
                mem_free(parts);
                store_pinned_free(pins);
            }
        }
        struct store_totals t;
        struct store_scrub s;
        struct store_health h;
        store_totals(o->r->store, &t);
        store_scrub_now(o->r->store, &s);
        store_health(o->r->store, &h);
        o->wrong += s.damaged != 0 || h.fault != FAULT_NONE;
    }
    store_reader_free(reader);
    free(objects);
    free(tags);
    return NULL;
}

/* Fills that are kept, given up, and put into place without an entry: the keeper takes those. */
static void *fill(void *arg)
{
    struct doer *o = arg;
    char why[1024] = "";
    struct str w = STR_INIT(why);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct partial p;
        unsigned seed = 500 + o->number * 100 + i % 20;
        char *bytes = rig_bytes(seed, SIZE);
        struct digest d = rig_digest_of(bytes, SIZE);
        o->wrong += partial_open(o->r->store, &d, &p, &w) != 0;
        o->wrong += partial_write(&p, 0, bytes, SIZE, &w) != 0;
        if (i % 3 == 0)
            partial_keep(&p, SIZE / 2);
        else if (i % 3 == 1)
            partial_discard(&p);
        else {
            o->wrong += partial_commit(&p, SIZE, &w) != 0;
            hold_not_placed(o->r->store, &d);
        }
        partial_close(&p);
        free(bytes);
    }
    return NULL;
}

static void *tidy(void *arg)
{
    struct doer *o = arg;
    for (unsigned i = 0; i < ROUNDS / 4; i++)
        store_tidy(o->r->store);
    return NULL;
}

static void test_all_at_once(void **state)
{
    struct rig *r = *state;
    static void *(*const doing[])(void *) = {purge, verify, pin, look, fill, fill, tidy};
    struct doer doers[ARRAY_LEN(doing)];
    pthread_t threads[ARRAY_LEN(doing)];
    store_set_limits(r->store,
                     &(struct store_limits){.max_size = 40 * SIZE, .scrub_rate = UINT64_C(1) << 40});
    for (unsigned i = 0; i < ARRAY_LEN(doing); i++) {
        doers[i] = (struct doer){.r = r, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, doing[i], &doers[i]), 0);
    }
    for (unsigned i = 0; i < 2 * ROUNDS; i++) {
        char *layer = rig_bytes(i % SEEDS, SIZE), tag[8];
        struct store_ref refs[] = {{.digest = rig_digest_of(layer, SIZE), .role = REF_LAYER, .size = SIZE}};
        free(layer);
        snprintf(tag, sizeof tag, "t%u", i % 4);
        (void)rig_blob(r, i % SEEDS, SIZE);
        rig_link(r, &refs[0].digest, i % 2 == 0 ? "a/b" : "a/c");
        (void)rig_image(r, 100 + i % SEEDS, i % 2 == 0 ? "a/b" : "a/c", tag, refs, 1);
    }
    for (unsigned i = 0; i < ARRAY_LEN(doing); i++) {
        pthread_join(threads[i], NULL);
        if (doers[i].wrong != 0)
            fail_msg("doer %u was wrong %u times", i, doers[i].wrong);
    }
    store_tidy(r->store);
    rig_assert_consistent(r);
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.quarantined, 0);
    assert_int_equal(t.damaged, 0);
    assert_true(t.evicted > 0);
    assert_true(t.used <= 40 * SIZE);
    rig_close(r);
    rig_open(r);
    rig_assert_consistent(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_at_once, rig_setup, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
