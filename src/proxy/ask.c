/* Asking upstream for something small: a manifest, a check of a tag, whether a repository has a digest, a list. The leader
 * of an answer flight.
 *
 *   HEAD    (a check, or ASK_STAT) a HEAD request is out      -> STORE (nothing changed; the repository has it)
 *                                                             -> GET   (anything else: GET alone decides)
 *   GET     a GET request is out                              -> BODY
 *   BODY    its body is gathered in memory, bounded           -> JUDGE
 *   JUDGE   is it what was asked for? digest, type, in a job if it is long
 *                                                             -> WRITE (a manifest) | STORE | END | GET (the next endpoint)
 *   WRITE   a job writes the manifest into blobs/             -> STORE
 *   STORE   the index's writer makes tag, link, object durable -> END
 *   END     flight_done or flight_fail has been called
 *
 * Readers get a manifest when the index has it, so that a client which then asks for the same manifest by its digest finds it;
 * and they get it also when the disk refuses it. A bad one is never published: the flight fails with the reason. The operation does not depend on its readers: what was begun
 * is finished (it is small). */
#include "base/mem.h"
#include "proxy/proxy_int.h"
#include "registry/json.h"
#include "registry/link.h"
#include "registry/manifest.h"
#include "registry/tags.h"

#define LIST_MAX  (16u << 20)
#define GROW_STEP (64u << 10)

#define JUDGE_AT_ONCE (64u << 10) /* what is longer is looked through in a job */

/* The body has until the head's deadline, and this long in any case: one that comes drop by drop must not hold up all who ask. */
#define BODY_MS 5000

/* The pause after a failed check of a cached tag doubles from the first to the last. */
#define CHECK_AGAIN_MS     1000
#define CHECK_AGAIN_MAX_MS 60000

enum ask_state { ASK_HEAD, ASK_GET, ASK_BODY, ASK_JUDGE, ASK_WRITE, ASK_STORE, ASK_END };

#define ASK_O_CALL  1u
#define ASK_O_JOB   2u
#define ASK_O_STORE 4u

struct ask {
    struct op op;
    struct proxy *px;
    struct flight *flight;
    enum ask_kind kind;
    bool manifest, referrers, kept, ended, again;
    struct digest wanted;
    int64_t negative_ttl_ms;
    char repo_key[REPO_KEY_MAX];
    char tag[STORE_TAG_MAX + 1];

    char *bytes;
    size_t n, cap, max;
    struct flight_answer answer;
    struct upstream_try t;
    struct job job;
    const char *fault; /* once judged: NULL, or what is wrong, and */
    int fault_err;     /* ... how it fails */
    bool judged;
    char write_why[200];
    int write_err;
    struct store_change change;
    struct content_sum sum;
    struct store_ref *refs; /* what the manifest names */
    size_t n_refs, cap_refs;
    bool index;
};

static struct ask *ask_of(struct op *op)
{
    return CONTAINER_OF(op, struct ask, op);
}

static void on_call(struct call *call)
{
    struct ask *a = CONTAINER_OF(call, struct ask, t.call);
    if (op_expects(&a->op, ASK_O_CALL))
        op_clear(&a->op, ASK_O_CALL);
    op_run(&a->op);
}

/* Whatever the status was: also another one may have said that there is no referrers API. */
bool ask_not_there(const struct flight_failure *f)
{
    return f->status == 404 || f->status == 410 || f->err == ERR_MANIFEST_UNKNOWN;
}

/* What need not be asked again for a while: a thing that is not there, and a check of what is cached that failed. */
static void verdict_failed(struct ask *a)
{
    const struct flight_failure *f = &a->t.failure;
    if (f->err == ERR_STOPPING)
        return;
    if (ask_not_there(f))
        verdict_put(a->px->shared->verdicts, flight_key(a->flight), f, a->negative_ttl_ms,
                    a->negative_ttl_ms);
    else if (a->kept)
        verdict_put(a->px->shared->verdicts, flight_key(a->flight), f, CHECK_AGAIN_MS, CHECK_AGAIN_MAX_MS);
}

static enum step ask_fail(struct ask *a)
{
    upstream_log(&a->t, ask_not_there(&a->t.failure) ? LOG_DEBUG : LOG_WARN, "asked without success");
    upstream_stop(&a->t);
    verdict_failed(a);
    flight_fail(a->flight, &a->t.failure);
    a->ended = true;
    return op_go(&a->op, ASK_END);
}

