"""A command of larder whose standard error is a terminal, as when a person runs it."""

import os
import pty
import signal
import subprocess
import threading

from . import secrets
from .larder import PATIENCE, binary, environment, wait_until


class Command:
    """Starts at once. Faults that are meant for the server are not handed on to it."""

    def __init__(self, *arguments):
        self._leader, follower = pty.openpty()
        self._pieces = []
        self.process = subprocess.Popen([binary(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, text=True,
                                        env={k: v for k, v in environment().items() if k not in ("LD_PRELOAD", "LARDER_FAULTS")})
        os.close(follower)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                piece = os.read(self._leader, 4096)
            except OSError:  # the last one that had it has closed it
                return
            if not piece:
                return
            self._pieces.append(piece.decode())

    @property
    def shown(self):
        return "".join(self._pieces)

    def wait_shown(self, text):
        wait_until(lambda: text in self.shown, "it shows '%s'" % text)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        """Its exit code and what it has printed."""
        try:
            out, _ = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError("it did not end; it has shown " + self.shown) from None
        finally:
            self._reader.join(PATIENCE)
        os.close(self._leader)
        secrets.assert_none_in(out + self.shown, "what a command prints")
        return self.process.returncode, out
