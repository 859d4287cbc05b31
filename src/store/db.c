/* LMDB. An environment is not locked against other processes here: <path>/lock is (layout.c). */
#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/resident.h"
#include "store/db_int.h"
#include "store/store_int.h"

#define READERS_MAX 1024
#define TABLES_MAX  16
#define MAX_LEAST   ((size_t)64 << 20) /* no smaller limit is tried where the address space is small */

/* NOLINTBEGIN(misc-redundant-expression): they are the same, and have to stay so */
_Static_assert(DB_NOTFOUND == MDB_NOTFOUND, "db_int.h repeats it");
_Static_assert(DB_KEYEXIST == MDB_KEYEXIST, "db_int.h repeats it");
/* NOLINTEND(misc-redundant-expression) */

struct db {
    MDB_env *env;
};

/* ---- LMDB's types behind our names ---- */

static struct db_txn *txn_out(MDB_txn *t)
{
    return (struct db_txn *)(void *)t;
}

static MDB_txn *txn_in(struct db_txn *t)
{
    return (MDB_txn *)(void *)t;
}

static MDB_cursor *cursor_in(struct db_cursor *c)
{
    return (MDB_cursor *)(void *)c;
}

static MDB_val val_of(struct span s)
{
    return (MDB_val){.mv_data = (void *)(uintptr_t)s.p, .mv_size = s.n}; /* LMDB only reads it */
}

static struct span span_of_val(MDB_val v)
{
    return span_of(v.mv_data, v.mv_size);
}

/* ---- the environment ---- */

static int open_env(const char *path, size_t max, MDB_env **out)
{
    int rc = mdb_env_create(out);
    if (rc != 0)
        return rc;
    MUST(mdb_env_set_maxdbs(*out, TABLES_MAX) == 0);
    MUST(mdb_env_set_maxreaders(*out, READERS_MAX) == 0);
    rc = mdb_env_set_mapsize(*out, max);
    if (rc == 0)
        rc = mdb_env_open(*out, path, MDB_NOTLS, STORE_FILE_MODE);
    if (rc != 0)
        mdb_env_close(*out);
    return rc;
}

/* LMDB does not say where its map is; the kernel does. */
static void each_mapping(struct db *db, void (*f)(void *start, size_t size))
{
    mdb_filehandle_t fd;
    struct stat st;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        return;
    char line[512];
    bool known = mdb_env_get_fd(db->env, &fd) == 0 && fstat(fd, &st) == 0;
    while (known && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        unsigned long long inode;
        char rights[5];
        /* A file of another file system may have the same inode number. Of a shared mapping nothing is lost; a private one would be as
         * if nothing had ever been written to it. */
        if (sscanf(line, "%lx-%lx %4s %*s %*s %llu", &from, &to, rights, &inode) == 4 && inode == st.st_ino &&
            rights[3] == 's')
            f((void *)from, to - from);
    }
    (void)fclose(maps);
}

static void let_go(void *start, size_t size)
{
    (void)madvise(start, size, MADV_DONTNEED); /* refused for what stays */
}

void db_let_go(struct db *db)
{
    each_mapping(db, let_go);
}

static void stay(void *start, size_t size)
{
    resident_mapping(start, size < DB_STAYS ? size : DB_STAYS);
}

int db_open(const char *path, size_t max, struct db **out)
{
    MDB_env *env;
    int rc;
    while ((rc = open_env(path, max, &env)) == ENOMEM && max / 2 >= MAX_LEAST)
        max /= 2;
    if (rc != 0)
        return rc;
    MUST(mdb_env_get_maxkeysize(env) >= DB_KEY_MAX);
    struct db *db;
    NEW(db);
    db->env = env;
    each_mapping(db, stay);
    *out = db;
    return 0;
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    mdb_env_close(db->env);
    mem_free(db);
}

const char *db_words(int rc)
{
    return rc > 0 ? store_errno_words(rc) : mdb_strerror(rc);
}

