/* malloc that never fails: it aborts instead, and says what was asked for. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/str.h"

__attribute__((noreturn)) static void mem_exhausted(size_t size)
{
    char buf[200];
    struct str s = STR_INIT(buf);

    str_addz(&s, "larder: out of memory: the system refused ");
    str_addu(&s, size);
    str_addz(&s, " bytes. Raise the memory limit of the process, or lower the number of connections.\n");
    check_die(s.p, s.n);
}

/* malloc(0) may give NULL, which callers would have to tell from a failure. */
static size_t mem_least(size_t size)
{
    return size > 0 ? size : 1;
}

void *mem_alloc(size_t size)
{
    void *p = malloc(mem_least(size));
    if (UNLIKELY(p == NULL))
        mem_exhausted(size);
    return p;
}

void *mem_zalloc(size_t size)
{
    void *p = calloc(1, mem_least(size));
    if (UNLIKELY(p == NULL))
        mem_exhausted(size);
    return p;
}

void *mem_realloc(void *p, size_t size)
{
    void *q = realloc(p, mem_least(size));
    if (UNLIKELY(q == NULL))
        mem_exhausted(size);
    return q;
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

void mem_free(void *p)
{
    free(p);
}

void mem_wipe(void *p, size_t n)
{
    if (n > 0)
        explicit_bzero(p, n);
}
