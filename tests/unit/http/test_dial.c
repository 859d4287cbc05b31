/* Dialling, against listeners on the loopback: addresses that answer, refuse, or swallow; the map of addresses; proxies with a script;
 * cancelling at every step. */
#include "rig.h"

#include <poll.h>

#include "base/err.h"
#include "http/dial.h"

/* ---- sockets of the test ---- */

struct spot {
    int fd;
    struct resolve_addr addr;
    int fill[8]; /* connections that make it swallow more */
    unsigned n_fill;
};

#define SPOTS 16
static struct spot spots[SPOTS];
static unsigned n_spots;

/* A bound socket on 127.0.0.host; refuses connections until it listens. */
static struct spot *spot_new(unsigned host)
{
    MUST(n_spots < SPOTS);
    struct spot *s = &spots[n_spots++];
    *s = (struct spot){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                       .addr.len = sizeof(struct sockaddr_in)};
    s->addr.u.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000 + host)};
    socklen_t n = sizeof s->addr.u.v4;
    MUST(s->fd >= 0 && bind(s->fd, &s->addr.u.sa, n) == 0);
    MUST(getsockname(s->fd, &s->addr.u.sa, &n) == 0);
    peer_patience(s->fd);
    return s;
}

static struct spot *spot_listens(unsigned host)
{
    struct spot *s = spot_new(host);
    MUST(listen(s->fd, 16) == 0);
    return s;
}

/* Its queue is full: what comes now is never answered. */
static struct spot *spot_swallows(unsigned host)
{
    struct spot *s = spot_new(host);
    MUST(listen(s->fd, 0) == 0);
    for (unsigned i = 0; i < ARRAY_LEN(s->fill); i++) {
        struct pollfd p = {.events = POLLOUT};
        p.fd = s->fill[s->n_fill++] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        MUST(p.fd >= 0 && (connect(p.fd, &s->addr.u.sa, s->addr.len) == 0 || errno == EINPROGRESS));
        if (poll(&p, 1, 300) == 0)
            return s;
    }
    fail_msg("the kernel took %u connections into a queue of one", s->n_fill);
    return NULL;
}

static uint16_t port_of(const struct spot *s)
{
    return ntohs(s->addr.u.v4.sin_port);
}

static void spots_close(void)
{
    for (; n_spots > 0; n_spots--) {
        struct spot *s = &spots[n_spots - 1];
        close(s->fd);
        while (s->n_fill > 0)
            close(s->fill[--s->n_fill]);
    }
}

static int spot_accept(struct spot *s)
{
    int fd = accept(s->fd, NULL, NULL);
    MUST(fd >= 0);
    peer_patience(fd);
    return fd;
}

/* ---- dialling ---- */

static struct rig rig;
static struct dial dial;
static struct dial_how how;
static struct dial_address addresses[DIAL_TRIES + 2];
static bool is_done;
static unsigned n_done;
static char text[512];

static void on_done(struct dial *d)
{
    MUST(d == &dial && d->state == NULL && (d->stream != NULL) == (d->err == 0));
    is_done = true;
    n_done++;
}

static void do_dial(void *arg)
{
    is_done = false;
    dial.how = arg;
    dial.done = on_done;
    unsigned before = n_done;
    dial_start(rig.core, &dial);
    MUST(n_done == before); /* never from within */
}

static void do_nothing(void *arg)
{
    (void)arg;
}

static void go(const char *host, uint16_t port)
{
    dial.host = span_str(host);
    dial.port = port;
    rig_do(&rig, do_dial, &how);
}

/* Until it is over. */
static void dial_to(const char *host, uint16_t port)
{
    go(host, port);
    rig_until(&rig, do_nothing, NULL, &is_done);
}

static void do_close(void *arg)
{
    (void)arg;
    if (dial.stream != NULL)
        stream_close(dial.stream, false);
    dial.stream = NULL;
}

static void do_cancel(void *arg)
{
    (void)arg;
    dial_cancel(&dial);
    dial_cancel(&dial);
}

static void do_progress(void *arg)
{
    (void)arg;
    struct str s = STR_INIT(text);
    dial_progress(&dial, &s);
}

