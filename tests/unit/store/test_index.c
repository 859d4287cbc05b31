/* The index: records, damage, totals, the writer, and what it refuses to open. */
#include "rig.h"

#include <lmdb.h>

#include "base/clock.h"
#include "store/record_int.h"

#define MANIFEST "application/vnd.oci.image.manifest.v1+json"

static struct store_change change(unsigned what, const char *repo, const char *tag, const struct digest *d)
{
    struct store_change c = {.what = what, .digest = *d, .size = 1234, .checked_ms = 1700000000123};
    snprintf(c.repo, sizeof c.repo, "%s", repo);
    snprintf(c.tag, sizeof c.tag, "%s", tag);
    snprintf(c.media, sizeof c.media, "%s", MANIFEST);
    return c;
}

static const unsigned put_all = CHANGE_PUT_OBJECT | CHANGE_PUT_LINK | CHANGE_PUT_TAG;

static bool has_tag(struct rig *r, const char *repo, const char *tag, struct store_tag *out)
{
    struct store_reader *reader = store_reader_new(r->store);
    bool found = store_get_tag(reader, span_str(repo), span_str(tag), out);
    store_reader_free(reader);
    return found;
}

static bool has_link(struct rig *r, const char *repo, const struct digest *d)
{
    struct store_link link;
    struct store_reader *reader = store_reader_new(r->store);
    bool found = store_get_link(reader, span_str(repo), d, &link);
    store_reader_free(reader);
    return found && strcmp(link.media, MANIFEST) == 0;
}

static bool has_object(struct rig *r, const struct digest *d, uint64_t size)
{
    struct store_object o;
    struct store_reader *reader = store_reader_new(r->store);
    bool found = store_get_object(reader, d, &o);
    store_reader_free(reader);
    return found && o.size == size && o.stored_ms > 0;
}

static void assert_totals(struct rig *r, uint64_t objects, uint64_t bytes)
{
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.objects, objects);
    assert_int_equal(t.bytes, bytes);
}

static uint64_t damaged(struct rig *r)
{
    struct store_totals t;
    store_totals(r->store, &t);
    return t.damaged;
}

static void test_records_come_back(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_digest(1), other = rig_digest(2);
    struct store_change c = change(put_all, "docker.io/library/nginx", "latest", &d);
    struct store_tag tag;
    assert_false(has_tag(r, "docker.io/library/nginx", "latest", &tag));
    assert_int_equal(rig_apply(r, &c), 0);
    for (int round = 0; round < 2; round++) {
        assert_true(has_tag(r, "docker.io/library/nginx", "latest", &tag));
        assert_true(digest_eq(&tag.digest, &d));
        assert_int_equal(tag.checked_ms, 1700000000123);
        assert_string_equal(tag.media, MANIFEST);
        assert_true(has_link(r, "docker.io/library/nginx", &d));
        assert_true(has_object(r, &d, 1234));
        assert_false(has_tag(r, "docker.io/library/nginx", "lates", &tag));
        assert_false(has_tag(r, "docker.io/library/ngin", "latest", &tag));
        assert_false(has_link(r, "docker.io/library/nginx", &other));
        assert_false(has_link(r, "docker.io/library", &d));
        assert_false(has_object(r, &other, 1234));
        assert_totals(r, 1, 1234);
        rig_close(r);
        rig_open(r);
    }
    assert_int_equal(damaged(r), 0);
}

static void test_sha512_and_no_media(void **state)
{
    struct rig *r = *state;
    struct hasher h;
    struct store_change c = {.what = CHANGE_PUT_LINK | CHANGE_PUT_OBJECT, .repo = "a/b"};
    hasher_init(&h, DIGEST_SHA512);
    hasher_finish(&h, &c.digest);
    assert_int_equal(rig_apply(r, &c), 0);
    struct store_reader *reader = store_reader_new(r->store);
    struct store_link link;
    assert_true(store_get_link(reader, SPAN("a/b"), &c.digest, &link));
    assert_string_equal(link.media, "");
    store_reader_free(reader);
    assert_true(has_object(r, &c.digest, 0));
}

