/* The listening sockets of all cores: opened by the main thread, handed to the workers' proxies, and kept in step with the
 * configuration by reloads.
 *
 * An entry is one address with a socket per worker. The main thread changes the list only while no worker looks at it: between two
 * rounds of sockets_hand_over. In a round each worker touches its own sockets only. */
#ifndef LARDER_MAIN_SOCKETS_H
#define LARDER_MAIN_SOCKETS_H

#include "conf/conf.h"
#include "proxy/proxy.h"

struct sockets;

struct sockets *sockets_new(unsigned n_workers);
void sockets_free(struct sockets *s); /* closes what nobody has taken */

/* The address that this process has for admin until it ends, so that a refusal can name it. host is copied. */
void sockets_set_admin(struct sockets *s, struct span host, uint16_t port);

/* Opens the addresses that conf lists and that are not open; marks those that it no longer lists. False: *why says which address and
 * why, and nothing has changed. */
bool sockets_follow(struct sockets *s, const struct conf *conf, struct str *why) MUSTCHECK;
/* On the worker's core, after its proxy has the setup: gives the proxy what is new, takes away what is marked. */
void sockets_hand_over(struct sockets *s, unsigned worker, struct proxy *px);
/* After all workers have done that: forgets what is marked. */
void sockets_settle(struct sockets *s);

#endif
