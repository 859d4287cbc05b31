/* Passes of verification: one at a time. It runs on threads of its own, and a call only starts it, looks at it, or tells it to end; so what
 * asked for it may go away and come back. The last one stays to be looked at until the next begins. */
#include <stdlib.h>

#include "admin/store_calls_int.h"
#include "base/clock.h"
#include "store/image.h"

static void on_found(const struct digest *d, enum verify_found what, void *arg)
{
    struct store_calls *s = arg;
    pthread_mutex_lock(&s->found_lock);
    if (s->n_found < FOUND_MAX)
        s->found[s->n_found++] = (struct verify_finding){.digest = *d, .what = what};
    else
        s->found_more++;
    pthread_mutex_unlock(&s->found_lock);
}

static bool runs(struct store_calls *s)
{
    struct verify_progress p = {.done = true};
    if (s->pass != NULL)
        verify_look(s->pass, &p);
    return !p.done;
}

/* Under pass_lock. */
static unsigned start(struct store_calls *s, bool deep, struct str *out)
{
    if (atomic_load(&s->stopping))
        return call_no(out, 503, "larder is stopping");
    if (runs(s))
        return call_no(out, 409, "a verification runs already; wait for its end");
    verify_join(s->pass);
    s->n_found = 0;
    s->found_more = 0;
    s->pass = verify_start(s->c.store, deep, on_found, s);
    if (s->pass == NULL)
        return call_no(out, 503, "no thread can be started; try again later");
    s->pass_id++;
    s->pass_deep = deep;
    s->pass_cancelled = false;
    s->pass_started_ms = clock_wall_ms();
    str_addc(out, '{');
    member_count(out, "id", s->pass_id);
    str_addz(out, "}\n");
    return 200;
}

unsigned call_verify(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    pthread_mutex_lock(&s->pass_lock);
    unsigned status = start(s, call_flag(query, "deep"), out);
    pthread_mutex_unlock(&s->pass_lock);
    return status;
}

static void add_found(struct store_calls *s, struct str *out)
{
    member_name(out, "found");
    str_addc(out, '[');
    pthread_mutex_lock(&s->found_lock);
    for (size_t i = 0; i < s->n_found; i++) {
        member_comma(out);
        str_addc(out, '{');
        member_digest(out, "digest", &s->found[i].digest);
        member_text(out, "what", span_str(verify_found_name(s->found[i].what)));
        str_addc(out, '}');
    }
    str_addc(out, ']');
    member_count(out, "found_more", s->found_more);
    pthread_mutex_unlock(&s->found_lock);
}

unsigned call_verify_look(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    struct verify_progress p = {.done = true};
    UNUSED(query);
    pthread_mutex_lock(&s->pass_lock);
    if (s->pass != NULL)
        verify_look(s->pass, &p);
    str_addc(out, '{');
    member_count(out, "id", s->pass_id);
    member_bool(out, "running", !p.done);
    member_bool(out, "cancelled", s->pass_cancelled);
    member_bool(out, "deep", s->pass_deep);
    member_number(out, "started_ms", s->pass_started_ms);
    member_count(out, "objects", p.objects);
    member_count(out, "objects_all", p.objects_all);
    member_count(out, "bytes", p.bytes);
    member_count(out, "bytes_all", p.bytes_all);
    member_count(out, "missing", p.missing);
    member_count(out, "damaged", p.damaged);
    member_count(out, "failed", p.failed);
    add_found(s, out);
    str_addz(out, "}\n");
    pthread_mutex_unlock(&s->pass_lock);
    return 200;
}

unsigned call_verify_cancel(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    UNUSED(query);
    pthread_mutex_lock(&s->pass_lock);
    bool running = runs(s);
    if (running)
        verify_cancel(s->pass);
    s->pass_cancelled = s->pass_cancelled || running;
    uint64_t id = s->pass_id;
    pthread_mutex_unlock(&s->pass_lock);
    if (!running)
        return call_no(out, 404, "no verification runs");
    str_addc(out, '{');
    member_count(out, "id", id);
    str_addz(out, "}\n");
    return 200;
}

/* ---- one image, one object ---- */

#define OBJECTS_AT_ONCE 4000
_Static_assert(OBJECTS_AT_ONCE *(DIGEST_TEXT_MAX + 3) < API_ANSWER_MAX, "a page is an answer");

static int compare_digests(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct digest));
}

/* The manifest of a tag; a digest stays what it is. DIGEST_NONE: there is no such tag. */
static struct digest top_of(struct store_calls *s, const struct names_image *image)
{
    struct store_tag tag = {.digest = image->digest};
    if (image->digest.alg != DIGEST_NONE)
        return image->digest;
    struct span name = image->tag[0] != 0 ? span_str(image->tag) : SPAN("latest");
    bool found = store_any_tag(s->c.store, span_str(image->repo), name, &tag);
    return found ? tag.digest : image->digest;
}

static void write_objects(struct digest *list, size_t n, const struct digest *after, uint64_t bytes,
                          struct str *out)
{
    size_t i = 0, told = 0;
    qsort(list, n, sizeof *list, compare_digests);
    while (after->alg != DIGEST_NONE && i < n && compare_digests(&list[i], after) <= 0)
        i++;
    str_addz(out, "{\"objects\":[");
    for (; i < n && told < OBJECTS_AT_ONCE; i++, told++) {
        member_comma(out);
        str_addc(out, '"');
        digest_add(out, &list[i]);
        str_addc(out, '"');
    }
    str_addc(out, ']');
    member_count(out, "count", n);
    member_count(out, "bytes", bytes);
    if (i < n)
        member_digest(out, "next", &list[i - 1]);
    str_addz(out, "}\n");
}

static bool read_digest(struct span query, const char *name, struct digest *d)
{
    char text[DIGEST_TEXT_MAX];
    struct str value = STR_INIT(text);
    return api_parameter(query, span_str(name), &value) && digest_parse(str_span(&value), d) == DIGEST_OK;
}

unsigned call_objects(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    char text[CALL_IMAGE_MAX];
    struct names_image image;
    struct digest after = {.alg = DIGEST_NONE}, *list = NULL;
    uint64_t bytes = 0;
    unsigned status = call_image(s, query, text, &image, out);
    if (status != 200)
        return status;
    if (api_given(query, SPAN("after")) && !read_digest(query, "after", &after))
        return call_no(out, 400, "the parameter after is no place where a page has ended");
    struct digest top = top_of(s, &image);
    size_t n = top.alg != DIGEST_NONE ? store_image_objects(s->c.store, &top, &list, &bytes) : 0;
    if (n > 0)
        write_objects(list, n, &after, bytes, out);
    else
        status = call_no(out, 404, "'%s' is not in the store", text);
    mem_free(list);
    return status;
}

unsigned call_verify_object(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    struct digest d;
    struct store_object o = {.size = 0};
    if (!read_digest(query, "digest", &d))
        return call_no(out, 400, "the parameter digest is missing, or no digest");
    struct store_reader *r = store_reader_new(s->c.store);
    bool known = store_get_object(r, &d, &o);
    store_reader_free(r);
    enum verify_found found = store_verify(s->c.store, &d, call_flag(query, "deep"), &s->stopping);
    str_addc(out, '{');
    member_digest(out, "digest", &d);
    member_text(out, "what", span_str(verify_found_name(found)));
    member_count(out, "bytes", known ? o.size : 0);
    str_addz(out, "}\n");
    return 200;
}
