#include "test.h"

#include "base/mem.h"
#include "child.h"

/* Sanitizers end the process themselves when an allocation is too large, unless told not to. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void zalloc_is_zeroed(void **state)
{
    UNUSED(state);
    for (int round = 0; round < 10; round++) {
        unsigned char *p = mem_zalloc(100);
        for (size_t i = 0; i < 100; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, 100);
        mem_free(p);
    }
}

static void no_bytes_is_still_a_pointer(void **state)
{
    UNUSED(state);
    void *a = mem_alloc(0), *b = mem_zalloc(0), *c = mem_realloc(NULL, 0);
    assert_true(a != b && b != c && a != c);
    c = mem_realloc(c, 0);
    assert_non_null(c);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(NULL);
}

static void realloc_keeps_the_bytes(void **state)
{
    UNUSED(state);
    char *p = mem_strdup("larder");
    p = mem_realloc(p, 100000);
    assert_string_equal(p, "larder");
    p = mem_realloc(p, 3);
    assert_memory_equal(p, "lar", 3);
    mem_free(p);
}

static void new_is_zeroed_and_free_clears(void **state)
{
    UNUSED(state);
    struct {
        int a;
        void *b;
    } * p;
    NEW(p);
    assert_int_equal(p->a, 0);
    assert_null(p->b);
    FREE(p);
    assert_null(p);
    FREE(p);
}

static volatile size_t huge = PTRDIFF_MAX;

static void alloc_huge(void)
{
    mem_free(mem_alloc(huge));
}

static void zalloc_huge(void)
{
    mem_free(mem_zalloc(huge));
}

static void realloc_huge(void)
{
    mem_free(mem_realloc(NULL, huge));
}

static void exhaustion_aborts_and_says_the_size(void **state)
{
    UNUSED(state);
    void (*const ways[])(void) = {alloc_huge, zalloc_huge, realloc_huge};
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct child c = child_run(ways[i]);
        assert_int_equal(c.signal, SIGABRT);
        assert_non_null(
            strstr(c.text, "larder: out of memory: the system refused 9223372036854775807 bytes"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zalloc_is_zeroed),
        cmocka_unit_test(no_bytes_is_still_a_pointer),
        cmocka_unit_test(realloc_keeps_the_bytes),
        cmocka_unit_test(new_is_zeroed_and_free_clears),
        cmocka_unit_test(exhaustion_aborts_and_says_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
