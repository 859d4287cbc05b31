/* The input is a manifest, and a content type. The type that is found is one that may be sent to clients, lies in
 * the document or is a constant of ours, and is what a JSON parser finds. */
#include <jansson.h>

#include "base/check.h"
#include "registry/media.h"

#define NESTING_KNOWN 200 /* brackets in a document that is surely not nested too deep */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_sendable(struct span type)
{
    MUST(type.n > 0 && type.n <= MEDIA_TYPE_MAX);
    MUST(media_manifest_plausible(type) && !media_is_generic(type));
    MUST(span_eq(media_essence(type), type));
    for (size_t i = 0; i < type.n; i++)
        MUST(type.p[i] > 0x20 && type.p[i] < 0x7f && type.p[i] != '"' && type.p[i] != ',');
}

static bool inside(struct span body, struct span s)
{
    return s.p >= body.p && s.p + s.n <= body.p + body.n;
}

/* A document with escapes may spell a key in a way that the scanner does not look through; the parser lets a NUL
 * behind a number pass, the scanner does not. */
static bool comparable(struct span body)
{
    size_t brackets = 0;
    for (size_t i = 0; i < body.n; i++)
        brackets += body.p[i] == '{' || body.p[i] == '[';
    return span_find(body, '\\') < 0 && span_find(body, '\0') < 0 && brackets < NESTING_KNOWN;
}

static void check_as_parsed(struct span body, struct span found)
{
    json_error_t error;
    json_t *doc = json_loadb(body.p, body.n, JSON_DECODE_ANY, &error);
    if (doc == NULL)
        return;
    struct span type = span_str(json_string_value(json_object_get(doc, "mediaType")));
    bool telling = type.p != NULL && media_manifest_plausible(type) && !media_is_generic(type) &&
                   span_eq(media_essence(type), type);
    bool index = json_is_array(json_object_get(doc, "manifests"));
    bool image =
        json_is_array(json_object_get(doc, "layers")) || json_is_object(json_object_get(doc, "config"));
    bool old = json_is_array(json_object_get(doc, "fsLayers"));
    if (telling)
        MUST(span_eq(found, type));
    else
        MUST((found.p != NULL) == ((index || image || old) && !(index && image)));
    if (!telling && found.p != NULL)
        MUST(!inside(body, found));
    json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span body = span_of((const char *)data, size);
    struct span found = media_of_manifest(SPAN_NONE, body);
    if (found.p != NULL)
        check_sendable(found);
    if (size > 0 && comparable(body))
        check_as_parsed(body, found);

    struct span essence = media_essence(body);
    MUST(essence.n == 0 || inside(body, essence));
    MUST(media_manifest_plausible(essence) == media_manifest_plausible(body));
    if (media_manifest_plausible(body) && !media_is_generic(body))
        check_sendable(media_of_manifest(body, SPAN("{}")));
    return 0;
}
