/* Fetching a blob: the leader of a stream flight. Bytes go from the socket into a ring, from there in a job through the hash
 * and into the partial file; then they are published, and readers on all cores send them from that file.
 *
 *   OPEN     a job opens the partial file                       -> SEND | RESTART (it is another registry's)
 *   SEND     a request is made, with Range when there is a front -> HEAD
 *   HEAD     its answer is looked at                            -> BODY | REHASH | PAUSE (try again) | FAIL
 *   REHASH   an earlier fill left something: jobs read it through the hash -> BODY | SEND (upstream was not kept waiting so long) |
 *                                                                  VERIFY (it is all of the blob)
 *   RESTART  what an earlier fill left is worthless: a job makes a new file -> SEND
 *   BODY     bytes arrive                                       -> VERIFY (the end) | PAUSE (it broke: resume) | FAIL
 *   PAUSE    a short wait before the next attempt               -> SEND
 *   VERIFY   the digest is compared; readers may have the tail  -> COMMIT | FAIL
 *   COMMIT   a job makes the file durable and renames it        -> INDEX
 *   INDEX    the index's writer names object and link           -> END
 *   FAIL     the flight is told; the partial is kept or removed -> END
 *
 * What an earlier fill left may be gigabytes, which take minutes to read. So upstream is asked first: clients get their heads at once, and
 * then what has been read.
 *
 * The ring: byte `o` of the blob lies at o modulo RING, so three offsets say everything:
 *
 *     done <= front <= got <= done + RING
 *      |        |       `- received (the loop's)
 *      |        `- given to the job (the loop's; `granted` is what the job reads of it)
 *      `- hashed and in the file (the job's while it runs)
 *
 * A job goes on as long as it is given more, and tells the loop of each piece: while it hashes, the loop reads, and neither waits
 * for the other to wake up. When the ring is full the socket is left alone, so upstream cannot fill memory. A job takes whatever
 * has arrived, so a slow upstream's bytes are not held back. (Until REHASH has ended, front and got are what the file has, and done
 * is what has been hashed of it.)
 *
 * Invariants: only the front's jobs write below front; a side (side.c) never writes where the front has been, and the
 * front is not given what a side's job writes into. So what was hashed is what is in the file.
 *
 * The operation does not depend on its readers. When the last one leaves, the rule's policy says whether it goes on. */
#include <unistd.h>

#include "base/mem.h"
#include "proxy/foreign.h"
#include "proxy/proxy_int.h"
#include "proxy/side.h"
#include "proxy/transfer.h"

#define RING             (512u << 10) /* a power of two */
#define RING_ROOM        (16u << 10)  /* less room than this is not worth a read */
#define PIECE            (128u << 10) /* what a job writes and then hashes, while it is in a cache */
#define JOB_TURN         (1u << 20)   /* after so much a job gives its thread back: others wait for it */
#define REHASH_SOON      (64u << 20)  /* an upstream waits while no more than this is rehashed */
#define NOWHERE          UINT64_MAX
#define SIDES_MAX        3
#define SIDE_PART        10 /* at most one byte in ten may be fetched twice */
#define SIDE_BYTES       (4u << 20)
#define SIDE_ALIGN       UINT64_C(0xffff)
#define SIDE_REST_MS     1000 /* after one that failed; doubled with each */
#define SIDE_REST_MAX_MS 30000
#define SIDE_WAIT_MS     1000 /* a front that will be there sooner is waited for */

enum fetch_state {
    FETCH_OPEN,
    FETCH_REHASH,
    FETCH_RESTART,
    FETCH_SEND,
    FETCH_HEAD,
    FETCH_BODY,
    FETCH_PAUSE,
    FETCH_VERIFY,
    FETCH_COMMIT,
    FETCH_INDEX,
    FETCH_FAIL,
    FETCH_END
};

#define FETCH_O_JOB   1u
#define FETCH_O_CALL  2u
#define FETCH_O_TIMER 4u
#define FETCH_O_STORE 8u
#define FETCH_O_SIDE  16u /* at least one side is alive */
#define FETCH_O_MSG   32u /* the leader's message may be posted */

struct fetch {
    struct op op;
    struct proxy *px;
    struct flight *flight;
    struct core_msg msg;
    char repo_key[REPO_KEY_MAX];
    const struct conf_policy *policy; /* of the rule; in the setup */
    bool ended;
    bool apart; /* see fetch_what */
    bool has_partial, tidied, paused;
    bool discard; /* what the file has is worthless */
    bool unkept;  /* the store takes no more: its readers go on alone */
    bool sided;   /* there may be extents ahead of the front: see partial_write */
    bool eof;
    bool hung_up;      /* for the time of REHASH */
    uint64_t ended_at; /* where an answer has ended below the front, or NOWHERE */
    struct transfer x; /* its front: see the invariants */

