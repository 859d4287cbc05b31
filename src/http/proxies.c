/* Forward proxies: parsing of their URLs and of NO_PROXY, and the choice.
 *
 * Everything is parsed when the struct is made, so that a choice only compares. A mistake is an error then, and not a host that is
 * silently reached in another way than was meant. No message shows a proxy's URL: user and password stand in it, and where they end
 * in a malformed one nobody can say.
 *
 * Addresses are compared as 16 bytes, IPv4 as ::ffff:a.b.c.d, so that both ways of writing one match each other. */
#include "http/proxies.h"

#include <arpa/inet.h>

#include "base/mem.h"
#include "base/secret_mem.h"
#include "http/url.h"

#define PROXY_URL_MAX  4096
#define PROXY_USER_MAX 1024 /* bytes of user:password */
#define ADDRESS_BITS   128

enum exception_kind {
    EXCEPT_HOST,  /* it and its subdomains */
    EXCEPT_BELOW, /* its subdomains */
    EXCEPT_NET    /* address and prefix */
};

struct exception {
    enum exception_kind kind;
    uint16_t port;      /* 0: any */
    struct span domain; /* lower case, without a dot at its ends */
    unsigned char address[16];
    unsigned bits;
};

/* A proxy and the memory of its spans. */
struct proxy_own {
    bool set;
    struct http_proxy proxy;
    char *text;
};

struct proxies {
    struct proxy_own https, http;
    bool one; /* configured: for everything; `https` is it */
    bool all_direct;
    char *no_proxy; /* text of the exceptions */
    struct exception *exceptions;
    size_t n_exceptions;
};

/* ---- small pieces ---- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static struct span without_dot(struct span host)
{
    if (host.n > 1 && host.p[host.n - 1] == '.')
        host.n--;
    return host;
}

static bool is_mapped(const unsigned char address[16])
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(address, mapped, sizeof mapped) == 0;
}

/* *v4: it was written as IPv4. */
static bool address_parse(struct span text, unsigned char address[16], bool *v4)
{
    char buf[INET6_ADDRSTRLEN];
    struct str s = STR_INIT(buf);
    str_add(&s, text);
    if (s.cut || strlen(buf) != text.n)
        return false;
    memset(address, 0, 10);
    memset(address + 10, 0xff, 2);
    *v4 = inet_pton(AF_INET, buf, address + 12) == 1;
    return *v4 || inet_pton(AF_INET6, buf, address) == 1;
}

static bool port_parse(struct span text, uint16_t *port)
{
    uint64_t number;
    if (!span_u64(text, UINT16_MAX, &number) || number == 0)
        return false;
    *port = (uint16_t)number;
    return true;
}

/* ---- a proxy's URL ---- */

