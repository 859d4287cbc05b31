#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "child.h"

/* ---- standard error, caught ---- */

static int saved_stderr = -1;

static void stderr_to(int fd)
{
    saved_stderr = dup(STDERR_FILENO);
    MUST(saved_stderr >= 0 && dup2(fd, STDERR_FILENO) == STDERR_FILENO);
}

static void stderr_back(void)
{
    MUST(dup2(saved_stderr, STDERR_FILENO) == STDERR_FILENO);
    close(saved_stderr);
}

static int caught_fd = -1;
static char *caught;

static void catch_begin(void)
{
    caught_fd = memfd_create("log", 0);
    MUST(caught_fd >= 0);
    stderr_to(caught_fd);
}

/* What was logged since catch_begin(), good until the next catch_end(). */
static struct span catch_end(void)
{
    stderr_back();
    size_t n = (size_t)lseek(caught_fd, 0, SEEK_CUR);
    mem_free(caught);
    caught = mem_zalloc(n + 1);
    MUST(pread(caught_fd, caught, n, 0) == (ssize_t)n);
    close(caught_fd);
    return span_of(caught, n);
}

static int forget(void **state)
{
    UNUSED(state);
    log_setup(LOG_INFO, LOG_FORMAT_JSON);
    FREE(caught);
    return 0;
}

/* ---- the formats ---- */

#define TIME_LEN 24 /* 2026-01-31T12:00:00.123Z */

static void assert_time(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < TIME_LEN; i++) {
        if (form[i] == 'd')
            assert_in_range(text[i], '0', '9');
        else
            assert_int_equal(text[i], form[i]);
    }
}

/* One record in JSON without its time. */
static const char *json_rest(struct span record)
{
    static const char head[] = "{\"time\":\"";
    assert_memory_equal(record.p, head, sizeof(head) - 1);
    assert_time(record.p + sizeof(head) - 1);
    return record.p + sizeof(head) - 1 + TIME_LEN;
}

static struct digest some_digest(void)
{
    struct digest d = {.alg = DIGEST_SHA256, .raw = {0xab}};
    return d;
}

#define ZEROS_62 "00000000000000000000000000000000000000000000000000000000000000"

static void json_record(void **state)
{
    UNUSED(state);
    struct digest d = some_digest(), none = {.alg = DIGEST_NONE};
    catch_begin();
    log_info("store", "opened", LOG_S("path", "/var/lib"), LOG_S("absent", NULL), LOG_SP("none", SPAN_NONE),
             LOG_SP("empty", SPAN("")), LOG_U("u", UINT64_MAX), LOG_I("i", INT64_MIN), LOG_MS("took", 1234),
             LOG_MS("less", 7), LOG_MS("back", -1050), LOG_D("digest", &d), LOG_D("no", &none),
             LOG_D("null", NULL), LOG_S("last", "a \"quoted\"\nline"));
    assert_string_equal(json_rest(catch_end()),
                        "\",\"level\":\"info\",\"group\":\"store\",\"msg\":\"opened\",\"path\":\"/var/lib\","
                        "\"empty\":\"\",\"u\":18446744073709551615,\"i\":-9223372036854775808,\"took\":1.234,"
                        "\"less\":0.007,\"back\":-1.050,\"digest\":\"sha256:ab" ZEROS_62 "\","
                        "\"last\":\"a \\\"quoted\\\"\\nline\"}\n");
}

static void text_record(void **state)
{
    UNUSED(state);
    struct digest d = some_digest();
    log_setup(LOG_INFO, LOG_FORMAT_TEXT);
    catch_begin();
    log_warn("conf", "not reloaded", LOG_S("path", "/etc/x.yaml"), LOG_U("line", 3), LOG_S("absent", NULL),
             LOG_S("empty", ""), LOG_S("why", "two words"), LOG_S("eq", "a=b"),
             LOG_S("evil", "x\n2026 error"), LOG_S("utf8", "\xc3\xa4"), LOG_S("bad", "\xff"),
             LOG_MS("took", 12), LOG_D("digest", &d));
    struct span record = catch_end();
    assert_time(record.p);
    assert_string_equal(
        record.p + TIME_LEN,
        " warn conf: not reloaded path=/etc/x.yaml line=3 empty=\"\" why=\"two words\" eq=\"a=b\" "
        "evil=\"x\\n2026 error\" utf8=\"\xc3\xa4\" bad=\"\xef\xbf\xbd\" took=0.012 digest=sha256:ab" ZEROS_62
        "\n");
}

