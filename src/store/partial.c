/* Partial files: what a fill has so far, in partial/<algorithm>-<hex>; a second fill's in tmp/fill.<number>.
 *
 * After a clean end a partial is [0, front) and nothing else (partial_keep). After a kill it is whatever was written.
 * A fill in order leaves a file without holes, and its size is the front. A fill with extents ahead leaves holes, which
 * SEEK_HOLE tells in whole blocks; the front's last block may be partly written, so it is not believed. What makes that
 * enough is the rule of partial_write: an end in mid-block right below an extent ahead would leave a gap that is no
 * hole. The next fill knows nothing of these extents, so partial_open cuts them off before it writes. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_int.h"

/* What writes ahead of the front are aligned to at most: extents ahead begin on multiples of it. */
#define BLOCK_MAX (UINT64_C(64) << 10)

/* A fill that finds the disk full will write on: room is made for some time. */
#define RELIEF (UINT64_C(16) << 20)

static void partial_name(const struct partial *p, char name[STORE_NAME_MAX])
{
    struct str s = str_init(name, STORE_NAME_MAX);
    if (p->second == 0) {
        store_flat_name(&p->digest, name);
        return;
    }
    str_addz(&s, "fill.");
    str_addu(&s, p->second);
}

static enum store_dir partial_dir(const struct partial *p)
{
    return p->second == 0 ? STORE_DIR_PARTIAL : STORE_DIR_TMP;
}

static int fail(struct partial *p, struct str *why, int error, const char *what)
{
    char name[STORE_NAME_MAX];
    partial_name(p, name);
    p->fault = health_note(p->store, error);
    return store_fail(p->store, why, error, what, partial_dir(p), name);
}

/* What it takes on disk is what the store counts. */
static void count(struct partial *p)
{
    struct stat st;
    if (fstat(p->fd, &st) == 0)
        hold_fill_is(p->store, p->hold, st.st_nlink > 0 ? store_taken(&st) : 0);
}

/* No file system tells holes in smaller pieces than this: the preferred block size (which may be far larger, or odd), as
 * a power of two that is not below a page. */
static uint64_t hole_block(uint64_t preferred)
{
    uint64_t block = (uint64_t)sysconf(_SC_PAGESIZE);
    while (block < preferred && block < (UINT64_C(1) << 40))
        block *= 2;
    return block;
}

/* How much from 0 was certainly written. */
static uint64_t find_front(int fd, uint64_t size, uint64_t block)
{
    off_t hole = lseek(fd, 0, SEEK_HOLE);
    if (hole < 0)
        return 0;
    if ((uint64_t)hole >= size)
        return size;
    uint64_t whole = (uint64_t)hole / block;
    return whole > 0 ? (whole - 1) * block : 0;
}

/* Opens what is there, or creates it: then it is counted. The descriptor, or -1 and errno. */
static int open_file(struct partial *p, const char *name)
{
    int dir = p->store->dirs[partial_dir(p)];
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(dir, name, flags);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0)
        hold_fill_from(p->store, p->hold, store_taken(&st));
    if (fd >= 0 || errno != ENOENT)
        return fd;
    fd = openat(dir, name, flags | O_CREAT | O_EXCL, STORE_FILE_MODE);
    if (fd >= 0) {
        hold_fill_from(p->store, p->hold, 0);
        atomic_fetch_add(&p->store->partials, 1);
    }
    return fd;
}

/* Finds the front, and leaves nothing behind it. Where an earlier flight still reads the file, that has cut it at its end. 0 or errno. */
static int believe(struct partial *p, int fd, const struct stat *st)
{
    uint64_t size = (uint64_t)st->st_size, block = hole_block((uint64_t)st->st_blksize);
    p->front = find_front(fd, size, block);
    p->block = block < BLOCK_MAX ? block : BLOCK_MAX;
    if (p->front < size && hold_fill_alone(p->store, p->hold) && ftruncate(fd, (off_t)p->front) != 0)
        return errno;
    return 0;
}

static int not_opened(struct partial *p, int fd, int error, struct str *why)
{
    if (fd >= 0)
        close(fd);
    hold_fill_end(p->store, p->hold);
    p->hold = NULL;
    return fail(p, why, error, "open");
}

/* What it is to be called and its hold are set. */
static int open_named(struct store *s, struct partial *out, struct str *why)
{
    char name[STORE_NAME_MAX];
    partial_name(out, name);
    int fd = open_file(out, name), error = fd < 0 ? errno : 0;
    if (health_relieved(s, error, RELIEF)) { /* no inodes */
        fd = open_file(out, name);
        error = fd < 0 ? errno : 0;
    }
    if (fd < 0)
        return not_opened(out, -1, error, why);
    struct stat st;
    error = fstat(fd, &st) != 0 ? errno : 0;
    if (error == 0 && !S_ISREG(st.st_mode))
        error = EEXIST;
    if (error == 0)
        error = believe(out, fd, &st);
    if (error != 0)
        return not_opened(out, fd, error, why);
    out->fd = fd;
    count(out);
    return 0;
}

