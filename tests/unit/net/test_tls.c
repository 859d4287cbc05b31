/* TLS as a stream: bytes through it however the transport cuts them, back-pressure, what is told to the owner and when, closing at
 * every step, sessions, and what an idle stream costs. Both ends are larder's. */
#include "tls_rig.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/mem.h"
#include "net/tls_int.h"

/* ---- a transport that cuts ---- */

/* Passes at most `piece` bytes at a time, every third call nothing at all; changes the byte `flip`, and ends after `limit` bytes
 * have gone down. */
struct cutter {
    struct stream base;
    struct stream *under;
    size_t piece;
    unsigned calls;
    uint64_t sent, limit, flip;
    bool cut;
    bool one_way; /* reading goes on when it is cut */
};

static struct cutter *cutter_of(struct stream *s)
{
    return CONTAINER_OF(s, struct cutter, base);
}

static ssize_t cutter_recv(struct stream *s, void *buf, size_t n)
{
    struct cutter *c = cutter_of(s);
    if (c->cut && !c->one_way)
        return 0;
    if (c->piece == 0)
        return stream_recv(c->under, buf, n);
    return ++c->calls % 3 == 0 ? STREAM_AGAIN : stream_recv(c->under, buf, n < c->piece ? n : c->piece);
}

static ssize_t cutter_writev(struct stream *s, const struct iovec *iov, unsigned n, bool more)
{
    struct cutter *c = cutter_of(s);
    struct iovec v = iov[0];
    UNUSED(n);
    if (c->cut)
        return STREAM_BROKEN;
    if (c->piece != 0 && ++c->calls % 3 == 0)
        return STREAM_AGAIN;
    if (c->piece != 0 && v.iov_len > c->piece)
        v.iov_len = c->piece;
    if (v.iov_len > c->limit - c->sent)
        v.iov_len = (size_t)(c->limit - c->sent);
    char other;
    if (c->sent == c->flip) {
        other = (char)(((char *)v.iov_base)[0] ^ 1);
        v = (struct iovec){&other, 1};
    } else if (c->sent < c->flip && v.iov_len > c->flip - c->sent) {
        v.iov_len = (size_t)(c->flip - c->sent);
    }
    ssize_t put = v.iov_len == 0 ? 0 : stream_writev(c->under, &v, 1, more);
    if (put > 0)
        c->sent += (uint64_t)put;
    if (c->sent == c->limit) {
        c->cut = true;
        stream_shut(c->under);
        if (put == 0)
            return STREAM_BROKEN;
    }
    return put;
}

static void cutter_want(struct stream *s, unsigned events)
{
    stream_want(cutter_of(s)->under, cutter_of(s)->cut ? events | STREAM_WRITE : events);
}

static void cutter_shut(struct stream *s)
{
    stream_shut(cutter_of(s)->under);
}

static void cutter_close(struct stream *s, bool reset)
{
    stream_close(cutter_of(s)->under, reset);
    mem_free(cutter_of(s));
}

static const char *cutter_why(const struct stream *s)
{
    UNUSED(s);
    return "cut";
}

static bool cutter_connected(struct stream *s)
{
    return stream_connected(cutter_of(s)->under);
}

static bool cutter_idle_ok(struct stream *s)
{
    return stream_idle_ok(cutter_of(s)->under);
}

static const struct stream_ops cutter_ops = {
    .recv = cutter_recv,
    .writev = cutter_writev,
    .want = cutter_want,
    .shut = cutter_shut,
    .close = cutter_close,
    .why = cutter_why,
    .connected = cutter_connected,
    .idle_ok = cutter_idle_ok,
};

static void on_cutter(struct stream *under, unsigned events)
{
    struct cutter *c = under->owner;
    c->base.ready(&c->base, events);
}

static struct stream *cutter_new(struct stream *under, size_t piece, uint64_t limit)
{
    struct cutter *c;
    NEW(c);
    *c = (struct cutter){.base = {.ops = &cutter_ops, .core = under->core},
                         .under = under,
                         .piece = piece,
                         .limit = limit,
                         .flip = UINT64_MAX};
    under->owner = c;
    under->ready = on_cutter;
    return &c->base;
}

/* ---- flows of bytes ---- */

#define BUF_MAX (512u << 10)

struct way {
    size_t piece;         /* of the transport; 0: as it comes */
    size_t writes, reads; /* sizes */
    size_t to_server, to_client;
    bool nested, from_file;
};

static struct way way;
static char buf[BUF_MAX], out[BUF_MAX];
static int file = -1;

static char byte_at(uint64_t i)
{
    return (char)(((i * 2654435761u) >> 11) ^ (i >> 16));
}

struct flow {
    struct end *end;
    uint64_t total, sent, got, expected;
    bool ended, well;
    unsigned odd;
};

static struct flow flows[2]; /* the client's, the server's */

static void flow_read(struct flow *f)
{
    for (unsigned i = 0; i < 4; i++) {
        ssize_t n = stream_recv(f->end->s, buf, way.reads);
        if (n == STREAM_AGAIN)
            return;
        if (n < 0)
            fail_msg("after %llu bytes: %s", (unsigned long long)f->got, stream_why(f->end->s));
        if (n == 0) {
            f->ended = true;
            f->well = tls_ended_well(f->end->s);
            return;
        }
        for (ssize_t k = 0; k < n; k++)
            if (buf[k] != byte_at(f->got + (uint64_t)k))
                fail_msg("byte %llu is wrong", (unsigned long long)(f->got + (uint64_t)k));
        f->got += (uint64_t)n;
    }
}