/* A longest repository with a longest tag is above LMDB's limit of a key. */
static void test_long_names(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_digest(1), e = rig_digest(2);
    char repo[STORE_REPO_MAX + 2], tag[STORE_TAG_MAX + 2];
    memset(repo, 'r', sizeof repo);
    memset(tag, 't', sizeof tag);
    repo[STORE_REPO_MAX] = tag[STORE_TAG_MAX] = '\0';
    struct store_change c = change(put_all, repo, tag, &d);
    assert_int_equal(rig_apply(r, &c), 0);
    tag[STORE_TAG_MAX - 1] = 'u';
    c = change(put_all, repo, tag, &e);
    assert_int_equal(rig_apply(r, &c), 0);
    rig_close(r);
    rig_open(r);
    struct store_tag found;
    assert_true(has_tag(r, repo, tag, &found));
    assert_true(digest_eq(&found.digest, &e));
    tag[STORE_TAG_MAX - 1] = 't';
    assert_true(has_tag(r, repo, tag, &found));
    assert_true(digest_eq(&found.digest, &d));
    assert_true(has_link(r, repo, &d));
    assert_true(has_link(r, repo, &e));
    struct store_change gone = change(CHANGE_DEL_TAG, repo, tag, &d);
    assert_int_equal(rig_apply(r, &gone), 0);
    assert_false(has_tag(r, repo, tag, &found));
    /* One byte more cannot be in the index, and must not read past it. */
    repo[STORE_REPO_MAX] = tag[STORE_TAG_MAX] = 'x';
    struct store_reader *reader = store_reader_new(r->store);
    struct store_link link;
    assert_false(store_get_tag(reader, span_of(repo, STORE_REPO_MAX + 1), SPAN("t"), &found));
    assert_false(store_get_tag(reader, SPAN("r"), span_of(tag, STORE_TAG_MAX + 1), &found));
    assert_false(store_get_link(reader, span_of(repo, STORE_REPO_MAX + 1), &d, &link));
    store_reader_free(reader);
}

static void test_totals_count_each_object_once(void **state)
{
    struct rig *r = *state;
    struct digest a = rig_digest(1), b = rig_digest(2);
    struct store_change c = change(CHANGE_PUT_OBJECT, "", "", &a);
    assert_int_equal(rig_apply(r, &c), 0);
    c.size = 1000;
    assert_int_equal(rig_apply(r, &c), 0);
    assert_totals(r, 1, 1000);
    assert_false(store_condemn(r->store, &b, &(struct store_object){.size = 1000})); /* never was there */
    assert_totals(r, 1, 1000);
    c = change(CHANGE_PUT_OBJECT, "", "", &b);
    assert_int_equal(rig_apply(r, &c), 0);
    assert_totals(r, 2, 2234);
    rig_close(r);
    rig_open(r);
    assert_totals(r, 2, 2234);
    rig_condemn(r, &b);
    assert_totals(r, 1, 1000);
    rig_condemn(r, &a);
    assert_totals(r, 0, 0);
    assert_false(has_object(r, &a, 1000));
}

/* ---- damage, made with LMDB itself while the store is closed ---- */

struct surgery {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
};

static void surgery_begin(struct surgery *s, struct rig *r, const char *table)
{
    char path[128];
    snprintf(path, sizeof path, "%s/index", r->path);
    assert_int_equal(mdb_env_create(&s->env), 0);
    assert_int_equal(mdb_env_set_maxdbs(s->env, 16), 0);
    assert_int_equal(mdb_env_open(s->env, path, 0, 0640), 0);
    assert_int_equal(mdb_txn_begin(s->env, NULL, 0, &s->txn), 0);
    assert_int_equal(mdb_dbi_open(s->txn, table, 0, &s->dbi), 0);
    assert_int_equal(mdb_cursor_open(s->txn, s->dbi, &s->cursor), 0);
}

