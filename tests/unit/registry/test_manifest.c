/* What manifests refer to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"
#include "registry/manifest.h"

#define OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_IMAGE "application/vnd.oci.image.manifest.v1+json"
#define DOCKER_V1 "application/vnd.docker.distribution.manifest.v1+prettyjws"
#define A         "sha256:" A_HEX
#define A_HEX     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B_HEX     "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define B         "sha256:" B_HEX
#define C         "sha512:" A_HEX B_HEX

/* What was told, as text: "role digest's first and last letters size media os/architecture/variant/version urls; ". */
struct told {
    struct str text;
    size_t n;
};

static void note(void *arg, const struct manifest_child *c)
{
    static const char *const roles[] = {"config", "layer", "manifest", "subject"};
    struct told *t = arg;
    char digest[DIGEST_TEXT_MAX];
    (void)digest_text(&c->digest, digest);
    t->n++;
    str_addf(&t->text, "%s %c%zu %llu " SPAN_FMT, roles[c->role], digest[7], strlen(digest),
             (unsigned long long)c->size, SPAN_ARG(c->media));
    if (c->os.p != NULL)
        str_addf(&t->text, " " SPAN_FMT "/" SPAN_FMT "/" SPAN_FMT "/" SPAN_FMT, SPAN_ARG(c->os),
                 SPAN_ARG(c->architecture), SPAN_ARG(c->variant), SPAN_ARG(c->os_version));
    str_addf(&t->text, "%s; ", c->urls ? " urls" : "");
}

static struct manifest_seen reads(const char *type, const char *doc, const char *wanted)
{
    char text[2048];
    struct told t = {.text = STR_INIT(text)};
    struct manifest_seen seen;
    assert_true(manifest_read(span_str(type), span_str(doc), note, &t, &seen));
    assert_string_equal(text, wanted);
    assert_int_equal(t.n, seen.children);
    assert_false(seen.cut);
    return seen;
}

static void images(void **state)
{
    UNUSED(state);
    const char *doc =
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"" A "\",\"size\":7,\"mediaType\":\"c/c\"},"
        "\"layers\":[{\"digest\":\"" B "\",\"size\":9007199254740993,\"mediaType\":\"l/l\"},"
        "{\"mediaType\":\"f/f\",\"urls\":[\"https://x.example/\"],\"digest\":\"" C "\"},"
        "{\"digest\":\"" B "\",\"urls\":[]}],"
        "\"subject\":{\"digest\":\"" A "\",\"size\":3},\"annotations\":{\"digest\":\"" B "\"}}";
    const char *told =
        "config a71 7 c/c; layer b71 9007199254740993 l/l; layer a135 0 f/f urls; layer b71 0 ; "
        "subject a71 3 ; ";
    assert_int_equal(reads(OCI_IMAGE, doc, told).form, MEDIA_IMAGE);
    assert_int_equal(reads("application/json", doc, told).form, MEDIA_IMAGE);
    assert_int_equal(reads("application/vnd.docker.distribution.manifest.v2+json", doc, told).form,
                     MEDIA_IMAGE);
    reads("application/vnd.oci.artifact.manifest.v1+json", "{\"blobs\":[{\"digest\":\"" B "\",\"size\":1}]}",
          "layer b71 1 ; ");
}

static void indexes(void **state)
{
    UNUSED(state);
    const char *doc =
        "{\"manifests\":[{\"digest\":\"" A "\",\"size\":5,\"mediaType\":\"" OCI_IMAGE "\",\"platform\":{"
        "\"architecture\":\"arm\",\"os\":\"linux\",\"variant\":\"v7\"}},"
        "{\"digest\":\"" B
        "\",\"platform\":{\"os\":\"windows\",\"os.version\":\"10.0\",\"architecture\":\"amd64\"}},"
        "{\"digest\":\"" B "\",\"platform\":\"none\",\"urls\":[\"u\"]}],\"subject\":{\"digest\":\"" C "\"}}";
    const char *told = "manifest a71 5 " OCI_IMAGE " linux/arm/v7/; manifest b71 0  windows/amd64//10.0; "
                       "manifest b71 0 ; subject a135 0 ; ";
    assert_int_equal(reads(OCI_INDEX, doc, told).form, MEDIA_INDEX);
    assert_int_equal(reads(NULL, doc, told).form, MEDIA_INDEX);
    /* The type decides, so nothing of the other kind is told. */
    reads(OCI_IMAGE, doc, "subject a135 0 ; ");
    reads(OCI_INDEX, "{\"layers\":[{\"digest\":\"" A "\"}],\"manifests\":[]}", "");
    assert_int_equal(reads(NULL, "{\"layers\":[{\"digest\":\"" A "\"}],\"manifests\":[]}", "").form,
                     MEDIA_OTHER);
}

