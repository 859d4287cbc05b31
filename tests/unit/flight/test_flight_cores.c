/* Flights on several cores at once. Run these under the address and the thread sanitizer, and often.
 *
 * What each test would find:
 *   test_many_readers_follow_a_writer   a view that is freed while its message may be posted (free it in view_close without looking
 *       at core_msg_idle: a use after free); a publication that wakes nobody (post before the change instead of after it, or
 *       outside of the lock: readers wait for ever); bytes of the tail before the verdict; bytes that are not there yet
 *   test_a_writer_that_fails            a reader that is not told of the end; a whole response that gets its tail all the same
 *   test_join_against_abandon           a flight that is abandoned although somebody has joined it (look at n_readers outside of
 *       the lock, or leave the table after dropping the lock: a seat sees ERR_CLIENT_GONE, or waits for ever); a leader that is
 *       posted after it cleared itself (a use after free); a flight that is lost from the table (a failed check in flight_end)
 *
 * A test that waits for ever is ended by the time limit of the test run. */
#include "../store/rig.h"

#include "base/mem.h"
#include "flight/flight.h"

#define CORES      3
#define SEATS      200
#define LENGTH     ((uint64_t)1 << 20)
#define CHUNK_MOST 12000u
#define KEY        SPAN("b followed")
#define REPO       SPAN("docker.io/library/app")

struct lane { /* one core and what runs there */
    struct core *core;
    pthread_t thread;
    struct core_msg drive;
    unsigned seed;
    struct seat *seats;
    unsigned joined, gone;
    struct list holders; /* of test_join_against_abandon */
    unsigned n_holders;
    unsigned leads, joins, abandons, ends;
};

static struct lane lanes[CORES];
static struct flights *table;
static struct store *store;
static sem_t finished; /* posted once per lane, and by the writer */

static unsigned some(struct lane *l, unsigned below)
{
    return (unsigned)rand_r(&l->seed) % below;
}

/* ---- starting and ending the cores ---- */

static void on_lane(struct lane *l, void (*fn)(void *arg), void *arg)
{
    struct rig r = {.core = l->core};
    rig_on_core(&r, fn, arg);
}

static void init_on_core(void *arg)
{
    struct lane *l = arg;
    flight_core_init(l->core, table);
}

static void start(void (*drive)(struct core_msg *m), unsigned seed)
{
    table = flights_new();
    sem_init(&finished, 0, 0);
    for (unsigned i = 0; i < CORES; i++) {
        struct lane *l = &lanes[i];
        *l = (struct lane){.core = core_new(i), .seed = seed * CORES + i};
        assert_non_null(l->core);
        list_init(&l->holders);
        core_msg_init(&l->drive, drive);
        assert_int_equal(pthread_create(&l->thread, NULL, rig_run_core, l->core), 0);
        on_lane(l, init_on_core, l);
    }
}

static void look_on_core(void *arg)
{
    struct lane *l = arg;
    l->gone = flight_core_idle(l->core);
}

static void free_on_core(void *arg)
{
    struct lane *l = arg;
    flight_core_free(l->core);
}

/* Every view is gone, on every core, as soon as what is posted has run; and so is every flight. */
static void end(void)
{
    for (unsigned i = 0; i < CORES; i++) {
        do
            on_lane(&lanes[i], look_on_core, &lanes[i]);
        while (!lanes[i].gone);
    }
    assert_int_equal(flights_count(table), 0);
    for (unsigned i = 0; i < CORES; i++) {
        on_lane(&lanes[i], free_on_core, &lanes[i]);
        core_quit(lanes[i].core);
        pthread_join(lanes[i].thread, NULL);
        core_free(lanes[i].core);
    }
    flights_free(table);
    sem_destroy(&finished);
}

static void wait_for(unsigned n)
{
    while (n-- > 0)
        rig_wait(&finished);
}

/* ---- readers that follow a writer ---- */

struct seat {
    struct flight_seat seat;
    struct lane *lane;
    uint64_t at, leave_at; /* UINT64_MAX: stays */
    bool over, whole, wrong, failed;
};

static unsigned char content[LENGTH]; /* what the writer writes */

/* Those on lane 0 ask for a part in the middle, one in eight; the others for the whole. */
static bool is_whole(const struct seat *s)
{
    return s->lane != &lanes[0] || (s - s->lane->seats) % 8 != 0;
}

