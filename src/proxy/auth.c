/* See auth.h.
 *
 *   NEW         nothing is known yet                        -> BARE | CHOOSE (a challenge is remembered)
 *   CHOOSE      a challenge is there: which way?            -> CREDENTIAL | TOKEN | BARE | REFUSED
 *   CREDENTIAL  user and password are being read; of some that a server refuses, the tokens that were got with them before stay good
 *                                                           -> BASIC | TOKEN | REFUSED
 *   TOKEN       is it in the cache?                         -> BEARER | SEAT | REFUSED
 *   SEAT        a flight fetches it                         -> TOKEN | BARE | REFUSED
 *   BARE, BASIC, BEARER  the request is out                 -> CHOOSE, TOKEN, BARE, PING (auth_challenged) | CREDENTIAL
 *                                                              (auth_forbidden) | REFUSED
 *   PING        a 401 without a challenge: /v2/ is asked for one -> CHOOSE | REFUSED
 *   REFUSED
 *
 * A remembered challenge is a guess: what goes wrong with it (the token server has moved, or knows no anonymous users although this
 * repository is for all; the registry answers with another challenge) sends the request out bare once, and what the registry then says
 * counts. */
#include "proxy/auth.h"

#include "base/mem.h"
#include "base/secret_mem.h"
#include "http/retry.h"
#include "proxy/login.h"
#include "proxy/secrets.h"
#include "proxy/tokens.h"
#include "registry/token.h"

enum phase {
    PHASE_NEW,
    PHASE_CHOOSE,
    PHASE_CREDENTIAL,
    PHASE_TOKEN,
    PHASE_SEAT,
    PHASE_PING,
    PHASE_BARE,
    PHASE_BASIC,
    PHASE_BEARER,
    PHASE_REFUSED
};

#define KEY_MAX    80
#define ORIGIN_MAX 300
#define PLACE_MAX  (ORIGIN_MAX + CONF_PREFIX_MAX)

struct auth_state {
    struct auth *auth;
    struct challenge challenge;
    enum address_kind peer; /* of who challenged */
    bool remembered;        /* the challenge is from memory, not from an answer to this request */
    bool fresh;             /* the token was fetched for this request */
    bool renewed;           /* a token was refused, and dropped */
    bool late;
    bool distrusted; /* there is a credential set, and the realm may not see it */
    struct realm realm;
    const struct conf_credential_set *set; /* that is used; NULL: anonymously */
    struct credential credential;
    uint64_t fingerprint;               /* of the credentials that key, or basic, was made with; 0: none */
    uint64_t doubted;                   /* fingerprint of those that got a 403; 0: none did */
    char key[KEY_MAX], failed[KEY_MAX]; /* Basic has one, too: what was denied is remembered by it */
    struct flight_failure failure;      /* of `failed` */
    struct token token;
    char *basic;
    size_t basic_n;
    struct flight_seat seat;
    struct timer timer;
    struct call ping;
    char ping_target[CONF_PREFIX_MAX + sizeof "/v2/"], ping_host[ORIGIN_MAX];
    char why[256];
};

/* ---- what happens meanwhile ---- */

static void on_credential(struct credential *c)
{
    struct auth *a = CONTAINER_OF(c, struct auth_state, credential)->auth;
    a->done(a);
}

static void on_seat(struct flight_seat *seat)
{
    struct auth *a = CONTAINER_OF(seat, struct auth_state, seat)->auth;
    a->done(a);
}

static void on_late(struct timer *t)
{
    struct auth_state *s = CONTAINER_OF(t, struct auth_state, timer);
    s->late = true;
    s->auth->done(s->auth);
}

static struct auth_state *state_of(struct auth *a)
{
    if (a->state != NULL)
        return a->state;
    struct auth_state *s;
    NEW(s);
    s->auth = a;
    s->credential.done = on_credential;
    s->seat.wake = on_seat;
    timer_init(&s->timer, on_late);
    a->state = s;
    return s;
}

