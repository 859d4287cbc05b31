/* Setups: what is read when one is made, what outlives one, and how cores change over from one to the next while something still runs with
 * the one before. */
#include "rig.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "../net/pki.h"
#include "net/listen.h"

static struct conf *conf_of(struct rig *r, const char *text)
{
    static char file[160];
    snprintf(file, sizeof file, "%s", rig_path(r, "config.yaml"));
    return rig_conf(text, file);
}

#define ONE_RULE "rules:\n  - {name: one, source: up.test/*, target: t/*}\n"

static struct setup *setup_of(struct rig *r, const char *text, struct setup *before)
{
    struct conf *c = conf_of(r, text);
    struct setup *s = rig_setup_new(c, before);
    conf_unref(c);
    return s;
}

static int folder(void **state)
{
    static const char *const variables[] = {"HTTPS_PROXY", "https_proxy", "HTTP_PROXY",
                                            "http_proxy",  "NO_PROXY",    "no_proxy"};
    for (size_t i = 0; i < ARRAY_LEN(variables); i++)
        unsetenv(variables[i]);
    return rig_folder(state);
}

/* ---- what outlives a setup ---- */

static void count(const struct setup *s, size_t rule, unsigned core, int64_t n)
{
    atomic_fetch_add(&setup_rule_counts(s, rule, core)->n[KIND_BLOB][RESULT_HIT], n);
}

static int64_t counted(const struct setup *s, size_t rule, unsigned core)
{
    return atomic_load(&setup_rule_counts(s, rule, core)->n[KIND_BLOB][RESULT_HIT]);
}

static void test_counters_are_found_by_name(void **state)
{
    struct rig *r = *state;
    struct setup *a = setup_of(r,
                               "rules:\n"
                               "  - {name: one, source: up.test/*, target: t/*}\n"
                               "  - {name: two, source: other.test/*, target: o/*}\n",
                               NULL);
    count(a, 0, 0, 1);
    count(a, 1, 0, 20);
    count(a, 1, 1, 300);
    count(a, 2, 1, 4000); /* no rule */
    atomic_store(&setup_upstream_counts(a, &setup_conf(a)->upstreams[1], 1)->n[2], 7);
    /* The other way round, one renamed. */
    struct setup *b = setup_of(r,
                               "rules:\n"
                               "  - {name: two, source: other.test/*, target: o/*}\n"
                               "  - {name: three, source: up.test/*, target: t/*}\n"
                               "  - {name: four, source: fourth.test/*, target: f/*}\n",
                               a);
    assert_int_equal(counted(b, 0, 0), 20);
    assert_int_equal(counted(b, 0, 1), 300);
    assert_int_equal(counted(b, 1, 0), 0);
    assert_int_equal(counted(b, 2, 0), 0);
    assert_int_equal(counted(b, 3, 1), 4000);
    count(a, 1, 0, 5); /* what still runs with the one before counts, too */
    assert_int_equal(counted(b, 0, 0), 25);
    int64_t answers = 0;
    for (size_t i = 0; i < setup_conf(b)->n_upstreams; i++) {
        const struct conf_upstream *up = &setup_conf(b)->upstreams[i];
        if (span_eq(up->registry, setup_conf(a)->upstreams[1].registry))
            answers = atomic_load(&setup_upstream_counts(b, up, 1)->n[2]);
    }
    assert_int_equal(answers, 7);
    setup_unref(a);
    assert_int_equal(counted(b, 0, 1), 300);
    setup_unref(b);
}

static void test_health_is_found_by_registry(void **state)
{
    struct rig *r = *state;
    struct setup *a = setup_of(r, ONE_RULE, NULL);
    atomic_store(&setup_health(a, &setup_conf(a)->upstreams[0])->failures, 3);
    struct setup *b = setup_of(r,
                               "rules:\n"
                               "  - {name: x, source: new.test/*, target: n/*}\n"
                               "  - {name: y, source: up.test/*, target: t/*}\n",
                               a);
    for (size_t i = 0; i < 2; i++) {
        const struct conf_upstream *up = &setup_conf(b)->upstreams[i];
        assert_int_equal(atomic_load(&setup_health(b, up)->failures),
                         span_eq(up->registry, SPAN("up.test")) ? 3 : 0);
    }
    setup_unref(a);
    setup_unref(b);
}

