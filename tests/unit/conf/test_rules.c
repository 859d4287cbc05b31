/* Rules: their grammar, what two of them may not have in common, and which one is found. */
#include "conf_test.h"

#include "registry/name.h"

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void expect_rule(const char *source, const char *target, const char *want)
{
    char text[2048];
    struct str t = STR_INIT(text);
    str_addf(&t, "# \xe2\x82\xac\nrules:\n  - {name: r, source: '%s',\n     target: '%s'}\n", source, target);
    EXPECT(text, want);
}

/* What a complaint says to write, "write 'KEY: VALUE'", is taken when it is written. */
static void expect_hint_taken(const char *complaint, const char *key)
{
    char begin[32], text[2048];
    struct str b = STR_INIT(begin), t = STR_INIT(text);
    str_addf(&b, "write '%s: ", key);
    const char *hint = strstr(complaint, begin);
    if (hint == NULL)
        return;
    struct span value = span_str(hint + b.n);
    value.n = (size_t)span_find(value, '\'');
    const char *star = span_find(value, '*') >= 0 ? "x/*" : "x";
    bool source = strcmp(key, "source") == 0;
    str_addf(&t, "rules: [{name: r, %s: '" SPAN_FMT "', %s: '%s%s'}]\n", key, SPAN_ARG(value),
             source ? "target" : "source", source ? "" : "a.io/", star);
    conf_unref(load_good(text));
}

