/* Lists of platforms. What is accepted is the same when it is written again, and each is one of its own kind. */
#include "base/check.h"
#include "registry/platform.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span list = span_of((const char *)data, size), wrong;
    struct platform all[PLATFORMS_MAX], again;
    size_t n = platforms_parse(list, all, &wrong);
    if (n == 0)
        MUST(wrong.n == 0 || (wrong.p >= list.p && wrong.p + wrong.n <= list.p + list.n));
    for (size_t i = 0; i < n && i < PLATFORMS_MAX; i++) {
        char text[PLATFORM_TEXT_MAX + 8];
        struct str out = STR_INIT(text);
        platform_add(&out, &all[i]);
        MUST(!out.cut && platform_parse(str_span(&out), &again));
        MUST(span_eq(again.os, all[i].os) && span_eq(again.architecture, all[i].architecture) &&
             span_eq(again.variant, all[i].variant));
        MUST(platform_match(&again, &all[i]));
    }
    return 0;
}
