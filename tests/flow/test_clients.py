"""Real clients pull real images through larder from a real registry, and each thing is fetched once."""

import os
import re
import shutil
import subprocess
import tempfile

import pytest

from lib import paths
from lib.containerd import Containerd
from lib.images import KIB, MIB, Image, Index
from lib.registry import DockerRegistry

CONTENT = re.compile("/(blobs|manifests)/")


@pytest.fixture
def registry(tmp_path):
    with DockerRegistry(tmp_path / "registry") as r:
        yield r


@pytest.fixture
def image():
    return Image("pulled", (2 * MIB, 300 * KIB, 10))


@pytest.fixture
def cache(registry, start_larder, image):
    """docker.io and a second registry, both really the docker-registry, under hub/ and quay/."""
    registry.push("library/app", image, "v1")
    registry.push("team/app", image, "v1")
    registry.forget()
    return start_larder(None, upstreams=[{"registry": name, "endpoints": [registry.url]} for name in ("docker.io", "quay.test")],
                        rules=[{"name": "hub", "source": "docker.io/*", "target": "hub/*"},
                               {"name": "quay", "source": "quay.test/*", "target": "quay/*"}])


def run(*arguments, **more):
    assert shutil.which(arguments[0]), "%s is not installed" % arguments[0]
    return subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120, **more)


def skopeo_copy(larder, reference, target):
    r = run("skopeo", "copy", "--src-tls-verify=false", "docker://127.0.0.1:%d/%s" % (larder.port, reference), "dir:%s" % target)
    assert r.returncode == 0, r.stdout
    return target


def assert_copied(directory, image):
    assert (directory / "manifest.json").read_bytes() == image.manifest
    for name, data in image.blobs.items():
        assert (directory / name.split(":")[1]).read_bytes() == data


def assert_each_thing_once(registry, image, references=1):
    """Every blob and manifest was transferred once."""
    gets = [t for m, t, status in registry.requests() if m == "GET" and CONTENT.search(t) and status == 200]
    assert len(gets) == len(set(gets)), gets
    assert sum("/blobs/" in t for t in gets) == len(image.blobs)
    assert sum("/manifests/" in t for t in gets) == references


def test_skopeo_copies_an_image_and_the_second_time_costs_upstream_nothing(cache, registry, image, tmp_path):
    assert_copied(skopeo_copy(cache, "hub/app:v1", tmp_path / "one"), image)
    assert_each_thing_once(registry, image)
    registry.forget()
    assert_copied(skopeo_copy(cache, "hub/app:v1", tmp_path / "two"), image)
    assert_copied(skopeo_copy(cache, "hub/library/app:v1", tmp_path / "three"), image)
    assert_copied(skopeo_copy(cache, "hub/app@" + image.digest, tmp_path / "four"), image)
    assert registry.requests() == []


def test_skopeo_when_the_registry_is_gone_and_larder_was_restarted(cache, registry, image, tmp_path):
    skopeo_copy(cache, "hub/app:v1", tmp_path / "one")
    cache.stop()
    registry.stop()
    cache.start()
    assert_copied(skopeo_copy(cache, "hub/app:v1", tmp_path / "two"), image)
    assert_copied(skopeo_copy(cache, "hub/app@" + image.digest, tmp_path / "three"), image)


def test_skopeo_copies_all_platforms_of_an_index(cache, registry, tmp_path):
    index = Index([Image("amd", (100 * KIB,), arch="amd64"), Image("arm", (50 * KIB,), arch="arm64")])
    registry.push("team/multi", index, "v1")
    registry.forget()
    source = "docker://127.0.0.1:%d/quay/team/multi:v1" % cache.port
    for target in ("one", "two"):
        r = run("skopeo", "copy", "--all", "--src-tls-verify=false", source, "oci:%s" % (tmp_path / target))
        assert r.returncode == 0, r.stdout
        for name, data in list(index.blobs.items()) + [(d, m) for d, (_, m) in index.manifests().items()]:
            assert (tmp_path / target / "blobs" / "sha256" / name.split(":")[1]).read_bytes() == data
    assert_each_thing_once(registry, index, references=3)
    r = run("skopeo", "list-tags", "--tls-verify=false", "docker://127.0.0.1:%d/quay/team/multi" % cache.port)
    assert r.returncode == 0 and '"v1"' in r.stdout, r.stdout
    r = run("skopeo", "inspect", "--tls-verify=false", "--raw", source)
    assert r.stdout.encode() == index.manifest


