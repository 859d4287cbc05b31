/* Keys and records of the index as bytes; record_int.h has the layout. */
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/mem.h"
#include "store/record_int.h"

#define U48 ((UINT64_C(1) << 48) - 1)

/* The byte of kind and flags. */
#define KIND_MASK  0x07u
#define FLAG_SHIFT 3
#define FLAG_MASK  0x03u
#define HAS_SUM    0x80u

_Static_assert(STORE_TAG_MAX >= DIGEST_RAW_MAX, "KEY_FULL_MAX is that of pins");
_Static_assert(STORE_MEDIA_MAX <= UINT8_MAX, "the length of a media type is one byte");
_Static_assert(1 + DIGEST_RAW_MAX + 1 + sizeof(XXH128_canonical_t) == KEY_HASHED, "the hash of a long key");
_Static_assert(STORE_KINDS - 1 <= KIND_MASK, "kinds have three bits");

const char *table_name(enum table table)
{
    static const char *const names[] = {
#define X(id, name) [TABLE_##id] = name,
        TABLE_TABLE(X)
#undef X
    };
    return names[table];
}

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

uint64_t meta_sum(struct span name, const void *value, size_t n)
{
    return XXH3_64bits_withSeed(value, n, XXH3_64bits(name.p, name.n));
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

static void put_u48(struct record *r, uint64_t v)
{
    put_number(r, v < U48 ? v : U48, 6);
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

uint64_t fields_number(struct fields *f, size_t bytes)
{
    const unsigned char *p = get_bytes(f, bytes);
    return p != NULL ? le_load(p, bytes) : 0;
}

static void get_digest(struct fields *f, struct digest *d)
{
    *d = (struct digest){.alg = (uint8_t)fields_number(f, 1)};
    size_t n = digest_raw_len(d);
    const unsigned char *p = get_bytes(f, n);
    if (p == NULL || n == 0)
        f->bad = true;
    else
        memcpy(d->raw, p, n);
}

static void get_media(struct fields *f, char media[STORE_MEDIA_MAX + 1])
{
    size_t n = fields_number(f, 1);
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

/* `prefix` bytes of the full key stay as they are. */
static void key_finish(struct key *k, size_t prefix)
{
    k->hash_n = 0;
    if (k->n <= KEY_STORED_MAX)
        return;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(k->full, k->n));
    memcpy(k->hash, k->full, prefix);
    k->hash[prefix] = 1;
    memcpy(k->hash + prefix + 1, &canonical, sizeof canonical);
    k->hash_n = prefix + 1 + sizeof canonical;
}

void key_of_tag(struct key *k, struct span repo, struct span tag)
{
    key_begin(k, TABLE_TAGS);
    key_add(k, repo.p, repo.n);
    key_add(k, "", 1);
    key_add(k, tag.p, tag.n);
    key_finish(k, 0);
}

void key_of_owner(struct key *k, const struct digest *d, struct span repo)
{
    key_begin(k, TABLE_OWNERS);
    key_add_digest(k, d);
    size_t prefix = k->n;
    key_add(k, repo.p, repo.n);
    key_finish(k, prefix);
}

void key_of_object(struct key *k, enum table table, const struct digest *d)
{
    MUST(table == TABLE_POOL || table == TABLE_REFS || table == TABLE_CONFIGS);
    key_begin(k, table);
    key_add_digest(k, d);
    key_finish(k, 0);
}

void key_of_lru(struct key *k, enum store_kind kind, int64_t access_ms, const struct digest *d)
{
    unsigned char head[7] = {(unsigned char)kind};
    for (unsigned i = 0; i < 6; i++)
        head[1 + i] = (unsigned char)((uint64_t)access_ms >> (40 - 8 * i));
    key_begin(k, TABLE_LRU);
    key_add(k, head, sizeof head);
    key_add_digest(k, d);
    key_finish(k, 0);
}

void key_of_pin(struct key *k, struct span repo, struct span tag)
{
    key_begin(k, TABLE_PINS);
    key_add(k, "t", 1);
    key_add(k, repo.p, repo.n);
    key_add(k, "", 1);
    key_add(k, tag.p, tag.n);
    key_finish(k, 0);
}

void key_of_pinned_digest(struct key *k, const struct digest *d)
{
    key_begin(k, TABLE_PINS);
    key_add(k, "d", 1);
    key_add_digest(k, d);
    key_finish(k, 0);
}

struct span key_stored(const struct key *k)
{
    if (k->hash_n > 0)
        return span_of((const char *)k->hash, k->hash_n);
    return span_of((const char *)k->full, k->n);
}

bool key_split_tag(struct span full, struct span *repo, struct span *tag)
{
    ptrdiff_t zero = span_find(full, '\0');
    if (zero < 0 || zero > STORE_REPO_MAX || full.n - (size_t)zero - 1 > STORE_TAG_MAX)
        return false;
    *repo = span_sub(full, 0, (size_t)zero);
    *tag = span_from(full, (size_t)zero + 1);
    return true;
}

static bool split_digest(struct span full, struct digest *d, struct span *rest)
{
    struct fields f = {.p = (const unsigned char *)full.p, .n = full.n};
    get_digest(&f, d);
    *rest = span_of((const char *)f.p, f.n);
    return !f.bad;
}

bool key_split_owner(struct span full, struct digest *d, struct span *repo)
{
    return split_digest(full, d, repo) && repo->n <= STORE_REPO_MAX;
}

bool key_split_digest(struct span full, struct digest *d)
{
    struct span rest;
    return split_digest(full, d, &rest) && rest.n == 0;
}

bool key_split_lru(struct span full, enum store_kind *kind, int64_t *access_ms, struct digest *d)
{
    if (full.n < 7 || (unsigned char)full.p[0] >= STORE_KINDS)
        return false;
    *kind = (enum store_kind)full.p[0];
    *access_ms = 0;
    for (unsigned i = 1; i < 7; i++)
        *access_ms = (*access_ms << 8) | (unsigned char)full.p[i];
    return key_split_digest(span_from(full, 7), d);
}

bool key_split_pin(struct span full, struct span *repo, struct span *tag, struct digest *d)
{
    *repo = *tag = (struct span){0};
    if (full.n > 0 && full.p[0] == 'd')
        return key_split_digest(span_from(full, 1), d);
    return full.n > 0 && full.p[0] == 't' && key_split_tag(span_from(full, 1), repo, tag);
}

void key_text(const struct key *k, struct str *out)
{
    struct span full = span_of((const char *)k->full, k->n), repo = {0}, tag = {0};
    struct digest d;
    bool good = false;
    if (k->table == TABLE_TAGS)
        good = key_split_tag(full, &repo, &tag);
    else if (k->table == TABLE_PINS)
        good = key_split_pin(full, &repo, &tag, &d);
    else if (k->table == TABLE_OWNERS)
        good = key_split_owner(full, &d, &repo);
    else
        good = key_split_digest(k->table == TABLE_LRU ? span_from(full, 7) : full, &d);
    MUST(good);
    str_add(out, repo);
    if (tag.p != NULL) {
        str_addc(out, ':');
        str_add(out, tag);
        return;
    }
    if (repo.p != NULL)
        str_addc(out, '@');
    digest_add(out, &d);
}

/* ---- records ---- */

static size_t sum_bytes(enum table table)
{
    return table == TABLE_TAGS ? 8 : 4;
}

/* Only these have keys that can be too long to be stored. */
static bool has_key(enum table table)
{
    return table == TABLE_TAGS || table == TABLE_OWNERS || table == TABLE_PINS;
}

static uint64_t record_sum(struct span stored_key, const unsigned char *rest, size_t n, size_t bytes)
{
    uint64_t sum = XXH3_64bits_withSeed(rest, n, XXH3_64bits(stored_key.p, stored_key.n));
    return bytes < 8 ? sum & ((UINT64_C(1) << (8 * bytes)) - 1) : sum;
}

static void record_begin(struct record *r, const struct key *k)
{
    r->n = 0;
    put_number(r, 0, sum_bytes(k->table)); /* the sum, at the end */
    if (!has_key(k->table))
        return;
    bool hashed = k->hash_n > 0;
    put_number(r, hashed ? k->n : 0, 2);
    if (hashed)
        put_bytes(r, k->full, k->n);
}

static void record_end(struct record *r, const struct key *k)
{
    size_t bytes = sum_bytes(k->table);
    le_store(r->p, record_sum(key_stored(k), r->p + bytes, r->n - bytes, bytes), bytes);
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

void record_of_owner(struct record *r, const struct key *k, const struct store_link *link)
{
    record_begin(r, k);
    put_media(r, link->media);
    record_end(r, k);
}

void record_of_object(struct record *r, const struct key *k, const struct pool_entry *e)
{
    record_begin(r, k);
    put_u48(r, e->o.size);
    put_u48(r, (uint64_t)e->o.stored_ms);
    put_u48(r, (uint64_t)e->o.access_ms);
    put_number(r, e->o.hits, 4);
    put_number(r, (unsigned)e->o.kind | (e->flags & FLAG_MASK) << FLAG_SHIFT | (e->o.sum.known ? HAS_SUM : 0),
               1);
    if (e->o.sum.known)
        put_bytes(r, e->o.sum.raw, sizeof e->o.sum.raw);
    record_end(r, k);
}

void record_of_pin(struct record *r, const struct key *k, int64_t since_ms)
{
    record_begin(r, k);
    put_number(r, (uint64_t)since_ms, 8);
    record_end(r, k);
}

#define REF_MAX (1 + 6 + 1 + DIGEST_RAW_MAX)

unsigned char *record_of_refs(const struct key *k, const struct store_ref *refs, size_t n_refs, size_t *n)
{
    MUST(k->table == TABLE_REFS && n_refs <= STORE_REFS_MAX);
    size_t bytes = sum_bytes(k->table), at = bytes + 2;
    unsigned char *p = mem_alloc(at + n_refs * REF_MAX);
    le_store(p + bytes, n_refs, 2);
    for (size_t i = 0; i < n_refs; i++) {
        const struct digest *d = &refs[i].digest;
        p[at++] = (unsigned char)refs[i].role;
        le_store(p + at, refs[i].size < U48 ? refs[i].size : U48, 6);
        at += 6;
        p[at++] = d->alg;
        memcpy(p + at, d->raw, digest_raw_len(d));
        at += digest_raw_len(d);
    }
    le_store(p, record_sum(key_stored(k), p + bytes, at - bytes, bytes), bytes);
    *n = at;
    return p;
}

static bool open_with(size_t sum_size, bool key, struct span stored_key, struct span record, struct fields *f,
                      struct span *full)
{
    *f = (struct fields){.p = (const unsigned char *)record.p, .n = record.n};
    *full = stored_key;
    uint64_t sum = fields_number(f, sum_size);
    if (f->bad || sum != record_sum(stored_key, f->p, f->n, sum_size))
        return false;
    size_t n = key ? fields_number(f, 2) : 0;
    const unsigned char *p = get_bytes(f, n);
    if (n > 0 && p != NULL)
        *full = span_of((const char *)p, n);
    return !f->bad;
}

bool record_open(enum table table, struct span stored_key, struct span record, struct fields *f,
                 struct span *full)
{
    return open_with(sum_bytes(table), has_key(table), stored_key, record, f, full);
}

bool record_open_1(struct span stored_key, struct span record, struct fields *f, struct span *full)
{
    return open_with(8, true, stored_key, record, f, full);
}

bool record_tag(struct fields *f, struct store_tag *out)
{
    get_digest(f, &out->digest);
    out->others = false;
    out->checked_ms = (int64_t)fields_number(f, 8);
    get_media(f, out->media);
    return !f->bad;
}

bool record_owner(struct fields *f, struct store_link *out)
{
    get_media(f, out->media);
    return !f->bad;
}

bool record_object(struct fields *f, struct pool_entry *out)
{
    *out = (struct pool_entry){.o.size = fields_number(f, 6)};
    out->o.stored_ms = (int64_t)fields_number(f, 6);
    out->o.access_ms = (int64_t)fields_number(f, 6);
    out->o.hits = (uint32_t)fields_number(f, 4);
    unsigned bits = (unsigned)fields_number(f, 1);
    out->o.kind = (enum store_kind)(bits & KIND_MASK);
    out->flags = bits >> FLAG_SHIFT & FLAG_MASK;
    const unsigned char *sum = (bits & HAS_SUM) != 0 ? get_bytes(f, sizeof out->o.sum.raw) : NULL;
    if (sum != NULL) {
        memcpy(out->o.sum.raw, sum, sizeof out->o.sum.raw);
        out->o.sum.known = true;
    }
    return !f->bad && out->o.kind < STORE_KINDS;
}

bool record_pin(struct fields *f, int64_t *since_ms)
{
    *since_ms = (int64_t)fields_number(f, 8);
    return !f->bad;
}

size_t record_refs(struct fields *f)
{
    return fields_number(f, 2);
}

bool record_next_ref(struct fields *f, struct store_ref *out)
{
    if (f->n == 0)
        return false;
    unsigned role = (unsigned)fields_number(f, 1);
    out->role = (enum store_role)role;
    out->size = fields_number(f, 6);
    get_digest(f, &out->digest);
    return !f->bad && role < STORE_ROLES;
}
