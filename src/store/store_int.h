/* What the files of the store share among themselves: the handle, its folders, and the index. */
#ifndef LARDER_STORE_STORE_INT_H
#define LARDER_STORE_STORE_INT_H

#include <limits.h>
#include <stdatomic.h>

#include "store/store.h"

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
    atomic_uint tmp_names; /* makes names in tmp/ unique */
    struct index *index;
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
/* Writes all of it at `off`, or returns the errno value. */
int store_write_all(int fd, uint64_t off, const void *bytes, size_t n);
/* Moves <from>/<from_name> to <to>/<to_name>, replacing what is there; 0 or the errno value. */
int store_move(const struct store *s, enum store_dir from, const char *from_name, enum store_dir to,
               const char *to_name);

/* As store_open, with a limit of the index's size in bytes (a smaller one is taken where the address space is small). */
struct store *store_open_sized(struct span path, size_t index_max, struct str *why) MUSTCHECK;

/* ---- index.c ---- */

/* NULL: why. `s` has its folders. */
struct index *index_open(const struct store *s, size_t index_max, struct str *why) MUSTCHECK;
void index_close(struct index *x); /* drains the queue of changes */

#endif
