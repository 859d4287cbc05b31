#include "proxy/damaged.h"

static void work(struct job *j)
{
    struct damaged *d = CONTAINER_OF(j, struct damaged, job);
    (void)store_condemn(d->px->shared->store, &d->digest,
                        &d->was); /* false: somebody else has dealt with it */
}

static void on_put_away(struct job *j)
{
    struct damaged *d = CONTAINER_OF(j, struct damaged, job);
    d->done(d);
}

void damaged_put_away(struct damaged *d, struct proxy *px, const struct digest *digest,
                      const struct store_object *was, void (*done)(struct damaged *d))
{
    log_error("store", "object missing or damaged, fetching it again", LOG_D("digest", digest));
    COUNT(core_counters(px->core), store_errors, 1);
    d->px = px;
    d->digest = *digest;
    d->was = *was;
    d->done = done;
    job_start(px->core, &d->job, work, on_put_away);
}
