/* What the files of this room share. */
#ifndef LARDER_CORE_CORE_INT_H
#define LARDER_CORE_CORE_INT_H

#include "base/list.h"

struct core;

struct list *core_ops(struct core *c); /* live operations */

#endif
