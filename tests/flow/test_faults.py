"""The system under larder is slow, odd or wrong: calls that take long at a bad moment, other file systems, a clock that was set."""

import os
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import MIB, Image, blob
from lib.larder import cache_status, wait_until
from lib.upstream import Fault, Gate

APP = "t/app"


class Thing:
    def __init__(self, upstream, size, name="faults"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def part(first, last):
    return {"Range": "bytes=%d-%d" % (first, last)}


def leave_partial(larder, thing, data):
    """As an earlier fill would have left it."""
    path = larder.partial_path(thing.digest)
    os.makedirs(os.path.dirname(path), mode=0o750)
    with open(path, "wb") as out:
        out.write(data)


def is_front(seen):
    """The request that fetches the blob, or goes on with it: not one for a piece ahead."""
    return seen.range is None or seen.range.endswith("-")


def test_a_reader_that_comes_while_an_abandoned_fill_is_tidied(start_larder, upstream, faults):
    """What lay ahead of the front is cut off with the file: a reader that comes right then must not be told that it is there, or
    it gets zeros as soon as the file grows over the place again."""
    larder = start_larder(upstream, defaults={"on_abandoned": "keep"})
    thing = Thing(upstream, 64 * MIB)
    gate = Gate()
    upstream.on(lambda s: s.path == thing.theirs and is_front(s), Fault(hold={2 * MIB: gate}))
    piece, further = (20 * MIB, 21 * MIB - 1), (40 * MIB, 41 * MIB - 1)
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(2 * MIB)
    r = larder.get(thing.ours, part(*piece))
    assert r.good and r.body == thing.data[piece[0]:piece[1] + 1]

    faults.hold("ftruncate")
    whole.leave()
    faults.wait_held("ftruncate")
    slow = Fetch(larder.address, thing.ours, part(*piece), stop_at=1, receive_buffer=4096)
    larder.wait_all_read(1)
    faults.release("ftruncate")

    r = larder.get(thing.ours, part(*further))
    assert r.good and r.body == thing.data[further[0]:further[1] + 1]
    r = larder.get(thing.ours, part(*piece))
    assert r.good and r.body == thing.data[piece[0]:piece[1] + 1]
    slow.resume()
    r = slow.result()
    assert r.good and r.body == thing.data[piece[0]:piece[1] + 1]
    gate.release()
    assert larder.get(thing.ours).body == thing.data
    whole.result()


@pytest.mark.parametrize("size", [1, 3000, MIB, 64 * MIB])
def test_file_systems_with_odd_block_sizes(start_larder, upstream, faults, size):
    """Some say megabytes, or what is no power of two; a piece ahead of the front must not keep the front from being written."""
    faults.block_size(size)
    larder = start_larder(upstream)
    thing = Thing(upstream, 24 * MIB)
    gate = upstream.hold(lambda s: s.path == thing.theirs and is_front(s), at=2 * MIB + 5)
    whole = Fetch(larder.address, thing.ours)
    whole.wait_got(2 * MIB)
    r = larder.get(thing.ours, part(20 * MIB, 21 * MIB - 1))
    assert r.good and r.body == thing.data[20 * MIB:21 * MIB]
    gate.release()
    r = whole.result()
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)


def test_a_partial_file_on_a_file_system_with_huge_blocks(start_larder, upstream, faults):
    """What was kept is used, whatever the block size, and the rest is fetched."""
    faults.block_size(16 * MIB)
    larder = start_larder(upstream)
    thing = Thing(upstream, 4 * MIB)
    gate = upstream.hold(thing.theirs, at=3 * MIB, nth=1)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(3 * MIB)
    larder.kill()
    gate.release()
    f.result()
    larder.start()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("fault", [Fault(), Fault(cut_at=100), Fault(range="ignore")], ids=["waits", "does not wait", "knows no ranges"])
def test_a_partial_file_that_takes_long_to_read(start_larder, upstream, faults, fault):
    """Longer than upstream has for an answer: the head does not wait for it, and upstream is not the one to blame."""
    larder = start_larder(upstream, run=False, timeouts={"connect": "500ms", "first_byte": "500ms", "idle": "500ms"})
    thing = Thing(upstream, 4 * MIB)
    leave_partial(larder, thing, thing.data[:3 * MIB])
    upstream.on(thing.theirs, fault, nth=1)
    larder.start()
    faults.hold("pread")
    f = Fetch(larder.address, thing.ours)
    assert f.wait_head().header("Content-Length") == str(len(thing.data))
    time.sleep(1.5)
    assert f.got == 0
    faults.release("pread")
    r = f.result()
    assert r.good and r.body == thing.data
    assert all(s.range == "bytes=%d-" % (3 * MIB) for s in upstream.requests()[:1])
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("whole", [True, False])
def test_a_partial_file_as_long_as_the_blob_takes_long_to_read(start_larder, upstream, faults, whole):
    """All of it, or other bytes: then it is fetched anew, and upstream has its time from then on."""
    larder = start_larder(upstream, run=False, timeouts={"connect": "500ms", "first_byte": "500ms", "idle": "500ms"})
    thing = Thing(upstream, MIB)
    leave_partial(larder, thing, thing.data if whole else bytes(MIB))
    larder.start()
    faults.hold("pread")
    f = Fetch(larder.address, thing.ours)
    faults.wait_held("pread")
    time.sleep(1.5)
    faults.release("pread")
    r = f.result()
    assert r.good and r.body == thing.data
    assert upstream.sent() < 1000 if whole else upstream.count() == 2
    larder.wait_stored(thing.digest)


def test_a_partial_file_is_read_to_its_end_although_its_client_has_left(start_larder, upstream, faults):
    """And the next client gets the head at once, and what has been read."""
    larder = start_larder(upstream, run=False, defaults={"on_abandoned": "keep"})
    thing = Thing(upstream, 4 * MIB)
    leave_partial(larder, thing, thing.data[:3 * MIB])
    larder.start()
    faults.hold("pread")
    first = Fetch(larder.address, thing.ours)
    first.wait_head()
    first.leave()
    first.result()
    wait_until(lambda: larder.connections() == 0, "larder has noticed")
    second = Fetch(larder.address, thing.ours)
    second.wait_head()
    faults.release("pread")
    r = second.result()
    assert r.good and r.body == thing.data
    assert upstream.count() == 1
    larder.wait_stored(thing.digest)


def test_a_tag_that_was_checked_in_the_future(start_larder, upstream, faults):
    """The clock was wrong and has been set back: a tag is not fresh for as long as it was wrong."""
    larder = start_larder(upstream, run=False)
    old = upstream.add("app", Image("old", (10,)), tag="v1")
    faults.clock_ahead(30 * 24 * 3600)
    larder.start()
    assert larder.get(paths.manifest(APP, "v1")).body == old.manifest
    assert cache_status(larder.get(paths.manifest(APP, "v1")))[0] == "hit"
    larder.stop()
    faults.clock_ahead(0)
    larder.start()
    new = upstream.add("app", Image("new", (20,)), tag="v1")
    assert larder.get(paths.manifest(APP, "v1")).body == new.manifest
    upstream.forget()
    assert larder.get(paths.manifest(APP, "v1")).body == new.manifest
    assert upstream.count() == 0, "the check counts from now on"
