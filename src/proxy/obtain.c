/* See obtain.h.
 *
 *   LOOK    what does the index say?                     -> DONE | ASK | STREAM | FAILED
 *   ASK     seated in an answer flight                   -> LOOK | FAILED
 *   STREAM  seated in a stream flight                    -> LOOK | FAILED
 *
 * LOOK may be entered several times, bounded by ROUNDS_MAX; only what the index says then makes it DONE. A tag that upstream has just
 * confirmed goes on as the manifest that it names. */
#include "proxy/obtain.h"

#include "conf/match.h"
#include "proxy/join.h"

#define ROUNDS_MAX 6

enum obtain_phase { PHASE_LOOK, PHASE_ASK, PHASE_STREAM, PHASE_DONE, PHASE_FAILED };

static struct span repo_key(const struct obtain *o)
{
    return o->from->repo_key;
}

static void on_seat(struct flight_seat *seat)
{
    struct obtain *o = CONTAINER_OF(seat, struct obtain, seat);
    o->event(o);
}

static void on_patience(struct timer *t)
{
    struct obtain *o = CONTAINER_OF(t, struct obtain, patience);
    o->event(o);
}

static void go(struct obtain *o, enum obtain_phase phase)
{
    if (phase != PHASE_ASK && phase != PHASE_STREAM)
        obtain_stop(o);
    o->phase = (unsigned char)phase;
}

static void fail(struct obtain *o, const struct flight_failure *f)
{
    o->failure = *f;
    go(o, PHASE_FAILED);
}

static void fail_err(struct obtain *o, int err)
{
    fail(o, &(struct flight_failure){.err = err, .retry_after_ms = -1});
}

/* ---- seats ---- */

static struct join join_of(struct obtain *o, bool (*recheck)(void *arg))
{
    o->seat.wake = on_seat;
    return (struct join){.px = o->px, .seat = &o->seat, .recheck = recheck, .arg = o};
}

static void joined(struct obtain *o, enum joined how, const struct flight_failure *lately,
                   enum obtain_phase seated)
{
    switch (how) {
    case JOINED_LATELY:
        fail(o, lately);
        return;
    case JOINED_NONE:
    case JOINED_FOUND: /* another flight has ended since we looked: look again */
        return;
    case JOINED_SEAT:
    case JOINED_LEAD:
        go(o, seated);
        return;
    }
}

/* ---- asking ---- */

static bool never_moves(const struct obtain *o)
{
    return conf_tag_immutable(&o->from->rule->policy, o->tag);
}

/* Checked for this account since the owner began to want it, or of a tag that never moves. A time that lies ahead (the clock was set back) says
 * nothing. */
static bool tag_good(const struct obtain *o, const struct store_tag *tag)
{
    bool checked = tag->checked_ms > o->checked_before && tag->checked_ms <= clock_wall_ms();
    return (checked && !tag->others) || never_moves(o);
}

/* flight_join's second look, under the table's lock. */
static bool answered_by_now(void *arg)
{
    struct obtain *o = arg;
    struct store_tag tag;
    struct store_link link;
    struct store_object object;
    bool by_tag = o->kind == OBTAIN_TAG;
    if (by_tag && (!store_get_tag(o->px->reader, repo_key(o), o->tag, &tag) || !tag_good(o, &tag)))
        return false;
    const struct digest *d = by_tag ? &tag.digest : &o->digest;
    return store_get_object(o->px->reader, d, &object) &&
           store_get_link(o->px->reader, repo_key(o), d, &link) &&
           (o->kind == OBTAIN_BLOB || link.media[0] != 0);
}

static void ask(struct obtain *o, enum ask_kind kind, const struct digest *known)
{
    const struct conf_rule *rule = o->from->rule;
    struct ask_what w = {.kind = kind,
                         .setup = o->from->setup,
                         .up = rule->upstream,
                         .set = rule->credential_set,
                         .repo = o->from->repo,
                         .repo_key = repo_key(o),
                         .manifest = o->kind != OBTAIN_BLOB,
                         .negative_ttl_ms = rule->policy.negative_ttl_ms};
    if (o->kind == OBTAIN_TAG)
        w.tag = o->tag;
    else
        w.digest = o->digest;
    if (known != NULL) {
        w.known = *known;
        w.kept = true;
    }
    struct join j = join_of(o, answered_by_now);
    o->asked = kind;
    joined(o, join_ask(&j, &w), &j.lately, PHASE_ASK);
}

static void step_ask(struct obtain *o)
{
    enum flight_state state = flight_seen(&o->seat);
    if (state == FLIGHT_FAILED) {
        fail(o, flight_failure(&o->seat));
        return;
    }
    if (state != FLIGHT_DONE) /* the index has it when it is done */
        return;
    const struct flight_answer *a = flight_answer(&o->seat);
    if (a->unkept) {
        fail_err(o, ERR_STORE);
        return;
    }
    if (o->asked == ASK_STAT) {
        o->linked = a->proved;
        o->typed = a->media[0] != 0;
    } else {
        o->fetched = o->fetched || !a->stored;
        o->digest = a->digest;
        if (o->kind == OBTAIN_TAG)
            o->kind = OBTAIN_MANIFEST;
    }
    go(o, PHASE_LOOK);
}

