"""Redirects: followed wherever that is safe, never shown, never kept, and nothing goes along that has no business there."""

import re
import time

import pytest

from lib import paths
from lib.client import Fetch
from lib.images import KIB, Image, blob
from lib.larder import REGISTRY, wait_until
from lib.ports import free_port
from lib.secrets import secret
from lib.tls import Tls
from lib.tokens import TokenRegistry, credentials, rule
from lib.upstream import Fault, Upstream

SIGNED = "/data/x%2Fy//z?se=2026-01-01T00%3A00%3A00Z&sig=a%2Bb%2F%3D&empty=&sig2=~%7e"


@pytest.fixture
def data():
    return blob("redirected", 700 * KIB)


@pytest.fixture
def cdn():
    with Upstream() as up:
        yield up


@pytest.fixture
def name(upstream, cdn, data):
    """The digest of a blob that upstream has, and redirects to the other host."""
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(redirect=cdn.url + SIGNED))
    serve(cdn, SIGNED, data)
    return digest


def serve(up, target, data):
    """The bytes at that very target: GET only, as signed URLs are, and with ranges."""
    up.on(lambda s: s.target == target and s.method == "HEAD", Fault(status=403))
    up.on(target, Fault(status=200, body=data, headers={"Content-Type": "binary/octet-stream", "Accept-Ranges": "bytes"}))


def ours(digest):
    return paths.blob("t/app", digest)


def test_to_another_host(larder, upstream, cdn, name, data):
    r = larder.get(ours(name))
    assert r.good and r.body == data and r.header("Location") is None
    seen = cdn.requests()
    assert [s.target for s in seen] == [SIGNED], "byte for byte"
    assert seen[0].host == "127.0.0.1:%d" % cdn.port and "authorization" not in seen[0].headers
    larder.wait_stored(name)
    assert larder.get(ours(name)).body == data
    assert cdn.count() == 1


@pytest.mark.parametrize("location", ["//127.0.0.1:{port}{signed}", "http://127.0.0.1:{port}{signed}#part", "HTTP://127.0.0.1:{port}{signed}"])
def test_ways_to_write_a_location(larder, upstream, cdn, data, location):
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(redirect=location.format(port=cdn.port, signed=SIGNED)))
    serve(cdn, SIGNED, data)
    assert larder.get(ours(digest)).body == data
    assert [s.target for s in cdn.requests()] == [SIGNED]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_status(larder, upstream, cdn, data, status):
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(status=status, headers={"Location": cdn.url + SIGNED, "Cache-Control": "max-age=31536000"}, body=b"<p>"))
    serve(cdn, SIGNED, data)
    assert larder.get(ours(digest)).body == data


def test_the_token_stays_at_home(start_larder, cdn, data):
    with TokenRegistry() as up:
        digest = up.add_blob("app", data)
        up.on(lambda s: "/blobs/" in s.path and "authorization" in s.headers, Fault(redirect=cdn.url + SIGNED))
        serve(cdn, SIGNED, data)
        larder = start_larder(up)
        assert larder.get(ours(digest)).body == data
        assert "authorization" in up.contents()[-1].headers
        assert all("authorization" not in s.headers for s in cdn.requests())


def test_the_token_goes_along_within_the_origin(start_larder, data):
    with TokenRegistry() as up:
        digest = up.add_blob("app", data)
        up.on(lambda s: "/v2/app/blobs/" in s.path and "authorization" in s.headers, Fault(redirect="/v2/elsewhere?a=%20b"))
        up.on("/v2/elsewhere?a=%20b", Fault(status=200, body=data))
        larder = start_larder(up)
        assert larder.get(ours(digest)).body == data
        assert up.contents()[-1].headers["authorization"].startswith("Bearer ")


def test_basic_stays_at_home(start_larder, tmp_path, cdn, data):
    password = secret("password")
    with TokenRegistry(basic=("someone", password)) as up:
        digest = up.add_blob("app", data)
        up.on(lambda s: "/blobs/" in s.path and "authorization" in s.headers, Fault(redirect=cdn.url + SIGNED))
        serve(cdn, SIGNED, data)
        larder = start_larder(up, credential_sets=[credentials(tmp_path, password)], rules=[rule(credential_set="account")])
        assert larder.get(ours(digest)).body == data
        assert all("authorization" not in s.headers for s in cdn.requests())


