/* Memory for secrets: zeroed, apart from core dumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "proxy/secret_mem.h"

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

#if !defined(__SANITIZE_ADDRESS__) /* where each piece is an allocation */

/* The flags of the mapping that holds an address; see proc(5). */
static bool mapping_flags(const void *address, char *flags, size_t cap)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    bool inside = false, found = false;
    if (f == NULL)
        return false;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        found = inside && strncmp(line, "VmFlags:", 8) == 0;
    }
    fclose(f);
    if (found)
        snprintf(flags, cap, "%s", line);
    return found;
}

static void test_not_in_core_dumps(void **state)
{
    UNUSED(state);
    char flags[512];
    char *p = secret_alloc(10000), *plain = flags;
    if (!mapping_flags(p + 9999, flags, sizeof flags)) {
        secret_free(p);
        skip(); /* a kernel without this file */
    }
    assert_non_null(strstr(flags, " dd"));
    assert_true(mapping_flags(plain, flags, sizeof flags));
    assert_null(strstr(flags, " dd")); /* the test can tell */
    secret_free(p);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc),
#if !defined(__SANITIZE_ADDRESS__)
        cmocka_unit_test(test_not_in_core_dumps),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
