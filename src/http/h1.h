/* HTTP/1.1 message parsing, both directions: llhttp wrapped as a push parser that reports one event at a time.
 * Bounded: the head's bytes, the number of fields, the bytes between two pieces of the body. Refused: lines of a head
 * that do not end in CRLF or hold another CR (llhttp 8.1 lets some pass, CVE-2023-30589 and CVE-2025-23167), both
 * Content-Length and Transfer-Encoding, transfer codings other than chunked, protocol switches.
 *
 * The head's strings are copied into the head's own buffer, so the input may come in any pieces and be reused.
 * Thread: the owner's. */
#ifndef LARDER_HTTP_H1_H
#define LARDER_HTTP_H1_H

#include "base/span.h"

#define H1_FIELDS_MAX 96

struct h1_field {
    struct span name, value; /* value without blanks at its ends */
};

enum h1_method { H1_GET, H1_HEAD, H1_OTHER };

struct h1_head {
    enum h1_method method;   /* request */
    struct span method_name; /* request, for the log */
    struct span target;      /* request, raw */
    unsigned status;         /* response */
    unsigned minor;          /* HTTP/1.minor */
    bool keep_alive;
    bool chunked;
    bool has_length;
    uint64_t length;     /* Content-Length */
    bool body_until_eof; /* response without framing */
    bool has_body;       /* at least one byte of body may follow */
    struct h1_field fields[H1_FIELDS_MAX];
    unsigned n;

    char *
        buf; /* set by the owner, with cap, before h1_init; cap is also the limit of the head's bytes as sent */
    size_t cap, used;
};

/* The first field of that name (lower-case letters), or an absent span. */
struct span h1_get(const struct h1_head *h, struct span lower_name);
unsigned h1_count(const struct h1_head *h, struct span lower_name);

enum h1_event {
    H1_MORE,   /* everything was consumed, nothing to report */
    H1_HEADED, /* the head is complete (responses; requests with a body) */
    H1_BODY,   /* *body is a piece of the body, inside the input */
    H1_DONE,   /* the message is complete */
    H1_ERROR   /* see h1_error; the parser is of no further use */
};

enum h1_fault { H1_FAULT_NONE, H1_FAULT_SYNTAX, H1_FAULT_HEAD_SIZE, H1_FAULT_TARGET_SIZE };

struct h1 {
    _Alignas(16) unsigned char parser[96];
    struct h1_head *head;
    struct span body; /* of the last H1_BODY */
    const char *error;
    size_t framing; /* bytes since the last event: of the head, or chunk sizes, extensions, trailers */
    uint8_t fault;
    bool request;
    bool no_body; /* response to HEAD */
    bool in_head;
    bool last_cr, in_line, has_line; /* of the head's lines so far: ends in CR; has bytes; there is one */
    bool headed, started;
    uint8_t pending; /* enum h1_event found by a callback */
};

void h1_init_request(struct h1 *h, struct h1_head *head);
void h1_init_response(struct h1 *h, struct h1_head *head, bool answers_head);
/* The same parser for the next message on the connection. */
void h1_next(struct h1 *h, struct h1_head *head, bool answers_head);

/* Consumes up to n bytes and stops at the first event. Returns how many were consumed. */
size_t h1_feed(struct h1 *h, const char *p, size_t n, enum h1_event *event);
/* The peer ended its side: H1_DONE (a body until EOF is complete), H1_MORE (between messages: fine), or
 * H1_ERROR (in the middle of something). */
enum h1_event h1_eof(struct h1 *h);
bool h1_started(const struct h1 *h); /* a byte of this message has come */
const char *h1_error(const struct h1 *h);
enum h1_fault h1_fault(const struct h1 *h);

#endif
