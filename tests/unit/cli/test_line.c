/* Reading a command line: how many arguments a command takes, and what is no image and no platform. Nothing here comes so far that a file
 * is read or a server asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/check.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/command_int.h"

enum { WORDS_MAX = 100 };

static char said[4096]; /* on standard error */
static const char *served;

static int serve(const char *config_file, const char *version)
{
    UNUSED(version);
    served = config_file;
    return 7;
}

static const struct cli_program program = {.version = "1.2.3", .serve = serve};

static int run_words(const char *const *words, size_t n)
{
    char *argv[WORDS_MAX + 2] = {(char *)"larder"};
    FILE *file = tmpfile();
    int own = dup(STDERR_FILENO);
    MUST(n <= WORDS_MAX && file != NULL && own >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    for (size_t i = 0; i < n; i++)
        argv[i + 1] = (char *)words[i];
    int code = cli_main((int)n + 1, argv, &program);
    MUST(dup2(own, STDERR_FILENO) >= 0 && close(own) == 0);
    rewind(file);
    said[fread(said, 1, sizeof said - 1, file)] = '\0';
    fclose(file);
    return code;
}

#define RUN(...)                                                                                             \
    run_words((const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void expect_usage(int code, const char *what)
{
    assert_int_equal(code, 2);
    if (strstr(said, what) == NULL)
        fail_msg("'%s' does not say '%s'", said, what);
}

static void test_one_argument(void **state)
{
    UNUSED(state);
    expect_usage(RUN("explain"), "explain needs IMAGE\n");
    expect_usage(RUN("explain", "a:1", "b:1"), "unexpected argument b:1\n");
    expect_usage(RUN("explain", "a:1", "b:1", "c:1", "d:1", "e:1"), "unexpected argument b:1\n");
    expect_usage(RUN("cache", "list", "x"), "unexpected argument x\n");
    expect_usage(RUN("completion", "fish"), "completion fish: write one of bash|zsh\n");
}

static void test_several_arguments(void **state)
{
    UNUSED(state);
    const char *words[1 + COMMAND_ARGUMENTS_MAX + 1] = {"warm"};
    for (size_t i = 1; i < ARRAY_LEN(words); i++)
        words[i] = "t/app:v1";
    expect_usage(RUN("warm"), "warm needs IMAGE\n");
    words[COMMAND_ARGUMENTS_MAX] = "A";
    expect_usage(run_words(words, ARRAY_LEN(words) - 1), "A is no image");
    expect_usage(run_words(words, ARRAY_LEN(words)),
                 "warm takes at most 64 times IMAGE, and here are 65; give it the others afterwards\n");
}

static void test_options_between_arguments(void **state)
{
    UNUSED(state);
    expect_usage(RUN("warm", "a:1", "-o", "json", "B", "--platform", "all"), "B is no image");
    expect_usage(RUN("-o", "json", "warm", "a:1", "--", "-b"), "-b is no image");
    expect_usage(RUN("warm", "a:1", "--platform", "linux/amd64", "b:1", "--platform", "linux/arm64"),
                 "--platform is given twice");
    assert_int_equal(RUN("serve", "-f", "x.yaml"), 7);
    assert_string_equal(served, "x.yaml");
}

static void test_no_image(void **state)
{
    UNUSED(state);
    static const char *const wrong[] = {
        "",
        ":",
        "a b",
        "t/app:v1:v2",
        "t/app@sha256:12",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        expect_usage(RUN("warm", "t/good:1", wrong[i]), "is no image; write it as in t/app:v1");
}

static void test_no_platform(void **state)
{
    UNUSED(state);
    static const char *const wrong[] = {",",
                                        "linux",
                                        "linux/",
                                        "linux/amd64,",
                                        "linux/amd64,,linux/arm64",
                                        "linux/amd64 linux/arm64",
                                        "linux/arm/v7/x",
                                        "all,linux/amd64",
                                        "linux/amd64,all"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        expect_usage(RUN("warm", "t/app:v1", "--platform", wrong[i]), "is no platform; write it as in");
    expect_usage(RUN("warm", "t/app:v1", "--platform", ""), "--platform is empty");
    char text[600];
    struct str many = STR_INIT(text);
    for (size_t i = 0; i < 17; i++)
        str_addz(&many, i == 0 ? "linux/amd64" : ",linux/amd64");
    expect_usage(RUN("warm", "t/app:v1", "--platform", text), "at most 16 platforms, and here are 17");
    while (many.n < 512)
        str_addc(&many, 'x');
    expect_usage(RUN("warm", "t/app:v1", "--platform", text), "more than 511 characters");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_argument),
        cmocka_unit_test(test_several_arguments),
        cmocka_unit_test(test_options_between_arguments),
        cmocka_unit_test(test_no_image),
        cmocka_unit_test(test_no_platform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