static enum step ask_reject(struct ask *a, int err, const char *why)
{
    if (upstream_pass_over(&a->t, err, why) == UPSTREAM_FAILED)
        return ask_fail(a);
    a->n = 0;
    a->answer = (struct flight_answer){.length = FLIGHT_UNKNOWN};
    return op_go(&a->op, ASK_GET);
}

static enum step ask_done(struct ask *a)
{
    verdict_drop(a->px->shared->verdicts, flight_key(a->flight));
    if (a->kind == ASK_MANIFEST && !a->answer.stored)
        flight_answered(a->flight, &a->answer);
    flight_done(a->flight);
    a->ended = true;
    return op_go(&a->op, ASK_END);
}

/* ---- requests ---- */

static void ask_send(struct ask *a, bool head_only)
{
    a->t.head_only = head_only;
    struct str f = STR_INIT(a->t.fields);
    if (a->t.what == WHAT_MANIFEST) {
        str_add(&f, SPAN("Accept: "));
        str_add(&f, media_accept_manifest);
        str_add(&f, SPAN("\r\n"));
    } else if (a->referrers) {
        str_add(&f, SPAN("Accept: application/vnd.oci.image.index.v1+json\r\n"));
    }
    if (a->kind == ASK_STAT && !head_only)
        str_add(&f, SPAN("Range: bytes=0-0\r\n"));
    MUST(!f.cut);
    upstream_start(&a->t, on_call);
}

static enum step ask_get(struct ask *a)
{
    upstream_stop(&a->t);
    ask_send(a, false);
    return op_go(&a->op, ASK_GET);
}

/* The digest that upstream claims for the tag: good for choosing among what this repository is known to have and what is
 * stored, verified, here. */
static bool claims_stored(struct ask *a, const struct h1_head *head)
{
    struct store_object object;
    struct store_link link;
    struct span v = h1_get(head, SPAN("docker-content-digest"));
    struct digest *d = &a->answer.digest;
    if (v.p == NULL || digest_parse(v, d) != DIGEST_OK || !store_get_object(a->px->reader, d, &object) ||
        !store_get_link(a->px->reader, span_str(a->repo_key), d, &link) || link.media[0] == 0)
        return false;
    memcpy(a->answer.media, link.media, sizeof a->answer.media);
    return true;
}

/* Upstream itself names the digest that was asked for. */
static bool stat_claims(const struct ask *a, const struct h1_head *head)
{
    struct digest d;
    struct span claim = head != NULL ? h1_get(head, SPAN("docker-content-digest")) : SPAN_NONE;
    return claim.p != NULL && digest_parse(claim, &d) == DIGEST_OK && digest_eq(&d, &a->wanted);
}

enum stat_says { STAT_YES, STAT_NO, STAT_NOTHING };

/* Does the answer speak of the content that was asked about? A sign-in page is a 200, too. */
static enum stat_says stat_says(const struct ask *a, const struct h1_head *head, uint64_t length)
{
    struct digest d;
    struct store_object object;
    struct span claim = h1_get(head, SPAN("docker-content-digest"));
    if (claim.p != NULL &&
        (digest_parse(claim, &d) != DIGEST_OK || (d.alg == a->wanted.alg && !digest_eq(&d, &a->wanted))))
        return STAT_NO;
    if (!store_get_object(a->px->reader, &a->wanted, &object))
        return STAT_YES;
    if (length != FLIGHT_UNKNOWN)
        return object.size == length ? STAT_YES : STAT_NO;
    if (stat_claims(a, head))
        return STAT_YES;
    return media_manifest_plausible(h1_get(head, SPAN("content-type"))) ? STAT_NOTHING : STAT_NO;
}

/* The repository has it. That is believed with some evidence only: upstream names the digest, or the content is here and its length has
 * been compared. Else whoever fetches it proves it better. And it is kept as a link only of what is here: a link goes with its object, so that
 * one without would stay for ever, and upstream can name as many digests as it is asked for. */
