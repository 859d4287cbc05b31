/* Answers: their heads (status, Cache-Status, conditions, ranges), error documents, lists, and what is counted and logged
 * of them. What is answered was decided in serve.c; nothing here waits. */
#include <sys/random.h>

#include "base/mem.h"
#include "proxy/refresh.h"
#include "proxy/serve_int.h"
#include "registry/error.h"
#include "registry/link.h"

/* ---- counting and logging ---- */

const char *const proxy_kind_name[KINDS] = {"ping", "manifest", "blob", "tags", "referrers", "other"};
const char *const proxy_result_name[RESULTS] = {"hit",   "miss",   "collapsed", "revalidated",
                                                "stale", "absent", "error",     "none"};
enum status_class status_class(unsigned status)
{
    static const enum status_class by_hundreds[] = {STATUS_NONE, STATUS_NONE, STATUS_2XX,
                                                    STATUS_3XX,  STATUS_4XX,  STATUS_5XX};
    if (status == 429)
        return STATUS_429;
    return status / 100 < ARRAY_LEN(by_hundreds) ? by_hundreds[status / 100] : STATUS_5XX;
}

const int64_t latency_bound_us[LATENCY_BUCKETS] = {100,     250,     500,      1000,     2500,
                                                   5000,    10000,   50000,    250000,   1000000,
                                                   2500000, 5000000, 10000000, 30000000, 60000000};

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

/* Everything about a finished request that is counted and logged. */
struct counted {
    struct proxy *px;
    struct setup *setup;
    const struct conf_rule *rule; /* NULL: none */
    enum proxy_kind kind;
    enum proxy_result result;
    struct span method, target;
    unsigned status;
    uint64_t sent;
    const struct digest *digest; /* NULL: none */
    int err;
    const char *cut; /* NULL: all of it went out */
    int64_t first_us, total_us;
};

/* The fields of its log record that are the same when it is answered in the same bytes. */
#define SAME_FIELDS(c)                                                                                       \
    LOG_SP("method", (c)->method), LOG_SP("target", (c)->target), LOG_U("status", (c)->status),              \
        LOG_S("cache", proxy_result_name[(c)->result]),                                                      \
        LOG_SP("rule", (c)->rule != NULL ? (c)->rule->name : SPAN_NONE),                                     \
        LOG_S("kind", proxy_kind_name[(c)->kind]), LOG_D("digest", (c)->digest),                             \
        LOG_S("error", (c)->err != 0 ? err_name((c)->err) : NULL)

static void count(const struct counted *c)
{
    struct proxy_stats *st = c->px->stats;
    size_t rule = c->rule != NULL ? c->rule->index : setup_conf(c->setup)->n_rules;
    add(&setup_rule_counts(c->setup, rule, c->px->index)->n[c->kind][c->result], 1);
    add(&st->statuses[status_class(c->status)], 1);
    latency_add(&st->first_byte, c->first_us);
    latency_add(&st->total, c->total_us);
}

void respond_count(struct serve *s)
{
    const struct exchange *x = s->x;
    struct counted c = {.px = s->px,
                        .setup = s->setup,
                        .rule = s->rule,
                        .kind = s->kind,
                        .result = s->result,
                        .method = x->req.method_name,
                        .target = route_shown(x->req.target),
                        .status = x->status,
                        .sent = x->sent,
                        .digest = s->digest.alg != DIGEST_NONE ? &s->digest : NULL,
                        .err = s->err,
                        .cut = x->complete ? NULL : x->why,
                        .first_us = (x->headed_ns - x->began_ns) / 1000,
                        .total_us = (clock_mono_ns() - x->began_ns) / 1000};
    count(&c);
    if (!s->conf->log_access)
        return;
    char peer[64];
    struct str p = STR_INIT(peer);
    exchange_peer(x, &p);
    log_info("access", "request", LOG_SP("client", str_span(&p)), SAME_FIELDS(&c), LOG_U("bytes", c.sent),
             LOG_S("cut", c.cut), LOG_MS("first_ms", c.first_us), LOG_MS("ms", c.total_us));
}

/* ---- answers that are given again (http/again.h) ---- */

/* A hit in memory. It is good as long as neither the index nor the configuration has changed. */
struct repeat {
    struct again again;
    struct counted counted;
    struct digest digest;
    uint64_t version;       /* of the index */
    struct span json, text; /* of its log record what stays the same, in both formats */
};

static bool repeat_good(struct again *a)
{
    const struct repeat *r = CONTAINER_OF(a, struct repeat, again);
    return r->version == store_version(r->counted.px->shared->store) &&
           r->counted.setup == r->counted.px->setup;
}

