/* The members of a JSON document's top level, found by a small scanner instead of a parser: a manifest may have
 * 4 MiB, only a few keys matter, and the answer has to point into the document. Pure; any thread. */
#ifndef LARDER_REGISTRY_JSON_H
#define LARDER_REGISTRY_JSON_H

#include "base/span.h"

/* Calls `member` for each member of the document, which must be one object with nothing but white space behind it:
 * key without its quotes, escapes as written; value as written (a string with its quotes). False: it is not, or
 * nested deeper than 256; members before the fault were told. */
bool json_each_member(struct span doc, void (*member)(void *arg, struct span key, struct span value),
                      void *arg);

#endif
