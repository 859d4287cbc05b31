/* The store: verified content by digest, partial content of fills, and the index.
 *
 *   <path>/oci-layout                   so that other tools can read the pool
 *   <path>/blobs/<algorithm>/<hex>      whole, verified objects (blobs and manifests alike)
 *   <path>/partial/<algorithm>-<hex>    at most one per digest: what a fill has so far
 *   <path>/index/                       LMDB: tags, links, objects
 *   <path>/tmp/                         small objects being written, and second fills; cleared at start
 *   <path>/quarantine/<algorithm>-<hex> objects that were found damaged
 *   <path>/reserve                      space to be given up when the disk is full to the last byte
 *   <path>/lock                         held by the process that serves from this store
 *
 * Names of things:
 *   repo      a repository at upstream as text, "docker.io/library/nginx": canonical registry, "/", repository; or as an account of that
 *             registry sees it, "docker.io/corp/app#NAME": then its tags and links are that account's. Without a name they are what anybody
 *             has seen (and, in a store that an older larder wrote, everybody). What people pin and purge has no account: it is all of them
 *   tag       (repo, tag) -> digest, media type, when upstream last confirmed it
 *   link      (repo, digest) -> media type: this upstream repository has this content. Content is only served through
 *             a rule whose repository is linked to it
 *   object    digest -> size, content sum, when it was stored and last asked for: the content is in blobs/
 *   refs      digest of a manifest -> the digests it names, with their roles: so an image is known as a whole
 *   pin       (repo, tag) or digest: with all it refers to it is never evicted (pin.h)
 *   suspect   an object that may not be what the index says: stored right before the machine or the process stopped
 *             uncleanly, or found as a file without an entry. It is verified before it is served
 *
 * An object is durable (fdatasync, rename, directory sync) before the index names it, so a crash leaves nothing, a
 * partial file, or the whole object. When objects go, the index forgets them first, and the files follow; what a crash
 * leaves of that is found at the next start by comparing blobs/ with the index, in the background.
 *
 * An index that is lost, unreadable, or of a larder to come is moved aside and made anew from the files: objects come back as
 * suspects without links (one question to upstream brings a link back); tags come back as they are asked for.
 *
 * Thread: the handle is shared by all cores. Look-ups go through a reader that belongs to one core and never
 * block on a lock. Changes are queued to one writer thread, which commits what has gathered as one transaction. */
#ifndef LARDER_STORE_STORE_H
#define LARDER_STORE_STORE_H

#include "base/digest.h"
#include "base/err.h"
#include "base/span.h"
#include "core/core.h"
#include "store/sum.h"

#define STORE_REPO_MAX  646 /* registry (261), "/", repository (255), "#", account (128) */
#define STORE_ACCOUNT   '#'
#define STORE_TAG_MAX   128
#define STORE_MEDIA_MAX 255

struct store;

/* Without the account. */
static inline struct span store_repo_plain(struct span repo)
{
    ptrdiff_t at = span_find(repo, STORE_ACCOUNT);
    return at >= 0 ? span_sub(repo, 0, (size_t)at) : repo;
}

/* Opens or creates; blocking, before the cores start. NULL: `why` says what failed, with the path (not writable,
 * used by process N since when, a file where a folder is expected, ...). Nothing that takes long with many objects, but for the
 * making anew of a lost index. The store's own threads (the writer of the index; the keeper, see evict.h) start here. */
struct store *store_open(struct span path, struct str *why) MUSTCHECK;
/* After the cores have ended. Waits for queued changes. */
void store_close(struct store *s);

struct store_totals {
    uint64_t objects, bytes; /* whole objects */
    uint64_t damaged;        /* times a record of the index was found damaged since start */
    uint64_t partials, partial_bytes;
    uint64_t quarantined, quarantined_bytes;
    uint64_t evicted, evicted_bytes; /* objects, since start */
    uint64_t used;                   /* bytes of all of these: what the limit is about */
};
void store_totals(struct store *s, struct store_totals *out); /* any thread, cheap */

/* Grows with every change of the index, before the change's `done` is called: what was looked up at the same number is still so. Any
 * thread, cheap. */
uint64_t store_version(struct store *s);

