/* Memory for secrets: zeroed, apart from core dumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "dumped.h"

#include "base/secret_mem.h"

static void test_alloc(void **state)
{
    UNUSED(state);
    static const size_t sizes[] = {0, 1, 15, 16, 4080, 4081, 70000};
    char *p[ARRAY_LEN(sizes)];
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        p[i] = secret_alloc(sizes[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(p[i][at], 0);
        memset(p[i], 'x', sizes[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        secret_free(p[i]);
    secret_free(NULL);
}

static void test_not_in_core_dumps(void **state)
{
    UNUSED(state);
    char *p = secret_alloc(10000);
    assert_true(is_left_out(p));
    assert_true(is_left_out(p + 9999));
    secret_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_not_in_core_dumps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
