/* The log: records are formatted in the thread that writes them and copied into a ring of bytes, which one
 * writer thread empties into standard error.
 *
 * An access log makes this a hot path, so: no printf, the second of the time stamp is formatted once per
 * thread and second, the lock is held for one memcpy, and the writer is not woken for every record:
 *
 *   LOG_IDLE    nothing queued, sleeps until woken      -> first record wakes it
 *   LOG_BATCH   something queued, sleeps up to 50 ms    -> an error, a half full ring or log_stop() wakes it
 *   LOG_AWAKE   writing, or about to look at the queue  -> no need to wake it
 *
 * Invariants: log.tail <= log.head <= log.tail + LOG_RING; both stand at the start of a record whenever the
 * writer has finished a batch; bytes between them belong to the writer, the others to whoever holds the lock.
 * The lock is a leaf: nothing else is locked under it. While the writer runs nobody else writes to standard
 * error, except a failed check. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define LOG_LINE     8192              /* of one record */
#define LOG_RESERVE  32                /* of these, for the end of a record that was cut */
#define LOG_RING     ((size_t)1 << 20) /* a power of two */
#define LOG_PIECE    ((size_t)64 * 1024)
#define LOG_BATCH_MS 50
#define LOG_STOP_MS  2000 /* how long log_stop() waits for a reader that does not read */
#define LOG_TIME_LEN 19   /* 2026-01-31T12:00:00 */

enum log_writer_state { LOG_IDLE, LOG_BATCH, LOG_AWAKE };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* the writer waits */
    pthread_cond_t done; /* log_stop() waits */
    pthread_t writer;
    enum log_writer_state state;
    bool running;        /* records go to the ring */
    bool urgent;         /* write now, do not wait for more */
    bool stopping;       /* empty the ring and end */
    uint64_t head, tail; /* ever put in, ever taken out */
    uint64_t unreported; /* dropped records that no record has told of */
} log_sink = {.lock = PTHREAD_MUTEX_INITIALIZER};

static char log_ring[LOG_RING];
static _Atomic uint64_t log_drops;
static _Atomic int log_level_max = LOG_INFO;
static _Atomic int log_format_now = LOG_FORMAT_JSON;

static _Thread_local char log_line[LOG_LINE];
static _Thread_local int64_t log_time_s = -1;
static _Thread_local char log_time_text[32];

static const char *const log_levels[] = {"error", "warn", "info", "debug"};
static const char *const log_formats[] = {"json", "text"};

void log_setup(enum log_level level, enum log_format format)
{
    atomic_store_explicit(&log_level_max, (int)level, memory_order_relaxed);
    atomic_store_explicit(&log_format_now, (int)format, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level_max, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&log_drops, memory_order_relaxed);
}

static int log_word_find(struct span s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (span_eq(s, span_str(words[i])))
            return (int)i;
    }
    return -1;
}

int log_level_parse(struct span s)
{
    return log_word_find(s, log_levels, ARRAY_LEN(log_levels));
}

int log_format_parse(struct span s)
{
    return log_word_find(s, log_formats, ARRAY_LEN(log_formats));
}

/* ---- formatting ---- */

static void log_add_time(struct str *s, int64_t wall_ms)
{
    int64_t second = wall_ms / 1000;
    int ms = (int)(wall_ms % 1000);
    char fraction[5] = {'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z'};

    if (second != log_time_s) {
        struct str text = STR_INIT(log_time_text);
        clock_add_rfc3339(&text, second * 1000);
        log_time_s = second;
    }
    str_add(s, span_of(log_time_text, LOG_TIME_LEN));
    str_add(s, span_of(fraction, sizeof(fraction)));
}

/* Adds to a text that may be cut, from the reserve. */
static void log_add_reserved(struct str *s, struct span text)
{
    struct str whole = {.p = s->p, .n = s->n, .cap = LOG_LINE};

    str_add(&whole, text);
    MUST(!whole.cut);
    s->n = whole.n;
    s->cap = s->n >= s->cap ? s->n + 1 : s->cap;
}

