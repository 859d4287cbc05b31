/* Request targets. H is a good sha256 digest's hexadecimal part, H512 that of a sha512 digest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "registry/name.h"
#include "registry/route.h"

#define H16  "0123456789abcdef"
#define H    H16 H16 H16 H16
#define H512 H H
#define SHA  "sha256:" H

struct expect {
    const char *target;
    int err;
    enum route_kind kind;
    const char *name, *tag, *digest, *ns, *query; /* NULL: absent, except query: empty */
};

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

static void expect_span(const char *target, const char *what, struct span got, const char *want)
{
    if ((want == NULL) != (got.p == NULL) || !span_eq(got, span_str(or_empty(want))))
        fail_msg("%s: %s is '" SPAN_FMT "', expected '%s'", target, what, SPAN_ARG(got), or_empty(want));
}

static void check(const struct expect *e)
{
    char scratch[ROUTE_TARGET_MAX], digest[DIGEST_TEXT_MAX];
    struct route r;
    int err = route_parse(span_str(e->target), scratch, &r);
    if (err != e->err || r.kind != e->kind)
        fail_msg("%s: %s, kind %d; expected %s, kind %d", e->target, err_name(err), (int)r.kind,
                 err_name(e->err), (int)e->kind);
    expect_span(e->target, "name", r.name, e->name);
    expect_span(e->target, "tag", r.tag, e->tag);
    expect_span(e->target, "ns", r.ns, e->ns);
    expect_span(e->target, "query", r.query, err == 0 ? or_empty(e->query) : NULL);
    if (r.digest.alg != DIGEST_NONE)
        assert_string_equal(digest_text(&r.digest, digest), or_empty(e->digest));
    else
        assert_null(e->digest);
}

#define RUN(table)                                                                                           \
    do {                                                                                                     \
        for (size_t i_ = 0; i_ < ARRAY_LEN(table); i_++)                                                     \
            check(&(table)[i_]);                                                                             \
    } while (0)

static void endpoints(void **state)
{
    UNUSED(state);
    static const struct expect table[] = {
        {.target = "/v2", .kind = ROUTE_PING},
        {.target = "/v2/", .kind = ROUTE_PING},
        {.target = "/v2/?ns=docker.io", .kind = ROUTE_PING, .ns = "docker.io"},
        {.target = "/v2/nginx/manifests/latest", .kind = ROUTE_MANIFEST, .name = "nginx", .tag = "latest"},
        {.target = "/v2/a/b/manifests/" SHA, .kind = ROUTE_MANIFEST, .name = "a/b", .digest = SHA},
        {.target = "/v2/a/manifests/sha512:" H512,
         .kind = ROUTE_MANIFEST,
         .name = "a",
         .digest = "sha512:" H512},
        {.target = "/v2/a/blobs/" SHA, .kind = ROUTE_BLOB, .name = "a", .digest = SHA},
        {.target = "/v2/a/blobs/sha512:" H512, .kind = ROUTE_BLOB, .name = "a", .digest = "sha512:" H512},
        {.target = "/v2/a/tags/list", .kind = ROUTE_TAGS, .name = "a"},
        {.target = "/v2/a/tags/list?n=2&last=x%2By",
         .kind = ROUTE_TAGS,
         .name = "a",
         .query = "n=2&last=x%2By"},
        {.target = "/v2/a/referrers/" SHA "?artifactType=x/y",
         .kind = ROUTE_REFERRERS,
         .name = "a",
         .digest = SHA,
         .query = "artifactType=x/y"},
        {.target = "/v2/a/b/blobs/uploads", .kind = ROUTE_UPLOAD, .name = "a/b"},
        {.target = "/v2/a/blobs/uploads/", .kind = ROUTE_UPLOAD, .name = "a"},
        {.target = "/v2/a/blobs/uploads/?digest=" SHA,
         .kind = ROUTE_UPLOAD,
         .name = "a",
         .query = "digest=" SHA},
        {.target = "/v2/a/blobs/uploads/5b1f-77", .kind = ROUTE_UPLOAD, .name = "a"},
    };
    RUN(table);
}

