/* larder cache and larder credential-set: rules and credential sets, printed and changed. */
#include <stdio.h>

#include "base/mem.h"
#include "cli/command_int.h"
#include "cli/config_edit.h"
#include "cli/config_file.h"
#include "cli/live.h"
#include "cli/output_int.h"

enum { RULE_KEYS = 4, SET_KEYS = 6 };

static const char *const rule_keys[RULE_KEYS] = {"name", "source", "target", "credential_set"};
static const char *const set_keys[SET_KEYS] = {"name",     "login_server", "username",
                                               "password", "health",       "health_reason"};

static void rule_values(const struct conf_rule *r, struct output_value *out)
{
    out[0].text = r->name;
    out[1].text = r->source;
    out[2].text = r->target;
    if (r->credential_set != NULL)
        out[3].text = r->credential_set->name;
}

/* `live`: what a running server says of the sets; NULL: there is none, and health is not known. */
static void set_values(const struct conf_credential_set *s, json_t *live, struct output_value *out)
{
    out[0].text = s->name;
    out[1].text = s->login_server;
    if (s->username.kind != SECRET_NONE)
        out[2].text = s->username.text;
    out[3].text = s->password.text; /* a reference, never a secret */
    json_t *set = live_named(json_object_get(live, "credential_sets"), "name", s->name);
    if (set == NULL)
        return;
    out[4].text = json_is_true(json_object_get(set, "healthy")) ? SPAN("healthy") : SPAN("unhealthy");
    out[5].text = span_str(json_string_value(json_object_get(set, "why")));
}

static const struct conf_rule *find_rule(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->n_rules; i++)
        if (span_eq(c->rules[i].name, span_str(name)))
            return &c->rules[i];
    return NULL;
}

static const struct conf_credential_set *find_set(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->n_credential_sets; i++)
        if (span_eq(c->credential_sets[i].name, span_str(name)))
            return &c->credential_sets[i];
    return NULL;
}

static struct conf *read_config(const struct command_args *args)
{
    struct config_warnings warnings;
    return config_read(config_path(args->option[OPT_CONFIG]), &warnings);
}

static int not_there(const struct command_args *args, const char *what, const char *command)
{
    fprintf(stderr, "%s: no %s has the name '%s'; 'larder %s list' shows the names\n",
            config_path(args->option[OPT_CONFIG]), what, args->option[OPT_NAME], command);
    return 1;
}

static int print_rule(const struct command_args *args, const struct conf *c)
{
    const struct conf_rule *r = find_rule(c, args->option[OPT_NAME]);
    if (r == NULL)
        return not_there(args, "rule", "cache");
    struct output_value values[RULE_KEYS] = {0};
    rule_values(r, values);
    output_rows(args->option[OPT_OUTPUT], rule_keys, RULE_KEYS, values, 1, true);
    return 0;
}

static int print_set(const struct command_args *args, const struct conf *c)
{
    const struct conf_credential_set *s = find_set(c, args->option[OPT_NAME]);
    if (s == NULL)
        return not_there(args, "credential set", "credential-set");
    struct output_value values[SET_KEYS] = {0};
    json_t *live = live_get(c, "credential-sets", SPAN(""));
    set_values(s, live, values);
    output_rows(args->option[OPT_OUTPUT], set_keys, SET_KEYS, values, 1, true);
    json_decref(live);
    return 0;
}

int run_cache_show(const struct command_args *args)
{
    struct conf *c = read_config(args);
    int code = c != NULL ? print_rule(args, c) : 1;
    conf_unref(c);
    return code;
}

int run_set_show(const struct command_args *args)
{
    struct conf *c = read_config(args);
    int code = c != NULL ? print_set(args, c) : 1;
    conf_unref(c);
    return code;
}

