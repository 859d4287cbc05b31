/* Listening sockets. All are opened in one place before the cores start: one per address and core, with
 * SO_REUSEPORT, so that the kernel spreads connections and no core hands sockets to another.
 *
 * Thread: listen_open anywhere before the cores run; a listener belongs to its core. */
#ifndef LARDER_NET_LISTEN_H
#define LARDER_NET_LISTEN_H

#include "base/span.h"
#include "base/str.h"

struct core;
struct listener;

/* Opens `n` sockets for one address ("0.0.0.0", "::1", no names) and port (0: the kernel picks; all get the
 * same one). False: `why` says what failed, with the address (in use, not an address of this machine, not
 * permitted). Sharing a port with another process is refused, although SO_REUSEPORT would allow it, unless the port is
 * `ours`: this process listens there on another address, such as the one that takes in all. *port_out is the real port. */
bool listen_open(struct span host, uint16_t port, bool ours, unsigned n, int fds[], uint16_t *port_out,
                 struct str *why) MUSTCHECK;

/* Starts to accept on the core. `accepted` owns the descriptor (non-blocking) that it is given. When
 * descriptors run out accepting pauses for a moment and goes on by itself; connections wait in the kernel's
 * queue meanwhile. */
struct listener *listener_start(struct core *core, int fd,
                                void (*accepted)(struct core *core, int fd, void *arg), void *arg);
/* Accepts all who have connected by now: to be called before a stop that is to reset none of them. */
void listener_take_all(struct listener *l);
/* Stops accepting and closes the socket. The struct goes by itself. NULL is a no-op. */
void listener_stop(struct listener *l);

#endif
