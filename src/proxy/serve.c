/* Serving one client request.
 *
 *   ROUTE    parse, match a rule                            -> LOOKUP | ASK (lists) | SEND (errors, ping)
 *   LOOKUP   what does the index say?                       -> OPEN (have it) | ASK (must ask upstream) | JOIN (a blob that
 *                                                              is not here)
 *   ASK      seated in an answer flight                     -> LOOKUP (linked now) | OPEN (confirmed, or stale) | SEND |
 *                                                              PASS (upstream is vague about a blob that is here)
 *   OPEN     the object's file is being opened              -> SEND | LOOKUP (it was damaged: a miss)
 *   JOIN     seated in a stream flight, no head (length) yet -> SEND | LOOKUP (fetched for another repository, in vain) |
 *                                                              JOIN (another registry hangs: a flight of ours) |
 *                                                              PASS (the store takes nothing; it may not be ours)
 *   PASS     a pass is begun, no head yet                   -> SEND
 *   SEND     the answer is going out                        -> LINK
 *   LINK     brought by another repository's transfer: when it is stored the index is told that ours has it, too -> END
 *   END
 *
 * LOOKUP may be entered several times, bounded by ROUNDS_MAX. What the answer says about the cache (Cache-Status, log,
 * counters) is decided where the bytes are found, in one place each: `result`.
 *
 * The seat, the open object and everything that a body borrows belong to this struct, which lives until the exchange has
 * finished. */
#include "base/mem.h"
#include "conf/match.h"
#include "proxy/join.h"
#include "proxy/serve_int.h"

#define ROUNDS_MAX  4
#define SERVES_KEPT 64

/* Whoever has something that may be served stale waits for upstream so long, and so long if that failed last. */
#define PATIENCE_MS         2000
#define PATIENCE_TROUBLE_MS 250

static struct span repo_key(const struct serve *s)
{
    return span_of(s->repo_key, s->repo_key_n);
}

/* ---- the exchange tells ---- */

static void on_gone(struct exchange *x)
{
    struct serve *s = x->user;
    op_close(&s->op, ERR_CLIENT_GONE);
}

static void on_finished(struct exchange *x)
{
    struct serve *s = x->user;
    respond_count(s);
    s->x = NULL;
    op_clear(&s->op, SERVE_O_SEND);
    op_run(&s->op);
}

/* ---- waiting for others ---- */

static void on_seat(struct flight_seat *seat)
{
    struct serve *s = CONTAINER_OF(seat, struct serve, seat);
    if (s->content.body != NULL && s->content.body->wake != NULL) {
        s->content.body->wake(s->content.body->wake_arg);
        return;
    }
    if (!op_expects(&s->op, SERVE_O_SEAT))
        return;
    op_clear(&s->op, SERVE_O_SEAT);
    op_run(&s->op);
}

static void on_pass(void *arg)
{
    struct serve *s = arg;
    if (s->content.body != NULL && s->content.body->wake != NULL) {
        s->content.body->wake(s->content.body->wake_arg);
        return;
    }
    if (!op_expects(&s->op, SERVE_O_PASS))
        return;
    op_clear(&s->op, SERVE_O_PASS);
    op_run(&s->op);
}

static void leave(struct serve *s)
{
    timer_disarm(&s->patience);
    flight_leave(&s->seat);
    if (op_expects(&s->op, SERVE_O_SEAT))
        op_clear(&s->op, SERVE_O_SEAT);
}

static enum step again(struct serve *s)
{
    leave(s);
    if (++s->rounds > ROUNDS_MAX)
        return respond_error(s, ERR_INTERNAL);
    return op_go(&s->op, SERVE_LOOKUP);
}

/* ---- asking ---- */

/* Of a check at that time. A time that lies ahead (the clock was set back) says nothing: the check counts as just over. */
static int64_t ttl_left(const struct serve *s, int64_t checked_ms)
{
    int64_t age = clock_wall_ms() - checked_ms;
    return age < 0 ? 0 : s->rule->policy.tag_ttl_ms - age;
}

/* What others have checked is checked again for this account. */
static int64_t tag_ttl_left(const struct serve *s, const struct store_tag *tag)
{
    int64_t left = ttl_left(s, tag->checked_ms);
    return tag->others && left > 0 ? 0 : left;
}

