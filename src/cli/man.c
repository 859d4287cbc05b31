/* larder man: larder(1) from the table of commands, larder-config(5) from the table of keys, as roff with the man macros. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/command_int.h"
#include "conf/conf.h"

enum { SYNOPSIS_MAX = 1024 };

/* Text inside a line: what roff would take for its own is escaped. */
static void print_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '-')
            fputs("\\-", stdout);
        else if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '\'')
            fputs("\\(aq", stdout);
        else if (*text == '"')
            fputs("\\(dq", stdout);
        else
            putchar(*text);
    }
}

/* A line of text; one that would begin with a request's character does not. */
static void print_line(const char *text)
{
    if (text[0] == '.')
        fputs("\\&", stdout);
    print_text(text);
    putchar('\n');
}

static void print_head(const char *title, const char *section, const char *version, const char *name,
                       const char *what)
{
    printf(".TH %s %s \"\" \"larder ", title, section);
    print_text(version);
    puts("\" \"larder manual\"\n.SH NAME");
    print_text(name);
    fputs(" \\- ", stdout);
    print_line(what);
}

static void print_command(const struct command *c)
{
    char text[SYNOPSIS_MAX];
    struct str s = STR_INIT(text);
    help_synopsis(&s, c, true);
    MUST(!s.cut);
    printf(".TP\n%s\n", text);
    char doc[2] = {(char)(c->doc[0] - 'a' + 'A'), '\0'};
    print_text(doc);
    print_text(c->doc + 1);
    puts(".");
    if (c->more != NULL)
        print_line(c->more);
}

static void print_option(size_t o)
{
    const struct command_option_info *i = &command_options[o];
    puts(".TP");
    if (i->letter != 0)
        printf("\\fB\\-%c\\fR, ", i->letter);
    fputs("\\fB\\-\\-", stdout);
    print_text(i->name);
    fputs("\\fR", stdout);
    if (i->alias != NULL) {
        fputs(", \\fB\\-\\-", stdout);
        print_text(i->alias);
        fputs("\\fR", stdout);
    }
    if (i->value != NULL) {
        fputs(" \\fI", stdout);
        print_text(i->value);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    print_line(i->doc);
}

static void print_program(const char *version)
{
    print_head("LARDER", "1", version, "larder", "a pull-through cache for container images");
    puts(".SH SYNOPSIS\n\\fBlarder\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n"
         "larder stands between container clients and registries. Clients pull from it as from any registry; "
         "it fetches each thing\n"
         "once, verifies it, keeps it, and serves it to everyone. What is cached, and under which name, is "
         "said by rules in a\n"
         "configuration file, which is described in\n.BR larder\\-config (5).\n.PP\n"
         "The commands that change the configuration change only the bytes they must: comments, order, "
         "quotes and blank lines stay. The\n"
         "result is validated before it takes the file\\(aqs place, and two commands at once cannot lose a "
         "change.\n.PP\n"
         "The commands about the store ask the larder that runs, on the admin address of its configuration. "
         "What changes something is\n"
         "taken from the same machine only.\n"
         ".SH COMMANDS");
    for (size_t i = 0; i < n_commands; i++)
        print_command(&commands[i]);
    puts(".SH OPTIONS");
    for (size_t o = 0; o < OPT_COUNT; o++)
        print_option(o);
    puts(".SH EXIT STATUS\n.TP\n0\nDone.\n.TP\n1\nRefused, or failed; the reason is on standard "
         "error.\n.TP\n2\n"
         "The command line was not understood.\n"
         ".SH ENVIRONMENT\n.TP\n\\fBLARDER_CONFIG\\fR\nThe configuration file, when there is no "
         "\\fB\\-f\\fR.\n"
         ".SH FILES\n.TP\n\\fI/etc/larder/config.yaml\\fR\nThe configuration file, when nothing else is "
         "said.\n.TP\n"
         "\\fICONFIG\\fR.lock\nExists while a command changes the file, and holds its process id.\n"
         ".SH EXAMPLES\n.nf\n"
         "larder cache create \\-n hello \\-s docker.io/library/hello\\-world \\-t hello\\-world\n"
         "larder credential\\-set create \\-n hub \\-l docker.io \\-u env:HUB_USER \\-p "
         "file:/run/secrets/hub\n"
         "larder cache update \\-n hello \\-c hub \\-\\-dry\\-run\n"
         "larder explain cache.example:5000/hello\\-world:latest\n"
         "larder ls \\-\\-all docker.io/library/\n"
         "larder warm \\-\\-platform linux/amd64,linux/arm64 hello\\-world:latest dotnet/sdk:8.0\n"
         "larder purge hello\\-world:latest\n"
         "larder verify \\-\\-deep\n"
         ".fi\n.SH SEE ALSO\n.BR larder\\-config (5)");
}

static void print_key(const struct conf_schema_line *k)
{
    fputs(".TP\n\\fB", stdout);
    print_text(k->name);
    fputs("\\fR: \\fI", stdout);
    print_text(k->type);
    puts("\\fR");
    print_line(k->doc);
    if (k->def == NULL) {
        puts(".br\nMust be given.");
    } else if (k->def[0] != '\0') {
        fputs(".br\nDefault: ", stdout);
        print_line(k->def);
    }
}

static void print_config(const char *version)
{
    print_head("LARDER\\-CONFIG", "5", version, "larder-config", "the configuration file of larder");
    puts(".SH DESCRIPTION\n"
         "A YAML file of the keys below. Unknown keys, wrong types and values out of range are errors; "
         "anchors, aliases, tags and more\n"
         "than one document are refused. Sizes take KiB, MiB, GiB and TiB; durations ms, s, m, h and d. Two "
         "square brackets behind a key\n"
         "stand for the entries of its list. A value that begins with \\(aq*\\(aq needs quotes.");
    struct conf_schema_line k;
    const char *section = NULL;
    for (size_t i = 0; conf_schema_line(i, &k); i++) {
        if (section == NULL || strcmp(section, k.section) != 0) {
            fputs(".SH \"", stdout);
            section = k.section;
            size_t n = strlen(section);
            char name[128];
            struct str s = STR_INIT(name);
            str_add(&s, span_of(section, n > 0 ? n - 1 : 0)); /* without the dot at its end */
            print_text(n > 0 ? name : "top level");
            puts("\"");
        }
        print_key(&k);
    }
    puts(".SH SEE ALSO\n.BR larder (1)");
}

int run_man(const struct command_args *args)
{
    if (args->arguments[0] == NULL)
        print_program(args->program->version);
    else
        print_config(args->program->version);
    return 0;
}
