"""An upstream that does harm on purpose or by accident: wrong bytes where they are checked last, answers that prove nothing, and ways to
keep a client or larder busy for ever."""

import json
import os
import time

import pytest

from lib import paths
from lib.client import Conn, Fetch
from lib.images import KIB, MIB, Image, blob
from lib.larder import REGISTRY, cache_status, wait_until
from lib.upstream import Fault, Gate, Upstream

APP, OTHER = "t/app", "t/other"
PAGE = b"<html><body>Please sign in</body></html>"


class Thing:
    def __init__(self, upstream, size, name="hostile"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def part(first, last):
    return {"Range": "bytes=%d-%d" % (first, last)}


# ---- pieces ahead of the front: nobody has verified them ----

def test_wrong_bytes_ahead_of_the_front_do_not_reach_who_reads_the_whole(larder, upstream):
    """A piece that was fetched for a range is wrong. Who reads from the start gets none of it: the front goes over it."""
    thing = Thing(upstream, 20 * MIB)
    first, last = 6 * MIB, 7 * MIB - 1
    before, at_piece = Gate(), Gate()
    upstream.on(lambda s: s.path == thing.theirs and s.range is None, Fault(hold={MIB: before, first: at_piece}))
    upstream.on(lambda s: s.path == thing.theirs, Fault(flip=first + 2000))
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(MIB)
    r = larder.get(thing.ours, part(first, last))
    assert r.body != thing.data[first:last + 1], "the piece came from a request of its own"
    before.release()
    whole.wait_got(first)
    at_piece.wait_reached()
    assert larder.get(thing.ours, part(0, 9)).good
    assert whole.got == first, "nothing of the piece before the front is there"
    at_piece.release()
    r = whole.result()
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("length", [1 << 50, 1 << 62, (1 << 63) - 1])
def test_nothing_is_written_ahead_of_what_does_not_fit(larder, upstream, length):
    """A length that no disk has, and a client that wants a piece from behind what a file can have: the store is well all the same."""
    thing = Thing(upstream, MIB)
    first = length // 2 & ~0xffff
    raw = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 65536\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (first, first + 65535, length)
    upstream.on(lambda s: s.path == thing.theirs and s.range is None, Fault(length=length, silent=0))
    upstream.on(lambda s: s.path == thing.theirs and s.range is not None, Fault(raw=raw + b"x" * 65536))
    f = Fetch(larder.address, thing.ours, part(first, first + 99))
    wait_until(lambda: [s for s in upstream.requests("GET") if s.range is not None], "the piece has been asked for")
    wait_until(lambda: larder.metric("upstream_requests_active") <= 1, "it has come")
    assert larder.metric("upstream_side_fetches_total") == 1
    assert larder.metric("store_fault") == 0 and larder.metric("store_write_failures_total") == 0
    assert all(os.stat(os.path.join(larder.store, "partial", name)).st_size == 0 for name in larder.partials())
    f.leave()
    assert larder.admin("/readyz")[:2] == (200, "ready\n")


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 65536, (1 << 64) - 1, 1 << 64])
def test_a_length_that_no_file_can_have_is_no_answer(larder, upstream, length):
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(length=length, silent=0))
    for headers in ({}, part(length - 200, length - 100)):
        r = larder.get(thing.ours, headers)
        assert r.status == 502 and r.error_code == "UNAVAILABLE"
    larder.wait_idle()
    assert larder.metric("store_fault") == 0 and not larder.stored(thing.digest)


@pytest.mark.parametrize("asked", ["bytes=0-99,100-", "bytes=0-,0-0", "bytes=100-,0-99", "bytes=0-600000,500000-1048575"])
def test_ranges_that_make_the_whole_are_no_way_around_the_digest(larder, upstream, asked):
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(flip=-1))
    r = larder.get(thing.ours, {"Range": asked})
    assert r.status == 206 and r.end in ("short", "reset"), r
    larder.wait_idle()
    assert not larder.stored(thing.digest)


def settled(upstream):
    """Has nothing been asked for in a while?"""
    before = upstream.count()
    time.sleep(0.3)
    return upstream.count() == before


