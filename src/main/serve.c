/* The composition root.
 *
 * Start: configuration, store, sockets (all of them, before anything runs: what can fail fails here, with a message and exit
 * code 1), then one thread per core, then the main thread's own core with signals and the admin address. A signal that comes before it
 * is watched waits: SIGHUP from the beginning, and those that end the process once there are sockets.
 *
 * Stop: a signal posts to every worker; each lets its clients finish and tells the main core; when all have, the admin
 * goes, and the main core's loop ends. A second signal ends the process at once. A worker that has stopped touches its own core only;
 * if its loop goes on because the system still looks up a name, which cannot be cancelled, it is left behind (join_workers). */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin/admin.h"
#include "admin/store_calls.h"
#include "base/mem.h"
#include "base/resident.h"
#include "cli/config_file.h"
#include "core/processors.h"
#include "core/resolve.h"
#include "core/signal.h"
#include "main/calls.h"
#include "main/reload.h"
#include "main/serve.h"
#include "main/sockets.h"
#include "net/listen.h"
#include "proxy/proxy.h"
#include "proxy/secrets.h"
#include "proxy/setup.h"
#include "store/evict.h"

#define WORKERS_MAX 256
#define LAST_MS     1000 /* for what is still under way in the loops of workers that have stopped */

struct worker {
    struct main *main;
    struct core *core;
    struct proxy *proxy;
    pthread_t thread;
    unsigned index;
    bool ended; /* the thread */
    struct core_msg start, spread, has_spread, stop, stopped;
};

struct main {
    struct conf *conf;
    struct store *store;
    struct proxy_shared *shared;
    struct sockets *sockets;
    struct reload *reload;
    struct core *core;
    struct admin *admin;
    struct calls_context calls_context;
    struct store_calls *store_calls;
    struct api_call calls[CALLS_MAX];
    int admin_fd;
    struct worker *workers;
    struct core **cores; /* the workers' */
    unsigned n_workers, n_stopped, n_spread;
    struct signal_watch *term, *intr, *hup;
    bool stopping;
    const char *version, *config_file;
    struct core_msg start;
};

/* ---- workers ---- */

static void on_worker_start(struct core_msg *m)
{
    struct worker *w = CONTAINER_OF(m, struct worker, start);
    w->proxy = proxy_start(w->main->shared, w->core);
    sockets_hand_over(w->main->sockets, w->index, w->proxy);
    core_post(w->main->core, &w->has_spread);
}

static void on_worker_spread(struct core_msg *m)
{
    struct worker *w = CONTAINER_OF(m, struct worker, spread);
    if (w->proxy != NULL)
        sockets_hand_over(w->main->sockets, w->index, w->proxy);
    core_post(w->main->core, &w->has_spread);
}

static void on_proxy_stopped(void *arg)
{
    struct worker *w = arg;
    w->proxy = NULL;
    core_quit(w->core);
    core_post(w->main->core, &w->stopped);
}

static void on_worker_stop(struct core_msg *m)
{
    struct worker *w = CONTAINER_OF(m, struct worker, stop);
    proxy_stop(w->proxy, on_proxy_stopped, w);
}

static void on_admin_stopped(void *arg)
{
    struct main *mn = arg;
    signal_unwatch(mn->term);
    signal_unwatch(mn->intr);
    signal_unwatch(mn->hup);
    core_quit(mn->core);
}

static void on_worker_stopped(struct core_msg *m)
{
    struct main *mn = CONTAINER_OF(m, struct worker, stopped)->main;
    if (++mn->n_stopped == mn->n_workers)
        admin_stop(mn->admin, on_admin_stopped, mn);
}

/* A round is over when all workers have changed their listeners: the first one is that of the start. */
static void on_has_spread(struct core_msg *m)
{
    struct main *mn = CONTAINER_OF(m, struct worker, has_spread)->main;
    if (++mn->n_spread == mn->n_workers && !mn->stopping)
        reload_spread(mn->reload);
}

static void *worker_thread(void *arg)
{
    struct worker *w = arg;
    core_run(w->core);
    return NULL;
}

