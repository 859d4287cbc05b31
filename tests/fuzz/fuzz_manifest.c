/* The input is a manifest. What it refers to lies inside the document, is bounded, and a document that a JSON parser takes is read to
 * its end with as many children as the parser sees. */
#include <jansson.h>

#include "base/check.h"
#include "registry/manifest.h"

#define NESTING_KNOWN 200 /* brackets in a document that is surely not nested too deep */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct told {
    struct span doc;
    size_t n[CHILD_SUBJECT + 1];
};

static void check_inside(const struct told *t, struct span s)
{
    MUST(s.p == NULL || (s.p > t->doc.p && s.p + s.n < t->doc.p + t->doc.n));
}

static void note(void *arg, const struct manifest_child *c)
{
    struct told *t = arg;
    t->n[c->role]++;
    MUST(digest_raw_len(&c->digest) > 0 && c->size <= INT64_MAX);
    check_inside(t, c->media);
    check_inside(t, c->os);
    check_inside(t, c->architecture);
    check_inside(t, c->variant);
    check_inside(t, c->os_version);
    MUST(c->role == CHILD_LAYER || !c->urls);
}

static bool comparable(struct span body)
{
    size_t brackets = 0;
    for (size_t i = 0; i < body.n; i++)
        brackets += body.p[i] == '{' || body.p[i] == '[';
    return span_find(body, '\\') < 0 && span_find(body, '\0') < 0 && brackets < NESTING_KNOWN;
}

static bool counts(json_t *descriptor, const char *key)
{
    struct digest d;
    struct span text = span_str(json_string_value(json_object_get(descriptor, key)));
    return text.p != NULL && span_find(text, 0x7f) < 0 && digest_parse(text, &d) == DIGEST_OK;
}

static size_t counted(json_t *array)
{
    size_t n = 0, i;
    json_t *value;
    json_array_foreach(array, i, value) n += counts(value, "digest");
    return n;
}

static void check_as_parsed(const struct told *t)
{
    json_error_t error;
    json_t *doc = json_loadb(t->doc.p, t->doc.n, JSON_DECODE_ANY, &error);
    if (doc == NULL)
        return;
    struct span old = SPAN("blobSum"); /* counts as a digest, too: then the numbers may differ */
    bool both = memmem(t->doc.p, t->doc.n, old.p, old.n) != NULL;
    size_t layers = counted(json_object_get(doc, "layers")) + counted(json_object_get(doc, "blobs"));
    if (json_is_object(doc) && !both && layers < MANIFEST_CHILDREN_MAX - 2) {
        MUST(t->n[CHILD_LAYER] == layers);
        MUST(t->n[CHILD_CONFIG] == counts(json_object_get(doc, "config"), "digest"));
        MUST(t->n[CHILD_SUBJECT] == counts(json_object_get(doc, "subject"), "digest"));
    }
    json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct span types[] = {
        {NULL, 0},
        {"application/vnd.oci.image.index.v1+json", 39},
        {"application/vnd.docker.distribution.manifest.v1+prettyjws", 57},
        {"application/vnd.oci.image.manifest.v1+json", 42},
    };
    struct manifest_seen seen;
    struct told t;
    bool whole = false;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        t = (struct told){.doc = span_of((const char *)data, size)};
        whole = manifest_read(types[i], t.doc, note, &t, &seen);
        MUST(seen.children <= MANIFEST_CHILDREN_MAX);
        MUST(seen.children ==
             t.n[CHILD_CONFIG] + t.n[CHILD_LAYER] + t.n[CHILD_MANIFEST] + t.n[CHILD_SUBJECT]);
    }
    if (whole && comparable(t.doc))
        check_as_parsed(&t);
    return 0;
}
