/* Changing the configuration file's text: entries of `rules` and `credential_sets` are added, changed and removed, and every byte that
 * is not part of the change stays: comments, order, quotes, indentation, line ends, blank lines. Text in, text out; pure.
 *
 * A new entry looks like the one it follows: block or brackets, indentation, quoted keys, blank lines between. Comment lines directly
 * above an entry belong to it, and so do those directly below that are indented more than it, or that follow the last; a blank line
 * parts. Whether the result means something is for conf_load to say: what is promised here is that its tree is the tree of the text with
 * the change and nothing else. A text that is no valid YAML of larder's kind (anchors, two documents) is refused, and so
 * is a place of a form that the editor does not know. */
#ifndef LARDER_CONF_EDIT_H
#define LARDER_CONF_EDIT_H

#include "base/arena.h"
#include "conf/conf.h"

enum edit_list { EDIT_RULES, EDIT_CREDENTIAL_SETS };
enum edit_verb { EDIT_CREATE, EDIT_UPDATE, EDIT_DELETE };

enum { EDIT_VALUES_MAX = 4 };

struct edit_value {
    const char *key;
    struct span text; /* absent: the key goes (EDIT_UPDATE) */
};

struct edit {
    enum edit_list list;
    enum edit_verb verb;
    struct span name; /* of the entry */
    struct edit_value
        values[EDIT_VALUES_MAX]; /* in the order in which a new entry has them, after its name */
    size_t n_values;
};

/* Adds a value to the change; an absent one is left out when an entry is created. */
void edit_value(struct edit *e, const char *key, struct span text);

/* True: *out is the new text; it and what else was needed is in the arena. False: refused, and `errors` says why; the list is
 * emptied first. */
bool edit_apply(struct arena *a, struct span text, const struct edit *e, struct conf_errors *errors,
                struct span *out) MUSTCHECK;

/* Text as a YAML scalar, quoted where it must be. */
void edit_scalar(struct str *out, struct span text);

#endif
