/* One secret reference and what it gave: the files, the environment and the helpers that are read by blocking, in jobs.
 *
 * Not thread-safe: a source belongs to the set that has it, and to the one load of the set that is under way (secrets_int.h). */
#ifndef LARDER_PROXY_SECRET_SOURCE_H
#define LARDER_PROXY_SECRET_SOURCE_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "conf/conf.h"
#include "registry/docker_config.h"

/* What a source gave. One value (env, file, vault) is both user and password, for the reference that asks. */
struct secret_answer {
    char *room; /* secret_alloc'ed: what the spans point into; NULL: nothing */
    struct span user, password, refresh_token;
};
void secret_answer_clear(struct secret_answer *a); /* wipes */

struct secret_source {
    enum conf_secret_kind kind;
    struct span shown; /* as written, for messages */
    struct span
        arg; /* name of a variable, absolute or working-directory path, helper, URL, or the text itself */
    struct span registry; /* whose entry is looked for, or asked of a helper */
    char *text;           /* what the spans above point into */

    struct secret_answer answer;
    struct stat seen;  /* FILE, DOCKERCONFIG: of the file that the answer is from */
    bool fresh;        /* it had just been written then: another write in the same tick would not show */
    int64_t failed_ms; /* monotonic: since when it cannot be read; 0: it can */
    char helper[DOCKER_HELPER_MAX + 1]; /* DOCKERCONFIG: the file sends us there */
    int64_t due_ms;                     /* monotonic: asked again after that; what does not age: INT64_MAX */
};

void source_init(struct secret_source *s, const struct conf_secret *ref, struct span registry,
                 struct span config_file);
void source_free(struct secret_source *s);
bool source_same(const struct secret_source *a, const struct secret_source *b);

/* Files are looked at before each use, at most once in this time. */
#define SECRET_LOOK_MS 1000
bool source_is_file(const struct secret_source *s);
/* Only a program or a server can tell: that may take long. */
bool source_is_slow(const struct secret_source *s);

/* A file that cannot be read, or is empty, may be about to be written: what it said before is good for that long. */
#define SECRET_KEPT_MS 30000

/* Reads it, if it has not been read or has changed since; blocks as long as a file does. No program is run, no vault is asked. False: *why
 * says what is wrong and what to do; the answer is gone, or what it was before, see SECRET_KEPT_MS. */
bool source_read(struct secret_source *s, struct str *why) MUSTCHECK;
/* After source_read: does it take a program to know the answer? */
bool source_needs_helper(const struct secret_source *s, int64_t now_ms);
/* Runs it; blocks. conf: see secret_exec. stop: set from another thread, ends it. False: *why; the answer is what it was. */
bool source_run_helper(struct secret_source *s, const struct conf *conf, int64_t now_ms,
                       const atomic_bool *stop, struct str *why) MUSTCHECK;

/* SECRET_VAULT: what the vault said. due_ms: when it is asked again. */
void source_take(struct secret_source *s, struct span value, int64_t due_ms);

/* Runs docker-credential-HELPER get with the registry's address on its standard input. What it printed is written to room. After limit_ms,
 * or when stop is set from another thread, it is killed with all that it has started. The environment variables that are passwords in conf are
 * not passed on to it. False: *why. secret_exec.c */
bool secret_exec(const struct conf *conf, struct span helper, struct span registry, int64_t limit_ms,
                 const atomic_bool *stop, struct str *room, struct str *why) MUSTCHECK;

/* The bytes of a regular file of at most `max` bytes, secret_alloc'ed, a 0 behind them. NULL: *why. */
char *secret_file_read(const char *path, size_t max, size_t *n, struct stat *seen, struct str *why) MUSTCHECK;

#endif
