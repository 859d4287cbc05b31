"""Upstreams that are silent, gone, or do not speak HTTP: bounded waits, bounded descriptors, clear errors, hits as fast as
ever, and everything back at the idle level afterwards."""

import re
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, Image, blob
from lib.larder import REGISTRY, cache_status, wait_until
from lib.ports import port_that_drops_syns
from lib.upstream import Fault, Gate

APP = "t/app"
SHORT = {"connect": "1s", "first_byte": "3s", "idle": "3s"}


class Thing:
    def __init__(self, upstream, name, size=100 * KIB):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("silence", (10,)), tag="v1")


def assert_error(r, *statuses):
    assert r.status in statuses and r.clean, r
    assert r.error_code == "UNAVAILABLE"


def test_silent_upstreams_end_in_504_and_hits_stay_fast(upstream, start_larder, image):
    larder = start_larder(upstream, timeouts=SHORT)
    assert larder.get(paths.manifest(APP, "v1")).good
    cached = Thing(upstream, "cached")
    assert larder.get(cached.ours).good
    larder.wait_idle()
    before = larder.descriptors()
    silent = [Thing(upstream, "silent-%d" % n) for n in range(20)]
    for n, thing in enumerate(silent):
        upstream.on(thing.theirs, Fault(silent="request" if n % 2 else "head"))
    upstream.tag("app", "silent", image.digest)
    upstream.on(paths.manifest("app", "silent"), Fault(silent="request"))
    waiting = [Fetch(larder.address, t.ours) for t in silent for _ in range(3)]
    waiting += [Fetch(larder.address, paths.manifest(APP, "silent"), method=m) for m in ("GET", "HEAD")]
    wait_until(lambda: upstream.count("GET", re.compile("blobs")) >= 21, "all are asked for")
    for _ in range(20):
        assert larder.get(paths.manifest(APP, "v1")).good
        assert larder.get(cached.ours).body == cached.data
    assert all(f.is_alive() for f in waiting), "the hits did not wait for the silent ones"
    for f in waiting:
        r = f.result()
        larder.check_answer(r)
        assert r.status == 504, r
    assert upstream.count() < 3 + 21 * 4, "tries are bounded"
    larder.wait_idle()
    wait_until(lambda: larder.descriptors() <= before + 8, "descriptors are given back")
    upstream.clear()
    assert larder.get(silent[0].ours).body == silent[0].data


def test_accepted_and_never_answered(upstream, start_larder, image):
    larder = start_larder(upstream, timeouts=SHORT)
    upstream.accept_fault = lambda n: "silent"
    fetches = [Fetch(larder.address, target) for target in
               (paths.manifest(APP, "v1"), paths.manifest(APP, image.digest), paths.blob(APP, image.config))]
    for f in fetches:
        assert_error(f.result(), 504)
    larder.wait_idle()
    upstream.accept_fault = None
    assert larder.get(paths.manifest(APP, image.digest)).good


def test_silence_after_the_head_and_in_the_body(upstream, start_larder):
    """The head has gone out by then, so the only honest end is a short one; or all is repaired by a resume."""
    larder = start_larder(upstream, timeouts={"connect": "1s", "first_byte": "1s", "idle": "1s"})
    at = [0, 1, 50 * KIB, 100 * KIB - 1]
    once = [Thing(upstream, "stops-once-%d" % n) for n in at]
    for_ever = [Thing(upstream, "stops-%d" % n) for n in at]
    for n, thing in zip(at * 2, once + for_ever):
        upstream.on(thing.theirs, Fault(silent=n), nth=1)
    for thing in for_ever:
        upstream.on(thing.theirs, Fault(silent="request"))
    fetches = [Fetch(larder.address, t.ours) for t in once + for_ever]
    for f, thing in zip(fetches, once):
        assert f.result().good and f.response.body == thing.data
    for f, thing in zip(fetches[len(once):], for_ever):
        r = f.result()
        assert r.status == 504 or r.status == 200 and r.end in ("short", "reset"), r
        assert r.status == 504 or thing.data.startswith(r.body)
        assert not larder.stored(thing.digest)
    larder.wait_idle()


