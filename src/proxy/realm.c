#include "proxy/realm.h"

static bool origin_among(const struct url *u, const struct conf_endpoint *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct url one = {.tls = list[i].tls, .host = list[i].host, .port = list[i].port};
        if (url_same_origin(u, &one))
            return true;
    }
    return false;
}

bool realm_own(const struct conf_upstream *up, const struct url *origin)
{
    return origin_among(origin, up->endpoints, up->n_endpoints);
}

/* Without path and query: they may be long, and are of no help. */
static void add_origin(struct str *out, const struct url *u)
{
    str_add(out, u->tls ? SPAN("https://") : SPAN("http://"));
    url_add_host(u, out);
}

enum realm_trust realm_judge(const struct conf_upstream *up, const struct url *origin, enum address_kind peer,
                             struct span text, struct realm *out, struct str *why)
{
    enum address_kind kind;
    const struct url *realm = &out->url;
    out->guarded = false;
    if (!url_parse(text, &out->url)) {
        str_add(why, SPAN("the realm is not a usable URL"));
        return REALM_REFUSED;
    }
    bool own = realm_own(up, origin);
    bool named = own && origin_among(realm, up->token_realms, up->n_token_realms);
    if (origin->tls && !realm->tls) {
        str_add(why, SPAN("the realm "));
        add_origin(why, realm);
        str_add(why, SPAN(" is not trusted: it is not https, and the registry is"));
        return REALM_REFUSED;
    }
    if (named || (own && realm_own(up, realm)))
        return REALM_CREDENTIALS;
    out->guarded = true;
    if (address_kind_of_text(realm->host, &kind) && !address_reachable(peer, kind)) {
        str_add(why, SPAN("the realm "));
        add_origin(why, realm);
        str_add(why, SPAN(" is not trusted: it is "));
        str_addz(why, address_kind_name(kind));
        return REALM_REFUSED;
    }
    if (own && origin->tls && up->known != NULL && up->known->realm.n > 0 &&
        span_ieq(realm->host, up->known->realm) && realm->port == 443)
        return REALM_CREDENTIALS;
    str_add(why, SPAN("the realm "));
    add_origin(why, realm);
    str_add(
        why,
        SPAN(
            " is not trusted with credentials: it is neither the registry's own origin nor in token_realms"));
    return REALM_ANONYMOUS;
}
