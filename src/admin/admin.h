/* The admin address: health, readiness, metrics, and the API of larder's commands. It runs on the main thread's core, so it answers also when the cores
 * that serve are busy.
 *
 * Thread: the core's. */
#ifndef LARDER_ADMIN_ADMIN_H
#define LARDER_ADMIN_ADMIN_H

#include "admin/api.h"
#include "base/str.h"
#include "core/core.h"
#include "store/store.h"

struct admin;

struct admin_config {
    struct core *const *cores; /* whose counters are summed; they outlive the admin */
    unsigned n_cores;
    struct store *store;
    const char *version;
    /* Appends the labelled counters that their rooms keep. */
    void (*more_metrics)(void *arg, struct str *out);
    void *arg;
    const struct api_call *calls; /* they stay */
    size_t n_calls;
};

struct admin *admin_start(struct core *core, int fd, const struct admin_config *config);
/* /readyz says 200 and "ready", and what is out of order in the store. From now on it says 503, so that nobody sends new work. */
void admin_stopping(struct admin *a);
/* Closes everything; `done` is called when nothing is left. */
void admin_stop(struct admin *a, void (*done)(void *arg), void *arg);

#endif
