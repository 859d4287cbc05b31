/* Runs input through the parser and writes down what it reports, so that runs can be compared: the same bytes in other
 * pieces must give the same text. Used by the unit test and by the fuzzer. */
#ifndef LARDER_TESTS_HTTP_H1_TRACE_H
#define LARDER_TESTS_HTTP_H1_TRACE_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/str.h"
#include "http/h1.h"

#define TRACE_MAX  (1u << 16)
#define TRACE_HEAD 4096

struct trace {
    struct str text;
    char buf[TRACE_MAX];
    bool in_body;
    bool request, answers_head;
    struct h1 parser;
    struct h1_head head;
    char head_buf[TRACE_HEAD];
    bool over; /* after an error nothing is fed any more */
    const char *error;
    enum h1_fault fault;
};

static inline void trace_init(struct trace *t, bool request, bool answers_head)
{
    t->text = STR_INIT(t->buf);
    t->request = request;
    t->answers_head = answers_head;
    t->in_body = t->over = false;
    t->error = NULL;
    t->fault = H1_FAULT_NONE;
    t->head.buf = t->head_buf;
    t->head.cap = sizeof t->head_buf;
    if (request)
        h1_init_request(&t->parser, &t->head);
    else
        h1_init_response(&t->parser, &t->head, answers_head);
}

static inline void trace_inside(const struct trace *t, struct span s)
{
    MUST(s.p != NULL);
    MUST(s.n == 0 || (s.p >= t->head_buf && s.p + s.n <= t->head_buf + t->head.used));
}

static inline void trace_head(struct trace *t, const char *what)
{
    const struct h1_head *h = &t->head;
    MUST(h->used <= h->cap && h->n <= H1_FIELDS_MAX);
    str_addz(&t->text, what);
    if (t->request) {
        trace_inside(t, h->target);
        str_addc(&t->text, ' ');
        str_add(&t->text, h->method_name);
        str_addc(&t->text, ' ');
        str_add(&t->text, h->target);
    } else {
        str_addf(&t->text, " %u", h->status);
    }
    str_addf(&t->text, " 1.%u%s%s%s%s", h->minor, h->keep_alive ? " keep" : "", h->chunked ? " chunked" : "",
             h->body_until_eof ? " eof" : "", h->has_body ? " body" : "");
    if (h->has_length)
        str_addf(&t->text, " %llu", (unsigned long long)h->length);
    str_addc(&t->text, '\n');
    for (unsigned i = 0; i < h->n; i++) {
        struct span name = h->fields[i].name, value = h->fields[i].value;
        trace_inside(t, name);
        trace_inside(t, value);
        MUST(name.n > 0);
        MUST(value.n == 0 ||
             (memchr(" \t", value.p[0], 2) == NULL && memchr(" \t", value.p[value.n - 1], 2) == NULL));
        str_add(&t->text, name);
        str_addc(&t->text, '=');
        str_add(&t->text, value);
        str_addc(&t->text, '\n');
    }
}

static inline void trace_event(struct trace *t, enum h1_event e)
{
    if (t->in_body && e != H1_BODY && e != H1_MORE) {
        str_addc(&t->text, '\n');
        t->in_body = false;
    }
    switch (e) {
    case H1_MORE:
        break;
    case H1_HEADED:
        trace_head(t, "headed");
        break;
    case H1_BODY:
        MUST(t->parser.body.n > 0);
        if (!t->in_body)
            str_addz(&t->text, "body ");
        str_add(&t->text, t->parser.body);
        t->in_body = true;
        break;
    case H1_DONE:
        if (t->request && !t->head.has_body)
            trace_head(t, "done");
        else
            str_addz(&t->text, "done\n");
        h1_next(&t->parser, &t->head, t->answers_head);
        break;
    case H1_ERROR:
        MUST(h1_error(&t->parser)[0] != 0 && h1_fault(&t->parser) != H1_FAULT_NONE);
        t->error = h1_error(&t->parser);
        t->fault = h1_fault(&t->parser);
        str_addz(&t->text, "error\n");
        t->over = true;
        break;
    }
}

/* The piece is copied into memory of exactly its size, so that the address sanitizer sees a read beyond it. */
static inline void trace_feed(struct trace *t, const char *p, size_t n)
{
    char *own = malloc(n > 0 ? n : 1);
    MUST(own != NULL);
    memcpy(own, p, n);
    size_t at = 0;
    for (enum h1_event e = H1_BODY; !t->over && (at < n || e != H1_MORE);) {
        size_t used = h1_feed(&t->parser, own + at, n - at, &e);
        MUST(used <= n - at);
        MUST(e != H1_MORE || used == n - at);
        if (e == H1_BODY)
            MUST(t->parser.body.p >= own + at && t->parser.body.p + t->parser.body.n <= own + at + used);
        at += used;
        trace_event(t, e);
        if (e == H1_DONE && at == n)
            break;
    }
    free(own);
}

static inline void trace_end(struct trace *t)
{
    if (t->over)
        return;
    enum h1_event e = h1_eof(&t->parser);
    MUST(e == H1_DONE || e == H1_MORE || e == H1_ERROR);
    trace_event(t, e);
    if (e == H1_MORE)
        str_addz(&t->text, "end\n");
}

#endif
