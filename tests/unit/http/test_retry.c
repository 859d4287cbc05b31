/* Retry-After in its forms, and rate-limit fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "http/retry.h"

#define NOW INT64_C(1769860800000) /* Sat, 31 Jan 2026 12:00:00 GMT */
#define MAX RETRY_AFTER_MAX_MS

static void retry_after(void **state)
{
    UNUSED(state);
    static const struct {
        struct span value;
        int64_t ms;
    } cases[] = {
        {SPAN("0"), 0},
        {SPAN("1"), 1000},
        {SPAN("120"), 120000},
        {SPAN(" \t120 \t"), 120000},
        {SPAN("000120"), 120000},
        {SPAN("3599"), 3599000},
        {SPAN("3600"), MAX},
        {SPAN("3601"), MAX},
        {SPAN("18446744073709551615"), MAX},
        {SPAN("99999999999999999999999999999999999999999999"), MAX},
        {SPAN_NONE, -1},
        {SPAN(""), -1},
        {SPAN(" "), -1},
        {SPAN("-1"), -1},
        {SPAN("+1"), -1},
        {SPAN("1.5"), -1},
        {SPAN("1s"), -1},
        {SPAN("0x10"), -1},
        {SPAN("1,2"), -1},
        {SPAN("1 2"), -1},
        {SPAN("1\0"), -1},
        {SPAN("soon"), -1},
        /* the form that is written today */
        {SPAN("Sat, 31 Jan 2026 12:00:30 GMT"), 30000},
        {SPAN("  Sat, 31 Jan 2026 12:00:30 GMT "), 30000},
        {SPAN("Sat, 31 Jan 2026 12:00:00 GMT"), 0},
        {SPAN("Sat, 31 Jan 2026 11:59:59 GMT"), 0},
        {SPAN("Sun, 06 Nov 1994 08:49:37 GMT"), 0},
        {SPAN("Sat, 01 Jan 0001 00:00:00 GMT"), 0},
        {SPAN("Sat, 31 Jan 2026 12:59:59 GMT"), MAX - 1000},
        {SPAN("Sat, 31 Jan 2026 13:00:00 GMT"), MAX},
        {SPAN("Sun, 01 Feb 2026 00:00:00 GMT"), MAX},
        {SPAN("Fri, 31 Dec 9999 23:59:59 GMT"), MAX},
        {SPAN("Mon, 31 Jan 2026 12:00:30 GMT"), 30000}, /* the wrong weekday */
        {SPAN("Sat, 31 Jan 2026 12:00:60 GMT"), 60000}, /* a leap second */
        {SPAN("sat, 31 Jan 2026 12:00:30 GMT"), -1},
        {SPAN("Sat, 31 jan 2026 12:00:30 GMT"), -1},
        {SPAN("Sat, 31 Jan 2026 12:00:30 CET"), -1},
        {SPAN("Sat, 31 Jan 2026 12:00:30"), -1},
        {SPAN("Sat, 31 Jan 2026 12:00:30 GMT+1"), -1},
        {SPAN("Sat, 31 Jan 2026 12:00:30 GMT\0"), -1},
        {SPAN("Sat 31 Jan 2026 12:00:30 GMT"), -1},
        {SPAN("Sat,  1 Feb 2026 12:00:30 GMT"), -1},
        {SPAN("Sat, 1 Feb 2026 12:00:30 GMT"), -1},
        {SPAN("Sat, 30 Feb 2026 12:00:30 GMT"), -1},
        {SPAN("Sat, 31 Jan 2026 24:00:30 GMT"), -1},
        {SPAN("Sat, 31 Jan 2026 12:60:30 GMT"), -1},
        {SPAN("Sat, 31 Jan 2026 12:00:61 GMT"), -1},
        {SPAN("Sat, 31 Jan 26 12:00:30 GMT"), -1},
        {SPAN("Sat, -1 Jan 2026 12:00:30 GMT"), -1},
        {SPAN("Saturday, 31 Jan 2026 12:00:30 GMT"), -1},
        {SPAN("Sat, "), -1},
        {SPAN("2026-01-31T12:00:30Z"), -1},
        /* RFC 850 */
        {SPAN("Saturday, 31-Jan-26 12:00:30 GMT"), 30000},
        {SPAN("Sunday, 06-Nov-94 08:49:37 GMT"), 0},
        {SPAN("Saturday, 31-Jan-70 12:00:30 GMT"), MAX}, /* 2070 */
        {SPAN("Saturday, 31-Dec-75 12:00:30 GMT"), MAX}, /* 2075 */
        {SPAN("Saturday, 31-Dec-76 12:00:30 GMT"), 0},   /* 1976: 2076 would be more than 50 years ahead */
        {SPAN("Tuesday, 29-Feb-00 12:00:30 GMT"), 0},    /* 2000: 1900 had no such day */
        {SPAN("Sat, 31-Jan-26 12:00:30 GMT"), -1},
        {SPAN("Saturday, 31-Jan-2026 12:00:30 GMT"), -1},
        {SPAN("Saturday, 29-Feb-26 12:00:30 GMT"), -1},
        {SPAN("Saturday, 31-Jan-26 12:00:30"), -1},
        /* asctime() */
        {SPAN("Sat Jan 31 12:00:30 2026"), 30000},
        {SPAN("Sun Feb  1 12:00:00 2026"), MAX},
        {SPAN("Sun Nov  6 08:49:37 1994"), 0},
        {SPAN("Sun Feb 1 12:00:00 2026"), -1},
        {SPAN("Sun Feb  01 12:00:00 2026"), -1},
        {SPAN("Sun Feb   1 12:00:00 2026"), -1},
        {SPAN("Sat Jan 31 12:00:30 2026 GMT"), -1},
        {SPAN("Sat Jan 31 12:00:30 26"), -1},
        {SPAN("Sat Jan 32 12:00:30 2026"), -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(retry_after_parse(cases[i].value, NOW), cases[i].ms);
}

static void dates_of_the_clock_are_read_back(void **state)
{
    UNUSED(state);
    for (int64_t now = 0; now < INT64_C(32503680000000); now += INT64_C(777777777000)) {
        char buf[64];
        struct str s = STR_INIT(buf);
        clock_add_http_date(&s, now + 59000);
        assert_int_equal(retry_after_parse(str_span(&s), now), 59000);
    }
}

static void ratelimits(void **state)
{
    UNUSED(state);
    static const struct {
        struct span value;
        bool ok;
        uint64_t count, window;
    } cases[] = {
        {SPAN("100;w=21600"), true, 100, 21600},
        {SPAN("0;w=21600"), true, 0, 21600},
        {SPAN(" 76 ; w=21600 "), true, 76, 21600},
        {SPAN("4999"), true, 4999, 0},
        {SPAN("100;"), true, 100, 0},
        {SPAN("100;burst=5;w=60;policy=\"x\""), true, 100, 60},
        {SPAN("99999999999999999999;w=99999999999999999999"), true, UINT64_MAX, UINT64_MAX},
        {SPAN_NONE, false, 0, 0},
        {SPAN(""), false, 0, 0},
        {SPAN(";w=1"), false, 0, 0},
        {SPAN("-1;w=21600"), false, 0, 0},
        {SPAN("1.5;w=21600"), false, 0, 0},
        {SPAN("100, 200;w=1"), false, 0, 0},
        {SPAN("limit=100;w=1"), false, 0, 0},
        {SPAN("100;w="), false, 0, 0},
        {SPAN("100;w=-1"), false, 0, 0},
        {SPAN("100;w=6h"), false, 0, 0},
        {SPAN("100;w=1;w=2"), false, 0, 0},
        {SPAN("100\0;w=1"), false, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t count, window;
        assert_int_equal(ratelimit_parse(cases[i].value, &count, &window), cases[i].ok);
        if (cases[i].ok) {
            assert_int_equal(count, cases[i].count);
            assert_int_equal(window, cases[i].window);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_after),
        cmocka_unit_test(dates_of_the_clock_are_read_back),
        cmocka_unit_test(ratelimits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
