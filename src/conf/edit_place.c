/* Where an element is put or taken out, by lines for block style and by commas for brackets.
 *
 * In a block list the item's dash stands in the list's column, and between the end of an item and the next dash there are only blanks
 * and comments: so a dash is found by skipping those. What an item has below its last value is parted by columns: a comment that is
 * indented more than the dash is the item's, another is the next item's, or below the last one the list's: an entry that somebody has
 * commented out, say. In brackets an element owns the comma behind it, and the last
 * one the comma in front. */
#include "conf/edit_int.h"

#include "conf/scalar.h"

enum { INDENT = 2 };

/* ---- text for new elements ---- */

static void add_spaces(struct str *out, size_t n)
{
    while (n-- > 0)
        str_addc(out, ' ');
}

static struct str text_new(struct sheet *s, size_t cap)
{
    return str_init(arena_alloc(s->arena, cap), cap);
}

static void add_pair(struct str *out, const struct edit_style *style, struct edit_pair pair)
{
    scalar_add(out, span_str(pair.key), style->quote, style->flow);
    str_addz(out, ": ");
    scalar_add(out, pair.text, style->quote, style->flow);
}

static size_t pairs_size(const struct edit_style *style, const struct edit_pair *pairs, size_t n)
{
    size_t size = 64 + style->keys;
    for (size_t i = 0; i < n; i++)
        size += SCALAR_MAX(strlen(pairs[i].key)) + SCALAR_MAX(pairs[i].text.n) + style->keys + 8;
    return size;
}

/* "{name: a, source: b}" */
static void add_flow_map(struct str *out, const struct edit_style *style, const struct edit_pair *pairs,
                         size_t n)
{
    str_addz(out, style->spaced ? "{ " : "{");
    for (size_t i = 0; i < n; i++) {
        str_addz(out, i > 0 ? ", " : "");
        add_pair(out, style, pairs[i]);
    }
    str_addz(out, style->spaced ? " }" : "}");
}

/* "  - name: a" and the lines below it; without a line break at its end. */
static struct span entry_lines(struct sheet *s, const struct edit_style *style, const struct edit_pair *pairs,
                               size_t n)
{
    struct str out = text_new(s, pairs_size(style, pairs, n) + style->dash);
    add_spaces(&out, style->dash - 1);
    str_addc(&out, '-');
    if (style->flow) {
        add_spaces(&out, style->keys - style->dash - 1);
        add_flow_map(&out, style, pairs, n);
        return str_span(&out);
    }
    for (size_t i = 0; i < n; i++) {
        if (i > 0 || style->dash_alone) {
            str_add(&out, s->newline);
            add_spaces(&out, style->keys - 1);
        } else {
            add_spaces(&out, style->keys - style->dash - 1);
        }
        add_pair(&out, style, pairs[i]);
    }
    MUST(!out.cut);
    return str_span(&out);
}

static struct span flow_entry(struct sheet *s, const struct edit_style *style, const struct edit_pair *pairs,
                              size_t n)
{
    struct str out = text_new(s, pairs_size(style, pairs, n));
    add_flow_map(&out, style, pairs, n);
    MUST(!out.cut);
    return str_span(&out);
}

static struct span join(struct sheet *s, struct span a, struct span b, struct span c)
{
    struct str out = text_new(s, a.n + b.n + c.n + 1);
    str_add(&out, a);
    str_add(&out, b);
    str_add(&out, c);
    return str_span(&out);
}

/* ---- elements ---- */

static const struct conf_node *before(const struct conf_node *parent, const struct conf_node *child)
{
    const struct conf_node *n = parent->first;
    if (n == child)
        return NULL;
    while (n->next != child)
        n = n->next;
    return n;
}

static const struct conf_node *last(
    const struct conf_node *parent) /* duplicate keys are refused: `last` is what it says */
{
    return parent->last;
}

static size_t element_end(const struct conf_node *parent, const struct conf_node *child)
{
    return parent->kind == NODE_MAP ? child->value->end : child->end;
}

/* The colon behind a key. False: it is written with a "?". */
static bool find_colon(const struct sheet *s, const struct conf_node *key, size_t *out)
{
    size_t at = key->end;
    while (sheet_at(s, at, ' ') || sheet_at(s, at, '\t'))
        at++;
    *out = at;
    return sheet_at(s, at, ':');
}

