/* Retry-After and the registries' rate-limit fields. Pure; any thread. */
#ifndef LARDER_HTTP_RETRY_H
#define LARDER_HTTP_RETRY_H

#include "base/span.h"

#define RETRY_AFTER_MAX_MS (60 * 60 * 1000) /* a server that asks for more gets this */

/* Milliseconds from now_ms (wall clock), at most RETRY_AFTER_MAX_MS; a date in the past is 0; -1: absent or nonsense. Seconds or an
 * HTTP-date in any of the three forms (RFC 9110 sections 10.2.3 and 5.6.7). */
int64_t retry_after_parse(struct span value, int64_t now_ms);

/* "100;w=21600": the number and the window in seconds (0: none given), as in Docker Hub's ratelimit-limit and ratelimit-remaining.
 * Other parameters are passed over; a number that is too large is the largest. False: not of that form. */
bool ratelimit_parse(struct span value, uint64_t *count, uint64_t *window_s) MUSTCHECK;

#endif
