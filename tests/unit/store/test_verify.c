/* Verifying, scrubbing, suspects, files without an entry. */
#include "rig.h"

#include "base/clock.h"
#include "store/open.h"
#include "store/verify.h"

#define SIZE (3u << 20)

enum damage { FLIPPED, ZEROED, SWAPPED, SHORT, LONG, GONE, FOLDER, DAMAGES };

static void damage(struct rig *r, const struct digest *d, enum damage how)
{
    char path[512];
    rig_file(r, STORE_DIR_SHA256, d, path);
    char *other = rig_bytes(777, SIZE), c;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    switch (how) {
    case FLIPPED:
        assert_int_equal(pread(fd, &c, 1, SIZE - 1), 1);
        c = (char)(c ^ 1);
        assert_int_equal(pwrite(fd, &c, 1, SIZE - 1), 1);
        break;
    case ZEROED:
        memset(other, 0, 4096);
        assert_int_equal(pwrite(fd, other, 4096, 1 << 20), 4096);
        break;
    case SWAPPED:
        assert_int_equal(store_write_all(fd, 0, other, SIZE), 0);
        break;
    case SHORT:
        assert_int_equal(ftruncate(fd, SIZE - 1), 0);
        break;
    case LONG:
        assert_int_equal(ftruncate(fd, SIZE + 1), 0);
        break;
    case FOLDER:
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0750), 0);
        break;
    default:
        assert_int_equal(unlink(path), 0);
        break;
    }
    close(fd);
    free(other);
}

static void test_every_damage_is_found(void **state)
{
    struct rig *r = *state;
    for (int deep = 0; deep < 2; deep++) {
        for (enum damage how = 0; how < DAMAGES; how++) {
            struct store_object o;
            struct digest d = rig_blob(r, how, SIZE);
            assert_int_equal(store_verify(r->store, &d, deep, NULL), VERIFY_GOOD);
            damage(r, &d, how);
            assert_int_equal(store_verify(r->store, &d, deep, NULL),
                             how == GONE ? VERIFY_MISSING : VERIFY_DAMAGED);
            assert_false(rig_has(r, &d));
            assert_false(rig_object(r, &d, &o));
            assert_int_equal(rig_exists(r, STORE_DIR_QUARANTINE, &d), how != GONE);
            assert_int_equal(store_verify(r->store, &d, deep, NULL), VERIFY_UNKNOWN);
        }
    }
    char path[512];
    struct digest d = rig_digest_of("", 0);
    rig_blob(r, 0, 0);
    assert_int_equal(store_verify(r->store, &d, true, NULL), VERIFY_GOOD);
    char *bytes = rig_bytes(FOLDER, SIZE);
    d = rig_digest_of(bytes, SIZE);
    free(bytes);
    rig_file(r, STORE_DIR_QUARANTINE, &d, path);
    assert_int_equal(rmdir(path), 0); /* a folder is none of the files that are counted */
}

/* Without a sum the digest is what counts, and the sum is known afterwards; one that is wrong is mended when the digest is right. */
static void test_sums_are_filled_in(void **state)
{
    struct rig *r = *state;
    struct store_object o;
    struct content_sum right;
    struct digest d = rig_blob(r, 1, 100000);
    assert_true(rig_object(r, &d, &o));
    right = o.sum;
    struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = d, .size = 100000};
    assert_int_equal(rig_apply(r, &c), 0);
    assert_true(rig_object(r, &d, &o));
    assert_false(o.sum.known);
    assert_int_equal(store_verify(r->store, &d, false, NULL), VERIFY_GOOD);
    assert_true(rig_object(r, &d, &o));
    assert_true(content_sum_eq(&o.sum, &right));
    c.sum = right;
    c.sum.raw[3] ^= 1;
    assert_int_equal(rig_apply(r, &c), 0);
    assert_int_equal(store_verify(r->store, &d, true, NULL), VERIFY_GOOD);
    assert_true(rig_object(r, &d, &o));
    assert_true(content_sum_eq(&o.sum, &right));
}

