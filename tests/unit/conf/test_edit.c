/* Edits of files of all shapes.
 *
 * tests/unit/conf/edit/NAME.yaml is a file as an operator may have written it; NAME.diff says what each of the commands below makes of it,
 * byte for byte, or why it is refused. With LARDER_GOLDEN=write in the environment the second is written anew, to be read before it is
 * committed. */
#include "conf_test.h"

#include <dirent.h>

#include "base/arena.h"
#include "conf/diff.h"
#include "conf/edit.h"
#include "conf/yaml_in.h"

#define FOLDER LARDER_SOURCE_DIR "/tests/unit/conf/edit/"

enum { GOLDEN_MAX = 1 << 17, FILES_MIN = 40 };

static struct edit edit_of(enum edit_verb verb, enum edit_list list, const char *name)
{
    return (struct edit){.list = list, .verb = verb, .name = span_str(name)};
}

static const struct command {
    enum edit_verb verb;
    enum edit_list list;
    const char *name;
    struct {
        const char *key, *text; /* no text: the key goes */
    } values[3];
} commands[] = {
    {EDIT_CREATE, EDIT_RULES, "new", {{"source", "docker.io/library/new"}, {"target", "new"}}},
    {EDIT_CREATE, EDIT_RULES, "all", {{"source", "ghcr.io/*"}, {"target", "*"}, {"credential_set", "hub"}}},
    {EDIT_UPDATE, EDIT_RULES, "a", {{"credential_set", "hub2"}}},
    {EDIT_UPDATE, EDIT_RULES, "b", {{"credential_set", NULL}}},
    {EDIT_DELETE, EDIT_RULES, "a", {{0}}},
    {EDIT_DELETE, EDIT_RULES, "b", {{0}}},
    {EDIT_DELETE, EDIT_RULES, "c", {{0}}},
    {EDIT_CREATE,
     EDIT_CREDENTIAL_SETS,
     "quay",
     {{"login_server", "quay.io"}, {"username", "env:QUAY_USER"}, {"password", "file:/run/secrets/quay"}}},
    {EDIT_UPDATE, EDIT_CREDENTIAL_SETS, "hub", {{"username", "env:NEW"}}},
    {EDIT_DELETE, EDIT_CREDENTIAL_SETS, "gh", {{0}}},
};

static struct edit edit_of_command(const struct command *c)
{
    struct edit e = edit_of(c->verb, c->list, c->name);
    for (size_t i = 0; i < ARRAY_LEN(c->values) && c->values[i].key != NULL; i++)
        edit_value(&e, c->values[i].key, span_str(c->values[i].text));
    return e;
}

static void describe(struct str *out, const struct edit *e)
{
    static const char *const verbs[] = {"create", "update", "delete"}, *const lists[] = {"rule", "set"};
    str_addf(out, "== %s %s " SPAN_FMT, lists[e->list], verbs[e->verb], SPAN_ARG(e->name));
    for (size_t i = 0; i < e->n_values; i++) {
        str_addf(out, " %s%s", e->values[i].text.p != NULL ? "" : "without ", e->values[i].key);
        if (e->values[i].text.p != NULL)
            str_addf(out, "=" SPAN_FMT, SPAN_ARG(e->values[i].text));
    }
    str_addc(out, '\n');
}

/* The diff without its two head lines. */
static void add_diff(struct arena *a, struct str *out, struct span before, struct span after)
{
    struct span diff = diff_unified(a, before, after, SPAN("f")), line;
    if (diff.n == 0)
        str_addz(out, "the same\n");
    else if (span_next(&diff, '\n', &line) && span_next(&diff, '\n', &line))
        str_add(out, diff);
}

static void add_refusal(struct str *out)
{
    assert_true(test_errors.n > 0);
    for (size_t i = 0; i < test_errors.n; i++)
        str_addf(out, "refused %u:%u: %s\n", test_list[i].mark.line, test_list[i].mark.column,
                 test_list[i].text);
}

static void run_command(struct str *out, struct span text, const struct command *c)
{
    struct arena *a = arena_new();
    struct edit e = edit_of_command(c), back = edit_of(EDIT_DELETE, c->list, c->name);
    struct span changed, again;
    describe(out, &e);
    if (!edit_apply(a, text, &e, &test_errors, &changed)) {
        add_refusal(out);
    } else {
        add_diff(a, out, text, changed);
        bool restored = c->verb != EDIT_CREATE;
        if (!restored && !edit_apply(a, changed, &back, &test_errors, &again)) {
            str_addz(out, "= and delete\n");
            add_refusal(out);
        } else if (!restored && !span_eq(again, text)) {
            str_addz(out, "= and delete\n");
            add_diff(a, out, text, again);
        }
    }
    arena_free(a);
}

