#include "test.h"

#include "base/arena.h"
#include "child.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#endif

static void memory_is_zeroed_aligned_and_apart(void **state)
{
    UNUSED(state);
    struct arena *a = arena_new();
    unsigned char *kept[2000];
    size_t sum = 0;

    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        size_t size = i % 97 + 1;
        kept[i] = arena_alloc(a, size);
        assert_int_equal((uintptr_t)kept[i] % _Alignof(max_align_t), 0);
        for (size_t j = 0; j < size; j++)
            assert_int_equal(kept[i][j], 0);
        memset(kept[i], (int)(i % 251), size);
        sum += size;
    }
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        for (size_t j = 0; j < i % 97 + 1; j++)
            assert_int_equal(kept[i][j], i % 251);
    }
    assert_int_equal(arena_size(a), sum);
    arena_free(a);
    arena_free(NULL);
}

static void large_and_empty_allocations(void **state)
{
    UNUSED(state);
    struct arena *a = arena_new();
    char *large = arena_alloc(a, 1 << 20);
    memset(large, 'x', 1 << 20);
    char *p = arena_alloc(a, 0), *q = arena_alloc(a, 0);
    assert_ptr_not_equal(p, q);
    char *exact = arena_alloc(a, 16 * 1024);
    memset(exact, 'y', 16 * 1024);
    assert_int_equal(large[(1 << 20) - 1], 'x');
    arena_free(a);
}

static void copies_are_terminated(void **state)
{
    UNUSED(state);
    struct arena *a = arena_new();
    char bytes[] = {'a', 'b', 'c', 'd'};
    char *copy = arena_strndup(a, bytes, 3);
    struct span s = arena_span(a, span_of(bytes, 4));
    bytes[0] = 'X';
    assert_string_equal(copy, "abc");
    assert_span(s, "abcd");
    assert_int_equal(s.p[4], 0);
    assert_string_equal(arena_strndup(a, NULL, 0), "");
    assert_null(arena_span(a, SPAN_NONE).p);
    struct span empty = arena_span(a, SPAN(""));
    assert_non_null(empty.p);
    assert_int_equal(empty.n, 0);
    arena_free(a);
}

static volatile size_t past_the_end = 10;

static void overrun(void)
{
    struct arena *a = arena_new();
    char *p = arena_alloc(a, 10);
    (void)arena_alloc(a, 10);
    p[past_the_end] = 'x';
    arena_free(a);
}

static void address_sanitizer_sees_overruns(void **state)
{
    UNUSED(state);
    struct child c = child_run(overrun);
#ifdef WITH_ASAN
    assert_non_null(strstr(c.text, "heap-buffer-overflow"));
#else
    assert_string_equal(c.text, "");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_apart),
        cmocka_unit_test(large_and_empty_allocations),
        cmocka_unit_test(copies_are_terminated),
        cmocka_unit_test(address_sanitizer_sees_overruns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