/* Who found damage may come late: somebody else has put it away and fetched it again, or is about to. */
static void test_a_new_copy_is_not_condemned(void **state)
{
    struct rig *r = *state;
    struct store_object was, is;
    struct digest d = rig_blob(r, 1, SIZE);
    assert_true(rig_object(r, &d, &was));
    damage(r, &d, FLIPPED);
    hold_place(r->store, &d); /* the new file may have its name already */
    assert_false(store_condemn(r->store, &d, &was));
    hold_indexed(r->store, &d);
    assert_true(rig_has(r, &d));
    assert_true(store_condemn(r->store, &d, &was));
    assert_false(rig_has(r, &d));
    assert_false(store_condemn(r->store, &d, &was));
    usleep(2000); /* another time of storing */
    rig_blob(r, 1, SIZE);
    assert_false(store_condemn(r->store, &d, &was));
    assert_true(rig_object(r, &d, &is));
    assert_int_equal(is.size, was.size);
    assert_int_equal(store_verify(r->store, &d, true, NULL), VERIFY_GOOD);
    rig_assert_consistent(r);
}

/* ---- a pass ---- */

struct heard {
    pthread_mutex_t lock;
    unsigned damaged, missing;
};

static void on_damaged(const struct digest *d, enum verify_found found, void *arg)
{
    struct heard *h = arg;
    UNUSED(d);
    pthread_mutex_lock(&h->lock);
    h->damaged += found == VERIFY_DAMAGED;
    h->missing += found == VERIFY_MISSING;
    pthread_mutex_unlock(&h->lock);
}

static void test_a_pass(void **state)
{
    struct rig *r = *state;
    struct heard h = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct digest d[200];
    for (unsigned i = 0; i < ARRAY_LEN(d); i++)
        d[i] = rig_blob(r, i, i % 50 == 0 ? SIZE : 1000 + i);
    damage(r, &d[0], FLIPPED);
    damage(r, &d[50], ZEROED);
    damage(r, &d[100], GONE);
    struct store_totals t;
    store_totals(r->store, &t);
    for (unsigned deep = 0; deep < 2; deep++) {
        struct verify_progress p;
        h.damaged = h.missing = 0;
        struct verify_pass *v = verify_start(r->store, deep, on_damaged, &h);
        assert_non_null(v);
        do {
            usleep(1000);
            verify_look(v, &p);
        } while (!p.done);
        verify_join(v);
        assert_int_equal(p.objects, deep ? 197 : 200);
        assert_int_equal(p.objects_all, p.objects);
        assert_int_equal(p.damaged, deep ? 0 : 2);
        assert_int_equal(p.missing, deep ? 0 : 1);
        assert_int_equal(p.failed, 0);
        assert_int_equal(h.damaged, p.damaged);
        assert_int_equal(h.missing, p.missing);
        assert_int_equal(p.bytes, deep ? p.bytes_all : t.bytes - SIZE);
    }
    rig_assert_consistent(r);
}

static void test_a_pass_is_cancelled(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < 100; i++)
        (void)rig_blob(r, i, 1000);
    struct verify_pass *v = verify_start(r->store, true, NULL, NULL);
    assert_non_null(v);
    verify_cancel(v);
    verify_join(v);
    verify_join(NULL);
}

/* What is told to stop judges nothing, however small it is. */
static void test_a_verification_is_stopped(void **state)
{
    struct rig *r = *state;
    atomic_bool stop = true;
    struct digest large = rig_blob(r, 1, SIZE), small = rig_blob(r, 2, 1);
    damage(r, &large, FLIPPED);
    assert_int_equal(store_verify(r->store, &large, false, &stop), VERIFY_FAILED);
    assert_int_equal(store_verify(r->store, &small, true, &stop), VERIFY_FAILED);
    assert_true(rig_has(r, &large));
    stop = false;
    assert_int_equal(store_verify(r->store, &large, false, &stop), VERIFY_DAMAGED);
    assert_int_equal(store_verify(r->store, &small, true, &stop), VERIFY_GOOD);
}

/* ---- scrubbing ---- */

static void wait_round(struct rig *r, struct store_scrub *now)
{
    uint64_t before = now->rounds;
    for (unsigned i = 0; i < 20000; i++) {
        store_scrub_now(r->store, now);
        if (now->rounds > before)
            return;
        usleep(1000);
    }
    fail_msg("the scrubber does not get round");
}

