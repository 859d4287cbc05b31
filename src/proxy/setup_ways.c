/* See setup_ways.h. The system's roots are shared by setups, and read again when their file has changed. */
#include "proxy/setup_ways.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/secret_mem.h"
#include "proxy/secret_source.h"

#define ROOTS_FILE "/etc/ssl/certs/ca-certificates.crt"
#define ROOTS_MAX  (8u << 20)
#define PEM_MAX    (1u << 20)
#define PATH_ROOM  8192

/* ---- the system's roots ---- */

static struct {
    pthread_mutex_t lock;
    bool known;
    struct stat st;            /* of the file that they are from */
    const struct trust *trust; /* NULL: there are none */
} roots = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What cannot be used takes nothing away. */
static void roots_read(const char *path)
{
    char text[512] = "";
    struct str why = STR_INIT(text);
    struct stat st;
    size_t n;
    const struct trust *trust = NULL;
    char *pem = secret_file_read(path, ROOTS_MAX, &n, &st, &why);
    if (pem != NULL)
        trust = trust_new(span_of(pem, n), NULL, false, &why);
    secret_free(pem);
    if (trust != NULL && trust_count(trust) > 0) {
        trust_unref(roots.trust);
        roots.trust = trust;
        roots.st = st;
        return;
    }
    trust_unref(trust);
    const char *what = text[0] != 0 ? text : "it has no root that can be used";
    if (roots.trust != NULL)
        log_warn("main", "the system's roots have changed and cannot be used; those from before stay",
                 LOG_S("file", path), LOG_S("why", what));
    else
        log_warn("main",
                 "no roots to verify certificates of registries with: install ca-certificates, or name a "
                 "file with "
                 "SSL_CERT_FILE or upstreams[].ca",
                 LOG_S("file", path), LOG_S("why", what));
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* A reference; NULL: there are none. */
static const struct trust *roots_now(void)
{
    struct stat st;
    const char *path = getenv("SSL_CERT_FILE"); /* what other programs with TLS take, too */
    if (path == NULL || path[0] == 0)
        path = ROOTS_FILE;
    pthread_mutex_lock(&roots.lock);
    if (!roots.known || (stat(path, &st) == 0 && !same_file(&st, &roots.st)))
        roots_read(path);
    roots.known = true;
    const struct trust *now = roots.trust != NULL ? trust_ref(roots.trust) : NULL;
    pthread_mutex_unlock(&roots.lock);
    return now;
}

/* ---- files that the configuration names ---- */

static void place(struct str *why, const struct conf *conf, struct conf_mark mark, const char *key)
{
    str_addf(why, SPAN_FMT ":%u:%u: %s: ", SPAN_ARG(conf->file), mark.line, mark.column, key);
}

static char *named_file(const struct conf *conf, const struct conf_path *p, const char *key, size_t *n,
                        struct str *why)
{
    char text[PATH_ROOM];
    struct str path = STR_INIT(text);
    struct stat st;
    place(why, conf, p->mark, key);
    conf_path_beside(conf->file, p->path, &path);
    str_addf(why, "%s: ", text);
    return secret_file_read(text, PEM_MAX, n, &st, why);
}

/* Each with its length, so that nothing runs into the next. */
static void note(struct hasher *h, struct span s)
{
    hasher_update(h, &s.n, sizeof s.n);
    if (s.n > 0)
        hasher_update(h, s.p, s.n);
}

static bool read_ca(struct dial_how *how, const struct setup_ways *w, const struct conf *conf,
                    const struct conf_upstream *up, struct hasher *reached, struct str *why)
{
    struct str before = *why;
    size_t n;
    how->trust = w->roots != NULL ? trust_ref(w->roots) : NULL;
    if (up->ca.path.p == NULL)
        return true;
    char *pem = named_file(conf, &up->ca, "upstreams[].ca", &n, why);
    if (pem == NULL)
        return false;
    note(reached, span_of(pem, n));
    const struct trust *own = trust_new(span_of(pem, n), w->roots, true, why);
    secret_free(pem);
    if (own == NULL)
        return false;
    trust_unref(how->trust);
    how->trust = own;
    *why = before;
    return true;
}

/* keys: the names of the certificate's key, of the private key's, and of what both stand in. False: *why. *out stays NULL when none is
 * named. reached: hears what is in the files; or NULL. */
static bool read_identity(const struct conf *conf, const struct conf_identity *named,
                          const char *const keys[3], const struct identity **out, struct hasher *reached,
                          struct str *why)
{
    struct str before = *why;
    size_t certificate_n, key_n;
    if (named->certificate.path.p == NULL)
        return true;
    char *certificate = named_file(conf, &named->certificate, keys[0], &certificate_n, why);
    if (certificate == NULL)
        return false;
    *why = before;
    char *key = named_file(conf, &named->key, keys[1], &key_n, why);
    if (key != NULL) {
        *why = before;
        if (reached != NULL) {
            note(reached, span_of(certificate, certificate_n));
            note(reached, span_of(key, key_n));
        }
        place(why, conf, named->certificate.mark, keys[2]);
        *out = identity_new(span_of(certificate, certificate_n), span_of(key, key_n), why);
        if (*out != NULL)
            *why = before;
    }
    secret_free(certificate);
    secret_free(key);
    return *out != NULL;
}

static const char *const client_keys[] = {"upstreams[].client_certificate.certificate",
                                          "upstreams[].client_certificate.key",
                                          "upstreams[].client_certificate"};
static const char *const listen_keys[] = {"listen[].tls.certificate", "listen[].tls.key", "listen[].tls"};

static bool read_listeners(struct setup_ways *w, const struct conf *conf, struct str *why)
{
    w->listen = mem_zalloc((conf->n_listen + 1) * sizeof *w->listen);
    for (; w->n_listen < conf->n_listen; w->n_listen++) {
        if (!read_identity(conf, &conf->listen[w->n_listen].tls, listen_keys, &w->listen[w->n_listen], NULL,
                           why))
            return false;
    }
    return true;
}

/* ---- proxies ---- */

static struct span variable(const char *upper, const char *lower)
{
    const char *value = getenv(upper);
    if (value == NULL || value[0] == 0)
        value = getenv(lower);
    return value != NULL && value[0] != 0 ? span_str(value) : SPAN_NONE;
}

static bool read_environment(struct setup_ways *w, struct str *why)
{
    struct str before = *why;
    str_addz(why, "environment: ");
    w->environment = proxies_new(variable("HTTPS_PROXY", "https_proxy"), variable("HTTP_PROXY", "http_proxy"),
                                 variable("NO_PROXY", "no_proxy"), why);
    if (w->environment == NULL)
        return false;
    *why = before;
    return true;
}

static bool read_proxy(struct dial_how *how, const struct setup_ways *w, const struct conf *conf,
                       const struct conf_upstream *up, struct str *why)
{
    struct str before = *why;
    how->proxies = w->environment;
    if (up->proxy.p == NULL)
        return true;
    how->proxies = NULL;
    if (span_eq(up->proxy, SPAN("direct")))
        return true;
    place(why, conf, up->proxy_mark, "upstreams[].proxy");
    how->proxies = proxies_one(up->proxy, why);
    if (how->proxies == NULL)
        return false;
    *why = before;
    return true;
}

/* ---- resolve ---- */

static void read_addresses(struct setup_ways *w, const struct conf *conf)
{
    w->addresses = mem_zalloc((conf->n_resolve + 1) * sizeof *w->addresses);
    for (size_t i = 0; i < conf->n_resolve; i++) {
        const struct conf_resolve *r = &conf->resolve[i];
        struct dial_address *a = &w->addresses[i];
        char text[INET6_ADDRSTRLEN];
        struct str s = STR_INIT(text);
        str_add(&s, r->address);
        a->host = r->host;
        a->addr.u.v4.sin_port = htons(r->port); /* at the same place in both families */
        if (inet_pton(AF_INET, text, &a->addr.u.v4.sin_addr) == 1) {
            a->addr.u.v4.sin_family = AF_INET;
            a->addr.len = sizeof a->addr.u.v4;
            continue;
        }
        MUST(inet_pton(AF_INET6, text, &a->addr.u.v6.sin6_addr) == 1); /* the loader has looked */
        a->addr.u.v6.sin6_family = AF_INET6;
        a->addr.len = sizeof a->addr.u.v6;
    }
}

static struct dial_how way(const struct setup_ways *w, const struct conf *conf)
{
    return (struct dial_how){
        .serial = dial_serial(), .addresses = w->addresses, .n_addresses = conf->n_resolve};
}

/* What the configuration itself says of it; the files follow as they are read. */
static void note_conf(struct hasher *h, const struct conf *conf, const struct conf_upstream *up)
{
    hasher_init(h, DIGEST_SHA256);
    note(h, up->proxy);
    for (size_t i = 0; i < up->n_endpoints; i++)
        note(h, up->endpoints[i].url);
    note(h, SPAN("")); /* no URL is empty */
    for (size_t i = 0; i < conf->n_resolve; i++) {
        note(h, conf->resolve[i].host);
        note(h, conf->resolve[i].address);
        hasher_update(h, &conf->resolve[i].port, sizeof conf->resolve[i].port);
    }
    note(h, SPAN(""));
}

static bool read_upstream(const struct setup_ways *w, const struct conf *conf, const struct conf_upstream *up,
                          struct dial_how *how, struct digest *reached, struct str *why)
{
    struct hasher h;
    *how = way(w, conf);
    note_conf(&h, conf, up);
    hasher_update(&h, &w->roots, sizeof w->roots); /* others than before, if their file has changed */
    bool ok = read_proxy(how, w, conf, up, why) && read_ca(how, w, conf, up, &h, why) &&
              read_identity(conf, &up->identity, client_keys, &how->identity, &h, why);
    hasher_finish(&h, reached);
    mem_wipe(&h, sizeof h); /* it has had a key */
    return ok;
}

bool setup_ways_begin(struct setup_ways *w, const struct conf *conf, struct str *why)
{
    w->roots = roots_now();
    read_addresses(w, conf);
    if (!read_environment(w, why) || !read_listeners(w, conf, why))
        return false;
    w->cloud = way(w, conf);
    w->cloud.trust = w->roots != NULL ? trust_ref(w->roots) : NULL;
    w->cloud.proxies = w->environment;
    w->local = way(w, conf);
    w->upstream = mem_zalloc((conf->n_upstreams + 1) * sizeof *w->upstream);
    w->beyond = mem_zalloc((conf->n_upstreams + 1) * sizeof *w->beyond);
    w->reached = mem_zalloc((conf->n_upstreams + 1) * sizeof *w->reached);
    for (; w->n < conf->n_upstreams; w->n++) {
        struct dial_how *how = &w->upstream[w->n];
        if (!read_upstream(w, conf, &conf->upstreams[w->n], how, &w->reached[w->n], why)) {
            w->n++; /* what it has is given back, too */
            return false;
        }
        w->beyond[w->n] = *how; /* what it points to is that one's */
        w->beyond[w->n].serial = dial_serial();
        w->beyond[w->n].identity = NULL;
    }
    return true;
}

void setup_ways_end(struct setup_ways *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct dial_how *how = &w->upstream[i];
        trust_unref(how->trust);
        identity_unref(how->identity);
        if (how->proxies != w->environment)
            proxies_free((struct proxies *)(uintptr_t)how->proxies);
    }
    for (size_t i = 0; i < w->n_listen; i++)
        identity_unref(w->listen[i]);
    trust_unref(w->cloud.trust);
    trust_unref(w->roots);
    mem_free(w->listen);
    mem_free(w->upstream);
    mem_free(w->beyond);
    mem_free(w->reached);
    proxies_free(w->environment);
    mem_free(w->addresses);
}
