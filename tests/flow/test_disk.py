"""A store that takes no more: every client gets its bytes, nothing wrong is kept, memory stays bounded, and it heals by itself."""

import errno
import os

import pytest

from lib import paths
from lib.client import Fetch
from lib.disk import Disk, Tmpfs
from lib.images import KIB, MIB, Image, blob
from lib.larder import cache_status, wait_until
from lib.upstream import Fault

APP = "t/app"
TAIL = 32 * KIB


class Thing:
    def __init__(self, upstream, size, name="disk", algorithm="sha256"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data, algorithm)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


@pytest.fixture
def disk(tmp_path, monkeypatch, start_larder):
    disk = Disk(tmp_path / "disk", monkeypatch)
    yield disk
    disk.heal_all()


@pytest.fixture
def small(tmp_path):
    """A file system of 24 MiB."""
    fs = Tmpfs(tmp_path / "small", 24 * MIB)
    yield fs
    fs.end()


def part(first, last):
    return {"Range": "bytes=%s-%s" % (first, last)}


def on(fs, start_larder, upstream, **more):
    larder = start_larder(upstream, run=False, **dict({"store": {"path": fs.path + "/store"}}, **more))
    larder.store = fs.path + "/store"
    return larder.start()


def assert_served(larder, thing, headers=None, wanted=None):
    r = larder.get(thing.ours, headers)
    assert r.good and r.body == (thing.data if wanted is None else wanted), r
    return r


# ---- a small disk ----


def test_a_blob_of_twice_the_disk(small, start_larder, upstream):
    """One client, and then another: each gets every byte, and what is left is whole or a partial file."""
    larder = on(small, start_larder, upstream)
    thing = Thing(upstream, 48 * MIB)
    for _ in range(2):
        assert_served(larder, thing)
        larder.wait_idle()
        assert not larder.stored(thing.digest)
    little = Thing(upstream, 100 * KIB, "little")
    def kept():
        assert_served(larder, little)
        return larder.stored(little.digest)
    wait_until(kept, "what is small is kept again")


def test_a_full_disk_makes_room_first(small, start_larder, upstream):
    """Without any limit: what was asked for longest ago goes, and all that comes is kept."""
    larder = on(small, start_larder, upstream)
    things = [Thing(upstream, 2 * MIB, "room-%d" % n) for n in range(25)]
    for thing in things:
        r = assert_served(larder, thing)
        assert "stored" in cache_status(r)[1]
        larder.wait_stored(thing.digest)
    assert larder.metric("store_passes_total") == 0 and larder.metric("store_evicted_objects_total") >= 13
    assert not larder.stored(things[0].digest)
    image = upstream.add("app", Image("room", (10,)), tag="v1")
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    larder.wait_stored(image.digest)


def test_many_clients_of_a_blob_that_the_disk_cannot_take(small, start_larder, upstream):
    """Fast ones, slow ones, ranges, one that leaves: nobody notices."""
    larder = on(small, start_larder, upstream)
    thing = Thing(upstream, 40 * MIB)
    gate = upstream.hold(thing.theirs, at=2 * MIB, nth=1)
    fast = [Fetch(larder.address, thing.ours) for _ in range(4)]
    slow = Fetch(larder.address, thing.ours, stop_at=MIB, receive_buffer=16 * KIB)
    leaves = Fetch(larder.address, thing.ours, leave_at=30 * MIB)
    ranges = [(MIB, 2 * MIB), (5 * MIB, 35 * MIB), (38 * MIB, 40 * MIB)]
    parts = [Fetch(larder.address, thing.ours, part(a, b - 1)) for a, b in ranges]
    for f in fast + [slow]:
        f.wait_got(MIB)
    gate.release()
    for f in fast:
        f.wait_got(40 * MIB)
    late = Fetch(larder.address, thing.ours)
    for (a, b), f in zip(ranges, parts):
        r = f.result()
        assert r.good and r.body == thing.data[a:b]
    for f in fast + [late]:
        r = f.result()
        assert r.good and r.body == thing.data
    slow.resume()
    assert slow.result().body == thing.data
    leaves.result()
    assert not larder.stored(thing.digest)
    larder.wait_idle()
    assert len(larder.partials()) <= 1


