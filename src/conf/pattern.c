/* See pattern.h. What stands between two stars is looked for from the left, and the first place where it stands is as good as any other: a
 * match that uses a later one leaves less of the text to the pieces that follow. So nothing is ever tried twice. */
#include "conf/pattern.h"

const char *pattern_wrong(struct span pattern)
{
    if (pattern.n > PATTERN_MAX)
        return "has more than 128 characters, and a tag never has";
    if (pattern.n > 0 && (pattern.p[0] == '.' || pattern.p[0] == '-'))
        return "matches nothing, because a tag does not begin with '.' or '-'; put a '*' before it, or "
               "remove it";
    for (size_t i = 0; i < pattern.n; i++) {
        char c = pattern.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && c != '.' && c != '_' && c != '-' && c != '*')
            return "matches nothing; write a tag of letters, digits, '.', '_' and '-', with '*' for any "
                   "characters, as in v1.*";
    }
    return NULL;
}

bool pattern_match(struct span pattern, struct span text)
{
    ptrdiff_t first = span_find(pattern, '*');
    if (first < 0)
        return span_eq(pattern, text);
    ptrdiff_t last = span_rfind(pattern, '*');
    struct span begin = span_sub(pattern, 0, (size_t)first), end = span_from(pattern, (size_t)last + 1);
    if (text.n < begin.n + end.n || !span_starts(text, begin) || !span_ends(text, end))
        return false;
    struct span middle = span_sub(pattern, begin.n, (size_t)(last - first)), piece;
    text = span_sub(text, begin.n, text.n - begin.n - end.n);
    while (span_next(&middle, '*', &piece)) {
        if (piece.n == 0)
            continue;
        const char *at = memmem(text.p, text.n, piece.p, piece.n);
        if (at == NULL)
            return false;
        text = span_from(text, (size_t)(at - text.p) + piece.n);
    }
    return true;
}

bool pattern_match_any(const struct span *patterns, size_t n, struct span text)
{
    for (size_t i = 0; i < n; i++) {
        if (pattern_match(patterns[i], text))
            return true;
    }
    return false;
}
