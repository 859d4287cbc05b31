/* Pins and purges.
 *
 * A purge works in batches as eviction does: under s->evict, claim, forget in one transaction, unlink, unclaim. Readers do not
 * matter: they keep what they have open. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/pin.h"
#include "store/pinned_int.h"

#define BATCH 100

static int fail(const struct store *s, struct str *why, const char *what, int rc)
{
    str_addf(why, "cannot %s in the index %s/index: %s", what, s->path, db_words(rc));
    return ERR_STORE;
}

/* ---- pins ---- */

static int change_pin(struct store *s, const struct key *k, bool pin, bool *found, struct str *why)
{
    struct itxn t;
    struct record r;
    pthread_mutex_lock(&s->evict); /* what is pinned by now is not being evicted any more */
    int rc = itxn_write(s->index, &t);
    if (rc != 0) {
        pthread_mutex_unlock(&s->evict);
        return fail(s, why, "change a pin", rc);
    }
    *found = itxn_has(&t, k);
    record_of_pin(&r, k, clock_wall_ms());
    if (pin && !*found)
        rc = itxn_put(&t, k, &r);
    if (!pin)
        rc = itxn_del(&t, k);
    if (rc == 0)
        rc = itxn_commit(&t);
    else
        itxn_end(&t);
    pthread_mutex_unlock(&s->evict);
    return rc != 0 ? fail(s, why, "change a pin", rc) : 0;
}

static int pin_key(struct key *k, struct span repo, struct span tag, struct str *why)
{
    if (repo.n == 0 || repo.n > STORE_REPO_MAX || tag.n == 0 || tag.n > STORE_TAG_MAX) {
        str_addz(why, "a repository and a tag are wanted");
        return ERR_STORE;
    }
    key_of_pin(k, repo, tag);
    return 0;
}

int store_pin_tag(struct store *s, struct span repo, struct span tag, struct str *why)
{
    struct key k;
    bool found;
    int err = pin_key(&k, repo, tag, why);
    return err != 0 ? err : change_pin(s, &k, true, &found, why);
}

int store_pin_digest(struct store *s, const struct digest *d, struct str *why)
{
    struct key k;
    bool found;
    key_of_pinned_digest(&k, d);
    return change_pin(s, &k, true, &found, why);
}

int store_unpin_tag(struct store *s, struct span repo, struct span tag, bool *found, struct str *why)
{
    struct key k;
    int err = pin_key(&k, repo, tag, why);
    return err != 0 ? err : change_pin(s, &k, false, found, why);
}

int store_unpin_digest(struct store *s, const struct digest *d, bool *found, struct str *why)
{
    struct key k;
    key_of_pinned_digest(&k, d);
    return change_pin(s, &k, false, found, why);
}

/* False: damaged. */
static bool read_pin(struct itxn *t, struct span key, struct span value, struct store_pin *out)
{
    struct fields f;
    struct span full, repo, tag;
    struct store_tag is;
    *out = (struct store_pin){.since_ms = 0};
    if (!record_open(TABLE_PINS, key, value, &f, &full) || !record_pin(&f, &out->since_ms) ||
        !key_split_pin(full, &repo, &tag, &out->digest))
        return false;
    if (repo.p == NULL)
        return true;
    memcpy(out->repo, repo.p, repo.n);
    memcpy(out->tag, tag.p, tag.n);
    out->digest = itxn_any_tag(t, repo, tag, &is) ? is.digest : (struct digest){.alg = DIGEST_NONE};
    return true;
}

int store_each_pin(struct store *s, bool (*each)(const struct store_pin *pin, void *arg), void *arg)
{
    struct db_cursor *c = NULL;
    struct span key, value;
    struct store_pin pin;
    struct itxn t;
    int rc = itxn_read(s->index, &t);
    if (rc == 0)
        rc = db_cursor_open(t.t, t.x->tables[TABLE_PINS], &c);
    if (rc == 0)
        rc = db_seek(c, span_of("", 0), &key, &value);
    while (rc == 0) {
        if (read_pin(&t, key, value, &pin) && !each(&pin, arg))
            break;
        rc = db_next(c, &key, &value);
    }
    db_cursor_close(c);
    itxn_end(&t);
    return rc == 0 || rc == DB_NOTFOUND ? 0 : ERR_STORE;
}

