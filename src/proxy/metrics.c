/* The labelled counters as text (Prometheus exposition format 0.0.4): all lines of a family together. */
#include "base/mem.h"
#include "proxy/proxy_int.h"
#include "proxy/secrets.h"

static void add_label(struct str *out, const char *name, struct span value)
{
    str_addz(out, name);
    str_add(out, SPAN("=\""));
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '"' || value.p[i] == '\\')
            str_addc(out, '\\');
        str_addc(out, value.p[i]);
    }
    str_addc(out, '"');
}

/* What alerts are about is there before it happens for the first time: an increase from nothing is none. */
static bool from_the_start(const struct conf *conf, size_t rule, unsigned kind, unsigned result)
{
    return rule < conf->n_rules && (kind == KIND_MANIFEST || kind == KIND_BLOB) &&
           (result == RESULT_STALE || result == RESULT_ERROR);
}

static void requests(const struct setup *s, unsigned n_cores, struct str *out)
{
    str_add(out, SPAN("# HELP larder_requests_total Requests answered, by rule, kind and what the cache did\n"
                      "# TYPE larder_requests_total counter\n"));
    const struct conf *conf = setup_conf(s);
    for (size_t r = 0; r <= conf->n_rules; r++) {
        for (unsigned k = 0; k < KINDS; k++) {
            for (unsigned c = 0; c < RESULTS; c++) {
                int64_t n = 0;
                for (unsigned i = 0; i < n_cores; i++)
                    n += atomic_load_explicit(&setup_rule_counts(s, r, i)->n[k][c], memory_order_relaxed);
                if (n == 0 && !from_the_start(conf, r, k, c))
                    continue;
                str_add(out, SPAN("larder_requests_total{"));
                add_label(out, "rule", r < conf->n_rules ? conf->rules[r].name : SPAN(""));
                add_label(out, ",kind", span_str(proxy_kind_name[k]));
                add_label(out, ",cache", span_str(proxy_result_name[c]));
                str_add(out, SPAN("} "));
                str_addi(out, n);
                str_addc(out, '\n');
            }
        }
    }
}

static const char *const class_name[STATUS_CLASSES] = {"none", "2xx", "3xx", "4xx", "429", "5xx"};

static void responses(const struct proxy_shared *s, struct str *out)
{
    str_add(out, SPAN("# HELP larder_responses_total Requests answered, by class of the status\n"
                      "# TYPE larder_responses_total counter\n"));
    for (unsigned c = STATUS_2XX; c < STATUS_CLASSES; c++) {
        int64_t n = 0;
        for (unsigned i = 0; i < s->n_cores; i++)
            n += atomic_load_explicit(&s->stats[i].statuses[c], memory_order_relaxed);
        str_addf(out, "larder_responses_total{status=\"%s\"} %lld\n", class_name[c], (long long)n);
    }
}

static void upstreams(const struct setup *s, unsigned n_cores, struct str *out)
{
    str_add(out, SPAN("# HELP larder_upstream_requests_total Requests to upstream, by registry and class of "
                      "the status\n"
                      "# TYPE larder_upstream_requests_total counter\n"));
    const struct conf *conf = setup_conf(s);
    for (size_t u = 0; u < conf->n_upstreams; u++) {
        for (unsigned c = 0; c < STATUS_CLASSES; c++) {
            int64_t n = 0;
            for (unsigned i = 0; i < n_cores; i++)
                n += atomic_load_explicit(&setup_upstream_counts(s, &conf->upstreams[u], i)->n[c],
                                          memory_order_relaxed);
            str_add(out, SPAN("larder_upstream_requests_total{"));
            add_label(out, "registry", conf->upstreams[u].registry);
            add_label(out, ",status", span_str(class_name[c]));
            str_add(out, SPAN("} "));
            str_addi(out, n);
            str_addc(out, '\n');
        }
    }
}

static void available(const struct setup *s, struct str *out)
{
    const struct conf *conf = setup_conf(s);
    bool *down = upstreams_down(s);
    str_add(out,
            SPAN("# HELP larder_upstream_available 0: the registry failed when it was asked last, or limits "
                 "an account of a rule\n"
                 "# TYPE larder_upstream_available gauge\n"));
    for (size_t u = 0; u < conf->n_upstreams; u++) {
        str_add(out, SPAN("larder_upstream_available{"));
        add_label(out, "registry", conf->upstreams[u].registry);
        str_add(out, down[u] || health_failed_lately(s, &conf->upstreams[u]) ? SPAN("} 0\n") : SPAN("} 1\n"));
    }
    mem_free(down);
}

static void credential_sets(const struct setup *s, struct str *out)
{
    static const char *const head[] = {
        "# HELP larder_credential_set_healthy 1: its secrets can be read and servers take them\n"
        "# TYPE larder_credential_set_healthy gauge\n",
        "# HELP larder_credential_set_refused_total Answers by which a server refused a credential set\n"
        "# TYPE larder_credential_set_refused_total counter\n"};
    static const char *const name[] = {"larder_credential_set_healthy{",
                                       "larder_credential_set_refused_total{"};
    const struct conf *conf = setup_conf(s);
    for (size_t family = 0; family < ARRAY_LEN(head) && conf->n_credential_sets > 0; family++) {
        str_addz(out, head[family]);
        for (size_t i = 0; i < conf->n_credential_sets; i++) {
            struct credential_health h;
            credential_health(setup_secrets(s), &conf->credential_sets[i], &h);
            str_addz(out, name[family]);
            add_label(out, "credential_set", conf->credential_sets[i].name);
            str_add(out, SPAN("} "));
            str_addu(out, family == 0 ? h.healthy : h.refused);
            str_addc(out, '\n');
        }
    }
}

