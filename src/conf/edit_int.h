/* Where in the text an element is put or taken out. Inside the room only.
 *
 * An element is an item of a list, or a key of a map with its value. Each function adds splices to the sheet, or returns false: the place has
 * a form that it does not know. */
#ifndef LARDER_CONF_EDIT_INT_H
#define LARDER_CONF_EDIT_INT_H

#include "conf/sheet.h"
#include "conf/yaml_in.h"

/* How a new map is written. */
struct edit_style {
    bool flow;
    char quote;          /* of keys and values; 0: only where it must be */
    bool spaced;         /* flow: a blank inside the braces */
    bool dash_alone;     /* block: the dash has a line of its own */
    unsigned dash, keys; /* block: columns */
};

struct edit_pair {
    const char *key;
    struct span text;
};

/* Entries of a list: `key` is the list's key in `root`, NULL when it is not there; root is NULL for a text without a document. */
bool place_entry_add(struct sheet *s, const struct conf_node *root, const struct conf_node *key,
                     const char *name, const struct edit_pair *pairs, size_t n);
bool place_entry_remove(struct sheet *s, const struct conf_node *key, const struct conf_node *item);

/* Keys of an entry. */
bool place_key_add(struct sheet *s, const struct conf_node *map, struct edit_pair pair);
bool place_key_set(struct sheet *s, const struct conf_node *map, const struct conf_node *key,
                   struct span text);
bool place_key_remove(struct sheet *s, const struct conf_node *map, const struct conf_node *key);

#endif
