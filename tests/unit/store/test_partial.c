/* Partial files: the front after a clean end and after a kill, commit, keep, discard. */
#include "rig.h"

#include <signal.h>
#include <sys/wait.h>

static const struct digest *digest(void)
{
    static struct digest d;
    d = rig_digest(7);
    return &d;
}

static void open_partial(struct rig *r, struct partial *p)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    if (partial_open(r->store, digest(), p, &w) != 0)
        fail_msg("partial_open: %s", why);
}

/* n bytes that are not zero at off. */
static void fill(struct partial *p, uint64_t off, size_t n)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    char *bytes = malloc(n);
    memset(bytes, 'z', n);
    if (partial_write(p, off, bytes, n, &w) != 0)
        fail_msg("partial_write: %s", why);
    free(bytes);
}

static uint64_t front_after(struct rig *r, struct partial *p)
{
    partial_close(p);
    open_partial(r, p);
    return p->front;
}

static void test_in_order(void **state)
{
    struct rig *r = *state;
    struct partial p;
    open_partial(r, &p);
    assert_int_equal(p.front, 0);
    assert_true(p.block >= 4096);
    fill(&p, 0, 10001);
    assert_int_equal(front_after(r, &p), 10001);
    fill(&p, 10001, 1 << 20);
    assert_int_equal(front_after(r, &p), 10001 + (1 << 20));
    partial_close(&p);
    partial_close(&p); /* again: a no-op */
}

static void test_commit(void **state)
{
    struct rig *r = *state;
    char why[1024] = "", byte = 0;
    struct str w = STR_INIT(why);
    struct partial p;
    open_partial(r, &p);
    fill(&p, 0, 5000);
    assert_int_equal(partial_commit(&p, 4999, &w), ERR_STORE);
    assert_non_null(strstr(why, "has 5000 bytes and should have 4999"));
    assert_int_equal(partial_commit(&p, 5001, &w), ERR_STORE);
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, digest()));
    assert_false(rig_exists(r, STORE_DIR_SHA256, digest()));
    assert_int_equal(partial_commit(&p, 5000, &w), 0);
    assert_false(rig_exists(r, STORE_DIR_PARTIAL, digest()));
    char path[512];
    struct stat st;
    rig_file(r, STORE_DIR_SHA256, digest(), path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 5000);
    assert_int_equal(pread(p.fd, &byte, 1, 4999), 1); /* still open for readers */
    assert_int_equal(byte, 'z');
    assert_int_equal(front_after(r, &p), 0); /* a new fill begins with nothing */
    assert_int_equal(partial_commit(&p, 0, &w), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 0);
    partial_close(&p);
}

static void test_commit_that_cannot_move(void **state)
{
    struct rig *r = *state;
    char why[1024] = "", path[512];
    struct str w = STR_INIT(why);
    struct partial p;
    open_partial(r, &p);
    fill(&p, 0, 10);
    rig_file(r, STORE_DIR_SHA256, digest(), path);
    assert_int_equal(mkdir(path, 0750), 0);
    assert_int_equal(partial_commit(&p, 10, &w), ERR_STORE);
    assert_non_null(strstr(why, path));
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, digest()));
    partial_close(&p);
}

static uint64_t partial_bytes(struct rig *r)
{
    struct store_totals t;
    store_totals(r->store, &t);
    return t.partial_bytes;
}

static void open_second(struct rig *r, struct partial *p)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    if (partial_open_second(r->store, digest(), p, &w) != 0)
        fail_msg("partial_open_second: %s", why);
    assert_int_equal(p->front, 0);
}

