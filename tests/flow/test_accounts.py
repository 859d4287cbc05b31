"""Two rules on one repository: what one account may read, and when it was told so, says nothing of what another's may."""

import json

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import Image
from lib.larder import REGISTRY, cache_status, run, wait_until
from lib.secrets import secret
from lib.tokens import TokenRegistry, credentials, rule
from lib.upstream import Fault

TAG, MINE, ANYBODYS = "v1", "mine/app", "all/corp/app"


@pytest.fixture
def image():
    return Image("app", (30_000, 10))


@pytest.fixture
def password():
    return secret("password")


@pytest.fixture
def registry(image, password):
    """What is below corp/ wants the account."""
    with TokenRegistry(basic=("someone", password)) as up:
        up.add("corp/app", image, tag=TAG)
        up.allowed = lambda seen, scope: "/corp/" not in seen.path or "authorization" in seen.headers
        yield up


@pytest.fixture
def start(start_larder, registry, tmp_path, password):
    def start(**defaults):
        return start_larder(registry, credential_sets=[credentials(tmp_path, password)], defaults=defaults,
                            rules=[rule("all", REGISTRY + "/*", "all/*"), rule("mine", REGISTRY + "/corp/*", "mine/*", "account")])
    return start


def pull(larder, image, repo, tag=TAG):
    assert larder.get(paths.manifest(repo, tag)).body == image.manifest
    for name, data in image.blobs.items():
        assert larder.get(paths.blob(repo, name)).body == data
    larder.wait_stored(image.digest, *image.blobs)


def targets(repo, image):
    """A tag, a manifest by digest, a blob, and a list."""
    return [paths.manifest(repo, TAG), paths.manifest(repo, image.digest), paths.blob(repo, image.layers[0]), paths.tags(repo)]


# ---- failures ----

@pytest.mark.parametrize("which", range(4), ids=["tag", "digest", "blob", "list"])
def test_a_refusal_is_for_those_who_were_refused(start, registry, image, which):
    larder = start()
    theirs, mine = targets(ANYBODYS, image)[which], targets(MINE, image)[which]
    gate = registry.hold(lambda s: "/corp/" in s.path and "authorization" not in s.headers, at="request", times=1)
    refused = Fetch(larder.address, theirs)
    gate.wait_reached()
    assert larder.get(mine).good, "while the other one is asking"
    gate.release()
    assert refused.result().status == 403


@pytest.mark.parametrize("which", range(4), ids=["tag", "digest", "blob", "list"])
def test_a_registry_that_hides_what_may_not_be_seen(start, registry, image, which):
    larder = start(tag_ttl="0s", negative_ttl="10m")
    first = registry.add("corp/first", Image("first"), tag=TAG)
    assert larder.get(paths.manifest("mine/first", TAG)).body == first.manifest, "larder knows how the registry wants it"
    registry.on(lambda s: "/corp/" in s.path and "authorization" not in s.headers, Fault(status=404))
    for _ in range(2):
        assert larder.get(targets(ANYBODYS, image)[which]).status == 404
        assert larder.get(targets(MINE, image)[which]).good


def test_failed_checks_of_others_do_not_keep_a_tag_from_being_checked(start, registry, image):
    larder = start(tag_ttl="0s")
    pull(larder, image, MINE)
    for n in range(4):
        moved = registry.add("corp/app", Image("moved-%d" % n), tag=TAG)
        for _ in range(2):
            assert larder.get(paths.manifest(ANYBODYS, TAG)).status == 403
        assert larder.get(paths.manifest(MINE, TAG)).body == moved.manifest


# ---- what is cached ----

def test_what_one_account_has_brought_is_asked_about_for_another(start, registry, image):
    larder = start()
    pull(larder, image, MINE)
    registry.forget()
    for target in targets(ANYBODYS, image):
        for method in ("GET", "HEAD"):
            assert larder.request(method, target).status == 403, target
    assert registry.count() >= 4
    registry.allowed = lambda seen, scope: True
    registry.forget()
    assert larder.get_when_up(paths.manifest(ANYBODYS, TAG)).body == image.manifest
    for name, data in image.blobs.items():
        assert larder.get_when_up(paths.blob(ANYBODYS, name)).body == data
    assert all(s.sent <= 1 for s in registry.requests("GET", path=paths.blob("corp/app", image.layers[0]))), "it is stored once for all"


def test_what_anybody_may_read_an_account_may_read_too(start, registry, image):
    """Its own registry is asked about the tag; when that cannot answer, what anybody has seen is better than nothing."""
    registry.allowed = lambda seen, scope: True
    larder = start(tag_ttl="1h")
    pull(larder, image, ANYBODYS)
    registry.forget()
    r = larder.get(paths.manifest(MINE, TAG))
    assert r.body == image.manifest and cache_status(r) == ("stale", {"fwd": "stale", "fwd-status": "200"})
    assert [s.method for s in registry.contents()][-1] == "HEAD"
    assert cache_status(larder.get(paths.manifest(MINE, TAG)))[0] == "hit"
    for name in image.blobs:
        assert cache_status(larder.get(paths.blob(MINE, name)))[0] == "hit"


