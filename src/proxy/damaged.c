#include "proxy/damaged.h"

static void on_forgotten(struct store_change *c)
{
    struct damaged *d = CONTAINER_OF(c, struct damaged, change);
    d->done(d);
}

static void work(struct job *j)
{
    struct damaged *d = CONTAINER_OF(j, struct damaged, job);
    store_quarantine(d->px->shared->store, &d->change.digest);
}

static void on_put_away(struct job *j)
{
    struct damaged *d = CONTAINER_OF(j, struct damaged, job);
    store_apply(d->px->shared->store, d->px->core, &d->change, on_forgotten);
}

void damaged_put_away(struct damaged *d, struct proxy *px, const struct digest *digest,
                      void (*done)(struct damaged *d))
{
    log_error("store", "object missing or damaged, fetching it again", LOG_D("digest", digest));
    COUNT(core_counters(px->core), store_errors, 1);
    d->px = px;
    d->done = done;
    d->change = (struct store_change){.what = CHANGE_DEL_OBJECT, .digest = *digest};
    job_start(px->core, &d->job, work, on_put_away);
}
