/* What kind of network an address is in: the guard against being led into it (SSRF). Whoever follows a name or a URL that a stranger
 * chose says how near the address may be; it is asked of the address that is connected to, after the name has been looked up, so that a
 * name which changes its mind gains nothing. Pure; any thread. */
#ifndef LARDER_CORE_ADDRESS_H
#define LARDER_CORE_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/span.h"

/* From far to near; what lies further along is more of ours. */
enum address_kind {
    ADDRESS_PUBLIC,
    ADDRESS_PRIVATE, /* 10/8, 172.16/12, 192.168/16, carriers' 100.64/10, unique local fc00::/7, site-local fec0::/10 */
    ADDRESS_LOOPBACK, /* 127/8, ::1 */
    ADDRESS_SPECIAL /* nothing that content comes from: link-local, metadata services, multicast, unspecified, reserved */
};

/* An IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4) is judged as what it is. */
enum address_kind address_kind(const struct sockaddr *sa);
/* Of an IP literal without brackets; false: the text is a name. */
bool address_kind_of_text(struct span host, enum address_kind *kind);
const char *address_kind_name(enum address_kind kind); /* "a private address" */

/* May somebody whose own server is at an address of kind `own` lead us to one of kind `to`? Public always; private and
 * loopback only from where is as near; special never. */
bool address_reachable(enum address_kind own, enum address_kind to);

#endif
