/* The calls of the admin API: what the rooms offer to larder's commands, in one table. */
#ifndef LARDER_MAIN_CALLS_H
#define LARDER_MAIN_CALLS_H

#include "admin/api.h"

struct proxy_shared;
struct store;

/* What the calls look at. It stays as long as the admin server. */
struct calls_context {
    struct proxy_shared *shared;
    struct store *store;
    const char *version;
    int64_t started_ms; /* wall clock */
    unsigned workers;
};

#define CALLS_MAX 32
/* Fills the table; returns how many there are. */
size_t calls_fill(struct calls_context *context, struct api_call calls[CALLS_MAX]);

#endif
