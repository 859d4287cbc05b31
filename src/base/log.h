/* Structured log on stderr: one line per record, as JSON or as text. Any thread; lines are written whole.
 *
 *     log_emit(LOG_INFO, "store", "opened", LOG_S("path", path), LOG_U("objects", n));
 *
 * gives {"time":"...","level":"info","group":"store","msg":"opened","path":"/var/...","objects":12}
 * or     2026-... info store: opened path=/var/... objects=12
 *
 * A record is formatted into a buffer of the thread (8 KiB; longer ones are cut and say so), then handed to the
 * sink: a bounded queue of 1 MiB and one writer thread, so that a slow terminal or pipe never stops a loop. When the
 * queue is full records are dropped and the count is logged later. An error is written at once, the rest within
 * 50 ms. Before log_start() and after log_stop() records are written directly. Nothing secret may be passed in:
 * there is no scrubbing. */
#ifndef LARDER_BASE_LOG_H
#define LARDER_BASE_LOG_H

#include "base/span.h"
#include "base/digest.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

struct log_field {
    struct span key_json, key_text; /* what stands before the value: `,"name":` and ` name=` */
    enum {
        LOG_FIELD_SPAN,
        LOG_FIELD_INT,
        LOG_FIELD_UINT,
        LOG_FIELD_DIGEST,
        LOG_FIELD_MS,
        LOG_FIELD_READY
    } kind;
    union {
        struct span s; /* an absent span leaves the field out */
        int64_t i;
        uint64_t u;
        const struct digest *d;
    };
};

/* n is a string literal, so that the keys are made by the compiler. */
#define LOG_FIELD(n, k, ...)                                                                                 \
    ((struct log_field){.key_json = {",\"" n "\":", sizeof(n) + 3},                                          \
                        .key_text = {" " n "=", sizeof(n) + 1},                                              \
                        .kind = (k),                                                                         \
                        __VA_ARGS__})
#define LOG_S(n, v)  LOG_FIELD(n, LOG_FIELD_SPAN, .s = span_str(v))
#define LOG_SP(n, v) LOG_FIELD(n, LOG_FIELD_SPAN, .s = (v))
#define LOG_I(n, v)  LOG_FIELD(n, LOG_FIELD_INT, .i = (v))
#define LOG_U(n, v)  LOG_FIELD(n, LOG_FIELD_UINT, .u = (v))
#define LOG_D(n, v)  LOG_FIELD(n, LOG_FIELD_DIGEST, .d = (v))
#define LOG_MS(n, v) LOG_FIELD(n, LOG_FIELD_MS, .i = (v)) /* microseconds in, "1.234" ms out */

/* Fields that were formatted before, by log_ready in each format: for records that differ in little. */
#define LOG_READY(json, text)                                                                                \
    ((struct log_field){.key_json = (json), .key_text = (text), .kind = LOG_FIELD_READY})

void log_setup(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
void log_start(void); /* starts the writer thread */
/* Writes what is queued, ends the thread; gives up after 2 s if standard error takes nothing. Not started: a no-op. */
void log_stop(void);
uint64_t log_dropped(void);
int log_level_parse(struct span s);  /* enum log_level or -1 */
int log_format_parse(struct span s); /* enum log_format or -1 */

void log_write(enum log_level level, const char *group, const char *msg, const struct log_field *fields,
               size_t n);

/* For LOG_READY. In the thread's buffer: good until its next record. Absent: they do not fit. */
struct span log_ready(enum log_format format, const struct log_field *fields, size_t n);

#define log_emit(level, group, msg, ...)                                                                     \
    do {                                                                                                     \
        if (log_enabled(level))                                                                              \
            log_write((level), (group), (msg), (const struct log_field[]){__VA_ARGS__},                      \
                      sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field));           \
    } while (0)

#define log_error(group, msg, ...) log_emit(LOG_ERROR, group, msg, __VA_ARGS__)
#define log_warn(group, msg, ...)  log_emit(LOG_WARN, group, msg, __VA_ARGS__)
#define log_info(group, msg, ...)  log_emit(LOG_INFO, group, msg, __VA_ARGS__)
#define log_debug(group, msg, ...) log_emit(LOG_DEBUG, group, msg, __VA_ARGS__)

#endif
