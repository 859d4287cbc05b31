/* See names.h. A filter is made once for a request: every rule whose target begins with the text, or is a wildcard that it lies under, gives
 * the beginning (or, without a wildcard, the whole) of a name in the store. Sorted, and without those that others cover, they
 * answer by one binary search. */
#include "admin/names.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/mem.h"
#include "conf/match.h"
#include "core/address.h"
#include "registry/name.h"

static void put_key(char *out, struct span registry, struct span repo)
{
    struct str key = str_init(out, STORE_REPO_MAX + 1);
    str_add(&key, registry);
    str_addc(&key, '/');
    str_add(&key, repo);
    MUST(!key.cut);
}

/* The registry and repository are what the text says. False: it says none. */
static bool take_as_written(const struct image_name *image, struct names_image *out)
{
    char registry_text[NAME_REGISTRY_MAX + 1], repo_text[NAME_REPO_MAX + 1];
    struct str registry = STR_INIT(registry_text), repo = STR_INIT(repo_text);
    if (image->host.p == NULL || !name_registry_canonical(image->host, &registry))
        return false;
    name_repo_canonical(str_span(&registry), image->repository, &repo);
    if (repo.cut)
        return false;
    put_key(out->repo, str_span(&registry), str_span(&repo));
    return true;
}

enum names_found names_image(const struct conf *conf, struct span text, struct names_image *out)
{
    char buf[NAME_REPO_MAX + 1];
    struct str repo = STR_INIT(buf), tag;
    struct image_name image;
    bool by_source;
    memset(out, 0, sizeof *out);
    if (digest_parse(text, &out->digest) == DIGEST_OK)
        return NAMES_OK;
    if (!image_parse(text, &image))
        return NAMES_NO_IMAGE;
    out->digest = image.digest;
    tag = STR_INIT(out->tag);
    if (image.digest.alg == DIGEST_NONE)
        str_add(&tag, image.reference);
    out->rule = conf_match_image(conf, &image, true, &repo, &by_source);
    if (out->rule == NULL)
        return take_as_written(&image, out) ? NAMES_OK : NAMES_NO_RULE;
    put_key(out->repo, out->rule->registry, str_span(&repo));
    return NAMES_OK;
}

const struct conf_rule *names_rule(const struct conf *conf, struct span repo, struct str *client)
{
    char buf[NAME_REPO_MAX + 1];
    struct str canonical = STR_INIT(buf);
    repo = store_repo_plain(repo);
    ptrdiff_t slash = span_find(repo, '/');
    if (slash < 0)
        return NULL;
    struct span registry = span_sub(repo, 0, (size_t)slash), name = span_from(repo, (size_t)slash + 1);
    const struct conf_rule *rule = conf_match_source(conf, registry, name, &canonical);
    if (rule == NULL)
        return NULL;
    str_add(client, rule->target_prefix);
    if (rule->wildcard)
        str_add(client, span_from(name, rule->source_prefix.n));
    return rule;
}

/* ---- filters ---- */

struct names_prefix {
    struct span text;
    bool whole; /* the name is this, and does not only begin so */
};

static void filter_add(struct names_filter *f, struct span registry, struct span middle, struct span end,
                       bool whole)
{
    char buf[STORE_REPO_MAX + NAME_REPO_MAX + 2];
    struct str s = STR_INIT(buf);
    if (f->n == f->cap) {
        f->cap = f->cap == 0 ? 16 : 2 * f->cap;
        f->list = mem_realloc(f->list, f->cap * sizeof *f->list);
    }
    str_add(&s, registry);
    str_add(&s, middle);
    str_add(&s, end);
    f->list[f->n++] = (struct names_prefix){.text = arena_span(f->arena, str_span(&s)), .whole = whole};
}

