"""One blob, two registries: it is fetched once for both, but nobody depends for long on a registry that was not the one that was asked."""

import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import Image, blob
from lib.larder import REGISTRY, cache_status, run, wait_until
from lib.upstream import Fault, Gate, Upstream

SIZE = 1000000
MOMENT = 6.0  # seconds: more than larder's patience, far less than any timeout of its own


class Both:
    """The blob at both upstreams: `first` is asked for it first."""

    def __init__(self, larder, first, second, size=SIZE):
        self.larder, self.first, self.second = larder, first, second
        self.data = blob("base layer", size)
        self.name = first.add_blob("a", self.data)
        second.add_blob("b", self.data)
        self.theirs, self.ours = paths.blob("a", self.name), paths.blob("b", self.name)

    def ask_first(self, **more):
        return Fetch(self.larder.address, paths.blob("one/a", self.name), **more)

    def ask_second(self, **more):
        return Fetch(self.larder.address, paths.blob("two/b", self.name), **more)

    def gets(self):
        return [s for s in self.second.requests("GET", self.ours)]


@pytest.fixture
def other():
    with Upstream() as up:
        yield up


@pytest.fixture
def front(start_larder, upstream, other):
    return start_larder(
        upstream, upstreams=[{"registry": REGISTRY, "endpoints": [upstream.url]}, {"registry": "other.test", "endpoints": [other.url]}],
        rules=[{"name": "one", "source": REGISTRY + "/*", "target": "one/*"}, {"name": "two", "source": "other.test/*", "target": "two/*"}])


@pytest.fixture
def both(front, upstream, other):
    return Both(front, upstream, other)


def assert_good_soon(fetches, data, since):
    for f in fetches:
        r = f.result(MOMENT + 10)
        assert r.good and r.body == data, r
    assert time.monotonic() - since < MOMENT


