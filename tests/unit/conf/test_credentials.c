/* Credential sets, the rules that name them, and warnings. */
#include "conf_test.h"

#define SET(name, server)                                                                                    \
    "  - name: " name "\n    login_server: " server "\n    username: env:U\n    password: env:P\n"
#define USE(set) "    credential_set: " set "\n"

static void sets_and_rules(void **state)
{
    UNUSED(state);
    struct conf *c = load_good(
        "credential_sets:\n"
        "  - name: hub\n"
        "    login_server: Index.Docker.io\n"
        "    username: me\n"
        "    password: file:/run/secrets/hub\n"
        "  - {name: corp_1.x-y, login_server: 'Registry.corp.example:8443', "
        "username: env:U, password: https://a.vault.azure.net/secrets/p}\n"
        "  - {name: ecr, login_server: 1.dkr.ecr.eu-west-1.amazonaws.com, password: exec:ecr-login}\n"
        "  - {name: k8s, login_server: ghcr.io, username: 'dockerconfig:/c.json', "
        "password: 'dockerconfig:/c.json'}\n"
        "rules:\n" RULE("a", "docker.io/a/*", "a/*") USE("hub") RULE("b", "registry.corp.example:8443/b", "b")
            USE("corp_1.x-y") RULE("c", "1.dkr.ecr.eu-west-1.amazonaws.com/c", "c") USE("ecr")
                RULE("d", "ghcr.io/d", "d") USE("k8s") RULE("e", "ghcr.io/e", "e")
                    RULE("f", "registry-1.docker.io/f/*", "f/*") USE("hub"));
    assert_int_equal(test_errors.n_warnings, 0);
    assert_int_equal(c->n_credential_sets, 4);
    const struct conf_credential_set *s = c->credential_sets;
    assert_string_equal(s[0].name.p, "hub");
    assert_string_equal(s[0].login_server.p, "docker.io");
    assert_int_equal(s[0].username.kind, SECRET_TEXT);
    assert_string_equal(s[0].username.text.p, "me");
    assert_int_equal(s[0].username.mark.line, 4);
    assert_int_equal(s[0].username.mark.column, 15);
    assert_int_equal(s[0].password.kind, SECRET_FILE);
    assert_string_equal(s[0].password.text.p, "file:/run/secrets/hub");
    assert_string_equal(s[0].password.arg.p, "/run/secrets/hub");
    assert_int_equal(s[0].password.mark.line, 5);
    assert_int_equal(s[0].mark.line, 2);
    assert_int_equal(s[0].mark.column, 5);
    assert_string_equal(s[1].login_server.p, "registry.corp.example:8443");
    assert_int_equal(s[1].username.kind, SECRET_ENV);
    assert_string_equal(s[1].username.arg.p, "U");
    assert_int_equal(s[1].password.kind, SECRET_VAULT);
    assert_int_equal(s[2].username.kind, SECRET_NONE);
    assert_int_equal(s[2].password.kind, SECRET_EXEC);
    assert_int_equal(s[3].username.kind, SECRET_NONE); /* the same reference: it is in the password's */
    assert_int_equal(s[3].password.kind, SECRET_DOCKERCONFIG);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(s[i].index, i);
        assert_ptr_equal(c->rules[i].credential_set, &s[i]);
    }
    assert_null(c->rules[4].credential_set);
    assert_ptr_equal(c->rules[5].credential_set, &s[0]);
    conf_unref(c);
    conf_unref(load_good("credential_sets: []\n"));
    conf_unref(load_good("credential_sets:\n"));
}

static void wrong_sets(void **state)
{
    UNUSED(state);
    EXPECT("credential_sets: 5\n", "1:18: credential_sets: must be a list");
    EXPECT("credential_sets: [5, {}]\n", "1:19: a credential set must be a mapping",
           "1:22: a credential set here has no 'name'", "1:22: a credential set here has no 'login_server'",
           "1:22: a credential set here has no 'password'");
    EXPECT("credential_sets: [{name: a, login_server: a.io, username: me}]\n",
           "1:19: a credential set here has no 'password'; add password: a secret reference");
    EXPECT(
        "credential_sets:\n  - name: a b\n    login_server: https://a.io\n    usrname: x\n    password: "
        "env:P\n",
        "2:5: a credential set here has no 'username'; add username: the user's name, or a secret reference",
        "2:11: credential_sets[].name: 'a b' has other characters than letters",
        "3:19: credential_sets[].login_server: 'https://a.io' is no registry; write host or host:port only",
        "4:5: unknown key 'usrname', did you mean 'username'?");
    EXPECT("credential_sets:\n" SET("a", "a.io") SET("b", "a.io") SET("a", "c.io"),
           "10:11: credential_sets[].name: 'a' is the name of the set on line 2 already; choose another");
    EXPECT("credential_sets: [{name: a, login_server: 'me:pw@a.io', username: u, password: env:P}]\n",
           "1:43: credential_sets[].login_server: this holds a user name or '@'; write host or host:port");
    assert_null(strstr(test_list[0].text, "pw"));
}

