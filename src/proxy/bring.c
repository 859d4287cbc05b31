/* See bring.h.
 *
 *   BEGIN   the starter has not returned yet                  -> OPEN (the index whose platforms count) | TOP
 *   TOP     what the reference names is obtained              -> NEXT | END
 *   NEXT    the next manifest is obtained                     -> OPEN | WEIGH (all are read) | END
 *   OPEN    its file is being opened                          -> READ | TOP | NEXT (it was damaged: once more) | END
 *   READ    a job reads it: what does it refer to?            -> NEXT | TOP (it was said index) | END
 *   WEIGH   a job puts the blobs in order: do they fit?        -> BLOBS | END
 *   BLOBS   up to SLOTS are obtained at a time                -> END
 *   END     `done` is called when nothing is outstanding any more
 *
 * Manifests are a queue that grows while it is worked off: an index adds its children. It cannot grow for ever: what is in it already is
 * not added again, and an image that names more than the maximum is not brought at all.
 *
 * Sizes are what manifests say until the content is here. They may be lies, so what is still to come is counted anew at each step, and
 * bytes never exceed bytes_all. */
#include "proxy/bring.h"

#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/mem.h"
#include "proxy/damaged.h"
#include "proxy/obtain.h"
#include "registry/manifest.h"
#include "registry/platform.h"
#include "store/evict.h"

#define SLOTS         3
#define MANIFESTS_MAX 1000
#define FIXES_MAX     100 /* damaged manifests that are fetched again */
#define BLOBS_MAX     20000
#define SEEN_MAX      256
#define TURN_MAX      64 /* blobs that are begun in one turn of the loop */
#define TEXT_OF_(n)   #n
#define TEXT_OF(n)    TEXT_OF_(n)

enum bring_state {
    BRING_BEGIN,
    BRING_TOP,
    BRING_NEXT,
    BRING_OPEN,
    BRING_READ,
    BRING_WEIGH,
    BRING_BLOBS,
    BRING_END
};

#define BRING_O_TURN 1u
#define BRING_O_NEWS 2u
#define BRING_O_OPEN 4u
#define BRING_O_JOB  8u
#define BRING_O_FIX  16u /* a damaged manifest is put away, and the index told */

struct thing {
    struct digest digest;
    uint64_t size; /* as its manifest says; of a stored one, as it is */
};

struct things {
    struct thing *list;
    size_t n, cap, next; /* next: to be begun */
};

/* A child of an index with its platform as text. */
struct seen {
    struct digest digest;
    char text[PLATFORM_TEXT_MAX + 1];
};

struct slot {
    struct obtain obtain;
    struct thing thing;
    bool busy;
};

struct bring {
    struct op op;
    struct proxy *px;
    struct obtain_from from;
    struct bring_counts *counts, own_counts;
    void (*done)(void *arg, const struct bring_end *end);
    void *arg;
    struct defer turn;
    bool tag_only, reading_like;
    struct digest like; /* DIGEST_NONE: none */
    int64_t checked_before;

    struct obtain obtain; /* of a manifest */
    struct things manifests, blobs;
    struct slot slots[SLOTS];
    unsigned begun;   /* blobs, in this turn */
    uint64_t arrived; /* bytes of what is here, whole */
    uint64_t to_come; /* of the blobs that are not begun, as their manifests say */

    /* reading */
    struct open_wait open;
    struct open_object *object;
    struct damaged damaged;
    unsigned fixes;
    struct job job;
    bool working;               /* the state's job has been started */
    bool evicted;               /* what was to be opened is not in the index any more */
    struct store_object record; /* of what is opened */
    char media[STORE_MEDIA_MAX + 1];
    const char *fault; /* the job's */
    bool too_many, fits;

    /* platforms that are wanted */
    bool all, saw_index;
    bool plain; /* an index had an image that tells no platform */
    struct platform platforms[PLATFORMS_MAX];
    bool matched[PLATFORMS_MAX];
    size_t n_platforms;
    struct str has; /* those that an index had, for the message */

