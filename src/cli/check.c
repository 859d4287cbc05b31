/* larder check. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/check.h"
#include "cli/config_file.h"
#include "cli/references.h"

#define SCHEMA_MAX 65536

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