def test_more_pieces_ahead_than_larder_remembers(start_larder, upstream):
    """64 pieces are remembered. Who wants another waits for the front; nothing is fetched over and over for him."""
    larder = start_larder(upstream, timeouts={"connect": "5s", "first_byte": "20s", "idle": "60s"})
    thing = Thing(upstream, 64 * MIB)
    gate = upstream.hold(lambda s: s.path == thing.theirs and s.range is None)
    whole = Fetch(larder.address, thing.ours)
    gate.wait_reached()
    starts = [8 * MIB + n * 128 * KIB for n in range(72)]
    for at in starts[:64]:
        r = larder.get(thing.ours, part(at, at + 9))
        assert r.good and r.body == thing.data[at:at + 10]
    more = [Fetch(larder.address, thing.ours, part(at, at + 9)) for at in starts[64:]]
    wait_until(lambda: upstream.count() >= 66, "another piece has been asked for")
    larder.wait_all_read(1 + len(more))
    wait_until(lambda: settled(upstream), "nothing more is asked for while the front stands still")
    assert upstream.count() <= 2 * len(starts)
    gate.release()
    for at, f in zip(starts[64:], more):
        assert f.result().good and f.response.body == thing.data[at:at + 10]
    r = whole.result()
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)


def test_an_earlier_fill_left_more_than_the_blob_has(larder, upstream):
    """And upstream ignores Range, so nothing says so before the length does."""
    thing = Thing(upstream, MIB)
    larder.stop()
    with open(larder.partial_path(thing.digest), "wb") as file:
        file.write(thing.data + b"x" * 1000)
    larder.start()
    upstream.on(thing.theirs, Fault(range="ignore"))
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)
    assert larder.partials() == []


# ---- proofs that a repository has what another one brought here ----

@pytest.fixture
def secret(larder, upstream):
    """A blob that came here through app; other does not have it."""
    thing = Thing(upstream, 100000, "secret")
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    upstream.repo("other")
    return thing


def assert_nothing_told(larder, target, data):
    for method in ("GET", "HEAD", "GET"):
        r = larder.request(method, target)
        assert r.status >= 400 and data not in r.body, r


@pytest.mark.parametrize("get", [Fault(status=416), Fault(status=416, headers={"Content-Range": "bytes */100000"})],
                         ids=["plain", "with a length"])
def test_416_does_not_prove_that_a_repository_has_a_blob(larder, upstream, secret, get):
    path = paths.blob("other", secret.digest)
    upstream.on(path, Fault(status=405), method="HEAD")
    upstream.on(path, get, method="GET")
    assert_nothing_told(larder, paths.blob(OTHER, secret.digest), secret.data)


@pytest.mark.parametrize("repo", ["app", "other"])
def test_the_empty_blob_has_no_first_byte_and_416_is_fine(larder, upstream, repo):
    for name in ("app", "other"):
        empty = upstream.add_blob(name, b"")
    assert larder.get(paths.blob(APP, empty)).good
    larder.wait_stored(empty)
    upstream.on(paths.blob(repo, empty), Fault(status=405), method="HEAD")
    upstream.on(paths.blob(repo, empty), Fault(status=416), method="GET")
    r = larder.get(paths.blob("t/" + repo, empty))
    assert r.good and r.body == b""


@pytest.mark.parametrize("head", [None, 405])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_sign_in_page_does_not_prove_that_a_repository_has_a_blob(larder, upstream, secret, head, framing):
    path = paths.blob("other", secret.digest)
    if head:
        upstream.on(path, Fault(status=head), method="HEAD")
    upstream.on(path, Fault(status=200, body=PAGE, framing=framing, headers={"Content-Type": "text/html", "Docker-Content-Digest": None}))
    assert_nothing_told(larder, paths.blob(OTHER, secret.digest), secret.data)


def test_a_sign_in_page_does_not_prove_that_a_repository_has_a_manifest(larder, upstream):
    image = upstream.add("app", Image("secret", (10,)), tag="v1")
    assert larder.get(paths.manifest(APP, image.digest)).good
    larder.wait_stored(image.digest)
    upstream.repo("other")
    upstream.on(paths.manifest("other", image.digest), Fault(status=200, body=PAGE, headers={"Content-Type": "text/html"}))
    assert_nothing_told(larder, paths.manifest(OTHER, image.digest), image.manifest)


