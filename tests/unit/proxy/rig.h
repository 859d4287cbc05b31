/* What the tests of the proxy room with a loop share: a folder of their own, a store in it, a configuration, and cores with a proxy each
 * that run on threads. The test's thread asserts; a core's thread carries out what is given to it with on_core. */
#ifndef LARDER_TESTS_PROXY_RIG_H
#define LARDER_TESTS_PROXY_RIG_H

#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "core/resolve.h"
#include "proxy/proxy_int.h"

#define RIG_CORES 2

struct rig_core {
    struct rig *rig;
    struct core *core;
    struct proxy *px;
    pthread_t thread;
    struct core_msg start, stop;
    sem_t started;
};

struct rig {
    char dir[64]; /* absolute; removed at the end */
    struct store *store;
    struct proxy_shared *shared;
    struct rig_core cores[RIG_CORES];
};

/* ---- files ---- */

static inline const char *rig_path(const struct rig *r, const char *name)
{
    static char path[4][160];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", r->dir, name);
    return p;
}

/* Replaced as a whole, as an orchestrator does it. */
static inline void rig_write(const struct rig *r, const char *name, const char *text, mode_t mode)
{
    char to[160], from[176];
    snprintf(to, sizeof to, "%s/%s", r->dir, name);
    snprintf(from, sizeof from, "%s.new", to);
    FILE *f = fopen(from, "w");
    MUST(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
    MUST(chmod(from, mode) == 0 && rename(from, to) == 0);
}

/* ---- configuration ---- */

static inline struct conf *rig_conf(const char *text, const char *file)
{
    struct conf_error list[8];
    struct conf_errors errors = {.list = list, .cap = ARRAY_LEN(list)};
    struct conf *c = conf_load(span_str(text), span_str(file), &errors);
    if (c == NULL)
        fail_msg("line %u: %s", list[0].mark.line, list[0].text);
    return c;
}

static inline struct setup *rig_setup_new(struct conf *conf, struct setup *before)
{
    char text[512];
    struct str why = STR_INIT(text);
    struct setup *s = setup_new(conf, before, RIG_CORES, &why);
    if (s == NULL)
        fail_msg("setup_new: %s", text);
    return s;
}

/* ---- life ---- */

static inline int rig_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    UNUSED(st);
    UNUSED(type);
    UNUSED(ftw);
    return remove(path);
}

static inline int rig_folder(void **state)
{
    log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
    struct rig *r = calloc(1, sizeof *r);
    char here[32];
    snprintf(here, sizeof here, "proxy-test-XXXXXX");
    if (mkdtemp(here) == NULL)
        return -1;
    /* Absolute, and short whatever the folder of the build is called. */
    snprintf(r->dir, sizeof r->dir, "/proc/self/cwd/%s", here);
    *state = r;
    return 0;
}

static inline int rig_folder_end(void **state)
{
    struct rig *r = *state;
    const char *name = strrchr(r->dir, '/') + 1;
    nftw(name, rig_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(r);
    return 0;
}

static inline void rig_on_start(struct core_msg *m)
{
    struct rig_core *c = CONTAINER_OF(m, struct rig_core, start);
    c->px = proxy_start(c->rig->shared, c->core);
    sem_post(&c->started);
}

static inline void rig_on_stopped(void *arg)
{
    struct rig_core *c = arg;
    c->px = NULL;
    core_quit(c->core);
}

static inline void rig_on_stop(struct core_msg *m)
{
    struct rig_core *c = CONTAINER_OF(m, struct rig_core, stop);
    proxy_stop(c->px, rig_on_stopped, c);
}

static inline void *rig_thread(void *arg)
{
    core_run(((struct rig_core *)arg)->core);
    return NULL;
}

/* Takes the caller's reference of the setup. */
static inline void rig_start(struct rig *r, struct setup *setup)
{
    char text[512];
    struct str why = STR_INIT(text);
    r->store = store_open(span_str(rig_path(r, "store")), &why);
    if (r->store == NULL)
        fail_msg("store_open: %s", text);
    r->shared = proxy_shared_new(setup, r->store, RIG_CORES);
    setup_unref(setup);
    for (unsigned i = 0; i < RIG_CORES; i++) {
        struct rig_core *c = &r->cores[i];
        c->rig = r;
        c->core = core_new(i);
        MUST(c->core != NULL);
        core_msg_init(&c->start, rig_on_start);
        core_msg_init(&c->stop, rig_on_stop);
        sem_init(&c->started, 0, 0);
        core_post(c->core, &c->start);
        MUST(pthread_create(&c->thread, NULL, rig_thread, c) == 0);
    }
    for (unsigned i = 0; i < RIG_CORES; i++)
        sem_wait(&r->cores[i].started);
}

static inline void rig_stop(struct rig *r)
{
    for (unsigned i = 0; i < RIG_CORES; i++)
        core_post(r->cores[i].core, &r->cores[i].stop);
    for (unsigned i = 0; i < RIG_CORES; i++) {
        struct rig_core *c = &r->cores[i];
        pthread_join(c->thread, NULL);
        resolve_free(c->core);
        core_free(c->core);
        sem_destroy(&c->started);
    }
    proxy_shared_free(r->shared);
    store_close(r->store);
}

/* ---- work on a core ---- */

struct rig_work {
    struct core_msg msg;
    struct rig_core *on;
    void (*fn)(struct rig_core *on, void *arg);
    void *arg;
    sem_t done;
};

static inline void rig_on_work(struct core_msg *m)
{
    struct rig_work *w = CONTAINER_OF(m, struct rig_work, msg);
    w->fn(w->on, w->arg);
    sem_post(&w->done);
}

/* Runs fn on the core's thread and waits until it has returned. */
static inline void on_core(struct rig *r, unsigned i, void (*fn)(struct rig_core *on, void *arg), void *arg)
{
    struct rig_work w = {.on = &r->cores[i], .fn = fn, .arg = arg};
    core_msg_init(&w.msg, rig_on_work);
    sem_init(&w.done, 0, 0);
    core_post(w.on->core, &w.msg);
    sem_wait(&w.done);
    sem_destroy(&w.done);
}

#endif
