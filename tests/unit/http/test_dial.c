/* Dialling, against listeners on the loopback: addresses that answer, refuse, or swallow; the map of addresses; proxies with a script;
 * cancelling at every step. */
#include "rig.h"

#include "tls_front.h"

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

#define SPOTS 32
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

/* ---- a proxy with a script ---- */

#define TUNNEL "tunnel" /* as a piece of a script: now carry bytes to and from the target */

struct proxy_script {
    struct spot *at;
    const struct sockaddr_in *target;
    const char *say[24]; /* pieces, each alone in its segment; "" waits until the other side has gone */
    char heard[4096];    /* the request's head */
    pthread_t thread;
};

/* Until either side has ended. */
static void carry(int a, const struct sockaddr_in *target)
{
    int b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(b >= 0 && connect(b, (const struct sockaddr *)target, sizeof *target) == 0);
    struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    for (;;) {
        char piece[4096];
        MUST(poll(p, 2, -1) > 0);
        int from = p[0].revents != 0 ? 0 : 1;
        ssize_t n = recv(p[from].fd, piece, sizeof piece, 0);
        if (n <= 0)
            break;
        peer_send(p[1 - from].fd, piece, (size_t)n);
    }
    close(b);
}

static void *proxy_thread(void *arg)
{
    struct proxy_script *p = arg;
    int fd = spot_accept(p->at);
    size_t n = 0;
    while (n < sizeof p->heard - 1 && (n < 4 || memcmp(p->heard + n - 4, "\r\n\r\n", 4) != 0) &&
           recv(fd, p->heard + n, 1, 0) == 1)
        n++;
    for (unsigned i = 0; i < ARRAY_LEN(p->say) && p->say[i] != NULL; i++) {
        char byte;
        if (strcmp(p->say[i], TUNNEL) == 0) {
            carry(fd, p->target);
            break;
        }
        while (p->say[i][0] == 0 && recv(fd, &byte, 1, 0) > 0)
            ;
        if (i > 0)
            usleep(20000);
        peer_say(fd, p->say[i]);
    }
    close(fd);
    return NULL;
}

static void proxy_play(struct proxy_script *p)
{
    p->at = spot_listens(1);
    MUST(pthread_create(&p->thread, NULL, proxy_thread, p) == 0);
}

/* ---- dialling ---- */

static struct rig rig;
static struct dial dial;
static struct dial_how how;
static struct dial_address addresses[DIAL_TRIES + 2];
static bool is_done, looked;
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