static void wrong_sources(void **state)
{
    UNUSED(state);
    static const struct {
        const char *source, *why;
    } wrong[] = {
        {"https://docker.io/library/nginx",
         "begins with a scheme, which belongs in upstreams[].endpoints; write "
         "'source: docker.io/library/nginx'"},
        {"https://docker.io",
         "begins with a scheme, which belongs in upstreams[].endpoints; write 'source: docker.io/*'"},
        {"docker.io/nginx@sha256:ab",
         "ends in a digest, but a rule is for a repository with all its digests; write "
         "'source: docker.io/nginx'"},
        {"nginx@sha256:ab", "ends in a digest, but a rule is for a repository with all its digests; write "
                            "'source: docker.io/library/nginx'"},
        {"docker.io/nginx:latest@sha256:ab",
         "ends in a digest, but a rule is for a repository with all its digests; "
         "write 'source: docker.io/nginx'"},
        {"docker.io/nginx:1.27",
         "ends in a tag, but a rule is for a repository with all its tags; write 'source: "
         "docker.io/nginx'"},
        {"localhost:5000/a/b:c",
         "ends in a tag, but a rule is for a repository with all its tags; write 'source: "
         "localhost:5000/a/b'"},
        {"quay.io/*:latest",
         "ends in a tag, but a rule is for a repository with all its tags; write 'source: quay.io/*'"},
        {"nginx:1.27", "ends in a tag, but a rule is for a repository with all its tags; write 'source: "
                       "docker.io/library/nginx'"},
        {"nginx", "does not begin with a registry's host name; write 'source: docker.io/library/nginx'"},
        {"grafana/grafana",
         "does not begin with a registry's host name; write 'source: docker.io/grafana/grafana'"},
        {"grafana/*", "does not begin with a registry's host name; write 'source: docker.io/grafana/*'"},
        {"*", "does not begin with a registry's host name; write 'source: docker.io/*'"},
        {"/library/nginx", "does not begin with a registry's host name"},
        {"docker.io", "names a registry and no repository; write 'source: docker.io/*'"},
        {"docker.io/", "names a registry and no repository; write 'source: docker.io/*'"},
        {"localhost:5000", "names a registry and no repository; write 'source: localhost:5000/*'"},
        {"localhost", "names a registry and no repository; write 'source: localhost/*'"},
        {"docker.io*", "names a registry and no repository; write 'source: docker.io/*'"},
        {"*/library", "does not begin with a registry's host name; write registry/repository"},
        {"a*/b", "does not begin with a registry's host name; write registry/repository"},
        {"Nginx", "does not begin with a registry's host name; write registry/repository"},
        {"docker.io/a*:b",
         "ends in a tag, but a rule is for a repository with all its tags; write registry/r"},
        {"docker_.io/a:b",
         "ends in a tag, but a rule is for a repository with all its tags; write registry/r"},
        {"seventy/" X64 X64,
         "does not begin with a registry's host name; write registry/repository, or registry/path/* for"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        char want[512];
        struct str w = STR_INIT(want);
        str_addf(&w, "3:23: rules[].source: '%.80s' %s", wrong[i].source, wrong[i].why);
        expect_rule(wrong[i].source, "t", want);
        expect_hint_taken(want, "source");
    }
    expect_rule("docker_.io/a", "t", "3:23: rules[].source: 'docker_.io' is no registry; write a host name");
    expect_rule("docker.io:0/a", "t", "3:23: rules[].source: 'docker.io:0' is no registry");
    expect_rule("docker.io:99999/a", "t", "3:23: rules[].source: 'docker.io:99999' is no registry");
}

static void a_password_is_not_repeated(void **state)
{
    UNUSED(state);
    expect_rule("https://me:secret@a.io/b", "t",
                "3:23: rules[].source: this holds a user name or '@'; write registry/repository only");
    assert_null(strstr(test_list[0].text, "secret"));
    expect_rule("me:secret@a.io/b", "t", "3:23: rules[].source: this holds a user name");
    expect_rule("https://me:secret@a.io", "t", "3:23: rules[].source: this holds a user name");
    expect_rule("me:sec/ret@a.io", "t", "3:23: rules[].source: this holds a user name");
}

static void wrong_paths(void **state)
{
    UNUSED(state);
    expect_rule("a.io/b", "Team/App",
                "4:14: rules[].target: 'Team/App' has upper-case letters; repositories are lower "
                "case: 'team/app'");
    expect_rule("a.io/B/*", "b/*",
                "3:23: rules[].source: 'a.io/B/*' has upper-case letters; repositories are lower case: "
                "'b/*'");
    static const char *const paths[] = {"a//b", "a b",   "-a",       "a-",   "a..b",
                                        "a/.b", "a___b", "\xc3\xa9", "a\\b", "a?b"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char source[64], want[256];
        struct str s = STR_INIT(source), w = STR_INIT(want);
        str_addf(&w, "4:14: rules[].target: '%s' is no repository path; write parts of a-z and 0-9",
                 paths[i]);
        expect_rule("a.io/b", paths[i], want);
        str_reset(&w);
        str_addf(&s, "a.io/%s", paths[i]);
        str_addf(&w, "3:23: rules[].source: 'a.io/%s' is no repository path; write parts of a-z and 0-9",
                 paths[i]);
        expect_rule(source, "t", want);
    }
    expect_rule("a.io/b/", "t", "3:23: rules[].source: 'a.io/b/' is no repository path");
    expect_rule("a.io/b", "/", "4:14: rules[].target: '/' is no repository path");
    expect_rule("a.io/b", "x.io:5000/a", "4:14: rules[].target: 'x.io:5000/a' is no repository path");
    expect_rule("a.io/b", "/A:b", "4:14: rules[].target: '/A:b' is no repository path; write parts of a-z");
    expect_rule("a.io/b", "/a*/b", "4:14: rules[].target: in '/a*/b' the '*' is misplaced");
    static const struct {
        const char *target, *right;
    } ends[] = {{"/a", "a"},       {"a/", "a"},      {"a:latest", "a"},    {"a@sha256:ab", "a"},
                {"http://a", "a"}, {"//a/*", "a/*"}, {"a/*:latest", "a/*"}};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        char want[256];
        struct str w = STR_INIT(want);
        str_addf(&w,
                 "4:14: rules[].target: '%s' is no repository path: no scheme, tag, digest, or '/' at an "
                 "end; write "
                 "'target: %s'",
                 ends[i].target, ends[i].right);
        expect_rule("a.io/b", ends[i].target, want);
        expect_hint_taken(want, "target");
    }
}

static void misplaced_stars(void **state)
{
    UNUSED(state);
    static const char *const paths[] = {"a*", "*/a", "a/*/b", "a/**", "**", "a/b*", "a/*/*"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        char source[64], want[256];
        struct str s = STR_INIT(source), w = STR_INIT(want);
        str_addf(&w,
                 "4:14: rules[].target: in '%s' the '*' is misplaced; it stands only at the end, alone or "
                 "after '/'",
                 paths[i]);
        expect_rule("a.io/*", paths[i], want);
        str_reset(&w);
        str_addf(&s, "a.io/%s", paths[i]);
        str_addf(&w, "3:23: rules[].source: in 'a.io/%s' the '*' is misplaced", paths[i]);
        expect_rule(source, "t/*", want);
    }
    expect_rule(
        "a.io/*", "t",
        "4:14: rules[].target: only the source ends in '*'; write '*' at the end of source and target");
    expect_rule("a.io/t", "*", "4:14: rules[].target: only the target ends in '*'");
}

