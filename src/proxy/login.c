/* One request to a token server; see login.h.
 *
 *   CREDENTIAL  user and password are being read          -> SEND | END
 *   SEND        by POST with a refresh token, else by GET -> HEAD
 *   HEAD        the status decides                        -> BODY | SEND (POST is not known there: GET) | END
 *   BODY        the answer is gathered, bounded           -> END
 *   END         the flight has been answered, or failed
 *
 * What is secret (the form, the Authorization value, the answer) is in memory that is wiped, and in no message. */
#include "proxy/login.h"

#include "base/mem.h"
#include "http/retry.h"
#include "base/secret_mem.h"
#include "proxy/secrets.h"
#include "proxy/tokens.h"
#include "registry/challenge.h"
#include "registry/name.h"
#include "registry/token.h"

enum login_state { LOGIN_CREDENTIAL, LOGIN_SEND, LOGIN_HEAD, LOGIN_BODY, LOGIN_END };

#define LOGIN_O_CALL       1u
#define LOGIN_O_CREDENTIAL 2u

#define TARGET_MAX (CHALLENGE_REALM_MAX + 3 * (CHALLENGE_SERVICE_MAX + 2 * NAME_REPO_MAX + 64))

struct login {
    struct op op;
    struct proxy *px;
    struct setup *setup; /* held */
    const struct conf_upstream *up;
    const struct conf_credential_set *set;
    struct flight *flight;
    struct credential credential;
    bool post, no_post, again, ended;
    bool guarded;
    enum address_kind near;
    bool has_service;

    struct url url; /* in realm */
    char *secret;   /* the form, or the value of Authorization */
    char *answer;
    size_t answer_n;
    struct call call;
    struct flight_failure failure;

    char realm[CHALLENGE_REALM_MAX + 1];
    char service[CHALLENGE_SERVICE_MAX + 1];
    char repo[NAME_REPO_MAX + 1];
    char host[300];
    char target[TARGET_MAX];
    char why[256];
};

static void on_call(struct call *call)
{
    struct login *l = CONTAINER_OF(call, struct login, call);
    if (op_expects(&l->op, LOGIN_O_CALL))
        op_clear(&l->op, LOGIN_O_CALL);
    op_run(&l->op);
}

static void on_credential(struct credential *c)
{
    struct login *l = CONTAINER_OF(c, struct login, credential);
    op_clear(&l->op, LOGIN_O_CREDENTIAL);
    op_run(&l->op);
}

/* ---- ends ---- */

