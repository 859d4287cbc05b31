/* The server, over real sockets: a handler whose answers are chosen by the request's target, and a client that is this
 * test. */
#include "rig.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "http/server.h"

#define HEADER_MS 400
#define IDLE_MS   1500
#define SEND_MS   500
#define FILE_SIZE (3u << 20)

/* ---- the handler ---- */

struct piece {
    enum body_status status;
    uint64_t len;
    bool file;
};

struct plan {
    const char *target;
    uint64_t length;
    struct piece
        pieces[6]; /* ends at the first that is not a piece or a wait, or at the end of the array with END */
};

#define P(n)                                                                                                 \
    {                                                                                                        \
        BODY_PIECE, n, false                                                                                 \
    }
#define F(n)                                                                                                 \
    {                                                                                                        \
        BODY_PIECE, n, true                                                                                  \
    }
#define W                                                                                                    \
    {                                                                                                        \
        BODY_WAIT, 0, false                                                                                  \
    }
#define END                                                                                                  \
    {                                                                                                        \
        BODY_END, 0, false                                                                                   \
    }
#define FAIL                                                                                                 \
    {                                                                                                        \
        BODY_FAIL, 0, false                                                                                  \
    }

static const struct plan plans[] = {
    {"/memory", 1000, {P(1000), END}},
    {"/pieces", 600000, {P(1), P(2), P(99997), W, P(500000), END}},
    {"/waits", 30, {W, P(10), W, P(20), W, END}},
    {"/empty", 0, {END}},
    {"/chunked", LENGTH_UNKNOWN, {P(1), P(70000), END}},
    {"/chunked-waits", LENGTH_UNKNOWN, {W, P(10), W, P(5), W, END}},
    {"/chunked-empty", LENGTH_UNKNOWN, {END}},
    {"/chunked-big", LENGTH_UNKNOWN, {P(2500000), P(1), END}},
    {"/chunked-file", LENGTH_UNKNOWN, {F(2500000), P(3), F(10), END}},
    {"/chunked-fail", LENGTH_UNKNOWN, {P(50), W, FAIL}},
    {"/fail-first", 10, {FAIL}},
    {"/fail-later", 100, {P(50), W, FAIL}},
    {"/short", 100, {P(40), END}},
    {"/long", 100, {P(50), P(200), END}},
    {"/file", FILE_SIZE, {F(FILE_SIZE), END}},
    {"/file-nudged", FILE_SIZE, {F(FILE_SIZE), END}},
    {"/file-small", 100, {F(100), END}},
    {"/file-and-memory", 300000, {P(100000), F(100000), W, P(50000), F(50000), END}},
    {"/file-short", FILE_SIZE + 1000, {F(FILE_SIZE + 1000), END}},
    {"/huge", 1u << 30, {P(1u << 30), END}},
    {"/stuck", 100, {P(10), W, W, W, W, W}},
};

struct source {
    struct body base;
    const struct plan *plan;
    unsigned at;
    uint64_t in_piece, pos;
    bool waiting, stuck, nudged;
    struct defer wake, nudge;
    struct server_rig *rig;
};

struct held {
    struct exchange *x;
    struct defer answer;
    bool gone;
};

struct server_rig {
    struct rig rig;
    struct server *server;
    uint16_t port;
    int file;
    char *memory;
    struct held held[4];
    /* what happened, read by the test through rig_do */
    unsigned bodies, requests, finished, cut, gone;
    unsigned faults[600];
    uintptr_t stack_low, stack_high;
    unsigned stack;
    bool over;
    unsigned connections, want;
};

static struct server_rig sr;

static void on_source_wake(struct defer *d)
{
    struct source *s = CONTAINER_OF(d, struct source, wake);
    s->waiting = false;
    s->at++;
    s->base.wake(s->base.wake_arg);
}

/* A wake that nobody needs, while the sender may be reading ahead. */
static void on_source_nudge(struct defer *d)
{
    struct source *s = CONTAINER_OF(d, struct source, nudge);
    s->base.wake(s->base.wake_arg);
}

