/* A core's proxy: what it is made of, how it starts, how it stops.
 *
 * Stopping: the server stops accepting (whoever has connected is answered) and closes idle connections; answers under way go on until drain_timeout, then they are
 * cut. When the core has no client left, fetches that nobody waits for, on any core, are closed (what they have stays as a partial file), and when
 * no operation is left everything is freed. A tick looks every 50 ms. */
#include <unistd.h>

#include "base/mem.h"
#include "proxy/proxy_int.h"
#include "proxy/refresh.h"
#include "proxy/tokens.h"
#include "proxy/warm_int.h"

#define DRAIN_TICK_MS 50
#define OPEN_FILES    1024 /* per core; the process's limit is divided further by main */

struct proxy_port {
    struct list_node node;
    struct server_port *port;
    size_t n;
    char address[]; /* as the configuration writes it */
};

/* ---- shared ---- */

struct proxy_shared *proxy_shared_new(struct setup *setup, struct store *store, unsigned n_cores)
{
    struct proxy_shared *s;
    NEW(s);
    pthread_mutex_init(&s->lock, NULL);
    s->setup = setup_ref(setup);
    s->proxies = mem_zalloc(n_cores * sizeof(struct proxy *));
    s->store = store;
    s->flights = flights_new();
    s->verdicts = verdicts_new();
    s->lists = lists_new();
    s->tokens = tokens_new();
    s->warms = warms_new();
    s->crowd = crowd_new();
    s->n_cores = n_cores;
    s->stats = mem_zalloc(n_cores * sizeof *s->stats);
    return s;
}