static enum step ask_stat_found(struct ask *a, uint64_t length)
{
    const struct h1_head *head = a->t.call.head;
    struct store_object object;
    a->answer.digest = a->wanted;
    a->answer.length = length;
    bool claimed = stat_claims(a, head);
    struct span type = head != NULL ? media_essence(h1_get(head, SPAN("content-type"))) : SPAN_NONE;
    if (a->manifest && type.p != NULL && type.n <= STORE_MEDIA_MAX && media_manifest_plausible(type) &&
        !media_is_generic(type))
        memcpy(a->answer.media, type.p, type.n);
    upstream_stop(&a->t);
    bool here = store_get_object(a->px->reader, &a->wanted, &object);
    a->answer.proved = claimed || here;
    flight_answered(a->flight, &a->answer);
    bool link = here && (!a->manifest || a->answer.media[0] != 0);
    return link ? op_go(&a->op, ASK_STORE) : ask_done(a);
}

static enum step step_head(struct ask *a)
{
    enum upstream_next next = upstream_step(&a->t);
    if (next == UPSTREAM_WAIT)
        return op_wait(&a->op, ASK_O_CALL);
    if (next == UPSTREAM_FAILED)
        return a->t.get_decides ? ask_get(a) : ask_fail(a);
    const struct h1_head *head = a->t.call.head;
    if (a->kind == ASK_STAT && head->status == 200 && head->has_length &&
        stat_says(a, head, head->length) == STAT_YES)
        return ask_stat_found(a, head->length);
    if (a->kind == ASK_MANIFEST && head->status == 200 && claims_stored(a, head)) {
        upstream_stop(&a->t);
        a->answer.stored = true;
        flight_answered(a->flight, &a->answer);
        return op_go(&a->op, ASK_STORE);
    }
    return ask_get(a);
}

/* ASK_STAT by GET: one byte was asked for; its head says it all. If not, the bytes do: those of a manifest are asked for at once, those
 * of a blob by whoever wants them (serve.c). */
static enum step stat_by_get(struct ask *a)
{
    const struct h1_head *head = a->t.call.head;
    uint64_t first, last, total;
    if (head->status == 200)
        total = head->has_length ? head->length : FLIGHT_UNKNOWN;
    else if (!range_parse_content(h1_get(head, SPAN("content-range")), &first, &last, &total))
        return ask_reject(a, ERR_UP_CONTENT, "an answer to Range without a usable Content-Range");
    enum stat_says says = stat_says(a, head, total);
    if (says == STAT_YES)
        return ask_stat_found(a, total);
    if (says == STAT_NOTHING && a->manifest) {
        a->kind = ASK_MANIFEST;
        return ask_get(a);
    }
    if (says == STAT_NOTHING)
        return ask_reject(a, ERR_UP_VAGUE, "an answer with neither a length nor a digest");
    return ask_reject(a, ERR_UP_CONTENT, "an answer that speaks of other content than was asked about");
}

static enum step too_large(struct ask *a)
{
    if (a->kind == ASK_LIST)
        return ask_reject(a, ERR_UP_LIST, "the list is above the limit of 16 MiB");
    return ask_reject(a, ERR_UP_TOO_LARGE, "the answer is above the limit (max_manifest)");
}

/* A registry without the referrers API: 404 sends clients to the fallback tag (distribution-spec), but not with NAME_UNKNOWN, which some
 * of them take for a repository that is not there. */
static bool no_referrers_api(unsigned status)
{
    return status == 400 || status == 404 || status == 405 || status == 406 || status == 410 || status == 501;
}

static enum step step_get(struct ask *a)
{
    enum upstream_next next = upstream_step(&a->t);
    if (next == UPSTREAM_WAIT)
        return op_wait(&a->op, ASK_O_CALL);
    if (next == UPSTREAM_FAILED) {
        /* The empty object has no byte 0: for it, 416 proves that it is there. */
        if (a->kind == ASK_STAT && a->t.failure.status == 416 && digest_is_empty(&a->wanted))
            return ask_stat_found(a, 0);
        if (a->referrers && no_referrers_api(a->t.failure.status))
            a->t.failure.err = ERR_MANIFEST_UNKNOWN;
        return ask_fail(a);
    }
    if (a->kind == ASK_STAT)
        return stat_by_get(a);
    const struct h1_head *head = a->t.call.head;
    if (head->status != 200)
        return ask_reject(a, ERR_UP_CONTENT, "206 although no Range was asked for");
    if (upstream_coded(head))
        return ask_reject(a, ERR_UP_CONTENT, "a content coding that was not asked for");
    if (head->has_length && head->length > a->max)
        return too_large(a);
    int64_t now = core_now(a->op.core);
    a->t.call.whole = true;
    if (a->t.call.deadline < now + BODY_MS)
        a->t.call.deadline = now + BODY_MS;
    return op_go(&a->op, ASK_BODY);
}

