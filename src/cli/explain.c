/* larder explain: which rule is for an image. */
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/command_int.h"
#include "cli/config_file.h"
#include "cli/image_rule.h"
#include "cli/live.h"
#include "cli/output_int.h"

enum { KEYS = 12 };

static const char *const keys[KEYS] = {"image",      "rule",      "matched_by", "registry",
                                       "repository", "reference", "endpoints",  "credential_set",
                                       "digest",     "stored",    "checked",    "next"};

/* What a running server has of it: digest, whether it is stored, when the registry confirmed it, what the next pull leads to. */
static json_t *ask_server(const struct conf *c, const struct image_rule *m)
{
    char buf[2048];
    struct str query = STR_INIT(buf);
    image_rule_add(m, &query);
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

static void print_match(const struct command_args *args, const struct conf *c, const struct image_rule *m)
{
    const struct conf_upstream *u = m->rule->upstream;
    struct span *urls = mem_alloc(u->n_endpoints * sizeof *urls);
    for (size_t i = 0; i < u->n_endpoints; i++)
        urls[i] = u->endpoints[i].url;
    struct output_value values[KEYS] = {
        {.text = m->text},
        {.text = m->rule->name},
        {.text = m->mirror ? SPAN("source") : SPAN("target")},
        {.text = m->rule->registry},
        {.text = span_str(m->repository)},
        {.text = m->reference},
        {.list = urls, .n = u->n_endpoints},
        {.text = m->rule->credential_set != NULL ? m->rule->credential_set->name : SPAN_NONE},
    };
    char text[40];
    struct str checked = STR_INIT(text);
    json_t *live = ask_server(c, m);
    live_values(live, &checked, &values[8]);
    output_rows(args->option[OPT_OUTPUT], keys, KEYS, values, 1, true);
    json_decref(live);
    mem_free(urls);
}

int run_explain(const struct command_args *args)
{
    struct image_rule m;
    if (!image_rule_parse(&m, span_str(args->arguments[0])))
        return command_usage(args->command,
                             "%s is no image; write it as in cache.example:5000/dotnet/sdk:8.0",
                             args->arguments[0]);
    struct config_warnings warnings;
    const char *path = config_path(args->option[OPT_CONFIG]);
    struct conf *c = config_read(path, &warnings);
    if (c == NULL)
        return 1;
    bool found = image_rule_find(&m, c);
    if (found)
        print_match(args, c, &m);
    else
        fprintf(stderr,
                "%s: no rule is for '" SPAN_FMT
                "'; 'larder cache list' shows the rules, 'larder cache create' adds one\n",
                path, SPAN_ARG(m.image.repository));
    conf_unref(c);
    return found ? 0 : 1;
}
