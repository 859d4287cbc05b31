/* How the store is, as its writes tell. A write that fails says why (enum store_fault); the keeper tries every two seconds whether it is
 * over, by writing a small file, so the store heals without anybody's doing. Reading goes on in every state. */
#ifndef LARDER_STORE_HEALTH_H
#define LARDER_STORE_HEALTH_H

#include "store/store.h"

struct store_health {
    enum store_fault fault; /* FAULT_NONE: all is well */
    int64_t since_ms;       /* wall clock */
    uint64_t failures;      /* of writes, since start */
    int error;              /* the errno value of the last one */
};

void store_health(struct store *s, struct store_health *out); /* any thread, cheap */
const char *store_fault_name(enum store_fault fault); /* "ok", "full", "read-only", "failing", "busy" */
enum store_fault store_fault_of(int error);           /* of an errno value */

#endif
