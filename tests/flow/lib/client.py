"""An HTTP/1.1 client on a bare socket, because what matters here is what other clients hide: how a body ended, what
came when, and what a server does with heads that no proper client sends.

    r = request(address, "GET", "/v2/t/app/manifests/v1")
    r.status, r.header("ETag"), r.body, r.end      # end: clean, short, reset, timeout or malformed

    f = Fetch(address, "/v2/t/app/blobs/" + d)      # the same in a thread: pausing, slow, leaving in the middle
    f.wait_got(1000); f.leave()"""

import hashlib
import json
import socket
import struct
import threading
import time

PATIENCE = 60.0
HEAD_MAX = 1024 * 1024


class Ended(Exception):
    """The connection ended (how: "short", "reset" or "timeout") before what was being read was whole."""

    def __init__(self, how):
        super().__init__(how)
        self.how = how


class Response:
    def __init__(self):
        self.method = None
        self.status = None
        self.reason = ""
        self.version = ""
        self.headers = []        # (name, value) as received
        self.framing = None      # length, chunked, close or none
        self.body = b""
        self.end = None          # how the body ended; before a head: how the connection ended
        self.raw_head = b""
        self.interim = []        # statuses of 1xx answers before it

    def header(self, name):
        """The value, None when absent. Twice the same header is a mistake in everything that larder sends."""
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        assert len(values) <= 1, "%s is there %d times" % (name, len(values))
        return values[0] if values else None

    @property
    def clean(self):
        return self.end == "clean"

    @property
    def good(self):
        """A whole 200 or 206."""
        return self.status in (200, 206) and self.clean

    @property
    def sha256(self):
        return "sha256:" + hashlib.sha256(self.body).hexdigest()

    def json(self):
        return json.loads(self.body)

    @property
    def error_code(self):
        return self.json()["errors"][0]["code"]

    def __repr__(self):
        return "<%s %s, %d bytes, %s>" % (self.status, self.reason, len(self.body), self.end)


