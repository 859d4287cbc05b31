/* See changes.h. Each kind of thing is compared by one function that writes the names of the keys that differ; things are found
 * again by name in a map, so that 10,000 rules cost no more than they must. */
#include "conf/changes.h"

#include "base/map.h"

#define DETAIL_MAX 512

struct differ {
    void (*say)(const struct conf_change *change, void *arg);
    void *arg;
};

const char *conf_change_word(enum conf_change_kind kind)
{
    static const char *const words[] = {"added", "removed", "changed"};
    return words[kind];
}

static void tell(const struct differ *d, enum conf_change_kind kind, const char *what, struct span name,
                 struct span detail, bool restart)
{
    struct conf_change c = {.kind = kind, .what = what, .name = name, .detail = detail, .restart = restart};
    d->say(&c, d->arg);
}

static void key(struct str *out, bool differs, const char *name)
{
    if (!differs)
        return;
    if (out->n > 0)
        str_add(out, SPAN(", "));
    str_addz(out, name);
}

/* ---- what differs between two of a kind ---- */

static bool same_spans(const struct span *a, size_t n, const struct span *b, size_t m)
{
    bool same = n == m;
    for (size_t i = 0; same && i < n; i++)
        same = span_eq(a[i], b[i]);
    return same;
}

static void policy_differs(const struct conf_policy *a, const struct conf_policy *b, struct str *out)
{
    key(out, a->tag_ttl_ms != b->tag_ttl_ms, "tag_ttl");
    key(out, a->stale_if_error_ms != b->stale_if_error_ms, "stale_if_error");
    key(out, a->negative_ttl_ms != b->negative_ttl_ms, "negative_ttl");
    key(out, a->serve_on_404 != b->serve_on_404, "on_upstream_404");
    key(out, a->on_abandoned != b->on_abandoned, "on_abandoned");
    key(out, !same_spans(a->immutable_tags, a->n_immutable_tags, b->immutable_tags, b->n_immutable_tags),
        "immutable_tags");
    key(out, a->refresh != b->refresh, "refresh");
}

static struct span set_name(const struct conf_rule *r)
{
    return r->credential_set != NULL ? r->credential_set->name : SPAN_NONE;
}

static void rule_differs(const void *x, const void *y, struct str *out)
{
    const struct conf_rule *a = x, *b = y;
    key(out, !span_eq(a->source, b->source), "source");
    key(out, !span_eq(a->target, b->target), "target");
    key(out, !span_eq(set_name(a), set_name(b)), "credential_set");
    policy_differs(&a->policy, &b->policy, out);
}

static void set_differs(const void *x, const void *y, struct str *out)
{
    const struct conf_credential_set *a = x, *b = y;
    key(out, !span_eq(a->login_server, b->login_server), "login_server");
    key(out, !span_eq(a->username.text, b->username.text), "username");
    key(out, !span_eq(a->password.text, b->password.text), "password");
}

static bool same_endpoints(const struct conf_endpoint *a, size_t n, const struct conf_endpoint *b, size_t m)
{
    bool same = n == m;
    for (size_t i = 0; same && i < n; i++)
        same = span_eq(a[i].url, b[i].url);
    return same;
}

static bool same_identity(const struct conf_identity *a, const struct conf_identity *b)
{
    return span_eq(a->certificate.path, b->certificate.path) && span_eq(a->key.path, b->key.path);
}

static void upstream_differs(const void *x, const void *y, struct str *out)
{
    const struct conf_upstream *a = x, *b = y;
    const struct conf_timeouts *s = &a->timeouts, *t = &b->timeouts;
    key(out, !same_endpoints(a->endpoints, a->n_endpoints, b->endpoints, b->n_endpoints), "endpoints");
    key(out, !span_eq(a->ca.path, b->ca.path), "ca");
    key(out, !same_identity(&a->identity, &b->identity), "client_certificate");
    key(out, !span_eq(a->proxy, b->proxy), "proxy");
    key(out, !same_endpoints(a->token_realms, a->n_token_realms, b->token_realms, b->n_token_realms),
        "token_realms");
    key(out, !same_spans(a->redirect_hosts, a->n_redirect_hosts, b->redirect_hosts, b->n_redirect_hosts),
        "redirect_hosts");
    key(out,
        s->connect_ms != t->connect_ms || s->first_byte_ms != t->first_byte_ms || s->idle_ms != t->idle_ms,
        "timeouts");
    key(out, a->max_connections != b->max_connections, "max_connections");
    key(out, a->max_manifest != b->max_manifest, "max_manifest");
}

static void listen_differs(const void *x, const void *y, struct str *out)
{
    const struct conf_listen *a = x, *b = y;
    key(out, !same_identity(&a->tls, &b->tls), "tls");
}

/* ---- lists ---- */

/* A list of named things, whatever they are. */
struct things {
    const char *what;
    const char *base;
    size_t n, size;
    size_t name_at; /* offset of the struct span that names one */
    void (*differs)(const void *a, const void *b, struct str *out);
};

