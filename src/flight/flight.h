/* Flights: one upstream fetch, many readers, any core.
 *
 * Glossary:
 *   flight   what is being fetched, shared by all cores; known by its key while it is under way
 *   leader   the operation that fetches (proxy/fetch.c, proxy/ask.c). It lives on the core of the first asker but does
 *            not depend on that client: the client may leave
 *   view     a flight as one core sees it: the readers there, and a copy of the flight's progress. One message per
 *            core and publication, however many readers
 *   seat     one reader's place in a view
 *   front    how many bytes from the start the leader has written and hashed; the digest is computed along it
 *   ahead    pieces behind the front that were fetched on their own, because a range reader wanted them. Nobody has hashed
 *            them: the front will come over them. Whole-object responses do not see them
 *   tail     the last FLIGHT_TAIL bytes, which a whole-object response does not get before the digest is verified
 *
 * A flight carries either a stream (a blob: bytes go to a partial file and are read from there while they arrive) or an
 * answer (a manifest, a check, a list: whole in memory when it is published).
 *
 *      BUSY --head--> HEAD --verified--> VERIFIED --done--> DONE          (stream)
 *      BUSY -------------answer--------> VERIFIED --done--> DONE          (answer)
 *      BUSY, HEAD --fail--> FAILED
 *      HEAD --unkept--> UNKEPT                                            (stream)
 *
 * UNKEPT: the store takes no more of it, and nothing else is wrong. Readers still get what is in the file, [0, front) and what is
 * ahead; whoever wants more goes on alone, with the state of the digest at the front. So does a reader who has an upstream of its own when
 * the one that is fetched from fails, or stands still: the state at the front is kept all the way.
 *
 * The leader makes the index entry visible before DONE, and DONE takes the flight out of the table; so whoever finds no
 * flight under the table's lock and then looks at the index again cannot fetch a thing twice (flight_join's `recheck`).
 *
 * A failure goes to all who wait, with its reason: the leader has already tried what there was to try, and one client
 * after the other running into the same wall helps nobody.
 *
 * Locks: table shard, then flight; both leaves otherwise, held for pointer work only. core_post is called under the
 * flight's lock: it only takes the mailbox's. */
#ifndef LARDER_FLIGHT_FLIGHT_H
#define LARDER_FLIGHT_FLIGHT_H

#include "base/body.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/ref.h"
#include "core/core.h"
#include "store/extents.h"
#include "store/store.h"

#define FLIGHT_TAIL      (32u << 10)
#define FLIGHT_KEY_MAX   2400
#define FLIGHT_UNKNOWN   UINT64_MAX
#define FLIGHT_QUERY_MAX 1536 /* of a request for a list, and so of the link to its next page */

enum flight_state { FLIGHT_BUSY, FLIGHT_HEAD, FLIGHT_VERIFIED, FLIGHT_DONE, FLIGHT_FAILED, FLIGHT_UNKEPT };

/* Why it failed; plain data. */
struct flight_failure {
    int err;                /* ERR_ code */
    unsigned status;        /* upstream's status, 0: none */
    int64_t retry_after_ms; /* from upstream's Retry-After; -1: none */
};

/* What an answer flight brings. Immutable once published; lives as long as the flight. */
struct flight_answer {
    struct digest digest; /* of a manifest */
    char media[STORE_MEDIA_MAX + 1];
    char *bytes; /* mem_alloc'd, NULL: none; freed with the flight */
    size_t n;
    uint64_t length;  /* of the thing that was asked about, FLIGHT_UNKNOWN */
    struct span name; /* of a list of tags: in bytes, the value of "name" with its quotes; or absent */
    char next[FLIGHT_QUERY_MAX + 1]; /* of a list: the query of its next page; empty: none */
    bool filtered;                   /* referrers: upstream has filtered by artifactType */
    bool unkept;                     /* the store did not take it */
    bool stored;                     /* a check: the tag names `digest`, which the store has; no bytes here */
    bool proved;                     /* whether a repository has it: more than a 200 says so */
};

struct flights; /* the table, shared by all cores */
struct flight;
struct flight_view;

/* ---- the table ---- */

struct flights *flights_new(void);
void flights_free(struct flights *t); /* empty */
unsigned flights_count(struct flights *t);

/* Each core's part; kept in CORE_SLOT_FLIGHT. */
void flight_core_init(struct core *c, struct flights *t);
bool flight_core_idle(struct core *c); /* no view left, and no file is being closed */
void flight_core_free(struct core *c);

