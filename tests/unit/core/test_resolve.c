/* Name resolution: literals at once, what is no name at once, a name that the system knows, one that nobody knows, several
 * waiters for one look-up, a cancelled wait, names of strangers, addresses that are stale. */
#include "loop.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#define WAITERS 5

static struct loop loop;
static struct resolve_wait wait[WAITERS];
static unsigned n_done, n_expected;
static bool at_once;

static void on_done(struct resolve_wait *w)
{
    MUST(!list_linked(&w->node));
    if (++n_done == n_expected)
        core_quit(loop.core);
}

static void prepare(void)
{
    n_done = 0;
    for (unsigned i = 0; i < WAITERS; i++)
        wait[i] = (struct resolve_wait){.done = on_done};
}

static void run(void (*begin)(void *arg), unsigned expected)
{
    n_expected = expected;
    prepare();
    loop_open(&loop);
    loop_run(&loop, begin, NULL);
    loop_close(&loop);
}

/* ---- at once ---- */

static void begin_literals(void *arg)
{
    UNUSED(arg);
    char longest[400];
    memset(longest, 'a', sizeof longest);
    at_once = resolve_start(loop.core, SPAN("127.0.0.1"), 80, &wait[0]) &&
              resolve_start(loop.core, SPAN("::1"), 65535, &wait[1]) &&
              resolve_start(loop.core, SPAN(""), 1, &wait[2]) &&
              resolve_start(loop.core, span_of(longest, sizeof longest), 1, &wait[3]) &&
              resolve_start(loop.core, span_of("a\0b", 3), 1, &wait[4]);
    core_quit(loop.core);
}

static void test_at_once(void **state)
{
    UNUSED(state);
    run(begin_literals, 0);
    assert_true(at_once);
    assert_int_equal(wait[0].answer.n, 1);
    assert_int_equal(wait[0].answer.addr[0].u.v4.sin_port, htons(80));
    assert_int_equal(wait[0].answer.addr[0].u.v4.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(wait[1].answer.n, 1);
    assert_int_equal(wait[1].answer.addr[0].u.sa.sa_family, AF_INET6);
    assert_int_equal(wait[1].answer.addr[0].u.v6.sin6_port, htons(65535));
    for (unsigned i = 2; i < WAITERS; i++) {
        assert_int_equal(wait[i].answer.n, 0);
        assert_non_null(wait[i].answer.why);
    }
}

/* ---- looked up ---- */

static void begin_localhost(void *arg)
{
    UNUSED(arg);
    at_once = false;
    for (unsigned i = 0; i < WAITERS; i++)
        at_once |= resolve_start(loop.core, SPAN("localhost"), (uint16_t)(100 + i), &wait[i]);
    resolve_cancel(&wait[2]);
    resolve_cancel(&wait[2]);
}

static void test_shared_and_cancelled(void **state)
{
    UNUSED(state);
    run(begin_localhost, WAITERS - 1);
    assert_false(at_once);
    assert_int_equal(n_done, WAITERS - 1);
    assert_int_equal(wait[2].answer.n, 0);
    for (unsigned i = 0; i < WAITERS; i++) {
        if (i == 2)
            continue;
        assert_true(wait[i].answer.n >= 1);
        assert_null(wait[i].answer.why);
        for (unsigned k = 0; k < wait[i].answer.n; k++) { /* the port is at the same place in both families */
            assert_int_equal(wait[i].answer.addr[k].u.v4.sin_port, htons((uint16_t)(100 + i)));
        }
    }
}

/* All waiters cancelled: the look-up ends by itself, and the loop after it. */
static void begin_all_cancelled(void *arg)
{
    UNUSED(arg);
    at_once = resolve_start(loop.core, SPAN("localhost"), 1, &wait[0]);
    resolve_cancel(&wait[0]);
    core_quit(loop.core);
}

static void test_all_cancelled(void **state)
{
    UNUSED(state);
    run(begin_all_cancelled, 0);
    assert_false(at_once);
    assert_int_equal(n_done, 0);
}

/* A failure is kept: the second question is answered at once. So is an address. */

static void on_failed(struct resolve_wait *w)
{
    n_done++;
    at_once = resolve_start(loop.core, SPAN("no-such-name.invalid"), 1, &wait[1]) && w->answer.n == 0 &&
              wait[1].answer.why == w->answer.why;
    core_quit(loop.core);
}

static void begin_failed(void *arg)
{
    UNUSED(arg);
    wait[0].done = on_failed;
    MUST(!resolve_start(loop.core, SPAN("no-such-name.invalid"), 1, &wait[0]));
}

static void test_failure_is_kept(void **state)
{
    UNUSED(state);
    run(begin_failed, 1);
    assert_int_equal(n_done, 1);
    assert_non_null(wait[0].answer.why);
    assert_true(at_once);
}

static void on_known(struct resolve_wait *w)
{
    n_done++;
    at_once = resolve_start(loop.core, SPAN("localhost"), 7, &wait[1]) && w->answer.n == wait[1].answer.n &&
              wait[1].answer.addr[0].u.v4.sin_port == htons(7);
    core_quit(loop.core);
}

static void begin_known(void *arg)
{
    UNUSED(arg);
    wait[0].done = on_known;
    MUST(!resolve_start(loop.core, SPAN("localhost"), 5, &wait[0]));
}

static void test_address_is_kept(void **state)
{
    UNUSED(state);
    run(begin_known, 1);
    assert_true(wait[0].answer.n >= 1);
    assert_true(at_once);
}

/* ---- names with many addresses: the system's look-up, for names below .test ---- */

/* "slow..." waits for `slow_go`. "4464.test" has four addresses in this order: the first IPv4 one, the second, the first IPv6 one, and so on; "=": the one before once
 * more. */
static struct addrinfo *made_up(char c, unsigned k)
{
    struct addrinfo *ai = calloc(1, sizeof *ai + sizeof(struct sockaddr_in6));
    MUST(ai != NULL);
    ai->ai_addr = (struct sockaddr *)(ai + 1);
    ai->ai_family = ai->ai_addr->sa_family = c == '4' ? AF_INET : AF_INET6;
    if (c == '4') {
        struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ai->ai_addr;
        v4->sin_addr.s_addr = htonl(0x0a000000 + k);
        ai->ai_addrlen = sizeof *v4;
    } else {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ai->ai_addr;
        v6->sin6_addr.s6_addr[0] = 0xfd;
        v6->sin6_addr.s6_addr[15] = (uint8_t)k;
        ai->ai_addrlen = sizeof *v6;
    }
    return ai;
}

static sem_t slow_go;
static _Atomic unsigned n_slow;

typedef int look_up_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    size_t n = node != NULL ? strcspn(node, ".") : 0;
    if (n == 0 || strcmp(node + n, ".test") != 0) {
        look_up_fn *real = (look_up_fn *)(uintptr_t)dlsym(RTLD_NEXT, "getaddrinfo");
        MUST(real != NULL);
        return real(node, service, hints, out);
    }
    unsigned k4 = 0, k6 = 0;
    char last = '4';
    *out = NULL;
    if (strncmp(node, "slow", 4) == 0) {
        atomic_fetch_add(&n_slow, 1);
        while (sem_wait(&slow_go) != 0)
            MUST(errno == EINTR);
        sem_post(&slow_go);
        *out = made_up('4', 1);
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        char c = node[i] == '=' ? last : node[i];
        unsigned *k = c == '4' ? &k4 : &k6;
        *out = made_up(c, node[i] == '=' ? *k : ++*k);
        last = c;
        out = &(*out)->ai_next;
    }
    return 0;
}

