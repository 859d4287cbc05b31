/* credential_sets, from the file to the snapshot, and what rules say about them. Inside the room only. */
#ifndef LARDER_CONF_CREDENTIAL_IN_H
#define LARDER_CONF_CREDENTIAL_IN_H

#include "base/map.h"
#include "conf/schema.h"

/* What the loader knows about a set besides what it hands out. */
struct credential_in {
    const struct conf_credential_set *set; /* login_server is absent when it is wrong */
    struct conf_mark login_mark;
    bool used; /* by a rule */
};

/* Reads the list into the snapshot. `sets` gets name -> struct credential_in, also for sets with mistakes, so that a rule that names one
 * is not complained about. */
void credential_in_load(struct conf_loader *l, const struct conf_node *list, struct map *sets);

/* The set that the rule just read names (KEY_RULE_credential_set); r has its registry. NULL: none, or complained. */
const struct conf_credential_set *credential_in_find(struct conf_loader *l, const struct map *sets,
                                                     const struct conf_rule *r);

#endif
