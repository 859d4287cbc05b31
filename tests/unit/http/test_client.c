/* The client, against a scripted peer: a thread that accepts one connection after the other and, on each, does what its script
 * says. */
#include "rig.h"

#include "tls_front.h"

#include "http/client.h"

/* ---- the peer ---- */

enum does {
    END_OF_SCRIPT,
    READ,    /* a whole request */
    SAY,     /* text */
    ZEROS,   /* endless "0" until the other side has gone */
    PATTERN, /* n bytes of a body */
    NAP,     /* long enough for the bytes so far to arrive alone */
    WAIT,    /* until the test says go */
    GONE,    /* waits until the other side has gone */
    CLOSE,
    RESET,
    NEXT /* accepts the next connection; the one before stays open until the end, unless closed */
};

struct act {
    enum does does;
    const char *text;
    unsigned n;
};

#define CONNS_MAX 16

struct server_peer {
    int listener;
    uint16_t port;
    pthread_t thread;
    const struct act *script;
    sem_t go;
    unsigned connections, requests; /* read after the thread was joined */
    char last_request[100000];
};

static struct server_peer sp;

static void read_request(int fd)
{
    size_t n = 0, body = 0;
    bool headed = false;
    while (n < sizeof sp.last_request - 1 && (!headed || body > 0)) {
        ssize_t got = recv(fd, sp.last_request + n, 1, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
        body -= headed;
        if (headed || n < 4 || memcmp(sp.last_request + n - 4, "\r\n\r\n", 4) != 0)
            continue;
        headed = true;
        sp.last_request[n] = 0;
        const char *length = strstr(sp.last_request, "Content-Length: ");
        body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
    }
    sp.requests += headed && body == 0;
    sp.last_request[n] = 0;
}

static void say_pattern(int fd, unsigned n)
{
    char block[1300];
    for (unsigned at = 0; at < n;) {
        unsigned piece = n - at < sizeof block ? n - at : (unsigned)sizeof block;
        for (unsigned i = 0; i < piece; i++)
            block[i] = pattern(at + i);
        peer_send(fd, block, piece);
        at += piece;
    }
}

static void say_zeros(int fd)
{
    static const char zeros[4096] = "";
    char block[sizeof zeros];
    memset(block, '0', sizeof block);
    while (send(fd, block, sizeof block, MSG_NOSIGNAL) > 0)
        ;
}

static void wait_gone(int fd)
{
    char byte[4096];
    while (recv(fd, byte, sizeof byte, 0) > 0)
        ;
}

static void *peer_thread(void *arg)
{
    (void)arg;
    int fds[CONNS_MAX], fd = -1;
    for (const struct act *a = sp.script; a->does != END_OF_SCRIPT; a++) {
        switch (a->does) {
        case NEXT:
            MUST(sp.connections < CONNS_MAX);
            fd = accept(sp.listener, NULL, NULL);
            MUST(fd >= 0);
            peer_patience(fd);
            fds[sp.connections++] = fd;
            break;
        case READ:
            read_request(fd);
            break;
        case SAY:
            peer_say(fd, a->text);
            break;
        case ZEROS:
            say_zeros(fd);
            break;
        case PATTERN:
            say_pattern(fd, a->n);
            break;
        case NAP:
            usleep(30000);
            break;
        case WAIT:
            while (sem_wait(&sp.go) != 0)
                MUST(errno == EINTR);
            break;
        case GONE:
            wait_gone(fd);
            break;
        case CLOSE:
            close(fd);
            fds[sp.connections - 1] = -1;
            break;
        case RESET:
            peer_reset(fd);
            fds[sp.connections - 1] = -1;
            break;
        case END_OF_SCRIPT:
            break;
        }
    }
    while (sem_wait(&sp.go) != 0) /* connections stay open until the test is over */
        MUST(errno == EINTR);
    for (unsigned i = 0; i < sp.connections; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    return NULL;
}

/* ---- the calls ---- */

#define CALLS 40

struct asked {
    struct call call;
    bool read; /* the body, too */
    bool ended, pattern_ok, stop_at_head;
    uint64_t body, most; /* most: in one event */
    unsigned status, events;
    bool reused;
    int err;
    char why[320];
    unsigned order; /* in which the calls came to their end: 1, 2, ... */
};

static struct rig rig;
static struct pool *pool;
static struct asked asked[CALLS];
static unsigned n_ended;
static unsigned max_connections;
static int64_t connect_ms, first_byte_ms, idle_ms;
static const char *host;
static size_t read_size;
static bool end_with_first, secret, bulk, slow;
static struct span authorization, body;
static enum call_method method;
static struct dial_how how;
static const struct dial_how *use_how;
static struct front front;
static bool use_tls;
static struct dial_address addresses[2];

static void asked_over(struct asked *a)
{
    a->reused = a->call.reused;
    a->err = a->call.err;
    memcpy(a->why, a->call.why, sizeof a->why);
    a->order = ++n_ended;
    call_end(&a->call);
    a->ended = true;
    if (end_with_first && a == &asked[0]) { /* the next one has just been given the connection */
        call_end(&asked[1].call);
        asked[1].ended = true;
    }
}

static void on_event(struct call *call)
{
    struct asked *a = CONTAINER_OF(call, struct asked, call);
    static char buf[65536];
    MUST(!a->ended);
    a->events++;
    if (call->state == CALL_FAILED) {
        asked_over(a);
        return;
    }
    MUST(call->state == CALL_HEADED);
    a->status = call->head->status;
    if (a->stop_at_head) {
        asked_over(a);
        return;
    }
    for (uint64_t before = a->body;;) {
        if (slow) /* the peer is ahead */
            usleep(2000);
        ssize_t n = call_read(call, buf, read_size);
        if (n == CALL_AGAIN)
            return;
        if (n > 0 && a->body + (uint64_t)n - before > a->most)
            a->most = a->body + (uint64_t)n - before;
        for (ssize_t i = 0; i < n; i++)
            a->pattern_ok = a->pattern_ok && buf[i] == pattern(a->body + (uint64_t)i);
        if (n > 0)
            a->body += (uint64_t)n;
        if (n == CALL_BROKEN || n == 0 || call->state == CALL_END) {
            asked_over(a);
            return;
        }
    }
}

struct range {
    unsigned from, n;
    bool head_only, stop_at_head;
};

static void do_call(void *arg)
{
    const struct range *r = arg;
    for (unsigned i = r->from; i < r->from + r->n; i++) {
        struct asked *a = &asked[i];
        MUST(!a->ended && a->events == 0);
        a->pattern_ok = true;
        a->stop_at_head = r->stop_at_head;
        a->call.origin = (struct origin){.host = span_str(host),
                                         .port = use_tls ? front.port : sp.port,
                                         .tls = use_tls,
                                         .max_connections = max_connections,
                                         .how = use_how};
        a->call.method = r->head_only ? CALL_HEAD : method;
        a->call.authorization = authorization;
        a->call.body = body;
        a->call.target = SPAN("/t?q");
        a->call.host_field = SPAN("registry.test");
        a->call.fields = SPAN("X-Field: 1\r\n");
        a->call.connect_ms = connect_ms;
        a->call.first_byte_ms = first_byte_ms;
        a->call.idle_ms = idle_ms;
        a->call.secret = secret;
        a->call.bulk = bulk;
        a->call.event = on_event;
        call_start(pool, &a->call);
        MUST(a->events == 0); /* never from within */
    }
}

static void start(unsigned from, unsigned n)
{
    struct range r = {.from = from, .n = n};
    rig_do(&rig, do_call, &r);
}

static bool looked;
static unsigned look_from, look_n;

static void do_look(void *arg)
{
    (void)arg;
    looked = true;
    for (unsigned i = look_from; i < look_from + look_n; i++)
        looked = looked && asked[i].ended;
}

static void finish(unsigned from, unsigned n)
{
    look_from = from;
    look_n = n;
    rig_until(&rig, do_look, NULL, &looked);
}

static void do_look_sent(void *arg)
{
    const unsigned *i = arg;
    looked = asked[*i].call.state == CALL_SENT;
}

/* Until the request is out: the connection is in the peer's hands. */
static void sent(unsigned i)
{
    rig_until(&rig, do_look_sent, &i, &looked);
}

static struct asked *get(unsigned i)
{
    start(i, 1);
    finish(i, 1);
    return &asked[i];
}

/* ---- setting up ---- */

static void do_pool(void *arg)
{
    (void)arg;
    pool = pool_new(rig.core);
}

static void do_pool_free(void *arg)
{
    (void)arg;
    pool_free(pool);
}

static int setup(void **state)
{
    (void)state;
    memset(&sp, 0, sizeof sp);
    memset(asked, 0, sizeof asked);
    n_ended = 0;
    max_connections = 8;
    connect_ms = first_byte_ms = idle_ms = 20000;
    host = "127.0.0.1";
    read_size = 65536;
    end_with_first = secret = bulk = slow = use_tls = false;
    authorization = body = SPAN_NONE;
    method = CALL_GET;
    use_how = NULL;
    how = (struct dial_how){.serial = dial_serial(), .addresses = addresses};
    rig_start(&rig);
    rig_do(&rig, do_pool, NULL);
    sem_init(&sp.go, 0, 0);
    struct sockaddr_in a = loopback(0);
    socklen_t n = sizeof a;
    sp.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(sp.listener >= 0 && bind(sp.listener, (struct sockaddr *)&a, sizeof a) == 0);
    MUST(listen(sp.listener, 64) == 0 && getsockname(sp.listener, (struct sockaddr *)&a, &n) == 0);
    sp.port = ntohs(a.sin_port);
    return 0;
}

static void play(const struct act *script)
{
    sp.script = script;
    MUST(pthread_create(&sp.thread, NULL, peer_thread, NULL) == 0);
}

/* The script has been played to its end, and nothing is left over. */
static void played(unsigned connections, unsigned requests)
{
    sem_post(&sp.go);
    pthread_join(sp.thread, NULL);
    assert_int_equal(sp.connections, connections);
    assert_int_equal(sp.requests, requests);
}

static int teardown(void **state)
{
    (void)state;
    rig_do(&rig, do_pool_free, NULL);
    MUST(atomic_load(&core_counters(rig.core)->upstream_idle) == 0);
    MUST(atomic_load(&core_counters(rig.core)->upstream_active) == 0);
    MUST(atomic_load(&core_counters(rig.core)->upstream_origins) == 0);
    rig_stop(&rig);
    close(sp.listener);
    proxies_free((struct proxies *)(uintptr_t)how.proxies);
    trust_unref(how.trust);
    return 0;
}

#define LENGTH(n) "HTTP/1.1 200 OK\r\nContent-Length: " #n "\r\n\r\n"
#define CHUNKED   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

/* ---- good answers ---- */

static void test_kept_alive(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(300000), 0},
                                        {PATTERN, NULL, 300000},
                                        {.does = READ},
                                        {SAY, CHUNKED "3\r\nabc\r\n", 0},
                                        {.does = NAP},
                                        {SAY, "4;x=y\r\ndefg\r\n0\r\nT: r\r\n\r\n", 0},
                                        {.does = READ},
                                        {SAY, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0},
                                        {.does = READ},
                                        {SAY, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\n", 0},
                                        {.does = NAP},
                                        {SAY, LENGTH(1) "a", 0},
                                        {.does = READ},
                                        {SAY, LENGTH(0), 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    static const uint64_t bodies[] = {300000, 7, 0, 1, 0};
    static const unsigned statuses[] = {200, 200, 304, 200, 200};
    for (unsigned i = 0; i < ARRAY_LEN(bodies); i++) {
        struct asked *a = get(i);
        assert_int_equal(a->err, 0);
        assert_int_equal(a->status, statuses[i]);
        assert_int_equal(a->body, bodies[i]);
        assert_true(a->pattern_ok);
        assert_int_equal(a->reused, i > 0);
    }
    played(1, 5);
    assert_string_equal(sp.last_request, "GET /t?q HTTP/1.1\r\nHost: registry.test\r\nUser-Agent: larder\r\n"
                                         "Accept-Encoding: identity\r\nX-Field: 1\r\n\r\n");
}

static void test_head(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT}, {.does = READ},    {SAY, LENGTH(1000), 0},
                                        {.does = READ}, {SAY, CHUNKED, 0}, {.does = END_OF_SCRIPT}};
    play(script);
    for (unsigned i = 0; i < 2; i++) {
        struct range r = {.from = i, .n = 1, .head_only = true};
        rig_do(&rig, do_call, &r);
        finish(i, 1);
        assert_int_equal(asked[i].status, 200);
        assert_int_equal(asked[i].body, 0);
        assert_int_equal(asked[i].err, 0);
        assert_int_equal(asked[i].reused, i > 0);
    }
    played(1, 2);
    assert_int_equal(strncmp(sp.last_request, "HEAD ", 5), 0);
}

/* The head and all kinds of pieces of the body in one segment, read in small pieces from what came with the head. */
static void test_body_with_the_head(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},
        {.does = READ},
        {SAY, LENGTH(26) "abcdefghijklmnopqrstuvwxyz", 0},
        {.does = READ},
        {SAY, CHUNKED "1\r\na\r\n2\r\nbc\r\n17\r\ndefghijklmnopqrstuvwxyz\r\n0\r\n\r\n", 0},
        {.does = END_OF_SCRIPT}};
    read_size = 7;
    play(script);
    for (unsigned i = 0; i < 2; i++) {
        struct asked *a = get(i);
        assert_int_equal(a->err, 0);
        assert_int_equal(a->body, 26);
        assert_true(a->pattern_ok);
    }
    played(1, 2);
}

