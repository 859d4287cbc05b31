/* Reading the command line: options anywhere, the other words are the command and its arguments. All options have one meaning
 * everywhere, so they are read before the command is known, and then held against what it takes. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/str.h"
#include "cli/command_int.h"

enum { TEXT_MAX = 256 };

struct line {
    struct command_args args;
    const char **words; /* NULL behind the last one */
    size_t n_words;
};

bool command_word(const char *words, const char *text)
{
    struct span rest = span_str(words), word;
    while (span_next(&rest, '|', &word))
        if (span_eq(word, span_str(text)))
            return true;
    return false;
}

int command_usage(const struct command *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("larder: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\ntry: larder %s%s--help\n", c != NULL ? c->words : "", c != NULL ? " " : "");
    return 2;
}

static const struct command_option_info *find_letter(char letter)
{
    for (size_t i = 0; i < OPT_COUNT; i++)
        if (command_options[i].letter == letter)
            return &command_options[i];
    return NULL;
}

static const struct command_option_info *find_name(struct span name)
{
    for (size_t i = 0; i < OPT_COUNT; i++) {
        const struct command_option_info *o = &command_options[i];
        if (span_eq(name, span_str(o->name)) || (o->alias != NULL && span_eq(name, span_str(o->alias))))
            return o;
    }
    return NULL;
}

/* Reads the option at argv[*i], and its value, which may be in the next one. 0, or the exit code. */
static int read_option(struct line *l, int argc, char **argv, int *i)
{
    const char *a = argv[*i], *value = NULL;
    const struct command_option_info *o;
    if (a[1] == '-') {
        struct span name = span_str(a + 2);
        ptrdiff_t equals = span_find(name, '=');
        if (equals >= 0) {
            value = name.p + equals + 1;
            name.n = (size_t)equals;
        }
        o = find_name(name);
    } else {
        o = find_letter(a[1]);
        value = a[2] != '\0' ? a + 2 : NULL;
    }
    if (o == NULL)
        return command_usage(NULL, "unknown option %s", a);
    if (o->value == NULL && value != NULL)
        return command_usage(NULL, "%s: --%s has no value", a, o->name);
    if (o->value != NULL && value == NULL) {
        if (*i + 1 == argc)
            return command_usage(NULL, "%s: %s is missing behind it", a, o->value);
        value = argv[++*i];
    }
    if (o->values == VALUES_WORDS && !command_word(o->value, value))
        return command_usage(NULL, "--%s %s: write one of %s", o->name, value, o->value);
    const char **place = &l->args.option[o - command_options];
    if (*place != NULL)
        return command_usage(NULL, "--%s is given twice", o->name);
    *place = value != NULL ? value : "";
    return 0;
}

static int read_line(struct line *l, int argc, char **argv)
{
    bool options = true;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1] != '\0') {
            int code = read_option(l, argc, argv, &i);
            if (code != 0)
                return code;
        } else {
            l->words[l->n_words++] = argv[i];
        }
    }
    return 0;
}

/* The first n words, joined by blanks. */
static struct span first_words(const struct line *l, size_t n, struct str *out)
{
    str_reset(out);
    for (size_t i = 0; i < n; i++) {
        str_addz(out, i > 0 ? " " : "");
        str_addz(out, l->words[i]);
    }
    return str_span(out);
}

static const struct command *find_command(struct span words)
{
    for (size_t i = 0; i < n_commands; i++)
        if (span_eq(words, span_str(commands[i].words)))
            return &commands[i];
    return NULL;
}

static bool is_group(struct span word)
{
    for (size_t i = 0; i < n_commands; i++) {
        struct span words = span_str(commands[i].words);
        if (span_starts(words, word) && span_starts(span_from(words, word.n), SPAN(" ")))
            return true;
    }
    return false;
}

static int no_command(const struct line *l)
{
    if (l->n_words == 0)
        return command_usage(NULL, "a command is missing");
    if (!is_group(span_str(l->words[0])))
        return command_usage(NULL, "unknown command %s", l->words[0]);
    struct command group = {.words = l->words[0]};
    if (l->n_words == 1)
        return command_usage(&group, "what to do is missing behind %s", l->words[0]);
    return command_usage(&group, "unknown command %s %s", l->words[0], l->words[1]);
}

