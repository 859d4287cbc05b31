/* Absolute URLs of upstreams: scheme://host[:port][/path][?query]. Pure; any thread. */
#ifndef LARDER_HTTP_URL_H
#define LARDER_HTTP_URL_H

#include "base/span.h"
#include "base/str.h"

#define URL_MAX 8192

struct url {           /* spans point into the parsed text */
    bool tls;          /* https */
    struct span host;  /* without brackets; lower case as written is not enforced */
    bool ipv6;         /* host was in brackets */
    uint16_t port;     /* explicit or the scheme's default */
    bool has_port;     /* it was written */
    struct span path;  /* "" or begins with "/"; raw, not decoded */
    struct span query; /* absent, or the raw text after "?" */
};

/* False on another scheme, userinfo, a fragment, blanks or control characters, port 0 or above 65535, empty
 * host, or more than URL_MAX bytes. */
bool url_parse(struct span text, struct url *out) MUSTCHECK;

/* Host header value: host, brackets as needed, port unless it is the scheme's default. */
void url_add_host(const struct url *u, struct str *out);

/* Do both have one origin (scheme, host without case, port)? RFC 6454. */
bool url_same_origin(const struct url *a, const struct url *b);

/* Resolves a Location (absolute, scheme-relative, absolute path, or relative path; RFC 3986 section 5.2) against
 * base and writes the absolute URL; path and query byte for byte except that "." and ".." segments of a relative
 * path are resolved. A fragment is dropped. False if it cannot be one of ours. */
bool url_resolve(const struct url *base, struct span location, struct str *out) MUSTCHECK;

#endif
