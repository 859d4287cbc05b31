/* What has been learnt about tokens, shared by all cores: the tokens themselves, and the last challenge of each endpoint, so that the next
 * repository's token is fetched without a refused request first. Bounded: what has not been used for longest goes. One mutex, held for
 * pointer work. Tokens are in secret memory, and wiped when nobody has them any more. Times are on the monotonic clock.
 *
 * A token's key says all that it depends on: who challenged, realm, service, scope, whose credentials (proxy/auth.c makes it). */
#ifndef LARDER_PROXY_TOKENS_H
#define LARDER_PROXY_TOKENS_H

#include "core/address.h"
#include "registry/challenge.h"

struct tokens;

struct tokens *tokens_new(void);
void tokens_free(struct tokens *t); /* wipes */

/* What a request carries ("Bearer ..."). It is shared, and stays until token_release, whatever becomes of the table's. */
struct token_text;
struct token {
    const char *value; /* NULL: there is none that is good */
    size_t n;
    struct token_text *text;
    uint64_t serial; /* names it: see tokens_drop */
    bool renew;      /* the asker should have it renewed, while it is still used */
};
void token_release(struct token *t); /* all zero: a no-op */

/* False: none that is good now. */
bool tokens_get(struct tokens *t, struct span key, int64_t now_ms, struct token *out) MUSTCHECK;
bool tokens_have(struct tokens *t, struct span key, int64_t now_ms);
void tokens_put(struct tokens *t, struct span key, struct span token, int64_t life_ms, int64_t now_ms);
/* A server refused the token that has this serial; a newer one stays. */
void tokens_drop(struct tokens *t, struct span key, uint64_t serial);

/* The challenge of an endpoint ("https://host:port/prefix"), and what kind of address it had. False: none is known. */
bool tokens_recall(struct tokens *t, struct span endpoint, struct challenge *c,
                   enum address_kind *peer) MUSTCHECK;
void tokens_remember(struct tokens *t, struct span endpoint, const struct challenge *c,
                     enum address_kind peer);
void tokens_forget(struct tokens *t, struct span endpoint);

#endif
