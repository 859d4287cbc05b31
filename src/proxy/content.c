/* Bodies made of ranges of one object, wherever its bytes are: in an open file, in a partial file that still grows, or in
 * memory.
 *
 * A body is a list of parts. A part is HEAD (a few bytes of text, only in multipart/byteranges: RFC 9110 section 14.6), then
 * BYTES, then the next part; after the last one comes the TAIL (the closing delimiter), then END. Ranges keep the order
 * and number in which they were asked for: containers/storage counts on it. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/pass.h"
#include "proxy/proxy_int.h"

enum part { PART_HEAD, PART_BYTES, PART_TAIL, PART_END };

struct content_body {
    struct body base;
    struct content *content;
    char boundary[BOUNDARY_LEN];
    bool multipart, whole;
    bool passed; /* the last piece came from the pass */
    enum part part;
    char text[512];
    size_t text_n, text_at;
    size_t n, i;
    uint64_t at; /* bytes of the present range that were taken */
    struct range ranges[];
};

static struct content_body *body_of(struct body *b)
{
    return CONTAINER_OF(b, struct content_body, base);
}

static void part_head(const struct content_body *c, size_t i, struct str *out)
{
    const struct range *r = &c->ranges[i];
    str_add(out, i == 0 ? SPAN("--") : SPAN("\r\n--"));
    str_add(out, span_of(c->boundary, BOUNDARY_LEN));
    str_add(out, SPAN("\r\nContent-Type: "));
    str_add(out, c->content->media);
    str_add(out, SPAN("\r\nContent-Range: bytes "));
    str_addu(out, r->off);
    str_addc(out, '-');
    str_addu(out, r->off + r->len - 1);
    str_addc(out, '/');
    str_addu(out, c->content->length);
    str_add(out, SPAN("\r\n\r\n"));
}

static void part_tail(const struct content_body *c, struct str *out)
{
    str_add(out, SPAN("\r\n--"));
    str_add(out, span_of(c->boundary, BOUNDARY_LEN));
    str_add(out, SPAN("--\r\n"));
}

static void part_enter(struct content_body *c, enum part part)
{
    c->part = part;
    struct str s = STR_INIT(c->text);
    if (part == PART_HEAD)
        part_head(c, c->i, &s);
    else if (part == PART_TAIL)
        part_tail(c, &s);
    MUST(!s.cut);
    c->text_n = s.n;
    c->text_at = 0;
}

static void range_next(struct content_body *c)
{
    c->at = 0;
    if (++c->i < c->n)
        part_enter(c, c->multipart ? PART_HEAD : PART_BYTES);
    else
        part_enter(c, c->multipart ? PART_TAIL : PART_END);
}

/* ---- going on alone ---- */

static void on_pass(void *arg)
{
    struct content *content = arg;
    if (content->body != NULL && content->body->wake != NULL)
        content->body->wake(content->body->wake_arg);
}

void content_pass_end(struct content *content)
{
    struct pass *p = content->pass;
    content->pass = NULL;
    pass_close(p);
}

static void pass_begin(struct content *content, uint64_t from, uint64_t end, const struct hasher *upto)
{
    struct pass_part part = {
        .from = from, .end = end, .length = content->length, .upto = upto, .headed = true};
    content_pass_end(content);
    content->pass = pass_start(content->alone, &part, on_pass, content);
}

/* A part of the blob: whatever is missing of it. */
static enum body_status part_pull(struct content *content, uint64_t off, uint64_t end,
                                  struct body_piece *piece)
{
    if (content->pass == NULL || !pass_is_at(content->pass, off, end))
        pass_begin(content, off, end, NULL);
    return pass_bytes(content->pass, off, piece);
}

/* The whole blob, behind what is in the file: [front, end), with all of the digest. What the file has of the tail is withheld until
 * the pass has a tail of its own. Several ranges that make a whole cannot be verified in the order in which they go out. */
static enum body_status whole_pull(struct content_body *c, uint64_t off, struct body_piece *piece)
{
    struct content *from = c->content;
    uint64_t front = from->seat != NULL ? flight_front(from->seat) : 0;
    if (c->n > 1)
        return BODY_FAIL;
    if (from->pass == NULL || pass_verifies(from->pass) != front) {
        struct hasher fresh;
        hasher_init(&fresh, (enum digest_alg)from->alone->digest.alg);
        pass_begin(from, front, UINT64_MAX, from->seat != NULL ? flight_upto(from->seat) : &fresh);
    }
    if (off >= front)
        return pass_bytes(from->pass, off, piece);
    if (pass_verified(from->pass) || pass_got(from->pass) >= FLIGHT_TAIL)
        return flight_bytes(from->seat, off, front, false, piece);
    return pass_failure(from->pass) != NULL ? BODY_FAIL : BODY_WAIT;
}

static enum body_status alone_pull(struct content_body *c, uint64_t off, uint64_t end,
                                   struct body_piece *piece)
{
    struct content *from = c->content;
    if (from->seat != NULL) {
        enum body_status status = flight_bytes(from->seat, off, end, c->whole, piece);
        if (status != BODY_FAIL || flight_seen(from->seat) != FLIGHT_UNKEPT || from->alone == NULL)
            return status;
    }
    c->passed = !c->whole || off >= (from->seat != NULL ? flight_front(from->seat) : 0);
    return c->whole ? whole_pull(c, off, piece) : part_pull(from, off, end, piece);
}

