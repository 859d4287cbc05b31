/* A disk that fails, for larder under LD_PRELOAD (tests/flow/lib/disk.py).
 *
 *   LARDER_DISK  a folder. While it has a file fail-pwrite, fail-fdatasync, fail-fsync, fail-renameat, fail-ftruncate, fail-openat (of a
 *                file that would be made) or fail-open (of one that is there) with a line "ERROR SKIP", such calls on the store's files
 *                and folders fail with that error number; the first SKIP of them since the file is there do not. The store's index is let alone, but for
 *                fail-index: each fdatasync of it fails, so nothing can be written down there.
 *
 * The calls themselves go to the kernel directly, so it does not matter what else stands between the program and libc. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int in_the_store(int fd, int in_the_index)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return strstr(path, "/store") != NULL && (strstr(path, "/index") != NULL) == in_the_index;
}

/* How many of these calls there were since it is told to fail. */
static long nth(const char *call, int told)
{
    static struct {
        char call[16];
        long n;
    } counts[8];
    int i = 0;
    while (counts[i].call[0] != 0 && strcmp(counts[i].call, call) != 0)
        i++;
    snprintf(counts[i].call, sizeof counts[i].call, "%s", call);
    counts[i].n = told ? counts[i].n + 1 : 0;
    return counts[i].n;
}

/* 0, or -1 and errno. */
static int fails(const char *call, int fd)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char name[PATH_MAX], line[64];
    const char *folder = getenv("LARDER_DISK");
    int error = 0, before = errno;
    long skip = 0;
    if (folder == NULL || !in_the_store(fd, strcmp(call, "index") == 0))
        return 0;
    snprintf(name, sizeof name, "%s/fail-%s", folder, call);
    pthread_mutex_lock(&lock);
    FILE *file = fopen(name, "re");
    int told =
        file != NULL && fgets(line, sizeof line, file) != NULL && sscanf(line, "%d %ld", &error, &skip) == 2;
    int now = nth(call, told) > skip && told;
    if (file != NULL)
        fclose(file);
    pthread_mutex_unlock(&lock);
    errno = now ? error : before;
    return now ? -1 : 0;
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    return fails("pwrite", fd) != 0 ? -1 : syscall(SYS_pwrite64, fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
    return pwrite(fd, bytes, n, at);
}

int fdatasync(int fd)
{
    return fails("fdatasync", fd) != 0 || fails("index", fd) != 0 ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return fails("fsync", fd) != 0 ? -1 : (int)syscall(SYS_fsync, fd);
}

int ftruncate(int fd, off_t size)
{
    return fails("ftruncate", fd) != 0 ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

int renameat(int from, const char *name, int to, const char *new_name)
{
    return fails("renameat", from) != 0 ? -1 : (int)syscall(SYS_renameat2, from, name, to, new_name, 0);
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
    va_end(ap);
    if ((flags & O_CREAT) && fails("openat", dir) != 0)
        return -1;
    if (!(flags & (O_CREAT | O_DIRECTORY)) && fails("open", dir) != 0)
        return -1;
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...) __attribute__((alias("openat")));
