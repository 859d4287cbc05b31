/* See image_rule.h. */
#include "cli/image_rule.h"

#include "cli/call.h"

bool image_rule_parse(struct image_rule *r, struct span text)
{
    *r = (struct image_rule){.text = text};
    if (!image_parse(text, &r->image))
        return false;
    r->reference = r->image.reference.p != NULL ? r->image.reference : SPAN("latest");
    return true;
}

bool image_rule_find(struct image_rule *r, const struct conf *c)
{
    struct str repository = STR_INIT(r->repository);
    r->rule = conf_match_image(c, &r->image, c->mirror, &repository, &r->mirror);
    return r->rule != NULL;
}

void image_rule_add(const struct image_rule *r, struct str *query)
{
    if (r->mirror)
        call_add(query, "ns", r->rule->registry);
    call_add(query, "repository", r->image.repository);
    call_add(query, "reference", r->reference);
}
