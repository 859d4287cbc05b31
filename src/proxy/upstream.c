/* One request to an upstream: endpoints in turn, authorisation, redirects, verdicts on statuses.
 *
 *   REFUSED  nothing is asked: the upstream limits such requests, or is known to be down
 *   AUTH     what the request may carry is being found out (auth.c)     -> CALL | the next endpoint
 *   CALL     a request is out                                           -> AUTH (a 401) | CALL (a redirect) | the next endpoint
 *   PAUSE    the only endpoint was not there: a short wait              -> AUTH, in another round
 *   IDLE     not begun, or over
 *
 * A round asks each endpoint at most once, in their order, beginning with the one that worked last; those that were bad lately come last,
 * and only if none of the others gave an answer that means something. What an endpoint says wrong (no connection, no answer, an error
 * status) sends the round to the next one, and so does an answer that its owner finds to be no good (upstream_pass_over). Of several
 * failures the last one is reported, but for "not there": a mirror may lack what its registry has, so that counts only if it is what the
 * registry itself says, or what all of them say. A mirror that is down takes nothing from the registry's own word. An endpoint that gave
 * wrong content is, for some time and for what was asked for, among those that come last.
 *
 * Redirects are followed wherever they lead, but the request carries its Authorization only to the origin that it was made for. A target
 * that the operator has not named is `guarded`: dialling refuses addresses that the endpoint's own address does not reach. When the target
 * challenges, it is a registry of its own, and gets what the rule for it has. A target that is an endpoint of a configured registry is
 * reached as that one is, by its roots and its proxy: whoever redirects must not choose who vouches for it. */
#include "proxy/proxy_int.h"

#include "base/mem.h"
#include "http/retry.h"
#include "http/url.h"
#include "proxy/realm.h"
#include "registry/name.h"

#define HEAD_BUDGET_MS 28000
#define REDIRECTS_MAX  5
#define ROUNDS_MAX     3
#define LIE_MS         (5 * 60 * 1000)
#define SILENCE_MS     1000 /* a check without an answer: others need not begin one until it has ended */

enum try_phase { TRY_IDLE, TRY_REFUSED, TRY_AUTH, TRY_CALL, TRY_PAUSE };

struct upstream_hop {
    struct url url;
    char host[300];               /* Host field */
    char repo[NAME_REPO_MAX + 1]; /* of its own rule */
    char text[];
};

/* ---- verdicts ---- */

int upstream_err_of(unsigned status, enum upstream_what what)
{
    switch (status) {
    case 401:
    case 403:
    case 451:
        return ERR_DENIED;
    case 404:
    case 410:
        return what == WHAT_BLOB       ? ERR_BLOB_UNKNOWN
               : what == WHAT_MANIFEST ? ERR_MANIFEST_UNKNOWN
                                       : ERR_TAGS_UNKNOWN;
    case 400: /* what is asked for has a name, and maybe a query, that upstream does not take: to try again is no use */
    case 414:
    case 422:
        return what == WHAT_BLOB ? ERR_UP_STATUS : ERR_UP_REFUSED;
    case 429:
        return ERR_TOO_MANY;
    case 503:
        return ERR_UP_UNAVAILABLE;
    case 408:
    case 504:
        return ERR_UP_TIMEOUT;
    default:
        return ERR_UP_STATUS;
    }
}

static void fail(struct upstream_try *t, int err, unsigned status, int64_t after, const char *why)
{
    t->failure = (struct flight_failure){.err = err, .status = status, .retry_after_ms = after};
    struct str s = STR_INIT(t->why);
    str_addz(&s, why);
    if (t->hop == NULL)
        return;
    str_add(&s, SPAN(", redirected to ")); /* without the query, which is a signature */
    str_add(&s, t->hop->url.tls ? SPAN("https://") : SPAN("http://"));
    str_addz(&s, t->hop->host);
    str_add(&s, t->hop->url.path);
}

void upstream_reject(struct upstream_try *t, int err, const char *why)
{
    fail(t, err, t->call.head != NULL ? t->call.head->status : 0, -1, why);
    upstream_stop(t);
}

