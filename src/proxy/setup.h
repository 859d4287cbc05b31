/* One configuration as the proxy works with it: the snapshot, and what was made of it by reading files and the environment: roots,
 * client certificates, forward proxies, the `resolve` map, secrets. Made off the loops (it reads files), then shared by all cores and
 * refcounted; what changes in it is atomic or under its own lock. A running exchange, fetch or question keeps the setup it began
 * with; a reload makes a new one and posts it to the cores (proxy_reload).
 *
 * What must outlive a reload (health of upstreams, counters with labels, the count of connections, health of credential sets) is an object of its own with a
 * reference count, found again by name in the setup before and shared with it: a counter never goes backwards because the
 * configuration was read again, and what an exchange counts that still runs with the setup before is not lost.
 *
 * Two kinds of holders. Threads without a loop (main, metrics) hold a reference: setup_ref. What runs on a core holds the
 * setup on that core: setup_hold. All holders of a core together have one reference, which is given back when the last of them has let
 * go; right before that the core's pool forgets the connections that were made in the setup's ways, so that no `how` goes while a
 * kept connection names it. So everything that makes a call with a `how` of a setup must hold the setup until call_end. */
#ifndef LARDER_PROXY_SETUP_H
#define LARDER_PROXY_SETUP_H

#include "conf/conf.h"
#include "http/dial.h"
#include "http/url.h"

struct proxy;
struct setup;
struct secrets;

/* conf: a reference is taken. before: the setup that this one follows, or NULL. n_cores: that will work with it. NULL: *why says which
 * file or key is wrong ("file:line:column: ..."). Reads files: not on a loop's thread. */
struct setup *setup_new(struct conf *conf, struct setup *before, unsigned n_cores, struct str *why) MUSTCHECK;
struct setup *setup_ref(struct setup *s);
void setup_unref(struct setup *s); /* any thread; NULL is a no-op */

/* On the core's thread. setup_hold: s is the core's current one, or held on this core already, or the caller has a reference. */
struct setup *setup_hold(struct proxy *px, struct setup *s);
void setup_release(struct proxy *px, struct setup *s);

const struct conf *setup_conf(const struct setup *s);
/* How to dial an origin on the upstream's behalf: one of its endpoints, what they redirect to, its token servers. Only its endpoints are
 * shown its client certificate. */
const struct dial_how *setup_how(const struct setup *s, const struct conf_upstream *up,
                                 const struct url *origin);
struct secrets *setup_secrets(const struct setup *s);
/* The certificate of the listener with that address (as written), NULL: no TLS. False: there is no such listener. */
bool setup_identity(const struct setup *s, struct span address, const struct identity **out);

#endif
