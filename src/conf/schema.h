/* The table of keys at work: a map of the file in, checked values out. Inside the room only. */
#ifndef LARDER_CONF_SCHEMA_H
#define LARDER_CONF_SCHEMA_H

#include "conf/conf.h"
#include "conf/yaml_in.h"

enum schema_section {
#define SECTION(id, path, words) SECTION_##id,
#define KEY(section, name, type, min, max, def, words, doc)
#include "conf/schema.def"
    SECTION_COUNT
};

enum schema_id { /* KEY_RULE_source, KEY_STORE_path, ... */
#define SECTION(id, path, words)
#define KEY(section, name, type, min, max, def, words, doc) KEY_##section##_##name,
#include "conf/schema.def"
                 KEY_COUNT
};

enum value_state {
    VALUE_ABSENT, /* not written: the default, if there is one */
    VALUE_SET,
    VALUE_BAD /* written, and complained about: the default stands in so that loading can go on */
};

struct schema_value {
    enum value_state state;
    struct conf_mark mark; /* of the value; absent: of the map that lacks it */
    struct span text;      /* as written; lives as long as the tree */
    int64_t n;    /* BOOL, INTEGER, SIZE, SHARE, DURATION in ms, ENUM as index; AUTO_INTEGER: 0 is auto */
    bool percent; /* SHARE: n is a percentage */
    const struct conf_node *node; /* MAP, LIST: NULL when absent or empty */
};

/* What the parts of the loader share while one file is loaded. */
struct conf_loader {
    struct conf *conf;
    struct conf_errors *errors;
    struct arena *scratch;                /* the tree, and what is needed only until the end of loading */
    struct schema_value value[KEY_COUNT]; /* of each section, as it was read last */
};

/* Sets the section's values to their defaults, then to what the map says. `map` may be NULL: nothing was written.
 * False: it is not a map, or a key that must be given is missing or wrong (complaints were written). */
bool schema_load(struct conf_loader *l, enum schema_section section, const struct conf_node *map);

/* Is the key's value, if there is one, a name (letters, digits, '.', '_', '-')? Complains if it is another text. */
bool schema_name(struct conf_loader *l, enum schema_id key);

/* The canonical form of the key's value, a registry. False: there is none, or complained. */
bool schema_registry(struct conf_loader *l, enum schema_id key, struct str *out);

/* The key's value as a path, in the snapshot's memory; absent when it is not set. */
struct conf_path schema_path(const struct conf_loader *l, enum schema_id key);

/* Is this node a STRING as `key` wants it? Else complains. For entries of a list. */
bool schema_string(struct conf_loader *l, enum schema_id key, const struct conf_node *node, struct span *out);

#endif