static const struct {
    const char *name, *kept; /* the families in order, each with its number */
} many[] = {
    {"4.test", "41"},
    {"66.test", "6162"},
    {"4=6==4.test", "416142"},
    {"44444444.test", "4142434445464748"},
    {"444444444444.test", "4142434445464748"},
    {"66666666664.test", "6162636465666741"},
    {"6666666666444444.test", "6162636441424344"},
    {"44444444446.test", "4142434445464761"},
    {"464646464646.test", "4161426243634464"},
    {"4444446666.test", "4142434461626364"},
    {"444446666666666.test", "4142434461626364"},
    {"4446666666666.test", "4142436162636465"},
    {"==========6.test", "4061"},
};

static void on_many(struct resolve_wait *w)
{
    MUST(w == &wait[0]);
    core_quit(loop.core);
}

static void begin_many(void *arg)
{
    wait[0] = (struct resolve_wait){.done = on_many};
    MUST(!resolve_start(loop.core, span_str(arg), 443, &wait[0]));
}

static void test_many_addresses(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        char name[64], buf[64];
        struct str s = STR_INIT(name), kept = STR_INIT(buf);
        str_addz(&s, many[i].name);
        loop_open(&loop);
        loop_run(&loop, begin_many, name);
        loop_close(&loop);
        const struct resolve_answer *a = &wait[0].answer;
        for (unsigned k = 0; k < a->n; k++) {
            bool v6 = a->addr[k].u.sa.sa_family == AF_INET6;
            str_addf(&kept, "%d%d", v6 ? 6 : 4,
                     v6 ? a->addr[k].u.v6.sin6_addr.s6_addr[15]
                        : (int)(ntohl(a->addr[k].u.v4.sin_addr.s_addr) & 15));
            assert_int_equal(a->addr[k].u.v4.sin_port, htons(443));
        }
        if (strcmp(buf, many[i].kept) != 0)
            fail_msg("%s: %s, not %s", name, buf, many[i].kept);
    }
}

