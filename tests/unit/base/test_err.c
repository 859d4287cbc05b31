#include "test.h"

#include <string.h>

#include "base/err.h"

static void every_error_is_complete(void **state)
{
    UNUSED(state);
    for (int e = 0; e < ERR_COUNT; e++) {
        assert_true(strlen(err_name(e)) > 0);
        assert_true(strlen(err_words(e)) > 0);
        assert_true(strlen(err_word(e)) > 0 &&
                    strspn(err_word(e), "abcdefghijklmnopqrstuvwxyz-") == strlen(err_word(e)));
        assert_in_range(err_status(e), 200, 599);
        assert_true(e == ERR_OK || strlen(err_oci(e)) > 0);
    }
}

static void lookups_give_the_row(void **state)
{
    UNUSED(state);
    assert_int_equal(ERR_OK, 0);
    assert_string_equal(err_name(ERR_UP_TIMEOUT), "UP_TIMEOUT");
    assert_int_equal(err_status(ERR_UP_TIMEOUT), 504);
    assert_string_equal(err_word(ERR_UP_TLS), "untrusted");
    assert_string_equal(err_oci(ERR_TOO_MANY), "TOOMANYREQUESTS");
    assert_string_equal(err_words(ERR_METHOD), "this registry is a read-only cache");
    assert_int_equal(err_status(ERR_CLIENT_GONE), 499);
}

static void unknown_numbers_are_internal_errors(void **state)
{
    UNUSED(state);
    assert_string_equal(err_name(-1), "INTERNAL");
    assert_string_equal(err_words(ERR_COUNT), err_words(ERR_INTERNAL));
    assert_int_equal(err_status(INT32_MAX), 500);
    assert_string_equal(err_oci(INT32_MIN), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_is_complete),
        cmocka_unit_test(lookups_give_the_row),
        cmocka_unit_test(unknown_numbers_are_internal_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
