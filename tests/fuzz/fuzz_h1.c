/* The first byte says which parser (request, response, answer to HEAD), the second seeds the places where the rest is cut.
 * The same bytes in any pieces give the same events; heads and bodies keep their limits and lie where they must
 * (h1_trace.h checks that as it goes). */
#include "../unit/http/h1_trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct trace whole, cut;
    if (size < 2)
        return 0;
    bool request = data[0] % 3 == 0, answers_head = data[0] % 3 == 2;
    uint32_t seed = data[1];
    const char *p = (const char *)data + 2;
    size_t n = size - 2;

    trace_init(&whole, request, answers_head);
    trace_feed(&whole, p, n);
    trace_end(&whole);

    trace_init(&cut, request, answers_head);
    uint32_t longest = 1u << (next(&seed) % 8);
    for (size_t i = 0; i < n;) {
        size_t piece = 1 + next(&seed) % longest;
        if (piece > n - i)
            piece = n - i;
        trace_feed(&cut, p + i, piece);
        i += piece;
    }
    trace_end(&cut);
    MUST(strcmp(whole.buf, cut.buf) == 0 && whole.text.n == cut.text.n);
    return 0;
}
