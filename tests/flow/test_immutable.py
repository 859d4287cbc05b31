"""Tags that never move: once here, the registry is not asked about them again."""

import os

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import Image
from lib.larder import cache_status, wait_until

APP = "t/app"
OURS = paths.manifest(APP, "v1")


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("first", (10,)), tag="v1")


@pytest.fixture
def larder(upstream, start_larder, image):
    """No tag is fresh for any time; only those that never move are served without a question."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s", "immutable_tags": ["v*", "*-rc*"]})
    assert larder.get(OURS).good
    wait_until(lambda: larder.get(OURS).good and cache_status(larder.get(OURS))[0] == "hit", "the index has the tag")
    upstream.forget()
    return larder


def assert_hit(r, image):
    assert r.status == 200 and r.header("Docker-Content-Digest") == image.digest
    what, values = cache_status(r)
    assert what == "hit" and "ttl" not in values and "detail" not in values


def test_it_is_never_asked_again(larder, upstream, image):
    upstream.add("app", Image("moved", (20,)), tag="v1")
    for method in ("GET", "HEAD", "GET"):
        assert_hit(larder.request(method, OURS), image)
    larder.restart()
    for f in [Fetch(larder.address, OURS) for _ in range(10)]:
        assert_hit(f.result(), image)
    upstream.stop()
    assert_hit(larder.get(OURS), image)
    assert upstream.count() == 0


def test_others_are(larder, upstream):
    for tag in ("latest", "1v", "rc"):
        image = upstream.add("app", Image("is " + tag), tag=tag)
        assert larder.get(paths.manifest(APP, tag)).body == image.manifest
        moved = upstream.add("app", Image("moved " + tag), tag=tag)
        wait_until(lambda t=tag, m=moved: larder.get(paths.manifest(APP, t)).body == m.manifest, "the move is seen")


def test_what_the_store_has_lost_comes_back_by_digest(larder, upstream, image):
    larder.expect_damage = True
    upstream.add("app", Image("moved", (20,)), tag="v1")
    larder.stop()
    os.unlink(larder.blob_path(image.digest))
    larder.start()
    r = larder.get(OURS)
    assert r.good and r.body == image.manifest
    assert upstream.count(path=paths.manifest("app", "v1")) == 0
    assert upstream.count("GET", paths.manifest("app", image.digest)) == 1
    wait_until(lambda: larder.stored(image.digest), "it is stored again")


def test_what_upstream_has_lost_too_is_not_another_image(larder, upstream, image):
    larder.expect_damage = True
    upstream.add("app", Image("moved", (20,)), tag="v1")
    del upstream.repo("app")["manifests"][image.digest]
    larder.stop()
    os.unlink(larder.blob_path(image.digest))
    larder.start()
    r = larder.get(OURS)
    assert r.status == 404 and r.error_code == "MANIFEST_UNKNOWN"
    assert upstream.count(path=paths.manifest("app", "v1")) == 0


def test_a_rule_has_its_own(upstream, start_larder):
    upstream.add("app", Image("a"), tag="v1")
    larder = start_larder(upstream, defaults={"tag_ttl": "0s", "immutable_tags": ["v*"]}, rules=[
        {"name": "none", "source": "up.test/*", "target": "t/*", "immutable_tags": []}])
    assert larder.get(OURS).good
    moved = upstream.add("app", Image("b"), tag="v1")
    wait_until(lambda: larder.get(OURS).body == moved.manifest, "the move is seen")
