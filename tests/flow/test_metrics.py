"""The metrics by which an operator is woken up: what went wrong is told apart from what did not, and is there before it happens."""

import errno
import os
import re
import resource
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.disk import Disk
from lib.images import KIB, MIB, Image, blob, digest
from lib.larder import REGISTRY, cache_status, wait_until
from lib.upstream import Fault

APP = "t/app"
CLASSES = ("2xx", "3xx", "4xx", "429", "5xx")


@pytest.fixture
def disk(tmp_path, monkeypatch, start_larder):
    disk = Disk(tmp_path / "disk", monkeypatch)
    yield disk
    disk.heal_all()


def requests(larder, cache, kind="manifest", rule="rule-t"):
    return larder.metrics().get('larder_requests_total{rule="%s",kind="%s",cache="%s"}' % (rule, kind, cache))


def wait_requests(larder, n, *which, **more):
    """They are counted when the last byte is out, so maybe after the client has it."""
    wait_until(lambda: requests(larder, *which, **more) == n, "%d requests are counted as %s" % (n, which))


def classes(larder, name="responses_total", label=""):
    metrics = larder.metrics()
    return {c: metrics["larder_%s{%sstatus=\"%s\"}" % (name, label, c)] for c in CLASSES}


def available(larder):
    return larder.metrics()['larder_upstream_available{registry="%s"}' % REGISTRY]


def one_more(before, *which):
    return {c: n + which.count(c) for c, n in before.items()}


def test_what_alerts_are_about_is_there_from_the_start(larder):
    for kind in ("manifest", "blob"):
        for cache in ("error", "stale"):
            assert requests(larder, cache, kind) == 0
        assert requests(larder, "hit", kind) is None
    assert classes(larder) == {c: 0 for c in CLASSES}
    assert larder.metric("client_answers_cut_total") == 0 and available(larder) == 1


def test_a_404_is_no_error(larder, upstream):
    upstream.add("app", Image("metrics", (10,)), tag="v1")
    r = larder.get(paths.manifest(APP, "nothing"))
    assert r.status == 404 and cache_status(r) == ("miss", {"fwd": "miss", "fwd-status": "404"})
    wait_requests(larder, 1, "absent")
    assert larder.get("/v2/nowhere/manifests/v1").status == 404
    wait_requests(larder, 1, "none", rule="")
    assert requests(larder, "error") == 0
    assert classes(larder)["4xx"] == 2 and available(larder) == 1


@pytest.mark.parametrize("status, answer, counted", [(500, 502, "5xx"), (503, 503, "5xx"), (403, 403, "4xx"), (429, 429, "429")])
def test_what_upstream_does_is_counted_apart(larder, upstream, status, answer, counted):
    upstream.on(paths.manifest("app", "v1"), Fault(status=status))
    before = classes(larder)
    assert larder.get(paths.manifest(APP, "v1")).status == answer
    wait_requests(larder, 1, "error")
    assert requests(larder, "absent") is None
    assert classes(larder) == one_more(before, counted)
    theirs = classes(larder, "upstream_requests_total", 'registry="%s",' % REGISTRY)
    assert theirs["5xx" if status >= 500 else counted] >= 1 and sum(theirs.values()) == upstream.count()


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(drop=True), Fault(status=429, headers={"Retry-After": "30"})],
                         ids=["503", "dropped", "limited"])
def test_an_upstream_in_trouble_is_not_available(larder, upstream, fault):
    """Also between the times at which it is asked."""
    upstream.on(paths.manifest("app", "v1"), fault)
    assert larder.get(paths.manifest(APP, "v1")).status in (429, 502, 503)
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert available(larder) == 0
        time.sleep(0.05)


