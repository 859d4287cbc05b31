/* See transfer.h. */
#include "proxy/transfer.h"

#define PROGRESS_MIN (16u << 10) /* less than this between two breaks does not count as progress */

void transfer_init(struct transfer *x, struct proxy *px, struct setup *setup, const struct conf_rule *rule,
                   struct span repo, const struct digest *d)
{
    x->digest = *d;
    x->end = UINT64_MAX;
    x->t.px = px;
    x->t.setup = setup;
    x->t.up = rule->upstream;
    x->t.set = rule->credential_set;
    x->t.repo_n = repo.n;
    x->t.what = WHAT_BLOB;
    struct str path = STR_INIT(x->t.path);
    str_add(&path, SPAN("/v2/"));
    str_add(&path, repo);
    str_add(&path, SPAN("/blobs/"));
    digest_add(&path, d);
    MUST(!path.cut);
}

static bool wants_part(const struct transfer *x)
{
    return (x->front > 0 || x->end != UINT64_MAX) && !x->no_range;
}

void transfer_send(struct transfer *x, void (*event)(struct call *call))
{
    struct str fields = STR_INIT(x->t.fields);
    str_add(&fields, SPAN("Accept: */*\r\n"));
    if (wants_part(x)) {
        str_add(&fields, SPAN("Range: bytes="));
        str_addu(&fields, x->front);
        str_addc(&fields, '-');
        if (x->end != UINT64_MAX)
            str_addu(&fields, x->end - 1);
        str_add(&fields, SPAN("\r\n"));
        COUNT(core_counters(x->t.px->core), upstream_resumes, x->front > 0 && x->end == UINT64_MAX);
    }
    MUST(!fields.cut);
    if (x->headed)
        x->t.deadline = 0; /* the client has its head: each attempt has its own time */
    x->t.patient = !x->headed;
    x->t.insistent = x->headed;
    x->skip = 0;
    x->there = false;
    x->tried_at = x->front;
    upstream_start(&x->t, event);
}

/* Another endpoint may do better, and nobody has seen anything of this one. */
static enum transfer_next reject(struct transfer *x, const char *why)
{
    if (!x->headed)
        return upstream_pass_over(&x->t, ERR_UP_CONTENT, why) == UPSTREAM_WAIT ? TRANSFER_WAIT
                                                                               : TRANSFER_BROKEN;
    upstream_reject(&x->t, ERR_UP_CONTENT, why);
    return TRANSFER_BROKEN;
}

void transfer_mismatch(struct transfer *x, const struct digest *got)
{
    COUNT(core_counters(x->t.px->core), digest_mismatches, 1);
    log_error("upstream", "blob does not match its digest", LOG_SP("registry", x->t.up->registry),
              LOG_S("path", x->t.path), LOG_D("wanted", &x->digest), LOG_D("computed", got),
              LOG_U("bytes", x->front));
    x->t.failure = (struct flight_failure){.err = ERR_UP_DIGEST, .retry_after_ms = -1};
    if (x->tried_at == 0) /* else some of it is another's */
        upstream_lied(&x->t);
}

static bool length_agrees(struct transfer *x, bool known, uint64_t total)
{
    if (!known)
        return true;
    if (x->length_known)
        return x->length == total;
    x->length_known = true;
    x->length = total;
    return true;
}

static enum transfer_next head_whole(struct transfer *x, const struct h1_head *head)
{
    if (head->has_length && head->length == 0 && !digest_is_empty(&x->digest))
        return reject(x, "an empty answer for a blob that is not empty");
    if (!length_agrees(x, head->has_length, head->length))
        return reject(x, "the blob's length has changed");
    if (x->length_known && x->length < x->front && !x->headed) {
        x->length_known = false;
        return TRANSFER_BEYOND;
    }
    x->skip = x->front;
    return TRANSFER_BODY;
}

