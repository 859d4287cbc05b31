/* The configuration file as a file: where it is, reading it, and saying what is wrong with it. Blocking; for commands
 * and for the start. */
#ifndef LARDER_CLI_CONFIG_FILE_H
#define LARDER_CLI_CONFIG_FILE_H

#include "conf/conf.h"

/* The file that is meant: `given` (from -f), else $LARDER_CONFIG, else /etc/larder/config.yaml. */
const char *config_path(const char *given);

/* What is allowed and hardly meant; conf_error_text makes a line of each. */
struct config_warnings {
    size_t n;
    struct conf_error list[20];
    size_t left_out; /* so many others there were */
};

/* Adds one. */
void config_warn(struct config_warnings *w, struct conf_mark mark, const char *fmt, ...) PRINTF(3, 4);
/* Has something at this place been warned of? */
bool config_warned(const struct config_warnings *w, struct conf_mark mark);
/* On standard error, one line each; those that were left out are counted. */
void config_errors_say(const struct conf_errors *errors, const char *path);
void config_warnings_say(const struct config_warnings *w, const char *path);
/* Into the log, one record each. */
void config_warnings_log(const struct config_warnings *w, struct span file);

/* A file without a byte is refused: somebody is about to write it, or has lost it. (A command may write its first rule into it.) */
#define CONFIG_EMPTY "it is empty"

/* Reads and validates. NULL: everything that is wrong has been written to standard error, one line each, and there are no warnings. */
struct conf *config_read(const char *path, struct config_warnings *warnings);

/* For commands that ask the running server: what is wrong is a warning on standard error if the admin address, which is all that the
 * result is good for then, can be read all the same. */
struct conf *config_read_admin(const char *path);

/* Opens a file that can be read again, so a regular one; it does not wait for whoever would write to a pipe. -1: *why says why. */
int config_open(const char *path, const char **why);
/* Reads all of an open file. *text is the caller's to free, also when it fails (then *why says why). */
bool config_read_text(int fd, char **text, size_t *n, const char **why);
/* Validates a text; as config_read. */
struct conf *config_load(struct span text, const char *path, struct config_warnings *warnings);

#endif
