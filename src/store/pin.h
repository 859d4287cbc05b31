/* What is told to stay, and what is told to go. Blocking, for jobs. */
#ifndef LARDER_STORE_PIN_H
#define LARDER_STORE_PIN_H

#include "store/store.h"

/* ---- pins: in the index, so they survive a restart ---- */

/* By tag: whatever manifest the tag names, now and later. By digest: a manifest or a blob. Either protects all it refers to. What is
 * pinned need not be here yet. 0 or ERR_STORE. Pinning twice, and unpinning what is not, are no errors; *found says. */
int store_pin_tag(struct store *s, struct span repo, struct span tag, struct str *why) MUSTCHECK;
int store_pin_digest(struct store *s, const struct digest *d, struct str *why) MUSTCHECK;
int store_unpin_tag(struct store *s, struct span repo, struct span tag, bool *found,
                    struct str *why) MUSTCHECK;
int store_unpin_digest(struct store *s, const struct digest *d, bool *found, struct str *why) MUSTCHECK;

struct store_pin {
    char repo[STORE_REPO_MAX + 1]; /* "": the digest is pinned */
    char tag[STORE_TAG_MAX + 1];
    struct digest digest; /* of a tag: what it names now; DIGEST_NONE: nothing */
    int64_t since_ms;
};

/* Calls `each` for every pin until it says false. 0 or ERR_STORE. */
int store_each_pin(struct store *s, bool (*each)(const struct store_pin *pin, void *arg),
                   void *arg) MUSTCHECK;

/* ---- purging: the index forgets first, so nobody gets it any more, then the files go ---- */

struct store_purged {
    uint64_t tags, links, objects, bytes;
    uint64_t pinned; /* objects that stay because they are pinned */
};

/* The tag, for all accounts; and, unless another tag names it, its manifest, as store_purge_digest does. With `force` pinned things go, too. */
int store_purge_tag(struct store *s, struct span repo, struct span tag, bool force, struct store_purged *out,
                    struct str *why) MUSTCHECK;
/* The object, its links and tags; of a manifest also what no other manifest refers to. */
int store_purge_digest(struct store *s, const struct digest *d, bool force, struct store_purged *out,
                       struct str *why) MUSTCHECK;
/* The repositories that begin with `prefix` ("docker.io/library/"), and of these the ones that `has`, if there is one, says yes to. */
struct store_repos {
    struct span prefix;
    bool (*has)(struct span repo, void *arg);
    void *arg;
};

/* All their tags and links, and the objects that no repository has any more. */
int store_purge_repos(struct store *s, const struct store_repos *repos, bool force, struct store_purged *out,
                      struct str *why) MUSTCHECK;

#endif
