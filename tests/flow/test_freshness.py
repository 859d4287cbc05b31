"""Tags: served from the store inside their TTL, asked for once after it, and stale when upstream fails."""

import re
import time

import pytest

from lib import paths
from lib.client import Conn, Fetch
from lib.images import Image
from lib.larder import REGISTRY, cache_status, wait_until
from lib.upstream import Fault, Upstream

APP = "t/app"
TAG = paths.manifest("app", "v1")
OURS = paths.manifest(APP, "v1")


@pytest.fixture
def image(upstream):
    return upstream.add("app", Image("fresh", (10,)), tag="v1")


@pytest.fixture
def stale_larder(upstream, start_larder, image):
    """Every request for the tag finds it past its TTL."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"},
                          timeouts={"connect": "2s", "first_byte": "2s", "idle": "2s"})
    assert larder.get(OURS).good
    upstream.forget()
    return larder


def assert_stale(r, image):
    assert r.status == 200 and r.clean
    assert r.method == "HEAD" or r.body == image.manifest
    assert r.header("Docker-Content-Digest") == image.digest and r.header("Content-Type") == image.media_type
    what, values = cache_status(r)
    assert what == "hit" and int(values["ttl"]) <= 0
    assert values["detail"].startswith("stale-")
    return values["detail"]


def test_inside_the_ttl_upstream_is_not_asked(larder, upstream, image):
    larder.get(OURS)
    upstream.forget()
    for method in ("GET", "HEAD"):
        for _ in range(5):
            assert larder.request(method, OURS).status == 200
    upstream.stop()
    assert larder.get(OURS).body == image.manifest
    assert upstream.count() == 0


def test_inside_the_ttl_also_after_a_restart(larder, upstream, image):
    larder.get(OURS)
    upstream.forget()
    larder.restart()
    assert larder.get(OURS).body == image.manifest
    assert upstream.count() == 0


def test_after_the_ttl_a_head_confirms_the_tag(upstream, start_larder, image):
    larder = start_larder(upstream, defaults={"tag_ttl": "1s"})
    larder.get(OURS)
    upstream.forget()
    time.sleep(1.1)  # a lower bound: the tag's time is over whatever the machine does
    for _ in range(3):
        r = larder.get(OURS)
        assert r.body == image.manifest
    heads = [s.method for s in upstream.requests()]
    assert heads and set(heads) == {"HEAD"}, "an unchanged tag costs no GET"


def test_unchanged_tags_cost_heads_only(stale_larder, upstream, image):
    for _ in range(5):
        r = stale_larder.get(OURS)
        assert r.body == image.manifest and cache_status(r)[0] in ("hit", "stale")
    # Answers of one revalidation may be shared with who comes while it is written down.
    assert 1 <= upstream.count("HEAD") <= 5 and upstream.count("GET") == 0


NO_HEADS = {"405": Fault(status=405), "404": Fault(status=404), "no digest": Fault(headers={"Docker-Content-Digest": None}),
            "400": Fault(status=400), "500": Fault(status=500), "501": Fault(status=501), "502": Fault(status=502),
            "503": Fault(status=503), "504": Fault(status=504), "closed": Fault(drop=True), "garbage": Fault(raw=b"garbage\r\n\r\n")}


@pytest.mark.parametrize("what", NO_HEADS)
def test_where_heads_are_of_no_use_a_get_confirms(stale_larder, upstream, image, what):
    upstream.on(TAG, NO_HEADS[what], method="HEAD")
    for expected in (image, upstream.add("app", Image("moved", (20,)), tag="v1")):
        upstream.tag("app", "v1", expected.digest)
        r = stale_larder.get(OURS)
        assert r.body == expected.manifest
        assert upstream.requests()[-1].method == "GET"
        assert "detail" not in cache_status(r)[1]
    assert stale_larder.admin("/api/v1/upstreams")[1].count('"failures":0') == 1, "what fails at HEADs only is well"


def test_where_heads_fail_a_get_finds_that_upstream_is_back(stale_larder, upstream, image):
    """Whoever probes asks by HEAD and by GET."""
    upstream.stop()
    for n in range(4):
        stale_larder.get(paths.manifest(APP, "none-%d" % n))
    upstream.start()
    upstream.on(re.compile("."), Fault(status=503), method="HEAD")
    new = upstream.add("app", Image("moved", (20,)), tag="v1")
    wait_until(lambda: stale_larder.get(OURS).body == new.manifest, "the new one is seen")


def test_one_endpoint_fails_at_heads_and_the_other_is_gone(upstream, start_larder, image):
    with Upstream() as gone:
        larder = start_larder(upstream, defaults={"tag_ttl": "0s"}, upstreams=[
            {"registry": REGISTRY, "endpoints": [upstream.url, gone.url], "timeouts": {"connect": "2s", "first_byte": "2s", "idle": "2s"}}])
        assert larder.get(OURS).good
    upstream.on(re.compile("."), Fault(status=500), method="HEAD")
    r = larder.get(OURS)
    assert r.body == image.manifest and "detail" not in cache_status(r)[1]


def test_a_moved_tag_is_seen_by_all_after_the_ttl(stale_larder, upstream, image):
    new = upstream.add("app", Image("moved", (20,)), tag="v1")
    fetches = [Fetch(stale_larder.address, OURS, method=m) for m in ("GET", "HEAD") * 5]
    for f in fetches:
        assert f.result().header("Docker-Content-Digest") == new.digest
    assert stale_larder.get(OURS).body == new.manifest
    old = stale_larder.get(paths.manifest(APP, image.digest))
    assert old.body == image.manifest, "the old one still answers by digest"
    assert upstream.count("GET", paths.manifest("app", image.digest)) == 0
    assert upstream.count("GET", TAG) + upstream.count("GET", paths.manifest("app", new.digest)) == 1


def test_a_moved_tag_is_not_seen_inside_the_ttl(larder, upstream, image):
    larder.get(OURS)
    upstream.add("app", Image("moved", (20,)), tag="v1")
    assert larder.get(OURS).header("Docker-Content-Digest") == image.digest


def test_clients_that_only_head_see_a_moved_tag(stale_larder, upstream, image):
    new = upstream.add("app", Image("moved", (20,)), tag="v1")
    r = stale_larder.head(OURS)
    assert r.header("Docker-Content-Digest") == new.digest and r.header("Content-Length") == str(len(new.manifest))
    assert stale_larder.get(paths.manifest(APP, new.digest)).body == new.manifest


def test_a_tag_that_moves_back(stale_larder, upstream, image):
    new = upstream.add("app", Image("moved", (20,)), tag="v1")
    assert stale_larder.get(OURS).body == new.manifest
    upstream.tag("app", "v1", image.digest)
    upstream.forget()
    assert stale_larder.get(OURS).body == image.manifest
    assert upstream.count("GET") == 0


FAILURES = {
    "500": Fault(status=500), "502": Fault(status=502), "503": Fault(status=503), "504": Fault(status=504), "401": Fault(status=401),
    "403": Fault(status=403), "429": Fault(status=429, headers={"Retry-After": "30"}), "429 plain": Fault(status=429),
    "400": Fault(status=400), "406": Fault(status=406),
    "garbage": Fault(raw=b"garbage\r\n\r\n"), "closed": Fault(drop=True), "reset": Fault(cut_at=-1, cut="rst"),
    "a page": Fault(status=200, body=b"<html>", headers={"Content-Type": "text/html", "Docker-Content-Digest": None, "ETag": None}),
    "an empty 200": Fault(status=200, body=b"", headers={"Docker-Content-Digest": None, "ETag": None}),
    "other bytes": Fault(body=b"{}", headers={"Docker-Content-Digest": "sha256:" + "0" * 64}),
    "silence": Fault(silent="request"),
}


# No status says what was wrong.
WORDS = {"garbage": "invalid", "closed": "closed", "reset": "closed", "a page": "invalid", "an empty 200": "invalid", "other bytes": "digest",
         "silence": "timeout"}


@pytest.mark.parametrize("what", FAILURES)
def test_stale_when_upstream_fails(stale_larder, upstream, image, what):
    upstream.on(re.compile("."), FAILURES[what])
    for method in ("GET", "HEAD", "GET"):
        detail = assert_stale(stale_larder.request(method, OURS), image)
        assert detail == "stale-upstream-" + (what[:3] if what[:3].isdigit() else WORDS[what])
    asked = upstream.count()
    assert asked >= 1
    for _ in range(10):
        assert_stale(stale_larder.get(OURS), image)
    assert upstream.count() - asked <= 2, "the failed check is not repeated for each pull"
    assert stale_larder.get(paths.manifest(APP, image.digest)).body == image.manifest


def test_stale_when_upstream_is_gone(stale_larder, upstream, image):
    upstream.stop()
    fetches = [Fetch(stale_larder.address, OURS) for _ in range(10)]
    for f in fetches:
        f.result().method = "GET"
        assert assert_stale(f.response, image) == "stale-upstream-unreachable"
    stale_larder.restart()
    assert_stale(stale_larder.get(OURS), image)
    upstream.start()
    new = upstream.add("app", Image("moved", (20,)), tag="v1")
    wait_until(lambda: stale_larder.get(OURS).body == new.manifest, "upstream is asked again")


@pytest.mark.parametrize("what,status", [("500", 502), ("429", 429), ("403", 403), ("401", 403), ("garbage", 502)])
def test_outside_the_stale_window_the_error_is_told(upstream, start_larder, image, what, status):
    larder = start_larder(upstream, defaults={"tag_ttl": "0s", "stale_if_error": "0s"})
    assert larder.get(OURS).good
    larder.wait_stored(image.digest)
    upstream.on(re.compile("."), FAILURES[what])
    r = larder.get(OURS)
    assert r.status in ((502, 503) if status == 502 else (status,)), r
    assert larder.get(paths.manifest(APP, image.digest)).good, "pulls by digest are not affected"
    for _ in range(4):
        assert larder.get(OURS).status == r.status
    upstream.clear()
    if what != "429":
        assert larder.get(OURS).body == image.manifest, "and it is asked again at once"


def test_who_has_nothing_stale_does_not_wait_for_the_next_check(upstream, start_larder, image):
    """The pause after a failed check is for those who are served stale meanwhile."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"}, rules=[
        {"name": "stale", "source": REGISTRY + "/*", "target": "stale/*"},
        {"name": "strict", "source": REGISTRY + "/*", "target": "strict/*", "stale_if_error": "0s"}])
    stale, strict = paths.manifest("stale/app", "v1"), paths.manifest("strict/app", "v1")
    assert larder.get(stale).good
    larder.wait_stored(image.digest)
    upstream.on(re.compile("."), Fault(status=403))
    upstream.forget()
    wait_until(lambda: assert_stale(larder.get(stale), image) and upstream.count("HEAD") >= 3, "the pause has become longer")
    assert larder.get(strict).status == 403
    upstream.clear()
    assert_stale(larder.get(stale), image)
    assert larder.get(strict).body == image.manifest