/* ---- the body ---- */

static enum step step_body(struct ask *a)
{
    for (;;) {
        if (a->cap - a->n < 16384) {
            a->cap += a->cap < GROW_STEP * 16 ? GROW_STEP : a->cap / 2;
            a->bytes = mem_realloc(a->bytes, a->cap);
        }
        ssize_t n = call_read(&a->t.call, a->bytes + a->n, a->cap - a->n);
        if (n == CALL_AGAIN)
            return op_wait(&a->op, ASK_O_CALL);
        if (n == CALL_BROKEN && !a->again) {
            a->again = true; /* it is small: once more from the beginning */
            a->n = 0;
            COUNT(core_counters(a->px->core), upstream_retries, 1);
            return ask_get(a);
        }
        if (n == CALL_BROKEN)
            return ask_reject(a, a->t.call.err, a->t.call.why);
        if (n == 0)
            return op_go(&a->op, ASK_JUDGE);
        a->n += (size_t)n;
        if (a->n > a->max)
            return too_large(a);
    }
}

/* ---- judging ---- */

static struct digest digest_of(enum digest_alg alg, const char *bytes, size_t n)
{
    struct hasher h;
    struct digest d;
    hasher_init(&h, alg);
    hasher_update(&h, bytes, n);
    hasher_finish(&h, &d);
    return d;
}

static void pass_over(void *arg, struct span key, struct span value)
{
    UNUSED(arg);
    UNUSED(key);
    UNUSED(value);
}

/* Returns NULL, or what is wrong. Digests are computed, never believed. What comes without any may have ended early, or be an error's
 * text, whatever its type says: then it must at least be whole. */
static const char *manifest_fault(struct ask *a, int *err)
{
    const struct h1_head *head = a->t.call.head;
    *err = ERR_UP_CONTENT;
    struct span type = h1_get(head, SPAN("content-type"));
    if (a->n == 0)
        return "an empty manifest";
    if (type.p != NULL && !media_manifest_plausible(type))
        return "the content type is not that of a manifest";
    struct span media = media_of_manifest(type, span_of(a->bytes, a->n));
    if (media.p == NULL || media.n > STORE_MEDIA_MAX)
        return "the content is not a manifest";
    memcpy(a->answer.media, media.p, media.n);
    *err = ERR_UP_DIGEST;
    enum digest_alg alg = a->wanted.alg != DIGEST_NONE ? (enum digest_alg)a->wanted.alg : DIGEST_SHA256;
    a->answer.digest = digest_of(alg, a->bytes, a->n);
    if (a->wanted.alg != DIGEST_NONE && !digest_eq(&a->wanted, &a->answer.digest))
        return "the content does not match the digest";
    struct digest claimed;
    struct span claim = h1_get(head, SPAN("docker-content-digest"));
    if (claim.p != NULL && digest_parse(claim, &claimed) == DIGEST_OK) {
        struct digest real = digest_of((enum digest_alg)claimed.alg, a->bytes, a->n);
        return digest_eq(&claimed, &real) ? NULL : "the content does not match Docker-Content-Digest";
    }
    *err = ERR_UP_CONTENT;
    if (a->wanted.alg == DIGEST_NONE && !json_each_member(span_of(a->bytes, a->n), pass_over, NULL))
        return "the content is not one whole JSON document";
    return NULL;
}

static enum step judge_manifest(struct ask *a)
{
    const char *fault = a->fault;
    int err = a->fault_err;
    if (fault != NULL) {
        /* The digest of a signed one is that of the part without the signatures. */
        if (err == ERR_UP_DIGEST &&
            media_form(media_of_manifest(SPAN_NONE, span_of(a->bytes, a->n))) == MEDIA_SCHEMA1)
            return ask_reject(a, ERR_SCHEMA1, "a manifest of schema 1 whose digest is not that of its bytes");
        if (err == ERR_UP_DIGEST) {
            COUNT(core_counters(a->px->core), digest_mismatches, 1);
            log_error("upstream", "manifest does not match its digest", LOG_SP("registry", a->t.up->registry),
                      LOG_S("path", a->t.path), LOG_D("computed", &a->answer.digest),
                      LOG_D("wanted", &a->wanted));
        }
        return ask_reject(a, err, fault);
    }
    upstream_stop(&a->t);
    a->answer.bytes = a->bytes;
    a->answer.n = a->answer.length = a->n;
    a->bytes = NULL;
    return op_go(&a->op, ASK_WRITE);
}