def test_it_is_available_when_it_is_well_again(larder, upstream):
    upstream.add("app", Image("metrics", (10,)), tag="v1")
    upstream.on(paths.manifest("app", "v1"), Fault(status=503))
    assert larder.get(paths.manifest(APP, "v1")).status == 503 and available(larder) == 0
    upstream.clear()
    wait_until(lambda: larder.get(paths.manifest(APP, "v1")).status == 200, "it is asked again")
    assert available(larder) == 1


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM], ids=lambda e: errno.errorcode[e])
@pytest.mark.parametrize("what", ["tag", "digest", "blob"])
def test_a_hit_that_cannot_be_opened_is_an_error(disk, start_larder, upstream, what, error):
    larder = start_larder(upstream, defaults={"tag_ttl": "1h"})
    image = upstream.add("app", Image("metrics", (10 * KIB,)), tag="v1")
    path = {"tag": paths.manifest(APP, "v1"), "digest": paths.manifest(APP, image.digest), "blob": paths.blob(APP, image.layers[0])}[what]
    assert larder.get(path).status == 200
    larder.wait_stored(image.layers[0] if what == "blob" else image.digest)
    larder.kill()
    larder.start()
    disk.fail("open", error)
    r = larder.get(path)
    assert r.status == 503 and r.header("Cache-Status") == "larder"
    kind = "blob" if what == "blob" else "manifest"
    wait_requests(larder, 1, "error", kind)
    assert requests(larder, "hit", kind) is None
    wait_until(lambda: larder.logged(msg="request", cache="error", status=503), "the log says the same")
    disk.heal("open")
    assert larder.get(path).status == 200
    wait_requests(larder, 1, "hit", kind)


def test_an_answer_that_ends_short_is_counted(larder, upstream):
    data = blob("cut", 300 * KIB)
    path = paths.blob(APP, upstream.add_blob("app", data))
    upstream.on(paths.blob("app", digest(data)), Fault(flip=-1))
    assert larder.get(path).end in ("short", "reset")
    wait_until(lambda: larder.metric("client_answers_cut_total") == 1, "it is counted")
    upstream.clear()
    assert larder.get(path).good
    assert larder.metric("client_answers_cut_total") == 1


# ---- the loops ----

def lags(larder):
    return [larder.metrics()['larder_loop_lag_seconds{core="%d"}' % core] for core in (0, 1)]


def test_a_loop_that_hangs_is_seen(upstream, faults, start_larder):
    """While it does, by everybody who reads the metrics, and for a while afterwards; at last it is a reason for a restart."""
    larder = start_larder(upstream)
    data = blob("hangs", 2 * MIB)
    path = paths.blob(APP, upstream.add_blob("app", data))
    assert larder.get(path).good
    larder.wait_stored(digest(data))
    faults.hold("preadv2")
    f = Fetch(larder.address, path)
    faults.wait_held("preadv2")
    time.sleep(1.5)
    assert larder.admin("/healthz")[:2] == (200, "ok\n")
    first, second = lags(larder), lags(larder)
    assert max(first) >= 1.2 and max(second) >= max(first) and min(second) < 1.2, (first, second)
    status, text, _ = wait_until(lambda: (lambda r: r[0] == 503 and r)(larder.admin("/healthz")), "larder does not call itself well")
    assert re.fullmatch(r"worker [01] has stood still for 3\d s\n", text) and max(lags(larder)) > 30
    faults.release("preadv2")
    assert f.result().good and f.response.body == data
    assert larder.admin("/healthz")[:2] == (200, "ok\n")
    for _ in range(3):
        assert max(lags(larder)) > 30, "whoever reads it does not empty it"


def test_the_process_is_told_by_the_names_that_dashboards_know(larder):
    metrics = larder.metrics()
    own = {name: metrics["process_" + name] for name in
           ("cpu_seconds_total", "virtual_memory_bytes", "resident_memory_bytes", "start_time_seconds", "open_fds", "max_fds")}
    assert abs(own["start_time_seconds"] - os.stat("/proc/%d" % larder.pid).st_ctime) < 60
    assert own["cpu_seconds_total"] > 0 and own["virtual_memory_bytes"] > own["resident_memory_bytes"] > 1 << 20
    assert own["resident_memory_bytes"] == metrics["larder_resident_memory_bytes"]
    assert 0 <= own["open_fds"] - len(os.listdir("/proc/%d/fd" % larder.pid)) <= 2, "the connection by which it was asked"
    assert own["max_fds"] == resource.prlimit(larder.pid, resource.RLIMIT_NOFILE)[0]
