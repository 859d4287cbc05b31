/* Asking a running server on its admin address (admin/api.h). Blocking. Inside the room only. */
#ifndef LARDER_CLI_CALL_H
#define LARDER_CLI_CALL_H

#include "conf/conf.h"

enum call_outcome {
    CALL_ANSWERED, /* *answer is JSON */
    CALL_REFUSED,  /* the server said no; *answer is its sentence */
    CALL_ABSENT    /* no server answers there; *answer says what happened */
};

/* `order`: POST. name: behind /api/v1/. query: parameters, encoded (call_add). limit_s: how long the answer may take. *answer is the
 * caller's to free; a 0 stands behind its *n bytes. */
enum call_outcome call_admin(const struct conf *conf, bool order, const char *name, struct span query,
                             unsigned limit_s, char **answer, size_t *n);

/* Adds name=value, percent-encoded, with "&" before it when it is not the first. */
void call_add(struct str *query, const char *name, struct span value);

#endif
