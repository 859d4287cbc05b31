/* See ask.h. */
#include "cli/ask.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cli/config_file.h"
#include "cli/people.h"

#define ANSWER_S     3600 /* an order on a large store takes its time */
#define DIGITS_SHOWN 12

static void begin(struct ask *a, const struct command_args *args)
{
    const char *format = args->option[OPT_OUTPUT];
    *a = (struct ask){.args = args, .arena = arena_new(), .now_ms = clock_wall_ms()};
    a->table = format == NULL || strcmp(format, "table") == 0;
}

bool ask_begin(struct ask *a, const struct command_args *args)
{
    begin(a, args);
    a->conf = config_read_admin(config_path(args->option[OPT_CONFIG]));
    return a->conf != NULL;
}

bool ask_begin_rules(struct ask *a, const struct command_args *args)
{
    struct config_warnings warnings;
    begin(a, args);
    a->conf = config_read(config_path(args->option[OPT_CONFIG]), &warnings);
    return a->conf != NULL;
}

void ask_end(struct ask *a)
{
    conf_unref(a->conf);
    arena_free(a->arena);
}

static json_t *ask(struct ask *a, bool order, const char *name, struct span query)
{
    char *answer;
    size_t n;
    json_t *json = NULL;
    enum call_outcome outcome = call_admin(a->conf, order, name, query, ANSWER_S, &answer, &n);
    a->absent = outcome == CALL_ABSENT;
    if (outcome == CALL_ANSWERED) {
        json = json_loadb(answer, n, 0, NULL);
        if (json == NULL)
            fprintf(stderr, "larder: the server's answer is not understood; is it of another version?\n");
    } else if (outcome == CALL_REFUSED) {
        bool about = a->about != NULL;
        fprintf(stderr, "larder: %s%s%s\n", about ? a->about : "", about ? ": " : "", answer);
    } else {
        fprintf(
            stderr,
            "larder: %s; start it with 'larder serve', name the configuration of the one that runs with -f "
            "FILE, or restart it if admin.address was changed\n",
            answer);
    }
    mem_free(answer);
    return json;
}

json_t *ask_look(struct ask *a, const char *name, struct span query)
{
    return ask(a, false, name, query);
}

json_t *ask_order(struct ask *a, const char *name, struct span query)
{
    return ask(a, true, name, query);
}

bool ask_next(const json_t *page, const char *first_query, struct str *query)
{
    const char *next = json_string_value(json_object_get(page, "next"));
    if (next == NULL)
        return false;
    str_reset(query);
    str_addz(query, first_query);
    call_add(query, "after", span_str(next));
    return true;
}

/* ---- values ---- */

struct output_value ask_text(const json_t *o, const char *key)
{
    return (struct output_value){.text = span_str(json_string_value(json_object_get(o, key)))};
}

struct output_value ask_copy(struct ask *a, const json_t *o, const char *key)
{
    struct output_value v = ask_text(o, key);
    if (v.text.p != NULL)
        v.text = arena_span(a->arena, v.text);
    return v;
}

struct output_value ask_digest(struct ask *a, const json_t *o, const char *key)
{
    struct span text = ask_text(o, key).text;
    if (a->table && text.p != NULL)
        text = span_sub(text, 0, (size_t)(span_find(text, ':') + 1) + DIGITS_SHOWN);
    return (struct output_value){.text = text.p != NULL ? arena_span(a->arena, text) : text};
}

struct output_value ask_words(struct ask *a, const char *fmt, ...)
{
    char buf[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    return (struct output_value){.text = arena_span(a->arena, span_str(buf))};
}

int64_t ask_int(const json_t *o, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(o, key));
}

struct output_value ask_number(struct ask *a, const json_t *o, const char *key)
{
    if (!json_is_integer(json_object_get(o, key)))
        return (struct output_value){.text = SPAN_NONE};
    struct output_value v = ask_words(a, "%lld", (long long)ask_int(o, key));
    v.bare = true;
    return v;
}

struct output_value ask_bool(struct ask *a, const json_t *o, const char *key)
{
    const json_t *is = json_object_get(o, key);
    if (!json_is_boolean(is))
        return (struct output_value){.text = SPAN_NONE};
    if (a->table)
        return (struct output_value){.text = json_is_true(is) ? SPAN("yes") : SPAN("no")};
    return (struct output_value){.text = json_is_true(is) ? SPAN("true") : SPAN("false"), .bare = true};
}

struct output_value ask_size(struct ask *a, const json_t *o, const char *key)
{
    char buf[32];
    struct str s = STR_INIT(buf);
    if (!a->table || !json_is_integer(json_object_get(o, key)))
        return ask_number(a, o, key);
    people_size(&s, (uint64_t)ask_int(o, key));
    return ask_words(a, "%s", buf);
}

struct output_value ask_moment(struct ask *a, const json_t *o, const char *key)
{
    char buf[40];
    struct str s = STR_INIT(buf);
    int64_t ms = ask_int(o, key);
    if (ms == 0)
        return (struct output_value){.text = SPAN_NONE};
    if (a->table)
        people_age(&s, a->now_ms - ms);
    else
        clock_add_rfc3339(&s, ms);
    return ask_words(a, "%s", buf);
}
