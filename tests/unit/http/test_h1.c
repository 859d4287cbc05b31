/* The parser: a table of inputs, each fed whole and cut at every offset, with the events that must come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "h1_trace.h"

struct sample {
    const char *in, *out;
};

/* `error` at the end of `out`: the connection is of no further use. `end`: it ended between two messages; `done`: its
 * end was the end of the body. */
static const struct sample requests[] = {
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "done GET / 1.1 keep\nHost=a\nend\n"},
    {"GET /x?y=%20 HTTP/1.1\r\nHost:a\r\nRange: \t bytes=0-1 \t\r\nX:\r\n\r\n",
     "done GET /x?y=%20 1.1 keep\nHost=a\nRange=bytes=0-1\nX=\nend\n"},
    {"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
     "done HEAD / 1.1\nHost=a\nConnection=close\nend\n"},
    {"GET / HTTP/1.0\r\n\r\n", "done GET / 1.0\nend\n"},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "done GET / 1.0 keep\nConnection=Keep-Alive\nend\n"},
    /* pipelined; empty lines before a request */
    {"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
     "done GET /1 1.1 keep\nHost=a\ndone GET /2 1.1 keep\nHost=b\nend\n"},
    /* with a body: head first */
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
     "headed PUT / 1.1 keep body 3\nHost=a\nContent-Length=3\nbody abc\ndone\nend\n"},
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
     "done POST / 1.1 keep 0\nHost=a\nContent-Length=0\nend\n"},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: "
     "r\r\n\r\n",
     "headed POST / 1.1 keep chunked body\nHost=a\nTransfer-Encoding=chunked\nbody abc\ndone\nend\n"},
    /* a body that has bytes a head may not have */
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n\r\r\n\rx\n",
     "headed PUT / 1.1 keep body 6\nHost=a\nContent-Length=6\nbody \r\r\n\rx\n\ndone\nend\n"},
    /* an offered upgrade is passed over, and so is CONNECT */
    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET /2 HTTP/1.1\r\nHost: "
     "a\r\n\r\n",
     "done GET / 1.1 keep\nHost=a\nConnection=Upgrade\nUpgrade=h2c\ndone GET /2 1.1 keep\nHost=a\nend\n"},
    {"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "done CONNECT a:1 1.1 keep\nHost=a\nend\n"},
    /* an obsolete fold */
    {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "done GET / 1.1 keep\nHost=a\nX=1 2\nend\n"},
    /* ended too early */
    {"", "end\n"},
    {"\r\n", "end\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\n", "error\n"},
    {"G", "error\n"},
    {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
     "headed PUT / 1.1 keep body 3\nHost=a\nContent-Length=3\nbody ab\nerror\n"},
    /* Host */
    {"GET / HTTP/1.1\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "error\n"},
    {"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "done GET / 1.1 keep\nHost=\nend\n"},
    /* framing that two parsers may read differently */
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
     "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", "error\n"},
    /* line ends and names */
    {"GET / HTTP/1.1\nHost: a\n\n", "error\n"},
    {"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "error\n"},
    {"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nX:\rY: 1\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 1\r\n\r\n", "error\n"},
    {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX:\rY: 1\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n\rX", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nb\"c: d\r\n\r\n", "error\n"},
    {"GET / HTTP/1.1\r\nHost: a\r\nX: \001\r\n\r\n", "error\n"},
    /* versions and methods */
    {"GET /\r\n\r\n", "error\n"},
    {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "error\n"},
    {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "error\n"},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "error\n"},
    {"NOSUCH / HTTP/1.1\r\nHost: a\r\n\r\n", "error\n"},
    {"\x16\x03\x01\x02", "error\n"}, /* TLS on a plain port */
    /* a good request before a bad one */
    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n@", "done GET / 1.1 keep\nHost=a\nerror\n"},
};

static const struct sample responses[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
     "headed 200 1.1 keep body 5\nContent-Length=5\nbody hello\ndone\nend\n"},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "headed 200 1.1 keep 0\nContent-Length=0\ndone\nend\n"},
    {"HTTP/1.1 200 OK\r\n\r\n\r\r\n\nx", "headed 200 1.1 eof body\nbody \r\r\n\nx\ndone\n"},
    {"HTTP/1.1 200 OK\r\n\r\n", "headed 200 1.1 eof body\ndone\n"}, /* until the end, which is at once */
    {"HTTP/1.0 200 OK\r\n\r\nabc", "headed 200 1.0 eof body\nbody abc\ndone\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\nbody hello\ndone\nend\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: "
     "chunked\r\n\r\n1\r\n\r\r\n1;a;b=\"c\"\r\n\n\r\n0\r\nContent-Length: 7\r\n\r\n",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\nbody \r\n\ndone\nend\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\ndone\nend\n"},
    /* no body whatever the fields say; the next message follows at once */
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No\r\nTransfer-Encoding: "
     "chunked\r\n\r\n",
     "headed 304 1.1 keep 5\nContent-Length=5\ndone\nheaded 204 1.1 "
     "keep\nTransfer-Encoding=chunked\ndone\nend\n"},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 "
     "OK\r\nContent-Length: 1\r\n\r\nx",
     "headed 100 1.1 keep\ndone\nheaded 103 1.1 keep\nLink=</a>\ndone\n"
     "headed 200 1.1 keep body 1\nContent-Length=1\nbody x\ndone\nend\n"},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
     "headed 200 1.1 body 1\nConnection=close\nContent-Length=1\nbody x\ndone\nend\n"},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
     "headed 200 1.0 keep body 1\nConnection=keep-alive\nContent-Length=1\nbody x\ndone\nend\n"},
    /* junk behind a good answer: the answer is good */
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxjunk",
     "headed 200 1.1 keep body 1\nContent-Length=1\nbody x\ndone\nerror\n"},
    /* ended too early */
    {"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n",
     "headed 200 1.1 keep body 9223372036854775807\nContent-Length=9223372036854775807\nerror\n"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", "error\n"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", "error\n"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
     "headed 200 1.1 keep body 5\nContent-Length=5\nbody hell\nerror\n"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "headed 200 1.1 keep body 5\nContent-Length=5\nerror\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\nbody hello\nerror\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\nbody hel\nerror\n"},
    {"HTTP/1.1 200 OK\r\nA: b", "error\n"},
    {"", "end\n"},
    /* refused */
    {"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "error\n"},
    {"HTTP/2.0 200 OK\r\n\r\n", "error\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "error\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", "error\n"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "error\n"},
    {"HTTP/1.1 200 OK\r\nA:\rB: c\r\n\r\n", "error\n"},
    {"HTTP/1.1 20 OK\r\n\r\n", "error\n"},
    {"<html>", "error\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\nerror\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
     "headed 200 1.1 keep chunked body\nTransfer-Encoding=chunked\nerror\n"},
};

/* Answers to HEAD. */
static const struct sample to_head[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "headed 200 1.1 keep 5\nContent-Length=5\ndone\nend\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
     "headed 200 1.1 keep\nTransfer-Encoding=chunked\ndone\nend\n"},
    {"HTTP/1.1 200 OK\r\n\r\n", "headed 200 1.1 keep\ndone\nend\n"},
    {"HTTP/1.0 200 OK\r\n\r\n", "headed 200 1.0\ndone\nend\n"},
    {"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
     "headed 404 1.1 keep 5\nContent-Length=5\ndone\nheaded 200 1.1 keep 7\nContent-Length=7\ndone\nend\n"},
};

