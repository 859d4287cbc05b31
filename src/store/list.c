/* What is in the store, step by step, and images as a whole. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"
#include "store/list.h"
#include "store/pinned_int.h"

/* ---- steps ---- */

struct walk {
    struct itxn t;
    struct db_cursor *c;
    struct list_cursor *at;
    struct span key, value;
    unsigned looked;
    int rc;
};

/* The first entry behind where the cursor is, or from `first` on. False: there is none; walk_end all the same. */
static bool walk_begin(struct walk *w, struct store *s, enum table table, struct span first,
                       struct list_cursor *at)
{
    unsigned char from[sizeof at->key + 1];
    *w = (struct walk){.at = at};
    w->rc = itxn_read(s->index, &w->t);
    if (w->rc == 0)
        w->rc = db_cursor_open(w->t.t, w->t.x->tables[table], &w->c);
    if (at->n > 0) {
        memcpy(from, at->key, at->n);
        from[at->n] = 0;
        first = span_of((const char *)from, at->n + 1);
    }
    if (w->rc == 0)
        w->rc = db_seek(w->c, first, &w->key, &w->value);
    return w->rc == 0;
}

/* The entry has been dealt with. False: there is no next one, or this was enough. */
static bool walk_next(struct walk *w, bool enough)
{
    MUST(w->key.n <= sizeof w->at->key);
    memcpy(w->at->key, w->key.p, w->key.n);
    w->at->n = w->key.n;
    if (enough || ++w->looked == LIST_STEP)
        return false;
    w->rc = db_next(w->c, &w->key, &w->value);
    return w->rc == 0;
}

static void walk_end(struct walk *w)
{
    w->at->end = w->at->end || w->rc != 0;
    db_cursor_close(w->c);
    itxn_end(&w->t);
}

static void put_text(char *out, struct span text)
{
    memcpy(out, text.p, text.n);
    out[text.n] = '\0';
}

static bool read_tag(struct walk *w, struct span prefix, struct list_tag *out)
{
    struct fields f;
    struct span full, repo, tag;
    struct store_tag is;
    if (!record_open(TABLE_TAGS, w->key, w->value, &f, &full) || !record_tag(&f, &is) ||
        !key_split_tag(full, &repo, &tag) || !span_starts(repo, prefix))
        return false;
    put_text(out->repo, repo);
    put_text(out->tag, tag);
    memcpy(out->media, is.media, sizeof out->media);
    out->digest = is.digest;
    out->checked_ms = is.checked_ms;
    return true;
}

/* Tables sort hashed keys (01) before all names, but the names are to come first. So: names from the prefix on, and when they end the
 * hashed ones; a cursor on a hashed key is in the second part. */
size_t store_list_tags(struct store *s, struct span prefix, struct list_cursor *cursor, struct list_tag *out,
                       size_t max)
{
    struct walk w;
    size_t n = 0;
    bool hashed = cursor->n > 0 && cursor->key[0] == 1;
    if (cursor->end || max == 0)
        return 0;
    bool more = walk_begin(&w, s, TABLE_TAGS, prefix.n > 0 ? prefix : SPAN("\x02"), cursor);
    while (more) {
        if (hashed ? w.key.p[0] != 1 : !span_starts(w.key, prefix)) {
            w.rc = DB_NOTFOUND;
            break;
        }
        n += read_tag(&w, prefix, &out[n]);
        more = walk_next(&w, n == max);
    }
    if (!hashed && w.rc == DB_NOTFOUND) { /* on with the others */
        cursor->key[0] = 1;
        cursor->n = 1;
        w.rc = 0;
    }
    walk_end(&w);
    return n;
}

size_t store_list_objects(struct store *s, unsigned kinds, struct list_cursor *cursor,
                          struct list_object *out, size_t max)
{
    struct walk w;
    size_t n = 0;
    if (cursor->end || max == 0)
        return 0;
    bool more = walk_begin(&w, s, TABLE_POOL, span_of("", 0), cursor);
    while (more) {
        struct fields f;
        struct span full;
        struct pool_entry e;
        if (key_split_digest(w.key, &out[n].digest) && record_open(TABLE_POOL, w.key, w.value, &f, &full) &&
            record_object(&f, &e) && (kinds & 1u << e.o.kind) != 0) {
            e.o.suspect = index_is_suspect(s->index, &e);
            out[n++].object = e.o;
        }
        more = walk_next(&w, n == max);
    }
    walk_end(&w);
    return n;
}

static bool read_link(struct walk *w, struct span prefix, struct list_link *out)
{
    struct fields f;
    struct span full, repo;
    struct store_link link;
    if (!record_open(TABLE_OWNERS, w->key, w->value, &f, &full) || !record_owner(&f, &link) ||
        !key_split_owner(full, &out->digest, &repo) || !span_starts(repo, prefix))
        return false;
    put_text(out->repo, repo);
    memcpy(out->media, link.media, sizeof out->media);
    return true;
}