static enum transfer_next head_part(struct transfer *x, const struct h1_head *head)
{
    uint64_t first, last, total;
    if (!wants_part(x))
        return reject(x, "206 although no Range was asked for");
    if (!range_parse_content(h1_get(head, SPAN("content-range")), &first, &last, &total))
        return reject(x, "206 without a usable Content-Range");
    if (first != x->front || !length_agrees(x, total != UINT64_MAX, total))
        return reject(x, "206 with another range than asked for");
    return TRANSFER_BODY;
}

/* Nobody has seen a head. It may say how long the blob is: then it is known what is to be done. */
static enum transfer_next refused(const struct transfer *x)
{
    if (x->t.refused_of == LENGTH_UNKNOWN || x->t.refused_of == x->front)
        return TRANSFER_ALL;
    return x->t.refused_of < x->front ? TRANSFER_BEYOND
                                      : TRANSFER_BROKEN; /* it knows no ranges: again without */
}

enum transfer_next transfer_head(struct transfer *x)
{
    switch (upstream_step(&x->t)) {
    case UPSTREAM_WAIT:
        return TRANSFER_WAIT;
    case UPSTREAM_FAILED:
        return x->t.failure.status == 416 && x->front > 0 && !x->headed ? refused(x) : TRANSFER_BROKEN;
    case UPSTREAM_HEADED:
        break;
    }
    const struct h1_head *head = x->t.call.head;
    x->there = true;
    if (upstream_coded(head))
        return reject(x, "a content coding that was not asked for");
    return head->status == 206 ? head_part(x, head) : head_whole(x, head);
}

size_t transfer_skip(struct transfer *x, char *buf, size_t got)
{
    if (x->skip == 0)
        return got;
    size_t drop = x->skip < got ? (size_t)x->skip : got;
    x->skip -= drop;
    x->progress_ms = core_now(x->t.px->core); /* it is what it takes to come to new ones */
    memmove(buf, buf + drop, got - drop);
    return got - drop;
}

static int64_t patience_ms(const struct transfer *x)
{
    const struct conf_timeouts *t = &x->t.up->timeouts;
    return 2 * (t->first_byte_ms > t->idle_ms ? t->first_byte_ms : t->idle_ms);
}

/* The next request begins its round at the next endpoint: what is wrong behind a head is not seen by a round, which ends with the head. */
static void turn_away(struct transfer *x)
{
    x->t.endpoint = (x->t.endpoint + 1) % (unsigned)x->t.up->n_endpoints;
}

/* From the front. An upstream that is not there, or says when it wants to be asked again, is worth all the patience: it may just be
 * restarting. One that is there and gives nothing new is worth few attempts, also if it falls silent: to read over what is there, without
 * Range, is no progress of the transfer. Before a head the client is still waiting for a status: the round over the endpoints was all
 * there is. */
bool transfer_again(struct transfer *x)
{
    const struct flight_failure *f = &x->t.failure;
    if (wants_part(x) && (f->err == ERR_UP_CONTENT || f->status == 400 || f->status == 416)) {
        x->no_range = true;
        return true;
    }
    if (x->front >= x->tried_at + PROGRESS_MIN)
        x->tries = x->waits = 0;
    if (!x->there && (health_outage(f) || f->retry_after_ms >= 0))
        x->waits++;
    else
        x->tries++;
    int64_t since = core_now(x->t.px->core) - x->progress_ms;
    if (!x->headed || x->tries >= TRANSFER_TRIES || since + transfer_pause_ms(x) > patience_ms(x))
        return false;
    upstream_log(&x->t, LOG_WARN, "transfer broke, resuming");
    turn_away(x);
    return true;
}

int64_t transfer_pause_ms(const struct transfer *x)
{
    static const int64_t pauses[TRANSFER_TRIES] = {1, 1, 200, 500, 1000, 2000};
    unsigned n = x->tries + x->waits;
    int64_t pause = pauses[n < TRANSFER_TRIES ? n : TRANSFER_TRIES - 1];
    return x->t.failure.retry_after_ms > pause ? x->t.failure.retry_after_ms : pause;
}
