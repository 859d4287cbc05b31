/* The store's folders: opening, the lock, names, and moving files about. Nothing here knows the index.
 *
 * The lock is a flock on <path>/lock, which holds the process id of its holder and since when, as text. It belongs to the open
 * file, so it goes with the process however that ends; a left-over file locks nothing. A proper end empties the file: one that
 * has text and no holder tells of an unclean stop. (A file and not a record of the index: this needs no room on a full disk.)
 *
 * Only tmp/ is cleared at start: what lies there was never whole. Partial files are kept for resume. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"

/* More than any real path needs, and leaves room for what is appended below it. */
#define STORE_PATH_MAX (PATH_MAX - 256)

/* Room is made for more than the one file that found none. */
#define RELIEF (UINT64_C(1) << 20)

#define OCI_LAYOUT "{\"imageLayoutVersion\":\"1.0.0\"}"
#define PROBE      ".probe"

/* Address space, not memory or disk: the index's file grows as it needs to, and can never grow beyond this. */
#if SIZE_MAX > UINT32_MAX
#define INDEX_MAX ((size_t)64 << 30)
#else
#define INDEX_MAX ((size_t)256 << 20)
#endif

/* ---- names ---- */

const char *store_dir_name(enum store_dir dir)
{
    static const char *const names[] = {
#define X(id, name) [STORE_DIR_##id] = name,
        STORE_DIR_TABLE(X)
#undef X
    };
    return names[dir];
}

enum store_dir store_blobs_dir(const struct digest *d)
{
    MUST(d->alg == DIGEST_SHA256 || d->alg == DIGEST_SHA512);
    return d->alg == DIGEST_SHA256 ? STORE_DIR_SHA256 : STORE_DIR_SHA512;
}

void store_blob_name(const struct digest *d, char name[STORE_NAME_MAX])
{
    struct str s = str_init(name, STORE_NAME_MAX);
    digest_addhex(&s, d);
    MUST(!s.cut && s.n > 0);
}

void store_flat_name(const struct digest *d, char name[STORE_NAME_MAX])
{
    struct str s = str_init(name, STORE_NAME_MAX);
    str_addz(&s, digest_alg_name(d));
    str_addc(&s, '-');
    digest_addhex(&s, d);
    MUST(!s.cut);
}

/* Lower-case hexadecimal of the right length, or not. */
bool store_name_digest(struct span name, enum digest_alg alg, struct digest *d)
{
    char text[DIGEST_TEXT_MAX];
    struct str t = STR_INIT(text);
    struct digest kind = {.alg = (uint8_t)alg};
    str_addz(&t, digest_alg_name(&kind));
    str_addc(&t, ':');
    str_add(&t, name);
    return !t.cut && digest_parse(str_span(&t), d) == DIGEST_OK;
}

bool store_flat_digest(struct span name, struct digest *d)
{
    if (span_starts(name, SPAN("sha256-")))
        return store_name_digest(span_from(name, 7), DIGEST_SHA256, d);
    return span_starts(name, SPAN("sha512-")) && store_name_digest(span_from(name, 7), DIGEST_SHA512, d);
}

/* ---- threads ---- */

int store_thread(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* ---- messages ---- */

const char *store_errno_words(int error)
{
    const char *words = strerrordesc_np(error);
    return words != NULL ? words : "unknown error";
}

static const char *advice(int error)
{
    switch (error) {
    case EACCES:
    case EPERM:
        return "; give the user that larder runs as the right to write there, or set store.path to another "
               "folder";
    case EROFS:
        return "; mount it writable, or set store.path to another folder";
    case ENOTDIR:
    case EEXIST:
    case ELOOP:
        return "; something else has this name: move it away, or set store.path to another folder";
    case ENOSPC:
    case EDQUOT:
        return "; make room on this file system";
    case EXDEV:
        return "; all folders of a store must be on one file system";
    case EMFILE:
    case ENFILE:
        return "; raise the limit of open files";
    default:
        return "";
    }
}

static int path_fail(const struct store *s, struct str *why, int error, const char *what, const char *below)
{
    str_addf(why, "cannot %s %s%s%s: %s%s", what, s->path, below[0] != '\0' ? "/" : "", below,
             store_errno_words(error), advice(error));
    return ERR_STORE;
}

int store_fail(const struct store *s, struct str *why, int error, const char *what, enum store_dir dir,
               const char *name)
{
    char below[64 + STORE_NAME_MAX];
    struct str b = STR_INIT(below);
    str_addz(&b, store_dir_name(dir));
    if (name != NULL) {
        str_addc(&b, '/');
        str_addz(&b, name);
    }
    return path_fail(s, why, error, what, below);
}

/* ---- files ---- */

int store_write_all(int fd, uint64_t off, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t got = pwrite(fd, p, n, (off_t)off);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0)
            return EIO;
        p += got;
        off += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int store_move(const struct store *s, enum store_dir from, const char *from_name, enum store_dir to,
               const char *to_name)
{
    return renameat(s->dirs[from], from_name, s->dirs[to], to_name) == 0 ? 0 : errno;
}

int store_each_file(const struct store *s, enum store_dir dir, bool (*each)(const char *name, void *arg),
                    void *arg)
{
    int fd = openat(s->dirs[dir], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    struct dirent *e;
    errno = 0;
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && !each(e->d_name, arg)) {
            errno = 0;
            break;
        }
        errno = 0;
    }
    int error = errno;
    closedir(d);
    return error;
}

