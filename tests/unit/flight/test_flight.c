/* Flights on one core, step by step: who leads, what readers may have when, who is told what, and that nothing is left.
 *
 * Every step runs on the core's thread, and the core has handled all messages that it caused before the next one begins
 * (`act`). Teardown checks in every test that no view, no seat and no flight is left. */
#include "../store/rig.h"

#include "base/mem.h"
#include "flight/flight.h"

#define REPO SPAN("docker.io/library/app")

struct world {
    struct rig *r;
    struct flights *table;
    struct flight *flight; /* the leader's reference */
    struct core_msg leader_msg;
    unsigned leader_posts;
    struct digest digest;
    uint64_t front; /* what was published without a gap */
};

struct reader {
    struct flight_seat seat;
    struct world *w;
    unsigned wakes;
    struct reader *leaves;   /* on a wake this one leaves (it may be the reader itself) */
    struct reader *joins;    /* on a wake this one joins the same flight */
    enum flight_join joined; /* what came of it */
};

static struct world *world; /* of the test that runs */

/* ---- steps ---- */

struct step {
    void (*fn)(struct step *s);
    struct reader *reader;
    struct span key;
    bool may_lead;
    bool (*recheck)(void *arg);
    uint64_t from, to;
    bool whole;
    enum flight_join joined;
    enum body_status status;
    struct body_piece piece;
    bool yes;
    unsigned n;
    struct flight_failure failure;
    struct flight_answer *answer;
};

static void run_step(void *arg)
{
    struct step *s = arg;
    s->fn(s);
}

static void nothing(struct step *s)
{
    UNUSED(s);
}

/* Twice: what the first round's messages post is handled as well. */
static void act(void (*fn)(struct step *s), struct step *s)
{
    struct step idle = {.fn = nothing};
    s->fn = fn;
    rig_on_core(world->r, run_step, s);
    rig_on_core(world->r, run_step, &idle);
    rig_on_core(world->r, run_step, &idle);
}

static void on_wake(struct flight_seat *seat)
{
    struct reader *r = CONTAINER_OF(seat, struct reader, seat);
    r->wakes++;
    if (r->joins != NULL) {
        struct reader *other = r->joins;
        r->joins = NULL;
        r->joined =
            flight_join(world->r->core, flight_key(flight_of(seat)), REPO, false, NULL, NULL, &other->seat);
    }
    if (r->leaves != NULL)
        flight_leave(&r->leaves->seat);
}

static void do_join(struct step *s)
{
    s->reader->seat.wake = on_wake;
    s->joined =
        flight_join(world->r->core, s->key, REPO, s->may_lead, s->recheck, s->reader, &s->reader->seat);
    if (s->joined == FLIGHT_LEAD && world->flight == NULL) {
        world->flight = flight_ref(flight_of(&s->reader->seat));
        flight_set_leader(world->flight, world->r->core, &world->leader_msg);
    }
}

static enum flight_join join_key(struct reader *r, struct span key, bool may_lead)
{
    struct step s = {.reader = r, .key = key, .may_lead = may_lead};
    act(do_join, &s);
    return s.joined;
}

static enum flight_join join(struct reader *r)
{
    return join_key(r, SPAN("b one"), true);
}

static void do_leave(struct step *s)
{
    flight_leave(&s->reader->seat);
}

static void leave(struct reader *r)
{
    act(do_leave, &(struct step){.reader = r});
}

static void do_head(struct step *s)
{
    flight_head(world->flight, s->to);
}

static void head(uint64_t length)
{
    act(do_head, &(struct step){.to = length});
}

static void do_publish(struct step *s)
{
    s->yes = s->from > world->front ? flight_publish_ahead(world->flight, s->from, s->to) : true;
    if (s->from <= world->front) {
        world->front = s->to;
        flight_publish(world->flight, s->to);
    }
}

static bool publish(uint64_t from, uint64_t to)
{
    struct step s = {.from = from, .to = to};
    act(do_publish, &s);
    return s.yes;
}

