/* Names of images. What is accepted has parts that keep their grammars, and is the same image when it is put together again. */
#include "base/check.h"
#include "base/str.h"
#include "registry/image.h"
#include "registry/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(struct span whole, struct span part)
{
    return part.p == NULL || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

static bool same(struct span a, struct span b)
{
    return (a.p == NULL) == (b.p == NULL) && span_eq(a, b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char buf[1024];
    struct str out = STR_INIT(buf);
    struct span text = span_of((const char *)data, size);
    struct image_name image, again;
    if (!image_parse(text, &image))
        return 0;
    MUST(inside(text, image.host) && inside(text, image.repository) && inside(text, image.reference));
    MUST(name_repo_ok(image.repository) && (image.host.p == NULL || name_registry_ok(image.host)));
    bool by_digest = image.digest.alg != DIGEST_NONE;
    MUST(image.reference.p == NULL || by_digest || name_tag_ok(image.reference));
    if (image.host.p != NULL) {
        str_add(&out, image.host);
        str_addc(&out, '/');
    }
    str_add(&out, image.repository);
    if (image.reference.p != NULL)
        str_addc(&out, by_digest ? '@' : ':');
    if (by_digest)
        digest_add(&out, &image.digest);
    else
        str_add(&out, image.reference);
    MUST(!out.cut && image_parse(str_span(&out), &again));
    MUST(same(again.host, image.host) && same(again.repository, image.repository) &&
         same(again.reference, image.reference) && digest_eq(&again.digest, &image.digest));
    return 0;
}
