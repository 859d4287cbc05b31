"""Upstream breaks in the middle: a client sees one good answer wherever that can be repaired, else a transfer that
visibly ends short, and never a clean end of something wrong."""

import re
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, Image, blob
from lib.larder import REGISTRY, wait_until
from lib.upstream import Fault, Gate, Upstream

APP = "t/app"
SIZE = 600 * KIB


class Thing:
    def __init__(self, upstream, size=SIZE, name="breaks"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


@pytest.fixture
def thing(upstream):
    return Thing(upstream)


def assert_good(r, thing):
    assert r.good and r.status == 200 and r.body == thing.data, r


def assert_not_whole(r, data):
    """An error, or a transfer that ends visibly short with nothing wrong in it."""
    if r.status is not None and r.status >= 500:
        assert r.status in (502, 503, 504) and r.clean
        return
    assert r.status == 200 and r.end in ("short", "reset"), r
    assert len(r.body) < len(data)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("at", [0, 1, 1000, SIZE // 2, SIZE - 32 * KIB, SIZE - 1])
def test_a_cut_is_resumed_with_range(larder, upstream, thing, at, how):
    upstream.on(thing.theirs, Fault(cut_at=at, cut=how), nth=1)
    assert_good(larder.get(thing.ours), thing)
    larder.wait_stored(thing.digest)
    first, second = upstream.requests()
    # What had arrived is not asked for again. A reset may cost bytes that were on their way.
    if second.range is None:
        assert at <= 1
    else:
        asked_from = int(re.fullmatch(r"bytes=(\d+)-\d*", second.range)[1])
        assert asked_from == at if how == "fin" else asked_from <= at


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_cut_before_the_head(larder, upstream, thing, how):
    upstream.on(thing.theirs, Fault(cut_at=-1, cut=how), nth=1)
    r = larder.get(thing.ours)
    if not r.good:
        assert_not_whole(r, thing.data)
        r = larder.get(thing.ours)
    assert_good(r, thing)


def test_every_follower_survives_a_cut(larder, upstream, thing):
    gate = upstream.hold(thing.theirs, at=100 * KIB, nth=1)
    upstream.on(lambda s: s.path == thing.theirs and s.range == "bytes=%d-" % (100 * KIB), Fault(cut_at=100 * KIB), nth=1)
    fetches = [Fetch(larder.address, thing.ours) for _ in range(10)]
    for f in fetches:
        f.wait_got(100 * KIB)
    upstream.stop()
    upstream.start()
    gate.release()
    for f in fetches:
        assert_good(f.result(), thing)
    assert upstream.count() == 3


def test_many_cuts_in_one_transfer(larder, upstream, thing):
    """Each brings something, so each is worth another try."""
    upstream.on(thing.theirs, Fault(cut_at=150 * KIB), nth=range(1, 4))
    assert_good(larder.get(thing.ours), thing)
    assert [s.range for s in upstream.requests()] == [None] + ["bytes=%d-" % (n * 150 * KIB) for n in (1, 2, 3)]
    assert upstream.sent() == len(thing.data)
    assert larder.metric("upstream_resumes_total") == 3


def test_range_ignored_on_resume(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(range="ignore"))
    assert_good(larder.get(thing.ours), thing)


@pytest.mark.parametrize("mode", ["refuse", "wrong"])
def test_range_refused_or_answered_wrong_on_resume(larder, upstream, thing, mode):
    upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
    upstream.on(lambda s: s.path == thing.theirs and s.range is not None, Fault(range=mode))
    r = larder.get(thing.ours)
    if not r.good:
        assert_not_whole(r, thing.data)
        assert thing.data.startswith(r.body)
    else:
        assert_good(r, thing)
    larder.wait_idle()
    for _ in range(3):  # whatever is kept of the first try does not stand in the way for ever
        r = larder.get(thing.ours)
        if r.good:
            break
    assert_good(r, thing)


def in_parallel(upstream, larder, cases, break_it):
    """A blob for each case, all at once, because a broken transfer is given up only after some patience. Returns
    [(case, thing, response)]."""
    things = [Thing(upstream, name="case-%d" % n) for n in range(len(cases))]
    for case, thing in zip(cases, things):
        break_it(thing, case)
    fetches = [Fetch(larder.address, t.ours) for t in things]
    return [(case, thing, f.result()) for case, thing, f in zip(cases, things, fetches)]


def assert_all_heal(upstream, larder, results):
    larder.wait_idle()
    upstream.clear()
    for _, thing, _ in results:
        assert_good(larder.get(thing.ours), thing)


def test_a_break_that_cannot_be_repaired_is_never_a_clean_end(larder, upstream):
    cases = [(at, how) for at in (0, 1, 300 * KIB, SIZE - 1) for how in ("fin", "rst")]

    def break_it(thing, case):
        upstream.on(thing.theirs, Fault(cut_at=case[0], cut=case[1]), nth=1)
        upstream.on(thing.theirs, Fault(cut_at=0, cut=case[1]))

    results = in_parallel(upstream, larder, cases, break_it)
    for _, thing, r in results:
        assert_not_whole(r, thing.data)
        assert r.status >= 500 or thing.data.startswith(r.body)
        assert not larder.stored(thing.digest)
        assert upstream.count("GET", thing.theirs) < 15, "tries are bounded"
    asked = len(upstream.seen)
    assert_all_heal(upstream, larder, results)
    for (at, how), thing, _ in results:
        later = [s for s in upstream.requests()[asked:] if s.path == thing.theirs]
        if at > 1 and how == "fin":
            assert [s.range for s in later] == ["bytes=%d-" % at], "what had arrived was kept"


def test_upstream_goes_away_in_the_middle(start_larder, upstream, thing):
    larder = start_larder(upstream, timeouts={"connect": "2s", "first_byte": "2s", "idle": "2s"})
    gate = upstream.hold(thing.theirs, at=300 * KIB)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(300 * KIB)
    upstream.stop()
    gate.release()
    assert_not_whole(f.result(), thing.data)
    assert f.response.body == thing.data[:300 * KIB]
    larder.wait_idle()
    upstream.clear()
    upstream.start()
    assert_good(larder.get(thing.ours), thing)
    assert upstream.requests()[-1].range == "bytes=%d-" % (300 * KIB)


def test_upstream_restarts_in_the_middle(larder, upstream, thing):
    """It refuses connections for seconds: that is no reason to cut what can still be repaired."""
    gate = upstream.hold(thing.theirs, at=300 * KIB, nth=1)
    fetches = [Fetch(larder.address, thing.ours) for _ in range(3)]
    for f in fetches:
        f.wait_got(300 * KIB)
    upstream.stop()
    gate.release()
    time.sleep(6)
    upstream.start()
    for f in fetches:
        assert_good(f.result(), thing)
    assert upstream.requests()[-1].range == "bytes=%d-" % (300 * KIB)


@pytest.mark.parametrize("who", ["itself", "another"])
def test_a_limit_is_waited_for_on_resume(larder, upstream, thing, who):
    """The resume is told to come later, or another request has been: it comes then, and the client has one good answer."""
    gate = Gate()
    upstream.on(thing.theirs, Fault(hold={300 * KIB: gate}, cut_at=300 * KIB), nth=1)
    limited = Thing(upstream, name="limited") if who == "another" else thing
    upstream.on(limited.theirs, Fault(status=429, headers={"Retry-After": "5"}), nth=1)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(300 * KIB)
    if who == "another":
        assert larder.get(limited.ours).status == 429
    gate.release()
    assert_good(f.result(), thing)
    told, came = next(s for s in upstream.requests() if s.status == 429), upstream.requests()[-1]
    assert came.when - told.when >= 4.9 and came.range == "bytes=%d-" % (300 * KIB)
    assert upstream.count() == 3


def test_a_limit_beyond_all_patience_ends_short(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(cut_at=300 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(status=429, headers={"Retry-After": "600"}))
    f = Fetch(larder.address, thing.ours)
    assert_not_whole(f.result(5), thing.data)
    assert upstream.count() == 2


def test_a_resume_that_fails_ends_short(larder, upstream):
    cases = [Fault(status=500), Fault(status=404), Fault(status=403), Fault(raw=b"garbage\r\n\r\n"), Fault(status=204),
             Fault(status=206, body=b"x" * 10, headers={"Content-Range": "bytes 0-9/10"}), Fault(redirect="/elsewhere"),
             Fault(status=200, body=b"<html>", headers={"Content-Type": "text/html"})]

    def break_it(thing, case):
        upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
        upstream.on(thing.theirs, case)

    results = in_parallel(upstream, larder, cases, break_it)
    for case, thing, r in results:
        assert_not_whole(r, thing.data)
        assert r.body == thing.data[:len(r.body)], case
        assert not larder.stored(thing.digest)
    assert_all_heal(upstream, larder, results)


def test_other_bytes_on_resume_are_found_by_the_digest(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(body=blob("other", SIZE)), nth=1)
    assert_not_whole(larder.get(thing.ours), thing.data)
    assert not larder.stored(thing.digest) and larder.metric("digest_mismatches_total") == 1
    larder.wait_idle()
    assert_good(larder.get(thing.ours), thing)


def test_the_length_changes_on_resume(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(body=lambda b: b + b"more"), nth=1)
    r = larder.get(thing.ours)
    if not r.good:
        assert_not_whole(r, thing.data)
        larder.wait_idle()
        r = larder.get(thing.ours)
    assert_good(r, thing)


@pytest.mark.parametrize("location", ["/signed/one?sig={n}%2Fa%3D%3D", "{url}/signed/one?sig={n}%2Fa%3D%3D"],
                         ids=["relative", "absolute"])
def test_redirects_are_followed_and_never_shown(larder, upstream, thing, location):
    upstream.on(thing.theirs, Fault(redirect=location.format(url=upstream.url, n=1)))
    upstream.on(re.compile("^/signed/"), Fault(status=200, body=thing.data, headers={
        "Content-Type": "application/x-signed", "Docker-Content-Digest": None}))
    for _ in range(2):
        r = larder.get(thing.ours)
        assert_good(r, thing)
        assert r.header("Location") is None and r.header("Docker-Content-Digest") == thing.digest
    assert [s.target for s in upstream.requests()] == [thing.theirs, "/signed/one?sig=1%2Fa%3D%3D"]


def test_a_redirected_manifest(larder, upstream):
    image = upstream.add("app", Image("redirected", (10,)), tag="v1")
    upstream.on(paths.manifest("app", "v1"), Fault(redirect=paths.manifest("app", image.digest)))
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    assert larder.get(paths.manifest(APP, "v1")).status == 200


def test_an_expired_redirect_is_asked_for_again(larder, upstream, thing):
    """The signed URL of the first answer works once and is then refused: the registry gives a new one."""
    upstream.on(thing.theirs, Fault(redirect="/signed/a"), nth=1)
    upstream.on(thing.theirs, Fault(redirect="/signed/b"))
    honest = {"status": 200, "body": thing.data, "headers": {"Accept-Ranges": "bytes", "Content-Type": "a/b"}}
    upstream.on("/signed/a", Fault(cut_at=200 * KIB, **honest), nth=1)
    upstream.on("/signed/a", Fault(status=403))
    upstream.on("/signed/b", Fault(**honest))
    assert_good(larder.get(thing.ours), thing)
    assert [s.path for s in upstream.requests()] == [thing.theirs, "/signed/a", thing.theirs, "/signed/b"]


@pytest.mark.parametrize("location", ["{theirs}", "/v2/loop?a", "", "ftp://127.0.0.1/x", "http://", "http://[::1", "http://127.0.0.1:99999/"],
                         ids=["itself", "loop", "empty", "ftp", "no host", "half a host", "port"])
def test_redirects_that_lead_nowhere(larder, upstream, thing, location):
    upstream.on(thing.theirs, Fault(redirect=location.format(theirs=thing.theirs)), times=50)
    upstream.on("/v2/loop", Fault(redirect="/v2/loop?a"), times=50)
    r = larder.get(thing.ours)
    assert r.status == 502 and r.error_code == "UNAVAILABLE"
    assert upstream.count() < 30, "the number of hops is bounded"
    assert not larder.stored(thing.digest)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_answers_without_a_length(larder, upstream, thing, framing):
    upstream.on(thing.theirs, Fault(framing=framing))
    r = larder.get(thing.ours)
    assert_good(r, thing)
    again = larder.get(thing.ours)
    assert_good(again, thing)
    assert again.header("Content-Length") == str(len(thing.data)), "known now"
    assert upstream.count() == 1


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_many_followers_of_an_answer_without_a_length(larder, upstream, thing, framing):
    gate = Gate()
    upstream.on(thing.theirs, Fault(framing=framing, hold={300 * KIB: gate}))
    fetches = [Fetch(larder.address, thing.ours) for _ in range(10)]
    for f in fetches:
        f.wait_got(200 * KIB)
    gate.release()
    for f in fetches:
        assert_good(f.result(), thing)
    assert upstream.count() == 1


def test_without_a_length_an_early_end_is_found_by_the_digest(larder, upstream):
    """Chunks that end early, by a byte or more, with and without a last chunk; connections that close early."""
    cases = [dict(framing="chunked", body=lambda b: b[:-1]), dict(framing="chunked", body=lambda b: b[:1000]),
             dict(framing="chunked", body=lambda b: b""), dict(framing="chunked", chunk_end=False),
             dict(framing="chunked", cut_at=1000), dict(framing="close", body=lambda b: b[:-1]),
             dict(framing="close", cut_at=1000), dict(framing="close", cut_at=0)]
    results = in_parallel(upstream, larder, cases, lambda thing, case: upstream.on(thing.theirs, Fault(range="ignore", **case)))
    for case, thing, r in results:
        assert_not_whole(r, thing.data)
        assert not larder.stored(thing.digest)
        assert upstream.count("GET", thing.theirs) < 15
    assert_all_heal(upstream, larder, results)


def test_an_early_end_is_not_clean_for_http_1_0_either(larder, upstream, thing):
    """There the end of the connection is the end of the body, unless there is a length or a reset."""
    upstream.on(thing.theirs, Fault(framing="close", cut_at=300 * KIB, range="ignore"), times=40)
    r = larder.get(thing.ours, version="HTTP/1.0")
    assert not r.good, "a short body ended cleanly"
    assert not larder.stored(thing.digest)


def test_a_length_that_lies(larder, upstream):
    cases = [1000, SIZE - 1, SIZE + 1, SIZE * 2, "12x", "-5", "99999999999999999999", ["600", "700"]]

    def break_it(thing, said):
        upstream.on(thing.theirs, Fault(framing="none", headers={"Content-Length": said}) if isinstance(said, list) else
                    Fault(length=said))

    results = in_parallel(upstream, larder, cases, break_it)
    for said, thing, r in results:
        assert not r.good, said
        if r.status == 200:
            assert r.end in ("short", "reset")
        else:
            assert r.status in (502, 504)
        assert not larder.stored(thing.digest)
    assert_all_heal(upstream, larder, results)


def two_endpoints(start_larder, one, two, **more):
    return start_larder(one, upstreams=[{"registry": REGISTRY, "endpoints": [one.url, two.url],
                                         "timeouts": {"connect": "2s", "first_byte": "3s", "idle": "3s"}}], **more)


@pytest.fixture
def second():
    with Upstream() as up:
        yield up


def test_the_second_endpoint_when_the_first_is_gone(upstream, second, start_larder):
    image = second.add("app", Image("second", (10,)), tag="v1")
    larder = two_endpoints(start_larder, upstream, second)
    upstream.stop()
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    for name, data in image.blobs.items():
        assert larder.get(paths.blob(APP, name)).body == data


@pytest.mark.parametrize("status", [500, 502, 503])
def test_the_second_endpoint_when_the_first_is_broken(upstream, second, start_larder, status):
    thing = Thing(second)
    larder = two_endpoints(start_larder, upstream, second)
    upstream.on(re.compile("."), Fault(status=status))
    assert_good(larder.get(thing.ours), thing)


def test_resumed_at_the_second_endpoint(upstream, second, start_larder):
    thing, _ = Thing(upstream), Thing(second)
    larder = two_endpoints(start_larder, upstream, second)
    upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(status=503))
    assert_good(larder.get(thing.ours), thing)
    assert second.requests()[-1].range == "bytes=%d-" % (200 * KIB)


@pytest.mark.parametrize("fault", [dict(cut_at=0), dict(cut_at=0, cut="rst"), dict(silent=0), dict(length=1000), dict(framing="chunked", cut_at=0)],
                         ids=["ends", "resets", "stalls", "another length", "ends in a chunk"])
def test_resumed_at_the_second_endpoint_when_the_first_breaks_each_time(upstream, second, start_larder, fault):
    thing, _ = Thing(upstream), Thing(second)
    larder = two_endpoints(start_larder, upstream, second)
    upstream.on(thing.theirs, Fault(cut_at=200 * KIB), nth=1)
    upstream.on(thing.theirs, Fault(range="ignore", **fault))
    assert_good(larder.get(thing.ours), thing)
    assert second.requests()[-1].range == "bytes=%d-" % (200 * KIB)


@pytest.mark.parametrize("fault", [Fault(body=b""), Fault(range="unasked"), Fault(headers={"Content-Encoding": "gzip"})],
                         ids=["empty", "an unasked part", "a coding"])
def test_the_second_endpoint_when_what_the_first_says_is_of_no_use(upstream, second, start_larder, fault):
    thing, _ = Thing(upstream), Thing(second)
    larder = two_endpoints(start_larder, upstream, second)
    upstream.on(thing.theirs, fault)
    assert_good(larder.get(thing.ours), thing)
    assert (upstream.count(), second.count()) == (1, 1)
    other = Thing(upstream, name="other")
    second.add_blob("app", other.data)
    for up in (upstream, second):
        up.forget()
        up.on(other.theirs, fault)
    assert larder.get(other.ours).status == 502
    assert (upstream.count(), second.count()) == (1, 1)


def test_metrics_tell_of_breaks(larder, upstream, thing):
    upstream.on(thing.theirs, Fault(cut_at=1000), nth=1)
    assert_good(larder.get(thing.ours), thing)
    assert larder.metric("upstream_resumes_total") == 1
    assert larder.metric("upstream_received_bytes_total") == len(thing.data)
    wait_until(lambda: larder.metric("fetches_in_flight") == 0, "no fetch is left")
