"""What was stored is served after a restart, however the last run ended, also when upstream is gone; what is damaged
is a miss and never served."""

import os
import random
import re

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, MIB, Image, Index, blob
from lib.larder import cache_status
from lib.upstream import Fault

APP = "t/app"


class Thing:
    def __init__(self, upstream, size=2 * MIB, name="restart"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_everything_that_was_stored_is_served_without_upstream(larder, upstream, end):
    index = upstream.add("app", Index([Image("one", (100 * KIB, 10)), Image("two", (20,), "sha512")]), tag="v1")
    first = {}
    targets = [paths.manifest(APP, "v1"), paths.tags(APP)] + [paths.manifest(APP, d) for d in index.manifests()]
    targets += [paths.blob(APP, d) for d in index.blobs]
    for target in targets:
        first[target] = larder.get(target)
        assert first[target].good
    larder.wait_idle()
    larder.stop() if end == "stopped" else larder.kill()
    upstream.stop()
    larder.start()
    for target in targets:
        r = larder.get(target)
        if target == paths.tags(APP):
            continue  # kept in memory or not
        assert r.good and r.body == first[target].body, target
        for name in ("Content-Type", "Docker-Content-Digest", "ETag", "Content-Length"):
            assert r.header(name) == first[target].header(name)
        assert cache_status(r)[0] == "hit"
    assert larder.get(paths.blob(APP, "sha256:" + "0" * 64)).status in (502, 503)


def test_the_links_of_content_to_repositories_survive(larder, upstream):
    """Content is served only through repositories that have it, after a restart as before."""
    data = blob("linked", 1000)
    name = upstream.add_blob("one", data)
    upstream.repo("two")
    assert larder.get(paths.blob("t/one", name)).good
    larder.restart()
    assert larder.get(paths.blob("t/two", name)).status == 404
    upstream.stop()
    assert larder.get(paths.blob("t/one", name)).body == data


def killed(larder, upstream, thing, front):
    """A fill up to front, and then larder is killed."""
    gate = upstream.hold(thing.theirs, at=front, nth=1)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(front)
    larder.kill()
    gate.release()
    assert not f.result().good


def test_a_partial_file_survives_and_is_resumed(larder, upstream):
    thing = Thing(upstream)
    killed(larder, upstream, thing, MIB)
    assert not larder.stored(thing.digest) and len(larder.partials()) == 1
    larder.start()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert upstream.requests()[-1].range is not None, "what was there is not fetched again"
    assert larder.metric("upstream_received_bytes_total") < len(thing.data)
    larder.wait_stored(thing.digest)
    assert larder.partials() == []


def test_a_partial_file_of_a_stopped_fill_is_resumed(upstream, start_larder):
    larder = start_larder(upstream, client_limits={"drain_timeout": "100ms"})
    thing = Thing(upstream)
    gate = upstream.hold(thing.theirs, at=MIB, nth=1)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(MIB)
    larder.stop()
    gate.release()
    assert not f.result().good
    larder.start()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert upstream.requests()[-1].range == "bytes=%d-" % MIB


@pytest.mark.parametrize("mode", ["refuse", "wrong", "ignore"])
def test_a_partial_file_whose_rest_is_not_to_be_had_alone(larder, upstream, mode):
    """What upstream says to Range is known before the file has been read: it is not written to until then."""
    thing = Thing(upstream)
    killed(larder, upstream, thing, MIB)
    larder.start()
    upstream.on(lambda s: s.path == thing.theirs and s.range is not None, Fault(range=mode))
    whole, part = Fetch(larder.address, thing.ours), Fetch(larder.address, thing.ours, headers={"Range": "bytes=1000-1999"})
    part, whole = part.result(), whole.result()
    assert part.good and part.status == 206 and part.body == thing.data[1000:2000]
    assert whole.good and whole.body == thing.data
    larder.wait_stored(thing.digest)
    upstream.stop()
    assert larder.get(thing.ours).body == thing.data


def test_a_partial_file_is_kept_where_upstream_refuses_ranges(larder, upstream):
    """It says how long the blob is, which is enough: nobody waits for the file to be read, and it is not thrown away."""
    thing = Thing(upstream)
    killed(larder, upstream, thing, MIB)
    larder.start()
    upstream.on(lambda s: s.path == thing.theirs and s.range, Fault(range="refuse"))
    gate = upstream.hold(thing.theirs, at=0)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(MIB)
    gate.release()
    r = f.result()
    assert r.good and r.body == thing.data
    assert [s.range for s in upstream.requests()][-2:] == ["bytes=%d-" % MIB, None]


def test_a_partial_file_that_is_all(larder, upstream):
    """Killed before it was put into its place. Upstream knows no Range: what is there is not fetched again all the same."""
    thing = Thing(upstream)
    killed(larder, upstream, thing, MIB)
    with open(larder.partial_path(thing.digest), "wb") as file:
        file.write(thing.data)
    larder.start()
    upstream.on(thing.theirs, Fault(range="ignore"))
    before = larder.metric("upstream_received_bytes_total")
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert larder.metric("upstream_received_bytes_total") - before < MIB
    larder.wait_stored(thing.digest)


def test_what_lay_ahead_of_a_killed_fill_leaves_no_gap(larder, upstream):
    """Killed with an extent ahead of its front, and killed again while the front stands in the block below it."""
    thing = Thing(upstream)
    killed(larder, upstream, thing, MIB // 2)
    with open(larder.partial_path(thing.digest), "r+b") as file:
        block = max(4096, os.fstat(file.fileno()).st_blksize)
        file.seek(MIB)
        file.write(thing.data[MIB:MIB + 512 * KIB])
    larder.start()
    front, gap = MIB // 2 - block, MIB - 1000
    gate = upstream.hold(lambda s: s.range == "bytes=%d-" % front, at=gap - front)
    f = Fetch(larder.address, thing.ours)
    f.wait_got(gap)
    larder.kill()
    gate.release()
    assert not f.result().good
    larder.start()
    r = larder.get(thing.ours, {"Range": "bytes=%d-%d" % (gap - 500, MIB + 500)})
    assert r.status == 206 and r.body == thing.data[gap - 500:MIB + 501]
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    larder.wait_stored(thing.digest)
    assert larder.metric("digest_mismatches_total") == 0


def test_a_large_partial_file_does_not_keep_upstream_waiting(larder, upstream):
    thing = Thing(upstream, 72 * MIB, "large")
    killed(larder, upstream, thing, 66 * MIB)
    larder.start()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    assert [s.range for s in upstream.requests()][-2:] == ["bytes=%d-" % (66 * MIB)] * 2, "for its head, and when its turn has come"
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "longer", "emptied", "too long"])
def test_a_damaged_partial_file_is_never_served_whole(larder, upstream, damage):
    thing = Thing(upstream)
    killed(larder, upstream, thing, MIB)
    path = larder.partial_path(thing.digest)
    with open(path, "r+b") as file:
        if damage == "flipped":
            file.seek(1000)
            file.write(bytes([thing.data[1000] ^ 1]))
        elif damage == "zeroed":
            file.write(b"\0" * 100 * KIB)
        elif damage == "longer":
            file.seek(0, os.SEEK_END)
            file.write(b"x" * 100 * KIB)
        elif damage == "too long":
            file.seek(0, os.SEEK_END)
            file.write(b"x" * 3 * MIB)
        else:
            file.truncate(0)
    larder.start()
    for _ in range(3):
        r = larder.get(thing.ours)
        if r.good:
            break
        assert r.status in (200, 502) and not larder.stored(thing.digest)
        larder.wait_idle()
    assert r.good and r.body == thing.data, "wrong bytes from an earlier run do not stand in the way for ever"
    larder.wait_stored(thing.digest)


