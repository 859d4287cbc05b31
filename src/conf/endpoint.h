/* Addresses to listen on, and URLs of registries, as the file writes them. Inside the room only. */
#ifndef LARDER_CONF_ENDPOINT_H
#define LARDER_CONF_ENDPOINT_H

#include "conf/schema.h"

/* "0.0.0.0:5000", "[::1]:5000", ":5000". False: complained at `mark`. `path` is the key's, for the message. */
bool endpoint_read_address(struct conf_loader *l, const char *path, struct conf_mark mark, struct span text,
                           struct conf_listen *out);

/* "https://mirror.example:8443/prefix". False: complained at `mark`. `path` is the key's, for the message. */
bool endpoint_read_url(struct conf_loader *l, const char *path, struct conf_mark mark, struct span text,
                       struct conf_endpoint *out);

/* https://HOST; `host` is a registry's canonical name. */
void endpoint_of_host(struct conf_loader *l, struct span host, struct conf_mark mark,
                      struct conf_endpoint *out);

/* A name or an address without a port: lower case, without brackets. False: it is neither, and nothing was complained. */
bool endpoint_read_host(struct conf_loader *l, struct span text, struct span *out);

/* "192.0.2.1", "[::1]:5000": an address, in brackets if it is IPv6, and a port from 1 on (0: none). False: nothing was complained. */
bool endpoint_split_ip(struct span text, struct span *address, uint16_t *port);

#endif
