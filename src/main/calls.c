/* See calls.h. Each call reads its parameters, asks its room, and says in words what was wrong. */
#include "main/calls.h"

#include "admin/store_calls.h"
#include "proxy/proxy.h"
#include "proxy/report.h"
#include "proxy/setup.h"
#include "registry/name.h"

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

static unsigned image(void *arg, struct span query, struct str *out)
{
    struct calls_context *c = arg;
    char ns_text[NAME_REGISTRY_MAX + 1], name_text[NAME_REPO_MAX + 1], reference_text[256];
    struct str ns = STR_INIT(ns_text), name = STR_INIT(name_text), reference = STR_INIT(reference_text);
    bool has_ns = api_parameter(query, SPAN("ns"), &ns);
    if (!api_parameter(query, SPAN("repository"), &name) || !name_repo_ok(str_span(&name)))
        return no(out, 400, "the parameter repository is missing or no name of a repository");
    if (!api_parameter(query, SPAN("reference"), &reference))
        return no(out, 400, "the parameter reference is missing: a tag or a digest");
    if (!report_image(c->shared, has_ns ? str_span(&ns) : SPAN_NONE, str_span(&name), str_span(&reference),
                      out))
        return no(out, 404, "no cache rule for this repository");
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
    };
    _Static_assert(ARRAY_LEN(table) + STORE_CALLS_MAX <= CALLS_MAX, "room for all calls");
    memcpy(calls, table, sizeof table);
    return ARRAY_LEN(table) + store_calls_fill(context->store_calls, calls + ARRAY_LEN(table));
}
