/* The input is a PEM text with certificates and keys in it. Read strictly and leniently, on top of something and as an identity: what is
 * refused says why, what is taken strictly is taken leniently with the same count, and nothing is kept of what was refused. */
#include "base/check.h"
#include "net/trust.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_trust(struct span text)
{
    char words[512];
    struct str why = STR_INIT(words);
    struct trust *strict = trust_new(text, NULL, true, &why);
    MUST((strict == NULL) == (why.n > 0));
    MUST(!why.cut);
    struct trust *lenient = trust_new(text, strict, false, &why);
    MUST(lenient != NULL);
    if (strict != NULL) {
        MUST(trust_count(strict) > 0 && trust_count(lenient) == 2 * trust_count(strict));
        trust_unref(strict);
    }
    trust_unref(lenient);
}

static void check_identity(struct span text)
{
    char words[512];
    struct str why = STR_INIT(words);
    struct identity *i = identity_new(text, text, &why);
    MUST((i == NULL) == (why.n > 0));
    MUST(!why.cut);
    if (i != NULL)
        MUST(identity_expires_ms(i) != 0);
    identity_unref(i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = span_of((const char *)data, size);
    check_trust(text);
    check_identity(text);
    return 0;
}
