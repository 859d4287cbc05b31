/* TLS with a peer that is not larder: openssl's s_server and s_client. Suites and keys, versions, client certificates, names, sessions,
 * and bytes in both directions. */
#include "tls_rig.h"

#include <arpa/inet.h>
#include <signal.h>

#include "core/resolve.h"

/* ---- children ---- */

struct peer {
    pid_t pid;
    int words; /* what it says */
    int input; /* what it is told */
    uint16_t port;
};

#define ARGS_MAX 40

/* to: a file for what it says; NULL: it is read from p->words. */
static void peer_spawn(struct peer *p, const char *const *argv, const char *to)
{
    posix_spawn_file_actions_t io;
    int said[2], told[2];
    assert_int_equal(pipe(said), 0);
    assert_int_equal(pipe(told), 0);
    assert_int_equal(posix_spawn_file_actions_init(&io), 0);
    posix_spawn_file_actions_addchdir_np(&io, pki_folder);
    posix_spawn_file_actions_adddup2(&io, told[0], 0);
    if (to != NULL)
        posix_spawn_file_actions_addopen(&io, 1, to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    else
        posix_spawn_file_actions_adddup2(&io, said[1], 1);
    posix_spawn_file_actions_addopen(&io, 2, "/dev/null", O_WRONLY, 0);
    for (unsigned i = 0; i < 2; i++) {
        posix_spawn_file_actions_addclose(&io, said[i]);
        posix_spawn_file_actions_addclose(&io, told[i]);
    }
    assert_int_equal(posix_spawnp(&p->pid, "openssl", &io, NULL, (char **)(uintptr_t)argv, environ), 0);
    posix_spawn_file_actions_destroy(&io);
    close(said[1]);
    close(told[0]);
    p->words = said[0];
    p->input = told[1];
}

static size_t peer_words(struct peer *p, char *to, size_t cap)
{
    size_t n = 0;
    for (ssize_t got; n < cap - 1 && (got = read(p->words, to + n, cap - 1 - n)) > 0;)
        n += (size_t)got;
    to[n] = '\0';
    return n;
}

static void peer_end(struct peer *p)
{
    int status;
    close(p->input);
    close(p->words);
    kill(p->pid, SIGTERM);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
}

/* s_server with these options, up to a NULL; ready when this returns. */
static void server_start(struct peer *p, const char *cert, const char *const *options)
{
    const char *argv[ARGS_MAX] = {"openssl",     "s_server",
                                  "-accept",     "127.0.0.1:0",
                                  "-cert",       pki_path(cert, ".pem"),
                                  "-key",        pki_path(cert, ".key"),
                                  "-cert_chain", pki_path("inter", ".pem")};
    unsigned n = 10;
    for (; *options != NULL; options++)
        argv[n++] = *options;
    peer_spawn(p, argv, NULL);
    char line[256];
    size_t at = 0;
    for (; at < sizeof line - 1 && read(p->words, line + at, 1) == 1; at++)
        if (line[at] == '\n') {
            line[at + 1] = '\0';
            if (strncmp(line, "ACCEPT ", 7) == 0)
                break;
            at = (size_t)-1;
        }
    const char *colon = strrchr(line, ':');
    assert_non_null(colon);
    p->port = (uint16_t)strtoul(colon + 1, NULL, 10);
    assert_int_not_equal(p->port, 0);
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- our client ---- */

#define ANSWER_MAX (8u << 20)

static char answer[ANSWER_MAX];
static size_t answer_n;
static bool answer_well;
static const char *request;
static uint16_t port;
static size_t read_size;

static void client_over(void)
{
    end_close(&client, false);
    core_quit(loop.core);
}

static void on_answer(struct stream *s, unsigned events)
{
    UNUSED(events);
    for (;;) {
        size_t room = ANSWER_MAX - 1 - answer_n;
        ssize_t n = stream_recv(s, answer + answer_n, room < read_size ? room : read_size);
        if (n == STREAM_AGAIN)
            return;
        if (n <= 0) {
            answer_well = n == 0 && tls_ended_well(s);
            snprintf(client.why, sizeof client.why, "%s", n < 0 ? stream_why(s) : "");
            break;
        }
        answer_n += (size_t)n;
    }
    answer[answer_n] = '\0';
    client_over();
}

static void on_client(struct stream *s, unsigned events)
{
    UNUSED(events);
    client.done = true;
    client.ok = stream_connected(s);
    client.resumed = tls_resumed(s);
    snprintf(client.why, sizeof client.why, "%s", client.ok ? "" : stream_why(s));
    if (!client.ok) {
        client_over();
        return;
    }
    struct iovec v = {(char *)(uintptr_t)request, strlen(request)};
    assert_int_equal(stream_writev(s, &v, 1, false), v.iov_len);
    s->ready = on_answer;
    stream_want(s, STREAM_READ);
}

static void on_connected(struct stream *s, unsigned events)
{
    UNUSED(events);
    assert_true(stream_connected(s));
    client.s = tls_client(s, &how);
    client.s->ready = on_client;
    stream_want(client.s, STREAM_WRITE);
}

static void begin_client(void *arg)
{
    struct resolve_addr to = {
        .u.v4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
        .len = sizeof(struct sockaddr_in)};
    const char *why;
    UNUSED(arg);
    struct stream *s = tcp_connect(loop.core, &to, &why);
    assert_non_null(s);
    s->ready = on_connected;
    stream_want(s, STREAM_WRITE);
}

static void ask(const struct peer *p, const char *what)
{
    client = (struct end){0};
    answer_n = 0;
    answer_well = false;
    request = what;
    port = p->port;
    read_size = 100000;
    loop_open(&loop);
    loop_run(&loop, begin_client, NULL);
    loop_close(&loop);
    assert_true(client.done);
}

#define PAGE "GET / HTTP/1.0\r\n\r\n"

/* Asks a server with these options once. says: what its page says; or, with a "!" before it, why there was no handshake. */
static void asked(const char *cert, const char *const *options, const char *says)
{
    struct peer p;
    server_start(&p, cert, options);
    ask(&p, PAGE);
    peer_end(&p);
    if (says[0] == '!') {
        if (client.ok && answer_n == 0 && strstr(client.why, says + 1) != NULL)
            return; /* TLS lets a server refuse a client's certificate after the handshake, too */
        if (client.ok || strstr(client.why, says + 1) == NULL)
            fail_msg("%s: \"%s\" instead of \"%s\"", cert, client.why, says + 1);
        return;
    }
    if (!client.ok)
        fail_msg("%s: %s", cert, client.why);
    if (strstr(answer, says) == NULL)
        fail_msg("%s: %s\nis not in: %s", cert, says, answer);
    assert_true(answer_well);
}

static void test_suites(void **state)
{
    UNUSED(state);
    asked("leaf", OPTIONS("-www"), "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES128-GCM-SHA256");
    asked("rsa", OPTIONS("-www"), "New, TLSv1.2, Cipher is ECDHE-RSA-AES128-GCM-SHA256");
    asked("p384", OPTIONS("-www"), "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256");
    asked("p521", OPTIONS("-www"), "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256");
    asked("leaf", OPTIONS("-www", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
          "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384");
    asked("rsa", OPTIONS("-www", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305"),
          "Cipher is ECDHE-RSA-CHACHA20-POLY1305");
    asked("leaf", OPTIONS("-www", "-curves", "X25519"), "TLSv1.2");
    asked("leaf", OPTIONS("-www", "-curves", "P-521"), "TLSv1.2");
}

static void test_refusals(void **state)
{
    UNUSED(state);
    asked("leaf", OPTIONS("-www", "-tls1_3"),
          "!the server refused with TLS alert 70, protocol version: it does not speak TLS 1.2");
    asked("rsa", OPTIONS("-www", "-cipher", "AES128-SHA"),
          "!the server refused with TLS alert 40, handshake failure");
    asked("rsa", OPTIONS("-www", "-cipher", "ECDHE-RSA-AES128-SHA"), "!the server refused with TLS alert 40");
    asked("rsa", OPTIONS("-www", "-sigalgs", "RSA+SHA1"), "!the server refused with TLS alert");
    asked("leaf", OPTIONS("-www", "-tls1_1", "-cipher", "ALL@SECLEVEL=0"),
          "!the server refused with TLS alert");
}

static void test_too_many_certificates(void **state)
{
    UNUSED(state);
    FILE *f = fopen(pki_path("many", ".pem"), "w");
    assert_non_null(f);
    for (unsigned i = 0; i < 16; i++) {
        struct span inter = pki_text("inter", NULL);
        assert_int_equal(fwrite(inter.p, 1, inter.n, f), inter.n);
        if (i != 14)
            continue;
        fflush(f); /* with the server's own these are sixteen */
        asked("leaf", OPTIONS("-www", "-cert_chain", pki_path("many", ".pem")), "TLSv1.2");
    }
    fclose(f);
    asked("leaf", OPTIONS("-www", "-cert_chain", pki_path("many", ".pem")),
          "!the server sends more certificates than are looked at (16, or 128 KiB)");
}

static void test_client_certificates(void **state)
{
    static const char *const keys[] = {"leaf", "rsa", "p384"};
    UNUSED(state);
    const char *const *wants =
        OPTIONS("-www", "-Verify", "3", "-verify_return_error", "-CAfile", pki_path("root", ".pem"));
    asked("leaf", wants, "!the server refused with TLS alert");
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        how.identity = identity_of(pki_text(keys[i], "inter", NULL), keys[i]);
        asked("leaf", wants, "TLSv1.2");
        identity_unref(how.identity);
    }
    how.identity = identity_of(pki_text("stranger", NULL), "stranger");
    asked("leaf", wants, "!the server refused with TLS alert 48, unknown authority");
    identity_unref(how.identity);
    how.identity = NULL;
    asked("leaf", OPTIONS("-www", "-verify", "3", "-CAfile", pki_path("root", ".pem")), "TLSv1.2");
}

/* ---- names ---- */

static bool hello_has(const char *host, const char *extension)
{
    static char words[64 << 10];
    struct peer p;
    struct span before = how.host;
    how.host = span_str(host);
    server_start(&p, "leaf", OPTIONS("-www", "-tlsextdebug", "-naccept", "1"));
    ask(&p, PAGE);
    assert_true(client.ok);
    peer_words(&p, words, sizeof words);
    peer_end(&p);
    how.host = before;
    assert_non_null(strstr(words, "TLS client extension"));
    return strstr(words, extension) != NULL;
}

static void test_names_asked_for(void **state)
{
    UNUSED(state);
    assert_true(hello_has("leaf.test", "\"server name\""));
    assert_true(hello_has("leaf.test", "leaf.test"));
    assert_true(hello_has("leaf.test.", "leaf.test")); /* without its dot */
    assert_false(hello_has("leaf.test.", "leaf.test."));
    assert_false(hello_has("127.0.0.1", "\"server name\""));
    assert_true(hello_has("127.0.0.1", "http/1.1"));
    assert_false(hello_has("127.0.0.1", "\"max fragment length\""));
}

/* ---- sessions ---- */

static void test_sessions(void **state)
{
    struct tls_session session = {0};
    struct peer p;
    UNUSED(state);
    how.session = &session;
    server_start(&p, "leaf", OPTIONS("-www"));
    ask(&p, PAGE);
    assert_true(client.ok && !client.resumed);
    assert_non_null(strstr(answer, "New, TLSv1.2"));
    for (unsigned i = 0; i < 2; i++) {
        ask(&p, PAGE);
        assert_true(client.ok && client.resumed);
        assert_non_null(strstr(answer, "Reused, TLSv1.2"));
    }
    peer_end(&p);
    server_start(&p, "leaf", OPTIONS("-www")); /* one that does not know it */
    ask(&p, PAGE);
    assert_true(client.ok && !client.resumed);
    ask(&p, PAGE);
    assert_true(client.ok && client.resumed);
    peer_end(&p);
    how.session = NULL;
    tls_session_clear(&session);
}

/* ---- bytes ---- */

static void write_pattern(const char *path, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++)
        putc("0123456789abcdefghijklm\n"[(i * 2654435761u >> 9) % 24], f);
    assert_int_equal(fclose(f), 0);
}

static void test_download(void **state)
{
    static char expected[ANSWER_MAX];
    static const char *const suites[] = {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
                                         "ECDHE-ECDSA-CHACHA20-POLY1305"};
    UNUSED(state);
    write_pattern(pki_path("big", ""), 5000001);
    size_t n = pki_load(pki_path("big", ""), expected, sizeof expected);
    for (size_t i = 0; i < ARRAY_LEN(suites); i++) {
        struct peer p;
        server_start(&p, "leaf", OPTIONS("-WWW", "-cipher", suites[i]));
        ask(&p, "GET /big HTTP/1.0\r\n\r\n");
        peer_end(&p);
        assert_true(client.ok);
        const char *body = strstr(answer, "\r\n\r\n");
        assert_non_null(body);
        assert_int_equal(answer_n - (size_t)(body + 4 - answer), n);
        assert_memory_equal(body + 4, expected, n);
        assert_true(answer_well);
    }
}

/* ---- our server ---- */

static struct identity *own;
static size_t upload;   /* bytes that are expected from the client */
static size_t uploaded; /* that have come */
static size_t replied;
static int listening;

static void on_upload(struct stream *s, unsigned events)
{
    static char piece[100000];
    if ((events & STREAM_READ) != 0 && uploaded < upload)
        for (ssize_t n; uploaded < upload && (n = stream_recv(s, piece, sizeof piece)) != STREAM_AGAIN;) {
            if (n <= 0) {
                client_over();
                return;
            }
            assert_in_range(uploaded + (size_t)n, 1, upload);
            memcpy(answer + uploaded, piece, (size_t)n);
            uploaded += (size_t)n;
        }
    if (uploaded < upload)
        return;
    while (replied < upload) {
        struct iovec v = {answer + replied, upload - replied};
        ssize_t n = stream_writev(s, &v, 1, false);
        if (n == STREAM_AGAIN) {
            stream_want(s, STREAM_WRITE);
            return;
        }
        assert_true(n > 0);
        replied += (size_t)n;
    }
    client_over();
}

static void on_served(struct stream *s, unsigned events)
{
    UNUSED(events);
    client.done = true;
    client.ok = stream_connected(s);
    client.resumed = tls_resumed(s);
    snprintf(client.why, sizeof client.why, "%s", client.ok ? "" : stream_why(s));
    if (!client.ok) {
        client_over();
        return;
    }
    s->ready = on_upload;
    stream_want(s, STREAM_READ);
}

static void begin_server(void *arg)
{
    UNUSED(arg);
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); /* waits for the child */
    assert_true(fd >= 0);
    struct stream *s = tcp_accepted(loop.core, fd);
    assert_non_null(s);
    client.s = tls_server(s, own, cache);
    client.s->ready = on_served;
    stream_want(client.s, STREAM_WRITE);
}

/* s_client with these options connects once; what is in `input` goes up and comes back. Returns what it said. */
static const char *served(const char *input, const char *const *options)
{
    static char words[ANSWER_MAX];
    char at[64], command[PKI_PATH];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    struct peer p;
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listening >= 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listening, 4), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&a, &len), 0);
    snprintf(at, sizeof at, "127.0.0.1:%d", ntohs(a.sin_port));
    snprintf(command, sizeof command, "%s", pki_path("root", ".pem"));
    const char *argv[ARGS_MAX] = {"openssl",
                                  "s_client",
                                  "-connect",
                                  at,
                                  "-CAfile",
                                  command,
                                  "-verify_return_error",
                                  "-servername",
                                  "leaf.test",
                                  "-verify_hostname",
                                  "leaf.test",
                                  "-ign_eof"};
    unsigned n = 12;
    for (; *options != NULL; options++)
        argv[n++] = *options;
    peer_spawn(&p, argv, pki_path("said", ""));
    client = (struct end){0};
    uploaded = replied = 0;
    upload = strlen(input);
    pid_t feeder = fork(); /* the pipe may be full */
    assert_true(feeder >= 0);
    if (feeder == 0) {
        for (size_t done = 0; done < upload;) {
            ssize_t put = write(p.input, input + done, upload - done);
            if (put <= 0)
                _exit(1);
            done += (size_t)put;
        }
        _exit(0);
    }
    close(p.input);
    close(p.words);
    loop_open(&loop);
    loop_run(&loop, begin_server, NULL);
    loop_close(&loop);
    assert_true(client.done);
    assert_int_equal(waitpid(p.pid, NULL, 0), p.pid); /* it leaves when we have left */
    pki_load(pki_path("said", ""), words, sizeof words);
    close(listening);
    kill(feeder, SIGTERM);
    assert_int_equal(waitpid(feeder, NULL, 0), feeder);
    return words;
}