static void test_until_the_end(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, "HTTP/1.0 200 OK\r\n\r\n", 0},
                                        {PATTERN, NULL, 100000},
                                        {.does = CLOSE},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, "HTTP/1.1 200 OK\r\n\r\n", 0},
                                        {.does = NAP},
                                        {.does = CLOSE}, /* empty */
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(2) "ab", 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    assert_int_equal(get(0)->body, 100000);
    assert_int_equal(get(1)->body, 0);
    assert_int_equal(get(2)->body, 2);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(asked[i].err, 0);
        assert_true(asked[i].pattern_ok);
        assert_false(asked[i].reused);
    }
    played(3, 3);
}

/* There is always more to read, and yet the loop has others. */
static void test_much_at_once(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},           {.does = READ}, {SAY, LENGTH(6000000), 0},
                                        {PATTERN, NULL, 6000000}, {.does = READ}, {SAY, LENGTH(2) "ab", 0},
                                        {.does = END_OF_SCRIPT}};
    slow = true;
    play(script);
    struct asked *a = get(0);
    assert_int_equal(a->err, 0);
    assert_int_equal(a->body, 6000000);
    assert_true(a->pattern_ok);
    assert_in_range(a->most, 100000, 1500000);
    assert_int_equal(get(1)->body, 2);
    played(1, 2);
}

