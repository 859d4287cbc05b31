/* Images as people write them:
 *
 *   [SCHEME://][HOST/]REPOSITORY[:TAG][@DIGEST]        docker://cache.example:5000/dotnet/sdk:8.0
 *
 * The first part is a host, as Docker reads it, when a slash follows and it has a dot or a colon or is "localhost". Pure; any
 * thread. */
#ifndef LARDER_REGISTRY_IMAGE_H
#define LARDER_REGISTRY_IMAGE_H

#include "base/digest.h"
#include "base/span.h"

/* The spans point into the text. */
struct image_name {
    struct span host;       /* absent: none is written */
    struct span repository; /* without host and version, as written */
    struct span
        reference; /* tag or digest; absent: none is written, and clients ask for "latest". With both, the digest counts */
    struct digest digest; /* of the reference; DIGEST_NONE: it is a tag, or absent */
};

/* False: it is no image. */
bool image_parse(struct span text, struct image_name *out) MUSTCHECK;

#endif
