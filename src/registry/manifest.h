/* What a manifest or an index refers to. Formats: OCI image-spec manifest.md, image-index.md; Docker's schema 2 and its list; of
 * schema 1 the layers. Unknown fields are passed over; what is known and makes no sense is as if it were not there. Pure; any
 * thread; allocates nothing. */
#ifndef LARDER_REGISTRY_MANIFEST_H
#define LARDER_REGISTRY_MANIFEST_H

#include "base/digest.h"
#include "base/span.h"
#include "registry/media.h"

#define MANIFEST_CHILDREN_MAX 10000

enum manifest_role { CHILD_CONFIG, CHILD_LAYER, CHILD_MANIFEST, CHILD_SUBJECT };

/* One reference. Text points into the document, as it stands between the quotes; absent: it is not there, or not plain (escapes,
 * control characters). */
struct manifest_child {
    struct digest digest;
    enum manifest_role role;
    uint64_t size; /* as the document says; 0: it does not */
    struct span media;
    struct span os, architecture, variant, os_version; /* of a manifest in an index */
    bool urls; /* a layer that is elsewhere: "urls" has at least one */
};

struct manifest_seen {
    enum media_form form; /* what the document was read as; MEDIA_OTHER: it is none of these */
    size_t children;      /* that were told */
    size_t strange;       /* references without a digest that larder knows */
    bool cut;             /* there were more than MANIFEST_CHILDREN_MAX */
};

/* Calls `child` for each reference, in this order: configuration, layers, manifests, subject. The type decides how the document is read;
 * a type that does not tell leaves it to the fields. A digest that is named twice is told twice. False: no JSON object, or damaged
 * behind what was told. */
bool manifest_read(struct span media_type, struct span doc,
                   void (*child)(void *arg, const struct manifest_child *child), void *arg,
                   struct manifest_seen *seen);

#endif
