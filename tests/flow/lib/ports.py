"""Ports that tests in parallel processes do not take from each other.

They lie below the kernel's ephemeral range, so that no outgoing connection takes one between its choice and its use,
and a locked file keeps each for the life of the test process."""

import fcntl
import os
import random
import socket
import tempfile

_FIRST, _LAST = 18000, 32000
_held = {}


def free_port():
    directory = os.path.join(tempfile.gettempdir(), "larder-test-ports-%d" % os.getuid())
    os.makedirs(directory, exist_ok=True)
    for _ in range(1000):
        port = random.SystemRandom().randrange(_FIRST, _LAST)
        if port in _held:
            continue
        lock = open(os.path.join(directory, str(port)), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _held[port] = lock
        return port
    raise RuntimeError("no free port between %d and %d" % (_FIRST, _LAST))