static enum body_status source_pull(struct body *b, struct body_piece *piece)
{
    struct source *s = CONTAINER_OF(b, struct source, base);
    while (s->at < ARRAY_LEN(s->plan->pieces)) {
        const struct piece *p = &s->plan->pieces[s->at];
        if (p->status == BODY_WAIT) {
            if (!s->waiting && !s->stuck)
                defer_start(sr.rig.core, &s->wake);
            s->waiting = true;
            return BODY_WAIT;
        }
        if (p->status != BODY_PIECE)
            return p->status;
        if (s->in_piece == p->len) {
            s->in_piece = 0;
            s->at++;
            continue;
        }
        *piece = (struct body_piece){.len = p->len - s->in_piece};
        if (p->file) {
            if (s->nudged)
                defer_start(sr.rig.core, &s->nudge);
            piece->fd = sr.file;
            piece->off = (off_t)s->pos;
        } else {
            piece->mem = sr.memory + s->pos % 26;
            if (piece->len > 1u << 22)
                piece->len = 1u << 22;
        }
        return BODY_PIECE;
    }
    return BODY_END;
}

static void source_took(struct body *b, uint64_t n)
{
    struct source *s = CONTAINER_OF(b, struct source, base);
    MUST(!s->waiting && n > 0 && n <= s->plan->pieces[s->at].len - s->in_piece);
    s->in_piece += n;
    s->pos += n;
}

static void source_stop(struct body *b)
{
    struct source *s = CONTAINER_OF(b, struct source, base);
    defer_cancel(&s->wake);
    defer_cancel(&s->nudge);
    sr.bodies--;
    free(s);
}

static struct body *source_new(const struct plan *plan)
{
    static const struct body_ops ops = {source_pull, source_took, source_stop};
    struct source *s = calloc(1, sizeof *s);
    MUST(s != NULL);
    s->base.ops = &ops;
    s->plan = plan;
    s->stuck = strcmp(plan->target, "/stuck") == 0;
    s->nudged = strcmp(plan->target, "/file-nudged") == 0;
    defer_init(&s->wake, on_source_wake);
    defer_init(&s->nudge, on_source_nudge);
    sr.bodies++;
    return &s->base;
}

static void on_finished(struct exchange *x)
{
    MUST(x->complete == (x->why == NULL));
    sr.finished++;
    sr.cut += !x->complete;
}

static struct held *held_of(struct exchange *x)
{
    for (unsigned i = 0; i < ARRAY_LEN(sr.held); i++) {
        if (sr.held[i].x == x)
            return &sr.held[i];
    }
    return NULL;
}

static void answer_text(struct exchange *x, unsigned status, struct span text)
{
    exchange_begin(x, status);
    exchange_field(x, SPAN("X-Test"), SPAN("yes"));
    exchange_send(x, text.n, body_of_text(text), false);
}

static void on_held_answer(struct defer *d)
{
    struct held *h = CONTAINER_OF(d, struct held, answer);
    struct exchange *x = h->x;
    char text[128];
    struct str s = STR_INIT(text);
    str_add(&s, x->req.target);
    h->x = NULL;
    answer_text(x, 200, str_span(&s));
}

/* /drop: gives up at once; /late: answers all the same; else the test decides later. */
static void on_gone(struct exchange *x)
{
    struct held *h = held_of(x);
    MUST(h != NULL && !h->gone);
    sr.gone++;
    h->gone = true;
    if (span_starts(x->req.target, SPAN("/hold-drop"))) {
        h->x = NULL;
        defer_cancel(&h->answer);
        exchange_drop(x);
    } else if (span_starts(x->req.target, SPAN("/hold-late"))) {
        defer_start(sr.rig.core, &h->answer);
    }
}

static struct held *hold(struct exchange *x)
{
    struct held *h = held_of(NULL);
    MUST(h != NULL);
    *h = (struct held){.x = x};
    defer_init(&h->answer, on_held_answer);
    x->gone = on_gone;
    return h;
}

static void note_stack(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (sr.stack_low == 0 || here < sr.stack_low)
        sr.stack_low = here;
    if (here > sr.stack_high)
        sr.stack_high = here;
    sr.stack = (unsigned)(sr.stack_high - sr.stack_low);
}

