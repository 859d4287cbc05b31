/* Clocks, and the two text forms of a moment. The calendar is computed here: strftime() speaks the language
 * of the locale, and gmtime_r() takes a lock of the whole process. */
#include <time.h>

#include "base/clock.h"

#define CLOCK_DAY_S    86400
#define CLOCK_LAST_SEC 253402300799 /* 9999-12-31T23:59:59Z: years have four digits */

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;
    MUST(clock_gettime(id, &t) == 0);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    return clock_ns(CLOCK_REALTIME) / 1000000;
}

int64_t clock_mono_ms(void)
{
    return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_mono_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

struct clock_date {
    int year, month, day; /* month and day from 1 */
    int weekday;          /* 0: Sunday */
    int hour, minute, second, ms;
};

static bool clock_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days from 1970-01-01 to the first day of the year. */
static int clock_year_start(int year)
{
    int y = year - 1;
    return (year - 1970) * 365 + (y / 4 - 1969 / 4) - (y / 100 - 1969 / 100) + (y / 400 - 1969 / 400);
}

static int clock_month_days(int year, int month)
{
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && clock_leap(year) ? 1 : 0);
}

/* Moments outside 1970 to 9999 are moved to the nearest end. */
static struct clock_date clock_date_of(int64_t wall_ms)
{
    struct clock_date d = {.year = 0};

    if (wall_ms < 0)
        wall_ms = 0;
    if (wall_ms / 1000 > CLOCK_LAST_SEC)
        wall_ms = CLOCK_LAST_SEC * 1000 + 999;

    int days = (int)(wall_ms / 1000 / CLOCK_DAY_S);
    int seconds = (int)(wall_ms / 1000 % CLOCK_DAY_S);
    d.ms = (int)(wall_ms % 1000);
    d.hour = seconds / 3600;
    d.minute = seconds / 60 % 60;
    d.second = seconds % 60;
    d.weekday = (days + 4) % 7; /* 1970-01-01 was a Thursday */

    d.year = 1970 + days / 366; /* never too late, and hardly too early */
    while (clock_year_start(d.year + 1) <= days)
        d.year++;
    days -= clock_year_start(d.year);
    for (d.month = 1; d.month < 12; d.month++) {
        int in_month = clock_month_days(d.year, d.month);
        if (days < in_month)
            break;
        days -= in_month;
    }
    d.day = days + 1;
    return d;
}

bool clock_from_date(int year, int month, int day, int hour, int minute, int second, int64_t *wall_ms)
{
    if (year < 1 || year > 9999 || month < 1 || month > 12 || day < 1 || day > clock_month_days(year, month))
        return false;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
        return false;
    int64_t days = clock_year_start(year) + day - 1;
    for (int m = 1; m < month; m++)
        days += clock_month_days(year, m);
    *wall_ms = (days * CLOCK_DAY_S + hour * 3600 + minute * 60 + second) * 1000;
    return true;
}

/* v with leading zeros. */
static void clock_add_padded(struct str *s, int v, int width)
{
    char digits[4];

    for (int i = width; i > 0; i--) {
        digits[i - 1] = (char)('0' + v % 10);
        v /= 10;
    }
    str_add(s, span_of(digits, (size_t)width));
}

static void clock_add_time(struct str *s, const struct clock_date *d)
{
    clock_add_padded(s, d->hour, 2);
    str_addc(s, ':');
    clock_add_padded(s, d->minute, 2);
    str_addc(s, ':');
    clock_add_padded(s, d->second, 2);
}

void clock_add_rfc3339(struct str *s, int64_t wall_ms)
{
    struct clock_date d = clock_date_of(wall_ms);

    clock_add_padded(s, d.year, 4);
    str_addc(s, '-');
    clock_add_padded(s, d.month, 2);
    str_addc(s, '-');
    clock_add_padded(s, d.day, 2);
    str_addc(s, 'T');
    clock_add_time(s, &d);
    str_addc(s, '.');
    clock_add_padded(s, d.ms, 3);
    str_addc(s, 'Z');
}

void clock_add_http_date(struct str *s, int64_t wall_ms)
{
    static const char weekdays[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct clock_date d = clock_date_of(wall_ms);

    str_add(s, span_of(weekdays + 3 * d.weekday, 3));
    str_add(s, SPAN(", "));
    clock_add_padded(s, d.day, 2);
    str_addc(s, ' ');
    str_add(s, span_of(months + 3 * (d.month - 1), 3));
    str_addc(s, ' ');
    clock_add_padded(s, d.year, 4);
    str_addc(s, ' ');
    clock_add_time(s, &d);
    str_add(s, SPAN(" GMT"));
}
