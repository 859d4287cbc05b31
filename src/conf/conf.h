/* The configuration: from YAML text to an immutable, validated, refcounted snapshot. Opens no files, no
 * sockets.
 *
 * A snapshot is built by one thread, then read by all; whoever holds a reference may read everything in it. A
 * running exchange keeps the snapshot it started with. Names of keys: design of the configuration file in
 * README.md; types, limits and defaults: schema.def, from which the loader, `larder check --schema` and
 * the documentation are made. */
#ifndef LARDER_CONF_CONF_H
#define LARDER_CONF_CONF_H

#include "base/log.h"
#include "base/ref.h"
#include "base/span.h"
#include "base/str.h"
#include "registry/known.h"

struct conf_mark { /* where in the file; 1-based, as editors count; column in characters */
    unsigned line, column;
};

/* A file that the configuration names; it is read by whoever needs it, not here. Relative to the configuration file's folder. */
struct conf_path {
    struct span path; /* absent: not set */
    struct conf_mark mark;
};

/* A certificate chain and its key. */
struct conf_identity {
    struct conf_path certificate, key; /* both or none */
};

/* Where a secret is; never the secret itself (but for SECRET_TEXT, a user's name). */
enum conf_secret_kind {
    SECRET_NONE,
    SECRET_TEXT,         /* as written; only for a username */
    SECRET_ENV,          /* env:NAME */
    SECRET_FILE,         /* file:PATH */
    SECRET_VAULT,        /* https://NAME.vault.azure.net/secrets/SECRET[/VERSION], or a sovereign cloud's */
    SECRET_DOCKERCONFIG, /* dockerconfig:PATH */
    SECRET_EXEC          /* exec:HELPER */
};

struct conf_secret {
    enum conf_secret_kind kind;
    struct span text; /* as written */
    struct span arg;  /* behind the scheme; SECRET_VAULT: all of it */
    struct conf_mark mark;
};

struct conf_credential_set {
    struct span name;
    struct span login_server; /* canonical registry name */
    struct conf_secret
        username; /* SECRET_NONE: it comes with the password (SECRET_DOCKERCONFIG, SECRET_EXEC) */
    struct conf_secret password;
    struct conf_mark mark;
    unsigned index; /* position in conf->credential_sets */
};

struct conf_listen {
    struct span address; /* as written, "0.0.0.0:5000" */
    struct span
        host; /* an IP address in its usual form: "0.0.0.0" (also for ":5000"), "::1" (also for "0::1") */
    uint16_t port; /* 0: the kernel picks one */
    struct conf_identity tls;
    struct conf_mark mark;
};

/* A fill that nobody waits for. */
enum conf_abandoned {
    ABANDONED_FINISH,
    ABANDONED_KEEP, /* stop; what is there waits for the next one who asks */
    ABANDONED_AUTO  /* finish when more than half is here, or less than CONF_LITTLE is missing; else keep */
};

#define CONF_LITTLE (UINT64_C(16) << 20)

/* Are tags that are in use revalidated ahead of their time? */
enum conf_refresh {
    REFRESH_OFF,
    REFRESH_TAGS,
    REFRESH_IMAGES /* and what a tag names anew is fetched for the platforms that are here of what it named before */
};

/* Policy that `defaults` sets and a rule may override. */
struct conf_policy {
    int64_t tag_ttl_ms;
    int64_t stale_if_error_ms;
    int64_t negative_ttl_ms;
    bool serve_on_404; /* on_upstream_404: serve (true) or refuse */
    enum conf_abandoned on_abandoned;
    enum conf_refresh refresh;
    const struct span *immutable_tags; /* patterns (pattern.h) of tags that never move */
    size_t n_immutable_tags;
};

#define CONF_PREFIX_MAX 512 /* stands before every path that is asked for (UPSTREAM_PATH_MAX) */

struct conf_endpoint {
    struct span url; /* as written, without a trailing slash */
    bool tls;
    struct span host; /* without brackets, lower case */
    uint16_t port;
    struct span prefix; /* path before /v2/, "" or "/mirror" */
    struct conf_mark mark;
};

struct conf_timeouts {
    int64_t connect_ms, first_byte_ms, idle_ms;
};

/* How a registry is reached. Every registry that a rule names has one, written or implied. */
struct conf_upstream {
    struct span registry; /* canonical name: "docker.io", "registry.corp.example:8443" */
    const struct conf_endpoint *endpoints;
    size_t n_endpoints; /* at least 1 */
    struct conf_timeouts timeouts;
    uint64_t max_connections;           /* per origin, all cores together, idle ones too */
    uint64_t max_manifest;              /* bytes */
    const struct known_registry *known; /* what is special about it; NULL: nothing is known */
    struct conf_path ca;                /* roots on top of the system's */
    struct conf_identity identity;      /* client certificate */
    struct span proxy; /* URL; "direct": none, whatever the environment says; absent: the environment's */
    struct conf_mark proxy_mark;
    const struct conf_endpoint *token_realms; /* origins that may see credentials (prefix is not used) */
    size_t n_token_realms;
    const struct span *redirect_hosts; /* hosts on private addresses that redirects may lead to; lower case */
    size_t n_redirect_hosts;
    unsigned index; /* position in conf->upstreams */
};

