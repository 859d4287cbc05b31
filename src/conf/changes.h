/* What changed from one snapshot to the next, for the log of a reload and for keys that only a restart can change. Pure; any
 * thread. */
#ifndef LARDER_CONF_CHANGES_H
#define LARDER_CONF_CHANGES_H

#include "conf/conf.h"

enum conf_change_kind { CHANGE_ADDED, CHANGE_REMOVED, CHANGE_CHANGED };

struct conf_change {
    enum conf_change_kind kind;
    const char *what;   /* "rule", "credential set", "upstream", "listener", "setting" */
    struct span name;   /* of the rule, ...; the key of a setting */
    struct span detail; /* CHANGED: which keys, as in "source, tag_ttl"; else absent */
    bool restart;       /* takes effect after a restart only */
};

/* Calls `say` for each change, settings first, then in the order of the new file, then what is gone. */
void conf_changes(const struct conf *before, const struct conf *now,
                  void (*say)(const struct conf_change *change, void *arg), void *arg);

const char *conf_change_word(enum conf_change_kind kind); /* "added", ... */

#endif
