/* How many processors this process may use at once: at most those of its affinity mask, and no more than the processor time of its
 * control group pays for (rounded up; versions 1 and 2, with all groups above it that can be seen). At least 1. Reads files.
 *
 * root: what stands before /proc and /sys; "" but for tests. */
#ifndef LARDER_CORE_PROCESSORS_H
#define LARDER_CORE_PROCESSORS_H

unsigned processors_count(const char *root);

#endif
