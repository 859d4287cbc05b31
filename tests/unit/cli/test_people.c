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

static void progress(void **state)
{
    UNUSED(state);
    static const struct {
        const char *name;
        uint64_t done, all;
        size_t columns;
        const char *text;
    } examples[] = {
        {"t/app:v1", 0, 0, 79, "t/app:v1 [                    ]   0%  0 B of 0 B"}, /* not known yet */
        {"t/app:v1", 1 << 20, 4 << 20, 79, "t/app:v1 [#####               ]  25%  1.0 MiB of 4.0 MiB"},
        {"t/app:v1", 999, 1000, 79, "t/app:v1 [################### ]  99%  999 B of 1000 B"},
        {"t/app:v1", 5, 5, 79, "t/app:v1 [####################] 100%  5 B of 5 B"},
        {"t/app:v1", 6, 5, 79, "t/app:v1 [####################] 100%  6 B of 5 B"},
        {"registry.example/a/long/name:v1", 5, 5, 60,
         "...le/a/long/name:v1 [####################] 100%  5 B of 5 B"},
        {"registry.example/a/long/name:v1", 5, 5, 0, "...g/name:v1 [####################] 100%  5 B of 5 B"},
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char buf[200];
        struct str s = STR_INIT(buf);
        people_progress(&s, span_str(examples[i].name), examples[i].done, examples[i].all,
                        examples[i].columns);
        assert_string_equal(buf, examples[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(ages),
        cmocka_unit_test(progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
