/* See docker_config.h. */
#include "registry/docker_config.h"

#include "registry/json.h"
#include "registry/name.h"

/* ---- base64 (RFC 4648 section 4; padding may be missing) ---- */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool base64_decode(struct span s, struct str *out)
{
    unsigned bits = 0, held = 0;
    for (int pad = 0; pad < 2 && s.n > 0 && s.p[s.n - 1] == '='; pad++)
        s.n--;
    for (size_t i = 0; i < s.n; i++) {
        int v = base64_value(s.p[i]);
        if (v < 0)
            return false;
        bits = (bits << 6 | (unsigned)v) & 0xffff;
        held += 6;
        if (held >= 8) {
            held -= 8;
            str_addc(out, (char)(bits >> held & 0xff));
        }
    }
    return s.n % 4 != 1 && !out->cut;
}

/* ---- keys ---- */

static bool key_names(struct span key, struct span registry)
{
    char text[NAME_REGISTRY_MAX + 1];
    struct str canonical = STR_INIT(text);
    bool url = false;
    static const struct span schemes[] = {{"https://", 8}, {"http://", 7}};
    for (size_t i = 0; i < ARRAY_LEN(schemes) && !url; i++) {
        url = key.n >= schemes[i].n && span_ieq(span_sub(key, 0, schemes[i].n), schemes[i]);
        if (url)
            key = span_from(key, schemes[i].n);
    }
    ptrdiff_t slash = span_find(key, '/');
    if (slash >= 0) {
        struct span path = span_from(key, (size_t)slash);
        if (!url && !span_eq(path, SPAN("/")) && !span_starts(path, SPAN("/v1")) &&
            !span_starts(path, SPAN("/v2")))
            return false;
        key = span_sub(key, 0, (size_t)slash);
    }
    return name_registry_canonical(key, &canonical) && span_eq(str_span(&canonical), registry);
}

/* ---- the file ---- */

struct search {
    struct span registry;
    struct str *room;
    struct span auths, helpers, store;                  /* values of the top level */
    struct span found;                                  /* the value under the registry's key */
    struct span user, password, auth, identity, helper; /* strings of the entry, as written */
};

static bool is_text(struct span value)
{
    return value.n > 2 && value.p[0] == '"'; /* an empty one counts as absent */
}

/* Decodes a string into the room; absent stays absent. */
static bool decode(struct str *room, struct span value, struct span *out)
{
    size_t from = room->n;
    *out = SPAN_NONE;
    if (value.p == NULL)
        return true;
    if (!json_text(value, room))
        return false;
    *out = span_from(str_span(room), from);
    return true;
}

static void take_top(void *arg, struct span key, struct span value)
{
    struct search *s = arg;
    if (span_eq(key, SPAN("auths")))
        s->auths = value;
    else if (span_eq(key, SPAN("credHelpers")))
        s->helpers = value;
    else if (span_eq(key, SPAN("credsStore")) && is_text(value))
        s->store = value;
}

/* Is this member's key one of the registry's spellings? Keys may have escapes: "https:\/\/...". */
static bool key_matches(const struct search *s, struct span key)
{
    char text[512];
    struct str plain = STR_INIT(text);
    return json_text(span_of(key.p - 1, key.n + 2), &plain) && key_names(str_span(&plain), s->registry);
}

static void take_helper(void *arg, struct span key, struct span value)
{
    struct search *s = arg;
    if (is_text(value) && key_matches(s, key))
        s->helper = value;
}

static void take_entry_member(void *arg, struct span key, struct span value)
{
    struct search *s = arg;
    if (!is_text(value))
        return;
    if (span_eq(key, SPAN("auth")))
        s->auth = value;
    else if (span_eq(key, SPAN("username")))
        s->user = value;
    else if (span_eq(key, SPAN("password")))
        s->password = value;
    else if (span_eq(key, SPAN("identitytoken")))
        s->identity = value;
}

/* The first entry of the registry that says something: where a credsStore is used, auths has empty ones. */
static void take_entry(void *arg, struct span key, struct span value)
{
    struct search *s = arg;
    if (s->auth.p != NULL || s->identity.p != NULL || s->user.p != NULL || !key_matches(s, key))
        return;
    (void)json_each_member(value, take_entry_member, s);
    s->found = value;
}

