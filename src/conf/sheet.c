/* See sheet.h. */
#include "conf/sheet.h"

static bool is_break(char c)
{
    return c == '\n' || c == '\r';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct span first_newline(struct span text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\n')
            return SPAN("\n");
        if (text.p[i] == '\r')
            return i + 1 < text.n && text.p[i + 1] == '\n' ? SPAN("\r\n") : SPAN("\r");
    }
    return SPAN("\n");
}

struct sheet sheet_new(struct arena *a, struct span text)
{
    return (struct sheet){.arena = a,
                          .text = text,
                          .first = span_starts(text, SPAN("\xEF\xBB\xBF")) ? 3 : 0,
                          .newline = first_newline(text)};
}

void sheet_splice(struct sheet *s, size_t from, size_t to, struct span put)
{
    MUST(s->n < SHEET_SPLICES_MAX);
    if (from > to || to > s->text.n) {
        s->bad = true;
        return;
    }
    size_t pos = s->n++;
    for (; pos > 0 && s->splices[pos - 1].from > from; pos--)
        s->splices[pos] = s->splices[pos - 1];
    s->splices[pos] = (struct sheet_splice){.from = from, .to = to, .put = put};
}

bool sheet_result(const struct sheet *s, struct span *out)
{
    size_t cap = s->text.n + 1, at = 0;
    for (size_t i = 0; i < s->n; i++)
        cap += s->splices[i].put.n;
    struct str new = str_init(arena_alloc(s->arena, cap), cap);
    for (size_t i = 0; i < s->n; i++) {
        const struct sheet_splice *p = &s->splices[i];
        if (p->from < at)
            return false;
        str_add(&new, span_sub(s->text, at, p->from - at));
        str_add(&new, p->put);
        at = p->to;
    }
    str_add(&new, span_from(s->text, at));
    MUST(!new.cut);
    *out = str_span(&new);
    return !s->bad;
}

size_t sheet_line(const struct sheet *s, size_t at)
{
    while (at > s->first && !is_break(s->text.p[at - 1]))
        at--;
    return at;
}

size_t sheet_line_end(const struct sheet *s, size_t at)
{
    while (at < s->text.n && !is_break(s->text.p[at]))
        at++;
    return at;
}

size_t sheet_next(const struct sheet *s, size_t at)
{
    at = sheet_line_end(s, at);
    if (sheet_at(s, at, '\r') && sheet_at(s, at + 1, '\n'))
        return at + 2;
    return at < s->text.n ? at + 1 : at;
}

size_t sheet_before(const struct sheet *s, size_t at)
{
    at = sheet_line(s, at);
    if (at == s->first)
        return at;
    bool two = at - s->first >= 2 && s->text.p[at - 1] == '\n' && s->text.p[at - 2] == '\r';
    return at - (two ? 2 : 1);
}

bool sheet_blank(const struct sheet *s, size_t from, size_t to)
{
    for (; from < to; from++)
        if (!is_blank(s->text.p[from]))
            return false;
    return true;
}

static size_t skip_blanks(const struct sheet *s, size_t at)
{
    while (at < s->text.n && is_blank(s->text.p[at]))
        at++;
    return at;
}

bool sheet_line_is_blank(const struct sheet *s, size_t line)
{
    return line < s->text.n && skip_blanks(s, line) == sheet_line_end(s, line);
}

bool sheet_line_is_comment(const struct sheet *s, size_t line)
{
    return sheet_at(s, skip_blanks(s, line), '#');
}

bool sheet_rest_is_comment(const struct sheet *s, size_t at)
{
    size_t next = skip_blanks(s, at);
    return next == sheet_line_end(s, at) || (next > at && s->text.p[next] == '#');
}

unsigned sheet_column(const struct sheet *s, size_t line)
{
    unsigned column = 1;
    for (; sheet_at(s, line, ' '); line++)
        column++;
    return column;
}

size_t sheet_skip(const struct sheet *s, size_t at)
{
    for (;;) {
        at = skip_blanks(s, at);
        if (sheet_at(s, at, '#'))
            at = sheet_line_end(s, at);
        if (at == s->text.n || !is_break(s->text.p[at]))
            return at;
        at++;
    }
}

bool sheet_at(const struct sheet *s, size_t at, char c)
{
    return at < s->text.n && s->text.p[at] == c;
}