static void long_paths(void **state)
{
    UNUSED(state);
    char path[NAME_REPO_MAX + 2], source[sizeof path + sizeof "docker.io/"];
    memset(path, 'a', sizeof path);
    path[NAME_REPO_MAX + 1] = '\0';
    struct str s = STR_INIT(source);
    str_addf(&s, "a.io/%s", path);
    expect_rule("a.io/b", path,
                "4:14: rules[].target: the repository has 256 characters; at most 255 are allowed");
    expect_rule(source, "t",
                "3:23: rules[].source: the repository has 256 characters; at most 255 are allowed");
    path[NAME_REPO_MAX - 7] = '\0'; /* 248, and "library/" */
    str_reset(&s);
    str_addf(&s, "docker.io/%s", path);
    expect_rule(source, "t",
                "3:23: rules[].source: with 'library/' the repository has more than 255 characters");
}

/* A star stands for one character at least: what is before it, the slash included, has room for that. At the longest registry's name. */
static void long_wildcards(void **state)
{
    UNUSED(state);
    char text[1024], path[NAME_REPO_MAX + 1];
    for (size_t n = NAME_REPO_MAX - 2; n < NAME_REPO_MAX; n++) { /* without the slash */
        memset(path, 'a', n);
        path[n] = '\0';
        struct str t = STR_INIT(text);
        str_addz(&t, "rules:\n- name: r\n  source: ");
        for (unsigned i = 0; i < 4; i++)
            str_addf(&t, "%.*s%s", 63, "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0",
                     i < 3 ? "." : ":65535");
        str_addf(&t, "/%s/*\n  target: %s/*\n", path, path);
        if (n + 2 > NAME_REPO_MAX) {
            EXPECT(text, "3:11: rules[].source: the repository has 256 characters; at most 255 are allowed",
                   "4:11: rules[].target: the repository has 256 characters; at most 255 are allowed");
            return;
        }
        conf_unref(load_good(text));
    }
}

static void names(void **state)
{
    UNUSED(state);
    EXPECT("rules:\n" RULE("a/b", "a.io/a", "a") RULE("'a b'", "a.io/a", "b"),
           "2:11: rules[].name: 'a/b' has other characters than letters, digits, '.', '_', '-'; replace them",
           "5:11: rules[].name: 'a b' has other characters");
    EXPECT("rules:\n" RULE("x", "a.io/a", "a") "\n# \xc3\xa9\n" RULE("X", "a.io/a", "b")
               RULE("x", "nginx", "c"),
           "10:11: rules[].name: 'x' is the name of the rule on line 2 already; choose another",
           "11:13: does not begin with a registry");
}

static void shared_targets(void **state)
{
    UNUSED(state);
    EXPECT("rules:\n" RULE("one", "a.io/a", "t") RULE("two", "b.io/a", "t") RULE("three", "b.io/b", "t"),
           "7:13: rule 'two' (line 5) has the target 't' of rule 'one' (line 2); give one of them another "
           "target",
           "10:13: rule 'three' (line 8) has the target 't' of rule 'one' (line 2)");
    EXPECT("rules:\n" RULE("one", "a.io/*", "t/*") RULE("two", "b.io/*", "t/*"),
           "7:13: rule 'two' (line 5) has the target 't/*' of rule 'one' (line 2)");
    EXPECT("rules:\n" RULE("one", "a.io/*", "'*'") RULE("two", "b.io/*", "'*'"),
           "7:13: rule 'two' (line 5) has the target '*' of rule 'one' (line 2)");
}

