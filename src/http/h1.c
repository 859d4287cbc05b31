/* llhttp as a pull of events. The only file that includes llhttp.h.
 *
 * Every callback that has something to report stores it in `pending` and returns HPE_PAUSED; h1_feed then resumes
 * and returns. A request without a body reports only H1_DONE, so that the common case is one llhttp_execute. A pause in
 * on_headers_complete needs one more (empty) execute before on_message_complete: the next h1_feed does it, also
 * with no bytes.
 *
 * Limits are counted here because llhttp has none. */
#include <llhttp.h>
#include <strings.h>

#include "base/check.h"
#include "http/h1.h"

_Static_assert(sizeof(llhttp_t) <= sizeof(((struct h1 *)0)->parser),
               "struct h1 is too small for llhttp's parser");

#define FRAMING_MAX 16384 /* chunk sizes, extensions and trailers between two pieces of the body */

static llhttp_t *parser_of(struct h1 *h)
{
    return (llhttp_t *)(void *)h->parser;
}

static struct h1 *h1_of(llhttp_t *p)
{
    return CONTAINER_OF((void *)p, struct h1, parser);
}

static int fail(struct h1 *h, enum h1_fault fault, const char *why)
{
    h->fault = (uint8_t)fault;
    h->error = why;
    return HPE_USER;
}

/* ---- collecting the head ---- */

static int keep(struct h1 *h, struct span *to, const char *at, size_t n)
{
    struct h1_head *head = h->head;
    if (n > head->cap - head->used)
        return fail(h, H1_FAULT_HEAD_SIZE, "header section too large");
    if (to->p == NULL)
        *to = span_of(head->buf + head->used, 0);
    MUST(to->p + to->n == head->buf + head->used);
    memcpy(head->buf + head->used, at, n);
    head->used += n;
    to->n += n;
    return 0;
}

static int on_begin(llhttp_t *p)
{
    h1_of(p)->started = true;
    return 0;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct h1 *h = h1_of(p);
    int rc = keep(h, &h->head->target, at, n);
    if (rc != 0)
        h->fault = H1_FAULT_TARGET_SIZE;
    return rc;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct h1 *h = h1_of(p);
    if (h->headed) /* trailers are read over */
        return 0;
    struct h1_head *head = h->head;
    if (head->n == 0 || head->fields[head->n - 1].value.p != NULL) {
        if (head->n == H1_FIELDS_MAX)
            return fail(h, H1_FAULT_HEAD_SIZE, "too many header fields");
        head->fields[head->n++] = (struct h1_field){SPAN_NONE, SPAN_NONE};
    }
    return keep(h, &head->fields[head->n - 1].name, at, n);
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct h1 *h = h1_of(p);
    if (h->headed)
        return 0;
    MUST(h->head->n > 0);
    return keep(h, &h->head->fields[h->head->n - 1].value, at, n);
}

/* ---- a complete head ---- */

/* The bytes of a field's name (RFC 9110 section 5.6.2, "token"). */
static const bool name_byte[256] = {
    ['!'] = 1,         ['#' ... '\''] = 1, ['*'] = 1,         ['+'] = 1, ['-'] = 1, ['.'] = 1,
    ['0' ... '9'] = 1, ['A' ... 'Z'] = 1,  ['^' ... 'z'] = 1, ['|'] = 1, ['~'] = 1,
};

static bool names_ok(const struct h1_head *head)
{
    for (unsigned i = 0; i < head->n; i++) {
        struct span name = head->fields[i].name;
        if (name.n == 0)
            return false;
        for (size_t k = 0; k < name.n; k++) {
            if (!name_byte[(unsigned char)name.p[k]])
                return false;
        }
    }
    return true;
}

/* No delimiter of a URL, no blank, nothing but ASCII. */
static const bool host_byte[256] = {
    ['!'] = 1, ['$' ... '.'] = 1, ['0' ... ';'] = 1, ['='] = 1, ['A' ... '['] = 1, [']' ... '~'] = 1,
};

/* RFC 9112 section 3.2: exactly one Host in HTTP/1.1, at most one in 1.0, and a value that can be one. */
static bool host_ok(const struct h1_head *head)
{
    unsigned n = h1_count(head, SPAN("host"));
    struct span host = h1_get(head, SPAN("host"));
    for (size_t i = 0; i < host.n; i++) {
        if (!host_byte[(unsigned char)host.p[i]])
            return false;
    }
    return n == 1 || (n == 0 && head->minor == 0);
}

static int take_request_line(struct h1 *h, const llhttp_t *p)
{
    static const struct {
        uint8_t llhttp;
        enum h1_method ours;
    } known[] = {{HTTP_GET, H1_GET}, {HTTP_HEAD, H1_HEAD}};
    h->head->method = H1_OTHER;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (known[i].llhttp == p->method)
            h->head->method = known[i].ours;
    }
    h->head->method_name = span_str(llhttp_method_name((llhttp_method_t)p->method));
    return host_ok(h->head) ? 0 : fail(h, H1_FAULT_SYNTAX, "missing, double or malformed Host");
}

