/* Dialling: from an origin's name to a stream on which HTTP can be spoken.
 *
 *   the `addresses` map, else name look-up (core/resolve.h)
 *   -> TCP to its addresses, by happy eyeballs (RFC 8305): families in turn, the next attempt 250 ms after the one before or at
 *      once when that one failed; the first that stands wins, the others are closed
 *   -> through a proxy: TLS to it when its URL says https; CONNECT for https origins; plain http origins are asked by
 *      absolute-form requests, which is the caller's business (dial.absolute)
 *   -> TLS to the origin
 *
 * One time limit for all of it is the caller's: it calls dial_cancel. Thread: the core's. */
#ifndef LARDER_HTTP_DIAL_H
#define LARDER_HTTP_DIAL_H

#include "core/address.h"
#include "core/core.h"
#include "core/resolve.h"
#include "http/proxies.h"
#include "net/stream.h"
#include "net/tls.h"

struct quotas;

/* Where a host name is instead of where DNS says (config key `resolve`). */
struct dial_address {
    struct span host;         /* lower case */
    struct resolve_addr addr; /* port 0: the origin's */
};

/* How connections of one upstream are made. Immutable, but for the quotas; outlives every dial, call and kept connection that names it. */
struct dial_how {
    uint64_t serial; /* unique in the process: connections made in one way are not used in another */
    const struct trust *trust;       /* NULL: https is refused */
    const struct identity *identity; /* client certificate, or NULL */
    const struct proxies *proxies;   /* or NULL */
    const struct dial_address *addresses;
    size_t n_addresses;
    struct quotas *quotas; /* quota.h, shared with other cores; NULL: each core counts its own connections */
};
uint64_t dial_serial(void); /* the next one */

#define DIAL_TRIES RESOLVE_ADDRS

struct dial {
    /* set by the owner; spans and pointers stay until done or dial_cancel */
    const struct dial_how *how;
    struct span host;
    uint16_t port;
    bool tls;
    struct tls_session *session; /* for the origin's TLS; or NULL */
    /* Somebody else than the operator chose the host: only addresses that are address_reachable from `near` are tried. What the
     * `addresses` map says is the operator's word, and a proxy looks at names itself: these two are exempt. */
    bool guarded;
    enum address_kind near;
    void (*done)(struct dial *d);

    /* results, valid in done: exactly one of stream and err. The stream is the owner's from then on. */
    struct stream *stream;
    /* Spoken to through a proxy without a tunnel: requests carry the whole URL and proxy_authorization. */
    bool absolute;
    struct span proxy_authorization; /* or absent; lives as long as `how` */
    int err; /* ERR_UP_RESOLVE, ERR_UP_CONNECT; ERR_UP_REDIRECT: guarded, and no address was reachable */
    enum address_kind peer; /* of the address that it stands on; through a proxy: public */
    char why[320];          /* in words, for the log: which step, which address, which certificate */

    /* its own */
    struct dial_state *state;
};

/* done comes later, never from within. */
void dial_start(struct core *core, struct dial *d);
/* No done comes any more. Not started, or done: a no-op. */
void dial_cancel(struct dial *d);
/* In words, what is being waited for ("the TLS handshake with 10.0.0.1:443"): for the message of a time limit. */
void dial_progress(const struct dial *d, struct str *out);

#endif
