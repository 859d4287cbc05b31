/* Opening a store: its folders, the lock, what is refused and how that reads; whole objects written and moved. */
#include "rig.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

static void below(const struct rig *r, const char *name, char out[512])
{
    snprintf(out, 512, "%s/%s", r->path, name);
}

static void touch_below(const struct rig *r, const char *name)
{
    char path[512];
    below(r, name, path);
    rig_write_file(path, "x", 1);
}

static bool exists_below(const struct rig *r, const char *name)
{
    char path[512];
    below(r, name, path);
    return access(path, F_OK) == 0;
}

/* Refused, and the reason has all of the texts. */
static void assert_refused(const char *path, const char *const *texts)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    assert_null(store_open(span_str(path), &w));
    assert_false(w.cut);
    for (; *texts != NULL; texts++)
        if (strstr(why, *texts) == NULL)
            fail_msg("the reason does not say '%s': %s", *texts, why);
}

#define ASSERT_REFUSED(path, ...) assert_refused((path), (const char *const[]){__VA_ARGS__, NULL})

static void test_open_makes_the_folders(void **state)
{
    struct rig *r = *state;
    snprintf(r->path, sizeof r->path, "%s/some/where/store", r->dir);
    umask(0);
    rig_open(r);
    static const char *const folders[] = {"",        "blobs", "blobs/sha256", "blobs/sha512",
                                          "partial", "index", "tmp"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char path[512];
        struct stat st;
        below(r, folders[i], path);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode, S_IFDIR | 0750);
    }
    char path[512], text[64] = "";
    below(r, "oci-layout", path);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), strlen("{\"imageLayoutVersion\":\"1.0.0\"}"));
    assert_string_equal(text, "{\"imageLayoutVersion\":\"1.0.0\"}");
    close(fd);
    rig_close(r);
    rig_open(r);
}

static void test_trailing_slashes(void **state)
{
    struct rig *r = *state;
    snprintf(r->path, sizeof r->path, "%s/store//", r->dir);
    rig_open(r);
    rig_close(r);
    ASSERT_REFUSED("", "store.path");
    char path[PATH_MAX + 2];
    memset(path, 'p', sizeof path);
    path[PATH_MAX + 1] = '\0';
    ASSERT_REFUSED(path, "store.path", "longer");
}

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_only_tmp_is_cleared(void **state)
{
    struct rig *r = *state;
    static const char *const kept[] = {"partial/sha256-" HEX64, "blobs/sha256/bb", "quarantine/sha256-" HEX64,
                                       "other"};
    rig_open(r);
    rig_close(r);
    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        touch_below(r, kept[i]);
    touch_below(r, "tmp/sha256-dd.0");
    touch_below(r, "tmp/oci-layout");
    touch_below(r, "partial/.probe");
    rig_open(r);
    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        assert_true(exists_below(r, kept[i]));
    assert_false(exists_below(r, "tmp/sha256-dd.0"));
    assert_false(exists_below(r, "tmp/oci-layout"));
    assert_false(exists_below(r, "partial/.probe"));
    assert_false(exists_below(r, "tmp/.probe"));
}

/* ---- what is in the way ---- */

static void test_a_file_in_place_of_a_folder(void **state)
{
    struct rig *r = *state;
    static const char *const folders[] = {"blobs", "blobs/sha512", "partial", "index", "tmp"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        char path[512], wanted[520];
        rig_open(r);
        rig_close(r);
        below(r, folders[i], path);
        snprintf(wanted, sizeof wanted, "%s.away", path);
        assert_int_equal(rename(path, wanted), 0);
        rig_write_file(path, "x", 1);
        ASSERT_REFUSED(r->path, path, "Not a directory", "move it away");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rename(wanted, path), 0);
    }
    char file[128], inside[160];
    snprintf(file, sizeof file, "%s/file", r->dir);
    snprintf(inside, sizeof inside, "%s/file/store", r->dir);
    rig_write_file(file, "x", 1);
    ASSERT_REFUSED(file, file, "Not a directory");
    ASSERT_REFUSED(inside, file, "Not a directory");
}

static void test_a_folder_in_place_of_the_lock(void **state)
{
    struct rig *r = *state;
    char path[512];
    assert_int_equal(mkdir(r->path, 0750), 0);
    below(r, "lock", path);
    assert_int_equal(mkdir(path, 0750), 0);
    ASSERT_REFUSED(r->path, path, "Is a directory");
}

