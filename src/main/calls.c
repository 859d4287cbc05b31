/* See calls.h. Each call reads its parameters, asks its room, and says in words what was wrong. */
#include "main/calls.h"

#include "admin/store_calls.h"
#include "proxy/proxy.h"
#include "proxy/report.h"
#include "proxy/setup.h"
#include "proxy/warm.h"
#include "registry/name.h"
#include "registry/platform.h"

static unsigned no(struct str *out, unsigned status, const char *why)
{
    str_reset(out);
    str_addz(out, why);
    return status;
}

static unsigned credential_sets(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    UNUSED(query);
    report_credential_sets(c->shared, out);
    return 200;
}

static unsigned upstreams(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    UNUSED(query);
    report_upstreams(c->shared, out);
    return 200;
}

/* A parameter that may be missing: absent then. False: `out` says what is wrong with it. */
static bool optional(struct span query, const char *name, struct str *buf, struct span *value,
                     struct str *out)
{
    bool ok = api_optional(query, name, buf, out);
    *value = ok && api_given(query, span_str(name)) ? str_span(buf) : SPAN_NONE;
    return ok;
}

static unsigned image(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    char ns_text[NAME_REGISTRY_MAX + 1], name_text[NAME_REPO_MAX + 1], reference_text[256];
    struct str ns = STR_INIT(ns_text), name = STR_INIT(name_text), reference = STR_INIT(reference_text);
    struct span registry;
    if (!optional(query, "ns", &ns, &registry, out))
        return 400;
    if (!api_parameter(query, SPAN("repository"), &name) || !name_repo_ok(str_span(&name)))
        return no(out, 400, "the parameter repository is missing or no name of a repository");
    if (!api_parameter(query, SPAN("reference"), &reference))
        return no(out, 400, "the parameter reference is missing: a tag or a digest");
    if (!report_image(c->shared, registry, str_span(&name), str_span(&reference), out))
        return no(out, 404, "no cache rule for this repository");
    return 200;
}

/* ---- warming ---- */

static unsigned warm_start(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    char ns_text[NAME_REGISTRY_MAX + 1], name_text[NAME_REPO_MAX + 1], reference_text[256],
        list_text[PLATFORMS_TEXT_MAX + 1];
    struct str ns = STR_INIT(ns_text), name = STR_INIT(name_text), reference = STR_INIT(reference_text),
               list = STR_INIT(list_text);
    struct digest d;
    struct warm_image image;
    bool ok = optional(query, "ns", &ns, &image.ns, out) &&
              optional(query, "repository", &name, &image.repository, out) &&
              optional(query, "reference", &reference, &image.reference, out) &&
              optional(query, "platforms", &list, &image.platforms, out);
    if (list.cut)
        return no(out, 400, "too many platforms at once");
    if (!ok)
        return 400;
    if (!name_repo_ok(image.repository))
        return no(out, 400, "the parameter repository is missing or no name of a repository");
    if (!name_tag_ok(image.reference) && digest_parse(image.reference, &d) != DIGEST_OK)
        return no(out, 400, "the parameter reference is missing: a tag or a digest");
    return warm_begin(c->shared, &image, out);
}

static bool read_id(struct span query, uint64_t *id)
{
    char text[24];
    struct str value = STR_INIT(text);
    return api_parameter(query, SPAN("id"), &value) && span_u64(str_span(&value), UINT64_MAX, id);
}

static unsigned warm_look(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    uint64_t id;
    if (!read_id(query, &id))
        return no(out, 400, "the parameter id is missing, or no number");
    return warm_report(c->shared, id, out) ? 200 : no(out, 404, "no image is warmed with that id");
}

static unsigned warm_end(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    uint64_t id;
    if (!read_id(query, &id))
        return no(out, 400, "the parameter id is missing, or no number");
    if (!warm_cancel(c->shared, id))
        return no(out, 404, "no image is being warmed with that id");
    str_addf(out, "{\"id\":%llu}\n", (unsigned long long)id);
    return 200;
}

const struct conf *calls_hold_conf(void *arg, void **held)
{
    struct calls_context *c = arg;
    struct setup *setup = proxy_setup(c->shared);
    *held = setup;
    return setup_conf(setup);
}

void calls_release_conf(void *held)
{
    setup_unref(held);
}

size_t calls_fill(struct calls_context *context, struct api_call calls[CALLS_MAX])
{
    const struct api_call table[] = {
        {"status", false, false, status_call, context},
        {"credential-sets", false, false, credential_sets, context},
        {"upstreams", false, false, upstreams, context},
        {"image", false, true, image, context},
        {"warm", false, false, warm_look, context},
        {"warm-start", true, false, warm_start, context},
        {"warm-cancel", true, false, warm_end, context},
    };
    _Static_assert(ARRAY_LEN(table) + STORE_CALLS_MAX <= CALLS_MAX, "room for all calls");
    memcpy(calls, table, sizeof table);
    return ARRAY_LEN(table) + store_calls_fill(context->store_calls, calls + ARRAY_LEN(table));
}
