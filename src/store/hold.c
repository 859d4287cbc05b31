/* Holds: one small record per digest in which somebody has an interest just now, so that nothing that is in use, or on its way into
 * the index, is taken for old or for a leftover.
 *
 *     opened (open.c)       refs; `users` while somebody reads
 *     filled (partial.c)    fills, partial, expected; a second fill has a hold of its own, which only counts
 *     placed                between the rename into blobs/ and the index's word (partial.c, layout.c; index.c)
 *     claimed               between the index's forgetting and the unlink (evict.c and others, under s->evict)
 *
 * Placing waits for a claim to end, a claim does not touch what is placed: so no file is unlinked that a fill has just put there, and no
 * entry is made for a file that is about to go.
 *
 * A reader that comes while the object is claimed has the file open: the unlink does not disturb it. Sets of open objects
 * are told about what is gone, so that idle descriptors do not keep the space. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "store/store_int.h"

/* What was placed and never came into the index (its flow was closed in between) is a leftover after this time. */
#define PLACED_MAX_MS 600000

static struct store_hold *hold_of(struct store *s, const struct digest *d)
{
    struct store_hold *h = map_get(&s->holds, digest_key(d));
    if (h == NULL) {
        NEW(h);
        h->digest = *d;
        atomic_init(&h->users, 0);
        map_put(&s->holds, digest_key(&h->digest), h);
    }
    h->refs++;
    return h;
}

static void drop(struct store *s, struct store_hold *h)
{
    MUST(h->refs > 0);
    if (--h->refs > 0)
        return;
    if (!h->second)
        MUST(map_del(&s->holds, digest_key(&h->digest)) == h);
    mem_free(h);
}

struct store_hold *store_hold(struct store *s, const struct digest *d)
{
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = hold_of(s, d);
    pthread_mutex_unlock(&s->holds_lock);
    return h;
}

void store_release(struct store *s, struct store_hold *h)
{
    pthread_mutex_lock(&s->holds_lock);
    drop(s, h);
    pthread_mutex_unlock(&s->holds_lock);
}

bool hold_gone(struct store *s, struct store_hold *h)
{
    pthread_mutex_lock(&s->holds_lock);
    bool gone = h->gone;
    pthread_mutex_unlock(&s->holds_lock);
    return gone;
}

/* ---- placing ---- */

void hold_place(struct store *s, const struct digest *d)
{
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = hold_of(s, d);
    while (h->claimed)
        pthread_cond_wait(&s->unclaimed, &s->holds_lock);
    h->placed_ms = clock_mono_ms();
    h->gone = false;
    if (h->placed++ > 0)
        drop(s, h); /* one reference is enough */
    pthread_mutex_unlock(&s->holds_lock);
}

static void not_placed(struct store *s, struct store_hold *h)
{
    if (h != NULL && h->placed > 0 && --h->placed == 0)
        drop(s, h);
}

void hold_indexed(struct store *s, const struct digest *d)
{
    pthread_mutex_lock(&s->holds_lock);
    not_placed(s, map_get(&s->holds, digest_key(d)));
    pthread_mutex_unlock(&s->holds_lock);
}

void hold_not_placed(struct store *s, const struct digest *d)
{
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = map_get(&s->holds, digest_key(d));
    bool placed = h != NULL && h->placed > 0;
    not_placed(s, h);
    pthread_mutex_unlock(&s->holds_lock);
    if (placed)
        atomic_store(&s->strays, true);
}

bool hold_strays(struct store *s)
{
    pthread_mutex_lock(&s->holds_lock);
    bool placed = s->holds.used > 0; /* nothing else is held at the end */
    pthread_mutex_unlock(&s->holds_lock);
    return placed || atomic_load(&s->strays);
}

/* ---- removing ---- */

bool hold_claim(struct store *s, const struct digest *d, bool force)
{
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = map_get(&s->holds, digest_key(d));
    if (h != NULL && h->placed > 0 && clock_mono_ms() - h->placed_ms > PLACED_MAX_MS) {
        bool last = h->refs == 1;
        h->placed = 1;
        not_placed(s, h);
        atomic_store(&s->strays, true);
        if (last)
            h = NULL;
    }
    bool busy = h != NULL && (h->placed > 0 || h->claimed ||
                              (!force && atomic_load_explicit(&h->users, memory_order_relaxed) > 0));
    if (!busy)
        hold_of(s, d)->claimed = true;
    pthread_mutex_unlock(&s->holds_lock);
    return !busy;
}

void hold_unclaim(struct store *s, const struct digest *d, bool removed)
{
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = map_get(&s->holds, digest_key(d));
    MUST(h != NULL && h->claimed);
    h->claimed = false;
    if (removed && h->refs > 1) {
        h->gone = true;
        LIST_FOREACH (n, &s->sets) {
            struct store_set *set = CONTAINER_OF(n, struct store_set, node);
            core_post(set->core, &set->msg);
        }
    }
    drop(s, h);
    pthread_cond_broadcast(&s->unclaimed);
    pthread_mutex_unlock(&s->holds_lock);
}

