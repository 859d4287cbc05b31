/* Link = 1#( "<" target ">" *( OWS ";" OWS name [ "=" token-or-quoted ] ) ) (RFC 8288 section 3). Commas and
 * semicolons may stand inside of quotes and of the target, so the value is read from the left by a cursor. */
#include "registry/link.h"

struct cursor {
    struct span rest;
};

struct link {
    struct span target;
    bool next; /* rel holds "next" */
};

static void skip_blanks(struct cursor *c)
{
    while (c->rest.n > 0 && (c->rest.p[0] == ' ' || c->rest.p[0] == '\t'))
        c->rest = span_from(c->rest, 1);
}

static bool take_char(struct cursor *c, char wanted)
{
    skip_blanks(c);
    if (c->rest.n == 0 || c->rest.p[0] != wanted)
        return false;
    c->rest = span_from(c->rest, 1);
    return true;
}

/* Everything up to one of ";,=" or a blank. */
static struct span take_token(struct cursor *c)
{
    skip_blanks(c);
    size_t n = 0;
    while (n < c->rest.n && memchr(";,= \t", c->rest.p[n], 5) == NULL)
        n++;
    struct span token = span_sub(c->rest, 0, n);
    c->rest = span_from(c->rest, n);
    return token;
}

/* The inside of a quoted string whose first quote was taken; escapes stay as they are: no relation type that
 * is looked for needs one. */
static bool take_quoted(struct cursor *c, struct span *out)
{
    for (size_t i = 0; i < c->rest.n; i++) {
        if (c->rest.p[i] == '\\') {
            i++;
        } else if (c->rest.p[i] == '"') {
            *out = span_sub(c->rest, 0, i);
            c->rest = span_from(c->rest, i + 1);
            return true;
        }
    }
    return false;
}

static bool relation_has_next(struct span relations)
{
    struct span part;
    while (span_next(&relations, ' ', &part)) {
        if (span_ieq(part, SPAN("next")))
            return true;
    }
    return false;
}

/* One link; false at the end of the value and where it stops being a Link header. */
static bool take_link(struct cursor *c, struct link *out)
{
    bool rel_seen = false;
    *out = (struct link){.target = SPAN_NONE};
    while (take_char(c, ','))
        ; /* empty list elements are allowed (RFC 9110 section 5.6.1) */
    if (!take_char(c, '<'))
        return false;
    ptrdiff_t end = span_find(c->rest, '>');
    if (end < 0)
        return false;
    out->target = span_sub(c->rest, 0, (size_t)end);
    c->rest = span_from(c->rest, (size_t)end + 1);
    while (take_char(c, ';')) {
        struct span value = SPAN_NONE, name = take_token(c);
        if (take_char(c, '=')) {
            if (!take_char(c, '"'))
                value = take_token(c);
            else if (!take_quoted(c, &value))
                return false;
        }
        /* only the first rel counts (RFC 8288 section 3.3) */
        if (!rel_seen && span_ieq(name, SPAN("rel"))) {
            rel_seen = true;
            out->next = relation_has_next(value);
        }
    }
    skip_blanks(c);
    return c->rest.n == 0 || c->rest.p[0] == ',';
}

/* The target's query, fit for a header of ours. A next page without a query would be the first page again. */
static bool target_query(struct span target, struct span *query)
{
    ptrdiff_t hash = span_find(target, '#');
    if (hash >= 0)
        target = span_sub(target, 0, (size_t)hash);
    ptrdiff_t mark = span_find(target, '?');
    if (mark < 0)
        return false;
    *query = span_from(target, (size_t)mark + 1);
    for (size_t i = 0; i < query->n; i++) {
        unsigned char c = (unsigned char)query->p[i];
        if (c <= 0x20 || c >= 0x7f || c == '<' || c == '"')
            return false;
    }
    return query->n > 0;
}

static void add_encoded(struct str *out, struct span text)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                     c == '-' || c == '_' || c == '~' || c == ':';
        if (plain) {
            str_addc(out, c);
        } else {
            str_addc(out, '%');
            str_addhex(out, &c, 1);
        }
    }
}

enum link_next link_next(struct span field, struct span *query)
{
    struct cursor c = {.rest = field};
    struct link link;
    do {
        if (!take_link(&c, &link))
            return LINK_NONE;
    } while (!link.next);
    return target_query(link.target, query) ? LINK_NEXT : LINK_UNFIT;
}

bool link_write(struct span query, struct span path, struct span ns, struct str *out)
{
    struct str before = *out;
    str_addc(out, '<');
    str_add(out, path);
    str_addc(out, '?');
    str_add(out, query);
    if (ns.n > 0) {
        str_add(out, SPAN("&ns="));
        add_encoded(out, ns);
    }
    str_add(out, SPAN(">; rel=\"next\""));
    if (!out->cut)
        return true;
    *out = before; /* half a link is none */
    out->p[out->n] = '\0';
    return false;
}