def test_a_host_that_looks_like_home(start_larder, data):
    """Another port is another origin."""
    with TokenRegistry() as up, Upstream() as other:
        digest = up.add_blob("app", data)
        up.on(lambda s: "/blobs/" in s.path and "authorization" in s.headers, Fault(redirect="http://127.0.0.1:%d/x" % other.port))
        other.on("/x", Fault(redirect=up.url + "/v2/back"))
        up.on("/v2/back", Fault(status=200, body=data))
        larder = start_larder(up)
        assert larder.get(ours(digest)).body == data
        assert "authorization" not in other.requests()[0].headers


def test_five_hops(larder, upstream, cdn, data):
    good, far = upstream.add_blob("app", data), upstream.add_blob("app", data + b"x")
    for n in range(1, 6):
        cdn.on("/hop/%d" % n, Fault(redirect="/hop/%d" % (n + 1)))
    serve(cdn, "/hop/6", data)
    upstream.on(paths.blob("app", good), Fault(redirect=cdn.url + "/hop/2"))
    upstream.on(paths.blob("app", far), Fault(redirect=cdn.url + "/hop/1"))
    assert larder.get(ours(good)).body == data
    r = larder.get(ours(far))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"


def test_a_loop_between_hosts(larder, upstream, cdn, data):
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(redirect=cdn.url + "/x"))
    cdn.on("/x", Fault(redirect=upstream.url + paths.blob("app", digest)))
    assert larder.get(ours(digest)).status == 502
    assert upstream.count() + cdn.count() <= 12


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/x", "http://0.0.0.0:{port}/x", "http://[::]:{port}/x",
                                      "http://224.0.0.1/x", "http://[::ffff:169.254.169.254]/x", "http://2852039166/x", "http://[fd00:ec2::254]/x"])
def test_targets_that_no_stranger_may_name(larder, upstream, cdn, data, location):
    digest = upstream.add_blob("app", data)
    cdn.on("/x", Fault(status=200, body=data))
    upstream.on(paths.blob("app", digest), Fault(redirect=location.format(port=cdn.port)))
    r = larder.get(ours(digest))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"
    assert cdn.count() == 0
    wait_until(lambda: larder.logged(text="to which only the operator may lead"), "the reason is in the log")


def test_from_https_to_http(start_larder, cdn, data, root):
    leaf = root.issue("up.test", names=["up.test"], ips=["127.0.0.1"])
    with Upstream(tls=Tls(leaf)) as up, Upstream(tls=Tls(leaf)) as safe:
        down, across = up.add_blob("app", data), up.add_blob("app", data + b"x")
        up.on(paths.blob("app", down), Fault(redirect=cdn.url + "/x"))
        up.on(paths.blob("app", across), Fault(redirect=safe.url + "/x"))
        cdn.on("/x", Fault(status=200, body=data))
        safe.on("/x", Fault(status=200, body=data + b"x"))
        larder = start_larder(up, upstreams=[{"registry": REGISTRY, "endpoints": [up.url], "ca": root.file}])
        assert larder.get(ours(down)).status == 502
        assert cdn.count() == 0
        assert larder.get(ours(across)).good


def test_what_the_operator_names(start_larder, upstream, cdn, data):
    digest = upstream.add_blob("app", data)
    cdn.on("/x", Fault(status=200, body=data))
    upstream.on(paths.blob("app", digest), Fault(redirect="http://0.0.0.0:%d/x" % cdn.port))
    larder = start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": [upstream.url], "redirect_hosts": ["0.0.0.0"]}])
    assert larder.get(ours(digest)).body == data


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "http://user:pw@127.0.0.1/x", "http:///x", "http://127.0.0.1:0/x", "javascript:x",
                                      "http://127.0.0.1/" + "x" * 9000])
def test_locations_that_are_none(larder, upstream, data, location):
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(redirect=location))
    assert larder.get(ours(digest)).status == 502


def test_a_head_is_not_led_to_a_signed_target(larder, upstream, cdn, name, data):
    r = larder.head(ours(name))
    assert r.status == 200 and r.header("Content-Length") == str(len(data))
    assert [(s.method, s.range) for s in cdn.requests()] == [("GET", "bytes=0-0")]
    assert larder.metric("fetches_in_flight") == 0


