/* A side: one upstream range, fetched ahead of a fill's front because a reader waits for it, written into the same partial
 * file. Its bytes are not verified by themselves: the front comes over them later, fetches them again and hashes them, so sides
 * are small and their sum is bounded by the fetch.
 *
 * What fails is asked for again after a rest, unless upstream does not honour Range.
 *
 * Owner: the fetch that started it; it must not end before all its sides are gone. Thread: the fetch's core. */
#ifndef LARDER_PROXY_SIDE_H
#define LARDER_PROXY_SIDE_H

#include "proxy/proxy_int.h"

struct fetch;
struct side;

/* Fetches [from, to) the way `like` asks (endpoint, path). `length`: of the whole object. */
struct side *side_start(struct proxy *px, struct fetch *parent, struct flight *flight,
                        const struct upstream_try *like, uint64_t from, uint64_t to, uint64_t length);
/* Is a job under way that writes into [from, to)? */
bool side_writes_into(const struct side *s, uint64_t from, uint64_t to);
/* A request: fetch_side_gone is called now or later. */
void side_close(struct side *s);

/* ---- what a side tells its fetch ---- */

void fetch_side_gone(struct fetch *f, const struct side *side); /* forget it */
void fetch_side_wrote(struct fetch *f);    /* a write has ended: the front may go where it was */
void fetch_no_more_sides(struct fetch *f); /* upstream does not honour Range */
void fetch_side_failed(struct fetch *f, uint64_t from, uint64_t to); /* [from, to) has not come, this time */
uint64_t fetch_front(const struct fetch *f);                         /* bytes below are the front's */

#endif
