/* Certificates for the tests of TLS, made with the openssl command in a folder that pki_close removes.
 *
 *     pki_open();
 *     pki_make(&(struct pki_how){"root", .cn = "Root", .authority = true});
 *     pki_make(&(struct pki_how){"leaf", .cn = "leaf.test", .issuer = "root", .names = "DNS:leaf.test"});
 *     pki_text("leaf", "root", NULL);   the certificates of these, one behind the other
 *     pki_key("leaf");
 */
#ifndef LARDER_TEST_NET_PKI_H
#define LARDER_TEST_NET_PKI_H

#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/span.h"

extern char **environ;

static char pki_folder[128];

#define PKI_PATH 512
#define PKI_TEXT (32 << 10)

static inline const char *pki_path(const char *name, const char *suffix)
{
    static char paths[32][PKI_PATH];
    static unsigned next;
    char *path = paths[next++ % 32];
    snprintf(path, PKI_PATH, "%s/%s%s", pki_folder, name, suffix);
    return path;
}

static inline void pki_open(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(pki_folder, sizeof pki_folder, "%s/larder-pki-XXXXXX", tmp != NULL ? tmp : P_tmpdir);
    MUST(mkdtemp(pki_folder) != NULL);
}

static inline void pki_close(void)
{
    DIR *dir = opendir(pki_folder);
    MUST(dir != NULL);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        if (e->d_name[0] != '.')
            unlink(pki_path(e->d_name, ""));
    closedir(dir);
    rmdir(pki_folder);
}

static inline void pki_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    MUST(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static inline size_t pki_load(const char *path, char *to, size_t cap)
{
    FILE *f = fopen(path, "r");
    MUST(f != NULL);
    size_t n = fread(to, 1, cap - 1, f);
    MUST(n < cap - 1);
    fclose(f);
    to[n] = '\0';
    return n;
}

/* Runs openssl; its words go to a file and are shown when it fails. */
static inline void pki_openssl(const char *const *argv)
{
    char words[4096];
    const char *log = pki_path("openssl", ".log");
    posix_spawn_file_actions_t io;
    pid_t pid;
    int status;
    MUST(posix_spawn_file_actions_init(&io) == 0);
    MUST(posix_spawn_file_actions_addopen(&io, 0, "/dev/null", O_RDONLY, 0) == 0);
    MUST(posix_spawn_file_actions_addopen(&io, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600) == 0);
    MUST(posix_spawn_file_actions_adddup2(&io, 1, 2) == 0);
    MUST(posix_spawnp(&pid, "openssl", &io, NULL, (char **)(uintptr_t)argv, environ) == 0);
    MUST(posix_spawn_file_actions_destroy(&io) == 0);
    MUST(waitpid(pid, &status, 0) == pid);
    if (status == 0)
        return;
    pki_load(log, words, sizeof words);
    fprintf(stderr, "openssl %s: %s\n", argv[1], words);
    abort();
}

struct pki_how {
    const char *file;         /* name of its files */
    const char *cn;           /* NULL: an organisation instead */
    const char *issuer;       /* file; NULL: signs itself */
    const char *key;          /* "P-256" when NULL, other curves, "rsa:2048" */
    const char *key_of;       /* the key of another one instead */
    const char *names;        /* subjectAltName */
    const char *extra;        /* further lines of extensions */
    const char *hash;         /* "sha256" when NULL */
    const char *from, *until; /* YYYYMMDDHHMMSSZ */
    bool authority;
};

static inline void pki_config(const struct pki_how *h, const char *path)
{
    char text[4096];
    snprintf(
        text, sizeof text,
        "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\n%s = %s\n"
        "[ca]\ndefault_ca = one\n[one]\ndatabase = %s\nnew_certs_dir = %s\nrand_serial = yes\npolicy = any\n"
        "unique_subject = no\nx509_extensions = extensions\n[any]\ncommonName = optional\norganizationName = "
        "optional\n"
        "[extensions]\nbasicConstraints = critical,CA:%s\n%s%s\n%s\n",
        h->cn != NULL ? "CN" : "O", h->cn != NULL ? h->cn : "Nameless Ltd", pki_path("index", ".txt"),
        pki_folder, h->authority ? "TRUE" : "FALSE", h->names != NULL ? "subjectAltName = " : "",
        h->names != NULL ? h->names : "", h->extra != NULL ? h->extra : "");
    pki_write(path, text);
    pki_write(pki_path("index", ".txt"), "");
}

static inline void pki_make_key(const struct pki_how *h, const char *path)
{
    char option[64], text[16 << 10];
    const char *kind = h->key != NULL ? h->key : "P-256";
    if (h->key_of != NULL) {
        pki_load(pki_path(h->key_of, ".key"), text, sizeof text);
        pki_write(path, text);
        return;
    }
    bool rsa = strncmp(kind, "rsa:", 4) == 0;
    if (strcmp(kind, "ed25519") == 0) {
        const char *argv[] = {"openssl", "genpkey", "-algorithm", "ED25519", "-out", path, NULL};
        pki_openssl(argv);
        return;
    }
    snprintf(option, sizeof option, "%s:%s", rsa ? "rsa_keygen_bits" : "ec_paramgen_curve",
             rsa ? kind + 4 : kind);
    const char *argv[] = {"openssl", "genpkey", "-algorithm", rsa ? "RSA" : "EC", "-pkeyopt", option,
                          "-out",    path,      NULL};
    pki_openssl(argv);
}

static inline void pki_make(const struct pki_how *h)
{
    const char *config = pki_path(h->file, ".cnf"), *key = pki_path(h->file, ".key");
    const char *request = pki_path(h->file, ".csr"), *out = pki_path(h->file, ".pem");
    const char *by = h->issuer != NULL ? h->issuer : h->file;
    pki_config(h, config);
    pki_make_key(h, key);
    const char *req[] = {"openssl", "req", "-new", "-config", config, "-key", key, "-out", request, NULL};
    pki_openssl(req);
    const char *ca[32] = {"openssl",    "ca",
                          "-batch",     "-notext",
                          "-config",    config,
                          "-in",        request,
                          "-out",       out,
                          "-startdate", h->from != NULL ? h->from : "20200101000000Z",
                          "-enddate",   h->until != NULL ? h->until : "20991231235959Z",
                          "-keyfile",   pki_path(by, ".key"),
                          "-md",        h->hash != NULL ? h->hash : "sha256"};
    unsigned n = 18;
    if (h->issuer == NULL) {
        ca[n++] = "-selfsign";
    } else {
        ca[n++] = "-cert";
        ca[n++] = pki_path(by, ".pem");
    }
    pki_openssl(ca);
}

/* The certificates of these files, up to a NULL. The text stays for the next 31 calls. */
static inline struct span pki_text(const char *first, ...)
{
    static char texts[32][PKI_TEXT];
    static unsigned next;
    char *text = texts[next++ % 32];
    size_t n = 0;
    va_list names;
    va_start(names, first);
    for (const char *name = first; name != NULL; name = va_arg(names, const char *))
        n += pki_load(pki_path(name, ".pem"), text + n, PKI_TEXT - n);
    va_end(names);
    return span_of(text, n);
}

static inline struct span pki_key(const char *file)
{
    static char text[16 << 10];
    return span_of(text, pki_load(pki_path(file, ".key"), text, sizeof text));
}

#endif
