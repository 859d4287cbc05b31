#include "test.h"

#include <fcntl.h>

#include "base/log.h"
#include "child.h"

static void fail_must(void)
{
    MUST(1 + 1 == 3);
}

static void fail_magic(void)
{
    struct {
        unsigned magic;
    } thing = {.magic = 7}, *p = &thing;
    CHECK_MAGIC(p, 8);
}

/* A reader that does not read must not keep the process alive. */
static void fail_before_a_full_pipe(void)
{
    int ends[2];
    char block[4096] = {0};

    if (pipe(ends) != 0 || fcntl(ends[1], F_SETFL, O_NONBLOCK) != 0)
        _exit(1);
    while (write(ends[1], block, sizeof(block)) > 0)
        continue;
    if (fcntl(ends[1], F_SETFL, 0) != 0 || dup2(ends[1], STDERR_FILENO) != STDERR_FILENO)
        _exit(1);
    MUST(false);
}

static void must_aborts_and_says_where(void **state)
{
    UNUSED(state);
    struct child c = child_run(fail_must);
    assert_int_equal(c.signal, SIGABRT);
    assert_non_null(strstr(c.text, "larder: stopped by a failed check at "));
    assert_non_null(strstr(c.text, "test_check.c:"));
    assert_non_null(strstr(c.text, " in fail_must(): 1 + 1 == 3. "));
    assert_int_equal(c.text[strlen(c.text) - 1], '\n');

    c = child_run(fail_magic);
    assert_int_equal(c.signal, SIGABRT);
    MUST(1 + 1 == 2);
}

static void a_full_pipe_does_not_stop_the_abort(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(fail_before_a_full_pipe).signal, SIGABRT);
}

static void soft_fails(void)
{
    int shelf = 1;
    if (SOFT(shelf == 1) && !SOFT(shelf == 2) && check_soft_count() == 1)
        _exit(7);
}

static void soft_logs_counts_and_goes_on(void **state)
{
    UNUSED(state);
    struct child c = child_run(soft_fails);
    assert_int_equal(c.signal, 0);
    assert_int_equal(c.status, 7);
    assert_non_null(strstr(c.text, "\"level\":\"error\""));
    assert_non_null(strstr(c.text, "\"function\":\"soft_fails\",\"check\":\"shelf == 2\"}\n"));
    assert_null(strstr(c.text, "shelf == 1"));
}

static void rare_cases(void)
{
    for (int i = 0; i < 5; i++)
        RARE();
    RARE();
    _exit((int)check_rare_count());
}

static void rare_counts_all_and_logs_each_line_once(void **state)
{
    UNUSED(state);
    struct child c = child_run(rare_cases);
    assert_int_equal(c.status, 6);

    int lines = 0;
    for (const char *p = c.text; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    assert_int_equal(lines, 2);
    assert_non_null(strstr(c.text, "\"function\":\"rare_cases\""));
}

static void rare_many_lines(void)
{
    for (int line = 1; line <= 1000; line++)
        check_rare("many.c", line, "many");
    _exit(check_rare_count() == 1000 ? 7 : 1);
}

static void rare_goes_on_when_it_has_seen_too_many_lines(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(rare_many_lines).status, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(must_aborts_and_says_where),
        cmocka_unit_test(a_full_pipe_does_not_stop_the_abort),
        cmocka_unit_test(soft_logs_counts_and_goes_on),
        cmocka_unit_test(rare_counts_all_and_logs_each_line_once),
        cmocka_unit_test(rare_goes_on_when_it_has_seen_too_many_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
