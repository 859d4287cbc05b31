/* Cold files: bytes of a file that are not in memory come through a buffer that jobs fill, so that the loop never waits for a disk.
 *
 * While all is warm, a look whether its bytes are in memory comes before each sendfile. Once some are not, and until nothing has been
 * missed for a second, all files of all cores go through buffers, also what is in memory just now: where memory is scarce it may be
 * dropped again before it is sent, and a page on its way from the disk counts as there. The kernel's own reading ahead, which looks for
 * memory in the call that comes to its mark, is begun by the jobs, too. For what is in memory this way takes twice the processor time, and is
 * as fast.
 *
 * Memory does not grow with slow clients: a core has COLD_BUFS buffers. Whoever takes nothing keeps its buffer only until another one needs
 * it, and has less read for it the next time. Who finds all buffers with jobs waits for its turn.
 *
 *   WARM     no buffer
 *   QUEUED   waits for a buffer: pool->queue, oldest first
 *   READING  a job fills the buffer; must not go before the job has ended
 *   FILLED   the buffer holds [from, to) of the file: pool->filled, oldest first
 *   EMPTY    the buffer was taken away
 *
 * Owner: the exchange, which embeds it; the server owns the pool. Thread: the core's. */
#ifndef LARDER_HTTP_COLD_H
#define LARDER_HTTP_COLD_H

#include <stdbool.h>

#include "base/body.h"
#include "base/list.h"
#include "core/core.h"

#define COLD_BUF  (128u << 10) /* bytes */
#define COLD_BUFS 32

struct cold_pool {
    struct core *core;
    unsigned n; /* buffers there are */
    struct list filled, queue;
};

enum cold_state { COLD_WARM, COLD_QUEUED, COLD_READING, COLD_FILLED, COLD_EMPTY };

struct cold {
    struct cold_pool *pool;
    /* What cold_look said wait for, or cold_leave no, has come. May end with the struct gone. */
    void (*ready)(struct cold *c);
    /* its own */
    enum cold_state state;
    int fd;
    bool failed;     /* the last job read nothing */
    bool missed;     /* the last job did not find all in memory */
    off_t from, to;  /* of fd. WARM: seen in memory; FILLED: in the buffer; QUEUED, READING: will be */
    int64_t seen_ms; /* core_now; WARM */
    off_t end;       /* nobody wants what is behind */
    off_t asked;     /* the kernel has been asked to read up to here */
    uint64_t reach;  /* bytes that it is asked for in front of a job */
    char *buf;
    struct list_node node;
    struct job job;
};

void cold_pool_init(struct cold_pool *p, struct core *core);

void cold_init(struct cold *c, struct cold_pool *pool, void (*ready)(struct cold *c));

enum cold_verdict {
    COLD_GO, /* *piece, cut to what may go out now: of the file, in memory; or of the buffer, valid until the next look */
    COLD_WAIT, /* `ready` will be called, unless cold_leave says true before */
    COLD_FAIL  /* the file cannot be read there, or has no bytes there */
};
enum cold_verdict cold_look(struct cold *c, struct body_piece *piece) MUSTCHECK;

/* Gives everything back. False: a job runs; `ready` will be called at its end, and until then files stay open. */
bool cold_leave(struct cold *c) MUSTCHECK;

/* COLD_WAIT was said, and `ready` not called yet. */
static inline bool cold_waits(const struct cold *c)
{
    return c->state == COLD_QUEUED || c->state == COLD_READING;
}

#endif
