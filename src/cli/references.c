/* See references.h. Nothing is shown of what is in a file or a variable. */
#include "cli/references.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_ROOM 8192

static void warn(struct config_warnings *out, struct conf_mark mark, const char *key, const char *text,
                 const char *why)
{
    config_warn(out, mark, "%s: %s: %s", key, text, why);
}

static void check_variable(struct config_warnings *out, const struct conf_secret *ref, const char *key)
{
    char name[4096 + 1];
    struct str s = STR_INIT(name);
    str_add(&s, ref->arg);
    const char *value = getenv(name);
    if (value == NULL || value[0] == 0)
        warn(out, ref->mark, key, name,
             value == NULL
                 ? "this environment variable is not set here; it has to be where larder is started"
                 : "this environment variable is empty here; it has to be set where larder is started");
}

static const char *unreadable(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return strerror(errno);
    const char *why = NULL;
    if (fstat(fd, &st) != 0)
        why = strerror(errno);
    else if (!S_ISREG(st.st_mode))
        why = S_ISDIR(st.st_mode) ? "it is a directory" : "it is not a regular file";
    else if (st.st_size == 0)
        why = "it is empty";
    close(fd);
    return why;
}

static void check_file(const struct conf *c, struct config_warnings *out, const struct conf_secret *ref,
                       const char *key)
{
    char path[PATH_ROOM];
    struct str s = STR_INIT(path);
    conf_path_beside(c->file, ref->arg, &s);
    const char *why = unreadable(path);
    if (why != NULL)
        warn(out, ref->mark, key, path, why);
}

static void check_secret(const struct conf *c, struct config_warnings *out, const struct conf_secret *ref,
                         const char *key)
{
    if (ref->kind == SECRET_ENV)
        check_variable(out, ref, key);
    else if (ref->kind == SECRET_FILE || ref->kind == SECRET_DOCKERCONFIG)
        check_file(c, out, ref, key);
}

void references_check(const struct conf *c, struct config_warnings *out)
{
    for (size_t i = 0; i < c->n_credential_sets; i++) {
        const struct conf_credential_set *set = &c->credential_sets[i];
        check_secret(c, out, &set->username, "credential_sets[].username");
        check_secret(c, out, &set->password, "credential_sets[].password");
    }
}