static const char *option_text(size_t o, struct str *out)
{
    const struct command_option_info *info = &command_options[o];
    str_reset(out);
    if (info->letter != 0)
        str_addf(out, "-%c", info->letter);
    else
        str_addf(out, "--%s", info->name);
    if (info->value != NULL)
        str_addf(out, " %s", info->value);
    return out->p;
}

static int check_options(const struct command_args *args)
{
    const struct command *c = args->command;
    unsigned given = 0;
    char a[TEXT_MAX], b[TEXT_MAX];
    struct str x = STR_INIT(a), y = STR_INIT(b);
    for (size_t o = 0; o < OPT_COUNT; o++) {
        given |= args->option[o] != NULL ? 1u << o : 0;
        if (args->option[o] != NULL && !command_has(command_takes(c), o))
            return command_usage(c, "--%s does not belong to %s", command_options[o].name, c->words);
    }
    for (size_t o = 0; o < OPT_COUNT; o++)
        if (command_has(c->required & ~given, o))
            return command_usage(c, "%s needs %s", c->words, option_text(o, &x));
    unsigned choice = c->one_of | c->any_of, chosen = choice & given;
    if (choice == 0 || (chosen != 0 && (c->one_of == 0 || (chosen & (chosen - 1)) == 0)))
        return 0;
    size_t first = 0, second;
    while (!command_has(choice, first))
        first++;
    for (second = first + 1; !command_has(choice, second);)
        second++;
    return command_usage(c, "%s needs %s or %s%s", c->words, option_text(first, &x), option_text(second, &y),
                         chosen != 0 ? ", not both" : "");
}

static int check_arguments(const struct command_args *args)
{
    const struct command *c = args->command;
    size_t n = args->n_arguments, most = c->argument != NULL ? 1 : 0;
    if (c->argument_many && n > COMMAND_ARGUMENTS_MAX)
        return command_usage(c,
                             "%s takes at most %d times %s, and here are %zu; give it the others afterwards",
                             c->words, COMMAND_ARGUMENTS_MAX, c->argument, n);
    if (!c->argument_many && n > most)
        return command_usage(c, "unexpected argument %s", args->arguments[most]);
    if (n == 0 && c->argument_required)
        return command_usage(c, "%s needs %s", c->words, c->argument);
    bool choice = c->argument != NULL && !(c->argument[0] >= 'A' && c->argument[0] <= 'Z');
    for (size_t i = 0; i < n && choice; i++)
        if (!command_word(c->argument, args->arguments[i]))
            return command_usage(c, "%s %s: write one of %s", c->words, args->arguments[i], c->argument);
    return 0;
}

static int run(struct line *l)
{
    if (l->n_words > 0 && strcmp(l->words[0], "help") == 0) { /* "help cache" is "cache --help" */
        l->words++;
        l->n_words--;
        l->args.option[OPT_HELP] = "";
    }
    char text[TEXT_MAX];
    struct str words = STR_INIT(text);
    size_t n = l->n_words < 2 ? l->n_words : 2; /* words that are the command */
    for (; n > 0; n--) {
        l->args.command = find_command(first_words(l, n, &words));
        if (l->args.command != NULL)
            break;
    }
    if (l->args.option[OPT_HELP] != NULL) {
        bool known = l->args.command != NULL || l->n_words == 0 || is_group(span_str(l->words[0]));
        if (!known)
            return no_command(l);
        help_print(l->args.command != NULL ? l->args.command->words : l->n_words > 0 ? l->words[0] : "");
        return 0;
    }
    if (l->args.option[OPT_VERSION] != NULL) {
        printf("larder %s\n", l->args.program->version);
        return 0;
    }
    if (l->args.command == NULL)
        return no_command(l);
    l->args.arguments = l->words + n;
    l->args.n_arguments = l->n_words - n;
    int code = check_arguments(&l->args);
    if (code == 0)
        code = check_options(&l->args);
    return code != 0 ? code : l->args.command->run(&l->args);
}

int cli_main(int argc, char **argv, const struct cli_program *program)
{
    const char **words = mem_zalloc(((size_t)argc + 1) * sizeof *words);
    struct line l = {.args.program = program, .words = words};
    int code = read_line(&l, argc, argv);
    if (code == 0)
        code = run(&l);
    mem_free(words);
    if (code == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        perror("larder: cannot write the output");
        return 1;
    }
    return code;
}
