/* Warming, for the proxy that carries it out (proxy.c). */
#ifndef LARDER_PROXY_WARM_INT_H
#define LARDER_PROXY_WARM_INT_H

#include "core/core.h"

struct warms;

struct warms *warms_new(void);
void warms_free(struct warms *t);         /* the cores have ended */
void warm_on_message(struct core_msg *m); /* of a proxy: something is to be begun, or to end */

#endif