def test_silence_at_the_same_place_again_and_again_has_an_end(upstream, start_larder):
    """What is read over, by an upstream that ignores Range, is nothing new."""
    larder = start_larder(upstream, timeouts={"connect": "1s", "first_byte": "20s", "idle": "500ms"})
    thing = Thing(upstream, "stops-at-a-limit")
    upstream.on(thing.theirs, Fault(silent=50 * KIB, range="ignore"))
    r = Fetch(larder.address, thing.ours).result(30)
    assert r.status == 200 and r.end in ("short", "reset") and r.body == thing.data[:50 * KIB], r
    assert upstream.count() <= 8
    larder.wait_idle()


def test_a_drip_is_served_as_a_drip_and_no_more(upstream, start_larder):
    """A byte now and then is progress: no idle timeout, and the client gets each byte as it comes."""
    larder = start_larder(upstream, timeouts=SHORT, client_limits={"drain_timeout": "1s"})
    thing = Thing(upstream, "drip")
    upstream.on(thing.theirs, Fault(drip=(1, 0.2)))
    f = Fetch(larder.address, thing.ours)
    f.wait_got(25)
    assert f.is_alive()
    f.leave()
    f.result()


def test_a_drip_does_not_hold_up_the_end(upstream, start_larder):
    larder = start_larder(upstream, client_limits={"drain_timeout": "1s"})
    thing = Thing(upstream, "drip")
    upstream.on(thing.theirs, Fault(drip=(1, 0.2)))
    f = Fetch(larder.address, thing.ours)
    f.wait_got(2)
    larder.stop()
    assert not f.result().good


@pytest.mark.parametrize("what", ["manifest", "list"])
def test_a_small_document_has_an_end(upstream, start_larder, image, what):
    """All who ask for it wait for this one transfer, so drops are not enough to keep it going."""
    larder = start_larder(upstream, timeouts=SHORT)
    ours = {"manifest": paths.manifest(APP, "v1"), "list": paths.tags(APP)}[what]
    theirs = {"manifest": paths.manifest("app", "v1"), "list": paths.tags("app")}[what]
    upstream.on(theirs, Fault(body=lambda honest: honest + b" " * 100_000, drip=(1, 0.2)))
    for f in [Fetch(larder.address, ours) for _ in range(3)]:
        assert_error(f.result(), 504)
    upstream.clear()
    assert larder.get_when_up(ours).good


def test_connections_refused(upstream, start_larder, image):
    larder = start_larder(upstream)
    upstream.stop()
    for target in (paths.manifest(APP, "v1"), paths.manifest(APP, image.digest), paths.blob(APP, image.config),
                   paths.tags(APP)):
        assert_error(larder.get(target), 502, 503)
    assert larder.metric("upstream_connect_failures_total") >= 1
    upstream.start()
    assert larder.get_when_up(paths.blob(APP, image.config)).good


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_connections_that_end_at_once(upstream, start_larder, image, how):
    larder = start_larder(upstream)
    upstream.accept_fault = lambda n: how
    for target in (paths.manifest(APP, "v1"), paths.blob(APP, image.config)):
        assert_error(larder.get(target), 502, 503)
    assert upstream.connections < 20, "tries are bounded"
    upstream.accept_fault = None
    assert larder.get(paths.blob(APP, image.config)).good


def test_lost_syns(start_larder, upstream):
    with port_that_drops_syns() as port:
        larder = start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": ["http://127.0.0.1:%d" % port],
                                                    "timeouts": SHORT}])
        before = larder.descriptors()
        fetches = [Fetch(larder.address, paths.blob(APP, "sha256:" + "%064x" % n)) for n in range(10)]
        for f in fetches:
            assert_error(f.result(), 502, 503, 504)
        larder.wait_idle()
        wait_until(lambda: larder.descriptors() <= before + 8, "descriptors are given back")