def test_memory_is_bounded_with_a_full_disk(small, start_larder, upstream):
    """Slow clients of what is not stored hold a small buffer each."""
    larder = on(small, start_larder, upstream)
    thing = Thing(upstream, 200 * MIB)
    clients = [Fetch(larder.address, thing.ours, stop_at=26 * MIB, receive_buffer=16 * KIB) for _ in range(8)]
    for f in clients:
        f.wait_got(26 * MIB)
    if not larder.sanitized():
        assert larder.status_kib("VmRSS") - larder.status_kib("RssFile") < 64 * KIB
    for f in clients[1:]:
        f.leave()
    clients[0].resume()
    assert clients[0].result().body == thing.data


def test_no_inodes(tmp_path, start_larder, upstream):
    fs = Tmpfs(tmp_path / "few", 64 * MIB, inodes=60)
    try:
        larder = on(fs, start_larder, upstream)
        made = 0
        while True:  # others take what is left
            try:
                open(os.path.join(fs.path, "other-%d" % made), "w").close()
                made += 1
            except OSError:
                break
        thing = Thing(upstream, 300 * KIB)
        image = upstream.add("app", Image("no-inodes", (10,)), tag="v1")
        for _ in range(2):
            r = assert_served(larder, thing)
            assert "stored" not in cache_status(r)[1]
            assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
        for n in range(made):
            os.unlink(os.path.join(fs.path, "other-%d" % n))
        wait_until(lambda: assert_served(larder, thing) and larder.stored(thing.digest), "it is stored again")
        larder.stop()
    finally:
        fs.end()


def test_a_file_system_that_takes_no_writes(disk, start_larder, upstream):
    """What is there is served, what is not is passed on; afterwards all is as before."""
    larder = start_larder(upstream)
    kept, thing = Thing(upstream, MIB, "kept"), Thing(upstream, 2 * MIB)
    assert_served(larder, kept)
    larder.wait_stored(kept.digest)
    image = upstream.add("app", Image("read-only", (10,)), tag="v1")
    for call in ("openat", "pwrite", "renameat", "fsync", "fdatasync", "ftruncate"):
        disk.fail(call, errno.EROFS)
    assert cache_status(assert_served(larder, kept))[0] == "hit"
    for _ in range(2):
        r = assert_served(larder, thing)
        assert cache_status(r) == ("miss", {"fwd": "miss"})
        r = larder.get(paths.manifest(APP, "v1"))
        assert r.good and r.body == image.manifest and "stored" not in cache_status(r)[1]
    assert larder.admin("/readyz")[0] == 200
    disk.heal_all()
    wait_until(lambda: assert_served(larder, thing) and larder.stored(thing.digest), "it is stored again")


# ---- a disk that fails ----


CALLS = [("openat", 0), ("pwrite", 0), ("pwrite", 1), ("pwrite", 3), ("fdatasync", 0), ("renameat", 0), ("fsync", 0), ("fsync", 1)]
ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO]


@pytest.mark.parametrize("error", ERRORS, ids=[errno.errorcode[e] for e in ERRORS])
@pytest.mark.parametrize("call, after", CALLS)
def test_every_write_may_fail(disk, start_larder, upstream, call, after, error):
    """Blobs and manifests, one client and several, then without the fault: always the right bytes."""
    larder = start_larder(upstream)
    thing = Thing(upstream, 3 * MIB)
    image = upstream.add("app", Image("fails", (50 * KIB,)), tag="v1")
    disk.fail(call, error, after)
    fetches = [Fetch(larder.address, thing.ours) for _ in range(3)]
    for f in fetches:
        r = f.result()
        assert r.good and r.body == thing.data
    r = larder.get(thing.ours, part(MIB, 2 * MIB - 1))
    assert r.good and r.body == thing.data[MIB:2 * MIB]
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest
    assert larder.get(paths.blob(APP, image.layers[0])).body == image.blobs[image.layers[0]]
    disk.heal(call)
    larder.wait_idle()
    wait_until(lambda: assert_served(larder, thing) and larder.stored(thing.digest), "it is stored")
    wait_until(lambda: larder.get(paths.manifest(APP, "v1")).body == image.manifest and larder.stored(image.digest), "so is the manifest")
    larder.wait_idle()
    upstream.stop()
    assert_served(larder, thing)
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest


