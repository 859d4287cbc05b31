"""Ports that tests in parallel processes do not take from each other.

They lie below the kernel's ephemeral range, so that no outgoing connection takes one between its choice and its use,
and a lock on one byte of a common file, at the port's number, keeps each for the life of the test process."""

import contextlib
import fcntl
import os
import random
import socket
import tempfile

_FIRST, _LAST = 18000, 32000
_held = set()
_file = None


def free_port():
    global _file
    if _file is None:
        _file = open(os.path.join(tempfile.gettempdir(), "larder-test-ports-%d" % os.getuid()), "a+")
    for _ in range(1000):
        port = random.SystemRandom().randrange(_FIRST, _LAST)
        if port in _held:  # a process's own locks do not exclude each other
            continue
        try:
            fcntl.lockf(_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            continue
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            fcntl.lockf(_file, fcntl.LOCK_UN, 1, port)
            continue
        _held.add(port)
        return port
    raise RuntimeError("no free port between %d and %d" % (_FIRST, _LAST))


@contextlib.contextmanager
def port_that_drops_syns(address="127.0.0.1", port=None):
    """A listener whose queue is full: the kernel lets further SYNs fall."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        port = port or free_port()
        listener.bind((address, port))
        listener.listen(0)
        while True:
            filler = stack.enter_context(socket.socket(family))
            filler.settimeout(0.2)
            try:
                filler.connect((address, port))
            except socket.timeout:
                break
        yield port