uint64_t store_taken(const struct stat *st)
{
    uint64_t blocks = (uint64_t)st->st_blocks * 512, size = (uint64_t)st->st_size;
    return blocks < size ? blocks : size;
}

/* Makes tmp/<tmp> with the content; 0 or the errno value, and `what` could not be done. */
static int write_tmp(struct store *s, const char *tmp, struct span content, const char **what)
{
    *what = "create";
    int fd = openat(s->dirs[STORE_DIR_TMP], tmp, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, STORE_FILE_MODE);
    if (fd < 0)
        return errno;
    *what = "write";
    int error = store_write_all(fd, 0, content.p, content.n);
    if (error == 0 && fdatasync(fd) != 0)
        error = errno;
    close(fd);
    if (error != 0)
        unlinkat(s->dirs[STORE_DIR_TMP], tmp, 0);
    return error;
}

int store_write_object(struct store *s, const struct digest *d, struct span content, struct str *why)
{
    char name[STORE_NAME_MAX], tmp[STORE_NAME_MAX];
    const char *what;
    enum store_dir blobs = store_blobs_dir(d);
    store_blob_name(d, name);
    store_flat_name(d, tmp);
    struct str t = {.p = tmp, .n = strlen(tmp), .cap = sizeof tmp};
    str_addc(&t, '.');
    str_addu(&t, atomic_fetch_add_explicit(&s->tmp_names, 1, memory_order_relaxed));
    MUST(!t.cut);

    int error = write_tmp(s, tmp, content, &what);
    if (health_relieved(s, error, content.n + RELIEF))
        error = write_tmp(s, tmp, content, &what);
    if (error != 0) {
        (void)health_note(s, error);
        return store_fail(s, why, error, what, STORE_DIR_TMP, tmp);
    }
    hold_place(s, d);
    error = store_move(s, STORE_DIR_TMP, tmp, blobs, name);
    if (error != 0) {
        hold_not_placed(s, d);
        (void)health_note(s, error);
        unlinkat(s->dirs[STORE_DIR_TMP], tmp, 0);
        return store_fail(s, why, error, "move a file to", blobs, name);
    }
    if (fsync(s->dirs[blobs]) != 0) {
        error = errno;
        hold_not_placed(s, d);
        (void)health_note(s, error);
        return store_fail(s, why, error, "sync", blobs, NULL);
    }
    return 0;
}

