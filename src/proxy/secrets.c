/* Credential sets: askers, outcomes, health. See secrets.h.
 *
 * A set is shared by all cores, and by setups that follow one another as long as its references stay the same. At most one load of it
 * is under way at a time (secret_load.c), on the core of the asker that found one due; others wait in the set's list and are posted.
 *
 *   value == NULL    never loaded: a load, all wait
 *   value->good      used. Files: looked at first, when the last look is older than SECRET_LOOK_MS; one that cannot be read is taken for
 *                    what it was, for SECRET_KEPT_MS. Helpers and vaults: asked again in the background when their time comes; until
 *                    then, and while that fails, what they said last is used
 *   !value->good     a source gave nothing: askers fail with the reason, until the pause is over and one of them loads again
 *   refusal != NULL  a server has refused the value SECRET_REFUSALS times in a row: askers fail, until the pause is over and one of them
 *                    probes with it. Another value, or a server that accepts it, ends that. What is refused to a good account, however
 *                    often and in whatever order, is no reason: while the value was taken lately, and is still good for one of the
 *                    repositories that it was taken for, only a refusal for another of these counts, once
 *
 * A credential_wait is idle, listed, or posted, and goes from one to the next under the lock; who withdraws a listed one frees it, a
 * posted one frees itself when it runs. */
#include "proxy/secrets.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/secret_mem.h"
#include "proxy/secrets_int.h"

#define PAUSE_FIRST_MS  1000
#define PAUSE_MAX_MS    (5 * 60 * 1000)
#define FORCED_AGAIN_MS 10000 /* however many refusals come */
/* So long a set that was taken is not bad for repositories that it was never taken for. */
#define ACCEPTED_MS (15 * 60 * 1000)

struct credential_wait {
    struct list_node node;
    struct core_msg msg;
    struct proxy *px;
    struct secret_set *set;   /* a reference */
    struct credential *asker; /* NULL: it has gone; its core's */
};

/* ---- values ---- */

void credential_value_unref(struct credential_value *v)
{
    if (v != NULL && ref_drop(&v->ref))
        secret_free(v);
}

static struct credential_value *value_bad(const char *why)
{
    struct credential_value *v = secret_alloc(sizeof *v + 1);
    struct str s = STR_INIT(v->why);
    ref_init(&v->ref);
    str_addz(&s, why);
    return v;
}

static struct span copy_in(char **to, struct span s)
{
    if (s.p == NULL)
        return SPAN_NONE;
    memcpy(*to, s.p, s.n);
    struct span copy = span_of(*to, s.n);
    *to += s.n + 1;
    return copy;
}

static struct credential_value *value_good(struct span user, struct span password, struct span refresh_token)
{
    size_t n = user.n + password.n + refresh_token.n + 3;
    struct credential_value *v = secret_alloc(sizeof *v + n);
    char *to = v->bytes;
    ref_init(&v->ref);
    v->good = true;
    v->user = copy_in(&to, user);
    v->password = copy_in(&to, password);
    v->refresh_token = copy_in(&to, refresh_token);
    /* The ends of the three are part of it; 0 is nobody's. */
    v->fingerprint = map_hash(span_of(v->bytes, n)) | 1;
    return v;
}

/* ---- sets ---- */

static void set_unref(struct secret_set *set)
{
    if (!ref_drop(&set->ref))
        return;
    MUST(!set->loading && list_empty(&set->waiting));
    for (unsigned i = 0; i < set->n_sources; i++)
        source_free(&set->source[i]);
    credential_value_unref(set->value);
    credential_value_unref(set->refusal);
    pthread_mutex_destroy(&set->lock);
    mem_free(set->text);
    mem_free(set);
}

static int add_source(struct secret_set *set, const struct conf_secret *ref, struct span config_file)
{
    if (ref->kind == SECRET_NONE)
        return -1;
    struct secret_source *s = &set->source[set->n_sources];
    source_init(s, ref, set->registry, config_file);
    for (unsigned i = 0; i < set->n_sources; i++) {
        if (!source_same(&set->source[i], s))
            continue;
        source_free(s);
        return (int)i;
    }
    return (int)set->n_sources++;
}

