/* Platforms of images: os/architecture[/variant] (OCI image-spec image-index.md; containerd's platforms). Pure; any thread. */
#ifndef LARDER_REGISTRY_PLATFORM_H
#define LARDER_REGISTRY_PLATFORM_H

#include "base/str.h"

#define PLATFORM_TEXT_MAX  64
#define PLATFORMS_MAX      16  /* of a list */
#define PLATFORMS_TEXT_MAX 511 /* bytes of a list */

/* Absent: not said. */
struct platform {
    struct span os, architecture, variant;
};

/* "linux/arm/v7". The spans point into the text, or to a constant: what uname says (x86_64, aarch64) is taken for amd64 and arm64. False:
 * it is no platform. */
bool platform_parse(struct span text, struct platform *out) MUSTCHECK;

/* "linux/amd64,linux/arm64": how many there are, at most PLATFORMS_MAX; more than that if there are more; 0: *wrong is what is none (all of
 * an empty list, or of one that is too long). The spans point as above. */
size_t platforms_parse(struct span list, struct platform out[PLATFORMS_MAX], struct span *wrong) MUSTCHECK;

/* Is `has` what is wanted? Without a variant any will do; with one, what says none is what its architecture usually means (arm64 is
 * v8, arm v7, amd64 v1). */
bool platform_match(const struct platform *wanted, const struct platform *has);

void platform_add(struct str *out,
                  const struct platform *p); /* as it is written; what is not said is left out */

/* "amd64", "arm/v7": what a machine is that uname calls so (Go's names; containerd's platforms). A name that is not known stays. */
struct span platform_of_machine(struct span machine);

#endif
