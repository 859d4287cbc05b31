#include "cli/people.h"

enum { BAR = 20, NAME_SHOWN_MIN = 12 };

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

void people_progress(struct str *out, struct span name, uint64_t done, uint64_t all, size_t columns)
{
    static const char bar[] = "####################";
    _Static_assert(sizeof bar - 1 == BAR, "as many as the bar is long");
    char done_text[32], all_text[32], rest_text[128];
    struct str done_size = STR_INIT(done_text), all_size = STR_INIT(all_text), rest = STR_INIT(rest_text);
    double share = all == 0 ? 0 : done >= all ? 1 : (double)done / (double)all;
    people_size(&done_size, done);
    people_size(&all_size, all);
    str_addf(&rest, " [%-*.*s] %3d%%  %s of %s", BAR, (int)(share * BAR), bar, (int)(share * 100), done_text,
             all_text);
    size_t shown = columns > rest.n + NAME_SHOWN_MIN ? columns - rest.n : NAME_SHOWN_MIN;
    if (name.n > shown) {
        str_addz(out, "...");
        name = span_from(name, name.n - (shown - 3));
    }
    str_add(out, name);
    str_add(out, str_span(&rest));
}
