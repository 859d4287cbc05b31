/* larder ls and larder du: what is in the store of a running server. Lists come in pages and are printed as one. */
#include <stdio.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/people.h"

#define PREFIX_MAX 600
#define QUERY_MAX  4096 /* a prefix, encoded, and a place in the list */

struct rows {
    size_t keys;
    struct output_value *values;
    size_t n, cap; /* rows */
};

/* A new row, empty. */
static struct output_value *add_row(struct rows *r)
{
    if (r->n == r->cap) {
        r->cap = r->cap == 0 ? 64 : 2 * r->cap;
        r->values = mem_realloc(r->values, r->cap * r->keys * sizeof *r->values);
    }
    struct output_value *v = &r->values[r->n++ * r->keys];
    memset(v, 0, r->keys * sizeof *v);
    return v;
}

/* ---- ls ---- */

enum { TABLE_KEYS = 8, WHOLE_KEYS = 20 };

static const char *const table_keys[TABLE_KEYS] = {"image",  "digest", "size", "complete",
                                                   "stored", "used",   "hits", "pinned"};
static const char *const whole_keys[WHOLE_KEYS] = {
    "repository", "tag",          "digest", "media_type", "rule",      "name",
    "checked",    "here",         "kind",   "complete",   "manifests", "manifests_complete",
    "objects",    "objects_here", "bytes",  "bytes_here", "stored",    "used",
    "hits",       "pinned"};

struct listing {
    struct ask ask;
    struct rows rows;
    struct map seen; /* "REPOSITORY@DIGEST" of tags */
};

/* Of all its platforms, when there are several. */
static struct output_value complete_words(struct ask *a, const json_t *o)
{
    int64_t all = ask_int(o, "manifests"), complete = ask_int(o, "complete");
    if (!json_is_true(json_object_get(o, "here")))
        return (struct output_value){.text = SPAN("no")};
    if (!json_is_true(json_object_get(o, "known")))
        return (struct output_value){.text = SPAN("not known")};
    if (complete == all)
        return (struct output_value){.text = SPAN("yes")};
    if (all == 1)
        return (struct output_value){.text = SPAN("no")};
    return ask_words(a, "%lld of %lld", (long long)complete, (long long)all);
}

static struct output_value complete_bool(const json_t *o)
{
    bool known = json_is_true(json_object_get(o, "known"));
    if (json_is_true(json_object_get(o, "here")) && !known)
        return (struct output_value){.text = SPAN_NONE};
    bool yes = known && ask_int(o, "complete") == ask_int(o, "manifests");
    return (struct output_value){.text = yes ? SPAN("true") : SPAN("false"), .bare = true};
}

static void table_row(struct ask *a, const json_t *o, struct output_value *v)
{
    const char *repo = json_string_value(json_object_get(o, "repository"));
    const char *tag = json_string_value(json_object_get(o, "tag"));
    const char *digest = json_string_value(json_object_get(o, "digest"));
    v[0] = ask_words(a, "%s%s%s", repo, tag != NULL ? ":" : "@", tag != NULL ? tag : digest);
    v[1] = ask_digest(a, o, "digest");
    v[2] = ask_size(a, o, "bytes_here");
    v[3] = complete_words(a, o);
    v[4] = ask_moment(a, o, "stored_ms");
    v[5] = ask_moment(a, o, "access_ms");
    v[6] = ask_number(a, o, "hits");
    v[7] = ask_bool(a, o, "pinned");
}