static enum body_status bytes_pull(struct content_body *c, struct body_piece *piece)
{
    struct content *from = c->content;
    const struct range *r = &c->ranges[c->i];
    uint64_t off = r->off + c->at, left = r->len - c->at;
    c->passed = false;
    if (from->seat != NULL || from->alone != NULL)
        return alone_pull(c, off, r->off + r->len, piece);
    struct open_object *object = from->object;
    const char *mem = object != NULL ? object->bytes : from->bytes.p;
    if (mem != NULL) {
        *piece = (struct body_piece){.mem = mem + off, .len = left};
        return BODY_PIECE;
    }
    MUST(object != NULL);
    *piece =
        (struct body_piece){.fd = object->fd,
                            .off = (off_t)off,
                            .len = left,
                            .seen_warm_ms = off == 0 && left == object->size ? &object->seen_warm_ms : NULL};
    return BODY_PIECE;
}

static enum body_status content_pull(struct body *b, struct body_piece *piece)
{
    struct content_body *c = body_of(b);
    if (c->part == PART_END)
        return BODY_END;
    if (c->part == PART_BYTES)
        return bytes_pull(c, piece);
    *piece = (struct body_piece){.mem = c->text + c->text_at, .len = c->text_n - c->text_at};
    return BODY_PIECE;
}

static void content_took(struct body *b, uint64_t n)
{
    struct content_body *c = body_of(b);
    if (c->part == PART_BYTES) {
        if (c->passed)
            pass_took(c->content->pass, n);
        c->at += n;
        if (c->at == c->ranges[c->i].len)
            range_next(c);
        return;
    }
    c->text_at += (size_t)n;
    if (c->text_at == c->text_n)
        part_enter(c, c->part == PART_HEAD ? PART_BYTES : PART_END);
}

static void content_stop(struct body *b)
{
    struct content_body *c = body_of(b);
    c->content->body = NULL;
    content_pass_end(c->content);
    mem_free(c);
}

static uint64_t multipart_length(const struct content_body *c)
{
    char text[512];
    uint64_t total = 0;
    for (size_t i = 0; i < c->n; i++) {
        struct str s = STR_INIT(text);
        part_head(c, i, &s);
        total += s.n + c->ranges[i].len;
    }
    struct str s = STR_INIT(text);
    part_tail(c, &s);
    return total + s.n;
}

static int by_offset(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

/* Do the ranges together make the whole object? Then they are withheld like the whole. */
static bool covers_all(const struct range *ranges, size_t n, uint64_t length)
{
    if (n == 1)
        return ranges[0].off == 0 && ranges[0].len == length;
    struct range *sorted = mem_alloc(n * sizeof *sorted);
    memcpy(sorted, ranges, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_offset);
    uint64_t upto = 0;
    for (size_t i = 0; i < n && sorted[i].off <= upto; i++) {
        if (sorted[i].off + sorted[i].len > upto)
            upto = sorted[i].off + sorted[i].len;
    }
    mem_free(sorted);
    return upto >= length;
}

struct body *content_body(struct content *content, const struct range *ranges, size_t n, struct span boundary,
                          uint64_t *total)
{
    static const struct body_ops ops = {content_pull, content_took, content_stop};
    size_t count = n > 0 ? n : 1;
    struct content_body *c = mem_alloc(sizeof *c + count * sizeof c->ranges[0]);
    c->base = (struct body){.ops = &ops};
    c->content = content;
    c->n = count;
    c->i = 0;
    c->at = 0;
    c->passed = false;
    c->multipart = n > 1;
    if (n > 0)
        memcpy(c->ranges, ranges, n * sizeof ranges[0]);
    else
        c->ranges[0] = (struct range){.off = 0, .len = content->length};
    c->whole = covers_all(c->ranges, count, content->length);
    *total = c->ranges[0].len;
    if (c->multipart) {
        MUST(boundary.n == BOUNDARY_LEN);
        memcpy(c->boundary, boundary.p, BOUNDARY_LEN);
        *total = multipart_length(c);
    }
    bool empty = content->length == 0;
    part_enter(c, empty ? PART_END : c->multipart ? PART_HEAD : PART_BYTES);
    content->body = &c->base;
    return &c->base;
}

/* ---- pieces of memory, one after the other ---- */

struct pieces_body {
    struct body base;
    struct span piece[PIECES_MAX];
    unsigned n, i;
};

static enum body_status pieces_pull(struct body *b, struct body_piece *piece)
{
    const struct pieces_body *p = CONTAINER_OF(b, struct pieces_body, base);
    if (p->i == p->n)
        return BODY_END;
    *piece = (struct body_piece){.mem = p->piece[p->i].p, .len = p->piece[p->i].n};
    return BODY_PIECE;
}

static void pieces_took(struct body *b, uint64_t n)
{
    struct pieces_body *p = CONTAINER_OF(b, struct pieces_body, base);
    p->piece[p->i] = span_from(p->piece[p->i], (size_t)n);
    while (p->i < p->n && p->piece[p->i].n == 0)
        p->i++;
}

static void pieces_stop(struct body *b)
{
    mem_free(CONTAINER_OF(b, struct pieces_body, base));
}

struct body *pieces_body(const struct span *pieces, unsigned n, uint64_t *total)
{
    static const struct body_ops ops = {pieces_pull, pieces_took, pieces_stop};
    MUST(n <= PIECES_MAX);
    struct pieces_body *p;
    NEW(p);
    p->base.ops = &ops;
    *total = 0;
    for (unsigned i = 0; i < n; i++) {
        *total += pieces[i].n;
        if (pieces[i].n > 0)
            p->piece[p->n++] = pieces[i];
    }
    return &p->base;
}
