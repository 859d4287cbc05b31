/* One client request on its way through the proxy: what serve.c (the flow) and respond.c (the answers) share. */
#ifndef LARDER_PROXY_SERVE_INT_H
#define LARDER_PROXY_SERVE_INT_H

#include "proxy/damaged.h"
#include "proxy/foreign.h"
#include "proxy/pass.h"
#include "proxy/proxy_int.h"
#include "registry/name.h"

#define TYPE_BLOB SPAN("application/octet-stream")

enum serve_state {
    SERVE_ROUTE,
    SERVE_LOOKUP,
    SERVE_ASK,
    SERVE_OPEN,
    SERVE_JOIN,
    SERVE_PASS,
    SERVE_SEND,
    SERVE_LINK,
    SERVE_END
};

#define SERVE_O_SEAT 1u
#define SERVE_O_OPEN 2u
#define SERVE_O_SEND 4u
#define SERVE_O_FIX  8u /* a damaged object is put away, and the index told */
#define SERVE_O_PASS 16u
#define SERVE_O_LINK 32u

struct serve {
    struct op op;
    struct proxy *px;
    struct setup *setup; /* held */
    const struct conf *conf;
    struct exchange *x; /* NULL: finished or dropped */
    struct route route;
    const struct conf_rule *rule;
    enum proxy_kind kind;
    enum proxy_result result;
    int err;                  /* of an error answer */
    bool err_ours;            /* ... that is no failure of upstream's */
    unsigned upstream_status; /* for Cache-Status */
    int stale_err;            /* why a stale answer is stale */
    int64_t ttl_ms;           /* of a tag: what is left, negative when stale */
    unsigned rounds;
    bool collapsed, linked, lead;
    bool told;              /* upstream has said of a blob that our repository has it, which proves nothing */
    uint64_t told_length;   /* ... and its length; FLIGHT_UNKNOWN: it has not */
    bool damaged;           /* what the index named was not good: what it says of a tag is no use */
    bool unkept;            /* it is not stored on its way */
    bool by_source;         /* the rule was found by ?ns= */
    bool verified;          /* when it joined, all bytes were here and right: a hit */
    struct list_kept *list; /* a reference: what was kept of a list */
    enum ask_kind asked;

    struct digest digest; /* what is served */
    uint64_t version;     /* of the index, before it was asked */
    struct store_tag tag;
    bool has_tag;
    struct store_object record;
    struct store_link link;
    struct open_object *object;
    struct open_wait open;
    struct flight_seat seat;
    /* For a blob's length, a foreign flight, or an answer while there is a stale one. */
    struct timer patience;
    struct foreign_wait wait; /* since it was seated */
    bool apart;               /* a foreign flight was of no use: our registry has one of its own */
    struct content content;
    struct pass_what alone; /* how to fetch it without the store */

    /* From here on nothing is zeroed for each request. */
    struct damaged put_away;
    char repo[NAME_REPO_MAX + 1];
    char repo_key[REPO_KEY_MAX];
    size_t repo_n, repo_key_n;
    char scratch[ROUTE_TARGET_MAX];
};

/* ---- respond.c ---- */

/* Each starts the exchange's answer and goes to SERVE_SEND. Exactly one of them is called for a request. */
enum step respond_ping(struct serve *s);
enum step respond_error(struct serve *s, int err);
enum step respond_failure(struct serve *s, const struct flight_failure *f); /* upstream's */
/* s->content, s->digest and s->result are set: the content, whole or in ranges, or 304 or 416. */
enum step respond_content(struct serve *s);
enum step respond_object(struct serve *s); /* the same for s->object */
/* A HEAD for a blob that is not here. */
enum step respond_stat(struct serve *s, const struct flight_answer *a);
/* A list; doc stays until the answer is out. name: as in struct flight_answer. next: the query of its next page, may be empty. */
enum step respond_list(struct serve *s, struct span doc, struct span name, struct span media,
                       struct span next, bool filtered);
/* The answer is out (or cut): counters and access log. */
void respond_count(struct serve *s);

#endif
