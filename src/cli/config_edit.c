/* Changing the configuration file.
 *
 * The file at the end of symbolic links is what is changed. Under the lock: read, edit, validate, write a new file beside it, synced, with
 * owner, mode, access list and attributes of the old one; look whether the old one still is what was read (an editor knows nothing of the lock); rename; sync
 * the folder. Whatever fails, the file is the old one or the new one, whole.
 *
 * The lock is a file beside the configuration, locked with flock and holding the holder's process id. It is removed while it is locked,
 * so whoever gets the lock has to look whether the name still leads to what he has locked. */
#include "cli/config_edit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/config_file.h"
#include "conf/diff.h"

enum { COMPLAINTS = 50, LOCK_TRIES = 250, LOCK_PAUSE_MS = 20, ATTRIBUTE_MAX = 65536 };

#define ACCESS_LIST "system.posix_acl_access"

struct lock {
    char path[PATH_MAX];
    int fd;
};

struct file {
    const char *name; /* as the user gave it, for messages */
    char path[PATH_MAX];
    char folder[PATH_MAX];
    struct stat st;
    char *text;
    size_t n;
};

/* ---- messages ---- */

static void say_cannot(const char *name, const char *what, int error)
{
    const char *hint = "";
    if (error == EROFS)
        hint = "; the file system is read-only: a configuration that Kubernetes mounts from a ConfigMap is "
               "changed there, "
               "with kubectl edit configmap";
    else if (error == EACCES || error == EPERM)
        hint = "; run the command as the owner of the file and its folder";
    else if (error == EBUSY)
        hint = "; the file is a mount of its own and cannot be replaced: change it where it comes from";
    fprintf(stderr, "%s: cannot %s: %s%s\n", name, what, strerror(error), hint);
}

/* ---- the lock ---- */

static void say_locked(const struct lock *l)
{
    char holder[32] = "";
    ssize_t n = pread(l->fd, holder, sizeof holder - 1, 0);
    uint64_t pid = 0;
    bool known = n > 0 && span_u64(span_of(holder, (size_t)n - 1), INT_MAX, &pid);
    fprintf(stderr, "%s: ", l->path);
    if (known)
        fprintf(stderr, "process %lu is changing the configuration", (unsigned long)pid);
    else
        fputs("another process is changing the configuration", stderr);
    fputs("; try again when it has ended\n", stderr);
}

/* Is what was locked still what the name leads to? */
static bool lock_is_current(const struct lock *l)
{
    struct stat ours, named;
    return fstat(l->fd, &ours) == 0 && stat(l->path, &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

/* A command that root runs and that is killed leaves its lock to those who may change the file. */
static void lock_share(const struct lock *l, const struct file *f)
{
    struct stat st;
    if (geteuid() == 0 && stat(f->path, &st) == 0)
        (void)!fchown(l->fd, st.st_uid, st.st_gid);
}

static void say_no_lock(const struct lock *l, const struct file *f, int error)
{
    struct stat st;
    if (error == EACCES && stat(l->path, &st) == 0)
        fprintf(
            stderr,
            "%s: cannot open it: %s; another user's command has made it: if none runs any more, remove this "
            "file\n",
            l->path, strerror(error));
    else
        say_cannot(f->name, "lock it", error);
}

static bool lock_take(struct lock *l, const struct file *f)
{
    if ((size_t)snprintf(l->path, sizeof l->path, "%s.lock", f->path) >= sizeof l->path) {
        say_cannot(f->name, "lock it", ENAMETOOLONG);
        return false;
    }
    for (int i = 0; i < LOCK_TRIES; i++) {
        l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (l->fd < 0) {
            say_no_lock(l, f, errno);
            return false;
        }
        lock_share(l, f);
        bool got = flock(l->fd, LOCK_EX | LOCK_NB) == 0;
        if (got && lock_is_current(l)) {
            if (ftruncate(l->fd, 0) == 0)
                (void)dprintf(l->fd, "%ld\n",
                              (long)getpid()); /* for people; the lock does not depend on it */
            return true;
        }
        if (i + 1 == LOCK_TRIES)
            say_locked(l);
        close(l->fd);
        if (!got)
            nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_MS * 1000000L}, NULL);
    }
    return false;
}

static void lock_give(struct lock *l)
{
    unlink(l->path);
    close(l->fd);
}

/* ---- the file ---- */

/* Kubernetes keeps a volume's files in a folder "..TIME" and replaces it as a whole. */
static bool in_kubernetes_volume(const char *path)
{
    const char *p = strstr(path, "/..");
    return p != NULL && p[3] >= '0' && p[3] <= '9';
}

static bool file_find(struct file *f, const char *name)
{
    f->name = name;
    if (realpath(name, f->path) == NULL) {
        const char *hint = errno == ENOENT ? ", or make an empty one first" : "";
        fprintf(stderr,
                "%s: cannot read the configuration: %s; name the file with -f FILE or $LARDER_CONFIG%s\n",
                name, strerror(errno), hint);
        return false;
    }
    if (in_kubernetes_volume(f->path)) {
        fprintf(stderr,
                "%s: this file is in a volume that Kubernetes fills, and a change here would be lost; change "
                "the ConfigMap "
                "instead, with kubectl edit configmap\n",
                name);
        return false;
    }
    memcpy(f->folder, f->path, sizeof f->folder);
    *(strrchr(f->folder, '/') + 1) = '\0'; /* with its last slash, so that "/" is "/" */
    return true;
}

static bool file_read(struct file *f)
{
    const char *why = NULL;
    int fd = config_open(f->path, &why);
    if (fd >= 0 && fstat(fd, &f->st) != 0)
        why = strerror(errno);
    if (why == NULL)
        (void)config_read_text(fd, &f->text, &f->n, &why);
    if (fd >= 0)
        close(fd);
    if (why != NULL)
        fprintf(stderr, "%s: cannot read the configuration: %s\n", f->name, why);
    return why == NULL;
}

