/* What is in the store, for people: in steps, each a snapshot of its own, so that a list of a million entries neither holds the
 * index nor much memory. What changes between two steps may be seen or not; what does not is seen exactly once.
 * Blocking, for jobs. A step looks at LIST_STEP records at most, whatever comes of it. */
#ifndef LARDER_STORE_LIST_H
#define LARDER_STORE_LIST_H

#include "store/store.h"

#define LIST_STEP 10000

/* Zeroed: the beginning. */
struct list_cursor {
    bool end;
    size_t n;
    unsigned char key[512]; /* the last one seen */
};

/* An image: a manifest or an index, with all it refers to. Each object counts once. */
struct store_image {
    enum store_kind kind;
    uint64_t objects, bytes;   /* as the manifests say, itself included */
    uint64_t here, bytes_here; /* of these, what is in the store */
    unsigned manifests,
        complete; /* manifests below it (a manifest: itself), and how many of them have all their blobs here */
    int64_t stored_ms, access_ms;
    uint32_t hits;
    bool known;  /* what it refers to is known */
    bool pinned; /* itself or by what refers to it */
};

/* What is pinned now, with all below it: as much memory as that has objects. For as many images as a question is about. */
struct pinned;
struct pinned *store_pinned(struct store *s);
void store_pinned_free(struct pinned *p); /* NULL is a no-op */

/* What a tag of a repository (without an account) names, for whichever account it was checked last. */
bool store_any_tag(struct store *s, struct span repo, struct span tag, struct store_tag *out) MUSTCHECK;
/* Has any account seen it there? */
bool store_any_link(struct store *s, struct span repo, const struct digest *d);

/* False: no such manifest. pins: NULL: out->pinned is not looked at. */
bool store_image(struct store *s, const struct digest *d, const struct pinned *pins,
                 struct store_image *out) MUSTCHECK;

struct list_tag {
    char repo[STORE_REPO_MAX + 1];
    char tag[STORE_TAG_MAX + 1];
    char media[STORE_MEDIA_MAX + 1];
    struct digest digest;
    int64_t checked_ms;
};

/* Up to `max` tags of repositories that begin with `prefix`, by repository and tag (names over 500 bytes last). How many; none: look at
 * cursor->end. */
size_t store_list_tags(struct store *s, struct span prefix, struct list_cursor *cursor, struct list_tag *out,
                       size_t max);

struct list_object {
    struct digest digest;
    struct store_object object;
};

/* All objects by digest; `kinds` has bits 1 << enum store_kind of what is wanted. */
size_t store_list_objects(struct store *s, unsigned kinds, struct list_cursor *cursor,
                          struct list_object *out, size_t max);

struct list_link {
    struct digest digest;
    char repo[STORE_REPO_MAX + 1];
    char media[STORE_MEDIA_MAX + 1];
};

/* Links of repositories that begin with `prefix`, by digest. So a sum by repository is one pass. */
size_t store_list_links(struct store *s, struct span prefix, struct list_cursor *cursor,
                        struct list_link *out, size_t max);

#endif
