/* What the tests of the store share: a folder of their own, a store in it, and a core that runs on a thread. The
 * test's thread asserts; the core's thread only carries out. */
#ifndef LARDER_TESTS_STORE_RIG_H
#define LARDER_TESTS_STORE_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/str.h"
#include "store/store_int.h"

struct rig {
    char dir[64];  /* in the working folder; removed at the end */
    char path[96]; /* <dir>/store */
    struct store *store;
    struct core *core;
    pthread_t thread;
};

static inline void *rig_run_core(void *arg)
{
    core_run(arg);
    return NULL;
}

static inline void rig_open(struct rig *r)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    r->store = store_open(span_str(r->path), &w);
    if (r->store == NULL)
        fail_msg("store_open: %s", why);
}

static inline void rig_close(struct rig *r)
{
    store_close(r->store);
    r->store = NULL;
}

/* cmocka's setup: a folder, nothing in it yet. The paths are short however long that of the temporary files is. */
static inline int rig_setup_folder(void **state)
{
    const char *tmp = getenv("TMPDIR");
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    if (chdir(tmp != NULL ? tmp : P_tmpdir) != 0)
        return -1;
    struct rig *r = calloc(1, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "store-test-XXXXXX");
    if (mkdtemp(r->dir) == NULL)
        return -1;
    snprintf(r->path, sizeof r->path, "%s/store", r->dir);
    *state = r;
    return 0;
}

/* With an open store and a running core. */
static inline int rig_setup(void **state)
{
    if (rig_setup_folder(state) != 0)
        return -1;
    struct rig *r = *state;
    rig_open(r);
    r->core = core_new(0);
    return r->core != NULL ? pthread_create(&r->thread, NULL, rig_run_core, r->core) : -1;
}

static inline int rig_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline int rig_teardown(void **state)
{
    struct rig *r = *state;
    if (r->core != NULL) {
        core_quit(r->core);
        pthread_join(r->thread, NULL);
        core_free(r->core);
    }
    if (r->store != NULL)
        store_close(r->store);
    nftw(r->dir, rig_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(r);
    return 0;
}

/* ---- running something on the core, and waiting for it ---- */

struct rig_call {
    struct core_msg msg;
    void (*fn)(void *arg);
    void *arg;
    sem_t done;
};

static inline void rig_on_call(struct core_msg *m)
{
    struct rig_call *c = CONTAINER_OF(m, struct rig_call, msg);
    c->fn(c->arg);
    sem_post(&c->done);
}

static inline void rig_wait(sem_t *s)
{
    while (sem_wait(s) != 0)
        ;
}

static inline void rig_on_core(struct rig *r, void (*fn)(void *arg), void *arg)
{
    struct rig_call c = {.fn = fn, .arg = arg};
    sem_init(&c.done, 0, 0);
    core_msg_init(&c.msg, rig_on_call);
    core_post(r->core, &c.msg);
    rig_wait(&c.done);
    sem_destroy(&c.done);
}

/* ---- changes ---- */

struct rig_change {
    struct store_change c;
    sem_t *done;
    unsigned times;
    bool on_core;
};

static inline void rig_changed(struct store_change *c)
{
    struct rig_change *x = CONTAINER_OF(c, struct rig_change, c);
    x->times++;
    x->on_core = core_is_current(c->core);
    sem_post(x->done);
}

/* Applies one change and waits; its result. */
static inline int rig_apply(struct rig *r, const struct store_change *what)
{
    sem_t done;
    sem_init(&done, 0, 0);
    struct rig_change x = {.c = *what, .done = &done};
    store_apply(r->store, r->core, &x.c, rig_changed);
    rig_wait(&done);
    sem_destroy(&done);
    assert_int_equal(x.times, 1);
    assert_true(x.on_core);
    return x.c.err;
}

/* ---- content ---- */

static inline struct digest rig_digest_of(const void *bytes, size_t n)
{
    struct hasher h;
    struct digest d;
    hasher_init(&h, DIGEST_SHA256);
    hasher_update(&h, bytes, n);
    hasher_finish(&h, &d);
    return d;
}

static inline struct digest rig_digest(unsigned i)
{
    return rig_digest_of(&i, sizeof i);
}

/* "<path>/<folder>/<name of the digest>" */
static inline void rig_file(const struct rig *r, enum store_dir dir, const struct digest *d, char out[512])
{
    char name[STORE_NAME_MAX];
    if (dir == STORE_DIR_SHA256 || dir == STORE_DIR_SHA512)
        store_blob_name(d, name);
    else
        store_flat_name(d, name);
    snprintf(out, 512, "%s/%s/%s", r->path, store_dir_name(dir), name);
}

static inline bool rig_exists(const struct rig *r, enum store_dir dir, const struct digest *d)
{
    char path[512];
    rig_file(r, dir, d, path);
    return access(path, F_OK) == 0;
}

static inline void rig_write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0640);
    assert_true(fd >= 0);
    assert_int_equal(store_write_all(fd, 0, bytes, n), 0);
    close(fd);
}

/* ---- whole objects ---- */

/* `size` bytes that only this seed has. */
static inline char *rig_bytes(unsigned seed, size_t size)
{
    char *p = malloc(size > 0 ? size : 1);
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = (char)x;
    }
    return p;
}

