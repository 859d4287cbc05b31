/* larder purge, pin, unpin and gc: orders to a running server. */
#include <stdio.h>

#include "base/digest.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/people.h"
#include "registry/image.h"

#define QUERY_MAX 4096

/* 0, or the exit code. */
static int check_image(const struct command_args *args)
{
    struct span text = span_str(args->arguments[0]);
    struct image_name image;
    struct digest d;
    if (digest_parse(text, &d) == DIGEST_OK || image_parse(text, &image))
        return 0;
    return command_usage(args->command,
                         "%s is no image; write it as in t/app:v1, t/app@sha256:... or sha256:...",
                         args->arguments[0]);
}

/* ---- pins ---- */

enum { PIN_KEYS = 5, PINS_KEYS = 4 };

static const char *const pin_keys[PIN_KEYS] = {"repository", "tag", "digest", "here", "bytes"};
static const char *const pin_table_keys[PIN_KEYS] = {"repository", "tag", "digest", "here", "size"};
static const char *const pins_keys[PINS_KEYS] = {"repository", "tag", "digest", "since"};

static int change_pin(const struct command_args *args, const char *order)
{
    char text[QUERY_MAX];
    struct str query = STR_INIT(text);
    struct ask a;
    int code = check_image(args);
    if (code != 0)
        return code;
    call_add(&query, "image", span_str(args->arguments[0]));
    json_t *o = ask_begin(&a, args) ? ask_order(&a, order, str_span(&query)) : NULL;
    if (o != NULL) {
        struct output_value values[PIN_KEYS] = {ask_text(o, "repository"), ask_text(o, "tag"),
                                                ask_text(o, "digest"), ask_bool(&a, o, "here"),
                                                ask_size(&a, o, "bytes")};
        output_rows(args->option[OPT_OUTPUT], a.table ? pin_table_keys : pin_keys, PIN_KEYS, values, 1, true);
    }
    code = o != NULL ? 0 : 1;
    json_decref(o);
    ask_end(&a);
    return code;
}

static void add_pins(struct ask *a, const json_t *pins, struct output_value **values, size_t *n)
{
    size_t more = json_array_size(pins);
    *values = mem_realloc(*values, (*n + more + 1) * PINS_KEYS * sizeof **values);
    for (size_t i = 0; i < more; i++) {
        const json_t *o = json_array_get(pins, i);
        struct output_value *v = &(*values)[(*n)++ * PINS_KEYS];
        v[0] = ask_copy(a, o, "repository");
        v[1] = ask_copy(a, o, "tag");
        v[2] = ask_copy(a, o, "digest");
        v[3] = ask_moment(a, o, "since_ms");
    }
}

static int list_pins(const struct command_args *args)
{
    char text[QUERY_MAX];
    struct str query = STR_INIT(text);
    struct ask a;
    struct output_value *values = NULL;
    size_t n = 0;
    bool ok = ask_begin(&a, args), more = ok;
    while (more) {
        json_t *page = ask_look(&a, "pins", str_span(&query));
        ok = page != NULL;
        if (ok)
            add_pins(&a, json_object_get(page, "pins"), &values, &n);
        more = ok && ask_next(page, "", &query);
        json_decref(page);
    }
    if (ok)
        output_rows(args->option[OPT_OUTPUT], pins_keys, PINS_KEYS, values, n, false);
    mem_free(values);
    ask_end(&a);
    return ok ? 0 : 1;
}

int run_pin(const struct command_args *args)
{
    bool list = args->option[OPT_LIST] != NULL;
    if (list == (args->arguments[0] != NULL))
        return command_usage(args->command, "pin needs IMAGE or --list%s", list ? ", not both" : "");
    return list ? list_pins(args) : change_pin(args, "pin");
}

int run_unpin(const struct command_args *args)
{
    return change_pin(args, "unpin");
}

/* ---- purge ---- */

enum { PURGE_KEYS = 5 };

static const char *const purge_keys[PURGE_KEYS] = {"tags", "links", "objects", "bytes", "pinned"};
static const char *const purge_table_keys[PURGE_KEYS] = {"tags", "links", "objects", "size", "pinned"};

static int check_purge(const struct command_args *args)
{
    struct image_name image;
    struct digest d;
    const char *rule = args->option[OPT_RULE];
    if ((rule != NULL) == (args->arguments[0] != NULL))
        return command_usage(args->command, "purge needs IMAGE, DIGEST or --rule NAME%s",
                             rule != NULL ? ", not both" : "");
    int code = rule != NULL ? 0 : check_image(args);
    if (code != 0 || rule != NULL || digest_parse(span_str(args->arguments[0]), &d) == DIGEST_OK)
        return code;
    if (image_parse(span_str(args->arguments[0]), &image) && image.reference.p == NULL)
        return command_usage(args->command,
                             "%s has no tag and no digest; write which one is meant, as in %s:latest",
                             args->arguments[0], args->arguments[0]);
    return 0;
}

int run_purge(const struct command_args *args)
{
    char text[QUERY_MAX];
    struct str query = STR_INIT(text);
    struct ask a;
    int code = check_purge(args);
    if (code != 0)
        return code;
    if (args->arguments[0] != NULL)
        call_add(&query, "image", span_str(args->arguments[0]));
    else
        call_add(&query, "rule", span_str(args->option[OPT_RULE]));
    if (args->option[OPT_FORCE] != NULL)
        call_add(&query, "force", SPAN("1"));
    json_t *o = ask_begin(&a, args) ? ask_order(&a, "purge", str_span(&query)) : NULL;
    if (o != NULL) {
        struct output_value values[PURGE_KEYS] = {ask_number(&a, o, "tags"), ask_number(&a, o, "links"),
                                                  ask_number(&a, o, "objects"), ask_size(&a, o, "bytes"),
                                                  ask_number(&a, o, "pinned")};
        output_rows(args->option[OPT_OUTPUT], a.table ? purge_table_keys : purge_keys, PURGE_KEYS, values, 1,
                    true);
        if (ask_int(o, "pinned") > 0)
            fputs("larder: what is pinned stays; --force purges it, too\n", stderr);
    }
    code = o != NULL ? 0 : 1;
    json_decref(o);
    ask_end(&a);
    return code;
}

/* ---- gc ---- */

enum { GC_KEYS = 5 };

static const char *const gc_keys[GC_KEYS] = {"evicted", "evicted_bytes", "freed_bytes", "objects", "used"};
static const char *const gc_table_keys[GC_KEYS] = {"evicted", "evicted size", "freed", "objects", "used"};

int run_gc(const struct command_args *args)
{
    struct ask a;
    json_t *o = ask_begin(&a, args) ? ask_order(&a, "gc", SPAN("")) : NULL;
    if (o != NULL) {
        struct output_value values[GC_KEYS] = {ask_number(&a, o, "evicted"), ask_size(&a, o, "evicted_bytes"),
                                               ask_size(&a, o, "freed_bytes"), ask_number(&a, o, "objects"),
                                               ask_size(&a, o, "used")};
        output_rows(args->option[OPT_OUTPUT], a.table ? gc_table_keys : gc_keys, GC_KEYS, values, 1, true);
    }
    int code = o != NULL ? 0 : 1;
    json_decref(o);
    ask_end(&a);
    return code;
}
