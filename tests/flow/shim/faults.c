/* What a test cannot make a real system do, for larder under LD_PRELOAD (tests/flow/lib/faults.py): calls on files in the store's
 * partial/, or on the file that is to replace the configuration, that wait until the test lets them go on; files that cannot be made; a file
 * system with another preferred block size; a clock that is off; names that DNS does not have.
 *
 *   LARDER_FAULTS        a folder. While it has a file hold-pread, hold-ftruncate or hold-fsync, such calls wait, and say so by making
 *                        held-pread and so on; with hold-preadv2, reads of the store's whole objects; with hold-listen, whoever has
 *                        made a socket listen. Its file names has a line "HOST ADDRESS..." for each name that is looked up
 *                        otherwise: without an address there is no such name, and the address "wait" waits while there is a file
 *                        hold-names.
 *                While it has a file fail-open with a line "ERROR PATH", to open that file fails with that error number
 *   LARDER_FAULT_CREATE  the error number with which every file that is opened to be made fails
 *   LARDER_FAULT_BLOCK   st_blksize of every file
 *   LARDER_FAULT_CLOCK   seconds by which the wall clock is ahead
 *
 * The calls themselves go to the kernel directly, so it does not matter what else stands between the program and libc. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long number(const char *variable)
{
    const char *text = getenv(variable);
    return text == NULL ? 0 : strtol(text, NULL, 10);
}

/* The path has one of two parts. */
static int is_watched(int fd, const char *one, const char *other)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return strstr(path, one) != NULL || strstr(path, other) != NULL;
}

static void wait_while_held(const char *call)
{
    char hold[PATH_MAX], held[PATH_MAX];
    const char *folder = getenv("LARDER_FAULTS");
    if (folder == NULL)
        return;
    snprintf(hold, sizeof hold, "%s/hold-%s", folder, call);
    snprintf(held, sizeof held, "%s/held-%s", folder, call);
    if (access(hold, F_OK) != 0)
        return;
    close(open(held, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    while (access(hold, F_OK) == 0)
        usleep(1000);
}

static void wait_if_held(const char *call, int fd)
{
    if (is_watched(fd, "/partial/", "/.larder-"))
        wait_while_held(call);
}

ssize_t preadv2(int fd, const struct iovec *parts, int n, off_t at, int flags)
{
    if (is_watched(fd, "/blobs/sha256/", "/blobs/sha512/"))
        wait_while_held("preadv2");
    return syscall(SYS_preadv2, fd, parts, (long)n, at, 0L, flags);
}

ssize_t preadv64v2(int fd, const struct iovec *parts, int n, off64_t at, int flags)
{
    return preadv2(fd, parts, n, at, flags);
}

ssize_t pread(int fd, void *bytes, size_t n, off_t at)
{
    wait_if_held("pread", fd);
    return syscall(SYS_pread64, fd, bytes, n, at);
}

ssize_t pread64(int fd, void *bytes, size_t n, off64_t at)
{
    return pread(fd, bytes, n, at);
}

int ftruncate(int fd, off_t size)
{
    wait_if_held("ftruncate", fd);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

int fsync(int fd)
{
    wait_if_held("fsync", fd);
    return (int)syscall(SYS_fsync, fd);
}

int listen(int fd, int n)
{
    int result = (int)syscall(SYS_listen, fd, n);
    wait_while_held("listen");
    return result;
}

/* The error number with which it fails, or 0. */
static int open_error(const char *path)
{
    char name[PATH_MAX], line[PATH_MAX + 32];
    const char *folder = getenv("LARDER_FAULTS");
    int error = 0, at = 0;
    if (folder == NULL)
        return 0;
    snprintf(name, sizeof name, "%s/fail-open", folder);
    FILE *file = fopen(name, "re");
    if (file == NULL)
        return 0;
    if (fgets(line, sizeof line, file) == NULL || sscanf(line, "%d %n", &error, &at) != 1 ||
        strcmp(line + at, path) != 0)
        error = 0;
    fclose(file);
    return error;
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    int mode = flags & O_CREAT ? va_arg(ap, int) : 0, error = (int)number("LARDER_FAULT_CREATE");
    va_end(ap);
    if (!(flags & O_CREAT))
        error = open_error(path);
    if (error == 0)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    errno = error;
    return -1;
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int fstat(int fd, struct stat *out)
{
    int result = fstatat(fd, "", out, AT_EMPTY_PATH);
    long block = number("LARDER_FAULT_BLOCK");
    if (result == 0 && block > 0)
        out->st_blksize = block;
    return result;
}

int fstat64(int fd, struct stat64 *out)
{
    return fstat(fd, (struct stat *)out);
}

int clock_gettime(clockid_t id, struct timespec *out)
{
    int result = (int)syscall(SYS_clock_gettime, id, out);
    if (result == 0 && id == CLOCK_REALTIME)
        out->tv_sec += number("LARDER_FAULT_CLOCK");
    return result;
}

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static lookup *libc_getaddrinfo(void)
{
    return (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
}

/* The addresses of one line of the file, in their order. */
static int listed(char *addresses, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    *out = NULL;
    for (char *save = NULL, *one = strtok_r(addresses, " \n", &save); one != NULL;
         one = strtok_r(NULL, " \n", &save)) {
        if (strcmp(one, "wait") == 0) {
            wait_while_held("names");
            continue;
        }
        struct addrinfo **end = out;
        while (*end != NULL)
            end = &(*end)->ai_next;
        int result = libc_getaddrinfo()(one, service, hints, end);
        if (result != 0)
            return result;
    }
    return *out == NULL ? EAI_NONAME : 0;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    char path[PATH_MAX], line[1024];
    const char *folder = getenv("LARDER_FAULTS");
    snprintf(path, sizeof path, "%s/names", folder == NULL ? "" : folder);
    FILE *file = name == NULL || folder == NULL ? NULL : fopen(path, "re");
    size_t n = name == NULL ? 0 : strlen(name);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, n) == 0 && strchr(" \n", line[n]) != NULL) {
            fclose(file);
            return listed(line + n, service, hints, out);
        }
    }
    if (file != NULL)
        fclose(file);
    return libc_getaddrinfo()(name, service, hints, out);
}
