/* Partial files: what a fill has so far, in partial/<algorithm>-<hex>.
 *
 * After a clean end a partial is [0, front) and nothing else (partial_keep). After a kill it is whatever was written.
 * A fill in order leaves a file without holes, and its size is the front. A fill with extents ahead leaves holes, which
 * SEEK_HOLE tells in whole blocks; the front's last block may be partly written, so it is not believed. What makes that
 * enough is the rule of partial_write: an end in mid-block right below an extent ahead would leave a gap that is no
 * hole. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_int.h"

/* What writes ahead of the front are aligned to at most: extents ahead begin on multiples of it. */
#define BLOCK_MAX (UINT64_C(64) << 10)

static void partial_name(const struct partial *p, char name[STORE_NAME_MAX])
{
    store_flat_name(&p->digest, name);
}

static int fail(const struct partial *p, struct str *why, int error, const char *what)
{
    char name[STORE_NAME_MAX];
    partial_name(p, name);
    return store_fail(p->store, why, error, what, STORE_DIR_PARTIAL, name);
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

int partial_open(struct store *s, const struct digest *d, struct partial *out, struct str *why)
{
    CHECK_MAGIC(s, STORE_MAGIC);
    *out = (struct partial){.store = s, .digest = *d, .fd = -1};
    char name[STORE_NAME_MAX];
    partial_name(out, name);
    int fd =
        openat(s->dirs[STORE_DIR_PARTIAL], name, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, STORE_FILE_MODE);
    if (fd < 0)
        return fail(out, why, errno, "open");
    struct stat st;
    int error = fstat(fd, &st) != 0 ? errno : 0;
    if (error == 0 && !S_ISREG(st.st_mode))
        error = EEXIST;
    if (error != 0) {
        close(fd);
        return fail(out, why, error, "open");
    }
    out->block = hole_block((uint64_t)st.st_blksize);
    out->front = find_front(fd, (uint64_t)st.st_size, out->block);
    if (out->block > BLOCK_MAX)
        out->block = BLOCK_MAX;
    out->fd = fd;
    return 0;
}

int partial_write(struct partial *p, uint64_t off, const void *bytes, size_t n, struct str *why)
{
    int error = store_write_all(p->fd, off, bytes, n);
    return error != 0 ? fail(p, why, error, "write") : 0;
}

int partial_commit(struct partial *p, uint64_t size, struct str *why)
{
    const struct store *s = p->store;
    struct stat st;
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
    int error = store_move(s, STORE_DIR_PARTIAL, from, blobs, to);
    if (error != 0)
        return store_fail(s, why, error, "move a file to", blobs, to);
    if (fsync(s->dirs[blobs]) != 0)
        return store_fail(s, why, errno, "sync", blobs, NULL);
    if (fsync(s->dirs[STORE_DIR_PARTIAL]) != 0)
        return store_fail(s, why, errno, "sync", STORE_DIR_PARTIAL, NULL);
    return 0;
}

void partial_keep(struct partial *p, uint64_t front)
{
    struct stat st;
    if (front > 0 && fstat(p->fd, &st) == 0 && SOFT(front <= (uint64_t)st.st_size) &&
        ftruncate(p->fd, (off_t)front) == 0)
        return;
    if (front > 0)
        log_warn("store", "cannot shorten a partial file to what is known good, removing it",
                 LOG_D("digest", &p->digest), LOG_S("error", store_errno_words(errno)));
    partial_discard(p);
}

int partial_renew(struct partial *p, struct str *why)
{
    partial_discard(p);
    struct partial fresh;
    int err = partial_open(p->store, &p->digest, &fresh, why);
    if (err != 0)
        return err;
    close(p->fd);
    *p = fresh;
    return 0;
}

int partial_cut(struct partial *p, uint64_t front, struct str *why)
{
    return ftruncate(p->fd, (off_t)front) == 0 ? 0 : fail(p, why, errno, "cannot shorten");
}

void partial_discard(struct partial *p)
{
    char name[STORE_NAME_MAX];
    partial_name(p, name);
    if (unlinkat(p->store->dirs[STORE_DIR_PARTIAL], name, 0) != 0 && errno != ENOENT)
        log_error("store", "cannot remove a partial file", LOG_D("digest", &p->digest),
                  LOG_S("error", store_errno_words(errno)));
}

void partial_close(struct partial *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}
