/* When a scalar may go without quotes: stricter than the grammar where a reader of another kind (a number, a truth value, nothing)
 * would be had for the same characters. */
#include "conf/scalar.h"

static bool is_word(struct span text) /* what YAML 1.1 or 1.2 reads as something else than text */
{
    static const struct span words[] = {SPAN("null"), SPAN("true"), SPAN("false"), SPAN("yes"), SPAN("no"),
                                        SPAN("on"),   SPAN("off"),  SPAN("y"),     SPAN("n"),   SPAN("~")};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (span_ieq(text, words[i]))
            return true;
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool looks_like_number(struct span text) /* or a date, or a time */
{
    size_t first = text.n > 1 && strchr("+-.", text.p[0]) != NULL ? 1 : 0;
    if (!is_digit(text.p[first]))
        return first == 1 && span_ieq(span_from(text, text.p[0] == '.' ? 1 : 2), SPAN("inf"));
    for (size_t i = first; i < text.n; i++)
        if (!is_digit(text.p[i]) && strchr("abcdefABCDEFxXoO.+-_: TZ", text.p[i]) == NULL)
            return false;
    return true;
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7F;
}

/* Characters of several bytes that are line breaks, controls or byte-order marks to YAML. */
static bool is_special(struct span rest)
{
    return (rest.n > 1 && (unsigned char)rest.p[0] == 0xC2 && (unsigned char)rest.p[1] < 0xA0) ||
           span_starts(rest, SPAN("\xE2\x80\xA8")) || span_starts(rest, SPAN("\xE2\x80\xA9")) ||
           span_starts(rest, SPAN("\xEF\xBB\xBF"));
}

static bool may_begin(char c)
{
    return strchr("-?:,[]{}#&*!|>'\"%@`= ", c) == NULL; /* strchr finds the terminator, too */
}

static bool may_be_plain(struct span text, bool flow)
{
    if (text.n == 0 || !may_begin(text.p[0]) || text.p[text.n - 1] == ' ' || is_word(text) ||
        looks_like_number(text) || span_starts(text, SPAN("...")))
        return false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i], before = i > 0 ? text.p[i - 1] : ' ',
             after = i + 1 < text.n ? text.p[i + 1] : ' ';
        if (is_control((unsigned char)c) || is_special(span_from(text, i)))
            return false;
        if ((c == ':' && after == ' ') || (c == '#' && before == ' '))
            return false;
        if (flow && strchr(",[]{}?", c) != NULL)
            return false;
    }
    return true;
}

static void add_escaped(struct str *out, char c)
{
    if (is_control((unsigned char)c)) {
        str_addz(out, "\\x");
        str_addhex(out, &c, 1);
        return;
    }
    if (c == '"' || c == '\\')
        str_addc(out, '\\');
    str_addc(out, c);
}

void scalar_add(struct str *out, struct span text, char quote, bool flow)
{
    if (quote == 0 && may_be_plain(text, flow)) {
        str_add(out, text);
        return;
    }
    for (size_t i = 0; i < text.n && quote == '\''; i++)
        if (is_control((unsigned char)text.p[i]))
            quote = '"';
    if (quote == 0)
        quote = '"';
    str_addc(out, quote);
    for (size_t i = 0; i < text.n; i++) {
        if (quote == '"')
            add_escaped(out, text.p[i]);
        else
            str_add(out, text.p[i] == '\'' ? SPAN("''") : span_sub(text, i, 1));
    }
    str_addc(out, quote);
}
