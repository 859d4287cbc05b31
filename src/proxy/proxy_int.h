/* What the files of this room share. */
#ifndef LARDER_PROXY_PROXY_INT_H
#define LARDER_PROXY_PROXY_INT_H

#include "core/op.h"
#include "http/client.h"
#include "http/range.h"
#include "http/server.h"
#include "proxy/auth.h"
#include "proxy/lists.h"
#include "proxy/proxy.h"
#include "proxy/setup_int.h"
#include "proxy/verdicts.h"
#include "registry/route.h"
#include "store/open.h"

extern const char *const proxy_kind_name[KINDS];
extern const char *const proxy_result_name[RESULTS];

/* Upper bounds of the latency buckets in microseconds; one more bucket is +Inf. */
#define LATENCY_BUCKETS 15
extern const int64_t latency_bound_us[LATENCY_BUCKETS];

struct latency {
    _Atomic int64_t bucket[LATENCY_BUCKETS + 1], sum_us;
};

/* What is counted without labels, one set per core: written by that core only, read by any. */
struct proxy_stats {
    struct latency first_byte, total;
    _Atomic int64_t statuses[STATUS_CLASSES];
};

struct proxy_shared {
    pthread_mutex_t lock;   /* guards the next two; a leaf */
    struct setup *setup;    /* the current one: a reference */
    struct proxy **proxies; /* by index; NULL: not started yet, or gone */
    struct store *store;
    struct flights *flights;
    struct verdicts *verdicts;
    struct lists *lists;
    struct tokens *tokens;
    struct warms *warms;
    struct crowd *crowd;       /* of the clients' connections */
    struct proxy_stats *stats; /* by core */
    unsigned n_cores;
    atomic_uint next_core; /* index of the next proxy_start */
};