/* A head and a binary body cut where it hurts. */
static void test_cut_at_the_heads_end(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT}, {.does = READ},         {SAY, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", 0},
        {.does = NAP},  {SAY, "\r\n\rx\ry", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    struct asked *a = get(0);
    assert_int_equal(a->err, 0);
    assert_int_equal(a->body, 4);
    played(1, 1);
}

/* ---- faults ---- */

struct fault {
    struct act act[6]; /* behind NEXT and READ */
    int err;
    unsigned status;
    uint64_t body;
};

static void test_faults(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        {{{.does = CLOSE}}, ERR_UP_CLOSED, 0, 0},
        {{{.does = RESET}}, ERR_UP_CLOSED, 0, 0},
        {{{SAY, "HTTP/1.1 2", 0}, {.does = CLOSE}}, ERR_UP_CLOSED, 0, 0},
        {{{SAY, "<html>what?</html>\r\n\r\n", 0}}, ERR_UP_PROTOCOL, 0, 0},
        {{{SAY, "HTTP/1.1 101 Switching\r\n\r\n", 0}}, ERR_UP_PROTOCOL, 0, 0},
        {{{SAY, "HTTP/1.1 200 OK\r\nA:\rB: c\r\n\r\n", 0}}, ERR_UP_PROTOCOL, 0, 0},
        {{{SAY, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0}},
         ERR_UP_PROTOCOL,
         0,
         0},
        {{{SAY, LENGTH(10) "abc", 0}, {.does = CLOSE}}, ERR_UP_SHORT, 200, 3},
        {{{SAY, LENGTH(10), 0}, {.does = NAP}, {.does = CLOSE}}, ERR_UP_SHORT, 200, 0},
        {{{SAY, CHUNKED "3\r\nabc\r\n", 0}, {.does = NAP}, {.does = CLOSE}}, ERR_UP_SHORT, 200, 3},
        {{{SAY, CHUNKED "3\r\nabc\r\n0\r\n", 0}, {.does = NAP}, {.does = CLOSE}}, ERR_UP_SHORT, 200, 3},
        {{{SAY, CHUNKED "3\r\nabc\r\n", 0}, {.does = NAP}, {SAY, "x\r\n", 0}}, ERR_UP_PROTOCOL, 200, 3},
        {{{SAY, CHUNKED, 0}, {.does = ZEROS}}, ERR_UP_PROTOCOL, 200, 0},
        {{{SAY, "HTTP/1.1 200 ", 0}, {.does = ZEROS}}, ERR_UP_PROTOCOL, 0, 0},
    };
    struct act script[8 * ARRAY_LEN(faults) + 1];
    unsigned n = 0;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        script[n++] = (struct act){.does = NEXT};
        script[n++] = (struct act){.does = READ};
        for (size_t k = 0; k < 6 && faults[i].act[k].does != END_OF_SCRIPT; k++)
            script[n++] = faults[i].act[k];
    }
    script[n] = (struct act){.does = END_OF_SCRIPT};
    play(script);
    for (unsigned i = 0; i < ARRAY_LEN(faults); i++) {
        struct asked *a = get(i);
        if (a->err != faults[i].err || a->status != faults[i].status || a->body != faults[i].body)
            fail_msg("fault %u: %s (%s), status %u, %llu bytes", i, err_name(a->err), a->why, a->status,
                     (unsigned long long)a->body);
        assert_int_not_equal(a->why[0], 0);
    }
    played(ARRAY_LEN(faults), ARRAY_LEN(faults));
}

static void test_reset_in_the_body(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT}, {.does = READ},  {SAY, LENGTH(10) "abc", 0},
                                        {.does = NAP},  {.does = RESET}, {.does = END_OF_SCRIPT}};
    play(script);
    struct asked *a = get(0);
    assert_int_equal(a->err, ERR_UP_SHORT);
    assert_int_equal(a->status, 200);
    played(1, 1);
}

static void test_timeouts(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},         {.does = READ}, {.does = GONE}, /* no answer */
        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(10) "abc", 0},
        {.does = GONE}, /* and no more */
        {.does = END_OF_SCRIPT}};
    first_byte_ms = 100;
    play(script);
    assert_int_equal(get(0)->err, ERR_UP_TIMEOUT);
    first_byte_ms = 20000;
    idle_ms = 100;
    struct asked *a = get(1);
    assert_int_equal(a->err, ERR_UP_TIMEOUT);
    assert_int_equal(a->status, 200);
    played(2, 2);
}