/* Looks for the next page. NULL, or why it cannot be passed on: without its link the list would look complete. */
static const char *next_page_fault(struct ask *a)
{
    const struct h1_head *head = a->t.call.head;
    for (unsigned i = 0; i < head->n; i++) {
        struct span query;
        enum link_next next = span_ieq(head->fields[i].name, SPAN("link"))
                                  ? link_next(head->fields[i].value, &query)
                                  : LINK_NONE;
        if (next == LINK_NONE)
            continue;
        if (next == LINK_UNFIT)
            return "the link to the next page has no usable query";
        if (query.n > FLIGHT_QUERY_MAX)
            return "the query of the link to the next page is too long";
        memcpy(a->answer.next, query.p, query.n);
        break;
    }
    return NULL;
}

static const char *list_fault(struct ask *a, int *err)
{
    struct span type = media_essence(h1_get(a->t.call.head, SPAN("content-type")));
    struct span index = SPAN("application/vnd.oci.image.index.v1+json");
    *err = ERR_MANIFEST_UNKNOWN;
    if (a->referrers &&
        (!span_ieq(type, index) || media_of_manifest(type, span_of(a->bytes, a->n)).p == NULL))
        return "referrers that are not an OCI index";
    *err = ERR_UP_CONTENT;
    if (!a->referrers && !tags_read(span_of(a->bytes, a->n), &a->answer.name))
        return "not a list of tags";
    if (!a->referrers)
        type = SPAN("application/json");
    memcpy(a->answer.media, type.p, type.n);
    *err = ERR_UP_LIST;
    return next_page_fault(a);
}

static enum step judge_list(struct ask *a)
{
    const struct h1_head *head = a->t.call.head;
    if (a->fault != NULL)
        return ask_reject(a, a->fault_err, a->fault);
    a->answer.filtered = span_ieq(h1_get(head, SPAN("oci-filters-applied")), SPAN("artifactType"));
    upstream_stop(&a->t);
    a->answer.bytes = a->bytes;
    a->answer.n = a->answer.length = a->n;
    a->bytes = NULL;
    lists_put(a->px->shared->lists, flight_key(a->flight), &a->answer);
    verdict_drop(a->px->shared->verdicts, flight_key(a->flight));
    flight_answered(a->flight, &a->answer);
    flight_done(a->flight);
    a->ended = true;
    return op_go(&a->op, ASK_END);
}

/* Nobody else touches the answer meanwhile, nor the head of the call, which has ended. */
static void on_judge_work(struct job *j)
{
    struct ask *a = CONTAINER_OF(j, struct ask, job);
    a->fault = a->kind == ASK_LIST ? list_fault(a, &a->fault_err) : manifest_fault(a, &a->fault_err);
    a->judged = true;
}

static void on_job_done(struct job *j)
{
    struct ask *a = CONTAINER_OF(j, struct ask, job);
    op_clear(&a->op, ASK_O_JOB);
    op_run(&a->op);
}

static enum step step_judge(struct ask *a)
{
    if (op_expects(&a->op, ASK_O_JOB))
        return STEP_WAIT;
    if (!a->judged && a->n > JUDGE_AT_ONCE) {
        op_expect(&a->op, ASK_O_JOB);
        job_start(a->op.core, &a->job, on_judge_work, on_job_done);
        return STEP_WAIT;
    }
    if (!a->judged)
        on_judge_work(&a->job);
    a->judged = false; /* another endpoint's may follow */
    return a->kind == ASK_LIST ? judge_list(a) : judge_manifest(a);
}

/* ---- keeping ---- */

static void note_ref(void *arg, const struct manifest_child *child)
{
    static const enum store_role roles[] = {[CHILD_CONFIG] = REF_CONFIG,
                                            [CHILD_LAYER] = REF_LAYER,
                                            [CHILD_MANIFEST] = REF_MANIFEST,
                                            [CHILD_SUBJECT] = REF_SUBJECT};
    struct ask *a = arg;
    if (a->n_refs == a->cap_refs) {
        a->cap_refs = a->cap_refs == 0 ? 16 : a->cap_refs * 2;
        a->refs = mem_realloc(a->refs, a->cap_refs * sizeof *a->refs);
    }
    a->refs[a->n_refs++] =
        (struct store_ref){.digest = child->digest, .role = roles[child->role], .size = child->size};
}