/* Fields that were formatted before give the record that they give at once. */
static void fields_made_ready(void **state)
{
    UNUSED(state);
    struct digest d = some_digest();
    const struct log_field fields[] = {LOG_S("path", "a \"b\" c"), LOG_S("absent", NULL), LOG_U("n", 7),
                                       LOG_D("digest", &d), LOG_MS("took", 12)};
    char json[1000], text[1000], direct[1000];
    struct span s = log_ready(LOG_FORMAT_JSON, fields, ARRAY_LEN(fields));
    memcpy(json, s.p, s.n);
    struct span ready_json = span_of(json, s.n);
    s = log_ready(LOG_FORMAT_TEXT, fields, ARRAY_LEN(fields));
    memcpy(text, s.p, s.n);
    struct span ready_text = span_of(text, s.n);
    for (int format = LOG_FORMAT_JSON; format <= LOG_FORMAT_TEXT; format++) {
        log_setup(LOG_INFO, (enum log_format)format);
        size_t from = format == LOG_FORMAT_JSON ? 9 + TIME_LEN : TIME_LEN;
        catch_begin();
        log_info("x", "y", LOG_I("first", -1), fields[0], fields[1], fields[2], fields[3], fields[4],
                 LOG_I("last", 1));
        snprintf(direct, sizeof direct, "%s", catch_end().p + from);
        catch_begin();
        log_info("x", "y", LOG_I("first", -1), LOG_READY(ready_json, ready_text), LOG_I("last", 1));
        assert_string_equal(catch_end().p + from, direct);
    }
}

static void ready_fields_that_do_not_fit(void **state)
{
    UNUSED(state);
    static char long_text[20000];
    memset(long_text, 'x', sizeof long_text - 1);
    const struct log_field field = LOG_S("long", long_text);
    assert_null(log_ready(LOG_FORMAT_JSON, &field, 1).p);
    assert_null(log_ready(LOG_FORMAT_TEXT, &field, 1).p);
}

static void records_without_fields(void **state)
{
    UNUSED(state);
    catch_begin();
    log_error("main", "a \"b\"\n");
    assert_string_equal(json_rest(catch_end()),
                        "\",\"level\":\"error\",\"group\":\"main\",\"msg\":\"a \\\"b\\\"\\n\"}\n");
    log_setup(LOG_DEBUG, LOG_FORMAT_TEXT);
    catch_begin();
    log_debug("main", "a \"b\"\n");
    assert_string_equal(catch_end().p + TIME_LEN, " debug main: a \\\"b\\\"\\n\n");
}

/* The second is formatted once and kept; so one record in this second, and one in the next. */
static void time_is_that_of_the_record(void **state)
{
    UNUSED(state);
    int64_t first = clock_wall_ms() / 1000;
    for (int64_t now = 0; now / 1000 <= first; usleep(1000)) {
        char before[32], after[32];
        struct str b = STR_INIT(before), a = STR_INIT(after);
        now = clock_wall_ms();
        if (now / 1000 == first && caught != NULL)
            continue;
        clock_add_rfc3339(&b, now);
        catch_begin();
        log_info("g", "m");
        struct span record = catch_end();
        clock_add_rfc3339(&a, clock_wall_ms());
        assert_true(memcmp(record.p + 9, before, TIME_LEN) >= 0);
        assert_true(memcmp(record.p + 9, after, TIME_LEN) <= 0);
    }
}

static int evaluated;

static const char *evaluate(void)
{
    evaluated++;
    return "x";
}

static void levels_filter(void **state)
{
    UNUSED(state);
    for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        log_setup((enum log_level)level, LOG_FORMAT_JSON);
        catch_begin();
        evaluated = 0;
        log_error("g", "m", LOG_S("v", evaluate()));
        log_warn("g", "m", LOG_S("v", evaluate()));
        log_info("g", "m", LOG_S("v", evaluate()));
        log_debug("g", "m", LOG_S("v", evaluate()));
        struct span text = catch_end(), line;
        int lines = -1; /* the part after the last newline */
        while (span_next(&text, '\n', &line))
            lines++;
        assert_int_equal(lines, level + 1);
        assert_int_equal(evaluated, level + 1); /* what is not logged is not evaluated */
        assert_true(log_enabled((enum log_level)level));
        assert_true(level == LOG_DEBUG || !log_enabled((enum log_level)(level + 1)));
    }
}

