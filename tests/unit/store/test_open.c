/* Open objects: hits, waiting, damage behind our back, bounds. */
#include "rig.h"

#include <dirent.h>
#include <sys/resource.h>

#include "store/open.h"

/* One asker. Everything but the fields below `done` is touched on the core only. */
struct asker {
    struct rig *r;
    struct digest digest;
    uint64_t size;
    enum open_how how;
    const struct content_sum *sum; /* NULL: not known */
    int64_t stored_ms;
    struct open_wait w;
    enum open_result result;
    struct open_object *object; /* what came of it, at once or later */
    unsigned times;
    struct asker *cancels; /* this one stops waiting when our answer comes */
    bool puts;             /* gives the object back at once */
    sem_t done;
};

#define STORED_MS INT64_C(4000000000000) /* after every file's time */

static struct open_set *set_of(struct rig *r)
{
    return core_slot(r->core, CORE_SLOT_STORE);
}

static void on_opened(struct open_wait *w)
{
    struct asker *a = CONTAINER_OF(w, struct asker, w);
    a->times++;
    a->object = w->object;
    if (a->cancels != NULL)
        open_cancel(&a->cancels->w);
    if (a->puts)
        open_put(set_of(a->r), a->object);
    sem_post(&a->done);
}

static void ask_on_core(void *arg)
{
    struct asker *a = arg;
    a->w = (struct open_wait){.done = on_opened};
    struct store_object record = {.size = a->size, .stored_ms = a->stored_ms};
    if (a->sum != NULL)
        record.sum = *a->sum;
    a->result = open_get(set_of(a->r), &a->digest, &record, a->how, &a->w, &a->object);
}

static struct asker asker_of(struct rig *r, const struct digest *d, uint64_t size, enum open_how how)
{
    struct asker a = {.r = r, .digest = *d, .size = size, .how = how, .stored_ms = STORED_MS};
    return a;
}

/* Asks and waits for the answer. */
static struct open_object *ask(struct asker *a)
{
    a->object = NULL;
    sem_init(&a->done, 0, 0);
    rig_on_core(a->r, ask_on_core, a);
    if (a->result == OPEN_WAIT)
        rig_wait(&a->done);
    sem_destroy(&a->done);
    return a->object;
}

static void put_on_core(void *arg)
{
    struct asker *a = arg;
    open_put(set_of(a->r), a->object);
    a->object = NULL;
}

static void put(struct asker *a)
{
    rig_on_core(a->r, put_on_core, a);
}

struct new_set {
    struct rig *r;
    unsigned max_files;
};

static void set_on_core(void *arg)
{
    struct new_set *n = arg;
    open_set_free(set_of(n->r));
    core_set_slot(n->r->core, CORE_SLOT_STORE,
                  n->max_files > 0 ? open_set_new(n->r->core, n->r->store, n->max_files) : NULL);
}

static void use_set(struct rig *r, unsigned max_files)
{
    struct new_set n = {.r = r, .max_files = max_files};
    rig_on_core(r, set_on_core, &n);
}

struct idle_question {
    struct rig *r;
    bool idle;
};

static void idle_on_core(void *arg)
{
    struct idle_question *q = arg;
    q->idle = open_set_idle(set_of(q->r));
}

static bool set_idle(struct rig *r)
{
    struct idle_question q = {.r = r};
    rig_on_core(r, idle_on_core, &q);
    return q.idle;
}

/* Waits until what was given up on has ended. False: never, it seems; a failed test leaves objects in use. */
static bool becomes_idle(struct rig *r)
{
    for (unsigned i = 0; i < 5000 && !set_idle(r); i++)
        usleep(1000);
    return set_idle(r);
}

static int setup(void **state)
{
    if (rig_setup(state) != 0)
        return -1;
    use_set(*state, 100);
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    if (becomes_idle(r))
        use_set(r, 0);
    return rig_teardown(state);
}

