/* See helper_turn.h. A turn that ends goes to the first that waits without ever being free. */
#include "proxy/helper_turn.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static unsigned taken;
static struct list waiting = {{&waiting.head, &waiting.head}};

static void on_come(struct core_msg *m)
{
    struct helper_turn *t = CONTAINER_OF(m, struct helper_turn, msg);
    t->come(t);
}

void helper_turn_init(struct helper_turn *t, struct core *core, void (*come)(struct helper_turn *t))
{
    *t = (struct helper_turn){.core = core, .come = come};
    core_msg_init(&t->msg, on_come);
}

bool helper_turn_take(struct helper_turn *t)
{
    core_check(t->core);
    pthread_mutex_lock(&lock);
    bool now = taken < HELPERS_AT_ONCE;
    if (now)
        taken++;
    else
        list_push_back(&waiting, &t->node);
    pthread_mutex_unlock(&lock);
    return now;
}

bool helper_turn_leave(struct helper_turn *t)
{
    core_check(t->core);
    pthread_mutex_lock(&lock);
    bool waits = list_linked(&t->node);
    list_remove(&t->node);
    pthread_mutex_unlock(&lock);
    return waits;
}

void helper_turn_over(void)
{
    pthread_mutex_lock(&lock);
    MUST(taken > 0);
    if (list_empty(&waiting)) {
        taken--;
    } else {
        struct helper_turn *next = CONTAINER_OF(list_first(&waiting), struct helper_turn, node);
        list_remove(&next->node);
        core_post(next->core, &next->msg); /* under the lock: it may not go before */
    }
    pthread_mutex_unlock(&lock);
}
