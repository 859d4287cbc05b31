/* The index inside the store: transactions over records (record_int.h), for whatever changes or walks it.
 *
 * Every change of objects goes through itxn_put_object and itxn_del_object, which keep the order of eviction (lru) and the totals.
 * The totals stand in meta and change in the same transaction, so they are exact after any end.
 *
 * Threads: a transaction belongs to one thread. Writing ones exclude each other (LMDB's lock). */
#ifndef LARDER_STORE_INDEX_INT_H
#define LARDER_STORE_INDEX_INT_H

#include <pthread.h>

#include "store/db_int.h"
#include "store/record_int.h"
#include "store/store_int.h"

struct index {
    struct store *store;
    size_t max;    /* of the environment's size */
    struct db *db; /* NULL: it could not be opened again (index_reopen) */
    /* Shared by transactions, held alone while the environment is closed and opened again; db, meta and tables change then only. */
    pthread_rwlock_t gate;
    atomic_bool broken; /* it is to be opened again */
    unsigned meta, tables[TABLES];
    atomic_uint readers;
    _Atomic uint64_t objects, bytes, damaged;
    _Atomic uint64_t commits; /* since start */
    atomic_bool recount;      /* a record of the pool was found damaged, so the totals are not sure */
    /* Objects stored in this time are suspects, unless they were checked since. Empty: to is 0. */
    _Atomic int64_t suspect_from, suspect_to;
    atomic_bool adopted; /* there may be objects that are RECORD_UNVERIFIED */

    pthread_t writer;
    bool writing;         /* the thread runs */
    pthread_mutex_t lock; /* guards queue, stopping */
    pthread_cond_t wake;
    struct list queue;
    bool stopping;

    pthread_mutex_t readers_lock; /* guards reader_list, left */
    struct list reader_list;
    struct list left; /* touches of readers that are gone */
};

/* NULL: why. `s` has its folders. */
struct index *index_open(struct store *s, size_t index_max, struct str *why) MUSTCHECK;
void index_close(struct index *x); /* drains the queue of changes */

/* ---- transactions ---- */

struct itxn {
    struct index *x;
    struct db_txn *t;
    uint64_t objects, bytes; /* what it does to the totals; wraps below zero and back: only sums count */
    bool damage;             /* it met a damaged record of the pool */
    bool stored;             /* something was stored, which may not change the totals */
    bool gated;              /* shares the gate */
};

/* 0 or an rc of db_int.h. */
int itxn_write(struct index *x, struct itxn *t) MUSTCHECK;
int itxn_read(struct index *x, struct itxn *t) MUSTCHECK;
int itxn_commit(struct itxn *t) MUSTCHECK;
void itxn_end(struct itxn *t); /* reading, or aborting */

/* False: not there (a damaged record counts as not there, and is logged). */
bool itxn_object(struct itxn *t, const struct digest *d, struct pool_entry *out) MUSTCHECK;
bool itxn_tag(struct itxn *t, struct span repo, struct span tag, struct store_tag *out) MUSTCHECK;
bool itxn_link(struct itxn *t, struct span repo, const struct digest *d, struct store_link *out) MUSTCHECK;
int itxn_put_object(struct itxn *t, const struct digest *d, const struct pool_entry *e) MUSTCHECK;
int itxn_del_object(struct itxn *t, const struct digest *d) MUSTCHECK;
int itxn_put(struct itxn *t, const struct key *k,
             const struct record *r) MUSTCHECK; /* r NULL: nothing stands in it */
int itxn_del(struct itxn *t, const struct key *k) MUSTCHECK;
bool itxn_has(struct itxn *t, const struct key *k);
int itxn_put_refs(struct itxn *t, const struct digest *d, const struct store_ref *refs, size_t n) MUSTCHECK;
/* The digests that a manifest names. False: not known. Free *refs with mem_free. */
bool itxn_refs(struct itxn *t, const struct digest *d, struct store_ref **refs, size_t *n) MUSTCHECK;

/* A blob of the pool becomes a manifest or an index, as the media type says. */
int itxn_set_kind(struct itxn *t, const struct digest *d, const struct store_link *link) MUSTCHECK;
/* Writes the totals as this transaction has them so far; they are of it alone. */
int itxn_put_totals(struct itxn *t) MUSTCHECK;

/* All the index knows of it: tags that name it (if `tags`), links, refs, entry. *n_tags, *n_links count up. */
int itxn_forget(struct itxn *t, const struct digest *d, bool tags, uint64_t *n_tags,
                uint64_t *n_links) MUSTCHECK;
/* Calls `each` for every link of the object until it says false. `full` is the full key. */
int itxn_each_owner(struct itxn *t, const struct digest *d,
                    bool (*each)(struct span repo, const struct store_link *link, void *arg),
                    void *arg) MUSTCHECK;
/* Calls `each` for every tag of repositories that are `repo` (exact) or begin with it, until it says false. */
int itxn_each_tag(struct itxn *t, struct span repo, bool exact,
                  bool (*each)(struct span repo, struct span tag, const struct store_tag *is, void *arg),
                  void *arg) MUSTCHECK;

/* The same for the tag of one repository (without an account) as each account has it. */
int itxn_each_account(struct itxn *t, struct span repo, struct span tag,
                      bool (*each)(struct span repo, struct span tag, const struct store_tag *is, void *arg),
                      void *arg) MUSTCHECK;
/* The one of these that was checked last. False: there is none. */
bool itxn_any_tag(struct itxn *t, struct span repo, struct span tag, struct store_tag *out) MUSTCHECK;

/* ---- meta: small values with a sum ---- */

bool meta_get(struct itxn *t, const char *name, void *value,
              size_t n) MUSTCHECK; /* false: none, or damaged */
int meta_put(struct itxn *t, const char *name, const void *value, size_t n) MUSTCHECK;

/* ---- other ---- */

/* Writes down what readers' tables have. 0 or an rc. */
int index_flush_touches(struct index *x) MUSTCHECK;
/* After a failure that LMDB cannot live with: closes the environment and opens it again, while nobody is in it. False: not yet. A change
 * that failed may be there all the same, so files and entries are to be compared. */
bool index_reopen(struct index *x);
/* Counts anew, drops damaged records of the pool, makes the order of eviction anew. One transaction. 0 or an rc. */
int index_recount(struct index *x) MUSTCHECK;
/* The object was verified: it is no suspect any more; a sum that was not known is written down. Blocking. */
void index_checked(struct index *x, const struct digest *d, uint64_t size, const struct content_sum *sum);
bool index_is_suspect(const struct index *x, const struct pool_entry *e);
bool index_has_suspects(const struct index *x);
/* All suspects have been verified. 0 or an rc. */
int index_no_suspects(struct index *x) MUSTCHECK;
/* The transaction adds objects that are RECORD_UNVERIFIED. 0 or an rc. */
int itxn_adopting(struct itxn *t) MUSTCHECK;

/* ---- migrate.c ---- */

/* Reads what format 1 has into the tables of this one, and removes the old tables. 0 or an rc. */
int migrate_from_1(struct itxn *t) MUSTCHECK;

#endif
