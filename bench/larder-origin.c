/* An upstream registry for benchmarks: serves generated objects, or an OCI layout from a directory, over plain HTTP/1.1, at a
 * settable rate per connection and after a settable delay, and counts what it was asked.
 *
 * One thread. A connection goes READ -> DELAY -> HEAD -> BODY -> READ. In DELAY, and in BODY when the rate does not
 * allow more yet, it is on the waiting list with the time at which it goes on; everything else waits for epoll. Every
 * object is a file descriptor (generated ones live in memory files), so bodies go out by sendfile.
 *
 * Names are not checked: every object is in every repository. Only a tag belongs to its repository, unless it comes from
 * a directory. */
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <llhttp.h>
#include <nettle/sha2.h>
#include <signal.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "util.h"

#define TICK_NS       (5 * NS_PER_MS)
#define BURST_NS      (4 * TICK_NS) /* credit that a connection may save up while its client does not read */
#define SEND_WINDOW   (1u << 20)
#define IN_MAX        8192
#define OUT_MAX       4096
#define TYPE_BLOB     "application/octet-stream"
#define TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define TYPE_INDEX    "application/vnd.oci.image.index.v1+json"
#define TYPE_CONFIG   "application/vnd.oci.image.config.v1+json"
#define TYPE_LAYER    "application/vnd.oci.image.layer.v1.tar+gzip"

struct object {
    char digest[72]; /* "sha256:..." */
    char *type;
    bool manifest;
    int fd;
    uint64_t size;
    uint64_t gets; /* since the counts were last cleared */
};

struct tag {
    char *repo; /* NULL: any */
    char *name;
    size_t object;
};

static struct {
    const char *listen, *dir;
    uint64_t rate; /* bytes per second and connection; 0: no limit */
    int64_t delay; /* ns before a head */
    unsigned images, layers, shared;
    uint64_t layer_size, seed;
    bool index;
    uint64_t *blobs;
    size_t n_blobs;
} opt = {.listen = "127.0.0.1:0", .layers = 5, .layer_size = 4u << 20, .seed = 1};

static struct object *objects;
static size_t n_objects;
static struct tag *tags;
static size_t n_tags;

enum kind {
    KIND_PING,
    KIND_MANIFEST_GET,
    KIND_MANIFEST_HEAD,
    KIND_BLOB_GET,
    KIND_BLOB_HEAD,
    KIND_OTHER,
    KIND_COUNT
};

static const char *const KIND_WORDS[KIND_COUNT] = {"ping",     "manifest_get", "manifest_head",
                                                   "blob_get", "blob_head",    "other"};

static struct {
    uint64_t requests[KIND_COUNT], bytes[KIND_COUNT];
    uint64_t not_found, ranges, connections;
    int64_t first_blob_byte, last_blob_byte; /* when they were handed to the kernel; 0: none */
} counts;

enum state { STATE_READ, STATE_DELAY, STATE_HEAD, STATE_BODY };

struct conn {
    int fd;
    enum state state;
    bool closing; /* after this answer */
    bool waiting; /* on the waiting list */
    size_t waiting_at;
    uint32_t watching;
    int64_t wake;

    llhttp_t parser;
    char in[IN_MAX];
    const char *rest; /* of in, not parsed yet */
    size_t n_rest;
    char url[1024], field[16], value[128];
    size_t n_url, n_field, n_value;
    char range[128]; /* empty: absent */
    bool complete;

    char out[OUT_MAX];
    size_t n_out, out_sent;
    enum kind kind;
    int body; /* descriptor; -1: none */
    off_t at;
    uint64_t left;
    bool blocked;       /* the client had not read: the socket was full */
    int64_t paced_from; /* the time from which the rate counts */
    uint64_t paced;     /* bytes since then */
};

static struct conn **waiting;
static size_t n_waiting, cap_waiting;
static int epoll_fd;

/* ---- objects ---- */

static size_t object_add(const char *digest, const char *type, int fd, uint64_t size, bool manifest)
{
    objects = xgrow(objects, n_objects + 1, sizeof *objects);
    struct object *o = &objects[n_objects];
    *o = (struct object){.type = xprintf("%s", type), .fd = fd, .size = size, .manifest = manifest};
    snprintf(o->digest, sizeof o->digest, "%s", digest);
    return n_objects++;
}

