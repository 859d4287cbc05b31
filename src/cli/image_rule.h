/* The rule for an image that a person names (conf/match.h), and how a running server is asked about it. Inside the room only. */
#ifndef LARDER_CLI_IMAGE_RULE_H
#define LARDER_CLI_IMAGE_RULE_H

#include "conf/match.h"
#include "registry/name.h"

struct image_rule {
    struct span text; /* as given; the other spans point into it */
    struct image_name image;
    struct span reference;              /* "latest" when none is written */
    const struct conf_rule *rule;       /* the configuration's; NULL: none */
    bool mirror;                        /* the image has the registry's name, and not larder's */
    char repository[NAME_REPO_MAX + 1]; /* at upstream */
};

/* False: the text is no image. */
bool image_rule_parse(struct image_rule *r, struct span text) MUSTCHECK;
/* False: the configuration has no rule for it. */
bool image_rule_find(struct image_rule *r, const struct conf *c) MUSTCHECK;
/* Adds ns, repository and reference, as the server's calls have them. */
void image_rule_add(const struct image_rule *r, struct str *query);

#endif