static void do_verified(struct step *s)
{
    flight_verified(world->flight, s->to);
}

static void do_done(struct step *s)
{
    UNUSED(s);
    flight_done(world->flight);
}

static void do_fail(struct step *s)
{
    flight_fail(world->flight, &s->failure);
}

static void do_abandon(struct step *s)
{
    s->yes = flight_abandon(world->flight);
}

static bool abandon(void)
{
    struct step s = {.yes = false};
    act(do_abandon, &s);
    return s.yes;
}

static void do_bytes(struct step *s)
{
    s->status = flight_bytes(&s->reader->seat, s->from, s->to, s->whole, &s->piece);
}

/* How many bytes may be sent from `from`; what else it says is `status`. */
static uint64_t bytes(struct reader *r, uint64_t from, uint64_t to, bool whole, enum body_status status)
{
    struct step s = {.reader = r, .from = from, .to = to, .whole = whole};
    act(do_bytes, &s);
    if (s.status != BODY_PIECE) {
        assert_int_equal(s.status, status);
        return 0;
    }
    assert_null(s.piece.mem);
    assert_int_equal(s.piece.fd, flight_partial(world->flight)->fd);
    assert_int_equal(s.piece.off, from);
    return s.piece.len;
}

static void do_take_want(struct step *s)
{
    s->yes = flight_take_want(world->flight, &s->from, &s->to);
}

static void do_readers(struct step *s)
{
    s->n = flight_readers(world->flight);
}

static unsigned readers(void)
{
    struct step s = {.n = 99};
    act(do_readers, &s);
    return s.n;
}

/* The leader is through with the flight. */
static void do_leader_gone(struct step *s)
{
    UNUSED(s);
    flight_clear_leader(world->flight);
    flight_unref(world->flight);
    world->flight = NULL;
}

static void end_leader(void)
{
    act(do_leader_gone, &(struct step){.n = 0});
}

static void finish(uint64_t length)
{
    act(do_verified, &(struct step){.to = length});
    act(do_done, &(struct step){.n = 0});
}

static void open_partial(void)
{
    char why[512] = "";
    struct str w = STR_INIT(why);
    struct partial p;
    assert_int_equal(partial_open(world->r->store, &world->digest, &p, &w), 0);
    flight_set_partial(world->flight, &p);
}

/* ---- around each test ---- */

static void on_leader(struct core_msg *m)
{
    CONTAINER_OF(m, struct world, leader_msg)->leader_posts++;
}

static void do_core_init(struct step *s)
{
    UNUSED(s);
    flight_core_init(world->r->core, world->table);
}

static void do_core_free(struct step *s)
{
    s->yes = flight_core_idle(world->r->core);
    if (s->yes)
        flight_core_free(world->r->core);
}

static int setup(void **state)
{
    void *rig = NULL;
    if (rig_setup(&rig) != 0)
        return -1;
    struct world *w = calloc(1, sizeof *w);
    w->r = rig;
    w->table = flights_new();
    w->digest = rig_digest(1);
    core_msg_init(&w->leader_msg, on_leader);
    world = w;
    act(do_core_init, &(struct step){.n = 0});
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    struct step s = {.yes = false};
    for (unsigned i = 0; i < 5000 && !s.yes; i++) { /* a removed file is closed by a job */
        if (i > 0)
            usleep(1000);
        act(do_core_free, &s);
    }
    bool clean = s.yes && flights_count(w->table) == 0 && w->flight == NULL;
    if (!clean)
        return -1; /* a view, a flight or a reference is left */
    flights_free(w->table);
    void *rig = w->r;
    free(w);
    return rig_teardown(&rig);
}

/* ---- joining ---- */

