/* What the text itself can have wrong, before any key is looked at. */
#include "conf_test.h"

#include "base/arena.h"
#include "conf/yaml_in.h"

static void tree_has_kinds_and_marks(void **state)
{
    UNUSED(state);
    struct arena *a = arena_new();
    struct conf_node *root;
    const char *text = "# \xc3\xa9\xe2\x82\xac\n"
                       "caf\xc3\xa9: [1, \"2\", ~]\n"
                       "b:\n"
                       "  - x: |\n"
                       "      y\n"
                       "  - \n"
                       "'c': null\n"
                       "d: 'null'\n";
    assert_true(yaml_in_read(a, span_str(text), &test_errors, &root));
    assert_int_equal(root->kind, NODE_MAP);
    assert_int_equal(root->n, 4);

    const struct conf_node *cafe = root->first, *b = cafe->next, *c = b->next, *d = c->next;
    assert_null(d->next);
    assert_string_equal(cafe->text.p, "caf\xc3\xa9");
    assert_int_equal(cafe->mark.line, 2);
    assert_int_equal(cafe->value->kind, NODE_LIST);
    assert_int_equal(cafe->value->mark.column, 7);
    assert_int_equal(cafe->value->n, 3);
    const struct conf_node *one = cafe->value->first;
    assert_false(one->quoted);
    assert_int_equal(one->mark.column, 8);
    assert_true(one->next->quoted);
    assert_string_equal(one->next->text.p, "2");
    assert_int_equal(one->next->next->kind, NODE_NULL);

    assert_int_equal(b->value->mark.line, 4);
    assert_int_equal(b->value->mark.column, 3);
    assert_int_equal(b->value->first->mark.column, 5);
    assert_string_equal(b->value->first->first->value->text.p, "y\n");
    assert_true(b->value->first->first->value->quoted);
    assert_int_equal(b->value->first->next->kind, NODE_NULL);
    assert_int_equal(c->value->kind, NODE_NULL);
    assert_int_equal(d->value->kind, NODE_SCALAR);
    arena_free(a);
}

/* Each node as START-END, a list or map with what is in it. */
static void add_places(struct str *out, const struct conf_node *n)
{
    str_addf(out, "%zu-%zu", n->start, n->end);
    if (n->kind == NODE_LIST || n->kind == NODE_MAP)
        str_addc(out, n->flow ? '{' : '(');
    for (const struct conf_node *child = n->first; child != NULL; child = child->next) {
        str_addz(out, child == n->first ? "" : " ");
        add_places(out, child);
        if (n->kind == NODE_MAP) {
            str_addc(out, ':');
            add_places(out, child->value);
        }
    }
    if (n->kind == NODE_LIST || n->kind == NODE_MAP)
        str_addc(out, n->flow ? '}' : ')');
}

