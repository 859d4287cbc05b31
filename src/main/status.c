/* How everything is, for larder status. */
#include "admin/member.h"
#include "base/clock.h"
#include "main/calls.h"
#include "main/reload.h"
#include "proxy/report.h"
#include "store/evict.h"
#include "store/health.h"

static void add_store(const struct calls_context *c, struct str *out)
{
    struct store_totals t;
    struct store_health h;
    struct store_scrub scrub;
    store_totals(c->store, &t);
    store_health(c->store, &h);
    store_scrub_now(c->store, &scrub);
    member_count(out, "objects", t.objects);
    member_count(out, "bytes", t.bytes);
    member_count(out, "partials", t.partials);
    member_count(out, "partial_bytes", t.partial_bytes);
    member_count(out, "quarantined", t.quarantined);
    member_count(out, "quarantined_bytes", t.quarantined_bytes);
    member_count(out, "used", t.used);
    member_count(out, "evicted", t.evicted);
    member_count(out, "evicted_bytes", t.evicted_bytes);
    member_text(out, "store", span_str(store_fault_name(h.fault)));
    member_number(out, "store_since_ms", h.since_ms);
    member_count(out, "store_failures", h.failures);
    member_text(out, "store_error", h.fault != FAULT_NONE ? span_str(strerror(h.error)) : SPAN_NONE);
    member_count(out, "scrub_objects", scrub.objects);
    member_count(out, "scrub_bytes", scrub.bytes);
    member_count(out, "scrub_damaged", scrub.damaged);
    member_count(out, "scrub_rounds", scrub.rounds);
}

static void add_cores(const struct calls_context *c, struct str *out)
{
    int64_t connections = 0, fetches = 0, readers = 0;
    for (unsigned i = 0; i < c->workers; i++) {
        const struct counters *n = core_counters(c->cores[i]);
        connections += atomic_load_explicit(&n->connections_open, memory_order_relaxed);
        fetches += atomic_load_explicit(&n->flights_open, memory_order_relaxed);
        readers += atomic_load_explicit(&n->flight_readers, memory_order_relaxed);
    }
    member_number(out, "connections", connections);
    member_number(out, "fetches", fetches);
    member_number(out, "fetch_readers", readers);
}

static void add_configuration(const struct calls_context *c, struct str *out)
{
    struct reload_state_now now;
    reload_look(c->reload, &now);
    member_bool(out, "stopping", c->stopping);
    member_bool(out, "config_good", now.good);
    member_number(out, "config_taken_ms", now.good_ms);
    member_text(out, "config_error", now.good ? SPAN_NONE : span_str(now.why));
}

unsigned status_call(void *arg, struct span query, struct str *out)
{
    const struct calls_context *c = arg;
    UNUSED(query);
    str_addc(out, '{');
    member_text(out, "version", span_str(c->version));
    member_number(out, "started_ms", c->started_ms);
    member_number(out, "now_ms", clock_wall_ms());
    member_number(out, "workers", c->workers);
    add_store(c, out);
    add_cores(c, out);
    add_configuration(c, out);
    member_comma(out);
    report_troubles(c->shared, out);
    str_addz(out, "}\n");
    return 200;
}