/* Puts content into blobs/ as it is, without the cost of syncs. */
static struct digest put_blob(struct rig *r, const void *bytes, size_t n)
{
    struct digest d = rig_digest_of(bytes, n);
    char path[512];
    rig_file(r, STORE_DIR_SHA256, &d, path);
    rig_write_file(path, bytes, n);
    return d;
}

/* How many descriptors are open on files below blobs/. */
static unsigned open_blobs(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;
    while ((e = readdir(dir)) != NULL) {
        char target[512];
        ssize_t len = readlinkat(dirfd(dir), e->d_name, target, sizeof target - 1);
        target[len > 0 ? len : 0] = '\0';
        n += strstr(target, "/blobs/sha256/") != NULL;
    }
    closedir(dir);
    return n;
}

static void assert_reads(const struct open_object *o, const char *text)
{
    char got[64] = "";
    assert_non_null(o);
    assert_int_equal(o->size, strlen(text));
    assert_int_equal(pread(o->fd, got, sizeof got - 1, 0), strlen(text));
    assert_string_equal(got, text);
}

static void test_a_hit_after_the_first(void **state)
{
    struct rig *r = *state;
    struct digest d = put_blob(r, "hello", 5);
    struct asker a = asker_of(r, &d, 5, OPEN_FILE), b = a;
    assert_true(set_idle(r));
    assert_reads(ask(&a), "hello");
    assert_int_equal(a.result, OPEN_WAIT);
    assert_true(digest_eq(&a.object->digest, &d));
    assert_null(a.object->bytes);
    assert_false(set_idle(r));
    assert_ptr_equal(ask(&b), a.object);
    assert_int_equal(b.result, OPEN_OK);
    put(&a);
    assert_false(set_idle(r));
    put(&b);
    assert_true(set_idle(r));
    assert_int_equal(open_blobs(), 1);
    assert_reads(ask(&a), "hello");
    assert_int_equal(a.result, OPEN_OK);
    put(&a);
}

static void test_what_is_not_there(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_digest(1);
    struct asker a = asker_of(r, &d, 5, OPEN_FILE);
    assert_null(ask(&a));
    assert_int_equal(a.result, OPEN_WAIT);
    assert_int_equal(a.w.err, 0);
    assert_int_equal(a.times, 1);
    assert_true(set_idle(r));
}

static void test_wrong_sizes_and_kinds_are_misses(void **state)
{
    struct rig *r = *state;
    char path[512];
    struct digest d = put_blob(r, "hello", 5);
    struct asker longer = asker_of(r, &d, 6, OPEN_FILE), shorter = asker_of(r, &d, 4, OPEN_VERIFIED);
    assert_null(ask(&longer));
    assert_int_equal(longer.w.err, 0);
    assert_null(ask(&shorter));
    assert_int_equal(shorter.w.err, 0);
    struct digest other = rig_digest(1);
    struct asker a = asker_of(r, &other, 5, OPEN_FILE);
    rig_file(r, STORE_DIR_SHA256, &other, path);
    assert_int_equal(mkdir(path, 0750), 0);
    assert_null(ask(&a));
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0640), 0);
    assert_null(ask(&a));
    assert_int_equal(unlink(path), 0);
    char target[200];
    snprintf(target, sizeof target, "%s/elsewhere", r->dir);
    rig_write_file(target, "hello", 5);
    assert_int_equal(symlink("../../../elsewhere", path), 0);
    assert_null(ask(&a));
    assert_int_equal(a.w.err, 0);
    assert_int_equal(open_blobs(), 0);
}

