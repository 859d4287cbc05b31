/* What is known of upstreams' health: advice that all cores share. Relaxed atomics, for a lost update costs a request at most; where one
 * asker of many is let through, the exchange of a time decides who.
 *
 *   down      the last round failed, for a pause that doubles; or somebody has the turn to find out, and has had no answer yet: what is
 *             cached is not checked meanwhile
 *   broken    some rounds in a row found nothing there: nothing is asked during the pause, but for one probe after each. A failure that
 *             is long ago means nothing
 *   limited   by account and kind of request: the server said 429, or 503 with a time
 *   bad       one endpoint of several, for all or (a limit) for one account: the others are asked first, for a pause that doubles */
#include "proxy/proxy_int.h"

#include "base/mem.h"
#include "http/retry.h"

#define DOWN_FIRST_MS 1000
#define DOWN_MAX_MS   30000
#define BROKEN_ROUNDS 3
#define LONG_AGO_MS   (2 * DOWN_MAX_MS)

static int64_t get(const _Atomic int64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void put(_Atomic int64_t *v, int64_t to)
{
    atomic_store_explicit(v, to, memory_order_relaxed);
}

/* True for one of all who see that the time is over. */
static bool take_turn(_Atomic int64_t *until, int64_t now, int64_t ms)
{
    int64_t was = get(until);
    return was <= now && atomic_compare_exchange_strong_explicit(until, &was, now + ms, memory_order_relaxed,
                                                                 memory_order_relaxed);
}

/* Another time by now: it has come to a result. */
static void give_back(_Atomic int64_t *until, int64_t turn)
{
    (void)atomic_compare_exchange_strong_explicit(until, &turn, clock_mono_ms(), memory_order_relaxed,
                                                  memory_order_relaxed);
}

static int64_t doubled(int times)
{
    int64_t pause = (int64_t)DOWN_FIRST_MS << (times < 5 ? times : 5);
    return pause < DOWN_MAX_MS ? pause : DOWN_MAX_MS;
}

/* ---- limits ---- */

bool upstream_limit(const struct setup *setup, const struct conf_upstream *up,
                    const struct conf_credential_set *set, enum upstream_what what, struct flight_failure *f)
{
    struct upstream_limit *l = &setup_account(setup, up, set)->limits[what];
    int64_t left = get(&l->until_ms) - clock_mono_ms();
    if (left <= 0)
        return false;
    *f = (struct flight_failure){.err = atomic_load_explicit(&l->err, memory_order_relaxed),
                                 .status = atomic_load_explicit(&l->status, memory_order_relaxed),
                                 .retry_after_ms = left};
    return true;
}

void upstream_limited(const struct setup *setup, const struct conf_upstream *up,
                      const struct conf_credential_set *set, enum upstream_what what,
                      struct flight_failure *f)
{
    struct upstream_limit *l = &setup_account(setup, up, set)->limits[what];
    int64_t now = clock_mono_ms();
    int times = get(&l->until_ms) > now
                    ? atomic_load_explicit(&l->times, memory_order_relaxed) - 1 /* as for those before it */
                    : atomic_fetch_add_explicit(&l->times, 1, memory_order_relaxed);
    int64_t pause = doubled(times > 0 ? times : 0);
    if (f->retry_after_ms > pause)
        pause = f->retry_after_ms;
    if (f->retry_after_ms < 0)
        f->retry_after_ms = pause; /* clients are told a time, too */
    atomic_store_explicit(&l->err, f->err, memory_order_relaxed);
    atomic_store_explicit(&l->status, f->status, memory_order_relaxed);
    put(&l->until_ms, now + pause);
}

void upstream_unlimited(const struct setup *setup, const struct conf_upstream *up,
                        const struct conf_credential_set *set, enum upstream_what what)
{
    struct upstream_limit *l = &setup_account(setup, up, set)->limits[what];
    if (atomic_load_explicit(&l->times, memory_order_relaxed) != 0)
        atomic_store_explicit(&l->times, 0, memory_order_relaxed);
}

void health_ratelimit(const struct setup *setup, const struct conf_upstream *up,
                      const struct conf_credential_set *set, const struct h1_head *head)
{
    struct account_health *h = setup_account(setup, up, set);
    static const struct {
        const char *name, *other;
    } field[2] = {{"ratelimit-limit", "x-ratelimit-limit"}, {"ratelimit-remaining", "x-ratelimit-remaining"}};
    _Atomic int64_t *to[2] = {&h->ratelimit_limit, &h->ratelimit_remaining};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t n, window;
        struct span v = h1_get(head, span_str(field[i].name));
        if (v.p == NULL)
            v = h1_get(head, span_str(field[i].other));
        if (v.p != NULL && ratelimit_parse(v, &n, &window))
            put(to[i], n < INT64_MAX / 2 ? (int64_t)n + 1 : INT64_MAX / 2);
    }
}

/* ---- the upstream ---- */

