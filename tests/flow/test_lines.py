"""Lines to upstream that are bad: endpoints of which one is dead, addresses that nobody answers at, names that are not found.
What is learnt once is not learnt again by every pull."""

import contextlib
import re
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, Image, blob
from lib.larder import REGISTRY, cache_status, wait_until
from lib.ports import port_that_drops_syns
from lib.tls import Tls
from lib.upstream import Fault, Gate, Upstream

APP = "t/app"
SHORT = {"connect": "2s", "first_byte": "3s", "idle": "3s"}


def assert_unavailable(r, *statuses):
    assert r.status in (statuses or (502, 503, 504)) and r.clean and r.error_code == "UNAVAILABLE", r


@pytest.fixture
def second():
    with Upstream() as up:
        yield up


def start_two(start_larder, one, two, timeouts=SHORT, **more):
    return start_larder(one, upstreams=[{"registry": REGISTRY, "endpoints": [one if isinstance(one, str) else one.url, two.url],
                                         "timeouts": timeouts}], **more)


# ---- endpoints ----

@pytest.mark.parametrize("how", ["fin", "rst", "silent"])
def test_a_dead_endpoint_is_remembered(how, upstream, second, start_larder):
    """By all cores: further pulls go to the one that works."""
    upstream.accept_fault = lambda n: how
    things = [blob("endpoint-%d" % n, 10 * KIB) for n in range(20)]
    targets = [paths.blob(APP, second.add_blob("app", data)) for data in things]
    larder = start_two(start_larder, upstream, second, timeouts={"connect": "1s", "first_byte": "2s", "idle": "2s"})
    assert larder.get(targets[0]).body == things[0]
    tried = upstream.connections
    assert 1 <= tried <= 4
    for target, data in zip(targets[1:], things[1:]):
        assert larder.get(target).body == data
    assert upstream.connections <= tried + 2, "one look from each core at most"


def test_a_dead_upstream_costs_cached_pulls_nothing(upstream, start_larder):
    """Tags past their time are served stale, and the dead one is left alone meanwhile."""
    images = [upstream.add("app", Image("dead-%d" % n, (10,)), tag="v%d" % n) for n in range(10)]
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"}, timeouts=SHORT)
    for n in range(10):
        assert larder.get(paths.manifest(APP, "v%d" % n)).good
    before = kill(upstream)
    for _ in range(3):
        for n, image in enumerate(images):
            r = larder.get(paths.manifest(APP, "v%d" % n))
            assert r.body == image.manifest and "stale-upstream" in cache_status(r)[1].get("detail", ""), cache_status(r)
    assert upstream.connections - before <= 5, "30 pulls are not 30 attempts"
    upstream.accept_fault = None
    wait_until(lambda: cache_status(larder.get(paths.manifest(APP, "v1")))[1].get("detail") is None, "and then it is back")


def kill(upstream):
    upstream.accept_fault = lambda n: "rst"
    upstream.stop()
    upstream.start()
    return upstream.connections


def test_a_dead_upstream_costs_other_pulls_little(upstream, start_larder):
    larder = start_larder(upstream, timeouts=SHORT)
    before = kill(upstream)
    for n in range(12):
        assert_unavailable(larder.get(paths.manifest(APP, "none-%d" % n)))
    assert upstream.connections - before <= 12, "one attempt for each at most"


def test_a_full_queue_says_nothing_of_the_upstream(upstream, start_larder):
    """Whoever gets no connection in time has not found out that the upstream is well."""
    with port_that_drops_syns() as port:
        larder = start_larder(upstream, workers=1, upstreams=[
            {"registry": REGISTRY, "endpoints": ["http://127.0.0.1:%d" % port], "max_connections": 1,
             "timeouts": {"connect": "2s", "first_byte": "1s", "idle": "1s"}}])
        for n in range(3):
            fetches = [Fetch(larder.address, paths.manifest(APP, "none-%d-%d" % (n, i))) for i in range(3)]
            assert sorted(f.result().status for f in fetches) == [503, 503, 504]
        r = larder.get(paths.manifest(APP, "none"))
        assert r.status == 504 and r.header("Retry-After"), "it is left alone"


