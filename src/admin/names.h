/* From what people call things to what the store calls them: images through the rules, and the beginnings of names. Any thread. */
#ifndef LARDER_ADMIN_NAMES_H
#define LARDER_ADMIN_NAMES_H

#include "conf/conf.h"
#include "store/store.h"

enum names_found {
    NAMES_OK,
    NAMES_NO_IMAGE, /* it is neither an image nor a digest */
    NAMES_NO_RULE   /* it has no registry's name, and no rule is for it */
};

struct names_image {
    const struct conf_rule *rule;  /* NULL: none, the text says the registry */
    char repo[STORE_REPO_MAX + 1]; /* without an account; "": a digest alone */
    char tag[STORE_TAG_MAX + 1];   /* "": by digest, or none is written */
    struct digest digest;          /* DIGEST_NONE: by tag, or none is written */
};

/* Rules are found by source also where mirroring is off: it is about a name, not about a client. A name with a registry that no rule is for
 * is that of what a former rule has brought. */
enum names_found names_image(const struct conf *conf, struct span text, struct names_image *out) MUSTCHECK;

/* The rule that brings this repository of the store (its account, if it has one, is not looked at), or NULL; *client is set to larder's
 * own name for it. */
const struct conf_rule *names_rule(const struct conf *conf, struct span repo, struct str *client);

/* The repositories whose names begin with a text: with the registry's name, or with larder's own name for them; for all accounts. */
struct names_filter {
    struct arena *arena;
    struct names_prefix *list; /* sorted; none begins with another */
    size_t n, cap;
    struct span common; /* all of them begin so */
};

void names_filter_init(struct names_filter *f, const struct conf *conf, struct span prefix);
bool names_filter_has(const struct names_filter *f, struct span repo);
void names_filter_free(struct names_filter *f);

#endif