/* Is the file what was read from it? */
static bool file_is_unchanged(const struct file *f)
{
    struct file now = {.name = f->name};
    memcpy(now.path, f->path, sizeof now.path);
    bool same = file_read(&now) && now.st.st_ino == f->st.st_ino && now.st.st_dev == f->st.st_dev &&
                span_eq(span_of(now.text, now.n), span_of(f->text, f->n));
    mem_free(now.text);
    return same;
}

static bool write_all(int fd, struct span text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno != EINTR)
            return false;
        text = span_from(text, n > 0 ? (size_t)n : 0);
    }
    return true;
}

static bool is_none(int error)
{
    return error == ENODATA || error == ENOTSUP;
}

/* Who may do what beside owner, group and the others. What the folder gives to new files is not the old one's. */
static bool copy_access_list(int fd, const char *from)
{
    char *value = mem_alloc(ATTRIBUTE_MAX);
    ssize_t n = getxattr(from, ACCESS_LIST, value, ATTRIBUTE_MAX);
    bool ok = n >= 0 ? fsetxattr(fd, ACCESS_LIST, value, (size_t)n, 0) == 0
                     : is_none(errno) && (fremovexattr(fd, ACCESS_LIST) == 0 || is_none(errno));
    mem_free(value);
    return ok;
}

/* What the file system or the user does not allow stays behind: no access depends on it. */
static void copy_attributes(int fd, const char *from)
{
    char *names = mem_alloc(ATTRIBUTE_MAX), *value = mem_alloc(ATTRIBUTE_MAX);
    ssize_t n = listxattr(from, names, ATTRIBUTE_MAX);
    for (const char *name = names; name < names + (n > 0 ? n : 0); name += strlen(name) + 1) {
        bool wanted = strncmp(name, "user.", 5) == 0 || strcmp(name, "security.selinux") == 0;
        ssize_t size = wanted ? getxattr(from, name, value, ATTRIBUTE_MAX) : -1;
        if (size >= 0)
            (void)fsetxattr(fd, name, value, (size_t)size, 0);
    }
    mem_free(names);
    mem_free(value);
}

/* 0, or what could not be done. */
static const char *fill(int fd, const struct file *f, struct span text)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !write_all(fd, text))
        return "write the new file";
    if ((st.st_uid != f->st.st_uid || st.st_gid != f->st.st_gid) &&
        fchown(fd, f->st.st_uid, f->st.st_gid) != 0)
        return "keep the file's owner";
    copy_attributes(fd, f->path);
    if (!copy_access_list(fd, f->path))
        return "keep the file's access list";
    if (fchmod(fd, f->st.st_mode & 07777) != 0)
        return "keep the file's mode";
    return fsync(fd) == 0 ? NULL : "write the new file";
}

static bool sync_folder(const struct file *f)
{
    int fd = open(f->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool file_replace(const struct file *f, struct span text)
{
    char temporary[PATH_MAX];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.larder-XXXXXX", f->folder) >= sizeof temporary) {
        say_cannot(f->name, "write the new file", ENAMETOOLONG);
        return false;
    }
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        say_cannot(f->name, "write beside it", errno);
        return false;
    }
    const char *what = fill(fd, f, text);
    int error = errno;
    close(fd);
    if (what == NULL && !file_is_unchanged(f)) {
        fprintf(stderr,
                "%s: somebody else has changed the file meanwhile, and this change was not made; run the "
                "command again\n",
                f->name);
        unlink(temporary);
        return false;
    }
    if (what == NULL && rename(temporary, f->path) != 0) {
        what = "replace it";
        error = errno;
    }
    if (what != NULL) {
        say_cannot(f->name, what, error);
        unlink(temporary);
        return false;
    }
    if (!sync_folder(f))
        say_cannot(f->name, "sync its folder (the change is made, and may be lost if the machine stops now)",
                   errno);
    return true;
}

/* ---- the change ---- */

static struct conf *validate(const struct file *f, struct span text)
{
    struct config_warnings warnings;
    struct conf *c = config_load(text, f->name, &warnings);
    if (c == NULL)
        fprintf(stderr,
                "%s: nothing was changed, because the file would be refused as it says above; its lines "
                "are counted with the change in it\n",
                f->name);
    return c;
}

static struct conf *make_change(struct file *f, struct arena *a, const struct edit *change, bool dry_run)
{
    struct conf_error list[COMPLAINTS];
    struct conf_errors errors = {.list = list, .cap = COMPLAINTS};
    struct span before = span_of(f->text, f->n), after;
    if (!edit_apply(a, before, change, &errors, &after)) {
        config_errors_say(&errors, f->name);
        return NULL;
    }
    struct conf *c = validate(f, after);
    if (c != NULL && dry_run) {
        struct span diff = diff_unified(a, before, after, span_str(f->name));
        fwrite(diff.p, 1, diff.n, stdout);
    } else if (c != NULL && !span_eq(before, after) && !file_replace(f, after)) {
        conf_unref(c);
        c = NULL;
    }
    return c;
}

struct conf *config_edit(const char *path, const struct edit *change, bool dry_run)
{
    struct file f = {0};
    struct lock lock;
    if (!file_find(&f, path) || (!dry_run && !lock_take(&lock, &f)))
        return NULL;
    struct arena *a = arena_new();
    struct conf *c = file_read(&f) ? make_change(&f, a, change, dry_run) : NULL;
    if (!dry_run)
        lock_give(&lock);
    arena_free(a);
    mem_free(f.text);
    return c;
}
