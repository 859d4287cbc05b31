"""Forward proxies: one that does what a test tells it to, and Debian's tinyproxy.

    proxy = Proxy(names={"registry.test": port}, account=("user", "password"), tls=Tls(...))
    proxy.on(is_connect, Fault(status=502), nth=1)          # faults as with any scripted upstream
    proxy.connects()                                        # ["registry.test:443", ...]

The scripted one resolves nothing: what `names` does not have gets 502, so a request that arrives somewhere came through it."""

import base64
import os
import re
import select
import shutil
import socket
import ssl
import subprocess
import urllib.parse

from .client import request
from .larder import wait_until
from .ports import free_port
from .upstream import Fault, Upstream


def is_connect(seen):
    return seen.method == "CONNECT"


def basic(account):
    return "Basic " + base64.b64encode(":".join(account).encode()).decode()


class Proxy(Upstream):
    def __init__(self, names=None, account=None, tls=None):
        self.names, self.account = dict(names or {}), account
        super().__init__(tls=tls)

    def url_for(self, account=None, host="127.0.0.1"):
        """What a configuration says."""
        user = "" if account is None else "%s@" % ":".join(urllib.parse.quote(part, safe="") for part in account)
        return "%s://%s%s:%d" % ("https" if self.tls else "http", user, host, self.port)

    def connects(self):
        return [s.target for s in self.requests("CONNECT")]

    def _answer(self, sock, seen, fault):
        if fault != Fault():
            return super()._answer(sock, seen, fault)
        if self.account and seen.headers.get("proxy-authorization") != basic(self.account):
            return self._say(sock, seen, 407, 'Proxy-Authenticate: Basic realm="proxy"\r\n')
        if is_connect(seen):
            host, _, port = seen.target.rpartition(":")
            return self._tunnel(sock, seen, self.names.get(host, self.names.get(seen.target)))
        url = urllib.parse.urlsplit(seen.target)
        if url.scheme != "http":
            return self._say(sock, seen, 400)
        port = self.names.get(url.hostname, self.names.get(url.netloc))
        return self._say(sock, seen, 502) if port is None else self._pass_on(sock, seen, url, port)

    @staticmethod
    def _pass_on(sock, seen, url, port):
        """One request and its whole answer, on a connection of its own."""
        own = ("connection", "proxy-authorization", "proxy-connection", "transfer-encoding")
        headers = [(n, v) for n, v in seen.header_list if n.lower() not in own]
        r = request(("127.0.0.1", port), seen.method, urllib.parse.urlunsplit(("", "", url.path, url.query, "")), headers)
        lines = ["HTTP/1.1 %d Passed on" % r.status] + ["%s: %s" % (n, v) for n, v in r.headers if n.lower() not in own]
        seen.status = r.status
        sock.sendall("\r\n".join(lines + ["", ""]).encode("latin-1") + r.body)
        return r.clean and r.header("Content-Length") is not None

    @staticmethod
    def _say(sock, seen, status, more=""):
        seen.status = status
        sock.sendall(("HTTP/1.1 %d Scripted\r\n%sContent-Length: 0\r\n\r\n" % (status, more)).encode())
        return True

    def _tunnel(self, sock, seen, port):
        """To the server at `port`: bytes in both directions until one side ends."""
        if port is None:
            return self._say(sock, seen, 502)
        try:
            far = socket.create_connection(("127.0.0.1", port))
        except OSError:
            return self._say(sock, seen, 503)
        with far:
            seen.status = 200
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other = {sock: far, far: sock}
            while not self._stopping.is_set():
                decrypted = isinstance(sock, ssl.SSLSocket) and sock.pending()
                ready = [sock] if decrypted else select.select([sock, far], [], [], 0.05)[0]
                for side in ready:
                    got = side.recv(65536)
                    if not got:
                        return False
                    other[side].sendall(got)
        return False

    def _content(self, seen):
        return 200, {}, b""


class TinyProxy:
    """An independent proxy: CONNECT to any port, for one account. It resolves names as the system does."""

    def __init__(self, directory, account=None):
        self.directory, self.account = str(directory), account
        self.port = free_port()
        self.log_file = os.path.join(self.directory, "log")
        self.process = None

    def url_for(self, account=None):
        user = "" if account is None else "%s@" % ":".join(urllib.parse.quote(part, safe="") for part in account)
        return "http://%s127.0.0.1:%d" % (user, self.port)

    def start(self):
        program = shutil.which("tinyproxy")
        assert program, "tinyproxy is not installed"
        os.makedirs(self.directory, exist_ok=True)
        config = os.path.join(self.directory, "tinyproxy.conf")
        with open(config, "w") as out:
            out.write('Port %d\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nAllow 127.0.0.1\nLogLevel Connect\nLogFile "%s"\n'
                      % (self.port, self.log_file))
            if self.account:
                out.write("BasicAuth %s %s\n" % self.account)
        self.process = subprocess.Popen([program, "-d", "-c", config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_until(self._answers, "tinyproxy answers")
        return self

    def _answers(self):
        assert self.process.poll() is None, "tinyproxy ended with %s" % self.process.returncode
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def connects(self):
        with open(self.log_file, errors="replace") as log:
            return re.findall(r"Request \(file descriptor \d+\): CONNECT (\S+) HTTP", log.read())

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