/* ---- the lock ---- */

static void test_a_second_process_is_refused(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    char pid[32];
    snprintf(pid, sizeof pid, "process %d ", (int)getpid());
    ASSERT_REFUSED(r->path, r->path, "is used by", pid); /* also within one process */
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
        char why[1024] = "";
        struct str w = STR_INIT(why);
        struct store *s = store_open(span_str(r->path), &w);
        ssize_t n = write(out[1], why, strlen(why));
        _exit(s == NULL && n > 0 ? 0 : 1);
    }
    close(out[1]);
    char why[1024] = "";
    int status = 0;
    assert_true(read(out[0], why, sizeof why - 1) > 0);
    close(out[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_non_null(strstr(why, pid));
    assert_non_null(strstr(why, "/lock"));
    rig_close(r);
    rig_open(r);
}

/* The lock names its holder, and goes with it however it ends. */
static void test_a_killed_process_leaves_no_lock(void **state)
{
    struct rig *r = *state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        char why[1024];
        struct str w = STR_INIT(why);
        struct store *s = store_open(span_str(r->path), &w);
        if (s == NULL || write(ready[1], "1", 1) != 1)
            _exit(1);
        alarm(60); /* should the test fail first */
        for (;;)
            pause();
    }
    close(ready[1]);
    char byte, pid[32];
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    snprintf(pid, sizeof pid, "process %d ", (int)child);
    ASSERT_REFUSED(r->path, "is used by", pid);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    rig_open(r);
}

/* ---- file systems that do not play along: in a child with mounts of its own ---- */

#define CHILD_SKIP 77

static void run_with_mounts(struct rig *r, int (*fn)(struct rig *r))
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mkdir(r->path, 0750) != 0 || mount("store-test", r->path, "tmpfs", 0, "size=1m") != 0)
            _exit(CHILD_SKIP);
        _exit(fn(r));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CHILD_SKIP)
        skip();                               /* only root may mount */
    assert_int_equal(WEXITSTATUS(status), 0); /* else the number of the check that failed */
}

#define CHECK(n, c)                                                                                          \
    if (!(c))                                                                                                \
    return (n)

static int read_only(struct rig *r)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    struct store *s = store_open(span_str(r->path), &w);
    CHECK(1, s != NULL);
    store_close(s);
    CHECK(2, mount(NULL, r->path, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
    CHECK(3, store_open(span_str(r->path), &w) == NULL);
    CHECK(4, strstr(why, "Read-only file system") != NULL && strstr(why, r->path) != NULL);
    return 0;
}

static void test_a_read_only_file_system(void **state)
{
    run_with_mounts(*state, read_only);
}

/* Blobs on another file system than partial files cannot be renamed into place: said at start. */
static int two_file_systems(struct rig *r)
{
    char why[1024] = "", path[512];
    struct str w = STR_INIT(why);
    struct store *s = store_open(span_str(r->path), &w);
    CHECK(1, s != NULL);
    store_close(s);
    below(r, "blobs/sha256", path);
    CHECK(2, mount("store-test", path, "tmpfs", 0, NULL) == 0);
    CHECK(3, store_open(span_str(r->path), &w) == NULL);
    CHECK(4, strstr(why, path) != NULL && strstr(why, "one file system") != NULL);
    return 0;
}

static void test_two_file_systems(void **state)
{
    run_with_mounts(*state, two_file_systems);
}

static int full(struct rig *r)
{
    static char chunk[64 << 10];
    char why[1024] = "", path[512];
    struct str w = STR_INIT(why);
    struct store *s = store_open(span_str(r->path), &w);
    CHECK(1, s != NULL);
    struct digest d = rig_digest_of("small", 5);
    CHECK(2, store_write_object(s, &d, SPAN("small"), &w) == 0);
    store_close(s);
    below(r, "ballast", path);
    int fd = open(path, O_CREAT | O_WRONLY, 0640);
    while (write(fd, chunk, sizeof chunk) > 0)
        ;
    close(fd);
    s = store_open(span_str(r->path), &w); /* what is there can be served */
    CHECK(3, s != NULL);
    struct digest big = rig_digest(1);
    struct partial p;
    CHECK(4, partial_open(s, &big, &p, &w) == 0);
    CHECK(5, partial_write(&p, 0, chunk, sizeof chunk, &w) == ERR_STORE);
    CHECK(6, strstr(why, "No space left") != NULL && strstr(why, "/partial/sha256-") != NULL);
    str_reset(&w);
    CHECK(7, store_write_object(s, &big, span_of(chunk, sizeof chunk), &w) == ERR_STORE);
    CHECK(8, strstr(why, "No space left") != NULL && !rig_exists(r, STORE_DIR_SHA256, &big));
    below(r, "tmp", path);
    CHECK(9, rmdir(path) == 0); /* nothing was left in it */
    below(r, "ballast", path);
    CHECK(10, unlink(path) == 0);
    CHECK(11, partial_write(&p, 0, chunk, sizeof chunk, &w) == 0); /* and it heals */
    return 0;
}

static void test_a_full_file_system(void **state)
{
    run_with_mounts(*state, full);
}

/* ---- whole objects ---- */

static void assert_content(const struct rig *r, enum store_dir dir, const struct digest *d, const char *text)
{
    char path[512], got[64] = "";
    rig_file(r, dir, d, path);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, got, sizeof got - 1), strlen(text));
    assert_string_equal(got, text);
    close(fd);
}

