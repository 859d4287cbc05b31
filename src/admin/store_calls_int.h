/* What the files of the store's calls share. */
#ifndef LARDER_ADMIN_STORE_CALLS_INT_H
#define LARDER_ADMIN_STORE_CALLS_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "admin/member.h"
#include "admin/names.h"
#include "admin/store_calls.h"
#include "base/mem.h"
#include "store/list.h"
#include "store/verify.h"

#define PAGE_ENTRIES 500 /* of a page; the longest entry is shorter than 2 KiB */
_Static_assert(PAGE_ENTRIES * 2048 < API_ANSWER_MAX, "a page is an answer");

#define CALL_IMAGE_MAX 1024 /* host, repository, tag, digest */
#define FOUND_MAX      1000 /* damaged objects that are named */

struct verify_finding {
    struct digest digest;
    enum verify_found what;
};

struct store_calls {
    struct store_calls_config c;
    atomic_bool stopping;
    pthread_mutex_t pass_lock; /* guards the next six */
    struct verify_pass *pass;  /* NULL: none since start */
    uint64_t pass_id;
    int64_t pass_started_ms;
    bool pass_deep, pass_cancelled;
    pthread_mutex_t found_lock; /* guards the next three; a leaf */
    struct verify_finding found[FOUND_MAX];
    size_t n_found;
    uint64_t found_more;
};

/* The sentence that says why, and its status. */
unsigned call_no(struct str *out, unsigned status, const char *fmt, ...) PRINTF(3, 4);
bool call_flag(struct span query, const char *name); /* name=1 */
/* The image or digest of the parameter `image`. 200, or the status for the sentence in `out`. */
unsigned call_image(struct store_calls *s, struct span query, char text[CALL_IMAGE_MAX],
                    struct names_image *image, struct str *out) MUSTCHECK;

/* Pages: `after` is the place where the one before ended. False: it is no such place. */
bool call_cursor(struct span query, struct list_cursor *cursor) MUSTCHECK;
void call_next(struct str *out, const struct list_cursor *cursor); /* "next", or nothing at the end */

unsigned call_tags(void *arg, struct span query, struct str *out);
unsigned call_images(void *arg, struct span query, struct str *out);
unsigned call_usage(void *arg, struct span query, struct str *out);
unsigned call_pins(void *arg, struct span query, struct str *out);
unsigned call_pin(void *arg, struct span query, struct str *out);
unsigned call_unpin(void *arg, struct span query, struct str *out);
unsigned call_purge(void *arg, struct span query, struct str *out);
unsigned call_verify(void *arg, struct span query, struct str *out);
unsigned call_verify_look(void *arg, struct span query, struct str *out);
unsigned call_objects(void *arg, struct span query, struct str *out);
unsigned call_verify_object(void *arg, struct span query, struct str *out);
unsigned call_verify_cancel(void *arg, struct span query, struct str *out);

#endif