/* "USER:PASSWORD"; the password may have colons. Some writers end it with NULs. */
static bool split_auth(const struct search *s, struct docker_credentials *out)
{
    struct span text, plain;
    if (!decode(s->room, s->auth, &text))
        return false;
    size_t from = s->room->n;
    if (!base64_decode(text, s->room))
        return false;
    plain = span_from(str_span(s->room), from);
    while (plain.n > 0 && plain.p[plain.n - 1] == 0)
        plain.n--;
    ptrdiff_t colon = span_find(plain, ':');
    if (colon < 0)
        return false;
    out->user = span_sub(plain, 0, (size_t)colon);
    out->password = span_from(plain, (size_t)colon + 1);
    return true;
}

static bool entry_read(const struct search *s, struct docker_credentials *out, struct str *why)
{
    if (s->auth.p != NULL && !split_auth(s, out)) {
        str_addz(why, "the registry's entry has an auth that is not the base64 of USER:PASSWORD");
        return false;
    }
    bool plain = s->auth.p == NULL;
    if ((plain && (!decode(s->room, s->user, &out->user) || !decode(s->room, s->password, &out->password))) ||
        !decode(s->room, s->identity, &out->refresh_token)) {
        str_addz(why, "the registry's entry has a string that is not valid JSON");
        return false;
    }
    if (out->refresh_token.p == NULL && (out->user.n == 0 || out->password.n == 0)) {
        str_addz(why, "the registry's entry has no user and password, and no identity token");
        return false;
    }
    return true;
}

static bool helper_take(struct search *s, struct span value, struct docker_credentials *out, struct str *why)
{
    if (!decode(s->room, value, &out->helper) || !docker_helper_ok(out->helper)) {
        str_addz(why, "it names a credential helper that cannot be a program's name");
        return false;
    }
    return true;
}

bool docker_config_find(struct span doc, struct span registry, struct str *room,
                        struct docker_credentials *out, struct str *why)
{
    struct search s = {.registry = registry, .room = room};
    *out = (struct docker_credentials){0};
    if (!json_each_member(doc, take_top, &s)) {
        str_addz(why, "it is not a JSON object");
        return false;
    }
    if (s.helpers.p != NULL)
        (void)json_each_member(s.helpers, take_helper, &s);
    if (s.helper.p != NULL)
        return helper_take(&s, s.helper, out, why);
    if (s.auths.p != NULL)
        (void)json_each_member(s.auths, take_entry, &s);
    else if (s.helpers.p == NULL && s.store.p == NULL)
        (void)json_each_member(doc, take_entry, &s);
    if (s.auth.p != NULL || s.identity.p != NULL || s.user.p != NULL)
        return entry_read(&s, out, why);
    if (s.store.p != NULL)
        return helper_take(&s, s.store, out, why);
    str_addf(why, s.found.p != NULL ? "its entry for " SPAN_FMT " is empty" : "it has no entry for " SPAN_FMT,
             SPAN_ARG(registry));
    return false;
}

/* ---- credential helpers ---- */

bool docker_helper_ok(struct span name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && c != '.' && c != '_' && c != '-')
            return false;
    }
    return name.n > 0 && name.n <= DOCKER_HELPER_MAX;
}

static void take_answer(void *arg, struct span key, struct span value)
{
    struct search *s = arg;
    if (!is_text(value))
        return;
    if (span_eq(key, SPAN("Username")))
        s->user = value;
    else if (span_eq(key, SPAN("Secret")))
        s->password = value;
}

bool docker_helper_read(struct span doc, struct str *room, struct docker_credentials *out, struct str *why)
{
    struct search s = {.room = room};
    *out = (struct docker_credentials){0};
    if (!json_each_member(doc, take_answer, &s) || !decode(room, s.user, &out->user) ||
        !decode(room, s.password, &out->password)) {
        str_addz(why, "its answer is not a JSON object with Username and Secret");
        return false;
    }
    if (out->user.p == NULL || out->password.p == NULL) {
        str_addz(why, "its answer has no Username or no Secret");
        return false;
    }
    if (span_eq(out->user, SPAN("<token>"))) {
        out->refresh_token = out->password;
        out->user = out->password = SPAN_NONE;
    }
    return true;
}
