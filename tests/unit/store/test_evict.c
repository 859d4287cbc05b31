/* Limits and eviction: what goes, in which order, what stays, and that the sums are right. */
#include "rig.h"

#include "base/clock.h"
#include "store/open.h"
#include "store/pin.h"

#define KIB 1024u

static void limit(struct rig *r, const struct store_limits *l)
{
    store_set_limits(r->store, l);
    store_tidy(r->store);
}

static void max_size(struct rig *r, uint64_t bytes)
{
    limit(r, &(struct store_limits){.max_size = bytes});
}

static uint64_t used(struct rig *r)
{
    struct store_totals t;
    store_totals(r->store, &t);
    return t.used;
}

/* Asked for in this order, a second apart, from now on. */
static void touch(struct rig *r, const struct digest *d, unsigned second)
{
    struct store_reader *reader = store_reader_new(r->store);
    store_touch(reader, d, clock_mono_ms() + second * INT64_C(1000));
    store_reader_free(reader);
}

#define N 20

static void test_longest_ago_first(void **state)
{
    struct rig *r = *state;
    struct digest d[N];
    for (unsigned i = 0; i < N; i++)
        d[i] = rig_blob(r, i, 10 * KIB);
    /* 7, 14, 1, 8, 15, 2, ...: each once */
    for (unsigned i = 0; i < N; i++)
        touch(r, &d[(i + 1) * 7 % N], i + 1);
    max_size(r, N * 10 * KIB); /* eviction begins a little below */
    uint64_t now = used(r);
    assert_true(now <= N * 10 * KIB * 95 / 100);
    assert_false(rig_has(r, &d[7]));
    for (unsigned i = 1; i < N; i++)
        assert_true(rig_has(r, &d[(i + 1) * 7 % N]));
    max_size(r, 0);
    assert_int_equal(used(r), now);
    max_size(r, 50 * KIB); /* 95 % of it: four of them */
    assert_int_equal(used(r), 40 * KIB);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(rig_has(r, &d[(i + 1) * 7 % N]), i >= N - 4);
    rig_assert_consistent(r);
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.evicted, N - 4);
    assert_int_equal(t.evicted_bytes, (N - 4) * 10 * KIB);
    rig_close(r);
    rig_open(r);
    rig_assert_consistent(r);
    assert_int_equal(used(r), 40 * KIB);
}

/* More than fits into one step, and all links gone with the objects. */
static void test_many(void **state)
{
    struct rig *r = *state;
    struct digest d[350];
    for (unsigned i = 0; i < ARRAY_LEN(d); i++) {
        d[i] = rig_store(r, i, 100, &(struct store_change){.what = CHANGE_PUT_LINK, .repo = "a/b"});
        touch(r, &d[i], i);
    }
    max_size(r, 1000);
    assert_true(used(r) <= 950);
    struct store_reader *reader = store_reader_new(r->store);
    struct store_link link;
    for (unsigned i = 0; i < ARRAY_LEN(d); i++)
        assert_int_equal(store_get_link(reader, SPAN("a/b"), &d[i], &link), rig_has(r, &d[i]));
    store_reader_free(reader);
    assert_true(rig_has(r, &d[ARRAY_LEN(d) - 1]));
    rig_assert_consistent(r);
}

struct image {
    struct digest layers[2], config, manifest;
};

static void put_image(struct rig *r, unsigned seed, const char *tag, struct image *im)
{
    im->layers[0] = rig_blob(r, seed, 100 * KIB);
    im->layers[1] = rig_blob(r, seed + 1, 100 * KIB);
    struct store_ref refs[] = {{.digest = rig_digest(0), .role = REF_CONFIG, .size = 1000},
                               {.digest = im->layers[0], .role = REF_LAYER, .size = 100 * KIB},
                               {.digest = im->layers[1], .role = REF_LAYER, .size = 100 * KIB}};
    char *config = rig_bytes(seed + 2, 1000);
    refs[0].digest = rig_digest_of(config, 1000);
    free(config);
    im->manifest = rig_image(r, seed + 3, "quay.io/app", tag, refs, 3);
    im->config = rig_blob(r, seed + 2, 1000);
}