/* ---- block style ---- */

/* The end of the last line that belongs to an element whose content ends at `end`: comment lines in `column` or right of it directly
 * below, but not those that stand directly above other content which is no farther left than they are. False: something else
 * than a comment follows in the line. */
static bool block_end(const struct sheet *s, size_t end, unsigned column, size_t *out)
{
    if (!sheet_rest_is_comment(s, end))
        return false;
    size_t own = sheet_line_end(s, end), last_line = own, line = sheet_next(s, end);
    while (line < s->text.n && sheet_line_is_comment(s, line) && sheet_column(s, line) >= column) {
        last_line = sheet_line_end(s, line);
        line = sheet_next(s, line);
    }
    bool content = line < s->text.n && !sheet_line_is_blank(s, line) && !sheet_line_is_comment(s, line);
    while (content && last_line > own && sheet_column(s, sheet_line(s, last_line)) <= sheet_column(s, line))
        last_line = sheet_before(s, last_line);
    *out = last_line;
    return true;
}

/* Comment lines directly above a line that begin in its column or left of it; not above `limit`. */
static size_t block_start(const struct sheet *s, size_t line, size_t limit)
{
    unsigned column = sheet_column(s, line);
    while (line > limit) {
        size_t above = sheet_line(s, sheet_before(s, line));
        if (above < limit || !sheet_line_is_comment(s, above) || sheet_column(s, above) > column)
            break;
        line = above;
    }
    return line;
}

/* Removes whole lines; `limit` is where the element above has ended. Blank lines above go, too, when others follow, or when they part the last
 * element from the one above it. A text without a line break at its end keeps to that. */
static void cut_lines(struct sheet *s, size_t from, size_t to, size_t limit, bool last_one)
{
    size_t blank = from;
    bool end = to == s->text.n;
    while (blank > limit && sheet_line_is_blank(s, sheet_line(s, sheet_before(s, blank))))
        blank = sheet_line(s, sheet_before(s, blank));
    if (end || sheet_line_is_blank(s, to) || (last_one && blank == limit))
        from = blank;
    if (end && sheet_line(s, to) != to)
        from = sheet_before(s, from);
    sheet_splice(s, from, to, SPAN_NONE);
}

static void put_lines(struct sheet *s, size_t line_end, struct span lines)
{
    sheet_splice(s, line_end, line_end, join(s, s->newline, lines, SPAN_NONE));
}

/* Puts a new element whose first line begins in `column` below the line that ends at `end`, the last that belongs to what ends at
 * `content`. Comments that would stand directly above it, and so become its own, are parted from it by a blank line. */
static void put_below(struct sheet *s, size_t content, size_t end, unsigned column, bool parted,
                      struct span lines)
{
    bool comments = end != sheet_line_end(s, content) && sheet_column(s, sheet_line(s, end)) <= column;
    put_lines(s, end, parted || comments ? join(s, s->newline, lines, SPAN_NONE) : lines);
}

/* The line in which an element of a block begins: with the dash, or the key. False: something stands before it. */
static bool block_line(const struct sheet *s, const struct conf_node *parent, const struct conf_node *child,
                       size_t *out)
{
    const struct conf_node *above = before(parent, child);
    size_t at = child->start;
    if (parent->kind == NODE_LIST) {
        at = above != NULL ? sheet_skip(s, above->end) : parent->start;
        if (!sheet_at(s, at, '-'))
            return false;
    }
    *out = sheet_line(s, at);
    return sheet_blank(s, *out, at);
}

/* Is there a blank line between the last two elements? */
static bool is_parted(const struct sheet *s, const struct conf_node *parent)
{
    size_t line;
    if (parent->n < 2 || !block_line(s, parent, last(parent), &line))
        return false;
    line = block_start(s, line, s->first);
    return line > s->first && sheet_line_is_blank(s, sheet_line(s, sheet_before(s, line)));
}

static bool block_append(struct sheet *s, const struct conf_node *parent, struct span lines)
{
    size_t content = element_end(parent, last(parent)), end;
    if (!block_end(s, content, parent->mark.column, &end))
        return false;
    put_below(s, content, end, parent->mark.column, is_parted(s, parent), lines);
    return true;
}