static struct span read_file(const char *path) /* to be freed by mem_free */
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL)
        return SPAN_NONE;
    char *p = mem_alloc(GOLDEN_MAX);
    size_t n = fread(p, 1, GOLDEN_MAX, f);
    assert_true(n < GOLDEN_MAX);
    fclose(f);
    return span_of(p, n);
}

static void write_file(const char *path, struct span text)
{
    FILE *f = fopen(path, "wbe");
    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    assert_int_equal(fclose(f), 0);
}

static void compare_golden(struct span name, struct span want, struct span got)
{
    if (want.p != NULL && span_eq(want, got))
        return;
    struct arena *a = arena_new();
    struct span diff = diff_unified(a, want.p != NULL ? want : SPAN(""), got, name);
    print_error("%.*s", (int)diff.n, diff.p);
    arena_free(a);
    fail();
}

static void run_file(struct span name)
{
    char yaml_path[512], diff_path[512];
    snprintf(yaml_path, sizeof yaml_path, FOLDER "%.*s.yaml", (int)name.n, name.p);
    snprintf(diff_path, sizeof diff_path, FOLDER "%.*s.diff", (int)name.n, name.p);
    struct span text = read_file(yaml_path), want = read_file(diff_path);
    assert_non_null(text.p);
    char *buf = mem_alloc(GOLDEN_MAX);
    struct str got = str_init(buf, GOLDEN_MAX);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        run_command(&got, text, &commands[i]);
    assert_false(got.cut);
    const char *mode = getenv("LARDER_GOLDEN");
    if (mode != NULL && strcmp(mode, "write") == 0)
        write_file(diff_path, str_span(&got));
    else
        compare_golden(name, want, str_span(&got));
    mem_free(buf);
    mem_free((void *)(uintptr_t)text.p);
    mem_free((void *)(uintptr_t)want.p);
}

static void files_of_all_shapes(void **state)
{
    UNUSED(state);
    DIR *folder = opendir(FOLDER);
    assert_non_null(folder);
    size_t files = 0;
    for (struct dirent *d = readdir(folder); d != NULL; d = readdir(folder)) {
        struct span name = span_str(d->d_name);
        if (!span_ends(name, SPAN(".yaml")))
            continue;
        run_file(span_sub(name, 0, name.n - 5));
        files++;
    }
    closedir(folder);
    assert_true(files >= FILES_MIN);
}

static void expect_refusal(const char *text, const struct edit *e, unsigned line, const char *words)
{
    struct arena *a = arena_new();
    struct span out;
    assert_false(edit_apply(a, span_str(text), e, &test_errors, &out));
    assert_int_equal(test_errors.n, 1);
    assert_int_equal(test_list[0].mark.line, line);
    if (strstr(test_list[0].text, words) == NULL)
        fail_msg("'%s' is not in: %s", words, test_list[0].text);
    arena_free(a);
}

static void refusals_say_what_to_do(void **state)
{
    UNUSED(state);
    const char *text = "credential_sets:\n- name: hub\nrules:\n- name: nginx\n  credential_set: hub\n- name: "
                       "twin\n- name: twin\n";
    struct edit e = edit_of(EDIT_DELETE, EDIT_RULES, "ngnix");
    expect_refusal(text, &e, 0, "no rule has the name 'ngnix', did you mean 'nginx'?");
    e = edit_of(EDIT_UPDATE, EDIT_CREDENTIAL_SETS, "quay");
    expect_refusal(text, &e, 0,
                   "no credential set has the name 'quay'; 'larder credential-set list' shows the names");
    e = edit_of(EDIT_CREATE, EDIT_RULES, "nginx");
    expect_refusal(
        text, &e, 4,
        "there is a rule 'nginx' already; choose another name, or change it with 'larder cache update'");
    e = edit_of(EDIT_DELETE, EDIT_RULES, "twin");
    expect_refusal(text, &e, 7, "'twin' is the name of the rule on line 6 already");
    e = edit_of(EDIT_DELETE, EDIT_CREDENTIAL_SETS, "hub");
    expect_refusal(text, &e, 4,
                   "rule 'nginx' uses the credential set 'hub'; change the rule first: larder cache update "
                   "-n nginx --remove-cred-set");
}

