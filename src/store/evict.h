/* Keeping the store inside its bounds.
 *
 * The keeper is a thread of the store. By and by, and in small steps, it
 *   - writes down what was asked for (store_touch)
 *   - evicts, when the limits say so
 *   - removes partial files that nobody continued and what lies in quarantine/ for too long
 *   - after an unclean stop compares blobs/ with the index: files without an entry are adopted as suspects, and suspects are
 *     verified; recounts when a record was found damaged
 *   - scrubs: reads the pool slowly, round and round, and compares content sums; where it is stands in the index
 *   - looks whether a store that failed has healed (health.h)
 *
 * What goes first: partial files that nobody fills, then what lies in quarantine, then objects, the one that was asked for longest ago
 * first; but configurations count as asked for a week later than they were, manifests two weeks, indexes three. So
 * of an image the layers go first, and small things that say much about it stay longest, yet not for ever. With a
 * manifest go the tags that name it, in the same transaction. A manifest whose layers are gone is still served; it is known
 * to be incomplete (list.h).
 *
 * What stays: what is pinned, with all it refers to; what somebody reads just now; what was placed and is not in the index yet.
 *
 * What is being fetched cannot be evicted: so fills begin only as far as all of them, at their full lengths, fit beside what is pinned
 * (partial_expect). A blob that does not fit is passed on to who asked for it, and is not kept.
 *
 * Eviction begins a little below the limit (2 % of it, 256 MiB at most), so that what arrives meanwhile stays inside, and goes
 * down to 95 %. A step is at most 25 objects: one transaction, then the files. Steps exclude each other (s->evict). */
#ifndef LARDER_STORE_EVICT_H
#define LARDER_STORE_EVICT_H

#include "store/store.h"

struct store_limits {
    uint64_t max_size;         /* bytes; 0: no limit. Partial files and quarantine count */
    uint64_t min_free;         /* bytes that stay free on the file system; 0: no matter */
    unsigned min_free_percent; /* the same, of the file system's size; the larger one counts */
    int64_t max_age_ms;        /* an object that nobody asked for so long goes; 0: it may stay */
    int64_t partial_age_ms;    /* a partial file that nobody continued; 0: a day */
    uint64_t scrub_rate;       /* bytes a second; 0: no scrubbing */
};

/* Any thread, at any time. Without it there are no limits. */
void store_set_limits(struct store *s, const struct store_limits *limits);

/* May objects of that size be kept at all, if nothing else is? Any thread, cheap. */
bool store_fits(const struct store *s, uint64_t bytes);

/* Makes room for `bytes` at once, whatever the limits say; returns how many were freed. Blocking, for jobs. (partial_write and the like do
 * so by themselves on a full disk.) */
uint64_t store_relieve(struct store *s, uint64_t bytes);

/* All that the keeper would do by and by, but for scrubbing, now. Blocking, for jobs and tests. */
void store_tidy(struct store *s);

/* The process is about to end: the keeper ends what it is at, and whoever waits in store_tidy goes on. Any thread; store_close is still
 * due. */
void store_stopping(struct store *s);

/* Where the scrubber is. */
struct store_scrub {
    uint64_t objects, bytes, damaged; /* of this round */
    uint64_t rounds, damaged_ever;    /* since start */
};
void store_scrub_now(struct store *s, struct store_scrub *out); /* any thread */

#endif
