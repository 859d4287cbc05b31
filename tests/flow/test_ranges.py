"""Ranges: on what is stored, on what is arriving, and on what nobody has asked for yet."""

import os
import random
import re
import time

import pytest

from lib import paths
from lib.client import Conn, Fetch
from lib.images import KIB, MIB, blob
from lib.larder import cache_status, wait_until
from lib.upstream import Fault, Gate

APP = "t/app"


class Thing:
    def __init__(self, upstream, size, name="ranges"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def assert_part(r, data, first, last):
    """A 206 with bytes first to last."""
    assert r.status == 206 and r.clean, r
    assert r.header("Content-Range") == "bytes %d-%d/%d" % (first, last, len(data))
    assert r.header("Content-Length") == str(last - first + 1)
    assert r.body == data[first:last + 1]
    assert r.header("Accept-Ranges") == "bytes"


@pytest.fixture(params=["stored", "cold"])
def thing(request, upstream, larder):
    """2048 bytes as in the conformance tests of the distribution-spec, stored or not."""
    thing = Thing(upstream, 2048)
    if request.param == "stored":
        assert larder.get(thing.ours).good
    return thing


@pytest.mark.parametrize("asked,first,last", [
    ("bytes=500-1499", 500, 1499), ("bytes=500-", 500, 2047), ("bytes=-500", 1548, 2047), ("bytes=2000-5000", 2000, 2047),
    ("bytes=0-", 0, 2047), ("bytes=0-0", 0, 0), ("bytes=2047-", 2047, 2047), ("bytes=-1", 2047, 2047),
    ("bytes=-5000", 0, 2047), ("bytes=0-2047", 0, 2047), ("BYTES=0-1", 0, 1), ("bytes= 5-6", 5, 6),
    ("bytes=0-18446744073709551614", 0, 2047)])
def test_one_range(larder, upstream, thing, asked, first, last):
    assert_part(larder.get(thing.ours, {"Range": asked}), thing.data, first, last)
    assert upstream.sent(thing.theirs) <= 1.1 * len(thing.data)
    assert larder.get(thing.ours).body == thing.data


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=5000-10000", "bytes=-0"])
def test_a_range_that_cannot_be_satisfied(larder, thing, asked):
    r = larder.get(thing.ours, {"Range": asked})
    assert r.status == 416 and r.header("Content-Range") == "bytes */2048"
    assert r.error_code == "RANGE_INVALID"


@pytest.mark.parametrize("asked", ["bytes=500-0", "bytes=", "bytes=a-b", "bytes=5", "items=0-5", "bytes=--5", "", "bytes=1-2-3",
                                   "bytes:0-5"])
def test_what_is_not_a_range_is_ignored(larder, thing, asked):
    r = larder.get(thing.ours, {"Range": asked})
    assert r.status == 200 and r.body == thing.data


def test_head_ignores_ranges(larder, thing):
    larder.get(thing.ours)
    r = larder.head(thing.ours, {"Range": "bytes=0-5"})
    assert r.status == 200 and r.header("Content-Length") == "2048" and r.header("Accept-Ranges") == "bytes"


def test_if_range(larder, thing):
    part = {"Range": "bytes=10-19"}
    larder.get(thing.ours)
    assert_part(larder.get(thing.ours, dict(part, **{"If-Range": '"%s"' % thing.digest})), thing.data, 10, 19)
    for other in ('"sha256:%s"' % ("0" * 64), 'W/"%s"' % thing.digest, "Thu, 01 Jan 2026 00:00:00 GMT"):
        r = larder.get(thing.ours, dict(part, **{"If-Range": other}))
        assert r.status == 200 and r.body == thing.data


def parts_of(r):
    """[(first, last, total, bytes)] of a multipart/byteranges body."""
    boundary = re.fullmatch(r'multipart/byteranges; ?boundary="?([^"]+)"?', r.header("Content-Type"))[1].encode()
    assert r.header("Content-Range") is None
    pieces = (b"\r\n" + r.body).split(b"\r\n--" + boundary)
    assert pieces[0] == b"" and pieces[-1].startswith(b"--")
    found = []
    for piece in pieces[1:-1]:
        head, _, data = piece.partition(b"\r\n\r\n")
        first, last, total = map(int, re.search(rb"(?i)content-range: bytes (\d+)-(\d+)/(\d+)", head).groups())
        assert re.search(rb"(?i)content-type: application/octet-stream", head)
        found.append((first, last, total, data))
    return found


@pytest.mark.parametrize("asked,expected", [
    ("bytes=0-9,100-199", [(0, 9), (100, 199)]),
    ("bytes=100-199, 0-9", [(100, 199), (0, 9)]),
    ("bytes=-5,0-0,2000-", [(2043, 2047), (0, 0), (2000, 2047)]),
    ("bytes=0-1,0-1,1-2", [(0, 1), (0, 1), (1, 2)]),
    ("bytes=0-1,5000-6000,3-4", [(0, 1), (3, 4)]),
    ("bytes=" + ",".join("%d-%d" % (n, n) for n in range(0, 2000, 10)), [(n, n) for n in range(0, 2000, 10)])])
def test_several_ranges(larder, thing, asked, expected):
    r = larder.get(thing.ours, {"Range": asked})
    assert r.clean and r.status == 206
    assert parts_of(r) == [(a, b, 2048, thing.data[a:b + 1]) for a, b in expected]
    assert larder.get(thing.ours).body == thing.data


# What containers/image sends for chunks it lacks: as many as fit its limit, at offsets as far as layers are long.
def many(n):
    return "bytes=" + ",".join("%012d-%012d" % (at % 2048, at % 2048) for at in range(n))


@pytest.mark.parametrize("more", [0, 4000], ids=["alone", "with a token"])
def test_very_many_ranges(larder, thing, more):
    r = larder.get(thing.ours, {"Authorization": "Bearer " + "t" * more, "Range": many(1024)})
    assert r.status == 206 and parts_of(r) == [(n, n, 2048, thing.data[n:n + 1]) for n in range(1024)]
    assert larder.get(thing.ours).body == thing.data


@pytest.mark.parametrize("headers", [{"Range": many(1025)}, {"Range": many(2000)}, {"Range": many(1024), "X-More": "x" * 8000}],
                         ids=["more than allowed", "more than fits", "what follows does not fit"])
def test_too_many_ranges_are_a_400(larder, thing, headers):
    """Clients know it: they ask again for fewer. 416 and 431 would end the pull."""
    r = larder.get(thing.ours, headers)
    assert r.status == 400 and "too many ranges" in r.json()["errors"][0]["message"]
    assert larder.get(thing.ours).body == thing.data


def test_several_ranges_of_which_one_is_left(larder, thing):
    assert_part(larder.get(thing.ours, {"Range": "bytes=0-1,5000-6000"}), thing.data, 0, 1)


def test_several_ranges_of_which_none_is_left(larder, thing):
    assert larder.get(thing.ours, {"Range": "bytes=4000-4001,5000-6000"}).status == 416


def test_ranges_of_an_empty_blob(larder, upstream):
    thing = Thing(upstream, 0)
    assert larder.get(thing.ours, {"Range": "bytes=0-"}).status in (200, 416)
    assert larder.get(thing.ours).good


def test_ranges_of_what_is_arriving(larder, upstream):
    """Answered from the growing file: what is there at once, what is not as soon as it is there."""
    thing = Thing(upstream, 4 * MIB)
    gate = upstream.hold(thing.theirs, at=2 * MIB, nth=1)
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(2 * MIB)
    assert_part(larder.get(thing.ours, {"Range": "bytes=0-99"}), thing.data, 0, 99)
    assert_part(larder.get(thing.ours, {"Range": "bytes=1000000-1999999"}), thing.data, 1000000, 1999999)
    assert upstream.count() == 1
    across = Fetch(larder.address, thing.ours, {"Range": "bytes=%d-%d" % (MIB, 3 * MIB - 1)})
    across.wait_got(MIB)
    gate.release()
    assert_part(across.result(), thing.data, MIB, 3 * MIB - 1)
    assert whole.result().body == thing.data
    assert upstream.sent(thing.theirs) <= 1.1 * len(thing.data)


@pytest.mark.parametrize("asked,first", [("bytes=-1000", 8 * MIB - 1000), ("bytes=8000000-8000999", 8000000)])
def test_a_small_range_at_the_end_does_not_wait_for_the_rest(larder, upstream, asked, first):
    thing = Thing(upstream, 8 * MIB)
    held = upstream.hold(lambda s: s.path == thing.theirs and not s.range, at=100 * KIB)
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(100 * KIB)
    assert_part(larder.get(thing.ours, {"Range": asked}), thing.data, first, first + 999)
    held.release()
    assert whole.result().body == thing.data
    assert upstream.sent(thing.theirs) <= 1.1 * len(thing.data)


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=429, headers={"Retry-After": "1"}), Fault(drop=True), Fault(cut_at=0),
                                   Fault(cut_at=100 * KIB), Fault(raw=b"garbage\r\n\r\n")],
                         ids=["503", "429", "no answer", "no byte", "some bytes", "garbage"])
