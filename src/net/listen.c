/* Listeners: ACCEPTING (watching the socket), PAUSED (no descriptors: a timer brings us back), STOPPED. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "base/mem.h"
#include "core/core.h"
#include "core/resolve.h"
#include "net/listen.h"

#define LISTEN_BACKLOG  4096
#define ACCEPT_BATCH    64 /* per turn of the loop */
#define ACCEPT_PAUSE_MS 200

struct listener {
    struct core *core;
    int fd;
    uv_poll_t poll;
    struct timer pause;
    bool paused_before; /* said once in the log until accepting works again */
    void (*accepted)(struct core *core, int fd, void *arg);
    void *arg;
};

/* ---- opening ---- */

static bool address_of(struct span host, uint16_t port, struct resolve_addr *a)
{
    char text[64];
    if (host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    memset(a, 0, sizeof *a);
    if (uv_ip4_addr(text, port, &a->u.v4) == 0)
        a->len = sizeof a->u.v4;
    else if (uv_ip6_addr(text, port, &a->u.v6) == 0)
        a->len = sizeof a->u.v6;
    else
        return false;
    return true;
}

static uint16_t port_of(int fd)
{
    struct resolve_addr a;
    a.len = sizeof a.u;
    if (getsockname(fd, &a.u.sa, &a.len) != 0)
        return 0;
    return ntohs(a.u.sa.sa_family == AF_INET6 ? a.u.v6.sin6_port : a.u.v4.sin_port);
}

static int open_one(const struct resolve_addr *a, bool share, bool listening)
{
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if ((share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) ||
        bind(fd, &a->u.sa, a->len) != 0 || (listening && listen(fd, LISTEN_BACKLOG) != 0)) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static bool open_failed(struct span host, uint16_t port, struct str *why)
{
    bool v6 = span_find(host, ':') >= 0;
    const char *hint = errno == EADDRINUSE
                           ? ": another process listens there; stop it or choose another address"
                       : errno == EADDRNOTAVAIL ? ": this machine does not have that address"
                       : errno == EACCES        ? ": ports below 1024 need a privilege"
                                                : "";
    str_addf(why, "cannot listen on %s" SPAN_FMT "%s:%u: %s%s", v6 ? "[" : "", SPAN_ARG(host), v6 ? "]" : "",
             port, strerror(errno), hint);
    return false;
}

/* Fails if anybody else listens there: it is without SO_REUSEPORT. *port: the real one. */
static bool probe(const struct resolve_addr *a, uint16_t *port)
{
    int fd = open_one(a, false, true);
    if (fd < 0)
        return false;
    if (*port == 0)
        *port = port_of(fd);
    close(fd);
    return true;
}

bool listen_open(struct span host, uint16_t port, bool ours, unsigned n, int fds[], uint16_t *port_out,
                 struct str *why)
{
    struct resolve_addr a;
    if (!address_of(host, port, &a)) {
        str_addf(why, "cannot listen on \"" SPAN_FMT "\": not an IP address", SPAN_ARG(host));
        return false;
    }
    if (!ours && !probe(&a, &port))
        return open_failed(host, port, why);
    MUST(address_of(host, port, &a));
    for (unsigned i = 0; i < n; i++) {
        fds[i] = open_one(&a, true, true);
        if (fds[i] < 0) {
            int e = errno;
            while (i-- > 0)
                close(fds[i]);
            errno = e;
            return open_failed(host, port, why);
        }
    }
    *port_out = port;
    return true;
}

/* ---- accepting ---- */

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void accept_pause(struct listener *l, int error)
{
    if (!l->paused_before)
        log_warn("net", "accepting paused: out of descriptors or memory", LOG_S("error", strerror(error)));
    l->paused_before = true;
    COUNT(core_counters(l->core), accept_pauses, 1);
    uv_poll_stop(&l->poll);
    timer_arm(l->core, &l->pause, ACCEPT_PAUSE_MS);
}

static void on_pause_over(struct timer *t)
{
    struct listener *l = CONTAINER_OF(t, struct listener, pause);
    MUST(uv_poll_start(&l->poll, UV_READABLE, on_acceptable) == 0);
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
    UNUSED(status);
    UNUSED(events);
    struct listener *l = poll->data;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            l->paused_before = false;
            l->accepted(l->core, fd, l->arg);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            accept_pause(l, errno);
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

struct listener *listener_start(struct core *core, int fd,
                                void (*accepted)(struct core *core, int fd, void *arg), void *arg)
{
    core_check(core);
    struct listener *l;
    NEW(l);
    l->core = core;
    l->fd = fd;
    l->accepted = accepted;
    l->arg = arg;
    l->poll.data = l;
    timer_init(&l->pause, on_pause_over);
    MUST(uv_poll_init(core_loop(core), &l->poll, fd) == 0);
    MUST(uv_poll_start(&l->poll, UV_READABLE, on_acceptable) == 0);
    return l;
}

static void on_listener_closed(uv_handle_t *h)
{
    mem_free(h->data);
}

void listener_take_all(struct listener *l)
{
    for (unsigned i = 0; i < LISTEN_BACKLOG; i++) { /* more cannot have waited */
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            l->accepted(l->core, fd, l->arg);
        else if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

void listener_stop(struct listener *l)
{
    if (l == NULL)
        return;
    timer_disarm(&l->pause);
    uv_close((uv_handle_t *)&l->poll, on_listener_closed);
    close(l->fd);
    l->fd = -1; /* it may have been stopped from within `accepted`: the loop there ends */
}