/* The closing quote comes even if the text was cut: the record stays valid. */
static void log_add_quoted(struct str *s, struct span text)
{
    str_addc(s, '"');
    if (s->cut)
        return;
    str_addjson(s, text);
    log_add_reserved(s, SPAN("\""));
}

static bool log_text_plain(struct span text)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return false;
    }
    return text.n > 0;
}

static void log_add_ms(struct str *s, int64_t us)
{
    uint64_t v = us < 0 ? -(uint64_t)us : (uint64_t)us;
    unsigned part = (unsigned)(v % 1000);
    char fraction[4] = {'.', (char)('0' + part / 100), (char)('0' + part / 10 % 10), (char)('0' + part % 10)};

    if (us < 0)
        str_addc(s, '-');
    str_addu(s, v / 1000);
    str_add(s, span_of(fraction, sizeof(fraction)));
}

/* All of it or nothing: it is of no use cut. */
static void log_add_digest(struct str *s, enum log_format format, const struct digest *d)
{
    char text[1 + DIGEST_TEXT_MAX + 1];
    struct str t = STR_INIT(text);

    if (format == LOG_FORMAT_JSON)
        str_addc(&t, '"');
    digest_add(&t, d);
    if (format == LOG_FORMAT_JSON)
        str_addc(&t, '"');
    if (t.n < s->cap - s->n)
        str_add(s, str_span(&t));
    else
        s->cut = true;
}

static bool log_field_absent(const struct log_field *f)
{
    if (f->kind == LOG_FIELD_DIGEST)
        return f->d == NULL || f->d->alg == DIGEST_NONE;
    return f->kind == LOG_FIELD_SPAN && f->s.p == NULL;
}

static void log_add_value(struct str *s, enum log_format format, const struct log_field *f)
{
    switch (f->kind) {
    case LOG_FIELD_INT:
        str_addi(s, f->i);
        return;
    case LOG_FIELD_UINT:
        str_addu(s, f->u);
        return;
    case LOG_FIELD_MS:
        log_add_ms(s, f->i);
        return;
    case LOG_FIELD_DIGEST:
        log_add_digest(s, format, f->d);
        return;
    case LOG_FIELD_READY:
        return;
    case LOG_FIELD_SPAN:
        break;
    }
    struct span text = f->s;
    if (format == LOG_FORMAT_TEXT && log_text_plain(text))
        str_add(s, text);
    else
        log_add_quoted(s, text);
}

/* A number that does not fit is left out, because half a number is a wrong number; a text is cut. */
static void log_add_field(struct str *s, enum log_format format, const struct log_field *f)
{
    bool json = format == LOG_FORMAT_JSON;
    size_t before = s->n;

    if (log_field_absent(f))
        return;
    str_add(s, json ? f->key_json : f->key_text);
    size_t value = s->n;
    log_add_value(s, format, f);

    if (s->cut && (f->kind != LOG_FIELD_SPAN || s->n == value)) {
        s->n = before;
        s->p[before] = '\0';
    }
}

static void log_add_head(struct str *s, enum log_format format, enum log_level level, const char *group,
                         const char *msg)
{
    if (format == LOG_FORMAT_JSON) {
        str_add(s, SPAN("{\"time\":\""));
        log_add_time(s, clock_wall_ms());
        str_add(s, SPAN("\",\"level\":\""));
        str_addz(s, log_levels[level]);
        str_add(s, SPAN("\",\"group\":\""));
        str_addz(s, group);
        str_add(s, SPAN("\",\"msg\":"));
        log_add_quoted(s, span_str(msg));
        return;
    }
    log_add_time(s, clock_wall_ms());
    str_addc(s, ' ');
    str_addz(s, log_levels[level]);
    str_addc(s, ' ');
    str_addz(s, group);
    str_add(s, SPAN(": "));
    str_addjson(s, span_str(msg));
}

struct span log_ready(enum log_format format, const struct log_field *fields, size_t n)
{
    struct str s = str_init(log_line, LOG_LINE - LOG_RESERVE);

    for (size_t i = 0; i < n; i++)
        log_add_field(&s, format, &fields[i]);
    return s.cut ? SPAN_NONE : str_span(&s);
}

