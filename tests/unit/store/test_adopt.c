/* Files without an entry, however they came about: each is found while the store runs or at its next start, and counts. And what an
 * unclean stop makes suspect. */
#include "rig.h"

#include "base/clock.h"
#include "store/evict.h"
#include "store/index_int.h"
#include "store/verify.h"

static struct digest place(struct rig *r, const char *text)
{
    char why[256] = "";
    struct str w = STR_INIT(why);
    struct digest d = rig_digest_of(text, strlen(text));
    assert_int_equal(store_write_object(r->store, &d, span_str(text), &w), 0);
    return d;
}

/* The file of an object, without a store that runs. */
static struct digest put_file(struct rig *r, unsigned seed, size_t n, time_t at)
{
    char path[512];
    char *bytes = rig_bytes(seed, n);
    struct digest d = rig_digest_of(bytes, n);
    struct timespec times[2] = {{.tv_sec = at}, {.tv_sec = at}};
    rig_file(r, STORE_DIR_SHA256, &d, path);
    rig_write_file(path, bytes, n);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    free(bytes);
    return d;
}

static void end_uncleanly(struct rig *r)
{
    char path[512];
    rig_close(r);
    snprintf(path, sizeof path, "%s/lock", r->path);
    rig_write_file(path, "1\n", 2);
}

static void lose_index(struct rig *r)
{
    char path[512];
    snprintf(path, sizeof path, "%s/index/data.mdb", r->path);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/index/lock.mdb", r->path);
    assert_int_equal(unlink(path), 0);
}

static struct pool_entry entry_of(struct rig *r, const struct digest *d)
{
    struct pool_entry e;
    struct itxn t;
    assert_int_equal(itxn_read(r->store->index, &t), 0);
    assert_true(itxn_object(&t, d, &e));
    itxn_end(&t);
    return e;
}

static uint64_t order_length(struct rig *r)
{
    struct itxn t;
    uint64_t n;
    assert_int_equal(itxn_read(r->store->index, &t), 0);
    assert_int_equal(db_count(t.t, t.x->tables[TABLE_LRU], &n), 0);
    itxn_end(&t);
    return n;
}

/* ---- leftovers ---- */

/* Its flow was closed between the file and the entry; then the store ends as it should. */
static void test_what_was_placed_and_never_entered(void **state)
{
    struct rig *r = *state;
    struct digest d = place(r, "text");
    rig_close(r);
    rig_open(r);
    store_tidy(r->store);
    assert_true(rig_has(r, &d));
    assert_int_equal(store_verify(r->store, &d, true, NULL), VERIFY_GOOD);
    rig_assert_consistent(r);
}

/* What was given up is taken while the store runs: it takes room, so it has to count. */
static void test_what_was_given_up_is_taken_soon(void **state)
{
    struct rig *r = *state;
    struct digest d = place(r, "text");
    hold_not_placed(r->store, &d);
    store_tidy(r->store);
    assert_true(rig_has(r, &d));
    rig_assert_consistent(r);
}

/* A start after a crash is ended, properly, before its files were compared: the next one does that. */
static void test_a_comparison_that_was_cut_short(void **state)
{
    struct rig *r = *state;
    struct digest d;
    end_uncleanly(r);
    d = put_file(r, 1, 1000, 1700000000);
    for (unsigned i = 0; i < 20; i++) { /* some end before the keeper has begun, some after */
        rig_open(r);
        store_stopping(r->store);
        rig_close(r);
    }
    rig_open(r);
    store_tidy(r->store);
    assert_true(rig_has(r, &d));
    rig_assert_consistent(r);
}

/* The index has no room for the entry of a file that is there. Whatever becomes of the file, it is not forgotten. */
static void test_an_entry_that_the_index_did_not_take(void **state)
{
    struct rig *r = *state;
    char why[1024] = "";
    struct str w = STR_INIT(why);
    struct store_change c = {.what = CHANGE_PUT_LINK};
    rig_close(r);
    r->store = store_open_sized(span_str(r->path), 256 << 10, &w);
    assert_non_null(r->store);
    fprintf(stderr, "(the log lines about MDB_MAP_FULL that follow are expected)\n");
    unsigned n = 0;
    do {
        c.digest = rig_digest(n++);
        memset(c.repo, 'a', STORE_REPO_MAX);
    } while (n < 10000 && rig_apply(r, &c) == 0);
    assert_in_range(n, 10, 9999);
    unsigned failed = 0;
    for (unsigned i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "text %u", i);
        struct store_change put = {.what = CHANGE_PUT_OBJECT | CHANGE_PUT_LINK, .size = strlen(text)};
        memset(put.repo, 'b', STORE_REPO_MAX);
        put.digest = place(r, text);
        failed += rig_apply(r, &put) != 0;
    }
    assert_true(failed > 0);
    rig_close(r);
    rig_open(r);
    store_tidy(r->store);
    rig_assert_consistent(r);
}

