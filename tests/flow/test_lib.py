"""The tools of these tests, tested against each other: the scripted registry with the raw client, and with a real one.
A fault that does not happen as ordered would make the tests of larder pass for nothing."""

import re
import subprocess

import pytest

from lib.client import Conn, Fetch, request, request_bytes
from lib.images import DOCKER_LIST, KIB, MIB, Image, Index, blob, digest
from lib.larder import yaml_text
from lib.registry import DockerRegistry
from lib.upstream import Fault

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
