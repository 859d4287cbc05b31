/* Writes that fail. The program has its own pwrite, openat, fdatasync and so on, which fail when they are told; on the files of the
 * index only when that is asked for. */
#undef _FORTIFY_SOURCE /* this defines what it would define */
#include "rig.h"

#include <dlfcn.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "store/health.h"
#include "store/index_int.h"

/* Which call fails, on what, with what, after how many that do not. */
enum call { NO_CALL, CALL_PWRITE, CALL_OPENAT, CALL_FDATASYNC, CALL_RENAME, CALL_FSYNC, CALL_PWRITE_META };

static struct {
    atomic_int call;
    atomic_int error;
    atomic_int after; /* so many succeed; each that fails leaves it at 0 */
    atomic_int times; /* so many fail; -1: all */
    atomic_uint failed;
    atomic_bool index; /* the files of the index, and no others */
} fault;

static bool fails(enum call call)
{
    if (atomic_load(&fault.call) != (int)call)
        return false;
    if (atomic_load(&fault.after) > 0) {
        atomic_fetch_sub(&fault.after, 1);
        return false;
    }
    int times = atomic_load(&fault.times);
    if (times == 0)
        return false;
    if (times > 0)
        atomic_fetch_sub(&fault.times, 1);
    atomic_fetch_add(&fault.failed, 1);
    errno = atomic_load(&fault.error);
    return true;
}

