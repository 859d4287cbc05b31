/* What the proxy knows, as JSON for the admin API. Any thread that may wait for a disk (look-ups in the index). */
#ifndef LARDER_PROXY_REPORT_H
#define LARDER_PROXY_REPORT_H

#include "base/str.h"

struct proxy_shared;

/* {"credential_sets":[{"name":..., "login_server":..., "healthy":true, "since_ms":..., "checked_ms":..., "refused":0, "why":...}]} */
void report_credential_sets(struct proxy_shared *s, struct str *out);

/* {"upstreams":[{"registry":..., "available":true, "failures":0, "retry_in_ms":0, "last_error":...}]} */
void report_upstreams(struct proxy_shared *s, struct str *out);

/* {"upstreams_down":["REGISTRY"], "credential_sets_unhealthy":["NAME"]}, without the braces; the first fifty of each. */
void report_troubles(struct proxy_shared *s, struct str *out);

/* What a pull of an image would meet. ns: the registry that a mirror's client names, or absent; repository as the client asks for it;
 * reference: tag or digest. {"rule":..., "stored":true, "digest":..., "media_type":..., "size":..., "checked_ms":..., "next":"a sentence"}.
 * False: no rule; out is not written. */
bool report_image(struct proxy_shared *s, struct span ns, struct span repository, struct span reference,
                  struct str *out) MUSTCHECK;

#endif
