/* Results as table, JSON, YAML or tab-separated values. Inside the room only. */
#ifndef LARDER_CLI_OUTPUT_INT_H
#define LARDER_CLI_OUTPUT_INT_H

#include "base/span.h"

/* Absent text: nothing ("-" in a table, null in JSON). */
struct output_value {
    struct span text;
    bool bare;               /* a number, true or false: without quotes in JSON and YAML */
    const struct span *list; /* not NULL: a list instead */
    size_t n;
};

/* `format` as the option says it; NULL: table. Row by row, n_keys values each. `one`: it is a thing, and not a list of things. */
void output_rows(const char *format, const char *const *keys, size_t n_keys,
                 const struct output_value *values, size_t n_rows, bool one);

#endif
