/* LMDB as the rest of this room sees it: tables of bytes in one environment, transactions, cursors. db.c is the only file that
 * includes lmdb.h; nothing here knows what the bytes mean.
 *
 * A return value rc is 0, DB_NOTFOUND, DB_KEYEXIST, or another error (an errno value or one of LMDB's), for
 * db_words. Spans that come out point into the map: good until the transaction ends, or until the next change in it.
 *
 * Threads: any; a transaction belongs to one thread at a time. There is one writing transaction at a time, db_begin waits
 * for the one before. */
#ifndef LARDER_STORE_DB_INT_H
#define LARDER_STORE_DB_INT_H

#include "base/span.h"

#define DB_NOTFOUND (-30798)
#define DB_KEYEXIST (-30799)
#define DB_KEY_MAX  511

struct db;
struct db_txn;
struct db_cursor;

/* Opens or creates the environment in the folder `path`, which exists. `max` is a limit of its size in bytes: address space, no more;
 * where that is short, half of it is tried, and so on. */
int db_open(const char *path, size_t max, struct db **out) MUSTCHECK;
void db_close(struct db *db); /* NULL: a no-op. No transaction is open */
const char *db_words(int rc);
bool db_is_damage(int rc); /* it is no environment that can be read: damaged, or not LMDB's at all */
/* The environment takes nothing and gives nothing any more, until it is closed and opened again: LMDB could not write a part of which it
 * must know the state. */
bool db_is_fatal(int rc);
/* Clears what readers of ended processes left; how many. */
int db_clear_readers(struct db *db);
/* Pages of the map that stay in memory once they were used, if the system allows it (base/resident.h): a small index is all there, however
 * scarce memory is, and a large one costs no more than this. */
#define DB_STAYS ((size_t)16 << 20)
/* Takes the map's other pages out of this process: they stay in the page cache, and cost a fault when they are used again. */
void db_let_go(struct db *db);

int db_begin(struct db *db, bool write, struct db_txn **out) MUSTCHECK;
int db_commit(struct db_txn *t) MUSTCHECK; /* durable; `t` is gone, also on failure */
void db_end(struct db_txn *t);             /* aborts; NULL: a no-op */
/* Between look-ups a reading transaction is parked: it keeps its place in the table of readers, and no snapshot. */
void db_park(struct db_txn *t);
int db_resume(struct db_txn *t) MUSTCHECK;

int db_table(struct db_txn *t, const char *name, bool create, unsigned *table) MUSTCHECK;
int db_count(struct db_txn *t, unsigned table, uint64_t *out) MUSTCHECK;
int db_drop(struct db_txn *t, unsigned table, bool remove) MUSTCHECK; /* all entries; the table, too */
/* The environment has nothing in it. */
int db_is_fresh(struct db_txn *t, bool *out) MUSTCHECK;

int db_get(struct db_txn *t, unsigned table, struct span key, struct span *value) MUSTCHECK;
int db_put(struct db_txn *t, unsigned table, struct span key, struct span value) MUSTCHECK;
int db_del(struct db_txn *t, unsigned table, struct span key) MUSTCHECK; /* absent: 0 */

/* A cursor ends before its transaction. */
int db_cursor_open(struct db_txn *t, unsigned table, struct db_cursor **out) MUSTCHECK;
void db_cursor_close(struct db_cursor *c); /* NULL: a no-op */
/* The first entry at or above key (an empty key: the first of all), the entry behind the last one found. */
int db_seek(struct db_cursor *c, struct span from, struct span *key, struct span *value) MUSTCHECK;
int db_next(struct db_cursor *c, struct span *key, struct span *value) MUSTCHECK;
int db_del_here(struct db_cursor *c) MUSTCHECK; /* db_next goes on behind it */

#endif