/* A registry that is reached in another way now gets a new chance. */
static void test_health_begins_anew_with_other_endpoints(void **state)
{
    struct rig *r = *state;
    struct setup *a = setup_of(r, ONE_RULE, NULL);
    atomic_store(&setup_health(a, &setup_conf(a)->upstreams[0])->failures, 3);
    atomic_store(&setup_upstream_counts(a, &setup_conf(a)->upstreams[0], 0)->n[2], 7);
    struct setup *b =
        setup_of(r, ONE_RULE "upstreams:\n  - {registry: up.test, endpoints: ['https://mirror.test']}\n", a);
    assert_int_equal(atomic_load(&setup_health(b, &setup_conf(b)->upstreams[0])->failures), 0);
    assert_int_equal(atomic_load(&setup_upstream_counts(b, &setup_conf(b)->upstreams[0], 0)->n[2]), 7);
    setup_unref(a);
    setup_unref(b);
}

static _Atomic int64_t *limit_of(const struct setup *s, size_t set)
{
    const struct conf *c = setup_conf(s);
    return &setup_account(s, &c->upstreams[0], set < c->n_credential_sets ? &c->credential_sets[set] : NULL)
                ->limits[WHAT_MANIFEST]
                .until_ms;
}

/* An account has limits of its own, and a new one has none yet. */
static void test_limits_are_an_accounts_own(void **state)
{
    struct rig *r = *state;
    struct setup *a =
        setup_of(r,
                 ONE_RULE "credential_sets:\n"
                          "  - {name: a, login_server: up.test, username: u, password: 'env:A'}\n"
                          "  - {name: b, login_server: up.test, username: u, password: 'env:B'}\n",
                 NULL);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(atomic_load(limit_of(a, i)), 0);
        atomic_store(limit_of(a, i), (int64_t)(i + 1));
    }
    struct setup *b =
        setup_of(r,
                 ONE_RULE "credential_sets:\n"
                          "  - {name: c, login_server: up.test, username: u, password: 'env:A'}\n"
                          "  - {name: b, login_server: up.test, username: u, password: 'env:B'}\n"
                          "  - {name: a, login_server: up.test, username: u, password: 'env:X'}\n",
                 a);
    static const int64_t want[] = {0, 2, 0, 3}; /* another name, the same, another password, anonymous */
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_int_equal(atomic_load(limit_of(b, i)), want[i]);
    setup_unref(a);
    setup_unref(b);
}

/* ---- what is read ---- */

static struct conf_upstream changed; /* the only upstream, with what a test adds to it */

static struct conf *conf_with(struct rig *r, struct span ca, struct span certificate, struct span key,
                              struct span proxy)
{
    struct conf *c = conf_of(r, ONE_RULE);
    changed = c->upstreams[0];
    changed.ca = (struct conf_path){ca, {7, 9}};
    changed.identity.certificate = (struct conf_path){certificate, {8, 20}};
    changed.identity.key = (struct conf_path){key, {9, 21}};
    changed.proxy = proxy;
    changed.proxy_mark = (struct conf_mark){10, 12};
    c->upstreams = &changed;
    return c;
}

static void refused(struct conf *c, const char *place, const char *what)
{
    char text[512];
    struct str why = STR_INIT(text);
    struct setup *s = setup_new(c, NULL, RIG_CORES, &why);
    conf_unref(c);
    if (s != NULL)
        fail_msg("accepted, which should be refused for %s", what);
    if (strstr(text, place) == NULL || strstr(text, what) == NULL)
        fail_msg("'%s' does not say '%s' and '%s'", text, place, what);
}