static void digest_finish(struct sha256_ctx *hash, char digest[72])
{
    uint8_t raw[SHA256_DIGEST_SIZE];
    sha256_digest(hash, sizeof raw, raw);
    int n = snprintf(digest, 72, "sha256:");
    for (unsigned i = 0; i < sizeof raw; i++)
        n += snprintf(digest + n, 72 - (size_t)n, "%02x", raw[i]);
}

static int memory_file(void)
{
    int fd = memfd_create("larder-origin", MFD_CLOEXEC);
    if (fd < 0)
        die("memfd_create: %s", strerror(errno));
    return fd;
}

static void write_all(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0)
            die("writing an object to memory: %s", strerror(errno));
        p += w;
        n -= (size_t)w;
    }
}

static size_t object_text(const char *text, const char *type, bool manifest)
{
    struct sha256_ctx hash;
    char digest[72];
    sha256_init(&hash);
    sha256_update(&hash, strlen(text), (const uint8_t *)text);
    digest_finish(&hash, digest);
    int fd = memory_file();
    write_all(fd, text, strlen(text));
    return object_add(digest, type, fd, strlen(text), manifest);
}

/* Bytes that depend on size and seed only. */
static size_t object_random(uint64_t size, uint64_t seed, const char *type)
{
    static uint64_t chunk[1u << 17];
    struct sha256_ctx hash;
    char digest[72];
    sha256_init(&hash);
    int fd = memory_file();
    uint64_t rng = seed * 0x2545f4914f6cdd1dull + size;
    for (uint64_t left = size; left > 0;) {
        size_t n = left < sizeof chunk ? (size_t)left : sizeof chunk;
        for (size_t i = 0; i < (n + 7) / 8; i++)
            chunk[i] = random_next(&rng);
        sha256_update(&hash, n, (const uint8_t *)chunk);
        write_all(fd, chunk, n);
        left -= n;
    }
    digest_finish(&hash, digest);
    return object_add(digest, type, fd, size, false);
}

static void tag_add(const char *repo, const char *name, size_t object)
{
    tags = xgrow(tags, n_tags + 1, sizeof *tags);
    tags[n_tags++] = (struct tag){
        .repo = repo != NULL ? xprintf("%s", repo) : NULL, .name = xprintf("%s", name), .object = object};
    printf("image %s:%s %s\n", repo != NULL ? repo : "*", name, objects[object].digest);
}

static json_t *descriptor(size_t object)
{
    const struct object *o = &objects[object];
    return json_pack("{s:s, s:s, s:I}", "mediaType", o->type, "digest", o->digest, "size",
                     (json_int_t)o->size);
}

static size_t object_json(json_t *doc, const char *type, bool manifest)
{
    char *text = json_dumps(doc, JSON_INDENT(2));
    if (text == NULL)
        die("out of memory");
    size_t object = object_text(text, type, manifest);
    free(text);
    json_decref(doc);
    return object;
}

static void image_make(unsigned number, const size_t *shared)
{
    uint64_t rng = opt.seed * 1000003 + number;
    size_t config = object_json(
        json_pack("{s:s, s:s, s:i}", "architecture", "amd64", "os", "linux", "number", (int)number),
        TYPE_CONFIG, false);
    json_t *layers = json_array();
    for (unsigned i = 0; i < opt.layers; i++) {
        size_t layer;
        if (i < opt.shared)
            layer = shared[i];
        else /* a quarter to seven quarters of the mean */
            layer = object_random((uint64_t)((0.25 + 1.5 * random_unit(&rng)) * (double)opt.layer_size) + 1,
                                  random_next(&rng), TYPE_LAYER);
        json_array_append_new(layers, descriptor(layer));
    }
    size_t top = object_json(json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", TYPE_MANIFEST,
                                       "config", descriptor(config), "layers", layers),
                             TYPE_MANIFEST, true);
    if (opt.index) {
        json_t *child = descriptor(top);
        json_object_set_new(child, "platform",
                            json_pack("{s:s, s:s}", "architecture", "amd64", "os", "linux"));
        top = object_json(
            json_pack("{s:i, s:s, s:[o]}", "schemaVersion", 2, "mediaType", TYPE_INDEX, "manifests", child),
            TYPE_INDEX, true);
    }
    char *repo = xprintf("img-%u", number);
    tag_add(repo, "latest", top);
    free(repo);
}

