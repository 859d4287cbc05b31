/* Who has an interest in a digest, and what is counted of partial files; the map of the index; where the scrubber goes on. */
#include "rig.h"

#include <sys/mman.h>

#include "store/db_int.h"
#include "store/pin.h"

/* ---- placing ---- */

/* Two flows may store one manifest at once. The entry of the first is no leave to remove the file of the second, whose entry is still on
 * its way. */
static void test_placed_twice(void **state)
{
    struct rig *r = *state;
    char why[256] = "";
    struct str w = STR_INIT(why);
    struct digest d = rig_digest_of("text", 4);
    struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = d, .size = 4};
    assert_int_equal(store_write_object(r->store, &d, SPAN("text"), &w), 0);
    assert_int_equal(store_write_object(r->store, &d, SPAN("text"), &w), 0);
    assert_int_equal(rig_apply(r, &c), 0);
    assert_false(hold_claim(r->store, &d, true));
    assert_int_equal(rig_apply(r, &c), 0);
    assert_true(hold_claim(r->store, &d, true));
    hold_unclaim(r->store, &d, false);
    rig_assert_consistent(r);
}

/* A place that is given up is one of them, too. */
static void test_one_of_two_places_is_given_up(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_digest(1);
    hold_place(r->store, &d);
    hold_place(r->store, &d);
    hold_not_placed(r->store, &d);
    assert_false(hold_claim(r->store, &d, true));
    hold_indexed(r->store, &d);
    assert_true(hold_claim(r->store, &d, true));
    hold_unclaim(r->store, &d, false);
    atomic_store(&r->store->strays, false);
    hold_indexed(r->store, &d); /* an entry without a file that was placed: a no-op */
    hold_not_placed(r->store, &d);
    assert_false(atomic_load(&r->store->strays)); /* there is no file to look for */
    assert_true(hold_claim(r->store, &d, true));
    hold_unclaim(r->store, &d, false);
}

/* ---- partial files ---- */

/* Between the listing of partial/ and the removal a fill may have come and gone: what is taken off the sum is what the file has by then. */
static void test_a_partial_file_grew_since_it_was_listed(void **state)
{
    struct rig *r = *state;
    char why[256] = "", name[STORE_NAME_MAX];
    struct str w = STR_INIT(why);
    struct digest d = rig_digest(1);
    struct store_totals t;
    struct partial p;
    char *bytes = rig_bytes(1, 100000);
    uint64_t freed = 0;
    store_flat_name(&d, name);
    assert_int_equal(partial_open(r->store, &d, &p, &w), 0);
    assert_int_equal(partial_write(&p, 0, bytes, 100000, &w), 0);
    assert_false(hold_drop_partial(r->store, &d, name, &freed)); /* it is being filled */
    partial_keep(&p, 100000);
    partial_close(&p);
    freed = 4096; /* as it was listed */
    assert_true(hold_drop_partial(r->store, &d, name, &freed));
    assert_true(freed >= 100000 - 4096);
    store_totals(r->store, &t);
    assert_int_equal(t.partials, 0);
    assert_int_equal(t.partial_bytes, 0);
    assert_int_equal(t.used, 0);
    assert_false(hold_drop_partial(r->store, &d, name, &freed)); /* it is gone */
    rig_assert_consistent(r);
    free(bytes);
}

/* ---- the map of the index ---- */

/* Another mapping may have the same inode number, on another file system: a private one would lose what was written to it. */
static void test_only_the_index_lets_its_pages_go(void **state)
{
    struct rig *r = *state;
    char path[128];
    struct db *db;
    assert_int_equal(mkdir(r->path, 0750), 0);
    assert_int_equal(db_open(r->path, (size_t)1 << 20, &db), 0);
    snprintf(path, sizeof path, "%s/data.mdb", r->path);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    memset(p, 'x', 4096);
    db_let_go(db);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(p[i], 'x');
    munmap(p, 4096);
    close(fd);
    db_close(db);
}

/* ---- the scrubber ---- */

/* An object that was being read when the process ended is read again, from its beginning. */
static void test_an_object_half_read_is_read_again(void **state)
{
    struct rig *r = *state;
    struct store_scrub now;
    uint64_t bytes, all = 0;
    (void)rig_blob(r, 1, 3u << 20);
    struct scrub *c = scrub_new(r->store, false);
    while (all == 0 && scrub_step(c, &bytes))
        all += bytes;
    assert_in_range(all, 1, (3u << 20) - 1);
    scrub_free(c);
    c = scrub_new(r->store, false);
    all = 0;
    do {
        scrub_look(c, &now);
        if (now.objects == 1)
            break;
        assert_true(scrub_step(c, &bytes));
        all += bytes;
    } while (true);
    assert_int_equal(all, 3u << 20);
    scrub_free(c);
}

/* ---- what a purge counts ---- */

/* More links of one object than go in one transaction: all are counted, and once. */
static void test_purged_links_are_counted(void **state)
{
    struct rig *r = *state;
    char why[256] = "", repo[32];
    struct str w = STR_INIT(why);
    struct store_purged out;
    struct digest d = rig_blob(r, 1, 100), pinned = rig_blob(r, 2, 100);
    for (unsigned i = 0; i < 150; i++) {
        snprintf(repo, sizeof repo, "a/%03u", i);
        rig_link(r, &d, repo);
    }
    rig_link(r, &pinned, "a/x");
    rig_link(r, &pinned, "a/y");
    assert_int_equal(store_pin_digest(r->store, &pinned, &w), 0);
    assert_int_equal(
        store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("a/")}, false, &out, &w), 0);
    assert_int_equal(out.objects, 1);
    assert_int_equal(out.bytes, 100);
    assert_int_equal(out.links, 150);
    assert_int_equal(out.pinned, 1);
    assert_false(rig_has(r, &d));
    assert_true(rig_has(r, &pinned));
    rig_assert_consistent(r);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_placed_twice),
        RIG_TEST(test_one_of_two_places_is_given_up),
        RIG_TEST(test_a_partial_file_grew_since_it_was_listed),
        cmocka_unit_test_setup_teardown(test_only_the_index_lets_its_pages_go, rig_setup_folder,
                                        rig_teardown),
        RIG_TEST(test_an_object_half_read_is_read_again),
        RIG_TEST(test_purged_links_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
