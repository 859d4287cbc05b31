"""larder as a process of the test: its config file, its ports, its log, its end.

What has to hold in every test is checked here and not in each of them: the log is JSON and nothing but JSON (so a
report of a sanitizer or an abort fails the test), no answer names the upstream, an error has an OCI body, the
metadata of an answer agrees with its bytes, no password or token is in the log or in an answer, and what lies in the store is what its
name says."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from . import client, secrets
from .ports import free_port

PATIENCE = 60.0
REGISTRY = "up.test"


def wait_until(condition, what, timeout=PATIENCE):
    """Polls until the condition holds and returns what it gave."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "never happened: %s" % what
        time.sleep(0.01)


def binary():
    path = os.environ.get("LARDER_BIN")
    assert path, "LARDER_BIN is not set: it names the larder program to test"
    assert os.access(path, os.X_OK), "LARDER_BIN=%s is not a program" % path
    return os.path.abspath(path)


def yaml_text(value, indent=0):
    """Dicts, lists and scalars as YAML in block style."""
    pad = "  " * indent
    lines = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines.append("%s%s:\n%s" % (pad, key, yaml_text(item, indent + 1)))
            else:
                lines.append("%s%s: %s\n" % (pad, key, _yaml_scalar(item)))
    else:
        for item in value:
            if isinstance(item, dict):
                text = yaml_text(item, indent + 1)
                lines.append("%s- %s" % (pad, text[len(pad) + 2:]))
            else:
                lines.append("%s- %s\n" % (pad, _yaml_scalar(item)))
    return "".join(lines)


def _yaml_scalar(item):
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, str):
        return item if re.fullmatch(r"[A-Za-z0-9/._-][A-Za-z0-9/._:*-]*(?<!:)", item) else json.dumps(item)
    return "{}" if item == {} else "[]" if item == [] else str(item)


def environment(more=None):
    """This process's, without a proxy that it may have, and with `more`."""
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return dict(own, **(more or {}))


