/* Serving one client request.
 *
 *   ROUTE    parse, match a rule                            -> LOOKUP | ASK (lists) | SEND (errors, ping)
 *   LOOKUP   what does the index say?                       -> OPEN (have it) | ASK (must ask upstream) | JOIN (a blob that
 *                                                              is not here)
 *   ASK      seated in an answer flight                     -> LOOKUP (linked now) | OPEN (confirmed, or stale) | SEND
 *   OPEN     the object's file is being opened              -> SEND | LOOKUP (it was damaged: a miss)
 *   JOIN     seated in a stream flight, no head yet         -> SEND | LOOKUP (fetched for another repository, in vain)
 *   SEND     the answer is going out                        -> END
 *   END
 *
 * LOOKUP may be entered several times, bounded by ROUNDS_MAX. What the answer says about the cache (Cache-Status, log,
 * counters) is decided where the bytes are found, in one place each: `result`.
 *
 * The seat, the open object and everything that a body borrows belong to this struct, which lives until the exchange has
 * finished. */
#include <sys/random.h>

#include "base/mem.h"
#include "proxy/proxy_int.h"
#include "registry/error.h"
#include "registry/link.h"
#include "registry/name.h"
#include "registry/tags.h"

#define ROUNDS_MAX 4
#define QUERY_MAX  1536
#define TYPE_BLOB  SPAN("application/octet-stream")

enum serve_state { SERVE_ROUTE, SERVE_LOOKUP, SERVE_ASK, SERVE_OPEN, SERVE_JOIN, SERVE_SEND, SERVE_END };

#define SERVE_O_SEAT 1u
#define SERVE_O_OPEN 2u
#define SERVE_O_SEND 4u
#define SERVE_O_FIX  8u /* a damaged object is put away, and the index told */

struct serve {
    struct op op;
    struct proxy *px;
    struct conf *conf;
    struct exchange *x; /* NULL: finished or dropped */
    struct route route;
    const struct conf_rule *rule;
    enum proxy_kind kind;
    enum proxy_result result;
    int err;                  /* of an error answer */
    unsigned upstream_status; /* for Cache-Status */
    int stale_err;            /* why a stale answer is stale */
    int64_t ttl_ms;           /* of a tag: what is left, negative when stale */
    unsigned rounds;
    bool collapsed, linked, lead;
    bool damaged;           /* what the index named was not good: what it says of a tag is no use */
    bool by_source;         /* the rule was found by ?ns= */
    bool verified;          /* when it joined, all bytes were here and right: a hit */
    struct list_kept *list; /* a reference: what was kept of a list */
    enum ask_kind asked;

    struct digest digest; /* what is served */
    struct flight_failure lately;
    struct store_tag tag;
    bool has_tag;
    struct store_object record;
    struct store_link link;
    struct open_object *object;
    struct open_wait open;
    struct flight_seat seat;
    struct content content;
    struct job put_away;
    struct store_change fix;

    char repo[NAME_REPO_MAX + 1];
    char repo_key[REPO_KEY_MAX];
    size_t repo_n, repo_key_n;
    char scratch[ROUTE_TARGET_MAX];
};

static struct span repo_key(const struct serve *s)
{
    return span_of(s->repo_key, s->repo_key_n);
}

/* ---- counting and logging ---- */

const char *const proxy_kind_name[KINDS] = {"ping", "manifest", "blob", "tags", "referrers", "other"};
const char *const proxy_result_name[RESULTS] = {"hit",   "miss",  "collapsed", "revalidated",
                                                "stale", "error", "none"};
const int64_t latency_bound_us[LATENCY_BUCKETS] = {100,   250,   500,    1000,    2500,     5000,
                                                   10000, 50000, 250000, 1000000, 10000000, 60000000};

static void add(_Atomic int64_t *n, int64_t v)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + v, memory_order_relaxed);
}

static void latency_add(struct latency *l, int64_t us)
{
    unsigned i = 0;
    while (i < LATENCY_BUCKETS && us > latency_bound_us[i])
        i++;
    add(&l->bucket[i], 1);
    add(&l->sum_us, us);
}