static void surgery_end(struct surgery *s)
{
    mdb_cursor_close(s->cursor);
    assert_int_equal(mdb_txn_commit(s->txn), 0);
    mdb_env_close(s->env);
}

/* Replaces the value of every record by `n` bytes of it, with one bit of byte `flip` changed. */
static unsigned damage_all(struct rig *r, const char *table, size_t n, size_t flip)
{
    struct surgery s;
    unsigned count = 0;
    MDB_val key, value;
    surgery_begin(&s, r, table);
    while (mdb_cursor_get(s.cursor, &key, &value, MDB_NEXT) == 0) {
        unsigned char copy[2048];
        size_t cut = n < value.mv_size ? n : value.mv_size;
        memcpy(copy, value.mv_data, cut);
        if (flip < cut)
            copy[flip] ^= 0x10;
        MDB_val bad = {.mv_data = copy, .mv_size = cut};
        assert_int_equal(mdb_cursor_put(s.cursor, &key, &bad, MDB_CURRENT), 0);
        count++;
    }
    surgery_end(&s);
    return count;
}

static void check_damaged(struct rig *r, size_t cut, size_t flip)
{
    struct digest d = rig_digest(1);
    struct store_change c = change(put_all, "quay.io/some/repo", "v1", &d);
    struct store_tag tag;
    assert_int_equal(rig_apply(r, &c), 0);
    assert_totals(r, 1, 1234);
    rig_close(r);
    assert_int_equal(damage_all(r, "tags", cut, flip), 1);
    assert_int_equal(damage_all(r, "owners", cut, flip), 1);
    assert_int_equal(damage_all(r, "pool", cut, flip), 1);
    rig_open(r);
    assert_int_equal(damaged(r), 0);
    assert_false(has_tag(r, "quay.io/some/repo", "v1", &tag));
    assert_false(has_link(r, "quay.io/some/repo", &d));
    assert_false(has_object(r, &d, 1234));
    assert_int_equal(damaged(r), 3);
    store_tidy(r->store); /* what is damaged is dropped, and does not count */
    assert_totals(r, 0, 0);
    /* Written again, it is whole again, and counted once. */
    assert_int_equal(rig_apply(r, &c), 0);
    assert_true(has_tag(r, "quay.io/some/repo", "v1", &tag));
    assert_true(has_object(r, &d, 1234));
    store_tidy(r->store);
    assert_totals(r, 1, 1234);
}

/* Written again before anybody has counted: the record that was there is not counted twice, nor for ever. */
static void test_a_damaged_record_is_replaced(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_digest(1);
    struct store_change c = change(put_all, "quay.io/some/repo", "v1", &d);
    assert_int_equal(rig_apply(r, &c), 0);
    rig_close(r);
    assert_int_equal(damage_all(r, "pool", SIZE_MAX, 9), 1);
    rig_open(r);
    assert_int_equal(rig_apply(r, &c), 0);
    assert_true(has_object(r, &d, 1234));
    store_tidy(r->store);
    assert_totals(r, 1, 1234);
    rig_close(r);
    rig_open(r);
    assert_totals(r, 1, 1234);
}

/* The totals stand in the index; without them they are counted. */
static void test_lost_totals_are_counted(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < 10; i++) {
        struct digest d = rig_digest(i);
        struct store_change c = change(CHANGE_PUT_OBJECT, "", "", &d);
        assert_int_equal(rig_apply(r, &c), 0);
    }
    for (unsigned way = 0; way < 2; way++) {
        struct surgery s;
        MDB_val key = {.mv_data = "sums", .mv_size = 4}, value = {.mv_data = "?", .mv_size = 1};
        rig_close(r);
        surgery_begin(&s, r, "meta");
        assert_int_equal(
            way == 0 ? mdb_del(s.txn, s.dbi, &key, NULL) : mdb_put(s.txn, s.dbi, &key, &value, 0), 0);
        surgery_end(&s);
        rig_open(r);
        assert_totals(r, 10, 12340);
    }
}

