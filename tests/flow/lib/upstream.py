"""A registry that does what a test tells it to: honest by default, broken on demand.

    up = Upstream()
    up.add("lib/app", image, tag="v1")
    up.on(path, Fault(cut_at=1000, cut="rst"), nth=1)      # the first GET of path is cut, the second is honest
    gate = up.hold(path, at=5000)                           # every GET of path stops after 5000 bytes ...
    gate.wait_reached(); gate.release()                     # ... until the test lets it go on

Raw sockets and one thread per connection, so that any fault is possible. Every request is recorded in `up.seen`. With `tls` (lib/tls.py)
the same by TLS."""

import fcntl
import json
import re
import select
import socket
import struct
import termios
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

from . import tls as tls_
from .images import OCI_INDEX, digest
from .ports import free_port

PATIENCE = 60.0  # seconds after which anything that a test waits for counts as never
CHUNK = 16 * 1024


class Gate:
    """A place where an answer stops until the test lets it go on."""

    def __init__(self):
        self._reached = threading.Event()
        self._open = threading.Event()
        self.arrivals = 0

    def wait_reached(self, timeout=PATIENCE):
        assert self._reached.wait(timeout), "upstream was never asked far enough to reach the gate"

    @property
    def reached(self):
        return self._reached.is_set()

    def release(self):
        self._open.set()

    def pass_through(self, keep_waiting):
        """Called by the serving thread. False: the wait ended because the peer left or the server stops."""
        self.arrivals += 1
        self._reached.set()
        while not self._open.wait(0.01):
            if not keep_waiting():
                return False
        return True


@dataclass
class Fault:
    """How one answer differs from the honest one. Fields combine where that makes sense."""

    # what is said
    status: int = None            # with `body` (or an OCI error body for 4xx and 5xx)
    headers: dict = field(default_factory=dict)  # name -> value, list of values, or None to leave the header out
    body: object = None           # bytes, or a function of the honest bytes
    flip: int = None              # index of a body byte that gets one bit changed; negative counts from the end
    range: str = "honour"         # ignore (200 and all), refuse (416), wrong (another Content-Range), unasked (206 always)
    redirect: str = None          # 307 to this Location
    pad: int = 0                  # so many bytes of extra header fields
    before: bytes = b""           # bytes before the status line: an interim response, garbage
    raw: bytes = None             # these bytes instead of an answer, then FIN
    # how the body is framed
    framing: str = "length"       # chunked, close (delimited by FIN), both (length and chunked), none (no length, FIN)
    length: object = None         # a Content-Length that lies
    chunk_end: bool = True        # False: the last chunk is missing
    # where it breaks
    cut_at: int = None            # the connection ends after so many body bytes; -1: before the head
    cut: str = "fin"              # or rst; by TLS these are without close_notify, and "notify" is with it
    close_notify: bool = True     # by TLS: False leaves it out where the connection ends as it should
    close_after: bool = False     # closes the kept-alive connection after the answer without having said so
    drop: bool = False            # closes the connection when the request arrives, without a byte
    # how long it takes
    hold: dict = field(default_factory=dict)     # "request", "head" or a body offset -> Gate
    delay: dict = field(default_factory=dict)    # "request", "head" or "body" -> seconds
    rate: float = None            # body bytes per second
    drip: tuple = None            # (bytes, seconds): so many bytes each so many seconds
    silent: object = None         # "request", "head" or a body offset: nothing comes after it, the connection stays open


