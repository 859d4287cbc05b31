/* Addresses to listen on, and URLs of registries, as the file writes them. Inside the room only. */
#ifndef LARDER_CONF_ENDPOINT_H
#define LARDER_CONF_ENDPOINT_H

#include "conf/schema.h"

/* "0.0.0.0:5000", "[::1]:5000", ":5000". False: complained at `mark`. `path` is the key's, for the message. */
bool endpoint_read_address(struct conf_loader *l, const char *path, struct conf_mark mark, struct span text,
                           struct conf_listen *out);

/* "https://mirror.example:8443/prefix". False: complained at `mark`. */
bool endpoint_read_url(struct conf_loader *l, struct conf_mark mark, struct span text,
                       struct conf_endpoint *out);

/* The endpoint of a registry for which none is written; `registry` is a canonical name. */
void endpoint_of_registry(struct conf_loader *l, struct span registry, struct conf_mark mark,
                          struct conf_endpoint *out);

#endif