static void test_a_flipped_bit_is_not_there(void **state)
{
    struct rig *r = *state;
    for (size_t flip = 0; flip < 7; flip++)
        check_damaged(r, SIZE_MAX, flip);
}

static void test_a_short_record_is_not_there(void **state)
{
    static const size_t cuts[] = {0, 1, 3, 4, 5, 6};
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++)
        check_damaged(*state, cuts[i], SIZE_MAX);
}

/* A whole record under the key of another one: its sum holds, but not here. */
static void test_a_swapped_record_is_not_there(void **state)
{
    struct rig *r = *state;
    struct digest a = rig_digest(1), b = rig_digest(2);
    struct store_change c = change(put_all, "quay.io/x", "one", &a);
    assert_int_equal(rig_apply(r, &c), 0);
    c = change(put_all, "quay.io/x", "two", &b);
    assert_int_equal(rig_apply(r, &c), 0);
    rig_close(r);
    struct surgery s;
    MDB_val one, two, value;
    unsigned char copy[512];
    surgery_begin(&s, r, "tags");
    assert_int_equal(mdb_cursor_get(s.cursor, &one, &value, MDB_FIRST), 0);
    memcpy(copy, value.mv_data, value.mv_size);
    MDB_val moved = {.mv_data = copy, .mv_size = value.mv_size};
    assert_int_equal(mdb_cursor_get(s.cursor, &two, &value, MDB_NEXT), 0);
    assert_int_equal(mdb_cursor_put(s.cursor, &two, &moved, MDB_CURRENT), 0);
    surgery_end(&s);
    rig_open(r);
    struct store_tag tag;
    assert_true(has_tag(r, "quay.io/x", "one", &tag));
    assert_true(digest_eq(&tag.digest, &a));
    assert_false(has_tag(r, "quay.io/x", "two", &tag));
}

/* The bytes of records as format 2 has them: a change here needs a new format. */
static void test_records_keep_their_format(void **state)
{
    struct rig *r = *state;
    struct digest d = rig_digest(1);
    struct store_change c = change(CHANGE_PUT_TAG, "quay.io/x", "one", &d);
    c.checked_ms = 0x0102030405060708;
    snprintf(c.media, sizeof c.media, "m/t");
    assert_int_equal(rig_apply(r, &c), 0);
    rig_close(r);
    struct surgery s;
    MDB_val key, value;
    surgery_begin(&s, r, "tags");
    assert_int_equal(mdb_cursor_get(s.cursor, &key, &value, MDB_FIRST), 0);
    assert_int_equal(key.mv_size, 13);
    assert_memory_equal(key.mv_data, "quay.io/x\0one", 13);
    unsigned char expect[64] = {0, 0, DIGEST_SHA256};
    memcpy(expect + 3, d.raw, 32);
    memcpy(expect + 35, "\x08\x07\x06\x05\x04\x03\x02\x01\x03m/t", 12);
    assert_int_equal(value.mv_size, 8 + 47);
    assert_memory_equal((const char *)value.mv_data + 8, expect, 47);
    surgery_end(&s);
}

/* ---- what is refused ---- */

static void assert_refused(struct rig *r, const char *text)
{
    char why[1024] = "";
    struct str w = STR_INIT(why);
    assert_null(store_open(span_str(r->path), &w));
    if (strstr(why, text) == NULL || strstr(why, r->path) == NULL)
        fail_msg("the reason does not say '%s' and '%s': %s", text, r->path, why);
}

static void set_format(struct rig *r, unsigned char format)
{
    struct surgery s;
    MDB_val key = {.mv_data = "format", .mv_size = 6};
    MDB_val value = {.mv_data = (unsigned char[]){format, 0, 0, 0}, .mv_size = 4};
    surgery_begin(&s, r, "meta");
    assert_int_equal(mdb_put(s.txn, s.dbi, &key, &value, 0), 0);
    surgery_end(&s);
}