def test_a_name_that_does_not_resolve(start_larder, upstream, image):
    """Names under .invalid never do (RFC 6761)."""
    larder = start_larder(upstream, upstreams=[
        {"registry": REGISTRY, "endpoints": [upstream.url]},
        {"registry": "other.test", "endpoints": ["http://registry.invalid:80"], "timeouts": SHORT}],
        rules=[{"name": "good", "source": REGISTRY + "/*", "target": "t/*"},
               {"name": "lost", "source": "other.test/*", "target": "lost/*"}])
    fetches = [Fetch(larder.address, paths.manifest("lost/app", "v%d" % n)) for n in range(10)]
    for _ in range(5):
        assert larder.get(paths.manifest(APP, "v1")).good, "others do not wait for the resolver"
    for f in fetches:
        assert_error(f.result(), 502, 503, 504)
    larder.wait_idle()


GARBAGE = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\0" * 500,
    "an HTTP/2 frame": b"\0\0\x12\x04\0\0\0\0\0" + b"\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\0\x02\x02\x46",
    "half a status line": b"HTTP/1.1 2",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Le",
    "HTTP/0.9": b"<html>hello</html>",
    "another version": b"HTTP/3.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of one digit": b"HTTP/1.1 2 OK\r\nContent-Length: 0\r\n\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "both framings turned": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "a bare CR": b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 5\r\n\r\nhello",
    "a blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "chunks of no number": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a chunk of 2^64": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\nhello\r\n0\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "a head of 4 MiB": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"x" * (4 << 20) + b"\r\nContent-Length: 0\r\n\r\n",
    "20000 fields": b"HTTP/1.1 200 OK\r\n" + b"X-Filler: x\r\n" * 20000 + b"Content-Length: 0\r\n\r\n",
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 20000,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_not_http_is_502(larder, upstream, image, what):
    """Also framings by which one answer could be smuggled into another."""
    upstream.on(lambda s: "/v2/app/" in s.path, Fault(raw=GARBAGE[what]), times=30)
    for target in (paths.manifest(APP, "v1"), paths.manifest(APP, image.digest), paths.blob(APP, image.config)):
        r = larder.get(target)
        if "blobs" in target and r.status == 200:
            assert r.end in ("short", "reset"), "the head was good, what followed was not"
            continue
        assert_error(r, 502)
        assert "hello" not in r.body.decode("latin-1")
    assert larder.stored_objects() == []
    assert upstream.count() < 20, "tries are bounded"
    larder.wait_idle()
    upstream.clear()
    assert larder.get_when_up(paths.manifest(APP, image.digest)).body == image.manifest


def test_interim_answers_are_passed_over(larder, upstream, image):
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 7\r\n\r\n"
    upstream.on(lambda s: True, Fault(before=interim))
    for target, data in ((paths.manifest(APP, "v1"), image.manifest), (paths.blob(APP, image.config), image.config_bytes)):
        r = larder.get(target)
        assert r.good and r.body == data and r.interim == []
        assert larder.head(target).status == 200


def test_64_kib_of_headers_are_taken_or_refused_but_bounded(larder, upstream, image):
    upstream.on(lambda s: True, Fault(pad=64 * 1000))
    r = larder.get(paths.blob(APP, image.config))
    assert r.good and r.body == image.config_bytes or r.status == 502
    assert r.header("X-Pad-1") is None, "upstream's own headers are not passed on"
    upstream.clear()
    assert larder.get(paths.blob(APP, image.config)).good


def test_a_kept_connection_that_ended_silently_costs_nothing(larder, upstream):
    """Each answer's connection is closed without notice; or a request on it is dropped without a byte. Both are retried."""
    things = [Thing(upstream, "kept-%d" % n, 1000) for n in range(12)]
    upstream.on(lambda s: s.nth_on_connection == 2, Fault(drop=True), reused=True)
    upstream.on(re.compile("."), Fault(close_after=True), nth=range(3, 100, 3))
    for thing in things:
        r = larder.get(thing.ours)
        assert r.good and r.body == thing.data
    for thing in things:
        served = [s for s in upstream.requests("GET", thing.theirs) if s.status == 200]
        assert len(served) == 1


