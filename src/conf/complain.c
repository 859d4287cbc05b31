/* Complaints and hints. A complaint is placed by insertion, so that "in file order" holds at any moment and
 * does not depend on the order in which the loader looks at things (duplicate keys are seen while the text is
 * parsed, unknown keys later, overlapping rules last). */
#include "conf/complain.h"

#include <stdarg.h>
#include <stdio.h>

enum { SHOW_MAX = 80, WORD_MAX = 32 };

static bool mark_before(struct conf_mark a, struct conf_mark b)
{
    return a.line != b.line ? a.line < b.line : a.column < b.column;
}

static bool utf8_inside(char c) /* a byte that continues a character */
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* Puts a text into a list that is sorted by place. False: one had to be left out. */
PRINTF(5, 0)
static bool place(struct conf_error *list, size_t *n, size_t cap, struct conf_mark at, const char *fmt,
                  va_list ap)
{
    bool room = *n < cap;
    size_t pos = *n;
    while (pos > 0 && mark_before(at, list[pos - 1].mark))
        pos--;
    if (pos == cap)
        return false;
    if (room)
        ++*n;
    struct conf_error *e = &list[pos];
    memmove(e + 1, e, (*n - 1 - pos) * sizeof *e);
    e->mark = at;
    int len = vsnprintf(e->text, sizeof e->text, fmt, ap);
    MUST(len >= 0);
    for (char *c = e->text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = '?';
    return room;
}

void complain(struct conf_errors *errors, struct conf_mark at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!place(errors->list, &errors->n, errors->cap, at, fmt, ap))
        errors->left_out++;
    va_end(ap);
}

void complain_warn(struct conf_errors *errors, struct conf_mark at, const char *fmt, ...)
{
    va_list ap;
    if (errors->warnings == NULL)
        return;
    va_start(ap, fmt);
    if (!place(errors->warnings, &errors->n_warnings, errors->cap_warnings, at, fmt, ap))
        errors->warnings_left_out++;
    va_end(ap);
}

bool complain_hides(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        struct span rest = span_from(s, i + 1);
        if (s.p[i] == '@' && !span_starts(rest, SPAN("sha256:")) && !span_starts(rest, SPAN("sha512:")))
            return true;
    }
    return false;
}

static const char hidden[] = "...";

const char *complain_show_text(struct span s)
{
    return complain_hides(s) ? hidden : s.p != NULL ? s.p : "";
}

int complain_show_len(struct span s)
{
    if (complain_hides(s))
        return sizeof hidden - 1;
    if (s.n <= SHOW_MAX)
        return (int)s.n;
    size_t n = SHOW_MAX;
    while (n > 0 && utf8_inside(s.p[n]))
        n--;
    return (int)n;
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* The optimal string alignment distance, three rows at a time. */
unsigned complain_distance(struct span word, struct span known)
{
    if (word.n > WORD_MAX || known.n > WORD_MAX)
        return COMPLAIN_FAR;
    unsigned rows[3][WORD_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (unsigned j = 0; j <= known.n; j++)
        above[j] = before[j] = j;
    for (unsigned i = 1; i <= word.n; i++) {
        row[0] = i;
        for (unsigned j = 1; j <= known.n; j++) {
            bool same = word.p[i - 1] == known.p[j - 1];
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1));
            bool swapped =
                i > 1 && j > 1 && word.p[i - 1] == known.p[j - 2] && word.p[i - 2] == known.p[j - 1];
            if (swapped && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
        unsigned *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    unsigned d = above[known.n];
    return d * 3 <= known.n || (d == 1 && known.n > 1) ? d : COMPLAIN_FAR;
}