static bool never_moves(const struct serve *s)
{
    return conf_tag_immutable(&s->rule->policy, s->route.tag);
}

static enum step send_kept(struct serve *s)
{
    return respond_list(s, s->list->bytes, s->list->name, s->list->media, s->list->next, s->list->filtered);
}

/* A list that was kept and is still fresh. has_tag and ttl_ms say of the list what they say of a tag. */
static bool list_fresh(struct serve *s, const struct ask_what *w)
{
    char text[FLIGHT_KEY_MAX + 1];
    struct str key = STR_INIT(text);
    ask_key(w, &key);
    MUST(!key.cut);
    s->list = lists_get(s->px->shared->lists, str_span(&key));
    s->has_tag = s->list != NULL;
    if (s->list == NULL)
        return false;
    s->ttl_ms = ttl_left(s, s->list->checked_ms);
    if (s->ttl_ms <= 0)
        return false;
    s->result = RESULT_HIT;
    return true;
}

/* has_tag: there is something cached that may be served although it is stale. */
static bool stale_allowed(const struct serve *s)
{
    return s->has_tag && -s->ttl_ms < s->rule->policy.stale_if_error_ms;
}

/* Not the time to check it. */
static bool stale_for_now(struct serve *s, enum upstream_what what)
{
    if (!stale_allowed(s) || !upstream_is_down(s->setup, s->rule->upstream, s->rule->credential_set, what,
                                               &s->stale_err, &s->upstream_status)) {
        s->upstream_status = 0;
        return false;
    }
    s->result = RESULT_STALE;
    return true;
}

static void on_patience(struct timer *t)
{
    struct serve *s = CONTAINER_OF(t, struct serve, patience);
    on_seat(&s->seat);
}

static void be_patient(struct serve *s, int64_t ms)
{
    if (s->patience.fire == NULL)
        timer_init(&s->patience, on_patience);
    timer_arm(s->op.core, &s->patience, ms);
}

/* Upstream may be silent for long. The check goes on without this request. */
static bool waited_enough(const struct serve *s)
{
    return s->asked != ASK_STAT && stale_allowed(s) && s->patience.due == 0;
}

static enum step open_tag(struct serve *s);
static enum step pass_begin(struct serve *s, uint64_t length);

static enum step ask_failed(struct serve *s, const struct flight_failure *f)
{
    bool gone = f->status == 404 || f->status == 410;
    if (s->asked != ASK_STAT && stale_allowed(s) && (!gone || s->rule->policy.serve_on_404)) {
        s->result = RESULT_STALE;
        s->stale_err = f->err;
        s->upstream_status = f->status;
        return s->asked == ASK_LIST ? send_kept(s) : open_tag(s);
    }
    /* What upstream says of a blob is not enough to serve it for this repository: then its bytes decide. */
    if (f->err == ERR_UP_VAGUE && s->x->req.method == H1_GET) {
        bool here = store_get_object(s->px->reader, &s->digest, &s->record);
        return pass_begin(s, here ? s->record.size : LENGTH_UNKNOWN);
    }
    return respond_failure(s, f);
}

static struct join join_of(struct serve *s, bool (*recheck)(void *arg))
{
    s->seat.wake = on_seat;
    return (struct join){.px = s->px, .seat = &s->seat, .recheck = recheck, .arg = s};
}

/* flight_join's second look, under the table's lock. */
static bool answered_by_now(void *arg)
{
    struct serve *s = arg;
    struct store_tag tag;
    struct store_link link;
    struct store_object object;
    if (s->asked == ASK_LIST) /* the worst is one more request for a list */
        return false;
    bool by_tag = s->route.digest.alg == DIGEST_NONE;
    if (by_tag && (!store_get_tag(s->px->reader, repo_key(s), s->route.tag, &tag) ||
                   (tag_ttl_left(s, &tag) <= 0 && !never_moves(s))))
        return false;
    const struct digest *d = by_tag ? &tag.digest : &s->route.digest;
    return !s->damaged && store_get_object(s->px->reader, d, &object) &&
           store_get_link(s->px->reader, repo_key(s), d, &link) &&
           (s->kind == KIND_BLOB || link.media[0] != 0);
}

