/* A text builder over a fixed buffer that the caller owns. Appending past the end sets `cut` and drops the
 * rest: a full buffer is a result to look at once at the end, never an overrun. The text is always terminated.
 *
 *     char buf[256];
 *     struct str s = STR_INIT(buf);
 *     str_add(&s, SPAN("a")); str_addf(&s, "%d", 1);
 *     if (s.cut) ...
 */
#ifndef LARDER_BASE_STR_H
#define LARDER_BASE_STR_H

#include "base/span.h"

struct str {
    char *p;
    size_t n;   /* bytes of text, without the terminator */
    size_t cap; /* bytes of the buffer, with the terminator; at least 1 */
    bool cut;   /* something did not fit */
};

#define STR_INIT(array) str_init((array), sizeof(array))

struct str str_init(char *buf, size_t cap);
void str_reset(struct str *s);
void str_add(struct str *s, struct span text);
void str_addz(struct str *s, const char *text);
void str_addc(struct str *s, char c);
void str_addu(struct str *s, uint64_t v); /* decimal, without printf: it is on the hot path */
void str_addi(struct str *s, int64_t v);
void str_addhex(struct str *s, const void *bytes, size_t n); /* lower case */
void str_addf(struct str *s, const char *fmt, ...) PRINTF(2, 3);
void str_addb64(struct str *s, const void *bytes, size_t n); /* padded, in one line (RFC 4648 section 4) */
/* As the inside of a JSON string: quotes, backslashes and control characters escaped; bytes that are not valid
 * UTF-8 are replaced by U+FFFD. Does not add the quotes. */
void str_addjson(struct str *s, struct span text);
struct span str_span(const struct str *s);

#endif
