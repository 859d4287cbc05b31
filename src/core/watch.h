/* Watching a file for change, however it is changed: written in place, replaced by a rename (editors), by the swap of a symbolic
 * link in its folder (a Kubernetes ConfigMap or Secret), missing for a moment, or on a file system that tells of nothing.
 *
 * What is watched is the folder of the path: a watch on the file itself dies with its inode. Any event there leads, after a moment of
 * quiet and after a second at the latest, to a look at the file (its identity, size, times; symbolic links are followed); and a look is
 * taken every few seconds anyhow. Looks happen on the pool: a folder on a network must not stop the loop.
 *
 * Thread: the core's. */
#ifndef LARDER_CORE_WATCH_H
#define LARDER_CORE_WATCH_H

#include <stdbool.h>

struct core;
struct file_watch;

/* Calls `changed` on the core when the file at `path` (copied) is there and not what it was at the last look, and when it has been gone for
 * several seconds, once; `first`: it was there, so after the first look, too, for what happened between the reading of a
 * file and the watching. The watch does not keep the loop alive. `changed` may free the watch. */
struct file_watch *file_watch_new(struct core *c, const char *path, bool first, void (*changed)(void *arg),
                                  void *arg);
void file_watch_free(struct file_watch *w); /* no call comes any more; the struct goes by itself */

#endif