def test_a_reused_connection_is_retried_once_and_not_for_ever(larder, upstream):
    first, second = Thing(upstream, "first", 1000), Thing(upstream, "second", 1000)
    assert larder.get(first.ours).good
    upstream.on(second.theirs, Fault(drop=True))
    assert_error(larder.get(second.ours), 502, 503)
    assert upstream.count("GET", second.theirs) <= 4
    larder.wait_idle()


def test_connections_to_upstream_are_used_again(larder, upstream):
    for n in range(30):
        thing = Thing(upstream, "again-%d" % n, 1000)
        assert larder.get(thing.ours).good
    assert upstream.count() == 30
    assert upstream.connections <= 4, "one or two for each loop"
    assert larder.metric("upstream_connections_reused_total") >= 26


def note_open(upstream):
    """How many connections are open whenever one is accepted."""
    counts = []
    upstream.accept_fault = lambda number: counts.append(upstream.open_now())
    return counts


def four_at_most(upstream, start_larder):
    return start_larder(upstream, workers=4, upstreams=[
        {"registry": REGISTRY, "endpoints": [upstream.url], "max_connections": 4}])


def test_the_number_of_connections_to_upstream_is_bounded(upstream, start_larder):
    """Wherever the clients are: what one core has of them another one has not, idle ones among them."""
    larder = four_at_most(upstream, start_larder)
    counts = note_open(upstream)
    gate = upstream.hold(re.compile("/blobs/"), at="head")
    things = [Thing(upstream, "bounded-%d" % n, 1000) for n in range(40)]
    fetches = [Fetch(larder.address, t.ours) for t in things]
    wait_until(lambda: gate.arrivals == 3, "three are asked for")
    larder.wait_all_read(len(fetches))
    assert gate.arrivals == 3 and upstream.connections == 3
    gate.release()
    for f, thing in zip(fetches, things):
        assert f.result().body == thing.data
    for n in range(40):
        thing = Thing(upstream, "one-by-one-%d" % n, 1000)
        assert larder.get(thing.ours).good
    assert max(counts) <= 4, counts
    larder.wait_idle()


@pytest.mark.parametrize("attempt", range(3))
def test_layers_leave_connections_to_what_is_small(upstream, start_larder, image, attempt):
    """More layers than there are connections, on whatever cores they are: manifests and tags pass them, and a layer that waits
    goes on when another one has ended."""
    larder = four_at_most(upstream, start_larder)
    things = [Thing(upstream, "slow-%d-%d" % (attempt, n)) for n in range(6)]
    gate = upstream.hold(re.compile("/blobs/"), at=1000)
    fetches = [Fetch(larder.address, t.ours) for t in things]
    wait_until(lambda: gate.arrivals == 3, "three are on their way")
    for n in range(12):
        tag = "v%d" % n
        upstream.tag("app", tag, image.digest)
        assert larder.get(paths.manifest(APP, tag)).body == image.manifest
    assert gate.arrivals == 3
    gate.release()
    for f, thing in zip(fetches, things):
        assert f.result().body == thing.data


def test_the_number_of_connections_is_the_same_after_a_reload(upstream, start_larder, image):
    """What the configuration before has open is counted."""
    larder = four_at_most(upstream, start_larder)
    things = [Thing(upstream, "reload-%d" % n) for n in range(6)]
    gate = upstream.hold(re.compile("/blobs/"), at=1000)
    fetches = [Fetch(larder.address, t.ours) for t in things]
    wait_until(lambda: gate.arrivals == 3, "three are on their way")
    counts = note_open(upstream)
    larder.config["defaults"]["tag_ttl"] = "2h"
    larder.write_config()
    wait_until(lambda: larder.metrics()['larder_config_reloads_total{result="taken"}'] == 1, "the file is in force")
    more = [Thing(upstream, "reloaded-%d" % n) for n in range(6)]
    fetches += [Fetch(larder.address, t.ours) for t in more]
    assert larder.get(paths.manifest(APP, "v1")).good
    larder.wait_all_read(len(fetches))
    assert gate.arrivals == 3
    gate.release()
    for f, thing in zip(fetches, things + more):
        assert f.result().body == thing.data
    assert max(counts) <= 4, counts