static void wrong_secrets(void **state)
{
    UNUSED(state);
    EXPECT(
        "credential_sets:\n  - name: a\n    login_server: a.io\n    username: evn:U\n    password: hunter2\n",
        "4:15: credential_sets[].username: this is no secret reference; did you mean 'env:'?",
        "5:15: credential_sets[].password: a password does not stand in this file; write where it is: "
        "env:NAME");
    assert_null(strstr(test_list[1].text, "hunter2"));
    EXPECT("credential_sets: [{name: a, login_server: a.io, username: '', password: []}]\n",
           "1:59: credential_sets[].username: is empty",
           "1:73: credential_sets[].password: must be a single value");
    EXPECT("credential_sets: [{name: a, login_server: a.io, username: 'exec:a', password: env:P}]\n",
           "1:59: credential_sets[].username: a user by dockerconfig: or exec: comes with the password");
    EXPECT("credential_sets: [{name: a, login_server: a.io, username: 'exec:a', password: 'exec:b'}]\n",
           "1:59: credential_sets[].username: a user by dockerconfig: or exec: comes with the password");
    /* another user than the one in there is allowed */
    struct conf *c =
        load_good("credential_sets: [{name: a, login_server: a.io, username: me, password: 'exec:b'}]\n");
    assert_int_equal(c->credential_sets[0].username.kind, SECRET_TEXT);
    conf_unref(c);
}

static void rules_and_their_sets(void **state)
{
    UNUSED(state);
    EXPECT("credential_sets:\n" SET("hub", "docker.io") "rules:\n" RULE("a", "docker.io/a", "a") USE("hubb")
               RULE("b", "docker.io/b", "b") USE("elsewhere") RULE("c", "docker.io/c", "c") USE("''")
                   RULE("d", "docker.io/d", "d") USE("hub"),
           "10:21: rules[].credential_set: there is no credential set 'hubb'; did you mean 'hub' (line 2)?",
           "14:21: rules[].credential_set: there is no credential set 'elsewhere'; describe it in "
           "credential_sets",
           "18:21: rules[].credential_set: is empty");
    EXPECT("rules:\n" RULE("a", "docker.io/a", "a") USE("hub"),
           "5:21: rules[].credential_set: there is no credential set 'hub'; describe it in credential_sets");
    EXPECT("credential_sets:\n" SET("hub", "docker.io") "rules:\n" RULE("a", "ghcr.io/a", "a") USE("hub")
               RULE("b", "docker.io:5000/b", "b") USE("hub"),
           "10:21: rules[].credential_set: 'hub' (line 2) is for docker.io, but the source of this rule "
           "(line 7) is "
           "at ghcr.io; name a set with 'login_server: ghcr.io'",
           "14:21: rules[].credential_set: 'hub' (line 2) is for docker.io, but the source of this rule "
           "(line 11) is "
           "at docker.io:5000");
    /* a set with a mistake of its own is not called unknown, nor compared */
    EXPECT("credential_sets:\n" SET("hub", "a b") "rules:\n" RULE("a", "ghcr.io/a", "a") USE("hub"),
           "3:19: credential_sets[].login_server: 'a b' is no registry");
    EXPECT("credential_sets:\n  - name: hub\n    login_server: docker.io\n    username: me\n    password: "
           "x\nrules:\n" RULE("a", "docker.io/a", "a") USE("hub"),
           "5:15: credential_sets[].password");
}

static void registries_without_accounts(void **state)
{
    UNUSED(state);
    EXPECT("credential_sets:\n" SET("ms", "mcr.microsoft.com")
               SET("rh", "Registry.Access.RedHat.com") "rules:\n" RULE("a", "mcr.microsoft.com/a", "a")
                   USE("ms"),
           "3:19: credential_sets[].login_server: mcr.microsoft.com (Microsoft Artifact Registry) knows no "
           "accounts; "
           "remove the set 'ms'",
           "7:19: credential_sets[].login_server: registry.access.redhat.com");
    /* a mirror with the same name may have accounts */
    EXPECT_WARNINGS("upstreams: [{registry: mcr.microsoft.com, endpoints: [https://mirror.example]}]\n"
                    "credential_sets:\n" SET("ms", "mcr.microsoft.com") "rules:\n" RULE(
                        "a", "mcr.microsoft.com/a", "a") USE("ms"),
                    NULL);
    EXPECT("upstreams: [{registry: mcr.microsoft.com, endpoints: [https://mirror.example, "
           "https://MCR.microsoft.com]}]\n"
           "credential_sets:\n" SET("ms", "mcr.microsoft.com"),
           "4:19: credential_sets[].login_server: mcr.microsoft.com (Microsoft Artifact Registry) knows no "
           "accounts");
}

