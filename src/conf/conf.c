/* From the file's text to a snapshot.
 *
 * Order: the tree (yaml_in), then section by section (schema), upstreams before rules because a rule is bound to the
 * upstream of its registry, and last what concerns several rules (rules). Every part goes on after a mistake, with the
 * default in the wrong value's place, so that one run shows all mistakes. The snapshot is handed out only if there was
 * none.
 *
 * Invariant: nothing in the snapshot points into the tree, which dies with the scratch arena. */
#include "conf/conf.h"

#include "base/arena.h"
#include "base/map.h"
#include "base/mem.h"
#include "conf/complain.h"
#include "conf/credential_in.h"
#include "conf/endpoint.h"
#include "conf/reach.h"
#include "conf/rule_in.h"
#include "conf/rules.h"
#include "conf/schema.h"
#include "registry/name.h"

enum { STORE_MIN = 1 << 20, UNIT_MIN = 1 << 10 };

/* What is needed while the upstreams and rules are collected. */
struct collect {
    struct conf_loader *l;
    struct map upstreams; /* canonical registry -> struct upstream_in */
    struct map names;     /* rule's name -> struct conf_mark */
    struct map sets;      /* credential set's name -> struct credential_in */
    struct conf_upstream *list;
    size_t n;
    struct conf_mark *targets; /* of each rule */
    struct conf_policy defaults;
};

struct upstream_in {
    struct conf_upstream *upstream;
    struct conf_mark mark;
};

static void load_listen(struct conf_loader *l, const struct conf_node *list)
{
    struct conf *c = l->conf;
    size_t max = list != NULL ? list->n : 1;
    struct conf_listen *out = arena_alloc(c->arena, max * sizeof *out);
    c->listen = out;
    if (list == NULL) {
        MUST(endpoint_read_address(l, "listen", (struct conf_mark){0}, SPAN("0.0.0.0:5000"), out));
        c->n_listen = 1;
        return;
    }
    for (const struct conf_node *node = list->first; node != NULL; node = node->next) {
        bool ok = schema_load(l, SECTION_LISTEN, node);
        struct conf_identity tls = {.certificate = {.path = SPAN_NONE}};
        if (l->value[KEY_LISTEN_tls].node != NULL &&
            schema_load(l, SECTION_LISTEN_TLS, l->value[KEY_LISTEN_tls].node))
            tls = (struct conf_identity){.certificate = schema_path(l, KEY_LISTEN_TLS_certificate),
                                         .key = schema_path(l, KEY_LISTEN_TLS_key)};
        const struct schema_value *v = &l->value[KEY_LISTEN_address];
        if (ok && endpoint_read_address(l, "listen[].address", v->mark, v->text, &out[c->n_listen]))
            out[c->n_listen++].tls = tls;
    }
}

static bool same_address(const struct conf_listen *a, const struct conf_listen *b)
{
    return a->port != 0 && a->port == b->port && span_eq(a->host, b->host);
}

/* Is what arrives at one of them the other's, too? All of IPv6 takes IPv4 in. */
static bool overlap(const struct conf_listen *a, const struct conf_listen *b)
{
    if (a->port == 0 || a->port != b->port)
        return false;
    bool v4 = span_find(a->host, ':') < 0 && span_find(b->host, ':') < 0;
    struct span all = v4 ? SPAN("0.0.0.0") : SPAN("::");
    return span_eq(a->host, b->host) || span_eq(a->host, all) || span_eq(b->host, all);
}

/* 'ADDRESS' (line N) */
static void add_listen(struct str *out, const struct conf_listen *l)
{
    str_addf(out, "'" SPAN_FMT "'", SPAN_ARG(l->address));
    if (l->mark.line != 0)
        str_addf(out, " (line %u)", l->mark.line);
    else
        str_addz(out, " (the default)");
}

static void check_admin(struct conf_loader *l, const struct conf_listen *listen)
{
    const struct conf_listen *admin = &l->conf->admin;
    char a[128], b[128];
    struct str one = STR_INIT(a), other = STR_INIT(b);
    if (!overlap(listen, admin))
        return;
    add_listen(&one, admin);
    add_listen(&other, listen);
    complain(l->errors, admin->mark.line != 0 ? admin->mark : listen->mark,
             "admin.address %s and the listen entry %s overlap; give one another port", a, b);
}