size_t store_list_links(struct store *s, struct span prefix, struct list_cursor *cursor,
                        struct list_link *out, size_t max)
{
    struct walk w;
    size_t n = 0;
    if (cursor->end || max == 0)
        return 0;
    bool more = walk_begin(&w, s, TABLE_OWNERS, span_of("", 0), cursor);
    while (more) {
        n += read_link(&w, prefix, &out[n]);
        more = walk_next(&w, n == max);
    }
    walk_end(&w);
    return n;
}

/* ---- whatever account has seen it ---- */

bool store_any_tag(struct store *s, struct span repo, struct span tag, struct store_tag *out)
{
    struct itxn t;
    if (repo.n > STORE_REPO_MAX || tag.n > STORE_TAG_MAX)
        return false;
    bool found = itxn_read(s->index, &t) == 0 && itxn_any_tag(&t, repo, tag, out);
    itxn_end(&t);
    return found;
}

struct owner_search {
    struct span repo;
    bool found;
};

static bool is_owner(struct span repo, const struct store_link *link, void *arg)
{
    struct owner_search *o = arg;
    UNUSED(link);
    o->found = span_eq(store_repo_plain(repo), o->repo);
    return !o->found;
}

bool store_any_link(struct store *s, struct span repo, const struct digest *d)
{
    struct owner_search o = {.repo = repo};
    struct itxn t;
    bool read = itxn_read(s->index, &t) == 0 && itxn_each_owner(&t, d, is_owner, &o) == 0;
    itxn_end(&t);
    return read && o.found;
}

/* ---- images ---- */

#define DEPTH_MAX 8

struct looking {
    struct itxn *t;
    struct digests seen;
    struct store_image *image;
};

/* Counts it once. Is it here? */
static bool look_at_object(struct looking *l, const struct digest *d, uint64_t size)
{
    struct pool_entry e;
    bool here = itxn_object(l->t, d, &e);
    if (!digests_add(&l->seen, d))
        return here;
    l->image->objects++;
    l->image->bytes += here ? e.o.size : size;
    l->image->here += here;
    l->image->bytes_here += here ? e.o.size : 0;
    return here;
}

/* The manifest itself has been counted. */
static void look_below(struct looking *l, const struct digest *d, bool here, unsigned depth)
{
    struct store_ref *refs;
    size_t n;
    bool leaf = true, whole = here;
    if (depth == DEPTH_MAX || !itxn_refs(l->t, d, &refs, &n)) {
        l->image->manifests++;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (refs[i].role == REF_SUBJECT)
            continue;
        bool again = digests_has(&l->seen, &refs[i].digest);
        bool child = look_at_object(l, &refs[i].digest, refs[i].size);
        whole = whole && child;
        leaf = leaf && refs[i].role != REF_MANIFEST;
        if (refs[i].role == REF_MANIFEST && !again)
            look_below(l, &refs[i].digest, child, depth + 1);
    }
    mem_free(refs);
    if (!leaf)
        return;
    l->image->manifests++;
    l->image->complete += whole;
}

struct pinned *store_pinned(struct store *s)
{
    struct pinned *p;
    struct itxn t;
    NEW(p);
    digests_init(&p->all);
    if (itxn_read(s->index, &t) != 0)
        return p;
    if (pinned_load(p, &t) != 0)
        log_warn("store", "what is pinned could not be read in full");
    itxn_end(&t);
    return p;
}

void store_pinned_free(struct pinned *p)
{
    if (p == NULL)
        return;
    pinned_free(p);
    mem_free(p);
}

bool store_image(struct store *s, const struct digest *d, const struct pinned *pins, struct store_image *out)
{
    struct looking l = {.image = out};
    struct pool_entry e;
    struct key k;
    struct itxn t;
    *out = (struct store_image){.kind = STORE_MANIFEST};
    if (itxn_read(s->index, &t) != 0)
        return false;
    l.t = &t;
    key_of_object(&k, TABLE_REFS, d);
    out->known = itxn_has(&t, &k);
    bool found = itxn_object(&t, d, &e) && (out->known || e.o.kind >= STORE_MANIFEST);
    if (found) {
        out->kind = e.o.kind;
        out->stored_ms = e.o.stored_ms;
        out->access_ms = e.o.access_ms;
        out->hits = e.o.hits;
        digests_init(&l.seen);
        (void)look_at_object(&l, d, e.o.size);
        look_below(&l, d, true, 0);
        digests_free(&l.seen);
        out->pinned = pins != NULL && pinned_has(pins, d);
    }
    itxn_end(&t);
    return found;
}