static int take_framing(struct h1 *h, llhttp_t *p)
{
    struct h1_head *head = h->head;
    head->minor = p->http_minor;
    head->chunked = (p->flags & F_CHUNKED) != 0;
    head->has_length = (p->flags & F_CONTENT_LENGTH) != 0;
    head->length = head->has_length ? p->content_length : 0;
    if (p->http_major != 1 || p->http_minor > 1)
        return fail(h, H1_FAULT_SYNTAX, "not HTTP/1.0 or HTTP/1.1");
    struct span te = h1_get(head, SPAN("transfer-encoding"));
    if (te.p != NULL &&
        (!head->chunked || !span_ieq(te, SPAN("chunked")) || h1_count(head, SPAN("transfer-encoding")) > 1))
        return fail(h, H1_FAULT_SYNTAX, "transfer coding other than chunked");
    if (head->length > INT64_MAX)
        return fail(h, H1_FAULT_SYNTAX, "a length that no file can have");
    return 0;
}

static int on_headers_complete(llhttp_t *p)
{
    struct h1 *h = h1_of(p);
    struct h1_head *head = h->head;
    h->headed = true;
    h->in_head = false;
    for (unsigned i = 0; i < head->n; i++)
        head->fields[i].value = span_trim(head->fields[i].value);
    if (!names_ok(head))
        return fail(h, H1_FAULT_SYNTAX, "malformed field name");
    int rc = take_framing(h, p);
    if (rc != 0)
        return rc;
    if (h->request) {
        head->keep_alive = llhttp_should_keep_alive(p) != 0;
        rc = take_request_line(h, p);
        if (rc != 0)
            return rc;
        head->has_body = head->chunked || head->length > 0;
        if (!head->has_body)
            return 0; /* on_message_complete reports */
    } else {
        head->status = p->status_code;
        bool bodyless = h->no_body || head->status < 200 || head->status == 204 || head->status == 304;
        head->body_until_eof = !bodyless && !head->chunked && !head->has_length;
        head->has_body = !bodyless && (head->chunked || head->body_until_eof || head->length > 0);
        if (head->status < 100 || head->status > 999 || head->status == 101)
            return fail(h, H1_FAULT_SYNTAX,
                        head->status == 101 ? "unasked protocol switch" : "status not of three digits");
        if (bodyless)
            p->flags |= F_SKIPBODY; /* what the fields say about a body does not end the connection either */
        head->keep_alive = llhttp_should_keep_alive(p) != 0;
        if (bodyless) {
            head->chunked = false;
            h->pending = H1_HEADED;
            return 1; /* llhttp: no body whatever the fields say; H1_DONE follows without bytes */
        }
    }
    h->pending = H1_HEADED;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct h1 *h = h1_of(p);
    if (n == 0)
        return 0;
    h->body = span_of(at, n);
    h->pending = H1_BODY;
    return HPE_PAUSED;
}

