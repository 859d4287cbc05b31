/* The metrics page: Prometheus text format 0.0.4. Any thread. */
#ifndef LARDER_ADMIN_METRICS_H
#define LARDER_ADMIN_METRICS_H

#include "admin/admin.h"

/* The whole page, mem_alloc'd; the caller frees. */
char *metrics_text(const struct admin_config *config, size_t *n);

#endif
