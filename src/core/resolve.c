/* Name resolution with a small cache per core.
 *
 * An entry is LOOKING (a request is on the pool, waiters are listed) or KNOWN (an answer and when it goes
 * stale). Entries are never removed while LOOKING. The table is bounded: when it is full, the KNOWN entry that goes stale
 * first makes room, so that whoever makes us look up many names (redirects) keeps nobody else from it. */
#include <netdb.h>
#include <stdlib.h>
#include <uv.h>

#include "base/map.h"
#include "base/mem.h"
#include "core/core.h"
#include "core/resolve.h"

#define RESOLVE_KEEP_MS   30000
#define RESOLVE_FAILED_MS 2000
#define RESOLVE_ENTRIES   512
#define RESOLVE_HOST_MAX  255

struct entry {
    char host[RESOLVE_HOST_MAX + 1];
    size_t host_len;
    struct resolver *owner;
    bool looking;
    int64_t until; /* KNOWN: on core_now */
    struct resolve_answer answer;
    struct list waiters;
    uv_getaddrinfo_t req;
};

struct resolver {
    struct core *core;
    struct map entries;
};

static struct resolver *resolver_of(struct core *c)
{
    struct resolver *r = core_slot(c, CORE_SLOT_RESOLVE);
    if (r == NULL) {
        NEW(r);
        r->core = c;
        map_init(&r->entries);
        core_set_slot(c, CORE_SLOT_RESOLVE, r);
    }
    return r;
}

static void set_port(struct resolve_answer *a, uint16_t port)
{
    for (unsigned i = 0; i < a->n; i++) {
        if (a->addr[i].u.sa.sa_family == AF_INET6)
            a->addr[i].u.v6.sin6_port = htons(port);
        else
            a->addr[i].u.v4.sin_port = htons(port);
    }
}

static bool resolve_literal(const char *host, struct resolve_answer *out)
{
    *out = (struct resolve_answer){0};
    struct resolve_addr *a = &out->addr[0];
    if (uv_ip4_addr(host, 0, &a->u.v4) == 0)
        a->len = sizeof a->u.v4;
    else if (uv_ip6_addr(host, 0, &a->u.v6) == 0)
        a->len = sizeof a->u.v6;
    else
        return false;
    out->n = 1;
    return true;
}

static bool usable(const struct addrinfo *ai)
{
    return (ai->ai_family == AF_INET && ai->ai_addrlen == sizeof(struct sockaddr_in)) ||
           (ai->ai_family == AF_INET6 && ai->ai_addrlen == sizeof(struct sockaddr_in6));
}

static unsigned count_family(const struct addrinfo *list, int family)
{
    unsigned n = 0;
    for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
        n += usable(ai) && ai->ai_family == family;
    return n;
}

/* How many addresses of a family are kept when there are `others` of the other one: more than half only if the others leave room, so
 * that a name with many of one family can be reached by the other. */
static unsigned most_of(unsigned others)
{
    return RESOLVE_ADDRS - (others < RESOLVE_ADDRS / 2 ? others : RESOLVE_ADDRS / 2);
}

/* A file of hosts may say the same twice. */
static bool is_kept(const struct resolve_answer *a, const struct addrinfo *ai)
{
    for (unsigned i = 0; i < a->n; i++) {
        if (a->addr[i].len == ai->ai_addrlen && memcmp(&a->addr[i].u, ai->ai_addr, ai->ai_addrlen) == 0)
            return true;
    }
    return false;
}

static void keep_addresses(struct resolve_answer *out, const struct addrinfo *list)
{
    *out = (struct resolve_answer){0};
    unsigned left4 = most_of(count_family(list, AF_INET6)), left6 = most_of(count_family(list, AF_INET));
    for (const struct addrinfo *ai = list; ai != NULL && out->n < RESOLVE_ADDRS; ai = ai->ai_next) {
        unsigned *left = ai->ai_family == AF_INET6 ? &left6 : &left4;
        if (!usable(ai) || *left == 0 || is_kept(out, ai))
            continue;
        struct resolve_addr *a = &out->addr[out->n++];
        memcpy(&a->u, ai->ai_addr, ai->ai_addrlen);
        a->len = ai->ai_addrlen;
        --*left;
    }
    if (out->n == 0)
        out->why = "the name has no address";
}

