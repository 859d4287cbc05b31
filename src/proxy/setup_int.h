/* What a setup keeps of the configuration's parts beyond the configuration itself. */
#ifndef LARDER_PROXY_SETUP_INT_H
#define LARDER_PROXY_SETUP_INT_H

#include "proxy/setup.h"
#include "proxy/setup_ways.h"

enum proxy_kind { KIND_PING, KIND_MANIFEST, KIND_BLOB, KIND_TAGS, KIND_REFERRERS, KIND_OTHER, KINDS };
enum proxy_result {
    RESULT_HIT,
    RESULT_MISS,
    RESULT_COLLAPSED,
    RESULT_REVALIDATED,
    RESULT_STALE,
    RESULT_ABSENT, /* upstream says that it is not there */
    RESULT_ERROR,
    RESULT_NONE,
    RESULTS
};

/* What statuses are counted by: a limit is told apart from what else is 4xx. NONE: 0, there was no answer. */
enum status_class { STATUS_NONE, STATUS_2XX, STATUS_3XX, STATUS_4XX, STATUS_429, STATUS_5XX, STATUS_CLASSES };
enum status_class status_class(unsigned status);

enum upstream_what { WHAT_MANIFEST, WHAT_BLOB, WHAT_LIST, WHAT_TOKEN, WHATS };

/* A server limits one account's requests of one kind: nothing of that kind is asked with it before the time is over. */
struct upstream_limit {
    _Atomic int64_t until_ms; /* monotonic */
    _Atomic int times;        /* in a row, without a time of its own: the pause doubles */
    _Atomic int err;
    _Atomic unsigned status;
};

struct endpoint_health {
    _Atomic int64_t bad_until_ms; /* monotonic; the others are asked first before then */
    _Atomic int64_t failed_ms;    /* monotonic: when it failed last */
    _Atomic int failures;         /* in a row */
    _Atomic int err;              /* the last one */
    _Atomic unsigned status;
};

#define ENDPOINTS_MAX 16

/* What a registry counts for each account by itself; without one, for whoever asks from here. */
struct account_health {
    struct upstream_limit limits[WHATS];
    struct endpoint_health
        endpoints[ENDPOINTS_MAX]; /* by position in the configuration: those that limit it */
    _Atomic int64_t ratelimit_limit,
        ratelimit_remaining; /* as upstream said last, plus one; 0: it has said nothing */
};

/* What is known of an upstream's health, shared by all cores (relaxed atomics: advice, not truth). Times are monotonic. */
struct upstream_health {
    _Atomic int64_t down_until_ms; /* revalidations of what is cached do not ask before then */
    _Atomic int64_t failed_ms;     /* when it failed last */
    _Atomic int failures;          /* rounds in a row that brought nothing */
    _Atomic int outages;           /* ... because it could not be reached, or said that it is not there */
    _Atomic int err;               /* the last one */
    _Atomic unsigned status;       /* upstream's, of the last one; 0: none */
    struct endpoint_health endpoints[ENDPOINTS_MAX]; /* by position in the configuration */
    struct account_health anonymous;
};

/* How to dial key vaults and their token servers, and the machine's metadata service. */
const struct dial_how *setup_cloud(const struct setup *s);
const struct dial_how *setup_local(const struct setup *s);

struct upstream_health *setup_health(const struct setup *s, const struct conf_upstream *up);
/* set: one of that upstream's (which is not looked at then), or NULL: anonymously. */
struct account_health *setup_account(const struct setup *s, const struct conf_upstream *up,
                                     const struct conf_credential_set *set);

/* Counters with labels from the configuration, one set per core: written by that core only, read by any. */
struct rule_counts {
    _Atomic int64_t n[KINDS][RESULTS];
};
enum token_result { TOKENS_OK, TOKENS_REFUSED, TOKENS_LIMITED, TOKENS_FAILED, TOKEN_RESULTS };
struct upstream_counts {
    _Atomic int64_t n[STATUS_CLASSES];
    _Atomic int64_t tokens[TOKEN_RESULTS];
};

/* rule: an index in conf->rules; n_rules: requests without a rule. */
struct rule_counts *setup_rule_counts(const struct setup *s, size_t rule, unsigned core);
struct upstream_counts *setup_upstream_counts(const struct setup *s, const struct conf_upstream *up,
                                              unsigned core);

#endif
