"""Names, rules, paths: which upstream repository a request means, in every spelling."""

import pytest

from lib import paths
from lib.client import Conn, Fetch
from lib.images import Image, blob
from lib.larder import REGISTRY, cache_status, run, yaml_text
from lib.upstream import Fault, Upstream


def two_registries(start_larder, hub, other, **more):
    """docker.io under hub/, and another registry with its repositories at the root of quay/."""
    return start_larder(hub, upstreams=[
        {"registry": "docker.io", "endpoints": [hub.url]}, {"registry": "quay.test:8443", "endpoints": [other.url]}],
        rules=[{"name": "hub", "source": "docker.io/*", "target": "hub/*"},
               {"name": "quay", "source": "quay.test:8443/*", "target": "quay/*"}], **more)


@pytest.fixture
def other():
    with Upstream() as up:
        yield up


@pytest.fixture
def both(start_larder, upstream, other):
    return two_registries(start_larder, upstream, other)


# ---- library/ ----

def test_library_is_added_at_docker_hub_to_one_segment(both, upstream):
    image = upstream.add("library/nginx", Image("nginx", (10,)), tag="v1")
    index = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    upstream.repo("library/nginx")["referrers"][image.digest] = index
    assert both.get(paths.manifest("hub/nginx", "v1")).body == image.manifest
    assert both.get(paths.blob("hub/nginx", image.config)).body == image.config_bytes
    assert both.get(paths.tags("hub/nginx")).json() == {"name": "hub/nginx", "tags": ["v1"]}
    assert both.get(paths.referrers("hub/nginx", image.digest)).body == index
    assert {s.path.split("/")[2] for s in upstream.requests()} == {"library"}
    # The same entries under the other spelling.
    both.wait_stored(image.digest, image.config)
    upstream.forget()
    assert both.get(paths.manifest("hub/library/nginx", "v1")).body == image.manifest
    assert cache_status(both.get(paths.blob("hub/library/nginx", image.config)))[0] == "hit"
    assert both.get(paths.tags("hub/library/nginx")).json() == {"name": "hub/library/nginx", "tags": ["v1"]}
    assert upstream.count() == 0


@pytest.mark.parametrize("repo", ["org/app", "org/team/app", "library/nginx/deep", "library/library"])
def test_library_is_not_added_to_more_segments(both, upstream, repo):
    image = upstream.add(repo, Image(repo, (10,)), tag="v1")
    assert both.get(paths.manifest("hub/" + repo, "v1")).body == image.manifest
    assert all(s.path.startswith("/v2/%s/" % repo) for s in upstream.requests())


def test_library_is_not_added_elsewhere(both, other):
    image = other.add("nginx", Image("nginx", (10,)), tag="v1")
    assert both.get(paths.manifest("quay/nginx", "v1")).body == image.manifest
    assert all(s.path.startswith("/v2/nginx/") for s in other.requests())


def test_a_rule_without_library_means_library(start_larder, upstream):
    image = upstream.add("library/hello", Image("hello", (10,)), tag="v1")
    larder = start_larder(upstream, upstreams=[{"registry": "docker.io", "endpoints": [upstream.url]}],
                          rules=[{"name": "hello", "source": "docker.io/hello", "target": "demo/hello"}])
    assert larder.get(paths.manifest("demo/hello", "v1")).body == image.manifest


