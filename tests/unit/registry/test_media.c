/* Media types of manifests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "registry/media.h"

#define OCI_INDEX    "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define DOCKER_LIST  "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_V1    "application/vnd.docker.distribution.manifest.v1+json"
#define DOCKER_JWS   "application/vnd.docker.distribution.manifest.v1+prettyjws"

static void accept_names_every_type_once(void **state)
{
    UNUSED(state);
    static const char *types[] = {OCI_INDEX,
                                  OCI_MANIFEST,
                                  DOCKER_LIST,
                                  DOCKER_V1,
                                  DOCKER_JWS,
                                  "application/vnd.docker.distribution.manifest.v2+json",
                                  "application/vnd.oci.artifact.manifest.v1+json",
                                  "*/*"};
    struct span rest = media_accept_manifest, part;
    size_t parts = 0, found = 0;
    while (span_next(&rest, ',', &part)) {
        parts++;
        for (size_t i = 0; i < ARRAY_LEN(types); i++)
            found += span_eq(span_trim(part), span_str(types[i]));
    }
    assert_int_equal(parts, ARRAY_LEN(types));
    assert_int_equal(found, ARRAY_LEN(types));
    assert_true(span_ends(media_accept_manifest, SPAN(", */*")));
}

static void essence(void **state)
{
    UNUSED(state);
    assert_true(
        span_eq(media_essence(SPAN(" application/json ; charset=utf-8; x=y")), SPAN("application/json")));
    assert_true(span_eq(media_essence(SPAN("a/b")), SPAN("a/b")));
    assert_int_equal(media_essence(SPAN("; x")).n, 0);
    assert_null(media_essence(SPAN_NONE).p);
}