static void answer_special(struct exchange *x)
{
    struct span target = x->req.target;
    if (span_eq(target, SPAN("/304"))) {
        exchange_begin(x, 304);
        exchange_send(x, 1000, source_new(&plans[0]), false);
    } else if (span_eq(target, SPAN("/nothing"))) {
        exchange_begin(x, 200);
        exchange_send(x, LENGTH_UNKNOWN, NULL, false);
    } else if (span_eq(target, SPAN("/close"))) {
        exchange_begin(x, 200);
        exchange_send(x, 2, body_of_text(SPAN("ok")), true);
    } else if (span_eq(target, SPAN("/drop"))) {
        exchange_drop(x);
    } else if (span_eq(target, SPAN("/begin-twice"))) {
        exchange_begin(x, 200);
        exchange_field(x, SPAN("X-First"), SPAN("1"));
        answer_text(x, 404, SPAN("second"));
    } else if (span_eq(target, SPAN("/head-too-large"))) {
        char big[EXCHANGE_RESPONSE_MAX];
        memset(big, 'x', sizeof big);
        exchange_begin(x, 200);
        exchange_field(x, SPAN("X"), span_of(big, sizeof big));
        exchange_send(x, 1000, source_new(&plans[0]), false);
    } else {
        answer_text(x, 200, target);
    }
}

static void on_request(struct exchange *x, void *arg)
{
    MUST(arg == &sr);
    note_stack();
    sr.requests++;
    x->finished = on_finished;
    if (x->fault != 0) {
        sr.faults[x->fault]++;
        answer_text(x, (unsigned)x->fault, SPAN("fault"));
        return;
    }
    if (x->req.method == H1_OTHER) {
        answer_text(x, 405, SPAN("no"));
        return;
    }
    if (span_starts(x->req.target, SPAN("/hold"))) {
        (void)hold(x);
        return;
    }
    if (span_starts(x->req.target, SPAN("/later"))) {
        defer_start(sr.rig.core, &hold(x)->answer);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
        if (span_eq(x->req.target, span_str(plans[i].target))) {
            exchange_begin(x, 200);
            exchange_send(x, plans[i].length, source_new(&plans[i]), false);
            return;
        }
    }
    answer_special(x);
}

/* ---- setting up ---- */

static void make_content(void)
{
    char name[] = "server-test-XXXXXX";
    sr.memory = malloc((1u << 22) + 26);
    assert_non_null(sr.memory);
    for (size_t i = 0; i < (1u << 22) + 26; i++)
        sr.memory[i] = pattern(i);
    sr.file = mkstemp(name);
    assert_true(sr.file >= 0);
    unlink(name);
    assert_int_equal(write(sr.file, sr.memory, FILE_SIZE), FILE_SIZE);
    assert_int_equal(fsync(sr.file), 0);
}

static void do_start(void *arg)
{
    struct server_config c = {.header_ms = HEADER_MS,
                              .idle_ms = IDLE_MS,
                              .send_ms = SEND_MS,
                              .max_connections = 20,
                              .request = on_request,
                              .arg = &sr};
    sr.server = server_new(sr.rig.core, &c);
    (void)server_listen(sr.server, *(int *)arg, NULL);
}

static int setup(void **state)
{
    int fd;
    char text[256];
    struct str why = STR_INIT(text);
    (void)state;
    memset(&sr, 0, sizeof sr);
    rig_start(&sr.rig);
    make_content();
    if (!listen_open(SPAN("127.0.0.1"), 0, false, 1, &fd, &sr.port, &why))
        return -1;
    rig_do(&sr.rig, do_start, &fd);
    return 0;
}

static void do_connections(void *arg)
{
    (void)arg;
    sr.connections = server_connections(sr.server);
    sr.over = sr.connections == sr.want;
}

static void until_connections(unsigned n)
{
    sr.want = n;
    rig_until(&sr.rig, do_connections, NULL, &sr.over);
}

static void do_abort(void *arg)
{
    (void)arg;
    server_abort(sr.server);
}

static void do_free(void *arg)
{
    (void)arg;
    server_free(sr.server);
}

static int teardown(void **state)
{
    (void)state;
    rig_do(&sr.rig, do_abort, NULL);
    until_connections(0);
    rig_do(&sr.rig, do_free, NULL);
    MUST(sr.bodies == 0);
    for (unsigned i = 0; i < ARRAY_LEN(sr.held); i++)
        MUST(sr.held[i].x == NULL);
    MUST(atomic_load(&core_counters(sr.rig.core)->connections_open) == 0);
    rig_stop(&sr.rig);
    close(sr.file);
    free(sr.memory);
    return 0;
}

struct look {
    const unsigned *at;
    unsigned value;
};

static void do_look(void *arg)
{
    struct look *l = arg;
    l->value = *l->at;
}

static unsigned count_of(const unsigned *n)
{
    struct look l = {.at = n};
    rig_do(&sr.rig, do_look, &l);
    return l.value;
}