static enum step ask(struct serve *s, enum ask_kind kind)
{
    struct ask_what w = {.kind = kind,
                         .setup = s->setup,
                         .up = s->rule->upstream,
                         .set = s->rule->credential_set,
                         .repo = span_of(s->repo, s->repo_n),
                         .repo_key = repo_key(s),
                         .tag = s->route.tag,
                         .digest = s->route.digest,
                         .manifest = s->kind == KIND_MANIFEST,
                         .referrers = s->kind == KIND_REFERRERS,
                         .query = kind == ASK_LIST ? s->route.query : SPAN_NONE,
                         .negative_ttl_ms = s->rule->policy.negative_ttl_ms};
    if (kind == ASK_MANIFEST && s->has_tag)
        w.known = s->tag.digest;
    s->asked = kind;
    if (kind == ASK_LIST && (list_fresh(s, &w) || stale_for_now(s, WHAT_LIST)))
        return send_kept(s);
    w.kept = kind != ASK_STAT && stale_allowed(s);
    struct join j = join_of(s, answered_by_now);
    j.anew = !w.kept; /* the pause after a failure is for those who have something meanwhile */
    switch (join_ask(&j, &w)) {
    case JOINED_LATELY:
        return ask_failed(s, &j.lately);
    case JOINED_NONE:
    case JOINED_FOUND: /* another core's flight has ended since we looked */
        return again(s);
    case JOINED_SEAT:
        s->collapsed = true;
        break;
    case JOINED_LEAD:
        break;
    }
    if (w.kept)
        be_patient(s, health_in_trouble(s->setup, w.up) ? PATIENCE_TROUBLE_MS : PATIENCE_MS);
    return op_go(&s->op, SERVE_ASK);
}

static enum step step_ask(struct serve *s)
{
    enum flight_state state = flight_seen(&s->seat);
    if (state == FLIGHT_FAILED) {
        struct flight_failure f = *flight_failure(&s->seat);
        leave(s);
        return ask_failed(s, &f);
    }
    if (state != FLIGHT_VERIFIED && state != FLIGHT_DONE && waited_enough(s)) {
        leave(s);
        return ask_failed(s, &(struct flight_failure){.err = ERR_UP_TIMEOUT, .retry_after_ms = -1});
    }
    if (state != FLIGHT_VERIFIED && state != FLIGHT_DONE)
        return op_wait(&s->op, SERVE_O_SEAT);
    const struct flight_answer *a = flight_answer(&s->seat);
    s->result = s->collapsed ? RESULT_COLLAPSED : RESULT_MISS;
    if (s->asked == ASK_LIST)
        return respond_list(s, span_of(a->bytes, a->n), a->name, span_str(a->media), span_str(a->next),
                            a->filtered);
    if (s->asked == ASK_STAT) {
        s->linked = a->proved;
        s->told = true;
        s->told_length = a->length;
        if (s->kind == KIND_BLOB && s->x->req.method == H1_HEAD &&
            !store_get_object(s->px->reader, &s->digest, &s->record))
            return respond_stat(s, a);
        if (a->media[0] != 0)
            memcpy(s->link.media, a->media, sizeof s->link.media);
        return again(s);
    }
    if (a->stored) {
        if (state != FLIGHT_DONE) /* the index says so, too, when it is done */
            return op_wait(&s->op, SERVE_O_SEAT);
        s->result = RESULT_REVALIDATED;
        s->tag.digest = a->digest;
        memcpy(s->tag.media, a->media, sizeof s->tag.media);
        leave(s);
        return open_tag(s);
    }
    s->digest = a->digest;
    s->unkept = a->unkept;
    s->content =
        (struct content){.bytes = span_of(a->bytes, a->n), .length = a->n, .media = span_str(a->media)};
    return respond_content(s);
}

/* ---- opening what is stored ---- */

static void on_open(struct open_wait *w)
{
    struct serve *s = CONTAINER_OF(w, struct serve, open);
    op_clear(&s->op, SERVE_O_OPEN);
    op_run(&s->op);
}

static void on_fixed(struct damaged *d)
{
    struct serve *s = CONTAINER_OF(d, struct serve, put_away);
    op_clear(&s->op, SERVE_O_FIX);
    op_run(&s->op);
}

