/* The scanner behind json.h. It knows strings and nesting, which is enough to tell a top-level key from a nested
 * one; numbers and literals are not checked. */
#include "registry/json.h"

#define NESTING_MAX 256 /* containers inside of each other; real documents have five */

static bool byte_of_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '+' ||
           c == '-' || c == '.';
}

/* Reads a document from the left. After false the position means nothing. */
struct scan {
    struct span doc;
    size_t at;
};

static char scan_peek(struct scan *s) /* next byte that is not white space; NUL at the end */
{
    while (s->at < s->doc.n && memchr(" \t\r\n", s->doc.p[s->at], 4) != NULL)
        s->at++;
    return s->at < s->doc.n ? s->doc.p[s->at] : '\0';
}

static bool scan_take(struct scan *s, char wanted)
{
    if (scan_peek(s) != wanted || s->at == s->doc.n)
        return false;
    s->at++;
    return true;
}

/* A string; *inside is what stands between the quotes, escapes included. */
static bool scan_string(struct scan *s, struct span *inside)
{
    if (!scan_take(s, '"'))
        return false;
    size_t start = s->at;
    while (s->at < s->doc.n) {
        char c = s->doc.p[s->at++];
        if (c == '"') {
            *inside = span_sub(s->doc, start, s->at - 1 - start);
            return true;
        }
        if (c == '\\' && s->at < s->doc.n)
            s->at++;
    }
    return false;
}

static bool scan_word(struct scan *s) /* number, true, false, null */
{
    size_t start = s->at;
    while (s->at < s->doc.n && byte_of_word(s->doc.p[s->at]))
        s->at++;
    return s->at > start;
}

/* One value of any kind. Inside of it brackets have to match and commas and colons are not looked at. */
static bool scan_value(struct scan *s)
{
    char closing[NESTING_MAX];
    size_t depth = 0;
    do {
        char c = scan_peek(s);
        struct span string;
        if (c == '{' || c == '[') {
            if (depth == NESTING_MAX)
                return false;
            closing[depth++] = c == '{' ? '}' : ']';
            s->at++;
        } else if (c == '"') {
            if (!scan_string(s, &string))
                return false;
        } else if (depth > 0 && (c == closing[depth - 1] || c == ',' || c == ':')) {
            depth -= c == closing[depth - 1];
            s->at++;
        } else if (!scan_word(s)) {
            return false;
        }
    } while (depth > 0);
    return true;
}

bool json_each_member(struct span doc, void (*member)(void *arg, struct span key, struct span value),
                      void *arg)
{
    struct scan s = {.doc = doc};
    struct span key;
    if (!scan_take(&s, '{'))
        return false;
    if (!scan_take(&s, '}')) {
        do {
            if (!scan_string(&s, &key) || !scan_take(&s, ':'))
                return false;
            scan_peek(&s);
            size_t start = s.at;
            if (!scan_value(&s))
                return false;
            member(arg, key, span_sub(doc, start, s.at - start));
        } while (scan_take(&s, ','));
        if (!scan_take(&s, '}'))
            return false;
    }
    scan_peek(&s);
    return s.at == doc.n;
}