    /* of the index whose platforms count: its children, to be looked up on the core */
    struct seen *seen;
    size_t n_seen, cap_seen;

    struct bring_end end;
    char why[700];
    char has_text[400];
    char platforms_text[PLATFORMS_TEXT_MAX + 1];
    char repo[STORE_REPO_MAX + 1], repo_key[REPO_KEY_MAX], reference[DIGEST_TEXT_MAX + STORE_TAG_MAX];
};

/* ---- platforms ---- */

bool bring_platforms_ok(struct span platforms)
{
    struct platform parsed[PLATFORMS_MAX];
    struct span wrong;
    size_t n = platforms_parse(platforms, parsed, &wrong);
    return span_eq(platforms, SPAN("all")) || (n > 0 && n <= PLATFORMS_MAX);
}

/* This machine's: what a client that runs here pulls. */
static void add_own_platform(struct str *out)
{
    struct utsname u;
    MUST(uname(&u) == 0);
    str_addz(out, "linux/");
    str_add(out, platform_of_machine(span_str(u.machine)));
}

static void want_platforms(struct bring *b, struct span list)
{
    struct str text = STR_INIT(b->platforms_text);
    struct span wrong;
    if (list.n > 0)
        str_add(&text, list);
    else
        add_own_platform(&text);
    MUST(!text.cut);
    b->all = span_eq(list, SPAN("all"));
    b->n_platforms = b->all ? 0 : platforms_parse(str_span(&text), b->platforms, &wrong);
    MUST(b->all || (b->n_platforms > 0 && b->n_platforms <= PLATFORMS_MAX));
}

/* For clients a child without a platform may be any. */
static bool wanted(struct bring *b, const struct manifest_child *c)
{
    struct platform has = {.os = c->os, .architecture = c->architecture, .variant = c->variant};
    bool plain = has.os.n == 0 && has.architecture.n == 0, yes = b->all || plain;
    b->plain = b->plain || (plain && media_form(c->media) != MEDIA_INDEX);
    for (size_t i = 0; i < b->n_platforms; i++) {
        if (platform_match(&b->platforms[i], &has))
            yes = b->matched[i] = true;
    }
    if (has.os.n > 0 && !span_eq(has.os, SPAN("unknown"))) { /* attestations call themselves that */
        str_addz(&b->has, b->has.n > 0 ? ", " : "; it has ");
        platform_add(&b->has, &has);
    }
    return yes;
}

/* ---- the end ---- */

static enum step finish(struct bring *b, int err, unsigned status)
{
    b->end.err = err;
    b->end.status = status;
    b->end.why = b->why;
    return op_go(&b->op, BRING_END);
}

/* d: what could not be had, NULL: what the reference names. */
static enum step fail_of(struct bring *b, const struct flight_failure *f, const struct digest *d)
{
    struct str why = STR_INIT(b->why);
    if (d != NULL) {
        digest_add(&why, d);
        str_addz(&why, ": ");
    }
    str_addz(&why, err_words(f->err));
    if (f->status != 0)
        str_addf(&why, " (status %u)", f->status);
    return finish(b, f->err, f->status);
}

/* The manifest that is being read. */
static enum step bad_manifest(struct bring *b, int err, const char *what)
{
    struct str why = STR_INIT(b->why);
    str_addz(&why, "the manifest ");
    digest_add(&why, &b->manifests.list[b->manifests.next - 1].digest);
    str_addc(&why, ' ');
    str_addz(&why, what);
    return finish(b, err, 0);
}

/* ---- what is to be brought ---- */

static void add_thing(struct things *t, const struct digest *d, uint64_t size)
{
    if (t->n == t->cap) {
        t->cap = t->cap == 0 ? 16 : 2 * t->cap;
        t->list = mem_realloc(t->list, t->cap * sizeof *t->list);
    }
    t->list[t->n++] = (struct thing){.digest = *d, .size = size};
}

