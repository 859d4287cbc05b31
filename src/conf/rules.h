/* The compiled matcher. Inside the room only. */
#ifndef LARDER_CONF_RULES_H
#define LARDER_CONF_RULES_H

#include "conf/conf.h"

/* Builds conf->compiled from conf->rules and complains about targets that two rules share or whose wildcards overlap.
 * `targets` says where each rule's target stands in the file. */
void rules_compile(struct conf *c, const struct conf_mark *targets, struct conf_errors *errors);
void rules_free(struct conf_rules *r); /* NULL is a no-op */

#endif
