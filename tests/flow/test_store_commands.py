"""The commands that ask a running server: what is in the store, what goes, what stays, whether it is whole, and how everything is."""

import http.client
import json
import os
import re
import signal
import socket
import threading

import pytest

from lib import secrets
from lib.images import Image, Index
from lib.larder import REGISTRY, cache_status, run, wait_until
from lib.terminal import Command

SHA = re.compile(r"sha256:[0-9a-f]{64}")


def on(larder, *arguments, **more):
    return run(*arguments, "-f", larder.file, **more)


def done(larder, *arguments):
    """A command that has to succeed, and to say nothing on standard error."""
    r = on(larder, *arguments)
    assert (r.returncode, r.stderr) == (0, ""), r
    return r.stdout


def told(larder, *arguments):
    return json.loads(done(larder, *arguments, "-o", "json"))


def refused(larder, *arguments, code=1):
    r = on(larder, *arguments)
    assert r.returncode == code and r.stdout == "" and r.stderr.startswith("larder: "), r
    return r.stderr


def ask(larder, method, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", larder.admin_port, timeout=60)
    connection.request(method, "/api/v1/" + path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def pull(larder, repository, image, tag):
    """All of it, by tag, until it is in the store."""
    assert larder.get("/v2/%s/manifests/%s" % (repository, tag)).good
    images = image.images if isinstance(image, Index) else [image]
    for one in images:
        if isinstance(image, Index):
            assert larder.get("/v2/%s/manifests/%s" % (repository, one.digest)).good
        for digest in one.blobs:
            assert larder.get("/v2/%s/blobs/%s" % (repository, digest)).good
    larder.wait_stored(*image.manifests(), *image.blobs)


class Stock:
    """Three images in three repositories; `app:v1` and `other:v1` are the same one."""

    def __init__(self, upstream, larder):
        self.a, self.b = Image("a", (70000, 2000)), Image("b")
        self.index = Index([Image("x"), Image("y", arch="arm64")])
        self.entries = [("app", self.a, "v1"), ("app", self.b, "v2"), ("other", self.a, "v1"), ("multi", self.index, "latest")]
        for repository, image, tag in self.entries:
            upstream.add(repository, image, tag=tag)
            pull(larder, "t/" + repository, image, tag)
        wait_until(lambda: len(told(larder, "ls")) == 4, "all tags are in the index")


@pytest.fixture
def stock(upstream, larder):
    return Stock(upstream, larder)


def names(listed):
    return ["%s:%s" % (e["repository"], e["tag"]) if e["tag"] else "%s@%s" % (e["repository"], e["digest"]) for e in listed]


# ---- ls ----

ALL = ["up.test/app:v1", "up.test/app:v2", "up.test/multi:latest", "up.test/other:v1"]


def test_a_list_in_four_formats(larder, stock):
    listed = told(larder, "ls")
    assert names(listed) == ALL
    first = listed[0]
    assert (first["digest"], first["media_type"], first["rule"], first["name"]) == (stock.a.digest, stock.a.media_type, "rule-t", "t/app")
    assert first["here"] is True and first["kind"] == "manifest" and first["pinned"] is False and isinstance(first["hits"], int)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", first[key]) for key in ("checked", "stored", "used"))
    assert listed[2]["kind"] == "index"

    lines = done(larder, "ls").splitlines()
    assert re.split(r"  +", lines[0]) == ["IMAGE", "DIGEST", "SIZE", "COMPLETE", "STORED", "USED", "HITS", "PINNED"]
    assert [line.split()[0] for line in lines[1:]] == ALL
    assert lines[1].split()[1] == stock.a.digest[:len("sha256:") + 12]

    rows = [line.split("\t") for line in done(larder, "ls", "-o", "tsv").splitlines()]
    assert [len(row) for row in rows] == [len(first)] * 4
    assert [row[:3] for row in rows] == [[e["repository"], e["tag"], e["digest"]] for e in listed]

    text = done(larder, "ls", "-o", "yaml")
    assert text.count("- repository: ") == 4 and "  digest: %s\n" % stock.b.digest in text and "  here: true\n" in text


def test_a_whole_image_and_a_part(upstream, larder):
    whole, part, index = Image("whole", (70000, 2000)), Image("part", (70000,)), Index([Image("x"), Image("y", arch="arm64")])
    for repository, image in (("whole", whole), ("part", part), ("index", index)):
        upstream.add(repository, image, tag="v")
        larder.get("/v2/t/%s/manifests/v" % repository)
    for digest in whole.blobs:
        larder.get("/v2/t/whole/blobs/" + digest)
    larder.get("/v2/t/index/manifests/" + index.images[0].digest)
    for digest in index.images[0].blobs:
        larder.get("/v2/t/index/blobs/" + digest)
    larder.wait_stored(*whole.blobs, *index.images[0].blobs)

    def listed():
        found = {e["repository"]: e for e in told(larder, "ls")}
        return found if found["up.test/whole"]["complete"] and found["up.test/index"]["manifests_complete"] == 1 else None

    found = wait_until(listed, "the index knows what is complete")
    one = found["up.test/whole"]
    size = len(whole.manifest) + sum(map(len, whole.blobs.values()))
    assert (one["complete"], one["objects"], one["objects_here"], one["bytes"], one["bytes_here"]) == (True, 4, 4, size, size)
    one = found["up.test/part"]
    assert (one["complete"], one["objects"], one["objects_here"], one["bytes_here"]) == (False, 3, 1, len(part.manifest))
    assert one["bytes"] == len(part.manifest) + sum(map(len, part.blobs.values()))
    one = found["up.test/index"]
    assert (one["complete"], one["manifests"], one["manifests_complete"]) == (False, 2, 1)
    assert [re.split(r"  +", line)[3] for line in done(larder, "ls").splitlines()[1:]] == ["1 of 2", "no", "yes"]


PREFIXES = [("t/", ALL), ("t/app", ALL[:2]), ("up.test/", ALL), ("up.test/other", ALL[3:]), ("127.0.0.1:5000/t/mul", ALL[2:3]), ("up", ALL),
            ("", ALL), ("t/nope", []), ("quay.io/x", []), ("t/app:v1", [])]


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory):
    from lib.larder import Larder
    from lib.upstream import Upstream
    with Upstream() as upstream:
        larder = Larder(tmp_path_factory.mktemp("prefixed"), upstream).start()
        try:
            Stock(upstream, larder)
            yield larder
        finally:
            larder.clean_up()


@pytest.mark.parametrize("prefix,expected", PREFIXES, ids=[p[0] or "nothing" for p in PREFIXES])
def test_names_that_begin_so(prefixed, prefix, expected):
    assert names(told(prefixed, "ls", prefix)) == expected


def test_what_no_tag_names_is_listed_on_demand(larder, stock):
    listed = told(larder, "ls", "--all")
    assert names(listed)[:4] == ALL
    assert sorted(names(listed)[4:]) == sorted("up.test/multi@" + image.digest for image in stock.index.images)
    assert done(larder, "ls", "-a").count("up.test/multi@sha256:") == 2
    assert names(told(larder, "ls", "-a", "t/app")) == ALL[:2]


def test_an_empty_store(larder):
    assert told(larder, "ls") == [] and told(larder, "ls", "--all") == [] and told(larder, "pin", "--list") == []
    assert done(larder, "ls", "-o", "tsv") == "" and done(larder, "ls").startswith("IMAGE ")
    assert told(larder, "verify")["objects"] == 0
    assert [row["what"] for row in told(larder, "du")] == ["all objects", "partial", "quarantine", "used"]


def test_a_list_of_many_pages(upstream, larder):
    image = upstream.add("many", Image("many"), tag="t0000")
    tags = ["t%04d" % i for i in range(1234)]
    for tag in tags:
        upstream.tag("many", tag, image.digest)

    def fetch(part):
        for tag in tags[part::8]:
            assert larder.get("/v2/t/many/manifests/" + tag).good

    threads = [threading.Thread(target=fetch, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(told(larder, "ls")) == len(tags), "all tags are in the index")
    assert [e["tag"] for e in told(larder, "ls")] == tags
    assert [e["tag"] for e in told(larder, "ls", "t/many")] == tags

    pages, after = [], ""
    while after is not None:
        status, page = ask(larder, "GET", "tags" + ("?after=" + after if after else ""))
        assert status == 200 and len(page["tags"]) <= 500
        pages.append([e["tag"] for e in page["tags"]])
        after = page.get("next")
    assert sum(pages, []) == tags and len(pages) >= 3

    for tag in tags:
        status, _ = ask(larder, "POST", "pin?image=t/many:" + tag, larder_admin="1")
        assert status == 200
    assert [p["tag"] for p in told(larder, "pin", "--list")] == tags


@pytest.mark.parametrize("after", ["x", "0", "zz", "A0", "00" * 513, ""])
@pytest.mark.parametrize("call", ["tags", "images"])
def test_a_place_that_is_none(larder, call, after):
    status, answer = ask(larder, "GET", "%s?after=%s" % (call, after))
    assert status == 400 and "after" in answer["error"]


@pytest.mark.parametrize("call", ["objects?image=t/app:v1&after=x", "usage?by=rule&after=%zz", "usage?by=rule&after=" + "a" * 3000])
def test_a_place_that_is_none_in_other_lists(larder, stock, call):
    status, answer = ask(larder, "GET", call)
    assert status == 400 and "after" in answer["error"]


# ---- du ----

def test_what_uses_the_space(larder, stock):
    def size(image):
        return sum(map(len, image.blobs.values())) + sum(len(data) for _, data in image.manifests().values())

    a, b, index = size(stock.a), size(stock.b), size(stock.index)
    rows = {(row["what"], row["name"]): row for row in told(larder, "du")}
    assert rows["rule", "rule-t"]["bytes"] == rows["all objects", None]["bytes"] == a + b + index, "what two repositories have counts once"
    assert rows["rule", "rule-t"]["shared_bytes"] == 0
    assert rows["partial", None]["bytes"] == rows["quarantine", None]["bytes"] == 0
    rows = {row["name"]: row for row in told(larder, "du", "--by", "repository")}
    assert (rows["up.test/app"]["bytes"], rows["up.test/app"]["shared_bytes"]) == (a + b, a)
    assert (rows["up.test/other"]["bytes"], rows["up.test/other"]["shared_bytes"]) == (a, a)
    assert (rows["up.test/multi"]["bytes"], rows["up.test/multi"]["shared_bytes"]) == (index, 0)
    lines = done(larder, "du").splitlines()
    assert re.split(r"  +", lines[0]) == ["WHAT", "NAME", "OBJECTS", "SIZE", "SHARED"] and " KiB " in lines[1]
    assert done(larder, "du", "-o", "tsv").splitlines()[0].split("\t") == ["rule", "rule-t", "14", str(a + b + index), "0"]


def test_space_of_rules_that_are_gone(upstream, larder, start_larder):
    image = upstream.add("app", Image("old"), tag="v1")
    pull(larder, "t/app", image, "v1")
    larder.stop()
    larder.config["rules"] = [{"name": "new", "source": "up.test/new/*", "target": "n/*"}]
    larder.start()
    row = told(larder, "du")[0]
    assert (row["what"], row["name"], row["objects"]) == ("no rule", None, 3)
    listed = told(larder, "ls")
    assert (names(listed), listed[0]["rule"]) == (["up.test/app:v1"], None)
    assert told(larder, "purge", "up.test/app:v1")["tags"] == 1, "by the name that ls prints"
    assert told(larder, "ls") == []


# ---- pin ----

def test_pins_stay(larder, stock):
    pinned = told(larder, "pin", "t/app:v1")
    assert (pinned["repository"], pinned["tag"], pinned["digest"], pinned["here"]) == ("up.test/app", "v1", stock.a.digest, True)
    assert told(larder, "pin", "t/app:v1") == pinned, "twice is once"
    assert told(larder, "pin", "t/new") == {"repository": "up.test/new", "tag": "latest", "digest": None, "here": False, "bytes": 0}
    assert told(larder, "pin", stock.b.digest)["digest"] == stock.b.digest
    assert told(larder, "pin", "up.test/multi@" + stock.index.images[0].digest)["tag"] is None
    expected = [("up.test/app", "v1", stock.a.digest), ("up.test/new", "latest", None)]
    by_digest = sorted([stock.b.digest, stock.index.images[0].digest])
    expected += [(None, None, digest) for digest in by_digest]
    assert [(p["repository"], p["tag"], p["digest"]) for p in told(larder, "pin", "--list")] == expected
    assert {e["tag"]: e["pinned"] for e in told(larder, "ls", "t/app")} == {"v1": True, "v2": True}
    larder.restart()
    assert [(p["repository"], p["tag"], p["digest"]) for p in told(larder, "pin", "--list")] == expected
    assert done(larder, "pin", "--list", "-o", "tsv").splitlines()[0].split("\t")[:3] == ["up.test/app", "v1", stock.a.digest]
    assert done(larder, "pin", "--list").splitlines()[0].split() == ["REPOSITORY", "TAG", "DIGEST", "SINCE"]
    for name in ("t/app:v1", "t/new", stock.b.digest, "t/multi@" + stock.index.images[0].digest):
        done(larder, "unpin", name)
        assert "is not pinned" in refused(larder, "unpin", name)
    assert told(larder, "pin", "--list") == []


def test_what_is_pinned_is_purged_by_force_only(larder, stock):
    done(larder, "pin", "t/app:v1")
    assert "is pinned" in refused(larder, "purge", "t/app:v1")
    assert "is pinned" in refused(larder, "purge", stock.a.digest)
    assert larder.stored(stock.a.digest)
    r = on(larder, "purge", "--rule", "rule-t", "-o", "json")
    assert r.returncode == 0 and "--force" in r.stderr and json.loads(r.stdout)["pinned"] > 0
    assert names(told(larder, "ls", "t/app")) == ["up.test/app:v1"]
    for digest in [stock.a.digest, *stock.a.blobs]:
        assert larder.stored(digest), "what a pinned tag refers to stays"
    assert told(larder, "purge", "t/app:v1", "--force")["tags"] == 1
    assert "up.test/app:v1" not in names(told(larder, "ls"))


# ---- purge ----

def manifest_result(larder, target):
    r = larder.get(target)
    assert r.good
    return cache_status(r)[0]


def test_a_purged_tag_is_asked_for_again_at_once(upstream, larder, stock):
    for target in ("/v2/t/app/manifests/v2", "/v2/t/app/manifests/" + stock.b.digest):
        assert manifest_result(larder, target) == "hit"
    purged = told(larder, "purge", "t/app:v2")
    assert purged["tags"] == 1 and purged["objects"] == 3 and purged["pinned"] == 0
    assert purged["bytes"] == len(stock.b.manifest) + sum(map(len, stock.b.blobs.values()))
    for digest in (stock.b.digest, *stock.b.blobs):
        assert not larder.stored(digest)
    upstream.forget()
    assert manifest_result(larder, "/v2/t/app/manifests/v2") == "miss"
    assert upstream.count("GET", "/v2/app/manifests/v2") == 1
    assert manifest_result(larder, "/v2/t/app/manifests/v1") == "hit", "another image is left alone"


def test_what_other_tags_need_stays(larder, stock):
    purged = told(larder, "purge", "t/app:v1")
    assert (purged["tags"], purged["objects"]) == (1, 0), "other:v1 names the same manifest"
    assert larder.stored(stock.a.digest) and names(told(larder, "ls")) == [ALL[1], ALL[2], ALL[3]]
    assert manifest_result(larder, "/v2/t/other/manifests/v1") == "hit"
    assert told(larder, "purge", "t/other:v1")["objects"] == 4
    assert not larder.stored(stock.a.digest)


def test_a_digest_goes_with_its_tags(larder, stock):
    assert "nothing of" in refused(larder, "purge", "t/multi@" + stock.a.digest), "that repository does not have it"
    purged = told(larder, "purge", "t/app@" + stock.a.digest)
    assert purged["tags"] == 2 and purged["objects"] == 4
    assert names(told(larder, "ls")) == [ALL[1], ALL[2]]
    assert told(larder, "purge", stock.index.digest)["objects"] == 7
    assert names(told(larder, "ls")) == [ALL[1]]
    assert done(larder, "purge", "t/app:v2", "-o", "tsv").split("\t")[0] == "1"
    assert larder.stored_objects() == []


def test_a_rule_without_star_is_its_repository_and_no_other(upstream, start_larder):
    larder = start_larder(upstream, rules=[{"name": "one", "source": "up.test/app", "target": "one"}, {"name": "all", "source": "up.test/*", "target": "t/*"}])
    a, b, c = Image("a"), Image("b"), Image("c")
    for repository, image, name in (("app", a, "one"), ("app2", b, "t/app2"), ("app/sub", c, "t/app/sub")):
        upstream.add(repository, image, tag="v")
        pull(larder, name, image, "v")
    wait_until(lambda: len(told(larder, "ls")) == 3, "all tags are in the index")
    assert {row["name"]: row["objects"] for row in told(larder, "du") if row["what"] == "rule"} == {"one": 3, "all": 6}
    assert told(larder, "purge", "--rule", "one")["objects"] == 3
    assert names(told(larder, "ls")) == ["up.test/app/sub:v", "up.test/app2:v"]
    assert told(larder, "purge", "--rule", "all")["objects"] == 6
    assert larder.stored_objects() == [] and told(larder, "ls") == []
    assert "nothing of 'all'" in refused(larder, "purge", "--rule", "all")


def test_what_was_only_asked_about_leaves_nothing_behind(larder, upstream):
    """Upstream names whatever digest it is asked for: what nobody has fetched is not written down, for nothing would ever remove it."""
    image = Image("asked-about", (10, 20, 30))
    upstream.add("app", image, tag="v")
    asked = [upstream.add_blob("app", b"asked about %d" % n) for n in range(30)]
    for digest in asked:
        assert larder.head("/v2/t/app/blobs/" + digest).status == 200
    assert "nothing of 'rule-t'" in refused(larder, "purge", "--rule", "rule-t")
    pull(larder, "t/app", image, "v")
    wait_until(lambda: len(told(larder, "ls")) == 1, "the image is in the index")
    assert told(larder, "purge", "--rule", "rule-t")["links"] == 5


def test_what_a_rule_shares_with_another_is_not_its_own_any_more(upstream, start_larder):
    larder = start_larder(upstream, rules=[{"name": "one", "source": "up.test/app", "target": "one"}, {"name": "all", "source": "up.test/*", "target": "t/*"}])
    image = Image("shared")
    for repository, name in (("app", "one"), ("other", "t/other")):
        upstream.add(repository, image, tag="v")
        pull(larder, name, image, "v")
    wait_until(lambda: len(told(larder, "ls")) == 2, "both tags are in the index")
    purged = told(larder, "purge", "--rule", "one")
    assert (purged["tags"], purged["links"], purged["objects"]) == (1, 3, 0)
    upstream.stop()
    for digest in image.blobs:
        assert not larder.get("/v2/one/blobs/" + digest).good, "the repository that had it from this rule has it no more"
        assert larder.get("/v2/t/other/blobs/" + digest).good
    assert not larder.get("/v2/one/manifests/" + image.digest).good
    assert larder.get("/v2/t/other/manifests/" + image.digest).good


def test_a_rule_is_not_what_a_nearer_rule_has_brought(upstream, start_larder):
    larder = start_larder(upstream, rules=[
        {"name": "all", "source": "up.test/*", "target": "t/*"}, {"name": "team", "source": "up.test/team/*", "target": "team/*"}])
    for repository, name in (("app", "t/app"), ("team/app", "team/app")):
        image = Image(name)
        upstream.add(repository, image, tag="v")
        pull(larder, name, image, "v")
    wait_until(lambda: len(told(larder, "ls")) == 2, "both tags are in the index")
    assert told(larder, "purge", "--rule", "all")["objects"] == 3
    assert names(told(larder, "ls")) == ["up.test/team/app:v"]
    assert told(larder, "purge", "--rule", "team")["objects"] == 3
    assert larder.stored_objects() == []


@pytest.mark.parametrize("arguments,word", [
    (("purge", "t/nope:v1"), "nothing of 't/nope:v1' is in the store"), (("purge", "sha256:" + 64 * "0"), "nothing of"),
    (("purge", "--rule", "nope"), "no rule has the name 'nope'"), (("purge", "nope/x:1"), "no rule is for 'nope/x:1'"),
    (("pin", "nope/x:1"), "no rule is for"), (("unpin", "t/x:1"), "is not pinned"), (("unpin", "sha256:" + 64 * "0"), "is not pinned"),
    (("verify", "t/nope:v1"), "'t/nope:v1' is not in the store")])
def test_what_is_not_there(larder, arguments, word):
    assert word in refused(larder, *arguments)


# ---- verify ----

def flip(larder, digest):
    """One bit of a stored object, in place."""
    larder.expect_damage = True
    path = larder.blob_path(digest)
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def quarantined(larder):
    folder = os.path.join(larder.store, "quarantine")
    return sorted(name.replace("-", ":", 1) for name in os.listdir(folder)) if os.path.isdir(folder) else []


@pytest.mark.parametrize("options", [(), ("--deep",)], ids=["sums", "digests"])
def test_a_flipped_bit_is_found(larder, stock, options):
    assert told(larder, "verify", *options) == {
        "objects": 14, "bytes": told(larder, "status")["bytes"], "missing": 0, "damaged": 0, "failed": 0, "deep": bool(options),
        "cancelled": False, "found": [], "found_more": 0}
    bad, gone = stock.a.layers[0], stock.b.layers[0]
    flip(larder, bad)
    os.unlink(larder.blob_path(gone))
    r = on(larder, "verify", *options, "-o", "json")
    assert r.returncode == 1
    found = json.loads(r.stdout)
    assert (found["objects"], found["damaged"], found["missing"]) == (14, 1, 1) and sorted(found["found"]) == sorted([bad, gone])
    assert "larder: %s is damaged; it is in quarantine" % bad in r.stderr and "larder: %s is missing" % gone in r.stderr
    assert quarantined(larder) == [bad] and not larder.stored(bad)
    good = larder.get("/v2/t/app/blobs/" + bad)
    assert good.good and cache_status(good)[0] == "miss", "the next pull fetches it again"
    larder.get("/v2/t/app/blobs/" + gone)
    larder.wait_stored(bad, gone)
    again = told(larder, "verify", *options)
    assert (again["objects"], again["damaged"], again["missing"]) == (14, 0, 0)


def test_one_image_is_verified(larder, stock):
    flip(larder, stock.b.layers[0])
    whole = told(larder, "verify", "t/app:v1")
    assert (whole["objects"], whole["damaged"], whole["found"]) == (4, 0, [])
    assert whole["bytes"] == len(stock.a.manifest) + sum(map(len, stock.a.blobs.values()))
    assert told(larder, "verify", "--deep", "t/multi")["objects"] == 7
    assert told(larder, "verify", stock.a.layers[0])["objects"] == 1
    r = on(larder, "verify", "t/app@" + stock.b.digest, "-o", "json")
    assert r.returncode == 1 and json.loads(r.stdout)["found"] == stock.b.layers and "in quarantine" in r.stderr
    assert quarantined(larder) == stock.b.layers
    assert told(larder, "verify", "t/app:v2")["objects"] == 2, "what is not here is not verified"


def test_a_table_of_verification(larder, stock):
    lines = done(larder, "verify").splitlines()
    assert lines[0].split() == ["OBJECTS", "BYTES", "MISSING", "DAMAGED", "FAILED"]
    assert re.match(r"14 +\d+\.\d KiB +0 +0 +0$", lines[1])


def test_progress_and_its_end_by_an_interrupt(upstream, start_larder, faults):
    larder = start_larder(upstream)
    stock = Stock(upstream, larder)
    faults.hold("preadv2")
    command = Command("verify", "-o", "json", "-f", larder.file)
    command.wait_shown("of 14 objects")
    assert "runs already" in refused(larder, "verify"), "one at a time"
    command.interrupt()
    wait_until(lambda: ask(larder, "GET", "verify")[1]["cancelled"], "the server is told")
    faults.release("preadv2")
    code, out = command.end()
    found = json.loads(out)
    assert code == 1 and found["cancelled"] is True and found["objects"] < 14 and found["damaged"] == 0
    assert "cancelled" in command.shown
    assert not ask(larder, "GET", "verify")[1]["running"]
    assert told(larder, "verify")["objects"] == 14 and larder.stored(stock.a.digest)


def test_larder_stops_while_it_verifies(upstream, start_larder, faults):
    larder = start_larder(upstream)
    Stock(upstream, larder)
    faults.hold("preadv2")
    assert ask(larder, "POST", "verify-start", larder_admin="1")[0] == 200
    larder.process.send_signal(signal.SIGTERM)
    wait_until(lambda: larder.logged(text="stopping"), "it stops")
    faults.release("preadv2")
    larder.wait_exit(0)


# ---- gc, status ----

def test_tidying(larder, stock):
    for _ in range(3):
        assert manifest_result(larder, "/v2/t/app/manifests/v2") == "hit"
    r = told(larder, "gc")
    assert told(larder, "ls", "t/app")[1]["hits"] >= 3, "what was asked for is written down"
    assert list(r) == ["evicted", "evicted_bytes", "freed_bytes", "objects", "used"]
    assert (r["evicted"], r["freed_bytes"], r["objects"]) == (0, 0, 14)
    flip(larder, stock.a.layers[0])
    assert on(larder, "verify").returncode == 1
    size = len(stock.a.blobs[stock.a.layers[0]])
    status = told(larder, "status")
    assert (status["quarantined"], status["quarantined_bytes"], status["objects"]) == (1, size, 13)
    assert done(larder, "gc").splitlines()[0].split() == ["EVICTED", "EVICTED", "SIZE", "FREED", "OBJECTS", "USED"]


def test_status_in_four_formats(upstream, larder, stock):
    status = told(larder, "status")
    assert status["workers"] == 2 and status["config_good"] is True and status["config_error"] is None and status["stopping"] is False
    assert (status["store"], status["store_error"], status["objects"], status["partials"]) == ("ok", None, 14, 0)
    assert status["used"] == status["bytes"] > 0 and status["fetches"] == 0
    assert (status["upstreams_down"], status["credential_sets_unhealthy"]) == ([], [])
    text = done(larder, "status")
    assert re.search(r"^configuration +taken \d+ \w+ ago$", text, re.M) and re.search(r"^objects +14, \d+\.\d KiB$", text, re.M)
    assert re.search(r"^upstreams down +none$", text, re.M)
    assert len(done(larder, "status", "-o", "tsv").split("\t")) == len(status)
    assert "\nupstreams_down: []\n" in done(larder, "status", "-o", "yaml")


def test_status_says_what_is_out_of_order(upstream, start_larder):
    larder = start_larder(upstream, env={"STATUS_USER": "u"}, credential_sets=[
        {"name": "bad", "login_server": "up.test", "username": "env:STATUS_USER", "password": "env:STATUS_NOT_SET"}])
    upstream.stop()
    assert larder.get("/v2/t/app/manifests/v1").status >= 500
    wait_until(lambda: told(larder, "status")["upstreams_down"] == [REGISTRY], "the upstream is known to be down")
    with open(larder.file) as file:
        before = file.read()
    with open(larder.file, "w") as file:
        file.write(before + "nonsense: 1\n")
    status = wait_until(lambda: ask(larder, "GET", "status")[1]["config_good"] or ask(larder, "GET", "status")[1], "the file was looked at")
    wait_until(lambda: not ask(larder, "GET", "status")[1]["config_good"], "the new file is refused")
    status = ask(larder, "GET", "status")[1]
    assert "nonsense" in status["config_error"] and re.search(r":\d+:\d+: ", status["config_error"])
    with open(larder.file, "w") as file:
        file.write(before)
    wait_until(lambda: ask(larder, "GET", "status")[1]["config_good"], "the file is as before")
    text = done(larder, "status")
    assert re.search(r"^upstreams down +up\.test$", text, re.M) and re.search(r"^unhealthy credential sets +bad$", text, re.M)


def test_a_spoiled_file_is_a_warning(upstream, larder, stock):
    """The server runs with the one before, and is asked and ordered all the same."""
    with open(larder.file) as file:
        before = file.read()
    for spoiled, word in ((before + "nonsense: 1\n", "unknown key 'nonsense'"), (before + "nonsense: [\n", "not valid YAML")):
        with open(larder.file, "w") as file:
            file.write(spoiled)
        wait_until(lambda: not ask(larder, "GET", "status")[1]["config_good"], "the new file is refused")
        for command, answer in ((("status",), "the file is not in force: "), (("ls",), "up.test/app"), (("pin", "t/app:v1"), "up.test/app")):
            r = on(larder, *command)
            assert r.returncode == 0 and answer in r.stdout, r
            assert re.match(r"warning: .*:\d+:\d+: ", r.stderr) and word in r.stderr, r
        r = on(larder, "warm", "t/app:v1")
        assert (r.returncode, r.stdout) == (1, "") and word in r.stderr, "it needs the rules"


# ---- around it ----

COMMANDS = [("ls",), ("ls", "-a"), ("du",), ("purge", "t/a:b"), ("purge", "--rule", "rule-t"), ("pin", "t/a:b"), ("pin", "--list"), ("unpin", "t/a:b"),
            ("verify",), ("verify", "t/a:b"), ("gc",), ("status",), ("warm", "t/a:b", "t/c:d")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_server(upstream, start_larder, command):
    larder = start_larder(upstream, run=False)
    larder.write_config()
    said = refused(larder, *command)
    assert "127.0.0.1:%d" % larder.admin_port in said and "larder serve" in said and "-f FILE" in said


WRONG = [(("purge",), "needs IMAGE, DIGEST or --rule NAME"), (("purge", "t/a:b", "--rule", "x"), "not both"), (("purge", "t/a"), "no tag and no digest"),
         (("purge", "A"), "is no image"), (("pin",), "needs IMAGE or --list"), (("pin", "a", "--list"), "not both"), (("pin", "a@b"), "is no image"),
         (("unpin",), "needs IMAGE"), (("unpin", ":"), "is no image"), (("verify", "a b"), "is no image"), (("du", "--by", "tag"), "rule|repository"),
         (("ls", "x" * 601), "longer than any name"), (("gc", "now"), "unexpected argument"), (("ls", "--force"), "does not belong to ls"),
         (("warm",), "needs IMAGE"), (("warm", "t/a:b", "sha256:" + 64 * "0"), "is no image"), (("warm", "t/a", "--platform", "linux"), "is no platform"),
         (("warm", *65 * ["t/a:b"]), "at most 64 times IMAGE")]


@pytest.mark.parametrize("arguments,word", WRONG, ids=[" ".join(w[0])[:20] for w in WRONG])
def test_wrong_usage(upstream, start_larder, arguments, word):
    larder = start_larder(upstream, run=False)
    larder.write_config()
    r = on(larder, *arguments)
    assert r.returncode == 2 and r.stdout == "" and word in r.stderr and re.search(r"^try: larder (\w+ )?--help$", r.stderr, re.M), r


def test_orders_are_orders(larder, stock):
    for name in ("pin?image=t/app:v1", "unpin?image=t/app:v1", "purge?image=t/app:v1", "gc", "verify-start", "verify-cancel",
                 "verify-object?digest=" + stock.a.digest):
        assert ask(larder, "GET", name)[0] == 405
        assert ask(larder, "POST", name)[0] == 403, "a page of another site cannot send the header"
    assert names(told(larder, "ls")) == ALL and told(larder, "pin", "--list") == []
    for name, status in (("pin", 400), ("purge?image=t/app", 400), ("purge?image=A", 400), ("unpin?image=%zz", 400), ("verify-cancel", 404),
                         ("purge?rule=nope", 404), ("verify-object?digest=x", 400)):
        code, answer = ask(larder, "POST", name, larder_admin="1")
        assert code == status and list(answer) == ["error"], (name, code, answer)
    for name, status in (("usage", 400), ("usage?by=tag", 400), ("objects", 400), ("objects?image=t/nope:1", 404)):
        code, answer = ask(larder, "GET", name)
        assert code == status and list(answer) == ["error"], (name, code, answer)


def own_address():
    """One of this machine's that is not loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            return None
        return s.getsockname()[0]


def test_orders_on_an_address_of_this_machine(upstream, start_larder):
    """What comes from there comes from here."""
    own = own_address()
    if own is None or own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    larder = start_larder(upstream, run=False)
    larder.config["admin"] = {"address": "%s:%d" % (own, larder.admin_port)}
    larder.start()
    assert told(larder, "gc")["objects"] == 0


def test_what_is_refused_is_said_in_its_own_signs(larder):
    assert "no rule has the name 'a\"b\\c'" in refused(larder, "purge", "--rule", 'a"b\\c')
