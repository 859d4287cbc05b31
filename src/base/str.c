/* The text builder.
 *
 * Invariants: n < cap, p[n] == 0, and once `cut` is set nothing more is taken, so that the text is always a
 * prefix of what it should have been. */
#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"

struct str str_init(char *buf, size_t cap)
{
    MUST(cap > 0);
    buf[0] = '\0';
    return (struct str){.p = buf, .n = 0, .cap = cap, .cut = false};
}

void str_reset(struct str *s)
{
    s->n = 0;
    s->cut = false;
    s->p[0] = '\0';
}

void str_add(struct str *s, struct span text)
{
    size_t n = text.n;

    if (s->cut || n == 0)
        return;
    if (n >= s->cap - s->n) {
        n = s->cap - s->n - 1;
        s->cut = true;
    }
    memcpy(s->p + s->n, text.p, n);
    s->n += n;
    s->p[s->n] = '\0';
}

void str_addz(struct str *s, const char *text)
{
    str_add(s, span_str(text));
}

void str_addc(struct str *s, char c)
{
    str_add(s, span_of(&c, 1));
}

void str_addu(struct str *s, uint64_t v)
{
    char digits[20]; /* of 2^64 - 1 */
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    str_add(s, span_of(digits + at, sizeof(digits) - at));
}

void str_addi(struct str *s, int64_t v)
{
    if (v < 0)
        str_addc(s, '-');
    str_addu(s, v < 0 ? -(uint64_t)v : (uint64_t)v);
}

static const char str_hex[16] = "0123456789abcdef";

void str_addhex(struct str *s, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    char text[128];

    while (n > 0) {
        size_t some = n < sizeof(text) / 2 ? n : sizeof(text) / 2;
        for (size_t i = 0; i < some; i++) {
            text[2 * i] = str_hex[b[i] >> 4];
            text[2 * i + 1] = str_hex[b[i] & 15];
        }
        str_add(s, span_of(text, 2 * some));
        b += some;
        n -= some;
    }
}

void str_addb64(struct str *s, const void *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *b = bytes;

    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v =
            (uint32_t)b[i] << 16 | (left > 1 ? (uint32_t)b[i + 1] << 8 : 0) | (left > 2 ? b[i + 2] : 0u);
        char text[4] = {digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=',
                        left > 2 ? digits[v & 63] : '='};
        str_add(s, span_of(text, sizeof(text)));
    }
}

void str_addf(struct str *s, const char *fmt, ...)
{
    va_list args;

    if (s->cut)
        return;
    va_start(args, fmt);
    int n = vsnprintf(s->p + s->n, s->cap - s->n, fmt, args);
    va_end(args);
    MUST(n >= 0);
    if ((size_t)n >= s->cap - s->n) {
        s->n = s->cap - 1;
        s->cut = true;
        return;
    }
    s->n += (size_t)n;
}

/* Adds all of it or nothing: half an escape sequence would make the whole string invalid. */
static void str_add_whole(struct str *s, struct span text)
{
    if (text.n >= s->cap - s->n)
        s->cut = true;
    else
        str_add(s, text);
}

/* Length of the UTF-8 sequence at the start of s (not empty). *good tells whether it is a character; if not,
 * the length is that of the longest start of one (Unicode 15 section 3.9, "maximal subparts"), at least 1. */
static size_t str_utf8(struct span s, bool *good)
{
    const unsigned char *b = (const unsigned char *)s.p;
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte: no overlong forms, no surrogates */
    size_t n;

    *good = false;
    if (b[0] < 0x80)
        n = 1;
    else if (b[0] >= 0xc2 && b[0] <= 0xdf)
        n = 2;
    else if (b[0] >= 0xe0 && b[0] <= 0xef)
        n = 3;
    else if (b[0] >= 0xf0 && b[0] <= 0xf4)
        n = 4;
    else
        return 1;

    if (b[0] == 0xe0)
        low = 0xa0;
    else if (b[0] == 0xed)
        high = 0x9f;
    else if (b[0] == 0xf0)
        low = 0x90;
    else if (b[0] == 0xf4)
        high = 0x8f;

    for (size_t i = 1; i < n; i++) {
        if (i == s.n || b[i] < low || b[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    *good = true;
    return n;
}

static void str_add_escape(struct str *s, unsigned char c)
{
    char text[6] = {'\\', 'u', '0', '0', str_hex[c >> 4], str_hex[c & 15]};
    size_t n = 2;

    switch (c) {
    case '"':
    case '\\':
        text[1] = (char)c;
        break;
    case '\n':
        text[1] = 'n';
        break;
    case '\r':
        text[1] = 'r';
        break;
    case '\t':
        text[1] = 't';
        break;
    default:
        n = sizeof(text);
    }
    str_add_whole(s, span_of(text, n));
}

static const bool str_json_plain[256] = {[' ' ... '!'] = true, ['#' ... '['] = true, [']' ... '~'] = true};

/* Does one of eight bytes need a second look: below ' ', above '~', '"' or '\\'? May say so of bytes that are plain, too, but
 * never the other way round. */
static bool str_json_special(const char *p)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = UINT64_C(0x8080808080808080);
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    uint64_t quote = v ^ (ones * '"'), slash = v ^ (ones * '\\'), del = v ^ (ones * 0x7f);
    uint64_t found = v | (v - ones * ' ') | (quote - ones) | (slash - ones) | (del - ones);
    return (found & high) != 0;
}

void str_addjson(struct str *s, struct span text)
{
    while (text.n > 0 && !s->cut) {
        size_t n = 0;
        while (n + 8 <= text.n && !str_json_special(text.p + n))
            n += 8;
        while (n < text.n && str_json_plain[(unsigned char)text.p[n]])
            n++;
        str_add(s, span_of(text.p, n));
        text = span_from(text, n);
        if (text.n == 0 || s->cut)
            return;

        bool good;
        const unsigned char *b = (const unsigned char *)text.p;
        n = str_utf8(text, &good);
        if (!good)
            str_add_whole(s, SPAN("\xef\xbf\xbd")); /* U+FFFD */
        else if (n == 1)
            str_add_escape(s, b[0]);
        else if (n == 2 && b[0] == 0xc2 && b[1] < 0xa0) /* the control characters U+0080 to U+009F */
            str_add_escape(s, b[1]);
        else
            str_add_whole(s, span_of(text.p, n));
        text = span_from(text, n);
    }
}

struct span str_span(const struct str *s)
{
    return span_of(s->p, s->n);
}
