/* JSON, member by member: each function puts a comma before what it adds where one is due. Pure. */
#ifndef LARDER_ADMIN_MEMBER_H
#define LARDER_ADMIN_MEMBER_H

#include "base/digest.h"
#include "base/str.h"

/* The comma, for an element of an array; the functions below do it themselves. */
void member_comma(struct str *out);
void member_name(struct str *out, const char *name);                   /* "name": and then the value is due */
void member_text(struct str *out, const char *name, struct span text); /* absent: null */
void member_number(struct str *out, const char *name, int64_t v);
void member_count(struct str *out, const char *name, uint64_t v);
void member_bool(struct str *out, const char *name, bool v);
void member_digest(struct str *out, const char *name, const struct digest *d); /* DIGEST_NONE: null */

#endif