    char *ring;
    uint64_t got;
    _Atomic uint64_t granted, done;
    uint64_t published;
    struct hasher hasher;
    struct summer summer; /* of what the hasher has had */
    bool fits;            /* the store has room for all of it */
    bool too_large;
    struct job job;
    int job_err;
    bool job_done;
    char job_why[200];
    uint64_t rehash_to; /* what an earlier fill left; a job's while one is under way */

    struct timer pause;
    struct store_change change;
    int64_t began_ms;  /* core_now, when the front set out */
    uint64_t began_at; /* from there */

    struct side *sides[SIDES_MAX];
    unsigned n_sides;
    uint64_t side_budget;
    bool no_sides;
    int64_t sides_at, side_rest_ms; /* core_now, before which none is begun; the last rest, or 0 */
    struct timer side_tick;
    uint64_t want_from, want_to; /* the range that waits for a side; from == to: none */
};

static struct fetch *fetch_of(struct op *op)
{
    return CONTAINER_OF(op, struct fetch, op);
}

static void on_call(struct call *call)
{
    struct fetch *f = CONTAINER_OF(call, struct fetch, x.t.call);
    if (op_expects(&f->op, FETCH_O_CALL))
        op_clear(&f->op, FETCH_O_CALL);
    op_run(&f->op);
}

/* No event of the call will come any more. */
static void call_stop(struct fetch *f)
{
    upstream_stop(&f->x.t);
    if (op_expects(&f->op, FETCH_O_CALL))
        op_clear(&f->op, FETCH_O_CALL);
}

static void on_job(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    f->job_done = true;
    op_clear(&f->op, FETCH_O_JOB);
    op_run(&f->op);
}

static void on_pause(struct timer *t)
{
    struct fetch *f = CONTAINER_OF(t, struct fetch, pause);
    op_clear(&f->op, FETCH_O_TIMER);
    op_run(&f->op);
}

/* Readers want something, or the last one left. */
static void on_leader_msg(struct core_msg *m)
{
    struct fetch *f = CONTAINER_OF(m, struct fetch, msg);
    if (op_expects(&f->op, FETCH_O_MSG))
        op_clear(&f->op, FETCH_O_MSG);
    op_run(&f->op);
}

static enum step fetch_fail(struct fetch *f, int err, unsigned status, int64_t after)
{
    f->x.t.failure = (struct flight_failure){.err = err, .status = status, .retry_after_ms = after};
    return op_go(&f->op, FETCH_FAIL);
}

/* Not the end of the blob for those who want it: whoever has the head of an answer goes on from the front, and whoever has not
 * begins anew (pass.c). */
static enum step store_failed(struct fetch *f)
{
    if (f->too_large) {
        log_info("store",
                 "blob not stored: with what else is being fetched or is pinned it is larger than the store "
                 "may be "
                 "(store.max_size, store.min_free, or the disk)",
                 LOG_D("digest", &f->x.digest), LOG_U("bytes", f->x.length_known ? f->x.length : f->x.front));
    } else {
        COUNT(core_counters(f->px->core), store_errors, 1);
        log_error("store", "blob not stored", LOG_D("digest", &f->x.digest), LOG_U("bytes", f->x.front),
                  LOG_S("why", f->job_why));
    }
    f->unkept = f->x.headed;
    return fetch_fail(f, ERR_STORE, 0, -1);
}

/* ---- OPEN, REHASH, RESTART ---- */

static void open_work(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    struct partial p;
    struct str why = STR_INIT(f->job_why);
    f->job_err = f->apart ? partial_open_second(f->px->shared->store, &f->x.digest, &p, &why)
                          : partial_open(f->px->shared->store, &f->x.digest, &p, &why);
    f->has_partial = f->job_err == 0;
    if (!f->has_partial)
        return;
    f->rehash_to = p.front;
    flight_set_partial(f->flight, &p);
}

static void job_run(struct fetch *f, void (*work)(struct job *j))
{
    op_expect(&f->op, FETCH_O_JOB);
    f->job_done = false;
    job_start(f->op.core, &f->job, work, on_job);
}

static void hash_init(struct fetch *f)
{
    hasher_init(&f->hasher, (enum digest_alg)f->x.digest.alg);
    summer_init(&f->summer);
}

static void hash_piece(struct fetch *f, const char *bytes, size_t n)
{
    hasher_update(&f->hasher, bytes, n);
    summer_update(&f->summer, bytes, n);
}

static uint64_t done_upto(const struct fetch *f)
{
    return atomic_load_explicit(&f->done, memory_order_acquire);
}

static void done_is(struct fetch *f, uint64_t off)
{
    atomic_store_explicit(&f->done, off, memory_order_release);
}

static void publish(struct fetch *f)
{
    uint64_t done = done_upto(f);
    if (done > f->published)
        flight_publish(f->flight, f->published = done);
}

static bool is_rehashed(const struct fetch *f)
{
    return done_upto(f) >= f->rehash_to;
}