static void serve_count(struct serve *s)
{
    struct proxy_stats *st = s->px->stats;
    const struct exchange *x = s->x;
    unsigned rule = s->rule != NULL ? s->rule->index : (unsigned)s->conf->n_rules;
    add(&st->requests[rule][s->kind][s->result], 1);
    int64_t now = clock_mono_ns();
    latency_add(&st->first_byte, (x->headed_ns - x->began_ns) / 1000);
    latency_add(&st->total, (now - x->began_ns) / 1000);
    if (!s->conf->log_access)
        return;
    char peer[64];
    struct str p = STR_INIT(peer);
    exchange_peer(x, &p);
    log_info(
        "access", "request", LOG_SP("client", str_span(&p)), LOG_SP("method", x->req.method_name),
        LOG_SP("target", x->req.target), LOG_U("status", x->status), LOG_U("bytes", x->sent),
        LOG_S("cache", proxy_result_name[s->result]),
        LOG_SP("rule", s->rule != NULL ? s->rule->name : SPAN_NONE), LOG_S("kind", proxy_kind_name[s->kind]),
        LOG_D("digest", s->digest.alg != DIGEST_NONE ? &s->digest : NULL),
        LOG_S("error", s->err != 0 ? err_name(s->err) : NULL), LOG_S("cut", x->complete ? NULL : x->why),
        LOG_MS("first_ms", (x->headed_ns - x->began_ns) / 1000), LOG_MS("ms", (now - x->began_ns) / 1000));
}

/* ---- Cache-Status (RFC 9211) ---- */

static const char *stale_word(int err)
{
    switch (err) {
    case ERR_UP_TIMEOUT:
        return "timeout";
    case ERR_UP_RESOLVE:
        return "unresolved";
    case ERR_UP_CONNECT:
        return "unreachable";
    case ERR_UP_CLOSED:
    case ERR_UP_SHORT:
        return "closed";
    default:
        return "invalid";
    }
}

static void add_ttl(struct str *out, int64_t ms)
{
    str_add(out, SPAN("; ttl="));
    str_addi(out, ms >= 0 ? ms / 1000 : -((-ms + 999) / 1000));
}

static void cache_status(struct serve *s, struct str *out)
{
    if (s->result == RESULT_NONE)
        return;
    str_add(out, SPAN("Cache-Status: larder"));
    switch (s->result) {
    case RESULT_HIT:
        str_add(out, SPAN("; hit"));
        if (s->has_tag)
            add_ttl(out, s->ttl_ms);
        break;
    case RESULT_STALE:
        str_add(out, SPAN("; hit"));
        add_ttl(out, s->ttl_ms);
        str_add(out, SPAN("; detail=stale-upstream-"));
        if (s->upstream_status != 0)
            str_addu(out, s->upstream_status);
        else
            str_addz(out, stale_word(s->stale_err));
        break;
    case RESULT_REVALIDATED:
        str_add(out, SPAN("; fwd=stale; fwd-status=200"));
        break;
    default:
        str_add(out, s->has_tag ? SPAN("; fwd=stale") : SPAN("; fwd=miss"));
        if (s->result == RESULT_ERROR && s->upstream_status != 0) {
            str_add(out, SPAN("; fwd-status="));
            str_addu(out, s->upstream_status);
        }
        break;
    }
    if (s->collapsed && s->result != RESULT_HIT && s->result != RESULT_STALE)
        str_add(out, SPAN("; collapsed"));
    if (s->result == RESULT_MISS || s->result == RESULT_COLLAPSED)
        str_add(out, s->asked == ASK_MANIFEST || s->kind == KIND_BLOB ? SPAN("; stored") : SPAN(""));
    str_add(out, SPAN("\r\n"));
}

/* ---- answers ---- */

static void on_gone(struct exchange *x)
{
    struct serve *s = x->user;
    op_close(&s->op, ERR_CLIENT_GONE);
}

static void on_finished(struct exchange *x)
{
    struct serve *s = x->user;
    serve_count(s);
    s->x = NULL;
    op_clear(&s->op, SERVE_O_SEND);
    op_run(&s->op);
}

