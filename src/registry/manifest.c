/* See manifest.h. One pass over the top level finds the members that matter (the last of several equal ones counts, as in every parser
 * that clients use), then one over each of these, and one over each descriptor inside. The scanner does not look into what it passes
 * over, so a document is read four times at most. */
#include "registry/manifest.h"

#include "registry/json.h"

struct top {
    struct span config, layers, blobs, manifests, subject, fs_layers; /* values as written; absent: none */
};

struct reading {
    void (*child)(void *arg, const struct manifest_child *child);
    void *arg;
    struct manifest_seen *seen;
    enum manifest_role role;
};

static void top_note(void *arg, struct span key, struct span value)
{
    struct top *t = arg;
    if (span_eq(key, SPAN("config")))
        t->config = value;
    else if (span_eq(key, SPAN("layers")))
        t->layers = value;
    else if (span_eq(key, SPAN("blobs")))
        t->blobs = value;
    else if (span_eq(key, SPAN("manifests")))
        t->manifests = value;
    else if (span_eq(key, SPAN("subject")))
        t->subject = value;
    else if (span_eq(key, SPAN("fsLayers")))
        t->fs_layers = value;
}

/* What stands between the quotes of a plain string; else absent. */
static struct span plain(struct span value)
{
    if (value.n < 2 || value.p[0] != '"')
        return SPAN_NONE;
    struct span s = span_sub(value, 1, value.n - 2);
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == '\\' || s.p[i] == 0x7f)
            return SPAN_NONE;
    }
    return s;
}

static bool is_array(struct span value)
{
    return value.n > 0 && value.p[0] == '[';
}

static bool is_object(struct span value)
{
    return value.n > 0 && value.p[0] == '{';
}

static void platform_note(void *arg, struct span key, struct span value)
{
    struct manifest_child *c = arg;
    if (span_eq(key, SPAN("os")))
        c->os = plain(value);
    else if (span_eq(key, SPAN("architecture")))
        c->architecture = plain(value);
    else if (span_eq(key, SPAN("variant")))
        c->variant = plain(value);
    else if (span_eq(key, SPAN("os.version")))
        c->os_version = plain(value);
}

/* A descriptor's members, and where its digest and platform are. */
struct descriptor {
    struct manifest_child child;
    struct span digest, platform;
};

static bool note_one(void *arg, struct span value)
{
    bool *any = arg;
    *any = value.n > 0;
    return false;
}

static void descriptor_note(void *arg, struct span key, struct span value)
{
    struct descriptor *d = arg;
    if (span_eq(key, SPAN("digest")) || span_eq(key, SPAN("blobSum")))
        d->digest = plain(value);
    else if (span_eq(key, SPAN("size")))
        d->child.size = span_u64(value, INT64_MAX, &d->child.size) ? d->child.size : 0;
    else if (span_eq(key, SPAN("mediaType")))
        d->child.media = plain(value);
    else if (span_eq(key, SPAN("platform")))
        d->platform = value;
    else if (span_eq(key, SPAN("urls"))) {
        d->child.urls = false;
        (void)json_each_element(value, note_one, &d->child.urls);
    }
}

static void tell_child(struct reading *r, struct span value)
{
    struct descriptor d = {.child = {.role = r->role, .media = SPAN_NONE}};
    if (!is_object(value))
        return;
    (void)json_each_member(value, descriptor_note, &d);
    if (d.digest.p == NULL || digest_parse(d.digest, &d.child.digest) != DIGEST_OK) {
        r->seen->strange++;
        return;
    }
    if (r->seen->children == MANIFEST_CHILDREN_MAX) {
        r->seen->cut = true;
        return;
    }
    if (r->role == CHILD_MANIFEST && is_object(d.platform))
        (void)json_each_member(d.platform, platform_note, &d.child);
    d.child.urls = d.child.urls && r->role == CHILD_LAYER;
    r->seen->children++;
    r->child(r->arg, &d.child);
}

static bool element(void *arg, struct span value)
{
    struct reading *r = arg;
    tell_child(r, value);
    return !r->seen->cut;
}

static void tell_all(struct reading *r, enum manifest_role role, struct span array)
{
    r->role = role;
    if (is_array(array))
        (void)json_each_element(array, element, r);
}

static void tell_one(struct reading *r, enum manifest_role role, struct span object)
{
    r->role = role;
    tell_child(r, object);
}

static enum media_form form_of(struct span media_type, const struct top *t)
{
    enum media_form form = media_form(media_type);
    bool image = is_object(t->config) || is_array(t->layers) || is_array(t->blobs);
    if (form != MEDIA_OTHER)
        return form;
    if (is_array(t->manifests))
        return image ? MEDIA_OTHER : MEDIA_INDEX; /* both at once is neither: see media_of_manifest */
    return image ? MEDIA_IMAGE : is_array(t->fs_layers) ? MEDIA_SCHEMA1 : MEDIA_OTHER;
}

bool manifest_read(struct span media_type, struct span doc,
                   void (*child)(void *arg, const struct manifest_child *child), void *arg,
                   struct manifest_seen *seen)
{
    struct top t = {.config = SPAN_NONE};
    *seen = (struct manifest_seen){.form = MEDIA_OTHER};
    bool whole = json_each_member(doc, top_note, &t);
    struct reading r = {.child = child, .arg = arg, .seen = seen};
    seen->form = form_of(media_type, &t);
    switch (seen->form) {
    case MEDIA_IMAGE:
        tell_one(&r, CHILD_CONFIG, t.config);
        tell_all(&r, CHILD_LAYER, t.layers);
        tell_all(&r, CHILD_LAYER, t.blobs);
        break;
    case MEDIA_INDEX:
        tell_all(&r, CHILD_MANIFEST, t.manifests);
        break;
    case MEDIA_SCHEMA1:
        tell_all(&r, CHILD_LAYER, t.fs_layers);
        break;
    case MEDIA_OTHER:
        return whole;
    }
    if (seen->form != MEDIA_SCHEMA1)
        tell_one(&r, CHILD_SUBJECT, t.subject);
    return whole;
}