static bool has_thing(const struct things *t, const struct digest *d)
{
    for (size_t i = 0; i < t->n; i++) {
        if (digest_eq(&t->list[i].digest, d))
            return true;
    }
    return false;
}

static int compare_things(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct digest));
}

/* Each once. */
static void sort_things(struct things *t)
{
    size_t n = 0;
    if (t->n > 0)
        qsort(t->list, t->n, sizeof *t->list, compare_things);
    for (size_t i = 0; i < t->n; i++) {
        if (n == 0 || !digest_eq(&t->list[n - 1].digest, &t->list[i].digest))
            t->list[n++] = t->list[i];
    }
    t->n = n;
}

/* ---- reading a manifest (on the pool) ---- */

static void see_child(struct bring *b, const struct manifest_child *c)
{
    struct seen one = {.digest = c->digest};
    struct str text = STR_INIT(one.text);
    struct platform parsed;
    if (c->role != CHILD_MANIFEST || b->n_seen == SEEN_MAX || span_eq(c->os, SPAN("unknown")))
        return;
    platform_add(&text,
                 &(struct platform){.os = c->os, .architecture = c->architecture, .variant = c->variant});
    if (text.cut || !platform_parse(str_span(&text), &parsed))
        return;
    if (b->n_seen == b->cap_seen) {
        b->cap_seen = b->cap_seen == 0 ? 16 : 2 * b->cap_seen;
        b->seen = mem_realloc(b->seen, b->cap_seen * sizeof *b->seen);
    }
    b->seen[b->n_seen++] = one;
}

/* Adds it; more than the maximum is a fault of the manifest. */
static void add_named(struct bring *b, struct things *t, size_t max, const struct manifest_child *c)
{
    if (t->n < max)
        add_thing(t, &c->digest, c->size);
    else
        b->too_many = true;
}

static void on_child(void *arg, const struct manifest_child *c)
{
    struct bring *b = arg;
    if (b->reading_like) {
        see_child(b, c);
        return;
    }
    switch (c->role) {
    case CHILD_CONFIG:
    case CHILD_LAYER:
        if (!c->urls) /* what is elsewhere, a client fetches there */
            add_named(b, &b->blobs, BLOBS_MAX, c);
        break;
    case CHILD_MANIFEST:
        if (wanted(b, c) && !b->too_many && !has_thing(&b->manifests, &c->digest))
            add_named(b, &b->manifests, MANIFESTS_MAX, c);
        break;
    case CHILD_SUBJECT:
        break;
    }
}

static void on_read_work(struct job *j)
{
    struct bring *b = CONTAINER_OF(j, struct bring, job);
    const struct open_object *o = b->object;
    struct manifest_seen seen = {.form = MEDIA_OTHER};
    char *own = NULL;
    const char *doc = o->bytes;
    if (doc == NULL) {
        doc = own = mem_alloc((size_t)o->size + 1);
        size_t n = 0;
        ssize_t r = 1;
        while (n < o->size && (r = pread(o->fd, own + n, (size_t)o->size - n, (off_t)n)) > 0)
            n += (size_t)r;
        if (n < o->size)
            b->fault = "cannot be read";
    }
    if (b->fault == NULL &&
        !manifest_read(span_str(b->media), span_of(doc, (size_t)o->size), on_child, b, &seen))
        b->fault = "is no manifest that larder can read";
    if (b->fault == NULL && (b->too_many || seen.cut))
        b->fault = "names more than larder brings of one image (" TEXT_OF(
            MANIFESTS_MAX) " manifests, " TEXT_OF(BLOBS_MAX) " blobs)";
    if (!b->reading_like)
        b->saw_index = b->saw_index || seen.form == MEDIA_INDEX;
    mem_free(own);
}

static void on_job(struct job *j)
{
    struct bring *b = CONTAINER_OF(j, struct bring, job);
    op_clear(&b->op, BRING_O_JOB);
    op_run(&b->op);
}

static void run_job(struct bring *b, void (*work)(struct job *j))
{
    b->working = true;
    op_expect(&b->op, BRING_O_JOB);
    job_start(b->op.core, &b->job, work, on_job);
}

