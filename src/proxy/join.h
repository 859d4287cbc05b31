/* From wanting something of upstream to a seat, for whoever wants it: what is known of failures comes first, then a flight that is under way
 * is joined, or a new one is begun.
 *
 * Thread: the core's. */
#ifndef LARDER_PROXY_JOIN_H
#define LARDER_PROXY_JOIN_H

#include "proxy/proxy_int.h"

enum joined {
    JOINED_LATELY, /* it failed lately, and is not asked for again yet: `lately` says how. No seat */
    JOINED_NONE,   /* only_join: there is no flight. No seat */
    JOINED_FOUND,  /* recheck: the index has it by now. No seat */
    JOINED_SEAT,   /* in a flight that was under way */
    JOINED_LEAD    /* in a new one, whose leader has been started */
};

struct join {
    struct proxy *px;
    struct flight_seat *seat; /* its wake is set */
    bool (*recheck)(void *arg);
    void *arg;
    bool only_join;
    bool anew; /* whatever failed lately is asked for again, unless it was that there is no such thing */
    struct flight_failure lately;
};

enum joined join_ask(struct join *j, const struct ask_what *w) MUSTCHECK;
enum joined join_fetch(struct join *j, const struct fetch_what *w) MUSTCHECK;

#endif