def test_a_piece_that_does_not_come_is_asked_for_again(larder, upstream, fault):
    """That one request for a part of it fails says nothing of the next."""
    thing = Thing(upstream, 48 * MIB)
    upstream.on(lambda s: s.path == thing.theirs and s.range, fault, nth=range(1, 3) if fault.drop else 1)
    upstream.on(lambda s: s.path == thing.theirs and not s.range, Fault(rate=2 * MIB))
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(MIB // 2)
    began = time.monotonic()
    for first in (32 * MIB, 40 * MIB):
        r = larder.get(thing.ours, {"Range": "bytes=%d-%d" % (first, first + 299999)})
        assert_part(r, thing.data, first, first + 299999)
    assert time.monotonic() - began < 8, "it did not wait for the front"
    whole.leave()


@pytest.mark.parametrize("asked,first,last", [("bytes=-1000", 8 * MIB - 1000, 8 * MIB - 1), ("bytes=8000000-", 8000000, 8 * MIB - 1),
                                              ("bytes=100-199", 100, 199)])
def test_a_range_of_a_cold_blob(larder, upstream, asked, first, last):
    thing = Thing(upstream, 8 * MIB)
    assert_part(larder.get(thing.ours, {"Range": asked}), thing.data, first, last)
    wait_until(lambda: larder.stored(thing.digest), "the blob is filled behind it")
    assert larder.get(thing.ours).body == thing.data
    larder.wait_idle()
    assert larder.metric("upstream_received_bytes_total") <= 1.1 * len(thing.data)


def test_ten_open_ended_ranges_each_closed_after_a_piece(larder, upstream):
    """How containerd fetches in parallel. An abort of one disturbs none, and upstream's bytes are not multiplied."""
    piece = MIB
    thing = Thing(upstream, 10 * piece)
    upstream.on(thing.theirs, Fault(rate=20 * MIB))
    fetches = [Fetch(larder.address, thing.ours, {"Range": "bytes=%d-" % (n * piece)}, leave_at=piece) for n in range(10)]
    for n, f in enumerate(fetches):
        r = f.result()
        assert r.status == 206 and r.header("Content-Range") == "bytes %d-%d/%d" % (n * piece, 10 * piece - 1, 10 * piece)
        assert r.body[:piece] == thing.data[n * piece:(n + 1) * piece]
    wait_until(lambda: larder.stored(thing.digest), "the blob is stored")
    assert larder.get(thing.ours).body == thing.data
    larder.wait_idle()
    assert larder.metric("upstream_received_bytes_total") <= 1.1 * len(thing.data)
    assert upstream.sent(thing.theirs) <= 1.1 * len(thing.data)


def test_random_ranges_while_it_arrives(larder, upstream):
    thing = Thing(upstream, 3 * MIB)
    upstream.on(thing.theirs, Fault(rate=4 * MIB))
    dice = random.Random(7)
    fetches, wanted = [Fetch(larder.address, thing.ours)], []
    for _ in range(40):
        first = dice.randrange(len(thing.data))
        last = min(len(thing.data) - 1, first + dice.choice([0, 100, 10000, 300000]))
        wanted.append((first, last))
        fetches.append(Fetch(larder.address, thing.ours, {"Range": "bytes=%d-%d" % (first, last)}))
    assert fetches[0].result().body == thing.data
    for (first, last), f in zip(wanted, fetches[1:]):
        assert_part(f.result(), thing.data, first, last)
    larder.wait_idle()
    assert larder.metric("upstream_received_bytes_total") <= 1.1 * len(thing.data)


def test_ranges_when_upstream_ignores_them(larder, upstream):
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(range="ignore"))
    assert_part(larder.get(thing.ours, {"Range": "bytes=-100"}), thing.data, MIB - 100, MIB - 1)
    assert larder.get(thing.ours).body == thing.data


