"""tags/list and referrers: relayed, with links that lead to larder and not past it."""

import json
import re

import pytest

from lib import images, paths
from lib.images import Image
from lib.larder import REGISTRY, cache_status
from lib.upstream import Fault

APP = "t/app"
TAGS = paths.tags("app")


@pytest.fixture
def image(upstream):
    image = upstream.add("app", Image("app", (10,)), tag="v1")
    for n in range(2, 8):
        upstream.tag("app", "v%d" % n, image.digest)
    return image


def link_target(r):
    match = re.fullmatch(r'<([^>]*)>; rel="?next"?', r.header("Link"))
    assert match, r.header("Link")
    return match[1]


def test_the_list_has_the_local_name(larder, image):
    r = larder.get(paths.tags(APP))
    assert r.good and r.header("Content-Type") == "application/json"
    assert r.json() == {"name": APP, "tags": ["v1", "v2", "v3", "v4", "v5", "v6", "v7"]}
    assert r.header("Link") is None


def test_pages_lead_from_one_to_the_next(larder, upstream, image):
    target, found, pages = paths.tags(APP) + "?n=3", [], 0
    while target:
        r = larder.get(target)
        assert r.good and r.json()["name"] == APP
        found += r.json()["tags"]
        pages += 1
        target = link_target(r) if r.header("Link") else None
        assert target is None or target.startswith(paths.tags(APP) + "?"), target
    assert (pages, found) == (3, ["v1", "v2", "v3", "v4", "v5", "v6", "v7"])
    assert [s.query for s in upstream.requests("GET", TAGS)] == ["n=3", "n=3&last=v3", "n=3&last=v6"]


@pytest.mark.parametrize("link", [
    "<{url}/v2/app/tags/list?n=2&cursor={cursor}>; rel=\"next\"",
    "</v2/app/tags/list?n=2&cursor={cursor}>; rel=\"next\"",
    "<https://elsewhere.example/other/prefix/v2/app/tags/list?n=2&cursor={cursor}>; rel=next",
    "</v2/app/tags/list?x=y>; rel=\"prev\", </v2/app/tags/list?n=2&cursor={cursor}>; rel=\"next\""],
    ids=["absolute", "relative", "elsewhere", "second of two"])
def test_links_are_rewritten_and_cursors_kept(larder, upstream, image, link):
    cursor = "a%2Fb%3D%3D.%7E+c,d;e"
    upstream.on(TAGS, Fault(headers={"Link": link.format(url=upstream.url, cursor=cursor)}), nth=1)
    r = larder.get(paths.tags(APP) + "?n=2")
    assert link_target(r) == paths.tags(APP) + "?n=2&cursor=" + cursor
    larder.get(link_target(r))
    assert upstream.requests("GET", TAGS)[-1].query == "n=2&cursor=" + cursor


@pytest.mark.parametrize("links", [
    ["</docs>; rel=\"help\"", "</v2/app/tags/list?n=2&last=v2>; rel=\"next\""],
    ["<https://elsewhere.example/%s/v2/app/tags/list?n=2&last=v2>; rel=\"next\"" % ("p" * 3000)],
    ["<{}>; title=\"%s\"; rel=\"next\"".format("/v2/app/tags/list?n=2&last=v2") % ("t" * 3000)]],
    ids=["in the second field", "a long path", "a long title"])
def test_a_next_page_is_found_wherever_it_is_said(larder, upstream, image, links):
    upstream.on(TAGS, Fault(headers={"Link": links}), nth=1)
    r = larder.get(paths.tags(APP))
    assert link_target(r) == paths.tags(APP) + "?n=2&last=v2"
    assert larder.get(link_target(r)).json()["tags"] == ["v3", "v4"]


@pytest.mark.parametrize("length, good", [(1536, True), (1537, False), (3000, False)])
def test_a_cursor_that_is_passed_on_can_be_asked_for(larder, upstream, image, length, good):
    """And one that cannot be is an error: without the link the list would look complete."""
    cursor = "c=" + "x" * (length - 2)
    upstream.on(TAGS, Fault(headers={"Link": "</v2/app/tags/list?%s>; rel=\"next\"" % cursor}), nth=1)
    r = larder.get(paths.tags(APP))
    if not good:
        assert r.status == 502 and r.error_code == "UNAVAILABLE" and "next page" in r.json()["errors"][0]["message"]
        return
    assert larder.get(link_target(r)).good
    assert upstream.requests()[-1].query == cursor


def test_a_next_page_without_a_query_is_an_error(larder, upstream, image):
    upstream.on(TAGS, Fault(headers={"Link": "</v2/app/tags/list>; rel=\"next\""}))
    assert larder.get(paths.tags(APP)).status == 502


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_list_above_the_limit_is_not_called_a_manifest(larder, upstream, image, framing):
    upstream.on(TAGS, Fault(framing=framing, body=lambda honest: honest + b" " * (16 << 20)))
    r = larder.get(paths.tags(APP))
    assert r.status == 502 and "list is too long" in r.json()["errors"][0]["message"]


