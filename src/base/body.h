/* A source of response bytes, pulled by whoever sends them. It lives in base so that store, flight and http can
 * speak it without knowing each other.
 *
 * Owner: the sender, from the moment it is handed over until it has called stop exactly once.
 * Thread: everything on the sender's core.
 *
 * pull says what comes next without consuming it; it is cheap and may be called again. took says how much of
 * the piece went out. After BODY_WAIT the source calls wake exactly once when pull is worth calling again; a
 * wake only marks the sender runnable and never calls pull from within. stop may be called at any moment, also
 * while waiting; after it the source never calls wake. */
#ifndef LARDER_BASE_BODY_H
#define LARDER_BASE_BODY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum body_status {
    BODY_PIECE, /* *piece is filled, at least one byte */
    BODY_WAIT,  /* nothing yet: wake will come */
    BODY_END,   /* all bytes were taken, in good order */
    BODY_FAIL   /* the rest will never come: the sender must not end the message cleanly */
};

struct body_piece {
    const char *mem; /* bytes in memory, valid until the next took or stop; NULL: bytes of a file */
    int fd;          /* file: stays open until stop */
    off_t off;
    uint64_t len;
    /* File: where the sender notes (core_now) that it saw all of the file in memory, and looks before it looks
     * again; NULL when the file is too large for that, or nobody cares. */
    int64_t *seen_warm_ms;
};

struct body;

struct body_ops {
    enum body_status (*pull)(struct body *b, struct body_piece *piece);
    void (*took)(struct body *b, uint64_t n);
    void (*stop)(struct body *b); /* frees the source */
};

struct body {
    const struct body_ops *ops;
    void (*wake)(void *arg); /* set by the sender before the first pull */
    void *wake_arg;
};

#endif
