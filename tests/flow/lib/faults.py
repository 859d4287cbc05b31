"""Faults of the system under larder: a library in front of libc (shim/faults.c) that every larder started by the test gets.

    faults.hold("ftruncate"); ...; faults.wait_held("ftruncate"); ...; faults.release("ftruncate")
    faults.block_size(1 << 20)       # from the next start on
    faults.clock_ahead(86400)        # likewise
    faults.names({"a.test": ["127.0.0.1"], "b.test": [], "c.test": ["wait", "::1"]})   # found, not found, not before release("names")"""

import os
import subprocess

from .larder import wait_until

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "shim", "faults.c")


class Faults:
    def __init__(self, directory, monkeypatch):
        self.directory = str(directory)
        self._monkeypatch = monkeypatch
        os.makedirs(self.directory)
        library = os.path.join(self.directory, "faults.so")
        built = subprocess.run(["cc", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert built.returncode == 0, "cc cannot build %s:\n%s" % (SOURCE, built.stdout)
        monkeypatch.setenv("LD_PRELOAD", library)
        monkeypatch.setenv("LARDER_FAULTS", self.directory)
        # The address sanitizer wants to be the first library, which matters for allocators only: the shim has none.
        monkeypatch.setenv("ASAN_OPTIONS", ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"])))

    def block_size(self, size):
        self._monkeypatch.setenv("LARDER_FAULT_BLOCK", str(size))

    def cannot_create(self, error):
        """Every file that larder wants to make fails with this error number."""
        self._monkeypatch.setenv("LARDER_FAULT_CREATE", str(error))

    def clock_ahead(self, seconds):
        self._monkeypatch.setenv("LARDER_FAULT_CLOCK", str(seconds))

    def names(self, names):
        """What a look-up of these names gives."""
        new = os.path.join(self.directory, "names.new")
        with open(new, "w") as out:
            out.writelines("%s %s\n" % (name, " ".join(addresses)) for name, addresses in names.items())
        os.replace(new, os.path.join(self.directory, "names"))

    def hold(self, call):
        """From now on this call on a partial file, or on a new configuration file, waits: "pread", "ftruncate" or "fsync";
        "preadv2": on a whole object of the store; "listen": on any socket, and it waits when it has been done."""
        with open(self._path("hold", call), "w"):
            pass

    def cannot_open(self, path, error):
        """Until can_open(), to open this file fails with this error number."""
        new = os.path.join(self.directory, "fail-open.new")
        with open(new, "w") as out:
            out.write("%d %s" % (error, path))
        os.replace(new, os.path.join(self.directory, "fail-open"))

    def can_open(self):
        os.unlink(os.path.join(self.directory, "fail-open"))

    def wait_held(self, call):
        wait_until(lambda: os.path.exists(self._path("held", call)), "larder calls %s for such a file" % call)

    def release(self, call):
        os.unlink(self._path("hold", call))

    def release_all(self):
        for name in os.listdir(self.directory):
            if name.startswith("hold-"):
                os.unlink(os.path.join(self.directory, name))

    def _path(self, what, call):
        return os.path.join(self.directory, "%s-%s" % (what, call))