/* Each has a file of its own, both are counted, and whichever is whole first is the object. */
static void test_a_second_fill(void **state)
{
    struct rig *r = *state;
    char why[1024] = "", path[512];
    struct str w = STR_INIT(why);
    struct partial first, second;
    struct store_totals t;
    struct stat st;
    open_partial(r, &first);
    fill(&first, 0, 5000);
    open_second(r, &second);
    fill(&second, 0, 20000);
    assert_int_equal(partial_bytes(r), 25000);
    assert_int_equal(partial_commit(&second, 20000, &w), 0);
    rig_file(r, STORE_DIR_SHA256, digest(), path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 20000);
    assert_int_equal(partial_bytes(r), 5000);
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, digest()));
    partial_close(&second);
    fill(&first, 5000, 15000);
    assert_int_equal(partial_commit(&first, 20000, &w), 0);
    partial_close(&first);
    store_totals(r->store, &t);
    assert_int_equal(t.partials, 0);
    assert_int_equal(t.partial_bytes, 0);
}

/* Nobody goes on with it: it is gone when it is kept, begun anew, or closed. */
static void test_a_second_fill_leaves_nothing(void **state)
{
    struct rig *r = *state;
    char why[1024] = "";
    struct str w = STR_INIT(why);
    struct partial p;
    struct store_totals t;
    open_second(r, &p);
    fill(&p, 0, 20000);
    partial_keep(&p, 20000);
    assert_int_equal(partial_bytes(r), 0);
    partial_close(&p);
    open_second(r, &p);
    fill(&p, 0, 20000);
    assert_int_equal(partial_renew(&p, &w), 0);
    assert_int_equal(partial_bytes(r), 0);
    fill(&p, 0, 20000);
    partial_close(&p);
    store_totals(r->store, &t);
    assert_int_equal(t.partials, 0);
    assert_int_equal(t.partial_bytes, 0);
}

static void test_keep_and_discard(void **state)
{
    struct rig *r = *state;
    struct partial p;
    open_partial(r, &p);
    fill(&p, 0, 70000);
    fill(&p, 1 << 20, 100);
    partial_keep(&p, 65000);
    assert_int_equal(front_after(r, &p), 65000);
    partial_keep(&p, 0);
    assert_false(rig_exists(r, STORE_DIR_PARTIAL, digest()));
    assert_int_equal(front_after(r, &p), 0);
    fill(&p, 0, 10);
    partial_discard(&p);
    assert_false(rig_exists(r, STORE_DIR_PARTIAL, digest()));
    partial_discard(&p); /* again: a no-op */
    partial_close(&p);
}

static bool tells_holes(const struct partial *p)
{
    return lseek(p->fd, 0, SEEK_HOLE) < lseek(p->fd, 0, SEEK_END);
}

static void test_the_front_ends_below_a_hole(void **state)
{
    struct rig *r = *state;
    struct partial p;
    open_partial(r, &p);
    uint64_t ahead = 16 * (p.block > 65536 ? p.block : 65536);
    fill(&p, ahead, 4096);
    if (!tells_holes(&p))
        skip();
    assert_int_equal(front_after(r, &p), 0);
    struct {
        uint64_t filled, front;
    } const cases[] = {
        {1, 0},
        {p.block + 1, p.block}, /* the second block is begun, so the first is all that may be believed */
        {3 * p.block, 2 * p.block},
        {ahead - p.block, ahead - 2 * p.block},
        {ahead, ahead + 4096}, /* the hole is closed */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fill(&p, ahead, 4096);
        fill(&p, 0, cases[i].filled);
        assert_int_equal(front_after(r, &p), cases[i].front);
        assert_int_equal(lseek(p.fd, 0, SEEK_END), cases[i].front);
    }
    partial_close(&p);
}

/* A fill that is resumed does not know what an earlier one had ahead, and ends anywhere. */
static void test_what_lay_ahead_of_a_killed_fill_is_no_part_of_the_next(void **state)
{
    struct rig *r = *state;
    struct partial p;
    open_partial(r, &p);
    uint64_t ahead = 16 * (p.block > 65536 ? p.block : 65536);
    fill(&p, ahead, 65536);
    fill(&p, 0, 3 * p.block);
    uint64_t from = front_after(r, &p);
    fill(&p, from, ahead - 1000 - from);
    assert_int_equal(front_after(r, &p), ahead - 1000);
    struct store_totals t;
    store_totals(r->store, &t);
    assert_in_range(t.partial_bytes, 1, ahead);
    partial_close(&p);
}