static void test_the_first_leads_and_others_join(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0}, other = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    assert_int_equal(join(&b), FLIGHT_JOINED);
    assert_ptr_equal(flight_of(&a.seat), flight_of(&b.seat));
    assert_true(span_eq(flight_repo(&b.seat), REPO));
    assert_true(span_eq(flight_key(flight_of(&b.seat)), SPAN("b one")));
    assert_int_equal(flight_seen(&b.seat), FLIGHT_BUSY);
    assert_int_equal(readers(), 2);
    assert_int_equal(flights_count(world->table), 1);
    assert_int_equal(join_key(&other, SPAN("b two"), false), FLIGHT_NONE);
    assert_null(other.seat.view);
    leave(&other); /* not seated: nothing */
    leave(&a);
    leave(&a);
    assert_int_equal(readers(), 1);
    leave(&b);
    assert_true(abandon());
    end_leader();
}

static bool found(void *arg)
{
    struct reader *r = arg;
    r->wakes++;
    return true;
}

static bool not_found(void *arg)
{
    struct reader *r = arg;
    r->wakes++;
    return false;
}

/* The second look at the index is taken by who would lead, and by nobody else. */
static void test_second_look(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0};
    struct step s = {.reader = &a, .key = SPAN("b one"), .may_lead = true, .recheck = found};
    act(do_join, &s);
    assert_int_equal(s.joined, FLIGHT_FOUND);
    assert_int_equal(a.wakes, 1);
    assert_null(a.seat.view);
    assert_int_equal(flights_count(world->table), 0);
    s.recheck = not_found;
    act(do_join, &s);
    assert_int_equal(s.joined, FLIGHT_LEAD);
    assert_int_equal(a.wakes, 2);
    s = (struct step){.reader = &b, .key = SPAN("b one"), .may_lead = true, .recheck = found};
    act(do_join, &s);
    assert_int_equal(s.joined, FLIGHT_JOINED);
    assert_int_equal(b.wakes, 0);
    leave(&a);
    leave(&b);
    act(do_join, &s); /* the flight has no reader now, and is found in the table */
    assert_int_equal(s.joined, FLIGHT_JOINED);
    assert_int_equal(b.wakes, 0);
    leave(&b);
    assert_true(abandon());
    end_leader();
}

/* ---- a stream ---- */

static void test_what_a_reader_may_have(void **state)
{
    UNUSED(state);
    const uint64_t length = 1 << 20, tail = length - FLIGHT_TAIL;
    struct reader a = {.wakes = 0}, late = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    open_partial();
    assert_true(publish(0, 100)); /* from an earlier fill: nobody is told before the head */
    assert_int_equal(a.wakes, 0);
    assert_int_equal(flight_seen(&a.seat), FLIGHT_BUSY);
    head(length);
    assert_int_equal(a.wakes, 1);
    assert_int_equal(flight_seen(&a.seat), FLIGHT_HEAD);
    assert_int_equal(flight_length(&a.seat), length);
    assert_int_equal(bytes(&a, 0, length, true, BODY_PIECE), 100);
    assert_int_equal(bytes(&a, 60, length, true, BODY_PIECE), 40);
    assert_int_equal(bytes(&a, 100, length, true, BODY_WAIT), 0);
    assert_int_equal(bytes(&a, 0, 30, false, BODY_PIECE), 30);
    assert_int_equal(bytes(&a, 30, 30, false, BODY_END), 0);

    assert_true(publish(100, length));
    assert_int_equal(a.wakes, 2);
    /* All is there, and not verified: the tail of a whole-object response waits, a part may go. */
    assert_int_equal(bytes(&a, 0, length, true, BODY_PIECE), tail);
    assert_int_equal(bytes(&a, tail - 1, length, true, BODY_PIECE), 1);
    assert_int_equal(bytes(&a, tail, length, true, BODY_WAIT), 0);
    assert_int_equal(bytes(&a, length - 1, length, true, BODY_WAIT), 0);
    assert_int_equal(bytes(&a, tail, length, false, BODY_PIECE), FLIGHT_TAIL);

    act(do_verified, &(struct step){.to = length});
    assert_int_equal(flight_seen(&a.seat), FLIGHT_VERIFIED);
    assert_int_equal(bytes(&a, tail, length, true, BODY_PIECE), FLIGHT_TAIL);
    assert_int_equal(bytes(&a, length, length, true, BODY_END), 0);
    assert_int_equal(join(&late), FLIGHT_JOINED);
    assert_int_equal(flight_seen(&late.seat), FLIGHT_VERIFIED);
    act(do_done, &(struct step){.n = 0});
    assert_int_equal(flight_seen(&a.seat), FLIGHT_DONE);
    assert_int_equal(bytes(&late, 0, length, true, BODY_PIECE), length);
    assert_int_equal(flights_count(world->table), 0);
    leave(&a);
    assert_int_equal(bytes(&late, 5, length, true, BODY_PIECE), length - 5);
    leave(&late);
    end_leader();
}

