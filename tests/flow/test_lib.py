"""The tools of these tests, tested against each other: the scripted registry with the raw client, and with a real one.
A fault that does not happen as ordered would make the tests of larder pass for nothing."""

import base64
import contextlib
import re
import socket
import ssl
import subprocess
import time
import urllib.parse

import pytest

from lib import paths, secrets
from lib.client import Conn, Fetch, request, request_bytes
from lib.faults import Faults
from lib.images import DOCKER_LIST, KIB, MIB, Image, Index, blob, digest
from lib.larder import environment, wait_until, yaml_text
from lib.nginx import Nginx
from lib.ports import port_that_drops_syns
from lib.profiles import PROFILES, DockerHub
from lib.proxy import Proxy, TinyProxy, basic, is_connect
from lib.registry import DockerRegistry
from lib.tls import Hello, Tls
from lib.upstream import Fault, Upstream

REPO = "lib/app"


@pytest.fixture
def data(upstream):
    content = blob("self-test", 300 * KIB)
    upstream.add_blob(REPO, content)
    return content


def path_of(content):
    return "/v2/%s/blobs/%s" % (REPO, digest(content))


def address(upstream):
    return ("127.0.0.1", upstream.port)


def get(upstream, target, headers=None, method="GET"):
    return request(address(upstream), method, target, headers)


def test_honest_answers(upstream):
    image = upstream.add(REPO, Image("honest"), tag="v1")
    r = get(upstream, "/v2/%s/manifests/v1" % REPO)
    assert r.good and r.body == image.manifest and r.header("Docker-Content-Digest") == image.digest
    r = get(upstream, "/v2/%s/manifests/v1" % REPO, method="HEAD")
    assert r.status == 200 and r.clean and r.body == b"" and r.header("Content-Length") == str(len(image.manifest))
    for name, content in image.blobs.items():
        assert get(upstream, "/v2/%s/blobs/%s" % (REPO, name)).body == content
    assert get(upstream, "/v2/%s/tags/list" % REPO).json() == {"name": REPO, "tags": ["v1"]}
    assert get(upstream, "/v2/no/such/manifests/v1").error_code == "NAME_UNKNOWN"
    assert upstream.count("GET") == 5 and upstream.count("HEAD") == 1


def test_images_are_deterministic_and_verifiable():
    for algorithm in ("sha256", "sha512"):
        one, two = Image("same", (10, 20), algorithm), Image("same", (10, 20), algorithm)
        assert one.manifest == two.manifest and one.blobs == two.blobs
        assert all(digest(content, algorithm) == name for name, content in one.blobs.items())
    assert Image("one").digest != Image("other").digest
    index = Index([Image("a"), Image("b", arch="arm64")], docker=True)
    assert index.manifests()[index.digest][0] == DOCKER_LIST and len(index.manifests()) == 3


def test_requests_are_recorded_with_what_was_sent(upstream, data):
    get(upstream, path_of(data) + "?a=b", {"Range": "bytes=0-99", "X-One": "1"})
    seen = upstream.requests("GET", path_of(data))[0]
    assert (seen.range, seen.headers["x-one"], seen.query, seen.sent, seen.status) == ("bytes=0-99", "1", "a=b", 100, 206)


@pytest.mark.parametrize("range_fault,status,content_range", [
    ("honour", 206, "bytes 1000-307199/307200"), ("ignore", 200, None), ("refuse", 416, "bytes */307200"),
    ("wrong", 206, "bytes 1001-307199/307200"), ("unasked", 206, "bytes 0-307199/307200")])
def test_range_honoured_ignored_refused_and_wrong(upstream, data, range_fault, status, content_range):
    upstream.on(path_of(data), Fault(range=range_fault))
    r = get(upstream, path_of(data), {"Range": "bytes=1000-"})
    assert r.status == status and r.header("Content-Range") == content_range


@pytest.mark.parametrize("how,end", [("fin", "short"), ("rst", "reset")])
@pytest.mark.parametrize("at", [0, 1, 1000, 300 * KIB - 1])
def test_cut_at_an_offset(upstream, data, how, end, at):
    upstream.on(path_of(data), Fault(cut_at=at, cut=how), nth=1)
    r = get(upstream, path_of(data))
    assert (r.status, r.end, len(r.body)) == (200, end, at) and r.body == data[:at]
    assert get(upstream, path_of(data)).body == data


