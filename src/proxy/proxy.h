/* The flows of the cache, and the only room where policy meets mechanism: serve a client (serve.c), fetch a blob from
 * upstream (fetch.c, side.c), ask upstream for something small (ask.c).
 *
 * Thread: proxy_shared is made before the cores start and outlives them; a proxy belongs to its core. */
#ifndef LARDER_PROXY_PROXY_H
#define LARDER_PROXY_PROXY_H

#include "core/core.h"
#include "flight/flight.h"
#include "store/store.h"

struct proxy;
struct proxy_shared;
struct setup;

/* setup: made for n_cores; a reference is taken. */
struct proxy_shared *proxy_shared_new(struct setup *setup, struct store *store, unsigned n_cores);
void proxy_shared_free(struct proxy_shared *s);

/* The setup that follows: a reference is taken. Each core changes over between two of its events; what runs goes on with the setup that it
 * began with; connections that come from then on meet its limits and are shown its certificates. Any thread; never fails. Which
 * addresses are listened on is proxy_listen's and proxy_unlisten's. */
void proxy_reload(struct proxy_shared *s, struct setup *setup);
/* The current one: a reference. Any thread. */
struct setup *proxy_setup(struct proxy_shared *s);

/* On the core's thread, as are the three below. */
struct proxy *proxy_start(struct proxy_shared *s, struct core *core);
/* Listens on a socket from listen_open (taken over), by TLS if the setup has a certificate for that listener. address (copied): as the
 * configuration writes it. A proxy that is stopping closes the socket. */
void proxy_listen(struct proxy *p, struct span address, int fd);
void proxy_unlisten(struct proxy *p, struct span address); /* what is connected goes on */
/* Stops accepting, lets what is under way finish for the configured time, then cuts it; afterwards everything of the
 * proxy is gone from the core and `done` is called. */
void proxy_stop(struct proxy *p, void (*done)(void *arg), void *arg);

/* The labelled counters (requests by rule, answers by registry, latencies) as Prometheus text. Any thread. */
void proxy_metrics(struct proxy_shared *s, struct str *out);

#endif
