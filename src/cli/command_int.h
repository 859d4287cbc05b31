/* The table of commands and options, and what a command gets. Inside the room only. */
#ifndef LARDER_CLI_COMMAND_INT_H
#define LARDER_CLI_COMMAND_INT_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/cli.h"

enum command_option {
    OPT_CONFIG,
    OPT_NAME,
    OPT_SOURCE,
    OPT_TARGET,
    OPT_CREDENTIAL_SET,
    OPT_REMOVE_CRED_SET,
    OPT_LOGIN_SERVER,
    OPT_USERNAME,
    OPT_PASSWORD,
    OPT_OUTPUT,
    OPT_DRY_RUN,
    OPT_YES,
    OPT_SCHEMA,
    OPT_RULE,
    OPT_FORCE,
    OPT_LIST,
    OPT_DEEP,
    OPT_ALL,
    OPT_BY,
    OPT_PLATFORM,
    OPT_HELP,
    OPT_VERSION,
    OPT_COUNT
};

/* What a shell offers for a value. */
enum command_values {
    VALUES_ANY,
    VALUES_FILE,
    VALUES_WORDS,  /* what `value` lists */
    VALUES_SETS,   /* names of credential sets */
    VALUES_RULES,  /* names of rules */
    VALUES_ENTRIES /* names of what the command is about */
};

struct command_option_info {
    char letter;       /* 0: none */
    const char *name;  /* without the dashes */
    const char *alias; /* another name; NULL: none */
    const char *value; /* "FILE", or "a|b|c"; NULL: the option is a flag */
    enum command_values values;
    const char *doc;
};

#define COMMAND_ARGUMENTS_MAX 64

struct command_args {
    const struct cli_program *program;
    const struct command *command;
    const char *option[OPT_COUNT]; /* NULL: not given; a flag that is given: "" */
    const char *const *arguments;  /* NULL behind the last one */
    size_t n_arguments;
};

struct command {
    const char *words;    /* "cache create" */
    const char *doc;      /* what it does, as the end of "larder cache create: " */
    const char *more;     /* sentences for the manual and --help; NULL: nothing more to say */
    const char *argument; /* "IMAGE", or "a|b"; NULL: it has none */
    bool argument_required;
    bool argument_many; /* several of them may be given, at most COMMAND_ARGUMENTS_MAX */
    unsigned required;  /* sets of options: 1u << OPT_NAME */
    unsigned one_of;    /* exactly one of these */
    unsigned any_of;    /* at least one of these */
    unsigned optional;
    const char *entries; /* the command whose output begins with the names that -n may have; NULL: new ones */
    int (*run)(const struct command_args *args);
};

extern const struct command_option_info command_options[OPT_COUNT];
extern const struct command commands[];
extern const size_t n_commands;

/* All options that a command takes. */
unsigned command_takes(const struct command *c);
static inline bool command_has(unsigned set, enum command_option o)
{
    return (set & 1u << o) != 0;
}

/* Is `text` one of "a|b|c"? */
bool command_word(const char *words, const char *text);

/* "larder: what", where to look, and 2. */
int command_usage(const struct command *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Text for people, on standard output. */
void help_print(const char *words); /* of a command, of a group, or of all ("") */
/* "larder cache show -n NAME [-f FILE]", without the program's name; as roff when `roff`. */
struct str;
void help_synopsis(struct str *out, const struct command *c, bool roff);

/* One of each command; see the table. */
int run_cache_create(const struct command_args *args);
int run_cache_update(const struct command_args *args);
int run_cache_delete(const struct command_args *args);
int run_cache_show(const struct command_args *args);
int run_cache_list(const struct command_args *args);
int run_set_create(const struct command_args *args);
int run_set_update(const struct command_args *args);
int run_set_delete(const struct command_args *args);
int run_set_show(const struct command_args *args);
int run_set_list(const struct command_args *args);
int run_explain(const struct command_args *args);
int run_ls(const struct command_args *args);
int run_du(const struct command_args *args);
int run_purge(const struct command_args *args);
int run_pin(const struct command_args *args);
int run_unpin(const struct command_args *args);
int run_warm(const struct command_args *args);
int run_verify(const struct command_args *args);
int run_gc(const struct command_args *args);
int run_status(const struct command_args *args);
int run_completion(const struct command_args *args);
int run_man(const struct command_args *args);

#endif
