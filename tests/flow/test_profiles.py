"""The registries that everybody uses, pulled from through larder by their real names and with real clients: what each of them wants is given
to it, nothing goes where it does not belong, and what is here costs nobody a request."""

import json
import os
import re
import shutil
import subprocess

import pytest

from lib import paths
from lib.client import fetch_many
from lib.containerd import Containerd
from lib.images import KIB, MIB, Image, Index, blob
from lib.larder import cache_status, wait_until
from lib.profiles import PROFILES, AzureContainerRegistry, DockerHub, Ghcr, LinuxServer, Nvcr, Quay, RedHat
from lib.upstream import Fault

MANIFESTS, BLOBS = re.compile("/manifests/"), re.compile("/blobs/")


def image_of(name):
    return Index([Image(name + "/amd", (200 * KIB, 10), arch="amd64"), Image(name + "/arm", (50 * KIB, 10), arch="arm64")])


@pytest.fixture(scope="module")
def containerd(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    with Containerd(tmp_path_factory.mktemp("c")) as daemon:
        yield daemon


@pytest.fixture
def start(root, start_larder, tmp_path):
    """A function that starts a profile and a larder in front of it."""
    started = []

    def start(kind, account=False, defaults=None, **upstream):
        profile = kind(root, account)
        started.append(profile)
        return profile, start_larder(profile, defaults=defaults, **profile.config(folder=tmp_path, **upstream))

    yield start
    for profile in started:
        profile.stop()
        profile.check()


def skopeo(larder, reference, target):
    assert shutil.which("skopeo"), "skopeo is not installed"
    r = subprocess.run(["skopeo", "copy", "--all", "--src-tls-verify=false", "docker://127.0.0.1:%d/r/%s" % (larder.port, reference),
                        "oci:%s" % target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    assert r.returncode == 0, r.stdout
    return target


def contents(index):
    return dict(index.blobs, **{name: data for name, (_, data) in index.manifests().items()})


def assert_copied(directory, index):
    for name, data in contents(index).items():
        assert (directory / "blobs" / "sha256" / name.split(":")[1]).read_bytes() == data


def ctr_pull(daemon, larder, profile, repo, index):
    daemon.hosts = os.path.join(daemon.directory, "hosts-" + type(profile).__name__)
    if not os.path.exists(daemon.hosts):
        daemon.mirror(profile.registry, "http://127.0.0.1:%d" % larder.port)
    r = daemon.ctr("images", "pull", "--all-platforms", "--hosts-dir", daemon.hosts, "--snapshotter", "native",
                   "%s/%s:v1" % (profile.registry, repo), namespace=type(profile).__name__)
    assert r.returncode == 0, r.stdout
    listed = daemon.ctr("content", "ls", "-q", namespace=type(profile).__name__).stdout.split()
    assert set(contents(index)) <= set(listed)


def assert_paid_once(profile, repo, index):
    """One transfer for each thing, and nothing that the registry has to refuse."""
    given = [s for s in profile.requests("GET") if s.status == 200]
    manifests = [s.target for s in given if MANIFESTS.search(s.target)]
    assert len(manifests) == len(set(manifests)) == 3, manifests
    assert sum(s.host == profile.cdn or "artifacts-downloads" in s.target for s in given) == len(index.blobs), given
    assert not [s for s in profile.requests("HEAD") if not MANIFESTS.search(s.target)], "no HEAD before a GET, least of all of a signed link"
    # Requests that lead to others: to the bytes of each blob, and of everything where the registry has nothing itself.
    led = [s for s in profile.requests() if s.status in (302, 307)]
    assert len(led) <= (2 * len(index.blobs) + 4 if profile.elsewhere else len(index.blobs)), led
    refused = [s for s in profile.requests() if s.status == 401]
    assert len(refused) <= 1, refused
    assert len(profile.requests()) == len(given) + len(led) + len(refused) + profile.count("HEAD", MANIFESTS), profile.requests()
    return refused


def assert_one_token_each(profile, repos):
    for server in profile.tokens.values():
        asked = server.scopes_asked()
        assert len(asked) == len(set(asked)), asked
    asked = [scope for server in profile.tokens.values() for scope in server.scopes_asked()]
    if profile.tokens:
        assert len(asked) <= len(repos), asked
        assert all(re.fullmatch(r"aws|repository:\S+:pull", scope) for scope in asked), asked


@pytest.mark.parametrize("kind", PROFILES, ids=lambda k: k.__name__)
def test_pulled_by_its_real_name_cold_and_again(kind, start, containerd, tmp_path):
    profile, larder = start(kind)
    one, two = profile.names
    first, second = image_of(kind.__name__ + "/one"), image_of(kind.__name__ + "/two")
    profile.add(one, first, tag="v1")
    profile.add(two, second, tag="v1")

    assert_copied(skopeo(larder, one + ":v1", tmp_path / "1"), first)
    assert_paid_once(profile, one, first)
    profile.forget()
    assert_copied(skopeo(larder, one + ":v1", tmp_path / "2"), first)
    ctr_pull(containerd, larder, profile, one, first)
    assert profile.requests() == []

    ctr_pull(containerd, larder, profile, two, second)
    assert assert_paid_once(profile, two, second) == [], "what the registry wants is known by now"
    profile.forget()
    assert_copied(skopeo(larder, two + ":v1", tmp_path / "3"), second)
    assert profile.requests() == []
    assert_one_token_each(profile, (one, two))


@pytest.mark.parametrize("kind", PROFILES, ids=lambda k: k.__name__)
def test_what_clients_may_ask_besides(kind, start):
    """HEAD of a blob that nobody has, parts of one, tags, what does not exist; with every token worth nothing in between."""
    profile, larder = start(kind)
    repo = profile.names[0]
    image = profile.add(repo, Image(kind.__name__ + "/more", (300 * KIB,)), tag="v1")
    data = image.blobs[image.layers[0]]
    target = paths.blob("r/" + repo, image.layers[0])
    r = larder.head(target)
    assert r.status == 200 and r.header("Content-Length") == str(len(data)), r
    for server in profile.tokens.values():
        server.expire()
    r = larder.get(target, {"Range": "bytes=1000-1999"})
    assert r.status == 206 and r.body == data[1000:2000], r
    assert larder.get(target).body == data
    assert larder.get(paths.tags("r/" + repo)).json() == {"name": "r/" + repo, "tags": ["v1"]}
    assert larder.get(paths.manifest("r/" + repo, "none")).status == 404
    assert larder.get(paths.blob("r/" + repo, image.config)).body == image.config_bytes
    assert not [s for s in profile.requests("HEAD") if s.host == profile.cdn], "links are signed for GET"


def test_many_clients_want_different_things_and_one_token_is_enough(start):
    hub, larder = start(DockerHub)
    data = [blob("token-%d" % n, 20 * KIB) for n in range(40)]
    targets = [paths.blob("r/team/app", hub.add_blob("team/app", d)) for d in data]
    for r, d in zip(fetch_many(larder.address, targets), data):
        larder.check_answer(r)
        assert r.good and r.body == d
    assert hub.token_server.scopes_asked() == ["repository:team/app:pull"]


def test_a_token_that_is_worth_nothing_is_renewed_once_for_all(start):
    hub, larder = start(DockerHub)
    data = [blob("renew-%d" % n, 20 * KIB) for n in range(41)]
    targets = [paths.blob("r/team/app", hub.add_blob("team/app", d)) for d in data]
    assert larder.get(targets[0]).good
    hub.token_server.expire()
    for r, d in zip(fetch_many(larder.address, targets[1:]), data[1:]):
        larder.check_answer(r)
        assert r.good and r.body == d
    assert len(hub.token_server.asked) == 2


def test_a_registry_that_changes_its_mind_about_tokens_that_have_ended(start):
    """nvcr.io: the challenge to an old token names a server that wants an account. The one for no token is good."""
    nvcr, larder = start(Nvcr)
    one, two = nvcr.add("nvidia/cuda", Image("nv1"), tag="v1"), nvcr.add("nvidia/cuda", Image("nv2"), tag="v2")
    assert larder.get(paths.manifest("r/nvidia/cuda", "v1")).body == one.manifest
    nvcr.token_server.expire()
    assert larder.get(paths.manifest("r/nvidia/cuda", "v2")).body == two.manifest
    assert len(nvcr.token_server.asked) == 2


@pytest.mark.parametrize("kind", [DockerHub, Ghcr, AzureContainerRegistry, RedHat], ids=lambda k: k.__name__)
def test_with_an_account(kind, start):
    """The profile sees to it that the password is shown to nobody but the token server."""
    profile, larder = start(kind, account=True)
    repo = profile.names[0]
    image = profile.add(repo, Image("account", (30 * KIB,)), tag="v1")
    assert larder.get(paths.manifest("r/" + repo, "v1")).body == image.manifest
    for name, data in image.blobs.items():
        assert larder.get(paths.blob("r/" + repo, name)).body == data
    assert {user for _, user, _ in profile.token_server.asked} == {"someone"}


def test_azure_takes_a_refresh_token_by_post(start, start_larder, tmp_path):
    azure, _ = start(AzureContainerRegistry)
    image = azure.add("app", Image("azure", (30 * KIB,)), tag="v1")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {azure.registry: {"identitytoken": azure.refresh_token}}}))
    config = azure.config(folder=tmp_path)
    config["credential_sets"] = [{"name": "account", "login_server": azure.registry, "password": "dockerconfig:%s" % file}]
    larder = start_larder(azure, **config)
    assert larder.get(paths.manifest("r/app", "v1")).body == image.manifest
    assert larder.get(paths.blob("r/app", image.config)).body == image.config_bytes
    assert azure.token_server.asked == [("POST", "someone", "repository:app:pull")]


