/* See resident.h. */
#include "base/resident.h"

#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

#define LEAST (64u << 10)

static bool keep(uintptr_t from, uintptr_t to)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    from &= ~(page - 1);
    return mlock2((void *)from, to - from, MLOCK_ONFAULT) == 0;
}

static int on_object(struct dl_phdr_info *object, size_t size, void *arg)
{
    UNUSED(size);
    UNUSED(arg);
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + h->p_vaddr;
        if (h->p_type == PT_LOAD && (h->p_flags & PF_W) == 0)
            (void)keep(start, start + h->p_memsz);
    }
    return 0;
}

void resident_program(void)
{
    dl_iterate_phdr(on_object, NULL);
}

void resident_mapping(void *start, size_t size)
{
    while (size >= LEAST && !keep((uintptr_t)start, (uintptr_t)start + size))
        size /= 2;
}
