/* The unified format, against texts written by hand. */
#include "conf_test.h"

#include "conf/diff.h"

static void expect(const char *before, const char *after, const char *want)
{
    struct arena *a = arena_new();
    struct span got = diff_unified(a, span_str(before), span_str(after), SPAN("f"));
    assert_int_equal(got.n, strlen(want));
    assert_memory_equal(got.p, want, got.n);
    arena_free(a);
}

#define HEAD "--- f\n+++ f\n"

static void small_ones(void **state)
{
    UNUSED(state);
    expect("", "", "");
    expect("a\nb\n", "a\nb\n", "");
    expect("", "a\n", HEAD "@@ -0,0 +1 @@\n+a\n");
    expect("a\n", "", HEAD "@@ -1 +0,0 @@\n-a\n");
    expect("a\n", "b\n", HEAD "@@ -1 +1 @@\n-a\n+b\n");
    expect("a\nc\n", "a\nb\nc\n", HEAD "@@ -1,2 +1,3 @@\n a\n+b\n c\n");
    expect("a\na\n", "a\n", HEAD "@@ -1,2 +1 @@\n a\n-a\n");
    expect("x\na\nb\nc\ny\n", "x\nb\nd\ny\n", HEAD "@@ -1,5 +1,4 @@\n x\n-a\n b\n-c\n+d\n y\n");
}

static void no_newline_at_the_end(void **state)
{
    UNUSED(state);
    expect("a", "a\n", HEAD "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n");
    expect("a\n", "a", HEAD "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n");
    expect("a\nb", "b", HEAD "@@ -1,2 +1 @@\n-a\n b\n\\ No newline at end of file\n");
}

static void hunks(void **state)
{
    UNUSED(state);
    expect("1\n2\n3\n4\n5\n6\n7\n8\n", "1\n2\n3\n4\nx\n5\n6\n7\n8\n",
           HEAD "@@ -2,6 +2,7 @@\n 2\n 3\n 4\n+x\n 5\n 6\n 7\n");
    /* Six lines between two changes are one hunk, seven are two. */
    expect("a\n1\n2\n3\n4\n5\n6\nb\n", "1\n2\n3\n4\n5\n6\n",
           HEAD "@@ -1,8 +1,6 @@\n-a\n 1\n 2\n 3\n 4\n 5\n 6\n-b\n");
    expect("a\n1\n2\n3\n4\n5\n6\n7\nb\n", "1\n2\n3\n4\n5\n6\n7\n",
           HEAD "@@ -1,4 +1,3 @@\n-a\n 1\n 2\n 3\n@@ -6,4 +5,3 @@\n 5\n 6\n 7\n-b\n");
}

/* Texts whose middles are too large to be compared line by line: the diff is long, and still says what changed. */
static void large_ones(void **state)
{
    UNUSED(state);
    enum { LINES = 4000 };
    struct arena *a = arena_new();
    size_t cap = LINES * 8;
    struct str x = str_init(arena_alloc(a, cap), cap), y = str_init(arena_alloc(a, cap), cap);
    for (unsigned i = 0; i < LINES; i++) {
        str_addf(&x, "a%u\n", i);
        str_addf(&y, "b%u\n", i);
    }
    struct span got = diff_unified(a, str_span(&x), str_span(&y), SPAN("f"));
    assert_int_equal(got.n, strlen(HEAD "@@ -1,4000 +1,4000 @@\n") + x.n + y.n + 2 * LINES);
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_ones),
        cmocka_unit_test(no_newline_at_the_end),
        cmocka_unit_test(hunks),
        cmocka_unit_test(large_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
