/* uv_signal with an owner. */
#include <uv.h>

#include "base/mem.h"
#include "core/core.h"
#include "core/signal.h"

struct signal_watch {
    uv_signal_t handle;
    void (*got)(int signum, void *arg);
    void *arg;
};

static void on_signal(uv_signal_t *handle, int signum)
{
    struct signal_watch *w = handle->data;
    w->got(signum, w->arg);
}

struct signal_watch *signal_watch(struct core *c, int signum, void (*got)(int signum, void *arg), void *arg)
{
    struct signal_watch *w;
    NEW(w);
    w->got = got;
    w->arg = arg;
    w->handle.data = w;
    MUST(uv_signal_init(core_loop(c), &w->handle) == 0);
    MUST(uv_signal_start(&w->handle, on_signal, signum) == 0);
    uv_unref((uv_handle_t *)&w->handle);
    return w;
}

static void on_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

void signal_unwatch(struct signal_watch *w)
{
    uv_close((uv_handle_t *)&w->handle, on_closed);
}
