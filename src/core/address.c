#include "core/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

struct net4 {
    uint32_t net, mask;
    enum address_kind kind;
};

#define NET4(a, b, c, d, bits, kind)                                                                         \
    {                                                                                                        \
        (uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d),                      \
            (uint32_t)(UINT64_C(0xffffffff) << (32 - (bits))), kind                                          \
    }

/* The first that fits counts (IANA's registry of special-purpose addresses). */
static const struct net4 nets4[] = {
    NET4(100, 100, 100, 200, 32, ADDRESS_SPECIAL), /* metadata service of a cloud, inside the carriers' net */
    NET4(168, 63, 129, 16, 32, ADDRESS_SPECIAL),   /* likewise, among public ones */
    NET4(192, 0, 0, 192, 32, ADDRESS_SPECIAL),     /* likewise */
    NET4(0, 0, 0, 0, 8, ADDRESS_SPECIAL),          NET4(10, 0, 0, 0, 8, ADDRESS_PRIVATE),
    NET4(100, 64, 0, 0, 10, ADDRESS_PRIVATE),      NET4(127, 0, 0, 0, 8, ADDRESS_LOOPBACK),
    NET4(169, 254, 0, 0, 16, ADDRESS_SPECIAL),     NET4(172, 16, 0, 0, 12, ADDRESS_PRIVATE),
    NET4(192, 0, 0, 0, 24, ADDRESS_SPECIAL),       NET4(192, 168, 0, 0, 16, ADDRESS_PRIVATE),
    NET4(198, 18, 0, 0, 15, ADDRESS_PRIVATE),      NET4(224, 0, 0, 0, 3, ADDRESS_SPECIAL),
};

static enum address_kind kind4(uint32_t ip)
{
    for (size_t i = 0; i < sizeof nets4 / sizeof nets4[0]; i++) {
        if ((ip & nets4[i].mask) == nets4[i].net)
            return nets4[i].kind;
    }
    return ADDRESS_PUBLIC;
}

static uint32_t inner4(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static enum address_kind kind6(const unsigned char a[16])
{
    static const unsigned char zeros[16], mapped[12] = {[10] = 0xff, [11] = 0xff},
                                          nat64[12] = {0, 0x64, 0xff, 0x9b}, loopback[16] = {[15] = 1},
                                          metadata[16] = {0xfd, 0, 0x0e, 0xc2, [14] = 2, [15] = 0x54};
    if (memcmp(a, loopback, 16) == 0)
        return ADDRESS_LOOPBACK;
    if (memcmp(a, zeros, 16) == 0 || memcmp(a, metadata, 16) == 0)
        return ADDRESS_SPECIAL;
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, zeros, 12) == 0 || memcmp(a, nat64, 12) == 0)
        return kind4(inner4(a + 12));
    if (a[0] == 0x20 && a[1] == 0x02)
        return kind4(inner4(a + 2));
    if (a[0] == 0xfe && (a[1] & 0xc0) == 0x80)
        return ADDRESS_SPECIAL;
    if ((a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && (a[1] & 0xc0) == 0xc0))
        return ADDRESS_PRIVATE;
    return (a[0] & 0xe0) == 0x20 ? ADDRESS_PUBLIC : ADDRESS_SPECIAL; /* only 2000::/3 is in use */
}

enum address_kind address_kind(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return kind4(ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr));
    if (sa->sa_family == AF_INET6)
        return kind6(((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr);
    return ADDRESS_SPECIAL;
}

bool address_kind_of_text(struct span host, enum address_kind *kind)
{
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char raw[16];
    ptrdiff_t zone = span_find(host, '%');
    if (zone >= 0)
        host.n = (size_t)zone;
    if (host.n == 0 || host.n >= sizeof text)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    if (inet_pton(AF_INET, text, raw) == 1)
        *kind = kind4(inner4(raw));
    else if (inet_pton(AF_INET6, text, raw) == 1)
        *kind = kind6(raw);
    else
        return false;
    return true;
}

const char *address_kind_name(enum address_kind kind)
{
    static const char *const names[] = {"a public address", "a private address", "a loopback address",
                                        "an address that no content comes from"};
    return names[kind];
}

bool address_reachable(enum address_kind own, enum address_kind to)
{
    return to == ADDRESS_PUBLIC || (to != ADDRESS_SPECIAL && to <= own && own != ADDRESS_SPECIAL);
}