static void test_no_connection(void **state)
{
    (void)state;
    close(sp.listener);
    sp.listener = -1;
    assert_int_equal(get(0)->err, ERR_UP_CONNECT);
    assert_non_null(strstr(asked[0].why, "refused"));
    host = "no-such-name.invalid";
    assert_int_equal(get(1)->err, ERR_UP_RESOLVE);
    host = "";
    assert_int_equal(get(2)->err, ERR_UP_RESOLVE);
}

/* ---- kept-alive connections that are not what they seem ---- */

/* Closed by the peer when the request is already on its way: once more, on a new one. */
static void test_closed_under_the_request(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(1) "a", 0},  {.does = READ}, {.does = CLOSE},
        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(2) "ab", 0}, {.does = READ}, {.does = RESET},
        {.does = NEXT},         {.does = READ}, {.does = CLOSE}, /* the second try fails for good */
        {.does = END_OF_SCRIPT}};
    play(script);
    assert_int_equal(get(0)->body, 1);
    struct asked *a = get(1);
    assert_int_equal(a->err, 0);
    assert_int_equal(a->body, 2);
    assert_false(a->reused);
    assert_int_equal(get(2)->err, ERR_UP_CLOSED);
    assert_int_equal(atomic_load(&core_counters(rig.core)->upstream_retries), 2);
    played(3, 5);
}

/* After a byte of the answer nothing is sent again. */
static void test_closed_in_the_answer(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},        {.does = READ},  {SAY, LENGTH(1) "a", 0}, {.does = READ},
        {SAY, "HTTP/1.1 ", 0}, {.does = CLOSE}, {.does = END_OF_SCRIPT}};
    play(script);
    assert_int_equal(get(0)->err, 0);
    assert_int_equal(get(1)->err, ERR_UP_CLOSED);
    assert_true(asked[1].reused);
    played(1, 2);
}

/* Closed while it was idle; and an answer with more behind it, which must not be taken for the next answer. */
static void test_not_used_again(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},
        {.does = READ},
        {SAY, LENGTH(1) "a", 0},
        {.does = CLOSE}, /* idle and closed */
        {.does = NEXT},
        {.does = READ},
        {SAY, LENGTH(1) "a" LENGTH(3) "bad", 0},
        {.does = NEXT},
        {.does = READ},
        {SAY, LENGTH(0) LENGTH(3) "bad", 0},
        {.does = NEXT},
        {.does = READ},
        {SAY, "HTTP/1.1 304 No\r\n\r\n" LENGTH(3) "bad", 0},
        {.does = NEXT},
        {.does = READ},
        {SAY, CHUNKED "1\r\na\r\n0\r\n\r\n" LENGTH(3) "bad", 0},
        {.does = NEXT},
        {.does = READ},
        {SAY, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", 0},
        {.does = NEXT},
        {.does = READ},
        {SAY, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 0},
        {.does = NEXT},
        {.does = READ},
        {SAY, LENGTH(2) "ab", 0},
        {.does = END_OF_SCRIPT}};
    play(script);
    for (unsigned i = 0; i < 8; i++) {
        struct asked *a = get(i);
        assert_int_equal(a->err, 0);
        assert_true(a->body <= 2 && a->pattern_ok);
        if (i > 1) /* the first one's end may be seen before or after the request */
            assert_false(a->reused);
    }
    assert_int_equal(asked[7].body, 2);
    sem_post(&sp.go);
    pthread_join(sp.thread, NULL);
    assert_int_equal(sp.connections, 8);
}

/* The same, but with a reader that takes exactly the answer's bytes out of what came with the head. */
static void test_more_behind_a_small_read(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(4) "abcd" LENGTH(3) "bad", 0},
        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(4) "abcd", 0},
        {.does = END_OF_SCRIPT}};
    read_size = 4;
    play(script);
    assert_int_equal(get(0)->body, 4);
    struct asked *a = get(1);
    assert_int_equal(a->body, 4);
    assert_true(a->pattern_ok);
    assert_false(a->reused);
    played(2, 2);
}

/* ---- bodies that nobody reads ---- */

static void get_head(unsigned i)
{
    struct range r = {.from = i, .n = 1, .stop_at_head = true};
    rig_do(&rig, do_call, &r);
    finish(i, 1);
    assert_int_equal(asked[i].err, 0);
}

#define REFUSED "HTTP/1.1 401 Unauthorized\r\n"

/* The next call has the same connection, whether the rest was there already or comes a moment later. */
static void test_a_little_that_is_not_read(void **state)
{
    (void)state;
    static const char *const whole[] = {
        REFUSED "Content-Length: 5\r\n\r\nhello",
        REFUSED "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: r\r\n\r\n",
    };
    static struct act script[] = {
        {.does = NEXT},        {.does = READ}, {SAY, NULL, 0},          {.does = READ},
        {SAY, NULL, 0},        {.does = READ}, {SAY, NULL, 0},          {.does = NAP},
        {SAY, NULL, 0},        {.does = READ}, {SAY, LENGTH(9000), 0},  {.does = NAP},
        {PATTERN, NULL, 9000}, {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    script[2].text = whole[0];
    script[4].text = whole[1];
    script[6].text = REFUSED "Transfer-Encoding: chunked\r\n\r\n5\r\nhe";
    script[8].text = "llo\r\n0\r\n\r\n";
    max_connections = 1; /* whoever comes meanwhile waits for it */
    play(script);
    for (unsigned i = 0; i < 4; i++) {
        get_head(i);
        assert_int_equal(asked[i].reused, i > 0);
    }
    struct asked *a = get(4);
    assert_int_equal(a->body, 1);
    assert_true(a->reused);
    played(1, 5);
}

/* Too much, too late, broken, followed by more: the connection is closed. */
static void test_a_rest_that_is_not_worth_it(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(20000), 0},
                                        {.does = GONE},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, CHUNKED "fffff\r\n", 0},
                                        {.does = ZEROS},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(10) "hello", 0},
                                        {.does = GONE}, /* 300 ms later */
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, CHUNKED "5\r\nhelloX", 0},
                                        {.does = GONE},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(5) "hello, and more", 0},
                                        {.does = GONE},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(10) "hello", 0},
                                        {.does = CLOSE},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(1) "a", 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    max_connections = 1;
    for (unsigned i = 0; i < 6; i++) {
        get_head(i);
        assert_false(asked[i].reused);
    }
    assert_int_equal(get(6)->body, 1);
    assert_false(asked[6].reused);
    played(7, 7);
}