static void origin_key(const struct url *u, struct str *out)
{
    str_add(out, u->tls ? SPAN("https://") : SPAN("http://"));
    for (size_t i = 0; i < u->host.n; i++) {
        char c = u->host.p[i];
        str_addc(out, c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c);
    }
    str_addc(out, ':');
    str_addu(out, u->port);
}

/* By which a challenge is remembered: what shares a host with it may be another registry. */
static void place_key(const struct auth *a, struct str *out)
{
    origin_key(&a->origin, out);
    str_add(out, a->prefix);
}

/* ---- results ---- */

static void refuse(struct auth *a, int err, unsigned status, int64_t after, const char *why)
{
    struct auth_state *s = state_of(a);
    if (why != NULL) {
        struct str w = STR_INIT(s->why);
        str_addz(&w, why);
    }
    a->err = err;
    a->status = status;
    a->retry_after_ms = after;
    a->why = s->why;
    a->value = SPAN_NONE;
    a->phase = PHASE_REFUSED;
}

/* Access was denied: by the registry, or by its token server. */
static void refuse_denied(struct auth *a, unsigned status, const char *why)
{
    struct auth_state *s = state_of(a);
    if (s->distrusted) /* s->why says which realm */
        refuse(a, ERR_REALM, status, -1, NULL);
    else
        refuse(a, ERR_DENIED, status, -1, why);
}

static void go_bare(struct auth *a)
{
    a->value = SPAN_NONE;
    a->phase = PHASE_BARE;
}

/* Parks, unless the time is over. */
static bool wait_on(struct auth *a)
{
    struct auth_state *s = a->state;
    int64_t left = a->deadline - core_now(a->px->core);
    if (s->late || left <= 0) {
        flight_leave(&s->seat);
        credential_release(&s->credential);
        refuse(a, ERR_UP_TIMEOUT, 0, -1, "no token in time");
        return false;
    }
    if (s->timer.due == 0)
        timer_arm(a->px->core, &s->timer, left);
    return true;
}

static void wait_over(struct auth_state *s)
{
    timer_disarm(&s->timer);
}

/* ---- choosing ---- */

static void recall(struct auth *a)
{
    char key[PLACE_MAX];
    struct str k = STR_INIT(key);
    place_key(a, &k);
    struct challenge c;
    enum address_kind peer;
    if (!tokens_recall(a->px->shared->tokens, str_span(&k), &c, &peer)) {
        go_bare(a);
        return;
    }
    struct auth_state *s = state_of(a);
    s->challenge = c;
    s->peer = peer;
    s->remembered = true;
    a->phase = PHASE_CHOOSE;
}

static void forget(struct auth *a)
{
    char key[PLACE_MAX];
    struct str k = STR_INIT(key);
    place_key(a, &k);
    tokens_forget(a->px->shared->tokens, str_span(&k));
}

static void choose_basic(struct auth *a)
{
    struct auth_state *s = a->state;
    s->set = a->set;
    if (a->set != NULL && realm_own(a->up, &a->origin))
        a->phase = PHASE_CREDENTIAL;
    else if (s->remembered)
        go_bare(a);
    else
        refuse(a, ERR_DENIED, 401, -1,
               "the registry wants a user and a password, and there is no credential set for it");
}

static void choose_bearer(struct auth *a)
{
    struct auth_state *s = a->state;
    struct str why = STR_INIT(s->why);
    enum realm_trust trust =
        realm_judge(a->up, &a->origin, s->peer, span_str(s->challenge.realm), &s->realm, &why);
    s->distrusted = trust == REALM_REFUSED || (trust == REALM_ANONYMOUS && a->set != NULL);
    s->set = trust == REALM_CREDENTIALS ? a->set : NULL;
    s->fingerprint = 0;
    if (trust != REALM_REFUSED)
        a->phase = s->set != NULL ? PHASE_CREDENTIAL : PHASE_TOKEN;
    else if (s->remembered)
        go_bare(a);
    else
        refuse(a, ERR_REALM, 401, -1, NULL);
}

