/* Passing a blob on without storing it.
 *
 * The promise: a store that takes no more (full, read-only, failing, or the blob is larger than all of it may be) costs no client its
 * bytes, no client gets bytes that do not match the digest as a complete answer, and memory stays bounded.
 *
 * How. A fill that cannot be written any further ends at once (flight.h: UNKEPT). What its file has is still there for its readers,
 * and for later fills. Each reader comes to that front sooner or later, and goes on alone from there: with a request of its own,
 * "Range: bytes=FRONT-", from the socket through a small buffer to the client. The fill has hashed all up to the front; each
 * reader gets a copy of the digest's state, hashes the rest itself, and withholds the tail until it is right. A reader of a range asks for
 * what is missing of its range. A client for whom not even a file could be opened has a pass from the beginning. So does who comes
 * later, unless the store has healed; with a file that has a part of the blob, a new fill serves that part first.
 *
 * Why not one upstream transfer for all, through a window in memory? The readers of a fill stand wherever their lines have brought
 * them, gigabytes apart. A window would keep either the fast ones waiting for the slowest or not be bounded, so whoever falls out of it
 * needs a pass anyway. Passes alone are one mechanism, readers have nothing to do with each other, and a slow client costs
 * nobody anything. The price is one request upstream for each client, while the disk is full, which upstream's max_connections bounds.
 *
 *   SEND    a request is made                     -> HEAD
 *   HEAD    its answer is looked at               -> BODY | PAUSE | OVER
 *   BODY    bytes go into the buffer              -> PAUSE (it broke) | OVER
 *   PAUSE   a short wait before the next attempt  -> SEND
 *   OVER    all is here, or it failed; until it is closed
 *
 * Invariant: buf[at, n) are the bytes [taken, x.front); bytes only move when the client has taken some, because a piece stays valid until
 * then. Hashing is done on the loop: it is at most a buffer at a time. */
#include "base/mem.h"
#include "proxy/pass.h"
#include "proxy/transfer.h"

#define READ_ROOM (16u << 10) /* less room than this is not worth a read */

enum pass_state { PASS_SEND, PASS_HEAD, PASS_BODY, PASS_PAUSE, PASS_OVER };

#define PASS_O_CALL   1u
#define PASS_O_TIMER  2u
#define PASS_O_READER 4u /* until pass_close */

struct pass {
    struct op op;
    struct proxy *px;
    struct transfer x; /* front: what has arrived */
    uint64_t from, taken;
    bool seen; /* upstream has answered with the blob */
    bool verify, verified, failed;
    bool beyond; /* the answer goes on behind what was asked for */
    bool paused;
    struct hasher hasher;
    struct timer pause;
    void (*news)(void *arg);
    void *arg;
    char *buf;
    size_t at, n;
};

static void on_call(struct call *call)
{
    struct pass *p = CONTAINER_OF(call, struct pass, x.t.call);
    if (op_expects(&p->op, PASS_O_CALL))
        op_clear(&p->op, PASS_O_CALL);
    op_run(&p->op);
}

static void on_pause(struct timer *t)
{
    struct pass *p = CONTAINER_OF(t, struct pass, pause);
    op_clear(&p->op, PASS_O_TIMER);
    op_run(&p->op);
}

/* No event of the call will come any more. */
static void call_stop(struct pass *p)
{
    upstream_stop(&p->x.t);
    if (op_expects(&p->op, PASS_O_CALL))
        op_clear(&p->op, PASS_O_CALL);
}

/* What was decided is in the pass: from here on the owner may do anything, also close it. */
static void tell(struct pass *p)
{
    if (p->news != NULL)
        p->news(p->arg);
}

static enum step over(struct pass *p, bool failed)
{
    call_stop(p);
    p->failed = failed;
    (void)op_go(&p->op, PASS_OVER);
    tell(p);
    return STEP_MORE;
}

static enum step broke(struct pass *p)
{
    call_stop(p);
    if (transfer_again(&p->x))
        return op_go(&p->op, PASS_PAUSE);
    bool unknown = p->x.t.failure.err == ERR_BLOB_UNKNOWN;
    upstream_log(&p->x.t, unknown ? LOG_DEBUG : LOG_WARN, "blob not passed on");
    return over(p, true);
}

static enum step step_send(struct pass *p)
{
    p->paused = false;
    transfer_send(&p->x, on_call);
    return op_go(&p->op, PASS_HEAD);
}

