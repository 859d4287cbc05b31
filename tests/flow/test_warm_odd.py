"""Warming what is odd: manifests that lie about sizes or never end, a store that is too small, things that went between two steps."""

import http.client
import json
import os

import pytest

from lib import paths
from lib.images import KIB, MIB, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Image, Index, blob, to_json
from lib.larder import wait_until

APP = "t/app"


def ask(larder, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", larder.admin_port, timeout=60)
    connection.request(method, "/api/v1/" + path, headers={"Larder-Admin": "1"} if method == "POST" else {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def start(larder, reference="v1", **more):
    query = "".join("&%s=%s" % item for item in more.items())
    status, answer = ask(larder, "POST", "warm-start?repository=%s&reference=%s%s" % (APP, reference, query))
    assert status == 200, answer
    return answer["id"]


def report(larder, number):
    return ask(larder, "GET", "warm?id=%d" % number)[1]


def end(larder, number):
    return wait_until(lambda: (lambda r: r if r["state"] != "running" else None)(report(larder, number)), "it has ended")


def warm(larder, reference="v1", **more):
    return end(larder, start(larder, reference, **more))


def with_sizes(upstream, sizes, tag="v1"):
    """An image whose manifest says these sizes of its layers; None: nothing."""
    layers = [upstream.add_blob("app", blob("odd-%d" % n, 50 * KIB)) for n in range(len(sizes))]
    config = upstream.add_blob("app", b"{}")
    descriptors = [dict({"mediaType": OCI_LAYER, "digest": d}, **({} if size is None else {"size": size})) for d, size in zip(layers, sizes)]
    document = to_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
                        "layers": descriptors})
    upstream.add_manifest("app", document, OCI_MANIFEST, tag)
    return layers, len(document) + 2 + len(layers) * 50 * KIB


@pytest.mark.parametrize("sizes", [[None, None], [0, -5], [1, 7], [MIB, 0], [2 ** 70, "x"]])
def test_sizes_that_lie(upstream, larder, sizes):
    layers, size = with_sizes(upstream, sizes)
    gate = upstream.hold(paths.blob("app", layers[0]), at=40 * KIB)
    number = start(larder)
    gate.wait_reached()
    seen = wait_until(lambda: (lambda r: r if r["blobs"] == len(sizes) else None)(report(larder, number)), "the others are here")
    assert seen["bytes"] <= seen["bytes_all"] < 2 ** 63, seen
    gate.release()
    r = end(larder, number)
    assert r["state"] == "done" and r["bytes"] == r["bytes_all"] == size, r


@pytest.mark.parametrize("sizes", [[1 << 60], [2 ** 63 - 1, 2 ** 63 - 1, 2 ** 63 - 1]])
def test_sizes_that_no_disk_has(upstream, larder, sizes):
    layers, _ = with_sizes(upstream, sizes)
    r = warm(larder)
    assert r["state"] == "failed" and "store.max_size, or the disk" in r["error"] and r["bytes_all"] < 2 ** 63, r
    assert not any(map(larder.stored, layers))


def test_more_manifests_than_larder_follows(upstream, larder):
    children = [upstream.add_manifest("app", to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"n": str(n)}}), OCI_INDEX)
                for n in range(1001)]
    upstream.add_manifest("app", to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_INDEX, "digest": d, "size": 100} for d in children]}), OCI_INDEX, "v1")
    r = warm(larder, platforms="all")
    assert r["state"] == "failed" and "1000" in r["error"], r


def test_an_image_of_many_layers_that_is_here(upstream, larder):
    image = upstream.add("app", Image("many", tuple(range(1, 401))), tag="v1")
    first = warm(larder)
    assert first["state"] == "done" and first["blobs"] == first["blobs_all"] == len(image.blobs)
    upstream.forget()
    again = warm(larder)
    assert again["blobs"] == len(image.blobs) and again["bytes"] == again["bytes_all"] == first["bytes"] and again["fetched"] == 0
    assert upstream.seen == []


def test_an_index_that_tells_no_platforms(upstream, larder):
    """An index of other artifacts: its children may be for any platform."""
    image = Image("plain", (5000,))
    upstream.add("app", image)
    index = to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}]})
    upstream.add_manifest("app", index, OCI_INDEX, "v1")
    r = warm(larder)
    assert r["state"] == "done" and all(map(larder.stored, image.blobs)), r


