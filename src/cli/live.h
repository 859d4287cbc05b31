/* What a running server knows, for commands that print it beside what the file says. Inside the room only. */
#ifndef LARDER_CLI_LIVE_H
#define LARDER_CLI_LIVE_H

#include <jansson.h>

#include "cli/call.h"

/* The answer to a GET call as JSON; NULL: no server runs, or it does not know. The caller gives it back (json_decref). */
json_t *live_get(const struct conf *conf, const char *name, struct span query);
/* The object of an array whose `key` has that text; NULL: none. Borrowed. */
json_t *live_named(json_t *array, const char *key, struct span text);

#endif