/* They have it from a flight that is over, and stand anywhere. */
static void test_readers_keep_what_they_have(void **state)
{
    struct rig *r = *state;
    struct partial p, next;
    open_partial(r, &p);
    uint64_t ahead = 16 * (p.block > 65536 ? p.block : 65536);
    fill(&p, ahead, 65536);
    open_partial(r, &next);
    assert_int_equal(lseek(p.fd, 0, SEEK_END), ahead + 65536);
    partial_close(&p);
    partial_close(&next);
}

/* What a fill does that is killed: writes in order by odd pieces, and extents ahead by the rule of partial_write. */
static void fill_until_killed(struct rig *r, int ready)
{
    char why[1024];
    struct str w = STR_INIT(why);
    static char bytes[1 << 20];
    memset(bytes, 'z', sizeof bytes);
    alarm(60); /* should the test fail first */
    struct partial p;
    if (partial_open(r->store, digest(), &p, &w) != 0)
        _exit(1);
    uint64_t size = 8 << 20, ahead = 0, off = 0;
    for (unsigned turn = 0; off < size; turn++) {
        size_t n = 1 + (turn * 7919) % 40000;
        if (turn % 8 == 3) {
            ahead = (off / p.block / 16 + 4) * 16 * p.block;
            if (partial_write(&p, ahead, bytes, 5000, &w) != 0)
                _exit(2);
        }
        if (off < ahead)
            n += (size_t)(p.block - (off + n) % p.block);
        if (partial_write(&p, off, bytes, n, &w) != 0 || (turn == 5 && write(ready, "1", 1) != 1))
            _exit(3);
        off += n;
    }
    for (;;)
        pause();
}

static void test_killed_at_any_moment(void **state)
{
    struct rig *r = *state;
    static char bytes[16 << 20];
    uint64_t believed = 0;
    for (unsigned round = 0; round < 30; round++) {
        int ready[2];
        char byte;
        assert_int_equal(pipe(ready), 0);
        pid_t child = fork();
        if (child == 0)
            fill_until_killed(r, ready[1]);
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        usleep(round * 50);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        close(ready[0]);
        struct partial p;
        open_partial(r, &p);
        assert_true(p.front < sizeof bytes);
        assert_int_equal(pread(p.fd, bytes, p.front, 0), p.front);
        for (uint64_t i = 0; i < p.front; i++)
            if (bytes[i] != 'z')
                fail_msg("byte %llu of %llu was never written", (unsigned long long)i,
                         (unsigned long long)p.front);
        believed += p.front;
        partial_discard(&p);
        partial_close(&p);
    }
    assert_true(believed > 0);
}

static void test_what_is_no_file_is_refused(void **state)
{
    struct rig *r = *state;
    char why[1024] = "", path[512], target[512];
    struct str w = STR_INIT(why);
    struct partial p;
    rig_file(r, STORE_DIR_PARTIAL, digest(), path);
    snprintf(target, sizeof target, "%s/elsewhere", r->dir);
    rig_write_file(target, "precious", 8);
    assert_int_equal(symlink("../../elsewhere", path), 0);
    assert_int_equal(partial_open(r->store, digest(), &p, &w), ERR_STORE);
    assert_non_null(strstr(why, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0750), 0);
    assert_int_equal(partial_open(r->store, digest(), &p, &w), ERR_STORE);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0640), 0);
    assert_int_equal(partial_open(r->store, digest(), &p, &w), ERR_STORE);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_in_order),
        RIG_TEST(test_commit),
        RIG_TEST(test_commit_that_cannot_move),
        RIG_TEST(test_a_second_fill),
        RIG_TEST(test_a_second_fill_leaves_nothing),
        RIG_TEST(test_keep_and_discard),
        RIG_TEST(test_the_front_ends_below_a_hole),
        RIG_TEST(test_what_lay_ahead_of_a_killed_fill_is_no_part_of_the_next),
        RIG_TEST(test_readers_keep_what_they_have),
        RIG_TEST(test_killed_at_any_moment),
        RIG_TEST(test_what_is_no_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