/* No job is under way: what has not come into the file is not there. */
static void front_drop(struct fetch *f)
{
    f->x.front = f->got = is_rehashed(f) ? done_upto(f) : f->rehash_to;
}

/* From now on its rate is measured. */
static void front_sets_out(struct fetch *f)
{
    f->began_ms = f->x.progress_ms = core_now(f->op.core);
    f->began_at = f->x.front;
}

static enum step step_open(struct fetch *f)
{
    if (op_expects(&f->op, FETCH_O_JOB))
        return STEP_WAIT;
    if (!f->job_done) {
        job_run(f, open_work);
        return STEP_WAIT;
    }
    f->job_done = false;
    if (f->job_err != 0)
        return store_failed(f);
    if (f->rehash_to > 0 && foreign_is_leftover(f->px, span_str(f->repo_key), &f->x.digest))
        return op_go(&f->op, FETCH_RESTART);
    hash_init(f);
    front_drop(f);
    return op_go(&f->op, FETCH_SEND);
}

static void rehash_work(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    uint64_t from = done_upto(f);
    size_t want = f->rehash_to - from < RING ? (size_t)(f->rehash_to - from) : RING;
    ssize_t n = pread(flight_partial(f->flight)->fd, f->ring, want, (off_t)from);
    f->job_err = n > 0 ? 0 : ERR_STORE;
    if (n <= 0)
        return;
    hash_piece(f, f->ring, (size_t)n);
    flight_hashed(f->flight, from + (uint64_t)n, &f->hasher);
    done_is(f, from + (uint64_t)n);
}

/* It is unreadable from here on: fetch it again. */
static enum step rehash_short(struct fetch *f)
{
    f->rehash_to = done_upto(f);
    front_drop(f);
    front_sets_out(f);
    call_stop(f);
    f->x.t.deadline = 0;
    return op_go(&f->op, FETCH_SEND);
}

static enum step step_rehash(struct fetch *f)
{
    if (op_expects(&f->op, FETCH_O_JOB))
        return STEP_WAIT;
    if (f->job_done) {
        f->job_done = false;
        publish(f);
        if (f->job_err != 0)
            return rehash_short(f);
    }
    if (!is_rehashed(f)) {
        job_run(f, rehash_work);
        return STEP_WAIT;
    }
    front_sets_out(f);
    if (!f->x.headed || (f->x.length_known && f->x.front == f->x.length)) { /* it is all of the blob */
        call_stop(f);
        return op_go(&f->op, FETCH_VERIFY);
    }
    return op_go(&f->op, f->hung_up ? FETCH_SEND : FETCH_BODY);
}

static void restart_work(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    struct str why = STR_INIT(f->job_why);
    f->job_err = partial_renew(flight_partial(f->flight), &why);
    if (f->job_err == 0) {
        f->rehash_to = 0;
        done_is(f, 0);
    }
}

static enum step step_restart(struct fetch *f)
{
    if (op_expects(&f->op, FETCH_O_JOB))
        return STEP_WAIT;
    if (!f->job_done) {
        job_run(f, restart_work);
        return STEP_WAIT;
    }
    f->job_done = false;
    if (f->job_err != 0)
        return store_failed(f);
    front_drop(f);
    f->fits = false; /* it was for the file before */
    f->x.t.deadline = 0;
    hash_init(f);
    f->published = 0;
    flight_unpublish(f->flight);
    return op_go(&f->op, FETCH_SEND);
}

/* ---- SEND, HEAD ---- */

static enum step step_send(struct fetch *f)
{
    f->eof = f->paused = false;
    transfer_send(&f->x, on_call);
    return op_go(&f->op, FETCH_HEAD);
}

static enum step fetch_again(struct fetch *f)
{
    call_stop(f);
    return op_go(&f->op, transfer_again(&f->x) ? FETCH_PAUSE : FETCH_FAIL);
}

static enum step fetch_reject(struct fetch *f, int err, const char *why)
{
    upstream_reject(&f->x.t, err, why);
    return fetch_again(f);
}

static enum step fetch_headed(struct fetch *f)
{
    if (!f->x.headed) {
        front_sets_out(f);
        f->x.headed = true;
        f->side_budget = f->x.length_known ? f->x.length / SIDE_PART : 0;
        flight_head(f->flight, f->x.length_known ? f->x.length : FLIGHT_UNKNOWN);
    }
    if (is_rehashed(f))
        return op_go(&f->op, FETCH_BODY);
    f->hung_up = f->rehash_to - done_upto(f) > REHASH_SOON;
    if (f->hung_up)
        call_stop(f); /* others may want the connection meanwhile */
    else
        call_pause(&f->x.t.call);
    return op_go(&f->op, FETCH_REHASH);
}

