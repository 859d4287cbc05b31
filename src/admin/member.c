#include "admin/member.h"

void member_comma(struct str *out)
{
    char last = out->n > 0 ? out->p[out->n - 1] : '{';
    if (last != '{' && last != '[' && last != ':')
        str_addc(out, ',');
}

void member_name(struct str *out, const char *name)
{
    member_comma(out);
    str_addc(out, '"');
    str_addz(out, name);
    str_addz(out, "\":");
}

void member_text(struct str *out, const char *name, struct span text)
{
    member_name(out, name);
    if (text.p == NULL) {
        str_addz(out, "null");
        return;
    }
    str_addc(out, '"');
    str_addjson(out, text);
    str_addc(out, '"');
}

void member_number(struct str *out, const char *name, int64_t v)
{
    member_name(out, name);
    str_addi(out, v);
}

void member_count(struct str *out, const char *name, uint64_t v)
{
    member_name(out, name);
    str_addu(out, v);
}

void member_bool(struct str *out, const char *name, bool v)
{
    member_name(out, name);
    str_addz(out, v ? "true" : "false");
}

void member_digest(struct str *out, const char *name, const struct digest *d)
{
    char text[DIGEST_TEXT_MAX];
    member_text(out, name, d->alg != DIGEST_NONE ? span_str(digest_text(d, text)) : SPAN_NONE);
}
