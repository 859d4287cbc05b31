#include "registry/image.h"

#include "registry/name.h"

static bool is_host(struct span s)
{
    return span_find(s, '.') >= 0 || span_find(s, ':') >= 0 || span_eq(s, SPAN("localhost"));
}

/* docker://, as skopeo writes it */
static struct span without_scheme(struct span text)
{
    ptrdiff_t colon = span_find(text, ':');
    if (colon <= 0 || !span_starts(span_from(text, (size_t)colon), SPAN("://")))
        return text;
    return span_from(text, (size_t)colon + 3);
}

/* Cuts "@DIGEST" and ":TAG" off its end. False: one of them is wrong. */
static bool cut_reference(struct span *name, struct image_name *out)
{
    struct span text = *name;
    ptrdiff_t at = span_find(text, '@');
    if (at >= 0)
        *name = span_sub(text, 0, (size_t)at);
    ptrdiff_t slash = span_rfind(*name, '/');
    ptrdiff_t colon = span_find(span_from(*name, (size_t)(slash + 1)), ':');
    if (colon >= 0) {
        out->reference = span_from(*name, (size_t)(slash + 1 + colon + 1));
        *name = span_sub(*name, 0, (size_t)(slash + 1 + colon));
        if (!name_tag_ok(out->reference))
            return false;
    }
    if (at < 0)
        return true;
    out->reference = span_from(text, (size_t)at + 1);
    return digest_parse(out->reference, &out->digest) == DIGEST_OK;
}

bool image_parse(struct span text, struct image_name *out)
{
    *out = (struct image_name){.digest = {.alg = DIGEST_NONE}};
    struct span name = without_scheme(text);
    if (!cut_reference(&name, out))
        return false;
    ptrdiff_t slash = span_find(name, '/');
    if (slash >= 0 && is_host(span_sub(name, 0, (size_t)slash))) {
        out->host = span_sub(name, 0, (size_t)slash);
        name = span_from(name, (size_t)slash + 1);
        if (!name_registry_ok(out->host))
            return false;
    }
    out->repository = name;
    return name_repo_ok(name);
}
