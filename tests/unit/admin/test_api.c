/* The admin API: parameters, and who may give orders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "admin/api.h"

static void parameters(void **state)
{
    UNUSED(state);
    static const struct {
        const char *query, *name, *value; /* NULL: none */
    } examples[] = {
        {"a=b", "a", "b"},
        {"a=b&c=d", "c", "d"},
        {"a=b&a=c", "a", "b"},
        {"a=", "a", ""},
        {"a=%41%2f%2F+", "a", "A//+"},
        {"ab=c", "a", NULL},
        {"a", "a", NULL},
        {"", "a", NULL},
        {"a=%", "a", NULL},
        {"a=%4", "a", NULL},
        {"a=%4g", "a", NULL},
        {"a=%00", "a", NULL},
        {"a=12345678", "a", NULL}, /* too long for what it is read into */
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char buf[8];
        struct str value = STR_INIT(buf);
        bool found = api_parameter(span_str(examples[i].query), span_str(examples[i].name), &value);
        if (found != (examples[i].value != NULL) || (found && strcmp(buf, examples[i].value) != 0))
            fail_msg("%s: %d '%s'", examples[i].query, found, buf);
    }
}

static void parameters_that_may_be_missing(void **state)
{
    UNUSED(state);
    static const struct {
        const char *query, *value; /* NULL: refused */
    } examples[] = {{"", ""},           {"b=c", ""},    {"a", ""},       {"a=", ""},          {"a=b", "b"},
                    {"c=d&a=%62", "b"}, {"a=%4", NULL}, {"a=%00", NULL}, {"a=12345678", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char buf[8], text[100];
        struct str value = STR_INIT(buf), out = STR_INIT(text);
        bool ok = api_optional(span_str(examples[i].query), "a", &value, &out);
        if (ok != (examples[i].value != NULL) || (ok && strcmp(buf, examples[i].value) != 0))
            fail_msg("%s: %d '%s'", examples[i].query, ok, buf);
        assert_int_equal(ok, strstr(text, "the parameter a ") == NULL);
    }
}

static void orders_come_from_here(void **state)
{
    UNUSED(state);
    static const char *here[] = {"127.0.0.1:40000", "127.9.8.7:1", "[::1]:40000", "[::ffff:127.0.0.1]:40000"};
    static const char *elsewhere[] = {
        "",           "192.0.2.1:40000",          "10.127.0.1:1", "[2001:db8::1]:40000",
        "[::12]:127", "[::ffff:192.0.2.127]:127", "1127.0.0.1:1", "[2001:db8::127]:1"};
    static const struct api all = {.own = "0.0.0.0:"}, one = {.own = "192.0.2.1:"},
                            six = {.own = "[2001:db8::1]:"}, unknown = {.own = ""};
    for (size_t i = 0; i < ARRAY_LEN(here); i++)
        assert_true(api_is_from_here(&all, span_str(here[i])) && api_is_from_here(&one, span_str(here[i])));
    for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++)
        assert_false(api_is_from_here(&all, span_str(elsewhere[i])) ||
                     api_is_from_here(&unknown, span_str(elsewhere[i])));
    assert_true(api_is_from_here(&one, SPAN("192.0.2.1:40000")));
    assert_false(api_is_from_here(&one, SPAN("192.0.2.11:40000")));
    assert_true(api_is_from_here(&six, SPAN("[2001:db8::1]:40000")));
    assert_false(api_is_from_here(&six, SPAN("[2001:db8::11]:40000")));
}

static void hosts_of_pages_are_refused(void **state)
{
    UNUSED(state);
    static const char *own[] = {"127.0.0.1:5001", "127.0.0.1", "[::1]:5001", "[::1]",   "192.0.2.1:5001",
                                "localhost:5001", "LocalHost", "larder",     "Larder:1"};
    static const char *others[] = {"",
                                   "page.test",
                                   "page.test:5001",
                                   "localhost.page.test",
                                   "127.0.0.1.page.test:5001",
                                   "larder.io",
                                   "localhost.",
                                   "[page.test]:5001",
                                   "127.1",
                                   "2130706433"};
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (!api_is_own_host(span_str(own[i])))
            fail_msg("%s", own[i]);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (api_is_own_host(span_str(others[i])))
            fail_msg("%s", others[i]);
    assert_true(api_is_own_host(SPAN_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters),
        cmocka_unit_test(parameters_that_may_be_missing),
        cmocka_unit_test(orders_come_from_here),
        cmocka_unit_test(hosts_of_pages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
