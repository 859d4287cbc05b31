#include "test.h"

#include <pthread.h>

#include "base/ref.h"
#include "child.h"

static void the_last_drop_says_so(void **state)
{
    UNUSED(state);
    struct ref r;
    ref_init(&r);
    ref_take(&r);
    ref_take(&r);
    assert_false(ref_drop(&r));
    assert_false(ref_drop(&r));
    assert_true(ref_drop(&r));
}

struct shared {
    struct ref ref;
    int plain; /* written by the last one */
    atomic_int last;
};

static void *drop_many(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 10000; i++) {
        ref_take(&s->ref);
        if (ref_drop(&s->ref))
            atomic_fetch_add(&s->last, 1);
    }
    if (ref_drop(&s->ref)) {
        s->plain = 1;
        atomic_fetch_add(&s->last, 1);
    }
    return NULL;
}

static void one_thread_of_many_is_last(void **state)
{
    UNUSED(state);
    struct shared s = {.plain = 0};
    pthread_t threads[4];
    ref_init(&s.ref);
    for (size_t i = 1; i < ARRAY_LEN(threads); i++)
        ref_take(&s.ref);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, drop_many, &s), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(s.last, 1);
    assert_int_equal(s.plain, 1);
}

static void drop_too_often(void)
{
    struct ref r;
    ref_init(&r);
    (void)ref_drop(&r);
    (void)ref_drop(&r);
}

static void take_from_the_dead(void)
{
    struct ref r;
    ref_init(&r);
    (void)ref_drop(&r);
    ref_take(&r);
}

static void misuse_aborts(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(drop_too_often).signal, SIGABRT);
    assert_int_equal(child_run(take_from_the_dead).signal, SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_drop_says_so),
        cmocka_unit_test(one_thread_of_many_is_last),
        cmocka_unit_test(misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