/* Values that YAML cannot hold, or that would be read as something else. */
static void strange_values(void **state)
{
    UNUSED(state);
    static const struct {
        struct span value;
        bool ok;
    } cases[] = {
        {SPAN("a: b # c"), true},  {SPAN("\n- x\n"), true},        {SPAN("\0"), true},
        {SPAN("'\"\\"), true},     {SPAN("\xc3\xa9"), true},       {SPAN("\xff"), false},
        {SPAN("\xc2\x85"), false}, {SPAN("a\xe2\x80\xa8z"), true}, {SPAN("\xed\xa0\x80"), false},
        {SPAN(""), true},          {SPAN("null"), true},           {SPAN("{{x}}, [y"), true},
    };
    static const char *const texts[] = {"rules:\n- name: a\n", "rules: [{name: a}]",
                                        "rules: [{'name': 'a'}]"};
    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(texts); i++) {
        struct span value = cases[i / ARRAY_LEN(texts)].value, out;
        struct arena *a = arena_new();
        struct edit e = edit_of(EDIT_UPDATE, EDIT_RULES, "a");
        edit_value(&e, "credential_set", value);
        bool ok = edit_apply(a, span_str(texts[i % ARRAY_LEN(texts)]), &e, &test_errors, &out);
        assert_int_equal(ok, cases[i / ARRAY_LEN(texts)].ok);
        assert_int_equal(test_errors.n, ok ? 0 : 1);
        arena_free(a);
    }
}

/* ---- random files ---- */

/* What a file of random shape holds. A comment of the form "# own.NAME" belongs to the rule of that name, and goes and stays with it; one
 * of the form "# keep" belongs to nobody, and stays. */
struct model {
    uint64_t seed;
    struct {
        char name[16];
        char set[16];  /* empty: none */
        unsigned owns; /* comments */
    } rules[32];
    size_t n, keeps, names;
    unsigned dash; /* spaces before the dash */
    unsigned gap;  /* spaces behind it */
    bool flow, crlf, parted;
};

static unsigned roll(struct model *m, unsigned sides)
{
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(m->seed >> 33) % sides;
}

static void add_line(struct model *m, struct str *out)
{
    str_addz(out, m->crlf ? "\r\n" : "\n");
}

static void add_indent(struct str *out, unsigned n)
{
    while (n-- > 0)
        str_addc(out, ' ');
}

static void add_keep(struct model *m, struct str *out)
{
    str_addz(out, roll(m, 2) ? "# keep" : "#keep \xc3\xa9\xe2\x82\xac");
    m->keeps++;
    add_line(m, out);
}

static void add_own(struct model *m, struct str *out, size_t i)
{
    static const char *const texts[] = {"# ", "#\t- \xc3\xa4: ", "# [{ ", "# '"};
    str_addf(out, "%sown.%s;", texts[roll(m, ARRAY_LEN(texts))], m->rules[i].name);
    m->rules[i].owns++;
}

static void end_line(struct model *m, struct str *out, size_t i)
{
    if (roll(m, 4) == 0) {
        str_addz(out, roll(m, 2) ? " " : " \t");
        add_own(m, out, i);
    }
    add_line(m, out);
}

static void add_word(struct model *m, struct str *out, const char *text)
{
    const char *quote = (const char *const[]){"", "", "'", "\""}[roll(m, 4)];
    str_addf(out, "%s%s%s", quote, text, quote);
}

static void new_name(struct model *m, size_t i)
{
    snprintf(m->rules[i].name, sizeof m->rules[i].name, "r%zu", m->names++);
    m->rules[i].set[0] = '\0';
    m->rules[i].owns = 0;
}

static void add_rule(struct model *m, struct str *out, size_t i)
{
    const char *name = m->rules[i].name;
    unsigned column = m->dash + 1 + m->gap;
    bool set = m->rules[i].set[0] != '\0', flow = roll(m, 5) == 0;
    for (unsigned k = roll(m, 3); k > 0; k--) {
        add_indent(out, m->dash);
        add_own(m, out, i);
        add_line(m, out);
    }
    add_indent(out, m->dash);
    str_addc(out, '-');
    add_indent(out, m->gap);
    if (flow) {
        str_addf(out, "{name: %s, target: %s, %s%s%s source: quay.io/%s}", name, name,
                 set ? "credential_set: " : "", m->rules[i].set, set ? "," : "", name);
        end_line(m, out, i);
    } else {
        bool first = roll(m, 2) == 0;
        if (set && first) {
            str_addf(out, "credential_set: %s", m->rules[i].set);
            add_line(m, out);
            add_indent(out, column);
        }
        str_addz(out, "name: ");
        add_word(m, out, name);
        end_line(m, out, i);
        add_indent(out, column);
        str_addf(out, "source: quay.io/%s", name);
        end_line(m, out, i);
        if (set && !first) {
            add_indent(out, column);
            str_addz(out, "\"credential_set\": ");
            add_word(m, out, m->rules[i].set);
            add_line(m, out);
        }
        add_indent(out, column);
        str_addz(out, "target: ");
        add_word(m, out, name);
        end_line(m, out, i);
    }
    for (unsigned k = roll(m, 5) / 3; k > 0; k--) {
        add_indent(out, column + roll(m, 2));
        add_own(m, out, i);
        add_line(m, out);
    }
}

