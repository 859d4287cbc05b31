/* The grammar of names (OCI distribution-spec "Pulling manifests"; distribution/reference).
 *
 *   repository   path components joined by "/"; a component is [a-z0-9]+ runs joined by ".", "_", "__" or "-"s;
 *                at most 255 characters
 *   tag          [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
 *   registry     host[:port]; host is a DNS name, an IPv4 address, or an IPv6 address in brackets
 *
 * Pure; any thread. */
#ifndef LARDER_REGISTRY_NAME_H
#define LARDER_REGISTRY_NAME_H

#include "base/span.h"
#include "base/str.h"

#define NAME_REPO_MAX     255
#define NAME_TAG_MAX      128
#define NAME_REGISTRY_MAX 261 /* 255 + ":65535" */

bool name_repo_ok(struct span s);
bool name_tag_ok(struct span s);
bool name_registry_ok(struct span s);

/* Docker Hub has three names (docker.io, index.docker.io, registry-1.docker.io: registry/known.def). */
bool name_is_docker_hub(struct span registry);

/* The canonical name of a registry: lower case, Docker Hub's aliases as "docker.io", a default port ":443"
 * dropped. False when it is not a registry name or does not fit. */
bool name_registry_canonical(struct span registry, struct str *out) MUSTCHECK;

/* The repository as its registry knows it: a one-segment name at Docker Hub gets "library/". */
void name_repo_canonical(struct span registry, struct span repo, struct str *out);

#endif
