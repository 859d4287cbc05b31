/* See config_file.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/config_file.h"

#define CONFIG_DEFAULT "/etc/larder/config.yaml"
#define CONFIG_MAX     (16u << 20)
#define COMPLAINTS     50

const char *config_path(const char *given)
{
    if (given != NULL)
        return given;
    const char *env = getenv("LARDER_CONFIG");
    return env != NULL && env[0] != 0 ? env : CONFIG_DEFAULT;
}

int config_open(const char *path, const char **why)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    *why = fd < 0 ? strerror(errno) : "it is not a regular file";
    if (fd >= 0)
        close(fd);
    return -1;
}

bool config_read_text(int fd, char **text, size_t *n, const char **why)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        *why = strerror(errno);
        return false;
    }
    if (S_ISDIR(st.st_mode)) {
        *why = "it is a directory";
        return false;
    }
    size_t cap = 65536;
    *text = mem_alloc(cap);
    *n = 0;
    for (;;) {
        if (*n == cap && cap >= CONFIG_MAX) {
            *why = "larger than 16 MiB";
            return false;
        }
        if (*n == cap) {
            cap *= 2;
            *text = mem_realloc(*text, cap);
        }
        ssize_t got = read(fd, *text + *n, cap - *n);
        if (got == 0)
            return true;
        if (got < 0 && errno != EINTR) {
            *why = strerror(errno);
            return false;
        }
        *n += got > 0 ? (size_t)got : 0;
    }
}

void config_warn(struct config_warnings *w, struct conf_mark mark, const char *fmt, ...)
{
    if (w->n == ARRAY_LEN(w->list)) {
        w->left_out++;
        return;
    }
    struct conf_error *e = &w->list[w->n++];
    e->mark = mark;
    va_list ap;
    va_start(ap, fmt);
    MUST(vsnprintf(e->text, sizeof e->text, fmt, ap) >= 0);
    va_end(ap);
}

bool config_warned(const struct config_warnings *w, struct conf_mark mark)
{
    for (size_t i = 0; i < w->n; i++) {
        if (w->list[i].mark.line == mark.line && w->list[i].mark.column == mark.column)
            return true;
    }
    return false;
}

/* Lines on standard error, each with `prefix` before it. */
static void say(const struct conf_error *list, size_t n, size_t left_out, const char *path,
                const char *prefix)
{
    for (size_t i = 0; i < n + (left_out > 0); i++) {
        char line[1024];
        struct str s = STR_INIT(line);
        if (i < n)
            conf_error_text(&list[i], span_str(path), &s);
        else
            conf_left_out_text(left_out, span_str(path), &s);
        fprintf(stderr, "%s%s\n", prefix, line);
    }
}

void config_errors_say(const struct conf_errors *errors, const char *path)
{
    say(errors->list, errors->n, errors->left_out, path, "");
}

void config_warnings_say(const struct config_warnings *w, const char *path)
{
    say(w->list, w->n, w->left_out, path, "warning: ");
}

void config_warnings_log(const struct config_warnings *w, struct span file)
{
    for (size_t i = 0; i < w->n + (w->left_out > 0); i++) {
        char line[1024];
        struct str s = STR_INIT(line);
        if (i < w->n)
            conf_error_text(&w->list[i], file, &s);
        else
            conf_left_out_text(w->left_out, file, &s);
        log_warn("main", "configuration", LOG_SP("warning", str_span(&s)));
    }
}

/* admin: an address to ask will do, and is tried for when the text is not good. */
static struct conf *load(struct span text, const char *path, struct config_warnings *warnings, bool admin)
{
    struct conf_error *list = mem_zalloc(COMPLAINTS * sizeof *list);
    struct conf_errors errors = {.list = list,
                                 .cap = COMPLAINTS,
                                 .warnings = warnings->list,
                                 .cap_warnings = ARRAY_LEN(warnings->list)};
    struct conf *c = conf_load(text, span_str(path), &errors);
    warnings->n = errors.n_warnings;
    warnings->left_out = errors.warnings_left_out;
    if (c == NULL && admin)
        c = conf_load_admin(text, span_str(path));
    say(errors.list, errors.n, errors.left_out, path, c != NULL ? "warning: " : "");
    mem_free(list);
    return c;
}

struct conf *config_load(struct span text, const char *path, struct config_warnings *warnings)
{
    return load(text, path, warnings, false);
}

static struct conf *read_file(const char *path, struct config_warnings *warnings, bool admin)
{
    warnings->n = warnings->left_out = 0;
    const char *why = NULL;
    char *text = NULL;
    size_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr,
                "%s: cannot read the configuration: %s; name the file with -f FILE or $LARDER_CONFIG\n", path,
                strerror(errno));
        return NULL;
    }
    struct conf *c = NULL;
    bool ok = config_read_text(fd, &text, &n, &why);
    if (ok && n == 0 && !admin) {
        ok = false;
        why = CONFIG_EMPTY;
    }
    if (ok)
        c = load(span_of(text, n), path, warnings, admin);
    else
        fprintf(stderr, "%s: cannot read the configuration: %s\n", path, why);
    close(fd);
    mem_free(text);
    return c;
}

struct conf *config_read(const char *path, struct config_warnings *warnings)
{
    return read_file(path, warnings, false);
}

struct conf *config_read_admin(const char *path)
{
    struct config_warnings unused;
    return read_file(path, &unused, true);
}