static void do_drain(void *arg);

static void test_drain_while_a_rest_is_read(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(10) "hello", 0},
                                        {.does = GONE},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    get_head(0);
    rig_do(&rig, do_drain, NULL);
    played(1, 1);
}

/* ---- the number of connections ---- */

static const struct act one_at_a_time[] = {
    {.does = NEXT}, {.does = WAIT},          {.does = READ},         {SAY, LENGTH(1) "a", 0},
    {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = READ},         {SAY, LENGTH(1) "a", 0},
    {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};

static void test_queue_in_order(void **state)
{
    (void)state;
    max_connections = 1;
    play(one_at_a_time);
    start(0, 4);
    sem_post(&sp.go);
    finish(0, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(asked[i].err, 0);
        assert_int_equal(asked[i].order, i + 1);
    }
    played(1, 4);
}

/* A call that is not bulk does not wait behind those that are, and leaves them theirs. */

static void do_end_first(void *arg)
{
    (void)arg;
    call_end(&asked[0].call);
    asked[0].ended = true;
}

static void test_bulk_is_overtaken(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},           {.does = READ},          {.does = NEXT},
                                        {.does = READ},           {SAY, LENGTH(1) "a", 0}, {.does = READ},
                                        {SAY, LENGTH(2) "ab", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    max_connections = 2;
    bulk = true;
    start(0, 1);
    sent(0);
    start(1, 1);
    bulk = false;
    start(2, 1);
    finish(2, 1);
    assert_int_equal(asked[2].err, 0);
    assert_int_equal(asked[2].body, 1);
    assert_false(asked[1].ended); /* a connection is idle now, and still one is busy */
    rig_do(&rig, do_end_first, NULL);
    finish(1, 1);
    assert_int_equal(asked[1].err, 0);
    assert_int_equal(asked[1].body, 2);
    assert_true(asked[1].reused);
    played(2, 3);
}

/* The limit holds while the name is still being looked up. */
static void test_limit_while_resolving(void **state)
{
    (void)state;
    max_connections = 1;
    host = "localhost";
    play(one_at_a_time);
    start(0, 4);
    sem_post(&sp.go);
    finish(0, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(asked[i].err, 0);
    played(1, 4);
}

static void test_queue_timeout(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT}, {.does = READ}, {.does = WAIT}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    max_connections = 1;
    play(script);
    start(0, 1);
    first_byte_ms = 100;
    start(1, 2);
    finish(1, 2);
    assert_int_equal(asked[1].err, ERR_BUSY);
    assert_int_equal(asked[2].err, ERR_BUSY);
    sem_post(&sp.go);
    finish(0, 1);
    assert_int_equal(asked[0].err, 0);
    played(1, 1);
}

/* The one that holds the connection fails, then the first that waits is ended at the moment in which it is given the place: the
 * next one still gets it. */

static void do_end_two(void *arg)
{
    (void)arg;
    call_end(&asked[0].call); /* gives its place to [1], which has not gone on yet */
    asked[0].ended = true;
    call_end(&asked[1].call);
    asked[1].ended = true;
    call_end(&asked[1].call); /* ended already: a no-op */
}

static void test_ended_while_given_the_place(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},         {.does = READ}, {.does = GONE},
                                        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = END_OF_SCRIPT}};
    max_connections = 1;
    play(script);
    start(0, 1);
    sent(0);
    start(1, 2);
    rig_do(&rig, do_end_two, NULL);
    finish(2, 1);
    assert_int_equal(asked[2].err, 0);
    assert_int_equal(asked[2].body, 1);
    sem_post(&sp.go);
    pthread_join(sp.thread, NULL);
}

/* An idle connection that was given to a waiter which is ended at once goes to the next. */
static void test_ended_with_an_idle_connection(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},          {.does = WAIT}, {.does = READ},
                                        {SAY, LENGTH(1) "a", 0}, {.does = READ}, {SAY, LENGTH(2) "ab", 0},
                                        {.does = END_OF_SCRIPT}};
    max_connections = 1;
    end_with_first = true;
    play(script);
    start(0, 3);
    sem_post(&sp.go);
    finish(0, 3);
    assert_int_equal(asked[0].err, 0);
    assert_int_equal(asked[1].events, 0);
    assert_int_equal(asked[2].err, 0);
    assert_int_equal(asked[2].body, 2);
    assert_true(asked[2].reused);
    played(1, 2);
}

/* ---- what is sent ---- */

static bool scratch_clean;

static void do_look_scratch(void *arg)
{
    (void)arg;
    struct span all = span_of(core_scratch(rig.core), CORE_SCRATCH);
    scratch_clean = memmem(all.p, all.n, "secret", 6) == NULL;
}

static void test_post(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT}, {.does = READ},      {SAY, LENGTH(1) "a", 0},
                                        {.does = READ}, {.does = NAP},       {SAY, LENGTH(2) "ab", 0},
                                        {.does = READ}, {SAY, LENGTH(0), 0}, {.does = END_OF_SCRIPT}};
    play(script);
    method = CALL_POST;
    body = SPAN("grant_type=password&password=secret");
    assert_int_equal(get(0)->body, 1);
    assert_int_equal(get(1)->body, 2);
    assert_true(asked[1].reused);
    body = SPAN_NONE;
    assert_int_equal(get(2)->err, 0);
    played(1, 3);
    assert_string_equal(sp.last_request, "POST /t?q HTTP/1.1\r\nHost: registry.test\r\nUser-Agent: larder\r\n"
                                         "Accept-Encoding: identity\r\nX-Field: 1\r\n"
                                         "Content-Type: application/x-www-form-urlencoded\r\n"
                                         "Content-Length: 0\r\n\r\n");
}

static void test_post_body(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT}, {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    method = CALL_POST;
    authorization = SPAN("Basic dTpzZWNyZXQ=");
    body = SPAN("a=b&c=d");
    assert_int_equal(get(0)->err, 0);
    played(1, 1);
    assert_string_equal(sp.last_request, "POST /t?q HTTP/1.1\r\nHost: registry.test\r\nUser-Agent: larder\r\n"
                                         "Accept-Encoding: identity\r\nX-Field: 1\r\n"
                                         "Authorization: Basic dTpzZWNyZXQ=\r\n"
                                         "Content-Type: application/x-www-form-urlencoded\r\n"
                                         "Content-Length: 7\r\n\r\na=b&c=d");
}