/* ---- the main core ---- */

static void on_signal(int signum, void *arg)
{
    struct main *mn = arg;
    if (mn->stopping) {
        log_warn("main", "second signal, ending at once", LOG_I("signal", signum));
        log_stop();
        _exit(1);
    }
    mn->stopping = true;
    log_info("main", "stopping: no new connections, answers under way may finish", LOG_I("signal", signum),
             LOG_I("limit_ms", mn->conf->client.drain_ms));
    admin_stopping(mn->admin);
    store_stopping(mn->store);
    reload_stop(mn->reload);
    mn->calls_context.stopping = true;
    store_calls_stop(mn->store_calls);
    for (unsigned i = 0; i < mn->n_workers; i++)
        core_post(mn->workers[i].core, &mn->workers[i].stop);
}

static void on_hangup(int signum, void *arg)
{
    struct main *mn = arg;
    UNUSED(signum);
    if (!mn->stopping)
        reload_now(mn->reload);
}

static void more_metrics(void *arg, struct str *out)
{
    struct main *mn = arg;
    proxy_metrics(mn->shared, out);
    reload_metrics(mn->reload, out);
}

/* A new setup is in force: the workers change their listeners. */
static void spread(void *arg)
{
    struct main *mn = arg;
    mn->n_spread = 0;
    for (unsigned i = 0; i < mn->n_workers; i++)
        core_post(mn->workers[i].core, &mn->workers[i].spread);
}

static void limit_store(struct main *mn)
{
    const struct conf *c = mn->conf;
    struct store_limits limits = {.max_size = c->store.max_size,
                                  .min_free = c->store.min_free,
                                  .min_free_percent = c->store.min_free_percent,
                                  .max_age_ms = c->store.max_age_ms,
                                  .partial_age_ms = c->store.partial_age_ms,
                                  .scrub_rate = c->store.scrub_rate};
    store_set_limits(mn->store, &limits);
}

/* Every connection is a descriptor: take what the system allows. */
static void raise_descriptors(const struct conf *c)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return;
    r.rlim_cur = r.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &r);
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < c->client.max_connections + 512)
        log_warn(
            "main",
            "fewer descriptors than client.max_connections needs; raise the limit (ulimit -n, LimitNOFILE)",
            LOG_U("descriptors", r.rlim_cur), LOG_U("max_connections", c->client.max_connections));
}

static void took(struct conf *conf, void *arg)
{
    struct main *mn = arg;
    if (conf->client.max_connections > mn->conf->client.max_connections)
        raise_descriptors(conf);
    conf_unref(mn->conf);
    mn->conf = conf_ref(conf);
    limit_store(mn);
}

static void start_reload(struct main *mn)
{
    struct reload_config config = {.core = mn->core,
                                   .path = mn->config_file,
                                   .conf = mn->conf,
                                   .shared = mn->shared,
                                   .sockets = mn->sockets,
                                   .n_cores = mn->n_workers,
                                   .spread = spread,
                                   .took = took,
                                   .arg = mn};
    mn->calls_context.reload = mn->reload = reload_start(&config);
}

/* how: SIG_BLOCK, SIG_UNBLOCK. */
static void mask_signal(int how, int signum)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signum);
    pthread_sigmask(how, &set, NULL);
}

static void watch_signals(struct main *mn)
{
    mn->term = signal_watch(mn->core, SIGTERM, on_signal, mn);
    mn->intr = signal_watch(mn->core, SIGINT, on_signal, mn);
    mn->hup = signal_watch(mn->core, SIGHUP, on_hangup, mn);
    mask_signal(SIG_UNBLOCK, SIGTERM);
    mask_signal(SIG_UNBLOCK, SIGINT);
    mask_signal(SIG_UNBLOCK, SIGHUP);
}

