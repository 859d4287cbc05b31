/* What the tests of server and client share: a core on a thread of its own, calls into it that are waited for, and blocking
 * sockets for the other side. The test's thread asserts; the core's thread carries out and counts. */
#ifndef LARDER_TESTS_HTTP_RIG_H
#define LARDER_TESTS_HTTP_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "core/core.h"
#include "core/resolve.h"
#include "net/listen.h"

#define PATIENCE_S 60 /* after which a test that hangs is ended */

struct rig {
    struct core *core;
    pthread_t thread;
};

static inline void *rig_thread(void *arg)
{
    core_run(arg);
    return NULL;
}

static inline void rig_start(struct rig *r)
{
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    signal(SIGPIPE, SIG_IGN);
    alarm(PATIENCE_S);
    r->core = core_new(0);
    MUST(r->core != NULL);
    MUST(pthread_create(&r->thread, NULL, rig_thread, r->core) == 0);
}

static inline void rig_stop(struct rig *r)
{
    core_quit(r->core);
    pthread_join(r->thread, NULL);
    resolve_free(r->core);
    core_free(r->core);
    alarm(0);
}

/* ---- calls into the core ---- */

struct rig_call {
    struct core_msg msg;
    sem_t over;
    void (*fn)(void *arg);
    void *arg;
};

static inline void rig_on_call(struct core_msg *m)
{
    struct rig_call *c = CONTAINER_OF(m, struct rig_call, msg);
    c->fn(c->arg);
    sem_post(&c->over);
}

static inline void rig_do(struct rig *r, void (*fn)(void *arg), void *arg)
{
    struct rig_call c = {.fn = fn, .arg = arg};
    core_msg_init(&c.msg, rig_on_call);
    sem_init(&c.over, 0, 0);
    core_post(r->core, &c.msg);
    while (sem_wait(&c.over) != 0)
        MUST(errno == EINTR);
    sem_destroy(&c.over);
}

/* Waits until `fn` has set *arg's condition; the alarm ends what never comes. */
static inline void rig_until(struct rig *r, void (*fn)(void *arg), void *arg, const bool *over)
{
    for (;;) {
        rig_do(r, fn, arg);
        if (*over)
            return;
        usleep(2000);
    }
}

/* ---- a plain socket ---- */

static inline void peer_patience(int fd)
{
    struct timeval tv = {.tv_sec = PATIENCE_S};
    MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0);
    MUST(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) == 0);
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline int peer_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = loopback(port);
    MUST(fd >= 0);
    peer_patience(fd);
    MUST(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

/* As much as the other side takes: it may have closed, and then the rest of the test says what it saw. */
static inline void peer_send(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put <= 0)
            return;
        p += put;
        n -= (size_t)put;
    }
}

static inline void peer_say(int fd, const char *text)
{
    peer_send(fd, text, strlen(text));
}

static inline void peer_reset(int fd)
{
    struct linger l = {.l_onoff = 1, .l_linger = 0};
    MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
    close(fd);
}

/* The byte at offset i of every body in these tests. */
static inline char pattern(uint64_t i)
{
    return (char)('a' + i % 26);
}

#endif