static ssize_t flow_write_some(struct flow *f, size_t n)
{
    bool more = f->odd++ % 3 == 0;
    if (way.from_file)
        return stream_sendfile(f->end->s, file, (off_t)f->sent, n, true);
    for (size_t k = 0; k < n; k++)
        out[k] = byte_at(f->sent + k);
    struct iovec v[3] = {{out, n / 3}, {out + n / 3, 0}, {out + n / 3, n - n / 3}};
    return stream_writev(f->end->s, v, 3, more);
}

static void flow_write(struct flow *f)
{
    for (unsigned i = 0; f->sent < f->total && i < 4; i++) {
        uint64_t left = f->total - f->sent;
        ssize_t n = flow_write_some(f, left < way.writes ? (size_t)left : way.writes);
        if (n == STREAM_AGAIN)
            return;
        if (n <= 0)
            fail_msg("after %llu bytes: %s", (unsigned long long)f->sent, stream_why(f->end->s));
        f->sent += (uint64_t)n;
    }
}

static bool flow_done(const struct flow *f)
{
    return f->sent == f->total && f->got == f->expected;
}

/* The client closes when it has everything; the server when it has seen the end. */
static void on_flow(struct stream *s, unsigned events)
{
    struct flow *f = s->owner;
    if ((events & STREAM_READ) != 0)
        flow_read(f);
    if ((events & STREAM_WRITE) != 0)
        flow_write(f);
    stream_want(s, STREAM_READ | (f->sent < f->total ? STREAM_WRITE : 0));
    if (f == &flows[0] && flow_done(f)) {
        end_close(f->end, false);
    } else if (f->ended) {
        end_close(f->end, false);
        core_quit(loop.core);
    }
}

static void flow_start(struct flow *f, struct end *e, uint64_t total, uint64_t expected)
{
    *f = (struct flow){.end = e, .total = total, .expected = expected};
    e->s->owner = f;
    e->s->ready = on_flow;
    stream_want(e->s, STREAM_READ | STREAM_WRITE);
}

static void start_flows(void)
{
    flow_start(&flows[0], &client, way.to_server, way.to_client);
    flow_start(&flows[1], &server, way.to_client, way.to_server);
}

static void on_inner_client(struct stream *s, unsigned events)
{
    UNUSED(events);
    assert_true(stream_connected(s));
    end_start(&client, tls_client(s, &how));
}

static void on_inner_server(struct stream *s, unsigned events)
{
    UNUSED(events);
    assert_true(stream_connected(s));
    end_start(&server, tls_server(s, server_identity, cache));
}

static void begin_cut(void *arg)
{
    struct stream *ends[2];
    UNUSED(arg);
    pair_of_streams(ends);
    for (unsigned i = 0; i < 2; i++)
        ends[i] = cutter_new(ends[i], way.piece, UINT64_MAX);
    client = server = (struct end){0};
    ends[0] = tls_client(ends[0], &how);
    ends[1] = tls_server(ends[1], server_identity, cache);
    if (!way.nested) {
        end_start(&client, ends[0]);
        end_start(&server, ends[1]);
        return;
    }
    ends[0]->ready = on_inner_client;
    ends[1]->ready = on_inner_server;
    stream_want(ends[0], STREAM_WRITE);
    stream_want(ends[1], STREAM_WRITE);
}

static void run_way(struct way w)
{
    way = w;
    ends_shaken = start_flows;
    loop_open(&loop);
    loop_run(&loop, begin_cut, NULL);
    loop_close(&loop);
    ends_shaken = NULL;
    assert_true(flow_done(&flows[0]));
    assert_true(flow_done(&flows[1]));
    assert_true(flows[1].ended);
    assert_true(flows[1].well);
}

static void test_bytes(void **state)
{
    static const size_t sizes[] = {1, 100, 5000, 16384, 70000, 400000};
    UNUSED(state);
    for (size_t w = 0; w < ARRAY_LEN(sizes); w++)
        for (size_t r = 0; r < ARRAY_LEN(sizes); r++) {
            size_t smaller = sizes[w] < sizes[r] ? sizes[w] : sizes[r];
            size_t total = smaller == 1 ? 1000 : smaller == 100 ? 20001 : 1000001;
            run_way((struct way){
                .writes = sizes[w], .reads = sizes[r], .to_server = total, .to_client = total + total / 3});
        }
}

static void test_bytes_cut(void **state)
{
    static const size_t pieces[] = {1, 5, 6, 1000, 16413, 16414};
    static const size_t reads[] = {1, 16383, 20000, 300000};
    UNUSED(state);
    for (size_t p = 0; p < ARRAY_LEN(pieces); p++)
        for (size_t r = 0; r < ARRAY_LEN(reads); r++) {
            size_t total = pieces[p] < 10 || reads[r] == 1 ? 20000 : 700000;
            run_way((struct way){.piece = pieces[p],
                                 .writes = 30000,
                                 .reads = reads[r],
                                 .to_server = total,
                                 .to_client = total});
        }
}

static void test_one_way(void **state)
{
    UNUSED(state);
    run_way((struct way){.writes = 100000, .reads = 100000, .to_server = 0, .to_client = 4000000});
    run_way((struct way){.writes = 100000, .reads = 100000, .to_server = 4000000, .to_client = 0});
    run_way((struct way){.writes = 100000, .reads = 100000, .to_server = 0, .to_client = 0});
}