bool upstream_coded(const struct h1_head *head)
{
    struct span coding = h1_get(head, SPAN("content-encoding"));
    return coding.p != NULL && !span_ieq(coding, SPAN("identity"));
}

static const struct conf_endpoint *endpoint_of(const struct upstream_try *t)
{
    return &t->up->endpoints[t->endpoint];
}

void upstream_log(const struct upstream_try *t, enum log_level level, const char *msg)
{
    log_emit(level, "upstream", msg, LOG_SP("registry", t->up->registry),
             LOG_SP("endpoint", endpoint_of(t)->url), LOG_S("method", t->head_only ? "HEAD" : "GET"),
             LOG_S("path", t->path), LOG_SP("credential_set", t->set != NULL ? t->set->name : SPAN_NONE),
             LOG_S("error", err_name(t->failure.err)), LOG_U("status", t->failure.status),
             LOG_S("why", t->why));
}

/* ---- asking ---- */

static void count_answer(struct upstream_try *t, unsigned status)
{
    _Atomic int64_t *n = &setup_upstream_counts(t->setup, t->up, t->px->index)->n[status_class(status)];
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static struct url endpoint_url(const struct conf_endpoint *e)
{
    return (struct url){
        .tls = e->tls, .host = e->host, .ipv6 = span_find(e->host, ':') >= 0, .port = e->port};
}

/* Where the request goes now: the endpoint, or what it redirected to. */
static struct url here(const struct upstream_try *t)
{
    return t->hop != NULL ? t->hop->url : endpoint_url(endpoint_of(t));
}

static bool named_by_operator(const struct upstream_try *t, const struct url *u)
{
    for (size_t i = 0; i < t->up->n_redirect_hosts; i++) {
        if (span_ieq(t->up->redirect_hosts[i], u->host))
            return true;
    }
    return realm_own(t->up, u);
}

static void send_request(struct upstream_try *t)
{
    struct url u = here(t);
    t->call.origin = (struct origin){.host = u.host,
                                     .port = u.port,
                                     .tls = u.tls,
                                     .max_connections = (unsigned)t->auth.up->max_connections,
                                     .how = setup_how(t->setup, t->auth.up, &u),
                                     .guarded = t->hop != NULL && !named_by_operator(t, &u),
                                     .near = t->own};
    t->call.method = t->head_only ? CALL_HEAD : CALL_GET;
    t->call.target = t->hop != NULL ? span_of(u.path.p, u.path.n + (u.query.p != NULL ? 1 + u.query.n : 0))
                                    : span_str(t->target);
    t->call.host_field = span_str(t->hop != NULL ? t->hop->host : t->host);
    t->call.fields = span_str(t->fields);
    t->call.authorization = url_same_origin(&u, &t->auth.origin) ? t->auth.value : SPAN_NONE;
    t->call.connect_ms = t->up->timeouts.connect_ms;
    t->call.first_byte_ms = t->up->timeouts.first_byte_ms;
    t->call.idle_ms = t->up->timeouts.idle_ms;
    t->call.deadline = t->deadline;
    t->call.bulk = t->what == WHAT_BLOB;
    t->phase = TRY_CALL;
    call_start(t->px->pool, &t->call);
}

static void on_later(struct defer *d)
{
    struct upstream_try *t = CONTAINER_OF(d, struct upstream_try, later);
    t->call.event(&t->call);
}

static void on_auth(struct auth *a)
{
    struct upstream_try *t = CONTAINER_OF(a, struct upstream_try, auth);
    t->call.event(&t->call);
}

static void on_pause(struct timer *timer)
{
    struct upstream_try *t = CONTAINER_OF(timer, struct upstream_try, pause);
    t->call.event(&t->call);
}

static int64_t left_ms(const struct upstream_try *t)
{
    return t->deadline - core_now(t->px->core);
}

/* For a connection that larder lets it have, or for a credential: upstream has not been asked. */
static bool waits_at_home(const struct upstream_try *t)
{
    return (t->phase == TRY_CALL && t->call.state == CALL_WAITING) ||
           (t->phase == TRY_AUTH && auth_reads_credential(&t->auth));
}

static void on_silence(struct timer *timer)
{
    struct upstream_try *t = CONTAINER_OF(timer, struct upstream_try, silence);
    if (waits_at_home(t))
        timer_arm(t->px->core, &t->silence, SILENCE_MS);
    else if (left_ms(t) > 0)
        t->turn = health_turn(t->setup, t->up, left_ms(t));
}

/* Sends the request with what it may carry. An event follows. */
static void go(struct upstream_try *t)
{
    t->phase = TRY_AUTH;
    switch (auth_step(&t->auth)) {
    case AUTH_READY:
        send_request(t);
        break;
    case AUTH_WAIT:
        break;
    case AUTH_REFUSED:
        defer_start(t->px->core, &t->later); /* upstream_step looks at it */
        break;
    }
}

static void begin_endpoint(struct upstream_try *t)
{
    const struct conf_endpoint *e = endpoint_of(t);
    struct str target = STR_INIT(t->target), host = STR_INIT(t->host);
    struct url u = endpoint_url(e);
    str_add(&target, e->prefix);
    str_addz(&target, t->path);
    url_add_host(&u, &host);
    MUST(!target.cut && !host.cut);
    t->tried |= 1u << t->endpoint;
    t->hops = 0;
    FREE(t->hop);
    auth_end(&t->auth);
    t->auth = (struct auth){.px = t->px,
                            .setup = t->setup,
                            .up = t->up,
                            .set = t->set,
                            .origin = u,
                            .prefix = e->prefix,
                            .repo = span_of(t->path + 4, t->repo_n),
                            .deadline = t->deadline,
                            .done = on_auth};
    go(t);
}

/* ---- wrong content ---- */

static bool is_lie(const struct flight_failure *f)
{
    return f->err == ERR_UP_DIGEST || f->err == ERR_UP_CONTENT;
}

static void lie_key(const struct upstream_try *t, unsigned endpoint, struct str *out)
{
    str_add(out, SPAN("E "));
    str_add(out, t->up->endpoints[endpoint].url);
    str_addc(out, ' ');
    str_addz(out, t->path);
}

static bool has_lied(const struct upstream_try *t, unsigned endpoint, struct flight_failure *f)
{
    char key[UPSTREAM_PATH_MAX + 1024];
    struct str k = STR_INIT(key);
    lie_key(t, endpoint, &k);
    return t->up->n_endpoints > 1 && !k.cut && verdict_get(t->px->shared->verdicts, str_span(&k), f);
}

void upstream_lied(const struct upstream_try *t)
{
    char key[UPSTREAM_PATH_MAX + 1024];
    struct str k = STR_INIT(key);
    lie_key(t, t->endpoint, &k);
    if (t->up->n_endpoints > 1 && !k.cut)
        verdict_put(t->px->shared->verdicts, str_span(&k), &t->failure, LIE_MS, LIE_MS);
}

/* ---- rounds ---- */

/* The next endpoint of the round. False: there is none. */
static bool pick_endpoint(struct upstream_try *t, unsigned *endpoint)
{
    unsigned n = (unsigned)t->up->n_endpoints;
    struct flight_failure lie;
    for (unsigned pass = 0; pass < 2 && !(pass == 1 && t->answered); pass++) {
        for (unsigned i = 0; i < n; i++) {
            unsigned e = (t->endpoint + i) % n;
            if ((t->tried & 1u << e) == 0 &&
                (pass == 1 ||
                 (!has_lied(t, e, &lie) &&
                  health_endpoint_usable(t->setup, t->up, t->set, e, left_ms(t), &t->endpoint_turn)))) {
                *endpoint = e;
                return true;
            }
        }
    }
    return false;
}

static void begin_round(struct upstream_try *t)
{
    t->tried = 0;
    t->began_ms = clock_mono_ms();
    t->answered = t->sound = t->heard = t->get_decides = false;
    t->said.word = WORD_NONE;
    t->rounds++;
    MUST(pick_endpoint(t, &t->endpoint));
    begin_endpoint(t);
}

/* A head must be there by then, whatever is tried: before the 30 s after which containerd gives up. */
int64_t upstream_deadline(struct proxy *px, const struct conf_upstream *up)
{
    int64_t budget = up->timeouts.connect_ms + up->timeouts.first_byte_ms;
    return core_now(px->core) + (budget < HEAD_BUDGET_MS ? budget : HEAD_BUDGET_MS);
}

/* While a check finds out how the upstream is, others leave it alone. */
static void begin_check(struct upstream_try *t)
{
    if (t->patient || t->insistent || t->turn != 0)
        return;
    if (health_in_trouble(t->setup, t->up))
        t->turn = health_turn(t->setup, t->up, left_ms(t));
    else
        timer_arm(t->px->core, &t->silence, SILENCE_MS);
}

void upstream_start(struct upstream_try *t, void (*event)(struct call *call))
{
    MUST(t->phase == TRY_IDLE);
    t->call.event = event;
    t->rounds = 0;
    t->why[0] = 0;
    t->refused_of = LENGTH_UNKNOWN;
    t->failure = (struct flight_failure){.retry_after_ms = -1};
    defer_init(&t->later, on_later);
    timer_init(&t->pause, on_pause);
    timer_init(&t->silence, on_silence);
    if (t->deadline == 0)
        t->deadline = upstream_deadline(t->px, t->up);
    struct flight_failure f;
    const char *why = NULL;
    if (upstream_limit(t->setup, t->up, t->set, t->what, &f))
        why = "not asked: upstream limits requests of this kind";
    else if (!t->insistent && health_refuses(t->setup, t->up, left_ms(t), &t->turn, &f))
        why = "not asked: upstream is down";
    if (why == NULL) {
        begin_check(t);
        begin_round(t);
        return;
    }
    fail(t, f.err, f.status, f.retry_after_ms, why);
    t->phase = TRY_REFUSED;
    defer_start(t->px->core, &t->later);
}

/* Whatever has been found out of the endpoint has been said. */
static void leave_endpoint(struct upstream_try *t)
{
    health_endpoint_turn_over(t->setup, t->up, t->set, t->endpoint, t->endpoint_turn);
    t->endpoint_turn = 0;
}

void upstream_stop(struct upstream_try *t)
{
    defer_cancel(&t->later);
    timer_disarm(&t->pause);
    timer_disarm(&t->silence);
    call_end(&t->call);
    t->call.authorization = SPAN_NONE;
    auth_end(&t->auth);
    FREE(t->hop);
    leave_endpoint(t);
    health_turn_over(t->setup, t->up, t->turn);
    t->turn = 0;
    t->phase = TRY_IDLE;
}

/* ---- the end of a round ---- */

static enum upstream_next over(struct upstream_try *t)
{
    timer_disarm(&t->silence);
    t->phase = TRY_IDLE;
    return UPSTREAM_FAILED;
}

static bool is_limit(const struct flight_failure *f)
{
    return f->err == ERR_TOO_MANY || (f->status == 503 && f->retry_after_ms >= 0);
}

/* Some servers, and what stands before them, fail at each HEAD. What limits, what is not reached and what takes too long is the same for
 * a GET; so is what a token server says. */
static bool get_may_differ(const struct upstream_try *t)
{
    const struct flight_failure *f = &t->failure;
    if (!t->head_only || is_limit(f) || (t->by_auth && f->status >= 500) ||
        core_now(t->px->core) >= t->deadline)
        return false;
    return f->status != 0 || f->err == ERR_UP_CLOSED || f->err == ERR_UP_PROTOCOL;
}

/* The only endpoint was not there for a moment: once more, and once again, while a client waits for it. */
static bool worth_another(const struct upstream_try *t)
{
    const struct flight_failure *f = &t->failure;
    bool there = f->err != ERR_UP_CONNECT && f->err != ERR_UP_CLOSED && f->status != 502 &&
                 f->status != 503 && f->status != 504;
    return t->patient && !there && !is_limit(f) && t->up->n_endpoints == 1 && t->rounds < ROUNDS_MAX &&
           !health_broken(t->setup, t->up);
}

/* The endpoint that the registry's name says, and no mirror. */
static bool registry_itself(const struct conf_upstream *up, const struct conf_endpoint *e)
{
    if (up->known != NULL && up->known->endpoint.n > 0)
        return span_eq(e->host, up->known->endpoint);
    return span_starts(up->registry, e->host) &&
           (up->registry.n == e->host.n || up->registry.p[e->host.n] == ':');
}

/* Keeps the endpoint's failure, if it says no less than those before it. */
static void weigh(struct upstream_try *t, bool meant)
{
    const struct flight_failure *f = &t->failure;
    bool not_there = f->status == 404 || f->status == 410;
    enum endpoint_word word = meant && registry_itself(t->up, endpoint_of(t)) ? WORD_REGISTRY
                              : not_there                                     ? WORD_NOT_THERE
                                                                              : WORD_FAILED;
    if (word < t->said.word)
        return;
    t->said = (struct endpoint_said){.word = word,
                                     .endpoint = t->endpoint,
                                     .failure = *f,
                                     .by_auth = t->by_auth,
                                     .own = t->hop == NULL && !t->by_auth};
    memcpy(t->said.why, t->why, sizeof t->said.why);
}

/* All that were asked do not have it: somebody who was left out might. */
static void not_asked(struct upstream_try *t)
{
    for (unsigned i = 0; i < t->up->n_endpoints; i++) {
        struct flight_failure f = {.err = ERR_UP_TIMEOUT, .retry_after_ms = -1};
        if ((t->tried & 1u << i) != 0)
            continue;
        bool bad = health_endpoint_failure(t->setup, t->up, t->set, i, &f) || has_lied(t, i, &f);
        t->endpoint = i;
        t->by_auth = false;
        FREE(t->hop);
        fail(t, f.err, f.status, f.retry_after_ms,
             bad ? "not there at others, and this endpoint is not asked: it has failed a moment ago"
                 : "not there at others, and there is no time left to ask this endpoint");
        return;
    }
}

/* What the endpoints have said, taken together. */
static void settle(struct upstream_try *t)
{
    t->endpoint = t->said.endpoint;
    t->failure = t->said.failure;
    t->by_auth = t->said.by_auth;
    memcpy(t->why, t->said.why, sizeof t->why);
    if (t->said.word == WORD_NOT_THERE)
        not_asked(t);
}

static enum upstream_next round_over(struct upstream_try *t)
{
    settle(t);
    if (t->get_decides) /* also about the upstream's health */
        return over(t);
    int64_t pause = (t->rounds == 1 ? 200 : 800) + clock_mono_ns() / 1000 % 100; /* not all at once */
    if (worth_another(t) && core_now(t->px->core) + pause < t->deadline) {
        COUNT(core_counters(t->px->core), upstream_retries, 1);
        t->phase = TRY_PAUSE;
        timer_arm(t->px->core, &t->pause, pause);
        return UPSTREAM_WAIT;
    }
    /* One transfer that resumes again and again says no more than a round does; a token server's limit is known by now, and is one of its
     * own; and while another endpoint answers, the upstream as a whole is neither limited nor out of order. */
    const struct flight_failure *f = &t->failure;
    if (is_limit(f) && !t->by_auth && !t->answered)
        upstream_limited(t->setup, t->up, t->set, t->what, &t->failure);
    else if (health_trouble(f) && !is_limit(f) && !t->insistent && !t->sound)
        health_bad(t->setup, t->up, f, t->began_ms, t->said.own);
    else if (!health_trouble(f) && !is_limit(f) && t->heard)
        health_good(t->setup, t->up);
    return over(t);
}

/* Is it about the credentials, so that another endpoint would be told the same? */
static bool about_credentials(int err)
{
    return err == ERR_CREDENTIALS || err == ERR_CREDENTIALS_REFUSED;
}

/* Has larder not got as far as to ask? */
static bool own_failure(const struct flight_failure *f)
{
    return f->err == ERR_BUSY || f->err == ERR_STOPPING;
}

/* A mirror that says that it lacks something is well: that is sound. A HEAD that fails says as little of the endpoint as it says of the
 * upstream. */
static void judge_endpoint(struct upstream_try *t, bool sound)
{
    struct flight_failure *f = &t->failure;
    if (sound && !t->by_auth) {
        health_endpoint_good(t->setup, t->up, t->set, t->endpoint);
    } else if (!get_may_differ(t)) {
        /* Whoever had the turn has found out anew, however long ago its round began. */
        int64_t began_ms = t->endpoint_turn != 0 ? INT64_MAX : t->began_ms;
        health_endpoint_bad(t->setup, t->up, t->set, t->endpoint, began_ms, f);
        if (is_lie(f))
            upstream_lied(t);
    }
    leave_endpoint(t);
}

/* The endpoint failed; goes to the next one if the round has one. */
static enum upstream_next next_endpoint(struct upstream_try *t)
{
    struct flight_failure *f = &t->failure;
    unsigned next;
    defer_cancel(&t->later);
    call_end(&t->call);
    t->get_decides = t->get_decides || get_may_differ(t);
    if (about_credentials(f->err))
        return over(t);
    bool meant = !(health_outage(f) || is_limit(f) || own_failure(f) || is_lie(f));
    bool sound = meant && !health_trouble(f);
    t->answered = t->answered || meant;
    t->sound = t->sound || sound;
    judge_endpoint(t, sound);
    weigh(t, meant);
    if (core_now(t->px->core) >= t->deadline || !pick_endpoint(t, &next))
        return round_over(t);
    upstream_log(t, LOG_WARN, "endpoint failed, trying the next");
    t->endpoint = next;
    begin_endpoint(t);
    return UPSTREAM_WAIT;
}

static enum upstream_next failed(struct upstream_try *t, int err, unsigned status, int64_t after,
                                 const char *why)
{
    fail(t, err, status, after, why);
    t->by_auth = false;
    return next_endpoint(t);
}

enum upstream_next upstream_pass_over(struct upstream_try *t, int err, const char *why)
{
    if (t->up->n_endpoints > 1)
        return failed(t, err, t->call.head != NULL ? t->call.head->status : 0, -1, why);
    upstream_reject(t, err, why);
    return UPSTREAM_FAILED;
}

/* ---- redirects ---- */

/* Resolves the Location; NULL: done, else what is wrong. */
static const char *locate(const struct upstream_try *t, struct str *out, struct url *to)
{
    char base[UPSTREAM_PATH_MAX + 1024];
    struct url from = here(t);
    struct span location = h1_get(t->call.head, SPAN("location"));
    if (t->hop == NULL) {
        struct str b = STR_INIT(base);
        str_add(&b, from.tls ? SPAN("https://") : SPAN("http://"));
        str_addz(&b, t->host);
        str_addz(&b, t->target);
        if (b.cut || !url_parse(str_span(&b), &from))
            return "a redirect from a URL that is too long";
    }
    if (location.p == NULL || !url_resolve(&from, location, out) || out->cut || !url_parse(str_span(out), to))
        return "a redirect without a usable Location";
    if (from.tls && !to->tls)
        return "a redirect from https to http";
    return NULL;
}

static struct upstream_hop *hop_new(const struct url *to)
{
    size_t cap = to->host.n + to->path.n + to->query.n + 32;
    struct upstream_hop *h = mem_zalloc(sizeof *h + cap);
    struct str host = STR_INIT(h->host), text = str_init(h->text, cap);
    str_add(&text, to->tls ? SPAN("https://") : SPAN("http://"));
    url_add_host(to, &host);
    for (char *c = h->host; *c != 0; c++) {
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + 'a' - 'A'); /* the pool knows hosts in lower case */
    }
    str_add(&text, str_span(&host));
    str_add(&text, to->path.n > 0 ? to->path : SPAN("/"));
    if (to->query.p != NULL) {
        str_addc(&text, '?');
        str_add(&text, to->query);
    }
    if (host.cut || text.cut || !url_parse(str_span(&text), &h->url))
        FREE(h);
    return h;
}