static struct setup *accepted(struct conf *c)
{
    struct setup *s = rig_setup_new(c, NULL);
    conf_unref(c);
    return s;
}

static void copy_pem(struct rig *r, const char *name, struct span pem)
{
    char *text = malloc(pem.n + 1);
    memcpy(text, pem.p, pem.n);
    text[pem.n] = 0;
    rig_write(r, name, text, 0600);
    free(text);
}

/* To its first endpoint. */
static const struct dial_how *way_of(const struct setup *s)
{
    const struct conf_upstream *up = &setup_conf(s)->upstreams[0];
    const struct conf_endpoint *e = &up->endpoints[0];
    return setup_how(s, up, &(struct url){.tls = e->tls, .host = e->host, .port = e->port});
}

static void test_certificates(void **state)
{
    struct rig *r = *state;
    struct span none = SPAN_NONE;
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Root", .authority = true});
    pki_make(&(struct pki_how){"leaf", .cn = "leaf.test", .issuer = "root", .names = "DNS:leaf.test"});
    copy_pem(r, "root.pem", pki_text("root", NULL));
    copy_pem(r, "leaf.pem", pki_text("leaf", "root", NULL));
    copy_pem(r, "leaf.key", pki_key("leaf"));
    copy_pem(r, "root.key", pki_key("root"));
    rig_write(r, "garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0600);
    pki_close();

    struct setup *plain = accepted(conf_with(r, none, none, none, none));
    struct setup *s = accepted(conf_with(r, SPAN("root.pem"), SPAN("leaf.pem"), SPAN("leaf.key"), none));
    const struct dial_how *how = way_of(s);
    const struct dial_how *other = way_of(plain);
    size_t system = other->trust != NULL ? trust_count(other->trust) : 0;
    assert_int_equal(trust_count(how->trust), system + 1);
    assert_non_null(how->identity);
    assert_null(other->identity);
    assert_true(how->serial != other->serial);
    const struct conf_upstream *up = &setup_conf(s)->upstreams[0];
    const struct conf_endpoint *e = &up->endpoints[0];
    const struct url elsewhere[] = {
        {.tls = e->tls, .host = SPAN("cdn.test"), .port = e->port},
        {.tls = e->tls, .host = e->host, .port = (uint16_t)(e->port + 1)},
        {.tls = !e->tls, .host = e->host, .port = e->port},
    };
    for (size_t i = 0; i < ARRAY_LEN(elsewhere); i++) {
        const struct dial_how *beyond = setup_how(s, up, &elsewhere[i]);
        assert_null(beyond->identity);
        assert_ptr_equal(beyond->trust, how->trust);
        assert_true(beyond->serial != how->serial);
        assert_ptr_equal(setup_how(plain, &setup_conf(plain)->upstreams[0], &elsewhere[i]), other);
    }
    setup_unref(s);
    setup_unref(plain);

    refused(conf_with(r, SPAN("missing.pem"), none, none, none),
            "config.yaml:7:9: upstreams[].ca: ", "missing.pem: No such file");
    refused(conf_with(r, SPAN("garbage.pem"), none, none, none),
            "config.yaml:7:9: upstreams[].ca: ", "block 1");
    refused(conf_with(r, none, SPAN("missing.pem"), SPAN("leaf.key"), none),
            "config.yaml:8:20: ", "No such file");
    refused(conf_with(r, none, SPAN("leaf.pem"), SPAN("missing.key"), none),
            "config.yaml:9:21: ", "No such file");
    refused(conf_with(r, none, SPAN("leaf.pem"), SPAN("root.key"), none), "config.yaml:8:20: ", "key");
}

static size_t system_roots(struct rig *r)
{
    struct setup *s = setup_of(r, ONE_RULE, NULL);
    const struct dial_how *how = way_of(s);
    size_t n = how->trust != NULL ? trust_count(how->trust) : 0;
    setup_unref(s);
    return n;
}

/* Each setup sees what the file of the system's roots has then; what cannot be used is not taken. */
static void test_the_system_s_roots_change(void **state)
{
    struct rig *r = *state;
    pki_open();
    pki_make(&(struct pki_how){"one", .cn = "One", .authority = true});
    pki_make(&(struct pki_how){"two", .cn = "Two", .authority = true});
    copy_pem(r, "roots.pem", pki_text("one", NULL));
    setenv("SSL_CERT_FILE", rig_path(r, "roots.pem"), 1);
    assert_int_equal(system_roots(r), 1);
    struct setup *before = setup_of(r, ONE_RULE, NULL);
    copy_pem(r, "roots.pem", pki_text("one", "two", NULL));
    assert_int_equal(system_roots(r), 2);
    assert_int_equal(trust_count(way_of(before)->trust), 1);
    setup_unref(before);
    rig_write(r, "roots.pem", "nothing of use\n", 0600);
    assert_int_equal(system_roots(r), 2);
    MUST(remove(rig_path(r, "roots.pem")) == 0);
    assert_int_equal(system_roots(r), 2);
    unsetenv("SSL_CERT_FILE");
    pki_close();
}

static void test_proxies(void **state)
{
    struct rig *r = *state;
    struct span none = SPAN_NONE;
    const struct dial_how *how;
    setenv("HTTPS_PROXY", "http://env.test:3128", 1);
    setenv("NO_PROXY", "direct.test", 1);
    struct setup *s = accepted(conf_with(r, none, none, none, none));
    how = way_of(s);
    const struct http_proxy *p = proxies_for(how->proxies, true, SPAN("up.test"), 443);
    assert_non_null(p);
    assert_int_equal(p->port, 3128);
    assert_null(proxies_for(how->proxies, true, SPAN("direct.test"), 443));
    assert_non_null(proxies_for(setup_cloud(s)->proxies, true, SPAN("v.vault.azure.net"), 443));
    assert_null(proxies_for(setup_local(s)->proxies, false, SPAN("169.254.169.254"), 80));
    setup_unref(s);

    s = accepted(conf_with(r, none, none, none, SPAN("http://own.test:99")));
    how = way_of(s);
    p = proxies_for(how->proxies, true, SPAN("direct.test"), 443);
    assert_non_null(p);
    assert_int_equal(p->port, 99);
    setup_unref(s);

    s = accepted(conf_with(r, none, none, none, SPAN("direct")));
    how = way_of(s);
    assert_null(proxies_for(how->proxies, true, SPAN("up.test"), 443));
    setup_unref(s);

    refused(conf_with(r, none, none, none, SPAN("ftp://u:hidden@x")),
            "config.yaml:10:12: upstreams[].proxy: ", "");
    setenv("HTTPS_PROXY", "ftp://u:hidden@x", 1);
    refused(conf_with(r, none, none, none, none), "environment: ", "HTTPS_PROXY");
}

static void test_addresses(void **state)
{
    struct rig *r = *state;
    static const struct conf_resolve resolve[] = {{{"v4.test", 7}, {"127.0.0.9", 9}, 0},
                                                  {{"v6.test", 7}, {"2001:db8::1", 11}, 8443}};
    struct conf *c = conf_of(r, ONE_RULE);
    c->resolve = resolve;
    c->n_resolve = ARRAY_LEN(resolve);
    struct setup *s = accepted(c);
    const struct dial_how *how = way_of(s);
    assert_int_equal(how->n_addresses, 2);
    char text[INET6_ADDRSTRLEN];
    const struct resolve_addr *a = &how->addresses[0].addr, *b = &how->addresses[1].addr;
    assert_int_equal(a->u.sa.sa_family, AF_INET);
    assert_int_equal(a->u.v4.sin_port, 0);
    assert_string_equal(inet_ntop(AF_INET, &a->u.v4.sin_addr, text, sizeof text), "127.0.0.9");
    assert_int_equal(b->u.sa.sa_family, AF_INET6);
    assert_int_equal(ntohs(b->u.v6.sin6_port), 8443);
    assert_string_equal(inet_ntop(AF_INET6, &b->u.v6.sin6_addr, text, sizeof text), "2001:db8::1");
    setup_unref(s);
}

/* What is known of an upstream is kept by one with the same configuration and files, and by no other. */

static struct setup *followed(struct rig *r, const char *text, struct setup *before, bool kept)
{
    struct setup *s = setup_of(r, text, before);
    struct upstream_health *h = setup_health(s, &setup_conf(s)->upstreams[0]);
    if (before != NULL)
        assert_int_equal(atomic_load(&h->failures), kept ? 3 : 0);
    atomic_store(&h->failures, 3);
    setup_unref(before);
    return s;
}

#define FILES                                                                                                \
    ONE_RULE "upstreams:\n  - {registry: up.test, ca: a.pem, client_certificate: {certificate: b.pem, key: " \
             "b.key}}\n"

static void test_health_begins_anew_with_other_files_and_addresses(void **state)
{
    struct rig *r = *state;
    pki_open();
    pki_make(&(struct pki_how){"one", .cn = "One", .authority = true});
    pki_make(&(struct pki_how){"two", .cn = "Two", .authority = true});
    copy_pem(r, "a.pem", pki_text("one", NULL));
    copy_pem(r, "b.pem", pki_text("one", NULL));
    copy_pem(r, "b.key", pki_key("one"));
    struct setup *s = followed(r, FILES, NULL, false);
    s = followed(r, FILES "log: {level: debug}\n", s, true);
    copy_pem(r, "a.pem", pki_text("two", NULL));
    s = followed(r, FILES, s, false);
    s = followed(r, FILES, s, true);
    copy_pem(r, "b.pem", pki_text("two", NULL));
    copy_pem(r, "b.key", pki_key("two"));
    s = followed(r, FILES, s, false);
    s = followed(r, FILES "resolve: {up.test: 10.0.0.1}\n", s, false);
    s = followed(r, FILES "resolve: {up.test: 10.0.0.1}\n", s, true);
    s = followed(r, FILES "resolve: {up.test: 10.0.0.2}\n", s, false);
    s = followed(r, FILES "resolve: {up.test: '10.0.0.2:8443'}\n", s, false);
    s = followed(r, FILES, s, false);
    setup_unref(s);
    pki_close();
}

/* ---- changing over ---- */

/* A server that answers every request and says when a connection has ended. */
struct peer {
    int fd;
    uint16_t port;
    pthread_t thread;
    sem_t ended;
};

static void peer_serve(int fd)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    char buf[4096];
    size_t n = 0;
    ssize_t got;
    while ((got = recv(fd, buf + n, sizeof buf - 1 - n, 0)) > 0) {
        n += (size_t)got;
        buf[n] = 0;
        if (strstr(buf, "\r\n\r\n") == NULL)
            continue;
        n = 0;
        if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
            break;
    }
    close(fd);
}