static void seat_over(struct seat *s)
{
    flight_leave(&s->seat);
    s->over = true;
    if (++s->lane->gone == SEATS)
        sem_post(&finished);
}

static bool bytes_right(const struct seat *s, const struct body_piece *piece, size_t n)
{
    unsigned char buf[16384];
    if (pread(piece->fd, buf, n, piece->off) != (ssize_t)n)
        return false;
    return memcmp(buf, content + s->at, n) == 0;
}

/* Takes what there is, as a sender does. */
static void on_follow(struct flight_seat *seat)
{
    struct seat *s = CONTAINER_OF(seat, struct seat, seat);
    if (flight_seen(seat) == FLIGHT_BUSY)
        return;
    uint64_t to = is_whole(s) ? LENGTH : LENGTH / 2;
    for (;;) {
        struct body_piece piece;
        enum body_status st = flight_bytes(seat, s->at, to, is_whole(s), &piece);
        if (st == BODY_WAIT)
            return;
        if (st != BODY_PIECE) {
            s->whole = st == BODY_END;
            s->failed = st == BODY_FAIL;
            seat_over(s);
            return;
        }
        size_t n = piece.len < 16384 ? (size_t)piece.len : 16384;
        bool verified = flight_seen(seat) == FLIGHT_VERIFIED || flight_seen(seat) == FLIGHT_DONE;
        if (!bytes_right(s, &piece, n) || (is_whole(s) && !verified && s->at + n > LENGTH - FLIGHT_TAIL))
            s->wrong = true;
        s->at += n;
        if (s->at >= s->leave_at) {
            seat_over(s);
            return;
        }
    }
}

/* Joins a few at a time while the writer writes. Who comes too late has nothing to join. */
static void drive_followers(struct core_msg *m)
{
    struct lane *l = CONTAINER_OF(m, struct lane, drive);
    for (unsigned few = 1 + some(l, 6); few > 0 && l->joined < SEATS; few--) {
        struct seat *s = &l->seats[l->joined++];
        s->lane = l;
        s->seat.wake = on_follow;
        s->at = is_whole(s) ? 0 : LENGTH / 4;
        s->leave_at = some(l, 3) == 0 ? some(l, (unsigned)LENGTH) : UINT64_MAX;
        if (flight_join(l->core, KEY, REPO, false, NULL, NULL, &s->seat) != FLIGHT_JOINED) {
            s->over = true;
            if (++l->gone == SEATS)
                sem_post(&finished);
            continue;
        }
        on_follow(&s->seat);
        /* Some leave while a message may be on its way to them. */
        if (!s->over && s->leave_at != UINT64_MAX && some(l, 4) == 0)
            seat_over(s);
    }
    if (l->joined < SEATS)
        core_post(l->core, &l->drive);
}

struct writer {
    struct core_msg msg, leader;
    struct lane *lane;
    struct flight_seat seat; /* the first asker's; it leaves early */
    struct flight *flight;
    struct partial partial;
    struct digest digest;
    uint64_t at, fail_at;
    bool opened, error;
};

static void on_writer_seat(struct flight_seat *seat)
{
    flight_leave(seat);
}

static void on_leader(struct core_msg *m)
{
    UNUSED(m); /* nobody reads: this writer goes on */
}

static void writer_begin(struct writer *w)
{
    char why[512];
    struct str text = STR_INIT(why);
    w->opened = true;
    w->seat.wake = on_writer_seat;
    if (flight_join(w->lane->core, KEY, REPO, true, NULL, NULL, &w->seat) != FLIGHT_LEAD ||
        partial_open(store, &w->digest, &w->partial, &text) != 0) {
        w->error = true;
        return;
    }
    w->flight = flight_ref(flight_of(&w->seat));
    core_msg_init(&w->leader, on_leader);
    flight_set_leader(w->flight, w->lane->core, &w->leader);
    flight_set_partial(w->flight, &w->partial);
    for (unsigned i = 0; i < CORES; i++)
        core_post(lanes[i].core, &lanes[i].drive);
}

static void writer_chunk(struct writer *w)
{
    char why[512];
    struct str text = STR_INIT(why);
    uint64_t left = LENGTH - w->at;
    size_t n = 1 + some(w->lane, CHUNK_MOST);
    if (n > left)
        n = (size_t)left;
    if (partial_write(&w->partial, w->at, content + w->at, n, &text) != 0)
        w->error = true;
    flight_publish(w->flight, w->at + n);
    if (w->at == 0)
        flight_head(w->flight, LENGTH);
    w->at += n;
}