static void on_main_start(struct core_msg *m)
{
    struct main *mn = CONTAINER_OF(m, struct main, start);
    struct store_calls_config store_config = {.store = mn->store,
                                              .hold = calls_hold_conf,
                                              .release = calls_release_conf,
                                              .arg = &mn->calls_context};
    mn->store_calls = store_calls_new(&store_config);
    mn->calls_context = (struct calls_context){.shared = mn->shared,
                                               .store = mn->store,
                                               .store_calls = mn->store_calls,
                                               .cores = mn->cores,
                                               .version = mn->version,
                                               .started_ms = clock_wall_ms(),
                                               .workers = mn->n_workers};
    struct admin_config config = {.calls = mn->calls,
                                  .n_calls = calls_fill(&mn->calls_context, mn->calls),
                                  .cores = mn->cores,
                                  .n_cores = mn->n_workers,
                                  .store = mn->store,
                                  .version = mn->version,
                                  .more_metrics = more_metrics,
                                  .arg = mn};
    mn->admin = admin_start(mn->core, mn->admin_fd, &config);
    start_reload(mn);
    watch_signals(mn);
}

/* ---- start ---- */

/* The configuration is read, so it is known how the log looks. */
static void refuse(const char *why)
{
    log_error("main", "cannot start", LOG_S("why", why));
}

static unsigned worker_count(const struct conf *c)
{
    if (c->workers > 0)
        return c->workers < WORKERS_MAX ? c->workers : WORKERS_MAX;
    unsigned n = processors_count("");
    return n < WORKERS_MAX ? n : WORKERS_MAX;
}

/* The pool runs disk jobs, hashing and, on at most half of its threads, look-ups of names (core/resolve.c counts on it); its size is read
 * once, at its first use, and libuv's most is 1024. What the environment says already is left so. */
static void size_threadpool(unsigned workers)
{
    char text[16];
    struct str s = STR_INIT(text);
    str_addu(&s, 4 + 4 * workers);
    (void)setenv("UV_THREADPOOL_SIZE", text, 0);
}

static void log_address(const char *what, struct span host, uint16_t port)
{
    char text[80];
    struct str s = STR_INIT(text);
    bool v6 = span_find(host, ':') >= 0;
    str_addf(&s, "%s" SPAN_FMT "%s:%u", v6 ? "[" : "", SPAN_ARG(host), v6 ? "]" : "", port);
    log_info("main", what, LOG_S("address", text));
}

static bool open_sockets(struct main *mn)
{
    char text[512];
    struct str why = STR_INIT(text);
    uint16_t port;
    mn->sockets = sockets_new(mn->n_workers);
    bool ok = sockets_follow(mn->sockets, mn->conf, &why) &&
              listen_open(mn->conf->admin.host, mn->conf->admin.port, false, 1, &mn->admin_fd, &port, &why);
    if (ok) {
        sockets_set_admin(mn->sockets, mn->conf->admin.host, port);
        log_address("admin listening", mn->conf->admin.host, port);
    } else {
        refuse(text);
    }
    return ok;
}

static bool make_workers(struct main *mn)
{
    mn->workers = mem_zalloc(mn->n_workers * sizeof *mn->workers);
    mn->cores = mem_zalloc(mn->n_workers * sizeof *mn->cores);
    for (unsigned i = 0; i <= mn->n_workers; i++) {
        struct core *c = core_new(i);
        if (c == NULL) {
            refuse("cannot make an event loop: out of descriptors");
            return false;
        }
        if (i == mn->n_workers) {
            mn->core = c;
            break;
        }
        struct worker *w = &mn->workers[i];
        w->main = mn;
        w->core = mn->cores[i] = c;
        w->index = i;
        core_msg_init(&w->start, on_worker_start);
        core_msg_init(&w->spread, on_worker_spread);
        core_msg_init(&w->has_spread, on_has_spread);
        core_msg_init(&w->stop, on_worker_stop);
        core_msg_init(&w->stopped, on_worker_stopped);
    }
    core_msg_init(&mn->start, on_main_start);
    return true;
}

/* False: not all have ended in time. */
static bool join_workers(struct main *mn)
{
    bool all = true;
    int64_t at = clock_wall_ms() + LAST_MS;
    struct timespec until = {.tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000};
    for (unsigned i = 0; i < mn->n_workers; i++) {
        struct worker *w = &mn->workers[i];
        w->ended = pthread_timedjoin_np(w->thread, NULL, &until) == 0;
        all = all && w->ended;
    }
    if (!all)
        log_info("main", "not waiting for the end of look-ups of names");
    return all;
}