static void images_make(void)
{
    size_t *shared = xzalloc(opt.shared, sizeof *shared);
    for (unsigned i = 0; i < opt.shared && opt.images > 0; i++)
        shared[i] = object_random(opt.layer_size, opt.seed * 7907 + i, TYPE_LAYER);
    for (unsigned i = 0; i < opt.images; i++)
        image_make(i, shared);
    free(shared);
    for (size_t i = 0; i < opt.n_blobs; i++) {
        size_t o = object_random(opt.blobs[i], opt.seed + i, TYPE_BLOB);
        printf("blob %s %llu\n", objects[o].digest, (unsigned long long)objects[o].size);
    }
}

/* ---- a directory: an OCI layout ---- */

static struct object *object_find(const char *digest)
{
    for (size_t i = 0; i < n_objects; i++)
        if (strcmp(objects[i].digest, digest) == 0)
            return &objects[i];
    return NULL;
}

static bool digest_is_plain(const char *digest)
{
    return strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == 71 &&
           strspn(digest + 7, "0123456789abcdef") == 64;
}

static struct object *object_load(const char *digest, const char *type, bool manifest)
{
    struct object *o = object_find(digest);
    if (o != NULL || opt.dir == NULL || !digest_is_plain(digest))
        return o;
    char *path = xprintf("%s/blobs/sha256/%s", opt.dir, digest + 7);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    struct stat st;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return NULL;
    }
    size_t added = object_add(digest, type, fd, (uint64_t)st.st_size, manifest); /* may move the table */
    return &objects[added];
}

/* Walks an index or a manifest so that everything below it is known with its media type. */
static void layout_walk(const json_t *list, bool tagged)
{
    size_t i;
    json_t *d;
    json_array_foreach(list, i, d)
    {
        const char *digest = json_string_value(json_object_get(d, "digest"));
        const char *type = json_string_value(json_object_get(d, "mediaType"));
        if (digest == NULL || type == NULL || object_load(digest, type, true) == NULL)
            die("%s: the index names %s, which is not there", opt.dir,
                digest != NULL ? digest : "something without a digest");
        const char *name = json_string_value(
            json_object_get(json_object_get(d, "annotations"), "org.opencontainers.image.ref.name"));
        if (tagged)
            tag_add(NULL, name != NULL ? name : "latest", (size_t)(object_find(digest) - objects));
        char *path = xprintf("%s/blobs/sha256/%s", opt.dir, digest + 7);
        json_t *doc = json_load_file(path, 0, NULL);
        free(path);
        layout_walk(json_object_get(doc, "manifests"), false);
        json_decref(doc);
    }
}

static void layout_load(void)
{
    char *path = xprintf("%s/index.json", opt.dir);
    json_error_t e;
    json_t *doc = json_load_file(path, 0, &e);
    if (doc == NULL)
        die("%s: line %d: %s; --dir wants an OCI layout, as \"skopeo copy ... oci:DIR:TAG\" writes it", path,
            e.line, e.text);
    layout_walk(json_object_get(doc, "manifests"), true);
    json_decref(doc);
    free(path);
}

/* ---- answers ---- */

static const char *status_words(unsigned status)
{
    switch (status) {
    case 200:
        return "OK";
    case 206:
        return "Partial Content";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 416:
        return "Range Not Satisfiable";
    }
    return "Error";
}

__attribute__((format(printf, 2, 3))) static void out_add(struct conn *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(c->out + c->n_out, sizeof c->out - c->n_out, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof c->out - c->n_out)
        die("an answer's head is too long");
    c->n_out += (size_t)n;
}