static enum step step_head(struct fetch *f)
{
    switch (transfer_head(&f->x)) {
    case TRANSFER_WAIT:
        return op_wait(&f->op, FETCH_O_CALL);
    case TRANSFER_BODY:
        return fetch_headed(f);
    case TRANSFER_ALL: /* what an earlier fill left is all of the blob, or no part of it */
        call_stop(f);
        return op_go(&f->op, FETCH_REHASH);
    case TRANSFER_BEYOND:
        call_stop(f);
        return op_go(&f->op, FETCH_RESTART);
    case TRANSFER_BROKEN:
        break;
    }
    return fetch_again(f);
}

/* ---- BODY ---- */

/* What does not fit into the store beside what else is being fetched is not begun. In a job. */
static bool is_too_large(struct fetch *f, uint64_t upto)
{
    if (!f->fits) {
        f->too_large = !partial_expect(flight_partial(f->flight), f->x.length_known ? f->x.length : upto);
        f->fits = f->x.length_known && !f->too_large;
    }
    return f->too_large;
}

/* Bytes of the ring from `off` on that lie in one stretch. */
static size_t ring_stretch(uint64_t off, uint64_t to)
{
    size_t n = RING - (size_t)(off % RING);
    return to - off < n ? (size_t)(to - off) : n;
}

static void front_work(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    struct str why = STR_INIT(f->job_why);
    f->job_err = 0;
    for (uint64_t from = done_upto(f), began = from; from - began < JOB_TURN;) {
        uint64_t to = atomic_load_explicit(&f->granted, memory_order_acquire);
        size_t n = ring_stretch(from, to);
        if (n == 0)
            return;
        if (n > PIECE - from % PIECE) /* each but the last ends on a block: see partial_write */
            n = PIECE - (size_t)(from % PIECE);
        const char *bytes = f->ring + from % RING;
        f->job_err =
            is_too_large(f, to) ? ERR_STORE : partial_write(flight_partial(f->flight), from, bytes, n, &why);
        if (f->job_err != 0)
            return;
        hash_piece(f, bytes, n);
        from += n;
        flight_hashed(f->flight, from, &f->hasher);
        done_is(f, from);
        core_post(f->op.core, &f->msg);
    }
}

static bool side_in_the_way(const struct fetch *f, uint64_t from, uint64_t to)
{
    for (unsigned i = 0; i < f->n_sides; i++) {
        if (side_writes_into(f->sides[i], from, to))
            return true;
    }
    return false;
}

/* Up to where what has arrived may be written now: all of it, or, with extents ahead, whole blocks until the end. */
static uint64_t writable_upto(const struct fetch *f)
{
    if (!f->sided || f->got == f->x.length)
        return f->got;
    uint64_t to = f->got & ~(flight_partial(f->flight)->block - 1);
    return to > f->x.front ? to : f->x.front;
}

/* Is there anything that a job must still write? */
static bool front_is_behind(const struct fetch *f)
{
    return op_expects(&f->op, FETCH_O_JOB) || done_upto(f) < writable_upto(f);
}

/* Gives the job what has arrived. One that is under way goes on with it. */
static void front_push(struct fetch *f)
{
    MUST(is_rehashed(f));
    uint64_t to = writable_upto(f);
    if (to > f->x.front && !side_in_the_way(f, f->x.front, to)) {
        f->x.front = to;
        f->x.progress_ms = core_now(f->op.core);
        f->ended_at = NOWHERE; /* upstream has all of what was there */
    }
    atomic_store_explicit(&f->granted, f->x.front, memory_order_release);
    if (done_upto(f) < f->x.front && !op_expects(&f->op, FETCH_O_JOB))
        job_run(f, front_work);
}

static size_t ring_room(const struct fetch *f)
{
    return RING - (size_t)(f->got - done_upto(f));
}

enum filled { FILLED_FULL, FILLED_AGAIN, FILLED_END, FILLED_BROKEN };

static enum filled ring_fill(struct fetch *f)
{
    size_t room;
    while ((room = ring_room(f)) >= RING_ROOM) {
        char *at = f->ring + f->got % RING;
        ssize_t n = call_read(&f->x.t.call, at, ring_stretch(f->got, f->got + room));
        if (n == CALL_AGAIN)
            return FILLED_AGAIN;
        if (n == CALL_BROKEN)
            return FILLED_BROKEN;
        if (n == 0)
            return FILLED_END;
        f->got += transfer_skip(&f->x, at, (size_t)n);
    }
    return FILLED_FULL;
}

/* Publishes what the job has done. False: it has ended because the disk failed. */
static bool front_look(struct fetch *f)
{
    publish(f);
    if (!f->job_done || op_expects(&f->op, FETCH_O_JOB))
        return true;
    f->job_done = false;
    if (f->job_err == 0)
        return true;
    front_drop(f);
    return false;
}

static enum step fetch_give_up(struct fetch *f, int err, const char *why)
{
    upstream_reject(&f->x.t, err, why);
    call_stop(f);
    return op_go(&f->op, FETCH_FAIL);
}