def run(*arguments, timeout=PATIENCE, env=None, **more):
    """larder with arguments, to its end: a CompletedProcess with text."""
    done = subprocess.run([binary(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=timeout, text=True, env=environment(env), **more)
    secrets.assert_none_in(done.stdout + done.stderr, "what larder %s prints" % " ".join(arguments))
    return done


class Larder:
    """`upstream`: the scripted registry behind REGISTRY; larder serves its repositories under t/. `rules`,
    `upstreams`, `defaults` and further top-level keys replace what is written otherwise; `env` adds to its environment."""

    def __init__(self, directory, upstream=None, rules=None, upstreams=None, timeouts=None, client_limits=None,
                 defaults=None, env=None, **more):
        self.directory = str(directory)
        self.env = env
        os.makedirs(self.directory, exist_ok=True)
        self.upstream = upstream
        self.port, self.admin_port = free_port(), free_port()
        self.store = os.path.join(self.directory, "store")
        self.file = os.path.join(self.directory, "config.yaml")
        if upstreams is None:
            upstreams = [{"registry": REGISTRY, "endpoints": [upstream.url],
                          "timeouts": timeouts or {"connect": "2s", "first_byte": "5s", "idle": "5s"}}]
        if rules is None:
            rules = [{"name": "rule-t", "source": REGISTRY + "/*", "target": "t/*"}]
        self.config = {
            "listen": [{"address": "127.0.0.1:%d" % self.port}],
            "admin": {"address": "127.0.0.1:%d" % self.admin_port},
            "workers": 2,
            "store": {"path": self.store},
            "defaults": dict({"tag_ttl": "1h"}, **(defaults or {})),
            "upstreams": upstreams,
            "rules": rules,
            "log": {"level": "debug", "format": "json", "access": True},
        }
        if client_limits:
            self.config["client"] = client_limits
        self.config.update(more)
        self.process = None
        self.printed = []        # every line of the log as it came
        self.log = []            # parsed records
        self.not_json = []       # lines of stderr that are not one
        self.expect_damage = False  # a test that damages the store says so
        self._reader = None

    # ---- process ----

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def pid(self):
        return self.process.pid

    def write_config(self):
        with open(self.file, "w") as out:
            out.write(yaml_text(self.config))

    def start(self, wait=True):
        self.write_config()
        self.process = subprocess.Popen([binary(), "serve", "-f", self.file], stdin=subprocess.DEVNULL, env=environment(self.env),
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read_log, args=(self.process.stdout,), daemon=True)
        self._reader.start()
        if wait:
            wait_until(self._healthy, "larder answers /healthz")
        return self

    def _healthy(self):
        assert self.process.poll() is None, "larder ended with %s at start:\n%s" % (self.process.returncode, self.tail())
        try:
            return self.admin("/healthz")[0] == 200
        except OSError:
            return False

    def stop(self, timeout=PATIENCE):
        """SIGTERM, exit 0, nothing on stderr but the log, and a sound store."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.wait_exit(0, timeout)
        self.check_store()

    def wait_exit(self, expected, timeout=PATIENCE):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("larder did not end:\n" + self.tail()) from None
        self._reader.join(PATIENCE)
        self.process = None
        assert not self.not_json, "larder wrote to stderr:\n" + "\n".join(self.not_json)
        secrets.assert_none_in("\n".join(self.printed), "the log")
        assert code == expected, "larder ended with %s:\n%s" % (code, self.tail())

    def kill(self):
        """SIGKILL: as if the machine had lost power, except for the page cache."""
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        self.process = None
        secrets.assert_none_in("\n".join(self.printed), "the log")

    def restart(self):
        self.stop()
        return self.start()

    def clean_up(self):
        """At the end of a test, whatever happened in it."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.stop()
        else:
            self.wait_exit(0)

    def _read_log(self, stream):
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip("\n")
            self.printed.append(text)
            try:
                record = json.loads(text)
                assert {"time", "level", "group", "msg"} <= set(record)
                self.log.append(record)
            except (ValueError, TypeError, AssertionError):
                self.not_json.append(text)
        stream.close()

    def tail(self, n=25):
        return "\n".join([json.dumps(r) for r in self.log[-n:]] + self.not_json[-80:])

    def logged(self, **fields):
        """Records that have all these values; `text` looks anywhere in the record."""
        text = fields.pop("text", "")
        return [r for r in list(self.log) if all(r.get(k) == v for k, v in fields.items()) and text in json.dumps(r)]

    def sanitized(self):
        """Memory of a sanitized program says nothing: its shadow makes the address space terabytes wide."""
        return self.status_kib("VmSize") > 1 << 30

    def status_kib(self, name):
        with open("/proc/%d/status" % self.pid) as status:
            return int(re.search(r"^%s:\s+(\d+) kB" % name, status.read(), re.M)[1])

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def memory_has(self, text):
        """Do these bytes stand anywhere in what the process can write to? What a sanitizer needs for itself (huge) is left out."""
        with open("/proc/%d/maps" % self.pid) as maps, open("/proc/%d/mem" % self.pid, "rb", buffering=0) as memory:
            for line in maps:
                span, mode = line.split()[:2]
                start, end = (int(part, 16) for part in span.split("-"))
                if not mode.startswith("rw") or end - start > 1 << 30:
                    continue
                with contextlib.suppress(OSError, ValueError):
                    memory.seek(start)
                    if text in memory.read(end - start):
                        return True
        return False

    def stands_still(self):
        """Whether a SIGSTOP has reached each thread."""
        tasks = Path("/proc/%d/task" % self.process.pid)
        return all((task / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks.iterdir())

    def unread_requests(self):
        """How many connections of clients have bytes that larder has not read yet."""
        waiting = 0
        with open("/proc/net/tcp") as table:
            for line in list(table)[1:]:
                part = line.split()
                if part[1].endswith(":%04X" % self.port) and part[3] == "01":
                    waiting += int(part[4].split(":")[1], 16) > 0
        return waiting

    def connections(self):
        """How many established connections larder's port has, by the kernel's count."""
        with open("/proc/net/tcp") as table:
            return sum(line.split()[1].endswith(":%04X" % self.port) and line.split()[3] == "01"
                       for line in list(table)[1:])

    def wait_all_read(self, n):
        """n clients are connected and larder has read everything that they have sent."""
        wait_until(lambda: self.connections() >= n and self.unread_requests() == 0, "larder has read %d requests" % n)

    # ---- admin ----

    def admin(self, path):
        connection = http.client.HTTPConnection(self.config["admin"]["address"], timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            status, text, headers = answer.status, answer.read().decode(), dict(answer.getheaders())
        secrets.assert_none_in(text + str(headers), "the admin address's answer to " + path)
        return status, text, headers

    def metrics(self):
        """{"larder_x_total": 3.0, 'larder_y{rule="t"}': 1.0}"""
        status, text, _ = self.admin("/metrics")
        assert status == 200
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                assert name not in values, "%s is there twice" % name
                values[name] = float(value)
        return values

    def metric(self, name):
        """Sum over the labels of a metric, named without the prefix. It has to exist."""
        full = "larder_" + name
        found = [v for n, v in self.metrics().items() if n == full or n.startswith(full + "{")]
        assert found, "no metric %s" % full
        return sum(found)

    def wait_idle(self):
        """Nothing is in progress any more."""
        for gauge in ("fetches_in_flight", "fetch_readers", "upstream_requests_active"):
            wait_until(lambda g=gauge: self.metric(g) == 0, "%s is 0" % gauge)

    # ---- requests ----

    def request(self, method, target, headers=None, version="HTTP/1.1", body=None, timeout=PATIENCE):
        response = client.request(self.address, method, target, headers, version, body, timeout)
        self.check_answer(response, target)
        return response

    def get(self, target, headers=None, **more):
        return self.request("GET", target, headers, **more)

    def get_when_up(self, target, headers=None):
        """Upstream is there again; larder asks it when the pause is over that followed the last failure."""
        def good():
            r = self.get(target, headers)
            return r if r.good else None
        return wait_until(good, "%s is served again" % target)

    def head(self, target, headers=None, **more):
        return self.request("HEAD", target, headers, **more)

    def check_answer(self, r, target=""):
        """What holds for every answer of larder."""
        if r.status is None:
            return
        assert r.status != 401, "a 401 makes clients ask for a password for the cache"
        assert r.header("Docker-Distribution-Api-Version") == "registry/2.0"
        told = r.raw_head.decode("latin-1") + (r.body.decode("latin-1") if r.status >= 400 else "")
        secrets.assert_none_in(told, "an answer")
        if "ns=" not in target:
            self._check_no_host_told(told)
        if r.status >= 400:
            self._check_error(r)
        length = r.header("Content-Length")
        if r.clean and r.framing == "length":
            assert len(r.body) == int(length)
        name = r.header("Docker-Content-Digest")
        if name is not None and r.status < 400:
            assert r.header("ETag") == '"%s"' % name
            if r.status == 200 and r.clean and r.method == "GET":
                assert name == digest_like(name, r.body), "a complete answer with other bytes than its digest says"

    def _check_no_host_told(self, told):
        hosts = [u["registry"] for u in self.config["upstreams"]] + list(self.config.get("resolve", ()))
        hosts += [e.split("//")[1] for u in self.config["upstreams"] for e in u.get("endpoints", [])]
        for word in hosts:
            assert word not in told, "the answer tells about upstream (%s): %s" % (word, told)

    @staticmethod
    def _check_error(r):
        assert r.header("Content-Type") == "application/json", r.header("Content-Type")
        if r.method == "HEAD":
            return
        if r.clean:
            errors = r.json()["errors"]
            assert len(errors) >= 1
            assert re.fullmatch(r"[A-Z_]+", errors[0]["code"]) and errors[0]["message"]

    # ---- store ----

    def stored(self, digest):
        """Is there an object of that name? Its content is looked at in check_store."""
        algorithm, _, hexes = digest.partition(":")
        return os.path.exists(os.path.join(self.store, "blobs", algorithm, hexes))

    def wait_stored(self, *digests):
        """The last bytes go to clients when they are verified; that they are on disk, and in the index, comes after."""
        for digest in digests:
            wait_until(lambda d=digest: self.stored(d), "%s is stored" % digest)
        wait_until(lambda: self.metric("fetches_in_flight") == 0, "no fetch is in progress")

    def blob_path(self, digest):
        return os.path.join(self.store, "blobs", *digest.split(":"))

    def partial_path(self, digest):
        return os.path.join(self.store, "partial", digest.replace(":", "-"))

    def stored_objects(self):
        return sorted("%s:%s" % (algorithm, name) for algorithm in _listdir(os.path.join(self.store, "blobs"))
                      for name in _listdir(os.path.join(self.store, "blobs", algorithm)))

    def partials(self):
        return _listdir(os.path.join(self.store, "partial"))

    def check_store(self):
        if self.expect_damage:
            return
        for name in self.stored_objects():
            algorithm, _, hexes = name.partition(":")
            with open(self.blob_path(name), "rb") as file:
                hasher = hashlib.new(algorithm)
                for piece in iter(lambda: file.read(1 << 20), b""):
                    hasher.update(piece)
            assert hasher.hexdigest() == hexes, "the store has %s with other bytes" % name
        for name in self.partials():
            assert re.fullmatch(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128}", name), "a leftover in partial/: " + name


def _listdir(path):
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def digest_like(name, data):
    algorithm = name.partition(":")[0]
    return "%s:%s" % (algorithm, hashlib.new(algorithm, data).hexdigest())


def cache_status(response):
    """Cache-Status (RFC 9211) of larder as (first parameter, {name: value or True}): ("hit", {"ttl": "-3"}),
    ("miss", {"collapsed": True, "stored": True})."""
    text = response.header("Cache-Status")
    assert text is not None, "no Cache-Status"
    parts = [p.strip() for p in text.split(";")]
    assert parts[0] == "larder", text
    values = {}
    for part in parts[1:]:
        name, equals, value = part.partition("=")
        values[name] = value if equals else True
    assert ("hit" in values) != ("fwd" in values), "neither or both of hit and fwd: " + text
    return ("hit" if "hit" in values else values["fwd"]), values