static void writer_end(struct writer *w)
{
    if (w->at == LENGTH && w->fail_at > LENGTH) {
        flight_verified(w->flight, LENGTH);
        flight_done(w->flight);
    } else {
        flight_fail(w->flight, &(struct flight_failure){.err = ERR_UP_DIGEST});
    }
    flight_clear_leader(w->flight);
    flight_unref(w->flight);
    flight_leave(&w->seat);
    partial_discard(&w->partial);
    sem_post(&finished);
}

/* One chunk a turn. */
static void on_writer(struct core_msg *m)
{
    struct writer *w = CONTAINER_OF(m, struct writer, msg);
    if (!w->opened)
        writer_begin(w);
    else
        writer_chunk(w);
    if (w->error || w->at >= w->fail_at || w->at == LENGTH)
        writer_end(w);
    else
        core_post(w->lane->core, &w->msg);
}

static void follow(uint64_t fail_at, unsigned seed)
{
    start(drive_followers, seed);
    struct writer *w = calloc(1, sizeof *w);
    for (unsigned i = 0; i < CORES; i++)
        lanes[i].seats = calloc(SEATS, sizeof *lanes[i].seats);
    w->lane = &lanes[seed % CORES];
    w->digest = rig_digest(seed);
    w->fail_at = fail_at;
    core_msg_init(&w->msg, on_writer);
    core_post(w->lane->core, &w->msg);
    wait_for(CORES + 1);
    end();
    assert_false(w->error);
    unsigned whole = 0, failed = 0;
    for (unsigned i = 0; i < CORES; i++) {
        for (unsigned k = 0; k < SEATS; k++) {
            const struct seat *s = &lanes[i].seats[k];
            assert_true(s->over && !s->wrong);
            whole += s->whole && is_whole(s);
            failed += s->failed;
            if (s->failed && is_whole(s))
                assert_true(s->at <= LENGTH - FLIGHT_TAIL);
        }
        free(lanes[i].seats);
    }
    if (fail_at > LENGTH)
        assert_true(whole > 0 && failed == 0);
    else
        assert_true(whole == 0 && failed > 0);
    free(w);
}

static void test_many_readers_follow_a_writer(void **state)
{
    UNUSED(state);
    for (unsigned seed = 0; seed < 4; seed++)
        follow(UINT64_MAX, seed);
}

static void test_a_writer_that_fails(void **state)
{
    UNUSED(state);
    follow(LENGTH / 2, 10);
    follow(LENGTH, 11); /* at the last byte: the digest was wrong */
}

/* ---- joining against abandoning ---- */

#define JOINS    4000 /* per lane */
#define KEYS     2
#define HOLD_MAX 6

/* A leader that gives up as soon as nobody reads, or ends after some turns. */
struct leader {
    struct core_msg msg;
    struct lane *lane;
    struct flight *flight;
    unsigned turns;
    bool over;
};

struct holder {
    struct list_node node;
    struct flight_seat seat;
    struct lane *lane;
};

static atomic_uint n_leaders;
static atomic_uint abandoned_with_a_reader;

static void lane_check_over(struct lane *l)
{
    if (l->joined == JOINS && l->n_holders == 0 && l->gone == 0) {
        l->gone = 1;
        sem_post(&finished);
    }
}

static void leader_free(struct leader *d)
{
    free(d);
    atomic_fetch_sub(&n_leaders, 1);
}

static void leader_over(struct leader *d)
{
    flight_clear_leader(d->flight);
    flight_unref(d->flight);
    d->over = true;
    if (core_msg_idle(&d->msg))
        leader_free(d);
}

static void on_hammer_leader(struct core_msg *m)
{
    struct leader *d = CONTAINER_OF(m, struct leader, msg);
    if (d->over) {
        leader_free(d);
        return;
    }
    if (flight_readers(d->flight) == 0 && flight_abandon(d->flight)) {
        d->lane->abandons++;
        leader_over(d);
        return;
    }
    if (d->turns-- > 0) {
        core_post(d->lane->core, &d->msg);
        return;
    }
    d->lane->ends++;
    if (some(d->lane, 2) == 0) {
        flight_fail(d->flight, &(struct flight_failure){.err = ERR_UP_STATUS});
    } else {
        struct flight_answer a = {.length = 1, .n = 1, .bytes = mem_zalloc(1)};
        flight_answered(d->flight, &a);
        flight_done(d->flight);
    }
    leader_over(d);
}

