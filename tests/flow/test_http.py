"""HTTP as clients speak it, well and badly."""

import random
import socket

import pytest

from lib import paths
from lib.client import Conn, request_bytes
from lib.images import KIB, MIB, Image, blob
from lib.larder import wait_until
from lib.upstream import Fault

APP = "t/app"


@pytest.fixture
def image(upstream, larder):
    image = upstream.add("app", Image("http", (200 * KIB, 10)), tag="v1")
    assert larder.get(paths.manifest(APP, "v1")).good
    for name in image.layers:
        assert larder.get(paths.blob(APP, name)).good
    return image


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 hello\r\n\r\n",
    "no version": b"GET /v2/\r\n\r\n",
    "HTTP/0.9": b"GET /v2/\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 2.0": b"GET /v2/ HTTP/2.0\r\nHost: x\r\n\r\n",
    "version 1.9": b"GET /v2/ HTTP/1.9\r\nHost: x\r\n\r\n",
    "version x": b"GET /v2/ HTTP/x\r\nHost: x\r\n\r\n",
    "blank in the target": b"GET /v2/ x HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /v2/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "bad host": b"GET /v2/ HTTP/1.1\r\nHost: a b/c\r\n\r\n",
    "no colon": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "blank before colon": b"GET /v2/ HTTP/1.1\r\nHost : x\r\n\r\n",
    "empty name": b"GET /v2/ HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "NUL in a value": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
    "bare CR": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
    "bare CR after an empty value": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA:\rContent-Length: 5\r\n\r\nhello",
    "CR at the end": b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\n\rX",
    "bare LF": b"GET /v2/ HTTP/1.1\nHost: x\n\n",
    "length and chunked": b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"POST /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "bad length": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\na",
    "negative length": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "huge length": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "another coding": b"POST /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "coding after chunked": b"POST /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "bad chunk": b"POST /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_requests_get_400_and_the_connection_ends(larder, what):
    """What follows on the connection is not read as a request."""
    with Conn(larder.address) as conn:
        conn.send(MALFORMED[what] + request_bytes("GET", "/v2/smuggled/manifests/v1"))
        r = conn.read_response()
        larder.check_answer(r)
        assert r.status in (400, 501, 505) or what in ("bad chunk", "length and chunked", "chunked and length") and r.status == 405, r
        assert r.header("Connection") == "close"
        assert conn.read_response().status is None, "one answer, then the end"
    assert larder.get("/v2/").status == 200
    larder.stop()
    assert not larder.logged(text="smuggled")


@pytest.mark.parametrize("method", ["PROPFIND", "TRACE", "CONNECT", "BREW", "get"])
def test_other_methods(larder, method):
    with Conn(larder.address) as conn:
        conn.send_request(method, "/v2/")
        r = conn.read_response()
        larder.check_answer(r)
        assert r.status in (400, 405, 501)


def test_every_split_of_a_request(larder, image):
    """A head may come in any pieces."""
    data = request_bytes("GET", paths.manifest(APP, "v1"), {"Host": "a", "X-Long": "y" * 40})
    with Conn(larder.address) as conn:
        for cut in range(1, len(data)):
            conn.send(data[:cut])
            conn.send(data[cut:])
            assert conn.read_response().body == image.manifest


def test_blank_lines_between_requests_are_tolerated(larder):
    with Conn(larder.address) as conn:
        for _ in range(3):
            conn.send(b"\r\n" + request_bytes("GET", "/v2/"))
            assert conn.read_response().status == 200


def test_http_1_0(larder, image):
    layer = image.layers[0]
    with Conn(larder.address) as conn:
        conn.send(b"GET %s HTTP/1.0\r\n\r\n" % paths.blob(APP, layer).encode())
        r = conn.read_response()
        assert r.good and r.body == image.blobs[layer] and r.framing == "length"
        assert conn.closed_by_peer(), "without keep-alive the connection ends"
    with Conn(larder.address) as conn:
        for _ in range(2):
            r = conn.exchange("GET", paths.blob(APP, layer), {"Connection": "keep-alive"}, "HTTP/1.0")
            assert r.good and r.body == image.blobs[layer]
            if r.header("Connection") != "keep-alive":
                break


def test_http_1_0_never_gets_chunks(larder, upstream):
    data = blob("no length", 100 * KIB)
    name = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", name), Fault(framing="chunked"))
    r = larder.get(paths.blob(APP, name), version="HTTP/1.0")
    assert r.good and r.framing in ("length", "close") and r.body == data


def test_connection_close_is_obeyed(larder, image):
    for target in ("/v2/", paths.manifest(APP, "v1"), paths.blob(APP, image.layers[0]), "/v2/nowhere/manifests/v1"):
        with Conn(larder.address) as conn:
            r = conn.exchange("GET", target, {"Connection": "close"})
            assert r.clean and r.header("Connection") == "close"
            assert conn.closed_by_peer()