/* The file is not what the index says: put it away, forget the object, and go on as with a miss. */
static enum step open_damaged(struct serve *s)
{
    s->damaged = true;
    op_expect(&s->op, SERVE_O_FIX);
    damaged_put_away(&s->put_away, s->px, &s->digest, &s->record, on_fixed);
    (void)again(s);
    return STEP_WAIT;
}

static enum step opened(struct serve *s)
{
    store_touch(s->px->reader, &s->digest, core_now(s->op.core));
    return respond_object(s);
}

static enum open_how how_to_open(const struct serve *s)
{
    if (s->kind == KIND_MANIFEST)
        return OPEN_VERIFIED;
    return s->record.size <= OPEN_HELD_MAX ? OPEN_HELD : OPEN_FILE;
}

/* s->digest, s->record, s->link are set. */
static enum step open_object(struct serve *s)
{
    (void)op_go(&s->op, SERVE_OPEN);
    s->open = (struct open_wait){.done = on_open};
    switch (open_get(s->px->open, &s->digest, &s->record, how_to_open(s), &s->open, &s->object)) {
    case OPEN_OK:
        return opened(s);
    case OPEN_WAIT:
        return op_wait(&s->op, SERVE_O_OPEN);
    case OPEN_GONE:
        break;
    }
    return open_damaged(s);
}

static enum step step_open(struct serve *s)
{
    if (op_expects(&s->op, SERVE_O_OPEN))
        return STEP_WAIT;
    s->object = s->open.object;
    if (s->object != NULL)
        return opened(s);
    return s->open.err != 0 ? respond_error(s, s->open.err) : open_damaged(s);
}

/* The digest that the index has for the tag. */
static enum step open_tag(struct serve *s)
{
    s->digest = s->tag.digest;
    memcpy(s->link.media, s->tag.media, sizeof s->link.media);
    if (store_get_object(s->px->reader, &s->digest, &s->record))
        return open_object(s);
    s->has_tag = false; /* the tag is known, its manifest is gone: ask for all of it */
    if (s->result == RESULT_STALE)
        return respond_failure(s, &(struct flight_failure){.err = s->stale_err,
                                                           .status = s->upstream_status,
                                                           .retry_after_ms = -1});
    if (++s->rounds > ROUNDS_MAX)
        return respond_error(s, ERR_INTERNAL);
    return ask(s, ASK_MANIFEST);
}

/* ---- looking up ---- */

static enum step lookup_digest(struct serve *s);

/* A tag that never moves and is known is another name of its digest: the registry is not asked about it, and what the store has lost is
 * fetched by the digest. */
static bool is_immutable(struct serve *s)
{
    if (!never_moves(s) || !store_get_tag(s->px->reader, repo_key(s), s->route.tag, &s->tag))
        return false;
    s->route.digest = s->tag.digest;
    s->route.tag = SPAN_NONE;
    return true;
}

static enum step lookup_tag(struct serve *s)
{
    if (is_immutable(s))
        return lookup_digest(s);
    s->has_tag = !s->damaged && store_get_tag(s->px->reader, repo_key(s), s->route.tag, &s->tag);
    if (!s->has_tag)
        return ask(s, ASK_MANIFEST);
    s->ttl_ms = tag_ttl_left(s, &s->tag);
    if (s->ttl_ms > 0) {
        s->result = RESULT_HIT;
        return open_tag(s);
    }
    if (!store_get_object(s->px->reader, &s->tag.digest, &s->record)) {
        s->has_tag = false; /* its manifest is gone: there is nothing that could be stale */
        return ask(s, ASK_MANIFEST);
    }
    return stale_for_now(s, WHAT_MANIFEST) ? open_tag(s) : ask(s, ASK_MANIFEST);
}

/* flight_join's second look, under the table's lock. */
static bool stored_by_now(void *arg)
{
    struct serve *s = arg;
    return store_get_object(s->px->reader, &s->digest, &s->record);
}

