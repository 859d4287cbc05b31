/* See api.h. A call on the pool is a `work`, which owns copies of all that the exchange had; the exchange may be gone when it is done. */
#include "admin/api.h"

#include "base/mem.h"
#include "core/address.h"

struct work {
    struct job job;
    struct api *api;
    const struct api_call *call;
    struct exchange *x;
    bool gone; /* the client has left */
    unsigned status;
    struct str out;
    char query[API_QUERY_MAX];
    size_t query_n;
};

static void send_json(struct exchange *x, unsigned status, struct span json)
{
    exchange_begin(x, status);
    exchange_field(x, SPAN("Content-Type"), SPAN("application/json"));
    exchange_field(x, SPAN("Cache-Control"), SPAN("no-store"));
    exchange_send(x, json.n, body_of_text(json), false);
}

static void send_error(struct exchange *x, unsigned status, struct span why)
{
    char text[2048];
    struct str s = STR_INIT(text);
    str_add(&s, SPAN("{\"error\":\""));
    str_addjson(&s, span_sub(why, 0, 600)); /* six bytes for one at most */
    str_add(&s, SPAN("\"}\n"));
    send_json(x, status, str_span(&s));
}

static void send_outcome(struct exchange *x, unsigned status, const struct str *out)
{
    if (status == 200 && out->cut)
        send_error(x, 500, SPAN("the answer is too long; ask for less at once"));
    else if (status == 200)
        send_json(x, 200, str_span(out));
    else
        send_error(x, status, str_span(out));
}

/* ---- on the pool ---- */

static void on_work(struct job *j)
{
    struct work *w = CONTAINER_OF(j, struct work, job);
    w->status = w->call->run(w->call->arg, span_of(w->query, w->query_n), &w->out);
}

static void on_done(struct job *j)
{
    struct work *w = CONTAINER_OF(j, struct work, job);
    w->api->running--;
    if (w->gone)
        exchange_drop(w->x);
    else
        send_outcome(w->x, w->status, &w->out);
    mem_free(w->out.p);
    mem_free(w);
}

static void on_gone(struct exchange *x)
{
    struct work *w = x->user;
    w->gone = true;
}

static void run_on_pool(struct api *api, struct exchange *x, const struct api_call *call, struct span query)
{
    struct work *w = mem_alloc(sizeof *w);
    memset(w, 0, offsetof(struct work, query));
    w->api = api;
    w->call = call;
    w->x = x;
    w->out = str_init(mem_alloc(API_ANSWER_MAX), API_ANSWER_MAX);
    w->query_n = query.n;
    if (query.n > 0)
        memcpy(w->query, query.p, query.n);
    x->user = w;
    x->gone = on_gone;
    api->running++;
    job_start(x->core, &w->job, on_work, on_done);
}

/* ---- requests ---- */

static const struct api_call *call_named(const struct api *api, struct span name)
{
    for (size_t i = 0; i < api->n_calls; i++) {
        if (span_eq(name, span_str(api->calls[i].name)))
            return &api->calls[i];
    }
    return NULL;
}

bool api_is_from_here(const struct api *api, struct span peer)
{
    return span_starts(peer, SPAN("127.")) || span_starts(peer, SPAN("[::1]:")) ||
           span_starts(peer, SPAN("[::ffff:127.")) ||
           (api->own[0] != 0 && span_starts(peer, span_str(api->own)));
}

bool api_is_own_host(struct span host)
{
    enum address_kind kind;
    ptrdiff_t colon = span_rfind(host, ':');
    bool port = colon >= 0 && span_find(span_from(host, (size_t)colon), ']') < 0;
    struct span name = port ? span_sub(host, 0, (size_t)colon) : host;
    if (span_starts(name, SPAN("[")) && span_ends(name, SPAN("]")))
        name = span_sub(name, 1, name.n - 2);
    return host.p == NULL || span_ieq(name, SPAN("localhost")) || span_ieq(name, SPAN("larder")) ||
           address_kind_of_text(name, &kind);
}

void api_request(struct api *api, struct exchange *x, struct span name, struct span query)
{
    const struct api_call *call = call_named(api, name);
    bool post = span_eq(x->req.method_name, SPAN("POST"));
    if (!api_is_own_host(h1_get(&x->req, SPAN("host")))) {
        send_error(x, 403, SPAN("the API is asked by an IP address or localhost, not by another name"));
        return;
    }
    if (call == NULL) {
        send_error(x, 404,
                   SPAN("no such call; larder's commands and this server are of different versions?"));
        return;
    }
    if (call->order != post) {
        send_error(x, 405, post ? SPAN("this call is asked with GET") : SPAN("this call is asked with POST"));
        return;
    }
    if (post && !span_eq(h1_get(&x->req, SPAN("larder-admin")), SPAN("1"))) {
        send_error(x, 403, SPAN("an order needs the header Larder-Admin: 1"));
        return;
    }
    char peer_text[64];
    struct str peer = STR_INIT(peer_text);
    exchange_peer(x, &peer);
    if (post && !api_is_from_here(api, str_span(&peer))) {
        send_error(x, 403,
                   SPAN("orders are taken from this machine only; run the command where larder runs"));
        return;
    }
    if (query.n > API_QUERY_MAX) {
        send_error(x, 414, SPAN("the query is too long"));
        return;
    }
    if (call->job && api->running >= API_RUNNING_MAX) {
        send_error(x, 503, SPAN("larder is busy with other commands; try again when they have ended"));
        return;
    }
    if (call->job) {
        run_on_pool(api, x, call, query);
        return;
    }
    struct str out = str_init(mem_alloc(API_ANSWER_MAX), API_ANSWER_MAX);
    unsigned status = call->run(call->arg, query, &out);
    send_outcome(x, status, &out);
    mem_free(out.p);
}

/* ---- parameters ---- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool decode(struct span raw, struct str *out)
{
    for (size_t i = 0; i < raw.n; i++) {
        if (raw.p[i] != '%') {
            str_addc(out, raw.p[i]);
            continue;
        }
        int high = i + 1 < raw.n ? hex_value(raw.p[i + 1]) : -1;
        int low = i + 2 < raw.n ? hex_value(raw.p[i + 2]) : -1;
        if (high < 0 || low < 0 || high + low == 0)
            return false;
        str_addc(out, (char)(high * 16 + low));
        i += 2;
    }
    return !out->cut;
}

bool api_parameter(struct span query, struct span name, struct str *out)
{
    struct span rest = query, part;
    while (span_next(&rest, '&', &part)) {
        ptrdiff_t equals = span_find(part, '=');
        if (equals >= 0 && span_eq(span_sub(part, 0, (size_t)equals), name))
            return decode(span_from(part, (size_t)equals + 1), out);
    }
    return false;
}

bool api_given(struct span query, struct span name)
{
    struct span rest = query, part;
    while (span_next(&rest, '&', &part)) {
        ptrdiff_t equals = span_find(part, '=');
        if (equals >= 0 && span_eq(span_sub(part, 0, (size_t)equals), name))
            return true;
    }
    return false;
}

bool api_optional(struct span query, const char *name, struct str *value, struct str *out)
{
    if (!api_given(query, span_str(name)) || api_parameter(query, span_str(name), value))
        return true;
    str_reset(out);
    str_addf(out, "the parameter %s is too long or not encoded well", name);
    return false;
}
