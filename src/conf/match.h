/* Which rule an image means that a person names.
 *
 * A client asks larder for an image in one of two ways: by larder's own name for it (then a rule's target counts), or, as a mirror, with the
 * registry's name in ?ns= (then a rule's source counts). Which one a host in front of the image means cannot be seen, because larder
 * does not know the names under which clients reach it; so a host that is the source of a rule is taken for the registry, and any
 * other one for larder. Without a host the targets come first, then Docker Hub, as Docker has it. */
#ifndef LARDER_CONF_MATCH_H
#define LARDER_CONF_MATCH_H

#include "conf/conf.h"
#include "registry/image.h"

/* NULL: none. sources: a rule may be found by its source. upstream_repo: as conf_match_target has it. *by_source: that it was. */
const struct conf_rule *conf_match_image(const struct conf *c, const struct image_name *image, bool sources,
                                         struct str *upstream_repo, bool *by_source);

/* Does the policy say that this tag never moves? */
bool conf_tag_immutable(const struct conf_policy *p, struct span tag);

#endif
