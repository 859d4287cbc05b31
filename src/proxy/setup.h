/* One configuration as the proxy works with it: the snapshot, and what was made of it by reading files and the environment: roots,
 * client certificates, forward proxies, the `resolve` map, secrets. Made off the loops (it reads files), then shared by all cores and
 * refcounted; what changes in it is atomic or under its own lock. A running exchange, fetch or question keeps the setup it began
 * with; a reload makes a new one and posts it to the cores.
 *
 * What must outlive a reload (health of upstreams, 429 pauses, health of credential sets) is found again by name and carried over from
 * the setup before. */
#ifndef LARDER_PROXY_SETUP_H
#define LARDER_PROXY_SETUP_H

#include "conf/conf.h"
#include "http/dial.h"

struct setup;
struct secrets;

/* conf: a reference is taken. before: the setup that this one follows, or NULL. NULL: *why says which file or key is wrong
 * ("file:line:column: ..."). Reads files: not on a loop's thread. */
struct setup *setup_new(struct conf *conf, struct setup *before, struct str *why) MUSTCHECK;
struct setup *setup_ref(struct setup *s);
void setup_unref(struct setup *s); /* any thread; NULL is a no-op */

const struct conf *setup_conf(const struct setup *s);
/* How to dial the upstream's endpoints, and what they redirect to; and the same for its token servers. */
const struct dial_how *setup_how(const struct setup *s, const struct conf_upstream *up);
struct secrets *setup_secrets(const struct setup *s);

#endif