/* What is none of larder's stays as it is. */
static void test_what_is_no_object_is_left_alone(void **state)
{
    struct rig *r = *state;
    char path[512], folder[512], link[512];
    struct digest d = rig_digest(1), e = rig_digest(2);
    end_uncleanly(r);
    snprintf(path, sizeof path, "%s/blobs/sha256/notes.txt", r->path);
    rig_write_file(path, "x", 1);
    rig_file(r, STORE_DIR_SHA256, &d, folder);
    assert_int_equal(mkdir(folder, 0750), 0);
    rig_file(r, STORE_DIR_SHA256, &e, link);
    assert_int_equal(symlink("/dev/zero", link), 0);
    rig_open(r);
    store_tidy(r->store);
    struct store_totals t;
    struct store_object o;
    struct stat st;
    store_totals(r->store, &t);
    assert_int_equal(t.objects, 0);
    assert_false(rig_object(r, &d, &o) || rig_object(r, &e, &o));
    assert_int_equal(lstat(path, &st), 0);
    assert_int_equal(lstat(folder, &st), 0);
    assert_int_equal(lstat(link, &st), 0);
}

/* ---- times that files have ---- */

/* Before 1970, or in a time to come: they are evicted like all others, and leave nothing in the order of eviction. */
static void test_odd_times(void **state)
{
    struct rig *r = *state;
    for (unsigned lost = 0; lost < 2; lost++) {
        end_uncleanly(r);
        if (lost)
            lose_index(r);
        struct digest old = put_file(r, 1, 1000, -100000), late = put_file(r, 2, 1000, 4000000000);
        rig_open(r);
        store_tidy(r->store);
        assert_true(rig_has(r, &old) && rig_has(r, &late));
        assert_int_equal(order_length(r), 2);
        assert_true(entry_of(r, &late).o.access_ms <= clock_wall_ms());
        assert_true(entry_of(r, &old).o.access_ms >= 0);
        assert_true(entry_of(r, &old).o.access_ms < entry_of(r, &late).o.access_ms);
        rig_assert_consistent(r);
        assert_int_equal(store_relieve(r->store, 1 << 20), 2000);
        assert_int_equal(order_length(r), 0);
        rig_assert_consistent(r);
    }
}

/* ---- suspects ---- */

/* What replaced an object of the same size was stored just as lately. */
static void test_what_was_stored_again_is_suspect(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_blob(r, 1, 1000);
    int64_t first = entry_of(r, &d).o.stored_ms;
    while (clock_wall_ms() <= first)
        usleep(500);
    (void)rig_blob(r, 1, 1000);
    assert_true(entry_of(r, &d).o.stored_ms > first);
    end_uncleanly(r);
    rig_open(r);
    store_tidy(r->store);
    assert_true((entry_of(r, &d).flags & RECORD_CHECKED) != 0); /* it was one, and was verified */
}

/* An index that is lost while partial files and damaged objects are there: they are counted as before. */
static void test_an_index_lost_with_all_kinds_of_files(void **state)
{
    struct rig *r = *state;
    char why[256] = "";
    struct str w = STR_INIT(why);
    struct partial p;
    struct store_totals before, after;
    struct digest good = rig_blob(r, 1, 1000), bad = rig_blob(r, 2, 2000), part = rig_digest(3);
    assert_int_equal(partial_open(r->store, &part, &p, &w), 0);
    assert_int_equal(partial_write(&p, 0, "text", 4, &w), 0);
    partial_keep(&p, 4);
    partial_close(&p);
    store_totals(r->store, &before);
    rig_close(r);
    lose_index(r);
    char path[512];
    rig_file(r, STORE_DIR_SHA256, &bad, path);
    rig_write_file(path, "cut", 3);
    rig_open(r);
    assert_true(rig_has(r, &good)); /* at once */
    store_tidy(r->store);
    store_totals(r->store, &after);
    assert_int_equal(after.objects, 1);
    assert_int_equal(after.partials, before.partials);
    assert_int_equal(after.quarantined, 1);
    assert_false(rig_has(r, &bad));
    assert_false(entry_of(r, &good).o.suspect);
    rig_assert_consistent(r);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_what_was_placed_and_never_entered),
        RIG_TEST(test_what_was_given_up_is_taken_soon),
        RIG_TEST(test_a_comparison_that_was_cut_short),
        RIG_TEST(test_an_entry_that_the_index_did_not_take),
        RIG_TEST(test_what_is_no_object_is_left_alone),
        RIG_TEST(test_odd_times),
        RIG_TEST(test_what_was_stored_again_is_suspect),
        RIG_TEST(test_an_index_lost_with_all_kinds_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
