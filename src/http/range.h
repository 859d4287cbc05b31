/* Range and Content-Range (RFC 9110 section 14). Pure; any thread. */
#ifndef LARDER_HTTP_RANGE_H
#define LARDER_HTTP_RANGE_H

#include "base/span.h"
#include "base/str.h"

#define RANGE_MAX 1024 /* ranges in one request: what containers/storage sends at most */

/* As written: first-last, first- (last == UINT64_MAX), or suffix -n (suffix true, first == n). */
struct range_spec {
    uint64_t first, last;
    bool suffix;
};

struct range {
    uint64_t off, len; /* resolved against a length; len >= 1 */
};

enum range_parse {
    RANGE_ABSENT,  /* no header, unknown unit, or not the grammar: ignore it, answer 200 */
    RANGE_OK,      /* at least one spec */
    RANGE_TOO_MANY /* well-formed, but more than the limit: answer 400 */
};

/* At most cap specs are written, *n says how many. */
enum range_parse range_parse(struct span header, struct range_spec *specs, size_t cap, size_t *n) MUSTCHECK;

/* False: not satisfiable for this length. Ends are clamped; a suffix longer than the whole is the whole; a
 * suffix of 0 and any range of an empty representation are not satisfiable. */
bool range_resolve(const struct range_spec *spec, uint64_t length, struct range *out) MUSTCHECK;

/* Content-Range of an answer: "bytes 0-99/1000", "bytes 0-99/(star)" (then *total is UINT64_MAX). False on anything
 * else, also on last < first and last >= total. */
bool range_parse_content(struct span header, uint64_t *first, uint64_t *last, uint64_t *total) MUSTCHECK;
/* Content-Range of a 416: "bytes (star)/1000". False on anything else. */
bool range_parse_refused(struct span header, uint64_t *total) MUSTCHECK;

#endif