int partial_open(struct store *s, const struct digest *d, struct partial *out, struct str *why)
{
    CHECK_MAGIC(s, STORE_MAGIC);
    *out = (struct partial){.store = s, .digest = *d, .fd = -1, .hold = hold_fill(s, d)};
    return open_named(s, out, why);
}

int partial_open_second(struct store *s, const struct digest *d, struct partial *out, struct str *why)
{
    CHECK_MAGIC(s, STORE_MAGIC);
    *out = (struct partial){.store = s, .digest = *d, .fd = -1, .hold = hold_fill_second(d)};
    out->second = 1 + atomic_fetch_add_explicit(&s->tmp_names, 1, memory_order_relaxed);
    return open_named(s, out, why);
}

bool partial_expect(struct partial *p, uint64_t bytes)
{
    return hold_fill_expects(p->store, p->hold, bytes, evict_room(p->store));
}

int partial_write(struct partial *p, uint64_t off, const void *bytes, size_t n, struct str *why)
{
    int error = store_write_all(p->fd, off, bytes, n);
    if (health_relieved(p->store, error, n + RELIEF))
        error = store_write_all(p->fd, off, bytes, n);
    count(p);
    if (evict_is_due(p->store))
        keeper_wake(p->store);
    return error != 0 ? fail(p, why, error, "write") : 0;
}

int partial_commit(struct partial *p, uint64_t size, struct str *why)
{
    struct store *s = p->store;
    struct stat st;
    hold_fill_over(s, p->hold); /* however this ends, nothing more is written */
    if (fstat(p->fd, &st) != 0)
        return fail(p, why, errno, "look at");
    if ((uint64_t)st.st_size != size) {
        int err = fail(p, why, EINVAL, "store");
        str_addf(why, "; it has %lld bytes and should have %llu", (long long)st.st_size,
                 (unsigned long long)size);
        return err;
    }
    if (fdatasync(p->fd) != 0)
        return fail(p, why, errno, "sync");
    char from[STORE_NAME_MAX], to[STORE_NAME_MAX];
    enum store_dir blobs = store_blobs_dir(&p->digest);
    partial_name(p, from);
    store_blob_name(&p->digest, to);
    hold_place(s, &p->digest);
    int error = store_move(s, partial_dir(p), from, blobs, to);
    if (error != 0) {
        hold_not_placed(s, &p->digest);
        p->fault = health_note(s, error);
        return store_fail(s, why, error, "move a file to", blobs, to);
    }
    hold_fill_is(s, p->hold, 0);
    atomic_fetch_sub(&s->partials, 1);
    enum store_dir sync = blobs;
    if (fsync(s->dirs[sync]) == 0)
        sync = partial_dir(p);
    if (sync != blobs && fsync(s->dirs[sync]) == 0)
        return 0;
    error = errno;
    hold_not_placed(s, &p->digest);
    p->fault = health_note(s, error);
    return store_fail(s, why, error, "sync", sync, NULL);
}

void partial_keep(struct partial *p, uint64_t front)
{
    struct stat st;
    hold_fill_over(p->store, p->hold);
    if (p->second != 0)
        front = 0;
    if (front > 0 && fstat(p->fd, &st) == 0 && SOFT(front <= (uint64_t)st.st_size) &&
        ftruncate(p->fd, (off_t)front) == 0) {
        count(p);
        return;
    }
    if (front > 0)
        log_warn("store", "cannot shorten a partial file to what is known good, removing it",
                 LOG_D("digest", &p->digest), LOG_S("error", store_errno_words(errno)));
    partial_discard(p);
}

int partial_renew(struct partial *p, struct str *why)
{
    partial_discard(p);
    struct partial fresh;
    int err = p->second == 0 ? partial_open(p->store, &p->digest, &fresh, why)
                             : partial_open_second(p->store, &p->digest, &fresh, why);
    if (err != 0) {
        p->fault = fresh.fault;
        return err;
    }
    partial_close(p);
    *p = fresh;
    return 0;
}

int partial_cut(struct partial *p, uint64_t front, struct str *why)
{
    if (ftruncate(p->fd, (off_t)front) != 0)
        return fail(p, why, errno, "cannot shorten");
    count(p);
    return 0;
}

void partial_discard(struct partial *p)
{
    char name[STORE_NAME_MAX];
    partial_name(p, name);
    hold_fill_over(p->store, p->hold);
    if (unlinkat(p->store->dirs[partial_dir(p)], name, 0) == 0) {
        atomic_fetch_sub(&p->store->partials, 1);
        hold_fill_is(p->store, p->hold, 0);
    } else if (errno != ENOENT)
        log_error("store", "cannot remove a partial file", LOG_D("digest", &p->digest),
                  LOG_S("error", store_errno_words(errno)));
}

void partial_close(struct partial *p)
{
    if (p->fd < 0)
        return;
    if (p->second != 0)
        partial_discard(p); /* a no-op after a commit */
    close(p->fd);
    hold_fill_end(p->store, p->hold);
    p->fd = -1;
    p->hold = NULL;
}
