/* The input is a token server's answer, and the parts of a question. A token that is accepted can stand in a header, its life is within
 * the limits, and no message shows it; what is escaped or encoded is the input again when it is decoded. */
#include "base/check.h"
#include "base/mem.h"
#include "registry/token.h"

#define NOW INT64_C(1769860800000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_answer(struct span json)
{
    char text[256];
    struct str why = STR_INIT(text);
    struct token_answer a;
    if (!token_answer_read(json, NOW, &a, &why)) {
        MUST(a.token == NULL && a.refresh_token == NULL && why.n > 0 && !why.cut);
        return;
    }
    const char *tokens[] = {a.token, a.refresh_token};
    MUST(a.token != NULL && why.n == 0 && json.n <= TOKEN_ANSWER_MAX);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        size_t n = tokens[i] != NULL ? strlen(tokens[i]) : 1;
        MUST(n > 0 && n <= TOKEN_MAX);
        for (size_t k = 0; tokens[i] != NULL && k < n; k++)
            MUST(tokens[i][k] > ' ' && tokens[i][k] < 0x7f);
    }
    MUST(a.life_ms >= TOKEN_LIFE_DEFAULT * 1000 && a.life_ms <= 86400 * 1000);
    token_answer_free(&a);
}

static unsigned char hex_value(char c)
{
    return (unsigned char)(c <= '9' ? c - '0' : c - 'A' + 10);
}

static void check_escape(struct span s)
{
    char *buf = mem_alloc(3 * s.n + 1);
    struct str out = str_init(buf, 3 * s.n + 1);
    size_t n = 0;
    token_escape(s, &out);
    MUST(!out.cut);
    for (size_t i = 0; i < out.n; i++, n++) {
        char c = buf[i];
        MUST(c == '%' || c == '-' || c == '.' || c == '_' || c == '~' || (c >= '0' && c <= '9') ||
             (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
        if (c == '%') {
            c = (char)(hex_value(buf[i + 1]) << 4 | hex_value(buf[i + 2]));
            i += 2;
        }
        MUST(n < s.n && s.p[n] == c);
    }
    MUST(n == s.n);
    mem_free(buf);
}

static unsigned digit_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = strchr(digits, c);
    MUST(at != NULL && c != '\0');
    return (unsigned)(at - digits);
}

static void check_basic(struct span user, struct span password)
{
    size_t n = user.n + 1 + password.n, cap = 6 + (n + 2) / 3 * 4 + 1, at = 0;
    char *buf = mem_alloc(cap);
    struct str out = str_init(buf, cap);
    token_basic(user, password, &out);
    MUST(!out.cut && out.n == cap - 1 && span_starts(str_span(&out), SPAN("Basic ")));
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 6; i < out.n && buf[i] != '='; i++) {
        bits = bits << 6 | digit_value(buf[i]);
        have += 6;
        if (have < 8)
            continue;
        have -= 8;
        char c = (char)(bits >> have);
        MUST(at < n && c == (at < user.n ? user.p[at] : at == user.n ? ':' : password.p[at - user.n - 1]));
        at++;
    }
    MUST(at == n);
    mem_free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span s = span_of((const char *)data, size);
    check_answer(s);
    check_escape(s);
    check_basic(span_sub(s, 0, size / 2), span_from(s, size / 2));
    return 0;
}
