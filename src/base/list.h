/* Intrusive doubly linked list. A node knows whether it is linked, so that removing twice is harmless and an
 * owner can check that it is free to die. Not thread-safe: the list belongs to whoever its header says. */
#ifndef LARDER_BASE_LIST_H
#define LARDER_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/check.h"

struct list_node {
    struct list_node *next, *prev; /* both NULL: not linked */
};

struct list {
    struct list_node head;
};

static inline void list_init(struct list *l)
{
    l->head.next = l->head.prev = &l->head;
}

static inline bool list_empty(const struct list *l)
{
    return l->head.next == &l->head;
}

static inline bool list_linked(const struct list_node *n)
{
    return n->next != NULL;
}

static inline void list_add_between(struct list_node *n, struct list_node *prev, struct list_node *next)
{
    MUST(!list_linked(n));
    n->prev = prev;
    n->next = next;
    prev->next = n;
    next->prev = n;
}

static inline void list_push_back(struct list *l, struct list_node *n)
{
    list_add_between(n, l->head.prev, &l->head);
}

static inline void list_push_front(struct list *l, struct list_node *n)
{
    list_add_between(n, &l->head, l->head.next);
}

static inline void list_remove(struct list_node *n) /* not linked: a no-op */
{
    if (!list_linked(n))
        return;
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = NULL;
}

static inline struct list_node *list_first(const struct list *l) /* NULL when empty */
{
    return list_empty(l) ? NULL : l->head.next;
}

static inline struct list_node *list_last(const struct list *l)
{
    return list_empty(l) ? NULL : l->head.prev;
}

static inline struct list_node *list_pop_front(struct list *l)
{
    struct list_node *n = list_first(l);
    if (n != NULL)
        list_remove(n);
    return n;
}

/* Moves all nodes of `from` to the end of `to`. Used to detach a list before running callbacks on it. */
static inline void list_move_all(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->head.next->prev = to->head.prev;
    from->head.prev->next = &to->head;
    to->head.prev->next = from->head.next;
    to->head.prev = from->head.prev;
    list_init(from);
}

#define LIST_FOREACH(n, l) for (struct list_node *n = (l)->head.next; n != &(l)->head; n = n->next)

/* The current node may be removed (and freed) in the body, no other. */
#define LIST_FOREACH_SAFE(n, tmp, l)                                                                         \
    for (struct list_node *n = (l)->head.next, *tmp = n->next; n != &(l)->head; n = tmp, tmp = n->next)

#endif
