/* Keys and records of the index as bytes. Pure: no LMDB here.
 *
 * Numbers in records are little-endian, written byte by byte. The layout is what RECORD_FORMAT names: change both together, and
 * teach migrate.c to read the one before.
 *
 *     table    full key                    record
 *     meta     a name                      see index.c
 *     tags     repo 00 tag                 sum64, key, digest, i64 checked_ms, u8 n, n bytes of media type
 *     owners   digest repo                 sum32, key, u8 n, n bytes of media type
 *     pool     digest                      sum32, u48 size, u48 stored_ms, u48 access_ms, u32 hits, u8 kind and flags,
 *                                          16 bytes of content sum if the flags say so
 *     lru      u8 kind, u48 access_ms      nothing
 *              (big-endian), digest
 *     refs     digest of a manifest        sum32, u16 n, n of: u8 role, u48 size, digest
 *     configs  digest                      nothing: some manifest names it as its configuration
 *     pins     't' repo 00 tag, 'd' digest sum32, key, i64 since_ms
 *
 *     digest = u8 algorithm, 32 or 64 raw bytes
 *     key    = u16 n, n bytes of full key
 *
 * A stored key has at most 511 bytes (LMDB). A full key that is longer is stored as 01 and its XXH3-128 (no text begins with 01),
 * in owners behind the digest, and stands in the record; else n is 0. So every repository and tag can be listed from
 * the records. A sum is XXH3 over the stored key and the rest of the record: one that was damaged, or moved to another key, shows.
 *
 * Owners begin with the digest, so that all that is known of an object is found from it; pool and owners are the
 * big tables, and small records are what keeps the index in memory. */
#ifndef LARDER_STORE_RECORD_INT_H
#define LARDER_STORE_RECORD_INT_H

#include "store/store.h"

#define RECORD_FORMAT 2

#define TABLE_TABLE(X)                                                                                       \
    X(TAGS, "tags")                                                                                          \
    X(OWNERS, "owners")                                                                                      \
    X(POOL, "pool")                                                                                          \
    X(LRU, "lru")                                                                                            \
    X(REFS, "refs")                                                                                          \
    X(CONFIGS, "configs")                                                                                    \
    X(PINS, "pins")

enum table {
#define X(id, name) TABLE_##id,
    TABLE_TABLE(X)
#undef X
        TABLES
};

const char *table_name(enum table table);

#define KEY_STORED_MAX 511
#define KEY_HASHED     (1 + DIGEST_RAW_MAX + 1 + 16)
#define KEY_FULL_MAX   (1 + STORE_REPO_MAX + 1 + STORE_TAG_MAX)
#define RECORD_MAX     (8 + 2 + KEY_FULL_MAX + (1 + DIGEST_RAW_MAX) + 8 + 1 + STORE_MEDIA_MAX)

struct key {
    enum table table;
    unsigned char full[KEY_FULL_MAX];
    size_t n;
    unsigned char hash[KEY_HASHED];
    size_t hash_n; /* 0: the full key is what is stored; else `hash` is */
};

void key_of_tag(struct key *k, struct span repo, struct span tag);
void key_of_owner(struct key *k, const struct digest *d, struct span repo);
void key_of_object(struct key *k, enum table table, const struct digest *d); /* pool, refs, configs */
void key_of_lru(struct key *k, enum store_kind kind, int64_t access_ms, const struct digest *d);
void key_of_pin(struct key *k, struct span repo, struct span tag);
void key_of_pinned_digest(struct key *k, const struct digest *d);
struct span key_stored(const struct key *k);
/* For the log: "repo:tag", "repo@digest", or the digest. At most KEY_TEXT_MAX bytes. */
#define KEY_TEXT_MAX (KEY_FULL_MAX + DIGEST_TEXT_MAX)
void key_text(const struct key *k, struct str *out);

/* Full keys taken apart. False: it is none. The spans point into it. */
bool key_split_tag(struct span full, struct span *repo, struct span *tag) MUSTCHECK;
bool key_split_owner(struct span full, struct digest *d, struct span *repo) MUSTCHECK;
bool key_split_digest(struct span full, struct digest *d) MUSTCHECK;
bool key_split_lru(struct span full, enum store_kind *kind, int64_t *access_ms, struct digest *d) MUSTCHECK;
/* A pinned digest has an absent repo. */
bool key_split_pin(struct span full, struct span *repo, struct span *tag, struct digest *d) MUSTCHECK;

struct record {
    unsigned char p[RECORD_MAX];
    size_t n;
};

/* What stands in a record of the pool beside what everyone may see. */
#define RECORD_UNVERIFIED 1u /* found as a file: nobody has compared it with its digest yet */
#define RECORD_CHECKED    2u /* verified after the last unclean stop */

struct pool_entry {
    struct store_object o; /* suspect is not stored */
    unsigned flags;
};

void record_of_tag(struct record *r, const struct key *k, const struct store_tag *tag);
void record_of_owner(struct record *r, const struct key *k, const struct store_link *link);
void record_of_object(struct record *r, const struct key *k, const struct pool_entry *e);
void record_of_pin(struct record *r, const struct key *k, int64_t since_ms);
/* Of any length: allocated, *n bytes. */
unsigned char *record_of_refs(const struct key *k, const struct store_ref *refs, size_t n_refs, size_t *n);

/* What is left to read of a record; `bad` sticks. */
struct fields {
    const unsigned char *p;
    size_t n;
    bool bad;
};

/* False: damaged. Else *f has the fields, and *full the full key, from the record or as it is stored. Both point into what was given. */
bool record_open(enum table table, struct span stored_key, struct span record, struct fields *f,
                 struct span *full) MUSTCHECK;
/* False: damaged, and *out is not to be used. */
bool record_tag(struct fields *f, struct store_tag *out) MUSTCHECK;
bool record_owner(struct fields *f, struct store_link *out) MUSTCHECK;
bool record_object(struct fields *f, struct pool_entry *out) MUSTCHECK;
bool record_pin(struct fields *f, int64_t *since_ms) MUSTCHECK;
/* One after the other; false: that was the last. */
bool record_next_ref(struct fields *f, struct store_ref *out) MUSTCHECK;
/* How many there are, once, before the first. */
size_t record_refs(struct fields *f);

/* Parts of older formats, for migrate.c. */
bool record_open_1(struct span stored_key, struct span record, struct fields *f, struct span *full) MUSTCHECK;
uint64_t fields_number(struct fields *f, size_t bytes);

/* Little-endian numbers of 1 to 8 bytes. */
void le_store(unsigned char *p, uint64_t v, size_t bytes);
uint64_t le_load(const unsigned char *p, size_t bytes);
/* The sum of a value in meta. */
uint64_t meta_sum(struct span name, const void *value, size_t n);

#endif
