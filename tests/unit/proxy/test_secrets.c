/* Credential sets: every kind of reference that needs no server, what is shared by askers, health. Helpers are shell scripts in a folder that
 * PATH begins with. */
#include "credentials.h"

#include "base/mem.h"
#include "proxy/secret_source.h"
#include "proxy/secrets_int.h"

static void until_password(struct rig *r, unsigned set, const char *password)
{
    for (;;) { /* the test's time limit is the bound */
        struct asked a = ask(r, set);
        if (a.state == CREDENTIAL_READY && strcmp(a.password, password) == 0)
            return;
        usleep(10000);
    }
}

static int setup(void **state)
{
    n_sets = n_addresses = 0;
    if (rig_folder(state) != 0)
        return -1;
    struct rig *r = *state;
    char path[512];
    snprintf(path, sizeof path, "%s:/usr/bin:/bin", r->dir);
    setenv("PATH", path, 1);
    setenv("TEST_USER", "alice", 1);
    setenv("TEST_PASSWORD", "s3cret", 1);
    setenv("TEST_EMPTY", "", 1);
    unsetenv("TEST_MISSING");
    return 0;
}

/* ---- environment ---- */

static void test_env(void **state)
{
    struct rig *r = *state;
    add_set("good", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    add_set("text", "r.example", "bob", "env:TEST_PASSWORD");
    add_set("missing", "r.example", "env:TEST_USER", "env:TEST_MISSING");
    add_set("empty", "r.example", "env:TEST_EMPTY", "env:TEST_PASSWORD");
    rig_start(r, make_setup(r, NULL));
    struct asked a = ask(r, 0);
    assert_int_equal(a.waits, 0); /* it is there from the start */
    expect_ready(r, 0, "alice", "s3cret");
    expect_ready(r, 1, "bob", "s3cret");
    expect_failed(r, 2, "environment variable TEST_MISSING is not set");
    expect_failed(r, 3, "environment variable TEST_EMPTY is empty");
    rig_stop(r);
}

/* ---- files ---- */

static void test_file(void **state)
{
    struct rig *r = *state;
    rig_write(r, "user", "alice\n", 0600);
    rig_write(r, "crlf", "p:w \r\n", 0600);
    rig_write(r, "plain", "two\nlines", 0600);
    rig_write(r, "newlines", "two\nlines\n\n", 0600);
    add_set("a", "r.example", "file:user", "file:crlf"); /* beside the configuration */
    add_set("b", "r.example", "file:user", "file:plain");
    add_set("c", "r.example", "file:user", "file:newlines");
    char absolute[200];
    snprintf(absolute, sizeof absolute, "file:%s/user", r->dir);
    add_set("d", "r.example", absolute, "file:user");
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "alice", "p:w ");
    expect_ready(r, 1, "alice", "two\nlines");
    expect_ready(r, 2, "alice", "two\nlines\n");
    expect_ready(r, 3, "alice", "alice");
    rig_stop(r);
}

static void test_bad_files(void **state)
{
    struct rig *r = *state;
    char *large = malloc(70000);
    memset(large, 'a', 69999);
    large[69999] = 0;
    rig_write(r, "large", large, 0600);
    free(large);
    rig_write(r, "newline", "\n", 0600);
    rig_write(r, "colon", "a:b", 0600);
    add_set("missing", "r.example", "u", "file:missing");
    add_set("large", "r.example", "u", "file:large");
    add_set("folder", "r.example", "u", "file:.");
    add_set("newline", "r.example", "u", "file:newline");
    rig_start(r, make_setup(r, NULL));
    expect_failed(r, 0, "/missing: No such file or directory");
    expect_failed(r, 1, "/large: it is larger than 64 KiB");
    expect_failed(r, 2, "it is a directory");
    expect_failed(r, 3, "/newline: it is empty");
    rig_stop(r);
}

static void test_other_bad_sets(void **state)
{
    struct rig *r = *state;
    rig_write(r, "colon", "a:b", 0600);
    MUST(mkfifo(rig_path(r, "pipe"), 0600) == 0);
    FILE *f = fopen(rig_path(r, "zero"), "w");
    MUST(f != NULL && fwrite("a\0b", 3, 1, f) == 1 && fclose(f) == 0);
    add_set("colon", "r.example", "file:colon", "env:TEST_PASSWORD");
    add_set("pipe", "r.example", "u", "file:pipe");
    add_set("zero", "r.example", "u", "file:zero");
    add_set("nobody", "r.example", NULL, NULL);
    rig_start(r, make_setup(r, NULL));
    expect_failed(r, 0, "has a colon");
    expect_failed(r, 1, "it is not a regular file");
    expect_failed(r, 2, "a byte 0");
    expect_failed(r, 3, "no user name");
    rig_stop(r);
}