static void answer_head(struct conn *c, unsigned status, const char *type, uint64_t length)
{
    c->n_out = c->out_sent = 0;
    c->body = -1;
    c->left = 0;
    out_add(c,
            "HTTP/1.1 %u %s\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: "
            "%s\r\nContent-Length: %llu\r\n",
            status, status_words(status), type, (unsigned long long)length);
    if (c->closing)
        out_add(c, "Connection: close\r\n");
}

static void answer_text(struct conn *c, unsigned status, const char *text)
{
    answer_head(c, status, "application/json", strlen(text));
    out_add(c, "\r\n%s", c->parser.method == HTTP_HEAD ? "" : text);
}

static void answer_not_found(struct conn *c, const char *code)
{
    char text[160];
    counts.not_found++;
    snprintf(text, sizeof text,
             "{\"errors\":[{\"code\":\"%s\",\"message\":\"this upstream does not have it\"}]}\n", code);
    answer_text(c, 404, text);
}

/* One range of bytes into [*from, *to); 0: no range that we honour, -1: not satisfiable, 1: taken. */
static int range_parse(const char *text, uint64_t size, uint64_t *from, uint64_t *to)
{
    if (strncmp(text, "bytes=", 6) != 0 || strchr(text, ',') != NULL)
        return 0;
    const char *dash = strchr(text + 6, '-');
    if (dash == NULL)
        return 0;
    bool has_first = dash != text + 6, has_last = dash[1] != '\0';
    uint64_t first = strtoull(text + 6, NULL, 10), last = strtoull(dash + 1, NULL, 10);
    if (!has_first && !has_last)
        return 0;
    *from = has_first ? first : last < size ? size - last : 0;
    *to = has_first && has_last && last < size ? last + 1 : size;
    if (*from >= size || (!has_first && last == 0))
        return -1;
    return *from < *to ? 1 : 0;
}

static void answer_object(struct conn *c, struct object *o)
{
    uint64_t from = 0, to = o->size;
    int ranged = c->range[0] != '\0' ? range_parse(c->range, o->size, &from, &to) : 0;
    if (ranged < 0) {
        answer_head(c, 416, "application/json", 0);
        out_add(c, "Content-Range: bytes */%llu\r\n\r\n", (unsigned long long)o->size);
        return;
    }
    if (ranged == 0) {
        from = 0;
        to = o->size;
    }
    answer_head(c, ranged ? 206 : 200, o->type, to - from);
    out_add(c, "Docker-Content-Digest: %s\r\nETag: \"%s\"\r\nAccept-Ranges: bytes\r\n", o->digest, o->digest);
    if (ranged) {
        counts.ranges++;
        out_add(c, "Content-Range: bytes %llu-%llu/%llu\r\n", (unsigned long long)from,
                (unsigned long long)to - 1, (unsigned long long)o->size);
    }
    out_add(c, "\r\n");
    if (c->parser.method == HTTP_HEAD)
        return;
    o->gets++;
    c->body = o->fd;
    c->at = (off_t)from;
    c->left = to - from;
}

static void answer_stats(struct conn *c)
{
    json_t *requests = json_object(), *bytes = json_object();
    for (unsigned i = 0; i < KIND_COUNT; i++) {
        json_object_set_new(requests, KIND_WORDS[i], json_integer((json_int_t)counts.requests[i]));
        json_object_set_new(bytes, KIND_WORDS[i], json_integer((json_int_t)counts.bytes[i]));
    }
    uint64_t most = 0, unique = 0, unique_bytes = 0;
    for (size_t i = 0; i < n_objects; i++) {
        most = objects[i].gets > most ? objects[i].gets : most;
        unique += objects[i].gets > 0;
        unique_bytes += objects[i].gets > 0 ? objects[i].size : 0;
    }
    json_t *o = json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "requests", requests, "bytes", bytes,
        "not_found", (json_int_t)counts.not_found, "ranges", (json_int_t)counts.ranges, "connections",
        (json_int_t)counts.connections, "objects_got", (json_int_t)unique, "bytes_of_objects_got",
        (json_int_t)unique_bytes, "most_gets_of_one_object", (json_int_t)most, "first_blob_byte_ns",
        (json_int_t)counts.first_blob_byte, "last_blob_byte_ns", (json_int_t)counts.last_blob_byte);
    char *text = json_dumps(o, JSON_INDENT(2));
    if (text == NULL)
        die("out of memory");
    answer_text(c, 200, text);
    free(text);
    json_decref(o);
    if (strstr(c->url, "reset") == NULL)
        return;
    memset(&counts, 0, sizeof counts);
    for (size_t i = 0; i < n_objects; i++)
        objects[i].gets = 0;
}

