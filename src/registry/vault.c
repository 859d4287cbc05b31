/* See vault.h. Key Vault REST API 7.4; IMDS 2018-02-01; OAuth 2 with a client assertion (RFC 7523). */
#include "registry/vault.h"

#include "registry/json.h"
#include "registry/token.h"

#define ERROR_WORD_MAX 64

static const struct {
    struct span suffix, resource, authority;
} clouds[] = {
    {{".vault.azure.net", 16}, {"https://vault.azure.net", 23}, {"https://login.microsoftonline.com", 33}},
    {{".vault.azure.cn", 15},
     {"https://vault.azure.cn", 22},
     {"https://login.partner.microsoftonline.cn", 40}},
    {{".vault.usgovcloudapi.net", 24},
     {"https://vault.usgovcloudapi.net", 31},
     {"https://login.microsoftonline.us", 32}},
};

static bool words_ok(struct span path)
{
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && c != '-' && c != '/')
            return false;
    }
    return true;
}

bool vault_parse(struct span url, struct vault_ref *out)
{
    if (!span_starts(url, SPAN("https://")))
        return false;
    struct span rest = span_from(url, 8);
    ptrdiff_t slash = span_find(rest, '/');
    if (slash <= 0)
        return false;
    *out =
        (struct vault_ref){.host = span_sub(rest, 0, (size_t)slash), .path = span_from(rest, (size_t)slash)};
    if (!span_starts(out->path, SPAN("/secrets/")) || out->path.n == 9 || !words_ok(out->path))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(clouds); i++) {
        struct span suffix = clouds[i].suffix;
        if (out->host.n <= suffix.n || !span_ieq(span_from(out->host, out->host.n - suffix.n), suffix))
            continue;
        out->resource = clouds[i].resource;
        out->authority = clouds[i].authority;
        return words_ok(span_sub(out->host, 0, out->host.n - suffix.n));
    }
    return false;
}

void vault_secret_target(const struct vault_ref *r, struct str *out)
{
    str_add(out, r->path);
    str_add(out, SPAN("?api-version=7.4"));
}

void vault_metadata_target(const struct vault_ref *r, struct span client_id, struct str *out)
{
    str_add(out, SPAN("/metadata/identity/oauth2/token?api-version=2018-02-01&resource="));
    token_escape(r->resource, out);
    if (client_id.n > 0) {
        str_add(out, SPAN("&client_id="));
        token_escape(client_id, out);
    }
}

void vault_exchange_target(struct span tenant, struct str *out)
{
    str_addc(out, '/');
    token_escape(tenant, out);
    str_add(out, SPAN("/oauth2/v2.0/token"));
}

void vault_exchange_form(const struct vault_ref *r, struct span client_id, struct span assertion,
                         struct str *out)
{
    str_add(out, SPAN("grant_type=client_credentials&client_id="));
    token_escape(client_id, out);
    str_add(out, SPAN("&scope="));
    token_escape(r->resource, out);
    token_escape(SPAN("/.default"), out);
    str_add(out,
            SPAN("&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
                 "&client_assertion="));
    token_escape(assertion, out);
}

bool vault_read_secret(struct span json, struct str *out)
{
    return json_member_text(json, SPAN("value"), out) && out->n > 0;
}

bool vault_read_token(struct span json, struct str *out)
{
    if (!json_member_text(json, SPAN("access_token"), out) || out->n == 0)
        return false;
    for (size_t i = 0; i < out->n; i++) { /* it goes into a header field */
        if (out->p[i] <= 0x20 || out->p[i] >= 0x7f)
            return false;
    }
    return true;
}

/* ---- what is wrong ---- */

struct error {
    struct span error, description;
};

static void take_error(void *arg, struct span key, struct span value)
{
    struct error *e = arg;
    if (span_eq(key, SPAN("error")))
        e->error = value;
    else if (span_eq(key, SPAN("error_description")))
        e->description = value;
}

/* The text's first word, if it is short and plain; behind a blank, unless it is the first one behind `start`. */
static void add_word(struct span value, size_t start, struct str *out)
{
    struct span text = span_sub(value, 1, value.n - 2);
    size_t n = 0;
    while (n < text.n && n <= ERROR_WORD_MAX &&
           ((text.p[n] >= '0' && text.p[n] <= '9') || (text.p[n] >= 'A' && text.p[n] <= 'Z') ||
            (text.p[n] >= 'a' && text.p[n] <= 'z') || text.p[n] == '_'))
        n++;
    if (n == 0 || n > ERROR_WORD_MAX)
        return;
    str_addz(out, out->n > start ? " " : "");
    str_add(out, span_sub(text, 0, n));
}

static void add_code(void *arg, struct span key, struct span value)
{
    if (span_eq(key, SPAN("code")) && value.n > 2 && value.p[0] == '"')
        add_word(value, ((struct str *)arg)->n, arg);
}

void vault_add_error(struct span json, struct str *out)
{
    struct error e = {0};
    size_t start = out->n;
    (void)json_each_member(json, take_error, &e);
    if (e.error.n > 2 && e.error.p[0] == '"')
        add_word(e.error, start, out);
    else if (e.error.n > 2)
        (void)json_each_member(e.error, add_code, out);
    if (e.description.n > 2 && span_starts(e.description, SPAN("\"AADSTS")))
        add_word(e.description, start, out);
}
