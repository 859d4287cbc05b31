/* Source and target of a rule. Most mistakes here are image references that were pasted whole (scheme, tag, digest, no
 * registry), so each message shows the line as it would be right. */
#include "conf/rule_in.h"

#include "base/arena.h"
#include "conf/complain.h"
#include "conf/pattern.h"
#include "registry/name.h"

enum { TEXT_MAX = 1200 };

/* A tag's colon stands behind the last slash; a port's before it. -1: there is none. */
static ptrdiff_t tag_colon(struct span s)
{
    ptrdiff_t slash = span_rfind(s, '/');
    ptrdiff_t colon = span_find(span_from(s, (size_t)(slash + 1)), ':');
    return colon < 0 ? -1 : slash + 1 + colon;
}

static struct span first_part(struct span s)
{
    ptrdiff_t slash = span_find(s, '/');
    return slash < 0 ? s : span_sub(s, 0, (size_t)slash);
}

/* As Docker reads references: a registry has a dot or a port, or is "localhost". */
static bool looks_like_registry(struct span s)
{
    return span_find(s, '.') >= 0 || span_find(s, ':') >= 0 || span_eq(s, SPAN("localhost"));
}

static struct span without_scheme(struct span s)
{
    ptrdiff_t colon = span_find(s, ':');
    struct span rest = span_from(s, colon < 0 ? s.n : (size_t)colon);
    return span_starts(rest, SPAN("://")) ? span_from(rest, 3) : s;
}

/* "nginx:1.27", "nginx@sha256:..." -> "nginx" */
static struct span without_version(struct span s)
{
    ptrdiff_t at = span_find(s, '@');
    if (at >= 0)
        s = span_sub(s, 0, (size_t)at);
    ptrdiff_t colon = tag_colon(s);
    bool registry_alone =
        span_find(s, '/') < 0 && colon >= 0 && looks_like_registry(span_sub(s, 0, (size_t)colon));
    return colon >= 0 && !registry_alone ? span_sub(s, 0, (size_t)colon) : s;
}

/* NULL: registry and path are there and there is nothing else. */
static const char *source_shape(struct span s)
{
    if (without_scheme(s).n != s.n)
        return "begins with a scheme, which belongs in upstreams[].endpoints";
    if (span_find(s, '@') >= 0)
        return "ends in a digest, but a rule is for a repository with all its digests";
    if (without_version(s).n != s.n)
        return "ends in a tag, but a rule is for a repository with all its tags";
    if (!looks_like_registry(first_part(s)))
        return "does not begin with a registry's host name";
    ptrdiff_t slash = span_find(s, '/');
    return slash < 0 || (size_t)slash + 1 == s.n ? "names a registry and no repository" : NULL;
}

/* "dotnet/" before the star of "dotnet/(star)", "" before a star alone, the whole when there is none. False: a star
 * stands elsewhere. */
static bool split_star(struct span path, struct span *prefix, bool *wildcard)
{
    ptrdiff_t star = span_find(path, '*');
    *wildcard = star >= 0;
    *prefix = star >= 0 ? span_sub(path, 0, (size_t)star) : path;
    if (star < 0)
        return true;
    return (size_t)star + 1 == path.n && (prefix->n == 0 || prefix->p[prefix->n - 1] == '/');
}

/* A repository, or the part of one before a star, which stands for one character at least. */
static bool prefix_ok(struct span prefix, bool wildcard)
{
    if (!wildcard)
        return name_repo_ok(prefix);
    return prefix.n == 0 || (prefix.n < NAME_REPO_MAX && name_repo_ok(span_sub(prefix, 0, prefix.n - 1)));
}

/* The source as it would be right, as far as that can be guessed. */
static void add_corrected_source(struct str *out, struct span s)
{
    s = without_version(without_scheme(s));
    while (span_ends(s, SPAN("/")))
        s.n--;
    bool alone = span_find(s, '/') < 0;
    if (alone && s.n > 1 && span_ends(s, SPAN("*")) && looks_like_registry(s)) /* "docker.io*" */
        s.n--;
    bool registry = looks_like_registry(first_part(s));
    if (!registry)
        str_addz(out, alone && !span_eq(s, SPAN("*")) ? "docker.io/library/" : "docker.io/");
    str_add(out, s);
    if (registry && alone)
        str_addz(out, "/*");
}

/* What is shown as an example has to be taken as it stands. */
static bool path_fit(struct span path)
{
    struct span prefix;
    bool wildcard;
    return split_star(path, &prefix, &wildcard) && prefix_ok(prefix, wildcard);
}

