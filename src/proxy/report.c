/* See report.h. The index is read with a reader of its own for each report, as the cores' are theirs. */
#include "proxy/report.h"

#include "base/mem.h"
#include "conf/match.h"
#include "proxy/proxy_int.h"
#include "proxy/secrets.h"
#include "registry/name.h"

static void text_field(struct str *out, const char *name, struct span text)
{
    str_addf(out, ",\"%s\":", name);
    if (text.p == NULL) {
        str_add(out, SPAN("null"));
        return;
    }
    str_addc(out, '"');
    str_addjson(out, text);
    str_addc(out, '"');
}

static void first_text_field(struct str *out, const char *name, struct span text)
{
    str_addf(out, "{\"%s\":\"", name);
    str_addjson(out, text);
    str_addc(out, '"');
}

/* ---- credential sets, upstreams ---- */

static void one_set(struct secrets *secrets, const struct conf_credential_set *set, struct str *out)
{
    struct credential_health h;
    credential_health(secrets, set, &h);
    first_text_field(out, "name", set->name);
    text_field(out, "login_server", set->login_server);
    str_addf(out, ",\"healthy\":%s,\"since_ms\":%lld,\"checked_ms\":%lld,\"refused\":%llu",
             h.healthy ? "true" : "false", (long long)h.since_ms, (long long)h.checked_ms,
             (unsigned long long)h.refused);
    text_field(out, "why", h.why[0] != 0 ? span_str(h.why) : SPAN_NONE);
    str_addc(out, '}');
}

void report_credential_sets(struct proxy_shared *s, struct str *out)
{
    struct setup *setup = proxy_setup(s);
    const struct conf *conf = setup_conf(setup);
    str_add(out, SPAN("{\"credential_sets\":["));
    for (size_t i = 0; i < conf->n_credential_sets; i++) {
        if (i > 0)
            str_addc(out, ',');
        one_set(setup_secrets(setup), &conf->credential_sets[i], out);
    }
    str_add(out, SPAN("]}\n"));
    setup_unref(setup);
}

static void one_upstream(const struct setup *setup, const struct conf_upstream *up, struct str *out)
{
    struct upstream_health *h = setup_health(setup, up);
    int failures = atomic_load_explicit(&h->failures, memory_order_relaxed);
    int err = atomic_load_explicit(&h->err, memory_order_relaxed);
    int64_t left = atomic_load_explicit(&h->down_until_ms, memory_order_relaxed) - clock_mono_ms();
    first_text_field(out, "registry", up->registry);
    str_addf(out, ",\"available\":%s,\"failures\":%d,\"retry_in_ms\":%lld", left <= 0 ? "true" : "false",
             failures, (long long)(left > 0 ? left : 0));
    text_field(out, "last_error", failures > 0 || left > 0 ? span_str(err_words(err)) : SPAN_NONE);
    str_addc(out, '}');
}

void report_upstreams(struct proxy_shared *s, struct str *out)
{
    struct setup *setup = proxy_setup(s);
    const struct conf *conf = setup_conf(setup);
    str_add(out, SPAN("{\"upstreams\":["));
    for (size_t i = 0; i < conf->n_upstreams; i++) {
        if (i > 0)
            str_addc(out, ',');
        one_upstream(setup, &conf->upstreams[i], out);
    }
    str_add(out, SPAN("]}\n"));
    setup_unref(setup);
}

#define TROUBLES_MAX 50

static void list_name(struct str *out, struct span name, unsigned *n)
{
    if ((*n)++ >= TROUBLES_MAX)
        return;
    str_addz(out, *n > 1 ? ",\"" : "\"");
    str_addjson(out, name);
    str_addc(out, '"');
}

void report_troubles(struct proxy_shared *s, struct str *out)
{
    struct setup *setup = proxy_setup(s);
    const struct conf *conf = setup_conf(setup);
    struct credential_health h;
    unsigned n_down = 0, n_bad = 0;
    bool *down = upstreams_down(setup);
    str_add(out, SPAN("\"upstreams_down\":["));
    for (size_t i = 0; i < conf->n_upstreams; i++) {
        if (down[i])
            list_name(out, conf->upstreams[i].registry, &n_down);
    }
    str_add(out, SPAN("],\"credential_sets_unhealthy\":["));
    for (size_t i = 0; i < conf->n_credential_sets; i++) {
        credential_health(setup_secrets(setup), &conf->credential_sets[i], &h);
        if (!h.healthy)
            list_name(out, conf->credential_sets[i].name, &n_bad);
    }
    str_addc(out, ']');
    mem_free(down);
    setup_unref(setup);
}

