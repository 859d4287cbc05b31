/* What a configuration refers to and is not there. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/check.h"
#include "cli/references.h"

static char dir[] = "references-test-XXXXXX";
static struct config_warnings warnings;

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    MUST(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void look(const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/config.yaml", dir);
    warnings.n = 0;
    struct conf *c = config_load(span_str(text), path, &warnings);
    assert_non_null(c);
    warnings.n = 0; /* the loader's own */
    references_check(c, &warnings);
    conf_unref(c);
}

static void expect(size_t i, unsigned line, const char *what)
{
    assert_in_range(i, 0, warnings.n - 1);
    assert_int_equal(warnings.list[i].mark.line, line);
    if (strstr(warnings.list[i].text, what) == NULL)
        fail_msg("'%s' does not say '%s'", warnings.list[i].text, what);
}

static void test_all_there(void **state)
{
    UNUSED(state);
    write_file("user", "alice");
    setenv("REFERENCES_TEST", "hidden", 1);
    look(
        "rules:\n"
        "  - {name: a, source: r.example/*, target: a/*, credential_set: set}\n"
        "credential_sets:\n"
        "  - {name: set, login_server: r.example, username: 'file:user', password: 'env:REFERENCES_TEST'}\n");
    assert_int_equal(warnings.n, 0);
}

static void test_what_is_not_there(void **state)
{
    UNUSED(state);
    write_file("empty", "");
    unsetenv("REFERENCES_TEST");
    setenv("REFERENCES_EMPTY", "", 1);
    look("rules:\n"
         "  - {name: a, source: r.example/*, target: a/*, credential_set: set}\n"
         "credential_sets:\n"
         "  - name: set\n"
         "    login_server: r.example\n"
         "    username: file:empty\n"
         "    password: env:REFERENCES_TEST\n"
         "  - name: other\n"
         "    login_server: r.example\n"
         "    username: env:REFERENCES_EMPTY\n"
         "    password: file:.\n"
         "  - name: third\n"
         "    login_server: r.example\n"
         "    password: dockerconfig:/no/such/config.json\n");
    assert_int_equal(warnings.n, 5);
    expect(0, 6, "/empty: it is empty");
    expect(1, 7, "REFERENCES_TEST: this environment variable is not set here");
    expect(2, 10, "REFERENCES_EMPTY: this environment variable is empty here");
    expect(3, 11, "it is a directory");
    expect(4, 14, "/no/such/config.json: No such file");
}

static int begin(void **state)
{
    UNUSED(state);
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    UNUSED(st);
    UNUSED(type);
    UNUSED(ftw);
    return remove(path);
}

static int end(void **state)
{
    UNUSED(state);
    return nftw(dir, remove_one, 4, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_there),
                                       cmocka_unit_test(test_what_is_not_there)};
    return cmocka_run_group_tests(tests, begin, end);
}