static void *peer_thread(void *arg)
{
    struct peer *p = arg;
    int fd;
    while ((fd = accept(p->fd, NULL, NULL)) >= 0) {
        peer_serve(fd);
        sem_post(&p->ended);
    }
    return NULL;
}

static void peer_start(struct peer *p)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(p->fd >= 0 && bind(p->fd, (struct sockaddr *)&a, n) == 0 && listen(p->fd, 8) == 0);
    MUST(getsockname(p->fd, (struct sockaddr *)&a, &n) == 0);
    p->port = ntohs(a.sin_port);
    sem_init(&p->ended, 0, 0);
    MUST(pthread_create(&p->thread, NULL, peer_thread, p) == 0);
}

static void peer_stop(struct peer *p)
{
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->fd);
    sem_destroy(&p->ended);
}

/* One request over the way of a setup that is held. */
struct get {
    struct call call;
    struct setup *setup;
    uint16_t port;
    bool good;
    char buf[16384];
    size_t n;
    sem_t done;
};

static void get_event(struct call *call)
{
    struct get *g = CONTAINER_OF(call, struct get, call);
    while (call->state == CALL_HEADED) {
        ssize_t n = call_read(call, g->buf, sizeof g->buf);
        if (n == CALL_AGAIN)
            return;
        g->n += n > 0 ? (size_t)n : 0;
    }
    if (call->state != CALL_END && call->state != CALL_FAILED)
        return;
    g->good = call->state == CALL_END && g->n == 2;
    call_end(call);
    sem_post(&g->done);
}

