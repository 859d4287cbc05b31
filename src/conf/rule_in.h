/* One entry of `rules`, from values to a rule. Inside the room only. */
#ifndef LARDER_CONF_RULE_IN_H
#define LARDER_CONF_RULE_IN_H

#include "conf/schema.h"

/* Reads what schema_load(SECTION_RULE) left: source and target with their grammar, and the policy on top of `defaults`.
 * The upstream is found later. False: source or target is not usable (complaints were written). */
bool rule_in_read(struct conf_loader *l, const struct conf_policy *defaults, struct conf_rule *r);

/* The policy keys of one section, `defaults` or a rule, on top of what *p holds. */
void rule_in_policy(struct conf_loader *l, enum schema_section section, struct conf_policy *p);

#endif