static void test_layers_then_configuration_then_manifest(void **state)
{
    struct rig *r = *state;
    struct image old, young;
    put_image(r, 10, "old", &old);
    put_image(r, 20, "young", &young);
    touch(r, &old.layers[0], 1000); /* asked for last of all, and goes before what is small */
    max_size(r, 220 * KIB);
    assert_true(rig_has(r, &old.layers[0]));
    assert_false(rig_has(r, &old.layers[1]));
    assert_int_equal(rig_has(r, &young.layers[0]) + rig_has(r, &young.layers[1]), 1);
    max_size(r, 50 * KIB);
    assert_false(rig_has(r, &old.layers[0]));
    assert_true(rig_has(r, &old.config) && rig_has(r, &young.config));
    max_size(r, 3200);
    assert_true(rig_has(r, &old.manifest) && rig_has(r, &young.manifest));
    assert_int_equal(rig_has(r, &old.config) + rig_has(r, &young.config), 1);
    max_size(r, 2200);
    assert_true(rig_has(r, &old.manifest) && rig_has(r, &young.manifest));
    assert_true(rig_tag(r, "quay.io/app", "old") && rig_tag(r, "quay.io/app", "young"));
    touch(r, &old.manifest, 2000);
    max_size(r, 1100);
    assert_true(rig_has(r, &old.manifest) && rig_tag(r, "quay.io/app", "old"));
    assert_false(rig_has(r, &young.manifest) || rig_tag(r, "quay.io/app", "young"));
    max_size(r, 1);
    assert_false(rig_has(r, &old.manifest) || rig_tag(r, "quay.io/app", "old"));
    assert_int_equal(used(r), 0);
    rig_assert_consistent(r);
}

/* A manifest is worth two weeks, and not more: small things that nobody wants do not push out everything else. */
static void test_manifests_do_not_stay_for_ever(void **state)
{
    struct rig *r = *state;
    const unsigned day = 86400;
    struct digest m = rig_image(r, 1, "quay.io/app", "old", NULL, 0);
    struct digest a = rig_blob(r, 2, 1000), b = rig_blob(r, 3, 1000);
    touch(r, &a, 13 * day);
    touch(r, &b, 15 * day);
    max_size(r, 2200);
    assert_false(rig_has(r, &a));
    assert_true(rig_has(r, &m));
    max_size(r, 1100);
    assert_false(rig_has(r, &m));
    assert_true(rig_has(r, &b));
}

static void test_what_is_pinned_stays(void **state)
{
    struct rig *r = *state;
    struct image pinned, other;
    char why[256] = "";
    struct str w = STR_INIT(why);
    bool found;
    put_image(r, 10, "pinned", &pinned);
    put_image(r, 20, "other", &other);
    touch(r, &other.layers[0], 1000);
    struct digest blob = rig_blob(r, 30, 10 * KIB);
    assert_int_equal(store_pin_tag(r->store, SPAN("quay.io/app"), SPAN("pinned"), &w), 0);
    assert_int_equal(store_pin_digest(r->store, &blob, &w), 0);
    for (unsigned round = 0; round < 2; round++) {
        max_size(r, 1);
        assert_true(rig_has(r, &pinned.manifest) && rig_has(r, &pinned.config) &&
                    rig_has(r, &pinned.layers[0]) && rig_has(r, &pinned.layers[1]) && rig_has(r, &blob));
        assert_true(rig_tag(r, "quay.io/app", "pinned"));
        assert_int_equal(used(r), 210 * KIB + 2000);
        rig_close(r);
        rig_open(r);
    }
    assert_int_equal(store_unpin_digest(r->store, &blob, &found, &w), 0);
    assert_true(found);
    max_size(r, 1);
    assert_false(rig_has(r, &blob));
    assert_true(rig_has(r, &pinned.layers[0]));
    assert_int_equal(store_unpin_tag(r->store, SPAN("quay.io/app"), SPAN("pinned"), &found, &w), 0);
    assert_true(found);
    assert_int_equal(store_unpin_tag(r->store, SPAN("quay.io/app"), SPAN("pinned"), &found, &w), 0);
    assert_false(found);
    max_size(r, 1);
    assert_int_equal(used(r), 0);
}

