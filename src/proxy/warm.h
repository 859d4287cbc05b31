/* Images that are brought into the store because somebody said so (larder warm). They run on the cores; calls begin, look and end them, so
 * what asked for one may go away and come back.
 *
 * Thread: any. Nothing here waits for a disk or a network. */
#ifndef LARDER_PROXY_WARM_H
#define LARDER_PROXY_WARM_H

#include "base/str.h"

struct proxy_shared;

/* As a client names it; valid names. ns: the registry, for a client that uses larder as a mirror; or absent. */
struct warm_image {
    struct span ns, repository, reference; /* reference: tag or digest */
    struct span platforms;                 /* see bring.h; absent: this machine's */
};

/* 200, and out is {"id":1}; else a status, and out the sentence that says why. */
unsigned warm_begin(struct proxy_shared *s, const struct warm_image *image, struct str *out) MUSTCHECK;

/* {"id":1,"state":"running|done|failed|cancelled","error":"...","digest":"...","manifests":n,"blobs":n,"blobs_all":n,"bytes":n,
 * "bytes_all":n,"fetched":n,"fetched_bytes":n}. What was not here before is fetched. False: there is none with that id, or it ended long
 * ago. */
bool warm_report(struct proxy_shared *s, uint64_t id, struct str *out) MUSTCHECK;

/* A request: it ends soon. False: as above, or it has ended already. */
bool warm_cancel(struct proxy_shared *s, uint64_t id) MUSTCHECK;

#endif
