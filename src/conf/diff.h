/* The difference of two texts in the unified format, as diff -u writes and patch reads it. Pure. */
#ifndef LARDER_CONF_DIFF_H
#define LARDER_CONF_DIFF_H

#include "base/arena.h"

/* Empty when the texts are equal. `name` stands in both head lines. The result is in the arena. */
struct span diff_unified(struct arena *a, struct span before, struct span after, struct span name);

#endif
