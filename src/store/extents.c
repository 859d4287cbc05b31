/* Sorted, disjoint, never touching extents in an array: with at most EXTENTS_MAX of them a scan is as good as
 * anything. Invariant: e[i].from < e[i].to < e[i + 1].from. */
#include <string.h>

#include "base/check.h"
#include "store/extents.h"

bool extents_add(struct extents *x, uint64_t from, uint64_t to)
{
    MUST(from <= to);
    if (from == to)
        return true;
    unsigned first = 0; /* the first extent that the new one overlaps or touches, or lies before */
    while (first < x->n && x->e[first].to < from)
        first++;
    unsigned last = first; /* one behind the last that it overlaps or touches */
    while (last < x->n && x->e[last].from <= to)
        last++;
    if (first == last && x->n == EXTENTS_MAX)
        return false;
    if (first < last) {
        if (x->e[first].from < from)
            from = x->e[first].from;
        if (x->e[last - 1].to > to)
            to = x->e[last - 1].to;
    }
    memmove(x->e + first + 1, x->e + last, (x->n - last) * sizeof *x->e);
    x->e[first] = (struct extent){.from = from, .to = to};
    x->n = x->n - (last - first) + 1;
    return true;
}

uint64_t extents_from(const struct extents *x, uint64_t off)
{
    for (unsigned i = 0; i < x->n && x->e[i].from <= off; i++)
        if (off < x->e[i].to)
            return x->e[i].to - off;
    return 0;
}