static void map_add(const char *host, const struct resolve_addr *addr)
{
    MUST(how.n_addresses < ARRAY_LEN(addresses));
    addresses[how.n_addresses++] = (struct dial_address){.host = span_str(host), .addr = *addr};
}

static void expect_text(const char *what, const char *fmt, ...) PRINTF(2, 3);
static void expect_text(const char *got, const char *fmt, ...)
{
    char want[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(want, sizeof want, fmt, args);
    va_end(args);
    if (strcmp(got, want) != 0)
        fail_msg("\"%s\"\n       not \"%s\"", got, want);
}

/* It stands, and leads to that spot. */
static void expect_reached(struct spot *s)
{
    if (dial.err != 0)
        fail_msg("%s: %s", err_name(dial.err), dial.why);
    assert_string_equal(dial.why, "");
    int fd = spot_accept(s);
    char byte;
    rig_do(&rig, do_close, NULL);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

static int64_t count_of(_Atomic int64_t *field)
{
    return atomic_load(field);
}
#define COUNTED(field) count_of(&core_counters(rig.core)->field)

static int setup(void **state)
{
    (void)state;
    memset(&dial, 0, sizeof dial);
    n_done = 0;
    how = (struct dial_how){.serial = dial_serial(), .addresses = addresses};
    rig_start(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    proxies_free((struct proxies *)(uintptr_t)how.proxies);
    spots_close();
    rig_stop(&rig);
    return 0;
}

static void use_proxy(const char *fmt, uint16_t port)
{
    char url[256], buf[256];
    struct str s = STR_INIT(url), why = STR_INIT(buf);
    const char *mark = strstr(fmt, "PORT");
    MUST(mark != NULL);
    str_add(&s, span_of(fmt, (size_t)(mark - fmt)));
    str_addu(&s, port);
    how.proxies = proxies_one(str_span(&s), &why);
    assert_non_null(how.proxies);
}

/* ---- one address ---- */

static void test_literal(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    dial_to("127.0.0.1", port_of(s));
    assert_false(dial.absolute);
    assert_null(dial.proxy_authorization.p);
    expect_reached(s);
    assert_int_equal(n_done, 1);
}

static void test_name(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    dial_to("localhost", port_of(s)); /* [::1] may be first, and refuse */
    expect_reached(s);
}

static void test_refused(void **state)
{
    (void)state;
    struct spot *s = spot_new(1);
    dial_to("127.0.0.1", port_of(s));
    assert_int_equal(dial.err, ERR_UP_CONNECT);
    expect_text(dial.why, "connect 127.0.0.1:%u: Connection refused", port_of(s));
    assert_int_equal(COUNTED(upstream_address_failures), 1);
}

static void test_no_address(void **state)
{
    (void)state;
    dial_to("no-such-name.invalid", 443);
    assert_int_equal(dial.err, ERR_UP_RESOLVE);
    assert_true(span_starts(span_str(dial.why), SPAN("the look-up of no-such-name.invalid: ")));
    static const char *const bad[] = {"", "a b", "a\r\nb", "a\tb", "\xc3\xa9", "a\x7f"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        dial_to(bad[i], 443);
        assert_int_equal(dial.err, ERR_UP_RESOLVE);
        assert_string_equal(dial.why, "not a host name");
    }
    char long_one[257];
    memset(long_one, 'a', sizeof long_one - 1);
    long_one[256] = 0;
    dial_to(long_one, 443);
    assert_int_equal(dial.err, ERR_UP_RESOLVE);
    assert_string_equal(dial.why, "not a host name");
}

static void test_no_trust(void **state)
{
    (void)state;
    dial.tls = true;
    dial_to("127.0.0.1", 443);
    assert_int_equal(dial.err, ERR_UP_TLS);
    assert_non_null(strstr(dial.why, "root certificates"));
    dial.tls = false;
    use_proxy("https://127.0.0.1:PORT", 1);
    dial_to("127.0.0.1", 80);
    assert_int_equal(dial.err, ERR_UP_TLS);
    assert_non_null(strstr(dial.why, "root certificates"));
}

/* ---- several addresses ---- */

/* The first swallows what it gets: the second is tried after a moment, and wins. */
static void test_swallowed(void **state)
{
    (void)state;
    map_add("r.test", &spot_swallows(1)->addr);
    struct spot *s = spot_listens(2);
    map_add("r.test", &s->addr);
    dial_to("r.test", 443);
    expect_reached(s);
    assert_int_equal(COUNTED(upstream_address_failures), 0);
}

static void test_swallowed_and_refused(void **state)
{
    (void)state;
    map_add("r.test", &spot_swallows(1)->addr);
    map_add("r.test", &spot_new(2)->addr);
    map_add("r.test", &spot_swallows(3)->addr);
    map_add("r.test", &spot_new(4)->addr);
    struct spot *s = spot_listens(5);
    map_add("r.test", &s->addr);
    dial_to("r.test", 443);
    expect_reached(s);
    assert_int_equal(COUNTED(upstream_address_failures), 2);
}

/* An address that answers late wins if the others fail. */
static void test_late_winner(void **state)
{
    (void)state;
    struct spot *late = spot_swallows(1);
    map_add("r.test", &late->addr);
    map_add("r.test", &spot_new(2)->addr);
    go("r.test", 443);
    char want[128];
    struct str s = STR_INIT(want);
    str_addf(&s, "a connection to 127.0.0.1:%u (connect 127.0.0.2:%u: Connection refused)", port_of(late),
             port_of(&spots[1]));
    do
        rig_do(&rig, do_progress, NULL);
    while (strcmp(text, want) != 0); /* the alarm ends it */
    assert_false(is_done);
    close(late->fill[--late->n_fill]); /* which waits, too */
    while (late->n_fill > 0) {         /* room in its queue: the kernel tries again */
        close(spot_accept(late));
        close(late->fill[--late->n_fill]);
    }
    rig_until(&rig, do_nothing, NULL, &is_done);
    expect_reached(late);
}

static void test_all_refused(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 3; i++)
        map_add("r.test", &spot_new(i)->addr);
    dial_to("r.test", 443);
    assert_int_equal(dial.err, ERR_UP_CONNECT);
    expect_text(dial.why,
                "connect 127.0.0.1:%u: Connection refused; 127.0.0.2:%u: Connection refused; 127.0.0.3:%u: "
                "Connection refused",
                port_of(&spots[0]), port_of(&spots[1]), port_of(&spots[2]));
}

/* More than there is room for are counted; more than DIAL_TRIES are not tried. */
static void test_many_refused(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= DIAL_TRIES + 1; i++)
        map_add("r.test", &spot_new(200 + i)->addr);
    dial_to("r.test", 443);
    assert_int_equal(dial.err, ERR_UP_CONNECT);
    assert_true(strlen(dial.why) < sizeof dial.why);
    unsigned named = 0, more = 0;
    for (const char *p = dial.why; (p = strstr(p, "Connection refused")) != NULL; p++)
        named++;
    const char *and = strstr(dial.why, "; and ");
    assert_non_null(and);
    MUST(sscanf(and, "; and %u more", &more) == 1);
    assert_true(named >= 3);
    assert_int_equal(named + more, DIAL_TRIES);
    assert_int_equal(COUNTED(upstream_address_failures), DIAL_TRIES);
}

static const struct {
    const char *given, *tried; /* families */
} orders[] = {
    {"4", "4"},       {"6", "6"},       {"46", "46"},   {"64", "64"},       {"446", "464"},   {"664", "646"},
    {"4466", "4646"}, {"6644", "6464"}, {"666", "666"}, {"44446", "46444"}, {"4664", "4646"},
};

static void test_families_in_turn(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        how.n_addresses = 0;
        struct spot *s = spot_new(1); /* a port that nobody listens on, on no address of 127.0.0.0/8 */
        for (const char *f = orders[i].given; *f != 0; f++) {
            struct resolve_addr a = s->addr;
            if (*f == '6')
                a = (struct resolve_addr){.u.v6 = {.sin6_family = AF_INET6,
                                                   .sin6_port = s->addr.u.v4.sin_port,
                                                   .sin6_addr = IN6ADDR_LOOPBACK_INIT},
                                          .len = sizeof a.u.v6};
            else
                a.u.v4.sin_addr.s_addr = htonl(0x7f000001 + (unsigned)(f - orders[i].given));
            map_add("r.test", &a);
        }
        dial_to("r.test", 1);
        assert_int_equal(dial.err, ERR_UP_CONNECT);
        char tried[64];
        struct str t = STR_INIT(tried);
        for (const char *p = dial.why; p != NULL; p = strstr(p, "; ")) {
            p = strpbrk(p, "1[a"); /* an address, or "and 2 more" */
            if (*p != 'a')
                str_addc(&t, *p == '[' ? '6' : '4');
        }
        assert_true(t.n >= 4 || t.n == strlen(orders[i].given));
        assert_memory_equal(tried, orders[i].tried, t.n);
        spots_close();
    }
}