/* The index is gone or of no use: objects are found again by their files, and are suspects without links. */
static void check_made_anew(struct rig *r, const struct digest *d, uint64_t size)
{
    struct store_tag tag;
    struct store_object o;
    struct store_reader *reader = store_reader_new(r->store);
    assert_true(store_get_object(reader, d, &o));
    assert_int_equal(o.size, size);
    store_reader_free(reader);
    assert_false(has_link(r, "quay.io/x", d));
    assert_false(has_tag(r, "quay.io/x", "one", &tag));
    assert_totals(r, 1, size);
    store_tidy(r->store);
    reader = store_reader_new(r->store);
    assert_true(store_get_object(reader, d, &o));
    assert_false(o.suspect);
    assert_true(o.sum.known);
    store_reader_free(reader);
}

static struct digest put_whole(struct rig *r, const char *content)
{
    struct digest d = rig_digest_of(content, strlen(content));
    char why[256] = "";
    struct str w = STR_INIT(why);
    struct store_change c = change(put_all, "quay.io/x", "one", &d);
    c.size = strlen(content);
    assert_int_equal(store_write_object(r->store, &d, span_str(content), &w), 0);
    assert_int_equal(rig_apply(r, &c), 0);
    return d;
}

static void test_another_format_is_moved_away(void **state)
{
    struct rig *r = *state;
    struct digest d = put_whole(r, "some content");
    rig_close(r);
    set_format(r, RECORD_FORMAT + 1);
    fprintf(stderr, "(the log line about the index that follows is expected)\n");
    rig_open(r);
    check_made_anew(r, &d, 12);
    struct store_totals t;
    store_totals(r->store, &t);
    assert_int_equal(t.quarantined, 0); /* counted at the next start */
    rig_close(r);
    rig_open(r);
    store_totals(r->store, &t);
    assert_int_equal(t.quarantined, 1);
}

static void test_a_foreign_database_is_refused(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    struct surgery s;
    surgery_begin(&s, r, "meta");
    assert_int_equal(mdb_drop(s.txn, s.dbi, 0), 0);
    surgery_end(&s);
    assert_refused(r, "larder did not make");
}

static void test_a_garbled_database_is_moved_away(void **state)
{
    struct rig *r = *state;
    struct digest d = put_whole(r, "some content");
    rig_close(r);
    char path[160], garbage[16384];
    snprintf(path, sizeof path, "%s/index/data.mdb", r->path);
    memset(garbage, 'x', sizeof garbage);
    rig_write_file(path, garbage, sizeof garbage);
    fprintf(stderr, "(the log line about the index that follows is expected)\n");
    rig_open(r);
    check_made_anew(r, &d, 12);
}

static void test_a_lost_index_is_made_anew(void **state)
{
    struct rig *r = *state;
    struct digest d = put_whole(r, "some content");
    rig_close(r);
    char path[160];
    snprintf(path, sizeof path, "%s/index/data.mdb", r->path);
    assert_int_equal(unlink(path), 0);
    rig_open(r);
    check_made_anew(r, &d, 12);
}

/* ---- format 1 ---- */

