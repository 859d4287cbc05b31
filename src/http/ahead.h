/* Reading ahead: bytes of a file that a sender is about to hand to sendfile are brought into memory by jobs, so that the loop never waits
 * for a disk.
 *
 * A file is warm until a look finds bytes that are not in memory. From then on it is cold: one job at a time stays some MiB in front of the
 * sender, and the sender behind the job. For the kernel's own reading ahead is started by whoever first reaches its mark in the file,
 * and looks for memory there: that has to be the job. Each AHEAD_TURN is looked at before it goes out, since what was read may be
 * dropped again where memory is scarce (and again, when it could not be sent at once); jobs are short then. When jobs find nothing to do for long, the file is warm again.
 *
 * Owner: the exchange, which embeds it and must not end while a job runs (ahead_idle). Thread: the core's. */
#ifndef LARDER_HTTP_AHEAD_H
#define LARDER_HTTP_AHEAD_H

#include <stdbool.h>

#include "base/body.h"
#include "core/core.h"

#define AHEAD_TURN (128u << 10) /* bytes */

struct ahead {
    /* The job that ahead_look or ahead_idle said no for has ended. */
    void (*ready)(struct ahead *a);
    struct core *core;
    /* its own */
    struct job job;
    bool running, awaited;
    bool cold;
    int fd;
    off_t from, to;   /* of fd: seen in memory */
    int64_t seen_ms;  /* core_now */
    off_t next;       /* of fd: where the next job begins */
    uint64_t reach;   /* bytes that it reads at most */
    unsigned in_vain; /* jobs in a row that found all in memory */
    off_t job_off;
    uint64_t job_len;
    bool job_in_vain; /* the job's own until it is done */
};

void ahead_init(struct ahead *a, struct core *core, void (*ready)(struct ahead *a));
/* How many of the piece's bytes are in memory; 0: not the first, and ready will be called. */
uint64_t ahead_look(struct ahead *a, const struct body_piece *piece);
/* No job runs. If one does, ready will be called at its end, and until then files stay open. */
bool ahead_idle(struct ahead *a);

#endif
