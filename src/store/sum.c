/* XXH3-128 of contents. */
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/sum.h"

#define ALIGNMENT 64

_Static_assert(sizeof(XXH3_state_t) + ALIGNMENT - 1 <= sizeof((struct summer *)0)->room,
               "room for the state");
_Static_assert(sizeof(XXH128_canonical_t) == sizeof((struct content_sum *)0)->raw, "room for the sum");

/* Allocators give 16 bytes of alignment, the state wants more. */
static XXH3_state_t *state_of(const struct summer *s)
{
    uintptr_t at = ((uintptr_t)s->room + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    return (XXH3_state_t *)at;
}

static void put(struct content_sum *out, XXH128_hash_t hash)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    memcpy(out->raw, &canonical, sizeof out->raw);
    out->known = true;
}

void summer_init(struct summer *s)
{
    XXH3_INITSTATE(state_of(s));
    XXH3_128bits_reset(state_of(s));
}

void summer_update(struct summer *s, const void *bytes, size_t n)
{
    XXH3_128bits_update(state_of(s), bytes, n);
}

void summer_finish(const struct summer *s, struct content_sum *out)
{
    put(out, XXH3_128bits_digest(state_of(s)));
}

void content_sum_of(struct span content, struct content_sum *out)
{
    put(out, XXH3_128bits(content.p, content.n));
}

bool content_sum_eq(const struct content_sum *a, const struct content_sum *b)
{
    return a->known && b->known && memcmp(a->raw, b->raw, sizeof a->raw) == 0;
}
