/* How a setup's connections are made: roots, certificates, forward proxies, the `resolve` map. Read when the setup is made, immutable
 * afterwards; a part of the setup. */
#ifndef LARDER_PROXY_SETUP_WAYS_H
#define LARDER_PROXY_SETUP_WAYS_H

#include "base/digest.h"
#include "conf/conf.h"
#include "http/dial.h"

struct setup_ways {
    const struct trust *roots; /* the system's, as they were when it began; NULL: there are none */
    struct dial_how *upstream; /* by upstream index: to its endpoints */
    struct dial_how *beyond;   /* likewise, to all else: the client certificate is not shown */
    struct digest *
        reached; /* likewise, of all that says how it is reached: endpoints, proxy, addresses, what is in the files */
    size_t n;
    struct dial_how cloud;          /* key vaults and their token servers */
    struct dial_how local;          /* the machine's metadata service: never through a proxy */
    const struct identity **listen; /* by listen index; NULL: no TLS */
    size_t n_listen;
    struct proxies *environment;
    struct dial_address *addresses;
};

/* w: all zero. False: *why says which file or key is wrong ("file:line:column: ..."); setup_ways_end is due all the same. Reads files. */
bool setup_ways_begin(struct setup_ways *w, const struct conf *conf, struct str *why) MUSTCHECK;
void setup_ways_end(struct setup_ways *w);

#endif