static void test_the_scrubber_finds_damage(void **state)
{
    struct rig *r = *state;
    struct store_scrub now = {.rounds = 0};
    struct digest d[10];
    for (unsigned i = 0; i < ARRAY_LEN(d); i++)
        d[i] = rig_blob(r, i, i == 3 ? SIZE : 10000);
    damage(r, &d[3], FLIPPED);
    store_set_limits(r->store, &(struct store_limits){.scrub_rate = UINT64_C(1) << 40});
    wait_round(r, &now);
    assert_false(rig_has(r, &d[3]));
    assert_true(rig_exists(r, STORE_DIR_QUARANTINE, &d[3]));
    for (unsigned i = 0; i < ARRAY_LEN(d); i++)
        assert_int_equal(rig_has(r, &d[i]), i != 3);
    rig_assert_consistent(r);
}

/* What a round is said to have read is what sets the pace: to find and open a small object takes time, too. */
static void test_a_small_object_costs_as_much_as_a_piece(void **state)
{
    struct rig *r = *state;
    uint64_t bytes, all = 0;
    for (unsigned i = 0; i < 3; i++)
        rig_blob(r, i, 1000);
    rig_blob(r, 3, SIZE);
    struct scrub *c = scrub_new(r->store, false);
    while (scrub_step(c, &bytes))
        all += bytes;
    assert_int_equal(all, 3 * 65536 + SIZE);
    scrub_free(c);
}

/* It goes on where it was: a walk that is ended after one object begins with the next. */
static void test_the_scrubber_remembers(void **state)
{
    struct rig *r = *state;
    struct store_scrub now;
    uint64_t bytes, all = 0, read = 0;
    unsigned walks = 0, objects = 0;
    bool more = true;
    for (unsigned i = 1; i <= 100; i++) {
        (void)rig_blob(r, i, i);
        all += i;
    }
    while (more && walks++ < 1000) {
        struct scrub *c = scrub_new(r->store, false);
        do {
            more = scrub_step(c, &bytes);
            scrub_look(c, &now);
        } while (more && now.objects < 1);
        read += now.bytes;
        objects += now.objects;
        scrub_free(c);
    }
    assert_int_equal(objects, 100);
    assert_int_equal(read, all);
    assert_int_equal(walks, 101);
}

/* ---- suspects ---- */

/* The store is closed as if the process had been killed. */
static void end_uncleanly(struct rig *r)
{
    char path[512];
    rig_close(r);
    snprintf(path, sizeof path, "%s/lock", r->path);
    rig_write_file(path, "1\n", 2);
}

static bool is_suspect(struct rig *r, const struct digest *d)
{
    struct store_object o;
    assert_true(rig_object(r, d, &o));
    return o.suspect;
}

static void test_what_was_stored_last_is_suspect(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_blob(r, 1, 1000);
    assert_false(is_suspect(r, &d));
    rig_close(r);
    rig_open(r);
    assert_false(is_suspect(r, &d)); /* a proper end */
    end_uncleanly(r);
    /* The keeper looks at suspects by itself; it must not be through before we are: so it is not asked, but seen. */
    rig_open(r);
    struct store_object o;
    for (unsigned i = 0; i < 20000 && rig_object(r, &d, &o) && o.suspect; i++)
        usleep(1000);
    assert_false(is_suspect(r, &d));
    store_tidy(r->store);
    struct digest later = rig_blob(r, 2, 1000);
    assert_false(is_suspect(r, &later));
    rig_close(r);
    rig_open(r);
    assert_false(is_suspect(r, &d));
}

static void test_suspects_that_are_damaged_go(void **state)
{
    struct rig *r = *state;
    struct digest good = rig_blob(r, 1, SIZE), bad = rig_blob(r, 2, SIZE);
    end_uncleanly(r);
    damage(r, &bad, ZEROED);
    rig_open(r);
    store_tidy(r->store);
    assert_true(rig_has(r, &good));
    assert_false(rig_has(r, &bad));
    assert_true(rig_exists(r, STORE_DIR_QUARANTINE, &bad));
    rig_assert_consistent(r);
}

struct opening {
    struct rig *r;
    struct open_set *set;
    struct digest digest;
    struct store_object record;
    struct open_wait w;
    enum open_result result;
    struct open_object *object;
    sem_t done;
};

static void on_opened(struct open_wait *w)
{
    struct opening *o = CONTAINER_OF(w, struct opening, w);
    o->object = w->object;
    sem_post(&o->done);
}

