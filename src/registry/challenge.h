/* WWW-Authenticate: what a server wants to see before it answers (RFC 9110 section 11.6.1; distribution token specification).
 *
 * A field may hold several challenges, and a message several fields; parameters are tokens or quoted strings with escapes, commas
 * stand inside quoted scopes, names and schemes have no case. Bearer is preferred to Basic; what else there is is ignored. A
 * challenge with a parameter twice, or a Bearer one without realm, is malformed and skipped. Pure; any thread. */
#ifndef LARDER_REGISTRY_CHALLENGE_H
#define LARDER_REGISTRY_CHALLENGE_H

#include "base/span.h"
#include "base/str.h"

#define CHALLENGE_REALM_MAX   1024
#define CHALLENGE_SERVICE_MAX 256

enum challenge_scheme { CHALLENGE_NONE, CHALLENGE_BASIC, CHALLENGE_BEARER };

struct challenge {
    enum challenge_scheme scheme;
    char realm[CHALLENGE_REALM_MAX + 1]; /* Bearer: the token server's URL, unescaped, not checked */
    char service[CHALLENGE_SERVICE_MAX + 1];
    bool has_service;
    bool insufficient_scope, invalid_token; /* error="..." */
};

/* All zero before the first field; called for each field of the message, keeps the best challenge. */
void challenge_read(struct challenge *c, struct span field);

#endif