static void check_addresses(struct conf_loader *l)
{
    const struct conf *c = l->conf;
    for (size_t i = 0; i < c->n_listen; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!same_address(&c->listen[i], &c->listen[j]))
                continue;
            complain(l->errors, c->listen[i].mark,
                     "listen[].address: '%.*s' is already listened on (line %u); remove one",
                     SHOW(c->listen[i].address), c->listen[j].mark.line);
            break;
        }
        check_admin(l, &c->listen[i]);
    }
}

static void load_admin(struct conf_loader *l, const struct conf_node *map)
{
    schema_load(l, SECTION_ADMIN, map);
    const struct schema_value *v = &l->value[KEY_ADMIN_address];
    struct conf_mark mark = v->state == VALUE_ABSENT ? (struct conf_mark){0} : v->mark;
    if (v->state != VALUE_BAD)
        endpoint_read_address(l, "admin.address", mark, v->text, &l->conf->admin);
}

/* So few bytes are meant by nobody. `meaning`: what it is now; `hint`: what to write. */
static void check_unit(struct conf_loader *l, const char *key, const struct schema_value *v,
                       const char *meaning, const char *hint)
{
    if (v->n > 0 && v->n < UNIT_MIN && !v->percent)
        complain(l->errors, v->mark, "store.%s: '%.*s' is %lld %s; write a unit, as in %s", key,
                 SHOW(v->text), (long long)v->n, meaning, hint);
}

static void load_store(struct conf_loader *l, const struct conf_node *map)
{
    schema_load(l, SECTION_STORE, map);
    const struct schema_value *size = &l->value[KEY_STORE_max_size];
    if (size->n > 0 && size->n < STORE_MIN)
        complain(l->errors, size->mark,
                 "store.max_size: '%.*s' is less than 1MiB, and hardly an image would fit; write a unit, as "
                 "in 100GiB",
                 SHOW(size->text));
    check_unit(l, "min_free", &l->value[KEY_STORE_min_free], "bytes", "10GiB, or 5%");
    check_unit(l, "scrub_rate", &l->value[KEY_STORE_scrub_rate], "bytes a second", "8MiB");
    l->conf->store_path = arena_span(l->conf->arena, l->value[KEY_STORE_path].text);
    const struct schema_value *free = &l->value[KEY_STORE_min_free];
    l->conf->store.max_size = (uint64_t)size->n;
    l->conf->store.min_free = free->percent ? 0 : (uint64_t)free->n;
    l->conf->store.min_free_percent = free->percent ? (unsigned)free->n : 0;
    l->conf->store.max_age_ms = l->value[KEY_STORE_max_age].n;
    l->conf->store.partial_age_ms = l->value[KEY_STORE_partial_age].n;
    l->conf->store.scrub_rate = (uint64_t)l->value[KEY_STORE_scrub_rate].n;
}

static void load_small(struct conf_loader *l)
{
    struct conf *c = l->conf;
    const struct schema_value *v = l->value;
    c->workers = (unsigned)v[KEY_ROOT_workers].n;
    load_admin(l, v[KEY_ROOT_admin].node);
    load_store(l, v[KEY_ROOT_store].node);
    schema_load(l, SECTION_MIRROR, v[KEY_ROOT_mirror].node);
    c->mirror = v[KEY_MIRROR_enabled].n != 0;
    schema_load(l, SECTION_LOG, v[KEY_ROOT_log].node);
    c->log_level = (enum log_level)v[KEY_LOG_level].n;
    c->log_format = (enum log_format)v[KEY_LOG_format].n;
    c->log_access = v[KEY_LOG_access].n != 0;
    schema_load(l, SECTION_CLIENT, v[KEY_ROOT_client].node);
    c->client.header_ms = v[KEY_CLIENT_header_timeout].n;
    c->client.idle_ms = v[KEY_CLIENT_idle_timeout].n;
    c->client.send_ms = v[KEY_CLIENT_send_timeout].n;
    c->client.drain_ms = v[KEY_CLIENT_drain_timeout].n;
    c->client.max_connections = (uint64_t)v[KEY_CLIENT_max_connections].n;
}

