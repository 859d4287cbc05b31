/* larder serve: puts the rooms together, runs them, takes them apart. */
#ifndef LARDER_MAIN_SERVE_H
#define LARDER_MAIN_SERVE_H

/* Runs until SIGTERM or SIGINT. Returns the process's exit code: 0 after an orderly stop, 1 when it could not start (the reason is
 * on standard error). */
int serve_run(const char *config_file, const char *version);

#endif
