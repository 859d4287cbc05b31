/* YAML text as a tree of nodes that know where they stand. The tree and all its text live in the arena.
 * Anchors, aliases and tags are refused: a configuration file says what it says at the place where it says
 * it. Inside the room only. */
#ifndef LARDER_CONF_YAML_IN_H
#define LARDER_CONF_YAML_IN_H

#include "base/arena.h"
#include "conf/conf.h"

#define YAML_IN_SIZE_MAX  (16u << 20) /* bytes of text */
#define YAML_IN_DEPTH_MAX 32
#define YAML_IN_NODES_MAX 1000000

enum node_kind {
    NODE_SCALAR,
    NODE_NULL, /* nothing, "~" or "null" without quotes */
    NODE_LIST,
    NODE_MAP,
    NODE_BAD /* was complained about already: to be skipped in silence */
};

struct conf_node {
    enum node_kind kind;
    bool quoted; /* scalar in quotes, or a block scalar */
    bool flow;   /* list or map in brackets */
    struct conf_mark mark;
    size_t start,
        end; /* bytes of the text that are the node; of a key: the key alone. Nothing: both where it would be.
                          A block scalar ends at its last character that is no line break */
    struct span text;        /* scalar or null: terminated */
    struct conf_node *first; /* list: its items; map: its keys, each with a value */
    struct conf_node *last;  /* while the tree is built */
    struct conf_node *next;  /* the next item or key */
    struct conf_node *value; /* of a key; never NULL */
    size_t n;                /* items or keys */
};

/* False: the text is no tree at all (the reason was written). True: *root is the tree, NULL for an empty
 * file; there may be complaints nevertheless (duplicate keys, aliases). */
bool yaml_in_read(struct arena *a, struct span text, struct conf_errors *errors,
                  struct conf_node **root) MUSTCHECK;

/* The same, but *root is what stands before the place where the text stops to be a tree, also when the result is false. What was open there
 * ends there. */
bool yaml_in_read_start(struct arena *a, struct span text, struct conf_errors *errors,
                        struct conf_node **root) MUSTCHECK;

#endif
