#include "test.h"

#include <stdio.h>

#include "base/map.h"
#include "base/mem.h"
#include "child.h"

struct item {
    char name[16];
    size_t n;
    bool in;
};

static struct span item_key(const struct item *it)
{
    return span_of(it->name, it->n);
}

static void item_name(struct item *it, unsigned number)
{
    it->n = (size_t)snprintf(it->name, sizeof(it->name), "key-%u", number);
}

static void empty_map(void **state)
{
    UNUSED(state);
    struct map m;
    size_t pos = 0;
    map_init(&m);
    assert_null(map_get(&m, SPAN("x")));
    assert_null(map_del(&m, SPAN("x")));
    assert_null(map_next(&m, &pos));
    map_free(&m);
    map_free(&m);
}

static void put_get_del(void **state)
{
    UNUSED(state);
    struct map m;
    int one = 1, two = 2, empty = 3;
    map_init(&m);
    map_put(&m, SPAN("a"), &one);
    map_put(&m, SPAN("a\0"), &two);
    map_put(&m, SPAN(""), &empty);
    assert_int_equal(m.used, 3);
    assert_ptr_equal(map_get(&m, SPAN("a")), &one);
    assert_ptr_equal(map_get(&m, SPAN("a\0")), &two);
    assert_ptr_equal(map_get(&m, SPAN("")), &empty);
    assert_ptr_equal(map_get(&m, SPAN_NONE), &empty);
    assert_ptr_equal(map_get_hashed(&m, SPAN("a"), map_hash(SPAN("a"))), &one);
    assert_null(map_get(&m, SPAN("b")));
    assert_ptr_equal(map_del(&m, SPAN("a")), &one);
    assert_null(map_del(&m, SPAN("a")));
    assert_null(map_get(&m, SPAN("a")));
    assert_int_equal(m.used, 2);
    map_free(&m);
}

static unsigned random_next(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Puts and deletes at random, and compares with what should be there; in a small table entries wrap around the end. */
static void compare_with_model(size_t count, unsigned rounds, unsigned seed)
{
    struct item *items = mem_zalloc(count * sizeof(*items));
    struct map m;
    size_t used = 0;

    map_init(&m);
    for (size_t i = 0; i < count; i++)
        item_name(&items[i], (unsigned)i + seed * 1000);
    for (unsigned r = 0; r < rounds; r++) {
        struct item *it = &items[random_next(&seed) % count];
        if (it->in) {
            assert_ptr_equal(map_del(&m, item_key(it)), it);
            used--;
        } else {
            assert_null(map_del(&m, item_key(it)));
            map_put(&m, item_key(it), it);
            used++;
        }
        it->in = !it->in;
        assert_int_equal(m.used, used);
        assert_true(m.used * 4 <= m.cap * 3);
        if (count > 100 && r % 1000 != 0)
            continue;
        for (size_t i = 0; i < count; i++)
            assert_ptr_equal(map_get(&m, item_key(&items[i])), items[i].in ? &items[i] : NULL);
    }

    size_t pos = 0, seen = 0;
    for (struct item *it; (it = map_next(&m, &pos)) != NULL; seen++) {
        assert_true(it->in);
        it->in = false; /* so that meeting it twice is seen */
    }
    assert_int_equal(seen, used);
    map_free(&m);
    mem_free(items);
}

static void random_operations_match_the_model(void **state)
{
    UNUSED(state);
    for (unsigned seed = 1; seed <= 50; seed++)
        compare_with_model(14, 500, seed);
    compare_with_model(5000, 30000, 99);
}

static void put_twice(void)
{
    struct map m;
    int value = 1;
    map_init(&m);
    map_put(&m, SPAN("a"), &value);
    map_put(&m, SPAN("a"), &value);
}

static void put_null(void)
{
    struct map m;
    map_init(&m);
    map_put(&m, SPAN("a"), NULL);
}

static void misuse_aborts(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(put_twice).signal, SIGABRT);
    assert_int_equal(child_run(put_null).signal, SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_map),
        cmocka_unit_test(put_get_del),
        cmocka_unit_test(random_operations_match_the_model),
        cmocka_unit_test(misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