static void until_count(const unsigned *n, unsigned at_least)
{
    while (count_of(n) < at_least)
        usleep(2000);
}

/* ---- the client ---- */

struct peer {
    int fd;
    char buf[65536];
    size_t n, at;
    struct h1 parser;
    struct h1_head head;
    char head_buf[16384];
};

enum how { WHOLE, CUT, RESET };

struct answer {
    unsigned status;
    enum how how;
    uint64_t body;
    bool pattern_ok, keep;
    char text[64]; /* the body's start */
};

static void peer_open(struct peer *p)
{
    p->fd = peer_connect(sr.port);
    p->n = p->at = 0;
    p->head.buf = p->head_buf;
    p->head.cap = sizeof p->head_buf;
}

static void answer_bytes(struct answer *a, struct span bytes)
{
    for (size_t i = 0; i < bytes.n; i++) {
        a->pattern_ok = a->pattern_ok && bytes.p[i] == pattern(a->body + i);
        if (a->body + i < sizeof a->text - 1)
            a->text[a->body + i] = bytes.p[i];
    }
    a->body += bytes.n;
}

/* Reads one answer. status 0: not even a head came. */
static struct answer peer_answer(struct peer *p, bool to_head)
{
    struct answer a = {.pattern_ok = true, .how = CUT};
    h1_init_response(&p->parser, &p->head, to_head);
    for (;;) {
        enum h1_event e;
        p->at += h1_feed(&p->parser, p->buf + p->at, p->n - p->at, &e);
        if (e == H1_BODY)
            answer_bytes(&a, p->parser.body);
        if (e == H1_HEADED) {
            a.status = p->head.status;
            a.keep = p->head.keep_alive;
        }
        if (e == H1_ERROR)
            fail_msg("malformed answer: %s", h1_error(&p->parser));
        if (e == H1_DONE) {
            a.how = WHOLE;
            return a;
        }
        if (e != H1_MORE)
            continue;
        ssize_t got = recv(p->fd, p->buf, sizeof p->buf, 0);
        p->at = 0;
        p->n = got > 0 ? (size_t)got : 0;
        if (got < 0)
            a.how = RESET;
        else if (got == 0 && a.status != 0 && h1_eof(&p->parser) == H1_DONE)
            a.how = WHOLE;
        if (got <= 0)
            return a;
    }
}

static bool peer_ended(struct peer *p) /* a clean end, and nothing before it */
{
    return p->at == p->n && recv(p->fd, p->buf, 1, 0) == 0;
}

static struct answer ask(struct peer *p, const char *target)
{
    char text[256];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
    peer_say(p->fd, text);
    return peer_answer(p, false);
}

/* ---- answers ---- */