/* ---- a blob on its way ---- */

/* flight_join's second look, under the table's lock. */
static bool stored_by_now(void *arg)
{
    struct obtain *o = arg;
    struct store_object object;
    return store_get_object(o->px->reader, &o->digest, &object);
}

static void join(struct obtain *o)
{
    struct fetch_what w = {.setup = o->from->setup,
                           .rule = o->from->rule,
                           .repo = o->from->repo,
                           .repo_key = repo_key(o),
                           .digest = o->digest,
                           .apart = o->apart};
    struct join j = join_of(o, stored_by_now);
    joined(o, join_fetch(&j, &w), &j.lately, PHASE_STREAM);
    if (o->phase == PHASE_STREAM)
        foreign_begin(&o->wait, &o->seat, core_now(o->px->core));
}

/* For the seat's news; but not for long if it is another registry's flight, and stands still. */
static void wait_stream(struct obtain *o)
{
    const struct obtain_from *from = o->from;
    int64_t left = foreign_patience(&o->wait, &o->seat, from->setup, from->rule, core_now(o->px->core));
    if (left == INT64_MAX)
        return;
    if (left > 0) {
        timer_arm(o->px->core, &o->patience, left);
        return;
    }
    foreign_shun(o->px, &o->seat, &o->digest);
    o->apart = true;
    go(o, PHASE_LOOK);
}

static void step_stream(struct obtain *o)
{
    switch (flight_seen(&o->seat)) {
    case FLIGHT_FAILED: {
        struct flight_failure f = *flight_failure(&o->seat);
        bool ours = span_eq(flight_repo(&o->seat), repo_key(o));
        bool brought = o->apart && stored_by_now(o); /* by the flight that was left */
        if (f.err != ERR_STORE && (!ours || brought || f.err == ERR_CLIENT_GONE))
            go(o, PHASE_LOOK);
        else
            fail(o, &f);
        return;
    }
    case FLIGHT_UNKEPT:
        fail_err(o, ERR_STORE);
        return;
    case FLIGHT_DONE:
        o->fetched = o->flown = true;
        go(o, PHASE_LOOK);
        return;
    default:
        wait_stream(o);
        return;
    }
}

/* ---- looking ---- */

static void look_tag(struct obtain *o)
{
    struct store_tag tag;
    struct store_object object;
    bool known = store_get_tag(o->px->reader, repo_key(o), o->tag, &tag);
    bool here = known && store_get_object(o->px->reader, &tag.digest, &object);
    if (known && tag_good(o, &tag) && (here || never_moves(o))) {
        o->digest = tag.digest;
        o->kind = OBTAIN_MANIFEST;
        return;
    }
    ask(o, ASK_MANIFEST, here ? &tag.digest : NULL);
}

static void look_digest(struct obtain *o)
{
    struct store_object object;
    struct store_link link;
    bool blob = o->kind == OBTAIN_BLOB;
    if (store_get_link(o->px->reader, repo_key(o), &o->digest, &link)) {
        o->linked = true;
        o->typed = link.media[0] != 0;
    }
    bool stored = store_get_object(o->px->reader, &o->digest, &object);
    if (stored && o->linked && (blob || o->typed)) {
        store_touch(o->px->reader, &o->digest, core_now(o->px->core));
        o->size = object.size;
        go(o, PHASE_DONE);
    } else if (stored && !o->linked) {
        ask(o, ASK_STAT, NULL);
    } else if (!blob) {
        ask(o, ASK_MANIFEST, NULL);
    } else if (o->flown) { /* all of it was here, and the store did not take it */
        fail_err(o, ERR_STORE);
    } else {
        join(o);
    }
}

static void look(struct obtain *o)
{
    if (++o->rounds > ROUNDS_MAX)
        fail_err(o, ERR_INTERNAL);
    else if (o->kind == OBTAIN_TAG)
        look_tag(o);
    else
        look_digest(o);
}

/* ---- the owner's ---- */

void obtain_start(struct obtain *o)
{
    o->failure.retry_after_ms = -1;
    timer_init(&o->patience, on_patience);
    o->phase = PHASE_LOOK;
}

enum obtain_next obtain_step(struct obtain *o)
{
    for (;;) {
        enum obtain_phase before = (enum obtain_phase)o->phase;
        switch (before) {
        case PHASE_LOOK:
            look(o);
            break;
        case PHASE_ASK:
            step_ask(o);
            break;
        case PHASE_STREAM:
            step_stream(o);
            break;
        case PHASE_DONE:
            return OBTAIN_DONE;
        case PHASE_FAILED:
            return OBTAIN_FAILED;
        }
        if (before != PHASE_LOOK && o->phase == (unsigned char)before)
            return OBTAIN_WAIT;
    }
}

uint64_t obtain_arrived(const struct obtain *o)
{
    return o->phase == PHASE_STREAM ? flight_front(&o->seat) : 0;
}

void obtain_stop(struct obtain *o)
{
    timer_disarm(&o->patience);
    flight_leave(&o->seat);
}