/* ---- steps ---- */

static void on_turn(struct defer *d)
{
    struct bring *b = CONTAINER_OF(d, struct bring, turn);
    op_clear(&b->op, BRING_O_TURN);
    op_run(&b->op);
}

static void on_news(struct obtain *o)
{
    struct bring *b = o->arg;
    if (!op_expects(&b->op, BRING_O_NEWS))
        return;
    op_clear(&b->op, BRING_O_NEWS);
    op_run(&b->op);
}

static void on_open(struct open_wait *w)
{
    struct bring *b = CONTAINER_OF(w, struct bring, open);
    b->object = w->object;
    op_clear(&b->op, BRING_O_OPEN);
    op_run(&b->op);
}

static void obtain(struct bring *b, struct obtain *o, enum obtain_kind kind, const struct digest *d)
{
    *o = (struct obtain){.px = b->px, .from = &b->from, .kind = kind, .event = on_news, .arg = b};
    o->checked_before = b->checked_before;
    if (kind == OBTAIN_TAG)
        o->tag = span_str(b->reference);
    else
        o->digest = *d;
    obtain_start(o);
}

static enum step to_top(struct bring *b)
{
    struct digest d;
    bool by_digest = digest_parse(span_str(b->reference), &d) == DIGEST_OK;
    obtain(b, &b->obtain, by_digest ? OBTAIN_MANIFEST : OBTAIN_TAG, &d);
    return op_go(&b->op, BRING_TOP);
}

/* The digest's file, for READ. */
static enum step open_manifest(struct bring *b, const struct digest *d)
{
    struct store_link link;
    b->object = NULL;
    b->open = (struct open_wait){.done = on_open};
    (void)op_go(&b->op, BRING_OPEN);
    b->evicted = !store_get_object(b->px->reader, d, &b->record);
    if (b->evicted)
        return STEP_MORE;
    if (b->record.size > b->from.rule->upstream->max_manifest) { /* it was stored under another limit */
        b->open.err = ERR_UP_TOO_LARGE;
        return STEP_MORE;
    }
    bool linked = store_get_link(b->px->reader, span_str(b->repo_key), d, &link);
    memcpy(b->media, linked ? link.media : "", linked ? sizeof b->media : 1);
    if (open_get(b->px->open, d, &b->record, OPEN_VERIFIED, &b->open, &b->object) == OPEN_WAIT)
        return op_wait(&b->op, BRING_O_OPEN);
    return STEP_MORE;
}

static enum step step_begin(struct bring *b)
{
    if (op_expects(&b->op, BRING_O_TURN))
        return STEP_WAIT;
    if (b->like.alg == DIGEST_NONE)
        return to_top(b);
    b->reading_like = true;
    return open_manifest(b, &b->like);
}

/* It is here, and opened. */
static void count_manifest(struct bring *b)
{
    if (b->reading_like)
        return;
    b->arrived += b->object->size;
    atomic_fetch_add(&b->counts->manifests, 1);
    atomic_store(&b->counts->bytes_all, b->arrived); /* the larger one first: others read */
    atomic_store(&b->counts->bytes, b->arrived);
}

static void on_fixed(struct damaged *d)
{
    struct bring *b = CONTAINER_OF(d, struct bring, damaged);
    op_clear(&b->op, BRING_O_FIX);
    op_run(&b->op);
}

static enum step step_open(struct bring *b)
{
    if (op_expects(&b->op, BRING_O_OPEN))
        return STEP_WAIT;
    if (b->object != NULL) {
        b->working = false;
        count_manifest(b);
        return op_go(&b->op, BRING_READ);
    }
    if (b->reading_like) { /* it is gone by now: then this machine's platform it is */
        b->reading_like = false;
        return to_top(b);
    }
    if (b->open.err == ERR_UP_TOO_LARGE)
        return bad_manifest(b, b->open.err, "is above the limit (max_manifest)");
    if (b->open.err != 0) /* no descriptors just now, and the like */
        return bad_manifest(b, b->open.err, "cannot be opened just now; try again, and see the log");
    if (b->fixes++ == FIXES_MAX)
        return bad_manifest(b, ERR_STORE, "is damaged in the store, as are others; see the log");
    b->manifests.next--; /* and once more */
    if (!b->evicted) {
        op_expect(&b->op, BRING_O_FIX);
        damaged_put_away(&b->damaged, b->px, &b->manifests.list[b->manifests.next].digest, &b->record,
                         on_fixed);
    }
    return op_go(&b->op, BRING_NEXT);
}

