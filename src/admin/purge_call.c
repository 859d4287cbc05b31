/* Purging: what is told to go. */
#include "admin/store_calls_int.h"
#include "store/pin.h"

static unsigned answer_purge(const struct store_purged *p, const char *what, struct str *out)
{
    if (p->tags + p->links + p->objects == 0 && p->pinned > 0)
        return call_no(out, 409, "'%s' is pinned, or part of what is; unpin it, or purge it by force", what);
    if (p->tags + p->links + p->objects == 0)
        return call_no(out, 404, "nothing of '%s' is in the store", what);
    str_addc(out, '{');
    member_count(out, "tags", p->tags);
    member_count(out, "links", p->links);
    member_count(out, "objects", p->objects);
    member_count(out, "bytes", p->bytes);
    member_count(out, "pinned", p->pinned);
    str_addz(out, "}\n");
    return 200;
}

/* An image by digest is what its repository has, and nothing else of that digest. */
static bool belongs(struct store_calls *s, const struct names_image *image)
{
    return image->repo[0] == 0 || store_any_link(s->c.store, span_str(image->repo), &image->digest);
}

static unsigned purge_image(struct store_calls *s, struct span query, bool force, struct str *out)
{
    char text[CALL_IMAGE_MAX], buf[512];
    struct str why = STR_INIT(buf);
    struct names_image image;
    struct store_purged purged = {0};
    int err = 0;
    unsigned status = call_image(s, query, text, &image, out);
    if (status != 200)
        return status;
    if (image.tag[0] == 0 && image.digest.alg == DIGEST_NONE)
        return call_no(out, 400, "'%s' has no tag and no digest; write which one is meant, as in %s:latest",
                       text, text);
    if (image.tag[0] != 0)
        err = store_purge_tag(s->c.store, span_str(image.repo), span_str(image.tag), force, &purged, &why);
    else if (belongs(s, &image))
        err = store_purge_digest(s->c.store, &image.digest, force, &purged, &why);
    return err != 0 ? call_no(out, 503, "%s", buf) : answer_purge(&purged, text, out);
}

/* ---- a rule ---- */

/* What a rule has brought is where its source matches, and no other rule's matches better. */
struct rule_repos {
    const struct conf *conf;
    const struct conf_rule *rule;
};

static bool is_of_rule(struct span repo, void *arg)
{
    const struct rule_repos *r = arg;
    char text[STORE_REPO_MAX + 1];
    struct str upstream_repo = STR_INIT(text);
    repo = store_repo_plain(repo);
    ptrdiff_t slash = span_find(repo, '/');
    if (slash < 0)
        return false;
    size_t host = (size_t)slash;
    const struct conf_rule *best = conf_match_source(
        r->conf, span_of(repo.p, host), span_of(repo.p + host + 1, repo.n - host - 1), &upstream_repo);
    return best != NULL && best->wildcard == r->rule->wildcard &&
           span_eq(best->registry, r->rule->registry) && span_eq(best->source_prefix, r->rule->source_prefix);
}

static const struct conf_rule *rule_named(const struct conf *conf, const char *name)
{
    for (size_t i = 0; i < conf->n_rules; i++) {
        if (span_eq(conf->rules[i].name, span_str(name)))
            return &conf->rules[i];
    }
    return NULL;
}

static unsigned purge_sources(struct store_calls *s, struct rule_repos *r, const char *name, bool force,
                              struct str *out)
{
    char prefix_text[STORE_REPO_MAX + 1], buf[512];
    struct str prefix = STR_INIT(prefix_text), why = STR_INIT(buf);
    struct store_purged purged = {0};
    str_add(&prefix, r->rule->registry);
    str_addc(&prefix, '/');
    str_add(&prefix, r->rule->source_prefix);
    struct store_repos repos = {.prefix = str_span(&prefix), .has = is_of_rule, .arg = r};
    int err = store_purge_repos(s->c.store, &repos, force, &purged, &why);
    return err != 0 ? call_no(out, 503, "%s", buf) : answer_purge(&purged, name, out);
}

static unsigned purge_rule(struct store_calls *s, const char *name, bool force, struct str *out)
{
    void *held;
    struct rule_repos r = {.conf = s->c.hold(s->c.arg, &held)};
    r.rule = rule_named(r.conf, name);
    unsigned status =
        r.rule != NULL
            ? purge_sources(s, &r, name, force, out)
            : call_no(out, 404, "no rule has the name '%s'; 'larder cache list' shows the names", name);
    s->c.release(held);
    return status;
}

unsigned call_purge(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    char text[CALL_IMAGE_MAX];
    struct str rule = STR_INIT(text);
    bool force = call_flag(query, "force");
    if (!api_optional(query, "rule", &rule, out))
        return 400;
    return rule.n > 0 ? purge_rule(s, text, force, out) : purge_image(s, query, force, out);
}