def test_a_deleted_tag_is_served_if_the_rule_says_so(stale_larder, upstream, image):
    del upstream.repo("app")["tags"]["v1"]
    for _ in range(3):
        assert stale_larder.get(OURS).body == image.manifest
    assert stale_larder.get(paths.manifest(APP, image.digest)).good


def test_a_deleted_tag_is_refused_if_the_rule_says_so(upstream, start_larder, image):
    larder = start_larder(upstream, defaults={"tag_ttl": "0s", "on_upstream_404": "refuse"})
    assert larder.get(OURS).good
    del upstream.repo("app")["tags"]["v1"]
    for _ in range(3):
        r = larder.get(OURS)
        assert r.status == 404 and r.error_code == "MANIFEST_UNKNOWN"
    assert larder.get(paths.manifest(APP, image.digest)).body == image.manifest
    for layer in image.layers:
        assert larder.get(paths.blob(APP, layer)).good


def test_the_policy_of_a_rule_wins_over_the_default(upstream, start_larder, image):
    upstream.add("other", image, tag="v1")
    larder = start_larder(upstream, defaults={"tag_ttl": "1h"}, rules=[
        {"name": "fresh", "source": REGISTRY + "/app", "target": "fresh", "tag_ttl": "0s"},
        {"name": "kept", "source": REGISTRY + "/other", "target": "kept"}])
    for _ in range(3):
        assert larder.get(paths.manifest("fresh", "v1")).good
        assert larder.get(paths.manifest("kept", "v1")).good
    assert upstream.count("HEAD", TAG) >= 1, "asked again at once"
    assert upstream.count("GET", paths.manifest("other", "v1")) == 1
    assert upstream.count("HEAD", paths.manifest("other", "v1")) <= 1


