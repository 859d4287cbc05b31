/* TCP streams over real loopback sockets: connecting, refusal, transfers, lazy arming, a clean end and a reset, what came before
 * a reset, closing from within the callback. */
#include "../core/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/stream.h"

static struct loop loop;

/* Two ends: `s` is ours, `fd` is the other, a plain socket that does not block. */
static struct stream *s;
static int fd, listener;
static uint16_t port;
static struct timer tick;
static unsigned ready_n, turns;
static char got[64];
static size_t got_n;
static ssize_t last;

static void listen_anywhere(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &n), 0);
    port = ntohs(a.sin_port);
}

static struct resolve_addr here(uint16_t to)
{
    struct resolve_addr a = {.len = sizeof a.u.v4};
    a.u.v4 = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return a;
}

static void run(void (*begin)(void *arg))
{
    s = NULL;
    fd = -1;
    ready_n = turns = 0;
    got_n = 0;
    last = 1;
    listen_anywhere();
    loop_open(&loop);
    loop_run(&loop, begin, NULL);
    loop_close(&loop);
    if (fd >= 0)
        close(fd);
    close(listener);
}

/* Accepts on the core: our end `s` from the outside connection `fd`. */
static void accept_one(void (*ready)(struct stream *s, unsigned events))
{
    struct resolve_addr to = here(port);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    MUST(fd >= 0 && connect(fd, &to.u.sa, to.len) == 0);
    int in = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    MUST(in >= 0);
    s = tcp_accepted(loop.core, in);
    MUST(s != NULL);
    s->ready = ready;
}

static void end(bool reset)
{
    stream_close(s, reset);
    timer_disarm(&tick);
    core_quit(loop.core);
}

/* ---- connecting ---- */

static void on_connected(struct stream *st, unsigned events)
{
    MUST(events == STREAM_WRITE && stream_connected(st));
    ready_n++;
    struct iovec v[2] = {{(char[]){"he"}, 2}, {(char[]){"llo"}, 3}};
    MUST(stream_writev(st, v, 2, true) == 5);
    stream_shut(st);
    char buf[16];
    int in = accept(listener, NULL, NULL);
    while ((last = recv(in, buf, sizeof buf, 0)) > 0) {
        memcpy(got + got_n, buf, (size_t)last);
        got_n += (size_t)last;
    }
    close(in);
    end(false);
}

static void begin_connect(void *arg)
{
    UNUSED(arg);
    const char *why = NULL;
    struct resolve_addr to = here(port);
    s = tcp_connect(loop.core, &to, &why);
    MUST(s != NULL);
    s->ready = on_connected;
    stream_want(s, STREAM_WRITE);
}

static void test_connect(void **state)
{
    UNUSED(state);
    run(begin_connect);
    assert_int_equal(ready_n, 1);
    assert_int_equal(got_n, 5);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(last, 0);
}

static char why_text[128];

static void on_refused(struct stream *st, unsigned events)
{
    UNUSED(events);
    MUST(!stream_connected(st));
    ready_n++;
    snprintf(why_text, sizeof why_text, "%s", stream_why(st));
    end(false);
}

static void begin_refused(void *arg)
{
    UNUSED(arg);
    const char *why = NULL;
    struct resolve_addr to = here(port);
    close(listener);
    listener = -1;
    s = tcp_connect(loop.core, &to, &why);
    MUST(s != NULL);
    s->ready = on_refused;
    stream_want(s, STREAM_WRITE);
}

static void test_refused(void **state)
{
    UNUSED(state);
    run(begin_refused);
    assert_int_equal(ready_n, 1);
    assert_string_equal(why_text, "Connection refused");
}

/* Given up while it connects. */
static void begin_given_up(void *arg)
{
    begin_connect(arg);
    end(true);
}

static void test_given_up_while_connecting(void **state)
{
    UNUSED(state);
    run(begin_given_up);
    assert_int_equal(ready_n, 0);
}

/* ---- what is wanted, and what is told ---- */

static void on_wanted(struct stream *st, unsigned events)
{
    ready_n++;
    MUST(events == STREAM_READ);
    last = stream_recv(st, got + got_n, 1); /* one byte at a time: the rest makes it ready again */
    MUST(last == 1);
    got_n++;
    if (got_n == 3) {
        MUST(stream_recv(st, got, 1) == STREAM_AGAIN);
        stream_want(st, 0);
        MUST(send(fd, "x", 1, 0) == 1); /* readable, but not wanted */
    }
}

static void on_tick(struct timer *t)
{
    if (++turns < 4) {
        timer_arm(loop.core, t, 1);
        return;
    }
    MUST(ready_n == 3);
    if (turns == 4) { /* wanted again: told of what came meanwhile */
        stream_want(s, STREAM_READ);
        timer_arm(loop.core, t, 1);
        return;
    }
    UNUSED(t);
}

static void on_late_tick(struct timer *t)
{
    UNUSED(t);
    if (got_n < 4) {
        timer_arm(loop.core, t, 1);
        return;
    }
    end(false);
}

static void on_tick_then_wait(struct timer *t)
{
    on_tick(t);
    if (turns >= 4)
        t->fire = on_late_tick;
}

