/* See reload.h. A round's job owns what it makes (`next`) until it is done; the core looks at it only then. */
#include "main/reload.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/config_file.h"
#include "conf/changes.h"
#include "core/watch.h"

#define COMPLAINTS     50
#define COMPLAINTS_MAX (64u << 10)
#define CHANGES_LOGGED 100 /* of one reload; the rest is counted */
#define WATCHES_MAX    512 /* files that the configuration names */
#define RETRY_MS       3000

enum reload_state { RELOAD_IDLE, RELOAD_READING, RELOAD_SPREADING };

/* A file that the configuration names: a certificate, roots. */
struct named {
    char *path;
    struct file_watch *watch;
    bool wanted;
};

struct reload {
    struct reload_config c;
    struct conf *conf; /* the one that is in force: a reference */
    enum reload_state state;
    bool again, forced, retried, stopping; /* the next round: because of what */
    struct file_watch *watch;              /* NULL: the file is none that can be read again */
    struct named named[WATCHES_MAX];
    size_t n_named;
    bool crowded; /* there was no room for all: as of the last round */

    struct job job;
    uint64_t seen; /* fingerprint of the text that was looked at last */
    struct {
        bool forced, retried, same;
        bool at_fault; /* the text itself is not good: no other round will find it so */
        uint64_t fingerprint;
        struct conf *conf;   /* NULL: not good */
        struct setup *setup; /* NULL: not good */
        struct config_warnings warnings;
        struct str complaints;
    } next;

    struct timer retry; /* armed: what was refused is tried again */
    uint64_t refused;   /* hash of the complaints that were logged last */

    bool good;
    int64_t good_ms; /* wall clock */
    char why[1024];  /* not good: the first complaint */
    uint64_t n_good, n_bad;
};

static void round_begin(struct reload *r);

/* ---- on the pool ---- */

static struct conf *load(struct reload *r, struct span text)
{
    struct conf_error *list = mem_zalloc(COMPLAINTS * sizeof *list);
    struct conf_errors errors = {.list = list,
                                 .cap = COMPLAINTS,
                                 .warnings = r->next.warnings.list,
                                 .cap_warnings = ARRAY_LEN(r->next.warnings.list)};
    struct conf *c = conf_load(text, span_str(r->c.path), &errors);
    r->next.warnings.n = errors.n_warnings;
    r->next.warnings.left_out = errors.warnings_left_out;
    for (size_t i = 0; i < errors.n; i++) {
        conf_error_text(&list[i], span_str(r->c.path), &r->next.complaints);
        str_addc(&r->next.complaints, '\n');
    }
    if (errors.left_out > 0)
        conf_left_out_text(errors.left_out, span_str(r->c.path), &r->next.complaints);
    mem_free(list);
    return c;
}

/* False: the complaints say why. */
static bool read_text(struct reload *r, char **text, size_t *n)
{
    const char *why = NULL;
    bool ok = false;
    *text = NULL;
    int fd = config_open(r->c.path, &why);
    if (fd >= 0) {
        ok = config_read_text(fd, text, n, &why);
        close(fd);
    }
    if (ok && *n == 0) {
        ok = false;
        why = CONFIG_EMPTY;
    }
    if (!ok)
        str_addf(&r->next.complaints, "%s: cannot read the configuration: %s", r->c.path, why);
    return ok;
}

static void read_work(struct job *j)
{
    struct reload *r = CONTAINER_OF(j, struct reload, job);
    char *text;
    size_t n = 0;
    str_reset(&r->next.complaints);
    r->next.warnings.n = r->next.warnings.left_out = 0;
    bool ok = read_text(r, &text, &n);
    r->next.fingerprint = map_hash(ok ? span_of(text, n) : str_span(&r->next.complaints));
    r->next.same = !r->next.forced && r->next.fingerprint == r->seen;
    if (ok && !r->next.same)
        r->next.conf = load(r, span_of(text, n));
    r->next.at_fault = ok && r->next.conf == NULL;
    mem_free(text);
    if (r->next.conf == NULL)
        return;
    struct setup *before = proxy_setup(r->c.shared);
    r->next.setup = setup_new(r->next.conf, before, r->c.n_cores, &r->next.complaints);
    setup_unref(before);
}

/* ---- what is said ---- */

static void log_complaint(struct span line)
{
    log_error("main", "configuration not taken, the one before stays in force", LOG_SP("why", line));
}

static void log_complaints(struct reload *r)
{
    struct span rest = str_span(&r->next.complaints), line;
    while (span_next(&rest, '\n', &line)) {
        if (line.n > 0)
            log_complaint(line);
    }
}

struct telling {
    unsigned n;
};

