/* A credential set at work: what secrets.c (sets, askers, health) and secret_load.c (reading) share. */
#ifndef LARDER_PROXY_SECRETS_INT_H
#define LARDER_PROXY_SECRETS_INT_H

#include <pthread.h>

#include "proxy/proxy_int.h"
#include "proxy/secret_source.h"
#include "proxy/secrets.h"

#define SECRET_REFUSALS 3
#define CREDENTIAL_MAX                                                                                       \
    (32u << 10) /* of user and password; in base64 they stand in a request's head (CALL_REQUEST_MAX) */

/* What a set is at one moment; immutable, refcounted, in secret memory. Bad: only `why` says something. */
struct credential_value {
    struct ref ref;
    bool good;
    struct span user, password, refresh_token;
    uint64_t fingerprint;
    char why[256];
    char bytes[];
};
void credential_value_unref(struct credential_value *v); /* NULL is a no-op */

#define SECRET_REPOS 64

struct secret_set {
    struct ref ref;
    struct span name, registry;
    char *text; /* what the two point into */

    /* Belong to the load that is under way; without one they are at rest. */
    struct secret_source source[2];
    unsigned n_sources;       /* 1: both references are the same */
    int user_at, password_at; /* in source; -1: not given */

    pthread_mutex_t lock; /* guards all below; a leaf */
    bool loading;
    int64_t forced_ms; /* monotonic: no forced load before then */
    bool forced;       /* the next load asks everything again: a server has refused what we have */
    bool doubted;      /* likewise, but only who doubts waits for it */
    struct credential_value *value;   /* NULL: never loaded */
    struct credential_value *refusal; /* what askers get while a server refuses; NULL: it does not */
    struct list waiting;              /* credential_wait, when loading */
    int64_t looked_ms;                /* monotonic: the end of the last load */
    int64_t due_ms;                   /* monotonic: slow sources are asked again */
    int64_t until_ms, pause_ms;       /* bad, or refused: not tried again before then */
    bool probing;                     /* refused, and one asker has been let through since */
    unsigned refusals;                /* in a row */
    int64_t accepted_ms;              /* monotonic: when a server last took the value; 0: none has */
    uint64_t
        taken_for[SECRET_REPOS];  /* hashes of repositories that it was taken for, and not refused since */
    unsigned next_taken;          /* where the next one is put */
    bool kept;                    /* a source failed, and what it said before is used */
    int64_t since_ms, checked_ms; /* wall clock */
    uint64_t refused;             /* counter */
};

struct secrets {
    struct setup *setup;      /* that owns it */
    struct secret_set **sets; /* by index of the credential set */
    size_t n;
};
/* Reads what can be read at once. before: of the setup before, or NULL; a set whose references are the same is shared with it. */
struct secrets *secrets_new(struct setup *setup, const struct secrets *before);
void secrets_free(struct secrets *s); /* NULL is a no-op */

/* Nothing is waited for: what is slow is left to the first asker. Before the set is shared. */
void secret_load_now(struct secret_set *set);
/* set->loading has just been set by the caller. forced: ask everything again. */
void secret_load_start(struct proxy *px, struct setup *setup, struct secret_set *set, bool forced);
/* The end of a load. err: in words, why a source gave nothing; NULL: none failed. keep: what was known before stays good although a
 * source failed. */
void secret_loaded(struct secret_set *set, const char *err, bool keep);
/* The load was given up because its core stops: whoever waits asks again. */
void secret_load_dropped(struct secret_set *set);

#endif