/* The answer has ended before what is there does, and says no length. It is cut off, where only its connection's end is its end; or
 * what is there is no part of the blob, which another answer with the same end shows. */
static enum step ended_below(struct fetch *f)
{
    const char *why = "the answer ends before what has been got of the blob";
    uint64_t at = f->x.front - f->x.skip;
    f->discard = f->ended_at == at;
    f->ended_at = at;
    return f->discard ? fetch_give_up(f, ERR_UP_CONTENT, why) : fetch_reject(f, ERR_UP_SHORT, why);
}

static enum step body_finished(struct fetch *f)
{
    if (f->x.skip > 0 && !f->x.length_known)
        return ended_below(f);
    if (f->x.skip > 0 || (f->x.length_known && f->got < f->x.length))
        return fetch_reject(f, ERR_UP_SHORT, "the answer ended early");
    call_stop(f);
    if (f->x.length_known && f->got > f->x.length) {
        f->discard = true;
        upstream_reject(&f->x.t, ERR_UP_CONTENT, "the blob is longer than announced");
        return op_go(&f->op, FETCH_FAIL);
    }
    return op_go(&f->op, FETCH_VERIFY);
}

/* The ring is full: the job, or a side in its way, will bring us back. */
static enum step body_full(struct fetch *f)
{
    if (ring_room(f) >= RING_ROOM)
        return STEP_MORE; /* by now it is not */
    call_pause(&f->x.t.call);
    if (op_expects(&f->op, FETCH_O_CALL))
        op_clear(&f->op, FETCH_O_CALL);
    return STEP_WAIT;
}

static enum step step_body(struct fetch *f)
{
    if (!front_look(f))
        return store_failed(f);
    if (f->eof) {
        front_push(f);
        return front_is_behind(f) ? STEP_WAIT : body_finished(f);
    }
    enum filled how = ring_fill(f);
    if (f->x.length_known && f->got > f->x.length) {
        f->discard = true;
        return fetch_give_up(f, ERR_UP_CONTENT, "the blob is longer than announced");
    }
    front_push(f);
    switch (how) {
    case FILLED_AGAIN:
        return op_wait(&f->op, FETCH_O_CALL);
    case FILLED_FULL:
        return body_full(f);
    case FILLED_END:
        f->eof = true;
        return STEP_MORE;
    case FILLED_BROKEN:
        break;
    }
    return fetch_reject(f, f->x.t.call.err, f->x.t.call.why);
}

/* ---- PAUSE: what has arrived is written first, so that the resume begins behind it ---- */

static enum step step_pause(struct fetch *f)
{
    if (is_rehashed(
            f)) { /* else nothing has arrived: what is below the front lies in the file, and not in the ring */
        if (!front_look(f))
            return store_failed(f);
        front_push(f);
        if (front_is_behind(f))
            return STEP_WAIT;
        f->got = f->x.front; /* less than a block, which must not be written now: it is asked for again */
    }
    if (op_expects(&f->op, FETCH_O_TIMER))
        return STEP_WAIT;
    if (!f->paused) {
        f->paused = true;
        op_expect(&f->op, FETCH_O_TIMER);
        timer_arm(f->op.core, &f->pause, transfer_pause_ms(&f->x));
        return STEP_WAIT;
    }
    return op_go(&f->op, FETCH_SEND);
}

/* ---- VERIFY, COMMIT, INDEX ---- */

static enum step step_verify(struct fetch *f)
{
    struct digest got;
    hasher_finish(&f->hasher, &got);
    if (!digest_eq(&got, &f->x.digest) && !f->x.headed)
        return op_go(&f->op, FETCH_RESTART); /* nobody has seen a byte of it */
    if (!digest_eq(&got, &f->x.digest)) {
        transfer_mismatch(&f->x, &got);
        if (f->rehash_to == 0) /* else it may have been whoever sent what an earlier fill left */
            foreign_lied(f->px, span_str(f->repo_key), &f->x.digest);
        f->discard = true;
        return op_go(&f->op, FETCH_FAIL);
    }
    if (!f->x.headed) {
        f->x.headed = true;
        flight_head(f->flight, f->x.front);
    }
    flight_verified(f->flight, f->x.front);
    return op_go(&f->op, FETCH_COMMIT);
}

static void commit_work(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    struct str why = STR_INIT(f->job_why);
    struct partial *p = flight_partial(f->flight);
    f->job_err = partial_commit(p, f->x.front, &why);
    if (f->job_err != 0 && p->fault == FAULT_FAILING)
        partial_discard(p); /* what the disk has of it is not known */
}

/* From the end: a side that is gone at once takes itself out of the array. */
static void sides_close(struct fetch *f)
{
    for (unsigned i = f->n_sides; i-- > 0;)
        side_close(f->sides[i]);
}

