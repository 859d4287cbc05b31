/* larder verify: a running server reads its store, and compares.
 *
 * The whole store is a pass on the server: it is started, looked at until it has ended, and cancelled by Ctrl-C. An image is verified object by
 * object, each by an order of its own; Ctrl-C ends it between two of them. */
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/people.h"
#include "registry/image.h"

#define LOOK_MS   200
#define QUERY_MAX 4096

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
    UNUSED(signum);
    interrupted = 1;
}

/* What has been found so far, of a pass or of an image. */
struct result {
    int64_t objects, objects_all, bytes, bytes_all, missing, damaged, failed;
    bool cancelled;
    struct span *found; /* digests */
    size_t n_found, cap_found;
    int64_t found_more;
};

/* ---- what is said ---- */

static void show_progress(const struct result *r)
{
    char done_text[32], all_text[32];
    struct str done = STR_INIT(done_text), all = STR_INIT(all_text);
    if (!isatty(STDERR_FILENO))
        return;
    people_size(&done, (uint64_t)r->bytes);
    people_size(&all, (uint64_t)r->bytes_all);
    fprintf(stderr, "\r\033[Kverified %lld of %lld objects, %s of %s; damaged: %lld", (long long)r->objects,
            (long long)r->objects_all, done_text, all_text, (long long)(r->damaged + r->missing));
}

static void end_progress(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

static void add_found(struct ask *a, struct result *r, const char *digest, const char *what)
{
    if (r->n_found == r->cap_found) {
        r->cap_found = r->cap_found == 0 ? 16 : 2 * r->cap_found;
        r->found = mem_realloc(r->found, r->cap_found * sizeof *r->found);
    }
    r->found[r->n_found++] = arena_span(a->arena, span_str(digest));
    const char *after = strcmp(what, "damaged") == 0
                            ? "; it is in quarantine, and the next pull fetches it again"
                        : strcmp(what, "missing") == 0 ? "; the next pull fetches it again"
                                                       : "; try again later";
    fprintf(stderr, "larder: %s is %s%s\n", digest, strcmp(what, "failed") == 0 ? "not verified" : what,
            after);
}

enum { KEYS = 9 };

static const char *const keys[KEYS] = {"objects", "bytes",     "missing", "damaged",   "failed",
                                       "deep",    "cancelled", "found",   "found_more"};

static int print_result(struct ask *a, const struct result *r)
{
    bool deep = a->args->option[OPT_DEEP] != NULL;
    char size_text[32];
    struct str size = STR_INIT(size_text);
    const int64_t numbers[] = {r->objects, r->bytes, r->missing, r->damaged, r->failed};
    struct output_value values[KEYS] = {0};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        values[i] = ask_words(a, "%lld", (long long)numbers[i]);
        values[i].bare = true;
    }
    people_size(&size, (uint64_t)r->bytes);
    if (a->table)
        values[1] = ask_words(a, "%s", size_text);
    values[5] = (struct output_value){.text = deep ? SPAN("true") : SPAN("false"), .bare = true};
    values[6] = (struct output_value){.text = r->cancelled ? SPAN("true") : SPAN("false"), .bare = true};
    values[7] =
        (struct output_value){.list = r->found != NULL ? r->found : &(struct span){0}, .n = r->n_found};
    values[8] = ask_words(a, "%lld", (long long)r->found_more);
    values[8].bare = true;
    output_rows(a->args->option[OPT_OUTPUT], keys, a->table ? 5 : KEYS, values, 1, true);
    if (r->found_more > 0)
        fprintf(stderr, "larder: and %lld more\n", (long long)r->found_more);
    if (r->cancelled)
        fputs("larder: cancelled; what had not been read by then is not verified\n", stderr);
    return r->missing + r->damaged + r->failed + r->found_more > 0 || r->cancelled ? 1 : 0;
}

/* ---- the whole store ---- */

static void read_progress(struct result *r, const json_t *o)
{
    r->objects = ask_int(o, "objects");
    r->objects_all = ask_int(o, "objects_all");
    r->bytes = ask_int(o, "bytes");
    r->bytes_all = ask_int(o, "bytes_all");
    r->missing = ask_int(o, "missing");
    r->damaged = ask_int(o, "damaged");
    r->failed = ask_int(o, "failed");
    r->found_more = ask_int(o, "found_more");
    r->cancelled = json_is_true(json_object_get(o, "cancelled"));
}

