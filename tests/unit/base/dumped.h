/* Is the memory at an address left out of core dumps? The kernel tells the flags of its mapping (proc(5), smaps). Not under the address sanitizer,
 * where each piece of secret memory is an allocation. */
#ifndef LARDER_TEST_BASE_DUMPED_H
#define LARDER_TEST_BASE_DUMPED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* False: there is no such file here, or no such mapping. */
static inline bool mapping_flags(const void *address, char *flags, size_t cap)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    bool inside = false, found = false;
    if (f == NULL)
        return false;
    while (!found && fgets(line, sizeof line, f) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        found = inside && strncmp(line, "VmFlags:", 8) == 0;
    }
    fclose(f);
    if (found)
        snprintf(flags, cap, "%s", line);
    return found;
}

#if defined(__SANITIZE_ADDRESS__)
#define DUMPS_CAN_BE_ASKED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DUMPS_CAN_BE_ASKED 0
#endif
#endif
#ifndef DUMPS_CAN_BE_ASKED
#define DUMPS_CAN_BE_ASKED 1
#endif

/* True also where it cannot be asked. */
static inline bool is_left_out(const void *address)
{
    char flags[512], *here = flags;
    if (!DUMPS_CAN_BE_ASKED || !mapping_flags(here, flags, sizeof flags))
        return true;
    if (strstr(flags, " dd") != NULL) /* the test cannot tell */
        return false;
    return mapping_flags(address, flags, sizeof flags) && strstr(flags, " dd") != NULL;
}

#endif
