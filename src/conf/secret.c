/* The grammar of secret references, and the hints for what is almost one.
 *
 * A username may be written as it is, so a reference with a typing mistake would silently become a user's name. It does not: a user's
 * name holds no colon (RFC 7617), and every reference does. */
#include "conf/secret.h"

#include "conf/complain.h"

#define REFERENCES                                                                                           \
    "env:NAME, file:PATH, https://VAULT.vault.azure.net/secrets/SECRET, dockerconfig:PATH or exec:HELPER"

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---- what stands behind each scheme; NULL: good ---- */

static const char *check_env(struct span name)
{
    bool ok = name.n > 0 && !digit(name.p[0]);
    for (size_t i = 0; i < name.n; i++)
        ok = ok && (letter(name.p[i]) || digit(name.p[i]) || name.p[i] == '_');
    if (!ok && name.n > 0 && name.p[0] == '$')
        return "the name of an environment variable is written without '$', as in env:HUB_PASSWORD";
    return ok ? NULL
              : "behind env: stands the name of an environment variable, of letters, digits and '_', as in "
                "env:HUB_PASSWORD";
}

static const char *check_file(struct span path)
{
    if (span_starts(path, SPAN("//")))
        return "a path follows file: without '//', as in file:/run/secrets/hub-password";
    return path.n > 0 ? NULL : "behind file: stands a path, as in file:/run/secrets/hub-password";
}

static const char *check_dockerconfig(struct span path)
{
    return path.n > 0 ? NULL
                      : "behind dockerconfig: stands a path, as in dockerconfig:/root/.docker/config.json";
}

static const char *check_exec(struct span name)
{
    bool ok = name.n > 0 && name.n <= 200;
    for (size_t i = 0; i < name.n; i++)
        ok = ok && (letter(name.p[i]) || digit(name.p[i]) || name.p[i] == '.' || name.p[i] == '_' ||
                    name.p[i] == '-');
    if (!ok)
        return "behind exec: stands the name of a credential helper, not a path or command: exec:ecr-login "
               "runs "
               "docker-credential-ecr-login";
    if (span_starts(name, SPAN("docker-credential-")))
        return "exec: puts docker-credential- before the name by itself: leave it out, as in exec:ecr-login";
    return NULL;
}

static bool vault_word(struct span s, size_t max)
{
    bool ok = s.n > 0 && s.n <= max;
    for (size_t i = 0; i < s.n; i++)
        ok = ok && (letter(s.p[i]) || digit(s.p[i]) || s.p[i] == '-');
    return ok;
}

/* "NAME.vault.azure.net" */
static bool vault_host(struct span host)
{
    static const struct span clouds[] = {SPAN(".vault.azure.net"), SPAN(".vault.azure.cn"),
                                         SPAN(".vault.usgovcloudapi.net")};
    for (size_t i = 0; i < ARRAY_LEN(clouds); i++) {
        size_t n = clouds[i].n;
        if (host.n > n && span_ieq(span_from(host, host.n - n), clouds[i]))
            return vault_word(span_sub(host, 0, host.n - n), 24) && host.p[0] != '-';
    }
    return false;
}

static const char *check_vault(struct span url)
{
    struct span rest = span_from(url, strlen("https://")), host, word;
    if (!span_starts(url, SPAN("https://")) || !span_next(&rest, '/', &host))
        rest = host = SPAN_NONE;
    if (span_ieq(span_from(host, host.n < 24 ? 0 : host.n - 24), SPAN(".vault.microsoftazure.de")))
        return "the German cloud with its vault.microsoftazure.de has ended; use a vault of vault.azure.net";
    bool ok = vault_host(host) && span_next(&rest, '/', &word) && span_eq(word, SPAN("secrets")) &&
              span_next(&rest, '/', &word) && vault_word(word, 127);
    if (ok && span_next(&rest, '/', &word))
        ok = vault_word(word, 127) && rest.p == NULL;
    return ok ? NULL
              : "a URL here is one of Azure Key Vault: https://VAULT.vault.azure.net/secrets/SECRET, and "
                "/VERSION if it is to be one version for ever (also vault.azure.cn, vault.usgovcloudapi.net)";
}

static const struct {
    struct span name;
    enum conf_secret_kind kind;
    const char *(*check)(struct span arg);
} schemes[] = {
    {SPAN("env"), SECRET_ENV, check_env},
    {SPAN("file"), SECRET_FILE, check_file},
    {SPAN("dockerconfig"), SECRET_DOCKERCONFIG, check_dockerconfig},
    {SPAN("exec"), SECRET_EXEC, check_exec},
    {SPAN("https"), SECRET_VAULT, check_vault}, /* arg is the whole URL */
};

/* ---- what is no reference ---- */

/* The scheme that was meant, if that can be guessed; absent: none. */
static struct span nearest_scheme(struct span word)
{
    char buf[16];
    struct str lower = STR_INIT(buf);
    struct span nearest = SPAN_NONE;
    unsigned best = COMPLAIN_FAR;
    for (size_t i = 0; i < word.n; i++)
        str_addc(&lower, word.p[i] >= 'A' && word.p[i] <= 'Z' ? (char)(word.p[i] | 0x20) : word.p[i]);
    if (lower.cut)
        return SPAN_NONE;
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        unsigned d = complain_distance(str_span(&lower), schemes[i].name);
        if (d < best) {
            best = d;
            nearest = schemes[i].name;
        }
    }
    return nearest;
}

static void say_plain(struct span text, enum secret_use use, struct str *why)
{
    ptrdiff_t colon = span_find(text, ':');
    struct span meant = colon < 0 ? SPAN_NONE : nearest_scheme(span_sub(text, 0, (size_t)colon));
    if (meant.p != NULL)
        str_addf(why, "this is no secret reference; did you mean '" SPAN_FMT ":'? Write " REFERENCES,
                 SPAN_ARG(meant));
    else if (span_starts(text, SPAN("${")))
        str_addz(
            why,
            "variables are not replaced in this file; write env:NAME to have the value of an environment "
            "variable");
    else if (span_starts(text, SPAN("/")))
        str_addz(why, "this looks like a path; write file: before it to have what is in that file");
    else if (use == SECRET_USERNAME)
        str_addz(why,
                 "a user name holds no ':', and this is no secret reference; write the name, or " REFERENCES);
    else
        str_addz(why, "a password does not stand in this file; write where it is: " REFERENCES);
}

bool secret_parse(struct span text, enum secret_use use, struct conf_secret *out, struct str *why)
{
    ptrdiff_t colon = span_find(text, ':');
    struct span scheme = span_sub(text, 0, colon < 0 ? 0 : (size_t)colon);
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        if (!span_eq(scheme, schemes[i].name))
            continue;
        out->kind = schemes[i].kind;
        out->text = text;
        out->arg = out->kind == SECRET_VAULT ? text : span_from(text, scheme.n + 1);
        const char *wrong = schemes[i].check(out->arg);
        if (wrong != NULL)
            str_addz(why, wrong);
        return wrong == NULL;
    }
    bool name = use == SECRET_USERNAME && colon < 0 && !span_starts(text, SPAN("${")) &&
                !span_starts(text, SPAN("/"));
    if (!name) {
        say_plain(text, use, why);
        return false;
    }
    out->kind = SECRET_TEXT;
    out->text = out->arg = text;
    return true;
}

bool secret_has_username(enum conf_secret_kind kind)
{
    return kind == SECRET_DOCKERCONFIG || kind == SECRET_EXEC;
}