static int on_complete(llhttp_t *p)
{
    struct h1 *h = h1_of(p);
    if (h->pending == H1_HEADED) /* a bodyless answer: the head is reported first, the end by h1_feed */
        return HPE_PAUSED;
    h->pending = H1_DONE;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_begin,
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* ---- feeding ---- */

static void start(struct h1 *h, struct h1_head *head)
{
    h->head = head;
    head->n = 0; /* and so the 3 KiB of `fields` need no zeroes */
    head->used = 0;
    head->method = H1_OTHER;
    head->target = head->method_name = SPAN_NONE;
    head->status = head->minor = 0;
    head->keep_alive = head->has_body = head->body_until_eof = head->chunked = head->has_length = false;
    head->length = 0;
    h->framing = 0;
    h->headed = h->started = h->last_cr = h->in_line = h->has_line = false;
    h->in_head = true;
    h->pending = H1_MORE;
    h->error = NULL;
    h->fault = H1_FAULT_NONE;
}

void h1_init_request(struct h1 *h, struct h1_head *head)
{
    llhttp_init(parser_of(h), HTTP_REQUEST, &settings);
    h->request = true;
    h->no_body = false;
    start(h, head);
}

void h1_init_response(struct h1 *h, struct h1_head *head, bool answers_head)
{
    llhttp_init(parser_of(h), HTTP_RESPONSE, &settings);
    h->request = false;
    h->no_body = answers_head;
    start(h, head);
}

void h1_next(struct h1 *h, struct h1_head *head, bool answers_head)
{
    if (h->request)
        h1_init_request(h, head);
    else
        h1_init_response(h, head, answers_head);
}

/* The lines of a head end in CRLF and hold no other CR or LF. False: not so. Looks at nothing behind the head: that is a
 * body, or the next message. Empty lines before the first one are passed over, as llhttp does. */
static bool lines_ok(struct h1 *h, const char *p, size_t n)
{
    const char *end = p + n;
    while (p < end) {
        if (h->last_cr) {
            if (*p++ != '\n')
                return false;
            bool over = h->has_line && !h->in_line;
            h->has_line = h->has_line || h->in_line;
            h->last_cr = h->in_line = false;
            if (over)
                break;
            continue;
        }
        const char *cr = memchr(p, '\r', (size_t)(end - p));
        size_t text = (size_t)((cr != NULL ? cr : end) - p);
        if (memchr(p, '\n', text) != NULL)
            return false;
        h->in_line = h->in_line || text > 0;
        h->last_cr = cr != NULL;
        p += text + h->last_cr;
    }
    return true;
}

static enum h1_event take_pending(struct h1 *h)
{
    enum h1_event e = (enum h1_event)h->pending;
    h->pending = H1_MORE;
    if (e == H1_HEADED && !h->request && !h->head->has_body && !h->head->chunked && !h->head->body_until_eof)
        h->pending = H1_DONE; /* nothing more to parse: the end is reported by the next call */
    return e;
}

static enum h1_event failed(struct h1 *h, const char *why)
{
    if (h->error == NULL)
        h->error = why;
    if (h->fault == H1_FAULT_NONE)
        h->fault = H1_FAULT_SYNTAX;
    return H1_ERROR;
}

/* Counts what was consumed without being body: a peer that sends framing only gets nowhere, but it must not get
 * there for ever. */
static enum h1_event bounded(struct h1 *h, bool in_head, size_t used, enum h1_event event)
{
    if (event == H1_ERROR)
        return event;
    h->framing += used - (event == H1_BODY ? h->body.n : 0);
    if (h->framing > (in_head ? h->head->cap : FRAMING_MAX)) {
        bool in_target = h->request && h->head->n == 0 && h->head->target.p != NULL;
        h->fault = in_target ? H1_FAULT_TARGET_SIZE : H1_FAULT_HEAD_SIZE;
        return failed(h, in_head ? "header section too large" : "chunk extensions or trailers too large");
    }
    if (event != H1_MORE)
        h->framing = 0;
    return event;
}

size_t h1_feed(struct h1 *h, const char *p, size_t n, enum h1_event *event)
{
    if (h->pending == H1_DONE) {
        h->pending = H1_MORE;
        *event = H1_DONE;
        return 0;
    }
    bool in_head = h->in_head;
    if (in_head && !lines_ok(h, p, n)) {
        *event = failed(h, "a line of the header section does not end in CRLF");
        return 0;
    }
    llhttp_t *l = parser_of(h);
    llhttp_errno_t rc = llhttp_execute(l, p, n);
    size_t used = n;
    if (rc == HPE_PAUSED) {
        used = (size_t)(llhttp_get_error_pos(l) - p);
        llhttp_resume(l);
        *event = take_pending(h);
    } else if (rc == HPE_PAUSED_UPGRADE) { /* a request that offers an upgrade is answered as if it did not */
        used = (size_t)(llhttp_get_error_pos(l) - p);
        llhttp_resume_after_upgrade(l);
        *event = H1_DONE;
        h->pending = H1_MORE;
    } else if (rc == HPE_OK) {
        *event = H1_MORE;
    } else {
        *event = failed(h, llhttp_get_error_reason(l));
    }
    *event = bounded(h, in_head, used, *event);
    return used;
}

enum h1_event h1_eof(struct h1 *h)
{
    enum h1_event e;
    (void)h1_feed(h, "", 0, &e); /* takes the parser past a pause at the end of the head */
    if (e != H1_MORE)
        return e;
    llhttp_errno_t rc = llhttp_finish(parser_of(h));
    if (rc == HPE_PAUSED || (rc == HPE_OK && h->pending == H1_DONE)) {
        h->pending = H1_MORE;
        return H1_DONE;
    }
    if (rc == HPE_OK && !h->started)
        return H1_MORE;
    return failed(h, "the connection ended in the middle of a message");
}

bool h1_started(const struct h1 *h)
{
    return h->started;
}

const char *h1_error(const struct h1 *h)
{
    return h->error != NULL ? h->error : "";
}

enum h1_fault h1_fault(const struct h1 *h)
{
    return (enum h1_fault)h->fault;
}

/* ---- looking at a head ---- */

struct span h1_get(const struct h1_head *h, struct span lower_name)
{
    for (unsigned i = 0; i < h->n; i++) {
        if (span_ieq(h->fields[i].name, lower_name))
            return h->fields[i].value;
    }
    return SPAN_NONE;
}

unsigned h1_count(const struct h1_head *h, struct span lower_name)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->n; i++)
        n += span_ieq(h->fields[i].name, lower_name);
    return n;
}