static struct object *tag_find(const char *repo, size_t n_repo, const char *name)
{
    for (size_t i = 0; i < n_tags; i++) {
        const struct tag *t = &tags[i];
        bool here = t->repo == NULL || (strlen(t->repo) == n_repo && strncmp(t->repo, repo, n_repo) == 0);
        if (here && strcmp(t->name, name) == 0)
            return &objects[t->object];
    }
    return NULL;
}

/* /v2/REPOSITORY/manifests/REFERENCE or /v2/REPOSITORY/blobs/DIGEST */
static void answer_registry(struct conn *c)
{
    bool head = c->parser.method == HTTP_HEAD;
    char *query = strchr(c->url, '?');
    if (query != NULL)
        *query = '\0';
    char *reference = strrchr(c->url, '/') + 1;
    char *manifests = strstr(c->url, "/manifests/"), *blobs = strstr(c->url, "/blobs/");
    if (manifests != NULL) {
        c->kind = head ? KIND_MANIFEST_HEAD : KIND_MANIFEST_GET;
        struct object *o = strchr(reference, ':') != NULL
                               ? object_load(reference, TYPE_MANIFEST, true)
                               : tag_find(c->url + 4, (size_t)(manifests - c->url - 4), reference);
        if (o != NULL && o->manifest)
            answer_object(c, o);
        else
            answer_not_found(c, "MANIFEST_UNKNOWN");
    } else if (blobs != NULL) {
        c->kind = head ? KIND_BLOB_HEAD : KIND_BLOB_GET;
        struct object *o = object_load(reference, TYPE_BLOB, false);
        if (o != NULL)
            answer_object(c, o);
        else
            answer_not_found(c, "BLOB_UNKNOWN");
    } else {
        answer_not_found(c, "NAME_UNKNOWN");
    }
}

static void answer(struct conn *c)
{
    c->kind = KIND_OTHER;
    if (c->parser.method != HTTP_GET && c->parser.method != HTTP_HEAD) {
        answer_text(c, 405, "{\"errors\":[{\"code\":\"UNSUPPORTED\",\"message\":\"only GET and HEAD\"}]}\n");
    } else if (strncmp(c->url, "/stats", 6) == 0) {
        answer_stats(c);
        return; /* not counted */
    } else if (strcmp(c->url, "/v2/") == 0 || strcmp(c->url, "/v2") == 0) {
        c->kind = KIND_PING;
        answer_text(c, 200, "{}\n");
    } else if (strncmp(c->url, "/v2/", 4) == 0) {
        answer_registry(c);
    } else {
        answer_not_found(c, "UNSUPPORTED");
    }
    counts.requests[c->kind]++;
}

/* ---- connections ---- */

static void conn_watch(struct conn *c, uint32_t events)
{
    if (c->watching == events)
        return;
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e) != 0)
        die("epoll_ctl: %s", strerror(errno));
    c->watching = events;
}

static void conn_wait(struct conn *c, int64_t until)
{
    c->wake = until;
    conn_watch(c, 0);
    if (c->waiting)
        return;
    if (n_waiting == cap_waiting) {
        cap_waiting = cap_waiting == 0 ? 64 : 2 * cap_waiting;
        waiting = xgrow(waiting, cap_waiting, sizeof(struct conn *));
    }
    c->waiting = true;
    c->waiting_at = n_waiting;
    waiting[n_waiting++] = c;
}

static void conn_unwait(struct conn *c)
{
    if (!c->waiting)
        return;
    c->waiting = false;
    struct conn *last = waiting[--n_waiting];
    waiting[c->waiting_at] = last;
    last->waiting_at = c->waiting_at;
}

static void conn_free(struct conn *c)
{
    conn_unwait(c);
    close(c->fd);
    free(c);
}

