/* larder completion: scripts for bash and zsh, from the table of commands.
 *
 * Both scripts do the same: they read the words before the cursor as larder reads them, so that they know the command; offer values
 * behind an option that has one; and else what may come next. Names of rules and credential sets are asked from larder itself,
 * with the -f of the line. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cli/command_int.h"

struct shell {
    bool zsh;
    const char *word, *before; /* the word at the cursor, and the one before it */
};

static void print_pattern(size_t o) /* "-n|--name" */
{
    const struct command_option_info *i = &command_options[o];
    if (i->letter != 0)
        printf("-%c|", i->letter);
    printf("--%s", i->name);
    if (i->alias != NULL)
        printf("|--%s", i->alias);
}

/* Text inside '...'; zsh's _describe ends a name at a colon. */
static void print_quoted(const struct shell *sh, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (*text == ':' && sh->zsh)
            fputs("\\:", stdout);
        else
            putchar(*text);
    }
}

static void print_words(const char *words) /* "a|b" as "a b" */
{
    for (; *words != '\0'; words++)
        putchar(*words == '|' ? ' ' : *words);
}

static void offer_words(const struct shell *sh, const char *words)
{
    fputs(sh->zsh ? "compadd -- " : "COMPREPLY=($(compgen -W '", stdout);
    print_words(words);
    fputs(sh->zsh ? "\n" : "' -- \"$word\"))\n", stdout);
}

/* Which command the words before the cursor are, and which -f they have. */
static void print_scan(const struct shell *sh)
{
    const char *count = sh->zsh ? "CURRENT" : "COMP_CWORD", *first = sh->zsh ? "2" : "1",
               *word = sh->zsh ? "${words[i]}" : "${COMP_WORDS[i]}";
    printf("    for ((i = %s; i < %s; i++)); do\n        case %s in\n        ", first, count, word);
    print_pattern(OPT_CONFIG);
    printf(") ((i++)); file=%s ;;\n        ", word);
    const char *separator = "";
    for (size_t o = 0; o < OPT_COUNT; o++) {
        if (o == OPT_CONFIG || command_options[o].value == NULL)
            continue;
        fputs(separator, stdout);
        print_pattern(o);
        separator = "|";
    }
    printf(") ((i++)) ;;\n        -*) ;;\n        *) command=\"${command:+$command }%s\" ;;\n        esac\n  "
           "  done\n",
           word);
}

/* The commands whose -n is a name that `list` prints. */
static void print_entries(const char *list)
{
    const char *separator = "        ";
    for (size_t i = 0; i < n_commands; i++) {
        if (commands[i].entries == NULL || strcmp(commands[i].entries, list) != 0)
            continue;
        printf("%s'%s'", separator, commands[i].words);
        separator = "|";
    }
    printf(") _larder_names %s ;;\n", list);
}

static void print_values(const struct shell *sh)
{
    printf("    case %s in\n", sh->before);
    for (size_t o = 0; o < OPT_COUNT; o++) {
        const struct command_option_info *i = &command_options[o];
        if (i->value == NULL)
            continue;
        fputs("    ", stdout);
        print_pattern(o);
        puts(")");
        if (i->values == VALUES_FILE) {
            puts(sh->zsh ? "        _files" : "        compopt -o default");
        } else if (i->values == VALUES_WORDS) {
            fputs("        ", stdout);
            offer_words(sh, i->value);
        } else if (i->values == VALUES_SETS) {
            puts("        _larder_names credential-set list");
        } else if (i->values == VALUES_RULES) {
            puts("        _larder_names cache list");
        } else if (i->values == VALUES_ENTRIES) {
            puts("        case $command in");
            print_entries("cache list");
            print_entries("credential-set list");
            puts("        esac");
        }
        puts("        return ;;");
    }
    puts("    esac");
}

static void print_option_choice(const struct shell *sh, size_t o)
{
    const struct command_option_info *i = &command_options[o];
    if (sh->zsh) {
        printf(" '--%s:", i->name);
        print_quoted(sh, i->doc);
        putchar('\'');
        return;
    }
    if (i->letter != 0)
        printf("-%c ", i->letter);
    printf("--%s ", i->name);
}

static void print_options(const struct shell *sh, const struct command *c)
{
    fputs(sh->zsh ? "options=(" : "COMPREPLY=($(compgen -W '", stdout);
    for (size_t o = 0; o < OPT_COUNT; o++)
        if (command_has(command_takes(c), o))
            print_option_choice(sh, o);
    fputs(sh->zsh ? "); _describe -o option options ;;\n" : "' -- \"$word\")) ;;\n", stdout);
}

