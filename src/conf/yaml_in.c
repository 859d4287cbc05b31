/* From libyaml's events to a tree. The only file that knows libyaml.
 *
 * The builder keeps a stack of open lists and maps, one frame each; a map's frame remembers the key that
 * waits for its value. What the text can ask for is bounded before it is built: bytes, depth, nodes. Marks
 * count characters, as libyaml does and as editors do; only the reader's errors (bytes that are not UTF-8)
 * come with a byte offset, which is turned into a mark here. Offsets count bytes: a cursor follows libyaml's
 * count of characters through the text. A block list or map ends where its last value ends, because libyaml
 * ends it where the next thing begins. */
#include "conf/yaml_in.h"

#include <yaml.h>

#include "base/map.h"
#include "conf/complain.h"

struct frame {
    struct conf_node *node;
    struct conf_node *key; /* map: waits for its value */
};

struct builder {
    struct arena *arena;
    struct conf_errors *errors;
    struct span text;  /* without a byte-order mark */
    size_t mark_bytes; /* of the byte-order mark */
    struct {
        size_t character, byte;
    } cursor;
    yaml_parser_t parser;
    struct frame stack[YAML_IN_DEPTH_MAX];
    size_t depth;
    size_t nodes;
    size_t documents;
    struct conf_node *root;
};

static struct conf_mark mark_of(yaml_mark_t m)
{
    return (struct conf_mark){.line = (unsigned)m.line + 1, .column = (unsigned)m.column + 1};
}

static struct conf_mark mark_of_offset(struct span text, size_t offset)
{
    struct conf_mark m = {.line = 1, .column = 1};
    for (size_t i = 0; i < offset && i < text.n; i++) {
        if (text.p[i] == '\n') {
            m.line++;
            m.column = 1;
        } else if (((unsigned char)text.p[i] & 0xC0) != 0x80) {
            m.column++;
        }
    }
    return m;
}

static bool inside_character(struct span text, size_t i)
{
    return i < text.n && ((unsigned char)text.p[i] & 0xC0) == 0x80;
}

/* The place of libyaml's mark in bytes of the whole text. Events come in the order of the text but for a few steps back. */
static size_t offset_of(struct builder *b, yaml_mark_t m)
{
    size_t i = b->cursor.byte;
    for (; b->cursor.character < m.index && i < b->text.n; b->cursor.character++)
        do
            i++;
        while (inside_character(b->text, i));
    for (; b->cursor.character > m.index; b->cursor.character--)
        do
            i--;
        while (inside_character(b->text, i));
    b->cursor.byte = i;
    return b->mark_bytes + i;
}

static bool line_has_tab(struct span text, struct conf_mark at) /* before the first other character */
{
    size_t i = 0;
    for (unsigned line = 1; line < at.line && i < text.n; i++)
        if (text.p[i] == '\n')
            line++;
    while (i < text.n && text.p[i] == ' ')
        i++;
    return i < text.n && text.p[i] == '\t';
}

static void complain_syntax(struct builder *b)
{
    const yaml_parser_t *p = &b->parser;
    MUST(p->error != YAML_MEMORY_ERROR);
    if (p->error == YAML_READER_ERROR) {
        complain(b->errors, mark_of_offset(b->text, p->problem_offset),
                 "not readable as UTF-8 text: %s (byte 0x%02X); save the file as UTF-8", p->problem,
                 (unsigned)p->problem_value);
        return;
    }
    struct conf_mark at = mark_of(p->problem_mark);
    if (line_has_tab(b->text, at)) {
        complain(b->errors, at, "not valid YAML: this line is indented with a tab; use spaces");
        return;
    }
    bool far = p->context != NULL && p->context_mark.line != p->problem_mark.line;
    const char *hint = p->context != NULL && strstr(p->context, "alias") != NULL
                           ? "a value that begins with '*' needs quotes"
                           : "check indentation and colons; a value with '[', '*' or ': ' needs quotes";
    if (far)
        complain(b->errors, at, "not valid YAML: %s, %s that begins on line %zu; %s", p->problem, p->context,
                 p->context_mark.line + 1, hint);
    else
        complain(b->errors, at, "not valid YAML: %s%s%s; %s", p->problem, p->context != NULL ? ", " : "",
                 p->context != NULL ? p->context : "", hint);
}

