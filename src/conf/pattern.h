/* Patterns of tags: '*' is any run of characters, also none and also of dots; all else is itself. Pure; any thread. */
#ifndef LARDER_CONF_PATTERN_H
#define LARDER_CONF_PATTERN_H

#include "base/span.h"

#define PATTERN_MAX 128 /* bytes */

/* NULL: it is one that some tag matches; else what is wrong, as the end of "'v:1' ...". */
const char *pattern_wrong(struct span pattern);

/* In time that is linear in the two lengths. */
bool pattern_match(struct span pattern, struct span text);
bool pattern_match_any(const struct span *patterns, size_t n, struct span text);

#endif