/* ---- an image ---- */

struct image {
    const struct conf_rule *rule;
    struct digest digest; /* DIGEST_NONE: not known */
    struct span reference;
    bool by_tag;
    struct store_tag tag; /* by_tag and known */
    bool linked, stored;
    struct store_link link;
    struct store_object object;
};

static void look_up(struct store_reader *r, struct span repo_key, struct span reference, struct image *image)
{
    image->reference = reference;
    image->by_tag = digest_parse(reference, &image->digest) != DIGEST_OK;
    if (image->by_tag) {
        image->digest.alg = DIGEST_NONE;
        if (!store_get_tag(r, repo_key, reference, &image->tag))
            return;
        image->digest = image->tag.digest;
    }
    image->linked = store_get_link(r, repo_key, &image->digest, &image->link);
    image->stored = store_get_object(r, &image->digest, &image->object);
}

/* What the next pull leads to: the same decisions as serve.c's, in words. */
static const char *what_next(const struct image *i, bool fresh, bool stale_allowed)
{
    if (i->digest.alg == DIGEST_NONE)
        return "the registry is asked for the manifest";
    if (!i->stored)
        return "the registry is asked for the manifest: it is not in the store";
    if (!i->by_tag)
        return i->linked
                   ? "served from the store; the registry is not asked"
                   : "the registry is asked whether this repository has it, then it is served from the store";
    if (fresh)
        return "served from the store; the registry is not asked";
    return stale_allowed
               ? "the registry is asked whether the tag has moved; if it fails, what is stored is served"
               : "the registry is asked whether the tag has moved";
}

static void image_json(const struct image *i, struct str *out)
{
    char digest[DIGEST_TEXT_MAX];
    int64_t age = clock_wall_ms() - i->tag.checked_ms, fresh_for = i->rule->policy.tag_ttl_ms - age;
    if (i->by_tag && i->tag.others && fresh_for > 0) /* as in serve.c */
        fresh_for = 0;
    bool known = i->digest.alg != DIGEST_NONE;
    const struct conf_policy *p = &i->rule->policy;
    bool immutable = i->by_tag && conf_tag_immutable(p, i->reference);
    const char *media = i->by_tag && known ? i->tag.media : i->linked ? i->link.media : "";
    text_field(out, "digest", known ? span_str(digest_text(&i->digest, digest)) : SPAN_NONE);
    text_field(out, "media_type", media[0] != 0 ? span_str(media) : SPAN_NONE);
    str_addf(out, ",\"stored\":%s", i->stored ? "true" : "false");
    if (i->stored)
        str_addf(out, ",\"size\":%llu", (unsigned long long)i->object.size);
    if (i->by_tag && known)
        str_addf(out, ",\"checked_ms\":%lld", (long long)i->tag.checked_ms);
    if (i->by_tag && known && !immutable)
        str_addf(out, ",\"fresh_for_ms\":%lld", (long long)fresh_for);
    text_field(out, "next",
               span_str(what_next(i, immutable || fresh_for > 0, -fresh_for < p->stale_if_error_ms)));
    str_add(out, SPAN("}\n"));
}

bool report_image(struct proxy_shared *s, struct span ns, struct span repository, struct span reference,
                  struct str *out)
{
    char repo_text[NAME_REPO_MAX + 1], key_text[REPO_KEY_MAX];
    struct str repo = STR_INIT(repo_text), key = STR_INIT(key_text);
    struct image image = {.digest = {.alg = DIGEST_NONE}};
    struct setup *setup = proxy_setup(s);
    const struct conf *conf = setup_conf(setup);
    image.rule = proxy_match(conf, ns, repository, &repo, &key);
    if (image.rule != NULL) {
        struct store_reader *r = store_reader_new(s->store);
        look_up(r, str_span(&key), reference, &image);
        store_reader_free(r);
        first_text_field(out, "rule", image.rule->name);
        image_json(&image, out);
    }
    setup_unref(setup);
    return image.rule != NULL;
}
