/* Keys and records of the index as bytes. Pure: no LMDB here.
 *
 * All numbers are little-endian, written byte by byte. The layout is what RECORD_FORMAT names: change both together.
 *
 *     table    full key       fields
 *     meta     "format"       u32 RECORD_FORMAT (this alone: no sum, no full key)
 *     tags     repo 00 tag    digest, i64 checked_ms, u8 n, n bytes of media type
 *     links    repo 00 digest u8 n, n bytes of media type
 *     objects  digest         u64 size, i64 stored_ms
 *
 *     digest = u8 algorithm, 32 or 64 raw bytes
 *     record = u64 sum, u16 n, n bytes of full key, fields
 *
 * A stored key has at most 511 bytes (LMDB). A full key that is longer is stored as 01 and its XXH3-128 (no text begins
 * with 01), and stands in the record; else n is 0. So every repository and tag can be listed from the records. The
 * sum is XXH3 over the stored key and the rest of the record: one that was damaged, or moved to another key, shows. */
#ifndef LARDER_STORE_RECORD_INT_H
#define LARDER_STORE_RECORD_INT_H

#include "store/store.h"

#define RECORD_FORMAT 1

enum table { TABLE_TAGS, TABLE_LINKS, TABLE_OBJECTS, TABLES };

#define KEY_STORED_MAX 511
#define KEY_HASHED     (1 + 16)
#define KEY_FULL_MAX   (STORE_REPO_MAX + 1 + STORE_TAG_MAX)
#define RECORD_MAX     (8 + 2 + KEY_FULL_MAX + (1 + DIGEST_RAW_MAX) + 8 + 1 + STORE_MEDIA_MAX)

struct key {
    enum table table;
    unsigned char full[KEY_FULL_MAX];
    size_t n;
    unsigned char hash[KEY_HASHED];
    bool hashed; /* `hash` is what is stored */
};

void key_of_tag(struct key *k, struct span repo, struct span tag);
void key_of_link(struct key *k, struct span repo, const struct digest *d);
void key_of_object(struct key *k, const struct digest *d);
struct span key_stored(const struct key *k);
/* For the log: "repo:tag", "repo@digest", or the digest. At most KEY_TEXT_MAX bytes. */
#define KEY_TEXT_MAX (KEY_FULL_MAX + DIGEST_TEXT_MAX)
void key_text(const struct key *k, struct str *out);

struct record {
    unsigned char p[RECORD_MAX];
    size_t n;
};

void record_of_tag(struct record *r, const struct key *k, const struct store_tag *tag);
void record_of_link(struct record *r, const struct key *k, const struct store_link *link);
void record_of_object(struct record *r, const struct key *k, const struct store_object *object);

/* What is left to read of a record; `bad` sticks. */
struct fields {
    const unsigned char *p;
    size_t n;
    bool bad;
};

/* False: damaged. Else *f has the fields, and *full the full key if it stands in the record. Both point into it. */
bool record_open(struct span stored_key, struct span record, struct fields *f, struct span *full) MUSTCHECK;
/* False: damaged, and *out is not to be used. */
bool record_tag(struct fields *f, struct store_tag *out) MUSTCHECK;
bool record_link(struct fields *f, struct store_link *out) MUSTCHECK;
bool record_object(struct fields *f, struct store_object *out) MUSTCHECK;

/* Little-endian numbers of 1 to 8 bytes. */
void le_store(unsigned char *p, uint64_t v, size_t bytes);
uint64_t le_load(const unsigned char *p, size_t bytes);

#endif