def test_a_part_in_a_coding_is_not_taken(larder, upstream):
    thing = Thing(upstream, 8 * MIB)
    coded = upstream.on(lambda s: s.path == thing.theirs and s.range, Fault(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b" * 500000))
    held = upstream.hold(lambda s: s.path == thing.theirs and not s.range, at=100 * KIB)
    whole, part = Fetch(larder.address, thing.ours), Fetch(larder.address, thing.ours, {"Range": "bytes=8000000-8000999"})
    wait_until(lambda: coded.used, "a part has been asked for")
    held.release()
    assert_part(part.result(), thing.data, 8000000, 8000999)
    assert whole.result().body == thing.data


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_range_of_a_length_that_upstream_does_not_say(larder, upstream, framing):
    """It is known when all is here."""
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(framing=framing, range="ignore"), method="GET")
    assert_part(larder.get(thing.ours, {"Range": "bytes=100-199"}), thing.data, 100, 199)
    assert_part(larder.get(thing.ours, {"Range": "bytes=-10"}), thing.data, MIB - 10, MIB - 1)
    assert larder.get(thing.ours).body == thing.data and upstream.count() == 1


def test_a_length_that_is_not_known_in_time(start_larder, upstream):
    """The whole goes out instead, and promises no ranges."""
    larder = start_larder(upstream, timeouts={"first_byte": "1s"})
    thing = Thing(upstream, MIB)
    gate = Gate()
    upstream.on(thing.theirs, Fault(framing="chunked", range="ignore", hold={MIB // 2: gate}), method="GET")
    parts = [Fetch(larder.address, thing.ours, {"Range": "bytes=100-199"}) for _ in range(3)]
    whole = Fetch(larder.address, thing.ours)
    with Conn(larder.address) as leaves:
        leaves.send_request("GET", thing.ours, {"Range": "bytes=0-9"})
        whole.wait_got(MIB // 4)
    for f in parts:
        f.wait_got(MIB // 4)
    gate.release()
    for f in parts + [whole]:
        r = f.result()
        assert r.status == 200 and r.body == thing.data and r.header("Accept-Ranges") is None


@pytest.mark.parametrize("known", [True, False], ids=["length", "no length"])
def test_a_head_of_a_cold_blob_promises_no_more_than_is_so(larder, upstream, known):
    thing = Thing(upstream, MIB)
    if not known:
        upstream.on(thing.theirs, Fault(framing="chunked", range="ignore"))
    r = larder.head(thing.ours)
    assert r.status == 200 and r.header("Content-Length") == (str(MIB) if known else None)
    assert r.header("Accept-Ranges") == ("bytes" if known else None)
    assert cache_status(r) == ("miss", {"fwd": "miss"}) and not larder.stored(thing.digest)


def test_a_range_of_wrong_bytes_is_not_stored(larder, upstream):
    """A part cannot be verified before it is sent, but what is stored always is."""
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(flip=500000), times=3)
    larder.get(thing.ours, {"Range": "bytes=0-99"})
    larder.wait_idle()
    assert not larder.stored(thing.digest)
    r = larder.get(thing.ours)
    while not r.good:
        assert upstream.count() < 20
        r = larder.get(thing.ours)
    assert r.body == thing.data


def test_what_was_ahead_of_a_fill_that_failed_stays_what_it_was(upstream, start_larder):
    """A reader is in the middle of it when the fill ends for good, and the next fill writes to a place further behind: the reader gets
    the bytes that were there, not an early end, and never a hole's zeros."""
    larder = start_larder(upstream, timeouts={"connect": "1s", "first_byte": "1s", "idle": "1s"})
    thing = Thing(upstream, 48 * MIB)
    first, second = 8 * MIB, 32 * MIB
    held = Gate()
    upstream.on(lambda s: not s.range, Fault(hold={MIB: held}, cut_at=MIB), nth=1)
    resumed = upstream.on(lambda s: s.range == "bytes=%d-" % MIB, Fault(status=404))
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(MIB)
    slow = Fetch(larder.address, thing.ours, {"Range": "bytes=%d-%d" % (first, first + 4 * MIB - 1)}, stop_at=64 * KIB, receive_buffer=16 * KIB)
    slow.wait_got(64 * KIB)
    wait_until(lambda: upstream.sent(thing.theirs) >= 5 * MIB, "the side has come")
    held.release()
    assert not whole.result().good
    resumed.fault = Fault(hold={0: Gate()})
    upstream.on(lambda s: not s.range, Fault(hold={MIB: Gate()}))
    behind = {"Range": "bytes=%d-%d" % (second, second + MIB - 1)}
    assert_part(larder.get(thing.ours, behind), thing.data, second, second + MIB - 1)
    slow.resume()
    assert_part(slow.result(), thing.data, first, first + 4 * MIB - 1)


def test_what_was_ahead_for_who_has_gone_costs_no_front(upstream, start_larder):
    """The fill ends while a client reads the whole: that is kept, for there is nobody who reads ahead any more."""
    larder = start_larder(upstream, timeouts={"connect": "1s", "first_byte": "1s", "idle": "1s"})
    thing = Thing(upstream, 48 * MIB)
    held = Gate()
    upstream.on(lambda s: not s.range, Fault(hold={8 * MIB: held}, cut_at=8 * MIB), nth=1)
    resumed = upstream.on(lambda s: s.range == "bytes=%d-" % (8 * MIB), Fault(status=404))
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(8 * MIB)
    assert_part(larder.get(thing.ours, {"Range": "bytes=%d-%d" % (32 * MIB, 33 * MIB - 1)}), thing.data, 32 * MIB, 33 * MIB - 1)
    held.release()
    assert not whole.result().good
    larder.wait_idle()
    assert os.path.getsize(larder.partial_path(thing.digest)) == 8 * MIB
    resumed.fault = Fault()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert upstream.requests()[-1].range == "bytes=%d-" % (8 * MIB)
