"""What clients may ask for at most, and what many of them may cost."""

import contextlib
import re

import pytest

from lib import paths
from lib.client import Conn, Fetch
from lib.images import KIB, Image, blob
from lib.larder import wait_until
from lib.upstream import Fault, Gate

APP = "t/app"
CURSOR = "%2F" * 333 + "x"  # 1,000 characters as they stand in a link


def link_target(r):
    match = re.fullmatch(r'<([^>]*)>; rel="?next"?', r.header("Link"))
    assert match, r.header("Link")
    return match[1]


# ---- lists ----

def test_slow_clients_of_a_large_list_do_not_cost_a_copy_each(larder, upstream):
    """A list of 3 MB for a hundred clients that do not read it."""
    image = upstream.add("app", Image("listed", (10,)))
    for n in range(30000):
        upstream.tag("app", "t%0100d" % n, image.digest)
    whole = larder.get(paths.tags(APP))
    assert whole.good and len(whole.body) > 3000000 and len(whole.json()["tags"]) == 30000
    before = larder.status_kib("VmRSS")
    with contextlib.ExitStack() as stack:
        conns = [stack.enter_context(Conn(larder.address, receive_buffer=4096)) for _ in range(100)]
        for conn in conns:
            conn.send_request("GET", paths.tags(APP))
        heads = [conn.read_head() for conn in conns]
        if not larder.sanitized():
            assert larder.status_kib("VmRSS") - before < 64 * KIB
        for conn, head in list(zip(conns, heads))[:3]:
            assert conn.read_body(head).clean and head.body == whole.body
    assert upstream.count() == 1


def test_a_cursor_of_1000_characters_comes_back_as_it_was(larder, upstream):
    upstream.add("app", Image("listed", (10,)), tag="v1")
    upstream.on(paths.tags("app"), Fault(headers={"Link": '</v2/app/tags/list?n=2&cursor=%s>; rel="next"' % CURSOR}), nth=1)
    r = larder.get(paths.tags(APP) + "?n=2")
    assert link_target(r) == paths.tags(APP) + "?n=2&cursor=" + CURSOR
    r = larder.get(link_target(r))
    assert r.good and r.json()["tags"] == ["v1"]
    assert upstream.requests()[-1].query == "n=2&cursor=" + CURSOR


def test_a_query_above_the_limit_is_414(larder, upstream):
    image = upstream.add("app", Image("listed", (10,)), tag="v1")
    for target in (paths.tags(APP), paths.referrers(APP, image.digest), paths.manifest(APP, "v1"), paths.blob(APP, image.config)):
        r = larder.get(target + "?x=" + "y" * 2000)
        assert r.status == 414 and r.error_code == "UNSUPPORTED", target
    assert upstream.count() == 0
    assert larder.get(paths.tags(APP)).good


# ---- connections ----

def test_the_oldest_idle_connection_gives_way(start_larder, upstream):
    """At client.max_connections a newcomer is served, and whoever has been idle for the longest time is ended."""
    larder = start_larder(upstream, client_limits={"max_connections": 4}, workers=1)
    with contextlib.ExitStack() as stack:
        conns = [stack.enter_context(Conn(larder.address)) for _ in range(4)]
        for conn in conns + [conns[0]]:
            assert conn.exchange("GET", "/v2/").status == 200
        assert larder.get("/v2/").status == 200
        assert conns[1].closed_by_peer()
        for n in (0, 2, 3):
            assert conns[n].exchange("GET", "/v2/").status == 200