static void repeat_given(struct again *a, const struct conn *k, const struct again_given *g)
{
    struct repeat *r = CONTAINER_OF(a, struct repeat, again);
    struct proxy *px = r->counted.px;
    r->counted.first_us = (g->headed_ns - g->began_ns) / 1000;
    r->counted.total_us = (g->ended_ns - g->began_ns) / 1000;
    count(&r->counted);
    store_touch(px->reader, &r->digest, core_now(px->core));
    if (!setup_conf(r->counted.setup)->log_access)
        return;
    char peer[64];
    struct str p = STR_INIT(peer);
    server_peer(k, &p);
    log_info("access", "request", LOG_SP("client", str_span(&p)), LOG_READY(r->json, r->text),
             LOG_U("bytes", g->sent), LOG_S("cut", g->cut), LOG_MS("first_ms", r->counted.first_us),
             LOG_MS("ms", r->counted.total_us));
}

static void repeat_drop(struct again *a)
{
    struct repeat *r = CONTAINER_OF(a, struct repeat, again);
    setup_release(r->counted.px, r->counted.setup);
    mem_free((char *)(uintptr_t)r->json.p);
    mem_free((char *)(uintptr_t)r->text.p);
    mem_free(r);
}

static struct span copy(struct span s)
{
    return s.n > 0 ? span_of(memcpy(mem_alloc(s.n), s.p, s.n), s.n) : SPAN_NONE;
}

/* In memory, and small; a tag that has some time left, and does not change its seconds right now. What a client calls a secret is not kept for
 * longer than its request. */
static bool can_repeat(const struct serve *s)
{
    const struct open_object *o = s->object;
    return o != NULL && o->bytes != NULL && o->size > 0 &&
           o->size <= AGAIN_ANSWER_MAX - EXCHANGE_RESPONSE_MAX &&
           (!s->has_tag || (s->ttl_ms >= 1000 && s->ttl_ms % 1000 > 0)) &&
           h1_get(&s->x->req, SPAN("authorization")).p == NULL;
}

/* Offers the answer that is about to go out, if it is asked for again and again. */
static void offer_again(struct serve *s)
{
    const struct exchange *x = s->x;
    if (!exchange_repeats(x) || s->result != RESULT_HIT || !can_repeat(s))
        return;
    struct repeat *r;
    NEW(r);
    r->again = (struct again){.good = repeat_good, .given = repeat_given, .drop = repeat_drop};
    r->digest = s->digest;
    r->version = s->version;
    r->counted = (struct counted){.px = s->px,
                                  .setup = setup_hold(s->px, s->setup),
                                  .rule = s->rule,
                                  .kind = s->kind,
                                  .result = RESULT_HIT,
                                  .method = x->req.method_name,
                                  .target = route_shown(x->req.target),
                                  .status = 200,
                                  .digest = &r->digest};
    const struct log_field same[] = {SAME_FIELDS(&r->counted)};
    r->json = copy(log_ready(LOG_FORMAT_JSON, same, ARRAY_LEN(same)));
    r->text = copy(log_ready(LOG_FORMAT_TEXT, same, ARRAY_LEN(same)));
    r->counted.method = r->counted.target = SPAN_NONE; /* the exchange's */
    /* The seconds that the answer says are left change then. */
    exchange_again(s->x, &r->again, s->has_tag ? s->ttl_ms % 1000 : 1000);
}

/* ---- Cache-Status (RFC 9211) ---- */

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
        if (s->upstream_status >= 400)
            str_addu(out, s->upstream_status);
        else /* no answer, or one that was no good whatever its status said */
            str_addz(out, err_word(s->stale_err));
        break;
    case RESULT_REVALIDATED:
        str_add(out, SPAN("; fwd=stale; fwd-status=200"));
        break;
    default:
        if (s->err_ours) /* neither a hit, nor anything that upstream said */
            break;
        str_add(out, s->has_tag ? SPAN("; fwd=stale") : SPAN("; fwd=miss"));
        if ((s->result == RESULT_ERROR || s->result == RESULT_ABSENT) && s->upstream_status != 0) {
            str_add(out, SPAN("; fwd-status="));
            str_addu(out, s->upstream_status);
        }
        break;
    }
    if (s->collapsed && s->result != RESULT_HIT && s->result != RESULT_STALE)
        str_add(out, SPAN("; collapsed"));
    if ((s->result == RESULT_MISS || s->result == RESULT_COLLAPSED) && !s->unkept)
        str_add(out, s->asked == ASK_MANIFEST || s->content.seat != NULL ? SPAN("; stored") : SPAN(""));
    str_add(out, SPAN("\r\n"));
}
/* ---- answers ---- */

static void begin(struct serve *s, unsigned status)
{
    exchange_begin(s->x, status);
    str_add(exchange_head(s->x), SPAN("Docker-Distribution-Api-Version: registry/2.0\r\n"));
    cache_status(s, exchange_head(s->x));
    if (s->by_source && s->rule != NULL)
        exchange_field(s->x, SPAN("OCI-Namespace"),
                       s->route.ns); /* as the client calls it; a rule has been found by it */
}

static enum step send_body(struct serve *s, uint64_t length, struct body *body, bool close)
{
    op_expect(&s->op, SERVE_O_SEND);
    (void)op_go(&s->op, SERVE_SEND);
    exchange_send(s->x, length, body, close);
    return STEP_MORE;
}

