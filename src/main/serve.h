/* larder serve: puts the rooms together, runs them, takes them apart. */
#ifndef LARDER_MAIN_SERVE_H
#define LARDER_MAIN_SERVE_H

#include <stdbool.h>

struct conf;
struct config_warnings;
struct str;

/* Runs until SIGTERM or SIGINT. Returns the process's exit code: 0 after an orderly stop, 1 when it could not start: the reason is
 * on standard error, as a record of the log, or as plain lines if it is the configuration that is not good. */
int serve_run(const char *config_file, const char *version);

/* Would it take this configuration, with all the files that it names? False: *why. Secrets that cannot be used are warned of, where that has
 * not been done. Blocking. */
bool serve_takes(struct conf *conf, struct config_warnings *warnings, struct str *why);

#endif