struct proxy {
    struct core *core;
    struct proxy_shared *shared;
    unsigned index;      /* among the proxies of `shared` */
    struct setup *setup; /* the current one, held; replaced by a reload */
    struct core_msg reload;
    struct core_msg warm;    /* there is something to begin or to end; see warm.c */
    struct refresh *refresh; /* see refresh.c */
    struct store_reader *reader;
    struct open_set *open;
    struct pool *pool;
    struct server *server;
    struct list ports; /* what is listened on */
    struct proxy_stats *stats;
    struct list serves; /* memory of requests that are over, for the next ones */
    unsigned n_serves;
    unsigned waits;      /* for credential sets (secrets.c) */
    int64_t drain_until; /* core_now; 0: not stopping */
    struct timer drain_tick;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

#define REPO_KEY_MAX (STORE_REPO_MAX + 1)

/* The rule for what a client names: by the registry `ns` as a mirror's client does, or (absent, or mirrors are off) by target. Writes the
 * repository at upstream, and what it is called in the index, in flights and verdicts: what one account may read says nothing of another's, so
 * the rule's credential set is part of it (store.h). NULL: none. */
const struct conf_rule *proxy_match(const struct conf *conf, struct span ns, struct span name,
                                    struct str *repo, struct str *repo_key);

/* ---- health.c: what is known of upstreams ---- */

/* Is it known to be down, or to limit such requests, so that what is cached is not checked now? And how did it fail last? */
bool upstream_is_down(const struct setup *setup, const struct conf_upstream *up,
                      const struct conf_credential_set *set, enum upstream_what what, int *err,
                      unsigned *status);

/* By index: is it so for an account of one of its rules? The caller frees it. */
bool *upstreams_down(const struct setup *setup);

/* Limits are an account's own; set: whose, NULL: anonymous. Does it limit requests of this kind now? Then *f says how, and for how long
 * still. */
bool upstream_limit(const struct setup *setup, const struct conf_upstream *up,
                    const struct conf_credential_set *set, enum upstream_what what, struct flight_failure *f);
/* It has said so: f->retry_after_ms is its time; absent: it is set. */
void upstream_limited(const struct setup *setup, const struct conf_upstream *up,
                      const struct conf_credential_set *set, enum upstream_what what,
                      struct flight_failure *f);
/* It has answered such a request. */
void upstream_unlimited(const struct setup *setup, const struct conf_upstream *up,
                        const struct conf_credential_set *set, enum upstream_what what);
/* Keeps what an answer says of the upstream's own limits. */
void health_ratelimit(const struct setup *setup, const struct conf_upstream *up,
                      const struct conf_credential_set *set, const struct h1_head *head);

/* Is it out of order, so that one try is enough? */
bool health_broken(const struct setup *setup, const struct conf_upstream *up);
/* ... and is this asker not the one who probes? Then *f is the answer. ms: how long the asker may take; *turn: its turn, or 0, if it needs
 * none. */
bool health_refuses(const struct setup *setup, const struct conf_upstream *up, int64_t ms, int64_t *turn,
                    struct flight_failure *f);
/* Has its last round failed? And not long ago? Also between the pauses of one that is down. */
bool health_in_trouble(const struct setup *setup, const struct conf_upstream *up);
bool health_failed_lately(const struct setup *setup, const struct conf_upstream *up);
/* One of all gets the turn to find out how the upstream is. It is down for the others until that is known, or the turn is over. 0: it is
 * somebody else's. */
int64_t health_turn(const struct setup *setup, const struct conf_upstream *up, int64_t ms);
void health_turn_over(const struct setup *setup, const struct conf_upstream *up, int64_t turn);
/* A round has ended: the upstream has answered, or it is in trouble. A failure of larder's own, as when its queue is full, is neither.
 * began_ms: when the round was begun, on the monotonic clock. own: it failed at the upstream itself, and not at its token
 * server or where it redirected to: without them some of it can still be had, so it does not count as out of order. */
void health_good(const struct setup *setup, const struct conf_upstream *up);
void health_bad(const struct setup *setup, const struct conf_upstream *up, const struct flight_failure *f,
                int64_t began_ms, bool own);
/* Does the failure say that nothing is there, rather than something about what was asked? And that not all is well there? */
bool health_outage(const struct flight_failure *f);
bool health_trouble(const struct flight_failure *f);

/* May this endpoint be asked before those that are known to be bad? True once after each pause of a bad one, and then for nobody else
 * while the asker may take, ms, or until its turn is over. *turn: 0, if it needs none. */
bool health_endpoint_usable(const struct setup *setup, const struct conf_upstream *up,
                            const struct conf_credential_set *set, unsigned endpoint, int64_t ms,
                            int64_t *turn);
void health_endpoint_turn_over(const struct setup *setup, const struct conf_upstream *up,
                               const struct conf_credential_set *set, unsigned endpoint, int64_t turn);
/* How it failed last, and for how long it will be left alone still. False: it did not. */
bool health_endpoint_failure(const struct setup *setup, const struct conf_upstream *up,
                             const struct conf_credential_set *set, unsigned endpoint,
                             struct flight_failure *f) MUSTCHECK;
void health_endpoint_good(const struct setup *setup, const struct conf_upstream *up,
                          const struct conf_credential_set *set, unsigned endpoint);
/* began_ms as in health_bad. For a limit, f->retry_after_ms is its time; absent: it is set. */
void health_endpoint_bad(const struct setup *setup, const struct conf_upstream *up,
                         const struct conf_credential_set *set, unsigned endpoint, int64_t began_ms,
                         struct flight_failure *f);

/* ---- upstream.c: one request, at one endpoint after the other ---- */

#define UPSTREAM_PATH_MAX   2560 /* path and query behind the endpoint's prefix */
#define UPSTREAM_FIELDS_MAX 1024

/* How much the failure of one endpoint says about the upstream: see upstream.c. */
enum endpoint_word { WORD_NONE, WORD_NOT_THERE, WORD_FAILED, WORD_REGISTRY };

struct endpoint_said {
    enum endpoint_word word;
    unsigned endpoint;
    struct flight_failure failure;
    bool by_auth, own; /* own: at the endpoint, and not where it redirected to, or at a token server */
    char why[256];
};

struct upstream_try {
    /* set by the owner */
    struct proxy *px;
    struct setup *setup; /* the owner holds it */
    const struct conf_upstream *up;
    const struct conf_credential_set *set; /* NULL: anonymously */
    enum upstream_what what;
    bool head_only;
    bool
        patient; /* a client waits, and has nothing else: what cannot be reached is tried again, inside the deadline */
    bool insistent; /* a transfer under way: it asks also an upstream that is known to be down */
    /* neither: a check of something that is kept */
    int64_t
        deadline; /* core_now: the last moment for a head, over all that is tried; 0: set by upstream_start */
    size_t repo_n; /* path is /v2/REPO/... */

    unsigned endpoint; /* being asked; also after a success: where to go on */