/* The upstream in the next place of the list becomes the one of `registry`, a canonical name that has none yet. */
static struct conf_upstream *add_upstream(struct collect *k, struct span registry, struct conf_mark mark)
{
    struct conf_loader *l = k->l;
    struct conf_upstream *u = &k->list[k->n];
    u->index = (unsigned)k->n++;
    reach_bind(l, u, registry, mark);
    struct upstream_in *in = arena_alloc(l->scratch, sizeof *in);
    *in = (struct upstream_in){.upstream = u, .mark = mark};
    map_put(&k->upstreams, u->registry, in);
    return u;
}

static void load_upstream(struct collect *k, const struct conf_node *node)
{
    struct conf_loader *l = k->l;
    const struct schema_value *v = &l->value[KEY_UPSTREAM_registry];
    char buf[NAME_REGISTRY_MAX + 1];
    struct str name = STR_INIT(buf);
    schema_load(l, SECTION_UPSTREAM, node);
    reach_load(l, &k->list[k->n]);
    if (!schema_registry(l, KEY_UPSTREAM_registry, &name))
        return;
    const struct upstream_in *other = map_get(&k->upstreams, str_span(&name));
    if (other == NULL)
        add_upstream(k, str_span(&name), v->mark);
    else
        complain(l->errors, v->mark,
                 "upstreams[].registry: '%.*s' is described already (line %u); put all in one entry",
                 SHOW(str_span(&name)), other->mark.line);
}

static const struct conf_upstream *upstream_for(struct collect *k, const struct conf_rule *r)
{
    const struct upstream_in *in = map_get(&k->upstreams, r->registry);
    if (in != NULL)
        return in->upstream;
    schema_load(k->l, SECTION_UPSTREAM, NULL);
    reach_load(k->l, &k->list[k->n]);
    return add_upstream(k, r->registry, r->mark);
}

static void check_name(struct collect *k, struct conf_rule *r)
{
    struct conf_loader *l = k->l;
    const struct schema_value *v = &l->value[KEY_RULE_name];
    if (!schema_name(l, KEY_RULE_name))
        return;
    r->name = arena_span(l->conf->arena, v->text);
    const struct conf_mark *other = map_get(&k->names, r->name);
    if (other != NULL) {
        complain(l->errors, v->mark,
                 "rules[].name: '%.*s' is the name of the rule on line %u already; choose another",
                 SHOW(r->name), other->line);
        return;
    }
    struct conf_mark *mark = arena_alloc(l->scratch, sizeof *mark);
    *mark = r->mark;
    map_put(&k->names, r->name, mark);
}

static void load_rule(struct collect *k, const struct conf_node *node, struct conf_rule *r)
{
    struct conf_loader *l = k->l;
    struct conf *c = l->conf;
    *r = (struct conf_rule){.mark = node->mark, .index = (unsigned)c->n_rules};
    schema_load(l, SECTION_RULE, node);
    check_name(k, r);
    if (!rule_in_read(l, &k->defaults, r))
        return;
    k->targets[c->n_rules] = l->value[KEY_RULE_target].mark;
    r->credential_set = credential_in_find(l, &k->sets, r);
    r->upstream = upstream_for(k, r);
    c->n_rules++;
}

/* What the table says about a registry, unless it is only reached through mirrors, which have their own rules. */
static const struct known_registry *known_of(const struct collect *k, struct span registry)
{
    const struct upstream_in *in = map_get(&k->upstreams, registry);
    if (in == NULL)
        return known_find(registry);
    return reach_registry_itself(in->upstream) ? in->upstream->known : NULL;
}

/* When all upstreams are there. */
static void check_sets(const struct collect *k)
{
    const struct credential_in *in;
    for (size_t pos = 0; (in = map_next(&k->sets, &pos)) != NULL;) {
        if (in->set->login_server.p == NULL)
            continue;
        const struct known_registry *known = known_of(k, in->set->login_server);
        if (known != NULL && known->auth == KNOWN_ANONYMOUS)
            complain(k->l->errors, in->login_mark,
                     "credential_sets[].login_server: %.*s (%.*s) knows no accounts; remove the set '%.*s' "
                     "and where "
                     "rules name it",
                     SHOW(in->set->login_server), SHOW(known->title), SHOW(in->set->name));
    }
}