/* ---- purging ---- */

struct batch {
    struct digest digests[BATCH];
    uint64_t sizes[BATCH];
    size_t n;
};

/* Those that were claimed; the rest is on its way into the index just now. */
static void claim_batch(struct store *s, struct itxn *t, struct batch *b)
{
    size_t kept = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct pool_entry e;
        if (!hold_claim(s, &b->digests[i], true))
            continue;
        b->sizes[kept] = itxn_object(t, &b->digests[i], &e) ? e.o.size : UINT64_MAX;
        b->digests[kept++] = b->digests[i];
    }
    b->n = kept;
}

static void end_batch(struct store *s, struct batch *b, bool forgotten, struct store_purged *out)
{
    for (size_t i = 0; i < b->n; i++) {
        if (forgotten)
            evict_unlink(s, &b->digests[i]);
        if (forgotten && b->sizes[i] != UINT64_MAX) {
            out->objects++;
            out->bytes += b->sizes[i];
        }
        hold_unclaim(s, &b->digests[i], forgotten);
    }
    b->n = 0;
}

static int purge_batch(struct store *s, struct batch *b, struct store_purged *out)
{
    struct itxn t;
    pthread_mutex_lock(&s->evict);
    int rc = itxn_write(s->index, &t);
    if (rc != 0) {
        pthread_mutex_unlock(&s->evict);
        return rc;
    }
    claim_batch(s, &t, b);
    for (size_t i = 0; i < b->n && rc == 0; i++)
        rc = itxn_forget(&t, &b->digests[i], true, &out->tags, &out->links);
    if (rc == 0)
        rc = itxn_commit(&t);
    else
        itxn_end(&t);
    end_batch(s, b, rc == 0, out);
    pthread_mutex_unlock(&s->evict);
    return rc;
}

struct tag_search {
    struct itxn *t;
    const struct digest *digest;
    struct span repo, but; /* not this tag of this repository */
    bool found;
};

static bool look_at_tag(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    struct tag_search *f = arg;
    bool but = span_eq(repo, f->repo) && span_eq(tag, f->but);
    f->found = digest_eq(&is->digest, f->digest) && !but;
    return !f->found;
}

static bool look_at_owner(struct span repo, const struct store_link *link, void *arg)
{
    struct tag_search *f = arg;
    UNUSED(link);
    return itxn_each_tag(f->t, repo, true, look_at_tag, f) == 0 && !f->found;
}

/* Is there a tag that names it, other than repo:but? */
static int is_tagged(struct itxn *t, const struct digest *d, struct span repo, struct span but, bool *tagged)
{
    struct tag_search f = {.t = t, .digest = d, .repo = repo, .but = but};
    int rc = itxn_each_owner(t, d, look_at_owner, &f);
    *tagged = f.found;
    return rc;
}

/* What manifests outside of `image` refer to stays, with all that is below it. */
static int keep_what_others_need(struct itxn *t, const struct digests *image, const struct digest *top,
                                 struct digests *keep)
{
    struct db_cursor *c = NULL;
    struct span key, value;
    int rc = db_cursor_open(t->t, t->x->tables[TABLE_REFS], &c);
    if (rc == 0)
        rc = db_seek(c, span_of("", 0), &key, &value);
    while (rc == 0) {
        struct fields f;
        struct span full;
        struct digest d;
        struct store_ref ref;
        if (key_split_digest(key, &d) && !digests_has(image, &d) &&
            record_open(TABLE_REFS, key, value, &f, &full)) {
            (void)record_refs(&f);
            while (rc == 0 && record_next_ref(&f, &ref))
                if (ref.role != REF_SUBJECT && !digest_eq(&ref.digest, top) &&
                    digests_has(image, &ref.digest))
                    rc = digests_add_image(keep, t, &ref.digest);
        }
        if (rc == 0)
            rc = db_next(c, &key, &value);
    }
    db_cursor_close(c);
    return rc == DB_NOTFOUND ? 0 : rc;
}