/* A signed URL is good for one method, and that is GET. What a registry says of a manifest at another registry is none. */
static bool may_be_signed(const struct upstream_try *t, const struct url *to)
{
    return t->what == WHAT_BLOB || to->query.p != NULL || !span_starts(to->path, SPAN("/v2/"));
}

/* "/v2/NAME/blobs/..." gives NAME; absent: no such path. */
static struct span repo_of_path(struct span path)
{
    static const char *const kinds[] = {"manifests", "blobs", "referrers", "tags"};
    if (!span_starts(path, SPAN("/v2/")))
        return SPAN_NONE;
    struct span rest = span_from(path, 4);
    ptrdiff_t last = span_rfind(rest, '/');
    ptrdiff_t kind = last > 0 ? span_rfind(span_sub(rest, 0, (size_t)last), '/') : -1;
    if (kind <= 0)
        return SPAN_NONE;
    struct span word = span_sub(rest, (size_t)kind + 1, (size_t)(last - kind - 1));
    struct span repo = span_sub(rest, 0, (size_t)kind);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (span_eq(word, span_str(kinds[i])))
            return name_repo_ok(repo) ? repo : SPAN_NONE;
    }
    return SPAN_NONE;
}

/* From here on the request is authorised for where it has been led: with what the rule for that repository of that registry has, if there
 * is one, else anonymously. */
