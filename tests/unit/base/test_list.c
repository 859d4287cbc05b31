#include "test.h"

#include "base/list.h"
#include "child.h"

struct item {
    int n;
    struct list_node node;
};

static void fill(struct list *l, struct item *items, int count)
{
    list_init(l);
    for (int i = 0; i < count; i++) {
        items[i] = (struct item){.n = i};
        list_push_back(l, &items[i].node);
    }
}

static struct item *item_of(struct list_node *n)
{
    return CONTAINER_OF(n, struct item, node);
}

static void keeps_order_at_both_ends(void **state)
{
    UNUSED(state);
    struct list l;
    struct item items[3], front = {.n = -1};
    fill(&l, items, 3);
    list_push_front(&l, &front.node);

    int expected = -1;
    LIST_FOREACH (n, &l)
        assert_int_equal(item_of(n)->n, expected++);
    assert_int_equal(expected, 3);
    assert_int_equal(item_of(list_first(&l))->n, -1);
    assert_int_equal(item_of(list_last(&l))->n, 2);
}

static void nodes_know_whether_they_are_linked(void **state)
{
    UNUSED(state);
    struct list l;
    struct item items[2];
    fill(&l, items, 2);
    assert_true(list_linked(&items[0].node));
    list_remove(&items[0].node);
    list_remove(&items[0].node);
    assert_false(list_linked(&items[0].node));
    assert_ptr_equal(list_pop_front(&l), &items[1].node);
    assert_false(list_linked(&items[1].node));
    assert_true(list_empty(&l));
    assert_null(list_pop_front(&l));
    assert_null(list_first(&l));
    assert_null(list_last(&l));
}

static void all_may_go_while_iterating(void **state)
{
    UNUSED(state);
    struct list l;
    struct item items[5];
    int seen = 0;
    fill(&l, items, 5);
    LIST_FOREACH_SAFE (n, tmp, &l) {
        assert_int_equal(item_of(n)->n, seen++);
        list_remove(n);
    }
    assert_int_equal(seen, 5);
    assert_true(list_empty(&l));
}

static void move_all_appends_and_empties(void **state)
{
    UNUSED(state);
    struct list a, b;
    struct item first[2], second[2];
    fill(&a, first, 2);
    fill(&b, second, 2);
    list_move_all(&a, &b);
    assert_true(list_empty(&b));
    list_move_all(&a, &b);

    static const int expected[] = {0, 1, 0, 1};
    size_t i = 0;
    LIST_FOREACH (n, &a)
        assert_int_equal(item_of(n)->n, expected[i++]);
    assert_int_equal(i, 4);
    for (struct list_node *n = list_last(&a); i > 0; n = n->prev)
        assert_int_equal(item_of(n)->n, expected[--i]);
}

static void push_twice(void)
{
    struct list l;
    struct item it;
    fill(&l, &it, 1);
    list_push_back(&l, &it.node);
}

static void pushing_a_linked_node_aborts(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(push_twice).signal, SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_order_at_both_ends),     cmocka_unit_test(nodes_know_whether_they_are_linked),
        cmocka_unit_test(all_may_go_while_iterating),   cmocka_unit_test(move_all_appends_and_empties),
        cmocka_unit_test(pushing_a_linked_node_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