void proxy_shared_free(struct proxy_shared *s)
{
    mem_free(s->stats);
    crowd_free(s->crowd);
    warms_free(s->warms);
    tokens_free(s->tokens);
    lists_free(s->lists);
    verdicts_free(s->verdicts);
    flights_free(s->flights);
    setup_unref(s->setup);
    mem_free(s->proxies);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

struct setup *proxy_setup(struct proxy_shared *s)
{
    pthread_mutex_lock(&s->lock);
    struct setup *setup = setup_ref(s->setup);
    pthread_mutex_unlock(&s->lock);
    return setup;
}

const struct conf_rule *proxy_match(const struct conf *conf, struct span ns, struct span name,
                                    struct str *repo, struct str *repo_key)
{
    const struct conf_rule *rule = ns.n > 0 && conf->mirror ? conf_match_source(conf, ns, name, repo)
                                                            : conf_match_target(conf, name, repo);
    if (rule == NULL)
        return NULL;
    str_add(repo_key, rule->registry);
    str_addc(repo_key, '/');
    str_add(repo_key, str_span(repo));
    if (rule->credential_set != NULL) {
        str_addc(repo_key, STORE_ACCOUNT);
        str_add(repo_key, rule->credential_set->name);
    }
    MUST(!repo->cut && !repo_key->cut);
    return rule;
}

/* ---- reload ---- */

void proxy_reload(struct proxy_shared *s, struct setup *setup)
{
    pthread_mutex_lock(&s->lock);
    struct setup *old = s->setup;
    s->setup = setup_ref(setup);
    for (unsigned i = 0; i < s->n_cores; i++) {
        if (s->proxies[i] != NULL)
            core_post(s->proxies[i]->core, &s->proxies[i]->reload);
    }
    pthread_mutex_unlock(&s->lock);
    setup_unref(old);
}

static struct server_config server_limits(struct proxy *px)
{
    const struct conf *conf = setup_conf(px->setup);
    return (struct server_config){.header_ms = conf->client.header_ms,
                                  .idle_ms = conf->client.idle_ms,
                                  .send_ms = conf->client.send_ms,
                                  .max_connections = conf->client.max_connections,
                                  .crowd = px->shared->crowd,
                                  .request = serve_request,
                                  .arg = px};
}

/* What runs keeps the setup it began with; the last of it on this core gives it back. A listener that goes keeps what it has: it takes its
 * last clients when it is told to stop. */
static void on_reload(struct core_msg *m)
{
    struct proxy *px = CONTAINER_OF(m, struct proxy, reload);
    struct setup *next = proxy_setup(px->shared), *old = px->setup;
    px->setup = setup_hold(px, next);
    setup_release(px, old);
    setup_unref(next);
    struct server_config config = server_limits(px);
    server_configure(px->server, &config);
    LIST_FOREACH (n, &px->ports) {
        struct proxy_port *p = CONTAINER_OF(n, struct proxy_port, node);
        const struct identity *identity;
        if (setup_identity(px->setup, span_of(p->address, p->n), &identity))
            server_port_identity(p->port, identity);
    }
}

/* The proxy goes: nothing is posted to it from now on. False: something has been. */
static bool reload_leave(struct proxy *px)
{
    struct proxy_shared *s = px->shared;
    pthread_mutex_lock(&s->lock);
    s->proxies[px->index] = NULL;
    pthread_mutex_unlock(&s->lock);
    return core_msg_idle(&px->reload) && core_msg_idle(&px->warm);
}

/* ---- one core ---- */

static void on_drain_tick(struct timer *t);

struct proxy *proxy_start(struct proxy_shared *s, struct core *core)
{
    core_check(core);
    struct proxy *px;
    NEW(px);
    px->core = core;
    px->shared = s;
    px->index = atomic_fetch_add(&s->next_core, 1);
    MUST(px->index < s->n_cores);
    core_msg_init(&px->reload, on_reload);
    core_msg_init(&px->warm, warm_on_message);
    pthread_mutex_lock(&s->lock);
    px->setup = setup_hold(px, s->setup);
    s->proxies[px->index] = px;
    pthread_mutex_unlock(&s->lock);
    px->stats = &s->stats[px->index];
    px->reader = store_reader_new(s->store);
    store_reader_remember(px->reader);
    list_init(&px->serves);
    px->open = open_set_new(core, s->store, OPEN_FILES);
    px->pool = pool_new(core);
    flight_core_init(core, s->flights);
    timer_init(&px->drain_tick, on_drain_tick);
    list_init(&px->ports);
    struct server_config config = server_limits(px);
    px->server = server_new(core, &config);
    px->refresh = refresh_new(px);
    return px;
}

/* ---- listening ---- */

void proxy_listen(struct proxy *px, struct span address, int fd)
{
    core_check(px->core);
    if (px->stopped != NULL) {
        close(fd);
        return;
    }
    struct proxy_port *p = mem_alloc(sizeof *p + address.n);
    p->node = (struct list_node){0};
    p->n = address.n;
    memcpy(p->address, address.p, address.n);
    const struct identity *identity = NULL;
    (void)setup_identity(px->setup, address, &identity);
    p->port = server_listen(px->server, fd, identity);
    list_push_back(&px->ports, &p->node);
}

static void port_forget(struct proxy_port *p)
{
    list_remove(&p->node);
    mem_free(p);
}

void proxy_unlisten(struct proxy *px, struct span address)
{
    core_check(px->core);
    LIST_FOREACH_SAFE (n, tmp, &px->ports) {
        struct proxy_port *p = CONTAINER_OF(n, struct proxy_port, node);
        if (!span_eq(span_of(p->address, p->n), address))
            continue;
        server_unlisten(p->port);
        port_forget(p);
    }
}

/* ---- stopping ---- */

static void count_op(const struct op *op, void *arg)
{
    UNUSED(op);
    (*(unsigned *)arg)++;
}

struct victim {
    const struct op *op;
    bool late; /* the time is over: also what clients on other cores read */
};

static void pick_victim(const struct op *op, void *arg)
{
    struct victim *v = arg;
    if (v->op == NULL && op->closing == 0 && op->cls->idle != NULL && (v->late || op->cls->idle(op)))
        v->op = op;
}

/* Closing one operation may end another (a fetch ends its sides), so they are closed one at a time. */
static void close_ops(struct core *core, bool late)
{
    for (;;) {
        struct victim v = {.late = late};
        op_each(core, pick_victim, &v);
        if (v.op == NULL)
            return;
        op_close((struct op *)(uintptr_t)v.op, ERR_STOPPING);
    }
}

static void proxy_free(struct proxy *px)
{
    void (*stopped)(void *arg) = px->stopped;
    void *arg = px->stopped_arg;
    refresh_free(px->refresh);
    server_free(px->server);
    serve_forget(px);
    setup_release(px, px->setup);
    pool_free(px->pool);
    open_set_free(px->open);
    flight_core_free(px->core);
    store_reader_free(px->reader);
    mem_free(px);
    stopped(arg);
}

static void on_drain_tick(struct timer *t)
{
    struct proxy *px = CONTAINER_OF(t, struct proxy, drain_tick);
    unsigned ops = 0;
    bool late = core_now(px->core) >= px->drain_until;
    if (server_connections(px->server) > 0 && late) {
        log_warn("serve", "cutting answers that did not end in time",
                 LOG_U("connections", server_connections(px->server)));
        server_abort(px->server);
    }
    if (server_connections(px->server) == 0) {
        open_set_stop(px->open);
        close_ops(px->core, late);
    }
    op_each(px->core, count_op, &ops);
    if (ops == 0 && server_connections(px->server) == 0 && open_set_idle(px->open) && px->waits == 0 &&
        flight_core_idle(px->core) && server_quiet(px->server) && reload_leave(px)) {
        proxy_free(px);
        return;
    }
    timer_arm(px->core, &px->drain_tick, DRAIN_TICK_MS);
}

void proxy_stop(struct proxy *px, void (*done)(void *arg), void *arg)
{
    core_check(px->core);
    MUST(px->drain_until == 0);
    px->stopped = done;
    px->stopped_arg = arg;
    px->drain_until = core_now(px->core) + setup_conf(px->setup)->client.drain_ms;
    LIST_FOREACH_SAFE (n, tmp, &px->ports)
        port_forget(CONTAINER_OF(n, struct proxy_port, node));
    refresh_stop(px->refresh);
    server_drain(px->server); /* closes the ports themselves */
    pool_drain(px->pool);
    timer_arm(px->core, &px->drain_tick, 1);
}