def test_while_all_goes_well_there_is_one_transfer(both):
    gate = both.first.hold(both.theirs, at=SIZE // 2)
    first = both.ask_first()
    gate.wait_reached()
    others = [both.ask_second() for _ in range(10)]
    for f in others:
        f.wait_got(SIZE // 2)
    gate.release()
    for f in [first] + others:
        assert f.result().good and f.response.body == both.data
    assert both.gets() == [] and both.first.count("GET", both.theirs) == 1


@pytest.mark.parametrize("size", [SIZE, 1000], ids=["large", "small"])
@pytest.mark.parametrize("headed", [False, True], ids=["before the head", "behind the head"])
def test_a_registry_that_hangs_keeps_only_its_own_clients(front, upstream, other, size, headed):
    """The others have one transfer for all of them, and what it brings is kept."""
    both = Both(front, upstream, other, size)
    gate = upstream.hold(both.theirs, at=0 if headed else "request")
    first = both.ask_first()
    gate.wait_reached()
    since = time.monotonic()
    others = [both.ask_second() for _ in range(20)] if not headed or size == 1000 else [both.ask_second()]
    assert_good_soon(others, both.data, since)
    assert len(both.gets()) == 1
    if not headed:
        wait_until(lambda: front.stored(both.name), "it is stored")
        wait_until(lambda: cache_status(front.get(paths.blob("two/b", both.name)))[0] == "hit", "it is in the index")
    assert first.got == 0
    gate.release()
    assert first.result().good and first.response.body == both.data


def test_a_head_is_answered_while_the_other_registry_hangs(both):
    gate = both.first.hold(both.theirs, at="request")
    first = both.ask_first()
    gate.wait_reached()
    since = time.monotonic()
    r = both.larder.head(paths.blob("two/b", both.name))
    assert r.status == 200 and r.header("Content-Length") == str(SIZE)
    assert time.monotonic() - since < MOMENT
    gate.release()
    assert first.result().good


@pytest.mark.parametrize("range_", [None, "bytes=100000-899999", "bytes=100000-199999,500000-599999"], ids=["whole", "range", "ranges"])
@pytest.mark.parametrize("how", ["silent", "drips", "hangs up"])
def test_a_transfer_that_does_not_come_on_is_left(both, how, range_):
    faults = {"silent": Fault(silent=200000), "drips": Fault(drip=(200, 0.2)), "hangs up": Fault(cut_at=200000)}
    both.first.on(both.theirs, faults[how], method="GET", times=1)
    both.first.on(both.theirs, Fault(status=403) if how == "hangs up" else Fault(silent="request"), method="GET")
    first = both.ask_first()
    first.wait_head()
    since = time.monotonic()
    second = both.ask_second(headers={"Range": range_} if range_ else None)
    r = second.result(MOMENT + 10)
    assert r.good and time.monotonic() - since < MOMENT, r
    if range_ is None:
        assert r.body == both.data
    elif "," not in range_:
        assert r.status == 206 and r.body == both.data[100000:900000]
    else:
        assert both.data[500000:600000] in r.body and both.data[100000:200000] in r.body
    first.leave()
    first.result()


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("range_", [None, "bytes=100000-899999"], ids=["whole", "range"])
def test_a_transfer_that_was_left_may_come_on_again(both, wrong, range_):
    gate = Gate()
    both.first.on(both.theirs, Fault(hold={200000: gate}, flip=900000 if wrong else None))
    first = both.ask_first()
    gate.wait_reached()
    second = both.ask_second(headers={"Range": range_} if range_ else None, stop_at=300000, receive_buffer=4096)
    second.wait_got(300000)
    gate.release()
    assert first.result().good == (not wrong)
    second.resume()
    assert second.result().good and second.response.body == (both.data[100000:900000] if range_ else both.data)


def test_a_registry_that_lies_does_so_to_others_once(both):
    """What had gone out cannot be mended; who comes next has nothing to do with that registry's transfers."""
    gate, liar = Gate(), Gate()
    both.first.on(both.theirs, Fault(flip=1000, hold={SIZE // 2: gate}), times=1)
    both.first.on(both.theirs, Fault(hold={"request": liar}))
    first = both.ask_first()
    gate.wait_reached()
    second = both.ask_second()
    second.wait_got(SIZE // 2)
    gate.release()
    assert not first.result().good and not second.result().good
    again = both.ask_first()
    liar.wait_reached()
    since = time.monotonic()
    assert_good_soon([both.ask_second() for _ in range(5)], both.data, since)
    assert time.monotonic() - since < 1 and len(both.gets()) == 1
    liar.release()
    again.result()


def leave_half_of_a_lie(both):
    both.first.on(both.theirs, Fault(flip=1000, cut_at=SIZE // 2), method="GET", times=1)
    both.first.on(both.theirs, Fault(status=403), method="GET")
    assert not both.ask_first().result().good
    wait_until(both.larder.partials, "it is kept")
    both.first.clear()


def test_what_another_registry_left_is_not_gone_on_with(both):
    leave_half_of_a_lie(both)
    second = both.ask_second()
    assert second.result().good and second.response.body == both.data
    assert [s.range for s in both.gets()] == [None]


def test_who_goes_on_with_what_another_registry_left_is_not_blamed(both):
    leave_half_of_a_lie(both)
    both.larder.restart()  # now nobody knows whose it is
    assert not both.ask_second().result().good, "that was half a lie"
    gate = both.second.hold(both.ours, at=SIZE // 2)
    second = both.ask_second()
    gate.wait_reached()
    asked = both.first.count("GET", both.theirs)
    first = both.ask_first()
    first.wait_got(SIZE // 2)
    gate.release()
    assert first.result().good and second.result().good
    assert both.first.count("GET", both.theirs) == asked, "its transfer is shared"


def test_who_is_shunned_is_not_waited_for_again(both):
    gate = both.first.hold(both.theirs, at="request")
    first = both.ask_first()
    gate.wait_reached()
    held = both.second.hold(both.ours, at=SIZE // 2)
    early = both.ask_second()
    held.wait_reached()
    since = time.monotonic()
    late = both.ask_second()
    late.wait_got(SIZE // 2)
    assert time.monotonic() - since < 1 and len(both.gets()) == 1
    held.release()
    assert early.result().good and late.result().good
    gate.release()
    assert first.result().good


def test_an_image_is_warmed_while_the_other_registry_hangs(front, upstream, other):
    image = Image("shared", (SIZE,))
    upstream.add("a", image, tag="v1")
    other.add("b", image, tag="v1")
    gate = upstream.hold(paths.blob("a", image.layers[0]), at=SIZE // 2)
    first = Fetch(front.address, paths.blob("one/a", image.layers[0]))
    gate.wait_reached()
    done = run("warm", "two/b:v1", "-f", front.file)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert other.count("GET", paths.blob("b", image.layers[0])) == 1
    gate.release()
    assert first.result().good


@pytest.mark.parametrize("range_", [None, "bytes=100000-899999"], ids=["whole", "range"])
def test_a_failure_of_another_repository_is_not_ours(front, upstream, range_):
    """One registry, so its transfer is waited for; but what it says of one repository does not hold for another."""
    data = blob("base layer", SIZE)
    name = upstream.add_blob("a", data)
    upstream.add_blob("c", data)
    upstream.on(paths.blob("a", name), Fault(cut_at=200000), method="GET", times=1)
    upstream.on(paths.blob("a", name), Fault(status=403), method="GET")
    first = Fetch(front.address, paths.blob("one/a", name))
    first.wait_got(100000)
    second = Fetch(front.address, paths.blob("one/c", name), headers={"Range": range_} if range_ else None)
    assert second.result().good and second.response.body == (data[100000:900000] if range_ else data)
    assert not first.result().good
    assert [s.range for s in upstream.requests("GET", paths.blob("c", name))] == ["bytes=%d-%s" % (200000, "899999" if range_ else "")]


def test_what_was_shared_is_served_when_no_registry_is_there(both):
    """Who was asked first is not the only one for whom it is here."""
    gate = both.first.hold(both.theirs, at=SIZE // 2)
    first = both.ask_first()
    gate.wait_reached()
    second = both.ask_second()
    second.wait_got(SIZE // 4)
    gate.release()
    assert first.result().good and second.result().good
    wait_until(lambda: both.larder.stored(both.name), "it is stored")
    both.larder.wait_idle()
    both.first.stop()
    both.second.stop()
    assert both.larder.get(paths.blob("two/b", both.name)).body == both.data


def test_what_the_flight_that_was_left_has_brought_is_good_enough(both):
    """Our own registry fails after that."""
    gate, fails = both.first.hold(both.theirs, at="request"), Gate()
    both.second.on(both.ours, Fault(status=500, hold={"head": fails}), method="GET")
    first = both.ask_first()
    gate.wait_reached()
    second = both.ask_second()
    fails.wait_reached()
    gate.release()
    assert first.result().good
    wait_until(lambda: both.larder.stored(both.name), "it is stored")
    fails.release()
    r = second.result()
    assert r.good and r.body == both.data


@pytest.mark.parametrize("range_", [None, "bytes=100000-899999"], ids=["whole", "range"])
def test_who_went_on_alone_comes_back_to_what_has_come_on(both, range_):
    gate = both.first.hold(both.theirs, at=200000)
    both.second.on(both.ours, Fault(silent="request"), method="GET")
    first = both.ask_first()
    gate.wait_reached()
    second = both.ask_second(headers={"Range": range_} if range_ else None)
    wait_until(both.gets, "the own registry is asked")
    gate.release()
    assert first.result().good
    r = second.result(MOMENT)
    assert r.good and r.body == (both.data if range_ is None else both.data[100000:900000])


def test_a_failure_of_our_own_registry_binds_nobody_to_one_that_hangs(front, both):
    gate = both.first.hold(both.theirs, at=SIZE // 2)
    first = both.ask_first()
    gate.wait_reached()
    second = both.ask_second()
    second.wait_got(SIZE // 4)
    both.second.on(paths.manifest("b", "none"), Fault(status=500), times=2)
    assert front.get(paths.manifest("two/b", "none")).status == 502
    r = second.result(MOMENT + 10)
    assert r.good and r.body == both.data
    gate.release()
    assert first.result().good


def test_who_has_nowhere_to_go_goes_when_there_is(front, both):
    """The own registry is out of order when the foreign one has stood still for long enough, and well again later."""
    gate = Gate()
    both.first.on(both.theirs, Fault(rate=80000, hold={SIZE - 100000: gate}), method="GET")
    first = both.ask_first()
    first.wait_got(1)
    second = both.ask_second()
    second.wait_got(1)
    both.second.on(lambda seen: True, Fault(drop=True))

    def broken():
        asked = both.second.count()
        assert front.get(paths.manifest("two/b", "none")).status == 502
        return both.second.count() == asked
    wait_until(broken, "it is not asked any more")
    gate.wait_reached()
    time.sleep(4)  # longer than the flight may stand still
    assert both.gets() == [] and second.got < SIZE
    both.second.clear()
    wait_until(lambda: front.get(paths.manifest("two/b", "none")).status == 404, "it is well")
    r = second.result(MOMENT + 10)
    assert r.good and r.body == both.data
    gate.release()
    assert first.result().good