/* ---- readers ---- */

struct flight_seat {
    struct list_node node;
    struct flight_view *view;
    bool part;                              /* flight_bytes has been asked for a part */
    void (*wake)(struct flight_seat *seat); /* the view's copy has changed; may leave from within */
};

enum flight_join {
    FLIGHT_NONE,  /* there is none, and the caller did not want to lead */
    FLIGHT_FOUND, /* recheck said that the index has it by now: no seat was taken */
    FLIGHT_JOINED,
    FLIGHT_LEAD /* seated in a new flight: the caller must start its leader now */
};

/* `repo` (copied) is the upstream repository that a new flight is fetched from. may_lead false: only join. recheck may be
 * NULL. */
enum flight_join flight_join(struct core *c, struct span key, struct span repo, bool may_lead,
                             bool (*recheck)(void *arg), void *arg, struct flight_seat *seat) MUSTCHECK;
void flight_leave(struct flight_seat *seat); /* not seated: a no-op */

/* What the seat's core knows of the flight. */
enum flight_state flight_seen(const struct flight_seat *seat);
const struct flight_failure *flight_failure(const struct flight_seat *seat);
const struct flight_answer *flight_answer(const struct flight_seat *seat); /* from VERIFIED on */
uint64_t flight_length(const struct flight_seat *seat); /* from HEAD on; or FLIGHT_UNKNOWN */
struct span flight_repo(const struct flight_seat *seat);
uint64_t flight_front(const struct flight_seat *seat);
/* The digest's state at `at`, which is the front. False: it is not known, because the leader is about to publish more. */
bool flight_upto(const struct flight_seat *seat, uint64_t at, struct hasher *out) MUSTCHECK;
struct flight *flight_of(const struct flight_seat *seat);

/* Bytes of a stream that may be sent now from `off`, as a piece of the partial file. `whole`: part of a whole-object
 * response, so the tail is withheld. BODY_END: off is at the end. BODY_WAIT: the seat's wake will come. BODY_FAIL: FAILED or UNKEPT, and
 * nothing more is there. When the
 * wait may be long because off lies far ahead of the front, the leader is told what is wanted ([off, end)). */
enum body_status flight_bytes(struct flight_seat *seat, uint64_t off, uint64_t end, bool whole,
                              struct body_piece *piece);

/* ---- the leader ---- */

struct flight *flight_ref(struct flight *f);
void flight_unref(struct flight *f);
struct span flight_key(const struct flight *f);

/* `msg` is posted to the leader's core when readers come to want something, or the last one leaves. */
void flight_set_leader(struct flight *f, struct core *core, struct core_msg *msg);
void flight_clear_leader(struct flight *f);

/* The partial file becomes the flight's: it is closed with the flight. */
void flight_set_partial(struct flight *f, const struct partial *p);
struct partial *flight_partial(struct flight *f);

void flight_head(struct flight *f, uint64_t length);
/* [0, at) is hashed, and soon published. A job may call it. */
void flight_hashed(struct flight *f, uint64_t at, const struct hasher *upto);
void flight_publish(struct flight *f, uint64_t front); /* [0, front) is written and hashed */
/* [from, to) is written, ahead of the front. False: too many pieces; the bytes count as not there. */
bool flight_publish_ahead(struct flight *f, uint64_t from, uint64_t to);
void flight_unpublish(struct flight *f); /* before the head only: nothing is there after all */
/* Nothing is ahead any more, because the leader will cut the file to the front. False, and nothing changed: readers of a
 * part may be sending what is ahead. */
bool flight_forget_ahead(struct flight *f);
void flight_verified(struct flight *f, uint64_t length);               /* stream: whole and right */
void flight_answered(struct flight *f, const struct flight_answer *a); /* answer: takes over a->bytes */
void flight_done(struct flight *f);                                    /* out of the table */
void flight_fail(struct flight *f, const struct flight_failure *why);  /* out of the table */
/* Out of the table. What was published stays readable in the file as long as there are readers: it is not cut below that. */
void flight_unkept(struct flight *f);

unsigned flight_readers(struct flight *f);
/* True: nobody reads; the flight is out of the table now and failed, nobody can join any more. */
bool flight_abandon(struct flight *f);
/* The next range that a reader misses and that is not there yet; false: none. */
bool flight_take_want(struct flight *f, uint64_t *from, uint64_t *to);

#endif