static void get_begin(struct rig_core *on, void *arg)
{
    struct get *g = arg;
    g->call.origin = (struct origin){
        .host = SPAN("127.0.0.1"), .port = g->port, .max_connections = 4, .how = way_of(g->setup)};
    g->call.target = SPAN("/");
    g->call.host_field = SPAN("x");
    g->call.fields = SPAN("");
    g->call.connect_ms = g->call.first_byte_ms = g->call.idle_ms = 30000;
    g->call.event = get_event;
    call_start(on->px->pool, &g->call);
}

static void get(struct rig *r, struct peer *p, struct setup *held)
{
    static struct get g;
    g = (struct get){.setup = held, .port = p->port};
    sem_init(&g.done, 0, 0);
    on_core(r, 0, get_begin, &g);
    sem_wait(&g.done);
    assert_true(g.good);
}

static void hold(struct rig_core *on, void *arg)
{
    *(struct setup **)arg = setup_hold(on->px, on->px->setup);
}

static void release(struct rig_core *on, void *arg)
{
    setup_release(on->px, arg);
}

static void current(struct rig_core *on, void *arg)
{
    *(struct setup **)arg = on->px->setup;
}

static struct setup *current_on(struct rig *r, unsigned core)
{
    struct setup *s;
    on_core(r, core, current, &s);
    return s;
}

