#include "store/image.h"

#include "base/mem.h"
#include "store/pinned_int.h"

static size_t take_those_here(struct itxn *t, const struct digests *all, struct digest **out, uint64_t *bytes)
{
    struct pool_entry e;
    struct digest *d;
    size_t at = 0, n = 0;
    *out = mem_alloc((all->map.used + 1) * sizeof **out);
    while ((d = digests_next(all, &at)) != NULL) {
        if (!itxn_object(t, d, &e))
            continue;
        (*out)[n++] = *d;
        *bytes += e.o.size;
    }
    return n;
}

size_t store_image_objects(struct store *s, const struct digest *d, struct digest **out, uint64_t *bytes)
{
    struct digests all;
    struct itxn t;
    size_t n = 0;
    *out = NULL;
    *bytes = 0;
    digests_init(&all);
    int rc = itxn_read(s->index, &t);
    if (rc == 0)
        rc = digests_add_image(&all, &t, d);
    if (rc == 0)
        n = take_those_here(&t, &all, out, bytes);
    itxn_end(&t);
    digests_free(&all);
    return n;
}