/* Is it one of the platforms in the list? */
static bool is_listed(struct span list, struct span platform)
{
    struct span one;
    while (span_next(&list, ',', &one)) {
        if (span_eq(one, platform))
            return true;
    }
    return false;
}

/* The platforms that are here of the index that was read. If it told some, and none of them is here, only manifests are wanted. */
static enum step liked(struct bring *b)
{
    char text[PLATFORMS_TEXT_MAX + 1];
    struct str list = STR_INIT(text);
    struct store_object object;
    size_t n = 0;
    for (size_t i = 0; i < b->n_seen && n < PLATFORMS_MAX; i++) {
        struct span platform = span_str(b->seen[i].text);
        if (is_listed(str_span(&list), platform) ||
            !store_get_object(b->px->reader, &b->seen[i].digest, &object))
            continue;
        str_addz(&list, n++ > 0 ? "," : "");
        str_add(&list, platform);
    }
    b->reading_like = false;
    if (b->n_seen > 0 && n == 0)
        return finish(b, 0, 0);
    want_platforms(b, list.cut ? SPAN_NONE : str_span(&list));
    return to_top(b);
}

static enum step step_read(struct bring *b)
{
    if (op_expects(&b->op, BRING_O_JOB))
        return STEP_WAIT;
    if (!b->working) {
        b->fault = NULL;
        run_job(b, on_read_work);
        return STEP_WAIT;
    }
    open_put(b->px->open, b->object);
    b->object = NULL;
    if (b->reading_like)
        return liked(b);
    return b->fault != NULL ? bad_manifest(b, ERR_UP_CONTENT, b->fault) : op_go(&b->op, BRING_NEXT);
}

static void count_fetched(struct bring *b, const struct obtain *o)
{
    if (!o->fetched)
        return;
    atomic_fetch_add(&b->counts->fetched, 1);
    atomic_fetch_add(&b->counts->fetched_bytes, o->size);
}

static enum step step_top(struct bring *b)
{
    switch (obtain_step(&b->obtain)) {
    case OBTAIN_WAIT:
        return op_wait(&b->op, BRING_O_NEWS);
    case OBTAIN_FAILED:
        return fail_of(b, &b->obtain.failure, NULL);
    case OBTAIN_DONE:
        break;
    }
    b->end.digest = b->obtain.digest;
    if (b->tag_only)
        return finish(b, 0, 0);
    count_fetched(b, &b->obtain); /* NEXT finds it here */
    add_thing(&b->manifests, &b->obtain.digest, b->obtain.size);
    b->obtain = (struct obtain){0};
    return op_go(&b->op, BRING_NEXT);
}

/* A platform that was asked for and that no index has; NULL: there is none. What another index had, this one need not have. */
static const struct platform *missing_platform(const struct bring *b)
{
    if (!b->saw_index || b->like.alg != DIGEST_NONE || (b->plain && b->has.n == 0))
        return NULL;
    for (size_t i = 0; i < b->n_platforms; i++) {
        if (!b->matched[i])
            return &b->platforms[i];
    }
    return NULL;
}

/* All manifests are read. */
static enum step to_weigh(struct bring *b)
{
    const struct platform *missing = missing_platform(b);
    if (missing != NULL) {
        struct str why = STR_INIT(b->why);
        str_addz(&why, "the image has nothing for ");
        platform_add(&why, missing);
        str_add(&why, str_span(&b->has));
        return finish(b, ERR_MANIFEST_UNKNOWN, 0);
    }
    b->working = false;
    return op_go(&b->op, BRING_WEIGH);
}