static void test_keep_alive(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    struct answer a = ask(&p, "/hello");
    assert_int_equal(a.status, 200);
    assert_string_equal(a.text, "/hello");
    assert_true(a.keep);
    assert_int_equal(h1_get(&p.head, SPAN("date")).n, 29);
    assert_int_equal(h1_count(&p.head, SPAN("content-length")), 1);
    peer_say(p.fd, "HEAD /memory HTTP/1.1\r\nHost: a\r\n\r\n");
    a = peer_answer(&p, true);
    assert_int_equal(a.status, 200);
    assert_int_equal(p.head.length, 1000);
    peer_say(p.fd, "HEAD /chunked HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(peer_answer(&p, true).status, 200);
    a = ask(&p, "/304");
    assert_int_equal(a.status, 304);
    assert_int_equal(h1_count(&p.head, SPAN("content-length")) + h1_count(&p.head, SPAN("transfer-encoding")),
                     0);
    a = ask(&p, "/nothing");
    assert_int_equal(a.how, WHOLE);
    assert_true(p.head.has_length && p.head.length == 0);
    a = ask(&p, "/begin-twice");
    assert_int_equal(a.status, 404);
    assert_string_equal(a.text, "second");
    assert_null(h1_get(&p.head, SPAN("x-first")).p);
    assert_int_equal(ask(&p, "/later").how, WHOLE);
    peer_say(p.fd, "GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    a = peer_answer(&p, false);
    assert_int_equal(a.how, WHOLE);
    assert_true(a.keep);
    assert_int_equal(ask(&p, "/again").how, WHOLE);
    peer_say(p.fd, "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    a = peer_answer(&p, false);
    assert_int_equal(a.how, WHOLE);
    assert_false(a.keep);
    assert_true(peer_ended(&p));
    close(p.fd);
    assert_int_equal(count_of(&sr.finished), 10);
    assert_int_equal(count_of(&sr.cut), 0);
}

static void test_bodies(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        uint64_t body;
        enum how how, how10; /* HTTP/1.1, HTTP/1.0 */
    } cases[] = {
        {"/memory", 1000, WHOLE, WHOLE},
        {"/pieces", 600000, WHOLE, WHOLE},
        {"/waits", 30, WHOLE, WHOLE},
        {"/empty", 0, WHOLE, WHOLE},
        {"/chunked", 70001, WHOLE, WHOLE},
        {"/chunked-waits", 15, WHOLE, WHOLE},
        {"/chunked-empty", 0, WHOLE, WHOLE},
        {"/chunked-big", 2500001, WHOLE, WHOLE},
        {"/chunked-file", 2500013, WHOLE, WHOLE},
        {"/chunked-fail", 50, CUT, RESET}, /* until close: a clean end would say that this is all */
        {"/fail-first", 0, CUT, CUT},
        {"/fail-later", 50, CUT, CUT},
        {"/short", 40, CUT, CUT},
        {"/long", 100, WHOLE, WHOLE},
        {"/file", FILE_SIZE, WHOLE, WHOLE},
        {"/file-small", 100, WHOLE, WHOLE},
        {"/file-and-memory", 300000, WHOLE, WHOLE},
        {"/file-short", FILE_SIZE, CUT, CUT},
    };
    static struct peer p;
    unsigned cut = 0;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        peer_open(&p);
        struct answer a = ask(&p, cases[i].target);
        if (a.how != cases[i].how || a.body != cases[i].body || !a.pattern_ok)
            fail_msg("%s: how %d, %llu bytes", cases[i].target, a.how, (unsigned long long)a.body);
        cut += a.how != WHOLE;
        if (a.how == WHOLE) /* and the next one on the same connection */
            assert_string_equal(ask(&p, "/next").text, "/next");
        close(p.fd);
        peer_open(&p);
        char text[100];
        snprintf(text, sizeof text, "GET %s HTTP/1.0\r\n\r\n", cases[i].target);
        peer_say(p.fd, text);
        a = peer_answer(&p, false);
        bool lost = a.how == RESET; /* a reset may take bytes with it */
        if (a.how != cases[i].how10 || (!lost && a.body != cases[i].body) || !a.pattern_ok)
            fail_msg("%s in HTTP/1.0: how %d, %llu bytes", cases[i].target, a.how,
                     (unsigned long long)a.body);
        cut += a.how != WHOLE;
        close(p.fd);
    }
    until_connections(0);
    assert_int_equal(count_of(&sr.cut), cut);
    assert_int_equal(count_of(&sr.bodies), 0);
}

/* A file that is not in memory is read ahead by a job. Neither a client that ends its side meanwhile or sends more,
 * nor a wake may start a second one. */
static void test_cold_file(void **state)
{
    (void)state;
    static struct peer p;
    for (unsigned i = 0; i < 20; i++) {
        (void)posix_fadvise(sr.file, 0, 0, POSIX_FADV_DONTNEED);
        peer_open(&p);
        peer_say(p.fd, "GET /file-nudged HTTP/1.1\r\nHost: a\r\n\r\n");
        if (i % 2 == 0)
            shutdown(p.fd, SHUT_WR);
        else
            peer_say(p.fd, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        struct answer a = peer_answer(&p, false);
        assert_int_equal(a.how, WHOLE);
        assert_int_equal(a.body, FILE_SIZE);
        assert_true(a.pattern_ok);
        if (i % 2 == 0)
            assert_true(peer_ended(&p));
        else
            assert_string_equal(peer_answer(&p, false).text, "/next");
        close(p.fd);
    }
    for (unsigned i = 0; i < 10; i++) { /* leaves in the middle of it */
        (void)posix_fadvise(sr.file, 0, 0, POSIX_FADV_DONTNEED);
        peer_open(&p);
        peer_say(p.fd, "GET /file-nudged HTTP/1.1\r\nHost: a\r\n\r\n");
        peer_reset(p.fd);
    }
    until_connections(0);
}

static void test_head_too_large(void **state)
{
    (void)state;
    struct peer p;
    peer_open(&p);
    struct answer a = ask(&p, "/head-too-large");
    assert_int_equal(a.status, 0);
    assert_int_not_equal(a.how, WHOLE);
    close(p.fd);
    assert_int_equal(count_of(&sr.cut), 1);
    peer_open(&p);
    assert_int_equal(ask(&p, "/drop").status, 0);
    close(p.fd);
    assert_int_equal(count_of(&sr.finished), 1); /* not for what was dropped */
}

/* ---- requests ---- */

static void many(const char *target, unsigned n)
{
    static struct peer p;
    size_t size = n * 64u, at = 0;
    char *all = malloc(size), want[64];
    assert_non_null(all);
    peer_open(&p);
    for (unsigned i = 0; i < n; i++)
        at += (size_t)snprintf(all + at, size - at, "GET %s%u HTTP/1.1\r\nHost: a\r\n\r\n", target, i);
    peer_send(p.fd, all, at);
    for (unsigned i = 0; i < n; i++) {
        snprintf(want, sizeof want, "%s%u", target, i);
        struct answer a = peer_answer(&p, false);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.text, want);
    }
    close(p.fd);
    free(all);
}

static void test_pipelining(void **state)
{
    (void)state;
    many("/now", 1000);
    many("/later", 1000);
    many("/later", 3000);                     /* more than is kept of what a client sends ahead */
    assert_true(count_of(&sr.stack) < 16384); /* flat, however many */
}

static void test_half_closed(void **state)
{
    (void)state;
    struct peer p;
    static const char *const firsts[] = {"/now", "/later", "/hold-"};
    for (size_t k = 0; k < ARRAY_LEN(firsts); k++) {
        char text[512];
        peer_open(&p);
        snprintf(text, sizeof text,
                 "GET %s1 HTTP/1.1\r\nHost: a\r\n\r\nGET /now2 HTTP/1.1\r\nHost: a\r\n\r\nGET /later3 "
                 "HTTP/1.1\r\nHost: "
                 "a\r\n\r\nGET /now4 HTTP/1.1\r\nHost: a\r\n\r\nGET /par",
                 firsts[k]);
        peer_say(p.fd, text);
        shutdown(p.fd, SHUT_WR);
        if (k == 2) { /* the handler takes its time: the end is seen before the answer */
            unsigned all = 9;
            until_count(&sr.requests, all);
            usleep(50000);
            struct defer *d = &sr.held[0].answer;
            rig_do(&sr.rig, (void (*)(void *))on_held_answer, d);
        }
        for (unsigned i = 1; i <= 4; i++) {
            struct answer a = peer_answer(&p, false);
            assert_int_equal(a.how, WHOLE);
            assert_int_equal(a.text[strlen(a.text) - 1], '0' + i);
        }
        assert_true(peer_ended(&p));
        close(p.fd);
    }
    until_connections(0);
    assert_int_equal(count_of(&sr.gone), 0);
}

static void test_request_with_body(void **state)
{
    (void)state;
    struct peer p;
    static char body[200000];
    memset(body, 'b', sizeof body);
    static const char *const heads[] = {
        "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n",
        "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        peer_open(&p);
        peer_say(p.fd, heads[i]);
        if (i < 2)
            peer_send(p.fd, body, sizeof body); /* the answer must survive what we send behind it */
        struct answer a = peer_answer(&p, false);
        assert_int_equal(a.status, 405);
        assert_int_equal(a.how, WHOLE);
        assert_false(a.keep);
        assert_true(peer_ended(&p));
        close(p.fd);
    }
    until_connections(0);
    assert_int_equal(count_of(&sr.requests), 3); /* no byte of a body was taken for a request */
}

/* The server ends the connection while the client is sending its next request: the answer arrives whole all the same. */
static void test_closed_by_the_server(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct peer p;
        peer_open(&p);
        peer_say(p.fd, "GET /close HTTP/1.1\r\nHost: a\r\n\r\nGET /more HTTP/1.1\r\nHost: a\r\n\r\n");
        usleep(1000);
        peer_say(p.fd, "GET /more HTTP/1.1\r\nHost: a\r\n\r\n");
        struct answer a = peer_answer(&p, false);
        assert_int_equal(a.how, WHOLE);
        assert_string_equal(a.text, "ok");
        assert_false(a.keep);
        assert_true(peer_ended(&p));
        close(p.fd);
    }
    until_connections(0);
    assert_int_equal(count_of(&sr.requests), 20);
}

