/* Time. Durations are int64_t milliseconds, wall-clock times int64_t milliseconds since 1970. Pure rooms take
 * times as arguments; only flows and the log read a clock. Any thread. */
#ifndef LARDER_BASE_CLOCK_H
#define LARDER_BASE_CLOCK_H

#include "base/str.h"

int64_t clock_wall_ms(void);
int64_t clock_mono_ms(void);
int64_t clock_mono_ns(void);
void clock_add_rfc3339(struct str *s, int64_t wall_ms);   /* 2026-01-31T12:00:00.123Z */
void clock_add_http_date(struct str *s, int64_t wall_ms); /* RFC 9110 section 5.6.7 IMF-fixdate */

/* The moment of a date in UTC; month and day from 1, years 1 to 9999, second 60 is the next minute's first (a leap second). False:
 * there is no such date. */
bool clock_from_date(int year, int month, int day, int hour, int minute, int second,
                     int64_t *wall_ms) MUSTCHECK;

#endif
