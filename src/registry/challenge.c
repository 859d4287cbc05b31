/* The reader of WWW-Authenticate.
 *
 * Challenges and their parameters are both separated by commas, so a list element is a parameter when "=" follows its first token,
 * and the beginning of the next challenge when not. What does not follow the grammar makes the challenge it stands in worthless;
 * reading goes on behind the next comma that is not in quotes, so that one bad challenge does not hide the others.
 *
 * Invariant: `at` only grows, and every turn of the loop moves it, so the cost is linear in the length of the field. */
#include "registry/challenge.h"

enum { PARAMETERS_MAX = 32 }; /* of one challenge: real ones have four */

struct reading {
    struct span field;
    size_t at;
    bool first; /* behind a scheme, where its first parameter may stand without a comma */
    bool bad;   /* the challenge that is being read */
    struct challenge now;
    struct span names[PARAMETERS_MAX];
    size_t n_names;
};

static bool blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool token_byte(char c)
{
    return alnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool token68_byte(char c)
{
    return alnum(c) || (c != '\0' && strchr("-._~+/", c) != NULL);
}

static bool at_end(const struct reading *r)
{
    return r->at == r->field.n;
}

static char peek(const struct reading *r)
{
    return at_end(r) ? '\0' : r->field.p[r->at];
}

static void skip_blanks(struct reading *r)
{
    while (!at_end(r) && blank(peek(r)))
        r->at++;
}

/* Is here the end of a list element? */
static bool at_comma(struct reading *r)
{
    skip_blanks(r);
    return at_end(r) || peek(r) == ',';
}

static struct span take_token(struct reading *r)
{
    size_t start = r->at;
    while (!at_end(r) && token_byte(peek(r)))
        r->at++;
    return span_sub(r->field, start, r->at - start);
}

/* A quoted string, behind its opening quote. False: it does not end, or holds a control character; it is read to its end
 * nevertheless. What does not fit is left to the caller to see in out->cut. */
static bool take_quoted(struct reading *r, struct str *out)
{
    bool good = true;
    while (!at_end(r)) {
        char c = r->field.p[r->at++];
        if (c == '"')
            return good;
        if (c == '\\' && !at_end(r))
            c = r->field.p[r->at++];
        if (((unsigned char)c < ' ' && c != '\t') || c == 0x7f)
            good = false;
        str_addc(out, c);
    }
    return false;
}

static void skip_to_comma(struct reading *r)
{
    char byte[1];
    struct str nowhere = STR_INIT(byte);
    while (!at_end(r) && peek(r) != ',') {
        if (r->field.p[r->at++] == '"')
            (void)take_quoted(r, &nowhere);
    }
}

static void spoil(struct reading *r)
{
    r->bad = true;
    skip_to_comma(r);
}

static void begin(struct reading *r, struct span scheme)
{
    struct challenge *c = &r->now;
    c->scheme = span_ieq(scheme, SPAN("bearer"))  ? CHALLENGE_BEARER
                : span_ieq(scheme, SPAN("basic")) ? CHALLENGE_BASIC
                                                  : CHALLENGE_NONE;
    c->realm[0] = c->service[0] = '\0';
    c->has_service = c->insufficient_scope = c->invalid_token = false;
    r->bad = false;
    r->n_names = 0;
}

/* The challenge that was being read is complete: is it better than what there is? The schemes are in the order of preference. */
static void finish(struct reading *r, struct challenge *best)
{
    const struct challenge *c = &r->now;
    if (r->bad || c->scheme <= best->scheme)
        return;
    if (c->scheme == CHALLENGE_BEARER && c->realm[0] == '\0')
        return;
    *best = *c;
}

static bool new_name(struct reading *r, struct span name)
{
    if (r->n_names == PARAMETERS_MAX)
        return false;
    for (size_t i = 0; i < r->n_names; i++) {
        if (span_ieq(r->names[i], name))
            return false;
    }
    r->names[r->n_names++] = name;
    return true;
}

/* A parameter's value, behind the "="; false as for take_quoted. */
static bool take_value(struct reading *r, struct str *out)
{
    if (peek(r) == '"') {
        r->at++;
        return take_quoted(r, out);
    }
    struct span value = take_token(r);
    str_add(out, value);
    return value.n > 0;
}

/* Of a Bearer challenge three parameters matter; of others none. */
static bool take_parameter(struct reading *r, struct span name)
{
    struct challenge *c = &r->now;
    bool bearer = c->scheme == CHALLENGE_BEARER;
    char word[32];
    struct str out = STR_INIT(word);
    if (!new_name(r, name))
        return false;
    if (bearer && span_ieq(name, SPAN("realm"))) {
        out = str_init(c->realm, sizeof c->realm);
        return take_value(r, &out) && !out.cut;
    }
    if (bearer && span_ieq(name, SPAN("service"))) {
        c->has_service = true;
        out = str_init(c->service, sizeof c->service);
        return take_value(r, &out) && !out.cut;
    }
    if (!take_value(r, &out))
        return false;
    if (bearer && span_ieq(name, SPAN("error"))) {
        c->insufficient_scope = span_eq(str_span(&out), SPAN("insufficient_scope"));
        c->invalid_token = span_eq(str_span(&out), SPAN("invalid_token"));
    }
    return true;
}

/* Credentials in the older form ("Negotiate YII/abc=="): blanks and all up to the comma. */
static bool skip_token68(struct reading *r)
{
    size_t start = r->at, i = start;
    while (i < r->field.n && token68_byte(r->field.p[i]))
        i++;
    bool some = i > start;
    while (i < r->field.n && r->field.p[i] == '=')
        i++;
    r->at = i;
    if (some && at_comma(r))
        return true;
    r->at = start;
    return false;
}

/* A list element that begins with a token. */
static void read_element(struct reading *r, struct challenge *best)
{
    struct span token = take_token(r);
    bool first = r->first;
    r->first = false;
    if (token.n == 0) {
        spoil(r);
        return;
    }
    size_t end = r->at;
    skip_blanks(r);
    if (peek(r) == '=') {
        r->at++;
        skip_blanks(r);
        if (!take_parameter(r, token) || !at_comma(r))
            spoil(r);
        return;
    }
    if (first) { /* a scheme, and behind it neither a parameter nor a comma */
        spoil(r);
        return;
    }
    finish(r, best);
    begin(r, token);
    if (at_comma(r))
        return;
    if (r->at == end)
        spoil(r);
    else if (!skip_token68(r))
        r->first = true;
}

void challenge_read(struct challenge *c, struct span field)
{
    struct reading r = {.field = field};
    for (;;) {
        while (!at_end(&r) && (blank(peek(&r)) || peek(&r) == ','))
            r.at++;
        if (at_end(&r))
            break;
        read_element(&r, c);
    }
    finish(&r, c);
}