# What a mirror lacks, and its registry would have, is not "not there" while the registry cannot be asked.

def lacking(start_larder, mirror, registry, order, **more):
    """larder with both; the mirror has tag v1, the registry has v2, too."""
    mirror.add("app", Image("v1", (10,)), tag="v1")
    registry.add("app", Image("v1", (10,)), tag="v1")
    registry.add("app", Image("v2", (10,)), tag="v2")
    both = (mirror, registry) if order == "mirror first" else (registry, mirror)
    return start_two(start_larder, *both, **more)


def tags_that_are_missing():
    return (paths.manifest(APP, "none-%d" % n) for n in range(10 ** 6))


@pytest.mark.parametrize("order", ["mirror first", "mirror last"])
def test_what_a_mirror_lacks_while_its_registry_is_down(order, upstream, second, start_larder):
    larder = lacking(start_larder, upstream, second, order)
    kill(second)
    missing = tags_that_are_missing()
    for _ in range(6):  # more than make an upstream known to be down
        assert_unavailable(larder.get(paths.manifest(APP, "v2")))
        assert_unavailable(larder.get(next(missing)))
    assert second.connections < 12, "it is not asked each time"
    assert larder.get(paths.manifest(APP, "v1")).good, "what the mirror has is served"
    second.accept_fault = None
    assert larder.get_when_up(paths.manifest(APP, "v2")).good
    wait_until(lambda: larder.get(next(missing)).status == 404, "both say that it is not there")


@pytest.mark.parametrize("order", ["mirror first", "mirror last"])
def test_what_a_mirror_lacks_while_its_registry_limits_requests(order, upstream, second, start_larder):
    larder = lacking(start_larder, upstream, second, order)
    second.on(re.compile("."), Fault(status=429, headers={"Retry-After": "600"}))
    for target in (paths.manifest(APP, "v2"), *[paths.manifest(APP, "none-%d" % n) for n in range(3)]):
        r = larder.get(target)
        assert r.status == 429 and 590 <= int(r.header("Retry-After")) <= 600
    assert second.count() == 1
    assert larder.get(paths.manifest(APP, "v1")).good


@pytest.mark.parametrize("order", ["mirror first", "mirror last"])
def test_a_limit_of_one_endpoint_that_says_no_time_is_told_with_one(order, upstream, second, start_larder):
    larder = lacking(start_larder, upstream, second, order)
    second.on(re.compile("."), Fault(status=429))
    for _ in range(3):
        r = larder.get(paths.manifest(APP, "v2"))
        assert r.status == 429 and 1 <= int(r.header("Retry-After")) <= 30


def test_a_limit_of_one_endpoint_that_is_told_to_many_at_once_is_one(upstream, second, start_larder):
    larder = lacking(start_larder, upstream, second, "mirror first")
    gate = Gate()
    second.on(re.compile("/manifests/"), Fault(status=429, hold={"request": gate}))
    fetches = [Fetch(larder.address, paths.manifest(APP, "none-%d" % n)) for n in range(10)]
    wait_until(lambda: second.count() == 10, "all ten are at the one that limits")
    gate.release()
    answers = [f.result() for f in fetches]
    assert {r.status for r in answers} == {429} and max(int(r.header("Retry-After")) for r in answers) <= 4


def test_a_tag_that_a_mirror_lacks_is_served_stale_while_its_registry_is_down(upstream, second, start_larder):
    larder = lacking(start_larder, upstream, second, "mirror last", defaults={"tag_ttl": "0s", "on_upstream_404": "refuse"})
    image = larder.get(paths.manifest(APP, "v2")).body
    kill(second)
    for _ in range(3):
        assert larder.get(paths.manifest(APP, "v2")).body == image