/* What fits is at the edge; what does not could not be sent. */
static void test_too_long(void **state)
{
    struct rig *r = *state;
    char *text = mem_alloc(CREDENTIAL_MAX + 1);
    memset(text, 'x', CREDENTIAL_MAX);
    text[CREDENTIAL_MAX] = 0;
    rig_write(r, "long", text, 0600);
    text[CREDENTIAL_MAX - 1] = 0;
    rig_write(r, "fits", text, 0600);
    mem_free(text);
    add_set("long", "r.example", "u", "file:long");
    add_set("fits", "r.example", "u", "file:fits");
    rig_start(r, make_setup(r, NULL));
    expect_failed(r, 0, "longer than the 32 KiB");
    assert_int_equal(ask(r, 1).state, CREDENTIAL_READY);
    rig_stop(r);
}

static void test_changed_file(void **state)
{
    struct rig *r = *state;
    rig_write(r, "pw", "one", 0600);
    add_set("a", "r.example", "u", "file:pw");
    rig_start(r, make_setup(r, NULL));
    struct asked before = ask(r, 0), same = ask(r, 0);
    assert_string_equal(before.password, "one");
    assert_true(before.fingerprint == same.fingerprint);
    rig_write(r, "pw", "two", 0600);
    until_password(r, 0, "two");
    struct asked after = ask(r, 0);
    assert_true(before.fingerprint != after.fingerprint);
    /* in place, with the same size */
    FILE *f = fopen(rig_path(r, "pw"), "r+");
    MUST(f != NULL && fputs("six", f) >= 0 && fclose(f) == 0);
    until_password(r, 0, "six");
    rig_stop(r);
}

static struct secrets *secrets_of(struct rig *r)
{
    return setup_secrets(r->shared->setup);
}

/* Looks at the file again and again, until it is known to be bad. */
static struct secret_source *until_failed(struct rig *r)
{
    struct secret_set *set = secrets_of(r)->sets[0];
    struct secret_source *s = &set->source[set->password_at];
    while (s->failed_ms == 0) {
        expect_ready(r, 0, "u", "one");
        usleep(10000);
    }
    return s;
}

/* A file that is emptied and then written, or that is away for a moment, costs nobody the password; one that stays away does. */
static void test_a_file_that_is_away(void **state)
{
    struct rig *r = *state;
    rig_write(r, "pw", "one", 0600);
    add_set("a", "r.example", "u", "file:pw");
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "u", "one");
    rig_write(r, "pw", "", 0600);
    (void)until_failed(r);
    usleep(1000 * (SECRET_LOOK_MS + 100)); /* it has not changed since */
    expect_ready(r, 0, "u", "one");
    rig_write(r, "pw", "two", 0600);
    until_password(r, 0, "two");
    rig_write(r, "pw", "one", 0600);
    until_password(r, 0, "one");
    MUST(unlink(rig_path(r, "pw")) == 0);
    until_failed(r)->failed_ms -= SECRET_KEPT_MS;
    while (ask(r, 0).state == CREDENTIAL_READY)
        usleep(10000);
    expect_failed(r, 0, "No such file");
    rig_write(r, "pw", "back", 0600);
    until_password(r, 0, "back");
    rig_stop(r);
}

/* ---- helpers ---- */

static void test_exec(void **state)
{
    struct rig *r = *state;
    /* The secret is what the helper was asked for. */
    rig_write(
        r, "docker-credential-test",
        "#!/bin/sh\n[ \"$1\" = get ] || exit 3\nread server\n"
        "printf '{\"ServerURL\":\"\",\"Username\":\"\\\\u0075ser\",\"Secret\":\"%s\"}\\n' \"$server\"\n",
        0700);
    rig_write(r, "docker-credential-token",
              "#!/bin/sh\nprintf '{\"Username\":\"<token>\",\"Secret\":\"identity\"}'\n", 0700);
    add_set("hub", "docker.io", "exec:test", "exec:test");
    add_set("other", "r.example:8443", NULL, "exec:test");
    add_set("token", "r.example", "exec:token", "exec:token");
    add_set("own-user", "r.example", "env:TEST_USER", "exec:test");
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "user", "https://index.docker.io/v1/");
    expect_ready(r, 1, "user", "r.example:8443");
    struct asked token = ask(r, 2);
    assert_int_equal(token.state, CREDENTIAL_READY);
    assert_string_equal(token.refresh, "identity");
    assert_string_equal(token.user, "");
    expect_ready(r, 3, "alice", "r.example");
    rig_stop(r);
}

