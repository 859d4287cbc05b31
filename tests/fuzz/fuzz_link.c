/* Link headers. What is written is one link to our own path that is fit for a header line, and is its own rewriting. */
#include "base/check.h"
#include "registry/link.h"

#define PATH "/v2/mine/tags/list"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char buf[1 << 20], again_buf[1 << 20], ns_buf[1 << 20];
    struct str out = STR_INIT(buf), again = STR_INIT(again_buf), with_ns = STR_INIT(ns_buf);
    struct span value = span_of((const char *)data, size);
    struct span query;
    if (link_next(value, &query) != LINK_NEXT)
        return 0;
    MUST(query.n > 0 && query.p >= value.p && query.p + query.n <= value.p + value.n);
    MUST(link_write(query, SPAN(PATH), SPAN_NONE, &out) &&
         link_write(query, SPAN(PATH), SPAN("h:5000"), &with_ns));
    struct span text = str_span(&out);
    for (size_t i = 0; i < text.n; i++)
        MUST(text.p[i] >= 0x20 && text.p[i] < 0x7f);
    MUST(span_starts(text, SPAN("<" PATH "?")) && span_ends(text, SPAN(">; rel=\"next\"")));
    MUST(span_find(text, '>') == (ptrdiff_t)(text.n - strlen(">; rel=\"next\"")));
    MUST(span_ends(str_span(&with_ns), SPAN("&ns=h:5000>; rel=\"next\"")));
    MUST(with_ns.n == out.n + strlen("&ns=h:5000"));
    MUST(link_next(text, &query) == LINK_NEXT && link_write(query, SPAN(PATH), SPAN_NONE, &again));
    MUST(span_eq(str_span(&again), text));
    return 0;
}
