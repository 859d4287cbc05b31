/* The metrics page: the cores' counters summed, the store's totals, the process, and what other rooms add. It is read on the main
 * core, so that files in /proc may be. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin/metrics.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/evict.h"
#include "store/health.h"

#define PAGE_FIRST (256u << 10)
#define PAGE_MAX   (256u << 20)

static void head(struct str *out, const char *name, const char *kind, const char *help)
{
    str_addf(out, "# HELP larder_%s %s\n# TYPE larder_%s %s\n", name, help, name, kind);
}

static void value(struct str *out, const char *name, int64_t v)
{
    str_addf(out, "larder_%s %lld\n", name, (long long)v);
}

static void counters(const struct admin_config *config, struct str *out)
{
#define X(field, kind, name, help)                                                                           \
    {                                                                                                        \
        int64_t sum = 0;                                                                                     \
        for (unsigned i = 0; i < config->n_cores; i++)                                                       \
            sum += atomic_load_explicit(&core_counters(config->cores[i])->field, memory_order_relaxed);      \
        head(out, name, #kind, help);                                                                        \
        value(out, name, sum);                                                                               \
    }
    COUNTER_TABLE(X)
#undef X
}

static void loop_lag(const struct admin_config *config, struct str *out)
{
    head(out, "loop_lag_seconds", "gauge",
         "The longest that the core's event loop was late in the last minute or two, or is");
    for (unsigned i = 0; i < config->n_cores; i++)
        str_addf(out, "larder_loop_lag_seconds{core=\"%u\"} %.3f\n", i,
                 (double)core_lag_ms(config->cores[i]) / 1000);
}

static void store(const struct admin_config *config, struct str *out)
{
    struct store_totals t;
    store_totals(config->store, &t);
    head(out, "store_objects", "gauge", "Objects in the store");
    value(out, "store_objects", (int64_t)t.objects);
    head(out, "store_bytes", "gauge", "Bytes of the objects in the store");
    value(out, "store_bytes", (int64_t)t.bytes);
    head(out, "store_partial_objects", "gauge", "Partial files in the store");
    value(out, "store_partial_objects", (int64_t)t.partials);
    head(out, "store_partial_bytes", "gauge", "Bytes that partial files take");
    value(out, "store_partial_bytes", (int64_t)t.partial_bytes);
    head(out, "store_quarantined_objects", "gauge", "Objects that were found damaged and put away");
    value(out, "store_quarantined_objects", (int64_t)t.quarantined);
    head(out, "store_quarantined_bytes", "gauge", "Bytes that they take");
    value(out, "store_quarantined_bytes", (int64_t)t.quarantined_bytes);
    head(out, "store_used_bytes", "gauge", "Bytes of all that store.max_size is about");
    value(out, "store_used_bytes", (int64_t)t.used);
    head(out, "store_evicted_objects_total", "counter",
         "Objects that went to make room, or because of their age");
    value(out, "store_evicted_objects_total", (int64_t)t.evicted);
    head(out, "store_evicted_bytes_total", "counter", "Bytes of these objects");
    value(out, "store_evicted_bytes_total", (int64_t)t.evicted_bytes);
    head(out, "store_damaged_records_total", "counter", "Records of the index that were found damaged");
    value(out, "store_damaged_records_total", (int64_t)t.damaged);
}

static void scrub(const struct admin_config *config, struct str *out)
{
    struct store_scrub s;
    store_scrub_now(config->store, &s);
    head(out, "store_scrub_objects", "gauge", "Objects that this round of scrubbing has read");
    value(out, "store_scrub_objects", (int64_t)s.objects);
    head(out, "store_scrub_bytes", "gauge", "Bytes that it has read");
    value(out, "store_scrub_bytes", (int64_t)s.bytes);
    head(out, "store_scrub_damaged", "gauge", "Objects that it found damaged");
    value(out, "store_scrub_damaged", (int64_t)s.damaged);
    head(out, "store_scrub_damaged_total", "counter", "Objects that scrubbing found damaged, in all rounds");
    value(out, "store_scrub_damaged_total", (int64_t)s.damaged_ever);
    head(out, "store_scrub_rounds_total", "counter", "Rounds of scrubbing that have ended");
    value(out, "store_scrub_rounds_total", (int64_t)s.rounds);
}

static void health(const struct admin_config *config, struct str *out)
{
    struct store_health h;
    store_health(config->store, &h);
    head(out, "store_fault", "gauge", "1: this is why the store takes no writes just now");
    for (enum store_fault f = FAULT_FULL; f <= FAULT_FAILING; f++)
        str_addf(out, "larder_store_fault{fault=\"%s\"} %d\n", store_fault_name(f), h.fault == f);
    head(out, "store_write_failures_total", "counter", "Writes of the store that failed");
    value(out, "store_write_failures_total", (int64_t)h.failures);
}

/* ---- the process: what cannot be read is left out ---- */

