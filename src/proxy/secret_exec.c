/* Credential helpers: programs named docker-credential-NAME, found in PATH, that are told a registry's address on standard input and answer
 * on standard output (the protocol of docker/docker-credential-helpers).
 *
 * A helper gets a process group of its own, no descriptor but its three, and a time limit after which the group is killed. It is told
 * nothing secret: its environment is ours (it may need a proxy, or a cloud's account) without the variables in which the configuration has
 * passwords of credential sets. What it prints when it succeeds is secret, and goes from the pipe into the caller's memory only. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "proxy/secret_source.h"

#define SLICE_MS 100
#define SAID_MAX 120 /* of a helper's own words in a message */

struct run {
    pid_t pid;
    int to, from; /* our ends: its standard input and output; -1: closed */
    int64_t end_ms;
    const atomic_bool *stop;
};

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static bool is_password(const struct conf *conf, struct span variable)
{
    for (size_t i = 0; i < conf->n_credential_sets; i++) {
        const struct conf_secret *p = &conf->credential_sets[i].password;
        if (p->kind == SECRET_ENV && span_starts(variable, p->arg) && variable.n > p->arg.n &&
            variable.p[p->arg.n] == '=')
            return true;
    }
    return false;
}

/* The variables are environ's own; the list is mem_alloc'ed. */
static char **environment_for(const struct conf *conf)
{
    size_t n = 0, kept = 0;
    while (environ[n] != NULL)
        n++;
    char **list = mem_alloc((n + 1) * sizeof *list);
    for (size_t i = 0; i < n; i++) {
        if (!is_password(conf, span_str(environ[i])))
            list[kept++] = environ[i];
    }
    list[kept] = NULL;
    return list;
}

static int spawn(pid_t *pid, const struct conf *conf, const char *program, int in, int out)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char *arguments[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "get", NULL};
    sigemptyset(&none);
    sigfillset(&all);
    MUST(posix_spawn_file_actions_init(&files) == 0 && posix_spawnattr_init(&attr) == 0);
    MUST(posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO) == 0);
    MUST(posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO) == 0);
    MUST(posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0) == 0);
    MUST(posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1) == 0);
    MUST(posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                             POSIX_SPAWN_SETSIGDEF) == 0);
    MUST(posix_spawnattr_setpgroup(&attr, 0) == 0);
    MUST(posix_spawnattr_setsigmask(&attr, &none) == 0);
    MUST(posix_spawnattr_setsigdefault(&attr, &all) == 0);
    char **environment = environment_for(conf);
    int err = posix_spawnp(pid, program, &files, &attr, arguments, environment);
    mem_free(environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    return err;
}

static bool start(struct run *r, const struct conf *conf, const char *program, struct str *why)
{
    int in[2], out[2]; /* sockets, so that a helper which does not read brings no SIGPIPE */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) != 0) {
        str_addz(why, strerror(errno));
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, out) != 0) {
        str_addz(why, strerror(errno));
        close(in[0]);
        close(in[1]);
        return false;
    }
    int err = spawn(&r->pid, conf, program, in[1], out[1]);
    close(in[1]);
    close(out[1]);
    r->to = in[0];
    r->from = out[0];
    if (err == 0)
        return true;
    close_end(&r->to);
    close_end(&r->from);
    str_addz(why, err == ENOENT ? "there is no such program in PATH" : strerror(err));
    return false;
}

/* Milliseconds that may still be waited, in slices; 0: the time is over. */
static int left(const struct run *r)
{
    int64_t ms = r->end_ms - clock_mono_ms();
    if (ms <= 0 || atomic_load_explicit(r->stop, memory_order_relaxed))
        return 0;
    return ms < SLICE_MS ? (int)ms : SLICE_MS;
}

/* Everything that it prints. False: too long, or the time is over. */
static bool gather(struct run *r, struct str *room, struct str *why)
{
    for (;;) {
        struct pollfd p = {.fd = r->from, .events = POLLIN};
        int ms = left(r);
        if (ms == 0) {
            str_addz(why, "it did not answer in time and was ended");
            return false;
        }
        if (poll(&p, 1, ms) <= 0)
            continue;
        ssize_t n = read(r->from, room->p + room->n, room->cap - 1 - room->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        room->n += (size_t)n;
        room->p[room->n] = 0;
        if (room->n == room->cap - 1) {
            str_addz(why, "its answer is too long");
            return false;
        }
    }
}

/* Its exit status, or -1: it had to be killed. Whatever it has left behind goes with it: its group is ended before its id may be given to
 * another. */
static int finish(struct run *r, bool wait)
{
    siginfo_t info = {0};
    int status = 0, ms = wait ? left(r) : 0;
    close_end(&r->to);
    close_end(&r->from);
    for (;;) {
        if (waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
            return -1; /* it is no child any more, and the id may be another's */
        if (info.si_pid != 0 || ms == 0)
            break;
        (void)poll(NULL, 0, ms < 5 ? ms : 5);
        ms = left(r);
    }
    bool ended = info.si_pid == r->pid;
    (void)kill(-r->pid, SIGKILL);
    while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (!ended)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A failed helper says on standard output why. Nothing of what looks like an answer is shown. */
static void add_said(struct span text, struct str *why)
{
    char said[SAID_MAX + 1];
    struct str s = STR_INIT(said);
    if (span_find(text, '{') >= 0)
        return;
    for (size_t i = 0; i < text.n && s.n < SAID_MAX && text.p[i] >= 0x20 && text.p[i] < 0x7f; i++)
        str_addc(&s, text.p[i]);
    if (s.n > 0)
        str_addf(why, ": %s", said);
}

bool secret_exec(const struct conf *conf, struct span helper, struct span registry, int64_t limit_ms,
                 const atomic_bool *stop, struct str *room, struct str *why)
{
    char program[DOCKER_HELPER_MAX + 32], line[300];
    struct str p = STR_INIT(program), l = STR_INIT(line);
    if (!docker_helper_ok(helper)) {
        str_addz(why, "the helper's name may have letters, digits, '.', '_' and '-' only");
        return false;
    }
    str_addf(&p, "docker-credential-" SPAN_FMT, SPAN_ARG(helper));
    /* Docker Hub is kept under the address of its first version. */
    str_add(&l, span_eq(registry, SPAN("docker.io")) ? SPAN("https://index.docker.io/v1/") : registry);
    str_addc(&l, '\n');
    MUST(!p.cut && !l.cut);
    struct run r = {.end_ms = clock_mono_ms() + limit_ms, .stop = stop};
    if (!start(&r, conf, program, why))
        return false;
    (void)send(r.to, l.p, l.n, MSG_NOSIGNAL); /* fits; and what if it does not read, it may still answer */
    close_end(&r.to);
    bool gathered = gather(&r, room, why);
    int status = finish(&r, gathered);
    if (!gathered)
        return false;
    if (status == 0)
        return true;
    if (status < 0)
        str_addz(why, "it did not end in time and was ended");
    else
        str_addf(why, "it failed with status %d", status);
    add_said(str_span(room), why);
    return false;
}