static void test_bad_requests(void **state)
{
    (void)state;
    static const struct {
        const char *before, *filler;
        unsigned n;
        const char *after;
        unsigned status;
    } cases[] = {
        {"nonsense\r\n\r\n", "", 0, "", 400},
        {"GET / HTTP/1.1\r\n\r\n", "", 0, "", 400},
        {"GET /", "a", EXCHANGE_REQUEST_MAX, " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", "a", EXCHANGE_REQUEST_MAX, "\r\n\r\n", 431},
        {"GET / HTTP/1.1\r\nHost: a\r\n", "X: 1\r\n", 200, "\r\n", 431},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: half", "", 0, "", 408}, /* and never the rest */
    };
    struct peer p;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        peer_open(&p);
        peer_say(p.fd, cases[i].before);
        for (unsigned k = 0; k < cases[i].n; k++)
            peer_say(p.fd, cases[i].filler);
        peer_say(p.fd, cases[i].after);
        struct answer a = peer_answer(&p, false);
        assert_int_equal(a.status, cases[i].status);
        assert_false(a.keep);
        assert_true(peer_ended(&p));
        close(p.fd);
        assert_int_equal(count_of(&sr.faults[cases[i].status]) > 0, 1);
    }
}

/* ---- timeouts ---- */

static void test_timeouts(void **state)
{
    (void)state;
    static struct peer p, q, silent;
    peer_open(&silent); /* never says a word, or only empty lines: closed without an answer */
    peer_open(&q);
    peer_say(q.fd, "\r\n\r\n");
    peer_open(&p);
    assert_int_equal(ask(&p, "/hello").how, WHOLE);
    assert_true(peer_ended(&p)); /* idle */
    assert_true(peer_ended(&q));
    assert_true(peer_ended(&silent));
    close(p.fd);
    close(q.fd);
    close(silent.fd);
    assert_int_equal(count_of(&sr.requests), 1);
    /* takes nothing */
    peer_open(&p);
    peer_say(p.fd, "GET /huge HTTP/1.1\r\nHost: a\r\n\r\n");
    until_count(&sr.cut, 1);
    until_connections(0);
    close(p.fd);
    /* waits for the source, not for the client: no timeout */
    peer_open(&p);
    peer_say(p.fd, "GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n");
    usleep(3 * SEND_MS * 1000);
    rig_do(&sr.rig, do_connections, NULL);
    assert_int_equal(sr.connections, 1);
    peer_reset(p.fd);
    until_connections(0);
    assert_int_equal(count_of(&sr.cut), 2);
}