static int hex_digit(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool percent_decode(struct span text, struct str *out)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '%') {
            int high = i + 2 < text.n ? hex_digit(text.p[i + 1]) : -1;
            int low = i + 2 < text.n ? hex_digit(text.p[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        str_addc(out, c);
    }
    return !out->cut;
}

/* "Basic " and the base64 of user:password (RFC 7617). A user without password is one with an empty password. */
static bool add_basic(struct span userinfo, struct str *out)
{
    char plain[PROXY_USER_MAX];
    struct str s = STR_INIT(plain);
    ptrdiff_t colon = span_find(userinfo, ':');
    bool ok = percent_decode(colon < 0 ? userinfo : span_sub(userinfo, 0, (size_t)colon), &s) &&
              span_find(str_span(&s), ':') < 0;
    str_addc(&s, ':');
    if (colon >= 0)
        ok = ok && percent_decode(span_from(userinfo, (size_t)colon + 1), &s);
    ok = ok && !s.cut;
    if (ok) {
        str_add(out, SPAN("Basic "));
        str_addb64(out, plain, s.n);
    }
    mem_wipe(plain, sizeof plain);
    return ok;
}

/* Cuts [scheme://][userinfo@]host[:port][/] into userinfo and a URL without it. */
static const char *split_url(struct span text, struct span *userinfo, struct str *plain)
{
    struct span rest = text;
    bool tls = span_ieq(span_sub(text, 0, 8), SPAN("https://"));
    if (tls)
        rest = span_from(text, 8);
    else if (span_ieq(span_sub(text, 0, 7), SPAN("http://")))
        rest = span_from(text, 7);
    else
        for (size_t i = 0; i + 2 < text.n; i++) {
            if (memcmp(text.p + i, "://", 3) == 0)
                return "only http:// and https:// proxies are supported";
        }
    size_t end = 0;
    while (end < rest.n && rest.p[end] != '/' && rest.p[end] != '?' && rest.p[end] != '#')
        end++;
    struct span tail = span_from(rest, end), authority = span_sub(rest, 0, end);
    if (span_find(tail, '@') >= 0)
        return "in user and password '/', '?' and '#' are written %2F, %3F and %23";
    if (tail.n > 0 && !span_eq(tail, SPAN("/")))
        return "a proxy's URL ends with host and port";
    ptrdiff_t at = span_rfind(authority, '@');
    *userinfo = at < 0 ? SPAN_NONE : span_sub(authority, 0, (size_t)at);
    str_addz(plain, tls ? "https://" : "http://");
    str_add(plain, at < 0 ? authority : span_from(authority, (size_t)at + 1));
    return plain->cut ? "too long" : NULL;
}

/* Builds "http://host:port" and "Basic ..." one behind the other in secret memory, and points into it. */
static void proxy_make(struct proxy_own *own, const struct url *u, struct span authorization)
{
    char shown[PROXY_URL_MAX];
    struct str s = STR_INIT(shown);
    str_addz(&s, u->tls ? "https://" : "http://");
    size_t host_at = s.n + u->ipv6;
    str_addz(&s, u->ipv6 ? "[" : "");
    str_add(&s, u->host);
    str_addz(&s, u->ipv6 ? "]:" : ":");
    str_addu(&s, u->port);
    MUST(!s.cut);
    own->text = secret_alloc(s.n + authorization.n);
    for (size_t i = 0; i < s.n; i++)
        own->text[i] = lower(shown[i]);
    struct http_proxy *p = &own->proxy;
    p->tls = u->tls;
    p->port = u->port;
    p->shown = span_of(own->text, s.n);
    p->host = span_sub(p->shown, host_at, u->host.n);
    p->authorization = SPAN_NONE;
    if (authorization.n > 0) {
        memcpy(own->text + s.n, authorization.p, authorization.n);
        p->authorization = span_of(own->text + s.n, authorization.n);
    }
    own->set = true;
}

/* NULL: good; else what is wrong, static text. */
static const char *proxy_parse(struct span text, struct proxy_own *own)
{
    char buf[PROXY_URL_MAX], basic[PROXY_USER_MAX * 4 / 3 + 16];
    struct str plain = STR_INIT(buf), authorization = STR_INIT(basic);
    struct span userinfo;
    struct url u;
    const char *wrong = split_url(text, &userinfo, &plain);
    if (wrong != NULL)
        return wrong;
    if (!url_parse(str_span(&plain), &u))
        return "it is not of the form http://[user:password@]host[:port]";
    if (userinfo.n > 0 && !add_basic(userinfo, &authorization)) {
        return "user or password are too long, the user holds a colon, or a '%' is not followed by two "
               "hexadecimal "
               "digits ('%' itself is written %25)";
    }
    proxy_make(own, &u, str_span(&authorization));
    mem_wipe(basic, sizeof basic);
    return NULL;
}

static void proxy_drop(struct proxy_own *own)
{
    secret_free(own->text);
    own->text = NULL;
}

/* ---- NO_PROXY ---- */

static bool net_parse(struct span address, struct span bits, struct exception *e)
{
    bool v4;
    e->kind = EXCEPT_NET;
    if (!address_parse(address, e->address, &v4))
        return false;
    uint64_t n = ADDRESS_BITS;
    if (bits.p != NULL) {
        unsigned most = v4 ? 32 : ADDRESS_BITS;
        if (bits.n > 3 || !span_u64(bits, most, &n))
            return false;
        n += ADDRESS_BITS - most;
    }
    e->bits = (unsigned)n;
    return true;
}

static bool domain_parse(struct span text, struct exception *e)
{
    e->kind = EXCEPT_HOST;
    if (span_starts(text, SPAN("*.")))
        text = span_from(text, 1);
    if (text.n > 0 && text.p[0] == '.') {
        text = span_from(text, 1);
        e->kind = EXCEPT_BELOW;
    }
    e->domain = without_dot(text);
    for (size_t i = 0; i < e->domain.n; i++) {
        char c = e->domain.p[i];
        bool dot = c == '.' && i > 0 && e->domain.p[i - 1] != '.';
        if (!dot && c != '-' && c != '_' && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'z'))
            return false;
    }
    return e->domain.n > 0;
}

/* Cuts ":port" off the end, if there is one. */
static bool cut_port(struct span *text, uint16_t *port)
{
    ptrdiff_t colon = span_rfind(*text, ':');
    if (colon < 0)
        return true;
    struct span number = span_from(*text, (size_t)colon + 1);
    *text = span_sub(*text, 0, (size_t)colon);
    return port_parse(number, port);
}

/* host, .domain, *.domain, address, net/bits, each with :port; an IPv6 one with port in brackets: [::1]:443, [fd00::/8]:443. */
static bool exception_parse(struct span text, struct exception *e)
{
    *e = (struct exception){0};
    struct span bits = SPAN_NONE;
    bool bracket = text.n > 0 && text.p[0] == '[';
    if (bracket) {
        ptrdiff_t end = span_find(text, ']');
        if (end < 0)
            return false;
        struct span tail = span_from(text, (size_t)end + 1);
        text = span_sub(text, 1, (size_t)end - 1);
        if (tail.n > 0 && (tail.p[0] != ':' || !port_parse(span_from(tail, 1), &e->port)))
            return false;
    }
    ptrdiff_t slash = span_find(text, '/');
    if (slash >= 0) {
        bits = span_from(text, (size_t)slash + 1);
        text = span_sub(text, 0, (size_t)slash);
        if (!bracket && !cut_port(&bits, &e->port))
            return false;
    }
    if (bracket || slash >= 0 || net_parse(text, SPAN_NONE, e))
        return net_parse(text, bits, e);
    return cut_port(&text, &e->port) && (net_parse(text, SPAN_NONE, e) || domain_parse(text, e));
}