/* LMDB writes with the same calls. */
static bool fails_on(enum call call, int fd)
{
    char link[64], path[512];
    if (atomic_load(&fault.call) != (int)call)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return (strstr(path, "/index/") != NULL) == atomic_load(&fault.index) && fails(call);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return fails_on(CALL_PWRITE, fd) ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

/* Here pwrite is called pwrite64; LMDB calls the other one, and writev. Its first two pages are written last, and say which of
 * the others count; they fail only when that is asked for. */
ssize_t plain_pwrite(int fd, const void *p, size_t n, off_t at) __asm__("pwrite");
ssize_t plain_pwrite(int fd, const void *p, size_t n, off_t at)
{
    bool first = at < 8192;
    if (first && fails_on(CALL_PWRITE_META, fd))
        return -1;
    return first ? syscall(SYS_pwrite64, fd, p, n, at) : pwrite(fd, p, n, at);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    return fails_on(CALL_PWRITE, fd) ? -1 : syscall(SYS_writev, fd, v, n);
}

int openat(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    unsigned mode = (flags & O_CREAT) != 0 ? va_arg(args, unsigned) : 0;
    va_end(args);
    if ((flags & O_CREAT) != 0 && fails(CALL_OPENAT))
        return -1;
    return (int)syscall(SYS_openat, dir, name, flags, mode);
}

int fdatasync(int fd)
{
    return fails_on(CALL_FDATASYNC, fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return fails_on(CALL_FSYNC, fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int renameat(int from, const char *a, int to, const char *b)
{
    return fails(CALL_RENAME) ? -1 : (int)syscall(SYS_renameat2, from, a, to, b, 0);
}

static void fail_with(enum call call, int error, int after, int times)
{
    atomic_store(&fault.call, NO_CALL);
    atomic_store(&fault.error, error);
    atomic_store(&fault.after, after);
    atomic_store(&fault.times, times);
    atomic_store(&fault.failed, 0);
    atomic_store(&fault.call, (int)call);
}

static void heal(void)
{
    atomic_store(&fault.call, NO_CALL);
}

static enum store_fault state_of(struct rig *r)
{
    struct store_health h;
    store_health(r->store, &h);
    return h.fault;
}

static void assert_heals(struct rig *r)
{
    heal();
    store_tidy(r->store);
    assert_int_equal(state_of(r), FAULT_NONE);
}

#define WHY                                                                                                  \
    char why[1024] = "";                                                                                     \
    struct str w = STR_INIT(why)

/* ---- what each error is ---- */

static const struct {
    int error;
    enum store_fault fault;
    bool general;
} kinds[] = {{ENOSPC, FAULT_FULL, true},     {EDQUOT, FAULT_FULL, true},   {EFBIG, FAULT_FULL, true},
             {EROFS, FAULT_READONLY, true},  {EIO, FAULT_FAILING, true},   {EACCES, FAULT_FAILING, true},
             {EMFILE, FAULT_BUSY, false},    {ENFILE, FAULT_BUSY, false},  {ENOMEM, FAULT_BUSY, false},
             {EISDIR, FAULT_FAILING, false}, {ELOOP, FAULT_FAILING, false}};

static void test_every_error_has_its_kind(void **state)
{
    struct rig *r = *state;
    WHY;
    struct digest d = rig_digest(1);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct partial p;
        struct store_health before, after;
        store_health(r->store, &before);
        fail_with(CALL_OPENAT, kinds[i].error, 0, -1);
        assert_int_equal(partial_open(r->store, &d, &p, &w), ERR_STORE);
        assert_int_equal(p.fault, kinds[i].fault);
        store_health(r->store, &after);
        assert_int_equal(after.fault, kinds[i].general ? kinds[i].fault : FAULT_NONE);
        assert_int_equal(after.failures, before.failures + kinds[i].general);
        if (kinds[i].general)
            assert_int_equal(after.error, kinds[i].error);
        assert_non_null(strstr(why, store_errno_words(kinds[i].error)));
        str_reset(&w);
        assert_heals(r);
    }
    rig_assert_consistent(r);
    assert_string_equal(store_fault_name(FAULT_NONE), "ok");
    assert_string_equal(store_fault_name(FAULT_READONLY), "read-only");
}

static void test_it_does_not_heal_while_it_fails(void **state)
{
    struct rig *r = *state;
    WHY;
    struct digest d = rig_digest_of("text", 4);
    static const enum call calls[] = {CALL_OPENAT, CALL_PWRITE, CALL_FDATASYNC};
    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        fail_with(calls[i], EIO, 0, -1);
        assert_int_equal(store_write_object(r->store, &d, SPAN("text"), &w), ERR_STORE);
        assert_int_equal(state_of(r), FAULT_FAILING);
        store_tidy(r->store);
        assert_int_equal(state_of(r), FAULT_FAILING);
        assert_heals(r);
        assert_false(rig_has(r, &d));
    }
    rig_assert_consistent(r);
}

/* ---- a full disk ---- */

/* What can be evicted makes room, and the write goes on; nobody hears of it. */
static void test_a_full_disk_is_relieved(void **state)
{
    struct rig *r = *state;
    WHY;
    struct partial p;
    struct digest d = rig_digest(1000);
    struct store_totals t;
    char *bytes = rig_bytes(1, 100000);
    (void)rig_blob(r, 1, 1000);
    fail_with(CALL_OPENAT, ENOSPC, 0, 1); /* no inode */
    assert_int_equal(partial_open(r->store, &d, &p, &w), 0);
    assert_int_equal(atomic_load(&fault.failed), 1);
    store_totals(r->store, &t);
    assert_int_equal(t.evicted, 1);
    (void)rig_blob(r, 2, 1000);
    fail_with(CALL_PWRITE, ENOSPC, 0, 1);
    assert_int_equal(partial_write(&p, 0, bytes, 100000, &w), 0);
    (void)rig_blob(r, 3, 1000);
    fail_with(CALL_PWRITE, EDQUOT, 0, 1);
    struct digest text = rig_digest_of("text", 4);
    assert_int_equal(store_write_object(r->store, &text, SPAN("text"), &w), 0);
    struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = text, .size = 4};
    assert_int_equal(rig_apply(r, &c), 0);
    store_totals(r->store, &t);
    assert_int_equal(t.evicted, 3);
    assert_int_equal(state_of(r), FAULT_NONE);
    assert_int_equal(p.fault, FAULT_NONE);
    partial_close(&p);
    rig_assert_consistent(r);
    free(bytes);
}

/* With nothing to evict, or with room that does not help, the write fails, and says that the disk is full. */
static void test_a_disk_that_stays_full(void **state)
{
    struct rig *r = *state;
    WHY;
    struct partial p;
    struct store_totals t;
    struct digest d = rig_digest(1000);
    char *bytes = rig_bytes(1, 100000);
    assert_int_equal(partial_open(r->store, &d, &p, &w), 0);
    for (unsigned i = 0; i < 3; i++)
        (void)rig_blob(r, i, 1000);
    fail_with(CALL_PWRITE, ENOSPC, 0, -1);
    assert_int_equal(partial_write(&p, 0, bytes, 100000, &w), ERR_STORE);
    assert_int_equal(p.fault, FAULT_FULL);
    assert_int_equal(state_of(r), FAULT_FULL);
    assert_true(atomic_load(&fault.failed) >= 2); /* it was tried again; and the keeper tries, too */
    store_totals(r->store, &t);
    assert_int_equal(t.evicted, 3);
    assert_int_equal(partial_write(&p, 0, bytes, 100000, &w), ERR_STORE); /* nothing is left to evict */
    assert_heals(r);
    assert_int_equal(partial_write(&p, 0, bytes, 100000, &w), 0);
    partial_discard(&p);
    partial_close(&p);
    rig_assert_consistent(r);
    free(bytes);
}

/* What no eviction can help is not answered by one. */
static void test_other_errors_evict_nothing(void **state)
{
    struct rig *r = *state;
    WHY;
    static const int errors[] = {EIO, EROFS, EFBIG, EMFILE};
    struct digest blob = rig_blob(r, 1, 1000), d = rig_digest_of("text", 4);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        fail_with(CALL_PWRITE, errors[i], 0, -1);
        assert_int_equal(store_write_object(r->store, &d, SPAN("text"), &w), ERR_STORE);
        assert_true(rig_has(r, &blob));
        assert_heals(r);
    }
}

