/* Azure Key Vault, and the two kinds of identity, against one scripted server that speaks both http (the metadata service) and https (vaults and
 * token servers, to which the `resolve` map leads). The root of its certificate is what SSL_CERT_FILE names. */
#include "credentials.h"

#include "../net/pki.h"

#include "base/mem.h"
#include "net/listen.h"
#include "net/tls.h"

#define ASKED_MAX 32

/* ---- the server: what it answers is set by the test, what it was asked is looked at by the test ---- */

struct question {
    char text[8192]; /* head and body */
};

static struct {
    pthread_mutex_t lock; /* guards the rest */
    struct question asked[ASKED_MAX];
    unsigned n;
    unsigned token_status, secret_status;
    const char *token, *user, *password; /* bodies */
    bool silent;
} script = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct server_side {
    struct core *core;
    pthread_t thread;
    struct core_msg start, stop;
    int fds[2];
    struct listener *listener[2]; /* plain, TLS */
    uint16_t port[2];
    struct identity *identity;
    struct tls_cache *cache;
    struct list open;
    char root[64]; /* file with the root */
    sem_t started;
} server;

struct visitor {
    struct list_node node;
    struct stream *s;
    char in[8192], out[16384];
    size_t n, out_n, out_at;
};

static void visitor_close(struct visitor *v)
{
    list_remove(&v->node);
    stream_close(v->s, false);
    mem_free(v);
}

static size_t body_length(const char *head)
{
    const char *at = strcasestr(head, "\r\ncontent-length:");
    return at == NULL ? 0 : strtoul(at + 17, NULL, 10);
}

/* Is the request complete? */
static bool whole(const struct visitor *v)
{
    const char *end = strstr(v->in, "\r\n\r\n");
    return end != NULL && v->n >= (size_t)(end + 4 - v->in) + body_length(v->in);
}

