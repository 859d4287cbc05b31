/* See join.h. No wake comes from within: a flight tells its news by messages, also to the core that leads it. */
#include "proxy/join.h"

#include "proxy/foreign.h"

static enum joined take_seat(struct join *j, struct span verdict_key, struct span key, struct span repo)
{
    if (verdict_get(j->px->shared->verdicts, verdict_key, &j->lately) &&
        !(j->anew && !ask_not_there(&j->lately)))
        return JOINED_LATELY;
    switch (flight_join(j->px->core, key, repo, !j->only_join, j->recheck, j->arg, j->seat)) {
    case FLIGHT_NONE:
        return JOINED_NONE;
    case FLIGHT_FOUND:
        return JOINED_FOUND;
    case FLIGHT_JOINED:
        return JOINED_SEAT;
    case FLIGHT_LEAD:
        break;
    }
    return JOINED_LEAD;
}

enum joined join_ask(struct join *j, const struct ask_what *w)
{
    char text[FLIGHT_KEY_MAX + 1];
    struct str key = STR_INIT(text);
    ask_key(w, &key);
    MUST(!key.cut);
    enum joined joined = take_seat(j, str_span(&key), str_span(&key), w->repo_key);
    if (joined == JOINED_LEAD)
        ask_lead(j->px, flight_of(j->seat), w);
    return joined;
}

static enum joined seat_in(struct join *j, const struct fetch_what *w, bool only_join)
{
    char verdict_text[FLIGHT_KEY_MAX], text[DIGEST_TEXT_MAX + REPO_KEY_MAX + 4];
    struct str verdict_key = STR_INIT(verdict_text), key = STR_INIT(text);
    bool may_lead = !j->only_join;
    fetch_verdict_key(w->repo_key, &w->digest, &verdict_key);
    fetch_key(w, &key);
    MUST(!key.cut);
    j->only_join = only_join;
    enum joined joined = take_seat(j, str_span(&verdict_key), str_span(&key), w->repo_key);
    j->only_join = !may_lead;
    if (joined == JOINED_LEAD)
        fetch_lead(j->px, flight_of(j->seat), w);
    return joined;
}

/* All repositories share the flight of a blob, but each has its own verdict. A registry has a flight apart only while it does not want the one
 * of another; that is joined as long as it lasts. */
enum joined join_fetch(struct join *j, const struct fetch_what *w)
{
    struct fetch_what apart = *w, shared = *w;
    apart.apart = true;
    shared.apart = false;
    enum joined joined = seat_in(j, &apart, j->only_join || !w->apart);
    if (joined != JOINED_NONE || w->apart)
        return joined;
    joined = seat_in(j, &shared, j->only_join);
    if (joined != JOINED_SEAT || !foreign_shunned(j->px, j->seat, w->setup, w->rule, &w->digest))
        return joined;
    flight_leave(j->seat);
    return seat_in(j, &apart, j->only_join);
}