def test_ns_is_kept_in_links_and_not_sent_upstream(larder, upstream, image):
    r = larder.get("/v2/app/tags/list?n=3&ns=" + REGISTRY)
    assert r.good and r.json() == {"name": "app", "tags": ["v1", "v2", "v3"]}
    target = link_target(r)
    assert target.startswith("/v2/app/tags/list?") and "ns=" + REGISTRY in target
    r = larder.get(target)
    assert r.json()["tags"] == ["v4", "v5", "v6"]
    assert all("ns=" not in s.query for s in upstream.requests())


def test_the_list_is_kept_for_the_tag_ttl(larder, upstream, image):
    first = larder.get(paths.tags(APP))
    upstream.tag("app", "new", image.digest)
    assert larder.get(paths.tags(APP)).json() == first.json()
    assert upstream.count("GET", TAGS) == 1
    assert larder.get(paths.tags(APP) + "?n=2").json()["tags"] == ["new", "v1"], "another page is another answer"


def test_a_new_tag_is_listed_when_nothing_is_kept(upstream, start_larder, image):
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"})
    larder.get(paths.tags(APP))
    upstream.tag("app", "new", image.digest)
    assert "new" in larder.get(paths.tags(APP)).json()["tags"]


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=503), Fault(status=429), Fault(raw=b"garbage"),
                                   Fault(cut_at=5), None],
                         ids=["500", "503", "429", "garbage", "cut", "gone"])
def test_the_list_is_stale_when_upstream_fails(upstream, start_larder, image, fault):
    larder = start_larder(upstream, defaults={"tag_ttl": "0s"})
    first = larder.get(paths.tags(APP))
    if fault:
        upstream.on(TAGS, fault)
    else:
        upstream.stop()
    r = larder.get(paths.tags(APP))
    assert r.good and r.json() == first.json()
    what, values = cache_status(r)
    assert what == "hit" and values["detail"].startswith("stale")


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b"[1]", b'{"name":"app"', b'{"tags":"x"}'])
def test_what_is_not_a_list_is_not_relayed(larder, upstream, image, body):
    upstream.on(TAGS, Fault(body=body))
    r = larder.get(paths.tags(APP))
    assert r.status == 502 and r.error_code == "UNAVAILABLE"


def test_an_empty_list_and_null(larder, upstream, image):
    """Some registries say null for a repository whose last tag was deleted."""
    upstream.on(TAGS, Fault(body=b'{"name":"app","tags":null}'))
    r = larder.get(paths.tags(APP))
    assert r.good and r.json()["name"] == APP and not r.json()["tags"]


def test_referrers_are_relayed(larder, upstream, image):
    index = images.to_json({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [
        {"mediaType": images.OCI_MANIFEST, "digest": "sha256:" + "b" * 64, "size": 5, "artifactType": "a/b"}]})
    upstream.repo("app")["referrers"][image.digest] = index
    upstream.on(re.compile("/referrers/.*artifactType"), Fault(headers={"OCI-Filters-Applied": "artifactType"}))
    r = larder.get(paths.referrers(APP, image.digest))
    assert r.good and r.header("Content-Type") == images.OCI_INDEX and json.loads(r.body) == json.loads(index)
    r = larder.get(paths.referrers(APP, image.digest) + "?artifactType=a%2Fb")
    assert r.good and r.header("OCI-Filters-Applied") == "artifactType"
    assert upstream.requests("GET", re.compile("/referrers/"))[-1].query == "artifactType=a%2Fb"


@pytest.mark.parametrize("fault", [
    Fault(status=404), Fault(status=410), Fault(status=405), Fault(status=303, headers={"Location": "/login.html"}, body=b""),
    Fault(body=b"<html>hello</html>", headers={"Content-Type": "text/html"}, status=200),
    Fault(body=b'{"hello":1}', headers={"Content-Type": "application/json"}, status=200)],
    ids=["404", "410", "405", "303", "a web page", "another document"])
def test_without_referrers_clients_get_404_and_use_the_fallback_tag(larder, upstream, image, fault):
    upstream.on(re.compile("/referrers/"), fault)
    upstream.on("/login.html", Fault(status=200, body=b"<html>login</html>", headers={"Content-Type": "text/html"}))
    r = larder.get(paths.referrers(APP, image.digest))
    assert r.status == 404 and r.error_code == "MANIFEST_UNKNOWN", "NAME_UNKNOWN says that there is no such repository"
    asked = upstream.count()
    assert larder.get(paths.referrers(APP, image.digest)).status == 404
    assert upstream.count() == asked and not larder.logged(msg="asked without success"), "it is no news the next time"
    tag = image.digest.replace(":", "-")
    upstream.tag("app", tag, image.digest)
    assert larder.get(paths.manifest(APP, tag)).good


@pytest.mark.parametrize("suffix", [".sig", ".att", ".sbom", ""])
def test_cosign_tags(larder, upstream, image, suffix):
    assert larder.get(paths.manifest(APP, "sha256-" + "1" * 64 + suffix)).status == 404
    there = "sha256-" + "2" * 64 + suffix
    upstream.tag("app", there, image.digest)
    assert larder.get(paths.manifest(APP, there)).header("Docker-Content-Digest") == image.digest
