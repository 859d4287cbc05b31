/* Listening: addresses, ports in use, several sockets on one port, want of descriptors, stopping from within. */
#include "../base/child.h"
#include "../core/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "net/listen.h"

static struct loop loop;
static char text[512];

static struct sockaddr_in at(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static bool try_open(const char *host, uint16_t port, unsigned n, int fds[], uint16_t *got)
{
    struct str why = STR_INIT(text);
    return listen_open(span_str(host), port, false, n, fds, got, &why);
}

/* ---- opening ---- */

static void test_one_port_for_all(void **state)
{
    UNUSED(state);
    int fds[4], other[4];
    uint16_t port = 0, port_2 = 0;
    assert_true(try_open("127.0.0.1", 0, 4, fds, &port));
    assert_true(port != 0);
    for (unsigned i = 0; i < 4; i++) {
        struct sockaddr_in a;
        socklen_t n = sizeof a;
        assert_int_equal(getsockname(fds[i], (struct sockaddr *)&a, &n), 0);
        assert_int_equal(ntohs(a.sin_port), port);
    }
    /* SO_REUSEPORT would let a second process in; we do not */
    assert_false(try_open("127.0.0.1", port, 4, other, &port_2));
    assert_non_null(strstr(text, "127.0.0.1"));
    assert_non_null(strstr(text, "Address already in use"));
    for (unsigned i = 0; i < 4; i++)
        close(fds[i]);
    assert_true(try_open("127.0.0.1", port, 1, fds, &port_2)); /* free again */
    assert_int_equal(port_2, port);
    close(fds[0]);
}

static void test_refused_addresses(void **state)
{
    UNUSED(state);
    static const struct {
        const char *host, *says;
    } cases[] = {
        {"localhost", "not an IP address"},
        {"", "not an IP address"},
        {"127.0.0.1.1", "not an IP address"},
        {"1111111111111111111111111111111111111111111111111111111111111111111111", "not an IP address"},
        {"192.0.2.1", "this machine does not have that address"},
    };
    int fds[1];
    uint16_t port;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_false(try_open(cases[i].host, 0, 1, fds, &port));
        if (strstr(text, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].host, text);
    }
}

/* ---- accepting ---- */

#define CLIENTS 40

static struct listener *listener;
static int listening, clients[CLIENTS], accepted[CLIENTS * 2];
static unsigned n_accepted, stop_at;
static int spare = -1; /* another listening socket, with a connection that waits */