static void begin_opening(void *arg)
{
    struct opening *o = arg;
    o->set = open_set_new(o->r->core, o->r->store, 10);
    o->w.done = on_opened;
    o->result = open_get(o->set, &o->digest, &o->record, OPEN_FILE, &o->w, &o->object);
}

static void end_opening(void *arg)
{
    struct opening *o = arg;
    if (o->object != NULL)
        open_put(o->set, o->object);
    open_set_free(o->set);
}

/* Whoever opens a suspect waits until it is verified; damaged, it is a miss. The index says suspect here whether the keeper was faster
 * or not. */
static void test_suspects_are_verified_when_opened(void **state)
{
    struct rig *r = *state;
    for (unsigned bad = 0; bad < 2; bad++) {
        struct opening o = {.r = r};
        o.digest = rig_blob(r, bad, SIZE);
        assert_true(rig_object(r, &o.digest, &o.record));
        if (bad)
            damage(r, &o.digest, ZEROED);
        o.record.suspect = true;
        sem_init(&o.done, 0, 0);
        rig_on_core(r, begin_opening, &o);
        assert_int_equal(o.result, OPEN_WAIT);
        rig_wait(&o.done);
        assert_int_equal(o.object == NULL, bad);
        assert_int_equal(o.w.err, 0);
        assert_int_equal(rig_has(r, &o.digest), !bad);
        rig_on_core(r, end_opening, &o);
        sem_destroy(&o.done);
    }
}

/* ---- files without an entry ---- */

static void test_files_without_an_entry_are_adopted(void **state)
{
    struct rig *r = *state;
    char path[512];
    struct digest known = rig_blob(r, 1, 1000), wrong = rig_digest(7);
    char *bytes = rig_bytes(2, 2000);
    struct digest good = rig_digest_of(bytes, 2000);
    end_uncleanly(r);
    rig_file(r, STORE_DIR_SHA256, &good, path);
    rig_write_file(path, bytes, 2000);
    rig_file(r, STORE_DIR_SHA256, &wrong, path);
    rig_write_file(path, "not this", 8);
    free(bytes);
    rig_open(r);
    store_tidy(r->store);
    assert_true(rig_has(r, &known) && rig_has(r, &good));
    assert_false(rig_has(r, &wrong));
    assert_true(rig_exists(r, STORE_DIR_QUARANTINE, &wrong));
    assert_false(is_suspect(r, &good));
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.objects, 2);
    assert_int_equal(t.bytes, 3000);
    rig_assert_consistent(r);
}

/* The file is there and its entry is on the way: it is not taken for a leftover in the meantime, nor by purging. */
static void test_an_entry_on_its_way(void **state)
{
    struct rig *r = *state;
    char why[256] = "";
    struct str w = STR_INIT(why);
    char *bytes = rig_bytes(1, 1000);
    struct digest d = rig_digest_of(bytes, 1000);
    assert_int_equal(store_write_object(r->store, &d, span_of(bytes, 1000), &w), 0);
    assert_false(hold_claim(r->store, &d, true));
    struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = d, .size = 1000};
    assert_int_equal(rig_apply(r, &c), 0);
    assert_true(hold_claim(r->store, &d, true));
    assert_false(hold_claim(r->store, &d, true));
    hold_unclaim(r->store, &d, false);
    assert_true(rig_has(r, &d));
    free(bytes);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_every_damage_is_found),
        RIG_TEST(test_a_new_copy_is_not_condemned),
        RIG_TEST(test_sums_are_filled_in),
        RIG_TEST(test_a_pass),
        RIG_TEST(test_a_pass_is_cancelled),
        RIG_TEST(test_a_verification_is_stopped),
        RIG_TEST(test_the_scrubber_finds_damage),
        RIG_TEST(test_a_small_object_costs_as_much_as_a_piece),
        RIG_TEST(test_the_scrubber_remembers),
        RIG_TEST(test_what_was_stored_last_is_suspect),
        RIG_TEST(test_suspects_that_are_damaged_go),
        RIG_TEST(test_suspects_are_verified_when_opened),
        RIG_TEST(test_files_without_an_entry_are_adopted),
        RIG_TEST(test_an_entry_on_its_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