static struct secret_set *set_new(const struct conf_credential_set *c, struct span config_file)
{
    struct secret_set *set;
    NEW(set);
    ref_init(&set->ref);
    pthread_mutex_init(&set->lock, NULL);
    list_init(&set->waiting);
    size_t n = c->name.n + c->login_server.n + 1;
    set->text = mem_alloc(n);
    struct str text = str_init(set->text, n);
    str_add(&text, c->name);
    str_add(&text, c->login_server);
    set->name = span_of(set->text, c->name.n);
    set->registry = span_of(set->text + c->name.n, c->login_server.n);
    set->user_at = add_source(set, &c->username, config_file);
    set->password_at = add_source(set, &c->password, config_file);
    set->since_ms = clock_wall_ms();
    return set;
}

static bool same_set(const struct secret_set *a, const struct secret_set *b)
{
    if (!span_eq(a->registry, b->registry) || a->n_sources != b->n_sources || a->user_at != b->user_at ||
        a->password_at != b->password_at)
        return false;
    for (unsigned i = 0; i < a->n_sources; i++) {
        if (!source_same(&a->source[i], &b->source[i]))
            return false;
    }
    return true;
}

struct secrets *secrets_new(struct setup *setup, const struct secrets *before)
{
    const struct conf *conf = setup_conf(setup);
    struct secrets *s;
    NEW(s);
    struct map all;
    map_init(&all);
    for (size_t i = 0; before != NULL && i < before->n; i++)
        map_put(&all, before->sets[i]->name, before->sets[i]);
    s->setup = setup;
    s->n = conf->n_credential_sets;
    s->sets = mem_zalloc((s->n + 1) * sizeof(struct secret_set *));
    for (size_t i = 0; i < s->n; i++) {
        const struct conf_credential_set *c = &conf->credential_sets[i];
        struct secret_set *set = set_new(c, conf->file), *known = map_get(&all, c->name);
        if (known != NULL && same_set(known, set)) {
            ref_take(&known->ref);
            set_unref(set);
            s->sets[i] = known;
            continue;
        }
        if (known != NULL) {
            pthread_mutex_lock(&known->lock);
            set->refused = known->refused; /* a counter */
            pthread_mutex_unlock(&known->lock);
        }
        secret_load_now(set);
        s->sets[i] = set;
    }
    map_free(&all);
    return s;
}

void secrets_free(struct secrets *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++)
        set_unref(s->sets[i]);
    mem_free(s->sets);
    mem_free(s);
}

/* ---- health ---- */

static bool only_fast(const struct secret_set *set)
{
    for (unsigned i = 0; i < set->n_sources; i++) {
        if (source_is_slow(&set->source[i]))
            return false;
    }
    return true;
}

static void pause_longer(struct secret_set *set)
{
    set->pause_ms = set->pause_ms == 0 ? PAUSE_FIRST_MS : set->pause_ms * 2;
    if (set->pause_ms > PAUSE_MAX_MS)
        set->pause_ms = PAUSE_MAX_MS;
    set->until_ms = clock_mono_ms() + set->pause_ms;
}

static bool healthy(const struct secret_set *set)
{
    return set->refusal == NULL && (set->value == NULL || set->value->good);
}

/* Under the lock. */
static void heal(struct secret_set *set)
{
    if (set->refusal != NULL)
        set->since_ms = clock_wall_ms();
    credential_value_unref(set->refusal);
    set->refusal = NULL;
    set->refusals = 0;
    set->probing = false;
    set->until_ms = set->pause_ms = 0;
}

/* 0 is nobody's. */
static uint64_t repo_hash(struct span repo)
{
    return map_hash(repo) | 1;
}

/* Under the lock. SECRET_REPOS: it is not there. */
static unsigned taken_at(const struct secret_set *set, uint64_t repo)
{
    unsigned i = 0;
    while (i < SECRET_REPOS && set->taken_for[i] != repo)
        i++;
    return i;
}

/* Under the lock. The oldest gives way. */
static void taken_put(struct secret_set *set, uint64_t repo)
{
    if (taken_at(set, repo) < SECRET_REPOS)
        return;
    set->taken_for[set->next_taken] = repo;
    set->next_taken = (set->next_taken + 1) % SECRET_REPOS;
}

