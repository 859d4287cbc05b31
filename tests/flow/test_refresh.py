"""Tags that are in use, checked before their time is over, so that no pull waits for the check."""

import errno
import re

import pytest

from lib import paths
from lib.disk import Disk
from lib.images import OCI_INDEX, OCI_MANIFEST, Image, Index, to_json
from lib.larder import REGISTRY, cache_status, wait_until
from lib.upstream import Fault

APP = "t/app"
TAG = paths.manifest("app", "v1")
OURS = paths.manifest(APP, "v1")
SHORT = {"tag_ttl": "2s", "refresh": "tags"}


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("first", (10,)), tag="v1")


def pulled(larder, image):
    """All of it, as a client does."""
    assert larder.get(OURS).good
    for one in image.images if isinstance(image, Index) else [image]:
        assert larder.get(paths.manifest(APP, one.digest)).good
        for digest in one.blobs:
            assert larder.get(paths.blob(APP, digest)).good
    larder.wait_stored(*image.manifests(), *image.blobs)


def checks(upstream):
    return upstream.count("HEAD", TAG)


def test_a_tag_in_use_is_checked_without_a_pull(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=SHORT)
    assert larder.get(OURS).good
    wait_until(lambda: checks(upstream) >= 3, "it is checked again and again")
    assert upstream.count("GET", TAG) == 1
    assert larder.metric("tag_refreshes_total") >= 2


def test_the_answer_is_fresh_whenever_it_is_pulled(upstream, start_larder, image):
    larder = start_larder(upstream, defaults={"tag_ttl": "20s", "refresh": "tags"})
    assert larder.get(OURS).good
    wait_until(lambda: checks(upstream) >= 1, "its time is nearly over")
    r = larder.get(OURS)
    what, values = cache_status(r)
    assert what == "hit" and int(values["ttl"]) > 0 and r.body == image.manifest


def test_a_tag_that_moves_is_fetched(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=SHORT)
    assert larder.get(OURS).good
    moved = upstream.add("app", Image("moved", (20,)), tag="v1")
    wait_until(lambda: larder.stored(moved.digest), "the manifest that it names now is here")
    assert not any(larder.stored(d) for d in moved.blobs)
    wait_until(lambda: larder.logged(msg="tag has moved"), "the log says so")
    r = larder.get(OURS)
    assert r.body == moved.manifest and cache_status(r)[0] == "hit"


def test_without_refresh_nobody_asks(upstream, start_larder, image):
    other = upstream.add("other", Image("other", (10,)), tag="v1")
    larder = start_larder(upstream, defaults={"tag_ttl": "1s"}, rules=[
        {"name": "all", "source": REGISTRY + "/*", "target": "t/*"},
        {"name": "other", "source": REGISTRY + "/other", "target": "t/other", "refresh": "tags"}])
    assert larder.get(OURS).good
    assert larder.get(paths.manifest("t/other", "v1")).body == other.manifest
    wait_until(lambda: upstream.count("HEAD", paths.manifest("other", "v1")) >= 3, "the other one is checked")
    assert upstream.count(path=TAG) == 1


def test_tags_that_never_move_are_left_alone(upstream, start_larder, image):
    upstream.add("app", Image("other", (10,)), tag="latest")
    larder = start_larder(upstream, defaults=dict(SHORT, immutable_tags=["v*"]))
    assert larder.get(OURS).good
    assert larder.get(paths.manifest(APP, "latest")).good
    wait_until(lambda: upstream.count("HEAD", paths.manifest("app", "latest")) >= 3, "the other one is checked")
    assert upstream.count(path=TAG) == 1


def test_the_new_image_is_fetched_for_the_platforms_that_are_here(upstream, start_larder):
    old = [Image("old %s" % arch, (10, 20), arch=arch) for arch in ("amd64", "arm64", "s390x")]
    upstream.add("app", Index(old), tag="v1")
    larder = start_larder(upstream, defaults=dict(SHORT, refresh="images"))
    assert larder.get(OURS).good
    for image in old[1:]:
        assert larder.get(paths.manifest(APP, image.digest)).good
    larder.wait_stored(old[1].digest, old[2].digest)
    new = [Image("new %s" % arch, (30, 40), arch=arch) for arch in ("amd64", "arm64", "s390x")]
    index = upstream.add("app", Index(new), tag="v1")
    larder.wait_stored(index.digest, *[d for image in new[1:] for d in [image.digest, *image.blobs]])
    upstream.stop()
    for image in new[1:]:
        assert larder.get(paths.manifest(APP, image.digest)).body == image.manifest
        for digest, content in image.blobs.items():
            r = larder.get(paths.blob(APP, digest))
            assert r.body == content and cache_status(r)[0] == "hit"
    assert not larder.stored(new[0].digest)


