/* What writes tell about the file system, and the probe that tells when it is over. `health_lock` guards health; `fault` repeats its
 * state for a look without the lock. */
#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/store_int.h"

#define PROBE       "probe"
#define PROBE_BYTES (64u << 10)

#define RESERVE     "reserve"
#define RESERVE_MAX (UINT64_C(1) << 20)

/* A full disk is not full any more when so much is free: else the next fill would fail after the first bytes. Of a small file
 * system a fiftieth is enough. */
#define HEALED_BYTES (UINT64_C(16) << 20)

enum store_fault store_fault_of(int error)
{
    switch (error) {
    case 0:
        return FAULT_NONE;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* a limit of the process: no file can be larger */
        return FAULT_FULL;
    case EROFS:
        return FAULT_READONLY;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return FAULT_BUSY;
    default:
        return FAULT_FAILING;
    }
}

const char *store_fault_name(enum store_fault fault)
{
    static const char *const names[] = {[FAULT_NONE] = "ok",
                                        [FAULT_FULL] = "full",
                                        [FAULT_READONLY] = "read-only",
                                        [FAULT_FAILING] = "failing",
                                        [FAULT_BUSY] = "busy"};
    return names[fault];
}

void health_init(struct store *s)
{
    pthread_mutex_init(&s->health_lock, NULL);
    atomic_init(&s->fault, FAULT_NONE);
    s->health = (struct store_health){.since_ms = clock_wall_ms()};
}

/* Is it about the file system, and not about one file (a folder that has its name, say)? */
static bool is_general(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
    case EIO:
    case ENXIO:
    case ENODEV:
    case ESTALE:
    case EUCLEAN:
    case ETIMEDOUT:
        return true;
    default:
        return store_fault_of(error) == FAULT_FULL || store_fault_of(error) == FAULT_READONLY;
    }
}

enum store_fault health_note(struct store *s, int error)
{
    enum store_fault fault = store_fault_of(error);
    if (!is_general(error))
        return fault;
    pthread_mutex_lock(&s->health_lock);
    bool news = s->health.fault != fault;
    if (news) {
        s->health.fault = fault;
        s->health.since_ms = clock_wall_ms();
        atomic_store(&s->fault, (int)fault);
    }
    s->health.failures++;
    s->health.error = error;
    pthread_mutex_unlock(&s->health_lock);
    if (news) {
        log_error("store",
                  "the store takes no writes; what is there is served, what comes is passed on and not kept",
                  LOG_S("state", store_fault_name(fault)), LOG_S("error", store_errno_words(error)),
                  LOG_S("path", s->path));
        keeper_wake(s);
    }
    return fault;
}

void store_health(struct store *s, struct store_health *out)
{
    pthread_mutex_lock(&s->health_lock);
    *out = s->health;
    pthread_mutex_unlock(&s->health_lock);
}

bool health_relieved(struct store *s, int error, uint64_t bytes)
{
    return (error == ENOSPC || error == EDQUOT) && store_relieve(s, bytes) > 0;
}

/* Room for more than the probe itself. */
static bool has_room(const struct store *s)
{
    struct statvfs v;
    if (fstatvfs(s->root, &v) != 0)
        return false;
    uint64_t fiftieth = (uint64_t)v.f_blocks * v.f_frsize / 50;
    return (uint64_t)v.f_bavail * v.f_frsize >= (fiftieth < HEALED_BYTES ? fiftieth : HEALED_BYTES);
}

int health_of_index(const struct store *s, int rc)
{
    return rc == EIO && !has_room(s) ? ENOSPC : rc;
}

void health_keep_reserve(struct store *s)
{
    struct statvfs v;
    if (atomic_load(&s->reserved) || atomic_load(&s->fault) != FAULT_NONE || !has_room(s) ||
        fstatvfs(s->root, &v) != 0)
        return;
    uint64_t part = (uint64_t)v.f_blocks * v.f_frsize / 64;
    int fd = openat(s->root, RESERVE, O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, STORE_FILE_MODE);
    if (fd < 0)
        return;
    /* Where the file system cannot set blocks aside there is none. */
    bool kept = fallocate(fd, 0, 0, (off_t)(part < RESERVE_MAX ? part : RESERVE_MAX)) == 0;
    close(fd);
    if (kept)
        atomic_store(&s->reserved, true);
    else
        unlinkat(s->root, RESERVE, 0);
}

bool health_spend_reserve(struct store *s)
{
    bool spent = atomic_exchange(&s->reserved, false) && unlinkat(s->root, RESERVE, 0) == 0;
    if (spent)
        log_warn("store", "gave up the reserve of the store, so that a full disk can be emptied",
                 LOG_S("path", s->path));
    return spent;
}

static int write_probe(struct store *s)
{
    static const char zeros[PROBE_BYTES];
    int dir = s->dirs[STORE_DIR_TMP];
    int fd = openat(dir, PROBE, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, STORE_FILE_MODE);
    if (fd < 0)
        return errno;
    int error = store_write_all(fd, 0, zeros, sizeof zeros);
    if (error == 0 && fdatasync(fd) != 0)
        error = errno;
    close(fd);
    if (unlinkat(dir, PROBE, 0) != 0 && error == 0)
        error = errno;
    return error;
}

void health_probe(struct store *s)
{
    enum store_fault fault = (enum store_fault)atomic_load(&s->fault);
    if (fault == FAULT_NONE || (fault == FAULT_FULL && !has_room(s)) || write_probe(s) != 0)
        return;
    pthread_mutex_lock(&s->health_lock);
    int64_t now = clock_wall_ms(), before = s->health.since_ms;
    s->health.fault = FAULT_NONE;
    s->health.since_ms = now;
    atomic_store(&s->fault, FAULT_NONE);
    pthread_mutex_unlock(&s->health_lock);
    log_info("store", "the store takes writes again", LOG_S("path", s->path),
             LOG_I("seconds", (now - before) / 1000));
}