static void put_1(MDB_txn *txn, const char *table, const void *key, size_t key_n, const void *fields,
                  size_t n)
{
    MDB_dbi dbi;
    unsigned char record[512] = {0};
    MDB_val k = {.mv_data = (void *)(uintptr_t)key, .mv_size = key_n},
            v = {.mv_data = record, .mv_size = 10 + n};
    memcpy(record + 10, fields, n);
    le_store(record, meta_sum(span_of(key, key_n), record + 8, 2 + n), 8);
    assert_int_equal(mdb_dbi_open(txn, table, MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
}

static void test_format_1_is_brought_along(void **state)
{
    struct rig *r = *state;
    struct digest blob = rig_digest(1), manifest = rig_digest(2);
    rig_close(r);
    char path[160];
    snprintf(path, sizeof path, "%s/index/data.mdb", r->path);
    assert_int_equal(unlink(path), 0);
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi meta;
    *strrchr(path, '/') = '\0';
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 16), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0640), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "meta", MDB_CREATE, &meta), 0);
    MDB_val k = {.mv_data = "format", .mv_size = 6}, v = {.mv_data = "\x01\0\0\0", .mv_size = 4};
    assert_int_equal(mdb_put(txn, meta, &k, &v, 0), 0);
    unsigned char object[16], key[64], tag[33 + 8 + 1 + sizeof MANIFEST], media[1 + sizeof MANIFEST];
    le_store(object, 1234, 8);
    le_store(object + 8, 1700000000000, 8);
    put_1(txn, "objects", digest_key(&blob).p, 33, object, 16);
    put_1(txn, "objects", digest_key(&manifest).p, 33, object, 16);
    memcpy(key, "quay.io/x", 10);
    memcpy(key + 10, digest_key(&blob).p, 33);
    put_1(txn, "links", key, 43, "", 1);
    memcpy(key + 10, digest_key(&manifest).p, 33);
    media[0] = sizeof MANIFEST - 1;
    memcpy(media + 1, MANIFEST, sizeof MANIFEST - 1);
    put_1(txn, "links", key, 43, media, sizeof MANIFEST);
    memcpy(tag, digest_key(&manifest).p, 33);
    le_store(tag + 33, 1700000000123, 8);
    memcpy(tag + 41, media, sizeof MANIFEST);
    put_1(txn, "tags", "quay.io/x\0one", 13, tag, 41 + sizeof MANIFEST);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);

    for (unsigned round = 0; round < 2; round++) {
        struct store_tag is;
        struct store_link link;
        struct store_object o;
        rig_open(r);
        assert_totals(r, 2, 2468);
        assert_true(has_tag(r, "quay.io/x", "one", &is));
        assert_true(digest_eq(&is.digest, &manifest));
        assert_true(has_link(r, "quay.io/x", &manifest));
        struct store_reader *reader = store_reader_new(r->store);
        assert_true(store_get_link(reader, SPAN("quay.io/x"), &blob, &link));
        assert_true(store_get_object(reader, &blob, &o));
        assert_int_equal(o.stored_ms, 1700000000000);
        assert_int_equal(o.kind, STORE_BLOB);
        assert_true(store_get_object(reader, &manifest, &o));
        assert_int_equal(o.kind, STORE_MANIFEST);
        assert_false(o.sum.known);
        assert_false(o.suspect);
        store_reader_free(reader);
        if (round == 0)
            rig_close(r);
    }
}

/* ---- touches ---- */

static void test_touches_reach_the_index(void **state)
{
    struct rig *r = *state;
    struct store_object before, after;
    struct digest d = rig_digest(1), unknown = rig_digest(2);
    struct store_change c = change(CHANGE_PUT_OBJECT, "", "", &d);
    assert_int_equal(rig_apply(r, &c), 0);
    struct store_reader *reader = store_reader_new(r->store);
    assert_true(store_get_object(reader, &d, &before));
    assert_int_equal(before.hits, 0);
    for (unsigned i = 0; i < 3; i++)
        store_touch(reader, &d, clock_mono_ms() + 1000);
    store_touch(reader, &unknown, clock_mono_ms());
    store_tidy(r->store);
    assert_true(store_get_object(reader, &d, &after));
    assert_int_equal(after.hits, 3);
    assert_true(after.access_ms > before.access_ms);
    assert_int_equal(after.stored_ms, before.stored_ms);
    /* More than the table holds: some are forgotten, nothing else happens. */
    for (unsigned i = 0; i < 5000; i++) {
        struct digest other = rig_digest(100 + i);
        store_touch(reader, &other, clock_mono_ms());
    }
    store_touch(reader, &d, clock_mono_ms());
    store_reader_free(reader);
    rig_close(r); /* what readers had is written down at the end */
    rig_open(r);
    reader = store_reader_new(r->store);
    assert_true(store_get_object(reader, &d, &after));
    assert_true(after.hits >= 3);
    store_touch(reader, &d, clock_mono_ms());
    store_reader_free(reader);
    uint32_t hits = after.hits;
    rig_close(r);
    rig_open(r);
    reader = store_reader_new(r->store);
    assert_true(store_get_object(reader, &d, &after));
    assert_int_equal(after.hits, hits + 1);
    store_reader_free(reader);
}