def test_skopeo_copies_of_docker_schema_2(cache, registry, tmp_path):
    old = Image("docker", (10 * KIB,), docker=True)
    registry.push("library/old", old, "v1")
    assert_copied(skopeo_copy(cache, "hub/old:v1", tmp_path / "one"), old)
    assert_copied(skopeo_copy(cache, "hub/old:v1", tmp_path / "two"), old)


def test_many_skopeos_at_once_cost_upstream_one_pull(cache, registry, image, tmp_path):
    source = "docker://127.0.0.1:%d/hub/app:v1" % cache.port
    running = [subprocess.Popen(["skopeo", "copy", "-q", "--src-tls-verify=false", source, "dir:%s" % (tmp_path / str(n))],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for n in range(8)]
    for n, process in enumerate(running):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
        assert_copied(tmp_path / str(n), image)
    assert_each_thing_once(registry, image)


def test_skopeo_cannot_push_and_is_told_so(cache, image, tmp_path):
    skopeo_copy(cache, "hub/app:v1", tmp_path / "one")
    r = run("skopeo", "copy", "--dest-tls-verify=false", "dir:%s" % (tmp_path / "one"),
            "docker://127.0.0.1:%d/hub/app:mine" % cache.port)
    assert r.returncode != 0 and ("read-only" in r.stdout or "unsupported" in r.stdout.lower() or "405" in r.stdout), r.stdout


def test_skopeo_is_told_what_does_not_exist(cache):
    for reference in ("hub/none:v1", "nowhere/app:v1"):
        r = run("skopeo", "inspect", "--tls-verify=false", "docker://127.0.0.1:%d/%s" % (cache.port, reference))
        assert r.returncode != 0 and "unknown" in r.stdout, r.stdout


# ---- containerd ----

@pytest.fixture
def containerd(cache, tmp_path):
    """A function that starts a fresh containerd whose mirrors of two registries are larder."""
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    started = []

    def start():
        daemon = Containerd(tmp_path / ("c%d" % len(started)))
        started.append(daemon)
        for name in ("docker.io", "quay.test"):
            daemon.mirror(name, "http://127.0.0.1:%d" % cache.port)
        return daemon.start()

    yield start
    for daemon in started:
        daemon.stop()


def assert_has(daemon, reference, image):
    r = daemon.ctr("images", "check", "--snapshotter", "native", "name==" + reference)
    assert r.returncode == 0 and "complete" in r.stdout and "true" in r.stdout, r.stdout
    for name, data in image.blobs.items():
        r = subprocess.run(["ctr", "--address", daemon.socket, "--namespace", "test", "content", "get", name],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120)
        assert r.stdout == data


def test_containerd_pulls_from_two_registries_with_ns(cache, registry, image, containerd):
    """Only ?ns= says which registry is meant: the paths have no prefix of ours."""
    first = containerd()
    r = first.pull("docker.io/library/app:v1")
    assert r.returncode == 0, r.stdout
    assert_has(first, "docker.io/library/app:v1", image)
    assert_each_thing_once(registry, image)
    assert all("/library/app/" in t and "ns=" not in t for _, t, _ in registry.requests() if CONTENT.search(t))
    second = containerd()
    r = second.pull("quay.test/team/app:v1")
    assert r.returncode == 0, r.stdout
    assert_has(second, "quay.test/team/app:v1", image)
    # The layers are the same; whether this repository has them too is asked without a transfer.
    assert not [t for m, t, s in registry.requests() if m == "GET" and "/team/app/blobs/" in t]
    # Further pulls, by fresh containerds, cost upstream nothing.
    registry.forget()
    third = containerd()
    for reference in ("docker.io/library/app:v1", "quay.test/team/app:v1", "docker.io/library/app@" + image.digest):
        r = third.pull(reference)
        assert r.returncode == 0, r.stdout
    assert registry.requests() == []


def test_containerd_when_the_registry_is_gone_and_larder_was_restarted(cache, registry, image, containerd):
    assert containerd().pull("docker.io/library/app:v1").returncode == 0
    cache.stop()
    registry.stop()
    cache.start()
    daemon = containerd()
    r = daemon.pull("docker.io/library/app:v1")
    assert r.returncode == 0, r.stdout
    assert_has(daemon, "docker.io/library/app:v1", image)


def test_containerd_of_a_registry_without_a_rule_is_sent_on(cache, registry, containerd):
    """404 makes it go on to the next host, which here is a port where nobody listens."""
    daemon = containerd()
    daemon.mirror("elsewhere.test", "http://127.0.0.1:%d" % cache.port)
    r = daemon.pull("elsewhere.test/library/app:v1")
    assert r.returncode != 0 and "127.0.0.1:1" in r.stdout, r.stdout
    assert registry.requests() == []


# ---- podman ----

@pytest.fixture
def podman(tmp_path):
    """A function that runs podman on a storage of its own, number n."""
    assert shutil.which("podman"), "deps/install.sh test installs it"
    environment = dict(os.environ, HOME=str(tmp_path), TMPDIR=str(tmp_path))
    # The path of a runroot may have 50 characters at most, which a test's folder has not always.
    short = tempfile.mkdtemp(prefix="larder-", dir="/tmp")

    def call(n, *arguments, **more):
        return run("podman", "--root", str(tmp_path / ("root%d" % n)), "--runroot", "%s/%d" % (short, n),
                   "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none", *arguments,
                   env=dict(environment, **more))

    try:
        r = call(0, "info")
        if r.returncode != 0:
            pytest.skip("podman does not run here: " + r.stdout.strip()[-300:])
        yield call
    finally:
        shutil.rmtree(short, ignore_errors=True)


def test_podman_pulls_and_the_second_time_costs_upstream_nothing(cache, registry, image, podman):
    reference = "127.0.0.1:%d/hub/app:v1" % cache.port
    r = podman(1, "pull", "--tls-verify=false", reference)
    assert r.returncode == 0, r.stdout
    assert_each_thing_once(registry, image)
    assert image.config.split(":")[1] in r.stdout
    registry.forget()
    r = podman(2, "pull", "--tls-verify=false", reference)
    assert r.returncode == 0, r.stdout
    assert podman(2, "image", "exists", reference).returncode == 0
    assert registry.requests() == []


def test_podman_with_larder_as_the_mirror_of_docker_hub(cache, registry, image, podman, tmp_path):
    """registries.conf has no ns; the prefix of the rule stands in the mirror's location."""
    conf = tmp_path / "registries.conf"
    conf.write_text('[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:1"\ninsecure = true\n'
                    '[[registry.mirror]]\nlocation = "127.0.0.1:%d/hub"\ninsecure = true\n' % cache.port)
    for n in (1, 2):
        r = podman(n, "pull", "docker.io/library/app:v1", CONTAINERS_REGISTRIES_CONF=str(conf))
        assert r.returncode == 0, r.stdout
    assert_each_thing_once(registry, image)


def test_what_clients_pulled_is_what_larder_serves(cache, registry, image, tmp_path):
    skopeo_copy(cache, "hub/app:v1", tmp_path / "one")
    registry.stop()
    assert cache.get(paths.manifest("hub/app", "v1")).body == image.manifest
    for name, data in image.blobs.items():
        assert cache.get(paths.blob("hub/app", name)).body == data
