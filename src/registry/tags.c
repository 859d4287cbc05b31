/* See tags.h. */
#include "registry/tags.h"

#include "registry/json.h"

struct members {
    struct span name;
    bool tags;
};

static void note(void *arg, struct span key, struct span value)
{
    struct members *m = arg;
    if (span_eq(key, SPAN("name")) && value.n >= 2 && value.p[0] == '"')
        m->name = value;
    else if (span_eq(key, SPAN("tags")))
        m->tags = value.p[0] == '[' || span_eq(value, SPAN("null"));
}

bool tags_read(struct span body, struct span *name)
{
    struct members m = {.name = SPAN_NONE};
    bool ok = json_each_member(body, note, &m) && m.tags;
    *name = ok ? m.name : SPAN_NONE;
    return ok;
}
