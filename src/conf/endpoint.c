/* Addresses and endpoints. An address to listen on is an IP address, never a name: which of a name's addresses would
 * be opened, and when, is a question that a server should not have to ask. */
#include "conf/endpoint.h"

#include <arpa/inet.h>

#include "conf/complain.h"
#include "registry/name.h"

enum { HOST_MAX = 63 };

static bool read_ip(struct span host, bool v6, unsigned char addr[sizeof(struct in6_addr)])
{
    char buf[HOST_MAX + 1];
    struct str s = STR_INIT(buf);
    str_add(&s, host);
    return !s.cut && strlen(buf) == host.n && inet_pton(v6 ? AF_INET6 : AF_INET, buf, addr) == 1;
}

static bool is_ip(struct span host, bool v6)
{
    unsigned char addr[sizeof(struct in6_addr)];
    return read_ip(host, v6, addr);
}

/* One address, one text. */
static struct span usual_form(struct conf_loader *l, struct span ip, bool v6)
{
    unsigned char addr[sizeof(struct in6_addr)];
    char text[INET6_ADDRSTRLEN];
    MUST(read_ip(ip, v6, addr) && inet_ntop(v6 ? AF_INET6 : AF_INET, addr, text, sizeof text) != NULL);
    return arena_span(l->conf->arena, span_str(text));
}

static bool read_port(struct span text, uint64_t min, uint16_t *out)
{
    uint64_t port;
    if (text.n > 5 || !span_u64(text, UINT16_MAX, &port) || port < min)
        return false;
    *out = (uint16_t)port;
    return true;
}

/* What to write instead, as far as it can be guessed. */
static const char *address_hint(struct span text, struct span host)
{
    if (span_find(text, '/') >= 0)
        return "write it without a scheme and path, as in 0.0.0.0:5000";
    if (span_find(text, ':') < 0)
        return "write IP address and port, as in 127.0.0.1:5000, or :5000 for all addresses";
    if (span_ieq(host, SPAN("localhost")))
        return "write 127.0.0.1 or [::1] instead of localhost";
    if (is_ip(host, true) || is_ip(text, true))
        return "put an IPv6 address in brackets and the whole in quotes, as in \"[::1]:5000\"";
    return "write an IP address and a port from 0 to 65535, as in 127.0.0.1:5000";
}

bool endpoint_read_address(struct conf_loader *l, const char *path, struct conf_mark mark, struct span text,
                           struct conf_listen *out)
{
    ptrdiff_t colon = span_rfind(text, ':');
    struct span host = span_sub(text, 0, colon < 0 ? 0 : (size_t)colon);
    struct span plain = host;
    bool v6 = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (v6)
        plain = span_sub(host, 1, host.n - 2);
    else if (host.n == 0)
        plain = SPAN("0.0.0.0");
    bool ok = colon >= 0 && is_ip(plain, v6) && read_port(span_from(text, (size_t)colon + 1), 0, &out->port);
    if (!ok) {
        complain(l->errors, mark, "%s: '%.*s' is no address to listen on; %s", path, SHOW(text),
                 address_hint(text, host));
        return false;
    }
    out->address = arena_span(l->conf->arena, text);
    out->host = usual_form(l, plain, v6);
    out->mark = mark;
    return true;
}

static bool prefix_ok(struct span prefix)
{
    struct span rest = span_from(prefix, 1), part;
    if (prefix.n == 0)
        return true;
    while (span_next(&rest, '/', &part)) {
        if (part.n == 0 || span_eq(part, SPAN(".")) || span_eq(part, SPAN("..")))
            return false;
        for (size_t i = 0; i < part.n; i++) {
            char c = part.p[i];
            bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
            if (!alnum && strchr("-._~!$&'()*+,;=:", c) == NULL)
                return false;
        }
    }
    return true;
}

