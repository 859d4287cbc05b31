/* The registries that everybody uses, as data: one table (known.def), from which the loader, the flows, `larder check` and the
 * documentation take what is special about one. Pure; any thread. */
#ifndef LARDER_REGISTRY_KNOWN_H
#define LARDER_REGISTRY_KNOWN_H

#include "base/span.h"

enum known_auth {
    KNOWN_ANONYMOUS, /* credentials are of no use there: a credential set is a mistake */
    KNOWN_BOTH,
    KNOWN_ACCOUNT /* nothing without an account */
};

struct known_registry {
    struct span name;     /* canonical; or a pattern, as in "*.azurecr.io", "*-docker.pkg.dev" */
    struct span title;    /* "Docker Hub" */
    struct span endpoint; /* host to ask; absent: the name itself */
    struct span alias;    /* one more host that is the same registry; may be absent */
    struct span
        realm; /* host of a token server elsewhere that may see credentials; absent: only the registry's own */
    enum known_auth auth;
    struct span
        anonymous_limit; /* in words for a warning ("100 pulls in 6 hours for each IPv4 address"); absent:
                                    none worth one */
    bool library;        /* one-segment names get library/ */
    bool no_blob_head;   /* HEAD of a blob is refused although GET works */
    struct span note;    /* for people; may be absent */
};

/* By canonical name; NULL: not in the table. */
const struct known_registry *known_find(struct span registry);
/* By any of its hosts (name, endpoint, alias; no patterns), in upper or lower case; NULL: none has that one. */
const struct known_registry *known_of_host(struct span host);
/* The table in its order; NULL at the end. */
const struct known_registry *known_at(size_t i);

#endif
