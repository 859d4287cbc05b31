/* Name resolution: getaddrinfo on the pool, one look-up in flight per name and core, answers kept for 30 s,
 * failures for 2 s. IP literals are answered at once. A look-up has no time limit of its own (the system's
 * resolver has); a waiter that gives up cancels its wait, the look-up itself ends when it ends.
 *
 * The pool looks up few names at a time, and a name can take as long as its own servers like. So names that the operator has not chosen
 * (redirects, realms) wait for each other: two of them at a time per core, and one at a time of those that the same upstream has led to;
 * what would wait, but was answered with addresses in the last ten minutes, is answered so again. Those that wait are forgotten when nobody
 * waits for them, and are few; a name of the operator's own is always looked up at once.
 *
 * Thread: the core's. */
#ifndef LARDER_CORE_RESOLVE_H
#define LARDER_CORE_RESOLVE_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/list.h"
#include "base/span.h"

struct core;

#define RESOLVE_ADDRS 8

struct resolve_addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } u;
    socklen_t len;
};

/* Addresses in the order of the system's preference, each once, with the port filled in. Of more than RESOLVE_ADDRS the first ones are
 * kept, but some of both families if there are both. n == 0: failed, `why` says so. */
struct resolve_answer {
    struct resolve_addr addr[RESOLVE_ADDRS];
    unsigned n;
    const char *why; /* static text; NULL on success */
};

struct resolve_wait {
    struct list_node node;       /* linked while waiting */
    struct resolve_entry *entry; /* while waiting */
    uint16_t port;
    uint64_t stranger; /* set by the owner. 0: the operator has chosen the name; else who has led to it */
    struct resolve_answer answer;
    void (*done)(struct resolve_wait *w);
};

/* True: w->answer is there already, done will not be called. False: done is called later, exactly once,
 * unless resolve_cancel comes first. */
bool resolve_start(struct core *c, struct span host, uint16_t port, struct resolve_wait *w) MUSTCHECK;
void resolve_cancel(struct resolve_wait *w);

/* Drops the cache; called once per core before it is freed, when no look-up is in flight. */
void resolve_free(struct core *c);

#endif