static void choose(struct auth *a)
{
    if (a->state->challenge.scheme == CHALLENGE_BEARER)
        choose_bearer(a);
    else
        choose_basic(a);
}

/* ---- credentials ---- */

static void hash_part(struct hasher *h, struct span part)
{
    uint64_t n = part.p != NULL ? part.n : UINT64_MAX;
    hasher_update(h, &n, sizeof n);
    hasher_update(h, part.p, part.n);
}

/* All that a token depends on, or a denial. A digest of it: a key is short, and tells nobody anything. */
static void make_key(struct auth *a)
{
    struct auth_state *s = a->state;
    struct hasher h;
    struct digest d;
    char place_text[PLACE_MAX];
    struct str place = STR_INIT(place_text), key = STR_INIT(s->key);
    place_key(a, &place);
    hasher_init(&h, DIGEST_SHA256);
    hash_part(&h, str_span(&place));
    hash_part(&h, span_str(s->challenge.realm));
    hash_part(&h, s->challenge.has_service ? span_str(s->challenge.service) : SPAN_NONE);
    hash_part(&h, a->repo);
    hash_part(&h, s->set != NULL ? s->set->name : SPAN_NONE);
    hasher_update(&h, &s->fingerprint, sizeof s->fingerprint);
    hasher_finish(&h, &d);
    str_add(&key, SPAN("T "));
    digest_addhex(&key, &d);
    MUST(!key.cut);
}

static void basic_wipe(struct auth_state *s)
{
    secret_free(s->basic);
    s->basic = NULL;
    s->basic_n = 0;
}

static void basic_make(struct auth *a)
{
    struct auth_state *s = a->state;
    const struct credential *c = &s->credential;
    struct span password = c->password.n > 0 ? c->password : c->refresh_token;
    basic_wipe(s);
    s->basic_n = 16 + (c->user.n + password.n + 3) / 3 * 4;
    s->basic = secret_alloc(s->basic_n);
    struct str b = str_init(s->basic, s->basic_n);
    token_basic(c->user, password, &b);
    MUST(!b.cut);
    a->value = str_span(&b);
    a->phase = PHASE_BASIC;
}

static void credential_ready(struct auth *a)
{
    struct auth_state *s = a->state;
    struct flight_failure f;
    s->fingerprint = s->credential.fingerprint;
    if (s->challenge.scheme == CHALLENGE_BEARER) {
        a->phase = PHASE_TOKEN;
        return;
    }
    make_key(a);
    if (s->fingerprint == s->doubted)
        refuse(a, ERR_DENIED, 403, -1, "status 403");
    else if (verdict_get(a->px->shared->verdicts, span_str(s->key), &f))
        refuse(a, f.err, f.status, -1, "not asked: the registry has just denied it to this account");
    else
        basic_make(a);
}

static void credential_failed(struct auth *a)
{
    struct auth_state *s = a->state;
    char why[256];
    struct str w = STR_INIT(why);
    s->fingerprint = s->credential.fingerprint;
    make_key(a);
    if (s->fingerprint != 0 && tokens_have(a->px->shared->tokens, span_str(s->key), clock_mono_ms())) {
        a->phase = PHASE_TOKEN;
        return;
    }
    str_add(&w, SPAN("credential set "));
    str_add(&w, a->set->name);
    str_add(&w, SPAN(": "));
    str_addz(&w, s->credential.why);
    refuse(a, ERR_CREDENTIALS, 0, -1, why);
}