def test_what_is_cached_waits_little_for_a_silent_upstream(start_larder, upstream, image):
    """A check has much time; who has something stale does not wait for its end, and while one check is under way no other is begun."""
    upstream.add("app", image, tag="v2")
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"}, timeouts={"connect": "2s", "first_byte": "6s", "idle": "6s"})
    targets = [paths.manifest(APP, "v1"), paths.manifest(APP, "v2"), paths.tags(APP), paths.tags(APP) + "?n=1"]
    for target in targets:
        assert larder.get(target).good
    upstream.on(re.compile("."), Fault(silent="request"))
    upstream.forget()
    took, began = [], time.monotonic()
    while time.monotonic() - began < 15:
        for target in targets:
            at = time.monotonic()
            r = larder.get(target)
            took.append(time.monotonic() - at)
            assert r.good and cache_status(r)[1].get("detail") == "stale-upstream-timeout", cache_status(r)
            time.sleep(0.1)
    assert max(took) < 3 and sum(t > 1 for t in took) <= 2, took
    assert upstream.count() <= 4, upstream.requests()
    upstream.clear()
    wait_until(lambda: "detail" not in cache_status(larder.get(targets[0]))[1], "it answers again")


def assert_checked(larder, upstream, target, theirs):
    upstream.forget()
    r = larder.get(target)
    assert r.good and "detail" not in cache_status(r)[1] and upstream.count(path=theirs) == 1, r


def test_a_part_ahead_that_waits_says_nothing_of_upstream(start_larder, upstream, image):
    """It is a piece of a transfer, and no check: tags are checked meanwhile."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"}, timeouts={"connect": "2s", "first_byte": "6s", "idle": "6s"})
    assert larder.get(paths.manifest(APP, "v1")).good
    thing = Thing(upstream, "layer", 48 * 1024 * KIB)
    upstream.on(lambda s: s.path == thing.theirs and not s.range, Fault(hold={1024 * KIB: Gate()}))
    upstream.on(lambda s: s.path == thing.theirs and s.range, Fault(silent="request"))
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(1024 * KIB)
    part = Fetch(larder.address, thing.ours, {"Range": "bytes=%d-%d" % (32 << 20, (33 << 20) - 1)})
    wait_until(lambda: larder.metric("upstream_side_fetches_total") >= 1 and upstream.count() >= 3, "the part is asked for")
    time.sleep(1.5)
    assert_checked(larder, upstream, paths.manifest(APP, "v1"), paths.manifest("app", "v1"))
    for f in (part, whole):
        f.leave()


def test_a_check_that_waits_for_a_connection_says_nothing_of_upstream(start_larder, upstream, image):
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"}, upstreams=[
        {"registry": REGISTRY, "endpoints": [upstream.url], "max_connections": 1}])
    assert larder.get(paths.manifest(APP, "v1")).good
    thing = Thing(upstream, "layer")
    gate = upstream.hold(thing.theirs, at=1000)
    layer = Fetch(larder.address, thing.ours)
    gate.wait_reached()
    check = Fetch(larder.address, paths.manifest(APP, "v1"))
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert larder.metrics()['larder_upstream_available{registry="%s"}' % REGISTRY] == 1
        time.sleep(0.1)
    assert check.result().good
    gate.release()
    assert layer.result().body == thing.data
    larder.wait_idle()
    assert_checked(larder, upstream, paths.manifest(APP, "v1"), paths.manifest("app", "v1"))


def test_start_up_asks_upstream_nothing(start_larder, upstream, image):
    larder = start_larder(upstream)
    larder.restart()
    assert upstream.connections == 0


def test_start_up_without_upstream(start_larder, upstream, image):
    larder = start_larder(upstream)
    assert larder.get(paths.manifest(APP, "v1")).good
    larder.stop()
    upstream.stop()
    larder.start()
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    assert_error(larder.get(paths.blob(APP, image.config)), 502, 503)
