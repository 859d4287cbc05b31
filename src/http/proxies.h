/* Forward proxies: which requests go through one, and how (RFC 9110 section 9.3.6, CONNECT).
 *
 * From the configuration (one URL for everything of an upstream) or from the environment: HTTPS_PROXY for https origins, HTTP_PROXY
 * for http ones, NO_PROXY for what is reached directly, each also in lower case; HTTP_PROXY in upper case is taken too, because larder is
 * no CGI program. A proxy is http://[user:password@]host[:port] or https://...; without a scheme it is http. An empty one is none.
 *
 * NO_PROXY is a list of host, .domain, *.domain, address, CIDR, each with an optional :port, or *; "example.org" covers its
 * subdomains, ".example.org" and "*.example.org" cover them alone; an IPv6 address or CIDR with a port stands in brackets, [::1]:443; blanks
 * around commas do not matter. Loopback addresses and "localhost" are always direct for the environment's proxies, never for a
 * configured one. No name is looked up: an address or CIDR is about hosts that are written as addresses.
 *
 * Pure but for the struct's memory; immutable after it is made. Any thread. */
#ifndef LARDER_HTTP_PROXIES_H
#define LARDER_HTTP_PROXIES_H

#include "base/span.h"
#include "base/str.h"

struct http_proxy {
    bool tls; /* the proxy itself is spoken to by TLS */
    struct span host;
    uint16_t port;
    struct span authorization; /* "Basic ..." value of Proxy-Authorization, or absent */
    struct span shown;         /* scheme, host, port, without user and password: for messages */
};

struct proxies;

/* Absent spans: not set. NULL: *why says which one is wrong, without showing a password. */
struct proxies *proxies_new(struct span https_proxy, struct span http_proxy, struct span no_proxy,
                            struct str *why) MUSTCHECK;
/* One URL for all. */
struct proxies *proxies_one(struct span url, struct str *why) MUSTCHECK;
void proxies_free(struct proxies *p); /* NULL is a no-op */

/* The proxy for an origin, or NULL: direct. p may be NULL. */
const struct http_proxy *proxies_for(const struct proxies *p, bool tls, struct span host, uint16_t port);

#endif