static void test_manifests_are_verified(void **state)
{
    struct rig *r = *state;
    size_t n = 3 * OPEN_INLINE_MAX + 17;
    char *big = calloc(1, n), path[512];
    for (int flip = 0; flip < 2; flip++) {
        struct digest small = put_blob(r, "{\"a\":1}", 7), large = put_blob(r, big, n);
        struct digest empty = put_blob(r, "", 0);
        if (flip) {
            rig_file(r, STORE_DIR_SHA256, &small, path);
            rig_write_file(path, "{\"a\":3}", 7);
            rig_file(r, STORE_DIR_SHA256, &large, path);
            big[n - 1] = 1;
            rig_write_file(path, big, n);
        }
        struct asker a = asker_of(r, &small, 7, OPEN_VERIFIED), b = asker_of(r, &large, n, OPEN_VERIFIED),
                     c = asker_of(r, &empty, 0, OPEN_VERIFIED);
        ask(&a);
        ask(&b);
        assert_non_null(ask(&c));
        put(&c);
        if (flip) {
            assert_null(a.object);
            assert_int_equal(a.w.err, 0);
            assert_null(b.object);
            assert_int_equal(b.w.err, 0);
            continue;
        }
        assert_reads(a.object, "{\"a\":1}");
        assert_memory_equal(a.object->bytes, "{\"a\":1}", 7);
        assert_non_null(b.object);
        assert_null(b.object->bytes);
        put(&a);
        put(&b);
        use_set(r, 100); /* forget */
    }
    free(big);
}

/* Opened as a blob first: it is not taken for verified. */
static void test_a_blob_becomes_a_manifest(void **state)
{
    struct rig *r = *state;
    char path[512];
    struct digest d = put_blob(r, "hello", 5);
    rig_file(r, STORE_DIR_SHA256, &d, path);
    struct asker blob = asker_of(r, &d, 5, OPEN_FILE), manifest = asker_of(r, &d, 5, OPEN_VERIFIED);
    assert_non_null(ask(&blob));
    assert_reads(ask(&manifest), "hello");
    assert_non_null(manifest.object->bytes);
    assert_reads(blob.object, "hello"); /* still good for the one that has it */
    put(&manifest);
    put(&blob);
    assert_int_equal(open_blobs(), 1);
    assert_non_null(ask(&blob)); /* the better one serves both */
    assert_int_equal(blob.result, OPEN_OK);
    put(&blob);
    use_set(r, 100);
    rig_write_file(path, "hellO", 5);
    assert_non_null(ask(&blob));
    put(&blob);
    assert_null(ask(&manifest));
}

