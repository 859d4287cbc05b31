/* What the files of the store share among themselves: the handle, its folders, holds, health.
 *
 * Locks, and what may be taken under which: evict > (a writing transaction of the index) > holds_lock; the keeper's lock and the
 * readers' locks (index_int.h) are leaves. */
#ifndef LARDER_STORE_STORE_INT_H
#define LARDER_STORE_STORE_INT_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/map.h"
#include "store/evict.h"
#include "store/health.h"
#include "store/store.h"
#include "store/verify.h"

#define STORE_FILE_MODE 0640
#define STORE_DIR_MODE  0750

/* The folders below <path>, parents before their children. One descriptor each is kept open, so that a rename costs
 * no path walk and a directory can be synced. */
#define STORE_DIR_TABLE(X)                                                                                   \
    X(BLOBS, "blobs")                                                                                        \
    X(SHA256, "blobs/sha256")                                                                                \
    X(SHA512, "blobs/sha512")                                                                                \
    X(PARTIAL, "partial")                                                                                    \
    X(INDEX, "index")                                                                                        \
    X(TMP, "tmp")                                                                                            \
    X(QUARANTINE, "quarantine")

enum store_dir {
#define X(id, name) STORE_DIR_##id,
    STORE_DIR_TABLE(X)
#undef X
        STORE_DIRS
};

#define STORE_MAGIC 0x570e0001u

struct store {
    unsigned magic;
    char *path; /* as given, without trailing slashes */
    int root, lock;
    int dirs[STORE_DIRS];
    bool unclean;          /* the run before did not end properly */
    atomic_uint tmp_names; /* makes names in tmp/ unique */
    struct index *index;
    struct keeper *keeper;

    /* Whatever removes objects, or takes files of blobs/ for leftovers, does it under this one. */
    pthread_mutex_t evict;
    _Atomic uint64_t evicted, evicted_bytes;

    /* Files in partial/ and quarantine/: on disk, not more than their length. */
    _Atomic uint64_t partials, partial_bytes;
    _Atomic uint64_t quarantined, quarantined_bytes;

    /* Of the objects that pins protect; some seconds old, as eviction looked last: at what the index was then (the keeper's own). */
    _Atomic uint64_t pinned_bytes;
    uint64_t pinned_at;

    /* As struct store_limits; each alone is enough for whoever reads it. */
    _Atomic uint64_t max_size, min_free, scrub_rate;
    _Atomic int64_t max_age_ms, partial_age_ms;
    atomic_uint min_free_percent;

    pthread_mutex_t holds_lock; /* guards holds, sets, filling, and what struct store_hold says */
    pthread_cond_t unclaimed;
    atomic_bool strays; /* there may be files in blobs/ without an entry: they are to be compared */
    struct map holds;
    uint64_t filling; /* what the fills under way will take: the sum of what they expect */
    struct list sets; /* of open.c: those that may have files open */

    pthread_mutex_t health_lock;
    struct store_health health;
    atomic_int fault;     /* health.fault, for a look without the lock */
    atomic_bool reserved; /* the reserve is there */
};

/* ---- layout.c ---- */

/* Longest file name that the store makes, with its terminator: "sha512-" and the hexadecimal, or the same with a number. */
#define STORE_NAME_MAX (7 + 128 + 1 + 10 + 1)

const char *store_dir_name(enum store_dir dir);
enum store_dir store_blobs_dir(const struct digest *d);
void store_blob_name(const struct digest *d, char name[STORE_NAME_MAX]); /* "<hex>" */
void store_flat_name(const struct digest *d, char name[STORE_NAME_MAX]); /* "<algorithm>-<hex>" */
/* Appends "cannot <what> <path>/<dir>/<name>: <error>; <what to do>" to why; returns ERR_STORE. `name` may be NULL: the
 * folder itself. */
int store_fail(const struct store *s, struct str *why, int error, const char *what, enum store_dir dir,
               const char *name);