/* Under the lock. Was it there? */
static bool taken_drop(struct secret_set *set, uint64_t repo)
{
    unsigned i = taken_at(set, repo);
    if (i == SECRET_REPOS)
        return false;
    set->taken_for[i] = 0;
    return true;
}

void credential_accepted(struct secrets *s, const struct conf_credential_set *conf, uint64_t fingerprint,
                         struct span repo)
{
    struct secret_set *set = s->sets[conf->index];
    pthread_mutex_lock(&set->lock);
    bool was = set->refusal != NULL;
    if (set->value != NULL && set->value->good && set->value->fingerprint == fingerprint) {
        set->checked_ms = clock_wall_ms();
        set->accepted_ms = clock_mono_ms();
        taken_put(set, repo_hash(repo));
        if (was || set->refusals > 0)
            heal(set);
    }
    bool now = set->refusal == NULL;
    pthread_mutex_unlock(&set->lock);
    if (was && now)
        log_info("secrets", "credential set is accepted again", LOG_SP("credential_set", set->name));
}

/* Under the lock. Is there one that it was taken for, and not refused since? */
static bool still_taken(const struct secret_set *set)
{
    for (unsigned i = 0; i < SECRET_REPOS; i++) {
        if (set->taken_for[i] != 0)
            return clock_mono_ms() - set->accepted_ms < ACCEPTED_MS;
    }
    return false;
}

/* Under the lock. Is the refusal about that repository, rather than about the credentials? */
static bool about_repo(struct secret_set *set, uint64_t repo)
{
    bool taken = taken_drop(set, repo);
    return !taken && set->refusal == NULL && still_taken(set);
}

/* Under the lock. True: the set is refused from now on. */
static bool count_refusal(struct secret_set *set, const char *why)
{
    bool began = ++set->refusals >= SECRET_REFUSALS && set->refusal == NULL;
    if (began)
        set->since_ms = set->checked_ms;
    if (began || set->probing) { /* not for those that were under way already */
        set->probing = false;
        credential_value_unref(set->refusal);
        set->refusal = value_bad(why);
        set->refusal->fingerprint = set->value->fingerprint;
        pause_longer(set);
    }
    return began;
}

bool credential_refused(struct secrets *s, const struct conf_credential_set *conf, uint64_t fingerprint,
                        unsigned status, struct span where, struct span repo)
{
    struct secret_set *set = s->sets[conf->index];
    bool began = false, counts = true;
    char why[256];
    struct str w = STR_INIT(why);
    str_addf(&w, "refused by " SPAN_FMT " with status %u: check user name and password", SPAN_ARG(where),
             status);
    pthread_mutex_lock(&set->lock);
    set->refused++;
    if (set->value != NULL && set->value->good && set->value->fingerprint == fingerprint) {
        set->checked_ms = clock_wall_ms();
        if (clock_mono_ms() >= set->forced_ms) /* it may have been replaced where it is kept */
            set->forced = true;
        counts = !about_repo(set, repo_hash(repo));
        began = counts && count_refusal(set, why);
    }
    pthread_mutex_unlock(&set->lock);
    if (began)
        log_error("secrets", "credential set is refused, pausing with it",
                  LOG_SP("credential_set", set->name), LOG_S("why", why));
    return counts;
}

bool credential_doubted(struct secrets *s, const struct conf_credential_set *conf, uint64_t fingerprint)
{
    struct secret_set *set = s->sets[conf->index];
    pthread_mutex_lock(&set->lock);
    bool known = set->value != NULL && set->value->good && set->value->fingerprint == fingerprint;
    if (known && !only_fast(set) && clock_mono_ms() >= set->forced_ms)
        set->doubted = true;
    bool again = set->doubted || !known || (set->loading && !only_fast(set));
    pthread_mutex_unlock(&set->lock);
    return again;
}

void credential_health(struct secrets *s, const struct conf_credential_set *conf,
                       struct credential_health *out)
{
    struct secret_set *set = s->sets[conf->index];
    struct str why = STR_INIT(out->why);
    pthread_mutex_lock(&set->lock);
    out->healthy = healthy(set);
    out->since_ms = set->since_ms;
    out->checked_ms = set->checked_ms;
    out->refused = set->refused;
    if (!out->healthy)
        str_addz(&why, set->refusal != NULL ? set->refusal->why : set->value->why);
    pthread_mutex_unlock(&set->lock);
}

