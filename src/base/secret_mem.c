/* See secret_mem.h. A mapping for each piece, with its size in front. Under address sanitizer a piece is an allocation, so that
 * overruns and leaks are seen. */
#include "base/secret_mem.h"

#include <sys/mman.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define PIECES_ARE_MAPPED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PIECES_ARE_MAPPED 0
#endif
#endif
#ifndef PIECES_ARE_MAPPED
#define PIECES_ARE_MAPPED 1
#endif

struct piece {
    size_t size; /* with this head */
    _Alignas(16) char bytes[];
};

static struct piece *piece_new(size_t size)
{
    if (!PIECES_ARE_MAPPED)
        return mem_zalloc(size);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED); /* out of memory: as mem_alloc */
    (void)madvise(p, size, MADV_DONTDUMP);
    (void)mlock(p, size); /* few systems let everyone lock more than some pages; then it may be swapped */
    return p;
}

void *secret_alloc(size_t n)
{
    size_t size = sizeof(struct piece) + n;
    struct piece *p = piece_new(size);
    p->size = size;
    return p->bytes;
}

void secret_free(void *p)
{
    if (p == NULL)
        return;
    struct piece *piece = CONTAINER_OF(p, struct piece, bytes);
    size_t size = piece->size;
    mem_wipe(piece, size);
    if (PIECES_ARE_MAPPED)
        MUST(munmap(piece, size) == 0);
    else
        mem_free(piece);
}