/* `limit`: lines above it are somebody else's. */
static bool block_remove(struct sheet *s, const struct conf_node *parent, const struct conf_node *child,
                         size_t limit)
{
    size_t line, end, above_end;
    const struct conf_node *above = before(parent, child);
    if (above != NULL && block_end(s, element_end(parent, above), parent->mark.column + 1, &above_end))
        limit = sheet_next(s, above_end);
    if (!block_line(s, parent, child, &line) ||
        !block_end(s, element_end(parent, child), parent->mark.column + 1, &end))
        return false;
    bool last_one = above != NULL && child->next == NULL;
    cut_lines(s, block_start(s, line, limit), sheet_next(s, end), limit, last_one);
    return true;
}

/* ---- brackets ---- */

static bool starts_line(const struct sheet *s, size_t at)
{
    return sheet_blank(s, sheet_line(s, at), at);
}

/* The comma behind an element's end. */
static bool find_comma(const struct sheet *s, size_t end, size_t *out)
{
    *out = sheet_skip(s, end);
    return sheet_at(s, *out, ',');
}

static void flow_append(struct sheet *s, const struct conf_node *parent, struct span text)
{
    const struct conf_node *child = last(parent);
    size_t end = element_end(parent, child), comma;
    if (!starts_line(s, child->start)) {
        sheet_splice(s, end, end, join(s, SPAN(", "), text, SPAN_NONE));
        return;
    }
    size_t line = sheet_line(s, child->start);
    struct span indent = span_sub(s->text, line, child->start - line);
    bool trailing = find_comma(s, end, &comma);
    size_t at = trailing ? comma + 1 : end;
    if (!trailing)
        sheet_splice(s, end, end, SPAN(","));
    if (sheet_rest_is_comment(s, at)) {
        at = sheet_line_end(s, at);
        size_t own = at;
        for (size_t next = sheet_next(s, at); sheet_line_is_comment(s, next); next = sheet_next(s, at))
            at = sheet_line_end(s, next);
        if (at != own) /* they are not the new one's */
            sheet_splice(s, at, at, s->newline);
    }
    text = join(s, s->newline, indent, text);
    sheet_splice(s, at, at, trailing ? join(s, text, SPAN(","), SPAN_NONE) : text);
}

/* An element that has its lines for itself. */
static void flow_remove_lines(struct sheet *s, const struct conf_node *parent, const struct conf_node *child,
                              size_t end, bool comma)
{
    const struct conf_node *above = before(parent, child);
    size_t line = sheet_line(s, child->start), limit = sheet_next(s, parent->start), other;
    if (above != NULL)
        limit = sheet_next(s, element_end(parent, above));
    if (!comma && above != NULL && find_comma(s, element_end(parent, above), &other))
        sheet_splice(s, other, other + 1, SPAN_NONE);
    cut_lines(s, block_start(s, line, limit), sheet_next(s, end), limit,
              above != NULL && child->next == NULL);
}

static void flow_remove(struct sheet *s, const struct conf_node *parent, const struct conf_node *child)
{
    const struct conf_node *above = before(parent, child);
    size_t end = element_end(parent, child), comma_at, other;
    bool comma = find_comma(s, end, &comma_at);
    size_t own_end = comma ? comma_at + 1 : end;
    if (starts_line(s, child->start) && sheet_rest_is_comment(s, own_end)) {
        flow_remove_lines(s, parent, child, own_end, comma);
        return;
    }
    if (child->next != NULL) {
        size_t to = child->next->start, line_end = sheet_line_end(s, own_end);
        sheet_splice(s, child->start, to < line_end ? to : line_end, SPAN_NONE);
        return;
    }
    if (above == NULL) {
        sheet_splice(s, child->start, own_end, SPAN_NONE);
        return;
    }
    size_t from = element_end(parent, above);
    if (!starts_line(s, child->start)) {
        sheet_splice(s, from, end, SPAN_NONE);
        return;
    }
    if (!comma && find_comma(s, from, &other))
        sheet_splice(s, other, other + 1, SPAN_NONE);
    sheet_splice(s, child->start, own_end, SPAN_NONE);
}

/* ---- entries ---- */