@pytest.mark.parametrize("alias", ["index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_three_names(start_larder, upstream, alias):
    image = upstream.add("library/hello", Image("hello", (10,)), tag="v1")
    larder = start_larder(upstream, upstreams=[{"registry": alias, "endpoints": [upstream.url]}],
                          rules=[{"name": "hub", "source": "docker.io/*", "target": "hub/*"}])
    assert larder.get(paths.manifest("hub/hello", "v1")).body == image.manifest
    assert larder.get("/v2/hello/manifests/v1?ns=" + alias).body == image.manifest


# ---- shapes of names ----

LONGEST = "/".join(["a" * 62, "b" * 63, "c" * 63, "d" * 62])  # 253 and "t/" makes 255


@pytest.mark.parametrize("repo", [
    "a/b/c/d/e/f/g/h/i/j/k/l", LONGEST, "blobs", "manifests", "v2", "tags/list", "blobs/manifests/v2", "tags", "uploads",
    "manifests/blobs/sha256", "referrers/referrers", "v2/v2", "x/blobs/uploads", "a.b_c__d-e---f/0", "library/x"])
def test_repositories_are_read_from_the_right_end(larder, upstream, repo):
    image = upstream.add(repo, Image("shapes", (10,)), tag="manifests")
    tag = "T" + "a.B-_" * 25 + "cc"
    assert len(tag) == 128
    upstream.tag(repo, tag, image.digest)
    ours = "t/" + repo
    assert larder.get(paths.manifest(ours, "manifests")).body == image.manifest
    assert larder.get(paths.manifest(ours, tag)).body == image.manifest
    assert larder.get(paths.manifest(ours, image.digest)).body == image.manifest
    assert larder.get(paths.blob(ours, image.config)).body == image.config_bytes
    assert larder.get(paths.tags(ours)).json() == {"name": ours, "tags": sorted(["manifests", tag])}


@pytest.mark.parametrize("repo", ["a" * 256, "t/" + "a" * 254, "t//app", "t/app/", "/t/app", "t/-app", "t/app-", "t/a..b", "t/a___b",
                                  "t/A", "t/app.", "t/./app", "t/../app", "t/a:b", "t/a@b", "t/a+b", "t/\xe4", "t/a~b", ""])
def test_names_outside_the_grammar_are_refused(larder, upstream, repo):
    for target in (paths.manifest(repo, "v1"), paths.blob(repo, "sha256:" + "a" * 64), paths.tags(repo)):
        r = larder.get(target)
        assert r.status in (400, 404), target
    assert upstream.count() == 0


# ---- spellings of paths ----

D = "sha256:" + "a" * 64


@pytest.mark.parametrize("target", [
    "/v2/t/app%2Fmanifests/v1", "/v2/t/app/manifests%2Fv1", "/v2/t%2Fapp/manifests/v1", "/v2/t/%2e%2e/app/manifests/v1",
    "/v2/t/../../etc/passwd", "/v2/../v2/t/app/manifests/v1", "/v2/t/app/manifests/%2e%2e", "/v2/t/app/manifests/..",
    "/v2/t/app/blobs/..%2f..%2f..%2fetc%2fpasswd", "/v2/t/app/blobs/sha256:..%2f..%2fx", "/v2/t/app/manifests/v1%00",
    "/v2/t/app/manifests/v1%0d%0aX:%20y", "/v2/t/app/manifests/v1%20", "/v2//t/app/manifests/v1", "/v2/t//app/manifests/v1",
    "/v2/t/app//manifests/v1", "/v2/t/app/manifests//v1", "//v2/t/app/manifests/v1", "/v2/t/app/manifests/v1/", "/v2/t/app/manifests/",
    "/v2\\t\\app\\manifests\\v1", "/v2/t/app/manifests/v1\\", "/v2/t/app%5Cmanifests/v1", "/v2/t/app/manifests/v%2531",
    "/v2/t/app/manifests/%", "/v2/t/app/manifests/%4", "/v2/t/app/manifests/%zz", "/v2/t/app/manifests/v1#x", "/v2/t/app/manifests/v1;a=b",
    "/V2/t/app/manifests/v1", "/v2/t/app/Manifests/v1", "/v2/t/app/manifests/\xff", "/v2/t/app/blobs/" + D.upper(),
    "/v2/t/app/blobs/" + D + "/", "/v2/t/app/blobs/" + D + "%00", "/v2/t/app/blobs/", "v2/t/app/manifests/v1", "*", "?", "/?/v2/"])
def test_spellings_that_are_refused(larder, upstream, target):
    upstream.add("app", Image("spelled", (10,)), tag="v1")
    r = larder.get(target)
    assert r.status in (400, 404), r
    assert upstream.count() == 0 and larder.stored_objects() == [] and larder.partials() == []


@pytest.mark.parametrize("spelling", [
    "/v2/t/app/manifests/%76%31", "/%762/t/app/manifests/v1", "/v2/t/%61pp/%6Danifests/v1", "http://cache.test:5000/v2/t/app/manifests/v1",
    "HTTP://other.test/v2/t/app/manifests/v1", "/v2/t/app/manifests/v1?", "/v2/t/app/manifests/v1?foo=bar&x"])
def test_spellings_that_mean_the_same(larder, upstream, spelling):
    image = upstream.add("app", Image("spelled", (10,)), tag="v1")
    assert larder.get(paths.manifest("t/app", "v1")).good
    upstream.forget()
    assert larder.get(spelling).body == image.manifest
    assert upstream.count() == 0


@pytest.mark.parametrize("colon", ["%3A", "%3a"])
def test_an_encoded_colon_in_a_digest(larder, upstream, colon):
    image = upstream.add("app", Image("spelled", (10,)), tag="v1")
    for kind, name, data in (("manifests", image.digest, image.manifest), ("blobs", image.config, image.config_bytes)):
        assert larder.get("/v2/t/app/%s/%s" % (kind, name.replace(":", colon))).body == data
        larder.wait_stored(name)
    assert {s.path for s in upstream.requests()} == {paths.manifest("app", image.digest), paths.blob("app", image.config)}


@pytest.mark.parametrize("size", [5000, 100 * 1024])
def test_long_paths(larder, upstream, size):
    with Conn(larder.address) as conn:
        conn.send(b"GET /v2/t/" + b"a" * size + b"/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n")
        r = conn.read_response()
        assert r.status in (400, 414, 431), r
        assert r.header("Connection") == "close" or r.status == 414
    assert upstream.count() == 0
    assert larder.get("/v2/").status == 200


# ---- ?ns= ----

def test_ns_selects_among_the_rules(both, upstream, other):
    nginx = upstream.add("library/nginx", Image("hub-nginx", (10,)), tag="v1")
    app = other.add("org/app", Image("quay-app", (10,)), tag="v1")
    for ns in ("docker.io", "index.docker.io", "registry-1.docker.io", "DOCKER.IO", "Docker.io"):
        r = both.get("/v2/library/nginx/manifests/v1?ns=" + ns)
        assert r.body == nginx.manifest and r.header("OCI-Namespace") == ns
        assert both.get("/v2/nginx/blobs/%s?ns=%s" % (nginx.config, ns)).body == nginx.config_bytes
    for ns in ("quay.test:8443", "quay.test%3A8443", "QUAY.test:8443"):
        assert both.get("/v2/org/app/manifests/v1?ns=" + ns).body == app.manifest
        r = both.head("/v2/org/app/manifests/v1?x=y&ns=" + ns)
        assert r.header("Docker-Content-Digest") == app.digest and r.header("OCI-Namespace") == ns.replace("%3A", ":")
        assert both.get("/v2/org/none/tags/list?ns=" + ns).header("OCI-Namespace") == ns.replace("%3A", ":")
    assert len(upstream.requests("GET")) == 2 and len(other.requests("GET", paths.manifest("org/app", "v1"))) == 1
    # One entry, whichever way it is asked for.
    r = both.get(paths.manifest("hub/nginx", "v1"))
    assert cache_status(r)[0] == "hit" and r.header("OCI-Namespace") is None
    assert all("ns" not in s.query for s in upstream.requests() + other.requests())


@pytest.mark.parametrize("ns", ["unknown.test", "quay.test", "quay.test:443", "docker.io:5000", "docker.io.evil.test", "evil-docker.io",
                                "localhost", "127.0.0.1", "10.0.0.1:5000", "[::1]:5000", "[::1]", "169.254.169.254",
                                "docker.io/library", "http://docker.io", "docker.io@evil.test", "a%20b", "%00", ".", "..", "x" * 261])
def test_an_ns_without_a_rule_is_404(both, upstream, other, ns):
    upstream.add("library/nginx", Image("hub-nginx", (10,)), tag="v1")
    for method in ("GET", "HEAD"):
        r = both.request(method, "/v2/library/nginx/manifests/v1?ns=" + ns)
        assert r.status == 404 or r.status == 400 and not ns.replace(".", "").replace("-", "").isalnum(), r
    assert upstream.count() + other.count() == 0


@pytest.mark.parametrize("ns", ["x" * 262, "x." * 1000 + "test", "docker.io" + "%2f" * 300])
def test_an_ns_that_is_too_long_is_400(both, upstream, other, ns):
    upstream.add("library/nginx", Image("hub-nginx", (10,)), tag="v1")
    for target in ("/v2/library/nginx/manifests/v1?ns=", "/v2/hub/nginx/manifests/v1?ns=", "/v2/hub/nginx/tags/list?n=1&ns="):
        r = both.get(target + ns)
        assert r.status == 400 and r.error_code == "NAME_INVALID" and "ns" in r.json()["errors"][0]["message"], r
    assert upstream.count() + other.count() == 0


def test_ns_twice_and_ns_empty(both, upstream, other):
    upstream.add("library/nginx", Image("hub-nginx", (10,)), tag="v1")
    assert both.get("/v2/library/nginx/manifests/v1?ns=docker.io&ns=quay.test:8443").status == 400
    assert both.get("/v2/library/nginx/manifests/v1?ns=").status in (400, 404)
    assert both.get("/v2/library/nginx/manifests/v1?ns").status in (400, 404)
    assert upstream.count() + other.count() == 0


def test_ns_reaches_only_what_a_rule_covers(start_larder, upstream):
    for repo in ("library/one", "team/a", "team/a/b", "private/x"):
        upstream.add(repo, Image(repo, (10,)), tag="v1")
    larder = start_larder(upstream, upstreams=[{"registry": "docker.io", "endpoints": [upstream.url]}], rules=[
        {"name": "one", "source": "docker.io/library/one", "target": "x/one"},
        {"name": "team", "source": "docker.io/team/*", "target": "y/*"}])
    for repo in ("library/one", "one", "team/a", "team/a/b"):
        assert larder.get("/v2/%s/manifests/v1?ns=docker.io" % repo).good
    for repo in ("library/two", "private/x", "team", "teams/a", "library/one/more"):
        r = larder.get("/v2/%s/manifests/v1?ns=docker.io" % repo)
        assert r.status == 404 and r.error_code == "NAME_UNKNOWN"
    assert all("private" not in s.path for s in upstream.requests())


REPOS = ("app", "org/app", "t/app", "t/org/app", "demo/org/app", "demo/org/app/more", "library/app", "off/app", "off/library/app")


def larder_with_rules(start_larder, upstream, *rules, registry=REGISTRY):
    return start_larder(upstream, upstreams=[{"registry": registry, "endpoints": [upstream.url]}], rules=[
        {"name": "rule-%d" % n, "source": registry + source, "target": target} for n, (source, target) in enumerate(rules)])


@pytest.mark.parametrize("rules, served, refused", [
    ([("/*", "t/*")], {"org/app": "org/app", "app": "app", "tt/app": "tt/app", "t": "t"}, ["t/org/app", "t/app"]),
    ([("/t/*", "t/*")], {"t/org/app": "t/org/app"}, []),
    ([("/t/*", "t/*"), ("/*", "all/*")], {"t/org/app": "t/org/app", "org/app": "org/app"}, ["all/org/app"]),
    ([("/org/*", "t/*")], {"org/app": "org/app"}, ["t/app", "t/org/app"]),
    ([("/*", "*")], {"org/app": "org/app", "t/org/app": "t/org/app"}, []),
    ([("/org/*", "*")], {"org/app": "org/app"}, []),
    ([("/org/app", "demo/org/app"), ("/*", "t/*")],
     {"org/app": "org/app", "demo/org/app/more": "demo/org/app/more"}, ["demo/org/app", "t/org/app"]),
    ([("/org/app", "app"), ("/*", "t/*")], {"app": "app", "org/app": "org/app"}, ["t/app"])])
def test_a_name_that_ns_and_a_path_prefix_read_differently_is_not_guessed_at(start_larder, upstream, rules, served, refused):
    """A mirror that a client is given with a path (BuildKit's mirrors, containerd's override_path) puts that path before the name."""
    for repo in set(REPOS) | set(served.values()) | set(refused):
        upstream.add(repo, Image(repo, (10,)), tag="v1")
    larder = larder_with_rules(start_larder, upstream, *rules)
    for name, repo in served.items():
        assert larder.get("/v2/%s/manifests/v1?ns=%s" % (name, REGISTRY)).body == upstream.repo(repo)["manifests"][
            upstream.repo(repo)["tags"]["v1"]][1], name
    upstream.forget()
    for name in refused:
        for kind in ("manifests/v1", "tags/list"):
            r = larder.get("/v2/%s/%s?ns=%s" % (name, kind, REGISTRY.upper()))
            assert r.status == 404 and r.error_code == "NAME_UNKNOWN", (name, r)
            assert "without a path" in r.json()["errors"][0]["message"]
    assert upstream.count() == 0


def test_a_path_prefix_and_library(start_larder, upstream):
    for repo in REPOS:
        upstream.add(repo, Image(repo, (10,)), tag="v1")
    larder = larder_with_rules(start_larder, upstream, ("/library/*", "off/*"), ("/*", "hub/*"), registry="docker.io")
    for name in ("app", "library/app", "org/app"):
        assert larder.get("/v2/%s/manifests/v1?ns=docker.io" % name).good
    for name in ("off/app", "off/library/app", "hub/app", "hub/library/app", "hub/org/app"):
        assert larder.get("/v2/%s/manifests/v1?ns=index.docker.io" % name).status == 404
    assert larder.get("/v2/off/app/manifests/v1").good and larder.get("/v2/hub/org/app/manifests/v1").good


def test_a_target_of_another_registry_is_no_path_prefix(both, upstream):
    """quay/ is the target for another registry: at Docker Hub it is an organisation like any other."""
    image = upstream.add("quay/app", Image("quay-at-hub", (10,)), tag="v1")
    assert both.get("/v2/quay/app/manifests/v1?ns=docker.io").body == image.manifest
    assert both.get("/v2/hub/app/manifests/v1?ns=docker.io").status == 404


def test_ns_can_be_switched_off(start_larder, upstream):
    upstream.add("app", Image("app", (10,)), tag="v1")
    larder = start_larder(upstream, mirror={"enabled": False})
    r = larder.get("/v2/app/manifests/v1?ns=" + REGISTRY)
    assert r.status in (400, 404) and upstream.count() == 0
    assert larder.get(paths.manifest("t/app", "v1")).good


def test_ns_of_an_ipv6_registry(start_larder, upstream):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    larder = start_larder(upstream, upstreams=[{"registry": "[::1]:5000", "endpoints": [upstream.url]}],
                          rules=[{"name": "six", "source": "[::1]:5000/*", "target": "six/*"}])
    assert larder.get("/v2/app/manifests/v1?ns=[::1]:5000").body == image.manifest
    assert larder.get("/v2/app/manifests/v1?ns=%5B::1%5D:5000").body == image.manifest


# ---- rules ----

def check(directory, rules, **more):
    file = directory / "rules.yaml"
    file.write_text(yaml_text(dict({"rules": rules}, **more)))
    return file, run("check", "-f", str(file))


def rule(name, source, target):
    return {"name": name, "source": source, "target": target}


@pytest.mark.parametrize("one,two", [
    (("a.test/*", "x/*"), ("b.test/*", "x/*")), (("a.test/*", "x/*"), ("b.test/*", "x/y/*")), (("a.test/*", "*"), ("b.test/*", "x/*")),
    (("a.test/*", "x/y/z/*"), ("b.test/*", "x/*")), (("a.test/one", "x/one"), ("b.test/two", "x/one"))],
    ids=["equal", "nested", "under the root", "nested the other way", "one target"])
def test_rules_that_overlap_are_refused_with_both_names_and_lines(tmp_path, one, two):
    rules = [rule("first-one", *one), rule("second-one", *two)]
    file, result = check(tmp_path, rules)
    assert result.returncode == 1
    text = result.stderr + result.stdout
    assert "first-one" in text and "second-one" in text
    lines = file.read_text().splitlines()
    at = [n for n, line in enumerate(lines, 1) if "name:" in line]
    assert all(any(str(n + d) in text for d in range(3)) for n in at), text
    assert "%s:" % file in text


@pytest.mark.parametrize("source,target", [
    ("a.test/app:v1", "x/app"), ("a.test/app@sha256:" + "a" * 64, "x/app"), ("a.test/*", "x"), ("a.test/app", "x/*"), ("a.test/*/app", "x/*/app"),
    ("a.test/a*", "x/a*"), ("*", "x/*"), ("*.test/app", "x/app"), ("a.test/**", "x/**"), ("a.test", "x"), ("a.test/", "x/"),
    ("a.test/App", "x/app"), ("a.test/app", "X/app"), ("a.test/app", "x/../app"), ("app", "x/app"), ("https://a.test/app", "x/app"),
    ("a.test/app", ""), ("", "x/app"), ("a.test/app", "/x"), ("a.test:99999/app", "x/app")])
def test_rules_that_make_no_sense_are_refused(tmp_path, source, target):
    file, result = check(tmp_path, [rule("good", "b.test/*", "good/*"), rule("odd", source, target)])
    assert result.returncode == 1
    text = result.stderr + result.stdout
    assert any(text.startswith("%s:%d:" % (file, n)) for n in range(4, 9)), text


def test_two_rules_with_one_name_are_refused(tmp_path):
    _, result = check(tmp_path, [rule("same", "a.test/one", "x/one"), rule("same", "a.test/two", "x/two")])
    assert result.returncode == 1 and "same" in result.stderr + result.stdout


def test_a_rule_without_wildcard_wins_under_a_wildcard(start_larder, upstream, other):
    general = upstream.add("x/app", Image("general", (10,)), tag="v1")
    special = other.add("special", Image("special", (10,)), tag="v1")
    larder = start_larder(upstream, upstreams=[
        {"registry": REGISTRY, "endpoints": [upstream.url]}, {"registry": "other.test", "endpoints": [other.url]}],
        rules=[rule("general", REGISTRY + "/*", "*"), rule("special", "other.test/special", "x/special")])
    assert larder.get(paths.manifest("x/app", "v1")).body == general.manifest
    assert larder.get(paths.manifest("x/special", "v1")).body == special.manifest
    assert larder.get(paths.manifest("x/special/deeper", "v1")).status == 404
    assert [s.path for s in other.requests("GET")] == [paths.manifest("special", "v1")]


def test_ten_thousand_rules(start_larder, upstream):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    for n in (0, 4999, 9999):
        upstream.add("deep/r%d" % n, image, tag="v1")
    rules = [rule("r%d" % n, "%s/deep/r%d" % (REGISTRY, n), "many/r%d" % n) for n in range(10000)]
    larder = start_larder(upstream, rules=rules + [rule("rest", REGISTRY + "/*", "t/*")])
    for n in (0, 4999, 9999):
        assert larder.get(paths.manifest("many/r%d" % n, "v1")).body == image.manifest
        assert larder.get("/v2/deep/r%d/manifests/v1?ns=%s" % (n, REGISTRY)).body == image.manifest
    assert larder.get(paths.manifest("many/r10000", "v1")).status == 404
    assert larder.get(paths.manifest("t/app", "v1")).good


# ---- content belongs to the repositories that have it ----

@pytest.fixture
def private(start_larder, upstream, other):
    """Two rules on two upstreams; a layer is cached through the private one."""
    image = upstream.add("secret", Image("secret", (1000,)), tag="v1")
    larder = start_larder(upstream, upstreams=[
        {"registry": REGISTRY, "endpoints": [upstream.url]}, {"registry": "other.test", "endpoints": [other.url]}],
        rules=[rule("private", REGISTRY + "/*", "private/*"), rule("public", "other.test/*", "public/*")], defaults={"negative_ttl": "0s"})
    assert larder.get(paths.manifest("private/secret", "v1")).good
    for name in image.blobs:
        assert larder.get(paths.blob("private/secret", name)).good
    upstream.forget()
    return larder, image


def test_a_private_layer_is_not_served_through_another_rule(private, other):
    larder, image = private
    other.repo("app")
    for target in [paths.blob("public/app", name) for name in image.blobs] + [paths.manifest("public/app", image.digest)]:
        for method in ("GET", "HEAD"):
            assert larder.request(method, target).status == 404, target
    assert other.count() >= 3, "the other rule's upstream decides, so it was asked"


def test_nor_through_another_repository_of_the_same_rule(private, upstream):
    larder, image = private
    upstream.repo("open")
    for name in image.blobs:
        assert larder.get(paths.blob("private/open", name)).status == 404
    assert all(s.path.startswith("/v2/open/") for s in upstream.requests())


def test_what_the_other_repository_has_too_is_served_without_a_second_transfer(private, other):
    larder, image = private
    other.add("app", image, tag="v1")
    for name, data in image.blobs.items():
        for _ in range(3):
            assert larder.get(paths.blob("public/app", name)).body == data
            larder.wait_idle()  # what upstream said is written down
    assert larder.get(paths.manifest("public/app", image.digest)).body == image.manifest
    for name in image.blobs:
        asked = other.requests(path=paths.blob("app", name))
        assert len(asked) == 1 and (asked[0].method == "HEAD" or asked[0].sent <= 1), asked
    other.stop()
    assert larder.get(paths.blob("public/app", image.config)).good, "the answer is remembered"


@pytest.mark.parametrize("fault", [Fault(status=405), Fault(status=404), Fault(status=400), Fault(status=500), Fault(status=503), Fault(drop=True)],
                         ids=["405", "404", "400", "500", "503", "closed"])
def test_when_head_is_of_no_use_one_byte_is_asked_for(private, other, fault):
    larder, image = private
    other.add("app", image, tag="v1")
    other.on(lambda s: True, fault, method="HEAD")
    name = image.layers[0]
    assert larder.get(paths.blob("public/app", name)).body == image.blobs[name]
    assert [s.range for s in other.requests("GET", paths.blob("app", name))] == ["bytes=0-0"]


VAGUE = {"chunked": Fault(framing="chunked"), "until the end": Fault(framing="close"),
         "a part of something": Fault(status=206, body=lambda b: b[:1], headers={"Content-Range": "bytes 0-0/*"})}


@pytest.mark.parametrize("how", VAGUE)
@pytest.mark.parametrize("named", [True, False])
def test_when_the_other_upstream_tells_no_length(private, other, how, named):
    """The digest that it names is enough; without one the bytes decide."""
    larder, image = private
    larder.wait_stored(*image.blobs)
    other.add("app", image, tag="v1")
    headers = {} if named else {"Docker-Content-Digest": None, "ETag": None}
    vague = VAGUE[how]
    other.on(lambda s: True, Fault(framing="none", headers=headers), method="HEAD")
    other.on(lambda s: s.range, Fault(framing=vague.framing, status=vague.status, body=vague.body, range="ignore",
                                      headers=dict(vague.headers, **headers)))
    other.on(lambda s: True, Fault(framing="chunked", headers=headers))
    for _ in range(2):
        for name, data in image.blobs.items():
            assert larder.get(paths.blob("public/app", name)).body == data
        assert larder.get(paths.manifest("public/app", image.digest)).body == image.manifest
    other.forget()
    assert larder.get(paths.manifest("public/app", image.digest)).good and other.count() == 0, "that is remembered"


@pytest.mark.parametrize("said", ["text/html", "application/octet-stream", "application/vnd.oci.image.manifest.v1+json"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_sign_in_page_is_no_proof_that_the_other_upstream_has_it(private, other, said, framing):
    larder, image = private
    larder.wait_stored(*image.blobs)
    other.on(lambda s: True, Fault(status=200, body=b"<html>Please sign in</html>", framing=framing,
                                   headers={"Content-Type": said, "Docker-Content-Digest": None, "ETag": None}))
    for target in (paths.blob("public/app", image.layers[0]), paths.manifest("public/app", image.digest)):
        assert larder.get(target).status == 502, target
        assert larder.head(target).status == 502, target


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_when_the_other_upstream_refuses_or_fails_nothing_is_served(private, other, status):
    larder, image = private
    other.add("app", image)
    other.on(lambda s: True, Fault(status=status))
    r = larder.get(paths.blob("public/app", image.layers[0]))
    assert r.status in {401: (403,), 403: (403,), 429: (429,), 500: (502,), 503: (502, 503)}[status]
    assert image.blobs[image.layers[0]] not in r.body


def test_many_ask_for_what_another_rule_has_cached(private, other):
    larder, image = private
    other.add("app", image)
    name = image.layers[0]
    gate = other.hold(paths.blob("app", name), at="request", method=None)
    fetches = [Fetch(larder.address, paths.blob("public/app", name)) for _ in range(20)]
    gate.wait_reached()
    larder.wait_all_read(20)
    gate.release()
    for f in fetches:
        assert f.result().body == image.blobs[name]
    assert other.count() == 1


SAYS = {"yes": Fault(), "no digest": Fault(headers={"Docker-Content-Digest": None}),
        "neither digest nor length": Fault(framing="chunked", range="ignore", headers={"Docker-Content-Digest": None}),
        "a page": Fault(status=200, body=b"<html>Please sign in</html>", headers={"Docker-Content-Digest": None}),
        "a page without a length": Fault(status=200, body=b"<html>Please sign in</html>", framing="chunked",
                                         headers={"Docker-Content-Digest": None})}


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("head", [True, False])
def test_what_another_rule_is_just_fetching_is_shared_only_with_who_has_it(private, upstream, other, says, head):
    """Nothing is here yet that the other upstream's answer could be compared with, but for the length of what is on its way."""
    larder, _ = private
    data = blob("on its way", 500000)
    name = upstream.add_blob("secret", data)
    other.add_blob("app", data)
    if not head:
        other.on(lambda s: True, Fault(status=405), method="HEAD")
    other.on(lambda s: True, SAYS[says])
    gate = upstream.hold(paths.blob("secret", name), at=200000)
    first = Fetch(larder.address, paths.blob("private/secret", name))
    first.wait_got(200000)
    second = Fetch(larder.address, paths.blob("public/app", name))
    if "page" in says:
        r = second.result()
        assert not r.good and data[:1000] not in r.body, r
    else:
        second.wait_head()
    gate.release()
    assert first.result().body == data
    if "page" not in says:
        assert second.result().good and second.response.body == data
        again = [s for s in other.requests("GET") if not s.range]
        assert len(again) == (says == "neither digest nor length"), "fetched a second time only without any proof"


def test_a_blob_is_stored_once_for_all_its_repositories(larder, upstream):
    data = blob("shared", 1000)
    for n in range(5):
        name = upstream.add_blob("repo-%d" % n, data)
        assert larder.get(paths.blob("t/repo-%d" % n, name)).body == data
    larder.wait_stored(name)
    assert larder.stored_objects() == [name] and upstream.sent() <= 1000 + 4