/* One line, in the buffer of the thread: good until the thread's next record. */
static struct span log_format_record(enum log_level level, const char *group, const char *msg,
                                     const struct log_field *fields, size_t n)
{
    enum log_format format = (enum log_format)atomic_load_explicit(&log_format_now, memory_order_relaxed);
    struct str s = str_init(log_line, LOG_LINE - LOG_RESERVE);

    log_add_head(&s, format, level, group, msg);
    for (size_t i = 0; i < n && !s.cut; i++)
        log_add_field(&s, format, &fields[i]);
    if (s.cut)
        log_add_reserved(&s, format == LOG_FORMAT_JSON ? SPAN(",\"cut\":true") : SPAN(" cut=true"));
    log_add_reserved(&s, format == LOG_FORMAT_JSON ? SPAN("}\n") : SPAN("\n"));
    return str_span(&s);
}

/* ---- the sink ---- */

/* Writes all bytes to standard error, however long that takes. Returns how many could not be written. */
static size_t log_write_all(struct span bytes)
{
    while (bytes.n > 0) {
        ssize_t n = write(STDERR_FILENO, bytes.p, bytes.n);
        if (n >= 0) {
            bytes = span_from(bytes, (size_t)n);
            continue;
        }
        if (errno == EAGAIN) {
            struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
            (void)poll(&ready, 1, -1);
        } else if (errno != EINTR) {
            return bytes.n;
        }
    }
    return 0;
}

static void log_count_drops(uint64_t n) /* under the lock */
{
    log_sink.unreported += n;
    atomic_fetch_add_explicit(&log_drops, n, memory_order_relaxed);
}

/* Queued bytes from `at` on, as far as they lie in one piece. */
static struct span log_ring_piece(uint64_t at, uint64_t end)
{
    size_t from = (size_t)at & (LOG_RING - 1);
    size_t n = (size_t)(end - at);

    if (n > LOG_RING - from)
        n = LOG_RING - from;
    return span_of(log_ring + from, n < LOG_PIECE ? n : LOG_PIECE);
}

static uint64_t log_ring_records(uint64_t at, uint64_t end)
{
    uint64_t lines = 0;

    for (; at < end; at++)
        lines += log_ring[at & (LOG_RING - 1)] == '\n';
    return lines;
}

static void log_ring_put(struct span record) /* under the lock, there is room */
{
    size_t from = (size_t)log_sink.head & (LOG_RING - 1);
    size_t first = record.n < LOG_RING - from ? record.n : LOG_RING - from;

    memcpy(log_ring + from, record.p, first);
    memcpy(log_ring, record.p + first, record.n - first);
    log_sink.head += record.n;
}

/* Sleeps until there is something to write, and a little longer to write it in one go. Under the lock. */
static void log_writer_wait(void)
{
    while (log_sink.head == log_sink.tail && !log_sink.stopping) {
        log_sink.state = LOG_IDLE;
        pthread_cond_wait(&log_sink.wake, &log_sink.lock);
    }

    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOG_BATCH_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    log_sink.state = LOG_BATCH;
    while (!log_sink.urgent && !log_sink.stopping) {
        if (pthread_cond_timedwait(&log_sink.wake, &log_sink.lock, &until) != 0)
            break;
    }
    log_sink.state = LOG_AWAKE;
    log_sink.urgent = false;
}

/* Writes what is queued now. Called and returns under the lock, which is not held while writing. A sink that
 * refuses bytes loses the batch, so that the ring starts at a record again. */
static void log_writer_batch(void)
{
    uint64_t end = log_sink.head;

    while (log_sink.tail < end) {
        struct span piece = log_ring_piece(log_sink.tail, end);
        pthread_mutex_unlock(&log_sink.lock);
        size_t left = log_write_all(piece);
        pthread_mutex_lock(&log_sink.lock);
        log_sink.tail += piece.n - left;
        if (left > 0) {
            log_count_drops(log_ring_records(log_sink.tail, end));
            log_sink.tail = end;
        }
    }
}