static void schema1(void **state)
{
    UNUSED(state);
    const char *doc = "{\"schemaVersion\":1,\"fsLayers\":[{\"blobSum\":\"" A "\"},{\"blobSum\":\"" B "\"}],"
                      "\"history\":[{\"v1Compatibility\":\"{\\\"id\\\":\\\"x\\\"}\"}],\"signatures\":[]}";
    assert_int_equal(reads(DOCKER_V1, doc, "layer a71 0 ; layer b71 0 ; ").form, MEDIA_SCHEMA1);
    reads(NULL, doc, "layer a71 0 ; layer b71 0 ; ");
}

static void strange_things_are_passed_over(void **state)
{
    UNUSED(state);
    struct manifest_seen seen =
        reads(OCI_IMAGE,
              "{\"config\":[],\"layers\":[1,null,\"" A "\",[],{},{\"digest\":7},{\"digest\":\"md5:1\"},"
              "{\"digest\":\"sha256:AA\"},{\"digest\":\"" A "\",\"size\":-1,\"mediaType\":\"a\\u0041\"},"
              "{\"digest\":\"" A "\",\"size\":1.5,\"urls\":\"x\"},{\"digest\":\"" A "\",\"size\":1e3},"
              "{\"digest\":\"" A "\",\"size\":99999999999999999999,\"mediaType\":3}],\"subject\":null}",
              "layer a71 0 ; layer a71 0 ; layer a71 0 ; layer a71 0 ; ");
    assert_int_equal(seen.strange, 4);
    /* The last of equal members counts. */
    reads(OCI_IMAGE,
          "{\"layers\":[{\"digest\":\"" A "\"}],\"layers\":[{\"digest\":\"" A "\",\"digest\":\"" B
          "\",\"size\":1,"
          "\"size\":\"2\"}]}",
          "layer b71 0 ; ");
    reads(OCI_INDEX, "{}", "");
    reads(OCI_INDEX, "{\"manifests\":{\"digest\":\"" A "\"}}", "");
}

static void damaged_documents(void **state)
{
    UNUSED(state);
    static const char *const docs[] = {
        "", "[]", "null", "{", "{\"layers\":[", "{\"layers\":[{\"digest\":\"" A "\"}", "{\"layers\":[]} x"};
    for (size_t i = 0; i < ARRAY_LEN(docs); i++) {
        char text[64];
        struct told t = {.text = STR_INIT(text)};
        struct manifest_seen seen;
        assert_false(manifest_read(SPAN(OCI_IMAGE), span_str(docs[i]), note, &t, &seen));
        assert_int_equal(seen.children, 0);
    }
}

static void count(void *arg, const struct manifest_child *c)
{
    UNUSED(c);
    (*(size_t *)arg)++;
}

static void more_than_anybody_has(void **state)
{
    UNUSED(state);
    size_t cap = 2u << 20, n = 0;
    for (size_t more = 0; more <= 1; more++) {
        struct str doc = str_init(mem_alloc(cap), cap);
        str_addz(&doc, "{\"layers\":[");
        for (size_t i = 0; i < MANIFEST_CHILDREN_MAX + more; i++)
            str_addz(&doc, i == 0 ? "{\"digest\":\"" A "\"}" : ",{\"digest\":\"" A "\"}");
        str_addz(&doc, "],\"subject\":{\"digest\":\"" B "\"}}");
        struct manifest_seen seen;
        n = 0;
        assert_true(manifest_read(SPAN(OCI_IMAGE), str_span(&doc), count, &n, &seen));
        assert_int_equal(n, MANIFEST_CHILDREN_MAX);
        assert_true(seen.cut);
        mem_free(doc.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images),
        cmocka_unit_test(indexes),
        cmocka_unit_test(schema1),
        cmocka_unit_test(strange_things_are_passed_over),
        cmocka_unit_test(damaged_documents),
        cmocka_unit_test(more_than_anybody_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