static void begin(struct serve *s, unsigned status)
{
    exchange_begin(s->x, status);
    str_add(exchange_head(s->x), SPAN("Docker-Distribution-Api-Version: registry/2.0\r\n"));
    cache_status(s, exchange_head(s->x));
    if (s->by_source && s->rule != NULL)
        exchange_field(s->x, SPAN("OCI-Namespace"), s->rule->registry);
}

static enum step send_body(struct serve *s, uint64_t length, struct body *body, bool close)
{
    op_expect(&s->op, SERVE_O_SEND);
    (void)op_go(&s->op, SERVE_SEND);
    exchange_send(s->x, length, body, close);
    return STEP_MORE;
}

static enum step send_error_after(struct serve *s, int err, int64_t retry_after_ms)
{
    char text[ERROR_BODY_MAX], detail[200];
    struct str body = STR_INIT(text), d = STR_INIT(detail);
    s->err = err;
    if (s->rule != NULL) {
        str_add(&d, SPAN("rule "));
        str_add(&d, s->rule->name);
    }
    error_body(&body, err, d.n > 0 ? str_span(&d) : SPAN_NONE);
    begin(s, (unsigned)err_status(err));
    exchange_field(s->x, SPAN("Content-Type"), SPAN("application/json"));
    if (err == ERR_METHOD)
        exchange_field(s->x, SPAN("Allow"), SPAN("GET, HEAD"));
    if (retry_after_ms >= 0) {
        str_add(exchange_head(s->x), SPAN("Retry-After: "));
        str_addi(exchange_head(s->x), retry_after_ms < 1000 ? 1 : (retry_after_ms + 999) / 1000);
        str_add(exchange_head(s->x), SPAN("\r\n"));
    }
    return send_body(s, body.n, body_of_text(str_span(&body)), false);
}

static enum step send_error(struct serve *s, int err)
{
    return send_error_after(s, err, -1);
}

static enum step send_failure(struct serve *s, const struct flight_failure *f)
{
    s->result = RESULT_ERROR;
    s->upstream_status = f->status;
    return send_error_after(s, f->err, f->retry_after_ms);
}

static enum step send_ping(struct serve *s)
{
    begin(s, 200);
    exchange_field(s->x, SPAN("Content-Type"), SPAN("application/json"));
    return send_body(s, 2, body_of_text(SPAN("{}")), false);
}

/* ---- content: conditions, ranges, heads ---- */

static bool etag_listed(struct span list, const char *etag)
{
    struct span part;
    if (list.p == NULL)
        return false;
    while (span_next(&list, ',', &part)) {
        part = span_trim(part);
        if (span_starts(part, SPAN("W/")))
            part = span_from(part, 2);
        if (span_eq(part, SPAN("*")) || span_eq(part, span_str(etag)))
            return true;
    }
    return false;
}

enum ranges { RANGES_WHOLE, RANGES_PART, RANGES_BAD };

/* What the request's Range means for this length. */
static enum ranges serve_ranges(struct serve *s, const char *etag, struct range *out, size_t *n)
{
    const struct h1_head *req = &s->x->req;
    struct span header = h1_get(req, SPAN("range"));
    *n = 0;
    if (header.p == NULL || req->method != H1_GET || s->content.length == LENGTH_UNKNOWN)
        return RANGES_WHOLE;
    struct span condition = h1_get(req, SPAN("if-range"));
    if (condition.p != NULL && !span_eq(condition, span_str(etag)))
        return RANGES_WHOLE;
    struct range_spec *specs = mem_alloc(RANGE_MAX * sizeof *specs);
    size_t count = 0;
    enum range_parse parsed = range_parse(header, specs, RANGE_MAX, &count);
    for (size_t i = 0; parsed == RANGE_OK && i < count; i++) {
        if (range_resolve(&specs[i], s->content.length, &out[*n]))
            (*n)++;
    }
    mem_free(specs);
    if (parsed == RANGE_ABSENT)
        return RANGES_WHOLE;
    return parsed == RANGE_TOO_MANY || *n == 0 ? RANGES_BAD : RANGES_PART;
}