static void authorise_hop(struct upstream_try *t)
{
    struct upstream_hop *hop = t->hop;
    const struct conf *conf = setup_conf(t->setup);
    struct auth a = {.px = t->px,
                     .setup = t->setup,
                     .up = t->up,
                     .origin = hop->url,
                     .repo = repo_of_path(hop->url.path),
                     .deadline = t->deadline,
                     .done = on_auth};
    struct str repo = STR_INIT(hop->repo);
    if (a.repo.p == NULL)
        a.repo = span_of(t->path + 4, t->repo_n);
    for (size_t i = 0; i < conf->n_upstreams; i++) {
        if (!realm_own(&conf->upstreams[i], &hop->url))
            continue;
        a.up = &conf->upstreams[i];
        const struct conf_rule *rule = conf_match_source(conf, a.up->registry, a.repo, &repo);
        a.set = rule != NULL ? rule->credential_set : NULL;
        break;
    }
    auth_end(&t->auth);
    t->auth = a;
}

static enum upstream_next follow(struct upstream_try *t)
{
    char text[URL_MAX + 1];
    struct str s = STR_INIT(text);
    struct url to, endpoint = endpoint_url(endpoint_of(t));
    unsigned status = t->call.head->status;
    const char *why = locate(t, &s, &to);
    if (why == NULL && (t->hops >= REDIRECTS_MAX || core_now(t->px->core) >= t->deadline))
        why = "too many redirects";
    if (why != NULL)
        return failed(t, ERR_UP_REDIRECT, status, -1, why);
    if (t->head_only && !url_same_origin(&endpoint, &to) && may_be_signed(t, &to)) {
        fail(t, ERR_UP_REDIRECT, status, -1, "a redirect of HEAD to another host: GET decides");
        call_end(&t->call);
        health_good(t->setup, t->up);
        t->get_decides = true;
        return over(t);
    }
    struct upstream_hop *hop = hop_new(&to);
    if (hop == NULL)
        return failed(t, ERR_UP_REDIRECT, status, -1, "a redirect to a URL that is too long");
    if (t->hop == NULL)
        t->own = t->call.peer;
    t->hops++;
    call_end(&t->call);
    bool endpoints = t->hop == NULL && url_same_origin(&to, &t->auth.origin); /* what it has is still right */
    struct upstream_hop *before = t->hop;
    t->hop = hop;
    if (!endpoints)
        authorise_hop(t); /* a challenge that is remembered of that registry costs no refused request there */
    mem_free(before);
    go(t);
    return UPSTREAM_WAIT;
}