def test_a_store_that_did_not_tell_accounts_is_served_from(start_larder, registry, image, tmp_path, password):
    """As an older larder left it: nothing is lost, also while the registry is down; and then the account's own check counts."""
    registry.allowed = lambda seen, scope: True
    rules = [rule("mine", REGISTRY + "/corp/*", "mine/*")]
    larder = start_larder(registry, rules=rules)
    pull(larder, image, MINE)
    larder.stop()
    rules[0]["credential_set"] = "account"
    larder.config.update(rules=rules, credential_sets=[credentials(tmp_path, password)])
    registry.stop()
    larder.start()
    r = larder.get(paths.manifest(MINE, TAG))
    assert r.body == image.manifest and "stale" in str(cache_status(r)), cache_status(r)
    for name, data in image.blobs.items():
        assert larder.get(paths.blob(MINE, name)).body == data
    registry.start()
    registry.forget()
    wait_until(lambda: cache_status(larder.get(paths.manifest(MINE, TAG)))[0] == "hit" and registry.count() > 0, "it has been checked")
    assert registry.count("GET", paths.manifest("corp/app", TAG)) == 0
    assert "hit" in cache_status(larder.get(paths.manifest(MINE, TAG)))[0]
    larder.restart()
    assert cache_status(larder.get(paths.manifest(MINE, TAG)))[0] == "hit", "that is kept"


# ---- commands ----

def told(larder, *arguments):
    r = run(*arguments, "-f", larder.file, "-o", "json")
    assert (r.returncode, r.stderr) == (0, ""), r
    return json.loads(r.stdout)


@pytest.fixture
def stocked(start, registry, image):
    """The same image for both, and one more for the account."""
    registry.allowed = lambda seen, scope: True
    larder = start()
    pull(larder, image, ANYBODYS)
    pull(larder, image, MINE)
    other = registry.add("corp/app", Image("other"), tag="v2")
    pull(larder, other, MINE, "v2")
    wait_until(lambda: len(told(larder, "ls")) == 2, "the index has all")
    return larder, other


def test_what_is_listed_has_repositories_and_no_accounts(stocked, image):
    larder, other = stocked
    repo = REGISTRY + "/corp/app"
    for arguments in [("ls",), ("ls", "--all"), ("ls", repo), ("ls", MINE)]:
        assert sorted((e["repository"], e["tag"], e["digest"], e["rule"], e["name"]) for e in told(larder, *arguments)) == [
            (repo, TAG, image.digest, "mine", MINE), (repo, "v2", other.digest, "mine", MINE)], arguments
    used = [e for e in told(larder, "du", "--by", "repository") if e["what"] == "repository"]
    assert [(e["name"], e["objects"]) for e in used] == [(repo, len({**image.blobs, **other.blobs}) + 2)]
    assert told(larder, "explain", MINE + ":v2")["digest"] == other.digest
    assert larder.metric("store_objects") == len({**image.blobs, **other.blobs}) + 2


@pytest.mark.parametrize("name", [MINE, ANYBODYS, REGISTRY + "/corp/app"])
def test_what_is_pinned_and_purged_is_so_for_all_accounts(stocked, image, name):
    larder, other = stocked
    pinned = told(larder, "pin", name + ":v2")
    assert pinned["digest"] == other.digest and pinned["repository"] == REGISTRY + "/corp/app"
    assert run("purge", name + ":v2", "-f", larder.file).returncode == 1
    assert [e["digest"] for e in told(larder, "pin", "--list")] == [other.digest]
    told(larder, "unpin", name + ":v2")
    told(larder, "purge", name + ":" + TAG)
    assert [e["tag"] for e in told(larder, "ls")] == ["v2"]
    assert not larder.stored(image.digest)
    told(larder, "purge", name + "@" + other.digest)
    assert told(larder, "ls", "--all") == [] and not larder.stored(other.digest)


def test_what_a_rule_has_brought_is_purged_for_all_accounts(stocked):
    larder, _ = stocked
    told(larder, "purge", "--rule", "mine")
    assert told(larder, "ls", "--all") == [] and larder.stored_objects() == []


def test_an_image_is_warmed_with_the_account_of_its_rule(start, registry, image):
    larder = start()
    assert run("warm", MINE + ":" + TAG, "-f", larder.file).returncode == 0
    assert run("warm", ANYBODYS + ":" + TAG, "-f", larder.file).returncode == 1
    registry.forget()
    pull(larder, image, MINE)
    assert registry.count() == 0
