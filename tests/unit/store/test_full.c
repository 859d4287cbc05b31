/* A disk that really is full, to the last page: the store goes on by evicting, also where the index itself needs room for that. In a
 * child with a small file system in memory of its own; where that may not be made (neither root nor user namespaces), it is skipped. */
#include "rig.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define OBJECTS  4000
#define NO_MOUNT 77

/* Assertions are for the test's own process: a child says with its status what was wrong. */
static int fill(struct rig *r)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    sem_t done;
    r->store = store_open(span_str(r->path), &w);
    r->core = core_new(0);
    if (r->store == NULL || r->core == NULL || pthread_create(&r->thread, NULL, rig_run_core, r->core) != 0)
        return 1;
    store_tidy(r->store); /* the keeper is up, and with it the reserve */
    sem_init(&done, 0, 0);
    for (unsigned i = 0; i < OBJECTS; i++) {
        struct rig_change x = {
            .c = {.what = CHANGE_PUT_OBJECT | CHANGE_PUT_LINK, .size = 4096, .repo = "a/b"}, .done = &done};
        char *bytes = rig_bytes(i, 4096);
        x.c.digest = rig_digest_of(bytes, 4096);
        if (store_write_object(r->store, &x.c.digest, span_of(bytes, 4096), &w) != 0) {
            fprintf(stderr, "object %u: %s\n", i, why);
            return 2;
        }
        free(bytes);
        store_apply(r->store, r->core, &x.c, rig_changed);
        rig_wait(&done);
        if (x.c.err != 0)
            return 3;
    }
    struct store_totals t;
    store_totals(r->store, &t);
    return t.objects + t.evicted == OBJECTS && t.evicted > OBJECTS / 2 && t.objects > 100 ? 0 : 4;
}

static int child(struct rig *r)
{
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return NO_MOUNT;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", r->dir, "tmpfs", 0, "size=6m") != 0)
        return NO_MOUNT;
    return fill(r);
}

static void test_full_to_the_last_page(void **state)
{
    struct rig *r = *state;
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child(r));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == NO_MOUNT)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full_to_the_last_page, rig_setup_folder, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