/* Stores an object as the proxy does: the file, then `more` with CHANGE_PUT_OBJECT, and waits. */
static inline struct digest rig_store(struct rig *r, unsigned seed, size_t size,
                                      const struct store_change *more)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    char *bytes = rig_bytes(seed, size);
    struct store_change c = *more;
    c.what |= CHANGE_PUT_OBJECT;
    c.digest = rig_digest_of(bytes, size);
    c.size = size;
    content_sum_of(span_of(bytes, size), &c.sum);
    if (store_write_object(r->store, &c.digest, span_of(bytes, size), &w) != 0)
        fail_msg("store_write_object: %s", why);
    free(bytes);
    assert_int_equal(rig_apply(r, &c), 0);
    return c.digest;
}

static inline struct digest rig_blob(struct rig *r, unsigned seed, size_t size)
{
    return rig_store(r, seed, size, &(struct store_change){.repo = ""});
}

/* A manifest of repo:tag (tag "": none) that refers to these. */
static inline struct digest rig_image(struct rig *r, unsigned seed, const char *repo, const char *tag,
                                      const struct store_ref *refs, size_t n)
{
    struct store_change c = {.what =
                                 CHANGE_PUT_LINK | CHANGE_PUT_REFS | (tag[0] != '\0' ? CHANGE_PUT_TAG : 0),
                             .kind = STORE_MANIFEST,
                             .refs = refs,
                             .n_refs = n,
                             .checked_ms = 1700000000000,
                             .media = "application/vnd.oci.image.manifest.v1+json"};
    snprintf(c.repo, sizeof c.repo, "%s", repo);
    snprintf(c.tag, sizeof c.tag, "%s", tag);
    return rig_store(r, seed, 1000, &c);
}

static inline void rig_link(struct rig *r, const struct digest *d, const char *repo)
{
    struct store_change c = {.what = CHANGE_PUT_LINK, .digest = *d};
    snprintf(c.repo, sizeof c.repo, "%s", repo);
    assert_int_equal(rig_apply(r, &c), 0);
}

static inline bool rig_object(struct rig *r, const struct digest *d, struct store_object *out)
{
    struct store_reader *reader = store_reader_new(r->store);
    bool found = store_get_object(reader, d, out);
    store_reader_free(reader);
    return found;
}

static inline bool rig_tag(struct rig *r, const char *repo, const char *tag)
{
    struct store_tag is;
    struct store_reader *reader = store_reader_new(r->store);
    bool found = store_get_tag(reader, span_str(repo), span_str(tag), &is);
    store_reader_free(reader);
    return found;
}

/* It counts as damaged, as the index has it now. */
static inline void rig_condemn(struct rig *r, const struct digest *d)
{
    struct store_object o;
    assert_true(rig_object(r, d, &o));
    assert_true(store_condemn(r->store, d, &o));
}

/* In the index and in blobs/, or in neither. */
static inline bool rig_has(struct rig *r, const struct digest *d)
{
    struct store_object o;
    bool found = rig_object(r, d, &o);
    assert_int_equal(found, rig_exists(r, d->alg == DIGEST_SHA256 ? STORE_DIR_SHA256 : STORE_DIR_SHA512, d));
    return found;
}

/* The index and the folders agree, and the totals are what there is. */
struct rig_sum {
    struct rig *r;
    enum store_dir dir;
    uint64_t files, bytes;
};

static inline bool rig_add_file(const char *name, void *arg)
{
    struct rig_sum *s = arg;
    struct stat st;
    struct digest d;
    struct store_object o;
    assert_int_equal(fstatat(s->r->store->dirs[s->dir], name, &st, AT_SYMLINK_NOFOLLOW), 0);
    s->files++;
    s->bytes += s->dir == STORE_DIR_SHA256 ? (uint64_t)st.st_size : store_taken(&st);
    if (s->dir != STORE_DIR_SHA256)
        return true;
    if (!store_name_digest(span_str(name), DIGEST_SHA256, &d) || !rig_object(s->r, &d, &o))
        fail_msg("blobs/sha256/%s is not in the index", name);
    if (o.size != (uint64_t)st.st_size)
        fail_msg("blobs/sha256/%s has %lld bytes, the index says %llu", name, (long long)st.st_size,
                 (unsigned long long)o.size);
    return true;
}

static inline void rig_assert_consistent(struct rig *r)
{
    struct store_totals t;
    struct rig_sum blobs = {.r = r, .dir = STORE_DIR_SHA256}, partials = {.r = r, .dir = STORE_DIR_PARTIAL},
                   quarantine = {.r = r, .dir = STORE_DIR_QUARANTINE}, tmp = {.r = r, .dir = STORE_DIR_TMP};
    assert_int_equal(store_each_file(r->store, blobs.dir, rig_add_file, &blobs), 0);
    assert_int_equal(store_each_file(r->store, partials.dir, rig_add_file, &partials), 0);
    assert_int_equal(store_each_file(r->store, quarantine.dir, rig_add_file, &quarantine), 0);
    assert_int_equal(store_each_file(r->store, tmp.dir, rig_add_file, &tmp), 0);
    store_totals(r->store, &t);
    assert_int_equal(t.objects, blobs.files);
    assert_int_equal(t.bytes, blobs.bytes);
    assert_int_equal(t.partials, partials.files);
    assert_int_equal(t.partial_bytes, partials.bytes);
    assert_int_equal(t.quarantined, quarantine.files);
    assert_int_equal(t.quarantined_bytes, quarantine.bytes);
    assert_int_equal(t.used, blobs.bytes + partials.bytes + quarantine.bytes);
    assert_int_equal(tmp.files, 0);
}

#endif
