/* See secret_source.h. */
#include "proxy/secret_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/secret_mem.h"

#define FILE_MAX_BYTES   (64u << 10)
#define CONFIG_MAX_BYTES (1u << 20)
#define HELPER_MAX_BYTES (64u << 10)
#define PATH_MAX_BYTES   4096
#define HELPER_LIMIT_MS  10000
#define HELPER_LIFE_MS   (10 * 60 * 1000)
#define FRESH_MS         2000
#define NEVER            INT64_MAX

void secret_answer_clear(struct secret_answer *a)
{
    secret_free(a->room);
    *a = (struct secret_answer){0};
}

/* ---- files ---- */

static bool read_all(int fd, char *bytes, size_t size, size_t *n, struct str *why)
{
    *n = 0;
    for (;;) {
        ssize_t got = read(fd, bytes + *n, size + 1 - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            str_addz(why, strerror(errno));
            return false;
        }
        if (got == 0)
            return true;
        *n += (size_t)got;
        if (*n > size) {
            str_addz(why, "it grew while it was read");
            return false;
        }
    }
}

static char *read_open(int fd, const struct stat *st, size_t max, size_t *n, struct str *why)
{
    if (!S_ISREG(st->st_mode)) {
        str_addz(why, S_ISDIR(st->st_mode) ? "it is a directory" : "it is not a regular file");
        return NULL;
    }
    if ((uint64_t)st->st_size > max) {
        str_addf(why, "it is larger than %zu KiB", max >> 10);
        return NULL;
    }
    char *bytes = secret_alloc((size_t)st->st_size + 2);
    if (read_all(fd, bytes, (size_t)st->st_size, n, why)) {
        bytes[*n] = 0;
        return bytes;
    }
    secret_free(bytes);
    return NULL;
}

