/* One HTTP/1.1 request on a connection of its own, which the server closes behind the answer: no framing is needed to find its end. The
 * head's length is looked at only to tell an answer that was cut from a whole one. */
#include "cli/call.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/mem.h"

#define REQUEST_MAX 8192
#define ANSWER_MAX  (4u << 20)
#define CONNECT_S   5

static bool byte_stays(char c) /* RFC 3986 section 2.3 */
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~' || c == '/' || c == ':';
}

void call_add(struct str *query, const char *name, struct span value)
{
    if (query->n > 0)
        str_addc(query, '&');
    str_addz(query, name);
    str_addc(query, '=');
    for (size_t i = 0; i < value.n; i++) {
        if (byte_stays(value.p[i]))
            str_addc(query, value.p[i]);
        else
            str_addf(query, "%%%02X", (unsigned char)value.p[i]);
    }
}

/* ---- the connection ---- */

static char *copy_of(struct span s)
{
    char *p = mem_alloc(s.n + 1);
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return p;
}

/* Listening on all addresses, the server is asked on the loopback one. */
static int connect_admin(const struct conf_listen *admin)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {.sa = {.sa_family = AF_INET}};
    char text[INET6_ADDRSTRLEN];
    struct str host = STR_INIT(text);
    socklen_t len = sizeof a.v4;
    str_add(&host, admin->host);
    if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
        if (a.v4.sin_addr.s_addr == htonl(INADDR_ANY))
            a.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a.v4.sin_port = htons(admin->port);
    } else {
        memset(&a, 0, sizeof a);
        a.v6.sin6_family = AF_INET6;
        if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) != 1)
            return -1;
        if (IN6_IS_ADDR_UNSPECIFIED(&a.v6.sin6_addr))
            a.v6.sin6_addr = in6addr_loopback;
        a.v6.sin6_port = htons(admin->port);
        len = sizeof a.v6;
    }
    int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct timeval limit = {.tv_sec = CONNECT_S};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* connect keeps to it, too */
    if (connect(fd, &a.sa, len) != 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static bool send_all(int fd, struct span s)
{
    while (s.n > 0) {
        ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        s = span_from(s, (size_t)n);
    }
    return true;
}

static bool receive_all(int fd, char *buf, size_t *n)
{
    *n = 0;
    for (;;) {
        ssize_t got = recv(fd, buf + *n, ANSWER_MAX - *n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            errno = ETIMEDOUT;
        if (got <= 0)
            return got == 0;
        *n += (size_t)got;
        if (*n == ANSWER_MAX) {
            errno = EMSGSIZE;
            return false;
        }
    }
}

/* ---- the answer ---- */

/* "HTTP/1.1 200 ..." with a body as long as its head says. */
static bool read_answer(struct span whole, unsigned *status, struct span *body)
{
    char *end = whole.n > 0 ? memmem(whole.p, whole.n, "\r\n\r\n", 4) : NULL;
    uint64_t code, length = 0;
    if (end == NULL || !span_starts(whole, SPAN("HTTP/1.1 ")) || !span_u64(span_sub(whole, 9, 3), 999, &code))
        return false;
    struct span head = span_sub(whole, 0, (size_t)(end - whole.p)), line;
    *body = span_from(whole, head.n + 4);
    *status = (unsigned)code;
    while (span_next(&head, '\n', &line)) {
        struct span name = SPAN("content-length:");
        if (line.n > name.n && span_ieq(span_sub(line, 0, name.n), name)) {
            struct span value = span_from(line, name.n);
            if (value.n > 0 && value.p[value.n - 1] == '\r')
                value.n--;
            if (!span_u64(span_trim(value), ANSWER_MAX, &length))
                return false;
        }
    }
    return length == body->n;
}

/* The sentence of {"error":"..."}; what is not of that form, as it is. Copied. */
static char *error_sentence(struct span body, size_t *n)
{
    json_t *o = json_loadb(body.p, body.n, 0, NULL);
    const char *text = json_string_value(json_object_get(o, "error"));
    struct span sentence = text != NULL ? span_str(text) : body;
    char *copy = copy_of(sentence);
    *n = sentence.n;
    json_decref(o);
    return copy;
}

static enum call_outcome absent(const struct conf *conf, const char *what, char **answer, size_t *n)
{
    char text[512];
    struct str s = STR_INIT(text);
    str_addf(&s, "no server answers on the admin address " SPAN_FMT ": %s", SPAN_ARG(conf->admin.address),
             what);
    *answer = copy_of(str_span(&s));
    *n = s.n;
    return CALL_ABSENT;
}

static enum call_outcome ask(const struct conf *conf, int fd, struct span request, char **answer, size_t *n)
{
    char *buf = mem_alloc(ANSWER_MAX);
    size_t got;
    unsigned status;
    struct span body;
    enum call_outcome outcome;
    if (!send_all(fd, request) || !receive_all(fd, buf, &got)) {
        outcome = absent(conf, strerror(errno), answer, n);
    } else if (!read_answer(span_of(buf, got), &status, &body)) {
        outcome =
            absent(conf, "what answers there is not larder, or ended in the middle of its answer", answer, n);
    } else if (status != 200) {
        *answer = error_sentence(body, n);
        outcome = CALL_REFUSED;
    } else {
        *answer = copy_of(body);
        *n = body.n;
        outcome = CALL_ANSWERED;
    }
    mem_free(buf);
    return outcome;
}

enum call_outcome call_admin(const struct conf *conf, bool order, const char *name, struct span query,
                             unsigned limit_s, char **answer, size_t *n)
{
    char text[REQUEST_MAX];
    struct str request = STR_INIT(text);
    str_addf(&request, "%s /api/v1/%s", order ? "POST" : "GET", name);
    if (query.n > 0)
        str_addc(&request, '?');
    str_add(&request, query);
    str_addf(&request, " HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n%s\r\n",
             order ? "Larder-Admin: 1\r\n" : "");
    if (request.cut)
        return absent(conf, "the request is too long", answer, n);
    int fd = connect_admin(&conf->admin);
    if (fd < 0)
        return absent(conf, strerror(errno), answer, n);
    struct timeval limit = {.tv_sec = limit_s};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    enum call_outcome outcome = ask(conf, fd, str_span(&request), answer, n);
    close(fd);
    return outcome;
}
