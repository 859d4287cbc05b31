/* The calls of the admin API: what the rooms offer to larder's commands, in one table. */
#ifndef LARDER_MAIN_CALLS_H
#define LARDER_MAIN_CALLS_H

#include "admin/api.h"

struct conf;
struct core;
struct proxy_shared;
struct reload;
struct store;
struct store_calls;

/* What the calls look at. It stays as long as the admin server. */
struct calls_context {
    struct proxy_shared *shared;
    struct store *store;
    struct store_calls *store_calls;
    const struct reload *reload;
    bool stopping;
    struct core *const *cores;
    const char *version;
    int64_t started_ms; /* wall clock */
    unsigned workers;
};

#define CALLS_MAX 32
/* How everything is, in a few lines (status.c). On the main core. */
unsigned status_call(void *arg, struct span query, struct str *out);

/* The configuration in force, for calls of other rooms: it stays until release. arg: the context. Any thread. */
const struct conf *calls_hold_conf(void *arg, void **held);
void calls_release_conf(void *held);

/* Fills the table; returns how many there are. */
size_t calls_fill(struct calls_context *context, struct api_call calls[CALLS_MAX]);

#endif