static void test_exec_fails(void **state)
{
    struct rig *r = *state;
    rig_write(r, "docker-credential-says",
              "#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n", 0700);
    rig_write(r, "docker-credential-tells", "#!/bin/sh\necho '{\"Secret\":\"hidden\"}'\nexit 1\n", 0700);
    rig_write(r, "docker-credential-babble", "#!/bin/sh\nyes babble\n", 0700);
    add_set("none", "r.example", NULL, "exec:no-such-helper");
    add_set("says", "r.example", NULL, "exec:says");
    add_set("tells", "r.example", NULL, "exec:tells");
    add_set("babble", "r.example", NULL, "exec:babble");
    rig_start(r, make_setup(r, NULL));
    expect_failed(r, 0, "docker-credential-no-such-helper: there is no such program in PATH");
    expect_failed(r, 1, "it failed with status 1: credentials not found");
    expect_failed(r, 2, "it failed with status 1");
    assert_null(strstr(ask(r, 2).why, "hidden"));
    expect_failed(r, 3, "too long");
    rig_stop(r);
}

/* It has our environment, but for what is a password. */
static void test_exec_environment(void **state)
{
    struct rig *r = *state;
    rig_write(r, "docker-credential-env",
              "#!/bin/sh\nprintf '{\"Username\":\"%s\",\"Secret\":\"%s %s\"}' "
              "\"$TEST_USER\" \"${TEST_PASSWORD-none}\" \"${TEST_PASSWORD_FILE-none}\"\n",
              0700);
    MUST(setenv("TEST_PASSWORD_FILE", "another", 1) == 0);
    add_set("env", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    add_set("helper", "r.example", NULL, "exec:env");
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "alice", "s3cret");
    expect_ready(r, 1, "alice", "none another");
    rig_stop(r);
    MUST(unsetenv("TEST_PASSWORD_FILE") == 0);
}

static bool exec_direct(const char *helper, int64_t limit_ms, const atomic_bool *stop, char *why_text,
                        size_t n)
{
    char text[256];
    struct str room = STR_INIT(text), why = str_init(why_text, n);
    static const struct conf none;
    return secret_exec(&none, span_str(helper), SPAN("r.example"), limit_ms, stop, &room, &why);
}

/* A helper that hangs is ended, and so is what it has started. */
static void test_exec_hangs(void **state)
{
    struct rig *r = *state;
    atomic_bool never = false, now = true;
    char why[256];
    rig_write(r, "docker-credential-hang", "#!/bin/sh\nsleep 1000 &\necho $! >\"$0.pid\"\nwait\n", 0700);
    assert_false(exec_direct("hang", 3000, &never, why, sizeof why));
    assert_non_null(strstr(why, "in time"));
    int pid = 0;
    FILE *f = fopen(rig_path(r, "docker-credential-hang.pid"), "r");
    MUST(f != NULL && fscanf(f, "%d", &pid) == 1 && fclose(f) == 0);
    while (kill(pid, 0) == 0) /* init has to reap it */
        usleep(1000);
    assert_false(exec_direct("hang", 1000000, &now, why, sizeof why));
    /* It answers, closes its output and does not end. */
    rig_write(r, "docker-credential-linger", "#!/bin/sh\necho '{}'\nexec >/dev/null\nsleep 1000\n", 0700);
    assert_false(exec_direct("linger", 500, &never, why, sizeof why));
    assert_non_null(strstr(why, "in time"));
    assert_false(exec_direct("../x", 500, &never, why, sizeof why));
    assert_non_null(strstr(why, "helper's name"));
}

