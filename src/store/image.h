/* What an image consists of. Blocking, for jobs. */
#ifndef LARDER_STORE_IMAGE_H
#define LARDER_STORE_IMAGE_H

#include "store/store.h"

/* The digests of what the store has of an image: itself, and all it refers to, but for subjects; of a blob itself. In no order; the caller's to free
 * (mem_free). *bytes: their sizes. None: it is not here. */
size_t store_image_objects(struct store *s, const struct digest *d, struct digest **out, uint64_t *bytes);

#endif
