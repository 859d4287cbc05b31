#include "registry/platform.h"

static bool part_ok(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && c != '.' && c != '_' && c != '-')
            return false;
    }
    return s.n > 0;
}

static struct span as_go_says(struct span architecture)
{
    if (span_eq(architecture, SPAN("x86_64")) || span_eq(architecture, SPAN("x86-64")))
        return SPAN("amd64");
    return span_eq(architecture, SPAN("aarch64")) ? SPAN("arm64") : architecture;
}

bool platform_parse(struct span text, struct platform *out)
{
    struct span rest = text;
    *out = (struct platform){.os = SPAN_NONE};
    if (text.n > PLATFORM_TEXT_MAX || !span_next(&rest, '/', &out->os) ||
        !span_next(&rest, '/', &out->architecture) || !part_ok(out->os) || !part_ok(out->architecture))
        return false;
    out->architecture = as_go_says(out->architecture);
    return !span_next(&rest, '/', &out->variant) || (rest.p == NULL && part_ok(out->variant));
}

size_t platforms_parse(struct span list, struct platform out[PLATFORMS_MAX], struct span *wrong)
{
    struct span rest = list, one;
    struct platform more;
    size_t n = 0;
    *wrong = list;
    if (list.n == 0 || list.n > PLATFORMS_TEXT_MAX)
        return 0;
    while (span_next(&rest, ',', &one)) {
        *wrong = one;
        if (!platform_parse(one, n < PLATFORMS_MAX ? &out[n] : &more))
            return 0;
        n++;
    }
    return n;
}

static struct span variant_of(const struct platform *p)
{
    if (p->variant.n > 0)
        return p->variant;
    if (span_eq(p->architecture, SPAN("arm64")))
        return SPAN("v8");
    if (span_eq(p->architecture, SPAN("arm")))
        return SPAN("v7");
    return span_eq(p->architecture, SPAN("amd64")) ? SPAN("v1") : SPAN("");
}

bool platform_match(const struct platform *wanted, const struct platform *has)
{
    if (!span_eq(wanted->os, has->os) || !span_eq(wanted->architecture, as_go_says(has->architecture)))
        return false;
    return wanted->variant.n == 0 || span_eq(wanted->variant, variant_of(has));
}

void platform_add(struct str *out, const struct platform *p)
{
    str_add(out, p->os);
    str_addc(out, '/');
    str_add(out, p->architecture);
    if (p->variant.n > 0) {
        str_addc(out, '/');
        str_add(out, p->variant);
    }
}

struct span platform_of_machine(struct span machine)
{
    static const struct {
        const char *machine, *platform;
    } names[] = {{"i386", "386"},      {"i486", "386"},           {"i586", "386"},      {"i686", "386"},
                 {"armv6l", "arm/v6"}, {"armv7l", "arm/v7"},      {"armv8l", "arm/v7"}, {"aarch64", "arm64"},
                 {"x86_64", "amd64"},  {"loongarch64", "loong64"}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (span_eq(machine, span_str(names[i].machine)))
            return span_str(names[i].platform);
    }
    return machine;
}
