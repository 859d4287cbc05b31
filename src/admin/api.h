/* The admin API: what larder's own commands (and later a web page) ask a running server, as JSON over HTTP on the admin address.
 *
 *   GET  /api/v1/NAME?parameters    looks
 *   POST /api/v1/NAME?parameters    changes something. It must carry the header "Larder-Admin: 1", which no page of another site can
 *                                   make a browser send, and come from this machine; parameters stand in the query as well, there is no
 *                                   body
 *
 * Host has to be an IP address, "localhost", or "larder", which is what the commands send: a page whose own name has been made to lead
 * here (DNS rebinding) comes with that name, and gets nothing.
 *
 * The answer is JSON with status 200, or {"error": "a sentence"} with 400 (the question is wrong), 403, 404 (there is no such thing), 409 or
 * 503. Long lists come in pages: the answer's "next", given as `after`, leads to the next one.
 *
 * Calls are a table that main makes of what the rooms offer. A call runs on the main core, or, when it may wait for a disk, on the pool.
 * Thread: as said. */
#ifndef LARDER_ADMIN_API_H
#define LARDER_ADMIN_API_H

#include "base/str.h"
#include "core/core.h"
#include "http/server.h"

#define API_ANSWER_MAX  (1u << 20)
#define API_QUERY_MAX   4096
#define API_RUNNING_MAX 4 /* calls on the pool at a time, which serves clients as well */

struct api_call {
    const char *name; /* behind /api/v1/ */
    bool order;       /* POST */
    bool job;         /* on the pool */
    /* Writes JSON, or for another status than 200 the sentence that says why. query: raw, see api_parameter. */
    unsigned (*run)(void *arg, struct span query, struct str *out);
    void *arg;
};

struct api {
    const struct api_call *calls;
    size_t n_calls;
    char own[64]; /* the address that is listened on, as a peer's begins which has it, too: "192.0.2.1:" */
    unsigned running; /* on the pool: the admin waits for them when it stops */
};

/* Answers a request below /api/v1/; `name` is the rest of its path. */
void api_request(struct api *api, struct exchange *x, struct span name, struct span query);

/* Orders are for this machine, whatever address the admin listens on: whoever may connect from elsewhere may look, and not touch. Who
 * connects to an address of this machine from the same one is here. peer: as exchange_peer writes it. */
bool api_is_from_here(const struct api *api, struct span peer);

/* Is this field Host one that no page of another site can send? Absent: nor can it leave it out. */
bool api_is_own_host(struct span host);

/* The decoded value of a parameter, appended to out. False: it is not there, or is no good encoding, or does not fit. Any
 * thread. */
bool api_parameter(struct span query, struct span name, struct str *out) MUSTCHECK;
bool api_given(struct span query, struct span name); /* ... is it there at all? */
/* Reads a parameter that may be missing: then *value is "". False: it is there, and too long or badly encoded; `out` is the sentence that
 * says so, for a 400. */
bool api_optional(struct span query, const char *name, struct str *value, struct str *out) MUSTCHECK;

#endif
