/* See credential_in.h. */
#include "conf/credential_in.h"

#include "conf/complain.h"
#include "conf/secret.h"
#include "registry/name.h"

/* One of the two references of a set; false: complained. Absent is not looked at here. */
static bool read_secret(struct conf_loader *l, const struct schema_value *v, enum secret_use use,
                        struct conf_secret *out)
{
    char buf[480];
    struct str why = STR_INIT(buf);
    *out = (struct conf_secret){.kind = SECRET_NONE, .mark = v->mark};
    if (v->state != VALUE_SET)
        return v->state == VALUE_ABSENT;
    struct span text = arena_span(l->conf->arena, v->text);
    if (secret_parse(text, use, out, &why))
        return true;
    complain(l->errors, v->mark, "credential_sets[].%s: %s", use == SECRET_USERNAME ? "username" : "password",
             buf);
    return false;
}

/* User and password come from one reference, or from two that are not of that kind. */
static void check_username(struct conf_loader *l, const struct conf_node *node, struct conf_credential_set *s)
{
    bool both = secret_has_username(s->password.kind);
    if (s->username.kind == SECRET_NONE) {
        if (!both)
            complain(l->errors, node->mark,
                     "a credential set here has no 'username'; add username: the user's name, or a secret "
                     "reference "
                     "(only a password by dockerconfig: or exec: comes with its user)");
    } else if (both && span_eq(s->username.text, s->password.text)) {
        s->username.kind = SECRET_NONE;
    } else if (secret_has_username(s->username.kind)) {
        complain(l->errors, s->username.mark,
                 "credential_sets[].username: a user by dockerconfig: or exec: comes with the password; "
                 "write the same "
                 "reference as password, and leave username out");
    }
}

static void read_login_server(struct conf_loader *l, struct conf_credential_set *s)
{
    char buf[NAME_REGISTRY_MAX + 1];
    struct str name = STR_INIT(buf);
    if (schema_registry(l, KEY_CREDENTIAL_login_server, &name))
        s->login_server = arena_span(l->conf->arena, str_span(&name));
}

static void load_set(struct conf_loader *l, const struct conf_node *node, struct map *sets,
                     struct conf_credential_set *s)
{
    const struct schema_value *name = &l->value[KEY_CREDENTIAL_name];
    *s = (struct conf_credential_set){.mark = node->mark};
    schema_load(l, SECTION_CREDENTIAL, node);
    if (node->kind != NODE_MAP)
        return;
    read_login_server(l, s);
    bool user = read_secret(l, &l->value[KEY_CREDENTIAL_username], SECRET_USERNAME, &s->username);
    bool password = read_secret(l, &l->value[KEY_CREDENTIAL_password], SECRET_PASSWORD, &s->password);
    if (user && password && s->password.kind != SECRET_NONE)
        check_username(l, node, s);
    if (!schema_name(l, KEY_CREDENTIAL_name))
        return;
    s->name = arena_span(l->conf->arena, name->text);
    const struct credential_in *other = map_get(sets, s->name);
    if (other != NULL) {
        complain(l->errors, name->mark,
                 "credential_sets[].name: '%.*s' is the name of the set on line %u already; choose another",
                 SHOW(s->name), other->set->mark.line);
        return;
    }
    struct credential_in *in = arena_alloc(l->scratch, sizeof *in);
    *in = (struct credential_in){.set = s, .login_mark = l->value[KEY_CREDENTIAL_login_server].mark};
    map_put(sets, s->name, in);
}

void credential_in_load(struct conf_loader *l, const struct conf_node *list, struct map *sets)
{
    struct conf *c = l->conf;
    size_t n = list != NULL ? list->n : 0;
    struct conf_credential_set *out = arena_alloc(c->arena, (n + 1) * sizeof *out);
    c->credential_sets = out;
    for (const struct conf_node *node = list != NULL ? list->first : NULL; node != NULL; node = node->next) {
        struct conf_credential_set *s = &out[c->n_credential_sets];
        load_set(l, node, sets, s);
        s->index = (unsigned)c->n_credential_sets++;
    }
}

static void complain_unknown(struct conf_loader *l, const struct schema_value *v)
{
    const struct conf_credential_set *nearest = NULL;
    unsigned best = COMPLAIN_FAR;
    for (size_t i = 0; i < l->conf->n_credential_sets; i++) {
        const struct conf_credential_set *s = &l->conf->credential_sets[i];
        unsigned d = complain_distance(v->text, s->name);
        if (d < best) {
            best = d;
            nearest = s;
        }
    }
    if (nearest != NULL)
        complain(l->errors, v->mark,
                 "rules[].credential_set: there is no credential set '%.*s'; did you mean '%.*s' (line %u)?",
                 SHOW(v->text), SHOW(nearest->name), nearest->mark.line);
    else
        complain(l->errors, v->mark,
                 "rules[].credential_set: there is no credential set '%.*s'; describe it in credential_sets",
                 SHOW(v->text));
}

const struct conf_credential_set *credential_in_find(struct conf_loader *l, const struct map *sets,
                                                     const struct conf_rule *r)
{
    const struct schema_value *v = &l->value[KEY_RULE_credential_set];
    if (v->state != VALUE_SET)
        return NULL;
    struct credential_in *in = map_get(sets, v->text);
    if (in == NULL) {
        complain_unknown(l, v);
        return NULL;
    }
    in->used = true;
    const struct conf_credential_set *s = in->set;
    if (s->login_server.p != NULL && !span_eq(s->login_server, r->registry))
        complain(l->errors, v->mark,
                 "rules[].credential_set: '%.*s' (line %u) is for %.*s, but the source of this rule (line "
                 "%u) is at "
                 "%.*s; "
                 "name a set with 'login_server: %.*s'",
                 SHOW(s->name), s->mark.line, SHOW(s->login_server), r->mark.line, SHOW(r->registry),
                 SHOW(r->registry));
    return s;
}
