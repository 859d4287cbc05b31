/* Bodies made of ranges of one object, wherever its bytes are: in an open file, in a partial file that still grows, or in
 * memory.
 *
 * A body is a list of parts. A part is HEAD (a few bytes of text, only in multipart/byteranges: RFC 9110 section 14.6), then
 * BYTES, then the next part; after the last one comes the TAIL (the closing delimiter), then END. Ranges keep the order
 * and number in which they were asked for: containers/storage counts on it.
 *
 * What comes from a flight is gone on with alone (pass.h) when the flight cannot be kept, when it fails and was led for another repository,
 * and when it is another registry's and stands still. Of the whole the flight has hashed what lies before its front. */
#include <stdlib.h>

#include "base/mem.h"
#include "proxy/foreign.h"
#include "proxy/pass.h"
#include "proxy/proxy_int.h"

enum part { PART_HEAD, PART_BYTES, PART_TAIL, PART_END };

struct content_body {
    struct body base;
    struct content *content;
    char boundary[BOUNDARY_LEN];
    bool multipart, whole;
    bool passed;        /* the last piece came from the pass */
    bool waits;         /* the last answer was that the flight has nothing yet */
    bool apart;         /* it goes on alone: the seat's flight is not waited for any more */
    uint64_t front;     /* ... from here on, if it is the whole */
    struct hasher upto; /* at front */
    struct foreign_wait wait;
    struct timer patience; /* armed: the seat's flight is foreign, and has been waited for */
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
 * the pass has a tail of its own. */
static enum body_status whole_pull(struct content_body *c, uint64_t off, struct body_piece *piece)
{
    struct content *from = c->content;
    if (from->pass == NULL || pass_verifies(from->pass) != c->front)
        pass_begin(from, c->front, UINT64_MAX, &c->upto);
    if (off >= c->front)
        return pass_bytes(from->pass, off, piece);
    if (pass_verified(from->pass) || pass_got(from->pass) >= FLIGHT_TAIL)
        return flight_bytes(from->seat, off, c->front, false, piece);
    return pass_failure(from->pass) != NULL ? BODY_FAIL : BODY_WAIT;
}

/* From now on it goes on alone. False: it cannot. Several ranges that make a whole cannot be verified in the order in which they go
 * out. */
static bool go_apart(struct content_body *c)
{
    struct content *from = c->content;
    if (c->whole && c->n > 1)
        return false;
    c->front = c->whole && from->seat != NULL ? flight_front(from->seat) : 0;
    if (c->front == 0)
        hasher_init(&c->upto, (enum digest_alg)from->alone->digest.alg);
    c->apart = c->front == 0 || flight_upto(from->seat, c->front, &c->upto);
    return c->apart;
}

/* The seat's flight has ended before its time: is it worth going on without it? What it sent is wrong: then not. */
static bool ended_for_others(const struct content *from)
{
    if (flight_seen(from->seat) == FLIGHT_UNKEPT)
        return true;
    int err = flight_failure(from->seat)->err;
    return from->shared && err != ERR_UP_DIGEST && err != ERR_STOPPING;
}

static int64_t patience_left(struct content_body *c)
{
    const struct pass_what *alone = c->content->alone;
    return foreign_patience(&c->wait, c->content->seat, alone->setup, alone->rule, core_now(alone->px->core));
}

/* The flight has nothing yet: from now on, or since it came on last, it is waited for. */
static void watch(struct content_body *c)
{
    struct core *core = c->content->alone->px->core;
    if (c->whole && c->n > 1)
        return;
    if (c->patience.due == 0)
        foreign_begin(&c->wait, c->content->seat, core_now(core));
    int64_t left = patience_left(c);
    if (c->patience.due == 0 && left < INT64_MAX)
        timer_arm(core, &c->patience, left);
}

#define LOOK_AGAIN_MS 100 /* it is just coming on */

static void on_patience(struct timer *t)
{
    struct content_body *c = CONTAINER_OF(t, struct content_body, patience);
    const struct content *from = c->content;
    const struct pass_what *alone = from->alone;
    int64_t left = c->waits ? patience_left(c) : INT64_MAX;
    if (left == INT64_MAX)
        return;
    if (left > 0 || !go_apart(c)) {
        timer_arm(alone->px->core, &c->patience, left > 0 ? left : LOOK_AGAIN_MS);
        return;
    }
    foreign_shun(alone->px, from->seat, &alone->digest);
    c->base.wake(c->base.wake_arg);
}

/* The flight that was left has all of it by now, and what has gone out is the flight's: the pass may have less luck. */
static void come_back(struct content_body *c, uint64_t off)
{
    struct content *from = c->content;
    if (!c->apart || from->seat == NULL || (c->whole && off > c->front))
        return;
    enum flight_state state = flight_seen(from->seat);
    if (state != FLIGHT_VERIFIED && state != FLIGHT_DONE)
        return;
    content_pass_end(from);
    c->apart = false;
}

static enum body_status alone_pull(struct content_body *c, uint64_t off, uint64_t end,
                                   struct body_piece *piece)
{
    struct content *from = c->content;
    come_back(c, off);
    /* What the pass verifies is all that comes behind c->front; of a range the file may have more. */
    bool looks = !c->apart || (!c->whole && from->seat != NULL && flight_seen(from->seat) >= FLIGHT_FAILED);
    if (from->seat != NULL && looks) {
        enum body_status status = flight_bytes(from->seat, off, end, c->whole, piece);
        c->waits = status == BODY_WAIT;
        if (c->waits && from->shared && from->alone != NULL)
            watch(c);
        if (status != BODY_FAIL || from->alone == NULL || (!c->apart && !ended_for_others(from)))
            return status;
    }
    if (!c->apart && !go_apart(c))
        return BODY_FAIL;
    c->passed = !c->whole || off >= c->front;
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
    timer_disarm(&c->patience);
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
    c->passed = c->waits = c->apart = false;
    timer_init(&c->patience, on_patience);
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