static bool source_fit(struct span s)
{
    struct span host = first_part(s);
    char registry[NAME_REGISTRY_MAX + 1], full[NAME_REPO_MAX + sizeof "library/"];
    struct str canonical = STR_INIT(registry), repo = STR_INIT(full);
    if (source_shape(s) != NULL || !name_registry_canonical(host, &canonical))
        return false;
    struct span path = span_from(s, host.n + 1);
    if (!path_fit(path) || span_ends(path, SPAN("*")))
        return path_fit(path);
    name_repo_canonical(str_span(&canonical), path, &repo);
    return name_repo_ok(str_span(&repo));
}

static bool shown_whole(struct span s)
{
    return (size_t)complain_show_len(s) == s.n;
}

static void complain_source(struct conf_loader *l, const char *wrong)
{
    const struct schema_value *v = &l->value[KEY_RULE_source];
    char buf[TEXT_MAX];
    struct str right = STR_INIT(buf);
    add_corrected_source(&right, v->text);
    if (shown_whole(str_span(&right)) && source_fit(str_span(&right)))
        complain(l->errors, v->mark, "rules[].source: '%.*s' %s; write 'source: %.*s'", SHOW(v->text), wrong,
                 SHOW(str_span(&right)));
    else
        complain(l->errors, v->mark,
                 "rules[].source: '%.*s' %s; write registry/repository, or registry/path/* for all below",
                 SHOW(v->text), wrong);
}

/* Reads the path of a source or target; `v` is the whole value. */
static bool read_path(struct conf_loader *l, const char *key, const struct schema_value *v, struct span path,
                      struct span *prefix, bool *wildcard)
{
    if (!split_star(path, prefix, wildcard)) {
        complain(l->errors, v->mark,
                 "rules[].%s: in '%.*s' the '*' is misplaced; it stands only at the end, alone or after '/', "
                 "as in dotnet/*",
                 key, SHOW(v->text));
        return false;
    }
    if (prefix_ok(*prefix, *wildcard))
        return true;
    char buf[TEXT_MAX];
    struct str lower = STR_INIT(buf);
    for (size_t i = 0; i < prefix->n; i++)
        str_addc(&lower,
                 prefix->p[i] >= 'A' && prefix->p[i] <= 'Z' ? (char)(prefix->p[i] | 0x20) : prefix->p[i]);
    if (prefix_ok(str_span(&lower), *wildcard))
        complain(l->errors, v->mark,
                 "rules[].%s: '%.*s' has upper-case letters; repositories are lower case: '%.*s%s'", key,
                 SHOW(v->text), SHOW(str_span(&lower)), *wildcard ? "*" : "");
    else if (prefix->n + *wildcard > NAME_REPO_MAX)
        complain(l->errors, v->mark, "rules[].%s: the repository has %zu characters; at most %d are allowed",
                 key, prefix->n + *wildcard, NAME_REPO_MAX);
    else
        complain(l->errors, v->mark,
                 "rules[].%s: '%.*s' is no repository path; write parts of a-z and 0-9, with single '.', '_' "
                 "or '-' "
                 "inside them and '/' between them",
                 key, SHOW(v->text));
    return false;
}

/* What may hold a password is not taken apart, so that nothing of it is repeated. True: complained. */
static bool complain_user(struct conf_loader *l, const char *key, const struct schema_value *v,
                          const char *form)
{
    bool hides = complain_hides(v->text);
    if (hides)
        complain(l->errors, v->mark, "rules[].%s: this holds a user name or '@'; write %s only", key, form);
    return hides;
}

static bool read_source(struct conf_loader *l, struct conf_rule *r)
{
    const struct schema_value *v = &l->value[KEY_RULE_source];
    if (v->state != VALUE_SET || complain_user(l, "source", v, "registry/repository"))
        return false;
    const char *wrong = source_shape(v->text);
    if (wrong != NULL) {
        complain_source(l, wrong);
        return false;
    }
    struct span host = first_part(v->text), prefix;
    char buf[NAME_REGISTRY_MAX + 1];
    struct str registry = STR_INIT(buf);
    if (!name_registry_canonical(host, &registry)) {
        complain(l->errors, v->mark,
                 "rules[].source: '%.*s' is no registry; write a host name, and a port if it has one",
                 SHOW(host));
        return false;
    }
    if (!read_path(l, "source", v, span_from(v->text, host.n + 1), &prefix, &r->wildcard))
        return false;
    char full[NAME_REPO_MAX + sizeof "library/"];
    struct str repo = STR_INIT(full);
    if (r->wildcard)
        str_add(&repo, prefix);
    else
        name_repo_canonical(str_span(&registry), prefix, &repo);
    if (!r->wildcard && !name_repo_ok(str_span(&repo))) {
        complain(l->errors, v->mark,
                 "rules[].source: with 'library/' the repository has more than %d characters", NAME_REPO_MAX);
        return false;
    }
    r->source = arena_span(l->conf->arena, v->text);
    r->registry = arena_span(l->conf->arena, str_span(&registry));
    r->source_prefix = arena_span(l->conf->arena, str_span(&repo));
    return true;
}