def test_a_plain_image_is_fetched_whole(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=dict(SHORT, refresh="images"))
    pulled(larder, image)
    new = upstream.add("app", Image("new", (30, 40)), tag="v1")
    larder.wait_stored(new.digest, *new.blobs)
    assert all(upstream.count("GET", paths.blob("app", d)) == 1 for d in new.blobs)


def test_failures_are_not_repeated_at_once(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=SHORT)
    assert larder.get(OURS).good
    upstream.on(TAG, Fault(status=500))
    upstream.forget()
    wait_until(lambda: checks(upstream) >= 1, "a check that fails")
    other = upstream.add("other", Image("other", (10,)), tag="v1")
    assert larder.get(paths.manifest("t/other", "v1")).body == other.manifest
    wait_until(lambda: upstream.count("HEAD", paths.manifest("other", "v1")) >= 4, "others go on")
    assert checks(upstream) < 4
    r = larder.get(OURS)
    assert r.good and r.body == image.manifest
    upstream.clear()
    upstream.forget()
    wait_until(lambda: upstream.count("HEAD", TAG) >= 2, "it is checked again")


def test_a_tag_that_is_gone_is_served_and_asked_for_less(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=SHORT)
    assert larder.get(OURS).good
    del upstream.repo("app")["tags"]["v1"]
    upstream.forget()
    wait_until(lambda: checks(upstream) >= 1, "a check that finds nothing")
    upstream.add("other", Image("other", (10,)), tag="v1")
    assert larder.get(paths.manifest("t/other", "v1")).good
    wait_until(lambda: upstream.count("HEAD", paths.manifest("other", "v1")) >= 4, "others go on")
    assert checks(upstream) < 4
    r = larder.get(OURS)
    assert r.good and r.body == image.manifest
    again = upstream.add("app", Image("again", (20,)), tag="v1")
    wait_until(lambda: larder.get(OURS).body == again.manifest, "it is there again")


def test_an_image_that_could_not_be_fetched_is_tried_again(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=dict(SHORT, refresh="images"))
    pulled(larder, image)
    new = Image("new", (30, 40))
    upstream.on(paths.blob("app", new.layers[1]), Fault(status=403))
    upstream.add("app", new, tag="v1")
    wait_until(lambda: larder.logged(msg="the image that a tag names anew was not fetched ahead"), "one try")
    upstream.clear()
    larder.wait_stored(new.digest, *new.blobs)


def test_a_move_that_a_client_sees_first_is_followed_too(upstream, start_larder):
    old, new = [Index([Image("%s %s" % (name, arch), (30,), arch=arch) for arch in ("amd64", "arm64")]) for name in ("old", "new")]
    upstream.add("app", old, tag="v1")
    larder = start_larder(upstream, defaults={"tag_ttl": "5s", "refresh": "images"})
    assert larder.get(OURS).good
    assert larder.get(paths.manifest(APP, old.images[1].digest)).good
    larder.wait_stored(old.images[1].digest)
    wait_until(lambda: checks(upstream) >= 1, "it is known by now")
    # Its next check fails, so that a client is the one who learns of the move.
    rule = upstream.on(TAG, Fault(status=500))
    wait_until(lambda: rule.used >= 1, "a check that fails")
    upstream.clear()
    upstream.add("app", new, tag="v1")
    wait_until(lambda: larder.get(OURS).body == new.manifest, "a client, or a check, sees the move")
    larder.wait_stored(new.images[1].digest, *new.images[1].blobs)
    assert not larder.stored(new.images[0].digest)


def test_a_reload_turns_it_off_and_on(upstream, start_larder, image):
    clock = paths.manifest("clock", "v1")
    upstream.add("clock", Image("clock", (10,)), tag="v1")
    larder = start_larder(upstream, defaults=SHORT, rules=[
        {"name": "all", "source": REGISTRY + "/*", "target": "t/*"},
        {"name": "clock", "source": REGISTRY + "/clock", "target": "t/clock", "refresh": "tags"}])
    assert larder.get(OURS).good
    wait_until(lambda: checks(upstream) >= 2, "it is checked")
    larder.config["defaults"]["refresh"] = "off"
    larder.write_config()
    wait_until(lambda: larder.logged(msg="configuration reloaded"), "it is in force")
    seen = checks(upstream)
    assert larder.get(paths.manifest("t/clock", "v1")).good
    wait_until(lambda: upstream.count("HEAD", clock) >= 5, "the other one is checked")
    assert checks(upstream) <= seen + 1
    larder.config["defaults"]["refresh"] = "tags"
    larder.write_config()
    wait_until(lambda: larder.get(OURS).good and checks(upstream) >= seen + 4, "it is checked again")