static void test_tls_in_tls(void **state)
{
    UNUSED(state);
    run_way((struct way){
        .nested = true, .writes = 100000, .reads = 300000, .to_server = 2000000, .to_client = 2000000});
    run_way((struct way){.nested = true,
                         .writes = 100000,
                         .reads = 16000,
                         .to_server = 200000,
                         .to_client = 200000,
                         .piece = 7});
    run_way((struct way){.nested = true, .writes = 10, .reads = 1, .to_server = 2000, .to_client = 2000});
}

static void test_from_a_file(void **state)
{
    size_t size = 3000000;
    UNUSED(state);
    file = open(pki_folder, O_TMPFILE | O_RDWR, 0600);
    assert_true(file >= 0);
    for (size_t at = 0; at < size; at += 100000) {
        for (size_t k = 0; k < 100000; k++)
            out[k] = byte_at(at + k);
        assert_int_equal(write(file, out, 100000), 100000);
    }
    run_way((struct way){
        .from_file = true, .writes = size, .reads = 300000, .to_server = size, .to_client = size});
    run_way((struct way){
        .from_file = true, .writes = 10000, .reads = 300000, .to_server = size, .to_client = 12345});
    run_way((struct way){.from_file = true,
                         .writes = 50000,
                         .reads = 3000,
                         .to_server = 100000,
                         .to_client = 0,
                         .piece = 999});
    close(file);
}

/* ---- scenes after the handshake ---- */

static void scene(void (*shaken)(void))
{
    ends_shaken = shaken;
    handshake();
    ends_shaken = NULL;
    assert_true(client.ok);
    assert_true(server.ok);
}

static ssize_t put(struct stream *s, size_t n, bool more)
{
    struct iovec v = {out, n};
    return stream_writev(s, &v, 1, more);
}

static unsigned told;

/* Ten thousand bytes are one record: the socket falls silent after it, and the owner takes them one by one. */
static void on_one_byte(struct stream *s, unsigned events)
{
    char c;
    assert_int_equal(events, STREAM_READ);
    ssize_t n = stream_recv(s, &c, 1);
    told++;
    if (n == STREAM_AGAIN)
        return;
    assert_int_equal(n, 1);
    if (++flows[1].got == 10000)
        ends_close();
}

static void begin_silence(void)
{
    flows[1] = (struct flow){0};
    told = 0;
    server.s->ready = on_one_byte;
    stream_want(server.s, STREAM_READ);
    assert_int_equal(put(client.s, 10000, false), 10000);
}

static void test_plaintext_in_silence(void **state)
{
    UNUSED(state);
    scene(begin_silence);
    assert_int_equal(flows[1].got, 10000);
    assert_in_range(told, 10000, 10010); /* told for each, and not at every turn of the loop */
}

/* Nobody asks while plaintext waits: nobody is told; asking again tells. */
static void on_told(struct stream *s, unsigned events)
{
    UNUSED(s);
    assert_int_equal(events, STREAM_READ);
    if (++told == 3)
        ends_close();
}

static void on_first_bytes(struct stream *s, unsigned events)
{
    char few[10];
    UNUSED(events);
    ssize_t n = stream_recv(s, few, sizeof few);
    if (n == STREAM_AGAIN)
        return;
    assert_int_equal(n, 10);
    stream_want(s, 0);
    s->ready = on_told;
    stream_want(s, STREAM_READ); /* never from within: told stays */
    assert_int_equal(told, 0);
}

static void begin_told(void)
{
    told = 0;
    server.s->ready = on_first_bytes;
    stream_want(server.s, STREAM_READ);
    assert_int_equal(put(client.s, 1000, false), 1000);
}

static void test_told_again(void **state)
{
    UNUSED(state);
    scene(begin_told);
    assert_int_equal(told, 3);
}

/* A short record that "more" promised company for goes out at the end of the turn. */
static void on_anything(struct stream *s, unsigned events)
{
    UNUSED(events);
    ssize_t n = stream_recv(s, buf, sizeof buf);
    if (n == STREAM_AGAIN)
        return;
    assert_int_equal(n, 150);
    ends_close();
}

static void begin_more(void)
{
    server.s->ready = on_anything;
    stream_want(server.s, STREAM_READ);
    assert_int_equal(put(client.s, 100, true), 100);
    assert_int_equal(put(client.s, 50, true), 50);
}

static void test_more(void **state)
{
    UNUSED(state);
    scene(begin_more);
}

/* ---- being full ---- */

static size_t filled;

static void on_drained(struct stream *s, unsigned events)
{
    UNUSED(events);
    ssize_t n = stream_recv(s, buf, sizeof buf);
    if (n == STREAM_AGAIN)
        return;
    if (n > 0) {
        flows[1].got += (uint64_t)n;
        return;
    }
    assert_int_equal(n, 0);
    assert_true(tls_ended_well(s));
    end_close(&server, false);
    core_quit(loop.core);
}

/* The client fills everything and gives the stream up: what was counted as written arrives nevertheless. */
static void begin_full(void)
{
    flows[1] = (struct flow){0};
    filled = 0;
    for (ssize_t n; (n = put(client.s, 50000, false)) != STREAM_AGAIN; filled += (size_t)n)
        assert_true(n > 0);
    end_close(&client, false);
    server.s->ready = on_drained;
    stream_want(server.s, STREAM_READ);
}

static void test_full_and_closed(void **state)
{
    UNUSED(state);
    scene(begin_full);
    assert_true(filled > 100000);
    assert_int_equal(flows[1].got, filled);
}