bool db_is_damage(int rc)
{
    return rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND;
}

bool db_is_fatal(int rc)
{
    return rc == MDB_PANIC;
}

int db_clear_readers(struct db *db)
{
    int dead = 0;
    return mdb_reader_check(db->env, &dead) == 0 ? dead : 0;
}

/* ---- transactions ---- */

int db_begin(struct db *db, bool write, struct db_txn **out)
{
    MDB_txn *t;
    int rc = mdb_txn_begin(db->env, NULL, write ? 0 : MDB_RDONLY, &t);
    *out = rc == 0 ? txn_out(t) : NULL;
    return rc;
}

int db_commit(struct db_txn *t)
{
    return mdb_txn_commit(txn_in(t));
}

void db_end(struct db_txn *t)
{
    if (t != NULL)
        mdb_txn_abort(txn_in(t));
}

void db_park(struct db_txn *t)
{
    mdb_txn_reset(txn_in(t));
}

int db_resume(struct db_txn *t)
{
    return mdb_txn_renew(txn_in(t));
}

/* ---- tables ---- */

int db_table(struct db_txn *t, const char *name, bool create, unsigned *table)
{
    return mdb_dbi_open(txn_in(t), name, create ? MDB_CREATE : 0, table);
}

int db_count(struct db_txn *t, unsigned table, uint64_t *out)
{
    MDB_stat stat;
    int rc = mdb_stat(txn_in(t), table, &stat);
    *out = rc == 0 ? stat.ms_entries : 0;
    return rc;
}

int db_drop(struct db_txn *t, unsigned table, bool remove)
{
    return mdb_drop(txn_in(t), table, remove);
}

int db_is_fresh(struct db_txn *t, bool *out)
{
    MDB_dbi root;
    uint64_t n = 0;
    int rc = mdb_dbi_open(txn_in(t), NULL, 0, &root);
    if (rc == 0)
        rc = db_count(t, root, &n);
    *out = n == 0;
    return rc;
}

int db_get(struct db_txn *t, unsigned table, struct span key, struct span *value)
{
    MDB_val k = val_of(key), v;
    int rc = mdb_get(txn_in(t), table, &k, &v);
    if (rc == 0)
        *value = span_of_val(v);
    return rc;
}

int db_put(struct db_txn *t, unsigned table, struct span key, struct span value)
{
    MDB_val k = val_of(key), v = val_of(value);
    return mdb_put(txn_in(t), table, &k, &v, 0);
}

int db_del(struct db_txn *t, unsigned table, struct span key)
{
    MDB_val k = val_of(key);
    int rc = mdb_del(txn_in(t), table, &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* ---- cursors ---- */

int db_cursor_open(struct db_txn *t, unsigned table, struct db_cursor **out)
{
    MDB_cursor *c = NULL;
    int rc = mdb_cursor_open(txn_in(t), table, &c);
    *out = rc == 0 ? (struct db_cursor *)(void *)c : NULL;
    return rc;
}

void db_cursor_close(struct db_cursor *c)
{
    if (c != NULL)
        mdb_cursor_close(cursor_in(c));
}

static int cursor_get(struct db_cursor *c, MDB_val k, MDB_cursor_op op, struct span *key, struct span *value)
{
    MDB_val v;
    int rc = mdb_cursor_get(cursor_in(c), &k, &v, op);
    if (rc != 0)
        return rc;
    *key = span_of_val(k);
    *value = span_of_val(v);
    return 0;
}

int db_seek(struct db_cursor *c, struct span from, struct span *key, struct span *value)
{
    return cursor_get(c, val_of(from), from.n > 0 ? MDB_SET_RANGE : MDB_FIRST, key, value);
}

int db_next(struct db_cursor *c, struct span *key, struct span *value)
{
    return cursor_get(c, (MDB_val){.mv_size = 0}, MDB_NEXT, key, value);
}

int db_del_here(struct db_cursor *c)
{
    return mdb_cursor_del(cursor_in(c), 0);
}