def test_a_connection_is_kept_through_every_kind_of_answer(larder, image, upstream):
    cold = upstream.add_blob("app", blob("cold", 50 * KIB))
    with Conn(larder.address) as conn:
        for _ in range(3):
            assert conn.exchange("GET", "/v2/").body == b"{}"
            assert conn.exchange("HEAD", paths.blob(APP, image.layers[0])).status == 200
            assert conn.exchange("GET", paths.blob(APP, image.layers[0])).body == image.blobs[image.layers[0]]
            assert conn.exchange("GET", paths.blob(APP, image.layers[0]), {"Range": "bytes=5-9"}).body == \
                image.blobs[image.layers[0]][5:10]
            assert conn.exchange("GET", paths.blob(APP, image.layers[0]), {"Range": "bytes=999999999-"}).status == 416
            assert conn.exchange("GET", paths.manifest(APP, "v1"), {"If-None-Match": '"%s"' % image.digest}).status == 304
            assert conn.exchange("GET", "/v2/nowhere/manifests/v1").status == 404
            assert conn.exchange("GET", paths.blob(APP, "sha256:x")).status == 400
            assert conn.exchange("DELETE", paths.manifest(APP, "v1")).status == 405
            assert conn.exchange("GET", paths.manifest(APP, "none")).status == 404
            assert conn.exchange("GET", paths.blob(APP, cold)).good
    assert larder.metric("client_connections_accepted_total") <= 5


def test_pipelined_requests_are_answered_in_order(larder, image, upstream):
    cold = upstream.add_blob("app", blob("cold", 100 * KIB))
    asked = [("GET", "/v2/"), ("GET", paths.blob(APP, image.layers[0])), ("HEAD", paths.manifest(APP, "v1")), ("GET", paths.blob(APP, cold)),
             ("GET", "/v2/nowhere/manifests/v1"), ("GET", paths.manifest(APP, "v1")), ("GET", paths.blob(APP, image.layers[1]))] * 3
    with Conn(larder.address) as conn:
        conn.send(b"".join(request_bytes(*a) for a in asked))
        answers = [conn.read_response(method) for method, _ in asked]
        conn.send(request_bytes("GET", "/v2/"))
        assert conn.read_response().status == 200
    assert [r.status for r in answers] == [200, 200, 200, 200, 404, 200, 200] * 3
    assert answers[1].body == image.blobs[image.layers[0]] and answers[5].body == image.manifest
    assert answers[6].body == image.blobs[image.layers[1]] and answers[2].body == b""


def test_hundreds_of_pipelined_requests_are_bounded_not_broken(larder, image):
    n = 500
    with Conn(larder.address) as conn:
        conn.send(request_bytes("GET", paths.manifest(APP, "v1")) * n)
        for _ in range(n):
            assert conn.read_response().body == image.manifest


def test_a_client_that_closed_its_sending_side_still_gets_its_answer(larder, image, upstream):
    data = blob("half", 300 * KIB)
    name = upstream.add_blob("app", data)
    gate = upstream.hold(paths.blob("app", name), at=1000)
    for target, expected in ((paths.manifest(APP, "v1"), image.manifest), (paths.blob(APP, image.layers[0]), image.blobs[image.layers[0]])):
        with Conn(larder.address) as conn:
            conn.send_request("GET", target)
            conn.finish_sending()
            assert conn.read_response().body == expected
            assert conn.closed_by_peer()
    with Conn(larder.address) as conn:
        conn.send_request("GET", paths.blob(APP, name))
        conn.finish_sending()
        gate.wait_reached()
        gate.release()
        assert conn.read_response().body == data


def test_half_a_request_and_then_the_end(larder):
    for part in (b"", b"G", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"):
        with Conn(larder.address) as conn:
            conn.send(part)
            conn.finish_sending()
            r = conn.read_response()
            assert r.status in (None, 400)
            assert conn.closed_by_peer()
    wait_until(lambda: larder.metric("client_connections_open") == 0, "nothing is left open")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_get_is_read_past(larder, image, chunked):
    """It means nothing; what counts is that its bytes are not taken for the next request."""
    body = request_bytes("GET", "/v2/smuggled/manifests/v1")
    headers = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    with Conn(larder.address) as conn:
        conn.send(request_bytes("GET", paths.manifest(APP, "v1"), headers) + framed)
        r = conn.read_response()
        if r.status in (400, 413):
            assert r.header("Connection") == "close" and conn.read_response().status is None
        else:
            assert r.body == image.manifest
            if r.header("Connection") != "close":
                assert conn.exchange("GET", "/v2/").body == b"{}"
    larder.stop()
    assert not larder.logged(text="smuggled")


def test_the_body_of_a_push_is_not_waited_for(larder):
    """A client that asks before sending, and one that sends a lot, both get their 405."""
    with Conn(larder.address) as conn:
        conn.send_request("PUT", paths.manifest(APP, "v1"), {"Expect": "100-continue", "Content-Length": "1000000000"})
        assert conn.read_response("PUT").status == 405
    with Conn(larder.address) as conn:
        conn.send_request("PUT", paths.manifest(APP, "v1"), {"Content-Length": str(100 * MIB)})
        for _ in range(8):
            conn.send(b"x" * 64 * KIB)
        assert conn.read_response("PUT").status == 405
        with pytest.raises(OSError):
            for _ in range(100):
                conn.send(b"x" * MIB)  # larder has had enough
    assert larder.get("/v2/").status == 200


def test_expect_100_continue_on_a_get(larder, image):
    r = larder.get(paths.manifest(APP, "v1"), {"Expect": "100-continue"})
    assert r.status in (200, 417)


@pytest.mark.parametrize("size,status", [(30, 200), (33, 431), (64, 431), (1024, 431)])
def test_huge_heads_are_refused(larder, size, status):
    with Conn(larder.address) as conn:
        try:
            conn.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"x" * size * KIB + b"\r\n\r\n")
        except OSError:
            pass
        r = conn.read_response()
        assert r.status == status or size > 64 and r.status is None, r
    assert larder.get("/v2/").status == 200