static enum step join(struct serve *s)
{
    struct fetch_what w = {.setup = s->setup,
                           .rule = s->rule,
                           .repo = span_of(s->repo, s->repo_n),
                           .repo_key = repo_key(s),
                           .digest = s->digest,
                           .apart = s->apart};
    struct join j = join_of(s, stored_by_now);
    j.only_join = s->x->req.method != H1_GET;
    switch (join_fetch(&j, &w)) {
    case JOINED_LATELY:
        return respond_failure(s, &j.lately);
    case JOINED_NONE:
        return ask(s, ASK_STAT);
    case JOINED_FOUND:
        return again(s);
    case JOINED_LEAD:
        s->lead = true;
        return op_go(&s->op, SERVE_JOIN);
    case JOINED_SEAT:
        s->collapsed = true;
        s->lead = false;
        foreign_begin(&s->wait, &s->seat, core_now(s->op.core));
        s->verified = flight_seen(&s->seat) == FLIGHT_VERIFIED;
        break;
    }
    if (!s->linked && !s->told && !span_eq(flight_repo(&s->seat), repo_key(s))) {
        leave(s); /* it is fetched from another repository: does ours have it, too? */
        return ask(s, ASK_STAT);
    }
    return op_go(&s->op, SERVE_JOIN);
}

static enum step lookup_digest(struct serve *s)
{
    s->digest = s->route.digest;
    if (!s->linked)
        s->linked = store_get_link(s->px->reader, repo_key(s), &s->digest, &s->link);
    bool stored = store_get_object(s->px->reader, &s->digest, &s->record);
    bool blob = s->kind == KIND_BLOB;
    if (stored && s->linked && (blob || s->link.media[0] != 0)) {
        if (s->result == RESULT_NONE)
            s->result = RESULT_HIT;
        return open_object(s);
    }
    if (!blob)
        return ask(s, stored && !s->linked ? ASK_STAT : ASK_MANIFEST);
    return stored ? ask(s, ASK_STAT) : join(s);
}

static enum step step_lookup(struct serve *s)
{
    if (s->rounds == 0) /* what an earlier round has found counts in later ones */
        s->version = store_version(s->px->shared->store);
    if (op_expects(&s->op, SERVE_O_FIX))
        return STEP_WAIT;
    if (s->kind == KIND_MANIFEST && s->route.digest.alg == DIGEST_NONE)
        return lookup_tag(s);
    return lookup_digest(s);
}

/* ---- a blob that cannot be stored ---- */

static void pass_prepare(struct serve *s)
{
    s->unkept = true;
    s->alone = (struct pass_what){.px = s->px,
                                  .setup = s->setup,
                                  .rule = s->rule,
                                  .repo = span_of(s->repo, s->repo_n),
                                  .digest = s->digest};
}

/* From the beginning, on our own. The length is known if the blob is here for another repository. */
static enum step pass_begin(struct serve *s, uint64_t length)
{
    struct hasher fresh;
    struct pass_part all = {.from = 0, .end = UINT64_MAX, .length = length, .upto = &fresh};
    leave(s);
    pass_prepare(s);
    s->collapsed = false;
    hasher_init(&fresh, (enum digest_alg)s->digest.alg);
    s->content = (struct content){.pass = pass_start(&s->alone, &all, on_pass, s)};
    return op_go(&s->op, SERVE_PASS);
}

static enum step pass_failed(struct serve *s, struct flight_failure f)
{
    content_pass_end(&s->content);
    if (f.err == ERR_BLOB_UNKNOWN) {
        char key[FLIGHT_KEY_MAX];
        struct str k = STR_INIT(key);
        fetch_verdict_key(repo_key(s), &s->digest, &k);
        verdict_put(s->px->shared->verdicts, str_span(&k), &f, s->rule->policy.negative_ttl_ms,
                    s->rule->policy.negative_ttl_ms);
    }
    return respond_failure(s, &f);
}

static enum step step_pass(struct serve *s)
{
    struct pass *p = s->content.pass;
    if (pass_failure(p) != NULL)
        return pass_failed(s, *pass_failure(p));
    uint64_t length = pass_length(p);
    if (!pass_headed(p) || (length <= FLIGHT_TAIL && !pass_verified(p))) /* as in step_join */
        return op_wait(&s->op, SERVE_O_PASS);
    s->result = RESULT_MISS;
    s->content = (struct content){.pass = p, .alone = &s->alone, .length = length, .media = TYPE_BLOB};
    return respond_content(s);
}

