/* Reference counts for what crosses cores. Starts at 1; the one who drops the last reference frees. */
#ifndef LARDER_BASE_REF_H
#define LARDER_BASE_REF_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/check.h"

struct ref {
    atomic_uint n;
};

static inline void ref_init(struct ref *r)
{
    atomic_init(&r->n, 1);
}

static inline void ref_take(struct ref *r)
{
    unsigned before = atomic_fetch_add_explicit(&r->n, 1, memory_order_relaxed);
    MUST(before > 0 && before < 1u << 30);
}

static inline bool ref_drop(struct ref *r) /* true: that was the last one, free the object */
{
    unsigned before = atomic_fetch_sub_explicit(&r->n, 1, memory_order_acq_rel);
    MUST(before > 0);
    return before == 1;
}

#endif
