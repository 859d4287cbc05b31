/* What the commands that talk to a running server share: the configuration that says where it is, the question, and values for output_rows
 * out of its answers. Inside the room only. */
#ifndef LARDER_CLI_ASK_H
#define LARDER_CLI_ASK_H

#include <jansson.h>

#include "base/arena.h"
#include "cli/call.h"
#include "cli/command_int.h"
#include "cli/output_int.h"

struct ask {
    const struct command_args *args;
    struct conf *conf;   /* ask_begin: its admin address, and no more */
    struct arena *arena; /* values live here */
    bool table;          /* for people: sizes and ages in words */
    int64_t now_ms;
    const char *about; /* stands before what the server refuses; NULL: nothing */
    bool absent;       /* no server answered the last question */
};

/* False: the configuration does not say where the server is, which has been said. To be ended in any case. */
bool ask_begin(struct ask *a, const struct command_args *args) MUSTCHECK;
/* The same for a command that needs the rules, too: the configuration has to be good. */
bool ask_begin_rules(struct ask *a, const struct command_args *args) MUSTCHECK;
void ask_end(struct ask *a);

/* NULL: it was refused, or no server runs, which has been said. The caller gives it back (json_decref). */
json_t *ask_look(struct ask *a, const char *name, struct span query);
json_t *ask_order(struct ask *a, const char *name, struct span query);

/* The next page of a list: adds its "next" to the query that led here. False: this was the last one. */
bool ask_next(const json_t *page, const char *first_query, struct str *query);

/* ---- values ---- */

struct output_value ask_text(const json_t *o, const char *key); /* it lives as long as the answer */
struct output_value ask_copy(struct ask *a, const json_t *o, const char *key);
struct output_value ask_digest(struct ask *a, const json_t *o, const char *key); /* table: its first digits */
struct output_value ask_words(struct ask *a, const char *fmt, ...) PRINTF(2, 3);
struct output_value ask_number(struct ask *a, const json_t *o, const char *key);
struct output_value ask_bool(struct ask *a, const json_t *o, const char *key);
struct output_value ask_size(struct ask *a, const json_t *o, const char *key);
struct output_value ask_moment(struct ask *a, const json_t *o, const char *key); /* table: how long ago */

int64_t ask_int(const json_t *o, const char *key); /* absent: 0 */

#endif