def test_cut_before_the_head(upstream, data):
    upstream.on(path_of(data), Fault(cut_at=-1))
    assert (get(upstream, path_of(data)).status, get(upstream, path_of(data)).end) == (None, "short")


def test_flipped_bit_and_other_bytes(upstream, data):
    upstream.on(path_of(data), Fault(flip=-1), nth=1)
    upstream.on(path_of(data), Fault(body=lambda b: b[:10]), nth=1)
    r = get(upstream, path_of(data))
    assert r.good and r.body[:-1] == data[:-1] and r.body[-1] == data[-1] ^ 0x10
    assert get(upstream, path_of(data)).body == data[:10]


@pytest.mark.parametrize("fault,framing,end", [
    (Fault(framing="chunked"), "chunked", "clean"),
    (Fault(framing="chunked", chunk_end=False), "chunked", "short"),
    (Fault(framing="chunked", cut_at=1000), "chunked", "short"),
    (Fault(framing="close"), "close", "clean"),
    (Fault(framing="close", cut_at=1000), "close", "clean"),
    (Fault(framing="close", cut_at=1000, cut="rst"), "close", "reset"),
    (Fault(length=400 * KIB), "length", "short"),
    (Fault(length=100), "length", "clean")])
def test_framings(upstream, data, fault, framing, end):
    upstream.on(path_of(data), fault)
    r = get(upstream, path_of(data))
    assert (r.framing, r.end) == (framing, end) and data.startswith(r.body)
    if end == "clean" and fault.cut_at is None and fault.length is None:
        assert r.body == data


def test_both_framings_at_once(upstream, data):
    upstream.on(path_of(data), Fault(framing="both"))
    with Conn(address(upstream)) as conn:
        conn.send_request("GET", path_of(data))
        head = b""
        while b"\r\n\r\n" not in head:
            head += conn.sock.recv(100)
    assert b"Content-Length: 307200" in head and b"Transfer-Encoding: chunked" in head


def test_status_headers_and_redirect(upstream, data):
    upstream.on(path_of(data), Fault(status=429, headers={"Retry-After": "7", "content-type": None}), nth=1)
    upstream.on(path_of(data), Fault(redirect="/elsewhere?sig=%2F"), nth=1)
    upstream.on(path_of(data), Fault(status=204), nth=1)
    upstream.on(path_of(data), Fault(headers={"ETag": ['"a"', '"b"']}), nth=1)
    r = get(upstream, path_of(data))
    assert r.status == 429 and r.header("Retry-After") == "7" and r.header("Content-Type") is None
    r = get(upstream, path_of(data))
    assert r.status == 307 and r.header("Location") == "/elsewhere?sig=%2F"
    assert get(upstream, path_of(data)).status == 204
    assert [v for n, v in get(upstream, path_of(data)).headers if n == "ETag"] == ['"a"', '"b"']


def test_gate_holds_at_the_byte(upstream, data):
    gate = upstream.hold(path_of(data), at=5000)
    fetch = Fetch(address(upstream), path_of(data))
    gate.wait_reached()
    fetch.wait_got(5000)
    assert fetch.got == 5000
    gate.release()
    assert fetch.result().body == data


@pytest.mark.parametrize("place", ["request", "head"])
def test_gate_before_the_body(upstream, data, place):
    gate = upstream.hold(path_of(data), at=place)
    fetch = Fetch(address(upstream), path_of(data))
    gate.wait_reached()
    assert not fetch.head_came.is_set()
    gate.release()
    assert fetch.result().good


def test_gate_notices_a_peer_that_leaves(upstream, data):
    gate = upstream.hold(path_of(data), at=1)
    fetch = Fetch(address(upstream), path_of(data))
    gate.wait_reached()
    fetch.leave()
    seen = upstream.requests("GET")[0]
    assert seen.done.wait(30) and seen.aborted
    assert fetch.result().end == "left"


@pytest.mark.parametrize("place,got", [("request", None), ("head", None), (0, 0), (100, 100)])
def test_silence(upstream, data, place, got):
    upstream.on(path_of(data), Fault(silent=place))
    with Conn(address(upstream), timeout=0.3) as conn:
        r = conn.exchange("GET", path_of(data))
    assert r.end == "timeout" and (r.status, len(r.body)) == ((200, got) if got is not None else (None, 0))


