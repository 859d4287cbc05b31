/* larder explain: which rule is for an image.
 *
 * A client asks larder for an image in one of two ways: by larder's own name for it (then a rule's target counts), or, as a mirror, with the
 * registry's name in ?ns= (then a rule's source counts). Which one a host in front of the image means cannot be seen, because larder
 * does not know the names under which clients reach it; so a host that is the source of a rule is taken for the registry, and any
 * other one for larder. */
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/command_int.h"
#include "cli/config_file.h"
#include "cli/live.h"
#include "cli/output_int.h"
#include "registry/name.h"

enum { KEYS = 12 };

static const char *const keys[KEYS] = {"image",      "rule",      "matched_by", "registry",
                                       "repository", "reference", "endpoints",  "credential_set",
                                       "digest",     "stored",    "checked",    "next"};

struct image {
    struct span whole;
    struct span host;       /* absent: none is written */
    struct span repository; /* without host and version */
    struct span reference;  /* tag or digest; "latest" when none is written */
};

struct match {
    const struct conf_rule *rule;
    bool mirror;
    struct str repository; /* at upstream */
};

/* As Docker reads references: a host has a dot or a port, or is "localhost". */
static bool is_host(struct span s)
{
    return span_find(s, '.') >= 0 || span_find(s, ':') >= 0 || span_eq(s, SPAN("localhost"));
}

static bool parse_image(struct span text, struct image *out)
{
    *out = (struct image){.whole = text, .reference = SPAN("latest")};
    ptrdiff_t scheme = span_find(text, ':');
    if (scheme >= 0 &&
        span_starts(span_from(text, (size_t)scheme), SPAN("://"))) /* docker://, as skopeo writes it */
        text = span_from(text, (size_t)scheme + 3);
    ptrdiff_t at = span_find(text, '@');
    struct span name = at < 0 ? text : span_sub(text, 0, (size_t)at);
    ptrdiff_t slash = span_rfind(name, '/');
    ptrdiff_t colon = span_find(span_from(name, (size_t)(slash + 1)), ':');
    if (colon >= 0) {
        out->reference = span_from(name, (size_t)(slash + 1 + colon + 1));
        name = span_sub(name, 0, (size_t)(slash + 1 + colon));
        if (!name_tag_ok(out->reference))
            return false;
    }
    if (at >= 0)
        out->reference = span_from(text, (size_t)at + 1);
    slash = span_find(name, '/');
    if (slash >= 0 && is_host(span_sub(name, 0, (size_t)slash))) {
        out->host = span_sub(name, 0, (size_t)slash);
        name = span_from(name, (size_t)slash + 1);
    }
    out->repository = name;
    return name_repo_ok(name) && out->reference.n > 0;
}

static bool find_match(const struct conf *c, const struct image *image, struct match *m)
{
    struct span registry = image->host.p != NULL ? image->host : SPAN("docker.io");
    m->mirror = true;
    if (c->mirror && image->host.p != NULL)
        m->rule = conf_match_source(c, registry, image->repository, &m->repository);
    if (m->rule != NULL)
        return true;
    m->mirror = false;
    m->rule = conf_match_target(c, image->repository, &m->repository);
    if (m->rule != NULL || !c->mirror || image->host.p != NULL)
        return m->rule != NULL;
    m->mirror = true;
    m->rule = conf_match_source(c, registry, image->repository, &m->repository);
    return m->rule != NULL;
}

/* What a running server has of it: digest, whether it is stored, when the registry confirmed it, what the next pull leads to. */
static json_t *ask_server(const struct conf *c, const struct image *image, const struct match *m)
{
    char buf[2048];
    struct str query = STR_INIT(buf);
    if (m->mirror)
        call_add(&query, "ns", m->rule->registry);
    call_add(&query, "repository", image->repository);
    call_add(&query, "reference", image->reference);
    return query.cut ? NULL : live_get(c, "image", str_span(&query));
}

static void live_values(json_t *live, struct str *checked, struct output_value out[4])
{
    json_t *stored = json_object_get(live, "stored"), *ms = json_object_get(live, "checked_ms");
    out[0].text = span_str(json_string_value(json_object_get(live, "digest")));
    if (json_is_boolean(stored))
        out[1].text = json_is_true(stored) ? SPAN("yes") : SPAN("no");
    if (json_is_integer(ms)) {
        clock_add_rfc3339(checked, (int64_t)json_integer_value(ms));
        out[2].text = str_span(checked);
    }
    out[3].text = span_str(json_string_value(json_object_get(live, "next")));
}

static void print_match(const struct command_args *args, const struct conf *c, const struct image *image,
                        const struct match *m)
{
    const struct conf_upstream *u = m->rule->upstream;
    struct span *urls = mem_alloc(u->n_endpoints * sizeof *urls);
    for (size_t i = 0; i < u->n_endpoints; i++)
        urls[i] = u->endpoints[i].url;
    struct output_value values[KEYS] = {
        {.text = image->whole},
        {.text = m->rule->name},
        {.text = m->mirror ? SPAN("source") : SPAN("target")},
        {.text = m->rule->registry},
        {.text = str_span(&m->repository)},
        {.text = image->reference},
        {.list = urls, .n = u->n_endpoints},
        {.text = m->rule->credential_set != NULL ? m->rule->credential_set->name : SPAN_NONE},
    };
    char text[40];
    struct str checked = STR_INIT(text);
    json_t *live = ask_server(c, image, m);
    live_values(live, &checked, &values[8]);
    output_rows(args->option[OPT_OUTPUT], keys, KEYS, values, 1, true);
    json_decref(live);
    mem_free(urls);
}

int run_explain(const struct command_args *args)
{
    struct image image;
    if (!parse_image(span_str(args->argument), &image))
        return command_usage(args->command,
                             "%s is no image; write it as in cache.example:5000/dotnet/sdk:8.0",
                             args->argument);
    struct config_warnings warnings;
    const char *path = config_path(args->option[OPT_CONFIG]);
    struct conf *c = config_read(path, &warnings);
    if (c == NULL)
        return 1;
    char buf[NAME_REPO_MAX + 1];
    struct match m = {.repository = STR_INIT(buf)};
    bool found = find_match(c, &image, &m);
    if (found)
        print_match(args, c, &image, &m);
    else
        fprintf(stderr,
                "%s: no rule is for '" SPAN_FMT
                "'; 'larder cache list' shows the rules, 'larder cache create' adds one\n",
                path, SPAN_ARG(image.repository));
    conf_unref(c);
    return found ? 0 : 1;
}