static void filter_add_rule(struct names_filter *f, const struct conf_rule *r, struct span prefix)
{
    char buf[NAME_REGISTRY_MAX + 2];
    struct str registry = STR_INIT(buf);
    str_add(&registry, r->registry);
    str_addc(&registry, '/');
    if (span_starts(r->target_prefix, prefix)) {
        filter_add(f, str_span(&registry), r->source_prefix, SPAN(""), !r->wildcard);
        return;
    }
    if (!r->wildcard || !span_starts(prefix, r->target_prefix))
        return;
    struct span rest = span_from(prefix, r->target_prefix.n);
    filter_add(f, str_span(&registry), r->source_prefix, rest, false);
    if (name_is_docker_hub(r->registry) && r->source_prefix.n == 0 && span_find(rest, '/') < 0)
        filter_add(f, str_span(&registry), SPAN("library/"), rest, false);
}

static void filter_add_targets(struct names_filter *f, const struct conf *conf, struct span prefix)
{
    for (size_t i = 0; i < conf->n_rules; i++)
        filter_add_rule(f, &conf->rules[i], prefix);
}

static bool is_source(const struct conf *conf, struct span registry)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        if (span_eq(conf->rules[i].registry, registry))
            return true;
    }
    return false;
}

/* As larder's own is written, more likely than a registry's: with a port, localhost, an IP address. */
static bool is_address(struct span host)
{
    enum address_kind kind;
    return span_find(host, ':') >= 0 || span_eq(host, SPAN("localhost")) || address_kind_of_text(host, &kind);
}

static int compare_spans(struct span a, struct span b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int compare_prefixes(const void *a, const void *b)
{
    const struct names_prefix *x = a, *y = b;
    int c = compare_spans(x->text, y->text);
    return c != 0 ? c : x->whole - y->whole;
}

static void filter_sort(struct names_filter *f)
{
    size_t kept = 0;
    if (f->n > 0)
        qsort(f->list, f->n, sizeof *f->list, compare_prefixes);
    for (size_t i = 0; i < f->n; i++) {
        const struct names_prefix *before = kept > 0 ? &f->list[kept - 1] : NULL;
        bool covered = before != NULL && (before->whole ? span_eq(f->list[i].text, before->text)
                                                        : span_starts(f->list[i].text, before->text));
        if (!covered)
            f->list[kept++] = f->list[i];
    }
    f->n = kept;
    f->common = kept > 0 ? f->list[0].text : SPAN("");
    while (kept > 0 && !span_starts(f->list[kept - 1].text, f->common))
        f->common.n--;
}

void names_filter_init(struct names_filter *f, const struct conf *conf, struct span prefix)
{
    *f = (struct names_filter){.arena = arena_new()};
    char buf[NAME_REGISTRY_MAX + 1];
    struct str registry = STR_INIT(buf);
    ptrdiff_t slash = span_find(prefix, '/');
    struct span host = slash < 0 ? prefix : span_sub(prefix, 0, (size_t)slash);
    bool dots = span_find(host, '.') >= 0 || span_find(host, ':') >= 0 || span_eq(host, SPAN("localhost"));
    if (slash < 0) { /* it may be the beginning of anything */
        if (prefix.n <= NAME_REPO_MAX)
            filter_add(f, prefix, SPAN(""), SPAN(""), false);
        filter_add_targets(f, conf, prefix);
    } else if (dots && name_registry_canonical(host, &registry)) {
        struct span rest = span_from(prefix, (size_t)slash + 1);
        if (rest.n <= NAME_REPO_MAX)
            filter_add(f, str_span(&registry), SPAN("/"), rest, false);
        bool own =
            rest.n > 0 || is_address(host); /* "quay.io/" is what a former rule has brought from there */
        if (own && !is_source(conf, str_span(&registry)))
            filter_add_targets(f, conf, rest);
    } else {
        filter_add_targets(f, conf, prefix);
    }
    filter_sort(f);
}

bool names_filter_has(const struct names_filter *f, struct span repo)
{
    size_t low = 0, high = f->n; /* list[low - 1] <= repo < list[high] */
    repo = store_repo_plain(repo);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_spans(f->list[middle].text, repo) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return false;
    const struct names_prefix *p = &f->list[low - 1];
    return p->whole ? span_eq(repo, p->text) : span_starts(repo, p->text);
}

void names_filter_free(struct names_filter *f)
{
    arena_free(f->arena);
    mem_free(f->list);
}
