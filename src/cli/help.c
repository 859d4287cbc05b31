/* What a person is told about the commands, from the table. */
#include <stdio.h>

#include "base/str.h"
#include "cli/command_int.h"

enum { HELP_LINE_MAX = 512, COLUMN = 34, WIDTH = 100 };

static void add_option(struct str *out, size_t o, bool roff)
{
    const struct command_option_info *i = &command_options[o];
    const char *bold = roff ? "\\fB" : "", *italic = roff ? "\\fI" : "", *plain = roff ? "\\fR" : "",
               *dash = roff ? "\\-" : "-";
    str_addz(out, bold);
    if (i->letter != 0)
        str_addf(out, "%s%c", dash, i->letter);
    else
        str_addf(out, "%s%s%s", dash, dash, i->name);
    str_addz(out, plain);
    if (i->value != NULL)
        str_addf(out, " %s%s%s", italic, i->value, plain);
}

/* " IMAGE...", " [PREFIX]" */
static void add_argument(struct str *out, const struct command *c, bool roff)
{
    if (c->argument == NULL)
        return;
    str_addz(out, c->argument_required ? " " : " [");
    str_addf(out, roff ? "\\fI%s\\fR" : "%s", c->argument);
    str_addz(out, c->argument_many ? "..." : "");
    str_addz(out, c->argument_required ? "" : "]");
}

void help_synopsis(struct str *out, const struct command *c, bool roff)
{
    str_addf(out, roff ? "\\fB%s\\fR" : "%s", c->words);
    add_argument(out, c, roff);
    for (size_t o = 0; o < OPT_COUNT; o++) {
        if (!command_has(c->required, o))
            continue;
        str_addc(out, ' ');
        add_option(out, o, roff);
    }
    const char *separator = " (";
    for (size_t o = 0; o < OPT_COUNT; o++) {
        if (!command_has(c->one_of, o))
            continue;
        str_addz(out, separator);
        add_option(out, o, roff);
        separator = " | ";
    }
    str_addz(out, c->one_of != 0 ? ")" : "");
    for (size_t o = 0; o < OPT_COUNT; o++) {
        if (!command_has(c->any_of | c->optional, o))
            continue;
        str_addz(out, " [");
        add_option(out, o, roff);
        str_addc(out, ']');
    }
}

/* Prints `text` from column COLUMN on, in lines of at most WIDTH characters; `head` stands before it. */
static void print_wrapped(const char *head, const char *text)
{
    size_t at = strlen(head);
    fputs(head, stdout);
    if (at + 2 > COLUMN) {
        putchar('\n');
        at = 0;
    }
    printf("%*s", (int)(COLUMN - at), "");
    at = COLUMN;
    struct span rest = span_str(text), word;
    for (bool first = true; span_next(&rest, ' ', &word); first = false) {
        if (!first && at + 1 + word.n > WIDTH) {
            printf("\n%*s", COLUMN, "");
            at = COLUMN;
        } else if (!first) {
            putchar(' ');
            at++;
        }
        printf(SPAN_FMT, SPAN_ARG(word));
        at += word.n;
    }
    putchar('\n');
}

static void print_option(size_t o)
{
    const struct command_option_info *i = &command_options[o];
    char head[HELP_LINE_MAX];
    struct str s = STR_INIT(head);
    str_addz(&s, "  ");
    if (i->letter != 0)
        str_addf(&s, "-%c, ", i->letter);
    str_addf(&s, "--%s", i->name);
    if (i->alias != NULL)
        str_addf(&s, ", --%s", i->alias);
    if (i->value != NULL)
        str_addf(&s, " %s", i->value);
    print_wrapped(head, i->doc);
}

static void print_commands(struct span group)
{
    for (size_t i = 0; i < n_commands; i++) {
        if (!span_starts(span_str(commands[i].words), group))
            continue;
        char head[HELP_LINE_MAX];
        struct str s = STR_INIT(head);
        str_addf(&s, "  %s", commands[i].words);
        add_argument(&s, &commands[i], false);
        print_wrapped(head, commands[i].doc);
    }
}

static void print_command(const struct command *c)
{
    char text[HELP_LINE_MAX];
    struct str s = STR_INIT(text);
    help_synopsis(&s, c, false);
    printf("larder %s: %s\n\nusage: larder %s\n\n", c->words, c->doc, text);
    for (size_t o = 0; o < OPT_COUNT; o++)
        if (command_has(command_takes(c), o))
            print_option(o);
    if (c->more != NULL)
        printf("\n%s\n", c->more);
}

void help_print(const char *words)
{
    for (size_t i = 0; i < n_commands; i++) {
        if (strcmp(commands[i].words, words) == 0) {
            print_command(&commands[i]);
            return;
        }
    }
    if (words[0] == '\0')
        printf("larder: a pull-through cache for container images\n\n");
    printf("usage: larder %s%sCOMMAND [OPTIONS]\n\n", words, words[0] != '\0' ? " " : "");
    print_commands(span_str(words));
    putchar('\n');
    print_option(OPT_CONFIG);
    print_option(OPT_HELP);
    print_option(OPT_VERSION);
    printf("\nlarder COMMAND --help says more about a command, and larder man prints the manual.\n");
}