class Seen:
    """One request that upstream received and what became of it."""

    def __init__(self, connection, nth_on_connection, head, handshake=None):
        lines = head.decode("latin-1").split("\r\n")
        self.line = lines[0]
        self.method, self.target, self.version = (lines[0].split(" ") + ["", ""])[:3]
        self.path, _, self.query = self.target.partition("?")
        self.header_list = [tuple(part.strip() for part in line.partition(":")[::2]) for line in lines[1:] if line]
        self.headers = {}
        for name, value in self.header_list:
            key = name.lower()
            self.headers[key] = self.headers[key] + ", " + value if key in self.headers else value
        self.connection, self.nth_on_connection, self.handshake = connection, nth_on_connection, handshake
        self.host = self.headers.get("host", "")
        self.length = int(self.headers.get("content-length", "0"))
        self.body = b""
        self.when = time.monotonic()
        self.status = None
        self.sent = 0            # body bytes handed to the kernel
        self.aborted = False     # the peer left before the end
        self.cut = False         # the connection ends without close_notify
        self.done = threading.Event()

    @property
    def range(self):
        return self.headers.get("range")

    def __repr__(self):
        return "<%s %s%s -> %s, %d bytes%s>" % (self.method, self.target, " " + self.range if self.range else "",
                                                self.status, self.sent, ", aborted" if self.aborted else "")


@dataclass
class _Rule:
    match: object
    fault: Fault
    method: str
    nth: object
    times: int
    reused: bool
    hits: int = 0
    used: int = 0

    def wants(self, seen):
        if self.method and seen.method != self.method:
            return False
        if self.reused and seen.nth_on_connection == 1:
            return False
        if callable(self.match):
            matches = self.match(seen)
        elif isinstance(self.match, re.Pattern):
            matches = self.match.search(seen.target) is not None
        else:
            matches = seen.path == self.match or seen.target == self.match
        if not matches:
            return False
        self.hits += 1
        if self.nth is not None and self.hits not in (self.nth if hasattr(self.nth, "__contains__") else (self.nth,)):
            return False
        if self.times is not None and self.used >= self.times:
            return False
        self.used += 1
        return True