static void overlapping_targets(void **state)
{
    UNUSED(state);
    EXPECT("rules:\n" RULE("outer", "a.io/*", "t/*") RULE("inner", "b.io/*", "t/u/v/*"),
           "7:13: the wildcard target 't/u/v/*' of rule 'inner' (line 5) overlaps 't/*' of rule 'outer' "
           "(line 2); move one");
    EXPECT("rules:\n" RULE("inner", "b.io/*", "t/u/*") RULE("outer", "a.io/*", "t/*"),
           "7:13: the wildcard target 't/*' of rule 'outer' (line 5) overlaps 't/u/*' of rule 'inner' (line "
           "2); move one");
    EXPECT("rules:\n" RULE("all", "a.io/*", "'*'") RULE("b", "b.io/*", "b/*") RULE("c", "c.io/*", "c/*"),
           "7:13: the wildcard target 'b/*' of rule 'b' (line 5) overlaps '*' of rule 'all' (line 2)",
           "10:13: the wildcard target 'c/*' of rule 'c' (line 8) overlaps '*' of rule 'all' (line 2)");
    /* Not nested: a common beginning that does not end at a slash, and rules without wildcard. */
    conf_unref(load_good("rules:\n" RULE("a", "a.io/*", "t/*") RULE("b", "b.io/*", "tt/*")
                             RULE("c", "c.io/c", "t/c") RULE("d", "c.io/d", "t")));
}

/* "rule repository" for a target, or "none". */
static const char *by_target(const struct conf *c, const char *repo)
{
    static char text[512];
    char buf[NAME_REPO_MAX + 1];
    struct str up = STR_INIT(buf), t = STR_INIT(text);
    const struct conf_rule *r = conf_match_target(c, span_str(repo), &up);
    if (r == NULL)
        return "none";
    str_addf(&t, "%s %s", r->name.p, buf);
    return text;
}

static const char *by_source(const struct conf *c, const char *ns, const char *repo)
{
    static char text[512];
    char buf[NAME_REPO_MAX + 1];
    struct str up = STR_INIT(buf), t = STR_INIT(text);
    const struct conf_rule *r = conf_match_source(c, span_str(ns), span_str(repo), &up);
    if (r == NULL)
        return "none";
    str_addf(&t, "%s %s", r->name.p, buf);
    return text;
}

static void found_by_target(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(
        "rules:\n" RULE("hub", "docker.io/*", "hub/*") RULE("fixed", "a.io/x/y", "hub/team/app")
            RULE("nginx", "docker.io/nginx", "web") RULE("dotnet", "mcr.microsoft.com/dotnet/*", "d/n/*")
                RULE("mine", "quay.io/me/app", "d/n") RULE("lib", "docker.io/library/*", "lib/*"));
    assert_string_equal(by_target(c, "hub/nginx"), "hub library/nginx");
    assert_string_equal(by_target(c, "hub/library/nginx"), "hub library/nginx");
    assert_string_equal(by_target(c, "hub/grafana/grafana"), "hub grafana/grafana");
    assert_string_equal(by_target(c, "hub/team/app"), "fixed x/y");
    assert_string_equal(by_target(c, "hub/team/app/more"), "hub team/app/more");
    assert_string_equal(by_target(c, "hub/team"), "hub library/team");
    assert_string_equal(by_target(c, "web"), "nginx library/nginx");
    assert_string_equal(by_target(c, "web/x"), "none");
    assert_string_equal(by_target(c, "d/n/sdk"), "dotnet dotnet/sdk");
    assert_string_equal(by_target(c, "d/n/a/b/c/d/e/f/g/h/i/j"), "dotnet dotnet/a/b/c/d/e/f/g/h/i/j");
    assert_string_equal(by_target(c, "d/n"), "mine me/app");
    assert_string_equal(by_target(c, "lib/redis"), "lib library/redis");
    assert_string_equal(by_target(c, "hub"), "none");
    assert_string_equal(by_target(c, "hub/"), "none");
    assert_string_equal(by_target(c, "hub//x"), "none");
    assert_string_equal(by_target(c, "hubx/y"), "none");
    assert_string_equal(by_target(c, "d/m/x"), "none");
    assert_string_equal(by_target(c, "d"), "none");
    assert_string_equal(by_target(c, ""), "none");
    conf_unref(c);
}