/* What replaces another file there was counted with it. */
static void count_quarantined(struct store *s, const char *flat, const struct stat *before)
{
    struct stat st;
    if (fstatat(s->dirs[STORE_DIR_QUARANTINE], flat, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (before->st_nlink == 0)
        atomic_fetch_add(&s->quarantined, 1);
    uint64_t was = before->st_nlink > 0 ? store_taken(before) : 0;
    atomic_fetch_add(&s->quarantined_bytes, store_taken(&st) - was);
}

void store_quarantine(struct store *s, const struct digest *d)
{
    char name[STORE_NAME_MAX], flat[STORE_NAME_MAX];
    struct stat before = {0};
    enum store_dir blobs = store_blobs_dir(d);
    store_blob_name(d, name);
    store_flat_name(d, flat);
    if (fstatat(s->dirs[STORE_DIR_QUARANTINE], flat, &before, AT_SYMLINK_NOFOLLOW) != 0)
        before.st_nlink = 0;
    int error = store_move(s, blobs, name, STORE_DIR_QUARANTINE, flat);
    if (error == ENOENT)
        return;
    if (error == 0) {
        count_quarantined(s, flat, &before);
        log_warn("store", "moved a damaged object to quarantine", LOG_D("digest", d));
        return;
    }
    log_error("store", "cannot move a damaged object to quarantine, removing it", LOG_D("digest", d),
              LOG_S("error", store_errno_words(error)));
    if (unlinkat(s->dirs[blobs], name, 0) != 0)
        log_error("store", "cannot remove a damaged object: remove the file by hand", LOG_D("digest", d),
                  LOG_S("error", store_errno_words(errno)));
}

/* ---- opening ---- */

/* As mkdir -p. */
static int make_path(struct store *s, struct str *why)
{
    if (mkdir(s->path, STORE_DIR_MODE) == 0 || errno == EEXIST)
        return 0;
    for (char *slash = strchr(s->path + 1, '/'); errno == ENOENT && slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool made = mkdir(s->path, STORE_DIR_MODE) == 0 || errno == EEXIST;
        if (!made)
            return path_fail(s, why, errno, "create the folder", "");
        *slash = '/';
        errno = ENOENT;
    }
    if (mkdir(s->path, STORE_DIR_MODE) == 0 || errno == EEXIST)
        return 0;
    return path_fail(s, why, errno, "create the folder", "");
}

/* The lock's text: a process id, a blank, and since when. */
static size_t read_lock(const struct store *s, char *text, size_t cap, struct span *pid, struct span *since)
{
    ssize_t n = pread(s->lock, text, cap, 0);
    struct span rest = span_of(text, n > 0 ? (size_t)n : 0);
    if (rest.n > 0 && rest.p[rest.n - 1] == '\n')
        rest.n--;
    if (!span_next(&rest, ' ', pid))
        *pid = span_of("", 0);
    *since = rest;
    return n > 0 ? (size_t)n : 0;
}

static int lock_refused(struct store *s, struct str *why)
{
    char text[64];
    struct span pid, since;
    uint64_t holder = 0;
    (void)read_lock(s, text, sizeof text, &pid, &since);
    str_addf(why, "the store %s is used by ", s->path);
    if (span_u64(pid, INT_MAX, &holder)) {
        str_addf(why, "process %d", (int)holder);
        if (since.n > 0) {
            str_addz(why, " since ");
            str_add(why, since);
        }
    } else {
        str_addz(why, "another process");
    }
    str_addf(why, " (it holds %s/lock); stop that process, or set store.path to another folder", s->path);
    return ERR_STORE;
}

static int take_lock(struct store *s, struct str *why)
{
    s->lock = openat(s->root, "lock", O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, STORE_FILE_MODE);
    if (s->lock < 0)
        return path_fail(s, why, errno, "open", "lock");
    if (flock(s->lock, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? lock_refused(s, why) : path_fail(s, why, errno, "lock", "lock");
    char text[64];
    struct span pid, since;
    s->unclean = read_lock(s, text, sizeof text, &pid, &since) > 0;
    struct str t = STR_INIT(text);
    str_addi(&t, getpid());
    str_addc(&t, ' ');
    clock_add_rfc3339(&t, clock_wall_ms());
    str_addc(&t, '\n');
    /* On a full disk this may fail. The lock holds all the same; only a second process cannot name us. */
    int error = store_write_all(s->lock, 0, t.p, t.n);
    if (error == 0 && (ftruncate(s->lock, (off_t)t.n) != 0 || fsync(s->lock) != 0))
        error = errno;
    if (error != 0)
        log_warn("store", "cannot write the process id into the lock file", LOG_S("path", s->path),
                 LOG_S("error", store_errno_words(error)));
    return 0;
}

/* A proper end: nothing to look after at the next start. */
static void clear_lock(struct store *s)
{
    if (ftruncate(s->lock, 0) != 0 || fsync(s->lock) != 0)
        log_warn("store", "cannot empty the lock file; the next start will look at the files again",
                 LOG_S("path", s->path), LOG_S("error", store_errno_words(errno)));
}

static int open_folders(struct store *s, struct str *why)
{
    for (enum store_dir d = 0; d < STORE_DIRS; d++) {
        const char *name = store_dir_name(d);
        if (mkdirat(s->root, name, STORE_DIR_MODE) != 0 && errno != EEXIST)
            return store_fail(s, why, errno, "create the folder", d, NULL);
        s->dirs[d] = openat(s->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s->dirs[d] < 0)
            return store_fail(s, why, errno, "open the folder", d, NULL);
    }
    if (fsync(s->root) != 0)
        return path_fail(s, why, errno, "sync the folder", "");
    if (fsync(s->dirs[STORE_DIR_BLOBS]) != 0)
        return store_fail(s, why, errno, "sync the folder", STORE_DIR_BLOBS, NULL);
    return 0;
}

/* A file is created and moved through every folder that files are moved between: this finds folders without the right
 * to write, read-only mounts, and folders on another file system, now and not in the middle of a pull. A full disk is
 * no reason to refuse: what is there can be served, and room can be made. */
static int probe_folders(struct store *s, struct str *why)
{
    static const enum store_dir way[] = {STORE_DIR_PARTIAL, STORE_DIR_SHA256, STORE_DIR_SHA512,
                                         STORE_DIR_QUARANTINE, STORE_DIR_TMP};
    for (size_t i = 0; i < ARRAY_LEN(way); i++)
        if (unlinkat(s->dirs[way[i]], PROBE, 0) != 0 && errno != ENOENT)
            return store_fail(s, why, errno, "remove", way[i], PROBE);
    int fd = openat(s->dirs[way[0]], PROBE, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, STORE_FILE_MODE);
    if (fd < 0 && (errno == ENOSPC || errno == EDQUOT)) {
        log_warn("store", "the file system of the store is full", LOG_S("path", s->path));
        return 0;
    }
    if (fd < 0)
        return store_fail(s, why, errno, "create", way[0], PROBE);
    close(fd);
    size_t at = 0;
    int error = 0;
    while (error == 0 && at + 1 < ARRAY_LEN(way)) {
        error = store_move(s, way[at], PROBE, way[at + 1], PROBE);
        if (error == 0)
            at++;
    }
    unlinkat(s->dirs[way[at]], PROBE, 0);
    if (error != 0 && error != ENOSPC && error != EDQUOT)
        return store_fail(s, why, error, "move a file to", way[at + 1], NULL);
    return 0;
}

struct clearing {
    struct store *store;
    unsigned removed;
};

static bool clear_one(const char *name, void *arg)
{
    struct clearing *c = arg;
    if (unlinkat(c->store->dirs[STORE_DIR_TMP], name, 0) == 0)
        c->removed++;
    else
        log_warn("store", "cannot remove what an earlier run left in tmp/", LOG_S("path", c->store->path),
                 LOG_S("name", name), LOG_S("error", store_errno_words(errno)));
    return true;
}

static int clear_tmp(struct store *s, struct str *why)
{
    struct clearing c = {.store = s};
    int error = store_each_file(s, STORE_DIR_TMP, clear_one, &c);
    if (error != 0)
        return store_fail(s, why, error, "list the folder", STORE_DIR_TMP, NULL);
    if (c.removed > 0)
        log_info("store", "removed unfinished files of an earlier run", LOG_S("path", s->path),
                 LOG_U("files", c.removed));
    return 0;
}

/* Written once, aside and renamed, so that no reader of the layout sees half of it. */
static int write_oci_layout(struct store *s, struct str *why)
{
    if (faccessat(s->root, "oci-layout", F_OK, 0) == 0)
        return 0;
    int fd = openat(s->dirs[STORE_DIR_TMP], "oci-layout", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC,
                    STORE_FILE_MODE);
    if (fd < 0)
        return store_fail(s, why, errno, "create", STORE_DIR_TMP, "oci-layout");
    int error = store_write_all(fd, 0, OCI_LAYOUT, sizeof OCI_LAYOUT - 1);
    if (error == 0 && fdatasync(fd) != 0)
        error = errno;
    close(fd);
    if (error != 0)
        return store_fail(s, why, error, "write", STORE_DIR_TMP, "oci-layout");
    if (renameat(s->dirs[STORE_DIR_TMP], "oci-layout", s->root, "oci-layout") != 0 || fsync(s->root) != 0)
        return path_fail(s, why, errno, "create", "oci-layout");
    return 0;
}

static int layout_open(struct store *s, struct str *why)
{
    int err = make_path(s, why);
    if (err != 0)
        return err;
    s->root = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->root < 0)
        return path_fail(s, why, errno, "open the folder", "");
    if ((err = take_lock(s, why)) != 0 || (err = open_folders(s, why)) != 0 ||
        (err = probe_folders(s, why)) != 0 || (err = clear_tmp(s, why)) != 0 ||
        (err = evict_count_files(s, why)) != 0)
        return err;
    return write_oci_layout(s, why);
}

/* A file system may tell another number of blocks when it is asked again: a sum of them may be a little below nothing. */
static uint64_t count_of(const _Atomic uint64_t *sum)
{
    uint64_t n = atomic_load_explicit(sum, memory_order_relaxed);
    return n <= INT64_MAX ? n : 0;
}

static void store_free(struct store *s)
{
    for (enum store_dir d = 0; d < STORE_DIRS; d++)
        if (s->dirs[d] >= 0)
            close(s->dirs[d]);
    if (s->lock >= 0)
        close(s->lock);
    if (s->root >= 0)
        close(s->root);
    hold_end(s);
    pthread_mutex_destroy(&s->evict);
    pthread_mutex_destroy(&s->holds_lock);
    pthread_mutex_destroy(&s->health_lock);
    pthread_cond_destroy(&s->unclaimed);
    mem_free(s->path);
    s->magic = 0;
    mem_free(s);
}

uint64_t store_version(struct store *s)
{
    return atomic_load_explicit(&s->index->commits, memory_order_acquire);
}

void store_totals(struct store *s, struct store_totals *out)
{
    const struct index *x = s->index;
    *out =
        (struct store_totals){.objects = atomic_load_explicit(&x->objects, memory_order_relaxed),
                              .bytes = atomic_load_explicit(&x->bytes, memory_order_relaxed),
                              .damaged = atomic_load_explicit(&x->damaged, memory_order_relaxed),
                              .partials = atomic_load_explicit(&s->partials, memory_order_relaxed),
                              .partial_bytes = count_of(&s->partial_bytes),
                              .quarantined = atomic_load_explicit(&s->quarantined, memory_order_relaxed),
                              .quarantined_bytes = count_of(&s->quarantined_bytes),
                              .evicted = atomic_load_explicit(&s->evicted, memory_order_relaxed),
                              .evicted_bytes = atomic_load_explicit(&s->evicted_bytes, memory_order_relaxed)};
    out->used = out->bytes + out->partial_bytes + out->quarantined_bytes;
}

struct store *store_open_sized(struct span path, size_t index_max, struct str *why)
{
    while (path.n > 1 && path.p[path.n - 1] == '/')
        path.n--;
    if (path.n == 0 || path.n > STORE_PATH_MAX || memchr(path.p, '\0', path.n) != NULL) {
        str_addf(why, "store.path is empty, longer than %d bytes, or not a path", STORE_PATH_MAX);
        return NULL;
    }
    struct store *s;
    NEW(s);
    s->magic = STORE_MAGIC;
    s->path = mem_alloc(path.n + 1);
    memcpy(s->path, path.p, path.n);
    s->path[path.n] = '\0';
    s->root = s->lock = -1;
    for (enum store_dir d = 0; d < STORE_DIRS; d++)
        s->dirs[d] = -1;
    atomic_init(&s->tmp_names, 0);
    pthread_mutex_init(&s->evict, NULL);
    pthread_mutex_init(&s->holds_lock, NULL);
    pthread_cond_init(&s->unclaimed, NULL);
    map_init(&s->holds);
    list_init(&s->sets);
    health_init(s);
    store_set_limits(s, &(struct store_limits){0});
    if (layout_open(s, why) == 0)
        s->index = index_open(s, index_max, why);
    if (s->index == NULL || keeper_start(s, why) == NULL) {
        if (s->index != NULL)
            index_close(s->index);
        store_free(s);
        return NULL;
    }
    return s;
}

struct store *store_open(struct span path, struct str *why)
{
    return store_open_sized(path, INDEX_MAX, why);
}

void store_close(struct store *s)
{
    CHECK_MAGIC(s, STORE_MAGIC);
    keeper_stop(s->keeper);
    index_close(s->index);
    keeper_free(s->keeper);
    if (!hold_strays(s)) /* else the next start looks at the files, as after an unclean stop */
        clear_lock(s);
    store_free(s);
}
