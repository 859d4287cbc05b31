/* URLs of upstreams. What passes url_parse can be sent in a request line and a Host header as it is: no
 * blanks, no control characters, and a host of plain name characters only. */
#include "http/url.h"

#include <arpa/inet.h>

#define HOST_MAX 255

/* Bytes above 0x7e are let through in path and query: some content networks put raw UTF-8 into a Location,
 * and a path goes out byte for byte. */
static bool text_ok(struct span text)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c <= 0x20 || c == 0x7f || c == '#')
            return false;
    }
    return true;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool host_name_ok(struct span host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        if (!is_alnum(c) && c != '.' && c != '-' && c != '_')
            return false;
    }
    return host.n > 0 && host.n <= HOST_MAX;
}

static bool host_ipv6_ok(struct span host)
{
    char buf[INET6_ADDRSTRLEN];
    struct in6_addr raw;
    struct str s = STR_INIT(buf);
    str_add(&s, host);
    return !s.cut && strlen(buf) == host.n && inet_pton(AF_INET6, buf, &raw) == 1;
}

/* host [ ":" [ port ] ]; userinfo fails because "@" is in no host and no port. */
static bool authority_parse(struct span authority, struct url *u)
{
    struct span port;
    u->ipv6 = authority.n > 0 && authority.p[0] == '[';
    if (u->ipv6) {
        ptrdiff_t end = span_find(authority, ']');
        if (end < 0)
            return false;
        u->host = span_sub(authority, 1, (size_t)end - 1);
        port = span_from(authority, (size_t)end + 1);
        if (port.n > 0 && port.p[0] != ':')
            return false;
    } else {
        ptrdiff_t colon = span_find(authority, ':');
        size_t n = colon < 0 ? authority.n : (size_t)colon;
        u->host = span_sub(authority, 0, n);
        port = span_from(authority, n);
    }
    u->port = u->tls ? 443 : 80;
    u->has_port = port.n > 1; /* "host:" is allowed and means the default (RFC 3986 section 3.2.3) */
    if (u->has_port) {
        uint64_t number;
        if (!span_u64(span_from(port, 1), UINT16_MAX, &number) || number == 0)
            return false;
        u->port = (uint16_t)number;
    }
    return u->ipv6 ? host_ipv6_ok(u->host) : host_name_ok(u->host);
}

bool url_parse(struct span text, struct url *out)
{
    struct url u = {.tls = span_ieq(span_sub(text, 0, 8), SPAN("https://"))};
    *out = u;
    if (text.n > URL_MAX || !text_ok(text))
        return false;
    if (!u.tls && !span_ieq(span_sub(text, 0, 7), SPAN("http://")))
        return false;
    struct span rest = span_from(text, u.tls ? 8 : 7);
    size_t end = 0;
    while (end < rest.n && rest.p[end] != '/' && rest.p[end] != '?')
        end++;
    if (!authority_parse(span_sub(rest, 0, end), &u))
        return false;
    u.path = span_from(rest, end);
    ptrdiff_t mark = span_find(u.path, '?');
    if (mark >= 0) {
        u.query = span_from(u.path, (size_t)mark + 1);
        u.path = span_sub(u.path, 0, (size_t)mark);
    }
    *out = u;
    return true;
}

void url_add_host(const struct url *u, struct str *out)
{
    if (u->ipv6)
        str_addc(out, '[');
    str_add(out, u->host);
    if (u->ipv6)
        str_addc(out, ']');
    if (u->port != (u->tls ? 443 : 80)) {
        str_addc(out, ':');
        str_addu(out, u->port);
    }
}

bool url_same_origin(const struct url *a, const struct url *b)
{
    return a->tls == b->tls && a->port == b->port && span_ieq(a->host, b->host);
}

/* scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ) ":" */
static bool has_scheme(struct span location)
{
    ptrdiff_t colon = span_find(location, ':');
    if (colon <= 0 || !is_alnum(location.p[0]) || (location.p[0] >= '0' && location.p[0] <= '9'))
        return false;
    for (ptrdiff_t i = 1; i < colon; i++) {
        char c = location.p[i];
        if (!is_alnum(c) && c != '+' && c != '-' && c != '.')
            return false;
    }
    return true;
}

static void add_scheme_and_host(const struct url *u, struct str *out)
{
    str_addz(out, u->tls ? "https://" : "http://");
    url_add_host(u, out);
}

static void add_query(struct span query, struct str *out)
{
    if (query.p == NULL)
        return;
    str_addc(out, '?');
    str_add(out, query);
}

/* Appends the segments of `path` to out, which ends with "/"; that "/" is at `root` or behind it and stays.
 * RFC 3986 section 5.2.4, with the text already written as the output buffer. */
static void add_segments(struct span path, size_t root, struct str *out)
{
    struct span segment;
    for (struct span rest = path; span_next(&rest, '/', &segment);) {
        if (span_eq(segment, SPAN(".."))) {
            if (out->n > root + 1)
                out->n--;
            while (out->n > root + 1 && out->p[out->n - 1] != '/')
                out->n--;
            out->p[out->n] = '\0';
        } else if (!span_eq(segment, SPAN("."))) {
            str_add(out, segment);
            if (rest.p != NULL)
                str_addc(out, '/');
        }
    }
}

/* Base's path up to its last "/", then the relative path. */
static void add_relative(const struct url *base, struct span relative, struct str *out)
{
    size_t root = out->n;
    ptrdiff_t slash = span_rfind(base->path, '/');
    str_addc(out, '/');
    if (slash > 0)
        add_segments(span_sub(base->path, 1, (size_t)slash), root, out);
    add_segments(relative, root, out);
}

static void add_resolved(const struct url *base, struct span location, struct str *out)
{
    if (has_scheme(location)) {
        str_add(out, location);
        return;
    }
    if (span_starts(location, SPAN("//"))) {
        str_addz(out, base->tls ? "https:" : "http:");
        str_add(out, location);
        return;
    }
    ptrdiff_t mark = span_find(location, '?');
    struct span path = mark < 0 ? location : span_sub(location, 0, (size_t)mark);
    struct span query = mark < 0 ? SPAN_NONE : span_from(location, (size_t)mark + 1);
    add_scheme_and_host(base, out);
    if (path.n == 0) {
        str_add(out, base->path);
        add_query(mark < 0 ? base->query : query, out);
        return;
    }
    if (path.p[0] == '/')
        str_add(out, path);
    else
        add_relative(base, path, out);
    add_query(query, out);
}

bool url_resolve(const struct url *base, struct span location, struct str *out)
{
    struct str before = *out;
    struct url check;
    ptrdiff_t hash = span_find(location, '#');
    if (hash >= 0)
        location = span_sub(location, 0, (size_t)hash);
    add_resolved(base, location, out);
    if (!out->cut && url_parse(span_from(str_span(out), before.n), &check))
        return true;
    *out = before;
    out->p[out->n] = '\0';
    return false;
}
