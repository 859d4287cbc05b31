/* The secrets that a configuration refers to, looked at from where a command runs: files and environment variables that cannot be read there.
 * larder itself may run as somebody else or somewhere else, and starts without them, so these are warnings. */
#ifndef LARDER_CLI_REFERENCES_H
#define LARDER_CLI_REFERENCES_H

#include "cli/config_file.h"

/* Adds to the warnings. Blocking. */
void references_check(const struct conf *c, struct config_warnings *out);

#endif
