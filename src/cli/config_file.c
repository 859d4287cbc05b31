/* See config_file.h. */
#include <errno.h>
#include <fcntl.h>
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
    if (c == NULL && admin)
        c = conf_load_admin(text, span_str(path));
    for (size_t i = 0; i < errors.n; i++) {
        char line[1024];
        struct str s = STR_INIT(line);
        conf_error_text(&errors.list[i], span_str(path), &s);
        fprintf(stderr, "%s%s\n", c != NULL ? "warning: " : "", line);
    }
    mem_free(list);
    return c;
}

struct conf *config_load(struct span text, const char *path, struct config_warnings *warnings)
{
    return load(text, path, warnings, false);
}

static struct conf *read_file(const char *path, struct config_warnings *warnings, bool admin)
{
    warnings->n = 0;
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
    if (config_read_text(fd, &text, &n, &why))
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