static void test_what_is_read_or_placed_stays(void **state)
{
    struct rig *r = *state;
    char why[256] = "";
    struct str w = STR_INIT(why);
    struct digest read = rig_blob(r, 1, KIB), kept_open = rig_blob(r, 2, KIB);
    struct store_hold *h = store_hold(r->store, &read), *idle = store_hold(r->store, &kept_open);
    hold_use(h);
    /* An object that is stored anew: its old entry is old, its file is not. */
    struct digest again = rig_blob(r, 3, KIB);
    char *bytes = rig_bytes(3, KIB);
    assert_int_equal(store_write_object(r->store, &again, span_of(bytes, KIB), &w), 0);
    free(bytes);
    max_size(r, 1);
    assert_true(rig_has(r, &read) && rig_has(r, &again));
    assert_false(rig_has(r, &kept_open));
    assert_true(hold_gone(r->store, idle));
    struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = again, .size = KIB};
    assert_int_equal(rig_apply(r, &c), 0);
    hold_unuse(h);
    max_size(r, 1);
    assert_false(rig_has(r, &read) || rig_has(r, &again));
    store_release(r->store, h);
    store_release(r->store, idle);
    rig_assert_consistent(r);
}

/* ---- open objects ---- */

static unsigned deleted_files(void)
{
    unsigned n = 0;
    for (int fd = 3; fd < 256; fd++) {
        char link[64], path[512];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length > 0 ? length : 0] = '\0';
        n += strstr(path, "/blobs/") != NULL && strstr(path, "(deleted)") != NULL;
    }
    return n;
}

struct opening {
    struct rig *r;
    struct open_set *set;
    struct digest digest;
    struct store_object record;
    struct open_wait w;
    enum open_result result;
    struct open_object *object;
    bool ended;
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

static void end_use(void *arg)
{
    struct opening *o = arg;
    open_put(o->set, o->object);
}

static void end_set(void *arg)
{
    struct opening *o = arg;
    o->ended = open_set_idle(o->set);
    if (o->ended)
        open_set_free(o->set);
}

/* What it has been told by now may still be closed by a job. */
static void end(struct opening *o)
{
    for (unsigned i = 0; i < 5000 && !o->ended; i++) {
        rig_on_core(o->r, end_set, o);
        usleep(o->ended ? 0 : 1000);
    }
    assert_true(o->ended);
}

/* A reader keeps what it has; what is only kept open is closed, so that its space is free. */
static void test_open_objects_let_go(void **state)
{
    struct rig *r = *state;
    struct opening o = {.r = r};
    o.digest = rig_blob(r, 1, KIB);
    assert_true(rig_object(r, &o.digest, &o.record));
    sem_init(&o.done, 0, 0);
    rig_on_core(r, begin_opening, &o);
    assert_int_equal(o.result, OPEN_WAIT);
    rig_wait(&o.done);
    assert_non_null(o.object);
    max_size(r, 1);
    assert_true(rig_has(r, &o.digest)); /* in use */
    rig_on_core(r, end_use, &o);
    max_size(r, 1);
    assert_false(rig_has(r, &o.digest));
    for (unsigned i = 0; i < 5000 && deleted_files() > 0; i++)
        usleep(1000);
    assert_int_equal(deleted_files(), 0);
    end(&o);
    sem_destroy(&o.done);
}

/* A set may end while a message about removed objects is on its way to it. */
static void test_a_set_ends_while_objects_go(void **state)
{
    struct rig *r = *state;
    for (unsigned round = 0; round < 20; round++) {
        struct opening o = {.r = r};
        o.digest = rig_blob(r, round, KIB);
        assert_true(rig_object(r, &o.digest, &o.record));
        sem_init(&o.done, 0, 0);
        rig_on_core(r, begin_opening, &o);
        assert_int_equal(o.result, OPEN_WAIT);
        rig_wait(&o.done);
        rig_on_core(r, end_use, &o);
        store_set_limits(r->store, &(struct store_limits){.max_size = 1});
        end(&o);
        max_size(r, 0); /* and what goes has gone, before the next object comes */
        sem_destroy(&o.done);
    }
}

/* ---- partial files, quarantine ---- */

static struct partial put_partial(struct rig *r, unsigned seed, size_t n)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    struct digest d = rig_digest(seed);
    struct partial p;
    char *bytes = rig_bytes(seed, n);
    if (partial_open(r->store, &d, &p, &w) != 0 || partial_write(&p, 0, bytes, n, &w) != 0)
        fail_msg("%s", why);
    free(bytes);
    return p;
}