/* Until the pass `id` has ended: its last state, or NULL. */
static json_t *follow_pass(struct ask *a, struct result *r, int64_t id)
{
    bool told = false;
    for (;;) {
        if (interrupted && !told) {
            told = true;
            json_decref(ask_order(a, "verify-cancel", SPAN("")));
        }
        json_t *o = ask_look(a, "verify", SPAN(""));
        if (o == NULL)
            return NULL;
        if (ask_int(o, "id") != id) {
            fputs("larder: another verification has begun meanwhile\n", stderr);
            json_decref(o);
            return NULL;
        }
        read_progress(r, o);
        show_progress(r);
        if (!json_is_true(json_object_get(o, "running")))
            return o;
        json_decref(o);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    }
}

static bool verify_all(struct ask *a, struct result *r)
{
    bool deep = a->args->option[OPT_DEEP] != NULL;
    json_t *started = ask_order(a, "verify-start", deep ? SPAN("deep=1") : SPAN(""));
    if (started == NULL)
        return false;
    json_t *o = follow_pass(a, r, ask_int(started, "id"));
    end_progress();
    json_decref(started);
    json_t *found = json_object_get(o, "found");
    for (size_t i = 0; i < json_array_size(found); i++) {
        const json_t *f = json_array_get(found, i);
        add_found(a, r, json_string_value(json_object_get(f, "digest")),
                  json_string_value(json_object_get(f, "what")));
    }
    json_decref(o);
    return o != NULL;
}

/* ---- an image ---- */

static bool verify_object(struct ask *a, struct result *r, const char *digest)
{
    char text[QUERY_MAX];
    struct str query = STR_INIT(text);
    call_add(&query, "digest", span_str(digest));
    if (a->args->option[OPT_DEEP] != NULL)
        call_add(&query, "deep", SPAN("1"));
    json_t *o = ask_order(a, "verify-object", str_span(&query));
    if (o == NULL)
        return false;
    const char *what = json_string_value(json_object_get(o, "what"));
    r->objects++;
    r->bytes += ask_int(o, "bytes");
    if (what != NULL && strcmp(what, "good") != 0 && strcmp(what, "unknown") != 0) {
        int64_t *n = strcmp(what, "damaged") == 0   ? &r->damaged
                     : strcmp(what, "missing") == 0 ? &r->missing
                                                    : &r->failed;
        (*n)++;
        end_progress();
        add_found(a, r, digest, what);
    }
    json_decref(o);
    show_progress(r);
    return true;
}

/* One page of its objects. False: it cannot go on, which has been said. *more: there is another one, and the query leads to it. */
static bool verify_page(struct ask *a, struct result *r, const char *first, struct str *query, bool *more)
{
    json_t *o = ask_look(a, "objects", str_span(query));
    if (o == NULL)
        return false;
    json_t *list = json_object_get(o, "objects");
    r->objects_all = ask_int(o, "count");
    r->bytes_all = ask_int(o, "bytes");
    bool ok = true;
    for (size_t i = 0; i < json_array_size(list) && ok && !interrupted; i++)
        ok = verify_object(a, r, json_string_value(json_array_get(list, i)));
    *more = ok && !interrupted && ask_next(o, first, query);
    json_decref(o);
    return ok;
}

static bool verify_image(struct ask *a, struct result *r)
{
    char first[QUERY_MAX], text[QUERY_MAX];
    struct str start = STR_INIT(first), query = STR_INIT(text);
    bool ok = true, more = true;
    call_add(&start, "image", span_str(a->args->arguments[0]));
    str_add(&query, str_span(&start));
    while (ok && more)
        ok = verify_page(a, r, first, &query, &more);
    r->cancelled = interrupted;
    end_progress();
    return ok;
}

int run_verify(const struct command_args *args)
{
    struct image_name image;
    struct digest d;
    struct ask a;
    struct result r = {0};
    const char *text = args->arguments[0];
    if (text != NULL && digest_parse(span_str(text), &d) != DIGEST_OK && !image_parse(span_str(text), &image))
        return command_usage(args->command,
                             "%s is no image; write it as in t/app:v1, t/app@sha256:... or sha256:...", text);
    struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    (void)sigaction(SIGINT, &act, NULL);
    int code = 1;
    if (ask_begin(&a, args) && (text != NULL ? verify_image(&a, &r) : verify_all(&a, &r)))
        code = print_result(&a, &r);
    mem_free(r.found);
    ask_end(&a);
    return code;
}