def test_very_many_fields_are_refused(larder):
    with Conn(larder.address) as conn:
        try:
            conn.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100000 + b"\r\n")
        except OSError:
            pass
        assert conn.read_response().status in (400, 431, None)
    assert larder.get("/v2/").status == 200


def test_a_head_of_a_usual_size_is_fine(larder, image):
    """Tokens of registries are kilobytes long."""
    assert larder.get(paths.manifest(APP, "v1"), {"Authorization": "Bearer " + "t" * 6000}).good


def test_slow_heads_are_ended(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"header_timeout": "500ms", "idle_timeout": "1h"})
    slow = [Conn(larder.address) for _ in range(20)]
    for n, conn in enumerate(slow):
        conn.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: y"[:5 + n])
    for conn in slow:
        r = conn.read_response()
        assert r.status in (408, None)
        if r.status:
            assert r.header("Connection") == "close"
        assert conn.closed_by_peer()
        conn.close()
    assert larder.metric("client_timeouts_total") == 20
    wait_until(lambda: larder.metric("client_connections_open") == 0, "nothing is left open")


def test_a_head_in_drops_is_ended(start_larder, upstream):
    """One that sends something all the time is no better: the limit is for the whole head."""
    larder = start_larder(upstream, client_limits={"header_timeout": "1s"})
    with Conn(larder.address) as conn:
        conn.send(b"GET /v2/ HTTP/1.1\r\nX: ")
        with pytest.raises(OSError):
            for _ in range(600):
                conn.send(b"y")
                if conn.closed_by_peer(0.1):
                    raise OSError("ended")


def test_idle_connections_are_ended(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"idle_timeout": "500ms", "header_timeout": "1h"})
    upstream.add("app", Image("idle", (10,)), tag="v1")
    never_used, used = Conn(larder.address), Conn(larder.address)
    assert used.exchange("GET", paths.manifest(APP, "v1")).good
    assert used.closed_by_peer() and never_used.closed_by_peer()
    wait_until(lambda: larder.metric("client_connections_open") == 0, "nothing is left open")


def test_many_idle_connections_are_held(larder, image):
    conns = [Conn(larder.address) for _ in range(800)]
    for conn in conns:
        conn.send_request("GET", "/v2/")
    for conn in conns:
        assert conn.read_response().status == 200
    assert larder.metric("client_connections_open") == len(conns)
    assert larder.get(paths.manifest(APP, "v1")).good
    for conn in conns:
        assert conn.exchange("GET", "/v2/").status == 200
        conn.close()
    wait_until(lambda: larder.metric("client_connections_open") == 0, "all are gone")


def test_the_number_of_connections_is_limited(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"max_connections": 10}, workers=1)
    conns = [Conn(larder.address, timeout=5) for _ in range(30)]
    served = refused = 0
    for conn in conns:
        try:
            r = conn.exchange("GET", "/v2/")
        except OSError:
            refused += 1
            continue
        served += r.status == 200
        refused += r.status in (None, 503)
    assert served <= 10 and served + refused == 30 and served >= 1
    for conn in conns:
        conn.close()
    wait_until(lambda: larder.metric("client_connections_open") == 0, "all are gone")
    assert larder.get("/v2/").status == 200


def test_connections_reset_at_any_moment(upstream, start_larder):
    """A reset is noticed when it comes, not when a timeout ends."""
    larder = start_larder(upstream, client_limits={"header_timeout": "1h", "idle_timeout": "1h", "send_timeout": "1h"})
    image = upstream.add("app", Image("reset", (200 * KIB,)), tag="v1")
    dice = random.Random(3)
    for _ in range(150):
        conn = Conn(larder.address)
        data = request_bytes("GET", dice.choice([paths.blob(APP, image.layers[0]), paths.manifest(APP, "v1"), "/v2/"]))
        conn.send(data[:dice.choice([0, 1, 20, len(data), len(data)])])
        if dice.random() < 0.5:
            conn.sock.settimeout(0.01)
            try:
                conn.sock.recv(dice.choice([1, 1000, 100000]))
            except socket.timeout:
                pass
        conn.reset()
    wait_until(lambda: larder.metric("client_connections_open") == 0, "nothing is left open")
    assert larder.get(paths.blob(APP, image.layers[0])).good
