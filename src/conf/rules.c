/* Which rule is for a repository.
 *
 * Four hash tables: by target and by source, each for rules without and with a wildcard. A wildcard is entered under
 * what stands before its star ("dotnet/", or "" for a star alone), a source under "registry/" and its path. A look-up
 * tries the whole name, then cuts it behind each slash from the right: at most one probe for each part of the name,
 * however many rules there are, and the longest prefix is met first.
 *
 * Targets are unique and their wildcards do not overlap, which the compiler checks by the same look-ups. Sources may be
 * shared: the first rule of the file is the one that is entered. */
#include "conf/rules.h"

#include "base/arena.h"
#include "base/map.h"
#include "base/mem.h"
#include "conf/complain.h"
#include "registry/name.h"

struct conf_rules {
    struct map target, target_wild;
    struct map source, source_wild;
};

enum { SOURCE_KEY_MAX = NAME_REGISTRY_MAX + 1 + NAME_REPO_MAX + 1 };

/* The rule whose prefix is the longest that `name` goes on after; a star stands for at least one character. */
static const struct conf_rule *find_prefix(const struct map *wild, struct span name)
{
    for (size_t i = name.n; i-- > 0;) {
        if (name.p[i] != '/' || i + 1 == name.n)
            continue;
        const struct conf_rule *r = map_get(wild, span_sub(name, 0, i + 1));
        if (r != NULL)
            return r;
    }
    return name.n > 0 ? map_get(wild, SPAN("")) : NULL;
}

static const struct conf_rule *find(const struct map *fixed, const struct map *wild, struct span name)
{
    const struct conf_rule *r = map_get(fixed, name);
    return r != NULL ? r : find_prefix(wild, name);
}

/* The map holds pointers to what it may change; rules are never changed through it. */
static void enter(struct map *m, struct span key, const struct conf_rule *r)
{
    map_put(m, key, (void *)(uintptr_t)r);
}

static void enter_target(struct conf *c, const struct conf_rule *r, struct conf_mark at,
                         struct conf_errors *errors)
{
    struct map *m = r->wildcard ? &c->compiled->target_wild : &c->compiled->target;
    const struct conf_rule *other = map_get(m, r->target_prefix);
    if (other == NULL) {
        enter(m, r->target_prefix, r);
        return;
    }
    complain(errors, at,
             "rule '%.*s' (line %u) has the target '%.*s' of rule '%.*s' (line %u); give one of them another "
             "target",
             SHOW(r->name), r->mark.line, SHOW(r->target), SHOW(other->name), other->mark.line);
}

static void enter_source(struct conf *c, const struct conf_rule *r)
{
    char buf[SOURCE_KEY_MAX];
    struct str key = STR_INIT(buf);
    str_add(&key, r->registry);
    str_addc(&key, '/');
    str_add(&key, r->source_prefix);
    MUST(!key.cut);
    struct map *m = r->wildcard ? &c->compiled->source_wild : &c->compiled->source;
    if (map_get(m, str_span(&key)) == NULL)
        enter(m, arena_span(c->arena, str_span(&key)), r);
}

/* Reported at whichever of the two stands farther down. */
static void check_nested(const struct conf *c, const struct conf_rule *inner, const struct conf_mark *targets,
                         struct conf_errors *errors)
{
    const struct conf_rule *outer = find_prefix(&c->compiled->target_wild, inner->target_prefix);
    if (outer == NULL)
        return;
    const struct conf_rule *second = inner->index > outer->index ? inner : outer;
    const struct conf_rule *first = second == inner ? outer : inner;
    complain(errors, targets[second->index],
             "the wildcard target '%.*s' of rule '%.*s' (line %u) overlaps '%.*s' of rule '%.*s' (line %u); "
             "move one of "
             "them elsewhere",
             SHOW(second->target), SHOW(second->name), second->mark.line, SHOW(first->target),
             SHOW(first->name), first->mark.line);
}

void rules_compile(struct conf *c, const struct conf_mark *targets, struct conf_errors *errors)
{
    NEW(c->compiled);
    map_init(&c->compiled->target);
    map_init(&c->compiled->target_wild);
    map_init(&c->compiled->source);
    map_init(&c->compiled->source_wild);
    for (size_t i = 0; i < c->n_rules; i++) {
        enter_target(c, &c->rules[i], targets[i], errors);
        enter_source(c, &c->rules[i]);
    }
    for (size_t i = 0; i < c->n_rules; i++)
        if (c->rules[i].wildcard)
            check_nested(c, &c->rules[i], targets, errors);
}

void rules_free(struct conf_rules *r)
{
    if (r == NULL)
        return;
    map_free(&r->target);
    map_free(&r->target_wild);
    map_free(&r->source);
    map_free(&r->source_wild);
    mem_free(r);
}

const struct conf_rule *conf_match_target(const struct conf *c, struct span repo, struct str *upstream_repo)
{
    str_reset(upstream_repo);
    const struct conf_rule *r = find(&c->compiled->target, &c->compiled->target_wild, repo);
    if (r == NULL)
        return NULL;
    char buf[NAME_REPO_MAX + 1];
    struct str mapped = STR_INIT(buf);
    str_add(&mapped, r->source_prefix);
    if (r->wildcard)
        str_add(&mapped, span_from(repo, r->target_prefix.n));
    const struct known_registry *known = r->upstream->known; /* on the hot path: no look-up by name */
    if (known != NULL && known->library && span_find(str_span(&mapped), '/') < 0)
        str_add(upstream_repo, SPAN("library/"));
    str_add(upstream_repo, str_span(&mapped));
    bool ok = !mapped.cut && !upstream_repo->cut && name_repo_ok(str_span(upstream_repo));
    return ok ? r : NULL;
}

const struct conf_rule *conf_match_source(const struct conf *c, struct span ns, struct span repo,
                                          struct str *upstream_repo)
{
    str_reset(upstream_repo);
    char registry_buf[NAME_REGISTRY_MAX + 1], key_buf[SOURCE_KEY_MAX];
    struct str registry = STR_INIT(registry_buf), key = STR_INIT(key_buf);
    if (!name_registry_canonical(ns, &registry))
        return NULL;
    name_repo_canonical(str_span(&registry), repo, upstream_repo);
    if (upstream_repo->cut || !name_repo_ok(str_span(upstream_repo)))
        return NULL;
    str_add(&key, str_span(&registry));
    str_addc(&key, '/');
    str_add(&key, str_span(upstream_repo));
    MUST(!key.cut);
    return find(&c->compiled->source, &c->compiled->source_wild, str_span(&key));
}

bool conf_names_target(const struct conf *c, struct span ns, struct span repo, struct span upstream_repo)
{
    char registry_buf[NAME_REGISTRY_MAX + 1], meant_buf[NAME_REPO_MAX + 1];
    struct str registry = STR_INIT(registry_buf), meant = STR_INIT(meant_buf);
    const struct conf_rule *r = conf_match_target(c, repo, &meant);
    if (r == NULL || !name_registry_canonical(ns, &registry) || !span_eq(r->registry, str_span(&registry)) ||
        span_eq(str_span(&meant), upstream_repo))
        return false;
    if (r->wildcard)
        return r->target_prefix.n > 0;
    /* Of one repository: only what is in front of its whole name is a path that a client adds. */
    return repo.n > meant.n && repo.p[repo.n - meant.n - 1] == '/' &&
           span_eq(span_from(repo, repo.n - meant.n), str_span(&meant));
}
