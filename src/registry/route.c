/* Request target -> route, in four steps: bytes that no target may have; absolute form to path and query; the
 * path decoded once into scratch and read from its right end; the query copied without ns.
 *
 * Invariants: scratch is filled from the left with the decoded path, the decoded ns and the remaining query,
 * in that order. Decoding never makes text longer, and the three are disjoint parts of the target, so what
 * fits the target's limit fits scratch. *out is either a whole route or all zero. */
#include "registry/route.h"

#include "registry/name.h"

/* What "%2F" in a path becomes. An encoded slash is data, not a separator (RFC 3986 section 2.2): a proxy in
 * front that allows or denies by path sees one segment there, and so must we. NUL is in no grammar below and
 * cannot come from another encoding, so the part that holds it is refused by its own check. */
#define ENCODED_SLASH '\0'

struct scratch {
    char *p;
    size_t n;
};

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool byte_is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

/* RFC 3986 has no blanks, controls or bytes above 0x7e in a URI; a fragment is never sent; a backslash is
 * taken for a slash by some programs. */
static bool target_bytes_ok(struct span target)
{
    static const bool refused[256] = {
        [0 ... 0x20] = true, ['#'] = true, ['\\'] = true, [0x7f ... 0xff] = true};
    bool bad = false;
    for (size_t i = 0; i < target.n; i++)
        bad |= refused[(unsigned char)target.p[i]];
    return !bad;
}

/* Cuts "http://authority" off. The authority is not used: larder has one namespace whatever it is called. One with a user in it is an error
 * (RFC 9110 section 4.2.4). */
static bool target_to_origin_form(struct span *target)
{
    size_t scheme = 0;
    if (span_ieq(span_sub(*target, 0, 7), SPAN("http://")))
        scheme = 7;
    else if (span_ieq(span_sub(*target, 0, 8), SPAN("https://")))
        scheme = 8;
    if (scheme == 0)
        return target->n > 0 && target->p[0] == '/';
    size_t end = scheme;
    while (end < target->n && target->p[end] != '/' && target->p[end] != '?') {
        if (target->p[end++] == '@')
            return false;
    }
    *target = span_from(*target, end);
    return end > scheme;
}

struct span route_shown(struct span target)
{
    bool origin = target.n == 0 || target.p[0] == '/';
    return origin ? target : span_from(target, (size_t)(span_rfind(target, '@') + 1));
}

/* Appends the decoded text to scratch. False: bad encoding, or an encoded control character or backslash. */
static bool scratch_decode(struct scratch *s, struct span raw, char slash, struct span *out)
{
    char *start = s->p + s->n;
    size_t plain = span_find(raw, '%') < 0 ? raw.n : 0;
    if (plain > 0)
        memcpy(start, raw.p, plain);
    s->n += plain;
    for (size_t i = plain; i < raw.n; i++) {
        if (raw.p[i] != '%') {
            s->p[s->n++] = raw.p[i];
            continue;
        }
        int high = i + 1 < raw.n ? hex_value(raw.p[i + 1]) : -1;
        int low = i + 2 < raw.n ? hex_value(raw.p[i + 2]) : -1;
        if (high < 0 || low < 0)
            return false;
        unsigned char c = (unsigned char)(high * 16 + low);
        if (byte_is_control(c) || c == '\\')
            return false;
        s->p[s->n++] = c == '/' ? slash : (char)c;
        i += 2;
    }
    *out = span_of(start, (size_t)(s->p + s->n - start));
    return true;
}

/* Takes the last segment off; *rest is absent when nothing is left, not even an empty segment. */
static struct span path_cut_last(struct span *rest)
{
    struct span all = *rest;
    ptrdiff_t slash = span_rfind(all, '/');
    *rest = slash < 0 ? SPAN_NONE : span_sub(all, 0, (size_t)slash);
    return slash < 0 ? all : span_from(all, (size_t)slash + 1);
}

static bool path_word_takes_digest(struct span word)
{
    return span_eq(word, SPAN("blobs")) || span_eq(word, SPAN("manifests")) ||
           span_eq(word, SPAN("referrers"));
}

/* "NAME/blobs/sha256:../../x". Only a digest has a colon and no digest has a slash, so this is a bad digest,
 * not another endpoint. */
static bool path_has_slash_in_digest(struct span rest)
{
    ptrdiff_t colon = span_find(rest, ':');
    if (colon < 0 || span_find(span_from(rest, (size_t)colon), '/') < 0)
        return false;
    struct span before = span_sub(rest, 0, (size_t)colon);
    path_cut_last(&before);
    return path_word_takes_digest(path_cut_last(&before));
}

/* The last two segments decide, for uploads the last three. *name is what stands before them. */
static enum route_kind path_kind(struct span word, struct span last, struct span *name)
{
    if (span_eq(word, SPAN("manifests")))
        return ROUTE_MANIFEST;
    if (span_eq(word, SPAN("blobs")))
        return span_eq(last, SPAN("uploads")) ? ROUTE_UPLOAD : ROUTE_BLOB;
    if (span_eq(word, SPAN("referrers")))
        return ROUTE_REFERRERS;
    if (span_eq(word, SPAN("tags")) && span_eq(last, SPAN("list")))
        return ROUTE_TAGS;
    if (span_eq(word, SPAN("uploads")) && span_eq(path_cut_last(name), SPAN("blobs")))
        return ROUTE_UPLOAD;
    return ROUTE_NONE;
}