static void test_partial_files_count_and_go_first(void **state)
{
    struct rig *r = *state;
    struct digest blob = rig_blob(r, 1, 10 * KIB);
    struct partial left = put_partial(r, 2, 64 * KIB), filled = put_partial(r, 3, 64 * KIB);
    assert_int_equal(used(r), 138 * KIB);
    partial_keep(&left, 64 * KIB);
    partial_close(&left);
    rig_assert_consistent(r);
    max_size(r, 100 * KIB);
    assert_false(rig_exists(r, STORE_DIR_PARTIAL, &left.digest));
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, &filled.digest));
    assert_true(rig_has(r, &blob));
    max_size(r, 1); /* it is being filled */
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, &filled.digest));
    assert_false(rig_has(r, &blob));
    rig_assert_consistent(r);
    max_size(r, 0);
    partial_keep(&filled, 10 * KIB);
    assert_int_equal(used(r), 10 * KIB);
    partial_close(&filled);
    rig_assert_consistent(r);
    rig_close(r);
    rig_open(r);
    assert_int_equal(used(r), 10 * KIB);
    rig_assert_consistent(r);
}

static void test_partial_files_are_counted_all_the_way(void **state)
{
    struct rig *r = *state;
    char why[1024] = "";
    struct str w = STR_INIT(why);
    struct partial p = put_partial(r, 2, 64 * KIB);
    char *bytes = rig_bytes(2, 64 * KIB);
    assert_int_equal(partial_write(&p, KIB * KIB, bytes, 64 * KIB, &w), 0); /* far ahead: a hole in between */
    assert_true(used(r) <= 192 * KIB);
    rig_assert_consistent(r);
    assert_int_equal(partial_cut(&p, 4 * KIB, &w), 0);
    assert_int_equal(used(r), 4 * KIB);
    assert_int_equal(partial_renew(&p, &w), 0);
    assert_int_equal(used(r), 0);
    rig_assert_consistent(r);
    assert_int_equal(partial_write(&p, 0, bytes, 8 * KIB, &w), 0);
    partial_close(&p);
    assert_int_equal(partial_open(r->store, &p.digest, &p, &w), 0); /* goes on */
    assert_int_equal(p.front, 8 * KIB);
    assert_int_equal(partial_write(&p, 8 * KIB, bytes, 8 * KIB, &w), 0);
    assert_int_equal(used(r), 16 * KIB);
    rig_assert_consistent(r);
    assert_int_equal(partial_commit(&p, 16 * KIB, &w), 0);
    struct store_change c = {.what = CHANGE_PUT_OBJECT, .digest = p.digest, .size = 16 * KIB};
    assert_int_equal(rig_apply(r, &c), 0);
    partial_close(&p);
    assert_int_equal(used(r), 16 * KIB);
    rig_assert_consistent(r);
    p = put_partial(r, 3, KIB);
    partial_discard(&p);
    partial_close(&p);
    rig_assert_consistent(r);
    free(bytes);
}

static void make_old(struct rig *r, enum store_dir dir, const struct digest *d, unsigned hours)
{
    char path[512];
    rig_file(r, dir, d, path);
    struct timespec t[2] = {{.tv_sec = clock_wall_ms() / 1000 - hours * 3600L},
                            {.tv_sec = clock_wall_ms() / 1000 - hours * 3600L}};
    assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static void test_partial_files_age(void **state)
{
    struct rig *r = *state;
    struct partial p[3];
    for (unsigned i = 0; i < 3; i++)
        p[i] = put_partial(r, i, KIB);
    for (unsigned i = 0; i < 2; i++)
        partial_close(&p[i]);
    make_old(r, STORE_DIR_PARTIAL, &p[0].digest, 25);
    make_old(r, STORE_DIR_PARTIAL, &p[1].digest, 23);
    make_old(r, STORE_DIR_PARTIAL, &p[2].digest, 25); /* being filled */
    store_tidy(r->store);
    assert_false(rig_exists(r, STORE_DIR_PARTIAL, &p[0].digest));
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, &p[1].digest));
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, &p[2].digest));
    limit(r, &(struct store_limits){.partial_age_ms = 3600000});
    assert_false(rig_exists(r, STORE_DIR_PARTIAL, &p[1].digest));
    assert_true(rig_exists(r, STORE_DIR_PARTIAL, &p[2].digest));
    partial_close(&p[2]);
    rig_assert_consistent(r);
}

