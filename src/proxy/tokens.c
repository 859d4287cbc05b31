/* See tokens.h. Two tables of the same kind: entries by key, in a list in the order of their last use, oldest first. */
#include "proxy/tokens.h"

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/ref.h"
#include "base/secret_mem.h"

#define TOKENS_MAX     2048
#define TOKENS_BYTES   (16u << 20)
#define CHALLENGES_MAX 512

#define END_MARGIN_MS  5000 /* a token is not used that would end on its way */
#define RENEW_AGAIN_MS 5000 /* if nothing has come of a renewal */

struct token_text {
    struct ref ref;
    size_t n;
    char bytes[];
};

struct entry {
    struct list_node node;
    /* a token */
    struct token_text *text;
    uint64_t serial;
    int64_t until_ms, renew_ms;
    /* a challenge */
    struct challenge *challenge;
    enum address_kind peer;

    size_t n;
    char key[];
};

struct table {
    struct map map;
    struct list list;
    size_t bytes, max, max_bytes;
};

struct tokens {
    pthread_mutex_t lock; /* guards all below */
    struct table tokens, challenges;
    uint64_t serial;
};

/* ---- tables ---- */

static void table_init(struct table *t, size_t max, size_t max_bytes)
{
    map_init(&t->map);
    list_init(&t->list);
    t->bytes = 0;
    t->max = max;
    t->max_bytes = max_bytes;
}

static void text_unref(struct token_text *text)
{
    if (text != NULL && ref_drop(&text->ref))
        secret_free(text);
}

static void entry_clear(struct table *t, struct entry *e)
{
    if (e->text != NULL)
        t->bytes -= e->text->n;
    text_unref(e->text);
    e->text = NULL;
}

static void entry_remove(struct table *t, struct entry *e)
{
    MUST(map_del(&t->map, span_of(e->key, e->n)) == e);
    list_remove(&e->node);
    entry_clear(t, e);
    mem_free(e->challenge);
    mem_free(e);
}

static void table_free(struct table *t)
{
    struct list_node *n;
    while ((n = list_first(&t->list)) != NULL)
        entry_remove(t, CONTAINER_OF(n, struct entry, node));
    map_free(&t->map);
}

static struct entry *entry_find(struct table *t, struct span key)
{
    return t->map.used > 0 ? map_get(&t->map, key) : NULL;
}

static void entry_used(struct table *t, struct entry *e)
{
    list_remove(&e->node);
    list_push_back(&t->list, &e->node);
}

static struct entry *entry_for(struct table *t, struct span key)
{
    struct entry *e = entry_find(t, key);
    if (e == NULL) {
        e = mem_zalloc(sizeof *e + key.n);
        e->n = key.n;
        memcpy(e->key, key.p, key.n);
        map_put(&t->map, span_of(e->key, e->n), e);
    }
    entry_used(t, e);
    return e;
}

/* The entry that is being written is the newest, and stays. */
static void table_trim(struct table *t)
{
    while (t->map.used > t->max || (t->bytes > t->max_bytes && t->map.used > 1))
        entry_remove(t, CONTAINER_OF(list_first(&t->list), struct entry, node));
}

/* ---- life ---- */

struct tokens *tokens_new(void)
{
    struct tokens *t;
    NEW(t);
    pthread_mutex_init(&t->lock, NULL);
    table_init(&t->tokens, TOKENS_MAX, TOKENS_BYTES);
    table_init(&t->challenges, CHALLENGES_MAX, SIZE_MAX);
    return t;
}

void tokens_free(struct tokens *t)
{
    table_free(&t->tokens);
    table_free(&t->challenges);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void token_release(struct token *t)
{
    text_unref(t->text);
    *t = (struct token){0};
}

/* ---- tokens ---- */

bool tokens_get(struct tokens *t, struct span key, int64_t now_ms, struct token *out)
{
    *out = (struct token){0};
    pthread_mutex_lock(&t->lock);
    struct entry *e = entry_find(&t->tokens, key);
    if (e != NULL && now_ms >= e->until_ms) {
        entry_remove(&t->tokens, e);
        e = NULL;
    }
    if (e != NULL) {
        entry_used(&t->tokens, e);
        ref_take(&e->text->ref);
        out->text = e->text;
        out->value = e->text->bytes;
        out->n = e->text->n;
        out->serial = e->serial;
        out->renew = now_ms >= e->renew_ms;
        if (out->renew)
            e->renew_ms = now_ms + RENEW_AGAIN_MS;
    }
    pthread_mutex_unlock(&t->lock);
    return e != NULL;
}

bool tokens_have(struct tokens *t, struct span key, int64_t now_ms)
{
    pthread_mutex_lock(&t->lock);
    const struct entry *e = entry_find(&t->tokens, key);
    bool have = e != NULL && now_ms < e->until_ms;
    pthread_mutex_unlock(&t->lock);
    return have;
}

void tokens_put(struct tokens *t, struct span key, struct span token, int64_t life_ms, int64_t now_ms)
{
    static const char scheme[] = "Bearer ";
    size_t n = sizeof scheme - 1 + token.n;
    struct token_text *text = secret_alloc(sizeof *text + n);
    ref_init(&text->ref);
    text->n = n;
    memcpy(text->bytes, scheme, sizeof scheme - 1);
    memcpy(text->bytes + sizeof scheme - 1, token.p, token.n);
    pthread_mutex_lock(&t->lock);
    struct entry *e = entry_for(&t->tokens, key);
    entry_clear(&t->tokens, e);
    e->text = text;
    t->tokens.bytes += n;
    e->serial = ++t->serial;
    e->renew_ms = now_ms + life_ms / 4 * 3;
    e->until_ms = now_ms + (life_ms > 2 * END_MARGIN_MS ? life_ms - END_MARGIN_MS : life_ms / 2);
    table_trim(&t->tokens);
    pthread_mutex_unlock(&t->lock);
}

void tokens_drop(struct tokens *t, struct span key, uint64_t serial)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = entry_find(&t->tokens, key);
    if (e != NULL && e->serial == serial)
        entry_remove(&t->tokens, e);
    pthread_mutex_unlock(&t->lock);
}

/* ---- challenges ---- */

bool tokens_recall(struct tokens *t, struct span endpoint, struct challenge *c, enum address_kind *peer)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = entry_find(&t->challenges, endpoint);
    if (e != NULL) {
        entry_used(&t->challenges, e);
        *c = *e->challenge;
        *peer = e->peer;
    }
    pthread_mutex_unlock(&t->lock);
    return e != NULL;
}

void tokens_remember(struct tokens *t, struct span endpoint, const struct challenge *c,
                     enum address_kind peer)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = entry_for(&t->challenges, endpoint);
    if (e->challenge == NULL)
        NEW(e->challenge);
    *e->challenge = *c;
    e->peer = peer;
    table_trim(&t->challenges);
    pthread_mutex_unlock(&t->lock);
}

void tokens_forget(struct tokens *t, struct span endpoint)
{
    pthread_mutex_lock(&t->lock);
    struct entry *e = entry_find(&t->challenges, endpoint);
    if (e != NULL)
        entry_remove(&t->challenges, e);
    pthread_mutex_unlock(&t->lock);
}
