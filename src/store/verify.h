/* Is the pool what the index says? A pass over all objects, or one, that reads every byte: large reads, several files at once, and
 * what was not in the page cache before does not stay there. It compares the content sum, or, `deep`, the digest; where
 * the sum is unknown the digest, and then the sum is written down.
 *
 * A damaged object is forgotten by the index and goes to quarantine/: the next request fetches it again. One that is
 * missing or short is forgotten. */
#ifndef LARDER_STORE_VERIFY_H
#define LARDER_STORE_VERIFY_H

#include "store/store.h"

enum verify_found {
    VERIFY_GOOD,
    VERIFY_MISSING, /* no such file */
    VERIFY_DAMAGED, /* another size or content, or it cannot be read */
    VERIFY_UNKNOWN, /* the index does not have it (any more) */
    VERIFY_FAILED   /* not looked at: no descriptors or no memory, or it was stopped */
};

const char *verify_found_name(enum verify_found f);

/* One object. Blocking, for jobs; bounded by `stop`, which may be NULL. */
enum verify_found store_verify(struct store *s, const struct digest *d, bool deep,
                               const atomic_bool *stop) MUSTCHECK;

struct verify_progress {
    uint64_t objects, bytes, missing, damaged, failed;
    uint64_t objects_all, bytes_all; /* when it began */
    bool done;                       /* ended, or cancelled */
};

/* A pass of its own threads. `damaged` is called on one of them for each object that is not good; it may be NULL. */
struct verify_pass;
struct verify_pass *verify_start(struct store *s, bool deep,
                                 void (*damaged)(const struct digest *d, enum verify_found found, void *arg),
                                 void *arg) MUSTCHECK;                /* NULL: no thread could be started */
void verify_look(struct verify_pass *v, struct verify_progress *out); /* any thread */
void verify_cancel(struct verify_pass *v);                            /* any thread; it ends soon */
/* Waits for the end and frees. NULL: a no-op. Before store_close. */
void verify_join(struct verify_pass *v);

#endif