static void add_block_list(struct model *m, struct str *out)
{
    for (size_t i = 0; i < m->n; i++) {
        if (i > 0 && m->parted)
            add_line(m, out);
        if (roll(m, 6) == 0) {
            add_line(m, out);
            add_indent(out, m->dash);
            add_keep(m, out);
            add_line(m, out);
        }
        add_rule(m, out, i);
    }
}

static void add_flow_list(struct model *m, struct str *out)
{
    bool lines = roll(m, 2), trailing = roll(m, 2);
    str_addz(out, "[");
    for (size_t i = 0; i < m->n; i++) {
        const char *name = m->rules[i].name;
        bool set = m->rules[i].set[0] != '\0';
        if (lines) {
            add_line(m, out);
            add_indent(out, 2);
        }
        str_addf(out, "{name: %s, source: quay.io/%s, target: %s%s%s}", name, name, name,
                 set ? ", credential_set: " : "", m->rules[i].set);
        if (i + 1 < m->n || trailing)
            str_addz(out, ",");
        if (lines && roll(m, 3) == 0) {
            str_addc(out, ' ');
            add_own(m, out, i);
        }
    }
    if (lines)
        add_line(m, out);
    str_addz(out, "]");
    add_line(m, out);
}

static void add_section(struct model *m, struct str *out, const char *key)
{
    if (roll(m, 2))
        add_line(m, out);
    if (roll(m, 2))
        add_keep(m, out);
    str_addf(out, "%s: ", key);
    if (roll(m, 2)) {
        str_addz(out, "{level: info, x: [1, '2']} ");
        add_keep(m, out);
        return;
    }
    add_line(m, out);
    str_addz(out, "  level: info   ");
    add_keep(m, out);
}

static void generate(struct model *m, struct str *out)
{
    m->n = roll(m, 6);
    m->dash = (const unsigned[]){0, 2, 2, 4}[roll(m, 4)];
    m->gap = 1 + roll(m, 5) / 4 * 2;
    m->flow = roll(m, 4) == 0;
    m->crlf = roll(m, 3) == 0;
    m->parted = roll(m, 3) == 0;
    for (size_t i = 0; i < m->n; i++) {
        new_name(m, i);
        if (roll(m, 2))
            snprintf(m->rules[i].set, sizeof m->rules[i].set, "s%u", roll(m, 9));
    }
    if (roll(m, 5) == 0)
        str_addz(out, "\xEF\xBB\xBF");
    if (roll(m, 2))
        add_keep(m, out);
    if (roll(m, 2))
        add_section(m, out, "log");
    if (roll(m, 3) == 0)
        add_line(m, out);
    bool list = m->n > 0 || roll(m, 3) > 0;
    if (list)
        str_addz(out, roll(m, 4) ? "rules: " : "\"rules\": ");
    if (list && m->n == 0) {
        str_addz(out, (const char *const[]){"", "[]", "~", "null", "[ ]", "{}"}[roll(m, 6)]);
        add_line(m, out);
    } else if (list && m->flow) {
        add_flow_list(m, out);
    } else if (list) {
        if (roll(m, 3) == 0)
            add_keep(m, out);
        else
            add_line(m, out);
        add_block_list(m, out);
    }
    if (roll(m, 3) == 0) {
        add_line(m, out);
        add_keep(m, out);
    }
    if (roll(m, 2)) {
        if (roll(m, 2))
            add_line(m, out);
        add_section(m, out, "other");
    }
    if (roll(m, 4) == 0)
        while (out->n > 0 && strchr("\r\n", out->p[out->n - 1]) != NULL)
            out->p[--out->n] = '\0';
}

static size_t count(struct span text, const char *what)
{
    size_t n = 0, len = strlen(what);
    for (size_t i = 0; i + len <= text.n; i++)
        n += memcmp(text.p + i, what, len) == 0;
    return n;
}

static const struct conf_node *find_key(const struct conf_node *map, const char *key)
{
    for (const struct conf_node *k = map != NULL ? map->first : NULL; k != NULL; k = k->next)
        if (span_eq(k->text, span_str(key)))
            return k->value;
    return NULL;
}

