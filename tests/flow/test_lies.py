"""Upstream lies: right lengths with wrong bytes, wrong digests, wrong types, statuses that mean nothing. Nothing of it is
stored, nothing of it is a complete answer, and the next request asks again."""

import gzip
import os

import pytest

from lib import images, paths
from lib.client import Conn, Fetch
from lib.images import KIB, Image, blob, digest
from lib.larder import REGISTRY, cache_status, wait_until
from lib.upstream import Fault, Gate

APP = "t/app"
SIZE = 300 * KIB
PAGE = b"<html><body>Please sign in to this network</body></html>"


class Thing:
    def __init__(self, upstream, size=SIZE, name="lies"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


@pytest.fixture
def thing(upstream):
    return Thing(upstream)


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("lies", (10,)), tag="v1")


def assert_not_whole(r):
    if r.status == 200:
        assert r.end in ("short", "reset"), r
    else:
        assert r.status == 502 and r.error_code == "UNAVAILABLE", r


@pytest.mark.parametrize("fault,computed", [
    (Fault(flip=0), None), (Fault(flip=SIZE // 2), None), (Fault(flip=-1), None),
    (Fault(body=(PAGE * SIZE)[:SIZE]), digest((PAGE * SIZE)[:SIZE])),
    (Fault(body=blob("another", SIZE)), digest(blob("another", SIZE))), (Fault(body=b"\0" * SIZE), digest(b"\0" * SIZE))],
    ids=["first bit", "a bit inside", "last bit", "an HTML page", "another blob", "zeros"])
def test_right_length_wrong_bytes(larder, upstream, thing, fault, computed):
    upstream.on(thing.theirs, fault, times=1)
    fetches = [Fetch(larder.address, thing.ours) for _ in range(3)]
    wrong = [f for f in fetches if not f.result().good]
    for f in fetches:
        if f not in wrong:  # came after the failure and asked again
            assert f.response.body == thing.data
    assert wrong, "at least the first got nothing whole"
    for f in wrong:
        assert_not_whole(f.response)
    assert larder.metric("digest_mismatches_total") == 1
    # The log is written a moment later, by a thread of its own.
    wait_until(lambda: [r for r in larder.logged(text=thing.digest) if r["level"] in ("warn", "error")],
               "a log line names the digest that was asked for")
    if computed:
        wait_until(lambda: larder.logged(text=computed.split(":")[1]), "and one names the digest that came")
    larder.wait_idle()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data, "the next request asks again"
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("left", [False, True], ids=["in one transfer", "left over"])
def test_what_is_longer_than_the_blob_does_not_stand_in_its_way(larder, upstream, thing, framing, left):
    """A page was cut off behind the place where the blob ends, and an upstream that says neither lengths nor ranges is right from then on."""
    fault = Fault(framing=framing, range="ignore", body=blob("page", 2 * SIZE), hold={SIZE + 100 * KIB: Gate()} if left else {},
                  cut_at=SIZE + 100 * KIB)
    upstream.on(thing.theirs, fault, nth=1)
    upstream.on(thing.theirs, Fault(framing=framing, range="ignore"))
    f = Fetch(larder.address, thing.ours)
    if left:
        f.wait_got(SIZE)
        larder.kill()
        assert not f.result().good
        larder.start()
        f = Fetch(larder.address, thing.ours)
    assert not f.result().good
    larder.wait_idle()
    assert upstream.count() <= 4, "it is no use to ask again and again"
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)


def test_one_answer_that_is_cut_off_does_not_cost_what_is_there(larder, upstream, thing):
    """It says neither length nor ranges, so that its end could be the blob's: only another one with the same end shows that."""
    gate = Gate()
    upstream.on(thing.theirs, Fault(framing="close", range="ignore", hold={200 * KIB: gate}, cut_at=200 * KIB, cut="rst"), nth=1)
    upstream.on(thing.theirs, Fault(framing="close", range="ignore", cut_at=100 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(status=404))
    f = Fetch(larder.address, thing.ours)
    f.wait_got(160 * KIB)  # all but the tail
    gate.release()
    assert not f.result().good
    larder.wait_idle()
    had = os.path.getsize(larder.partial_path(thing.digest))
    assert had >= 160 * KIB
    upstream.clear()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert upstream.requests()[-1].range == "bytes=%d-" % had


@pytest.mark.parametrize("size", [1, 1000, 32 * KIB, 32 * KIB + 1])
def test_a_small_blob_with_wrong_bytes_is_an_error_or_short(larder, upstream, size):
    """All of it lies in the tail that is withheld, so not a byte of it goes out."""
    thing = Thing(upstream, size, "small")
    upstream.on(thing.theirs, Fault(flip=-1))
    r = larder.get(thing.ours)
    assert_not_whole(r)
    assert r.status == 502 or len(r.body) <= max(0, size - 32 * KIB)
    assert larder.stored_objects() == [] and larder.partials() == []


def test_wrong_last_byte_for_many(larder, upstream, thing):
    gate = Gate()
    upstream.on(thing.theirs, Fault(flip=-1, hold={SIZE - 1: gate}))
    fetches = [Fetch(larder.address, thing.ours) for _ in range(10)]
    gate.wait_reached()
    for f in fetches:
        f.wait_got(SIZE - 32 * KIB)
    gate.release()
    for f in fetches:
        r = f.result()
        assert r.status == 200 and r.end in ("short", "reset") and len(r.body) == SIZE - 32 * KIB
    assert larder.stored_objects() == [] and upstream.count() == 1


def test_wrong_bytes_every_time(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(flip=5))
    for n in range(3):
        assert_not_whole(larder.get(thing.ours))
        larder.wait_idle()
    assert larder.metric("digest_mismatches_total") == upstream.count() == 3
    assert larder.stored_objects() == [] and larder.partials() == []


def test_wrong_bytes_for_a_client_that_asked_for_a_part(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(flip=200 * KIB))
    larder.get(thing.ours, {"Range": "bytes=0-10"})
    larder.wait_idle()
    assert larder.stored_objects() == []


def test_manifest_by_digest_with_other_bytes(larder, upstream, image):
    other = Image("other", (10,))
    upstream.on(paths.manifest("app", image.digest), Fault(body=other.manifest), nth=1)
    r = larder.get(paths.manifest(APP, image.digest))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"
    assert larder.stored_objects() == [] and larder.metric("digest_mismatches_total") == 1
    assert larder.get(paths.manifest(APP, image.digest)).body == image.manifest


@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_manifest_whose_digest_header_lies(larder, upstream, image, reference):
    target = paths.manifest("app", "v1" if reference == "tag" else image.digest)
    upstream.on(target, Fault(headers={"Docker-Content-Digest": digest(b"a lie")}), method="GET", nth=1)
    r = larder.get(target.replace("/v2/app", "/v2/t/app"))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"
    assert larder.stored_objects() == []
    r = larder.get(target.replace("/v2/app", "/v2/t/app"))
    assert r.body == image.manifest and r.header("Docker-Content-Digest") == image.digest


@pytest.mark.parametrize("said", [None, "not a digest", "sha512"])
def test_digest_headers_that_are_absent_or_of_another_kind(larder, upstream, image, said):
    """The canonical digest may be of another algorithm than the one asked for."""
    value = digest(image.manifest, "sha512") if said == "sha512" else said
    upstream.on(paths.manifest("app", "v1"), Fault(headers={"Docker-Content-Digest": value, "ETag": None}))
    r = larder.get(paths.manifest(APP, "v1"))
    if said == "not a digest" and r.status == 502:
        return
    assert r.good and r.body == image.manifest and r.header("Docker-Content-Digest").split(":")[0] in ("sha256", "sha512")


def test_blob_headers_that_lie_do_not_matter(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(headers={"Docker-Content-Digest": digest(b"a lie"), "ETag": '"x"', "Content-Type": "text/html",
                                             "Set-Cookie": "a=b", "Location": "/lie", "WWW-Authenticate": "Basic realm=x"}))
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data and r.header("Docker-Content-Digest") == thing.digest
    for name in ("Set-Cookie", "Location", "WWW-Authenticate"):
        assert r.header(name) is None


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("said", [None, "not a digest"])
@pytest.mark.parametrize("body", [lambda b: b[:-1], lambda b: b[:len(b) // 2], lambda b: b[:1], lambda b: b + b"x", lambda b: b + b,
                                  lambda b: b"internal error", lambda b: b"[" + b + b"]"],
                         ids=["but one byte", "half", "one byte", "one byte more", "twice", "an error's text", "in brackets"])
def test_a_manifest_that_no_digest_vouches_for_must_be_whole(larder, upstream, image, body, framing, said):
    """It ends early but cleanly, and its type says nothing of that."""
    upstream.on(paths.manifest("app", "v1"), Fault(body=body, framing=framing, headers={"Docker-Content-Digest": said, "ETag": None}),
                nth=1)
    r = larder.get(paths.manifest(APP, "v1"))
    assert r.status == 502 and r.error_code == "UNAVAILABLE", r
    assert larder.stored_objects() == []
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest


def test_what_a_digest_vouches_for_need_not_be_json(larder, upstream):
    data = b"not what larder knows"
    name = upstream.add_manifest("app", data, "application/vnd.example.other", tag="odd")
    for reference in (name, "odd"):
        r = larder.get(paths.manifest(APP, reference))
        assert r.good and r.body == data and r.header("Content-Type") == "application/vnd.example.other"


@pytest.mark.parametrize("media", [images.DOCKER_SCHEMA1, "application/json"])
@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_a_signed_manifest_of_schema_1(larder, upstream, media, reference):
    """Its digest is that of what was signed: what comes cannot be held against it, and that is not upstream's fault."""
    payload = {"schemaVersion": 1, "name": "app", "tag": "old", "fsLayers": [{"blobSum": digest(b"layer")}], "history": []}
    name = digest(images.to_json(payload))
    signed = images.to_json(dict(payload, signatures=[{"protected": "e30", "signature": "AA"}]))
    upstream.repo("app")["manifests"][name] = (media, signed)
    upstream.tag("app", "old", name)
    for method in ("GET", "HEAD"):
        r = larder.request(method, paths.manifest(APP, "old" if reference == "tag" else name))
        assert r.status == 400
        assert method == "HEAD" or r.error_code == "MANIFEST_INVALID" and "schema 1" in r.json()["errors"][0]["message"]
    assert larder.stored_objects() == [] and larder.metric("digest_mismatches_total") == 0


@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_what_only_calls_itself_schema_1_is_a_mismatch(larder, upstream, image, reference):
    other = Image("other", (10,))
    target = paths.manifest("app", "v1" if reference == "tag" else image.digest)
    upstream.on(target, Fault(body=other.manifest, headers={"Content-Type": images.DOCKER_SCHEMA1}))
    assert larder.get(target.replace("/v2/app", "/v2/t/app")).status == 502
    assert larder.metric("digest_mismatches_total") == 1


EMPTY = {"an empty 200": Fault(status=200, body=b""), "204": Fault(status=204), "206": Fault(range="unasked"), "304": Fault(status=304),
         "a page": Fault(status=200, body=PAGE, headers={"Content-Type": "text/html"}),
         "203": Fault(status=203), "299": Fault(status=299), "300": Fault(status=300, body=b"choose"), "999": Fault(status=999, body=b"")}


@pytest.mark.parametrize("what", EMPTY)
@pytest.mark.parametrize("reference", ["tag", "digest"])
def test_answers_that_are_no_manifest(larder, upstream, image, what, reference):
    target = paths.manifest("app", "v1" if reference == "tag" else image.digest)
    upstream.on(target, EMPTY[what], method="GET", nth=1)
    ours = target.replace("/v2/app", "/v2/t/app")
    r = larder.get(ours)
    assert r.status == 502 and r.error_code == "UNAVAILABLE", r
    assert larder.stored_objects() == []
    assert larder.get(ours).body == image.manifest


@pytest.mark.parametrize("what", EMPTY)
def test_answers_that_are_no_blob(larder, upstream, thing, what):
    upstream.on(thing.theirs, EMPTY[what], nth=1)
    r = larder.get(thing.ours)
    assert_not_whole(r)
    assert larder.stored_objects() == []
    larder.wait_idle()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("body", [b"", PAGE, b"x" * 30 * KIB], ids=["empty", "a page", "a long page"])
def test_a_little_that_is_no_blob_is_an_error(larder, upstream, thing, framing, body):
    """Also where upstream says no length. For a HEAD nothing is waited for."""
    upstream.on(thing.theirs, Fault(body=body, framing=framing), nth=1)
    assert larder.get(thing.ours).status == 502
    larder.wait_idle()
    gate = Gate()
    upstream.on(thing.theirs, Fault(framing=framing, hold={1000: gate}))
    assert larder.head(thing.ours).status == 200
    gate.release()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data


def test_what_comes_slowly_and_without_a_length_gets_its_head_in_time(upstream, start_larder):
    larder = start_larder(upstream, timeouts={"first_byte": "1s"})
    thing, gate = Thing(upstream), Gate()
    upstream.on(thing.theirs, Fault(framing="chunked", hold={1000: gate}))
    f = Fetch(larder.address, thing.ours)
    assert f.wait_head(4).status == 200
    gate.release()
    assert f.result().good and f.response.body == thing.data


def test_the_page_of_a_captive_portal_as_a_manifest(larder, upstream, image):
    """200, text/html, to everything. Clients that go on to the next mirror must not be told 404 or 200."""
    upstream.on(lambda s: True, Fault(status=200, body=PAGE, headers={
        "Content-Type": "text/html", "Docker-Content-Digest": None, "ETag": None}))
    for reference in ("v1", image.digest):
        for method in ("GET", "HEAD"):
            r = larder.request(method, paths.manifest(APP, reference))
            assert r.status == 502 and PAGE not in r.body
    assert larder.stored_objects() == []


def test_the_truly_empty_blob_is_fine(larder, upstream):
    thing = Thing(upstream, 0)
    for _ in range(2):
        r = larder.get(thing.ours)
        assert r.good and r.body == b"" and r.header("Content-Length") == "0"
    larder.wait_stored(thing.digest)
    assert upstream.count() == 1


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(status=405), Fault(status=501), Fault(status=400),
                                   Fault(headers={"Docker-Content-Digest": None}),
                                   Fault(framing="none"), Fault(length=5), Fault(headers={"Content-Type": "text/html"}),
                                   Fault(headers={"Docker-Content-Digest": digest(b"x")})],
                         ids=["404", "405", "501", "400", "no digest", "no length", "wrong length", "wrong type", "wrong digest"])
def test_head_and_get_disagree_and_get_decides(larder, upstream, image, fault):
    upstream.on(lambda s: True, fault, method="HEAD")
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    r = larder.head(paths.manifest(APP, "v1"))
    assert r.status == 200 and r.header("Docker-Content-Digest") == image.digest
    assert r.header("Content-Length") == str(len(image.manifest)) and r.header("Content-Type") == image.media_type
    assert larder.get(paths.blob(APP, image.config)).body == image.config_bytes


@pytest.mark.parametrize("fault", [Fault(status=405), Fault(framing="none"), Fault(headers={"Docker-Content-Digest": None})],
                         ids=["405", "no length", "no digest"])
def test_head_of_something_cold_where_upstreams_head_is_of_no_use(larder, upstream, image, fault):
    upstream.on(lambda s: True, fault, method="HEAD")
    for reference in ("v1", image.digest):
        r = larder.head(paths.manifest(APP, reference))
        assert r.status == 200 and r.header("Docker-Content-Digest") == image.digest
        assert r.header("Content-Length") == str(len(image.manifest))


def test_head_says_yes_and_get_says_no(larder, upstream, image):
    upstream.on(lambda s: True, Fault(status=404), method="GET")
    assert larder.get(paths.manifest(APP, "v1")).status == 404
    assert larder.get(paths.blob(APP, image.config)).status == 404


def test_content_encoding_is_not_unpacked_and_not_served(larder, upstream, image):
    """The bytes under a digest are the bytes; an upstream that packs them unasked has other bytes."""
    packed = gzip.compress(image.manifest)
    upstream.on(paths.manifest("app", image.digest), Fault(body=packed, headers={"Content-Encoding": "gzip"}))
    assert larder.get(paths.manifest(APP, image.digest)).status == 502
    assert larder.stored_objects() == []


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("by_tag", [False, True])
def test_a_manifest_above_the_limit(upstream, start_larder, framing, by_tag):
    larder = start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": [upstream.url], "max_manifest": "64KiB"}])
    upstream.on(lambda s: True, Fault(framing=framing), method="GET")
    inside = b'{"schemaVersion":2,"config":{},"layers":[]}'.ljust(64 * KIB)
    good = upstream.add_manifest("app", inside, images.OCI_MANIFEST, tag="good")
    bad = upstream.add_manifest("app", inside + b" ", images.OCI_MANIFEST, tag="bad")
    assert larder.get(paths.manifest(APP, "good" if by_tag else good)).body == inside
    r = larder.get(paths.manifest(APP, "bad" if by_tag else bad))
    assert r.status == 502 and "limit" in r.json()["errors"][0]["message"]
    assert not larder.stored(bad)


def test_a_manifest_of_4_mib_is_accepted(larder, upstream):
    data = b'{"schemaVersion":2,"config":{},"layers":[]}'.ljust(4 * 1024 * KIB)
    name = upstream.add_manifest("app", data, images.OCI_MANIFEST, tag="big")
    for reference in ("big", name):
        r = larder.get(paths.manifest(APP, reference))
        assert r.good and r.body == data
    assert cache_status(r)[0] == "hit"


def test_a_wrong_answer_does_not_spoil_the_connection_for_the_next(larder, upstream, image, thing):
    """Bodies where none belong, and bodies that are not read to the end, with good requests right behind them."""
    for fault in (Fault(status=304, body=b"a body on 304"), Fault(status=204, body=b"a body on 204"),
                  Fault(status=404, body=b"x" * 500 * KIB), Fault(body=PAGE, headers={"Content-Type": "text/html"}, status=200)):
        upstream.clear()
        upstream.on(paths.manifest("app", "v1"), fault, method="GET")
        with Conn(larder.address) as conn:
            assert conn.exchange("GET", paths.manifest(APP, "v1")).status in (502, 404)
            assert conn.exchange("GET", paths.blob(APP, image.config)).body == image.config_bytes
            assert conn.exchange("GET", paths.blob(APP, image.layers[0])).body == image.blobs[image.layers[0]]
        fresh = Thing(upstream, 1000, "fresh-%s" % fault.status)
        assert larder.get(fresh.ours).body == fresh.data
