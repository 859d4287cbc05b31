"""What lies in the store is changed behind larder's back: it is found, put away, fetched again, and not served."""

import os
import shutil

import pytest

from lib import paths
from lib.images import KIB, MIB, Image, blob
from lib.larder import cache_status, wait_until
from lib.upstream import Fault

APP = "t/app"


class Thing:
    def __init__(self, upstream, size=300 * KIB, name="damage"):
        self.data = blob(name, size)
        self.digest = upstream.add_blob("app", self.data)
        self.theirs, self.ours = paths.blob("app", self.digest), paths.blob(APP, self.digest)


def flip(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def zero(path):
    with open(path, "r+b") as file:
        file.write(bytes(min(4096, os.path.getsize(path))))


def swap(path):
    """Another file of that length, under this name."""
    size = os.path.getsize(path)
    with open(path + ".other", "wb") as file:
        file.write(blob("other", size))
    os.rename(path + ".other", path)


def shorten(path):
    os.truncate(path, os.path.getsize(path) - 1)


def directory(path):
    os.unlink(path)
    os.mkdir(path)


def link(path):
    os.rename(path, path + ".elsewhere")
    os.symlink(path + ".elsewhere", path)


def pipe(path):
    os.unlink(path)
    os.mkfifo(path)


CONTENT = [flip, zero, swap, shorten]
KINDS = [directory, link, pipe]


def put_away(larder):
    return os.listdir(os.path.join(larder.store, "quarantine"))


def settle(larder):
    """Afterwards the store has to be sound again."""
    for name in os.listdir(os.path.join(larder.store, "blobs", "sha256")):
        if name.endswith((".elsewhere", ".other")):
            os.unlink(larder.blob_path("sha256:" + name))
    larder.expect_damage = False
    larder.check_store()


@pytest.mark.parametrize("damage", CONTENT + KINDS)
@pytest.mark.parametrize("running", [True, False])
def test_a_damaged_manifest(larder, upstream, damage, running):
    image = upstream.add("app", Image("damaged", (10,)), tag="v1")
    targets = [paths.manifest(APP, "v1"), paths.manifest(APP, image.digest)]
    for target in targets:
        assert larder.get(target).body == image.manifest
    larder.wait_stored(image.digest)
    larder.expect_damage = True
    if not running:
        larder.stop()
    damage(larder.blob_path(image.digest))
    if not running:
        larder.start()
    for _ in range(2):
        for target in targets:
            r = larder.get(target)
            assert r.good and r.body == image.manifest
    larder.wait_idle()
    if not running:
        assert damage in KINDS or len(put_away(larder)) == 1
        upstream.stop()
        for target in targets:
            assert cache_status(larder.get(target))[0] == "hit"
        settle(larder)


@pytest.mark.parametrize("limited", [True, False])
def test_a_tag_whose_manifest_was_put_away_is_not_stale_but_missing(start_larder, upstream, limited):
    """Upstream cannot give it again just now: an error that says so, and when to come again."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"})
    image = upstream.add("app", Image("put-away", (10,)), tag="v1")
    target = paths.manifest(APP, "v1")
    assert larder.get(target).good
    larder.wait_stored(image.digest)
    larder.expect_damage = True
    shorten(larder.blob_path(image.digest))
    fault = Fault(status=429, headers={"Retry-After": "30"}) if limited else Fault(status=500)
    rule = upstream.on(lambda s: True, fault)
    for _ in range(4):
        r = larder.get(target)
        assert r.status == (429 if limited else 502)
        assert cache_status(r) == ("miss", {"fwd": "miss", "fwd-status": str(fault.status)})
        assert not limited or 1 <= int(r.header("Retry-After")) <= 30
    assert put_away(larder) != [] and not larder.stored(image.digest)
    if not limited:
        rule.fault = Fault()
        assert larder.get_when_up(target).body == image.manifest
        settle(larder)


@pytest.mark.parametrize("damage", KINDS + [shorten])
@pytest.mark.parametrize("running", [True, False])
def test_a_blob_that_is_none_any_more(larder, upstream, damage, running):
    thing = Thing(upstream)
    assert larder.get(thing.ours).body == thing.data
    larder.wait_stored(thing.digest)
    larder.expect_damage = True
    if not running:
        larder.stop()
    damage(larder.blob_path(thing.digest))
    if not running:
        larder.start()
    for _ in range(2):
        assert larder.get(thing.ours).body == thing.data
        larder.wait_idle()
    upstream.stop()
    assert larder.get(thing.ours).body == thing.data
    settle(larder)


@pytest.mark.parametrize("damage", [flip, zero, swap])
def test_a_blob_that_was_written_to(larder, upstream, damage):
    """Its length is right, its time is not: it is read before it is served."""
    thing = Thing(upstream)
    assert larder.get(thing.ours).body == thing.data
    larder.wait_stored(thing.digest)
    larder.expect_damage = True
    larder.stop()
    damage(larder.blob_path(thing.digest))
    larder.start()
    for _ in range(2):
        assert larder.get(thing.ours).body == thing.data
        larder.wait_idle()
    assert len(put_away(larder)) == 1
    upstream.stop()
    assert larder.get(thing.ours).body == thing.data
    settle(larder)


def test_scrubbing_finds_what_cannot_be_seen(start_larder, upstream):
    """Content that changed under an unchanged length: found without anybody's asking, and then fetched again."""
    larder = start_larder(upstream, run=False)
    larder.config["store"]["scrub_rate"] = "1GiB"
    larder.start()
    things = [Thing(upstream, name="scrub-%d" % n) for n in range(8)]
    for thing in things:
        assert larder.get(thing.ours).good
        larder.wait_stored(thing.digest)
    larder.expect_damage = True
    bad = things[:3]
    for thing, damage in zip(bad, (flip, zero, swap)):
        damage(larder.blob_path(thing.digest))
    wait_until(lambda: larder.metric("store_quarantined_objects") == 3, "all three are found")
    assert sorted(put_away(larder)) == sorted(t.digest.replace(":", "-") for t in bad)
    assert larder.metric("store_objects") == 5
    rounds = larder.metric("store_scrub_rounds_total")
    wait_until(lambda: larder.metric("store_scrub_rounds_total") > rounds, "the round has ended")
    assert larder.metric("store_scrub_damaged_total") == 3 and larder.metric("store_scrub_damaged") == 0
    upstream.forget()
    for thing in things:
        assert larder.get(thing.ours).body == thing.data
    larder.wait_idle()
    assert {s.path for s in upstream.requests()} == {t.theirs for t in bad}
    settle(larder)


@pytest.mark.parametrize("damage", [flip, zero, swap, shorten])
def test_what_was_stored_right_before_a_crash_is_verified(larder, upstream, damage):
    thing = Thing(upstream)
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    larder.expect_damage = True
    larder.kill()
    damage(larder.blob_path(thing.digest))
    larder.start()
    for _ in range(2):
        r = larder.get(thing.ours)
        assert r.good and r.body == thing.data
        larder.wait_idle()
    settle(larder)


@pytest.mark.parametrize("content", ["right", "wrong", "of another length"])
def test_files_that_the_index_does_not_know(larder, upstream, content):
    """After a crash they are adopted; the right ones save a transfer, the wrong ones are not served."""
    thing, other = Thing(upstream), Thing(upstream, 100, "other")
    assert larder.get(other.ours).good
    larder.wait_stored(other.digest)
    larder.expect_damage = True
    larder.kill()
    data = {"right": thing.data, "wrong": blob("wrong", len(thing.data)), "of another length": thing.data[:-1]}[content]
    with open(larder.blob_path(thing.digest), "wb") as file:
        file.write(data)
    larder.start()
    if content == "right":
        wait_until(lambda: larder.metric("store_objects") == 2, "it is adopted")
    else:
        wait_until(lambda: not larder.stored(thing.digest), "it is put away")
    upstream.forget()
    r = larder.get(thing.ours)
    assert r.good and r.body == thing.data
    larder.wait_idle()
    if content == "right":
        assert upstream.sent(thing.theirs) <= 1
    settle(larder)


def test_all_files_removed_while_running(larder, upstream):
    image = upstream.add("app", Image("removed", (100 * KIB, 10)), tag="v1")
    targets = {paths.manifest(APP, "v1"): image.manifest}
    targets.update((paths.blob(APP, d), data) for d, data in image.blobs.items())
    for target, data in targets.items():
        assert larder.get(target).body == data
    larder.wait_idle()
    folder = os.path.join(larder.store, "blobs", "sha256")
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    for _ in range(2):
        for target, data in targets.items():
            r = larder.get(target)
            assert r.good and r.body == data
        larder.wait_idle()
    larder.restart()
    for target, data in targets.items():
        assert larder.get(target).body == data


def test_modes_are_nobodys_business(larder, upstream):
    """Files that the owner may not read (root may): right bytes, or fetched again."""
    thing = Thing(upstream, MIB)
    assert larder.get(thing.ours).good
    larder.wait_stored(thing.digest)
    larder.stop()
    os.chmod(larder.blob_path(thing.digest), 0)
    larder.start()
    for _ in range(2):
        assert larder.get(thing.ours).body == thing.data
        larder.wait_idle()


def test_a_copy_of_the_pool_is_a_pool(start_larder, upstream):
    """blobs/ alone, moved to another machine: everything is there again, after one question each."""
    larder = start_larder(upstream)
    things = [Thing(upstream, name="copy-%d" % n) for n in range(4)]
    for thing in things:
        assert larder.get(thing.ours).good
        larder.wait_stored(thing.digest)
    larder.stop()
    other = start_larder(upstream, run=False)
    os.makedirs(other.store)
    shutil.copytree(os.path.join(larder.store, "blobs"), os.path.join(other.store, "blobs"))
    other.start()
    upstream.forget()
    for thing in things:
        assert other.get(thing.ours).body == thing.data
    assert upstream.sent() <= len(things)
    assert other.metric("store_objects") == len(things)