static struct setup *reload(struct rig *r)
{
    struct setup *now = proxy_setup(r->shared), *next = setup_of(r, ONE_RULE, now);
    proxy_reload(r->shared, next);
    setup_unref(now);
    setup_unref(next);
    return next; /* the cores have it */
}

static void test_reload(void **state)
{
    struct rig *r = *state;
    struct peer p;
    peer_start(&p);
    rig_start(r, setup_of(r, ONE_RULE, NULL));
    get(r, &p, current_on(r, 0));
    get(r, &p, current_on(r, 0)); /* on the same connection */
    assert_int_equal(atomic_load(&core_counters(r->cores[0].core)->upstream_idle), 1);
    struct setup *next = reload(r);
    for (unsigned i = 0; i < RIG_CORES; i++)
        assert_ptr_equal(current_on(r, i), next);
    /* nobody runs with the one before: its connections are gone */
    assert_int_equal(atomic_load(&core_counters(r->cores[0].core)->upstream_idle), 0);
    sem_wait(&p.ended);
    get(r, &p, next);
    rig_stop(r);
    sem_wait(&p.ended);
    peer_stop(&p);
}

/* What runs goes on with the setup that it began with, also when it makes new connections. */
static void test_reload_under_way(void **state)
{
    struct rig *r = *state;
    struct peer p;
    struct setup *held;
    peer_start(&p);
    rig_start(r, setup_of(r, ONE_RULE, NULL));
    on_core(r, 0, hold, &held);
    struct setup *next = reload(r);
    assert_ptr_equal(current_on(r, 0), next);
    assert_ptr_not_equal(held, next);
    get(r, &p, held);
    assert_int_equal(setup_conf(held)->n_rules, 1);
    assert_int_equal(atomic_load(&core_counters(r->cores[0].core)->upstream_idle), 1);
    on_core(r, 0, release, held);
    assert_int_equal(atomic_load(&core_counters(r->cores[0].core)->upstream_idle), 0);
    sem_wait(&p.ended);
    rig_stop(r);
    peer_stop(&p);
}