/* It may have done its work: it is not sent once more. */
static void test_post_is_not_repeated(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT}, {.does = READ},          {SAY, LENGTH(1) "a", 0},
                                        {.does = READ}, {.does = CLOSE},         {.does = NEXT},
                                        {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    assert_int_equal(get(0)->err, 0);
    method = CALL_POST;
    body = SPAN("a=b");
    assert_int_equal(get(1)->err, ERR_UP_CLOSED);
    assert_true(asked[1].reused);
    assert_int_equal(atomic_load(&core_counters(rig.core)->upstream_retries), 0);
    assert_int_equal(get(2)->err, 0);
    played(2, 3);
}

static void test_authorization(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT}, {.does = READ},           {SAY, LENGTH(1) "a", 0},
                                        {.does = READ}, {.does = CLOSE},          {.does = NEXT},
                                        {.does = READ}, {SAY, LENGTH(2) "ab", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    authorization = SPAN("Bearer secret");
    assert_int_equal(get(0)->err, 0);
    assert_int_equal(get(1)->err, 0); /* the second try shows it, too */
    rig_do(&rig, do_look_scratch, NULL);
    assert_true(scratch_clean);
    played(2, 3);
    assert_string_equal(sp.last_request,
                        "GET /t?q HTTP/1.1\r\nHost: registry.test\r\nUser-Agent: larder\r\n"
                        "Accept-Encoding: identity\r\nX-Field: 1\r\nAuthorization: Bearer secret\r\n\r\n");
}

static void test_secret_answer(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(9) "my secret", 0},
                                        {.does = READ},
                                        {SAY, CHUNKED "6\r\nsecret\r\n1\r\n", 0},
                                        {.does = RESET},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, "no answer but a secret\r\n\r\n", 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    secret = true;
    for (unsigned i = 0; i < 3; i++) {
        struct asked *a = get(i);
        assert_int_equal(a->err, i == 0 ? 0 : i == 1 ? ERR_UP_SHORT : ERR_UP_PROTOCOL);
        rig_do(&rig, do_look_scratch, NULL);
        assert_true(scratch_clean);
    }
    played(2, 3);
}

static void test_long_token(void **state)
{
    (void)state;
    static char token[90000];
    static const struct act script[] = {
        {.does = NEXT}, {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    memset(token, 't', sizeof token);
    authorization = span_of(token, sizeof token);
    assert_int_equal(get(0)->err, 0);
    played(1, 1);
    assert_true(strlen(sp.last_request) > sizeof token);
}

/* ---- ways of dialling ---- */

static void use_proxy(const char *userinfo)
{
    char url[128], buf[256];
    struct str s = STR_INIT(url), why = STR_INIT(buf);
    str_addf(&s, "http://%s127.0.0.1:%u", userinfo, sp.port);
    how.proxies = proxies_one(str_span(&s), &why);
    assert_non_null(how.proxies);
    use_how = &how;
}

static void test_absolute_form(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT}, {.does = READ},          {SAY, LENGTH(1) "a", 0},
                                        {.does = READ}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    use_proxy("u:p@");
    host = "2001:db8::1";
    authorization = SPAN("Bearer b");
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(get(i)->err, 0);
        assert_int_equal(asked[i].reused, i > 0);
    }
    played(1, 2);
    char want[512];
    struct str s = STR_INIT(want);
    str_addf(&s,
             "GET http://[2001:db8::1]:%u/t?q HTTP/1.1\r\nHost: registry.test\r\nUser-Agent: larder\r\n"
             "Accept-Encoding: identity\r\nX-Field: 1\r\nAuthorization: Bearer b\r\n"
             "Proxy-Authorization: Basic dTpw\r\n\r\n",
             sp.port);
    assert_string_equal(sp.last_request, want);
    assert_int_equal(atomic_load(&core_counters(rig.core)->upstream_proxied), 1);
}

static void test_proxy_wants_authentication(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, "HTTP/1.1 407 Who\r\nContent-Length: 3\r\n\r\nWho", 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    use_proxy("");
    assert_int_equal(get(0)->err, ERR_UP_CONNECT);
    assert_non_null(strstr(asked[0].why, "proxy"));
    assert_non_null(strstr(asked[0].why, "407"));
    played(1, 1);
    assert_null(strstr(sp.last_request, "Proxy-Authorization"));
}

/* Connections that were made in one way are not used in another. */
static void test_ways_apart(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},         {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = NEXT},         {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    struct dial_how other = {.serial = dial_serial()};
    const struct dial_how *const ways[] = {NULL, &how, &other};
    for (unsigned i = 0; i < 3; i++) {
        use_how = ways[i];
        assert_false(get(i)->reused);
    }
    sem_post(&sp.go);
    pthread_join(sp.thread, NULL);
    assert_int_equal(sp.connections, 3);
}

static int64_t idle_now(void)
{
    return atomic_load(&core_counters(rig.core)->upstream_idle);
}

static void do_forget(void *arg)
{
    pool_forget(pool, arg);
}

static void test_forget(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},          {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = GONE},          {.does = NEXT}, {.does = READ},
                                        {SAY, LENGTH(1) "a", 0}, {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    struct dial_how other = {.serial = dial_serial()};
    use_how = &how;
    assert_int_equal(get(0)->err, 0);
    rig_do(&rig, do_forget, &how); /* it goes */
    assert_int_equal(idle_now(), 0);
    use_how = &other;
    assert_int_equal(get(1)->err, 0);
    rig_do(&rig, do_forget, &how); /* ... and this one is another's */
    assert_int_equal(idle_now(), 1);
    assert_int_equal(get(2)->err, 0);
    assert_true(asked[2].reused);
    played(2, 3);
}

/* While it is in use: it goes with its call. */
static void test_forget_in_use(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},          {.does = READ}, {.does = WAIT},
                                        {SAY, LENGTH(1) "a", 0}, {.does = GONE}, {.does = END_OF_SCRIPT}};
    play(script);
    use_how = &how;
    start(0, 1);
    sent(0);
    rig_do(&rig, do_forget, &how);
    sem_post(&sp.go);
    finish(0, 1);
    assert_int_equal(asked[0].err, 0);
    assert_int_equal(idle_now(), 0);
    played(1, 1);
}