# ---- 429 ----

@pytest.mark.parametrize("said,least,most", [("30", 1, 30), (None, 1, 3600), ("99999999", 1, 86400), ("soon", 1, 3600), ("-5", 1, 3600),
                                             ("Fri, 01 Jan 2100 00:00:00 GMT", 1, 86400)])
def test_429_is_told_with_a_time_and_upstream_is_left_alone(larder, upstream, image, said, least, most):
    upstream.on(re.compile("."), Fault(status=429, headers={"Retry-After": said}))
    for target in (OURS, OURS, paths.manifest(APP, "other")):
        r = larder.get(target)
        assert r.status == 429 and r.error_code == "TOOMANYREQUESTS"
        assert least <= int(r.header("Retry-After")) <= most
    if said is not None and said.isdigit():
        assert upstream.count() <= 2, "no request of that class before the time is over"


def test_429_ends(larder, upstream, image):
    upstream.on(re.compile("."), Fault(status=429, headers={"Retry-After": "1"}), times=1)
    assert larder.get(OURS).status == 429
    wait_until(lambda: larder.get(OURS).good, "upstream is asked again after a second")


def test_429_for_manifests_does_not_stop_blobs(larder, upstream, image):
    upstream.on(TAG, Fault(status=429, headers={"Retry-After": "600"}))
    assert larder.get(OURS).status == 429
    assert larder.get(paths.blob(APP, image.config)).good


