/* The file's text as lines, and the places where it is to change. Inside the room only.
 *
 * A line ends at "\n", "\r\n" or "\r". Offsets count bytes; a byte-order mark is before the first line. Nothing is changed until
 * sheet_result: all offsets are those of the text as it is. */
#ifndef LARDER_CONF_SHEET_H
#define LARDER_CONF_SHEET_H

#include "base/arena.h"
#include "base/str.h"

enum { SHEET_SPLICES_MAX = 8 };

struct sheet_splice {
    size_t from, to; /* these bytes go */
    struct span put; /* and these come */
};

struct sheet {
    struct arena *arena;
    struct span text;
    size_t first;        /* offset of the first line */
    struct span newline; /* as the file's first line ends; "\n" when there is none */
    struct sheet_splice splices[SHEET_SPLICES_MAX];
    size_t n;
    bool bad; /* a splice that cannot be */
};

struct sheet sheet_new(struct arena *a, struct span text);

/* Puts `put` in place of [from, to). At one place the one that was added first comes first. */
void sheet_splice(struct sheet *s, size_t from, size_t to, struct span put);
/* The text with all changes, in the arena. False: some overlap, or end before they begin. */
bool sheet_result(const struct sheet *s, struct span *out) MUSTCHECK;

size_t sheet_line(const struct sheet *s, size_t at);     /* where the line with `at` begins */
size_t sheet_line_end(const struct sheet *s, size_t at); /* before its line break */
size_t sheet_next(const struct sheet *s,
                  size_t at); /* behind its line break; the end of the text for the last line */
size_t sheet_before(const struct sheet *s,
                    size_t at); /* before the break of the line above; first when there is none */

bool sheet_blank(const struct sheet *s, size_t from, size_t to); /* spaces and tabs only, or nothing */
bool sheet_line_is_blank(const struct sheet *s,
                         size_t line); /* of a line's beginning; false at the end of the text */
bool sheet_line_is_comment(const struct sheet *s, size_t line);
bool sheet_rest_is_comment(const struct sheet *s,
                           size_t at); /* nothing or a comment up to the end of the line */
unsigned sheet_column(const struct sheet *s,
                      size_t line); /* 1-based, of a line's first character that is no space */
/* Behind blanks, line breaks and comments. */
size_t sheet_skip(const struct sheet *s, size_t at);
bool sheet_at(const struct sheet *s, size_t at, char c); /* is it there? False at the end of the text */

#endif