/* The text of an errno value. Any thread (strerror is not for any thread). */
const char *store_errno_words(int error);
/* Moves a damaged object out of blobs/ (to quarantine/); none there: a no-op. Blocking. */
void store_quarantine(struct store *s, const struct digest *d);
/* Writes all of it at `off`, or returns the errno value. */
int store_write_all(int fd, uint64_t off, const void *bytes, size_t n);
/* Moves <from>/<from_name> to <to>/<to_name>, replacing what is there; 0 or the errno value. */
int store_move(const struct store *s, enum store_dir from, const char *from_name, enum store_dir to,
               const char *to_name);

/* As store_open, with a limit of the index's size in bytes (a smaller one is taken where the address space is small). */
struct store *store_open_sized(struct span path, size_t index_max, struct str *why) MUSTCHECK;

bool store_name_digest(struct span name, enum digest_alg alg, struct digest *d); /* of a file in blobs/ */
bool store_flat_digest(struct span name, struct digest *d); /* of a file in partial/ or quarantine/ */
/* Calls `each` for every entry of the folder until it says false; 0 or the errno value. */
int store_each_file(const struct store *s, enum store_dir dir, bool (*each)(const char *name, void *arg),
                    void *arg);
/* What a file takes on disk, not more than its length. */
uint64_t store_taken(const struct stat *st);
/* Signals are for the main thread: a thread of the store takes none. 0 or the errno value. */
int store_thread(pthread_t *thread, void *(*run)(void *arg), void *arg);

/* ---- hold.c: who has an interest in a digest just now ---- */

/* One per digest that anybody has open, fills, has placed, or evicts. Guarded by holds_lock, but for `users`. */
struct store_hold {
    struct digest digest;
    unsigned refs;     /* holders, and one each for the states below */
    atomic_uint users; /* open objects that are being read; changes without the lock */
    bool second;       /* of a second fill: not found by its digest */
    unsigned fills;    /* partial files that are open */
    uint64_t partial;  /* bytes of the partial file that the store's sum counts */
    uint64_t expected; /* what the file will have in the end, as far as it is known; 0: nobody fills it */
    unsigned
        placed; /* its file is in blobs/, its entry is on the way; so many times, as more than one may store it */
    int64_t placed_ms; /* clock_mono_ms */
    bool claimed;      /* being removed */
    bool gone;         /* was removed while somebody had it open */
};

/* An object is opened, is closed. Any thread. */
struct store_hold *store_hold(struct store *s, const struct digest *d);
void store_release(struct store *s, struct store_hold *h);
/* Somebody begins, ends to read it: it is not evicted meanwhile. */
static inline void hold_use(struct store_hold *h)
{
    atomic_fetch_add_explicit(&h->users, 1, memory_order_relaxed);
}
static inline void hold_unuse(struct store_hold *h)
{
    atomic_fetch_sub_explicit(&h->users, 1, memory_order_relaxed);
}
bool hold_gone(struct store *s, struct store_hold *h);

/* A file gets its name in blobs/ between these two. Waits while the digest is being removed. */
void hold_place(struct store *s, const struct digest *d);
void hold_not_placed(struct store *s, const struct digest *d);
/* The index has it, or never will. */
void hold_indexed(struct store *s, const struct digest *d);
/* At the end: may there be files in blobs/ that have no entry? */
bool hold_strays(struct store *s);
/* True: nobody reads it (with `force`: readers do not matter), nobody has just placed it: remove it, and unclaim it. `removed`:
 * those who have it open are told. */
bool hold_claim(struct store *s, const struct digest *d, bool force) MUSTCHECK;
void hold_unclaim(struct store *s, const struct digest *d, bool removed);

/* A partial file is about to be opened; it was there with so many bytes on disk, which are counted; it has so many now; it is closed. */
struct store_hold *hold_fill(struct store *s, const struct digest *d);
struct store_hold *hold_fill_second(const struct digest *d);
void hold_fill_from(struct store *s, struct store_hold *h, uint64_t bytes);
void hold_fill_is(struct store *s, struct store_hold *h, uint64_t bytes);
/* Does no reader of an earlier fill have the file? */
bool hold_fill_alone(struct store *s, struct store_hold *h) MUSTCHECK;
void hold_fill_end(struct store *s, struct store_hold *h);
/* All fills together may take `room`. False: they would not, and nothing is changed. */
bool hold_fill_expects(struct store *s, struct store_hold *h, uint64_t bytes, uint64_t room) MUSTCHECK;
/* It takes no more than it has. */
void hold_fill_over(struct store *s, struct store_hold *h);
/* Removes the partial file of that name, unless it is being filled; *bytes is what it took. */
bool hold_drop_partial(struct store *s, const struct digest *d, const char *name, uint64_t *bytes);