/* How much the rate allows now. Credit that a client did not use is kept for a short while only; when it was this program that
 * came late, all of it is made good. */
static uint64_t conn_allowance(struct conn *c, int64_t now)
{
    if (opt.rate == 0)
        return SEND_WINDOW;
    uint64_t earned = (uint64_t)((double)(now - c->paced_from) / 1e9 * (double)opt.rate);
    uint64_t burst = (uint64_t)((double)BURST_NS / 1e9 * (double)opt.rate) + 1;
    if (c->blocked && earned > c->paced + burst) {
        c->blocked = false;
        c->paced_from = now - BURST_NS;
        c->paced = 0;
        return burst;
    }
    return earned > c->paced ? earned - c->paced : 0;
}

enum go { GO_ON, GO_WAIT, GO_DEAD };

static enum go send_result(struct conn *c)
{
    if (errno != EAGAIN && errno != EINTR)
        return GO_DEAD;
    conn_watch(c, EPOLLOUT);
    return GO_WAIT;
}

static enum go step_head(struct conn *c)
{
    ssize_t n = send(c->fd, c->out + c->out_sent, c->n_out - c->out_sent,
                     MSG_NOSIGNAL | (c->left > 0 ? MSG_MORE : 0));
    if (n < 0)
        return send_result(c);
    c->out_sent += (size_t)n;
    if (c->out_sent < c->n_out)
        return GO_ON;
    c->state = STATE_BODY;
    c->paced_from = now_ns() - TICK_NS; /* the first tick's bytes go at once */
    c->paced = 0;
    return GO_ON;
}

static enum go step_body(struct conn *c)
{
    if (c->left == 0) {
        c->state = STATE_READ;
        return c->closing ? GO_DEAD : GO_ON;
    }
    int64_t now = now_ns();
    uint64_t n = conn_allowance(c, now);
    if (n == 0) {
        conn_wait(c, now + TICK_NS);
        return GO_WAIT;
    }
    size_t want = (size_t)(n < c->left ? n : c->left);
    ssize_t sent = sendfile(c->fd, c->body, &c->at, want);
    c->blocked = sent < (ssize_t)want;
    if (sent < 0)
        return send_result(c);
    if (sent == 0)
        return GO_DEAD; /* a file of the directory got shorter */
    c->left -= (uint64_t)sent;
    c->paced += (uint64_t)sent;
    counts.bytes[c->kind] += (uint64_t)sent;
    if (c->kind == KIND_BLOB_GET) {
        counts.last_blob_byte = now;
        if (counts.first_blob_byte == 0)
            counts.first_blob_byte = now;
    }
    if (opt.rate > 0 && c->left > 0) {
        conn_wait(c, now + TICK_NS);
        return GO_WAIT;
    }
    return GO_ON;
}

static enum go step_read(struct conn *c);

static enum go step_delay(struct conn *c)
{
    if (now_ns() < c->wake) {
        conn_wait(c, c->wake);
        return GO_WAIT;
    }
    c->state = STATE_HEAD;
    return GO_ON;
}

static void conn_run(struct conn *c)
{
    conn_unwait(c);
    for (;;) {
        enum go go = GO_DEAD;
        switch (c->state) {
        case STATE_READ:
            go = step_read(c);
            break;
        case STATE_DELAY:
            go = step_delay(c);
            break;
        case STATE_HEAD:
            go = step_head(c);
            break;
        case STATE_BODY:
            go = step_body(c);
            break;
        }
        if (go == GO_WAIT)
            return;
        if (go == GO_DEAD) {
            conn_free(c);
            return;
        }
    }
}

/* ---- requests ---- */

static void piece_add(char *to, size_t cap, size_t *have, const char *at, size_t n)
{
    if (*have + n >= cap)
        n = cap - 1 - *have;
    memcpy(to + *have, at, n);
    *have += n;
    to[*have] = '\0';
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    piece_add(c->url, sizeof c->url, &c->n_url, at, n);
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    piece_add(c->field, sizeof c->field, &c->n_field, at, n);
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;
    piece_add(c->value, sizeof c->value, &c->n_value, at, n);
    return 0;
}