static void test_server(void **state)
{
    static const char *const keys[] = {"leaf", "rsa", "p384", "p521"};
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        own = identity_of(pki_text(keys[i], "inter", NULL), keys[i]);
        const char *said = served("ping\n", OPTIONS("-tls1_2", "-alpn", "h2,http/1.1"));
        assert_true(client.ok);
        assert_non_null(strstr(said, "Verify return code: 0 (ok)"));
        assert_non_null(strstr(said, "New, TLSv1.2"));
        assert_non_null(strstr(said, "ALPN protocol: http/1.1"));
        assert_non_null(strstr(said, "ping\n"));
        identity_unref(own);
    }
}

static void test_upload(void **state)
{
    static char up[3000002];
    UNUSED(state);
    own = identity_of(pki_text("leaf", "inter", NULL), "leaf");
    write_pattern(pki_path("up", ""), sizeof up - 2);
    pki_load(pki_path("up", ""), up, sizeof up);
    const char *said = served(up, OPTIONS("-tls1_2", "-quiet"));
    assert_true(client.ok);
    assert_int_equal(uploaded, sizeof up - 2);
    assert_memory_equal(answer, up, uploaded);
    assert_string_equal(said, up);
    identity_unref(own);
}

static void test_server_refusals(void **state)
{
    UNUSED(state);
    own = identity_of(pki_text("leaf", "inter", NULL), "leaf");
    served("", OPTIONS("-tls1_3"));
    assert_false(client.ok);
    assert_string_equal(
        client.why,
        "the client's handshake was refused with TLS alert 40, no cipher suite, curve or signature in common "
        "with what larder speaks, which is TLS 1.2 (not 1.3)");
    served("", OPTIONS("-tls1_1", "-cipher", "ALL@SECLEVEL=0"));
    assert_false(client.ok);
    served("", OPTIONS("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"));
    assert_false(client.ok);
    served("", OPTIONS("-tls1_2", "-CAfile", pki_path("stranger", ".pem")));
    assert_false(client.ok);
    assert_non_null(strstr(client.why, "the client refused with TLS alert 48, unknown authority"));
    identity_unref(own);
}