static struct conf_node *node_new(struct builder *b, enum node_kind kind, yaml_mark_t mark)
{
    if (++b->nodes > YAML_IN_NODES_MAX) {
        complain(b->errors, mark_of(mark), "more than %d values; split the work between several caches",
                 YAML_IN_NODES_MAX);
        return NULL;
    }
    struct conf_node *n = arena_alloc(b->arena, sizeof *n);
    n->kind = kind;
    n->mark = mark_of(mark);
    n->start = n->end = offset_of(b, mark);
    return n;
}

/* Hangs a finished scalar, or a list or map that begins, below what is open. False: stop. */
static bool node_place(struct builder *b, struct conf_node *n)
{
    if (b->depth == 0) {
        b->root = n;
        return true;
    }
    struct frame *f = &b->stack[b->depth - 1];
    if (f->key != NULL) {
        f->key->value = n;
        f->key = NULL;
        return true;
    }
    if (f->node->kind == NODE_MAP) {
        if (n->kind != NODE_SCALAR && n->kind != NODE_NULL) {
            complain(b->errors, n->mark,
                     "a key must be one word followed by a colon, not a list, a mapping or an alias");
            return false;
        }
        f->key = n;
    }
    if (f->node->last != NULL)
        f->node->last->next = n;
    else
        f->node->first = n;
    f->node->last = n;
    f->node->n++;
    return true;
}

static bool node_open(struct builder *b, enum node_kind kind, bool flow, yaml_mark_t mark)
{
    struct conf_node *n = node_new(b, kind, mark);
    if (n == NULL || !node_place(b, n))
        return false;
    if (b->depth == YAML_IN_DEPTH_MAX) {
        complain(b->errors, n->mark, "lists and mappings are nested more than %d deep; no key needs that",
                 YAML_IN_DEPTH_MAX);
        return false;
    }
    n->flow = flow;
    b->stack[b->depth++] = (struct frame){.node = n};
    return true;
}

static void node_close(struct builder *b, yaml_mark_t end)
{
    struct conf_node *n = b->stack[--b->depth].node;
    const struct conf_node *last = n->last;
    if (n->flow)
        n->end = offset_of(b, end);
    else if (last != NULL)
        n->end = n->kind == NODE_MAP ? last->value->end : last->end;
}

/* Two equal keys in one map: the first stays. */
static void map_check_keys(struct builder *b, struct conf_node *m)
{
    struct map seen;
    map_init(&seen);
    for (struct conf_node **link = &m->first, *k = *link; k != NULL; k = *link) {
        const struct conf_node *other = map_get(&seen, k->text);
        if (other == NULL) {
            map_put(&seen, k->text, k);
            link = &k->next;
            continue;
        }
        ptrdiff_t colon = span_find(k->text, ':'); /* behind it may be a value */
        complain(b->errors, k->mark, "key '%.*s' was already given on line %u; remove one of the two",
                 SHOW(span_sub(k->text, 0, colon < 0 ? k->text.n : (size_t)colon)), other->mark.line);
        *link = k->next;
        m->n--;
    }
    map_free(&seen);
}

static bool is_null(struct span s)
{
    return s.n == 0 || span_eq(s, SPAN("~")) || span_eq(s, SPAN("null")) || span_eq(s, SPAN("Null")) ||
           span_eq(s, SPAN("NULL"));
}

/* Their names are not repeated: they may be a password that begins so and has no quotes. */
static void refuse_extras(struct builder *b, yaml_mark_t mark, const yaml_char_t *anchor,
                          const yaml_char_t *tag)
{
    if (anchor != NULL)
        complain(b->errors, mark_of(mark),
                 "anchors (&...) are not used here; write the value where it is needed");
    if (tag != NULL)
        complain(b->errors, mark_of(mark), "tags (!...) are not used here; write the value without it");
}