struct writing {
    struct partial *partial;
    uint64_t off;
    int err;
};

static void *write_there(void *arg)
{
    struct writing *a = arg;
    WHY;
    a->err = partial_write(a->partial, a->off, "x", 1, &w);
    return NULL;
}

/* The front and what is ahead of it are written by two threads. */
static void test_two_writes_fail_at_once(void **state)
{
    struct rig *r = *state;
    WHY;
    struct partial p;
    struct digest d = rig_digest(1000);
    assert_int_equal(partial_open(r->store, &d, &p, &w), 0);
    fail_with(CALL_PWRITE, EIO, 0, -1);
    for (unsigned i = 0; i < 10; i++) {
        struct writing front = {.partial = &p}, ahead = {.partial = &p, .off = 65536};
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, write_there, &front), 0);
        (void)write_there(&ahead);
        pthread_join(t, NULL);
        assert_int_equal(front.err, ERR_STORE);
        assert_int_equal(ahead.err, ERR_STORE);
        assert_int_equal(p.fault, FAULT_FAILING);
    }
    assert_heals(r);
    partial_close(&p);
}

/* ---- every call of a commit ---- */

static void test_every_call_of_a_commit_may_fail(void **state)
{
    struct rig *r = *state;
    static const struct {
        enum call call;
        int after;
        bool moved; /* the file has its name: it is found as a leftover later */
    } ways[] = {
        {CALL_FDATASYNC, 0, false}, {CALL_RENAME, 0, false}, {CALL_FSYNC, 0, true}, {CALL_FSYNC, 1, true}};
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        WHY;
        struct partial p;
        size_t n = 10000;
        char *bytes = rig_bytes((unsigned)i, n);
        struct digest d = rig_digest_of(bytes, n);
        assert_int_equal(partial_open(r->store, &d, &p, &w), 0);
        assert_int_equal(partial_write(&p, 0, bytes, n, &w), 0);
        fail_with(ways[i].call, EIO, ways[i].after, -1);
        assert_int_equal(partial_commit(&p, n, &w), ERR_STORE);
        assert_int_equal(p.fault, FAULT_FAILING);
        assert_int_equal(rig_exists(r, STORE_DIR_SHA256, &d), ways[i].moved);
        assert_int_equal(rig_exists(r, STORE_DIR_PARTIAL, &d), !ways[i].moved);
        assert_heals(r);
        if (!ways[i].moved) { /* it can be tried again */
            struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = d, .size = n};
            assert_int_equal(partial_commit(&p, n, &w), 0);
            assert_int_equal(rig_apply(r, &c), 0);
        }
        partial_close(&p);
        free(bytes);
    }
    for (size_t i = 0; i < ARRAY_LEN(ways) - 1; i++) {
        WHY;
        char text[16];
        snprintf(text, sizeof text, "text %d", (int)i);
        struct digest d = rig_digest_of(text, strlen(text));
        fail_with(ways[i].call, EIO, ways[i].after, -1);
        assert_int_equal(store_write_object(r->store, &d, span_str(text), &w), ERR_STORE);
        assert_heals(r);
    }
    /* The next start after a kill finds what was moved and not entered. */
    char path[512];
    rig_close(r);
    snprintf(path, sizeof path, "%s/lock", r->path);
    rig_write_file(path, "1\n", 2);
    rig_open(r);
    store_tidy(r->store);
    rig_assert_consistent(r);
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.objects, 4 + 1);
}

