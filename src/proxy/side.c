/* Sides; see side.h.
 *
 *   HEAD   the request is out                              -> BODY | END
 *   BODY   bytes arrive into the buffer                    -> WRITE | END
 *   WRITE  a job writes them; then they are published      -> BODY | END
 *   END
 *
 * Before each write it looks where the front is: what the front has reached is never written to. */
#include "base/mem.h"
#include "proxy/side.h"

#define SIDE_BUF (128u << 10)

enum side_state { SIDE_HEAD, SIDE_BODY, SIDE_WRITE, SIDE_END };

#define SIDE_O_CALL 1u
#define SIDE_O_JOB  2u

struct side {
    struct op op;
    struct proxy *px;
    struct fetch *parent;
    struct flight *flight;
    uint64_t at, to, length;
    char *buf;
    size_t n, writing;
    bool last;    /* nothing more will come */
    bool broke;   /* ... although there should: it may be asked for again */
    bool written; /* the job has ended */
    bool fits;    /* the whole object, into the store */
    struct job job;
    int job_err;
    struct upstream_try t;
};

static void on_call(struct call *call)
{
    struct side *s = CONTAINER_OF(call, struct side, t.call);
    if (op_expects(&s->op, SIDE_O_CALL))
        op_clear(&s->op, SIDE_O_CALL);
    op_run(&s->op);
}

static enum step side_end(struct side *s)
{
    upstream_stop(&s->t);
    if (op_expects(&s->op, SIDE_O_CALL))
        op_clear(&s->op, SIDE_O_CALL);
    if (s->broke && s->op.closing == 0)
        fetch_side_failed(s->parent, s->at, s->to);
    return op_go(&s->op, SIDE_END);
}

static bool is_the_part(const struct side *s, const struct h1_head *head)
{
    uint64_t first, last, total;
    return head->status == 206 && !upstream_coded(head) &&
           range_parse_content(h1_get(head, SPAN("content-range")), &first, &last, &total) &&
           first == s->at && total == s->length;
}

static enum step step_head(struct side *s)
{
    enum upstream_next next = upstream_step(&s->t);
    unsigned status = s->t.failure.status;
    if (next == UPSTREAM_WAIT)
        return op_wait(&s->op, SIDE_O_CALL);
    if (next == UPSTREAM_HEADED && is_the_part(s, s->t.call.head))
        return op_go(&s->op, SIDE_BODY);
    if (next == UPSTREAM_HEADED || status == 400 || status == 416)
        fetch_no_more_sides(s->parent);
    else
        s->broke = true;
    return side_end(s);
}

/* Whole blocks only, but for the end of the object: see partial_write. */
static size_t whole_blocks(const struct side *s, size_t n)
{
    if (n >= s->to - s->at)
        return (size_t)(s->to - s->at);
    return n & ~((size_t)flight_partial(s->flight)->block - 1);
}

static enum step step_body(struct side *s)
{
    while (SIDE_BUF - s->n >= 16384 && whole_blocks(s, s->n) < s->to - s->at) {
        ssize_t n = call_read(&s->t.call, s->buf + s->n, SIDE_BUF - s->n);
        if (n == CALL_AGAIN && whole_blocks(s, s->n) == 0)
            return op_wait(&s->op, SIDE_O_CALL);
        if (n == CALL_AGAIN)
            break;
        if (n <= 0) {
            s->last = true;
            s->broke = s->n < s->to - s->at;
            break;
        }
        s->n += (size_t)n;
    }
    call_pause(&s->t.call);
    s->writing = whole_blocks(s, s->n);
    return op_go(&s->op, SIDE_WRITE);
}

static void write_work(struct job *j)
{
    struct side *s = CONTAINER_OF(j, struct side, job);
    char text[200];
    struct str why = STR_INIT(text);
    struct partial *p = flight_partial(s->flight);
    s->fits =
        s->fits || partial_expect(p, s->length); /* as the front asks; it may not have written anything yet */
    s->job_err = s->fits ? partial_write(p, s->at, s->buf, s->writing, &why) : ERR_STORE;
}

