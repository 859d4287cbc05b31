/* Media types of manifests (OCI image-spec media-types.md, Docker manifest schema 2) and the Accept header that
 * larder always sends upstream: the full list, whatever the client asked for, so that one answer serves all.
 * Pure; any thread. */
#ifndef LARDER_REGISTRY_MEDIA_H
#define LARDER_REGISTRY_MEDIA_H

#include "base/span.h"

#define MEDIA_TYPE_MAX 255

/* One header value: every manifest and index type, then star/star. */
extern const struct span media_accept_manifest;

/* Without parameters, blanks trimmed: "application/json; charset=utf-8" -> "application/json". */
struct span media_essence(struct span content_type);

/* Could this be the type of a manifest? Known manifest and index types, and any other type that is not text
 * for people (text/html and other text types except "text/plain", which old registries use for schema 1). */
bool media_manifest_plausible(struct span content_type);

/* Generic types that say nothing (absent, application/json, application/octet-stream, text/plain): the "mediaType"
 * field of the document decides then. */
bool media_is_generic(struct span content_type);

/* What a manifest of that type is made of; MEDIA_OTHER: the type does not tell. */
enum media_form { MEDIA_OTHER, MEDIA_INDEX, MEDIA_IMAGE, MEDIA_SCHEMA1 };
enum media_form media_form(struct span content_type);

/* The manifest's type: the header's if it says something, else the document's own "mediaType" (a JSON string at
 * the top level), else a guess by its fields ("manifests": OCI index, "config" or "layers": OCI manifest,
 * "fsLayers": Docker schema 1, signed or not). Absent when that leads to nothing: the body is not a JSON object,
 * has none of these fields, or has those of an index and of an image at once (CVE-2021-41190). The span points
 * into `body`, into `content_type`, or to a constant. */
struct span media_of_manifest(struct span content_type, struct span body);

#endif