static bool answer_to(struct visitor *v)
{
    pthread_mutex_lock(&script.lock);
    MUST(script.n < ASKED_MAX);
    snprintf(script.asked[script.n++].text, sizeof script.asked[0].text, "%s", v->in);
    bool token = strstr(v->in, "oauth2") != NULL;
    unsigned status = token ? script.token_status : script.secret_status;
    const char *body = token                                    ? script.token
                       : strstr(v->in, "/secrets/user") != NULL ? script.user
                                                                : script.password;
    v->out_n =
        (size_t)snprintf(v->out, sizeof v->out,
                         "HTTP/1.1 %u X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                         status, strlen(body), body);
    bool silent = script.silent;
    pthread_mutex_unlock(&script.lock);
    v->out_at = 0;
    v->n = 0;
    return !silent;
}

static void visitor_ready(struct stream *s, unsigned events)
{
    UNUSED(events);
    struct visitor *v = s->owner;
    while (v->out_at == v->out_n) {
        ssize_t n = stream_recv(s, v->in + v->n, sizeof v->in - 1 - v->n);
        if (n == STREAM_AGAIN) {
            stream_want(s, STREAM_READ);
            return;
        }
        if (n <= 0) {
            visitor_close(v);
            return;
        }
        v->n += (size_t)n;
        v->in[v->n] = 0;
        if (whole(v) && !answer_to(v))
            v->out_at = v->out_n = 0; /* it waits for ever */
    }
    while (v->out_at < v->out_n) {
        struct iovec iov = {v->out + v->out_at, v->out_n - v->out_at};
        ssize_t n = stream_writev(s, &iov, 1, false);
        if (n == STREAM_AGAIN) {
            stream_want(s, STREAM_WRITE);
            return;
        }
        if (n < 0) {
            visitor_close(v);
            return;
        }
        v->out_at += (size_t)n;
    }
    stream_want(s, STREAM_READ);
}

static void visitor_new(struct stream *s, unsigned want)
{
    struct visitor *v;
    NEW(v);
    v->s = s;
    s->owner = v;
    s->ready = visitor_ready;
    list_push_back(&server.open, &v->node);
    stream_want(s, want);
}

static void on_plain(struct core *core, int fd, void *arg)
{
    UNUSED(arg);
    struct stream *s = tcp_accepted(core, fd);
    MUST(s != NULL);
    visitor_new(s, STREAM_READ);
}

static void on_handshake(struct stream *s, unsigned events)
{
    if (!stream_connected(s)) {
        visitor_close(s->owner);
        return;
    }
    s->ready = visitor_ready;
    visitor_ready(s, events);
}

static void on_tls(struct core *core, int fd, void *arg)
{
    UNUSED(arg);
    struct stream *under = tcp_accepted(core, fd);
    MUST(under != NULL);
    struct stream *s = tls_server(under, server.identity, server.cache);
    visitor_new(s, STREAM_WRITE);
    s->ready = on_handshake;
}

static void on_server_start(struct core_msg *m)
{
    UNUSED(m);
    server.listener[0] = listener_start(server.core, server.fds[0], on_plain, NULL);
    server.listener[1] = listener_start(server.core, server.fds[1], on_tls, NULL);
    sem_post(&server.started);
}

static void on_server_stop(struct core_msg *m)
{
    UNUSED(m);
    struct list_node *n;
    while ((n = list_first(&server.open)) != NULL)
        visitor_close(CONTAINER_OF(n, struct visitor, node));
    listener_stop(server.listener[0]);
    listener_stop(server.listener[1]);
    core_quit(server.core);
}

static void *server_thread(void *arg)
{
    UNUSED(arg);
    core_run(server.core);
    return NULL;
}

static void server_certificates(void)
{
    char text[256];
    struct str why = STR_INIT(text);
    pki_open();
    pki_make(&(struct pki_how){"root", .cn = "Root", .authority = true});
    pki_make(
        &(struct pki_how){"leaf", .cn = "leaf", .issuer = "root",
                          .names = "DNS:*.vault.azure.net,DNS:login.microsoftonline.com,DNS:login.own.test"});
    server.identity = identity_new(pki_text("leaf", "root", NULL), pki_key("leaf"), &why);
    MUST(server.identity != NULL);
    snprintf(server.root, sizeof server.root, "vault-test-root-%d.pem", (int)getpid());
    FILE *f = fopen(server.root, "w");
    struct span root = pki_text("root", NULL);
    MUST(f != NULL && fwrite(root.p, root.n, 1, f) == 1 && fclose(f) == 0);
    setenv("SSL_CERT_FILE", server.root, 1);
    pki_close();
}

static int server_begin(void **state)
{
    UNUSED(state);
    char text[256];
    struct str why = STR_INIT(text);
    server_certificates();
    server.cache = tls_cache_new();
    server.core = core_new(9);
    MUST(server.core != NULL);
    list_init(&server.open);
    sem_init(&server.started, 0, 0);
    for (unsigned i = 0; i < 2; i++)
        MUST(listen_open(SPAN("127.0.0.1"), 0, false, 1, &server.fds[i], &server.port[i], &why));
    core_msg_init(&server.start, on_server_start);
    core_msg_init(&server.stop, on_server_stop);
    core_post(server.core, &server.start);
    MUST(pthread_create(&server.thread, NULL, server_thread, NULL) == 0);
    sem_wait(&server.started);
    return 0;
}

static int server_end(void **state)
{
    UNUSED(state);
    core_post(server.core, &server.stop);
    pthread_join(server.thread, NULL);
    core_free(server.core);
    tls_cache_free(server.cache);
    identity_unref(server.identity);
    unlink(server.root);
    return 0;
}

static void answers(unsigned token_status, const char *token, unsigned secret_status, const char *user,
                    const char *password)
{
    pthread_mutex_lock(&script.lock);
    script.token_status = token_status;
    script.token = token;
    script.secret_status = secret_status;
    script.user = user;
    script.password = password;
    script.silent = false;
    script.n = 0;
    pthread_mutex_unlock(&script.lock);
}

#define TOKEN "{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"the.access.token\"}"
#define USER  "{\"value\":\"alice\",\"id\":\"https://v.vault.azure.net/secrets/user/1\"}"
#define PW    "{\"value\":\"s3cret\",\"attributes\":{\"enabled\":true}}"

static void asked_for(unsigned i, const char *what)
{
    pthread_mutex_lock(&script.lock);
    bool there = i < script.n && strstr(script.asked[i].text, what) != NULL;
    if (!there)
        fail_msg("question %u of %u does not contain '%s': %s", i, script.n, what,
                 i < script.n ? script.asked[i].text : "");
    pthread_mutex_unlock(&script.lock);
}

static unsigned n_asked(void)
{
    pthread_mutex_lock(&script.lock);
    unsigned n = script.n;
    pthread_mutex_unlock(&script.lock);
    return n;
}

/* ---- tests ---- */

static int setup(void **state)
{
    static const char *const variables[] = {"HTTPS_PROXY",
                                            "https_proxy",
                                            "HTTP_PROXY",
                                            "http_proxy",
                                            "AZURE_CLIENT_ID",
                                            "AZURE_TENANT_ID",
                                            "AZURE_FEDERATED_TOKEN_FILE",
                                            "AZURE_AUTHORITY_HOST"};
    for (size_t i = 0; i < ARRAY_LEN(variables); i++)
        unsetenv(variables[i]);
    n_sets = n_addresses = 0;
    add_address("v.vault.azure.net", server.port[1]);
    add_address("login.microsoftonline.com", server.port[1]);
    add_address("login.own.test", server.port[1]);
    char service[64];
    snprintf(service, sizeof service, "http://127.0.0.1:%u/", server.port[0]);
    setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service, 1);
    answers(200, TOKEN, 200, USER, PW);
    add_set("a", "r.example", "https://v.vault.azure.net/secrets/user",
            "https://V.vault.azure.net/secrets/pw/7");
    return rig_folder(state);
}

