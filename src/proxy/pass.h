/* A pass: a blob, or a part of one, on its way from upstream to one client without being stored. Used when the store takes no more
 * (see pass.c), and when a transfer that is shared with others is of no use any more (content.c). It pulls no faster than the client
 * takes: PASS_BUF bytes are the most that it holds.
 *
 * Owner: whoever started it, until pass_close. Thread: its core's. */
#ifndef LARDER_PROXY_PASS_H
#define LARDER_PROXY_PASS_H

#include "proxy/proxy_int.h"

#define PASS_BUF (128u << 10)

struct pass;

/* What is passed on, and how upstream is asked for it; the owner's, as long as the pass. */
struct pass_what {
    struct proxy *px;
    struct setup *setup; /* held by the owner */
    const struct conf_rule *rule;
    struct span repo; /* at upstream */
    struct digest digest;
};

struct pass_part {
    uint64_t from, end; /* end UINT64_MAX: that of the blob */
    uint64_t length;    /* of the blob, or LENGTH_UNKNOWN */
    const struct hasher *
        upto; /* copied: the digest's state at `from`. Then all up to the end is verified, and the tail withheld
                                  until it is. NULL: nothing is verified */
    bool headed; /* the client has the head of its answer: breaks are worth many attempts */
};

/* `news` is called when one of the functions below would give another answer; it may close the pass. */
struct pass *pass_start(const struct pass_what *what, const struct pass_part *part, void (*news)(void *arg),
                        void *arg);
void pass_close(struct pass *p); /* NULL: a no-op */

bool pass_headed(const struct pass *p); /* the blob is there */
uint64_t pass_length(const struct pass *p);
uint64_t pass_verifies(const struct pass *p); /* from which byte on; UINT64_MAX: not at all */
bool pass_verified(const struct pass *p);
const struct flight_failure *pass_failure(const struct pass *p); /* NULL: it goes on, or is over and good */
uint64_t pass_got(const struct pass *p);                         /* bytes from `from` on that have arrived */

/* What the client may have at `off`, which is where it stands: `from`, and what was taken. */
enum body_status pass_bytes(struct pass *p, uint64_t off, struct body_piece *piece);
void pass_took(struct pass *p, uint64_t n);
/* Does it go on at `off` as far as `end`? */
bool pass_is_at(const struct pass *p, uint64_t off, uint64_t end);

#endif
