#include "test.h"

#include <time.h>

#include "base/clock.h"

static void known_moments(void **state)
{
    UNUSED(state);
    static const struct {
        int64_t ms;
        const char *rfc3339, *http;
    } moments[] = {
        {0, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"},
        {784111777000, "1994-11-06T08:49:37.000Z", "Sun, 06 Nov 1994 08:49:37 GMT"},
        {951782399999, "2000-02-28T23:59:59.999Z", "Mon, 28 Feb 2000 23:59:59 GMT"},
        {951782400000, "2000-02-29T00:00:00.000Z", "Tue, 29 Feb 2000 00:00:00 GMT"},
        {951868800000, "2000-03-01T00:00:00.000Z", "Wed, 01 Mar 2000 00:00:00 GMT"},
        {1769860800123, "2026-01-31T12:00:00.123Z", "Sat, 31 Jan 2026 12:00:00 GMT"},
        {4107542400000, "2100-03-01T00:00:00.000Z", "Mon, 01 Mar 2100 00:00:00 GMT"},
        {253402300799999, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"},
        /* outside: the nearest end */
        {-1, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"},
        {INT64_MIN, "1970-01-01T00:00:00.000Z", "Thu, 01 Jan 1970 00:00:00 GMT"},
        {253402300800000, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z", "Fri, 31 Dec 9999 23:59:59 GMT"},
    };
    for (size_t i = 0; i < ARRAY_LEN(moments); i++) {
        char buf[64];
        struct str s = STR_INIT(buf);
        clock_add_rfc3339(&s, moments[i].ms);
        assert_str(s, moments[i].rfc3339);
        str_reset(&s);
        clock_add_http_date(&s, moments[i].ms);
        assert_str(s, moments[i].http);
    }
}

/* Every day of 1970 to 2410 and every 100th to 9999, against libc. */
static void every_day_as_libc_has_it(void **state)
{
    UNUSED(state);
    for (int64_t day = 0; day < 2932897; day += day < 160000 ? 1 : 100) {
        char http[64], libc[64];
        struct str s = STR_INIT(http);
        time_t t = (time_t)(day * 86400 + day % 86400);
        struct tm tm;

        clock_add_http_date(&s, (int64_t)t * 1000);
        assert_non_null(gmtime_r(&t, &tm));
        assert_true(strftime(libc, sizeof(libc), "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0);
        assert_string_equal(http, libc);
        int64_t ms;
        assert_true(clock_from_date(tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                                    tm.tm_sec, &ms));
        assert_int_equal(ms, (int64_t)t * 1000);
    }
}

static void dates_that_there_are_and_are_not(void **state)
{
    UNUSED(state);
    static const struct {
        int year, month, day, hour, minute, second;
        bool ok;
        int64_t ms;
    } dates[] = {
        {1, 1, 1, 0, 0, 0, true, -62135596800000},
        {1969, 12, 31, 23, 59, 59, true, -1000},
        {1969, 12, 31, 23, 59, 60, true, 0}, /* a leap second */
        {1900, 3, 1, 0, 0, 0, true, -2203891200000},
        {2000, 2, 29, 0, 0, 0, true, 951782400000},
        {9999, 12, 31, 23, 59, 59, true, 253402300799000},
        {1900, 2, 29, 0, 0, 0, false, 0},
        {2026, 2, 29, 0, 0, 0, false, 0},
        {2026, 4, 31, 0, 0, 0, false, 0},
        {0, 1, 1, 0, 0, 0, false, 0},
        {10000, 1, 1, 0, 0, 0, false, 0},
        {2026, 0, 1, 0, 0, 0, false, 0},
        {2026, 13, 1, 0, 0, 0, false, 0},
        {2026, 1, 0, 0, 0, 0, false, 0},
        {2026, 1, 32, 0, 0, 0, false, 0},
        {2026, 1, 1, 24, 0, 0, false, 0},
        {2026, 1, 1, 0, 60, 0, false, 0},
        {2026, 1, 1, 0, 0, 61, false, 0},
        {2026, 1, 1, -1, 0, 0, false, 0},
        {2026, 1, 1, 0, -1, 0, false, 0},
        {2026, 1, 1, 0, 0, -1, false, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(dates); i++) {
        int64_t ms = 0;
        assert_int_equal(clock_from_date(dates[i].year, dates[i].month, dates[i].day, dates[i].hour,
                                         dates[i].minute, dates[i].second, &ms),
                         dates[i].ok);
        assert_int_equal(ms, dates[i].ms);
    }
}

static void clocks_run(void **state)
{
    UNUSED(state);
    int64_t wall = clock_wall_ms(), ns = clock_mono_ns(), ms = clock_mono_ms();
    assert_true(wall > 1700000000000); /* after November 2023 */
    assert_true(ms >= ns / 1000000);
    assert_true(clock_mono_ns() >= ns);
    assert_true(clock_mono_ms() - ms < 3600 * 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_moments),
        cmocka_unit_test(every_day_as_libc_has_it),
        cmocka_unit_test(dates_that_there_are_and_are_not),
        cmocka_unit_test(clocks_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