static void workload(struct rig *r)
{
    rig_write(r, "token", "ey.workload\n", 0600);
    setenv("AZURE_CLIENT_ID", "the-client", 1);
    setenv("AZURE_TENANT_ID", "the-tenant", 1);
    setenv("AZURE_FEDERATED_TOKEN_FILE", rig_path(r, "token"), 1);
}

static void test_workload_identity(void **state)
{
    struct rig *r = *state;
    workload(r);
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "alice", "s3cret");
    expect_ready(r, 0, "alice", "s3cret"); /* it is kept */
    assert_int_equal(n_asked(), 3);
    asked_for(0, "POST /the-tenant/oauth2/v2.0/token HTTP/1.1\r\n");
    asked_for(0, "Host: login.microsoftonline.com\r\n");
    asked_for(0, "client_id=the-client&scope=https%3A%2F%2Fvault.azure.net%2F.default&");
    asked_for(0, "&client_assertion=ey.workload");
    asked_for(1, "GET /secrets/user?api-version=7.4 HTTP/1.1\r\n");
    asked_for(1, "Host: v.vault.azure.net\r\n");
    asked_for(1, "Authorization: Bearer the.access.token\r\n");
    asked_for(2, "GET /secrets/pw/7?api-version=7.4 HTTP/1.1\r\n");
    rig_stop(r);
}

static void test_another_authority(void **state)
{
    struct rig *r = *state;
    workload(r);
    setenv("AZURE_AUTHORITY_HOST", "https://login.own.test/", 1);
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "alice", "s3cret");
    asked_for(0, "Host: login.own.test\r\n");
    rig_stop(r);
    setenv("AZURE_AUTHORITY_HOST", "http://login.own.test/", 1);
    answers(200, TOKEN, 200, USER, PW);
    n_sets = 0;
    add_set("b", "r.example", "u", "https://v.vault.azure.net/secrets/pw");
    rig_start(r, make_setup(r, NULL));
    expect_failed(r, 0, "AZURE_AUTHORITY_HOST is not an https URL");
    assert_int_equal(n_asked(), 0);
    rig_stop(r);
}

static void test_managed_identity(void **state)
{
    struct rig *r = *state;
    setenv("AZURE_CLIENT_ID", "one-of-two", 1);
    setenv("HTTP_PROXY", "http://127.0.0.1:1", 1); /* never for the metadata service */
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "alice", "s3cret");
    asked_for(
        0, "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net"
           "&client_id=one-of-two HTTP/1.1\r\n");
    asked_for(0, "Metadata: true\r\n");
    asked_for(1, "Authorization: Bearer the.access.token\r\n");
    rig_stop(r);
}

static void failing(struct rig *r, const char *why)
{
    rig_start(r, make_setup(r, NULL));
    expect_failed(r, 0, why);
    assert_null(strstr(ask(r, 0).why, "s3cret"));
    rig_stop(r);
}

