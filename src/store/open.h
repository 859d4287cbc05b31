/* Open objects: each core's bounded set of open files (and, for small manifests, their bytes), so that a hit costs no
 * open and a small manifest no read. Opening happens in a job: a directory that is not in memory must not stop
 * the loop. Concurrent opens of one digest on one core are one job.
 *
 * Trust, but look: the size is compared with the index when a file is opened, and again (fstat: size and link count)
 * every time an open file is taken for a new response, so a file that was truncated or removed behind our back
 * is a miss before any head goes out.
 *
 * Thread: the core's. */
#ifndef LARDER_STORE_OPEN_H
#define LARDER_STORE_OPEN_H

#include "store/store.h"

#define OPEN_INLINE_MAX (64u << 10) /* manifests up to this size are kept in memory */

/* An open object. Valid from open_get or `done` until open_put, also if it is evicted from the set meanwhile. */
struct open_object {
    struct digest digest;
    uint64_t size;
    int fd;
    const char *bytes; /* the whole content, or NULL */
};

struct open_set;

/* `max_files` descriptors at most are kept; objects in use count too, but are never refused. */
struct open_set *open_set_new(struct core *c, struct store *s, unsigned max_files);
/* Nothing may be in use or being opened; see open_set_idle. */
void open_set_free(struct open_set *o);
bool open_set_idle(const struct open_set *o);

enum open_result { OPEN_OK, OPEN_WAIT, OPEN_GONE };

struct open_wait {
    struct list_node node;
    struct open_object *object; /* in done: taken for the waiter, or NULL: missing, wrong size, unreadable */
    void (*done)(struct open_wait *w);
};

/* OPEN_OK: *out is taken. OPEN_WAIT: w->done will run once, unless open_cancel comes first. OPEN_GONE: the file that was
 * open is damaged or gone (or descriptors ran out); it is dropped from the set. `inline_bytes`: keep the bytes in memory
 * if the object is small. `size` is what the index says. */
enum open_result open_get(struct open_set *o, const struct digest *d, uint64_t size, bool inline_bytes,
    struct open_wait *w, struct open_object **out) MUSTCHECK;
void open_cancel(struct open_wait *w);
void open_put(struct open_set *o, struct open_object *object);

#endif