# ---- not found ----

def test_a_tag_that_appears_is_seen_within_seconds(upstream, start_larder):
    larder = start_larder(upstream, defaults={"negative_ttl": "1s"})
    upstream.repo("app")
    assert larder.get(OURS).status == 404
    image = upstream.add("app", Image("appears", (10,)), tag="v1")
    wait_until(lambda: larder.get(OURS).status == 200, "the new tag is seen")
    assert larder.get(OURS).body == image.manifest


def test_not_found_is_remembered_for_its_time(upstream, start_larder):
    larder = start_larder(upstream, defaults={"negative_ttl": "1h"})
    upstream.repo("app")
    digest = "sha256:" + "c" * 64
    for target in (OURS, paths.manifest(APP, digest), paths.blob(APP, digest)):
        upstream.forget()
        for _ in range(5):
            assert larder.get(target).status == 404
        assert upstream.count() <= 2, "a HEAD and a GET at most"


def test_not_found_of_one_name_says_nothing_about_another(larder, upstream, image):
    assert larder.get(paths.manifest(APP, "v2")).status == 404
    assert larder.get(OURS).status == 200
    assert larder.get(paths.manifest("t/none", "v1")).status == 404


def test_a_scan_of_names_does_not_grow_memory(larder, upstream):
    upstream.repo("app")
    with Conn(larder.address) as conn:
        for n in range(500):
            assert conn.exchange("GET", paths.manifest(APP, "scan-%d" % n)).status == 404
        before = larder.status_kib("VmRSS")
        for n in range(3000):
            assert conn.exchange("GET", paths.manifest(APP, "again-%d" % n)).status == 404
    if not larder.sanitized():
        assert larder.status_kib("VmRSS") - before < 4096