def test_an_image_larger_than_the_store(upstream, start_larder):
    larder = start_larder(upstream, run=False)
    larder.config["store"]["max_size"] = "16MiB"
    larder.start()
    image = upstream.add("app", Image("large", (4 * MIB,) * 6), tag="v1")
    r = warm(larder)
    whole = all(larder.stored(d) for d in image.blobs)
    assert r["state"] == "failed" and "max_size" in r["error"], (r, whole)


def test_a_tag_whose_manifest_is_gone_here_and_there(upstream, larder):
    """A pull asks for the tag again; so does warming."""
    larder.expect_damage = True
    old = upstream.add("app", Image("old", (10,)), tag="v1")
    assert warm(larder)["state"] == "done"
    new = upstream.add("app", Image("new", (20,)), tag="v1")
    del upstream.repo("app")["manifests"][old.digest]
    larder.stop()
    os.unlink(larder.blob_path(old.digest))
    larder.start()
    assert larder.get(paths.manifest(APP, old.digest)).status == 404
    r = warm(larder)
    assert r["state"] == "done" and r["digest"] == new.digest, r


@pytest.mark.parametrize("what", ["manifest", "blob"])
@pytest.mark.parametrize("at", ["request", "head", 10])
def test_cancelled_at_any_time(upstream, larder, what, at):
    image = upstream.add("app", Image("x", (100 * KIB,)), tag="v1")
    gate = upstream.hold(paths.manifest("app", "v1") if what == "manifest" else paths.blob("app", image.layers[0]), at=at)
    number = start(larder)
    gate.wait_reached()
    assert ask(larder, "POST", "warm-cancel?id=%d" % number)[0] == 200
    assert end(larder, number)["state"] == "cancelled"
    assert ask(larder, "POST", "warm-cancel?id=%d" % number)[0] == 404
    gate.release()
    larder.wait_idle()
    assert warm(larder)["state"] == "done"


def test_cancelled_at_once(upstream, larder):
    upstream.add("app", Image("x", (100 * KIB,)), tag="v1")
    for _ in range(50):
        number = start(larder, platforms="all")
        ask(larder, "POST", "warm-cancel?id=%d" % number)
        assert end(larder, number)["state"] in ("cancelled", "done")
    larder.wait_idle()
    assert warm(larder)["state"] == "done"


@pytest.mark.parametrize("harm", ["removed", "flipped"])
def test_damaged_manifests_are_fetched_again(upstream, larder, harm):
    images = [Image("damaged %d" % n, (10,)) for n in range(2)]
    index = upstream.add("app", Index(images), tag="v1")
    larder.expect_damage = True
    assert warm(larder, platforms="all")["state"] == "done"
    larder.restart()  # so that no file is open
    for d in (index.digest, images[1].digest):
        path = larder.blob_path(d)
        if harm == "removed":
            os.unlink(path)
        else:
            with open(path, "r+b") as f:
                f.seek(20)
                byte = f.read(1)
                f.seek(20)
                f.write(bytes([byte[0] ^ 1]))
    upstream.forget()
    r = warm(larder, platforms="all")
    assert r["state"] == "done" and r["manifests"] == 3 and r["fetched"] == 2 and r["bytes"] == r["bytes_all"], r
    assert upstream.count("GET") == 2
    for d in (index.digest, *[i.digest for i in images]):
        assert larder.get(paths.manifest(APP, d)).good and larder.stored(d)


def test_a_manifest_above_a_limit_that_came_later(upstream, larder):
    """It is not taken for damaged: it stays, and is served."""
    image = Image("large", [10] * 10)
    upstream.add("app", image, tag="v1")
    assert len(image.manifest) > KIB and warm(larder)["state"] == "done"
    larder.config["upstreams"][0]["max_manifest"] = "1KiB"
    larder.write_config()
    wait_until(lambda: larder.logged(msg="configuration reloaded"), "it is in force")
    r = warm(larder)
    assert r["state"] == "failed" and "max_manifest" in r["error"], r
    assert larder.stored(image.digest) and larder.get(paths.manifest(APP, image.digest)).body == image.manifest
