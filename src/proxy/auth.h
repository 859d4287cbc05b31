/* Authorisation of one request to an upstream: which Authorization field it carries, and what a 401 leads to.
 *
 *   anonymous until challenged; a challenge is remembered per registry endpoint, so that the next repository's token is fetched without
 *   a refused request first; when the answer to it is another challenge, it is forgotten, and the request goes out bare
 *   Bearer: one token per (origin that challenged, realm, service, scope, credential set and its fingerprint), shared by all cores, one
 *   request in flight (an answer flight, key "T ..."), renewed before it ends; POST (OAuth 2) when there is a refresh token, GET else
 *   Basic: the credential set's user and password, only to the registry's own origin
 *   an unexpected 401 drops the token and renews it once, then the request is refused
 *   a 403 of the token server is about the one repository; the credential set is blamed for a 401
 *   a 403 after Basic says nothing of the credential set, but has its source asked again if that is slow; another value is tried once
 *
 * Where credentials may go: proxy/realm.h. Redirects of a token server are not followed. After a redirect to another origin that
 * challenges: anonymously, or with the credential set of the rule whose registry that origin is (proxy/upstream.c).
 *
 * Thread: the core's, but for the token cache (proxy/tokens.h), which is shared. */
#ifndef LARDER_PROXY_AUTH_H
#define LARDER_PROXY_AUTH_H

#include "conf/conf.h"
#include "core/address.h"
#include "core/core.h"
#include "http/h1.h"
#include "http/url.h"

struct proxy;
struct setup;

/* A repository that was denied to an account is not asked for with it again before then. */
#define AUTH_DENIED_MS 10000

enum auth_next {
    AUTH_READY,  /* auth->value is what the request carries; absent: nothing */
    AUTH_WAIT,   /* auth->done will come, then ask again */
    AUTH_REFUSED /* nothing more can be tried: auth->err, auth->status, auth->retry_after_ms, auth->why */
};

/* Embedded in the request that it authorises. Nothing is allocated until there is a challenge. */
struct auth {
    /* set by the owner, the rest being zero; spans and pointers stay until auth_end */
    struct proxy *px;
    struct setup *setup;
    const struct conf_upstream *up;
    const struct conf_credential_set *set; /* NULL: anonymously */
    struct url origin;  /* a registry's endpoint, or where a redirect led; path and query mean nothing */
    struct span prefix; /* of the endpoint's paths; absent: a redirect led there */
    struct span repo;
    int64_t deadline; /* core_now: no wait goes on for longer */
    void (*done)(struct auth *a);

    struct span value; /* valid until the next auth_step or auth_end */
    int err;
    unsigned status;
    int64_t retry_after_ms;
    const char *why; /* valid until auth_end */

    unsigned char phase;
    struct auth_state *state;
};

enum auth_next auth_step(struct auth *a);
bool auth_reads_credential(const struct auth *a); /* it waits for that, and for no server */
/* The request with auth->value got a 401; the next auth_step tells what to do. peer: the kind of address that it came from. */
void auth_challenged(struct auth *a, const struct h1_head *head, enum address_kind peer);
/* ... or a 403, which at some registries is the end of a password. True: as after auth_challenged. */
bool auth_forbidden(struct auth *a);
void auth_accepted(struct auth *a); /* ... or an answer that nobody gets whose password is wrong */
void auth_end(struct auth *a);      /* cancels, wipes, zeroes; a no-op on all zero */

#endif
