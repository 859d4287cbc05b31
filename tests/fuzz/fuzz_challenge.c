/* The input is a message's WWW-Authenticate fields, one a line. What is found is fit to be used, is the same when fields of no use come
 * later, and is found again when it is written in the plainest form. */
#include "base/check.h"
#include "registry/challenge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const struct challenge *a, const struct challenge *b)
{
    return a->scheme == b->scheme && a->has_service == b->has_service &&
           a->insufficient_scope == b->insufficient_scope && a->invalid_token == b->invalid_token &&
           strcmp(a->realm, b->realm) == 0 && strcmp(a->service, b->service) == 0;
}

static void check_text(const char *text, size_t max)
{
    size_t n = strlen(text);
    MUST(n <= max);
    for (size_t i = 0; i < n; i++)
        MUST(((unsigned char)text[i] >= ' ' && text[i] != 0x7f) || text[i] == '\t');
}

static void add_quoted(struct str *out, const char *name, const char *text)
{
    str_addz(out, name);
    str_addz(out, "=\"");
    for (; *text != '\0'; text++) {
        str_addc(out, '\\');
        str_addc(out, *text);
    }
    str_addz(out, "\"");
}

static void check_again(const struct challenge *c)
{
    char buf[2 * (CHALLENGE_REALM_MAX + CHALLENGE_SERVICE_MAX) + 100];
    struct str s = STR_INIT(buf);
    add_quoted(&s, "Bearer realm", c->realm);
    if (c->has_service)
        add_quoted(&s, ",service", c->service);
    if (c->insufficient_scope)
        add_quoted(&s, ",error", "insufficient_scope");
    if (c->invalid_token)
        add_quoted(&s, ",error", "invalid_token");
    struct challenge again = {0};
    MUST(!s.cut);
    challenge_read(&again, str_span(&s));
    MUST(same(c, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct challenge c = {0};
    struct span rest = span_of((const char *)data, size), field;
    while (span_next(&rest, '\n', &field)) {
        enum challenge_scheme before = c.scheme;
        challenge_read(&c, field);
        MUST(c.scheme >= before);
    }
    check_text(c.realm, CHALLENGE_REALM_MAX);
    check_text(c.service, CHALLENGE_SERVICE_MAX);
    MUST(c.has_service || c.service[0] == '\0');
    MUST(!c.insufficient_scope || !c.invalid_token);
    MUST((c.scheme == CHALLENGE_BEARER) == (c.realm[0] != '\0'));
    struct challenge later = c;
    challenge_read(&later, SPAN("Negotiate abc==, Bearer service=\"no realm\", Basic realm=\"no"));
    MUST(same(&c, &later));
    if (c.scheme == CHALLENGE_BEARER)
        check_again(&c);
    return 0;
}