struct conf_rule {
    struct span name;
    struct span source; /* as written: "docker.io/library/hello-world", "mcr.microsoft.com/dotnet/(star)" */
    struct span target; /* as written */
    bool wildcard;
    struct span registry;      /* canonical */
    struct span source_prefix; /* repository at upstream; for a wildcard what comes before the star: "" or
                                  "dotnet/" */
    struct span target_prefix; /* likewise for our side */
    const struct conf_upstream *upstream;
    const struct conf_credential_set *credential_set; /* NULL: anonymous */
    struct conf_policy policy;
    struct conf_mark mark;
    unsigned index; /* position in conf->rules: the label of counters */
};

/* resolve: a host is here, whatever DNS says. */
struct conf_resolve {
    struct span host;    /* lower case */
    struct span address; /* IP literal, without brackets */
    uint16_t port;       /* 0: the origin's */
};

struct conf_rules; /* compiled matcher */

struct conf {
    struct ref ref;
    struct arena *arena;
    struct span file;     /* name for messages */
    uint64_t fingerprint; /* of the text: equal texts have equal ones */

    const struct conf_listen *listen;
    size_t n_listen;
    struct conf_listen admin;
    unsigned workers; /* 0: one per processor */

    struct span store_path;
    struct {
        uint64_t max_size;         /* 0: no limit */
        uint64_t min_free;         /* 0: no matter */
        unsigned min_free_percent; /* of the file system: instead of min_free */
        int64_t max_age_ms;        /* 0: content may stay */
        int64_t partial_age_ms;
        uint64_t scrub_rate; /* bytes a second; 0: none */
    } store;

    /* limits of the client side */
    struct {
        int64_t header_ms, idle_ms, send_ms, drain_ms;
        uint64_t max_connections; /* all cores together */
    } client;

    const struct conf_upstream *upstreams;
    size_t n_upstreams;
    const struct conf_credential_set *credential_sets;
    size_t n_credential_sets;
    const struct conf_resolve *resolve;
    size_t n_resolve;
    const struct conf_rule *rules;
    size_t n_rules;
    bool mirror; /* ?ns= is answered */

    enum log_level log_level;
    enum log_format log_format;
    bool log_access;

    struct conf_rules *compiled;
};

/* One complaint: the place, what is wrong, and what to do. */
struct conf_error {
    struct conf_mark mark; /* line 0: the file as a whole */
    char text[512];
};

struct conf_errors {
    struct conf_error *list;
    size_t n;
    size_t cap;      /* at least 1; of more complaints than that the first ones of the file are kept */
    size_t left_out; /* so many others there were */
    /* Warnings do not refuse the file: a Docker Hub rule without credentials, say. Only a file without errors has them. NULL: not
     * wanted. */
    struct conf_error *warnings;
    size_t n_warnings, cap_warnings, warnings_left_out;
};

/* Builds a snapshot from the file's text; `file` is only used in messages. NULL: at least one error was
 * written. All independent mistakes are reported in one go, in file order. */
struct conf *conf_load(struct span text, struct span file, struct conf_errors *errors) MUSTCHECK;

/* Of a text that need not be good, only `file` and `admin`: a running server can be asked although its file has been spoiled. NULL: nobody
 * can tell where it listens. There are no complaints: they are conf_load's. */
struct conf *conf_load_admin(struct span text, struct span file) MUSTCHECK;

struct conf *conf_ref(struct conf *c);
void conf_unref(struct conf *c); /* NULL is a no-op */

/* Where a file is that the configuration names: a relative path begins at the configuration file's folder. */
void conf_path_beside(struct span config_file, struct span path, struct str *out);

/* "file:line:column: text" */
void conf_error_text(const struct conf_error *e, struct span file, struct str *out);
/* "file: and 3 more", the last line of a list */
void conf_left_out_text(size_t n, struct span file, struct str *out);

/* Finds the rule for a client's repository (by target), and the repository's name at upstream. NULL: none.
 * A rule without wildcard wins over a wildcard; wildcards never overlap. Cost does not depend on how many
 * rules there are. upstream_repo (NAME_REPO_MAX + 1 bytes are enough) is overwritten; without a rule its text means
 * nothing. */
const struct conf_rule *conf_match_target(const struct conf *c, struct span repo, struct str *upstream_repo);

/* The same by source, for ?ns=REGISTRY: repo is the client's name in that registry ("nginx" at docker.io
 * means "library/nginx"). ns is as the client wrote it (any case, aliases); an unknown or malformed one gives
 * NULL. Among the rules whose source covers it, one without wildcard wins, then the longest. */
const struct conf_rule *conf_match_source(const struct conf *c, struct span ns, struct span repo,
                                          struct str *upstream_repo);

/* Does a name under ?ns= begin with the target of a rule for that registry, as that of a client does which has been told to put it in front?
 * Then the rule's repository is meant, and not the registry's own of that name; unless both are one: upstream_repo is what
 * conf_match_source has found. */
bool conf_names_target(const struct conf *c, struct span ns, struct span repo, struct span upstream_repo);

/* One key of the table, for people. All but the type is text that is always there. */
struct conf_schema_line {
    const char *section; /* "", "rules[]." */
    const char *words;   /* what the section is: "the configuration", "a rule" */
    const char *name;
    char type[64];   /* with its limits: "number 1..65535" */
    const char *def; /* as it would be written; "": none; NULL: the key must be given */
    const char *doc;
};

/* The i-th key, in the order of the table; false: there are no more. */
bool conf_schema_line(size_t i, struct conf_schema_line *out);

/* The table of keys, as text for people: key, type, default, what it means. */
void conf_schema_text(struct str *out);

#endif
