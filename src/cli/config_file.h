/* The configuration file as a file: where it is, reading it, and saying what is wrong with it. Blocking; for commands
 * and for the start. */
#ifndef LARDER_CLI_CONFIG_FILE_H
#define LARDER_CLI_CONFIG_FILE_H

#include "conf/conf.h"

/* The file that is meant: `given` (from -f), else $LARDER_CONFIG, else /etc/larder/config.yaml. */
const char *config_path(const char *given);

/* Reads and validates. NULL: everything that is wrong has been written to standard error, one line each. */
struct conf *config_read(const char *path);

#endif
