/* Name resolution with a small cache per core.
 *
 * An entry is
 *
 *   KNOWN     an answer and when it goes stale                    -> QUEUED, LOOKING (resolve_start)
 *   QUEUED    strangers', whose turn it is not yet                -> LOOKING (who waits for it may have it looked up now), or gone
 *   LOOKING   a request is on the pool                            -> KNOWN (on_answer)
 *
 * with waiters in the last two. Entries are never removed while LOOKING. The table is bounded: when it is full, the KNOWN entry that
 * goes stale first makes room, so that whoever makes us look up many names (redirects) keeps nobody else from it; and of QUEUED ones there
 * are QUEUE_MAX, QUEUE_PART of them for names that one upstream has led to. What the operator has chosen is let in nevertheless.
 *
 * Strangers whose names are slow take places from the others. So addresses that were good lately are used once more, although they are
 * stale, by who would have to wait for a place (as RFC 8767 has it). */
#include <netdb.h>
#include <stdlib.h>
#include <uv.h>

#include "base/map.h"
#include "base/mem.h"
#include "core/core.h"
#include "core/resolve.h"

#define RESOLVE_KEEP_MS   30000
#define RESOLVE_FAILED_MS 2000
#define RESOLVE_STALE_MS  (10 * 60 * 1000)
#define RESOLVE_ENTRIES   512
#define RESOLVE_HOST_MAX  255
#define STRANGERS         2 /* LOOKING at a time; the pool has room for two per core, and two more (main/serve.c) */
#define STRANGERS_PART    1 /* ... of one upstream's */
#define QUEUE_MAX         256
#define QUEUE_PART        64

enum resolve_state { KNOWN, QUEUED, LOOKING };

struct resolve_entry {
    char host[RESOLVE_HOST_MAX + 1];
    size_t host_len;
    struct resolver *owner;
    enum resolve_state state;
    uint64_t stranger;     /* as in struct resolve_wait; of the waiters', the one that it counts for */
    struct list_node node; /* QUEUED: resolver->queue; LOOKING, of a stranger: resolver->strangers */
    int64_t until;         /* KNOWN: on core_now */
    struct resolve_answer answer;
    struct list waiters;
    uv_getaddrinfo_t req;
};

struct resolver {
    struct core *core;
    struct map entries;
    struct list queue, strangers;
};