/* False: wait. */
static bool credential(struct auth *a)
{
    struct auth_state *s = a->state;
    if (s->credential.wait != NULL)
        return !wait_on(a);
    s->credential.only_look = s->challenge.scheme == CHALLENGE_BEARER; /* it is the login that uses them */
    switch (credential_get(a->px, setup_secrets(a->setup), a->set, &s->credential)) {
    case CREDENTIAL_WAIT:
        return !wait_on(a);
    case CREDENTIAL_READY:
        wait_over(s);
        credential_ready(a);
        break;
    case CREDENTIAL_FAILED:
        wait_over(s);
        credential_failed(a);
        break;
    }
    credential_release(&s->credential);
    s->credential.done = on_credential;
    return true;
}

/* ---- tokens ---- */

static void lead(struct auth *a, struct flight *flight)
{
    const struct auth_state *s = a->state;
    login_lead(
        a->px, flight,
        &(struct login_what){.setup = a->setup,
                             .up = a->up,
                             .set = s->set,
                             .realm = span_str(s->challenge.realm),
                             .guarded = s->realm.guarded,
                             .near = s->peer,
                             .service = s->challenge.has_service ? span_str(s->challenge.service) : SPAN_NONE,
                             .repo = a->repo});
}

static void nobody_waits(struct flight_seat *seat)
{
    UNUSED(seat);
}

/* Ahead of its end; the old one is used meanwhile. */
static void renew(struct auth *a)
{
    struct flight_seat seat = {.wake = nobody_waits};
    if (flight_join(a->px->core, span_str(a->state->key), a->up->registry, true, NULL, NULL, &seat) ==
        FLIGHT_LEAD)
        lead(a, flight_of(&seat));
    flight_leave(&seat);
}

static bool have_by_now(void *arg)
{
    const struct auth *a = arg;
    return tokens_have(a->px->shared->tokens, span_str(a->state->key), clock_mono_ms());
}

static void refuse_failed(struct auth *a, const struct flight_failure *f)
{
    char why[128];
    struct str w = STR_INIT(why);
    if (f->err == ERR_DENIED) {
        refuse_denied(a, f->status, "the token server gives no token for this repository");
        return;
    }
    str_add(&w, SPAN("no token: "));
    str_addz(&w, err_words(f->err));
    refuse(a, f->err, f->status, f->retry_after_ms, why);
}

/* Is there another way than to ask for this token? */
static bool final(const struct flight_failure *f)
{
    return f->err == ERR_TOO_MANY || f->retry_after_ms >= 0 || f->err == ERR_CREDENTIALS ||
           f->err == ERR_CREDENTIALS_REFUSED || f->err == ERR_STOPPING;
}

static void no_token(struct auth *a, const struct flight_failure *f)
{
    struct auth_state *s = a->state;
    s->failure = *f;
    memcpy(s->failed, s->key, sizeof s->failed);
    if (f->err == ERR_CREDENTIALS_REFUSED) /* it may no longer be the one to ask */
        forget(a);
    if (s->remembered && !final(&s->failure))
        go_bare(a);
    else
        refuse_failed(a, &s->failure);
}

static void token(struct auth *a)
{
    struct auth_state *s = a->state;
    struct flight_failure f;
    make_key(a);
    token_release(&s->token);
    if (tokens_get(a->px->shared->tokens, span_str(s->key), clock_mono_ms(), &s->token)) {
        if (s->token.renew && !upstream_limit(a->setup, a->up, s->set, WHAT_TOKEN, &f))
            renew(a);
        a->value = span_of(s->token.value, s->token.n);
        a->phase = PHASE_BEARER;
        return;
    }
    if (strcmp(s->key, s->failed) == 0) {
        refuse_failed(a, &s->failure);
        return;
    }
    if (upstream_limit(a->setup, a->up, s->set, WHAT_TOKEN, &f)) {
        refuse_failed(a, &f);
        return;
    }
    if (verdict_get(a->px->shared->verdicts, span_str(s->key), &f)) {
        no_token(a, &f);
        return;
    }
    switch (flight_join(a->px->core, span_str(s->key), a->up->registry, true, have_by_now, a, &s->seat)) {
    case FLIGHT_LEAD:
        lead(a, flight_of(&s->seat));
        break;
    case FLIGHT_JOINED:
        break;
    default:
        return; /* it is there by now */
    }
    a->phase = PHASE_SEAT;
}