static void lead(struct lane *l, struct flight *f)
{
    struct leader *d = calloc(1, sizeof *d);
    d->lane = l;
    d->flight = flight_ref(f);
    d->turns = some(l, 8);
    core_msg_init(&d->msg, on_hammer_leader);
    atomic_fetch_add(&n_leaders, 1);
    l->leads++;
    flight_set_leader(f, l->core, &d->msg);
    core_post(l->core, &d->msg);
}

static void holder_over(struct holder *h)
{
    struct lane *l = h->lane;
    flight_leave(&h->seat);
    list_remove(&h->node);
    free(h);
    l->n_holders--;
    lane_check_over(l);
}

/* Stays to the end, unless the drive takes it away. */
static void on_hold(struct flight_seat *seat)
{
    struct holder *h = CONTAINER_OF(seat, struct holder, seat);
    enum flight_state state = flight_seen(seat);
    if (state == FLIGHT_FAILED && flight_failure(seat)->err == ERR_CLIENT_GONE)
        atomic_fetch_add(&abandoned_with_a_reader, 1);
    if (state != FLIGHT_BUSY)
        holder_over(h);
}

static void hold(struct lane *l)
{
    char key[] = "b hammered 0";
    key[sizeof key - 2] = (char)('0' + some(l, KEYS));
    struct holder *h = calloc(1, sizeof *h);
    h->lane = l;
    h->seat.wake = on_hold;
    l->joined++;
    l->n_holders++;
    list_push_back(&l->holders, &h->node);
    if (flight_join(l->core, span_str(key), REPO, true, NULL, NULL, &h->seat) == FLIGHT_LEAD)
        lead(l, flight_of(&h->seat));
    else
        l->joins++;
    if (flight_seen(&h->seat) != FLIGHT_BUSY)
        on_hold(&h->seat);
    else if (some(l, 3) == 0)
        holder_over(h); /* leaves at once */
}

static void drive_hammer(struct core_msg *m)
{
    struct lane *l = CONTAINER_OF(m, struct lane, drive);
    if (l->n_holders < HOLD_MAX && l->joined < JOINS)
        hold(l);
    if (l->n_holders > 0 && some(l, 2) == 0)
        holder_over(CONTAINER_OF(list_first(&l->holders), struct holder, node));
    if (l->joined < JOINS || l->n_holders > 0)
        core_post(l->core, &l->drive);
    lane_check_over(l);
}

static void test_join_against_abandon(void **state)
{
    UNUSED(state);
    start(drive_hammer, 77);
    atomic_store(&abandoned_with_a_reader, 0);
    for (unsigned i = 0; i < CORES; i++)
        core_post(lanes[i].core, &lanes[i].drive);
    wait_for(CORES);
    while (atomic_load(&n_leaders) > 0) /* nobody reads any more: they end by themselves */
        usleep(1000);
    end();
    unsigned leads = 0, joins = 0, abandons = 0, ends = 0;
    for (unsigned i = 0; i < CORES; i++) {
        leads += lanes[i].leads;
        joins += lanes[i].joins;
        abandons += lanes[i].abandons;
        ends += lanes[i].ends;
    }
    assert_int_equal(atomic_load(&abandoned_with_a_reader), 0);
    assert_int_equal(leads + joins, CORES * JOINS);
    assert_int_equal(leads, abandons + ends); /* each flight ends once */
    assert_true(abandons > 0 && ends > 0 && joins > 0);
}

static int setup(void **state)
{
    if (rig_setup_folder(state) != 0)
        return -1;
    struct rig *r = *state;
    rig_open(r);
    store = r->store;
    for (size_t i = 0; i < LENGTH; i++)
        content[i] = (unsigned char)(i * 2654435761u >> 13);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_readers_follow_a_writer),
        cmocka_unit_test(test_a_writer_that_fails),
        cmocka_unit_test(test_join_against_abandon),
    };
    return cmocka_run_group_tests(tests, setup, rig_teardown);
}