static void the_name_replaces_what_was_there(void **state)
{
    UNUSED(state);
    struct conf *c = load_good("rules:\n" RULE("hub", "docker.io/*", "hub/*"));
    char buf[64];
    struct str up = STR_INIT(buf);
    str_addz(&up, "before");
    assert_non_null(conf_match_target(c, SPAN("hub/a/b"), &up));
    assert_string_equal(buf, "a/b");
    assert_non_null(conf_match_source(c, SPAN("docker.io"), SPAN("c/d"), &up));
    assert_string_equal(buf, "c/d");
    conf_unref(c);
}

static void a_star_alone_takes_the_rest(void **state)
{
    UNUSED(state);
    struct conf *c =
        load_good("rules:\n" RULE("all", "docker.io/*", "'*'") RULE("one", "a.io/one", "one/two"));
    assert_string_equal(by_target(c, "nginx"), "all library/nginx");
    assert_string_equal(by_target(c, "a/b"), "all a/b");
    assert_string_equal(by_target(c, "one"), "all library/one");
    assert_string_equal(by_target(c, "one/two"), "one one");
    assert_string_equal(by_target(c, ""), "none");
    conf_unref(c);
}

static void what_gets_too_long_is_not_found(void **state)
{
    UNUSED(state);
    struct conf *c =
        load_good("rules:\n" RULE("long", "a.io/a-long-prefix/*", "t/*") RULE("hub", "docker.io/*", "h/*"));
    char repo[NAME_REPO_MAX + 1], want[NAME_REPO_MAX + 16];
    memset(repo, 'a', sizeof repo);
    memcpy(repo, "t/", 2);
    repo[2 + NAME_REPO_MAX - 14] = '\0'; /* with "a-long-prefix/" just 255 */
    struct str w = STR_INIT(want);
    str_addf(&w, "long a-long-prefix/%s", repo + 2);
    assert_string_equal(by_target(c, repo), want);
    repo[2 + NAME_REPO_MAX - 14] = 'a';
    repo[2 + NAME_REPO_MAX - 13] = '\0';
    assert_string_equal(by_target(c, repo), "none");

    memset(repo, 'a', sizeof repo);
    memcpy(repo, "h/", 2);
    repo[2 + NAME_REPO_MAX - 8] = '\0';
    str_reset(&w);
    str_addf(&w, "hub library/%s", repo + 2);
    assert_string_equal(by_target(c, repo), want);
    assert_string_equal(by_source(c, "docker.io", repo + 2), want);
    repo[2 + NAME_REPO_MAX - 8] = 'a';
    repo[2 + NAME_REPO_MAX - 7] = '\0';
    assert_string_equal(by_target(c, repo), "none");
    assert_string_equal(by_source(c, "docker.io", repo + 2), "none");

    char small[8]; /* the caller's buffer is too small */
    struct str s = STR_INIT(small);
    assert_null(conf_match_target(c, SPAN("t/x"), &s));
    assert_null(conf_match_source(c, SPAN("docker.io"), SPAN("x"), &s));
    conf_unref(c);
}

static void found_by_source(void **state)
{
    UNUSED(state);
    struct conf *c =
        load_good("rules:\n" RULE("hub", "docker.io/*", "hub/*") RULE("hub2", "index.docker.io/*", "hub2/*")
                      RULE("lib", "docker.io/library/*", "lib/*") RULE("nginx", "docker.io/nginx", "web")
                          RULE("nginx2", "docker.io/library/nginx", "web2")
                              RULE("corp", "Registry.Corp.Example:8443/team/*", "corp/*")
                                  RULE("six", "'[2001:db8::1]/a'", "six"));
    assert_string_equal(by_source(c, "docker.io", "grafana/grafana"), "hub grafana/grafana");
    assert_string_equal(by_source(c, "docker.io", "redis"), "lib library/redis");
    assert_string_equal(by_source(c, "docker.io", "library/redis"), "lib library/redis");
    assert_string_equal(by_source(c, "docker.io", "nginx"), "nginx library/nginx");
    assert_string_equal(by_source(c, "registry-1.docker.io", "library/nginx"), "nginx library/nginx");
    assert_string_equal(by_source(c, "Index.Docker.IO", "nginx"), "nginx library/nginx");
    assert_string_equal(by_source(c, "docker.io:443", "nginx"), "nginx library/nginx");
    assert_string_equal(by_source(c, "registry.corp.example:8443", "team/app"), "corp team/app");
    assert_string_equal(by_source(c, "REGISTRY.corp.example:8443", "team/a/b"), "corp team/a/b");
    assert_string_equal(by_source(c, "[2001:DB8:0::1]:443", "a"), "six a");
    assert_string_equal(by_source(c, "registry.corp.example", "team/app"), "none");
    assert_string_equal(by_source(c, "registry.corp.example:8443", "team"), "none");
    assert_string_equal(by_source(c, "registry.corp.example:8443", "other/app"), "none");
    assert_string_equal(by_source(c, "quay.io", "a"), "none");
    assert_string_equal(by_source(c, "", "nginx"), "none");
    assert_string_equal(by_source(c, "docker.io/library", "nginx"), "none");
    assert_string_equal(by_source(c, "https://docker.io", "nginx"), "none");
    assert_string_equal(by_source(c, "docker.io", ""), "none");
    assert_string_equal(by_source(c, "docker.io", "../nginx"), "none");
    assert_string_equal(by_source(c, "docker.io", "Nginx"), "none");
    conf_unref(c);
}

