/* How registries are reached: an entry of `upstreams`, and the map `resolve`. Inside the room only. */
#ifndef LARDER_CONF_REACH_H
#define LARDER_CONF_REACH_H

#include "conf/schema.h"

/* What schema_load(SECTION_UPSTREAM) left, all but the registry. Overwrites *u. */
void reach_load(struct conf_loader *l, struct conf_upstream *u);

/* The upstream is that of `registry`, a canonical name: what is known about it, and its endpoint if none was written. */
void reach_bind(struct conf_loader *l, struct conf_upstream *u, struct span registry, struct conf_mark mark);

/* Does any endpoint lead to the registry itself, and not only to mirrors of it? */
bool reach_registry_itself(const struct conf_upstream *u);

void reach_load_resolve(struct conf_loader *l, const struct conf_node *map);

#endif