# ---- statuses ----

STATUSES = {401: (403,), 402: (502,), 403: (403,), 404: (404,), 405: (502,), 406: (502, 404), 408: (502, 504), 410: (404, 502),
            418: (502,), 429: (429,), 451: (403, 502), 500: (502,), 501: (502,), 502: (502,), 503: (502, 503), 504: (502, 504)}


@pytest.mark.parametrize("status", STATUSES)
def test_statuses_of_upstream_for_what_is_not_cached(larder, upstream, image, status):
    challenge = {"WWW-Authenticate": 'Basic realm="up"'} if status == 401 else {}
    upstream.on(re.compile("."), Fault(status=status, headers=challenge))
    for target in (OURS, paths.manifest(APP, image.digest), paths.blob(APP, image.config), paths.tags(APP)):
        r = larder.get(target)
        assert r.status in STATUSES[status], (target, r)
        assert r.header("WWW-Authenticate") is None
        assert "upstream says" not in r.body.decode(), "upstream's own text may name its hosts"
        r = larder.head(target)
        assert r.status in STATUSES[status], (target, r)
    assert larder.stored_objects() == []


@pytest.mark.parametrize("status", [400, 414, 422])
def test_what_upstream_does_not_take_is_the_clients_mistake(upstream, start_larder, image, status):
    """A client repeats what fails with a 5xx. A blob's name is its digest, there is no mistake in it; and what has been served before is no mistake."""
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"})
    assert larder.get(paths.manifest(APP, "v1")).good and larder.get(paths.tags(APP)).good
    upstream.on(re.compile("."), Fault(status=status))
    for target in (paths.manifest(APP, "other"), paths.manifest(APP, "sha256:" + "1" * 64), paths.tags(APP) + "?n=3"):
        for r in (larder.get(target), larder.head(target)):
            assert r.status == 400 and "upstream says" not in r.body.decode(), (target, r)
    assert larder.get(paths.blob(APP, image.config)).status == 502
    assert larder.get(paths.manifest(APP, "v1")).body == image.manifest and larder.get(paths.tags(APP)).good


def test_a_page_that_is_no_number_is_a_400_without_upstream(larder, upstream, image):
    for n in ("-1", "x", "1.5"):
        r = larder.get(paths.tags(APP) + "?n=" + n)
        assert r.status == 400 and "parameter n" in r.json()["errors"][0]["message"]
    assert upstream.count() == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 414, 422, 429, 500, 503])
def test_statuses_of_upstream_do_not_touch_what_is_cached(larder, upstream, image, status):
    assert larder.get(OURS).good and larder.get(paths.blob(APP, image.config)).good
    upstream.on(re.compile("."), Fault(status=status))
    for target in (OURS, paths.manifest(APP, image.digest), paths.blob(APP, image.config)):
        assert larder.get(target).good and larder.head(target).status == 200
    upstream.clear()
    assert larder.get(paths.blob(APP, image.layers[0])).good or status == 429


@pytest.mark.parametrize("status", [401, 403, 406, 500, 503])
def test_errors_are_not_kept_as_content(larder, upstream, image, status):
    upstream.on(re.compile("."), Fault(status=status))
    larder.get(OURS)
    larder.get(paths.blob(APP, image.config))
    upstream.clear()
    wait_until(lambda: larder.get(OURS).good, "the next request asks again")
    wait_until(lambda: larder.get(paths.blob(APP, image.config)).good, "the next request asks again")
