/* The command line. One table (commands.c) says which commands and options there are; parsing, --help, the completion scripts and the
 * manual page are made from it. */
#ifndef LARDER_CLI_CLI_H
#define LARDER_CLI_CLI_H

#include <stdbool.h>

struct conf;
struct config_warnings;
struct str;

/* What another room gives to the commands. */
struct cli_program {
    const char *version;
    /* Would serving take this configuration? It reads the certificates, roots, proxies and secrets that it names. False: *why says which is
     * wrong, with its place. What serving could do without is added to the warnings. */
    bool (*takes)(struct conf *conf, struct config_warnings *warnings, struct str *why);
    /* Runs the cache to its end; the process's exit code. config_file may be NULL: not given. */
    int (*serve)(const char *config_file, const char *version);
};

/* Runs a command line. Returns the process's exit code: 0 done, 1 refused or failed, 2 not understood. */
int cli_main(int argc, char **argv, const struct cli_program *program);

#endif