static void check_sample(const struct sample *s, bool request, bool answers_head)
{
    static struct trace t;
    size_t n = strlen(s->in);
    for (size_t cut = 0; cut <= n; cut++) { /* 0: whole */
        trace_init(&t, request, answers_head);
        trace_feed(&t, s->in, cut);
        trace_feed(&t, s->in + cut, n - cut);
        trace_end(&t);
        if (strcmp(t.buf, s->out) != 0)
            fail_msg("cut at %zu of:\n%s\ngave (%s):\n%s\ninstead of:\n%s", cut, s->in,
                     t.error != NULL ? t.error : "", t.buf, s->out);
    }
    trace_init(&t, request, answers_head);
    for (size_t i = 0; i < n; i++)
        trace_feed(&t, s->in + i, 1);
    trace_end(&t);
    assert_string_equal(t.buf, s->out);
}

static void test_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(requests); i++)
        check_sample(&requests[i], true, false);
}

static void test_responses(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(responses); i++)
        check_sample(&responses[i], false, false);
}

static void test_answers_to_head(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(to_head); i++)
        check_sample(&to_head[i], false, true);
}

/* ---- limits: TRACE_HEAD bytes of head, H1_FIELDS_MAX fields ---- */

static struct trace trace;

/* before + filler * n + after, in pieces of `piece` bytes. */
static void feed_filled(bool request, const char *before, const char *filler, size_t n, const char *after,
                        size_t piece)
{
    size_t b = strlen(before), f = strlen(filler), a = strlen(after), at = b;
    char *all = malloc(b + f * n + a);
    assert_non_null(all);
    memcpy(all, before, b);
    for (size_t i = 0; i < n; i++, at += f)
        memcpy(all + at, filler, f);
    memcpy(all + at, after, a);
    at += a;
    trace_init(&trace, request, false);
    for (size_t i = 0; i < at; i += piece)
        trace_feed(&trace, all + i, piece < at - i ? piece : at - i);
    free(all);
}

static const size_t pieces[] = {1, 7, 1000, 1000000};

