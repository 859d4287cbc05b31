/* See reach.h. No message shows a proxy's URL: user and password stand in it, and where they end in a malformed one nobody can say. */
#include "conf/reach.h"

#include "base/map.h"
#include "conf/complain.h"
#include "conf/endpoint.h"
#include "registry/name.h"

enum { GIVE_UP_MS = 30000 };

/* ---- an upstream ---- */

static void check_patience(struct conf_loader *l, enum schema_id key, const char *name)
{
    const struct schema_value *v = &l->value[key];
    if (v->n >= GIVE_UP_MS)
        complain(l->errors, v->mark,
                 "upstreams[].timeouts.%s: must be below 30s, because containerd gives up after 30 s and "
                 "would not see "
                 "the error or the cached content that follows",
                 name);
}

static void load_timeouts(struct conf_loader *l, const struct conf_node *map, struct conf_timeouts *out)
{
    schema_load(l, SECTION_TIMEOUTS, map);
    check_patience(l, KEY_TIMEOUTS_connect, "connect");
    check_patience(l, KEY_TIMEOUTS_first_byte, "first_byte");
    out->connect_ms = l->value[KEY_TIMEOUTS_connect].n;
    out->first_byte_ms = l->value[KEY_TIMEOUTS_first_byte].n;
    out->idle_ms = l->value[KEY_TIMEOUTS_idle].n;
}

static void load_endpoints(struct conf_loader *l, const struct conf_node *list, struct conf_upstream *u)
{
    if (list == NULL)
        return;
    struct conf_endpoint *out = arena_alloc(l->conf->arena, list->n * sizeof *out);
    u->endpoints = out;
    for (const struct conf_node *node = list->first; node != NULL; node = node->next) {
        struct span text;
        if (schema_string(l, KEY_UPSTREAM_endpoints, node, &text) &&
            endpoint_read_url(l, "upstreams[].endpoints", node->mark, text, &out[u->n_endpoints]))
            u->n_endpoints++;
    }
}

/* "https://auth.example/token?x" -> "https://auth.example": what is copied from a challenge is right, too. */
static struct span origin_of(struct span url)
{
    ptrdiff_t colon = span_find(url, ':');
    size_t i = colon >= 0 && span_starts(span_from(url, (size_t)colon), SPAN("://")) ? (size_t)colon + 3 : 0;
    while (i < url.n && url.p[i] != '/' && url.p[i] != '?' && url.p[i] != '#')
        i++;
    return span_sub(url, 0, i);
}

static void load_realms(struct conf_loader *l, const struct conf_node *list, struct conf_upstream *u)
{
    if (list == NULL)
        return;
    struct conf_endpoint *out = arena_alloc(l->conf->arena, list->n * sizeof *out);
    u->token_realms = out;
    for (const struct conf_node *node = list->first; node != NULL; node = node->next) {
        struct span text;
        if (schema_string(l, KEY_UPSTREAM_token_realms, node, &text) &&
            endpoint_read_url(l, "upstreams[].token_realms", node->mark, origin_of(text),
                              &out[u->n_token_realms]))
            u->n_token_realms++;
    }
}

static void load_redirect_hosts(struct conf_loader *l, const struct conf_node *list, struct conf_upstream *u)
{
    if (list == NULL)
        return;
    struct span *out = arena_alloc(l->conf->arena, list->n * sizeof *out), text;
    u->redirect_hosts = out;
    for (const struct conf_node *node = list->first; node != NULL; node = node->next) {
        if (!schema_string(l, KEY_UPSTREAM_redirect_hosts, node, &text))
            continue;
        if (endpoint_read_host(l, text, &out[u->n_redirect_hosts]))
            u->n_redirect_hosts++;
        else
            complain(
                l->errors, node->mark,
                "upstreams[].redirect_hosts: '%.*s' is no host; write a name or an address without scheme, "
                "port and path, as in blobs.corp.example",
                SHOW(text));
    }
}

static bool percent_ok(struct span s)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%')
            continue;
        for (size_t k = i + 1; k <= i + 2; k++)
            if (k >= s.n || s.p[k] == '\0' || strchr(hex, s.p[k]) == NULL)
                return false;
    }
    return true;
}

/* NULL: it is a proxy's URL. */
static const char *proxy_wrong(struct span text)
{
    size_t scheme = span_ieq(span_sub(text, 0, 8), SPAN("https://"))  ? 8
                    : span_ieq(span_sub(text, 0, 7), SPAN("http://")) ? 7
                                                                      : 0;
    if (scheme == 0)
        return "begin with http:// or https:// (there are no other kinds of proxy), or write the word direct "
               "for none";
    struct span authority = origin_of(text), tail = span_from(text, authority.n);
    authority = span_from(authority, scheme);
    if (span_find(tail, '@') >= 0)
        return "in user and password '/', '?' and '#' are written %2F, %3F and %23";
    if (tail.n > 0 && !span_eq(tail, SPAN("/")))
        return "a proxy's URL ends with its host and port";
    ptrdiff_t at = span_rfind(authority, '@');
    struct span user = span_sub(authority, 0, at < 0 ? 0 : (size_t)at),
                host = span_from(authority, (size_t)(at + 1));
    if (at >= 0 && (user.n == 0 || user.p[0] == ':'))
        return "before '@' stands user:password, and the user is missing";
    if (!percent_ok(user))
        return "in user and password '%' itself is written %25";
    return name_registry_ok(host)
               ? NULL
               : "write it as in http://proxy.example:3128 or http://user:password@proxy.example";
}