static void test_dockerconfig(void **state)
{
    struct rig *r = *state;
    rig_write(r, "docker-credential-x", "#!/bin/sh\nprintf '{\"Username\":\"helped\",\"Secret\":\"pw\"}'\n",
              0700);
    rig_write(r, "config.json",
              "{\"auths\":{\"https://index.docker.io/v1/"
              "\":{\"auth\":\"YTpiOmM=\"}},\"credHelpers\":{\"h.example\":\"x\"}}",
              0600);
    add_set("hub", "docker.io", "dockerconfig:config.json", "dockerconfig:config.json");
    add_set("helper", "h.example", NULL, "dockerconfig:config.json");
    add_set("absent", "r.example", NULL, "dockerconfig:config.json");
    rig_start(r, make_setup(r, NULL));
    expect_ready(r, 0, "a", "b:c");
    expect_ready(r, 1, "helped", "pw");
    expect_failed(r, 2, "config.json: it has no entry for r.example");
    rig_write(r, "config.json", "{\"auths\":{\"docker.io\":{\"auth\":\"dTpw\"}}}", 0600);
    until_password(r, 0, "p");
    rig_stop(r);
}

/* Helpers that hang wait for each other on their loops, and neither the pool nor what needs no helper for them. */
static void test_many_helpers_hang(void **state)
{
    struct rig *r = *state;
    struct stat st;
    static struct asked hang[3];
    char name[40], text[40];
    for (unsigned i = 0; i < ARRAY_LEN(hang); i++) {
        snprintf(name, sizeof name, "docker-credential-h%u", i);
        rig_write(r, name,
                  "#!/bin/sh\n: >\"$0.runs\"\nwhile ! [ -e \"$0.go\" ]; do sleep 0.01; done\n"
                  "printf '{\"Username\":\"u\",\"Secret\":\"p\"}'\n",
                  0700);
    }
    static const char *const refs[] = {"exec:h0", "exec:h1", "exec:h2"};
    for (unsigned i = 0; i < ARRAY_LEN(hang); i++)
        add_set(refs[i], "r.example", NULL, refs[i]);
    rig_write(r, "password", "pw", 0600);
    add_set("file", "r.example", "u", "file:password");
    rig_start(r, make_setup(r, NULL));
    for (unsigned i = 0; i < 2; i++) {
        ask_on(r, i % RIG_CORES, i, &hang[i]);
        snprintf(name, sizeof name, "docker-credential-h%u.runs", i);
        while (stat(rig_path(r, name), &st) != 0)
            usleep(1000);
    }
    ask_on(r, 1, 2, &hang[2]);
    for (unsigned i = 0; i < 5; i++)
        expect_ready(r, 3, "u", "pw");
    usleep(300000);
    assert_int_equal(stat(rig_path(r, "docker-credential-h2.runs"), &st), -1);
    rig_write(r, "docker-credential-h0.go", "", 0600);
    sem_wait(&hang[0].ready);
    while (stat(rig_path(r, "docker-credential-h2.runs"), &st) != 0)
        usleep(1000);
    for (unsigned i = 1; i < ARRAY_LEN(hang); i++) {
        snprintf(text, sizeof text, "docker-credential-h%u.go", i);
        rig_write(r, text, "", 0600);
        sem_wait(&hang[i].ready);
        assert_int_equal(hang[i].state, CREDENTIAL_READY);
    }
    rig_stop(r);
}

/* ---- one load for all ---- */

static void test_one_load_for_all(void **state)
{
    struct rig *r = *state;
    rig_write(r, "docker-credential-count",
              "#!/bin/sh\necho run >>\"$0.runs\"\nprintf '{\"Username\":\"u\",\"Secret\":\"p\"}'\n", 0700);
    add_set("a", "r.example", "exec:count", "exec:count");
    rig_start(r, make_setup(r, NULL));
    static struct asked asked[40];
    for (unsigned i = 0; i < ARRAY_LEN(asked); i++)
        ask_on(r, i % RIG_CORES, 0, &asked[i]);
    for (unsigned i = 0; i < ARRAY_LEN(asked); i++) {
        sem_wait(&asked[i].ready);
        assert_int_equal(asked[i].state, CREDENTIAL_READY);
        assert_string_equal(asked[i].password, "p");
    }
    struct stat st;
    assert_int_equal(stat(rig_path(r, "docker-credential-count.runs"), &st), 0);
    assert_int_equal(st.st_size, strlen("run\n"));
    rig_stop(r);
}

static void ask_and_leave(struct rig_core *on, void *arg)
{
    struct asked *a = arg;
    a->on = on;
    a->c.done = ask_again;
    a->state = credential_get(on->px, setup_secrets(on->px->setup), a->set, &a->c);
    credential_release(&a->c);
    assert_null(a->c.wait);
}

