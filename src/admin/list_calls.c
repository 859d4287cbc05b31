/* What is in the store, in pages. A page is one step of the store's own list, or several when a filter leaves nothing of the first: each
 * call ends soon, whatever the store has. */
#include "admin/store_calls_int.h"

#define STEPS_MAX 20 /* of a page that finds nothing */

struct page {
    struct store_calls *s;
    const struct conf *conf;
    void *held;
    struct names_filter filter;
    struct list_cursor cursor;
    struct pinned *pins; /* NULL: no image was met yet */
};

/* 200, or the status for the sentence in `out`. To be ended in any case. */
static unsigned page_begin(struct page *p, struct store_calls *s, struct span query, struct str *out)
{
    char text[1024];
    struct str prefix = STR_INIT(text);
    p->s = s;
    p->conf = s->c.hold(s->c.arg, &p->held);
    unsigned status = api_optional(query, "prefix", &prefix, out) ? 200 : 400;
    names_filter_init(&p->filter, p->conf, str_span(&prefix));
    if (status == 200 && !call_cursor(query, &p->cursor))
        status = call_no(out, 400, "the parameter after is no place where a page has ended");
    if (p->filter.n == 0)
        p->cursor.end = true;
    return status;
}

static void page_end(struct page *p)
{
    names_filter_free(&p->filter);
    store_pinned_free(p->pins);
    p->s->c.release(p->held);
}

static void add_image(struct page *p, struct str *out, const struct digest *d)
{
    static const char *const kinds[STORE_KINDS] = {"blob", "configuration", "manifest", "index"};
    struct store_image image;
    if (p->pins == NULL)
        p->pins = store_pinned(p->s->c.store);
    bool here = store_image(p->s->c.store, d, p->pins, &image);
    member_bool(out, "here", here);
    if (!here)
        return;
    member_text(out, "kind", span_str(kinds[image.kind]));
    member_bool(out, "known", image.known);
    member_count(out, "objects", image.objects);
    member_count(out, "objects_here", image.here);
    member_count(out, "bytes", image.bytes);
    member_count(out, "bytes_here", image.bytes_here);
    member_count(out, "manifests", image.manifests);
    member_count(out, "complete", image.complete);
    member_number(out, "stored_ms", image.stored_ms);
    member_number(out, "access_ms", image.access_ms);
    member_count(out, "hits", image.hits);
    member_bool(out, "pinned", image.pinned);
}

static void add_entry(struct page *p, struct str *out, const char *repo, const char *tag, const char *media,
                      const struct digest *d)
{
    char buf[STORE_REPO_MAX + 1];
    struct str client = STR_INIT(buf);
    const struct conf_rule *rule = names_rule(p->conf, span_str(repo), &client);
    member_comma(out);
    str_addc(out, '{');
    member_text(out, "repository", store_repo_plain(span_str(repo)));
    if (tag != NULL)
        member_text(out, "tag", span_str(tag));
    member_digest(out, "digest", d);
    member_text(out, "media_type", media[0] != 0 ? span_str(media) : SPAN_NONE);
    member_text(out, "rule", rule != NULL ? rule->name : SPAN_NONE);
    member_text(out, "name", rule != NULL ? str_span(&client) : SPAN_NONE);
    add_image(p, out, d);
}

static bool list_tags(struct page *p, struct list_tag *tags, struct str *out)
{
    bool any = false;
    size_t n = store_list_tags(p->s->c.store, p->filter.common, &p->cursor, tags, PAGE_ENTRIES);
    for (size_t i = 0; i < n; i++) {
        struct list_tag *t = &tags[i];
        if (!names_filter_has(&p->filter, span_str(t->repo)))
            continue;
        add_entry(p, out, t->repo, t->tag, t->media, &t->digest);
        member_number(out, "checked_ms", t->checked_ms);
        str_addc(out, '}');
        any = true;
    }
    return any;
}

unsigned call_tags(void *arg, struct span query, struct str *out)
{
    struct page p = {0};
    unsigned status = page_begin(&p, arg, query, out);
    if (status == 200) {
        struct list_tag *tags = mem_alloc(PAGE_ENTRIES * sizeof *tags);
        str_addz(out, "{\"tags\":[");
        for (unsigned i = 0; i < STEPS_MAX && !p.cursor.end && !list_tags(&p, tags, out);)
            i++;
        str_addc(out, ']');
        call_next(out, &p.cursor);
        str_addz(out, "}\n");
        mem_free(tags);
    }
    page_end(&p);
    return status;
}

static bool list_images(struct page *p, struct list_link *links, struct str *out)
{
    bool any = false;
    size_t n = store_list_links(p->s->c.store, p->filter.common, &p->cursor, links, PAGE_ENTRIES);
    for (size_t i = 0; i < n; i++) {
        struct list_link *l = &links[i];
        if (l->media[0] == 0 || !names_filter_has(&p->filter, span_str(l->repo)))
            continue;
        add_entry(p, out, l->repo, NULL, l->media, &l->digest);
        str_addc(out, '}');
        any = true;
    }
    return any;
}

unsigned call_images(void *arg, struct span query, struct str *out)
{
    struct page p = {0};
    unsigned status = page_begin(&p, arg, query, out);
    if (status == 200) {
        struct list_link *links = mem_alloc(PAGE_ENTRIES * sizeof *links);
        str_addz(out, "{\"images\":[");
        for (unsigned i = 0; i < STEPS_MAX && !p.cursor.end && !list_images(&p, links, out);)
            i++;
        str_addc(out, ']');
        call_next(out, &p.cursor);
        str_addz(out, "}\n");
        mem_free(links);
    }
    page_end(&p);
    return status;
}