def test_stopping_ends_checks_under_way(upstream, start_larder, image):
    larder = start_larder(upstream, defaults=SHORT)
    assert larder.get(OURS).good
    gate = upstream.hold(TAG, at="head", method="HEAD")
    gate.wait_reached()
    larder.stop()


def test_an_index_that_takes_nothing_is_no_reason_to_ask_for_ever(upstream, start_larder, image, tmp_path, monkeypatch):
    disk = Disk(tmp_path / "disk", monkeypatch)
    larder = start_larder(upstream, defaults=SHORT, workers=1)
    assert larder.get(OURS).good
    wait_until(lambda: checks(upstream) >= 1, "it is checked")
    disk.fail("index", errno.EIO)
    wait_until(lambda: larder.logged(msg="index not updated"), "a check is not written down")
    upstream.forget()
    for _ in range(2000):
        assert larder.get("/v2/").good
    assert checks(upstream) < 5
    disk.heal("index")
    upstream.forget()
    wait_until(lambda: checks(upstream) >= 2, "it is checked again")


def test_those_that_were_used_last_are_checked_first(upstream, start_larder, image):
    """More tags than can be checked in time."""
    larder = start_larder(upstream, defaults=SHORT, workers=1)
    upstream.on(re.compile("^/v2/cold/manifests/"), Fault(delay={"request": 0.3}), method="HEAD")
    for n in range(60):
        upstream.add("cold", Image("cold %d" % n, (10,)), tag="v%d" % n)
        assert larder.get(paths.manifest("t/cold", "v%d" % n)).good
    assert larder.get(OURS).good
    upstream.forget()
    wait_until(lambda: upstream.count("HEAD", re.compile("^/v2/cold/")) >= 60, "many are checked")
    assert checks(upstream) >= 2


def many_platforms(upstream, word, n):
    """An index as buildx makes it: each image has its attestation. The last image is s390x."""
    images = [Image("%s %d" % (word, i), (10,), arch="arch%d" % i if i < n - 1 else "s390x") for i in range(n)]
    entries = []
    for image in images:
        upstream.add("app", image)
        proof = Image("proof of %s" % image.name, (5,))
        upstream.add("app", proof)
        entries += [{"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest), "platform": {"os": "linux", "architecture": image.arch}},
                    {"mediaType": OCI_MANIFEST, "digest": proof.digest, "size": len(proof.manifest), "platform": {"os": "unknown", "architecture": "unknown"}}]
    upstream.add_manifest("app", to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), OCI_INDEX, "v1")
    return images


@pytest.mark.parametrize("n", [10, 40])
def test_a_platform_far_down_in_the_index_is_one_that_is_here(upstream, start_larder, n):
    last = many_platforms(upstream, "old", n)[-1]
    larder = start_larder(upstream, defaults=dict(SHORT, refresh="images"))
    assert larder.get(OURS).good
    assert larder.get(paths.manifest(APP, last.digest)).good
    larder.wait_stored(last.digest)
    new = many_platforms(upstream, "new", n)
    larder.wait_stored(new[-1].digest, *new[-1].blobs)
    assert not any(larder.stored(image.digest) for image in new[:-1])


def test_of_an_image_that_nobody_pulls_only_the_tag_is_kept_fresh(upstream, start_larder):
    """Some tools only look where a tag leads."""
    images = lambda word: [Image("%s %s" % (word, arch), (10,), arch=arch) for arch in ("amd64", "arm64")]
    upstream.add("app", Index(images("old")), tag="v1")
    larder = start_larder(upstream, defaults=dict(SHORT, refresh="images"))
    assert larder.get(OURS).good
    new = images("new")
    index = upstream.add("app", Index(new), tag="v1")
    larder.wait_stored(index.digest)
    upstream.forget()
    wait_until(lambda: checks(upstream) >= 3, "it goes on")
    larder.wait_idle()
    assert not any(larder.stored(image.digest) for image in new)