/* What a manifest names: a configuration is known as one, whichever comes first. */
static void test_a_configuration_is_known(void **state)
{
    struct rig *r = *state;
    struct store_object o;
    struct digest m = rig_digest(1), configs[2] = {rig_digest(2), rig_digest(3)};
    struct store_ref refs[2] = {{.digest = configs[0], .role = REF_CONFIG},
                                {.digest = configs[1], .role = REF_CONFIG}};
    struct store_change c = change(CHANGE_PUT_OBJECT, "", "", &configs[0]);
    assert_int_equal(rig_apply(r, &c), 0);
    c = change(put_all | CHANGE_PUT_REFS, "a/b", "c", &m);
    c.refs = refs;
    c.n_refs = 2;
    assert_int_equal(rig_apply(r, &c), 0);
    c = change(CHANGE_PUT_OBJECT, "", "", &configs[1]);
    assert_int_equal(rig_apply(r, &c), 0);
    struct store_reader *reader = store_reader_new(r->store);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(store_get_object(reader, &configs[i], &o));
        assert_int_equal(o.kind, STORE_CONFIG);
    }
    assert_true(store_get_object(reader, &m, &o));
    assert_int_equal(o.kind, STORE_MANIFEST);
    store_reader_free(reader);
}

/* ---- the writer ---- */

#define MANY 3000

static void test_many_changes_at_once(void **state)
{
    struct rig *r = *state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct rig_change *x = calloc(MANY, sizeof *x);
    for (unsigned i = 0; i < MANY; i++) {
        struct digest d = rig_digest(i % 1000); /* each object three times */
        x[i] = (struct rig_change){.c = change(CHANGE_PUT_OBJECT, "", "", &d), .done = &done};
        x[i].c.size = 10 + i / 1000;
        store_apply(r->store, r->core, &x[i].c, rig_changed);
    }
    for (unsigned i = 0; i < MANY; i++)
        rig_wait(&done);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(x[i].times, 1);
        assert_int_equal(x[i].c.err, 0);
        assert_true(x[i].on_core);
    }
    struct digest d = rig_digest(999);
    assert_true(has_object(r, &d, 12)); /* in the order in which they came */
    assert_totals(r, 1000, 12000);
    free(x);
    sem_destroy(&done);
}

static void test_close_drains(void **state)
{
    struct rig *r = *state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct rig_change *x = calloc(MANY, sizeof *x);
    for (unsigned i = 0; i < MANY; i++) {
        struct digest d = rig_digest(i);
        x[i] = (struct rig_change){.c = change(CHANGE_PUT_OBJECT, "", "", &d), .done = &done};
        store_apply(r->store, r->core, &x[i].c, rig_changed);
    }
    rig_close(r);
    for (unsigned i = 0; i < MANY; i++)
        rig_wait(&done);
    rig_open(r);
    assert_totals(r, MANY, MANY * UINT64_C(1234));
    free(x);
    sem_destroy(&done);
}

/* With an index that cannot hold all of them: those that fail say so, those that do not are there, and neither spoils
 * the other. */