static void names_of_levels_and_formats(void **state)
{
    UNUSED(state);
    assert_int_equal(log_level_parse(SPAN("error")), LOG_ERROR);
    assert_int_equal(log_level_parse(SPAN("warn")), LOG_WARN);
    assert_int_equal(log_level_parse(SPAN("info")), LOG_INFO);
    assert_int_equal(log_level_parse(SPAN("debug")), LOG_DEBUG);
    assert_int_equal(log_level_parse(SPAN("Info")), -1);
    assert_int_equal(log_level_parse(SPAN("")), -1);
    assert_int_equal(log_format_parse(SPAN("json")), LOG_FORMAT_JSON);
    assert_int_equal(log_format_parse(SPAN("text")), LOG_FORMAT_TEXT);
    assert_int_equal(log_format_parse(SPAN("tex")), -1);
}

static char filler[10000];

static void a_long_text_is_cut_and_says_so(void **state)
{
    UNUSED(state);
    memset(filler, 1, sizeof(filler)); /* six bytes each in JSON */
    catch_begin();
    log_info("g", "m", LOG_SP("long", span_of(filler, sizeof(filler))), LOG_U("after", 1));
    struct span record = catch_end();
    assert_in_range(record.n, 8100, 8192);
    struct span rest = span_str(json_rest(record)), value = SPAN("\"long\":\"");
    rest = span_from(rest, strlen("\",\"level\":\"info\",\"group\":\"g\",\"msg\":\"m\","));
    assert_true(span_starts(rest, value));
    rest = span_from(rest, value.n);
    while (span_starts(rest, SPAN("\\u0001")))
        rest = span_from(rest, 6);
    assert_string_equal(rest.p, "\",\"cut\":true}\n");
}

/* Whatever is at the edge when the buffer ends, the record ends as a record. */
static void every_length_ends_well(void **state)
{
    UNUSED(state);
    struct digest d = some_digest();
    memset(filler, 'x', sizeof(filler));
    for (int format = LOG_FORMAT_JSON; format <= LOG_FORMAT_TEXT; format++) {
        log_setup(LOG_INFO, (enum log_format)format);
        int whole = 0, cut = 0;
        for (size_t n = 7900; n < 8200; n++) {
            catch_begin();
            log_info("g", "m", LOG_SP("x", span_of(filler, n)), LOG_U("number", 123456), LOG_D("digest", &d),
                     LOG_S("t", "u v"));
            struct span r = catch_end();
            bool json = format == LOG_FORMAT_JSON;
            assert_true(r.n <= 8192);
            assert_int_equal(span_find(r, '\n'), r.n - 1);
            if (span_ends(r, json ? SPAN(ZEROS_62 "\",\"t\":\"u v\"}\n") : SPAN(ZEROS_62 " t=\"u v\"\n"))) {
                whole++;
                continue;
            }
            cut++;
            assert_true(span_ends(r, json ? SPAN(",\"cut\":true}\n") : SPAN(" cut=true\n")));
            int quotes = 0;
            for (size_t i = 0; i < r.n; i++)
                quotes += r.p[i] == '"';
            assert_int_equal(quotes % 2, 0);
            const char *number = strstr(r.p, json ? "\"number\":" : "number=");
            if (number != NULL)
                assert_non_null(strstr(number, json ? ":123456," : "=123456 "));
        }
        assert_true(whole > 20 && cut > 20);
    }
}

/* ---- the sink ---- */

#define THREADS 4
#define RECORDS 1000

static void *emit_records(void *arg)
{
    for (unsigned i = 0; i < RECORDS; i++)
        log_info("test", "record", LOG_U("thread", (uintptr_t)arg), LOG_U("n", i));
    return NULL;
}

static void queued_records_are_whole_and_in_order(void **state)
{
    UNUSED(state);
    pthread_t threads[THREADS];
    unsigned next[THREADS] = {0};
    struct span line, part;
    struct span head = SPAN("\",\"level\":\"info\",\"group\":\"test\",\"msg\":\"record\",\"thread\":");

    /* Twelve rounds are more than the ring holds, so that it wraps. */
    for (int round = 0; round < 12; round++) {
        memset(next, 0, sizeof(next));
        catch_begin();
        log_start();
        for (uintptr_t i = 0; i < THREADS; i++)
            MUST(pthread_create(&threads[i], NULL, emit_records, (void *)i) == 0);
        for (size_t i = 0; i < THREADS; i++)
            MUST(pthread_join(threads[i], NULL) == 0);
        log_stop();
        struct span text = catch_end();
        while (span_next(&text, '\n', &line) && line.n > 0) {
            uint64_t thread = 0, n = 0;
            struct span numbers = span_from(line, 9 + TIME_LEN);
            assert_true(span_starts(numbers, head) && span_ends(numbers, SPAN("}")));
            numbers = span_sub(numbers, head.n, numbers.n - head.n - 1);
            assert_true(span_next(&numbers, ',', &part) && span_u64(part, UINT64_MAX, &thread));
            assert_true(span_starts(numbers, SPAN("\"n\":")));
            assert_true(span_u64(span_from(numbers, 4), UINT64_MAX, &n));
            assert_in_range(thread, 0, THREADS - 1);
            assert_int_equal(n, next[thread]++);
        }
        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(next[i], RECORDS);
    }
    assert_int_equal(log_dropped(), 0);
}

