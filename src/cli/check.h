/* larder check. Each returns the process's exit code. Inside the room only. */
#ifndef LARDER_CLI_CHECK_H
#define LARDER_CLI_CHECK_H

#include "cli/cli.h"

/* Validates; prints what is wrong with line and column. */
int cli_check(const char *config_file, const struct cli_program *program);
/* Prints the table of configuration keys. */
int cli_schema(void);

#endif
