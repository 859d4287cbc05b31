/* See setup.h. The struct is written while it is made, by one thread, and read by all afterwards; `holders` is each core's own. */
#include "base/map.h"
#include "base/mem.h"
#include "proxy/proxy_int.h"
#include "proxy/realm.h"
#include "proxy/secrets_int.h"

/* What outlives a setup; the name of the registry, the credential set or the rule is the key by which the next setup finds it. Health is
 * about how a registry is reached, and with what account: when the configuration, or a file that it names, changes that, it begins anew. */
struct health_life {
    struct ref ref;
    struct upstream_health health;
};

struct account_life {
    struct ref ref;
    struct account_health health;
};

struct upstream_life {
    struct ref ref;
    struct quotas *quotas;
    struct upstream_counts counts[]; /* by core */
};

struct rule_life {
    struct ref ref;
    struct rule_counts counts[]; /* by core */
};

struct holders {
    unsigned n;
    char apart[60]; /* each core writes its own at every request: not in one line of the processors' caches */
};

struct setup {
    struct ref ref;
    struct conf *conf;
    unsigned n_cores;
    struct upstream_life **upstreams; /* by upstream index */
    struct health_life **health;      /* likewise */
    struct account_life **accounts;   /* by credential set index */
    struct rule_life **rules;         /* by rule index; the last one: no rule */
    struct holders *holders;          /* by core */
    struct setup_ways ways;
    struct secrets *secrets;
};

/* ---- what is carried over ---- */

static struct upstream_life *upstream_life(struct upstream_life *known, unsigned n_cores)
{
    if (known != NULL) {
        ref_take(&known->ref);
        return known;
    }
    struct upstream_life *u = mem_zalloc(sizeof *u + n_cores * sizeof u->counts[0]);
    ref_init(&u->ref);
    u->quotas = quotas_new();
    return u;
}

static struct rule_life *rule_life(struct rule_life *known, unsigned n_cores)
{
    if (known != NULL) {
        ref_take(&known->ref);
        return known;
    }
    struct rule_life *r = mem_zalloc(sizeof *r + n_cores * sizeof r->counts[0]);
    ref_init(&r->ref);
    return r;
}

static struct health_life *health_life(struct health_life *known)
{
    if (known != NULL) {
        ref_take(&known->ref);
        return known;
    }
    struct health_life *h;
    NEW(h);
    ref_init(&h->ref);
    return h;
}

static struct account_life *account_life(struct account_life *known)
{
    if (known != NULL) {
        ref_take(&known->ref);
        return known;
    }
    struct account_life *a;
    NEW(a);
    ref_init(&a->ref);
    return a;
}

/* kept: the registries whose health goes on. */
static void carry_upstreams(struct setup *s, const struct setup *before, struct map *kept)
{
    const struct conf *conf = s->conf;
    struct map known;
    map_init(&known);
    for (size_t i = 0; before != NULL && i < before->conf->n_upstreams; i++)
        map_put(&known, before->conf->upstreams[i].registry, (void *)(uintptr_t)&before->conf->upstreams[i]);
    s->upstreams = mem_zalloc((conf->n_upstreams + 1) * sizeof *s->upstreams);
    s->health = mem_zalloc((conf->n_upstreams + 1) * sizeof *s->health);
    for (size_t i = 0; i < conf->n_upstreams; i++) {
        const struct conf_upstream *up = &conf->upstreams[i], *was = map_get(&known, up->registry);
        bool alike = was != NULL && digest_eq(&s->ways.reached[i], &before->ways.reached[was->index]);
        s->upstreams[i] = upstream_life(was != NULL ? before->upstreams[was->index] : NULL, s->n_cores);
        s->health[i] = health_life(alike ? before->health[was->index] : NULL);
        s->ways.upstream[i].quotas = s->ways.beyond[i].quotas = s->upstreams[i]->quotas;
        if (alike)
            map_put(kept, up->registry, s->health[i]);
    }
    map_free(&known);
}

static bool same_secret(const struct conf_secret *a, const struct conf_secret *b)
{
    return a->kind == b->kind && span_eq(a->text, b->text);
}

static bool same_account(const struct conf_credential_set *a, const struct conf_credential_set *b)
{
    return span_eq(a->login_server, b->login_server) && same_secret(&a->username, &b->username) &&
           same_secret(&a->password, &b->password);
}

static void carry_accounts(struct setup *s, const struct setup *before, struct map *kept)
{
    const struct conf *conf = s->conf;
    struct map known;
    map_init(&known);
    for (size_t i = 0; before != NULL && i < before->conf->n_credential_sets; i++)
        map_put(&known, before->conf->credential_sets[i].name,
                (void *)(uintptr_t)&before->conf->credential_sets[i]);
    s->accounts = mem_zalloc((conf->n_credential_sets + 1) * sizeof *s->accounts);
    for (size_t i = 0; i < conf->n_credential_sets; i++) {
        const struct conf_credential_set *set = &conf->credential_sets[i], *was = map_get(&known, set->name);
        bool same = was != NULL && same_account(set, was) && map_get(kept, set->login_server) != NULL;
        s->accounts[i] = account_life(same ? before->accounts[was->index] : NULL);
    }
    map_free(&known);
}

