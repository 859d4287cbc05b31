/* The admin API's calls about the store. Names are as people write them (names.h); times are milliseconds of the wall clock. An order that finds
 * nothing to do is a 404.
 *
 *   GET  tags      prefix, after      {"tags": [{"repository", "tag", "digest", "media_type", "checked_ms", and as `images`}], "next"}
 *   GET  images    prefix, after      {"images": [{"repository", "digest", "media_type", "rule", "name", "here", and if it is here "kind",
 *                                     "known", "objects", "objects_here", "bytes", "bytes_here", "manifests", "complete", "stored_ms",
 *                                     "access_ms", "hits", "pinned"}], "next"}: all manifests that repositories have
 *   GET  usage     by, after          {"groups": [{"name", "objects", "bytes", "shared_bytes"}], "next", and for the first page totals}:
 *                                     by "rule" or "repository". In a group each object counts once; shared is what other groups have, too
 *   GET  pins      after              {"pins": [{"repository", "tag", "digest", "since_ms"}], "next"}
 *   POST pin       image              {"repository", "tag", "digest", "here", "bytes"}
 *   POST unpin     image              the same
 *   POST purge     image | rule, force   {"tags", "links", "objects", "bytes", "pinned"}. 409: all of it is pinned
 *   POST gc                           {"evicted", "evicted_bytes", "freed_bytes", "objects", "used"}: what the store did meanwhile
 *   GET  objects   image, after       {"objects": [DIGEST], "count", "bytes", "next"}: what is here of it, itself included
 *   POST verify-object digest, deep   {"digest", "what", "bytes"}: "good", "missing", "damaged", "unknown" or "failed"
 *   POST verify-start  deep           {"id"}: a pass begins. 409: one runs
 *   GET  verify                       {"id", "running", "cancelled", "deep", "started_ms", "objects", "objects_all", "bytes", "bytes_all",
 *                                     "missing", "damaged", "failed", "found": [{"digest", "what"}], "found_more"}: of the last pass
 *   POST verify-cancel                {"id"}
 *
 * Thread: the calls' own. */
#ifndef LARDER_ADMIN_STORE_CALLS_H
#define LARDER_ADMIN_STORE_CALLS_H

#include "admin/api.h"
#include "conf/conf.h"
#include "store/store.h"

struct store_calls;

struct store_calls_config {
    struct store *store;
    /* The configuration in force, which stays until `release` gets *held. Any thread. */
    const struct conf *(*hold)(void *arg, void **held);
    void (*release)(void *held);
    void *arg;
};

struct store_calls *store_calls_new(const struct store_calls_config *config);
#define STORE_CALLS_MAX 16
size_t store_calls_fill(struct store_calls *s, struct api_call calls[STORE_CALLS_MAX]);
/* What runs ends soon, and nothing long begins any more. Any thread. */
void store_calls_stop(struct store_calls *s);
void store_calls_free(struct store_calls *s); /* when no call runs, before store_close */

#endif
