/* Pins: what is told to stay. */
#include <stdlib.h>

#include "admin/store_calls_int.h"
#include "store/pin.h"

/* ---- pins ---- */

/* The manifest that a tag names now; a digest stays what it is. */
static void look_up(struct store_calls *s, const struct names_image *image, struct digest *d, bool *here,
                    uint64_t *bytes)
{
    struct store_reader *r = store_reader_new(s->c.store);
    struct store_tag tag;
    struct store_object o;
    struct store_image whole;
    *d = image->digest;
    if (image->tag[0] != 0 && store_any_tag(s->c.store, span_str(image->repo), span_str(image->tag), &tag))
        *d = tag.digest;
    *here = d->alg != DIGEST_NONE && store_get_object(r, d, &o);
    *bytes = *here ? o.size : 0;
    if (*here && store_image(s->c.store, d, NULL, &whole))
        *bytes = whole.bytes_here;
    store_reader_free(r);
}

static unsigned answer_pin(struct store_calls *s, const struct names_image *image, struct str *out)
{
    struct digest d;
    uint64_t bytes;
    bool here, by_tag = image->tag[0] != 0;
    look_up(s, image, &d, &here, &bytes);
    str_addc(out, '{');
    member_text(out, "repository", image->repo[0] != 0 ? span_str(image->repo) : SPAN_NONE);
    member_text(out, "tag", by_tag ? span_str(image->tag) : SPAN_NONE);
    member_digest(out, "digest", &d);
    member_bool(out, "here", here);
    member_count(out, "bytes", bytes);
    str_addz(out, "}\n");
    return 200;
}

/* As clients do: without tag and digest it is "latest". */
static unsigned read_pin(struct store_calls *s, struct span query, char text[CALL_IMAGE_MAX],
                         struct names_image *image, struct str *out)
{
    unsigned status = call_image(s, query, text, image, out);
    if (status == 200 && image->digest.alg == DIGEST_NONE && image->tag[0] == 0) {
        struct str tag = STR_INIT(image->tag);
        str_addz(&tag, "latest");
    }
    return status;
}

unsigned call_pin(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    char text[CALL_IMAGE_MAX], buf[512];
    struct str why = STR_INIT(buf);
    struct names_image image;
    unsigned status = read_pin(s, query, text, &image, out);
    if (status != 200)
        return status;
    int err = image.tag[0] != 0 ? store_pin_tag(s->c.store, span_str(image.repo), span_str(image.tag), &why)
                                : store_pin_digest(s->c.store, &image.digest, &why);
    return err != 0 ? call_no(out, 503, "%s", buf) : answer_pin(s, &image, out);
}

unsigned call_unpin(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    char text[CALL_IMAGE_MAX], buf[512];
    struct str why = STR_INIT(buf);
    struct names_image image;
    bool found;
    unsigned status = read_pin(s, query, text, &image, out);
    if (status != 200)
        return status;
    int err = image.tag[0] != 0
                  ? store_unpin_tag(s->c.store, span_str(image.repo), span_str(image.tag), &found, &why)
                  : store_unpin_digest(s->c.store, &image.digest, &found, &why);
    if (err != 0)
        return call_no(out, 503, "%s", buf);
    if (!found)
        return call_no(out, 404, "'%s' is not pinned; 'larder pin --list' shows what is", text);
    return answer_pin(s, &image, out);
}

/* ---- the list of pins ---- */

struct pins {
    struct store_pin *list;
    size_t n, cap;
};

static bool add_pin(const struct store_pin *pin, void *arg)
{
    struct pins *p = arg;
    if (p->n == p->cap) {
        p->cap = p->cap == 0 ? 16 : 2 * p->cap;
        p->list = mem_realloc(p->list, p->cap * sizeof *p->list);
    }
    p->list[p->n++] = *pin;
    return true;
}

/* By repository and tag; digests alone come last. A blank sorts before all that names have. */
static void pin_place(const struct store_pin *pin, struct str *out)
{
    str_reset(out);
    if (pin->repo[0] != 0)
        str_addf(out, "%s %s", pin->repo, pin->tag);
    else
        str_addc(out, '~');
    if (pin->repo[0] == 0)
        digest_add(out, &pin->digest);
}

#define PLACE_MAX (STORE_REPO_MAX + STORE_TAG_MAX + 2)

static int compare_pins(const void *a, const void *b)
{
    char x_text[PLACE_MAX], y_text[PLACE_MAX];
    struct str x = STR_INIT(x_text), y = STR_INIT(y_text);
    pin_place(a, &x);
    pin_place(b, &y);
    return strcmp(x_text, y_text);
}

static void write_pins(const struct pins *pins, const char *after, struct str *out)
{
    char text[PLACE_MAX] = "";
    struct str place = STR_INIT(text);
    size_t told = 0;
    str_addz(out, "{\"pins\":[");
    for (size_t i = 0; i < pins->n; i++) {
        const struct store_pin *p = &pins->list[i];
        if (told == PAGE_ENTRIES)
            break;
        pin_place(p, &place);
        if (strcmp(text, after) <= 0)
            continue;
        told++;
        member_comma(out);
        str_addc(out, '{');
        member_text(out, "repository", p->repo[0] != 0 ? span_str(p->repo) : SPAN_NONE);
        member_text(out, "tag", p->repo[0] != 0 ? span_str(p->tag) : SPAN_NONE);
        member_digest(out, "digest", &p->digest);
        member_number(out, "since_ms", p->since_ms);
        str_addc(out, '}');
    }
    str_addc(out, ']');
    if (told == PAGE_ENTRIES)
        member_text(out, "next", str_span(&place));
    str_addz(out, "}\n");
}

unsigned call_pins(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    char text[PLACE_MAX];
    struct str after = STR_INIT(text);
    struct pins pins = {.n = 0};
    if (!api_optional(query, "after", &after, out))
        return 400;
    int err = store_each_pin(s->c.store, add_pin, &pins);
    if (pins.n > 0)
        qsort(pins.list, pins.n, sizeof *pins.list, compare_pins);
    write_pins(&pins, text, out);
    mem_free(pins.list);
    return err == 0 ? 200 : call_no(out, 503, "the pins cannot be read; the log says why");
}
