/* See tags.h. */
#include "registry/tags.h"

#include "registry/json.h"

static void note(void *arg, struct span key, struct span value)
{
    struct span *name = arg;
    if (span_eq(key, SPAN("name")) && value.n >= 2 && value.p[0] == '"')
        *name = value;
}

bool tags_find_name(struct span body, struct span *value)
{
    *value = SPAN_NONE;
    return json_each_member(body, note, value) && value->p != NULL;
}