/* How a map in brackets is written. */
static struct edit_style flow_style(const struct sheet *s, const struct conf_node *map)
{
    struct edit_style style = {.flow = true};
    if (map->first != NULL && map->first->quoted)
        style.quote = s->text.p[map->first->start];
    style.spaced = sheet_at(s, map->start + 1, ' ') && !sheet_rest_is_comment(s, map->start + 1);
    return style;
}

/* As the last entry of a block list is written. */
static struct edit_style style_of_list(const struct sheet *s, const struct conf_node *list)
{
    const struct conf_node *item = last(list);
    struct edit_style style = {.dash = list->mark.column, .keys = list->mark.column + INDENT};
    if (item->kind != NODE_MAP || item->n == 0)
        return style;
    if (item->flow) {
        unsigned dash = style.dash;
        style = flow_style(s, item);
        style.dash = dash;
        style.keys = dash + INDENT;
        return style;
    }
    size_t line;
    style.keys = item->mark.column;
    style.dash_alone = block_line(s, list, item, &line) && line != sheet_line(s, item->start);
    return style;
}

/* For a list without entries: as the other lists of the file. */
static struct edit_style style_of_file(const struct conf_node *root)
{
    unsigned keys = root != NULL && root->kind == NODE_MAP ? root->mark.column : 1;
    struct edit_style style = {.dash = keys + INDENT};
    for (const struct conf_node *k = root != NULL ? root->first : NULL; k != NULL; k = k->next)
        if (k->value->kind == NODE_LIST && !k->value->flow && k->value->n > 0)
            style.dash = k->value->mark.column;
    style.keys = style.dash + INDENT;
    return style;
}

/* The list has entries. */
static bool append_entry(struct sheet *s, const struct conf_node *list, const struct edit_pair *pairs,
                         size_t n)
{
    if (!list->flow) {
        struct edit_style style = style_of_list(s, list);
        return block_append(s, list, entry_lines(s, &style, pairs, n));
    }
    const struct conf_node *item = last(list);
    if (item->kind != NODE_MAP)
        return false;
    struct edit_style style = flow_style(s, item);
    flow_append(s, list, flow_entry(s, &style, pairs, n));
    return true;
}

/* The list is there and has no entries, in whatever way that is said. */
static bool first_entry(struct sheet *s, const struct conf_node *root, const struct conf_node *key,
                        const struct edit_pair *pairs, size_t n)
{
    const struct conf_node *v = key->value;
    bool lines = sheet_line_end(s, v->start) != sheet_line_end(s, v->end);
    size_t colon, end;
    if (!find_colon(s, key, &colon))
        return false;
    if (lines || root->flow) {
        struct edit_style style = flow_style(s, root);
        struct span entry = flow_entry(s, &style, pairs, n);
        if (lines && v->kind == NODE_LIST)
            sheet_splice(s, v->start + 1, v->start + 1, entry);
        else if (lines)
            return false;
        else
            sheet_splice(s, colon + 1, v->start == v->end ? colon + 1 : v->end,
                         join(s, SPAN(" ["), entry, SPAN("]")));
        return true;
    }
    struct edit_style style = style_of_file(root);
    if (!block_end(s, v->end, root->mark.column + 1, &end))
        return false;
    sheet_splice(s, colon + 1, v->end, SPAN_NONE);
    put_below(s, v->end, end, style.dash, false, entry_lines(s, &style, pairs, n));
    return true;
}

/* The list is not there. */
static bool new_list(struct sheet *s, const struct conf_node *root, const char *name,
                     const struct edit_pair *pairs, size_t n)
{
    bool map = root != NULL && root->kind == NODE_MAP;
    if (map && root->flow) {
        struct edit_style style = flow_style(s, root);
        char buf[64];
        struct str key = STR_INIT(buf);
        scalar_add(&key, span_str(name), style.quote, true);
        str_addz(&key, ": [");
        struct span text = join(s, str_span(&key), flow_entry(s, &style, pairs, n), SPAN("]"));
        if (root->n > 0)
            flow_append(s, root, text);
        else
            sheet_splice(s, root->start + 1, root->start + 1, text);
        return true;
    }
    struct edit_style style = style_of_file(root);
    struct span head = join(s, span_str(name), SPAN(":"), s->newline),
                lines = entry_lines(s, &style, pairs, n);
    if (map) {
        char indent[64];
        struct str spaces = STR_INIT(indent);
        add_spaces(&spaces, root->mark.column - 1);
        return !spaces.cut && block_append(s, root, join(s, str_span(&spaces), head, lines));
    }
    size_t at = root != NULL ? root->start : s->text.n;
    bool fresh = sheet_line(s, at) == at; /* nothing stands before it in its line */
    lines = join(s, head, lines, fresh ? s->newline : SPAN_NONE);
    sheet_splice(s, at, at, fresh ? lines : join(s, s->newline, lines, SPAN_NONE));
    return true;
}