static void nodes_know_their_bytes(void **state)
{
    UNUSED(state);
    static const struct {
        const char *text, *places;
    } cases[] = {
        {"a: b\n", "0-4(0-1:3-4)"},
        {"\xEF\xBB\xBF"
         "a: b\n",
         "3-7(3-4:6-7)"},
        {"# \xc3\xa9\xe2\x82\xac\r\na: \"\xf0\x9f\x98\x80\" # x\r\nb: c", "9-28(9-10:12-18 24-25:27-28)"},
        {"a:\n- b\n\n- c\n# d\n", "0-11(0-1:3-11(5-6 10-11))"},
        {"a:\nb: \nc: ~\n", "0-11(0-1:2-2 3-4:5-5 7-8:10-11)"},
        {"a: [b, {c: d} ] # e\n", "0-15(0-1:3-15{4-5 7-13{8-9:11-12}})"},
        {"a: |\n  b\n  # c\n\n# d\ne: f\n", "0-24(0-1:3-14 20-21:23-24)"},
        {"- - a\n  - b: c\n    d: 'e'\n", "0-25(2-25(4-5 10-25(10-11:13-14 19-20:22-25)))"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena *a = arena_new();
        struct conf_node *root;
        char buf[256];
        struct str got = STR_INIT(buf);
        assert_true(yaml_in_read(a, span_str(cases[i].text), &test_errors, &root));
        add_places(&got, root);
        assert_string_equal(buf, cases[i].places);
        arena_free(a);
    }
}

static void nothing_is_no_tree(void **state)
{
    UNUSED(state);
    static const char *const texts[] = {"", "\n\n", "# only a comment", "\xEF\xBB\xBF"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct arena *a = arena_new();
        struct conf_node *root;
        assert_true(yaml_in_read(a, span_str(texts[i]), &test_errors, &root));
        assert_null(root);
        arena_free(a);
    }
}

static void syntax(void **state)
{
    UNUSED(state);
    EXPECT("workers: [1", "2:1: not valid YAML: did not find expected ',' or ']'");
    EXPECT("store:\n  path: /a\n path: /b\n",
           "3:2: not valid YAML: did not find expected key, while parsing a block mapping "
           "that begins on line 1; check indentation and colons");
    EXPECT("store:\n\tpath: /a\n", "2:1: not valid YAML: this line is indented with a tab; use spaces");
    EXPECT("# \xc3\xa9\nrules:\n  - target: *\n", "3:14: a value that begins with '*' needs quotes");
    EXPECT("admin:\n  address: [::]:5001\n", "2:13: a value with '[', '*' or ': ' needs quotes");
    EXPECT("log: 'info\n",
           "2:1: found unexpected end of stream, while scanning a quoted scalar that begins on line 1");
    EXPECT("%YAML 3.0\n---\n", "1:1: not valid YAML: found incompatible YAML document");
}

static void encodings(void **state)
{
    UNUSED(state);
    EXPECT("a: \xc3\xa9\nb: \xc3\xa9\xff",
           "2:5: not readable as UTF-8 text: invalid leading UTF-8 octet (byte 0xFF)");
    expect_span(SPAN("a: \0"),
                (const char *const[]){"1:4: control characters are not allowed (byte 0x00)", NULL});
    expect_span(SPAN("\xFF\xFE"
                     "a\0"),
                (const char *const[]){"0:0: the file is UTF-16; save it as UTF-8", NULL});
    expect_span(SPAN("\xFE\xFF\0a"),
                (const char *const[]){"0:0: the file is UTF-16; save it as UTF-8", NULL});
    EXPECT("\xEF\xBB\xBFtag_ttl: 5", "1:1: unknown key 'tag_ttl'");
}

static void what_is_refused(void **state)
{
    UNUSED(state);
    EXPECT("store: &s {path: a}\n", "1:8: anchors (&...) are not used here");
    EXPECT("store: {path: &s a}\n", "1:15: anchors (&...) are not used here");
    EXPECT("rules: &r []\n", "1:8: anchors (&...) are not used here");
    EXPECT("store:\n  path: *s\nworkers: 0\n", "2:9: aliases (*...) are not used here",
           "3:10: '0' is outside the limits");
    EXPECT("store: *s\nrules: *r\nlisten:\n- *l\n", "1:8: aliases (*...)", "2:8: aliases (*...)",
           "4:3: aliases (*...)");
    EXPECT("store: {path: !!str a}\n", "1:15: tags (!...) are not used here");
    EXPECT("store: !x {path: a}\n", "1:8: tags (!...) are not used here");
    EXPECT("rules: !x []\n", "1:8: tags (!...) are not used here");
    EXPECT("---\nworkers: 1\n---\nworkers: 2\n", "3:1: a second document begins here");
    EXPECT("? [a, b]\n: c\n", "1:3: a key must be one word");
    EXPECT("? {a: b}\n: c\n", "1:3: a key must be one word");
    EXPECT("*a : c\n", "1:1: aliases (*...)", "1:1: a key must be one word");
}

static void duplicate_keys(void **state)
{
    UNUSED(state);
    EXPECT("workers: 1\nstore:\n  path: /a\nworkers: x\n",
           "4:1: key 'workers' was already given on line 1; remove one");
    EXPECT("# \xc3\xa9\nstore: {path: /a, \"path\": /b, path: /c}\n",
           "2:19: key 'path' was already given on line 2", "2:31: key 'path' was already given on line 2");
    EXPECT("x: 1\nx: 2\n", "1:1: unknown key 'x'", "2:1: key 'x' was already given on line 1");
}

static void depth_is_bounded(void **state)
{
    UNUSED(state);
    char buf[256];
    struct str s = STR_INIT(buf);
    str_addz(&s, "workers: ");
    for (int i = 0; i < YAML_IN_DEPTH_MAX - 1; i++)
        str_addc(&s, '[');
    size_t deepest = s.n;
    for (int i = 0; i < YAML_IN_DEPTH_MAX - 1; i++)
        str_addc(&s, ']');
    EXPECT(buf, "1:10: workers: must be a single value, not a list");
    memmove(buf + deepest + 2, buf + deepest, s.n - deepest + 1);
    memcpy(buf + deepest, "[]", 2);
    EXPECT(buf, "1:41: lists and mappings are nested more than 32 deep");
}

static void size_and_nodes_are_bounded(void **state)
{
    UNUSED(state);
    char *big = mem_alloc(YAML_IN_SIZE_MAX + 2);
    memset(big, '#', YAML_IN_SIZE_MAX + 2);
    struct conf *c = load(span_of(big, YAML_IN_SIZE_MAX));
    assert_non_null(c);
    conf_unref(c);
    expect_span(
        span_of(big, YAML_IN_SIZE_MAX + 1),
        (const char *const[]){"0:0: the file has 16777217 bytes, more than the limit of 16 MiB", NULL});

    struct str s = str_init(big, YAML_IN_SIZE_MAX);
    str_addz(&s, "[\n");
    for (size_t i = 0; i < YAML_IN_NODES_MAX; i++)
        str_addz(&s, "1,\n");
    str_addz(&s, "]\n");
    expect_span(str_span(&s), (const char *const[]){"1000001:1: more than 1000000 values", NULL});
    mem_free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_has_kinds_and_marks),
        cmocka_unit_test(nodes_know_their_bytes),
        cmocka_unit_test(nothing_is_no_tree),
        cmocka_unit_test(syntax),
        cmocka_unit_test(encodings),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(duplicate_keys),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(size_and_nodes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
