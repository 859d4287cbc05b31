/* See known.h. */
#include "registry/known.h"

#define TEXT(s)                                                                                              \
    {                                                                                                        \
        .p = sizeof(s) > 1 ? (s) : NULL, .n = sizeof(s) - 1                                                  \
    }

static const struct known_registry table[] = {
#define KNOWN(name_, title_, endpoint_, alias_, realm_, auth_, limit_, library_, no_blob_head_, note_)       \
    {.name = TEXT(name_),                                                                                    \
     .title = TEXT(title_),                                                                                  \
     .endpoint = TEXT(endpoint_),                                                                            \
     .alias = TEXT(alias_),                                                                                  \
     .realm = TEXT(realm_),                                                                                  \
     .auth = (auth_),                                                                                        \
     .anonymous_limit = TEXT(limit_),                                                                        \
     .library = (library_),                                                                                  \
     .no_blob_head = (no_blob_head_),                                                                        \
     .note = TEXT(note_)},
#include "registry/known.def"
};

/* Does the whole of s fit? After a mismatch the last star takes one byte more: earlier ones need not be tried again. */
static bool fits(struct span pattern, struct span s)
{
    size_t p = 0, i = 0, star_p = 0, star_i = 0;
    bool star = false;
    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = true;
            star_p = ++p;
            star_i = ++i; /* at least one byte */
        } else if (p < pattern.n && pattern.p[p] == s.p[i]) {
            p++;
            i++;
        } else if (star) {
            p = star_p;
            i = ++star_i;
        } else {
            return false;
        }
    }
    return p == pattern.n;
}

const struct known_registry *known_find(struct span registry)
{
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (fits(table[i].name, registry))
            return &table[i];
    }
    return NULL;
}

const struct known_registry *known_of_host(struct span host)
{
    if (host.n == 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const struct known_registry *k = &table[i];
        if (span_ieq(host, k->name) || span_ieq(host, k->endpoint) || span_ieq(host, k->alias))
            return k;
    }
    return NULL;
}

const struct known_registry *known_at(size_t i)
{
    return i < ARRAY_LEN(table) ? &table[i] : NULL;
}