static void test_quarantine_is_bounded(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < 105; i++) {
        struct digest d = rig_blob(r, i, KIB);
        rig_condemn(r, &d);
    }
    assert_int_equal(used(r), 105 * KIB);
    rig_assert_consistent(r);
    store_tidy(r->store);
    assert_int_equal(used(r), 100 * KIB);
    rig_assert_consistent(r);
    max_size(r, 50 * KIB);
    assert_true(used(r) <= 48 * KIB);
    rig_assert_consistent(r);
}

/* ---- other limits ---- */

static void test_age(void **state)
{
    struct rig *r = *state;
    struct digest old = rig_blob(r, 1, KIB), manifest = rig_image(r, 3, "a/b", "old", NULL, 0);
    limit(r, &(struct store_limits){.max_age_ms = 3600000});
    assert_true(rig_has(r, &old) && rig_has(r, &manifest));
    for (unsigned i = 0; i < 5; i++) /* a millisecond has gone by */
        usleep(1000);
    struct digest young = rig_blob(r, 2, KIB);
    touch(r, &young, 1000);
    limit(r, &(struct store_limits){.max_age_ms = 1}); /* without graces */
    assert_true(rig_has(r, &young));
    assert_false(rig_has(r, &old) || rig_has(r, &manifest) || rig_tag(r, "a/b", "old"));
}

static void test_free_space(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_blob(r, 1, KIB);
    limit(r, &(struct store_limits){.min_free = 1});
    assert_true(rig_has(r, &d));
    limit(r, &(struct store_limits){.min_free_percent = 100}); /* never */
    assert_false(rig_has(r, &d));
    d = rig_blob(r, 1, KIB);
    limit(r, &(struct store_limits){.min_free = UINT64_MAX / 4});
    assert_false(rig_has(r, &d));
}

static void test_relief(void **state)
{
    struct rig *r = *state;
    struct digest d[5];
    for (unsigned i = 0; i < 5; i++) {
        d[i] = rig_blob(r, i, 10 * KIB);
        touch(r, &d[i], i);
    }
    assert_int_equal(store_relieve(r->store, 15 * KIB), 20 * KIB);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(rig_has(r, &d[i]), i >= 2);
    assert_int_equal(store_relieve(r->store, 100 * KIB), 30 * KIB);
    assert_int_equal(store_relieve(r->store, 100 * KIB), 0);
    rig_assert_consistent(r);
}

static void test_fits(void **state)
{
    struct rig *r = *state;
    assert_true(store_fits(r->store, 1000));
    assert_false(store_fits(r->store, UINT64_MAX / 2)); /* no disk is that large */
    max_size(r, 1000);
    assert_true(store_fits(r->store, 950));
    assert_false(store_fits(r->store, 951));
    max_size(r, 0);
    assert_true(store_fits(r->store, 951));
}

/* Fills that are under way together have to fit together, at their full lengths, beside what is pinned. */
static void test_fills_fit_together(void **state)
{
    struct rig *r = *state;
    struct partial a = put_partial(r, 1, KIB), b = put_partial(r, 2, KIB), c = put_partial(r, 3, KIB);
    char why[1024];
    struct str w = STR_INIT(why);
    assert_true(partial_expect(&a, 1000 * KIB));
    assert_false(partial_expect(&b, UINT64_MAX / 2));
    max_size(r, 1000 * KIB); /* 950 may be filled; what has begun is not ended */
    assert_false(partial_expect(&b, KIB));
    assert_true(partial_expect(&a, 500 * KIB));
    assert_false(partial_expect(&b, 451 * KIB));
    assert_true(partial_expect(&b, 450 * KIB));
    assert_true(partial_expect(&b, 450 * KIB)); /* again: the same */
    assert_false(partial_expect(&c, 1));
    assert_true(partial_expect(&b, 449 * KIB));
    assert_true(partial_expect(&c, KIB));
    partial_keep(&a, KIB);
    assert_true(partial_expect(&c, 501 * KIB));
    partial_discard(&b);
    assert_true(partial_expect(&c, 950 * KIB));
    assert_int_equal(partial_commit(&c, KIB, &w), 0);
    assert_true(partial_expect(&a, 950 * KIB));
    partial_close(&a);
    partial_close(&c);
    assert_true(partial_expect(&b, 950 * KIB));
    partial_close(&b);
    hold_indexed(r->store, &c.digest);
}

