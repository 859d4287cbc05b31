/* Azure Key Vault, and the two ways in which a program on Azure proves who it is: what they are asked and what they answer. Pure; any
 * thread.
 *
 *   workload identity   the token that Kubernetes put into a file is exchanged for one of Microsoft Entra ID
 *   managed identity    the machine's metadata service (IMDS) gives one */
#ifndef LARDER_REGISTRY_VAULT_H
#define LARDER_REGISTRY_VAULT_H

#include "base/span.h"
#include "base/str.h"

#define VAULT_VALUE_MAX (32u << 10) /* a secret has at most 25 KB */

struct vault_ref {
    struct span host;     /* "corp.vault.azure.net" */
    struct span path;     /* "/secrets/NAME" or "/secrets/NAME/VERSION" */
    struct span resource; /* what a token has to be for: "https://vault.azure.net" */
    struct span
        authority; /* where one comes from, when the environment does not say: "https://login.microsoftonline.com" */
};

/* https://NAME.vault.azure.net/secrets/SECRET[/VERSION], or of another cloud. The spans of *out point into url, or are static. */
bool vault_parse(struct span url, struct vault_ref *out) MUSTCHECK;

/* Path and query of the secret. */
void vault_secret_target(const struct vault_ref *r, struct str *out);
/* Path and query of the metadata service; client_id: which of several identities, or absent. */
void vault_metadata_target(const struct vault_ref *r, struct span client_id, struct str *out);
/* The exchange of a workload's token: path, and form. */
void vault_exchange_target(struct span tenant, struct str *out);
void vault_exchange_form(const struct vault_ref *r, struct span client_id, struct span assertion,
                         struct str *out);

/* The answers of status 200. False: it is not there. */
bool vault_read_secret(struct span json, struct str *out) MUSTCHECK;
bool vault_read_token(struct span json, struct str *out) MUSTCHECK;
/* What an answer of another status says is wrong, as far as it is made of plain words: "Forbidden", "invalid_client AADSTS70021". */
void vault_add_error(struct span json, struct str *out);

#endif