/* What the store wants to know of the content. */
static void look_into(struct ask *a)
{
    struct span content = span_of(a->answer.bytes, a->answer.n);
    struct manifest_seen seen;
    (void)manifest_read(span_str(a->answer.media), content, note_ref, a, &seen);
    a->index = seen.form == MEDIA_INDEX;
    content_sum_of(content, &a->sum);
}

static void on_write_work(struct job *j)
{
    struct ask *a = CONTAINER_OF(j, struct ask, job);
    look_into(a);
    struct str why = STR_INIT(a->write_why);
    a->write_err = store_write_object(a->px->shared->store, &a->answer.digest,
                                      span_of(a->answer.bytes, a->answer.n), &why);
}

/* The state is entered twice: to start the job, and when it is done. */
static enum step step_write(struct ask *a)
{
    if (op_expects(&a->op, ASK_O_JOB))
        return STEP_WAIT;
    if (a->write_err < 0) {
        op_expect(&a->op, ASK_O_JOB);
        job_start(a->op.core, &a->job, on_write_work, on_job_done);
        return STEP_WAIT;
    }
    if (a->write_err != 0) { /* the readers have it; it is only not kept */
        COUNT(core_counters(a->px->core), store_errors, 1);
        log_error("store", "manifest not stored", LOG_D("digest", &a->answer.digest),
                  LOG_S("why", a->write_why));
        a->answer.unkept = true;
        return ask_done(a);
    }
    COUNT(core_counters(a->px->core), stored_objects, 1);
    COUNT(core_counters(a->px->core), stored_bytes, a->answer.n);
    return op_go(&a->op, ASK_STORE);
}

static void on_stored(struct store_change *c)
{
    struct ask *a = CONTAINER_OF(c, struct ask, change);
    op_clear(&a->op, ASK_O_STORE);
    op_run(&a->op);
}

static void change_fill(struct ask *a)
{
    struct store_change *c = &a->change;
    *c = (struct store_change){.digest = a->answer.digest, .checked_ms = clock_wall_ms()};
    memcpy(c->repo, a->repo_key, sizeof a->repo_key);
    memcpy(c->media, a->answer.media, sizeof c->media);
    if (a->kind == ASK_STAT) {
        c->what = CHANGE_PUT_LINK;
        return;
    }
    c->what = CHANGE_PUT_LINK;
    if (!a->answer.stored) {
        c->what |= CHANGE_PUT_OBJECT | CHANGE_PUT_REFS;
        c->size = a->answer.n;
        c->kind = a->index ? STORE_INDEX : STORE_MANIFEST;
        c->sum = a->sum;
        c->refs = a->refs;
        c->n_refs = a->n_refs;
    }
    if (a->tag[0] != 0) {
        memcpy(c->tag, a->tag, sizeof a->tag);
        c->what |= CHANGE_PUT_TAG;
    }
}

static enum step step_store(struct ask *a)
{
    if (op_expects(&a->op, ASK_O_STORE))
        return STEP_WAIT;
    if (a->change.done == NULL) {
        change_fill(a);
        op_expect(&a->op, ASK_O_STORE);
        store_apply(a->px->shared->store, a->op.core, &a->change, on_stored);
        return STEP_WAIT;
    }
    if (a->change.err != 0) {
        COUNT(core_counters(a->px->core), store_errors, 1);
        log_error("store", "index not updated", LOG_D("digest", &a->answer.digest),
                  LOG_SP("repository", store_repo_plain(span_str(a->repo_key))));
        a->answer.unkept = a->kind == ASK_MANIFEST;
    }
    return ask_done(a);
}

/* ---- the operation ---- */

static enum step ask_step(struct op *op)
{
    struct ask *a = ask_of(op);
    if (op->closing != 0 && op->state <= ASK_BODY && !a->ended) {
        if (op_expects(op, ASK_O_CALL))
            op_clear(op, ASK_O_CALL);
        upstream_reject(&a->t, op->closing, "stopping");
        return ask_fail(a);
    }
    switch ((enum ask_state)op->state) {
    case ASK_HEAD:
        return step_head(a);
    case ASK_GET:
        return step_get(a);
    case ASK_BODY:
        return step_body(a);
    case ASK_JUDGE:
        return step_judge(a);
    case ASK_WRITE:
        return step_write(a);
    case ASK_STORE:
        return step_store(a);
    case ASK_END:
        break;
    }
    return STEP_END;
}

