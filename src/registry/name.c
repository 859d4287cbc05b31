/* Names by hand-written scanners: the grammars are regular and short, and these run for every request.
 *
 * Invariant: whatever name_registry_canonical writes is a registry name again, and its own canonical form, so
 * that it can serve as a key for credentials, tokens and rules. */
#include "registry/name.h"

#include <arpa/inet.h>

#include "registry/known.h"

#define LABEL_MAX 63
#define HOST_MAX  255

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_letter(char c)
{
    return is_lower(c) || (c >= 'A' && c <= 'Z');
}

/* How many bytes at `from` are [a-z0-9]. */
static size_t repo_run(struct span s, size_t from)
{
    size_t i = from;
    while (i < s.n && (is_lower(s.p[i]) || is_digit(s.p[i])))
        i++;
    return i - from;
}

/* Length of the separator between two runs: "/", ".", "_", "__" or any number of "-"; 0 if there is none. */
static size_t repo_separator(struct span s, size_t from)
{
    size_t i = from;
    switch (s.p[from]) {
    case '/':
    case '.':
        return 1;
    case '_':
        return from + 1 < s.n && s.p[from + 1] == '_' ? 2 : 1;
    case '-':
        while (i < s.n && s.p[i] == '-')
            i++;
        return i - from;
    default:
        return 0;
    }
}

bool name_repo_ok(struct span s)
{
    if (s.n == 0 || s.n > NAME_REPO_MAX)
        return false;
    size_t i = 0;
    for (;;) {
        size_t run = repo_run(s, i);
        if (run == 0)
            return false;
        i += run;
        if (i == s.n)
            return true;
        i += repo_separator(s, i); /* 0: a foreign byte, at which the next run is empty */
    }
}

bool name_tag_ok(struct span s)
{
    if (s.n == 0 || s.n > NAME_TAG_MAX || s.p[0] == '.' || s.p[0] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!is_letter(c) && !is_digit(c) && c != '_' && c != '.' && c != '-')
            return false;
    }
    return true;
}

static bool label_ok(struct span label)
{
    if (label.n == 0 || label.n > LABEL_MAX || label.p[0] == '-' || label.p[label.n - 1] == '-')
        return false;
    for (size_t i = 0; i < label.n; i++) {
        if (!is_letter(label.p[i]) && !is_digit(label.p[i]) && label.p[i] != '-')
            return false;
    }
    return true;
}

static bool all_digits(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]))
            return false;
    }
    return true;
}

static bool address_parse(int family, struct span text, void *raw)
{
    char buf[INET6_ADDRSTRLEN];
    struct str s = STR_INIT(buf);
    str_add(&s, text);
    return !s.cut && strlen(buf) == text.n && inet_pton(family, buf, raw) == 1;
}

/* A DNS name or an IPv4 address. A name whose last label is a number would be read as an address by some
 * resolvers ("127.1", "0177.0.0.1") and as a name by others, so it has to be a plain dotted quad. */
static bool host_ok(struct span host)
{
    struct span rest = host, label = SPAN_NONE;
    if (host.n == 0 || host.n > HOST_MAX)
        return false;
    while (span_next(&rest, '.', &label)) {
        if (!label_ok(label))
            return false;
    }
    struct in_addr raw;
    return !all_digits(label) || address_parse(AF_INET, host, &raw);
}

struct registry_parts {
    struct span host; /* without brackets */
    struct in6_addr address;
    bool ipv6;
    uint64_t port; /* 0: none written */
};

static bool registry_split(struct span s, struct registry_parts *out)
{
    struct span port = SPAN_NONE;
    *out = (struct registry_parts){.host = s};
    if (s.n > 0 && s.p[0] == '[') {
        ptrdiff_t end = span_find(s, ']');
        if (end < 0)
            return false;
        struct span after = span_from(s, (size_t)end + 1);
        if (after.n > 0 && after.p[0] != ':')
            return false;
        out->ipv6 = true;
        out->host = span_sub(s, 1, (size_t)end - 1);
        if (after.n > 0)
            port = span_from(after, 1);
    } else {
        ptrdiff_t colon = span_find(s, ':');
        if (colon >= 0) {
            out->host = span_sub(s, 0, (size_t)colon);
            port = span_from(s, (size_t)colon + 1);
        }
    }
    if (port.p != NULL && (port.n > 5 || !span_u64(port, 65535, &out->port) || out->port == 0))
        return false;
    return out->ipv6 ? address_parse(AF_INET6, out->host, &out->address) : host_ok(out->host);
}

bool name_registry_ok(struct span s)
{
    struct registry_parts parts;
    return registry_split(s, &parts);
}

/* The only registry of the table that gives names the prefix library/. */
bool name_is_docker_hub(struct span registry)
{
    if (span_ends(registry, SPAN(":443")))
        registry = span_sub(registry, 0, registry.n - 4);
    const struct known_registry *known = known_of_host(registry);
    return known != NULL && known->library;
}

static void add_lower(struct str *out, struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        str_addc(out, c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c);
    }
}

bool name_registry_canonical(struct span registry, struct str *out)
{
    struct registry_parts parts;
    if (!registry_split(registry, &parts))
        return false;
    bool default_port = parts.port == 0 || parts.port == 443;
    const struct known_registry *known = default_port ? known_of_host(parts.host) : NULL;
    if (known != NULL) {
        str_add(out, known->name);
        return !out->cut;
    }
    if (parts.ipv6) {
        char text[INET6_ADDRSTRLEN];
        MUST(inet_ntop(AF_INET6, &parts.address, text, sizeof(text)) != NULL);
        str_addc(out, '[');
        str_addz(out, text);
        str_addc(out, ']');
    } else {
        add_lower(out, parts.host);
    }
    if (!default_port) {
        str_addc(out, ':');
        str_addu(out, parts.port);
    }
    return !out->cut;
}

void name_repo_canonical(struct span registry, struct span repo, struct str *out)
{
    if (name_is_docker_hub(registry) && span_find(repo, '/') < 0)
        str_add(out, SPAN("library/"));
    str_add(out, repo);
}