static enum step step_commit(struct fetch *f)
{
    if (op_expects(&f->op, FETCH_O_JOB))
        return STEP_WAIT;
    if (f->n_sides > 0) { /* nobody may write into a file that is verified */
        sides_close(f);
        if (f->n_sides > 0)
            return STEP_WAIT;
    }
    if (!f->job_done) {
        job_run(f, commit_work);
        return STEP_WAIT;
    }
    f->job_done = false;
    if (f->job_err == 0)
        return op_go(&f->op, FETCH_INDEX);
    COUNT(core_counters(f->px->core), store_errors, 1);
    log_error("store", "blob not stored", LOG_D("digest", &f->x.digest), LOG_S("why", f->job_why));
    flight_done(f->flight); /* the readers have it all; it is only not kept */
    f->ended = true;
    return op_go(&f->op, FETCH_END);
}

static void on_indexed(struct store_change *c)
{
    struct fetch *f = CONTAINER_OF(c, struct fetch, change);
    op_clear(&f->op, FETCH_O_STORE);
    op_run(&f->op);
}

static enum step step_index(struct fetch *f)
{
    if (op_expects(&f->op, FETCH_O_STORE))
        return STEP_WAIT;
    if (f->change.done == NULL) {
        f->change = (struct store_change){
            .what = CHANGE_PUT_OBJECT | CHANGE_PUT_LINK, .digest = f->x.digest, .size = f->x.front};
        summer_finish(&f->summer, &f->change.sum);
        memcpy(f->change.repo, f->repo_key, sizeof f->repo_key);
        op_expect(&f->op, FETCH_O_STORE);
        store_apply(f->px->shared->store, f->op.core, &f->change, on_indexed);
        return STEP_WAIT;
    }
    if (f->change.err == 0) {
        COUNT(core_counters(f->px->core), stored_objects, 1);
        COUNT(core_counters(f->px->core), stored_bytes, f->x.front);
        log_info("store", "blob stored", LOG_D("digest", &f->x.digest), LOG_U("bytes", f->x.front),
                 LOG_SP("repository", store_repo_plain(span_str(f->repo_key))),
                 LOG_I("ms", core_now(f->op.core) - f->op.born));
    } else {
        COUNT(core_counters(f->px->core), store_errors, 1);
        log_error("store", "index not updated", LOG_D("digest", &f->x.digest),
                  LOG_SP("repository", store_repo_plain(span_str(f->repo_key))));
    }
    flight_done(f->flight);
    f->ended = true;
    return op_go(&f->op, FETCH_END);
}

/* ---- FAIL ---- */

/* Nothing has come, and nobody was told of anything: no file is left for what may not even be there. */
static bool nothing_there(const struct fetch *f)
{
    return f->x.front == 0 && !f->x.headed;
}

static void keep_work(struct job *j)
{
    struct fetch *f = CONTAINER_OF(j, struct fetch, job);
    struct partial *p = flight_partial(f->flight);
    struct str why = STR_INIT(f->job_why);
    bool gone = f->x.t.failure.err == ERR_CLIENT_GONE; /* somebody may still come, and then it goes on */
    if (gone ? nothing_there(f) : f->discard)
        partial_discard(p);
    else if (gone)
        f->job_err = partial_cut(p, f->x.front, &why);
    else
        partial_keep(p, f->x.front);
}

/* Somebody has come after all. */
static enum step go_on(struct fetch *f)
{
    bool no_file = f->tidied && nothing_there(f);
    f->tidied = false;
    f->x.t.deadline = 0;
    return op_go(&f->op, no_file ? FETCH_RESTART : FETCH_SEND);
}

/* Tidies the partial file before the flight leaves the table, because whoever comes next opens it anew; then tells the
 * readers. If the reason was that nobody reads, and somebody has come meanwhile, it goes on. */
static enum step step_fail(struct fetch *f)
{
    if (op_expects(&f->op, FETCH_O_TIMER)) {
        timer_disarm(&f->pause);
        op_clear(&f->op, FETCH_O_TIMER);
    }
    call_stop(f);
    sides_close(f);
    if (op_expects(&f->op, FETCH_O_JOB) || f->n_sides > 0)
        return STEP_WAIT;
    if (!f->tidied && f->has_partial && is_rehashed(f) && !front_look(f))
        log_warn("store", "the last piece of a blob was not written", LOG_D("digest", &f->x.digest),
                 LOG_S("why", f->job_why));
    front_drop(f);
    if (!f->tidied && !flight_forget_ahead(f->flight)) {
        if (f->x.t.failure.err == ERR_CLIENT_GONE)
            return go_on(f);
        f->discard = true; /* cut off, it would be a hole for them once another fill makes the file longer */
    }
    if (!f->tidied && f->has_partial) {
        f->tidied = true;
        job_run(f, keep_work);
        return STEP_WAIT;
    }
    f->job_done = false;
    if (f->has_partial && !f->apart && !f->discard && f->x.front > 0)
        foreign_note_leftover(f->px, span_str(f->repo_key), &f->x.digest);
    if (f->x.t.failure.err == ERR_CLIENT_GONE) {
        f->ended = flight_abandon(f->flight);
        return f->ended ? op_go(&f->op, FETCH_END) : go_on(f);
    }
    if (f->unkept) {
        flight_unkept(f->flight);
        f->ended = true;
        return op_go(&f->op, FETCH_END);
    }
    bool unknown = f->x.t.failure.err == ERR_BLOB_UNKNOWN;
    upstream_log(&f->x.t, unknown ? LOG_DEBUG : LOG_WARN, "blob not fetched");
    if (unknown && f->x.front == 0) {
        char key[FLIGHT_KEY_MAX];
        struct str k = STR_INIT(key);
        fetch_verdict_key(span_str(f->repo_key), &f->x.digest, &k);
        verdict_put(f->px->shared->verdicts, str_span(&k), &f->x.t.failure, f->policy->negative_ttl_ms,
                    f->policy->negative_ttl_ms);
    }
    flight_fail(f->flight, &f->x.t.failure);
    f->ended = true;
    return op_go(&f->op, FETCH_END);
}