bool upstream_is_down(const struct setup *setup, const struct conf_upstream *up,
                      const struct conf_credential_set *set, enum upstream_what what, int *err,
                      unsigned *status)
{
    struct upstream_health *h = setup_health(setup, up);
    struct flight_failure f;
    if (upstream_limit(setup, up, set, what, &f)) {
        *err = f.err;
        *status = f.status;
        return true;
    }
    *err = atomic_load_explicit(&h->err, memory_order_relaxed);
    *status = atomic_load_explicit(&h->status, memory_order_relaxed);
    return get(&h->down_until_ms) > clock_mono_ms();
}

bool *upstreams_down(const struct setup *setup)
{
    const struct conf *conf = setup_conf(setup);
    bool *down = mem_zalloc(conf->n_upstreams + 1);
    for (size_t i = 0; i < conf->n_rules; i++) {
        const struct conf_rule *r = &conf->rules[i];
        if (upstream_is_down(setup, r->upstream, r->credential_set, WHAT_MANIFEST, &(int){0}, &(unsigned){0}))
            down[r->upstream->index] = true;
    }
    return down;
}

bool health_in_trouble(const struct setup *setup, const struct conf_upstream *up)
{
    return atomic_load_explicit(&setup_health(setup, up)->failures, memory_order_relaxed) != 0;
}

bool health_failed_lately(const struct setup *setup, const struct conf_upstream *up)
{
    return health_in_trouble(setup, up) &&
           clock_mono_ms() - get(&setup_health(setup, up)->failed_ms) < LONG_AGO_MS;
}

bool health_broken(const struct setup *setup, const struct conf_upstream *up)
{
    struct upstream_health *h = setup_health(setup, up);
    return atomic_load_explicit(&h->outages, memory_order_relaxed) >= BROKEN_ROUNDS &&
           clock_mono_ms() - get(&h->failed_ms) < LONG_AGO_MS;
}

int64_t health_turn(const struct setup *setup, const struct conf_upstream *up, int64_t ms)
{
    struct upstream_health *h = setup_health(setup, up);
    int64_t now = clock_mono_ms();
    if (!take_turn(&h->down_until_ms, now, ms))
        return 0;
    if (!health_in_trouble(setup, up)) { /* what is known of it is that it does not answer */
        atomic_store_explicit(&h->err, ERR_UP_TIMEOUT, memory_order_relaxed);
        atomic_store_explicit(&h->status, 0, memory_order_relaxed);
    }
    return now + ms;
}

bool health_refuses(const struct setup *setup, const struct conf_upstream *up, int64_t ms, int64_t *turn,
                    struct flight_failure *f)
{
    struct upstream_health *h = setup_health(setup, up);
    int64_t now = clock_mono_ms();
    *turn = 0;
    if (!health_broken(setup, up))
        return false;
    *turn = health_turn(setup, up, ms);
    if (*turn != 0)
        return false;
    int64_t left = get(&h->down_until_ms) - now;
    *f = (struct flight_failure){.err = atomic_load_explicit(&h->err, memory_order_relaxed),
                                 .status = atomic_load_explicit(&h->status, memory_order_relaxed),
                                 .retry_after_ms = left > 0 ? left : 0};
    return true;
}

void health_turn_over(const struct setup *setup, const struct conf_upstream *up, int64_t turn)
{
    if (turn != 0)
        give_back(&setup_health(setup, up)->down_until_ms, turn);
}

void health_good(const struct setup *setup, const struct conf_upstream *up)
{
    struct upstream_health *h = setup_health(setup, up);
    if (atomic_load_explicit(&h->failures, memory_order_relaxed) == 0 && get(&h->down_until_ms) == 0)
        return;
    atomic_store_explicit(&h->failures, 0, memory_order_relaxed);
    atomic_store_explicit(&h->outages, 0, memory_order_relaxed);
    put(&h->down_until_ms, 0);
}

bool health_outage(const struct flight_failure *f)
{
    return f->err == ERR_UP_RESOLVE || f->err == ERR_UP_CONNECT || f->err == ERR_UP_TLS ||
           f->err == ERR_UP_CLOSED || f->err == ERR_UP_TIMEOUT || f->status == 502 || f->status == 503 ||
           f->status == 504;
}

bool health_trouble(const struct flight_failure *f)
{
    return health_outage(f) || f->err == ERR_UP_PROTOCOL || f->status >= 500;
}

void health_bad(const struct setup *setup, const struct conf_upstream *up, const struct flight_failure *f,
                int64_t began_ms, bool own)
{
    struct upstream_health *h = setup_health(setup, up);
    int64_t now = clock_mono_ms();
    if (began_ms < get(&h->failed_ms)) /* the same failure once more, from many who asked at once */
        return;
    int64_t pause = doubled(atomic_fetch_add_explicit(&h->failures, 1, memory_order_relaxed));
    if (now - get(&h->failed_ms) >= LONG_AGO_MS || !own || !health_outage(f))
        atomic_store_explicit(&h->outages, 0, memory_order_relaxed);
    if (own && health_outage(f))
        atomic_fetch_add_explicit(&h->outages, 1, memory_order_relaxed);
    atomic_store_explicit(&h->err, f->err, memory_order_relaxed);
    atomic_store_explicit(&h->status, f->status, memory_order_relaxed);
    put(&h->failed_ms, now);
    put(&h->down_until_ms, now + pause);
}

