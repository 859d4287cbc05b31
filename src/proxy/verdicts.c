/* See verdicts.h. The list is in order of the last change, oldest first. An entry stays after its time is over (its pause is
 * what the next one doubles) until it is dropped or pushed out. */
#include "proxy/verdicts.h"

#include "base/map.h"
#include "base/mem.h"

#define VERDICTS_MAX 4096

struct verdict {
    struct list_node node;
    struct flight_failure failure;
    int64_t until_ms, pause_ms;
    size_t n;
    char key[];
};

struct verdicts {
    pthread_mutex_t lock; /* guards all below */
    struct map map;
    struct list list;
};

struct verdicts *verdicts_new(void)
{
    struct verdicts *v;
    NEW(v);
    pthread_mutex_init(&v->lock, NULL);
    map_init(&v->map);
    list_init(&v->list);
    return v;
}

static void remove_entry(struct verdicts *v, struct verdict *e)
{
    MUST(map_del(&v->map, span_of(e->key, e->n)) == e);
    list_remove(&e->node);
    mem_free(e);
}

void verdicts_free(struct verdicts *v)
{
    struct list_node *n;
    while ((n = list_first(&v->list)) != NULL)
        remove_entry(v, CONTAINER_OF(n, struct verdict, node));
    map_free(&v->map);
    pthread_mutex_destroy(&v->lock);
    mem_free(v);
}

static struct verdict *entry_for(struct verdicts *v, struct span key)
{
    struct verdict *e = map_get(&v->map, key);
    if (e != NULL) {
        list_remove(&e->node);
    } else {
        if (v->map.used >= VERDICTS_MAX)
            remove_entry(v, CONTAINER_OF(list_first(&v->list), struct verdict, node));
        e = mem_zalloc(sizeof *e + key.n);
        e->n = key.n;
        memcpy(e->key, key.p, key.n);
        map_put(&v->map, span_of(e->key, e->n), e);
    }
    list_push_back(&v->list, &e->node);
    return e;
}

void verdict_put(struct verdicts *v, struct span key, const struct flight_failure *f, int64_t first_ms,
                 int64_t max_ms)
{
    if (max_ms <= 0)
        return;
    pthread_mutex_lock(&v->lock);
    struct verdict *e = entry_for(v, key);
    e->failure = *f;
    e->pause_ms = e->pause_ms == 0 ? first_ms : e->pause_ms * 2;
    if (e->pause_ms > max_ms)
        e->pause_ms = max_ms;
    e->until_ms = clock_mono_ms() + e->pause_ms;
    pthread_mutex_unlock(&v->lock);
}

bool verdict_get(struct verdicts *v, struct span key, struct flight_failure *f)
{
    pthread_mutex_lock(&v->lock);
    const struct verdict *e = v->map.used > 0 ? map_get(&v->map, key) : NULL;
    bool found = e != NULL && e->until_ms > clock_mono_ms();
    if (found) {
        *f = e->failure;
        int64_t ago = clock_mono_ms() - (e->until_ms - e->pause_ms);
        if (f->retry_after_ms >= 0) /* what is left of it */
            f->retry_after_ms = f->retry_after_ms > ago ? f->retry_after_ms - ago : 0;
    }
    pthread_mutex_unlock(&v->lock);
    return found;
}

void verdict_drop(struct verdicts *v, struct span key)
{
    pthread_mutex_lock(&v->lock);
    struct verdict *e = v->map.used > 0 ? map_get(&v->map, key) : NULL;
    if (e != NULL)
        remove_entry(v, e);
    pthread_mutex_unlock(&v->lock);
}