/* False: wait. */
static bool seat(struct auth *a)
{
    struct auth_state *s = a->state;
    struct flight_failure f;
    switch (flight_seen(&s->seat)) {
    case FLIGHT_VERIFIED:
    case FLIGHT_DONE:
        wait_over(s);
        flight_leave(&s->seat);
        s->fresh = true;
        a->phase = PHASE_TOKEN;
        return true;
    case FLIGHT_FAILED:
        wait_over(s);
        f = *flight_failure(&s->seat);
        flight_leave(&s->seat);
        no_token(a, &f);
        return true;
    default:
        return !wait_on(a);
    }
}

/* ---- challenges ---- */

static void read_challenge(const struct h1_head *head, struct challenge *c)
{
    *c = (struct challenge){0};
    for (unsigned i = 0; i < head->n; i++) {
        if (span_ieq(head->fields[i].name, SPAN("www-authenticate")))
            challenge_read(c, head->fields[i].value);
    }
}

static void take_challenge(struct auth *a, const struct challenge *c, enum address_kind peer)
{
    struct auth_state *s = a->state;
    char key[PLACE_MAX];
    struct str k = STR_INIT(key);
    place_key(a, &k);
    tokens_remember(a->px->shared->tokens, str_span(&k), c, peer);
    s->challenge = *c;
    s->peer = peer;
    s->remembered = false;
    a->phase = PHASE_CHOOSE;
}

static void on_ping(struct call *call)
{
    struct auth *a = CONTAINER_OF(call, struct auth_state, ping)->auth;
    a->done(a);
}

static const struct conf_endpoint *own_endpoint(const struct auth *a)
{
    for (size_t i = 0; i < a->up->n_endpoints; i++) {
        const struct conf_endpoint *e = &a->up->endpoints[i];
        struct url one = {.tls = e->tls, .host = e->host, .port = e->port};
        if (url_same_origin(&a->origin, &one) && (a->prefix.p == NULL || span_eq(a->prefix, e->prefix)))
            return e;
    }
    return NULL;
}

static void ping_start(struct auth *a, const struct conf_endpoint *e)
{
    struct auth_state *s = a->state;
    struct str target = STR_INIT(s->ping_target), host = STR_INIT(s->ping_host);
    struct flight_failure f;
    if (upstream_limit(a->setup, a->up, NULL, WHAT_TOKEN, &f)) { /* it is asked anonymously */
        refuse_failed(a, &f);
        return;
    }
    str_add(&target, e->prefix);
    str_add(&target, SPAN("/v2/"));
    url_add_host(&a->origin, &host);
    if (target.cut || host.cut) {
        refuse(a, ERR_DENIED, 401, -1, "a 401 without a challenge");
        return;
    }
    s->ping = (struct call){.origin = {.host = e->host,
                                       .port = e->port,
                                       .tls = e->tls,
                                       .max_connections = (unsigned)a->up->max_connections,
                                       .how = setup_how(a->setup, a->up, &a->origin)},
                            .method = CALL_GET,
                            .target = str_span(&target),
                            .host_field = str_span(&host),
                            .fields = SPAN("Accept: */*\r\n"),
                            .connect_ms = a->up->timeouts.connect_ms,
                            .first_byte_ms = a->up->timeouts.first_byte_ms,
                            .idle_ms = a->up->timeouts.idle_ms,
                            .deadline = a->deadline,
                            .event = on_ping};
    call_start(a->px->pool, &s->ping);
    a->phase = PHASE_PING;
}