static struct resolver *resolver_of(struct core *c)
{
    struct resolver *r = core_slot(c, CORE_SLOT_RESOLVE);
    if (r == NULL) {
        NEW(r);
        r->core = c;
        map_init(&r->entries);
        list_init(&r->queue);
        list_init(&r->strangers);
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

/* ---- looking up ---- */

static void entry_known(struct resolve_entry *e, const char *why)
{
    e->state = KNOWN;
    list_remove(&e->node);
    if (why != NULL)
        e->answer = (struct resolve_answer){.why = why};
    e->until = core_now(e->owner->core) + (e->answer.n > 0 ? RESOLVE_KEEP_MS : RESOLVE_FAILED_MS);
}

/* Whoever is told may begin a look-up for which this entry makes room. */
static void entry_tell(struct resolve_entry *e)
{
    const struct resolve_answer answer = e->answer;
    struct list waiting;
    list_init(&waiting);
    list_move_all(&waiting, &e->waiters);
    LIST_FOREACH (n, &waiting)
        CONTAINER_OF(n, struct resolve_wait, node)->entry = NULL;
    struct list_node *n;
    while ((n = list_pop_front(&waiting)) != NULL) {
        struct resolve_wait *w = CONTAINER_OF(n, struct resolve_wait, node);
        w->answer = answer;
        set_port(&w->answer, w->port);
        w->done(w);
    }
}

static void queue_run(struct resolver *r);

static void on_answer(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct resolve_entry *e = req->data;
    struct resolver *r = e->owner;
    if (status == 0)
        keep_addresses(&e->answer, list);
    uv_freeaddrinfo(list);
    entry_known(e, status != 0 ? uv_strerror(status) : NULL);
    entry_tell(e);
    queue_run(r);
}

/* False: it is KNOWN at once, to be impossible. */
static bool entry_look(struct resolve_entry *e)
{
    struct resolver *r = e->owner;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    e->req.data = e;
    int rc = uv_getaddrinfo(core_loop(r->core), &e->req, on_answer, e->host, NULL, &hints);
    if (rc != 0) {
        entry_known(e, uv_strerror(rc));
        return false;
    }
    list_remove(&e->node);
    e->state = LOOKING;
    if (e->stranger != 0)
        list_push_back(&r->strangers, &e->node);
    return true;
}

/* How many are in the list, and *same: of those that this one has led to. */
static unsigned count_strangers(const struct list *l, uint64_t stranger, unsigned *same)
{
    unsigned n = 0;
    *same = 0;
    LIST_FOREACH (node, l) {
        n++;
        *same += CONTAINER_OF(node, struct resolve_entry, node)->stranger == stranger;
    }
    return n;
}

static bool may_look(const struct resolver *r, uint64_t stranger)
{
    unsigned same, all = count_strangers(&r->strangers, stranger, &same);
    return stranger == 0 || (all < STRANGERS && same < STRANGERS_PART);
}

static bool may_queue(const struct resolver *r, uint64_t stranger)
{
    unsigned same, all = count_strangers(&r->queue, stranger, &same);
    return all < QUEUE_MAX && same < QUEUE_PART;
}

/* Whoever led to it first need not be the next who has a place. False: nobody has who waits for it. */
static bool has_turn(struct resolver *r, struct resolve_entry *e)
{
    LIST_FOREACH (n, &e->waiters) {
        const struct resolve_wait *w = CONTAINER_OF(n, struct resolve_wait, node);
        if (may_look(r, w->stranger)) {
            e->stranger = w->stranger;
            return true;
        }
    }
    return false;
}

static struct resolve_entry *queue_next(struct resolver *r)
{
    LIST_FOREACH (n, &r->queue) {
        struct resolve_entry *e = CONTAINER_OF(n, struct resolve_entry, node);
        if (has_turn(r, e))
            return e;
    }
    return NULL;
}

static void queue_run(struct resolver *r)
{
    struct resolve_entry *e;
    while ((e = queue_next(r)) != NULL) {
        if (!entry_look(e))
            entry_tell(e);
    }
}

/* ---- entries ---- */

static void entry_free(struct resolve_entry *e)
{
    list_remove(&e->node);
    map_del(&e->owner->entries, span_of(e->host, e->host_len));
    mem_free(e);
}

static void make_room(struct resolver *r)
{
    size_t pos = 0;
    struct resolve_entry *e, *first = NULL;
    while ((e = map_next(&r->entries, &pos)) != NULL) {
        if (e->state == KNOWN && (first == NULL || e->until < first->until))
            first = e;
    }
    if (first != NULL)
        entry_free(first);
}

static struct resolve_entry *entry_for(struct resolver *r, struct span host, uint64_t stranger)
{
    struct resolve_entry *e = map_get(&r->entries, host);
    if (e != NULL)
        return e;
    if (r->entries.used >= RESOLVE_ENTRIES)
        make_room(r);
    if (r->entries.used >= RESOLVE_ENTRIES && stranger != 0)
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

static bool answered(struct resolve_wait *w, const struct resolve_answer *answer)
{
    w->answer = *answer;
    set_port(&w->answer, w->port);
    return true;
}

static bool refused(struct resolve_wait *w)
{
    return answered(w, &(struct resolve_answer){.why = "too many names are being looked up"});
}

/* KNOWN, but stale. */
static bool still_good(const struct resolve_entry *e)
{
    return e->answer.n > 0 && core_now(e->owner->core) - e->until < RESOLVE_STALE_MS;
}

/* Not a literal. True: w->answer is there. */
static bool look_up(struct resolver *r, struct span host, struct resolve_wait *w)
{
    struct resolve_entry *e = entry_for(r, host, w->stranger);
    if (e == NULL)
        return refused(w);
    if (e->state == KNOWN && e->until > core_now(r->core))
        return answered(w, &e->answer);
    bool at_once = may_look(r, w->stranger);
    if (e->state == KNOWN || (e->state == QUEUED && at_once)) {
        if (!at_once && still_good(e))
            return answered(w, &e->answer);
        if (!at_once && !may_queue(r, w->stranger))
            return refused(w);
        e->stranger = w->stranger;
        if (at_once && !entry_look(e)) {
            (void)answered(w, &e->answer);
            entry_tell(e); /* it may have been QUEUED */
            return true;
        }
        if (!at_once) {
            e->state = QUEUED;
            list_push_back(&r->queue, &e->node);
        }
    }
    w->entry = e;
    list_push_back(&e->waiters, &w->node);
    return false;
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
    return look_up(resolver_of(c), host, w);
}

void resolve_cancel(struct resolve_wait *w)
{
    struct resolve_entry *e = w->entry;
    list_remove(&w->node);
    w->entry = NULL;
    if (e != NULL && e->state == QUEUED && list_empty(&e->waiters))
        entry_free(e);
}

void resolve_free(struct core *c)
{
    struct resolver *r = core_slot(c, CORE_SLOT_RESOLVE);
    if (r == NULL)
        return;
    size_t pos = 0;
    struct resolve_entry *e;
    while ((e = map_next(&r->entries, &pos)) != NULL) {
        MUST(e->state == KNOWN);
        mem_free(e);
    }
    map_free(&r->entries);
    core_set_slot(c, CORE_SLOT_RESOLVE, NULL);
    mem_free(r);
}