/* About rules of one registry that have no credential set; `r` is the first of them. */
static void warn_anonymous(const struct collect *k, const struct conf_rule *r, size_t others)
{
    const struct known_registry *known = known_of(k, r->registry);
    char buf[64];
    struct str more = STR_INIT(buf);
    if (others > 0)
        str_addf(&more, " and %zu more", others);
    if (known != NULL && known->auth == KNOWN_ACCOUNT)
        complain_warn(
            k->l->errors, r->mark,
            "rule '%.*s'%s without credential_set: %.*s (%.*s) answers nobody without an account; describe "
            "one in credential_sets and name it in the rules of this registry",
            SHOW(r->name), buf, SHOW(known->title), SHOW(r->registry));
    else if (known != NULL && known->anonymous_limit.p != NULL)
        complain_warn(
            k->l->errors, r->mark,
            "rule '%.*s'%s without credential_set: without an account %.*s (%.*s) allows %.*s; describe one "
            "in credential_sets and name it in the rules of this registry",
            SHOW(r->name), buf, SHOW(known->title), SHOW(r->registry), SHOW(known->anonymous_limit));
}

static void warn_unlogged(const struct conf_loader *l)
{
    const struct schema_value *access = &l->value[KEY_LOG_access];
    if (access->state == VALUE_SET && l->conf->log_access && l->conf->log_level < LOG_INFO)
        complain_warn(l->errors, access->mark,
                      "log.access: requests are logged at level info, which log.level leaves out; write "
                      "'level: info' if "
                      "they are wanted, or 'access: false'");
}

static void warn_no_rules(const struct conf_loader *l)
{
    const struct schema_value *rules = &l->value[KEY_ROOT_rules];
    complain_warn(
        l->errors, rules->state == VALUE_SET ? rules->mark : (struct conf_mark){1, 1},
        "there are no rules: every pull is answered with 404; add one under 'rules:', or with 'larder "
        "cache create'");
}

static void warn(const struct collect *k)
{
    const struct conf *c = k->l->conf;
    if (c->n_rules == 0)
        warn_no_rules(k->l);
    warn_unlogged(k->l);
    struct anonymous {
        const struct conf_rule *first;
        size_t n;
    } *of = arena_alloc(k->l->scratch, (c->n_upstreams + 1) * sizeof *of);
    for (size_t i = 0; i < c->n_rules; i++) {
        struct anonymous *a = &of[c->rules[i].upstream->index];
        if (c->rules[i].credential_set == NULL && a->n++ == 0)
            a->first = &c->rules[i];
    }
    for (size_t i = 0; i < c->n_upstreams; i++)
        if (of[i].n > 0)
            warn_anonymous(k, of[i].first, of[i].n - 1);
    const struct credential_in *in;
    for (size_t pos = 0; (in = map_next(&k->sets, &pos)) != NULL;)
        if (!in->used)
            complain_warn(
                k->l->errors, in->set->mark,
                "credential set '%.*s' is used by no rule; name it in one (credential_set: %.*s), or remove "
                "it",
                SHOW(in->set->name), SHOW(in->set->name));
}

static size_t list_length(const struct conf_node *list)
{
    return list != NULL ? list->n : 0;
}

static void load_rules(struct conf_loader *l)
{
    struct conf *c = l->conf;
    const struct conf_node *upstreams = l->value[KEY_ROOT_upstreams].node,
                           *rules = l->value[KEY_ROOT_rules].node;
    size_t n_rules = list_length(rules), n = list_length(upstreams) + n_rules;
    struct collect k = {.l = l};
    map_init(&k.upstreams);
    map_init(&k.names);
    map_init(&k.sets);
    k.list = arena_alloc(c->arena, (n + 1) * sizeof *k.list);
    k.targets = arena_alloc(l->scratch, (n_rules + 1) * sizeof *k.targets);
    struct conf_rule *out = arena_alloc(c->arena, (n_rules + 1) * sizeof *out);

    schema_load(l, SECTION_DEFAULTS, l->value[KEY_ROOT_defaults].node);
    rule_in_policy(l, SECTION_DEFAULTS, &k.defaults);
    for (const struct conf_node *u = upstreams != NULL ? upstreams->first : NULL; u != NULL; u = u->next)
        load_upstream(&k, u);
    credential_in_load(l, l->value[KEY_ROOT_credential_sets].node, &k.sets);
    c->rules = out;
    for (const struct conf_node *r = rules != NULL ? rules->first : NULL; r != NULL; r = r->next)
        load_rule(&k, r, &out[c->n_rules]);
    c->upstreams = k.list;
    c->n_upstreams = k.n;
    rules_compile(c, k.targets, l->errors);
    check_sets(&k);
    if (l->errors->n == 0)
        warn(&k);
    map_free(&k.upstreams);
    map_free(&k.names);
    map_free(&k.sets);
}