/* Whoever leaves while it waits is not called, whether its place is in the list or already on its way. */
static void test_leaves_while_waiting(void **state)
{
    struct rig *r = *state;
    rig_write(r, "docker-credential-x", "#!/bin/sh\nprintf '{\"Username\":\"u\",\"Secret\":\"p\"}'\n", 0700);
    add_set("a", "r.example", NULL, "exec:x");
    rig_start(r, make_setup(r, NULL));
    static struct asked gone[20];
    struct asked stays;
    for (unsigned i = 0; i < ARRAY_LEN(gone); i++) {
        gone[i] = (struct asked){.set = &sets[0]};
        on_core(r, i % RIG_CORES, ask_and_leave, &gone[i]);
    }
    ask_on(r, 1, 0, &stays);
    sem_wait(&stays.ready);
    assert_int_equal(stays.state, CREDENTIAL_READY);
    rig_stop(r);
}

struct crowd {
    struct rig *rig;
    struct credential each[200];
    atomic_bool leaves;
};

static void woken(struct credential *c)
{
    MUST(c->wait == NULL);
}

static void crowd_comes(struct rig_core *on, void *arg)
{
    struct crowd *crowd = arg;
    for (unsigned i = 0; i < ARRAY_LEN(crowd->each); i++) {
        struct credential *c = &crowd->each[i];
        *c = (struct credential){.done = woken};
        MUST(credential_get(on->px, setup_secrets(on->px->setup), &sets[0], c) == CREDENTIAL_WAIT);
    }
}

static void crowd_leaves(struct rig_core *on, void *arg)
{
    struct crowd *crowd = arg;
    UNUSED(on);
    atomic_store(&crowd->leaves, true);
    for (unsigned i = ARRAY_LEN(crowd->each); i > 0; i--)
        credential_release(&crowd->each[i - 1]);
}

static void *crowd_ends(void *arg)
{
    struct crowd *crowd = arg;
    on_core(crowd->rig, 1, crowd_leaves, crowd);
    return NULL;
}

/* A load ends on one core while those who wait for it leave on another. */
static void test_leaves_while_it_is_woken(void **state)
{
    struct rig *r = *state;
    add_set("a", "r.example", NULL, "exec:never");
    rig_start(r, make_setup(r, NULL));
    struct secret_set *set = setup_secrets(r->shared->setup)->sets[0];
    static struct crowd crowd;
    crowd.rig = r;
    for (unsigned round = 0; round < 100; round++) {
        pthread_t t;
        pthread_mutex_lock(&set->lock);
        set->loading = true; /* the test is the load */
        pthread_mutex_unlock(&set->lock);
        on_core(r, 1, crowd_comes, &crowd);
        atomic_store(&crowd.leaves, false);
        MUST(pthread_create(&t, NULL, crowd_ends, &crowd) == 0);
        while (!atomic_load(&crowd.leaves))
            continue;
        secret_load_dropped(set);
        pthread_join(t, NULL);
    }
    rig_stop(r);
}

/* The core stops while a load is under way and somebody waits for it. */
static void test_stops_while_waiting(void **state)
{
    struct rig *r = *state;
    rig_write(r, "docker-credential-hang", "#!/bin/sh\nexec sleep 1000\n", 0700);
    static const char *const names[] = {"a", "b", "c", "d"}; /* two have their turn, two wait for it */
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        add_set(names[i], "r.example", NULL, "exec:hang");
    rig_start(r, make_setup(r, NULL));
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct asked gone = {.set = &sets[i]};
        on_core(r, i % RIG_CORES, ask_and_leave, &gone);
        assert_int_equal(gone.state, CREDENTIAL_WAIT);
    }
    rig_stop(r);
}

/* ---- health ---- */

static bool refuse_for(struct rig *r, uint64_t fingerprint, const char *repo)
{
    return credential_refused(secrets_of(r), &sets[0], fingerprint, 401, SPAN("auth.example"),
                              span_str(repo));
}

static void accept_for(struct rig *r, uint64_t fingerprint, const char *repo)
{
    credential_accepted(secrets_of(r), &sets[0], fingerprint, span_str(repo));
}

static void refuse(struct rig *r, uint64_t fingerprint)
{
    assert_true(refuse_for(r, fingerprint, "app"));
}