def restart(mirror, larder):
    """One request finds that it is down."""
    mirror.stop()
    larder.get(paths.manifest(APP, "while-it-is-down"))
    mirror.start()


def test_a_mirror_that_lacks_something_is_back(upstream, second, start_larder):
    larder = lacking(start_larder, upstream, second, "mirror first")
    restart(upstream, larder)
    missing = tags_that_are_missing()
    wait_until(lambda: larder.get(next(missing)).status == 404 and upstream.count(), "it is asked again, and does not have that")
    second.forget()
    assert larder.get(paths.manifest(APP, "v1")).good and second.count() == 0


def test_a_mirror_whose_look_was_broken_off_is_looked_at_again(upstream, second, start_larder):
    """The client that the first request to it was for has gone."""
    datas = [blob("looked-at-%d" % n, 10 * KIB) for n in range(2)]
    one, two = [upstream.add_blob("app", data) for data in datas]
    for data in datas:
        second.add_blob("app", data)
    larder = start_two(start_larder, upstream, second, defaults={"on_abandoned": "auto"})
    restart(upstream, larder)
    gate = upstream.hold(paths.blob("app", one), at="request")
    time.sleep(1.5)  # it is left alone for a second
    f = Fetch(larder.address, paths.blob(APP, one))
    gate.wait_reached()
    f.leave()
    larder.wait_idle()
    second.forget()
    assert larder.get(paths.blob(APP, two)).body == datas[1] and second.count() == 0


def test_a_mirror_that_fails_at_heads_is_asked_by_get(upstream, second, start_larder):
    image = Image("v1", (10 * KIB,))
    for up in (upstream, second):
        up.add("app", image, tag="v1")
    larder = start_two(start_larder, upstream, second, defaults={"tag_ttl": "0s"})
    assert larder.get(paths.manifest(APP, "v1")).good
    upstream.on(re.compile("."), Fault(status=503), method="HEAD")
    assert "detail" not in cache_status(larder.get(paths.manifest(APP, "v1")))[1]
    assert upstream.count("HEAD") == 1 and second.count("HEAD") == 1
    assert larder.get(paths.blob(APP, image.layers[0])).good
    assert second.count("GET") == 0


def test_a_mirror_that_is_down_takes_nothing_from_the_registrys_word(upstream, second, start_larder):
    upstream.stop()
    larder = start_larder(None, resolve={REGISTRY: "127.0.0.1:%d" % second.port},
                          upstreams=[{"registry": REGISTRY, "endpoints": ["http://" + REGISTRY, upstream.url], "timeouts": SHORT}])
    for target in (paths.manifest(APP, "none"), paths.manifest(APP, "none-2")):
        assert larder.get(target).status == 404


# ---- an endpoint that gives wrong content is passed over ----

LIES = {"one bit": Fault(flip=-1), "a page": Fault(status=200, body=b"<html>sign in</html>", headers={
            "Content-Type": "text/html", "Docker-Content-Digest": None, "ETag": None}),
        "nothing": Fault(status=200, body=b"", headers={"Docker-Content-Digest": None, "ETag": None}), "204": Fault(status=204, body=b"")}


@pytest.mark.parametrize("what", LIES)
def test_an_endpoint_that_gives_wrong_content(what, upstream, second, start_larder):
    """Where no client has got a byte of it, the next one is asked at once, and later first."""
    image = Image("lies", (100, 200 * KIB))
    for up in (upstream, second):
        up.add("app", image, tag="v1")
    upstream.on(re.compile("."), LIES[what], method="GET")
    larder = start_two(start_larder, upstream, second)
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    assert larder.get(paths.manifest(APP, image.digest)).body == image.manifest
    if what != "one bit":  # a list has no digest
        assert larder.get(paths.tags(APP)).json()["tags"] == ["v1"]
    small, large = image.layers
    for name in (image.config, small):
        assert larder.get(paths.blob(APP, name)).body == image.blobs[name]
    r = larder.get(paths.blob(APP, large))
    assert r.good == (what != "one bit") and (r.good or not r.clean)
    assert larder.get(paths.blob(APP, large)).body == image.blobs[large]
    asked = [s.path for s in upstream.requests("GET")]
    assert len(asked) == len(set(asked)), "for the same thing it is asked once"