/* ---- the end of a load ---- */

static struct span answer_of(const struct secret_set *set, int at, bool user)
{
    if (at < 0)
        return SPAN_NONE;
    return user ? set->source[at].answer.user : set->source[at].answer.password;
}

/* What the sources say together. NULL: *why. */
static struct credential_value *combine(const struct secret_set *set, struct str *why)
{
    /* Without a reference for the user's name the password's source knows it (config.json, helpers). */
    struct span user = answer_of(set, set->user_at >= 0 ? set->user_at : set->password_at, true);
    struct span password = answer_of(set, set->password_at, false);
    struct span refresh =
        set->password_at < 0 ? SPAN_NONE : set->source[set->password_at].answer.refresh_token;
    if (refresh.n == 0 && user.n == 0)
        str_addz(why, "there is no user name: set username");
    else if (refresh.n == 0 && password.n == 0)
        str_addz(why, "there is no password: set password");
    else if (user.n > 0 && span_find(user, ':') >= 0)
        str_addz(why, "the user name has a colon, which HTTP cannot carry");
    else if (user.n + password.n > CREDENTIAL_MAX || user.n + refresh.n > CREDENTIAL_MAX)
        str_addf(why, "user name and password are longer than the %u KiB that a request can carry",
                 CREDENTIAL_MAX >> 10);
    else
        return value_good(user, password, refresh);
    return NULL;
}

static int64_t due_of(const struct secret_set *set)
{
    int64_t due = INT64_MAX;
    for (unsigned i = 0; i < set->n_sources; i++) {
        if (source_is_slow(&set->source[i]) && set->source[i].due_ms < due)
            due = set->source[i].due_ms;
    }
    return due;
}

/* Under the lock. Takes v. A server's refusal of another value says nothing now. */
static void take_value(struct secret_set *set, struct credential_value *v)
{
    struct credential_value *old = set->value;
    bool was = healthy(set);
    set->checked_ms = clock_wall_ms();
    if (v->good && old != NULL && old->good && old->fingerprint == v->fingerprint) {
        credential_value_unref(v);
        return;
    }
    int64_t pause = old != NULL && !old->good && !only_fast(set) ? set->pause_ms : 0;
    heal(set);
    set->accepted_ms = 0;
    memset(set->taken_for, 0, sizeof set->taken_for);
    set->value = v;
    credential_value_unref(old);
    if (!v->good) { /* a file is tried again every second; what is slow, after longer and longer pauses */
        set->pause_ms = pause;
        pause_longer(set);
    }
    if (healthy(set) != was)
        set->since_ms = set->checked_ms;
}

/* Under the lock, as whoever is listed may go: a wait is in set->waiting or posted, never in between. */
static void wake_all(struct secret_set *set)
{
    struct list_node *n;
    while ((n = list_pop_front(&set->waiting)) != NULL) {
        struct credential_wait *w = CONTAINER_OF(n, struct credential_wait, node);
        core_post(w->px->core, &w->msg);
    }
}

void secret_load_dropped(struct secret_set *set)
{
    pthread_mutex_lock(&set->lock);
    set->loading = false;
    wake_all(set);
    pthread_mutex_unlock(&set->lock);
}

void secret_loaded(struct secret_set *set, const char *err, bool keep)
{
    char text[256];
    struct str why = STR_INIT(text);
    struct credential_value *v = NULL;
    if (err == NULL || keep)
        v = combine(set, &why);
    else
        str_addz(&why, err);
    bool good = v != NULL;
    if (!good)
        v = value_bad(text);
    pthread_mutex_lock(&set->lock);
    const struct credential_value *old = set->value;
    bool healed = good && old != NULL && !old->good;
    bool news = old == NULL || old->good || strcmp(old->why, v->why) != 0;
    bool kept = good && err != NULL, kept_now = kept && !set->kept;
    set->kept = kept;
    take_value(set, v);
    set->looked_ms = clock_mono_ms();
    set->due_ms = due_of(set);
    pthread_mutex_unlock(&set->lock);
    if (healed)
        log_info("secrets", "credential set is read again", LOG_SP("credential_set", set->name));
    if (!good && news)
        log_warn("secrets", "credential set cannot be read", LOG_SP("credential_set", set->name),
                 LOG_S("why", text));
    if (kept_now)
        log_warn("secrets", "credential set not read again, going on with what it was",
                 LOG_SP("credential_set", set->name), LOG_S("why", err));
    secret_load_dropped(set);
}

