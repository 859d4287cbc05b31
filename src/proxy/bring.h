/* A whole image, brought into the store without a client: its manifests, for some platforms, and then what they refer to, three at a
 * time. Through obtain.h, so nothing is fetched twice, and clients that pull the same meanwhile share it.
 *
 * Owner: itself, until it has called `done`. Thread: the core's. */
#ifndef LARDER_PROXY_BRING_H
#define LARDER_PROXY_BRING_H

#include "proxy/proxy_int.h"

struct bring;

/* How far it is; written by its core, read by any thread. */
struct bring_counts {
    _Atomic uint64_t manifests;        /* that are here */
    _Atomic uint64_t blobs, blobs_all; /* that are here, that belong to it; 0 until all manifests are read */
    _Atomic uint64_t bytes, bytes_all; /* the same of all content, as far as it is known */
    _Atomic uint64_t fetched;          /* objects that were not here before */
    _Atomic uint64_t fetched_bytes;
};

struct bring_end {
    struct digest digest; /* of the reference; DIGEST_NONE: not known */
    int err;              /* 0: all of it is here */
    unsigned status;      /* upstream's, 0: none */
    const char *why;      /* a sentence, if err */
};

struct bring_what {
    struct setup *setup; /* the caller holds it; bring takes a hold of its own */
    const struct conf_rule *rule;
    struct span repo, repo_key, reference; /* copied */
    bool tag_only;                         /* no more than the manifest that the tag names */
    struct span platforms;       /* "linux/amd64,linux/arm64" (copied), "all"; absent: this machine's */
    const struct digest *like;   /* instead: the platforms that are here of this index; NULL */
    int64_t checked_before;      /* as in obtain.h */
    struct bring_counts *counts; /* stays until done; NULL */
    void (*done)(void *arg, const struct bring_end *end); /* once, later */
    void *arg;
};

/* "all", or a list of platforms (registry/platform.h)? */
bool bring_platforms_ok(struct span platforms) MUSTCHECK;

struct bring *bring_start(struct proxy *px, const struct bring_what *what);
void bring_close(struct bring *b, int reason); /* a request: `done` comes now or later */

#endif