def test_manifests_at_another_registry(larder, upstream):
    """As at registry.k8s.io: HEAD works there, too."""
    image = Image("redirected", (10,))
    with Upstream() as other:
        other.add("deep/app", image, tag="v1")
        upstream.on(re.compile(r"/v2/app/manifests/v1"), Fault(redirect=other.url + paths.manifest("deep/app", "v1")))
        assert larder.get(paths.manifest("t/app", "v1")).body == image.manifest
        assert [s.method for s in other.requests()] == ["GET"]


def test_a_check_of_a_redirected_tag(start_larder, upstream):
    image = Image("redirected", (10,))
    with Upstream() as other:
        other.add("deep/app", image, tag="v1")
        upstream.on(re.compile(r"/v2/app/manifests/v1"), Fault(redirect=other.url + paths.manifest("deep/app", "v1")))
        larder = start_larder(upstream, defaults={"tag_ttl": "1s"})
        assert larder.get(paths.manifest("t/app", "v1")).good
        wait_until(lambda: larder.get(paths.manifest("t/app", "v1")).good and other.count("HEAD"), "the tag is checked")
        assert other.count("GET") == 1


def test_a_resume_asks_for_the_redirect_again(larder, upstream, cdn, data):
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(redirect=cdn.url + "/first?sig=1"), nth=1)
    upstream.on(paths.blob("app", digest), Fault(redirect=cdn.url + "/second?sig=2"))
    cdn.on("/first?sig=1", Fault(status=200, body=data, headers={"Accept-Ranges": "bytes"}, cut_at=300 * KIB), times=1)
    cdn.on("/first?sig=1", Fault(status=403))
    serve(cdn, "/second?sig=2", data)
    assert larder.get(ours(digest)).body == data
    assert upstream.count() == 2
    assert cdn.requests()[-1].range.startswith("bytes=")


@pytest.mark.parametrize("wait", [0, 0.05])
def test_a_redirect_does_not_cost_the_connection(start_larder, cdn, wait):
    """Nor do a 401 and a 404: what they say is a few words, which come with the head or a moment later."""
    with TokenRegistry() as up:
        image = up.add("app", Image("layers", (5000,) * 6), tag="v1")
        for name in image.layers:
            up.on(lambda s, name=name: name in s.path and "authorization" in s.headers,
                  Fault(redirect="%s/data/%s?sig=1" % (cdn.url, name), delay={"body": wait}))
            serve(cdn, "/data/%s?sig=1" % name, image.blobs[name])
        larder = start_larder(up, workers=1)
        assert larder.get(paths.manifest("t/app", "v1")).good
        for name in image.layers:
            assert larder.get(ours(name)).body == image.blobs[name]
            time.sleep(4 * wait)
            assert larder.get(paths.manifest("t/app", "none-" + name[-8:])).status == 404
        assert len(up.refused()) == 1 and up.count() >= 15
        # Fifteen without it. One is enough, unless a few words come so late that the next request is there before them.
        assert up.connections <= 3 and cdn.connections <= 3


# ---- another registry behind a redirect ----


def two_registries(front, **how):
    back = TokenRegistry(**how)
    image = Image("behind", (20_000,))
    back.add("owner/app", image, tag="v1")
    for target in [paths.manifest("app", "v1"), paths.manifest("app", image.digest)] + [paths.blob("app", n) for n in image.blobs]:
        front.on(target, Fault(redirect=back.url + target.replace("/v2/app/", "/v2/owner/app/")))
    return back, image


def pull(larder, image):
    assert larder.get(paths.manifest("t/app", "v1")).body == image.manifest
    for digest, data in image.blobs.items():
        assert larder.get(paths.blob("t/app", digest)).body == data


def test_another_registry_wants_its_own_token(larder, upstream):
    back, image = two_registries(upstream)
    with back:
        pull(larder, image)
        assert back.server.asked == [("GET", None, "repository:owner/app:pull")]


