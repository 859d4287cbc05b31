/* A transfer: the bytes of one blob, in order, over as many requests as it takes. When upstream breaks off it goes on with Range; when
 * upstream does not honour Range it reads over what is there; of several endpoints the next one is asked. What is done with the bytes is the owner's: fetch.c writes
 * them into a partial file, pass.c hands them to one client.
 *
 *   transfer_send      a request for what lies from `front` on
 *   transfer_head      its answer is looked at
 *   transfer_skip      for all that is read: what is there already is thrown away
 *   transfer_again     it broke (upstream_stop has been called): is it worth another request?
 *
 * Thread: the core's. */
#ifndef LARDER_PROXY_TRANSFER_H
#define LARDER_PROXY_TRANSFER_H

#include "proxy/proxy_int.h"

#define TRANSFER_TRIES 6 /* attempts in a row at an upstream that is there, without progress */

struct transfer {
    struct upstream_try t;
    struct digest digest;
    uint64_t front;  /* the owner's: it has what lies before */
    uint64_t end;    /* where it stops wanting; UINT64_MAX: at the end of the blob */
    uint64_t length; /* of the blob, once length_known */
    uint64_t skip;   /* bytes to throw away: upstream ignored Range */
    bool length_known;
    bool headed;   /* the owner's: a client has been told the length, or that there is a blob */
    bool no_range; /* upstream refused Range: read over what is there instead */
    /* core_now of the last byte that was thrown away; the owner's: of the last new one, or when it began to want more. */
    int64_t progress_ms;

    /* its own */
    unsigned tries;    /* since the last progress: upstream was there in vain */
    unsigned waits;    /* ... it was not there, or wanted to be asked later */
    uint64_t tried_at; /* front at the last attempt */
    bool there;        /* it got a head */
};

/* The owner holds `setup`, which has the rule. */
void transfer_init(struct transfer *x, struct proxy *px, struct setup *setup, const struct conf_rule *rule,
                   struct span repo, const struct digest *d);
void transfer_send(struct transfer *x, void (*event)(struct call *call));

enum transfer_next {
    TRANSFER_WAIT,
    TRANSFER_BODY,   /* read it */
    TRANSFER_ALL,    /* nothing lies behind front, it seems: 416. Nobody has seen a head */
    TRANSFER_BEYOND, /* the blob ends before front. Nobody has seen a head */
    TRANSFER_BROKEN  /* see t.failure */
};

enum transfer_next transfer_head(struct transfer *x);
/* Of `got` bytes that were read into buf: how many are new; they are moved to its beginning. */
size_t transfer_skip(struct transfer *x, char *buf, size_t got);
/* All that has come, from the beginning of the blob, has that digest and not the wanted one. */
void transfer_mismatch(struct transfer *x, const struct digest *got);
bool transfer_again(struct transfer *x);
int64_t transfer_pause_ms(const struct transfer *x); /* to wait before that */

#endif
