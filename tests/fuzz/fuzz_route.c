/* Request targets. A route is whole or all zero, lies in scratch, does not depend on what scratch held before, has
 * parts that follow the grammars, and parses to itself when it is written as a path again. */
#include "base/check.h"
#include "registry/name.h"
#include "registry/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const char *scratch, struct span s)
{
    MUST(s.p == NULL || (s.p >= scratch && s.p + s.n <= scratch + ROUTE_TARGET_MAX));
}

static void check_same(const struct route *a, const struct route *b)
{
    MUST(a->kind == b->kind);
    MUST(span_eq(a->name, b->name) && span_eq(a->tag, b->tag));
    MUST(span_eq(a->ns, b->ns) && span_eq(a->query, b->query));
    MUST((a->name.p == NULL) == (b->name.p == NULL) && (a->tag.p == NULL) == (b->tag.p == NULL));
    MUST((a->ns.p == NULL) == (b->ns.p == NULL) && (a->query.p == NULL) == (b->query.p == NULL));
    MUST(memcmp(&a->digest, &b->digest, sizeof(a->digest)) == 0);
}

static void check_parts(const struct route *r)
{
    bool named = r->kind != ROUTE_PING;
    bool by_digest = r->kind == ROUTE_BLOB || r->kind == ROUTE_REFERRERS ||
                     (r->kind == ROUTE_MANIFEST && r->tag.p == NULL);
    MUST(r->kind != ROUTE_NONE && r->query.p != NULL);
    MUST(named ? name_repo_ok(r->name) : r->name.p == NULL);
    MUST(r->tag.p == NULL || (r->kind == ROUTE_MANIFEST && name_tag_ok(r->tag)));
    MUST(by_digest == (r->digest.alg != DIGEST_NONE));
    MUST(r->ns.p == NULL || r->ns.n > 0);
    MUST(span_find(r->ns, '\0') < 0 && span_find(r->ns, '\n') < 0);
}

static void check_canonical_registry(struct span registry)
{
    char buf[NAME_REGISTRY_MAX + 1], again_buf[NAME_REGISTRY_MAX + 1];
    struct str out = STR_INIT(buf), again = STR_INIT(again_buf);
    bool ok = name_registry_canonical(registry, &out);
    MUST(!ok || name_registry_ok(registry));
    if (!ok)
        return;
    MUST(name_registry_canonical(str_span(&out), &again) && span_eq(str_span(&out), str_span(&again)));
    MUST(name_is_docker_hub(registry) == span_eq(str_span(&out), SPAN("docker.io")) ||
         span_ends(registry, SPAN("443"))); /* the port may have been written with zeros */
}

static void add_path(const struct route *r, struct str *out)
{
    str_add(out, SPAN("/v2/"));
    str_add(out, r->name);
    switch (r->kind) {
    case ROUTE_MANIFEST:
        str_add(out, SPAN("/manifests/"));
        break;
    case ROUTE_BLOB:
        str_add(out, SPAN("/blobs/"));
        break;
    case ROUTE_REFERRERS:
        str_add(out, SPAN("/referrers/"));
        break;
    case ROUTE_TAGS:
        str_add(out, SPAN("/tags/list"));
        break;
    case ROUTE_UPLOAD:
        str_add(out, SPAN("/blobs/uploads/"));
        break;
    case ROUTE_PING:
    case ROUTE_NONE:
        break;
    }
    str_add(out, r->tag);
    if (r->digest.alg != DIGEST_NONE)
        digest_add(out, &r->digest);
}

static void add_query(const struct route *r, struct str *out)
{
    str_addc(out, '?');
    if (r->ns.n > 0) {
        str_add(out, SPAN("ns="));
        for (size_t i = 0; i < r->ns.n; i++) {
            str_addc(out, '%');
            str_addhex(out, r->ns.p + i, 1);
        }
        if (r->query.n > 0)
            str_addc(out, '&');
    }
    str_add(out, r->query);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct route zero;
    char scratch[ROUTE_TARGET_MAX], other[ROUTE_TARGET_MAX], text[ROUTE_TARGET_MAX + 1];
    struct span target = span_of((const char *)data, size);
    struct route r, again;
    memset(scratch, '/', sizeof(scratch));
    memset(other, '%', sizeof(other));
    int err = route_parse(target, scratch, &r);
    MUST(route_parse(target, other, &again) == err);
    check_same(&r, &again);
    check_canonical_registry(target);
    if (err != 0) {
        check_same(&r, &zero);
        return 0;
    }
    check_inside(scratch, r.name);
    check_inside(scratch, r.tag);
    check_inside(scratch, r.ns);
    check_inside(scratch, r.query);
    check_parts(&r);
    check_canonical_registry(r.ns);

    struct str out = STR_INIT(text);
    add_path(&r, &out);
    add_query(&r, &out);
    if (out.cut) /* ns is longer when it is written with escapes */
        return 0;
    MUST(route_parse(str_span(&out), other, &again) == 0);
    check_same(&r, &again);
    return 0;
}
