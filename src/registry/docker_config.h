/* Docker's config.json, as `docker login`, podman and Kubernetes' pull secrets write it: the credentials for one registry. Pure; any
 * thread.
 *
 *   {"auths": {"https://index.docker.io/v1/": {"auth": "base64 of USER:PASSWORD"}, "ghcr.io": {"identitytoken": "..."}},
 *    "credHelpers": {"gcr.io": "gcloud"}, "credsStore": "desktop"}
 *
 * Asked in this order: credHelpers, auths, credsStore. Keys are host, host:port, or either as a URL (what follows the host does not
 * matter then); all names of Docker Hub are one. A key with a path and without a scheme (podman's quay.io/team) is for a part of the
 * registry and is not taken. The older .dockercfg is what stands in auths, alone. */
#ifndef LARDER_REGISTRY_DOCKER_CONFIG_H
#define LARDER_REGISTRY_DOCKER_CONFIG_H

#include "base/span.h"
#include "base/str.h"

struct docker_credentials {
    struct span helper; /* not here: docker-credential-HELPER has them; or absent */
    struct span user, password;
    struct span refresh_token; /* an identity token; or absent */
};

/* registry: canonical. The spans of *out lie in `room`, which has place enough when it is twice as large as doc. False: *why says in words that
 * there is none, or what is wrong with it; secrets are in no message. */
bool docker_config_find(struct span doc, struct span registry, struct str *room,
                        struct docker_credentials *out, struct str *why) MUSTCHECK;

/* What a credential helper answers to `get`: {"ServerURL": "...", "Username": "...", "Secret": "..."}; the user's name <token> means that the
 * secret is an identity token. As above. */
bool docker_helper_read(struct span doc, struct str *room, struct docker_credentials *out,
                        struct str *why) MUSTCHECK;

#define DOCKER_HELPER_MAX 200
/* May it be a part of a program's name: letters, digits, '.', '_', '-'. */
bool docker_helper_ok(struct span name);

#endif