static void test_a_full_index_fails_single_changes(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    char why[1024] = "";
    struct str w = STR_INIT(why);
    r->store = store_open_sized(span_str(r->path), 256 << 10, &w);
    assert_non_null(r->store);
    fprintf(stderr, "(the log lines about MDB_MAP_FULL that follow are expected)\n");
    sem_t done;
    sem_init(&done, 0, 0);
    struct rig_change *x = calloc(MANY, sizeof *x);
    for (unsigned i = 0; i < MANY; i++) {
        struct digest d = rig_digest(i);
        x[i] = (struct rig_change){.c = change(CHANGE_PUT_OBJECT | CHANGE_PUT_LINK, "a/b", "", &d),
                                   .done = &done};
        store_apply(r->store, r->core, &x[i].c, rig_changed);
    }
    for (unsigned i = 0; i < MANY; i++)
        rig_wait(&done);
    unsigned good = 0;
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(x[i].times, 1);
        assert_true(x[i].c.err == 0 || x[i].c.err == ERR_STORE);
        bool there = has_object(r, &x[i].c.digest, 1234);
        assert_int_equal(there, x[i].c.err == 0);
        assert_int_equal(has_link(r, "a/b", &x[i].c.digest), there); /* both or none */
        good += there;
    }
    assert_true(good > 0 && good < MANY);
    assert_totals(r, good, good * UINT64_C(1234));
    rig_close(r);
    rig_open(r); /* with the usual limit it takes changes again */
    assert_totals(r, good, good * UINT64_C(1234));
    struct digest d = rig_digest(MANY);
    struct store_change c = change(put_all, "a/b", "c", &d);
    assert_int_equal(rig_apply(r, &c), 0);
    assert_totals(r, good + 1, (good + 1) * UINT64_C(1234));
    free(x);
    sem_destroy(&done);
}

/* ---- readers beside the writer ---- */

struct looker {
    struct rig *r;
    atomic_bool *stop;
    unsigned mixed, seen;
};

/* The tag changes all the time between two digests, each with a time of its own: never a mixture. */
static void *look(void *arg)
{
    struct looker *l = arg;
    struct store_reader *reader = store_reader_new(l->r->store);
    struct digest d[2] = {rig_digest(0), rig_digest(1)};
    while (!atomic_load(l->stop)) {
        struct store_tag tag;
        if (!store_get_tag(reader, SPAN("a/b"), SPAN("t"), &tag))
            continue;
        l->seen++;
        if (!digest_eq(&tag.digest, &d[tag.checked_ms & 1]) || strcmp(tag.media, MANIFEST) != 0)
            l->mixed++;
    }
    store_reader_free(reader);
    return NULL;
}

static void test_readers_see_whole_changes(void **state)
{
    struct rig *r = *state;
    atomic_bool stop = false;
    struct looker l[2] = {{.r = r, .stop = &stop}, {.r = r, .stop = &stop}};
    pthread_t t[2];
    struct digest first = rig_digest(0);
    struct store_change c = change(CHANGE_PUT_TAG, "a/b", "t", &first);
    c.checked_ms = 0;
    assert_int_equal(rig_apply(r, &c), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, look, &l[i]), 0);
    for (unsigned i = 1; i <= 200; i++) {
        struct digest d = rig_digest(i & 1);
        c = change(CHANGE_PUT_TAG, "a/b", "t", &d);
        c.checked_ms = i;
        assert_int_equal(rig_apply(r, &c), 0);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(l[i].mixed, 0);
        assert_true(l[i].seen > 0);
    }
    assert_int_equal(damaged(r), 0);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_records_come_back),
        RIG_TEST(test_sha512_and_no_media),
        RIG_TEST(test_long_names),
        RIG_TEST(test_totals_count_each_object_once),
        RIG_TEST(test_records_keep_their_format),
        RIG_TEST(test_a_flipped_bit_is_not_there),
        RIG_TEST(test_a_short_record_is_not_there),
        RIG_TEST(test_a_swapped_record_is_not_there),
        RIG_TEST(test_a_damaged_record_is_replaced),
        RIG_TEST(test_lost_totals_are_counted),
        RIG_TEST(test_another_format_is_moved_away),
        RIG_TEST(test_a_foreign_database_is_refused),
        RIG_TEST(test_a_garbled_database_is_moved_away),
        RIG_TEST(test_a_lost_index_is_made_anew),
        RIG_TEST(test_format_1_is_brought_along),
        RIG_TEST(test_touches_reach_the_index),
        RIG_TEST(test_a_configuration_is_known),
        RIG_TEST(test_many_changes_at_once),
        RIG_TEST(test_close_drains),
        RIG_TEST(test_a_full_index_fails_single_changes),
        RIG_TEST(test_readers_see_whole_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
