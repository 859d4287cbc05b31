/* Images as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "registry/image.h"

#define HEX    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA256 "sha256:" HEX
#define SHA512 "sha512:" HEX HEX

struct example {
    const char *text, *host, *repository, *reference; /* NULL: absent */
    enum digest_alg alg;
};

static bool same(struct span is, const char *want)
{
    return want == NULL ? is.p == NULL : is.p != NULL && span_eq(is, span_str(want));
}

static void the_parts(void **state)
{
    UNUSED(state);
    static const struct example examples[] = {
        {"nginx", NULL, "nginx", NULL, DIGEST_NONE},
        {"nginx:1.25", NULL, "nginx", "1.25", DIGEST_NONE},
        {"library/nginx", NULL, "library/nginx", NULL, DIGEST_NONE},
        {"t/app:v1", NULL, "t/app", "v1", DIGEST_NONE},
        {"t/app@" SHA256, NULL, "t/app", SHA256, DIGEST_SHA256},
        {"t/app:v1@" SHA256, NULL, "t/app", SHA256, DIGEST_SHA256},
        {"t/app@" SHA512, NULL, "t/app", SHA512, DIGEST_SHA512},
        {"docker.io/library/nginx:1.25", "docker.io", "library/nginx", "1.25", DIGEST_NONE},
        {"cache.example:5000/dotnet/sdk", "cache.example:5000", "dotnet/sdk", NULL, DIGEST_NONE},
        {"cache.example:5000/dotnet/sdk:8.0", "cache.example:5000", "dotnet/sdk", "8.0", DIGEST_NONE},
        {"localhost/x:y", "localhost", "x", "y", DIGEST_NONE},
        {"localhost:5000", NULL, "localhost", "5000", DIGEST_NONE}, /* a tag: no slash follows */
        {"localhosts/x", NULL, "localhosts/x", NULL, DIGEST_NONE},
        {"[2001:db8::1]:5000/x:y", "[2001:db8::1]:5000", "x", "y", DIGEST_NONE},
        {"[::1]/x", "[::1]", "x", NULL, DIGEST_NONE},
        {"docker://quay.io/x/y:z", "quay.io", "x/y", "z", DIGEST_NONE},
        {"docker://x", NULL, "x", NULL, DIGEST_NONE},
        {"a.b", NULL, "a.b", NULL, DIGEST_NONE}, /* no slash, no host */
        {"x/a.b/c", NULL, "x/a.b/c", NULL, DIGEST_NONE},
        {"QUAY.IO/x", "QUAY.IO", "x", NULL, DIGEST_NONE},
    };
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        const struct example *e = &examples[i];
        struct image_name image;
        if (!image_parse(span_str(e->text), &image))
            fail_msg("refused: %s", e->text);
        if (!same(image.host, e->host) || !same(image.repository, e->repository) ||
            !same(image.reference, e->reference) || image.digest.alg != e->alg)
            fail_msg("%s: '" SPAN_FMT "' '" SPAN_FMT "' '" SPAN_FMT "' %d", e->text, SPAN_ARG(image.host),
                     SPAN_ARG(image.repository), SPAN_ARG(image.reference), image.digest.alg);
    }
}

static void what_is_no_image(void **state)
{
    UNUSED(state);
    static const char *bad[] = {
        "",
        ":",
        "@",
        "/",
        ":x",
        "@" SHA256,
        "a:",
        "a@",
        "a:-b",
        "a:b:c",
        "a b",
        "UPPER",
        "a//b",
        "/a",
        "a/",
        "quay.io/",
        "quay.io//a",
        "a..b/c",
        "quay.io:0/c",
        "quay.io:x/c",
        "a@sha256:00",
        "a@sha256:" HEX "0",
        "a@md5:0123456789abcdef0123456789abcdef",
        "a@" SHA256 "@" SHA256,
        "a:b@",
        "a:" HEX HEX "0", /* a tag of 129 characters */
        "://a",
        "docker://",
        "docker://docker://a",
        "a\n",
        "a\xc3\xa9",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct image_name image;
        if (image_parse(span_str(bad[i]), &image))
            fail_msg("accepted: %s", bad[i]);
    }
    struct image_name image;
    assert_false(image_parse(SPAN_NONE, &image));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts),
        cmocka_unit_test(what_is_no_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
