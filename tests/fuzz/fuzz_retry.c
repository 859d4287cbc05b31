/* Retry-After and rate-limit fields: bounded, and a date that is understood is later by what now is earlier. */
#include "base/check.h"
#include "http/retry.h"

#define NOW INT64_C(1769860800000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span value = span_of((const char *)data, size);
    int64_t ms = retry_after_parse(value, NOW), earlier = retry_after_parse(value, NOW - 1000);
    MUST(ms >= -1 && ms <= RETRY_AFTER_MAX_MS && ms % 1000 == (ms < 0 ? -1 : 0));
    MUST((ms < 0) == (earlier < 0));
    MUST(ms <= 0 || ms == RETRY_AFTER_MAX_MS || earlier == ms || earlier == ms + 1000);
    uint64_t count, window;
    bool limit = ratelimit_parse(value, &count, &window);
    struct span trimmed = span_trim(value);
    bool digit = trimmed.n > 0 && trimmed.p[0] >= '0' && trimmed.p[0] <= '9';
    MUST(!limit || digit);
    return 0;
}
