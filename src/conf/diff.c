/* Lines that both texts begin and end with are set aside; of what is between them the longest common subsequence is found by the
 * table of lengths, and when that table would be large, all of it counts as changed: edits are small, and a correct diff is what is
 * promised, not the shortest. */
#include "conf/diff.h"

#include "base/str.h"

enum { CONTEXT = 3, TABLE_MAX = 1 << 22 };

struct line {
    char kind; /* ' ' in both, '-' before, '+' after */
    struct span text;
};

struct lines {
    struct line *list;
    size_t n;
};

/* A line has its line break; the last one may have none. */
static struct lines split(struct arena *a, struct span text)
{
    size_t n = 1, from = 0;
    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == '\n';
    struct lines l = {.list = arena_alloc(a, n * sizeof *l.list)};
    while (from < text.n) {
        ptrdiff_t end = span_find(span_from(text, from), '\n');
        size_t len = end < 0 ? text.n - from : (size_t)end + 1;
        l.list[l.n++].text = span_sub(text, from, len);
        from += len;
    }
    return l;
}

static void add(struct lines *out, char kind, struct span text)
{
    out->list[out->n++] = (struct line){.kind = kind, .text = text};
}

/* What stands between the common beginning and the common end. */
static void add_middle(struct arena *a, struct lines *out, struct lines x, struct lines y)
{
    size_t i = 0, j = 0, w = y.n + 1;
    if (x.n > 0 && y.n > 0 && x.n < TABLE_MAX / w) {
        uint32_t *t = arena_alloc(a, (x.n + 1) * w * sizeof *t); /* t[i * w + j]: of x from i and y from j */
        for (size_t r = x.n; r-- > 0;)
            for (size_t c = y.n; c-- > 0;) {
                uint32_t down = t[(r + 1) * w + c], right = t[r * w + c + 1];
                t[r * w + c] = span_eq(x.list[r].text, y.list[c].text) ? t[(r + 1) * w + c + 1] + 1
                               : down > right                          ? down
                                                                       : right;
            }
        while (i < x.n && j < y.n) {
            if (span_eq(x.list[i].text, y.list[j].text)) {
                add(out, ' ', x.list[i++].text);
                j++;
            } else if (t[(i + 1) * w + j] >= t[i * w + j + 1]) {
                add(out, '-', x.list[i++].text);
            } else {
                add(out, '+', y.list[j++].text);
            }
        }
    }
    while (i < x.n)
        add(out, '-', x.list[i++].text);
    while (j < y.n)
        add(out, '+', y.list[j++].text);
}

static struct lines compare(struct arena *a, struct lines x, struct lines y)
{
    struct lines out = {.list = arena_alloc(a, (x.n + y.n + 1) * sizeof *out.list)};
    size_t head = 0, tail = 0;
    while (head < x.n && head < y.n && span_eq(x.list[head].text, y.list[head].text))
        add(&out, ' ', x.list[head++].text);
    while (tail < x.n - head && tail < y.n - head &&
           span_eq(x.list[x.n - 1 - tail].text, y.list[y.n - 1 - tail].text))
        tail++;
    add_middle(a, &out, (struct lines){.list = x.list + head, .n = x.n - head - tail},
               (struct lines){.list = y.list + head, .n = y.n - head - tail});
    for (; tail > 0; tail--)
        add(&out, ' ', x.list[x.n - tail].text);
    return out;
}

static void add_range(struct str *out, char sign, size_t from, size_t n)
{
    str_addf(out, "%c%zu", sign, n > 0 ? from + 1 : from);
    if (n != 1)
        str_addf(out, ",%zu", n);
}

/* Lines [from, to) as one hunk; x and y are how many lines of each text stand before it. */
static void add_hunk(struct str *out, struct lines all, size_t from, size_t to, size_t x, size_t y)
{
    size_t nx = 0, ny = 0;
    for (size_t i = from; i < to; i++) {
        nx += all.list[i].kind != '+';
        ny += all.list[i].kind != '-';
    }
    str_addz(out, "@@ ");
    add_range(out, '-', x, nx);
    str_addc(out, ' ');
    add_range(out, '+', y, ny);
    str_addz(out, " @@\n");
    for (size_t i = from; i < to; i++) {
        str_addc(out, all.list[i].kind);
        str_add(out, all.list[i].text);
        if (!span_ends(all.list[i].text, SPAN("\n")))
            str_addz(out, "\n\\ No newline at end of file\n");
    }
}

static void add_hunks(struct str *out, struct lines all)
{
    size_t x = 0, y = 0, i = 0;
    while (i < all.n) {
        size_t first = i; /* the next change */
        while (first < all.n && all.list[first].kind == ' ')
            first++;
        if (first == all.n)
            return;
        size_t from = first - i > CONTEXT ? first - CONTEXT : i, to = first;
        for (size_t k = first; k < all.n && k <= to + 2 * CONTEXT; k++)
            if (all.list[k].kind != ' ')
                to = k + 1;
        size_t end = all.n - to > CONTEXT ? to + CONTEXT : all.n;
        x += from - i;
        y += from - i;
        add_hunk(out, all, from, end, x, y);
        for (size_t k = from; k < end; k++) {
            x += all.list[k].kind != '+';
            y += all.list[k].kind != '-';
        }
        i = end;
    }
}

struct span diff_unified(struct arena *a, struct span before, struct span after, struct span name)
{
    if (span_eq(before, after))
        return SPAN("");
    struct lines all = compare(a, split(a, before), split(a, after));
    size_t cap = 2 * name.n + before.n + after.n + 100 * (all.n + 1);
    struct str out = str_init(arena_alloc(a, cap), cap);
    str_addz(&out, "--- ");
    str_add(&out, name);
    str_addz(&out, "\n+++ ");
    str_add(&out, name);
    str_addc(&out, '\n');
    add_hunks(&out, all);
    MUST(!out.cut);
    return str_span(&out);
}
