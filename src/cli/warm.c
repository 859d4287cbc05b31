/* larder warm: a running server fetches images that nobody has asked for yet.
 *
 * One after the other. Each is a piece of work on the server: it is started, looked at until it has ended, and cancelled by Ctrl-C, after
 * which no other one is begun. An image that fails has its sentence on standard error, and the others go on; only without a server there is
 * no sense in going on. What was begun has a row in the output, in the order given. */
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/image_rule.h"
#include "cli/people.h"
#include "registry/platform.h"

#define LOOK_FIRST_MS 10 /* what is here already ends at once */
#define LOOK_MS       200
#define QUERY_MAX     4096
#define COLUMNS       80 /* of a terminal that does not say */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
    UNUSED(signum);
    interrupted = 1;
}

/* ---- what is said ---- */

static void show_progress(const char *image, const json_t *o)
{
    char text[1024];
    struct str line = STR_INIT(text);
    struct winsize size;
    if (!isatty(STDERR_FILENO))
        return;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    people_progress(&line, span_str(image), (uint64_t)ask_int(o, "bytes"), (uint64_t)ask_int(o, "bytes_all"),
                    known ? size.ws_col - 1u : COLUMNS - 1u);
    fprintf(stderr, "\r\033[K%s", text);
}

static void end_progress(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

enum { TABLE_KEYS = 7, WHOLE_KEYS = 10 };

static const char *const table_keys[TABLE_KEYS] = {"image", "digest", "state",  "manifests",
                                                   "blobs", "size",   "fetched"};
static const char *const whole_keys[WHOLE_KEYS] = {"image",   "digest",       "state", "manifests",
                                                   "blobs",   "blobs_all",    "bytes", "bytes_all",
                                                   "fetched", "fetched_bytes"};

struct warming {
    struct ask ask;
    size_t keys;
    struct output_value *values;
    size_t n;   /* images that were begun: rows */
    size_t bad; /* those of them that are not whole */
};

static struct output_value blobs_words(struct ask *a, const json_t *o)
{
    int64_t here = ask_int(o, "blobs"), all = ask_int(o, "blobs_all");
    return here == all ? ask_number(a, o, "blobs")
                       : ask_words(a, "%lld of %lld", (long long)here, (long long)all);
}

/* o: the last that the server said of it; NULL: nothing. */
static void add_row(struct warming *w, const char *image, const char *state, const json_t *o)
{
    struct ask *a = &w->ask;
    struct output_value *v = &w->values[w->n++ * w->keys];
    v[0].text = span_str(image);
    v[1] = ask_digest(a, o, "digest");
    v[2] = ask_words(a, "%s", state);
    if (a->table) {
        v[3] = ask_number(a, o, "manifests");
        if (o != NULL)
            v[4] = blobs_words(a, o);
        v[5] = ask_size(a, o, "bytes");
        v[6] = ask_size(a, o, "fetched_bytes");
        return;
    }
    for (size_t i = 3; i < WHOLE_KEYS; i++)
        v[i] = ask_number(a, o, whole_keys[i]);
}

/* ---- one image ---- */

static bool is_state(const json_t *o, const char *state)
{
    const char *is = json_string_value(json_object_get(o, "state"));
    return is != NULL && strcmp(is, state) == 0;
}

/* Until it has ended: the last that the server said of it, or NULL. */
static json_t *follow(struct ask *a, int64_t id)
{
    char text[64];
    struct str query = STR_INIT(text);
    bool told = false;
    long pause = LOOK_FIRST_MS;
    str_addf(&query, "id=%lld", (long long)id);
    for (;;) {
        json_t *o = ask_look(a, "warm", str_span(&query));
        if (o == NULL || !is_state(o, "running"))
            return o;
        show_progress(a->about, o);
        json_decref(o);
        if (interrupted && !told) {
            told = true;
            json_decref(ask_order(a, "warm-cancel", str_span(&query)));
        }
        nanosleep(&(struct timespec){.tv_nsec = pause * 1000000L}, NULL);
        pause = 2 * pause < LOOK_MS ? 2 * pause : LOOK_MS;
    }
}

/* The answer to warm-start; NULL: refused, or no server, which has been said. */
static json_t *start(struct ask *a, const char *text)
{
    char buf[QUERY_MAX];
    struct str query = STR_INIT(buf);
    struct image_rule image;
    const char *platforms = a->args->option[OPT_PLATFORM];
    MUST(image_rule_parse(&image, span_str(text)));
    if (!image_rule_find(&image, a->conf)) {
        fprintf(stderr,
                "larder: %s: no rule is for '" SPAN_FMT
                "'; 'larder cache list' shows the rules, 'larder cache create' adds one\n",
                text, SPAN_ARG(image.image.repository));
        return NULL;
    }
    image_rule_add(&image, &query);
    if (platforms != NULL)
        call_add(&query, "platforms", span_str(platforms));
    return ask_order(a, "warm-start", str_span(&query));
}

static void say_end(const char *text, const json_t *o)
{
    const char *error = json_string_value(json_object_get(o, "error"));
    if (is_state(o, "cancelled"))
        fprintf(stderr,
                "larder: %s: cancelled; what has arrived stays, and the next time it goes on from there\n",
                text);
    else if (!is_state(o, "done"))
        fprintf(stderr, "larder: %s: %s\n", text,
                error != NULL ? error : "it is not whole, and the server does not say why");
}

/* Without a server it has not been begun. */
static void warm_image(struct warming *w, const char *text)
{
    struct ask *a = &w->ask;
    a->about = text;
    json_t *started = start(a, text);
    if (a->absent)
        return;
    json_t *o = started != NULL ? follow(a, ask_int(started, "id")) : NULL;
    end_progress();
    if (o != NULL)
        say_end(text, o);
    add_row(w, text, is_state(o, "done") ? "done" : is_state(o, "cancelled") ? "cancelled" : "failed", o);
    w->bad += !is_state(o, "done");
    json_decref(started);
    json_decref(o);
}

/* ---- all of them ---- */

/* 0, or the exit code. */
static int check_platforms(const struct command_args *args)
{
    struct span list = span_str(args->option[OPT_PLATFORM]), wrong;
    struct platform platforms[PLATFORMS_MAX];
    if (list.p == NULL || span_eq(list, SPAN("all")))
        return 0;
    if (list.n == 0)
        return command_usage(args->command,
                             "--platform is empty; write it as in linux/amd64,linux/arm64, or just 'all'");
    if (list.n > PLATFORMS_TEXT_MAX)
        return command_usage(args->command,
                             "--platform has more than %d characters; with 'all' it is every one",
                             PLATFORMS_TEXT_MAX);
    size_t n = platforms_parse(list, platforms, &wrong);
    if (n == 0)
        return command_usage(args->command,
                             "'" SPAN_FMT
                             "' is no platform; write it as in linux/amd64,linux/arm/v7, or just 'all'",
                             SPAN_ARG(wrong));
    if (n > PLATFORMS_MAX)
        return command_usage(
            args->command,
            "--platform takes at most %d platforms, and here are %zu; with 'all' it is every one",
            PLATFORMS_MAX, n);
    return 0;
}

static int check_images(const struct command_args *args)
{
    struct image_rule image;
    struct digest d;
    for (size_t i = 0; i < args->n_arguments; i++) {
        struct span text = span_str(args->arguments[i]);
        if (digest_parse(text, &d) == DIGEST_OK || !image_rule_parse(&image, text))
            return command_usage(args->command, "%s is no image; write it as in t/app:v1 or t/app@sha256:...",
                                 args->arguments[i]);
    }
    return 0;
}

static int warm_all(struct warming *w)
{
    const struct command_args *args = w->ask.args;
    size_t all = args->n_arguments;
    w->keys = w->ask.table ? TABLE_KEYS : WHOLE_KEYS;
    w->values = mem_zalloc(all * w->keys * sizeof *w->values);
    while (w->n < all && !interrupted && !w->ask.absent)
        warm_image(w, args->arguments[w->n]);
    if (w->n > 0)
        output_rows(args->option[OPT_OUTPUT], w->ask.table ? table_keys : whole_keys, w->keys, w->values,
                    w->n, false);
    if (w->n > 0 && w->n < all)
        fprintf(stderr, "larder: %zu of %zu images were not begun, from %s on\n", all - w->n, all,
                args->arguments[w->n]);
    mem_free(w->values);
    return w->n == all && w->bad == 0 && !interrupted ? 0 : 1;
}

int run_warm(const struct command_args *args)
{
    struct warming w = {0};
    int code = check_images(args);
    if (code == 0)
        code = check_platforms(args);
    if (code != 0)
        return code;
    /* The second Ctrl-C ends the command at once, should the server not answer. */
    struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = (int)(SA_RESTART | SA_RESETHAND)};
    (void)sigaction(SIGINT, &act, NULL);
    code = ask_begin_rules(&w.ask, args) ? warm_all(&w) : 1;
    ask_end(&w.ask);
    return code;
}
