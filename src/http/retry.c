/* See retry.h. Dates are read by hand: strptime() speaks the language of the locale, and takes what is no HTTP-date. */
#include "http/retry.h"

#include "base/clock.h"

#define FIFTY_YEARS_MS (INT64_C(50) * 365 * 24 * 60 * 60 * 1000)

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char *const weekdays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                       "Thursday", "Friday", "Saturday"};

/* What is left of the value; after a false of any function it means nothing. */
struct rest {
    struct span s;
};

static bool take(struct rest *r, struct span text)
{
    if (!span_starts(r->s, text))
        return false;
    r->s = span_from(r->s, text.n);
    return true;
}

static bool take_digits(struct rest *r, size_t n, int *out)
{
    uint64_t v;
    struct span digits = span_sub(r->s, 0, n);
    if (digits.n != n || !span_u64(digits, 9999, &v))
        return false;
    r->s = span_from(r->s, n);
    *out = (int)v;
    return true;
}

static bool take_month(struct rest *r, int *out)
{
    for (int m = 1; m <= 12; m++) {
        if (take(r, span_of(months + 3 * (m - 1), 3))) {
            *out = m;
            return true;
        }
    }
    return false;
}

/* A weekday, in full or by its first three letters. Which day it is does not matter: the date says it. */
static bool take_weekday(struct rest *r, bool full)
{
    for (size_t i = 0; i < ARRAY_LEN(weekdays); i++) {
        if (take(r, full ? span_str(weekdays[i]) : span_of(weekdays[i], 3)))
            return true;
    }
    return false;
}

struct moment {
    int year, month, day, hour, minute, second;
};

static bool take_time(struct rest *r, struct moment *m)
{
    return take_digits(r, 2, &m->hour) && take(r, SPAN(":")) && take_digits(r, 2, &m->minute) &&
           take(r, SPAN(":")) && take_digits(r, 2, &m->second);
}

/* Sun, 06 Nov 1994 08:49:37 GMT */
static bool read_fixdate(struct rest r, struct moment *m)
{
    return take_weekday(&r, false) && take(&r, SPAN(", ")) && take_digits(&r, 2, &m->day) &&
           take(&r, SPAN(" ")) && take_month(&r, &m->month) && take(&r, SPAN(" ")) &&
           take_digits(&r, 4, &m->year) && take(&r, SPAN(" ")) && take_time(&r, m) &&
           take(&r, SPAN(" GMT")) && r.s.n == 0;
}

/* Sunday, 06-Nov-94 08:49:37 GMT: the year is the last one with these digits that is at most 50 years ahead. */
static bool read_rfc850(struct rest r, struct moment *m, int64_t now_ms)
{
    int64_t later;
    if (!take_weekday(&r, true) || !take(&r, SPAN(", ")) || !take_digits(&r, 2, &m->day) ||
        !take(&r, SPAN("-")) || !take_month(&r, &m->month) || !take(&r, SPAN("-")) ||
        !take_digits(&r, 2, &m->year) || !take(&r, SPAN(" ")) || !take_time(&r, m) ||
        !take(&r, SPAN(" GMT")) || r.s.n > 0)
        return false;
    m->year += 1900;
    while (clock_from_date(m->year + 100, m->month, 1, 0, 0, 0, &later) && later - FIFTY_YEARS_MS <= now_ms)
        m->year += 100;
    return true;
}

/* Sun Nov  6 08:49:37 1994 */
static bool read_asctime(struct rest r, struct moment *m)
{
    if (!take_weekday(&r, false) || !take(&r, SPAN(" ")) || !take_month(&r, &m->month) ||
        !take(&r, SPAN(" ")))
        return false;
    bool day = take(&r, SPAN(" ")) ? take_digits(&r, 1, &m->day) : take_digits(&r, 2, &m->day);
    return day && take(&r, SPAN(" ")) && take_time(&r, m) && take(&r, SPAN(" ")) &&
           take_digits(&r, 4, &m->year) && r.s.n == 0;
}

static bool read_date(struct span value, int64_t now_ms, int64_t *ms)
{
    struct rest r = {.s = value};
    struct moment m;
    return (read_fixdate(r, &m) || read_rfc850(r, &m, now_ms) || read_asctime(r, &m)) &&
           clock_from_date(m.year, m.month, m.day, m.hour, m.minute, m.second, ms);
}

/* Is it nothing but digits? The largest number counts for all that are larger. */
static bool read_number(struct span s, uint64_t *out)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    }
    if (!span_u64(s, UINT64_MAX, out))
        *out = UINT64_MAX;
    return s.n > 0;
}

int64_t retry_after_parse(struct span value, int64_t now_ms)
{
    uint64_t seconds;
    int64_t at;
    value = span_trim(value);
    if (read_number(value, &seconds))
        return seconds < RETRY_AFTER_MAX_MS / 1000 ? (int64_t)seconds * 1000 : RETRY_AFTER_MAX_MS;
    if (!read_date(value, now_ms, &at))
        return -1;
    if (at <= now_ms)
        return 0;
    return at - now_ms < RETRY_AFTER_MAX_MS ? at - now_ms : RETRY_AFTER_MAX_MS;
}

bool ratelimit_parse(struct span value, uint64_t *count, uint64_t *window_s)
{
    struct span part;
    bool window = false;
    *window_s = 0;
    if (!span_next(&value, ';', &part) || !read_number(span_trim(part), count))
        return false;
    while (span_next(&value, ';', &part)) {
        part = span_trim(part);
        if (!span_starts(part, SPAN("w=")))
            continue;
        if (window || !read_number(span_from(part, 2), window_s))
            return false;
        window = true;
    }
    return true;
}