static void whole_row(struct ask *a, const json_t *o, struct output_value *v)
{
    static const char *const texts[] = {"repository", "tag", "digest", "media_type", "rule", "name"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        v[i] = ask_copy(a, o, texts[i]);
    v[6] = ask_moment(a, o, "checked_ms");
    v[7] = ask_bool(a, o, "here");
    v[8] = ask_copy(a, o, "kind");
    v[9] = complete_bool(o);
    v[10] = ask_number(a, o, "manifests");
    v[11] = ask_number(a, o, "complete");
    v[12] = ask_number(a, o, "objects");
    v[13] = ask_number(a, o, "objects_here");
    v[14] = ask_number(a, o, "bytes");
    v[15] = ask_number(a, o, "bytes_here");
    v[16] = ask_moment(a, o, "stored_ms");
    v[17] = ask_moment(a, o, "access_ms");
    v[18] = ask_number(a, o, "hits");
    v[19] = ask_bool(a, o, "pinned");
}

static struct span place_of(struct listing *l, const json_t *o)
{
    return ask_words(&l->ask, "%s@%s", json_string_value(json_object_get(o, "repository")),
                     json_string_value(json_object_get(o, "digest")))
        .text;
}

/* Tags are remembered; manifests that a tag of their repository names are left out, and what several accounts have of one tag is told once. */
static void add_entry(struct listing *l, const json_t *o, bool tags)
{
    struct span place = place_of(l, o);
    bool seen = map_get(&l->seen, place) != NULL;
    if (!seen)
        map_put(&l->seen, place, l);
    if (tags) {
        place =
            ask_words(&l->ask, "%s:%.*s", json_string_value(json_object_get(o, "tag")), SPAN_ARG(place)).text;
        seen = map_get(&l->seen, place) != NULL;
        if (!seen)
            map_put(&l->seen, place, l);
    }
    if (seen)
        return;
    struct output_value *v = add_row(&l->rows);
    if (l->ask.table)
        table_row(&l->ask, o, v);
    else
        whole_row(&l->ask, o, v);
}

static bool list_pages(struct listing *l, const char *name)
{
    char first[QUERY_MAX], text[QUERY_MAX];
    struct str start = STR_INIT(first), query = STR_INIT(text);
    if (l->ask.args->arguments[0] != NULL)
        call_add(&start, "prefix", span_str(l->ask.args->arguments[0]));
    str_add(&query, str_span(&start));
    for (bool more = true; more;) {
        json_t *page = ask_look(&l->ask, name, str_span(&query));
        if (page == NULL)
            return false;
        json_t *list = json_object_get(page, name);
        for (size_t i = 0; i < json_array_size(list); i++)
            add_entry(l, json_array_get(list, i), strcmp(name, "tags") == 0);
        more = ask_next(page, first, &query);
        json_decref(page);
    }
    return true;
}

int run_ls(const struct command_args *args)
{
    if (args->arguments[0] != NULL && strlen(args->arguments[0]) > PREFIX_MAX)
        return command_usage(args->command, "PREFIX is longer than any name");
    struct listing l = {.rows = {.keys = 0}};
    bool ok = ask_begin(&l.ask, args);
    map_init(&l.seen);
    l.rows.keys = l.ask.table ? TABLE_KEYS : WHOLE_KEYS;
    ok = ok && list_pages(&l, "tags");
    if (args->option[OPT_ALL] != NULL)
        ok = ok && list_pages(&l, "images");
    if (ok)
        output_rows(args->option[OPT_OUTPUT], l.ask.table ? table_keys : whole_keys, l.rows.keys,
                    l.rows.values, l.rows.n, false);
    mem_free(l.rows.values);
    map_free(&l.seen);
    ask_end(&l.ask);
    return ok ? 0 : 1;
}

/* ---- du ---- */

enum { USAGE_KEYS = 5 };

static const char *const usage_keys[USAGE_KEYS] = {"what", "name", "objects", "bytes", "shared_bytes"};
static const char *const usage_table_keys[USAGE_KEYS] = {"what", "name", "objects", "size", "shared"};

static void usage_row(struct ask *a, struct rows *rows, const char *what, const json_t *o,
                      const char *objects, const char *bytes)
{
    struct output_value *v = add_row(rows);
    v[0].text = span_str(what);
    v[1] = ask_copy(a, o, "name");
    if (objects != NULL)
        v[2] = ask_number(a, o, objects);
    v[3] = ask_size(a, o, bytes);
    v[4] = ask_size(a, o, "shared_bytes");
}

static void usage_totals(struct ask *a, struct rows *rows, json_t *page)
{
    int64_t objects = ask_int(page, "objects") - ask_int(page, "linked_objects");
    int64_t bytes = ask_int(page, "bytes") - ask_int(page, "linked_bytes");
    if (objects > 0 && bytes >= 0) {
        json_object_set_new(page, "loose", json_integer((json_int_t)objects));
        json_object_set_new(page, "loose_bytes", json_integer((json_int_t)bytes));
        usage_row(a, rows, "no repository", page, "loose", "loose_bytes");
    }
    usage_row(a, rows, "all objects", page, "objects", "bytes");
    usage_row(a, rows, "partial", page, "partials", "partial_bytes");
    usage_row(a, rows, "quarantine", page, "quarantined", "quarantined_bytes");
    usage_row(a, rows, "used", page, NULL, "used");
    if (ask_int(page, "max_size") > 0)
        usage_row(a, rows, "limit", page, NULL, "max_size");
}

static bool usage_pages(struct ask *a, struct rows *rows, const char *by)
{
    char first[64], text[QUERY_MAX];
    struct str start = STR_INIT(first), query = STR_INIT(text);
    call_add(&start, "by", span_str(by));
    str_add(&query, str_span(&start));
    for (bool more = true; more;) {
        json_t *page = ask_look(a, "usage", str_span(&query));
        if (page == NULL)
            return false;
        json_t *groups = json_object_get(page, "groups");
        for (size_t i = 0; i < json_array_size(groups); i++) {
            json_t *g = json_array_get(groups, i);
            bool named = json_is_string(json_object_get(g, "name"));
            usage_row(a, rows, named ? by : "no rule", g, "objects", "bytes");
        }
        more = ask_next(page, first, &query);
        if (!more)
            usage_totals(a, rows, page);
        json_decref(page);
    }
    return true;
}

int run_du(const struct command_args *args)
{
    struct ask a;
    struct rows rows = {.keys = USAGE_KEYS};
    const char *by = args->option[OPT_BY] != NULL ? args->option[OPT_BY] : "rule";
    bool ok = ask_begin(&a, args) && usage_pages(&a, &rows, by);
    if (ok)
        output_rows(args->option[OPT_OUTPUT], a.table ? usage_table_keys : usage_keys, USAGE_KEYS,
                    rows.values, rows.n, false);
    mem_free(rows.values);
    ask_end(&a);
    return ok ? 0 : 1;
}