/* ---- sides: ranges that readers want and that lie far ahead ---- */

static void on_side_tick(struct timer *t)
{
    op_run(&CONTAINER_OF(t, struct fetch, side_tick)->op);
}

void fetch_side_gone(struct fetch *f, const struct side *side)
{
    for (unsigned i = 0; i < f->n_sides; i++) {
        if (f->sides[i] == side) {
            f->sides[i] = f->sides[--f->n_sides];
            break;
        }
    }
    if (f->n_sides == 0 && op_expects(&f->op, FETCH_O_SIDE))
        op_clear(&f->op, FETCH_O_SIDE);
    op_run(&f->op);
}

void fetch_side_wrote(struct fetch *f)
{
    f->side_rest_ms = 0;
    op_run(&f->op);
}

/* Upstream limits requests, say, or no connection was free. Who waits for it does not say so again before something has been
 * published. */
void fetch_side_failed(struct fetch *f, uint64_t from, uint64_t to)
{
    int64_t now = core_now(f->op.core), rest = 2 * f->side_rest_ms;
    if (now >= f->sides_at) { /* of several that fail at once one counts */
        f->side_rest_ms = rest < SIDE_REST_MS       ? SIDE_REST_MS
                          : rest > SIDE_REST_MAX_MS ? SIDE_REST_MAX_MS
                                                    : rest;
        f->sides_at = now + f->side_rest_ms;
    }
    f->side_budget += to - from;
    if (f->want_from == f->want_to && flight_readers(f->flight) > 0) {
        f->want_from = from;
        f->want_to = to;
    }
}

void fetch_no_more_sides(struct fetch *f)
{
    f->no_sides = true;
}

uint64_t fetch_front(const struct fetch *f)
{
    return f->x.front;
}

/* Will the front be at `off` within a moment anyway? */
static bool front_is_near(const struct fetch *f, uint64_t off)
{
    int64_t ms = core_now(f->op.core) - f->began_ms;
    if (ms < 200)
        return true;                                               /* too early to tell */
    uint64_t rate = (fetch_front(f) - f->began_at) / (uint64_t)ms; /* bytes per ms */
    return rate > 0 && (off - fetch_front(f)) / rate < SIDE_WAIT_MS;
}

static void side_begin(struct fetch *f)
{
    uint64_t n = f->want_to - f->want_from;
    if (n > SIDE_BYTES)
        n = SIDE_BYTES;
    if (n > f->side_budget)
        n = f->side_budget;
    /* Extents ahead of the front begin on 64 KiB (see partial_write), and end there so that none ends just below another. */
    uint64_t from = f->want_from & ~SIDE_ALIGN, to = (f->want_from + n + SIDE_ALIGN) & ~SIDE_ALIGN;
    if (from <= fetch_front(f) + SIDE_ALIGN || n == 0) /* not in the block in which the front may lie */
        return;
    n = (to < f->x.length ? to : f->x.length) - from;
    f->side_budget -= n < f->side_budget ? n : f->side_budget;
    COUNT(core_counters(f->px->core), upstream_side_fetches, 1);
    f->sided = true;
    f->sides[f->n_sides++] = side_start(f->px, f, f->flight, &f->x.t, from, from + n, f->x.length);
    f->op.outstanding |= FETCH_O_SIDE;
}

static void sides_look(struct fetch *f)
{
    bool headed = f->op.state == FETCH_BODY || (f->op.state == FETCH_REHASH && f->x.headed);
    int64_t rest = f->sides_at - core_now(f->op.core);
    if (!headed || f->no_sides || f->side_budget == 0)
        return;
    if (rest > 0) {
        timer_arm(f->op.core, &f->side_tick, rest);
        return;
    }
    while (f->n_sides < SIDES_MAX && f->side_budget > 0) {
        if (f->want_from == f->want_to && !flight_take_want(f->flight, &f->want_from, &f->want_to))
            return;
        if (f->want_to > f->x.length)
            f->want_to = f->x.length;
        if (f->want_from < f->want_to && f->want_from > fetch_front(f) && front_is_near(f, f->want_from)) {
            timer_arm(f->op.core, &f->side_tick, 250);
            return;
        }
        if (f->want_from < f->want_to)
            side_begin(f);
        f->want_from = f->want_to = 0;
    }
}