static void tell(const struct conf_change *c, void *arg)
{
    struct telling *t = arg;
    if (t->n++ >= CHANGES_LOGGED && !c->restart)
        return;
    if (c->restart)
        log_warn("main", "a setting has changed that takes effect after a restart", LOG_SP("key", c->name));
    else
        log_info("main", "configuration changed", LOG_S("what", c->what), LOG_SP("name", c->name),
                 LOG_S("how", conf_change_word(c->kind)), LOG_SP("keys", c->detail));
}

static void log_taken(struct reload *r)
{
    struct telling t = {0};
    conf_changes(r->conf, r->next.conf, tell, &t);
    config_warnings_log(&r->next.warnings, r->next.conf->file);
    log_info("main", "configuration reloaded", LOG_S("file", r->c.path), LOG_U("changes", t.n),
             LOG_U("rules", r->next.conf->n_rules));
}

/* ---- files that the configuration names ---- */

static void on_named_changed(void *arg)
{
    reload_now(arg);
}

static struct named *named_find(struct reload *r, struct span path)
{
    for (size_t i = 0; i < r->n_named; i++) {
        if (span_eq(span_str(r->named[i].path), path))
            return &r->named[i];
    }
    return NULL;
}

static void watch_path(struct reload *r, const struct conf *c, const struct conf_path *p)
{
    char text[8192];
    struct str path = STR_INIT(text);
    if (p->path.p == NULL)
        return;
    conf_path_beside(c->file, p->path, &path);
    struct named *n = named_find(r, str_span(&path));
    if (path.cut || (n == NULL && r->n_named == WATCHES_MAX)) {
        r->crowded = true;
        return;
    }
    if (n == NULL) {
        n = &r->named[r->n_named++];
        n->path = mem_strdup(text);
        n->watch = file_watch_new(r->c.core, text, false, on_named_changed, r);
    }
    n->wanted = true;
}

static void unwatch(struct reload *r, struct named *n)
{
    file_watch_free(n->watch);
    mem_free(n->path);
    *n = r->named[--r->n_named];
}

static void watch_files(struct reload *r, const struct conf *c)
{
    for (size_t i = 0; i < c->n_listen; i++) {
        watch_path(r, c, &c->listen[i].tls.certificate);
        watch_path(r, c, &c->listen[i].tls.key);
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        watch_path(r, c, &c->upstreams[i].ca);
        watch_path(r, c, &c->upstreams[i].identity.certificate);
        watch_path(r, c, &c->upstreams[i].identity.key);
    }
}

/* Those of the configuration in force, and of the one that was refused (or NULL): it may have been refused for one of its files. A watch
 * that stays is not begun anew, because what has happened since the files were read would be lost. */
static void watch_named(struct reload *r, const struct conf *refused)
{
    bool before = r->crowded;
    r->crowded = false;
    for (size_t i = 0; i < r->n_named; i++)
        r->named[i].wanted = false;
    watch_files(r, r->conf);
    if (refused != NULL)
        watch_files(r, refused);
    for (size_t i = r->n_named; i-- > 0;) {
        if (!r->named[i].wanted)
            unwatch(r, &r->named[i]);
    }
    if (r->crowded && !before)
        log_warn(
            "main",
            "more files are named than can be watched; send SIGHUP when one of the last ones has changed",
            LOG_U("watched", r->n_named));
}

/* ---- a round's end ---- */

static void next_drop(struct reload *r)
{
    conf_unref(r->next.conf);
    setup_unref(r->next.setup);
    r->next.conf = NULL;
    r->next.setup = NULL;
}

static void round_end(struct reload *r)
{
    r->state = RELOAD_IDLE;
    if (r->again && !r->stopping)
        round_begin(r);
}

/* A file that cannot be read, one that it names, an address that somebody else has: that may be otherwise in a moment, and nothing tells
 * when. What is found again by trying again is not said again. */
static void round_refused(struct reload *r)
{
    struct span rest = str_span(&r->next.complaints), line = SPAN("");
    uint64_t refused = map_hash(rest);
    if (!r->next.at_fault)
        timer_arm(r->c.core, &r->retry, RETRY_MS);
    if (!r->next.retried || refused != r->refused) {
        struct str why = STR_INIT(r->why);
        log_complaints(r);
        (void)span_next(&rest, '\n', &line);
        str_add(&why, line);
        r->refused = refused;
        r->good = false;
        r->n_bad += !r->next.retried;
        watch_named(r, r->next.conf);
    }
    next_drop(r);
    round_end(r);
}