static bool on_scalar(struct builder *b, const yaml_event_t *e)
{
    refuse_extras(b, e->start_mark, e->data.scalar.anchor, e->data.scalar.tag);
    struct conf_node *n = node_new(b, NODE_SCALAR, e->start_mark);
    if (n == NULL)
        return false;
    size_t len = e->data.scalar.length;
    n->text = span_of(arena_strndup(b->arena, (const char *)e->data.scalar.value, len), len);
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (!n->quoted && is_null(n->text))
        n->kind = NODE_NULL;
    n->end = offset_of(b, e->end_mark);
    while (n->end > n->start && strchr(" \t\r\n", b->text.p[n->end - b->mark_bytes - 1]) != NULL)
        n->end--;
    return node_place(b, n);
}

static bool on_alias(struct builder *b, const yaml_event_t *e)
{
    complain(b->errors, mark_of(e->start_mark),
             "aliases (*...) are not used here; write the value out, or quote a '*'");
    struct conf_node *n = node_new(b, NODE_BAD, e->start_mark);
    return n != NULL && node_place(b, n);
}

static bool on_document(struct builder *b, const yaml_event_t *e)
{
    if (b->documents++ == 0)
        return true;
    complain(b->errors, mark_of(e->start_mark), "a second document begins here ('---'); keep all in one");
    return false;
}

static bool on_event(struct builder *b, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return on_document(b, e);
    case YAML_SCALAR_EVENT:
        return on_scalar(b, e);
    case YAML_ALIAS_EVENT:
        return on_alias(b, e);
    case YAML_SEQUENCE_START_EVENT:
        refuse_extras(b, e->start_mark, e->data.sequence_start.anchor, e->data.sequence_start.tag);
        return node_open(b, NODE_LIST, e->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE,
                         e->start_mark);
    case YAML_MAPPING_START_EVENT:
        refuse_extras(b, e->start_mark, e->data.mapping_start.anchor, e->data.mapping_start.tag);
        return node_open(b, NODE_MAP, e->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE, e->start_mark);
    case YAML_MAPPING_END_EVENT:
        map_check_keys(b, b->stack[b->depth - 1].node);
        node_close(b, e->end_mark);
        return true;
    case YAML_SEQUENCE_END_EVENT:
        node_close(b, e->end_mark);
        return true;
    default: /* ends of stream and document, and the start of the stream, build nothing */
        return true;
    }
}

static bool build(struct builder *b)
{
    for (;;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&b->parser, &e)) {
            complain_syntax(b);
            return false;
        }
        bool end = e.type == YAML_STREAM_END_EVENT;
        bool ok = on_event(b, &e);
        yaml_event_delete(&e);
        if (end || !ok)
            return ok;
    }
}

/* A key that waits for its value gets one about which nothing is to be said. */
static void close_all(struct builder *b)
{
    for (; b->depth > 0; b->depth--) {
        struct conf_node *key = b->stack[b->depth - 1].key;
        if (key == NULL)
            continue;
        key->value = arena_alloc(b->arena, sizeof *key->value);
        *key->value = (struct conf_node){.kind = NODE_BAD, .mark = key->mark};
    }
}

bool yaml_in_read_start(struct arena *a, struct span text, struct conf_errors *errors,
                        struct conf_node **root)
{
    *root = NULL;
    struct conf_mark whole = {0};
    if (text.n > YAML_IN_SIZE_MAX) {
        complain(errors, whole, "the file has %zu bytes, more than the limit of %u MiB", text.n,
                 YAML_IN_SIZE_MAX >> 20);
        return false;
    }
    if (span_starts(text, SPAN("\xFF\xFE")) || span_starts(text, SPAN("\xFE\xFF"))) {
        complain(errors, whole, "the file is UTF-16; save it as UTF-8");
        return false;
    }
    size_t mark_bytes = span_starts(text, SPAN("\xEF\xBB\xBF")) ? 3 : 0;
    text = span_from(text, mark_bytes); /* a byte-order mark is no column */

    struct builder b = {.arena = a, .errors = errors, .text = text, .mark_bytes = mark_bytes};
    MUST(yaml_parser_initialize(&b.parser));
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)(text.p != NULL ? text.p : ""), text.n);
    bool ok = build(&b);
    yaml_parser_delete(&b.parser);
    close_all(&b);
    *root = b.root;
    return ok;
}

bool yaml_in_read(struct arena *a, struct span text, struct conf_errors *errors, struct conf_node **root)
{
    bool ok = yaml_in_read_start(a, text, errors, root);
    if (!ok)
        *root = NULL;
    return ok;
}
