/* See store_calls.h. What the calls share, and the table. */
#include <stdarg.h>
#include <stdio.h>

#include "admin/store_calls_int.h"
#include "store/evict.h"

unsigned call_no(struct str *out, unsigned status, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    str_reset(out);
    str_addz(out, text);
    return status;
}

bool call_flag(struct span query, const char *name)
{
    char text[8];
    struct str value = STR_INIT(text);
    return api_parameter(query, span_str(name), &value) && span_eq(str_span(&value), SPAN("1"));
}

unsigned call_image(struct store_calls *s, struct span query, char text[CALL_IMAGE_MAX],
                    struct names_image *image, struct str *out)
{
    struct str value = str_init(text, CALL_IMAGE_MAX);
    if (!api_optional(query, "image", &value, out))
        return 400;
    void *held;
    const struct conf *conf = s->c.hold(s->c.arg, &held);
    enum names_found found = names_image(conf, str_span(&value), image);
    image->rule = NULL; /* it goes with the configuration */
    s->c.release(held);
    if (found == NAMES_NO_IMAGE)
        return call_no(out, 400, "'%s' is no image; write it as in t/app:v1, t/app@sha256:... or sha256:...",
                       text);
    if (found == NAMES_NO_RULE)
        return call_no(out, 404, "no rule is for '%s'; 'larder cache list' shows the rules", text);
    return 200;
}

/* ---- pages: the cursor's bytes as hexadecimal digits ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool call_cursor(struct span query, struct list_cursor *cursor)
{
    char text[2 * sizeof cursor->key + 1];
    struct str after = STR_INIT(text);
    *cursor = (struct list_cursor){.n = 0};
    if (!api_given(query, SPAN("after")))
        return true;
    if (!api_parameter(query, SPAN("after"), &after) || after.n == 0 || after.n % 2 != 0)
        return false;
    for (size_t i = 0; i < after.n; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return false;
        cursor->key[cursor->n++] = (unsigned char)(high * 16 + low);
    }
    return true;
}

void call_next(struct str *out, const struct list_cursor *cursor)
{
    if (cursor->end)
        return;
    member_name(out, "next");
    str_addc(out, '"');
    str_addhex(out, cursor->key, cursor->n);
    str_addc(out, '"');
}

/* ---- gc ---- */

static unsigned call_gc(void *arg, struct span query, struct str *out)
{
    struct store_calls *s = arg;
    struct store_totals before, after;
    UNUSED(query);
    store_totals(s->c.store, &before);
    store_tidy(s->c.store);
    store_totals(s->c.store, &after);
    str_addc(out, '{');
    member_count(out, "evicted", after.evicted - before.evicted);
    member_count(out, "evicted_bytes", after.evicted_bytes - before.evicted_bytes);
    member_count(out, "freed_bytes", before.used > after.used ? before.used - after.used : 0);
    member_count(out, "objects", after.objects);
    member_count(out, "used", after.used);
    str_addz(out, "}\n");
    return 200;
}

/* ---- life ---- */

struct store_calls *store_calls_new(const struct store_calls_config *config)
{
    struct store_calls *s;
    NEW(s);
    s->c = *config;
    pthread_mutex_init(&s->pass_lock, NULL);
    pthread_mutex_init(&s->found_lock, NULL);
    return s;
}

size_t store_calls_fill(struct store_calls *s, struct api_call calls[STORE_CALLS_MAX])
{
    const struct api_call table[] = {
        {"tags", false, true, call_tags, s},
        {"images", false, true, call_images, s},
        {"usage", false, true, call_usage, s},
        {"pins", false, true, call_pins, s},
        {"pin", true, true, call_pin, s},
        {"unpin", true, true, call_unpin, s},
        {"purge", true, true, call_purge, s},
        {"gc", true, true, call_gc, s},
        {"verify-start", true, true, call_verify, s},
        {"verify", false, true, call_verify_look, s},
        {"objects", false, true, call_objects, s},
        {"verify-object", true, true, call_verify_object, s},
        {"verify-cancel", true, true, call_verify_cancel, s},
    };
    _Static_assert(ARRAY_LEN(table) <= STORE_CALLS_MAX, "room for all calls");
    memcpy(calls, table, sizeof table);
    return ARRAY_LEN(table);
}

void store_calls_stop(struct store_calls *s)
{
    atomic_store(&s->stopping, true);
    pthread_mutex_lock(&s->pass_lock);
    if (s->pass != NULL)
        verify_cancel(s->pass);
    pthread_mutex_unlock(&s->pass_lock);
}

void store_calls_free(struct store_calls *s)
{
    if (s == NULL)
        return;
    verify_join(s->pass);
    pthread_mutex_destroy(&s->pass_lock);
    pthread_mutex_destroy(&s->found_lock);
    mem_free(s);
}