static void before_start_and_after_stop_records_are_written_at_once(void **state)
{
    UNUSED(state);
    catch_begin();
    log_info("g", "one");
    off_t one = lseek(caught_fd, 0, SEEK_CUR);
    log_start();
    log_info("g", "two");
    log_stop();
    log_stop();
    off_t two = lseek(caught_fd, 0, SEEK_CUR);
    log_info("g", "three");
    struct span text = catch_end();
    assert_true(one > 0 && two == 2 * one);
    assert_int_equal(text.n, 3 * one + 2);
    assert_non_null(strstr(text.p + two, "three"));
}

/* Nothing is logged after them and nobody stops the log: they come by themselves, or this test hangs. */
static void records_come_without_a_stop(void **state)
{
    UNUSED(state);
    int ends[2];
    char text[2][512] = {{0}};
    MUST(pipe(ends) == 0);
    stderr_to(ends[1]);
    log_start();
    log_info("g", "slow");
    ssize_t slow = read(ends[0], text[0], sizeof(text[0]) - 1);
    log_error("g", "urgent");
    ssize_t urgent = read(ends[0], text[1], sizeof(text[1]) - 1);
    log_stop();
    stderr_back();
    close(ends[0]);
    close(ends[1]);
    assert_true(slow > 0 && urgent > 0);
    assert_non_null(strstr(text[0], "\"msg\":\"slow\"}\n"));
    assert_non_null(strstr(text[1], "\"msg\":\"urgent\"}\n"));
}

struct reader {
    int fd;
    char *text;
    size_t n, cap;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    for (;;) {
        if (r->cap - r->n < 65536)
            r->text = mem_realloc(r->text, r->cap = r->cap * 2 + 65536);
        ssize_t got = read(r->fd, r->text + r->n, r->cap - r->n);
        if (got <= 0)
            return NULL;
        r->n += (size_t)got;
    }
}

static void a_full_queue_drops_whole_records_and_counts_them(void **state)
{
    UNUSED(state);
    enum { EMITTED = 20000 };
    struct reader reader = {.text = NULL};
    pthread_t thread;
    int ends[2];
    uint64_t before = log_dropped();

    memset(filler, 'x', 200);
    MUST(pipe(ends) == 0);
    reader.fd = ends[0];
    stderr_to(ends[1]);
    log_start();
    for (unsigned i = 0; i < EMITTED; i++) /* nobody reads: this must not block */
        log_emit(i % 100 == 0 ? LOG_ERROR : LOG_INFO, "test", "record", LOG_SP("x", span_of(filler, 200)),
                 LOG_U("n", i));
    MUST(pthread_create(&thread, NULL, read_all, &reader) == 0);
    log_stop();
    stderr_back();
    close(ends[1]);
    MUST(pthread_join(thread, NULL) == 0);
    close(ends[0]);

    uint64_t records = 0, reported = 0, dropped = log_dropped() - before;
    struct span text = span_of(reader.text, reader.n), line;
    long long last = -1;
    while (span_next(&text, '\n', &line) && line.n > 0) {
        unsigned long long count;
        char *at = memmem(line.p, line.n, "\"count\":", 8);
        assert_true(span_starts(line, SPAN("{\"time\":\"")) && span_ends(line, SPAN("}")));
        if (at == NULL) {
            at = memmem(line.p, line.n, "xx\",\"n\":", 8);
            assert_non_null(at);
            assert_int_equal(sscanf(at + 8, "%llu}", &count), 1);
            assert_true((long long)count > last);
            last = (long long)count;
            records++;
            continue;
        }
        assert_non_null(memmem(line.p, line.n, "\"level\":\"warn\",\"group\":\"log\"", 28));
        assert_int_equal(sscanf(at, "\"count\":%llu}", &count), 1);
        reported += count;
    }
    mem_free(reader.text);
    assert_true(dropped > 0);
    assert_int_equal(records + dropped, EMITTED);
    assert_int_equal(reported, dropped);
}

