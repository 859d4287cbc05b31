/* What the programs of bench/ share: messages, memory, the clock, sizes and durations, addresses. What
 * measures uses nothing of src/, so that a mistake there cannot hide in it. */
#ifndef LARDER_BENCH_UTIL_H
#define LARDER_BENCH_UTIL_H

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SEC 1000000000ll
#define NS_PER_MS  1000000ll

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static inline void *xzalloc(size_t n, size_t size)
{
    void *p = calloc(n > 0 ? n : 1, size);
    if (p == NULL)
        die("out of memory");
    return p;
}

static inline void *xgrow(void *p, size_t n, size_t size)
{
    if (size != 0 && n > SIZE_MAX / size)
        die("out of memory");
    p = realloc(p, n * size);
    if (p == NULL && n > 0)
        die("out of memory");
    return p;
}

__attribute__((format(printf, 1, 2))) static inline char *xprintf(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0)
        die("out of memory");
    return s;
}

static inline int64_t now_ns(void) /* CLOCK_MONOTONIC: the same for all processes of a machine */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static inline double cpu_seconds(void) /* user and system time of this process */
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* A number with a unit of the table; `units` is {"", 1}, {"KiB", 1024}, ... {NULL, 0}. */
struct unit {
    const char *name;
    double factor;
};

static inline double parse_unit(const char *option, const char *text, const struct unit *units)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end != text && errno == 0 && v >= 0 && v < 1e18)
        for (; units->name != NULL; units++)
            if (strcmp(end, units->name) == 0)
                return v * units->factor;
    die("--%s: \"%s\" is not a value it understands; see --help", option, text);
}

static inline uint64_t parse_size(const char *option, const char *text)
{
    static const struct unit units[] = {{"", 1},      {"KiB", 1024},   {"MiB", 1048576}, {"GiB", 1073741824},
                                        {"KB", 1000}, {"MB", 1000000}, {"GB", 1e9},      {NULL, 0}};
    return (uint64_t)parse_unit(option, text, units);
}

static inline int64_t parse_duration(const char *option, const char *text) /* nanoseconds */
{
    static const struct unit units[] = {{"", 1e9},  {"us", 1e3}, {"ms", 1e6},
                                        {"s", 1e9}, {"m", 60e9}, {NULL, 0}};
    return (int64_t)parse_unit(option, text, units);
}

static inline double parse_number(const char *option, const char *text, double min, double max)
{
    static const struct unit units[] = {{"", 1}, {NULL, 0}};
    double v = parse_unit(option, text, units);
    if (v < min || v > max)
        die("--%s: %s is outside %g to %g", option, text, min, max);
    return v;
}

/* A pseudo-random sequence that is the same on every machine (splitmix64). */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static inline double random_unit(uint64_t *state) /* [0, 1) */
{
    return (double)(random_next(state) >> 11) / 9007199254740992.0;
}

/* "127.0.0.1:5000" or "[::1]:5000" to a socket address. */
static inline void address_parse(const char *text, struct sockaddr_storage *addr, socklen_t *len)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon[1] == '\0')
        die("\"%s\" is not HOST:PORT", text);
    const char *from = text;
    size_t n = (size_t)(colon - text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        from++;
        n -= 2;
    }
    char host[256];
    if (n == 0 || n >= sizeof host)
        die("\"%s\" is not HOST:PORT", text);
    memcpy(host, from, n);
    host[n] = '\0';
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    int e = getaddrinfo(host, colon + 1, &hints, &found);
    if (e != 0)
        die("%s: %s", text, gai_strerror(e));
    memcpy(addr, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
}

/* Raises the soft limit of open files to what is needed, or says how. */
static inline void files_need(uint64_t n)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= n)
        return;
    l.rlim_cur = n;
    if (l.rlim_max < n)
        l.rlim_max = n;
    if (setrlimit(RLIMIT_NOFILE, &l) != 0)
        die("%llu open files are needed and the limit is lower; raise it with ulimit -n",
            (unsigned long long)n);
}

#endif