@pytest.mark.parametrize("error, name", [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EROFS, "read-only"), (errno.EIO, "failing")])
def test_the_store_says_how_it_is(disk, start_larder, upstream, error, name):
    """In the metrics; ready all the while, because every client is served; and well again by itself, without a request."""
    larder = start_larder(upstream)
    faults = {n: 'larder_store_fault{fault="%s"}' % n for n in ("full", "read-only", "failing")}
    thing = Thing(upstream, MIB)
    assert [larder.metrics()[f] for f in faults.values()] == [0, 0, 0]
    for call in ("pwrite", "openat"):
        disk.fail(call, error)
    assert_served(larder, thing)
    assert {n: larder.metrics()[f] for n, f in faults.items()} == {n: n == name for n in faults}
    assert larder.metric("store_write_failures_total") >= 1
    assert larder.metric("store_passes_total") >= 1
    assert larder.admin("/readyz")[:2] == (200, "ready, but nothing can be stored: %s\n" % name)
    assert larder.admin("/healthz")[0] == 200
    disk.heal_all()
    wait_until(lambda: larder.metrics()[faults[name]] == 0, "it is well again")
    assert larder.admin("/readyz")[:2] == (200, "ready\n")
    assert_served(larder, thing)
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("size", [0, 1, TAIL - 1, TAIL, TAIL + 1, 128 * KIB, 128 * KIB + 1, 3 * MIB])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_sizes_without_a_store(disk, start_larder, upstream, size, algorithm):
    larder = start_larder(upstream)
    disk.fail("openat", errno.ENOSPC)
    thing = Thing(upstream, size, algorithm=algorithm)
    r = assert_served(larder, thing)
    assert r.header("Content-Length") == str(size) and cache_status(r) == ("miss", {"fwd": "miss"})
    if size > 0:
        r = larder.get(thing.ours, part(size - 1, ""))
        assert r.status == 206 and r.body == thing.data[-1:]
    r = larder.get(thing.ours, part(size, ""))
    assert r.status == 416
    assert larder.get(thing.ours, {"If-None-Match": '"%s"' % thing.digest}).status == 304
    assert larder.head(thing.ours).header("Content-Length") == str(size)
    larder.wait_idle()


@pytest.mark.parametrize("after", [0, 2, 10])
def test_ranges_without_a_store(disk, start_larder, upstream, after):
    larder = start_larder(upstream)
    disk.fail("pwrite", errno.ENOSPC, after)
    thing = Thing(upstream, 6 * MIB)
    for first, last in ((0, 0), (100, 4 * MIB), (5 * MIB, 6 * MIB - 1), (0, 6 * MIB - 1)):
        r = larder.get(thing.ours, part(first, last))
        assert r.status == 206 and r.clean and r.body == thing.data[first:last + 1]
        assert r.header("Content-Range") == "bytes %d-%d/%d" % (first, last, len(thing.data))
    r = larder.get(thing.ours, {"Range": "bytes=0-9,5000000-5000009,-10"})
    assert r.status == 206 and r.clean
    assert [p for p in (thing.data[:10], thing.data[5000000:5000010], thing.data[-10:]) if p not in r.body] == []


def test_an_answer_that_goes_on_behind_the_range_is_cut_there(disk, start_larder, upstream):
    larder = start_larder(upstream)
    disk.fail("openat", errno.ENOSPC)
    thing = Thing(upstream, 64 * MIB)
    upstream.on(lambda s: s.range, Fault(range="ignore", status=206, headers={"Content-Range": "bytes 100-%d/%d" % (64 * MIB - 1, 64 * MIB)},
                                    body=thing.data[100:]))
    r = larder.get(thing.ours, part(100, 199))
    assert r.status == 206 and r.clean and r.body == thing.data[100:200]
    larder.wait_idle()
    assert larder.metric("upstream_received_bytes_total") < 2 * MIB


@pytest.mark.parametrize("after", [0, 4])
@pytest.mark.parametrize("place", [0, 1000 * KIB, -1])
def test_wrong_bytes_are_never_whole_without_a_store(disk, start_larder, upstream, after, place):
    """The digest is that of all bytes: those that came by the file, and those that came after."""
    larder = start_larder(upstream)
    disk.fail("pwrite", errno.ENOSPC, after)
    thing = Thing(upstream, 3 * MIB)
    upstream.on(thing.theirs, Fault(flip=place))
    for _ in range(2):
        r = larder.get(thing.ours)
        assert r.status == 200 and not r.clean
        assert len(r.body) <= len(thing.data) - TAIL
    assert larder.metric("digest_mismatches_total") >= 1
    upstream.clear()
    disk.heal("pwrite")
    wait_until(lambda: larder.get(thing.ours).good, "the next one asks again")


