/* Verdicts: what upstream said lately that need not be asked again at once: a tag or manifest that is not there (for
 * negative_ttl), a check of a cached tag that failed (for a pause that doubles). Bounded: when the table is full the oldest
 * verdict goes, so a scan of a million names costs no memory.
 *
 * Shared by all cores; one mutex, held for pointer work only. Times are on the monotonic clock. */
#ifndef LARDER_PROXY_VERDICTS_H
#define LARDER_PROXY_VERDICTS_H

#include "flight/flight.h"

struct verdicts;

struct verdicts *verdicts_new(void);
void verdicts_free(struct verdicts *v);

/* Remembers a failure for first_ms; if the key has failed before without a success since, for twice as long as the last
 * time, at most max_ms. */
void verdict_put(struct verdicts *v, struct span key, const struct flight_failure *f, int64_t first_ms,
                 int64_t max_ms);
/* True: the key failed lately; *f is the failure. */
bool verdict_get(struct verdicts *v, struct span key, struct flight_failure *f) MUSTCHECK;
void verdict_drop(struct verdicts *v, struct span key);

#endif