/* Nobody answers: the message tells for what it waited. */
static void test_connect_timeout(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fill[8];
    struct resolve_addr *to = &addresses[0].addr;
    addresses[0].host = SPAN("r.test");
    to->u.v4 = loopback(0);
    to->len = sizeof to->u.v4;
    socklen_t n = to->len;
    MUST(fd >= 0 && bind(fd, &to->u.sa, n) == 0 && listen(fd, 0) == 0 && getsockname(fd, &to->u.sa, &n) == 0);
    for (unsigned i = 0; i < ARRAY_LEN(fill); i++) { /* the queue is full; what comes then is swallowed */
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        MUST(fill[i] >= 0 && (connect(fill[i], &to->u.sa, n) == 0 || errno == EINPROGRESS));
    }
    how.n_addresses = 1;
    use_how = &how;
    host = "r.test";
    connect_ms = 100;
    assert_int_equal(get(0)->err, ERR_UP_TIMEOUT);
    char want[128];
    struct str s = STR_INIT(want);
    str_addf(&s, "no connection in time, waiting for: a connection to 127.0.0.1:%u",
             ntohs(to->u.v4.sin_port));
    assert_string_equal(asked[0].why, want);
    for (unsigned i = 0; i < ARRAY_LEN(fill); i++)
        close(fill[i]);
    close(fd);
}

/* ---- TLS ---- */

static void tls_open(void)
{
    struct sockaddr_in to = loopback(sp.port);
    front_start(&front, &to);
    how.trust = front_trust("root");
    use_how = &how;
    use_tls = true;
}

static int64_t handshakes(void)
{
    return atomic_load(&core_counters(rig.core)->upstream_tls_handshakes);
}

static int64_t resumed(void)
{
    return atomic_load(&core_counters(rig.core)->upstream_tls_resumed);
}

static void test_tls_kept_alive(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT},          {.does = READ},          {SAY, LENGTH(300000), 0},
        {PATTERN, NULL, 300000}, {.does = READ},          {SAY, CHUNKED "3\r\nabc\r\n0\r\n\r\n", 0},
        {.does = READ},          {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    play(script);
    tls_open();
    static const uint64_t bodies[] = {300000, 3, 1};
    for (unsigned i = 0; i < ARRAY_LEN(bodies); i++) {
        struct asked *a = get(i);
        assert_int_equal(a->err, 0);
        assert_int_equal(a->body, bodies[i]);
        assert_true(a->pattern_ok);
        assert_int_equal(a->reused, i > 0);
    }
    assert_int_equal(handshakes(), 1);
    played(1, 3);
    front_stop(&front);
}

/* The session outlives the connection, but not the way of dialling. */
static void test_tls_resumed(void **state)
{
    (void)state;
#define CLOSING "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"
    static const struct act script[] = {
        {.does = NEXT},    {.does = READ}, {SAY, CLOSING, 0}, {.does = NEXT},    {.does = READ},
        {SAY, CLOSING, 0}, {.does = NEXT}, {.does = READ},    {SAY, CLOSING, 0}, {.does = END_OF_SCRIPT}};
    play(script);
    tls_open();
    assert_int_equal(get(0)->err, 0);
    assert_int_equal(get(1)->err, 0);
    assert_int_equal(handshakes(), 2);
    assert_int_equal(resumed(), 1);
    rig_do(&rig, do_forget, &how);
    assert_int_equal(get(2)->err, 0);
    assert_int_equal(handshakes(), 3);
    assert_int_equal(resumed(), 1);
    played(3, 3);
    front_stop(&front);
}

static int64_t origins(void)
{
    return atomic_load(&core_counters(rig.core)->upstream_origins);
}

/* Calls to origins that were not asked before. */
static void get_elsewhere(unsigned n, int err)
{
    for (unsigned i = 0; i < n; i++) {
        memset(&asked[0], 0, sizeof asked[0]);
        how.serial = dial_serial();
        assert_int_equal(get(0)->err, err);
    }
}

/* However many origins strangers name: of those that there is nothing to keep of nothing is kept, and few of the others. */
static void test_many_origins(void **state)
{
    (void)state;
    struct sockaddr_in to = loopback(sp.port);
    close(sp.listener); /* whom the front connects to, so that it closes */
    front_start(&front, &to);
    how.trust = front_trust("other");
    use_how = &how;
    use_tls = true;
    get_elsewhere(20, ERR_UP_TLS);
    assert_int_equal(origins(), 0);
    trust_unref(how.trust);
    how.trust = front_trust("root");
    get_elsewhere(1, ERR_UP_CLOSED);
    uint64_t first = how.serial;
    get_elsewhere(255, ERR_UP_CLOSED);
    assert_int_equal(origins(), 256);
    get_elsewhere(10, ERR_UP_CLOSED);
    assert_int_equal(origins(), 256);
    assert_int_equal(resumed(), 0);
    for (unsigned i = 0; i < 2;
         i++) { /* the last one has its session; the first one made room, and makes another go */
        memset(&asked[0], 0, sizeof asked[0]);
        how.serial = i == 0 ? how.serial : first;
        assert_int_equal(get(0)->err, ERR_UP_CLOSED);
        assert_int_equal(resumed(), 1);
    }
    assert_int_equal(origins(), 256);
    rig_do(&rig, do_forget, &how);
    assert_int_equal(origins(), 255);
    rig_do(&rig, do_pool_free, NULL);
    assert_int_equal(origins(), 0);
    rig_do(&rig, do_pool, NULL);
    front_stop(&front);
    sp.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* A body that ends with the connection is whole only after close_notify; one with a length needs none. */
static void test_tls_cut(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},
                                        {.does = READ},
                                        {SAY, "HTTP/1.1 200 OK\r\n\r\nabcdef", 0},
                                        {.does = CLOSE},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, "HTTP/1.1 200 OK\r\n\r\nabcdef", 0},
                                        {.does = NAP},
                                        {.does = RESET},
                                        {.does = NEXT},
                                        {.does = READ},
                                        {SAY, LENGTH(6) "abcdef", 0},
                                        {.does = NAP},
                                        {.does = RESET},
                                        {.does = END_OF_SCRIPT}};
    play(script);
    tls_open();
    static const int errs[] = {0, ERR_UP_SHORT, 0};
    for (unsigned i = 0; i < ARRAY_LEN(errs); i++) {
        struct asked *a = get(i);
        assert_int_equal(a->status, 200);
        assert_int_equal(a->body, 6);
        assert_int_equal(a->err, errs[i]);
    }
    assert_non_null(strstr(asked[1].why, "close_notify"));
    played(3, 3);
    front_stop(&front);
}