static void words_of_the_protocol_in_names(void **state)
{
    UNUSED(state);
    static const struct expect table[] = {
        {.target = "/v2/manifests/manifests/manifests",
         .kind = ROUTE_MANIFEST,
         .name = "manifests",
         .tag = "manifests"},
        {.target = "/v2/v2/blobs/manifests/v2", .kind = ROUTE_MANIFEST, .name = "v2/blobs", .tag = "v2"},
        {.target = "/v2/blobs/blobs/" SHA, .kind = ROUTE_BLOB, .name = "blobs", .digest = SHA},
        {.target = "/v2/a/tags/list/tags/list", .kind = ROUTE_TAGS, .name = "a/tags/list"},
        {.target = "/v2/tags/list/manifests/list",
         .kind = ROUTE_MANIFEST,
         .name = "tags/list",
         .tag = "list"},
        {.target = "/v2/a/blobs/uploads/manifests/x",
         .kind = ROUTE_MANIFEST,
         .name = "a/blobs/uploads",
         .tag = "x"},
        {.target = "/v2/a/blobs/uploads/blobs/" SHA,
         .kind = ROUTE_BLOB,
         .name = "a/blobs/uploads",
         .digest = SHA},
        {.target = "/v2/a/blobs/uploads/blobs/uploads/x", .kind = ROUTE_UPLOAD, .name = "a/blobs/uploads"},
        {.target = "/v2/referrers/referrers/" SHA,
         .kind = ROUTE_REFERRERS,
         .name = "referrers",
         .digest = SHA},
        {.target = "/v2/uploads/uploads/manifests/uploads",
         .kind = ROUTE_MANIFEST,
         .name = "uploads/uploads",
         .tag = "uploads"},
        {.target = "/v2/a/b/c/d/e/f/g/h/i/j/k/l/manifests/1",
         .kind = ROUTE_MANIFEST,
         .name = "a/b/c/d/e/f/g/h/i/j/k/l",
         .tag = "1"},
    };
    RUN(table);
}