static void token_requests(const struct setup *s, unsigned n_cores, struct str *out)
{
    static const char *const result[TOKEN_RESULTS] = {"ok", "refused", "limited", "failed"};
    str_add(out,
            SPAN("# HELP larder_token_requests_total Requests to token servers, by registry and what came of "
                 "them\n# TYPE larder_token_requests_total counter\n"));
    const struct conf *conf = setup_conf(s);
    for (size_t u = 0; u < conf->n_upstreams; u++) {
        for (unsigned r = 0; r < TOKEN_RESULTS; r++) {
            int64_t n = 0;
            for (unsigned i = 0; i < n_cores; i++)
                n += atomic_load_explicit(&setup_upstream_counts(s, &conf->upstreams[u], i)->tokens[r],
                                          memory_order_relaxed);
            str_add(out, SPAN("larder_token_requests_total{"));
            add_label(out, "registry", conf->upstreams[u].registry);
            add_label(out, ",result", span_str(result[r]));
            str_add(out, SPAN("} "));
            str_addi(out, n);
            str_addc(out, '\n');
        }
    }
}

/* set: absent: what is allowed without an account. */
static void ratelimit(const struct account_health *h, const char *name, bool limit, struct span registry,
                      struct span set, struct str *out)
{
    int64_t n =
        atomic_load_explicit(limit ? &h->ratelimit_limit : &h->ratelimit_remaining, memory_order_relaxed);
    if (n == 0)
        return;
    str_addz(out, name);
    add_label(out, "registry", registry);
    if (set.p != NULL)
        add_label(out, ",credential_set", set);
    str_add(out, SPAN("} "));
    str_addi(out, n - 1);
    str_addc(out, '\n');
}

/* Only of those that say it. */
static void ratelimits(const struct setup *s, struct str *out)
{
    static const char *const head[] = {
        "# HELP larder_upstream_ratelimit_limit Requests that upstream allows in its window, as it said "
        "last\n"
        "# TYPE larder_upstream_ratelimit_limit gauge\n",
        "# HELP larder_upstream_ratelimit_remaining Requests that upstream still allows, as it said last\n"
        "# TYPE larder_upstream_ratelimit_remaining gauge\n"};
    static const char *const name[] = {"larder_upstream_ratelimit_limit{",
                                       "larder_upstream_ratelimit_remaining{"};
    const struct conf *conf = setup_conf(s);
    for (size_t family = 0; family < ARRAY_LEN(head); family++) {
        str_addz(out, head[family]);
        for (size_t i = 0; i < conf->n_upstreams; i++)
            ratelimit(setup_account(s, &conf->upstreams[i], NULL), name[family], family == 0,
                      conf->upstreams[i].registry, SPAN_NONE, out);
        for (size_t i = 0; i < conf->n_credential_sets; i++) {
            const struct conf_credential_set *set = &conf->credential_sets[i];
            ratelimit(setup_account(s, NULL, set), name[family], family == 0, set->login_server, set->name,
                      out);
        }
    }
}

static void add_seconds(struct str *out, int64_t us)
{
    str_addf(out, "%lld.%06lld", (long long)(us / 1000000), (long long)(us % 1000000));
}

static void histogram(struct proxy_shared *s, size_t member, const char *name, const char *help,
                      struct str *out)
{
    int64_t sum = 0, count = 0;
    str_addf(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    for (unsigned b = 0; b <= LATENCY_BUCKETS; b++) {
        for (unsigned i = 0; i < s->n_cores; i++) {
            const struct latency *l =
                (const struct latency *)(const void *)((const char *)&s->stats[i] + member);
            count += atomic_load_explicit(&l->bucket[b], memory_order_relaxed);
            if (b == 0)
                sum += atomic_load_explicit(&l->sum_us, memory_order_relaxed);
        }
        str_addf(out, "%s_bucket{le=\"", name);
        if (b < LATENCY_BUCKETS)
            add_seconds(out, latency_bound_us[b]);
        else
            str_add(out, SPAN("+Inf"));
        str_addf(out, "\"} %lld\n", (long long)count);
    }
    str_addf(out, "%s_sum ", name);
    add_seconds(out, sum);
    str_addf(out, "\n%s_count %lld\n", name, (long long)count);
}

void proxy_metrics(struct proxy_shared *s, struct str *out)
{
    struct setup *setup = proxy_setup(s);
    requests(setup, s->n_cores, out);
    responses(s, out);
    upstreams(setup, s->n_cores, out);
    available(setup, out);
    token_requests(setup, s->n_cores, out);
    ratelimits(setup, out);
    credential_sets(setup, out);
    setup_unref(setup);
    histogram(s, offsetof(struct proxy_stats, first_byte), "larder_first_byte_seconds",
              "From the first byte of a request to the head of its answer", out);
    histogram(s, offsetof(struct proxy_stats, total), "larder_request_seconds",
              "From the first byte of a request to the last byte of its answer", out);
}
