/* Checks that stay on in release builds. Three strengths:
 *
 *   MUST(c)   the program is wrong if c is false: say where, abort.
 *   SOFT(c)   a bug, but one request can be given up instead of all: log, count, and yield false so that the
 *             caller handles it:  if (!SOFT(x != NULL)) return ERR_INTERNAL;
 *   RARE()    marks a line that should almost never run: counted, the first time is logged.
 *
 * Any thread. Plain assert() is not used anywhere. */
#ifndef LARDER_BASE_CHECK_H
#define LARDER_BASE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNUSED(x)    ((void)(x))
#define MUSTCHECK    __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define LIKELY(c)    __builtin_expect(!!(c), 1)
#define UNLIKELY(c)  __builtin_expect(!!(c), 0)
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The structure that embeds `ptr` as its member `member`. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define MUST(c)                                                                                              \
    do {                                                                                                     \
        if (UNLIKELY(!(c)))                                                                                  \
            check_failed(__FILE__, __LINE__, __func__, #c);                                                  \
    } while (0)

#define SOFT(c) (LIKELY(c) ? true : check_soft(__FILE__, __LINE__, __func__, #c))

#define RARE() check_rare(__FILE__, __LINE__, __func__)

/* A magic number is the first member of every long-lived structure, and is checked wherever a void pointer or
 * a list node turns back into a type. */
#define CHECK_MAGIC(p, m) MUST((p) != NULL && (p)->magic == (m))

__attribute__((noreturn)) void check_failed(const char *file, int line, const char *func, const char *what);
/* Writes the message (at most 1 KiB) to standard error, past the log, waits a second at most, and aborts. */
__attribute__((noreturn)) void check_die(const char *text, size_t n);
bool check_soft(const char *file, int line, const char *func, const char *what); /* always false */
void check_rare(const char *file, int line, const char *func);

/* How many SOFT and RARE lines ran since start (for the metrics). */
uint64_t check_soft_count(void);
uint64_t check_rare_count(void);

#endif
