/* Reading one secret from Azure Key Vault: a token for the vault, then the secret. Everything secret is in one piece of memory that is
 * wiped at the end. Embedded in the load that asks (secret_load.c). Thread: the core's. */
#ifndef LARDER_PROXY_SECRET_VAULT_H
#define LARDER_PROXY_SECRET_VAULT_H

#include "http/client.h"
#include "http/url.h"
#include "proxy/proxy_int.h"
#include "registry/vault.h"

struct vault_room; /* secret memory */

struct vault {
    struct proxy *px;
    struct setup *setup; /* held by the load */
    struct call call;
    struct vault_ref ref;
    bool for_token;     /* what is being asked for */
    bool exchange;      /* by workload identity, else by managed identity */
    struct span tokens; /* the resource that room->authorization is good for; absent: none */
    int64_t deadline;
    struct url server;
    char target[1024], host[300], name[256];
    struct vault_room *room; /* NULL: nothing was asked yet */
    size_t answer_n;
};

/* Does the environment say that there is a workload identity? *file: its token's. */
bool vault_workload(const char **file);

/* Asks for the secret that `url` names, or first for a token when there is none for that vault yet; call.event comes, then vault_step.
 * assertion: the workload's token; absent: managed identity. False: *why. */
bool vault_ask(struct vault *v, struct span url, struct span assertion, void (*event)(struct call *call),
               struct str *why) MUSTCHECK;

enum vault_next { VAULT_WAIT, VAULT_ASK /* ask again: the token is there */, VAULT_VALUE, VAULT_FAILED };
/* VAULT_VALUE: *value, until vault_end. VAULT_FAILED: *why. */
enum vault_next vault_step(struct vault *v, struct span *value, struct str *why);
void vault_end(struct vault *v); /* wipes; a no-op on all zero */

#endif
