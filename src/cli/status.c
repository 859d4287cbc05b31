/* larder status: how a running server is. For people a list of lines, for programs one object. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/ask.h"
#include "cli/people.h"

enum { LINES_MAX = 20 };

/* ---- for people ---- */

struct lines {
    struct ask *ask;
    const json_t *o;
    struct output_value values[LINES_MAX * 2];
    size_t n;
};

static void add_line(struct lines *l, const char *what, struct output_value value)
{
    MUST(l->n < LINES_MAX);
    l->values[l->n * 2].text = span_str(what);
    l->values[l->n * 2 + 1] = value;
    l->n++;
}

static const char *size_of(struct lines *l, const char *key)
{
    return ask_size(l->ask, l->o, key).text.p;
}

static void add_list(struct lines *l, const char *what, const char *key)
{
    char buf[1024];
    struct str s = STR_INIT(buf);
    const json_t *list = json_object_get(l->o, key);
    for (size_t i = 0; i < json_array_size(list); i++)
        str_addf(&s, "%s%s", i > 0 ? ", " : "", json_string_value(json_array_get(list, i)));
    add_line(l, what,
             s.n > 0 ? ask_words(l->ask, "%s%s", buf, s.cut ? "..." : "")
                     : (struct output_value){.text = SPAN("none")});
}

static void add_pool(struct lines *l)
{
    struct ask *a = l->ask;
    const json_t *o = l->o;
    const char *store = json_string_value(json_object_get(o, "store"));
    const char *error = json_string_value(json_object_get(o, "store_error"));
    if (error != NULL)
        add_line(l, "store",
                 ask_words(a, "%s for %s: %s", store, ask_moment(a, o, "store_since_ms").text.p, error));
    else
        add_line(l, "store", ask_words(a, "%s", store));
    add_line(l, "objects", ask_words(a, "%lld, %s", (long long)ask_int(o, "objects"), size_of(l, "bytes")));
    add_line(l, "partial",
             ask_words(a, "%lld, %s", (long long)ask_int(o, "partials"), size_of(l, "partial_bytes")));
    add_line(l, "quarantine",
             ask_words(a, "%lld, %s", (long long)ask_int(o, "quarantined"), size_of(l, "quarantined_bytes")));
    add_line(l, "used", ask_size(a, o, "used"));
    add_line(l, "evicted since start",
             ask_words(a, "%lld, %s", (long long)ask_int(o, "evicted"), size_of(l, "evicted_bytes")));
    add_line(l, "scrubbed in this round",
             ask_words(a, "%lld, %s; damaged: %lld", (long long)ask_int(o, "scrub_objects"),
                       size_of(l, "scrub_bytes"), (long long)ask_int(o, "scrub_damaged")));
}

static void print_lines(struct ask *a, const json_t *o)
{
    static const char *const titles[] = {"what", "value"};
    struct lines *l;
    NEW(l);
    l->ask = a;
    l->o = o;
    bool good = json_is_true(json_object_get(o, "config_good"));
    const char *error = json_string_value(json_object_get(o, "config_error"));
    add_line(l, "version", ask_text(o, "version"));
    add_line(l, "up for", ask_moment(a, o, "started_ms"));
    if (json_is_true(json_object_get(o, "stopping")))
        add_line(l, "stopping", (struct output_value){.text = SPAN("answers under way may finish")});
    add_line(l, "workers", ask_number(a, o, "workers"));
    add_line(l, "configuration",
             good ? ask_words(a, "taken %s ago", ask_moment(a, o, "config_taken_ms").text.p)
                  : ask_words(a, "the file is not in force: %s", error));
    add_pool(l);
    add_line(l, "connections", ask_number(a, o, "connections"));
    add_line(l, "fetches",
             ask_words(a, "%lld, for %lld clients", (long long)ask_int(o, "fetches"),
                       (long long)ask_int(o, "fetch_readers")));
    add_list(l, "upstreams down", "upstreams_down");
    add_list(l, "unhealthy credential sets", "credential_sets_unhealthy");
    output_rows(NULL, titles, 2, l->values, l->n, false);
    mem_free(l);
}

/* ---- for programs ---- */

enum how { TEXT, NUMBER, BOOL, MOMENT, LIST };

struct field {
    const char *key, *from;
    enum how how;
};

static const struct field fields[] = {
    {"version", "version", TEXT},
    {"started", "started_ms", MOMENT},
    {"workers", "workers", NUMBER},
    {"stopping", "stopping", BOOL},
    {"config_good", "config_good", BOOL},
    {"config_taken", "config_taken_ms", MOMENT},
    {"config_error", "config_error", TEXT},
    {"store", "store", TEXT},
    {"store_since", "store_since_ms", MOMENT},
    {"store_failures", "store_failures", NUMBER},
    {"store_error", "store_error", TEXT},
    {"objects", "objects", NUMBER},
    {"bytes", "bytes", NUMBER},
    {"partials", "partials", NUMBER},
    {"partial_bytes", "partial_bytes", NUMBER},
    {"quarantined", "quarantined", NUMBER},
    {"quarantined_bytes", "quarantined_bytes", NUMBER},
    {"used", "used", NUMBER},
    {"evicted", "evicted", NUMBER},
    {"evicted_bytes", "evicted_bytes", NUMBER},
    {"scrub_objects", "scrub_objects", NUMBER},
    {"scrub_bytes", "scrub_bytes", NUMBER},
    {"scrub_damaged", "scrub_damaged", NUMBER},
    {"scrub_rounds", "scrub_rounds", NUMBER},
    {"connections", "connections", NUMBER},
    {"fetches", "fetches", NUMBER},
    {"fetch_readers", "fetch_readers", NUMBER},
    {"upstreams_down", "upstreams_down", LIST},
    {"credential_sets_unhealthy", "credential_sets_unhealthy", LIST},
};

static struct output_value list_of(struct ask *a, const json_t *o, const char *key)
{
    const json_t *list = json_object_get(o, key);
    size_t n = json_array_size(list);
    struct span *texts = arena_alloc(a->arena, (n + 1) * sizeof *texts);
    for (size_t i = 0; i < n; i++)
        texts[i] = span_str(json_string_value(json_array_get(list, i)));
    return (struct output_value){.list = texts, .n = n};
}

static void print_fields(struct ask *a, const json_t *o)
{
    const char *names[ARRAY_LEN(fields)];
    struct output_value values[ARRAY_LEN(fields)];
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        const struct field *f = &fields[i];
        names[i] = f->key;
        values[i] = f->how == TEXT     ? ask_text(o, f->from)
                    : f->how == NUMBER ? ask_number(a, o, f->from)
                    : f->how == BOOL   ? ask_bool(a, o, f->from)
                    : f->how == MOMENT ? ask_moment(a, o, f->from)
                                       : list_of(a, o, f->from);
    }
    output_rows(a->args->option[OPT_OUTPUT], names, ARRAY_LEN(fields), values, 1, true);
}

int run_status(const struct command_args *args)
{
    struct ask a;
    json_t *o = ask_begin(&a, args) ? ask_look(&a, "status", SPAN("")) : NULL;
    if (o != NULL && a.table)
        print_lines(&a, o);
    else if (o != NULL)
        print_fields(&a, o);
    int code = o != NULL ? 0 : 1;
    json_decref(o);
    ask_end(&a);
    return code;
}