@pytest.mark.parametrize("said", ["text/html; charset=utf-8", "application/octet-stream", "text/plain", None])
def test_the_type_in_a_head_does_not_spoil_a_manifest(larder, upstream, said):
    """Proxies answer HEAD with their own idea of a type. The manifest's own is served, in either repository."""
    image = upstream.add("app", Image("typed", (10,)), tag="v1")
    upstream.add("other", image)
    assert larder.get(paths.manifest(APP, image.digest)).good
    larder.wait_stored(image.digest)
    upstream.on(paths.manifest("other", image.digest), Fault(headers={"Content-Type": said}), method="HEAD")
    for target in (paths.manifest(OTHER, image.digest), paths.manifest(OTHER, image.digest), paths.manifest(APP, image.digest)):
        for method in ("GET", "HEAD"):
            r = larder.request(method, target)
            assert r.status == 200 and r.header("Content-Type") == image.media_type


# ---- limits, refusals ----

def test_an_endpoint_that_limits_does_not_stop_the_other(start_larder, upstream):
    with Upstream() as limited:
        limited.on(lambda s: True, Fault(status=429, headers={"Retry-After": "60"}))
        larder = start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": [limited.url, upstream.url]}])
        for n in range(3):
            thing = Thing(upstream, 10 * KIB, "limited-%d" % n)
            r = larder.get(thing.ours)
            assert r.good and r.body == thing.data
        image = upstream.add("app", Image("limited", (10,)), tag="v1")
        assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
        assert limited.count() >= 1


@pytest.mark.parametrize("known", [True, False])
def test_the_time_of_a_remembered_429_grows_shorter(start_larder, upstream, known):
    """What is told is what is left, at any moment, and not what upstream said some time ago; also for a tag that is here and too old."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s", "stale_if_error": "0s"})
    upstream.add("app", Image("limited", (10,)), tag="v1")
    if known:
        assert larder.get(paths.manifest(APP, "v1")).good
        larder.wait_idle()
        upstream.forget()
    upstream.on(lambda s: True, Fault(status=429, headers={"Retry-After": "300"}))
    told_first = None
    while told_first is None or time.monotonic() - told_first < 6.5:
        passed = time.monotonic() - told_first if told_first else 0  # at least so long ago
        r = larder.get(paths.manifest(APP, "v1"))
        assert r.status == 429
        assert 1 <= int(r.header("Retry-After")) <= 301 - passed
        told_first = told_first or time.monotonic()
        time.sleep(0.25)
    assert upstream.count() <= 1


def test_501_to_head_is_asked_again_with_get(start_larder, upstream):
    """A server without HEAD says 501, which is no failure of upstream: the tag is fresh afterwards, not stale."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"})
    image = upstream.add("app", Image("headless", (10,)), tag="v1")
    upstream.on(lambda s: True, Fault(status=501), method="HEAD")
    for _ in range(3):
        r = larder.get(paths.manifest(APP, "v1"))
        assert r.body == image.manifest and "detail" not in cache_status(r)[1], r.header("Cache-Status")
    new = upstream.add("app", Image("headless-new", (20,)), tag="v1")
    assert larder.get(paths.manifest(APP, "v1")).body == new.manifest


def test_the_registry_is_not_told_by_an_ns_that_does_not_count(start_larder, upstream):
    larder = start_larder(upstream, mirror={"enabled": False})
    image = upstream.add("app", Image("mirror", (10,)), tag="v1")
    r = larder.get(paths.manifest(APP, "v1") + "?ns=elsewhere.example")
    assert r.body == image.manifest
    assert r.header("OCI-Namespace") is None and REGISTRY not in r.raw_head.decode("latin-1")


# ---- no end in sight ----

def test_resumes_that_bring_a_byte_each_come_to_an_end(larder, upstream):
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(cut_at=100 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(cut_at=1))
    r = larder.get(thing.ours)
    assert r.status == 200 and r.end in ("short", "reset"), r
    assert upstream.count() <= 10
    larder.wait_idle()
    upstream.clear()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data