static void on_reset(struct stream *s, unsigned events)
{
    UNUSED(events);
    ssize_t n = stream_recv(s, buf, sizeof buf);
    if (n > 0 || n == STREAM_AGAIN)
        return;
    assert_false(tls_ended_well(s));
    end_close(&server, false);
    core_quit(loop.core);
}

static void begin_reset(void)
{
    server.s->ready = on_reset;
    stream_want(server.s, STREAM_READ);
    assert_int_equal(put(client.s, 1000, false), 1000);
    end_close(&client, true);
}

static void test_reset(void **state)
{
    UNUSED(state);
    scene(begin_reset);
}

/* ---- ends ---- */

/* The client has ended its side; the server, too, once it sees that; both see a good end. */
static void on_end(struct stream *s, unsigned events)
{
    struct end *e = s->owner;
    UNUSED(events);
    ssize_t n = stream_recv(s, buf, sizeof buf);
    if (n > 0 || n == STREAM_AGAIN)
        return;
    assert_int_equal(n, 0);
    assert_true(tls_ended_well(s));
    assert_false(stream_idle_ok(s));
    assert_int_equal(put(s, 10, false), STREAM_BROKEN);
    end_close(e, false);
    if (client.s == NULL && server.s == NULL)
        core_quit(loop.core);
}

static void begin_shut(void)
{
    client.s->ready = server.s->ready = on_end;
    stream_want(client.s, STREAM_READ);
    stream_want(server.s, STREAM_READ);
    assert_int_equal(put(client.s, 10, true), 10);
    stream_shut(client.s);
    assert_int_equal(put(client.s, 10, false), STREAM_BROKEN);
}

static void test_shut(void **state)
{
    UNUSED(state);
    scene(begin_shut);
}

static void on_look(struct stream *s, unsigned events)
{
    UNUSED(events);
    assert_false(stream_idle_ok(s)); /* spoken to */
    for (ssize_t n; (n = stream_recv(s, buf, 100)) > 0;) {
        flows[1].got += (uint64_t)n;
        assert_int_equal(stream_idle_ok(s), flows[1].got == 1000);
    }
    if (flows[1].got == 1000)
        ends_close();
}

static void begin_idle(void)
{
    flows[1] = (struct flow){0};
    assert_true(stream_idle_ok(client.s));
    assert_true(stream_idle_ok(server.s));
    server.s->ready = on_look;
    stream_want(server.s, STREAM_READ);
    assert_int_equal(put(client.s, 1000, false), 1000);
}

static void test_idle_ok(void **state)
{
    UNUSED(state);
    scene(begin_idle);
}

/* ---- files ---- */

static void begin_file_turns(void)
{
    assert_int_equal(stream_sendfile(client.s, file, 300000, 1000, true), 0); /* nothing there */
    assert_int_equal(stream_sendfile(client.s, file, 299000, 5000, false), 1000);
    ssize_t n = stream_sendfile(client.s, file, 0, 300000, true);
    assert_in_range(n, 1, 128 << 10); /* others have their turn */
    assert_int_equal(stream_sendfile(client.s, -1, 0, 10, true), STREAM_BROKEN);
    assert_non_null(strstr(stream_why(client.s), strerror(EBADF)));
    ends_close();
}

static void test_file_turns(void **state)
{
    UNUSED(state);
    file = open(pki_folder, O_TMPFILE | O_RDWR, 0600);
    assert_int_equal(ftruncate(file, 300000), 0);
    scene(begin_file_turns);
    close(file);
}

/* ---- a connection that ends somewhere ---- */

static uint64_t cut_client, cut_server, flip_client, flip_server;

static void on_cut_end(struct stream *s, unsigned events)
{
    struct end *e = s->owner;
    if ((events & STREAM_WRITE) != 0 && !e->done) {
        e->done = true;
        e->ok = stream_connected(s);
        if (e->ok && put(s, 5000, false) > 0) {
            stream_want(s, STREAM_READ);
            return;
        }
    } else if (stream_recv(s, buf, sizeof buf) == STREAM_AGAIN) {
        return;
    } else if (!e->resumed) { /* here: has been read from */
        e->resumed = true;
        stream_shut(s);
        return;
    }
    snprintf(e->why, sizeof e->why, "%s", stream_why(s));
    end_close(e, false);
    if (client.s == NULL && server.s == NULL)
        core_quit(loop.core);
}

static void begin_cut_at(void *arg)
{
    struct stream *ends[2];
    UNUSED(arg);
    pair_of_streams(ends);
    ends[0] = cutter_new(ends[0], 0, cut_client);
    ends[1] = cutter_new(ends[1], 0, cut_server);
    cutter_of(ends[0])->flip = flip_client;
    cutter_of(ends[1])->flip = flip_server;
    end_start(&client, tls_client(ends[0], &how));
    end_start(&server, tls_server(ends[1], server_identity, cache));
    client.s->ready = server.s->ready = on_cut_end;
}

static void cut_at(uint64_t from_client, uint64_t from_server)
{
    cut_client = from_client;
    cut_server = from_server;
    flip_client = flip_server = UINT64_MAX;
    loop_open(&loop);
    loop_run(&loop, begin_cut_at, NULL);
    loop_close(&loop);
    assert_true(client.done);
    assert_true(server.done);
}

