/* Lists (tags, referrers) that upstream gave lately, kept in memory: fresh for the rule's tag_ttl, and stale in place of an error
 * after that. Bounded in bytes: the oldest go first. A restart begins without them.
 *
 * Shared by all cores; one mutex, held for pointer work only. A list is immutable and refcounted. */
#ifndef LARDER_PROXY_LISTS_H
#define LARDER_PROXY_LISTS_H

#include "flight/flight.h"

struct lists;

struct list_kept {
    struct ref ref;
    int64_t checked_ms; /* wall clock */
    struct span bytes, media, next;
    struct span name; /* in bytes, as in struct flight_answer */
    bool filtered;
    char text[];
};

struct lists *lists_new(void);
void lists_free(struct lists *l);

/* Keeps a copy of what the answer says. */
void lists_put(struct lists *l, struct span key, const struct flight_answer *a);
/* A reference, or NULL. */
struct list_kept *lists_get(struct lists *l, struct span key);
void lists_release(struct list_kept *k); /* NULL is a no-op */

#endif
