/* Walks over the pool that read it. The keeper gives each its pace: a step reads one piece of one file, or looks at a batch of records.
 *
 * The scrubber goes round; where it is stands in the index under "scrub" (a digest's key, padded), written now and then and at the
 * end, so that a pool which takes weeks to read is read all the same when the process starts anew each day. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "store/index_int.h"
#include "store/list.h"

#define BATCH      64
#define SAVE_BYTES (UINT64_C(256) << 20)
/* Bytes that could be read while a small object is found, opened and written down. */
#define LEAST_COST (64u << 10)

#define SAVED_MAX (1 + 1 + DIGEST_RAW_MAX) /* length, key */

struct scrub {
    struct store *store;
    bool suspects;
    struct list_cursor cursor;
    struct list_object batch[BATCH];
    size_t at, n;
    struct check *check;  /* of the object that is being read */
    uint64_t read;        /* of it */
    struct digest now_at; /* that object */
    struct digest last;   /* the one before: what is written down */
    uint64_t unsaved;
    bool failed; /* something could not be looked at */

    pthread_mutex_t lock; /* guards now */
    struct store_scrub now;
};

static void load(struct scrub *c)
{
    unsigned char saved[SAVED_MAX];
    struct itxn t;
    if (itxn_read(c->store->index, &t) == 0 && meta_get(&t, "scrub", saved, sizeof saved) &&
        saved[0] < SAVED_MAX) {
        memcpy(c->cursor.key, saved + 1, saved[0]);
        c->cursor.n = saved[0];
    }
    itxn_end(&t);
}

static void save(struct scrub *c)
{
    unsigned char saved[SAVED_MAX] = {0};
    struct itxn t;
    c->unsaved = 0;
    if (c->suspects)
        return;
    if (c->last.alg != DIGEST_NONE) {
        saved[0] = (unsigned char)(1 + digest_raw_len(&c->last));
        memcpy(saved + 1, digest_key(&c->last).p, saved[0]);
    }
    int rc = itxn_write(c->store->index, &t);
    if (rc == 0)
        rc = meta_put(&t, "scrub", saved, sizeof saved);
    if (rc == 0)
        rc = itxn_commit(&t);
    else
        itxn_end(&t);
    if (rc != 0)
        log_warn("store", "cannot write down where scrubbing is", LOG_S("error", db_words(rc)));
}

struct scrub *scrub_new(struct store *s, bool suspects)
{
    struct scrub *c;
    NEW(c);
    c->store = s;
    c->suspects = suspects;
    pthread_mutex_init(&c->lock, NULL);
    if (!suspects)
        load(c);
    return c;
}

void scrub_free(struct scrub *c)
{
    if (c == NULL)
        return;
    check_free(c->check);
    if (c->last.alg != DIGEST_NONE)
        save(c);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

static void count(struct scrub *c, uint64_t bytes, unsigned objects, bool damaged, bool round)
{
    pthread_mutex_lock(&c->lock);
    if (round)
        c->now = (struct store_scrub){.rounds = c->now.rounds + 1, .damaged_ever = c->now.damaged_ever};
    c->now.bytes += bytes;
    c->now.objects += objects;
    c->now.damaged += damaged;
    c->now.damaged_ever += damaged;
    pthread_mutex_unlock(&c->lock);
}

static void end_object(struct scrub *c)
{
    enum verify_found found = check_end(c->check);
    c->check = NULL;
    c->last = c->now_at;
    c->failed = c->failed || found == VERIFY_FAILED;
    count(c, 0, 1, found == VERIFY_DAMAGED || found == VERIFY_MISSING, false);
    if (c->unsaved >= SAVE_BYTES)
        save(c);
}

/* The next object of the batch; false: there is none. */
static bool begin_object(struct scrub *c)
{
    while (c->check == NULL && c->at < c->n) {
        const struct list_object *o = &c->batch[c->at++];
        if (c->suspects && !o->object.suspect)
            continue;
        c->now_at = o->digest;
        c->check = check_new(c->store, &o->digest, false);
    }
    return c->check != NULL;
}

static void end_round(struct scrub *c)
{
    c->cursor = (struct list_cursor){.n = 0};
    c->last = (struct digest){.alg = DIGEST_NONE};
    save(c);
    count(c, 0, 0, false, true);
    if (!c->suspects || c->failed)
        return;
    int rc = index_no_suspects(c->store->index);
    if (rc != 0)
        log_warn("store", "cannot write down that all objects were verified", LOG_S("error", db_words(rc)));
}

bool scrub_step(struct scrub *c, uint64_t *bytes)
{
    *bytes = 0;
    if (!begin_object(c)) {
        if (c->cursor.end) {
            end_round(c);
            return false;
        }
        c->at = 0;
        c->n = store_list_objects(c->store, ~0u, &c->cursor, c->batch, BATCH);
        return true;
    }
    size_t n = check_step(c->check, CHECK_MAX);
    *bytes = n;
    c->unsaved += n;
    count(c, n, 0, false, false);
    c->read += n;
    if (n == 0) {
        *bytes = c->read < LEAST_COST ? LEAST_COST - c->read : 0;
        c->read = 0;
        end_object(c);
    }
    return true;
}

void scrub_look(struct scrub *c, struct store_scrub *out)
{
    pthread_mutex_lock(&c->lock);
    *out = c->now;
    pthread_mutex_unlock(&c->lock);
}