static void carry_rules(struct setup *s, const struct setup *before)
{
    const struct conf *conf = s->conf;
    struct map known;
    map_init(&known);
    for (size_t i = 0; before != NULL && i < before->conf->n_rules; i++)
        map_put(&known, before->conf->rules[i].name, before->rules[i]);
    s->rules = mem_zalloc((conf->n_rules + 1) * sizeof *s->rules);
    for (size_t i = 0; i < conf->n_rules; i++)
        s->rules[i] = rule_life(map_get(&known, conf->rules[i].name), s->n_cores);
    s->rules[conf->n_rules] =
        rule_life(before != NULL ? before->rules[before->conf->n_rules] : NULL, s->n_cores);
    map_free(&known);
}

/* ---- life ---- */

static void setup_free(struct setup *s)
{
    for (size_t i = 0; s->upstreams != NULL && i < s->conf->n_upstreams; i++) {
        if (ref_drop(&s->upstreams[i]->ref)) {
            quotas_unref(s->upstreams[i]->quotas);
            mem_free(s->upstreams[i]);
        }
        if (ref_drop(&s->health[i]->ref))
            mem_free(s->health[i]);
    }
    for (size_t i = 0; s->accounts != NULL && i < s->conf->n_credential_sets; i++) {
        if (ref_drop(&s->accounts[i]->ref))
            mem_free(s->accounts[i]);
    }
    for (size_t i = 0; s->rules != NULL && i <= s->conf->n_rules; i++) {
        if (ref_drop(&s->rules[i]->ref))
            mem_free(s->rules[i]);
    }
    secrets_free(s->secrets);
    setup_ways_end(&s->ways);
    mem_free(s->upstreams);
    mem_free(s->health);
    mem_free(s->accounts);
    mem_free(s->rules);
    mem_free(s->holders);
    conf_unref(s->conf);
    mem_free(s);
}

struct setup *setup_new(struct conf *conf, struct setup *before, unsigned n_cores, struct str *why)
{
    MUST(before == NULL || before->n_cores == n_cores);
    struct setup *s;
    NEW(s);
    ref_init(&s->ref);
    s->conf = conf_ref(conf);
    s->n_cores = n_cores;
    s->holders = mem_zalloc(n_cores * sizeof *s->holders);
    if (!setup_ways_begin(&s->ways, conf, why)) {
        setup_free(s);
        return NULL;
    }
    struct map kept;
    map_init(&kept);
    carry_upstreams(s, before, &kept);
    carry_accounts(s, before, &kept);
    map_free(&kept);
    carry_rules(s, before);
    s->secrets = secrets_new(s, before != NULL ? before->secrets : NULL);
    return s;
}

struct setup *setup_ref(struct setup *s)
{
    ref_take(&s->ref);
    return s;
}

void setup_unref(struct setup *s)
{
    if (s != NULL && ref_drop(&s->ref))
        setup_free(s);
}

struct setup *setup_hold(struct proxy *px, struct setup *s)
{
    core_check(px->core);
    if (s->holders[px->index].n++ == 0)
        setup_ref(s);
    return s;
}

void setup_release(struct proxy *px, struct setup *s)
{
    core_check(px->core);
    MUST(s->holders[px->index].n > 0);
    if (--s->holders[px->index].n > 0)
        return;
    for (size_t i = 0; i < s->ways.n; i++) {
        pool_forget(px->pool, &s->ways.upstream[i]);
        pool_forget(px->pool, &s->ways.beyond[i]);
    }
    pool_forget(px->pool, &s->ways.cloud);
    pool_forget(px->pool, &s->ways.local);
    setup_unref(s);
}

/* ---- parts ---- */

const struct conf *setup_conf(const struct setup *s)
{
    return s->conf;
}

/* Without a certificate there is one way, so that connections to one host are kept for either purpose. */
const struct dial_how *setup_how(const struct setup *s, const struct conf_upstream *up,
                                 const struct url *origin)
{
    const struct dial_how *how = &s->ways.upstream[up->index];
    return how->identity == NULL || realm_own(up, origin) ? how : &s->ways.beyond[up->index];
}

const struct dial_how *setup_cloud(const struct setup *s)
{
    return &s->ways.cloud;
}

const struct dial_how *setup_local(const struct setup *s)
{
    return &s->ways.local;
}

struct secrets *setup_secrets(const struct setup *s)
{
    return s->secrets;
}

bool setup_identity(const struct setup *s, struct span address, const struct identity **out)
{
    for (size_t i = 0; i < s->ways.n_listen; i++) {
        if (span_eq(s->conf->listen[i].address, address)) {
            *out = s->ways.listen[i];
            return true;
        }
    }
    return false;
}

struct upstream_health *setup_health(const struct setup *s, const struct conf_upstream *up)
{
    return &s->health[up->index]->health;
}

struct account_health *setup_account(const struct setup *s, const struct conf_upstream *up,
                                     const struct conf_credential_set *set)
{
    return set != NULL ? &s->accounts[set->index]->health : &setup_health(s, up)->anonymous;
}

struct rule_counts *setup_rule_counts(const struct setup *s, size_t rule, unsigned core)
{
    return &s->rules[rule]->counts[core];
}

struct upstream_counts *setup_upstream_counts(const struct setup *s, const struct conf_upstream *up,
                                              unsigned core)
{
    return &s->upstreams[up->index]->counts[core];
}
