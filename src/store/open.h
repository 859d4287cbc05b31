/* Open objects: each core's bounded set of open files (and, for small manifests, their bytes), so that a hit costs no
 * open and a small manifest no read. Opening happens in a job: a directory that is not in memory must not stop
 * the loop. Concurrent opens of one digest on one core are one job.
 *
 * Trust, but look: the size is compared with the index when a file is opened, and again (fstat: size and link count)
 * when an open file is taken for a new response, at most once a millisecond (once a second for what is held in memory). A file that was truncated or removed behind our back is a
 * miss before any head goes out; one that was replaced (stored again) is opened anew. A manifest is hashed when it is
 * opened, and a small blob compared with its content sum. For others that would cost as much as a fetch; scrubbing finds those. But a suspect is verified when it is opened, whatever it
 * is: by its content sum, or by the digest where that is not known.
 *
 * An object that is in use is not evicted. One that is only open may be; the set is told, and closes it.
 *
 * Thread: the core's. */
#ifndef LARDER_STORE_OPEN_H
#define LARDER_STORE_OPEN_H

#include "store/store.h"

#define OPEN_INLINE_MAX   (64u << 10) /* manifests up to this size are kept in memory */
#define OPEN_HELD_MAX     (16u << 10) /* and blobs up to this one (OPEN_HELD) */
#define OPEN_INLINE_TOTAL (64u << 20) /* of these, per core */

/* An open object. Valid from open_get or `done` until open_put, also if it is evicted from the set meanwhile. */
struct open_object {
    struct digest digest;
    uint64_t size;
    int fd;
    const char *bytes;    /* the whole content, or NULL */
    int64_t seen_warm_ms; /* see struct body_piece; the sender's */
};

struct open_set;

/* `max_files` descriptors at most are kept; objects in use count too, but are never refused. */
struct open_set *open_set_new(struct core *c, struct store *s, unsigned max_files);
/* Nothing may be in use or being opened; see open_set_idle. On the core's thread, and its loop still runs (a last message may be on its
 * way to the set). */
void open_set_free(struct open_set *o);
bool open_set_idle(const struct open_set *o);
/* Nobody waits for anything any more: what is being read in whole before it is opened ends soon, as not opened. */
void open_set_stop(struct open_set *o);

/* What is to be known of the content. */
enum open_how {
    OPEN_FILE,    /* no more than the index says */
    OPEN_HELD,    /* held in memory; compared with its content sum, or with the digest if that is not known */
    OPEN_VERIFIED /* compared with the digest; held in memory if it is small */
};

enum open_result { OPEN_OK, OPEN_WAIT, OPEN_GONE };

struct open_wait {
    struct list_node node;
    struct open_object *object; /* in done: taken for the waiter, or NULL */
    /* In done, with NULL. 0: missing, wrong size, wrong content or unreadable: a miss, and worth store_condemn.
     * ERR_STORE: no descriptors or no memory just now: not a miss, the object may be whole. */
    int err;
    void (*done)(struct open_wait *w);
};

/* OPEN_OK: *out is taken. OPEN_WAIT: w->done will run once, unless open_cancel comes first. OPEN_GONE: the file that is
 * open has another size by now: a miss; it is dropped from the set. `record` is what the index says. */
enum open_result open_get(struct open_set *o, const struct digest *d, const struct store_object *record,
                          enum open_how how, struct open_wait *w, struct open_object **out) MUSTCHECK;
/* Not waiting: a no-op. */
void open_cancel(struct open_wait *w);
void open_put(struct open_set *o, struct open_object *object);

#endif
