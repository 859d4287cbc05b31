/* Text as YAML scalars: quoted where it must be, and read back as it was. */
#include "conf_test.h"

#include "base/arena.h"
#include "conf/scalar.h"
#include "conf/yaml_in.h"

static void expect(struct span text, char quote, bool flow, const char *want)
{
    char buf[256];
    struct str s = STR_INIT(buf);
    scalar_add(&s, text, quote, flow);
    assert_string_equal(buf, want);
}

static void quotes_where_they_must_be(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *block, *flow; /* no flow: the same */
    } cases[] = {
        {"hub", "hub", NULL},
        {"docker.io/library/nginx", "docker.io/library/nginx", NULL},
        {"localhost:5000/x", "localhost:5000/x", NULL},
        {"quay.io/a/*", "quay.io/a/*", NULL},
        {"env:HUB_USER", "env:HUB_USER", NULL},
        {"https://v.vault.azure.net/secrets/s", "https://v.vault.azure.net/secrets/s", NULL},
        {"file:/run/my secrets/p", "file:/run/my secrets/p", NULL},
        {"it's", "it's", NULL},
        {"\xc3\xbc", "\xc3\xbc", NULL},
        {"a#b", "a#b", NULL},
        {"a,b", "a,b", "\"a,b\""},
        {"a[0]", "a[0]", "\"a[0]\""},
        {"1.x-y", "1.x-y", NULL},
        {"*", "\"*\"", NULL},
        {"", "\"\"", NULL},
        {"~", "\"~\"", NULL},
        {"null", "\"null\"", NULL},
        {"Yes", "\"Yes\"", NULL},
        {"off", "\"off\"", NULL},
        {"12", "\"12\"", NULL},
        {"1.5", "\"1.5\"", NULL},
        {"-3", "\"-3\"", NULL},
        {".5", "\".5\"", NULL},
        {".inf", "\".inf\"", NULL},
        {"0x1F", "\"0x1F\"", NULL},
        {"2024-01-01", "\"2024-01-01\"", NULL},
        {"12:30", "\"12:30\"", NULL},
        {"a: b", "\"a: b\"", NULL},
        {"a:", "\"a:\"", NULL},
        {"a #b", "\"a #b\"", NULL},
        {" a", "\" a\"", NULL},
        {"a ", "\"a \"", NULL},
        {"- a", "\"- a\"", NULL},
        {"&a", "\"&a\"", NULL},
        {"!a", "\"!a\"", NULL},
        {"%a", "\"%a\"", NULL},
        {"@a", "\"@a\"", NULL},
        {"{a", "\"{a\"", NULL},
        {"...", "\"...\"", NULL},
        {"\"a\\", "\"\\\"a\\\\\"", NULL},
        {"a\nb\t\x7f", "\"a\\x0ab\\x09\\x7f\"", NULL},
        {"a\xe2\x80\xa8z", "\"a\xe2\x80\xa8z\"", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect(span_str(cases[i].text), 0, false, cases[i].block);
        expect(span_str(cases[i].text), 0, true, cases[i].flow != NULL ? cases[i].flow : cases[i].block);
    }
}

static void quotes_as_wanted(void **state)
{
    UNUSED(state);
    expect(SPAN("hub"), '"', false, "\"hub\"");
    expect(SPAN("hub"), '\'', true, "'hub'");
    expect(SPAN("it's \"\\"), '\'', false, "'it''s \"\\'");
    expect(SPAN("a\tb'"), '\'', false, "\"a\\x09b'\"");
    expect(SPAN("a\0b"), 0, false, "\"a\\x00b\"");
}

/* Every text of two characters of the ones that YAML gives a meaning. */
static void is_read_back(void **state)
{
    UNUSED(state);
    static const char letters[] = "a1-?:,[]{}#&*!|>'\"%@`=.~ \t\n\r\\/+_x\x01\x7f";
    for (const char *c = letters; *c != '\0'; c++)
        for (const char *d = letters; *d != '\0'; d++)
            for (size_t f = 0; f < 2; f++) {
                char text[2] = {*c, *d}, buf[64], file[256];
                struct str s = STR_INIT(buf), all = STR_INIT(file);
                scalar_add(&s, span_of(text, 2), 0, f == 1);
                str_addz(&all, f == 1 ? "{x: [" : "");
                str_addz(&all, buf);
                str_addz(&all, f == 1 ? ", " : ": ");
                str_addz(&all, buf);
                str_addz(&all, f == 1 ? "]}\n" : "\n");
                struct arena *a = arena_new();
                struct conf_node *root;
                assert_true(yaml_in_read(a, str_span(&all), &test_errors, &root));
                const struct conf_node *first = f == 1 ? root->first->value->first : root->first,
                                       *second = f == 1 ? first->next : first->value;
                assert_int_equal(first->kind, NODE_SCALAR);
                assert_true(span_eq(first->text, span_of(text, 2)) &&
                            span_eq(second->text, span_of(text, 2)));
                arena_free(a);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotes_where_they_must_be),
        cmocka_unit_test(quotes_as_wanted),
        cmocka_unit_test(is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
