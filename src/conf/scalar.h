/* Text as a YAML scalar. */
#ifndef LARDER_CONF_SCALAR_H
#define LARDER_CONF_SCALAR_H

#include "base/str.h"

/* Appends `text` so that any reader of YAML gets it back as text. `quote` is '"', '\'' or 0: quotes only where they must be. `flow`: in
 * brackets, where less may stand without quotes. At most 4 bytes for each of the text, and 2. */
void scalar_add(struct str *out, struct span text, char quote, bool flow);

#define SCALAR_MAX(n) (4 * (n) + 3)

#endif
