/* See crowd.h. What is owed is no more than what was idle: nobody is let in for a connection that is at work. */
#include "http/crowd.h"

#include "base/mem.h"

struct crowd {
    pthread_mutex_t lock; /* guards members, and what they owe */
    struct list members;
    _Atomic uint64_t open, owed;
};

struct crowd *crowd_new(void)
{
    struct crowd *c;
    NEW(c);
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->members);
    return c;
}

void crowd_free(struct crowd *c)
{
    MUST(list_empty(&c->members) && atomic_load(&c->open) == 0);
    pthread_mutex_destroy(&c->lock);
    mem_free(c);
}

void crowd_join(struct crowd *c, struct crowd_member *m, struct core *core, void (*shed)(struct core_msg *m))
{
    *m = (struct crowd_member){.crowd = c, .core = core, .since_ms = INT64_MAX};
    core_msg_init(&m->shed, shed);
    pthread_mutex_lock(&c->lock);
    list_push_back(&c->members, &m->node);
    pthread_mutex_unlock(&c->lock);
}

void crowd_leave(struct crowd_member *m)
{
    pthread_mutex_lock(&m->crowd->lock);
    list_remove(&m->node);
    atomic_fetch_sub_explicit(&m->crowd->owed, m->owed, memory_order_relaxed);
    m->owed = 0;
    pthread_mutex_unlock(&m->crowd->lock);
}

bool crowd_enter(struct crowd *c, uint64_t max)
{
    uint64_t open = atomic_load_explicit(&c->open, memory_order_relaxed);
    while (open < max) {
        if (atomic_compare_exchange_weak_explicit(&c->open, &open, open + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

void crowd_exit(struct crowd *c)
{
    MUST(atomic_fetch_sub_explicit(&c->open, 1, memory_order_relaxed) > 0);
}

bool crowd_over(const struct crowd *c, uint64_t max)
{
    uint64_t owed = atomic_load_explicit(&c->owed, memory_order_relaxed);
    return atomic_load_explicit(&c->open, memory_order_relaxed) > max + owed;
}

/* Of what is idle there, and nobody has taken the place of yet. */
static unsigned spare(const struct crowd_member *m)
{
    unsigned idle = atomic_load_explicit(&m->idle, memory_order_relaxed);
    return idle > m->owed ? idle - m->owed : 0;
}

static int64_t since(const struct crowd_member *m)
{
    return atomic_load_explicit(&m->since_ms, memory_order_relaxed);
}

/* Should a rather than b close one? Who has been told already is asked after the others: how old its next one is is not known. */
static bool before(const struct crowd_member *a, const struct crowd_member *b)
{
    if (spare(a) == 0 || spare(b) == 0)
        return spare(a) > 0;
    return a->owed != b->owed ? a->owed < b->owed : since(a) < since(b);
}

bool crowd_replace(struct crowd_member *m)
{
    struct crowd *c = m->crowd;
    struct crowd_member *first = m;
    pthread_mutex_lock(&c->lock);
    LIST_FOREACH (n, &c->members) {
        struct crowd_member *other = CONTAINER_OF(n, struct crowd_member, node);
        if (before(other, first))
            first = other;
    }
    bool found = first != m;
    if (found) {
        first->owed++;
        atomic_fetch_add_explicit(&c->owed, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->open, 1, memory_order_relaxed);
        core_post(first->core, &first->shed);
    }
    pthread_mutex_unlock(&c->lock);
    return found;
}

void crowd_idle(struct crowd_member *m, int change, int64_t since_ms)
{
    unsigned idle = atomic_load_explicit(&m->idle, memory_order_relaxed);
    atomic_store_explicit(&m->idle, idle + (unsigned)change, memory_order_relaxed);
    atomic_store_explicit(&m->since_ms, since_ms, memory_order_relaxed);
}

unsigned crowd_owed(struct crowd_member *m)
{
    pthread_mutex_lock(&m->crowd->lock);
    unsigned owed = m->owed;
    m->owed = 0;
    atomic_fetch_sub_explicit(&m->crowd->owed, owed, memory_order_relaxed);
    pthread_mutex_unlock(&m->crowd->lock);
    return owed;
}
