/* Token servers: what they are asked and what they answer (distribution "token authentication", its OAuth 2 form, Docker's refresh
 * tokens). Pure; any thread. */
#ifndef LARDER_REGISTRY_TOKEN_H
#define LARDER_REGISTRY_TOKEN_H

#include "base/span.h"
#include "base/str.h"

#define TOKEN_MAX          65536 /* bytes of a token */
#define TOKEN_ANSWER_MAX   (256 << 10)
#define TOKEN_LIFE_DEFAULT 60 /* seconds, when the answer does not say */

struct token_answer {
    char *token;         /* mem_alloc'd, ends in 0; the caller wipes and frees it (token_answer_free) */
    char *refresh_token; /* or NULL */
    /* From now; the default when absent, at least TOKEN_LIFE_DEFAULT seconds, at most a day. */
    int64_t life_ms;
};

/* The JSON body of a 200. `token` or `access_token`; expires_in as number or string, issued_at (RFC 3339) is taken into account only to
 * shorten. now_ms: wall clock. False: *why says what is wrong; the token's text is in no message. A token with a character that cannot
 * stand in a header is refused. */
bool token_answer_read(struct span json, int64_t now_ms, struct token_answer *out, struct str *why) MUSTCHECK;
void token_answer_free(struct token_answer *a);

/* "repository:NAME:pull" */
void token_scope(struct span repo, struct str *out);
/* The query of the GET form, behind what the realm's URL has (realm_query: absent, or what follows its "?"): "?" or "&" and service
 * (absent: left out), scope, and account (may be absent), all percent-encoded. */
void token_query(struct span realm_query, struct span service, struct span scope, struct span account,
                 struct str *out);
/* The POST form's body, application/x-www-form-urlencoded: grant_type=refresh_token when refresh_token is given, else password. */
void token_form(struct span service, struct span scope, struct span user, struct span password,
                struct span refresh_token, struct str *out);
/* "Basic " and the base64 of user:password */
void token_basic(struct span user, struct span password, struct str *out);
/* application/x-www-form-urlencoded (and fit for a query): unreserved characters stay, the rest is %XX. */
void token_escape(struct span s, struct str *out);

#endif