class Upstream:
    def __init__(self, port=None, backlog=512, start=True, tls=None):
        self.port = port or free_port()
        self.backlog = backlog
        self.tls = tls
        self.seen = []
        self.connections = 0     # accepted since the start
        self.repos = {}
        # A function of the connection's number (1, 2, ...): None, "fin", "rst", "silent", tls.Hello, or bytes that answer whatever comes.
        self.accept_fault = None
        self._rules = []
        self._lock = threading.Lock()
        self._open_sockets = set()
        self._listener = None
        self._stopping = threading.Event()
        if start:
            self.start()

    # ---- what it has ----

    def repo(self, name):
        return self.repos.setdefault(name, {"tags": {}, "manifests": {}, "blobs": {}, "referrers": {}})

    def add(self, repo, image, tag=None):
        self.repo(repo)["manifests"].update(image.manifests())
        self.repo(repo)["blobs"].update(image.blobs)
        if tag:
            self.tag(repo, tag, image.digest)
        return image

    def tag(self, repo, tag, manifest_digest):
        self.repo(repo)["tags"][tag] = manifest_digest

    def add_manifest(self, repo, data, media_type, tag=None, algorithm="sha256"):
        name = digest(data, algorithm)
        self.repo(repo)["manifests"][name] = (media_type, data)
        if tag:
            self.tag(repo, tag, name)
        return name

    def add_blob(self, repo, data, algorithm="sha256"):
        name = digest(data, algorithm)
        self.repo(repo)["blobs"][name] = data
        return name

    # ---- what goes wrong ----

    def on(self, match, fault, method=None, nth=None, times=None, reused=False):
        """The first rule that wants a request decides. `match`: a path, a target, a compiled expression, or a function
        of Seen. `nth`: only the nth matching request, or those in a container; `times`: so often at most;
        `reused`: only requests that are not the first on their connection."""
        rule = _Rule(match, fault, method, nth, times, reused)
        with self._lock:
            self._rules.append(rule)
        return rule

    def hold(self, match, at=0, method="GET", **where):
        """A gate in the matching answers: at "request", at "head", or after `at` body bytes."""
        gate = Gate()
        self.on(match, Fault(hold={at: gate}), method=method, **where)
        return gate

    def clear(self):
        with self._lock:
            self._rules.clear()

    # ---- what it was asked ----

    def count(self, method=None, path=None, host=None):
        return len(self.requests(method, path, host))

    def requests(self, method=None, path=None, host=None):
        with self._lock:
            seen = list(self.seen)
        return [s for s in seen if (method is None or s.method == method) and (host is None or s.host == host) and
                (path is None or (path.search(s.target) if isinstance(path, re.Pattern) else path in (s.path, s.target)))]

    def sent(self, path=None):
        return sum(s.sent for s in self.requests("GET", path))

    def forget(self):
        with self._lock:
            self.seen.clear()

    def open_now(self):
        """Connections that the other side has not closed."""
        with self._lock:
            return sum(self._peer_there(sock) for sock in self._open_sockets)

    # ---- coming and going ----

    @property
    def url(self):
        return "%s://127.0.0.1:%d" % ("https" if self.tls else "http", self.port)

    def start(self):
        self._stopping.clear()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(self.backlog)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self):
        """Open connections end, new ones are refused: what a client sees when the service is gone."""
        self._stopping.set()
        if self._listener:
            try:
                self._listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._listener.close()
            self._listener = None
        with self._lock:
            sockets = list(self._open_sockets)
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # ---- serving ----

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                number = self.connections
                self._open_sockets.add(sock)
            threading.Thread(target=self._connection, args=(sock, number), daemon=True).start()

    def _connection(self, sock, number):
        mode = self.accept_fault(number) if self.accept_fault else None
        handshake = None
        try:
            if isinstance(mode, tls_.Hello):
                self.tls.half(sock, mode)
                mode = mode.how
            if isinstance(mode, bytes):
                sock.recv(65536)
                sock.sendall(mode)
            elif mode == "rst":
                _reset(sock)
            elif mode == "silent":
                while self._peer_there(sock):
                    time.sleep(0.01)
            elif mode is None:
                if self.tls:
                    sock = self._wrap(sock)
                    handshake = self.tls.accept(sock)
                self._requests(sock, number, handshake)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open_sockets.discard(sock)
            sock.close()

    def _wrap(self, plain):
        with self._lock:
            self._open_sockets.discard(plain)
            sock = self.tls.wrap(plain)
            self._open_sockets.add(sock)
        return sock

    def _requests(self, sock, number, handshake):
        pending, nth = b"", 0
        while not self._stopping.is_set():
            while b"\r\n\r\n" not in pending:
                got = sock.recv(65536)
                if not got:
                    return
                pending += got
            head, _, pending = pending.partition(b"\r\n\r\n")
            nth += 1
            seen = Seen(number, nth, head, handshake)
            while len(pending) < seen.length:
                got = sock.recv(65536)
                if not got:
                    return
                pending += got
            seen.body, pending = pending[:seen.length], pending[seen.length:]
            with self._lock:
                self.seen.append(seen)
                fault = next((r.fault for r in self._rules if r.wants(seen)), None) or Fault()
            try:
                keep = self._answer(sock, seen, fault)
            except OSError:
                seen.aborted = True
                return
            finally:
                seen.done.set()
            if not keep:
                if fault.close_notify and not seen.cut:
                    tls_.say_goodbye(sock)
                return

    def _answer(self, sock, seen, fault):
        """Sends one answer; True if the connection goes on."""
        if fault.drop:
            return False
        if not self._pause(sock, seen, fault, "request"):
            return False
        if fault.raw is not None:
            sock.sendall(fault.raw)
            return False
        if fault.cut_at == -1:
            return self._cut(sock, seen, fault)
        status, headers, body = self._content(seen)
        status, headers, body = _apply(fault, seen, status, headers, body)
        seen.status = status
        if fault.before:
            sock.sendall(fault.before)
        if not self._pause(sock, seen, fault, "head"):
            return False
        keep, framing = True, fault.framing
        bodyless = seen.method == "HEAD" or status in (204, 304) and fault.body is None
        headers.setdefault("Date", "Thu, 01 Jan 2026 00:00:00 GMT")
        if framing in ("length", "both"):
            headers.setdefault("Content-Length", str(len(body)))
        if framing in ("chunked", "both"):
            headers["Transfer-Encoding"] = "chunked"
        if framing in ("close", "none"):
            headers.setdefault("Connection", "close")
        if fault.length is not None:
            headers["Content-Length"] = str(fault.length)
        sock.sendall(_head(status, headers, fault))
        if "close" in str(headers.get("Connection", "")) or framing in ("close", "none"):
            keep = False
        if not bodyless and not self._send_body(sock, seen, fault, body):
            return False
        if fault.length is not None and not bodyless and str(fault.length) != str(len(body)):
            keep = False
        if fault.close_after:
            keep = False
        return keep

    def _send_body(self, sock, seen, fault, body):
        """True if the body was sent as told, to its end. Stops at gates, cuts and silences."""
        stops = sorted({at for at in fault.hold if isinstance(at, int)} |
                       {at for at in (fault.cut_at, fault.silent) if isinstance(at, int)})
        sent, step = 0, CHUNK if (fault.rate or fault.drip) else 256 * 1024
        if fault.drip:
            step = fault.drip[0]
        if fault.delay.get("body"):
            time.sleep(fault.delay["body"])
        while True:
            while stops and stops[0] <= sent:
                at = stops.pop(0)
                if at in fault.hold and not self._gate(sock, seen, fault.hold[at]):
                    return False
                if at == fault.cut_at:
                    return self._cut(sock, seen, fault)
                if at == fault.silent and not self._gate(sock, seen, Gate()):
                    return False
            if sent >= len(body):
                break
            end = min(sent + step, len(body), stops[0] if stops else len(body))
            piece = body[sent:end]
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if fault.framing in ("chunked", "both") else piece
            seen.sent += len(piece)  # before: the peer may look as soon as it has the bytes
            try:
                sock.sendall(framed)
            except OSError:
                seen.sent -= len(piece)
                raise
            sent = end
            if fault.rate:
                time.sleep(len(piece) / fault.rate)
            elif fault.drip:
                time.sleep(fault.drip[1])
        if fault.framing in ("chunked", "both") and fault.chunk_end:
            sock.sendall(b"0\r\n\r\n")
        return fault.framing not in ("chunked", "both") or fault.chunk_end

    def _pause(self, sock, seen, fault, place):
        if place in fault.hold and not self._gate(sock, seen, fault.hold[place]):
            return False
        if fault.delay.get(place):
            time.sleep(fault.delay[place])
        if fault.silent == place and not self._gate(sock, seen, Gate()):
            return False
        return True

    def _gate(self, sock, seen, gate):
        if gate.pass_through(lambda: self._peer_there(sock)):
            return True
        seen.aborted = True
        return False

    def _peer_there(self, sock):
        if self._stopping.is_set():
            return False
        readable, _, _ = select.select([sock], [], [], 0)
        if not readable:
            return True
        try:
            return tls_.peek(sock) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _cut(self, sock, seen, fault):
        seen.cut = fault.cut != "notify"
        if fault.cut == "rst":
            # A reset throws away what the peer's kernel has not acknowledged; the test said how many bytes arrive.
            deadline = time.monotonic() + PATIENCE
            while _unacknowledged(sock) and time.monotonic() < deadline:
                time.sleep(0.001)
            _reset(sock)
        return False

    # ---- the honest answers ----

    def _content(self, seen):
        if seen.path in ("/v2", "/v2/"):
            return 200, {"Content-Type": "application/json"}, b"{}"
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags|referrers)/([^/]+)", seen.path)
        if match is None or match[1] not in self.repos:
            return oci_error(404, "NAME_UNKNOWN")
        repo, kind, reference = self.repos[match[1]], match[2], match[3]
        if kind == "manifests":
            name = repo["tags"].get(reference, reference)
            if name not in repo["manifests"]:
                return oci_error(404, "MANIFEST_UNKNOWN")
            media_type, data = repo["manifests"][name]
            return 200, {"Content-Type": media_type, "Docker-Content-Digest": name, "ETag": '"%s"' % name}, data
        if kind == "blobs":
            if reference not in repo["blobs"]:
                return oci_error(404, "BLOB_UNKNOWN")
            return 200, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": reference,
                         "ETag": '"%s"' % reference, "Accept-Ranges": "bytes"}, repo["blobs"][reference]
        if kind == "tags" and reference == "list":
            return _tags(match[1], repo, seen.query)
        if kind == "referrers" and reference in repo["referrers"]:
            return 200, {"Content-Type": OCI_INDEX}, repo["referrers"][reference]
        return oci_error(404, "UNSUPPORTED")


