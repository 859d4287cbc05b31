/* larder's command line. */
#include <stdio.h>
#include <stdbool.h>
#include <string.h>

#include "cli/cli.h"
#include "main/serve.h"

#ifndef LARDER_VERSION
#error "the build defines LARDER_VERSION"
#endif

static const char usage[] =
    "larder: a pull-through cache for container images\n"
    "\n"
    "usage: larder serve [-f FILE]     run the cache\n"
    "       larder check [-f FILE]     validate the configuration; exit 1 if something is wrong with it\n"
    "       larder check --schema      print every configuration key with type, default and meaning\n"
    "       larder --version\n"
    "       larder --help\n"
    "\n"
    "  -f FILE, --config FILE   the configuration; else $LARDER_CONFIG, else /etc/larder/config.yaml\n";

static int bad_usage(const char *what, const char *arg)
{
    fprintf(stderr, "larder: %s%s%s\ntry: larder --help\n", what, arg != NULL ? " " : "",
            arg != NULL ? arg : "");
    return 2;
}

int main(int argc, char **argv)
{
    const char *command = NULL, *file = NULL;
    bool schema = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0 || strcmp(a, "help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (strcmp(a, "--version") == 0) {
            puts("larder " LARDER_VERSION);
            return 0;
        }
        if (strcmp(a, "-f") == 0 || strcmp(a, "--config") == 0) {
            if (++i == argc)
                return bad_usage("a file name is missing behind", a);
            file = argv[i];
        } else if (strncmp(a, "--config=", 9) == 0) {
            file = a + 9;
        } else if (strcmp(a, "--schema") == 0) {
            schema = true;
        } else if (a[0] == '-') {
            return bad_usage("unknown option", a);
        } else if (command == NULL) {
            command = a;
        } else {
            return bad_usage("unexpected argument", a);
        }
    }
    if (command == NULL)
        return bad_usage("a command is missing", NULL);
    if (strcmp(command, "check") == 0)
        return schema ? cli_schema() : cli_check(file);
    if (schema)
        return bad_usage("--schema belongs to check", NULL);
    if (strcmp(command, "serve") == 0)
        return serve_run(file, LARDER_VERSION);
    return bad_usage("unknown command", command);
}