static void ask_free(struct op *op)
{
    struct ask *a = ask_of(op);
    MUST(a->ended);
    upstream_stop(&a->t);
    flight_clear_leader(a->flight);
    flight_unref(a->flight);
    setup_release(a->px, a->t.setup);
    mem_free(a->bytes);
    mem_free(a->refs);
    mem_free(a);
}

static const char *ask_state_name(unsigned state)
{
    static const char *const names[] = {"head", "get", "body", "judge", "write", "store", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static bool ask_idle(const struct op *op)
{
    return flight_readers(CONTAINER_OF(op, struct ask, op)->flight) == 0;
}

static const struct op_class ask_class = {"ask", ask_step, ask_free, ask_state_name, ask_idle};

static void copy_span(char *to, size_t cap, struct span s)
{
    MUST(s.n < cap);
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    to[s.n] = 0;
}

static void ask_path(struct ask *a, const struct ask_what *w)
{
    struct str p = STR_INIT(a->t.path);
    str_add(&p, SPAN("/v2/"));
    str_add(&p, w->repo);
    if (w->kind == ASK_LIST && !w->referrers) {
        str_add(&p, SPAN("/tags/list"));
    } else {
        str_add(&p, w->referrers                          ? SPAN("/referrers/")
                    : w->kind == ASK_STAT && !w->manifest ? SPAN("/blobs/")
                                                          : SPAN("/manifests/"));
        if (w->digest.alg != DIGEST_NONE)
            digest_add(&p, &w->digest);
        else
            str_add(&p, w->tag);
    }
    if (w->query.n > 0) {
        str_addc(&p, '?');
        str_add(&p, w->query);
    }
    MUST(!p.cut); /* the caller bounds the query */
}

void ask_key(const struct ask_what *w, struct str *out)
{
    str_addc(out, w->kind == ASK_MANIFEST ? 'm'
                  : w->kind == ASK_STAT   ? (w->manifest ? 'S' : 's')
                  : w->referrers          ? 'r'
                                          : 't');
    str_addc(out, ' ');
    str_add(out, w->repo_key);
    str_addc(out, ' ');
    if (w->digest.alg != DIGEST_NONE)
        digest_add(out, &w->digest);
    else
        str_add(out, w->tag);
    str_addc(out, ' ');
    str_add(out, w->query);
}

void ask_lead(struct proxy *px, struct flight *flight, const struct ask_what *w)
{
    struct ask *a;
    NEW(a);
    op_init(&a->op, px->core, &ask_class, ASK_GET);
    a->px = px;
    a->flight = flight_ref(flight);
    flight_set_leader(flight, px->core, NULL);
    a->kind = w->kind;
    a->manifest = w->manifest;
    a->referrers = w->referrers;
    a->wanted = w->digest;
    a->kept = w->kept;
    a->negative_ttl_ms = w->negative_ttl_ms;
    a->write_err = -1;
    a->answer.length = FLIGHT_UNKNOWN;
    copy_span(a->repo_key, sizeof a->repo_key, w->repo_key);
    copy_span(a->tag, sizeof a->tag, w->tag);
    a->max = w->kind == ASK_LIST ? LIST_MAX : (size_t)w->up->max_manifest;
    a->t.px = px;
    a->t.setup = setup_hold(px, w->setup);
    a->t.up = w->up;
    a->t.set = w->set;
    a->t.repo_n = w->repo.n;
    a->t.patient = !w->kept;
    a->t.what = w->kind == ASK_LIST                   ? WHAT_LIST
                : w->kind == ASK_STAT && !w->manifest ? WHAT_BLOB
                                                      : WHAT_MANIFEST;
    ask_path(a, w);
    bool no_head = a->t.what == WHAT_BLOB && w->up->known != NULL && w->up->known->no_blob_head;
    bool head_first = (w->kind == ASK_STAT && !no_head) || w->known.alg != DIGEST_NONE;
    ask_send(a, head_first);
    if (head_first)
        (void)op_go(&a->op, ASK_HEAD);
    op_run(&a->op);
}
