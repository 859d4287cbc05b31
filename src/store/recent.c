/* See recent_int.h.
 *
 * Invariant: a slot's object and link were both looked up at the slot's version. No version is 0 here (they are kept plus one), so a zeroed
 * slot is an outdated one. */
#include <string.h>

#include "base/mem.h"
#include "store/recent_int.h"

struct slot {
    uint64_t version; /* plus one */
    struct digest digest;
    bool has_object, has_link;
    uint8_t repo_n, media_n;
    struct store_object object;
    char repo[RECENT_TEXT_MAX], media[RECENT_TEXT_MAX];
};

struct recent {
    unsigned turn; /* whose slot goes next where a set is full */
    struct slot slots[RECENT_SLOTS];
};

struct recent *recent_new(void)
{
    struct recent *t;
    return NEW(t);
}

void recent_free(struct recent *t)
{
    mem_free(t);
}

/* The first slot of the digest's set. Of a digest every bit is as good as any. */
static size_t set_of(const struct digest *d)
{
    uint64_t at;
    memcpy(&at, d->raw, sizeof at);
    return at % (RECENT_SLOTS / RECENT_WAYS) * RECENT_WAYS;
}

static const struct slot *find(const struct recent *t, uint64_t version, const struct digest *d)
{
    const struct slot *set = &t->slots[set_of(d)];
    for (unsigned i = 0; i < RECENT_WAYS; i++)
        if (set[i].version == version + 1 && digest_eq(&set[i].digest, d))
            return &set[i];
    return NULL;
}

/* The digest's slot; else one that is outdated, or the next in turn, made empty. */
static struct slot *take(struct recent *t, uint64_t version, const struct digest *d)
{
    struct slot *set = &t->slots[set_of(d)], *goes = &set[t->turn++ % RECENT_WAYS];
    for (unsigned i = 0; i < RECENT_WAYS; i++) {
        if (set[i].version != version + 1)
            goes = &set[i];
        else if (digest_eq(&set[i].digest, d))
            return &set[i];
    }
    goes->version = version + 1;
    goes->digest = *d;
    goes->has_object = goes->has_link = false;
    return goes;
}

bool recent_object(const struct recent *t, uint64_t version, const struct digest *d, struct store_object *out)
{
    const struct slot *s = find(t, version, d);
    if (s == NULL || !s->has_object)
        return false;
    *out = s->object;
    return true;
}

bool recent_link(const struct recent *t, uint64_t version, struct span repo, const struct digest *d,
                 struct store_link *out)
{
    const struct slot *s = find(t, version, d);
    if (s == NULL || !s->has_link || !span_eq(repo, span_of(s->repo, s->repo_n)))
        return false;
    memcpy(out->media, s->media, s->media_n);
    out->media[s->media_n] = '\0';
    return true;
}

void recent_keep_object(struct recent *t, uint64_t version, const struct digest *d,
                        const struct store_object *o)
{
    struct slot *s = take(t, version, d);
    s->object = *o;
    s->has_object = true;
}

void recent_keep_link(struct recent *t, uint64_t version, struct span repo, const struct digest *d,
                      const struct store_link *link)
{
    size_t media_n = strlen(link->media);
    if (repo.n == 0 || repo.n > RECENT_TEXT_MAX || media_n > RECENT_TEXT_MAX)
        return;
    struct slot *s = take(t, version, d);
    memcpy(s->repo, repo.p, repo.n);
    memcpy(s->media, link->media, media_n);
    s->repo_n = (uint8_t)repo.n;
    s->media_n = (uint8_t)media_n;
    s->has_link = true;
}