static uint64_t sum_of(uint64_t a, uint64_t b)
{
    return a < INT64_MAX - b ? a + b : INT64_MAX;
}

static void weigh_work(struct job *j)
{
    struct bring *b = CONTAINER_OF(j, struct bring, job);
    sort_things(&b->blobs);
    for (size_t i = 0; i < b->blobs.n; i++)
        b->to_come = sum_of(b->to_come, b->blobs.list[i].size);
    b->fits = store_fits(b->px->shared->store, sum_of(b->arrived, b->to_come));
}

static enum step step_weigh(struct bring *b)
{
    if (op_expects(&b->op, BRING_O_JOB))
        return STEP_WAIT;
    if (!b->working) {
        run_job(b, weigh_work);
        return STEP_WAIT;
    }
    if (!b->fits) { /* its own end would push out its beginning */
        struct str why = STR_INIT(b->why);
        str_addf(&why, "the image has %llu bytes, more than the store can hold (store.max_size, or the disk)",
                 (unsigned long long)sum_of(b->arrived, b->to_come));
        return finish(b, ERR_STORE, 0);
    }
    atomic_store(&b->counts->blobs_all, b->blobs.n);
    return op_go(&b->op, BRING_BLOBS);
}

static enum step step_next(struct bring *b)
{
    if (op_expects(&b->op, BRING_O_FIX))
        return STEP_WAIT;
    if (b->obtain.px == NULL) {
        if (b->manifests.next == b->manifests.n)
            return to_weigh(b);
        obtain(b, &b->obtain, OBTAIN_MANIFEST, &b->manifests.list[b->manifests.next++].digest);
    }
    switch (obtain_step(&b->obtain)) {
    case OBTAIN_WAIT:
        return op_wait(&b->op, BRING_O_NEWS);
    case OBTAIN_FAILED:
        return fail_of(b, &b->obtain.failure, &b->obtain.digest);
    case OBTAIN_DONE:
        break;
    }
    count_fetched(b, &b->obtain);
    struct digest d = b->obtain.digest;
    b->obtain = (struct obtain){0};
    return open_manifest(b, &d);
}

/* ---- blobs ---- */

/* False: it has failed, and the operation has ended. */
static bool slot_step(struct bring *b, struct slot *s)
{
    while (s->busy || b->blobs.next < b->blobs.n) {
        if (!s->busy) {
            if (b->begun++ >= TURN_MAX)
                return true;
            s->busy = true;
            s->thing = b->blobs.list[b->blobs.next++];
            b->to_come -= s->thing.size < b->to_come ? s->thing.size : b->to_come;
            obtain(b, &s->obtain, OBTAIN_BLOB, &s->thing.digest);
        }
        switch (obtain_step(&s->obtain)) {
        case OBTAIN_WAIT:
            return true;
        case OBTAIN_FAILED:
            (void)fail_of(b, &s->obtain.failure, &s->thing.digest);
            return false;
        case OBTAIN_DONE:
            s->busy = false;
            b->arrived += s->obtain.size;
            count_fetched(b, &s->obtain);
            atomic_fetch_add(&b->counts->blobs, 1);
        }
    }
    return true;
}

static enum step step_blobs(struct bring *b)
{
    bool busy = false;
    uint64_t bytes = 0, left = 0;
    b->begun = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        if (!slot_step(b, &b->slots[i]))
            return STEP_MORE;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        const struct slot *s = &b->slots[i];
        uint64_t here = s->busy ? obtain_arrived(&s->obtain) : 0;
        busy = busy || s->busy;
        bytes += here;
        left += s->busy && s->thing.size > here ? s->thing.size - here : 0;
    }
    atomic_store(&b->counts->bytes_all, sum_of(b->arrived + bytes, sum_of(left, b->to_come)));
    atomic_store(&b->counts->bytes, b->arrived + bytes);
    if (b->begun > TURN_MAX &&
        !op_expects(&b->op, BRING_O_TURN)) { /* what is here already must not hold up the loop */
        op_expect(&b->op, BRING_O_TURN);
        defer_start(b->op.core, &b->turn);
    }
    if (busy)
        return op_wait(&b->op, BRING_O_NEWS);
    return b->begun > TURN_MAX ? STEP_WAIT : finish(b, 0, 0);
}

