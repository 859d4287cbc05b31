/* The counters that every core keeps for itself; admin sums them when someone asks. One line per counter:
 * field, kind, name without the prefix larder_, help. Labelled ones that come from a table elsewhere
 * (requests by rule) live with their table.
 *
 * Thread: written by the owning core, read by any (relaxed atomics; a sum is not a snapshot). */
#ifndef LARDER_CORE_COUNTERS_H
#define LARDER_CORE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#define COUNTER_TABLE(X)                                                                                     \
    X(connections_accepted, counter, "client_connections_accepted_total", "Client connections accepted")     \
    X(connections_open, gauge, "client_connections_open", "Client connections open now")                     \
    X(connections_refused, counter, "client_connections_refused_total",                                      \
      "Client connections closed at once because the limit was reached")                                     \
    X(accept_pauses, counter, "accept_pauses_total", "Times accepting stopped for want of descriptors")      \
    X(bad_requests, counter, "client_bad_requests_total", "Requests refused as malformed")                   \
    X(client_timeouts, counter, "client_timeouts_total", "Client connections closed by a timeout")           \
    X(client_tls_failures, counter, "client_tls_failures_total", "TLS handshakes of clients that failed")    \
    X(answers_again, counter, "client_answers_again_total",                                                  \
      "Answers that went out in the bytes of the one before")                                                \
    X(answers_cut, counter, "client_answers_cut_total",                                                      \
      "Answers that ended short because the rest of them could not be had")                                  \
    X(bytes_to_clients, counter, "client_sent_bytes_total", "Bytes of responses sent to clients")            \
    X(bytes_from_upstream, counter, "upstream_received_bytes_total",                                         \
      "Bytes of bodies received from upstream")                                                              \
    X(upstream_connects, counter, "upstream_connects_total", "Connections opened to upstream")               \
    X(upstream_connect_failures, counter, "upstream_connect_failures_total",                                 \
      "Connections to upstream that could not be opened")                                                    \
    X(upstream_address_failures, counter, "upstream_address_failures_total",                                 \
      "Addresses of upstream that took no connection, also when another one of the same name did")           \
    X(upstream_proxied, counter, "upstream_proxied_connects_total",                                          \
      "Connections opened to upstream through a proxy")                                                      \
    X(upstream_tls_handshakes, counter, "upstream_tls_handshakes_total",                                     \
      "TLS handshakes with upstream or its proxy that succeeded")                                            \
    X(upstream_tls_resumed, counter, "upstream_tls_resumed_total",                                           \
      "TLS handshakes with upstream that resumed a session")                                                 \
    X(upstream_tls_failures, counter, "upstream_tls_failures_total",                                         \
      "TLS handshakes with upstream or its proxy that failed")                                               \
    X(upstream_reused, counter, "upstream_connections_reused_total",                                         \
      "Requests sent on a kept-alive connection")                                                            \
    X(upstream_retries, counter, "upstream_retries_total", "Requests to upstream that were sent again")      \
    X(upstream_resumes, counter, "upstream_resumes_total", "Transfers resumed with Range after a break")     \
    X(upstream_origins, gauge, "upstream_origins",                                                           \
      "Origins of upstream that are connected to, or of which a TLS session is kept")                        \
    X(upstream_idle, gauge, "upstream_connections_idle", "Kept-alive connections to upstream, idle now")     \
    X(upstream_active, gauge, "upstream_requests_active", "Requests to upstream in progress")                \
    X(upstream_side_fetches, counter, "upstream_side_fetches_total",                                         \
      "Ranges fetched ahead of a fill because a client asked for them")                                      \
    X(passes, counter, "store_passes_total",                                                                 \
      "Requests to upstream for one client alone, because the store took no more")                           \
    X(digest_mismatches, counter, "digest_mismatches_total",                                                 \
      "Upstream contents that did not match their digest")                                                   \
    X(flights_open, gauge, "fetches_in_flight", "Fetches from upstream in progress")                         \
    X(flight_readers, gauge, "fetch_readers", "Clients reading from a fetch in progress")                    \
    X(refreshes, counter, "tag_refreshes_total", "Checks of tags ahead of their time")                       \
    X(stored_objects, counter, "store_objects_added_total", "Objects stored")                                \
    X(stored_bytes, counter, "store_bytes_added_total", "Bytes of objects stored")                           \
    X(store_errors, counter, "store_errors_total", "Reads or writes of the store that failed")               \
    X(cold_windows, counter, "disk_reads_ahead_total",                                                       \
      "Pieces of a file read by a job because they were not in memory")

struct counters {
#define X(field, kind, name, help) _Atomic int64_t field;
    COUNTER_TABLE(X)
#undef X
};

/* Only the owning core writes, so a plain load and store are enough: no locked instruction on the hot path.
 */
#define COUNT(counters, field, n)                                                                            \
    atomic_store_explicit(&(counters)->field,                                                                \
                          atomic_load_explicit(&(counters)->field, memory_order_relaxed) + (int64_t)(n),     \
                          memory_order_relaxed)

#endif
