/* The input's first line is a base, the rest a Location. A URL has plain parts that lie in its text and is the same
 * when it is written again; a Location resolves to a URL, stays at its origin if it has no authority of its own,
 * and is then in its final form. */
#include "base/check.h"
#include "http/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct span text, struct span part)
{
    MUST(part.p == NULL || (part.p >= text.p && part.p + part.n <= text.p + text.n));
}

static void check_plain(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        MUST((unsigned char)s.p[i] > 0x20 && s.p[i] != 0x7f && s.p[i] != '#');
}

static void check_written_again(const struct url *u)
{
    char buf[URL_MAX + 16];
    struct str s = STR_INIT(buf);
    struct url again;
    str_addz(&s, u->tls ? "https://" : "http://");
    url_add_host(u, &s);
    str_add(&s, u->path);
    if (u->query.p != NULL) {
        str_addc(&s, '?');
        str_add(&s, u->query);
    }
    MUST(!s.cut && url_parse(str_span(&s), &again));
    MUST(url_same_origin(u, &again) && span_eq(u->host, again.host));
    MUST(span_eq(u->path, again.path) && span_eq(u->query, again.query));
    MUST((u->query.p == NULL) == (again.query.p == NULL));
}

static void check_url(struct span text, const struct url *u)
{
    check_inside(text, u->host);
    check_inside(text, u->path);
    check_inside(text, u->query);
    check_plain(u->host);
    check_plain(u->path);
    check_plain(u->query);
    MUST(u->host.n > 0 && u->port > 0);
    MUST(u->has_port || u->port == (u->tls ? 443 : 80));
    MUST(span_find(u->host, '@') < 0 && span_find(u->host, '/') < 0 && span_find(u->host, '\\') < 0);
    MUST(u->path.n == 0 || u->path.p[0] == '/');
    MUST(span_find(u->path, '?') < 0);
    MUST(url_same_origin(u, u));
    check_written_again(u);
}

static bool has_own_authority(struct span location)
{
    return span_starts(location, SPAN("//")) || span_ieq(span_sub(location, 0, 5), SPAN("http:")) ||
           span_ieq(span_sub(location, 0, 6), SPAN("https:"));
}

static void check_resolved(const struct url *base, struct span location)
{
    char buf[URL_MAX + 1], again_buf[URL_MAX + 1];
    struct str out = STR_INIT(buf), again = STR_INIT(again_buf);
    struct url u;
    if (!url_resolve(base, location, &out)) {
        MUST(out.n == 0 && buf[0] == '\0' && !out.cut);
        return;
    }
    MUST(strlen(buf) == out.n && url_parse(str_span(&out), &u));
    check_url(str_span(&out), &u);
    MUST(has_own_authority(location) || url_same_origin(base, &u));
    MUST(url_resolve(&u, str_span(&out), &again) && span_eq(str_span(&out), str_span(&again)));
    if (location.n > 0 && location.p[0] != '/' && location.p[0] != '?' && location.p[0] != '#' &&
        !has_own_authority(location)) {
        char dots[URL_MAX + 8];
        struct str path = STR_INIT(dots);
        str_add(&path, u.path);
        str_addc(&path, '/');
        MUST(strstr(dots, "/../") == NULL && strstr(dots, "/./") == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span rest = span_of((const char *)data, size), line = SPAN("");
    struct url base, again;
    if (size == 0 || !span_next(&rest, '\n', &line))
        return 0;
    if (!url_parse(line, &base))
        return 0;
    check_url(line, &base);
    MUST(url_parse(line, &again) && url_same_origin(&base, &again));
    check_resolved(&base, rest);
    return 0;
}