static void test_says_why(void **state)
{
    struct rig *r = *state;
    answers(200, TOKEN, 403, "{\"error\":{\"code\":\"Forbidden\",\"message\":\"s3cret\"}}", PW);
    failing(r, "https://v.vault.azure.net/secrets/user: Azure Key Vault answered with status 403 "
               "(Forbidden): give the ");
    answers(200, TOKEN, 404, "{\"error\":{\"code\":\"SecretNotFound\"}}", PW);
    failing(r, "status 404 (SecretNotFound): the vault has no such secret");
    answers(200, TOKEN, 200, "{\"values\":\"s3cret\"}", PW);
    failing(r, "Azure Key Vault's answer has not what was asked for");
    answers(400, "{\"error\":\"invalid_request\",\"error_description\":\"Identity not found\"}", 200, USER,
            PW);
    failing(
        r,
        "the metadata service for managed identities answered with status 400 (invalid_request): give this");
    answers(503, "busy", 200, USER, PW);
    failing(r, "answered with status 503 (no reason given)");
    workload(r);
    answers(401, "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS70021: s3cret\"}", 200, USER,
            PW);
    failing(r,
            "Microsoft Entra ID answered with status 401 (invalid_client AADSTS70021): check the federated");
    setenv("AZURE_FEDERATED_TOKEN_FILE", "missing-file", 1);
    failing(r, "AZURE_FEDERATED_TOKEN_FILE=missing-file: No such file");
}

static void test_not_reached(void **state)
{
    struct rig *r = *state;
    n_addresses = 0;
    add_address("v.vault.azure.net", 1); /* nobody listens there */
    failing(r, "Azure Key Vault: ");
}

static void refuse(struct rig *r, uint64_t fingerprint)
{
    (void)credential_refused(setup_secrets(r->shared->setup), &sets[0], fingerprint, 401, SPAN("r.example"),
                             SPAN("app"));
}

/* When a server refuses what the vault said, the vault is asked again. */
static void test_refused_is_asked_again(void **state)
{
    struct rig *r = *state;
    rig_start(r, make_setup(r, NULL));
    struct asked a = ask(r, 0);
    answers(200, TOKEN, 200, USER, "{\"value\":\"rotated\"}");
    expect_ready(r, 0, "alice", "s3cret");
    assert_int_equal(n_asked(), 0);
    refuse(r, a.fingerprint);
    expect_ready(r, 0, "alice", "rotated");
    assert_int_equal(n_asked(), 3);
    rig_stop(r);
}

/* A vault that fails does not take away what it said before. */
static void test_goes_on_with_what_it_was(void **state)
{
    struct rig *r = *state;
    rig_start(r, make_setup(r, NULL));
    struct asked a = ask(r, 0);
    answers(200, TOKEN, 503, "{}", "{}");
    refuse(r, a.fingerprint);
    expect_ready(r, 0, "alice", "s3cret");
    assert_int_not_equal(n_asked(), 0);
    assert_true(ask(r, 0).fingerprint == a.fingerprint);
    rig_stop(r);
}

static void ask_and_stay(struct rig_core *on, void *arg)
{
    ask_begin(on, arg);
}

static void leave(struct rig_core *on, void *arg)
{
    UNUSED(on);
    credential_release(&((struct asked *)arg)->c);
}

static void test_stops_while_asking(void **state)
{
    struct rig *r = *state;
    pthread_mutex_lock(&script.lock);
    script.silent = true;
    pthread_mutex_unlock(&script.lock);
    rig_start(r, make_setup(r, NULL));
    struct asked a = {.set = &sets[0]};
    sem_init(&a.ready, 0, 0);
    on_core(r, 0, ask_and_stay, &a);
    while (n_asked() == 0)
        usleep(1000);
    on_core(r, 0, leave, &a);
    rig_stop(r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, rig_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_workload_identity),
        TEST(test_another_authority),
        TEST(test_managed_identity),
        TEST(test_says_why),
        TEST(test_not_reached),
        TEST(test_refused_is_asked_again),
        TEST(test_goes_on_with_what_it_was),
        TEST(test_stops_while_asking),
    };
    return cmocka_run_group_tests(tests, server_begin, server_end);
}
