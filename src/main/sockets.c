/* See sockets.h. */
#include "main/sockets.h"

#include <unistd.h>

#include "base/list.h"
#include "base/mem.h"
#include "net/listen.h"

struct entry {
    struct list_node node;
    char *address; /* as written; what a listener is known by */
    bool any;      /* all addresses of the machine */
    bool fresh;    /* opened by this round */
    bool gone;
    uint16_t port; /* the real one */
    int fds[];     /* by worker; -1: taken */
};

struct sockets {
    unsigned n_workers;
    struct list entries;
    char *admin_host;
    uint16_t admin_port; /* 0: not open yet */
};

struct sockets *sockets_new(unsigned n_workers)
{
    struct sockets *s;
    NEW(s);
    s->n_workers = n_workers;
    list_init(&s->entries);
    return s;
}

static void entry_free(struct sockets *s, struct entry *e)
{
    list_remove(&e->node);
    for (unsigned i = 0; i < s->n_workers; i++) {
        if (e->fds[i] >= 0)
            close(e->fds[i]);
    }
    mem_free(e->address);
    mem_free(e);
}

void sockets_free(struct sockets *s)
{
    LIST_FOREACH_SAFE (n, tmp, &s->entries)
        entry_free(s, CONTAINER_OF(n, struct entry, node));
    mem_free(s->admin_host);
    mem_free(s);
}

void sockets_set_admin(struct sockets *s, struct span host, uint16_t port)
{
    s->admin_host = mem_zalloc(host.n + 1);
    memcpy(s->admin_host, host.p, host.n);
    s->admin_port = port;
}

static struct entry *entry_of(const struct sockets *s, struct span address)
{
    LIST_FOREACH (n, &s->entries) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);
        if (span_eq(span_str(e->address), address))
            return e;
    }
    return NULL;
}

static bool is_any(struct span host)
{
    return span_eq(host, SPAN("0.0.0.0")) || span_eq(host, SPAN("::"));
}

/* Is the port ours already, on all addresses where this is one of them, or the other way round? */
static bool is_covered(const struct sockets *s, const struct conf_listen *l)
{
    LIST_FOREACH (n, &s->entries) {
        const struct entry *e = CONTAINER_OF(n, struct entry, node);
        if (e->port == l->port && (e->any || is_any(l->host)))
            return true;
    }
    return false;
}

/* Has this process the port for admin, on this address, or one of them on all? */
static bool is_admins(const struct sockets *s, const struct conf_listen *l)
{
    return s->admin_port != 0 && l->port == s->admin_port &&
           (is_any(l->host) || is_any(span_str(s->admin_host)) || span_eq(l->host, span_str(s->admin_host)));
}

/* Before anything is opened: what is closed again at once would take clients with it. */
static bool may_open(const struct sockets *s, const struct conf *conf, struct str *why)
{
    uint16_t port;
    struct str before = *why;
    for (size_t i = 0; i < conf->n_listen; i++) {
        const struct conf_listen *l = &conf->listen[i];
        if (entry_of(s, l->address) != NULL ||
            listen_open(l->host, l->port, is_covered(s, l), 0, NULL, &port, why))
            continue;
        if (is_admins(s, l)) {
            *why = before;
            str_addf(why,
                     "cannot listen on " SPAN_FMT
                     ": larder itself has that port for admin.address, a change of "
                     "which takes a restart",
                     SPAN_ARG(l->address));
        }
        return false;
    }
    return true;
}

static bool entry_open(struct sockets *s, const struct conf_listen *l, struct str *why)
{
    struct entry *e = mem_zalloc(sizeof *e + s->n_workers * sizeof e->fds[0]);
    if (!listen_open(l->host, l->port, is_covered(s, l), s->n_workers, e->fds, &e->port, why)) {
        mem_free(e);
        return false;
    }
    e->address = mem_alloc(l->address.n + 1);
    memcpy(e->address, l->address.p, l->address.n);
    e->address[l->address.n] = 0;
    e->any = is_any(l->host);
    e->fresh = true;
    list_push_back(&s->entries, &e->node);
    return true;
}

static bool is_listed(const struct conf *conf, const char *address)
{
    for (size_t i = 0; i < conf->n_listen; i++) {
        if (span_eq(conf->listen[i].address, span_str(address)))
            return true;
    }
    return false;
}

static void log_listening(const struct conf_listen *l, uint16_t port)
{
    char text[80];
    struct str s = STR_INIT(text);
    bool v6 = span_find(l->host, ':') >= 0;
    str_addf(&s, "%s" SPAN_FMT "%s:%u", v6 ? "[" : "", SPAN_ARG(l->host), v6 ? "]" : "", port);
    log_info("main", "listening", LOG_S("address", text),
             LOG_S("tls", l->tls.certificate.path.p != NULL ? "yes" : NULL));
}

/* Only when all are open: what is closed again at once is not worth a line. */
static void log_fresh(const struct sockets *s, const struct conf *conf)
{
    for (size_t i = 0; i < conf->n_listen; i++) {
        const struct entry *e = entry_of(s, conf->listen[i].address);
        if (e->fresh)
            log_listening(&conf->listen[i], e->port);
    }
}

bool sockets_follow(struct sockets *s, const struct conf *conf, struct str *why)
{
    bool ok = may_open(s, conf, why);
    for (size_t i = 0; i < conf->n_listen && ok; i++) {
        if (entry_of(s, conf->listen[i].address) == NULL)
            ok = entry_open(s, &conf->listen[i], why);
    }
    LIST_FOREACH_SAFE (n, tmp, &s->entries) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);
        if (!ok && e->fresh)
            entry_free(s, e);
        else if (ok)
            e->gone = !is_listed(conf, e->address);
    }
    if (ok)
        log_fresh(s, conf);
    return ok;
}

void sockets_hand_over(struct sockets *s, unsigned worker, struct proxy *px)
{
    LIST_FOREACH (n, &s->entries) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);
        if (e->gone)
            proxy_unlisten(px, span_str(e->address));
        else if (e->fds[worker] >= 0)
            proxy_listen(px, span_str(e->address), e->fds[worker]);
        if (!e->gone)
            e->fds[worker] = -1;
    }
}

void sockets_settle(struct sockets *s)
{
    LIST_FOREACH_SAFE (n, tmp, &s->entries) {
        struct entry *e = CONTAINER_OF(n, struct entry, node);
        e->fresh = false;
        if (e->gone)
            entry_free(s, e);
    }
}