static void load_all(struct conf_loader *l, struct span text)
{
    struct conf_node *root;
    if (!yaml_in_read(l->scratch, text, l->errors, &root))
        return;
    schema_load(l, SECTION_ROOT, root != NULL && root->kind != NODE_NULL ? root : NULL);
    load_listen(l, l->value[KEY_ROOT_listen].node);
    load_small(l);
    check_addresses(l);
    reach_load_resolve(l, l->value[KEY_ROOT_resolve].node);
    load_rules(l);
}

static struct conf *conf_new(struct span text, struct span file)
{
    struct conf *c = NEW(c);
    ref_init(&c->ref);
    c->arena = arena_new();
    c->file = arena_span(c->arena, file);
    c->fingerprint = map_hash(text);
    return c;
}

struct conf *conf_load(struct span text, struct span file, struct conf_errors *errors)
{
    MUST(errors->cap > 0);
    errors->n = errors->n_warnings = errors->left_out = errors->warnings_left_out = 0;
    struct conf *c = conf_new(text, file);
    struct conf_loader l = {.conf = c, .errors = errors, .scratch = arena_new()};
    load_all(&l, text);
    arena_free(l.scratch);
    if (errors->n == 0)
        return c;
    conf_unref(c);
    return NULL;
}

/* The default is meant only if no other address can stand where something is wrong. */
static bool read_admin(struct conf_loader *l, struct span text)
{
    struct conf_node *root;
    const struct conf_node *map = NULL;
    bool whole = yaml_in_read_start(l->scratch, text, l->errors, &root);
    for (const struct conf_node *k = root != NULL && root->kind == NODE_MAP ? root->first : NULL; k != NULL;
         k = k->next)
        if (span_eq(k->text, SPAN("admin")) && k->value->kind != NODE_NULL)
            map = k->value;
    if (map != NULL && map->kind == NODE_BAD)
        return false;
    l->errors->n = 0;
    load_admin(l, map);
    if (l->value[KEY_ADMIN_address].state != VALUE_ABSENT)
        return l->conf->admin.host.p != NULL;
    return l->errors->n == 0 && (whole || memmem(text.p, text.n, "admin", 5) == NULL);
}

struct conf *conf_load_admin(struct span text, struct span file)
{
    struct conf_error dropped[1];
    struct conf_errors errors = {.list = dropped, .cap = ARRAY_LEN(dropped)};
    struct conf *c = conf_new(text, file);
    struct conf_loader l = {.conf = c, .errors = &errors, .scratch = arena_new()};
    bool ok = read_admin(&l, text);
    arena_free(l.scratch);
    if (ok)
        return c;
    conf_unref(c);
    return NULL;
}

struct conf *conf_ref(struct conf *c)
{
    ref_take(&c->ref);
    return c;
}

void conf_unref(struct conf *c)
{
    if (c == NULL || !ref_drop(&c->ref))
        return;
    rules_free(c->compiled);
    arena_free(c->arena);
    mem_free(c);
}

void conf_error_text(const struct conf_error *e, struct span file, struct str *out)
{
    str_add(out, file);
    if (e->mark.line != 0)
        str_addf(out, ":%u:%u", e->mark.line, e->mark.column);
    str_addf(out, ": %s", e->text);
}

void conf_path_beside(struct span config_file, struct span path, struct str *out)
{
    ptrdiff_t slash = span_rfind(config_file, '/');
    if (!span_starts(path, SPAN("/")) && slash >= 0)
        str_add(out, span_sub(config_file, 0, (size_t)slash + 1));
    str_add(out, path);
}

void conf_left_out_text(size_t n, struct span file, struct str *out)
{
    str_add(out, file);
    str_addf(out, ": and %zu more", n);
}