static int on_header(llhttp_t *p)
{
    struct conn *c = p->data;
    if (strcasecmp(c->field, "range") == 0)
        memcpy(c->range, c->value, sizeof c->range);
    c->n_field = c->n_value = 0;
    c->field[0] = c->value[0] = '\0';
    return 0;
}

static int on_complete(llhttp_t *p)
{
    struct conn *c = p->data;
    c->complete = true;
    c->closing = !llhttp_should_keep_alive(p);
    return HPE_PAUSED;
}

static const llhttp_settings_t SETTINGS = {.on_url = on_url,
                                           .on_header_field = on_field,
                                           .on_header_value = on_value,
                                           .on_header_value_complete = on_header,
                                           .on_message_complete = on_complete};

static void request_begin(struct conn *c)
{
    llhttp_init(&c->parser, HTTP_REQUEST, &SETTINGS);
    c->parser.data = c;
    c->n_url = c->n_field = c->n_value = 0;
    c->url[0] = c->field[0] = c->value[0] = c->range[0] = '\0';
    c->complete = false;
}

static enum go step_read(struct conn *c)
{
    if (c->n_rest == 0) {
        ssize_t n = recv(c->fd, c->in, sizeof c->in, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            conn_watch(c, EPOLLIN);
            return GO_WAIT;
        }
        if (n <= 0)
            return GO_DEAD;
        c->rest = c->in;
        c->n_rest = (size_t)n;
    }
    llhttp_errno_t e = llhttp_execute(&c->parser, c->rest, c->n_rest);
    if (e == HPE_OK) {
        c->n_rest = 0;
        return GO_ON;
    }
    if (e != HPE_PAUSED || !c->complete)
        return GO_DEAD;
    const char *stop = llhttp_get_error_pos(&c->parser);
    c->n_rest -= (size_t)(stop - c->rest);
    c->rest = stop;
    bool delayed = strncmp(c->url, "/v2", 3) == 0 && opt.delay > 0;
    answer(c);
    request_begin(c);
    c->state = delayed ? STATE_DELAY : STATE_HEAD;
    c->wake = now_ns() + opt.delay;
    return GO_ON;
}

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = xzalloc(1, sizeof *c);
        c->fd = fd;
        c->watching = EPOLLIN;
        request_begin(c);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0)
            die("epoll_ctl: %s", strerror(errno));
        counts.connections++;
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        die("accept: %s", strerror(errno));
}

static int listen_open(void)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    address_parse(opt.listen, &addr, &len);
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, 4096) != 0)
        die("%s: %s", opt.listen, strerror(errno));
    len = sizeof addr;
    getsockname(fd, (struct sockaddr *)&addr, &len);
    in_port_t port = addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                : ((struct sockaddr_in *)&addr)->sin_port;
    printf("listening %u\n", ntohs(port));
    return fd;
}

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* Runs the connections whose time has come; returns how long until the next one. */
static struct timespec waiting_run(void)
{
    int64_t now = now_ns(), next = now + NS_PER_SEC;
    for (size_t i = n_waiting; i-- > 0;) /* running one removes it, and may add it at the end */
        if (i < n_waiting && waiting[i]->wake <= now)
            conn_run(waiting[i]);
    for (size_t i = 0; i < n_waiting; i++)
        if (waiting[i]->wake < next)
            next = waiting[i]->wake;
    now = now_ns();
    int64_t left = next > now ? next - now : 0;
    return (struct timespec){.tv_sec = left / NS_PER_SEC, .tv_nsec = left % NS_PER_SEC};
}

static void serve(int listener)
{
    sigset_t none;
    sigemptyset(&none);
    while (!stopped) {
        struct timespec wait = waiting_run();
        struct epoll_event events[64];
        int n = epoll_pwait2(epoll_fd, events, 64, &wait, &none);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(listener);
            else
                conn_run(events[i].data.ptr);
        }
    }
}

/* ---- arguments ---- */