static void on_accepted(struct core *core, int fd, void *arg)
{
    MUST(core == loop.core && arg == &listener);
    MUST((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    accepted[n_accepted++] = fd;
    if (n_accepted == stop_at) {
        listener_stop(listener);
        if (spare >= 0) /* the number is somebody else's at once */
            MUST(dup2(spare, listening) == listening);
        core_quit(loop.core);
    }
}

static void connect_all(uint16_t port)
{
    struct sockaddr_in to = at(port);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        MUST(clients[i] >= 0 && connect(clients[i], (struct sockaddr *)&to, sizeof to) == 0);
    }
}

static void begin_accepting(void *arg)
{
    UNUSED(arg);
    listener = listener_start(loop.core, listening, on_accepted, &listener);
}

static void accept_run(void (*begin)(void *arg), unsigned stop)
{
    uint16_t port;
    MUST(try_open("127.0.0.1", 0, 1, &listening, &port));
    n_accepted = 0;
    stop_at = stop;
    loop_open(&loop);
    connect_all(port);
    loop_run(&loop, begin, NULL);
    loop_close(&loop);
    for (unsigned i = 0; i < n_accepted; i++) {
        assert_int_equal(send(accepted[i], "x", 1, MSG_NOSIGNAL),
                         1); /* ours, whatever became of the listener */
        close(accepted[i]);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        close(clients[i]);
}

static void test_accept(void **state)
{
    UNUSED(state);
    accept_run(begin_accepting, CLIENTS);
    assert_int_equal(n_accepted, CLIENTS);
}

static void take_all_and_stop(void *arg)
{
    begin_accepting(arg);
    listener_take_all(listener);
    listener_stop(listener);
    core_quit(loop.core);
}

/* Who has connected is taken, although the loop had no time for it before the stop. */
static void test_taken_before_a_stop(void **state)
{
    UNUSED(state);
    accept_run(take_all_and_stop, UINT_MAX);
    assert_int_equal(n_accepted, CLIENTS);
}

/* Stopped in the middle of a batch: nothing more is accepted. */
static void test_stopped_from_within(void **state)
{
    UNUSED(state);
    uint16_t port;
    assert_true(try_open("127.0.0.1", 0, 1, &spare, &port));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = at(port);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    accept_run(begin_accepting, 3);
    assert_int_equal(n_accepted, 3);
    close(listening);
    close(spare);
    spare = -1;
    close(fd);
}

/* ---- no descriptors ---- */

static struct timer poll_timer;
static struct rlimit before;

static void on_poll(struct timer *t)
{
    struct counters *c = core_counters(loop.core);
    if (atomic_load(&c->accept_pauses) == 0) {
        timer_arm(loop.core, t, 1);
        return;
    }
    MUST(n_accepted < CLIENTS);
    MUST(setrlimit(RLIMIT_NOFILE, &before) == 0); /* and it goes on by itself */
}

static void begin_short(void *arg)
{
    begin_accepting(arg);
    timer_init(&poll_timer, on_poll);
    timer_arm(loop.core, &poll_timer, 1);
    int lowest = dup(0);
    MUST(lowest >= 0);
    close(lowest);
    struct rlimit few = before;
    few.rlim_cur = (rlim_t)lowest + 3; /* three more */
    MUST(setrlimit(RLIMIT_NOFILE, &few) == 0);
}

static void out_of_descriptors(void)
{
    uint16_t port;
    MUST(getrlimit(RLIMIT_NOFILE, &before) == 0);
    MUST(try_open("127.0.0.1", 0, 1, &listening, &port));
    stop_at = CLIENTS;
    loop_open(&loop);
    connect_all(port);
    loop_run(&loop, begin_short, NULL);
    MUST(n_accepted == CLIENTS);
    MUST(atomic_load(&core_counters(loop.core)->accept_pauses) >= 1);
    loop_close(&loop);
}

/* Stopped while it pauses. */

static void on_poll_stop(struct timer *t)
{
    if (atomic_load(&core_counters(loop.core)->accept_pauses) == 0) {
        timer_arm(loop.core, t, 1);
        return;
    }
    listener_stop(listener);
    core_quit(loop.core);
}

static void begin_short_stop(void *arg)
{
    begin_short(arg);
    poll_timer.fire = on_poll_stop;
}

static void stopped_while_pausing(void)
{
    uint16_t port;
    MUST(getrlimit(RLIMIT_NOFILE, &before) == 0);
    MUST(try_open("127.0.0.1", 0, 1, &listening, &port));
    stop_at = CLIENTS;
    loop_open(&loop);
    connect_all(port);
    loop_run(&loop, begin_short_stop, NULL);
    MUST(n_accepted < CLIENTS);
    loop_close(&loop);
}

static void test_out_of_descriptors(void **state)
{
    UNUSED(state);
    void (*const cases[])(void) = {out_of_descriptors, stopped_while_pausing};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct child c = child_run(cases[i]);
        if (c.signal != 0 || c.status != 0)
            fail_msg("case %zu: signal %d, status %d: %s", i, c.signal, c.status, c.text);
    }
}

static void test_stop_nothing(void **state)
{
    UNUSED(state);
    listener_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_port_for_all),
        cmocka_unit_test(test_refused_addresses),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_taken_before_a_stop),
        cmocka_unit_test(test_stopped_from_within),
        cmocka_unit_test(test_out_of_descriptors),
        cmocka_unit_test(test_stop_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
