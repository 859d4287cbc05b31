/* See live.h. */
#include "cli/live.h"

#include "base/mem.h"

#define LIMIT_S 5

json_t *live_get(const struct conf *conf, const char *name, struct span query)
{
    char *answer;
    size_t n;
    json_t *json = NULL;
    if (call_admin(conf, false, name, query, LIMIT_S, &answer, &n) == CALL_ANSWERED)
        json = json_loadb(answer, n, 0, NULL);
    mem_free(answer);
    return json;
}

json_t *live_named(json_t *array, const char *key, struct span text)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_t *o = json_array_get(array, i);
        if (span_eq(span_str(json_string_value(json_object_get(o, key))), text))
            return o;
    }
    return NULL;
}