/* Without a length the last FLIGHT_TAIL of what is there wait, and the end is known when it is verified. */
static void test_unknown_length(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    open_partial();
    head(FLIGHT_UNKNOWN);
    assert_true(publish(0, FLIGHT_TAIL));
    assert_int_equal(bytes(&a, 0, FLIGHT_UNKNOWN, true, BODY_WAIT), 0);
    assert_true(publish(FLIGHT_TAIL, FLIGHT_TAIL + 10));
    assert_int_equal(bytes(&a, 0, FLIGHT_UNKNOWN, true, BODY_PIECE), 10);
    assert_int_equal(bytes(&a, 10, FLIGHT_UNKNOWN, true, BODY_WAIT), 0);
    act(do_verified, &(struct step){.to = FLIGHT_TAIL + 10});
    assert_int_equal(flight_length(&a.seat), FLIGHT_TAIL + 10);
    assert_int_equal(bytes(&a, 10, FLIGHT_UNKNOWN, true, BODY_PIECE), FLIGHT_TAIL);
    assert_int_equal(bytes(&a, FLIGHT_TAIL + 10, FLIGHT_UNKNOWN, true, BODY_END), 0);
    act(do_done, &(struct step){.n = 0});
    leave(&a);
    end_leader();
}

static void test_an_object_that_is_all_tail(void **state)
{
    UNUSED(state);
    static const uint64_t lengths[] = {1, FLIGHT_TAIL - 1, FLIGHT_TAIL};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        struct reader a = {.wakes = 0};
        assert_int_equal(join(&a), FLIGHT_LEAD);
        open_partial();
        head(lengths[i]);
        assert_true(publish(0, lengths[i]));
        assert_int_equal(bytes(&a, 0, lengths[i], true, BODY_WAIT), 0);
        finish(lengths[i]);
        assert_int_equal(bytes(&a, 0, lengths[i], true, BODY_PIECE), lengths[i]);
        leave(&a);
        end_leader();
    }
}

static void test_nothing_is_there_after_all(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    open_partial();
    assert_true(publish(0, 1000));
    flight_unpublish(world->flight);
    head(5000);
    assert_int_equal(bytes(&a, 0, 500, false, BODY_WAIT), 0);
    leave(&a);
    assert_true(abandon());
    end_leader();
}

/* A reader gets what may be had, and then learns that the rest will not come; a newcomer begins anew. */
static void test_failure(void **state)
{
    UNUSED(state);
    const uint64_t length = 1 << 20;
    struct reader a = {.wakes = 0}, waits = {.wakes = 0}, next = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    assert_int_equal(join(&waits), FLIGHT_JOINED);
    open_partial();
    head(length);
    assert_true(publish(0, length));
    act(do_fail, &(struct step){.failure = {.err = ERR_UP_DIGEST, .status = 200, .retry_after_ms = 7}});
    assert_int_equal(a.wakes, 3);
    assert_int_equal(waits.wakes, 3);
    assert_int_equal(flight_seen(&a.seat), FLIGHT_FAILED);
    assert_int_equal(flight_failure(&a.seat)->err, ERR_UP_DIGEST);
    assert_int_equal(flight_failure(&a.seat)->status, 200);
    assert_int_equal(flight_failure(&a.seat)->retry_after_ms, 7);
    assert_int_equal(bytes(&a, 0, length, true, BODY_PIECE), length - FLIGHT_TAIL);
    assert_int_equal(bytes(&a, length - FLIGHT_TAIL, length, true, BODY_FAIL), 0);
    assert_int_equal(flights_count(world->table), 0);
    end_leader();
    assert_int_equal(join(&next), FLIGHT_LEAD);
    assert_ptr_not_equal(flight_of(&next.seat), flight_of(&a.seat));
    assert_int_equal(flight_seen(&next.seat), FLIGHT_BUSY);
    leave(&a);
    leave(&waits);
    assert_int_equal(readers(), 1);
    leave(&next);
    assert_true(abandon());
    end_leader();
}

