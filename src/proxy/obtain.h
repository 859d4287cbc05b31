/* One thing of a repository, brought into the store without a client: through the flights that clients' requests go through, so it is
 * fetched once whoever wants it, and what is here is not fetched. The decisions are serve.c's, without an answer to send.
 *
 *   obtain_start    begins, with what the owner has set
 *   obtain_step     how it stands: at once, and after each `event` again
 *   obtain_stop     no event any more; what it waited for goes on if others want it (on_abandoned decides, as when a client leaves)
 *
 * What the index says is here counts as here: files are not opened.
 *
 * Owner: whoever embeds it. Thread: the core's. */
#ifndef LARDER_PROXY_OBTAIN_H
#define LARDER_PROXY_OBTAIN_H

#include "proxy/foreign.h"
#include "proxy/proxy_int.h"

enum obtain_kind { OBTAIN_TAG, OBTAIN_MANIFEST, OBTAIN_BLOB };

/* A repository as a rule leads to it; the owner's, for as long as something is obtained from it. */
struct obtain_from {
    struct setup *setup; /* held */
    const struct conf_rule *rule;
    struct span repo, repo_key; /* at upstream; for the index */
};

struct obtain {
    /* set by the owner */
    struct proxy *px;
    const struct obtain_from *from;
    enum obtain_kind kind;
    struct span tag;        /* OBTAIN_TAG; the owner's */
    struct digest digest;   /* else; of a tag, when it is done: the manifest that it names */
    int64_t checked_before; /* OBTAIN_TAG: wall clock; a check of the tag since then is good enough */
    void (*event)(struct obtain *o);
    void *arg;

    /* when it is done */
    bool fetched; /* it was not here */
    uint64_t size;
    struct flight_failure failure;

    /* its own */
    struct flight_seat seat;
    unsigned char phase;
    enum ask_kind asked;
    bool linked, typed, flown;
    bool apart; /* as a client's request (serve_int.h) */
    struct foreign_wait wait;
    struct timer patience;
    unsigned rounds;
};

enum obtain_next { OBTAIN_WAIT, OBTAIN_DONE, OBTAIN_FAILED };

void obtain_start(struct obtain *o);
enum obtain_next obtain_step(struct obtain *o) MUSTCHECK;
uint64_t obtain_arrived(const struct obtain *o); /* while it waits: bytes of a blob that are here by now */
void obtain_stop(struct obtain *o);              /* zeroed, or over: a no-op */

#endif
