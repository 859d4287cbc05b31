/* Sets of digests, images as sets, and what pins protect. */
#include "base/mem.h"
#include "store/pinned_int.h"

/* Manifests in indexes in indexes: deeper than this nobody builds, and a circle cannot be built at all. */
#define DEPTH_MAX 8

void digests_init(struct digests *s)
{
    map_init(&s->map);
}

void digests_free(struct digests *s)
{
    struct digest *d;
    size_t at = 0;
    while ((d = map_next(&s->map, &at)) != NULL)
        mem_free(d);
    map_free(&s->map);
}

bool digests_has(const struct digests *s, const struct digest *d)
{
    return map_get(&s->map, digest_key(d)) != NULL;
}

bool digests_add(struct digests *s, const struct digest *d)
{
    if (digests_has(s, d))
        return false;
    struct digest *own;
    NEW(own);
    *own = *d;
    map_put(&s->map, digest_key(own), own);
    return true;
}

void digests_remove(struct digests *s, const struct digest *d)
{
    mem_free(map_del(&s->map, digest_key(d)));
}

struct digest *digests_next(const struct digests *s, size_t *at)
{
    return map_next(&s->map, at);
}

static int add_image(struct digests *s, struct itxn *t, const struct digest *d, unsigned depth)
{
    struct store_ref *refs;
    size_t n;
    int rc = 0;
    if (!digests_add(s, d) || depth == DEPTH_MAX || !itxn_refs(t, d, &refs, &n))
        return 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (refs[i].role == REF_MANIFEST)
            rc = add_image(s, t, &refs[i].digest, depth + 1);
        else if (refs[i].role != REF_SUBJECT)
            (void)digests_add(s, &refs[i].digest);
    }
    mem_free(refs);
    return rc;
}

int digests_add_image(struct digests *s, struct itxn *t, const struct digest *d)
{
    return add_image(s, t, d, 0);
}

struct adding {
    struct digests *to;
    struct itxn *t;
    int rc;
};

static bool add_tagged(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    struct adding *a = arg;
    UNUSED(repo);
    UNUSED(tag);
    a->rc = digests_add_image(a->to, a->t, &is->digest);
    return a->rc == 0;
}

/* What the tag names, for whatever account. */
static int add_pinned_tag(struct pinned *p, struct itxn *t, struct span repo, struct span tag)
{
    struct adding a = {.to = &p->all, .t = t};
    int rc = itxn_each_account(t, repo, tag, add_tagged, &a);
    return rc != 0 ? rc : a.rc;
}

int pinned_load(struct pinned *p, struct itxn *t)
{
    struct db_cursor *c = NULL;
    struct span key, value;
    digests_init(&p->all);
    int rc = db_cursor_open(t->t, t->x->tables[TABLE_PINS], &c);
    if (rc == 0)
        rc = db_seek(c, span_of("", 0), &key, &value);
    while (rc == 0) {
        struct fields f;
        struct span full, repo, tag;
        struct digest d;
        if (record_open(TABLE_PINS, key, value, &f, &full) && key_split_pin(full, &repo, &tag, &d)) {
            if (repo.p == NULL)
                rc = digests_add_image(&p->all, t, &d);
            else
                rc = add_pinned_tag(p, t, repo, tag);
        }
        if (rc == 0)
            rc = db_next(c, &key, &value);
    }
    db_cursor_close(c);
    return rc == DB_NOTFOUND ? 0 : rc;
}

void pinned_free(struct pinned *p)
{
    digests_free(&p->all);
}

bool pinned_has(const struct pinned *p, const struct digest *d)
{
    return digests_has(&p->all, d);
}