/* ---- the operation ---- */

/* Does the policy want it to stop when nobody waits? */
static bool stops_abandoned(const struct fetch *f)
{
    switch (f->policy->on_abandoned) {
    case ABANDONED_FINISH:
        return false;
    case ABANDONED_KEEP:
        return true;
    case ABANDONED_AUTO:
        break;
    }
    return !f->x.length_known || (f->x.length - f->x.front >= CONF_LITTLE && f->x.front <= f->x.length / 2);
}

static bool abandoned(struct fetch *f)
{
    bool asking = (f->op.state >= FETCH_SEND && f->op.state <= FETCH_PAUSE) ||
                  (f->op.state == FETCH_REHASH && f->x.headed);
    if (!asking || !stops_abandoned(f) || flight_readers(f->flight) > 0)
        return false;
    if (op_expects(&f->op, FETCH_O_JOB) || f->n_sides > 0)
        return false; /* looked at again when they are done: the flight must not leave the table while the file is written */
    return true;
}

static enum step fetch_step(struct op *op)
{
    struct fetch *f = fetch_of(op);
    if (op->closing != 0 && op->state < FETCH_VERIFY)
        return fetch_fail(f, op->closing, 0, -1);
    if (abandoned(f))
        return fetch_fail(f, ERR_CLIENT_GONE, 0, -1);
    sides_look(f);
    switch ((enum fetch_state)op->state) {
    case FETCH_OPEN:
        return step_open(f);
    case FETCH_REHASH:
        return step_rehash(f);
    case FETCH_RESTART:
        return step_restart(f);
    case FETCH_SEND:
        return step_send(f);
    case FETCH_HEAD:
        return step_head(f);
    case FETCH_BODY:
        return step_body(f);
    case FETCH_PAUSE:
        return step_pause(f);
    case FETCH_VERIFY:
        return step_verify(f);
    case FETCH_COMMIT:
        return step_commit(f);
    case FETCH_INDEX:
        return step_index(f);
    case FETCH_FAIL:
        return step_fail(f);
    case FETCH_END:
        break;
    }
    flight_clear_leader(f->flight);
    return core_msg_idle(&f->msg) ? STEP_END : op_wait(op, FETCH_O_MSG);
}

static void fetch_free(struct op *op)
{
    struct fetch *f = fetch_of(op);
    MUST(f->ended && f->n_sides == 0);
    upstream_stop(&f->x.t);
    timer_disarm(&f->side_tick);
    flight_unref(f->flight);
    setup_release(f->px, f->x.t.setup);
    mem_free(f->ring);
    mem_free(f);
}

static const char *fetch_state_name(unsigned state)
{
    static const char *const names[] = {"open",  "rehash", "restart", "send",  "head", "body",
                                        "pause", "verify", "commit",  "index", "fail", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static bool fetch_idle(const struct op *op)
{
    return flight_readers(CONTAINER_OF(op, struct fetch, op)->flight) == 0;
}

static const struct op_class fetch_class = {"fetch", fetch_step, fetch_free, fetch_state_name, fetch_idle};

void fetch_key(const struct fetch_what *w, struct str *out)
{
    str_add(out, SPAN("b "));
    digest_add(out, &w->digest);
    if (w->apart) {
        str_addc(out, ' ');
        foreign_way(w->rule, out);
    }
}

void fetch_verdict_key(struct span repo_key, const struct digest *d, struct str *out)
{
    str_add(out, SPAN("B "));
    str_add(out, repo_key);
    str_addc(out, ' ');
    digest_add(out, d);
}

void fetch_lead(struct proxy *px, struct flight *flight, const struct fetch_what *w)
{
    struct fetch *f;
    NEW(f);
    op_init(&f->op, px->core, &fetch_class, FETCH_OPEN);
    f->px = px;
    f->flight = flight_ref(flight);
    f->apart = w->apart;
    f->ended_at = NOWHERE;
    f->policy = &w->rule->policy;
    MUST(w->repo_key.n < sizeof f->repo_key);
    memcpy(f->repo_key, w->repo_key.p, w->repo_key.n);
    core_msg_init(&f->msg, on_leader_msg);
    timer_init(&f->pause, on_pause);
    timer_init(&f->side_tick, on_side_tick);
    f->ring = mem_alloc(RING);
    transfer_init(&f->x, px, setup_hold(px, w->setup), w->rule, w->repo, &w->digest);
    flight_set_leader(flight, px->core, &f->msg);
    op_run(&f->op);
}