static void test_server_sessions(void **state)
{
    UNUSED(state);
    own = identity_of(pki_text("leaf", "inter", NULL), "leaf");
    cache = tls_cache_new();
    const char *file = pki_path("session", "");
    assert_non_null(strstr(served("a", OPTIONS("-tls1_2", "-sess_out", file)), "New, TLSv1.2"));
    assert_true(client.ok && !client.resumed);
    assert_non_null(strstr(served("a", OPTIONS("-tls1_2", "-sess_in", file)), "Reused, TLSv1.2"));
    assert_true(client.ok && client.resumed);
    tls_cache_free(cache);
    cache = tls_cache_new();
    assert_non_null(strstr(served("a", OPTIONS("-tls1_2", "-sess_in", file)), "New, TLSv1.2"));
    assert_true(client.ok && !client.resumed);
    tls_cache_free(cache);
    cache = NULL;
    identity_unref(own);
}

static int setup(void **state)
{
    UNUSED(state);
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Test Root", .authority = true});
    pki_make(&(struct pki_how){"inter", .cn = "Test Issuer", .issuer = "root", .authority = true});
    static const struct pki_how leaves[] = {{"leaf", .cn = "leaf.test"},
                                            {"rsa", .cn = "rsa", .key = "rsa:2048"},
                                            {"p384", .cn = "p384", .key = "P-384"},
                                            {"p521", .cn = "p521", .key = "P-521"}};
    for (size_t i = 0; i < ARRAY_LEN(leaves); i++) {
        struct pki_how h = leaves[i];
        h.issuer = "inter";
        h.names = "DNS:leaf.test,IP:127.0.0.1";
        pki_make(&h);
    }
    pki_make(&(struct pki_how){"stranger", .cn = "stranger"});
    how = (struct tls_client){.trust = trust_of(pki_text("root", NULL)), .host = SPAN("leaf.test")};
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    trust_unref(how.trust);
    pki_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suites),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_many_certificates),
        cmocka_unit_test(test_client_certificates),
        cmocka_unit_test(test_names_asked_for),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_download),
        cmocka_unit_test(test_server),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_server_refusals),
        cmocka_unit_test(test_server_sessions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
