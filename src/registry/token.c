/* Token servers' answers and what they are asked.
 *
 * Answers are read with the scanner of json.h and not with a parser that builds a tree: its nodes would hold copies of the tokens that
 * nobody wipes. An answer that holds a key twice counts as its last one says, as with other clients. */
#include "registry/token.h"

#include "base/clock.h"
#include "base/mem.h"
#include "registry/json.h"

#define LIFE_MAX_S 86400

/* ---- answers ---- */

struct found { /* values as written; absent: no such key */
    struct span token, access_token, refresh_token, expires_in, issued_at;
};

static void on_member(void *arg, struct span key, struct span value)
{
    struct found *f = arg;
    if (span_eq(key, SPAN("token")))
        f->token = value;
    else if (span_eq(key, SPAN("access_token")))
        f->access_token = value;
    else if (span_eq(key, SPAN("refresh_token")))
        f->refresh_token = value;
    else if (span_eq(key, SPAN("expires_in")))
        f->expires_in = value;
    else if (span_eq(key, SPAN("issued_at")))
        f->issued_at = value;
}

/* The inside of a JSON string; absent: another type, or no value. */
static struct span inside(struct span value)
{
    return value.n >= 2 && value.p[0] == '"' ? span_sub(value, 1, value.n - 2) : SPAN_NONE;
}

/* A token out of a JSON string, or NULL: it does not fit, or cannot stand in a header. */
static char *take_token(struct span value)
{
    size_t cap = value.n < TOKEN_MAX ? value.n + 1 : TOKEN_MAX + 1;
    char *text = mem_alloc(cap);
    struct str s = str_init(text, cap);
    bool good = json_text(value, &s) && s.n > 0;
    for (size_t i = 0; i < s.n; i++)
        good = good && text[i] > ' ' && text[i] < 0x7f;
    if (good)
        return text;
    mem_wipe(text, cap);
    mem_free(text);
    return NULL;
}

/* Whole seconds; 0: absent, nonsense, or not above 0. */
static int64_t read_seconds(struct span value)
{
    struct span text = inside(value).p != NULL ? inside(value) : value;
    size_t digits = 0;
    int64_t s = 0;
    for (; digits < text.n && text.p[digits] >= '0' && text.p[digits] <= '9'; digits++)
        s = s > LIFE_MAX_S ? s : s * 10 + (text.p[digits] - '0');
    struct span rest = span_from(text, digits);
    if (rest.n > 0 && rest.p[0] == '.') { /* a fraction is of no interest */
        rest = span_from(rest, 1);
        while (rest.n > 0 && rest.p[0] >= '0' && rest.p[0] <= '9')
            rest = span_from(rest, 1);
    }
    return rest.n == 0 ? s : 0;
}

/* Decimal digits at *at, exactly `count` of them. */
static bool take_number(struct span s, size_t *at, size_t count, int *out)
{
    uint64_t v;
    struct span digits = span_sub(s, *at, count);
    if (digits.n != count || !span_u64(digits, 9999, &v))
        return false;
    *at += count;
    *out = (int)v;
    return true;
}

static bool take_byte(struct span s, size_t *at, char wanted)
{
    if (*at >= s.n || (s.p[*at] != wanted && s.p[*at] != (wanted | 0x20)))
        return false;
    ++*at;
    return true;
}

/* "Z", "+02:00": minutes east of UTC. */
static bool take_zone(struct span s, size_t *at, int *minutes)
{
    int h = 0, m = 0;
    *minutes = 0;
    if (take_byte(s, at, 'Z'))
        return true;
    bool east = take_byte(s, at, '+');
    if (!east && !take_byte(s, at, '-'))
        return false;
    if (!take_number(s, at, 2, &h) || !take_byte(s, at, ':') || !take_number(s, at, 2, &m) || h > 23 ||
        m > 59)
        return false;
    *minutes = east ? h * 60 + m : -(h * 60 + m);
    return true;
}

/* RFC 3339 section 5.6, to whole seconds. */
static bool read_moment(struct span s, int64_t *ms)
{
    int year, month, day, hour, minute, second, zone;
    size_t at = 0;
    if (!take_number(s, &at, 4, &year) || !take_byte(s, &at, '-') || !take_number(s, &at, 2, &month) ||
        !take_byte(s, &at, '-') || !take_number(s, &at, 2, &day))
        return false;
    if (!take_byte(s, &at, 'T') && !take_byte(s, &at, ' '))
        return false;
    if (!take_number(s, &at, 2, &hour) || !take_byte(s, &at, ':') || !take_number(s, &at, 2, &minute) ||
        !take_byte(s, &at, ':') || !take_number(s, &at, 2, &second))
        return false;
    if (take_byte(s, &at, '.')) {
        while (at < s.n && s.p[at] >= '0' && s.p[at] <= '9')
            at++;
    }
    if (!take_zone(s, &at, &zone) || at != s.n ||
        !clock_from_date(year, month, day, hour, minute, second, ms))
        return false;
    *ms -= (int64_t)zone * 60000;
    return true;
}