static void on_answer(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct entry *e = req->data;
    e->looking = false;
    if (status == 0)
        keep_addresses(&e->answer, list);
    else
        e->answer = (struct resolve_answer){.why = uv_strerror(status)};
    uv_freeaddrinfo(list);
    e->until = core_now(e->owner->core) + (e->answer.n > 0 ? RESOLVE_KEEP_MS : RESOLVE_FAILED_MS);
    const struct resolve_answer answer =
        e->answer; /* whoever is told may begin a look-up for which this entry makes room */
    struct list waiting;
    list_init(&waiting);
    list_move_all(&waiting, &e->waiters);
    struct list_node *n;
    while ((n = list_pop_front(&waiting)) != NULL) {
        struct resolve_wait *w = CONTAINER_OF(n, struct resolve_wait, node);
        w->answer = answer;
        set_port(&w->answer, w->port);
        w->done(w);
    }
}

static void make_room(struct resolver *r)
{
    size_t pos = 0;
    struct entry *e, *first = NULL;
    while ((e = map_next(&r->entries, &pos)) != NULL) {
        if (!e->looking && (first == NULL || e->until < first->until))
            first = e;
    }
    if (first == NULL)
        return;
    map_del(&r->entries, span_of(first->host, first->host_len));
    mem_free(first);
}

static struct entry *entry_for(struct resolver *r, struct span host)
{
    struct entry *e = map_get(&r->entries, host);
    if (e != NULL)
        return e;
    if (r->entries.used >= RESOLVE_ENTRIES)
        make_room(r);
    if (r->entries.used >= RESOLVE_ENTRIES)
        return NULL;
    NEW(e);
    memcpy(e->host, host.p, host.n);
    e->host_len = host.n;
    e->owner = r;
    e->until = INT64_MIN;
    list_init(&e->waiters);
    map_put(&r->entries, span_of(e->host, e->host_len), e);
    return e;
}

bool resolve_start(struct core *c, struct span host, uint16_t port, struct resolve_wait *w)
{
    core_check(c);
    MUST(!list_linked(&w->node));
    w->port = port;
    w->answer = (struct resolve_answer){0};
    char text[RESOLVE_HOST_MAX + 1];
    if (host.n == 0 || host.n > RESOLVE_HOST_MAX || memchr(host.p, 0, host.n) != NULL) {
        w->answer.why = "not a host name";
        return true;
    }
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    if (resolve_literal(text, &w->answer)) {
        set_port(&w->answer, port);
        return true;
    }
    struct resolver *r = resolver_of(c);
    struct entry *e = entry_for(r, host);
    if (e == NULL) {
        w->answer.why = "too many names are being looked up";
        return true;
    }
    if (!e->looking && e->until > core_now(c)) {
        w->answer = e->answer;
        set_port(&w->answer, port);
        return true;
    }
    if (!e->looking) {
        struct addrinfo hints = {
            .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
        e->req.data = e;
        int rc = uv_getaddrinfo(core_loop(c), &e->req, on_answer, text, NULL, &hints);
        if (rc != 0) {
            w->answer.why = uv_strerror(rc);
            return true;
        }
        e->looking = true;
    }
    list_push_back(&e->waiters, &w->node);
    return false;
}

void resolve_cancel(struct resolve_wait *w)
{
    list_remove(&w->node);
}

void resolve_free(struct core *c)
{
    struct resolver *r = core_slot(c, CORE_SLOT_RESOLVE);
    if (r == NULL)
        return;
    size_t pos = 0;
    struct entry *e;
    while ((e = map_next(&r->entries, &pos)) != NULL) {
        MUST(!e->looking);
        mem_free(e);
    }
    map_free(&r->entries);
    core_set_slot(c, CORE_SLOT_RESOLVE, NULL);
    mem_free(r);
}