static bool read_target(struct conf_loader *l, struct conf_rule *r, bool *wildcard)
{
    const struct schema_value *v = &l->value[KEY_RULE_target];
    if (v->state != VALUE_SET || complain_user(l, "target", v, "a repository path"))
        return false;
    struct span right = without_version(without_scheme(v->text)), prefix;
    while (span_starts(right, SPAN("/")))
        right = span_from(right, 1);
    while (span_ends(right, SPAN("/")))
        right.n--;
    if (right.n != v->text.n && shown_whole(right) && path_fit(right)) {
        complain(l->errors, v->mark,
                 "rules[].target: '%.*s' is no repository path: no scheme, tag, digest, or '/' at an end; "
                 "write 'target: %.*s'",
                 SHOW(v->text), SHOW(right));
        return false;
    }
    if (!read_path(l, "target", v, v->text, &prefix, wildcard))
        return false;
    r->target = arena_span(l->conf->arena, v->text);
    r->target_prefix = arena_span(l->conf->arena, prefix);
    return true;
}

bool rule_in_read(struct conf_loader *l, const struct conf_policy *defaults, struct conf_rule *r)
{
    r->policy = *defaults;
    rule_in_policy(l, SECTION_RULE, &r->policy);
    bool wildcard = false;
    bool source = read_source(l, r), target = read_target(l, r, &wildcard);
    if (!source || !target)
        return false;
    if (wildcard == r->wildcard)
        return true;
    complain(
        l->errors, l->value[KEY_RULE_target].mark,
        "rules[].target: only the %s ends in '*'; write '*' at the end of source and target, or of neither",
        wildcard ? "target" : "source");
    return false;
}

/* The list replaces what *p holds. */
static void read_immutable(struct conf_loader *l, enum schema_id key, struct conf_policy *p)
{
    const struct conf_node *list = l->value[key].node;
    struct span text, *out = arena_alloc(l->conf->arena, (list != NULL ? list->n : 1) * sizeof *out);
    p->immutable_tags = out;
    p->n_immutable_tags = 0;
    for (const struct conf_node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next) {
        if (!schema_string(l, key, node, &text))
            continue;
        const char *wrong = pattern_wrong(text);
        if (wrong != NULL)
            complain(l->errors, node->mark, "%s.immutable_tags: '%.*s' %s",
                     key == KEY_RULE_immutable_tags ? "rules[]" : "defaults", SHOW(text), wrong);
        else
            out[p->n_immutable_tags++] = arena_span(l->conf->arena, text);
    }
}

void rule_in_policy(struct conf_loader *l, enum schema_section section, struct conf_policy *p)
{
    bool rule = section == SECTION_RULE;
    const struct schema_value *v = l->value;
    const struct schema_value *tag = &v[rule ? KEY_RULE_tag_ttl : KEY_DEFAULTS_tag_ttl];
    const struct schema_value *stale = &v[rule ? KEY_RULE_stale_if_error : KEY_DEFAULTS_stale_if_error];
    const struct schema_value *negative = &v[rule ? KEY_RULE_negative_ttl : KEY_DEFAULTS_negative_ttl];
    const struct schema_value *on_404 = &v[rule ? KEY_RULE_on_upstream_404 : KEY_DEFAULTS_on_upstream_404];
    const struct schema_value *abandoned = &v[rule ? KEY_RULE_on_abandoned : KEY_DEFAULTS_on_abandoned];
    const struct schema_value *refresh = &v[rule ? KEY_RULE_refresh : KEY_DEFAULTS_refresh];
    enum schema_id immutable = rule ? KEY_RULE_immutable_tags : KEY_DEFAULTS_immutable_tags;
    if (!rule || tag->state == VALUE_SET)
        p->tag_ttl_ms = tag->n;
    if (!rule || stale->state == VALUE_SET)
        p->stale_if_error_ms = stale->n;
    if (!rule || negative->state == VALUE_SET)
        p->negative_ttl_ms = negative->n;
    if (!rule || on_404->state == VALUE_SET)
        p->serve_on_404 = on_404->n == 0;
    if (!rule || abandoned->state == VALUE_SET)
        p->on_abandoned = (enum conf_abandoned)abandoned->n;
    if (!rule || refresh->state == VALUE_SET)
        p->refresh = (enum conf_refresh)refresh->n;
    if (!rule || v[immutable].state == VALUE_SET)
        read_immutable(l, immutable, p);
}