static void test_cut_everywhere(void **state)
{
    UNUSED(state);
    for (uint64_t n = 0; n < 1600; n += n < 20 ? 1 : 13) {
        cut_at(n, UINT64_MAX);
        cut_at(UINT64_MAX, n);
    }
    cut_at(0, UINT64_MAX);
    assert_false(server.ok);
    assert_string_equal(server.why, "the peer closed the connection without a word of TLS");
    cut_at(UINT64_MAX, 30);
    assert_false(client.ok);
    assert_string_equal(client.why, "the peer closed the connection in the middle of the TLS handshake");
}

/* The versions of the first records' headers, which nobody looks at, apart, no byte can be changed without an end being told. */
static void flip_at(uint64_t from_client, uint64_t from_server)
{
    cut_client = cut_server = UINT64_MAX;
    flip_client = from_client;
    flip_server = from_server;
    loop_open(&loop);
    loop_run(&loop, begin_cut_at, NULL);
    loop_close(&loop);
    if (strcmp(client.why, "closed by the peer") == 0 && strcmp(server.why, "closed by the peer") == 0)
        fail_msg("bytes %lld and %lld", (long long)from_client, (long long)from_server);
}

static void test_changed_bytes(void **state)
{
    UNUSED(state);
    for (uint64_t n = 5; n < 2000; n += n < 20 ? 1 : 17) {
        flip_at(n, UINT64_MAX);
        flip_at(UINT64_MAX, n);
    }
    flip_at(UINT64_MAX, 3000);
    assert_true(client.ok);
    assert_string_equal(client.why, "TLS: a record was damaged or forged on its way");
}

/* ---- no TLS ---- */

static void on_garbage(struct stream *s, unsigned events)
{
    UNUSED(events);
    client.done = true;
    client.ok = stream_connected(s);
    snprintf(client.why, sizeof client.why, "%s", stream_why(s));
    end_close(&client, false);
    end_close(&server, false);
    core_quit(loop.core);
}

static bool garbage_for_server;

static void begin_garbage(void *arg)
{
    struct stream *ends[2];
    const char *text = arg;
    struct iovec v = {(char *)(uintptr_t)text, strlen(text)};
    pair_of_streams(ends);
    end_start(&client,
              garbage_for_server ? tls_server(ends[0], server_identity, cache) : tls_client(ends[0], &how));
    client.s->ready = on_garbage;
    server = (struct end){.s = ends[1]};
    assert_int_equal(stream_writev(ends[1], &v, 1, false), v.iov_len);
}

static void garbage(bool for_server, const char *text, const char *says)
{
    garbage_for_server = for_server;
    loop_open(&loop);
    loop_run(&loop, begin_garbage, (char *)(uintptr_t)text);
    loop_close(&loop);
    assert_true(client.done);
    assert_false(client.ok);
    assert_string_equal(client.why, says);
}

static void test_garbage(void **state)
{
    UNUSED(state);
    garbage(false, "HTTP/1.1 400 Bad Request\r\n\r\n",
            "the server does not speak TLS here: its first bytes are \"HTTP/\" (plain HTTP)");
    garbage(true, "GET /v2/ HTTP/1.1\r\n\r\n",
            "the client does not speak TLS here: its first bytes are \"GET /\" (plain HTTP)");
    garbage(false, "\x01\xffnonsense", "the server does not speak TLS here: its first bytes are \"??non\"");
    garbage(false, "\x16\x04\x04garbage...",
            "TLS: the answer is not TLS, or of a version that larder does not speak (it speaks TLS 1.2)");
    garbage(false, "\x16\x03\x03\xff\xffxxxx", "TLS: a record has an impossible length");
}

/* What the server says before it closes is told, although the client comes to know of the end when it sends. */
static void begin_last_words(void *arg)
{
    struct stream *ends[2];
    char alert[] = "\x15\x03\x03\x00\x02\x02\x30";
    struct iovec v = {alert, arg != NULL ? 7 : 3};
    pair_of_streams(ends);
    assert_int_equal(stream_writev(ends[1], &v, 1, false), v.iov_len);
    ends[0] = cutter_new(ends[0], 0, 50);
    cutter_of(ends[0])->one_way = true;
    end_start(&client, tls_client(ends[0], &how));
    client.s->ready = on_garbage;
    server = (struct end){.s = ends[1]};
}

static void test_last_words(void **state)
{
    UNUSED(state);
    loop_open(&loop);
    loop_run(&loop, begin_last_words, &loop);
    assert_string_equal(client.why, "the server refused with TLS alert 48, unknown authority: it does not "
                                    "trust the certificate it was shown");
    loop_close(&loop);
    loop_open(&loop);
    loop_run(&loop, begin_last_words, NULL); /* only a part of it */
    assert_string_equal(client.why, "in the TLS handshake: cut");
    loop_close(&loop);
}

/* ---- a peer that is never out of breath: it says nothing, or next to nothing, as fast as it can ---- */

#define TURN_MAX (600u << 10) /* of records in one turn of the loop */

struct blast {
    pthread_t thread;
    int fd;
    const char *what;     /* sent over and over; NULL: the peer shakes hands */
    size_t what_n, piece; /* and sends records with so many bytes in them */
    char why[400];
    bool shaken;
    size_t content, most_in_a_turn;
    unsigned turns;
};

static struct blast blast;

static bool all_sent(int fd, const void *p, size_t n)
{
    while (n > 0) {
        ssize_t put = send(fd, p, n, MSG_NOSIGNAL);
        if (put <= 0)
            return false;
        p = (const char *)p + put;
        n -= (size_t)put;
    }
    return true;
}