def test_the_first_ones_account_is_not_for_the_second(start_larder, tmp_path):
    password = secret("password")
    with TokenRegistry(basic=("someone", password)) as front:
        back, image = two_registries(front, accounts={"someone": password})
        front.allowed = lambda seen, scope: True
        with back:
            larder = start_larder(front, credential_sets=[credentials(tmp_path, password)], rules=[rule(credential_set="account")])
            pull(larder, image)
            assert back.server.asked == [("GET", None, "repository:owner/app:pull")]
            assert all("Basic" not in s.headers.get("authorization", "") for s in back.requests())


def test_the_second_ones_own_account(start_larder, upstream, tmp_path):
    password = secret("password")
    back, image = two_registries(upstream, accounts={"other": password}, anonymous=False)
    with back:
        larder = start_larder(upstream, credential_sets=[credentials(tmp_path, password, "second", "back.test", "other")],
                              upstreams=[{"registry": REGISTRY, "endpoints": [upstream.url]}, {"registry": "back.test", "endpoints": [back.url]}],
                              rules=[rule(), rule("back", "back.test/owner/*", "b/*", "second")])
        pull(larder, image)
        assert back.server.asked == [("GET", "other", "repository:owner/app:pull")]


def test_no_rule_no_account(start_larder, upstream, tmp_path):
    """What no rule covers is not opened by a redirect."""
    password = secret("password")
    back, image = two_registries(upstream, accounts={"other": password}, anonymous=False)
    with back:
        larder = start_larder(upstream, credential_sets=[credentials(tmp_path, password, "second", "back.test", "other")],
                              upstreams=[{"registry": REGISTRY, "endpoints": [upstream.url]}, {"registry": "back.test", "endpoints": [back.url]}],
                              rules=[rule(), rule("back", "back.test/public/*", "b/*", "second")])
        assert larder.get(paths.manifest("t/app", "v1")).status == 403
        assert all(user is None for _, user, _ in back.server.asked)