static void unknown_endpoints(void **state)
{
    UNUSED(state);
    static const struct expect table[] = {
        {.target = "/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "//", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v1/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2x", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/V2/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "//v2/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2//", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/_catalog", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/nginx", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/manifests/latest", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/tags/list", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/blobs/uploads/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/tags/list/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/tags/other", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/manifests/x/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/uploads/x", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/blobs/uploads/x/y", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/Manifests/x", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/healthz", .err = ERR_ROUTE_UNKNOWN},
    };
    RUN(table);
}

static void bad_names_tags_and_digests(void **state)
{
    UNUSED(state);
    static const struct expect table[] = {
        {.target = "/v2/A/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2//manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2//a/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a//b/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a//manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/../manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a/../../etc/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/./a/tags/list", .err = ERR_NAME_INVALID},
        {.target = "/v2/a:b/tags/list", .err = ERR_NAME_INVALID},
        {.target = "/v2/A/blobs/uploads/", .err = ERR_NAME_INVALID},
        {.target = "/v2/a/manifests/", .err = ERR_TAG_INVALID},
        {.target = "/v2/a/manifests/.x", .err = ERR_TAG_INVALID},
        {.target = "/v2/a/manifests/..", .err = ERR_TAG_INVALID},
        {.target = "/v2/a/manifests/x@y", .err = ERR_TAG_INVALID},
        {.target = "/v2/a/blobs/", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/latest", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/sha256:", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/manifests/sha256:" H16 H16 H16 "0123456789abcde", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/" SHA "0", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/sha512:" H, .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/sha256:" H16 H16 H16 "0123456789ABCDEF", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/SHA256:" H, .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/referrers/x", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/blake3:" H, .err = ERR_DIGEST_UNSUPPORTED},
        {.target = "/v2/a/manifests/md5+b64:abc=", .err = ERR_DIGEST_UNSUPPORTED},
        {.target = "/v2/a/blobs/sha256:../../../etc/passwd", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/manifests/sha256:../x", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/referrers/" SHA "/../x", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/sha256:..%2F..%2Fetc", .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/blobs/sha256:x/blobs/" SHA, .err = ERR_DIGEST_INVALID},
        {.target = "/v2/a/other/x:y/z", .err = ERR_ROUTE_UNKNOWN},
    };
    RUN(table);
}

static void encodings(void **state)
{
    UNUSED(state);
    static const struct expect table[] = {
        {.target = "/v2/a/blobs/sha256%3A" H, .kind = ROUTE_BLOB, .name = "a", .digest = SHA},
        {.target = "/v2/a/blobs/sha256%3a" H, .kind = ROUTE_BLOB, .name = "a", .digest = SHA},
        {.target = "/%76%32/%61/%6Danifests/%6c", .kind = ROUTE_MANIFEST, .name = "a", .tag = "l"},
        /* an encoded slash is not a separator, and no part may hold one */
        {.target = "/v2/a%2Fb/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a%2fb/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a/manifests/x%2Fy", .err = ERR_TAG_INVALID},
        {.target = "/v2/a%2Fmanifests%2Fx", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/a/manifests%2Fx", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2%2F", .err = ERR_ROUTE_UNKNOWN},
        {.target = "/v2/%2e%2e/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a/%2E%2E/%2e/tags/list", .err = ERR_NAME_INVALID},
        /* decoded once only */
        {.target = "/v2/a%252Fb/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/%2561/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a/manifests/%256c", .err = ERR_TAG_INVALID},
        {.target = "/v2/a/blobs/sha256%253A" H, .err = ERR_DIGEST_INVALID},
        {.target = "/v2/%C3%A9/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a%20b/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a+b/manifests/x", .err = ERR_NAME_INVALID},
        {.target = "/v2/a%00/manifests/x", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/x%0d%0a", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/%7f", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a%5Cb/manifests/x", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/%", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/%4", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/%g1", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/%1g", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a/manifests/%u0041", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a\\b/manifests/x", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a b/manifests/x", .err = ERR_BAD_REQUEST},
        {.target = "/v2/a\tb/manifests/x", .err = ERR_BAD_REQUEST},
        {.target = "/v2/\xc3\xa9/manifests/x", .err = ERR_BAD_REQUEST},
        {.target = "/v2/#frag", .err = ERR_BAD_REQUEST},
        {.target = "/v2/?a\x7f", .err = ERR_BAD_REQUEST},
    };
    RUN(table);
}

static void what_is_shown_of_a_target(void **state)
{
    UNUSED(state);
    static const struct {
        const char *target, *shown;
    } table[] = {
        {"", ""},
        {"*", "*"},
        {"/v2/a@b", "/v2/a@b"},
        {"http://h/v2/", "http://h/v2/"},
        {"http://bob:secret@h/v2/", "h/v2/"},
        {"http://bob:sec@ret@h/v2/", "h/v2/"},
        {"http://bob:sec/ret@h/v2/", "h/v2/"},
        {"ftp://bob:secret@h", "h"},
        {"bob:secret@h:443", "h:443"},
        {"bob:secret@", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        assert_true(span_eq(route_shown(span_str(table[i].target)), span_str(table[i].shown)));
}

static void forms_of_the_target(void **state)
{
    UNUSED(state);
    static const struct expect table[] = {
        {.target = "http://h/v2/", .kind = ROUTE_PING},
        {.target = "http://h:5000/v2/a/manifests/x?ns=q.example",
         .kind = ROUTE_MANIFEST,
         .name = "a",
         .tag = "x",
         .ns = "q.example"},
        {.target = "HTTPS://h/v2/a/tags/list", .kind = ROUTE_TAGS, .name = "a"},
        {.target = "http://h/http://h/v2/", .err = ERR_ROUTE_UNKNOWN},
        {.target = "http://h", .err = ERR_ROUTE_UNKNOWN},
        {.target = "http://h?x", .err = ERR_ROUTE_UNKNOWN},
        {.target = "http://u:p@h/v2/", .err = ERR_BAD_REQUEST},
        {.target = "HTTPS://@h/v2/", .err = ERR_BAD_REQUEST},
        {.target = "http://h/v2/a/manifests/x@y", .err = ERR_TAG_INVALID},
        {.target = "http:///v2/", .err = ERR_BAD_REQUEST},
        {.target = "http://?/v2/", .err = ERR_BAD_REQUEST},
        {.target = "ftp://h/v2/", .err = ERR_BAD_REQUEST},
        {.target = "http:/v2/", .err = ERR_BAD_REQUEST},
        {.target = "h:443", .err = ERR_BAD_REQUEST},
        {.target = "*", .err = ERR_BAD_REQUEST},
        {.target = "v2/", .err = ERR_BAD_REQUEST},
        {.target = "", .err = ERR_BAD_REQUEST},
        {.target = "?/v2/", .err = ERR_BAD_REQUEST},
    };
    RUN(table);
}

static void namespaces(void **state)
{
    UNUSED(state);
#define T    "/v2/a/tags/list?"
#define TAGS .kind = ROUTE_TAGS, .name = "a"
    static const struct expect table[] = {
        {.target = T "ns=docker.io", TAGS, .ns = "docker.io"},
        {.target = T "ns=DOCKER.IO", TAGS, .ns = "DOCKER.IO"},
        {.target = T "ns=h:5000", TAGS, .ns = "h:5000"},
        {.target = T "ns=h%3A5000", TAGS, .ns = "h:5000"},
        {.target = T "ns=[::1]:5000", TAGS, .ns = "[::1]:5000"},
        {.target = T "ns=%5B::1%5D", TAGS, .ns = "[::1]"},
        {.target = T "ns=a%252e", TAGS, .ns = "a%2e"},
        {.target = T "ns=a=b", TAGS, .ns = "a=b"},
        {.target = T "ns=..%2F..", TAGS, .ns = "../.."},
        {.target = T "%6es=q", TAGS, .ns = "q"},
        {.target = T "ns=", TAGS},
        {.target = T "ns", TAGS},
        {.target = T "", TAGS},
        {.target = T "NS=q", TAGS, .query = "NS=q"},
        {.target = T "nss=q&n=1", TAGS, .query = "nss=q&n=1"},
        {.target = T "n=1&ns=q", TAGS, .ns = "q", .query = "n=1"},
        {.target = T "n=0", TAGS, .query = "n=0"},
        {.target = T "n=", TAGS, .query = "n="},
        {.target = T "n=%31", TAGS, .query = "n=%31"},
        {.target = T "n=99999999999999999999&last=-", TAGS, .query = "n=99999999999999999999&last=-"},
        {.target = T "last=n=x", TAGS, .query = "last=n=x"},
        {.target = T "n=-1", .err = ERR_PAGE_INVALID},
        {.target = T "last=a&n=1x", .err = ERR_PAGE_INVALID},
        {.target = T "n=1&n=x", .err = ERR_PAGE_INVALID},
        {.target = T "ns=q&n=+1", .err = ERR_PAGE_INVALID},
        {.target = "/v2/a/referrers/" SHA "?n=x",
         .kind = ROUTE_REFERRERS,
         .name = "a",
         .digest = SHA,
         .query = "n=x"},
        {.target = T "ns=q&n=1", TAGS, .ns = "q", .query = "n=1"},
        {.target = T "n=1&ns=q&last=b", TAGS, .ns = "q", .query = "n=1&last=b"},
        {.target = T "n=1&ns=&last=b", TAGS, .query = "n=1&last=b"},
        {.target = T "ns=q&", TAGS, .ns = "q"},
        {.target = T "&ns=q", TAGS, .ns = "q"},
        {.target = T "a&&b=?&", TAGS, .query = "a&&b=?&"},
        {.target = T "last=%C3%A9%2f", TAGS, .query = "last=%C3%A9%2f"},
        {.target = T "ns=q&ns=r", .err = ERR_BAD_REQUEST},
        {.target = T "ns=q&ns=q", .err = ERR_BAD_REQUEST},
        {.target = T "ns=q&n=1&%6Es=r", .err = ERR_BAD_REQUEST},
        {.target = T "ns=&ns=q", .err = ERR_BAD_REQUEST},
        {.target = T "ns=a%00b", .err = ERR_BAD_REQUEST},
        {.target = T "ns=%zz", .err = ERR_BAD_REQUEST},
        {.target = T "%=1", .err = ERR_BAD_REQUEST},
        {.target = T "last=%0a", .err = ERR_BAD_REQUEST},
        {.target = T "last=a\\b", .err = ERR_BAD_REQUEST},
    };
#undef TAGS
#undef T
    RUN(table);
}

static int parse_long(const char *before, size_t fill, const char *after, struct route *r)
{
    static char text[ROUTE_TARGET_MAX + 1024];
    static char scratch[ROUTE_TARGET_MAX];
    struct str s = STR_INIT(text);
    str_addz(&s, before);
    for (size_t i = 0; i < fill; i++)
        str_addc(&s, 'a');
    str_addz(&s, after);
    assert_false(s.cut);
    return route_parse(str_span(&s), scratch, r);
}

static void lengths(void **state)
{
    UNUSED(state);
    struct route r;
    assert_int_equal(parse_long("/v2/", 255, "/manifests/x", &r), 0);
    assert_int_equal(r.name.n, 255);
    assert_int_equal(parse_long("/v2/", 256, "/manifests/x", &r), ERR_NAME_INVALID);
    assert_int_equal(parse_long("/v2/a/manifests/", 128, "", &r), 0);
    assert_int_equal(r.tag.n, 128);
    assert_int_equal(parse_long("/v2/a/manifests/", 129, "", &r), ERR_TAG_INVALID);
    assert_int_equal(parse_long("/v2/?ns=", NAME_REGISTRY_MAX, "", &r), 0);
    assert_int_equal(r.ns.n, NAME_REGISTRY_MAX);
    assert_int_equal(parse_long("/v2/?ns=", NAME_REGISTRY_MAX + 1, "", &r), ERR_NS_INVALID);
    assert_int_equal(parse_long("/v2/a/tags/list?n=1&ns=", ROUTE_TARGET_MAX - 30, "", &r), ERR_NS_INVALID);
    /* scratch holds the longest query exactly */
    assert_int_equal(parse_long("/v2/?ns=q&", ROUTE_TARGET_MAX - 10, "", &r), 0);
    assert_int_equal(r.query.n, ROUTE_TARGET_MAX - 10);
    assert_int_equal(parse_long("/v2/?ns=", ROUTE_TARGET_MAX - 7, "", &r), ERR_URI_TOO_LONG);
    assert_int_equal(r.kind, ROUTE_NONE);

    size_t n = 100 * 1024;
    char scratch[ROUTE_TARGET_MAX], *text = mem_alloc(n);
    memset(text, '/', n);
    assert_int_equal(route_parse(span_of(text, n), scratch, &r), ERR_URI_TOO_LONG);
    mem_free(text);
}

static void binary_targets(void **state)
{
    UNUSED(state);
    char scratch[ROUTE_TARGET_MAX];
    struct route r;
    assert_int_equal(route_parse(SPAN("/v2/\0"), scratch, &r), ERR_BAD_REQUEST);
    assert_int_equal(route_parse(SPAN("/v2/a\0/manifests/x"), scratch, &r), ERR_BAD_REQUEST);
    assert_int_equal(route_parse(SPAN("/v2/?ns=\0"), scratch, &r), ERR_BAD_REQUEST);
    assert_int_equal(route_parse(SPAN_NONE, scratch, &r), ERR_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints),
        cmocka_unit_test(words_of_the_protocol_in_names),
        cmocka_unit_test(unknown_endpoints),
        cmocka_unit_test(bad_names_tags_and_digests),
        cmocka_unit_test(encodings),
        cmocka_unit_test(forms_of_the_target),
        cmocka_unit_test(what_is_shown_of_a_target),
        cmocka_unit_test(namespaces),
        cmocka_unit_test(lengths),
        cmocka_unit_test(binary_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