static void a_non_blocking_pipe_gets_every_byte(void **state)
{
    UNUSED(state);
    enum { EMITTED = 2000 };
    struct reader reader = {.text = NULL};
    pthread_t thread;
    int ends[2];

    memset(filler, 'x', 200);
    MUST(pipe2(ends, O_NONBLOCK) == 0);
    MUST(fcntl(ends[0], F_SETFL, 0) == 0);
    reader.fd = ends[0];
    MUST(pthread_create(&thread, NULL, read_all, &reader) == 0);
    stderr_to(ends[1]);
    for (int queued = 0; queued <= 1; queued++) {
        if (queued)
            log_start();
        for (unsigned i = 0; i < EMITTED; i++)
            log_info("test", "record", LOG_SP("x", span_of(filler, 200)), LOG_U("n", 100000 + i));
        log_stop();
    }
    stderr_back();
    close(ends[1]);
    MUST(pthread_join(thread, NULL) == 0);
    close(ends[0]);

    struct span text = span_of(reader.text, reader.n), line;
    unsigned lines = 0;
    size_t length = 0;
    for (; span_next(&text, '\n', &line) && line.n > 0; lines++) {
        length = lines == 0 ? line.n : length;
        assert_int_equal(line.n, length);
        assert_true(span_starts(line, SPAN("{\"time\":\"")) && span_ends(line, SPAN("}")));
    }
    mem_free(reader.text);
    assert_int_equal(lines, 2 * EMITTED);
}

static void a_reader_that_left_costs_records_only(void **state)
{
    UNUSED(state);
    int ends[2];
    uint64_t before = log_dropped();

    MUST(pipe(ends) == 0);
    close(ends[0]);
    stderr_to(ends[1]);
    log_start();
    for (int i = 0; i < 10; i++)
        log_info("g", "m");
    log_stop();
    stderr_back();
    close(ends[1]);
    assert_int_equal(log_dropped() - before, 10);

    /* When somebody reads again the loss is told. */
    catch_begin();
    log_start();
    log_info("g", "again");
    log_stop();
    struct span text = catch_end();
    assert_non_null(strstr(text.p, "\"count\":10}\n"));
    assert_int_equal(log_dropped() - before, 10);
}

static void stop_before_a_full_pipe(void)
{
    int ends[2];
    char block[4096] = {0};

    if (pipe2(ends, O_NONBLOCK) != 0)
        _exit(1);
    while (write(ends[1], block, sizeof(block)) > 0)
        continue;
    if (fcntl(ends[1], F_SETFL, 0) != 0 || dup2(ends[1], STDERR_FILENO) != STDERR_FILENO)
        _exit(1);
    log_start();
    log_info("g", "m");
    log_stop();
    for (int i = 0; i < 10000; i++)
        log_info("g", "after the stop nothing may block either");
    log_stop();
    _exit(7);
}

static void stop_does_not_wait_for_ever(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(stop_before_a_full_pipe).status, 7);
}

static void start_twice(void)
{
    log_start();
    log_start();
}

static void starting_twice_aborts(void **state)
{
    UNUSED(state);
    assert_int_equal(child_run(start_twice).signal, SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(json_record, forget),
        cmocka_unit_test_teardown(text_record, forget),
        cmocka_unit_test_teardown(records_without_fields, forget),
        cmocka_unit_test_teardown(fields_made_ready, forget),
        cmocka_unit_test_teardown(ready_fields_that_do_not_fit, forget),
        cmocka_unit_test_teardown(time_is_that_of_the_record, forget),
        cmocka_unit_test_teardown(levels_filter, forget),
        cmocka_unit_test_teardown(names_of_levels_and_formats, forget),
        cmocka_unit_test_teardown(a_long_text_is_cut_and_says_so, forget),
        cmocka_unit_test_teardown(every_length_ends_well, forget),
        cmocka_unit_test_teardown(stop_does_not_wait_for_ever, forget),
        cmocka_unit_test_teardown(starting_twice_aborts, forget),
        cmocka_unit_test_teardown(queued_records_are_whole_and_in_order, forget),
        cmocka_unit_test_teardown(before_start_and_after_stop_records_are_written_at_once, forget),
        cmocka_unit_test_teardown(records_come_without_a_stop, forget),
        cmocka_unit_test_teardown(a_full_queue_drops_whole_records_and_counts_them, forget),
        cmocka_unit_test_teardown(a_non_blocking_pipe_gets_every_byte, forget),
        cmocka_unit_test_teardown(a_reader_that_left_costs_records_only, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
