/* Secret references: what a file or a command writes about where a secret is. Pure; any thread. */
#ifndef LARDER_CONF_SECRET_H
#define LARDER_CONF_SECRET_H

#include "conf/conf.h"

enum secret_use { SECRET_USERNAME, SECRET_PASSWORD };

/* What `text` refers to; *out points into it, out->mark is not touched. False: *why says what is wrong with it and what to write
 * instead, and repeats nothing of it: it may be a password that should not have been written there. */
bool secret_parse(struct span text, enum secret_use use, struct conf_secret *out, struct str *why) MUSTCHECK;

/* Does a password of this kind come with its username? */
bool secret_has_username(enum conf_secret_kind kind);

#endif