static bool exceptions_parse(struct proxies *p, struct span text, struct str *why)
{
    size_t most = 1;
    p->no_proxy = mem_alloc(text.n + 1);
    for (size_t i = 0; i < text.n; i++) {
        p->no_proxy[i] = lower(text.p[i]);
        most += text.p[i] == ',';
    }
    p->exceptions = mem_zalloc(most * sizeof *p->exceptions);
    struct span rest = span_of(p->no_proxy, text.n), part;
    while (span_next(&rest, ',', &part)) {
        part = span_trim(part);
        if (part.n == 0)
            continue;
        if (span_eq(part, SPAN("*"))) {
            p->all_direct = true;
        } else if (!exception_parse(part, &p->exceptions[p->n_exceptions++])) {
            str_addz(why, "NO_PROXY: \"");
            str_addjson(why, span_sub(part, 0, 60));
            str_addz(why, "\" is neither a host, .domain, *.domain, address or CIDR (each with or without "
                          ":port), nor *");
            return false;
        }
    }
    return true;
}

/* ---- the choice ---- */

static bool net_has(const struct exception *e, const unsigned char address[16])
{
    unsigned whole = e->bits / 8, rest = e->bits % 8;
    unsigned mask = 0xffu << (8 - rest) & 0xffu;
    if (memcmp(e->address, address, whole) != 0)
        return false;
    if (!is_mapped(address) != !is_mapped(e->address))
        return false; /* ::/0 is about IPv6 */
    return rest == 0 || ((e->address[whole] ^ address[whole]) & mask) == 0;
}

static bool domain_has(const struct exception *e, struct span host)
{
    if (host.n == e->domain.n)
        return e->kind == EXCEPT_HOST && span_ieq(host, e->domain);
    return host.n > e->domain.n && host.p[host.n - e->domain.n - 1] == '.' &&
           span_ieq(span_from(host, host.n - e->domain.n), e->domain);
}

static bool is_direct(const struct proxies *p, struct span host, uint16_t port)
{
    unsigned char address[16];
    bool v4;
    host = without_dot(host);
    bool literal = address_parse(host, address, &v4);
    static const unsigned char loopback[16] = {[15] = 1};
    if (p->all_direct || span_ieq(host, SPAN("localhost")))
        return true;
    if (literal && (memcmp(address, loopback, 16) == 0 || (is_mapped(address) && address[12] == 127)))
        return true;
    for (size_t i = 0; i < p->n_exceptions; i++) {
        const struct exception *e = &p->exceptions[i];
        if (e->port != 0 && e->port != port)
            continue;
        if (literal ? e->kind == EXCEPT_NET && net_has(e, address)
                    : e->kind != EXCEPT_NET && domain_has(e, host))
            return true;
    }
    return false;
}

const struct http_proxy *proxies_for(const struct proxies *p, bool tls, struct span host, uint16_t port)
{
    if (p == NULL)
        return NULL;
    if (p->one)
        return &p->https.proxy;
    const struct proxy_own *own = tls ? &p->https : &p->http;
    return own->set && !is_direct(p, host, port) ? &own->proxy : NULL;
}

/* ---- life ---- */

static bool take_proxy(struct proxy_own *own, struct span url, const char *name, struct str *why)
{
    const char *wrong = proxy_parse(url, own);
    if (wrong == NULL)
        return true;
    str_addz(why, name);
    str_addz(why, ": ");
    str_addz(why, wrong);
    return false;
}

struct proxies *proxies_new(struct span https_proxy, struct span http_proxy, struct span no_proxy,
                            struct str *why)
{
    struct proxies *p;
    NEW(p);
    https_proxy = span_trim(https_proxy);
    http_proxy = span_trim(http_proxy);
    if ((https_proxy.n == 0 || take_proxy(&p->https, https_proxy, "HTTPS_PROXY", why)) &&
        (http_proxy.n == 0 || take_proxy(&p->http, http_proxy, "HTTP_PROXY", why)) &&
        exceptions_parse(p, no_proxy, why))
        return p;
    proxies_free(p);
    return NULL;
}

struct proxies *proxies_one(struct span url, struct str *why)
{
    struct proxies *p;
    NEW(p);
    p->one = true;
    if (take_proxy(&p->https, url, "the proxy's URL", why))
        return p;
    proxies_free(p);
    return NULL;
}

void proxies_free(struct proxies *p)
{
    if (p == NULL)
        return;
    proxy_drop(&p->https);
    proxy_drop(&p->http);
    mem_free(p->no_proxy);
    mem_free(p->exceptions);
    mem_free(p);
}
