/* Authorisation of one request to an upstream: which Authorization field it carries, and what a 401 leads to.
 *
 *   anonymous until challenged; a challenge is remembered per registry origin, so that the next repository's token is fetched without
 *   a refused request first
 *   Bearer: one token per (origin that challenged, realm, service, scope, credential set and its fingerprint), shared by all cores, one
 *   request in flight (an answer flight, key "T ..."), renewed before it ends; POST (OAuth 2) when there is a refresh token, GET else
 *   Basic: the credential set's user and password, only to the registry's own origin
 *   an unexpected 401 drops the token and renews it once, then the request is refused
 *
 * Where credentials may go: the origins of the upstream's endpoints; a realm on one of those origins, on a host of token_realms, or on the
 * known pair of the registry (registry/known.h), by https only when the registry is https. A realm that is not trusted is asked
 * anonymously, and never when it is on a private or link-local address while the registry is not, or not https while the registry is.
 * Redirects of a token server are not followed. After a redirect to another origin that challenges: anonymously, or with the credential set
 * of the rule whose registry that origin is.
 *
 * Thread: the core's, but for the token cache, which is shared and has its own lock. */
#ifndef LARDER_PROXY_AUTH_H
#define LARDER_PROXY_AUTH_H

#include "conf/conf.h"
#include "core/core.h"
#include "http/h1.h"
#include "http/url.h"

struct proxy;
struct setup;
struct tokens; /* the cache; in proxy_shared */

struct tokens *tokens_new(void);
void tokens_free(struct tokens *t); /* wipes */

enum auth_next {
    AUTH_READY,  /* auth->value is what the request carries; absent: nothing */
    AUTH_WAIT,   /* auth->done will come, then ask again */
    AUTH_REFUSED /* nothing more can be tried: auth->err, auth->status, auth->retry_after_ms, auth->why */
};

/* Embedded in the request that it authorises; all zero before auth_begin. */
struct auth {
    void (*done)(struct auth *a); /* set by the owner */
    struct span value;            /* valid until the next auth_ call */
    int err;
    unsigned status;
    int64_t retry_after_ms;
    char why[256]; /* which realm was not trusted, which credential set could not be read */
    struct auth_state *state;
};

/* For a request to `origin` (a registry's endpoint, or where a redirect led) about repository `repo`. deadline: core_now. */
void auth_begin(struct auth *a, struct proxy *px, struct setup *setup, const struct conf_upstream *up,
                const struct conf_credential_set *set, const struct url *origin, struct span repo,
                int64_t deadline);
enum auth_next auth_step(struct auth *a);
/* The request with auth->value got a 401; the next auth_step tells what to do. */
void auth_challenged(struct auth *a, const struct h1_head *head);
void auth_accepted(struct auth *a); /* ... or an answer that is no 401 */
void auth_end(struct auth *a);      /* cancels; wipes; a no-op on all zero */

#endif