@pytest.mark.parametrize("what", ["manifest", "blob"])
def test_slow_redirects_have_one_budget_together(start_larder, upstream, what):
    """Three seconds, and each redirect takes half of them: there is no time for a fourth, however fast the machine is."""
    larder = start_larder(upstream, timeouts={"connect": "1s", "first_byte": "2s", "idle": "2s"})
    thing = Thing(upstream, 1000)
    upstream.add("app", Image("slow", (10,)), tag="v1")
    path = paths.manifest("app", "v1") if what == "manifest" else thing.theirs
    upstream.on(path, Fault(redirect=path + "?again=1", delay={"head": 1.5}))
    r = larder.get(path.replace("/v2/app", "/v2/" + APP))
    assert r.status in (502, 504) and r.error_code == "UNAVAILABLE"
    assert 1 <= upstream.count("GET", path) <= 3


@pytest.mark.parametrize("what", ["manifest", "blob", "tags"])
@pytest.mark.parametrize("location", [None, "", "#part"], ids=["absent", "empty", "a fragment"])
def test_redirects_that_say_nothing(larder, upstream, what, location):
    image = upstream.add("app", Image("redirected", (10,)), tag="v1")
    path = {"manifest": paths.manifest("app", "v1"), "blob": paths.blob("app", image.config), "tags": paths.tags("app")}[what]
    upstream.on(path, Fault(status=307, body=b"", headers={"Location": location}))
    r = larder.get(path.replace("/v2/app", "/v2/" + APP))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"
    assert upstream.count() <= 10
    upstream.clear()
    assert larder.get(paths.blob(APP, image.layers[0])).good


# ---- manifests that break ----

@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("by_tag", [True, False])
def test_a_manifest_that_breaks_once_is_asked_for_again(larder, upstream, how, by_tag):
    image = upstream.add("app", Image("breaks", (10,)), tag="v1")
    reference = "v1" if by_tag else image.digest
    upstream.on(paths.manifest("app", reference), Fault(cut_at=100, cut=how), method="GET", nth=1)
    fetches = [Fetch(larder.address, paths.manifest(APP, reference)) for _ in range(3)]
    for f in fetches:
        assert f.result().good and f.response.body == image.manifest
    assert upstream.count("GET") == 2


def test_a_manifest_that_breaks_every_time_is_an_error(larder, upstream):
    upstream.add("app", Image("breaks", (10,)), tag="v1")
    upstream.on(paths.manifest("app", "v1"), Fault(cut_at=100), method="GET")
    r = larder.get(paths.manifest(APP, "v1"))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"
    assert upstream.count("GET") == 2
    assert larder.stored_objects() == []


@pytest.mark.parametrize("kind", ["list", "blob", "long list"])
def test_what_comes_in_pieces_of_one_byte_holds_nobody_up(kind, upstream, start_larder):
    """Each costs far more than it is long, and they come faster than they can be looked at. So does a list that is long."""
    image = upstream.add("app", Image("pieces", (10,)), tag="v1")
    if kind != "blob":
        target = paths.tags(APP)
        data = json.dumps({"name": APP, "tags": ["v%d" % n for n in range(300_000 if kind == "list" else 1_300_000)]}).encode()
    else:
        thing = Thing(upstream, 3 * MIB)
        target, data = thing.ours, thing.data
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [data] if kind == "long list" else [b"%c" % c for c in data]
    raw += b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    larder = start_larder(upstream, workers=1)
    assert larder.get(paths.manifest(APP, "v1")).good
    upstream.on(lambda s: s.path in (paths.tags("app"), target.replace("/t/", "/")), Fault(raw=raw))
    hits, worst = 0, 0
    with Conn(larder.address) as conn:
        fetch = Fetch(larder.address, target)
        while not (fetch.response.status if kind != "blob" else fetch.got >= len(data) * 9 // 10):
            began = time.monotonic()
            assert conn.exchange("GET", paths.manifest(APP, image.digest)).status == 200
            hits, worst = hits + 1, max(worst, time.monotonic() - began)
    assert fetch.result().body == data
    assert hits > 20, "%d hits meanwhile, of which the slowest took %.3f s" % (hits, worst)
