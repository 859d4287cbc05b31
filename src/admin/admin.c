/* The admin server: health, readiness and metrics from memory; the API's calls (api.h).
 *
 * Stopping: RUNNING -> admin_stop: no new connections, idle ones closed; a tick waits until the last answer is out. */
#include "admin/admin.h"

#include <arpa/inet.h>

#include "admin/metrics.h"
#include "base/mem.h"
#include "http/server.h"
#include "store/health.h"

#define ADMIN_CONNECTIONS 256
#define ADMIN_HEADER_MS   10000
#define ADMIN_IDLE_MS     60000
#define STANDSTILL_MS     30000 /* no worker that is well is kept from its timers for so long */
#define STOP_TICK_MS      50
#define STOP_PATIENCE     40 /* ticks before what is left is cut */

struct admin {
    struct core *core;
    struct admin_config config;
    struct server *server;
    struct api api;
    bool stopping;
    unsigned ticks;
    struct timer tick;
    void (*done)(void *arg);
    void *done_arg;
};

static void on_finished(struct exchange *x)
{
    UNUSED(x);
}

static void reply(struct exchange *x, unsigned status, struct span type, struct span text)
{
    exchange_begin(x, status);
    exchange_field(x, SPAN("Content-Type"), type);
    exchange_field(x, SPAN("Cache-Control"), SPAN("no-store"));
    if (status == 405)
        exchange_field(x, SPAN("Allow"), SPAN("GET, HEAD"));
    exchange_send(x, text.n, body_of_text(text), false);
}

static void reply_metrics(struct admin *a, struct exchange *x)
{
    size_t n;
    char *text = metrics_text(&a->config, &n);
    reply(x, 200, SPAN("text/plain; version=0.0.4; charset=utf-8"), span_of(text, n));
    mem_free(text);
}

#define PLAIN SPAN("text/plain; charset=utf-8")

/* It is another core that answers here. */
static void reply_health(struct admin *a, struct exchange *x)
{
    char buf[128];
    struct str text = STR_INIT(buf);
    for (unsigned i = 0; i < a->config.n_cores; i++) {
        int64_t ms = core_overdue_ms(a->config.cores[i]);
        if (ms > STANDSTILL_MS && text.n == 0)
            str_addf(&text, "worker %u has stood still for %lld s\n", i, (long long)(ms / 1000));
    }
    bool well = text.n == 0;
    if (well)
        str_addz(&text, "ok\n");
    reply(x, well ? 200 : 503, PLAIN, str_span(&text));
}

/* A store that takes nothing is no reason to send clients elsewhere: they get every byte all the same. */
static void reply_ready(struct admin *a, struct exchange *x)
{
    char buf[128];
    struct str text = STR_INIT(buf);
    struct store_health health;
    store_health(a->config.store, &health);
    if (a->stopping)
        str_addz(&text, "stopping\n");
    else if (health.fault != FAULT_NONE)
        str_addf(&text, "ready, but nothing can be stored: %s\n", store_fault_name(health.fault));
    else
        str_addz(&text, "ready\n");
    reply(x, a->stopping ? 503 : 200, PLAIN, str_span(&text));
}

static void on_request(struct exchange *x, void *arg)
{
    struct admin *a = arg;
    x->finished = on_finished;
    struct span path = x->req.target, query = SPAN("");
    ptrdiff_t mark = span_find(path, '?');
    if (mark >= 0) {
        query = span_from(path, (size_t)mark + 1);
        path = span_sub(path, 0, (size_t)mark);
    }
    if (x->fault != 0)
        reply(x, (unsigned)x->fault, PLAIN, SPAN("malformed request\n"));
    else if (span_starts(path, SPAN("/api/v1/")))
        api_request(&a->api, x, span_from(path, sizeof "/api/v1/" - 1), query);
    else if (x->req.method == H1_OTHER)
        reply(x, 405, PLAIN, SPAN("only GET and HEAD\n"));
    else if (span_eq(path, SPAN("/healthz")))
        reply_health(a, x);
    else if (span_eq(path, SPAN("/readyz")))
        reply_ready(a, x);
    else if (span_eq(path, SPAN("/metrics")))
        reply_metrics(a, x);
    else
        reply(x, 404, PLAIN, SPAN("no such page; there are /healthz, /readyz, /metrics and /api/v1/...\n"));
}

static void on_stop_tick(struct timer *t)
{
    struct admin *a = CONTAINER_OF(t, struct admin, tick);
    if (++a->ticks > STOP_PATIENCE)
        server_abort(a->server);
    if (server_connections(a->server) > 0 || a->api.running > 0) {
        timer_arm(a->core, &a->tick, STOP_TICK_MS);
        return;
    }
    void (*done)(void *arg) = a->done;
    void *arg = a->done_arg;
    server_free(a->server);
    mem_free(a);
    done(arg);
}

/* All addresses are nobody's: no peer has "0.0.0.0". */
static void find_own(int fd, struct str *out)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {.sa.sa_family = AF_UNSPEC};
    socklen_t len = sizeof a;
    char text[INET6_ADDRSTRLEN] = "";
    (void)getsockname(fd, &a.sa, &len);
    if (a.sa.sa_family == AF_INET && inet_ntop(AF_INET, &a.v4.sin_addr, text, sizeof text) != NULL)
        str_addf(out, "%s:", text);
    else if (a.sa.sa_family == AF_INET6 && inet_ntop(AF_INET6, &a.v6.sin6_addr, text, sizeof text) != NULL)
        str_addf(out, "[%s]:", text);
}

struct admin *admin_start(struct core *core, int fd, const struct admin_config *config)
{
    core_check(core);
    struct admin *a;
    NEW(a);
    a->core = core;
    a->config = *config;
    a->api = (struct api){.calls = config->calls, .n_calls = config->n_calls};
    struct str own = STR_INIT(a->api.own);
    find_own(fd, &own);
    timer_init(&a->tick, on_stop_tick);
    struct server_config sc = {.header_ms = ADMIN_HEADER_MS,
                               .idle_ms = ADMIN_IDLE_MS,
                               .send_ms = ADMIN_IDLE_MS,
                               .max_connections = ADMIN_CONNECTIONS,
                               .request = on_request,
                               .arg = a};
    a->server = server_new(core, &sc);
    (void)server_listen(a->server, fd, NULL);
    return a;
}

void admin_stopping(struct admin *a)
{
    a->stopping = true;
}

void admin_stop(struct admin *a, void (*done)(void *arg), void *arg)
{
    a->done = done;
    a->done_arg = arg;
    a->stopping = true;
    server_drain(a->server);
    timer_arm(a->core, &a->tick, 1);
}
