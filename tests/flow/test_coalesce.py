"""Concurrent misses: one upstream request however many ask, everyone gets everything, nobody waits for another."""

import re
import time

import pytest

from lib import paths
from lib.client import Conn, Fetch, fetch_many
from lib.images import KIB, MIB, Image, blob, digest
from lib.larder import cache_status, wait_until
from lib.upstream import Fault, Gate

APP = "t/app"
CLIENTS = 40
TAIL = 32 * KIB  # withheld until the digest is verified


class Thing:
    """A blob at upstream and its paths on both sides."""

    def __init__(self, upstream, size, name="thing"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def assert_all_good(fetches, data):
    for f in fetches:
        r = f.result()
        assert r.good and r.body == data, r


def test_many_clients_one_upstream_get(larder, upstream):
    thing = Thing(upstream, 3 * MIB)
    gate = upstream.hold(thing.theirs, at=MIB)
    early = [Fetch(larder.address, thing.ours) for _ in range(CLIENTS)]
    gate.wait_reached()
    for f in early:
        f.wait_got(MIB)
    late = [Fetch(larder.address, thing.ours) for _ in range(CLIENTS)]
    for f in late:
        f.wait_got(MIB)  # what is there, while upstream gives nothing
    gate.release()
    assert_all_good(early + late, thing.data)
    assert upstream.count() == 1
    results = [cache_status(f.response) for f in early + late]
    assert [r for r in results if "collapsed" not in r[1]] == [("miss", {"fwd": "miss", "stored": True})]
    assert results.count(("miss", {"fwd": "miss", "collapsed": True, "stored": True})) == 2 * CLIENTS - 1
    larder.wait_stored(thing.digest)
    larder.wait_idle()


def test_the_first_client_leaves_and_the_others_get_everything(larder, upstream):
    thing = Thing(upstream, 2 * MIB)
    gate = upstream.hold(thing.theirs, at=MIB)
    first = Fetch(larder.address, thing.ours)
    first.wait_got(MIB)
    others = [Fetch(larder.address, thing.ours) for _ in range(5)]
    for f in others:
        f.wait_got(MIB)
    first.leave()
    first.result()
    wait_until(lambda: larder.connections() == len(others), "larder has noticed")
    gate.release()
    assert_all_good(others, thing.data)
    assert upstream.count() == 1


def test_all_but_one_leave_at_different_places(larder, upstream):
    thing = Thing(upstream, 2 * MIB)
    gate = upstream.hold(thing.theirs, at=MIB)
    leaving = [Fetch(larder.address, thing.ours, leave_at=at) for at in (1, 1000, 100 * KIB, 500 * KIB, MIB)]
    staying = Fetch(larder.address, thing.ours)
    for f in leaving:
        assert f.result().end == "left"
    staying.wait_got(MIB)
    gate.release()
    assert_all_good([staying], thing.data)
    assert upstream.count() == 1


def test_bytes_follow_as_they_come(larder, upstream):
    """The head goes out before any byte of the body is there, and every piece before the next one is there."""
    thing = Thing(upstream, 200 * KIB)
    places = [0, 1, 1000, 10000, 100000, 150000]
    gates = {at: Gate() for at in places}
    upstream.on(thing.theirs, Fault(hold=gates))
    fetches = [Fetch(larder.address, thing.ours) for _ in range(3)]
    for at in places:
        gates[at].wait_reached()
        for f in fetches:
            assert f.wait_head().status == 200
            assert f.response.header("Content-Length") == str(len(thing.data))
            f.wait_got(at)
            assert f.got == at
        gates[at].release()
    assert_all_good(fetches, thing.data)


def test_the_tail_is_withheld_until_the_digest_is_known(larder, upstream):
    thing = Thing(upstream, 300 * KIB)
    gate = upstream.hold(thing.theirs, at=len(thing.data) - 1)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(len(thing.data) - TAIL)
    assert f.got == len(thing.data) - TAIL
    gate.release()
    assert_all_good([f], thing.data)


@pytest.mark.parametrize("what", ["tag", "digest"])
def test_one_request_for_a_manifest(larder, upstream, what):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    reference = "v1" if what == "tag" else image.digest
    gate = upstream.hold(paths.manifest("app", reference), at="request", method=None)
    fetches = [Fetch(larder.address, paths.manifest(APP, reference)) for _ in range(CLIENTS)]
    gate.wait_reached()
    larder.wait_all_read(CLIENTS)
    gate.release()
    assert_all_good(fetches, image.manifest)
    assert upstream.count("GET") == 1 and upstream.count("HEAD") <= (1 if what == "tag" else 0)


def test_one_revalidation_for_all(upstream, start_larder):
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"})
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    target = paths.manifest(APP, "v1")
    larder.get(target)
    upstream.forget()
    gate = upstream.hold(paths.manifest("app", "v1"), at="request", method=None)
    fetches = [Fetch(larder.address, target, method=m) for m in ["GET", "HEAD"] * (CLIENTS // 2)]
    gate.wait_reached()
    larder.wait_all_read(CLIENTS)
    assert [s.method for s in upstream.requests()] == ["HEAD"]
    gate.release()
    for f in fetches:
        r = f.result()
        assert r.status == 200 and r.clean and r.header("Docker-Content-Digest") == image.digest
    assert upstream.count("GET") == 0
    # With a TTL of nothing, one that was read late may ask again.
    assert upstream.count("HEAD") <= 3


def test_one_request_for_a_list_of_tags(larder, upstream):
    upstream.add("app", Image("app", (10,)), tag="v1")
    gate = upstream.hold(paths.tags("app"), at="request")
    fetches = [Fetch(larder.address, paths.tags(APP)) for _ in range(CLIENTS)]
    gate.wait_reached()
    larder.wait_all_read(CLIENTS)
    gate.release()
    for f in fetches:
        assert f.result().json()["tags"] == ["v1"]
    assert upstream.count() == 1


@pytest.mark.parametrize("fault,status,retry_after", [
    (Fault(status=404), 404, None), (Fault(status=403), 403, None), (Fault(status=401, headers={"WWW-Authenticate": "Basic realm=x"}), 403, None),
    (Fault(status=429, headers={"Retry-After": "17"}), 429, 17), (Fault(status=500), 502, None)],
    ids=["404", "403", "401", "429", "500"])
@pytest.mark.parametrize("what", ["tag", "digest", "blob"])
def test_waiters_get_the_same_error(larder, upstream, what, fault, status, retry_after):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    reference = {"tag": "v1", "digest": image.digest, "blob": image.config}[what]
    path = paths.blob if what == "blob" else paths.manifest
    gate = Gate()
    fault = Fault(status=fault.status, headers=fault.headers, hold={"request": gate})
    upstream.on(path("app", reference), fault)
    fetches = [Fetch(larder.address, path(APP, reference)) for _ in range(CLIENTS)]
    gate.wait_reached()
    larder.wait_all_read(CLIENTS)
    gate.release()
    for f in fetches:
        r = f.result()
        larder.check_answer(r)
        assert r.status in (status, 503) if status == 502 else r.status == status, r
        if retry_after:
            assert 1 <= int(r.header("Retry-After")) <= retry_after
    assert larder.stored_objects() == []
    # One; a retry or two are granted to a broken upstream, one for each waiter are not.
    assert upstream.count() <= (1 if status != 502 else 4), upstream.requests()


def test_a_manifest_does_not_wait_for_layers(larder, upstream):
    image = upstream.add("app", Image("app", (200 * KIB, 200 * KIB)), tag="v1")
    gate = upstream.hold(re.compile("/blobs/"), at=1000)
    layers = [Fetch(larder.address, paths.blob(APP, name)) for name in image.layers]
    for f in layers:
        f.wait_got(1000)
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    gate.release()
    for f, name in zip(layers, image.layers):
        assert f.result().body == image.blobs[name]


def test_many_different_blobs_at_once(larder, upstream):
    things = [Thing(upstream, 50 * KIB + n, "many-%d" % n) for n in range(60)]
    results = fetch_many(larder.address, [t.ours for t in things for _ in range(2)])
    for n, r in enumerate(results):
        assert r.good and r.body == things[n // 2].data
    assert upstream.count() == len(things)
    larder.wait_idle()


def test_one_repository_does_not_wait_for_another(larder, upstream):
    held, free = Thing(upstream, 100 * KIB, "held"), Thing(upstream, 100 * KIB, "free")
    gate = upstream.hold(held.theirs, at="request")
    waiting = Fetch(larder.address, held.ours)
    gate.wait_reached()
    assert larder.get(free.ours).body == free.data
    gate.release()
    assert_all_good([waiting], held.data)


@pytest.mark.parametrize("halt", ["stopped", "slow"])
def test_a_client_that_does_not_read_is_nobody_elses_trouble(upstream, start_larder, halt):
    larder = start_larder(upstream)
    thing = Thing(upstream, 24 * MIB)
    kind = {"stop_at": 100 * KIB} if halt == "stopped" else {"rate": 100 * KIB}
    lazy = [Fetch(larder.address, thing.ours, receive_buffer=16 * KIB, **kind) for _ in range(5)]
    for f in lazy:
        f.wait_got(1000)
    before = larder.status_kib("VmRSS")
    assert_all_good([Fetch(larder.address, thing.ours)], thing.data)
    wait_until(lambda: larder.stored(thing.digest), "the store has it at upstream's speed")
    assert all(f.is_alive() and f.got < len(thing.data) // 2 for f in lazy)
    if not larder.sanitized():
        assert larder.status_kib("VmRSS") - before < 32 * 1024
    assert upstream.count() == 1
    if halt == "stopped":
        for f in lazy:
            f.resume()
        assert_all_good(lazy, thing.data)
    else:
        for f in lazy:
            f.leave()
            f.result()


@pytest.mark.parametrize("cached", [False, True])
def test_a_client_that_stopped_reading_is_dropped(upstream, start_larder, cached):
    larder = start_larder(upstream, client_limits={"send_timeout": "1s"})
    thing = Thing(upstream, 24 * MIB)
    if cached:
        assert larder.get(thing.ours).good
    stopped = Fetch(larder.address, thing.ours, stop_at=1000, receive_buffer=16 * KIB)
    stopped.wait_got(1000)
    wait_until(lambda: larder.metric("client_connections_open") == 0, "the connection is closed")
    stopped.resume()
    assert stopped.result().end in ("short", "reset")
    wait_until(lambda: larder.stored(thing.digest), "the blob is stored all the same")
    assert larder.metric("client_timeouts_total") == 1
    larder.wait_idle()


def test_a_slow_upstream_is_no_reason_to_drop_a_client(upstream, start_larder):
    """The send timeout is about clients that do not take what is there, not about waiting for upstream."""
    larder = start_larder(upstream, client_limits={"send_timeout": "500ms", "idle_timeout": "500ms"},
                          timeouts={"connect": "5s", "first_byte": "20s", "idle": "20s"})
    thing = Thing(upstream, 100 * KIB)
    upstream.on(thing.theirs, Fault(delay={"head": 1.5, "body": 1.5}))
    assert_all_good([Fetch(larder.address, thing.ours)], thing.data)


@pytest.mark.parametrize("percent", [1, 95])
def test_abandoned_fill_is_finished(upstream, start_larder, percent):
    larder = start_larder(upstream, defaults={"on_abandoned": "finish"})
    thing = Thing(upstream, 2 * MIB)
    at = len(thing.data) * percent // 100
    gate = upstream.hold(thing.theirs, at=at)
    only = Fetch(larder.address, thing.ours)
    only.wait_got(min(at, len(thing.data) - TAIL))
    only.leave()
    only.result()
    wait_until(lambda: larder.connections() == 0, "larder has noticed")
    gate.release()
    larder.wait_stored(thing.digest)
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data and cache_status(r)[0] == "hit"
    assert upstream.count() == 1
    larder.wait_idle()


@pytest.mark.parametrize("percent", [1, 95])
def test_abandoned_fill_is_kept_and_resumed(upstream, start_larder, percent):
    larder = start_larder(upstream, defaults={"on_abandoned": "keep"})
    thing = Thing(upstream, 2 * MIB)
    at = len(thing.data) * percent // 100
    gate = upstream.hold(thing.theirs, at=at, nth=1)
    only = Fetch(larder.address, thing.ours)
    only.wait_got(min(at, len(thing.data) - TAIL))
    only.leave()
    only.result()
    first = upstream.requests("GET", thing.theirs)[0]
    assert first.done.wait(60) and first.aborted, "upstream is let go"
    larder.wait_idle()
    assert len(larder.partials()) == 1 and not larder.stored(thing.digest)
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert upstream.sent(thing.theirs) <= 1.1 * len(thing.data)
    larder.wait_stored(thing.digest)
    assert larder.partials() == []
    gate.release()


@pytest.mark.parametrize("size, percent, finished", [(2 * MIB, 1, True), (36 * MIB, 2, False), (36 * MIB, 60, True)])
def test_an_abandoned_fill_of_which_little_is_missing_is_finished(upstream, start_larder, size, percent, finished):
    larder = start_larder(upstream, defaults={"on_abandoned": "auto"})
    thing = Thing(upstream, size)
    at = size * percent // 100
    gate = upstream.hold(thing.theirs, at=at, nth=1)
    only = Fetch(larder.address, thing.ours)
    gate.wait_reached()
    only.wait_got(min(at, size - TAIL))
    only.leave()
    only.result()
    first = upstream.requests("GET", thing.theirs)[0]
    if finished:
        wait_until(lambda: larder.connections() == 0, "larder has noticed")
        gate.release()
        larder.wait_stored(thing.digest)
    else:
        assert first.done.wait(60) and first.aborted, "upstream is let go"
        gate.release()
        larder.wait_idle()
        assert len(larder.partials()) == 1 and not larder.stored(thing.digest)
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("policy", ["finish", "keep"])
@pytest.mark.parametrize("percent", [1, 95])
@pytest.mark.parametrize("pause", [0, 0.005, 0.05])
def test_a_newcomer_right_after_the_only_client_left(upstream, start_larder, policy, percent, pause):
    """Joins or resumes; never an error, and hardly a byte twice."""
    larder = start_larder(upstream, defaults={"on_abandoned": policy})
    thing = Thing(upstream, 2 * MIB)
    at = len(thing.data) * percent // 100
    gate = upstream.hold(thing.theirs, at=at, nth=1)
    only = Fetch(larder.address, thing.ours)
    only.wait_got(min(at, len(thing.data) - TAIL))
    only.leave()
    time.sleep(pause)
    newcomer = Fetch(larder.address, thing.ours)
    newcomer.wait_head()
    gate.release()
    assert_all_good([newcomer], thing.data)
    only.result()
    assert upstream.count() <= 2
    larder.wait_idle()
    assert larder.metric("upstream_received_bytes_total") <= 1.1 * len(thing.data)


def test_who_leaves_before_there_is_anything_leaves_nothing(start_larder, upstream):
    """Neither of what is there nor of names that somebody made up. And whoever comes a moment later gets it."""
    larder = start_larder(upstream, defaults={"on_abandoned": "auto"})
    gate, things = Gate(), [Thing(upstream, 10 * KIB, "left-%d" % n) for n in range(30)]
    held = upstream.on(re.compile("/blobs/"), Fault(hold={"request": gate}))
    made_up = [paths.blob(APP, digest(b"%d" % n)) for n in range(100)]
    conns = [Conn(larder.address) for _ in made_up + things]
    for c, target in zip(conns, made_up + [t.ours for t in things]):
        c.send_request("GET", target)
    wait_until(lambda: len(larder.partials()) == len(conns), "all have been asked for")
    for c in conns:
        c.reset()
    larder.wait_idle()
    gate.release()
    assert larder.partials() == []
    held.fault = Fault(delay={"request": 0.01})
    for n, thing in enumerate(things):
        with Conn(larder.address) as c:
            c.send_request("GET", thing.ours)
            time.sleep(n % 5 * 0.0005)
            c.reset()
        r = larder.get(thing.ours)
        assert r.good and r.body == thing.data
        larder.wait_stored(thing.digest)
    assert larder.partials() == []


def test_clients_that_come_and_go_all_the_time(larder, upstream):
    thing = Thing(upstream, 3 * MIB)
    upstream.on(thing.theirs, Fault(rate=4 * MIB))
    leaving = []
    staying = [Fetch(larder.address, thing.ours)]
    for n in range(60):
        leaving.append(Fetch(larder.address, thing.ours, leave_at=1 + n * 40 * KIB % (2 * MIB)))
    staying += [Fetch(larder.address, thing.ours) for _ in range(5)]
    assert_all_good(staying, thing.data)
    for f in leaving:
        f.result()
    assert upstream.count() == 1
    larder.wait_idle()
    larder.wait_stored(thing.digest)