static void count(struct login *l, enum token_result result)
{
    _Atomic int64_t *n = &setup_upstream_counts(l->setup, l->up, l->px->index)->tokens[result];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void let_go(struct login *l)
{
    call_end(&l->call);
    if (op_expects(&l->op, LOGIN_O_CALL))
        op_clear(&l->op, LOGIN_O_CALL);
    credential_release(&l->credential);
    if (op_expects(&l->op, LOGIN_O_CREDENTIAL))
        op_clear(&l->op, LOGIN_O_CREDENTIAL);
    secret_free(l->secret);
    l->secret = NULL;
    secret_free(l->answer);
    l->answer = NULL;
    l->answer_n = 0;
}

static enum step fail(struct login *l, int err, unsigned status, int64_t after, const char *why)
{
    struct str w = STR_INIT(l->why);
    str_addz(&w, why);
    l->failure = (struct flight_failure){.err = err, .status = status, .retry_after_ms = after};
    bool refused = err == ERR_DENIED || err == ERR_CREDENTIALS_REFUSED;
    if (err != ERR_STOPPING && err != ERR_CREDENTIALS)
        count(l, refused ? TOKENS_REFUSED : err == ERR_TOO_MANY ? TOKENS_LIMITED : TOKENS_FAILED);
    log_warn("auth", "no token", LOG_SP("registry", l->up->registry), LOG_SP("server", l->url.host),
             LOG_S("repository", l->repo),
             LOG_SP("credential_set", l->set != NULL ? l->set->name : SPAN_NONE),
             LOG_S("error", err_name(err)), LOG_U("status", status), LOG_S("why", l->why));
    let_go(l);
    flight_fail(l->flight, &l->failure);
    l->ended = true;
    return op_go(&l->op, LOGIN_END);
}

static enum step done(struct login *l, const struct token_answer *a)
{
    count(l, TOKENS_OK);
    upstream_unlimited(l->setup, l->up, l->set, WHAT_TOKEN);
    if (l->set != NULL)
        credential_accepted(setup_secrets(l->setup), l->set, l->credential.fingerprint, span_str(l->repo));
    tokens_put(l->px->shared->tokens, flight_key(l->flight), span_str(a->token), a->life_ms, clock_mono_ms());
    log_debug("auth", "token", LOG_SP("registry", l->up->registry), LOG_SP("server", l->url.host),
              LOG_S("repository", l->repo),
              LOG_SP("credential_set", l->set != NULL ? l->set->name : SPAN_NONE),
              LOG_I("seconds", a->life_ms / 1000));
    let_go(l);
    flight_answered(l->flight, &(struct flight_answer){.length = FLIGHT_UNKNOWN});
    flight_done(l->flight);
    l->ended = true;
    return op_go(&l->op, LOGIN_END);
}

/* No token for this repository: that says nothing about others, and is remembered for this one. */
static enum step denied(struct login *l, unsigned status, const char *why)
{
    struct flight_failure f = {.err = ERR_DENIED, .status = status, .retry_after_ms = -1};
    verdict_put(l->px->shared->verdicts, flight_key(l->flight), &f, AUTH_DENIED_MS, AUTH_DENIED_MS);
    return fail(l, ERR_DENIED, status, -1, why);
}

/* ---- asking ---- */

static enum step step_credential(struct login *l)
{
    if (op_expects(&l->op, LOGIN_O_CREDENTIAL))
        return STEP_WAIT;
    if (l->set == NULL)
        return op_go(&l->op, LOGIN_SEND);
    switch (credential_get(l->px, setup_secrets(l->setup), l->set, &l->credential)) {
    case CREDENTIAL_WAIT:
        op_expect(&l->op, LOGIN_O_CREDENTIAL);
        return STEP_WAIT;
    case CREDENTIAL_READY:
        return op_go(&l->op, LOGIN_SEND);
    case CREDENTIAL_FAILED:
        break;
    }
    return fail(l, ERR_CREDENTIALS, 0, -1, l->credential.why);
}

static struct span service(const struct login *l)
{
    return l->has_service ? span_str(l->service) : SPAN_NONE;
}

static void by_post(struct login *l, struct span scope)
{
    const struct credential *c = &l->credential;
    size_t cap = 3 * (c->user.n + c->refresh_token.n + CHALLENGE_SERVICE_MAX + scope.n) + 256;
    l->secret = secret_alloc(cap);
    struct str form = str_init(l->secret, cap);
    token_form(service(l), scope, c->user, c->password, c->refresh_token, &form);
    MUST(!form.cut);
    l->call.method = CALL_POST;
    l->call.body = str_span(&form);
}

/* An identity token in the place of a password is what token servers take who do not know POST. */
static void by_get(struct login *l, struct span scope, struct str *target)
{
    const struct credential *c = &l->credential;
    token_query(l->url.query, service(l), scope, l->set != NULL && c->user.n > 0 ? c->user : SPAN_NONE,
                target);
    l->call.method = CALL_GET;
    if (l->set == NULL)
        return;
    struct span password = c->password.n > 0 ? c->password : c->refresh_token;
    size_t cap = (c->user.n + password.n) / 3 * 4 + 32;
    l->secret = secret_alloc(cap);
    struct str basic = str_init(l->secret, cap);
    token_basic(c->user, password, &basic);
    MUST(!basic.cut);
    l->call.authorization = str_span(&basic);
}

static enum step step_send(struct login *l)
{
    char scope_text[NAME_REPO_MAX + 32];
    struct str scope = STR_INIT(scope_text), target = STR_INIT(l->target);
    call_end(&l->call);
    secret_free(l->secret);
    l->secret = NULL;
    l->call = (struct call){.origin = {.host = l->url.host,
                                       .port = l->url.port,
                                       .tls = l->url.tls,
                                       .max_connections = (unsigned)l->up->max_connections,
                                       .how = setup_how(l->setup, l->up, &l->url),
                                       .guarded = l->guarded,
                                       .near = l->near},
                            .host_field = span_str(l->host),
                            .fields = SPAN("Accept: application/json\r\n"),
                            .connect_ms = l->up->timeouts.connect_ms,
                            .first_byte_ms = l->up->timeouts.first_byte_ms,
                            .idle_ms = l->up->timeouts.idle_ms,
                            .deadline = upstream_deadline(l->px, l->up),
                            .whole = true,
                            .secret = true,
                            .event = on_call};
    token_scope(span_str(l->repo), &scope);
    str_add(&target, l->url.path.n > 0 ? l->url.path : SPAN("/"));
    if (l->url.query.p != NULL) {
        str_addc(&target, '?');
        str_add(&target, l->url.query);
    }
    l->post = l->set != NULL && l->credential.refresh_token.n > 0 && !l->no_post;
    if (l->post)
        by_post(l, str_span(&scope));
    else
        by_get(l, str_span(&scope), &target);
    if (target.cut || scope.cut)
        return fail(l, ERR_REALM, 0, -1, "the token server's URL is too long");
    l->call.target = str_span(&target);
    op_expect(&l->op, LOGIN_O_CALL);
    call_start(l->px->pool, &l->call);
    return op_go(&l->op, LOGIN_HEAD);
}

/* ---- the answer ---- */

static enum step broke(struct login *l)
{
    char why[sizeof l->call.why];
    memcpy(why, l->call.why, sizeof why);
    if (l->call.err == ERR_UP_CLOSED && l->call.reused && !l->again) {
        l->again =
            true; /* the client repeats a GET by itself, a POST not; asking for a token twice does no harm */
        return op_go(&l->op, LOGIN_SEND);
    }
    if (l->call.err == ERR_UP_REDIRECT) /* guarded: see struct dial */
        return fail(l, ERR_REALM, 0, -1, why);
    return fail(l, l->call.err, 0, -1, why);
}

/* A wrong password is a 401. 403 is what ghcr.io and gitlab.com say to a good one that may not read the repository, and that is no reason
 * to stop asking for others. */
static enum step refused(struct login *l, unsigned status)
{
    if (l->set == NULL)
        return denied(l, status, "the token server gives none to anonymous users");
    if (status == 403) {
        (void)credential_doubted(setup_secrets(l->setup), l->set, l->credential.fingerprint);
        return denied(l, status,
                      "the token server gives this account none: may it read the repository, is its password "
                      "right?");
    }
    if (!credential_refused(setup_secrets(l->setup), l->set, l->credential.fingerprint, status, l->url.host,
                            span_str(l->repo)))
        return denied(l, status, "the token server refuses this repository to an account that it knows");
    return fail(l, ERR_CREDENTIALS_REFUSED, status, -1, "the token server refuses the credentials");
}

/* A limit is kept for all who want a token of this upstream with this account. */
static enum step limited(struct login *l, unsigned status, int64_t after)
{
    struct flight_failure f = {
        .err = status == 429 ? ERR_TOO_MANY : ERR_UP_UNAVAILABLE, .status = status, .retry_after_ms = after};
    upstream_limited(l->setup, l->up, l->set, WHAT_TOKEN, &f);
    return fail(l, f.err, status, f.retry_after_ms, "the token server limits requests");
}

static enum step bad_status(struct login *l, const struct h1_head *head)
{
    unsigned status = head->status;
    int64_t after = retry_after_parse(h1_get(head, SPAN("retry-after")), clock_wall_ms());
    char why[64];
    struct str w = STR_INIT(why);
    if (status == 429 || (status == 503 && after >= 0))
        return limited(l, status, after);
    if (status >= 300 && status < 400)
        return fail(l, ERR_UP_REDIRECT, 0, -1, "the token server redirects, which is not followed");
    if (l->post && (status == 400 || status == 401 || status == 404 || status == 405)) {
        l->no_post = true;
        return op_go(&l->op, LOGIN_SEND);
    }
    if (status == 401 || status == 403)
        return refused(l, status);
    str_addf(&w, "status %u from the token server", status);
    if (status == 408 || status == 504)
        return fail(l, ERR_UP_TIMEOUT, status, -1, why);
    if (status >= 500)
        return fail(l, status == 503 ? ERR_UP_UNAVAILABLE : ERR_UP_STATUS, status, -1, why);
    return fail(l, ERR_UP_STATUS, 0, -1, why); /* its 404 says nothing about the content */
}

static enum step step_head(struct login *l)
{
    switch (l->call.state) {
    case CALL_FAILED:
        return broke(l);
    case CALL_HEADED:
    case CALL_END:
        break;
    default:
        return op_wait(&l->op, LOGIN_O_CALL);
    }
    const struct h1_head *head = l->call.head;
    if (head->status != 200)
        return bad_status(l, head);
    if (head->has_length && head->length > TOKEN_ANSWER_MAX)
        return fail(l, ERR_UP_CONTENT, 0, -1, "the token server's answer is too long");
    l->answer = secret_alloc(TOKEN_ANSWER_MAX + 1);
    return op_go(&l->op, LOGIN_BODY);
}

static enum step step_body(struct login *l)
{
    for (;;) {
        if (l->answer_n > TOKEN_ANSWER_MAX)
            return fail(l, ERR_UP_CONTENT, 0, -1, "the token server's answer is too long");
        ssize_t n = call_read(&l->call, l->answer + l->answer_n, TOKEN_ANSWER_MAX + 1 - l->answer_n);
        if (n == CALL_AGAIN)
            return op_wait(&l->op, LOGIN_O_CALL);
        if (n == CALL_BROKEN)
            return broke(l);
        if (n == 0)
            break;
        l->answer_n += (size_t)n;
    }
    char why[128];
    struct str w = STR_INIT(why);
    struct token_answer a = {0};
    if (!token_answer_read(span_of(l->answer, l->answer_n), clock_wall_ms(), &a, &w))
        return fail(l, ERR_UP_CONTENT, 0, -1, why);
    enum step step = done(l, &a);
    token_answer_free(&a);
    return step;
}

/* ---- the operation ---- */

static enum step login_step(struct op *op)
{
    struct login *l = CONTAINER_OF(op, struct login, op);
    if (op->closing != 0 && !l->ended)
        return fail(l, op->closing, 0, -1, "stopping");
    switch ((enum login_state)op->state) {
    case LOGIN_CREDENTIAL:
        return step_credential(l);
    case LOGIN_SEND:
        return step_send(l);
    case LOGIN_HEAD:
        return step_head(l);
    case LOGIN_BODY:
        return step_body(l);
    case LOGIN_END:
        break;
    }
    return STEP_END;
}

static void login_free(struct op *op)
{
    struct login *l = CONTAINER_OF(op, struct login, op);
    MUST(l->ended);
    flight_clear_leader(l->flight);
    flight_unref(l->flight);
    setup_release(l->px, l->setup);
    mem_free(l);
}

static const char *login_state_name(unsigned state)
{
    static const char *const names[] = {"credential", "send", "head", "body", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static bool login_idle(const struct op *op)
{
    return flight_readers(CONTAINER_OF(op, struct login, op)->flight) == 0;
}

static const struct op_class login_class = {"token", login_step, login_free, login_state_name, login_idle};

static void copy(char *to, size_t cap, struct span s)
{
    MUST(s.n < cap);
    if (s.p != NULL)
        memcpy(to, s.p, s.n);
    to[s.n] = 0;
}

void login_lead(struct proxy *px, struct flight *flight, const struct login_what *w)
{
    struct login *l;
    NEW(l);
    op_init(&l->op, px->core, &login_class, LOGIN_CREDENTIAL);
    l->px = px;
    l->setup = setup_hold(px, w->setup);
    l->up = w->up;
    l->set = w->set;
    l->flight = flight_ref(flight);
    flight_set_leader(flight, px->core, NULL);
    l->credential.done = on_credential;
    l->guarded = w->guarded;
    l->near = w->near;
    l->has_service = w->service.p != NULL;
    copy(l->realm, sizeof l->realm, w->realm);
    copy(l->service, sizeof l->service, w->service);
    copy(l->repo, sizeof l->repo, w->repo);
    MUST(url_parse(span_str(l->realm), &l->url)); /* it has been judged */
    for (char *p = l->realm + (l->url.host.p - l->realm); p < l->url.host.p + l->url.host.n; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 'a' - 'A'); /* the pool knows hosts in lower case */
    }
    struct str host = STR_INIT(l->host);
    url_add_host(&l->url, &host);
    op_run(&l->op);
}
