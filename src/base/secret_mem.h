/* Memory for passwords, tokens and keys: pages of its own that are left out of core dumps, kept from the swap when the system allows,
 * and wiped when they are given back. For few and small things: each takes at least a page. What is made of them for one request or read
 * from one answer is in plain memory for so long, and wiped then. Any thread. */
#ifndef LARDER_BASE_SECRET_MEM_H
#define LARDER_BASE_SECRET_MEM_H

#include "base/span.h"

void *secret_alloc(size_t n) __attribute__((alloc_size(1), returns_nonnull)); /* zeroed */
void secret_free(void *p);                                                    /* NULL is a no-op */

#endif