static void load_proxy(struct conf_loader *l, struct conf_upstream *u)
{
    const struct schema_value *v = &l->value[KEY_UPSTREAM_proxy];
    if (v->state != VALUE_SET)
        return;
    const char *wrong = span_eq(v->text, SPAN("direct")) ? NULL : proxy_wrong(v->text);
    if (wrong != NULL) {
        complain(l->errors, v->mark, "upstreams[].proxy: this is no URL of a proxy; %s", wrong);
        return;
    }
    u->proxy = arena_span(l->conf->arena, v->text);
    u->proxy_mark = v->mark;
}

static void load_identity(struct conf_loader *l, const struct conf_node *map, struct conf_identity *out)
{
    if (map == NULL || !schema_load(l, SECTION_CLIENT_CERTIFICATE, map))
        return;
    out->certificate = schema_path(l, KEY_CLIENT_CERTIFICATE_certificate);
    out->key = schema_path(l, KEY_CLIENT_CERTIFICATE_key);
}

void reach_load(struct conf_loader *l, struct conf_upstream *u)
{
    const struct schema_value *v = l->value;
    *u = (struct conf_upstream){.registry = SPAN_NONE};
    u->max_connections = (uint64_t)v[KEY_UPSTREAM_max_connections].n;
    u->max_manifest = (uint64_t)v[KEY_UPSTREAM_max_manifest].n;
    load_timeouts(l, v[KEY_UPSTREAM_timeouts].node, &u->timeouts);
    load_endpoints(l, v[KEY_UPSTREAM_endpoints].node, u);
    u->ca = schema_path(l, KEY_UPSTREAM_ca);
    load_identity(l, v[KEY_UPSTREAM_client_certificate].node, &u->identity);
    load_proxy(l, u);
    load_realms(l, v[KEY_UPSTREAM_token_realms].node, u);
    load_redirect_hosts(l, v[KEY_UPSTREAM_redirect_hosts].node, u);
}

static struct span host_of_registry(const struct conf_upstream *u)
{
    return u->known != NULL && u->known->endpoint.p != NULL ? u->known->endpoint : u->registry;
}

void reach_bind(struct conf_loader *l, struct conf_upstream *u, struct span registry, struct conf_mark mark)
{
    u->registry = arena_span(l->conf->arena, registry);
    u->known = known_find(u->registry);
    if (u->endpoints != NULL)
        return;
    struct conf_endpoint *e = arena_alloc(l->conf->arena, sizeof *e);
    endpoint_of_host(l, host_of_registry(u), mark, e);
    u->endpoints = e;
    u->n_endpoints = 1;
}

bool reach_registry_itself(const struct conf_upstream *u)
{
    for (size_t i = 0; i < u->n_endpoints; i++)
        if (span_eq(u->endpoints[i].host, host_of_registry(u)))
            return true;
    return false;
}

/* ---- resolve ---- */

/* "192.0.2.1", "192.0.2.1:8443", "[2001:db8::1]", "[2001:db8::1]:8443" */
static bool read_address(struct conf_loader *l, const struct conf_node *node, struct span text,
                         struct conf_resolve *out)
{
    if (endpoint_split_ip(text, &out->address, &out->port)) {
        out->address = arena_span(l->conf->arena, out->address);
        return true;
    }
    struct span bare;
    uint16_t port;
    char buf[128];
    struct str brackets = STR_INIT(buf);
    str_addf(&brackets, "[" SPAN_FMT "]", SPAN_ARG(span_sub(text, 0, 64)));
    if (endpoint_split_ip(str_span(&brackets), &bare, &port))
        complain(
            l->errors, node->mark,
            "resolve: put the IPv6 address '%.*s' in brackets and the whole in quotes, as in \"[::1]:443\"",
            SHOW(text));
    else
        complain(
            l->errors, node->mark,
            "resolve: '%.*s' is no address; write an IP address, and a port from 1 to 65535 if it is another "
            "than the registry's, as in 192.0.2.1 or 192.0.2.1:8443",
            SHOW(text));
    return false;
}

static bool read_resolve_host(struct conf_loader *l, const struct conf_node *key, struct span *out)
{
    struct span address;
    uint16_t port;
    if (!endpoint_read_host(l, key->text, out)) {
        complain(l->errors, key->mark,
                 "resolve: '%.*s' is no host; write a name without scheme, port and path, as in "
                 "registry.corp.example",
                 SHOW(key->text));
        return false;
    }
    bool ip = endpoint_split_ip(key->text, &address, &port) || span_find(*out, ':') >= 0;
    if (ip)
        complain(l->errors, key->mark, "resolve: '%.*s' is an address already; write the name of a host",
                 SHOW(key->text));
    return !ip;
}

void reach_load_resolve(struct conf_loader *l, const struct conf_node *map)
{
    struct conf *c = l->conf;
    if (map == NULL || map->kind == NODE_BAD)
        return;
    if (map->kind != NODE_MAP) {
        complain(l->errors, map->mark, "resolve must be a mapping: lines of 'HOST: ADDRESS', indented alike");
        return;
    }
    struct conf_resolve *out = arena_alloc(c->arena, (map->n + 1) * sizeof *out);
    struct map hosts; /* -> its key in the file */
    map_init(&hosts);
    c->resolve = out;
    for (struct conf_node *key = map->first; key != NULL; key = key->next) {
        struct conf_resolve *r = &out[c->n_resolve];
        struct span text;
        bool host = read_resolve_host(l, key, &r->host);
        if (!schema_string(l, KEY_ROOT_resolve, key->value, &text) || !read_address(l, key->value, text, r) ||
            !host)
            continue;
        const struct conf_node *other = map_get(&hosts, r->host);
        if (other != NULL) {
            complain(l->errors, key->mark, "resolve: '%.*s' was already given on line %u; remove one",
                     SHOW(r->host), other->mark.line);
            continue;
        }
        map_put(&hosts, r->host, key);
        c->n_resolve++;
    }
    map_free(&hosts);
}