/* ---- askers ---- */

static void wait_free(struct credential_wait *w)
{
    w->px->waits--;
    set_unref(w->set);
    mem_free(w);
}

static void on_loaded(struct core_msg *m)
{
    struct credential_wait *w = CONTAINER_OF(m, struct credential_wait, msg);
    struct credential *c = w->asker;
    wait_free(w);
    if (c == NULL)
        return;
    c->wait = NULL;
    c->done(c);
}

/* Under the lock. */
static enum credential_state wait_for_load(struct proxy *px, struct secret_set *set, struct credential *c)
{
    struct credential_wait *w;
    NEW(w);
    core_msg_init(&w->msg, on_loaded);
    w->px = px;
    w->set = set;
    w->asker = c;
    ref_take(&set->ref);
    list_push_back(&set->waiting, &w->node);
    px->waits++;
    c->wait = w;
    return CREDENTIAL_WAIT;
}

static void give(struct credential *c, struct credential_value *v)
{
    ref_take(&v->ref);
    c->value = v;
    c->user = v->user;
    c->password = v->password;
    c->refresh_token = v->refresh_token;
    c->fingerprint = v->fingerprint;
    c->why = v->good ? NULL : v->why;
}

enum due { DUE_NO, DUE_LATER, DUE_NOW };

/* Is a load due, and may it be waited for? Under the lock. */
static enum due load_due(const struct secret_set *set, int64_t now, bool renew)
{
    if (set->value == NULL)
        return DUE_NOW;
    if (!set->value->good)
        return now >= set->until_ms ? DUE_NOW : DUE_NO;
    if (set->forced || (renew && (set->doubted || set->loading)))
        return DUE_NOW;
    for (unsigned i = 0; i < set->n_sources; i++) {
        if (source_is_file(&set->source[i]) && now >= set->looked_ms + SECRET_LOOK_MS)
            return DUE_NOW;
    }
    return set->doubted || now >= set->due_ms ? DUE_LATER : DUE_NO;
}

/* What the set gives now, without a load. Under the lock. */
static enum credential_state answer(struct secret_set *set, struct credential *c, int64_t now)
{
    if (!set->value->good) {
        give(c, set->value);
        return CREDENTIAL_FAILED;
    }
    if (set->refusal != NULL && now < set->until_ms) {
        give(c, set->refusal);
        return CREDENTIAL_FAILED;
    }
    if (set->refusal != NULL && !c->only_look) { /* this one probes; the others wait for what comes of it */
        set->probing = true;
        set->until_ms = now + set->pause_ms;
    }
    give(c, set->value);
    return CREDENTIAL_READY;
}

enum credential_state credential_get(struct proxy *px, struct secrets *s,
                                     const struct conf_credential_set *conf, struct credential *c)
{
    core_check(px->core);
    struct secret_set *set = s->sets[conf->index];
    bool renew = c->renew;
    credential_release(c);
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&set->lock);
    enum due due = load_due(set, now, renew);
    bool start = due != DUE_NO && !set->loading, forced = set->forced || set->doubted;
    if (start) {
        set->loading = true;
        if (forced)
            set->forced_ms = now + FORCED_AGAIN_MS;
        set->forced = set->doubted = false;
    }
    enum credential_state state = due == DUE_NOW ? wait_for_load(px, set, c) : answer(set, c, now);
    pthread_mutex_unlock(&set->lock);
    if (start)
        secret_load_start(px, s->setup, set, forced);
    return state;
}

void credential_release(struct credential *c)
{
    struct credential_wait *w = c->wait;
    if (w != NULL) {
        struct secret_set *set = w->set;
        pthread_mutex_lock(&set->lock);
        bool listed = list_linked(&w->node);
        list_remove(&w->node);
        pthread_mutex_unlock(&set->lock);
        w->asker = NULL;
        if (listed)
            wait_free(w);
    }
    credential_value_unref(c->value);
    *c = (struct credential){.done = c->done, .only_look = c->only_look};
}
