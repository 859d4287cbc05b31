/* Killed at any moment: a child does everything that changes a store, in a loop, and is killed by SIGKILL; then the store is opened, and
 * what the index says is there, with the right bytes, and nothing else is.
 *
 * The rounds go on in the same store, so that what one leaves is the ground of the next. */
#include "rig.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "store/pin.h"
#include "store/verify.h"

#define ROUNDS 100
#define SEEDS  200

static size_t size_of(unsigned seed)
{
    return seed % 10 == 0 ? 300000 : 1000 + seed * 37 % 20000;
}

/* A fill in two writes; every other is left half done, every fourth is given up. */
static void fill(struct rig *r, unsigned seed)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    size_t n = size_of(seed);
    char *bytes = rig_bytes(seed, n);
    struct store_change c = {.what = CHANGE_PUT_OBJECT | CHANGE_PUT_LINK, .size = n, .repo = "a/b"};
    struct partial p;
    c.digest = rig_digest_of(bytes, n);
    content_sum_of(span_of(bytes, n), &c.sum);
    if (partial_open(r->store, &c.digest, &p, &w) != 0)
        abort();
    if (partial_write(&p, 0, bytes, n / 2, &w) != 0)
        abort();
    if (seed % 4 == 1)
        partial_keep(&p, n / 2);
    else if (seed % 4 == 3)
        partial_discard(&p);
    else if (partial_write(&p, n / 2, bytes + n / 2, n - n / 2, &w) != 0 || partial_commit(&p, n, &w) != 0 ||
             rig_apply(r, &c) != 0)
        abort();
    partial_close(&p);
    free(bytes);
}

static void image(struct rig *r, unsigned seed)
{
    char tag[16];
    char *layer = rig_bytes(seed + 2, size_of(seed + 2));
    struct store_ref refs[] = {
        {.digest = rig_digest_of(layer, size_of(seed + 2)), .role = REF_LAYER, .size = 1}};
    free(layer);
    snprintf(tag, sizeof tag, "t%u", seed % 7);
    (void)rig_image(r, 1000 + seed, "a/b", tag, refs, 1);
}

static void change_something(struct rig *r, unsigned x)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    struct store_purged purged;
    bool found;
    unsigned seed = x / 16 % SEEDS;
    switch (x % 16) {
    case 0:
        (void)store_relieve(r->store, 50000);
        break;
    case 1:
        if (store_purge_repos(r->store, &(struct store_repos){.prefix = SPAN("a/")}, false, &purged, &w) != 0)
            abort();
        break;
    case 2:
        if (store_purge_tag(r->store, SPAN("a/b"), SPAN("t3"), true, &purged, &w) != 0)
            abort();
        break;
    case 3:
        if (store_pin_tag(r->store, SPAN("a/b"), SPAN("t1"), &w) != 0 ||
            store_unpin_tag(r->store, SPAN("a/b"), SPAN("t1"), &found, &w) != 0)
            abort();
        break;
    case 4:
    case 5:
        image(r, seed);
        break;
    default:
        fill(r, seed);
    }
}

static _Noreturn void child(struct rig *r, unsigned round, int ready)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    rig_open(r);
    r->core = core_new(0);
    if (r->core == NULL || pthread_create(&r->thread, NULL, rig_run_core, r->core) != 0)
        abort();
    store_set_limits(r->store, &(struct store_limits){.max_size = 1000000, .scrub_rate = UINT64_C(1) << 30});
    if (write(ready, "x", 1) != 1)
        abort();
    for (unsigned i = 0;; i++)
        change_something(r, (round * 7919 + i) * 2654435761u >> 8);
}

static void sleep_us(unsigned us)
{
    struct timespec t = {.tv_nsec = (long)us * 1000};
    while (nanosleep(&t, &t) != 0)
        ;
}

static void run_and_kill(struct rig *r, unsigned round)
{
    int ready[2], status;
    char x;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(r, round, ready[1]);
    close(ready[1]);
    ssize_t n = read(ready[0], &x, 1);
    close(ready[0]);
    sleep_us(round * round % 61 * 500);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (n != 1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("the child ended by itself, with status %d", status);
}

static void verify_all(struct rig *r)
{
    struct verify_progress p;
    struct verify_pass *v = verify_start(r->store, true, NULL, NULL);
    assert_non_null(v);
    do {
        sleep_us(200);
        verify_look(v, &p);
    } while (!p.done);
    verify_join(v);
    assert_int_equal(p.missing + p.damaged + p.failed, 0);
}

static void test_killed_at_any_moment(void **state)
{
    struct rig *r = *state;
    uint64_t objects = 0, partials = 0;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        struct store_totals t;
        run_and_kill(r, round);
        rig_open(r);
        store_tidy(r->store);
        rig_assert_consistent(r);
        verify_all(r);
        store_totals(r->store, &t);
        assert_int_equal(t.damaged, 0);
        assert_int_equal(t.quarantined, 0);
        assert_true(t.partials <= SEEDS);
        objects += t.objects;
        partials += t.partials;
        rig_close(r);
        if (round % 10 == 0) { /* a proper end, and nothing else is different */
            rig_open(r);
            rig_assert_consistent(r);
            rig_close(r);
        }
    }
    assert_true(objects > ROUNDS); /* it was about something */
    assert_true(partials > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_killed_at_any_moment, rig_setup_folder, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