static void test_tls_not_trusted(void **state)
{
    (void)state;
    struct sockaddr_in to = loopback(sp.port);
    front_start(&front, &to);
    how.trust = front_trust("other");
    use_how = &how;
    use_tls = true;
    assert_int_equal(get(0)->err, ERR_UP_TLS);
    assert_true(span_starts(span_str(asked[0].why), SPAN("the TLS handshake with 127.0.0.1:")));
    use_how = NULL;
    assert_int_equal(get(1)->err, ERR_UP_TLS);
    front_stop(&front);
}

/* ---- the number of calls that wait ---- */

#define MANY 4100

static struct call many[MANY];
static unsigned n_refused;

static void on_many(struct call *call)
{
    MUST(call->state == CALL_FAILED && call->err == ERR_BUSY);
    n_refused++;
    call_end(call);
}

static void do_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < MANY; i++) {
        many[i] = asked[0].call;
        many[i].event = on_many;
        call_start(pool, &many[i]);
    }
}

static void do_end_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < MANY; i++)
        call_end(&many[i]);
}

static void do_look_refused(void *arg)
{
    (void)arg;
    looked = n_refused == MANY - 4096;
}

static void test_too_many_wait(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT}, {.does = READ}, {.does = WAIT}, {SAY, LENGTH(1) "a", 0}, {.does = END_OF_SCRIPT}};
    max_connections = 1;
    n_refused = 0;
    play(script);
    start(0, 1);
    sent(0);
    rig_do(&rig, do_many, NULL);
    rig_until(&rig, do_look_refused, NULL, &looked);
    rig_do(&rig, do_end_many, NULL);
    assert_int_equal(n_refused, MANY - 4096);
    sem_post(&sp.go);
    finish(0, 1);
    assert_int_equal(asked[0].err, 0);
    played(1, 1);
}

/* ---- call_end in every state, draining ---- */

static void do_end_all(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < CALLS; i++) {
        if (asked[i].ended || asked[i].call.event == NULL)
            continue;
        call_end(&asked[i].call);
        asked[i].ended = true;
    }
}

static void do_call_and_end(void *arg)
{
    do_call(arg);
    do_end_all(NULL);
}

static void test_end_in_every_state(void **state)
{
    (void)state;
    static const struct act script[] = {
        {.does = NEXT}, {.does = READ}, {SAY, LENGTH(10) "abc", 0}, {.does = GONE}, {.does = END_OF_SCRIPT}};
    struct range r = {.from = 0, .n = 3};
    rig_do(&rig, do_call_and_end, &r); /* not begun */
    host = "localhost";
    start(3, 3); /* looking up, connecting or sent */
    rig_do(&rig, do_end_all, NULL);
    host = "127.0.0.1";
    max_connections = 1;
    start(6, 3); /* sent, and waiting */
    rig_do(&rig, do_end_all, NULL);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(asked[i].events, 0);
    /* whatever connections those made are behind us */
    close(sp.listener);
    struct sockaddr_in a = loopback(0);
    socklen_t n = sizeof a;
    sp.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(bind(sp.listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(sp.listener, 64) == 0);
    MUST(getsockname(sp.listener, (struct sockaddr *)&a, &n) == 0);
    sp.port = ntohs(a.sin_port);
    play(script);
    struct range headed = {.from = 9, .n = 1, .stop_at_head = true};
    rig_do(&rig, do_call, &headed); /* ended in its own event, with the body on its way */
    finish(9, 1);
    assert_int_equal(asked[9].status, 200);
    played(1, 1);
}

static void do_drain(void *arg)
{
    (void)arg;
    pool_drain(pool);
}

static void test_drain(void **state)
{
    (void)state;
    static const struct act script[] = {{.does = NEXT},          {.does = READ}, {SAY, LENGTH(1) "a", 0},
                                        {.does = GONE},          {.does = NEXT}, {.does = READ},
                                        {SAY, LENGTH(1) "a", 0}, {.does = GONE}, {.does = END_OF_SCRIPT}};
    play(script);
    assert_int_equal(get(0)->err, 0);
    rig_do(&rig, do_drain, NULL); /* the idle one goes */
    assert_int_equal(idle_now(), 0);
    assert_int_equal(get(1)->err, 0);
    assert_int_equal(idle_now(), 0);
    played(2, 2); /* and the second was not kept */
}

/* While connections are being made: they go on to their end. */
static void test_drain_while_connecting(void **state)
{
    (void)state;
    max_connections = 1;
    play(one_at_a_time);
    start(0, 1);
    rig_do(&rig, do_drain, NULL);
    sem_post(&sp.go);
    finish(0, 1);
    assert_int_equal(asked[0].err, 0);
    assert_int_equal(asked[0].body, 1);
    sem_post(&sp.go);
    pthread_join(sp.thread, NULL);
    assert_int_equal(sp.connections, 1);
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
        TEST(test_kept_alive),
        TEST(test_head),
        TEST(test_body_with_the_head),
        TEST(test_until_the_end),
        TEST(test_much_at_once),
        TEST(test_cut_at_the_heads_end),
        TEST(test_faults),
        TEST(test_reset_in_the_body),
        TEST(test_timeouts),
        TEST(test_no_connection),
        TEST(test_closed_under_the_request),
        TEST(test_closed_in_the_answer),
        TEST(test_not_used_again),
        TEST(test_more_behind_a_small_read),
        TEST(test_a_little_that_is_not_read),
        TEST(test_a_rest_that_is_not_worth_it),
        TEST(test_drain_while_a_rest_is_read),
        TEST(test_queue_in_order),
        TEST(test_bulk_is_overtaken),
        TEST(test_limit_while_resolving),
        TEST(test_queue_timeout),
        TEST(test_ended_while_given_the_place),
        TEST(test_ended_with_an_idle_connection),
        TEST(test_post),
        TEST(test_post_body),
        TEST(test_post_is_not_repeated),
        TEST(test_authorization),
        TEST(test_secret_answer),
        TEST(test_long_token),
        TEST(test_absolute_form),
        TEST(test_proxy_wants_authentication),
        TEST(test_ways_apart),
        TEST(test_forget),
        TEST(test_forget_in_use),
        TEST(test_connect_timeout),
        TEST(test_tls_kept_alive),
        TEST(test_tls_resumed),
        TEST(test_many_origins),
        TEST(test_tls_cut),
        TEST(test_tls_not_trusted),
        TEST(test_too_many_wait),
        TEST(test_end_in_every_state),
        TEST(test_drain),
        TEST(test_drain_while_connecting),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
