#include <arpa/inet.h>
#include <netinet/in.h>

#include "core/address.h"

#include "../base/test.h"

struct row {
    const char *text;
    enum address_kind kind;
};

static const struct row rows[] = {
    {"8.8.8.8", ADDRESS_PUBLIC},
    {"1.1.1.1", ADDRESS_PUBLIC},
    {"9.255.255.255", ADDRESS_PUBLIC},
    {"10.0.0.0", ADDRESS_PRIVATE},
    {"10.255.255.255", ADDRESS_PRIVATE},
    {"11.0.0.0", ADDRESS_PUBLIC},
    {"100.63.255.255", ADDRESS_PUBLIC},
    {"100.64.0.0", ADDRESS_PRIVATE},
    {"100.127.255.255", ADDRESS_PRIVATE},
    {"100.128.0.0", ADDRESS_PUBLIC},
    {"100.100.100.200", ADDRESS_SPECIAL},
    {"126.255.255.255", ADDRESS_PUBLIC},
    {"127.0.0.1", ADDRESS_LOOPBACK},
    {"127.255.255.255", ADDRESS_LOOPBACK},
    {"128.0.0.0", ADDRESS_PUBLIC},
    {"169.253.255.255", ADDRESS_PUBLIC},
    {"169.254.169.254", ADDRESS_SPECIAL},
    {"169.254.0.1", ADDRESS_SPECIAL},
    {"169.255.0.0", ADDRESS_PUBLIC},
    {"172.15.255.255", ADDRESS_PUBLIC},
    {"172.16.0.0", ADDRESS_PRIVATE},
    {"172.31.255.255", ADDRESS_PRIVATE},
    {"172.32.0.0", ADDRESS_PUBLIC},
    {"192.167.255.255", ADDRESS_PUBLIC},
    {"192.168.0.0", ADDRESS_PRIVATE},
    {"192.168.255.255", ADDRESS_PRIVATE},
    {"192.169.0.0", ADDRESS_PUBLIC},
    {"168.63.129.16", ADDRESS_SPECIAL},
    {"0.0.0.0", ADDRESS_SPECIAL},
    {"0.1.2.3", ADDRESS_SPECIAL},
    {"224.0.0.1", ADDRESS_SPECIAL},
    {"239.255.255.255", ADDRESS_SPECIAL},
    {"240.0.0.1", ADDRESS_SPECIAL},
    {"255.255.255.255", ADDRESS_SPECIAL},
    {"::", ADDRESS_SPECIAL},
    {"::1", ADDRESS_LOOPBACK},
    {"2001:4860:4860::8888", ADDRESS_PUBLIC},
    {"fe80::1", ADDRESS_SPECIAL},
    {"febf::1", ADDRESS_SPECIAL},
    {"fec0::1", ADDRESS_PRIVATE},
    {"fc00::1", ADDRESS_PRIVATE},
    {"fdff::1", ADDRESS_PRIVATE},
    {"fd00:ec2::254", ADDRESS_SPECIAL},
    {"ff02::1", ADDRESS_SPECIAL},
    {"::ffff:127.0.0.1", ADDRESS_LOOPBACK},
    {"::ffff:169.254.169.254", ADDRESS_SPECIAL},
    {"::ffff:8.8.8.8", ADDRESS_PUBLIC},
    {"::10.0.0.1", ADDRESS_PRIVATE},
    {"64:ff9b::10.0.0.1", ADDRESS_PRIVATE},
    {"64:ff9b::8.8.8.8", ADDRESS_PUBLIC},
    {"64:ff9b:1::1", ADDRESS_SPECIAL},
    {"2002:7f00:1::", ADDRESS_LOOPBACK},
    {"2002:808:808::", ADDRESS_PUBLIC},
    {"4000::1", ADDRESS_SPECIAL},
};

static void test_the_table(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum address_kind kind;
        if (!address_kind_of_text(span_str(rows[i].text), &kind) || kind != rows[i].kind)
            fail_msg("%s", rows[i].text);
    }
}

static void test_sockets_say_the_same(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sockaddr_in v4 = {.sin_family = AF_INET};
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
        bool is4 = inet_pton(AF_INET, rows[i].text, &v4.sin_addr) == 1;
        if (!is4)
            assert_int_equal(inet_pton(AF_INET6, rows[i].text, &v6.sin6_addr), 1);
        const void *sa = is4 ? (const void *)&v4 : (const void *)&v6;
        if (address_kind(sa) != rows[i].kind)
            fail_msg("%s", rows[i].text);
    }
    struct sockaddr other = {.sa_family = AF_UNIX};
    assert_int_equal(address_kind(&other), ADDRESS_SPECIAL);
}

static void test_names_are_no_literals(void **state)
{
    UNUSED(state);
    static const char *const names[] = {
        "",      "localhost",           "example.org",
        "1.2.3", "0x7f.0.0.1",          "2130706433",
        "[::1]", "1.2.3.4.example.org", "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc"};
    enum address_kind kind;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (address_kind_of_text(span_str(names[i]), &kind))
            fail_msg("%s", names[i]);
    }
    assert_true(address_kind_of_text(SPAN("fe80::1%eth0"), &kind));
    assert_int_equal(kind, ADDRESS_SPECIAL);
}

static void test_who_may_lead_where(void **state)
{
    UNUSED(state);
    static const bool may[4][4] = {
        [ADDRESS_PUBLIC] = {true, false, false, false},
        [ADDRESS_PRIVATE] = {true, true, false, false},
        [ADDRESS_LOOPBACK] = {true, true, true, false},
        [ADDRESS_SPECIAL] = {true, false, false, false},
    };
    for (int own = 0; own < 4; own++) {
        for (int to = 0; to < 4; to++) {
            if (address_reachable((enum address_kind)own, (enum address_kind)to) != may[own][to])
                fail_msg("from %d to %d", own, to);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table),
        cmocka_unit_test(test_sockets_say_the_same),
        cmocka_unit_test(test_names_are_no_literals),
        cmocka_unit_test(test_who_may_lead_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