/* ---- a blob on its way ---- */

/* Is what the flight that was left has brought here, and what our upstream has, too? */
static bool brought_after_all(const struct serve *s)
{
    struct store_object here;
    return store_get_object(s->px->reader, &s->digest, &here) &&
           (s->linked || (s->told && s->told_length == here.size));
}

static enum step join_failed(struct serve *s)
{
    struct flight_failure f = *flight_failure(&s->seat);
    if (f.err == ERR_STORE)
        return pass_begin(s, LENGTH_UNKNOWN);
    bool ours = span_eq(flight_repo(&s->seat), repo_key(s));
    bool another = f.err == ERR_UP_DIGEST && s->rounds + 1 < s->rule->upstream->n_endpoints;
    if ((!ours || another || f.err == ERR_CLIENT_GONE) && s->rounds < ROUNDS_MAX)
        return again(s);
    if (s->apart && s->rounds < ROUNDS_MAX && brought_after_all(s)) {
        s->linked = true;
        return again(s);
    }
    if (!ours && s->x->req.method == H1_GET)
        return pass_begin(s, LENGTH_UNKNOWN); /* what others' upstreams say is no answer */
    leave(s);
    return respond_failure(s, &f);
}

/* Fetched from another repository, and what upstream told of ours is not even the same length: our repository's own bytes decide. */
static bool not_ours(const struct serve *s, uint64_t length)
{
    return !s->linked && !span_eq(flight_repo(&s->seat), repo_key(s)) &&
           (length == FLIGHT_UNKNOWN || length != s->told_length);
}

/* What a range is cannot be said before the length is known, and if upstream does not say that, only when all is here. That is waited for as
 * long as a head may take; after that the client gets the whole instead. Whoever wants the whole has nothing of it before the tail is
 * full: until then it may turn out that there is nothing, or something else. For how long still, in ms. */
static int64_t wait_for_length(const struct serve *s)
{
    const struct exchange *x = s->x;
    bool range = h1_get(&x->req, SPAN("range")).p != NULL;
    if (x->req.method != H1_GET || (!range && flight_front(&s->seat) > FLIGHT_TAIL))
        return 0;
    return s->rule->upstream->timeouts.first_byte_ms - (clock_mono_ns() - x->began_ns) / 1000000;
}

/* The flight is another registry's, and stands still: ours is asked. */
static enum step join_apart(struct serve *s)
{
    foreign_shun(s->px, &s->seat, &s->digest);
    leave(s);
    s->apart = true;
    return s->x->req.method == H1_GET ? join(s) : ask(s, ASK_STAT);
}

/* For the seat's news, `most` ms at most. */
static enum step wait_seat(struct serve *s, int64_t most)
{
    int64_t left = foreign_patience(&s->wait, &s->seat, s->setup, s->rule, core_now(s->op.core));
    if (left == 0)
        return join_apart(s);
    if (left < most)
        most = left;
    if (most < INT64_MAX)
        be_patient(s, most);
    return op_wait(&s->op, SERVE_O_SEAT);
}

static enum step step_join(struct serve *s)
{
    enum flight_state state = flight_seen(&s->seat);
    if (state == FLIGHT_FAILED)
        return join_failed(s);
    if (state == FLIGHT_BUSY)
        return wait_seat(s, INT64_MAX);
    uint64_t length = flight_length(&s->seat);
    if (not_ours(s, length))
        return pass_begin(s, length == FLIGHT_UNKNOWN ? LENGTH_UNKNOWN : length);
    /* An object that is all tail can wait for its verdict: a bad one gets a status instead of a short body. */
    if (state == FLIGHT_HEAD && length <= FLIGHT_TAIL)
        return wait_seat(s, INT64_MAX);
    int64_t left = state == FLIGHT_HEAD && length == FLIGHT_UNKNOWN ? wait_for_length(s) : 0;
    if (left > 0)
        return wait_seat(s, left);
    timer_disarm(&s->patience);
    if (state == FLIGHT_UNKEPT && length <= FLIGHT_TAIL)
        return pass_begin(s, LENGTH_UNKNOWN);
    pass_prepare(s); /* also later its flight may end unkept, or be of no use any more */
    s->unkept = state == FLIGHT_UNKEPT;
    s->result = s->lead ? RESULT_MISS : s->verified ? RESULT_HIT : RESULT_COLLAPSED;
    s->content = (struct content){.seat = &s->seat,
                                  .shared = !span_eq(flight_repo(&s->seat), repo_key(s)),
                                  .alone = &s->alone,
                                  .length = length,
                                  .media = TYPE_BLOB};
    return respond_content(s);
}