def test_a_small_blob_with_wrong_bytes_gets_a_status(disk, start_larder, upstream):
    larder = start_larder(upstream)
    disk.fail("openat", errno.EIO)
    thing = Thing(upstream, 1000)
    upstream.on(thing.theirs, Fault(flip=5))
    assert larder.get(thing.ours).status == 502


@pytest.mark.parametrize("fault", ["reset", "ignores", "refuses", "chunked", "fin"])
@pytest.mark.parametrize("call, after", [("pwrite", 0), ("pwrite", 3), ("openat", 0)])
def test_upstream_breaks_while_nothing_can_be_stored(disk, start_larder, upstream, fault, call, after):
    larder = start_larder(upstream)
    disk.fail(call, errno.ENOSPC, after)
    thing = Thing(upstream, 3 * MIB)
    how = {"reset": dict(cut_at=2 * MIB + 7, cut="rst"), "fin": dict(cut_at=2 * MIB + 7), "ignores": dict(range="ignore"),
           "refuses": dict(range="refuse"), "chunked": dict(framing="chunked")}[fault]
    first = 2 if call == "pwrite" else 1  # without a file no fill is begun
    upstream.on(thing.theirs, Fault(**how), nth=range(first, first + 2) if "cut_at" in how else None)
    fetches = [Fetch(larder.address, thing.ours) for _ in range(2)]
    for f in fetches:
        r = f.result()
        assert r.good and r.body == thing.data


@pytest.mark.parametrize("status, ours", [(404, 404), (403, 403), (429, 429), (500, 502)])
def test_upstream_says_no_while_nothing_can_be_stored(disk, start_larder, upstream, status, ours):
    larder = start_larder(upstream)
    disk.fail("openat", errno.ENOSPC)
    thing = Thing(upstream, MIB)
    upstream.on(thing.theirs, Fault(status=status))
    assert larder.get(thing.ours).status == ours
    asked = upstream.count()
    assert larder.get(thing.ours).status == ours
    if status in (404, 429):
        assert upstream.count() == asked, "that is remembered"


def test_a_reader_far_behind_goes_on_alone(disk, start_larder, upstream):
    """It still reads what the file has when others are through, and somebody else has begun anew meanwhile."""
    larder = start_larder(upstream)
    thing = Thing(upstream, 24 * MIB)
    gate = upstream.hold(thing.theirs, at=20 * MIB, nth=1)
    behind = Fetch(larder.address, thing.ours, stop_at=100 * KIB, receive_buffer=16 * KIB)
    behind.wait_got(100 * KIB)
    disk.fail("pwrite", errno.EDQUOT, 5)
    gate.release()
    first = Fetch(larder.address, thing.ours)
    assert first.result().body == thing.data
    disk.heal("pwrite")
    wait_until(lambda: assert_served(larder, thing) and larder.stored(thing.digest), "it is stored")
    behind.resume()
    r = behind.result()
    assert r.good and r.body == thing.data


def test_clients_that_leave_while_nothing_can_be_stored(disk, start_larder, upstream):
    larder = start_larder(upstream)
    disk.fail("pwrite", errno.ENOSPC, 2)
    thing = Thing(upstream, 4 * MIB)
    fetches = [Fetch(larder.address, thing.ours, leave_at=1 + n * 300 * KIB) for n in range(12)]
    stays = Fetch(larder.address, thing.ours)
    assert stays.result().body == thing.data
    for f in fetches:
        f.result()
    wait_until(lambda: larder.metric("upstream_requests_active") == 0, "upstream is let go")
    larder.wait_idle()


def test_stopping_while_nothing_can_be_stored(disk, start_larder, upstream):
    larder = start_larder(upstream, client_limits={"drain_timeout": "200ms"})
    disk.fail("pwrite", errno.ENOSPC, 2)
    thing = Thing(upstream, 4 * MIB)
    gate = upstream.hold(thing.theirs, at=3 * MIB)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(2 * MIB)
    larder.stop()
    gate.release()
    assert not f.result().good