/* True: all that was started has ended. */
static bool run(struct main *mn)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals go to the main thread */
    core_post(mn->core, &mn->start);             /* before what the workers post */
    for (unsigned i = 0; i < mn->n_workers; i++) {
        struct worker *w = &mn->workers[i];
        core_post(w->core, &w->start);
        MUST(pthread_create(&w->thread, NULL, worker_thread, w) == 0);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    core_run(mn->core);
    return join_workers(mn);
}

static void take_apart(struct main *mn)
{
    for (unsigned i = 0; i < mn->n_workers; i++) {
        if (!mn->workers[i].ended)
            continue;
        resolve_free(mn->workers[i].core);
        core_free(mn->workers[i].core);
    }
    core_free(mn->core);
    reload_free(mn->reload);
    mem_free(mn->cores);
    mem_free(mn->workers);
    sockets_free(mn->sockets);
    store_calls_free(mn->store_calls);
    proxy_shared_free(mn->shared);
    store_close(mn->store);
}

static void warn_of_secrets(struct setup *setup, const struct conf *conf, struct config_warnings *warnings)
{
    for (size_t i = 0; i < conf->n_credential_sets; i++) {
        const struct conf_credential_set *set = &conf->credential_sets[i];
        struct credential_health health;
        credential_health(setup_secrets(setup), set, &health);
        if (!health.healthy && !config_warned(warnings, set->username.mark) &&
            !config_warned(warnings, set->password.mark))
            config_warn(warnings, set->password.mark, "credential_sets[].password: %s", health.why);
    }
}

bool serve_takes(struct conf *conf, struct config_warnings *warnings, struct str *why)
{
    struct setup *setup = setup_new(conf, NULL, 1, why);
    if (setup == NULL)
        return false;
    warn_of_secrets(setup, conf, warnings);
    setup_unref(setup);
    return true;
}

int serve_run(const char *config_file, const char *version)
{
    static struct main
        mn; /* static: what a failed start leaves allocated stays reachable until the process ends */
    mask_signal(SIG_BLOCK, SIGHUP);
    mn.version = version;
    struct config_warnings warnings;
    mn.config_file = config_path(config_file);
    mn.conf = config_read(mn.config_file, &warnings);
    if (mn.conf == NULL)
        return 1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, nobody would learn how a helper has ended */
    log_setup(mn.conf->log_level, mn.conf->log_format);
    config_warnings_log(&warnings, mn.conf->file);
    raise_descriptors(mn.conf);
    mn.n_workers = worker_count(mn.conf);
    size_threadpool(mn.n_workers);
    resident_program();
    char text[1024];
    struct str why = STR_INIT(text);
    mn.store = store_open(mn.conf->store_path, &why);
    if (mn.store == NULL) {
        refuse(text);
        return 1;
    }
    struct setup *setup = setup_new(mn.conf, NULL, mn.n_workers, &why);
    if (setup == NULL) {
        refuse(text);
        return 1;
    }
    mask_signal(SIG_BLOCK, SIGTERM);
    mask_signal(SIG_BLOCK, SIGINT);
    if (!make_workers(&mn) || !open_sockets(&mn)) {
        setup_unref(setup);
        return 1; /* the process ends: the system takes back what was opened */
    }
    log_start();
    limit_store(&mn);
    mn.shared = proxy_shared_new(setup, mn.store, mn.n_workers);
    setup_unref(setup);
    log_info("main", "serving", LOG_S("version", version), LOG_SP("store", mn.conf->store_path),
             LOG_U("cores", mn.n_workers), LOG_U("rules", mn.conf->n_rules));
    bool ended = run(&mn);
    take_apart(&mn);
    log_info("main", "stopped", LOG_U("cores", mn.n_workers));
    log_stop();
    if (!ended)
        _exit(0); /* exit waits for libuv's pool */
    conf_unref(mn.conf);
    return 0;
}