/* Sets of open objects, which close what is gone when they are told. */
struct store_set {
    struct list_node node;
    struct core *core;
    struct core_msg msg;
};
void hold_add_set(struct store *s, struct store_set *set);
void hold_remove_set(struct store *s, struct store_set *set); /* it is not posted any more */

/* Nobody holds anything; what was placed and not indexed is left over. */
void hold_end(struct store *s);

/* ---- health.c ---- */

void health_init(struct store *s);
/* A write failed. Returns what kind of failure that is. Any thread. */
enum store_fault health_note(struct store *s, int error);
/* The disk is full, and room was made for so many bytes, or some: try again. Blocking. */
bool health_relieved(struct store *s, int error, uint64_t bytes);
/* Is it over? Blocking. */
void health_probe(struct store *s);
/* The errno value of a failed change of the index: LMDB tells of a disk that became full in the middle of a write as EIO. */
int health_of_index(const struct store *s, int rc);
/* <path>/reserve, a file of a megabyte at most that is given up when the disk is so full that the index cannot even forget anything.
 * Keeping makes it where there is room; spending says whether there was one. */
void health_keep_reserve(struct store *s);
bool health_spend_reserve(struct store *s);

/* ---- evict.c ---- */

/* As much as the limits ask for, bounded by `stop`; false: nothing was to do. */
bool evict_by_limits(struct store *s, const atomic_bool *stop);
bool evict_is_due(struct store *s);
/* What fills may take together: what the limits leave when all that may go has gone. Cheap. */
uint64_t evict_room(struct store *s);
/* Sums up partial/ and quarantine/, removing what has no business there. 0 or an ERR_ code. */
int evict_count_files(struct store *s, struct str *why);
/* Removes the file of an object that the index has forgotten. */
void evict_unlink(struct store *s, const struct digest *d);
/* Old partial files, and what lies in quarantine. */
void evict_leftovers(struct store *s);

/* ---- adopt.c ---- */

/* Files in blobs/ without an entry become suspects. `stop` may be NULL. How many; -1: it could not be done, or was stopped. */
int64_t adopt_files(struct store *s, const atomic_bool *stop);

/* ---- verify.c ---- */

/* One object being compared with what the index says, piece by piece. For jobs and the store's own threads. */
struct check;
/* NULL: the index does not have it. */
struct check *check_new(struct store *s, const struct digest *d, bool deep);
/* Reads on, up to `max` bytes (CHECK_MAX at most); how many. 0: all that can be read was read. */
#define CHECK_MAX ((size_t)1 << 20)
size_t check_step(struct check *c, size_t max);
/* What came of it. Good: the index is told, if that is news. Else the index forgets it, and what is damaged goes to quarantine. Frees. */
enum verify_found check_end(struct check *c);
void check_free(struct check *c); /* without an answer; NULL: a no-op */

/* ---- scrub.c ---- */

/* A walk over the pool that reads. One with `suspects` only looks at these, and begins at the beginning; else it begins where the
 * one before ended. */
struct scrub;
struct scrub *scrub_new(struct store *s, bool suspects);
void scrub_free(struct scrub *c); /* remembers where it is */
/* Reads a piece, or looks at some records; *bytes is what was read, or could have been read in the time that a small object took. False: a
 * round has ended. */
bool scrub_step(struct scrub *c, uint64_t *bytes);
void scrub_look(struct scrub *c, struct store_scrub *out); /* any thread */

/* ---- keeper.c ---- */

struct keeper *keeper_start(struct store *s, struct str *why) MUSTCHECK;
void keeper_stop(struct keeper *k); /* NULL: a no-op */
void keeper_free(struct keeper *k); /* when nobody can wake it any more */
void keeper_wake(struct store *s);  /* there may be something to do. Any thread, cheap */

#endif