static void plausible_and_generic(void **state)
{
    UNUSED(state);
    static const struct {
        const char *type;
        bool plausible, generic;
    } cases[] = {
        {NULL, true, true},
        {"", true, true},
        {"application/json", true, true},
        {"Application/JSON; charset=utf-8", true, true},
        {"application/octet-stream", true, true},
        {"text/plain", true, true},
        {"Text/Plain; charset=utf-8", true, true},
        {OCI_INDEX, true, false},
        {DOCKER_JWS "; charset=utf-8", true, false},
        {"application/vnd.example.new+json", true, false},
        {"text/html", false, false},
        {"TEXT/HTML; charset=utf-8", false, false},
        {"text/xml", false, false},
        {"text/plainer", false, false},
        {"application/xhtml+xml", false, false},
        {"json", false, false},
        {"a/b/c", false, false},
        {"/json", false, false},
        {"application/", false, false},
        {"application/x y", false, false},
        {"application/x\r\ny", false, false},
        {"application/\"x\"", false, false},
        {"application/\xc3\xa9", false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct span type = span_str(cases[i].type);
        if (media_manifest_plausible(type) != cases[i].plausible ||
            media_is_generic(type) != cases[i].generic)
            fail_msg("wrong about '%s'", cases[i].type != NULL ? cases[i].type : "(absent)");
    }
    char buf[MEDIA_TYPE_MAX + 1];
    memset(buf, 'a', sizeof(buf));
    buf[1] = '/';
    assert_true(media_manifest_plausible(span_of(buf, MEDIA_TYPE_MAX)));
    assert_false(media_manifest_plausible(span_of(buf, MEDIA_TYPE_MAX + 1)));
}

/* What a document without a telling header is; NULL: absent. */
static const struct {
    const char *body, *type;
} documents[] = {
    {"{\"mediaType\":\"x/y\"}", "x/y"},
    {" \r\n\t{ \"schemaVersion\" : 2 , \"mediaType\" : \"x/y\" } \n", "x/y"},
    {"{\"config\":{\"mediaType\":\"no/no\"},\"mediaType\":\"x/y\",\"layers\":[{\"mediaType\":\"no/no\"}]}",
     "x/y"},
    {"{\"mediaType\":\"x/y\",\"mediaType\":\"x/z\"}", "x/z"},
    {"{\"a\":\"\\\"mediaType\\\":\\\"no/no\\\"\",\"mediaType\":\"x/y\"}", "x/y"},
    {"{\"a\\\\\":1,\"mediaType\":\"x/y\",\"b\":[[],{},[{\"c\":[-1.5e+3,true,null]}]]}", "x/y"},
    {"{\"mediaType\":\"x/y\",\"manifests\":[],\"layers\":[]}", "x/y"},
    {"{\"manifests\":[{}]}", OCI_INDEX},
    {"{\"config\":{}}", OCI_MANIFEST},
    {"{\"layers\":[]}", OCI_MANIFEST},
    {"{\"config\":[],\"layers\":[]}", OCI_MANIFEST},
    {"{\"config\":{},\"config\":[]}", NULL},
    {"{\"layers\":[],\"layers\":{}}", NULL},
    {"{\"manifests\":[],\"manifests\":{}}", NULL},
    {"{\"config\":{},\"layers\":[],\"mediaType\":null}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\"not a type\"}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\"x\\/y\"}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\"\"}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":{\"mediaType\":\"x/y\"}}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\"text/html\"}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\"application/json\"}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\" x/y\"}", OCI_MANIFEST},
    {"{\"layers\":[],\"mediaType\":\"x/y; z\"}", OCI_MANIFEST},
    {"{\"fsLayers\":[]}", DOCKER_V1},
    {"{\"fsLayers\":[],\"signatures\":[{}]}", DOCKER_JWS},
    {"{\"manifests\":[],\"layers\":[]}", NULL},
    {"{\"manifests\":[],\"config\":{}}", NULL},
    {"{\"manifests\":{},\"layers\":1,\"config\":[]}", NULL},
    {"{\"annotations\":{\"manifests\":[]}}", NULL},
    {"{\"errors\":[{\"code\":\"X\"}]}", NULL},
    {"{}", NULL},
    {"", NULL},
    {"null", NULL},
    {"[{\"mediaType\":\"x/y\"}]", NULL},
    {"\"mediaType\"", NULL},
    {"<html>{\"mediaType\":\"x/y\"}</html>", NULL},
    {"\xef\xbb\xbf{\"mediaType\":\"x/y\"}", NULL},
    {"{\"mediaType\":\"x/y\"", NULL},
    {"{\"mediaType\":\"x/y", NULL},
    {"{\"mediaType\":\"x/y\\", NULL},
    {"{\"mediaType\":\"x/y\\\"}", NULL},
    {"{\"mediaType\":\"x/y\"}}", NULL},
    {"{\"mediaType\":\"x/y\"}{}", NULL},
    {"{\"mediaType\":\"x/y\"} x", NULL},
    {"{\"mediaType\":\"x/y\",}", NULL},
    {"{,\"mediaType\":\"x/y\"}", NULL},
    {"{\"mediaType\" \"x/y\"}", NULL},
    {"{\"mediaType\":\"x/y\",\"a\":}", NULL},
    {"{\"mediaType\":\"x/y\",\"a\":[1,2}", NULL},
    {"{\"mediaType\":\"x/y\",\"a\":[}]}", NULL},
    {"{\"mediaType\":\"x/y\",\"a\":<>}", NULL},
    {"{mediaType:\"x/y\"}", NULL},
};

static void types_of_documents(void **state)
{
    UNUSED(state);
    for (size_t i = 0; i < ARRAY_LEN(documents); i++) {
        struct span body = span_str(documents[i].body);
        struct span got = media_of_manifest(SPAN("application/json"), body);
        struct span want = span_str(documents[i].type);
        if ((got.p == NULL) != (want.p == NULL) || !span_eq(got, want))
            fail_msg("%s: got '" SPAN_FMT "'", documents[i].body, SPAN_ARG(got));
        bool inside = got.p >= body.p && got.p < body.p + body.n;
        assert_int_equal(inside, want.p != NULL && strlen(documents[i].type) == 3);
    }
    assert_null(media_of_manifest(SPAN_NONE, SPAN_NONE).p);
    assert_null(media_of_manifest(SPAN_NONE, SPAN("{\"mediaType\":\"x/y\"\0}")).p);
}

static void a_telling_header_wins(void **state)
{
    UNUSED(state);
    struct span body = SPAN("{\"mediaType\":\"x/y\"}");
    assert_true(span_eq(media_of_manifest(SPAN(OCI_INDEX " ; charset=utf-8"), body), SPAN(OCI_INDEX)));
    assert_true(span_eq(media_of_manifest(SPAN("application/vnd.example"), SPAN("?")),
                        SPAN("application/vnd.example")));
    assert_true(span_eq(media_of_manifest(SPAN("text/plain; charset=utf-8"), body), SPAN("x/y")));
    assert_true(span_eq(media_of_manifest(SPAN_NONE, body), SPAN("x/y")));
}

static struct span nested(char *buf, size_t depth)
{
    struct str s = str_init(buf, depth * 2 + 64);
    str_add(&s, SPAN("{\"a\":"));
    for (size_t i = 0; i < depth; i++)
        str_addc(&s, '[');
    for (size_t i = 0; i < depth; i++)
        str_addc(&s, ']');
    str_add(&s, SPAN(",\"mediaType\":\"x/y\"}"));
    MUST(!s.cut);
    return str_span(&s);
}

static void nesting_is_bounded(void **state)
{
    UNUSED(state);
    size_t deep = 1 << 20;
    char *buf = mem_alloc(deep * 2 + 64);
    assert_true(span_eq(media_of_manifest(SPAN_NONE, nested(buf, 256)), SPAN("x/y")));
    assert_null(media_of_manifest(SPAN_NONE, nested(buf, 257)).p);
    assert_null(media_of_manifest(SPAN_NONE, nested(buf, deep)).p);
    mem_free(buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accept_names_every_type_once), cmocka_unit_test(essence),
        cmocka_unit_test(plausible_and_generic),        cmocka_unit_test(types_of_documents),
        cmocka_unit_test(a_telling_header_wins),        cmocka_unit_test(nesting_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