static enum step step_head(struct pass *p)
{
    switch (transfer_head(&p->x)) {
    case TRANSFER_WAIT:
        return op_wait(&p->op, PASS_O_CALL);
    case TRANSFER_BODY:
        break;
    case TRANSFER_ALL: /* a part that is asked for first lies behind the end, and the blob is not what the client believes */
    case TRANSFER_BEYOND:
        upstream_reject(&p->x.t, ERR_UP_CONTENT, "the blob is shorter than it was");
        return over(p, true);
    case TRANSFER_BROKEN:
        return broke(p);
    }
    (void)op_go(&p->op, PASS_BODY);
    if (!p->seen) { /* who waits for a connection needs no buffer */
        p->buf = mem_alloc(PASS_BUF);
        p->seen = p->x.headed = true;
        p->x.progress_ms = core_now(p->op.core);
        tell(p);
    }
    return STEP_MORE;
}

/* ---- BODY ---- */

static uint64_t wanted_end(const struct pass *p)
{
    const struct transfer *x = &p->x;
    return x->length_known && x->length < x->end ? x->length : x->end;
}

static enum step finished(struct pass *p)
{
    uint64_t end = wanted_end(p);
    if (p->x.skip > 0 || (end != UINT64_MAX && p->x.front < end)) {
        upstream_reject(&p->x.t, ERR_UP_SHORT, "the answer ended early");
        return broke(p);
    }
    if (p->verify) {
        struct digest got;
        hasher_finish(&p->hasher, &got);
        if (!digest_eq(&got, &p->x.digest)) {
            transfer_mismatch(&p->x, &got);
            return over(p, true);
        }
        p->verified = true;
    }
    if (!p->x.length_known && p->x.end == UINT64_MAX) {
        p->x.length_known = true;
        p->x.length = p->x.front;
    }
    return over(p, false);
}

/* `n` bytes were read to the end of the buffer. False: more than there may be. */
static bool take_in(struct pass *p, size_t n)
{
    struct transfer *x = &p->x;
    n = transfer_skip(x, p->buf + p->n, n);
    if (x->length_known && n > x->length - x->front)
        return false;
    if (n > x->end - x->front) {
        n = (size_t)(x->end - x->front);
        p->beyond = true;
    }
    if (p->verify)
        hasher_update(&p->hasher, p->buf + p->n, n);
    p->n += n;
    x->front += n;
    x->progress_ms = core_now(p->op.core);
    return true;
}

/* An answer to Range ends where the range does; one that did not honour it, or goes on, is cut there. */
static bool has_part(const struct pass *p)
{
    return p->x.front == p->x.end && (p->beyond || p->x.t.call.head->status != 206);
}

static enum step step_body(struct pass *p)
{
    uint64_t before = p->x.front;
    ssize_t n = 1;
    while (PASS_BUF - p->n >= READ_ROOM && n > 0 && !has_part(p)) {
        n = call_read(&p->x.t.call, p->buf + p->n, PASS_BUF - p->n);
        if (n > 0 && !take_in(p, (size_t)n)) {
            upstream_reject(&p->x.t, ERR_UP_CONTENT, "the blob is longer than announced");
            return over(p, true);
        }
    }
    if (n == 0 || has_part(p))
        return finished(p);
    if (n == CALL_BROKEN) {
        upstream_reject(&p->x.t, p->x.t.call.err, p->x.t.call.why);
        return broke(p);
    }
    if (n > 0) { /* the buffer is full: pass_took goes on */
        call_pause(&p->x.t.call);
        if (op_expects(&p->op, PASS_O_CALL))
            op_clear(&p->op, PASS_O_CALL);
    } else {
        p->op.outstanding |= PASS_O_CALL;
    }
    if (p->x.front > before)
        tell(p);
    return STEP_WAIT;
}

static enum step step_pause(struct pass *p)
{
    if (op_expects(&p->op, PASS_O_TIMER))
        return STEP_WAIT;
    if (p->paused)
        return op_go(&p->op, PASS_SEND);
    p->paused = true;
    op_expect(&p->op, PASS_O_TIMER);
    timer_arm(p->op.core, &p->pause, transfer_pause_ms(&p->x));
    return STEP_WAIT;
}

/* ---- the operation ---- */

