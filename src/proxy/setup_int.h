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
    RESULT_ERROR,
    RESULT_NONE,
    RESULTS
};

#define STATUS_CLASSES 6 /* 0: no answer, 1xx to 5xx */

enum upstream_what { WHAT_MANIFEST, WHAT_BLOB, WHAT_LIST, WHATS };

/* What is known of an upstream's health, shared by all cores (relaxed atomics: advice, not truth). */
struct upstream_health {
    _Atomic int64_t down_until_ms; /* monotonic; revalidations of what is cached do not ask before then */
    _Atomic int failures;          /* in a row */
    _Atomic int err;               /* the last one */
    _Atomic unsigned status;       /* upstream's, of the last one; 0: none */
    _Atomic int64_t
        limited_until_ms[WHATS]; /* by kind of request: upstream said 429, nothing is asked before then */
};

/* How to dial key vaults and their token servers, and the machine's metadata service. */
const struct dial_how *setup_cloud(const struct setup *s);
const struct dial_how *setup_local(const struct setup *s);

struct upstream_health *setup_health(const struct setup *s, const struct conf_upstream *up);

/* Counters with labels from the configuration, one set per core: written by that core only, read by any. */
struct rule_counts {
    _Atomic int64_t n[KINDS][RESULTS];
};
struct upstream_counts {
    _Atomic int64_t n[STATUS_CLASSES];
};

/* rule: an index in conf->rules; n_rules: requests without a rule. */
struct rule_counts *setup_rule_counts(const struct setup *s, size_t rule, unsigned core);
struct upstream_counts *setup_upstream_counts(const struct setup *s, const struct conf_upstream *up,
                                              unsigned core);

#endif
