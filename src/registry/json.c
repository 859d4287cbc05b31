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

bool json_each_element(struct span array, bool (*element)(void *arg, struct span value), void *arg)
{
    struct scan s = {.doc = array};
    if (!scan_take(&s, '['))
        return false;
    if (!scan_take(&s, ']')) {
        do {
            scan_peek(&s);
            size_t start = s.at;
            if (!scan_value(&s))
                return false;
            if (!element(arg, span_sub(array, start, s.at - start)))
                return true;
        } while (scan_take(&s, ','));
        if (!scan_take(&s, ']'))
            return false;
    }
    scan_peek(&s);
    return s.at == array.n;
}

/* ---- strings ---- */

static bool hex4(struct span s, unsigned *out)
{
    *out = 0;
    if (s.n < 4)
        return false;
    for (size_t i = 0; i < 4; i++) {
        char c = s.p[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10)
                                                : 16;
        if (digit == 16)
            return false;
        *out = *out << 4 | digit;
    }
    return true;
}

static void add_utf8(struct str *out, unsigned c)
{
    if (c < 0x80) {
        str_addc(out, (char)c);
    } else if (c < 0x800) {
        str_addc(out, (char)(0xc0 | c >> 6));
        str_addc(out, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        str_addc(out, (char)(0xe0 | c >> 12));
        str_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        str_addc(out, (char)(0x80 | (c & 0x3f)));
    } else {
        str_addc(out, (char)(0xf0 | c >> 18));
        str_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
        str_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
        str_addc(out, (char)(0x80 | (c & 0x3f)));
    }
}

/* What follows "\\u"; how many bytes of s it takes, 0: wrong. Half of a surrogate pair alone is wrong. */
static size_t add_unicode(struct span s, struct str *out)
{
    unsigned c, low;
    if (!hex4(s, &c) || (c >= 0xdc00 && c < 0xe000))
        return 0;
    if (c < 0xd800 || c >= 0xe000) {
        add_utf8(out, c);
        return 4;
    }
    if (s.n < 10 || s.p[4] != '\\' || s.p[5] != 'u' || !hex4(span_from(s, 6), &low) || low < 0xdc00 ||
        low >= 0xe000)
        return 0;
    add_utf8(out, 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00)));
    return 10;
}

/* What follows a backslash; how many bytes of s it takes, 0: wrong. */
static size_t add_escape(struct span s, struct str *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s.n == 0 || s.p[0] == 0)
        return 0;
    if (s.p[0] == 'u') {
        size_t n = add_unicode(span_from(s, 1), out);
        return n == 0 ? 0 : n + 1;
    }
    const char *at = strchr(from, s.p[0]);
    if (at == NULL)
        return 0;
    str_addc(out, to[at - from]);
    return 1;
}

bool json_text(struct span value, struct str *out)
{
    if (value.n < 2 || value.p[0] != '"' || value.p[value.n - 1] != '"')
        return false;
    struct span s = span_sub(value, 1, value.n - 2);
    while (s.n > 0) {
        size_t plain = 0;
        while (plain < s.n && s.p[plain] != '\\' && s.p[plain] != '"' && (unsigned char)s.p[plain] >= 0x20)
            plain++;
        str_add(out, span_sub(s, 0, plain));
        s = span_from(s, plain);
        if (s.n == 0)
            break;
        size_t n = s.p[0] == '\\' ? add_escape(span_from(s, 1), out) : 0;
        if (n == 0)
            return false;
        s = span_from(s, n + 1);
    }
    return !out->cut;
}

struct wanted {
    struct span key, value;
};

static void take_wanted(void *arg, struct span key, struct span value)
{
    struct wanted *w = arg;
    if (span_eq(key, w->key))
        w->value = value;
}

bool json_member_text(struct span doc, struct span key, struct str *out)
{
    struct wanted w = {.key = key, .value = SPAN_NONE};
    return json_each_member(doc, take_wanted, &w) && w.value.p != NULL && json_text(w.value, out);
}
