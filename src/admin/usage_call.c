/* Who uses the store: bytes by rule or by repository.
 *
 * One pass over all links, which come by digest. What a digest's links lead to are its groups; its size counts once in each of them, and
 * as shared when they are several. The pass is made of the store's steps, so it holds nothing for long, and it is made anew for each
 * page: what is kept between two calls would be as large as the store has repositories. */
#include <stdlib.h>

#include "admin/store_calls_int.h"
#include "base/arena.h"
#include "base/map.h"

#define LINKS_AT_ONCE 1000

struct group {
    struct span name; /* "": no rule */
    uint64_t objects, bytes, shared;
    uint64_t seen; /* number of the digest that was counted last */
};

struct usage {
    struct store_calls *s;
    const struct conf *conf; /* by rule; NULL: by repository */
    struct store_reader *reader;
    struct arena *arena;
    struct map groups;
    /* the digest at hand */
    struct digest digest;
    uint64_t number; /* of digests so far */
    struct group **in;
    size_t n_in, cap_in;
    uint64_t objects, bytes; /* that have links */
};

static struct group *group_of(struct usage *u, struct span repo)
{
    char buf[STORE_REPO_MAX + 1];
    struct str client = STR_INIT(buf);
    struct span name = store_repo_plain(repo);
    if (u->conf != NULL) {
        const struct conf_rule *rule = names_rule(u->conf, repo, &client);
        name = rule != NULL ? rule->name : SPAN("");
    }
    struct group *g = map_get(&u->groups, name);
    if (g != NULL)
        return g;
    g = arena_alloc(u->arena, sizeof *g);
    g->name = arena_span(u->arena, name);
    map_put(&u->groups, g->name, g);
    return g;
}

/* All links of the digest at hand have been seen. */
static void end_digest(struct usage *u)
{
    struct store_object o;
    size_t n = u->n_in;
    u->n_in = 0;
    if (n == 0 || !store_get_object(u->reader, &u->digest, &o))
        return;
    u->objects++;
    u->bytes += o.size;
    for (size_t i = 0; i < n; i++) {
        u->in[i]->objects++;
        u->in[i]->bytes += o.size;
        u->in[i]->shared += n > 1 ? o.size : 0;
    }
}

static void add_link(struct usage *u, const struct list_link *l)
{
    if (u->n_in == 0 || !digest_eq(&l->digest, &u->digest)) {
        end_digest(u);
        u->digest = l->digest;
        u->number++;
    }
    struct group *g = group_of(u, span_str(l->repo));
    if (g->seen == u->number)
        return;
    g->seen = u->number;
    if (u->n_in == u->cap_in) {
        u->cap_in = u->cap_in == 0 ? 16 : 2 * u->cap_in;
        u->in = mem_realloc(u->in, u->cap_in * sizeof(struct group *));
    }
    u->in[u->n_in++] = g;
}

/* False: larder stops. */
static bool count(struct usage *u)
{
    struct list_cursor cursor = {.n = 0};
    struct list_link *links = mem_alloc(LINKS_AT_ONCE * sizeof *links);
    while (!cursor.end && !atomic_load(&u->s->stopping)) {
        size_t n = store_list_links(u->s->c.store, SPAN(""), &cursor, links, LINKS_AT_ONCE);
        for (size_t i = 0; i < n; i++)
            add_link(u, &links[i]);
    }
    end_digest(u);
    mem_free(links);
    return cursor.end;
}

/* ---- the answer ---- */

static int compare_names(struct span a, struct span b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int compare_groups(const void *a, const void *b)
{
    const struct group *const *x = a, *const *y = b;
    return compare_names((*x)->name, (*y)->name);
}

static void add_groups(struct usage *u, struct span after, struct str *out)
{
    struct group **all = mem_alloc((u->groups.used + 1) * sizeof(struct group *)), *g;
    size_t n = 0, pos = 0, i = 0, told = 0;
    while ((g = map_next(&u->groups, &pos)) != NULL)
        all[n++] = g;
    qsort(all, n, sizeof(struct group *), compare_groups);
    while (after.p != NULL && i < n && compare_names(all[i]->name, after) <= 0)
        i++;
    member_name(out, "groups");
    str_addc(out, '[');
    for (; i < n && told < PAGE_ENTRIES; i++, told++) {
        member_comma(out);
        str_addc(out, '{');
        member_text(out, "name", all[i]->name.n > 0 ? all[i]->name : SPAN_NONE);
        member_count(out, "objects", all[i]->objects);
        member_count(out, "bytes", all[i]->bytes);
        member_count(out, "shared_bytes", all[i]->shared);
        str_addc(out, '}');
    }
    str_addc(out, ']');
    if (i < n)
        member_text(out, "next", all[i - 1]->name);
    mem_free(all);
}

static void add_totals(struct usage *u, const struct conf *conf, struct str *out)
{
    struct store_totals t;
    store_totals(u->s->c.store, &t);
    member_count(out, "linked_objects", u->objects);
    member_count(out, "linked_bytes", u->bytes);
    member_count(out, "objects", t.objects);
    member_count(out, "bytes", t.bytes);
    member_count(out, "partials", t.partials);
    member_count(out, "partial_bytes", t.partial_bytes);
    member_count(out, "quarantined", t.quarantined);
    member_count(out, "quarantined_bytes", t.quarantined_bytes);
    member_count(out, "used", t.used);
    member_count(out, "max_size", conf->store.max_size);
}

unsigned call_usage(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    char by_text[16], after_text[STORE_REPO_MAX + 1];
    struct str by = STR_INIT(by_text), after = STR_INIT(after_text);
    void *held;
    if (!api_optional(query, "by", &by, out))
        return 400;
    if (!api_optional(query, "after", &after, out))
        return 400;
    bool by_rule = span_eq(str_span(&by), SPAN("rule"));
    if (!by_rule && !span_eq(str_span(&by), SPAN("repository")))
        return call_no(out, 400, "the parameter by is rule or repository");
    const struct conf *conf = s->c.hold(s->c.arg, &held);
    struct usage u = {.s = s, .conf = by_rule ? conf : NULL, .arena = arena_new()};
    u.reader = store_reader_new(s->c.store);
    map_init(&u.groups);
    bool counted = count(&u);
    str_addc(out, '{');
    add_groups(&u, api_given(query, SPAN("after")) ? str_span(&after) : SPAN_NONE, out);
    add_totals(&u, conf, out);
    str_addz(out, "}\n");
    map_free(&u.groups);
    mem_free(u.in);
    arena_free(u.arena);
    store_reader_free(u.reader);
    s->c.release(held);
    return counted ? 200 : call_no(out, 503, "larder is stopping");
}