/* ---- a challenge from where a redirect led ---- */

static enum upstream_next challenged(struct upstream_try *t)
{
    auth_challenged(&t->auth, t->call.head, t->call.peer);
    call_end(&t->call);
    go(t);
    return UPSTREAM_WAIT;
}

/* ---- steps ---- */

/* The credentials may have been replaced since they were read. */
static enum upstream_next forbidden(struct upstream_try *t)
{
    call_end(&t->call);
    go(t);
    return UPSTREAM_WAIT;
}

/* Whoever has a wrong password is not told that, nor whether it is there. */
static bool accepts(unsigned status)
{
    return status < 400 || status == 404 || status == 410 || status == 416;
}

/* Some registries refuse HEAD of a blob with a 401 whatever it carries: then a token is none the worse for it. */
static bool no_challenge(const struct upstream_try *t)
{
    return t->head_only && t->what == WHAT_BLOB && t->call.authorization.p != NULL;
}

static bool is_redirect(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static enum upstream_next good(struct upstream_try *t)
{
    timer_disarm(&t->silence);
    health_good(t->setup, t->up);
    health_endpoint_good(t->setup, t->up, t->set, t->endpoint);
    leave_endpoint(t);
    upstream_unlimited(t->setup, t->up, t->set, t->what);
    t->call.authorization = SPAN_NONE; /* the request is out: nothing of it is needed any more */
    auth_end(&t->auth);
    return UPSTREAM_HEADED;
}

static enum upstream_next step_answer(struct upstream_try *t)
{
    const struct h1_head *head = t->call.head;
    unsigned status = head->status;
    char why[64];
    struct str s = STR_INIT(why);
    count_answer(t, status);
    t->heard = true;
    if (t->hop == NULL)
        health_ratelimit(t->setup, t->up, t->set, head);
    if (status == 401 && !no_challenge(t))
        return challenged(t);
    if (status == 403 && auth_forbidden(&t->auth))
        return forbidden(t);
    if (accepts(status))
        auth_accepted(&t->auth);
    if (status == 200 || status == 206)
        return good(t);
    if (is_redirect(status))
        return follow(t);
    str_addf(&s, "status %u", status);
    if (status == 416 && !range_parse_refused(h1_get(head, SPAN("content-range")), &t->refused_of))
        t->refused_of = LENGTH_UNKNOWN;
    if (status < 400)
        return failed(t, ERR_UP_CONTENT, status, -1, why);
    return failed(t, upstream_err_of(status, t->what), status,
                  retry_after_parse(h1_get(head, SPAN("retry-after")), clock_wall_ms()), why);
}

static enum upstream_next step_auth(struct upstream_try *t)
{
    switch (auth_step(&t->auth)) {
    case AUTH_READY:
        send_request(t);
        return UPSTREAM_WAIT;
    case AUTH_WAIT:
        return UPSTREAM_WAIT;
    case AUTH_REFUSED:
        break;
    }
    fail(t, t->auth.err, t->auth.status, t->auth.retry_after_ms, t->auth.why);
    t->by_auth = true;
    return next_endpoint(t);
}

static enum upstream_next step_call(struct upstream_try *t)
{
    char why[sizeof t->call.why];
    switch (t->call.state) {
    case CALL_FAILED:
        count_answer(t, 0);
        memcpy(why, t->call.why, sizeof why);
        return failed(t, t->call.err, 0, -1, why);
    case CALL_HEADED:
    case CALL_END:
        return step_answer(t);
    default:
        return UPSTREAM_WAIT;
    }
}

enum upstream_next upstream_step(struct upstream_try *t)
{
    switch ((enum try_phase)t->phase) {
    case TRY_REFUSED:
        return over(t);
    case TRY_AUTH:
        return step_auth(t);
    case TRY_CALL:
        return step_call(t);
    case TRY_PAUSE:
        if (t->pause.due == 0)
            begin_round(t);
        return UPSTREAM_WAIT;
    case TRY_IDLE:
        break;
    }
    MUST(false);
    return UPSTREAM_FAILED;
}