/* Manifests below it that have tags of their own stay. */
static int keep_what_has_tags(struct itxn *t, const struct digests *image, const struct digest *top,
                              struct digests *keep)
{
    struct digest *d;
    size_t at = 0;
    int rc = 0;
    while (rc == 0 && (d = digests_next(image, &at)) != NULL) {
        struct key k;
        bool tagged = false;
        key_of_object(&k, TABLE_REFS, d);
        if (digest_eq(d, top) || !itxn_has(t, &k))
            continue;
        rc = is_tagged(t, d, (struct span){0}, (struct span){0}, &tagged);
        if (rc == 0 && tagged)
            rc = digests_add_image(keep, t, d);
    }
    return rc;
}

/* Removes from `image` what stays. */
static int narrow(struct itxn *t, struct digests *image, const struct digest *top, bool force,
                  struct store_purged *out)
{
    struct digests keep;
    struct pinned pins;
    struct digest *d;
    size_t at = 0;
    digests_init(&keep);
    int rc = pinned_load(&pins, t);
    while (rc == 0 && !force && (d = digests_next(&pins.all, &at)) != NULL) {
        if (!digests_has(image, d))
            continue;
        out->pinned++;
        (void)digests_add(&keep, d);
    }
    if (rc == 0)
        rc = keep_what_others_need(t, image, top, &keep);
    if (rc == 0)
        rc = keep_what_has_tags(t, image, top, &keep);
    at = 0;
    while ((d = digests_next(&keep, &at)) != NULL)
        digests_remove(image, d);
    pinned_free(&pins);
    digests_free(&keep);
    return rc;
}

static int purge_all(struct store *s, const struct digests *image, const struct digest *top,
                     struct store_purged *out)
{
    struct batch *b;
    struct digest *d;
    size_t at = 0;
    int rc = 0;
    NEW(b);
    if (digests_has(image, top)) /* the manifest first: nobody finds the rest without it */
        b->digests[b->n++] = *top;
    while (rc == 0 && (d = digests_next(image, &at)) != NULL) {
        if (digest_eq(d, top))
            continue;
        b->digests[b->n++] = *d;
        if (b->n == BATCH)
            rc = purge_batch(s, b, out);
    }
    if (rc == 0 && b->n > 0)
        rc = purge_batch(s, b, out);
    mem_free(b);
    return rc;
}

int store_purge_digest(struct store *s, const struct digest *d, bool force, struct store_purged *out,
                       struct str *why)
{
    struct digests image;
    struct itxn t;
    *out = (struct store_purged){0};
    digests_init(&image);
    int rc = itxn_read(s->index, &t);
    if (rc == 0)
        rc = digests_add_image(&image, &t, d);
    if (rc == 0)
        rc = narrow(&t, &image, d, force, out);
    itxn_end(&t);
    if (rc == 0)
        rc = purge_all(s, &image, d, out);
    digests_free(&image);
    if (out->objects > 0)
        log_info("store", "purged", LOG_D("digest", d), LOG_U("objects", out->objects),
                 LOG_U("bytes", out->bytes));
    return rc != 0 ? fail(s, why, "purge", rc) : 0;
}

struct first_tag {
    char repo[STORE_REPO_MAX + 1];
    size_t n;
    struct digest digest;
    bool found;
};

static bool take_first(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    struct first_tag *first = arg;
    UNUSED(tag);
    memcpy(first->repo, repo.p, repo.n);
    first->n = repo.n;
    first->digest = is->digest;
    first->found = true;
    return false;
}