/* What an answer that is no challenge means: that the registry is in trouble says nothing about access. */
static int ping_err(unsigned status)
{
    bool trouble = status >= 500 || status == 408 || status == 429;
    return trouble ? upstream_err_of(status, WHAT_MANIFEST) : ERR_DENIED;
}

static void ping_broke(struct auth *a)
{
    char why[256];
    struct str w = STR_INIT(why);
    str_add(&w, SPAN("a 401 without a challenge, and no answer at /v2/: "));
    str_addz(&w, a->state->ping.why);
    refuse(a, a->state->ping.err, 0, -1, why);
}

/* A limit holds for all that is asked anonymously on the way to a token. */
static void ping_trouble(struct auth *a, int err)
{
    const struct h1_head *head = a->state->ping.head;
    struct flight_failure f = {.err = err, .status = head->status};
    f.retry_after_ms = retry_after_parse(h1_get(head, SPAN("retry-after")), clock_wall_ms());
    char why[64];
    struct str w = STR_INIT(why);
    str_addf(&w, "a 401 without a challenge, and status %u at /v2/", f.status);
    if (err == ERR_TOO_MANY || (f.status == 503 && f.retry_after_ms >= 0))
        upstream_limited(a->setup, a->up, NULL, WHAT_TOKEN, &f);
    refuse(a, err, f.status, f.retry_after_ms, why);
}

static void ping_answered(struct auth *a)
{
    const struct call *call = &a->state->ping;
    unsigned status = call->head->status;
    int err = ping_err(status);
    struct challenge c = {0};
    if (status == 401) {
        read_challenge(call->head, &c);
        upstream_unlimited(a->setup, a->up, NULL, WHAT_TOKEN);
    }
    if (c.scheme != CHALLENGE_NONE) {
        take_challenge(a, &c, call->peer);
    } else if (err == ERR_DENIED) {
        refuse(a, ERR_DENIED, 401, -1, "a 401 without a challenge that larder could answer");
    } else {
        ping_trouble(a, err);
    }
}

/* False: wait. */
static bool ping(struct auth *a)
{
    struct call *call = &a->state->ping;
    if (call->state == CALL_FAILED)
        ping_broke(a);
    else if (call->state == CALL_HEADED)
        ping_answered(a);
    else
        return false;
    call_end(call);
    return true;
}

/* ---- the face ---- */

enum auth_next auth_step(struct auth *a)
{
    for (;;) {
        switch ((enum phase)a->phase) {
        case PHASE_NEW:
            recall(a);
            break;
        case PHASE_CHOOSE:
            choose(a);
            break;
        case PHASE_CREDENTIAL:
            if (!credential(a))
                return AUTH_WAIT;
            break;
        case PHASE_TOKEN:
            token(a);
            break;
        case PHASE_SEAT:
            if (!seat(a))
                return AUTH_WAIT;
            break;
        case PHASE_PING:
            if (!ping(a))
                return AUTH_WAIT;
            break;
        case PHASE_BARE:
        case PHASE_BASIC:
        case PHASE_BEARER:
            return AUTH_READY;
        case PHASE_REFUSED:
            return AUTH_REFUSED;
        }
    }
}

bool auth_reads_credential(const struct auth *a)
{
    return a->phase == PHASE_CREDENTIAL;
}

static bool same_server(const struct challenge *a, const struct challenge *b)
{
    return a->scheme == b->scheme && a->has_service == b->has_service && strcmp(a->realm, b->realm) == 0 &&
           strcmp(a->service, b->service) == 0;
}

/* Some registries say only at /v2/ what they want. */
static void challenged_bare(struct auth *a, const struct challenge *c, enum address_kind peer)
{
    (void)state_of(a);
    const struct conf_endpoint *e = own_endpoint(a);
    if (c->scheme != CHALLENGE_NONE)
        take_challenge(a, c, peer);
    else if (e != NULL)
        ping_start(a, e);
    else
        refuse(a, ERR_DENIED, 401, -1, "a 401 without a challenge that larder could answer");
}

