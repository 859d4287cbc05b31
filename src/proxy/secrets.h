/* Credentials: from secret references to user and password, and the health of credential sets.
 *
 *   env:NAME            read at setup
 *   file:PATH           without a trailing newline; read again when the file has changed (looked at before use, at most once a second);
 *                       while it is missing or empty, what it was is used, for half a minute
 *   dockerconfig:PATH   the entry of the set's login server: auth, or username and password, or identitytoken; files likewise
 *   exec:HELPER         docker-credential-HELPER get, in a job, with a time limit; the answer is kept for some minutes
 *   https://...vault... Azure Key Vault, by workload identity or managed identity (vault.h)
 *
 * Everything that waits (files, programs, vaults) happens in jobs or calls, once for all who ask on all cores. Values are in memory
 * that is left out of core dumps (MADV_DONTDUMP) and wiped when it is given back, and in no log.
 *
 * Health: a set is healthy until its secrets cannot be read, or a server has refused them SECRET_REFUSALS times in a row. Then it is
 * unhealthy with a reason and a time; whoever asks gets CREDENTIAL_FAILED at once, until the pause (1 s doubling to 5 min) is over and
 * one asker is let through as a probe. A changed value makes it healthy again. What was got with it before (a token) stays good. */
#ifndef LARDER_PROXY_SECRETS_H
#define LARDER_PROXY_SECRETS_H

#include "conf/conf.h"
#include "core/core.h"

struct proxy;
struct secrets;

enum credential_state { CREDENTIAL_WAIT, CREDENTIAL_READY, CREDENTIAL_FAILED };

/* One asker's place. Embedded; all zero before credential_get. */
struct credential {
    /* valid while READY, until credential_release; each ends in 0 */
    struct span user, password;
    struct span refresh_token; /* an identity token instead of a password; or absent */
    uint64_t fingerprint; /* changes when any of the values does: what was learnt with others is dropped by
                             it. Also when FAILED because a server refuses them; 0: it is not known */
    const char
        *why; /* FAILED: in words, for log and message ("environment variable HUB_USER is not set"); until
                credential_release */
    void (*done)(struct credential *c); /* set by the owner: called once after WAIT, on the asker's core */
    bool only_look; /* set by the owner: to know which they are; they go to no server, so this is no probe */
    bool renew; /* set by the owner, for one credential_get: they are in doubt; what a program or a vault says
                   now is waited for */
    struct credential_wait *wait;
    struct credential_value *value;
};

/* READY and FAILED at once, or WAIT: `done` comes later, then ask again. */
enum credential_state credential_get(struct proxy *px, struct secrets *s,
                                     const struct conf_credential_set *conf, struct credential *c);
void credential_release(struct credential *c); /* also cancels a wait; a no-op on all zero */

/* What a server said to these credentials; fingerprint is that of the credential used, so that a late answer about an old password
 * counts for nothing; repo: what was asked for. */
void credential_accepted(struct secrets *s, const struct conf_credential_set *conf, uint64_t fingerprint,
                         struct span repo);
/* A server that knows the account said no, which may mean that the password has ended (Amazon ECR): programs and vaults are asked again.
 * True: they will be, or have been, so that it may be worth another try. */
bool credential_doubted(struct secrets *s, const struct conf_credential_set *conf, uint64_t fingerprint);
/* False: the refusal is about that repository, as far as can be told: the same credentials were accepted a while ago for others, which
 * they have not been refused for since, but not for this one. Some servers say 401 for that, too. Such a refusal is none of those
 * SECRET_REFUSALS in a row. */
bool credential_refused(struct secrets *s, const struct conf_credential_set *conf, uint64_t fingerprint,
                        unsigned status, struct span where, struct span repo);

/* For metrics, the admin API and `larder credential-set show`. Any thread. */
struct credential_health {
    bool healthy;
    char why[256];
    int64_t since_ms;   /* wall clock */
    int64_t checked_ms; /* wall clock; 0: never */
    uint64_t refused;   /* how often a server has said no; never goes backwards */
};
void credential_health(struct secrets *s, const struct conf_credential_set *conf,
                       struct credential_health *out);

#endif