/* Many at once, and what is held comes and goes in another order. */
static void test_many_reloads(void **state)
{
    struct rig *r = *state;
    struct setup *held[RIG_CORES][7] = {{NULL}};
    rig_start(r, setup_of(r, ONE_RULE, NULL));
    for (unsigned i = 0; i < 100; i++) {
        struct setup **h = &held[i % RIG_CORES][i % 7];
        if (*h != NULL)
            on_core(r, i % RIG_CORES, release, *h);
        on_core(r, i % RIG_CORES, hold, h);
        (void)reload(r);
    }
    for (unsigned i = 0; i < RIG_CORES * 7; i++) {
        if (held[i / 7][i % 7] != NULL)
            on_core(r, i / 7, release, held[i / 7][i % 7]);
    }
    (void)reload(r);
    rig_stop(r); /* perhaps before the cores have seen it */
}

static void test_metrics_follow(void **state)
{
    struct rig *r = *state;
    static char text[65536];
    struct str out = STR_INIT(text);
    rig_start(r, setup_of(r, ONE_RULE, NULL));
    count(current_on(r, 1), 0, 1, 5);
    (void)reload(r);
    proxy_metrics(r->shared, &out);
    assert_non_null(strstr(text, "larder_requests_total{rule=\"one\",kind=\"blob\",cache=\"hit\"} 5\n"));
    rig_stop(r);
}

/* ---- a listener by TLS that goes ---- */

#define LISTENER "127.0.0.1:0"
#define BY_TLS   "listen: [{address: \"" LISTENER "\", tls: {certificate: leaf.pem, key: leaf.key}}]\n" ONE_RULE

struct leaving {
    int listening, client;
    struct sockaddr_in at;
};

static void listen_on(struct rig_core *on, void *arg)
{
    proxy_listen(on->px, SPAN(LISTENER), ((struct leaving *)arg)->listening);
}

/* A client connects when the core has the setup without the listener, and it has not been told to stop it. */
static void connect_and_unlisten(struct rig_core *on, void *arg)
{
    static const char plain[] = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    struct leaving *l = arg;
    l->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(connect(l->client, (struct sockaddr *)&l->at, sizeof l->at) == 0);
    MUST(send(l->client, plain, sizeof plain - 1, MSG_NOSIGNAL) == sizeof plain - 1);
    proxy_unlisten(on->px, SPAN(LISTENER));
}

static void test_last_clients_of_a_tls_listener(void **state)
{
    struct rig *r = *state;
    struct leaving l = {.at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    uint16_t port;
    char text[512], answer[64] = "";
    struct str why = STR_INIT(text);
    pki_open();
    pki_make(&(struct pki_how){"leaf", .cn = "leaf.test", .names = "DNS:leaf.test"});
    copy_pem(r, "leaf.pem", pki_text("leaf", NULL));
    copy_pem(r, "leaf.key", pki_key("leaf"));
    pki_close();
    MUST(listen_open(SPAN("127.0.0.1"), 0, false, 1, &l.listening, &port, &why));
    l.at.sin_port = htons(port);
    rig_start(r, setup_of(r, BY_TLS, NULL));
    on_core(r, 0, listen_on, &l);
    (void)reload(r);
    on_core(r, 0, connect_and_unlisten, &l);
    (void)recv(l.client, answer, sizeof answer - 1, 0);
    assert_null(strstr(answer, "HTTP"));
    close(l.client);
    rig_stop(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, folder, rig_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_counters_are_found_by_name),
        TEST(test_health_is_found_by_registry),
        TEST(test_health_begins_anew_with_other_endpoints),
        TEST(test_limits_are_an_accounts_own),
        TEST(test_certificates),
        TEST(test_the_system_s_roots_change),
        TEST(test_proxies),
        TEST(test_addresses),
        TEST(test_health_begins_anew_with_other_files_and_addresses),
        TEST(test_reload),
        TEST(test_reload_under_way),
        TEST(test_many_reloads),
        TEST(test_metrics_follow),
        TEST(test_last_clients_of_a_tls_listener),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