class Conn:
    def __init__(self, address, timeout=PATIENCE, receive_buffer=None, tls=None, name=None):
        """`tls`: a context of Python's ssl, with `name` as the server's."""
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        self.sock.connect(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=name)
        self.pending = b""
        self.eof = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- sending ----

    def send(self, data):
        self.sock.sendall(data)

    def send_request(self, method, target, headers=None, version="HTTP/1.1", body=None):
        self.send(request_bytes(method, target, headers, version, body))

    def finish_sending(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def reset(self):
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.sock.close()

    # ---- receiving ----

    def _more(self, want=65536):
        """Appends to pending; raises Ended."""
        try:
            got = self.sock.recv(want)
        except (socket.timeout, BlockingIOError):
            raise Ended("timeout") from None
        except OSError:
            raise Ended("reset") from None
        if not got:
            self.eof = True
            raise Ended("short")
        self.pending += got

    def _line(self):
        while b"\r\n" not in self.pending:
            self._more()
        line, _, self.pending = self.pending.partition(b"\r\n")
        return line

    def read_head(self, method="GET"):
        """The next final head. Raises Ended when none comes, ValueError when it is not HTTP."""
        response = Response()
        response.method = method
        while True:
            while b"\r\n\r\n" not in self.pending:
                if len(self.pending) > HEAD_MAX:
                    raise ValueError("a head without end")
                self._more()
            raw, _, self.pending = self.pending.partition(b"\r\n\r\n")
            lines = raw.decode("latin-1").split("\r\n")
            parts = lines[0].split(" ", 2)
            if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
                raise ValueError("not a status line: %r" % lines[0][:100])
            status = int(parts[1])
            if 100 <= status < 200:
                response.interim.append(status)
                continue
            response.raw_head = raw
            response.version, response.status = parts[0], status
            response.reason = parts[2] if len(parts) > 2 else ""
            for line in lines[1:]:
                name, colon, value = line.partition(":")
                if not colon or name != name.strip() or not name:
                    raise ValueError("not a header field: %r" % line[:100])
                response.headers.append((name, value.strip()))
            response.framing = _framing(response)
            return response

    def pieces(self, response, step=65536):
        """The body as it comes; ends when it is whole. Raises Ended."""
        if response.framing == "none":
            return
        if response.framing == "length":
            left = int(response.header("Content-Length"))
            while left:
                if not self.pending:
                    self._more(min(step, left))
                piece, self.pending = self.pending[:left], self.pending[left:]
                left -= len(piece)
                yield piece
        elif response.framing == "chunked":
            while True:
                left = int(self._line().split(b";")[0], 16)
                if left == 0:
                    while self._line():
                        pass
                    return
                while left:
                    if not self.pending:
                        self._more(step)
                    piece, self.pending = self.pending[:left], self.pending[left:]
                    left -= len(piece)
                    yield piece
                if self._line():
                    raise ValueError("a chunk does not end where it said")
        else:
            try:
                while True:
                    if not self.pending:
                        self._more(step)
                    piece, self.pending = self.pending, b""
                    yield piece
            except Ended as ended:
                if ended.how != "short":
                    raise

    def read_body(self, response):
        body = bytearray()
        try:
            for piece in self.pieces(response):
                body += piece
            response.end = "clean"
        except Ended as ended:
            response.end = ended.how
        except ValueError:
            response.end = "malformed"
        response.body = bytes(body)
        return response

    def read_response(self, method="GET"):
        """Head and body. A response without a head has status None and says in `end` how the connection ended."""
        try:
            response = self.read_head(method)
        except Ended as ended:
            response = Response()
            response.end = ended.how
            return response
        except ValueError as error:
            response = Response()
            response.end, response.reason = "malformed", str(error)
            return response
        return self.read_body(response)

    def exchange(self, method, target, headers=None, version="HTTP/1.1", body=None):
        self.send_request(method, target, headers, version, body)
        return self.read_response(method)

    def closed_by_peer(self, timeout=PATIENCE):
        """True once the peer has ended the connection; what still arrives before that is dropped. False: it is still
        open after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.sock.settimeout(left)
                if not self.sock.recv(65536):
                    return True
        except socket.timeout:
            return False
        except OSError:
            return True


def request_bytes(method, target, headers=None, version="HTTP/1.1", body=None):
    """`headers`: a dict or a list of pairs; Host is added unless they have one (None: leave it out)."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
    if not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", "cache.test:5000"))
    if body is not None and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in pairs):
        pairs.append(("Content-Length", str(len(body))))
    lines = ["%s %s %s" % (method, target, version)] + ["%s: %s" % (n, v) for n, v in pairs if v is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def request(address, method, target, headers=None, version="HTTP/1.1", body=None, timeout=PATIENCE):
    with Conn(address, timeout) as conn:
        conn.send_request(method, target, headers, version, body)
        return conn.read_response(method)


def _framing(response):
    if response.method == "HEAD" or response.status in (204, 304):
        return "none"
    if response.header("Transfer-Encoding"):
        assert response.header("Content-Length") is None, "both Content-Length and Transfer-Encoding"
        return "chunked"
    length = response.header("Content-Length")
    if length is None:
        return "close"
    assert length.isdigit(), "Content-Length: %r" % length
    return "length"


class Fetch(threading.Thread):
    """One GET in a thread of its own. `stop_at`: stop reading after so many bytes until resume() or leave();
    `rate`: read so many bytes per second; `leave_at`: reset the connection after so many bytes."""

    def __init__(self, address, target, headers=None, method="GET", stop_at=None, leave_at=None, rate=None,
                 receive_buffer=None, timeout=PATIENCE, start=True):
        super().__init__(daemon=True)
        self.address, self.target, self.headers, self.method = address, target, headers, method
        self.stop_at, self.leave_at, self.rate = stop_at, leave_at, rate
        self.receive_buffer, self.timeout = receive_buffer, timeout
        self.got = 0
        self.response = Response()
        self.head_came = threading.Event()
        self._progress = threading.Condition()
        self._go_on = threading.Event()
        self._leaving = False
        self._conn = None
        self.error = None
        if start:
            self.start()

    def run(self):
        try:
            self._conn = Conn(self.address, self.timeout, self.receive_buffer)
            self._conn.send_request(self.method, self.target, self.headers)
            self._read()
        except Ended as ended:
            self.response.end = ended.how
        except (OSError, ValueError) as error:
            self.response.end = "left" if self._leaving else "malformed"
            self.error = error
        except AssertionError as error:
            self.response.end, self.error = "malformed", error
        finally:
            if self._leaving and self.response.end != "clean":
                self.response.end = "left"
            if self._conn:
                self._conn.close()
            self.head_came.set()
            with self._progress:
                self._progress.notify_all()

    def _read(self):
        self.response = self._conn.read_head(self.method)
        self.head_came.set()
        body = bytearray()
        try:
            for piece in self._conn.pieces(self.response, 4096 if self.rate or self.receive_buffer else 65536):
                body += piece
                with self._progress:
                    self.got = len(body)
                    self._progress.notify_all()
                if self.leave_at is not None and self.got >= self.leave_at:
                    self.leave()
                    return
                if self.stop_at is not None and self.got >= self.stop_at:
                    self._go_on.wait()
                    self.stop_at = None
                if self.rate:
                    time.sleep(len(piece) / self.rate)
            self.response.end = "clean"
        finally:
            self.response.body = bytes(body)

    def wait_head(self, timeout=PATIENCE):
        assert self.head_came.wait(timeout), "no head for %s" % self.target
        assert self.response.status is not None, "no head for %s: %s" % (self.target, self.response.end)
        return self.response

    def wait_got(self, n, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        with self._progress:
            while self.got < n:
                left = deadline - time.monotonic()
                assert left > 0 and (self.is_alive() or self.got >= n), \
                    "%d of %d bytes of %s came (%s)" % (self.got, n, self.target, self.response)
                self._progress.wait(min(left, 0.5))

    def resume(self):
        self._go_on.set()

    def leave(self):
        """Resets the connection: the client is gone. The thread closes, with what makes a close a reset."""
        self._leaving = True
        while self._conn is None and self.is_alive():
            time.sleep(0.001)
        if self._conn:
            try:
                self._conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._conn.sock.shutdown(socket.SHUT_RD)
            except OSError:
                pass
        self._go_on.set()

    def result(self, timeout=PATIENCE):
        self.join(timeout)
        assert not self.is_alive(), "%s did not end (%d bytes so far)" % (self.target, self.got)
        return self.response


def fetch_many(address, targets, headers=None, method="GET"):
    """All at once; their responses in the order of `targets`."""
    fetches = [Fetch(address, target, headers, method) for target in targets]
    return [f.result() for f in fetches]
