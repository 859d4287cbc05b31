/* One request to a token server: the leader of an answer flight. What it brings is in the token cache when the flight is answered.
 * It does not depend on who asked, and is no longer than a round at the registry may be. */
#ifndef LARDER_PROXY_LOGIN_H
#define LARDER_PROXY_LOGIN_H

#include "proxy/proxy_int.h"
#include "proxy/realm.h"

struct login_what { /* all is copied */
    struct setup *setup;
    const struct conf_upstream *up;
    const struct conf_credential_set *set; /* NULL: anonymously */
    struct span realm;                     /* as in the challenge; judged */
    bool guarded;
    enum address_kind near; /* guarded: of the registry's address */
    struct span service;    /* or absent */
    struct span repo;
};

/* Leads the flight that flight_join has just made; its key is the token's. */
void login_lead(struct proxy *px, struct flight *flight, const struct login_what *w);

#endif
