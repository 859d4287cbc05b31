/* The document of tags/list: {"name": "...", "tags": [...]}. Pure; any thread. */
#ifndef LARDER_REGISTRY_TAGS_H
#define LARDER_REGISTRY_TAGS_H

#include "base/span.h"

/* Finds the value of "name" (with its quotes), which a cache replaces by its own name for the repository. False: not such
 * a document. */
bool tags_find_name(struct span body, struct span *value) MUSTCHECK;

#endif