static enum step error_after(struct serve *s, int err, int64_t retry_after_ms)
{
    char text[ERROR_BODY_MAX], detail[320];
    struct str body = STR_INIT(text), d = STR_INIT(detail);
    s->err = err;
    if (s->rule != NULL) {
        str_add(&d, SPAN("rule "));
        str_add(&d, s->rule->name);
    }
    if ((err == ERR_CREDENTIALS || err == ERR_CREDENTIALS_REFUSED || err == ERR_REALM) && s->rule != NULL &&
        s->rule->credential_set != NULL) {
        str_add(&d, SPAN(", credential set "));
        str_add(&d, s->rule->credential_set->name);
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

enum step respond_error(struct serve *s, int err)
{
    if (err_status(err) >= 500) { /* whatever was found before did not become an answer */
        s->result = RESULT_ERROR;
        s->err_ours = true;
    }
    return error_after(s, err, -1);
}

enum step respond_failure(struct serve *s, const struct flight_failure *f)
{
    s->result = err_status(f->err) == 404 ? RESULT_ABSENT : RESULT_ERROR;
    s->upstream_status = f->status;
    return error_after(s, f->err, f->retry_after_ms);
}

enum step respond_ping(struct serve *s)
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

enum ranges { RANGES_WHOLE, RANGES_PART, RANGES_BAD, RANGES_TOO_MANY };

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
    if (parsed == RANGE_TOO_MANY)
        return RANGES_TOO_MANY;
    return *n == 0 ? RANGES_BAD : RANGES_PART;
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
    if (s->content.length != LENGTH_UNKNOWN)
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
enum step respond_content(struct serve *s)
{
    char digest[DIGEST_TEXT_MAX], etag[DIGEST_TEXT_MAX + 2], boundary[BOUNDARY_LEN];
    if (s->kind == KIND_MANIFEST && s->route.tag.n > 0 && s->rule->policy.refresh != REFRESH_OFF)
        refresh_note(s->px->refresh, s->by_source ? s->route.ns : SPAN_NONE, s->route.name, s->route.tag);
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
    } else if (what == RANGES_TOO_MANY) {
        step = respond_error(s, ERR_RANGES);
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
        if (what == RANGES_WHOLE)
            offer_again(s);
        step = send_body(s, total, body, false);
    }
    if (ranged)
        mem_free(ranges);
    return step;
}

enum step respond_object(struct serve *s)
{
    s->content = (struct content){.object = s->object,
                                  .length = s->object->size,
                                  .media = s->kind == KIND_BLOB ? TYPE_BLOB : span_str(s->link.media)};
    return respond_content(s);
}

/* A HEAD for a blob that is not here: the head of the answer, whose body nobody will pull. */
enum step respond_stat(struct serve *s, const struct flight_answer *a)
{
    uint64_t length = a->length == FLIGHT_UNKNOWN ? LENGTH_UNKNOWN : a->length;
    s->content = (struct content){.bytes = SPAN(""), .length = length, .media = TYPE_BLOB};
    return respond_content(s);
}

static void list_link(struct serve *s, struct span next)
{
    char path[NAME_REPO_MAX + 200], link[sizeof path + FLIGHT_QUERY_MAX + 3 * NAME_REGISTRY_MAX + 32];
    struct str p = STR_INIT(path), l = STR_INIT(link);
    str_add(&p, SPAN("/v2/"));
    str_add(&p, s->route.name);
    if (s->kind == KIND_TAGS) {
        str_add(&p, SPAN("/tags/list"));
    } else {
        str_add(&p, SPAN("/referrers/"));
        digest_add(&p, &s->route.digest);
    }
    MUST(link_write(next, str_span(&p), s->route.ns, &l));
    exchange_field(s->x, SPAN("Link"), str_span(&l));
}

enum step respond_list(struct serve *s, struct span doc, struct span name, struct span media,
                       struct span next, bool filtered)
{
    uint64_t n;
    begin(s, 200);
    exchange_field(s->x, SPAN("Content-Type"), media);
    if (next.n > 0)
        list_link(s, next);
    if (filtered && s->kind == KIND_REFERRERS)
        exchange_field(s->x, SPAN("OCI-Filters-Applied"), SPAN("artifactType"));
    if (name.p != NULL) { /* our name for the repository between upstream's quotes */
        size_t before = (size_t)(name.p - doc.p) + 1;
        struct span parts[] = {span_sub(doc, 0, before), s->route.name, span_from(doc, before + name.n - 2)};
        struct body *body = pieces_body(parts, ARRAY_LEN(parts), &n);
        return send_body(s, n, body, false);
    }
    s->content = (struct content){.bytes = doc, .length = doc.n, .media = media};
    struct body *body = content_body(&s->content, NULL, 0, SPAN_NONE, &n);
    return send_body(s, n, body, false);
}