void hold_add_set(struct store *s, struct store_set *set)
{
    pthread_mutex_lock(&s->holds_lock);
    list_push_back(&s->sets, &set->node);
    pthread_mutex_unlock(&s->holds_lock);
}

void hold_remove_set(struct store *s, struct store_set *set)
{
    pthread_mutex_lock(&s->holds_lock);
    list_remove(&set->node);
    pthread_mutex_unlock(&s->holds_lock);
}

/* ---- partial files ---- */

static void count_partial(struct store *s, struct store_hold *h, uint64_t bytes)
{
    atomic_fetch_add_explicit(&s->partial_bytes, bytes - h->partial, memory_order_relaxed);
    h->partial = bytes;
}

static void expect(struct store *s, struct store_hold *h, uint64_t bytes)
{
    s->filling += bytes - h->expected;
    h->expected = bytes;
}

struct store_hold *hold_fill(struct store *s, const struct digest *d)
{
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = hold_of(s, d);
    h->fills++;
    pthread_mutex_unlock(&s->holds_lock);
    return h;
}

struct store_hold *hold_fill_second(const struct digest *d)
{
    struct store_hold *h;
    NEW(h);
    h->digest = *d;
    h->second = true;
    h->refs = h->fills = 1;
    return h;
}

void hold_fill_from(struct store *s, struct store_hold *h, uint64_t bytes)
{
    pthread_mutex_lock(&s->holds_lock);
    if (h->fills == 1)
        h->partial = bytes;
    pthread_mutex_unlock(&s->holds_lock);
}

bool hold_fill_alone(struct store *s, struct store_hold *h)
{
    pthread_mutex_lock(&s->holds_lock);
    bool alone = h->fills == 1;
    pthread_mutex_unlock(&s->holds_lock);
    return alone;
}

void hold_fill_is(struct store *s, struct store_hold *h, uint64_t bytes)
{
    pthread_mutex_lock(&s->holds_lock);
    count_partial(s, h, bytes);
    pthread_mutex_unlock(&s->holds_lock);
}

void hold_fill_end(struct store *s, struct store_hold *h)
{
    pthread_mutex_lock(&s->holds_lock);
    MUST(h->fills > 0);
    if (--h->fills == 0)
        expect(s, h, 0);
    drop(s, h);
    pthread_mutex_unlock(&s->holds_lock);
}

bool hold_fill_expects(struct store *s, struct store_hold *h, uint64_t bytes, uint64_t room)
{
    pthread_mutex_lock(&s->holds_lock);
    uint64_t others = s->filling - h->expected;
    bool fits = bytes <= room && others <= room - bytes;
    if (fits)
        expect(s, h, bytes);
    pthread_mutex_unlock(&s->holds_lock);
    return fits;
}

void hold_fill_over(struct store *s, struct store_hold *h)
{
    pthread_mutex_lock(&s->holds_lock);
    expect(s, h, 0);
    pthread_mutex_unlock(&s->holds_lock);
}

/* Only the name goes under the lock: taking a large file apart takes long. How large it is, too: since it was listed a fill may have come
 * and gone. */
bool hold_drop_partial(struct store *s, const struct digest *d, const char *name, uint64_t *bytes)
{
    char tmp[STORE_NAME_MAX];
    struct stat st;
    struct str t = STR_INIT(tmp);
    str_addz(&t, "dropped.");
    str_addu(&t, atomic_fetch_add_explicit(&s->tmp_names, 1, memory_order_relaxed));
    pthread_mutex_lock(&s->holds_lock);
    struct store_hold *h = map_get(&s->holds, digest_key(d));
    bool idle = h == NULL || h->fills == 0;
    bool removed = idle && fstatat(s->dirs[STORE_DIR_PARTIAL], name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                   store_move(s, STORE_DIR_PARTIAL, name, STORE_DIR_TMP, tmp) == 0;
    if (removed) {
        *bytes = store_taken(&st);
        atomic_fetch_sub_explicit(&s->partial_bytes, *bytes, memory_order_relaxed);
        atomic_fetch_sub_explicit(&s->partials, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&s->holds_lock);
    if (removed && unlinkat(s->dirs[STORE_DIR_TMP], tmp, 0) != 0)
        log_error("store", "cannot remove a file from tmp/", LOG_S("name", tmp),
                  LOG_S("error", store_errno_words(errno)));
    return removed;
}

void hold_end(struct store *s)
{
    struct store_hold *h;
    size_t at = 0;
    MUST(list_empty(&s->sets));
    while ((h = map_next(&s->holds, &at)) != NULL) {
        MUST(h->placed > 0 && h->refs == 1);
        mem_free(h);
    }
    map_free(&s->holds);
}