bool place_entry_add(struct sheet *s, const struct conf_node *root, const struct conf_node *key,
                     const char *name, const struct edit_pair *pairs, size_t n)
{
    if (key == NULL)
        return new_list(s, root, name, pairs, n);
    if (key->value->kind == NODE_LIST && key->value->n > 0)
        return append_entry(s, key->value, pairs, n);
    return first_entry(s, root, key, pairs, n);
}

bool place_entry_remove(struct sheet *s, const struct conf_node *key, const struct conf_node *item)
{
    const struct conf_node *list = key->value;
    size_t colon;
    if (list->flow) {
        flow_remove(s, list, item);
        return true;
    }
    if (!find_colon(s, key, &colon))
        return false;
    if (list->n == 1)
        sheet_splice(s, colon + 1, colon + 1, SPAN(" []"));
    return block_remove(s, list, item, sheet_next(s, colon));
}

/* ---- keys of an entry ---- */

bool place_key_add(struct sheet *s, const struct conf_node *map, struct edit_pair pair)
{
    if (map->flow) {
        struct edit_style style = flow_style(s, map);
        struct str out = text_new(s, pairs_size(&style, &pair, 1));
        add_pair(&out, &style, pair);
        flow_append(s, map, str_span(&out));
        return true;
    }
    struct edit_style style = {.keys = map->mark.column};
    struct str out = text_new(s, pairs_size(&style, &pair, 1));
    add_spaces(&out, style.keys - 1);
    add_pair(&out, &style, pair);
    size_t end;
    if (!block_end(s, element_end(map, last(map)), style.keys + 1, &end))
        return false;
    put_lines(s, end, str_span(&out));
    return true;
}

/* The new value keeps the old one's quotes. */
bool place_key_set(struct sheet *s, const struct conf_node *map, const struct conf_node *key,
                   struct span text)
{
    const struct conf_node *v = key->value;
    if (v->kind != NODE_SCALAR && v->kind != NODE_NULL)
        return false;
    char first = v->quoted ? s->text.p[v->start] : 0;
    struct str out = text_new(s, SCALAR_MAX(text.n) + 1);
    size_t colon = 0;
    if (v->start == v->end) {
        if (!find_colon(s, key, &colon))
            return false;
        str_addc(&out, ' ');
    }
    scalar_add(&out, text, first == '"' || first == '\'' ? first : 0, map->flow);
    if (v->start == v->end)
        sheet_splice(s, colon + 1, colon + 1, str_span(&out));
    else
        sheet_splice(s, v->start, v->end, str_span(&out));
    return true;
}

bool place_key_remove(struct sheet *s, const struct conf_node *map, const struct conf_node *key)
{
    if (map->flow) {
        flow_remove(s, map, key);
        return true;
    }
    size_t end = key->value->end;
    if (!sheet_rest_is_comment(s, end))
        return false;
    if (starts_line(s, key->start)) {
        cut_lines(s, sheet_line(s, key->start), sheet_next(s, end), sheet_line(s, key->start), false);
        return true;
    }
    if (key->next == NULL)
        return false;
    /* The first key of an entry, on the dash's line: the next one takes its place, unless comments stand between them. */
    size_t next = key->next->start, from = key->start;
    if (sheet_next(s, end) == sheet_line(s, next)) {
        sheet_splice(s, from, next, SPAN_NONE);
        return true;
    }
    while (from > s->first && sheet_at(s, from - 1, ' '))
        from--;
    sheet_splice(s, from, sheet_line_end(s, end), SPAN_NONE);
    return true;
}