static int64_t life_ms(const struct found *f, int64_t now_ms)
{
    int64_t s = read_seconds(f->expires_in), issued;
    if (s == 0)
        s = TOKEN_LIFE_DEFAULT;
    if (s > LIFE_MAX_S)
        s = LIFE_MAX_S;
    int64_t ms = s * 1000;
    if (read_moment(inside(f->issued_at), &issued) && issued < now_ms)
        ms -= now_ms - issued;
    return ms > TOKEN_LIFE_DEFAULT * 1000 ? ms : TOKEN_LIFE_DEFAULT * 1000;
}

bool token_answer_read(struct span json, int64_t now_ms, struct token_answer *out, struct str *why)
{
    struct found f = {.token = SPAN_NONE};
    *out = (struct token_answer){.token = NULL};
    if (json.n > TOKEN_ANSWER_MAX) {
        str_addf(why, "the token server's answer is larger than %d bytes", TOKEN_ANSWER_MAX);
        return false;
    }
    if (!json_each_member(json, on_member, &f)) {
        str_addz(why, "the token server's answer is no JSON object");
        return false;
    }
    struct span token = inside(f.token).n > 0 ? f.token : f.access_token;
    if (inside(token).n == 0) {
        str_addz(why, "the token server's answer holds neither \"token\" nor \"access_token\"");
        return false;
    }
    out->token = take_token(token);
    if (out->token == NULL) {
        str_addf(why, "the token server's token is longer than %d bytes or cannot stand in a header",
                 TOKEN_MAX);
        return false;
    }
    out->refresh_token = take_token(f.refresh_token);
    out->life_ms = life_ms(&f, now_ms);
    return true;
}

static void free_secret(char **text)
{
    if (*text != NULL)
        mem_wipe(*text, strlen(*text));
    FREE(*text);
}

void token_answer_free(struct token_answer *a)
{
    free_secret(&a->token);
    free_secret(&a->refresh_token);
}

/* ---- questions ---- */

void token_escape(struct span s, struct str *out)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        char text[3] = {'%', hex[c >> 4], hex[c & 15]};
        if (alnum || c == '-' || c == '.' || c == '_' || c == '~')
            str_addc(out, (char)c);
        else
            str_add(out, span_of(text, sizeof text));
    }
}

void token_scope(struct span repo, struct str *out)
{
    str_addz(out, "repository:");
    str_add(out, repo);
    str_addz(out, ":pull");
}

/* An absent value: nothing is added. */
static void add_field(struct str *out, const char *separator, const char *name, struct span value)
{
    if (value.p == NULL)
        return;
    str_addz(out, separator);
    str_addz(out, name);
    str_addc(out, '=');
    token_escape(value, out);
}

void token_query(struct span realm_query, struct span service, struct span scope, struct span account,
                 struct str *out)
{
    const char *first = realm_query.p == NULL ? "?" : realm_query.n > 0 ? "&" : "";
    add_field(out, first, "service", service);
    add_field(out, service.p != NULL ? "&" : first, "scope", scope);
    add_field(out, "&", "account", account);
}

void token_form(struct span service, struct span scope, struct span user, struct span password,
                struct span refresh_token, struct str *out)
{
    bool refresh = refresh_token.p != NULL;
    str_addz(out, refresh ? "grant_type=refresh_token" : "grant_type=password");
    add_field(out, "&", "refresh_token", refresh_token);
    add_field(out, "&", "username", refresh ? SPAN_NONE : user);
    add_field(out, "&", "password", refresh ? SPAN_NONE : password);
    add_field(out, "&", "service", service);
    add_field(out, "&", "scope", scope);
    add_field(out, "&", "client_id", SPAN("larder"));
}

/* In pieces that are whole in base64, so that the credentials are copied nowhere but through `piece`. */
void token_basic(struct span user, struct span password, struct str *out)
{
    char piece[48];
    size_t have = 0, n = user.n + 1 + password.n;
    str_addz(out, "Basic ");
    for (size_t i = 0; i < n; i++) {
        piece[have++] = i < user.n ? user.p[i] : i == user.n ? ':' : password.p[i - user.n - 1];
        if (have == sizeof piece || i + 1 == n) {
            str_addb64(out, piece, have);
            have = 0;
        }
    }
    mem_wipe(piece, sizeof piece);
}
