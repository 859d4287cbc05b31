/* Numbers for people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/people.h"

static void sizes(void **state)
{
    UNUSED(state);
    static const struct {
        uint64_t bytes;
        const char *text;
    } examples[] = {
        {0, "0 B"},
        {1023, "1023 B"},
        {1024, "1.0 KiB"},
        {1536, "1.5 KiB"},
        {1048524, "1023.9 KiB"},
        {1048525, "1.0 MiB"}, /* and not 1024.0 KiB */
        {1048576, "1.0 MiB"},
        {5ull << 30, "5.0 GiB"},
        {3ull << 40, "3.0 TiB"},
        {1ull << 50, "1.0 PiB"},
        {UINT64_MAX, "16.0 EiB"},
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char buf[32];
        struct str s = STR_INIT(buf);
        people_size(&s, examples[i].bytes);
        assert_string_equal(buf, examples[i].text);
    }
}

static void ages(void **state)
{
    UNUSED(state);
    static const struct {
        int64_t ms;
        const char *text;
    } examples[] = {
        {-5, "0 s"},         {0, "0 s"},          {59999, "59 s"},
        {60000, "1 min"},    {3599999, "59 min"}, {3600000, "1 h"},
        {172799999, "47 h"}, {172800000, "2 d"},  {INT64_MAX, "106751991167 d"},
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char buf[32];
        struct str s = STR_INIT(buf);
        people_age(&s, examples[i].ms);
        assert_string_equal(buf, examples[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(ages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