/* ---- the index ---- */

/* A change that the index cannot take fails alone; what is read is what was there, and later changes go on. */
static void test_the_index_may_fail(void **state)
{
    struct rig *r = *state;
    struct digest kept = rig_blob(r, 1, 1000), d = rig_digest(2);
    static const enum call calls[] = {CALL_PWRITE, CALL_FDATASYNC};
    static const int errors[] = {ENOSPC, EIO, EROFS};
    atomic_store(&fault.index, true);
    for (size_t i = 0; i < ARRAY_LEN(calls) * ARRAY_LEN(errors); i++) {
        int error = errors[i % ARRAY_LEN(errors)];
        struct store_object o;
        struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = d, .size = 7};
        fail_with(calls[i / ARRAY_LEN(errors)], error, 0, -1);
        assert_int_equal(rig_apply(r, &c), ERR_STORE);
        assert_true(atomic_load(&fault.failed) > 0);
        struct store_health h;
        store_health(r->store, &h); /* the keeper may have found the folders healthy by now */
        assert_int_equal(h.error, error);
        assert_int_equal(store_relieve(r->store, 1), 0); /* what cannot be forgotten is not removed */
        assert_true(rig_has(r, &kept));
        assert_false(rig_object(r, &d, &o));
        assert_heals(r);
        rig_assert_consistent(r);
    }
    atomic_store(&fault.index, false);
    assert_int_equal(store_relieve(r->store, 1), 1000);
    rig_assert_consistent(r);
}

struct looking {
    struct rig *r;
    struct digest digest;
    atomic_bool stop;
    atomic_uint there, gone;
};

static void *look(void *arg)
{
    struct looking *l = arg;
    struct store_reader *reader = store_reader_new(l->r->store);
    struct store_object o;
    while (!atomic_load(&l->stop))
        atomic_fetch_add(store_get_object(reader, &l->digest, &o) ? &l->there : &l->gone, 1);
    store_reader_free(reader);
    return NULL;
}

