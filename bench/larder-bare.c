/* The least that a server can do: wait, receive, look a path up among a few, and hand the kernel a head and a body, with one send where
 * the body is small. It checks nothing, knows no timeouts, ranges or errors, and is of no other use: what it reaches is what this
 * machine can do at most with sockets, whatever the server is.
 *
 *     larder-bare HOST:PORT THREADS FOLDER PATH...       serves FOLDER/PATH for the request target /PATH
 *
 * One epoll loop and one listening socket (SO_REUSEPORT) per thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 16
#define EVENTS    256
#define INPUT     16384

static struct file {
    const char *target;
    size_t target_n;
    char head[512], *body;
    size_t head_n, body_n;
} files[FILES_MAX];
static unsigned n_files;
static struct sockaddr_in address;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void load(struct file *f, const char *folder, const char *target)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s%s", folder, target) >= (int)sizeof path)
        die(target);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        die(path);
    f->target = target;
    f->target_n = strlen(target);
    f->body_n = (size_t)st.st_size;
    f->body = malloc(f->body_n + 1);
    if (f->body == NULL || read(fd, f->body, f->body_n) != st.st_size)
        die(path);
    close(fd);
    f->head_n = (size_t)snprintf(
        f->head, sizeof f->head,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %zu\r\n\r\n",
        f->body_n);
}

static const struct file *find(const char *request, size_t n)
{
    for (unsigned i = 0; i < n_files; i++) {
        const struct file *f = &files[i];
        if (n > 4 + f->target_n && memcmp(request + 4, f->target, f->target_n) == 0 &&
            request[4 + f->target_n] == ' ')
            return f;
    }
    return NULL;
}

/* False: the connection is of no further use. A body that does not fit the socket's buffer counts as that, too. */
static bool answer(int fd, char *input)
{
    ssize_t n = recv(fd, input, INPUT, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    const struct file *f = find(input, (size_t)n);
    if (f == NULL)
        return false;
    struct iovec v[2] = {{(void *)(uintptr_t)f->head, f->head_n}, {f->body, f->body_n}};
    struct msghdr msg = {.msg_iov = v, .msg_iovlen = 2};
    return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)(f->head_n + f->body_n);
}

static int listening_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0)
        die("listen");
    return fd;
}

static void watch(int epoll, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        die("epoll_ctl");
}

static void take(int epoll, int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(epoll, fd);
}

static void *serve(void *arg)
{
    int listener = listening_socket(), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS];
    char input[INPUT];
    watch(epoll, listener);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                take(epoll, listener);
            else if (!answer(fd, input))
                close(fd);
        }
    }
    return arg;
}

int main(int argc, char **argv)
{
    char *colon = argc > 4 ? strrchr(argv[1], ':') : NULL;
    if (colon == NULL || argc - 4 > FILES_MAX) {
        (void)fprintf(stderr, "usage: larder-bare HOST:PORT THREADS FOLDER PATH...\n");
        return 1;
    }
    *colon = 0;
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, argv[1], &address.sin_addr) != 1)
        die(argv[1]);
    for (int i = 4; i < argc; i++)
        load(&files[n_files++], argv[3], argv[i]);
    for (unsigned long i = 1; i < strtoul(argv[2], NULL, 10); i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, serve, NULL) != 0)
            die("pthread_create");
    }
    serve(NULL);
    return 0;
}
