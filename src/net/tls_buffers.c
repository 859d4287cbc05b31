/* Memory for TLS records, one record per buffer. A stream has one only while a record is under way, so a core needs few, however many
 * streams it has. A handful of spare ones stay for the next record; the rest goes back to the system at once, past malloc,
 * in which the holes of a burst would stay. Core dumps are made without them: they hold plaintext.
 *
 * Under the address sanitizer none is kept, so that whoever holds on to a buffer given back, BearSSL included, is caught. */
#include <sys/mman.h>

#include "base/mem.h"
#include "core/core.h"
#include "net/tls_int.h"

#if defined(__SANITIZE_ADDRESS__)
#define SPARE_MAX 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPARE_MAX 0
#endif
#endif
#ifndef SPARE_MAX
#define SPARE_MAX 64
#endif

struct spare {
    struct spare *next;
};

struct tls_buffers {
    unsigned streams, n;
    struct spare *spare;
};

static void *spare_pop(struct tls_buffers *b)
{
    struct spare *s = b->spare;
    b->spare = s->next;
    b->n--;
    return s;
}

void tls_buffers_join(struct core *core)
{
    struct tls_buffers *b = core_slot(core, CORE_SLOT_NET);
    if (b == NULL) {
        NEW(b);
        core_set_slot(core, CORE_SLOT_NET, b);
    }
    b->streams++;
}

void tls_buffers_leave(struct core *core)
{
    struct tls_buffers *b = core_slot(core, CORE_SLOT_NET);
    MUST(b->streams > 0);
    if (--b->streams > 0)
        return;
    while (b->n > 0)
        (void)munmap(spare_pop(b), TLS_BUFFER);
    core_set_slot(core, CORE_SLOT_NET, NULL);
    mem_free(b);
}

void *tls_buffer_take(struct core *core)
{
    struct tls_buffers *b = core_slot(core, CORE_SLOT_NET);
    if (b->n > 0)
        return spare_pop(b);
    void *p = mmap(NULL, TLS_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED);
    (void)madvise(p, TLS_BUFFER, MADV_DONTDUMP);
    return p;
}

/* The system may refuse to unmap one from between others (it counts mappings): then it stays, too. */
void tls_buffer_give(struct core *core, void *buffer)
{
    struct tls_buffers *b = core_slot(core, CORE_SLOT_NET);
    if (b->n + 1 > SPARE_MAX && munmap(buffer, TLS_BUFFER) == 0)
        return;
    struct spare *s = buffer;
    s->next = b->spare;
    b->spare = s;
    b->n++;
}