/* The first account's. *alone: it is gone, and nothing else names its digest. */
static int purge_one_tag(struct store *s, struct span repo, struct span tag, bool force,
                         struct first_tag *first, bool *alone, struct store_purged *out)
{
    struct key k, pin;
    struct itxn t;
    bool tagged = true;
    *alone = first->found = false;
    int rc = itxn_write(s->index, &t);
    if (rc != 0)
        return rc;
    key_of_pin(&pin, repo, tag);
    bool pinned = !force && itxn_has(&t, &pin);
    out->pinned += pinned;
    if (!pinned)
        rc = itxn_each_account(&t, repo, tag, take_first, first);
    if (rc != 0 || !first->found) {
        itxn_end(&t);
        return rc;
    }
    struct span seen = span_of(first->repo, first->n);
    rc = is_tagged(&t, &first->digest, seen, tag, &tagged);
    key_of_tag(&k, seen, tag);
    if (rc == 0)
        rc = itxn_del(&t, &k);
    if (rc != 0) {
        itxn_end(&t);
        return rc;
    }
    rc = itxn_commit(&t);
    *alone = rc == 0 && !tagged;
    out->tags += rc == 0;
    return rc;
}

static void add_purged(struct store_purged *to, const struct store_purged *p)
{
    to->tags += p->tags;
    to->links += p->links;
    to->objects += p->objects;
    to->bytes += p->bytes;
    to->pinned += p->pinned;
}

int store_purge_tag(struct store *s, struct span repo, struct span tag, bool force, struct store_purged *out,
                    struct str *why)
{
    struct first_tag first = {.found = true};
    int rc = 0, err = 0;
    *out = (struct store_purged){0};
    if (repo.n > STORE_REPO_MAX || tag.n > STORE_TAG_MAX)
        return 0;
    while (first.found && rc == 0 && err == 0) {
        struct store_purged image = {0};
        bool alone;
        rc = purge_one_tag(s, repo, tag, force, &first, &alone, out);
        if (rc == 0 && alone)
            err = store_purge_digest(s, &first.digest, force, &image, why);
        add_purged(out, &image);
    }
    return rc != 0 ? fail(s, why, "purge", rc) : err;
}

/* ---- purging repositories ---- */

struct repo_purge {
    const struct store_repos *repos;
    bool force;
    const struct pinned *pins;
    struct key *keys; /* of tags or links that go */
    size_t n;
    bool others;          /* of the object being looked at: a repository that stays has it, too */
    struct digest pinned; /* the last one that stays: links of one object follow each other */
};

static bool is_meant(const struct repo_purge *p, struct span repo)
{
    const struct store_repos *r = p->repos;
    return span_starts(repo, r->prefix) && (r->has == NULL || r->has(repo, r->arg));
}

static bool add_tag(struct span repo, struct span tag, const struct store_tag *is, void *arg)
{
    struct repo_purge *p = arg;
    if (is_meant(p, repo) && (p->force || !pinned_has(p->pins, &is->digest)))
        key_of_tag(&p->keys[p->n++], repo, tag);
    return p->n < BATCH;
}

/* Up to BATCH tags; *done: those were the last. */
static int purge_tags(struct store *s, struct repo_purge *p, struct store_purged *out, bool *done)
{
    struct itxn t;
    int rc = itxn_write(s->index, &t);
    if (rc != 0)
        return rc;
    p->n = 0;
    rc = itxn_each_tag(&t, p->repos->prefix, false, add_tag, p);
    for (size_t i = 0; i < p->n && rc == 0; i++)
        rc = itxn_del(&t, &p->keys[i]);
    *done = p->n < BATCH;
    if (rc != 0) {
        itxn_end(&t);
        return rc;
    }
    out->tags += p->n;
    return itxn_commit(&t);
}

static bool is_elsewhere(struct span repo, const struct store_link *link, void *arg)
{
    struct repo_purge *p = arg;
    UNUSED(link);
    p->others = !is_meant(p, repo);
    return !p->others;
}

/* Chooses links from *from on, and the objects that nobody has without them. Looks at LOOK entries at most. */
#define LOOK 10000

