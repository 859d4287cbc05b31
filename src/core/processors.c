/* See processors.h. In a container the path in /proc/self/cgroup may be one of the host, of which nothing is mounted: then only the
 * group at the top, which is the container's own, has files. */
#include "core/processors.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/span.h"
#include "base/str.h"

#define PATH_ROOM 4096
#define LINE_ROOM 4096

static unsigned by_affinity(void)
{
    cpu_set_t set; /* it has room for 1024; the system refuses to fill a smaller one than it needs */
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)n;
}

/* The first line of a file of the group; false: there is none. */
static bool first_line(const char *root, const char *mount, struct span group, const char *name, char *line)
{
    char path[PATH_ROOM];
    struct str p = STR_INIT(path);
    str_addz(&p, root);
    str_addz(&p, mount);
    str_add(&p, group);
    str_addc(&p, '/');
    str_addz(&p, name);
    FILE *f = p.cut ? NULL : fopen(path, "re");
    if (f == NULL)
        return false;
    bool ok = fgets(line, LINE_ROOM, f) != NULL;
    fclose(f);
    return ok;
}

/* Both in the same unit of time; no quota (-1, "max"), or none that makes sense: no limit. */
static void limit(unsigned *n, const char *quota, const char *period)
{
    long long q = strtoll(quota, NULL, 10), p = strtoll(period, NULL, 10);
    if (q <= 0 || p <= 0 || q / p >= *n)
        return;
    *n = (unsigned)((q + p - 1) / p);
}

static void limit_by_group(const char *root, struct span group, bool v2, unsigned *n)
{
    char quota[LINE_ROOM], period[LINE_ROOM];
    if (v2 && first_line(root, "/sys/fs/cgroup", group, "cpu.max", quota)) {
        char *blank = quota;
        while (*blank != 0 && *blank != ' ')
            blank++;
        limit(n, quota, blank);
    }
    if (!v2 && first_line(root, "/sys/fs/cgroup/cpu", group, "cpu.cfs_quota_us", quota) &&
        first_line(root, "/sys/fs/cgroup/cpu", group, "cpu.cfs_period_us", period))
        limit(n, quota, period);
}

/* "0::/a/b", or "4:cpu,cpuacct:/a/b" */
static void limit_by_line(const char *root, struct span line, unsigned *n)
{
    struct span number, controllers, one;
    if (!span_next(&line, ':', &number) || !span_next(&line, ':', &controllers))
        return;
    bool v2 = controllers.n == 0, cpu = false;
    while (span_next(&controllers, ',', &one))
        cpu = cpu || span_eq(one, SPAN("cpu"));
    if (!v2 && !cpu)
        return;
    for (struct span group = line;;) {
        while (span_ends(group, SPAN("/")))
            group.n--;
        limit_by_group(root, group, v2, n);
        if (group.n == 0)
            return;
        while (group.n > 0 && group.p[group.n - 1] != '/')
            group.n--;
    }
}

unsigned processors_count(const char *root)
{
    char line[LINE_ROOM];
    struct str path = STR_INIT(line);
    unsigned n = by_affinity();
    str_addz(&path, root);
    str_addz(&path, "/proc/self/cgroup");
    FILE *f = path.cut ? NULL : fopen(line, "re");
    if (f == NULL)
        return n;
    while (fgets(line, sizeof line, f) != NULL) {
        struct span l = span_str(line);
        while (span_ends(l, SPAN("\n")))
            l.n--;
        limit_by_line(root, l, &n);
    }
    fclose(f);
    return n;
}
