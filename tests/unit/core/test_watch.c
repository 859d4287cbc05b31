/* Watching a file: every way in which one changes leads to a call, and quiet leads to none. A test goes through its steps one after
 * the other: the next step is done when the one before has been seen. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core/watch.h"
#include "loop.h"

static struct bench {
    struct loop loop;
    char folder[64], file[128];
    struct file_watch *watch;
    void (*const *steps)(void);
    unsigned n_steps, seen;
    struct timer pause;
} bench;

static void put(const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", bench.folder, name);
    FILE *f = fopen(path, "w");
    MUST(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void move(const char *from, const char *to)
{
    char a[256], b[256];
    (void)snprintf(a, sizeof a, "%s/%s", bench.folder, from);
    (void)snprintf(b, sizeof b, "%s/%s", bench.folder, to);
    MUST(rename(a, b) == 0);
}

static void link_to(const char *target, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", bench.folder, name);
    MUST(symlink(target, path) == 0);
}

static void on_changed(void *arg)
{
    UNUSED(arg);
    if (bench.seen < bench.n_steps) {
        bench.steps[bench.seen++]();
        return;
    }
    file_watch_free(bench.watch);
    core_quit(bench.loop.core);
}

static void begin(void *arg)
{
    bool *first = arg;
    bench.watch = file_watch_new(bench.loop.core, bench.file, *first, on_changed, NULL);
}

/* The first look calls, each step leads to one more call. */
static void run(void (*const *steps)(void), unsigned n)
{
    bool first = true;
    bench.steps = steps;
    bench.n_steps = n;
    bench.seen = 0;
    loop_open(&bench.loop);
    loop_run(&bench.loop, begin, &first);
    loop_close(&bench.loop);
    assert_int_equal(bench.seen, n);
}

static int make_folder(void **state)
{
    UNUSED(state);
    (void)snprintf(bench.folder, sizeof bench.folder, "/tmp/larder-watch-XXXXXX");
    MUST(mkdtemp(bench.folder) != NULL);
    (void)snprintf(bench.file, sizeof bench.file, "%s/config.yaml", bench.folder);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    UNUSED(st);
    UNUSED(kind);
    UNUSED(where);
    return remove(path);
}

static int remove_folder(void **state)
{
    UNUSED(state);
    return nftw(bench.folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void in_place(void)
{
    put("config.yaml", "two two");
}

static void by_rename(void)
{
    put("new", "a third text");
    move("new", "config.yaml");
}

static void missing_for_a_moment(void)
{
    move("config.yaml", "aside");
    put("config.yaml", "a fourth text of its own");
}

static void take_away(void)
{
    move("config.yaml", "aside");
}

static void bring_back(void)
{
    move("aside", "config.yaml");
}

static void test_file(void **state)
{
    UNUSED(state);
    static void (*const steps[])(void) = {in_place, by_rename, missing_for_a_moment, in_place};
    put("config.yaml", "one");
    run(steps, ARRAY_LEN(steps));
}

/* As the kubelet does it: config.yaml -> ..data/config.yaml, ..data -> ..version; a new version's link is renamed over ..data. */
static void make_version(const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", bench.folder, name);
    MUST(mkdir(path, 0755) == 0);
    (void)snprintf(path, sizeof path, "%s/config.yaml", name);
    put(path, text);
}

static void swap_two(void)
{
    make_version("..two", "second");
    link_to("..two", "..data_tmp");
    move("..data_tmp", "..data");
}

static void swap_three(void)
{
    make_version("..three", "thirds");
    link_to("..three", "..data_tmp");
    move("..data_tmp", "..data");
}

static void test_config_map(void **state)
{
    UNUSED(state);
    static void (*const steps[])(void) = {swap_two, swap_three};
    make_version("..one", "first!");
    link_to("..one", "..data");
    link_to("..data/config.yaml", "config.yaml");
    run(steps, ARRAY_LEN(steps));
}

/* A direct write behind the link makes no event in the folder: the regular look finds it. */
static void write_behind_link(void)
{
    put("..one/config.yaml", "written behind the link");
}

static void test_no_event(void **state)
{
    UNUSED(state);
    static void (*const steps[])(void) = {write_behind_link};
    make_version("..one", "first");
    link_to("..one", "..data");
    link_to("..data/config.yaml", "config.yaml");
    run(steps, ARRAY_LEN(steps));
}

/* Other files of the folder change, and the file itself only disappears: no call. */
static void on_never(void *arg)
{
    UNUSED(arg);
    MUST(!"a call without a change");
}

static void end_quiet(struct timer *t)
{
    UNUSED(t);
    file_watch_free(bench.watch);
    core_quit(bench.loop.core);
}

static void make_noise(struct timer *t)
{
    put("other", "noise");
    if (bench.seen++ == 5)
        move("config.yaml", "gone");
    t->fire = bench.seen < 10 ? make_noise : end_quiet;
    timer_arm(bench.loop.core, t, 60);
}

static void begin_quiet(void *arg)
{
    UNUSED(arg);
    bench.seen = 0;
    bench.watch = file_watch_new(bench.loop.core, bench.file, false, on_never, NULL);
    timer_init(&bench.pause, make_noise);
    timer_arm(bench.loop.core, &bench.pause, 60);
}

static void test_quiet(void **state)
{
    UNUSED(state);
    put("config.yaml", "one");
    loop_open(&bench.loop);
    loop_run(&bench.loop, begin_quiet, NULL);
    loop_close(&bench.loop);
}

/* Something else is written there all the time, as a log file is: there is no quiet, and the change is seen all the same. */
static void on_seen(void *arg)
{
    UNUSED(arg);
    timer_disarm(&bench.pause);
    file_watch_free(bench.watch);
    core_quit(bench.loop.core);
}

static void write_log(struct timer *t)
{
    put("other", "noise");
    if (bench.seen == 0)
        put("config.yaml", "two two");
    MUST(bench.seen++ < 100); /* five seconds */
    timer_arm(bench.loop.core, t, 50);
}

static void begin_busy(void *arg)
{
    UNUSED(arg);
    bench.seen = 0;
    bench.watch = file_watch_new(bench.loop.core, bench.file, false, on_seen, NULL);
    timer_init(&bench.pause, write_log);
    timer_arm(bench.loop.core, &bench.pause, 300); /* after the first look */
}

static void test_busy_folder(void **state)
{
    UNUSED(state);
    put("config.yaml", "one");
    loop_open(&bench.loop);
    loop_run(&bench.loop, begin_busy, NULL);
    loop_close(&bench.loop);
}

/* It stays away: one call, and one when it is back as it was. */
static void test_gone(void **state)
{
    UNUSED(state);
    static void (*const steps[])(void) = {take_away, bring_back};
    put("config.yaml", "one");
    run(steps, ARRAY_LEN(steps));
}

/* It went between the reading of it and the first look. */
static void test_gone_before_the_first_look(void **state)
{
    UNUSED(state);
    run(NULL, 0);
}

static void test_free_at_once(void **state)
{
    UNUSED(state);
    put("config.yaml", "one");
    loop_open(&bench.loop);
    struct file_watch *w = file_watch_new(bench.loop.core, bench.file, true, on_never, NULL);
    file_watch_free(w);
    core_quit(bench.loop.core);
    core_run(bench.loop.core);
    loop_close(&bench.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_file, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_config_map, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_no_event, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_quiet, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_busy_folder, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_gone, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_gone_before_the_first_look, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_free_at_once, make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