    /* its own */
    unsigned char phase;
    unsigned tried; /* endpoints, a bit each, in this round */
    unsigned rounds;
    int64_t began_ms;      /* monotonic */
    int64_t turn;          /* see health_turn; 0: not its own */
    int64_t endpoint_turn; /* likewise: see health_endpoint_usable */
    unsigned hops;
    bool by_auth;     /* the failure is that of the token, or of the credentials */
    bool answered;    /* an endpoint of this round gave an answer that means something */
    bool sound;       /* ... and that is no sign of trouble */
    bool heard;       /* ... or any at all */
    bool get_decides; /* ... or failed a HEAD in a way that says nothing of a GET: that may still succeed */
    struct endpoint_said said; /* what this round has come to so far */
    struct defer later;
    struct timer pause, silence;
    struct auth auth;
    struct upstream_hop *hop;      /* where a redirect has led; NULL: at the endpoint */
    enum address_kind own;         /* of the endpoint's address */
    struct flight_failure failure; /* when UPSTREAM_FAILED */
    uint64_t refused_of;           /* the whole length, as a 416 has said it, or LENGTH_UNKNOWN */
    char why[256];                 /* in words, for the log */
    struct call call;
    char path[UPSTREAM_PATH_MAX];
    char fields[UPSTREAM_FIELDS_MAX];
    char target[UPSTREAM_PATH_MAX + CONF_PREFIX_MAX];
    char host[300];
};

enum upstream_next {
    UPSTREAM_WAIT,   /* call.event will come */
    UPSTREAM_HEADED, /* 200 or 206: look at call.head, read the body */
    UPSTREAM_FAILED  /* see failure, why and get_decides; nothing is under way any more */
};

/* What a status that is no success means for whoever asked. */
int upstream_err_of(unsigned status, enum upstream_what what);

/* path and fields are set; starts a round over the endpoints, beginning with t->endpoint. An event always follows. */
void upstream_start(struct upstream_try *t, void (*event)(struct call *call));
int64_t upstream_deadline(struct proxy *px,
                          const struct conf_upstream *up); /* for t->deadline, on core_now */
enum upstream_next upstream_step(struct upstream_try *t);
void upstream_stop(struct upstream_try *t); /* whatever is under way; a no-op otherwise */
/* The caller found that the answer is no good: the failure that says so, also for the upstream's health. */
void upstream_reject(struct upstream_try *t, int err, const char *why);
/* Likewise, and the round goes on with the next endpoint, if it has one: as upstream_step. */
enum upstream_next upstream_pass_over(struct upstream_try *t, int err, const char *why) MUSTCHECK;
/* All of what t->endpoint gave is wrong (t->failure says how): for a while the others are asked first for it. */
void upstream_lied(const struct upstream_try *t);
/* Is it in a content coding? None is ever asked for. */
bool upstream_coded(const struct h1_head *head);
void upstream_log(const struct upstream_try *t, enum log_level level, const char *msg);

/* ---- ask.c ---- */

enum ask_kind {
    ASK_MANIFEST, /* GET a manifest by tag or digest; a HEAD first when `known` is set; stored and indexed */
    ASK_STAT,     /* does this repository have that digest, and how long is it? A link is kept */
    ASK_LIST      /* tags or referrers, relayed */
};

struct ask_what {
    enum ask_kind kind;
    struct setup *setup; /* held by the asker */
    const struct conf_upstream *up;
    const struct conf_credential_set *set;
    struct span repo;     /* at upstream */
    struct span repo_key; /* see proxy_match */
    struct span tag;      /* or absent */
    struct digest digest; /* asked for, or DIGEST_NONE */
    struct digest known;  /* what the index says the tag is, or DIGEST_NONE */
    bool manifest;        /* ASK_STAT: in manifests/, not blobs/ */
    bool kept;            /* the asker has what was said before, and waits little: a failure is remembered */
    bool referrers;       /* ASK_LIST */
    struct span query;    /* ASK_LIST */
    int64_t negative_ttl_ms;
};

void ask_key(const struct ask_what *w, struct str *out);
/* Does the failure say that there is no such thing? */
bool ask_not_there(const struct flight_failure *f);
/* Leads the flight that flight_join has just made. Takes a reference of its own. */
void ask_lead(struct proxy *px, struct flight *flight, const struct ask_what *w);

/* ---- fetch.c ---- */

struct fetch_what {
    struct setup *setup; /* held by the asker */
    const struct conf_rule *rule;
    struct span repo;     /* at upstream */
    struct span repo_key; /* see proxy_match */
    struct digest digest;
    bool apart; /* a flight of its own way (foreign.h), beside another's that is of no use */
};

void fetch_key(const struct fetch_what *w, struct str *out);
/* The key of the verdict that a repository does not have a blob. */
void fetch_verdict_key(struct span repo_key, const struct digest *d, struct str *out);
/* As ask_lead. */
void fetch_lead(struct proxy *px, struct flight *flight, const struct fetch_what *w);

/* ---- serve.c ---- */

void serve_request(struct exchange *x, void *arg);
void serve_forget(struct proxy *px); /* gives back what is kept for further requests */

/* ---- content.c: bodies that are made of ranges of an object ---- */

struct pass;
struct pass_what;

/* Where bytes come from: exactly one of object, seat, pass, bytes; from a seat it may come to a pass. The body borrows it; the owner
 * keeps it until the body has stopped. */
struct content {
    struct open_object *object; /* stored */
    struct flight_seat *seat;   /* arriving */
    bool shared; /* the seat's flight is led for another repository: if it fails, ours has not */
    const struct pass_what *
        alone; /* how to go on when a seat's flight cannot be kept, fails or stands still, or a pass does not fit */
    struct pass *pass; /* see pass.h; content_pass_end */
    struct span bytes; /* an answer, in memory */
    uint64_t length;   /* or LENGTH_UNKNOWN (then only the whole can be sent) */
    struct span media;
    struct body *body; /* the one that is being sent: the owner wakes it when the seat has news; NULL: none */
};

#define BOUNDARY_LEN 24

/* Closes the pass, if there is one. */
void content_pass_end(struct content *content);
/* A body of one range, of several as multipart/byteranges with that boundary, or (n == 0) of the whole. *total is the body's
 * length. */
struct body *content_body(struct content *content, const struct range *ranges, size_t n, struct span boundary,
                          uint64_t *total);

#define PIECES_MAX 3
/* Pieces of memory that the owner keeps until the body has stopped. */
struct body *pieces_body(const struct span *pieces, unsigned n, uint64_t *total);

#endif