static void do_unkept(struct step *s)
{
    struct hasher h;
    hasher_init(&h, DIGEST_SHA256);
    hasher_update(&h, "abc", 3);
    flight_hashed(world->flight, s->n, &h);
    flight_unkept(world->flight);
}

static void do_forget(struct step *s)
{
    s->yes = flight_forget_ahead(world->flight);
}

/* In one turn: no message has told of it yet. */
static void do_forget_and_bytes(struct step *s)
{
    do_forget(s);
    do_bytes(s);
}

static void test_what_is_ahead_is_forgotten_but_for_readers_of_parts(void **state)
{
    UNUSED(state);
    struct reader whole = {.wakes = 0}, part = {.wakes = 0}, late = {.wakes = 0};
    struct step s = {.yes = true};
    assert_int_equal(join(&whole), FLIGHT_LEAD);
    assert_int_equal(join(&part), FLIGHT_JOINED);
    open_partial();
    head(1 << 20);
    assert_true(publish(0, 4096));
    assert_true(publish(500000, 600000));
    assert_int_equal(bytes(&whole, 0, 1 << 20, true, BODY_PIECE), 4096);
    assert_int_equal(bytes(&part, 500000, 510000, false, BODY_PIECE), 10000);
    act(do_forget, &s);
    assert_false(s.yes);
    assert_int_equal(bytes(&part, 500000, 510000, false, BODY_PIECE), 10000);
    leave(&part);
    assert_int_equal(join(&late), FLIGHT_JOINED);
    s = (struct step){.reader = &late, .from = 500000, .to = 510000};
    act(do_forget_and_bytes, &s);
    assert_true(s.yes);
    assert_int_equal(s.status, BODY_WAIT);
    leave(&late);
    leave(&whole);
    assert_true(abandon());
    end_leader();
}

/* The store takes no more: what is in the file may be had, whole responses have no more than the front, the digest's state is there
 * for who goes on, and a newcomer begins anew. */
static void test_unkept(void **state)
{
    UNUSED(state);
    const uint64_t length = 1 << 20, front = 300000;
    struct reader a = {.wakes = 0}, next = {.wakes = 0};
    struct digest d, abc;
    assert_int_equal(join(&a), FLIGHT_LEAD);
    open_partial();
    head(length);
    assert_true(publish(0, front));
    assert_true(publish(524288, 600000));
    act(do_unkept, &(struct step){.n = front});
    assert_int_equal(flight_seen(&a.seat), FLIGHT_UNKEPT);
    assert_int_equal(flight_front(&a.seat), front);
    assert_int_equal(bytes(&a, 0, length, true, BODY_PIECE), front);
    assert_int_equal(bytes(&a, front, length, true, BODY_FAIL), 0);
    assert_int_equal(bytes(&a, 10, length, false, BODY_PIECE), front - 10);
    assert_int_equal(bytes(&a, 524288, length, true, BODY_FAIL), 0);
    assert_int_equal(bytes(&a, 524288, length, false, BODY_PIECE), 600000 - 524288);
    assert_int_equal(bytes(&a, 600000, length, false, BODY_FAIL), 0);
    struct hasher h;
    assert_false(flight_upto(&a.seat, front - 1, &h));
    assert_true(flight_upto(&a.seat, front, &h));
    hasher_finish(&h, &d);
    hasher_init(&h, DIGEST_SHA256);
    hasher_update(&h, "abc", 3);
    hasher_finish(&h, &abc);
    assert_true(digest_eq(&d, &abc));
    assert_int_equal(flights_count(world->table), 0);
    end_leader();
    assert_int_equal(join(&next), FLIGHT_LEAD);
    leave(&a);
    leave(&next);
    assert_true(abandon());
    end_leader();
}

