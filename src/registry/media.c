/* Which type a manifest has: see media.h. As in every parser that clients use, the last of several equal keys
 * counts. */
#include "registry/json.h"
#include "registry/media.h"

#define OCI_INDEX        "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST     "application/vnd.oci.image.manifest.v1+json"
#define OCI_ARTIFACT     "application/vnd.oci.artifact.manifest.v1+json"
#define DOCKER_LIST      "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_MANIFEST  "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_V1_SIGNED "application/vnd.docker.distribution.manifest.v1+prettyjws"
#define DOCKER_V1        "application/vnd.docker.distribution.manifest.v1+json"
#define ACCEPT_MANIFEST                                                                                      \
    OCI_INDEX ", " DOCKER_LIST ", " OCI_MANIFEST ", " DOCKER_MANIFEST ", " OCI_ARTIFACT                      \
              ", " DOCKER_V1_SIGNED ", " DOCKER_V1 ", */*"

const struct span media_accept_manifest = {.p = ACCEPT_MANIFEST, .n = sizeof(ACCEPT_MANIFEST) - 1};

struct span media_essence(struct span content_type)
{
    ptrdiff_t semicolon = span_find(content_type, ';');
    if (semicolon >= 0)
        content_type = span_sub(content_type, 0, (size_t)semicolon);
    return span_trim(content_type);
}

static bool byte_is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool byte_is_token(char c) /* RFC 9110 section 5.6.2 */
{
    return byte_is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* type "/" subtype, both tokens: what may be sent to clients as Content-Type. */
static bool type_ok(struct span s)
{
    size_t slashes = 0;
    if (s.n < 3 || s.n > MEDIA_TYPE_MAX || s.p[0] == '/' || s.p[s.n - 1] == '/')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '/')
            slashes++;
        else if (!byte_is_token(s.p[i]))
            return false;
    }
    return slashes == 1;
}

bool media_is_generic(struct span content_type)
{
    struct span type = media_essence(content_type);
    return type.n == 0 || span_ieq(type, SPAN("application/json")) ||
           span_ieq(type, SPAN("application/octet-stream")) || span_ieq(type, SPAN("text/plain"));
}

bool media_manifest_plausible(struct span content_type)
{
    struct span type = media_essence(content_type);
    if (media_is_generic(type))
        return true;
    return type_ok(type) && !span_ieq(span_sub(type, 0, 5), SPAN("text/")) &&
           !span_ieq(type, SPAN("application/xhtml+xml"));
}

enum media_form media_form(struct span content_type)
{
    static const struct {
        const char *type;
        enum media_form form;
    } known[] = {{OCI_INDEX, MEDIA_INDEX},         {DOCKER_LIST, MEDIA_INDEX},  {OCI_MANIFEST, MEDIA_IMAGE},
                 {DOCKER_MANIFEST, MEDIA_IMAGE},   {OCI_ARTIFACT, MEDIA_IMAGE}, {DOCKER_V1, MEDIA_SCHEMA1},
                 {DOCKER_V1_SIGNED, MEDIA_SCHEMA1}};
    struct span type = media_essence(content_type);
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (span_ieq(type, span_str(known[i].type)))
            return known[i].form;
    }
    return MEDIA_OTHER;
}

struct fields {
    struct span media_type; /* absent: none, or not the type of a manifest */
    bool manifests, config, layers, fs_layers, signatures;
};

static void fields_note(void *arg, struct span key, struct span value)
{
    struct fields *f = arg;
    char kind = value.p[0];
    if (span_eq(key, SPAN("mediaType"))) {
        struct span text = kind == '"' ? span_sub(value, 1, value.n - 2) : SPAN_NONE;
        bool telling = type_ok(text) && media_manifest_plausible(text) && !media_is_generic(text);
        f->media_type = telling ? text : SPAN_NONE;
    } else if (span_eq(key, SPAN("manifests"))) {
        f->manifests = kind == '[';
    } else if (span_eq(key, SPAN("config"))) {
        f->config = kind == '{';
    } else if (span_eq(key, SPAN("layers"))) {
        f->layers = kind == '[';
    } else if (span_eq(key, SPAN("fsLayers"))) {
        f->fs_layers = kind == '[';
    } else if (span_eq(key, SPAN("signatures"))) {
        f->signatures = kind == '[';
    }
}

struct span media_of_manifest(struct span content_type, struct span body)
{
    struct fields f = {.media_type = SPAN_NONE};
    if (!media_is_generic(content_type))
        return media_essence(content_type);
    if (!json_each_member(body, fields_note, &f))
        return SPAN_NONE;
    if (f.media_type.p != NULL)
        return f.media_type;
    bool image = f.config || f.layers;
    /* Both an index and an image: clients that read it differently would run different things. */
    if (f.manifests && image)
        return SPAN_NONE;
    if (f.manifests)
        return SPAN(OCI_INDEX);
    if (image)
        return SPAN(OCI_MANIFEST);
    if (f.fs_layers)
        return f.signatures ? SPAN(DOCKER_V1_SIGNED) : SPAN(DOCKER_V1);
    return SPAN_NONE;
}
