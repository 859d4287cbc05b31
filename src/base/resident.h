/* Pages of files that, once used, stay in memory: the program, its libraries, the index. Where memory is scarce the kernel drops them like
 * any content that was read once, and a loop that comes back to one waits for the disk.
 *
 * Only what is used takes memory, and it would take it anyway. As far as RLIMIT_MEMLOCK allows; without it nothing is different. Any thread. */
#ifndef LARDER_BASE_RESIDENT_H
#define LARDER_BASE_RESIDENT_H

#include <stddef.h>

/* The code and constants of the program and of what it is linked with. */
void resident_program(void);

/* The first `size` bytes of a mapping, or as many as are allowed. */
void resident_mapping(void *start, size_t size);

#endif
