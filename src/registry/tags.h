/* The document of tags/list: {"name": "...", "tags": [...]}. Pure; any thread. */
#ifndef LARDER_REGISTRY_TAGS_H
#define LARDER_REGISTRY_TAGS_H

#include "base/span.h"

/* Is it such a document? "tags" is an array, or null for none. *name is the value of "name" with its quotes, which a cache
 * replaces by its own name for the repository; absent if there is none. */
bool tags_read(struct span body, struct span *name) MUSTCHECK;

#endif