static const char USAGE[] =
    "usage: larder-origin [OPTIONS]\n"
    "\n"
    "An upstream registry for benchmarks. Prints its port and what it has, then \"ready\", and serves until "
    "it is ended\n"
    "by SIGTERM. GET /stats tells what it was asked; GET /stats?reset clears the counts afterwards.\n"
    "\n"
    "  -l, --listen HOST:PORT  where to listen (127.0.0.1:0, a free port)\n"
    "      --rate BYTES        bytes per second for each connection (0: no limit)\n"
    "      --delay TIME        before the head of every answer (0s)\n"
    "      --blob SIZE         a blob of so many bytes; may be repeated\n"
    "      --images N          images img-0:latest, img-1:latest, ... (0)\n"
    "      --layers N          layers of each (5)\n"
    "      --layer-size SIZE   their mean size (4MiB)\n"
    "      --shared N          so many of the layers are the same in all images (0)\n"
    "      --index             an image is an index with one manifest\n"
    "      --dir DIR           an OCI layout; its tags are in every repository\n"
    "      --seed N            of the generated bytes (1)\n"
    "\n"
    "Sizes take KiB, MiB, GiB, KB, MB, GB; times us, ms, s, m.\n";

enum { O_RATE = 256, O_DELAY, O_BLOB, O_IMAGES, O_LAYERS, O_LAYER_SIZE, O_SHARED, O_INDEX, O_DIR, O_SEED };

static const struct option OPTIONS[] = {{"listen", required_argument, NULL, 'l'},
                                        {"help", no_argument, NULL, 'h'},
                                        {"rate", required_argument, NULL, O_RATE},
                                        {"delay", required_argument, NULL, O_DELAY},
                                        {"blob", required_argument, NULL, O_BLOB},
                                        {"images", required_argument, NULL, O_IMAGES},
                                        {"layers", required_argument, NULL, O_LAYERS},
                                        {"layer-size", required_argument, NULL, O_LAYER_SIZE},
                                        {"shared", required_argument, NULL, O_SHARED},
                                        {"index", no_argument, NULL, O_INDEX},
                                        {"dir", required_argument, NULL, O_DIR},
                                        {"seed", required_argument, NULL, O_SEED},
                                        {NULL, 0, NULL, 0}};

static void option_take(int o, const char *arg)
{
    switch (o) {
    case 'l':
        opt.listen = arg;
        return;
    case O_RATE:
        opt.rate = parse_size("rate", arg);
        return;
    case O_DELAY:
        opt.delay = parse_duration("delay", arg);
        return;
    case O_BLOB:
        opt.blobs = xgrow(opt.blobs, opt.n_blobs + 1, sizeof *opt.blobs);
        opt.blobs[opt.n_blobs++] = parse_size("blob", arg);
        return;
    case O_IMAGES:
        opt.images = (unsigned)parse_number("images", arg, 0, 10000);
        return;
    case O_LAYERS:
        opt.layers = (unsigned)parse_number("layers", arg, 1, 127);
        return;
    case O_LAYER_SIZE:
        opt.layer_size = parse_size("layer-size", arg);
        return;
    case O_SHARED:
        opt.shared = (unsigned)parse_number("shared", arg, 0, 127);
        return;
    case O_INDEX:
        opt.index = true;
        return;
    case O_DIR:
        opt.dir = arg;
        return;
    case O_SEED:
        opt.seed = (uint64_t)parse_number("seed", arg, 0, 1e15);
        return;
    case 'h':
        fputs(USAGE, stdout);
        exit(0);
    default:
        exit(1); /* getopt has said why */
    }
}

int main(int argc, char **argv)
{
    int o;
    while ((o = getopt_long(argc, argv, "l:h", OPTIONS, NULL)) != -1)
        option_take(o, optarg);
    if (optind < argc)
        die("\"%s\" is not an option; see --help", argv[optind]);
    files_need((uint64_t)opt.images * (opt.layers + 3) + opt.n_blobs + 4096);
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL); /* they arrive in epoll_pwait2 only */
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    signal(SIGPIPE, SIG_IGN); /* sendfile has no flag for it */
    int listener = listen_open();
    images_make();
    if (opt.dir != NULL)
        layout_load();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e) != 0)
        die("epoll: %s", strerror(errno));
    printf("ready\n");
    fflush(stdout);
    serve(listener);
    return 0;
}
