/* Keys and records of the index as bytes; record_int.h has the layout. */
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/record_int.h"

_Static_assert(STORE_TAG_MAX >= 1 + DIGEST_RAW_MAX, "KEY_FULL_MAX is that of tags");
_Static_assert(STORE_MEDIA_MAX <= UINT8_MAX, "the length of a media type is one byte");
_Static_assert(KEY_HASHED == 1 + sizeof(XXH128_canonical_t), "the hash of a long key");

/* ---- numbers, digests, texts ---- */

void le_store(unsigned char *p, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

uint64_t le_load(const unsigned char *p, size_t bytes)
{
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void put_bytes(struct record *r, const void *p, size_t n)
{
    MUST(n <= sizeof r->p - r->n);
    if (n > 0)
        memcpy(r->p + r->n, p, n);
    r->n += n;
}

static void put_number(struct record *r, uint64_t v, size_t bytes)
{
    unsigned char le[8];
    le_store(le, v, bytes);
    put_bytes(r, le, bytes);
}

static void put_media(struct record *r, const char *media)
{
    size_t n = strnlen(media, STORE_MEDIA_MAX);
    put_number(r, n, 1);
    put_bytes(r, media, n);
}

static const unsigned char *get_bytes(struct fields *f, size_t n)
{
    if (f->bad || n > f->n) {
        f->bad = true;
        return NULL;
    }
    const unsigned char *p = f->p;
    f->p += n;
    f->n -= n;
    return p;
}

static uint64_t get_number(struct fields *f, size_t bytes)
{
    const unsigned char *p = get_bytes(f, bytes);
    return p != NULL ? le_load(p, bytes) : 0;
}

static void get_digest(struct fields *f, struct digest *d)
{
    *d = (struct digest){.alg = (uint8_t)get_number(f, 1)};
    size_t n = digest_raw_len(d);
    const unsigned char *p = get_bytes(f, n);
    if (p == NULL || n == 0)
        f->bad = true;
    else
        memcpy(d->raw, p, n);
}

static void get_media(struct fields *f, char media[STORE_MEDIA_MAX + 1])
{
    size_t n = get_number(f, 1);
    const unsigned char *p = get_bytes(f, n);
    if (p != NULL)
        memcpy(media, p, n);
    media[p != NULL ? n : 0] = '\0';
}

/* ---- keys ---- */

static void key_begin(struct key *k, enum table table)
{
    k->table = table;
    k->n = 0;
}

static void key_add(struct key *k, const void *p, size_t n)
{
    MUST(n <= sizeof k->full - k->n);
    if (n > 0)
        memcpy(k->full + k->n, p, n);
    k->n += n;
}

static void key_add_digest(struct key *k, const struct digest *d)
{
    MUST(digest_raw_len(d) > 0);
    key_add(k, &d->alg, 1);
    key_add(k, d->raw, digest_raw_len(d));
}

static void key_finish(struct key *k)
{
    k->hashed = k->n > KEY_STORED_MAX;
    if (!k->hashed)
        return;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(k->full, k->n));
    k->hash[0] = 1;
    memcpy(k->hash + 1, &canonical, sizeof canonical);
}

void key_of_tag(struct key *k, struct span repo, struct span tag)
{
    key_begin(k, TABLE_TAGS);
    key_add(k, repo.p, repo.n);
    key_add(k, "", 1);
    key_add(k, tag.p, tag.n);
    key_finish(k);
}

void key_of_link(struct key *k, struct span repo, const struct digest *d)
{
    key_begin(k, TABLE_LINKS);
    key_add(k, repo.p, repo.n);
    key_add(k, "", 1);
    key_add_digest(k, d);
    key_finish(k);
}

void key_of_object(struct key *k, const struct digest *d)
{
    key_begin(k, TABLE_OBJECTS);
    key_add_digest(k, d);
    key_finish(k);
}

struct span key_stored(const struct key *k)
{
    if (k->hashed)
        return span_of((const char *)k->hash, sizeof k->hash);
    return span_of((const char *)k->full, k->n);
}

void key_text(const struct key *k, struct str *out)
{
    struct fields f = {.p = k->full, .n = k->n};
    if (k->table != TABLE_OBJECTS) {
        struct span full = span_of((const char *)k->full, k->n);
        ptrdiff_t repo = span_find(full, '\0');
        MUST(repo >= 0);
        str_add(out, span_sub(full, 0, (size_t)repo));
        str_addc(out, k->table == TABLE_TAGS ? ':' : '@');
        MUST(get_bytes(&f, (size_t)repo + 1) != NULL);
    }
    if (k->table == TABLE_TAGS) {
        str_add(out, span_of((const char *)f.p, f.n));
        return;
    }
    struct digest d;
    get_digest(&f, &d);
    MUST(!f.bad);
    digest_add(out, &d);
}

/* ---- records ---- */

static uint64_t record_sum(struct span stored_key, const unsigned char *rest, size_t n)
{
    return XXH3_64bits_withSeed(rest, n, XXH3_64bits(stored_key.p, stored_key.n));
}

static void record_begin(struct record *r, const struct key *k)
{
    r->n = 0;
    put_number(r, 0, 8); /* the sum, at the end */
    put_number(r, k->hashed ? k->n : 0, 2);
    if (k->hashed)
        put_bytes(r, k->full, k->n);
}

static void record_end(struct record *r, const struct key *k)
{
    le_store(r->p, record_sum(key_stored(k), r->p + 8, r->n - 8), 8);
}

void record_of_tag(struct record *r, const struct key *k, const struct store_tag *tag)
{
    record_begin(r, k);
    put_number(r, tag->digest.alg, 1);
    put_bytes(r, tag->digest.raw, digest_raw_len(&tag->digest));
    put_number(r, (uint64_t)tag->checked_ms, 8);
    put_media(r, tag->media);
    record_end(r, k);
}

void record_of_link(struct record *r, const struct key *k, const struct store_link *link)
{
    record_begin(r, k);
    put_media(r, link->media);
    record_end(r, k);
}

void record_of_object(struct record *r, const struct key *k, const struct store_object *object)
{
    record_begin(r, k);
    put_number(r, object->size, 8);
    put_number(r, (uint64_t)object->stored_ms, 8);
    record_end(r, k);
}

bool record_open(struct span stored_key, struct span record, struct fields *f, struct span *full)
{
    *f = (struct fields){.p = (const unsigned char *)record.p, .n = record.n};
    uint64_t sum = get_number(f, 8);
    if (f->bad || sum != record_sum(stored_key, f->p, f->n))
        return false;
    size_t n = get_number(f, 2);
    *full = span_of((const char *)get_bytes(f, n), n);
    return !f->bad;
}

bool record_tag(struct fields *f, struct store_tag *out)
{
    get_digest(f, &out->digest);
    out->checked_ms = (int64_t)get_number(f, 8);
    get_media(f, out->media);
    return !f->bad;
}

bool record_link(struct fields *f, struct store_link *out)
{
    get_media(f, out->media);
    return !f->bad;
}

bool record_object(struct fields *f, struct store_object *out)
{
    out->size = get_number(f, 8);
    out->stored_ms = (int64_t)get_number(f, 8);
    return !f->bad;
}
