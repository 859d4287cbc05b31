/* Purging: what is told to go. */
#include "admin/store_calls_int.h"
#include "store/pin.h"

#define PURGE_AT_ONCE 200

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
    struct store_link link;
    if (image->repo[0] == 0)
        return true;
    struct store_reader *r = store_reader_new(s->c.store);
    bool has = store_get_link(r, span_str(image->repo), &image->digest, &link);
    store_reader_free(r);
    return has;
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

static unsigned rule_sources(struct store_calls *s, const char *name, struct str *prefix, bool *whole,
                             struct str *out)
{
    void *held;
    const struct conf *conf = s->c.hold(s->c.arg, &held);
    const struct conf_rule *rule = NULL;
    for (size_t i = 0; i < conf->n_rules && rule == NULL; i++) {
        if (span_eq(conf->rules[i].name, span_str(name)))
            rule = &conf->rules[i];
    }
    if (rule != NULL) {
        str_add(prefix, rule->registry);
        str_addc(prefix, '/');
        str_add(prefix, rule->source_prefix);
        *whole = !rule->wildcard;
    }
    s->c.release(held);
    return rule != NULL
               ? 200
               : call_no(out, 404, "no rule has the name '%s'; 'larder cache list' shows the names", name);
}

static void add_up(struct store_purged *sum, const struct store_purged *p)
{
    sum->tags += p->tags;
    sum->links += p->links;
    sum->objects += p->objects;
    sum->bytes += p->bytes;
    sum->pinned += p->pinned;
}

static int purge_tags_of(struct store_calls *s, struct span repo, bool force, struct store_purged *sum,
                         struct str *why)
{
    struct list_cursor cursor = {.n = 0};
    struct list_tag *tags = mem_alloc(PURGE_AT_ONCE * sizeof *tags);
    int err = 0;
    while (err == 0 && !cursor.end && !atomic_load(&s->stopping)) {
        size_t n = store_list_tags(s->c.store, repo, &cursor, tags, PURGE_AT_ONCE);
        for (size_t i = 0; i < n && err == 0; i++) {
            struct store_purged p = {0};
            if (span_eq(span_str(tags[i].repo), repo))
                err = store_purge_tag(s->c.store, repo, span_str(tags[i].tag), force, &p, why);
            add_up(sum, &p);
        }
    }
    mem_free(tags);
    return err;
}

/* What has no tag: manifests that were pulled by digest, blobs whose manifest is gone. */
static int purge_objects_of(struct store_calls *s, struct span repo, bool force, struct store_purged *sum,
                            struct str *why)
{
    struct list_cursor cursor = {.n = 0};
    struct list_link *links = mem_alloc((PURGE_AT_ONCE + 2) * sizeof *links), *owners = links + PURGE_AT_ONCE;
    int err = 0;
    while (err == 0 && !cursor.end && !atomic_load(&s->stopping)) {
        size_t n = store_list_links(s->c.store, repo, &cursor, links, PURGE_AT_ONCE);
        for (size_t i = 0; i < n && err == 0; i++) {
            struct store_purged p = {0};
            if (span_eq(span_str(links[i].repo), repo) &&
                store_links_of(s->c.store, &links[i].digest, owners, 2) == 1)
                err = store_purge_digest(s->c.store, &links[i].digest, force, &p, why);
            add_up(sum, &p);
        }
    }
    mem_free(links);
    return err;
}

static unsigned purge_rule(struct store_calls *s, const char *name, bool force, struct str *out)
{
    char prefix_text[STORE_REPO_MAX + 1], buf[512];
    struct str prefix = STR_INIT(prefix_text), why = STR_INIT(buf);
    struct store_purged purged = {0};
    bool whole = false;
    unsigned status = rule_sources(s, name, &prefix, &whole, out);
    if (status != 200)
        return status;
    int err;
    if (!whole) {
        err = store_purge_repos(s->c.store, str_span(&prefix), force, &purged, &why);
    } else {
        err = purge_tags_of(s, str_span(&prefix), force, &purged, &why);
        if (err == 0)
            err = purge_objects_of(s, str_span(&prefix), force, &purged, &why);
    }
    return err != 0 ? call_no(out, 503, "%s", buf) : answer_purge(&purged, name, out);
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
