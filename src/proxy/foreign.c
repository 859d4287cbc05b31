/* See foreign.h. What is shunned are flights of one registry and account for one digest: verdicts, which last longer when it happens again. */
#include "proxy/foreign.h"

#include "base/map.h"

#define SHUN_FIRST_MS 30000
#define SHUN_MAX_MS   600000
#define LEFT_MS       (INT64_C(24) * 3600 * 1000)

static struct span registry_of(struct span repo_key)
{
    ptrdiff_t slash = span_find(repo_key, '/');
    return slash >= 0 ? span_sub(repo_key, 0, (size_t)slash) : repo_key;
}

/* As foreign_way, of a repository's key. */
static void way_of(struct span repo_key, struct str *out)
{
    str_add(out, registry_of(repo_key));
    str_add(out, span_from(repo_key, store_repo_plain(repo_key).n));
}

void foreign_way(const struct conf_rule *rule, struct str *out)
{
    str_add(out, rule->registry);
    if (rule->credential_set != NULL) {
        str_addc(out, STORE_ACCOUNT);
        str_add(out, rule->credential_set->name);
    }
}

/* Is it led for another registry or account than the rule's? */
static bool is_foreign(const struct flight_seat *seat, const struct conf_rule *rule)
{
    char ours_text[REPO_KEY_MAX], theirs_text[REPO_KEY_MAX];
    struct str ours = STR_INIT(ours_text), theirs = STR_INIT(theirs_text);
    enum flight_state state = flight_seen(seat);
    if (state != FLIGHT_BUSY && state != FLIGHT_HEAD)
        return false;
    foreign_way(rule, &ours);
    way_of(flight_repo(seat), &theirs);
    return !span_eq(str_span(&ours), str_span(&theirs));
}

/* ... and can the rule's own be asked instead? */
static bool can_leave(const struct setup *setup, const struct conf_rule *rule)
{
    struct flight_failure f;
    return !health_broken(setup, rule->upstream) &&
           !upstream_limit(setup, rule->upstream, rule->credential_set, WHAT_BLOB, &f);
}

void foreign_begin(struct foreign_wait *w, const struct flight_seat *seat, int64_t now)
{
    *w = (struct foreign_wait){
        .since_ms = now, .headed = flight_seen(seat) != FLIGHT_BUSY, .front = flight_front(seat)};
}

int64_t foreign_patience(struct foreign_wait *w, const struct flight_seat *seat, const struct setup *setup,
                         const struct conf_rule *rule, int64_t now)
{
    if (!is_foreign(seat, rule))
        return INT64_MAX;
    bool busy = flight_seen(seat) == FLIGHT_BUSY;
    if (!busy && (!w->headed || flight_front(seat) - w->front >= FOREIGN_LEAST))
        foreign_begin(w, seat, now);
    int64_t left = w->since_ms + (busy ? FOREIGN_HEAD_MS : FOREIGN_STALL_MS) - now;
    if (left > 0)
        return left;
    return can_leave(setup, rule) ? 0 : FOREIGN_HEAD_MS; /* it may be well again by then */
}

/* ---- what is shunned ---- */

static void shun_key(struct span repo_key, const struct digest *d, struct str *out)
{
    str_add(out, SPAN("F "));
    way_of(repo_key, out);
    str_addc(out, ' ');
    digest_add(out, d);
    MUST(!out->cut);
}

static void shun(struct proxy *px, struct span repo_key, const struct digest *d, int err, int64_t first_ms)
{
    char text[REPO_KEY_MAX + DIGEST_TEXT_MAX + 4];
    struct str key = STR_INIT(text);
    shun_key(repo_key, d, &key);
    verdict_put(px->shared->verdicts, str_span(&key),
                &(struct flight_failure){.err = err, .retry_after_ms = -1}, first_ms, SHUN_MAX_MS);
}

void foreign_lied(struct proxy *px, struct span repo_key, const struct digest *d)
{
    shun(px, repo_key, d, ERR_UP_DIGEST, SHUN_MAX_MS);
}

static bool is_shunned(struct proxy *px, const struct flight_seat *seat, const struct digest *d)
{
    char text[REPO_KEY_MAX + DIGEST_TEXT_MAX + 4];
    struct str key = STR_INIT(text);
    struct flight_failure f;
    shun_key(flight_repo(seat), d, &key);
    return verdict_get(px->shared->verdicts, str_span(&key), &f);
}

void foreign_shun(struct proxy *px, const struct flight_seat *seat, const struct digest *d)
{
    if (is_shunned(px, seat, d)) /* another reader has said so */
        return;
    log_info("serve", "a blob comes too slowly from the registry that was asked first; the own one is asked",
             LOG_SP("from", registry_of(flight_repo(seat))), LOG_D("digest", d),
             LOG_U("bytes", flight_front(seat)));
    shun(px, flight_repo(seat), d, ERR_UP_TIMEOUT, SHUN_FIRST_MS);
}

bool foreign_shunned(struct proxy *px, const struct flight_seat *seat, const struct setup *setup,
                     const struct conf_rule *rule, const struct digest *d)
{
    return is_foreign(seat, rule) && can_leave(setup, rule) && is_shunned(px, seat, d);
}

/* ---- what fills leave: the last one's way, as a number, stands in the place of a status ---- */

static void left_key(const struct digest *d, struct str *out)
{
    str_add(out, SPAN("P "));
    digest_add(out, d);
}

static unsigned way_number(struct span repo_key)
{
    char text[REPO_KEY_MAX];
    struct str way = STR_INIT(text);
    way_of(repo_key, &way);
    return (unsigned)map_hash(str_span(&way));
}

void foreign_note_leftover(struct proxy *px, struct span repo_key, const struct digest *d)
{
    char text[DIGEST_TEXT_MAX + 2];
    struct str key = STR_INIT(text);
    struct flight_failure who = {.status = way_number(repo_key), .retry_after_ms = -1};
    left_key(d, &key);
    verdict_put(px->shared->verdicts, str_span(&key), &who, LEFT_MS, LEFT_MS);
}

bool foreign_is_leftover(struct proxy *px, struct span repo_key, const struct digest *d)
{
    char text[DIGEST_TEXT_MAX + 2];
    struct str key = STR_INIT(text);
    struct flight_failure who;
    left_key(d, &key);
    return verdict_get(px->shared->verdicts, str_span(&key), &who) && who.status != way_number(repo_key);
}
