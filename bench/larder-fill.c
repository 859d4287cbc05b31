/* Fills a store with many objects, for benchmarks of how larder does with many: each object is in the index, linked to
 * one repository, and is a sparse file of its size in the pool.
 *
 * The content of the files is nothing but zeros, and the digests are those of other bytes: object N of seed S is called by the
 * SHA-256 of the text "S N". larder compares only the size of a blob that it has, so it serves them; a client that verifies would
 * refuse them. They cost no disk space but their inodes, unless --written asks for files like any other.
 *
 * The one program of bench/ that is built from src/: the store's format is the store's business. The main thread makes files and
 * queues changes from a fixed set; the core's thread takes back those that are durable. */
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>

#include "base/log.h"
#include "store/store.h"

#include "util.h"

#define CHANGES 8192 /* on their way at once: some transactions of the store's writer */

static struct {
    uint64_t objects, size, seed;
    bool written;
    const char *repo, *path;
} opt = {.objects = 1000, .size = 16384, .seed = 1};

static struct store_change *changes;
static struct store_change *idle[CHANGES]; /* guarded by idle_lock; as many as idle_count says */
static unsigned n_idle;
static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static sem_t idle_count;
static atomic_bool refused;

static void change_give_back(struct store_change *c)
{
    pthread_mutex_lock(&idle_lock);
    idle[n_idle++] = c;
    pthread_mutex_unlock(&idle_lock);
    sem_post(&idle_count);
}

static struct store_change *change_take(void)
{
    while (sem_wait(&idle_count) != 0)
        ;
    pthread_mutex_lock(&idle_lock);
    struct store_change *c = idle[--n_idle];
    pthread_mutex_unlock(&idle_lock);
    return c;
}

static void on_applied(struct store_change *c)
{
    if (c->err != 0)
        atomic_store(&refused, true);
    change_give_back(c);
}

static void *run_core(void *arg)
{
    core_run(arg);
    return NULL;
}

static void object_name(uint64_t number, struct digest *out)
{
    char text[64];
    int n =
        snprintf(text, sizeof text, "%llu %llu", (unsigned long long)opt.seed, (unsigned long long)number);
    struct hasher h;
    hasher_init(&h, DIGEST_SHA256);
    hasher_update(&h, text, (size_t)n);
    hasher_finish(&h, out);
}

static const char zeros[65536];

static bool zeros_write(int fd)
{
    for (uint64_t at = 0; at < opt.size;) {
        uint64_t left = opt.size - at;
        ssize_t n = pwrite(fd, zeros, left < sizeof zeros ? (size_t)left : sizeof zeros, (off_t)at);
        if (n < 0)
            return false;
        at += (uint64_t)n;
    }
    return true;
}

static void object_file(int folder, const struct digest *d)
{
    char name[DIGEST_TEXT_MAX];
    struct str s = STR_INIT(name);
    digest_addhex(&s, d);
    int fd = openat(folder, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0640);
    if (fd < 0 || ftruncate(fd, (off_t)opt.size) != 0 || (opt.written && !zeros_write(fd)))
        die("%s/blobs/sha256/%s: %s", opt.path, name, strerror(errno));
    close(fd);
}

/* What the files read as is known without reading them: so a pass over the pool by content sums finds them good. By digest they are
 * not. */
static struct content_sum zeros_sum(void)
{
    struct content_sum sum;
    struct summer summer;
    summer_init(&summer);
    for (uint64_t left = opt.size; left > 0;) {
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;
        summer_update(&summer, zeros, n);
        left -= n;
    }
    summer_finish(&summer, &sum);
    return sum;
}

static void fill(struct store *store, struct core *core)
{
    struct content_sum sum = zeros_sum();
    char *path = xprintf("%s/blobs/sha256", opt.path);
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        die("%s: %s", path, strerror(errno));
    free(path);
    for (uint64_t i = 0; i < opt.objects && !atomic_load(&refused); i++) {
        struct store_change *c = change_take();
        *c = (struct store_change){.what = CHANGE_PUT_OBJECT | CHANGE_PUT_LINK, .size = opt.size, .sum = sum};
        object_name(i, &c->digest);
        snprintf(c->repo, sizeof c->repo, "%s", opt.repo);
        object_file(folder, &c->digest);
        store_apply(store, core, c, on_applied);
    }
    for (unsigned i = 0; i < CHANGES; i++) /* all are back: all is durable */
        change_take();
    /* Else they would get their space on the disk while somebody measures. */
    if (opt.written && syncfs(folder) != 0)
        die("%s: %s", opt.path, strerror(errno));
    close(folder);
}

static const char USAGE[] =
    "usage: larder-fill [OPTIONS] REPOSITORY STORE\n"
    "\n"
    "Adds objects to the store of a larder that is not running, as content of REPOSITORY at upstream\n"
    "(registry.example/team/app). Object N, from 0 on, has as its digest the SHA-256 of the text \"SEED N\"; "
    "its\n"
    "file is sparse and reads as zeros.\n"
    "\n"
    "      --objects N   how many (1000)\n"
    "      --size SIZE   of each (16KiB)\n"
    "      --seed N      of the digests (1)\n"
    "      --written     write the zeros, so that the files take their space on the disk\n"
    "\n"
    "Sizes take KiB, MiB, GiB, KB, MB, GB.\n";

enum { O_OBJECTS = 256, O_SIZE, O_SEED, O_WRITTEN };

static const struct option OPTIONS[] = {{"objects", required_argument, NULL, O_OBJECTS},
                                        {"size", required_argument, NULL, O_SIZE},
                                        {"seed", required_argument, NULL, O_SEED},
                                        {"written", no_argument, NULL, O_WRITTEN},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

static void arguments_take(int argc, char **argv)
{
    int o;
    while ((o = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1) {
        if (o == 'h') {
            fputs(USAGE, stdout);
            exit(0);
        }
        if (o == O_OBJECTS)
            opt.objects = (uint64_t)parse_number("objects", optarg, 1, 1e9);
        else if (o == O_SIZE)
            opt.size = parse_size("size", optarg);
        else if (o == O_SEED)
            opt.seed = (uint64_t)parse_number("seed", optarg, 0, 1e15);
        else if (o == O_WRITTEN)
            opt.written = true;
        else
            exit(1); /* getopt has said why */
    }
    if (argc - optind != 2)
        die("a repository and a store's folder are wanted; see --help");
    opt.repo = argv[optind];
    opt.path = argv[optind + 1];
    if (strlen(opt.repo) > STORE_REPO_MAX)
        die("the repository's name is too long");
}

int main(int argc, char **argv)
{
    arguments_take(argc, argv);
    log_setup(LOG_WARN, LOG_FORMAT_TEXT);
    char text[1024];
    struct str why = STR_INIT(text);
    struct store *store = store_open(span_str(opt.path), &why);
    if (store == NULL)
        die("%s", text);
    struct core *core = core_new(0);
    pthread_t thread;
    if (core == NULL || pthread_create(&thread, NULL, run_core, core) != 0)
        die("a thread could not be started");
    sem_init(&idle_count, 0, 0);
    changes = xzalloc(CHANGES, sizeof *changes);
    for (unsigned i = 0; i < CHANGES; i++)
        change_give_back(&changes[i]);
    fill(store, core);
    core_quit(core);
    pthread_join(thread, NULL);
    store_close(store);
    core_free(core);
    free(changes);
    if (atomic_load(&refused))
        die("the index of %s refused a change; the line above says why", opt.path);
    return 0;
}
