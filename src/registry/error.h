/* The error document of the distribution protocol:
 * {"errors":[{"code":"NAME_UNKNOWN","message":"...","detail":null}]}. Pure; any thread. */
#ifndef LARDER_REGISTRY_ERROR_H
#define LARDER_REGISTRY_ERROR_H

#include "base/err.h"
#include "base/str.h"

#define ERROR_BODY_MAX 1024

/* The message is the code's words, then ": " and detail when that is present (a rule's name, a hint). It never
 * holds an upstream's host name or a secret: callers pass none. */
void error_body(struct str *out, int err, struct span detail);

#endif