/* ---- an answer ---- */

static void do_answered(struct step *s)
{
    flight_answered(world->flight, s->answer);
}

static void test_answer(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0};
    static struct flight_answer answer;
    assert_int_equal(join_key(&a, SPAN("m one v1"), true), FLIGHT_LEAD);
    answer = (struct flight_answer){.digest = rig_digest(3), .n = 2, .length = 2};
    answer.bytes = mem_alloc(2); /* freed with the flight */
    memcpy(answer.bytes, "{}", 2);
    memcpy(answer.media, "application/x", sizeof "application/x");
    act(do_answered, &(struct step){.answer = &answer});
    assert_int_equal(a.wakes, 1);
    assert_int_equal(flight_seen(&a.seat), FLIGHT_VERIFIED);
    assert_int_equal(join_key(&b, SPAN("m one v1"), true), FLIGHT_JOINED);
    act(do_done, &(struct step){.n = 0});
    end_leader(); /* the readers still have it */
    leave(&a);
    const struct flight_answer *got = flight_answer(&b.seat);
    assert_int_equal(got->n, 2);
    assert_memory_equal(got->bytes, "{}", 2);
    assert_string_equal(got->media, "application/x");
    leave(&b);
}

/* ---- leaving and joining from within a wake ---- */

static void test_all_leave_from_within_their_wake(void **state)
{
    UNUSED(state);
    struct reader r[5] = {{.wakes = 0}};
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        r[i].leaves = &r[i];
        assert_int_equal(join(&r[i]), i == 0 ? FLIGHT_LEAD : FLIGHT_JOINED);
    }
    head(100);
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        assert_int_equal(r[i].wakes, 1);
    assert_int_equal(readers(), 0);
    assert_int_equal(world->leader_posts, 1);
    assert_true(abandon());
    end_leader();
}

/* A wake may end another reader: one that was woken already, or one whose turn has not come. */
static void test_a_wake_makes_another_leave(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0}, c = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    assert_int_equal(join(&b), FLIGHT_JOINED);
    assert_int_equal(join(&c), FLIGHT_JOINED);
    b.leaves = &c;
    c.leaves = &a; /* never comes to it */
    head(100);
    assert_int_equal(a.wakes, 1);
    assert_int_equal(b.wakes, 1);
    assert_int_equal(c.wakes, 0);
    b.leaves = &a;
    (void)publish(0, 10);
    assert_int_equal(readers(), 1);
    leave(&b);
    assert_true(abandon());
    end_leader();
}

/* Who joins from within a wake has the news already, and is not woken for them. */
static void test_a_wake_makes_another_join(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    a.joins = &b;
    b.seat.wake = on_wake;
    head(100);
    assert_int_equal(a.wakes, 1);
    assert_int_equal(b.wakes, 0);
    assert_int_equal(flight_seen(&b.seat), FLIGHT_HEAD);
    assert_int_equal(readers(), 2);
    (void)publish(0, 10);
    assert_int_equal(b.wakes, 1);
    leave(&a);
    leave(&b);
    assert_true(abandon());
    end_leader();
}

/* The last reader leaves while the view's message runs; before that it tries to join once more, in vain. */
static void test_the_view_is_kept_while_its_message_runs(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    a.joins = &b;
    a.leaves = &a;
    b.seat.wake = on_wake;
    act(do_fail, &(struct step){.failure = {.err = ERR_UP_CLOSED}});
    assert_null(a.seat.view);
    assert_int_equal(a.joined, FLIGHT_NONE); /* it has failed: nothing to join */
    assert_null(b.seat.view);
    end_leader();
}