enum { MANY = 10000 };

static void ten_thousand_rules(void **state)
{
    UNUSED(state);
    size_t cap = MANY * 160;
    char *text = mem_alloc(cap);
    struct str s = str_init(text, cap);
    str_addz(&s, "rules:\n");
    for (unsigned i = 0; i < MANY; i++) {
        const char *star = i % 2 == 0 ? "/*" : "";
        str_addf(&s, "  - {name: r%u, source: r%u.example/team/a%u%s, target: t%u/a%u%s}\n", i, i % 100, i,
                 star, i % 7, i, star);
    }
    assert_false(s.cut);
    struct conf *c = load_good(text);
    assert_int_equal(c->n_rules, MANY);
    assert_int_equal(c->n_upstreams, 100);
    for (unsigned i = 0; i < MANY; i++) {
        char repo[64], ns[32], want[128];
        const char *more = i % 2 == 0 ? "/x" : "";
        struct str r = STR_INIT(repo), n = STR_INIT(ns), w = STR_INIT(want);
        str_addf(&w, "r%u team/a%u%s", i, i, more);
        str_addf(&r, "t%u/a%u%s", i % 7, i, more);
        assert_string_equal(by_target(c, repo), want);
        str_addf(&n, "R%u.example", i % 100);
        str_reset(&r);
        str_addf(&r, "team/a%u%s", i, more);
        assert_string_equal(by_source(c, ns, repo), want);
        assert_int_equal(c->rules[i].index, i);
        assert_int_equal(c->rules[i].mark.line, i + 2);
        assert_int_equal(c->rules[i].upstream->index, i % 100);
    }
    conf_unref(c);
    mem_free(text);
}

/* One rule under which all others lie: as many complaints as the list holds, the first ones of the file. */
static void ten_thousand_mistakes(void **state)
{
    UNUSED(state);
    size_t cap = MANY * 160;
    char *text = mem_alloc(cap);
    struct str s = str_init(text, cap);
    str_addz(&s, "rules:\n");
    for (unsigned i = 0; i < MANY; i++)
        str_addf(&s, "  - {name: r%u, source: r.example/*, target: t/a%u/*}\n", i, i);
    str_addz(&s, "  - {name: all, source: r.example/*, target: t/*}\n");
    assert_false(s.cut);
    assert_null(load(str_span(&s)));
    assert_int_equal(test_errors.n, TEST_ERRORS);
    for (size_t i = 0; i < test_errors.n; i++)
        assert_int_equal(test_list[i].mark.line, MANY + 2);
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_sources),
        cmocka_unit_test(a_password_is_not_repeated),
        cmocka_unit_test(wrong_paths),
        cmocka_unit_test(misplaced_stars),
        cmocka_unit_test(long_wildcards),
        cmocka_unit_test(long_paths),
        cmocka_unit_test(names),
        cmocka_unit_test(shared_targets),
        cmocka_unit_test(overlapping_targets),
        cmocka_unit_test(found_by_target),
        cmocka_unit_test(the_name_replaces_what_was_there),
        cmocka_unit_test(a_star_alone_takes_the_rest),
        cmocka_unit_test(what_gets_too_long_is_not_found),
        cmocka_unit_test(found_by_source),
        cmocka_unit_test(ten_thousand_rules),
        cmocka_unit_test(ten_thousand_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
