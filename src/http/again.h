/* Answers that are given again. When many clients ask for one thing in the same bytes within a moment (a herd that pulls one image), the
 * second and later ones get the bytes of the answer before, and the handler is only asked whether it is still good. One table per core.
 *
 * An answer is kept when its request has been seen twice within AGAIN_SEEN_MS, and given for a second at most, because it has a date. Bounded: slots,
 * and the size of each; memory of what is over is given back as further requests come.
 *
 * Owner: the server. Thread: the core's. */
#ifndef LARDER_HTTP_AGAIN_H
#define LARDER_HTTP_AGAIN_H

#include "base/span.h"

#define AGAIN_REQUEST_MAX 1024
#define AGAIN_ANSWER_MAX  (20u << 10)
#define AGAIN_SEEN_MS     100

struct conn;

/* How an answer has gone out. */
struct again_given {
    int64_t began_ns, headed_ns,
        ended_ns;    /* the request's first byte, the answer's head, its end (monotonic) */
    uint64_t sent;   /* bytes of the body */
    const char *cut; /* NULL: all of it went out; else why not */
};

/* The handler's side of an answer; embedded in what it keeps of it. */
struct again {
    bool (*good)(struct again *a); /* may it be given once more? */
    void (*given)(struct again *a, const struct conn *k,
                  const struct again_given *g); /* to the client of k (server_peer) */
    void (*drop)(struct again *a);              /* the last call */
    /* the server's own */
    unsigned refs;   /* the table's, and those of answers that are still going out */
    uint64_t body_n; /* bytes of the answer's body */
};

void again_put(struct again *a); /* gives back a reference */

struct again_table;

struct again_table *again_new(void);
void again_flush(struct again_table *t); /* drops all */
void again_free(struct again_table *t);

/* The answer to the request (hash: its map_hash), or absent. The bytes stay until the table is changed. */
struct span again_find(struct again_table *t, struct span request, uint64_t hash, int64_t now_ms,
                       struct again **again) MUSTCHECK;
/* Has it been asked for often enough to keep its answer? Notes that it is asked for. */
bool again_wanted(struct again_table *t, uint64_t hash, int64_t now_ms) MUSTCHECK;
/* Copies; takes over `a`. */
void again_keep(struct again_table *t, struct span request, struct span head, struct span body,
                int64_t until_ms, struct again *a);

#endif