static struct credential_health health(struct rig *r)
{
    struct credential_health h;
    credential_health(secrets_of(r), &sets[0], &h);
    return h;
}

static void test_refused(void **state)
{
    struct rig *r = *state;
    rig_write(r, "pw", "wrong", 0600);
    add_set("a", "r.example", "u", "file:pw");
    rig_start(r, make_setup(r, NULL));
    uint64_t fp = ask(r, 0).fingerprint;
    assert_true(health(r).healthy);
    refuse(r, fp);
    refuse(r, fp + 1); /* about other credentials */
    refuse(r, fp);
    assert_true(health(r).healthy);
    accept_for(r, fp, "app");
    accept_for(r, fp, "b");
    accept_for(r, fp, "c");
    refuse(r, fp);
    assert_true(refuse_for(r, fp, "b"));
    expect_ready(r, 0, "u", "wrong");
    assert_true(refuse_for(r, fp, "c"));
    struct credential_health h = health(r);
    assert_false(h.healthy);
    assert_non_null(strstr(h.why, "refused by auth.example with status 401"));
    assert_int_equal(h.refused, 6);
    expect_failed(r, 0, "refused by auth.example with status 401");
    assert_true(ask(r, 0).fingerprint == fp); /* for the tokens that were got with it */
    accept_for(r, fp, "app");                 /* a late good answer */
    assert_true(health(r).healthy);
    expect_ready(r, 0, "u", "wrong");
    rig_stop(r);
}