static void make_boundary(char out[BOUNDARY_LEN])
{
    unsigned char raw[BOUNDARY_LEN / 2];
    if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
        memset(raw, 0x5a, sizeof raw);
    char text[BOUNDARY_LEN + 1];
    struct str s = STR_INIT(text);
    str_addhex(&s, raw, sizeof raw);
    memcpy(out, text, BOUNDARY_LEN);
}

static void content_fields(struct serve *s, const char *digest, const char *etag)
{
    exchange_field(s->x, SPAN("Docker-Content-Digest"), span_str(digest));
    exchange_field(s->x, SPAN("ETag"), span_str(etag));
    exchange_field(s->x, SPAN("Accept-Ranges"), SPAN("bytes"));
}

static enum step send_unsatisfiable(struct serve *s)
{
    char text[ERROR_BODY_MAX];
    struct str body = STR_INIT(text);
    s->err = ERR_RANGE;
    error_body(&body, ERR_RANGE, SPAN_NONE);
    begin(s, 416);
    struct str *head = exchange_head(s->x);
    str_add(head, SPAN("Content-Type: application/json\r\nContent-Range: bytes */"));
    str_addu(head, s->content.length);
    str_add(head, SPAN("\r\n"));
    return send_body(s, body.n, body_of_text(str_span(&body)), false);
}

static void range_fields(struct serve *s, const struct range *r, size_t n, struct span boundary)
{
    struct str *head = exchange_head(s->x);
    if (n > 1) {
        str_add(head, SPAN("Content-Type: multipart/byteranges; boundary="));
        str_add(head, boundary);
        str_add(head, SPAN("\r\n"));
        return;
    }
    exchange_field(s->x, SPAN("Content-Type"), s->content.media);
    str_add(head, SPAN("Content-Range: bytes "));
    str_addu(head, r->off);
    str_addc(head, '-');
    str_addu(head, r->off + r->len - 1);
    str_addc(head, '/');
    str_addu(head, s->content.length);
    str_add(head, SPAN("\r\n"));
}

/* s->content, s->digest and s->result are set: answers with the content. */
static enum step send_content(struct serve *s)
{
    char digest[DIGEST_TEXT_MAX], etag[DIGEST_TEXT_MAX + 2], boundary[BOUNDARY_LEN];
    (void)digest_text(&s->digest, digest);
    struct str e = STR_INIT(etag);
    str_addc(&e, '"');
    str_addz(&e, digest);
    str_addc(&e, '"');
    if (etag_listed(h1_get(&s->x->req, SPAN("if-none-match")), etag)) {
        begin(s, 304);
        content_fields(s, digest, etag);
        return send_body(s, 0, NULL, false);
    }
    struct range one, *ranges = &one;
    size_t n = 0;
    bool ranged = h1_get(&s->x->req, SPAN("range")).p != NULL;
    if (ranged)
        ranges = mem_alloc(RANGE_MAX * sizeof *ranges);
    enum ranges what = ranged ? serve_ranges(s, etag, ranges, &n) : RANGES_WHOLE;
    enum step step;
    if (what == RANGES_BAD) {
        step = send_unsatisfiable(s);
    } else {
        uint64_t total;
        if (n > 1)
            make_boundary(boundary);
        begin(s, what == RANGES_PART ? 206 : 200);
        if (what == RANGES_PART)
            range_fields(s, ranges, n, span_of(boundary, BOUNDARY_LEN));
        else
            exchange_field(s->x, SPAN("Content-Type"), s->content.media);
        content_fields(s, digest, etag);
        struct body *body = content_body(&s->content, ranges, n, span_of(boundary, BOUNDARY_LEN), &total);
        step = send_body(s, total, body, false);
    }
    if (ranged)
        mem_free(ranges);
    return step;
}

static enum step send_object(struct serve *s)
{
    s->content = (struct content){.object = s->object,
                                  .length = s->object->size,
                                  .media = s->kind == KIND_BLOB ? TYPE_BLOB : span_str(s->link.media)};
    return send_content(s);
}