def _apply(fault, seen, status, headers, body):
    if fault.redirect is not None:
        status, headers, body = 307, {"Location": fault.redirect, "Content-Type": "text/html"}, b"<a>elsewhere</a>"
    if fault.status is not None:
        status = fault.status
        if fault.body is None and status >= 400:
            _, headers, body = oci_error(status, "UNKNOWN")
        elif fault.body is None:
            body = b"" if status in (204, 304) else body
    if callable(fault.body):
        body = fault.body(body)
    elif fault.body is not None:
        body = fault.body
    if fault.flip is not None:
        changed = bytearray(body)
        changed[fault.flip] ^= 0x10
        body = bytes(changed)
    headers = dict(headers)
    for name, value in fault.headers.items():
        headers = {k: v for k, v in headers.items() if k.lower() != name.lower()}
        if value is not None:
            headers[name] = value
    if status == 200 and seen.method == "GET":
        status, headers, body = _ranged(fault, seen, headers, body)
    return status, {name: value for name, value in headers.items() if value is not None}, body


def _ranged(fault, seen, headers, body):
    if fault.range == "unasked":
        return 206, dict(headers, **{"Content-Range": "bytes 0-%d/%d" % (len(body) - 1, len(body))}), body
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range or "")
    # "Accept-Ranges": None is a server that knows ranges and does not say so, as most registries do.
    if match is None or fault.range == "ignore" or "Accept-Ranges" not in headers:
        return 200, headers, body
    first = int(match[1])
    last = min(int(match[2]), len(body) - 1) if match[2] else len(body) - 1
    if fault.range == "refuse" or first >= len(body):
        _, refused, text = oci_error(416, "RANGE_INVALID")
        return 416, dict(refused, **{"Content-Range": "bytes */%d" % len(body)}), text
    said = (first + 1, last) if fault.range == "wrong" else (first, last)
    return 206, dict(headers, **{"Content-Range": "bytes %d-%d/%d" % (said + (len(body),))}), body[first:last + 1]


def _tags(name, repo, query):
    asked = urllib.parse.parse_qs(query)
    tags = sorted(repo["tags"])
    if "last" in asked:
        tags = [t for t in tags if t > asked["last"][0]]
    headers = {"Content-Type": "application/json"}
    if "n" in asked and len(tags) > int(asked["n"][0]):
        tags = tags[:int(asked["n"][0])]
        headers["Link"] = '</v2/%s/tags/list?n=%s&last=%s>; rel="next"' % (name, asked["n"][0], tags[-1])
    return 200, headers, json.dumps({"name": name, "tags": tags}).encode()


def oci_error(status, code):
    text = json.dumps({"errors": [{"code": code, "message": "upstream says " + code.lower(), "detail": None}]})
    return status, {"Content-Type": "application/json"}, text.encode()


def _head(status, headers, fault):
    lines = ["HTTP/1.1 %d %s" % (status, "Scripted")]
    for name, value in headers.items():
        lines.extend("%s: %s" % (name, one) for one in (value if isinstance(value, list) else [value]))
    lines.extend("X-Pad-%d: %s" % (n, "p" * 1000) for n in range(fault.pad // 1000))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _unacknowledged(sock):
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