def test_silent_accept_and_reset_accept(upstream, data):
    upstream.accept_fault = lambda n: ["silent", "rst", "fin", None][n - 1]
    with Conn(address(upstream), timeout=0.3) as conn:
        assert conn.exchange("GET", path_of(data)).end == "timeout"
    for end in ("reset", "short"):
        try:
            assert get(upstream, path_of(data)).end in (end, "reset")
        except OSError:
            pass  # the reset was faster than the request
    assert get(upstream, path_of(data)).good and upstream.count() == 1


def test_slow_answers_arrive_whole(upstream):
    content = blob("slow", 2000)
    upstream.add_blob(REPO, content)
    upstream.on(path_of(content), Fault(rate=20000), nth=1)
    upstream.on(path_of(content), Fault(drip=(500, 0.05), delay={"head": 0.05, "body": 0.05}), nth=1)
    assert get(upstream, path_of(content)).body == content
    assert get(upstream, path_of(content)).body == content


def test_garbage_interim_answers_and_big_heads(upstream, data):
    upstream.on(path_of(data), Fault(raw=b"\x00\x01garbage"), nth=1)
    upstream.on(path_of(data), Fault(before=b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"), nth=1)
    upstream.on(path_of(data), Fault(pad=64 * 1000), nth=1)
    assert get(upstream, path_of(data)).end in ("malformed", "short", "reset")
    r = get(upstream, path_of(data))
    assert r.interim == [100, 103] and r.body == data
    assert len(get(upstream, path_of(data)).raw_head) > 64000


def test_kept_alive_connections_end_silently(upstream, data):
    upstream.on(path_of(data), Fault(close_after=True), nth=1)
    upstream.on(path_of(data), Fault(drop=True), nth=1, reused=True)
    with Conn(address(upstream)) as conn:
        r = conn.exchange("GET", path_of(data))
        assert r.good and r.header("Connection") is None
        assert conn.closed_by_peer()
    with Conn(address(upstream)) as conn:
        assert conn.exchange("GET", path_of(data)).good
        assert conn.exchange("GET", path_of(data)).status is None
    assert [s.nth_on_connection for s in upstream.requests()] == [1, 1, 2]


def test_upstream_goes_and_comes_back(upstream, data):
    with Conn(address(upstream)) as conn:
        assert conn.exchange("GET", path_of(data)).good
        upstream.stop()
        assert conn.closed_by_peer()
    with pytest.raises(OSError):
        get(upstream, path_of(data))
    upstream.start()
    assert get(upstream, path_of(data)).good


def test_client_pipelines_halves_and_reads_slowly(upstream, data):
    with Conn(address(upstream)) as conn:
        conn.send(request_bytes("GET", path_of(data)) + request_bytes("HEAD", path_of(data)) +
                  request_bytes("GET", "/v2/"))
        conn.finish_sending()
        assert conn.read_response("GET").body == data
        assert conn.read_response("HEAD").status == 200
        assert conn.read_response("GET").body == b"{}"
    slow = Fetch(address(upstream), path_of(data), rate=MIB, receive_buffer=4096)
    halted = Fetch(address(upstream), path_of(data), stop_at=1000)
    leaving = Fetch(address(upstream), path_of(data), leave_at=1000)
    assert slow.result().body == data
    assert leaving.result().end == "left"
    halted.wait_got(1000)
    halted.resume()
    assert halted.result().body == data


def test_config_text_is_yaml():
    text = yaml_text({"listen": [{"address": "127.0.0.1:1"}], "a": {"b": "x y", "c": 3, "d": True}, "e": []})
    assert text == 'listen:\n  - address: 127.0.0.1:1\na:\n  b: "x y"\n  c: 3\n  d: true\ne: []\n'


def test_docker_registry_and_skopeo_work_here(tmp_path):
    """The real registry and the real client that other tests put larder between."""
    with DockerRegistry(tmp_path / "registry") as registry:
        image = Image("real", (100 * KIB, 10))
        registry.push("lib/app", image, "v1")
        r = request(registry.address, "GET", "/v2/lib/app/manifests/v1", {"Accept": image.media_type})
        assert r.body == image.manifest
        result = subprocess.run(
            ["skopeo", "copy", "--src-tls-verify=false", "docker://127.0.0.1:%d/lib/app:v1" % registry.port,
             "dir:%s" % (tmp_path / "copy")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert result.returncode == 0, result.stdout
        assert (tmp_path / "copy" / "manifest.json").read_bytes() == image.manifest
        assert registry.count("GET", re.compile("/blobs/")) >= 3


# ---- TLS ----

def tls_client(root, **how):
    context = ssl.create_default_context(cafile=root.file)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    for name, value in how.items():
        setattr(context, name, value)
    return context


def tls_get(upstream, context, target, name="up.test"):
    """(body, how it ended) by a client that tells an end with close_notify ("notify") from one without ("eof")."""
    with socket.create_connection(address(upstream), timeout=30) as plain:
        with context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False) as sock:
            sock.sendall(request_bytes("GET", target, {"Host": name}))
            got = b""
            try:
                while piece := sock.recv(65536):
                    got += piece
                return got.partition(b"\r\n\r\n")[2], "notify"
            except (ssl.SSLError, ConnectionResetError) as error:
                eof = getattr(error, "reason", "") == "UNEXPECTED_EOF_WHILE_READING"
                return got.partition(b"\r\n\r\n")[2], "eof" if eof else "reset"


@pytest.fixture
def tls_upstream(leaf):
    with Upstream(tls=Tls(leaf)) as up:
        up.add_blob(REPO, blob("self-test", 300 * KIB))
        yield up


def curl(*arguments):
    return subprocess.run(["curl", "-sS", "-q", "--noproxy", "", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, env=environment())


def test_the_same_by_tls_to_an_independent_client(tls_upstream, root):
    data = blob("self-test", 300 * KIB)
    resolve = ("--resolve", "up.test:%d:127.0.0.1" % tls_upstream.port, "--cacert", root.file)
    url = "https://up.test:%d%s" % (tls_upstream.port, path_of(data))
    for version in ("1.2", "1.3"):
        r = curl(*resolve, "--tlsv" + version, "--tls-max", version, url)
        assert r.stdout == data, r.stderr
    assert curl(*resolve, "-r", "1000-1999", url).stdout == data[1000:2000]
    assert [(h.name, h.version, h.alpn, h.error) for h in tls_upstream.tls.handshakes] == [
        ("up.test", "TLSv1.2", "http/1.1", None), ("up.test", "TLSv1.3", "http/1.1", None), ("up.test", "TLSv1.3", "http/1.1", None)]
    assert [s.handshake.name for s in tls_upstream.requests()] == ["up.test"] * 3
    assert b"certificate" in curl(url, *resolve[:2]).stderr


def test_a_body_by_tls_ends_with_and_without_close_notify(tls_upstream, root):
    data = blob("self-test", 300 * KIB)
    tls_upstream.on(path_of(data), Fault(framing="close"), nth=1)
    tls_upstream.on(path_of(data), Fault(framing="close", close_notify=False), nth=1)
    tls_upstream.on(path_of(data), Fault(cut_at=1000, cut="notify"), nth=1)
    tls_upstream.on(path_of(data), Fault(cut_at=1000), nth=1)
    tls_upstream.on(path_of(data), Fault(cut_at=1000, cut="rst"), nth=1)
    ends = [tls_get(tls_upstream, tls_client(root), path_of(data)) for _ in range(5)]
    assert [(len(body), end) for body, end in ends] == [
        (len(data), "notify"), (len(data), "eof"), (1000, "notify"), (1000, "eof"), (1000, "reset")]


def test_handshakes_that_do_not_end(tls_upstream, root):
    faults = ["silent", "rst", "fin", Hello(5, "silent"), Hello(100, "fin"), Hello(0, "rst"), None]
    tls_upstream.accept_fault = lambda n: faults[n - 1]
    for fault in faults[:-1]:
        with pytest.raises(OSError) as raised, socket.create_connection(address(tls_upstream), timeout=0.3) as plain:
            tls_client(root).wrap_socket(plain, server_hostname="up.test").close()
        assert isinstance(raised.value, TimeoutError) == ("silent" in (fault, getattr(fault, "how", None)))
    tls_upstream.on("/v2/", Fault(framing="close"))
    assert tls_get(tls_upstream, tls_client(root), "/v2/") == (b"{}", "notify")
    assert [h.error for h in tls_upstream.tls.handshakes].count("left in the middle") == 3


def test_one_version_only_names_and_client_certificates(pki, root, leaf):
    other = root.issue("cdn.test", names=["cdn.test"])
    with Upstream(tls=Tls(leaf, by_name={"cdn.test": other}, only="1.3", client_ca=root)) as up:
        up.on("/v2/", Fault(framing="close"))
        own = tls_client(root)
        own.load_cert_chain(other.chain_file, other.key_file)
        assert tls_get(up, own, "/v2/")[0] == b"{}"
        assert tls_get(up, own, "/v2/", name="cdn.test")[0] == b"{}"
        assert [(h.name, h.client, h.version) for h in up.tls.handshakes] == [
            (name, "cdn.test", "TLSv1.3") for name in ("up.test", "cdn.test")]
        with pytest.raises(ssl.SSLError):
            tls_get(up, tls_client(root, maximum_version=ssl.TLSVersion.TLSv1_2), "/v2/")
        with contextlib.suppress(OSError):  # by TLS 1.3 a client learns it when it reads
            assert tls_get(up, tls_client(root), "/v2/")[0] == b""
        wait_until(lambda: "did not return a certificate" in up.tls.handshakes[-1].error, "the server says why")


def test_a_gate_by_tls_notices_a_peer_that_leaves(tls_upstream, root):
    data = blob("self-test", 300 * KIB)
    gate = tls_upstream.hold(path_of(data), at=1)
    context = tls_client(root, maximum_version=ssl.TLSVersion.TLSv1_2)
    with socket.create_connection(address(tls_upstream)) as plain, context.wrap_socket(plain, server_hostname="up.test") as sock:
        sock.sendall(request_bytes("GET", path_of(data)))
        gate.wait_reached()
        sock.setblocking(False)
        with pytest.raises(ssl.SSLError):  # close_notify is sent; that of the peer does not come
            sock.unwrap()
        seen = tls_upstream.requests("GET")[0]
        assert seen.done.wait(30) and seen.aborted, "close_notify says so"


# ---- certificates ----

def verifies(anchor, cert, *between):
    return subprocess.run(["openssl", "verify", "-CAfile", anchor.file, *[a for c in between for a in ("-untrusted", c.file)], cert.file],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).returncode == 0


def test_chains_are_what_they_are_called(pki, root):
    middle = root.issue("Middle", authority=True)
    other = pki.root("Other Root")
    leaf = middle.issue("a.test", names=["a.test"])
    assert verifies(root, leaf, middle) and not verifies(root, leaf) and not verifies(other, leaf, middle)
    assert verifies(other, leaf, middle, root.cross_sign(other))
    assert not verifies(root, root.issue("old.test", names=["old.test"], start=-10, end=-1))
    assert not verifies(root, root.issue("new.test", names=["new.test"], start=1, end=9))
    assert len(leaf.chain) == 2 and open(leaf.with_chain(leaf, middle, root).chain_file).read().count("BEGIN") == 3


# ---- secrets ----

def test_secrets_are_found_however_they_are_written():
    word = secrets.secret("hub")
    for text in (word, "user:" + word, word + "x"):
        assert secrets.found_in("..." + text + "...") == "hub"
        for user in ("", "u:", "us:", "use:", "user:"):
            assert secrets.found_in(base64.b64encode((user + text).encode()).decode()) == "hub in base64"
    odd = "p/w+%d=é" % time.time_ns()
    secrets.remember(odd)
    assert secrets.found_in(urllib.parse.quote(odd, safe="")) == "a secret percent-encoded"
    assert secrets.found_in(word[:-1]) is None
    with pytest.raises(AssertionError) as raised:
        secrets.assert_none_in("x" + word, "a place")
    assert "a place" in str(raised.value) and word not in str(raised.value)


# ---- registries ----

class Puller:
    """The least that pulls: asks, gets a token when told to, follows redirects without Authorization."""

    def __init__(self, profile, context):
        self.profile, self.context, self.tokens = profile, context, {}

    def raw(self, method, host, target, headers=None, body=None):
        with Conn(address(self.profile), tls=self.context, name=host) as conn:
            return conn.exchange(method, target, dict({"Host": host}, **(headers or {})), body=body)

    def get(self, host, target, method="GET"):
        authorization = self.tokens.get((host, target.split("/blobs/")[0].split("/manifests/")[0]))
        r = self.raw(method, host, target, {"Authorization": authorization} if authorization else None)
        if r.status == 401 and authorization is None:
            self.authorize(host, target, r.header("WWW-Authenticate"))
            return self.get(host, target, method)
        if r.status in (302, 307):
            url = urllib.parse.urlsplit(urllib.parse.urljoin("https://%s%s" % (host, target), r.header("Location")))
            return self.get(url.netloc, url.path + ("?" + url.query if url.query else ""), method)
        return r

    def authorize(self, host, target, challenge):
        key = (host, target.split("/blobs/")[0].split("/manifests/")[0])
        account = self.profile.account
        if challenge.startswith("Basic "):
            self.tokens[key] = basic(account)
            return
        said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = urllib.parse.urlsplit(said["realm"])
        query = urllib.parse.urlencode({k: v for k, v in said.items() if k in ("service", "scope")})
        r = self.raw("GET", realm.netloc, "%s?%s" % (realm.path, query), {"Authorization": basic(account)} if account else None)
        assert r.status == 200, (r, r.body)
        self.tokens[key] = "Bearer " + (r.json().get("token") or r.json().get("access_token"))


@pytest.mark.parametrize("kind", PROFILES, ids=lambda k: k.__name__)
def test_profiles_are_pulled_from_by_whoever_keeps_to_the_protocol(kind, root):
    image = Image("profile", (10 * KIB,))
    with kind(root) as profile:
        puller = Puller(profile, tls_client(root))
        for repo in profile.names:
            profile.add(repo, image, tag="v1")
            assert puller.get(profile.registry if profile.api == "ghcr.io" else profile.api, "/v2/%s/manifests/v1" % repo).body == image.manifest
            for name, data in image.blobs.items():
                assert puller.get(profile.api, "/v2/%s/blobs/%s" % (repo, name)).body == data
        profile.check()
        assert {s.host for s in profile.requests()} == set(profile.answers) - {"authn.nvidia.com"}


def test_profiles_notice_what_must_not_be(root):
    with DockerHub(root) as hub:
        image = hub.add("library/app", Image("profile", (10,)), tag="v1")
        puller = Puller(hub, tls_client(root))
        assert puller.get(hub.api, "/v2/library/app/manifests/v1").good
        target = paths.blob("library/app", image.config)
        token = puller.tokens[(hub.api, "/v2/library/app")]
        r = puller.raw("GET", hub.api, target, {"Authorization": token})
        link = urllib.parse.urlsplit(r.header("Location"))
        hub.check()
        assert puller.raw("HEAD", hub.cdn, link.path + "?" + link.query).status == 403
        assert puller.raw("GET", hub.cdn, link.path + "?" + link.query.replace("%2F", "/").replace("%2B", "+")).status in (200, 403)
        assert puller.raw("GET", hub.cdn, link.path + "?" + link.query, {"Authorization": token}).status == 400
        assert puller.raw("GET", hub.api, target, {"Authorization": token.replace("ey", "ez")}).status == 401
        assert puller.raw("GET", hub.api, "/v2/team/app/manifests/v1", {"Authorization": token}).status == 401, "another scope"
        assert puller.raw("GET", "auth.docker.io", "/token?service=registry.docker.io&scope=x", {"Authorization": basic(("u", "p"))}).status == 401
        puller.raw("GET", hub.api, "/v2/", {"Authorization": basic(("u", "p"))})
        puller.raw("GET", "auth.docker.io", "/token", {"Authorization": token})
        with socket.create_connection(address(hub)) as plain, tls_client(root).wrap_socket(plain, server_hostname=hub.cdn) as sock:
            sock.sendall(request_bytes("GET", "/x", {"Host": hub.api}))
            assert sock.recv(100)
        assert [v.split(":")[0] for v in hub.violations] == [
            "an Authorization that has no business there (Bearer) at " + hub.cdn, "an Authorization that has no business there (Basic) at " + hub.api,
            "an Authorization that has no business there (Bearer) at auth.docker.io", "the handshake named %s at %s" % (hub.cdn, hub.api)]
        with pytest.raises(AssertionError):
            hub.check()


# ---- proxies ----

@pytest.fixture
def through(tls_upstream, root):
    def get(*arguments, name="up.test"):
        return curl("--cacert", root.file, *arguments, "https://%s:%d%s" % (name, tls_upstream.port, path_of(blob("self-test", 300 * KIB))))
    return get


@pytest.mark.parametrize("secure", [False, True])
def test_the_scripted_proxy(tls_upstream, through, root, leaf, secure):
    data, account = blob("self-test", 300 * KIB), ("us er", "p:w")
    with Proxy({"up.test": tls_upstream.port}, account=account, tls=Tls(leaf) if secure else None) as proxy:
        how = ("--proxy-cacert", root.file, "--proxy")
        assert through(*how, proxy.url_for(account)).stdout == data
        assert through(*how, proxy.url_for(account), name="elsewhere.test").returncode != 0
        assert b"407" in through(*how, proxy.url_for(("u", "p"))).stderr
        proxy.on(is_connect, Fault(status=503), nth=1)
        proxy.on(is_connect, Fault(raw=b"SSH-2.0\r\n"), nth=1)
        proxy.on(is_connect, Fault(drop=True), nth=1)
        assert b"503" in through(*how, proxy.url_for(account)).stderr
        assert all(through(*how, proxy.url_for(account)).returncode != 0 for _ in range(2))
        assert through(*how, proxy.url_for(account)).stdout == data
        assert proxy.connects().count("up.test:%d" % tls_upstream.port) == 6


def test_the_scripted_proxy_for_plain_http(upstream, data):
    with Proxy({"plain.test": upstream.port}) as proxy:
        r = curl("--proxy", proxy.url_for(), "http://plain.test%s" % path_of(data))
        assert r.stdout == data and upstream.requests()[0].headers["host"] == "plain.test"
        assert proxy.requests("GET")[0].target.startswith("http://plain.test/")


def test_tinyproxy_works_here(tls_upstream, through, tmp_path):
    with TinyProxy(tmp_path / "tinyproxy", account=("user", "word")) as proxy:
        r = through("--proxy", proxy.url_for(("user", "word")), name="localhost")
        assert r.stdout == blob("self-test", 300 * KIB), r.stderr
        assert through("--proxy", proxy.url_for(), name="localhost").returncode != 0
        assert proxy.connects() == ["localhost:%d" % tls_upstream.port] * 2


def test_names_that_dns_does_not_have(tmp_path, monkeypatch):
    faults = Faults(tmp_path / "faults", monkeypatch)
    faults.names({"two.test": ["::1", "127.0.0.3"], "none.test": [], "held.test": ["wait", "127.0.0.4"]})

    def look_up(name):
        return subprocess.run(["getent", "ahosts", name], stdout=subprocess.PIPE, text=True, timeout=30).stdout

    assert [line.split()[0] for line in look_up("two.test").splitlines() if "STREAM" in line] == ["::1", "127.0.0.3"]
    assert look_up("none.test") == "" and "127.0.0.1" in look_up("localhost")
    faults.hold("names")
    held = subprocess.Popen(["getent", "ahosts", "held.test"], stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        held.wait(0.2)
    faults.release("names")
    assert "127.0.0.4" in held.communicate(timeout=30)[0]


def test_nginx_works_here(root, leaf, tmp_path):
    nginx = Nginx(tmp_path / "nginx", leaf)
    image = nginx.add("lib/app", Image("static", (100 * KIB,)), "v1")
    with nginx:
        url = nginx.url + "/v2/lib/app/manifests/v1"
        assert curl("--cacert", root.file, url).stdout == image.manifest
        assert image.media_type.encode() in curl("--cacert", root.file, "-D", "-", url).stdout
        assert curl("--cacert", root.file, "--tlsv1.3", url).returncode != 0
        assert len(nginx.requests()) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_lost_syns(host):
    with port_that_drops_syns(host) as port, pytest.raises(TimeoutError):
        socket.create_connection((host, port), timeout=0.3)