/* What was accepted a while ago is not wrong because it is refused for what it was never good for, again and again and in turn. */
static void test_refused_for_some_repositories(void **state)
{
    struct rig *r = *state;
    add_set("a", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    rig_start(r, make_setup(r, NULL));
    uint64_t fp = ask(r, 0).fingerprint;
    accept_for(r, fp, "app");
    accept_for(r, fp, "good");
    for (int i = 0; i < 100; i++) {
        char name[16];
        struct str s = STR_INIT(name);
        str_addf(&s, "typo%d", i);
        assert_false(refuse_for(r, fp, name));
        assert_false(refuse_for(r, fp, "x"));
    }
    assert_true(health(r).healthy);
    assert_int_equal(health(r).refused, 200);
    assert_true(refuse_for(r, fp, "app")); /* it may not be read any more: that counts once */
    for (int i = 0; i < 10; i++)
        assert_false(refuse_for(r, fp, "app"));
    accept_for(r, fp, "b");
    accept_for(r, fp, "c");
    accept_for(r, fp, "app");
    assert_true(refuse_for(r, fp, "b"));
    assert_true(refuse_for(r, fp, "c"));
    assert_false(refuse_for(r, fp, "x"));
    assert_true(health(r).healthy);
    assert_true(refuse_for(r, fp, "app"));
    assert_false(health(r).healthy);
    rig_stop(r);
}

/* When there is none left that it is good for, there is nothing that speaks for it. */
static void test_refused_for_all_repositories(void **state)
{
    struct rig *r = *state;
    add_set("a", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    rig_start(r, make_setup(r, NULL));
    uint64_t fp = ask(r, 0).fingerprint;
    for (unsigned n = 1; n <= 4; n++) {
        char name[16];
        struct str s = STR_INIT(name);
        for (unsigned i = 0; i < n; i++) {
            s = STR_INIT(name);
            str_addf(&s, "r%u", i);
            accept_for(r, fp, name);
        }
        assert_true(health(r).healthy);
        for (unsigned i = 0; i < SECRET_REFUSALS; i++) {
            assert_true(health(r).healthy);
            s = STR_INIT(name);
            str_addf(&s, "r%u", i % n);
            assert_true(refuse_for(r, fp, name));
        }
        assert_false(health(r).healthy);
    }
    rig_stop(r);
}

/* The oldest of those that it was taken for are forgotten. */
static void test_taken_for_many_repositories(void **state)
{
    struct rig *r = *state;
    add_set("a", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    rig_start(r, make_setup(r, NULL));
    uint64_t fp = ask(r, 0).fingerprint;
    for (int i = 0; i < SECRET_REPOS + 1; i++) {
        char name[16];
        struct str s = STR_INIT(name);
        str_addf(&s, "n%d", i);
        accept_for(r, fp, name);
        accept_for(r, fp, name);
    }
    assert_false(refuse_for(r, fp, "n0"));
    assert_true(refuse_for(r, fp, "n1"));
    rig_stop(r);
}

static void test_another_value_heals(void **state)
{
    struct rig *r = *state;
    rig_write(r, "pw", "wrong", 0600);
    add_set("a", "r.example", "u", "file:pw");
    rig_start(r, make_setup(r, NULL));
    uint64_t fp = ask(r, 0).fingerprint;
    for (int i = 0; i < 20; i++) /* the pause is long now */
        refuse(r, fp);
    expect_failed(r, 0, "refused");
    rig_write(r, "pw", "right", 0600);
    until_password(r, 0, "right");
    assert_true(health(r).healthy);
    refuse(r, fp);
    assert_true(health(r).healthy);
    rig_stop(r);
}

struct pair {
    enum credential_state look, first, second;
};

static void ask_twice(struct rig_core *on, void *arg)
{
    struct pair *p = arg;
    struct credential a = {0}, b = {0}, c = {.only_look = true};
    p->look = credential_get(on->px, setup_secrets(on->px->setup), &sets[0], &c);
    p->first = credential_get(on->px, setup_secrets(on->px->setup), &sets[0], &a);
    p->second = credential_get(on->px, setup_secrets(on->px->setup), &sets[0], &b);
    credential_release(&a);
    credential_release(&b);
    credential_release(&c);
}

/* When the pause is over one asker is let through, and only one; who only looks takes nobody's turn. */
static void test_one_probes(void **state)
{
    struct rig *r = *state;
    add_set("a", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    rig_start(r, make_setup(r, NULL));
    uint64_t fp = ask(r, 0).fingerprint;
    for (int i = 0; i < SECRET_REFUSALS; i++)
        refuse(r, fp);
    (void)ask(r, 0); /* what the refusal made due is read */
    struct pair p;
    do {
        usleep(10000);
        on_core(r, 0, ask_twice, &p);
    } while (p.look != CREDENTIAL_READY);
    assert_int_equal(p.first, CREDENTIAL_READY);
    assert_int_equal(p.second, CREDENTIAL_FAILED);
    assert_false(health(r).healthy);
    refuse(r, fp);
    (void)ask(r, 0);
    on_core(r, 0, ask_twice, &p);
    assert_int_equal(p.first, CREDENTIAL_FAILED);
    rig_stop(r);
}

/* A setup that follows another shares the sets that are the same. */
static void test_follows(void **state)
{
    struct rig *r = *state;
    add_set("a", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    add_set("b", "r.example", "env:TEST_USER", "env:TEST_PASSWORD");
    struct setup *first = make_setup(r, NULL), *second, *third;
    struct secrets *s = setup_secrets(first);
    for (int i = 0; i < SECRET_REFUSALS; i++)
        (void)credential_refused(s, &sets[0], s->sets[0]->value->fingerprint, 401, SPAN("x"), SPAN("app"));
    second = make_setup(r, first);
    setup_unref(first);
    struct credential_health h;
    credential_health(setup_secrets(second), &sets[0], &h);
    assert_false(h.healthy);
    credential_health(setup_secrets(second), &sets[1], &h);
    assert_true(h.healthy);
    n_sets = 0;
    add_set("a", "r.example", "other", "env:TEST_PASSWORD");
    third = make_setup(r, second);
    credential_health(setup_secrets(third), &sets[0], &h);
    assert_true(h.healthy);
    assert_int_equal(h.refused, SECRET_REFUSALS); /* a counter does not go back */
    setup_unref(second);
    setup_unref(third);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, rig_folder_end)
    const struct CMUnitTest tests[] = {
        TEST(test_env),
        TEST(test_file),
        TEST(test_bad_files),
        TEST(test_other_bad_sets),
        TEST(test_too_long),
        TEST(test_changed_file),
        TEST(test_a_file_that_is_away),
        TEST(test_exec),
        TEST(test_exec_fails),
        TEST(test_exec_environment),
        TEST(test_exec_hangs),
        TEST(test_many_helpers_hang),
        TEST(test_dockerconfig),
        TEST(test_one_load_for_all),
        TEST(test_leaves_while_waiting),
        TEST(test_leaves_while_it_is_woken),
        TEST(test_stops_while_waiting),
        TEST(test_refused),
        TEST(test_refused_for_some_repositories),
        TEST(test_refused_for_all_repositories),
        TEST(test_taken_for_many_repositories),
        TEST(test_another_value_heals),
        TEST(test_one_probes),
        TEST(test_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