/* One step of a blocking engine. False: it has ended. */
static bool engine_turn(br_ssl_engine_context *e)
{
    size_t n;
    unsigned char *p;
    while ((p = br_ssl_engine_sendrec_buf(e, &n)) != NULL) {
        if (!all_sent(blast.fd, p, n))
            return false;
        br_ssl_engine_sendrec_ack(e, n);
    }
    if ((br_ssl_engine_current_state(e) & BR_SSL_SENDAPP) != 0)
        return true;
    p = br_ssl_engine_recvrec_buf(e, &n);
    ssize_t got = p != NULL ? recv(blast.fd, p, n, 0) : 0;
    if (got <= 0)
        return false;
    br_ssl_engine_recvrec_ack(e, (size_t)got);
    return true;
}

static void blast_records(void)
{
    static br_ssl_client_context cc;
    static br_x509_minimal_context unused;
    static unsigned char records[BR_SSL_BUFSIZE_BIDI];
    struct tls_check *check = tls_check_new(how.trust, how.host);
    br_ssl_client_init_full(&cc, &unused, NULL, 0);
    br_ssl_engine_set_x509(&cc.eng, tls_check_class(check));
    br_ssl_engine_set_buffer(&cc.eng, records, sizeof records, 1);
    assert_int_equal(br_ssl_client_reset(&cc, tls_check_sni(check), 0), 1);
    while (engine_turn(&cc.eng)) {
        size_t n;
        unsigned char *p = br_ssl_engine_sendapp_buf(&cc.eng, &n);
        if (p == NULL)
            continue;
        memset(p, 'x', blast.piece);
        if (blast.piece > 0)
            br_ssl_engine_sendapp_ack(&cc.eng, blast.piece);
        br_ssl_engine_flush(&cc.eng, 1);
    }
    tls_check_free(check);
}

static void *blast_run(void *arg)
{
    UNUSED(arg);
    if (blast.what == NULL)
        blast_records();
    while (blast.what != NULL && all_sent(blast.fd, blast.what, blast.what_n))
        continue;
    return NULL;
}

static void blast_over(void)
{
    snprintf(blast.why, sizeof blast.why, "%s", stream_why(server.s));
    end_close(&server, true);
    core_quit(loop.core);
}

/* As an owner reads that wants all it can get. */
static void on_blast(struct stream *s, unsigned events)
{
    UNUSED(events);
    if (!blast.shaken && !stream_connected(s)) {
        blast_over();
        return;
    }
    blast.shaken = true;
    blast.turns++;
    stream_want(s, STREAM_READ);
    ssize_t n;
    size_t turn = 0;
    while ((n = stream_recv(s, buf, BUF_MAX)) > 0)
        turn += (size_t)n;
    blast.content += turn;
    if (turn > blast.most_in_a_turn)
        blast.most_in_a_turn = turn;
    if (n != STREAM_AGAIN || blast.content > (256u << 10))
        blast_over();
}

static void begin_blast(void *arg)
{
    int fds[2];
    UNUSED(arg);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    end_start(&server, tls_server(tcp_accepted(loop.core, fds[0]), server_identity, NULL));
    server.s->ready = on_blast;
    blast.fd = fds[1];
    assert_int_equal(pthread_create(&blast.thread, NULL, blast_run, NULL), 0);
}

static void blast_through(const char *what, size_t what_n, size_t piece)
{
    blast = (struct blast){.what = what, .what_n = what_n, .piece = piece};
    loop_open(&loop);
    loop_run(&loop, begin_blast, NULL);
    loop_close(&loop);
    assert_int_equal(pthread_join(blast.thread, NULL), 0);
    close(blast.fd);
}

static void test_blasts(void **state)
{
    static const char empty[] = {0x15, 3, 3, 0, 0};
    static char warnings[5 + 0x4000] = {0x15, 3, 3, 0x40, 0};
    UNUSED(state);
    for (size_t i = 5; i < sizeof warnings; i++)
        warnings[i] = i % 2 != 0 ? 1 : 90;
    blast_through(empty, sizeof empty, 0);
    assert_string_equal(blast.why, "the peer sends more than a TLS handshake can have");
    blast_through(warnings, sizeof warnings, 0);
    assert_string_equal(blast.why, "the peer sends more than a TLS handshake can have");
    blast_through(NULL, 0, 0);
    assert_true(blast.shaken);
    assert_string_equal(blast.why, "the peer sends TLS records with nothing in them");
    blast_through(NULL, 0, 1); /* there is something in each */
    assert_string_equal(blast.why, "closed by the peer");
    assert_in_range(blast.most_in_a_turn, 1, TURN_MAX / (5 + 1 + 16)); /* a record without a nonce in it */
}

/* ---- sessions ---- */

static struct tls_session session;

static void shake_again(bool resumed)
{
    handshake();
    if (!client.ok)
        fail_msg("%s", client.why);
    assert_true(server.ok);
    assert_int_equal(client.resumed, resumed);
    assert_int_equal(server.resumed, resumed);
}

