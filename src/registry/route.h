/* From a request target to what is asked. The path is percent-decoded once, checked against the grammar, and
 * only the parsed form is used afterwards, so that no spelling reaches a file name or an upstream.
 * The path is read from its right end: a repository may have segments called "blobs", "manifests" or "v2". An
 * encoded slash ("%2F") is not a separator, so it makes the name, tag or digest that holds it invalid.
 *
 * Pure; any thread. The spans in the result point into `scratch`, which the caller keeps as long as the route. */
#ifndef LARDER_REGISTRY_ROUTE_H
#define LARDER_REGISTRY_ROUTE_H

#include "base/digest.h"
#include "base/err.h"
#include "base/span.h"

enum route_kind {
    ROUTE_NONE,
    ROUTE_PING,      /* /v2 or /v2/ */
    ROUTE_MANIFEST,  /* /v2/NAME/manifests/TAG or .../DIGEST */
    ROUTE_BLOB,      /* /v2/NAME/blobs/DIGEST */
    ROUTE_TAGS,      /* /v2/NAME/tags/list */
    ROUTE_REFERRERS, /* /v2/NAME/referrers/DIGEST */
    ROUTE_UPLOAD     /* /v2/NAME/blobs/uploads/..., which a cache refuses */
};

#define ROUTE_TARGET_MAX 4096 /* bytes of a request target; longer ones are ERR_URI_TOO_LONG */

struct route {
    enum route_kind kind;
    struct span name;     /* repository as the client wrote it (decoded, grammar checked) */
    struct span tag;      /* ROUTE_MANIFEST by tag, else absent */
    struct digest digest; /* else DIGEST_NONE */
    struct span ns;       /* ?ns=, decoded: absent when there is none; containerd's name of the registry */
    struct span
        query; /* the raw query without "?" and without any ns parameter, for relaying; may be empty */
};

/* 0, or the ERR_ code for the client: BAD_REQUEST (bad encoding, NUL, control characters, backslash, two ns),
 * NAME_INVALID, NS_INVALID, TAG_INVALID (a 404: nothing has such a name), DIGEST_INVALID, DIGEST_UNSUPPORTED, PAGE_INVALID (?n= of a list of tags), ROUTE_UNKNOWN, URI_TOO_LONG. An absolute-form
 * target ("http://host/v2/...") is read as its path and query (RFC 9112 section 3.2.2), or refused if it names a user. */
int route_parse(struct span target, char scratch[ROUTE_TARGET_MAX], struct route *out) MUSTCHECK;

/* The target, also one that is refused, as others may see it: without "http://user:password@". */
struct span route_shown(struct span target);

#endif
