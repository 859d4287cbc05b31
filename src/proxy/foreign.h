/* Flights of other registries, and of other accounts. A blob is fetched once for all who want it, from whichever registry was asked first: so
 * the pace of that one's upstream, and its lies, would be everybody's. Whoever can have the blob from an upstream of its own waits for a foreign flight no
 * longer than a moment: for its head FOREIGN_HEAD_MS; later its front has to come on by FOREIGN_LEAST each FOREIGN_STALL_MS. After that
 * it goes its own way, and who comes later does so at once: the flight is shunned for a while. While the own upstream is out of order, or
 * says that it is asked too much, there is nowhere to go. Who waits does not try whether it is well again: that would give up what may still
 * come for what probably fails. Others' requests tell, or a minute without a failure.
 *
 * Repositories of one registry have one upstream, and wait for each other as clients of one repository do.
 *
 * Thread: the seat's core; what has no seat: any. */
#ifndef LARDER_PROXY_FOREIGN_H
#define LARDER_PROXY_FOREIGN_H

#include "proxy/proxy_int.h"

#define FOREIGN_HEAD_MS  1000
#define FOREIGN_STALL_MS 3000
#define FOREIGN_LEAST    (32u << 10)

/* One reader's wait. */
struct foreign_wait {
    int64_t since_ms; /* core_now */
    bool headed;      /* the head had come by then */
    uint64_t front;
};

/* A registry as an account of it sees it, as text. */
void foreign_way(const struct conf_rule *rule, struct str *out);
void foreign_begin(struct foreign_wait *w, const struct flight_seat *seat, int64_t now);
/* For how long the seat is waited for before this is asked again, in ms. 0: the flight has stood still for long enough, and the rule's own
 * registry can be asked; INT64_MAX: it is not foreign, or has ended. */
int64_t foreign_patience(struct foreign_wait *w, const struct flight_seat *seat, const struct setup *setup,
                         const struct conf_rule *rule, int64_t now);

/* The flight stands still. */
void foreign_shun(struct proxy *px, const struct flight_seat *seat, const struct digest *d);
/* What the repository's registry sent was not what the digest says. */
void foreign_lied(struct proxy *px, struct span repo_key, const struct digest *d);
/* Is it one that is to be left at once? */
bool foreign_shunned(struct proxy *px, const struct flight_seat *seat, const struct setup *setup,
                     const struct conf_rule *rule, const struct digest *d);

/* A fill ends and leaves a partial file. Its bytes are not verified, so only a fill of the same registry and account goes on with them, while
 * it is known whose they are: for a day, unless many other verdicts come, and not after a restart. Then any goes on with them, and if they were
 * wrong, its digest is. */
void foreign_note_leftover(struct proxy *px, struct span repo_key, const struct digest *d);
bool foreign_is_leftover(struct proxy *px, struct span repo_key, const struct digest *d);

#endif