/* ---- the map ---- */

static void test_map(void **state)
{
    (void)state;
    struct spot *s = spot_listens(3);
    struct resolve_addr any_port = s->addr;
    any_port.u.v4.sin_port = 0;
    map_add("other.test", &spot_new(1)->addr);
    map_add("any-port.test", &any_port);
    map_add("r.test", &s->addr);
    static const char *const names[] = {"r.test", "R.Test", "r.test.", "R.TEST."};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        dial_to(names[i], 1);
        expect_reached(s);
    }
    dial_to("any-port.test", port_of(s));
    expect_reached(s);
    static const char *const others[] = {"a.r.test.invalid", "r.test.invalid", "xr.test.invalid",
                                         "r.invalid"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        dial_to(others[i], port_of(s));
        assert_int_equal(dial.err, ERR_UP_RESOLVE);
    }
}

static void test_no_how(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    dial.host = SPAN("127.0.0.1");
    dial.port = port_of(s);
    rig_do(&rig, do_dial, NULL);
    rig_until(&rig, do_nothing, NULL, &is_done);
    expect_reached(s);
}

/* ---- proxies, plain ---- */

static void test_absolute(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    use_proxy("http://u:p@localhost:PORT", port_of(s));
    dial_to("no-such-name.invalid", 80); /* the proxy's business */
    assert_true(dial.absolute);
    assert_true(span_eq(dial.proxy_authorization, SPAN("Basic dTpw")));
    expect_reached(s);
    assert_int_equal(COUNTED(upstream_proxied), 1);
}

