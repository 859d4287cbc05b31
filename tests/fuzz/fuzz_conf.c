/* Any text as a configuration file: it is refused with complaints inside the file, or the snapshot holds what
 * conf/conf.h promises, and names that are derived from its rules are found again. */
#include "base/check.h"
#include "conf/conf.h"
#include "registry/name.h"

enum { ERRORS = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_complaints(struct span text, const struct conf_errors *errors)
{
    unsigned lines = 2;
    for (size_t i = 0; i < text.n; i++)
        lines += text.p[i] == '\n' || text.p[i] == '\r' || (unsigned char)text.p[i] >= 0x80; /* NEL, LS, PS */
    MUST(errors->n > 0);
    for (size_t i = 0; i < errors->n; i++) {
        const struct conf_error *e = &errors->list[i];
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
    MUST(found == r || (r->wildcard && !found->wildcard));
    MUST(name_repo_ok(str_span(&out)));
    char again[NAME_REPO_MAX + 1];
    struct str same = STR_INIT(again);
    const struct conf_rule *source = conf_match_source(c, found->registry, str_span(&out), &same);
    MUST(source != NULL && span_eq(str_span(&out), str_span(&same)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_error list[ERRORS];
    struct conf_errors errors = {.list = list, .cap = ERRORS};
    struct span text = span_of((const char *)data, size);
    struct conf *c = conf_load(text, SPAN("fuzz.yaml"), &errors);
    if (c == NULL) {
        check_complaints(text, &errors);
        return 0;
    }
    MUST(errors.n == 0 && c->n_listen > 0 && c->store_path.n > 0);
    for (size_t i = 0; i < c->n_rules; i++)
        check_rule(c, &c->rules[i]);
    char up[NAME_REPO_MAX + 1];
    struct str out = STR_INIT(up);
    (void)conf_match_target(c, text, &out);
    (void)conf_match_source(c, text, text, &out);
    conf_unref(c);
    return 0;
}
