/* Hot reload: when the configuration file changes, or a file that it names, or on SIGHUP, it is read anew on the pool, validated, made into
 * a setup, and given to the workers. Nothing that runs is disturbed. A file that is not good changes nothing: what is wrong is logged
 * once, with line and column, and metrics show it.
 *
 *   IDLE     -> READING    a file changed, or reload_now, or what was refused is tried again
 *   READING  -> IDLE       nothing new, or not good
 *            -> SPREADING  good: the proxies have the setup, the workers are told to change their listeners
 *   SPREADING -> IDLE      all have (reload_spread)
 *
 * What happens in between leads to another round. A file that is refused for something else than its text (it cannot be read, nor can a
 * file that it names be, for want of descriptors; an address that somebody else has) is tried again every few seconds. Thread: the main core's; reload_metrics too. */
#ifndef LARDER_MAIN_RELOAD_H
#define LARDER_MAIN_RELOAD_H

#include "main/sockets.h"
#include "proxy/setup.h"

struct reload;

struct reload_config {
    struct core *core;
    const char *path; /* stays */
    struct conf *conf;
    struct proxy_shared *shared;
    struct sockets *sockets;
    unsigned n_cores;
    void (*spread)(void *arg); /* tell every worker to call sockets_hand_over; then reload_spread is due */
    void (*took)(struct conf *conf, void *arg); /* conf is the one from now on: take a reference */
    void *arg;
};

/* Begins in SPREADING: the workers are taking their first listeners. */
struct reload *reload_start(const struct reload_config *config);
void reload_now(struct reload *r);    /* SIGHUP: also when no file seems to have changed */
void reload_spread(struct reload *r); /* all workers have changed their listeners */
/* No further round. What it knows can be asked for until it is freed, when the core's loop has ended. */
void reload_stop(struct reload *r);
void reload_free(struct reload *r);

void reload_metrics(const struct reload *r, struct str *out);

struct reload_state_now {
    bool good;       /* the file, as it is now, is in force */
    int64_t good_ms; /* wall clock: when what is in force was taken */
    const char *why; /* not good: the first complaint */
};
void reload_look(const struct reload *r, struct reload_state_now *out);

#endif