static enum step pass_step(struct op *op)
{
    struct pass *p = CONTAINER_OF(op, struct pass, op);
    if (op->closing != 0) {
        call_stop(p);
        if (op_expects(op, PASS_O_TIMER)) {
            timer_disarm(&p->pause);
            op_clear(op, PASS_O_TIMER);
        }
        return STEP_END;
    }
    switch ((enum pass_state)op->state) {
    case PASS_SEND:
        return step_send(p);
    case PASS_HEAD:
        return step_head(p);
    case PASS_BODY:
        return step_body(p);
    case PASS_PAUSE:
        return step_pause(p);
    case PASS_OVER:
        return op_wait(op, PASS_O_READER);
    }
    return STEP_END;
}

static void pass_free(struct op *op)
{
    struct pass *p = CONTAINER_OF(op, struct pass, op);
    setup_release(p->px, p->x.t.setup);
    mem_free(p->buf);
    mem_free(p);
}

static const char *pass_state_name(unsigned state)
{
    static const char *const names[] = {"send", "head", "body", "pause", "over"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static const struct op_class pass_class = {"pass", pass_step, pass_free, pass_state_name, NULL};

struct pass *pass_start(const struct pass_what *what, const struct pass_part *part, void (*news)(void *arg),
                        void *arg)
{
    struct pass *p;
    NEW(p);
    op_init(&p->op, what->px->core, &pass_class, PASS_SEND);
    p->px = what->px;
    transfer_init(&p->x, what->px, setup_hold(what->px, what->setup), what->rule, what->repo, &what->digest);
    p->x.front = p->from = p->taken = part->from;
    p->x.end = part->end;
    p->x.length_known = part->length != LENGTH_UNKNOWN;
    p->x.length = part->length;
    p->x.headed = part->headed;
    p->verify = part->upto != NULL;
    if (p->verify)
        p->hasher = *part->upto;
    p->x.progress_ms = core_now(p->op.core);
    timer_init(&p->pause, on_pause);
    COUNT(core_counters(p->px->core), passes, 1);
    op_expect(&p->op, PASS_O_READER);
    op_run(&p->op);
    p->news = news; /* not from within */
    p->arg = arg;
    return p;
}

void pass_close(struct pass *p)
{
    if (p == NULL)
        return;
    p->news = NULL;
    op_clear(&p->op, PASS_O_READER);
    op_close(&p->op, ERR_CLIENT_GONE);
}

bool pass_headed(const struct pass *p)
{
    return p->seen;
}

uint64_t pass_length(const struct pass *p)
{
    return p->x.length_known ? p->x.length : LENGTH_UNKNOWN;
}

uint64_t pass_verifies(const struct pass *p)
{
    return p->verify ? p->from : UINT64_MAX;
}

bool pass_verified(const struct pass *p)
{
    return p->verified;
}

const struct flight_failure *pass_failure(const struct pass *p)
{
    return p->failed ? &p->x.t.failure : NULL;
}

uint64_t pass_got(const struct pass *p)
{
    return p->x.front - p->from;
}

/* How far the client may come: not into the tail before the verdict. */
static uint64_t may_have(const struct pass *p)
{
    if (!p->verify || p->verified)
        return p->x.front;
    uint64_t upto = p->x.length_known ? p->x.length : p->x.front;
    upto = upto > FLIGHT_TAIL ? upto - FLIGHT_TAIL : 0;
    return upto < p->x.front ? upto : p->x.front;
}

enum body_status pass_bytes(struct pass *p, uint64_t off, struct body_piece *piece)
{
    MUST(off == p->taken);
    uint64_t upto = may_have(p);
    if (upto > off) {
        *piece = (struct body_piece){.mem = p->buf + p->at, .len = upto - off};
        return BODY_PIECE;
    }
    if (p->failed)
        return BODY_FAIL;
    return p->op.state == PASS_OVER ? BODY_END : BODY_WAIT;
}

void pass_took(struct pass *p, uint64_t n)
{
    MUST(n <= p->n - p->at);
    p->taken += n;
    p->at += (size_t)n;
    if (PASS_BUF - p->n < PASS_BUF / 4 && p->at >= PASS_BUF / 4) {
        memmove(p->buf, p->buf + p->at, p->n - p->at);
        p->n -= p->at;
        p->at = 0;
        if (p->op.state == PASS_BODY) {
            p->x.progress_ms = core_now(p->op.core); /* until now it did not want any */
            op_run(&p->op);
        }
    }
}

bool pass_is_at(const struct pass *p, uint64_t off, uint64_t end)
{
    return p->taken == off && wanted_end(p) == end;
}
