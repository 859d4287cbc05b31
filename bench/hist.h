/* A histogram of latencies: fixed memory, no allocation per value, mergeable.
 *
 * Log-linear: values below 2^HIST_BITS have a bucket each; above, every power of two is cut into 2^HIST_BITS / 2
 * equal buckets. A value is given back as the middle of its bucket, so it is off by at most 1/256 (0.4 %) of
 * itself. Minimum, maximum and sum are exact. One writer; merge after the writers have ended. */
#ifndef LARDER_BENCH_HIST_H
#define LARDER_BENCH_HIST_H

#include <stdint.h>
#include <string.h>

#define HIST_BITS    8
#define HIST_HALF    (1u << (HIST_BITS - 1))
#define HIST_BUCKETS ((64 - HIST_BITS + 2) * HIST_HALF)

struct hist {
    uint64_t count;
    uint64_t min, max; /* 0 while count is 0 */
    double sum;
    uint64_t buckets[HIST_BUCKETS];
};

static inline void hist_reset(struct hist *h)
{
    memset(h, 0, sizeof *h);
}

static inline unsigned hist_bucket(uint64_t v)
{
    if (v < 2 * HIST_HALF)
        return (unsigned)v;
    unsigned shift = 64u - HIST_BITS - (unsigned)__builtin_clzll(v);
    return (shift + 1) * HIST_HALF + (unsigned)((v >> shift) - HIST_HALF);
}

/* The middle of a bucket. */
static inline uint64_t hist_value(unsigned bucket)
{
    if (bucket < 2 * HIST_HALF)
        return bucket;
    unsigned shift = bucket / HIST_HALF - 1;
    uint64_t low = (uint64_t)(bucket % HIST_HALF + HIST_HALF) << shift;
    return low + ((1ull << shift) >> 1);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
    if (h->count == 0 || v < h->min)
        h->min = v;
    if (v > h->max)
        h->max = v;
    h->count++;
    h->sum += (double)v;
    h->buckets[hist_bucket(v)]++;
}

static inline void hist_merge(struct hist *to, const struct hist *from)
{
    if (from->count == 0)
        return;
    if (to->count == 0 || from->min < to->min)
        to->min = from->min;
    if (from->max > to->max)
        to->max = from->max;
    to->count += from->count;
    to->sum += from->sum;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

/* The value that `percent` of the values do not exceed (0 to 100); 0 gives the minimum, 100 the maximum. */
static inline uint64_t hist_percentile(const struct hist *h, double percent)
{
    if (h->count == 0)
        return 0;
    if (percent <= 0)
        return h->min;
    double exact = percent / 100.0 * (double)h->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    if (rank >= h->count)
        return h->max;
    uint64_t seen = 0;
    unsigned i = 0;
    while (i < HIST_BUCKETS - 1 && (seen += h->buckets[i]) < rank)
        i++;
    uint64_t v = hist_value(i);
    if (v < h->min)
        return h->min;
    return v > h->max ? h->max : v;
}

static inline double hist_mean(const struct hist *h)
{
    return h->count == 0 ? 0 : h->sum / (double)h->count;
}

#endif