/* Tells of records that were dropped; they came after what the last batch held. Under the lock, as above. */
static void log_writer_report(void)
{
    uint64_t n = log_sink.unreported;
    struct log_field count = LOG_U("count", n);

    if (n == 0)
        return;
    log_sink.unreported = 0;
    pthread_mutex_unlock(&log_sink.lock);
    struct span record = log_format_record(
        LOG_WARN, "log", "records were dropped, because standard error is not read fast enough", &count, 1);
    size_t left = log_write_all(record);
    pthread_mutex_lock(&log_sink.lock);
    if (left > 0)
        log_sink.unreported += n; /* still to be told, with the next batch */
}

static void *log_writer_main(void *arg)
{
    UNUSED(arg);
    pthread_mutex_lock(&log_sink.lock);
    while (!log_sink.stopping || log_sink.head != log_sink.tail) {
        log_writer_wait();
        log_writer_batch();
        log_writer_report();
    }
    log_sink.running = false;
    pthread_cond_signal(&log_sink.done);
    pthread_mutex_unlock(&log_sink.lock);
    return NULL;
}

void log_start(void)
{
    pthread_condattr_t attr;
    sigset_t all, before;

    pthread_mutex_lock(&log_sink.lock);
    MUST(!log_sink.running);
    MUST(pthread_condattr_init(&attr) == 0);
    MUST(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    MUST(pthread_cond_init(&log_sink.wake, &attr) == 0);
    MUST(pthread_cond_init(&log_sink.done, &attr) == 0);
    pthread_condattr_destroy(&attr);
    log_sink.state = LOG_AWAKE;
    log_sink.stopping = false;
    log_sink.urgent = false;
    log_sink.running = true;

    /* Signals are for other threads; SIGPIPE is blocked with them, so that a reader that leaves is an error.
     */
    sigfillset(&all);
    MUST(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    MUST(pthread_create(&log_sink.writer, NULL, log_writer_main, NULL) == 0);
    MUST(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    pthread_mutex_unlock(&log_sink.lock);
}

/* True when the writer has ended. When standard error takes nothing for too long the writer is left alone and
 * records go on to the ring: ending the process must not hang on whoever does not read its log. */
static bool log_writer_ended(void)
{
    struct timespec until;
    int failed = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOG_STOP_MS / 1000;
    while (log_sink.running && failed == 0)
        failed = pthread_cond_timedwait(&log_sink.done, &log_sink.lock, &until);
    return !log_sink.running;
}

void log_stop(void)
{
    pthread_mutex_lock(&log_sink.lock);
    if (!log_sink.running || log_sink.stopping) {
        pthread_mutex_unlock(&log_sink.lock);
        return;
    }
    log_sink.stopping = true;
    pthread_cond_signal(&log_sink.wake);
    bool ended = log_writer_ended();
    pthread_mutex_unlock(&log_sink.lock);

    if (!ended) {
        pthread_detach(log_sink.writer);
        return;
    }
    pthread_join(log_sink.writer, NULL);
    pthread_cond_destroy(&log_sink.wake);
    pthread_cond_destroy(&log_sink.done);
}

/* True when the writer must be woken. Under the lock. */
static bool log_queue(enum log_level level, struct span record)
{
    if (record.n > LOG_RING - (size_t)(log_sink.head - log_sink.tail)) {
        log_count_drops(1);
        return false;
    }
    log_ring_put(record);
    if (level == LOG_ERROR || log_sink.head - log_sink.tail > LOG_RING / 2)
        log_sink.urgent = true;
    if (log_sink.state == LOG_AWAKE || (log_sink.state == LOG_BATCH && !log_sink.urgent))
        return false;
    log_sink.state = LOG_AWAKE;
    return true;
}

void log_write(enum log_level level, const char *group, const char *msg, const struct log_field *fields,
               size_t n)
{
    struct span record = log_format_record(level, group, msg, fields, n);
    bool wake = false;

    pthread_mutex_lock(&log_sink.lock);
    if (log_sink.running)
        wake = log_queue(level, record);
    else if (log_write_all(record) > 0)
        log_count_drops(1);
    if (wake)
        pthread_cond_signal(&log_sink.wake);
    pthread_mutex_unlock(&log_sink.lock);
}