static void test_proxy_by_map(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    use_proxy("http://proxy.test:PORT", 1);
    map_add("proxy.test", &s->addr);
    map_add("r.test", &spot_new(2)->addr);
    dial_to("r.test", 80);
    assert_true(dial.absolute);
    assert_null(dial.proxy_authorization.p);
    expect_reached(s);
}

static void test_proxy_refuses_connections(void **state)
{
    (void)state;
    struct spot *s = spot_new(1);
    use_proxy("http://u:secret@127.0.0.1:PORT", port_of(s));
    dial_to("r.test", 80);
    assert_int_equal(dial.err, ERR_UP_CONNECT);
    expect_text(dial.why, "connect the proxy http://127.0.0.1:%u at 127.0.0.1:%u: Connection refused",
                port_of(s), port_of(s));
    assert_int_equal(COUNTED(upstream_proxied), 0);
}

static void test_direct_beside_a_proxy(void **state)
{
    (void)state;
    char buf[256];
    struct str why = STR_INIT(buf);
    struct spot *s = spot_listens(1);
    how.proxies =
        proxies_new(SPAN("http://proxy.invalid:1"), SPAN("http://proxy.invalid:1"), SPAN(".test"), &why);
    assert_non_null(how.proxies);
    map_add("a.test", &s->addr);
    dial_to("A.test.", 80);
    assert_false(dial.absolute);
    expect_reached(s);
}

/* ---- guarded: where only the operator may lead ---- */

static void guarded_to(enum address_kind near, const char *host, uint16_t port)
{
    dial.guarded = true;
    dial.near = near;
    dial_to(host, port);
}