/* ---- more names than are kept: each is looked up all the same ---- */

#define NAMES 1000

static unsigned n_names, n_found;

static void next_name(void)
{
    char name[32];
    struct str s = STR_INIT(name);
    for (unsigned bit = 1; bit < 1024; bit <<= 1)
        str_addc(&s, (n_names & bit) != 0 ? '6' : '4');
    str_addz(&s, ".test");
    n_names++;
    for (unsigned i = 0; i < 2; i++)
        MUST(!resolve_start(loop.core, str_span(&s), 1, &wait[i]));
}

static void on_one_of_many_names(struct resolve_wait *w)
{
    n_found += w->answer.n > 0;
    if (list_linked(&wait[0].node) || list_linked(&wait[1].node))
        return;
    if (n_names < NAMES)
        next_name();
    else
        core_quit(loop.core);
}

static void begin_many_names(void *arg)
{
    UNUSED(arg);
    wait[0].done = wait[1].done = on_one_of_many_names;
    next_name();
}

static void test_many_names(void **state)
{
    UNUSED(state);
    n_names = n_found = 0;
    run(begin_many_names, 0);
    assert_int_equal(n_found, 2 * NAMES);
}

/* The second of two waiters is told, although the first one's next look-up may have taken the place of theirs. */

static void on_other_name(struct resolve_wait *w)
{
    UNUSED(w);
    if (++n_done == 2)
        core_quit(loop.core);
}

static void on_first_of_two(struct resolve_wait *w)
{
    UNUSED(w);
    wait[2] = (struct resolve_wait){.done = on_other_name};
    MUST(!resolve_start(loop.core, SPAN("=.test"), 1, &wait[2]));
}

static unsigned n_filled;

static void on_filled(struct resolve_wait *w)
{
    UNUSED(w);
    if (++n_filled < 512) {
        char name[32];
        struct str s = STR_INIT(name);
        for (unsigned bit = 1; bit < 512; bit <<= 1)
            str_addc(&s, (n_filled & bit) != 0 ? '6' : '4');
        str_addz(&s, ".test");
        MUST(!resolve_start(loop.core, str_span(&s), 1, &wait[3]));
        return;
    }
    wait[0].done = on_first_of_two;
    wait[1].done = on_other_name;
    for (unsigned i = 0; i < 2; i++)
        MUST(!resolve_start(loop.core, SPAN("66666666644.test"), 1, &wait[i]));
}

static void begin_two(void *arg)
{
    UNUSED(arg);
    n_filled = 0;
    wait[3].done = on_filled;
    MUST(!resolve_start(loop.core, SPAN("444444444.test"), 1, &wait[3]));
}

static void test_room_is_made_while_waiters_are_told(void **state)
{
    UNUSED(state);
    run(begin_two, 0);
    assert_int_equal(wait[1].answer.n, 8);
    assert_int_equal(wait[2].answer.n, 1);
}

/* ---- names of strangers ---- */

#define QUEUED 70 /* more than may wait of one stranger's */

static struct resolve_wait strangers[2][QUEUED];
static unsigned n_refused[2], n_slow_found;

static void on_slow(struct resolve_wait *w)
{
    n_slow_found += w->answer.n;
    if (n_slow_found == 4)
        core_quit(loop.core);
}

static bool ask_slow(unsigned stranger, unsigned i, struct resolve_wait *w)
{
    char name[32];
    struct str s = STR_INIT(name);
    str_addf(&s, "slow-%u-%u.test", stranger, i);
    w->done = on_slow;
    return resolve_start(loop.core, str_span(&s), 1, w);
}

/* The operator's own: one that others wait for, and one of another name. Meanwhile nothing slow has ended. */
static void on_own(struct resolve_wait *w)
{
    assert_int_equal(w->answer.n, 1);
    assert_int_equal(n_slow_found, 0);
    assert_in_range(atomic_load(&n_slow), 1, 3);
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned i = 2; i < QUEUED; i++)
            resolve_cancel(&strangers[k][i]);
    }
    sem_post(&slow_go);
}

static void begin_strangers(void *arg)
{
    UNUSED(arg);
    for (unsigned k = 0; k < 2; k++) {
        n_refused[k] = 0;
        for (unsigned i = 0; i < QUEUED; i++) {
            strangers[k][i] = (struct resolve_wait){.stranger = k + 1};
            n_refused[k] += ask_slow(k + 1, i, &strangers[k][i]);
        }
    }
    MUST(!ask_slow(1, QUEUED - 10, &wait[1])); /* it waits as a stranger's, and does not now */
    resolve_cancel(&wait[1]);
    wait[0].done = on_own;
    MUST(!resolve_start(loop.core, SPAN("4.test"), 1, &wait[0]));
}