static void on_written(struct job *j)
{
    struct side *s = CONTAINER_OF(j, struct side, job);
    op_clear(&s->op, SIDE_O_JOB);
    s->written = true;
    op_run(&s->op);
}

static enum step written(struct side *s)
{
    s->written = false;
    if (s->job_err == 0 && flight_publish_ahead(s->flight, s->at, s->at + s->writing)) {
        s->at += s->writing;
        s->n -= s->writing;
        memmove(s->buf, s->buf + s->writing, s->n);
    } else {
        s->last = true;
    }
    if (s->job_err != 0)
        fetch_no_more_sides(s->parent);
    fetch_side_wrote(s->parent); /* may close this side: then the next step sees it */
    if (s->last || s->at >= s->to || s->op.closing != 0)
        return side_end(s);
    return op_go(&s->op, SIDE_BODY);
}

static enum step step_write(struct side *s)
{
    if (op_expects(&s->op, SIDE_O_JOB))
        return STEP_WAIT;
    if (s->written)
        return written(s);
    if (s->writing == 0 || s->at < fetch_front(s->parent) || s->op.closing != 0)
        return side_end(s);
    op_expect(&s->op, SIDE_O_JOB);
    job_start(s->op.core, &s->job, write_work, on_written);
    return STEP_WAIT;
}

static enum step side_step(struct op *op)
{
    struct side *s = CONTAINER_OF(op, struct side, op);
    if (op->closing != 0 && op->state < SIDE_WRITE)
        return side_end(s);
    switch ((enum side_state)op->state) {
    case SIDE_HEAD:
        return step_head(s);
    case SIDE_BODY:
        return step_body(s);
    case SIDE_WRITE:
        return step_write(s);
    case SIDE_END:
        break;
    }
    return STEP_END;
}

static void side_free(struct op *op)
{
    struct side *s = CONTAINER_OF(op, struct side, op);
    fetch_side_gone(s->parent, s); /* may end the parent */
    flight_unref(s->flight);
    mem_free(s->buf);
    mem_free(s);
}

static const char *side_state_name(unsigned state)
{
    static const char *const names[] = {"head", "body", "write", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static const struct op_class side_class = {"side", side_step, side_free, side_state_name, NULL};

struct side *side_start(struct proxy *px, struct fetch *parent, struct flight *flight,
                        const struct upstream_try *like, uint64_t from, uint64_t to, uint64_t length)
{
    struct side *s;
    NEW(s);
    op_init(&s->op, px->core, &side_class, SIDE_HEAD);
    s->px = px;
    s->parent = parent;
    s->flight = flight_ref(flight);
    s->at = from;
    s->to = to;
    s->length = length;
    s->buf = mem_alloc(SIDE_BUF);
    s->t.px = px;
    s->t.setup = like->setup; /* the fetch holds it, and outlives us */
    s->t.up = like->up;
    s->t.set = like->set;
    s->t.repo_n = like->repo_n;
    s->t.what = WHAT_BLOB;
    s->t.insistent = true; /* a part of a transfer: it says nothing of how upstream is */
    s->t.endpoint = like->endpoint;
    memcpy(s->t.path, like->path, sizeof s->t.path);
    struct str f = STR_INIT(s->t.fields);
    str_add(&f, SPAN("Accept: */*\r\nRange: bytes="));
    str_addu(&f, from);
    str_addc(&f, '-');
    str_addu(&f, to - 1);
    str_add(&f, SPAN("\r\n"));
    op_expect(&s->op, SIDE_O_CALL);
    upstream_start(&s->t, on_call);
    return s;
}

bool side_writes_into(const struct side *s, uint64_t from, uint64_t to)
{
    return op_expects(&s->op, SIDE_O_JOB) && s->at < to && from < s->at + s->writing;
}

void side_close(struct side *s)
{
    op_close(&s->op, ERR_CLIENT_GONE);
}