/* ---- look-ups (a core's own reader) ---- */

struct store_reader;

/* A reader is used by one thread at a time. All are freed before store_close. */
struct store_reader *store_reader_new(struct store *s);
void store_reader_free(struct store_reader *r);
/* For a reader that lives long: what it finds is found again without the index, while that does not change. Costs less than a MiB. */
void store_reader_remember(struct store_reader *r);

struct store_tag {
    struct digest digest;
    int64_t checked_ms; /* wall clock */
    bool others;        /* it was not checked for the account that it was looked up for */
    char media[STORE_MEDIA_MAX + 1];
};

struct store_link {
    /* Of a manifest, as upstream served it in this repository; "" for a blob. */
    char media[STORE_MEDIA_MAX + 1];
};

enum store_kind { STORE_BLOB, STORE_CONFIG, STORE_MANIFEST, STORE_INDEX, STORE_KINDS };

struct store_object {
    uint64_t size;
    int64_t stored_ms;
    int64_t access_ms; /* coarse: see store_touch */
    uint32_t hits;     /* touches, about as old as access_ms */
    enum store_kind kind;
    bool suspect;           /* to be verified before it is served (open_get does) */
    struct content_sum sum; /* known or not */
};

/* False: not there (a damaged record counts as not there and is logged, when it is read). An account that has no tag or link of its own gets what anybody has
 * seen: what anybody may read, it may, too. */
bool store_get_tag(struct store_reader *r, struct span repo, struct span tag,
                   struct store_tag *out) MUSTCHECK;
bool store_get_link(struct store_reader *r, struct span repo, const struct digest *d,
                    struct store_link *out) MUSTCHECK;
bool store_get_object(struct store_reader *r, const struct digest *d, struct store_object *out) MUSTCHECK;

/* The object was asked for, at core_now. A few instructions in a table of the reader: the index hears of it within a
 * minute or so, and before anything is evicted. */
void store_touch(struct store_reader *r, const struct digest *d, int64_t now_ms);

/* ---- changes ---- */

enum store_role { REF_CONFIG, REF_LAYER, REF_MANIFEST, REF_SUBJECT, STORE_ROLES };

#define STORE_REFS_MAX 10000

struct store_ref {
    struct digest digest;
    enum store_role role;
    uint64_t size; /* as the manifest says; 0: it does not */
};

/* One atomic change of the index, embedded in its owner, with everything it needs by value. `done` runs on `core`
 * when the change is durable (or failed: err), exactly once. */
struct store_change {
    struct core_msg msg;
    struct list_node node;
    struct core *core;
    void (*done)(struct store_change *c);
    int err; /* 0 or ERR_STORE */

    unsigned what;           /* CHANGE_ bits, carried out in this order */
#define CHANGE_PUT_OBJECT 1u /* digest, size, kind, sum */
#define CHANGE_PUT_LINK                                                                                      \
    2u /* repo, digest, media; with a media type a blob of the index becomes a manifest or index */
#define CHANGE_PUT_TAG 4u /* repo, tag, digest, media, checked_ms */
#define CHANGE_DEL_TAG 8u /* repo, tag */
#define CHANGE_PUT_REFS                                                                                      \
    16u /* digest (of a manifest), refs: all that it names; more than STORE_REFS_MAX are cut */
    struct digest digest;
    uint64_t size;
    enum store_kind
        kind; /* what is known; a blob that a manifest named as configuration becomes one by itself */
    struct content_sum sum;       /* if the job that hashed computed it; else verifying fills it in */
    const struct store_ref *refs; /* the caller's, until `done` */
    size_t n_refs;
    int64_t checked_ms;
    char repo[STORE_REPO_MAX + 1];
    char tag[STORE_TAG_MAX + 1];
    char media[STORE_MEDIA_MAX + 1];
};

/* Any core. */
void store_apply(struct store *s, struct core *core, struct store_change *c,
                 void (*done)(struct store_change *c));

/* ---- partial files: blocking calls, for jobs only ---- */

/* Why a file could not be written. A full disk has been answered already: what can be evicted has been, and the write was tried
 * again. So with any of them the bytes go to the client and are not kept. See health.h. */