/* Two of their names are looked up at a time, one of each stranger's; a few wait; the operator's own does not. */
static void test_strangers(void **state)
{
    UNUSED(state);
    sem_init(&slow_go, 0, 0);
    n_slow_found = 0;
    run(begin_strangers, 0);
    assert_int_equal(n_refused[0], QUEUED - 65);
    assert_int_equal(n_refused[1], QUEUED - 65);
    assert_int_equal(
        n_slow_found,
        4); /* two of each stranger's: those whose waiters had left were not looked up any more */
    assert_int_equal(atomic_load(&n_slow), 5);
    assert_int_equal(wait[0].answer.n, 1);
}

/* A name that several have led to is looked up as soon as one of them has a place, not when it is the turn of who was first. */

static void end_slow(void)
{
    for (unsigned k = 0; k < 2; k++)
        resolve_cancel(&strangers[k][0]);
    sem_post(&slow_go);
    core_quit(loop.core);
}

static void on_one_of_four(struct resolve_wait *w)
{
    n_found += w->answer.n > 0;
    if (++n_done == 4)
        end_slow();
}

static bool ask_as(unsigned stranger, struct span name, struct resolve_wait *w,
                   void (*done)(struct resolve_wait *))
{
    *w = (struct resolve_wait){.stranger = stranger, .done = done};
    return resolve_start(loop.core, name, 1, w);
}

static void begin_shared_names(void *arg)
{
    UNUSED(arg);
    strangers[0][0] = (struct resolve_wait){.stranger = 1};
    MUST(!ask_slow(1, 0, &strangers[0][0]));
    MUST(!ask_as(1, SPAN("44.test"), &strangers[0][1], on_one_of_four));
    MUST(!ask_as(1, SPAN("66.test"), &strangers[0][2], on_one_of_four));
    MUST(!ask_as(2, SPAN("44.test"), &wait[0], on_one_of_four)); /* its own place: at once */
    MUST(!ask_as(2, SPAN("66.test"), &wait[1], on_one_of_four)); /* its own place, after that */
}

static void test_name_of_several_strangers(void **state)
{
    UNUSED(state);
    sem_init(&slow_go, 0, 0);
    n_found = 0;
    run(begin_shared_names, 0);
    assert_int_equal(n_found, 4);
    assert_int_equal(wait[0].answer.n, 2);
}

/* ---- addresses that are stale ---- */

static time_t clock_ahead;

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, id, now);
    now->tv_sec += clock_ahead;
    return result;
}

static bool kept, kept_for_ever;

static void on_much_later(struct resolve_wait *w)
{
    UNUSED(w);
    kept_for_ever = ask_as(3, SPAN("44.test"), &wait[0], on_many);
    resolve_cancel(&wait[0]);
    end_slow();
}

static void on_stale(struct resolve_wait *w)
{
    UNUSED(w);
    kept = ask_as(3, SPAN("44.test"), &wait[0], on_many) && wait[0].answer.n == 2;
    clock_ahead += 600;
    MUST(!ask_as(0, SPAN("66.test"), &wait[1], on_much_later));
}

static void on_fresh(struct resolve_wait *w)
{
    UNUSED(w);
    for (unsigned k = 0; k < 2; k++) {
        strangers[k][0] = (struct resolve_wait){.stranger = k + 1};
        MUST(!ask_slow(k + 1, 0, &strangers[k][0]));
    }
    clock_ahead += 60;
    MUST(!ask_as(0, SPAN("4.test"), &wait[1], on_stale));
}

static void begin_stale(void *arg)
{
    UNUSED(arg);
    MUST(!ask_as(3, SPAN("44.test"), &wait[0], on_fresh));
}

/* While others' slow names have the places, what was good a while ago is used. */
static void test_stale_addresses(void **state)
{
    UNUSED(state);
    sem_init(&slow_go, 0, 0);
    run(begin_stale, 0);
    clock_ahead = 0;
    assert_true(kept);
    assert_false(kept_for_ever);
}

int main(void)
{
    setenv("UV_THREADPOOL_SIZE", "8", 1); /* four of them look up names */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once),         cmocka_unit_test(test_shared_and_cancelled),
        cmocka_unit_test(test_all_cancelled),   cmocka_unit_test(test_failure_is_kept),
        cmocka_unit_test(test_address_is_kept), cmocka_unit_test(test_many_addresses),
        cmocka_unit_test(test_many_names),      cmocka_unit_test(test_room_is_made_while_waiters_are_told),
        cmocka_unit_test(test_strangers),       cmocka_unit_test(test_name_of_several_strangers),
        cmocka_unit_test(test_stale_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