@pytest.mark.parametrize("kind", [DockerHub, RedHat], ids=lambda k: k.__name__)
def test_a_wrong_password_is_not_tried_over_and_over(kind, start, tmp_path):
    profile, larder = start(kind, account=True)
    repo = profile.names[0]
    profile.add(repo, Image("refused"), tag="v1")
    profile.token_server.accounts["someone"] = "another"
    for n in range(30):
        r = larder.get(paths.manifest("r/" + repo, "v%d" % n))
        assert r.status in (403, 502, 503) and r.clean, r
    assert len(profile.token_server.asked) <= 6, profile.token_server.asked
    wait_until(lambda: larder.logged(text="account"), "the log says which credential set it is")


def test_docker_hub_knows_short_names_and_aliases(start):
    hub, larder = start(DockerHub)
    image = hub.add("library/app", Image("short", (10 * KIB,)), tag="v1")
    assert larder.get(paths.manifest("r/app", "v1")).body == image.manifest
    for registry in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        r = larder.get(paths.manifest("app", "v1") + "?ns=" + registry)
        assert r.body == image.manifest and cache_status(r)[0] == "hit"
    assert hub.count("GET", MANIFESTS) <= 2


def test_docker_hub_counts_pulls(start):
    hub, larder = start(DockerHub, defaults={"tag_ttl": "0s"})
    image = hub.add("library/app", Image("limits", (10 * KIB,)), tag="v1")
    assert larder.get(paths.manifest("r/app", "v1")).good
    assert hub.left == 99
    limits = {name: value for name, value in larder.metrics().items() if "ratelimit" in name}
    assert limits == {'larder_upstream_ratelimit_limit{registry="docker.io"}': 100,
                      'larder_upstream_ratelimit_remaining{registry="docker.io"}': 99}
    for _ in range(5):
        assert larder.get(paths.manifest("r/app", "v1")).good
    assert hub.left == 99, "a look whether the tag has moved is not counted"
    hub.left = 0
    hub.add("library/app", Image("limits 2"), tag="v2")
    r = larder.get(paths.manifest("r/app", "v2"))
    assert r.status == 429 and r.error_code == "TOOMANYREQUESTS" and int(r.header("Retry-After")) > 0
    asked = hub.count()
    assert larder.get(paths.manifest("r/app", "v3")).status == 429
    assert hub.count() == asked, "who is over the limit is left alone"
    assert larder.get(paths.manifest("r/app", "v1")).body == image.manifest, "what is here is served"


def test_a_link_that_has_expired_in_the_middle_is_asked_for_again(start):
    quay, larder = start(Quay)
    data = blob("expired", MIB)
    target = paths.blob("team/app", quay.add_blob("team/app", data))

    def expire(body):
        quay.expire_links()
        return body

    quay.on(lambda seen: seen.host == quay.cdn, Fault(cut_at=300 * KIB, body=expire), times=1)
    assert larder.get("/v2/r" + target[3:]).body == data
    assert [s.status for s in quay.at(quay.cdn, "GET") if s.range] == [206]
    assert quay.count("GET", target) >= 2


def test_the_registry_behind_another_has_its_own_credentials(start, start_larder, tmp_path):
    """lscr.io is answered by ghcr.io: the account of the first is no business of the second's."""
    profile, larder = start(LinuxServer, account=True)
    image = profile.add("linuxserver/app", Image("behind", (10 * KIB,)), tag="v1")
    assert larder.get(paths.manifest("r/linuxserver/app", "v1")).body == image.manifest
    assert {user for _, user, _ in profile.token_server.asked} == {None}