int run_cache_list(const struct command_args *args)
{
    struct conf *c = read_config(args);
    if (c == NULL)
        return 1;
    struct output_value *values = mem_zalloc((c->n_rules + 1) * RULE_KEYS * sizeof *values);
    for (size_t i = 0; i < c->n_rules; i++)
        rule_values(&c->rules[i], &values[i * RULE_KEYS]);
    output_rows(args->option[OPT_OUTPUT], rule_keys, RULE_KEYS, values, c->n_rules, false);
    mem_free(values);
    conf_unref(c);
    return 0;
}

int run_set_list(const struct command_args *args)
{
    struct conf *c = read_config(args);
    if (c == NULL)
        return 1;
    struct output_value *values = mem_zalloc((c->n_credential_sets + 1) * SET_KEYS * sizeof *values);
    json_t *live = c->n_credential_sets > 0 ? live_get(c, "credential-sets", SPAN("")) : NULL;
    for (size_t i = 0; i < c->n_credential_sets; i++)
        set_values(&c->credential_sets[i], live, &values[i * SET_KEYS]);
    output_rows(args->option[OPT_OUTPUT], set_keys, SET_KEYS, values, c->n_credential_sets, false);
    json_decref(live);
    mem_free(values);
    conf_unref(c);
    return 0;
}

/* ---- changes ---- */

static struct edit change_of(const struct command_args *args, enum edit_list list, enum edit_verb verb)
{
    return (struct edit){.list = list, .verb = verb, .name = span_str(args->option[OPT_NAME])};
}

static void change_value(struct edit *e, const struct command_args *args, const char *key,
                         enum command_option o)
{
    if (args->option[o] != NULL)
        edit_value(e, key, span_str(args->option[o]));
}

/* Makes the change; prints the entry as it is then, or what --dry-run prints. */
static int make(const struct command_args *args, const struct edit *e,
                int (*print)(const struct command_args *, const struct conf *))
{
    bool dry_run = args->option[OPT_DRY_RUN] != NULL;
    struct conf *c = config_edit(config_path(args->option[OPT_CONFIG]), e, dry_run);
    if (c == NULL)
        return 1;
    int code = dry_run || print == NULL ? 0 : print(args, c);
    conf_unref(c);
    return code;
}

int run_cache_create(const struct command_args *args)
{
    struct edit e = change_of(args, EDIT_RULES, EDIT_CREATE);
    change_value(&e, args, "source", OPT_SOURCE);
    change_value(&e, args, "target", OPT_TARGET);
    change_value(&e, args, "credential_set", OPT_CREDENTIAL_SET);
    return make(args, &e, print_rule);
}

int run_cache_update(const struct command_args *args)
{
    struct edit e = change_of(args, EDIT_RULES, EDIT_UPDATE);
    edit_value(&e, "credential_set",
               span_str(args->option[OPT_CREDENTIAL_SET])); /* absent: --remove-cred-set */
    return make(args, &e, print_rule);
}

int run_cache_delete(const struct command_args *args)
{
    struct edit e = change_of(args, EDIT_RULES, EDIT_DELETE);
    return make(args, &e, NULL);
}

int run_set_create(const struct command_args *args)
{
    struct edit e = change_of(args, EDIT_CREDENTIAL_SETS, EDIT_CREATE);
    change_value(&e, args, "login_server", OPT_LOGIN_SERVER);
    change_value(&e, args, "username", OPT_USERNAME);
    change_value(&e, args, "password", OPT_PASSWORD);
    return make(args, &e, print_set);
}

int run_set_update(const struct command_args *args)
{
    struct edit e = change_of(args, EDIT_CREDENTIAL_SETS, EDIT_UPDATE);
    change_value(&e, args, "username", OPT_USERNAME);
    change_value(&e, args, "password", OPT_PASSWORD);
    return make(args, &e, print_set);
}

int run_set_delete(const struct command_args *args)
{
    struct edit e = change_of(args, EDIT_CREDENTIAL_SETS, EDIT_DELETE);
    return make(args, &e, NULL);
}