def test_whoever_redirects_does_not_choose_who_vouches_for_the_target(start_larder, tmp_path, pki, root):
    """The first one's authority has made a certificate for the second one's name: the second one's password stays here."""
    password, theirs = secret("password"), pki.root("Theirs")
    target = "/v2/owner/app/manifests/v1"
    with Upstream(tls=Tls(theirs.issue("up.test", names=[REGISTRY]))) as front, Upstream(tls=Tls(theirs.issue("x", names=["back.test"]))) as fake:
        fake.on(re.compile("."), Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
        front.on(paths.manifest("app", "v1"), Fault(redirect="https://back.test" + target))
        at = {name: "127.0.0.1:%d" % up.port for name, up in ((REGISTRY, front), ("back.test", fake))}
        how = dict(resolve=at, credential_sets=[credentials(tmp_path, password, "second", "back.test", "other")],
                   rules=[rule(), rule("back", "back.test/owner/*", "b/*", "second")])
        larder = start_larder(front, upstreams=[{"registry": REGISTRY, "ca": theirs.file}, {"registry": "back.test", "ca": root.file}], **how)
        assert larder.get(paths.manifest("t/app", "v1")).status == 502
        assert fake.connections > 0 and fake.count() == 0
        larder.stop()
        image = fake.add("owner/app", Image("behind", (10,)), tag="v1")
        fake.clear()
        larder = start_larder(front, upstreams=[{"registry": REGISTRY, "ca": theirs.file}, {"registry": "back.test", "ca": theirs.file}], **how)
        assert larder.get(paths.manifest("t/app", "v1")).body == image.manifest


# ---- nothing of it is told ----


def test_signatures_are_in_no_log(larder, upstream, cdn, data):
    signature = secret("signature")
    digest = upstream.add_blob("app", data)
    upstream.on(paths.blob("app", digest), Fault(redirect=cdn.url + "/path?sig=" + signature))
    cdn.on(re.compile("/path"), Fault(status=403))
    r = larder.get(ours(digest))
    assert r.status == 403
    wait_until(lambda: larder.logged(text="redirected to " + cdn.url + "/path"), "where it led is in the log")
    cdn.clear()
    cdn.on(re.compile("/path"), Fault(redirect="http://169.254.169.254/x?sig=" + signature))
    assert larder.get(ours(digest)).status == 502


# ---- several endpoints, and none ----


def test_a_bad_endpoint_is_left_out_for_a_while(start_larder, upstream, cdn):
    images = [Image("app-%d" % n, (10,)) for n in range(6)]
    for n, image in enumerate(images):
        upstream.add("app", image, tag="v%d" % n)
    cdn.on(re.compile("."), Fault(drop=True))
    larder = start_larder(upstream, upstreams=[{"registry": REGISTRY, "endpoints": [cdn.url, upstream.url]}])
    for n in range(6):
        assert larder.get(paths.manifest("t/app", "v%d" % n)).good
    assert cdn.count() < 6, "it is not asked first each time"
    for image in images:
        cdn.add("app", image)
    cdn.clear()
    before, ours = cdn.count(), iter(range(10 ** 6))
    wait_until(lambda: larder.get(paths.manifest("t/app", "none-%d" % next(ours))).status == 404 and cdn.count() > before,
               "the first one is asked again")


def test_an_upstream_that_is_down_is_left_alone(start_larder, upstream):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    larder = start_larder(upstream)
    assert larder.get(paths.manifest("t/app", "v1")).good
    upstream.on(re.compile("."), Fault(status=504))
    statuses = []

    def left_alone():
        before = upstream.count()
        r = larder.get(paths.blob("t/app", image.config))
        statuses.append(r.status)
        return upstream.count() == before and r.header("Retry-After") is not None
    wait_until(left_alone, "upstream is not asked any more")
    assert set(statuses) == {504}
    assert larder.get(paths.manifest("t/app", "v1")).good
    upstream.clear()
    assert larder.get_when_up(paths.blob("t/app", image.config)).body == image.config_bytes


def test_a_target_that_is_down_is_not_the_registry(larder, upstream):
    """Where blobs are is gone: manifests can be had all the same."""
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    gone = "http://127.0.0.1:%d/x" % free_port()
    for n in range(5):
        name = upstream.add_blob("app", blob("gone-%d" % n, 10))
        upstream.on(paths.blob("app", name), Fault(redirect=gone))
        assert larder.get(ours(name)).status == 502
    assert larder.get(paths.manifest("t/app", "v1")).body == image.manifest


@pytest.mark.parametrize("fault", [Fault(drop=True), Fault(status=502), Fault(status=503), Fault(status=504), Fault(cut_at=-1, cut="rst")],
                         ids=["closed", "502", "503", "504", "reset"])
def test_a_hiccup_is_not_told(larder, upstream, fault):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    upstream.on(re.compile("."), fault, times=2)
    assert larder.get(paths.manifest("t/app", "v1")).good
    assert upstream.count() == 3
    upstream.on(re.compile("/blobs/"), fault, times=2)
    assert larder.get(paths.blob("t/app", image.config)).good


# ---- names that take long to look up ----

def test_names_of_one_upstreams_redirects_keep_no_other_upstream_waiting(start_larder, upstream, faults):
    """Forty redirects to as many names whose servers do not answer: the names that the operator has written down are looked up meanwhile."""
    digests = [upstream.add_blob("app", blob("far away", 100 + n)) for n in range(40)]
    names = {"far-%d.test" % n: ["wait"] for n in range(len(digests))}
    for n, digest in enumerate(digests):
        upstream.on(paths.blob("app", digest), Fault(redirect="http://far-%d.test:%d/x" % (n, upstream.port)))
    with Upstream() as other:
        image = other.add("app", Image("near", (10,)), tag="v1")
        larder = start_larder(upstream, workers=1, resolve={}, upstreams=[
            {"registry": REGISTRY, "endpoints": [upstream.url], "timeouts": {"connect": "10s", "first_byte": "20s"}},
            {"registry": "other.test", "endpoints": ["http://other.test:%d" % other.port], "timeouts": {"connect": "3s"}}],
            rules=[rule("private", REGISTRY + "/*", "t/*"), rule("public", "other.test/*", "o/*")])
        faults.names(dict(names, **{"other.test": ["127.0.0.1"]}))
        faults.hold("names")
        fetches = [Fetch(larder.address, ours(digest)) for digest in digests]
        faults.wait_held("names")
        wait_until(lambda: upstream.count() >= len(digests), "all are redirected")
        started = time.monotonic()
        r = larder.get(paths.manifest("o/app", "v1"))
        assert r.status == 200 and r.body == image.manifest
        assert time.monotonic() - started < 2
        for f in fetches:
            f.leave()
        faults.release("names")