/* A small blob: in memory, and as good as its sum says. */
static void test_held_is_compared_with_the_sum(void **state)
{
    struct rig *r = *state;
    struct content_sum right, wrong;
    content_sum_of(SPAN("hello"), &right);
    content_sum_of(SPAN("hullo"), &wrong);
    struct digest good = put_blob(r, "hello", 5), other = rig_digest(7);
    char path[512];
    rig_file(r, STORE_DIR_SHA256, &other, path);
    rig_write_file(path, "hello", 5); /* not what its digest says */
    const struct {
        const struct digest *digest;
        const struct content_sum *sum;
        bool good;
    } cases[] = {{&good, &right, true},  {&good, NULL, true},   {&good, &wrong, false},
                 {&other, &right, true}, {&other, NULL, false}, {&other, &wrong, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct asker a = asker_of(r, cases[i].digest, 5, OPEN_HELD);
        a.sum = cases[i].sum;
        ask(&a);
        assert_true((a.object != NULL) == cases[i].good);
        assert_int_equal(a.w.err, 0);
        if (a.object == NULL)
            continue;
        assert_memory_equal(a.object->bytes, "hello", 5);
        struct asker manifest = asker_of(r, cases[i].digest, 5, OPEN_VERIFIED);
        manifest.sum = cases[i].sum;
        ask(&manifest); /* the digest alone decides for that */
        assert_true((manifest.object != NULL) == (cases[i].digest == &good));
        if (manifest.object != NULL)
            put(&manifest);
        put(&a);
        use_set(r, 100);
    }
}

static void test_truncated_behind_our_back(void **state)
{
    struct rig *r = *state;
    char path[512];
    struct digest d = put_blob(r, "hello", 5);
    struct asker a = asker_of(r, &d, 5, OPEN_VERIFIED);
    assert_non_null(ask(&a));
    put(&a);
    rig_file(r, STORE_DIR_SHA256, &d, path);
    assert_int_equal(truncate(path, 4), 0);
    assert_null(ask(&a));
    assert_int_equal(a.result, OPEN_GONE);
    assert_int_equal(open_blobs(), 0);
    assert_null(ask(&a));
    assert_int_equal(a.result, OPEN_WAIT);
    assert_int_equal(a.w.err, 0);
}

static void test_removed_behind_our_back(void **state)
{
    struct rig *r = *state;
    char path[512];
    struct digest d = put_blob(r, "hello", 5);
    struct asker a = asker_of(r, &d, 5, OPEN_FILE), b = a;
    assert_non_null(ask(&a));
    rig_file(r, STORE_DIR_SHA256, &d, path);
    assert_int_equal(unlink(path), 0);
    assert_null(ask(&b));
    assert_int_equal(b.w.err, 0);
    assert_reads(a.object, "hello"); /* the response under way goes on */
    put(&a);
    assert_true(becomes_idle(r));
    assert_int_equal(open_blobs(), 0);
}

/* Stored again: a new file, the same content. Not a miss. */
static void test_replaced(void **state)
{
    struct rig *r = *state;
    char why[1024];
    struct str w = STR_INIT(why);
    struct digest d = put_blob(r, "hello", 5);
    struct asker a = asker_of(r, &d, 5, OPEN_VERIFIED), b = a;
    assert_non_null(ask(&a));
    assert_int_equal(store_write_object(r->store, &d, SPAN("hello"), &w), 0);
    assert_reads(ask(&b), "hello");
    assert_int_equal(b.result, OPEN_WAIT);
    assert_ptr_not_equal(a.object, b.object);
    put(&a);
    put(&b);
    assert_non_null(ask(&b));
    assert_int_equal(b.result, OPEN_OK);
    put(&b);
    b.stored_ms++; /* what is said of the file that was opened before is not said of this one */
    assert_non_null(ask(&b));
    assert_int_equal(b.result, OPEN_WAIT);
    put(&b);
}

/* ---- waiting together ---- */

struct askers {
    struct asker *a;
    unsigned n;
    int cancel; /* this one stops waiting at once; -1: none */
};

static void ask_all_on_core(void *arg)
{
    struct askers *all = arg;
    for (unsigned i = 0; i < all->n; i++)
        ask_on_core(&all->a[i]);
    if (all->cancel >= 0)
        open_cancel(&all->a[all->cancel].w);
}

static void test_waiting_together(void **state)
{
    struct rig *r = *state;
    struct digest d = put_blob(r, "hello", 5);
    struct asker a[4];
    for (unsigned i = 0; i < 4; i++) {
        a[i] = asker_of(r, &d, 5, OPEN_VERIFIED);
        sem_init(&a[i].done, 0, 0);
    }
    a[0].puts = true; /* the first gives it back before the others have it, and takes the second away */
    a[0].cancels = &a[1];
    struct askers all = {.a = a, .n = 4, .cancel = 2};
    rig_on_core(r, ask_all_on_core, &all);
    rig_wait(&a[0].done);
    rig_wait(&a[3].done);
    assert_reads(a[3].object, "hello");
    put(&a[3]);
    assert_true(set_idle(r));
    assert_int_equal(a[0].times, 1);
    assert_int_equal(a[1].times, 0);
    assert_int_equal(a[2].times, 0);
    assert_int_equal(a[3].times, 1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(a[i].result, OPEN_WAIT);
    assert_int_equal(open_blobs(), 1);
    for (unsigned i = 0; i < 4; i++)
        sem_destroy(&a[i].done);
}

static void test_nobody_waits_any_more(void **state)
{
    struct rig *r = *state;
    struct digest d = put_blob(r, "hello", 5);
    struct asker a = asker_of(r, &d, 5, OPEN_FILE);
    struct askers all = {.a = &a, .n = 1, .cancel = 0};
    sem_init(&a.done, 0, 0);
    rig_on_core(r, ask_all_on_core, &all);
    assert_true(becomes_idle(r));
    assert_int_equal(a.times, 0);
    assert_reads(ask(&a), "hello"); /* it was kept */
    assert_int_equal(a.result, OPEN_OK);
    put(&a);
}

/* ---- bounds ---- */

static void test_descriptors_are_bounded(void **state)
{
    struct rig *r = *state;
    use_set(r, 3);
    struct asker a[6];
    for (unsigned i = 0; i < 6; i++) {
        struct digest d = put_blob(r, &i, sizeof i);
        a[i] = asker_of(r, &d, sizeof i, OPEN_FILE);
        assert_non_null(ask(&a[i])); /* in use: never refused */
    }
    assert_int_equal(open_blobs(), 6);
    for (unsigned i = 0; i < 6; i++)
        put(&a[i]);
    assert_int_equal(open_blobs(), 3);
    for (unsigned i = 3; i < 6; i++) { /* the last ones stayed */
        assert_non_null(ask(&a[i]));
        assert_int_equal(a[i].result, OPEN_OK);
        put(&a[i]);
    }
    assert_non_null(ask(&a[0])); /* makes the least recently used one go */
    put(&a[0]);
    assert_non_null(ask(&a[4]));
    assert_int_equal(a[4].result, OPEN_OK);
    put(&a[4]);
    assert_non_null(ask(&a[3]));
    assert_int_equal(a[3].result, OPEN_WAIT);
    put(&a[3]);
    assert_int_equal(open_blobs(), 3);
}

static struct rlimit limit_files_to(rlim_t n)
{
    struct rlimit before, now;
    getrlimit(RLIMIT_NOFILE, &before);
    now = before;
    now.rlim_cur = n;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    return before;
}

#define MANIFESTS (OPEN_INLINE_TOTAL / OPEN_INLINE_MAX + 6)

static void test_memory_is_bounded(void **state)
{
    struct rig *r = *state;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 2 * MANIFESTS)
        skip();
    limit_files_to(2 * MANIFESTS);
    use_set(r, 2 * MANIFESTS);
    struct asker *a = calloc(MANIFESTS, sizeof *a);
    char *bytes = calloc(1, OPEN_INLINE_MAX);
    for (unsigned i = 0; i < MANIFESTS; i++) {
        memcpy(bytes, &i, sizeof i);
        struct digest d = put_blob(r, bytes, OPEN_INLINE_MAX);
        a[i] = asker_of(r, &d, OPEN_INLINE_MAX, OPEN_VERIFIED);
        assert_non_null(ask(&a[i]));
        put(&a[i]);
    }
    assert_int_equal(open_blobs(), MANIFESTS - 6); /* the first six went */
    for (unsigned i = 0; i < MANIFESTS; i++) {
        assert_non_null(ask(&a[i]));
        if (i == 0)
            assert_int_equal(a[i].result, OPEN_WAIT);
    }
    unsigned inline_now = 0; /* with all in use the last ones are served from their files */
    for (unsigned i = 0; i < MANIFESTS; i++)
        inline_now += a[i].object->bytes != NULL;
    assert_int_equal(inline_now, MANIFESTS - 6);
    for (unsigned i = 0; i < MANIFESTS; i++)
        put(&a[i]);
    free(bytes);
    free(a);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_a_hit_after_the_first),
        RIG_TEST(test_what_is_not_there),
        RIG_TEST(test_wrong_sizes_and_kinds_are_misses),
        RIG_TEST(test_manifests_are_verified),
        RIG_TEST(test_a_blob_becomes_a_manifest),
        RIG_TEST(test_held_is_compared_with_the_sum),
        RIG_TEST(test_truncated_behind_our_back),
        RIG_TEST(test_removed_behind_our_back),
        RIG_TEST(test_replaced),
        RIG_TEST(test_waiting_together),
        RIG_TEST(test_nobody_waits_any_more),
        RIG_TEST(test_descriptors_are_bounded),
        RIG_TEST(test_memory_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
