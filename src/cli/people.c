#include "cli/people.h"

void people_size(struct str *out, uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        str_addf(out, "%u B", (unsigned)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < ARRAY_LEN(units)) { /* what would be written as 1024.0 */
        value /= 1024;
        unit++;
    }
    str_addf(out, "%.1f %s", value, units[unit]);
}

void people_age(struct str *out, int64_t ms)
{
    long long s = ms < 0 ? 0 : ms / 1000;
    if (s < 60)
        str_addf(out, "%lld s", s);
    else if (s < 3600)
        str_addf(out, "%lld min", s / 60);
    else if (s < 2 * 86400)
        str_addf(out, "%lld h", s / 3600);
    else
        str_addf(out, "%lld d", s / 86400);
}