/* ---- the leader ---- */

static void test_the_last_one_that_leaves_posts_the_leader(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    assert_int_equal(join(&b), FLIGHT_JOINED);
    leave(&a);
    assert_int_equal(world->leader_posts, 0);
    leave(&b);
    assert_int_equal(world->leader_posts, 1);
    assert_int_equal(join(&a), FLIGHT_JOINED); /* the same one goes on */
    leave(&a);
    assert_int_equal(world->leader_posts, 2);
    assert_true(abandon());
    end_leader();
}

static void test_abandoned_only_when_nobody_reads(void **state)
{
    UNUSED(state);
    struct reader a = {.wakes = 0}, b = {.wakes = 0};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    open_partial();
    head(100);
    assert_false(abandon());
    leave(&a);
    assert_int_equal(join(&b), FLIGHT_JOINED);
    assert_false(abandon());
    assert_int_equal(flight_seen(&b.seat), FLIGHT_HEAD);
    assert_true(publish(0, 100)); /* it goes on */
    leave(&b);
    act(do_verified, &(struct step){.to = 100});
    assert_false(abandon()); /* too late: it is all there */
    act(do_done, &(struct step){.n = 0});
    end_leader();
}

static void test_wants(void **state)
{
    UNUSED(state);
    const uint64_t mib = 1 << 20, length = 100 * mib;
    struct reader a = {.wakes = 0};
    struct step s = {.yes = true};
    assert_int_equal(join(&a), FLIGHT_LEAD);
    open_partial();
    head(length);
    assert_true(publish(0, mib));
    assert_int_equal(bytes(&a, 2 * mib, 3 * mib, false, BODY_WAIT), 0); /* near: the front comes by */
    assert_int_equal(bytes(&a, mib, length, true, BODY_WAIT), 0);       /* whole: in order */
    assert_int_equal(world->leader_posts, 0);
    act(do_take_want, &s);
    assert_false(s.yes);
    assert_int_equal(bytes(&a, 50 * mib, 60 * mib, false, BODY_WAIT), 0);
    assert_int_equal(bytes(&a, 50 * mib, 60 * mib, false, BODY_WAIT), 0); /* known */
    assert_int_equal(bytes(&a, 80 * mib, 81 * mib, false, BODY_WAIT), 0);
    assert_int_equal(world->leader_posts, 2);
    assert_true(publish(50 * mib, 52 * mib));
    act(do_take_want, &s);
    assert_true(s.yes);
    assert_int_equal(s.from, 52 * mib); /* what is missing of it */
    assert_int_equal(s.to, 60 * mib);
    assert_true(publish(80 * mib, 81 * mib));
    act(do_take_want, &s);
    assert_false(s.yes); /* it has come meanwhile */
    assert_int_equal(bytes(&a, 50 * mib, 60 * mib, false, BODY_PIECE), 2 * mib);
    leave(&a);
    assert_true(abandon());
    end_leader();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_first_leads_and_others_join),
        TEST(test_second_look),
        TEST(test_what_a_reader_may_have),
        TEST(test_unknown_length),
        TEST(test_an_object_that_is_all_tail),
        TEST(test_nothing_is_there_after_all),
        TEST(test_failure),
        TEST(test_what_is_ahead_is_forgotten_but_for_readers_of_parts),
        TEST(test_unkept),
        TEST(test_answer),
        TEST(test_all_leave_from_within_their_wake),
        TEST(test_a_wake_makes_another_leave),
        TEST(test_a_wake_makes_another_join),
        TEST(test_the_view_is_kept_while_its_message_runs),
        TEST(test_the_last_one_that_leaves_posts_the_leader),
        TEST(test_abandoned_only_when_nobody_reads),
        TEST(test_wants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