static void do_look(void *arg)
{
    (void)arg;
    looked = is_done;
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
    rig_until(&rig, do_look, NULL, &looked);
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
    trust_unref(how.trust);
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
    rig_do(&rig, do_look, NULL);
    assert_false(looked);
    close(late->fill[--late->n_fill]); /* which waits, too */
    while (late->n_fill > 0) {         /* room in its queue: the kernel tries again */
        close(spot_accept(late));
        close(late->fill[--late->n_fill]);
    }
    rig_until(&rig, do_look, NULL, &looked);
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
    rig_until(&rig, do_look, NULL, &looked);
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

/* ---- TLS ---- */

static struct front front;
static struct spot *behind; /* the front */
static struct tls_session session;

static void front_open(void)
{
    behind = spot_listens(1);
    front_start(&front, &behind->addr.u.v4);
    how.trust = front_trust("root");
    dial.tls = true;
}

static void front_close(void)
{
    front_stop(&front);
}

static void test_tls(void **state)
{
    (void)state;
    front_open();
    struct resolve_addr to = {.u.v4 = loopback(front.port), .len = sizeof to.u.v4};
    map_add("r.test", &to);
    map_add("a.r.test", &to);
    map_add("other.test", &to);
    static const char *const names[] = {"r.test", "R.test.", "a.r.test", "127.0.0.1", "localhost"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        dial_to(names[i], front.port);
        expect_reached(behind);
    }
    assert_int_equal(COUNTED(upstream_tls_handshakes), ARRAY_LEN(names));
    assert_int_equal(COUNTED(upstream_tls_resumed), 0);
    dial_to("other.test", front.port);
    assert_int_equal(dial.err, ERR_UP_TLS);
    char want[128];
    struct str s = STR_INIT(want);
    str_addf(&s, "the TLS handshake with 127.0.0.1:%u: ", front.port);
    assert_true(span_starts(span_str(dial.why), str_span(&s)));
    assert_true(strlen(dial.why) > s.n);
    assert_int_equal(COUNTED(upstream_tls_failures), 1);
    front_close();
}

static void test_tls_session(void **state)
{
    (void)state;
    front_open();
    dial.session = &session;
    for (unsigned i = 0; i < 3; i++) {
        dial_to("127.0.0.1", front.port);
        expect_reached(behind);
    }
    assert_int_equal(COUNTED(upstream_tls_resumed), 2);
    front_forget(&front);
    dial_to("127.0.0.1", front.port);
    expect_reached(behind);
    assert_int_equal(COUNTED(upstream_tls_resumed), 2);
    tls_session_clear(&session);
    assert_int_equal(COUNTED(upstream_tls_handshakes), 4);
    front_close();
}

static void test_tls_not_trusted(void **state)
{
    (void)state;
    front_open();
    struct trust *root = (struct trust *)(uintptr_t)how.trust;
    how.trust = front_trust("other");
    dial_to("127.0.0.1", front.port);
    assert_int_equal(dial.err, ERR_UP_TLS);
    trust_unref(root);
    front_close();
}

/* A peer that speaks no TLS, and one that ends. */
static void test_tls_with_strangers(void **state)
{
    (void)state;
    how.trust = front_trust("root");
    dial.tls = true;
    static const char *const says[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", ""};
    for (size_t i = 0; i < ARRAY_LEN(says); i++) {
        struct spot *s = spot_listens(1);
        go("127.0.0.1", port_of(s));
        int fd = spot_accept(s);
        peer_say(fd, says[i]);
        shutdown(fd, SHUT_WR);
        rig_until(&rig, do_look, NULL, &looked);
        assert_int_equal(dial.err, ERR_UP_TLS);
        assert_true(span_starts(span_str(dial.why), SPAN("the TLS handshake with 127.0.0.1:")));
        close(fd);
    }
}

/* ---- tunnels ---- */

#define OK_200 "HTTP/1.1 200 Connection established\r\n\r\n"

static const struct proxy_script good_tunnels[] = {
    {.say = {OK_200, TUNNEL}},
    {.say = {"HTTP/1.0 200 OK\r\n\r\n", TUNNEL}},
    {.say = {"HTTP/1.1 299 Fine\r\nContent-Length: 5000\r\nX: y\r\n\r\n", TUNNEL}},
    {.say = {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", TUNNEL}},
    {.say = {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" OK_200, TUNNEL}},
    {.say = {"\r\n\r\n" OK_200, TUNNEL}},
    {.say = {"H", "TTP/1.1 200 OK\r", "\n", "\r", "\n", TUNNEL}},
    {.say = {"HTTP/1.1 200 OK\r\nA: b\r\n\r", "\n", TUNNEL}},
};

static void test_tunnel(void **state)
{
    (void)state;
    front_open();
    struct sockaddr_in target = loopback(front.port);
    for (size_t i = 0; i < ARRAY_LEN(good_tunnels); i++) {
        struct proxy_script p = good_tunnels[i];
        p.target = &target;
        proxy_play(&p);
        use_proxy("http://u:secret@127.0.0.1:PORT", port_of(p.at));
        dial_to("a.r.test", 443);
        assert_false(dial.absolute);
        expect_reached(behind);
        pthread_join(p.thread, NULL);
        assert_string_equal(p.heard, "CONNECT a.r.test:443 HTTP/1.1\r\nHost: a.r.test:443\r\n"
                                     "User-Agent: larder\r\nProxy-Authorization: Basic dTpzZWNyZXQ=\r\n\r\n");
        proxies_free((struct proxies *)(uintptr_t)how.proxies);
        how.proxies = NULL;
    }
    assert_int_equal(COUNTED(upstream_proxied), ARRAY_LEN(good_tunnels));
    front_close();
}

static const struct {
    const char *url;
    struct proxy_script script;
    const char *says;
} bad_tunnels[] = {
    {"http://127.0.0.1:PORT",
     {.say = {"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\n\r\n", ""}},
     "wants a user and a password in its URL (status 407)"},
    {"http://u:secret@127.0.0.1:PORT",
     {.say = {"HTTP/1.1 407 Who?\r\nContent-Length: 3\r\n\r\nWho", ""}},
     "does not take the user and password of its URL (status 407)"},
    {"http://u:secret@127.0.0.1:PORT",
     {.say = {"HTTP/1.1 403 No\r\n\r\n", ""}},
     "refuses a tunnel to [2001:db8::1]:443 (status 403)"},
    {"http://127.0.0.1:PORT", {.say = {"HTTP/1.1 502 No\r\n\r\n", ""}}, "(status 502)"},
    {"http://127.0.0.1:PORT", {.say = {"HTTP/1.1 302 No\r\nLocation: /\r\n\r\n", ""}}, "(status 302)"},
    {"http://127.0.0.1:PORT", {.say = {NULL}}, "to CONNECT [2001:db8::1]:443: closed by the proxy"},
    {"http://127.0.0.1:PORT", {.say = {"HTTP/1.1 200 OK\r\n"}}, "closed by the proxy"},
    {"http://127.0.0.1:PORT", {.say = {"SSH-2.0-OpenSSH\r\n\r\n", ""}}, "to CONNECT [2001:db8::1]:443: "},
    {"http://127.0.0.1:PORT", {.say = {"HTTP/1.1 200 OK\n\n", ""}}, "CRLF"},
    {"http://127.0.0.1:PORT", {.say = {"HTTP/1.1 101 Now\r\n\r\n", ""}}, "protocol switch"},
    /* bytes behind the head are the tunnel's, and here no TLS */
    {"http://127.0.0.1:PORT",
     {.say = {OK_200 "bytes of the tunnel", ""}},
     "the TLS handshake with [2001:db8::1]:443"},
};

static void test_bad_tunnels(void **state)
{
    (void)state;
    how.trust = front_trust("root");
    dial.tls = true;
    for (size_t i = 0; i < ARRAY_LEN(bad_tunnels); i++) {
        struct proxy_script p = bad_tunnels[i].script;
        proxy_play(&p);
        use_proxy(bad_tunnels[i].url, port_of(p.at));
        dial_to("2001:db8::1", 443);
        pthread_join(p.thread, NULL);
        if (dial.err == 0 || strstr(dial.why, bad_tunnels[i].says) == NULL)
            fail_msg("%s: not \"%s\"", dial.why, bad_tunnels[i].says);
        bool tls = strstr(dial.why, "TLS") != NULL;
        assert_int_equal(dial.err, tls ? ERR_UP_TLS : ERR_UP_CONNECT);
        assert_null(strstr(dial.why, "secret"));
        assert_non_null(strstr(dial.why, "the proxy http://127.0.0.1:"));
        assert_true(span_starts(span_str(p.heard),
                                SPAN("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n")));
        proxies_free((struct proxies *)(uintptr_t)how.proxies);
        how.proxies = NULL;
    }
}

/* Heads above the limit, and answers without an end before the one that counts. */
static void test_endless_tunnels(void **state)
{
    (void)state;
    how.trust = front_trust("root");
    dial.tls = true;
    static char fields[9001], interim[25 * 20 + 1];
    struct str s = STR_INIT(fields), t = STR_INIT(interim);
    str_addz(&s, "HTTP/1.1 200 OK\r\nA: ");
    while (!s.cut)
        str_addc(&s, 'a');
    for (unsigned i = 0; i < 20; i++)
        str_addz(&t, "HTTP/1.1 100 Continue\r\n\r\n");
    const char *const says[] = {fields, interim};
    for (size_t i = 0; i < ARRAY_LEN(says); i++) {
        struct proxy_script p = {.say = {says[i], ""}};
        proxy_play(&p);
        use_proxy("http://127.0.0.1:PORT", port_of(p.at));
        dial_to("r.test", 443);
        pthread_join(p.thread, NULL);
        assert_int_equal(dial.err, ERR_UP_CONNECT);
        proxies_free((struct proxies *)(uintptr_t)how.proxies);
        how.proxies = NULL;
    }
}

/* A proxy that is spoken to by TLS: for a plain origin, and TLS inside TLS. */
static void test_tls_proxy(void **state)
{
    (void)state;
    front_open();
    use_proxy("https://u:p@localhost:PORT", front.port);
    dial.tls = false;
    dial_to("r.test", 80);
    assert_true(dial.absolute);
    assert_true(span_eq(dial.proxy_authorization, SPAN("Basic dTpw")));
    expect_reached(behind);

    dial.tls = true;
    struct front inner;
    struct spot *origin = spot_listens(2);
    front_start(&inner, &origin->addr.u.v4);
    struct sockaddr_in target = loopback(inner.port);
    struct proxy_script p = {.at = behind, .target = &target, .say = {OK_200, TUNNEL}};
    MUST(pthread_create(&p.thread, NULL, proxy_thread, &p) == 0);
    dial_to("a.r.test", 8443);
    assert_false(dial.absolute);
    expect_reached(origin);
    pthread_join(p.thread, NULL);
    assert_int_equal(COUNTED(upstream_tls_handshakes), 3);
    assert_int_equal(COUNTED(upstream_proxied), 2);
    front_stop(&inner);
    front_close();
}

static void test_tls_proxy_not_trusted(void **state)
{
    (void)state;
    front_open();
    struct resolve_addr to = {.u.v4 = loopback(front.port), .len = sizeof to.u.v4};
    map_add("proxy.test", &to);
    use_proxy("https://u:secret@proxy.test:PORT", front.port);
    dial_to("r.test", 443);
    assert_int_equal(dial.err, ERR_UP_TLS);
    assert_non_null(strstr(dial.why, "the TLS handshake with the proxy https://proxy.test:"));
    assert_null(strstr(dial.why, "secret"));
    front_close();
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

/* While the proxy does not answer, and while nobody answers a ClientHello. */
static void test_cancel_later_steps(void **state)
{
    (void)state;
    char want[256];
    struct str s = STR_INIT(want);
    how.trust = front_trust("root");
    dial.tls = true;
    struct proxy_script p = {.say = {"HTTP/1.1 200 ", ""}};
    proxy_play(&p);
    go("127.0.0.1", port_of(p.at));
    str_addf(&s, "the TLS handshake with 127.0.0.1:%u", port_of(p.at));
    expect_progress(want);
    rig_do(&rig, do_cancel, NULL);
    pthread_join(p.thread, NULL);
    proxy_play(&p);
    use_proxy("http://127.0.0.1:PORT", port_of(p.at));
    go("r.test", 443);
    str_reset(&s);
    str_addf(&s, "the answer of the proxy http://127.0.0.1:%u to CONNECT r.test:443", port_of(p.at));
    expect_progress(want);
    rig_do(&rig, do_cancel, NULL);
    pthread_join(p.thread, NULL);
    assert_int_equal(n_done, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static int group_setup(void **state)
{
    (void)state;
    front_pki_open();
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    pki_close();
    return 0;
}

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
        TEST(test_tls),
        TEST(test_tls_session),
        TEST(test_tls_not_trusted),
        TEST(test_tls_with_strangers),
        TEST(test_tunnel),
        TEST(test_bad_tunnels),
        TEST(test_endless_tunnels),
        TEST(test_tls_proxy),
        TEST(test_tls_proxy_not_trusted),
        TEST(test_cancel),
        TEST(test_cancel_later_steps),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