static const void *thing(const struct things *t, size_t i)
{
    return t->base + i * t->size;
}

static struct span thing_name(const struct things *t, size_t i)
{
    struct span name;
    memcpy(&name, t->base + i * t->size + t->name_at, sizeof name);
    return name;
}

static void index_things(const struct things *t, struct map *m)
{
    map_init(m);
    for (size_t i = 0; i < t->n; i++)
        map_put(m, thing_name(t, i), (void *)(uintptr_t)thing(t, i));
}

static void diff_things(const struct differ *d, const struct things *before, const struct things *now)
{
    struct map old, new;
    index_things(before, &old);
    index_things(now, &new);
    for (size_t i = 0; i < now->n; i++) {
        struct span name = thing_name(now, i);
        const void *was = map_get(&old, name);
        char text[DETAIL_MAX];
        struct str detail = STR_INIT(text);
        if (was == NULL)
            tell(d, CHANGE_ADDED, now->what, name, SPAN_NONE, false);
        else
            now->differs(was, thing(now, i), &detail);
        if (detail.n > 0)
            tell(d, CHANGE_CHANGED, now->what, name, str_span(&detail), false);
    }
    for (size_t i = 0; i < before->n; i++) {
        struct span name = thing_name(before, i);
        if (map_get(&new, name) == NULL)
            tell(d, CHANGE_REMOVED, before->what, name, SPAN_NONE, false);
    }
    map_free(&old);
    map_free(&new);
}

#define THINGS(c, words, list, count, type, name, compare)                                                   \
    ((struct things){.what = (words),                                                                        \
                     .base = (const char *)(c)->list,                                                        \
                     .n = (c)->count,                                                                        \
                     .size = sizeof(struct type),                                                            \
                     .name_at = offsetof(struct type, name),                                                 \
                     .differs = (compare)})
#define DIFF(d, a, b, ...)                                                                                   \
    do {                                                                                                     \
        struct things before_ = THINGS(a, __VA_ARGS__), now_ = THINGS(b, __VA_ARGS__);                       \
        diff_things(d, &before_, &now_);                                                                     \
    } while (0)

/* ---- settings ---- */

static void setting(const struct differ *d, bool differs, const char *name, bool restart)
{
    if (differs)
        tell(d, CHANGE_CHANGED, "setting", span_str(name), SPAN_NONE, restart);
}

static bool same_resolve(const struct conf *a, const struct conf *b)
{
    bool same = a->n_resolve == b->n_resolve;
    for (size_t i = 0; same && i < a->n_resolve; i++) {
        const struct conf_resolve *x = &a->resolve[i], *y = &b->resolve[i];
        same = span_eq(x->host, y->host) && span_eq(x->address, y->address) && x->port == y->port;
    }
    return same;
}

static void diff_settings(const struct differ *d, const struct conf *a, const struct conf *b)
{
    setting(d, a->workers != b->workers, "workers", true);
    setting(d, !span_eq(a->admin.address, b->admin.address), "admin.address", true);
    setting(d, !span_eq(a->store_path, b->store_path), "store.path", true);
    setting(d, a->store.max_size != b->store.max_size, "store.max_size", false);
    setting(d,
            a->store.min_free != b->store.min_free || a->store.min_free_percent != b->store.min_free_percent,
            "store.min_free", false);
    setting(d, a->store.max_age_ms != b->store.max_age_ms, "store.max_age", false);
    setting(d, a->store.partial_age_ms != b->store.partial_age_ms, "store.partial_age", false);
    setting(d, a->store.scrub_rate != b->store.scrub_rate, "store.scrub_rate", false);
    setting(d, a->client.header_ms != b->client.header_ms, "client.header_timeout", false);
    setting(d, a->client.idle_ms != b->client.idle_ms, "client.idle_timeout", false);
    setting(d, a->client.send_ms != b->client.send_ms, "client.send_timeout", false);
    setting(d, a->client.drain_ms != b->client.drain_ms, "client.drain_timeout", false);
    setting(d, a->client.max_connections != b->client.max_connections, "client.max_connections", false);
    setting(d, a->mirror != b->mirror, "mirror.enabled", false);
    setting(d, !same_resolve(a, b), "resolve", false);
    setting(d, a->log_level != b->log_level, "log.level", false);
    setting(d, a->log_format != b->log_format, "log.format", false);
    setting(d, a->log_access != b->log_access, "log.access", false);
}

void conf_changes(const struct conf *before, const struct conf *now,
                  void (*say)(const struct conf_change *change, void *arg), void *arg)
{
    struct differ d = {say, arg};
    diff_settings(&d, before, now);
    DIFF(&d, before, now, "listener", listen, n_listen, conf_listen, address, listen_differs);
    DIFF(&d, before, now, "upstream", upstreams, n_upstreams, conf_upstream, registry, upstream_differs);
    DIFF(&d, before, now, "credential set", credential_sets, n_credential_sets, conf_credential_set, name,
         set_differs);
    DIFF(&d, before, now, "rule", rules, n_rules, conf_rule, name, rule_differs);
}
