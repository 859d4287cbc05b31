"""A disk of the test's own, and one that fails.

    with Tmpfs(path, 16 * MIB): ...                  # a file system of that size; root only
    disk.fail("pwrite", errno.ENOSPC, after=3); ...; disk.heal("pwrite")     # shim/disk.c, in every larder of the test"""

import os
import subprocess

import pytest

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim", "disk.c")


class Disk:
    def __init__(self, directory, monkeypatch):
        self.directory = str(directory)
        os.makedirs(self.directory)
        library = os.path.join(self.directory, "disk.so")
        built = subprocess.run(["cc", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert built.returncode == 0, "cc cannot build %s:\n%s" % (SOURCE, built.stdout)
        monkeypatch.setenv("LD_PRELOAD", library)
        monkeypatch.setenv("LARDER_DISK", self.directory)
        # The address sanitizer wants to be the first library, which matters for allocators only: the shim has none.
        monkeypatch.setenv("ASAN_OPTIONS", ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"])))

    def fail(self, call, error, after=0):
        """From now on this call on the store's files and folders fails, but for the first `after` ones: "pwrite", "fdatasync", "fsync",
        "renameat", "ftruncate" "openat" (of a file that would be made) or "open" (of one that is there); "index": whatever would be written into the index."""
        new = os.path.join(self.directory, "new")
        with open(new, "w") as out:
            out.write("%d %d\n" % (error, after))
        os.replace(new, self._path(call))

    def heal(self, call):
        os.unlink(self._path(call))

    def heal_all(self):
        for name in os.listdir(self.directory):
            if name.startswith("fail-"):
                os.unlink(os.path.join(self.directory, name))

    def _path(self, call):
        return os.path.join(self.directory, "fail-" + call)


class Tmpfs:
    """A small file system. Whoever may not mount one cannot run the test."""

    def __init__(self, path, size, inodes=None):
        self.path = str(path)
        os.makedirs(self.path)
        options = "size=%d,mode=0755" % size + (",nr_inodes=%d" % inodes if inodes else "")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.path], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            pytest.skip("a file system of its own needs the right to mount: " + done.stdout.strip())

    def free(self):
        v = os.statvfs(self.path)
        return v.f_bavail * v.f_frsize

    def end(self):
        subprocess.run(["umount", "-l", self.path], check=True)