static void test_slow_reader(void **state)
{
    (void)state;
    struct peer p;
    p.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int small = 4096;
    assert_true(p.fd >= 0);
    assert_int_equal(setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    peer_patience(p.fd);
    struct sockaddr_in to = loopback(sr.port);
    assert_int_equal(connect(p.fd, (struct sockaddr *)&to, sizeof to), 0);
    peer_say(p.fd, "GET /chunked-file HTTP/1.0\r\n\r\n");
    char byte[1500];
    uint64_t at = 0;
    for (ssize_t n; (n = recv(p.fd, byte, sizeof byte, 0)) > 0; at += (uint64_t)n) {
        if (at < 30000)
            usleep(5000);
    }
    assert_true(at > 2500013); /* body and head */
    close(p.fd);
    assert_int_equal(count_of(&sr.cut), 0);
}

/* ---- the client leaves ---- */

static void test_leaving_in_every_state(void **state)
{
    (void)state;
    static const struct {
        const char *say;
        unsigned requests, gone, cut;
    } cases[] = {
        {"", 0, 0, 0},
        {"GET / HT", 0, 0, 0},
        {"GET /hold-drop HTTP/1.1\r\nHost: a\r\n\r\n", 1, 1, 0},
        {"GET /hold-late HTTP/1.1\r\nHost: a\r\n\r\n", 1, 1, 1},
        {"GET /hold-drop HTTP/1.1\r\nHost: a\r\n\r\nGET /x HTTP/1.1\r\n", 1, 1, 0},
        {"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n", 1, 0, 1},
        {"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n", 1, 0, 1},
        {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", 1, 0, 0}, /* lingering */
    };
    struct peer p;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned gone = count_of(&sr.gone), cut = count_of(&sr.cut), requests = count_of(&sr.requests);
        peer_open(&p);
        peer_say(p.fd, cases[i].say);
        until_connections(1);
        until_count(&sr.requests, requests + cases[i].requests);
        peer_reset(p.fd);
        until_connections(0);
        assert_int_equal(count_of(&sr.gone) - gone, cases[i].gone);
        assert_int_equal(count_of(&sr.cut) - cut, cases[i].cut);
        assert_int_equal(count_of(&sr.bodies), 0);
    }
}

/* ---- the server's end ---- */

static void do_drain(void *arg)
{
    (void)arg;
    server_drain(sr.server);
    server_drain(sr.server); /* again: a no-op */
}

static void test_drain(void **state)
{
    (void)state;
    static struct peer idle, busy, heading;
    peer_open(&idle);
    assert_int_equal(ask(&idle, "/x").how, WHOLE);
    peer_open(&busy);
    peer_say(busy.fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    until_count(&sr.requests, 2);
    peer_open(&heading);
    peer_say(heading.fd,
             "GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /head"); /* in one piece: the second has begun */
    assert_int_equal(peer_answer(&heading, false).how, WHOLE);
    rig_do(&sr.rig, do_drain, NULL);
    assert_true(peer_ended(&idle));
    peer_say(heading.fd, " HTTP/1.1\r\nHost: a\r\n\r\n");
    struct answer a = peer_answer(&heading, false);
    assert_int_equal(a.how, WHOLE);
    assert_false(a.keep);
    assert_true(peer_ended(&heading));
    rig_do(&sr.rig, (void (*)(void *))on_held_answer, &sr.held[0].answer);
    a = peer_answer(&busy, false);
    assert_int_equal(a.how, WHOLE);
    assert_false(a.keep);
    assert_true(peer_ended(&busy));
    close(idle.fd);
    close(busy.fd);
    close(heading.fd);
    until_connections(0);
}

/* Clients that the kernel has let in, and that nobody has accepted when the server stops. */

static struct peer early, quiet;

static void do_connect_and_drain(void *arg)
{
    peer_open(&early);
    peer_say(early.fd, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_open(&quiet);
    do_drain(arg);
}

static void test_drain_answers_who_has_connected(void **state)
{
    (void)state;
    static struct peer late;
    rig_do(&sr.rig, do_connect_and_drain, NULL);
    struct answer a = peer_answer(&early, false);
    assert_int_equal(a.how, WHOLE);
    assert_false(a.keep);
    assert_true(peer_ended(&early));
    assert_true(peer_ended(&quiet)); /* its time is over */
    late.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = loopback(sr.port);
    assert_int_not_equal(connect(late.fd, (struct sockaddr *)&to, sizeof to), 0);
    close(early.fd);
    close(quiet.fd);
    close(late.fd);
    until_connections(0);
}

static void test_abort(void **state)
{
    (void)state;
    static struct peer p[4];
    static const char *const say[] = {"", "GET", "GET /hold-drop HTTP/1.1\r\nHost: a\r\n\r\n",
                                      "GET /huge HTTP/1.1\r\nHost: a\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(p); i++) {
        peer_open(&p[i]);
        peer_say(p[i].fd, say[i]);
    }
    until_connections(4);
    until_count(&sr.requests, 2);
    rig_do(&sr.rig, do_abort, NULL);
    until_connections(0);
    assert_int_equal(count_of(&sr.gone), 1);
    assert_int_equal(count_of(&sr.cut), 1);
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        close(p[i].fd);
}

static void test_too_many_connections(void **state)
{
    (void)state;
    static struct peer p[25];
    unsigned served = 0;
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        peer_open(&p[i]);
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        served += ask(&p[i], "/x").status == 200;
    assert_int_equal(served, 20);
    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        close(p[i].fd);
    until_connections(0);
    peer_open(&p[0]);
    assert_int_equal(ask(&p[0], "/x").status, 200);
    close(p[0].fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_keep_alive),
        TEST(test_bodies),
        TEST(test_cold_file),
        TEST(test_head_too_large),
        TEST(test_pipelining),
        TEST(test_half_closed),
        TEST(test_request_with_body),
        TEST(test_bad_requests),
        TEST(test_closed_by_the_server),
        TEST(test_timeouts),
        TEST(test_slow_reader),
        TEST(test_leaving_in_every_state),
        TEST(test_drain),
        TEST(test_drain_answers_who_has_connected),
        TEST(test_abort),
        TEST(test_too_many_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