@pytest.mark.parametrize("sent", [b"G", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n", b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20000],
                         ids=["a byte", "a line", "much"])
@pytest.mark.parametrize("workers", [1, 4])
def test_half_a_request_keeps_no_place_from_others(start_larder, upstream, workers, sent):
    """Whoever has waited for the longest time goes first, be it for a request or for the rest of one."""
    larder = start_larder(upstream, client_limits={"max_connections": 20}, workers=workers)
    with contextlib.ExitStack() as stack:
        halves = [stack.enter_context(Conn(larder.address)) for _ in range(20)]
        for conn in halves:
            conn.sock.sendall(sent)
        wait_until(lambda: larder.metric("client_connections_open") == 20, "all places are taken")
        kept = stack.enter_context(Conn(larder.address))
        for n in range(15):
            assert kept.exchange("GET", "/v2/").status == 200, n
            with Conn(larder.address) as newcomer:
                assert newcomer.exchange("GET", "/v2/").status == 200, n
        assert larder.metric("client_connections_refused_total") == 0


@pytest.mark.parametrize("workers", [2, 4])
def test_the_limit_is_that_of_all_workers_together(start_larder, upstream, workers):
    """Which worker gets a connection is chance: none refuses what all together have room for, and none has more room than all."""
    larder = start_larder(upstream, client_limits={"max_connections": 12}, workers=workers)
    with contextlib.ExitStack() as stack:
        conns = [stack.enter_context(Conn(larder.address)) for _ in range(12)]
        for conn in conns:
            assert conn.exchange("GET", "/v2/").status == 200
        assert all(conn.exchange("GET", "/v2/").status == 200 for conn in conns) and larder.metric("client_connections_open") == 12
        for n in range(30):
            newcomer = stack.enter_context(Conn(larder.address))
            assert newcomer.exchange("GET", "/v2/").status == 200, n
            wait_until(lambda: larder.metric("client_connections_open") <= 12, "an idle one has given way")
        assert larder.metric("client_connections_refused_total") == 0


def test_connections_at_work_on_all_workers_do_not_give_way(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"max_connections": 8}, workers=4)
    data = blob("busy", 200 * KIB)
    name = upstream.add_blob("app", data)
    gate = upstream.hold(paths.blob("app", name), at=100 * KIB)
    busy = [Fetch(larder.address, paths.blob(APP, name)) for _ in range(8)]
    for f in busy:
        f.wait_got(100 * KIB)
    for _ in range(20):
        with Conn(larder.address) as conn:
            with contextlib.suppress(OSError):
                conn.send_request("GET", "/v2/")
            assert conn.read_response().status is None
    gate.release()
    for f in busy:
        assert f.result().good and f.response.body == data
    wait_until(lambda: larder.metric("client_connections_open") == 0, "all are gone")
    assert larder.get("/v2/").status == 200


def test_connections_at_work_do_not_give_way(start_larder, upstream):
    larder = start_larder(upstream, client_limits={"max_connections": 4}, workers=1)
    data = blob("busy", 200 * KIB)
    name = upstream.add_blob("app", data)
    gate = upstream.hold(paths.blob("app", name), at=100 * KIB)
    busy = [Fetch(larder.address, paths.blob(APP, name)) for _ in range(4)]
    for f in busy:
        f.wait_got(100 * KIB)
    with Conn(larder.address) as conn:
        try:
            conn.send_request("GET", "/v2/")
        except OSError:
            pass
        assert conn.read_response().status is None
    gate.release()
    for f in busy:
        assert f.result().good and f.response.body == data
    wait_until(lambda: larder.metric("client_connections_open") == 0, "all are gone")
    assert larder.get("/v2/").status == 200


# ---- what upstream limits ----

def test_many_who_are_told_at_once_are_told_once(larder, upstream):
    """Ten requests were under way when the registry began to limit: that is one limit, and no reason for a pause ten times longer."""
    gate = Gate()
    upstream.on(re.compile("/manifests/"), Fault(status=429, hold={"request": gate}))
    fetches = [Fetch(larder.address, paths.manifest(APP, "v%d" % n)) for n in range(10)]
    wait_until(lambda: upstream.count() == 10, "all ten are at upstream")
    gate.release()
    answers = [f.result() for f in fetches]
    assert {r.status for r in answers} == {429}
    assert max(int(r.header("Retry-After")) for r in answers) <= 4