def test_a_tag_of_which_one_endpoint_has_wrong_content_is_checked_at_the_other(upstream, second, start_larder):
    for up in (upstream, second):
        up.add("app", Image("v1", (10,)), tag="v1")
    upstream.on(re.compile("."), LIES["a page"])
    larder = start_two(start_larder, upstream, second, defaults={"tag_ttl": "0s"})
    for n in range(4):
        new = second.add("app", Image("moved-%d" % n, (10,)), tag="v1")
        r = larder.get(paths.manifest(APP, "v1"))
        assert r.body == new.manifest and "detail" not in cache_status(r)[1]
    assert upstream.count() == 1


def test_all_endpoints_give_wrong_content(upstream, second, start_larder):
    image = Image("lies", (100,))
    for up in (upstream, second):
        up.add("app", image, tag="v1")
        up.on(re.compile("."), Fault(flip=-1), method="GET")
    larder = start_two(start_larder, upstream, second)
    for target in (paths.manifest(APP, "v1"), paths.blob(APP, image.layers[0])):
        for _ in range(3):
            assert_unavailable(larder.get(target), 502)
    for up in (upstream, second):
        up.clear()
    assert larder.get(paths.manifest(APP, "v1")).good, "what is wrong is not remembered against the last one"
    assert larder.get(paths.blob(APP, image.layers[0])).good


@pytest.mark.parametrize("missing", ["manifest", "blob"])
def test_what_one_endpoint_has_wrong_and_the_other_has_not(missing, upstream, second, start_larder):
    image = upstream.add("app", Image("lies", (100,)), tag="v1")
    second.repo("app")
    upstream.on(re.compile("."), Fault(flip=-1), method="GET")
    larder = start_two(start_larder, upstream, second)
    target = paths.manifest(APP, image.digest) if missing == "manifest" else paths.blob(APP, image.layers[0])
    for _ in range(3):
        assert_unavailable(larder.get(target), 502)


def test_endpoints_by_tls_one_of_which_has_a_bad_certificate(pki, root, leaf, start_larder):
    stranger = pki.root("Stranger").issue("localhost", names=["localhost"], ips=["127.0.0.1"])
    with Upstream(tls=Tls(stranger)) as bad, Upstream(tls=Tls(leaf)) as good:
        image = good.add("app", Image("tls-endpoints", (10,)), tag="v1")
        larder = start_larder(None, upstreams=[{"registry": REGISTRY, "endpoints": [bad.url, good.url], "ca": root.file, "timeouts": SHORT}])
        assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
        assert bad.seen == []


# ---- addresses ----

def start_named(start_larder, upstream, name="many.test", timeouts=SHORT, **more):
    return start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": ["http://%s:%d" % (name, upstream.port)],
                                              "timeouts": timeouts}], **more)


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.2", "::1", "127.0.0.3", "127.0.0.1"]])
def test_an_address_that_nobody_answers_at_holds_nothing_up(addresses, upstream, faults, start_larder):
    """SYNs to all but the last are lost; the limit for one pull is shorter than what a connect may take."""
    faults.names({"many.test": addresses})
    image = upstream.add("app", Image("eyeballs", (10,)), tag="v1")
    with contextlib.ExitStack() as stack:
        for address in addresses[:-1]:
            stack.enter_context(port_that_drops_syns(address, upstream.port))
        larder = start_named(start_larder, upstream, timeouts={"connect": "9s", "first_byte": "9s", "idle": "9s"})
        assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
        larder.wait_idle()
        assert upstream.connections <= 2