static bool is_text(const struct conf_node *n, const char *text)
{
    return n != NULL && n->kind == NODE_SCALAR && span_eq(n->text, span_str(text));
}

static bool agrees(const struct model *m, struct span text)
{
    struct arena *a = arena_new();
    struct conf_node *root;
    bool ok = yaml_in_read(a, text, &test_errors, &root) && test_errors.n == 0;
    const struct conf_node *list = ok ? find_key(root, "rules") : NULL,
                           *item = list != NULL ? list->first : NULL;
    for (size_t i = 0; ok && i < m->n; i++, item = item->next) {
        char own[32];
        snprintf(own, sizeof own, "own.%s;", m->rules[i].name);
        const struct conf_node *set = find_key(item, "credential_set");
        ok = item != NULL && is_text(find_key(item, "name"), m->rules[i].name) &&
             is_text(find_key(item, "target"), m->rules[i].name) && count(text, own) == m->rules[i].owns &&
             (m->rules[i].set[0] != '\0' ? is_text(set, m->rules[i].set) : set == NULL);
        if (item == NULL)
            break;
    }
    size_t owns = 0;
    for (size_t i = 0; i < m->n; i++)
        owns += m->rules[i].owns;
    ok = ok && item == NULL && count(text, "keep") == m->keeps && count(text, "own.") == owns;
    arena_free(a);
    return ok;
}

/* One random change of the model, and the same as an edit. */
static struct edit change(struct model *m)
{
    size_t i = m->n > 0 ? roll(m, (unsigned)m->n) : 0;
    unsigned what = m->n == 0 ? 0 : roll(m, 5);
    if (what <= 1 && m->n < ARRAY_LEN(m->rules)) {
        i = m->n++;
        new_name(m, i);
        struct edit e = edit_of(EDIT_CREATE, EDIT_RULES, m->rules[i].name);
        edit_value(&e, "source", SPAN("quay.io/x"));
        edit_value(&e, "target", span_str(m->rules[i].name));
        edit_value(&e, "credential_set", SPAN_NONE);
        return e;
    }
    if (what == 2) {
        snprintf(m->rules[i].set, sizeof m->rules[i].set, "t%u", roll(m, 99));
        struct edit e = edit_of(EDIT_UPDATE, EDIT_RULES, m->rules[i].name);
        edit_value(&e, "credential_set", span_str(m->rules[i].set));
        return e;
    }
    if (what == 3) {
        m->rules[i].set[0] = '\0';
        struct edit e = edit_of(EDIT_UPDATE, EDIT_RULES, m->rules[i].name);
        edit_value(&e, "credential_set", SPAN_NONE);
        return e;
    }
    static char gone[16];
    memcpy(gone, m->rules[i].name, sizeof gone);
    m->n--;
    memmove(&m->rules[i], &m->rules[i + 1], (m->n - i) * sizeof m->rules[0]);
    return edit_of(EDIT_DELETE, EDIT_RULES, gone);
}

static void show_failure(const struct edit *e, struct span before, struct span after)
{
    char buf[256];
    struct str s = STR_INIT(buf);
    describe(&s, e);
    print_error("%s%.*s=>\n%.*s", buf, (int)before.n, before.p, (int)after.n, after.p);
    if (test_errors.n > 0)
        print_error("%u:%u: %s\n", test_list[0].mark.line, test_list[0].mark.column, test_list[0].text);
    fail();
}

static void random_edits_of_random_files(void **state)
{
    UNUSED(state);
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct arena *a = arena_new();
        struct model m = {.seed = seed};
        size_t cap = 16384;
        struct str out = str_init(arena_alloc(a, cap), cap);
        generate(&m, &out);
        assert_false(out.cut);
        struct span text = str_span(&out), next, back;
        if (!agrees(&m, text))
            show_failure(&(struct edit){.name = SPAN("nothing")}, text, text);
        for (unsigned k = 0; k < 8; k++) {
            size_t before = m.n;
            struct edit e = change(&m), undo = edit_of(EDIT_DELETE, EDIT_RULES, "");
            if (!edit_apply(a, text, &e, &test_errors, &next) || !agrees(&m, next))
                show_failure(&e, text, next);
            undo.name = e.name;
            if (e.verb == EDIT_CREATE && before > 0 &&
                (!edit_apply(a, next, &undo, &test_errors, &back) || !span_eq(back, text)))
                show_failure(&undo, next, back);
            text = next;
        }
        arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_all_shapes),
        cmocka_unit_test(refusals_say_what_to_do),
        cmocka_unit_test(strange_values),
        cmocka_unit_test(random_edits_of_random_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