enum store_fault {
    FAULT_NONE,
    FAULT_FULL,     /* no space, no inodes, or the quota is used up */
    FAULT_READONLY, /* the file system takes no writes */
    FAULT_FAILING,  /* input/output errors and all else */
    FAULT_BUSY      /* no descriptors or no memory just now: the store is not to blame */
};

/* One fill's file. Owner: the flight. Calls on one partial must not overlap, except that readers may read from fd at
 * any time, and that two writes may overlap in time if they do not overlap in place. */
struct partial {
    struct store *store;
    struct digest digest;
    int fd;         /* open for reading and writing */
    uint64_t front; /* at open: bytes from 0 on that an earlier fill left (never more than were written) */
    uint64_t block; /* what the file system tells holes in; a power of two, mostly 4096 */
    _Atomic enum store_fault fault; /* of the last call that failed; writes may be at work at once */
    struct store_hold *hold;        /* the store's */
    unsigned second;                /* the number of its file in tmp/; 0: it is in partial/ */
};

/* Opens what an earlier fill left, or creates. The front after a kill is found with SEEK_HOLE and rounded down so
 * that no byte that was never written counts; what lies behind it is cut off. 0 or an ERR_ code, errno text in `why`. */
int partial_open(struct store *s, const struct digest *d, struct partial *out, struct str *why) MUSTCHECK;
/* For a second fill beside one that is under way: an empty file of its own, which nobody goes on with later: what is not committed goes when it
 * is kept or closed. */
int partial_open_second(struct store *s, const struct digest *d, struct partial *out,
                        struct str *why) MUSTCHECK;
/* The file will have so many bytes, or (of an unknown length) has as many by now, as far as is known. False: together with the other fills
 * under way that is more than the limits (evict.h) leave when all that may be evicted has gone: the fill should end, and not be kept.
 * What is expected counts until partial_commit, partial_keep, partial_discard or partial_close. */
bool partial_expect(struct partial *p, uint64_t bytes) MUSTCHECK;
/* An extent ahead of the front starts on a multiple of 64 KiB and of `block`. While there are extents ahead, a write ends
 * on a multiple of `block`, or where an extent begins, or at the end of the content: a missing part that is smaller
 * than a block and lies below an extent would be no hole, and would count as written after a kill. */
int partial_write(struct partial *p, uint64_t off, const void *bytes, size_t n, struct str *why) MUSTCHECK;
/* The content is verified and `size` bytes long: sync, rename into blobs/, sync the directory. The descriptor
 * stays open. A file of another length is a bug, and ERR_STORE. */
int partial_commit(struct partial *p, uint64_t size, struct str *why) MUSTCHECK;
/* Keeps [0, front) for a later fill (truncates what lies behind); with front 0 there is nothing to keep, and the file is
 * removed. Closes nothing. */
void partial_keep(struct partial *p, uint64_t front);
/* Cuts the file to [0, front) while the fill may still go on. 0 or ERR_STORE. */
int partial_cut(struct partial *p, uint64_t front, struct str *why) MUSTCHECK;
/* Begins anew with an empty file; whoever still reads the old one keeps it. The old descriptor is closed. 0 or ERR_STORE. */
int partial_renew(struct partial *p, struct str *why) MUSTCHECK;
void partial_discard(struct partial *p); /* removes the file, closes nothing */
void partial_close(struct partial *p);   /* the descriptor; after the last reader */

/* After partial_commit or store_write_object comes CHANGE_PUT_OBJECT, soon: until then the file is nobody's, and after ten
 * minutes it may be taken for a leftover.
 *
 * A small object that is whole in memory (a manifest) and verified: written, synced, renamed over whatever is there,
 * directory synced. Blocking. */
int store_write_object(struct store *s, const struct digest *d, struct span content,
                       struct str *why) MUSTCHECK;

/* The file of an object that the index has as `was` is missing or damaged: the index forgets it, and what there is of it is moved to
 * quarantine/. False, and nothing is done: the index says something else by now (somebody has fetched it again, or was here first), or the
 * file is just being placed or removed. Blocking, for jobs. */
bool store_condemn(struct store *s, const struct digest *d, const struct store_object *was);

#endif
