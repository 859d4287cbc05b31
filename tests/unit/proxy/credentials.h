/* What the tests of credential sets share: a configuration with sets that a test adds, and askers for them. */
#ifndef LARDER_TESTS_PROXY_CREDENTIALS_H
#define LARDER_TESTS_PROXY_CREDENTIALS_H

#include "rig.h"

#include "proxy/secrets_int.h"

#define SETS_MAX 4

static struct conf_credential_set sets[SETS_MAX];
static size_t n_sets;
static struct conf_resolve addresses[SETS_MAX];
static size_t n_addresses;

/* ---- a configuration with credential sets ---- */

static inline struct conf_secret ref_of(const char *text)
{
    static const struct {
        const char *scheme;
        enum conf_secret_kind kind;
    } kinds[] = {{"env:", SECRET_ENV},
                 {"file:", SECRET_FILE},
                 {"dockerconfig:", SECRET_DOCKERCONFIG},
                 {"exec:", SECRET_EXEC},
                 {"https:", SECRET_VAULT}};
    struct conf_secret s = {.kind = SECRET_NONE, .text = span_str(text)};
    if (text == NULL)
        return s;
    s.kind = SECRET_TEXT;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!span_starts(s.text, span_str(kinds[i].scheme)))
            continue;
        s.kind = kinds[i].kind;
        s.arg = s.kind == SECRET_VAULT ? s.text : span_from(s.text, strlen(kinds[i].scheme));
    }
    return s;
}

static inline void add_address(const char *host, uint16_t port)
{
    MUST(n_addresses < SETS_MAX);
    addresses[n_addresses++] = (struct conf_resolve){span_str(host), SPAN("127.0.0.1"), port};
}

static inline void add_set(const char *name, const char *registry, const char *user, const char *password)
{
    MUST(n_sets < SETS_MAX);
    sets[n_sets] = (struct conf_credential_set){.name = span_str(name),
                                                .login_server = span_str(registry),
                                                .username = ref_of(user),
                                                .password = ref_of(password),
                                                .index = (unsigned)n_sets};
    n_sets++;
}

/* With the sets that have been added; file: the configuration's, for relative paths. */
static inline struct setup *make_setup(struct rig *r, struct setup *before)
{
    static char file[160];
    snprintf(file, sizeof file, "%s", rig_path(r, "config.yaml"));
    struct conf *conf = rig_conf("rules:\n  - {name: r, source: up.test/*, target: t/*}\n", file);
    conf->credential_sets = sets;
    conf->n_credential_sets = n_sets;
    conf->resolve = addresses;
    conf->n_resolve = n_addresses;
    struct setup *s = rig_setup_new(conf, before);
    conf_unref(conf);
    return s;
}

/* ---- askers ---- */

struct asked {
    struct credential c;
    const struct conf_credential_set *set;
    struct rig_core *on;
    enum credential_state state;
    unsigned waits;
    char user[64], password[64], refresh[64], why[256];
    uint64_t fingerprint;
    sem_t ready;
};

static inline void copy(char *to, size_t cap, struct span s)
{
    snprintf(to, cap, SPAN_FMT, SPAN_ARG(s));
}

static inline void ask_again(struct credential *c)
{
    struct asked *a = CONTAINER_OF(c, struct asked, c);
    a->state = credential_get(a->on->px, setup_secrets(a->on->px->setup), a->set, c);
    if (a->state == CREDENTIAL_WAIT) {
        a->waits++;
        return;
    }
    copy(a->user, sizeof a->user, c->user);
    copy(a->password, sizeof a->password, c->password);
    copy(a->refresh, sizeof a->refresh, c->refresh_token);
    copy(a->why, sizeof a->why, span_str(c->why));
    a->fingerprint = c->fingerprint;
    credential_release(c);
    sem_post(&a->ready);
}

static inline void ask_begin(struct rig_core *on, void *arg)
{
    struct asked *a = arg;
    a->on = on;
    a->c.done = ask_again;
    ask_again(&a->c);
}

static inline void ask_on(struct rig *r, unsigned core, unsigned set, struct asked *a)
{
    *a = (struct asked){.set = &sets[set]};
    sem_init(&a->ready, 0, 0);
    on_core(r, core, ask_begin, a);
}

static inline struct asked ask(struct rig *r, unsigned set)
{
    struct asked a;
    ask_on(r, 0, set, &a);
    sem_wait(&a.ready);
    return a;
}

static inline void expect_ready(struct rig *r, unsigned set, const char *user, const char *password)
{
    struct asked a = ask(r, set);
    if (a.state != CREDENTIAL_READY)
        fail_msg("not ready: %s", a.why);
    assert_string_equal(a.user, user);
    assert_string_equal(a.password, password);
}

static inline void expect_failed(struct rig *r, unsigned set, const char *why)
{
    struct asked a = ask(r, set);
    assert_int_equal(a.state, CREDENTIAL_FAILED);
    if (strstr(a.why, why) == NULL)
        fail_msg("'%s' does not say '%s'", a.why, why);
}

#endif
