/* What one reader has found lately: records of the index that are given again while the index is as it was (store_version), so a hit of a
 * small and popular object does not go down LMDB's trees. What was not found is not kept: whoever looks for it waits for a change.
 *
 * A slot is an object and one repository's link to it, by the digest, in sets of RECENT_WAYS. Memory: RECENT_SLOTS slots of about 400 bytes,
 * of which a process that has just begun touches only those that it needs.
 *
 * Owner and thread: the reader's. */
#ifndef LARDER_STORE_RECENT_INT_H
#define LARDER_STORE_RECENT_INT_H

#include "store/store.h"

#define RECENT_SLOTS    2048 /* a power of two */
#define RECENT_WAYS     4
#define RECENT_TEXT_MAX 127 /* a longer repository or media type is not kept */

struct recent;

struct recent *recent_new(void);
void recent_free(struct recent *t);

/* As the index of that version has it; false: not kept. */
bool recent_object(const struct recent *t, uint64_t version, const struct digest *d,
                   struct store_object *out) MUSTCHECK;
bool recent_link(const struct recent *t, uint64_t version, struct span repo, const struct digest *d,
                 struct store_link *out) MUSTCHECK;

/* `version` was read before the look-up began. */
void recent_keep_object(struct recent *t, uint64_t version, const struct digest *d,
                        const struct store_object *o);
void recent_keep_link(struct recent *t, uint64_t version, struct span repo, const struct digest *d,
                      const struct store_link *link);

#endif