/* ---- the beginning ---- */

static enum proxy_kind kind_of(enum route_kind kind)
{
    switch (kind) {
    case ROUTE_PING:
        return KIND_PING;
    case ROUTE_MANIFEST:
        return KIND_MANIFEST;
    case ROUTE_BLOB:
        return KIND_BLOB;
    case ROUTE_TAGS:
        return KIND_TAGS;
    case ROUTE_REFERRERS:
        return KIND_REFERRERS;
    default:
        return KIND_OTHER;
    }
}

static int fault_err(const struct exchange *x)
{
    switch (x->fault) {
    case 408:
        return ERR_REQUEST_TIMEOUT;
    case 414:
        return ERR_URI_TOO_LONG;
    case 431: /* clients that ask for many ranges at once know from a 400 that they have to ask for fewer */
        return h1_count(&x->req, SPAN("range")) > 0 ? ERR_RANGES : ERR_HEAD_TOO_LARGE;
    default:
        return ERR_BAD_REQUEST;
    }
}

/* A name that has two meanings is not guessed at: the wrong one may be somebody else's repository. */
static int match_rule(struct serve *s)
{
    struct str repo = STR_INIT(s->repo), key = STR_INIT(s->repo_key);
    s->by_source = s->route.ns.n > 0 && s->conf->mirror;
    const struct conf_rule *rule = proxy_match(s->conf, s->route.ns, s->route.name, &repo, &key);
    struct span found = rule != NULL ? str_span(&repo) : SPAN_NONE;
    if (s->by_source && conf_names_target(s->conf, s->route.ns, s->route.name, found))
        return ERR_NAME_PREFIXED;
    if (rule == NULL)
        return ERR_NAME_UNKNOWN;
    s->rule = rule;
    s->repo_n = repo.n;
    s->repo_key_n = key.n;
    return 0;
}

static enum step step_route(struct serve *s)
{
    struct exchange *x = s->x;
    if (x->fault != 0)
        return respond_error(s, fault_err(x));
    int err = route_parse(x->req.target, s->scratch, &s->route);
    s->kind = kind_of(s->route.kind);
    if (x->req.method == H1_OTHER)
        return respond_error(s, ERR_METHOD);
    if (err != 0)
        return respond_error(s, err);
    if (s->route.kind == ROUTE_UPLOAD)
        return respond_error(s, ERR_METHOD);
    if (s->route.kind == ROUTE_PING)
        return respond_ping(s);
    if (s->route.query.n > FLIGHT_QUERY_MAX)
        return respond_error(s, ERR_URI_TOO_LONG);
    err = match_rule(s);
    if (err != 0)
        return respond_error(s, err);
    if (s->kind == KIND_TAGS || s->kind == KIND_REFERRERS)
        return ask(s, ASK_LIST);
    return op_go(&s->op, SERVE_LOOKUP);
}

/* ---- the end ---- */

struct link_change {
    struct store_change change;
    struct serve *serve;
};

static void on_linked(struct store_change *c)
{
    struct link_change *l = CONTAINER_OF(c, struct link_change, change);
    struct serve *s = l->serve;
    mem_free(l);
    op_clear(&s->op, SERVE_O_LINK);
    op_run(&s->op);
}

static void put_link(struct serve *s)
{
    struct link_change *l;
    NEW(l);
    l->serve = s;
    l->change.what = CHANGE_PUT_LINK;
    l->change.digest = s->digest;
    memcpy(l->change.repo, repo_key(s).p, repo_key(s).n);
    op_expect(&s->op, SERVE_O_LINK);
    store_apply(s->px->shared->store, s->op.core, &l->change, on_linked);
}

/* Another repository's transfer has brought what upstream said that ours has, too: as long, and good. Once it is stored it is here for ours
 * as well, also when upstream is not there to be asked. */
