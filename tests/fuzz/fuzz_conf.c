/* Any text as a configuration file: it is refused with complaints inside the file, or the snapshot holds what
 * conf/conf.h promises, and names that are derived from its rules are found again. */
#include <arpa/inet.h>

#include "base/check.h"
#include "conf/conf.h"
#include "registry/name.h"

enum { ERRORS = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_list(struct span text, const struct conf_error *list, size_t n)
{
    unsigned lines = 2;
    for (size_t i = 0; i < text.n; i++)
        lines += text.p[i] == '\n' || text.p[i] == '\r' || (unsigned char)text.p[i] >= 0x80; /* NEL, LS, PS */
    for (size_t i = 0; i < n; i++) {
        const struct conf_error *e = &list[i];
        MUST(e->text[0] != '\0' && e->mark.line <= lines);
        MUST(i == 0 || e[-1].mark.line <= e->mark.line);
        char buf[1024];
        struct str s = STR_INIT(buf);
        conf_error_text(e, SPAN("f"), &s);
        MUST(!s.cut);
    }
}

static void check_rule(const struct conf *c, const struct conf_rule *r)
{
    char repo[2 * NAME_REPO_MAX], up[NAME_REPO_MAX + 1];
    struct str name = STR_INIT(repo), out = STR_INIT(up);
    str_add(&name, r->target_prefix);
    if (r->wildcard)
        str_addz(&name, "x/y");
    MUST(r->upstream != NULL && r->upstream->n_endpoints > 0 && name_registry_ok(r->registry));
    const struct conf_rule *found = conf_match_target(c, str_span(&name), &out);
    if (found == NULL) {
        MUST(r->wildcard && name.n + r->source_prefix.n > NAME_REPO_MAX);
        return;
    }
    MUST(r->credential_set == NULL || span_eq(r->credential_set->login_server, r->registry));
    MUST(found == r || (r->wildcard && !found->wildcard));
    MUST(name_repo_ok(str_span(&out)));
    char again[NAME_REPO_MAX + 1];
    struct str same = STR_INIT(again);
    const struct conf_rule *source = conf_match_source(c, found->registry, str_span(&out), &same);
    MUST(source != NULL && span_eq(str_span(&out), str_span(&same)));
}

static void check_set(const struct conf *c, size_t i)
{
    const struct conf_credential_set *s = &c->credential_sets[i];
    bool with_user = s->password.kind == SECRET_DOCKERCONFIG || s->password.kind == SECRET_EXEC;
    MUST(s->index == i && s->name.n > 0 && name_registry_ok(s->login_server));
    MUST(s->password.kind != SECRET_NONE && s->password.kind != SECRET_TEXT && s->password.arg.n > 0);
    MUST(s->username.kind == SECRET_NONE ? with_user : s->username.arg.n > 0);
    MUST(s->username.kind != SECRET_DOCKERCONFIG && s->username.kind != SECRET_EXEC);
}

static void check_address(const struct conf_resolve *r)
{
    unsigned char raw[16];
    MUST(name_registry_ok(r->host) && span_find(r->host, ':') < 0);
    MUST(inet_pton(AF_INET, r->address.p, raw) == 1 || inet_pton(AF_INET6, r->address.p, raw) == 1);
}

static void check_upstream(const struct conf_upstream *u)
{
    MUST(u->n_endpoints > 0 && u->known == known_find(u->registry));
    MUST((u->identity.certificate.path.p == NULL) == (u->identity.key.path.p == NULL));
    for (size_t i = 0; i < u->n_token_realms; i++)
        MUST(u->token_realms[i].host.n > 0 && u->token_realms[i].port > 0 &&
             u->token_realms[i].prefix.n == 0);
    for (size_t i = 0; i < u->n_redirect_hosts; i++)
        MUST(u->redirect_hosts[i].n > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_error list[ERRORS], warnings[ERRORS];
    struct conf_errors errors = {.list = list, .cap = ERRORS, .warnings = warnings, .cap_warnings = ERRORS};
    struct span text = span_of((const char *)data, size);
    struct conf *c = conf_load(text, SPAN("fuzz.yaml"), &errors);
    check_list(text, list, errors.n);
    check_list(text, warnings, errors.n_warnings);
    MUST((c == NULL) == (errors.n > 0) && (errors.n == 0 || errors.n_warnings == 0));
    struct conf *admin = conf_load_admin(text, SPAN("fuzz.yaml"));
    MUST(c == NULL || (admin != NULL && span_eq(admin->admin.address, c->admin.address)));
    conf_unref(admin);
    if (c == NULL)
        return 0;
    MUST(c->n_listen > 0 && c->store_path.n > 0);
    for (size_t i = 0; i < c->n_upstreams; i++)
        check_upstream(&c->upstreams[i]);
    for (size_t i = 0; i < c->n_credential_sets; i++)
        check_set(c, i);
    for (size_t i = 0; i < c->n_resolve; i++)
        check_address(&c->resolve[i]);
    for (size_t i = 0; i < c->n_rules; i++)
        check_rule(c, &c->rules[i]);
    char up[NAME_REPO_MAX + 1];
    struct str out = STR_INIT(up);
    (void)conf_match_target(c, text, &out);
    (void)conf_match_source(c, text, text, &out);
    conf_unref(c);
    return 0;
}
