/* May the token server that a challenge names be asked, and may it see credentials?
 *
 *   credentials  its origin is one of the upstream's endpoints, or in token_realms, or its host is the known registry's own token server
 *                (registry/known.h; by https)
 *   anonymously  anything else
 *   not at all   no usable URL; http although the registry is https; an address that the registry's own address does not reach
 *
 * Credentials only when the origin that challenged is an endpoint of the upstream itself: not what a redirect led to. Pure; any thread. */
#ifndef LARDER_PROXY_REALM_H
#define LARDER_PROXY_REALM_H

#include "conf/conf.h"
#include "core/address.h"
#include "http/url.h"

enum realm_trust { REALM_CREDENTIALS, REALM_ANONYMOUS, REALM_REFUSED };

struct realm {
    struct url url; /* spans point into the challenge's text */
    bool guarded;   /* its address is to be looked at when it is dialled: see struct dial */
};

/* Is the origin one of the upstream's endpoints? */
bool realm_own(const struct conf_upstream *up, const struct url *origin);

/* text: the challenge's realm. peer: the kind of address of `origin`, which challenged. *why: in words, unless it is for credentials. */
enum realm_trust realm_judge(const struct conf_upstream *up, const struct url *origin, enum address_kind peer,
                             struct span text, struct realm *out, struct str *why);

#endif