/* The one write after which LMDB gives up: the index is opened again, under readers that go on. */
static void test_the_index_is_opened_again(void **state)
{
    struct rig *r = *state;
    struct looking l = {.r = r, .digest = rig_blob(r, 1, 1000)};
    struct store_reader *reader = store_reader_new(r->store);
    struct store_object o;
    pthread_t t;
    assert_true(store_get_object(reader, &l.digest, &o));
    assert_int_equal(pthread_create(&t, NULL, look, &l), 0);
    atomic_store(&fault.index, true);
    for (unsigned i = 2; i < 12; i++) {
        struct store_change c = {.what = CHANGE_PUT_LINK, .digest = l.digest, .repo = "a/b"};
        fail_with(CALL_PWRITE_META, EIO, 0, 1);
        assert_int_equal(rig_apply(r, &c), ERR_STORE);
        (void)rig_apply(r, &c); /* fails, or the keeper was faster */
        heal();
        store_tidy(r->store);
        assert_int_equal(state_of(r), FAULT_NONE);
        assert_int_equal(rig_apply(r, &c), 0);
        assert_true(store_get_object(reader, &l.digest, &o));
        (void)rig_blob(r, i, 1000);
        rig_assert_consistent(r);
    }
    atomic_store(&fault.index, false);
    unsigned there = atomic_load(&l.there);
    while (atomic_load(&l.there) == there)
        usleep(1000);
    atomic_store(&l.stop, true);
    pthread_join(t, NULL);
    store_reader_free(reader);
}

/* LMDB's own, late: whoever should have waited for it has not. */
static _Thread_local bool late;

void mdb_txn_abort(MDB_txn *t)
{
    void (*real)(MDB_txn *);
    *(void **)(void *)&real = dlsym(RTLD_NEXT, "mdb_txn_abort");
    if (late)
        usleep(1000);
    real(t);
}

static void *come_and_go(void *arg)
{
    struct looking *l = arg;
    struct store_object o;
    late = true;
    while (!atomic_load(&l->stop)) {
        struct store_reader *reader = store_reader_new(l->r->store);
        atomic_fetch_add(store_get_object(reader, &l->digest, &o) ? &l->there : &l->gone, 1);
        store_reader_free(reader);
        usleep(1000); /* others have their turn at the list of readers */
    }
    return NULL;
}

/* Readers come and go while it is opened again. */
static void test_it_is_opened_again_under_readers_that_go(void **state)
{
    struct rig *r = *state;
    struct looking l = {.r = r, .digest = rig_blob(r, 1, 1000)};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, come_and_go, &l), 0);
    for (unsigned i = 0; i < 20; i++) {
        atomic_store(&r->store->index->broken, true);
        store_tidy(r->store);
    }
    atomic_store(&l.stop, true);
    pthread_join(t, NULL);
    assert_int_equal(atomic_load(&l.gone), 0);
}

/* LMDB has given up, as every transaction is told. */
static atomic_bool panics;

int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **out)
{
    int (*real)(MDB_env *, MDB_txn *, unsigned, MDB_txn **);
    *(void **)(void *)&real = dlsym(RTLD_NEXT, "mdb_txn_begin");
    return atomic_load(&panics) ? MDB_PANIC : real(env, parent, flags, out);
}

/* The first to find out is the keeper, when it writes down at the end where scrubbing is. */
static void test_a_stop_meets_a_broken_index(void **state)
{
    struct rig *r = *state;
    struct store_scrub now = {.objects = 0};
    for (unsigned i = 0; i < 20; i++)
        (void)rig_blob(r, i, 1000);
    store_set_limits(r->store, &(struct store_limits){.scrub_rate = 5000}); /* 4 seconds for all */
    while (now.objects == 0) {
        usleep(10000);
        store_scrub_now(r->store, &now);
    }
    atomic_store(&panics, true);
    rig_close(r);
    atomic_store(&panics, false);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_every_error_has_its_kind),
        RIG_TEST(test_it_does_not_heal_while_it_fails),
        RIG_TEST(test_a_full_disk_is_relieved),
        RIG_TEST(test_a_disk_that_stays_full),
        RIG_TEST(test_other_errors_evict_nothing),
        RIG_TEST(test_two_writes_fail_at_once),
        RIG_TEST(test_every_call_of_a_commit_may_fail),
        RIG_TEST(test_the_index_may_fail),
        RIG_TEST(test_the_index_is_opened_again),
        RIG_TEST(test_it_is_opened_again_under_readers_that_go),
        RIG_TEST(test_a_stop_meets_a_broken_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