static void test_head_limits(void **state)
{
    (void)state;
    static const struct {
        const char *before, *filler;
        size_t n;
        const char *after;
        enum h1_fault fault; /* NONE: it fits */
    } cases[] = {
        {"GET /", "a", TRACE_HEAD - 28, " HTTP/1.1\r\nHost:\r\n\r\n", H1_FAULT_NONE},
        {"GET /", "a", TRACE_HEAD, " HTTP/1.1\r\nHost:\r\n\r\n", H1_FAULT_TARGET_SIZE},
        {"GET /", "a", 100000, "", H1_FAULT_TARGET_SIZE},
        {"GET / HTTP/1.1\r\nHost:\r\nX:", "a", TRACE_HEAD, "\r\n\r\n", H1_FAULT_HEAD_SIZE},
        {"GET / HTTP/1.1\r\nHost:\r\n", "a", TRACE_HEAD, ":\r\n\r\n", H1_FAULT_HEAD_SIZE},
        /* bytes that the parser reads over count as well */
        {"GET / HTTP/1.1\r\nHost:\r\nX:", " ", TRACE_HEAD, "\r\n\r\n", H1_FAULT_HEAD_SIZE},
        {"", "\r\n", TRACE_HEAD, "GET / HTTP/1.1\r\nHost:\r\n\r\n", H1_FAULT_HEAD_SIZE},
        {"GET / HTTP/1.1\r\nHost:\r\n", "X:\r\n", H1_FIELDS_MAX - 1, "\r\n", H1_FAULT_NONE},
        {"GET / HTTP/1.1\r\nHost:\r\n", "X:\r\n", H1_FIELDS_MAX, "\r\n", H1_FAULT_HEAD_SIZE},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
            feed_filled(true, cases[i].before, cases[i].filler, cases[i].n, cases[i].after, pieces[k]);
            if (trace.over != (cases[i].fault != H1_FAULT_NONE) || trace.fault != cases[i].fault)
                fail_msg("case %zu in pieces of %zu: fault %d, %s", i, pieces[k], trace.fault,
                         trace.error != NULL ? trace.error : "none");
        }
    }
    for (size_t k = 0; k < ARRAY_LEN(pieces); k++) { /* a reason phrase is not kept, but counted */
        feed_filled(false, "HTTP/1.1 200 ", "a", TRACE_HEAD, "\r\n\r\n", pieces[k]);
        assert_int_equal(trace.fault, H1_FAULT_HEAD_SIZE);
    }
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void test_framing_limits(void **state)
{
    (void)state;
    static const struct {
        const char *before, *filler;
        size_t n;
        const char *after;
        bool fits;
    } cases[] = {
        {CHUNKED, "0", 100000, "", false},                             /* a size that never ends */
        {CHUNKED "1;", "x", 100000, "\r\na\r\n0\r\n\r\n", false},      /* an extension */
        {CHUNKED "1\r\na\r\n0\r\n", "A: b\r\n", 10000, "\r\n", false}, /* trailers */
        {CHUNKED, "1;x\r\na\r\n", 20000, "0\r\n\r\n", true},           /* much, but with a body */
        {CHUNKED "1\r\na\r\n0\r\n", "A: b\r\n", 100, "\r\n", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
            feed_filled(false, cases[i].before, cases[i].filler, cases[i].n, cases[i].after, pieces[k]);
            if (trace.over == cases[i].fits)
                fail_msg("case %zu in pieces of %zu: %s", i, pieces[k],
                         trace.error != NULL ? trace.error : "fits");
        }
    }
}

/* ---- looking at a head ---- */

static void test_get(void **state)
{
    (void)state;
    const char *in = "GET / HTTP/1.1\r\nHost: a\r\nACCEPT: 1\r\naccept: 2\r\nEmpty:\r\n";
    trace_init(&trace, true, false);
    assert_false(h1_started(&trace.parser));
    trace_feed(&trace, "\r\n", 2);
    assert_false(h1_started(&trace.parser));
    trace_feed(&trace, in, strlen(in));
    assert_true(h1_started(&trace.parser));
    enum h1_event e;
    assert_int_equal(h1_feed(&trace.parser, "\r\n", 2, &e), 2);
    assert_int_equal(e, H1_DONE);
    struct span v = h1_get(&trace.head, SPAN("accept"));
    assert_int_equal(v.n, 1);
    assert_int_equal(v.p[0], '1'); /* the first */
    assert_int_equal(h1_count(&trace.head, SPAN("accept")), 2);
    assert_int_equal(h1_count(&trace.head, SPAN("nothing")), 0);
    assert_null(h1_get(&trace.head, SPAN("nothing")).p);
    assert_non_null(h1_get(&trace.head, SPAN("empty")).p);
    assert_int_equal(h1_get(&trace.head, SPAN("empty")).n, 0);
    assert_int_equal(trace.head.method, H1_GET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_answers_to_head), cmocka_unit_test(test_head_limits),
        cmocka_unit_test(test_framing_limits),  cmocka_unit_test(test_get),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