static int choose_links(struct itxn *t, struct repo_purge *p, unsigned char from[KEY_STORED_MAX + 1],
                        size_t *from_n, struct batch *b, struct store_purged *out, bool *done)
{
    struct db_cursor *c = NULL;
    struct span key, value;
    unsigned looked = 0;
    int rc = db_cursor_open(t->t, t->x->tables[TABLE_OWNERS], &c);
    if (rc == 0)
        rc = db_seek(c, span_of((const char *)from, *from_n), &key, &value);
    p->n = 0;
    for (; rc == 0 && p->n < BATCH && looked++ < LOOK; rc = db_next(c, &key, &value)) {
        struct fields f;
        struct span full, repo;
        struct digest d;
        memcpy(from, key.p, key.n);
        from[key.n] = 0;
        *from_n = key.n + 1;
        if (!record_open(TABLE_OWNERS, key, value, &f, &full) || !key_split_owner(full, &d, &repo) ||
            !is_meant(p, repo))
            continue;
        if (!p->force && pinned_has(p->pins, &d)) {
            out->pinned += !digest_eq(&p->pinned, &d);
            p->pinned = d;
            continue;
        }
        key_of_owner(&p->keys[p->n++], &d, repo);
        int each = itxn_each_owner(t, &d, is_elsewhere, p);
        bool again = b->n > 0 && digest_eq(&b->digests[b->n - 1], &d);
        if (each == 0 && !p->others && !again)
            b->digests[b->n++] = d;
    }
    db_cursor_close(c);
    *done = rc == DB_NOTFOUND;
    return rc == DB_NOTFOUND ? 0 : rc;
}

/* One batch of links and the objects that nobody has without them. */
static int purge_links(struct store *s, struct repo_purge *p, unsigned char from[KEY_STORED_MAX + 1],
                       size_t *from_n, struct store_purged *out, bool *done)
{
    struct batch *b;
    struct itxn t;
    uint64_t links = 0;
    NEW(b);
    pthread_mutex_lock(&s->evict);
    int rc = itxn_write(s->index, &t);
    if (rc == 0) {
        rc = choose_links(&t, p, from, from_n, b, out, done);
        claim_batch(s, &t, b);
    }
    for (size_t i = 0; i < p->n && rc == 0; i++)
        rc = itxn_del(&t, &p->keys[i]);
    for (size_t i = 0; i < b->n && rc == 0; i++)
        rc = itxn_forget(&t, &b->digests[i], true, &out->tags, &links);
    if (rc == 0)
        rc = itxn_commit(&t);
    else
        itxn_end(&t);
    if (rc == 0)
        out->links += p->n + links; /* and those of forgotten objects that come after this batch */
    end_batch(s, b, rc == 0, out);
    pthread_mutex_unlock(&s->evict);
    mem_free(b);
    return rc;
}

int store_purge_repos(struct store *s, const struct store_repos *repos, bool force, struct store_purged *out,
                      struct str *why)
{
    unsigned char from[KEY_STORED_MAX + 1];
    size_t from_n = 0;
    bool done = false;
    struct pinned pins;
    struct itxn t;
    *out = (struct store_purged){0};
    int rc = itxn_read(s->index, &t);
    if (rc != 0)
        return fail(s, why, "purge", rc);
    rc = pinned_load(&pins, &t);
    itxn_end(&t);
    struct repo_purge p = {.repos = repos, .force = force, .pins = &pins};
    p.keys = mem_alloc(BATCH * sizeof *p.keys);
    while (rc == 0 && !done)
        rc = purge_tags(s, &p, out, &done);
    for (done = false; rc == 0 && !done;)
        rc = purge_links(s, &p, from, &from_n, out, &done);
    mem_free(p.keys);
    pinned_free(&pins);
    log_info("store", "purged repositories", LOG_SP("prefix", repos->prefix), LOG_U("tags", out->tags),
             LOG_U("objects", out->objects), LOG_U("bytes", out->bytes));
    return rc != 0 ? fail(s, why, "purge", rc) : 0;
}
