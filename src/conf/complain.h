/* How the loader complains: one function that keeps the list in file order, and the helpers that make hints.
 * Inside the room only. */
#ifndef LARDER_CONF_COMPLAIN_H
#define LARDER_CONF_COMPLAIN_H

#include "conf/conf.h"

/* Adds a complaint. The list stays sorted by place; when it is full the complaint farthest down the file is
 * the one that is left out. Control characters of the operator's text are shown as "?". */
void complain(struct conf_errors *errors, struct conf_mark at, const char *fmt, ...) PRINTF(3, 4);

/* Adds a warning likewise, if they are wanted. */
void complain_warn(struct conf_errors *errors, struct conf_mark at, const char *fmt, ...) PRINTF(3, 4);

/* Messages go into logs and to whoever may look: may the text hold a password, as in "https://user:password@host"? It does with any '@' but
 * the one of a digest. */
bool complain_hides(struct span s);

/* The operator's text in a message, as the two arguments of "%.*s": at most 80 bytes, whole characters; of a text that complain_hides, three
 * dots. */
#define SHOW(s) complain_show_len(s), complain_show_text(s)
int complain_show_len(struct span s);
const char *complain_show_text(struct span s);

/* How many single-character edits (insert, delete, replace, swap neighbours) turn `word` into `known`, if
 * that is few enough for a typing mistake; else COMPLAIN_FAR. */
#define COMPLAIN_FAR 100u
unsigned complain_distance(struct span word, struct span known);

#endif
