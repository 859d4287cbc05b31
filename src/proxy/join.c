/* See join.h. No wake comes from within: a flight tells its news by messages, also to the core that leads it. */
#include "proxy/join.h"

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

/* All repositories share the flight of a blob, but each has its own verdict. */
enum joined join_fetch(struct join *j, const struct fetch_what *w)
{
    char verdict_text[FLIGHT_KEY_MAX], text[DIGEST_TEXT_MAX + 2];
    struct str verdict_key = STR_INIT(verdict_text), key = STR_INIT(text);
    fetch_verdict_key(w->repo_key, &w->digest, &verdict_key);
    fetch_key(&w->digest, &key);
    enum joined joined = take_seat(j, str_span(&verdict_key), str_span(&key), w->repo_key);
    if (joined == JOINED_LEAD)
        fetch_lead(j->px, flight_of(j->seat), w);
    return joined;
}
