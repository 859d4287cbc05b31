#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/processors.h"

#include "../base/test.h"

static char root[] = "/tmp/larder-processors-XXXXXX";

/* Makes the folders on the way, too. */
static void put(const char *path, const char *text)
{
    char full[512];
    assert_true(snprintf(full, sizeof full, "%s%s", root, path) < (int)sizeof full);
    for (char *c = full + sizeof root; *c != 0; c++) {
        if (*c != '/')
            continue;
        *c = 0;
        (void)mkdir(full, 0700);
        *c = '/';
    }
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static unsigned by_affinity(void)
{
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    return (unsigned)CPU_COUNT(&set);
}

static unsigned at_most(unsigned n)
{
    return by_affinity() < n ? by_affinity() : n;
}

static void test_affinity(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(processors_count(root), by_affinity()); /* there are no files */
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(processors_count(root), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

static void test_version_2(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(processors_count(root), by_affinity());
    put("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
    assert_int_equal(processors_count(root), at_most(2));
    put("/sys/fs/cgroup/a/b/cpu.max", "10000 100000\n");
    assert_int_equal(processors_count(root), 1);
    put("/sys/fs/cgroup/a/b/cpu.max", "900000000 100000\n");
    assert_int_equal(processors_count(root), by_affinity());
    put("/sys/fs/cgroup/a/cpu.max", "50000 100000\n"); /* the group above */
    assert_int_equal(processors_count(root), 1);
    put("/sys/fs/cgroup/a/cpu.max", "\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "");
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n"); /* a container's own */
    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    assert_int_equal(processors_count(root), 1);
    put("/proc/self/cgroup", "0::/\n");
    assert_int_equal(processors_count(root), 1);
}

static void test_version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "12:memory:/m\n4:cpu,cpuacct:/a\n1:name=systemd:/s\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(processors_count(root), by_affinity());
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n");
    assert_int_equal(processors_count(root), 1);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    (void)st;
    (void)type;
    (void)place;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_version_1),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