struct usage {
    bool known;
    long long user, system, start; /* ticks; start: since the machine's */
    long long virtual_bytes, resident_bytes;
};

/* proc(5): fields 14, 15, 22, 23 and 24 of stat, whose second one is a name with anything in it. */
static struct usage read_usage(void)
{
    struct usage u = {.known = false};
    char text[1024];
    long long pages;
    FILE *f = fopen("/proc/self/stat", "re");
    if (f == NULL)
        return u;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *rest = strrchr(text, ')');
    u.known =
        rest != NULL && sscanf(rest,
                               ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld %*d %*d %*d %*d "
                               "%*d %*d %lld %lld %lld",
                               &u.user, &u.system, &u.start, &u.virtual_bytes, &pages) == 5;
    u.resident_bytes = u.known ? pages * sysconf(_SC_PAGESIZE) : 0;
    return u;
}

/* When the machine was started, in seconds since 1970; 0: not known. */
static int64_t boot_time(void)
{
    char line[4096];
    long long at = 0;
    FILE *f = fopen("/proc/stat", "re");
    while (f != NULL && at == 0 && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "btime ", 6) == 0)
            at = strtoll(line + 6, NULL, 10);
    }
    if (f != NULL)
        fclose(f);
    return at;
}

static int64_t open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL)
        return -1;
    int64_t n = -3; /* ".", ".." and the one that reads */
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* By the names that the client libraries of Prometheus give them, which dashboards know. */
static void standard(const char *name, const char *kind, const char *help, double v, struct str *out)
{
    if (v >= 0)
        str_addf(out, "# HELP process_%s %s\n# TYPE process_%s %s\nprocess_%s %.17g\n", name, help, name,
                 kind, name, v);
}

static void standard_process(const struct usage *u, struct str *out)
{
    struct rlimit files;
    double tick = (double)sysconf(_SC_CLK_TCK);
    int64_t booted = boot_time();
    if (u->known) {
        standard("cpu_seconds_total", "counter", "Processor time of the process",
                 (double)(u->user + u->system) / tick, out);
        standard("virtual_memory_bytes", "gauge", "Address space of the process", (double)u->virtual_bytes,
                 out);
        standard("resident_memory_bytes", "gauge", "Resident memory of the process",
                 (double)u->resident_bytes, out);
        if (booted > 0)
            standard("start_time_seconds", "gauge", "When the process was started, in seconds since 1970",
                     (double)booted + (double)u->start / tick, out);
    }
    standard("open_fds", "gauge", "Descriptors that are open", (double)open_descriptors(), out);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        standard("max_fds", "gauge", "Descriptors that may be open", (double)files.rlim_cur, out);
}

static void process(const struct admin_config *config, struct str *out)
{
    struct usage u = read_usage();
    standard_process(&u, out);
    head(out, "build_info", "gauge", "What runs here");
    str_addf(out, "larder_build_info{version=\"%s\"} 1\n", config->version);
    head(out, "cores", "gauge", "Event loops that serve clients");
    value(out, "cores", config->n_cores);
    head(out, "resident_memory_bytes", "gauge", "Resident memory of the process");
    value(out, "resident_memory_bytes", u.known ? u.resident_bytes : -1);
    head(out, "log_records_dropped_total", "counter", "Log records that found the queue full");
    value(out, "log_records_dropped_total", (int64_t)log_dropped());
    head(out, "soft_check_failures_total", "counter", "Bugs that were survived");
    value(out, "soft_check_failures_total", (int64_t)check_soft_count());
    head(out, "rare_events_total", "counter", "Lines that should almost never run");
    value(out, "rare_events_total", (int64_t)check_rare_count());
}

char *metrics_text(const struct admin_config *config, size_t *n)
{
    for (size_t cap = PAGE_FIRST;; cap *= 4) {
        char *page = mem_alloc(cap);
        struct str out = str_init(page, cap);
        process(config, &out);
        store(config, &out);
        scrub(config, &out);
        health(config, &out);
        counters(config, &out);
        loop_lag(config, &out);
        config->more_metrics(config->arg, &out);
        if (!out.cut || cap >= PAGE_MAX) {
            *n = out.n;
            return page;
        }
        mem_free(page);
    }
}