static void test_sessions(void **state)
{
    UNUSED(state);
    static const struct tls_session none;
    struct tls_client before = how;
    how.session = &session;
    shake_again(false); /* a server without a cache */
    shake_again(false);
    cache = tls_cache_new();
    shake_again(false);
    assert_memory_not_equal(&session, &none, sizeof none);
    shake_again(true);
    shake_again(true);
    how.session = NULL;
    shake_again(false);
    how.session = &session;
    shake_again(true);
    struct tls_cache *first = cache;
    cache = tls_cache_new(); /* the server was started anew */
    shake_again(false);
    shake_again(true);
    tls_session_clear(&session);
    assert_memory_equal(&session, &none, sizeof none);
    shake_again(false);
    shake_again(true);
    tls_cache_free(first);
    tls_cache_free(cache);
    cache = NULL;
    how = before;
}

/* How far the wall clock is ahead. */
static time_t clock_ahead;

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME)
        now->tv_sec += clock_ahead;
    return result;
}

#define LAST 2051222400 /* 2035-01-01T00:00:00Z */

/* However often it is resumed, a session is offered for an hour, and not longer than its certificate is good. */
static void test_session_grows_old(void **state)
{
    UNUSED(state);
    struct tls_client before = how;
    const struct identity *leaf = server_identity;
    how.session = &session;
    cache = tls_cache_new();
    shake_again(false);
    for (clock_ahead = 0; clock_ahead < 3600; clock_ahead += 1190)
        shake_again(true);
    clock_ahead = 3610;
    shake_again(false);
    shake_again(true);
    pki_make(&(struct pki_how){"ends", .cn = "leaf.test", .issuer = "root", .names = "DNS:leaf.test",
                               .until = "20350101000000Z"});
    struct identity *ends = identity_of(pki_text("ends", NULL), "ends");
    server_identity = ends;
    time_t now = time(NULL);
    clock_ahead = LAST - 600 - now;
    shake_again(false);
    clock_ahead = LAST - 60 - now;
    shake_again(true);
    clock_ahead = LAST + 60 - now;
    handshake();
    assert_false(client.ok);
    assert_non_null(strstr(client.why, "expired"));
    clock_ahead = 0;
    server_identity = leaf;
    identity_unref(ends);
    tls_cache_free(cache);
    cache = NULL;
    how = before;
}

/* A handshake that resumes one session, while those of others with the same place bring another one, or fail. */

static struct tls_session meanwhile;

static void begin_with_others(void *arg)
{
    begin_handshake(arg);
    session = meanwhile;
}

static void shake_with_others(const struct tls_session *first)
{
    session = *first;
    loop_open(&loop);
    loop_run(&loop, begin_with_others, NULL);
    loop_close(&loop);
    assert_true(client.ok && client.resumed);
    assert_true(tls_session_is_some(&session));
    assert_int_equal(session.until_ms, first->until_ms);
}

static void test_session_beside_others(void **state)
{
    UNUSED(state);
    struct tls_client before = how;
    how.session = &session;
    struct tls_cache *first = cache = tls_cache_new(), *other = tls_cache_new();
    tls_session_clear(&session);
    shake_again(false);
    struct tls_session old = session;
    tls_session_clear(&session);
    clock_ahead = 600;
    cache = other;
    shake_again(false);
    meanwhile = session;
    assert_in_range(meanwhile.until_ms - old.until_ms, 599000, 700000);
    cache = first;
    shake_with_others(&old);
    tls_session_clear(&meanwhile);
    shake_with_others(&old);
    clock_ahead = 0;
    tls_cache_free(first);
    tls_cache_free(other);
    cache = NULL;
    how = before;
}

/* A session does not outlive a failed handshake. */
static void test_session_of_a_failure(void **state)
{
    UNUSED(state);
    static const struct tls_session none;
    struct tls_client before = how;
    how.session = &session;
    cache = tls_cache_new();
    shake_again(false);
    shake_again(true);
    how.host = SPAN("wrong.test");
    tls_cache_free(cache);
    cache = tls_cache_new();
    handshake();
    assert_false(client.ok);
    assert_memory_equal(&session, &none, sizeof none);
    tls_cache_free(cache);
    cache = NULL;
    how = before;
}

/* ---- what it costs ---- */

#define PAIRS 150

static struct end many[PAIRS][2];
static unsigned shaken;

/* Bytes of this process that core dumps leave out: the record buffers, and whatever was so before. */
static size_t undumped(void)
{
    char line[512];
    size_t all = 0, kib = 0;
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "Size:", 5) == 0)
            kib = (size_t)strtoul(line + 5, NULL, 10);
        if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dd") != NULL)
            all += kib << 10;
    }
    fclose(f);
    return all;
}

static size_t buffers_before, heap_before, buffers_idle, heap_idle;

static void on_one_of_many(struct stream *s, unsigned events)
{
    struct end *e = s->owner;
    if ((events & STREAM_WRITE) != 0) {
        assert_true(stream_connected(s));
        stream_want(s, STREAM_READ);
        assert_int_equal(put(s, 20000, false), 20000);
        return;
    }
    for (ssize_t n; (n = stream_recv(s, buf, sizeof buf)) > 0;)
        e->why[0] = (char)(e->why[0] + n / 10000);
    if (e->why[0] != 2 || e->done)
        return;
    e->done = true;
    if (++shaken < 2 * PAIRS)
        return;
    buffers_idle = undumped();
    heap_idle = mallinfo2().uordblks;
    for (unsigned i = 0; i < PAIRS; i++)
        for (unsigned k = 0; k < 2; k++)
            end_close(&many[i][k], false);
    core_quit(loop.core);
}

