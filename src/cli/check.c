/* larder check. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/check.h"
#include "cli/config_file.h"
#include "cli/references.h"

#define SCHEMA_MAX 65536

static bool is_loopback(const struct conf_listen *l)
{
    return span_starts(l->host, SPAN("127.")) || span_eq(l->host, SPAN("::1"));
}

/* What is right in one network and wrong in another, so it is no warning and not in the log. */
static void note_reach(const struct conf *c, const char *path)
{
    size_t rule = 0, address = 0;
    while (rule < c->n_rules && c->rules[rule].credential_set == NULL)
        rule++;
    while (address < c->n_listen && is_loopback(&c->listen[address]))
        address++;
    if (rule == c->n_rules || address == c->n_listen)
        return;
    fprintf(stderr,
            "note: %s:%u:%u: larder does not ask its clients who they are: whoever reaches " SPAN_FMT
            " may pull what the account of rule '" SPAN_FMT
            "' may; if that is more than should, listen on 127.0.0.1, or filter\n",
            path, c->rules[rule].mark.line, c->rules[rule].mark.column, SPAN_ARG(c->listen[address].address),
            SPAN_ARG(c->rules[rule].name));
}

int cli_check(const char *config_file, const struct cli_program *program)
{
    const char *path = config_path(config_file);
    struct config_warnings warnings;
    struct conf *c = config_read(path, &warnings);
    if (c == NULL)
        return 1;
    references_check(c, &warnings);
    char text[1024];
    struct str why = STR_INIT(text);
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT); /* what serving would warn of is among the warnings */
    bool good = program->takes(c, &warnings, &why);
    config_warnings_say(&warnings, path);
    note_reach(c, path);
    if (good)
        printf("%s: good: %zu rules, %zu upstreams\n", path, c->n_rules, c->n_upstreams);
    else
        fprintf(stderr, "%s\n", text);
    conf_unref(c);
    return good ? 0 : 1;
}

int cli_schema(void)
{
    char *text = mem_alloc(SCHEMA_MAX);
    struct str s = str_init(text, SCHEMA_MAX);
    conf_schema_text(&s);
    MUST(!s.cut);
    fputs(text, stdout);
    mem_free(text);
    return 0;
}