static void test_guarded(void **state)
{
    (void)state;
    static const enum address_kind too_far[] = {ADDRESS_PUBLIC, ADDRESS_PRIVATE, ADDRESS_SPECIAL};
    struct spot *s = spot_listens(1);
    for (size_t i = 0; i < ARRAY_LEN(too_far); i++) {
        guarded_to(too_far[i], "127.0.0.1", port_of(s));
        assert_int_equal(dial.err, ERR_UP_REDIRECT);
        expect_text(dial.why, "127.0.0.1 is a loopback address, to which only the operator may lead");
        guarded_to(too_far[i], "localhost", port_of(s)); /* the name is harmless, what it leads to is not */
        assert_int_equal(dial.err, ERR_UP_REDIRECT);
        guarded_to(too_far[i], "2130706433", port_of(s)); /* another way to write it */
        assert_int_equal(dial.err, ERR_UP_REDIRECT);
    }
    assert_int_equal(COUNTED(upstream_address_failures), 0); /* nothing was even tried */
    guarded_to(ADDRESS_LOOPBACK, "localhost", port_of(s));
    assert_int_equal(dial.peer, ADDRESS_LOOPBACK);
    expect_reached(s);
    guarded_to(ADDRESS_LOOPBACK, "169.254.169.254", 80);
    assert_int_equal(dial.err, ERR_UP_REDIRECT);
}

static void test_guarded_and_mapped(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    map_add("cdn.test", &s->addr);
    guarded_to(ADDRESS_PUBLIC, "cdn.test", 443);
    expect_reached(s);
}

static void test_guarded_by_proxy(void **state)
{
    (void)state;
    struct spot *s = spot_listens(1);
    use_proxy("http://127.0.0.1:PORT", port_of(s));
    guarded_to(ADDRESS_PUBLIC, "cdn.test", 80); /* the proxy looks it up */
    assert_int_equal(dial.peer, ADDRESS_PUBLIC);
    expect_reached(s);
    guarded_to(ADDRESS_PUBLIC, "169.254.169.254", 80);
    assert_int_equal(dial.err, ERR_UP_REDIRECT);
}

/* ---- cancelling ---- */

static void do_dial_and_cancel(void *arg)
{
    do_dial(arg);
    do_cancel(NULL);
}

static void expect_progress(const char *want)
{
    do
        rig_do(&rig, do_progress, NULL);
    while (strcmp(text, want) != 0); /* the alarm ends it */
}

static void test_cancel(void **state)
{
    (void)state;
    char want[128];
    struct str s = STR_INIT(want);
    rig_do(&rig, do_cancel, NULL); /* not begun */
    dial.host = SPAN("localhost");
    dial.port = 1;
    rig_do(&rig, do_dial_and_cancel, &how);
    go("localhost", 1); /* looking up, or further */
    rig_do(&rig, do_cancel, NULL);
    struct spot *first = spot_swallows(1), *second = spot_swallows(2);
    map_add("r.test", &first->addr);
    map_add("r.test", &second->addr);
    go("r.test", 443); /* both under way */
    str_addf(&s, "a connection to 127.0.0.1:%u, 127.0.0.2:%u", port_of(first), port_of(second));
    expect_progress(want);
    rig_do(&rig, do_cancel, NULL);
    assert_int_equal(n_done, 0);
    rig_do(&rig, do_progress, NULL);
    assert_string_equal(text, "");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_literal),
        TEST(test_name),
        TEST(test_refused),
        TEST(test_no_address),
        TEST(test_no_trust),
        TEST(test_swallowed),
        TEST(test_swallowed_and_refused),
        TEST(test_late_winner),
        TEST(test_all_refused),
        TEST(test_many_refused),
        TEST(test_families_in_turn),
        TEST(test_map),
        TEST(test_no_how),
        TEST(test_absolute),
        TEST(test_proxy_by_map),
        TEST(test_proxy_refuses_connections),
        TEST(test_direct_beside_a_proxy),
        TEST(test_guarded),
        TEST(test_guarded_and_mapped),
        TEST(test_guarded_by_proxy),
        TEST(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