def test_an_address_that_refuses_is_passed_over(upstream, faults, start_larder):
    faults.names({"many.test": ["::1", "127.0.0.9", "127.0.0.1"]})
    image = upstream.add("app", Image("refuses", (10,)), tag="v1")
    larder = start_named(start_larder, upstream)
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest


def test_no_address_answers(upstream, faults, start_larder):
    faults.names({"many.test": ["::1", "127.0.0.9"]})
    larder = start_named(start_larder, upstream)
    assert_unavailable(larder.get(paths.manifest(APP, "v1")), 502, 503)
    wait_until(lambda: larder.logged(text="127.0.0.9") or larder.logged(text="::1"), "the log says where")


# ---- names ----

def test_a_name_that_is_found_later(upstream, faults, start_larder):
    faults.names({"many.test": []})
    image = upstream.add("app", Image("found", (10,)), tag="v1")
    larder = start_named(start_larder, upstream)
    assert_unavailable(larder.get(paths.manifest(APP, "v1")), 502, 503)
    wait_until(lambda: larder.logged(text="many.test"), "the log says which name")
    faults.names({"many.test": ["127.0.0.1"]})
    wait_until(lambda: larder.get(paths.manifest(APP, "v1")).status == 200, "it is found")
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest


def test_a_look_up_that_hangs(upstream, faults, start_larder):
    """Its threads are few; others, hits and what is known by the resolve map, do not wait for them."""
    faults.names({"many.test": ["wait", "127.0.0.1"]})
    faults.hold("names")
    image = upstream.add("app", Image("hangs", (10,)), tag="v1")
    larder = start_larder(
        upstream, resolve={"mapped.test": "127.0.0.1:%d" % upstream.port},
        upstreams=[{"registry": REGISTRY, "endpoints": ["http://many.test:%d" % upstream.port], "timeouts": SHORT},
                   {"registry": "mapped.test", "endpoints": ["http://mapped.test"]}],
        rules=[{"name": "slow", "source": REGISTRY + "/*", "target": "t/*"}, {"name": "good", "source": "mapped.test/*", "target": "good/*"}])
    fetches = [Fetch(larder.address, paths.manifest(APP, "v%d" % n)) for n in range(8)]
    for name, data in image.blobs.items():
        assert larder.get(paths.blob("good/app", name)).body == data
    for f in fetches:
        assert_unavailable(f.result(), 504)
        larder.check_answer(f.response)
    faults.release("names")
    wait_until(lambda: larder.get(paths.manifest(APP, "v1")).status == 200, "and it heals")


def test_a_name_of_the_resolve_map_is_not_looked_up(upstream, faults, start_larder):
    faults.names({"mapped.test": []})
    image = upstream.add("app", Image("mapped", (10,)), tag="v1")
    larder = start_larder(upstream, resolve={"Mapped.Test": "127.0.0.1:%d" % upstream.port},
                          upstreams=[{"registry": REGISTRY, "endpoints": ["http://mapped.test"]}])
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    assert {s.host for s in upstream.seen} == {"mapped.test"}


# ---- retries ----

@pytest.mark.parametrize("kind", ["manifest", "blob", "tags"])
def test_a_kept_connection_that_has_gone_costs_one_retry(kind, upstream, start_larder):
    image = upstream.add("app", Image("kept", (10,)), tag="v1")
    larder = start_larder(upstream, workers=1)
    assert larder.get(paths.manifest(APP, image.digest)).good
    larder.wait_idle()
    upstream.on(re.compile("."), Fault(drop=True), nth=1, reused=True)
    target = {"manifest": paths.manifest(APP, "v1"), "blob": paths.blob(APP, image.config), "tags": paths.tags(APP)}[kind]
    assert larder.get(target).good
    assert [s.nth_on_connection for s in upstream.requests()[1:3]] == [2, 1]