static void test_write_replaces_what_is_there(void **state)
{
    struct rig *r = *state;
    char why[1024], path[512];
    struct str w = STR_INIT(why);
    struct digest d = rig_digest_of("text", 4);
    rig_open(r);
    rig_file(r, STORE_DIR_SHA256, &d, path);
    rig_write_file(path, "tExt", 4); /* the right size, and wrong */
    assert_int_equal(store_write_object(r->store, &d, SPAN("text"), &w), 0);
    assert_content(r, STORE_DIR_SHA256, &d, "text");
    struct digest empty = rig_digest_of("", 0);
    assert_int_equal(store_write_object(r->store, &empty, SPAN(""), &w), 0);
    assert_content(r, STORE_DIR_SHA256, &empty, "");
    below(r, "tmp", path);
    assert_int_equal(rmdir(path), 0); /* nothing was left in it */
}

static void test_write_that_fails_leaves_nothing(void **state)
{
    struct rig *r = *state;
    char why[1024] = "", path[512];
    struct str w = STR_INIT(why);
    struct digest d = rig_digest_of("text", 4);
    rig_open(r);
    rig_file(r, STORE_DIR_SHA256, &d, path);
    assert_int_equal(mkdir(path, 0750), 0);
    assert_int_equal(store_write_object(r->store, &d, SPAN("text"), &w), ERR_STORE);
    assert_non_null(strstr(why, path));
    assert_non_null(strstr(why, "Is a directory"));
    below(r, "tmp", path);
    assert_int_equal(rmdir(path), 0);
}

static void test_quarantine(void **state)
{
    struct rig *r = *state;
    char why[1024];
    struct str w = STR_INIT(why);
    struct digest d = rig_digest_of("text", 4);
    rig_open(r);
    store_quarantine(r->store, &d); /* none there */
    assert_false(rig_exists(r, STORE_DIR_QUARANTINE, &d));
    assert_int_equal(store_write_object(r->store, &d, SPAN("bad1"), &w), 0);
    store_quarantine(r->store, &d);
    assert_false(rig_exists(r, STORE_DIR_SHA256, &d));
    assert_content(r, STORE_DIR_QUARANTINE, &d, "bad1");
    assert_int_equal(store_write_object(r->store, &d, SPAN("bad2"), &w), 0);
    store_quarantine(r->store, &d);
    assert_false(rig_exists(r, STORE_DIR_SHA256, &d));
    assert_content(r, STORE_DIR_QUARANTINE, &d, "bad2");
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup_folder, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_open_makes_the_folders),
        RIG_TEST(test_trailing_slashes),
        RIG_TEST(test_only_tmp_is_cleared),
        RIG_TEST(test_a_file_in_place_of_a_folder),
        RIG_TEST(test_a_folder_in_place_of_the_lock),
        RIG_TEST(test_a_second_process_is_refused),
        RIG_TEST(test_a_killed_process_leaves_no_lock),
        RIG_TEST(test_a_read_only_file_system),
        RIG_TEST(test_two_file_systems),
        RIG_TEST(test_a_full_file_system),
        RIG_TEST(test_write_replaces_what_is_there),
        RIG_TEST(test_write_that_fails_leaves_nothing),
        RIG_TEST(test_quarantine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
