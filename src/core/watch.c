/* uv_fs_event on the folder, a timer for quiet and for the regular look, and uv_fs_stat for the look itself.
 *
 * `looking`: a stat is on the pool; the timer rests, and what happens meanwhile leads to another look. The struct is freed when both
 * handles are closed and no stat is under way. */
#include <string.h>
#include <uv.h>

#include "base/mem.h"
#include "core/core.h"
#include "core/watch.h"

#define QUIET_MS 150 /* after an event: editors and ConfigMaps do several things in a row */
#define LATEST_MS                                                                                            \
    1000 /* after the first of many events: a folder in which something is written all the time has no quiet */
#define REGULAR_MS 5000 /* without events: network file systems, folders that came later */
#define GONE_MS    8000 /* a file that is missing for so long is not being replaced: two regular looks */

struct look {
    uint64_t dev, ino, size;
    int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
};

struct file_watch {
    char *path, *folder;
    void (*changed)(void *arg);
    void *arg;
    struct look last; /* all zero: it was not there */
    bool first;       /* call after the first look, too */
    bool known, looking, closing, watching;
    uint64_t missed_at; /* the first look that did not find a file that was there before; 0: none */
    uint64_t event_at;  /* the first event since the last look began; 0: none */
    unsigned handles;
    uv_fs_event_t events;
    uv_timer_t timer;
    uv_fs_t stat;
};

static void look(struct file_watch *w);

static void watch_events(struct file_watch *w);

static void free_if_done(struct file_watch *w)
{
    if (!w->closing || w->handles > 0 || w->looking)
        return;
    mem_free(w->path);
    mem_free(w->folder);
    mem_free(w);
}

static void on_timer(uv_timer_t *t)
{
    struct file_watch *w = t->data;
    watch_events(w);
    look(w);
}

static void look_in(struct file_watch *w, uint64_t ms)
{
    MUST(uv_timer_start(&w->timer, on_timer, ms, 0) == 0);
}

static void look_soon(struct file_watch *w)
{
    uint64_t waited = uv_now(w->timer.loop) - w->event_at;
    uint64_t left = waited < LATEST_MS ? LATEST_MS - waited : 0;
    look_in(w, left < QUIET_MS ? left : QUIET_MS);
}

static struct look look_of(const uv_stat_t *st)
{
    return (struct look){.dev = st->st_dev,
                         .ino = st->st_ino,
                         .size = st->st_size,
                         .mtime_s = st->st_mtim.tv_sec,
                         .mtime_ns = st->st_mtim.tv_nsec,
                         .ctime_s = st->st_ctim.tv_sec,
                         .ctime_ns = st->st_ctim.tv_nsec};
}

static bool same_look(const struct look *a, const struct look *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* A file that is missing for a moment comes back as another one, or as it was; one that stays away has changed, once. */
static bool has_gone(struct file_watch *w)
{
    static const struct look nothing;
    uint64_t now = uv_now(w->timer.loop);
    bool was_there = w->known ? !same_look(&w->last, &nothing) : w->first;
    if (!was_there && w->missed_at == 0)
        return false;
    if (w->missed_at == 0)
        w->missed_at = now;
    if (now - w->missed_at < GONE_MS)
        return false;
    w->missed_at = 0;
    w->last = nothing;
    return true;
}

static bool has_come_or_changed(struct file_watch *w, const struct look *now)
{
    bool changed = w->known ? !same_look(now, &w->last) : w->first;
    w->last = *now;
    w->missed_at = 0;
    return changed;
}

static void on_stat(uv_fs_t *req)
{
    struct file_watch *w = req->data;
    struct look now = req->result == 0 ? look_of(&req->statbuf) : (struct look){0};
    bool there = req->result == 0;
    uv_fs_req_cleanup(req);
    w->looking = false;
    if (w->closing) {
        free_if_done(w);
        return;
    }
    bool changed = there ? has_come_or_changed(w, &now) : has_gone(w);
    w->known = true;
    if (w->event_at != 0)
        look_soon(w);
    else
        look_in(w, REGULAR_MS);
    if (changed)
        w->changed(w->arg);
}

static void look(struct file_watch *w)
{
    w->event_at = 0;
    w->looking = true;
    w->stat.data = w;
    MUST(uv_fs_stat(w->timer.loop, &w->stat, w->path, on_stat) == 0);
}

static void on_event(uv_fs_event_t *e, const char *name, int events, int status)
{
    struct file_watch *w = e->data;
    UNUSED(name);
    UNUSED(events);
    if (status < 0) {
        (void)uv_fs_event_stop(e);
        w->watching = false;
    }
    if (w->event_at == 0)
        w->event_at = uv_now(e->loop);
    if (!w->looking)
        look_soon(w);
}

/* Begins to watch the folder, or begins anew: one that was removed and made again has no watch any more. */
static void watch_events(struct file_watch *w)
{
    if (w->watching)
        (void)uv_fs_event_stop(&w->events);
    w->watching = uv_fs_event_start(&w->events, on_event, w->folder, 0) == 0;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return mem_strdup(".");
    size_t n = slash == path ? 1 : (size_t)(slash - path);
    char *folder = mem_alloc(n + 1);
    memcpy(folder, path, n);
    folder[n] = 0;
    return folder;
}

struct file_watch *file_watch_new(struct core *c, const char *path, bool first, void (*changed)(void *arg),
                                  void *arg)
{
    struct file_watch *w;
    NEW(w);
    w->path = mem_strdup(path);
    w->folder = folder_of(path);
    w->first = first;
    w->changed = changed;
    w->arg = arg;
    w->handles = 2;
    w->events.data = w->timer.data = w;
    MUST(uv_fs_event_init(core_loop(c), &w->events) == 0);
    MUST(uv_timer_init(core_loop(c), &w->timer) == 0);
    uv_unref((uv_handle_t *)&w->events);
    uv_unref((uv_handle_t *)&w->timer);
    watch_events(w);
    look(w);
    return w;
}

static void on_closed(uv_handle_t *h)
{
    struct file_watch *w = h->data;
    w->handles--;
    free_if_done(w);
}

void file_watch_free(struct file_watch *w)
{
    w->closing = true;
    uv_close((uv_handle_t *)&w->events, on_closed);
    uv_close((uv_handle_t *)&w->timer, on_closed);
}