char *secret_file_read(const char *path, size_t max, size_t *n, struct stat *seen, struct str *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC |
                            O_NONBLOCK); /* a pipe that nobody writes to is refused, not waited for */
    if (fd < 0 || fstat(fd, seen) != 0) {
        str_addz(why, strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    char *bytes = read_open(fd, seen, max, n, why);
    close(fd);
    return bytes;
}

static char *source_file(struct secret_source *s, size_t max, size_t *n, struct str *why)
{
    char *bytes = secret_file_read(s->arg.p, max, n, &s->seen, why);
    int64_t written_ms = (int64_t)s->seen.st_mtim.tv_sec * 1000 + s->seen.st_mtim.tv_nsec / 1000000;
    s->fresh = bytes != NULL && clock_wall_ms() - written_ms < FRESH_MS;
    return bytes;
}

static bool unchanged(const struct secret_source *s)
{
    struct stat now;
    const struct stat *was = &s->seen;
    return s->answer.room != NULL && !s->fresh && s->failed_ms == 0 && stat(s->arg.p, &now) == 0 &&
           now.st_dev == was->st_dev && now.st_ino == was->st_ino && now.st_size == was->st_size &&
           now.st_mtim.tv_sec == was->st_mtim.tv_sec && now.st_mtim.tv_nsec == was->st_mtim.tv_nsec &&
           now.st_ctim.tv_sec == was->st_ctim.tv_sec && now.st_ctim.tv_nsec == was->st_ctim.tv_nsec;
}

/* ---- the kinds ---- */

static void take_value(struct secret_source *s, char *room, struct span value)
{
    secret_answer_clear(&s->answer);
    s->answer = (struct secret_answer){.room = room, .user = value, .password = value};
    s->due_ms = NEVER;
}

static void take_pair(struct secret_source *s, char *room, const struct docker_credentials *c)
{
    secret_answer_clear(&s->answer);
    s->answer = (struct secret_answer){
        .room = room, .user = c->user, .password = c->password, .refresh_token = c->refresh_token};
}

static void take_copy(struct secret_source *s, struct span value)
{
    char *room = secret_alloc(value.n + 1);
    memcpy(room, value.p, value.n);
    take_value(s, room, span_of(room, value.n));
}

void source_take(struct secret_source *s, struct span value, int64_t due_ms)
{
    take_copy(s, value);
    s->due_ms = due_ms;
}

static bool read_env(struct secret_source *s, struct str *why)
{
    const char *value = getenv(s->arg.p);
    if (value == NULL || value[0] == 0) {
        str_addf(why, "environment variable %s is %s: set it where larder is started", s->arg.p,
                 value == NULL ? "not set" : "empty");
        return false;
    }
    take_copy(s, span_str(value));
    return true;
}

/* Editors and `echo` end a file with a newline that nobody means. */
static struct span without_newline(struct span value)
{
    if (value.n > 0 && value.p[value.n - 1] == '\n')
        value.n--;
    if (value.n > 0 && value.p[value.n - 1] == '\r')
        value.n--;
    return value;
}

static bool read_file(struct secret_source *s, struct str *why)
{
    size_t n;
    str_addf(why, "secret file %s: ", s->arg.p);
    char *room = source_file(s, FILE_MAX_BYTES, &n, why);
    if (room == NULL)
        return false;
    struct span value = without_newline(span_of(room, n));
    if (value.n == 0 || memchr(value.p, 0, value.n) != NULL) {
        str_addz(why, value.n == 0 ? "it is empty" : "it contains a byte 0; write the secret as text");
        secret_free(room);
        return false;
    }
    take_value(s, room, value);
    return true;
}

static struct span helper_of(const struct secret_source *s)
{
    return s->kind == SECRET_EXEC ? s->arg : s->kind == SECRET_DOCKERCONFIG ? span_str(s->helper) : SPAN_NONE;
}

bool source_needs_helper(const struct secret_source *s, int64_t now_ms)
{
    return helper_of(s).n > 0 && (s->answer.room == NULL || now_ms >= s->due_ms);
}

bool source_run_helper(struct secret_source *s, const struct conf *conf, int64_t now_ms,
                       const atomic_bool *stop, struct str *why)
{
    struct span helper = helper_of(s);
    char *printed = secret_alloc(HELPER_MAX_BYTES + 1), *text = secret_alloc(HELPER_MAX_BYTES + 1);
    struct str doc = str_init(printed, HELPER_MAX_BYTES + 1), room = str_init(text, HELPER_MAX_BYTES + 1);
    struct docker_credentials found;
    str_addf(why, "docker-credential-" SPAN_FMT ": ", SPAN_ARG(helper));
    bool ok = secret_exec(conf, helper, s->registry, HELPER_LIMIT_MS, stop, &doc, why) &&
              docker_helper_read(str_span(&doc), &room, &found, why);
    secret_free(printed);
    if (!ok) {
        secret_free(text);
        return false;
    }
    take_pair(s, text, &found);
    s->due_ms = now_ms + HELPER_LIFE_MS;
    return true;
}

static bool read_config(struct secret_source *s, struct str *why)
{
    size_t n;
    struct docker_credentials found;
    str_addf(why, "%s: ", s->arg.p);
    char *doc = source_file(s, CONFIG_MAX_BYTES, &n, why);
    if (doc == NULL)
        return false;
    char *text = secret_alloc(2 * n + 1);
    struct str room = str_init(text, 2 * n + 1);
    bool ok = docker_config_find(span_of(doc, n), s->registry, &room, &found, why);
    secret_free(doc);
    if (!ok) {
        secret_free(text);
        return false;
    }
    struct str helper = STR_INIT(s->helper);
    if (found.helper.p != NULL)
        str_add(&helper, found.helper);
    if (helper.n > 0) { /* its answer is still to come */
        secret_free(text);
        secret_answer_clear(&s->answer);
        return true;
    }
    take_pair(s, text, &found);
    s->due_ms = NEVER;
    return true;
}

static bool read_changed(struct secret_source *s, bool (*read)(struct secret_source *s, struct str *why),
                         struct str *why)
{
    if (unchanged(s))
        return true;
    if (read(s, why)) {
        s->failed_ms = 0;
        return true;
    }
    int64_t now = clock_mono_ms();
    if (s->failed_ms == 0)
        s->failed_ms = now;
    if (now - s->failed_ms >= SECRET_KEPT_MS) {
        secret_answer_clear(&s->answer);
        s->helper[0] = 0;
    }
    return false;
}

bool source_read(struct secret_source *s, struct str *why)
{
    switch (s->kind) {
    case SECRET_TEXT:
        if (s->answer.room == NULL)
            take_copy(s, s->arg);
        return true;
    case SECRET_ENV:
        return s->answer.room != NULL || read_env(s, why);
    case SECRET_FILE:
        return read_changed(s, read_file, why);
    case SECRET_DOCKERCONFIG:
        return read_changed(s, read_config, why);
    case SECRET_EXEC:
    case SECRET_NONE:
    case SECRET_VAULT:
        break;
    }
    return true;
}

/* ---- life ---- */

static struct span put(struct str *text, struct span s)
{
    size_t from = text->n;
    str_add(text, s);
    struct span copy = span_from(str_span(text), from);
    str_addc(text, 0);
    return copy;
}

void source_init(struct secret_source *s, const struct conf_secret *ref, struct span registry,
                 struct span config_file)
{
    *s = (struct secret_source){.kind = ref->kind};
    char path[2 * PATH_MAX_BYTES];
    struct str p = STR_INIT(path);
    struct span arg = ref->kind == SECRET_TEXT ? ref->text : ref->arg;
    if (source_is_file(s)) {
        conf_path_beside(config_file, ref->arg, &p);
        MUST(!p.cut);
        arg = str_span(&p);
    }
    size_t n = ref->text.n + arg.n + registry.n + 4;
    s->text = mem_alloc(n);
    struct str text = str_init(s->text, n);
    s->shown = put(&text, ref->text);
    s->arg = put(&text, arg);
    s->registry = put(&text, registry);
}

void source_free(struct secret_source *s)
{
    secret_answer_clear(&s->answer);
    mem_free(s->text);
}

bool source_same(const struct secret_source *a, const struct secret_source *b)
{
    return a->kind == b->kind && span_eq(a->arg, b->arg) && span_eq(a->registry, b->registry);
}

bool source_is_file(const struct secret_source *s)
{
    return s->kind == SECRET_FILE || s->kind == SECRET_DOCKERCONFIG;
}

bool source_is_slow(const struct secret_source *s)
{
    return s->kind == SECRET_VAULT || s->kind == SECRET_EXEC ||
           (s->kind == SECRET_DOCKERCONFIG && s->helper[0] != 0);
}
