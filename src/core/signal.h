/* Signals as events of a core. Thread: the core's. */
#ifndef LARDER_CORE_SIGNAL_H
#define LARDER_CORE_SIGNAL_H

struct core;
struct signal_watch;

/* Calls `got` on the core at every delivery, until signal_unwatch. The watch does not keep the loop alive. */
struct signal_watch *signal_watch(struct core *c, int signum, void (*got)(int signum, void *arg), void *arg);
void signal_unwatch(struct signal_watch *w); /* the struct goes by itself */

#endif