/* NULL: it is an endpoint. Else what is wrong with it and what to do. */
static const char *parse_url(struct span text, struct conf_endpoint *out, struct span *authority)
{
    ptrdiff_t scheme = span_find(text, ':');
    struct span name = span_sub(text, 0, scheme < 0 ? 0 : (size_t)scheme);
    out->tls = span_ieq(name, SPAN("https"));
    if ((!out->tls && !span_ieq(name, SPAN("http"))) || !span_starts(span_from(text, name.n), SPAN("://")))
        return "has no scheme that is known here; begin with https:// or http://";
    struct span rest = span_from(text, name.n + 3);
    if (span_find(rest, '?') >= 0 || span_find(rest, '#') >= 0)
        return "has a query or a fragment; an endpoint ends with its host or path";
    ptrdiff_t slash = span_find(rest, '/');
    *authority = slash < 0 ? rest : span_sub(rest, 0, (size_t)slash);
    out->prefix = slash < 0 ? SPAN("") : span_from(rest, (size_t)slash);
    if (!name_registry_ok(*authority))
        return "has no valid host and port; write it as in https://registry.example:8443";
    if (span_ends(out->prefix, SPAN("/v2")) || span_find(out->prefix, '%') >= 0)
        return "ends in /v2 or holds a '%'; write only what comes before /v2/";
    if (out->prefix.n > CONF_PREFIX_MAX)
        return "has a path of more than 512 characters, which is the most that requests can carry";
    return prefix_ok(out->prefix) ? NULL : "has a path with empty, '.' or '..' parts or strange characters";
}

static struct span lower_copy(struct conf_loader *l, struct span host)
{
    char *lower = arena_strndup(l->conf->arena, host.p, host.n);
    for (size_t i = 0; i < host.n; i++)
        if (lower[i] >= 'A' && lower[i] <= 'Z')
            lower[i] = (char)(lower[i] + ('a' - 'A'));
    return span_of(lower, host.n);
}

static struct span without_brackets(struct span host)
{
    bool brackets = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    return brackets ? span_sub(host, 1, host.n - 2) : host;
}

static void split_authority(struct conf_loader *l, struct span authority, struct conf_endpoint *out)
{
    struct span host = authority;
    ptrdiff_t colon = span_rfind(authority, ':');
    out->port = out->tls ? 443 : 80;
    if (colon >= 0 && authority.p[authority.n - 1] != ']') {
        host = span_sub(authority, 0, (size_t)colon);
        MUST(read_port(span_from(authority, (size_t)colon + 1), 1, &out->port));
    }
    out->host = lower_copy(l, without_brackets(host));
}

bool endpoint_read_url(struct conf_loader *l, const char *path, struct conf_mark mark, struct span text,
                       struct conf_endpoint *out)
{
    struct span authority;
    struct span url = text;
    while (span_ends(url, SPAN("/")))
        url.n--;
    const char *wrong = parse_url(url, out, &authority);
    if (wrong != NULL) {
        if (span_find(text, '@') >= 0) /* what stands before it may be a password */
            complain(l->errors, mark, "%s: this URL holds a user name or '@'; write it without", path);
        else
            complain(l->errors, mark, "%s: '%.*s' %s", path, SHOW(text), wrong);
        return false;
    }
    out->url = arena_span(l->conf->arena, url);
    out->prefix = arena_span(l->conf->arena, out->prefix);
    out->mark = mark;
    split_authority(l, authority, out);
    return true;
}

void endpoint_of_host(struct conf_loader *l, struct span host, struct conf_mark mark,
                      struct conf_endpoint *out)
{
    char buf[NAME_REGISTRY_MAX + sizeof "https://"];
    struct str url = STR_INIT(buf);
    str_addz(&url, "https://");
    str_add(&url, host);
    MUST(!url.cut && endpoint_read_url(l, "upstreams[].registry", mark, str_span(&url), out));
}

bool endpoint_read_host(struct conf_loader *l, struct span text, struct span *out)
{
    bool v6 = is_ip(without_brackets(text), true);
    if (!v6 && (span_find(text, ':') >= 0 || !name_registry_ok(text)))
        return false;
    *out = lower_copy(l, v6 ? without_brackets(text) : text);
    return true;
}

bool endpoint_split_ip(struct span text, struct span *address, uint16_t *port)
{
    ptrdiff_t colon = span_rfind(text, ':');
    bool v6 = text.n > 0 && text.p[0] == '[';
    bool has_port = colon >= 0 && (!v6 || text.p[colon - 1] == ']');
    struct span host = has_port ? span_sub(text, 0, (size_t)colon) : text;
    *port = 0;
    if (has_port && !read_port(span_from(text, (size_t)colon + 1), 1, port))
        return false;
    *address = without_brackets(host);
    return v6 == (address->n < host.n) && is_ip(*address, v6);
}