static void warnings(void **state)
{
    UNUSED(state);
    EXPECT_WARNINGS(
        "rules:\n" RULE("a", "docker.io/a", "a"),
        "2:5: rule 'a' without credential_set: without an account Docker Hub (docker.io) allows 100 pulls "
        "in 6 hours for each IPv4 address or IPv6 /64 network; describe one in credential_sets");
    EXPECT_WARNINGS(
        "rules:\n" RULE("z", "ghcr.io/z", "z") RULE("a", "docker.io/a", "a")
            RULE("b", "index.docker.io/b/*", "b/*") RULE("c", "registry.redhat.io/c", "c")
                RULE("d", "docker.io/d", "d") RULE("e", "2.dkr.ecr.eu-west-1.amazonaws.com/e", "e"),
        "5:5: rule 'a' and 2 more without credential_set: without an account Docker Hub",
        "11:5: rule 'c' without credential_set: Red Hat registry (registry.redhat.io) answers nobody "
        "without an account; describe one",
        "17:5: rule 'e' without credential_set: Amazon ECR (2.dkr.ecr.eu-west-1.amazonaws.com) answers");
    EXPECT_WARNINGS(
        "credential_sets:\n" SET("hub", "docker.io")
            SET("spare", "docker.io") "rules:\n" RULE("a", "docker.io/a", "a") USE("hub")
                RULE("b", "docker.io/b", "b"),
        "6:5: credential set 'spare' is used by no rule; name it in one (credential_set: spare), or "
        "remove it",
        "15:5: rule 'b' without credential_set");
    /* only a mirror is asked, which has its own rules */
    EXPECT_WARNINGS("upstreams: [{registry: docker.io, endpoints: [http://127.0.0.1:5002]}]\n"
                    "rules:\n" RULE("a", "docker.io/a", "a"),
                    NULL);
    EXPECT_WARNINGS("upstreams: [{registry: docker.io, endpoints: [http://127.0.0.1:5002, "
                    "https://registry-1.docker.io]}]\nrules:\n" RULE("a", "docker.io/a", "a"),
                    "3:5: rule 'a' without credential_set");
    EXPECT_WARNINGS("upstreams: [{registry: docker.io}]\n", "1:1: there are no rules");
    EXPECT_WARNINGS("rules: []\n", "1:8: there are no rules: every pull is answered with 404; add one");
    EXPECT_WARNINGS("rules:\n" RULE("a", "quay.io/a", "a") RULE("b", "corp.azurecr.io/b", "b")
                        RULE("c", "registry.corp.example/c", "c"),
                    NULL);
    /* a file that is refused has none: expect_span looks */
    EXPECT("rules:\n" RULE("a", "docker.io/a", "a") "zzzz: 1\n", "5:1: unknown key 'zzzz'");
}

static void warnings_may_be_unwanted_or_many(void **state)
{
    UNUSED(state);
    struct conf_error list[1], warnings[1];
    struct conf_errors errors = {.list = list, .cap = 1};
    struct span text = SPAN("rules:\n" RULE("a", "docker.io/a", "a") RULE("b", "dhi.io/b", "b"));
    struct conf *c = conf_load(text, SPAN("f"), &errors);
    assert_non_null(c);
    assert_int_equal(errors.n_warnings, 0);
    conf_unref(c);
    errors.warnings = warnings;
    errors.cap_warnings = 1;
    c = conf_load(text, SPAN("f"), &errors);
    assert_int_equal(errors.n_warnings, 1);
    assert_int_equal(warnings[0].mark.line, 2); /* the first of the file */
    conf_unref(c);
    c = conf_load(SPAN("rules: [{name: a, source: a.io/a, target: a}]"), SPAN("f"), &errors);
    assert_int_equal(errors.n_warnings, 0);
    conf_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_rules),
        cmocka_unit_test(wrong_sets),
        cmocka_unit_test(wrong_secrets),
        cmocka_unit_test(rules_and_their_sets),
        cmocka_unit_test(registries_without_accounts),
        cmocka_unit_test(warnings),
        cmocka_unit_test(warnings_may_be_unwanted_or_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