static int route_reference(struct span reference, struct route *r)
{
    if (r->kind == ROUTE_TAGS || r->kind == ROUTE_UPLOAD)
        return 0;
    if (r->kind == ROUTE_MANIFEST && span_find(reference, ':') < 0) {
        r->tag = reference;
        return name_tag_ok(reference) ? 0 : ERR_TAG_INVALID;
    }
    switch (digest_parse(reference, &r->digest)) {
    case DIGEST_OK:
        return 0;
    case DIGEST_UNSUPPORTED:
        return ERR_DIGEST_UNSUPPORTED;
    case DIGEST_BAD:
        break;
    }
    return ERR_DIGEST_INVALID;
}

static int route_path(struct span path, struct route *r)
{
    if (span_eq(path, SPAN("/v2")) || span_eq(path, SPAN("/v2/"))) {
        r->kind = ROUTE_PING;
        return 0;
    }
    if (!span_starts(path, SPAN("/v2/")))
        return ERR_ROUTE_UNKNOWN;
    struct span rest = span_from(path, 4);
    if (path_has_slash_in_digest(rest))
        return ERR_DIGEST_INVALID;
    struct span last = path_cut_last(&rest);
    struct span word = path_cut_last(&rest);
    r->kind = path_kind(word, last, &rest);
    r->name = rest;
    if (r->kind == ROUTE_NONE || r->name.p == NULL)
        return ERR_ROUTE_UNKNOWN;
    if (!name_repo_ok(r->name))
        return ERR_NAME_INVALID;
    return route_reference(last, r);
}

/* Decodes one parameter, so that bad encoding is found in all of them. If it is ns, its value stays in
 * scratch. */
static bool query_parameter(struct span part, struct scratch *s, bool *is_ns, struct span *value)
{
    size_t mark = s->n;
    ptrdiff_t equals = span_find(part, '=');
    struct span key = equals < 0 ? part : span_sub(part, 0, (size_t)equals);
    *value = equals < 0 ? SPAN("") : span_from(part, (size_t)equals + 1);
    if (!scratch_decode(s, key, '/', &key))
        return false;
    *is_ns = span_eq(key, SPAN("ns"));
    s->n = mark;
    if (!scratch_decode(s, *value, '/', value))
        return false;
    if (!*is_ns)
        s->n = mark;
    return true;
}

static void scratch_copy(struct scratch *s, struct span text)
{
    if (text.n > 0)
        memcpy(s->p + s->n, text.p, text.n);
    s->n += text.n;
}

/* The query without the parameter `skip` (absent: whole) and without the "&" that joined it. */
static struct span query_copy(struct span query, struct span skip, struct scratch *s)
{
    struct span left = query, right = SPAN("");
    const char *start = s->p + s->n;
    if (skip.p != NULL) {
        left = span_sub(query, 0, (size_t)(skip.p - query.p));
        right = span_from(query, left.n + skip.n);
        if (right.n > 0)
            right = span_from(right, 1);
        else if (left.n > 0)
            left.n--;
    }
    scratch_copy(s, left);
    scratch_copy(s, right);
    return span_of(start, left.n + right.n);
}

static int route_query(struct span query, struct scratch *s, struct route *r)
{
    struct span rest = query, part, ns_part = SPAN_NONE;
    while (span_next(&rest, '&', &part)) {
        struct span value;
        bool is_ns;
        if (!query_parameter(part, s, &is_ns, &value))
            return ERR_BAD_REQUEST;
        if (!is_ns)
            continue;
        if (ns_part.p != NULL)
            return ERR_BAD_REQUEST;
        if (value.n > NAME_REGISTRY_MAX)
            return ERR_NS_INVALID;
        ns_part = part;
        if (value.n > 0)
            r->ns = value;
    }
    r->query = query_copy(query, ns_part, s);
    return 0;
}

/* A number of tags as every registry takes it. What is encoded is left to upstream. */
static bool query_n_ok(struct span query)
{
    struct span part;
    while (span_next(&query, '&', &part)) {
        if (!span_starts(part, SPAN("n=")))
            continue;
        for (size_t i = 2; i < part.n; i++) {
            if ((part.p[i] < '0' || part.p[i] > '9') && span_find(part, '%') < 0)
                return false;
        }
    }
    return true;
}

int route_parse(struct span target, char scratch[ROUTE_TARGET_MAX], struct route *out)
{
    struct route r = {.kind = ROUTE_NONE};
    struct scratch s = {.p = scratch};
    *out = r;
    if (target.n > ROUTE_TARGET_MAX)
        return ERR_URI_TOO_LONG;
    if (!target_bytes_ok(target) || !target_to_origin_form(&target))
        return ERR_BAD_REQUEST;
    ptrdiff_t mark = span_find(target, '?');
    struct span path = mark < 0 ? target : span_sub(target, 0, (size_t)mark);
    struct span query = mark < 0 ? SPAN("") : span_from(target, (size_t)mark + 1);
    if (!scratch_decode(&s, path, ENCODED_SLASH, &path))
        return ERR_BAD_REQUEST;
    int err = route_path(path, &r);
    if (err == 0)
        err = route_query(query, &s, &r);
    if (err == 0 && r.kind == ROUTE_TAGS && !query_n_ok(r.query))
        err = ERR_PAGE_INVALID;
    if (err == 0)
        *out = r;
    return err;
}