static void begin_wanted(void *arg)
{
    UNUSED(arg);
    accept_one(on_wanted);
    stream_want(s, STREAM_READ);
    MUST(send(fd, "abc", 3, 0) == 3);
    timer_init(&tick, on_tick_then_wait);
    timer_arm(loop.core, &tick, 1);
}

static void test_wanted(void **state)
{
    UNUSED(state);
    run(begin_wanted);
    assert_memory_equal(got, "abcx", 4);
    assert_int_equal(ready_n, 4);
}

/* ---- ends ---- */

static void on_end(struct stream *st, unsigned events)
{
    UNUSED(events);
    char buf[64];
    last = stream_recv(st, buf, sizeof buf);
    if (last == STREAM_AGAIN)
        return;
    ready_n++;
    if (last > 0) {
        MUST(got_n + (size_t)last <= sizeof got);
        memcpy(got + got_n, buf, (size_t)last);
        got_n += (size_t)last;
        return; /* still wanted: the end must be told, too */
    }
    end(false);
}

static void begin_end(void *arg)
{
    UNUSED(arg);
    accept_one(on_end);
    MUST(send(fd, "bye", 3, 0) == 3);
    shutdown(fd, SHUT_WR);
    stream_want(s, STREAM_READ);
}

static void test_clean_end(void **state)
{
    UNUSED(state);
    run(begin_end);
    assert_int_equal(got_n, 3);
    assert_int_equal(last, 0);
}

static void reset_other(void)
{
    struct linger l = {.l_onoff = 1, .l_linger = 0};
    MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
    close(fd);
    fd = -1;
}

/* The bytes and the reset are there at once: the error condition is told first, the read takes the bytes, and the reset has to be
 * told again. */
static void begin_reset(void *arg)
{
    UNUSED(arg);
    accept_one(on_end);
    MUST(send(fd, "bye", 3, 0) == 3);
    reset_other();
    stream_want(s, STREAM_READ);
}

static void test_reset_behind_bytes(void **state)
{
    UNUSED(state);
    run(begin_reset);
    assert_int_equal(got_n, 3);
    assert_memory_equal(got, "bye", 3);
    assert_int_equal(last, STREAM_BROKEN);
}

/* Ours resets: the other side sees no clean end. */
static void begin_our_reset(void *arg)
{
    UNUSED(arg);
    accept_one(on_end);
    end(true);
    last = recv(fd, got, sizeof got, 0);
    MUST(last >= 0 || errno == ECONNRESET);
}

static void test_our_reset(void **state)
{
    UNUSED(state);
    run(begin_our_reset);
    assert_int_equal(last, -1);
}

/* ---- full, and sendfile ---- */

static int file;
static uint64_t sent, taken;

static void on_writable(struct stream *st, unsigned events)
{
    MUST(events == STREAM_WRITE);
    ready_n++;
    end(false);
    UNUSED(st);
}

static void begin_full(void *arg)
{
    UNUSED(arg);
    accept_one(on_writable);
    ssize_t put;
    MUST(stream_sendfile(s, file, 100000, 10, true) == 0); /* there is nothing there */
    while ((put = stream_sendfile(s, file, (off_t)(sent % 50000), 50000, true)) > 0)
        sent += (uint64_t)put;
    MUST(put == STREAM_AGAIN);
    struct iovec v = {got, 1};
    MUST(stream_writev(s, &v, 1, false) == STREAM_AGAIN);
    stream_want(s, STREAM_WRITE);
    static char sink[65536];
    while ((put = recv(fd, sink, sizeof sink, MSG_DONTWAIT)) > 0) /* makes room */
        taken += (uint64_t)put;
}

static void test_full(void **state)
{
    UNUSED(state);
    char name[] = "tcp-test-XXXXXX", bytes[1000] = {0};
    file = mkstemp(name);
    assert_true(file >= 0);
    unlink(name);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(write(file, bytes, sizeof bytes), sizeof bytes);
    sent = taken = 0;
    run(begin_full);
    assert_true(sent > 0 && taken > 0);
    assert_int_equal(ready_n, 1);
    close(file);
}

/* ---- idle ---- */

static void begin_idle(void *arg)
{
    UNUSED(arg);
    accept_one(on_end);
    bool quiet = stream_idle_ok(s);
    MUST(send(fd, "x", 1, 0) == 1);
    while (stream_idle_ok(s))
        usleep(100);
    ready_n = quiet;
    end(false);
}

static void begin_idle_closed(void *arg)
{
    UNUSED(arg);
    accept_one(on_end);
    bool quiet = stream_idle_ok(s);
    shutdown(fd, SHUT_WR);
    while (stream_idle_ok(s))
        usleep(100);
    ready_n = quiet;
    end(false);
}

static void test_idle_ok(void **state)
{
    UNUSED(state);
    run(begin_idle);
    assert_int_equal(ready_n, 1);
    run(begin_idle_closed);
    assert_int_equal(ready_n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_given_up_while_connecting),
        cmocka_unit_test(test_wanted),
        cmocka_unit_test(test_clean_end),
        cmocka_unit_test(test_reset_behind_bytes),
        cmocka_unit_test(test_our_reset),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_idle_ok),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