/* A HEAD for a blob that is not here: the head of the answer, whose body nobody will pull. */
static enum step send_stat(struct serve *s, const struct flight_answer *a)
{
    uint64_t length = a->length == FLIGHT_UNKNOWN ? LENGTH_UNKNOWN : a->length;
    s->content = (struct content){.bytes = SPAN(""), .length = length, .media = TYPE_BLOB};
    return send_content(s);
}

static void list_link(struct serve *s, struct span upstream_link)
{
    char path[NAME_REPO_MAX + 200], link[2400];
    struct str p = STR_INIT(path), l = STR_INIT(link);
    str_add(&p, SPAN("/v2/"));
    str_add(&p, s->route.name);
    if (s->kind == KIND_TAGS) {
        str_add(&p, SPAN("/tags/list"));
    } else {
        str_add(&p, SPAN("/referrers/"));
        digest_add(&p, &s->route.digest);
    }
    if (upstream_link.n > 0 && link_rewrite(upstream_link, str_span(&p), s->route.ns, &l))
        exchange_field(s->x, SPAN("Link"), str_span(&l));
}

static enum step send_list(struct serve *s, struct span doc, struct span media, struct span link,
                           bool filtered)
{
    struct span value;
    uint64_t n;
    begin(s, 200);
    exchange_field(s->x, SPAN("Content-Type"), media);
    list_link(s, link);
    if (filtered && s->kind == KIND_REFERRERS)
        exchange_field(s->x, SPAN("OCI-Filters-Applied"), SPAN("artifactType"));
    if (s->kind == KIND_TAGS && tags_read(doc, &value) && value.p != NULL) {
        size_t before =
            (size_t)(value.p - doc.p) + 1; /* our name for the repository between upstream's quotes */
        struct span parts[] = {span_sub(doc, 0, before), s->route.name, span_from(doc, before + value.n - 2)};
        struct body *body = pieces_body(parts, ARRAY_LEN(parts), &n);
        return send_body(s, n, body, false);
    }
    s->content = (struct content){.bytes = doc, .length = doc.n, .media = media};
    struct body *body = content_body(&s->content, NULL, 0, SPAN_NONE, &n);
    return send_body(s, n, body, false);
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

static void leave(struct serve *s)
{
    flight_leave(&s->seat);
    if (op_expects(&s->op, SERVE_O_SEAT))
        op_clear(&s->op, SERVE_O_SEAT);
}

static enum step again(struct serve *s)
{
    leave(s);
    if (++s->rounds > ROUNDS_MAX)
        return send_error(s, ERR_INTERNAL);
    return op_go(&s->op, SERVE_LOOKUP);
}

/* ---- asking ---- */

/* Of a check at that time. A time that lies ahead (the clock was set back) says nothing: the check counts as just over. */
static int64_t ttl_left(const struct serve *s, int64_t checked_ms)
{
    int64_t age = clock_wall_ms() - checked_ms;
    return age < 0 ? 0 : s->rule->policy.tag_ttl_ms - age;
}

static enum step send_kept(struct serve *s)
{
    return send_list(s, s->list->bytes, s->list->media, s->list->link, s->list->filtered);
}

/* A list that was kept and is still fresh. has_tag and ttl_ms say of the list what they say of a tag. */
static bool list_fresh(struct serve *s, struct span key)
{
    s->list = lists_get(s->px->shared->lists, key);
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

static enum step open_tag(struct serve *s);

static enum step ask_failed(struct serve *s, const struct flight_failure *f)
{
    bool gone = f->status == 404 || f->status == 410;
    if (s->asked != ASK_STAT && stale_allowed(s) && (!gone || s->rule->policy.serve_on_404)) {
        s->result = RESULT_STALE;
        s->stale_err = f->err;
        s->upstream_status = f->status;
        return s->asked == ASK_LIST ? send_kept(s) : open_tag(s);
    }
    return send_failure(s, f);
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
    if (by_tag &&
        (!store_get_tag(s->px->reader, repo_key(s), s->route.tag, &tag) || ttl_left(s, tag.checked_ms) <= 0))
        return false;
    const struct digest *d = by_tag ? &tag.digest : &s->route.digest;
    return !s->damaged && store_get_object(s->px->reader, d, &object) &&
           store_get_link(s->px->reader, repo_key(s), d, &link) &&
           (s->kind == KIND_BLOB || link.media[0] != 0);
}

static enum step ask(struct serve *s, enum ask_kind kind)
{
    struct ask_what w = {.kind = kind,
                         .up = s->rule->upstream,
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
    char key[FLIGHT_KEY_MAX + 1];
    struct str k = STR_INIT(key);
    ask_key(&w, &k);
    MUST(!k.cut);
    s->asked = kind;
    if (kind == ASK_LIST && list_fresh(s, str_span(&k)))
        return send_kept(s);
    struct flight_failure lately;
    if (verdict_get(s->px->shared->verdicts, str_span(&k), &lately))
        return ask_failed(s, &lately);
    s->seat.wake = on_seat;
    switch (flight_join(s->px->core, str_span(&k), repo_key(s), true, answered_by_now, s, &s->seat)) {
    case FLIGHT_LEAD:
        ask_lead(s->px, flight_of(&s->seat), &w);
        break;
    case FLIGHT_JOINED:
        s->collapsed = true;
        break;
    default: /* found: another core's flight has ended since we looked */
        return again(s);
    }
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
    if (state != FLIGHT_VERIFIED && state != FLIGHT_DONE)
        return op_wait(&s->op, SERVE_O_SEAT);
    const struct flight_answer *a = flight_answer(&s->seat);
    s->result = s->collapsed ? RESULT_COLLAPSED : RESULT_MISS;
    if (s->asked == ASK_LIST)
        return send_list(s, span_of(a->bytes, a->n), span_str(a->media), span_str(a->link), a->filtered);
    if (s->asked == ASK_STAT) {
        s->linked = true;
        if (s->kind == KIND_BLOB && s->x->req.method == H1_HEAD &&
            !store_get_object(s->px->reader, &s->digest, &s->record))
            return send_stat(s, a);
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
    s->content =
        (struct content){.bytes = span_of(a->bytes, a->n), .length = a->n, .media = span_str(a->media)};
    return send_content(s);
}

/* ---- opening what is stored ---- */

static void on_open(struct open_wait *w)
{
    struct serve *s = CONTAINER_OF(w, struct serve, open);
    op_clear(&s->op, SERVE_O_OPEN);
    op_run(&s->op);
}

static void on_fixed(struct store_change *c)
{
    struct serve *s = CONTAINER_OF(c, struct serve, fix);
    op_clear(&s->op, SERVE_O_FIX);
    op_run(&s->op);
}

static void put_away_work(struct job *j)
{
    struct serve *s = CONTAINER_OF(j, struct serve, put_away);
    store_quarantine(s->px->shared->store, &s->fix.digest);
}

static void on_put_away(struct job *j)
{
    struct serve *s = CONTAINER_OF(j, struct serve, put_away);
    store_apply(s->px->shared->store, s->op.core, &s->fix, on_fixed);
}

/* The file is not what the index says: put it away, forget the object, and go on as with a miss. */
static enum step open_damaged(struct serve *s)
{
    log_error("store", "object missing or damaged, fetching it again", LOG_D("digest", &s->digest));
    COUNT(core_counters(s->px->core), store_errors, 1);
    s->damaged = true;
    s->fix = (struct store_change){.what = CHANGE_DEL_OBJECT, .digest = s->digest};
    op_expect(&s->op, SERVE_O_FIX);
    job_start(s->op.core, &s->put_away, put_away_work, on_put_away);
    (void)again(s);
    return STEP_WAIT;
}

/* s->digest, s->record, s->link are set. */
static enum step open_object(struct serve *s)
{
    (void)op_go(&s->op, SERVE_OPEN);
    s->open = (struct open_wait){.done = on_open};
    switch (
        open_get(s->px->open, &s->digest, s->record.size, s->kind == KIND_MANIFEST, &s->open, &s->object)) {
    case OPEN_OK:
        return send_object(s);
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
        return send_object(s);
    return s->open.err != 0 ? send_error(s, s->open.err) : open_damaged(s);
}

/* The digest that the index has for the tag. */
static enum step open_tag(struct serve *s)
{
    s->digest = s->tag.digest;
    memcpy(s->link.media, s->tag.media, sizeof s->link.media);
    if (store_get_object(s->px->reader, &s->digest, &s->record))
        return open_object(s);
    if (s->result == RESULT_STALE)
        return send_error(s, s->stale_err);
    s->has_tag = false; /* the tag is known, its manifest is gone: ask for all of it */
    if (++s->rounds > ROUNDS_MAX)
        return send_error(s, ERR_INTERNAL);
    return ask(s, ASK_MANIFEST);
}

/* ---- looking up ---- */

static enum step lookup_tag(struct serve *s)
{
    s->has_tag = !s->damaged && store_get_tag(s->px->reader, repo_key(s), s->route.tag, &s->tag);
    if (!s->has_tag)
        return ask(s, ASK_MANIFEST);
    s->ttl_ms = ttl_left(s, s->tag.checked_ms);
    if (s->ttl_ms > 0) {
        s->result = RESULT_HIT;
        return open_tag(s);
    }
    if (upstream_is_down(s->px, s->rule->upstream, &s->stale_err, &s->upstream_status) && stale_allowed(s)) {
        s->result = RESULT_STALE;
        return open_tag(s);
    }
    s->upstream_status = 0;
    return ask(s, ASK_MANIFEST);
}

/* flight_join's second look, under the table's lock. */
static bool stored_by_now(void *arg)
{
    struct serve *s = arg;
    return store_get_object(s->px->reader, &s->digest, &s->record);
}

static enum step join(struct serve *s)
{
    char key[DIGEST_TEXT_MAX + 2];
    struct str k = STR_INIT(key);
    fetch_key(&s->digest, &k);
    s->seat.wake = on_seat;
    bool get = s->x->req.method == H1_GET;
    switch (flight_join(s->px->core, str_span(&k), repo_key(s), get, stored_by_now, s, &s->seat)) {
    case FLIGHT_NONE:
        return ask(s, ASK_STAT);
    case FLIGHT_FOUND:
        return again(s);
    case FLIGHT_LEAD:
        s->lead = true;
        (void)op_go(&s->op, SERVE_JOIN);
        fetch_lead(s->px, flight_of(&s->seat), s->rule->upstream, span_of(s->repo, s->repo_n), repo_key(s),
                   &s->digest, &s->rule->policy);
        return STEP_MORE;
    case FLIGHT_JOINED:
        s->collapsed = true;
        s->lead = false;
        s->verified = flight_seen(&s->seat) == FLIGHT_VERIFIED;
        break;
    }
    if (!s->linked && !span_eq(flight_repo(&s->seat), repo_key(s))) {
        leave(s); /* it is fetched from another repository: does ours have it, too? */
        return ask(s, ASK_STAT);
    }
    return op_go(&s->op, SERVE_JOIN);
}

/* Upstream said lately that this repository does not have it. */
static bool blob_unknown(struct serve *s)
{
    char key[FLIGHT_KEY_MAX];
    struct str k = STR_INIT(key);
    fetch_verdict_key(repo_key(s), &s->digest, &k);
    return verdict_get(s->px->shared->verdicts, str_span(&k), &s->lately);
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
    if (stored)
        return ask(s, ASK_STAT);
    return blob_unknown(s) ? send_failure(s, &s->lately) : join(s);
}

static enum step step_lookup(struct serve *s)
{
    if (op_expects(&s->op, SERVE_O_FIX))
        return STEP_WAIT;
    if (s->kind == KIND_MANIFEST && s->route.digest.alg == DIGEST_NONE)
        return lookup_tag(s);
    return lookup_digest(s);
}

/* ---- a blob on its way ---- */

static enum step join_failed(struct serve *s)
{
    struct flight_failure f = *flight_failure(&s->seat);
    bool ours = span_eq(flight_repo(&s->seat), repo_key(s));
    if ((!ours || f.err == ERR_CLIENT_GONE) && s->rounds < ROUNDS_MAX)
        return again(s);
    leave(s);
    return send_failure(s, &f);
}

static enum step step_join(struct serve *s)
{
    enum flight_state state = flight_seen(&s->seat);
    if (state == FLIGHT_FAILED)
        return join_failed(s);
    if (state == FLIGHT_BUSY)
        return op_wait(&s->op, SERVE_O_SEAT);
    uint64_t length = flight_length(&s->seat);
    /* An object that is all tail can wait for its verdict: a bad one gets a status instead of a short body. */
    if (state == FLIGHT_HEAD && length <= FLIGHT_TAIL)
        return op_wait(&s->op, SERVE_O_SEAT);
    s->result = s->lead ? RESULT_MISS : s->verified ? RESULT_HIT : RESULT_COLLAPSED;
    s->content = (struct content){.seat = &s->seat, .length = length, .media = TYPE_BLOB};
    return send_content(s);
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

static int fault_err(int fault)
{
    switch (fault) {
    case 408:
        return ERR_REQUEST_TIMEOUT;
    case 414:
        return ERR_URI_TOO_LONG;
    case 431:
        return ERR_HEAD_TOO_LARGE;
    default:
        return ERR_BAD_REQUEST;
    }
}

static bool match_rule(struct serve *s)
{
    struct str repo = STR_INIT(s->repo), key = STR_INIT(s->repo_key);
    s->by_source = s->route.ns.n > 0 && s->conf->mirror;
    if (s->by_source)
        s->rule = conf_match_source(s->conf, s->route.ns, s->route.name, &repo);
    else
        s->rule = conf_match_target(s->conf, s->route.name, &repo);
    if (s->rule == NULL)
        return false;
    str_add(&key, s->rule->registry);
    str_addc(&key, '/');
    str_add(&key, str_span(&repo));
    MUST(!repo.cut && !key.cut);
    s->repo_n = repo.n;
    s->repo_key_n = key.n;
    return true;
}

static enum step step_route(struct serve *s)
{
    struct exchange *x = s->x;
    if (x->fault != 0)
        return send_error(s, fault_err(x->fault));
    int err = route_parse(x->req.target, s->scratch, &s->route);
    s->kind = kind_of(s->route.kind);
    if (x->req.method == H1_OTHER)
        return send_error(s, ERR_METHOD);
    if (err != 0)
        return send_error(s, err);
    if (s->route.kind == ROUTE_UPLOAD)
        return send_error(s, ERR_METHOD);
    if (s->route.kind == ROUTE_PING)
        return send_ping(s);
    if (s->route.query.n > QUERY_MAX)
        return send_error(s, ERR_URI_TOO_LONG);
    if (!match_rule(s))
        return send_error(s, ERR_NAME_UNKNOWN);
    if (s->kind == KIND_TAGS || s->kind == KIND_REFERRERS)
        return ask(s, ASK_LIST);
    return op_go(&s->op, SERVE_LOOKUP);
}

/* ---- the operation ---- */

static void serve_drop(struct serve *s)
{
    leave(s);
    open_cancel(&s->open);
    if (op_expects(&s->op, SERVE_O_OPEN))
        op_clear(&s->op, SERVE_O_OPEN);
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
    case SERVE_SEND:
        if (op_expects(op, SERVE_O_SEND))
            return STEP_WAIT;
        return op_go(op, SERVE_END);
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
    if (s->object != NULL)
        open_put(s->px->open, s->object);
    lists_release(s->list);
    conf_unref(s->conf);
    mem_free(s);
}

static const char *serve_state_name(unsigned state)
{
    static const char *const names[] = {"route", "lookup", "ask", "open", "join", "send", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static const struct op_class serve_class = {"serve", serve_step, serve_free, serve_state_name, NULL};

void serve_request(struct exchange *x, void *arg)
{
    struct proxy *px = arg;
    struct serve *s = mem_alloc(sizeof *s);
    memset(s, 0, offsetof(struct serve, repo));
    op_init(&s->op, px->core, &serve_class, SERVE_ROUTE);
    s->px = px;
    s->conf = conf_ref(px->conf);
    s->x = x;
    s->kind = KIND_OTHER;
    s->result = RESULT_NONE;
    x->user = s;
    x->gone = on_gone;
    x->finished = on_finished;
    op_run(&s->op);
}