/* ---- the operation ---- */

static void let_go(struct bring *b)
{
    obtain_stop(&b->obtain);
    for (size_t i = 0; i < SLOTS; i++)
        obtain_stop(&b->slots[i].obtain);
    open_cancel(&b->open);
    defer_cancel(&b->turn);
    for (uint32_t bit = BRING_O_TURN; bit <= BRING_O_OPEN; bit <<= 1) {
        if (op_expects(&b->op, bit))
            op_clear(&b->op, bit);
    }
}

static enum step bring_step(struct op *op)
{
    struct bring *b = CONTAINER_OF(op, struct bring, op);
    if (op->closing != 0 && op->state != BRING_END) {
        struct flight_failure f = {.err = op->closing};
        return fail_of(b, &f, NULL);
    }
    switch ((enum bring_state)op->state) {
    case BRING_BEGIN:
        return step_begin(b);
    case BRING_TOP:
        return step_top(b);
    case BRING_NEXT:
        return step_next(b);
    case BRING_OPEN:
        return step_open(b);
    case BRING_READ:
        return step_read(b);
    case BRING_WEIGH:
        return step_weigh(b);
    case BRING_BLOBS:
        return step_blobs(b);
    case BRING_END:
        break;
    }
    let_go(b);
    return STEP_END;
}

static void bring_free(struct op *op)
{
    struct bring *b = CONTAINER_OF(op, struct bring, op);
    if (b->object != NULL)
        open_put(b->px->open, b->object);
    setup_release(b->px, b->from.setup);
    mem_free(b->manifests.list);
    mem_free(b->blobs.list);
    mem_free(b->seen);
    b->done(b->arg, &b->end);
    mem_free(b);
}

static const char *bring_state_name(unsigned state)
{
    static const char *const names[] = {"begin", "top", "next", "open", "read", "weigh", "blobs", "end"};
    return state < ARRAY_LEN(names) ? names[state] : "?";
}

static bool bring_idle(const struct op *op)
{
    UNUSED(op);
    return true; /* no client waits for it */
}

static const struct op_class bring_class = {"bring", bring_step, bring_free, bring_state_name, bring_idle};

static struct span keep(char *to, size_t cap, struct span s)
{
    MUST(s.n < cap);
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    to[s.n] = 0;
    return span_of(to, s.n);
}

struct bring *bring_start(struct proxy *px, const struct bring_what *w)
{
    struct bring *b;
    core_check(px->core);
    NEW(b);
    op_init(&b->op, px->core, &bring_class, BRING_BEGIN);
    b->px = px;
    b->counts = w->counts != NULL ? w->counts : &b->own_counts;
    b->done = w->done;
    b->arg = w->arg;
    b->tag_only = w->tag_only;
    b->checked_before = w->checked_before;
    if (w->like != NULL)
        b->like = *w->like;
    b->has = str_init(b->has_text, sizeof b->has_text);
    b->end.digest.alg = DIGEST_NONE;
    b->from = (struct obtain_from){.setup = setup_hold(px, w->setup),
                                   .rule = w->rule,
                                   .repo = keep(b->repo, sizeof b->repo, w->repo),
                                   .repo_key = keep(b->repo_key, sizeof b->repo_key, w->repo_key)};
    (void)keep(b->reference, sizeof b->reference, w->reference);
    want_platforms(b, w->platforms);
    defer_init(&b->turn, on_turn);
    op_expect(&b->op, BRING_O_TURN);
    defer_start(px->core, &b->turn);
    return b;
}

void bring_close(struct bring *b, int reason)
{
    op_close(&b->op, reason);
}