@pytest.mark.parametrize("damage", ["shortened", "emptied", "removed", "longer"])
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("kind", ["blob", "manifest"])
def test_a_damaged_object_is_a_miss_before_the_head_goes_out(larder, upstream, damage, running, kind):
    image = upstream.add("app", Image("damaged", (100 * KIB,)), tag="v1")
    name, data = (image.layers[0], image.blobs[image.layers[0]]) if kind == "blob" else (image.digest, image.manifest)
    target = paths.blob(APP, name) if kind == "blob" else paths.manifest(APP, name)
    assert larder.get(target).good
    larder.wait_stored(name)
    larder.expect_damage = True
    if not running:
        larder.stop()
    path = larder.blob_path(name)
    if damage == "removed":
        os.unlink(path)
    elif damage == "longer":
        with open(path, "ab") as file:
            file.write(b"more")
    else:
        os.truncate(path, len(data) // 2 if damage == "shortened" else 0)
    if not running:
        larder.start()
    r = larder.get(target)
    assert r.good and r.body == data, "fetched again"
    larder.wait_idle()
    larder.expect_damage = False
    larder.check_store()
    upstream.stop()
    assert larder.get(target).body == data


def test_a_damaged_object_without_upstream_is_an_error(larder, upstream):
    thing = Thing(upstream, 100 * KIB)
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    larder.expect_damage = True
    os.truncate(larder.blob_path(thing.digest), 1000)
    upstream.stop()
    for _ in range(2):
        assert larder.get(thing.ours).status in (502, 503)


def test_an_object_removed_while_it_is_read(larder, upstream):
    thing = Thing(upstream, 24 * MIB)
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    f = Fetch(larder.address, thing.ours, stop_at=100 * KIB, receive_buffer=16 * KIB)
    f.wait_got(100 * KIB)
    os.unlink(larder.blob_path(thing.digest))
    f.resume()
    assert f.result().body == thing.data, "who has it open reads it to the end"


def test_killed_at_random_moments(larder, upstream):
    """Never served wrong, no leftovers but one partial per digest, and what was complete stays."""
    dice = random.Random(11)
    things = [Thing(upstream, 300 * KIB + n * 50 * KIB, "kill-%d" % n) for n in range(8)]
    image = upstream.add("app", Image("kill", (10,)), tag="v1")
    upstream.on(re.compile("/blobs/"), Fault(rate=8 * MIB))
    complete = set()
    for _ in range(8):
        fetches = [(t, Fetch(larder.address, t.ours)) for t in dice.sample(things, 5)]
        manifest = Fetch(larder.address, paths.manifest(APP, "v1"))
        dice.choice(fetches)[1].wait_got(dice.randrange(1, 200 * KIB))
        larder.kill()
        complete.update(t for t in things if larder.stored(t.digest))
        for thing, f in fetches + [(None, manifest)]:
            r = f.result()
            if r.good:
                assert r.body == (thing.data if thing else image.manifest)
        larder.check_store()
        assert len(larder.partials()) <= len(things)
        larder.start()
        upstream.forget()
        for thing in complete:
            assert larder.stored(thing.digest), "what was whole stays"
            assert larder.get(thing.ours).body == thing.data
    for thing in things:
        assert larder.get(thing.ours).body == thing.data
    larder.wait_stored(*[t.digest for t in things])
    assert larder.partials() == []


def test_a_store_from_nothing_and_one_that_exists(start_larder, upstream, tmp_path):
    """The folder is made; foreign files in it are left alone."""
    store = tmp_path / "deep" / "store"
    store.parent.mkdir()
    larder = start_larder(upstream, store={"path": str(store)})
    larder.store = str(store)
    thing = Thing(upstream, 1000)
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    assert (store / "oci-layout").read_text().replace(" ", "").strip() == '{"imageLayoutVersion":"1.0.0"}'
    assert (store / "blobs" / "sha256" / thing.digest[7:]).read_bytes() == thing.data
    larder.stop()
    (store / "README").write_text("mine")
    larder.start()
    assert larder.get(thing.ours).good and (store / "README").read_text() == "mine"


@pytest.mark.parametrize("damage", ["random", "emptied", "removed"])
def test_a_damaged_index_is_made_anew(larder, upstream, damage):
    """What lies beside it is served after one question to upstream, without being fetched, and then without any."""
    thing = Thing(upstream, 100 * KIB)
    image = upstream.add("app", Image("index", (10 * KIB,)), tag="v1")
    targets = {thing.ours: thing.data, paths.manifest(APP, "v1"): image.manifest, paths.manifest(APP, image.digest): image.manifest}
    targets.update((paths.blob(APP, d), data) for d, data in image.blobs.items())
    for target, data in targets.items():
        assert larder.get(target).body == data
    larder.wait_idle()
    larder.stop()
    directory = os.path.join(larder.store, "index")
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if damage == "random":
            with open(path, "r+b") as file:
                file.write(os.urandom(min(8192, os.path.getsize(path))))
        elif damage == "emptied":
            os.truncate(path, 0)
        else:
            os.unlink(path)
    larder.start()
    upstream.forget()
    for target, data in targets.items():
        r = larder.get(target)
        assert r.good and r.body == data
    assert upstream.sent(thing.theirs) <= 1, "the content is here: at most a byte is asked for"
    larder.wait_idle()
    upstream.forget()
    for target, data in targets.items():
        assert larder.get(target).body == data
    assert upstream.count() == 0
