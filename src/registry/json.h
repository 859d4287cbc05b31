/* The members of a JSON document's top level, found by a small scanner instead of a parser: a manifest may have
 * 4 MiB, only a few keys matter, and the answer has to point into the document. Pure; any thread. */
#ifndef LARDER_REGISTRY_JSON_H
#define LARDER_REGISTRY_JSON_H

#include "base/span.h"
#include "base/str.h"

/* Calls `member` for each member of the document, which must be one object with nothing but white space behind it:
 * key without its quotes, escapes as written; value as written (a string with its quotes). False: it is not, or
 * nested deeper than 256; members before the fault were told. */
bool json_each_member(struct span doc, void (*member)(void *arg, struct span key, struct span value),
                      void *arg);

/* The same for an array: each of its values as written, until `element` says false (then the answer is true). */
bool json_each_element(struct span array, bool (*element)(void *arg, struct span value), void *arg);

/* A string as json_each_member tells it (with its quotes), decoded and appended to out. False: it is another kind of value, or an escape
 * or a byte is wrong, or it does not fit; out holds a part of it then. */
bool json_text(struct span value, struct str *out) MUSTCHECK;
/* The same for the member `key` of the document's top level; false also when it is not there. */
bool json_member_text(struct span doc, struct span key, struct str *out) MUSTCHECK;

#endif