static enum step step_link(struct serve *s)
{
    struct store_object object;
    struct store_link link;
    if (op_expects(&s->op, SERVE_O_LINK))
        return STEP_WAIT;
    bool brought = s->content.shared && s->told && s->op.closing == 0;
    if (brought && flight_seen(&s->seat) == FLIGHT_VERIFIED)
        return op_wait(&s->op, SERVE_O_SEAT);
    if (op_expects(&s->op, SERVE_O_SEAT)) /* it closes */
        op_clear(&s->op, SERVE_O_SEAT);
    if (!brought || flight_seen(&s->seat) != FLIGHT_DONE ||
        !store_get_object(s->px->reader, &s->digest, &object) ||
        store_get_link(s->px->reader, repo_key(s), &s->digest, &link))
        return op_go(&s->op, SERVE_END);
    put_link(s);
    return STEP_WAIT;
}

/* ---- the operation ---- */

static void serve_drop(struct serve *s)
{
    leave(s);
    open_cancel(&s->open);
    if (op_expects(&s->op, SERVE_O_OPEN))
        op_clear(&s->op, SERVE_O_OPEN);
    if (op_expects(&s->op, SERVE_O_PASS))
        op_clear(&s->op, SERVE_O_PASS);
    content_pass_end(&s->content);
    struct exchange *x = s->x;
    s->x = NULL;
    if (x != NULL)
        exchange_drop(x);
}

static enum step serve_step(struct op *op)
{
    struct serve *s = CONTAINER_OF(op, struct serve, op);
    if (op->closing != 0 && op->state < SERVE_SEND) {
        serve_drop(s);
        return op_go(op, SERVE_END);
    }
    switch ((enum serve_state)op->state) {
    case SERVE_ROUTE:
        return step_route(s);
    case SERVE_LOOKUP:
        return step_lookup(s);
    case SERVE_ASK:
        return step_ask(s);
    case SERVE_OPEN:
        return step_open(s);
    case SERVE_JOIN:
        return step_join(s);
    case SERVE_PASS:
        return step_pass(s);
    case SERVE_SEND:
        if (op_expects(op, SERVE_O_SEND))
            return STEP_WAIT;
        return op_go(op, SERVE_LINK);
    case SERVE_LINK:
        return step_link(s);
    case SERVE_END:
        break;
    }
    return STEP_END;
}

static void serve_free(struct op *op)
{
    struct serve *s = CONTAINER_OF(op, struct serve, op);
    MUST(s->x == NULL);
    leave(s);
    content_pass_end(&s->content);
    if (s->object != NULL)
        open_put(s->px->open, s->object);
    lists_release(s->list);
    struct proxy *px = s->px;
    setup_release(px, s->setup);
    if (px->n_serves >= SERVES_KEPT) {
        mem_free(s);
        return;
    }
    list_push_front(&px->serves, &s->op.node);
    px->n_serves++;
}

static struct serve *serve_take(struct proxy *px)
{
    struct list_node *n = list_pop_front(&px->serves);
    if (n == NULL)
        return mem_alloc(sizeof(struct serve));
    px->n_serves--;
    return CONTAINER_OF(n, struct serve, op.node);
}

void serve_forget(struct proxy *px)
{
    struct list_node *n;
    while ((n = list_pop_front(&px->serves)) != NULL)
        mem_free(CONTAINER_OF(n, struct serve, op.node));
    px->n_serves = 0;
}

static const char *serve_state_name(unsigned state)
{
    static const char *const names[] = {"route", "lookup", "ask",  "open", "join",
                                        "pass",  "send",   "link", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static const struct op_class serve_class = {"serve", serve_step, serve_free, serve_state_name, NULL};

void serve_request(struct exchange *x, void *arg)
{
    struct proxy *px = arg;
    struct serve *s = serve_take(px);
    memset(s, 0, offsetof(struct serve, put_away));
    op_init(&s->op, px->core, &serve_class, SERVE_ROUTE);
    s->px = px;
    s->setup = setup_hold(px, px->setup);
    s->conf = setup_conf(s->setup);
    s->x = x;
    s->kind = KIND_OTHER;
    s->result = RESULT_NONE;
    x->user = s;
    x->gone = on_gone;
    x->finished = on_finished;
    op_run(&s->op);
}
