/* Changing the configuration file. Inside the room only. */
#ifndef LARDER_CLI_CONFIG_EDIT_H
#define LARDER_CLI_CONFIG_EDIT_H

#include "conf/edit.h"

/* Makes a change to the file: under a lock that other larder commands keep to, validated before it takes the file's place, at once and whole.
 * `dry_run`: prints the difference instead. Returns the configuration as it is then, to be given back; NULL: refused, the file
 * is as it was, and the reason is on standard error. */
struct conf *config_edit(const char *path, const struct edit *change, bool dry_run) MUSTCHECK;

#endif
