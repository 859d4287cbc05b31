/* See again.h. A slot per hash, and what comes to a slot later takes it. */
#include "http/again.h"

#include "base/map.h"
#include "base/mem.h"

#define SLOTS 256

struct kept {
    struct again *again;
    int64_t until_ms;
    size_t request_n, answer_n;
    char bytes[]; /* the request, the answer */
};

struct again_table {
    struct {
        uint64_t hash;   /* asked for last */
        int64_t seen_ms; /* ... then; 0: never */
        struct kept *kept;
    } slots[SLOTS];
    size_t hand; /* goes round: what is over there is dropped */
};

void again_put(struct again *a)
{
    MUST(a->refs > 0);
    if (--a->refs == 0)
        a->drop(a);
}

static void drop(struct kept *k)
{
    if (k == NULL)
        return;
    again_put(k->again);
    mem_free(k);
}

struct again_table *again_new(void)
{
    struct again_table *t;
    NEW(t);
    return t;
}

void again_flush(struct again_table *t)
{
    for (size_t i = 0; i < SLOTS; i++) {
        drop(t->slots[i].kept);
        t->slots[i].kept = NULL;
    }
}

void again_free(struct again_table *t)
{
    again_flush(t);
    mem_free(t);
}

struct span again_find(struct again_table *t, struct span request, uint64_t hash, int64_t now_ms,
                       struct again **again)
{
    struct kept *k = t->slots[hash % SLOTS].kept;
    if (k == NULL || !span_eq(span_of(k->bytes, k->request_n), request))
        return SPAN_NONE;
    if (now_ms >= k->until_ms || !k->again->good(k->again)) {
        t->slots[hash % SLOTS].kept = NULL;
        drop(k);
        return SPAN_NONE;
    }
    *again = k->again;
    return span_of(k->bytes + k->request_n, k->answer_n);
}

static void drop_old(struct kept **place, int64_t now_ms)
{
    if (*place == NULL || now_ms < (*place)->until_ms)
        return;
    drop(*place);
    *place = NULL;
}

bool again_wanted(struct again_table *t, uint64_t hash, int64_t now_ms)
{
    t->hand = (t->hand + 1) % SLOTS;
    drop_old(&t->slots[t->hand].kept, now_ms);
    size_t i = hash % SLOTS;
    bool wanted =
        t->slots[i].seen_ms != 0 && t->slots[i].hash == hash && now_ms - t->slots[i].seen_ms < AGAIN_SEEN_MS;
    t->slots[i].hash = hash;
    t->slots[i].seen_ms = now_ms;
    return wanted;
}

void again_keep(struct again_table *t, struct span request, struct span head, struct span body,
                int64_t until_ms, struct again *a)
{
    struct kept *k = mem_alloc(sizeof *k + request.n + head.n + body.n);
    *k = (struct kept){.again = a, .until_ms = until_ms, .request_n = request.n, .answer_n = head.n + body.n};
    a->refs = 1;
    memcpy(k->bytes, request.p, request.n);
    memcpy(k->bytes + request.n, head.p, head.n);
    if (body.n > 0)
        memcpy(k->bytes + request.n + head.n, body.p, body.n);
    struct kept **place = &t->slots[map_hash(request) % SLOTS].kept;
    drop(*place);
    *place = k;
}