/* The words that may follow `group` ("" at the start of the line). */
static void print_next_words(const struct shell *sh, struct span group)
{
    fputs(sh->zsh ? "next=(" : "COMPREPLY=($(compgen -W '", stdout);
    struct span last = SPAN_NONE;
    for (size_t i = 0; i < n_commands; i++) {
        struct span words = span_str(commands[i].words);
        if (group.n > 0 && !(span_starts(words, group) && span_starts(span_from(words, group.n), SPAN(" "))))
            continue;
        struct span rest = span_from(words, group.n > 0 ? group.n + 1 : 0), word;
        bool more = span_find(rest, ' ') >= 0;
        if (!span_next(&rest, ' ', &word) || span_eq(word, last))
            continue;
        last = word;
        if (sh->zsh) {
            printf(" '" SPAN_FMT ":", SPAN_ARG(word));
            print_quoted(sh, more ? "commands about these" : commands[i].doc);
            putchar('\'');
        } else {
            printf(SPAN_FMT " ", SPAN_ARG(word));
        }
    }
    fputs(sh->zsh ? "); _describe command next ;;\n" : "' -- \"$word\")) ;;\n", stdout);
}

static void print_groups(const struct shell *sh)
{
    struct span last = SPAN_NONE;
    for (size_t i = 0; i < n_commands; i++) {
        struct span rest = span_str(commands[i].words), word;
        if (span_find(rest, ' ') < 0 || !span_next(&rest, ' ', &word) || span_eq(word, last))
            continue;
        last = word;
        printf("    '" SPAN_FMT "') ", SPAN_ARG(word));
        print_next_words(sh, word);
    }
}

static void print_next(const struct shell *sh)
{
    printf("    if [[ %s == -* ]]; then\n        case $command in\n", sh->word);
    for (size_t i = 0; i < n_commands; i++) {
        printf("        '%s'*) ", commands[i].words);
        print_options(sh, &commands[i]);
    }
    puts("        esac\n        return\n    fi\n    case $command in");
    fputs("    '') ", stdout);
    print_next_words(sh, SPAN(""));
    print_groups(sh);
    for (size_t i = 0; i < n_commands; i++) {
        if (commands[i].argument == NULL ||
            (commands[i].argument[0] >= 'A' && commands[i].argument[0] <= 'Z'))
            continue;
        printf("    '%s') ", commands[i].words);
        offer_words(sh, commands[i].argument);
        puts("        ;;");
    }
    puts("    esac");
}

static void print_bash(void)
{
    const struct shell sh = {.word = "$word", .before = "$before"};
    puts("# Completion of larder for bash: eval \"$(larder completion bash)\"\n"
         "_larder_names()\n"
         "{\n"
         "    COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" \"$@\" ${file:+-f \"$file\"} -o tsv "
         "2>/dev/null | cut -f1)\" -- "
         "\"$word\"))\n"
         "}\n"
         "\n"
         "_larder()\n"
         "{\n"
         "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command= file= i\n"
         "    COMPREPLY=()");
    print_scan(&sh);
    print_values(&sh);
    print_next(&sh);
    puts("}\n"
         "\n"
         "complete -F _larder larder");
}

static void print_zsh(void)
{
    const struct shell sh = {.zsh = true, .word = "${words[CURRENT]}", .before = "${words[CURRENT - 1]}"};
    puts("#compdef larder\n"
         "# Completion of larder for zsh: larder completion zsh > \"${fpath[1]}/_larder\"\n"
         "_larder_names()\n"
         "{\n"
         "    local -a names\n"
         "    names=(${(f)\"$(${words[1]} \"$@\" ${file:+-f} ${file:+$file} -o tsv 2>/dev/null | cut "
         "-f1)\"})\n"
         "    compadd -a names\n"
         "}\n"
         "\n"
         "_larder()\n"
         "{\n"
         "    local command= file=\n"
         "    local -i i\n"
         "    local -a options next");
    print_scan(&sh);
    print_values(&sh);
    print_next(&sh);
    puts("}\n"
         "\n"
         "if [[ ${funcstack[1]} == _larder ]]; then\n"
         "    _larder \"$@\"\n"
         "else\n"
         "    compdef _larder larder\n"
         "fi");
}

int run_completion(const struct command_args *args)
{
    if (strcmp(args->arguments[0], "bash") == 0)
        print_bash();
    else
        print_zsh();
    return 0;
}