static bool guessed_wrong(const struct auth *a, const struct challenge *c)
{
    const struct auth_state *s = a->state;
    if (!s->remembered || c->scheme == CHALLENGE_NONE)
        return false;
    return c->scheme == CHALLENGE_BEARER ? !same_server(c, &s->challenge) : c->scheme != s->challenge.scheme;
}

static void guess_over(struct auth *a)
{
    struct auth_state *s = a->state;
    forget(a);
    s->remembered = s->fresh = false;
    go_bare(a);
}

/* The token has ended before its time, or was never good enough. A server that then sends us to another token server than before is
 * asked anew, without a token: some say where refreshed tokens come from, and that place gives none to us. */
static void challenged_bearer(struct auth *a, const struct challenge *c)
{
    struct auth_state *s = a->state;
    tokens_drop(a->px->shared->tokens, span_str(s->key), s->token.serial);
    if (guessed_wrong(a, c)) {
        guess_over(a);
        return;
    }
    if (s->fresh || s->renewed) {
        refuse_denied(a, 401, "the registry refuses the token");
        return;
    }
    s->renewed = true;
    if (c->scheme == CHALLENGE_NONE || same_server(c, &s->challenge)) {
        a->phase = PHASE_TOKEN;
        return;
    }
    forget(a);
    go_bare(a);
}

static void challenged_basic(struct auth *a, const struct challenge *c)
{
    struct auth_state *s = a->state;
    char why[256];
    struct str w = STR_INIT(why);
    if (guessed_wrong(a, c)) {
        guess_over(a);
        return;
    }
    if (!credential_refused(setup_secrets(a->setup), a->set, s->fingerprint, 401, a->origin.host, a->repo)) {
        struct flight_failure f = {.err = ERR_DENIED, .status = 401, .retry_after_ms = -1};
        verdict_put(a->px->shared->verdicts, span_str(s->key), &f, AUTH_DENIED_MS, AUTH_DENIED_MS);
        refuse(a, ERR_DENIED, 401, -1, "the registry refuses this repository to an account that it knows");
        return;
    }
    str_add(&w, SPAN("the registry refuses credential set "));
    str_add(&w, a->set->name);
    refuse(a, ERR_CREDENTIALS_REFUSED, 401, -1, why);
}

void auth_challenged(struct auth *a, const struct h1_head *head, enum address_kind peer)
{
    struct challenge c;
    read_challenge(head, &c);
    switch ((enum phase)a->phase) {
    case PHASE_NEW: /* sent before anybody thought of authorisation */
    case PHASE_BARE:
        challenged_bare(a, &c, peer);
        return;
    case PHASE_BEARER:
        challenged_bearer(a, &c);
        return;
    case PHASE_BASIC:
        challenged_basic(a, &c);
        return;
    default:
        MUST(false);
    }
}

bool auth_forbidden(struct auth *a)
{
    struct auth_state *s = a->state;
    if (a->phase != PHASE_BASIC || s->doubted != 0 ||
        !credential_doubted(setup_secrets(a->setup), a->set, s->fingerprint))
        return false;
    s->doubted = s->fingerprint;
    s->credential.renew = true;
    a->phase = PHASE_CREDENTIAL;
    return true;
}

void auth_accepted(struct auth *a)
{
    if (a->phase == PHASE_BASIC)
        credential_accepted(setup_secrets(a->setup), a->set, a->state->fingerprint, a->repo);
}

void auth_end(struct auth *a)
{
    struct auth_state *s = a->state;
    if (s != NULL) {
        timer_disarm(&s->timer);
        flight_leave(&s->seat);
        call_end(&s->ping);
        credential_release(&s->credential);
        token_release(&s->token);
        basic_wipe(s);
        mem_free(s);
    }
    *a = (struct auth){0};
}
