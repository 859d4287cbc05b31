/* Link headers of upstreams, rewritten. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "registry/link.h"

#define OURS "</v2/mine/tags/list?"
#define END  ">; rel=\"next\""

static const struct {
    const char *value, *ns, *out; /* out: NULL when there is no next link */
} cases[] = {
    {"</v2/x/tags/list?n=2&last=b>; rel=\"next\"", NULL, OURS "n=2&last=b" END},
    {"<https://up.example/v2/x/tags/list?last=b&n=2>; rel=\"next\"", NULL, OURS "last=b&n=2" END},
    {"<?last=%2Fb+c%3d;x,y=?>; rel=next", NULL, OURS "last=%2Fb+c%3d;x,y=?" END},
    {"  < /x?bad>; rel=next", NULL, OURS "bad" END},
    {"</x?a>;rel=\"NEXT\"", NULL, OURS "a" END},
    {"</x?a> ; Rel = next", NULL, OURS "a" END},
    {"</x?a>; title=\"a, <b>; rel=\\\"no\\\"\"; rel=\"prev next\"", NULL, OURS "a" END},
    {"</x?a>; title; rel=next; type=\"t\"", NULL, OURS "a" END},
    {"</x?p>; rel=\"prev\", </x?a>; rel=\"next\"", NULL, OURS "a" END},
    {", ,</x?p>, </x?a>; rel=\"next\", </x?b>; rel=\"next\"", NULL, OURS "a" END},
    {"</x?a#frag?no>; rel=next", NULL, OURS "a" END},
    {"</x?a>; rel=next", "docker.io", OURS "a&ns=docker.io" END},
    {"</x?a>; rel=next", "h:5000", OURS "a&ns=h:5000" END},
    {"</x?a>; rel=next", "[::1]:5000", OURS "a&ns=%5b::1%5d:5000" END},
    {"</x?a>; rel=next", "a&b>\r\n", OURS "a&ns=a%26b%3e%0d%0a" END},
    {"</x?a>; rel=next", "", OURS "a" END},
    {"", NULL, NULL},
    {"</x?a>", NULL, NULL},
    {"</x?a>; rel=\"prev\"", NULL, NULL},
    {"</x?a>; rel=\"nextpage\"", NULL, NULL},
    {"</x?a>; rel=prev; rel=next", NULL, NULL},
    {"</x?a>; title=\"; rel=next", NULL, NULL},
    {"</x?a>; rel=\"next", NULL, NULL},
    {"</x?a; rel=next", NULL, NULL},
    {"/x?a; rel=next", NULL, NULL},
    {"</x?p>; rel=prev </x?a>; rel=next", NULL, NULL},
};

static const char *const unfit[] = {
    /* the first page again, for ever */
    "</x>; rel=next",
    "</x?>; rel=next",
    "</x#?a>; rel=next",
    /* not fit for a header of ours */
    "</x?a b>; rel=next",
    "</x?a\r\nX: y>; rel=next",
    "</x?a<b>; rel=next",
    "</x?\xc3\xa9>; rel=next",
};

static void rewriting(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char buf[256];
        struct str out = STR_INIT(buf);
        struct span query;
        enum link_next next = link_next(span_str(cases[i].value), &query);
        if (next == LINK_NEXT)
            assert_true(link_write(query, SPAN("/v2/mine/tags/list"), span_str(cases[i].ns), &out));
        const char *want = cases[i].out != NULL ? cases[i].out : "";
        if (next != (cases[i].out != NULL ? LINK_NEXT : LINK_NONE) || strcmp(buf, want) != 0)
            fail_msg("%s: got '%s', expected '%s'", cases[i].value, buf, want);
    }
    struct span query;
    assert_int_equal(link_next(SPAN_NONE, &query), LINK_NONE);
}

static void a_next_page_that_cannot_be_asked_for(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(unfit); i++) {
        struct span query;
        if (link_next(span_str(unfit[i]), &query) != LINK_UNFIT)
            fail_msg("%s is taken for fit", unfit[i]);
    }
}

static void a_link_that_does_not_fit_is_not_written(void **state)
{
    UNUSED(state);
    char buf[24];
    struct str out = STR_INIT(buf);
    str_add(&out, SPAN("ab"));
    assert_false(link_write(SPAN("1234"), SPAN("/p"), SPAN("h"), &out));
    assert_string_equal(buf, "ab");
    assert_false(out.cut);
    assert_true(link_write(SPAN("1"), SPAN("/p"), SPAN_NONE, &out));
    assert_string_equal(buf, "ab</p?1>; rel=\"next\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rewriting),
        cmocka_unit_test(a_next_page_that_cannot_be_asked_for),
        cmocka_unit_test(a_link_that_does_not_fit_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