static void round_taken(struct reload *r)
{
    r->good = true;
    r->retried = false;
    r->good_ms = clock_wall_ms();
    r->n_good++;
    log_taken(r);
    log_setup(r->next.conf->log_level, r->next.conf->log_format);
    conf_unref(r->conf);
    r->conf = conf_ref(r->next.conf);
    r->c.took(r->conf, r->c.arg);
    watch_named(r, NULL);
    proxy_reload(r->c.shared, r->next.setup);
    next_drop(r);
    r->state = RELOAD_SPREADING;
    r->c.spread(r->c.arg);
}

static void on_read(struct job *j)
{
    struct reload *r = CONTAINER_OF(j, struct reload, job);
    if (r->stopping || r->next.same) {
        next_drop(r);
        round_end(r);
        return;
    }
    r->seen = r->next.fingerprint;
    timer_disarm(&r->retry);
    /* Addresses are part of what must be good: one that cannot be opened refuses the file. */
    if (r->next.setup != NULL && sockets_follow(r->c.sockets, r->next.conf, &r->next.complaints)) {
        round_taken(r);
        return;
    }
    if (!r->next.at_fault)
        str_addf(&r->next.complaints, " (tried again every %d s)", RETRY_MS / 1000);
    round_refused(r);
}

static void round_begin(struct reload *r)
{
    r->state = RELOAD_READING;
    r->next.forced = r->forced || r->retried;
    r->next.retried = r->retried && !r->forced;
    r->again = r->forced = r->retried = false;
    job_start(r->c.core, &r->job, read_work, on_read);
}

/* ---- the outside ---- */

static void look(struct reload *r)
{
    r->again = true;
    if (r->state == RELOAD_IDLE)
        round_begin(r);
}

static void on_changed(void *arg)
{
    look(arg);
}

static void on_retry(struct timer *t)
{
    struct reload *r = CONTAINER_OF(t, struct reload, retry);
    r->retried = true;
    look(r);
}

void reload_now(struct reload *r)
{
    r->forced = true;
    look(r);
}

void reload_spread(struct reload *r)
{
    MUST(r->state == RELOAD_SPREADING);
    sockets_settle(r->c.sockets);
    round_end(r);
}

/* What was read from a pipe, as of a shell's <(command), is not there a second time. */
static bool can_be_read_again(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 || S_ISREG(st.st_mode);
}

struct reload *reload_start(const struct reload_config *config)
{
    struct reload *r;
    NEW(r);
    r->c = *config;
    r->state = RELOAD_SPREADING;
    r->conf = conf_ref(config->conf);
    r->seen = config->conf->fingerprint;
    r->good = true;
    r->good_ms = clock_wall_ms();
    r->next.complaints = str_init(mem_alloc(COMPLAINTS_MAX), COMPLAINTS_MAX);
    timer_init(&r->retry, on_retry);
    if (can_be_read_again(config->path))
        r->watch = file_watch_new(config->core, config->path, true, on_changed, r);
    else
        log_info("main", "the configuration is no regular file, and is not watched",
                 LOG_S("file", config->path));
    watch_named(r, NULL);
    return r;
}

void reload_stop(struct reload *r)
{
    if (r->watch != NULL)
        file_watch_free(r->watch);
    while (r->n_named > 0)
        unwatch(r, &r->named[0]);
    timer_disarm(&r->retry);
    r->stopping = true;
}

void reload_free(struct reload *r)
{
    MUST(r->stopping);
    conf_unref(r->conf);
    mem_free(r->next.complaints.p);
    mem_free(r);
}

void reload_metrics(const struct reload *r, struct str *out)
{
    str_add(out, SPAN("# HELP larder_config_last_reload_successful Whether the configuration file, as it is "
                      "now, is in force.\n"
                      "# TYPE larder_config_last_reload_successful gauge\n"));
    str_addf(out, "larder_config_last_reload_successful %d\n", r->good);
    str_add(out, SPAN("# HELP larder_config_last_reload_success_timestamp_seconds When the configuration in "
                      "force was taken.\n"
                      "# TYPE larder_config_last_reload_success_timestamp_seconds gauge\n"));
    str_addf(out, "larder_config_last_reload_success_timestamp_seconds %.3f\n", (double)r->good_ms / 1000);
    str_add(out, SPAN("# HELP larder_config_reloads_total Times the configuration was read anew.\n"
                      "# TYPE larder_config_reloads_total counter\n"));
    str_addf(out, "larder_config_reloads_total{result=\"taken\"} %llu\n", (unsigned long long)r->n_good);
    str_addf(out, "larder_config_reloads_total{result=\"refused\"} %llu\n", (unsigned long long)r->n_bad);
}

void reload_look(const struct reload *r, struct reload_state_now *out)
{
    *out = (struct reload_state_now){.good = r->good, .good_ms = r->good_ms, .why = r->why};
}