static void begin_many(void *arg)
{
    UNUSED(arg);
    buffers_before = undumped();
    heap_before = mallinfo2().uordblks;
    for (unsigned i = 0; i < PAIRS; i++) {
        struct stream *ends[2];
        pair_of_streams(ends);
        end_start(&many[i][0], tls_client(ends[0], &how));
        end_start(&many[i][1], tls_server(ends[1], server_identity, cache));
        many[i][0].s->ready = many[i][1].s->ready = on_one_of_many;
    }
}

static void test_idle_cost(void **state)
{
    UNUSED(state);
    shaken = 0;
    loop_open(&loop);
    loop_run(&loop, begin_many, NULL);
    loop_close(&loop);
    assert_int_equal(shaken, 2 * PAIRS);
    /* all are idle: only spare buffers are left, however many there were */
    assert_in_range(buffers_idle, 0, buffers_before + 64 * 20480);
    /* under a sanitizer mallinfo counts nothing */
    assert_in_range(heap_idle, 0, heap_before + PAIRS * 12 * 1024);
}

/* ---- secrets ---- */

#define SECRET "what only the two of us know"
#define SPARES 8 /* more than two streams leave behind */

static bool secret_left;

static void look_into_spares(void)
{
    void *buffers[SPARES];
    for (unsigned i = 0; i < SPARES; i++) {
        buffers[i] = tls_buffer_take(loop.core);
        secret_left =
            secret_left || memmem(buffers[i], TLS_BUFFER, &SECRET[8], sizeof SECRET - 1 - 8) != NULL;
    }
    for (unsigned i = 0; i < SPARES; i++)
        tls_buffer_give(loop.core, buffers[i]);
}

static void on_secret(struct stream *s, unsigned events)
{
    char secret[64];
    UNUSED(events);
    ssize_t n = stream_recv(s, secret, sizeof secret);
    if (n == STREAM_AGAIN)
        return;
    assert_int_equal(n, sizeof SECRET - 1);
    look_into_spares();
    ends_close();
}

static void tell_secret(void)
{
    struct iovec v = {(char *)(uintptr_t)SECRET, sizeof SECRET - 1};
    tls_secret(client.s, true);
    client.s->ready = on_secret;
    stream_want(client.s, STREAM_READ);
    assert_int_equal(stream_writev(server.s, &v, 1, false), sizeof SECRET - 1);
}

/* No record that was decrypted stays in a buffer that others get. */
static void test_secret(void **state)
{
    UNUSED(state);
    ends_shaken = tell_secret;
    handshake();
    assert_false(secret_left);
    ends_shaken = NULL;
}

/* ---- the rest ---- */

static void begin_plain(void *arg)
{
    struct stream *ends[2];
    UNUSED(arg);
    pair_of_streams(ends);
    assert_false(tls_is(ends[0]));
    assert_true(tls_ended_well(ends[0]));
    assert_false(tls_resumed(ends[0]));
    stream_close(ends[0], false);
    stream_close(ends[1], false);
    core_quit(loop.core);
}

static void test_plain(void **state)
{
    UNUSED(state);
    loop_open(&loop);
    loop_run(&loop, begin_plain, NULL);
    loop_close(&loop);
}

/* Transfers in the middle of the handshake wait; closing there is quiet. */
static void begin_early(void *arg)
{
    struct stream *ends[2];
    UNUSED(arg);
    pair_of_streams(ends);
    client = (struct end){.s = tls_client(ends[0], &how)};
    server = (struct end){.s = tls_server(ends[1], server_identity, cache)};
    for (unsigned i = 0; i < 2; i++) {
        struct stream *s = i == 0 ? client.s : server.s;
        assert_true(tls_is(s));
        assert_false(stream_connected(s));
        assert_false(stream_idle_ok(s));
        assert_int_equal(put(s, 10, false), STREAM_AGAIN);
        assert_int_equal(stream_recv(s, buf, 10), STREAM_AGAIN);
        assert_int_equal(stream_sendfile(s, 0, 0, 10, false), STREAM_AGAIN);
        assert_string_equal(stream_why(s), "the TLS handshake is not over");
        stream_shut(s);
    }
    end_close(&client, false);
    end_close(&server, true);
    core_quit(loop.core);
}

static void test_early(void **state)
{
    UNUSED(state);
    loop_open(&loop);
    loop_run(&loop, begin_early, NULL);
    loop_close(&loop);
}

static int setup(void **state)
{
    UNUSED(state);
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Test Root", .authority = true});
    pki_make(&(struct pki_how){"leaf", .cn = "leaf.test", .issuer = "root", .names = "DNS:leaf.test"});
    how = (struct tls_client){.trust = trust_of(pki_text("root", NULL)), .host = SPAN("leaf.test")};
    server_identity = identity_of(pki_text("leaf", NULL), "leaf");
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    trust_unref(how.trust);
    identity_unref(server_identity);
    pki_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_early),
        cmocka_unit_test(test_one_way),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_bytes_cut),
        cmocka_unit_test(test_tls_in_tls),
        cmocka_unit_test(test_from_a_file),
        cmocka_unit_test(test_plaintext_in_silence),
        cmocka_unit_test(test_told_again),
        cmocka_unit_test(test_more),
        cmocka_unit_test(test_full_and_closed),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_shut),
        cmocka_unit_test(test_idle_ok),
        cmocka_unit_test(test_file_turns),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_last_words),
        cmocka_unit_test(test_blasts),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_session_grows_old),
        cmocka_unit_test(test_session_beside_others),
        cmocka_unit_test(test_session_of_a_failure),
        cmocka_unit_test(test_idle_cost),
        cmocka_unit_test(test_secret),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
