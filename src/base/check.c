/* What happens when a check fails. The fatal way depends on nothing that may itself be broken: no log, no
 * allocation, no lock, and no write that can wait for ever. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/str.h"

#define CHECK_DIE_WAIT_MS 1000 /* for a full pipe behind standard error */
#define CHECK_RARE_LINES  256  /* more RARE lines than the program has */

static _Atomic uint64_t check_softs;
static _Atomic uint64_t check_rares;

/* The RARE lines that were logged already. */
static pthread_mutex_t check_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const char *file;
    int line;
} check_seen[CHECK_RARE_LINES];

void check_die(const char *text, size_t n)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};

    /* A pipe that is writable takes PIPE_BUF bytes without blocking; a message is shorter. */
    if (poll(&ready, 1, CHECK_DIE_WAIT_MS) == 1) {
        ssize_t wrote;
        do
            wrote = write(STDERR_FILENO, text, n);
        while (wrote < 0 && errno == EINTR);
    }
    abort();
}

void check_failed(const char *file, int line, const char *func, const char *what)
{
    char buf[1024];
    struct str s = STR_INIT(buf);

    str_addz(&s, "larder: stopped by a failed check at ");
    str_addz(&s, file);
    str_addc(&s, ':');
    str_addi(&s, line);
    str_addz(&s, " in ");
    str_addz(&s, func);
    str_addz(&s, "(): ");
    str_addz(&s, what);
    str_addz(&s, ". This is a bug in larder, please report this line.\n");
    check_die(s.p, s.n);
}

bool check_soft(const char *file, int line, const char *func, const char *what)
{
    atomic_fetch_add_explicit(&check_softs, 1, memory_order_relaxed);
    log_error("check", "a check failed, one request was given up: this is a bug in larder, please report it",
              LOG_S("file", file), LOG_I("line", line), LOG_S("function", func), LOG_S("check", what));
    return false;
}

/* True when this line runs for the first time. A full table counts as seen: the log must not be flooded. */
static bool check_first(const char *file, int line)
{
    bool first = false;

    pthread_mutex_lock(&check_lock);
    for (size_t i = 0; i < CHECK_RARE_LINES; i++) {
        if (check_seen[i].file == NULL) {
            check_seen[i].file = file;
            check_seen[i].line = line;
            first = true;
            break;
        }
        if (check_seen[i].line == line && strcmp(check_seen[i].file, file) == 0)
            break;
    }
    pthread_mutex_unlock(&check_lock);
    return first;
}

void check_rare(const char *file, int line, const char *func)
{
    atomic_fetch_add_explicit(&check_rares, 1, memory_order_relaxed);
    if (check_first(file, line))
        log_warn("check", "a rare case happened for the first time", LOG_S("file", file), LOG_I("line", line),
                 LOG_S("function", func));
}

uint64_t check_soft_count(void)
{
    return atomic_load_explicit(&check_softs, memory_order_relaxed);
}

uint64_t check_rare_count(void)
{
    return atomic_load_explicit(&check_rares, memory_order_relaxed);
}
