#include "conf/match.h"

#include "conf/pattern.h"

const struct conf_rule *conf_match_image(const struct conf *c, const struct image_name *image, bool sources,
                                         struct str *upstream_repo, bool *by_source)
{
    const struct conf_rule *rule = NULL;
    bool host = image->host.p != NULL;
    *by_source = true;
    if (sources && host)
        rule = conf_match_source(c, image->host, image->repository, upstream_repo);
    if (rule != NULL)
        return rule;
    *by_source = false;
    rule = conf_match_target(c, image->repository, upstream_repo);
    if (rule != NULL || host || !sources)
        return rule;
    *by_source = true;
    return conf_match_source(c, SPAN("docker.io"), image->repository, upstream_repo);
}

bool conf_tag_immutable(const struct conf_policy *p, struct span tag)
{
    return p->n_immutable_tags > 0 && pattern_match_any(p->immutable_tags, p->n_immutable_tags, tag);
}
