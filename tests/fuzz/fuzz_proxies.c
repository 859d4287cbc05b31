/* The input's lines are: a proxy's URL, NO_PROXY, a host. What is taken gives proxies whose parts could stand in a request, a choice that
 * does not depend on the case of letters or on an order, and messages without what stands before the URL's last "@". */
#include "base/check.h"
#include "http/proxies.h"
#include "http/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_proxy(const struct http_proxy *p)
{
    struct url u;
    MUST(p->host.n > 0 && p->port > 0);
    MUST(url_parse(p->shown, &u) && u.tls == p->tls && u.port == p->port && span_eq(u.host, p->host));
    MUST(span_find(p->shown, '@') < 0);
    if (p->authorization.p == NULL)
        return;
    MUST(span_starts(p->authorization, SPAN("Basic ")) && p->authorization.n > 6);
    for (size_t i = 0; i < p->authorization.n; i++)
        MUST(p->authorization.p[i] >= 0x20 && p->authorization.p[i] < 0x7f);
}

static void check_url(struct span text)
{
    char buf[256];
    struct str why = STR_INIT(buf);
    struct proxies *p = proxies_one(text, &why);
    MUST((p == NULL) == (why.n > 0) && !why.cut);
    if (p != NULL)
        check_proxy(proxies_for(p, true, SPAN("localhost"), 1));
    proxies_free(p);
}

/* The list's entries in the opposite order, in upper case. */
static struct span turned(struct span list, char *to)
{
    size_t at = list.n;
    struct span rest = list, part;
    while (span_next(&rest, ',', &part)) {
        at -= part.n;
        for (size_t i = 0; i < part.n; i++) {
            char c = part.p[i];
            to[at + i] = c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
        }
        if (rest.p != NULL)
            to[--at] = ',';
    }
    MUST(at == 0);
    return span_of(to, list.n);
}

static void check_list(struct span list, struct span host)
{
    char buf[512], other[4096];
    struct str why = STR_INIT(buf), again = STR_INIT(buf);
    if (list.p == NULL || list.n > sizeof other)
        return;
    struct proxies *p = proxies_new(SPAN("http://one:1"), SPAN("http://two:2"), list, &why);
    MUST((p == NULL) == (why.n > 0) && !why.cut);
    struct proxies *q = proxies_new(SPAN("http://one:1"), SPAN("http://two:2"), turned(list, other), &again);
    MUST((p == NULL) == (q == NULL));
    static const uint16_t ports[] = {1, 80, 443, 65535};
    for (size_t i = 0; p != NULL && i < ARRAY_LEN(ports); i++) {
        const struct http_proxy *one = proxies_for(p, true, host, ports[i]);
        MUST(one == NULL || one->port == 1);
        MUST((one == NULL) == (proxies_for(p, false, host, ports[i]) == NULL));
        MUST((one == NULL) == (proxies_for(q, true, host, ports[i]) == NULL));
        MUST(proxies_for(p, true, SPAN("127.0.0.1"), ports[i]) == NULL);
    }
    proxies_free(p);
    proxies_free(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span rest = span_of((const char *)data, size), url = SPAN(""), list = SPAN_NONE;
    if (size == 0 || !span_next(&rest, '\n', &url))
        return 0;
    check_url(url);
    if (span_next(&rest, '\n', &list))
        check_list(list, rest);
    return 0;
}
