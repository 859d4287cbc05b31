"""The store stays inside its limits: what was asked for longest ago goes first, images keep what is small of them, nobody who reads is
disturbed, and the counts are right also after a restart."""

import os

import pytest

from lib import paths
from lib.client import Fetch
from lib.disk import Tmpfs
from lib.images import KIB, MIB, Image, Index, blob
from lib.larder import cache_status, wait_until

APP = "t/app"


class Thing:
    def __init__(self, upstream, size, name):
        self.data = blob("evict/" + name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def things(upstream, n, size=MIB, name="thing"):
    return [Thing(upstream, size, "%s-%d" % (name, i)) for i in range(n)]


def limited(start_larder, upstream, **limits):
    larder = start_larder(upstream, run=False)
    larder.config["store"].update(limits)
    return larder.start()


def pull(larder, thing):
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    wait_until(lambda: larder.metric("fetches_in_flight") == 0, "no fetch is in progress")


def on_disk(larder):
    """(files, bytes) of whole objects."""
    sizes = []
    for name in larder.stored_objects():
        try:
            sizes.append(os.path.getsize(larder.blob_path(name)))
        except FileNotFoundError:
            pass
    return len(sizes), sum(sizes)


def assert_counts(larder):
    """What larder says of its store is what lies there."""
    wait_until(lambda: on_disk(larder) == (larder.metric("store_objects"), larder.metric("store_bytes")), "the counts agree with the files")
    assert larder.metric("store_used_bytes") == larder.metric("store_bytes") + larder.metric("store_partial_bytes") \
        + larder.metric("store_quarantined_bytes")


def assert_within(larder, limit):
    wait_until(lambda: larder.metric("store_used_bytes") <= limit, "the store is within %d bytes" % limit)
    wait_until(lambda: on_disk(larder)[1] <= limit, "so is the disk")


def test_the_limit_is_kept(start_larder, upstream):
    larder = limited(start_larder, upstream, max_size="12MiB")
    for thing in things(upstream, 40, 700 * KIB):
        pull(larder, thing)
        assert_within(larder, 12 * MIB)
    assert larder.metric("store_evicted_objects_total") >= 40 - 12 * MIB // (700 * KIB)
    assert larder.metric("store_evicted_bytes_total") == larder.metric("store_evicted_objects_total") * 700 * KIB
    assert on_disk(larder)[1] >= 12 * MIB * 9 // 10, "no more goes than must"
    assert_counts(larder)


def test_what_was_asked_for_longest_ago_goes_first(start_larder, upstream):
    larder = limited(start_larder, upstream, max_size="12MiB")
    old, new = things(upstream, 10), things(upstream, 5, name="new")
    for thing in old:
        pull(larder, thing)
    for thing in old[:4]:
        assert cache_status(larder.get(thing.ours))[0] == "hit"
    for thing in new:
        pull(larder, thing)
    assert_within(larder, 12 * MIB)
    assert all(larder.stored(t.digest) for t in old[:4] + new[-3:]), "asked for lately"
    gone = [larder.stored(t.digest) for t in old[4:]]
    assert not gone[0] and gone == sorted(gone), "of the others the oldest are gone"
    upstream.forget()
    pull(larder, old[4])
    assert upstream.count("GET", old[4].theirs) == 1, "what is gone is fetched again"


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_the_order_survives_a_restart(start_larder, upstream, end):
    larder = limited(start_larder, upstream, max_size="12MiB")
    old = things(upstream, 10)
    for thing in old:
        pull(larder, thing)
    for thing in old[:4]:
        assert larder.get(thing.ours).good
    if end == "stopped":
        larder.restart()
    else:
        larder.kill()
        larder.start()
    assert_counts(larder)
    upstream.forget()
    for thing in old[:4]:
        assert larder.get(thing.ours).body == thing.data
    assert upstream.count() == 0
    for thing in things(upstream, 5, name="new"):
        pull(larder, thing)
    assert_within(larder, 12 * MIB)
    assert all(larder.stored(t.digest) for t in old[:4]) and not larder.stored(old[4].digest)
    assert_counts(larder)


def test_of_an_image_the_layers_go_first(start_larder, upstream):
    """Manifests and configurations stay much longer, and the image comes back with its layers alone."""
    larder = limited(start_larder, upstream, max_size="12MiB")
    index = upstream.add("app", Index([Image("evicted", (2 * MIB, MIB))]), tag="v1")
    image = index.images[0]
    targets = {paths.manifest(APP, "v1"): index.manifest, paths.manifest(APP, image.digest): image.manifest}
    targets.update((paths.blob(APP, d), data) for d, data in image.blobs.items())
    for target, data in targets.items():
        assert larder.get(target).body == data
    larder.wait_idle()
    for thing in things(upstream, 16):
        pull(larder, thing)
    assert_within(larder, 12 * MIB)
    config = next(d for d in image.blobs if d not in image.layers)
    assert [larder.stored(d) for d in image.layers] == [False, False]
    assert larder.stored(index.digest) and larder.stored(image.digest) and larder.stored(config)
    upstream.forget()
    for target, data in targets.items():
        assert larder.get(target).body == data
    larder.wait_idle()
    assert {s.path for s in upstream.requests()} == {paths.blob("app", d) for d in image.layers}


def test_a_layer_that_two_images_share(start_larder, upstream):
    """It is one object: asked for through one image, it stays for the other."""
    larder = limited(start_larder, upstream, max_size="12MiB")
    shared, alone = Thing(upstream, MIB, "shared"), Thing(upstream, MIB, "alone")
    pull(larder, shared)
    pull(larder, alone)
    upstream.add_blob("second", shared.data)
    for n, thing in enumerate(things(upstream, 12)):
        pull(larder, thing)
        assert larder.get(paths.blob("t/second", shared.digest)).body == shared.data
    assert_within(larder, 12 * MIB)
    assert larder.stored(shared.digest) and not larder.stored(alone.digest)
    upstream.stop()
    assert larder.get(shared.ours).body == shared.data


def test_readers_of_an_object_that_should_go(start_larder, upstream):
    """What somebody reads stays until it is read; then it may go."""
    larder = limited(start_larder, upstream, max_size="12MiB")
    thing = Thing(upstream, 6 * MIB, "read")
    pull(larder, thing)
    readers = [Fetch(larder.address, thing.ours, stop_at=100 * KIB, receive_buffer=16 * KIB) for _ in range(5)]
    for f in readers:
        f.wait_got(100 * KIB)
    for other in things(upstream, 12):
        pull(larder, other)
    for f in readers:
        f.resume()
    for f in readers:
        r = f.result()
        assert r.good and r.body == thing.data
    for other in things(upstream, 12, name="more"):
        pull(larder, other)
    assert_within(larder, 12 * MIB)
    wait_until(lambda: not larder.stored(thing.digest), "it went")
    assert_counts(larder)


def test_what_is_larger_than_the_limit_is_passed_on(start_larder, upstream):
    larder = limited(start_larder, upstream, max_size="12MiB")
    kept, large = Thing(upstream, MIB, "kept"), Thing(upstream, 20 * MIB, "large")
    pull(larder, kept)
    for _ in range(2):
        pull(larder, large)
    r = larder.get(large.ours, {"Range": "bytes=10000000-10000099"})
    assert r.status == 206 and r.body == large.data[10000000:10000100]
    assert not larder.stored(large.digest) and larder.stored(kept.digest), "nothing had to go for it"
    assert larder.metric("store_evicted_objects_total") == 0
    assert larder.metric("store_errors_total") == 0, "that is no fault of the disk"
    assert larder.partials() == []


def test_content_that_nobody_asked_for_goes_by_age(start_larder, upstream):
    larder = limited(start_larder, upstream, max_age="1s")
    thing = Thing(upstream, 100 * KIB, "aged")
    pull(larder, thing)
    wait_until(lambda: not larder.stored(thing.digest), "it went")
    wait_until(lambda: larder.metric("store_objects") == 0, "it is counted")
    pull(larder, thing)


def test_the_limit_changes_with_the_configuration(start_larder, upstream):
    larder = limited(start_larder, upstream, max_size="100MiB")
    for thing in things(upstream, 12):
        pull(larder, thing)
    assert on_disk(larder)[0] == 12
    larder.config["store"]["max_size"] = "5MiB"
    larder.write_config()
    assert_within(larder, 5 * MIB)
    assert_counts(larder)


def test_what_stays_free(tmp_path, start_larder, upstream):
    """min_free is about the file system, whoever fills it."""
    fs = Tmpfs(tmp_path / "small", 40 * MIB)
    try:
        larder = start_larder(upstream, run=False, store={"path": fs.path + "/store", "min_free": "50%"})
        larder.store = fs.path + "/store"
        larder.start()
        for thing in things(upstream, 30):
            pull(larder, thing)
        wait_until(lambda: fs.free() >= 20 * MIB, "half of it is free")
        wait_until(lambda: larder.metric("store_evicted_objects_total") >= 8, "objects went for it")
        before = on_disk(larder)[1]
        with open(fs.path + "/other", "wb") as other:
            other.write(bytes(8 * MIB))
        wait_until(lambda: fs.free() >= 20 * MIB, "room was made")
        assert on_disk(larder)[1] < before
        assert_counts(larder)
        larder.stop()
    finally:
        fs.end()


def test_partial_files_go_before_objects(start_larder, upstream):
    larder = limited(start_larder, upstream, max_size="12MiB")
    larder.stop()
    larder.config["defaults"]["on_abandoned"] = "keep"
    larder.start()
    left = Thing(upstream, 6 * MIB, "left")
    gate = upstream.hold(left.theirs, at=5 * MIB, nth=1)
    f = Fetch(larder.address, left.ours)
    f.wait_got(5 * MIB - 256 * KIB)
    f.leave()
    f.result()
    gate.release()
    larder.wait_idle()
    wait_until(lambda: larder.metric("store_partial_bytes") >= 4 * MIB, "what is there is counted")
    some = things(upstream, 9)
    for thing in some:
        pull(larder, thing)
    assert_within(larder, 12 * MIB)
    assert larder.partials() == [] and larder.metric("store_partial_bytes") == 0
    assert all(larder.stored(t.digest) for t in some)
    pull(larder, left)


@pytest.mark.parametrize("limits, room", [({"max_size": "20MiB"}, 20), ({"min_free": "44MiB"}, 20)], ids=["max_size", "min_free"])
def test_fills_that_do_not_fit_together(start_larder, upstream, tmp_path, limits, room):
    """Four blobs at once of which the store has room for two, on a disk of 64 MiB: all come whole, and two are kept."""
    fs = Tmpfs(tmp_path / "small", 64 * MIB)
    try:
        larder = start_larder(upstream, run=False, store=dict(limits, path=fs.path + "/store"))
        larder.store = fs.path + "/store"
        larder.start()
        large = things(upstream, 4, 8 * MIB)
        gates = [upstream.hold(t.theirs, at=6 * MIB) for t in large]
        fetches = [Fetch(larder.address, t.ours) for t in large]
        for gate in gates:
            gate.wait_reached()
        assert larder.metric("store_used_bytes") <= room * MIB
        assert fs.free() >= (64 - room) * MIB
        for gate in gates:
            gate.release()
        for f, thing in zip(fetches, large):
            r = f.result()
            assert r.good and r.body == thing.data
        larder.wait_idle()
        assert on_disk(larder) == (2, 16 * MIB)
        assert larder.metric("store_passes_total") == 2
        assert_counts(larder)
        later = next(t for t in large if not larder.stored(t.digest))
        pull(larder, later)
        wait_until(lambda: larder.stored(later.digest), "alone it is kept, and another one goes")
        assert_within(larder, room * MIB)
        larder.stop()
    finally:
        fs.end()