/* ---- endpoints ---- */

/* A limit is an account's own. */
static struct endpoint_health *endpoint_limit(const struct setup *setup, const struct conf_upstream *up,
                                              const struct conf_credential_set *set, unsigned endpoint)
{
    return &setup_account(setup, up, set)->endpoints[endpoint % ENDPOINTS_MAX];
}

static struct endpoint_health *endpoint_health(const struct setup *setup, const struct conf_upstream *up,
                                               unsigned endpoint)
{
    return &setup_health(setup, up)->endpoints[endpoint % ENDPOINTS_MAX];
}

static bool rests(const struct endpoint_health *e)
{
    return atomic_load_explicit(&e->failures, memory_order_relaxed) != 0 &&
           clock_mono_ms() < get(&e->bad_until_ms);
}

/* *turn: what was taken, or as it was. */
static bool usable(struct endpoint_health *e, int64_t now, int64_t ms, int64_t *turn)
{
    if (atomic_load_explicit(&e->failures, memory_order_relaxed) == 0)
        return true;
    if (!take_turn(&e->bad_until_ms, now, ms))
        return false;
    *turn = now + ms;
    return true;
}

bool health_endpoint_usable(const struct setup *setup, const struct conf_upstream *up,
                            const struct conf_credential_set *set, unsigned endpoint, int64_t ms,
                            int64_t *turn)
{
    struct endpoint_health *limit = endpoint_limit(setup, up, set, endpoint),
                           *health = endpoint_health(setup, up, endpoint);
    int64_t now = clock_mono_ms();
    *turn = 0;
    if (rests(limit) || rests(health)) /* no turn is taken at one that the other does not let be used */
        return false;
    if (usable(limit, now, ms, turn) && usable(health, now, ms, turn))
        return true;
    health_endpoint_turn_over(setup, up, set, endpoint, *turn);
    return false;
}

void health_endpoint_turn_over(const struct setup *setup, const struct conf_upstream *up,
                               const struct conf_credential_set *set, unsigned endpoint, int64_t turn)
{
    if (turn == 0)
        return;
    give_back(&endpoint_limit(setup, up, set, endpoint)->bad_until_ms, turn);
    give_back(&endpoint_health(setup, up, endpoint)->bad_until_ms, turn);
}

static bool failure_of(struct endpoint_health *e, struct flight_failure *f)
{
    if (atomic_load_explicit(&e->failures, memory_order_relaxed) == 0)
        return false;
    int64_t left = get(&e->bad_until_ms) - clock_mono_ms();
    *f = (struct flight_failure){.err = atomic_load_explicit(&e->err, memory_order_relaxed),
                                 .status = atomic_load_explicit(&e->status, memory_order_relaxed),
                                 .retry_after_ms = left > 0 ? left : 0};
    return true;
}

bool health_endpoint_failure(const struct setup *setup, const struct conf_upstream *up,
                             const struct conf_credential_set *set, unsigned endpoint,
                             struct flight_failure *f)
{
    return failure_of(endpoint_limit(setup, up, set, endpoint), f) ||
           failure_of(endpoint_health(setup, up, endpoint), f);
}

static void set_good(struct endpoint_health *e)
{
    if (atomic_load_explicit(&e->failures, memory_order_relaxed) != 0)
        atomic_store_explicit(&e->failures, 0, memory_order_relaxed);
}

void health_endpoint_good(const struct setup *setup, const struct conf_upstream *up,
                          const struct conf_credential_set *set, unsigned endpoint)
{
    set_good(endpoint_limit(setup, up, set, endpoint));
    set_good(endpoint_health(setup, up, endpoint));
}

void health_endpoint_bad(const struct setup *setup, const struct conf_upstream *up,
                         const struct conf_credential_set *set, unsigned endpoint, int64_t began_ms,
                         struct flight_failure *f)
{
    bool limit = f->err == ERR_TOO_MANY;
    struct endpoint_health *e =
        limit ? endpoint_limit(setup, up, set, endpoint) : endpoint_health(setup, up, endpoint);
    if (!health_outage(f) && !limit && f->err != ERR_UP_PROTOCOL)
        return;
    int64_t now = clock_mono_ms();
    bool once_more = began_ms < get(&e->failed_ms); /* the same failure, from many who asked at once */
    int64_t pause = once_more ? get(&e->bad_until_ms) - now
                              : doubled(atomic_fetch_add_explicit(&e->failures, 1, memory_order_relaxed));
    if (pause < DOWN_FIRST_MS)
        pause = DOWN_FIRST_MS;
    if (f->retry_after_ms > pause)
        pause = f->retry_after_ms;
    if (limit && f->retry_after_ms < 0)
        f->retry_after_ms = pause; /* clients are told a time, too */
    atomic_store_explicit(&e->err, f->err, memory_order_relaxed);
    atomic_store_explicit(&e->status, f->status, memory_order_relaxed);
    put(&e->failed_ms, now);
    put(&e->bad_until_ms, now + pause);
}
