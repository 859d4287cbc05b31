/* Numbers for people. Inside the room only. */
#ifndef LARDER_CLI_PEOPLE_H
#define LARDER_CLI_PEOPLE_H

#include "base/str.h"

void people_size(struct str *out, uint64_t bytes); /* "512 B", "1.5 GiB" */
void people_age(struct str *out, int64_t ms);      /* "40 s", "3 min", "12 h", "9 d" */
/* "NAME [#####     ]  25%  1.0 MiB of 4.0 MiB", of at most `columns` characters: the front of a long name goes. all == 0: it is not known. */
void people_progress(struct str *out, struct span name, uint64_t done, uint64_t all, size_t columns);

#endif