static void test_fills_fit_beside_what_is_pinned(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_blob(r, 10, 100 * KIB);
    struct partial p = put_partial(r, 1, KIB);
    char why[1024];
    struct str w = STR_INIT(why);
    max_size(r, 1000 * KIB);
    assert_true(partial_expect(&p, 950 * KIB));
    assert_int_equal(store_pin_digest(r->store, &d, &w), 0);
    store_tidy(r->store);
    assert_false(partial_expect(&p, 851 * KIB));
    assert_true(partial_expect(&p, 850 * KIB));
    partial_discard(&p);
    partial_close(&p);
}

/* ---- beside all else ---- */

struct beside {
    struct rig *r;
    atomic_bool stop;
    unsigned seen, wrong;
};

/* Reads objects as they come and go: what the index has can be opened, or is gone a moment later. */
static void *read_beside(void *arg)
{
    struct beside *b = arg;
    struct store_reader *reader = store_reader_new(b->r->store);
    for (unsigned i = 0; !atomic_load(&b->stop); i++) {
        struct store_object o;
        char *bytes = rig_bytes(i % 50, 4 * KIB), path[512];
        struct digest d = rig_digest_of(bytes, 4 * KIB);
        free(bytes);
        if (!store_get_object(reader, &d, &o))
            continue;
        store_touch(reader, &d, clock_mono_ms());
        struct store_hold *h = store_hold(b->r->store, &d);
        hold_use(h);
        rig_file(b->r, STORE_DIR_SHA256, &d, path);
        int fd = open(path, O_RDONLY);
        if (fd >= 0) {
            struct stat st;
            b->wrong += fstat(fd, &st) != 0 || st.st_size != 4 * KIB;
            close(fd);
            b->seen++;
        } else if (store_get_object(reader, &d, &o)) {
            /* In the index all the time, and no file? Stored again in between is possible, once. */
            fd = open(path, O_RDONLY);
            b->wrong += fd < 0 && store_get_object(reader, &d, &o) && access(path, F_OK) != 0 &&
                        store_get_object(reader, &d, &o);
            if (fd >= 0)
                close(fd);
        }
        hold_unuse(h);
        store_release(b->r->store, h);
    }
    store_reader_free(reader);
    return NULL;
}

static void test_beside_readers_and_writers(void **state)
{
    struct rig *r = *state;
    struct beside b[2] = {{.r = r}, {.r = r}};
    pthread_t t[2];
    store_set_limits(r->store, &(struct store_limits){.max_size = 100 * KIB});
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, read_beside, &b[i]), 0);
    for (unsigned i = 0; i < 400; i++) {
        (void)rig_blob(r, i % 50, 4 * KIB);
        if (i % 40 == 0)
            (void)store_relieve(r->store, 20 * KIB);
    }
    unsigned i = 0;
    while (i++ < 2000 && (used(r) > 100 * KIB))
        usleep(1000);
    for (i = 0; i < 2; i++) {
        atomic_store(&b[i].stop, true);
        pthread_join(t[i], NULL);
        assert_int_equal(b[i].wrong, 0);
    }
    store_tidy(r->store);
    assert_true(used(r) <= 100 * KIB);
    rig_assert_consistent(r);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_longest_ago_first),
        RIG_TEST(test_many),
        RIG_TEST(test_layers_then_configuration_then_manifest),
        RIG_TEST(test_manifests_do_not_stay_for_ever),
        RIG_TEST(test_what_is_pinned_stays),
        RIG_TEST(test_what_is_read_or_placed_stays),
        RIG_TEST(test_open_objects_let_go),
        RIG_TEST(test_a_set_ends_while_objects_go),
        RIG_TEST(test_partial_files_count_and_go_first),
        RIG_TEST(test_partial_files_are_counted_all_the_way),
        RIG_TEST(test_partial_files_age),
        RIG_TEST(test_quarantine_is_bounded),
        RIG_TEST(test_age),
        RIG_TEST(test_free_space),
        RIG_TEST(test_relief),
        RIG_TEST(test_fits),
        RIG_TEST(test_fills_fit_together),
        RIG_TEST(test_fills_fit_beside_what_is_pinned),
        RIG_TEST(test_beside_readers_and_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
